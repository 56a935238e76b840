/* Host half of cl/attn_cpu.cl: register tiles for CPUs, one work-item per tile of query rows. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/attn_cpu.h"

/* Tile sizes of the kernel; the .cl file says what each means. */
typedef struct tile {
    int lanes;   /* VW */
    int vectors; /* NV */
    int keys;    /* MR */
    int block;   /* BLOCK_KV */
    int columns; /* NC */
    int rows;    /* MV */
    bool half;   /* HALF_TAIL */
    int heads;   /* HEADS */
    int tiles;   /* TILES */
} tile;

/* Score tiles. 32 registers of 16 lanes hold up to 24 sums, 16 registers of fewer lanes 12. One block length per width,
 * so that the height of a tile does not change a row's result; a block's keys and values of head_dim 128 fill less than
 * half of the least second-level cache of CPUs with such vectors (512 and 256 KB). cost: time per score relative to the
 * best height, for narrow heads (where more of it goes into the softmax) and others; timed on a Zen 4 class CPU with
 * pocl 3.1. */
typedef struct score_tile {
    int least_lanes, vectors, keys, block;
    double narrow_cost, cost;
} score_tile;

static const score_tile score_tiles[] = {
    {16, 1, 8, 128, 1.20, 1.04}, {16, 2, 8, 128, 1.06, 1.02}, {16, 4, 4, 128, 1.00, 1.00}, /* AVX-512 */
    {4, 1, 8, 96, 1.10, 1.10},   {4, 2, 6, 96, 1.00, 1.00},   {4, 4, 3, 96, 1.04, 1.04},   /* AVX2, SSE, NEON */
};

enum {
    NARROW_HEAD = 48,
    PRIVATE_FLOATS = 64 * 1024, /* of one work-item, which lie on the stack of a driver's thread */
    MOST_HEADS = 8,             /* of a work-group */
    MOST_TILES = 4,             /* of a work-group */
    UNIT_GROUPS = 8,            /* work-groups that each compute unit gets at least: some end sooner than others */
};

static int forced_width, forced_heads, forced_tiles;

void clattn__attn_cpu_force_width(int lanes) { forced_width = lanes; }
void clattn__attn_cpu_force_heads(int heads) { forced_heads = heads; }
void clattn__attn_cpu_force_tiles(int tiles) { forced_tiles = tiles; }

static int lanes_of(const clattn__caps *caps) {
    if (forced_width) return forced_width;
    if (caps->vector_width >= 16) return 16;
    return caps->vector_width >= 8 ? 8 : 4;
}

static bool converts(const clattn__attn_problem *problem) { return problem->dtype != CLATTN_F32; }

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

static int64_t compute_units(const clattn__caps *caps) { return caps->compute_units > 0 ? caps->compute_units : 1; }

static int64_t private_floats(const clattn__attn_problem *problem, int64_t block_q, int64_t block, int heads) {
    return block_q * (heads * (problem->head_dim + problem->value_dim) + 2 * block);
}

/* Expected time of a score tile: rows and keys that are computed (by whole vectors of rows, also at the diagonal), and
 * cores that wait for the last tiles. Infinite when the tile does not fit. */
static double expected_time(const score_tile *t, int lanes, const clattn__attn_problem *problem,
                            const clattn__caps *caps) {
    const int64_t block_q = (int64_t)t->vectors * lanes, tiles = ceil_div(problem->query_len, block_q);
    if (private_floats(problem, block_q, t->block, 1) > PRIVATE_FLOATS && t->vectors > 1) return INFINITY;
    const int64_t items = tiles * problem->query_heads * problem->batch, cores = compute_units(caps);
    const double waste = items > 0 ? (double)(ceil_div(items, cores) * cores) / (double)items : 1;
    return (double)(ceil_div(problem->query_len, lanes) * lanes) * waste *
           (problem->head_dim <= NARROW_HEAD ? t->narrow_cost : t->cost);
}

/* How many vectors of columns a value tile takes of `vectors`, at most `most`: as few as possible are computed twice,
 * and among equals the widest tile wins. */
static int choose_columns(int64_t vectors, int most) {
    int best = 1;
    for (int c = 2; c <= most && c <= vectors; c++)
        if (ceil_div(vectors, c) * c <= ceil_div(vectors, best) * best) best = c;
    return best;
}

