/* attn_matrix and gemm_matrix on emulated engines: every layout, both 16-bit types, both ways in which emulated lanes
 * meet. */
#define _DEFAULT_SOURCE
#include <math.h>
#include <string.h>
#include <sys/mman.h>

#include "../cl/shared/matrix.h"
#include "clattn/clattn.h"
#include "harness.h"
#include "matrix_case.h"

static const char *const engines[] = {"nv", "wmma11", "wmma12", "mfma32", "dpas8", "dpas16"};
enum { ENGINES = sizeof engines / sizeof engines[0] };

static const uint32_t plain = CLATTN__LSE;
static const uint32_t everything = CLATTN__CAUSAL | CLATTN__WINDOW | CLATTN__MASK_FLOAT | CLATTN__PADDING |
                                   CLATTN__LENGTHS | CLATTN__SOFTCAP | CLATTN__ALIBI | CLATTN__SINKS | CLATTN__LSE |
                                   CLATTN__ALWAYS_KEYS | CLATTN__DROPOUT | CLATTN__DOCUMENTS;
static const uint32_t paged = CLATTN__CAUSAL | CLATTN__LENGTHS | CLATTN__OFFSET_FROM_LENGTHS | CLATTN__PAGED;
static const uint32_t ring = CLATTN__CAUSAL | CLATTN__LENGTHS | CLATTN__WINDOW | CLATTN__RING;

static void try_variant(const char *engine, bool subgroups, uint32_t features, clattn_dtype dtype, int64_t head_dim,
                        int64_t value_dim) {
    clattn_context *context = matrix_context(engine, subgroups, NULL);
    if (!context) return;
    clattn__verify_stats stats = {0};
    clattn_status status =
        matrix_verify(context, matrix_problem(features, dtype, head_dim, value_dim), 0, true, &stats);
    CHECK(status == CLATTN_OK, "%s, %s, %lld and %lld columns: %s", engine, clattn_dtype_name(dtype),
          (long long)head_dim, (long long)value_dim, clattn_last_error());
    clattn_test_note("%s%s %s %lld/%lld: %d cases, %.3f of the tolerance", engine, subgroups ? " (sub-groups)" : "",
                     clattn_dtype_name(dtype), (long long)head_dim, (long long)value_dim, stats.cases, stats.worst);
    clattn_context_destroy(&context);
}

static void try_products(const char *engine, bool subgroups) {
    for (int i = 0; i < MATRIX_PRODUCTS; i++) {
        clattn_context *context = matrix_context(engine, subgroups, NULL);
        if (!context) return;
        clattn__verify_stats stats = {0};
        clattn_status status = matrix_verify_product(context, &matrix_products[i], i, true, &stats);
        CHECK(status == CLATTN_OK, "%s, %lld columns from %lld: %s", engine, (long long)matrix_products[i].n,
              (long long)matrix_products[i].k, clattn_last_error());
        clattn_test_note("%s%s %s product: %d cases, %.3f of the tolerance", engine, subgroups ? " (sub-groups)" : "",
                         clattn_dtype_name(matrix_products[i].dtype), stats.cases, stats.worst);
        clattn_context_destroy(&context);
    }
}

/* The sanitizers slow the driver's compiler down, which is all that these tests wait for. */
#ifdef __SANITIZE_ADDRESS__
enum { EVERY = 5 };
#else
enum { EVERY = 1 };
#endif

static void test_layouts(void) {
    const int some = matrix_has_subgroups() ? 1 : ENGINES;
    for (int e = 0; e < some; e += EVERY) try_variant(engines[e], false, plain | CLATTN__CAUSAL, CLATTN_F16, 32, 32);
    if (EVERY == 1 && some > 1) try_variant("nv", false, plain | CLATTN__CAUSAL, CLATTN_F16, 128, 64);
}

static void test_products(void) {
    const int some = matrix_has_subgroups() ? 1 : ENGINES;
    for (int e = 0; e < some; e += EVERY) try_products(engines[e], false);
}

static void probe_engine(const char *engine, bool subgroups, clattn_dtype dtype) {
    const clattn__op_variant variant = {.dtype = dtype};
    clattn__verify_stats stats = {0};
    clattn_context *context = matrix_context(engine, subgroups, NULL);
    if (!context) return;
    clattn_status status = clattn__op_verify(context, "mma_probe", &variant, &stats, NULL);
    CHECK(status == CLATTN_OK && stats.cases == MATRIX_PROBE_COUNT, "%s, %s, %d steps: %s", engine,
          clattn_dtype_name(dtype), stats.cases, clattn_last_error());
    clattn_context_destroy(&context);
}

/* Every step of the probe; types alternate, since they share all code but the rounding. */
static void test_probes(void) {
    const bool full = clattn_test_flag("CLATTN_TEST_FULL");
    if (matrix_has_subgroups()) {
        probe_engine("nv", true, CLATTN_F16);
        probe_engine("dpas16", true, CLATTN_BF16);
        if (full) probe_engine("wmma11", true, CLATTN_F16);
        return;
    }
    for (int e = 0; e < ENGINES; e += EVERY) {
        if (full || e % 2 == 0) probe_engine(engines[e], false, CLATTN_F16);
        if (full || e % 2 != 0) probe_engine(engines[e], false, CLATTN_BF16);
    }
}

