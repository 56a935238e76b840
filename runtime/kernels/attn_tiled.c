/* Host half of cl/attn_tiled.cl: local-memory tiles for any GPU. Chooses the tile shape from the device's limits. */
#include <stdio.h>

#include "kernels/impl.h"

#define KEYS_PER_ITEM 4
/* An item holds rows x columns output values in registers; above this many, compilers begin to spill. */
#define MOST_SUMS_PER_ITEM 64
/* With sub-groups of 8, a thread of Intel's GPUs has 128 registers of 8 lanes: in groups 32 items wide that is room for
 * so many beside the rest. */
#define MOST_SUMS_PER_WIDE_ITEM 32
#define MOST_ROWS_PER_ITEM 4
#define MOST_VALUE_KEYS 32
/* Vectors that an item keeps from part to part of the keys, beside its sums: KEPT of the kernel. */
#define KEPT_ROWS 3
/* Left free in local memory: drivers keep launch arguments and their own words there. */
#define LOCAL_RESERVE 128

/* Work-group shapes, best first. The first that fits the device is taken. */
static const struct tile_shape {
    int x, y, depth;
    int most_columns; /* value_dim up to which the shape is worth it, or has registers for it */
} tile_shapes[] = {
    {8, 16, 32, 32},   /* few output columns: 16 items across would idle */
    {16, 16, 32, 256}, /* 64 x 64 scores, about 35 KB */
    {16, 16, 16, 256}, /* 27 KB: fits 32 KB devices */
    {32, 8, 16, 512},  /* 30 KB up to 512 columns */
    {8, 8, 32, 128},   /* 32 x 32 scores, 14 KB, 64 work-items */
    {8, 8, 16, 128},   /* 10 KB */
    {16, 4, 16, 256},  /* 14 KB, 64 work-items */
    {32, 2, 16, 512},
};

typedef struct tile_plan {
    int x, y;                    /* work-items */
    int rows, depth, value_keys; /* as documented in cl/attn_tiled.cl */
    int block_q, block_kv;
    size_t area_floats, local_bytes;
} tile_plan;

static int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

static tile_plan plan_of_shape(const struct tile_shape *shape, const clattn__attn_problem *problem,
                               const clattn__caps *caps) {
    tile_plan plan = {.x = shape->x, .y = shape->y, .rows = MOST_ROWS_PER_ITEM};
    const int columns = (int)round_up(problem->value_dim, 4 * shape->x);
    const int columns_per_item = columns / shape->x;
    const bool few_registers = shape->x >= 32 && caps->type == CLATTN_DEVICE_GPU && caps->subgroup_lanes == 8;
    const int most_sums = few_registers ? MOST_SUMS_PER_WIDE_ITEM : MOST_SUMS_PER_ITEM;
    while (plan.rows > 1 &&
           (plan.rows * columns_per_item > most_sums || plan.y * (plan.rows / 2) >= problem->query_len))
        plan.rows /= 2;
    plan.block_q = plan.y * plan.rows;
    plan.block_kv = plan.x * KEYS_PER_ITEM;
    const int depth = (int)round_up(problem->head_dim, 4);
    plan.depth = depth < shape->depth ? depth : shape->depth;

    /* The area holds slices of Q and K, then a table of row maxima, then as many rows of V as have room there. */
    size_t area = (size_t)plan.block_q * (size_t)(plan.depth + 4) + (size_t)plan.depth * (size_t)(plan.block_kv + 4);
    const size_t table = (size_t)plan.x * (size_t)plan.y * 4;
    if (area < table) area = table;
    plan.value_keys = plan.block_kv < MOST_VALUE_KEYS ? plan.block_kv : MOST_VALUE_KEYS;
    /* sub-groups that share rows of weights need as many keys as they have lanes */
    const int fewest_keys = caps->subgroup_lanes > 4 && caps->type == CLATTN_DEVICE_GPU ? caps->subgroup_lanes : 4;
    while (plan.value_keys > fewest_keys && (size_t)plan.value_keys * (size_t)columns > area) plan.value_keys /= 2;
    if (area < (size_t)plan.value_keys * (size_t)columns) area = (size_t)plan.value_keys * (size_t)columns;
    plan.area_floats = area;
    plan.local_bytes = (area + (size_t)plan.block_q * (size_t)(plan.block_kv + 4) + 4) * sizeof(float);
    return plan;
}

static bool fits(const tile_plan *plan, const clattn__caps *caps) {
    const uint64_t items = (uint64_t)plan->x * (uint64_t)plan->y;
    return items <= caps->max_work_group && items <= caps->max_item_sizes[0] &&
           plan->local_bytes + LOCAL_RESERVE <= caps->local_memory;
}

static bool is_worth(const struct tile_shape *shape, const clattn__attn_problem *problem) {
    return problem->value_dim <= shape->most_columns;
}

static tile_plan plan_of_params(const clattn__params *params, const clattn__attn_problem *problem,
                                const clattn__caps *caps) {
    return plan_of_shape(&(struct tile_shape){params->value[0], params->value[1], params->value[2], 0}, problem, caps);
}

/* All groups of an AMD unit share what one group may have: two with shallower slices hide more than one with deep
 * ones. */
static bool is_shared(const tile_plan *plan, const clattn__caps *caps) {
    return caps->vendor == CLATTN__VENDOR_AMD && caps->type == CLATTN_DEVICE_GPU &&
           2 * (plan->local_bytes + LOCAL_RESERVE) > caps->local_memory;
}

