#define _GNU_SOURCE /* setenv, RTLD_NEXT */
#include "harness.h"
#include "ocl/ocl.h"

#include <CUnit/CUnit.h>
#include <CUnit/TestRun.h>
#include <dlfcn.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

/* ---- running --------------------------------------------------------------------------------------------------- */

enum { MESSAGES_PER_TEST = 12 }; /* further failures of one test are counted, not printed */

static struct {
    const char *suite, *test; /* running now */
    int failures;             /* of the running test */
    bool skipped;
    clock_t began;
    int passed, failed, skipped_total;
} state;

bool clattn_test_check(bool ok, const char *file, int line, const char *condition, const char *format, ...) {
    CU_assertImplementation(ok ? CU_TRUE : CU_FALSE, (unsigned)line, condition, file, "", CU_FALSE);
    if (ok) return true;
    if (++state.failures <= MESSAGES_PER_TEST) {
        va_list arguments;
        va_start(arguments, format);
        printf("FAIL %s/%s: %s:%d: %s: ", state.suite, state.test, file, line, condition);
        vprintf(format, arguments);
        printf("\n");
        fflush(stdout);
        va_end(arguments);
    }
    return false;
}

void clattn_test_note(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    printf("     %s/%s: ", state.suite, state.test);
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
}

void clattn_test_skip(const char *reason) {
    state.skipped = true;
    printf("SKIP %s/%s: %s\n", state.suite, state.test, reason);
}

bool clattn_test_flag(const char *variable) {
    const char *value = getenv(variable);
    return value && value[0] && strcmp(value, "0") != 0;
}

int clattn_test_every(int own) {
    const char *text = getenv("CLATTN_TEST_EVERY");
    const int every = text ? atoi(text) : own;
    return clattn_test_flag("CLATTN_TEST_FULL") || every < 1 ? 1 : every;
}

void clattn_test_unoptimized(bool unoptimized) {
    if (unoptimized)
        setenv("POCL_EXTRA_BUILD_FLAGS", "-cl-opt-disable", 1);
    else
        unsetenv("POCL_EXTRA_BUILD_FLAGS");
}

#ifdef __SANITIZE_ADDRESS__
/* In the loader's place: pocl 3.1 keeps the options of programs for ever where the environment has given flags. What a
 * driver takes while it builds belongs to the program, which is made elsewhere and missed when it is not released. */
cl_int clBuildProgram(cl_program program, cl_uint count, const cl_device_id *devices, const char *options,
                      void(CL_CALLBACK *notify)(cl_program, void *), void *user) {
    typedef cl_int (*build_fn)(cl_program, cl_uint, const cl_device_id *, const char *,
                               void(CL_CALLBACK *)(cl_program, void *), void *);
    union {
        void *object;
        build_fn function;
    } real = {dlsym(RTLD_NEXT, "clBuildProgram")};
    __lsan_disable();
    const cl_int code = real.function(program, count, devices, options, notify, user);
    __lsan_enable();
    return code;
}
#endif

static void test_starts(const CU_pTest test, const CU_pSuite suite) {
    state.suite = suite->pName;
    state.test = test->pName;
    state.failures = 0;
    state.skipped = false;
    state.began = clock();
}

static void test_ends(const CU_pTest test, const CU_pSuite suite, const CU_pFailureRecord failure) {
    double seconds = (double)(clock() - state.began) / CLOCKS_PER_SEC;
    if (failure || state.failures > 0) {
        state.failed++;
        printf("FAIL %s/%s: %d checks failed\n", suite->pName, test->pName, state.failures > 0 ? state.failures : 1);
    } else if (state.skipped) {
        state.skipped_total++;
    } else {
        state.passed++;
        printf("ok   %s/%s (%.2f s of processor time)\n", suite->pName, test->pName, seconds);
    }
    fflush(stdout);
}

static bool is_selected(const char *suite, const char *test, int argc, char **argv) {
    char name[256];
    if (argc < 2) return true;
    snprintf(name, sizeof name, "%s/%s", suite, test);
    for (int i = 1; i < argc; i++)
        if (strstr(name, argv[i])) return true;
    return false;
}

static bool add_tests(const clattn_test_suite *suites, int argc, char **argv) {
    for (; suites->name; suites++) {
        CU_pSuite suite = NULL;
        for (const clattn_test *test = suites->tests; test->name; test++) {
            if (!is_selected(suites->name, test->name, argc, argv)) continue;
            if (!suite) suite = CU_add_suite(suites->name, NULL, NULL);
            if (!suite || !CU_add_test(suite, test->name, test->run)) return false;
        }
    }
    return true;
}

int clattn_test_main(const clattn_test_suite *suites, int argc, char **argv) {
    memset(&state, 0, sizeof state);
    bool ran = CU_initialize_registry() == CUE_SUCCESS && add_tests(suites, argc, argv);
    if (ran) {
        CU_set_test_start_handler(test_starts);
        CU_set_test_complete_handler(test_ends);
        CU_set_error_action(CUEA_IGNORE);
        ran = CU_run_all_tests() == CUE_SUCCESS;
    }
    if (!ran) printf("FAIL harness: CUnit says: %s\n", CU_get_error_msg());
    CU_cleanup_registry();
    if (state.passed + state.failed == 0) printf("FAIL harness: no test ran\n");
    printf("clattn-tests: %d passed, %d failed, %d skipped\n", state.passed, state.failed, state.skipped_total);
    fflush(stdout);
    return ran && state.failed == 0 && state.passed > 0 ? 0 : 1;
}

