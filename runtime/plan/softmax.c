/* Softmax as a plan of one step. */
#include "plan/plan.h"

#include <string.h>

/* Which outside role stands for which operand. */
static void bind_operands(clattn__step *step, const clattn_softmax_desc *d) {
    const bool backward = d->kind == CLATTN_SOFTMAX_BACKWARD, loss = d->kind == CLATTN_SOFTMAX_CROSS_ENTROPY;
    const struct {
        int slot;
        clattn__role role;
        bool wanted;
    } rows[] = {{SOFTMAX_X, CLATTN__ROLE_QUERY, true},
                {SOFTMAX_MASK, CLATTN__ROLE_MASK, d->mask != 0},
                {SOFTMAX_SECOND, CLATTN__ROLE_KEY, backward || loss},
                {SOFTMAX_PROBABILITY, CLATTN__ROLE_WEIGHTS, !backward && (!loss || d->probability)},
                {SOFTMAX_LOSS, CLATTN__ROLE_LSE, loss},
                {SOFTMAX_GRAD, CLATTN__ROLE_OUTPUT, backward || (loss && d->gradient)}};
    for (size_t i = 0; i < CLATTN__COUNT(rows); i++)
        if (rows[i].wanted) clattn__plan_operand(step, rows[i].slot, (int)rows[i].role, 0, 0, 0);
}

clattn_status clattn__plan_softmax(clattn__plan *plan, clattn_context *context, const clattn_softmax_desc *d) {
    plan->context = context;
    plan->what = "softmax";
    clattn__op *op = clattn__plan_add_op(plan);
    if (!op) return CLATTN_OUT_OF_MEMORY;
    clattn_status status = clattn__softmax_create(op, &context->programs, d->dtype, d->kind);
    if (status != CLATTN_OK) return status;
    clattn__step *step = clattn__plan_add_step(plan, CLATTN__STEP_OP, 0);
    if (!step) return CLATTN_OUT_OF_MEMORY;
    clattn_softmax_shape shape;
    clattn__softmax_shape(d, &shape);
    memcpy(step->args.op.args.bytes, &shape, sizeof shape);
    bind_operands(step, d);
    plan->flops = 5.0 * (double)shape.rows * (double)shape.n; /* maximum, difference, power, sum, product */
    return clattn__plan_finish(plan);
}
