/* The reference functions of include/clattn/layers.h. */
#include <string.h>

#include "api/check_layers.h"
#include "api/reference.h"
#include "ref/ref.h"

static const float *floats(const clattn_tensor *tensor) {
    return tensor->data ? (const float *)tensor->data + tensor->offset : NULL;
}

/* ---- tensors and values ------------------------------------------------------------------------------------------ */

static clattn_status check_io(const clattn__layer_rules *rules, const clattn_layer_io *io,
                              clattn_tensor tensors[CLATTN__LAYER_TENSORS]) {
    CLATTN__TRY(clattn__check_layer_io(rules, io, tensors));
    clattn__named_tensor named[CLATTN__LAYER_TENSORS];
    for (int i = 0; i < CLATTN__LAYER_TENSORS; i++)
        named[i] = (clattn__named_tensor){rules->tensors[i].name, &tensors[i]};
    return clattn__check_on_host(named, CLATTN__LAYER_TENSORS);
}

static clattn_status new_values(int64_t count, bool errors, clattn__ref_values *values) {
    values->value = clattn__alloc((size_t)count, sizeof *values->value);
    if (errors) values->error = clattn__alloc((size_t)count, sizeof *values->error);
    return values->value && (!errors || values->error) ? CLATTN_OK : CLATTN_OUT_OF_MEMORY;
}

static void free_values(clattn__ref_values *values) {
    clattn__free(values->value);
    clattn__free(values->error);
    *values = (clattn__ref_values){0};
}

static int64_t count_of(const clattn_tensor *t) { return t->shape[0] * t->shape[1] * t->shape[2]; }

static clattn__ref_array view(const clattn_tensor *t) {
    return (clattn__ref_array){(char *)t->data + (size_t)t->offset * clattn_dtype_size(t->dtype),
                               t->dtype,
                               {t->stride[0], 0, t->stride[1], t->stride[2]}};
}

/* (B, rows, n) with any strides, without error. */
static clattn_status load(const clattn_tensor *tensor, bool errors, clattn__ref_values *values) {
    clattn_status status = new_values(count_of(tensor), errors, values);
    if (status != CLATTN_OK || !tensor->data) return status;
    const clattn__ref_array array = view(tensor);
    double *to = values->value;
    for (int64_t b = 0; b < tensor->shape[0]; b++)
        for (int64_t r = 0; r < tensor->shape[1]; r++)
            for (int64_t c = 0; c < tensor->shape[2]; c++) *to++ = clattn__ref_get(&array, b, 0, r, c);
    return CLATTN_OK;
}

static void store(const clattn_tensor *tensor, const clattn__ref_values *values) {
    if (!tensor->data) return;
    const clattn__ref_array array = view(tensor);
    const double *from = values->value;
    for (int64_t b = 0; b < tensor->shape[0]; b++)
        for (int64_t r = 0; r < tensor->shape[1]; r++)
            for (int64_t c = 0; c < tensor->shape[2]; c++) clattn__ref_set(&array, b, 0, r, c, *from++);
}

/* The result is stored: one more rounding on either side. */
static void store_output(const clattn_tensor *tensor, const clattn__ref_values *values, float *tolerance) {
    store(tensor, values);
    for (int64_t i = 0; tolerance && i < count_of(tensor); i++) {
        const double rounding = clattn__ref_storage_rounding(tensor->dtype, values->value[i]);
        tolerance[i] = (float)(values->error[i] + rounding + 0x1p-126);
    }
}

/* A device may keep the product as dtype when an activation follows. */
static void apply_linear(const clattn_linear_weights *w, clattn_activation activation, clattn_dtype dtype, int64_t rows,
                         clattn__ref_values x, clattn__ref_values y) {
    const clattn__ref_projection projection = {.m = rows,
                                               .n = w->weight.shape[0],
                                               .k = w->weight.shape[1],
                                               .x = x.value,
                                               .x_error = x.error,
                                               .w = floats(&w->weight),
                                               .bias = floats(&w->bias),
                                               .w_row = w->weight.stride[0],
                                               .y = y.value,
                                               .y_error = y.error};
    clattn__ref_project(&projection);
    if (activation != CLATTN_ACTIVATION_NONE) clattn__ref_stored(dtype, y, rows * projection.n);
    clattn__ref_activate(activation, y, rows * projection.n);
}

