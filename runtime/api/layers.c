#include "clattn/interop.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "api/check_layers.h"

struct clattn_layer {
    clattn__layer_rules rules;
    int32_t *positions; /* (B, L) of the current run as int32; NULL when runs bring none */
    clattn__plan plan;
};

/* ---- creation ---------------------------------------------------------------------------------------------------- */

static clattn_status check_create(clattn_layer **out, clattn_context *context) {
    if (out) *out = NULL;
    if (!out || !context) return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is NULL", out ? "context" : "out");
    return CLATTN_OK;
}

static clattn_status start(clattn_layer **layer, clattn_context *context, const char *what,
                           const clattn__layer_rules *rules) {
    *layer = clattn__alloc(1, sizeof **layer);
    if (!*layer) return CLATTN_OUT_OF_MEMORY;
    (*layer)->rules = *rules;
    (*layer)->plan.context = context;
    (*layer)->plan.what = what;
    const clattn__tensor_rule *positions = &rules->tensors[CLATTN__LAYER_POSITIONS];
    if (!positions->wanted) return CLATTN_OK;
    const size_t count = (size_t)(positions->shape[0] * positions->shape[1]);
    (*layer)->positions = clattn__alloc(count ? count : 1, sizeof *(*layer)->positions);
    return (*layer)->positions ? CLATTN_OK : CLATTN_OUT_OF_MEMORY;
}

static clattn_status end(clattn_layer **out, clattn_layer *layer, clattn_status status) {
    if (status != CLATTN_OK) clattn_layer_destroy(&layer);
    *out = layer;
    return status;
}

/* Ends a creation whose steps were added with `status`. */
static clattn_status finish(clattn_layer **out, clattn_layer *layer, clattn_status status) {
    return end(out, layer, status == CLATTN_OK ? clattn__plan_finish(&layer->plan) : status);
}

clattn_status clattn_linear_create(clattn_layer **out, clattn_context *context, const clattn_linear_desc *desc,
                                   const clattn_linear_weights *weights) {
    clattn_linear_desc d;
    clattn_linear_weights w;
    clattn__layer_rules rules;
    clattn_layer *layer = NULL;
    clattn__widened copies = {0};
    CLATTN__TRY(check_create(out, context));
    clattn_status status = clattn__check_linear(desc, weights, &d, &w, &copies, &rules);
    if (status == CLATTN_OK) status = start(&layer, context, "linear layer", &rules);
    const clattn__port x = clattn__role_port(CLATTN__ROLE_INPUT), y = clattn__role_port(CLATTN__ROLE_OUTPUT);
    if (status == CLATTN_OK) status = clattn__add_linear(&layer->plan, &d, &w, &x, &y);
    clattn__widened_clear(&copies);
    return finish(out, layer, status);
}

clattn_status clattn_norm_create(clattn_layer **out, clattn_context *context, const clattn_norm_desc *desc,
                                 const clattn_norm_weights *weights) {
    clattn_norm_desc d;
    clattn_norm_weights w;
    clattn__layer_rules rules;
    clattn_layer *layer = NULL;
    clattn__widened copies = {0};
    CLATTN__TRY(check_create(out, context));
    clattn_status status = clattn__check_norm(desc, weights, &d, &w, &copies, &rules);
    if (status == CLATTN_OK)
        status = start(&layer, context, d.kind == CLATTN_NORM_LAYER ? "layer norm" : "batch norm", &rules);
    const clattn__norm_ports ports = {.x = clattn__role_port(CLATTN__ROLE_INPUT),
                                      .residual = clattn__role_port(CLATTN__ROLE_RESIDUAL),
                                      .sum = clattn__role_port(CLATTN__ROLE_SUM),
                                      .y = clattn__role_port(CLATTN__ROLE_OUTPUT)};
    if (status == CLATTN_OK) status = clattn__add_norm(&layer->plan, &d, &w, &ports);
    clattn__widened_clear(&copies);
    return finish(out, layer, status);
}

clattn_status clattn_activation_create(clattn_layer **out, clattn_context *context,
                                       const clattn_activation_desc *desc) {
    clattn_activation_desc d;
    clattn__layer_rules rules;
    clattn_layer *layer = NULL;
    CLATTN__TRY(check_create(out, context));
    CLATTN__TRY(clattn__check_activation(desc, &d, &rules));
    clattn_status status = start(&layer, context, "activation", &rules);
    const clattn__port x = clattn__role_port(CLATTN__ROLE_INPUT), y = clattn__role_port(CLATTN__ROLE_OUTPUT);
    if (status == CLATTN_OK) status = clattn__add_elementwise(&layer->plan, &d, &x, NULL, &y);
    return finish(out, layer, status);
}

clattn_status clattn_positions_create(clattn_layer **out, clattn_context *context, const clattn_positions_desc *desc,
                                      const clattn_tensor *table) {
    clattn_positions_desc d;
    clattn_tensor dense;
    clattn__layer_rules rules;
    clattn_layer *layer = NULL;
    clattn__widened copies = {0};
    CLATTN__TRY(check_create(out, context));
    clattn_status status = clattn__check_positions(desc, table, &d, &dense, &copies, &rules);
    if (status == CLATTN_OK) status = start(&layer, context, "positional encoding", &rules);
    const clattn__port x = clattn__role_port(CLATTN__ROLE_INPUT), y = clattn__role_port(CLATTN__ROLE_OUTPUT);
    if (status == CLATTN_OK)
        status = clattn__add_positions(&layer->plan, &d, table ? &dense : NULL, d.add ? &x : NULL, &y);
    clattn__widened_clear(&copies);
    return finish(out, layer, status);
}

