#include "api/check.h"

#include <math.h>
#include <string.h>

#include "api/rules.h"

/* ---- attention -------------------------------------------------------------------------------------------------- */

static clattn_status check_mask_shape(const int64_t full[4], int64_t shape[4]) {
    static const char *const axis[4] = {"mask_shape[0] (batch)", "mask_shape[1] (query_heads)",
                                        "mask_shape[2] (query_len)", "mask_shape[3] (kv_len)"};
    if (!shape[0] && !shape[1] && !shape[2] && !shape[3]) {
        shape[0] = shape[1] = 1;
        shape[2] = full[2];
        shape[3] = full[3];
        return CLATTN_OK;
    }
    for (int i = 0; i < 3; i++)
        if (shape[i] != 1 && shape[i] != full[i])
            return clattn__fail(CLATTN_INVALID_SHAPE, "%s is %lld; it must be 1 or %lld", axis[i], (long long)shape[i],
                                (long long)full[i]);
    return shape[3] == 1 ? CLATTN_OK : clattn__check_extent(axis[3], shape[3], 0, full[3]);
}

static clattn_status check_origin(clattn_causal causal, int64_t offset) {
    CLATTN__TRY(clattn__check_choice("causal", (int)causal, CLATTN_CAUSAL_OFFSET));
    if (offset < -CLATTN__MAX_EXTENT || offset > CLATTN__MAX_EXTENT)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "causal_offset is %lld; it must be in -2^28..2^28",
                            (long long)offset);
    return CLATTN_OK;
}

/* Which tensors a score has, and its scale. */
static clattn_status check_score(clattn_attention_desc *d) {
    CLATTN__TRY(clattn__check_choice("score", (int)d->score, CLATTN_SCORE_ADDITIVE_LINEAR));
    const bool additive = d->score == CLATTN_SCORE_ADDITIVE || d->score == CLATTN_SCORE_ADDITIVE_LINEAR;
    if (d->score_weight && d->score == CLATTN_SCORE_DOT)
        return clattn__fail(CLATTN_INVALID_ARGUMENT,
                            "score_weight is %d; the dot product has none, it must be 0 unless score says otherwise",
                            d->score_weight);
    if (additive && !d->score_weight)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "score_weight is 0; additive scores (score %d) need it",
                            (int)d->score);
    if (d->score_bias && !additive)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "score_bias is %d; only additive scores have one, score is %d",
                            d->score_bias, (int)d->score);
    if (d->has_scale) CLATTN__TRY(clattn__check_finite("scale", d->scale));
    if (!d->has_scale) d->scale = d->score == CLATTN_SCORE_DOT ? (float)(1.0 / sqrt((double)d->head_dim)) : 1.0f;
    d->has_scale = 1;
    return CLATTN_OK;
}

static clattn_status check_past(const clattn_attention_desc *d) {
    if (d->past_len < 0 || d->past_len > d->kv_len)
        return clattn__fail(CLATTN_INVALID_SHAPE, "past_len is %lld; it must be in 0..kv_len (%lld), which counts it",
                            (long long)d->past_len, (long long)d->kv_len);
    if (d->varlen && (d->past_len > 0 || d->present))
        return clattn__fail(CLATTN_INVALID_ARGUMENT,
                            "varlen and %s are both given; packed sequences have no past of their own",
                            d->past_len > 0 ? "past_len" : "present");
    return CLATTN_OK;
}

/* Dropout, prefixes and alignment, and what does not go together. */
static clattn_status check_extras(const clattn_attention_desc *d) {
    if (!(d->dropout >= 0 && d->dropout < 1))
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "dropout is %g; it must be at least 0 and below 1", d->dropout);
    if (d->prefix && d->causal == CLATTN_CAUSAL_NONE)
        return clattn__fail(CLATTN_INVALID_ARGUMENT,
                            "prefix is %d, but causal is off; a prefix is what the causal mask does not hide",
                            d->prefix);
    CLATTN__TRY(check_past(d));
    if (d->align_end && (d->causal == CLATTN_CAUSAL_TOP_LEFT || d->causal == CLATTN_CAUSAL_OFFSET))
        return clattn__fail(CLATTN_INVALID_ARGUMENT,
                            "align_end is %d, but causal is %d; only without a causal mask, or with "
                            "CLATTN_CAUSAL_BOTTOM_RIGHT, do rows count from the end",
                            d->align_end, (int)d->causal);
    return CLATTN_OK;
}

