/* Golden cases of the operation "attention": layouts become strided views, options become the description. What the
 * library has no option for (rows without keys, windows of another origin, a relative bias) becomes a mask built here.
 * Letters: B batch, H query heads, G key/value heads, L query length, P past length, T all keys, D, Dv head sizes. */
#include <math.h>
#include <string.h>

#include "case.h"

typedef struct attention_case {
    cli_array *query, *key, *value, *past_key, *past_value, *mask, *lengths, *slopes;
    cli_array *output, *lse, *scores, *weights;
    int64_t past;
    clattn_attention_desc desc;
    clattn_attention_io io;
} attention_case;

/* ---- layouts -------------------------------------------------------------------------------------------------- */

/* (batch, heads, length, size) in whatever way the layout stores it. */
static case_result layout_view(cli_case *c, const char *role, const cli_array *array, int64_t heads,
                               clattn_tensor *view) {
    const char *layout = case_text(c, "layout");
    const int64_t *n = array->shape;
    *view = (clattn_tensor){.data = array->data, .dtype = array->dtype, .rank = 4};
    if (strcmp(layout, "B H S D") == 0 && array->rank == 4 && n[1] == heads) {
        memcpy(view->shape, n, sizeof view->shape);
        return CASE_DONE;
    }
    if (strcmp(layout, "B S H*D") == 0 && array->rank == 3 && heads > 0 && n[2] % heads == 0) {
        int64_t size = n[2] / heads, shape[4] = {n[0], heads, n[1], size}, stride[4] = {n[1] * n[2], size, n[2], 1};
        memcpy(view->shape, shape, sizeof shape);
        memcpy(view->stride, stride, sizeof stride);
        return CASE_DONE;
    }
    bool batched = strcmp(layout, "B S D") == 0 && array->rank == 3;
    if (batched || (strcmp(layout, "S D") == 0 && array->rank == 2)) {
        int64_t shape[4] = {batched ? n[0] : 1, 1, n[array->rank - 2], n[array->rank - 1]};
        memcpy(view->shape, shape, sizeof shape);
        return CASE_DONE;
    }
    return case_error(c, "'%s' has a shape that does not fit the layout '%s' with %lld heads", role, layout,
                      (long long)heads);
}

/* (B, G, P, D) before `fresh`; and room for all of them, which the case may want to see. */
static case_result past_view(cli_case *c, const char *role, const char *present, const clattn_tensor *fresh,
                             clattn_tensor *past, clattn_tensor *whole) {
    cli_array *given, *joined;
    const int64_t *m = fresh->shape;
    CASE_TRY(case_input(c, role, &given));
    CASE_TRY(case_output(c, present, fresh->dtype, &joined));
    if (!given || given->rank != 4 || given->dtype != fresh->dtype)
        return case_error(c, "'%s' is not (B, H, P, D) of the type of the new rows", role);
    *past = cli_array_tensor(given);
    const int64_t shape[4] = {m[0], m[1], given->shape[2] + m[2], m[3]};
    if (!joined) CASE_TRY(case_scratch(c, fresh->dtype, 4, shape, &joined));
    return case_view(c, joined, 4, shape, whole);
}

/* ---- masks ---------------------------------------------------------------------------------------------------- */

/* Where query row i of batch entry b stands among the keys; causal masks and windows count from there. */
static int64_t position(const attention_case *a, int64_t b, int64_t i) {
    const int64_t *lengths = a->lengths ? a->lengths->data : NULL;
    return i + (lengths ? lengths[b] - a->desc.query_len : a->past);
}

static bool in_reach(const cli_case *c, int64_t p, int64_t j) {
    int64_t left = case_whole(c, "window_left", -1), right = case_whole(c, "window_right", -1);
    int64_t prefix = case_whole(c, "prefix_length", 0);
    if (case_flag(c, "is_causal") && j > p && j >= prefix) return false;
    return (left < 0 || j >= p - left) && (right < 0 || j <= p + right);
}

/* A window without a causal mask that begins behind the past, or at a length. */
static bool counts_from_end(const cli_case *c, const attention_case *a) {
    const bool window = case_number(c, "window_left", -1) >= 0 || case_number(c, "window_right", -1) >= 0;
    return window && !case_flag(c, "is_causal") && (a->past || a->lengths);
}

