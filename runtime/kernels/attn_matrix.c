/* Host half of cl/attn_matrix.cl: which engine, and tiles that its registers and the local memory hold. */
#include "../../cl/shared/matrix.h"

#include <stdio.h>

#include "kernels/matrix.h"

#define ALL_STEPS 16 /* of 256 columns */

/* Masks, and terms that change scores: their loads and arithmetic want registers too. */
static const uint32_t heavy = CLATTN__MASK_BOOL | CLATTN__MASK_FLOAT | CLATTN__PADDING | CLATTN__DOCUMENTS |
                              CLATTN__SOFTCAP | CLATTN__ALIBI | CLATTN__DROPOUT;

/* Tile shapes by engine, best first: the first that fits the device is taken. Rows were chosen by what the vendors'
 * compilers make of them: no spills, no scratch memory, and as many waves per multiprocessor as registers allow.
 * NVIDIA's gives registers in steps by how many groups they leave room for, and rather spills a few than take the next
 * step: hence the odd numbers of waves. At 256 columns its registers hold sums, Q and little else; before sm_80, where
 * copies pass through them too, the terms of a score leave room for 14 of Q's 16 operands. */
static const struct matrix_shape {
    int engine;
    int arch; /* 0: any */
    int most_head_dim;
    bool heavy; /* only for problems with heavy features */
    int waves, query_tiles, block_kv, stages;
    bool prefetch;
    int query_local; /* steps of 16 columns, as in cl/attn_matrix.cl; ALL_STEPS: all there are */
} shapes[] = {
    {MATRIX_NV, 0, 64, true, 6, 1, 32, 2, false, 0},
    {MATRIX_NV, 0, 32, false, 4, 1, 64, 2, false, 0},
    {MATRIX_NV, 0, 64, false, 6, 1, 64, 2, false, 0},
    {MATRIX_NV, 75, 80, false, 6, 1, 32, 2, false, 0},
    {MATRIX_NV, 0, 128, false, 8, 1, 32, 2, false, 0},
    {MATRIX_NV, 75, 256, true, 4, 1, 16, 1, false, 2},
    {MATRIX_NV, 75, 256, false, 4, 1, 16, 1, false, 0},
    {MATRIX_NV, 0, 256, false, 4, 1, 16, 2, false, 0},
    {MATRIX_NV, 0, 256, false, 2, 1, 16, 1, false, ALL_STEPS},
    {MATRIX_WMMA11, 0, 64, true, 4, 1, 32, 1, true, 0},
    {MATRIX_WMMA11, 0, 64, false, 8, 1, 64, 1, true, 0},
    {MATRIX_WMMA11, 0, 64, false, 4, 1, 64, 1, true, 0},
    {MATRIX_WMMA11, 0, 128, true, 8, 1, 16, 1, false, 0},
    {MATRIX_WMMA11, 0, 128, false, 8, 1, 64, 1, false, 0},
    {MATRIX_WMMA11, 0, 256, false, 2, 1, 16, 1, false, ALL_STEPS},
    {MATRIX_WMMA12, 0, 64, true, 4, 1, 32, 1, true, 0},
    {MATRIX_WMMA12, 0, 64, false, 8, 1, 64, 1, false, 0},
    {MATRIX_WMMA12, 0, 64, false, 4, 1, 64, 1, false, 0},
    {MATRIX_WMMA12, 0, 128, true, 8, 1, 32, 1, false, 0},
    {MATRIX_WMMA12, 0, 128, false, 8, 1, 64, 1, false, 0},
    {MATRIX_WMMA12, 0, 256, false, 4, 1, 16, 1, false, ALL_STEPS},
    {MATRIX_MFMA32, 0, 64, true, 4, 1, 32, 1, false, 0},
    {MATRIX_MFMA32, 0, 64, false, 8, 1, 128, 1, false, 0},
    {MATRIX_MFMA32, 0, 64, false, 4, 1, 64, 1, false, 0},
    {MATRIX_MFMA32, 0, 128, true, 8, 1, 32, 1, false, 0},
    {MATRIX_MFMA32, 0, 128, false, 8, 1, 64, 1, false, 0},
    {MATRIX_MFMA32, 0, 256, false, 4, 1, 32, 1, false, 0},
    {MATRIX_DPAS8, 0, 64, true, 16, 1, 32, 1, false, ALL_STEPS},
    {MATRIX_DPAS8, 0, 64, false, 16, 1, 32, 1, false, 0},
    {MATRIX_DPAS8, 0, 128, true, 8, 1, 16, 1, false, ALL_STEPS},
    {MATRIX_DPAS8, 0, 128, false, 16, 1, 32, 1, false, ALL_STEPS},
    {MATRIX_DPAS8, 0, 256, false, 8, 1, 16, 1, false, ALL_STEPS},
    {MATRIX_DPAS16, 0, 64, true, 16, 1, 32, 1, false, ALL_STEPS},
    {MATRIX_DPAS16, 0, 64, false, 16, 1, 64, 1, false, 0},
    {MATRIX_DPAS16, 0, 128, true, 8, 1, 16, 1, false, ALL_STEPS},
    {MATRIX_DPAS16, 0, 128, false, 16, 1, 16, 1, false, 0},
    {MATRIX_DPAS16, 0, 256, false, 4, 1, 16, 1, false, ALL_STEPS},
};

