/* Host half of cl/posenc.cl. */
#include <string.h>

#include "kernels/impl.h"

enum { TABLE = 0 };            /* the constant: turns or learned rows */
enum { FEATURE_ELEMENTS = 4 }; /* of memory: x, position, table, y */

static clattn_status enqueue(clattn__op *op, const clattn__op_call *call, bool pairs) {
    clattn__env *env = op->programs->env;
    clattn_positions_args args;
    memcpy(&args, call->args.bytes, sizeof args);
    args.x = call->place[CLATTN__POSITIONS_X];
    args.positions = call->place[CLATTN__POSITIONS_POSITIONS];
    args.y = call->place[CLATTN__POSITIONS_Y];
    const struct {
        cl_uint slot;
        cl_mem mem;
    } mems[] = {{POSITIONS_X, call->mem[CLATTN__POSITIONS_X]},
                {POSITIONS_POSITIONS, call->mem[CLATTN__POSITIONS_POSITIONS]},
                {POSITIONS_TABLE, op->constants[TABLE].mem},
                {POSITIONS_Y, call->mem[CLATTN__POSITIONS_Y]}};
    clattn_status status = clattn__arg(env, op->kernel, POSITIONS_ARGS, sizeof args, &args);
    for (size_t i = 0; i < CLATTN__COUNT(mems) && status == CLATTN_OK; i++)
        status = clattn__arg_mem(env, op->kernel, mems[i].slot, mems[i].mem);
    if (status != CLATTN_OK) return status;
    const clattn__launch launch =
        clattn__rows_launch(&env->device.caps, op->kernel, (size_t)(pairs ? args.features / 2 : args.features),
                            (size_t)args.batch * (size_t)args.rows, pairs ? 2 * FEATURE_ELEMENTS : FEATURE_ELEMENTS);
    return clattn__launch_enqueue(env, &launch);
}

static clattn_status enqueue_sinusoidal(clattn__op *op, const clattn__op_call *call) { return enqueue(op, call, true); }

static clattn_status enqueue_learned(clattn__op *op, const clattn__op_call *call) { return enqueue(op, call, false); }

/* The table has elements of 4 bytes, whatever they are. */
static clattn_status create(clattn__op *op, clattn__programs *programs, clattn_dtype dtype, const char *entry,
                            const void *table, size_t count,
                            clattn_status (*enqueue_op)(clattn__op *op, const clattn__op_call *call)) {
    clattn__options options;
    clattn__options_start(&options);
    clattn__storage_options(&options, dtype);
    clattn_status status = clattn__op_create(op, programs, "posenc.cl", entry, &options, enqueue_op);
    op->variant.dtype = dtype;
    return status == CLATTN_OK ? clattn__op_constant(op, TABLE, table, count) : status;
}

clattn_status clattn__sinusoidal_create(clattn__op *op, clattn__programs *programs, clattn_dtype dtype,
                                        int64_t features, const uint64_t *turns) {
    return create(op, programs, dtype, "sinusoidal", turns, (size_t)features, enqueue_sinusoidal);
}

clattn_status clattn__learned_create(clattn__op *op, clattn__programs *programs, clattn_dtype dtype, const float *table,
                                     int64_t rows, int64_t features) {
    return create(op, programs, dtype, "learned", table, (size_t)rows * (size_t)features, enqueue_learned);
}
