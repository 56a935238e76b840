/* Trust: a kernel that computes wrong is found before its first use, stepped over, remembered; one that computes right
 * is verified once. The wrong kernels are the shipped sources with one planted mistake, read through kernel_dir. */
#define _DEFAULT_SOURCE
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clattn/clattn.h"
#include "harness.h"
#include "registry/registry.h"

enum { B = 1, H = 2, S = 37, D = 16 };

static char folder[] = "/tmp/clattn-registry-XXXXXX";
static char kernels[128], cache[128];
static char warnings[16384];

static void log_warnings(void *user, clattn_log_level level, const char *message) {
    (void)user;
    if (level <= CLATTN_LOG_WARNING)
        strncat(warnings, message, sizeof warnings - strlen(warnings) - 2), strcat(warnings, "\n");
}

/* Copies cl/<name> into the kernels folder with `planted` in front of it. */
static bool copy_kernel(const char *name, const char *planted) {
    char from[512], to[512];
    snprintf(from, sizeof from, "%s/cl/%s", getenv("CLATTN_SOURCE_ROOT"), name);
    snprintf(to, sizeof to, "%s/%s", kernels, name);
    size_t count;
    char *text = clattn__os_read_file(from, 1 << 24, &count);
    FILE *file = text ? fopen(to, "wb") : NULL;
    bool good = file && fprintf(file, "%s\n", planted) >= 0 && fwrite(text, 1, count, file) == count;
    if (file) good = fclose(file) == 0 && good;
    clattn__free(text);
    return good;
}

/* A fresh copy of all kernels, in which attn_cpu.cl and attn_tiled.cl begin with the given mistakes. */
static bool plant(const char *in_cpu, const char *in_tiled) {
    for (const clattn__embedded_file *file = clattn__embedded_files; file->name; file++) {
        const char *planted = strcmp(file->name, "attn_cpu.cl") == 0     ? in_cpu
                              : strcmp(file->name, "attn_tiled.cl") == 0 ? in_tiled
                                                                         : "";
        if (!copy_kernel(file->name, planted)) return false;
    }
    return true;
}

static clattn_context *open_context(const char *kernel_dir, const char *cache_dir) {
    clattn_context_options options;
    clattn_context_options_init(&options);
    options.selector = getenv("CLATTN_DEVICE");
    options.kernel_dir = kernel_dir;
    options.cache_dir = cache_dir;
    options.log = log_warnings;
    warnings[0] = 0;
    clattn_context *context = NULL;
    CHECK(clattn_context_create(&context, &options) == CLATTN_OK, "%s", clattn_last_error());
    return context;
}

static void describe(clattn_attention_desc *desc) {
    clattn_attention_desc_init(desc);
    desc->batch = B;
    desc->query_heads = H;
    desc->query_len = desc->kv_len = S;
    desc->head_dim = D;
}

/* Creates a plan, checks its result against the reference, and tells which kernel ran. */
static void run_right(clattn_context *context, char *kernel, size_t capacity) {
    clattn_attention_desc desc;
    describe(&desc);
    clattn_attention *plan = NULL;
    REQUIRE(clattn_attention_create(&plan, context, &desc) == CLATTN_OK, "%s", clattn_last_error());
    static float q[B * H * S * D], k[B * H * S * D], v[B * H * S * D], got[B * H * S * D], want[B * H * S * D],
        tolerance[B * H * S * D];
    clattn_random random = {7};
    clattn_fill_normal(&random, q, B * H * S * D, 1);
    clattn_fill_normal(&random, k, B * H * S * D, 1);
    clattn_fill_normal(&random, v, B * H * S * D, 1);
    clattn_attention_io io = {.query = clattn_host(q, CLATTN_F32, 4, B, H, S, D),
                              .key = clattn_host(k, CLATTN_F32, 4, B, H, S, D),
                              .value = clattn_host(v, CLATTN_F32, 4, B, H, S, D),
                              .output = clattn_host(want, CLATTN_F32, 4, B, H, S, D)};
    CHECK(clattn_reference_attention(&desc, &io, tolerance) == CLATTN_OK, "%s", clattn_last_error());
    io.output.data = got;
    CHECK(clattn_attention_run(plan, &io) == CLATTN_OK, "%s", clattn_last_error());
    clattn_check_close(got, want, tolerance, 0, B * H * S * D, "after verification");
    clattn_plan_info info;
    CHECK(clattn_attention_info(plan, &info) == CLATTN_OK, "%s", clattn_last_error());
    snprintf(kernel, capacity, "%s", info.kernels);
    clattn_attention_destroy(&plan);
}

