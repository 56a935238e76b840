/* Kernel text, build options, builds and launches. */
#define _XOPEN_SOURCE 700 /* mkdtemp */

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"
#include "kernels/impl.h"

/* ---- a device, a folder for kernels, and a log ------------------------------------------------------------------ */

static clattn__env env;
static clattn__programs programs;

typedef struct captured {
    clattn_log_level level[16];
    char *text[16];
    int count;
} captured;

static void capture(void *user, clattn_log_level level, const char *message) {
    captured *log = user;
    if (log->count == (int)CLATTN__COUNT(log->text)) return;
    log->level[log->count] = level;
    log->text[log->count++] = clattn__strdup(message);
}

static captured logged;

static void forget_log(void) {
    for (int i = 0; i < logged.count; i++) clattn__free(logged.text[i]);
    logged.count = 0;
}

/* The logged message of this level that holds `part`, or NULL. */
static const char *logged_text(clattn_log_level level, const char *part) {
    for (int i = 0; i < logged.count; i++)
        if (logged.level[i] == level && logged.text[i] && strstr(logged.text[i], part)) return logged.text[i];
    return NULL;
}

static bool open_device_keeping(const char *kernel_dir, const char *cache_dir) {
    clattn_context_options options;
    clattn_context_options_init(&options);
    options.cache_dir = cache_dir;
    options.kernel_dir = kernel_dir;
    options.log = capture;
    options.log_user = &logged;
    if (!CHECK(clattn__env_create(&env, &options) == CLATTN_OK, "%s", clattn_last_error())) return false;
    return CHECK(clattn__programs_create(&programs, &env) == CLATTN_OK, "%s", clattn_last_error());
}

static bool open_device(const char *kernel_dir) { return open_device_keeping(kernel_dir, ""); }

static void close_device(void) {
    clattn__programs_clear(&programs);
    clattn__env_clear(&env);
    forget_log();
}

static char folder[64];
static const char *made[16]; /* files in the folder */
static int made_count;

static bool make_folder(void) {
    made_count = 0;
    snprintf(folder, sizeof folder, "/tmp/clattn-test-XXXXXX");
    return CHECK(mkdtemp(folder) != NULL, "%s", folder);
}

static void put_file(const char *name, const char *text) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    CHECK(clattn__os_write_file(path, text, strlen(text)), "%s", path);
    for (int i = 0; i < made_count; i++)
        if (strcmp(made[i], name) == 0) return;
    made[made_count++] = name;
}

static void remove_folder(void) {
    char path[128];
    while (made_count > 0) {
        snprintf(path, sizeof path, "%s/%s", folder, made[--made_count]);
        remove(path);
    }
    snprintf(path, sizeof path, "%s/inc", folder);
    rmdir(path);
    rmdir(folder);
}

static bool error_has(const char *part) { return strstr(clattn_last_error(), part) != NULL; }

/* ---- source ----------------------------------------------------------------------------------------------------- */

static int times(const char *text, const char *part) {
    int count = 0;
    for (const char *at = strstr(text, part); at; at = strstr(at + 1, part)) count++;
    return count;
}

