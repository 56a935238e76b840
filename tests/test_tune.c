/* Tuning: what was measured is used, continued and kept; what is odd in a file is ignored with a note; what is wrong or
 * hostile never reaches a kernel. */
#define _DEFAULT_SOURCE
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clattn/clattn.h"
#include "harness.h"
#include "planted.h"
#include "registry/registry.h"

static char folder[] = "/tmp/clattn-tune-XXXXXX";
static char cache[128], kernels[128];
static char warnings[16384];

static void log_warnings(void *user, clattn_log_level level, const char *message) {
    (void)user;
    if (level <= CLATTN_LOG_WARNING)
        strncat(warnings, message, sizeof warnings - strlen(warnings) - 2), strcat(warnings, "\n");
}

static clattn_context *open_with(const char *cache_dir, const char *kernel_dir, bool ignore_tuning,
                                 const char *engine) {
    clattn_context_options options;
    clattn_context_options_init(&options);
    options.selector = getenv("CLATTN_DEVICE");
    options.cache_dir = cache_dir;
    options.kernel_dir = kernel_dir;
    options.ignore_tuning = ignore_tuning;
    options.matrix_engine = engine;
    options.pretend = engine ? "type=gpu" : NULL;
    options.log = log_warnings;
    warnings[0] = 0;
    clattn_context *context = NULL;
    CHECK(clattn_context_create(&context, &options) == CLATTN_OK, "%s", clattn_last_error());
    return context;
}

static clattn_context *open_context(void) { return open_with(cache, NULL, false, NULL); }

/* As a new process would see the folder. */
static void reload(clattn_context *context) {
    clattn__tuning_clear(&context->tuning);
    warnings[0] = 0;
    CHECK(clattn__tuning_create(&context->tuning, false) == CLATTN_OK, "%s", clattn_last_error());
}

/* ---- measured rows that are made up ------------------------------------------------------------------------------ */

static clattn__attn_problem prefill(void) {
    return (clattn__attn_problem){.batch = 1,
                                  .query_heads = 4,
                                  .kv_heads = 4,
                                  .query_len = 1024,
                                  .kv_len = 1024,
                                  .head_dim = 64,
                                  .value_dim = 64};
}

static const clattn__attn_impl *first_kernel(clattn_context *context, clattn__candidates *list) {
    const clattn__attn_problem problem = prefill();
    const clattn__attn_impl *impl = clattn__attn_first(context, &problem, NULL);
    clattn__attn_candidates(impl, &problem, &context->env.device.caps, list);
    return impl;
}

static clattn__measured row_of(const char *workload, const char *kernel, clattn__params params, long long nanoseconds) {
    clattn__measured row = {.workload = clattn__workload_named(workload), .params = params, .nanoseconds = nanoseconds};
    snprintf(row.kernel, sizeof row.kernel, "%s", kernel);
    return row;
}

/* The kernel's own choice and another candidate, which takes `share` of the time. */
static void record_two(clattn_context *context, double share) {
    clattn__candidates list;
    const clattn__attn_impl *impl = first_kernel(context, &list);
    clattn__tuning_forget(context);
    for (int i = 0; i < 2; i++) {
        const clattn__measured row =
            row_of("prefill-64-32bit", impl->name, list.set[i], i ? (long long)(1e6 * share) : 1000000);
        CHECK(clattn__tuning_record(context, &row) == CLATTN_OK, "%s", clattn_last_error());
    }
    CHECK(clattn__tuning_save(context) == CLATTN_OK, "%s", clattn_last_error());
}

/* Which of the kernel's candidates a plan would be made with; -1: none of them. */
static int chosen(clattn_context *context, const char **origin) {
    const clattn__attn_problem problem = prefill();
    clattn__candidates list;
    static clattn__choice choice;
    const clattn__attn_impl *impl = first_kernel(context, &list);
    clattn__attn_choice(context, impl, &problem, &choice);
    CHECK(choice.list.count == list.count, "%d candidates became %d", list.count, choice.list.count);
    if (origin) *origin = choice.origin;
    for (int i = 0; i < list.count; i++)
        if (memcmp(&list.set[i], &choice.list.set[0], sizeof list.set[0]) == 0) return i;
    return -1;
}

