/* One case of clattn bench: data, plan, proof, time. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

#define PAGE_BYTES 4096
#define MOST_RUNS 2000
#define LEAST_RUNS 5

/* A plan of either kind behind one handle; exactly one of the two is set. */
typedef struct bench_plan {
    clattn_attention *attention;
    clattn_mha *mha;
    clattn_attention_io attention_io;
    clattn_mha_io mha_io;
} bench_plan;

static float *make_floats(int64_t count, uint64_t *random) {
    size_t bytes = ((size_t)count * sizeof(float) + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    float *data = aligned_alloc(PAGE_BYTES, bytes ? bytes : PAGE_BYTES);
    for (int64_t i = 0; data && i < count; i++) data[i] = random ? cli_random_normal(random) : NAN;
    return data;
}

static void data_free(bench_data *data) {
    free(data->query);
    free(data->key);
    free(data->value);
    free(data->output);
    cli_layer_weights_free(&data->weights);
}

/* Bounds the products below, long before they could overflow: nobody times tensors of a trillion elements. */
static bool fits(double elements) { return elements < 1e12; }

/* Outputs start as NaN, so that a row that nobody wrote cannot pass for right. */
static bool data_make(bench_data *data, const cli_problem *problem, uint64_t seed) {
    uint64_t random = seed;
    memset(data, 0, sizeof *data);
    if (problem->layer) {
        const clattn_mha_desc *d = &problem->mha;
        if (!fits((double)d->batch * (double)d->query_len * (double)d->embed_dim)) return false;
        int64_t count = d->batch * d->query_len * d->embed_dim;
        data->query = make_floats(count, &random);
        data->output = make_floats(count, NULL);
        return data->query && data->output && cli_layer_weights_make(&data->weights, d->embed_dim, &random);
    }
    const clattn_attention_desc *d = &problem->attention;
    double width = (double)d->batch * (double)d->head_dim;
    if (!fits(width * (double)d->query_heads * (double)d->query_len)) return false;
    if (!fits(width * (double)d->kv_heads * (double)d->kv_len)) return false;
    int64_t queries = d->batch * d->query_heads * d->query_len * d->head_dim;
    int64_t keys = d->batch * d->kv_heads * d->kv_len * d->head_dim;
    data->query = make_floats(queries, &random);
    data->key = make_floats(keys, &random);
    data->value = make_floats(keys, &random);
    data->output = make_floats(queries, NULL);
    return data->query && data->key && data->value && data->output;
}

static clattn_status plan_make(bench_plan *plan, clattn_context *context, const cli_problem *problem,
                               const bench_settings *settings, const bench_data *data) {
    memset(plan, 0, sizeof *plan);
    if (problem->layer) {
        clattn_mha_desc desc = problem->mha;
        int64_t b = desc.batch, l = desc.query_len, e = desc.embed_dim;
        desc.attention_kernel = settings->kernel;
        desc.gemm_kernel = settings->gemm;
        plan->mha_io.query = clattn_host(data->query, CLATTN_F32, 3, b, l, e, 0);
        plan->mha_io.output = clattn_host(data->output, CLATTN_F32, 3, b, l, e, 0);
        return clattn_mha_create(&plan->mha, context, &desc, &data->weights.tensors);
    }
    clattn_attention_desc desc = problem->attention;
    int64_t b = desc.batch, hq = desc.query_heads, hkv = desc.kv_heads, sq = desc.query_len, sk = desc.kv_len;
    int64_t d = desc.head_dim;
    desc.kernel = settings->kernel;
    plan->attention_io.query = clattn_host(data->query, CLATTN_F32, 4, b, hq, sq, d);
    plan->attention_io.key = clattn_host(data->key, CLATTN_F32, 4, b, hkv, sk, d);
    plan->attention_io.value = clattn_host(data->value, CLATTN_F32, 4, b, hkv, sk, d);
    plan->attention_io.output = clattn_host(data->output, CLATTN_F32, 4, b, hq, sq, d);
    return clattn_attention_create(&plan->attention, context, &desc);
}

static clattn_status plan_run(bench_plan *plan) {
    return plan->mha ? clattn_mha_run(plan->mha, &plan->mha_io)
                     : clattn_attention_run(plan->attention, &plan->attention_io);
}

static clattn_status plan_info(const bench_plan *plan, clattn_plan_info *info) {
    return plan->mha ? clattn_mha_info(plan->mha, info) : clattn_attention_info(plan->attention, info);
}

static void plan_free(bench_plan *plan) {
    clattn_attention_destroy(&plan->attention);
    clattn_mha_destroy(&plan->mha);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static clattn_status measure(bench_plan *plan, const bench_settings *settings, double flops, bench_result *result) {
    double times[MOST_RUNS], start = cli_seconds();
    clattn_status status = CLATTN_OK;
    for (long long i = 0; i < settings->warmup && status == CLATTN_OK; i++) status = plan_run(plan);
    start = cli_seconds();
    int runs = 0, least = settings->repeat ? (int)settings->repeat : LEAST_RUNS;
    while (status == CLATTN_OK && runs < MOST_RUNS) {
        if (runs >= least && (settings->repeat || cli_seconds() - start >= settings->seconds)) break;
        double before = cli_seconds();
        status = plan_run(plan);
        times[runs++] = cli_seconds() - before;
    }
    if (status != CLATTN_OK) return status;
    qsort(times, (size_t)runs, sizeof *times, ascending);
    double median = 0.5 * (times[(runs - 1) / 2] + times[runs / 2]);
    result->runs = runs;
    result->min_ms = 1e3 * times[0];
    result->median_ms = 1e3 * median;
    result->gflops = 1e-9 * flops / median;
    return CLATTN_OK;
}

int bench_run(clattn_context *context, const cli_problem *problem, const bench_settings *settings,
              bench_result *result) {
    bench_data data;
    bench_plan plan = {0};
    clattn_plan_info info;
    int code = EXIT_GOOD;
    const char *doing = "planning";
    memset(result, 0, sizeof *result);
    if (!data_make(&data, problem, settings->seed)) {
        code = cli_fail(EXIT_USAGE, "%s: too little memory for its tensors", problem->shape);
        goto done;
    }
    clattn_status status = plan_make(&plan, context, problem, settings, &data);
    if (status == CLATTN_OK) status = plan_info(&plan, &info);
    if (status == CLATTN_OK) {
        snprintf(result->kernels, sizeof result->kernels, "%s", info.kernels);
        doing = "running";
        status = plan_run(&plan);
    }
    if (status == CLATTN_OK) {
        doing = "comparing with the reference";
        status =
            problem->layer ? bench_check_layer(problem, &data, result) : bench_check_attention(problem, &data, result);
    }
    if (status == CLATTN_OK && !(result->error_fraction <= 1)) {
        code = cli_fail(EXIT_WRONG, "%s: wrong result of %s: greatest error %g is %g of its tolerance; not timed",
                        problem->shape, result->kernels, result->max_error, result->error_fraction);
        goto done;
    }
    if (status == CLATTN_OK) {
        doing = "measuring";
        status = measure(&plan, settings, cli_problem_flops(problem), result);
    }
    if (status != CLATTN_OK) {
        char what[200];
        snprintf(what, sizeof what, "%s %s", doing, problem->shape);
        code = cli_fail_status(status, what);
    }
done:
    plan_free(&plan);
    data_free(&data);
    return code;
}
