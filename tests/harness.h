/* What the tests share: running under CUnit, checks that print their parameters, seeded random numbers, NaN-safe
 * comparison, and memory that notices when somebody writes beside it. */
#ifndef CLATTN_TEST_HARNESS_H
#define CLATTN_TEST_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clattn/context.h"

typedef struct {
    const char *name;
    void (*run)(void);
} clattn_test;

typedef struct {
    const char *name;
    const clattn_test *tests; /* ends with name NULL */
} clattn_test_suite;

/* Runs the suites (the last one has name NULL). Arguments: parts of "suite/test" names, any of which selects; none:
 * all. The last line on standard output is "clattn-tests: P passed, F failed, S skipped"; 0 when nothing failed and
 * something passed, else 1. */
int clattn_test_main(const clattn_test_suite *suites, int argc, char **argv);

/* The same with *context on the device that $CLATTN_DEVICE selects, and kernels of $CLATTN_KERNEL_DIR, to see a broken
 * one fail. CLATTN_VERIFY_NEVER is for suites that are the verification: wrong kernels are to show there, and as
 * nothing is run twice, nothing is kept on disk either (pocl compiles a kernel once more for a binary to keep). */
int clattn_test_main_with(clattn_context **context, clattn_verify_mode verify, const clattn_test_suite *suites,
                          int argc, char **argv);

/* Marks the running test as skipped; the test then returns. */
void clattn_test_skip(const char *reason);

/* A check that goes on after a failure, and one that leaves the test function. The message gives the parameters. */
#define CHECK(condition, ...) clattn_test_check((condition), __FILE__, __LINE__, #condition, __VA_ARGS__)
#define REQUIRE(condition, ...)                                                                                        \
    do {                                                                                                               \
        if (!CHECK(condition, __VA_ARGS__)) return;                                                                    \
    } while (0)

#if defined(__GNUC__)
#define CLATTN_TEST_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define CLATTN_TEST_PRINTF(text, first)
#endif
bool clattn_test_check(bool ok, const char *file, int line, const char *condition, const char *format, ...)
    CLATTN_TEST_PRINTF(5, 6);
/* A line of information, printed under the running test. */
void clattn_test_note(const char *format, ...) CLATTN_TEST_PRINTF(1, 2);

/* Launches since it was asked the last time. */
int clattn_test_launches(void);
/* The next launch fails with CL_OUT_OF_RESOURCES. */
void clattn_test_fail_launch(void);
/* Bytes that commands copied between host and device since the last call (transfers.c). */
size_t clattn_test_transferred(void);
/* Bytes of the widest pattern that a buffer was filled with since the last call (transfers.c). */
size_t clattn_test_widest_fill(void);
/* spills.c: from now on the driver says that it is a GPU's, and that so many kernels it is asked about keep so many
 * bytes of each work-item in memory; -1 kernels: it speaks for itself again. */
void clattn_test_spills(int kernels, size_t bytes);

/* Whether pocl builds programs without its optimizer from now on: kernels for GPUs, which nobody runs there; a test
 * waits for the compiler two to three times as long otherwise. The run matrix has all of them optimized. Other drivers
 * take no notice. Nothing may be running. */
void clattn_test_unoptimized(bool unoptimized);

/* True when the environment variable is set to something else than "" and "0". */
bool clattn_test_flag(const char *variable);
/* Of a long table, every how manieth case is taken: CLATTN_TEST_EVERY, else `own`; all with CLATTN_TEST_FULL=1. */
int clattn_test_every(int own);

/* Random numbers that are the same everywhere: splitmix64. */
typedef struct clattn_random {
    uint64_t state;
} clattn_random;
uint64_t clattn_random_next(clattn_random *random);
int64_t clattn_random_below(clattn_random *random, int64_t limit); /* 0..limit - 1 */
double clattn_random_uniform(clattn_random *random, double low, double high);
double clattn_random_normal(clattn_random *random);
void clattn_fill_normal(clattn_random *random, float *values, int64_t count, double size);
void clattn_fill_uniform(clattn_random *random, float *values, int64_t count, double low, double high);

/* |got - want| <= tolerance, or both equal, or both NaN. An infinity equals only itself. */
bool clattn_close(double got, double want, double tolerance);

typedef struct clattn_diff {
    int64_t count, bad;
    int64_t worst; /* index with the greatest error as a fraction of its tolerance; -1: all are equal */
    double got, want, tolerance, ratio; /* there; ratio is NaN or > 1 for a failure */
} clattn_diff;
/* tolerances: one per element, or NULL for the single one. */
clattn_diff clattn_compare(const float *got, const float *want, const float *tolerances, double tolerance,
                           int64_t count);
/* Compares and reports place, values, tolerance and the parameters in `what`. */
bool clattn_check_close(const float *got, const float *want, const float *tolerances, double tolerance, int64_t count,
                        const char *what);

/* Memory between two guard zones, everything filled with a NaN pattern (as float32, float16 and bfloat16). */
void *clattn_guard_alloc(size_t bytes);
void clattn_guard_free(void *memory); /* NULL is fine */
bool clattn_guard_intact(const void *memory);
/* Puts the pattern over `bytes` at `at`, or asks whether it is there untouched. */
void clattn_poison(void *at, size_t bytes);
bool clattn_is_poison(const void *at, size_t bytes);

#endif
