/* What the host halves of all projection kernels share: limits, packing space, uploads, argument slots. */
#include <limits.h>
#include <string.h>

#include "kernels/gemm.h"

/* Of one launch: a block's number and the work-items stay below 2^32 with groups of 1024. */
#define MOST_BLOCKS ((int64_t)1 << 21)

bool clattn__gemm_fits(const clattn__gemm_problem *problem, clattn__refusal *why) {
    const struct {
        const char *name;
        int64_t extent;
    } extents[] = {{"m", problem->m}, {"n", problem->n}, {"k", problem->k}};
    /* One tile of head room, so that rounding an extent up to whole tiles cannot overflow. */
    const int64_t greatest = INT_MAX - 1024;
    for (size_t i = 0; i < CLATTN__COUNT(extents); i++) {
        if (extents[i].extent > greatest)
            return clattn__refuse(why, "%s %lld > %lld: extents are 32 bits in the kernel", extents[i].name,
                                  (long long)extents[i].extent, (long long)greatest);
    }
    return true;
}

clattn_gemm_args clattn__gemm_plain_args(const clattn__gemm_call *call) {
    clattn_gemm_args args = call->args;
    if (args.y.head == args.width || args.width == args.part_columns) args.width = args.part_columns;
    if (args.width == args.part_columns && (args.y_part == args.part_columns || args.part_columns == args.n))
        args.width = args.part_columns = args.n;
    return args;
}

float *clattn__gemm_scratch(int64_t rows, int64_t columns) {
    size_t bytes;
    if (!clattn__volume((const int64_t[]){rows, columns}, 2, sizeof(float), &bytes)) {
        clattn__fail(CLATTN_INVALID_SHAPE, "a weight of %lld x %lld floats does not fit the address space",
                     (long long)rows, (long long)columns);
        return NULL;
    }
    return clattn__alloc(bytes / sizeof(float), sizeof(float));
}

clattn_status clattn__gemm_upload(clattn__gemm_kernel *kernel, clattn__buffer *buffer, const float *host, int64_t rows,
                                  int64_t columns) {
    clattn__env *env = kernel->programs->env;
    const size_t bytes = (size_t)rows * (size_t)columns * sizeof(float); /* allocated, so it fits */
    clattn_status status = clattn__buffer_create(env, bytes, buffer);
    return status == CLATTN_OK ? clattn__buffer_write(env, buffer->mem, 0, bytes, host) : status;
}

clattn_status clattn__gemm_upload_bias(clattn__gemm_kernel *kernel, const float *bias, int64_t count) {
    float *padded = clattn__gemm_scratch(1, count);
    if (!padded) return CLATTN_OUT_OF_MEMORY;
    if (bias) memcpy(padded, bias, (size_t)kernel->problem.n * sizeof *bias);
    clattn_status status = clattn__gemm_upload(kernel, &kernel->bias, padded, 1, count);
    clattn__free(padded);
    return status;
}

clattn_status clattn__gemm_upload_plain(clattn__gemm_kernel *kernel, const float *w, int64_t w_row) {
    const int64_t n = kernel->problem.n, k = kernel->problem.k;
    if (w_row == k) return clattn__gemm_upload(kernel, &kernel->weight, w, n, k);
    float *dense = clattn__gemm_scratch(n, k); /* (n, k) */
    if (!dense) return CLATTN_OUT_OF_MEMORY;
    for (int64_t row = 0; row < n; row++) memcpy(dense + row * k, w + row * w_row, (size_t)k * sizeof *w);
    clattn_status status = clattn__gemm_upload(kernel, &kernel->weight, dense, n, k);
    clattn__free(dense);
    return status;
}

void clattn__gemm_kernel_clear(clattn__gemm_kernel *kernel) {
    if (kernel->kernel) clReleaseKernel(kernel->kernel);
    if (kernel->bias_kernel) clReleaseKernel(kernel->bias_kernel);
    if (kernel->programs) {
        clattn__buffer_clear(kernel->programs->env, &kernel->weight);
        clattn__buffer_clear(kernel->programs->env, &kernel->bias);
    }
    memset(kernel, 0, sizeof *kernel);
}

clattn_status clattn__gemm_set_args(clattn__gemm_kernel *kernel, const clattn__gemm_call *call,
                                    const clattn_gemm_args *args) {
    clattn__env *env = kernel->programs->env;
    const cl_mem buffers[] = {
        [GEMM_X] = call->x, [GEMM_W] = kernel->weight.mem, [GEMM_BIAS] = kernel->bias.mem, [GEMM_Y] = call->y};
    clattn_status status = clattn__arg(env, kernel->kernel, GEMM_ARGS, sizeof *args, args);
    for (cl_uint slot = GEMM_X; slot < CLATTN__COUNT(buffers) && status == CLATTN_OK; slot++)
        status = clattn__arg_mem(env, kernel->kernel, slot, buffers[slot]);
    return status;
}

static int64_t blocks_of(int64_t extent, int block) { return (extent + block - 1) / block; }

clattn_status clattn__gemm_enqueue_blocks(clattn__gemm_kernel *kernel, const clattn__gemm_call *call,
                                          const clattn_gemm_args *args, size_t items) {
    clattn__env *env = kernel->programs->env;
    clattn_gemm_args here = *args;
    const int64_t columns = blocks_of(args->n, kernel->block_n), blocks = columns * blocks_of(args->m, kernel->block_m);
    const int parts = args->weight_parts > 1 ? args->weight_parts : 1;
    const double block_cost = (double)kernel->block_m * kernel->block_n * parts *
                              (double)(kernel->block_k * (blocks_of(args->k, kernel->block_k) + 1));
    int64_t chunk = clattn__launch_tiles(&env->device.caps, block_cost, kernel->impl->uses_engine);
    if (chunk > MOST_BLOCKS) chunk = MOST_BLOCKS;

    clattn_status status = clattn__gemm_set_args(kernel, call, args);
    for (int64_t first = 0; first < blocks && status == CLATTN_OK; first += chunk) {
        const int64_t count = blocks - first < chunk ? blocks - first : chunk;
        here.first_block_m = (int)(first / columns);
        here.first_block_n = (int)(first % columns);
        const clattn__launch launch = {
            .kernel = kernel->kernel, .dims = 1, .global = {(size_t)count * items}, .local = {items}};
        status = clattn__arg(env, kernel->kernel, GEMM_ARGS, sizeof here, &here);
        if (status == CLATTN_OK) status = clattn__launch_enqueue(env, &launch);
    }
    return status;
}