/* The best by expected time, then the others that fit. */
static void candidates(const clattn__attn_problem *problem, const clattn__caps *caps, clattn__candidates *list) {
    const int lanes = lanes_of(caps);
    clattn__params best = {{0}};
    double least_time = INFINITY;
    for (size_t i = 0; i < CLATTN__COUNT(score_tiles); i++) {
        const score_tile *t = &score_tiles[i];
        if ((t->least_lanes == 16) != (lanes == 16)) continue;
        const double time = expected_time(t, lanes, problem, caps);
        const clattn__params set = {{lanes, t->vectors, t->keys, t->block}};
        if (isfinite(time)) clattn__candidates_add(list, set);
        if (!isfinite(time) || time >= least_time) continue;
        best = set;
        least_time = time;
    }
    clattn__candidates_prefer(list, &best);
}

/* How many heads with the same mask a work-group takes: as many as leave each compute unit enough work-groups, and as
 * evenly divided as one head each. */
static int choose_heads(const clattn__attn_problem *problem, const clattn__caps *caps, int64_t block_q, int64_t block) {
    const int64_t all = problem->query_heads, cores = compute_units(caps);
    const int64_t tiles = ceil_div(problem->query_len, block_q) * problem->batch;
    int best = 1;
    if (!problem->shared_mask) return 1;
    if (forced_heads) return (int)(forced_heads < all ? forced_heads : all);
    for (int heads = 2; heads <= MOST_HEADS; heads++) {
        const int64_t groups = tiles * all / heads, rounds = ceil_div(groups, cores);
        if (all % heads == 0 && private_floats(problem, block_q, block, heads) <= PRIVATE_FLOATS &&
            groups >= UNIT_GROUPS * cores && rounds * cores * heads <= ceil_div(tiles * all, cores) * cores)
            best = heads;
    }
    return best;
}

/* How many tiles of rows a work-group takes through a block of keys that it converts: as choose_heads. */
static int choose_tiles(const clattn__attn_problem *problem, const clattn__caps *caps, int64_t block_q, int64_t block) {
    const int64_t rows = problem->head_dim + problem->value_dim, cores = compute_units(caps);
    const int64_t tiles = ceil_div(problem->query_len, block_q), sequences = problem->batch * problem->query_heads;
    int best = 1;
    if (!converts(problem)) return 1;
    if (forced_tiles) return forced_tiles;
    for (int n = 2; n <= MOST_TILES; n++) {
        const int64_t groups = ceil_div(tiles, n) * sequences, floats = n * block_q * rows + block * (block_q + rows);
        if (floats <= PRIVATE_FLOATS && groups >= UNIT_GROUPS * cores &&
            ceil_div(groups, cores) * n <= ceil_div(tiles * sequences, cores))
            best = n;
    }
    return best;
}

/* The value tile and the number of heads that go with a score tile. */
static tile tile_of(const clattn__params *params, const clattn__attn_problem *problem, const clattn__caps *caps) {
    const int lanes = params->value[0];
    tile chosen = {lanes, params->value[1], params->value[2], params->value[3], 1, 8, false, 1, 1};
    const int sums = lanes == 16 ? 24 : 12, most = sums / 4;
    const int whole = (int)(problem->value_dim / lanes), rest = (int)(problem->value_dim % lanes);
    const bool copied = converts(problem) || whole == 0;
    chosen.half = !copied && rest == lanes / 2 && whole < most;
    const int fitting = copied || whole > most ? most : whole; /* only a copied V is padded */
    chosen.columns = chosen.half ? whole : choose_columns(ceil_div(problem->value_dim, lanes), fitting);
    while (chosen.rows > lanes || chosen.rows * (chosen.columns + chosen.half) > sums) chosen.rows /= 2;
    chosen.heads = choose_heads(problem, caps, (int64_t)lanes * chosen.vectors, chosen.block);
    if (chosen.heads == 1) chosen.tiles = choose_tiles(problem, caps, (int64_t)lanes * chosen.vectors, chosen.block);
    return chosen;
}

