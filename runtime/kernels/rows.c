/* Host half of cl/rows.cl: one row, or zeros, into rows of a tensor. */
#include <string.h>

#include "kernels/impl.h"

enum { GROUP = 64 }; /* work-items per group, fewer where the device allows fewer */

clattn_status clattn__rows_prepare(clattn__rows_kernel *kernel, clattn__programs *programs) {
    clattn__options options;
    clattn__program *program;
    *kernel = (clattn__rows_kernel){.programs = programs};
    clattn__options_start(&options);
    clattn_status status = clattn__program_get(programs, "rows.cl", &options, &program);
    return status == CLATTN_OK ? clattn__kernel_create(programs, program, "rows", &kernel->kernel) : status;
}

clattn_status clattn__rows_enqueue(clattn__rows_kernel *kernel, const clattn_rows_args *args, cl_mem source, cl_mem y) {
    clattn__env *env = kernel->programs->env;
    const clattn__caps *caps = &env->device.caps;
    const size_t columns = (size_t)args->heads * (size_t)args->width;
    const size_t group = caps->max_work_group < GROUP || caps->max_item_sizes[0] < GROUP ? 1 : GROUP;
    clattn_status status = clattn__arg(env, kernel->kernel, ROWS_ARGS, sizeof *args, args);
    if (status == CLATTN_OK) status = clattn__arg_mem(env, kernel->kernel, ROWS_SOURCE, source);
    if (status == CLATTN_OK) status = clattn__arg_mem(env, kernel->kernel, ROWS_Y, y);
    if (status != CLATTN_OK) return status;
    const clattn__launch launch = {
        .kernel = kernel->kernel,
        .dims = 2,
        .global = {(columns + group - 1) / group * group, (size_t)args->batch * (size_t)args->rows},
        .local = {group, 1}};
    return clattn__launch_enqueue(env, &launch);
}

void clattn__rows_clear(clattn__rows_kernel *kernel) {
    if (kernel->kernel) clReleaseKernel(kernel->kernel);
    memset(kernel, 0, sizeof *kernel);
}