/* ---- random numbers -------------------------------------------------------------------------------------------- */

uint64_t clattn_random_next(clattn_random *random) {
    uint64_t z = random->state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

int64_t clattn_random_below(clattn_random *random, int64_t limit) {
    return limit > 0 ? (int64_t)(clattn_random_next(random) % (uint64_t)limit) : 0;
}

double clattn_random_uniform(clattn_random *random, double low, double high) {
    return low + (high - low) * ((double)(clattn_random_next(random) >> 11) * 0x1p-53);
}

/* Box and Muller; the second number of the pair is not kept, so that the order of calls is all that counts. */
double clattn_random_normal(clattn_random *random) {
    double radius = sqrt(-2 * log(1 - clattn_random_uniform(random, 0, 1)));
    return radius * cos(6.283185307179586 * clattn_random_uniform(random, 0, 1));
}

void clattn_fill_normal(clattn_random *random, float *values, int64_t count, double size) {
    for (int64_t i = 0; i < count; i++) values[i] = (float)(size * clattn_random_normal(random));
}

void clattn_fill_uniform(clattn_random *random, float *values, int64_t count, double low, double high) {
    for (int64_t i = 0; i < count; i++) values[i] = (float)clattn_random_uniform(random, low, high);
}

/* ---- comparison ------------------------------------------------------------------------------------------------ */

bool clattn_close(double got, double want, double tolerance) {
    return got == want || fabs(got - want) <= tolerance || (isnan(got) && isnan(want));
}

/* Error as a fraction of the tolerance; infinite when no tolerance could explain it. */
static double error_ratio(double got, double want, double tolerance) {
    if (got == want || (isnan(got) && isnan(want))) return 0;
    double ratio = fabs(got - want) / tolerance;
    return isnan(ratio) ? INFINITY : ratio;
}

clattn_diff clattn_compare(const float *got, const float *want, const float *tolerances, double tolerance,
                           int64_t count) {
    clattn_diff diff = {.count = count, .worst = -1};
    for (int64_t i = 0; i < count; i++) {
        double allowed = tolerances ? tolerances[i] : tolerance;
        if (!clattn_close(got[i], want[i], allowed)) diff.bad++;
        double ratio = error_ratio(got[i], want[i], allowed);
        if (ratio > diff.ratio) {
            diff.worst = i;
            diff.got = got[i];
            diff.want = want[i];
            diff.tolerance = allowed;
            diff.ratio = ratio;
        }
    }
    return diff;
}

bool clattn_check_close(const float *got, const float *want, const float *tolerances, double tolerance, int64_t count,
                        const char *what) {
    clattn_diff diff = clattn_compare(got, want, tolerances, tolerance, count);
    return CHECK(diff.bad == 0,
                 "%s: %lld of %lld differ; worst at %lld: got %.9g, want %.9g, tolerance %.3g (%.3g times)", what,
                 (long long)diff.bad, (long long)diff.count, (long long)diff.worst, diff.got, diff.want, diff.tolerance,
                 diff.ratio);
}

/* ---- guarded memory -------------------------------------------------------------------------------------------- */

enum { ZONE = 256 };                                  /* bytes before and behind */
static const unsigned char pattern[2] = {0xFF, 0x7F}; /* 0x7FFF7FFF and 0x7FFF are NaN in every float format */

void clattn_poison(void *at, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) ((unsigned char *)at)[i] = pattern[i % 2];
}

bool clattn_is_poison(const void *at, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        if (((const unsigned char *)at)[i] != pattern[i % 2]) return false;
    return true;
}

/* Layout: size_t bytes ... front zone of ZONE, payload, back zone of ZONE. */
void *clattn_guard_alloc(size_t bytes) {
    unsigned char *memory = malloc(ZONE + ZONE + bytes + ZONE);
    if (!memory) abort(); /* a test without memory cannot go on */
    memcpy(memory, &bytes, sizeof bytes);
    clattn_poison(memory + ZONE, ZONE + bytes + ZONE);
    return memory + 2 * ZONE;
}

void clattn_guard_free(void *memory) {
    if (memory) free((unsigned char *)memory - 2 * ZONE);
}

bool clattn_guard_intact(const void *memory) {
    const unsigned char *payload = memory;
    size_t bytes;
    memcpy(&bytes, payload - 2 * ZONE, sizeof bytes);
    /* The pattern repeats every two bytes from the zone's start, also when the payload has an odd size. */
    const unsigned char *back = payload + bytes;
    for (size_t i = 0; i < ZONE; i++)
        if (back[i] != pattern[(bytes + i) % 2]) return false;
    return clattn_is_poison(payload - ZONE, ZONE);
}
