/* One block of a Transformer on a stream x (B, L, E); source: Vaswani et al. 2017, section 3.1.
 *
 *   post-norm   x1 = norm(x + self(x))                 pre-norm   x1 = x + self(norm(x))
 *               x2 = norm(x1 + cross(x1, memory))                 x2 = x1 + cross(norm(x1), memory)
 *               y  = norm(x2 + feed_forward(x2))                  y  = x2 + feed_forward(norm(x2))
 *
 * Encoder blocks leave the second line out. A sublayer's result becomes its sum with the stream in the same step that
 * normalises it: in post-norm that is the sublayer's own norm, in pre-norm the norm of the sublayer that follows. */
#include "layers/layers.h"

typedef struct builder {
    clattn__plan *plan;
    const clattn__block *block;
    int64_t batch, rows, features;
    const clattn__port *y;
} builder;

static clattn_status new_port(const builder *b, const char *name, int64_t rows, int64_t features, clattn__port *port) {
    size_t bytes;
    const int64_t extents[3] = {b->batch, rows, features};
    const clattn_dtype dtype = b->block->desc->dtype;
    if (!clattn__volume(extents, 3, clattn_dtype_size(dtype), &bytes))
        return clattn__fail(CLATTN_INVALID_SHAPE,
                            "a buffer of %lld x %lld x %lld elements does not fit the address space",
                            (long long)extents[0], (long long)extents[1], (long long)extents[2]);
    const int buffer = clattn__plan_add_buffer(b->plan, dtype, bytes / clattn_dtype_size(dtype), "%s", name);
    if (buffer < 0) return CLATTN_OUT_OF_MEMORY;
    *port = clattn__arena_port(buffer, rows, features);
    return CLATTN_OK;
}

static clattn_status new_stream(const builder *b, const char *name, clattn__port *port) {
    return new_port(b, name, b->rows, b->features, port);
}

/* y = norm(x + residual), or of x alone where residual is NULL; sum (NULL: not wanted) receives x + residual. */
static clattn_status add_norm(const builder *b, const clattn_norm_weights *w, const clattn__port *x,
                              const clattn__port *residual, const clattn__port *sum, const clattn__port *y) {
    const clattn_norm_desc d = {.kind = CLATTN_NORM_LAYER,
                                .batch = b->batch,
                                .rows = b->rows,
                                .features = b->features,
                                .eps = b->block->desc->eps,
                                .dtype = b->block->desc->dtype,
                                .residual = residual != NULL,
                                .sum = sum != NULL};
    clattn__norm_ports ports = {.x = *x, .y = *y};
    if (residual) ports.residual = *residual;
    if (sum) ports.sum = *sum;
    return clattn__add_norm(b->plan, &d, w, &ports);
}

static clattn_status add_self(const builder *b, const clattn__port *x, const clattn__port *y) {
    const clattn__mha_ports ports = {
        .query = *x, .output = *y, .mask = b->block->mask, .padding = b->block->padding, .weights = CLATTN__ROLE_NONE};
    return clattn__add_mha(b->plan, b->block->self, &b->block->weights->self_attention, 0, &ports);
}

static clattn_status add_cross(const builder *b, const clattn__port *x, const clattn__port *y) {
    const clattn__mha_ports ports = {.query = *x,
                                     .key = b->block->memory,
                                     .value = b->block->memory,
                                     .output = *y,
                                     .mask = CLATTN__ROLE_MEMORY_MASK,
                                     .padding = CLATTN__ROLE_MEMORY_PADDING,
                                     .weights = CLATTN__ROLE_NONE};
    return clattn__add_mha(b->plan, b->block->cross, &b->block->weights->cross_attention, 0, &ports);
}

/* Under a memory limit a single sequence goes through in chunks. */
static int64_t feed_forward_rows(const builder *b) {
    const clattn_stack_desc *d = b->block->desc;
    enum { LEAST_ROWS = 16 }; /* fewer at a time would only be slow */
    if (b->block->memory_limit == 0 || b->batch > 1) return b->rows;
    const size_t row_bytes = (size_t)d->feed_forward * clattn_dtype_size(d->dtype);
    const size_t rows = b->block->memory_limit / row_bytes;
    return rows >= (size_t)b->rows ? b->rows : rows > LEAST_ROWS ? (int64_t)rows : LEAST_ROWS;
}

