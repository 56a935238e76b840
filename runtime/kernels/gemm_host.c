/* The last entry of the list: the product on the host, in double, through mapped buffers. Serves every problem on every
 * device, and is what a wrong device falls back to. */
#include <stdio.h>

#include "kernels/gemm.h"
#include "ref/ref.h"

static bool supports(const clattn__gemm_problem *problem, const clattn__caps *caps, clattn__refusal *why) {
    (void)caps;
    return clattn__gemm_fits(problem, why);
}

static clattn_status prepare(clattn__gemm_kernel *kernel, const float *w, int64_t w_row, const float *bias) {
    kernel->block_m = kernel->block_n = kernel->block_k = 1;
    snprintf(kernel->tiles, sizeof kernel->tiles, "one element at a time, in double");
    clattn_status status = clattn__gemm_upload_plain(kernel, w, w_row);
    if (status == CLATTN_OK && bias) status = clattn__gemm_upload_bias(kernel, bias, kernel->problem.n);
    return status;
}

/* A buffer in host memory for the time of one call. */
typedef struct mapping {
    cl_mem mem;
    void *memory;
} mapping;

static clattn_status map(clattn__env *env, cl_mem mem, cl_map_flags flags, mapping *out) {
    size_t bytes = 0;
    cl_int code = clGetMemObjectInfo(mem, CL_MEM_SIZE, sizeof bytes, &bytes, NULL);
    if (code != CL_SUCCESS) return clattn__cl_fail(code, "clGetMemObjectInfo", env->device.caps.name);
    out->memory = clEnqueueMapBuffer(env->queue, mem, CL_TRUE, flags, 0, bytes, 0, NULL, NULL, &code);
    if (code != CL_SUCCESS) return clattn__cl_fail(code, "clEnqueueMapBuffer", env->device.caps.name);
    out->mem = mem;
    return CLATTN_OK;
}

/* Keeps the first failure. */
static clattn_status unmap(clattn__env *env, mapping *m, clattn_status status) {
    if (!m->mem) return status;
    cl_int code = clEnqueueUnmapMemObject(env->queue, m->mem, m->memory, 0, NULL, NULL);
    if (code == CL_SUCCESS || status != CLATTN_OK) return status;
    return clattn__cl_fail(code, "clEnqueueUnmapMemObject", env->device.caps.name);
}

static void multiply(const clattn_gemm_args *a, clattn_dtype dtype, /* of x and y */
                     const void *x,                                 /* (m, k) at a->x */
                     const float *w,                                /* (n, k) */
                     const float *bias,                             /* (n) or NULL */
                     void *y) {                                     /* (m, n) at a->y */
    for (int m = 0; m < a->m; m++) {
        const int b = m / a->rows, s = m % a->rows;
        const int64_t x_row = a->x.offset + b * a->x.batch + s * a->x.row;
        const int64_t y_row = a->y.offset + b * a->y.batch + s * a->y.row;
        for (int n = 0; n < a->n; n++) {
            const int in_part = n % a->part_columns;
            const int64_t to =
                y_row + n / a->part_columns * a->y_part + in_part / a->width * a->y.head + in_part % a->width;
            double value = clattn__ref_product(x, dtype, x_row, w + (int64_t)n * a->k, a->k);
            if (bias) value += bias[n];
            if (a->accumulate) value += clattn__ref_load(y, dtype, to);
            clattn__ref_store(y, dtype, to, value);
        }
    }
}

static clattn_status enqueue(clattn__gemm_kernel *kernel, const clattn__gemm_call *call) {
    clattn__env *env = kernel->programs->env;
    const clattn_gemm_args *a = &call->args;
    mapping x = {0}, w = {0}, bias = {0}, y = {0};
    if (a->m == 0 || a->n == 0) return CLATTN_OK;

    /* y may be read too: what lies between its rows must come back as it was. x and y may be parts of one buffer, and a
     * region may not be mapped a second time for writing. */
    clattn_status status = map(env, call->y, CL_MAP_READ | CL_MAP_WRITE, &y);
    if (status == CLATTN_OK && call->x != call->y) status = map(env, call->x, CL_MAP_READ, &x);
    if (status == CLATTN_OK) status = map(env, kernel->weight.mem, CL_MAP_READ, &w);
    if (status == CLATTN_OK && a->has_bias) status = map(env, kernel->bias.mem, CL_MAP_READ, &bias);
    if (status == CLATTN_OK)
        multiply(a, kernel->problem.dtype, x.mem ? x.memory : y.memory, w.memory, bias.memory, y.memory);

    status = unmap(env, &bias, status);
    status = unmap(env, &w, status);
    status = unmap(env, &x, status);
    return unmap(env, &y, status);
}

const clattn__gemm_impl clattn__gemm_host = {
    .name = "gemm_host",
    .what = "the scalar reference on the host",
    .splits_heads = true,
    .supports = supports,
    .prepare = prepare,
    .enqueue = enqueue,
};
