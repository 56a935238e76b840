/* What all small kernels share: build, constants, teardown. */
#include <math.h>
#include <string.h>

#include "kernels/impl.h"

clattn_status clattn__op_create(clattn__op *op, clattn__programs *programs, const char *file, const char *entry,
                                const clattn__options *options,
                                clattn_status (*enqueue)(clattn__op *op, const clattn__op_call *call)) {
    *op = (clattn__op){.name = entry, .programs = programs, .enqueue = enqueue};
    clattn_status status = clattn__program_get(programs, file, options, &op->program);
    return status == CLATTN_OK ? clattn__kernel_create(programs, op->program, entry, &op->kernel) : status;
}

clattn_status clattn__op_constant(clattn__op *op, int index, const float *values, size_t count) {
    clattn__env *env = op->programs->env;
    const size_t bytes = count * sizeof *values;
    clattn_status status = clattn__buffer_create(env, bytes, &op->constants[index]);
    return status == CLATTN_OK ? clattn__buffer_write(env, op->constants[index].mem, 0, bytes, values) : status;
}

void clattn__op_clear(clattn__op *op) {
    if (!op->programs) return;
    if (op->kernel) clReleaseKernel(op->kernel);
    for (int i = 0; i < CLATTN__OP_CONSTANTS; i++) clattn__buffer_clear(op->programs->env, &op->constants[i]);
    memset(op, 0, sizeof *op);
}

void clattn__storage_options(clattn__options *options, clattn_dtype dtype) {
    clattn__options_int(options, "STORAGE_F16", dtype == CLATTN_F16);
    clattn__options_int(options, "STORAGE_BF16", dtype == CLATTN_BF16);
}

void clattn__cell_options(clattn__options *options, clattn_dtype cells) {
    clattn__options_int(options, "CELL_F16", cells == CLATTN_F16);
    clattn__options_int(options, "CELL_BF16", cells == CLATTN_BF16);
    clattn__options_int(options, "CELL_I8", cells == CLATTN_I8);
}

/* On Intel's GPUs a thread has 128 registers, whatever its lanes: with eight an item has room for its tile, with
 * sixteen if the thread takes the registers of two. CPU drivers vectorise as they like, and compile faster. */
void clattn__subgroup_options(clattn__options *options, const clattn__caps *caps) {
    if (!caps->subgroup_lanes || caps->type != CLATTN_DEVICE_GPU) return;
    clattn__options_int(options, "SUBGROUP", caps->subgroup_lanes);
    if (caps->subgroup_lanes > 8 && caps->vendor == CLATTN__VENDOR_INTEL)
        clattn__options_raw(options, "-cl-intel-256-GRF-per-thread");
}

int clattn__lanes(const clattn__caps *caps) {
    if (caps->type != CLATTN_DEVICE_CPU) return 4;
    return caps->vector_width >= 16 ? 16 : caps->vector_width >= 8 ? 8 : 4;
}

uint64_t *clattn__turns(int64_t features, double base) {
    const double two_pi = 6.283185307179586476925286766559;
    uint64_t *turns = clattn__alloc((size_t)(features / 2), sizeof *turns);
    for (int64_t i = 0; turns && i < features / 2; i++)
        turns[i] = (uint64_t)(0x1p64 * (pow(base, -2.0 * (double)i / (double)features) / two_pi));
    return turns;
}

void clattn__launch_shorten(clattn__launch *launch, const clattn__caps *caps, double elements) {
    const size_t row = launch->global[0], group = launch->local[0];
    const int64_t rows = clattn__launch_units(caps, elements * (double)row, CLATTN__ELEMENTS_PER_CLOCK);
    const int64_t groups = clattn__launch_units(caps, elements * (double)group, CLATTN__ELEMENTS_PER_CLOCK);
    launch->most[1] = (size_t)rows;
    if (rows == 1) launch->most[0] = (size_t)groups * group; /* one row may be too long by itself */
}

clattn__launch clattn__rows_launch(const clattn__caps *caps, cl_kernel kernel, size_t items, size_t rows,
                                   double elements) {
    enum { GROUP = 64 }; /* work-items per group, fewer where the device allows fewer */
    const size_t group = caps->max_work_group < GROUP || caps->max_item_sizes[0] < GROUP ? 1 : GROUP;
    clattn__launch launch = {
        .kernel = kernel, .dims = 2, .global = {(items + group - 1) / group * group, rows}, .local = {group, 1}};
    clattn__launch_shorten(&launch, caps, elements);
    return launch;
}