static void candidates(const clattn__attn_problem *problem, const clattn__caps *caps, clattn__candidates *list) {
    for (size_t n = 0; n < CLATTN__COUNT(tile_shapes); n++) {
        const struct tile_shape *shape = &tile_shapes[n];
        const tile_plan plan = plan_of_shape(shape, problem, caps);
        if (is_worth(shape, problem) && fits(&plan, caps))
            clattn__candidates_add(list, (clattn__params){{shape->x, shape->y, shape->depth}});
    }
    if (list->count < 2) return;
    const tile_plan first = plan_of_params(&list->set[0], problem, caps),
                    second = plan_of_params(&list->set[1], problem, caps);
    const clattn__params shallower = list->set[1];
    if (is_shared(&first, caps) && !is_shared(&second, caps) && first.x == second.x && first.y == second.y)
        clattn__candidates_prefer(list, &shallower);
}

static bool supports(const clattn__attn_problem *problem, const clattn__caps *caps, clattn__refusal *why) {
    if (!clattn__refuse_features(why, problem->features, clattn__attn_tiled.features)) return false;
    clattn__candidates list = {0};
    candidates(problem, caps, &list);
    if (list.count > 0) return true;
    const tile_plan plan = plan_of_shape(&tile_shapes[CLATTN__COUNT(tile_shapes) - 1], problem, caps);
    return clattn__refuse(why,
                          "the smallest tile for value_dim %lld needs %zu bytes of local memory and %d work-items per "
                          "group; the device has %llu (%d reserved) and %llu",
                          (long long)problem->value_dim, plan.local_bytes, plan.x * plan.y,
                          (unsigned long long)caps->local_memory, LOCAL_RESERVE,
                          (unsigned long long)caps->max_work_group);
}

static clattn_status build(clattn__attn_kernel *kernel, const tile_plan *plan) {
    clattn__options options;
    clattn__options_start(&options);
    clattn__attn_options(&options, &kernel->problem, &kernel->programs->env->device.caps);
    clattn__options_int(&options, "TILE_X", plan->x);
    clattn__options_int(&options, "TILE_Y", plan->y);
    clattn__options_int(&options, "ROWS", plan->rows);
    clattn__options_int(&options, "DEPTH", plan->depth);
    clattn__options_int(&options, "VALUE_KEYS", plan->value_keys);
    clattn__options_int(&options, "AREA_FLOATS", (long long)plan->area_floats);
    clattn__options_int(&options, "KEY_PARTS", kernel->part_keys > 0);
    clattn__subgroup_options(&options, &kernel->programs->env->device.caps);
    clattn_status status = clattn__program_get(kernel->programs, "attn_tiled.cl", &options, &kernel->program);
    if (status == CLATTN_OK)
        status = clattn__kernel_create(kernel->programs, kernel->program, "attn_tiled", &kernel->kernel);
    return status;
}

static clattn_status prepare(clattn__attn_kernel *kernel) {
    const tile_plan plan = plan_of_params(&kernel->params, &kernel->problem, &kernel->programs->env->device.caps);
    const size_t items = (size_t)plan.x * (size_t)plan.y;
    kernel->local_items[0] = items;
    kernel->local_items[1] = kernel->local_items[2] = 1;
    kernel->block_q = plan.block_q;
    kernel->block_kv = plan.block_kv;
    clattn__attn_set_parts(kernel);
    clattn_status status = build(kernel, &plan);
    if (status != CLATTN_OK) return status;
    const size_t most = clattn__kernel_most_items(kernel->programs, kernel->kernel);
    if (items > most) /* too many registers */
        return clattn__fail(CLATTN_UNSUPPORTED,
                            "attn_tiled: the built kernel runs with at most %zu work-items per group on %s; "
                            "its smallest tile needs %zu",
                            most, kernel->programs->env->device.caps.name, items);
    snprintf(kernel->tiles, sizeof kernel->tiles,
             "%d query rows x %d keys, %d x %d work-items with %d rows each, %zu bytes of local memory", plan.block_q,
             plan.block_kv, plan.x, plan.y, plan.rows, plan.local_bytes);
    const size_t vectors = (size_t)round_up(kernel->problem.value_dim, 4 * plan.x) / (4 * (size_t)plan.x);
    return clattn__attn_make_parts(kernel, (vectors * (size_t)plan.rows + KEPT_ROWS) * 16);
}

const clattn__attn_impl clattn__attn_tiled = {
    .name = "attn_tiled",
    .what = "tiles in local memory, OpenCL 1.2, for any GPU",
    .features = CLATTN__CAUSAL | CLATTN__WINDOW | CLATTN__MASK_BOOL | CLATTN__MASK_FLOAT | CLATTN__PADDING |
                CLATTN__LENGTHS | CLATTN__SOFTCAP | CLATTN__ALIBI | CLATTN__SINKS | CLATTN__LSE | CLATTN__ALWAYS_KEYS |
                CLATTN__OFFSET_FROM_LENGTHS | CLATTN__DROPOUT | CLATTN__PREFIX | CLATTN__DOCUMENTS | CLATTN__VARLEN |
                CLATTN__CACHE_FEATURES,
    .walks_parts = true,
    .supports = supports,
    .params = {"items_x", "items_y", "depth"},
    .candidates = candidates,
    .prepare = prepare,
    .enqueue = clattn__attn_enqueue_tiles,
};