typedef struct matrix_plan {
    struct matrix_shape shape;
    int waves, items, block_q;
    int value_groups; /* work-groups of one tile */
    size_t local_bytes;
} matrix_plan;

static int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

/* How many work-groups share out V's columns. A thread of Intel's has 256 registers: sums of more than 128 columns
 * would leave few or none for anything else. */
static int value_groups(int engine, int64_t value_dim) {
    return (engine == MATRIX_DPAS8 || engine == MATRIX_DPAS16) && value_dim > 128 ? 2 : 1;
}

/* Bytes for where the rows of two blocks of a cache are, with int8 cells beside a scale, and for where to look. */
static int64_t looked_up(const clattn__attn_problem *problem, int block_kv) {
    if (!(problem->features & CLATTN__CACHE_FEATURES)) return 0;
    return 256 + 4 * (int64_t)block_kv * (problem->features & CLATTN__CELLS ? 16 : 8);
}

static matrix_plan plan_of_shape(const struct matrix_shape *shape, const clattn__attn_problem *problem,
                                 const clattn__caps *caps) {
    const clattn__matrix_engine *engine = clattn__matrix_engine_of(caps);
    matrix_plan plan = {.shape = *shape, .waves = shape->waves};
    if (caps->matrix.emulated && plan.waves > 2) plan.waves = 2; /* each lane costs a work-item's stack */
    plan.items = plan.waves * engine->lanes;
    plan.block_q = plan.waves * shape->query_tiles * engine->m;
    plan.value_groups = value_groups(shape->engine, problem->value_dim);
    const int64_t key_width = round_up(problem->head_dim, 16);
    const int64_t value_width = round_up(problem->value_dim / plan.value_groups, engine->n);
    const int64_t pad = 8; /* elements; an upper bound for engines that store fragments */
    /* NVIDIA keeps V by keys, the others by columns */
    const int64_t value_tile =
        shape->engine == MATRIX_NV ? shape->block_kv * (value_width + pad) : value_width * (shape->block_kv + pad);
    const int64_t staged = shape->stages * (shape->block_kv * (key_width + pad) + value_tile);
    const int steps = (int)(key_width / 16);
    if (plan.shape.query_local > steps) plan.shape.query_local = steps;
    const int64_t queries =
        (int64_t)plan.block_q * plan.shape.query_local * 16 * (shape->engine == MATRIX_WMMA11 ? 2 : 1);
    plan.local_bytes = (size_t)((staged + queries) * 2 + 16 + looked_up(problem, shape->block_kv)) +
                       clattn__matrix_exchange(caps, plan.waves);
    return plan;
}

static bool fits(const matrix_plan *plan, const clattn__caps *caps) {
    return (uint64_t)plan->items <= caps->max_work_group && (uint64_t)plan->items <= caps->max_item_sizes[0] &&
           plan->local_bytes + CLATTN__MATRIX_RESERVE <= caps->local_memory;
}

/* What parts of the keys leave to each other wants registers too; and so does looking up where rows are, of which
 * Intel's engine of 16 lanes has few to spare. */
static bool is_heavy(const struct matrix_shape *shape, const clattn__attn_problem *problem, const clattn__caps *caps) {
    const matrix_plan plan = plan_of_shape(shape, problem, caps);
    const double key_cost = (double)plan.block_q * (double)(problem->head_dim + problem->value_dim / plan.value_groups);
    const uint32_t more = shape->engine == MATRIX_DPAS16 ? CLATTN__CACHE_FEATURES : 0;
    return (problem->features & (heavy | more)) != 0 ||
           clattn__launch_keys(caps, key_cost, true, (size_t)plan.items) < problem->kv_len;
}

/* Beyond 128 columns Turing and Intel's have none: there caches are gathered first. */
static int most_columns(const struct matrix_shape *shape, const clattn__attn_problem *problem,
                        const clattn__caps *caps) {
    const int engine = caps->matrix.engine;
    const bool scarce = caps->matrix.arch == 75 || engine == MATRIX_DPAS8 || engine == MATRIX_DPAS16;
    const bool cache = problem->features & CLATTN__CACHE_FEATURES;
    return scarce && cache && shape->most_head_dim > 128 ? 128 : shape->most_head_dim;
}