/* Two processes that tune at once: neither loses what the other measured, and who starts anew does. */
static void both_are_kept(void) {
    clattn_context *one = open_context(), *other = open_context(), *third = open_context();
    clattn__measured rows[3];
    for (int i = 0; i < 3; i++) rows[i] = row_of("gemm-32bit", "gemm_tiled", (clattn__params){{i}}, 1000 + i);
    REQUIRE(one && other && third, "no contexts");
    clattn__tuning_forget(one);
    CHECK(!clattn__tuning_find(one, &rows[0]) && !clattn__tuning_find(other, &rows[0]), "measured before");
    CHECK(clattn__tuning_record(one, &rows[0]) == CLATTN_OK && clattn__tuning_save(one) == CLATTN_OK, "%s",
          clattn_last_error());
    CHECK(clattn__tuning_record(other, &rows[1]) == CLATTN_OK && clattn__tuning_save(other) == CLATTN_OK, "%s",
          clattn_last_error());
    CHECK(clattn__tuning_record(one, &rows[2]) == CLATTN_OK && clattn__tuning_save(one) == CLATTN_OK, "%s",
          clattn_last_error());
    for (int i = 0; i < 3; i++) {
        const long long nanoseconds = rows[i].nanoseconds;
        rows[i].nanoseconds = 0;
        CHECK(clattn__tuning_find(third, &rows[i]) && rows[i].nanoseconds == nanoseconds, "row %d is lost", i);
    }
    reload(other);
    clattn__tuning_forget(other);
    CHECK(clattn__tuning_save(other) == CLATTN_OK, "%s", clattn_last_error());
    reload(third);
    CHECK(!clattn__tuning_find(third, &rows[0]) && !warnings[0], "not forgotten, or: %s", warnings);
    clattn_context_destroy(&one);
    clattn_context_destroy(&other);
    clattn_context_destroy(&third);
}

static bool has_two(clattn_context *context) {
    clattn__candidates list;
    const clattn__attn_impl *impl = first_kernel(context, &list);
    if (list.count >= 2) return true;
    char reason[96];
    snprintf(reason, sizeof reason, "%s has one tile only on this device", impl->name);
    clattn_test_skip(reason);
    return false;
}

static void faster_ones_are_taken(void) {
    clattn_context *context = open_context();
    REQUIRE(context != NULL, "no context");
    const char *origin = "";
    clattn_tune_choice choice;
    if (has_two(context)) {
        CHECK(chosen(context, &origin) == 0 && strstr(origin, "limits"), "%s", origin);
        record_two(context, 0.5);
        reload(context);
        CHECK(chosen(context, &origin) == 1 && strstr(origin, "measured"), "%s", origin);
        CHECK(clattn_tuned(context, 0, &choice) == CLATTN_OK, "%s", clattn_last_error());
        CHECK(fabs(choice.seconds - 5e-4) < 1e-9 && fabs(choice.own_seconds - 1e-3) < 1e-9 && choice.preferred,
              "%g of %g seconds", choice.seconds, choice.own_seconds);
        CHECK(clattn_tuned(context, 1, &choice) == CLATTN_INVALID_ARGUMENT, "a choice too many");
        record_two(context, 0.99); /* may be noise */
        reload(context);
        CHECK(chosen(context, NULL) == 0, "noise decided");
    }
    clattn_context_destroy(&context);
    context = open_with(cache, NULL, true, NULL);
    record_two(context, 0.5);
    CHECK(chosen(context, NULL) == 0, "tuning was to be ignored");
    clattn_context_destroy(&context);
}

