/* Rival projections: on a GPU the faster one is taken, by what was measured at the first plan that has them. */
#define _DEFAULT_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clattn/clattn.h"
#include "clblast_small.h"
#include "harness.h"
#include "planted.h"
#include "registry/registry.h"

static char folder[] = "/tmp/clattn-rivals-XXXXXX";
static char cache[128], kernels[128];
static int measured; /* times that the log told of */

static void count_measurements(void *user, clattn_log_level level, const char *message) {
    (void)user;
    if (level == CLATTN_LOG_INFO && strstr(message, "measured in")) {
        measured++;
        clattn_test_note("%s", message);
    }
}

static clattn_context *open_as(const char *pretend, const char *engine, const char *cache_dir, const char *kernel_dir,
                               bool ignore_tuning) {
    clattn_context_options options;
    clattn_context *context = NULL;
    clattn_context_options_init(&options);
    options.selector = getenv("CLATTN_DEVICE");
    options.pretend = pretend;
    options.matrix_engine = engine;
    options.cache_dir = cache_dir;
    options.kernel_dir = kernel_dir;
    options.ignore_tuning = ignore_tuning;
    options.log = count_measurements;
#ifdef CLATTN_WITH_CLBLAST
    options.clblast_parameters = CLBLAST_SMALL;
#endif
    measured = 0;
    CHECK(clattn_context_create(&context, &options) == CLATTN_OK, "%s", clattn_last_error());
    return context;
}

enum { WIDTH = 256 };
static float weight[WIDTH * WIDTH];

/* Chooses for a product of so many rows; the name of what was taken, "" for none. */
static const char *taken(clattn_context *context, int64_t rows, clattn_dtype dtype, const char *forced,
                         clattn__text *notes) {
    const clattn__gemm_problem problem = {.m = rows, .n = WIDTH, .k = WIDTH, .width = WIDTH, .dtype = dtype};
    clattn__gemm_kernel kernel;
    clattn__text unread = {0};
    clattn_status status =
        clattn__gemm_choose(context, &problem, forced, weight, WIDTH, NULL, &kernel, notes ? notes : &unread);
    clattn__text_free(&unread);
    CHECK(status == CLATTN_OK, "%s", clattn_last_error());
    const char *name = status == CLATTN_OK ? kernel.impl->name : "";
    clattn__gemm_kernel_clear(&kernel);
    return name;
}

static clattn__measured row_of(const char *workload, const char *kernel, long long nanoseconds) {
    clattn__measured row = {.workload = clattn__workload_named(workload), .nanoseconds = nanoseconds};
    snprintf(row.kernel, sizeof row.kernel, "%s", kernel);
    return row;
}

static const char *text_of(const clattn__text *notes) { return notes->data ? notes->data : ""; }

static int sets_of(clattn_context *context, const char *workload, const char *kernel) {
    return clattn__tuning_sets(context, clattn__workload_named(workload), kernel);
}

/* Where there is no question, nothing is measured. */
static void only_rivals_are_measured(void) {
    static const struct {
        const char *pretend, *engine;
        bool ignored;
        int rows;
        clattn_precision precision;
        clattn_dtype dtype;
    } cases[] = {{"type=cpu", NULL, false, 8, CLATTN_PRECISION_DEFAULT, CLATTN_F32},
                 {"type=gpu", NULL, true, 8, CLATTN_PRECISION_DEFAULT, CLATTN_F32},
                 {"type=gpu", NULL, false, 64, CLATTN_PRECISION_DEFAULT, CLATTN_F32}, /* no workload stands for it */
                 {"type=gpu", NULL, false, 8, CLATTN_PRECISION_DEFAULT, CLATTN_F16},
                 {"type=gpu", "emulated:nv", false, 8, CLATTN_PRECISION_DEFAULT, CLATTN_F16},
                 {"type=gpu,matrix=wmma11", NULL, false, 8, CLATTN_PRECISION_STRICT, CLATTN_F16}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        clattn_context *context = open_as(cases[i].pretend, cases[i].engine, "", NULL, cases[i].ignored);
        REQUIRE(context != NULL, "no context");
        const clattn__gemm_problem problem = {.m = cases[i].rows,
                                              .n = WIDTH,
                                              .k = WIDTH,
                                              .width = WIDTH,
                                              .dtype = cases[i].dtype,
                                              .precision = cases[i].precision};
        CHECK(clattn__gemm_fastest(context, &problem) == 0, "case %zu: not the list's order", i);
        CHECK(measured == 0 && context->tuning.count == 0, "case %zu: %d rows", i, context->tuning.count);
        clattn_context_destroy(&context);
    }
}

