#include "clattn/interop.h"

#include "api/check.h"
#include "plan/plan.h"

struct clattn_attention {
    clattn_attention_desc desc; /* resolved */
    clattn__plan plan;
};

clattn_status clattn_attention_create(clattn_attention **out, clattn_context *context,
                                      const clattn_attention_desc *desc) {
    if (out) *out = NULL;
    if (!out || !context) return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is NULL", out ? "context" : "out");
    clattn_attention_desc resolved;
    clattn_status status = clattn__check_attention_desc(desc, &resolved);
    if (status != CLATTN_OK) return status;
    clattn_attention *attention = clattn__alloc(1, sizeof *attention);
    if (!attention) return CLATTN_OUT_OF_MEMORY;
    status = clattn__plan_attention(&attention->plan, context, &resolved);
    attention->desc = resolved;
    attention->desc.kernel = NULL; /* was borrowed */
    if (status != CLATTN_OK) clattn_attention_destroy(&attention);
    *out = attention;
    return status;
}

void clattn_attention_destroy(clattn_attention **attention) {
    if (!attention || !*attention) return;
    clattn__plan_clear(&(*attention)->plan);
    clattn__free(*attention);
    *attention = NULL;
}

static clattn_status run(clattn_attention *attention, const clattn_attention_io *io, bool blocking, cl_uint waits,
                         const cl_event *wait_list, cl_event *event) {
    if (!attention) return clattn__fail(CLATTN_INVALID_ARGUMENT, "plan is NULL");
    clattn_attention_io dense;
    clattn_status status = clattn__check_attention_io(&attention->desc, io, &dense);
    if (status != CLATTN_OK) return status;
    const clattn_tensor tensors[CLATTN__ROLE_COUNT] = {
        [CLATTN__ROLE_QUERY] = dense.query,
        [CLATTN__ROLE_KEY] = dense.key,
        [CLATTN__ROLE_VALUE] = dense.value,
        [CLATTN__ROLE_MASK] = dense.mask,
        [CLATTN__ROLE_PADDING] = dense.padding_mask,
        [CLATTN__ROLE_LENGTHS] = dense.kv_lengths,
        [CLATTN__ROLE_ALIBI] = dense.alibi,
        [CLATTN__ROLE_SINKS] = dense.sinks,
        [CLATTN__ROLE_SCORE_WEIGHT] = dense.score_weight,
        [CLATTN__ROLE_SCORE_BIAS] = dense.score_bias,
        [CLATTN__ROLE_QUERY_STARTS] = dense.query_starts,
        [CLATTN__ROLE_KEY_STARTS] = dense.key_starts,
        [CLATTN__ROLE_PREFIX] = dense.prefix_lengths,
        [CLATTN__ROLE_QUERY_DOCUMENTS] = dense.query_documents,
        [CLATTN__ROLE_KEY_DOCUMENTS] = dense.key_documents,
        [CLATTN__ROLE_PAST_KEY] = dense.past_key,
        [CLATTN__ROLE_PAST_VALUE] = dense.past_value,
        [CLATTN__ROLE_PRESENT_KEY] = dense.present_key,
        [CLATTN__ROLE_PRESENT_VALUE] = dense.present_value,
        [CLATTN__ROLE_OUTPUT] = dense.output,
        [CLATTN__ROLE_LSE] = dense.logsumexp,
        [CLATTN__ROLE_WEIGHTS] = dense.weights,
        [CLATTN__ROLE_SCORES] = dense.scores,
    };
    return clattn__plan_run(&attention->plan, tensors, blocking, waits, wait_list, event);
}

clattn_status clattn_attention_run(clattn_attention *attention, const clattn_attention_io *io) {
    return run(attention, io, true, 0, NULL, NULL);
}

clattn_status clattn_attention_enqueue(clattn_attention *attention, const clattn_attention_io *io, cl_uint waits,
                                       const cl_event *wait_list, cl_event *event) {
    return run(attention, io, false, waits, wait_list, event);
}

const char *clattn_attention_explain(const clattn_attention *attention) {
    return attention && attention->plan.explain.data ? attention->plan.explain.data : "";
}

clattn_status clattn_attention_info(const clattn_attention *attention, clattn_plan_info *info) {
    if (!attention || !info) return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is NULL", attention ? "info" : "plan");
    clattn__plan_info(&attention->plan, info);
    return CLATTN_OK;
}
