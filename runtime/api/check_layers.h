/* The rules of include/clattn/layers.h: what check.h is for attention. */
#ifndef CLATTN_API_CHECK_LAYERS_H
#define CLATTN_API_CHECK_LAYERS_H

#include "clattn/layers.h"
#include "layers/layers.h"

#include "api/rules.h"

/* The tensors of clattn_layer_io, in its order. */
enum {
    CLATTN__LAYER_INPUT = 0,
    CLATTN__LAYER_RESIDUAL,
    CLATTN__LAYER_POSITIONS,
    CLATTN__LAYER_MASK,
    CLATTN__LAYER_PADDING,
    CLATTN__LAYER_MEMORY,
    CLATTN__LAYER_MEMORY_MASK,
    CLATTN__LAYER_MEMORY_PADDING,
    CLATTN__LAYER_OUTPUT,
    CLATTN__LAYER_SUM,
    CLATTN__LAYER_HIDDEN,
    CLATTN__LAYER_TENSORS
};

/* What a layer's runs must bring. */
typedef struct clattn__layer_rules {
    clattn__tensor_rule tensors[CLATTN__LAYER_TENSORS];
    int64_t position_low, position_high; /* inclusive */
} clattn__layer_rules;

/* Each fills the resolved description and the rules of its runs; weights come out in float32, with their strides filled
 * in. copies is the caller's to clear, after a failure too. */
clattn_status clattn__check_linear(const clattn_linear_desc *in, const clattn_linear_weights *weights,
                                   clattn_linear_desc *desc, clattn_linear_weights *dense, clattn__widened *copies,
                                   clattn__layer_rules *rules);
clattn_status clattn__check_norm(const clattn_norm_desc *in, const clattn_norm_weights *weights, clattn_norm_desc *desc,
                                 clattn_norm_weights *dense, clattn__widened *copies, clattn__layer_rules *rules);
clattn_status clattn__check_activation(const clattn_activation_desc *in, clattn_activation_desc *desc,
                                       clattn__layer_rules *rules);
clattn_status clattn__check_positions(const clattn_positions_desc *in, const clattn_tensor *table,
                                      clattn_positions_desc *desc, clattn_tensor *dense, clattn__widened *copies,
                                      clattn__layer_rules *rules);
clattn_status clattn__check_positions_shift(int64_t features, double base, int64_t shift, const float *matrix);

/* Allocates the blocks of *stack, which clattn__stack_clear frees, also after a failure. */
clattn_status clattn__check_stack(const clattn_stack_desc *desc, const clattn_stack_weights *weights,
                                  clattn__stack *stack, clattn__widened *copies, clattn__layer_rules *rules);
void clattn__stack_clear(clattn__stack *stack);

/* check_stack.c uses these of check_layers.c: weights of a linear layer and of a norm, named in messages. */
clattn_status clattn__check_linear_weights(const char *name, const clattn_linear_weights *in, int64_t out_features,
                                           int64_t in_features, clattn_linear_weights *dense, clattn__widened *copies);
clattn_status clattn__check_norm_weights(const char *name, const clattn_norm_weights *in, int64_t features,
                                         clattn_norm_kind kind, clattn_norm_weights *dense, clattn__widened *copies);
clattn_status clattn__check_eps(float eps);
clattn_status clattn__check_table(const clattn_tensor *in, int64_t features, clattn_tensor *dense,
                                  clattn__widened *copies);
clattn_status clattn__check_base(double base);

/* Presence, types, shapes, strides of all tensors, and the range of positions in host memory. */
clattn_status clattn__check_layer_io(const clattn__layer_rules *rules, const clattn_layer_io *io,
                                     clattn_tensor tensors[CLATTN__LAYER_TENSORS]);

#endif