clattn_status clattn__check_attention_desc(const clattn_attention_desc *in, clattn_attention_desc *d) {
    if (!in) return clattn__fail(CLATTN_INVALID_ARGUMENT, "desc is NULL");
    CLATTN__TRY(clattn__check_struct_size("clattn_attention_desc", in->struct_size,
                                          offsetof(clattn_attention_desc, logsumexp), sizeof *in));
    clattn_attention_desc_init(d);
    memcpy(d, in, in->struct_size);
    d->struct_size = sizeof *d;
    if (d->kv_heads == 0) d->kv_heads = d->query_heads;
    if (d->value_dim == 0) d->value_dim = d->head_dim;

    CLATTN__TRY(clattn__check_extent("batch", d->batch, 0, CLATTN__MAX_EXTENT));
    CLATTN__TRY(clattn__check_extent("query_heads", d->query_heads, 1, CLATTN__MAX_EXTENT));
    CLATTN__TRY(clattn__check_extent("kv_heads", d->kv_heads, 1, CLATTN__MAX_EXTENT));
    CLATTN__TRY(clattn__check_extent("query_len", d->query_len, 0, CLATTN__MAX_EXTENT));
    CLATTN__TRY(clattn__check_extent("kv_len", d->kv_len, 0, CLATTN__MAX_EXTENT));
    CLATTN__TRY(clattn__check_extent("head_dim", d->head_dim, 1, CLATTN_MAX_HEAD_DIM));
    CLATTN__TRY(clattn__check_extent("value_dim", d->value_dim, 1, CLATTN_MAX_HEAD_DIM));
    if (d->query_heads % d->kv_heads != 0)
        return clattn__fail(CLATTN_INVALID_SHAPE,
                            "query_heads is %lld and kv_heads is %lld; query_heads must be a multiple of kv_heads",
                            (long long)d->query_heads, (long long)d->kv_heads);
    int64_t query[4] = {d->batch, d->query_heads, d->query_len, d->head_dim};
    int64_t key[4] = {d->batch, d->kv_heads, d->kv_len, d->head_dim};
    int64_t value[4] = {d->batch, d->kv_heads, d->kv_len, d->value_dim};
    int64_t output[4] = {d->batch, d->query_heads, d->query_len, d->value_dim};
    int64_t pairs[4] = {d->batch, d->query_heads, d->query_len, d->kv_len};
    CLATTN__TRY(clattn__check_volume("query", query, 4));
    CLATTN__TRY(clattn__check_volume("key", key, 4));
    CLATTN__TRY(clattn__check_volume("value", value, 4));
    CLATTN__TRY(clattn__check_volume("output", output, 4));

    CLATTN__TRY(clattn__check_choice("dtype", (int)d->dtype, CLATTN_BF16));
    CLATTN__TRY(clattn__check_choice("precision", (int)d->precision, CLATTN_PRECISION_FAST));
    CLATTN__TRY(check_score(d));
    CLATTN__TRY(clattn__check_finite("temperature", d->temperature));
    if (!(d->temperature > 0))
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "temperature is %g; it must be > 0", d->temperature);
    CLATTN__TRY(clattn__check_finite("softcap", d->softcap));
    if (d->softcap < 0)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "softcap is %g; it must be > 0, or 0 for none", d->softcap);
    CLATTN__TRY(check_origin(d->causal, d->causal_offset));
    if (d->window_left < -1)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "window_left is %lld; it must be >= 0, or -1 for none",
                            (long long)d->window_left);
    if (d->window_right < -1)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "window_right is %lld; it must be >= 0, or -1 for none",
                            (long long)d->window_right);
    CLATTN__TRY(clattn__check_choice("mask", (int)d->mask, CLATTN_MASK_FLOAT));
    if (d->mask != CLATTN_MASK_NONE) CLATTN__TRY(check_mask_shape(pairs, d->mask_shape));
    CLATTN__TRY(clattn__check_choice("weights", (int)d->weights, CLATTN_WEIGHTS_AVERAGED));
    CLATTN__TRY(clattn__check_choice("scores", (int)d->scores, CLATTN_SCORES_SOFTMAX));
    if (d->weights != CLATTN_WEIGHTS_NONE) CLATTN__TRY(clattn__check_volume("weights", pairs, 4));
    if (d->scores != CLATTN_SCORES_NONE) CLATTN__TRY(clattn__check_volume("scores", pairs, 4));
    return check_extras(d);
}

