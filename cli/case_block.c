/* Golden cases of the operation "transformer_block": an encoder or decoder block, every sublayer on its own through the
 * layers of the library, and the whole as a stack of one.
 * Letters: B batch, L rows of x, S rows of the memory, E features. */
#include <string.h>

#include "case.h"

typedef struct block_case {
    bool decoder, pre;
    float eps;
    clattn_activation activation;
    clattn_causal causal;
    int64_t heads, feed_forward;
    cli_array *x, *memory;
    clattn_block_weights weights;
    clattn_tensor padding, memory_padding, mask, memory_mask; /* absent, or true = attend */
    clattn_mask_type mask_type, memory_mask_type;
} block_case;

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static case_result load_tensor(cli_case *c, const char *role, clattn_tensor *tensor) {
    cli_array *array;
    CASE_TRY(case_input(c, role, &array));
    if (array) *tensor = cli_array_tensor(array);
    return CASE_DONE;
}

static case_result load_weights(cli_case *c, block_case *b) {
    clattn_block_weights *w = &b->weights;
    clattn_mha_weights *self = &w->self_attention, *cross = &w->cross_attention;
    /* an encoder's second norm belongs to its feed-forward part, a decoder's to its cross-attention */
    clattn_norm_weights *second = b->decoder ? &w->cross_norm : &w->feed_forward_norm;
    const struct {
        const char *role;
        clattn_tensor *tensor;
    } parts[] = {{"self_attn_in_proj_weight", &self->in_proj_weight},
                 {"self_attn_in_proj_bias", &self->in_proj_bias},
                 {"self_attn_out_proj_weight", &self->out_proj_weight},
                 {"self_attn_out_proj_bias", &self->out_proj_bias},
                 {"multihead_attn_in_proj_weight", &cross->in_proj_weight},
                 {"multihead_attn_in_proj_bias", &cross->in_proj_bias},
                 {"multihead_attn_out_proj_weight", &cross->out_proj_weight},
                 {"multihead_attn_out_proj_bias", &cross->out_proj_bias},
                 {"linear1_weight", &w->expand.weight},
                 {"linear1_bias", &w->expand.bias},
                 {"linear2_weight", &w->contract.weight},
                 {"linear2_bias", &w->contract.bias},
                 {"norm1_weight", &w->self_norm.weight},
                 {"norm1_bias", &w->self_norm.bias},
                 {"norm2_weight", &second->weight},
                 {"norm2_bias", &second->bias},
                 {"norm3_weight", &w->feed_forward_norm.weight},
                 {"norm3_bias", &w->feed_forward_norm.bias}};
    const size_t count = sizeof parts / sizeof parts[0] - (b->decoder ? 0 : 2); /* encoders have no third norm */
    for (size_t i = 0; i < count; i++) CASE_TRY(load_tensor(c, parts[i].role, parts[i].tensor));
    return CASE_DONE;
}

/* A bool mask with true = attend, whatever the case means by true; float masks stay. */
static case_result load_mask(cli_case *c, const char *role, cli_array **mask) {
    CASE_TRY(case_input(c, role, mask));
    if (!*mask || (*mask)->dtype != CLATTN_BOOL || strcmp(case_text(c, "mask_true_means"), "masked") != 0)
        return CASE_DONE;
    uint8_t *bytes = (*mask)->data;
    for (int64_t n = cli_array_elements(*mask), i = 0; i < n; i++) bytes[i] = !bytes[i];
    return CASE_DONE;
}

static case_result load_padding(cli_case *c, const char *role, int64_t batch, int64_t keys, clattn_tensor *tensor) {
    cli_array *mask;
    const int64_t shape[2] = {batch, keys};
    CASE_TRY(load_mask(c, role, &mask));
    if (mask && mask->dtype != CLATTN_BOOL)
        return case_unsupported(c, "%s of element type %s", role, clattn_dtype_name(mask->dtype));
    return case_view(c, mask, 2, shape, tensor);
}

static case_result load_score_mask(cli_case *c, const char *role, int64_t rows, int64_t keys, clattn_tensor *tensor,
                                   clattn_mask_type *type) {
    cli_array *mask;
    const int64_t shape[4] = {1, 1, rows, keys};
    CASE_TRY(load_mask(c, role, &mask));
    *type = !mask ? CLATTN_MASK_NONE : mask->dtype == CLATTN_BOOL ? CLATTN_MASK_BOOL : CLATTN_MASK_FLOAT;
    return case_view(c, mask, 4, shape, tensor);
}

