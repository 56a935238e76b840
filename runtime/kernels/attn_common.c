/* What the host halves of all attention kernels share: refusals in words, build options, argument slots. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "kernels/impl.h"

bool clattn__refuse(clattn__refusal *why, const char *format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(why->text, sizeof why->text, format, values);
    va_end(values);
    return false;
}

typedef struct feature_row {
    uint32_t bit;
    const char *option; /* the -D name in the kernels */
    const char *text;
} feature_row;

static const feature_row feature_rows[] = {
#define FEATURE_ROW(name, bit, text) {CLATTN__##name, #name, text},
    CLATTN__FEATURE_MAP(FEATURE_ROW)
#undef FEATURE_ROW
};

void clattn__features_text(uint32_t features, char *text, size_t capacity) {
    if (capacity == 0) return;
    size_t used = (size_t)snprintf(text, capacity, "%s", features ? "" : "none");
    for (size_t i = 0; i < CLATTN__COUNT(feature_rows) && used < capacity; i++) {
        if (!(features & feature_rows[i].bit)) continue;
        int added = snprintf(text + used, capacity - used, "%s%s", used > 0 ? ", " : "", feature_rows[i].text);
        used += added > 0 ? (size_t)added : 0;
    }
}

bool clattn__refuse_features(clattn__refusal *why, uint32_t wanted, uint32_t supported) {
    uint32_t missing = wanted & ~supported;
    if (!missing) return true;
    char text[192];
    clattn__features_text(missing, text, sizeof text);
    return clattn__refuse(why, "not made for: %s", text);
}

void clattn__attn_kernel_clear(clattn__attn_kernel *kernel) {
    if (kernel->kernel) clReleaseKernel(kernel->kernel);
    if (kernel->merge) clReleaseKernel(kernel->merge);
    if (kernel->programs) clattn__buffer_clear(kernel->programs->env, &kernel->scratch);
    memset(kernel, 0, sizeof *kernel);
}

void clattn__attn_options(clattn__options *options, const clattn__attn_problem *problem, const clattn__caps *caps) {
    clattn__options_int(options, "HEAD_DIM", problem->head_dim);
    clattn__options_int(options, "VALUE_DIM", problem->value_dim);
    clattn__options_int(options, "STORAGE_F16", problem->dtype == CLATTN_F16);
    clattn__options_int(options, "STORAGE_BF16", problem->dtype == CLATTN_BF16);
    clattn__cell_options(options, problem->features & CLATTN__CELLS ? problem->cells : CLATTN_F32);
    for (size_t i = 0; i < CLATTN__COUNT(feature_rows); i++)
        clattn__options_int(options, feature_rows[i].option, (problem->features & feature_rows[i].bit) != 0);
    if (problem->precision == CLATTN_PRECISION_STRICT) clattn__options_flag(options, "PRECISION_STRICT");
    if (problem->precision == CLATTN_PRECISION_FAST) clattn__options_flag(options, "PRECISION_FAST");
    if (caps->quirks & CLATTN__QUIRK_NOINLINE_BODY) clattn__options_flag(options, "BODY_NOINLINE");
}

clattn_status clattn__attn_set_args(clattn__attn_kernel *kernel, const clattn__attn_call *call) {
    clattn__env *env = kernel->programs->env;
    const cl_uint end = kernel->impl->features & CLATTN__FEATURE_SLOTS ? ATTN_SLOTS : ATTN_FEATURE_SLOTS;
    clattn_status status = clattn__arg(env, kernel->kernel, ATTN_ARGS, sizeof call->args, &call->args);
    for (cl_uint slot = ATTN_ARGS + 1; slot < end && status == CLATTN_OK; slot++)
        status = clattn__arg_mem(env, kernel->kernel, slot, call->mem[slot]);
    return status;
}

/* ---- tiles ------------------------------------------------------------------------------------------------------ */

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static int groups_of_tile(const clattn__attn_kernel *kernel) { return kernel->value_groups ? kernel->value_groups : 1; }

/* Multiply-adds of a work-group for each key. */
static double key_cost(const clattn__attn_kernel *kernel) {
    const int64_t columns = kernel->problem.head_dim + kernel->problem.value_dim / groups_of_tile(kernel);
    return (double)kernel->block_q * (double)columns;
}

/* How many tiles a launch may hold whose work-groups walk so many keys. */
static int64_t launch_tiles(const clattn__attn_kernel *kernel, int64_t keys) {
    const double blocks = (double)kernel->block_kv * (double)ceil_div(keys, kernel->block_kv) + 1;
    return clattn__launch_tiles(&kernel->programs->env->device.caps, blocks * key_cost(kernel),
                                kernel->impl->uses_engine);
}