static int64_t length_at(const clattn_tensor *lengths, int64_t b) {
    const int64_t at = lengths->offset + b * lengths->stride[0];
    return lengths->dtype == CLATTN_I64 ? ((const int64_t *)lengths->data)[at] : ((const int32_t *)lengths->data)[at];
}

static clattn_status check_lengths(const clattn_tensor *lengths, int64_t batch, int64_t kv_len) {
    for (int64_t b = 0; lengths->data && b < batch; b++) {
        const int64_t n = length_at(lengths, b);
        if (n < 0 || n > kv_len)
            return clattn__fail(CLATTN_INVALID_ARGUMENT, "kv_lengths[%lld] is %lld; it must be in 0..kv_len (%lld)",
                                (long long)b, (long long)n, (long long)kv_len);
    }
    return CLATTN_OK;
}

/* Each in 0..kv_len. */
static clattn_status check_prefixes(const clattn_tensor *prefixes, int64_t batch, int64_t kv_len) {
    for (int64_t b = 0; prefixes->data && b < batch; b++) {
        const int32_t n = ((const int32_t *)prefixes->data)[prefixes->offset + b * prefixes->stride[0]];
        if (n < 0 || n > kv_len)
            return clattn__fail(CLATTN_INVALID_ARGUMENT, "prefix_lengths[%lld] is %d; it must be in 0..kv_len (%lld)",
                                (long long)b, n, (long long)kv_len);
    }
    return CLATTN_OK;
}

/* Where packed sequences begin: from 0 on, never backwards, none longer than `longest`, and all within `total` rows. */
static clattn_status check_starts(const char *field, const clattn_tensor *starts, int64_t batch, int64_t longest,
                                  int64_t total) {
    if (!starts->data) return CLATTN_OK;
    const int32_t *start = (const int32_t *)starts->data + starts->offset;
    const int64_t step = starts->stride[0];
    if (start[0] != 0)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s[0] is %d; the first sequence must begin at 0", field,
                            start[0]);
    for (int64_t b = 0; b < batch; b++) {
        const int64_t from = start[b * step], to = start[(b + 1) * step];
        if (to < from)
            return clattn__fail(CLATTN_INVALID_ARGUMENT,
                                "%s[%lld] is %lld, below the %lld before it; it must not decrease", field,
                                (long long)b + 1, (long long)to, (long long)from);
        if (to - from > longest)
            return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s says that sequence %lld has %lld rows; the most is %lld",
                                field, (long long)b, (long long)(to - from), (long long)longest);
        if (to > total)
            return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s[%lld] is %lld; the packed tensor has %lld rows", field,
                                (long long)b + 1, (long long)to, (long long)total);
    }
    return CLATTN_OK;
}

