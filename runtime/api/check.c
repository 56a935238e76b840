#include "api/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- one value ---------------------------------------------------------------------------------------------------- */

static clattn_status check_extent(const char *field, int64_t value, int64_t low, int64_t high) {
    if (value < low || value > high)
        return clattn__fail(CLATTN_INVALID_SHAPE, "%s is %lld; it must be in %lld..%lld", field, (long long)value,
                            (long long)low, (long long)high);
    return CLATTN_OK;
}

static clattn_status check_choice(const char *field, int value, int last) {
    if (value < 0 || value > last)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is %d; it must be in 0..%d", field, value, last);
    return CLATTN_OK;
}

static clattn_status check_finite(const char *field, double value) {
    if (!isfinite(value)) return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is %g; it must be finite", field, value);
    return CLATTN_OK;
}

static clattn_status check_struct_size(const char *type, size_t size, size_t least, size_t ours) {
    if (size < least || size > ours)
        return clattn__fail(CLATTN_INVALID_ARGUMENT,
                            "%s.struct_size is %zu; call %s_init first (this library knows %zu bytes)", type, size,
                            type, ours);
    return CLATTN_OK;
}

static clattn_status check_volume(const char *what, const int64_t *extents, int rank) {
    size_t bytes;
    if (!clattn__volume(extents, rank, 8, &bytes) || bytes > (size_t)1 << 62)
        return clattn__fail(CLATTN_INVALID_SHAPE, "%s has %lld x %lld x %lld x %lld elements; the product overflows",
                            what, (long long)extents[0], (long long)(rank > 1 ? extents[1] : 1),
                            (long long)(rank > 2 ? extents[2] : 1), (long long)(rank > 3 ? extents[3] : 1));
    return CLATTN_OK;
}

/* Runs a check and leaves the function on failure; every rule below then stays one line. */
#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        clattn_status try_status = (call);                                                                             \
        if (try_status != CLATTN_OK) return try_status;                                                                \
    } while (0)

/* ---- one tensor --------------------------------------------------------------------------------------------------- */

enum { ANY_LENGTHS = -1 };

typedef struct tensor_rule {
    const char *name;
    bool wanted;
    bool output;
    int dtype; /* a clattn_dtype, or ANY_LENGTHS */
    int rank;
    int64_t shape[CLATTN_MAX_RANK];
} tensor_rule;

static void shape_text(const int64_t *shape, int rank, char *text, size_t capacity) {
    size_t at = 0;
    text[0] = 0;
    for (int i = 0; i < rank && at < capacity; i++) {
        int n = snprintf(text + at, capacity - at, "%s%lld", i ? ", " : "", (long long)shape[i]);
        if (n < 0) return;
        at += (size_t)n;
    }
}

static bool is_empty(const clattn_tensor *tensor) {
    for (int i = 0; i < tensor->rank; i++)
        if (tensor->shape[i] == 0) return true;
    return false;
}

/* Two elements of an output may not share memory: walking from the smallest stride up, each must step over everything
 * that the smaller ones cover. */
static bool strides_overlap(const clattn_tensor *tensor) {
    bool used[CLATTN_MAX_RANK] = {false};
    int64_t covered = 1;
    for (int round = 0; round < tensor->rank; round++) {
        int smallest = -1;
        for (int i = 0; i < tensor->rank; i++)
            if (!used[i] && tensor->shape[i] > 1 && (smallest < 0 || tensor->stride[i] < tensor->stride[smallest]))
                smallest = i;
        if (smallest < 0) return false;
        used[smallest] = true;
        if (tensor->stride[smallest] < covered) return true;
        covered = tensor->stride[smallest] * (tensor->shape[smallest] - 1) + covered;
    }
    return false;
}

static clattn_status check_strides(const tensor_rule *rule, clattn_tensor *tensor) {
    bool dense = true;
    for (int i = 0; i < tensor->rank; i++) dense = dense && tensor->stride[i] == 0;
    if (dense) {
        int64_t step = 1;
        for (int i = tensor->rank - 1; i >= 0; i--) {
            tensor->stride[i] = step;
            step *= tensor->shape[i] > 0 ? tensor->shape[i] : 1;
        }
        return CLATTN_OK;
    }
    for (int i = 0; i < tensor->rank; i++) {
        if (tensor->stride[i] < 0 || tensor->stride[i] > (int64_t)1 << 40)
            return clattn__fail(CLATTN_INVALID_SHAPE, "%s.stride[%d] is %lld; it must be in 0..2^40", rule->name, i,
                                (long long)tensor->stride[i]);
        int64_t extents[2] = {tensor->stride[i], tensor->shape[i]};
        TRY(check_volume(rule->name, extents, 2));
    }
    int last = tensor->rank - 1;
    if (tensor->shape[last] > 1 && tensor->stride[last] != 1)
        return clattn__fail(CLATTN_INVALID_SHAPE, "%s.stride[%d] is %lld; the last axis must be contiguous (stride 1)",
                            rule->name, last, (long long)tensor->stride[last]);
    if (rule->output && !is_empty(tensor) && strides_overlap(tensor))
        return clattn__fail(CLATTN_INVALID_SHAPE, "%s has strides by which elements share memory; an output must not",
                            rule->name);
    return CLATTN_OK;
}