void clattn__attn_set_parts(clattn__attn_kernel *kernel) {
    const int64_t most = clattn__launch_keys(&kernel->programs->env->device.caps, key_cost(kernel),
                                             kernel->impl->uses_engine, kernel->local_items[0]);
    const int64_t blocks = most / kernel->block_kv;
    kernel->part_keys = most < kernel->problem.kv_len ? (blocks > 0 ? blocks : 1) * kernel->block_kv : 0;
}

clattn_status clattn__attn_keep_groups(clattn__attn_kernel *kernel, int64_t groups, size_t item_bytes) {
    const size_t used = strlen(kernel->tiles);
    snprintf(kernel->tiles + used, sizeof kernel->tiles - used, ", %lld keys in a launch",
             (long long)kernel->part_keys);
    kernel->kept_bytes = item_bytes * kernel->local_items[0];
    return clattn__buffer_create(kernel->programs->env, (size_t)(groups > 0 ? groups : 1) * kernel->kept_bytes,
                                 &kernel->scratch);
}

clattn_status clattn__attn_make_parts(clattn__attn_kernel *kernel, size_t item_bytes) {
    if (!kernel->part_keys) return CLATTN_OK;
    const clattn__attn_problem *p = &kernel->problem;
    const int64_t tiles = p->batch * p->query_heads * ceil_div(p->query_len, kernel->block_q) * groups_of_tile(kernel);
    return clattn__attn_keep_groups(kernel, least(tiles, launch_tiles(kernel, kernel->part_keys)), item_bytes);
}

/* The launches of some work-groups: one for each head and part of the keys. */
static clattn_status enqueue_parts(clattn__attn_kernel *kernel, const clattn__attn_launches *all,
                                   const clattn__launch *launch) {
    clattn__env *env = kernel->programs->env;
    clattn_status status = CLATTN_OK;
    for (int head = 0; head < all->heads; head++)
        for (int64_t from = 0; status == CLATTN_OK && (from == 0 || from < all->walk); from += all->keys) {
            const clattn_key_part part = {(int)from, from + all->keys < all->walk ? (int)(from + all->keys) : INT_MAX,
                                          head};
            if (kernel->part_keys) status = clattn__arg(env, kernel->kernel, ATTN_PART, sizeof part, &part);
            if (status == CLATTN_OK) status = clattn__launch_enqueue(env, launch);
        }
    return status;
}

int64_t clattn__attn_part_of(const clattn__attn_kernel *kernel, const clattn__attn_call *call, int64_t walk) {
    if (!kernel->part_keys || call->unshared) return walk > 0 ? walk : 1;
    const int64_t blocks = ceil_div(call->args.kv_len > 0 ? call->args.kv_len : 1, kernel->block_kv);
    return least(kernel->part_keys, kernel->block_kv * ceil_div(blocks, 2));
}

clattn_status clattn__attn_enqueue_groups(clattn__attn_kernel *kernel, const clattn__attn_call *call,
                                          const clattn__attn_launches *all) {
    clattn__env *env = kernel->programs->env;
    int64_t chunk = all->at_once;
    if (kernel->part_keys) chunk = least(chunk, (int64_t)(kernel->scratch.bytes / kernel->kept_bytes));

    clattn_status status = clattn__attn_set_args(kernel, call);
    if (kernel->part_keys && status == CLATTN_OK)
        status = clattn__arg_mem(env, kernel->kernel, ATTN_KEPT, kernel->scratch.mem);
    for (clattn_i64 first = 0; first < all->groups && status == CLATTN_OK; first += chunk) {
        clattn__launch launch = {.kernel = kernel->kernel, .dims = 1, .local = {kernel->local_items[0], 1, 1}};
        launch.global[0] = (size_t)least(chunk, all->groups - first) * kernel->local_items[0];
        status = clattn__arg(env, kernel->kernel, ATTN_FIRST, sizeof first, &first);
        if (status == CLATTN_OK) status = enqueue_parts(kernel, all, &launch);
    }
    return status;
}

clattn_status clattn__attn_enqueue_tiles(clattn__attn_kernel *kernel, const clattn__attn_call *call) {
    const clattn_attn_args *args = &call->args;
    const int64_t tiles = (int64_t)args->batch * args->query_heads * ceil_div(args->query_len, kernel->block_q);
    const int64_t keys = clattn__attn_part_of(kernel, call, args->kv_len);
    const clattn__attn_launches all = {.groups = tiles * groups_of_tile(kernel),
                                       .at_once = launch_tiles(kernel, keys),
                                       .walk = args->kv_len,
                                       .keys = keys,
                                       .heads = 1};
    return clattn__attn_enqueue_groups(kernel, call, &all);
}