static void test_embedded(void) {
    char *text = NULL;
    REQUIRE(clattn__source_load(NULL, "gemm_cpu.cl", &text) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(times(text, "typedef struct clattn_gemm_args") == 1, "shared/args.h is put in once");
    CHECK(!strstr(text, "#include \""), "no include is left");
    CHECK(strstr(text, "gemm_cpu_body"), "the file itself is there");
    clattn__free(text);

    CHECK(clattn__source_load(NULL, "no_such.cl", &text) == CLATTN_FILE_FAILED && !text, "a file that does not exist");
    CHECK(error_has("no_such.cl"), "%s", clattn_last_error());
    for (const clattn__embedded_file *row = clattn__embedded_files; row->name; row++)
        CHECK(row->count > 0 && row->bytes[0] != 0, "%s is empty", row->name);
}

static void test_includes(void) {
    char *text = NULL;
    if (!make_folder()) return;
    put_file("a.cl", "  #  include \"b.clh\" /* twice */\n#include \"c.clh\"\n#include \"b.clh\"\nint a;\n");
    put_file("b.clh", "#include \"c.clh\"\nint b;");
    put_file("c.clh", "int c;\n/* #include <stdint.h> stays */\n#include <math.h>\n");
    if (CHECK(clattn__source_load(folder, "a.cl", &text) == CLATTN_OK, "%s", clattn_last_error())) {
        CHECK(times(text, "int a;") == 1 && times(text, "int b;") == 1 && times(text, "int c;") == 1, "each once: %s",
              text);
        CHECK(strstr(text, "int c;") < strstr(text, "int b;") && strstr(text, "int b;") < strstr(text, "int a;"),
              "order: %s", text);
        CHECK(strstr(text, "#include <math.h>"), "system includes are left alone: %s", text);
        CHECK(strstr(text, "#line 4 \"a.cl\""), "lines are counted on: %s", text);
    }
    clattn__free(text);

    put_file("b.clh", "#include \"missing.clh\"\n");
    CHECK(clattn__source_load(folder, "a.cl", &text) == CLATTN_FILE_FAILED && !text, "a missing include");
    CHECK(error_has("missing.clh") && error_has("included from \"b.clh\"") && error_has("included from \"a.cl\""), "%s",
          clattn_last_error());
    put_file("b.clh", "#include \"../outside.clh\"\n");
    CHECK(clattn__source_load(folder, "a.cl", &text) == CLATTN_FILE_FAILED && error_has("inside the kernel folder"),
          "%s", clattn_last_error());
    put_file("b.clh", "#include \"a.cl\"\nint b;\n");
    CHECK(clattn__source_load(folder, "a.cl", &text) == CLATTN_OK, "a circle ends: %s", clattn_last_error());
    clattn__free(text);
    put_file("a.cl", "");
    CHECK(clattn__source_load(folder, "a.cl", &text) == CLATTN_OK && text, "an empty file: %s", clattn_last_error());
    clattn__free(text);
    remove_folder();
}

/* The build option poison_local: kernels with local memory fill it, the others stay as they are. */
static void test_poisoned(void) {
#ifdef CLATTN_POISON_LOCAL
    const int wanted = 1;
#else
    const int wanted = 0;
#endif
    static const char *const files[] = {"softmax.cl", "norm.cl", "gemm_tiled.cl", "attn_tiled.cl", "gemm_cpu.cl"};
    for (size_t i = 0; i < CLATTN__COUNT(files); i++) {
        char *text = NULL;
        REQUIRE(clattn__source_load(NULL, files[i], &text) == CLATTN_OK, "%s", clattn_last_error());
        const int expected = strstr(text, "    __local ") ? wanted : 0;
        CHECK(times(text, "#define POISON_LOCAL\n") == expected, "%s", files[i]);
        clattn__free(text);
    }
}

/* Every allocation of an expansion fails once: an error, no crash, no leak. */
static void test_source_out_of_memory(void) {
    for (long nth = 1; nth < 200; nth++) {
        char *text = NULL;
        clattn__alloc_fail_after(nth);
        clattn_status status = clattn__source_load(NULL, "gemm_tiled.cl", &text);
        clattn__alloc_fail_after(0);
        if (status == CLATTN_OK) {
            clattn__free(text);
            CHECK(nth > 3, "only %ld allocations were made to fail", nth - 1);
            return;
        }
        CHECK(!text && status != CLATTN_OK, "allocation %ld", nth);
    }
    CHECK(false, "more than 200 allocations");
}

/* Every word of poisoned local memory is NaN. */
static void test_poison(void) {
    enum { WORDS = 21 };
    static const char reader[] =
        "#define POISON_LOCAL\n#include \"inc/local.clh\"\n"
        "__kernel __attribute__((reqd_work_group_size(8, 1, 1))) void read(__global float *to) {\n"
        "    __local float words[21];\n"
        "    const int item = (int)get_local_id(0);\n"
        "    POISON(words, item, 8);\n"
        "    for (int i = item; i < 21; i += 8) to[i] = words[20 - i];\n"
        "}\n";
    char *local = NULL, inc[128];
    clattn__options options;
    clattn__program *program = NULL;
    clattn__launch launch = {.dims = 1, .global = {8}, .local = {8}};
    clattn__buffer buffer = {0};
    float seen[WORDS] = {0};
    if (!make_folder()) return;
    snprintf(inc, sizeof inc, "%s/inc", folder);
    REQUIRE(mkdir(inc, 0700) == 0, "%s", inc);
    REQUIRE(clattn__source_load(NULL, "inc/local.clh", &local) == CLATTN_OK, "%s", clattn_last_error());
    put_file("inc/local.clh", strstr(local, "/* What"));
    put_file("reader.cl", reader);
    clattn__free(local);
    if (open_device(folder)) {
        clattn__options_start(&options);
        clattn_status status = clattn__program_get(&programs, "reader.cl", &options, &program);
        if (status == CLATTN_OK) status = clattn__kernel_create(&programs, program, "read", &launch.kernel);
        if (status == CLATTN_OK) status = clattn__buffer_create(&env, sizeof seen, &buffer);
        if (status == CLATTN_OK) status = clattn__arg_mem(&env, launch.kernel, 0, buffer.mem);
        if (status == CLATTN_OK) status = clattn__launch_enqueue(&env, &launch);
        if (status == CLATTN_OK) status = clattn__buffer_read(&env, buffer.mem, 0, sizeof seen, seen);
        CHECK(status == CLATTN_OK, "%s", clattn_last_error());
        for (int i = 0; i < WORDS; i++) CHECK(isnan(seen[i]), "word %d is %g", WORDS - 1 - i, (double)seen[i]);
        if (launch.kernel) clReleaseKernel(launch.kernel);
        clattn__buffer_clear(&env, &buffer);
    }
    close_device();
    remove_folder();
}

/* ---- options ---------------------------------------------------------------------------------------------------- */

static void test_options(void) {
    clattn__options a, b;
    memset(&b, 0xA5, sizeof b);
    for (int i = 0; i < 2; i++) {
        clattn__options *o = i == 0 ? &a : &b;
        clattn__options_start(o);
        clattn__options_int(o, "TILE", 64);
        clattn__options_int(o, "LOW", -3);
        clattn__options_flag(o, "FLAG");
    }
    CHECK(strcmp(a.text, b.text) == 0 && a.length == b.length, "\"%s\" and \"%s\"", a.text, b.text);
    CHECK(strcmp(a.text, "-cl-std=CL1.2 -DTILE=64 -DLOW=-3 -DFLAG") == 0, "\"%s\"", a.text);
    CHECK(!a.overflow, "fits");
    for (int i = 0; i < 500; i++) clattn__options_int(&a, "A_LONG_NAME", i);
    CHECK(a.overflow && strlen(a.text) < sizeof a.text, "the overflow is remembered, the text stays inside");
}

/* ---- builds ----------------------------------------------------------------------------------------------------- */

static const char good[] = "#include \"inc.clh\"\n"
                           "__kernel void answer(__global int *out, __global int *nothing) {\n"
                           "    out[0] = VALUE; out[1] = TOLD; out[2] = nothing == 0;\n}\n";

static int ask(clattn__program *program, int *told) {
    cl_kernel kernel = NULL;
    clattn__buffer out = {0};
    int answer[3] = {-1, -1, -1};
    clattn_status status = clattn__kernel_create(&programs, program, "answer", &kernel);
    if (status == CLATTN_OK) status = clattn__buffer_create(&env, sizeof answer, &out);
    if (status == CLATTN_OK) status = clattn__arg_mem(&env, kernel, 0, out.mem);
    if (status == CLATTN_OK) status = clattn__arg_mem(&env, kernel, 1, NULL);
    const clattn__launch launch = {.kernel = kernel, .dims = 1, .global = {1}};
    if (status == CLATTN_OK) status = clattn__launch_enqueue(&env, &launch);
    if (status == CLATTN_OK) status = clattn__buffer_read(&env, out.mem, 0, sizeof answer, answer);
    CHECK(status == CLATTN_OK, "%s", clattn_last_error());
    CHECK(answer[2] == 1, "a NULL buffer is a null pointer in the kernel");
    clattn__buffer_clear(&env, &out);
    if (kernel) clReleaseKernel(kernel);
    *told = answer[1];
    return answer[0];
}

static void test_build_and_cache(void) {
    clattn__options options, other;
    clattn__program *first = NULL, *again = NULL, *second = NULL;
    int told = 0;
    if (!make_folder()) return;
    put_file("good.cl", good);
    put_file("inc.clh", "#define VALUE 42\n");
    if (open_device(folder)) {
        clattn__options_start(&options);
        clattn__options_int(&options, "TOLD", 7);
        clattn__options_start(&other);
        clattn__options_int(&other, "TOLD", 8);
        CHECK(clattn__program_get(&programs, "good.cl", &options, &first) == CLATTN_OK, "%s", clattn_last_error());
        CHECK(clattn__program_get(&programs, "good.cl", &options, &again) == CLATTN_OK, "%s", clattn_last_error());
        CHECK(clattn__program_get(&programs, "good.cl", &other, &second) == CLATTN_OK, "%s", clattn_last_error());
        CHECK(first && first == again && first != second, "one program per file and options");
        if (first && second) {
            CHECK(strlen(first->key) == 32 && strcmp(first->key, second->key) != 0, "keys %s and %s", first->key,
                  second->key);
            CHECK(ask(first, &told) == 42 && told == 7, "the folder's text and the options are in the program");
            CHECK(ask(second, &told) == 42 && told == 8, "the other options");
            CHECK(logged_text(CLATTN_LOG_DEBUG, "built good.cl"), "a build is logged at debug level");
            CHECK(!logged_text(CLATTN_LOG_ERROR, ""), "no error is logged");
        }
        cl_kernel kernel;
        CHECK(first && clattn__kernel_create(&programs, first, "absent", &kernel) == CLATTN_DEVICE_FAILED && !kernel,
              "no such kernel");
        CHECK(error_has("absent") && error_has("good.cl") && error_has("CL_INVALID_KERNEL_NAME"), "%s",
              clattn_last_error());

        char key[33];
        snprintf(key, sizeof key, "%s", first ? first->key : "");
        close_device();
        put_file("inc.clh", "#define VALUE 43\n");
        if (open_device(folder) && clattn__program_get(&programs, "good.cl", &options, &first) == CLATTN_OK) {
            CHECK(strcmp(key, first->key) != 0, "an include's text is part of the key");
            CHECK(ask(first, &told) == 43, "the new text is used");
        }
    }
    close_device();
    remove_folder();
}

static void test_build_failure(void) {
    clattn__options options;
    clattn__program *program = NULL;
    if (!make_folder()) return;
    clattn__text text = {0};
    clattn__text_add(&text, "__kernel void broken(__global int *out) {\n");
    for (int i = 0; i < 30; i++) clattn__text_add(&text, "    out[%d] = this_name_is_not_declared_%d;\n", i, i);
    clattn__text_add(&text, "}\n");
    put_file("broken.cl", text.data);
    clattn__text_free(&text);
    if (open_device(folder)) {
        clattn__options_start(&options);
        CHECK(clattn__program_get(&programs, "broken.cl", &options, &program) == CLATTN_BUILD_FAILED && !program, "%s",
              clattn_last_error());
        CHECK(error_has("broken.cl") && error_has("CL_BUILD_PROGRAM_FAILURE") && error_has(env.device.caps.name) &&
                  error_has(env.device.caps.driver) && error_has("this_name_is_not_declared_0"),
              "%s", clattn_last_error());
        CHECK(strlen(clattn_last_error()) < 4096, "an excerpt: %zu bytes", strlen(clattn_last_error()));
        const char *log = logged_text(CLATTN_LOG_ERROR, "this_name_is_not_declared_0");
        CHECK(log != NULL, "the log callback got the build log");
        CHECK(programs.first == NULL, "nothing half-built is kept");
        CHECK(clattn__program_get(&programs, "missing.cl", &options, &program) == CLATTN_FILE_FAILED &&
                  error_has("missing.cl"),
              "%s", clattn_last_error());
        for (int i = 0; i < 500; i++) clattn__options_int(&options, "A_LONG_NAME", i);
        CHECK(clattn__program_get(&programs, "broken.cl", &options, &program) == CLATTN_BUILD_FAILED &&
                  error_has("options"),
              "%s", clattn_last_error());
    }
    close_device();
    remove_folder();
}

static void *get_in_thread(void *out) {
    clattn__options options;
    clattn__options_start(&options);
    clattn__options_int(&options, "TOLD", 9);
    if (clattn__program_get(&programs, "good.cl", &options, out) != CLATTN_OK) *(clattn__program **)out = NULL;
    return NULL;
}

static void test_threads(void) {
    pthread_t threads[4];
    clattn__program *got[4] = {NULL};
    if (!make_folder()) return;
    put_file("good.cl", good);
    put_file("inc.clh", "#define VALUE 42\n");
    if (open_device(folder)) {
        for (int i = 0; i < 4; i++)
            CHECK(pthread_create(&threads[i], NULL, get_in_thread, &got[i]) == 0, "thread %d", i);
        for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
        for (int i = 0; i < 4; i++) CHECK(got[i] && got[i] == got[0], "thread %d got its own program", i);
    }
    close_device();
    remove_folder();
}

/* ---- launches --------------------------------------------------------------------------------------------------- */

static const char echo[] =
    "#include \"args.h\"\n"
    "__kernel void attn(const clattn_attn_args a, __global long *out) {\n"
    "    out[0] = sizeof(a); out[1] = a.query.offset; out[2] = a.scores.row; out[3] = a.sinks_offset;\n"
    "    out[4] = a.mask_column; out[5] = a.always_keys; out[6] = a.weights_accumulate; out[7] = (long)(a.softcap * "
    "4);\n}\n"
    "__kernel void gemm(const clattn_gemm_args a, __global long *out) {\n"
    "    out[0] = sizeof(a); out[1] = a.x.offset; out[2] = a.y.row; out[3] = a.y_part;\n"
    "    out[4] = a.y.head; out[5] = a.m; out[6] = a.accumulate; out[7] = a.rows_per_item;\n}\n"
    "__kernel void rows(const clattn_rows_args a, __global long *out) {\n"
    "    out[0] = sizeof(a); out[1] = a.y.offset; out[2] = a.y.row; out[3] = a.source_offset;\n"
    "    out[4] = a.batch; out[5] = a.width; out[6] = a.has_source; out[7] = a.accumulate;\n}\n";

/* Hands the struct over by value and checks what arrives: its size and seven of its fields. */
static void check_layout(clattn__program *program, const char *name, const void *args, size_t bytes,
                         const int64_t want[7]) {
    cl_kernel kernel = NULL;
    clattn__buffer out = {0};
    int64_t got[8] = {0};
    clattn_status status = clattn__kernel_create(&programs, program, name, &kernel);
    if (status == CLATTN_OK) status = clattn__buffer_create(&env, sizeof got, &out);
    if (status == CLATTN_OK) status = clattn__arg(&env, kernel, 0, bytes, args);
    if (status == CLATTN_OK) status = clattn__arg_mem(&env, kernel, 1, out.mem);
    const clattn__launch launch = {.kernel = kernel, .dims = 2, .global = {1, 1}, .local = {1, 1}};
    if (status == CLATTN_OK) status = clattn__launch_enqueue(&env, &launch);
    if (status == CLATTN_OK) status = clattn__buffer_read(&env, out.mem, 0, sizeof got, got);
    CHECK(status == CLATTN_OK, "%s: %s", name, clattn_last_error());
    CHECK(got[0] == (int64_t)bytes, "%s: %lld bytes on the device, %zu here", name, (long long)got[0], bytes);
    for (int i = 0; i < 7; i++)
        CHECK(got[i + 1] == want[i], "%s: field %d is %lld, not %lld", name, i, (long long)got[i + 1],
              (long long)want[i]);
    clattn__buffer_clear(&env, &out);
    if (kernel) clReleaseKernel(kernel);
}

static void test_struct_layout(void) {
    char *args_h = NULL;
    clattn__options options;
    clattn__program *program = NULL;
    if (!make_folder()) return;
    REQUIRE(clattn__source_load(NULL, "shared/args.h", &args_h) == CLATTN_OK, "%s", clattn_last_error());
    put_file("args.h", args_h);
    put_file("echo.cl", echo);
    clattn__free(args_h);
    if (open_device(folder)) {
        clattn__options_start(&options);
        const int64_t big = INT64_C(0x123456789A);
        const clattn_attn_args attn = {.query.offset = big,
                                       .scores.row = big + 1,
                                       .sinks_offset = big + 2,
                                       .mask_column = 1,
                                       .always_keys = 5,
                                       .weights_accumulate = 6,
                                       .softcap = 1.75f};
        const clattn_gemm_args gemm = {.x.offset = big,
                                       .y.row = big + 1,
                                       .y_part = big + 2,
                                       .y.head = big + 3,
                                       .m = 4,
                                       .accumulate = 5,
                                       .rows_per_item = 6};
        const clattn_rows_args rows = {.y.offset = big,
                                       .y.row = big + 1,
                                       .source_offset = big + 2,
                                       .batch = 3,
                                       .width = 4,
                                       .has_source = 5,
                                       .accumulate = 6};
        if (CHECK(clattn__program_get(&programs, "echo.cl", &options, &program) == CLATTN_OK, "%s",
                  clattn_last_error())) {
            check_layout(program, "attn", &attn, sizeof attn, (const int64_t[]){big, big + 1, big + 2, 1, 5, 6, 7});
            check_layout(program, "gemm", &gemm, sizeof gemm,
                         (const int64_t[]){big, big + 1, big + 2, big + 3, 4, 5, 6});
            check_layout(program, "rows", &rows, sizeof rows, (const int64_t[]){big, big + 1, big + 2, 3, 4, 5, 6});
        }
    }
    close_device();
    remove_folder();
}

static void test_launch_errors(void) {
    clattn__options options;
    clattn__program *program = NULL;
    cl_kernel kernel = NULL;
    if (!make_folder()) return;
    put_file("good.cl", good);
    put_file("inc.clh", "#define VALUE 1\n");
    if (open_device(folder)) {
        clattn__options_start(&options);
        clattn__options_int(&options, "TOLD", 1);
        clattn_status status = clattn__program_get(&programs, "good.cl", &options, &program);
        if (status == CLATTN_OK) status = clattn__kernel_create(&programs, program, "answer", &kernel);
        if (CHECK(status == CLATTN_OK, "%s", clattn_last_error())) {
            const int value = 1;
            CHECK(clattn__arg(&env, kernel, 9, sizeof value, &value) == CLATTN_DEVICE_FAILED,
                  "a slot that does not exist");
            CHECK(error_has("answer") && error_has("slot 9") && error_has("CL_INVALID_ARG_INDEX"), "%s",
                  clattn_last_error());
            clattn__launch launch = {.kernel = kernel, .dims = 1, .global = {64}};
            CHECK(clattn__launch_enqueue(&env, &launch) == CLATTN_DEVICE_FAILED, "arguments are not set");
            CHECK(error_has("answer") && error_has("64"), "%s", clattn_last_error());
            launch.global[0] = 0;
            CHECK(clattn__launch_enqueue(&env, &launch) == CLATTN_OK, "no work-items: nothing to do: %s",
                  clattn_last_error());
        }
        if (kernel) clReleaseKernel(kernel);
    }
    close_device();
    remove_folder();
}

/* ---- programs kept on disk -------------------------------------------------------------------------------------- */

static char kept[256]; /* path of the last file that was listed, and how many there were */
static int kept_count;
static bool noted; /* whether the last check_get told why a kept file was not used */

static void note_kept(void *user, const char *name) {
    snprintf(kept, sizeof kept, "%s/%s", (const char *)user, name);
    kept_count++;
}

static int count_kept(const char *cache) {
    char programs_folder[128];
    snprintf(programs_folder, sizeof programs_folder, "%s/programs", cache);
    kept_count = 0;
    clattn__os_list_dir(programs_folder, note_kept, programs_folder);
    return kept_count;
}

/* Opens the device anew and gets the program; tells whether it came from the cache folder or was built. */
static void check_get(const char *cache, bool loaded, const char *what) {
    clattn__options options;
    clattn__program *program = NULL;
    int told = 0;
    if (!open_device_keeping(folder, cache)) return;
    env.device.caps.quirks &= ~(uint32_t)CLATTN__QUIRK_CACHES_ITSELF; /* the files are the same on every driver */
    clattn__options_start(&options);
    clattn__options_int(&options, "TOLD", 7);
    if (CHECK(clattn__program_get(&programs, "good.cl", &options, &program) == CLATTN_OK, "%s: %s", what,
              clattn_last_error())) {
        CHECK(!!logged_text(CLATTN_LOG_DEBUG, "loaded good.cl") == loaded, "%s: loaded", what);
        CHECK(!!logged_text(CLATTN_LOG_DEBUG, "built good.cl") == !loaded, "%s: built", what);
        CHECK(ask(program, &told) == 42 && told == 7, "%s: the program's answer", what);
    }
    noted = logged_text(CLATTN_LOG_INFO, "of another device");
    close_device();
}

static void test_kept_programs(void) {
    char cache[96], marker[300];
    clattn__mark mark;
    if (!make_folder()) return;
    put_file("good.cl", good);
    put_file("inc.clh", "#define VALUE 42\n");
    snprintf(cache, sizeof cache, "%s/cache", folder);
    check_get("", false, "nothing is kept");
    check_get(cache, false, "first");
    CHECK(count_kept(cache) == 1, "%d files are kept", kept_count);
    check_get(cache, true, "second");
    CHECK(count_kept(cache) == 1, "%d files: the marker is gone", kept_count);

    size_t count = 0;
    char *file = clattn__os_read_file(kept, 1 << 24, &count);
    const char *line_end = file ? memchr(file, '\n', count) : NULL;
    REQUIRE(line_end && count > 100, "%s", kept);
    const struct {
        const char *what;
        size_t bytes, flip;
    } damages[] = {{"half of the file", count / 2, 0},
                   {"nothing of it", 0, 0},
                   {"another last byte", count, count - 1},
                   {"another first byte", count, 0},
                   {"another device's", count, (size_t)(line_end - file) - 1},
                   {"only a line", 20, 0}};
    for (size_t i = 0; i < CLATTN__COUNT(damages); i++) {
        const bool flips = damages[i].bytes == count;
        if (flips) file[damages[i].flip] ^= 1;
        CHECK(clattn__os_write_file(kept, file, damages[i].bytes), "%s", kept);
        if (flips) file[damages[i].flip] ^= 1;
        check_get(cache, false, damages[i].what);
        CHECK(noted, "%s: no note", damages[i].what);
        check_get(cache, true, "after damage");
    }
    snprintf(marker, sizeof marker, "%s.loading", kept);
    CHECK(clattn__os_write_file(marker, "", 0), "%s", marker);
    check_get(cache, false, "a process died of it");
    CHECK(count_kept(cache) == 1, "%d files: the marker is gone", kept_count);
    check_get(cache, true, "built anew since");
    CHECK(clattn__os_mark(marker, &mark), "%s", marker);
    check_get(cache, true, "while another process loads it");
    CHECK(count_kept(cache) == 2, "%d files: the mark of the other is not touched", kept_count);
    clattn__os_unmark(&mark);
    CHECK(count_kept(cache) == 1, "%d files: the mark is gone", kept_count);

    char programs_folder[128];
    snprintf(programs_folder, sizeof programs_folder, "%s/programs", cache);
    CHECK(clattn__os_file_info(kept, &count, NULL), "%s", kept); /* two builds need not be alike */
    clattn__cache_trim(programs_folder, count);
    CHECK(count_kept(cache) == 1, "%d files within the limit", kept_count);
    clattn__cache_trim(programs_folder, count - 1);
    CHECK(count_kept(cache) == 0, "%d files beyond the limit", kept_count);
    clattn__free(file);
    rmdir(programs_folder);
    rmdir(cache);
    remove_folder();
}

int main(int argc, char **argv) {
    static const clattn_test source[] = {{"embedded", test_embedded},
                                         {"includes", test_includes},
                                         {"out of memory", test_source_out_of_memory},
                                         {"poisoned", test_poisoned},
                                         {NULL, NULL}};
    static const clattn_test options[] = {{"text", test_options}, {NULL, NULL}};
    static const clattn_test builds[] = {{"cache", test_build_and_cache},
                                         {"failure", test_build_failure},
                                         {"threads", test_threads},
                                         {"kept", test_kept_programs},
                                         {NULL, NULL}};
    static const clattn_test launches[] = {
        {"struct layout", test_struct_layout}, {"errors", test_launch_errors}, {"poison", test_poison}, {NULL, NULL}};
    static const clattn_test_suite suites[] = {
        {"source", source}, {"options", options}, {"builds", builds}, {"launches", launches}, {NULL, NULL}};
    return clattn_test_main(suites, argc, argv);
}
