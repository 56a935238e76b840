/* Every kernel of the registry over the variants that a user is likely to meet: one list for all that go through them.
 * Whether a device is given a variant is for the visitor to ask. */
#include "clattn/layers.h"
#include "registry/registry.h"

#include <string.h>

static const struct {
    int head_dim, value_dim;
} dims[] = {{64, 64}, {128, 128}, {32, 32}, {80, 80}, {33, 20}, {1, 1}, {512, 512}};

#define MOST_TERMS (CLATTN__CAUSAL | CLATTN__WINDOW | CLATTN__SOFTCAP | CLATTN__ALIBI | CLATTN__SINKS)
#define CACHE (CLATTN__CAUSAL | CLATTN__LENGTHS | CLATTN__OFFSET_FROM_LENGTHS | CLATTN__PAGED | CLATTN__CELLS)
static const uint32_t feature_sets[] = {
    0,
    CLATTN__CAUSAL,
    CLATTN__CAUSAL | CLATTN__LSE | CLATTN__PADDING,
    CLATTN__MASK_FLOAT | CLATTN__LSE,
    CLATTN__MASK_BOOL | CLATTN__PADDING,
    MOST_TERMS,
    CLATTN__LENGTHS | CLATTN__CAUSAL | CLATTN__OFFSET_FROM_LENGTHS,
    CLATTN__WEIGHTS | CLATTN__CAUSAL,
    CLATTN__AVERAGED_WEIGHTS | CLATTN__PADDING | CLATTN__ALWAYS_KEYS,
    CLATTN__SCORES | CLATTN__MASK_BOOL,
    CLATTN__SCORE_GAUSSIAN | CLATTN__SCORE_WEIGHT | CLATTN__LSE,
    CLATTN__SCORE_ADDITIVE | CLATTN__SCORE_WEIGHT | CLATTN__SCORE_BIAS,
    CLATTN__SCORE_LINEAR | CLATTN__SCORE_WEIGHT | CLATTN__WEIGHTS,
    CLATTN__DROPOUT | CLATTN__CAUSAL,
    CLATTN__CAUSAL | CLATTN__PREFIX | CLATTN__DOCUMENTS | CLATTN__LSE,
    CLATTN__CAUSAL | CLATTN__VARLEN | CLATTN__LSE,
    CLATTN__CAUSAL | CLATTN__LENGTHS | CLATTN__OFFSET_FROM_LENGTHS | CLATTN__PAGED,
    CLATTN__CAUSAL | CLATTN__LENGTHS | CLATTN__OFFSET_FROM_LENGTHS | CLATTN__WINDOW | CLATTN__RING,
    CLATTN__LENGTHS | CLATTN__PAGED | CLATTN__CELLS,
};

/* The brief form: every feature of every kernel in as few programs as that takes. A kernel refuses a row that holds
 * anything it does not have, so rows hold together what the same kernels have. */
static const struct {
    uint32_t features;
    clattn_dtype dtype;
    int head_dim, value_dim;
} brief_rows[] = {
    {CLATTN__CAUSAL | CLATTN__LSE, CLATTN_F16, 64, 64},
    {MOST_TERMS, CLATTN_BF16, 32, 40},
    {CLATTN__MASK_FLOAT | CLATTN__PADDING | CLATTN__LSE, CLATTN_F32, 33, 20},
    {CLATTN__MASK_BOOL | CLATTN__PADDING | CLATTN__ALWAYS_KEYS, CLATTN_F16, 24, 32},
    {CLATTN__MASK_BOOL | CLATTN__LENGTHS | CLATTN__CAUSAL | CLATTN__OFFSET_FROM_LENGTHS, CLATTN_F16, 32, 32},
    {CLATTN__MASK_FLOAT | CLATTN__CAUSAL | CLATTN__PREFIX | CLATTN__DOCUMENTS | CLATTN__DROPOUT, CLATTN_BF16, 32, 32},
    {CLATTN__CAUSAL | CLATTN__VARLEN | CLATTN__LSE, CLATTN_F16, 32, 32},
    {CLATTN__CAUSAL | CLATTN__LENGTHS | CLATTN__PAGED | CLATTN__CELLS, CLATTN_F32, 32, 32},
    {CLATTN__CAUSAL | CLATTN__LENGTHS | CLATTN__OFFSET_FROM_LENGTHS | CLATTN__RING, CLATTN_F16, 32, 32},
    {CLATTN__CAUSAL | CLATTN__LENGTHS | CLATTN__PAGED | CLATTN__CELLS, CLATTN_BF16, 32, 32},
    {CLATTN__WEIGHTS | CLATTN__SCORES | CLATTN__CAUSAL, CLATTN_F32, 33, 20},
    {CLATTN__AVERAGED_WEIGHTS | CLATTN__SCORE_GAUSSIAN | CLATTN__SCORE_WEIGHT, CLATTN_F32, 32, 32},
    {CLATTN__SCORE_ADDITIVE | CLATTN__SCORE_WEIGHT | CLATTN__SCORE_BIAS, CLATTN_F32, 32, 32},
    {CLATTN__SCORE_LINEAR | CLATTN__SCORE_WEIGHT, CLATTN_F32, 32, 32},
};