static void counts(clattn_context *context, int *verified, int *quarantined) {
    CHECK(clattn_context_trust(context, verified, quarantined) == CLATTN_OK, "%s", clattn_last_error());
}

static const char *const MISTAKES[] = {
    "#define fma(a, b, c) ((a) * (b) + (c) * 1.001f)",        /* a driver whose multiply-add is slightly off */
    "#define get_group_id(d) (get_group_id(d) & ~(size_t)1)", /* every other work-group never runs */
    "#error planted: this kernel does not build",
};

static void wrong_kernel_is_stepped_over(void) {
    for (size_t i = 0; i < sizeof MISTAKES / sizeof *MISTAKES; i++) {
        REQUIRE(plant(MISTAKES[i], MISTAKES[i]), "kernels could not be copied");
        clattn_context *context = open_context(kernels, "");
        REQUIRE(context != NULL, "no context");
        char kernel[64] = "";
        run_right(context, kernel, sizeof kernel);
        CHECK(strcmp(kernel, "attn_naive") == 0, "mistake %zu: %s ran", i, kernel);
        CHECK(strstr(warnings, "attn_tiled is passed over") != NULL, "mistake %zu: warnings were: %s", i, warnings);
        int verified = 0, quarantined = 0;
        counts(context, &verified, &quarantined);
        const bool builds = i < 2;
        CHECK(builds ? quarantined >= 1 : quarantined == 0, "mistake %zu: %d quarantined", i, quarantined);
        CHECK(!builds || (clattn_context_quarantined(context, 0) &&
                          strstr(clattn_context_quarantined(context, 0), "the reference says")),
              "mistake %zu: no counter-example is kept", i);
        CHECK(clattn_context_quarantined(context, quarantined) == NULL, "a quarantined variant too many");
        clattn_context_destroy(&context);
    }
}

static void verdicts_are_remembered(void) {
    char kernel[64] = "";
    int verified = 0, quarantined = 0;
    REQUIRE(plant(MISTAKES[0], MISTAKES[0]), "kernels could not be copied");
    for (int start = 0; start < 2; start++) {
        clattn_context *context = open_context(kernels, cache);
        REQUIRE(context != NULL, "no context");
        run_right(context, kernel, sizeof kernel);
        CHECK(strcmp(kernel, "attn_naive") == 0, "start %d: %s ran", start, kernel);
        counts(context, &verified, &quarantined);
        CHECK(quarantined >= 1 && verified >= 1, "start %d: %d verified, %d quarantined", start, verified, quarantined);
        CHECK((strstr(warnings, "quarantined") != NULL) == (start == 1), "start %d: warnings were: %s", start,
              warnings);
        clattn_context_destroy(&context);
    }
}

