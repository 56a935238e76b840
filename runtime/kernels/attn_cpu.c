/* Host half of cl/attn_cpu.cl: register tiles for CPUs, one work-item per tile of query rows. */
#include <stdio.h>

#include "kernels/attn_cpu.h"

/* Tile sizes of the kernel; the .cl file says what each means. */
typedef struct tile {
    int lanes;       /* VW */
    int row_vectors; /* NV */
    int keys;        /* MR */
    int block;       /* BLOCK_KV */
    int columns;     /* NC, vectors */
    int rows;        /* MV */
} tile;

static int forced_width;

void clattn__attn_cpu_force_width(int lanes) { forced_width = lanes; }

static int lanes_of(const clattn__caps *caps) {
    if (forced_width) return forced_width;
    if (caps->vector_width >= 16) return 16;
    return caps->vector_width >= 8 ? 8 : 4;
}

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* How many vectors of columns a value tile takes of `vectors`: at most `most`, with as little computed twice as can be,
 * and among equals the widest. */
static int choose_columns(int64_t vectors, int most) {
    int best = 1;
    for (int c = 1; c <= most && c <= vectors; c++) {
        if (ceil_div(vectors, c) * c <= ceil_div(vectors, best) * best) best = c;
    }
    return best;
}

static tile choose_tile(const clattn__attn_problem *problem, const clattn__caps *caps) {
    tile t = {.lanes = lanes_of(caps), .row_vectors = 2, .keys = 8, .block = 128};
    const int64_t vectors = ceil_div(problem->value_dim, t.lanes);
    t.columns = choose_columns(vectors, 6);
    t.rows = t.columns >= 4 ? 4 : 8;
    return t;
}

static bool supports(const clattn__attn_problem *problem, const clattn__caps *caps, clattn__refusal *why) {
    if (caps->type != CLATTN_DEVICE_CPU)
        return clattn__refuse(why, "made for CPUs: its work-groups of one item leave other devices idle");
    return clattn__refuse_features(why, problem->features, clattn__attn_cpu.features);
}

static clattn_status prepare(clattn__attn_kernel *kernel) {
    const clattn__caps *caps = &kernel->programs->env->device.caps;
    const tile t = choose_tile(&kernel->problem, caps);
    clattn__options options;
    clattn__options_start(&options);
    clattn__attn_options(&options, &kernel->problem, caps);
    clattn__options_int(&options, "VW", t.lanes);
    clattn__options_int(&options, "NV", t.row_vectors);
    clattn__options_int(&options, "MR", t.keys);
    clattn__options_int(&options, "BLOCK_KV", t.block);
    clattn__options_int(&options, "NC", t.columns);
    clattn__options_int(&options, "MV", t.rows);
    clattn_status status = clattn__program_get(kernel->programs, "attn_cpu.cl", &options, &kernel->program);
    if (status == CLATTN_OK)
        status = clattn__kernel_create(kernel->programs, kernel->program, "attn_cpu", &kernel->kernel);
    if (status != CLATTN_OK) return status;

    kernel->block_q = t.lanes * t.row_vectors;
    kernel->block_kv = t.block;
    kernel->local_items[0] = kernel->local_items[1] = kernel->local_items[2] = 1;
    snprintf(kernel->tiles, sizeof kernel->tiles, "%d query rows x %d keys, %d lanes, value tiles of %d columns",
             kernel->block_q, t.block, t.lanes, t.lanes * t.columns);
    return CLATTN_OK;
}

static clattn_status enqueue(clattn__attn_kernel *kernel, const clattn__attn_call *call) {
    const clattn_attn_args *args = &call->args;
    clattn__launch launch = {.kernel = kernel->kernel, .dims = 3, .local = {1, 1, 1}};
    launch.global[0] = (size_t)ceil_div(args->query_len, kernel->block_q);
    launch.global[1] = (size_t)args->query_heads;
    launch.global[2] = (size_t)args->batch;
    clattn_status status = clattn__attn_set_args(kernel, call);
    return status == CLATTN_OK ? clattn__launch_enqueue(kernel->programs->env, &launch) : status;
}

const clattn__attn_impl clattn__attn_cpu = {
    .name = "attn_cpu",
    .what = "query rows in the lanes of explicit vectors, one work-item per tile; for CPUs",
    .features = CLATTN__CAUSAL | CLATTN__WINDOW | CLATTN__MASK_BOOL | CLATTN__MASK_FLOAT | CLATTN__PADDING |
                CLATTN__LENGTHS | CLATTN__SOFTCAP | CLATTN__ALIBI | CLATTN__SINKS | CLATTN__LSE |
                CLATTN__ALWAYS_KEYS | CLATTN__OFFSET_FROM_LENGTHS,
    .supports = supports,
    .prepare = prepare,
    .enqueue = enqueue,
};
