/* Devices that are not at hand: pretended limits really choose and run other tiles, and the listing of programs knows
 * every kernel of the registry. */
#include "clattn/clattn.h"
#include "device/device.h"
#include "harness.h"
#include "registry/registry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static clattn_context *open_as(const char *pretend, const char *kernel_dir) {
    clattn_context *context = NULL;
    clattn_context_options options;
    clattn_context_options_init(&options);
    options.selector = getenv("CLATTN_DEVICE");
    options.pretend = pretend;
    options.kernel_dir = kernel_dir;
    options.cache_dir = "";
    CHECK(clattn_context_create(&context, &options) == CLATTN_OK, "\"%s\": %s", pretend ? pretend : "",
          clattn_last_error());
    return context;
}

static void words(void) {
    clattn__caps caps = {.type = CLATTN_DEVICE_CPU, .local_memory = 1, .max_work_group = 2, .vector_width = 8};
    const char *text = "type=gpu,name=gfx900,vendor=Advanced Micro Devices,platform=rusticl,local_memory=65536,"
                       "work_group=256,compute_units=60,lanes=4,subgroups=1,fp16=1,second_cache=524288";
    REQUIRE(clattn__caps_pretend(&caps, text) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(caps.type == CLATTN_DEVICE_GPU && strcmp(caps.name, "gfx900") == 0, "type %d, %s", caps.type, caps.name);
    CHECK(caps.vendor == CLATTN__VENDOR_AMD && caps.runtime == CLATTN__RUNTIME_RUSTICL, "vendor %d, runtime %d",
          caps.vendor, caps.runtime);
    CHECK(caps.local_memory == 65536 && caps.max_work_group == 256 && caps.max_item_sizes[2] == 256, "limits");
    CHECK(caps.compute_units == 60 && caps.vector_width == 4 && caps.subgroups && caps.fp16, "the rest");
    CHECK(caps.second_cache == 524288, "%llu", (unsigned long long)caps.second_cache);
    clattn__free(caps.name);
    clattn__free(caps.vendor_text);
    clattn__free(caps.platform);
}

/* What an item walks of the weight follows the second-level cache; where that is unknown, the vectors. */
static void weights_and_caches(void) {
    static const struct {
        uint64_t cache;
        uint32_t width;
        int kilofloats;
    } rows[] = {{1 << 20, 16, 160}, {1 << 20, 8, 160}, {256 << 10, 16, 40},           {2 << 20, 8, 320},
                {0, 16, 160},       {0, 8, 40},        {(uint64_t)1 << 40, 16, 1280}, {1, 4, 20}};
    for (size_t i = 0; i < CLATTN__COUNT(rows); i++) {
        clattn__candidates list = {0};
        const clattn__caps caps = {
            .type = CLATTN_DEVICE_CPU, .second_cache = rows[i].cache, .vector_width = rows[i].width};
        clattn__gemm_cpu.candidates(&(clattn__gemm_problem){.m = 0}, &caps, &list);
        CHECK(list.count == 3 && list.set[0].value[3] == rows[i].kilofloats, "%llu bytes, %u lanes: %d",
              (unsigned long long)rows[i].cache, (unsigned)rows[i].width, list.set[0].value[3]);
    }
}

static void bad_words(void) {
    static const struct {
        const char *text, *says;
    } rows[] = {{"gpu", "\"gpu\" is not key=value"},
                {"type=gpu,,work_group=1", "\"\" is not key=value"},
                {"type=fpga", "type is \"fpga\"; it must be cpu, gpu or other"},
                {"local_memory=-1", "local_memory is \"-1\""},
                {"local_memory=16k", "local_memory is \"16k\""},
                {"local_memory=99999999999999999999", "99999999999999999999"},
                {"work_group=0", "1..4294967295"},
                {"lanes=5", "4, 8 or 16"},
                {"subgroups=2", "0..1"},
                {"subgroup_lanes=4", "0, 8, 16 or 32"},
                {"matrix=nv:70", "75 at least"},
                {"matrix=emulated:nv", "wmma11"},
                {"colour=red", "there is no key \"colour\""}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        clattn_context *context = NULL;
        clattn_context_options options;
        clattn_context_options_init(&options);
        options.pretend = rows[i].text;
        CHECK(clattn_context_create(&context, &options) == CLATTN_INVALID_ARGUMENT && !context, "\"%s\"", rows[i].text);
        CHECK(strstr(clattn_last_error(), rows[i].says), "\"%s\": %s", rows[i].text, clattn_last_error());
    }
}

/* Causal attention on 70 rows, by attn_tiled. */
static clattn_attention_desc tiled_desc(int64_t head_dim) {
    clattn_attention_desc d;
    clattn_attention_desc_init(&d);
    d.batch = 1, d.query_heads = 2, d.query_len = 70, d.kv_len = 70, d.head_dim = head_dim;
    d.causal = CLATTN_CAUSAL_TOP_LEFT;
    d.kernel = "attn_tiled";
    return d;
}

/* Plans are verified against the reference when they are made: what a small GPU would run is run here. */
static void small_gpus(void) {
    static const struct {
        const char *pretend, *tiles;
        int head_dim;
    } rows[] = {{"type=gpu,local_memory=16384,work_group=64", "8 x 8 work-items", 64},
                {"type=gpu,local_memory=16384,work_group=64", "8 x 8 work-items", 128},
                {"type=gpu,local_memory=32768,work_group=256", "16 x 16 work-items", 64},
                {"type=gpu,local_memory=8192,work_group=64", NULL, 64}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        clattn_context *context = open_as(rows[i].pretend, NULL);
        REQUIRE(context, "no context");
        clattn_attention *plan = NULL;
        const clattn_attention_desc d = tiled_desc(rows[i].head_dim);
        clattn_status status = clattn_attention_create(&plan, context, &d);
        clattn_plan_info info;
        if (!rows[i].tiles)
            CHECK(status == CLATTN_UNSUPPORTED && strstr(clattn_last_error(), "8192"), "%s", clattn_last_error());
        else if (CHECK(status == CLATTN_OK, "%s: %s", rows[i].pretend, clattn_last_error()) &&
                 CHECK(clattn_attention_info(plan, &info) == CLATTN_OK, "info"))
            CHECK(strstr(info.tiles, rows[i].tiles), "%s: %s", rows[i].pretend, info.tiles);
        clattn_attention_destroy(&plan);
        clattn_context_destroy(&context);
    }
}

/* Rows whose items tell each other their maxima, and what is in local memory, by registers. Verification runs them, of
 * attention when the plan is made: sub-groups as wide as the tile, half as wide, and a depth that is no multiple of
 * their width. */
static void subgroup_widths(void) {
    clattn_context *context = open_as("type=gpu", NULL);
    REQUIRE(context, "no context");
    const bool can_pin = context->env.device.caps.subgroup_lanes > 0;
    clattn_context_destroy(&context);
    if (!can_pin) {
        clattn_test_skip("the device cannot pin the width of its sub-groups");
        return;
    }
    static const struct { int lanes, head_dim; } rows[] = {{8, 32}, {16, 64}, {8, 64}, {8, 20}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char pretend[96];
        snprintf(pretend, sizeof pretend, "type=gpu,vendor=other,work_group=256,subgroup_lanes=%d", rows[i].lanes);
        context = open_as(pretend, NULL);
        REQUIRE(context, "no context");
        clattn_attention *plan = NULL;
        const clattn_attention_desc d = tiled_desc(rows[i].head_dim);
        CHECK(clattn_attention_create(&plan, context, &d) == CLATTN_OK, "%s: %s", pretend, clattn_last_error());
        clattn_attention_destroy(&plan);
        const clattn__gemm_problem p = {.m = 4096, .n = 150, .k = 40, .width = 150, .bias = true};
        CHECK(clattn__gemm_verify(context, &clattn__gemm_tiled, &p, NULL, true, NULL) == CLATTN_OK, "%s: %s", pretend,
              clattn_last_error());
        clattn_context_destroy(&context);
    }
}

/* One query of eight heads on 1000 keys, in small work-groups; as many of them share the keys as fill the device's last
 * turn. Verification runs them when the plan is made. */
static void few_queries(void) {
    static const struct {
        const char *pretend, *tiles;
        int batch;
    } rows[] = {{"type=gpu,vendor=other,local_memory=16384,work_group=64,compute_units=4",
                 "4 query rows x 128 keys, chunks shared by up to 8 work-groups", 1},
                {"type=gpu,vendor=other,local_memory=32768,work_group=32,compute_units=1",
                 "8 query rows x 128 keys, chunks shared by up to 4 work-groups", 1},
                {"type=gpu,vendor=other,local_memory=32768,work_group=128,compute_units=3",
                 "8 query rows x 128 keys, chunks shared by up to 3 work-groups", 8}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        clattn_context *context = open_as(rows[i].pretend, NULL);
        REQUIRE(context, "no context");
        clattn_attention *plan = NULL;
        clattn_attention_desc d;
        clattn_plan_info info;
        clattn_attention_desc_init(&d);
        d.batch = rows[i].batch, d.query_heads = 8, d.kv_heads = 1, d.query_len = 1, d.kv_len = 1000, d.head_dim = 64;
        d.kernel = "attn_decode";
        if (CHECK(clattn_attention_create(&plan, context, &d) == CLATTN_OK, "%s: %s", rows[i].pretend,
                  clattn_last_error()) &&
            CHECK(clattn_attention_info(plan, &info) == CLATTN_OK, "info"))
            CHECK(strcmp(info.tiles, rows[i].tiles) == 0, "%s: %s", rows[i].pretend, info.tiles);
        clattn_attention_destroy(&plan);
        clattn_context_destroy(&context);
    }
}

/* Tiles of a plan on a driver that says of so many kernels that they spill; "" when there is none. */
static void tiles_when_spilling(clattn_context *context, int kernels, size_t bytes, char *tiles, size_t capacity) {
    clattn_attention *plan = NULL;
    clattn_attention_desc d;
    clattn_plan_info info;
    clattn_attention_desc_init(&d);
    d.batch = 1, d.query_heads = 1, d.query_len = d.kv_len = 100, d.head_dim = 64;
    d.kernel = "attn_tiled";
    tiles[0] = '\0';
    clattn_test_spills(kernels, bytes);
    if (CHECK(clattn_attention_create(&plan, context, &d) == CLATTN_OK, "%s", clattn_last_error()) &&
        CHECK(clattn_attention_info(plan, &info) == CLATTN_OK, "%s", clattn_last_error()))
        snprintf(tiles, capacity, "%s", info.tiles);
    clattn_test_spills(-1, 0);
    clattn_attention_destroy(&plan);
}

/* Tiles whose registers spill are passed over, unless all do or few bytes do; explain says how many. */
static void registers(void) {
    enum { CAPACITY = 256 };
    char usual[CAPACITY], other[CAPACITY], all[CAPACITY], few[CAPACITY];
    clattn_context *context = open_as("type=gpu,local_memory=65536,work_group=256", NULL);
    REQUIRE(context, "no context");
    tiles_when_spilling(context, 0, 0, usual, CAPACITY);
    tiles_when_spilling(context, 1, 4096, other, CAPACITY);
    tiles_when_spilling(context, 1000, 4096, all, CAPACITY);
    tiles_when_spilling(context, 1, 128, few, CAPACITY);
    CHECK(strlen(usual) > 0 && !strstr(usual, "registers"), "%s", usual);
    CHECK(strcmp(usual, other) != 0 && !strstr(other, "registers"), "%s; usually %s", other, usual);
    CHECK(strncmp(all, usual, strlen(usual)) == 0 && strstr(all, "4096 bytes of each work-item in memory"), "%s", all);
    CHECK(strncmp(few, usual, strlen(usual)) == 0 && strstr(few, "128 bytes of each work-item in memory"), "%s", few);
    clattn_context_destroy(&context);
}

enum { MOST_NAMES = 64, NAME = 48 };
typedef struct seen {
    char names[MOST_NAMES][NAME];
    int count, programs;
    int rows_1, shapes_8_8_16; /* alternatives of attn_tiled that no large device is given first */
} seen;

static bool has(const seen *s, const char *name) {
    for (int i = 0; i < s->count; i++)
        if (strcmp(s->names[i], name) == 0) return true;
    return false;
}

static void see(void *user, const clattn_program_source *program) {
    seen *s = user;
    s->programs++;
    if (program->alternative && strcmp(program->kernel, "attn_tiled") == 0) {
        s->rows_1 += strstr(program->options, "-DROWS=1 ") != NULL;
        s->shapes_8_8_16 += strstr(program->options, "-DTILE_X=8 -DTILE_Y=8 -DROWS=4 -DDEPTH=16 ") != NULL;
    }
    CHECK(strstr(program->source, "__kernel") && !strstr(program->source, "#include \""), "%s: not a whole program",
          program->file);
    CHECK(strncmp(program->options, "-cl-std=CL1.2", 13) == 0 && strlen(program->key) == 32, "%s", program->options);
    if (!has(s, program->kernel) && s->count < MOST_NAMES) snprintf(s->names[s->count++], NAME, "%s", program->kernel);
}

/* Kernels that are ours and not the host's: each is in the listing of a GPU or of a CPU. */
static void every_kernel_is_listed(void) {
    static const char *const pretended[] = {"type=gpu,vendor=NVIDIA,local_memory=49152,work_group=1024,matrix=nv:80",
                                            "type=cpu,lanes=8"};
    static seen s;
    memset(&s, 0, sizeof s);
    for (int i = 0; i < 2; i++) {
        clattn_context *context = open_as(pretended[i], NULL);
        REQUIRE(context, "no context");
        CHECK(clattn_kernel_sources(context, see, &s) == CLATTN_OK, "%s", clattn_last_error());
        clattn_context_destroy(&context);
    }
    clattn_kernel_info info;
    for (int k = 0; k < clattn_kernel_count() && clattn_kernel_get(k, &info) == CLATTN_OK; k++) {
        if (strstr(info.name, "_host") || strcmp(info.name, "gemm_clblast") == 0) continue;
        CHECK(has(&s, info.name), "%s is in no listing", info.name);
    }
    /* batch_statistics and batch_apply are in one file with layer_norm: a shared program is told for each */
    static const char *const small[] = {"layer_norm", "batch_statistics", "batch_apply",     "elementwise", "rope",
                                        "kv_append",  "kv_gather",        "softmax_forward", "chain_cpu"};
    for (size_t i = 0; i < sizeof small / sizeof small[0]; i++)
        CHECK(has(&s, small[i]), "%s is in no listing", small[i]);
    CHECK(s.programs > 100, "%d programs", s.programs);
    CHECK(s.rows_1 > 0 && s.shapes_8_8_16 > 0, "tiles that tuning tries and few queries are given are not listed");
}

static void bad_listings(void) {
    static seen s;
    CHECK(clattn_kernel_sources(NULL, see, &s) == CLATTN_INVALID_ARGUMENT, "context NULL");
    clattn_context *context = open_as(NULL, "/");
    REQUIRE(context, "no context");
    CHECK(clattn_kernel_sources(context, NULL, NULL) == CLATTN_INVALID_ARGUMENT, "report NULL");
    CHECK(clattn_kernel_sources(context, see, &s) == CLATTN_FILE_FAILED && strstr(clattn_last_error(), "\"//"), "%s",
          clattn_last_error());
    clattn_context_destroy(&context);
}

/* Whether the device that is really there has the quirk: then nothing else can be tried on it. */
static bool really_has(clattn__quirk quirk) {
    clattn_context_options options;
    clattn_context_options_init(&options);
    options.selector = getenv("CLATTN_DEVICE");
    options.cache_dir = "";
    clattn__env env;
    if (!CHECK(clattn__env_create(&env, &options) == CLATTN_OK, "%s", clattn_last_error())) return true;
    const bool has = env.device.caps.quirks & quirk;
    clattn__env_clear(&env);
    return has;
}

/* More rows than NVIDIA's grids hold groups in their second dimension. Norms and rotations find theirs in two ways. The
 * devices are fast enough that no launch is cut up for its length. */
static void short_grids(void) {
    static const struct {
        const char *pretend;
        int launches;
    } rows[] = {{"type=gpu,clock_mhz=2000,compute_units=40,vendor=NVIDIA,platform=NVIDIA CUDA", 2},
                {"type=gpu,clock_mhz=2000,compute_units=40,vendor=AMD,platform=AMD", 1}};
    enum { ROWS = 66001, WIDTH = 2, COUNT = ROWS * WIDTH };
    clattn_random random = {7};
    float *x = clattn_guard_alloc(COUNT * sizeof *x), *y = clattn_guard_alloc(COUNT * sizeof *y);
    float *want = clattn_guard_alloc(COUNT * sizeof *want), *tolerance = clattn_guard_alloc(COUNT * sizeof *tolerance);
    clattn_fill_normal(&random, x, COUNT, 1);
    clattn_norm_desc norm;
    clattn_norm_desc_init(&norm);
    norm.batch = 1, norm.rows = ROWS, norm.features = WIDTH;
    clattn_rope_desc rotation;
    clattn_rope_desc_init(&rotation);
    rotation.batch = rotation.heads = 1, rotation.rows = ROWS, rotation.head_dim = WIDTH;
    for (size_t i = 0; i < CLATTN__COUNT(rows); i++) {
        if (i > 0 && really_has(CLATTN__QUIRK_SHORT_GRIDS)) break;
        clattn_context *context = open_as(rows[i].pretend, NULL);
        clattn_layer *layer = NULL;
        clattn_rope *rope = NULL;
        clattn_layer_io io = {.input = clattn_host(x, CLATTN_F32, 3, 1, ROWS, WIDTH, 0),
                              .output = clattn_host(want, CLATTN_F32, 3, 1, ROWS, WIDTH, 0)};
        clattn_rope_io turned = {.input = clattn_host(x, CLATTN_F32, 4, 1, 1, ROWS, WIDTH),
                                 .output = clattn_host(want, CLATTN_F32, 4, 1, 1, ROWS, WIDTH)};
        REQUIRE(clattn_norm_create(&layer, context, &norm, NULL) == CLATTN_OK &&
                    clattn_rope_create(&rope, context, &rotation) == CLATTN_OK,
                "%s", clattn_last_error());
        CHECK(clattn_reference_norm(&norm, NULL, &io, tolerance) == CLATTN_OK, "%s", clattn_last_error());
        io.output.data = turned.output.data = y;
        clattn_test_launches();
        CHECK(clattn_layer_run(layer, &io) == CLATTN_OK, "%s", clattn_last_error());
        int launches = clattn_test_launches();
        CHECK(launches == rows[i].launches, "\"%s\": %d launches of the norm", rows[i].pretend, launches);
        clattn_check_close(y, want, tolerance, 0, COUNT, rows[i].pretend);
        turned.output.data = want;
        CHECK(clattn_reference_rope(&rotation, &turned, tolerance) == CLATTN_OK, "%s", clattn_last_error());
        turned.output.data = y;
        clattn_test_launches();
        CHECK(clattn_rope_run(rope, &turned) == CLATTN_OK, "%s", clattn_last_error());
        launches = clattn_test_launches();
        CHECK(launches == rows[i].launches, "\"%s\": %d launches of the rotation", rows[i].pretend, launches);
        clattn_check_close(y, want, tolerance, 0, COUNT, rows[i].pretend);
        clattn_rope_destroy(&rope);
        clattn_layer_destroy(&layer);
        clattn_context_destroy(&context);
    }
    clattn_guard_free(x);
    clattn_guard_free(y);
    clattn_guard_free(want);
    clattn_guard_free(tolerance);
}

/* pocl on NVIDIA's cards ends the process when asked to fill with more than 4 bytes at once; elsewhere fewer commands
 * are better. */
static void narrow_fills(void) {
    static const struct {
        const char *pretend;
        size_t widest;
    } rows[] = {{"type=gpu,vendor=NVIDIA,platform=Portable Computing Language", 4},
                {"type=gpu,vendor=NVIDIA,platform=NVIDIA CUDA", CLATTN__PUT_BYTES}};
    enum { BYTES = 3 * CLATTN__PUT_BYTES };
    unsigned char data[BYTES], got[BYTES];
    for (int i = 0; i < BYTES; i++) data[i] = (unsigned char)(i * 7 + 1);
    for (size_t i = 0; i < CLATTN__COUNT(rows); i++) {
        if (i > 0 && really_has(CLATTN__QUIRK_NARROW_FILLS)) break;
        clattn_context_options options;
        clattn_context_options_init(&options);
        options.selector = getenv("CLATTN_DEVICE");
        options.pretend = rows[i].pretend;
        options.cache_dir = "";
        clattn__env env;
        REQUIRE(clattn__env_create(&env, &options) == CLATTN_OK, "%s", clattn_last_error());
        clattn__buffer buffer;
        memset(got, 0, sizeof got);
        clattn_test_widest_fill();
        CHECK(clattn__buffer_create(&env, BYTES, &buffer) == CLATTN_OK &&
                  clattn__buffer_put(&env, buffer.mem, 0, BYTES, data) == CLATTN_OK &&
                  clattn__buffer_read(&env, buffer.mem, 0, BYTES, got) == CLATTN_OK,
              "%s", clattn_last_error());
        CHECK(memcmp(got, data, BYTES) == 0, "\"%s\": other bytes arrived", rows[i].pretend);
        const size_t widest = clattn_test_widest_fill();
        CHECK(widest == rows[i].widest, "\"%s\": filled with %zu bytes at once", rows[i].pretend, widest);
        clattn__buffer_clear(&env, &buffer);
        clattn__env_clear(&env);
    }
}

int main(int argc, char **argv) {
    static const clattn_test tests[] = {{"words", words},
                                        {"weights and caches", weights_and_caches},
                                        {"bad_words", bad_words},
                                        {"small_gpus", small_gpus},
                                        {"subgroup_widths", subgroup_widths},
                                        {"few_queries", few_queries},
                                        {"registers", registers},
                                        {"every_kernel_is_listed", every_kernel_is_listed},
                                        {"bad_listings", bad_listings},
                                        {"narrow_fills", narrow_fills},
                                        {"short_grids", short_grids},
                                        {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"pretend", tests}, {NULL, NULL}};
    return clattn_test_main(suites, argc, argv);
}
