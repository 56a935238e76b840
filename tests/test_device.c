/* Devices as installed: queries, OpenCL errors, quirks that show, contexts, memory and loans. */
#define _POSIX_C_SOURCE 200809L
#include "device/device.h"
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- OpenCL errors ---- */

static void test_cl_errors(void) {
    CHECK(strcmp(clattn__cl_error_name(-5), "CL_OUT_OF_RESOURCES") == 0, "%s", clattn__cl_error_name(-5));
    CHECK(strcmp(clattn__cl_error_name(-4711), "unknown OpenCL error") == 0, "%s", clattn__cl_error_name(-4711));
    CHECK(clattn__cl_fail(-4, "clCreateBuffer", "dev") == CLATTN_OUT_OF_MEMORY, "-4");
    CHECK(strstr(clattn_last_error(), "clCreateBuffer failed with CL_MEM_OBJECT_ALLOCATION_FAILURE (-4) on dev: ") ==
              clattn_last_error(),
          "%s", clattn_last_error());
    CHECK(clattn__cl_fail(-6, "f", NULL) == CLATTN_OUT_OF_MEMORY, "-6");
    CHECK(clattn__cl_fail(-30, "f", NULL) == CLATTN_DEVICE_FAILED, "-30");
    CHECK(strcmp(clattn_last_error(), "f failed with CL_INVALID_VALUE (-30)") == 0, "%s", clattn_last_error());
    CHECK(clattn__cl_fail(-4711, "f", "dev") == CLATTN_DEVICE_FAILED, "-4711");
}

/* ---- the installed devices ---- */

static clattn_device_list *installed(void) {
    clattn_device_list *list = NULL;
    clattn_status status = clattn_device_list_create(&list);
    CHECK(status == CLATTN_OK && list, "status %d: %s", (int)status, clattn_last_error());
    if (list && list->count == 0) {
        clattn_device_list_destroy(&list);
        clattn_test_skip("no OpenCL device is installed");
    }
    return list;
}

static void test_query(void) {
    clattn_device_list *list = installed();
    if (!list) return;
    for (int i = 0; i < list->count; i++) {
        clattn_device_info info;
        REQUIRE(clattn_device_list_get(list, i, &info) == CLATTN_OK, "device %d", i);
        const clattn__caps *caps = &list->devices[i].caps;
        clattn_test_note("%d: %s [%s] %s", i, info.name, info.platform, info.why);
        CHECK(info.index == i && info.name[0] && info.platform[0] && info.why[0], "device %d: names", i);
        CHECK(info.compute_units > 0 && info.global_memory > 0 && info.max_work_group > 0, "%s", info.name);
        CHECK(info.max_allocation > 0 && info.max_allocation <= UINT64_MAX / 2, "%s", info.name);
        CHECK(strlen(info.uuid) == 0 || strlen(info.uuid) == 32, "%s: uuid %s", info.name, info.uuid);
        CHECK(caps->max_item_sizes[0] > 0 && caps->alignment_bytes > 0, "%s", info.name);
        if (info.type == CLATTN_DEVICE_CPU)
            CHECK(info.vector_width == 4 || info.vector_width == 8 || info.vector_width == 16, "%s: %u lanes",
                  info.name, (unsigned)info.vector_width);
        if (info.type == CLATTN_DEVICE_CPU) CHECK(info.unified_memory, "%s: a CPU shares the host's memory", info.name);
        if (strstr(info.name, "avx512"))
            CHECK(info.vector_width == 16, "%s: %u lanes", info.name, (unsigned)info.vector_width);
        if (i > 0) CHECK(list->devices[i - 1].rank >= list->devices[i].rank, "places %d and %d", i - 1, i);
    }
    clattn_device_info info;
    int index;
    CHECK(clattn_device_list_get(list, list->count, &info) == CLATTN_INVALID_ARGUMENT, "behind the end");
    CHECK(clattn_device_list_get(list, -1, &info) == CLATTN_INVALID_ARGUMENT, "before the start");
    CHECK(clattn_device_list_get(NULL, 0, &info) == CLATTN_INVALID_ARGUMENT, "no list");
    CHECK(clattn_device_list_select(list, NULL, NULL) == CLATTN_INVALID_ARGUMENT, "no index");
    CHECK(clattn_device_list_select(list, "0", &index) == CLATTN_OK && index == 0, "index %d", index);
    CHECK(clattn_device_list_skipped(list, list->skipped_count) == NULL, "behind the end");
    clattn_device_list_destroy(&list);
    CHECK(list == NULL, "destroy must clear the pointer");
    clattn_device_list_destroy(&list);
    CHECK(clattn_device_list_count(NULL) == 0, "no list");
}

