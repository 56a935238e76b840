/* The rules of stacks of blocks. */
#include <string.h>

#include "api/check.h"
#include "api/check_layers.h"

/* ---- the description --------------------------------------------------------------------------------------------- */

static clattn_status check_sizes(const clattn_stack_desc *d) {
    const struct {
        const char *name;
        int64_t value, low;
    } extents[] = {{"batch", d->batch, 0},
                   {"rows", d->rows, 0},
                   {"memory_rows", d->memory_rows, 0},
                   {"features", d->features, 1},
                   {"heads", d->heads, 1},
                   {"feed_forward", d->feed_forward, 1},
                   {"encoder_blocks", d->encoder_blocks, 0},
                   {"decoder_blocks", d->decoder_blocks, 0},
                   {"batch * rows", d->batch * d->rows, 0},
                   {"batch * memory_rows", d->batch * d->memory_rows, 0}};
    for (size_t i = 0; i < CLATTN__COUNT(extents); i++)
        CLATTN__TRY(clattn__check_extent(extents[i].name, extents[i].value, extents[i].low, CLATTN__MAX_EXTENT));
    if (d->features % d->heads != 0)
        return clattn__fail(CLATTN_INVALID_SHAPE,
                            "features is %lld and heads is %lld; features must be a multiple of heads",
                            (long long)d->features, (long long)d->heads);
    if (d->encoder_blocks + d->decoder_blocks == 0)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "encoder_blocks and decoder_blocks are 0; a stack needs a block");
    if (d->decoder_blocks == 0 && d->memory_rows != 0)
        return clattn__fail(CLATTN_INVALID_SHAPE, "memory_rows is %lld; without decoder blocks it must be 0",
                            (long long)d->memory_rows);
    const int64_t longest = d->rows > d->memory_rows ? d->rows : d->memory_rows;
    const int64_t widest = d->features > d->feed_forward ? d->features : d->feed_forward;
    const int64_t tokens[3] = {d->batch, longest, widest}, weight[2] = {d->features, widest};
    CLATTN__TRY(clattn__check_volume("the feed-forward part", tokens, 3));
    CLATTN__TRY(clattn__check_volume("a weight", weight, 2));
    if (!d->hidden) return CLATTN_OK;
    const int64_t hidden[4] = {1 + d->encoder_blocks + d->decoder_blocks, d->batch, d->rows, d->features};
    return clattn__check_volume("hidden", hidden, 4);
}

static clattn_status check_options(const clattn_stack_desc *d) {
    CLATTN__TRY(clattn__check_choice("order", (int)d->order, CLATTN_PRE_NORM));
    CLATTN__TRY(clattn__check_choice("dtype", (int)d->dtype, CLATTN_BF16));
    CLATTN__TRY(clattn__check_choice("precision", (int)d->precision, CLATTN_PRECISION_FAST));
    CLATTN__TRY(clattn__check_choice("activation", (int)d->activation, CLATTN_ACTIVATION_GELU));
    CLATTN__TRY(clattn__check_eps(d->eps));
    CLATTN__TRY(clattn__check_choice("causal", (int)d->causal, CLATTN_CAUSAL_TOP_LEFT));
    CLATTN__TRY(clattn__check_choice("positions", (int)d->positions, CLATTN_POSITIONS_LEARNED));
    if (d->decoder_blocks == 0 && (d->memory_mask != CLATTN_MASK_NONE || d->memory_padding_mask))
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is asked for; only decoder blocks have a memory",
                            d->memory_padding_mask ? "memory_padding_mask" : "memory_mask");
    if (d->positions == CLATTN_POSITIONS_NONE && d->positions_given)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "positions_given is 1 and positions is 0; there is no encoding");
    if (d->positions != CLATTN_POSITIONS_SINUSOIDAL) return CLATTN_OK;
    CLATTN__TRY(clattn__check_base(d->position_base));
    if (d->features % 2 == 0) return CLATTN_OK;
    return clattn__fail(CLATTN_INVALID_SHAPE,
                        "features is %lld; sinusoidal positions come in pairs, so it must be even",
                        (long long)d->features);
}

