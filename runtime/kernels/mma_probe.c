/* Host half of cl/mma_probe.cl: one step of the start-up probe of a matrix engine. */
#include "../../cl/shared/matrix.h"

#include <string.h>

#include "kernels/matrix.h"

static clattn_status enqueue(clattn__op *op, const clattn__op_call *call) {
    clattn__env *env = op->programs->env;
    const size_t items = MATRIX_PROBE_WAVES * (size_t)clattn__matrix_engine_of(&env->device.caps)->lanes;
    clattn_probe_args args;
    memcpy(&args, call->args.bytes, sizeof args);
    args.query = call->place[CLATTN__PROBE_QUERY];
    args.key = call->place[CLATTN__PROBE_KEY];
    args.value = call->place[CLATTN__PROBE_VALUE];
    args.out = call->place[CLATTN__PROBE_OUT];
    clattn_status status = clattn__arg(env, op->kernel, PROBE_ARGS, sizeof args, &args);
    if (status == CLATTN_OK) status = clattn__arg_mem(env, op->kernel, PROBE_QUERY, call->mem[CLATTN__PROBE_QUERY]);
    if (status == CLATTN_OK) status = clattn__arg_mem(env, op->kernel, PROBE_KEY, call->mem[CLATTN__PROBE_KEY]);
    if (status == CLATTN_OK) status = clattn__arg_mem(env, op->kernel, PROBE_VALUE, call->mem[CLATTN__PROBE_VALUE]);
    if (status == CLATTN_OK) status = clattn__arg_mem(env, op->kernel, PROBE_OUT, call->mem[CLATTN__PROBE_OUT]);
    if (status != CLATTN_OK) return status;
    const clattn__launch launch = {.kernel = op->kernel, .dims = 1, .global = {items}, .local = {items}};
    return clattn__launch_enqueue(env, &launch);
}

clattn_status clattn__mma_probe_create(clattn__op *op, clattn__programs *programs, clattn_dtype dtype) {
    const clattn__caps *caps = &programs->env->device.caps;
    clattn__refusal why;
    *op = (clattn__op){.name = "mma_probe"};
    if (!clattn__matrix_serves(dtype, caps, &why)) return clattn__fail(CLATTN_UNSUPPORTED, "mma_probe: %s", why.text);
    clattn__options options;
    clattn__options_start(&options);
    clattn__storage_options(&options, dtype);
    clattn__matrix_options(&options, caps);
    clattn_status status = clattn__op_create(op, programs, "mma_probe.cl", "mma_probe", &options, enqueue);
    op->variant.dtype = dtype;
    return status;
}
