/* Times a prepared kernel on a workload. Rows of the result are compared with the reference first, because a kernel
 * that is fast and wrong at this size must not win. */
#include "registry/registry.h"

#include <limits.h>
#include <math.h>

#include "ref/ref.h"

enum { LEAST_RUNS = 3, MOST_RUNS = 50, CHECKED = 3 /* rows */ };
static const double TIMED_SECONDS = 0.06, LONG_SECONDS = 0.25; /* one such run is enough */

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

static void clear(clattn__env *env, bench_tensor *t, int count) {
    for (int i = 0; i < count; i++) {
        clattn__buffer_clear(env, &t[i].device);
        clattn__free(t[i].host);
    }
}

/* The shortest of several runs. */
static clattn_status time_runs(clattn__env *env, clattn_status (*enqueue)(void *job), void *job, double *seconds) {
    double total = 0;
    *seconds = INFINITY;
    for (int i = 0; i < MOST_RUNS && (i < LEAST_RUNS || total < TIMED_SECONDS) && total < LONG_SECONDS; i++) {
        const double start = clattn__os_seconds();
        clattn_status status = enqueue(job);
        if (status != CLATTN_OK) return status;
        const cl_int code = clFinish(env->queue);
        if (code != CL_SUCCESS) return clattn__cl_fail(code, "clFinish", env->device.caps.name);
        const double run = clattn__os_seconds() - start;
        if (run < *seconds) *seconds = run;
        total += run;
    }
    return CLATTN_OK;
}

