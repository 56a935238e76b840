/* Host half of cl/softmax.cl: softmax, its gradient and cross entropy as small kernels. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels/impl.h"

enum { GROUP = 64, SLOTS = 7 }; /* work-items per row on GPUs */
enum { ROW_ELEMENTS = 10 };     /* of memory, read or written for each element: four times x and mask, two outputs */

typedef struct softmax_entry {
    const char *name;
    int slots[SLOTS]; /* operands in the order of the kernel's arguments behind the launch struct; -1 ends them */
} softmax_entry;

static const softmax_entry entries[] = {
    [CLATTN_SOFTMAX_FORWARD] = {"softmax_forward", {SOFTMAX_X, SOFTMAX_MASK, SOFTMAX_PROBABILITY, -1}},
    [CLATTN_SOFTMAX_BACKWARD] = {"softmax_backward", {SOFTMAX_X, SOFTMAX_MASK, SOFTMAX_SECOND, SOFTMAX_GRAD, -1}},
    [CLATTN_SOFTMAX_CROSS_ENTROPY] = {"softmax_cross_entropy",
                                      {SOFTMAX_X, SOFTMAX_MASK, SOFTMAX_SECOND, SOFTMAX_PROBABILITY, SOFTMAX_LOSS,
                                       SOFTMAX_GRAD, -1}},
};

/* CPUs have the vectors for one work-item per row; elsewhere as many items as the device allows, a power of two. */
static size_t group_of(const clattn__caps *caps) {
    size_t group = caps->type == CLATTN_DEVICE_CPU ? 1 : GROUP;
    while (group > 1 && (group > caps->max_work_group || group > caps->max_item_sizes[0])) group /= 2;
    return group;
}

/* The four strides of a place, the last axis being dense, without the one that is the row. */
static clattn_softmax_view view_of(const clattn_place *place, clattn_i64 column, int axis) {
    const clattn_i64 strides[4] = {place->batch, place->head, place->row, column};
    clattn_softmax_view view = {.offset = place->offset, .along = strides[axis]};
    for (int from = 0, to = 0; from < 4; from++)
        if (from != axis) view.outer[to++] = strides[from];
    return view;
}

static clattn_status set_mems(clattn__op *op, const clattn__op_call *call) {
    clattn__env *env = op->programs->env;
    clattn_status status = CLATTN_OK;
    for (size_t kind = 0; kind < CLATTN__COUNT(entries); kind++) {
        if (strcmp(entries[kind].name, op->name) != 0) continue;
        const int *slots = entries[kind].slots;
        for (int i = 0; slots[i] >= 0 && status == CLATTN_OK; i++)
            status = clattn__arg_mem(env, op->kernel, (cl_uint)i + 1, call->mem[slots[i]]);
    }
    return status;
}

static clattn_status enqueue(clattn__op *op, const clattn__op_call *call) {
    clattn_softmax_args args;
    memset(&args, 0, sizeof args);
    memcpy(&args.shape, call->args.bytes, sizeof args.shape);
    for (int i = 0; i < SOFTMAX_OPERANDS; i++) {
        if (!call->mem[i]) continue;
        args.view[i] = view_of(&call->place[i], i == SOFTMAX_MASK ? args.shape.mask_column : 1, args.shape.axis);
    }
    clattn__env *env = op->programs->env;
    const clattn__caps *caps = &env->device.caps;
    const size_t group = group_of(caps);
    const double row_cost = ROW_ELEMENTS * ((double)args.shape.n + (double)group);
    const int64_t most = clattn__launch_units(caps, row_cost, CLATTN__ELEMENTS_PER_CLOCK);
    clattn_status status = set_mems(op, call);
    for (args.first = 0; args.first < args.shape.rows && status == CLATTN_OK; args.first += most) {
        const int64_t rows = args.shape.rows - args.first < most ? args.shape.rows - args.first : most;
        const clattn__launch launch = {
            .kernel = op->kernel, .dims = 1, .global = {(size_t)rows * group}, .local = {group}};
        status = clattn__arg(env, op->kernel, 0, sizeof args, &args);
        if (status == CLATTN_OK) status = clattn__launch_enqueue(env, &launch);
    }
    return status;
}

clattn_status clattn__softmax_create(clattn__op *op, clattn__programs *programs, clattn_dtype dtype,
                                     clattn_softmax_kind kind) {
    const clattn__caps *caps = &programs->env->device.caps;
    clattn__options options;
    clattn__options_start(&options);
    clattn__options_int(&options, "GROUP", (long long)group_of(caps));
    clattn__options_int(&options, "VW", caps->type == CLATTN_DEVICE_CPU ? 8 : 4);
    clattn__storage_options(&options, dtype);
    clattn_status status = clattn__op_create(op, programs, "softmax.cl", entries[kind].name, &options, enqueue);
    op->variant.dtype = dtype;
    return status;
}

void clattn__softmax_shape(const clattn_softmax_desc *d, clattn_softmax_shape *shape) {
    *shape = (clattn_softmax_shape){.rows = 1, .n = (int)d->shape[d->axis], .axis = d->axis};
    for (int from = 0, to = 0; from < 4; from++) {
        if (from == d->axis) continue;
        shape->outer[to++] = (int)d->shape[from];
        shape->rows *= d->shape[from];
    }
    shape->has_mask = d->mask != 0;
    shape->mask_column = d->mask && d->mask_shape[3] == 1 ? 0 : 1;
    shape->exponent_factor = (float)(1.4426950408889634 / (double)d->temperature);
    shape->inverse_temperature = (float)(1.0 / (double)d->temperature);
    shape->writes_probability = d->probability != 0;
    shape->writes_gradient = d->gradient != 0;
}