/* What a plan says of itself. */
static void explained(void) {
    for (int ignored = 0; ignored < 2; ignored++) {
        clattn_context *context = open_with(cache, NULL, ignored, NULL);
        REQUIRE(context != NULL, "no context");
        if (!has_two(context)) {
            clattn_context_destroy(&context);
            return;
        }
        record_two(context, ignored ? 0.5 : 2); /* the same set both times, so that one is compiled */
        clattn_attention *plan = NULL;
        clattn_attention_desc desc;
        clattn_attention_desc_init(&desc);
        desc.batch = 1;
        desc.query_heads = 4;
        desc.query_len = desc.kv_len = 1024;
        desc.head_dim = 64;
        REQUIRE(clattn_attention_create(&plan, context, &desc) == CLATTN_OK, "%s", clattn_last_error());
        const char *text = clattn_attention_explain(plan);
        CHECK(strstr(text, ignored ? "from the device's limits" : "measured on this device"), "%s", text);
        clattn_attention_destroy(&plan);
        clattn_context_destroy(&context);
    }
}

/* The faster of two kernels is tried first, where it serves the problem. */
static void faster_kernel_goes_first(void) {
    clattn_context *context = open_with("", NULL, false, "emulated:nv");
    REQUIRE(context != NULL, "no context");
    clattn__attn_problem problem = prefill();
    problem.dtype = CLATTN_F16;
    const clattn__params any = {{1}};
    const clattn__measured rows[] = {row_of("prefill-64-16bit", "attn_matrix", any, 2000000),
                                     row_of("prefill-64-16bit", "attn_tiled", any, 1000000)};
    CHECK(clattn__attn_first(context, &problem, NULL) == &clattn__attn_matrix, "the list's order");
    for (int i = 0; i < 2; i++) clattn__tuning_record(context, &rows[i]);
    CHECK(clattn__attn_first(context, &problem, NULL) == &clattn__attn_tiled, "the faster one");
    CHECK(clattn__attn_first(context, &problem, "attn_matrix") == &clattn__attn_matrix, "the one asked for");
    problem.query_len = 64; /* another kind of problem */
    CHECK(clattn__attn_first(context, &problem, NULL) == &clattn__attn_matrix, "the list's order");
    clattn_context_destroy(&context);
}

