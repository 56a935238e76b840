#include "clattn/interop.h"

#include "api/check.h"
#include "layers/layers.h"

struct clattn_mha {
    clattn_mha_desc desc; /* resolved */
    int64_t appended_keys;
    clattn__plan plan;
};

clattn_status clattn_mha_create(clattn_mha **out, clattn_context *context, const clattn_mha_desc *desc,
                                const clattn_mha_weights *weights) {
    if (out) *out = NULL;
    if (!out || !context) return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is NULL", out ? "context" : "out");
    clattn_mha_desc resolved;
    clattn_mha_weights separate;
    clattn__widened copies = {0};
    clattn_mha *mha = NULL;
    clattn_status status = clattn__check_mha_desc(desc, &resolved);
    if (status == CLATTN_OK) status = clattn__check_mha_weights(&resolved, weights, &separate, &copies);
    if (status == CLATTN_OK && !(mha = clattn__alloc(1, sizeof *mha))) status = CLATTN_OUT_OF_MEMORY;
    if (status == CLATTN_OK) {
        mha->appended_keys = clattn__mha_appended_keys(&resolved, &separate);
        mha->desc = resolved;
        mha->desc.attention_kernel = mha->desc.gemm_kernel = NULL; /* are borrowed */
        status = clattn__plan_mha(&mha->plan, context, &resolved, &separate, mha->appended_keys);
    }
    clattn__widened_clear(&copies);
    if (status != CLATTN_OK) clattn_mha_destroy(&mha);
    *out = mha;
    return status;
}

void clattn_mha_destroy(clattn_mha **mha) {
    if (!mha || !*mha) return;
    clattn__plan_clear(&(*mha)->plan);
    clattn__free(*mha);
    *mha = NULL;
}

static clattn_status run(clattn_mha *mha, const clattn_mha_io *io, bool blocking, cl_uint waits,
                         const cl_event *wait_list, cl_event *event) {
    if (!mha) return clattn__fail(CLATTN_INVALID_ARGUMENT, "mha is NULL");
    clattn_mha_io dense;
    clattn_status status = clattn__check_mha_io(&mha->desc, mha->appended_keys, io, &dense);
    if (status != CLATTN_OK) return status;
    const clattn_tensor tensors[CLATTN__ROLE_COUNT] = {
        [CLATTN__ROLE_QUERY] = dense.query,          [CLATTN__ROLE_KEY] = dense.key,
        [CLATTN__ROLE_VALUE] = dense.value,          [CLATTN__ROLE_MASK] = dense.mask,
        [CLATTN__ROLE_PADDING] = dense.padding_mask, [CLATTN__ROLE_OUTPUT] = dense.output,
        [CLATTN__ROLE_WEIGHTS] = dense.weights,
    };
    return clattn__plan_run(&mha->plan, tensors, blocking, waits, wait_list, event);
}

clattn_status clattn_mha_run(clattn_mha *mha, const clattn_mha_io *io) { return run(mha, io, true, 0, NULL, NULL); }

clattn_status clattn_mha_enqueue(clattn_mha *mha, const clattn_mha_io *io, cl_uint waits, const cl_event *wait_list,
                                 cl_event *event) {
    return run(mha, io, false, waits, wait_list, event);
}

const char *clattn_mha_explain(const clattn_mha *mha) {
    return mha && mha->plan.explain.data ? mha->plan.explain.data : "";
}

clattn_status clattn_mha_info(const clattn_mha *mha, clattn_plan_info *info) {
    if (!mha || !info) return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is NULL", mha ? "info" : "mha");
    clattn__plan_info(&mha->plan, info);
    return CLATTN_OK;
}

clattn_status clattn_mha_buffer(const clattn_mha *mha, int index, clattn_plan_buffer *row) {
    if (!mha || !row) return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is NULL", mha ? "row" : "mha");
    return clattn__plan_buffer(&mha->plan, index, row);
}
