/* What the kernels of the registry would have built on a device: each variant is prepared with a recorder in the place
 * of the driver. */
#include "registry/registry.h"

#include <stdio.h>
#include <string.h>

typedef struct listing {
    clattn_context *context;
    const clattn__recorder *recorder;
    clattn__programs programs; /* of the variant at hand alone, so that each reports its own; nothing is built */
    clattn_source_fn report;
    void *user;
    const char *kernel;
    char variant[320];
    bool alternative;     /* the variant is listed already, with the tile of the kernel's own choice */
    clattn__text keys;    /* of all that was reported: an alternative is reported once */
    clattn_status status; /* the first failure */
} listing;

static void report_program(void *user, const clattn__program *program, const char *source) {
    listing *l = user;
    if (l->alternative && l->keys.data && strstr(l->keys.data, program->key)) return;
    clattn__text_add(&l->keys, "%s ", program->key);
    const clattn_program_source row = {.kernel = l->kernel,
                                       .variant = l->variant,
                                       .file = program->file,
                                       .options = program->options,
                                       .source = source,
                                       .key = program->key,
                                       .alternative = l->alternative};
    l->report(l->user, &row);
}

enum { MANY_KEYS = 1 << 20 }; /* no device walks so many in one launch */

static void keep(listing *l, clattn_status status) {
    if (l->status == CLATTN_OK) l->status = status;
}

static bool start_variant(listing *l) {
    clattn_status status = clattn__programs_create(&l->programs, &l->context->env);
    l->programs.recorder = l->recorder;
    keep(l, status);
    return status == CLATTN_OK;
}

/* With the first of the candidates; NULL: the kernel's own. */
static void list_attention_with(listing *l, const clattn__attn_impl *impl, const clattn__attn_problem *problem,
                                const clattn__candidates *list) {
    char features[224];
    clattn__features_text(problem->features, features, sizeof features);
    snprintf(l->variant, sizeof l->variant, "head_dim %lld, value_dim %lld, %s, %s%s", (long long)problem->head_dim,
             (long long)problem->value_dim, clattn_dtype_name(problem->dtype), features,
             problem->kv_len > MANY_KEYS ? ", many keys" : "");
    l->kernel = impl->name;
    if (!start_variant(l)) return;
    clattn__attn_kernel kernel = {.impl = impl, .programs = &l->programs, .problem = *problem};
    keep(l, clattn__attn_prepare(&kernel, list));
    clattn__attn_kernel_clear(&kernel);
    clattn__programs_clear(&l->programs);
}

/* Storage types and masks share all tiles, and slices of a head that is narrower than they are end with it. */
static bool shows_tiles(const clattn__attn_impl *impl, const clattn__attn_problem *problem) {
    return impl->candidates && problem->features == CLATTN__CAUSAL && problem->head_dim >= 16 &&
           problem->kv_len < MANY_KEYS && problem->dtype == (impl->uses_engine ? CLATTN_F16 : CLATTN_F32);
}

/* Few queries are given tiles with fewer rows; where each head has its own keys, kernels for few rows meet each number
 * of them. */
static void list_attention_tiles(listing *l, const clattn__attn_impl *impl, const clattn__attn_problem *problem) {
    static const int lens[] = {257, 32, 16, 8, 7, 6, 5, 4, 3, 2, 1};
    const clattn__caps *caps = &l->context->env.device.caps;
    clattn__attn_problem p = *problem;
    clattn__refusal why;
    p.kv_heads = p.query_heads;
    l->alternative = true;
    for (size_t n = 0; n < CLATTN__COUNT(lens); n++) {
        clattn__candidates all;
        p.query_len = lens[n];
        if (!clattn__attn_serves(impl, &p, caps, &why)) continue;
        clattn__attn_candidates(impl, &p, caps, &all);
        for (int i = 0; i < all.count; i++)
            list_attention_with(l, impl, &p, &(clattn__candidates){.set = {all.set[i]}, .count = 1});
    }
    l->alternative = false;
}