/* True when positions need what the description cannot say. */
static bool needs_built_mask(const cli_case *c, const attention_case *a, const cli_array *dead) {
    return dead || (counts_from_end(c, a) && !a->lengths && a->io.key.shape[2] != a->desc.query_len);
}

static case_result check_documents(cli_case *c, const attention_case *a, const cli_array *documents) {
    const clattn_attention_desc *d = &a->desc;
    if (documents->dtype == CLATTN_I32 && documents->rank == 2 && documents->shape[0] == d->batch &&
        documents->shape[1] >= d->query_len && documents->shape[1] >= d->kv_len)
        return CASE_DONE;
    return case_error(c, "document_ids is not int32 (B, length)");
}

/* Prefixes and documents as the library knows them. */
static case_result describe_prefix_and_documents(cli_case *c, attention_case *a, const cli_array *documents) {
    clattn_attention_desc *d = &a->desc;
    const double length = case_number(c, "prefix_length", 0);
    cli_array *prefix;
    if (d->causal != CLATTN_CAUSAL_NONE && length > 0) {
        CASE_TRY(case_scratch(c, CLATTN_I32, 1, &d->batch, &prefix));
        for (int64_t b = 0; b < d->batch; b++) ((int32_t *)prefix->data)[b] = (int32_t)fmin(length, (double)d->kv_len);
        d->prefix = 1;
        a->io.prefix_lengths = cli_array_tensor(prefix);
    }
    if (!documents) return CASE_DONE;
    d->documents = 1;
    a->io.query_documents = cli_array_tensor(documents);
    a->io.query_documents.shape[1] = d->query_len;
    a->io.query_documents.stride[0] = documents->shape[1];
    a->io.query_documents.stride[1] = 1;
    a->io.key_documents = a->io.query_documents;
    a->io.key_documents.shape[1] = d->kv_len;
    return CASE_DONE;
}

/* Everything that forbids keys by their position, as one bool mask (B, 1, L, T). */
static case_result build_mask(cli_case *c, attention_case *a, const cli_array *documents, const cli_array *dead) {
    const clattn_attention_desc *d = &a->desc;
    int64_t shape[4] = {d->batch, 1, d->query_len, d->kv_len};
    if (dead && (dead->dtype != CLATTN_BOOL || cli_array_elements(dead) != d->query_len))
        return case_error(c, "query_dead is not bool (L)");
    CASE_TRY(case_scratch(c, CLATTN_BOOL, 4, shape, &a->mask));
    uint8_t *out = a->mask->data;
    for (int64_t b = 0; b < d->batch; b++) {
        const int32_t *ids = documents ? (const int32_t *)documents->data + b * documents->shape[1] : NULL;
        for (int64_t i = 0; i < d->query_len; i++)
            for (int64_t j = 0; j < d->kv_len; j++) {
                bool allowed = in_reach(c, position(a, b, i), j) && (!ids || ids[i] == ids[j]);
                *out++ = allowed && !(dead && ((const uint8_t *)dead->data)[i]);
            }
    }
    return CASE_DONE;
}

/* bias (H, L + T - 1) by distance, as a float mask (1, H, L, T). */
static case_result build_bias(cli_case *c, attention_case *a, const cli_array *bias) {
    const clattn_attention_desc *d = &a->desc;
    int64_t shape[4] = {1, d->query_heads, d->query_len, d->kv_len}, distances = d->query_len + d->kv_len - 1;
    if (bias->dtype != CLATTN_F32 || bias->rank != 2 || bias->shape[0] != d->query_heads || bias->shape[1] != distances)
        return case_error(c, "relative_bias is not float32 (H, L + S - 1)");
    CASE_TRY(case_scratch(c, CLATTN_F32, 4, shape, &a->mask));
    float *out = a->mask->data;
    for (int64_t h = 0; h < shape[1]; h++)
        for (int64_t i = 0; i < shape[2]; i++)
            for (int64_t j = 0; j < shape[3]; j++)
                *out++ = ((const float *)bias->data)[h * distances + j - i + shape[2] - 1];
    return CASE_DONE;
}

