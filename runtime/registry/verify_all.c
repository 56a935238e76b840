/* The long form of verification: every kernel of the registry, over its variants. */
#include "registry/registry.h"

#include <stdio.h>
#include <string.h>

typedef struct sweep {
    clattn_context *context;
    clattn_verify_fn report;
    void *user;
    bool brief;
    int visited;
    bool failed;
    clattn__text wrong; /* keys of the programs that were wrong in this sweep */
} sweep;

/* A kernel may find only when it is built that it does not fit the device: it refuses then. Whatever else went wrong
 * before a case ran is a failure too. */
static void tell(sweep *w, const char *kernel, const char *variant, clattn__verify_stats *stats, clattn_status status) {
    const bool refused = status == CLATTN_UNSUPPORTED && stats->cases == 0;
    const char *detail = status == CLATTN_OK ? "" : clattn_last_error();
    if (status != CLATTN_OK && !refused) {
        w->failed = true;
        if (stats->failures == 0) stats->failures = 1;
    }
    w->visited++;
    const clattn_verify_result result = {.kernel = kernel,
                                         .variant = variant,
                                         .cases = stats->cases,
                                         .failures = stats->failures,
                                         .worst = stats->worst,
                                         .detail = detail,
                                         .refused = refused};
    if (w->report) w->report(w->user, &result);
}

/* Records what the long form found, as a first use would, whatever was recorded before. Variants may share a program:
 * one that was wrong in this sweep stays quarantined. */
static void record(sweep *w, const char *name, const clattn__program *program, const char *key, clattn_status status) {
    if (status == CLATTN_OK && w->wrong.data && strstr(w->wrong.data, key)) return;
    if (status == CLATTN_WRONG_RESULT) clattn__text_add(&w->wrong, "%s ", key);
    clattn__trust_record(w->context, name, program, key, status);
}

static void verify_attention(void *user, const clattn__attn_impl *impl, const clattn__attn_problem *problem) {
    sweep *w = user;
    char features[224], variant[256], key[33];
    clattn__features_text(problem->features, features, sizeof features);
    snprintf(variant, sizeof variant, "%s, head_dim %lld, value_dim %lld, %s", features, (long long)problem->head_dim,
             (long long)problem->value_dim, clattn_dtype_name(problem->dtype));
    clattn__verify_stats stats = {0};
    clattn__refusal why = {{0}};
    clattn__attn_kernel kernel = {.impl = impl, .programs = &w->context->programs, .problem = *problem};
    clattn_status status = clattn__attn_serves(impl, problem, &w->context->env.device.caps, &why)
                               ? clattn__attn_prepare(&kernel, NULL)
                               : clattn__fail(CLATTN_UNSUPPORTED, "%s", why.text);
    if (status == CLATTN_OK) status = clattn__attn_verify(&kernel, !w->brief, &stats);
    if (kernel.program) {
        clattn__trust_key(&w->context->env, kernel.program->key, key);
        record(w, impl->name, kernel.program, key, status);
    }
    tell(w, impl->name, variant, &stats, status);
    clattn__attn_kernel_clear(&kernel);
}

static void verify_gemm(void *user, const clattn__gemm_impl *impl, const clattn__gemm_problem *problem) {
    sweep *w = user;
    char variant[128], key[33];
    snprintf(variant, sizeof variant, "%lld columns from %lld, %s%s%s%s", (long long)problem->n, (long long)problem->k,
             clattn_dtype_name(problem->dtype), problem->split_heads ? ", split into heads" : "",
             problem->bias ? ", bias" : "", problem->activation ? ", activation" : "");
    clattn__verify_stats stats = {0};
    clattn__refusal why = {{0}};
    clattn_status status = clattn__gemm_serves(impl, problem, &w->context->env.device.caps, &why)
                               ? clattn__gemm_verify(w->context, impl, problem, NULL, !w->brief, &stats)
                               : clattn__fail(CLATTN_UNSUPPORTED, "%s", why.text);
    if (stats.variant[0] && impl != &clattn__gemm_host) {
        clattn__trust_key(&w->context->env, stats.variant, key);
        record(w, impl->name, stats.program, key, status);
    }
    tell(w, impl->name, variant, &stats, status);
}

static void verify_op(void *user, const char *name, const clattn__op_variant *variant) {
    sweep *w = user;
    clattn__verify_stats stats = {0};
    clattn__program *program = NULL;
    char key[33];
    clattn_status status = clattn__op_verify(w->context, name, variant, &stats, &program);
    if (program) {
        clattn__op_trust_key(w->context, name, program, key);
        record(w, name, program, key, status);
    }
    tell(w, name, program ? program->options : "", &stats, status);
}

clattn_status clattn__verify_all(clattn_context *context, const clattn_verify_options *options, clattn_verify_fn report,
                                 void *user) {
    sweep w = {.context = context, .report = report, .user = user, .brief = options->brief};
    clattn__variants_walk(&(clattn__variants){.attention = verify_attention,
                                              .gemm = verify_gemm,
                                              .op = verify_op,
                                              .user = &w,
                                              .brief = options->brief,
                                              .kernel = options->kernel,
                                              .most = options->most});
    const bool kept = !w.wrong.failed;
    clattn__text_free(&w.wrong);
    if (!kept) return clattn__fail(CLATTN_OUT_OF_MEMORY, "no memory for the kernels that were wrong");
    if (w.visited == 0)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "options.kernel is \"%s\"; no kernel has that name",
                            options->kernel);
    return w.failed ? clattn__fail(CLATTN_WRONG_RESULT, "%s differs from the scalar reference; see the report",
                                   context->env.device.caps.name)
                    : CLATTN_OK;
}
