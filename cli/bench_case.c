/* One case of clattn bench: data, plan, proof, time. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

enum { MOST_RUNS = 2000, LEAST_RUNS = 5 };

/* Of the measuring time, before it: some schedulers leave all threads of a driver on one core for a while. */
#define WARM_SHARE 0.4

double bench_gflops(const bench_case *c) { return c->flops / c->result.median_ms * 1e-6; }

int bench_fail(const bench_case *c, clattn_status status, const char *doing) {
    char what[CLI_SHAPE_TEXT + 64];
    snprintf(what, sizeof what, "%s %s", doing, c->shape);
    return cli_fail_status(status, what);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of sorted times, between two of them where the share falls there. */
static double quantile(const double *times, int runs, double share) {
    const double place = share * (runs - 1);
    const int i = (int)place;
    return i + 1 < runs ? times[i] + (place - i) * (times[i + 1] - times[i]) : times[i];
}

void bench_take_times(bench_result *result, double *times, int runs) {
    qsort(times, (size_t)runs, sizeof *times, ascending);
    const double median = quantile(times, runs, 0.5);
    result->runs = runs;
    result->min_ms = 1e3 * times[0];
    result->median_ms = 1e3 * median;
    result->spread = (quantile(times, runs, 0.75) - quantile(times, runs, 0.25)) / median;
}

static clattn_status measure(bench_case *c, const bench_settings *settings) {
    double times[MOST_RUNS];
    clattn_status status = CLATTN_OK;
    double start = cli_seconds(), warm = settings->repeat ? 0 : settings->seconds * WARM_SHARE;
    for (long long i = 0; status == CLATTN_OK && (i < settings->warmup || cli_seconds() - start < warm); i++)
        status = c->kind->run(c);
    start = cli_seconds();
    int runs = 0, least = settings->repeat ? (int)settings->repeat : LEAST_RUNS;
    while (status == CLATTN_OK && runs < MOST_RUNS) {
        if (runs >= least && (settings->repeat || cli_seconds() - start >= settings->seconds)) break;
        double before = cli_seconds();
        status = c->kind->run(c);
        times[runs++] = cli_seconds() - before;
    }
    if (status != CLATTN_OK) return status;
    bench_take_times(&c->result, times, runs);
    return CLATTN_OK;
}

int bench_open(bench_case *c, clattn_context *context, const bench_settings *settings) {
    return c->kind->measure ? EXIT_GOOD : c->kind->open(c, context, settings);
}

void bench_close(bench_case *c) {
    if (c->kind->measure) return;
    c->kind->close(c);
    bench_release(c);
}

int bench_run(bench_case *c, const bench_settings *settings) {
    clattn_plan_info info;
    bench_result *result = &c->result;
    const char *doing = "running";
    int code = EXIT_GOOD;
    memset(result, 0, sizeof *result);
    if (c->kind->measure) {
        int measured = c->kind->measure(c, settings);
        c->timed = measured == EXIT_GOOD;
        return measured;
    }
    clattn_status status = c->kind->info(c, &info);
    if (status == CLATTN_OK) {
        snprintf(result->kernels, sizeof result->kernels, "%s", info.kernels);
        result->extra_bytes = info.arena_bytes + info.partial_bytes;
        int64_t before = bench_memory_now();
        status = c->kind->run(c);
        result->seen_bytes = bench_memory_since(before);
    }
    if (status == CLATTN_OK && !bench_fetch(c)) {
        code = cli_fail(EXIT_USAGE, "%s: its tensors cannot be read back from the device", c->shape);
        goto done;
    }
    if (status == CLATTN_OK) {
        doing = "comparing with the reference";
        status = c->kind->check(c);
    }
    if (status == CLATTN_OK && !(result->error_fraction <= 1)) {
        code = cli_fail(EXIT_WRONG, "%s: wrong result of %s: greatest error %g is %g of its tolerance; not timed",
                        c->shape, result->kernels, result->max_error, result->error_fraction);
        goto done;
    }
    if (status == CLATTN_OK) {
        doing = "measuring";
        status = measure(c, settings);
    }
    if (status != CLATTN_OK) code = bench_fail(c, status, doing);
done:
    c->timed = code == EXIT_GOOD;
    return code;
}
