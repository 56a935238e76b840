/* The parts of clattn bench: what a case measures, and what the machine could do at most. */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include "problem.h"

/* bench_case.c ---------------------------------------------------------------------------------------------------- */

typedef struct bench_settings {
    const char *kernel, *gemm; /* NULL: the registry's choice */
    long long warmup, repeat;  /* repeat 0: until `seconds` have passed, at least five times */
    double seconds;
    uint64_t seed;
} bench_settings;

typedef struct bench_result {
    double min_ms, median_ms, gflops; /* gflops from the median and cli_problem_flops */
    int runs;
    double max_error;           /* greatest absolute difference from the scalar reference */
    double error_fraction;      /* greatest difference as a fraction of the tolerance at its place; NaN stays NaN */
    int64_t rows_checked, rows; /* of the output */
    char kernels[160];
} bench_result;

/* Plans, runs once, compares with the reference, and only then measures. EXIT_GOOD, EXIT_WRONG when the output differs
 * (result then has the error and no times), or another code with the message printed. */
int bench_run(clattn_context *context, const cli_problem *problem, const bench_settings *settings,
              bench_result *result);

/* bench_check.c --------------------------------------------------------------------------------------------------- */

/* The data of one case: dense float32 on the host, page-aligned so that a device that shares the memory can use it in
 * place. Attention: query (B, Hq, Sq, D), key (B, Hkv, Sk, D), value (B, Hkv, Sk, D), output as query.
 * Layer: query and output (B, L, E); key and value NULL. */
typedef struct bench_data {
    float *query, *key, *value, *output;
    cli_layer_weights weights;
} bench_data;

/* Compares data->output with the scalar reference: every row when that is cheap, else a sample of rows that are spread
 * over batch entries, heads and positions, the last row included. Fills the result's error and row counts. */
clattn_status bench_check_attention(const cli_problem *problem, const bench_data *data, bench_result *result);
clattn_status bench_check_layer(const cli_problem *problem, const bench_data *data, bench_result *result);

/* bench_host.c ---------------------------------------------------------------------------------------------------- */

/* Greatest rate of float32 multiply-adds that `threads` threads of this CPU reach in registers, in GFLOP/s, the best of
 * a few short runs; what a CPU device can be measured against. 0 when this build cannot tell. */
double bench_peak_gflops(int threads);

/* Who uses the CPU. others: the share of all CPU time since start that went to other processes or to a neighbour of the
 * virtual machine, 0..1; negative when the system does not say. */
typedef struct bench_load {
    double busy, own, total; /* CPU seconds up to now */
    bool known;
} bench_load;
bench_load bench_load_now(void);
double bench_load_others(const bench_load *start);

#endif