static clattn__ref_norm norm_of(const clattn_norm_weights *w, int64_t rows, int64_t features, double eps) {
    return (clattn__ref_norm){.rows = rows,
                              .features = features,
                              .weight = floats(&w->weight),
                              .bias = floats(&w->bias),
                              .mean = floats(&w->mean),
                              .variance = floats(&w->variance),
                              .eps = eps};
}

/* ---- single layers ----------------------------------------------------------------------------------------------- */

clattn_status clattn_reference_linear(const clattn_linear_desc *desc, const clattn_linear_weights *weights,
                                      const clattn_layer_io *io, float *tolerance) {
    clattn_linear_desc d;
    clattn_linear_weights w;
    clattn__layer_rules rules;
    clattn_tensor t[CLATTN__LAYER_TENSORS];
    clattn__widened copies = {0};
    clattn__ref_values x = {0}, y = {0};
    clattn_status status = clattn__check_linear(desc, weights, &d, &w, &copies, &rules);
    if (status == CLATTN_OK) status = check_io(&rules, io, t);
    if (status == CLATTN_OK) status = load(&t[CLATTN__LAYER_INPUT], false, &x);
    if (status == CLATTN_OK) status = new_values(count_of(&t[CLATTN__LAYER_OUTPUT]), tolerance != NULL, &y);
    if (status == CLATTN_OK) {
        apply_linear(&w, d.activation, d.dtype, d.batch * d.rows, x, y);
        store_output(&t[CLATTN__LAYER_OUTPUT], &y, tolerance);
    }
    free_values(&x);
    free_values(&y);
    clattn__widened_clear(&copies);
    return status;
}

clattn_status clattn_reference_norm(const clattn_norm_desc *desc, const clattn_norm_weights *weights,
                                    const clattn_layer_io *io, float *tolerance) {
    clattn_norm_desc d;
    clattn_norm_weights w;
    clattn__layer_rules rules;
    clattn_tensor t[CLATTN__LAYER_TENSORS];
    clattn__widened copies = {0};
    clattn__ref_values x = {0}, residual = {0};
    clattn_status status = clattn__check_norm(desc, weights, &d, &w, &copies, &rules);
    if (status == CLATTN_OK) status = check_io(&rules, io, t);
    if (status == CLATTN_OK) status = load(&t[CLATTN__LAYER_INPUT], tolerance != NULL, &x);
    if (status == CLATTN_OK && d.residual) status = load(&t[CLATTN__LAYER_RESIDUAL], false, &residual);
    if (status == CLATTN_OK) {
        if (d.residual) clattn__ref_add(x, residual, count_of(&t[CLATTN__LAYER_INPUT]));
        if (d.sum) store(&t[CLATTN__LAYER_SUM], &x);
        const clattn__ref_norm norm = norm_of(&w, d.batch * d.rows, d.features, (double)d.eps);
        if (d.kind == CLATTN_NORM_LAYER)
            clattn__ref_layer_norm(&norm, x, x);
        else if (norm.rows > 0)
            clattn__ref_batch_norm(&norm, x, x);
        store_output(&t[CLATTN__LAYER_OUTPUT], &x, tolerance);
    }
    free_values(&x);
    free_values(&residual);
    clattn__widened_clear(&copies);
    return status;
}

clattn_status clattn_reference_activation(const clattn_activation_desc *desc, const clattn_layer_io *io,
                                          float *tolerance) {
    clattn_activation_desc d;
    clattn__layer_rules rules;
    clattn_tensor t[CLATTN__LAYER_TENSORS];
    CLATTN__TRY(clattn__check_activation(desc, &d, &rules));
    CLATTN__TRY(check_io(&rules, io, t));
    clattn__ref_values x = {0};
    clattn_status status = load(&t[CLATTN__LAYER_INPUT], tolerance != NULL, &x);
    if (status == CLATTN_OK) {
        clattn__ref_activate(d.activation, x, count_of(&t[CLATTN__LAYER_INPUT]));
        store_output(&t[CLATTN__LAYER_OUTPUT], &x, tolerance);
    }
    free_values(&x);
    return status;
}

/* Adds the encodings to x (B, rows, E); positions absent: first, first + 1, ... */
static void add_positions(const clattn_positions_desc *d, const clattn_tensor *table, const clattn_tensor *positions,
                          clattn__ref_values x) {
    for (int64_t b = 0; b < d->batch; b++)
        for (int64_t r = 0; r < d->rows; r++) {
            const int64_t at = (b * d->rows + r) * d->features;
            const clattn__ref_values row = {x.value + at, x.error ? x.error + at : NULL};
            int64_t p = d->first + r;
            if (positions && positions->data)
                p = (int64_t)clattn__ref_load(positions->data, positions->dtype,
                                              positions->offset + b * positions->stride[0] + r * positions->stride[1]);
            if (d->kind == CLATTN_POSITIONS_LEARNED)
                clattn__ref_add_learned(row, d->features, floats(table), p);
            else
                clattn__ref_add_sinusoidal(row, d->features, d->base, p);
        }
}