/* An engine that does not build here, and tiles that compute wrong: the host takes over, and the next process does not
 * try again. */
static void those_that_fail_are_passed_over(void) {
    REQUIRE(planted_copies(kernels, "gemm_tiled.cl", "#define fma(a, b, c) ((a) * (b) + (c) * 1.001f)", "", ""),
            "kernels could not be copied");
    for (int again = 0; again < 2; again++) {
        clattn_context *context = open_as("type=gpu,matrix=wmma11", NULL, cache, kernels, false);
        clattn__text notes = {0};
        REQUIRE(context != NULL, "no context");
        CHECK(strcmp(taken(context, 8, CLATTN_F16, NULL, &notes), "gemm_host") == 0, "something else");
        CHECK(measured == !again, "measured %d times in process %d", measured, again);
        for (int i = 0; i < context->tuning.count; i++)
            CHECK(context->tuning.rows[i].nanoseconds == 0, "%s was timed", context->tuning.rows[i].kernel);
        CHECK(sets_of(context, "gemm-few-16bit", "gemm_matrix") == 1 &&
                  sets_of(context, "gemm-few-16bit", "gemm_tiled") == 1,
              "%d rows", context->tuning.count);
        clattn__text_free(&notes);
        clattn_context_destroy(&context);
    }
}

/* One set of parameters that was measured alone does not bind problems of other sizes to it. */
static void one_set_is_no_choice(void) {
    clattn_context *context = open_as("type=gpu", NULL, "", NULL, false);
    REQUIRE(context != NULL, "no context");
    const clattn__gemm_problem problem = {
        .m = 512, .n = 1024, .k = 1024, .width = 1024, .dtype = CLATTN_F32, .bias = true};
    clattn__candidates list;
    static clattn__choice choice;
    clattn__gemm_candidates(&clattn__gemm_tiled, &problem, &context->env.device.caps, &list);
    REQUIRE(list.count > 1, "%d tiles", list.count);
    for (int i = 0; i < 2; i++) {
        clattn__measured row = row_of("gemm-32bit", "gemm_tiled", i ? 2000 : 1000);
        row.params = list.set[1 - i];
        CHECK(clattn__tuning_record(context, &row) == CLATTN_OK, "%s", clattn_last_error());
        clattn__gemm_choice(context, &clattn__gemm_tiled, &problem, &choice);
        CHECK(memcmp(&choice.list.set[0], &list.set[i], sizeof list.set[0]) == 0, "%d sets measured: %s", i + 1,
              choice.origin);
    }
    clattn_context_destroy(&context);
}

#ifdef CLATTN_WITH_CLBLAST
static clattn__measured best_of(clattn_context *context, const char *kernel) {
    clattn__measured row = {0};
    CHECK(clattn__tuning_best(context, clattn__workload_named("gemm-few-32bit"), kernel, &row), "%s was not measured",
          kernel ? kernel : "nothing");
    return row;
}

static void *take_in_thread(void *context) { return (void *)taken(context, 8, CLATTN_F32, NULL, NULL); }

/* Threads that make plans at once. */
static void take_in_threads(clattn_context *context) {
    pthread_t threads[3];
    void *names[3];
    for (int i = 0; i < 3; i++)
        REQUIRE(pthread_create(&threads[i], NULL, take_in_thread, context) == 0, "thread %d", i);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], &names[i]);
    for (int i = 0; i < 3; i++) CHECK(strcmp(names[i], names[0]) == 0, "%s", (const char *)names[i]);
}