clattn_status clattn_stack_create(clattn_layer **out, clattn_context *context, const clattn_stack_desc *desc,
                                  const clattn_stack_weights *weights) {
    clattn__stack stack;
    clattn__layer_rules rules;
    clattn_layer *layer = NULL;
    clattn__widened copies = {0};
    CLATTN__TRY(check_create(out, context));
    clattn_status status = clattn__check_stack(desc, weights, &stack, &copies, &rules);
    if (status == CLATTN_OK) status = start(&layer, context, "stack of Transformer blocks", &rules);
    if (status == CLATTN_OK) status = clattn__plan_stack(&layer->plan, context, &stack);
    clattn__stack_clear(&stack);
    clattn__widened_clear(&copies);
    return end(out, layer, status);
}

void clattn_layer_destroy(clattn_layer **layer) {
    if (!layer || !*layer) return;
    clattn__plan_clear(&(*layer)->plan);
    clattn__free((*layer)->positions);
    clattn__free(*layer);
    *layer = NULL;
}

/* ---- runs -------------------------------------------------------------------------------------------------------- */

/* Host positions become dense int32, whatever they were. */
static void take_positions(clattn_layer *layer, clattn_tensor *positions) {
    if (!positions->data) return;
    const int64_t B = positions->shape[0], L = positions->shape[1];
    for (int64_t b = 0; b < B; b++)
        for (int64_t r = 0; r < L; r++) {
            const int64_t at = positions->offset + b * positions->stride[0] + r * positions->stride[1];
            layer->positions[b * L + r] = positions->dtype == CLATTN_I64
                                              ? (int32_t)((const int64_t *)positions->data)[at]
                                              : ((const int32_t *)positions->data)[at];
        }
    *positions = clattn_host(layer->positions, CLATTN_I32, 2, B, L, 0, 0);
    positions->stride[0] = L;
    positions->stride[1] = 1;
}

static clattn_status run(clattn_layer *layer, const clattn_layer_io *io, bool blocking, cl_uint waits,
                         const cl_event *wait_list, cl_event *event) {
    static const clattn__role roles[CLATTN__LAYER_TENSORS] = {
        [CLATTN__LAYER_INPUT] = CLATTN__ROLE_INPUT,
        [CLATTN__LAYER_RESIDUAL] = CLATTN__ROLE_RESIDUAL,
        [CLATTN__LAYER_POSITIONS] = CLATTN__ROLE_POSITIONS,
        [CLATTN__LAYER_MASK] = CLATTN__ROLE_MASK,
        [CLATTN__LAYER_PADDING] = CLATTN__ROLE_PADDING,
        [CLATTN__LAYER_MEMORY] = CLATTN__ROLE_MEMORY,
        [CLATTN__LAYER_MEMORY_MASK] = CLATTN__ROLE_MEMORY_MASK,
        [CLATTN__LAYER_MEMORY_PADDING] = CLATTN__ROLE_MEMORY_PADDING,
        [CLATTN__LAYER_OUTPUT] = CLATTN__ROLE_OUTPUT,
        [CLATTN__LAYER_SUM] = CLATTN__ROLE_SUM,
        [CLATTN__LAYER_HIDDEN] = CLATTN__ROLE_HIDDEN,
    };
    if (!layer) return clattn__fail(CLATTN_INVALID_ARGUMENT, "layer is NULL");
    clattn_tensor dense[CLATTN__LAYER_TENSORS], tensors[CLATTN__ROLE_COUNT];
    CLATTN__TRY(clattn__check_layer_io(&layer->rules, io, dense));
    take_positions(layer, &dense[CLATTN__LAYER_POSITIONS]);
    memset(tensors, 0, sizeof tensors);
    for (int i = 0; i < CLATTN__LAYER_TENSORS; i++) tensors[roles[i]] = dense[i];
    return clattn__plan_run(&layer->plan, tensors, blocking, waits, wait_list, event);
}

clattn_status clattn_layer_run(clattn_layer *layer, const clattn_layer_io *io) {
    return run(layer, io, true, 0, NULL, NULL);
}

clattn_status clattn_layer_enqueue(clattn_layer *layer, const clattn_layer_io *io, cl_uint waits,
                                   const cl_event *wait_list, cl_event *event) {
    return run(layer, io, false, waits, wait_list, event);
}

const char *clattn_layer_explain(const clattn_layer *layer) {
    return layer && layer->plan.explain.data ? layer->plan.explain.data : "";
}

clattn_status clattn_layer_info(const clattn_layer *layer, clattn_plan_info *info) {
    if (!layer || !info) return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is NULL", layer ? "info" : "layer");
    clattn__plan_info(&layer->plan, info);
    return CLATTN_OK;
}

clattn_status clattn_layer_buffer(const clattn_layer *layer, int index, clattn_plan_buffer *row) {
    if (!layer || !row) return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is NULL", layer ? "row" : "layer");
    return clattn__plan_buffer(&layer->plan, index, row);
}

/* ---- the shift of sinusoidal positions --------------------------------------------------------------------------- */

clattn_status clattn_positions_shift(int64_t features, double base, int64_t shift, float *matrix) {
    CLATTN__TRY(clattn__check_positions_shift(features, base, shift, matrix));
    memset(matrix, 0, (size_t)features * (size_t)features * sizeof *matrix);
    for (int64_t i = 0; i < features; i += 2) {
        const double angle = (double)shift * pow(base, -(double)i / (double)features);
        float *block = matrix + i * features + i; /* rows i and i + 1, from column i on */
        block[0] = block[features + 1] = (float)cos(angle);
        block[1] = (float)sin(angle);
        block[features] = (float)-sin(angle);
    }
    return CLATTN_OK;
}