/* Lengths within packed sequences that the host knows: no more than the keys that there are. */
static clattn_status check_used_keys(const clattn_tensor *lengths, const clattn_tensor *starts, int64_t batch) {
    if (!lengths->data || !starts->data) return CLATTN_OK;
    const int32_t *start = (const int32_t *)starts->data + starts->offset;
    for (int64_t b = 0; b < batch; b++) {
        const int64_t n = length_at(lengths, b);
        const int64_t keys = (int64_t)start[(b + 1) * starts->stride[0]] - start[b * starts->stride[0]];
        if (n > keys)
            return clattn__fail(CLATTN_INVALID_ARGUMENT, "kv_lengths[%lld] is %lld; packed sequence %lld has %lld keys",
                                (long long)b, (long long)n, (long long)b, (long long)keys);
    }
    return CLATTN_OK;
}

/* Query, key, value or output: (B, H, S, D), or packed (T, H, D). */
static clattn__tensor_rule token_rule(const clattn_attention_desc *d, const char *name, bool output, int64_t heads,
                                      int64_t rows, int64_t width) {
    const clattn__tensor_rule batched = {name, true, output, (int)d->dtype, 4, {d->batch, heads, rows, width}};
    const clattn__tensor_rule packed = {name, true, output, (int)d->dtype, 3, {rows, heads, width}};
    return d->varlen ? packed : batched;
}

/* (T, H, D) seen as (1, H, T, D). */
static void unpack(clattn_tensor *t) {
    const int64_t shape[4] = {1, t->shape[1], t->shape[0], t->shape[2]};
    const int64_t stride[4] = {0, t->stride[1], t->stride[0], t->stride[2]};
    t->rank = 4;
    memcpy(t->shape, shape, sizeof shape);
    memcpy(t->stride, stride, sizeof stride);
}

static clattn_status check_packed(const clattn_attention_desc *d, clattn_attention_io *io, int64_t Tq, int64_t Tk) {
    if (!d->varlen) return CLATTN_OK;
    CLATTN__TRY(check_starts("query_starts", &io->query_starts, d->batch, d->query_len, Tq));
    CLATTN__TRY(check_starts("key_starts", &io->key_starts, d->batch, d->kv_len, Tk));
    CLATTN__TRY(check_used_keys(&io->kv_lengths, &io->key_starts, d->batch));
    unpack(&io->query);
    unpack(&io->key);
    unpack(&io->value);
    unpack(&io->output);
    if (!d->logsumexp) return CLATTN_OK;
    const clattn_tensor lse = io->logsumexp;
    io->logsumexp.rank = 3;
    for (int i = 0; i < 3; i++) {
        io->logsumexp.shape[i] = i == 0 ? 1 : lse.shape[i - 1];
        io->logsumexp.stride[i] = i == 0 ? 0 : lse.stride[i - 1];
    }
    return CLATTN_OK;
}

