/* Host half of cl/norm.cl. */
#include <string.h>

#include "kernels/impl.h"

enum { WEIGHT = 0, BIAS = 1, STATISTICS = 2 }; /* constants */
/* Of memory, read or written for each feature: x and residual three times, sum, weight, bias and y. */
enum { NORM_ELEMENTS = 10, APPLY_ELEMENTS = 6 };

/* Work-items per row: a CPU walks a row in one loop; elsewhere a group shares it. */
static int items_per_row(const clattn__caps *caps) {
    enum { USUAL = 64 };
    if (caps->type == CLATTN_DEVICE_CPU) return 1;
    return caps->max_work_group < USUAL || caps->max_item_sizes[0] < USUAL ? 1 : USUAL;
}

static clattn_status create(clattn__op *op, clattn__programs *programs, clattn_dtype dtype, const char *entry,
                            clattn_status (*enqueue)(clattn__op *op, const clattn__op_call *call)) {
    const clattn__caps *caps = &programs->env->device.caps;
    clattn__options options;
    clattn__options_start(&options);
    clattn__options_int(&options, "VW", clattn__lanes(caps));
    clattn__options_int(&options, "ITEMS", items_per_row(caps));
    clattn__storage_options(&options, dtype);
    clattn_status status = clattn__op_create(op, programs, "norm.cl", entry, &options, enqueue);
    op->variant.dtype = dtype;
    return status;
}

/* values (features), or `otherwise` in each place. */
static clattn_status upload(clattn__op *op, int index, const float *values, int64_t features, float otherwise) {
    if (values) return clattn__op_constant(op, index, values, (size_t)features);
    float *filled = clattn__alloc((size_t)features, sizeof *filled);
    if (!filled) return CLATTN_OUT_OF_MEMORY;
    for (int64_t i = 0; i < features; i++) filled[i] = otherwise;
    clattn_status status = clattn__op_constant(op, index, filled, (size_t)features);
    clattn__free(filled);
    return status;
}

clattn_norm_args clattn__norm_args(const clattn__op_call *call) {
    clattn_norm_args args;
    memcpy(&args, call->args.bytes, sizeof args);
    args.x = call->place[CLATTN__NORM_X];
    args.residual = call->place[CLATTN__NORM_RESIDUAL];
    args.sum = call->place[CLATTN__NORM_SUM];
    args.y = call->place[CLATTN__NORM_Y];
    args.statistics = call->place[CLATTN__NORM_STATISTICS].offset;
    return args;
}

void clattn__layer_norm_constants(const clattn__op *op, cl_mem *weight, cl_mem *bias) {
    *weight = op->constants[WEIGHT].mem;
    *bias = op->constants[BIAS].mem;
}

static clattn_status set_mems(clattn__op *op, const clattn_norm_args *args, const cl_mem *mems, cl_uint count) {
    clattn__env *env = op->programs->env;
    clattn_status status = clattn__arg(env, op->kernel, 0, sizeof *args, args);
    for (cl_uint i = 0; i < count && status == CLATTN_OK; i++)
        status = clattn__arg_mem(env, op->kernel, i + 1, mems[i]);
    return status;
}

/* ---- layer norm -------------------------------------------------------------------------------------------------- */

static clattn_status enqueue_layer_norm(clattn__op *op, const clattn__op_call *call) {
    const clattn_norm_args args = clattn__norm_args(call);
    const cl_mem mems[] = {
        [NORM_X - 1] = call->mem[CLATTN__NORM_X],      [NORM_RESIDUAL - 1] = call->mem[CLATTN__NORM_RESIDUAL],
        [NORM_WEIGHT - 1] = op->constants[WEIGHT].mem, [NORM_BIAS - 1] = op->constants[BIAS].mem,
        [NORM_SUM - 1] = call->mem[CLATTN__NORM_SUM],  [NORM_Y - 1] = call->mem[CLATTN__NORM_Y]};
    clattn_status status = set_mems(op, &args, mems, CLATTN__COUNT(mems));
    if (status != CLATTN_OK) return status;
    const clattn__caps *caps = &op->programs->env->device.caps;
    const size_t items = (size_t)items_per_row(caps);
    clattn__launch launch = {.kernel = op->kernel,
                             .dims = 2,
                             .global = {items, (size_t)args.batch * (size_t)args.rows},
                             .local = {items, 1}};
    clattn__launch_shorten(&launch, caps, NORM_ELEMENTS * (1.0 + args.features / (double)items));
    return clattn__launch_enqueue(op->programs->env, &launch);
}