/* Rows of the table that ships: each field that is set has to match. */
static void shipped_rows_match(void) {
    static const clattn__shipped table[] = {
        {"a", CLATTN_DEVICE_GPU, -1, 0, 1, 90, NULL, "prefill-64-16bit", "attn_matrix", {{1}}, "made up"},
        {"b",
         CLATTN_DEVICE_CPU,
         CLATTN__RUNTIME_POCL,
         16,
         0,
         0,
         "EPYC",
         "prefill-64-16bit",
         "attn_cpu",
         {{2}},
         "made up"},
        {.kernel = NULL}};
    const int workload = clattn__workload_named("prefill-64-16bit");
    char name[] = "an EPYC";
    clattn__caps caps = {.type = CLATTN_DEVICE_GPU, .name = name, .matrix = {.engine = 1, .arch = 90}};
    CHECK(clattn__shipped_in(table, &caps, workload, "attn_matrix") == &table[0], "the engine's row");
    CHECK(!clattn__shipped_in(table, &caps, workload, "attn_tiled"), "another kernel");
    CHECK(!clattn__shipped_in(table, &caps, clattn__workload_named("decode-64-16bit"), "attn_matrix"),
          "another workload");
    caps.matrix.arch = 80;
    CHECK(!clattn__shipped_in(table, &caps, workload, "attn_matrix"), "another architecture");
    caps = (clattn__caps){.type = CLATTN_DEVICE_CPU, .name = name, .runtime = CLATTN__RUNTIME_POCL, .vector_width = 16};
    CHECK(clattn__shipped_in(table, &caps, workload, "attn_cpu") == &table[1], "the CPU's row");
    caps.vector_width = 8;
    CHECK(!clattn__shipped_in(table, &caps, workload, "attn_cpu"), "other lanes");
    caps.vector_width = 16;
    caps.runtime = CLATTN__RUNTIME_NATIVE;
    CHECK(!clattn__shipped_in(table, &caps, workload, "attn_cpu"), "another runtime");
    for (int w = 0; w < clattn__workload_count; w++)
        CHECK(clattn__workload_named(clattn__workloads[w].name) == w, "%s", clattn__workloads[w].name);
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static char file_path[600];

static void find_file(void *user, const char *name) {
    char path[600];
    struct stat about;
    snprintf(path, sizeof path, "%s/%s", (const char *)user, name);
    if (stat(path, &about) == 0 && S_ISDIR(about.st_mode))
        clattn__os_list_dir(path, find_file, path);
    else if (!strstr(name, ".lock")) /* beside it, for processes that write at once */
        snprintf(file_path, sizeof file_path, "%s", path);
}

static char *read_tuning(size_t *count) {
    char tuning[200];
    snprintf(tuning, sizeof tuning, "%s/tuning", cache);
    clattn__os_list_dir(tuning, find_file, tuning);
    return clattn__os_read_file(file_path, 1 << 20, count);
}

/* The body behind a first line that is right about it. */
static void write_signed(const char *body) {
    clattn__text text = {0};
    char hash[33];
    clattn__hash_hex(body, strlen(body), hash);
    clattn__text_add(&text, "clattn-tuning 2 %s\n%s", hash, body);
    CHECK(clattn__os_write_file(file_path, text.data, text.length), "%s could not be written", file_path);
    clattn__text_free(&text);
}

static void check_ignored(clattn_context *context, const char *what, const char *says) {
    reload(context);
    CHECK(chosen(context, NULL) == 0, "%s: used", what);
    CHECK(strstr(warnings, "is ignored") && strstr(warnings, says), "%s: \"%s\" is not in: %s", what, says, warnings);
}

static void damaged_files_are_ignored(void) {
    clattn_context *context = open_context();
    REQUIRE(context != NULL, "no context");
    size_t count = 0;
    record_two(context, 0.5);
    char *good = read_tuning(&count);
    REQUIRE(good && count > 100, "no tuning file in %s", cache);
    if (has_two(context)) {
        for (size_t length = 0; length < count; length += length < 64 ? 1 : 37) { /* cut short */
            CHECK(clattn__os_write_file(file_path, good, length), "%s", file_path);
            check_ignored(context, "cut short", "");
        }
        for (size_t i = 0; i < count; i += 3) { /* one bit */
            good[i] ^= 4;
            CHECK(clattn__os_write_file(file_path, good, count), "%s", file_path);
            check_ignored(context, "one bit", "");
            good[i] ^= 4;
        }
        CHECK(clattn__os_write_file(file_path, good, count), "%s", file_path);
        reload(context);
        CHECK(chosen(context, NULL) == 1 && !warnings[0], "the whole file: %s", warnings);
    }
    clattn__free(good);
    clattn_context_destroy(&context);
}

/* With a right checksum, as somebody would write them who wants something to break. */
static void hostile_files_are_ignored(void) {
    clattn_context *context = open_context();
    REQUIRE(context != NULL, "no context");
    clattn__candidates list;
    const clattn__attn_impl *impl = first_kernel(context, &list);
    record_two(context, 0.5);
    size_t count = 0;
    char *good = read_tuning(&count), body[4096], first[512];
    REQUIRE(good && strchr(good, '\n'), "no tuning file");
    const char *device = strchr(good, '\n') + 1;
    const int length = (int)(strchr(device, '\n') + 1 - device);
    snprintf(first, sizeof first, "%.*s", length, device);
    char own[256]; /* of the kernel: another set than this seems to be faster */
    snprintf(own, sizeof own, "%.*s", (int)strcspn(device + length, "\n") + 1, device + length);
    static const struct {
        const char *line, *says; /* %s: the kernel's name */
    } rows[] = {
        {"prefill-64-32bit %s 1 20261122 0 0 0 0 0 0 0 0\n", NULL}, /* taken, but no candidate */
        {"prefill-64-32bit %s 1 0 1000000 1000000 1000000 1000000 0 0 0 0\n", NULL},
        {"prefill-64-32bit %s 1 0 -16 -4 -4 -128 0 0 0 0\n", NULL},
        {"prefill-64-32bit %s 1 0 16 4 99999999999 128 0 0 0 0\n", "no measurement"},
        {"prefill-64-32bit %s -1 0 16 4 4 128 0 0 0 0\n", "no measurement"},
        {"prefill-64-32bit %s nan 0 16 4 4 128 0 0 0 0\n", "no measurement"},
        {"prefill-64-32bit %s 1 -1 16 4 4 128 0 0 0 0\n", "no measurement"},
        {"prefill-64-32bit %s 1 20261122000 16 4 4 128 0 0 0 0\n", "no measurement"},
        {"prefill-64-32bit %s 1 0 16 4 4 128 0 0 0\n", "no measurement"},
        {"prefill-64-32bit %s 1 0 16 4 4 128 0 0 0 0 0\n", "no measurement"},
        {"prefill-64-32bit %s 1 0 16 4 4 128 0 0 0 0", "no measurement"},
        {"prefill-65-32bit %s 1 0 16 4 4 128 0 0 0 0\n", "no measurement"},
        {"prefill-64-32bit a_name_that_is_far_too_long_for_any_kernel_%s 1 0 0 0 0 0 0 0 0 0\n", "no measurement"},
        {"\n", "no measurement"},
        {"%%s%%n%%s %s\n", "no measurement"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char line[256];
        snprintf(line, sizeof line, rows[i].line, impl->name);
        snprintf(body, sizeof body, "%s%s%s", first, own, line);
        write_signed(body);
        if (rows[i].says) check_ignored(context, line, rows[i].says);
        reload(context);
        CHECK(chosen(context, NULL) == 0, "%s: used", line);
    }
    static const char row[] = "gemm-32bit gemm_cpu 1 0 0 0 0 0 0 0 0 0\n";
    snprintf(body, sizeof body, "%s%s%s", first, row, row);
    write_signed(body);
    check_ignored(context, "twice", "twice");
    snprintf(body, sizeof body, "for %032d another device\n", 0);
    write_signed(body);
    check_ignored(context, "another device", "another device");
    unlink(file_path);
    mkdir(file_path, 0700);
    reload(context);
    CHECK(chosen(context, NULL) == 0, "a folder in the place of the file");
    rmdir(file_path);
    char other[640]; /* what an update of the driver leaves behind */
    snprintf(other, sizeof other, "%.*s%032d", (int)(strlen(file_path) - 32), file_path, 1);
    CHECK(clattn__os_write_file(other, good, count), "%s", other);
    check_ignored(context, "another driver", "another driver");
    unlink(other);
    clattn__free(good);
    clattn_context_destroy(&context);
}

/* ---- measuring --------------------------------------------------------------------------------------------------- */

typedef struct seen {
    int steps, most, wrong, known;
    char last[256];
} seen;

static int count_steps(void *user, const clattn_tune_step *step) {
    seen *s = user;
    if (step->outcome == CLATTN_TUNE_KNOWN) return s->known++, 0;
    if (step->outcome == CLATTN_TUNE_WRONG) {
        s->wrong++;
        snprintf(s->last, sizeof s->last, "%s %s: %s", step->kernel, step->parameters, step->detail);
    }
    CHECK((step->outcome == CLATTN_TUNE_MEASURED) == (step->seconds > 0), "%g seconds", step->seconds);
    CHECK(step->index >= 1 && step->index <= step->count, "step %d of %d", step->index, step->count);
    return ++s->steps >= s->most;
}

static clattn_status tune_some(clattn_context *context, int most, seen *s, clattn_tune_result *result) {
    clattn_tune_options options;
    clattn_tune_options_init(&options);
    *s = (seen){.most = most};
    options.seconds = 120;
    options.progress = count_steps;
    options.user = s;
    return clattn_tune(context, &options, result);
}

/* Stopped and called again it goes on where it was; what is measured is really measured. */
static void goes_on(void) {
    clattn_tune_result first, second;
    seen s;
    char own[160];
    snprintf(own, sizeof own, "%s/goes_on", folder);
    clattn_context *context = open_with(own, NULL, false, NULL);
    REQUIRE(context != NULL, "no context");
    CHECK(tune_some(context, 1, &s, &first) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(first.measured == 1 && first.known == 0 && first.remaining == first.candidates - 1 && first.rejected == 0,
          "%d measured, %d known, %d remaining of %d", first.measured, first.known, first.remaining, first.candidates);
    clattn_context_destroy(&context);
    context = open_with(own, NULL, false, NULL);
    CHECK(tune_some(context, 1, &s, &second) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(second.known == 1 && s.known == 1 && second.measured == 1 && second.remaining == first.remaining - 1,
          "%d measured, %d known", second.measured, second.known);
    clattn_tune_options options;
    clattn_tune_options_init(&options);
    options.seconds = 1e-9; /* no time for anything */
    options.again = 1;
    CHECK(clattn_tune(context, &options, &second) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(second.measured == 0 && second.known == 0 && second.remaining == second.candidates, "%d measured, %d known",
          second.measured, second.known);
    clattn_context_destroy(&context);
}

/* A candidate that computes wrong is reported, kept as unusable, and never chosen. */
static void wrong_ones_are_rejected(void) {
    clattn_context *context = open_with("", NULL, false, NULL);
    REQUIRE(context != NULL, "no context");
    clattn__candidates list;
    const clattn__attn_impl *impl = first_kernel(context, &list);
    clattn_context_destroy(&context);
    if (impl != &clattn__attn_cpu) {
        clattn_test_skip("the mistake is one of attn_cpu's, which this device does not use");
        return;
    }
    const int vectors = list.set[1].value[1]; /* of the first candidate that is not the own choice */
    char mistake[160], own[160];
    snprintf(mistake, sizeof mistake, "#if NV == %d\n#define fma(a, b, c) ((a) * (b) + (c) * 1.001f)\n#endif", vectors);
    snprintf(own, sizeof own, "%s/wrong", folder);
    REQUIRE(planted_copies(kernels, "attn_cpu.cl", mistake, "", ""), "kernels could not be copied");
    context = open_with(own, kernels, false, NULL);
    REQUIRE(context != NULL, "no context");
    clattn_tune_result result;
    seen s;
    CHECK(tune_some(context, 2, &s, &result) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(s.wrong == 1 && result.rejected == 1 && strstr(s.last, "the reference says"), "%d wrong: %s", s.wrong,
          s.last);
    CHECK(chosen(context, NULL) == 0, "the wrong one was chosen");
    CHECK(tune_some(context, 1, &s, &result) == CLATTN_OK && result.known == 2, "%d known", result.known);
    clattn_context_destroy(&context);
}

static void folders_that_take_nothing(void) {
    clattn_tune_result result;
    seen s;
    clattn_context *context = open_with("", NULL, false, NULL);
    REQUIRE(context != NULL, "no context");
    CHECK(tune_some(context, 1, &s, &result) == CLATTN_FILE_FAILED && strstr(clattn_last_error(), "no cache folder"),
          "%s", clattn_last_error());
    CHECK(s.steps == 0, "measured in vain");
    clattn_context_destroy(&context);

    char own[160], tuning[200];
    snprintf(own, sizeof own, "%s/blocked", folder);
    snprintf(tuning, sizeof tuning, "%s/tuning", own);
    mkdir(own, 0700);
    CHECK(clattn__os_write_file(tuning, "", 0), "%s", tuning); /* a file where a folder has to be */
    context = open_with(own, NULL, false, NULL);
    CHECK(tune_some(context, 1, &s, &result) == CLATTN_FILE_FAILED && strstr(clattn_last_error(), tuning), "%s",
          clattn_last_error());
    CHECK(s.steps == 0, "measured in vain");
    clattn_context_destroy(&context);

    /* a full disk: no file may grow */
    context = open_context();
    struct rlimit before;
    record_two(context, 0.5);
    CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0, "getrlimit");
    const struct rlimit none = {0, before.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    CHECK(setrlimit(RLIMIT_FSIZE, &none) == 0, "setrlimit");
    const clattn_status status = tune_some(context, 1, &s, &result);
    CHECK(setrlimit(RLIMIT_FSIZE, &before) == 0, "setrlimit");
    CHECK(status == CLATTN_FILE_FAILED && strstr(clattn_last_error(), "cannot be written"), "%s", clattn_last_error());
    reload(context);
    if (has_two(context)) CHECK(chosen(context, NULL) == 1, "the old file is gone"); /* it is as it was */
    clattn_context_destroy(&context);
}

static void bad_arguments(void) {
    clattn_context *context = open_with("", NULL, false, NULL);
    REQUIRE(context != NULL, "no context");
    clattn_tune_options options;
    clattn_tune_choice choice;
    CHECK(clattn_tune(NULL, NULL, NULL) == CLATTN_INVALID_ARGUMENT, "context NULL");
    CHECK(clattn_tuned(NULL, 0, &choice) == CLATTN_INVALID_ARGUMENT, "context NULL");
    CHECK(clattn_tuned(context, 0, NULL) == CLATTN_INVALID_ARGUMENT, "choice NULL");
    CHECK(clattn_tuned(context, -1, &choice) == CLATTN_INVALID_ARGUMENT, "-1");
    CHECK(clattn_tuned(context, 0, &choice) == CLATTN_INVALID_ARGUMENT, "nothing is tuned");
    const double seconds[] = {-1, NAN, INFINITY};
    for (int i = 0; i < 3; i++) {
        clattn_tune_options_init(&options);
        options.seconds = seconds[i];
        CHECK(clattn_tune(context, &options, NULL) == CLATTN_INVALID_ARGUMENT &&
                  strstr(clattn_last_error(), "options.seconds"),
              "%g: %s", seconds[i], clattn_last_error());
    }
    memset(&options, 0, sizeof options);
    CHECK(clattn_tune(context, &options, NULL) == CLATTN_INVALID_ARGUMENT, "no struct_size");
    clattn_context_destroy(&context);
}

int main(int argc, char **argv) {
    if (!getenv("CLATTN_SOURCE_ROOT") || !mkdtemp(folder))
        return fprintf(stderr, "set CLATTN_SOURCE_ROOT to the source tree\n"), 1;
    snprintf(cache, sizeof cache, "%s/cache", folder);
    snprintf(kernels, sizeof kernels, "%s/cl", folder);
    static const clattn_test use[] = {{"faster_ones_are_taken", faster_ones_are_taken},
                                      {"explained", explained},
                                      {"faster_kernel_goes_first", faster_kernel_goes_first},
                                      {"shipped_rows_match", shipped_rows_match},
                                      {NULL, NULL}};
    static const clattn_test files[] = {{"damaged_files_are_ignored", damaged_files_are_ignored},
                                        {"hostile_files_are_ignored", hostile_files_are_ignored},
                                        {"folders_that_take_nothing", folders_that_take_nothing},
                                        {"both_are_kept", both_are_kept},
                                        {NULL, NULL}};
    static const clattn_test search[] = {{"goes_on", goes_on},
                                         {"wrong_ones_are_rejected", wrong_ones_are_rejected},
                                         {"bad_arguments", bad_arguments},
                                         {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"use", use}, {"files", files}, {"search", search}, {NULL, NULL}};
    const int failed = clattn_test_main(suites, argc, argv);
    planted_remove(folder);
    return failed;
}
