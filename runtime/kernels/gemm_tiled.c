/* Host half of cl/gemm_tiled.cl: local-memory tiles for any device. */
#include <stdio.h>

#include "kernels/gemm.h"

enum { DEPTH = 16 }; /* steps of k per tile */

/* Work-groups of x by y items, each with `rows` rows and so many float4 of columns. */
typedef struct tile {
    int x, y, rows, vectors;
} tile;
/* Best first, for products that give each compute unit at least so many of its blocks. */
static const struct {
    tile tile;
    int blocks_per_unit;
} tiles[] = {
    {{16, 16, 8, 2}, 2}, /* 128 x 128 */
    {{16, 16, 8, 1}, 2}, /* 128 x 64 */
    {{16, 16, 4, 1}, 0}, /* 64 x 64 */
    {{16, 8, 4, 1}, 0},  {{8, 8, 4, 1}, 0},
};

static int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

static int block_m_of(tile t) { return t.y * t.rows; }

static int block_n_of(tile t) { return t.x * t.vectors * 4; }

/* The tiles of x, padded by a float4 per row, and of the weight. */
static int local_bytes(tile t) { return (block_m_of(t) * (DEPTH + 4) + DEPTH * block_n_of(t)) * (int)sizeof(float); }

static bool fits(tile t, const clattn__caps *caps) {
    const uint64_t items = (uint64_t)(t.x * t.y);
    return items <= caps->max_work_group && items <= caps->max_item_sizes[0] &&
           (uint64_t)local_bytes(t) <= caps->local_memory;
}

static bool supports(const clattn__gemm_problem *problem, const clattn__caps *caps, clattn__refusal *why) {
    const tile smallest = tiles[CLATTN__COUNT(tiles) - 1].tile;
    if (!fits(smallest, caps))
        return clattn__refuse(why,
                              "needs work-groups of %d items and %d bytes of local memory; the device has %llu items "
                              "(%zu along an axis) and %llu bytes",
                              smallest.x * smallest.y, local_bytes(smallest), (unsigned long long)caps->max_work_group,
                              caps->max_item_sizes[0], (unsigned long long)caps->local_memory);
    return clattn__gemm_fits(problem, why);
}

/* Intel's units are vector engines; eight or more of them share the local memory, and with it a block. */
static bool keeps_busy(size_t i, const clattn__gemm_problem *problem, const clattn__caps *caps) {
    const bool engines = caps->vendor == CLATTN__VENDOR_INTEL && caps->type == CLATTN_DEVICE_GPU;
    const int64_t units = engines ? caps->compute_units / 8 : caps->compute_units;
    const int m = block_m_of(tiles[i].tile), n = block_n_of(tiles[i].tile);
    const int64_t blocks = round_up(problem->m, m) / m * (round_up(problem->n, n) / n);
    return blocks >= tiles[i].blocks_per_unit * units;
}

/* For 64 sums and what is added. With sub-groups of 8, a thread of Intel's GPUs has 128 registers of 8 lanes; NVIDIA's
 * compiler gives 256 items 128 each, so that two groups fit, and spills what is beyond; CPUs have fewer still. */
static bool has_registers(tile t, const clattn__caps *caps) {
    const bool few =
        caps->type != CLATTN_DEVICE_GPU || caps->subgroup_lanes == 8 || caps->vendor == CLATTN__VENDOR_NVIDIA;
    return !few || t.rows * t.vectors <= 8;
}

/* Large ones that would leave units idle, or lack registers, come last. */
static void candidates(const clattn__gemm_problem *problem, const clattn__caps *caps, clattn__candidates *list) {
    for (int turn = 0; turn < 2; turn++)
        for (size_t i = 0; i < CLATTN__COUNT(tiles); i++) {
            const tile t = tiles[i].tile;
            const bool good = has_registers(t, caps) && keeps_busy(i, problem, caps);
            if (fits(t, caps) && good == (turn == 0))
                clattn__candidates_add(list, (clattn__params){{t.x, t.y, t.rows, t.vectors}});
        }
}

static tile tile_of(const clattn__params *params) {
    return (tile){params->value[0], params->value[1], params->value[2], params->value[3]};
}

static clattn_status build(clattn__gemm_kernel *kernel, tile t) {
    clattn__options options;
    clattn__options_start(&options);
    clattn__options_int(&options, "TILE_X", t.x);
    clattn__options_int(&options, "TILE_Y", t.y);
    clattn__options_int(&options, "ROWS", t.rows);
    clattn__options_int(&options, "VECTORS", t.vectors);
    clattn__options_int(&options, "DEPTH", DEPTH);
    clattn__subgroup_options(&options, &kernel->programs->env->device.caps);
    clattn__storage_options(&options, kernel->problem.dtype);
    clattn_status status = clattn__program_get(kernel->programs, "gemm_tiled.cl", &options, &kernel->program);
    if (status == CLATTN_OK)
        status = clattn__kernel_create(kernel->programs, kernel->program, "gemm_tiled", &kernel->kernel);
    if (status != CLATTN_OK) return status;
    const size_t most = clattn__kernel_most_items(kernel->programs, kernel->kernel);
    if (most < (size_t)(t.x * t.y)) /* too many registers */
        return clattn__fail(CLATTN_UNSUPPORTED,
                            "gemm_tiled: the built kernel runs with at most %zu work-items per group on %s; its "
                            "smallest tile needs %d",
                            most, kernel->programs->env->device.caps.name, t.x * t.y);
    kernel->block_m = block_m_of(t);
    kernel->block_n = block_n_of(t);
    kernel->block_k = DEPTH;
    snprintf(kernel->tiles, sizeof kernel->tiles,
             "%d rows x %d columns x %d steps of k, %d x %d work-items with %d x %d each, %d bytes local",
             kernel->block_m, kernel->block_n, DEPTH, t.x, t.y, t.rows, 4 * t.vectors, local_bytes(t));
    return CLATTN_OK;
}

static clattn_status prepare(clattn__gemm_kernel *kernel, const float *w, int64_t w_row, const float *bias) {
    const int64_t n = kernel->problem.n, k = kernel->problem.k;
    const tile t = tile_of(&kernel->params);
    const int64_t columns = round_up(n, block_n_of(t)), steps = round_up(k, DEPTH);
    clattn_status status = build(kernel, t);
    if (status == CLATTN_OK) status = clattn__gemm_upload_bias(kernel, bias, columns);
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
    const tile t = tile_of(&kernel->params);
    return clattn__gemm_enqueue_blocks(kernel, call, &args, (size_t)t.x * (size_t)t.y);
}

const clattn__gemm_impl clattn__gemm_tiled = {
    .name = "gemm_tiled",
    .what = "local-memory tiles, for any OpenCL 1.2 device",
    .splits_heads = true,
    .supports = supports,
    .params = {"items_x", "items_y", "rows", "vectors"},
    .candidates = candidates,
    .prepare = prepare,
    .enqueue = enqueue,
};