static void list_attention(void *user, const clattn__attn_impl *impl, const clattn__attn_problem *problem) {
    listing *l = user;
    clattn__refusal why;
    if (!clattn__attn_serves(impl, problem, &l->context->env.device.caps, &why)) return;
    list_attention_with(l, impl, problem, NULL);
    if (shows_tiles(impl, problem)) list_attention_tiles(l, impl, problem);
}

static void list_gemm_with(listing *l, const clattn__gemm_impl *impl, const clattn__gemm_problem *problem,
                           const clattn__candidates *list) {
    snprintf(l->variant, sizeof l->variant, "%lld rows, %lld columns from %lld, %s%s", (long long)problem->m,
             (long long)problem->n, (long long)problem->k, clattn_dtype_name(problem->dtype),
             problem->activation ? ", activation" : "");
    l->kernel = impl->name;
    if (!start_variant(l)) return;
    float *weight = clattn__alloc((size_t)problem->n * (size_t)problem->k, sizeof *weight);
    float *bias = clattn__alloc((size_t)problem->n, sizeof *bias);
    clattn__gemm_kernel kernel = {.impl = impl, .programs = &l->programs, .problem = *problem};
    keep(l, weight && bias ? clattn__gemm_prepare(&kernel, list, weight, problem->k, problem->bias ? bias : NULL)
                           : CLATTN_OUT_OF_MEMORY);
    clattn__gemm_kernel_clear(&kernel);
    clattn__free(bias);
    clattn__free(weight);
    clattn__programs_clear(&l->programs);
}

static void list_gemm(void *user, const clattn__gemm_impl *impl, const clattn__gemm_problem *problem) {
    listing *l = user;
    const clattn__caps *caps = &l->context->env.device.caps;
    clattn__candidates all;
    clattn__refusal why;
    if (!clattn__gemm_serves(impl, problem, caps, &why)) return;
    list_gemm_with(l, impl, problem, NULL);
    if (!impl->candidates || problem->activation) return;
    clattn__gemm_candidates(impl, problem, caps, &all);
    l->alternative = true;
    for (int i = 0; i < all.count; i++)
        list_gemm_with(l, impl, problem, &(clattn__candidates){.set = {all.set[i]}, .count = 1});
    l->alternative = false;
}

static clattn_status create_op(clattn__programs *programs, const char *name, const clattn__op_variant *v,
                               clattn__op *op) {
    static const char *const softmax[] = {[CLATTN_SOFTMAX_FORWARD] = "softmax_forward",
                                          [CLATTN_SOFTMAX_BACKWARD] = "softmax_backward",
                                          [CLATTN_SOFTMAX_CROSS_ENTROPY] = "softmax_cross_entropy"};
    const float one = 1;
    const uint64_t turn = 1;
    if (strcmp(name, "mma_probe") == 0) return clattn__mma_probe_create(op, programs, v->dtype);
    if (strcmp(name, "rows") == 0) return clattn__rows_create(op, programs, v->dtype);
    if (strcmp(name, "layer_norm") == 0) return clattn__layer_norm_create(op, programs, v->dtype, 1, NULL, NULL);
    if (strcmp(name, "batch_statistics") == 0) return clattn__batch_statistics_create(op, programs, v->dtype);
    if (strcmp(name, "batch_apply") == 0)
        return clattn__batch_apply_create(op, programs, v->dtype, 1, NULL, NULL, NULL);
    if (strcmp(name, "elementwise") == 0) return clattn__elementwise_create(op, programs, v->dtype, v->kind);
    if (strcmp(name, "sinusoidal") == 0) return clattn__sinusoidal_create(op, programs, v->dtype, 2, &turn);
    if (strcmp(name, "learned") == 0) return clattn__learned_create(op, programs, v->dtype, &one, 1, 1);
    if (strcmp(name, "kv_append") == 0 || strcmp(name, "kv_gather") == 0)
        return clattn__cache_create(op, programs, name, v->dtype, v->cells);
    for (int kind = 0; kind < (int)CLATTN__COUNT(softmax); kind++)
        if (strcmp(name, softmax[kind]) == 0)
            return clattn__softmax_create(op, programs, v->dtype, (clattn_softmax_kind)kind);
    if (strcmp(name, "rope") == 0) {
        clattn_rope_desc d;
        clattn_rope_desc_init(&d);
        d.source = (clattn_rope_source)v->kind;
        d.dtype = v->dtype;
        d.style = v->interleaved ? CLATTN_ROPE_INTERLEAVED : CLATTN_ROPE_HALF_SPLIT;
        d.inverse = v->inverse;
        d.head_dim = d.rotary_dim = 2;
        d.table_rows = v->kind == CLATTN_ROPE_TABLE;
        return clattn__rope_create(op, programs, &d, NULL, NULL);
    }
    return clattn__fail(CLATTN_UNSUPPORTED, "nothing makes the kernel %s", name);
}