static bool is_for(const struct matrix_shape *shape, const clattn__attn_problem *problem, const clattn__caps *caps) {
    const int64_t widest = problem->head_dim > problem->value_dim ? problem->head_dim : problem->value_dim;
    return shape->engine == caps->matrix.engine && widest <= most_columns(shape, problem, caps) &&
           (shape->arch == 0 || shape->arch == caps->matrix.arch) && (!shape->heavy || is_heavy(shape, problem, caps));
}

/* The shapes of the device's engine that are made for these widths and fit. */
static void candidates(const clattn__attn_problem *problem, const clattn__caps *caps, clattn__candidates *list) {
    const bool converts = problem->features & CLATTN__CELLS; /* on the way into local memory, not into registers */
    for (size_t n = 0; n < CLATTN__COUNT(shapes); n++) {
        const struct matrix_shape *s = &shapes[n];
        if (!is_for(s, problem, caps)) continue;
        const matrix_plan plan = plan_of_shape(s, problem, caps);
        if (fits(&plan, caps))
            clattn__candidates_add(list, (clattn__params){{s->waves, s->query_tiles, s->block_kv, s->stages,
                                                           s->prefetch && !converts, s->query_local}});
    }
}

static matrix_plan plan_of_params(const clattn__params *params, const clattn__attn_problem *problem,
                                  const clattn__caps *caps) {
    const int *v = params->value;
    const struct matrix_shape shape = {.engine = caps->matrix.engine,
                                       .waves = v[0],
                                       .query_tiles = v[1],
                                       .block_kv = v[2],
                                       .stages = v[3],
                                       .prefetch = v[4] != 0,
                                       .query_local = v[5]};
    return plan_of_shape(&shape, problem, caps);
}

/* Why there is no candidate. */
static bool refuse_widths(const clattn__attn_problem *problem, const clattn__caps *caps, clattn__refusal *why) {
    matrix_plan plan = {.waves = 0};
    for (size_t n = 0; n < CLATTN__COUNT(shapes); n++)
        if (is_for(&shapes[n], problem, caps)) plan = plan_of_shape(&shapes[n], problem, caps);
    if (plan.waves == 0)
        return clattn__refuse(why, "head_dim %lld and value_dim %lld are more columns than its registers hold",
                              (long long)problem->head_dim, (long long)problem->value_dim);
    return clattn__refuse(
        why,
        "its tiles for head_dim %lld and value_dim %lld need %zu bytes of local memory and %d work-items per "
        "group; the device has %llu (%d reserved) and %llu",
        (long long)problem->head_dim, (long long)problem->value_dim, plan.local_bytes, plan.items,
        (unsigned long long)caps->local_memory, CLATTN__MATRIX_RESERVE, (unsigned long long)caps->max_work_group);
}

static bool supports(const clattn__attn_problem *problem, const clattn__caps *caps, clattn__refusal *why) {
    if (!clattn__refuse_features(why, problem->features, clattn__attn_matrix.features)) return false;
    if (!clattn__matrix_serves(problem->dtype, caps, why)) return false;
    if (problem->head_dim % 8 != 0 || problem->value_dim % 8 != 0)
        return clattn__refuse(why, "head_dim %lld and value_dim %lld must be multiples of 8",
                              (long long)problem->head_dim, (long long)problem->value_dim);
    const int groups = value_groups(caps->matrix.engine, problem->value_dim);
    if (problem->value_dim % (8 * groups) != 0)
        return clattn__refuse(why, "value_dim %lld is shared out between %d groups and must be a multiple of %d",
                              (long long)problem->value_dim, groups, 8 * groups);
    clattn__candidates list = {0};
    candidates(problem, caps, &list);
    return list.count > 0 || refuse_widths(problem, caps, why);
}

static clattn_status build(clattn__attn_kernel *kernel, const matrix_plan *plan) {
    const clattn__caps *caps = &kernel->programs->env->device.caps;
    clattn__options options;
    clattn__options_start(&options);
    clattn__attn_problem own = kernel->problem;
    own.value_dim /= plan->value_groups;
    clattn__attn_options(&options, &own, caps);
    clattn__options_int(&options, "VALUE_GROUPS", plan->value_groups);
    clattn__options_int(&options, "WAVES", plan->waves);
    clattn__options_int(&options, "QT", plan->shape.query_tiles);
    clattn__options_int(&options, "BLOCK_KV", plan->shape.block_kv);
    clattn__options_int(&options, "STAGES", plan->shape.stages);
    clattn__options_int(&options, "PREFETCH", plan->shape.prefetch);
    clattn__options_int(&options, "QUERY_LOCAL", plan->shape.query_local);
    clattn__options_int(&options, "KEY_PARTS", kernel->part_keys > 0);
    clattn__matrix_options(&options, caps);
    clattn_status status = clattn__program_get(kernel->programs, "attn_matrix.cl", &options, &kernel->program);
    if (status == CLATTN_OK)
        status = clattn__kernel_create(kernel->programs, kernel->program, "attn_matrix", &kernel->kernel);
    return status;
}

