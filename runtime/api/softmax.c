#include <string.h>

#include "api/check.h"
#include "clattn/interop.h"
#include "plan/plan.h"
#include "ref/ref.h"

struct clattn_softmax {
    clattn_softmax_desc desc; /* resolved, rank and shape as given */
    clattn__plan plan;
};

clattn_status clattn_softmax_create(clattn_softmax **out, clattn_context *context, const clattn_softmax_desc *desc) {
    if (out) *out = NULL;
    if (!out || !context) return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is NULL", out ? "context" : "out");
    clattn_softmax_desc resolved;
    clattn_status status = clattn__check_softmax_desc(desc, &resolved);
    if (status != CLATTN_OK) return status;
    clattn_softmax *softmax = clattn__alloc(1, sizeof *softmax);
    if (!softmax) return CLATTN_OUT_OF_MEMORY;
    softmax->desc = resolved;
    const clattn_softmax_desc padded = clattn__softmax_padded(&resolved);
    status = clattn__plan_softmax(&softmax->plan, context, &padded);
    if (status != CLATTN_OK) clattn_softmax_destroy(&softmax);
    *out = softmax;
    return status;
}

void clattn_softmax_destroy(clattn_softmax **softmax) {
    if (!softmax || !*softmax) return;
    clattn__plan_clear(&(*softmax)->plan);
    clattn__free(*softmax);
    *softmax = NULL;
}

static clattn_status run(clattn_softmax *softmax, const clattn_softmax_io *io, bool blocking, cl_uint waits,
                         const cl_event *wait_list, cl_event *event) {
    if (!softmax) return clattn__fail(CLATTN_INVALID_ARGUMENT, "plan is NULL");
    clattn_softmax_io all;
    clattn_status status = clattn__check_softmax_io(&softmax->desc, io, &all);
    if (status != CLATTN_OK) return status;
    const clattn_softmax_kind kind = softmax->desc.kind;
    const bool backward = kind == CLATTN_SOFTMAX_BACKWARD;
    clattn_tensor tensors[CLATTN__ROLE_COUNT];
    memset(tensors, 0, sizeof tensors);
    tensors[CLATTN__ROLE_QUERY] = backward ? all.probability : all.x;
    tensors[CLATTN__ROLE_KEY] = backward ? all.grad_output : all.labels;
    tensors[CLATTN__ROLE_MASK] = all.mask;
    if (!backward) tensors[CLATTN__ROLE_WEIGHTS] = all.probability;
    tensors[CLATTN__ROLE_LSE] = all.loss;
    tensors[CLATTN__ROLE_OUTPUT] = all.grad_x;
    return clattn__plan_run(&softmax->plan, tensors, blocking, waits, wait_list, event);
}

clattn_status clattn_softmax_run(clattn_softmax *softmax, const clattn_softmax_io *io) {
    return run(softmax, io, true, 0, NULL, NULL);
}

clattn_status clattn_softmax_enqueue(clattn_softmax *softmax, const clattn_softmax_io *io, cl_uint waits,
                                     const cl_event *wait_list, cl_event *event) {
    return run(softmax, io, false, waits, wait_list, event);
}

const char *clattn_softmax_explain(const clattn_softmax *softmax) {
    return softmax && softmax->plan.explain.data ? softmax->plan.explain.data : "";
}

clattn_status clattn_softmax_info(const clattn_softmax *softmax, clattn_plan_info *info) {
    if (!softmax || !info) return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is NULL", softmax ? "info" : "plan");
    clattn__plan_info(&softmax->plan, info);
    return CLATTN_OK;
}

/* ---- the reference --------------------------------------------------------------------------------------------- */

/* The strides of rank 4 with those of the row moved to the end; broadcast axes have none. */
static clattn__ref_array view(const clattn_tensor *t, int axis) {
    clattn__ref_array array = {.dtype = t->dtype};
    if (!t->data) return array;
    array.data = (char *)t->data + (size_t)t->offset * clattn_dtype_size(t->dtype);
    for (int from = 0, to = 0; from < CLATTN_MAX_RANK; from++)
        array.stride[from == axis ? CLATTN_MAX_RANK - 1 : to++] = t->shape[from] == 1 ? 0 : t->stride[from];
    return array;
}

/* Dense floats in the layout of an output; NULL is an absent array. */
static clattn__ref_array dense_view(float *memory, const int64_t *shape, int axis) {
    clattn_tensor t = clattn_host(memory, CLATTN_F32, CLATTN_MAX_RANK, shape[0], shape[1], shape[2], shape[3]);
    for (int64_t i = CLATTN_MAX_RANK - 1, step = 1; i >= 0; step *= shape[i--]) t.stride[i] = step;
    return view(&t, axis);
}

static clattn_status check_on_host(const clattn_softmax_io *io) {
    const clattn__named_tensor tensors[] = {{"x", &io->x},
                                            {"mask", &io->mask},
                                            {"grad_output", &io->grad_output},
                                            {"labels", &io->labels},
                                            {"probability", &io->probability},
                                            {"loss", &io->loss},
                                            {"grad_x", &io->grad_x}};
    return clattn__check_on_host(tensors, CLATTN__COUNT(tensors));
}

clattn_status clattn_reference_softmax(const clattn_softmax_desc *desc, const clattn_softmax_io *io,
                                       const clattn_softmax_tolerance *tolerance) {
    clattn_softmax_desc given;
    clattn_softmax_io all;
    clattn_status status = clattn__check_softmax_desc(desc, &given);
    if (status == CLATTN_OK) status = clattn__check_softmax_io(&given, io, &all);
    if (status == CLATTN_OK) status = check_on_host(&all);
    if (status != CLATTN_OK) return status;
    const clattn_softmax_desc d = clattn__softmax_padded(&given);
    const clattn_softmax_tolerance none = {0}, *wanted = tolerance ? tolerance : &none;
    const bool backward = d.kind == CLATTN_SOFTMAX_BACKWARD;
    int64_t kept[CLATTN_MAX_RANK];
    memcpy(kept, d.shape, sizeof kept);
    kept[d.axis] = 1;
    clattn__ref_softmax problem = {.kind = d.kind,
                                   .n = d.shape[d.axis],
                                   .temperature = (double)d.temperature,
                                   .stored = d.dtype,
                                   .x = view(backward ? &all.probability : &all.x, d.axis),
                                   .mask = view(&all.mask, d.axis),
                                   .second = view(backward ? &all.grad_output : &all.labels, d.axis),
                                   .loss = view(&all.loss, d.axis),
                                   .gradient = view(&all.grad_x, d.axis),
                                   .probability_tolerance = dense_view(wanted->probability, d.shape, d.axis),
                                   .loss_tolerance = dense_view(wanted->loss, kept, d.axis),
                                   .gradient_tolerance = dense_view(wanted->grad_x, d.shape, d.axis)};
    if (!backward) problem.probability = view(&all.probability, d.axis);
    for (int from = 0, to = 0; from < CLATTN_MAX_RANK; from++)
        if (from != d.axis) problem.outer[to++] = d.shape[from];
    clattn__ref_softmax_run(&problem);
    return CLATTN_OK;
}
