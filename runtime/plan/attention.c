/* From a checked description to the kernels' view of it: features, launch arguments, FLOPs, and the one-step plan. */
#include "plan/plan.h"

#include <limits.h>
#include <string.h>

#include "../../cl/shared/philox.h"

/* Row i stands at i + Sk - Sq, or with lengths at i + length[b] - Sq. */
static bool aligns_end(const clattn_attention_desc *d) {
    return d->causal == CLATTN_CAUSAL_BOTTOM_RIGHT || d->align_end;
}

uint32_t clattn__attention_features(const clattn_attention_desc *d) {
    uint32_t features = 0;
    if (d->causal != CLATTN_CAUSAL_NONE) features |= CLATTN__CAUSAL;
    if (d->window_left >= 0 || d->window_right >= 0) features |= CLATTN__WINDOW;
    if (d->mask == CLATTN_MASK_BOOL) features |= CLATTN__MASK_BOOL;
    if (d->mask == CLATTN_MASK_FLOAT) features |= CLATTN__MASK_FLOAT;
    if (d->padding_mask) features |= CLATTN__PADDING;
    if (d->kv_lengths) features |= CLATTN__LENGTHS;
    if (d->kv_lengths && aligns_end(d)) features |= CLATTN__OFFSET_FROM_LENGTHS;
    if (d->softcap > 0) features |= CLATTN__SOFTCAP;
    if (d->alibi) features |= CLATTN__ALIBI;
    if (d->sinks) features |= CLATTN__SINKS;
    if (d->logsumexp) features |= CLATTN__LSE;
    if (d->weights == CLATTN_WEIGHTS_PER_HEAD) features |= CLATTN__WEIGHTS;
    if (d->weights == CLATTN_WEIGHTS_AVERAGED) features |= CLATTN__AVERAGED_WEIGHTS;
    if (d->scores != CLATTN_SCORES_NONE) features |= CLATTN__SCORES;
    if (d->score == CLATTN_SCORE_GAUSSIAN) features |= CLATTN__SCORE_GAUSSIAN;
    if (d->score == CLATTN_SCORE_ADDITIVE) features |= CLATTN__SCORE_ADDITIVE;
    if (d->score == CLATTN_SCORE_ADDITIVE_LINEAR) features |= CLATTN__SCORE_LINEAR;
    if (d->score_weight) features |= CLATTN__SCORE_WEIGHT;
    if (d->score_bias) features |= CLATTN__SCORE_BIAS;
    if (d->dropout > 0) features |= CLATTN__DROPOUT;
    if (d->prefix) features |= CLATTN__PREFIX;
    if (d->documents) features |= CLATTN__DOCUMENTS;
    if (d->varlen) features |= CLATTN__VARLEN;
    return features;
}

/* Row i of the query stands at position i + origin among the keys. */
static int64_t origin_of(const clattn_attention_desc *d) {
    if (aligns_end(d)) return d->kv_lengths ? -d->query_len : d->kv_len - d->query_len;
    return d->causal == CLATTN_CAUSAL_OFFSET ? d->causal_offset : 0;
}

static int window_side(int64_t side) { return side < 0 || side > INT_MAX / 4 ? INT_MAX : (int)side; }

void clattn__attention_args(const clattn_attention_desc *d, clattn_attn_args *args) {
    memset(args, 0, sizeof *args);
    args->batch = (int)d->batch;
    args->query_heads = (int)d->query_heads;
    args->kv_heads = (int)d->kv_heads;
    args->query_len = (int)d->query_len;
    args->kv_len = (int)d->kv_len;
    args->causal = d->causal != CLATTN_CAUSAL_NONE;
    args->causal_offset = (int)origin_of(d);
    args->window_left = window_side(d->window_left);
    args->window_right = window_side(d->window_right);
    args->mask_len = d->mask == CLATTN_MASK_NONE ? (int)d->kv_len : (int)d->mask_shape[3];
    /* one mask column serves all keys, unless there is one key only */
    if (d->mask != CLATTN_MASK_NONE && d->mask_shape[3] == 1) args->mask_len = (int)d->kv_len;
    args->scale = d->scale;
    args->inverse_temperature = 1.0f / d->temperature;
    args->softcap = d->softcap;
    args->weights_factor = d->weights == CLATTN_WEIGHTS_AVERAGED ? 1.0f / (float)d->query_heads : 1.0f;
    args->align_end = d->varlen && aligns_end(d);
    args->dropout_threshold = clattn_dropout_threshold(d->dropout);
    args->dropout_factor = (float)(1.0 / (1.0 - (double)d->dropout));
    args->seed_low = (uint32_t)d->dropout_seed;
    args->seed_high = (uint32_t)(d->dropout_seed >> 32);
}