/* The attention of a kind of block, with its own rules checked. */
static clattn_status describe_attention(const clattn_stack_desc *d, clattn_mha_inputs inputs, int64_t query_len,
                                        int64_t kv_len, clattn_mask_type mask, const int64_t mask_shape[4], int padding,
                                        clattn_causal causal, clattn_mha_desc *resolved) {
    clattn_mha_desc mha;
    clattn_mha_desc_init(&mha);
    mha.batch = d->batch;
    mha.query_len = query_len;
    mha.kv_len = kv_len;
    mha.embed_dim = d->features;
    mha.heads = d->heads;
    mha.inputs = inputs;
    mha.causal = causal;
    mha.mask = mask;
    if (mask_shape) memcpy(mha.mask_shape, mask_shape, sizeof mha.mask_shape);
    mha.padding_mask = padding != 0;
    mha.attention_kernel = d->attention_kernel;
    mha.gemm_kernel = d->gemm_kernel;
    mha.dtype = d->dtype;
    mha.precision = d->precision;
    return clattn__check_mha_desc(&mha, resolved);
}

static clattn_status describe_attentions(clattn__stack *s) {
    const clattn_stack_desc *d = &s->desc;
    const bool both = d->encoder_blocks > 0 && d->decoder_blocks > 0;
    CLATTN__TRY(describe_attention(d, CLATTN_MHA_SELF, d->rows, d->rows, d->mask, d->mask_shape, d->padding_mask,
                                   d->causal, &s->decoder_self));
    s->encoder_self = s->decoder_self;
    if (both)
        CLATTN__TRY(describe_attention(d, CLATTN_MHA_SELF, d->memory_rows, d->memory_rows, CLATTN_MASK_NONE, NULL,
                                       d->memory_padding_mask, CLATTN_CAUSAL_NONE, &s->encoder_self));
    if (d->decoder_blocks > 0)
        CLATTN__TRY(describe_attention(d, CLATTN_MHA_CROSS, d->rows, d->memory_rows, d->memory_mask,
                                       d->memory_mask_shape, d->memory_padding_mask, CLATTN_CAUSAL_NONE, &s->cross));
    return CLATTN_OK;
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

/* Keys behind the sequence have no place in a block. */
static clattn_status refuse_appended(const char *name, const clattn_mha_weights *w) {
    if (!w->bias_k.data && !w->bias_v.data) return CLATTN_OK;
    return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s has bias_k or bias_v; a block's attention appends no keys", name);
}

static clattn_status check_block(const clattn__stack *s, bool decoder, const clattn_block_weights *in,
                                 clattn_block_weights *out, clattn__widened *copies) {
    const clattn_stack_desc *d = &s->desc;
    const int64_t E = d->features, F = d->feed_forward;
    CLATTN__TRY(refuse_appended("self_attention", &in->self_attention));
    CLATTN__TRY(clattn__check_mha_weights(decoder ? &s->decoder_self : &s->encoder_self, &in->self_attention,
                                          &out->self_attention, copies));
    CLATTN__TRY(
        clattn__check_norm_weights("self_norm.", &in->self_norm, E, CLATTN_NORM_LAYER, &out->self_norm, copies));
    CLATTN__TRY(clattn__check_linear_weights("expand.", &in->expand, F, E, &out->expand, copies));
    CLATTN__TRY(clattn__check_linear_weights("contract.", &in->contract, E, F, &out->contract, copies));
    CLATTN__TRY(clattn__check_norm_weights("feed_forward_norm.", &in->feed_forward_norm, E, CLATTN_NORM_LAYER,
                                           &out->feed_forward_norm, copies));
    if (!decoder) return CLATTN_OK;
    CLATTN__TRY(refuse_appended("cross_attention", &in->cross_attention));
    CLATTN__TRY(clattn__check_mha_weights(&s->cross, &in->cross_attention, &out->cross_attention, copies));
    return clattn__check_norm_weights("cross_norm.", &in->cross_norm, E, CLATTN_NORM_LAYER, &out->cross_norm, copies);
}

static clattn_status check_blocks(const clattn__stack *s, bool decoder, int64_t count, const clattn_block_weights *in,
                                  clattn_block_weights **out, clattn__widened *copies) {
    const char *name = decoder ? "decoder" : "encoder";
    if (count == 0) return CLATTN_OK;
    if (!in)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "weights->%s is NULL; there are %lld blocks", name,
                            (long long)count);
    *out = clattn__alloc((size_t)count, sizeof **out);
    if (!*out) return CLATTN_OUT_OF_MEMORY;
    for (int64_t i = 0; i < count; i++) {
        clattn_status status = check_block(s, decoder, &in[i], &(*out)[i], copies);
        if (status == CLATTN_OK) continue;
        clattn__fail_note(" (%s block %lld)", name, (long long)i);
        return status;
    }
    return CLATTN_OK;
}

