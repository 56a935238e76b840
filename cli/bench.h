/* The parts of clattn bench: kinds of work, the measuring of one case, what the machine could do at most, reports. */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include "problem.h"

typedef struct bench_settings {
    const char *kernel, *gemm; /* NULL: the registry's choice */
    long long warmup, repeat;  /* repeat 0: until `seconds` have passed, at least five times */
    double seconds;
    uint64_t seed;
    bool resident; /* tensors in device memory */
    clattn_precision precision;
    char **handed; /* options that other processes get too, NULL behind the last */
} bench_settings;

typedef struct bench_result {
    double min_ms, median_ms;
    double spread; /* between the quartiles of the times, as a share of the median */
    int runs;
    double max_error;           /* greatest absolute difference from the scalar reference */
    double error_fraction;      /* greatest difference as a fraction of the tolerance at its place; NaN stays NaN */
    int64_t rows_checked, rows; /* of the output */
    size_t extra_bytes;         /* intermediate buffers and partial results, by the plan */
    int64_t seen_bytes;         /* what the first run added to the process's memory; negative: not known */
    char kernels[160];
} bench_result;

/* A tensor in device memory, and the host memory that it is a copy of. */
typedef struct bench_resident {
    void *mem, *queue; /* cl_mem, cl_command_queue */
    void *host;
    size_t bytes;
} bench_resident;
enum { BENCH_RESIDENTS = 8 };

/* One row of the report. */
typedef struct bench_case {
    const struct bench_kind *kind;
    char shape[CLI_SHAPE_TEXT];
    bool causal;
    double flops;      /* of one run; 0: what is timed is not work */
    double read_bytes; /* of one run whose limit is reading memory: decoding; 0: the limit is arithmetic */
    double read_gbps;  /* with read_bytes: the limit right before and after the case, which other machines share */
    void *state;       /* state_bytes of the kind, zeroed */
    bench_result result;
    bool timed;
    bench_resident residents[BENCH_RESIDENTS];
    int resident_count;
} bench_case;

/* A kind of work: one file bench_<op>.c each. */
typedef struct bench_kind {
    const char *op; /* "attention": the first column of a report, and the option that takes its shape */
    size_t state_bytes;
    /* From the option's text; false with the message printed. */
    bool (*parse)(bench_case *c, const char *text);
    /* Random data, weights and plan, shape and flops where they were not known yet. EXIT_GOOD, or another code with the
     * message printed. */
    int (*open)(bench_case *c, clattn_context *context, const bench_settings *settings);
    clattn_status (*run)(bench_case *c);
    clattn_status (*info)(const bench_case *c, clattn_plan_info *info);
    /* After a run: compares the output with the scalar reference, every row where that is cheap, else a sample that is
     * spread over all of it. Fills error and row counts. */
    clattn_status (*check)(bench_case *c);
    /* Frees what open made, or made half. */
    void (*close)(bench_case *c);
    /* Instead of all the above but parse, where time is taken in another way: fills the times. */
    int (*measure)(bench_case *c, const bench_settings *settings);
} bench_kind;

extern const bench_kind bench_attention, bench_layer, bench_gemm, bench_decode, bench_model;
extern const bench_kind bench_first_run, bench_warm_start; /* bench_startup.c; shape: "attention 1,8,8,1024,1024,64" */

/* bench_case.c: what the kind's open and close do, and nothing where it takes time in another way; close also what open
 * made half. */
int bench_open(bench_case *c, clattn_context *context, const bench_settings *settings);
void bench_close(bench_case *c);
/* What is open: runs once, compares with the reference, and only then measures. EXIT_GOOD, EXIT_WRONG when the output
 * differs (the result then has the error and no times), or another code with the message printed. */
int bench_run(bench_case *c, const bench_settings *settings);
double bench_gflops(const bench_case *c); /* of the median */
/* Least, median and spread of `runs` times in seconds, which get sorted. */
void bench_take_times(bench_result *result, double *times, int runs);
/* "running SHAPE: ..." on stderr; for open(). */
int bench_fail(const bench_case *c, clattn_status status, const char *doing);

/* bench_data.c ---------------------------------------------------------------------------------------------------- */

/* Nearly standard normal values, or NaN with random NULL. False for lack of memory. */
bool bench_array(cli_array *array, clattn_dtype dtype, int rank, const int64_t *shape, uint64_t *random);

/* What the reference may cost per case: a good second on the slowest machine that one would measure. */
#define BENCH_CHECK_FLOPS 1e8

/* `rows` rows of `got`, from element `start` on, row_step apart, against want and tolerance, dense (rows, width);
 * want has the element type of got. */
void bench_compare(bench_result *result, const cli_array *got, int64_t start, int64_t row_step, const cli_array *want,
                   const float *tolerance, int64_t rows, int64_t width);

/* The tensors of one attention; those that the description does not ask for stay empty. */
typedef struct bench_attention_data {
    cli_array query, key, value, output; /* (B, Hq, Sq, D), (B, Hkv, Sk, D) twice, as query */
    cli_array mask;                      /* (1, 1, Sq, Sk) bool or float32 */
    cli_array alibi, sinks;              /* (Hq) float32 */
} bench_attention_data;
clattn_status bench_check_attention(const cli_problem *problem, const bench_attention_data *data, bench_result *result);

/* bench_resident.c ------------------------------------------------------------------------------------------------ */

/* With settings->resident: copies the dense host tensors into device memory and makes them views of that; at most
 * BENCH_RESIDENTS in a case. EXIT_GOOD, or another code with the message printed. */
int bench_place(bench_case *c, clattn_context *context, const bench_settings *settings, clattn_tensor *const *tensors,
                int count);
bool bench_fetch(const bench_case *c); /* copies all of them back to where they came from */
void bench_release(bench_case *c);

/* bench_load.c ---------------------------------------------------------------------------------------------------- */

/* Who uses the CPU. others: the share of all CPU time since start that went to other processes or to a neighbour of the
 * virtual machine, 0..1; negative when the system does not say. */
typedef struct bench_load {
    double busy, own, total; /* CPU seconds up to now */
    bool known;
} bench_load;
bench_load bench_load_now(void);
double bench_load_others(const bench_load *start);

/* bench_memory.c -------------------------------------------------------------------------------------------------- */

/* Bytes of memory that the process holds; from here on the greatest of it is kept. Negative when the system does not
 * say. What bench_memory_since returns is how far it rose above that meanwhile. */
int64_t bench_memory_now(void);
int64_t bench_memory_since(int64_t before);

/* bench_report.c -------------------------------------------------------------------------------------------------- */

typedef struct bench_report {
    const bench_case *cases;
    int count;
    clattn_device_info device;
    clattn_limits limits; /* of the device, measured before and after the cases */
    double others;        /* share of the processor that others used, negative unknown */
} bench_report;
void bench_print_table(const bench_report *report);
int bench_print_json(const bench_report *report);
void bench_print_csv(const bench_report *report, FILE *file);

#endif