static clattn_status compare(const char *kernel, int64_t row, int64_t column, double got, double want,
                             double tolerance) {
    if (fabs(got - want) <= tolerance) return CLATTN_OK;
    return clattn__fail(CLATTN_WRONG_RESULT,
                        "%s: row %lld, column %lld is %.9g; the reference says %.9g, tolerance %.3g", kernel,
                        (long long)row, (long long)column, got, want, tolerance);
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

enum { QUERY, KEY, VALUE, OUTPUT, TENSORS };

typedef struct attention_job {
    clattn__attn_kernel *kernel;
    clattn__attn_call call;
    bench_tensor t[TENSORS];
} attention_job;

static clattn_status enqueue_attention(void *user) {
    attention_job *job = user;
    return job->kernel->impl->enqueue(job->kernel, &job->call);
}

static const void *element(const bench_tensor *t, clattn_dtype dtype, int64_t at) {
    return (const char *)t->host + (size_t)at * clattn_dtype_size(dtype);
}

/* One query row of one head. */
static clattn_status check_row(const attention_job *job, int64_t head, int64_t row) {
    const clattn__attn_problem *p = &job->kernel->problem;
    const int64_t D = p->head_dim, Sk = p->kv_len, at = head * p->query_len + row;
    const int64_t keys = head / (p->query_heads / p->kv_heads) * Sk;
    float want[CLATTN_MAX_HEAD_DIM], tolerance[CLATTN_MAX_HEAD_DIM];
    const clattn__ref_attention ref = {
        .weight_dtype = job->kernel->impl->rounds_weights ? p->dtype : CLATTN_F32,
        .batch = 1,
        .query_heads = 1,
        .kv_heads = 1,
        .query_len = 1,
        .kv_len = Sk,
        .head_dim = D,
        .value_dim = p->value_dim,
        .scale = (double)job->call.args.scale,
        .temperature = 1,
        .window_left = -1,
        .window_right = -1,
        .mask_len = Sk,
        .query = {(void *)element(&job->t[QUERY], p->dtype, at * D), p->dtype, {0, 0, D, 1}},
        .key = {(void *)element(&job->t[KEY], p->dtype, keys * D), p->dtype, {0, 0, D, 1}},
        .value = {(void *)element(&job->t[VALUE], p->dtype, keys * p->value_dim), p->dtype, {0, 0, p->value_dim, 1}},
        .output = {want, CLATTN_F32, {0, 0, p->value_dim, 1}},
        .tolerance = {tolerance, CLATTN_F32, {0, 0, p->value_dim, 1}}};
    clattn_status status = clattn__ref_attention_run(&ref);
    for (int64_t d = 0; d < p->value_dim && status == CLATTN_OK; d++)
        status = compare(job->kernel->impl->name, at, d,
                         clattn__ref_load(job->t[OUTPUT].host, p->dtype, at * p->value_dim + d), (double)want[d],
                         (double)tolerance[d] + clattn__ref_storage_rounding(p->dtype, (double)want[d]));
    return status;
}

static clattn_status check_attention(clattn__env *env, attention_job *job) {
    const clattn__attn_problem *p = &job->kernel->problem;
    bench_tensor *output = &job->t[OUTPUT];
    clattn_status status = clattn__buffer_read(env, output->device.mem, 0, output->bytes, output->host);
    for (int i = 0; i < CHECKED && status == CLATTN_OK; i++) /* the first, one in the middle, the last */
        status = check_row(job, (p->query_heads - 1) * i / (CHECKED - 1), (p->query_len - 1) * i / (CHECKED - 1));
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

clattn_status clattn__time_attention(clattn_context *context, clattn__attn_kernel *kernel, double *seconds) {
    const clattn__attn_problem *p = &kernel->problem;
    attention_job job = {.kernel = kernel};
    const int64_t counts[TENSORS] = {p->query_heads * p->query_len * p->head_dim, p->kv_heads * p->kv_len * p->head_dim,
                                     p->kv_heads * p->kv_len * p->value_dim,
                                     p->query_heads * p->query_len * p->value_dim};
    static const int slots[TENSORS] = {ATTN_QUERY, ATTN_KEY, ATTN_VALUE, ATTN_OUTPUT};
    clattn_status status = CLATTN_OK;
    set_attention_args(p, &job.call.args);
    for (int i = 0; i < TENSORS && status == CLATTN_OK; i++) {
        status = make(&context->env, p->dtype, counts[i], 2, 20170612u + (uint32_t)i, &job.t[i]);
        job.call.mem[slots[i]] = job.t[i].device.mem;
    }
    if (status == CLATTN_OK) status = enqueue_attention(&job); /* drivers compile at the first launch */
    if (status == CLATTN_OK) status = check_attention(&context->env, &job);
    if (status == CLATTN_OK) status = time_runs(&context->env, enqueue_attention, &job, seconds);
    clear(&context->env, job.t, TENSORS);
    return status;
}

/* ---- projections ------------------------------------------------------------------------------------------------- */

typedef struct gemm_job {
    clattn__gemm_kernel kernel;
    clattn__gemm_call call;
    bench_tensor x, y; /* (m, k), (m, n) */
    bench_tensor w;    /* (n, k) float; the kernel has its own copy */
} gemm_job;

static clattn_status enqueue_gemm(void *user) {
    gemm_job *job = user;
    return job->kernel.impl->enqueue(&job->kernel, &job->call);
}

/* Every 37th column of some rows. */
static clattn_status check_gemm(clattn__env *env, gemm_job *job) {
    const clattn__gemm_problem *p = &job->kernel.problem;
    clattn_status status = clattn__buffer_read(env, job->y.device.mem, 0, job->y.bytes, job->y.host);
    for (int i = 0; i < CHECKED; i++) {
        const int64_t row = (p->m - 1) * i / (CHECKED - 1);
        for (int64_t c = 0; c < p->n && status == CLATTN_OK; c += 37) {
            double sum = 0, magnitudes = 0;
            for (int64_t k = 0; k < p->k; k++) {
                const double term = clattn__ref_load(job->x.host, p->dtype, row * p->k + k) *
                                    clattn__ref_load(job->w.host, CLATTN_F32, c * p->k + k);
                sum += term;
                magnitudes += fabs(term);
            }
            status =
                compare(job->kernel.impl->name, row, c, clattn__ref_load(job->y.host, p->dtype, row * p->n + c), sum,
                        clattn__ref_rounding(p->k + 1, magnitudes, sum) + clattn__ref_storage_rounding(p->dtype, sum));
        }
    }
    return status;
}

clattn_status clattn__time_gemm(clattn_context *context, const clattn__gemm_impl *impl,
                                const clattn__gemm_problem *problem, const clattn__params *params, double *seconds) {
    clattn__env *env = &context->env;
    gemm_job job = {0};
    const clattn__candidates list = {.set = {*params}, .count = 1};
    job.call.args = (clattn_gemm_args){.x = {.batch = problem->m * problem->k, .row = problem->k},
                                       .y = {.batch = problem->m * problem->n, .head = problem->n, .row = problem->n},
                                       .m = (int)problem->m,
                                       .n = (int)problem->n,
                                       .k = (int)problem->k,
                                       .rows = (int)problem->m,
                                       .width = (int)problem->n,
                                       .part_columns = (int)problem->n};
    clattn_status status = make(env, problem->dtype, problem->m * problem->k, 1, 20170612u, &job.x);
    if (status == CLATTN_OK) status = make(env, problem->dtype, problem->m * problem->n, 0, 1, &job.y);
    if (status == CLATTN_OK) status = make(env, CLATTN_F32, problem->n * problem->k, 0.05, 3, &job.w);
    job.call.x = job.x.device.mem;
    job.call.y = job.y.device.mem;
    if (status == CLATTN_OK)
        status = clattn__gemm_ready(context, impl, problem, &list, job.w.host, problem->k, NULL, &job.kernel);
    if (status == CLATTN_OK) status = enqueue_gemm(&job);
    if (status == CLATTN_OK) status = check_gemm(env, &job);
    if (status == CLATTN_OK) status = time_runs(env, enqueue_gemm, &job, seconds);
    clattn__gemm_kernel_clear(&job.kernel);
    clear(env, &job.x, 1);
    clear(env, &job.y, 1);
    clear(env, &job.w, 1);
    return status;
}
