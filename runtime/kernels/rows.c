/* Host half of cl/rows.cl: one row, or zeros, into rows of a tensor. */
#include <string.h>

#include "kernels/impl.h"

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
    clattn_status status = clattn__arg(env, kernel, ROWS_ARGS, sizeof *args, args);
    if (status == CLATTN_OK) status = clattn__arg_mem(env, kernel, ROWS_SOURCE, source);
    if (status == CLATTN_OK) status = clattn__arg_mem(env, kernel, ROWS_Y, y);
    if (status != CLATTN_OK) return status;
    const clattn__launch launch =
        clattn__rows_launch(&env->device.caps, kernel, (size_t)args->heads * (size_t)args->width,
                            (size_t)args->batch * (size_t)args->rows, 3 /* source, y twice */);
    return clattn__launch_enqueue(env, &launch);
}