static clattn_status check_norms(clattn__stack *s, const clattn_stack_weights *w, clattn__widened *copies) {
    const struct {
        const char *name;
        const clattn_norm_weights *in;
        clattn_norm_weights *out;
        bool *has;
    } norms[] = {{"input_norm.", &w->input_norm, &s->input_norm, &s->has_input_norm},
                 {"encoder_norm.", &w->encoder_norm, &s->encoder_norm, &s->has_encoder_norm},
                 {"decoder_norm.", &w->decoder_norm, &s->decoder_norm, &s->has_decoder_norm}};
    for (size_t i = 0; i < CLATTN__COUNT(norms); i++) {
        *norms[i].has = norms[i].in->weight.data || norms[i].in->bias.data;
        CLATTN__TRY(clattn__check_norm_weights(norms[i].name, norms[i].in, s->desc.features, CLATTN_NORM_LAYER,
                                               norms[i].out, copies));
    }
    if (s->has_encoder_norm && s->desc.encoder_blocks == 0)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "encoder_norm is given; the stack has no encoder blocks");
    if (s->has_decoder_norm && s->desc.decoder_blocks == 0)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "decoder_norm is given; the stack has no decoder blocks");
    return CLATTN_OK;
}

static clattn_status check_positions(clattn__stack *s, const clattn_stack_weights *w, clattn__widened *copies) {
    const clattn_stack_desc *d = &s->desc;
    if (d->positions != CLATTN_POSITIONS_LEARNED) {
        if (w->position_table.data)
            return clattn__fail(CLATTN_INVALID_ARGUMENT, "position_table is given; positions is %d, not learned (2)",
                                (int)d->positions);
        return CLATTN_OK;
    }
    CLATTN__TRY(clattn__check_table(&w->position_table, d->features, &s->position_table, copies));
    const int64_t rows = s->position_table.shape[0];
    const int64_t source = d->encoder_blocks > 0 && d->decoder_blocks > 0 ? d->memory_rows : 0;
    const int64_t longest = d->positions_given || source > d->rows ? source : d->rows;
    if (longest > rows)
        return clattn__fail(CLATTN_INVALID_SHAPE, "%s is %lld; the position table has %lld rows",
                            longest == d->rows ? "rows" : "memory_rows", (long long)longest, (long long)rows);
    return CLATTN_OK;
}

/* ---- what a run brings ------------------------------------------------------------------------------------------- */

static void set_rule(clattn__layer_rules *rules, int index, const char *name, bool wanted, int dtype, int rank,
                     int64_t n0, int64_t n1, int64_t n2, int64_t n3) {
    rules->tensors[index] = (clattn__tensor_rule){.name = name,
                                                  .wanted = wanted,
                                                  .output = index == CLATTN__LAYER_OUTPUT ||
                                                            index == CLATTN__LAYER_SUM || index == CLATTN__LAYER_HIDDEN,
                                                  .dtype = dtype,
                                                  .rank = rank,
                                                  .shape = {n0, n1, n2, n3}};
}

