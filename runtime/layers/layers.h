/* Layers: weights and sub-plans. They know shapes and schedules, and nothing of kernels. */
#ifndef CLATTN_LAYERS_H
#define CLATTN_LAYERS_H

#include "plan/plan.h"

/* desc and weights with every default resolved and the projections separate; both are borrowed. appended_keys: one for
 * bias_k/bias_v, one for the zero key. plan is zeroed by the caller, who clears it on failure too. */
clattn_status clattn__plan_mha(clattn__plan *plan, clattn_context *context, const clattn_mha_desc *desc,
                               const clattn_mha_weights *weights, int64_t appended_keys);

#endif