static case_result describe_causal(cli_case *c, attention_case *a) {
    clattn_attention_desc *d = &a->desc;
    d->window_left = case_whole(c, "window_left", -1);
    d->window_right = case_whole(c, "window_right", -1);
    d->align_end = counts_from_end(c, a);
    if (!case_flag(c, "is_causal")) return CASE_DONE;
    const char *alignment = case_text(c, "causal_alignment");
    d->causal_offset = a->past;
    if (strcmp(alignment, "offset") == 0)
        d->causal = CLATTN_CAUSAL_OFFSET;
    else if (strcmp(alignment, "top_left") == 0)
        d->causal = CLATTN_CAUSAL_TOP_LEFT;
    else if (strcmp(alignment, "bottom_right") == 0 || strcmp(alignment, "offset_per_batch") == 0)
        d->causal = CLATTN_CAUSAL_BOTTOM_RIGHT;
    else
        return case_unsupported(c, "causal_alignment '%s' is not supported", alignment);
    return CASE_DONE;
}

static case_result given_mask(cli_case *c, attention_case *a) {
    char reason[256];
    CASE_TRY(case_input(c, "attn_mask", &a->mask));
    if (!a->mask) return CASE_DONE;
    if (strcmp(case_text(c, "mask_true_means"), "masked") == 0)
        return case_unsupported(c, "a mask whose True means masked is not supported for this operation");
    if (a->mask->dtype != CLATTN_BOOL && !cli_array_to_f32(a->mask, reason))
        return case_error(c, "attn_mask: %s", reason);
    return CASE_DONE;
}

static case_result describe_masks(cli_case *c, attention_case *a) {
    cli_array *documents, *dead, *bias;
    CASE_TRY(given_mask(c, a));
    CASE_TRY(case_input(c, "document_ids", &documents));
    CASE_TRY(case_input(c, "query_dead", &dead));
    CASE_TRY(case_input(c, "relative_bias", &bias));
    bool build = needs_built_mask(c, a, dead);
    if (documents) CASE_TRY(check_documents(c, a, documents));
    if ((a->mask != NULL) + build + (bias != NULL) > 1)
        return case_unsupported(c, "more than one of attn_mask, relative_bias and a mask by position is not supported");
    if (build) CASE_TRY(build_mask(c, a, documents, dead));
    if (!build) CASE_TRY(describe_causal(c, a));
    if (!build) CASE_TRY(describe_prefix_and_documents(c, a, documents));
    if (bias) CASE_TRY(build_bias(c, a, bias));
    if (!a->mask) return CASE_DONE;
    /* right-aligned to (B, H, L, T), but a batch without a head axis means (B, L, T) */
    int64_t shape[4] = {1, 1, 1, 1};
    int rank = a->mask->rank;
    for (int i = 0; i < rank; i++) shape[4 - rank + i] = a->mask->shape[i];
    if (rank == 3 && strcmp(case_text(c, "layout"), "B S D") == 0) {
        shape[0] = shape[1];
        shape[1] = 1;
    }
    memcpy(a->desc.mask_shape, shape, sizeof shape);
    a->desc.mask = a->mask->dtype == CLATTN_BOOL ? CLATTN_MASK_BOOL : CLATTN_MASK_FLOAT;
    return case_view(c, a->mask, 4, shape, &a->io.mask);
}

/* ---- the rest of the description ------------------------------------------------------------------------------ */

static case_result load_inputs(cli_case *c, attention_case *a) {
    int64_t heads = case_whole(c, "q_num_heads", 1), groups = case_whole(c, "kv_num_heads", 1);
    CASE_TRY(case_input(c, "query", &a->query));
    CASE_TRY(case_input(c, "key", &a->key));
    CASE_TRY(case_input(c, "value", &a->value));
    CASE_TRY(case_input(c, "past_key", &a->past_key));
    CASE_TRY(case_input(c, "past_value", &a->past_value));
    CASE_TRY(case_input(c, "nonpad_kv_seqlen", &a->lengths));
    CASE_TRY(case_input(c, "alibi_slopes", &a->slopes));
    if (!a->query || !a->key || !a->value) return case_error(c, "query, key or value is missing");
    if (!a->past_key != !a->past_value) return case_error(c, "only one of past_key and past_value is there");
    CASE_TRY(layout_view(c, "query", a->query, heads, &a->io.query));
    CASE_TRY(layout_view(c, "key", a->key, groups, &a->io.key));
    CASE_TRY(layout_view(c, "value", a->value, groups, &a->io.value));
    a->past = a->past_key && a->past_key->rank == 4 ? a->past_key->shape[2] : 0;
    if (!a->past_key) return CASE_DONE;
    a->desc.past_len = a->past;
    a->desc.present = 1;
    CASE_TRY(past_view(c, "past_key", "present_key", &a->io.key, &a->io.past_key, &a->io.present_key));
    return past_view(c, "past_value", "present_value", &a->io.value, &a->io.past_value, &a->io.present_value);
}