static clattn_status check_tensor(const tensor_rule *rule, const clattn_tensor *in, clattn_tensor *out) {
    *out = *in;
    bool given = in->data || in->mem;
    if (!rule->wanted) {
        if (given)
            return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is given, but the description does not ask for it",
                                rule->name);
        memset(out, 0, sizeof *out);
        return CLATTN_OK;
    }
    bool empty = false;
    for (int i = 0; i < rule->rank; i++) empty = empty || rule->shape[i] == 0;
    if (!given && !empty)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is missing; the description asks for it", rule->name);
    if (!given) { /* nothing to read or write: an empty view stands for it */
        memset(out, 0, sizeof *out);
        out->rank = rule->rank;
        memcpy(out->shape, rule->shape, sizeof out->shape);
        out->dtype = rule->dtype >= 0 ? (clattn_dtype)rule->dtype : CLATTN_I32;
        return check_strides(rule, out);
    }
    if (in->data && in->mem)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s has both data and mem; give exactly one", rule->name);
    bool dtype_fits = rule->dtype == ANY_LENGTHS ? in->dtype == CLATTN_I32 || (in->dtype == CLATTN_I64 && in->data)
                                                 : (int)in->dtype == rule->dtype;
    if (!dtype_fits)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s has element type %s; it must be %s", rule->name,
                            clattn_dtype_name(in->dtype),
                            rule->dtype == ANY_LENGTHS ? "int32 (or int64 in host memory)"
                                                       : clattn_dtype_name((clattn_dtype)rule->dtype));
    if (in->rank != rule->rank)
        return clattn__fail(CLATTN_INVALID_SHAPE, "%s has rank %d; it must have rank %d", rule->name, in->rank,
                            rule->rank);
    if (memcmp(in->shape, rule->shape, sizeof(int64_t) * (size_t)rule->rank) != 0) {
        char got[96], want[96];
        shape_text(in->shape, in->rank, got, sizeof got);
        shape_text(rule->shape, rule->rank, want, sizeof want);
        return clattn__fail(CLATTN_INVALID_SHAPE, "%s has shape (%s); the description says (%s)", rule->name, got,
                            want);
    }
    if (in->offset < 0 || in->offset > (int64_t)1 << 48)
        return clattn__fail(CLATTN_INVALID_SHAPE, "%s.offset is %lld; it must be in 0..2^48", rule->name,
                            (long long)in->offset);
    return check_strides(rule, out);
}

/* ---- attention ---------------------------------------------------------------------------------------------------- */

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
    return check_extent(axis[3], shape[3], 0, full[3]);
}

static clattn_status check_origin(clattn_causal causal, int64_t offset) {
    TRY(check_choice("causal", (int)causal, CLATTN_CAUSAL_OFFSET));
    if (offset < -CLATTN__MAX_EXTENT || offset > CLATTN__MAX_EXTENT)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "causal_offset is %lld; it must be in -2^28..2^28",
                            (long long)offset);
    return CLATTN_OK;
}

