/* The long form: every kernel of the registry, over the variants that a user is likely to meet. */
#include "clattn/layers.h"
#include "registry/registry.h"

#include <stdio.h>
#include <string.h>

typedef struct sweep {
    clattn_context *context;
    clattn_verify_fn report;
    void *user;
    bool failed;
} sweep;

static void tell(sweep *w, const char *kernel, const char *variant, const clattn__verify_stats *stats,
                 const char *detail, bool refused) {
    const clattn_verify_result result = {.kernel = kernel,
                                         .variant = variant,
                                         .cases = stats->cases,
                                         .failures = stats->failures,
                                         .worst = stats->worst,
                                         .detail = detail,
                                         .refused = refused};
    if (w->report) w->report(w->user, &result);
}

/* Records what the long form found, as a first use would. */
static void record(sweep *w, const char *name, const clattn__program *program, clattn_status status) {
    char key[33];
    clattn__trust_key(&w->context->env, program ? program->key : name, key);
    if (status == CLATTN_OK)
        clattn__trust_set(w->context, key, CLATTN_TRUST_VERIFIED, name);
    else if (status == CLATTN_WRONG_RESULT)
        clattn__trust_set(w->context, key, CLATTN_TRUST_QUARANTINED, clattn_last_error());
}

static const struct {
    int head_dim, value_dim;
} dims[] = {{64, 64}, {128, 128}, {32, 32}, {80, 80}, {33, 20}, {1, 1}, {512, 512}};

static const uint32_t feature_sets[] = {
    0,
    CLATTN__CAUSAL,
    CLATTN__CAUSAL | CLATTN__LSE | CLATTN__PADDING,
    CLATTN__MASK_FLOAT | CLATTN__LSE,
    CLATTN__MASK_BOOL | CLATTN__PADDING,
    CLATTN__CAUSAL | CLATTN__WINDOW | CLATTN__SOFTCAP | CLATTN__ALIBI | CLATTN__SINKS,
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
};

static void verify_attention(sweep *w, const clattn__attn_impl *impl, const clattn__attn_problem *problem) {
    char features[224], variant[256];
    clattn__features_text(problem->features, features, sizeof features);
    snprintf(variant, sizeof variant, "%s, head_dim %lld, value_dim %lld, %s", features, (long long)problem->head_dim,
             (long long)problem->value_dim, clattn_dtype_name(problem->dtype));
    clattn__verify_stats stats = {0};
    clattn__refusal why = {{0}};
    if (!clattn__refuse_features(&why, problem->features, impl->features) ||
        !impl->supports(problem, &w->context->env.device.caps, &why)) {
        tell(w, impl->name, variant, &stats, why.text, true);
        return;
    }
    clattn__attn_kernel kernel = {.impl = impl, .programs = &w->context->programs, .problem = *problem};
    clattn_status status = impl->prepare(&kernel);
    if (status == CLATTN_OK) status = clattn__attn_verify(&kernel, true, &stats);
    if (status != CLATTN_OK) w->failed = true;
    if (impl != &clattn__attn_host) record(w, impl->name, kernel.program, status);
    tell(w, impl->name, variant, &stats, status == CLATTN_OK ? "" : clattn_last_error(), false);
    clattn__attn_kernel_clear(&kernel);
}

/* Storage types share all code but loads and stores: the 16-bit ones meet the first feature sets at one width. */
static void verify_attention_kernel(sweep *w, const clattn__attn_impl *impl) {
    static const clattn_dtype dtypes[] = {CLATTN_F32, CLATTN_F16, CLATTN_BF16};
    enum { SETS_OF_16_BITS = 7 };
    const bool few = impl == &clattn__attn_decode;
    for (size_t t = 0; t < CLATTN__COUNT(dtypes); t++)
        for (size_t f = 0; f < CLATTN__COUNT(feature_sets); f++)
            for (size_t d = 0; d < CLATTN__COUNT(dims); d++) {
                if (f > 1 && d > 2) continue; /* odd sizes are about tiles, not about masks */
                if (dtypes[t] != CLATTN_F32 && (d > 0 || f >= SETS_OF_16_BITS)) continue;
                const clattn__attn_problem problem = {.features = feature_sets[f],
                                                      .dtype = dtypes[t],
                                                      .scores = feature_sets[f] & CLATTN__SCORES ? CLATTN_SCORES_MASKED
                                                                                                 : CLATTN_SCORES_NONE,
                                                      .batch = 2,
                                                      .query_heads = 16,
                                                      .kv_heads = 2,
                                                      .query_len = few ? 2 : 257,
                                                      .kv_len = 257,
                                                      .head_dim = dims[d].head_dim,
                                                      .value_dim = dims[d].value_dim};
                verify_attention(w, impl, &problem);
            }
}

static void verify_gemm(sweep *w, const clattn__gemm_impl *impl, const clattn__gemm_problem *asked) {
    const clattn__gemm_problem problem = clattn__gemm_fitted(impl, asked);
    char variant[128];
    snprintf(variant, sizeof variant, "%lld columns from %lld, %s%s%s%s", (long long)problem.n, (long long)problem.k,
             clattn_dtype_name(problem.dtype), problem.split_heads ? ", split into heads" : "",
             problem.bias ? ", bias" : "", problem.activation ? ", activation" : "");
    clattn__verify_stats stats = {0};
    clattn__refusal why = {{0}};
    if (!impl->supports(&problem, &w->context->env.device.caps, &why)) {
        tell(w, impl->name, variant, &stats, why.text, true);
        return;
    }
    clattn_status status = clattn__gemm_verify(w->context, impl, &problem, true, &stats);
    if (status != CLATTN_OK) w->failed = true;
    tell(w, impl->name, variant, &stats, status == CLATTN_OK ? "" : clattn_last_error(), false);
}

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
};

static void verify_op(sweep *w, const char *name, const clattn__op_variant *variant) {
    clattn__verify_stats stats = {0};
    clattn__program *program = NULL;
    char key[33];
    clattn_status status = clattn__op_verify(w->context, name, variant, &stats, &program);
    if (status != CLATTN_OK) w->failed = true;
    if (program) {
        clattn__op_trust_key(w->context, name, program, key);
        clattn__trust_record(w->context, name, program, key, status);
    }
    tell(w, name, program ? program->options : "", &stats, status == CLATTN_OK ? "" : clattn_last_error(), false);
}

clattn_status clattn__verify_all(clattn_context *context, clattn_verify_fn report, void *user) {
    sweep w = {.context = context, .report = report, .user = user};
    for (int i = 0; clattn__attn_list[i]; i++) verify_attention_kernel(&w, clattn__attn_list[i]);
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
    for (int i = 0; clattn__gemm_list[i]; i++)
        for (size_t g = 0; g < CLATTN__COUNT(gemms); g++) verify_gemm(&w, clattn__gemm_list[i], &gemms[g]);
    for (size_t i = 0; i < CLATTN__COUNT(ops); i++) verify_op(&w, ops[i].name, &ops[i].variant);
    return w.failed ? clattn__fail(CLATTN_WRONG_RESULT, "%s differs from the scalar reference; see the report",
                                   context->env.device.caps.name)
                    : CLATTN_OK;
}