static const clattn__gemm_problem gemms[] = {
    {.m = 134, .n = 384, .k = 384, .width = 64, .split_heads = true, .bias = true},
    {.m = 134, .n = 384, .k = 384, .width = 384, .bias = true},
    {.m = 134, .n = 99, .k = 77, .width = 33, .split_heads = true},
    {.m = 134, .n = 99, .k = 1030, .width = 33, .dtype = CLATTN_F16, .split_heads = true, .bias = true},
    {.m = 134, .n = 99, .k = 1030, .width = 99, .dtype = CLATTN_BF16, .bias = true},
    {.m = 134, .n = 1, .k = 1, .width = 1},
    {.m = 134, .n = 77, .k = 520, .width = 77, .activation = CLATTN_ACTIVATION_RELU},
    {.m = 134, .n = 384, .k = 65, .width = 384, .bias = true, .activation = CLATTN_ACTIVATION_GELU},
    {.m = 134, .n = 65, .k = 1030, .width = 65, .bias = true}};
static const clattn__gemm_problem brief_gemms[] = {
    {.m = 134, .n = 99, .k = 77, .width = 33, .split_heads = true},
    {.m = 134, .n = 99, .k = 77, .width = 99, .bias = true},
    {.m = 134, .n = 77, .k = 129, .width = 77, .dtype = CLATTN_F16, .activation = CLATTN_ACTIVATION_RELU},
    {.m = 134, .n = 65, .k = 40, .width = 65, .dtype = CLATTN_BF16, .bias = true}};

/* Storage types, styles and activations are built as kernels of their own. */
static const struct {
    const char *name;
    clattn__op_variant variant;
} ops[] = {
    {"rows", {0}},
    {"rows", {.dtype = CLATTN_F16}},
    {"rows", {.dtype = CLATTN_BF16}},
    {"layer_norm", {0}},
    {"batch_statistics", {0}},
    {"batch_apply", {0}},
    {"elementwise", {.kind = CLATTN_ACTIVATION_NONE}},
    {"elementwise", {.kind = CLATTN_ACTIVATION_RELU}},
    {"elementwise", {.kind = CLATTN_ACTIVATION_GELU}},
    {"sinusoidal", {0}},
    {"learned", {0}},
    {"layer_norm", {.dtype = CLATTN_F16}},
    {"layer_norm", {.dtype = CLATTN_BF16}},
    {"batch_statistics", {.dtype = CLATTN_F16}},
    {"batch_apply", {.dtype = CLATTN_BF16}},
    {"elementwise", {.kind = CLATTN_ACTIVATION_NONE, .dtype = CLATTN_BF16}},
    {"elementwise", {.kind = CLATTN_ACTIVATION_GELU, .dtype = CLATTN_F16}},
    {"sinusoidal", {.dtype = CLATTN_F16}},
    {"learned", {.dtype = CLATTN_BF16}},
    {"softmax_forward", {0}},
    {"softmax_backward", {0}},
    {"softmax_cross_entropy", {0}},
    {"softmax_forward", {.dtype = CLATTN_F16}},
    {"softmax_backward", {.dtype = CLATTN_BF16}},
    {"softmax_cross_entropy", {.dtype = CLATTN_F16}},
    {"rope", {.kind = CLATTN_ROPE_COMPUTED, .dtype = CLATTN_F32}},
    {"rope", {.kind = CLATTN_ROPE_COMPUTED, .dtype = CLATTN_F16, .interleaved = true}},
    {"rope", {.kind = CLATTN_ROPE_TABLE, .dtype = CLATTN_BF16}},
    {"rope", {.kind = CLATTN_ROPE_ROWS, .dtype = CLATTN_F32, .interleaved = true, .inverse = true}},
    {"kv_append", {.dtype = CLATTN_F32, .cells = CLATTN_F32}},
    {"kv_append", {.dtype = CLATTN_F32, .cells = CLATTN_F16}},
    {"kv_append", {.dtype = CLATTN_F32, .cells = CLATTN_I8}},
    {"kv_append", {.dtype = CLATTN_BF16, .cells = CLATTN_BF16}},
    {"kv_append", {.dtype = CLATTN_BF16, .cells = CLATTN_I8}},
    {"kv_gather", {.dtype = CLATTN_F32, .cells = CLATTN_F32}},
    {"kv_gather", {.dtype = CLATTN_F32, .cells = CLATTN_BF16}},
    {"kv_gather", {.dtype = CLATTN_F32, .cells = CLATTN_I8}},
    {"kv_gather", {.dtype = CLATTN_F16, .cells = CLATTN_F16}},
    {"kv_gather", {.dtype = CLATTN_F16, .cells = CLATTN_I8}},
    {"mma_probe", {.dtype = CLATTN_F16}},
    {"mma_probe", {.dtype = CLATTN_BF16}},
    {"chain_cpu", {0}},
    {"chain_cpu", {.dtype = CLATTN_F16}},
    {"chain_cpu", {.dtype = CLATTN_BF16}},
};

