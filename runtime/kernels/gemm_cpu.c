/* Host half of cl/gemm_cpu.cl: register tiles for CPUs. Packs the weight once and splits each call into work-items that
 * keep all compute units busy. */
#include <stdio.h>

#include "kernels/gemm_cpu.h"

enum {
    BLOCK_K = 512,       /* greatest number of steps of k at a time */
    COLUMNS_LIMIT = 768, /* greatest columns_per_item before rounding down to whole panels */
    PARKED = 32 * 1024,  /* floats for the sums of an item between two blocks of k */
};

/* Register tiles by vector width: with 32 registers 4 x 4 vectors, with 16 registers 4 x 3. Timed on a Zen 4 class CPU
 * with pocl 3.1, the loop over k of 4 x 4 vectors of 16 lanes runs at 0.99 of the multiply-add peak; 5 x 4, 6 x 4,
 * 8 x 3 and 12 x 2 are no faster. weight_floats: what an item may walk of the weight in one block of k, so that it
 * stays in the second-level cache. */
typedef struct tile {
    int lanes, rows, vectors, weight_floats;
} tile;

static tile tile_of(const clattn__params *params) {
    const int *v = params->value;
    return (tile){v[0], v[1], v[2], v[3] * 1024};
}

static void add(clattn__candidates *list, int lanes, int rows, int vectors, int weight_kilofloats) {
    clattn__candidates_add(list, (clattn__params){{lanes, rows, vectors, weight_kilofloats}});
}

/* Five eighths of the second-level cache are the weight's. With 1 MB of it, taking it for 512 KB cost 2 to 5 %, for
 * 256 KB 4 to 10 %, for more nothing. Where its size is unknown: CPUs with vectors of 16 lanes have 1 MB and more,
 * older ones down to 256 KB. */
static int weight_kilofloats(const clattn__caps *caps, int lanes) {
    const uint64_t unknown = lanes == 16 ? 1 << 20 : 256 << 10, least = 128 << 10, most = 8 << 20;
    uint64_t cache = caps->second_cache ? caps->second_cache : unknown;
    cache = cache < least ? least : cache > most ? most : cache;
    return (int)(cache / sizeof(float) * 5 / 8 / 1024);
}

/* The tile and the share of the second-level cache as above; then the cache as if it were half or twice as large. */
static void candidates(const clattn__gemm_problem *problem, const clattn__caps *caps, clattn__candidates *list) {
    (void)problem;
    const int lanes = caps->vector_width >= 16 ? 16 : caps->vector_width >= 8 ? 8 : 4;
    const int vectors = lanes == 16 ? 4 : 3, weight = weight_kilofloats(caps, lanes);
    add(list, lanes, 4, vectors, weight);
    add(list, lanes, 4, vectors, weight / 2);
    add(list, lanes, 4, vectors, 2 * weight);
}

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static bool supports(const clattn__gemm_problem *problem, const clattn__caps *caps, clattn__refusal *why) {
    if (caps->type != CLATTN_DEVICE_CPU)
        return clattn__refuse(why, "made for CPUs: its work-groups of one item leave other devices idle");
    if (caps->quirks & CLATTN__QUIRK_WRONG_LOOPS)
        return clattn__refuse(why, "%s", clattn__quirk_reason(caps, CLATTN__QUIRK_WRONG_LOOPS));
    return clattn__gemm_fits(problem, why);
}

/* w (n, k) becomes (ceil(n / panel), k, panel), zeros in the columns beyond n. */
static void pack(const float *w, int64_t w_row, int64_t n, int64_t k, int64_t panel, float *packed) {
    for (int64_t first = 0; first < n; first += panel) {
        const int64_t count = least(panel, n - first);
        float *to = packed + first * k;
        for (int64_t c = 0; c < count; c++) {
            const float *from = w + (first + c) * w_row;
            for (int64_t i = 0; i < k; i++) to[i * panel + c] = from[i];
        }
    }
}

void clattn__gemm_cpu_options(const clattn__gemm_kernel *kernel, clattn__options *options) {
    const tile t = tile_of(&kernel->params);
    const int panel = t.lanes * t.vectors;
    clattn__options_start(options);
    clattn__options_int(options, "VW", t.lanes);
    clattn__options_int(options, "MR", t.rows);
    clattn__options_int(options, "NV", t.vectors);
    clattn__options_int(options, "BLOCK_K", BLOCK_K);
    clattn__options_int(options, "MAX_COLUMNS", COLUMNS_LIMIT / panel * panel);
    clattn__storage_options(options, kernel->problem.dtype);
    clattn__options_int(options, "PARKED", PARKED);
    if (kernel->programs->env->device.caps.quirks & CLATTN__QUIRK_NOINLINE_BODY)
        clattn__options_flag(options, "BODY_NOINLINE");
}