clattn_status clattn_reference_positions(const clattn_positions_desc *desc, const clattn_tensor *table,
                                         const clattn_layer_io *io, float *tolerance) {
    clattn_positions_desc d;
    clattn_tensor dense, t[CLATTN__LAYER_TENSORS];
    clattn__layer_rules rules;
    clattn__widened copies = {0};
    clattn__ref_values x = {0};
    clattn_status status = clattn__check_positions(desc, table, &d, &dense, &copies, &rules);
    if (status == CLATTN_OK) status = check_io(&rules, io, t);
    if (status == CLATTN_OK)
        status = d.add ? load(&t[CLATTN__LAYER_INPUT], tolerance != NULL, &x)
                       : new_values(count_of(&t[CLATTN__LAYER_OUTPUT]), tolerance != NULL, &x);
    if (status == CLATTN_OK) {
        add_positions(&d, &dense, &t[CLATTN__LAYER_POSITIONS], x);
        store_output(&t[CLATTN__LAYER_OUTPUT], &x, tolerance);
    }
    free_values(&x);
    clattn__widened_clear(&copies);
    return status;
}

/* ---- stacks: block by block, each sublayer on its own ------------------------------------------------------------ */

/* One sequence on its way through its blocks. */
typedef struct stream {
    const clattn__stack *stack;
    const clattn_tensor *tensors;
    int64_t rows;
    const clattn_mha_desc *self;
    const clattn_tensor *mask, *padding; /* of the self-attention */
    clattn__ref_values x, side, wide;    /* (B, rows, E) the stream; the same and (B, rows, F) for sublayers */
    clattn__ref_values memory;           /* (B, S, E), borrowed; of cross-attention */
} stream;

static int64_t stream_count(const stream *s) { return s->stack->desc.batch * s->rows * s->stack->desc.features; }

/* (B, rows, E) as the device keeps it between two steps. */
static void keep(const stream *s, clattn__ref_values x) {
    clattn__ref_stored(s->stack->desc.dtype, x, stream_count(s));
}

/* As in reference.c: an axis of extent 1 is broadcast, and a mask without any element is not an absent one. */
static clattn__ref_array view_mask(const clattn_tensor *t) {
    static float nothing;
    clattn__ref_array array = {NULL, t->dtype, {t->stride[0], t->stride[1], t->stride[2], t->stride[3]}};
    array.data = t->data ? (char *)t->data + (size_t)t->offset * clattn_dtype_size(t->dtype) : (void *)&nothing;
    for (int i = 0; i < 4; i++)
        if (t->shape[i] == 1) array.stride[i] = 0;
    return array;
}

static clattn_status attend(const clattn_mha_desc *d, const clattn_mha_weights *w, const clattn_tensor *mask,
                            const clattn_tensor *padding, clattn__ref_values query, clattn__ref_values key,
                            clattn__ref_values output) {
    const clattn_tensor *weights[] = {&w->q_proj_weight, &w->k_proj_weight, &w->v_proj_weight, &w->out_proj_weight};
    const clattn_tensor *biases[] = {&w->q_proj_bias, &w->k_proj_bias, &w->v_proj_bias, &w->out_proj_bias};
    clattn__ref_heads heads = {.batch = d->batch,
                               .query_len = d->query_len,
                               .kv_len = d->kv_len,
                               .features = d->embed_dim,
                               .heads = d->heads,
                               .scale = d->scale,
                               .stored = d->dtype,
                               .weight_dtype = clattn__weight_dtype(d->dtype, d->attention_kernel),
                               .causal = d->causal != CLATTN_CAUSAL_NONE,
                               .mask_len = d->mask_shape[3] == 1 ? d->kv_len : d->mask_shape[3],
                               .query_in = query,
                               .key_in = key,
                               .output = output};
    for (int i = 0; i < 4; i++) {
        heads.weight[i] = floats(weights[i]);
        heads.bias[i] = floats(biases[i]);
        heads.weight_row[i] = weights[i]->stride[0];
    }
    if (d->mask != CLATTN_MASK_NONE) heads.mask = view_mask(mask);
    if (d->padding_mask && padding->data)
        heads.padding =
            (clattn__ref_array){(char *)padding->data + padding->offset, padding->dtype, {padding->stride[0], 0, 0, 1}};
    return clattn__ref_heads_run(&heads);
}