clattn_status clattn__check_attention_desc(const clattn_attention_desc *in, clattn_attention_desc *d) {
    if (!in) return clattn__fail(CLATTN_INVALID_ARGUMENT, "desc is NULL");
    TRY(check_struct_size("clattn_attention_desc", in->struct_size, offsetof(clattn_attention_desc, logsumexp),
                          sizeof *in));
    clattn_attention_desc_init(d);
    memcpy(d, in, in->struct_size);
    d->struct_size = sizeof *d;
    if (d->kv_heads == 0) d->kv_heads = d->query_heads;
    if (d->value_dim == 0) d->value_dim = d->head_dim;

    TRY(check_extent("batch", d->batch, 0, CLATTN__MAX_EXTENT));
    TRY(check_extent("query_heads", d->query_heads, 1, CLATTN__MAX_EXTENT));
    TRY(check_extent("kv_heads", d->kv_heads, 1, CLATTN__MAX_EXTENT));
    TRY(check_extent("query_len", d->query_len, 0, CLATTN__MAX_EXTENT));
    TRY(check_extent("kv_len", d->kv_len, 0, CLATTN__MAX_EXTENT));
    TRY(check_extent("head_dim", d->head_dim, 1, CLATTN_MAX_HEAD_DIM));
    TRY(check_extent("value_dim", d->value_dim, 1, CLATTN_MAX_HEAD_DIM));
    if (d->query_heads % d->kv_heads != 0)
        return clattn__fail(CLATTN_INVALID_SHAPE,
                            "query_heads is %lld and kv_heads is %lld; query_heads must be a multiple of kv_heads",
                            (long long)d->query_heads, (long long)d->kv_heads);
    int64_t query[4] = {d->batch, d->query_heads, d->query_len, d->head_dim};
    int64_t key[4] = {d->batch, d->kv_heads, d->kv_len, d->head_dim};
    int64_t value[4] = {d->batch, d->kv_heads, d->kv_len, d->value_dim};
    int64_t output[4] = {d->batch, d->query_heads, d->query_len, d->value_dim};
    int64_t pairs[4] = {d->batch, d->query_heads, d->query_len, d->kv_len};
    TRY(check_volume("query", query, 4));
    TRY(check_volume("key", key, 4));
    TRY(check_volume("value", value, 4));
    TRY(check_volume("output", output, 4));

    TRY(check_choice("dtype", (int)d->dtype, CLATTN_BF16));
    if (d->has_scale) TRY(check_finite("scale", d->scale));
    if (!d->has_scale) d->scale = (float)(1.0 / sqrt((double)d->head_dim));
    d->has_scale = 1;
    TRY(check_finite("temperature", d->temperature));
    if (!(d->temperature > 0))
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "temperature is %g; it must be > 0", d->temperature);
    TRY(check_finite("softcap", d->softcap));
    if (d->softcap < 0)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "softcap is %g; it must be > 0, or 0 for none", d->softcap);
    TRY(check_origin(d->causal, d->causal_offset));
    if (d->window_left < -1)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "window_left is %lld; it must be >= 0, or -1 for none",
                            (long long)d->window_left);
    if (d->window_right < -1)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "window_right is %lld; it must be >= 0, or -1 for none",
                            (long long)d->window_right);
    TRY(check_choice("mask", (int)d->mask, CLATTN_MASK_FLOAT));
    if (d->mask != CLATTN_MASK_NONE) TRY(check_mask_shape(pairs, d->mask_shape));
    TRY(check_choice("weights", (int)d->weights, CLATTN_WEIGHTS_AVERAGED));
    TRY(check_choice("scores", (int)d->scores, CLATTN_SCORES_SOFTMAX));
    if (d->weights != CLATTN_WEIGHTS_NONE) TRY(check_volume("weights", pairs, 4));
    if (d->scores != CLATTN_SCORES_NONE) TRY(check_volume("scores", pairs, 4));
    return CLATTN_OK;
}

static clattn_status check_lengths(const clattn_tensor *lengths, int64_t batch, int64_t kv_len) {
    for (int64_t b = 0; lengths->data && b < batch; b++) {
        int64_t at = lengths->offset + b * lengths->stride[0];
        int64_t n =
            lengths->dtype == CLATTN_I64 ? ((const int64_t *)lengths->data)[at] : ((const int32_t *)lengths->data)[at];
        if (n < 0 || n > kv_len)
            return clattn__fail(CLATTN_INVALID_ARGUMENT, "kv_lengths[%lld] is %lld; it must be in 0..kv_len (%lld)",
                                (long long)b, (long long)n, (long long)kv_len);
    }
    return CLATTN_OK;
}

