/* Linear layers: one product that applies the activation, or else the activation in place behind it. */
#include "layers/layers.h"

clattn__port clattn__arena_port(int buffer, int64_t rows, int64_t features) {
    return (clattn__port){.id = CLATTN__ROLE_COUNT + buffer, .place = {.batch = rows * features, .row = features}};
}

clattn__port clattn__role_port(int role) { return (clattn__port){.id = role}; }

clattn_status clattn__choose_linear(clattn__plan *plan, const clattn_linear_desc *d, const clattn_linear_weights *w,
                                    int *index) {
    const int64_t m = d->batch * d->rows, n = d->out_features, k = d->in_features;
    const float *bias = w->bias.data ? (const float *)w->bias.data + w->bias.offset : NULL;
    const clattn__gemm_problem problem = {.m = m,
                                          .n = n,
                                          .k = k,
                                          .width = n,
                                          .dtype = d->dtype,
                                          .precision = d->precision,
                                          .bias = bias != NULL,
                                          .activation = d->activation};
    *index = plan->gemm_count;
    clattn__gemm_kernel *gemm = clattn__plan_add_gemm(plan);
    if (!gemm) return CLATTN_OUT_OF_MEMORY;
    return clattn__gemm_choose(plan->context, &problem, d->gemm_kernel,
                               (const float *)w->weight.data + w->weight.offset, w->weight.stride[0], bias, gemm,
                               &plan->notes);
}

clattn_status clattn__add_linear_step(clattn__plan *plan, const clattn_linear_desc *d, int index, const clattn__port *x,
                                      const clattn__port *y) {
    const int64_t m = d->batch * d->rows, n = d->out_features, k = d->in_features;
    const clattn__gemm_problem *problem = &plan->gemms[index].problem;
    clattn__step *step = clattn__plan_add_step(plan, CLATTN__STEP_GEMM, index);
    if (!step) return CLATTN_OUT_OF_MEMORY;
    step->args.gemm = (clattn_gemm_args){.x = x->place,
                                         .y = y->place,
                                         .m = (int)m,
                                         .n = (int)n,
                                         .k = (int)k,
                                         .rows = (int)d->rows,
                                         .width = (int)n,
                                         .part_columns = (int)n,
                                         .has_bias = problem->bias};
    clattn__plan_operand(step, CLATTN__GEMM_X, x->id, 0, 0, x->row);
    clattn__plan_operand(step, CLATTN__GEMM_Y, y->id, 0, 0, y->row);
    plan->flops += 2.0 * (double)m * (double)n * (double)k;
    if (problem->activation == d->activation) return CLATTN_OK;
    const clattn_activation_desc activation = {
        .batch = d->batch, .rows = d->rows, .features = n, .activation = d->activation, .dtype = d->dtype};
    return clattn__add_elementwise(plan, &activation, y, NULL, y);
}

clattn_status clattn__add_linear(clattn__plan *plan, const clattn_linear_desc *d, const clattn_linear_weights *w,
                                 const clattn__port *x, const clattn__port *y) {
    int index;
    if (d->batch == 0 || d->rows == 0) return CLATTN_OK;
    clattn_status status = clattn__choose_linear(plan, d, w, &index);
    return status == CLATTN_OK ? clattn__add_linear_step(plan, d, index, x, y) : status;
}
