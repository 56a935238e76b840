/* Trust: a kernel that computes wrong is found before its first use, stepped over, remembered; one that computes right
 * is verified once. The wrong kernels are the shipped sources with one planted mistake, read through kernel_dir. */
#define _DEFAULT_SOURCE
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clattn/clattn.h"
#include "harness.h"
#include "kv_data.h"
#include "planted.h"
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

static bool plant_in(const char *first, const char *in_first, const char *second, const char *in_second) {
    return planted_copies(kernels, first, in_first, second, in_second);
}

static bool plant(const char *in_cpu, const char *in_tiled) {
    return plant_in("attn_cpu.cl", in_cpu, "attn_tiled.cl", in_tiled);
}

static clattn_context *open_verifying(const char *kernel_dir, const char *cache_dir, clattn_verify_mode verify) {
    clattn_context_options options;
    clattn_context_options_init(&options);
    options.selector = getenv("CLATTN_DEVICE");
    options.kernel_dir = kernel_dir;
    options.cache_dir = cache_dir;
    options.verify = verify;
    options.log = log_warnings;
    warnings[0] = 0;
    clattn_context *context = NULL;
    CHECK(clattn_context_create(&context, &options) == CLATTN_OK, "%s", clattn_last_error());
    return context;
}

static clattn_context *open_context(const char *kernel_dir, const char *cache_dir) {
    return open_verifying(kernel_dir, cache_dir, CLATTN_VERIFY_ONCE);
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

/* What several tiles of keys sum up has to be brought to one maximum, also for rows in causal order. */
static void badly_joined_tiles_are_found(void) {
    static const struct {
        const char *kernel, *file, *right, *wrong;
        int query_len;
        bool cpu; /* the file is for CPUs alone */
    } rows[] = {{"attn_decode", "inc/decode.clh", "sums->l * factors->x", "sums->l", 4, false},
                {"attn_decode", "attn_decode.cl", "VEC_AT(to + j) * factors.x", "VEC_AT(to + j)", 4, true},
                {"attn_cpu", "attn_cpu.cl", "l[j] * factor", "l[j]", 64, true}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        REQUIRE(plant("", "") && planted_replace(kernels, rows[i].file, rows[i].right, rows[i].wrong),
                "\"%s\" is not in %s", rows[i].right, rows[i].file);
        clattn_context *context = open_context(kernels, "");
        REQUIRE(context != NULL, "no context");
        clattn_attention *plan = NULL;
        clattn_attention_desc desc;
        describe(&desc);
        desc.query_len = rows[i].query_len;
        desc.kv_len = 1000;
        desc.causal = CLATTN_CAUSAL_BOTTOM_RIGHT;
        desc.kernel = rows[i].kernel;
        if (!rows[i].cpu || context->env.device.caps.type == CLATTN_DEVICE_CPU)
            CHECK(clattn_attention_create(&plan, context, &desc) == CLATTN_UNSUPPORTED &&
                      (strstr(clattn_last_error(), "the reference says") ||
                       strstr(clattn_last_error(), "two runs on the same input differ")),
                  "%s instead of %s: %s", rows[i].wrong, rows[i].right, plan ? "not noticed" : clattn_last_error());
        clattn_attention_destroy(&plan);
        clattn_context_destroy(&context);
    }
}

/* One program serves weights of all depths: before it is trusted with any it has met one of several blocks. */
static void shallow_weights_do_not_vouch_for_deep_ones(void) {
    enum { N = 24, K = 40 };
    static float w[N * K];
    REQUIRE(plant("", "") && planted_replace(kernels, "inc/gemm_cpu.clh", "sum[i][j] += VEC_AT(park", "(void)(park"),
            "sums are not parked as they were");
    clattn_context *context = open_context(kernels, "");
    REQUIRE(context != NULL, "no context");
    clattn_layer *layer = NULL;
    clattn_linear_desc desc;
    clattn_linear_desc_init(&desc);
    desc.batch = 1, desc.rows = 7, desc.in_features = K, desc.out_features = N;
    desc.gemm_kernel = "gemm_cpu";
    const clattn_linear_weights weights = {.weight = clattn_host(w, CLATTN_F32, 2, N, K, 0, 0)};
    const clattn_status status = clattn_linear_create(&layer, context, &desc, &weights);
    if (context->env.device.caps.type == CLATTN_DEVICE_CPU)
        CHECK(status == CLATTN_UNSUPPORTED && strstr(clattn_last_error(), "the reference says"), "%s",
              layer ? "not noticed" : clattn_last_error());
    clattn_layer_destroy(&layer);
    clattn_context_destroy(&context);
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

/* Puts the text into every record below <cache_dir>/trust/<device>/; returns how many there were. */
static int overwrite_records(const char *cache_dir, const char *text) {
    char path[400], record[700];
    int written = 0;
    snprintf(path, sizeof path, "%s/trust", cache_dir);
    DIR *devices = opendir(path);
    for (struct dirent *device; devices && (device = readdir(devices));) {
        if (device->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/trust/%s", cache_dir, device->d_name);
        DIR *records = opendir(path);
        for (struct dirent *entry; records && (entry = readdir(records));) {
            if (entry->d_name[0] == '.') continue;
            snprintf(record, sizeof record, "%s/%s", path, entry->d_name);
            FILE *file = fopen(record, "wb");
            if (!file) continue;
            fputs(text, file);
            fclose(file);
            written++;
        }
        if (records) closedir(records);
    }
    if (devices) closedir(devices);
    return written;
}

/* Whatever stands in a record that clattn did not write, the kernel is verified again. */
static void damaged_records_are_ignored(void) {
    REQUIRE(plant("", ""), "kernels could not be copied");
    char kernel[64] = "";
    clattn_context *context = open_context(kernels, cache);
    REQUIRE(context != NULL, "no context");
    run_right(context, kernel, sizeof kernel);
    clattn_context_destroy(&context);
    int damaged = overwrite_records(cache, "verified, honestly");
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

/* ---- caches ------------------------------------------------------------------------------------------------------ */

/* Two tokens at a time through a paged cache; tells the kernels that attended. */
static void decode_pages(clattn_context *context, const cache_case *c, cache_data *t, char *names, size_t capacity) {
    clattn_kv_cache *held = NULL;
    clattn_plan_info info;
    make_cache_data(c, t);
    t->attention.query_len = 2;
    REQUIRE(clattn_kv_cache_create(&held, context, &t->desc) == CLATTN_OK, "%s", clattn_last_error());
    for (int64_t i = 0; i < c->tokens; i += 2) {
        const clattn_kv_append_io tokens = tokens_of(c, t, i, 2);
        const clattn_kv_attend_io asked = question(c, t, i, 2);
        CHECK(clattn_kv_cache_append(held, &tokens) == CLATTN_OK, "%s", clattn_last_error());
        CHECK(clattn_kv_cache_attend(held, &asked) == CLATTN_OK, "%s", clattn_last_error());
    }
    CHECK(clattn_kv_cache_info(held, &info) == CLATTN_OK, "%s", clattn_last_error());
    snprintf(names, capacity, "%s", info.kernels);
    clattn_kv_cache_destroy(&held);
}

/* A kernel that is wrong only where it looks pages up is replaced by gathering and a kernel that does not. */
static void wrong_reader_of_pages_gets_them_gathered(void) {
    static const char *const mistakes[] = {
        "#if PAGED\n#define fma(a, b, c) ((a) * (b) + (c) * 1.001f)\n#endif",
        "#if PAGED\n#error planted: this kernel does not build\n#endif",
    };
    static const cache_case c = {"pages", 2, 4, 2, 36, 2, 32, 24, CLATTN_KV_PAGED, 5, 0, -1, 0, -1, 0, 0, 0};
    clattn_context *context = open_context(NULL, "");
    REQUIRE(context != NULL, "no context");
    cache_data want, got;
    char names[128] = "";
    decode_pages(context, &c, &want, names, sizeof names);
    CHECK(strstr(names, "kv_gather") == NULL, "kernels: %s", names);
    clattn_context_destroy(&context);
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        REQUIRE(plant_in("inc/cell_rows.clh", mistakes[i], "", ""), "kernels could not be copied");
        context = open_context(kernels, "");
        REQUIRE(context != NULL, "no context");
        decode_pages(context, &c, &got, names, sizeof names);
        CHECK(strstr(names, "kv_gather") != NULL, "mistake %zu: kernels: %s", i, names);
        CHECK(warnings[0] != 0, "mistake %zu: no warning", i);
        clattn_check_close(got.output, want.output, NULL, 1e-5, c.batch * c.query_heads * c.tokens * c.value_dim,
                           "gathered pages");
        free_cache_data(&got);
        clattn_context_destroy(&context);
    }
    free_cache_data(&want);
}

/* ---- small kernels ----------------------------------------------------------------------------------------------- */

#define HALF                                                                                                           \
    "#define get_global_id(d) (get_global_id(d) & ~(size_t)1)" /* every other work-item repeats its neighbour */
#define HALF_THE_GROUPS "#define get_group_id(d) (get_group_id(d) & ~(size_t)1)"

static const struct {
    const char *file, *mistake, *name;
    clattn__op_variant variant;
} SMALL[] = {
    {"rows.cl", HALF, "rows", {0}},
    {"norm.cl", "#define sqrt(x) pow(x, 0.49f)", "layer_norm", {0}},
    {"norm.cl", HALF, "batch_statistics", {0}},
    {"norm.cl", HALF, "batch_apply", {0}},
    {"chain_cpu.cl", HALF_THE_GROUPS, "chain_cpu", {0}},
    {"chain_cpu.cl", "#define sqrt(x) pow(x, 0.49f)", "chain_cpu", {.dtype = CLATTN_F16}},
    {"elementwise.cl", HALF, "elementwise", {.kind = CLATTN_ACTIVATION_NONE}},
    {"elementwise.cl", HALF, "elementwise", {.kind = CLATTN_ACTIVATION_RELU}},
    {"elementwise.cl", "#define fabs(x) (x)", "elementwise", {.kind = CLATTN_ACTIVATION_GELU}},
    {"posenc.cl", "#define cospi(x) sinpi(x)", "sinusoidal", {0}},
    {"posenc.cl", "#define clamp(x, low, high) max(x, low) % 5", "learned", {0}},
    {"softmax.cl", HALF_THE_GROUPS, "softmax_forward", {0}},
    {"softmax.cl", HALF_THE_GROUPS, "softmax_backward", {0}},
    {"softmax.cl", "#define log(x) (0.6932f * log2(x))", "softmax_cross_entropy", {0}},
    {"rope.cl", HALF, "rope", {.kind = CLATTN_ROPE_COMPUTED}},
    {"rope.cl", HALF, "rope", {.kind = CLATTN_ROPE_TABLE, .dtype = CLATTN_F16, .interleaved = true}},
    {"rope.cl", "#define clamp(x, low, high) x", "rope", {.kind = CLATTN_ROPE_TABLE}},
    {"kv_append.cl", HALF, "kv_append", {.dtype = CLATTN_F32, .cells = CLATTN_F16}},
    {"kv_append.cl", "#define convert_char_sat_rte convert_char_sat_rtp", "kv_append", {.cells = CLATTN_I8}},
    {"kv_gather.cl", HALF, "kv_gather", {.cells = CLATTN_I8}},
    {"kv_gather.cl", "#define max(x, y) (x)", "kv_gather", {.cells = CLATTN_F32}},
};

static void check_small(clattn_context *context, size_t i, clattn_status expected) {
    clattn__verify_stats stats;
    clattn_status status = clattn__op_verify(context, SMALL[i].name, &SMALL[i].variant, &stats, NULL);
    CHECK(status == expected, "%s, mistake %zu: %s, %s", SMALL[i].name, i, clattn_status_name(status),
          clattn_last_error());
    CHECK(status == CLATTN_OK || strstr(clattn_last_error(), SMALL[i].name), "error was: %s", clattn_last_error());
}

static void wrong_small_kernels_are_found(void) {
    clattn_context *context = open_context(NULL, "");
    REQUIRE(context != NULL, "no context");
    for (size_t i = 0; i < sizeof SMALL / sizeof *SMALL; i++) check_small(context, i, CLATTN_OK);
    clattn_context_destroy(&context);
    for (size_t i = 0; i < sizeof SMALL / sizeof *SMALL; i++) {
        REQUIRE(plant_in(SMALL[i].file, SMALL[i].mistake, "", ""), "kernels could not be copied");
        context = open_context(kernels, "");
        REQUIRE(context != NULL, "no context");
        check_small(context, i, CLATTN_WRONG_RESULT);
        clattn_context_destroy(&context);
    }
}

static clattn_status create_softmax(clattn_context *context) {
    clattn_softmax *softmax = NULL;
    clattn_softmax_desc desc;
    clattn_softmax_desc_init(&desc);
    desc.rank = 2;
    desc.shape[0] = 3;
    desc.shape[1] = 5;
    clattn_status status = clattn_softmax_create(&softmax, context, &desc);
    CHECK((status == CLATTN_OK) == (softmax != NULL), "a plan without success, or none with it");
    clattn_softmax_destroy(&softmax);
    return status;
}

static clattn_status create_norm(clattn_context *context) {
    clattn_layer *layer = NULL;
    clattn_norm_desc desc;
    clattn_norm_desc_init(&desc);
    desc.batch = 1;
    desc.rows = 3;
    desc.features = 5;
    const clattn_norm_weights weights = {0};
    clattn_status status = clattn_norm_create(&layer, context, &desc, &weights);
    CHECK((status == CLATTN_OK) == (layer != NULL), "a layer without success, or none with it");
    clattn_layer_destroy(&layer);
    return status;
}

/* There is no other kernel: creation fails, at once and by the record, until nobody asks for verification. */
static void plans_of_wrong_small_kernels_fail(void) {
    static clattn_status (*const create[])(clattn_context *) = {create_softmax, create_norm};
    static const char *const names[] = {"softmax_forward", "layer_norm"};
    REQUIRE(plant_in("softmax.cl", HALF_THE_GROUPS, "norm.cl", "#define sqrt(x) pow(x, 0.49f)"),
            "kernels could not be copied");
    for (int start = 0; start < 3; start++) {
        const bool never = start == 2;
        clattn_context *context = open_verifying(kernels, cache, never ? CLATTN_VERIFY_NEVER : CLATTN_VERIFY_ONCE);
        REQUIRE(context != NULL, "no context");
        for (int i = 0; i < 2; i++) {
            const clattn_status status = create[i](context);
            CHECK(status == (never ? CLATTN_OK : CLATTN_WRONG_RESULT), "start %d, %s: %s", start, names[i],
                  clattn_status_name(status));
            const char *error = clattn_last_error();
            CHECK(never || (strstr(error, names[i]) && strstr(error, "the reference says")), "error was: %s", error);
            CHECK(never || (strstr(error, "is quarantined") != NULL) == (start == 1), "error was: %s", error);
        }
        clattn_context_destroy(&context);
    }
}

/* One record per small kernel, however many plans use it; it is taken at its word. */
static void small_kernels_are_verified_once(void) {
    int verified = 0, quarantined = 0;
    REQUIRE(plant("", ""), "kernels could not be copied");
    clattn_context *context = open_context(kernels, "");
    REQUIRE(context != NULL, "no context");
    for (int i = 0; i < 2; i++) {
        CHECK(create_softmax(context) == CLATTN_OK && create_norm(context) == CLATTN_OK, "%s", clattn_last_error());
        counts(context, &verified, &quarantined);
        CHECK(verified == 2 && quarantined == 0, "%d verified, %d quarantined", verified, quarantined);
    }
    for (clattn__trust_entry *entry = context->trust.first; entry; entry = entry->next)
        entry->state = CLATTN_TRUST_QUARANTINED;
    CHECK(create_softmax(context) == CLATTN_WRONG_RESULT, "the record was not looked up");
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

/* ---- the brief form of verification ------------------------------------------------------------------------------ */

typedef struct met {
    uint32_t features[16]; /* of each attention kernel, by its place in the list */
    int projections, small;
} met;

static void meet_attention(void *user, const clattn__attn_impl *impl, const clattn__attn_problem *problem) {
    met *m = user;
    int place = 0;
    while (clattn__attn_list[place] != impl) place++;
    const bool rows = problem->head_dim % 8 == 0 && problem->value_dim % 8 == 0 && problem->dtype != CLATTN_F32;
    if (impl == &clattn__attn_matrix && !rows) return; /* it would refuse */
    if ((problem->features & ~impl->features) == 0) m->features[place] |= problem->features;
}
static void meet_gemm(void *user, const clattn__gemm_impl *impl, const clattn__gemm_problem *problem) {
    (void)impl, (void)problem;
    ((met *)user)->projections++;
}
static void meet_op(void *user, const char *name, const clattn__op_variant *variant) {
    (void)name, (void)variant;
    ((met *)user)->small++;
}

static void brief_form_meets_every_feature(void) {
    met m = {{0}, 0, 0};
    clattn__variants visit = {.attention = meet_attention, .gemm = meet_gemm, .op = meet_op, .user = &m, .brief = true};
    clattn__variants_walk(&visit);
    for (int i = 0; clattn__attn_list[i]; i++) {
        char text[256];
        clattn__features_text(clattn__attn_list[i]->features & ~m.features[i], text, sizeof text);
        CHECK(m.features[i] == clattn__attn_list[i]->features, "%s never meets: %s", clattn__attn_list[i]->name, text);
    }
    CHECK(m.projections >= 4 && m.small >= 13, "%d projections, %d small kernels", m.projections, m.small);
    const int small = m.small;
    visit.kernel = "layer_norm";
    clattn__variants_walk(&visit);
    CHECK(m.small == small + 1, "of one name there are %d in the brief form", m.small - small);
}

static void count_results(void *user, const clattn_verify_result *result) {
    CHECK(strcmp(result->kernel, "rows") == 0 && result->cases > 0 && result->failures == 0, "%s: %s", result->kernel,
          result->detail);
    ++*(int *)user;
}

static void verify_options(void) {
    clattn_context *context = open_context(NULL, "");
    REQUIRE(context, "no context");
    clattn_verify_options options;
    clattn_verify_options_init(&options);
    int results = 0;
    options.kernel = "rows";
    options.brief = 1;
    CHECK(clattn_verify_with(context, &options, count_results, &results) == CLATTN_OK && results == 1, "%d results: %s",
          results, clattn_last_error());
    options.kernel = "attn_abacus";
    CHECK(clattn_verify_with(context, &options, NULL, NULL) == CLATTN_INVALID_ARGUMENT &&
              strstr(clattn_last_error(), "options.kernel is \"attn_abacus\""),
          "%s", clattn_last_error());
    options.struct_size = 3;
    CHECK(clattn_verify_with(context, &options, NULL, NULL) == CLATTN_INVALID_ARGUMENT &&
              strstr(clattn_last_error(), "clattn_verify_options.struct_size is 3"),
          "%s", clattn_last_error());
    CHECK(clattn_verify_with(NULL, NULL, NULL, NULL) == CLATTN_INVALID_ARGUMENT, "context NULL");
    clattn_context_destroy(&context);
}

/* What a sweep finds is what plans go by: products and attention that agree are trusted, those that do not are not. */
static void sweeps_are_recorded(void) {
    static const char *const names[] = {"attn_naive", "gemm_tiled"};
    clattn_verify_options options;
    clattn_verify_options_init(&options);
    options.brief = options.most = 1;
    REQUIRE(plant_in("attn_naive.cl", HALF, "gemm_tiled.cl", HALF_THE_GROUPS), "no copies");
    for (int i = 0; i < 4; i++) {
        const bool wrong = i >= 2;
        int verified = -1, quarantined = -1;
        clattn_context *context = open_context(wrong ? kernels : NULL, "");
        REQUIRE(context, "no context");
        options.kernel = names[i % 2];
        const clattn_status status = clattn_verify_with(context, &options, NULL, NULL);
        CHECK(status == (wrong ? CLATTN_WRONG_RESULT : CLATTN_OK), "%s: %s", options.kernel, clattn_last_error());
        clattn_context_trust(context, &verified, &quarantined);
        CHECK(verified == !wrong && quarantined == wrong, "%s: %d are verified, %d quarantined", options.kernel,
              verified, quarantined);
        clattn_context_destroy(&context);
    }
}

/* A sweep renews every verdict, good ones too where another kernel is found wrong in the same sweep. */
static void sweeps_lift_old_verdicts(void) {
    clattn_verify_options options;
    clattn_verify_options_init(&options);
    options.kernel = "rows";
    char swept[160];
    snprintf(swept, sizeof swept, "%s/swept", folder);
    REQUIRE(plant_in("rows.cl", "#if !STORAGE_F16 && !STORAGE_BF16\n" HALF "\n#endif", "", ""), "no copies");
    for (int i = 0; i < 2; i++) {
        int verified = -1, quarantined = -1;
        clattn_context *context = open_context(kernels, swept);
        REQUIRE(context, "no context");
        CHECK(clattn_verify_with(context, &options, NULL, NULL) == CLATTN_WRONG_RESULT, "%s", clattn_last_error());
        clattn_context_destroy(&context);
        context = open_context(kernels, swept);
        REQUIRE(context, "no context");
        counts(context, &verified, &quarantined);
        CHECK(verified == 2 && quarantined == 1, "sweep %d: %d are verified, %d quarantined", i, verified, quarantined);
        clattn_context_destroy(&context);
        CHECK(overwrite_records(swept, "clattn-trust 1 quarantined\nplanted\n") == 3, "not three records");
    }
}

int main(int argc, char **argv) {
    if (!getenv("CLATTN_SOURCE_ROOT") || !mkdtemp(folder))
        return fprintf(stderr, "set CLATTN_SOURCE_ROOT to the source tree\n"), 1;
    snprintf(kernels, sizeof kernels, "%s/cl", folder);
    snprintf(cache, sizeof cache, "%s/cache", folder);
    static const clattn_test trust[] = {
        {"wrong_kernel_is_stepped_over", wrong_kernel_is_stepped_over},
        {"badly_joined_tiles_are_found", badly_joined_tiles_are_found},
        {"shallow_weights_do_not_vouch_for_deep_ones", shallow_weights_do_not_vouch_for_deep_ones},
        {"verdicts_are_remembered", verdicts_are_remembered},
        {"damaged_records_are_ignored", damaged_records_are_ignored},
        {"wrong_reader_of_pages_gets_them_gathered", wrong_reader_of_pages_gets_them_gathered},
        {NULL, NULL}};
    static const clattn_test small[] = {{"wrong_small_kernels_are_found", wrong_small_kernels_are_found},
                                        {"plans_of_wrong_small_kernels_fail", plans_of_wrong_small_kernels_fail},
                                        {"small_kernels_are_verified_once", small_kernels_are_verified_once},
                                        {NULL, NULL}};
    static const clattn_test order[] = {{"refusals_name_the_reason", refusals_name_the_reason},
                                        {"lists_end_with_the_host", lists_end_with_the_host},
                                        {"brief_form_meets_every_feature", brief_form_meets_every_feature},
                                        {"verify_options", verify_options},
                                        {"sweeps_are_recorded", sweeps_are_recorded},
                                        {"sweeps_lift_old_verdicts", sweeps_lift_old_verdicts},
                                        {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"trust", trust}, {"small", small}, {"order", order}, {NULL, NULL}};
    int failed = clattn_test_main(suites, argc, argv);
    planted_remove(folder);
    return failed;
}
