/* Golden cases of the operation "attention_varlen": sequences of different lengths, one behind the other.
 * Letters: T rows of all sequences, H, G heads, B sequences. */
#include <math.h>
#include <string.h>

#include "case.h"

/* The greatest difference of two neighbours: an upper bound of the lengths when the case gives none. */
static case_result longest_of(cli_case *c, const char *role, const char *attribute, cli_array **starts,
                              int64_t *longest) {
    CASE_TRY(case_input(c, role, starts));
    if (!*starts || (*starts)->dtype != CLATTN_I32 || (*starts)->rank != 1 || (*starts)->shape[0] < 1)
        return case_error(c, "'%s' is not int32 (B + 1)", role);
    const int32_t *at = (*starts)->data;
    *longest = 0;
    for (int64_t b = 1; b < (*starts)->shape[0]; b++)
        if ((int64_t)at[b] - at[b - 1] > *longest) *longest = (int64_t)at[b] - at[b - 1];
    *longest = case_whole(c, attribute, (double)*longest);
    return CASE_DONE;
}

static case_result describe_order(cli_case *c, clattn_attention_desc *d) {
    d->window_left = case_whole(c, "window_left", -1);
    d->window_right = case_whole(c, "window_right", -1);
    const char *alignment = case_text(c, "causal_alignment");
    const bool bottom_right = strcmp(alignment, "bottom_right") == 0;
    if (!bottom_right && strcmp(alignment, "top_left") != 0 && alignment[0])
        return case_unsupported(c, "causal_alignment '%s' is not supported", alignment);
    if (case_flag(c, "is_causal")) d->causal = bottom_right ? CLATTN_CAUSAL_BOTTOM_RIGHT : CLATTN_CAUSAL_TOP_LEFT;
    d->align_end = !d->causal && bottom_right;
    return CASE_DONE;
}

case_result case_attention_varlen(cli_case *c) {
    cli_array *query, *key, *value, *output, *lse, *query_starts, *key_starts, *slopes, *sinks;
    clattn_attention_desc d;
    clattn_attention_desc_init(&d);
    CASE_TRY(case_input(c, "query", &query));
    CASE_TRY(case_input(c, "key", &key));
    CASE_TRY(case_input(c, "value", &value));
    CASE_TRY(case_input(c, "alibi_slopes", &slopes));
    CASE_TRY(case_input(c, "sink_logits", &sinks));
    if (!query || !key || !value || query->rank != 3 || key->rank != 3 || value->rank != 3)
        return case_error(c, "query, key or value is not (T, H, D)");
    CASE_TRY(longest_of(c, "cu_seqlens_q", "max_seqlen_q", &query_starts, &d.query_len));
    CASE_TRY(longest_of(c, "cu_seqlens_k", "max_seqlen_k", &key_starts, &d.kv_len));
    CASE_TRY(case_output(c, "output", query->dtype, &output));
    CASE_TRY(case_output(c, "lse", CLATTN_F32, &lse));
    CASE_TRY(describe_order(c, &d));
    if (!output) return case_error(c, "the case has no output");
    d.varlen = 1;
    d.batch = query_starts->shape[0] - 1;
    d.query_heads = query->shape[1];
    d.kv_heads = key->shape[1];
    d.head_dim = query->shape[2];
    d.value_dim = value->shape[2];
    d.dtype = query->dtype;
    d.kernel = c->kernel;
    d.softcap = (float)case_number(c, "softcap", 0);
    d.alibi = slopes != NULL;
    d.sinks = sinks != NULL;
    d.logsumexp = lse != NULL;
    case_scale(c, &d);
    clattn_attention_io io = {.query = cli_array_tensor(query),
                              .key = cli_array_tensor(key),
                              .value = cli_array_tensor(value),
                              .output = cli_array_tensor(output),
                              .query_starts = cli_array_tensor(query_starts),
                              .key_starts = cli_array_tensor(key_starts)};
    if (lse) io.logsumexp = cli_array_tensor(lse);
    if (slopes) io.alibi = cli_array_tensor(slopes);
    if (sinks) io.sinks = cli_array_tensor(sinks);
    clattn_attention *plan = NULL;
    clattn_plan_info info = {0};
    clattn_status status = clattn_attention_create(&plan, c->context, &d);
    if (status == CLATTN_OK) status = clattn_attention_run(plan, &io);
    if (status == CLATTN_OK) status = clattn_attention_info(plan, &info);
    const case_result result = case_status(c, status, &info);
    clattn_attention_destroy(&plan);
    return result;
}
