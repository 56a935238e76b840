/* Stacks: positions, an optional norm, blocks, an optional last norm, once per stream, all in one plan.
 *
 *   encoder          input  -> encoder blocks -> output
 *   decoder          input  -> decoder blocks (memory from outside) -> output
 *   encoder-decoder  memory -> encoder blocks -> arena;  input -> decoder blocks (memory from the arena) -> output
 *
 * Under a memory limit parts of the batch go through all of it one after the other; and where one sequence is too much,
 * attention and the feed-forward part of each block get a limit of their own. */
#include <stdio.h>

#include "layers/layers.h"

/* One run of blocks over one sequence. */
typedef struct stream {
    const clattn__stack *stack;
    const char *scope; /* of buffer names: "enc" or "dec" */
    int source;        /* role of the sequence */
    int64_t rows, blocks;
    bool main;           /* works on `input`: has given positions, hidden outputs and the output */
    clattn__block block; /* what all its blocks share */
    const clattn_block_weights *weights;
    const clattn_norm_weights *last_norm; /* NULL: none */
} stream;

static clattn_status new_port(clattn__plan *plan, const stream *s, const char *name, clattn__port *port) {
    const clattn_stack_desc *d = &s->stack->desc;
    const size_t count = (size_t)(d->batch * s->rows * d->features); /* checked with the input */
    const int buffer = clattn__plan_add_buffer(plan, d->dtype, count, "%s", name);
    if (buffer < 0) return CLATTN_OUT_OF_MEMORY;
    *port = clattn__arena_port(buffer, s->rows, d->features);
    return CLATTN_OK;
}

static clattn_status add_norm(clattn__plan *plan, const stream *s, const clattn_norm_weights *w, const clattn__port *x,
                              const clattn__port *y) {
    const clattn_stack_desc *d = &s->stack->desc;
    const clattn_norm_desc norm = {.kind = CLATTN_NORM_LAYER,
                                   .batch = d->batch,
                                   .rows = s->rows,
                                   .features = d->features,
                                   .eps = d->eps,
                                   .dtype = d->dtype};
    const clattn__norm_ports ports = {.x = *x, .y = *y};
    return clattn__add_norm(plan, &norm, w, &ports);
}

/* Positions and the norm behind them; port receives where the stream is then. */
static clattn_status add_embedding(clattn__plan *plan, const stream *s, clattn__port *port) {
    const clattn_stack_desc *d = &s->stack->desc;
    const bool positions = d->positions != CLATTN_POSITIONS_NONE;
    *port = clattn__role_port(s->source);
    if (!positions && !s->stack->has_input_norm) return CLATTN_OK;
    clattn__port embedding;
    clattn_status status = new_port(plan, s, "embedding", &embedding);
    if (status == CLATTN_OK && positions) {
        const clattn_positions_desc where = {.kind = d->positions,
                                             .batch = d->batch,
                                             .rows = s->rows,
                                             .features = d->features,
                                             .base = d->position_base,
                                             .positions = s->main && d->positions_given,
                                             .add = 1,
                                             .dtype = d->dtype};
        const bool learned = d->positions == CLATTN_POSITIONS_LEARNED;
        status = clattn__add_positions(plan, &where, learned ? &s->stack->position_table : NULL, port, &embedding);
        *port = embedding;
    }
    if (status == CLATTN_OK && s->stack->has_input_norm)
        status = add_norm(plan, s, &s->stack->input_norm, port, &embedding);
    *port = embedding;
    return status;
}

static clattn_status add_hidden(clattn__plan *plan, const stream *s, const clattn__port *port, int64_t index) {
    const clattn_stack_desc *d = &s->stack->desc;
    if (!s->main || !d->hidden) return CLATTN_OK;
    const clattn_activation_desc copy = {
        .batch = d->batch, .rows = s->rows, .features = d->features, .dtype = d->dtype};
    return clattn__add_copy(plan, &copy, port, CLATTN__ROLE_HIDDEN, index);
}

/* result receives where the stream ends: the output role, or an arena buffer when it is not the main stream. */
static clattn_status add_stream(clattn__plan *plan, stream *s, clattn__port *result) {
    clattn__port x, y;
    snprintf(plan->scope, sizeof plan->scope, "%s ", s->scope);
    clattn_status status = add_embedding(plan, s, &x);
    if (status == CLATTN_OK) status = add_hidden(plan, s, &x, 0);
    for (int64_t i = 0; i < s->blocks && status == CLATTN_OK; i++) {
        snprintf(plan->scope, sizeof plan->scope, "%s%lld ", s->scope, (long long)i);
        y = clattn__role_port(CLATTN__ROLE_OUTPUT);
        if (i + 1 < s->blocks || s->last_norm || !s->main) status = new_port(plan, s, "output", &y);
        s->block.weights = &s->weights[i];
        if (status == CLATTN_OK) status = clattn__add_block(plan, &s->block, &x, &y);
        if (status == CLATTN_OK) status = add_hidden(plan, s, &y, i + 1);
        x = y;
    }
    *result = x;
    if (status != CLATTN_OK || !s->last_norm) return status;
    if (s->main) *result = clattn__role_port(CLATTN__ROLE_OUTPUT);
    return add_norm(plan, s, s->last_norm, &x, result);
}