/* A call that succeeds leaves the last error alone, whatever it had to skip. */
static void test_list_keeps_error(void) {
    clattn__fail(CLATTN_UNSUPPORTED, "older");
    clattn_device_list *list = installed();
    CHECK(strcmp(clattn_last_error(), "older") == 0, "%s", clattn_last_error());
    clattn_device_list_destroy(&list);
}

/* ---- at work ---- */

static int warnings;
static char warning[1024];
static void count_warnings(void *user, clattn_log_level level, const char *message) {
    (void)user;
    if (level > CLATTN_LOG_WARNING) return;
    warnings++;
    snprintf(warning, sizeof warning, "%s", message);
}

static clattn_context_options quiet_options(void) { /* as clattn_context_options_init, but nothing on disk */
    return (clattn_context_options){
        .struct_size = sizeof(clattn_context_options), .cache_dir = "", .log = count_warnings};
}

static bool start_env(clattn__env *env) {
    clattn_device_list *list = installed();
    if (!list) return false;
    clattn_device_list_destroy(&list);
    clattn_context_options options = quiet_options();
    clattn_status status = clattn__env_create(env, &options);
    return CHECK(status == CLATTN_OK, "%s", clattn_last_error());
}

static void test_env(void) {
    clattn__env env;
    if (!start_env(&env)) return;
    CHECK(env.context && env.queue && env.lock && !env.cache_dir && !env.kernel_dir, "members");
    CHECK(env.memory_now == 0 && env.memory_peak == 0 && !env.profiling, "members");
    clattn__env_clear(&env);
    CHECK(!env.context && !env.queue && !env.lock, "clear must leave nothing");
    clattn__env_clear(&env);

    clattn_context_options options = quiet_options();
    options.selector = "device=no such device";
    CHECK(clattn__env_create(&env, &options) == CLATTN_NO_DEVICE && !env.context && !env.lock, "%s",
          clattn_last_error());
    options = quiet_options();
    options.profiling = 1;
    options.kernel_dir = ".";
    REQUIRE(clattn__env_create(&env, &options) == CLATTN_OK, "%s", clattn_last_error());
    cl_command_queue_properties properties = 0;
    clGetCommandQueueInfo(env.queue, CL_QUEUE_PROPERTIES, sizeof properties, &properties, NULL);
    CHECK(env.profiling && (properties & CL_QUEUE_PROFILING_ENABLE), "profiling");
    CHECK(strcmp(env.kernel_dir, ".") == 0, "%s", env.kernel_dir);
    clattn__env_clear(&env);
}

