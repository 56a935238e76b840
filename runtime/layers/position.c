/* Positional encodings as a step. */
#include <string.h>

#include "layers/layers.h"

static clattn_status create(clattn__plan *plan, const clattn_positions_desc *d, const clattn_tensor *table) {
    clattn__op *op = clattn__plan_add_op(plan);
    if (!op) return CLATTN_OUT_OF_MEMORY;
    if (d->kind == CLATTN_POSITIONS_LEARNED)
        return clattn__learned_create(op, &plan->context->programs, d->dtype,
                                      (const float *)table->data + table->offset, table->shape[0], d->features);
    uint64_t *turns = clattn__turns(d->features, d->base);
    clattn_status status = turns ? clattn__sinusoidal_create(op, &plan->context->programs, d->dtype, d->features, turns)
                                 : CLATTN_OUT_OF_MEMORY;
    clattn__free(turns);
    return status;
}

clattn_status clattn__add_positions(clattn__plan *plan, const clattn_positions_desc *d, const clattn_tensor *table,
                                    const clattn__port *x, const clattn__port *y) {
    if (d->batch == 0 || d->rows == 0) return CLATTN_OK;
    const int index = plan->op_count;
    clattn_status status = create(plan, d, table);
    if (status != CLATTN_OK) return status;
    clattn__step *step = clattn__plan_add_step(plan, CLATTN__STEP_OP, index);
    if (!step) return CLATTN_OUT_OF_MEMORY;
    const clattn_positions_args args = {.first = d->first,
                                        .batch = (int)d->batch,
                                        .rows = (int)d->rows,
                                        .features = (int)d->features,
                                        .table_rows = table ? (int)table->shape[0] : 0,
                                        .has_x = x != NULL,
                                        .has_positions = d->positions};
    memcpy(step->args.op.args.bytes, &args, sizeof args);
    if (x) {
        step->args.op.place[CLATTN__POSITIONS_X] = x->place;
        clattn__plan_operand(step, CLATTN__POSITIONS_X, x->id, 0, 0, 0);
    }
    if (d->positions) clattn__plan_operand(step, CLATTN__POSITIONS_POSITIONS, CLATTN__ROLE_POSITIONS, 0, 0, 0);
    step->args.op.place[CLATTN__POSITIONS_Y] = y->place;
    clattn__plan_operand(step, CLATTN__POSITIONS_Y, y->id, 0, 0, 0);
    return CLATTN_OK;
}