double clattn__allowed_pairs(int64_t query_len, int64_t kv_len, bool causal, int64_t offset, int64_t window_left,
                             int64_t window_right) {
    if (!causal && window_left < 0 && window_right < 0) return (double)query_len * (double)kv_len;
    double pairs = 0;
    for (int64_t i = 0; i < query_len; i++) {
        int64_t position = i + offset, low = 0, high = kv_len - 1;
        if (causal && position < high) high = position;
        if (window_right >= 0 && window_right < high - position) high = position + window_right;
        if (window_left >= 0 && window_left < position - low) low = position - window_left;
        if (high >= low) pairs += (double)(high - low + 1);
    }
    return pairs;
}

clattn__attn_problem clattn__attention_problem(const clattn_attention_desc *d, uint32_t cache, clattn_dtype cells) {
    return (clattn__attn_problem){.features = clattn__attention_features(d) | cache,
                                  .dtype = d->dtype,
                                  .precision = d->precision,
                                  .cells = cells,
                                  .scores = d->scores,
                                  .batch = d->batch,
                                  .query_heads = d->query_heads,
                                  .kv_heads = d->kv_heads,
                                  .query_len = d->query_len,
                                  .kv_len = d->kv_len,
                                  .head_dim = d->head_dim,
                                  .value_dim = d->value_dim,
                                  .shared_mask = d->mask != CLATTN_MASK_NONE && d->mask_shape[1] == 1};
}

clattn_status clattn__add_attention(clattn__plan *plan, const clattn_attention_desc *d) {
    const clattn__attn_problem problem = clattn__attention_problem(d, 0, d->dtype);
    return clattn__add_attention_as(plan, d, &problem, d->kernel);
}

clattn_status clattn__add_attention_as(clattn__plan *plan, const clattn_attention_desc *d,
                                       const clattn__attn_problem *problem, const char *forced) {
    const int index = plan->attention_count;
    clattn__attn_kernel *kernel = clattn__plan_add_attention(plan);
    if (!kernel) return CLATTN_OUT_OF_MEMORY;
    clattn_status status = clattn__attn_choose(plan->context, problem, forced, kernel, &plan->notes);
    if (status != CLATTN_OK) return status;
    if (d->kv_lengths && !plan->lengths) {
        plan->lengths = clattn__alloc(d->batch > 0 ? (size_t)d->batch : 1, sizeof *plan->lengths);
        if (!plan->lengths) return CLATTN_OUT_OF_MEMORY;
    }
    clattn__step *step = clattn__plan_add_step(plan, CLATTN__STEP_ATTENTION, index);
    if (!step) return CLATTN_OUT_OF_MEMORY;
    clattn__attention_args(d, &step->args.attn);
    const struct {
        clattn__role role;
        bool wanted;
    } roles[] = {{CLATTN__ROLE_QUERY, true},
                 {CLATTN__ROLE_KEY, true},
                 {CLATTN__ROLE_VALUE, true},
                 {CLATTN__ROLE_OUTPUT, true},
                 {CLATTN__ROLE_MASK, d->mask != CLATTN_MASK_NONE},
                 {CLATTN__ROLE_PADDING, d->padding_mask != 0},
                 {CLATTN__ROLE_LENGTHS, d->kv_lengths != 0},
                 {CLATTN__ROLE_ALIBI, d->alibi != 0},
                 {CLATTN__ROLE_SINKS, d->sinks != 0},
                 {CLATTN__ROLE_SCORE_WEIGHT, d->score_weight != 0},
                 {CLATTN__ROLE_SCORE_BIAS, d->score_bias != 0},
                 {CLATTN__ROLE_QUERY_STARTS, d->varlen != 0},
                 {CLATTN__ROLE_KEY_STARTS, d->varlen != 0},
                 {CLATTN__ROLE_PREFIX, d->prefix != 0},
                 {CLATTN__ROLE_QUERY_DOCUMENTS, d->documents != 0},
                 {CLATTN__ROLE_KEY_DOCUMENTS, d->documents != 0},
                 {CLATTN__ROLE_LSE, d->logsumexp != 0},
                 {CLATTN__ROLE_WEIGHTS, d->weights != CLATTN_WEIGHTS_NONE},
                 {CLATTN__ROLE_SCORES, d->scores != CLATTN_SCORES_NONE}};
    for (size_t i = 0; i < CLATTN__COUNT(roles); i++)
        if (roles[i].wanted) clattn__plan_operand(step, (int)roles[i].role, (int)roles[i].role, 0, 0, 0);
    plan->flops = 2.0 * (double)d->batch * (double)d->query_heads * (double)(d->head_dim + d->value_dim) *
                  clattn__allowed_pairs(d->query_len, d->kv_len, d->causal != CLATTN_CAUSAL_NONE,
                                        d->kv_lengths && aligns_end(d) ? d->kv_len - d->query_len : origin_of(d),
                                        d->window_left, d->window_right);
    return CLATTN_OK;
}

clattn_status clattn__plan_attention(clattn__plan *plan, clattn_context *context, const clattn_attention_desc *d) {
    plan->context = context;
    plan->what = "attention";
    const bool joins = d->past_len > 0 || d->present;
    clattn_status status = joins ? clattn__add_attention_with_past(plan, d) : clattn__add_attention(plan, d);
    return status == CLATTN_OK ? clattn__plan_finish(plan) : status;
}