static void test_cache_folder(void) {
    clattn__env env;
    char folder[512], path[600];
    const char *base = getenv("TMPDIR");
    struct stat about;
    if (!start_env(&env)) return;
    clattn__env_clear(&env);
    snprintf(folder, sizeof folder, "%s/clattn-test-XXXXXX", base && base[0] ? base : "/tmp");
    REQUIRE(mkdtemp(folder) != NULL, "no temporary folder");

    clattn_context_options options = quiet_options();
    snprintf(path, sizeof path, "%s/new", folder);
    options.cache_dir = path;
    warnings = 0;
    CHECK(clattn__env_create(&env, &options) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(env.cache_dir && strcmp(env.cache_dir, path) == 0 && warnings == 0, "%s",
          env.cache_dir ? env.cache_dir : "(none)");
    CHECK(stat(path, &about) == 0 && (about.st_mode & 0777) == 0700, "mode %o", (unsigned)about.st_mode);
    clattn__env_clear(&env);
    rmdir(path);

    /* Below a file nothing can be made, not even by root: a warning, and on without. */
    snprintf(path, sizeof path, "%s/file", folder);
    CHECK(clattn__os_write_file(path, "x", 1), "file");
    snprintf(path, sizeof path, "%s/file/cache", folder);
    CHECK(clattn__env_create(&env, &options) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(!env.cache_dir && warnings == 1 && strstr(warning, path), "%d warnings: %s", warnings, warning);
    clattn__env_clear(&env);
    snprintf(path, sizeof path, "%s/file", folder);
    unlink(path);
    rmdir(folder);
}

static cl_uint references(cl_context context, cl_command_queue queue) {
    cl_uint of_context = 0, of_queue = 0;
    clGetContextInfo(context, CL_CONTEXT_REFERENCE_COUNT, sizeof of_context, &of_context, NULL);
    clGetCommandQueueInfo(queue, CL_QUEUE_REFERENCE_COUNT, sizeof of_queue, &of_queue, NULL);
    return of_context * 1000 + of_queue;
}

static void test_adopt(void) {
    clattn__env own, env;
    if (!start_env(&own)) return;
    cl_int code;
    cl_device_id device = own.device.id;
    clattn_context_options options = quiet_options();
    cl_context other = clCreateContext(NULL, 1, &device, NULL, NULL, &code);
    REQUIRE(code == CL_SUCCESS, "clCreateContext: %d", (int)code);
    cl_command_queue out_of_order =
        clCreateCommandQueue(own.context, device, CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE, &code);
    if (code != CL_SUCCESS) out_of_order = NULL;
    cl_uint before = references(own.context, own.queue);

    REQUIRE(clattn__env_adopt(&env, own.context, device, own.queue, &options) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(references(own.context, own.queue) == before + 1001, "both must be retained");
    CHECK(env.context == own.context && env.queue == own.queue && env.device.id == device, "members");
    CHECK(strcmp(env.device.caps.name, own.device.caps.name) == 0, "%s", env.device.caps.name);
    clattn__buffer buffer;
    CHECK(clattn__buffer_create(&env, 64, &buffer) == CLATTN_OK, "%s", clattn_last_error());
    clattn__buffer_clear(&env, &buffer);
    clattn__env_clear(&env);

    const struct {
        cl_context context;
        cl_device_id device;
        cl_command_queue queue;
        const char *text;
    } bad[] = {{NULL, device, own.queue, "context is NULL"},
               {own.context, NULL, own.queue, "device is NULL"},
               {own.context, device, NULL, "queue is NULL"},
               {other, device, own.queue, "queue belongs to another context"},
               {own.context, device, out_of_order, "must be an in-order queue"}};
    for (size_t i = 0; i < CLATTN__COUNT(bad); i++) {
        if (i == 4 && !out_of_order) continue; /* this device has none */
        clattn_status status = clattn__env_adopt(&env, bad[i].context, bad[i].device, bad[i].queue, &options);
        CHECK(status == CLATTN_INVALID_ARGUMENT && strstr(clattn_last_error(), bad[i].text), "case %zu: %s", i,
              clattn_last_error());
        CHECK(!env.context && !env.queue && !env.lock, "case %zu left something", i);
    }
    CHECK(references(own.context, own.queue) == before, "a refused adoption must release all");
    if (out_of_order) clReleaseCommandQueue(out_of_order);
    clReleaseContext(other);
    clattn__env_clear(&own);
}

/* Every allocation on the way to an env fails once: each time an error, and nothing is left behind (the leak checker
 * looks). */
static void test_faults(void) {
    clattn__env env;
    char folder[] = "/tmp";
    if (!start_env(&env)) return;
    clattn__env_clear(&env);
    clattn_context_options options = quiet_options();
    options.kernel_dir = options.cache_dir = folder;
    int failures = 0;
    for (long nth = 1; nth < 1000; nth++) {
        clattn__alloc_fail_after(nth);
        clattn_status status = clattn__env_create(&env, &options);
        clattn__alloc_fail_after(0);
        if (status == CLATTN_OK)
            clattn__env_clear(&env);
        else
            failures++;
        CHECK(status == CLATTN_OK || status == CLATTN_OUT_OF_MEMORY, "allocation %ld: %s", nth, clattn_last_error());
        CHECK(!env.context && !env.lock, "allocation %ld", nth);
        if (status == CLATTN_OK && nth > 3 * (long)failures + 10) break; /* far behind the last allocation */
    }
    CHECK(failures >= 8, "only %d allocations failed", failures);
}

/* ---- memory ---- */

static void test_memory(void) {
    clattn__env env;
    if (!start_env(&env)) return;
    clattn__buffer a, b, c;
    CHECK(clattn__buffer_create(&env, 1000, &a) == CLATTN_OK && a.bytes == 1000, "%s", clattn_last_error());
    CHECK(clattn__buffer_create(&env, 24, &b) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(env.memory_now == 1024 && env.memory_peak == 1024, "%zu %zu", env.memory_now, env.memory_peak);
    clattn__buffer_clear(&env, &a);
    CHECK(!a.mem && !a.bytes && env.memory_now == 24 && env.memory_peak == 1024, "%zu %zu", env.memory_now,
          env.memory_peak);
    clattn__buffer_clear(&env, &a);
    CHECK(env.memory_now == 24, "%zu: clearing twice counts once", env.memory_now);
    CHECK(clattn__buffer_create(&env, 0, &c) == CLATTN_OK && c.mem && c.bytes == 1, "empty: %s", clattn_last_error());
    CHECK(clattn__buffer_write(&env, c.mem, 0, 0, NULL) == CLATTN_OK, "empty write");
    CHECK(clattn__buffer_read(&env, c.mem, 0, 0, NULL) == CLATTN_OK, "empty read");

    char out[24] = {0};
    CHECK(clattn__buffer_write(&env, b.mem, 0, 24, "abcdefghijklmnopqrstuvw") == CLATTN_OK, "%s", clattn_last_error());
    CHECK(clattn__buffer_write(&env, b.mem, 4, 3, "EFG") == CLATTN_OK, "%s", clattn_last_error());
    CHECK(clattn__buffer_read(&env, b.mem, 2, 22, out) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(strcmp(out, "cdEFGhijklmnopqrstuvw") == 0, "%s", out);
    CHECK(clattn__buffer_read(&env, b.mem, 20, 8, out) != CLATTN_OK, "read behind the end");

    size_t huge = (size_t)env.device.caps.max_allocation + 1;
    char digits[32];
    clattn__buffer none = {b.mem, 5};
    CHECK(clattn__buffer_create(&env, huge, &none) == CLATTN_OUT_OF_MEMORY && !none.mem, "%zu bytes", huge);
    snprintf(digits, sizeof digits, "%zu bytes", huge);
    CHECK(strstr(clattn_last_error(), digits) != NULL, "%s", clattn_last_error());
    snprintf(digits, sizeof digits, "%zu bytes", huge - 1);
    CHECK(strstr(clattn_last_error(), digits) != NULL, "%s", clattn_last_error());
    clattn__buffer_clear(&env, &b);
    clattn__buffer_clear(&env, &c);
    CHECK(env.memory_now == 0, "%zu bytes left", env.memory_now);
    clattn__env_clear(&env);
}

/* Stands for a kernel: copies `bytes` from one buffer to another on the device. */
static void device_copy(clattn__env *env, cl_mem from, cl_mem to, size_t offset, size_t bytes) {
    cl_int code = clEnqueueCopyBuffer(env->queue, from, to, offset, offset, bytes, 0, NULL, NULL);
    CHECK(code == CL_SUCCESS, "clEnqueueCopyBuffer: %d", (int)code);
}

/* One run: an input and an output are lent, `bytes` in the middle of the output are written by the device. */
static void check_loans(bool unified, size_t bytes, size_t misplaced) {
    clattn__env env;
    if (!start_env(&env)) return;
    env.device.caps.unified_memory = unified;
    unsigned char *in_zone = clattn_guard_alloc(bytes + misplaced), *out_zone = clattn_guard_alloc(bytes + misplaced);
    unsigned char *in = in_zone + misplaced, *out = out_zone + misplaced;
    clattn__buffer in_staging = {0}, out_staging = {0};
    size_t gap = bytes > 64 ? 16 : 0; /* bytes at both ends that the device leaves alone */
    for (size_t run = 0; run < 3; run++) {
        clattn__loan input, output;
        for (size_t i = 0; i < bytes; i++) in[i] = (unsigned char)(i * 7 + run);
        memset(out, (int)(200 + run), bytes);
        CHECK(clattn__loan_begin(&env, in, bytes, false, &in_staging, &input) == CLATTN_OK, "%s", clattn_last_error());
        CHECK(clattn__loan_begin(&env, out, bytes, true, &out_staging, &output) == CLATTN_OK, "%s",
              clattn_last_error());
        REQUIRE(input.mem && output.mem, "unified %d, %zu bytes", unified, bytes);
        CHECK(input.wrapped == (unified && bytes > 0), "unified %d, %zu bytes", unified, bytes);
        CHECK(env.memory_now == in_staging.bytes + out_staging.bytes, "%zu bytes counted", env.memory_now);
        if (input.wrapped) CHECK(env.memory_now == 0, "wrapped memory takes none, %zu counted", env.memory_now);
        if (bytes > 2 * gap) device_copy(&env, input.mem, output.mem, gap, bytes - 2 * gap);
        cl_event last = NULL;
        CHECK(clattn__loan_return(&env, &input, &last) == CLATTN_OK && !last, "inputs do not come back");
        CHECK(clattn__loan_return(&env, &output, &last) == CLATTN_OK, "%s", clattn_last_error());
        CHECK((last != NULL) == (bytes > 0), "%zu bytes: event %p", bytes, (void *)last);
        CHECK(!last || (clWaitForEvents(1, &last) == CL_SUCCESS && clReleaseEvent(last) == CL_SUCCESS), "waiting");
        clattn__loan_end(&output);
        clattn__loan_end(&input);
        CHECK(!input.mem && !output.mem, "end must clear");
        clattn__loan_end(&output); /* a second end does nothing */
        size_t bad = 0;
        for (size_t i = 0; i < bytes; i++) {
            unsigned char want =
                i < gap || i >= bytes - gap ? (unsigned char)(200 + run) : (unsigned char)(i * 7 + run);
            if (out[i] != want) bad++;
            if (in[i] != (unsigned char)(i * 7 + run)) bad++;
        }
        CHECK(bad == 0, "unified %d, %zu bytes, run %zu: %zu bytes are wrong", unified, bytes, run, bad);
    }
    CHECK(clattn_guard_intact(in_zone) && clattn_guard_intact(out_zone), "unified %d, %zu bytes", unified, bytes);
    clattn__buffer_clear(&env, &in_staging);
    clattn__buffer_clear(&env, &out_staging);
    CHECK(env.memory_now == 0, "%zu bytes left", env.memory_now);
    clattn_guard_free(in_zone);
    clattn_guard_free(out_zone);
    clattn__env_clear(&env);
}

static const size_t loan_sizes[] = {0, 1, 3, 64, 4096, 100003};

static void test_loans_wrapped(void) {
    clattn__env env;
    if (!start_env(&env)) return;
    bool unified = env.device.caps.unified_memory;
    clattn__env_clear(&env);
    if (!unified) {
        clattn_test_skip("the device has memory of its own");
        return;
    }
    for (size_t i = 0; i < CLATTN__COUNT(loan_sizes); i++) {
        check_loans(true, loan_sizes[i], 0);
        check_loans(true, loan_sizes[i], 4); /* floats somewhere in the caller's memory */
    }
}

static void test_loans_staged(void) {
    for (size_t i = 0; i < CLATTN__COUNT(loan_sizes); i++) check_loans(false, loan_sizes[i], 4);
}

static void test_loans_in_place(void) {
    static const struct {
        clattn_device_type type;
        bool unified;
        uintptr_t at;
        size_t bytes;
        bool in_place;
    } rows[] = {{CLATTN_DEVICE_CPU, true, 4096, 64, true},   {CLATTN_DEVICE_CPU, true, 4100, 60, true},
                {CLATTN_DEVICE_CPU, true, 4096, 0, false},   {CLATTN_DEVICE_GPU, true, 8192, 128, true},
                {CLATTN_DEVICE_GPU, true, 8192, 100, false}, {CLATTN_DEVICE_GPU, true, 8256, 128, false},
                {CLATTN_DEVICE_GPU, false, 8192, 128, false}};
    for (size_t i = 0; i < CLATTN__COUNT(rows); i++) {
        const clattn__caps caps = {.type = rows[i].type, .unified_memory = rows[i].unified};
        CHECK(clattn__loan_in_place(&caps, (const void *)rows[i].at, rows[i].bytes) == rows[i].in_place,
              "type %d, unified %d, %zu bytes at %zu", (int)rows[i].type, rows[i].unified, rows[i].bytes,
              (size_t)rows[i].at);
    }
}

static void test_staging_growth(void) {
    static char zone[512];
    clattn__env env;
    if (!start_env(&env)) return;
    env.device.caps.unified_memory = false;
    clattn__buffer staging = {0};
    const size_t sizes[] = {100, 0, 50, 400, 100}, kept[] = {100, 100, 100, 400, 400};
    for (size_t i = 0; i < CLATTN__COUNT(sizes); i++) {
        clattn__loan loan;
        CHECK(clattn__loan_begin(&env, zone, sizes[i], false, &staging, &loan) == CLATTN_OK, "%s", clattn_last_error());
        CHECK(staging.bytes == kept[i] && env.memory_now == kept[i], "step %zu: %zu bytes", i, staging.bytes);
        clFinish(env.queue);
        clattn__loan_end(&loan);
    }
    CHECK(env.memory_peak == 400, "the old buffer goes before the new one comes: peak %zu", env.memory_peak);
    clattn__loan loan;
    size_t huge = (size_t)env.device.caps.max_allocation + 1;
    CHECK(clattn__loan_begin(&env, zone, huge, false, &staging, &loan) == CLATTN_OUT_OF_MEMORY, "%zu bytes", huge);
    CHECK(!loan.mem, "a loan that failed holds nothing");
    clattn__loan_end(&loan);
    clattn__buffer_clear(&env, &staging);
    clattn__env_clear(&env);
}

/* ---- in a process of its own: the loader and the drivers read their environment once ---- */

enum { CHILD_GOOD = 0, CHILD_BAD = 1, CHILD_SKIP = 77, CHILD_CRASH = 99 };
static char *program;

/* Runs `program --child body argument` with one more environment variable; CHILD_CRASH when a signal ended it. */
static int in_child(const char *body, const char *argument, const char *const *variables, bool quiet) {
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) return CHILD_SKIP;
    if (child == 0) {
        char *const arguments[] = {program, (char *)"--child", (char *)body, (char *)argument, NULL};
        for (; variables && *variables; variables += 2) setenv(variables[0], variables[1], 1);
        if (quiet && !freopen("/dev/null", "w", stderr)) _exit(CHILD_BAD);
        execv(program, arguments);
        _exit(CHILD_BAD);
    }
    int state = 0;
    if (waitpid(child, &state, 0) != child) return CHILD_BAD;
    return WIFEXITED(state) ? WEXITSTATUS(state) : CHILD_CRASH;
}

static int child_fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, clattn_last_error());
    return CHILD_BAD;
}

/* No platform at all: an empty list is a success, choosing from it an error with a hint. */
static int child_no_platform(void) {
    clattn_device_list *list = NULL;
    int index;
    if (clattn_device_list_create(&list) != CLATTN_OK) return child_fail("an empty list is a success");
    int count = list->count, skipped = list->skipped_count;
    clattn_status status = clattn_device_list_select(list, NULL, &index);
    clattn_device_list_destroy(&list);
    if (count > 0) return CHILD_SKIP; /* a loader that looks elsewhere too */
    if (skipped > 0 || status != CLATTN_NO_DEVICE || !strstr(clattn_last_error(), "pocl-opencl-icd"))
        return child_fail("select from nothing");
    clattn__env env;
    clattn_context_options options = quiet_options();
    if (clattn__env_create(&env, &options) != CLATTN_NO_DEVICE || env.context) return child_fail("env");
    return CHILD_GOOD;
}

/* pocl without a folder to write to fails; it is left out with a reason that helps. */
static int child_broken_pocl(void) {
    clattn_device_list *list = NULL;
    if (clattn_device_list_create(&list) != CLATTN_OK) return child_fail("a broken platform is skipped");
    int result = CHILD_SKIP;
    for (int i = 0; i < list->skipped_count; i++) {
        const char *reason = list->skipped[i];
        if (!strstr(reason, "Portable Computing Language")) continue;
        result =
            strstr(reason, "POCL_CACHE_DIR") && strstr(reason, "CL_DEVICE_NOT_FOUND (-1)") ? CHILD_GOOD : CHILD_BAD;
    }
    int index;
    if (result == CHILD_GOOD && clattn_device_list_select(list, "vendor=pocl", &index) == CLATTN_NO_DEVICE &&
        !strstr(clattn_last_error(), "left out:"))
        result = child_fail("the error must say what was left out");
    clattn_device_list_destroy(&list);
    return result;
}

static cl_program build_tiny(clattn__env *env) {
    const char *source = "__kernel void tiny(__global float *x) { x[get_global_id(0)] += 1; }";
    cl_int code;
    cl_program tiny = clCreateProgramWithSource(env->context, 1, &source, NULL, &code);
    if (!tiny || clBuildProgram(tiny, 1, &env->device.id, "-cl-std=CL1.2", NULL, NULL) != CL_SUCCESS) return NULL;
    return tiny;
}

static bool env_of(const char *selector, clattn__env *env) {
    clattn_context_options options = quiet_options();
    options.selector = selector;
    return clattn__env_create(env, &options) == CLATTN_OK;
}

/* Loads the first half of a program binary; a sound driver answers with an error. */
static int child_half_binary(const char *selector) {
    clattn__env env;
    if (!env_of(selector, &env)) return CHILD_SKIP;
    cl_program tiny = build_tiny(&env);
    size_t bytes = 0;
    if (!tiny || clGetProgramInfo(tiny, CL_PROGRAM_BINARY_SIZES, sizeof bytes, &bytes, NULL) || bytes < 2)
        return CHILD_SKIP;
    unsigned char *binary = malloc(bytes);
    if (!binary || clGetProgramInfo(tiny, CL_PROGRAM_BINARIES, sizeof binary, &binary, NULL)) return CHILD_SKIP;
    const unsigned char *half = binary;
    size_t half_bytes = bytes / 2;
    cl_int state, code;
    cl_program loaded = clCreateProgramWithBinary(env.context, 1, &env.device.id, &half_bytes, &half, &state, &code);
    if (loaded) {
        clBuildProgram(loaded, 1, &env.device.id, "", NULL, NULL);
        clReleaseProgram(loaded);
    }
    clReleaseProgram(tiny);
    free(binary);
    clattn__env_clear(&env);
    return CHILD_GOOD;
}

static void test_no_platform(void) {
    const char *const variables[] = {"OCL_ICD_VENDORS", "/nonexistent-folder/", "OCL_ICD_FILENAMES", "", NULL};
    int result = in_child("no-platform", "", variables, false);
    if (result == CHILD_SKIP)
        clattn_test_skip("the loader finds platforms without being told where");
    else
        CHECK(result == CHILD_GOOD, "the child ended with %d", result);
}

static void test_broken_platform(void) {
    const char *const variables[] = {"POCL_CACHE_DIR",
                                     "/proc/nonexistent",
                                     "XDG_CACHE_HOME",
                                     "/proc/nonexistent",
                                     "HOME",
                                     "/proc/nonexistent",
                                     NULL};
    int result = in_child("broken-pocl", "", variables, false);
    if (result == CHILD_SKIP)
        clattn_test_skip("no pocl here that needs a folder");
    else
        CHECK(result == CHILD_GOOD, "the child ended with %d", result);
}

/* The rows of the quirks table that the installed devices can show. */
static void test_quirks_shown(void) {
    clattn_device_list *list = installed();
    if (!list) return;
    int count = list->count;
    clattn_device_list_destroy(&list);
    for (int i = 0; i < count; i++) {
        char selector[16];
        clattn__env env;
        snprintf(selector, sizeof selector, "%d", i);
        REQUIRE(env_of(selector, &env), "%s", clattn_last_error());
        const clattn__caps *caps = &env.device.caps;
        cl_program tiny = build_tiny(&env);
        if (!CHECK(tiny != NULL, "%s cannot build the simplest kernel", caps->name)) {
            clattn__env_clear(&env);
            continue;
        }
        char log[4096] = "";
        clGetProgramBuildInfo(tiny, env.device.id, CL_PROGRAM_BUILD_LOG, sizeof log - 1, log, NULL);
        if (caps->quirks & CLATTN__QUIRK_LOG_NEVER_EMPTY)
            CHECK(log[0] != '\0', "%s: the build log is empty; is the quirk over?", caps->name);
        if (caps->quirks & CLATTN__QUIRK_BINARY_CRASHES) {
            int result = in_child("half-binary", selector, NULL, true);
            CHECK(result != CHILD_GOOD && result != CHILD_SKIP, "%s %s survives half a binary; is the quirk over?",
                  caps->name, caps->driver);
        }
        clReleaseProgram(tiny);
        clattn__env_clear(&env);
    }
}

static const clattn_test driver_tests[] = {{"quirks", test_quirks_shown}, {"errors", test_cl_errors}, {NULL, NULL}};
static const clattn_test list_tests[] = {{"no_platform", test_no_platform},
                                         {"broken_platform", test_broken_platform},
                                         {"query", test_query},
                                         {"keeps_error", test_list_keeps_error},
                                         {NULL, NULL}};
static const clattn_test env_tests[] = {{"create", test_env},
                                        {"cache_folder", test_cache_folder},
                                        {"adopt", test_adopt},
                                        {"faults", test_faults},
                                        {NULL, NULL}};
static const clattn_test buffer_tests[] = {{"memory", test_memory},
                                           {"loans_wrapped", test_loans_wrapped},
                                           {"loans_staged", test_loans_staged},
                                           {"loans_in_place", test_loans_in_place},
                                           {"staging_growth", test_staging_growth},
                                           {NULL, NULL}};
static const clattn_test_suite suites[] = {
    {"driver", driver_tests}, {"list", list_tests}, {"env", env_tests}, {"buffer", buffer_tests}, {NULL, NULL}};

int main(int argc, char **argv) {
    program = argv[0];
    if (argc == 4 && strcmp(argv[1], "--child") == 0) {
        if (strcmp(argv[2], "no-platform") == 0) return child_no_platform();
        if (strcmp(argv[2], "broken-pocl") == 0) return child_broken_pocl();
        return child_half_binary(argv[3]);
    }
    return clattn_test_main(suites, argc, argv);
}
