#include "clattn/interop.h"

#include "api/check_kv_cache.h"

struct clattn_rope {
    clattn_rope_desc desc; /* resolved */
    clattn__plan plan;
};

clattn_status clattn_rope_create(clattn_rope **out, clattn_context *context, const clattn_rope_desc *desc) {
    if (out) *out = NULL;
    if (!out || !context) return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is NULL", out ? "context" : "out");
    clattn_rope_desc resolved;
    clattn_status status = clattn__check_rope_desc(desc, &resolved);
    if (status != CLATTN_OK) return status;
    clattn_rope *rope = clattn__alloc(1, sizeof *rope);
    if (!rope) return CLATTN_OUT_OF_MEMORY;
    rope->desc = resolved;
    status = clattn__plan_rope(&rope->plan, context, &resolved);
    if (status != CLATTN_OK) clattn_rope_destroy(&rope);
    *out = rope;
    return status;
}

void clattn_rope_destroy(clattn_rope **rope) {
    if (!rope || !*rope) return;
    clattn__plan_clear(&(*rope)->plan);
    clattn__free(*rope);
    *rope = NULL;
}

static clattn_status run(clattn_rope *rope, const clattn_rope_io *io, bool blocking, cl_uint waits,
                         const cl_event *wait_list, cl_event *event) {
    if (!rope) return clattn__fail(CLATTN_INVALID_ARGUMENT, "rope is NULL");
    clattn_rope_io dense;
    clattn_status status = clattn__check_rope_io(&rope->desc, io, &dense);
    if (status != CLATTN_OK) return status;
    const clattn_tensor tensors[CLATTN__ROLE_COUNT] = {
        [CLATTN__ROLE_INPUT] = dense.input,   [CLATTN__ROLE_POSITIONS] = dense.positions,
        [CLATTN__ROLE_COSINE] = dense.cosine, [CLATTN__ROLE_SINE] = dense.sine,
        [CLATTN__ROLE_OUTPUT] = dense.output,
    };
    return clattn__plan_run(&rope->plan, tensors, blocking, waits, wait_list, event);
}

clattn_status clattn_rope_run(clattn_rope *rope, const clattn_rope_io *io) {
    return run(rope, io, true, 0, NULL, NULL);
}

clattn_status clattn_rope_enqueue(clattn_rope *rope, const clattn_rope_io *io, cl_uint waits, const cl_event *wait_list,
                                  cl_event *event) {
    return run(rope, io, false, waits, wait_list, event);
}

const char *clattn_rope_explain(const clattn_rope *rope) {
    return rope && rope->plan.explain.data ? rope->plan.explain.data : "";
}

clattn_status clattn_rope_info(const clattn_rope *rope, clattn_plan_info *info) {
    if (!rope || !info) return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is NULL", rope ? "info" : "rope");
    clattn__plan_info(&rope->plan, info);
    return CLATTN_OK;
}
