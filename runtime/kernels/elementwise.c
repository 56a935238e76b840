/* Host half of cl/elementwise.cl. */
#include <string.h>

#include "kernels/impl.h"

static clattn_status enqueue(clattn__op *op, const clattn__op_call *call) {
    clattn__env *env = op->programs->env;
    clattn_elementwise_args args;
    memcpy(&args, call->args.bytes, sizeof args);
    args.x = call->place[CLATTN__ELEMENTWISE_X];
    args.addend = call->place[CLATTN__ELEMENTWISE_ADDEND];
    args.y = call->place[CLATTN__ELEMENTWISE_Y];
    if (args.copies) args.y.batch = args.y.head;
    clattn_status status = clattn__arg(env, op->kernel, ELEMENTWISE_ARGS, sizeof args, &args);
    if (status == CLATTN_OK) status = clattn__arg_mem(env, op->kernel, ELEMENTWISE_X, call->mem[CLATTN__ELEMENTWISE_X]);
    if (status == CLATTN_OK)
        status = clattn__arg_mem(env, op->kernel, ELEMENTWISE_ADDEND, call->mem[CLATTN__ELEMENTWISE_ADDEND]);
    if (status == CLATTN_OK) status = clattn__arg_mem(env, op->kernel, ELEMENTWISE_Y, call->mem[CLATTN__ELEMENTWISE_Y]);
    if (status != CLATTN_OK) return status;
    const clattn__caps *caps = &env->device.caps;
    const size_t lanes = (size_t)clattn__lanes(caps);
    const clattn__launch launch = clattn__rows_launch(caps, op->kernel, ((size_t)args.features + lanes - 1) / lanes,
                                                      (size_t)args.batch * (size_t)args.rows, 3.0 * (double)lanes);
    return clattn__launch_enqueue(env, &launch);
}

clattn_status clattn__elementwise_create(clattn__op *op, clattn__programs *programs, clattn_dtype dtype,
                                         int activation) {
    clattn__options options;
    clattn__options_start(&options);
    clattn__options_int(&options, "VW", clattn__lanes(&programs->env->device.caps));
    clattn__options_int(&options, "ACTIVATION", activation);
    clattn__storage_options(&options, dtype);
    clattn_status status = clattn__op_create(op, programs, "elementwise.cl", "elementwise", &options, enqueue);
    op->variant = (clattn__op_variant){.kind = activation, .dtype = dtype};
    return status;
}