static clattn_status prepare(clattn__gemm_kernel *kernel, const float *w, int64_t w_row, const float *bias) {
    const int64_t n = kernel->problem.n, k = kernel->problem.k;
    const tile t = tile_of(&kernel->params);
    const int panel = t.lanes * t.vectors;
    clattn__options options;

    kernel->block_m = t.rows;
    kernel->block_n = panel;
    kernel->block_k = BLOCK_K;
    snprintf(kernel->tiles, sizeof kernel->tiles, "%d rows x %d columns (%d vectors of %d lanes), %d steps of k",
             t.rows, panel, t.vectors, t.lanes, BLOCK_K);

    clattn__gemm_cpu_options(kernel, &options);
    clattn__options_int(&options, "ACTIVATION", (int)kernel->problem.activation);
    clattn_status status = clattn__program_get(kernel->programs, "gemm_cpu.cl", &options, &kernel->program);
    if (status == CLATTN_OK)
        status = clattn__kernel_create(kernel->programs, kernel->program, "gemm_cpu", &kernel->kernel);
    if (status == CLATTN_OK) status = clattn__gemm_upload_bias(kernel, bias, round_up(n, panel));
    if (status != CLATTN_OK) return status;

    float *packed = clattn__gemm_scratch(round_up(n, panel), k);
    if (!packed) return CLATTN_OUT_OF_MEMORY;
    pack(w, w_row, n, k, panel, packed);
    status = clattn__gemm_upload(kernel, &kernel->weight, packed, round_up(n, panel), k);
    clattn__free(packed);
    return status;
}

bool clattn__gemm_cpu_same_tiles(const clattn__gemm_kernel *a, const clattn__gemm_kernel *b) {
    const tile s = tile_of(&a->params), t = tile_of(&b->params);
    return s.lanes == t.lanes && s.rows == t.rows && s.vectors == t.vectors;
}

int64_t clattn__gemm_cpu_columns(const clattn__gemm_kernel *kernel, const clattn_gemm_args *args, int64_t rows) {
    const int64_t panel = kernel->block_n;
    int64_t most = tile_of(&kernel->params).weight_floats / least(args->k, BLOCK_K);
    if (args->k > BLOCK_K) most = least(most, PARKED / rows);
    most = least(most, COLUMNS_LIMIT) / panel * panel;
    return least(most > panel ? most : panel, round_up(args->n, panel));
}

/* How many rows and columns one work-item takes: the pair with the earliest expected finish. One unit of work is one
 * multiply-add. A row costs as much as a few columns before its first product (copy, addresses), a column as much as
 * about one row (its weights come from further away the first time), an item as much as some thousand cycles; a quarter
 * of an item stands for units that start late or are slowed by others. */
static void split(const clattn__gemm_kernel *kernel, clattn_gemm_args *args) {
    static const int row_choices[] = {256, 128, 64, 32, 16, 8, 4};
    const double row_columns = 4, column_rows = 1, item_work = 98304, late_items = 0.25;
    const clattn__caps *caps = &kernel->programs->env->device.caps;
    const int panel = kernel->block_n, tile_rows = kernel->block_m;
    const int64_t units = caps->compute_units ? caps->compute_units : 1;
    double best = -1;

    for (size_t i = 0; i < CLATTN__COUNT(row_choices); i++) {
        const int64_t rows = round_up(row_choices[i], tile_rows), most = clattn__gemm_cpu_columns(kernel, args, rows);
        for (int64_t columns = panel; columns <= most; columns += panel) {
            const int64_t items = ceil_div(args->m, rows) * ceil_div(args->n, columns);
            const double work = ((double)round_up(least(rows, args->m), tile_rows) + column_rows) *
                                ((double)columns + row_columns) * args->k;
            const double finish = ((double)ceil_div(items, units) + late_items) * (work + item_work);
            if (best >= 0 && finish >= best) continue;
            best = finish;
            args->rows_per_item = (int)rows;
            args->columns_per_item = (int)columns;
        }
    }
}

static clattn_status enqueue(clattn__gemm_kernel *kernel, const clattn__gemm_call *call) {
    clattn_gemm_args args = clattn__gemm_plain_args(call);
    split(kernel, &args);
    clattn_status status = clattn__gemm_set_args(kernel, call, &args);
    if (status != CLATTN_OK) return status;
    const clattn__launch launch = {
        .kernel = kernel->kernel,
        .dims = 2,
        .global = {(size_t)ceil_div(args.m, args.rows_per_item), (size_t)ceil_div(args.n, args.columns_per_item)},
        .local = {1, 1}};
    return clattn__launch_enqueue(kernel->programs->env, &launch);
}

const clattn__gemm_impl clattn__gemm_cpu = {
    .name = "gemm_cpu",
    .what = "register tiles of explicit vectors on packed weights, for CPUs",
    .splits_heads = true,
    .activates = true,
    .supports = supports,
    .params = {"lanes", "rows", "vectors", "weight_kilofloats"},
    .candidates = candidates,
    .prepare = prepare,
    .enqueue = enqueue,
};