static case_result load(cli_case *c, block_case *b) {
    const char *activation = case_text(c, "activation");
    b->decoder = strcmp(case_text(c, "kind"), "decoder") == 0;
    if (!b->decoder && strcmp(case_text(c, "kind"), "encoder") != 0)
        return case_unsupported(c, "a block of kind '%s'", case_text(c, "kind"));
    b->activation = strcmp(activation, "relu") == 0 ? CLATTN_ACTIVATION_RELU : CLATTN_ACTIVATION_GELU;
    if (b->activation == CLATTN_ACTIVATION_GELU && strncmp(activation, "gelu", 4) != 0)
        return case_unsupported(c, "the activation '%s'", activation);
    b->pre = case_flag(c, "norm_first");
    b->eps = (float)case_number(c, "eps", 1e-5);
    b->causal = case_flag(c, "is_causal") ? CLATTN_CAUSAL_TOP_LEFT : CLATTN_CAUSAL_NONE;
    b->heads = case_whole(c, "num_heads", 1);
    b->feed_forward = case_whole(c, "feed_forward", 0);
    CASE_TRY(case_input(c, "x", &b->x));
    CASE_TRY(case_input(c, "memory", &b->memory));
    if (!b->x || b->x->rank != 3 || (b->decoder && (!b->memory || b->memory->rank != 3)))
        return case_error(c, "x or memory is missing or not of rank 3");
    CASE_TRY(load_weights(c, b));
    const int64_t B = b->x->shape[0], L = b->x->shape[1], S = b->decoder ? b->memory->shape[1] : 0;
    CASE_TRY(load_padding(c, b->decoder ? "tgt_key_padding_mask" : "key_padding_mask", B, L, &b->padding));
    CASE_TRY(load_padding(c, "memory_key_padding_mask", B, S, &b->memory_padding));
    CASE_TRY(load_score_mask(c, "attn_mask", L, L, &b->mask, &b->mask_type));
    return load_score_mask(c, "memory_mask", L, S, &b->memory_mask, &b->memory_mask_type);
}

/* ---- the parts --------------------------------------------------------------------------------------------------- */

/* An output of the case, or memory of the same shape where the case has none of that role. */
static case_result result_array(cli_case *c, const char *role, const cli_array *like, cli_array **array) {
    CASE_TRY(case_output(c, role, CLATTN_F32, array));
    return *array ? CASE_DONE : case_scratch(c, CLATTN_F32, like->rank, like->shape, array);
}

static case_result run_attention(cli_case *c, const block_case *b, bool cross, const cli_array *x, cli_array *y) {
    clattn_mha_desc d;
    clattn_mha_desc_init(&d);
    d.batch = x->shape[0];
    d.query_len = x->shape[1];
    d.kv_len = cross ? b->memory->shape[1] : x->shape[1];
    d.embed_dim = x->shape[2];
    d.heads = b->heads;
    d.inputs = cross ? CLATTN_MHA_CROSS : CLATTN_MHA_SELF;
    d.causal = cross ? CLATTN_CAUSAL_NONE : b->causal;
    d.mask = cross ? b->memory_mask_type : b->mask_type;
    d.padding_mask = cross ? b->memory_padding.data != NULL : b->padding.data != NULL;
    d.attention_kernel = c->kernel;
    clattn_mha_io io = {.query = cli_array_tensor(x),
                        .mask = cross ? b->memory_mask : b->mask,
                        .padding_mask = cross ? b->memory_padding : b->padding,
                        .output = cli_array_tensor(y)};
    if (cross) io.key = cli_array_tensor(b->memory);
    clattn_mha *mha = NULL;
    clattn_plan_info info = {0};
    clattn_status status =
        clattn_mha_create(&mha, c->context, &d, cross ? &b->weights.cross_attention : &b->weights.self_attention);
    if (status == CLATTN_OK) status = clattn_mha_run(mha, &io);
    if (status == CLATTN_OK) status = clattn_mha_info(mha, &info);
    case_result result = case_status(c, status, &info);
    clattn_mha_destroy(&mha);
    return result;
}

