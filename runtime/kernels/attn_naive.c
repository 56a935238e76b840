/* Host half of cl/attn_naive.cl: one work-item per query row, every feature, any device. */
#include <stdio.h>

#include "kernels/impl.h"

/* Multiply-adds per clock and compute unit, low: its rows are read from memory and its sums lie there. */
#define PER_CLOCK 0.2
#define ITEMS_PER_GROUP 64
/* Kept from part to part of the keys beside the sums: row_softmax of the kernel. */
#define KEPT_WORDS 4

static bool supports(const clattn__attn_problem *problem, const clattn__caps *caps, clattn__refusal *why) {
    (void)caps;
    return clattn__refuse_features(why, problem->features, clattn__attn_naive.features);
}

static bool is_averaged(const clattn__attn_kernel *kernel) {
    return (kernel->problem.features & CLATTN__AVERAGED_WEIGHTS) != 0;
}

/* How many keys an item walks for each head: weights take a second look at all of them. */
static int64_t walk_of(const clattn__attn_problem *problem, int64_t kv_len) {
    const bool weights = problem->features & (CLATTN__WEIGHTS | CLATTN__AVERAGED_WEIGHTS);
    const bool scores = problem->features & CLATTN__SCORES && problem->scores == CLATTN_SCORES_SOFTMAX;
    return weights || scores ? 2 * kv_len : kv_len;
}

static int64_t groups_of(const clattn__attn_kernel *kernel, int64_t batch, int64_t query_heads, int64_t query_len) {
    const int64_t rows = batch * query_len * (is_averaged(kernel) ? 1 : query_heads), group = kernel->block_q;
    return (rows + group - 1) / group;
}

/* Multiply-adds of a work-group for each key. */
static double key_cost(const clattn__attn_kernel *kernel) {
    return (double)kernel->block_q * (double)(kernel->problem.head_dim + kernel->problem.value_dim);
}

/* As many for each unit: one more would take it as long again. */
static int64_t groups_at_once(const clattn__attn_kernel *kernel, int64_t keys) {
    const clattn__caps *caps = &kernel->programs->env->device.caps;
    const int64_t units = caps->compute_units ? caps->compute_units : 1;
    const int64_t each = clattn__launch_unit(caps, (double)(keys + 1) * key_cost(kernel), PER_CLOCK);
    return each < INT32_MAX ? each * units : each;
}

static void set_parts(clattn__attn_kernel *kernel) {
    const clattn__attn_problem *p = &kernel->problem;
    const int64_t most = clattn__launch_unit(&kernel->programs->env->device.caps, key_cost(kernel), PER_CLOCK);
    const int64_t heads = is_averaged(kernel) ? p->query_heads : 1;
    const int64_t walk = walk_of(p, p->kv_len); /* parts are counted in int */
    kernel->part_keys = most < heads * walk && walk <= INT32_MAX ? most : 0;
}

static clattn_status prepare(clattn__attn_kernel *kernel) {
    const clattn__attn_problem *problem = &kernel->problem;
    clattn__env *env = kernel->programs->env;
    const uint64_t most = env->device.caps.max_work_group;
    kernel->local_items[0] = most > 0 && most < ITEMS_PER_GROUP ? (size_t)most : ITEMS_PER_GROUP;
    kernel->local_items[1] = kernel->local_items[2] = 1;
    kernel->block_q = (int)kernel->local_items[0];
    kernel->block_kv = 1;
    set_parts(kernel);

    clattn__options options;
    clattn__options_start(&options);
    clattn__attn_options(&options, problem, &env->device.caps);
    clattn__options_int(&options, "SCORES_MODE", problem->scores);
    clattn__options_int(&options, "KEY_PARTS", kernel->part_keys > 0);
    clattn_status status = clattn__program_get(kernel->programs, "attn_naive.cl", &options, &kernel->program);
    if (status == CLATTN_OK)
        status = clattn__kernel_create(kernel->programs, kernel->program, "attn_naive", &kernel->kernel);
    if (status != CLATTN_OK) return status;

    snprintf(kernel->tiles, sizeof kernel->tiles, "one query row per work-item, %zu work-items per group",
             kernel->local_items[0]);
    if (!kernel->part_keys) return CLATTN_OK;
    const int64_t groups = groups_of(kernel, problem->batch, problem->query_heads, problem->query_len);
    const int64_t at_once = groups_at_once(kernel, kernel->part_keys);
    return clattn__attn_keep_groups(kernel, groups < at_once ? groups : at_once,
                                    (KEPT_WORDS + (size_t)problem->value_dim) * sizeof(float));
}

/* Averaged heads are walked by the same items: one after the other, or in parts, a head in each launch. */
static clattn_status enqueue(clattn__attn_kernel *kernel, const clattn__attn_call *call) {
    const clattn_attn_args *args = &call->args;
    const int heads = is_averaged(kernel) ? args->query_heads : 1;
    const int64_t walk = walk_of(&kernel->problem, args->kv_len);
    const int64_t keys = clattn__attn_part_of(kernel, call, walk);
    const clattn__attn_launches all = {
        .groups = groups_of(kernel, args->batch, args->query_heads, args->query_len),
        .at_once = groups_at_once(kernel, kernel->part_keys ? keys : heads * keys),
        .walk = walk,
        .keys = keys,
        .heads = kernel->part_keys ? heads : 1,
    };
    return clattn__attn_enqueue_groups(kernel, call, &all);
}

const clattn__attn_impl clattn__attn_naive = {
    .name = "attn_naive",
    .what = "one work-item per query row, OpenCL 1.2 without local memory",
    .features = CLATTN__CAUSAL | CLATTN__WINDOW | CLATTN__MASK_BOOL | CLATTN__MASK_FLOAT | CLATTN__PADDING |
                CLATTN__LENGTHS | CLATTN__SOFTCAP | CLATTN__ALIBI | CLATTN__SINKS | CLATTN__LSE | CLATTN__WEIGHTS |
                CLATTN__AVERAGED_WEIGHTS | CLATTN__SCORES | CLATTN__ALWAYS_KEYS | CLATTN__OFFSET_FROM_LENGTHS |
                CLATTN__SCORE_KINDS | CLATTN__DROPOUT | CLATTN__PREFIX | CLATTN__DOCUMENTS | CLATTN__VARLEN |
                CLATTN__CACHE_FEATURES,
    .walks_parts = true,
    .supports = supports,
    .prepare = prepare,
    .enqueue = enqueue,
};