static clattn_status add_feed_forward(const builder *b, const clattn__port *x, const clattn__port *y) {
    const clattn_stack_desc *d = b->block->desc;
    const int64_t chunk = feed_forward_rows(b);
    if (b->batch == 0 || b->rows == 0) return CLATTN_OK;
    clattn__port wide, from = *x, to = *y;
    clattn_status status = new_port(b, "feed-forward", chunk, d->feed_forward, &wide);
    clattn_linear_desc expand = {.batch = b->batch,
                                 .rows = chunk,
                                 .in_features = b->features,
                                 .out_features = d->feed_forward,
                                 .activation = d->activation,
                                 .gemm_kernel = d->gemm_kernel,
                                 .dtype = d->dtype,
                                 .precision = d->precision};
    clattn_linear_desc contract = {.batch = b->batch,
                                   .rows = chunk,
                                   .in_features = d->feed_forward,
                                   .out_features = b->features,
                                   .gemm_kernel = d->gemm_kernel,
                                   .dtype = d->dtype,
                                   .precision = d->precision};
    int expands = 0, contracts = 0; /* products of the plan */
    if (status == CLATTN_OK) status = clattn__choose_linear(b->plan, &expand, &b->block->weights->expand, &expands);
    if (status == CLATTN_OK)
        status = clattn__choose_linear(b->plan, &contract, &b->block->weights->contract, &contracts);
    for (int64_t row = 0; row < b->rows && status == CLATTN_OK; row += chunk) {
        expand.rows = contract.rows = chunk < b->rows - row ? chunk : b->rows - row;
        from.row = to.row = row;
        status = clattn__add_linear_step(b->plan, &expand, expands, &from, &wide);
        if (status == CLATTN_OK) status = clattn__add_linear_step(b->plan, &contract, contracts, &wide, &to);
    }
    return status;
}

static clattn_status add_post_norm(const builder *b, const clattn__port *x) {
    const clattn_block_weights *w = b->block->weights;
    clattn__port stream, after; /* the sublayer's result and, normalised in place, x1 and x2 */
    clattn_status status = new_stream(b, "attention", &stream);
    if (status == CLATTN_OK) status = add_self(b, x, &stream);
    if (status == CLATTN_OK) status = add_norm(b, &w->self_norm, &stream, x, NULL, &stream);
    if (b->block->cross) {
        if (status == CLATTN_OK) status = new_stream(b, "cross-attention", &after);
        if (status == CLATTN_OK) status = add_cross(b, &stream, &after);
        if (status == CLATTN_OK) status = add_norm(b, &w->cross_norm, &after, &stream, NULL, &after);
        if (status == CLATTN_OK) stream = after;
    }
    if (status == CLATTN_OK) status = add_feed_forward(b, &stream, b->y);
    return status == CLATTN_OK ? add_norm(b, &w->feed_forward_norm, b->y, &stream, NULL, b->y) : status;
}

static clattn_status add_pre_norm(const builder *b, const clattn__port *x) {
    const clattn_block_weights *w = b->block->weights;
    clattn__port normed, result, stream, after;
    clattn_status status = new_stream(b, "normed", &normed);
    if (status == CLATTN_OK) status = new_stream(b, "attention", &result);
    if (status == CLATTN_OK) status = new_stream(b, "stream", &stream);
    if (status == CLATTN_OK) status = add_norm(b, &w->self_norm, x, NULL, NULL, &normed);
    if (status == CLATTN_OK) status = add_self(b, &normed, &result);
    if (status == CLATTN_OK)
        status = add_norm(b, b->block->cross ? &w->cross_norm : &w->feed_forward_norm, &result, x, &stream, &normed);
    if (b->block->cross) {
        if (status == CLATTN_OK) status = new_stream(b, "cross stream", &after);
        if (status == CLATTN_OK) status = add_cross(b, &normed, &result);
        if (status == CLATTN_OK) status = add_norm(b, &w->feed_forward_norm, &result, &stream, &after, &normed);
        if (status == CLATTN_OK) stream = after;
    }
    if (status == CLATTN_OK) status = add_feed_forward(b, &normed, b->y);
    const clattn_activation_desc sum = {
        .batch = b->batch, .rows = b->rows, .features = b->features, .dtype = b->block->desc->dtype};
    return status == CLATTN_OK ? clattn__add_elementwise(b->plan, &sum, b->y, &stream, b->y) : status;
}

clattn_status clattn__add_block(clattn__plan *plan, const clattn__block *block, const clattn__port *x,
                                const clattn__port *y) {
    const builder b = {.plan = plan,
                       .block = block,
                       .batch = block->desc->batch,
                       .rows = block->rows,
                       .features = block->desc->features,
                       .y = y};
    return block->desc->order == CLATTN_PRE_NORM ? add_pre_norm(&b, x) : add_post_norm(&b, x);
}