/* One attention sublayer with its residual and norm. x: what it reads (pre-norm: normalised already); stream: in and
 * out; normed receives, in pre-norm, what the next sublayer reads. */
static case_result run_sublayer(cli_case *c, const block_case *b, bool cross, const char *result_role,
                                const char *stream_role, const cli_array *x, cli_array **stream, cli_array *normed) {
    cli_array *result, *after;
    const clattn_block_weights *w = &b->weights;
    const clattn_norm_weights *own = cross ? &w->cross_norm : &w->self_norm,
                              *next = cross || !b->decoder ? &w->feed_forward_norm : &w->cross_norm;
    CASE_TRY(result_array(c, result_role, b->x, &result));
    CASE_TRY(result_array(c, stream_role, b->x, &after));
    CASE_TRY(run_attention(c, b, cross, x, result));
    if (b->pre)
        CASE_TRY(case_run_norm(c, next, CLATTN_NORM_LAYER, b->eps, result, *stream, after, normed));
    else
        CASE_TRY(case_run_norm(c, own, CLATTN_NORM_LAYER, b->eps, result, *stream, NULL, after));
    *stream = after;
    return CASE_DONE;
}

static case_result run_parts(cli_case *c, const block_case *b) {
    cli_array *stream = b->x, *normed, *wide, *result;
    const int64_t wide_shape[3] = {b->x->shape[0], b->x->shape[1], b->feed_forward};
    CASE_TRY(case_scratch(c, CLATTN_F32, 3, b->x->shape, &normed));
    CASE_TRY(case_scratch(c, CLATTN_F32, 3, wide_shape, &wide));
    CASE_TRY(result_array(c, "feed_forward_output", b->x, &result));
    if (b->pre) CASE_TRY(case_run_norm(c, &b->weights.self_norm, CLATTN_NORM_LAYER, b->eps, b->x, NULL, NULL, normed));
    CASE_TRY(run_sublayer(c, b, false, "self_attention", b->decoder ? "after_self_attention" : "after_attention",
                          b->pre ? normed : stream, &stream, normed));
    if (b->decoder)
        CASE_TRY(run_sublayer(c, b, true, "cross_attention", "after_cross_attention", b->pre ? normed : stream, &stream,
                              normed));
    CASE_TRY(case_run_linear(c, &b->weights.expand, b->activation, b->pre ? normed : stream, wide));
    return case_run_linear(c, &b->weights.contract, CLATTN_ACTIVATION_NONE, wide, result);
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static case_result run_whole(cli_case *c, const block_case *b) {
    cli_array *output;
    CASE_TRY(case_output(c, "output", CLATTN_F32, &output));
    if (!output) return case_error(c, "the case has no output");
    clattn_stack_desc d;
    clattn_stack_desc_init(&d);
    d.batch = b->x->shape[0];
    d.rows = b->x->shape[1];
    d.memory_rows = b->decoder ? b->memory->shape[1] : 0;
    d.features = b->x->shape[2];
    d.heads = b->heads;
    d.feed_forward = b->feed_forward;
    d.encoder_blocks = !b->decoder;
    d.decoder_blocks = b->decoder;
    d.order = b->pre ? CLATTN_PRE_NORM : CLATTN_POST_NORM;
    d.activation = b->activation;
    d.eps = b->eps;
    d.causal = b->causal;
    d.mask = b->mask_type;
    d.padding_mask = b->padding.data != NULL;
    d.memory_mask = b->memory_mask_type;
    d.memory_padding_mask = b->memory_padding.data != NULL;
    d.attention_kernel = c->kernel;
    const clattn_stack_weights weights = {.encoder = &b->weights, .decoder = &b->weights};
    clattn_layer_io io = {.input = cli_array_tensor(b->x),
                          .mask = b->mask,
                          .padding_mask = b->padding,
                          .memory_mask = b->memory_mask,
                          .memory_padding_mask = b->memory_padding,
                          .output = cli_array_tensor(output)};
    if (b->decoder) io.memory = cli_array_tensor(b->memory);
    clattn_layer *layer = NULL;
    clattn_status status = clattn_stack_create(&layer, c->context, &d, &weights);
    return case_run_layer(c, status, layer, &io);
}

case_result case_transformer_block(cli_case *c) {
    block_case b = {0};
    CASE_TRY(load(c, &b));
    CASE_TRY(run_parts(c, &b));
    return run_whole(c, &b);
}