clattn_status clattn__check_attention_io(const clattn_attention_desc *d, const clattn_attention_io *io,
                                         clattn_attention_io *out) {
    if (!io) return clattn__fail(CLATTN_INVALID_ARGUMENT, "io is NULL");
    const int64_t B = d->batch, Hq = d->query_heads, Hkv = d->kv_heads, Sq = d->query_len, Sk = d->kv_len;
    const bool averaged = d->weights == CLATTN_WEIGHTS_AVERAGED, packed = d->varlen != 0;
    const bool past = d->past_len > 0, present = d->present != 0;
    const int64_t P = d->past_len;
    /* how many rows there are in all, only a packed tensor itself can say */
    const int64_t Tq = packed && io->query.rank > 0 ? io->query.shape[0] : Sq;
    const int64_t Tk = packed && io->key.rank > 0 ? io->key.shape[0] : Sk - P;
    if (packed) CLATTN__TRY(clattn__check_extent("query.shape[0]", Tq, 0, CLATTN__MAX_EXTENT));
    if (packed) CLATTN__TRY(clattn__check_extent("key.shape[0]", Tk, 0, CLATTN__MAX_EXTENT));
    const clattn__tensor_row rows[] = {
        {token_rule(d, "query", false, Hq, Tq, d->head_dim), &io->query, &out->query},
        {token_rule(d, "key", false, Hkv, Tk, d->head_dim), &io->key, &out->key},
        {token_rule(d, "value", false, Hkv, Tk, d->value_dim), &io->value, &out->value},
        {{"past_key", past, false, (int)d->dtype, 4, {B, Hkv, P, d->head_dim}}, &io->past_key, &out->past_key},
        {{"past_value", past, false, (int)d->dtype, 4, {B, Hkv, P, d->value_dim}}, &io->past_value, &out->past_value},
        {{"present_key", present, true, (int)d->dtype, 4, {B, Hkv, Sk, d->head_dim}},
         &io->present_key,
         &out->present_key},
        {{"present_value", present, true, (int)d->dtype, 4, {B, Hkv, Sk, d->value_dim}},
         &io->present_value,
         &out->present_value},
        {{"mask",
          d->mask != CLATTN_MASK_NONE,
          false,
          d->mask == CLATTN_MASK_BOOL ? CLATTN_BOOL : CLATTN_F32,
          4,
          {d->mask_shape[0], d->mask_shape[1], d->mask_shape[2], d->mask_shape[3]}},
         &io->mask,
         &out->mask},
        {{"padding_mask", d->padding_mask != 0, false, CLATTN_BOOL, 2, {B, Sk}}, &io->padding_mask, &out->padding_mask},
        {{"kv_lengths", d->kv_lengths != 0, false, CLATTN__ANY_LENGTHS, 1, {B}}, &io->kv_lengths, &out->kv_lengths},
        {{"alibi", d->alibi != 0, false, CLATTN_F32, 1, {Hq}}, &io->alibi, &out->alibi},
        {{"sinks", d->sinks != 0, false, CLATTN_F32, 1, {Hq}}, &io->sinks, &out->sinks},
        {{"score_weight", d->score_weight != 0, false, CLATTN_F32, 1, {d->head_dim}},
         &io->score_weight,
         &out->score_weight},
        {{"score_bias", d->score_bias != 0, false, CLATTN_F32, 1, {d->head_dim}}, &io->score_bias, &out->score_bias},
        {{"prefix_lengths", d->prefix != 0, false, CLATTN_I32, 1, {B}}, &io->prefix_lengths, &out->prefix_lengths},
        {{"query_documents", d->documents != 0, false, CLATTN_I32, 2, {B, Sq}},
         &io->query_documents,
         &out->query_documents},
        {{"key_documents", d->documents != 0, false, CLATTN_I32, 2, {B, Sk}}, &io->key_documents, &out->key_documents},
        {{"query_starts", packed, false, CLATTN_I32, 1, {B + 1}}, &io->query_starts, &out->query_starts},
        {{"key_starts", packed, false, CLATTN_I32, 1, {B + 1}}, &io->key_starts, &out->key_starts},
        {token_rule(d, "output", true, Hq, Tq, d->value_dim), &io->output, &out->output},
        {{"logsumexp", d->logsumexp != 0, true, CLATTN_F32, packed ? 2 : 3, {packed ? Hq : B, packed ? Tq : Hq, Sq}},
         &io->logsumexp,
         &out->logsumexp},
        {{"weights",
          d->weights != CLATTN_WEIGHTS_NONE,
          true,
          CLATTN_F32,
          averaged ? 3 : 4,
          {B, averaged ? Sq : Hq, averaged ? Sk : Sq, averaged ? 0 : Sk}},
         &io->weights,
         &out->weights},
        {{"scores", d->scores != CLATTN_SCORES_NONE, true, CLATTN_F32, 4, {B, Hq, Sq, Sk}}, &io->scores, &out->scores},
    };
    CLATTN__TRY(clattn__check_tensors(rows, CLATTN__COUNT(rows)));
    CLATTN__TRY(check_lengths(&out->kv_lengths, d->kv_lengths ? B : 0, Sk));
    CLATTN__TRY(check_prefixes(&out->prefix_lengths, d->prefix ? B : 0, Sk));
    return check_packed(d, out, Tq, Tk);
}

