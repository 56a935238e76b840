/* Layers: weights and sub-plans. They know shapes and schedules, and nothing of kernels. */
#ifndef CLATTN_LAYERS_H
#define CLATTN_LAYERS_H

#include "plan/plan.h"

/* Where a layer finds or leaves a (batch, row, column) tensor: an outside role, whose strides come from the run, or an
 * arena buffer (CLATTN__ROLE_COUNT + index) with the place of its elements. */
typedef struct clattn__port {
    int id;
    clattn_place place;
} clattn__port;

typedef struct clattn__mha_ports {
    clattn__port query, key, value, output; /* key and value: as desc->inputs says; unused ones are ignored */
    int mask, padding, weights;             /* outside roles; read when the description asks for them */
} clattn__mha_ports;

/* Adds the layer's kernels and steps to a plan under construction. desc and weights with every default resolved and the
 * projections separate; both are borrowed. appended_keys: one for bias_k/bias_v, one for the zero key. */
clattn_status clattn__add_mha(clattn__plan *plan, const clattn_mha_desc *desc, const clattn_mha_weights *weights,
                              int64_t appended_keys, const clattn__mha_ports *ports);

/* The layer alone, finished. plan is zeroed by the caller, who clears it on failure too. */
clattn_status clattn__plan_mha(clattn__plan *plan, clattn_context *context, const clattn_mha_desc *desc,
                               const clattn_mha_weights *weights, int64_t appended_keys);

#endif
