/* Where kernels are timed: a workload's operands, made once for all that compete on it. Rows of each kernel's result
 * are compared with the reference first, because one that is fast and wrong at this size must not win. */
#include "registry/registry.h"

#include <limits.h>
#include <math.h>
#include <string.h>

#include "ref/ref.h"

enum { MOST_RUNS = 50, CHECKED = 3 /* rows */ };
static const double LONG_SECONDS = 0.25; /* one such run is enough */

typedef struct bench_tensor {
    void *host;
    clattn__buffer device;
    size_t bytes;
} bench_tensor;

/* Elements of -size..size. */
static clattn_status make(clattn__env *env, clattn_dtype dtype, int64_t count, double size, uint32_t seed,
                          bench_tensor *t) {
    t->bytes = (size_t)count * clattn_dtype_size(dtype);
    t->host = clattn__alloc((size_t)count, clattn_dtype_size(dtype));
    if (!t->host) return CLATTN_OUT_OF_MEMORY;
    for (int64_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u; /* Knuth, Seminumerical Algorithms, section 3.3.4 */
        clattn__ref_store(t->host, dtype, i, size * ((double)(seed >> 8) * 0x1p-23 - 1));
    }
    clattn_status status = clattn__buffer_create(env, t->bytes, &t->device);
    return status == CLATTN_OK ? clattn__buffer_write(env, t->device.mem, 0, t->bytes, t->host) : status;
}

/* Nothing of what an earlier kernel wrote may be taken for what the next one computes. */
static clattn_status poison(clattn__env *env, bench_tensor *t) {
    memset(t->host, 0xff, t->bytes); /* NaN */
    return clattn__buffer_write(env, t->device.mem, 0, t->bytes, t->host);
}

static clattn_status compare(const char *kernel, int64_t row, int64_t column, double got, double want,
                             double tolerance) {
    if (fabs(got - want) <= tolerance) return CLATTN_OK;
    return clattn__fail(CLATTN_WRONG_RESULT,
                        "%s: row %lld, column %lld is %.9g; the reference says %.9g, tolerance %.3g", kernel,
                        (long long)row, (long long)column, got, want, tolerance);
}

/* The tensors of a workload: of attention, or of a product, with weight (n, k) and bias (n), of which each kernel has
 * copies of its own. */
enum { QUERY, KEY, VALUE, X = QUERY, W = KEY, BIAS = VALUE, OUTPUT, TENSORS };

struct clattn__bench {
    clattn_context *context;
    bool is_attention;
    clattn__attn_problem attention; /* either this */
    clattn__attn_call attention_call;
    clattn__gemm_problem gemm; /* or this */
    clattn__gemm_call gemm_call;
    bench_tensor t[TENSORS];
};

/* ---- attention --------------------------------------------------------------------------------------------------- */

static const void *element(const bench_tensor *t, clattn_dtype dtype, int64_t at) {
    return (const char *)t->host + (size_t)at * clattn_dtype_size(dtype);
}

/* One query row of one head. */
static clattn_status check_row(const clattn__bench *bench, const clattn__attn_impl *impl, int64_t head, int64_t row) {
    const clattn__attn_problem *p = &bench->attention;
    const int64_t D = p->head_dim, Sk = p->kv_len, at = head * p->query_len + row;
    const int64_t keys = head / (p->query_heads / p->kv_heads) * Sk;
    float want[CLATTN_MAX_HEAD_DIM], tolerance[CLATTN_MAX_HEAD_DIM];
    const clattn__ref_attention ref = {
        .weight_dtype = impl->rounds_weights ? p->dtype : CLATTN_F32,
        .batch = 1,
        .query_heads = 1,
        .kv_heads = 1,
        .query_len = 1,
        .kv_len = Sk,
        .head_dim = D,
        .value_dim = p->value_dim,
        .scale = (double)bench->attention_call.args.scale,
        .temperature = 1,
        .window_left = -1,
        .window_right = -1,
        .mask_len = Sk,
        .query = {(void *)element(&bench->t[QUERY], p->dtype, at * D), p->dtype, {0, 0, D, 1}},
        .key = {(void *)element(&bench->t[KEY], p->dtype, keys * D), p->dtype, {0, 0, D, 1}},
        .value = {(void *)element(&bench->t[VALUE], p->dtype, keys * p->value_dim), p->dtype, {0, 0, p->value_dim, 1}},
        .output = {want, CLATTN_F32, {0, 0, p->value_dim, 1}},
        .tolerance = {tolerance, CLATTN_F32, {0, 0, p->value_dim, 1}}};
    clattn_status status = clattn__ref_attention_run(&ref);
    for (int64_t d = 0; d < p->value_dim && status == CLATTN_OK; d++)
        status =
            compare(impl->name, at, d, clattn__ref_load(bench->t[OUTPUT].host, p->dtype, at * p->value_dim + d),
                    (double)want[d], (double)tolerance[d] + clattn__ref_storage_rounding(p->dtype, (double)want[d]));
    return status;
}