/* ---- the multi-head layer --------------------------------------------------------------------------------------- */

clattn_status clattn__check_mha_desc(const clattn_mha_desc *in, clattn_mha_desc *d) {
    if (!in) return clattn__fail(CLATTN_INVALID_ARGUMENT, "desc is NULL");
    CLATTN__TRY(clattn__check_struct_size("clattn_mha_desc", in->struct_size,
                                          offsetof(clattn_mha_desc, attention_kernel), sizeof *in));
    clattn_mha_desc_init(d);
    memcpy(d, in, in->struct_size);
    d->struct_size = sizeof *d;
    CLATTN__TRY(clattn__check_choice("inputs", (int)d->inputs, CLATTN_MHA_SEPARATE));
    if (d->inputs == CLATTN_MHA_SELF && d->kv_len == 0) d->kv_len = d->query_len;
    if (d->key_dim == 0) d->key_dim = d->embed_dim;
    if (d->value_dim == 0) d->value_dim = d->embed_dim;

    CLATTN__TRY(clattn__check_extent("batch", d->batch, 0, CLATTN__MAX_EXTENT));
    CLATTN__TRY(clattn__check_extent("query_len", d->query_len, 0, CLATTN__MAX_EXTENT));
    CLATTN__TRY(clattn__check_extent("kv_len", d->kv_len, 0, CLATTN__MAX_EXTENT));
    CLATTN__TRY(clattn__check_extent("embed_dim", d->embed_dim, 1, CLATTN__MAX_EXTENT));
    CLATTN__TRY(clattn__check_extent("heads", d->heads, 1, CLATTN__MAX_EXTENT));
    CLATTN__TRY(clattn__check_extent("key_dim", d->key_dim, 1, CLATTN__MAX_EXTENT));
    CLATTN__TRY(clattn__check_extent("value_dim", d->value_dim, 1, CLATTN__MAX_EXTENT));
    if (d->embed_dim % d->heads != 0)
        return clattn__fail(CLATTN_INVALID_SHAPE,
                            "embed_dim is %lld and heads is %lld; embed_dim must be a multiple of heads",
                            (long long)d->embed_dim, (long long)d->heads);
    CLATTN__TRY(clattn__check_extent("embed_dim / heads", d->embed_dim / d->heads, 1, CLATTN_MAX_HEAD_DIM));
    if (d->inputs == CLATTN_MHA_SELF && d->kv_len != d->query_len)
        return clattn__fail(CLATTN_INVALID_SHAPE,
                            "kv_len is %lld and query_len is %lld; self-attention needs them equal",
                            (long long)d->kv_len, (long long)d->query_len);
    if (d->inputs == CLATTN_MHA_SELF && (d->key_dim != d->embed_dim || d->value_dim != d->embed_dim))
        return clattn__fail(
            CLATTN_INVALID_SHAPE,
            "key_dim is %lld and value_dim is %lld; self-attention needs both equal to embed_dim (%lld)",
            (long long)d->key_dim, (long long)d->value_dim, (long long)d->embed_dim);
    if (d->inputs == CLATTN_MHA_CROSS && d->key_dim != d->value_dim)
        return clattn__fail(
            CLATTN_INVALID_SHAPE,
            "key_dim is %lld and value_dim is %lld; with one tensor for key and value they must be equal",
            (long long)d->key_dim, (long long)d->value_dim);
    int64_t widest = d->embed_dim > d->key_dim ? d->embed_dim : d->key_dim;
    if (d->value_dim > widest) widest = d->value_dim;
    int64_t longest = d->query_len > d->kv_len ? d->query_len : d->kv_len;
    int64_t tokens[4] = {d->batch, longest + 2, widest, 4}, weight[4] = {3, d->embed_dim, widest, 1};
    int64_t pairs[4] = {d->batch, d->heads, d->query_len, d->kv_len + 2};
    CLATTN__TRY(clattn__check_volume("the input", tokens, 4));
    CLATTN__TRY(clattn__check_volume("in_proj_weight", weight, 4));

    CLATTN__TRY(clattn__check_choice("dtype", (int)d->dtype, CLATTN_BF16));
    CLATTN__TRY(clattn__check_choice("precision", (int)d->precision, CLATTN_PRECISION_FAST));
    if (d->has_scale) CLATTN__TRY(clattn__check_finite("scale", d->scale));
    if (!d->has_scale) d->scale = (float)(1.0 / sqrt((double)(d->embed_dim / d->heads)));
    d->has_scale = 1;
    CLATTN__TRY(check_origin(d->causal, d->causal_offset));
    CLATTN__TRY(clattn__check_choice("mask", (int)d->mask, CLATTN_MASK_FLOAT));
    int64_t full[4] = {d->batch, d->heads, d->query_len, d->kv_len};
    if (d->mask != CLATTN_MASK_NONE) CLATTN__TRY(check_mask_shape(full, d->mask_shape));
    CLATTN__TRY(clattn__check_choice("weights", (int)d->weights, CLATTN_WEIGHTS_AVERAGED));
    if (d->weights != CLATTN_WEIGHTS_NONE) CLATTN__TRY(clattn__check_volume("weights", pairs, 4));
    return CLATTN_OK;
}

