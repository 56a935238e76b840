/* Host half of cl/attn_naive.cl: one work-item per query row, every feature, any device. */
#include <stdio.h>

#include "kernels/impl.h"

/* Multiply-adds per clock and compute unit, low: its rows are read from memory and its sums lie there. */
#define PER_CLOCK 0.2
#define ITEMS_PER_GROUP 64

static bool supports(const clattn__attn_problem *problem, const clattn__caps *caps, clattn__refusal *why) {
    (void)caps;
    return clattn__refuse_features(why, problem->features, clattn__attn_naive.features);
}

static clattn_status prepare(clattn__attn_kernel *kernel) {
    const clattn__attn_problem *problem = &kernel->problem;
    clattn__env *env = kernel->programs->env;
    clattn__options options;
    clattn__options_start(&options);
    clattn__attn_options(&options, problem, &env->device.caps);
    clattn__options_int(&options, "SCORES_MODE", problem->scores);
    clattn_status status = clattn__program_get(kernel->programs, "attn_naive.cl", &options, &kernel->program);
    if (status == CLATTN_OK)
        status = clattn__kernel_create(kernel->programs, kernel->program, "attn_naive", &kernel->kernel);
    if (status != CLATTN_OK) return status;

    uint64_t most = env->device.caps.max_work_group;
    kernel->local_items[0] = most > 0 && most < ITEMS_PER_GROUP ? (size_t)most : ITEMS_PER_GROUP;
    kernel->local_items[1] = kernel->local_items[2] = 1;
    kernel->block_q = (int)kernel->local_items[0];
    kernel->block_kv = 1;
    snprintf(kernel->tiles, sizeof kernel->tiles, "one query row per work-item, %zu work-items per group",
             kernel->local_items[0]);
    return CLATTN_OK;
}

static clattn_status enqueue(clattn__attn_kernel *kernel, const clattn__attn_call *call) {
    clattn__env *env = kernel->programs->env;
    const clattn_attn_args *args = &call->args;
    const bool averaged = (kernel->problem.features & CLATTN__AVERAGED_WEIGHTS) != 0;
    const int64_t heads_per_item = averaged ? args->query_heads : 1;
    const int64_t rows = (int64_t)args->batch * args->query_len * (averaged ? 1 : args->query_heads);
    const int64_t group = (int64_t)kernel->local_items[0];
    const int64_t row_cost =
        heads_per_item * (args->kv_len + 1) * (kernel->problem.head_dim + kernel->problem.value_dim);
    const int64_t chunk = group * clattn__launch_units(&env->device.caps, (double)row_cost * (double)group, PER_CLOCK);

    clattn_status status = clattn__attn_set_args(kernel, call);
    for (clattn_i64 first = 0; first < rows && status == CLATTN_OK; first += chunk) {
        const int64_t left = rows - first < chunk ? rows - first : chunk;
        clattn__launch launch = {
            .kernel = kernel->kernel, .dims = 1, .global = {0, 1, 1}, .local = {(size_t)group, 1, 1}};
        launch.global[0] = (size_t)((left + group - 1) / group * group);
        status = clattn__arg(env, kernel->kernel, ATTN_FIRST, sizeof first, &first);
        if (status == CLATTN_OK) status = clattn__launch_enqueue(env, &launch);
    }
    return status;
}

const clattn__attn_impl clattn__attn_naive = {
    .name = "attn_naive",
    .what = "one work-item per query row, OpenCL 1.2 without local memory",
    .features = CLATTN__CAUSAL | CLATTN__WINDOW | CLATTN__MASK_BOOL | CLATTN__MASK_FLOAT | CLATTN__PADDING |
                CLATTN__LENGTHS | CLATTN__SOFTCAP | CLATTN__ALIBI | CLATTN__SINKS | CLATTN__LSE | CLATTN__WEIGHTS |
                CLATTN__AVERAGED_WEIGHTS | CLATTN__SCORES | CLATTN__ALWAYS_KEYS | CLATTN__OFFSET_FROM_LENGTHS |
                CLATTN__SCORE_KINDS | CLATTN__DROPOUT | CLATTN__PREFIX | CLATTN__DOCUMENTS | CLATTN__VARLEN |
                CLATTN__CACHE_FEATURES,
    .supports = supports,
    .prepare = prepare,
    .enqueue = enqueue,
};