static case_result describe_sizes(cli_case *c, attention_case *a) {
    clattn_attention_desc *d = &a->desc;
    d->batch = a->io.query.shape[0];
    d->query_heads = a->io.query.shape[1];
    d->kv_heads = a->io.key.shape[1];
    d->query_len = a->io.query.shape[2];
    d->kv_len = a->past + a->io.key.shape[2];
    d->head_dim = a->io.query.shape[3];
    d->value_dim = a->io.value.shape[3];
    d->dtype = a->query->dtype;
    d->kernel = c->kernel;
    double scale = case_number(c, "scale", NAN);
    d->has_scale = !isnan(scale);
    d->scale = d->has_scale ? (float)scale : 0;
    d->softcap = (float)case_number(c, "softcap", 0);
    if (!a->lengths) return CASE_DONE;
    if (a->lengths->dtype != CLATTN_I64 || a->lengths->rank != 1 || a->lengths->shape[0] != d->batch)
        return case_error(c, "nonpad_kv_seqlen is not int64 (B)");
    d->kv_lengths = 1;
    a->io.kv_lengths = cli_array_tensor(a->lengths);
    return CASE_DONE;
}

static case_result describe_outputs(cli_case *c, attention_case *a) {
    clattn_attention_desc *d = &a->desc;
    cli_array *raw;
    CASE_TRY(case_output(c, "output", d->dtype, &a->output));
    CASE_TRY(case_output(c, "lse", CLATTN_F32, &a->lse));
    CASE_TRY(case_output(c, "qk_matmul_output", CLATTN_F32, &a->scores));
    CASE_TRY(case_output(c, "scores", CLATTN_F32, &raw));
    CASE_TRY(case_output(c, "attn_weights", CLATTN_F32, &a->weights));
    if (!a->output) return case_error(c, "the case has no output");
    if (a->scores && raw) return case_error(c, "the case has both scores and qk_matmul_output");
    int mode = a->scores ? case_whole(c, "qk_matmul_output_mode", 0) : 0;
    if (mode < 0 || mode > 3) return case_error(c, "qk_matmul_output_mode is %d; it must be 0 to 3", mode);
    if (raw) a->scores = raw;
    d->scores = a->scores ? (clattn_scores_output)(CLATTN_SCORES_RAW + mode) : CLATTN_SCORES_NONE;
    d->weights = a->weights ? CLATTN_WEIGHTS_PER_HEAD : CLATTN_WEIGHTS_NONE;
    d->logsumexp = a->lse != NULL;
    int64_t pairs[4] = {d->batch, d->query_heads, d->query_len, d->kv_len};
    CASE_TRY(layout_view(c, "output", a->output, d->query_heads, &a->io.output));
    CASE_TRY(case_view(c, a->lse, 3, pairs, &a->io.logsumexp));
    CASE_TRY(case_view(c, a->scores, 4, pairs, &a->io.scores));
    return case_view(c, a->weights, 4, pairs, &a->io.weights);
}

case_result case_attention(cli_case *c) {
    attention_case a = {0};
    const double axis = case_number(c, "softmax_axis", -1);
    if (axis == 0 || axis == -2) return case_attention_over_queries(c);
    if (axis != -1) return case_unsupported(c, "softmax along axis %g is not supported", axis);
    clattn_attention_desc_init(&a.desc);
    CASE_TRY(load_inputs(c, &a));
    CASE_TRY(describe_sizes(c, &a));
    CASE_TRY(describe_masks(c, &a));
    CASE_TRY(describe_outputs(c, &a));
    if (a.slopes) {
        a.desc.alibi = 1;
        a.io.alibi = cli_array_tensor(a.slopes);
    }
    clattn_attention *plan = NULL;
    clattn_status status = clattn_attention_create(&plan, c->context, &a.desc);
    clattn_plan_info info;
    if (status == CLATTN_OK) status = clattn_attention_run(plan, &a.io);
    if (status == CLATTN_OK) status = clattn_attention_info(plan, &info);
    case_result result = case_status(c, status, &info);
    clattn_attention_destroy(&plan);
    return result;
}