static clattn_status add_stack(clattn__plan *plan, const clattn__stack *stack, size_t block_limit) {
    const clattn_stack_desc *d = &stack->desc;
    const bool both = d->encoder_blocks > 0 && d->decoder_blocks > 0;
    clattn__port memory = clattn__role_port(CLATTN__ROLE_MEMORY), output;
    clattn_status status = CLATTN_OK;
    if (d->batch == 0 || d->rows == 0) return CLATTN_OK; /* no output, so nothing to do */
    if (d->encoder_blocks > 0) {
        stream encoder = {.stack = stack,
                          .scope = "enc",
                          .source = both ? CLATTN__ROLE_MEMORY : CLATTN__ROLE_INPUT,
                          .rows = both ? d->memory_rows : d->rows,
                          .blocks = d->encoder_blocks,
                          .main = !both,
                          .weights = stack->encoder,
                          .last_norm = stack->has_encoder_norm ? &stack->encoder_norm : NULL};
        encoder.block = (clattn__block){.desc = d,
                                        .rows = encoder.rows,
                                        .self = &stack->encoder_self,
                                        .memory_limit = block_limit,
                                        .mask = CLATTN__ROLE_MASK,
                                        .padding = both ? CLATTN__ROLE_MEMORY_PADDING : CLATTN__ROLE_PADDING};
        status = add_stream(plan, &encoder, both ? &memory : &output);
    }
    if (status == CLATTN_OK && d->decoder_blocks > 0) {
        stream decoder = {.stack = stack,
                          .scope = "dec",
                          .source = CLATTN__ROLE_INPUT,
                          .rows = d->rows,
                          .blocks = d->decoder_blocks,
                          .main = true,
                          .weights = stack->decoder,
                          .last_norm = stack->has_decoder_norm ? &stack->decoder_norm : NULL};
        decoder.block = (clattn__block){.desc = d,
                                        .rows = d->rows,
                                        .self = &stack->decoder_self,
                                        .cross = &stack->cross,
                                        .mask = CLATTN__ROLE_MASK,
                                        .padding = CLATTN__ROLE_PADDING,
                                        .memory_limit = block_limit,
                                        .memory = memory};
        status = add_stream(plan, &decoder, &output);
    }
    return status;
}

/* ---- the memory limit -------------------------------------------------------------------------------------------- */

/* How the work is divided: the batch into so many equal parts; what a block may use beside the streams, 0: anything. */
typedef struct division {
    int64_t parts;
    size_t block_limit;
} division;

static clattn_status plan_divided(clattn__plan *plan, const clattn__stack *stack, const division *by) {
    clattn__stack part = *stack;
    const int64_t batch = stack->desc.batch / by->parts;
    part.desc.batch = part.encoder_self.batch = part.decoder_self.batch = part.cross.batch = batch;
    part.encoder_self.memory_limit = part.decoder_self.memory_limit = part.cross.memory_limit = by->block_limit;
    plan->parts = by->parts;
    plan->part_batch = batch;
    plan->memory_limit = stack->desc.memory_limit;
    clattn_status status = add_stack(plan, &part, by->block_limit);
    plan->flops *= (double)by->parts;
    plan->scope[0] = 0;
    return status == CLATTN_OK ? clattn__plan_finish(plan) : status;
}

/* The next finer division, from one that took so many bytes. */
static void divide(division *by, int64_t batch, size_t bytes, size_t limit) {
    if (by->parts >= batch) {
        by->block_limit = (by->block_limit ? by->block_limit : bytes) / 2;
        return;
    }
    const double wanted = (double)by->parts * (double)bytes / (double)limit; /* bytes go with the entries at a time */
    do by->parts++;
    while (by->parts < batch && (batch % by->parts != 0 || (double)by->parts < wanted));
}

clattn_status clattn__plan_stack(clattn__plan *plan, clattn_context *context, const clattn__stack *stack) {
    const char *what = plan->what;
    const size_t limit = stack->desc.memory_limit;
    division by = {.parts = 1};
    size_t least = SIZE_MAX;
    for (;;) {
        plan->context = context;
        plan->what = what;
        const clattn_status status = plan_divided(plan, stack, &by);
        if (status != CLATTN_MEMORY_LIMIT) return status;
        const size_t bytes = plan->arena_bytes; /* 0: attention cannot do with its part of the limit */
        clattn__plan_clear(plan);
        if (bytes == 0) break;
        if (bytes < least) least = bytes;
        divide(&by, stack->desc.batch, bytes, limit);
    }
    return clattn__fail(CLATTN_MEMORY_LIMIT, "memory_limit is %zu bytes; the least that works is %zu", limit, least);
}