/* Attention on 16-bit storage at other widths, on matrix engines at all that have tiles of their own and where
 * registers are scarcest; products that are large enough for large tiles. For listings: what they compute is verified
 * at one width. */
static const struct {
    uint32_t features;
    clattn_dtype dtype;
    int width;
} more_tiles[] = {
    {CLATTN__CAUSAL, CLATTN_F16, 128},  {CLATTN__CAUSAL, CLATTN_BF16, 128}, {CLATTN__CAUSAL, CLATTN_F16, 256},
    {CLATTN__CAUSAL, CLATTN_BF16, 256}, {CLATTN__CAUSAL, CLATTN_F16, 32},   {CLATTN__CAUSAL, CLATTN_F16, 40},
    {CLATTN__CAUSAL, CLATTN_F16, 80},   {CLATTN__CAUSAL, CLATTN_F16, 96},   {CLATTN__CAUSAL, CLATTN_F16, 192},
    {MOST_TERMS, CLATTN_F16, 128},      {MOST_TERMS, CLATTN_F16, 256},      {CACHE, CLATTN_F16, 128},
    {CACHE, CLATTN_F16, 256},
};
static const clattn__gemm_problem more_gemms[] = {
    {.m = 16384, .n = 384, .k = 384, .width = 384, .bias = true},
    {.m = 134, .n = 384, .k = 384, .width = 384, .dtype = CLATTN_F16, .bias = true},
    {.m = 16384, .n = 384, .k = 384, .width = 384, .dtype = CLATTN_F16, .bias = true},
    {.m = 16384, .n = 384, .k = 384, .width = 384, .dtype = CLATTN_BF16, .activation = CLATTN_ACTIVATION_GELU},
};

/* MANY_KEYS: more than one launch may walk on any device. */
enum { KEYS = 257, MANY_KEYS = 1 << 30 };

/* How many of `count` variants of a kernel are wanted. */
static size_t most_of(const clattn__variants *v, size_t count) {
    return v->most > 0 && (size_t)v->most < count ? (size_t)v->most : count;
}

static void visit_attention(const clattn__variants *v, const clattn__attn_impl *impl, uint32_t features,
                            clattn_dtype dtype, int head_dim, int value_dim, int64_t kv_len) {
    const bool few = impl == &clattn__attn_decode;
    const clattn__attn_problem problem = {
        .features = features,
        .dtype = dtype,
        .cells = CLATTN_I8,
        .scores = features & CLATTN__SCORES ? CLATTN_SCORES_MASKED : CLATTN_SCORES_NONE,
        .batch = 2,
        .query_heads = 16,
        .kv_heads = 2,
        .query_len = few ? 2 : 257,
        .kv_len = kv_len,
        .head_dim = head_dim,
        .value_dim = value_dim,
        .shared_mask = dtype == CLATTN_F32 && features & (CLATTN__MASK_BOOL | CLATTN__MASK_FLOAT)};
    v->attention(v->user, impl, &problem);
}