/* Of one product: enough for what is built. */
static clattn_status list_chain(clattn__programs *programs, clattn_dtype dtype) {
    const clattn__gemm_problem problem = {.m = 1, .n = 1, .k = 1, .width = 1, .dtype = dtype};
    const clattn__caps *caps = &programs->env->device.caps;
    clattn__refusal why;
    if (!clattn__gemm_serves(&clattn__gemm_cpu, &problem, caps, &why)) return CLATTN_OK;
    clattn__candidates list;
    clattn__gemm_candidates(&clattn__gemm_cpu, &problem, caps, &list);
    const clattn__gemm_kernel gemm = {
        .impl = &clattn__gemm_cpu, .programs = programs, .problem = problem, .params = list.set[0]};
    clattn__chain chain = {.parts = {{.gemm = &gemm}}, .count = 1};
    clattn_status status = clattn__chain_create(&chain, programs);
    clattn__chain_clear(&chain);
    return status;
}

static void list_op(void *user, const char *name, const clattn__op_variant *variant) {
    listing *l = user;
    clattn__op op = {0};
    clattn__refusal why;
    if (strcmp(name, "mma_probe") == 0 && !clattn__matrix_serves(variant->dtype, &l->context->env.device.caps, &why))
        return;
    l->kernel = name;
    const bool cache = strncmp(name, "kv_", 3) == 0;
    snprintf(l->variant, sizeof l->variant, "%s, kind %d%s%s%s%s", clattn_dtype_name(variant->dtype), variant->kind,
             cache ? ", cells " : "", cache ? clattn_dtype_name(variant->cells) : "",
             variant->interleaved ? ", interleaved" : "", variant->inverse ? ", inverse" : "");
    if (!start_variant(l)) return;
    keep(l, strcmp(name, "chain_cpu") == 0 ? list_chain(&l->programs, variant->dtype)
                                           : create_op(&l->programs, name, variant, &op));
    clattn__op_clear(&op);
    clattn__programs_clear(&l->programs);
}

/* No kernel of the registry, but a device is given it too. */
static void list_limits(listing *l) {
    l->kernel = "limits";
    for (const int *lanes = clattn__limits_lanes; *lanes; lanes++) {
        clattn__program *program;
        snprintf(l->variant, sizeof l->variant, "vectors of %d", *lanes);
        if (!start_variant(l)) return;
        keep(l, clattn__limits_program(&l->programs, *lanes, &program));
        clattn__programs_clear(&l->programs);
    }
}

clattn_status clattn__kernel_sources(clattn_context *context, clattn_source_fn report, void *user) {
    listing l = {.context = context, .report = report, .user = user};
    const clattn__recorder recorder = {.program = report_program, .user = &l};
    l.recorder = &recorder;
    clattn__variants_walk(&(clattn__variants){
        .attention = list_attention, .gemm = list_gemm, .op = list_op, .user = &l, .all_tiles = true});
    list_limits(&l);
    if (l.keys.failed) keep(&l, clattn__fail(CLATTN_OUT_OF_MEMORY, "no memory for the keys of the programs"));
    clattn__text_free(&l.keys);
    return l.status;
}