clattn_status clattn__check_attention_io(const clattn_attention_desc *d, const clattn_attention_io *io,
                                         clattn_attention_io *out) {
    if (!io) return clattn__fail(CLATTN_INVALID_ARGUMENT, "io is NULL");
    const int64_t B = d->batch, Hq = d->query_heads, Hkv = d->kv_heads, Sq = d->query_len, Sk = d->kv_len;
    const bool averaged = d->weights == CLATTN_WEIGHTS_AVERAGED;
    const struct {
        tensor_rule rule;
        const clattn_tensor *in;
        clattn_tensor *out;
    } rows[] = {
        {{"query", true, false, (int)d->dtype, 4, {B, Hq, Sq, d->head_dim}}, &io->query, &out->query},
        {{"key", true, false, (int)d->dtype, 4, {B, Hkv, Sk, d->head_dim}}, &io->key, &out->key},
        {{"value", true, false, (int)d->dtype, 4, {B, Hkv, Sk, d->value_dim}}, &io->value, &out->value},
        {{"mask",
          d->mask != CLATTN_MASK_NONE,
          false,
          d->mask == CLATTN_MASK_BOOL ? CLATTN_BOOL : CLATTN_F32,
          4,
          {d->mask_shape[0], d->mask_shape[1], d->mask_shape[2], d->mask_shape[3]}},
         &io->mask,
         &out->mask},
        {{"padding_mask", d->padding_mask != 0, false, CLATTN_BOOL, 2, {B, Sk}}, &io->padding_mask, &out->padding_mask},
        {{"kv_lengths", d->kv_lengths != 0, false, ANY_LENGTHS, 1, {B}}, &io->kv_lengths, &out->kv_lengths},
        {{"alibi", d->alibi != 0, false, CLATTN_F32, 1, {Hq}}, &io->alibi, &out->alibi},
        {{"sinks", d->sinks != 0, false, CLATTN_F32, 1, {Hq}}, &io->sinks, &out->sinks},
        {{"output", true, true, (int)d->dtype, 4, {B, Hq, Sq, d->value_dim}}, &io->output, &out->output},
        {{"logsumexp", d->logsumexp != 0, true, CLATTN_F32, 3, {B, Hq, Sq}}, &io->logsumexp, &out->logsumexp},
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
    for (size_t i = 0; i < CLATTN__COUNT(rows); i++) TRY(check_tensor(&rows[i].rule, rows[i].in, rows[i].out));
    return check_lengths(&out->kv_lengths, d->kv_lengths ? B : 0, Sk);
}

/* ---- the multi-head layer ----------------------------------------------------------------------------------------- */

clattn_status clattn__check_mha_desc(const clattn_mha_desc *in, clattn_mha_desc *d) {
    if (!in) return clattn__fail(CLATTN_INVALID_ARGUMENT, "desc is NULL");
    TRY(check_struct_size("clattn_mha_desc", in->struct_size, offsetof(clattn_mha_desc, attention_kernel), sizeof *in));
    clattn_mha_desc_init(d);
    memcpy(d, in, in->struct_size);
    d->struct_size = sizeof *d;
    TRY(check_choice("inputs", (int)d->inputs, CLATTN_MHA_SEPARATE));
    if (d->inputs == CLATTN_MHA_SELF && d->kv_len == 0) d->kv_len = d->query_len;
    if (d->key_dim == 0) d->key_dim = d->embed_dim;
    if (d->value_dim == 0) d->value_dim = d->embed_dim;

    TRY(check_extent("batch", d->batch, 0, CLATTN__MAX_EXTENT));
    TRY(check_extent("query_len", d->query_len, 0, CLATTN__MAX_EXTENT));
    TRY(check_extent("kv_len", d->kv_len, 0, CLATTN__MAX_EXTENT));
    TRY(check_extent("embed_dim", d->embed_dim, 1, CLATTN__MAX_EXTENT));
    TRY(check_extent("heads", d->heads, 1, CLATTN__MAX_EXTENT));
    TRY(check_extent("key_dim", d->key_dim, 1, CLATTN__MAX_EXTENT));
    TRY(check_extent("value_dim", d->value_dim, 1, CLATTN__MAX_EXTENT));
    if (d->embed_dim % d->heads != 0)
        return clattn__fail(CLATTN_INVALID_SHAPE,
                            "embed_dim is %lld and heads is %lld; embed_dim must be a multiple of heads",
                            (long long)d->embed_dim, (long long)d->heads);
    TRY(check_extent("embed_dim / heads", d->embed_dim / d->heads, 1, CLATTN_MAX_HEAD_DIM));
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
    TRY(check_volume("the input", tokens, 4));
    TRY(check_volume("in_proj_weight", weight, 4));

    if (d->has_scale) TRY(check_finite("scale", d->scale));
    if (!d->has_scale) d->scale = (float)(1.0 / sqrt((double)(d->embed_dim / d->heads)));
    d->has_scale = 1;
    TRY(check_origin(d->causal, d->causal_offset));
    TRY(check_choice("mask", (int)d->mask, CLATTN_MASK_FLOAT));
    int64_t full[4] = {d->batch, d->heads, d->query_len, d->kv_len};
    if (d->mask != CLATTN_MASK_NONE) TRY(check_mask_shape(full, d->mask_shape));
    TRY(check_choice("weights", (int)d->weights, CLATTN_WEIGHTS_AVERAGED));
    if (d->weights != CLATTN_WEIGHTS_NONE) TRY(check_volume("weights", pairs, 4));
    return CLATTN_OK;
}

/* Rows [first, first + count) of a packed tensor. */
static clattn_tensor part_of(const clattn_tensor *packed, int64_t first, int64_t count) {
    clattn_tensor part = *packed;
    part.offset += first * packed->stride[0];
    part.shape[0] = count;
    return part;
}

static clattn_status check_host(const char *name, const clattn_tensor *tensor) {
    if (tensor->mem)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is a cl_mem; weights are given in host memory", name);
    return CLATTN_OK;
}

clattn_status clattn__check_mha_weights(const clattn_mha_desc *d, const clattn_mha_weights *in,
                                        clattn_mha_weights *out) {
    if (!in) return clattn__fail(CLATTN_INVALID_ARGUMENT, "weights is NULL");
    memset(out, 0, sizeof *out);
    const int64_t E = d->embed_dim;
    const bool packed = in->in_proj_weight.data != NULL;
    const bool packed_bias = in->in_proj_bias.data != NULL;
    if (packed && (in->q_proj_weight.data || in->k_proj_weight.data || in->v_proj_weight.data))
        return clattn__fail(CLATTN_INVALID_ARGUMENT,
                            "in_proj_weight and a separate q/k/v_proj_weight are both given; give one form");
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
        tensor_rule rule;
        const clattn_tensor *in;
        clattn_tensor *out;
    } rows[] = {
        {{"in_proj_weight", packed, false, CLATTN_F32, 2, {3 * E, E}}, &in->in_proj_weight, &in_weight},
        {{"q_proj_weight", !packed, false, CLATTN_F32, 2, {E, E}}, &in->q_proj_weight, &out->q_proj_weight},
        {{"k_proj_weight", !packed, false, CLATTN_F32, 2, {E, d->key_dim}}, &in->k_proj_weight, &out->k_proj_weight},
        {{"v_proj_weight", !packed, false, CLATTN_F32, 2, {E, d->value_dim}}, &in->v_proj_weight, &out->v_proj_weight},
        {{"in_proj_bias", packed_bias, false, CLATTN_F32, 1, {3 * E}}, &in->in_proj_bias, &in_bias},
        {{"q_proj_bias", in->q_proj_bias.data != NULL, false, CLATTN_F32, 1, {E}}, &in->q_proj_bias, &out->q_proj_bias},
        {{"k_proj_bias", in->k_proj_bias.data != NULL, false, CLATTN_F32, 1, {E}}, &in->k_proj_bias, &out->k_proj_bias},
        {{"v_proj_bias", in->v_proj_bias.data != NULL, false, CLATTN_F32, 1, {E}}, &in->v_proj_bias, &out->v_proj_bias},
        {{"out_proj_weight", true, false, CLATTN_F32, 2, {E, E}}, &in->out_proj_weight, &out->out_proj_weight},
        {{"out_proj_bias", in->out_proj_bias.data != NULL, false, CLATTN_F32, 1, {E}},
         &in->out_proj_bias,
         &out->out_proj_bias},
        {{"bias_k", in->bias_k.data != NULL, false, CLATTN_F32, 1, {E}}, &in->bias_k, &out->bias_k},
        {{"bias_v", in->bias_v.data != NULL, false, CLATTN_F32, 1, {E}}, &in->bias_v, &out->bias_v},
    };
    for (size_t i = 0; i < CLATTN__COUNT(rows); i++) {
        TRY(check_host(rows[i].rule.name, rows[i].in));
        TRY(check_tensor(&rows[i].rule, rows[i].in, rows[i].out));
    }
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
    const struct {
        tensor_rule rule;
        const clattn_tensor *in;
        clattn_tensor *out;
    } rows[] = {
        {{"query", true, false, CLATTN_F32, 3, {B, L, d->embed_dim}}, &io->query, &out->query},
        {{"key", d->inputs != CLATTN_MHA_SELF, false, CLATTN_F32, 3, {B, S, d->key_dim}}, &io->key, &out->key},
        {{"value", d->inputs == CLATTN_MHA_SEPARATE, false, CLATTN_F32, 3, {B, S, d->value_dim}},
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
        {{"output", true, true, CLATTN_F32, 3, {B, L, d->embed_dim}}, &io->output, &out->output},
        {{"weights",
          d->weights != CLATTN_WEIGHTS_NONE,
          true,
          CLATTN_F32,
          averaged ? 3 : 4,
          {B, averaged ? L : d->heads, averaged ? T : L, averaged ? 0 : T}},
         &io->weights,
         &out->weights},
    };
    for (size_t i = 0; i < CLATTN__COUNT(rows); i++) TRY(check_tensor(&rows[i].rule, rows[i].in, rows[i].out));
    return CLATTN_OK;
}
