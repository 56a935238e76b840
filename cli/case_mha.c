/* Golden cases of the operation "mha", which is torch.nn.MultiheadAttention. Sequence-first tensors become strided
 * views; its bool masks, where True means masked, are turned round.
 * Letters: B batch, H heads, L query length, S keys of the input, T with appended keys, E features. */
#include <math.h>
#include <string.h>

#include "case.h"

typedef struct mha_case {
    clattn_mha_desc desc;
    clattn_mha_io io;
    clattn_mha_weights weights;
} mha_case;

/* ---- layouts -------------------------------------------------------------------------------------------------- */

/* (batch, length, features), stored batch first, length first, or without a batch. */
static case_result token_view(cli_case *c, const char *role, const cli_array *array, clattn_tensor *view) {
    bool batched = case_flag(c, "batched"), batch_first = case_flag(c, "batch_first");
    const int64_t *n = array->shape;
    if (array->rank != (batched ? 3 : 2))
        return case_error(c, "'%s' has rank %d; it must have rank %d", role, array->rank, batched ? 3 : 2);
    if (!batched)
        *view = clattn_host(array->data, array->dtype, 3, 1, n[0], n[1], 0);
    else if (batch_first)
        *view = clattn_host(array->data, array->dtype, 3, n[0], n[1], n[2], 0);
    else
        *view = (clattn_tensor){.data = array->data,
                                .dtype = array->dtype,
                                .rank = 3,
                                .shape = {n[1], n[0], n[2]},
                                .stride = {n[2], n[1] * n[2], 1}};
    return CASE_DONE;
}

static case_result load_tokens(cli_case *c, const char *role, clattn_tensor *view) {
    cli_array *array;
    CASE_TRY(case_input(c, role, &array));
    return array ? token_view(c, role, array, view) : CASE_DONE;
}

static case_result load_weight(cli_case *c, const char *role, bool vector, clattn_tensor *view) {
    cli_array *array;
    CASE_TRY(case_input(c, role, &array));
    if (!array) return CASE_DONE;
    *view = vector ? clattn_host(array->data, array->dtype, 1, cli_array_elements(array), 0, 0, 0)
                   : cli_array_tensor(array);
    return CASE_DONE;
}

static case_result load_weights(cli_case *c, clattn_mha_weights *w) {
    CASE_TRY(load_weight(c, "in_proj_weight", false, &w->in_proj_weight));
    CASE_TRY(load_weight(c, "q_proj_weight", false, &w->q_proj_weight));
    CASE_TRY(load_weight(c, "k_proj_weight", false, &w->k_proj_weight));
    CASE_TRY(load_weight(c, "v_proj_weight", false, &w->v_proj_weight));
    CASE_TRY(load_weight(c, "in_proj_bias", true, &w->in_proj_bias));
    CASE_TRY(load_weight(c, "out_proj_weight", false, &w->out_proj_weight));
    CASE_TRY(load_weight(c, "out_proj_bias", true, &w->out_proj_bias));
    CASE_TRY(load_weight(c, "bias_k", true, &w->bias_k));
    return load_weight(c, "bias_v", true, &w->bias_v);
}

/* ---- masks ---------------------------------------------------------------------------------------------------- */

static void turn_round(cli_array *mask) {
    uint8_t *bytes = mask->data;
    for (int64_t n = cli_array_elements(mask), i = 0; i < n; i++) bytes[i] = !bytes[i];
}

/* What element i of a mask adds to a score: its value, or minus infinity where a (turned) bool forbids. */
static float addend(const cli_array *mask, int64_t i) {
    if (mask->dtype == CLATTN_BOOL) return ((const uint8_t *)mask->data)[i] ? 0 : -INFINITY;
    return ((const float *)mask->data)[i];
}

/* mask (1 or B, 1 or H, L, S) or NULL, plus padding (B, S) in floats: one float mask (B, 1 or H, L, S). */
static case_result merge_masks(cli_case *c, const clattn_mha_desc *d, const cli_array *padding, cli_array **mask,
                               int64_t shape[4]) {
    const cli_array *old = *mask;
    bool per_batch = old && shape[0] > 1;
    int64_t merged[4] = {d->batch, old ? shape[1] : 1, d->query_len, d->kv_len}, rows = merged[1] * merged[2],
            S = merged[3];
    CASE_TRY(case_scratch(c, CLATTN_F32, 4, merged, mask));
    float *out = (*mask)->data;
    for (int64_t b = 0; b < d->batch; b++)
        for (int64_t row = 0; row < rows; row++)
            for (int64_t j = 0; j < S; j++)
                *out++ =
                    addend(padding, b * S + j) + (old ? addend(old, ((per_batch ? b : 0) * rows + row) * S + j) : 0);
    memcpy(shape, merged, sizeof merged);
    return CASE_DONE;
}