/* Rows [first, first + count) of a packed tensor. */
static clattn_tensor part_of(const clattn_tensor *packed, int64_t first, int64_t count) {
    clattn_tensor part = *packed;
    part.offset += first * packed->stride[0];
    part.shape[0] = count;
    return part;
}

clattn_status clattn__check_mha_weights(const clattn_mha_desc *d, const clattn_mha_weights *in, clattn_mha_weights *out,
                                        clattn__widened *copies) {
    if (!in) return clattn__fail(CLATTN_INVALID_ARGUMENT, "weights is NULL");
    memset(out, 0, sizeof *out);
    const int64_t E = d->embed_dim;
    const bool packed = in->in_proj_weight.data != NULL;
    const bool packed_bias = in->in_proj_bias.data != NULL;
    if (packed && (in->q_proj_weight.data || in->k_proj_weight.data || in->v_proj_weight.data))
        return clattn__fail(CLATTN_INVALID_ARGUMENT,
                            "in_proj_weight and a separate q/k/v_proj_weight are both given; give one form");
    if (!packed && !in->in_proj_weight.mem && !in->q_proj_weight.data && !in->q_proj_weight.mem)
        return clattn__fail(CLATTN_INVALID_ARGUMENT,
                            "q_proj_weight is missing, and in_proj_weight too; give one form of the projections");
    if (packed && (d->key_dim != E || d->value_dim != E))
        return clattn__fail(CLATTN_INVALID_SHAPE,
                            "in_proj_weight needs key_dim (%lld) and value_dim (%lld) equal to embed_dim (%lld)",
                            (long long)d->key_dim, (long long)d->value_dim, (long long)E);
    const bool separate_bias = in->q_proj_bias.data || in->k_proj_bias.data || in->v_proj_bias.data;
    if (packed_bias && separate_bias)
        return clattn__fail(CLATTN_INVALID_ARGUMENT,
                            "in_proj_bias and a separate q/k/v_proj_bias are both given; give one form");
    clattn_tensor in_weight, in_bias;
    const struct {
        const char *name;
        bool wanted;
        int rank;
        int64_t shape[2];
        const clattn_tensor *in;
        clattn_tensor *out;
    } rows[] = {
        {"in_proj_weight", packed, 2, {3 * E, E}, &in->in_proj_weight, &in_weight},
        {"q_proj_weight", !packed, 2, {E, E}, &in->q_proj_weight, &out->q_proj_weight},
        {"k_proj_weight", !packed, 2, {E, d->key_dim}, &in->k_proj_weight, &out->k_proj_weight},
        {"v_proj_weight", !packed, 2, {E, d->value_dim}, &in->v_proj_weight, &out->v_proj_weight},
        {"in_proj_bias", packed_bias, 1, {3 * E}, &in->in_proj_bias, &in_bias},
        {"q_proj_bias", false, 1, {E}, &in->q_proj_bias, &out->q_proj_bias},
        {"k_proj_bias", false, 1, {E}, &in->k_proj_bias, &out->k_proj_bias},
        {"v_proj_bias", false, 1, {E}, &in->v_proj_bias, &out->v_proj_bias},
        {"out_proj_weight", true, 2, {E, E}, &in->out_proj_weight, &out->out_proj_weight},
        {"out_proj_bias", false, 1, {E}, &in->out_proj_bias, &out->out_proj_bias},
        {"bias_k", false, 1, {E}, &in->bias_k, &out->bias_k},
        {"bias_v", false, 1, {E}, &in->bias_v, &out->bias_v},
    };
    for (size_t i = 0; i < CLATTN__COUNT(rows); i++)
        CLATTN__TRY(clattn__check_weight(rows[i].name, rows[i].wanted, rows[i].rank, rows[i].shape[0], rows[i].shape[1],
                                         rows[i].in, rows[i].out, copies));
    if (!in->bias_k.data != !in->bias_v.data)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "only one of bias_k and bias_v is given; give both or none");
    if (packed) {
        out->q_proj_weight = part_of(&in_weight, 0, E);
        out->k_proj_weight = part_of(&in_weight, E, E);
        out->v_proj_weight = part_of(&in_weight, 2 * E, E);
    }
    if (packed_bias) {
        out->q_proj_bias = part_of(&in_bias, 0, E);
        out->k_proj_bias = part_of(&in_bias, E, E);
        out->v_proj_bias = part_of(&in_bias, 2 * E, E);
    }
    return CLATTN_OK;
}