static clattn_status check_attention(const clattn__bench *bench, const clattn__attn_impl *impl) {
    const clattn__attn_problem *p = &bench->attention;
    clattn_status status = CLATTN_OK;
    for (int i = 0; i < CHECKED && status == CLATTN_OK; i++) /* the first, one in the middle, the last */
        status =
            check_row(bench, impl, (p->query_heads - 1) * i / (CHECKED - 1), (p->query_len - 1) * i / (CHECKED - 1));
    return status;
}

static void set_attention_args(const clattn__attn_problem *p, clattn_attn_args *a) {
    *a = (clattn_attn_args){.query = {0, 0, p->query_len * p->head_dim, p->head_dim},
                            .key = {0, 0, p->kv_len * p->head_dim, p->head_dim},
                            .value = {0, 0, p->kv_len * p->value_dim, p->value_dim},
                            .output = {0, 0, p->query_len * p->value_dim, p->value_dim},
                            .batch = 1,
                            .query_heads = (int)p->query_heads,
                            .kv_heads = (int)p->kv_heads,
                            .query_len = (int)p->query_len,
                            .kv_len = (int)p->kv_len,
                            .mask_len = (int)p->kv_len,
                            .mask_column = 1,
                            .window_left = INT_MAX,
                            .window_right = INT_MAX,
                            .scale = (float)(1 / sqrt((double)p->head_dim)),
                            .inverse_temperature = 1,
                            .weights_factor = 1,
                            .query_total = (int)p->query_len,
                            .key_total = (int)p->kv_len};
}

static clattn_status make_attention(clattn__bench *bench) {
    const clattn__attn_problem *p = &bench->attention;
    const int64_t counts[TENSORS] = {p->query_heads * p->query_len * p->head_dim, p->kv_heads * p->kv_len * p->head_dim,
                                     p->kv_heads * p->kv_len * p->value_dim,
                                     p->query_heads * p->query_len * p->value_dim};
    static const int slots[TENSORS] = {ATTN_QUERY, ATTN_KEY, ATTN_VALUE, ATTN_OUTPUT};
    clattn_status status = CLATTN_OK;
    set_attention_args(p, &bench->attention_call.args);
    for (int i = 0; i < TENSORS && status == CLATTN_OK; i++) {
        status = make(&bench->context->env, p->dtype, counts[i], 2, 20170612u + (uint32_t)i, &bench->t[i]);
        bench->attention_call.mem[slots[i]] = bench->t[i].device.mem;
    }
    return status;
}

/* ---- projections ------------------------------------------------------------------------------------------------- */

/* Every 37th column of some rows. */
static clattn_status check_gemm(const clattn__bench *bench, const clattn__gemm_impl *impl) {
    const clattn__gemm_problem *p = &bench->gemm;
    clattn_status status = CLATTN_OK;
    for (int i = 0; i < CHECKED; i++) {
        const int64_t row = (p->m - 1) * i / (CHECKED - 1);
        for (int64_t c = 0; c < p->n && status == CLATTN_OK; c += 37) {
            double sum = clattn__ref_load(bench->t[BIAS].host, CLATTN_F32, c), magnitudes = fabs(sum);
            for (int64_t k = 0; k < p->k; k++) {
                const double term = clattn__ref_load(bench->t[X].host, p->dtype, row * p->k + k) *
                                    clattn__ref_load(bench->t[W].host, CLATTN_F32, c * p->k + k);
                sum += term;
                magnitudes += fabs(term);
            }
            status =
                compare(impl->name, row, c, clattn__ref_load(bench->t[OUTPUT].host, p->dtype, row * p->n + c), sum,
                        clattn__ref_rounding(p->k + 2, magnitudes, sum) + clattn__ref_storage_rounding(p->dtype, sum));
        }
    }
    return status;
}

static clattn_status make_gemm(clattn__bench *bench) {
    clattn__env *env = &bench->context->env;
    const clattn__gemm_problem *p = &bench->gemm;
    clattn_status status = make(env, p->dtype, p->m * p->k, 1, 20170612u, &bench->t[X]);
    if (status == CLATTN_OK) status = make(env, p->dtype, p->m * p->n, 0, 1, &bench->t[OUTPUT]);
    if (status == CLATTN_OK) status = make(env, CLATTN_F32, p->n * p->k, 0.05, 3, &bench->t[W]);
    if (status == CLATTN_OK) status = make(env, CLATTN_F32, p->n, 1, 4, &bench->t[BIAS]);
    bench->gemm_call = (clattn__gemm_call){.args = {.x = {.batch = p->m * p->k, .row = p->k},
                                                    .y = {.batch = p->m * p->n, .head = p->n, .row = p->n},
                                                    .m = (int)p->m,
                                                    .n = (int)p->n,
                                                    .k = (int)p->k,
                                                    .rows = (int)p->m,
                                                    .has_bias = 1,
                                                    .width = (int)p->n,
                                                    .part_columns = (int)p->n},
                                           .x = bench->t[X].device.mem,
                                           .y = bench->t[OUTPUT].device.mem};
    return status;
}