/* Storage types share all code but loads and stores: the 16-bit ones meet the first feature sets at one width. */
static void walk_attention(const clattn__variants *v, const clattn__attn_impl *impl) {
    static const clattn_dtype dtypes[] = {CLATTN_F32, CLATTN_F16, CLATTN_BF16};
    enum { SETS_OF_16_BITS = 7 };
    size_t left = most_of(v, SIZE_MAX);
    for (size_t t = 0; t < CLATTN__COUNT(dtypes); t++)
        for (size_t f = 0; f < CLATTN__COUNT(feature_sets); f++)
            for (size_t d = 0; d < CLATTN__COUNT(dims); d++) {
                if (f > 1 && d > 2) continue; /* odd sizes are about tiles, not about masks */
                const bool own_copies = impl->uses_engine && feature_sets[f] & CLATTN__CACHE_FEATURES; /* of cells */
                const size_t sets = own_copies && dtypes[t] == CLATTN_F16 ? f + 1 : SETS_OF_16_BITS;
                if (dtypes[t] != CLATTN_F32 && (d > 0 || f >= sets)) continue;
                if (left-- == 0) return;
                visit_attention(v, impl, feature_sets[f], dtypes[t], dims[d].head_dim, dims[d].value_dim, KEYS);
            }
    for (size_t i = 0; v->all_tiles && i < CLATTN__COUNT(more_tiles); i++) {
        if (!impl->uses_engine && (more_tiles[i].width != 128 || more_tiles[i].features != CLATTN__CAUSAL)) continue;
        visit_attention(v, impl, more_tiles[i].features, more_tiles[i].dtype, more_tiles[i].width, more_tiles[i].width,
                        KEYS);
    }
    if (v->all_tiles && impl->walks_parts)
        visit_attention(v, impl, CLATTN__CAUSAL, impl->uses_engine ? CLATTN_F16 : CLATTN_F32, 128, 128, MANY_KEYS);
}

static void walk_attention_briefly(const clattn__variants *v, const clattn__attn_impl *impl) {
    for (size_t r = 0; r < most_of(v, CLATTN__COUNT(brief_rows)); r++)
        visit_attention(v, impl, brief_rows[r].features, brief_rows[r].dtype, brief_rows[r].head_dim,
                        brief_rows[r].value_dim, KEYS);
}

static void visit_gemm(const clattn__variants *v, const clattn__gemm_impl *impl, const clattn__gemm_problem *problem) {
    const clattn__gemm_problem fitted = clattn__gemm_fitted(impl, problem);
    v->gemm(v->user, impl, &fitted);
}

static void walk_gemm(const clattn__variants *v, const clattn__gemm_impl *impl) {
    const clattn__gemm_problem *list = v->brief ? brief_gemms : gemms;
    const size_t count = most_of(v, v->brief ? CLATTN__COUNT(brief_gemms) : CLATTN__COUNT(gemms));
    for (size_t g = 0; g < count; g++) visit_gemm(v, impl, &list[g]);
    for (size_t g = 0; v->all_tiles && g < CLATTN__COUNT(more_gemms); g++) visit_gemm(v, impl, &more_gemms[g]);
}

/* How many variants of the same name the list has before this one. */
static size_t earlier_ones(size_t i) {
    size_t count = 0;
    for (size_t earlier = 0; earlier < i; earlier++) count += strcmp(ops[earlier].name, ops[i].name) == 0;
    return count;
}

/* The first of each name has float32; caches differ by the type of their cells too. */
static bool is_brief(size_t i) {
    return earlier_ones(i) == 0 || (ops[i].variant.cells == CLATTN_I8 && ops[i].variant.dtype == CLATTN_F32);
}

static bool is_wanted(const clattn__variants *v, const char *name) {
    return !v->kernel || strcmp(v->kernel, name) == 0;
}

void clattn__variants_walk(const clattn__variants *v) {
    for (int i = 0; clattn__attn_list[i]; i++) {
        if (!is_wanted(v, clattn__attn_list[i]->name)) continue;
        (v->brief ? walk_attention_briefly : walk_attention)(v, clattn__attn_list[i]);
    }
    for (int i = 0; clattn__gemm_list[i]; i++)
        if (is_wanted(v, clattn__gemm_list[i]->name)) walk_gemm(v, clattn__gemm_list[i]);
    for (size_t i = 0; i < CLATTN__COUNT(ops); i++)
        if (is_wanted(v, ops[i].name) && (!v->brief || is_brief(i)) && earlier_ones(i) < most_of(v, CLATTN__COUNT(ops)))
            v->op(v->user, ops[i].name, &ops[i].variant);
}
