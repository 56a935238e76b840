/* Projections by CLBlast, for GPUs that it is tuned for; the only file that includes its header. It knows neither bias
 * nor heads: the bias is put into y beforehand, and the layer leaves heads, and query, key and value, side by side as
 * columns of one product, (B, L, 3 * E), which attention reads through strides. That is also the fastest way: a product
 * for each head has 64 or 128 columns, less than a block of CLBlast's, and packs x anew for each.
 *
 * Batch entries with gaps between them are one product each, not CLBlastSgemmStridedBatched: with GEMMK=1, which it
 * ships for many GPUs, and matrices that need no padding it ignores offsets and strides and computes something else
 * (1.5.3: x at element 64 is read from element 0).
 *
 * All that a product enqueues goes into the context's queue, in order behind what is there. CLBlast takes no wait list,
 * and needs none; and it gives the event of its last command only, which says no more than a marker behind it: whoever
 * waits for that waits for the product too, and sees it fail. So events are asked for only where nothing else may be
 * waited for. */
#include <stdio.h>

#include "kernels/gemm.h" /* first: it says which OpenCL version the headers are for */

#include <clblast_c.h>

static bool supports(const clattn__gemm_problem *problem, const clattn__caps *caps, clattn__refusal *why) {
    if (caps->type == CLATTN_DEVICE_CPU) return clattn__refuse(why, "made for GPUs; gemm_cpu is faster on a CPU");
    if (problem->split_heads)
        return clattn__refuse(why, "writes plain matrices only; this output is split into heads of %lld columns",
                              (long long)problem->width);
    if (problem->dtype != CLATTN_F32)
        return clattn__refuse(why, "adds up halves in half precision and knows no bfloat16; x and y are %s here",
                              clattn_dtype_name(problem->dtype));
    return clattn__gemm_fits(problem, why);
}

clattn_status clattn__clblast_apply(clattn__env *env, const char *kernel, const char **names, const int *values,
                                    int count) {
    size_t sizes[CLATTN__CLBLAST_PARAMS];
    for (int i = 0; i < count; i++) sizes[i] = (size_t)values[i];
    CLBlastStatusCode code =
        CLBlastOverrideParameters(env->device.id, kernel, CLBlastPrecisionSingle, (size_t)count, names, sizes);
    if (code == CLBlastSuccess) return CLATTN_OK;
    return clattn__fail(CLATTN_UNSUPPORTED, "CLBlastOverrideParameters of %s failed with CLBlast status %d on %s",
                        kernel, (int)code, env->device.caps.name);
}

void clattn__clblast_forget(void) { CLBlastClearCache(); }

/* One product: rows of x (m, k) and y (m, n) lie x_row and y_row apart; offsets in elements. done may be NULL; else it
 * receives the event of the last command. */
static clattn_status multiply(clattn__gemm_kernel *kernel, cl_mem x, size_t x_at, size_t x_row, cl_mem y, size_t y_at,
                              size_t y_row, size_t m, float keep_y, cl_event *done) {
    clattn__env *env = kernel->programs->env;
    const size_t n = (size_t)kernel->problem.n, k = (size_t)kernel->problem.k;
    CLBlastStatusCode code =
        CLBlastSgemm(CLBlastLayoutRowMajor, CLBlastTransposeNo, CLBlastTransposeYes, m, n, k, 1.0f, x, x_at, x_row,
                     kernel->weight.mem, 0, k, keep_y, y, y_at, y_row, &env->queue, done);
    if (code == CLBlastSuccess) return CLATTN_OK;
    return clattn__fail(CLATTN_DEVICE_FAILED, "CLBlastSgemm of %zu x %zu x %zu failed with CLBlast status %d on %s", m,
                        n, k, (int)code, env->device.caps.name);
}

/* CLBlast compiles at first use, and has one kernel for small products and one for large ones: both are used once here,
 * so that no run compiles. The wait is for the last product alone: what else a caller has in the queue is not waited
 * for. */
