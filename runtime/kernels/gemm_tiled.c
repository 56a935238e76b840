/* Host half of cl/gemm_tiled.cl: local-memory tiles for any device. */
#include <stdio.h>

#include "kernels/gemm.h"

enum {
    PER_ITEM = 4, /* rows and columns of one work-item, PER_X and PER_Y in the kernel */
    BLOCK_K = 16,
    WEIGHT_PAD = 64, /* columns; a multiple of every block_n below */
};

/* Work-groups, best first. */
typedef struct shape {
    int x, y;
} shape;
static const shape shapes[] = {{16, 16}, {16, 8}, {8, 8}};

static int local_bytes(shape s) { return BLOCK_K * (s.y * PER_ITEM + 1 + s.x * PER_ITEM) * (int)sizeof(float); }

static bool fits(shape s, const clattn__caps *caps) {
    return (uint64_t)(s.x * s.y) <= caps->max_work_group && (size_t)s.x <= caps->max_item_sizes[0] &&
           (size_t)s.y <= caps->max_item_sizes[1] && (uint64_t)local_bytes(s) <= caps->local_memory;
}

static bool supports(const clattn__gemm_problem *problem, const clattn__caps *caps, clattn__refusal *why) {
    const shape smallest = shapes[CLATTN__COUNT(shapes) - 1];
    if (!fits(smallest, caps))
        return clattn__refuse(
            why,
            "needs work-groups of %d x %d items and %d bytes of local memory; the device has %llu items "
            "(%zu x %zu) and %llu bytes",
            smallest.x, smallest.y, local_bytes(smallest), (unsigned long long)caps->max_work_group,
            caps->max_item_sizes[0], caps->max_item_sizes[1], (unsigned long long)caps->local_memory);
    return clattn__gemm_fits(problem, why);
}

static int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

static void candidates(const clattn__gemm_problem *problem, const clattn__caps *caps, clattn__candidates *list) {
    (void)problem;
    for (size_t i = 0; i < CLATTN__COUNT(shapes); i++)
        if (fits(shapes[i], caps)) clattn__candidates_add(list, (clattn__params){{shapes[i].x, shapes[i].y}});
}

static clattn_status build(clattn__gemm_kernel *kernel, shape s) {
    clattn__options options;
    clattn__options_start(&options);
    clattn__options_int(&options, "ITEMS_X", s.x);
    clattn__options_int(&options, "ITEMS_Y", s.y);
    clattn__options_int(&options, "BLOCK_K", BLOCK_K);
    clattn__options_int(&options, "WEIGHT_PAD", WEIGHT_PAD);
    clattn__storage_options(&options, kernel->problem.dtype);
    clattn_status status = clattn__program_get(kernel->programs, "gemm_tiled.cl", &options, &kernel->program);
    if (status == CLATTN_OK)
        status = clattn__kernel_create(kernel->programs, kernel->program, "gemm_tiled", &kernel->kernel);
    if (status != CLATTN_OK) return status;
    const size_t most = clattn__kernel_most_items(kernel->programs, kernel->kernel);
    if (most < (size_t)(s.x * s.y)) /* too many registers */
        return clattn__fail(CLATTN_UNSUPPORTED,
                            "gemm_tiled: the built kernel runs with at most %zu work-items per group on %s; its "
                            "smallest tile needs %d",
                            most, kernel->programs->env->device.caps.name, s.x * s.y);
    kernel->block_m = s.y * PER_ITEM;
    kernel->block_n = s.x * PER_ITEM;
    kernel->block_k = BLOCK_K;
    snprintf(kernel->tiles, sizeof kernel->tiles,
             "%d rows x %d columns x %d steps of k, %d x %d work-items, %d bytes local", kernel->block_m,
             kernel->block_n, BLOCK_K, s.x, s.y, local_bytes(s));
    return CLATTN_OK;
}

static clattn_status prepare(clattn__gemm_kernel *kernel, const float *w, int64_t w_row, const float *bias) {
    const int64_t n = kernel->problem.n, k = kernel->problem.k;
    const int64_t columns = round_up(n, WEIGHT_PAD), steps = round_up(k, BLOCK_K);
    clattn_status status = build(kernel, (shape){kernel->params.value[0], kernel->params.value[1]});
    if (status == CLATTN_OK) status = clattn__gemm_upload_bias(kernel, bias, n);
    if (status != CLATTN_OK) return status;

    float *transposed = clattn__gemm_scratch(steps, columns); /* (k, n), zeros beyond both */
    if (!transposed) return CLATTN_OUT_OF_MEMORY;
    for (int64_t c = 0; c < n; c++)
        for (int64_t i = 0; i < k; i++) transposed[i * columns + c] = w[c * w_row + i];
    status = clattn__gemm_upload(kernel, &kernel->weight, transposed, steps, columns);
    clattn__free(transposed);
    return status;
}

static clattn_status enqueue(clattn__gemm_kernel *kernel, const clattn__gemm_call *call) {
    const clattn_gemm_args args = clattn__gemm_plain_args(call);
    return clattn__gemm_enqueue_blocks(kernel, call, &args, (size_t)(kernel->block_n / PER_ITEM),
                                       (size_t)(kernel->block_m / PER_ITEM));
}

const clattn__gemm_impl clattn__gemm_tiled = {
    .name = "gemm_tiled",
    .what = "local-memory tiles, for any OpenCL 1.2 device",
    .splits_heads = true,
    .supports = supports,
    .params = {"items_x", "items_y"},
    .candidates = candidates,
    .prepare = prepare,
    .enqueue = enqueue,
};