static void normalise(const stream *s, const clattn_norm_weights *w, clattn__ref_values x, clattn__ref_values y) {
    const clattn_stack_desc *d = &s->stack->desc;
    const clattn__ref_norm norm = norm_of(w, d->batch * s->rows, d->features, (double)d->eps);
    clattn__ref_layer_norm(&norm, x, y);
}

enum sublayer { SELF, CROSS, FEED_FORWARD };

/* y = sublayer(x); y is a buffer of its own. */
static clattn_status run_sublayer(stream *s, enum sublayer kind, const clattn_block_weights *w, clattn__ref_values x,
                                  clattn__ref_values y) {
    const clattn_stack_desc *d = &s->stack->desc;
    const clattn_tensor *t = s->tensors;
    if (kind == SELF) return attend(s->self, &w->self_attention, s->mask, s->padding, x, x, y);
    if (kind == CROSS)
        return attend(&s->stack->cross, &w->cross_attention, &t[CLATTN__LAYER_MEMORY_MASK],
                      &t[CLATTN__LAYER_MEMORY_PADDING], x, s->memory, y);
    apply_linear(&w->expand, d->activation, d->dtype, d->batch * s->rows, x, s->wide);
    clattn__ref_stored(d->dtype, s->wide, d->batch * s->rows * d->feed_forward);
    apply_linear(&w->contract, CLATTN_ACTIVATION_NONE, d->dtype, d->batch * s->rows, s->wide, y);
    return CLATTN_OK;
}

/* post-norm x = norm(x + sublayer(x)); pre-norm x = x + sublayer(norm(x)) */
static clattn_status add_sublayer(stream *s, enum sublayer kind, const clattn_block_weights *w,
                                  const clattn_norm_weights *norm) {
    const int64_t count = stream_count(s);
    const bool errors = s->x.error != NULL;
    clattn__ref_values normed = {0};
    clattn_status status = new_values(count, errors, &normed);
    if (status == CLATTN_OK) {
        const bool pre = s->stack->desc.order == CLATTN_PRE_NORM;
        if (pre) normalise(s, norm, s->x, normed);
        if (pre) keep(s, normed);
        status = run_sublayer(s, kind, w, pre ? normed : s->x, s->side);
        keep(s, s->side);
        clattn__ref_add(s->x, s->side, count);
        if (!pre) normalise(s, norm, s->x, s->x);
        keep(s, s->x);
    }
    free_values(&normed);
    return status;
}

/* Positions, then the norm behind them. */
static void embed(stream *s, const clattn_tensor *positions) {
    const clattn_stack_desc *d = &s->stack->desc;
    const clattn_positions_desc where = {
        .kind = d->positions, .batch = d->batch, .rows = s->rows, .features = d->features, .base = d->position_base};
    if (d->positions != CLATTN_POSITIONS_NONE) {
        add_positions(&where, &s->stack->position_table, positions, s->x);
        keep(s, s->x);
    }
    if (!s->stack->has_input_norm) return;
    normalise(s, &s->stack->input_norm, s->x, s->x);
    keep(s, s->x);
}

/* hidden[index] of (1 + blocks, B, L, E) */
static void store_hidden(const stream *s, const clattn_tensor *hidden, int64_t index) {
    if (!hidden || !hidden->data) return;
    clattn_tensor one = *hidden;
    one.offset += index * hidden->stride[0];
    one.rank = 3;
    memcpy(one.shape, hidden->shape + 1, 3 * sizeof *one.shape);
    memcpy(one.stride, hidden->stride + 1, 3 * sizeof *one.stride);
    store(&one, &s->x);
}

static clattn_status run_blocks(stream *s, bool decoder, int64_t blocks, const clattn_block_weights *weights,
                                const clattn_tensor *hidden) {
    clattn_status status = CLATTN_OK;
    store_hidden(s, hidden, 0);
    for (int64_t i = 0; i < blocks && status == CLATTN_OK; i++) {
        const clattn_block_weights *w = &weights[i];
        status = add_sublayer(s, SELF, w, &w->self_norm);
        if (status == CLATTN_OK && decoder) status = add_sublayer(s, CROSS, w, &w->cross_norm);
        if (status == CLATTN_OK) status = add_sublayer(s, FEED_FORWARD, w, &w->feed_forward_norm);
        if (status == CLATTN_OK) store_hidden(s, hidden, i + 1);
    }
    return status;
}