/* The first process measures, once for all plans; the next one reads what it found. */
static void measured_once(void) {
    clattn__measured first[2] = {0};
    for (int process = 0; process < 2; process++) {
        clattn_context *context = open_as("type=gpu", NULL, cache, NULL, false);
        clattn__text notes = {0};
        REQUIRE(context != NULL, "no context");
        take_in_threads(context);
        const char *name = taken(context, 8, CLATTN_F32, NULL, &notes);
        const clattn__measured clblast = best_of(context, "gemm_clblast"), tiled = best_of(context, "gemm_tiled");
        CHECK(measured == !process, "measured %d times in process %d", measured, process);
        CHECK(strcmp(name, best_of(context, NULL).kernel) == 0, "%s was taken: %lld and %lld ns", name,
              clblast.nanoseconds, tiled.nanoseconds);
        const char *loser = strcmp(name, "gemm_tiled") == 0 ? "gemm_clblast" : "gemm_tiled";
        CHECK(strstr(text_of(&notes), loser) && strstr(text_of(&notes), name) &&
                  strstr(text_of(&notes), ", measured on 2"),
              "%s", text_of(&notes));
        taken(context, 16, CLATTN_F32, NULL, &notes);
        CHECK(measured == !process && context->tuning.count == 2, "measured again: %d rows", context->tuning.count);
        if (process == 0) first[0] = clblast, first[1] = tiled;
        CHECK(memcmp(&first[0], &clblast, sizeof clblast) == 0 && memcmp(&first[1], &tiled, sizeof tiled) == 0,
              "another process has other times");
        clattn__text_free(&notes);
        clattn_context_destroy(&context);
    }
}

/* What was measured decides, whatever it was measured by, and explain tells the times. */
static void faster_one_is_taken(void) {
    static const struct {
        long long clblast, tiled;
        const char *taken, *says;
    } cases[] = {
        {1000000, 1500000, "gemm_clblast", "gemm_tiled     takes 1.50 times as long as gemm_clblast here, measured"},
        {1000000, 990000, "gemm_clblast", "gemm_tiled     is as fast as gemm_clblast here, measured"},
        {2000000, 1000000, "gemm_tiled", "gemm_clblast   takes 2.00 times as long as gemm_tiled here, measured"},
        {0, 1000000, "gemm_tiled", "gemm_clblast   failed here where it was measured (gemm-few-32bit)"},
        {1000000, 0, "gemm_clblast", "gemm_tiled     failed here where it was measured (gemm-few-32bit)"}};
    clattn_context *context = open_as("type=gpu", NULL, "", NULL, false);
    REQUIRE(context != NULL, "no context");
    CHECK(strcmp(taken(context, 8, CLATTN_F32, "gemm_tiled", NULL), "gemm_tiled") == 0, "not the one asked for");
    CHECK(measured == 0 && context->tuning.count == 0, "measured what was asked for");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const clattn__measured rows[] = {row_of("gemm-few-32bit", "gemm_clblast", cases[i].clblast),
                                         row_of("gemm-few-32bit", "gemm_tiled", cases[i].tiled)};
        clattn__text notes = {0};
        for (int k = 0; k < 2; k++)
            CHECK(clattn__tuning_record(context, &rows[k]) == CLATTN_OK, "%s", clattn_last_error());
        const char *name = taken(context, 8, CLATTN_F32, NULL, &notes);
        CHECK(strcmp(name, cases[i].taken) == 0, "case %zu: %s", i, name);
        CHECK(strstr(text_of(&notes), cases[i].says), "case %zu: %s", i, text_of(&notes));
        CHECK(measured == 0, "measured what is known");
        clattn__text_free(&notes);
    }
    clattn_context_destroy(&context);
}
#endif

int main(int argc, char **argv) {
    if (!getenv("CLATTN_SOURCE_ROOT") || !mkdtemp(folder))
        return fprintf(stderr, "set CLATTN_SOURCE_ROOT to the source tree\n"), 1;
    snprintf(cache, sizeof cache, "%s/cache", folder);
    snprintf(kernels, sizeof kernels, "%s/cl", folder);
    clattn_random random = {5};
    clattn_fill_normal(&random, weight, WIDTH * WIDTH, 0.1);
    static const clattn_test rivals[] = {{"only_rivals_are_measured", only_rivals_are_measured},
                                         {"those_that_fail_are_passed_over", those_that_fail_are_passed_over},
                                         {"one_set_is_no_choice", one_set_is_no_choice},
#ifdef CLATTN_WITH_CLBLAST
                                         {"measured_once", measured_once},
                                         {"faster_one_is_taken", faster_one_is_taken},
#endif
                                         {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"rivals", rivals}, {NULL, NULL}};
    const int failed = clattn_test_main(suites, argc, argv);
    char command[256];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (system(command) != 0) fprintf(stderr, "%s is left behind\n", folder);
    return failed;
}