static bool supports(const clattn__attn_problem *problem, const clattn__caps *caps, clattn__refusal *why) {
    if (caps->type != CLATTN_DEVICE_CPU)
        return clattn__refuse(why, "made for CPUs: its work-groups of one item leave other devices idle");
    if (caps->quirks & CLATTN__QUIRK_SLOW_VECTORS)
        return clattn__refuse(why, "%s", clattn__quirk_reason(caps, CLATTN__QUIRK_SLOW_VECTORS));
    return clattn__refuse_features(why, problem->features, clattn__attn_cpu.features);
}

static clattn_status prepare(clattn__attn_kernel *kernel) {
    const clattn__caps *caps = &kernel->programs->env->device.caps;
    const tile t = tile_of(&kernel->params, &kernel->problem, caps);
    clattn__options options;
    clattn__options_start(&options);
    clattn__attn_options(&options, &kernel->problem, caps);
    clattn__options_int(&options, "VW", t.lanes);
    clattn__options_int(&options, "NV", t.vectors);
    clattn__options_int(&options, "MR", t.keys);
    clattn__options_int(&options, "BLOCK_KV", t.block);
    clattn__options_int(&options, "NC", t.columns);
    clattn__options_int(&options, "MV", t.rows);
    clattn__options_int(&options, "HALF_TAIL", t.half);
    clattn__options_int(&options, "HEADS", t.heads);
    clattn__options_int(&options, "TILES", t.tiles);
    clattn_status status = clattn__program_get(kernel->programs, "attn_cpu.cl", &options, &kernel->program);
    if (status == CLATTN_OK)
        status = clattn__kernel_create(kernel->programs, kernel->program, "attn_cpu", &kernel->kernel);
    if (status != CLATTN_OK) return status;

    kernel->block_q = t.lanes * t.vectors;
    kernel->block_kv = t.block;
    kernel->block_heads = t.heads;
    kernel->block_tiles = t.tiles;
    kernel->local_items[0] = kernel->local_items[1] = kernel->local_items[2] = 1;
    snprintf(kernel->tiles, sizeof kernel->tiles, "%d query rows x %d keys, %d lanes, value tiles of %d columns",
             kernel->block_q, t.block, t.lanes, t.lanes * t.columns + (t.half ? t.lanes / 2 : 0));
    const size_t used = strlen(kernel->tiles);
    if (t.heads > 1)
        snprintf(kernel->tiles + used, sizeof kernel->tiles - used, ", %d heads for each reading of the mask", t.heads);
    if (t.tiles > 1)
        snprintf(kernel->tiles + used, sizeof kernel->tiles - used, ", %d tiles of rows for each conversion", t.tiles);
    return CLATTN_OK;
}

static clattn_status enqueue(clattn__attn_kernel *kernel, const clattn__attn_call *call) {
    const clattn_attn_args *args = &call->args;
    clattn__launch launch = {.kernel = kernel->kernel, .dims = 3, .local = {1, 1, 1}};
    launch.global[0] = (size_t)ceil_div(args->query_len, kernel->block_q * kernel->block_tiles);
    launch.global[1] = (size_t)ceil_div(args->query_heads, kernel->block_heads);
    launch.global[2] = (size_t)args->batch;
    clattn_status status = clattn__attn_set_args(kernel, call);
    return status == CLATTN_OK ? clattn__launch_enqueue(kernel->programs->env, &launch) : status;
}

const clattn__attn_impl clattn__attn_cpu = {
    .name = "attn_cpu",
    .what = "query rows in the lanes of explicit vectors, one work-item per tile; for CPUs",
    .features = CLATTN__CAUSAL | CLATTN__WINDOW | CLATTN__MASK_BOOL | CLATTN__MASK_FLOAT | CLATTN__PADDING |
                CLATTN__LENGTHS | CLATTN__SOFTCAP | CLATTN__ALIBI | CLATTN__SINKS | CLATTN__LSE | CLATTN__ALWAYS_KEYS |
                CLATTN__OFFSET_FROM_LENGTHS | CLATTN__DROPOUT | CLATTN__PREFIX | CLATTN__DOCUMENTS | CLATTN__VARLEN,
    .supports = supports,
    .params = {"lanes", "vectors", "keys", "block"},
    .candidates = candidates,
    .prepare = prepare,
    .enqueue = enqueue,
};
