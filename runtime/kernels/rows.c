/* Host half of cl/rows.cl: one row, or zeros, into rows of a tensor. */
#include <string.h>

#include "kernels/impl.h"

enum { GROUP = 64 }; /* work-items per group, fewer where the device allows fewer */

static clattn_status enqueue(clattn__op *op, const clattn__op_call *call) {
    clattn_rows_args args;
    memcpy(&args, call->args.bytes, sizeof args);
    args.y = call->place[CLATTN__ROWS_Y];
    return clattn__rows_enqueue(op->programs, op->kernel, &args, op->constants[CLATTN__ROWS_SOURCE].mem,
                                call->mem[CLATTN__ROWS_Y]);
}

clattn_status clattn__rows_create(clattn__op *op, clattn__programs *programs, clattn_dtype dtype) {
    clattn__options options;
    clattn__options_start(&options);
    clattn__storage_options(&options, dtype);
    clattn_status status = clattn__op_create(op, programs, "rows.cl", "rows", &options, enqueue);
    op->variant.dtype = dtype;
    return status;
}

clattn_status clattn__rows_enqueue(clattn__programs *programs, cl_kernel kernel, const clattn_rows_args *args,
                                   cl_mem source, cl_mem y) {
    clattn__env *env = programs->env;
    const clattn__caps *caps = &env->device.caps;
    const size_t columns = (size_t)args->heads * (size_t)args->width;
    const size_t group = caps->max_work_group < GROUP || caps->max_item_sizes[0] < GROUP ? 1 : GROUP;
    clattn_status status = clattn__arg(env, kernel, ROWS_ARGS, sizeof *args, args);
    if (status == CLATTN_OK) status = clattn__arg_mem(env, kernel, ROWS_SOURCE, source);
    if (status == CLATTN_OK) status = clattn__arg_mem(env, kernel, ROWS_Y, y);
    if (status != CLATTN_OK) return status;
    const clattn__launch launch = {
        .kernel = kernel,
        .dims = 2,
        .global = {(columns + group - 1) / group * group, (size_t)args->batch * (size_t)args->rows},
        .local = {group, 1}};
    return clattn__launch_enqueue(env, &launch);
}