/* Of a lane, from part to part of the keys: sums, and three words for each row of its own. A tile of sums has as many
 * of those as it has values per lane, or fewer. */
static size_t kept_bytes(const matrix_plan *plan, const clattn__attn_problem *problem, const clattn__caps *caps) {
    const clattn__matrix_engine *engine = clattn__matrix_engine_of(caps);
    const int64_t tiles = round_up(problem->value_dim / plan->value_groups, engine->n) / engine->n,
                  values = engine->m * engine->n / engine->lanes;
    return (size_t)(plan->shape.query_tiles * values * (tiles + 3) + 1) * 4;
}

static clattn_status prepare(clattn__attn_kernel *kernel) {
    const clattn__caps *caps = &kernel->programs->env->device.caps;
    const matrix_plan plan = plan_of_params(&kernel->params, &kernel->problem, caps);
    kernel->local_items[0] = (size_t)plan.items;
    kernel->local_items[1] = kernel->local_items[2] = 1;
    kernel->block_q = plan.block_q;
    kernel->block_kv = plan.shape.block_kv;
    kernel->value_groups = plan.value_groups;
    clattn__attn_set_parts(kernel);
    clattn_status status = build(kernel, &plan);
    if (status != CLATTN_OK) return status;
    const size_t most = clattn__kernel_most_items(kernel->programs, kernel->kernel);
    if ((size_t)plan.items > most)
        return clattn__fail(
            CLATTN_UNSUPPORTED,
            "attn_matrix: the built kernel runs with at most %zu work-items per group on %s; its tile needs %d", most,
            caps->name, plan.items);
    snprintf(kernel->tiles, sizeof kernel->tiles,
             "%d query rows x %d keys, %d waves of %d lanes with %d row tiles each, %zu bytes of local memory%s%s",
             plan.block_q, plan.shape.block_kv, plan.waves, clattn__matrix_engine_of(caps)->lanes,
             plan.shape.query_tiles, plan.local_bytes, caps->matrix.emulated ? ", emulated" : "",
             plan.value_groups > 1 ? ", columns of V shared out" : "");
    return clattn__attn_make_parts(kernel, kept_bytes(&plan, &kernel->problem, caps));
}

/* MMA_NEAR_ONLY of cl/inc/tile_mma.clh: offsets within a key block are 32-bit where registers have no room for more. */
static clattn_status enqueue(clattn__attn_kernel *kernel, const clattn__attn_call *call) {
    static const int64_t most = (int64_t)1 << 22;
    const clattn__matrix *matrix = &kernel->programs->env->device.caps.matrix;
    const bool near_only = !matrix->emulated && (matrix->arch == 75 || matrix->engine == MATRIX_MFMA32);
    if (near_only && (call->args.key.row > most || call->args.value.row > most))
        return clattn__fail(CLATTN_UNSUPPORTED,
                            "attn_matrix: key and value rows are %lld and %lld elements apart; on this engine it takes "
                            "at most %lld",
                            (long long)call->args.key.row, (long long)call->args.value.row, (long long)most);
    return clattn__attn_enqueue_tiles(kernel, call);
}

const clattn__attn_impl clattn__attn_matrix = {
    .name = "attn_matrix",
    .what = "matrix engines of NVIDIA, AMD and Intel GPUs, 16-bit storage",
    .features = CLATTN__CAUSAL | CLATTN__WINDOW | CLATTN__MASK_BOOL | CLATTN__MASK_FLOAT | CLATTN__PADDING |
                CLATTN__LENGTHS | CLATTN__SOFTCAP | CLATTN__ALIBI | CLATTN__SINKS | CLATTN__LSE | CLATTN__ALWAYS_KEYS |
                CLATTN__OFFSET_FROM_LENGTHS | CLATTN__DROPOUT | CLATTN__PREFIX | CLATTN__DOCUMENTS | CLATTN__VARLEN |
                CLATTN__CACHE_FEATURES,
    .has_rival = true,
    .uses_engine = true,
    .walks_parts = true,
    .rounds_weights = true,
    .supports = supports,
    .params = {"waves", "query_tiles", "block_kv", "stages", "prefetch", "query_local"},
    .candidates = candidates,
    .prepare = prepare,
    .enqueue = enqueue,
};