static clattn_status open_stream(stream *s, const clattn_tensor *source, bool errors) {
    const clattn_stack_desc *d = &s->stack->desc;
    s->rows = source->shape[1];
    clattn_status status = load(source, errors, &s->x);
    if (status == CLATTN_OK) status = new_values(stream_count(s), errors, &s->side);
    return status == CLATTN_OK ? new_values(d->batch * s->rows * d->feed_forward, errors, &s->wide) : status;
}

static void close_stream(stream *s) {
    free_values(&s->x);
    free_values(&s->side);
    free_values(&s->wide);
}

static clattn_status run_encoder(const clattn__stack *stack, const clattn_tensor *t, bool main, bool errors,
                                 stream *s) {
    *s = (stream){.stack = stack,
                  .tensors = t,
                  .self = &stack->encoder_self,
                  .mask = &t[CLATTN__LAYER_MASK],
                  .padding = &t[main ? CLATTN__LAYER_PADDING : CLATTN__LAYER_MEMORY_PADDING]};
    clattn_status status = open_stream(s, &t[main ? CLATTN__LAYER_INPUT : CLATTN__LAYER_MEMORY], errors);
    if (status != CLATTN_OK) return status;
    embed(s, main ? &t[CLATTN__LAYER_POSITIONS] : NULL);
    status = run_blocks(s, false, stack->desc.encoder_blocks, stack->encoder, main ? &t[CLATTN__LAYER_HIDDEN] : NULL);
    if (status != CLATTN_OK || !stack->has_encoder_norm) return status;
    normalise(s, &stack->encoder_norm, s->x, s->x);
    if (!main) keep(s, s->x);
    return CLATTN_OK;
}

static clattn_status run_decoder(const clattn__stack *stack, const clattn_tensor *t, clattn__ref_values memory,
                                 bool errors, stream *s) {
    *s = (stream){.stack = stack,
                  .tensors = t,
                  .self = &stack->decoder_self,
                  .mask = &t[CLATTN__LAYER_MASK],
                  .padding = &t[CLATTN__LAYER_PADDING],
                  .memory = memory};
    clattn_status status = open_stream(s, &t[CLATTN__LAYER_INPUT], errors);
    if (status != CLATTN_OK) return status;
    embed(s, &t[CLATTN__LAYER_POSITIONS]);
    status = run_blocks(s, true, stack->desc.decoder_blocks, stack->decoder, &t[CLATTN__LAYER_HIDDEN]);
    if (status == CLATTN_OK && stack->has_decoder_norm) normalise(s, &stack->decoder_norm, s->x, s->x);
    return status;
}

static clattn_status run_stack(const clattn__stack *stack, const clattn_tensor *t, float *tolerance) {
    const bool decoder = stack->desc.decoder_blocks > 0, errors = tolerance != NULL;
    stream encoder_stream = {0}, decoder_stream = {0};
    clattn__ref_values memory = {0};
    clattn_status status = CLATTN_OK;
    if (stack->desc.encoder_blocks > 0) {
        status = run_encoder(stack, t, !decoder, errors, &encoder_stream);
        memory = encoder_stream.x;
    } else {
        status = load(&t[CLATTN__LAYER_MEMORY], errors, &memory);
    }
    if (status == CLATTN_OK && decoder) status = run_decoder(stack, t, memory, errors, &decoder_stream);
    if (status == CLATTN_OK)
        store_output(&t[CLATTN__LAYER_OUTPUT], decoder ? &decoder_stream.x : &encoder_stream.x, tolerance);
    if (stack->desc.encoder_blocks == 0) free_values(&memory);
    close_stream(&encoder_stream);
    close_stream(&decoder_stream);
    return status;
}

clattn_status clattn_reference_stack(const clattn_stack_desc *desc, const clattn_stack_weights *weights,
                                     const clattn_layer_io *io, float *tolerance) {
    clattn__stack stack;
    clattn__layer_rules rules;
    clattn_tensor tensors[CLATTN__LAYER_TENSORS];
    clattn__widened copies = {0};
    clattn_status status = clattn__check_stack(desc, weights, &stack, &copies, &rules);
    if (status == CLATTN_OK) status = check_io(&rules, io, tensors);
    if (status == CLATTN_OK) status = run_stack(&stack, tensors, tolerance);
    clattn__stack_clear(&stack);
    clattn__widened_clear(&copies);
    return status;
}