int64_t clattn__mha_appended_keys(const clattn_mha_desc *desc, const clattn_mha_weights *weights) {
    return (weights->bias_k.data ? 1 : 0) + (desc->add_zero_attn ? 1 : 0);
}

clattn_status clattn__check_mha_io(const clattn_mha_desc *d, int64_t appended_keys, const clattn_mha_io *io,
                                   clattn_mha_io *out) {
    if (!io) return clattn__fail(CLATTN_INVALID_ARGUMENT, "io is NULL");
    const int64_t B = d->batch, L = d->query_len, S = d->kv_len;
    const bool averaged = d->weights == CLATTN_WEIGHTS_AVERAGED;
    const int64_t T = S + appended_keys;
    const clattn__tensor_row rows[] = {
        {{"query", true, false, (int)d->dtype, 3, {B, L, d->embed_dim}}, &io->query, &out->query},
        {{"key", d->inputs != CLATTN_MHA_SELF, false, (int)d->dtype, 3, {B, S, d->key_dim}}, &io->key, &out->key},
        {{"value", d->inputs == CLATTN_MHA_SEPARATE, false, (int)d->dtype, 3, {B, S, d->value_dim}},
         &io->value,
         &out->value},
        {{"mask",
          d->mask != CLATTN_MASK_NONE,
          false,
          d->mask == CLATTN_MASK_BOOL ? CLATTN_BOOL : CLATTN_F32,
          4,
          {d->mask_shape[0], d->mask_shape[1], d->mask_shape[2], d->mask_shape[3]}},
         &io->mask,
         &out->mask},
        {{"padding_mask", d->padding_mask != 0, false, CLATTN_BOOL, 2, {B, S}}, &io->padding_mask, &out->padding_mask},
        {{"output", true, true, (int)d->dtype, 3, {B, L, d->embed_dim}}, &io->output, &out->output},
        {{"weights",
          d->weights != CLATTN_WEIGHTS_NONE,
          true,
          CLATTN_F32,
          averaged ? 3 : 4,
          {B, averaged ? L : d->heads, averaged ? T : L, averaged ? 0 : T}},
         &io->weights,
         &out->weights},
    };
    return clattn__check_tensors(rows, CLATTN__COUNT(rows));
}
