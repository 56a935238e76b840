#include "base/base.h"
#include "clattn/kv_cache.h"
#include "clattn/layers.h"
#include "clattn/mha.h"
#include "clattn/softmax.h"
#include "clattn/tune.h"
#include "clattn/verify.h"

#include <string.h>

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {[CLATTN_F32] = {"float32", 4}, [CLATTN_F16] = {"float16", 2}, [CLATTN_BF16] = {"bfloat16", 2},
              [CLATTN_BOOL] = {"bool", 1},   [CLATTN_I32] = {"int32", 4},   [CLATTN_I64] = {"int64", 8},
              [CLATTN_I8] = {"int8", 1}};

static bool known(clattn_dtype dtype) { return (int)dtype >= 0 && (size_t)dtype < CLATTN__COUNT(dtypes); }

size_t clattn_dtype_size(clattn_dtype dtype) { return known(dtype) ? dtypes[dtype].size : 0; }
const char *clattn_dtype_name(clattn_dtype dtype) { return known(dtype) ? dtypes[dtype].name : "?"; }

clattn_tensor clattn_host(const void *data, clattn_dtype dtype, int rank, int64_t n0, int64_t n1, int64_t n2,
                          int64_t n3) {
    clattn_tensor tensor = {.data = (void *)(uintptr_t)data, .dtype = dtype, .rank = rank, .shape = {n0, n1, n2, n3}};
    for (int i = rank < 0 ? 0 : rank; i < CLATTN_MAX_RANK; i++) tensor.shape[i] = 0;
    return tensor;
}

const char *clattn_version(void) { return CLATTN_VERSION; }

/* Descriptor defaults. An older caller's struct is shorter: only its part is written. */
static void init_sized(void *to, size_t caller_size, const void *defaults, size_t size) {
    if (!to) return;
    memset(to, 0, caller_size);
    memcpy(to, defaults, caller_size < size ? caller_size : size);
}

void clattn_attention_desc_init_sized(clattn_attention_desc *desc, size_t caller_size) {
    const clattn_attention_desc defaults = {
        .struct_size = caller_size, .temperature = 1.0f, .window_left = -1, .window_right = -1};
    init_sized(desc, caller_size, &defaults, sizeof defaults);
}

void clattn_mha_desc_init_sized(clattn_mha_desc *desc, size_t caller_size) {
    const clattn_mha_desc defaults = {.struct_size = caller_size};
    init_sized(desc, caller_size, &defaults, sizeof defaults);
}

void clattn_softmax_desc_init_sized(clattn_softmax_desc *desc, size_t caller_size) {
    const clattn_softmax_desc defaults = {.struct_size = caller_size, .axis = -1, .temperature = 1.0f};
    init_sized(desc, caller_size, &defaults, sizeof defaults);
}

void clattn_linear_desc_init_sized(clattn_linear_desc *desc, size_t caller_size) {
    const clattn_linear_desc defaults = {.struct_size = caller_size};
    init_sized(desc, caller_size, &defaults, sizeof defaults);
}

void clattn_norm_desc_init_sized(clattn_norm_desc *desc, size_t caller_size) {
    const clattn_norm_desc defaults = {.struct_size = caller_size, .eps = 1e-5f};
    init_sized(desc, caller_size, &defaults, sizeof defaults);
}

void clattn_activation_desc_init_sized(clattn_activation_desc *desc, size_t caller_size) {
    const clattn_activation_desc defaults = {.struct_size = caller_size};
    init_sized(desc, caller_size, &defaults, sizeof defaults);
}

void clattn_positions_desc_init_sized(clattn_positions_desc *desc, size_t caller_size) {
    const clattn_positions_desc defaults = {
        .struct_size = caller_size, .kind = CLATTN_POSITIONS_SINUSOIDAL, .base = 10000};
    init_sized(desc, caller_size, &defaults, sizeof defaults);
}

void clattn_stack_desc_init_sized(clattn_stack_desc *desc, size_t caller_size) {
    const clattn_stack_desc defaults = {
        .struct_size = caller_size, .activation = CLATTN_ACTIVATION_RELU, .eps = 1e-5f, .position_base = 10000};
    init_sized(desc, caller_size, &defaults, sizeof defaults);
}

void clattn_rope_desc_init_sized(clattn_rope_desc *desc, size_t caller_size) {
    const clattn_rope_desc defaults = {.struct_size = caller_size, .base = 10000};
    init_sized(desc, caller_size, &defaults, sizeof defaults);
}

void clattn_kv_cache_desc_init_sized(clattn_kv_cache_desc *desc, size_t caller_size) {
    const clattn_kv_cache_desc defaults = {.struct_size = caller_size, .page_size = 16};
    init_sized(desc, caller_size, &defaults, sizeof defaults);
}

void clattn_tune_options_init_sized(clattn_tune_options *options, size_t caller_size) {
    const clattn_tune_options defaults = {.struct_size = caller_size};
    init_sized(options, caller_size, &defaults, sizeof defaults);
}

void clattn_context_options_init_sized(clattn_context_options *options, size_t caller_size) {
    const clattn_context_options defaults = {.struct_size = caller_size};
    init_sized(options, caller_size, &defaults, sizeof defaults);
}

void clattn_verify_options_init_sized(clattn_verify_options *options, size_t caller_size) {
    const clattn_verify_options defaults = {.struct_size = caller_size};
    init_sized(options, caller_size, &defaults, sizeof defaults);
}