static void test_features(void) {
    try_variant("nv", false, everything, CLATTN_BF16, 40, 72);
    if (EVERY > 1 || matrix_has_subgroups()) return;
    try_variant("mfma32", false, everything, CLATTN_BF16, 24, 40);
    try_variant("dpas16", false, everything, CLATTN_BF16, 24, 40);
    const uint32_t packed = plain | CLATTN__VARLEN | CLATTN__CAUSAL | CLATTN__PREFIX;
    const uint32_t lengths = plain | CLATTN__OFFSET_FROM_LENGTHS | CLATTN__LENGTHS | CLATTN__CAUSAL | CLATTN__MASK_BOOL;
    try_variant("nv", false, packed, CLATTN_F16, 32, 32);
    try_variant("wmma11", false, lengths, CLATTN_F16, 32, 32);
    const uint32_t tried = everything | packed | lengths | paged | ring | CLATTN__CELLS; /* caches: test_caches */
    CHECK(tried == clattn__attn_matrix.features, "a claim of attn_matrix is not tried: 0x%x",
          clattn__attn_matrix.features & ~tried);
}

/* Keys where a cache has them. Each engine copies rows in its own way, NVIDIA's bytes in another than 16 bits; with a
 * padding mask there are values that are staged with care. */
static void test_caches(void) {
    static const struct {
        const char *engine;
        uint32_t features;
        clattn_dtype dtype;
    } caches[] = {
        {"nv", paged, CLATTN_F16},
        {"nv", ring | CLATTN__CELLS, CLATTN_BF16},
        {"wmma11", paged | CLATTN__CELLS, CLATTN_F16},
        {"wmma12", ring, CLATTN_BF16},
        {"mfma32", paged | CLATTN__CELLS | CLATTN__PADDING, CLATTN_BF16},
        {"dpas8", ring | CLATTN__CELLS, CLATTN_F16},
        {"dpas16", paged, CLATTN_BF16},
    };
    const bool subgroups = matrix_has_subgroups();
    for (size_t i = 0; i < sizeof caches / sizeof caches[0]; i += subgroups ? 5 : EVERY)
        try_variant(caches[i].engine, subgroups, caches[i].features, caches[i].dtype, 32, 24);
}

/* More columns of V than a thread of Intel's has registers for: work-groups share them out. */
static void test_wide(void) {
    const bool subgroups = matrix_has_subgroups();
    try_variant("dpas8", subgroups, plain | CLATTN__CAUSAL, CLATTN_F16, 160, 160);
    if (EVERY > 1 || subgroups) return;
    try_variant("dpas16", false, plain | CLATTN__CAUSAL, CLATTN_BF16, 192, 192);
    if (!clattn_test_flag("CLATTN_TEST_FULL")) return;
    try_variant("dpas8", false, plain, CLATTN_F16, 256, 256);
    try_variant("dpas16", false, plain, CLATTN_F16, 256, 256);
}

static void test_subgroups(void) {
    if (!matrix_has_subgroups()) {
        clattn_test_skip("the device has no sub-groups of a fixed size (cl_intel_required_subgroup_size)");
        return;
    }
    /* 32, 8, 32 and 16 lanes; the run matrix tries these widths too, so that two engines are enough here. */
    static const char *const exchanging[] = {"nv", "dpas8", "wmma11", "dpas16"};
    const size_t some = clattn_test_flag("CLATTN_TEST_FULL") ? sizeof exchanging / sizeof exchanging[0] : 2;
    for (size_t e = 0; e < some; e++) {
        try_variant(exchanging[e], true, plain | CLATTN__CAUSAL, CLATTN_F16, 32, 32);
        try_products(exchanging[e], true);
    }
}

