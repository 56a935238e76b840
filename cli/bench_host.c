/* What the host's processor can do at most, and who else uses it. */
#define _POSIX_C_SOURCE 200809L /* sysconf, getrusage, threads */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench.h"

/* ---- peak ---------------------------------------------------------------------------------------------------------
 *
 * Each thread runs chains of multiply-adds on vector registers. One chain waits for its own last result (about four
 * cycles) and two may start per cycle, so eight independent chains are the least that keep the units full; twelve leave
 * room for longer delays and still fit the sixteen registers of AVX2. The vector types are the compiler's own; what
 * differs between processors is the width and the instruction set that the function is compiled for. */
#define CHAINS(STEP) STEP(0) STEP(1) STEP(2) STEP(3) STEP(4) STEP(5) STEP(6) STEP(7) STEP(8) STEP(9) STEP(10) STEP(11)
#define CHAIN_COUNT 12
#define ROUNDS 3000000L
#define TRIES 5

#if defined(__GNUC__) && defined(__OPTIMIZE__)
#define CAN_MEASURE 1
#endif

#if defined(CAN_MEASURE)
#if !defined(__clang__)
#pragma GCC optimize("fp-contract=fast") /* a * x + y as one instruction, which -std=c11 would otherwise forbid */
#endif

/* Where the sums go, so that the work cannot be dropped. */
static _Thread_local volatile float sink;

#define CHAIN_START(i) vector c##i = x + (float)(i);
#define CHAIN_STEP(i) c##i = c##i * x + y;
#define CHAIN_SUM(i) total += c##i;
#define DEFINE_WORK(name, lanes, attribute)                                                                            \
    attribute static void *name(void *unused) {                                                                        \
        typedef float vector __attribute__((vector_size(4 * (lanes))));                                                \
        vector x = {0}, y = {0}, total = {0};                                                                          \
        (void)unused;                                                                                                  \
        x += 0.999f;                                                                                                   \
        y += 1e-3f;                                                                                                    \
        CHAINS(CHAIN_START)                                                                                            \
        for (long n = 0; n < ROUNDS; n++) {                                                                            \
            CHAINS(CHAIN_STEP)                                                                                         \
        }                                                                                                              \
        CHAINS(CHAIN_SUM)                                                                                              \
        sink = total[0];                                                                                               \
        return NULL;                                                                                                   \
    }

typedef struct peak_work {
    void *(*run)(void *);
    int lanes;
} peak_work;

DEFINE_WORK(work_4, 4, )
#if defined(__x86_64__)
DEFINE_WORK(work_8, 8, __attribute__((target("avx2,fma"))))
DEFINE_WORK(work_16, 16, __attribute__((target("avx512f"))))
#endif

/* Seconds that `threads` copies of the work take; negative when a thread could not start. */
static double time_threads(const peak_work *work, int threads) {
    pthread_t *ids = calloc((size_t)threads, sizeof *ids);
    if (!ids) return -1;
    int started = 0;
    double start = cli_seconds();
    while (started < threads && pthread_create(&ids[started], NULL, work->run, NULL) == 0) started++;
    for (int i = 0; i < started; i++) pthread_join(ids[i], NULL);
    double seconds = cli_seconds() - start;
    free(ids);
    return started == threads ? seconds : -1;
}

double bench_peak_gflops(int threads) {
    peak_work works[3] = {{work_4, 4}};
    int count = 1;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) works[count++] = (peak_work){work_8, 8};
    if (__builtin_cpu_supports("avx512f")) works[count++] = (peak_work){work_16, 16};
#endif
    double best = 0;
    if (threads < 1) return 0;
    for (int i = 0; i < count * TRIES; i++) {
        const peak_work *work = &works[i % count];
        double seconds = time_threads(work, threads);
        double flops = 2.0 * CHAIN_COUNT * (double)ROUNDS * work->lanes * threads;
        if (seconds > 0 && 1e-9 * flops / seconds > best) best = 1e-9 * flops / seconds;
    }
    return best;
}

#else

/* Compiled without optimisation the figure would flatter everything that is measured against it. */
double bench_peak_gflops(int threads) {
    (void)threads;
    return 0;
}

#endif

/* ---- load -------------------------------------------------------------------------------------------------------- */

static double own_seconds(void) {
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/* The first line of /proc/stat: user nice system idle iowait irq softirq steal, in clock ticks over all processors. */
bench_load bench_load_now(void) {
    bench_load load = {0};
    long long ticks[8] = {0};
    long rate = sysconf(_SC_CLK_TCK);
    FILE *file = fopen("/proc/stat", "r");
    if (!file) return load;
    int fields = fscanf(file, "cpu %lld %lld %lld %lld %lld %lld %lld %lld", &ticks[0], &ticks[1], &ticks[2], &ticks[3],
                        &ticks[4], &ticks[5], &ticks[6], &ticks[7]);
    fclose(file);
    if (fields < 5 || rate <= 0) return load;
    for (int i = 0; i < 8; i++) {
        load.total += (double)ticks[i] / (double)rate;
        if (i != 3 && i != 4) load.busy += (double)ticks[i] / (double)rate;
    }
    load.own = own_seconds();
    load.known = true;
    return load;
}

double bench_load_others(const bench_load *start) {
    bench_load now = bench_load_now();
    double total = now.total - start->total;
    if (!now.known || !start->known || total <= 0) return -1;
    double others = (now.busy - start->busy) - (now.own - start->own);
    return others > 0 ? others / total : 0;
}