/* ---- both -------------------------------------------------------------------------------------------------------- */

clattn_status clattn__bench_create(clattn_context *context, const clattn__workload *workload, clattn__bench **out) {
    clattn__bench *bench = *out = clattn__alloc(1, sizeof *bench);
    if (!bench) return CLATTN_OUT_OF_MEMORY;
    bench->context = context;
    bench->is_attention = workload->kind == CLATTN__PREFILL || workload->kind == CLATTN__DECODE;
    if (bench->is_attention)
        bench->attention = clattn__workload_attention(workload, &context->env.device.caps);
    else
        bench->gemm = clattn__workload_gemm(workload);
    clattn_status status = bench->is_attention ? make_attention(bench) : make_gemm(bench);
    if (status != CLATTN_OK) clattn__bench_destroy(out);
    return status;
}

void clattn__bench_destroy(clattn__bench **bench) {
    for (int i = 0; *bench && i < TENSORS; i++) {
        clattn__buffer_clear(&(*bench)->context->env, &(*bench)->t[i].device);
        clattn__free((*bench)->t[i].host);
    }
    clattn__free(*bench);
    *bench = NULL;
}

static clattn_status enqueue(clattn__bench *bench, clattn__contender *c) {
    if (bench->is_attention) return c->attention.impl->enqueue(&c->attention, &bench->attention_call);
    return c->gemm.impl->enqueue(&c->gemm, &bench->gemm_call);
}

static clattn_status prepare(clattn__bench *bench, const char *kernel, const clattn__candidates *list,
                             clattn__contender *c) {
    for (int i = 0; bench->is_attention && clattn__attn_list[i]; i++)
        if (strcmp(clattn__attn_list[i]->name, kernel) == 0)
            return clattn__attn_ready(bench->context, clattn__attn_list[i], &bench->attention, list, &c->attention);
    for (int i = 0; !bench->is_attention && clattn__gemm_list[i]; i++)
        if (strcmp(clattn__gemm_list[i]->name, kernel) == 0)
            return clattn__gemm_ready(bench->context, clattn__gemm_list[i], &bench->gemm, list, bench->t[W].host,
                                      bench->gemm.k, bench->t[BIAS].host, &c->gemm);
    return clattn__fail(CLATTN_UNSUPPORTED, "there is no kernel %s", kernel);
}

clattn_status clattn__bench_enter(clattn__bench *bench, const char *kernel, const clattn__candidates *list,
                                  clattn__contender *c) {
    clattn__env *env = &bench->context->env;
    bench_tensor *output = &bench->t[OUTPUT];
    memset(c, 0, sizeof *c);
    clattn_status status = prepare(bench, kernel, list, c);
    if (status == CLATTN_OK) status = poison(env, output);
    if (status == CLATTN_OK) status = enqueue(bench, c); /* drivers compile at the first launch */
    if (status == CLATTN_OK) status = clattn__buffer_read(env, output->device.mem, 0, output->bytes, output->host);
    if (status == CLATTN_OK)
        status = bench->is_attention ? check_attention(bench, c->attention.impl) : check_gemm(bench, c->gemm.impl);
    if (status != CLATTN_OK) clattn__contender_clear(c);
    return status;
}

const clattn__params *clattn__contender_params(const clattn__contender *c) {
    return c->attention.impl ? &c->attention.params : &c->gemm.params;
}

void clattn__contender_clear(clattn__contender *c) {
    clattn__attn_kernel_clear(&c->attention);
    clattn__gemm_kernel_clear(&c->gemm);
}

clattn_status clattn__bench_time(clattn__bench *bench, clattn__contender *c, int least_runs, double least_seconds,
                                 double *seconds) {
    const clattn__env *env = &bench->context->env;
    double total = 0;
    *seconds = INFINITY;
    for (int i = 0; i < MOST_RUNS && (i < least_runs || total < least_seconds) && total < LONG_SECONDS; i++) {
        const double start = clattn__os_seconds();
        clattn_status status = enqueue(bench, c);
        if (status != CLATTN_OK) return status;
        const cl_int code = clFinish(env->queue);
        if (code != CL_SUCCESS) return clattn__cl_fail(code, "clFinish", env->device.caps.name);
        const double run = clattn__os_seconds() - start;
        if (run < *seconds) *seconds = run;
        total += run;
    }
    return CLATTN_OK;
}
