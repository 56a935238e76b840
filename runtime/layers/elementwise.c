/* Activations, residual sums and copies as steps. */
#include <string.h>

#include "layers/layers.h"

static clattn__step *add_step(clattn__plan *plan, const clattn_activation_desc *d, const clattn__port *x,
                              const clattn__port *addend, const clattn__port *y, clattn_status *status) {
    const int index = plan->op_count;
    clattn__op *op = clattn__plan_add_op(plan);
    *status = op ? clattn__elementwise_create(op, &plan->context->programs, d->dtype, (int)d->activation)
                 : CLATTN_OUT_OF_MEMORY;
    clattn__step *step = *status == CLATTN_OK ? clattn__plan_add_step(plan, CLATTN__STEP_OP, index) : NULL;
    if (!step) {
        if (*status == CLATTN_OK) *status = CLATTN_OUT_OF_MEMORY;
        return NULL;
    }
    step->args.op.place[CLATTN__ELEMENTWISE_X] = x->place;
    step->args.op.place[CLATTN__ELEMENTWISE_Y] = y->place;
    clattn__plan_operand(step, CLATTN__ELEMENTWISE_X, x->id, 0, 0, 0);
    clattn__plan_operand(step, CLATTN__ELEMENTWISE_Y, y->id, 0, 0, 0);
    if (!addend) return step;
    step->args.op.place[CLATTN__ELEMENTWISE_ADDEND] = addend->place;
    clattn__plan_operand(step, CLATTN__ELEMENTWISE_ADDEND, addend->id, 0, 0, 0);
    return step;
}

static void set_args(clattn__step *step, const clattn_activation_desc *d, bool has_addend, bool copies) {
    const clattn_elementwise_args args = {.batch = (int)d->batch,
                                          .rows = (int)d->rows,
                                          .features = (int)d->features,
                                          .has_addend = has_addend,
                                          .copies = copies};
    memcpy(step->args.op.args.bytes, &args, sizeof args);
}

clattn_status clattn__add_elementwise(clattn__plan *plan, const clattn_activation_desc *d, const clattn__port *x,
                                      const clattn__port *addend, const clattn__port *y) {
    if (d->batch == 0 || d->rows == 0) return CLATTN_OK;
    clattn_status status;
    clattn__step *step = add_step(plan, d, x, addend, y, &status);
    if (step) set_args(step, d, addend != NULL, false);
    return status;
}

clattn_status clattn__add_copy(clattn__plan *plan, const clattn_activation_desc *d, const clattn__port *x, int role,
                               int64_t index) {
    if (d->batch == 0 || d->rows == 0) return CLATTN_OK;
    clattn_status status;
    const clattn__port y = clattn__role_port(role);
    clattn__step *step = add_step(plan, d, x, NULL, &y, &status);
    if (!step) return status;
    set_args(step, d, false, true);
    clattn__plan_operand(step, CLATTN__ELEMENTWISE_Y, role, index, 0, 0);
    return CLATTN_OK;
}
