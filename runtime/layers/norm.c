/* Normalisations as steps: layer norm is one, batch norm from the batch's own statistics two. */
#include <math.h>
#include <string.h>

#include "layers/layers.h"

static const float *floats(const clattn_tensor *tensor) {
    return tensor->data ? (const float *)tensor->data + tensor->offset : NULL;
}

/* The step of an op that was created with `created`. */
static clattn_status add_step(clattn__plan *plan, int op, clattn_status created, const clattn_norm_desc *d,
                              clattn__step **step) {
    *step = created == CLATTN_OK ? clattn__plan_add_step(plan, CLATTN__STEP_OP, op) : NULL;
    if (!*step) return created == CLATTN_OK ? CLATTN_OUT_OF_MEMORY : created;
    const clattn_norm_args args = {.batch = (int)d->batch,
                                   .rows = (int)d->rows,
                                   .features = (int)d->features,
                                   .has_residual = d->residual,
                                   .has_sum = d->sum,
                                   .eps = d->eps};
    memcpy((*step)->args.op.args.bytes, &args, sizeof args);
    return CLATTN_OK;
}

static void set_operand(clattn__step *step, int slot, const clattn__port *port) {
    step->args.op.place[slot] = port->place;
    clattn__plan_operand(step, slot, port->id, 0, 0, 0);
}

static clattn_status add_layer_norm(clattn__plan *plan, const clattn_norm_desc *d, const clattn_norm_weights *w,
                                    const clattn__norm_ports *ports) {
    const int index = plan->op_count;
    clattn__op *op = clattn__plan_add_op(plan);
    if (!op) return CLATTN_OUT_OF_MEMORY;
    clattn__step *step;
    clattn_status status = clattn__layer_norm_create(op, &plan->context->programs, d->dtype, d->features,
                                                     floats(&w->weight), floats(&w->bias));
    status = add_step(plan, index, status, d, &step);
    if (status != CLATTN_OK) return status;
    set_operand(step, CLATTN__NORM_X, &ports->x);
    set_operand(step, CLATTN__NORM_Y, &ports->y);
    if (d->residual) set_operand(step, CLATTN__NORM_RESIDUAL, &ports->residual);
    if (d->sum) set_operand(step, CLATTN__NORM_SUM, &ports->sum);
    return CLATTN_OK;
}

/* Given mean and variance as the kernel wants them: (2, features), mean and 1 / sqrt(variance + eps). */
static float *given_statistics(const clattn_norm_desc *d, const clattn_norm_weights *w) {
    float *statistics = clattn__alloc(2 * (size_t)d->features, sizeof *statistics);
    for (int64_t i = 0; statistics && i < d->features; i++) {
        statistics[i] = floats(&w->mean)[i];
        statistics[d->features + i] = (float)(1 / sqrt((double)floats(&w->variance)[i] + (double)d->eps));
    }
    return statistics;
}

static clattn_status add_statistics(clattn__plan *plan, const clattn_norm_desc *d, const clattn__port *x, int buffer) {
    const int index = plan->op_count;
    clattn__op *op = clattn__plan_add_op(plan);
    if (!op) return CLATTN_OUT_OF_MEMORY;
    clattn__step *step;
    clattn_status status =
        add_step(plan, index, clattn__batch_statistics_create(op, &plan->context->programs, d->dtype), d, &step);
    if (status != CLATTN_OK) return status;
    set_operand(step, CLATTN__NORM_X, x);
    clattn__plan_operand(step, CLATTN__NORM_STATISTICS, CLATTN__ROLE_COUNT + buffer, 0, 0, 0);
    return CLATTN_OK;
}

static clattn_status add_batch_norm(clattn__plan *plan, const clattn_norm_desc *d, const clattn_norm_weights *w,
                                    const clattn__norm_ports *ports) {
    clattn_status status = CLATTN_OK;
    float *given = NULL;
    int buffer = -1;
    if (d->kind == CLATTN_NORM_BATCH) {
        buffer = clattn__plan_add_buffer(plan, CLATTN_F32, 2 * (size_t)d->features, "statistics");
        status = buffer >= 0 ? add_statistics(plan, d, &ports->x, buffer) : CLATTN_OUT_OF_MEMORY;
    } else if (!(given = given_statistics(d, w))) {
        status = CLATTN_OUT_OF_MEMORY;
    }
    const int index = plan->op_count;
    clattn__op *op = status == CLATTN_OK ? clattn__plan_add_op(plan) : NULL;
    if (status == CLATTN_OK)
        status = op ? clattn__batch_apply_create(op, &plan->context->programs, d->dtype, d->features,
                                                 floats(&w->weight), floats(&w->bias), given)
                    : CLATTN_OUT_OF_MEMORY;
    clattn__free(given);
    clattn__step *step;
    status = add_step(plan, index, status, d, &step);
    if (status != CLATTN_OK) return status;
    set_operand(step, CLATTN__NORM_X, &ports->x);
    set_operand(step, CLATTN__NORM_Y, &ports->y);
    if (buffer >= 0) clattn__plan_operand(step, CLATTN__NORM_STATISTICS, CLATTN__ROLE_COUNT + buffer, 0, 0, 0);
    return CLATTN_OK;
}

clattn_status clattn__add_norm(clattn__plan *plan, const clattn_norm_desc *d, const clattn_norm_weights *w,
                               const clattn__norm_ports *ports) {
    if (d->batch == 0 || d->rows == 0) return CLATTN_OK;
    return d->kind == CLATTN_NORM_LAYER ? add_layer_norm(plan, d, w, ports) : add_batch_norm(plan, d, w, ports);
}
