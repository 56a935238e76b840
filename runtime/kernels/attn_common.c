/* What the host halves of all attention kernels share: refusals in words, build options, argument slots. */
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

static int64_t tiles_of(int64_t rows, int64_t block) { return (rows + block - 1) / block; }

clattn_status clattn__attn_enqueue_tiles(clattn__attn_kernel *kernel, const clattn__attn_call *call) {
    clattn__env *env = kernel->programs->env;
    const clattn_attn_args *args = &call->args;
    const int64_t tiles = (int64_t)args->batch * args->query_heads * (tiles_of(args->query_len, kernel->block_q));
    const int64_t tile_cost = (int64_t)kernel->block_q *
                              ((int64_t)kernel->block_kv * tiles_of(args->kv_len, kernel->block_kv) + 1) *
                              (kernel->problem.head_dim + kernel->problem.value_dim);
    const int64_t chunk = clattn__launch_units(&env->device.caps, (double)tile_cost, CLATTN__TILES_PER_CLOCK);

    clattn_status status = clattn__attn_set_args(kernel, call);
    for (clattn_i64 first = 0; first < tiles && status == CLATTN_OK; first += chunk) {
        const int64_t count = tiles - first < chunk ? tiles - first : chunk;
        clattn__launch launch = {.kernel = kernel->kernel, .dims = 1, .global = {0, 1, 1}, .local = {0, 1, 1}};
        launch.local[0] = kernel->local_items[0];
        launch.global[0] = (size_t)count * kernel->local_items[0];
        status = clattn__arg(env, kernel->kernel, ATTN_FIRST, sizeof first, &first);
        if (status == CLATTN_OK) status = clattn__launch_enqueue(env, &launch);
    }
    return status;
}