static void set_rules(const clattn__stack *s, clattn__layer_rules *rules) {
    const clattn_stack_desc *d = &s->desc;
    const int64_t B = d->batch, L = d->rows, S = d->memory_rows, E = d->features;
    const int64_t *mask = s->decoder_self.mask_shape, *memory_mask = s->cross.mask_shape;
    const int64_t main_blocks = d->decoder_blocks > 0 ? d->decoder_blocks : d->encoder_blocks;
    memset(rules, 0, sizeof *rules);
    set_rule(rules, CLATTN__LAYER_INPUT, "input", true, (int)d->dtype, 3, B, L, E, 0);
    set_rule(rules, CLATTN__LAYER_RESIDUAL, "residual", false, (int)d->dtype, 3, B, L, E, 0);
    set_rule(rules, CLATTN__LAYER_POSITIONS, "positions", d->positions_given != 0, CLATTN__ANY_LENGTHS, 2, B, L, 0, 0);
    set_rule(rules, CLATTN__LAYER_MASK, "mask", d->mask != CLATTN_MASK_NONE,
             d->mask == CLATTN_MASK_BOOL ? CLATTN_BOOL : CLATTN_F32, 4, mask[0], mask[1], mask[2], mask[3]);
    set_rule(rules, CLATTN__LAYER_PADDING, "padding_mask", d->padding_mask != 0, CLATTN_BOOL, 2, B, L, 0, 0);
    set_rule(rules, CLATTN__LAYER_MEMORY, "memory", d->decoder_blocks > 0, (int)d->dtype, 3, B, S, E, 0);
    set_rule(rules, CLATTN__LAYER_MEMORY_MASK, "memory_mask", d->memory_mask != CLATTN_MASK_NONE,
             d->memory_mask == CLATTN_MASK_BOOL ? CLATTN_BOOL : CLATTN_F32, 4, memory_mask[0], memory_mask[1],
             memory_mask[2], memory_mask[3]);
    set_rule(rules, CLATTN__LAYER_MEMORY_PADDING, "memory_padding_mask", d->memory_padding_mask != 0, CLATTN_BOOL, 2, B,
             S, 0, 0);
    set_rule(rules, CLATTN__LAYER_OUTPUT, "output", true, (int)d->dtype, 3, B, L, E, 0);
    set_rule(rules, CLATTN__LAYER_SUM, "sum", false, (int)d->dtype, 3, B, L, E, 0);
    set_rule(rules, CLATTN__LAYER_HIDDEN, "hidden", d->hidden != 0, (int)d->dtype, 4, 1 + main_blocks, B, L, E);
    const bool learned = d->positions == CLATTN_POSITIONS_LEARNED;
    rules->position_low = learned ? 0 : -INT32_MAX;
    rules->position_high = learned ? s->position_table.shape[0] - 1 : INT32_MAX;
}

clattn_status clattn__check_stack(const clattn_stack_desc *in, const clattn_stack_weights *weights, clattn__stack *s,
                                  clattn__widened *copies, clattn__layer_rules *rules) {
    memset(s, 0, sizeof *s);
    clattn_stack_desc *d = &s->desc;
    if (!in) return clattn__fail(CLATTN_INVALID_ARGUMENT, "desc is NULL");
    CLATTN__TRY(clattn__check_struct_size("clattn_stack_desc", in->struct_size,
                                          offsetof(clattn_stack_desc, attention_kernel), sizeof *in));
    clattn_stack_desc_init(d);
    memcpy(d, in, in->struct_size);
    d->struct_size = sizeof *d;
    CLATTN__TRY(check_sizes(d));
    CLATTN__TRY(check_options(d));
    CLATTN__TRY(describe_attentions(s));
    if (!weights) return clattn__fail(CLATTN_INVALID_ARGUMENT, "weights is NULL");
    CLATTN__TRY(check_norms(s, weights, copies));
    CLATTN__TRY(check_positions(s, weights, copies));
    CLATTN__TRY(check_blocks(s, false, d->encoder_blocks, weights->encoder, &s->encoder, copies));
    CLATTN__TRY(check_blocks(s, true, d->decoder_blocks, weights->decoder, &s->decoder, copies));
    set_rules(s, rules);
    return CLATTN_OK;
}

void clattn__stack_clear(clattn__stack *stack) {
    clattn__free(stack->encoder);
    clattn__free(stack->decoder);
    stack->encoder = stack->decoder = NULL;
}