static case_result load_mask(cli_case *c, const char *role, cli_array **mask) {
    CASE_TRY(case_input(c, role, mask));
    if (!*mask) return CASE_DONE;
    if ((*mask)->dtype != CLATTN_BOOL && (*mask)->dtype != CLATTN_F32)
        return case_unsupported(c, "%s of element type %s is not supported", role, clattn_dtype_name((*mask)->dtype));
    if ((*mask)->dtype == CLATTN_BOOL && strcmp(case_text(c, "mask_true_means"), "masked") == 0) turn_round(*mask);
    return CASE_DONE;
}

static case_result describe_masks(cli_case *c, mha_case *m) {
    clattn_mha_desc *d = &m->desc;
    cli_array *mask, *padding;
    CASE_TRY(load_mask(c, "attn_mask", &mask));
    CASE_TRY(load_mask(c, "key_padding_mask", &padding));
    bool per_head = mask && mask->rank == 3; /* (B*H, L, S), batch-major */
    int64_t shape[4] = {per_head ? d->batch : 1, per_head ? d->heads : 1, d->query_len, d->kv_len},
            keys[2] = {d->batch, d->kv_len};
    CASE_TRY(case_view(c, mask, 4, shape, &m->io.mask)); /* checks that the sizes fit before they are relied on */
    CASE_TRY(case_view(c, padding, 2, keys, &m->io.padding_mask));
    if (padding && padding->dtype == CLATTN_F32) {
        memset(&m->io.padding_mask, 0, sizeof m->io.padding_mask);
        CASE_TRY(merge_masks(c, d, padding, &mask, shape));
        CASE_TRY(case_view(c, mask, 4, shape, &m->io.mask));
    }
    d->padding_mask = m->io.padding_mask.data != NULL;
    d->mask = !mask ? CLATTN_MASK_NONE : mask->dtype == CLATTN_BOOL ? CLATTN_MASK_BOOL : CLATTN_MASK_FLOAT;
    if (mask) memcpy(d->mask_shape, shape, sizeof shape);
    return CASE_DONE;
}

/* ---- the rest ------------------------------------------------------------------------------------------------- */

static case_result describe_sizes(cli_case *c, mha_case *m) {
    clattn_mha_desc *d = &m->desc;
    clattn_mha_io *io = &m->io;
    CASE_TRY(load_tokens(c, "query", &io->query));
    CASE_TRY(load_tokens(c, "key", &io->key));
    CASE_TRY(load_tokens(c, "value", &io->value));
    if (!io->query.data || (io->value.data && !io->key.data)) return case_error(c, "query or key is missing");
    d->inputs = io->value.data ? CLATTN_MHA_SEPARATE : io->key.data ? CLATTN_MHA_CROSS : CLATTN_MHA_SELF;
    const clattn_tensor *key = io->key.data ? &io->key : &io->query, *value = io->value.data ? &io->value : key;
    d->batch = io->query.shape[0];
    d->query_len = io->query.shape[1];
    d->embed_dim = io->query.shape[2];
    d->kv_len = key->shape[1];
    d->key_dim = key->shape[2];
    d->value_dim = value->shape[2];
    d->heads = case_whole(c, "num_heads", 1);
    d->add_zero_attn = case_flag(c, "add_zero_attn");
    d->attention_kernel = c->kernel;
    double scale = case_number(c, "scale", NAN);
    d->has_scale = !isnan(scale);
    d->scale = d->has_scale ? (float)scale : 0;
    return CASE_DONE;
}

static case_result describe_outputs(cli_case *c, mha_case *m) {
    clattn_mha_desc *d = &m->desc;
    cli_array *output, *weights;
    CASE_TRY(case_output(c, "output", CLATTN_F32, &output));
    CASE_TRY(case_output(c, "attn_weights", CLATTN_F32, &weights));
    if (!output) return case_error(c, "the case has no output");
    CASE_TRY(token_view(c, "output", output, &m->io.output));
    if (!weights) return CASE_DONE;
    int64_t keys = d->kv_len + (m->weights.bias_k.data ? 1 : 0) + (d->add_zero_attn ? 1 : 0);
    int64_t per_head[4] = {d->batch, d->heads, d->query_len, keys}, averaged[3] = {d->batch, d->query_len, keys};
    bool average = case_flag(c, "average_attn_weights");
    d->weights = average ? CLATTN_WEIGHTS_AVERAGED : CLATTN_WEIGHTS_PER_HEAD;
    return case_view(c, weights, average ? 3 : 4, average ? averaged : per_head, &m->io.weights);
}

case_result case_mha(cli_case *c) {
    mha_case m = {0};
    clattn_mha_desc_init(&m.desc);
    CASE_TRY(load_weights(c, &m.weights));
    CASE_TRY(describe_sizes(c, &m));
    CASE_TRY(describe_masks(c, &m));
    CASE_TRY(describe_outputs(c, &m));
    clattn_mha *mha = NULL;
    clattn_status status = clattn_mha_create(&mha, c->context, &m.desc, &m.weights);
    clattn_plan_info info;
    if (status == CLATTN_OK) status = clattn_mha_run(mha, &m.io);
    if (status == CLATTN_OK) status = clattn_mha_info(mha, &info);
    case_result result = case_status(c, status, &info);
    clattn_mha_destroy(&mha);
    return result;
}