clattn_status clattn__layer_norm_create(clattn__op *op, clattn__programs *programs, clattn_dtype dtype,
                                        int64_t features, const float *weight, const float *bias) {
    clattn_status status = create(op, programs, dtype, "layer_norm", enqueue_layer_norm);
    if (status == CLATTN_OK) status = upload(op, WEIGHT, weight, features, 1);
    return status == CLATTN_OK ? upload(op, BIAS, bias, features, 0) : status;
}

/* ---- batch norm -------------------------------------------------------------------------------------------------- */

/* So many rows at a time that launches stay short. A unit goes through a row of 64 features in some thousand clocks, as
 * each waits for two loads; with fewer features than 64 for each unit some have nothing to do. */
static int64_t rows_at_once(const clattn__caps *caps, int64_t features) {
    enum { ITEMS = 64, CLOCKS = 1000 };
    const int64_t busy = (int64_t)ITEMS * caps->compute_units;
    return clattn__launch_units(caps, (double)(features > busy ? features : busy), (double)ITEMS / CLOCKS);
}

static clattn_status enqueue_statistics(clattn__op *op, const clattn__op_call *call) {
    const clattn_norm_args args = clattn__norm_args(call);
    const cl_mem mems[] = {[BATCH_X - 1] = call->mem[CLATTN__NORM_X],
                           [BATCH_STATISTICS - 1] = call->mem[CLATTN__NORM_STATISTICS]};
    clattn_status status = set_mems(op, &args, mems, CLATTN__COUNT(mems));
    if (status != CLATTN_OK) return status;
    clattn__env *env = op->programs->env;
    const clattn__launch launch = clattn__rows_launch(&env->device.caps, op->kernel, (size_t)args.features, 1, 0);
    const int rows = args.batch * args.rows;
    const int64_t most = rows_at_once(&env->device.caps, args.features);
    for (int first = 0, count; first < rows && status == CLATTN_OK; first += count) {
        count = most < rows - first ? (int)most : rows - first;
        status = clattn__arg(env, op->kernel, BATCH_FIRST, sizeof first, &first);
        if (status == CLATTN_OK) status = clattn__arg(env, op->kernel, BATCH_COUNT, sizeof count, &count);
        if (status == CLATTN_OK) status = clattn__launch_enqueue(env, &launch);
    }
    return status;
}

clattn_status clattn__batch_statistics_create(clattn__op *op, clattn__programs *programs, clattn_dtype dtype) {
    return create(op, programs, dtype, "batch_statistics", enqueue_statistics);
}

static clattn_status enqueue_apply(clattn__op *op, const clattn__op_call *call) {
    const clattn_norm_args args = clattn__norm_args(call);
    const cl_mem own = op->constants[STATISTICS].mem;
    const cl_mem mems[] = {[APPLY_X - 1] = call->mem[CLATTN__NORM_X],
                           [APPLY_STATISTICS - 1] = own ? own : call->mem[CLATTN__NORM_STATISTICS],
                           [APPLY_WEIGHT - 1] = op->constants[WEIGHT].mem,
                           [APPLY_BIAS - 1] = op->constants[BIAS].mem,
                           [APPLY_Y - 1] = call->mem[CLATTN__NORM_Y]};
    clattn_status status = set_mems(op, &args, mems, CLATTN__COUNT(mems));
    if (status != CLATTN_OK) return status;
    clattn__env *env = op->programs->env;
    const clattn__launch launch = clattn__rows_launch(&env->device.caps, op->kernel, (size_t)args.features,
                                                      (size_t)args.batch * (size_t)args.rows, APPLY_ELEMENTS);
    return clattn__launch_enqueue(env, &launch);
}

clattn_status clattn__batch_apply_create(clattn__op *op, clattn__programs *programs, clattn_dtype dtype,
                                         int64_t features, const float *weight, const float *bias,
                                         const float *statistics) {
    clattn_status status = create(op, programs, dtype, "batch_apply", enqueue_apply);
    if (status == CLATTN_OK) status = upload(op, WEIGHT, weight, features, 1);
    if (status == CLATTN_OK) status = upload(op, BIAS, bias, features, 0);
    if (status == CLATTN_OK && statistics)
        status = clattn__op_constant(op, STATISTICS, statistics, 2 * (size_t)features);
    return status;
}