static void test_refusals(void) {
    clattn_context_options options;
    clattn_context_options_init(&options);
    options.matrix_engine = "emulated:abacus";
    clattn_context *context = NULL;
    CHECK(clattn_context_create(&context, &options) == CLATTN_INVALID_ARGUMENT, "an unknown engine is taken");
    CHECK(strstr(clattn_last_error(), "options.matrix_engine is \"emulated:abacus\"") != NULL, "%s",
          clattn_last_error());
    options.matrix_engine = "none";
    REQUIRE(clattn_context_create(&context, &options) == CLATTN_OK, "%s", clattn_last_error());
    clattn__attn_problem problem = matrix_problem(plain, CLATTN_F16, 64, 64);
    clattn__refusal why = {{0}};
    CHECK(!clattn__attn_matrix.supports(&problem, &context->env.device.caps, &why) &&
              strstr(why.text, "no matrix engine"),
          "%s", why.text);
    clattn_context_destroy(&context);

    context = matrix_context("nv", false, NULL);
    if (!context) return;
    const clattn__caps *caps = &context->env.device.caps;
    problem = matrix_problem(plain, CLATTN_F32, 64, 64);
    CHECK(!clattn__attn_matrix.supports(&problem, caps, &why) && strstr(why.text, "float32"), "%s", why.text);
    problem = matrix_problem(plain, CLATTN_F16, 60, 64);
    CHECK(!clattn__attn_matrix.supports(&problem, caps, &why) && strstr(why.text, "head_dim 60"), "%s", why.text);
    clattn__caps xe = *caps;
    xe.matrix = (clattn__matrix){.engine = MATRIX_DPAS8};
    problem = matrix_problem(plain, CLATTN_F16, 64, 136);
    CHECK(!clattn__attn_matrix.supports(&problem, &xe, &why) && strstr(why.text, "multiple of 16"), "%s", why.text);
    clattn__caps small = *caps;
    small.local_memory = 4096;
    problem = matrix_problem(plain, CLATTN_F16, 64, 64);
    CHECK(!clattn__attn_matrix.supports(&problem, &small, &why) && strstr(why.text, "bytes of local memory"), "%s",
          why.text);
    clattn__caps turing = *caps;
    turing.matrix = (clattn__matrix){.engine = MATRIX_NV, .arch = 75};
    problem = matrix_problem(plain, CLATTN_BF16, 64, 64);
    CHECK(!clattn__attn_matrix.supports(&problem, &turing, &why) && strstr(why.text, "7.5"), "%s", why.text);
    clattn_context_destroy(&context);
}

/* Keys of 16 columns, `far` elements apart, which reach over 4 GB, in memory of which next to nothing is touched: each
 * row has a page of its own. */
static void try_far_rows(const char *engine, int64_t keys, int64_t far) {
    enum { ROWS = 3, D = 16 };
    const size_t bytes = (size_t)keys * (size_t)far * sizeof(uint16_t);
    static uint16_t query[ROWS * D], got[ROWS * D], want[ROWS * D];
    static float got_float[ROWS * D], want_float[ROWS * D], tolerance[ROWS * D];
    clattn_context *context = matrix_context(engine, false, NULL);
    REQUIRE(context != NULL, "no context");
    clattn_device_info device;
    clattn_context_device(context, &device);
    uint16_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || !device.unified_memory || device.max_allocation < bytes) {
        clattn_test_skip("no tensor of 4 GB on this machine or device");
    } else {
        clattn_random random = {7};
        for (int64_t i = 0; i < keys * D; i++)
            memory[i / D * far + i % D] = clattn__float_to_half((float)(i < D ? 3 : clattn_random_normal(&random)));
        for (int i = 0; i < ROWS * D; i++) query[i] = clattn__float_to_half((float)clattn_random_normal(&random));
        clattn_attention *plan = NULL;
        clattn_attention_desc d;
        clattn_attention_desc_init(&d);
        d.batch = 1, d.query_heads = 1, d.query_len = ROWS, d.kv_len = keys, d.head_dim = D, d.dtype = CLATTN_F16;
        d.kernel = "attn_matrix";
        clattn_attention_io io = {.query = clattn_host(query, CLATTN_F16, 4, 1, 1, ROWS, D),
                                  .key = clattn_host(memory, CLATTN_F16, 4, 1, 1, keys, D),
                                  .output = clattn_host(want, CLATTN_F16, 4, 1, 1, ROWS, D)};
        io.key.stride[0] = io.key.stride[1] = io.key.stride[2] = far, io.key.stride[3] = 1;
        io.value = io.key;
        CHECK(clattn_reference_attention(&d, &io, tolerance) == CLATTN_OK, "%s", clattn_last_error());
        io.output.data = got;
        CHECK(clattn_attention_create(&plan, context, &d) == CLATTN_OK, "%s", clattn_last_error());
        CHECK(plan && clattn_attention_run(plan, &io) == CLATTN_OK, "%s", clattn_last_error());
        for (int i = 0; i < ROWS * D; i++) {
            got_float[i] = clattn__half_to_float(got[i]), want_float[i] = clattn__half_to_float(want[i]);
            tolerance[i] += 0x1p-10f * fabsf(want_float[i]); /* both are rounded */
        }
        clattn_check_close(got_float, want_float, tolerance, 0, ROWS * D, "rows far apart");
        clattn_attention_destroy(&plan);
    }
    if (memory != MAP_FAILED) munmap(memory, bytes);
    clattn_context_destroy(&context);
}

/* Offsets of blocks need 64 bits; those within a block do too, in bytes. */
static void test_far_rows(void) {
    try_far_rows("wmma11", 2065, 1 << 20);
    try_far_rows("wmma11", 33, 1 << 26);
    if (EVERY == 1) try_far_rows("nv", 33, 1 << 26);
}

static const clattn_test matrix_tests[] = {
    {"layouts", test_layouts},     {"products", test_products},
    {"probes", test_probes},       {"features", test_features},
    {"wide", test_wide},           {"caches", test_caches},
    {"subgroups", test_subgroups}, {"refusals", test_refusals},
    {"far_rows", test_far_rows},   {NULL, NULL},
};

int main(int argc, char **argv) {
    static const clattn_test_suite suites[] = {{"matrix", matrix_tests}, {NULL, NULL}};
    return clattn_test_main(suites, argc, argv);
}