/* Overwrites every record below <cache>/trust/<device>/; returns how many there were. */
static int damage_records(void) {
    char path[400], record[700];
    int damaged = 0;
    snprintf(path, sizeof path, "%s/trust", cache);
    DIR *devices = opendir(path);
    for (struct dirent *device; devices && (device = readdir(devices));) {
        if (device->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/trust/%s", cache, device->d_name);
        DIR *records = opendir(path);
        for (struct dirent *entry; records && (entry = readdir(records));) {
            if (entry->d_name[0] == '.') continue;
            snprintf(record, sizeof record, "%s/%s", path, entry->d_name);
            FILE *file = fopen(record, "wb");
            if (!file) continue;
            fputs("verified, honestly", file);
            fclose(file);
            damaged++;
        }
        if (records) closedir(records);
    }
    if (devices) closedir(devices);
    return damaged;
}

/* Whatever stands in a record that clattn did not write, the kernel is verified again. */
static void damaged_records_are_ignored(void) {
    REQUIRE(plant("", ""), "kernels could not be copied");
    char kernel[64] = "";
    clattn_context *context = open_context(kernels, cache);
    REQUIRE(context != NULL, "no context");
    run_right(context, kernel, sizeof kernel);
    clattn_context_destroy(&context);
    int damaged = damage_records();
    CHECK(damaged > 0, "no trust records were written");
    context = open_context(kernels, cache);
    REQUIRE(context != NULL, "no context");
    run_right(context, kernel, sizeof kernel);
    CHECK(strstr(warnings, "is not a trust record") != NULL, "warnings were: %s", warnings);
    int verified = 0, quarantined = 0;
    counts(context, &verified, &quarantined);
    CHECK(verified >= 1 && quarantined == 0, "%d verified, %d quarantined", verified, quarantined);
    clattn_context_destroy(&context);
}

static void refusals_name_the_reason(void) {
    clattn_context *context = open_context(NULL, "");
    REQUIRE(context != NULL, "no context");
    clattn_attention_desc desc;
    clattn_attention *plan = NULL;
    describe(&desc);
    desc.kernel = "no_such_kernel";
    CHECK(clattn_attention_create(&plan, context, &desc) == CLATTN_UNSUPPORTED && !plan,
          "an unknown kernel was accepted");
    CHECK(strstr(clattn_last_error(), "no_such_kernel") != NULL, "error was: %s", clattn_last_error());
    desc.kernel = "attn_tiled";
    desc.weights = CLATTN_WEIGHTS_PER_HEAD;
    CHECK(clattn_attention_create(&plan, context, &desc) == CLATTN_UNSUPPORTED && !plan,
          "attn_tiled cannot output weights");
    CHECK(strstr(clattn_last_error(), "weights output") != NULL, "error was: %s", clattn_last_error());
    clattn_context_destroy(&context);
}

/* Features in words, and the order that the design promises. */
static void lists_end_with_the_host(void) {
    int n = 0;
    while (clattn__attn_list[n]) n++;
    CHECK(n >= 4 && strcmp(clattn__attn_list[n - 1]->name, "attn_host") == 0, "the last attention kernel is %s",
          clattn__attn_list[n - 1]->name);
    uint32_t all = 0;
#define BIT(name, bit, text) all |= (uint32_t)1 << bit;
    CLATTN__FEATURE_MAP(BIT)
#undef BIT
    CHECK(clattn__attn_list[n - 1]->features == all, "attn_host lacks features %x",
          all & ~clattn__attn_list[n - 1]->features);
    CHECK(clattn__attn_list[n - 2]->features == all, "attn_naive lacks features %x",
          all & ~clattn__attn_list[n - 2]->features);
    for (n = 0; clattn__gemm_list[n];) n++;
    CHECK(strcmp(clattn__gemm_list[n - 1]->name, "gemm_host") == 0, "the last projection kernel is %s",
          clattn__gemm_list[n - 1]->name);
}

int main(int argc, char **argv) {
    if (!getenv("CLATTN_SOURCE_ROOT") || !mkdtemp(folder))
        return fprintf(stderr, "set CLATTN_SOURCE_ROOT to the source tree\n"), 1;
    snprintf(kernels, sizeof kernels, "%s/cl", folder);
    snprintf(cache, sizeof cache, "%s/cache", folder);
    char part[160];
    mkdir(kernels, 0700);
    snprintf(part, sizeof part, "%s/inc", kernels);
    mkdir(part, 0700);
    snprintf(part, sizeof part, "%s/shared", kernels);
    mkdir(part, 0700);
    static const clattn_test trust[] = {{"wrong_kernel_is_stepped_over", wrong_kernel_is_stepped_over},
                                        {"verdicts_are_remembered", verdicts_are_remembered},
                                        {"damaged_records_are_ignored", damaged_records_are_ignored},
                                        {NULL, NULL}};
    static const clattn_test order[] = {{"refusals_name_the_reason", refusals_name_the_reason},
                                        {"lists_end_with_the_host", lists_end_with_the_host},
                                        {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"trust", trust}, {"order", order}, {NULL, NULL}};
    int failed = clattn_test_main(suites, argc, argv);
    char command[256];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (system(command) != 0) fprintf(stderr, "%s is left behind\n", folder);
    return failed;
}
