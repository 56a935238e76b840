#include "matrix_case.h"

#include <stdio.h>
#include <stdlib.h>

#include "harness.h"

clattn_context *matrix_context(const char *engine, bool subgroups, const char *kernel_dir) {
    char wanted[64];
    snprintf(wanted, sizeof wanted, "emulated%s:%s", subgroups ? "-subgroups" : "", engine);
    clattn_context_options options;
    clattn_context_options_init(&options);
    options.selector = getenv("CLATTN_DEVICE");
    options.matrix_engine = wanted;
    options.cache_dir = "";
    options.kernel_dir = kernel_dir;
    clattn_context *context = NULL;
    clattn_status status = clattn_context_create(&context, &options);
    if (status == CLATTN_UNSUPPORTED && subgroups) return NULL;
    CHECK(status == CLATTN_OK, "%s: %s", wanted, clattn_last_error());
    return context;
}

bool matrix_has_subgroups(void) {
    clattn_context *context = matrix_context("nv", true, NULL);
    const bool has = context != NULL;
    clattn_context_destroy(&context);
    return has;
}

clattn__attn_problem matrix_problem(uint32_t features, clattn_dtype dtype, int64_t head_dim, int64_t value_dim) {
    return (clattn__attn_problem){.features = features,
                                  .dtype = dtype,
                                  .cells = CLATTN_I8,
                                  .batch = 2,
                                  .query_heads = 4,
                                  .kv_heads = 2,
                                  .query_len = 200,
                                  .kv_len = 200,
                                  .head_dim = head_dim,
                                  .value_dim = value_dim};
}

/* The list's one set that is meant. */
static clattn__candidates one_of(const clattn__candidates *list, int set) {
    return (clattn__candidates){.count = 1, .set[0] = list->set[(set + list->count) % list->count]};
}

clattn_status matrix_verify(clattn_context *context, clattn__attn_problem problem, int set, bool long_form,
                            clattn__verify_stats *stats) {
    const clattn__caps *caps = &context->env.device.caps;
    clattn__attn_kernel kernel = {.impl = &clattn__attn_matrix, .programs = &context->programs, .problem = problem};
    clattn__refusal why = {{0}};
    clattn__candidates list = {.count = 0};
    if (!CHECK(clattn__attn_matrix.supports(&problem, caps, &why), "refused: %s", why.text)) return CLATTN_UNSUPPORTED;
    clattn__attn_matrix.candidates(&problem, caps, &list);
    list = one_of(&list, set);
    clattn_status status = clattn__attn_prepare(&kernel, &list);
    if (status == CLATTN_OK) status = clattn__attn_verify(&kernel, long_form, stats);
    clattn__attn_kernel_clear(&kernel);
    return status;
}

const clattn__gemm_problem matrix_products[MATRIX_PRODUCTS] = {
    {.m = 134, .n = 99, .k = 77, .width = 33, .dtype = CLATTN_F16, .split_heads = true, .bias = true},
    {.m = 134, .n = 130, .k = 70, .width = 130, .dtype = CLATTN_BF16, .activation = CLATTN_ACTIVATION_GELU},
};

clattn_status matrix_verify_product(clattn_context *context, const clattn__gemm_problem *problem, int set,
                                    bool long_form, clattn__verify_stats *stats) {
    const clattn__caps *caps = &context->env.device.caps;
    clattn__refusal why = {{0}};
    clattn__candidates list = {.count = 0};
    if (!CHECK(clattn__gemm_matrix.supports(problem, caps, &why), "refused: %s", why.text)) return CLATTN_UNSUPPORTED;
    clattn__gemm_matrix.candidates(problem, caps, &list);
    list = one_of(&list, set);
    return clattn__gemm_verify(context, &clattn__gemm_matrix, problem, &list.set[0], long_form, stats);
}