static clattn_status warm_up(clattn__gemm_kernel *kernel) {
    clattn__env *env = kernel->programs->env;
    const size_t n = (size_t)kernel->problem.n, k = (size_t)kernel->problem.k, m = (size_t)kernel->problem.m;
    clattn__buffer x = {0}, y = {0};
    cl_event done = NULL;
    if (m == 0 || kernel->programs->recorder) return CLATTN_OK;
    clattn_status status = clattn__buffer_create(env, m * k * sizeof(float), &x);
    if (status == CLATTN_OK) status = clattn__buffer_create(env, m * n * sizeof(float), &y);
    if (status == CLATTN_OK) status = multiply(kernel, x.mem, 0, k, y.mem, 0, n, 1, 0.0f, NULL);
    if (status == CLATTN_OK) status = multiply(kernel, x.mem, 0, k, y.mem, 0, n, m, 0.0f, &done);
    if (status == CLATTN_OK) status = clattn__event_wait(env, done);
    if (done) clReleaseEvent(done);
    clattn__buffer_clear(env, &y);
    clattn__buffer_clear(env, &x);
    return status;
}

static clattn_status prepare(clattn__gemm_kernel *kernel, const float *w, int64_t w_row, const float *bias) {
    kernel->block_m = kernel->block_n = kernel->block_k = 1; /* CLBlast chooses by size and device */
    clattn__env *env = kernel->programs->env;
    char key[33];
    clattn_status status = CLATTN_OK;
    if (!kernel->programs->recorder) status = clattn__clblast_use(env, kernel->tiles, sizeof kernel->tiles);
    clattn__clblast_key(env, key);
    if (key[0]) snprintf(kernel->variant, sizeof kernel->variant, "%s %s", kernel->impl->name, key);
    if (status == CLATTN_OK) status = clattn__gemm_upload_plain(kernel, w, w_row);
    if (status == CLATTN_OK && bias) {
        clattn__op rows = {0};
        status = clattn__gemm_upload_bias(kernel, bias, kernel->problem.n);
        if (status == CLATTN_OK) status = clattn__rows_create(&rows, kernel->programs, CLATTN_F32);
        kernel->bias_kernel = rows.kernel;
    }
    return status == CLATTN_OK ? warm_up(kernel) : status;
}

/* y = bias, or y += bias. */
static clattn_status put_bias(clattn__gemm_kernel *kernel, const clattn__gemm_call *call) {
    const clattn_gemm_args *a = &call->args;
    const clattn_rows_args args = {.y = a->y,
                                   .batch = a->m / a->rows,
                                   .heads = 1,
                                   .rows = a->rows,
                                   .width = a->n,
                                   .has_source = 1,
                                   .accumulate = a->accumulate};
    return clattn__rows_enqueue(kernel->programs, kernel->bias_kernel, &args, kernel->bias.mem, call->y);
}

static clattn_status enqueue(clattn__gemm_kernel *kernel, const clattn__gemm_call *call) {
    const clattn_gemm_args a = clattn__gemm_plain_args(call);
    const bool bias = a.has_bias && kernel->bias_kernel;
    clattn_status status = CLATTN_OK;
    if (a.m == 0) return CLATTN_OK;
    if (a.width != a.n)
        return clattn__fail(CLATTN_UNSUPPORTED,
                            "gemm_clblast writes plain matrices only; the call splits %d columns into heads of %d", a.n,
                            a.width);
    if (bias) status = put_bias(kernel, call);

    const bool one_matrix = a.x.batch == a.rows * a.x.row && a.y.batch == a.rows * a.y.row;
    const int products = one_matrix ? 1 : a.m / a.rows, rows = one_matrix ? a.m : a.rows;
    /* so many rows at a time that launches stay short */
    const int64_t most = clattn__launch_tiles(&kernel->programs->env->device.caps, (double)a.n * a.k, false);
    const int chunk = most < rows ? (int)most : rows;
    for (int b = 0; b < products; b++)
        for (int r = 0; r < rows && status == CLATTN_OK; r += chunk)
            status = multiply(kernel, call->x, (size_t)(a.x.offset + b * a.x.batch + r * a.x.row), (size_t)a.x.row,
                              call->y, (size_t)(a.y.offset + b * a.y.batch + r * a.y.row), (size_t)a.y.row,
                              (size_t)(chunk < rows - r ? chunk : rows - r), bias || a.accumulate ? 1.0f : 0.0f, NULL);
    return status;
}

const clattn__gemm_impl clattn__gemm_clblast = {
    .name = "gemm_clblast",
    .what = "CLBlast, for GPUs",
    .splits_heads = false,
    .has_rival = true,
    .supports = supports,
    .prepare = prepare,
    .enqueue = enqueue,
};
