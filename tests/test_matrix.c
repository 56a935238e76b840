/* attn_matrix and gemm_matrix on emulated engines: every layout, both 16-bit types, both ways in which emulated lanes
 * meet, and mistakes planted in them, all of which verification has to catch. */
#define _DEFAULT_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../cl/shared/matrix.h"
#include "clattn/clattn.h"
#include "harness.h"
#include "registry/registry.h"

static const char *const engines[] = {"nv", "wmma11", "wmma12", "mfma32", "dpas8", "dpas16"};
enum { ENGINES = sizeof engines / sizeof engines[0] };

static const uint32_t plain = CLATTN__LSE;
static const uint32_t everything = CLATTN__CAUSAL | CLATTN__WINDOW | CLATTN__MASK_FLOAT | CLATTN__PADDING |
                                   CLATTN__LENGTHS | CLATTN__SOFTCAP | CLATTN__ALIBI | CLATTN__SINKS | CLATTN__LSE |
                                   CLATTN__ALWAYS_KEYS | CLATTN__DROPOUT | CLATTN__DOCUMENTS;

static clattn_context *context_with(const char *engine, bool subgroups, const char *kernel_dir) {
    char wanted[64];
    snprintf(wanted, sizeof wanted, "emulated%s:%s", subgroups ? "-subgroups" : "", engine);
    clattn_context_options options;
    clattn_context_options_init(&options);
    options.selector = getenv("CLATTN_DEVICE");
    options.matrix_engine = wanted;
    options.cache_dir = "";
    options.kernel_dir = kernel_dir;
    clattn_context *context = NULL;
    clattn_status status = clattn_context_create(&context, &options);
    if (status == CLATTN_UNSUPPORTED && subgroups) return NULL;
    CHECK(status == CLATTN_OK, "%s: %s", wanted, clattn_last_error());
    return context;
}

static clattn__attn_problem problem_of(uint32_t features, clattn_dtype dtype, int64_t head_dim, int64_t value_dim) {
    return (clattn__attn_problem){.features = features,
                                  .dtype = dtype,
                                  .batch = 2,
                                  .query_heads = 4,
                                  .kv_heads = 2,
                                  .query_len = 200,
                                  .kv_len = 200,
                                  .head_dim = head_dim,
                                  .value_dim = value_dim};
}

/* The variant meets verification's cases: its own tile sizes, empty rows, NaN that must not matter, gaps, +-1e4. */
static clattn_status verify(clattn_context *context, clattn__attn_problem problem, bool long_form,
                            clattn__verify_stats *stats) {
    clattn__attn_kernel kernel = {.impl = &clattn__attn_matrix, .programs = &context->programs, .problem = problem};
    clattn__refusal why = {{0}};
    if (!CHECK(clattn__attn_matrix.supports(&problem, &context->env.device.caps, &why), "refused: %s", why.text))
        return CLATTN_UNSUPPORTED;
    clattn_status status = clattn__attn_prepare(&kernel, NULL);
    if (status == CLATTN_OK) status = clattn__attn_verify(&kernel, long_form, stats);
    clattn__attn_kernel_clear(&kernel);
    return status;
}

static void try_variant(const char *engine, bool subgroups, uint32_t features, clattn_dtype dtype, int64_t head_dim,
                        int64_t value_dim) {
    clattn_context *context = context_with(engine, subgroups, NULL);
    if (!context) return;
    clattn__verify_stats stats = {0};
    clattn_status status = verify(context, problem_of(features, dtype, head_dim, value_dim), true, &stats);
    CHECK(status == CLATTN_OK, "%s, %s, %lld and %lld columns: %s", engine, clattn_dtype_name(dtype),
          (long long)head_dim, (long long)value_dim, clattn_last_error());
    clattn_test_note("%s%s %s %lld/%lld: %d cases, %.3f of the tolerance", engine, subgroups ? " (sub-groups)" : "",
                     clattn_dtype_name(dtype), (long long)head_dim, (long long)value_dim, stats.cases, stats.worst);
    clattn_context_destroy(&context);
}

/* set: which of its tiles. */
static clattn_status verify_product(clattn_context *context, const clattn__gemm_problem *problem, size_t set,
                                    bool long_form, clattn__verify_stats *stats) {
    const clattn__caps *caps = &context->env.device.caps;
    clattn__refusal why = {{0}};
    clattn__candidates list = {.count = 0};
    if (!CHECK(clattn__gemm_matrix.supports(problem, caps, &why), "refused: %s", why.text)) return CLATTN_UNSUPPORTED;
    clattn__gemm_matrix.candidates(problem, caps, &list);
    return clattn__gemm_verify(context, &clattn__gemm_matrix, problem, &list.set[set % (size_t)list.count], long_form,
                               stats);
}

/* Odd widths and depths; heads, and columns that are no whole heads' worth; each weight needs all its parts. */
static const clattn__gemm_problem products[] = {
    {.m = 134, .n = 99, .k = 77, .width = 33, .dtype = CLATTN_F16, .split_heads = true, .bias = true},
    {.m = 134, .n = 130, .k = 70, .width = 130, .dtype = CLATTN_BF16, .activation = CLATTN_ACTIVATION_GELU},
};

static void try_products(const char *engine, bool subgroups) {
    for (size_t i = 0; i < sizeof products / sizeof products[0]; i++) {
        clattn_context *context = context_with(engine, subgroups, NULL);
        if (!context) return;
        clattn__verify_stats stats = {0};
        clattn_status status = verify_product(context, &products[i], i, true, &stats);
        CHECK(status == CLATTN_OK, "%s, %lld columns from %lld: %s", engine, (long long)products[i].n,
              (long long)products[i].k, clattn_last_error());
        clattn_test_note("%s%s %s product: %d cases, %.3f of the tolerance", engine, subgroups ? " (sub-groups)" : "",
                         clattn_dtype_name(products[i].dtype), stats.cases, stats.worst);
        clattn_context_destroy(&context);
    }
}

/* The sanitizers slow the driver's compiler down, which is all that these tests wait for. */
#ifdef __SANITIZE_ADDRESS__
enum { EVERY = 5 };
#else
enum { EVERY = 1 };
#endif

/* Emulated engines are the same code on every device. Where lanes can meet in sub-groups, the tests are about that, and
 * only one engine meets in work-groups. */
static bool has_subgroups(void) {
    clattn_context *context = context_with("nv", true, NULL);
    const bool has = context != NULL;
    clattn_context_destroy(&context);
    return has;
}

static void test_layouts(void) {
    const int some = has_subgroups() ? 1 : ENGINES;
    for (int e = 0; e < some; e += EVERY) try_variant(engines[e], false, plain | CLATTN__CAUSAL, CLATTN_F16, 32, 32);
    if (EVERY == 1 && some > 1) try_variant("nv", false, plain | CLATTN__CAUSAL, CLATTN_F16, 128, 64);
}

static void test_products(void) {
    const int some = has_subgroups() ? 1 : ENGINES;
    for (int e = 0; e < some; e += EVERY) try_products(engines[e], false);
}

static void probe_engine(const char *engine, bool subgroups, clattn_dtype dtype) {
    const clattn__op_variant variant = {.dtype = dtype};
    clattn__verify_stats stats = {0};
    clattn_context *context = context_with(engine, subgroups, NULL);
    if (!context) return;
    clattn_status status = clattn__op_verify(context, "mma_probe", &variant, &stats, NULL);
    CHECK(status == CLATTN_OK && stats.cases == MATRIX_PROBE_COUNT, "%s, %s, %d steps: %s", engine,
          clattn_dtype_name(dtype), stats.cases, clattn_last_error());
    clattn_context_destroy(&context);
}

/* Every step of the probe; types alternate, since they share all code but the rounding. */
static void test_probes(void) {
    const bool full = clattn_test_flag("CLATTN_TEST_FULL");
    if (has_subgroups()) {
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
    if (EVERY > 1 || has_subgroups()) return;
    try_variant("mfma32", false, everything, CLATTN_BF16, 24, 40);
    try_variant("dpas16", false, everything, CLATTN_BF16, 24, 40);
    const uint32_t packed = plain | CLATTN__VARLEN | CLATTN__CAUSAL | CLATTN__PREFIX;
    const uint32_t lengths = plain | CLATTN__OFFSET_FROM_LENGTHS | CLATTN__LENGTHS | CLATTN__CAUSAL | CLATTN__MASK_BOOL;
    try_variant("nv", false, packed, CLATTN_F16, 32, 32);
    try_variant("wmma11", false, lengths, CLATTN_F16, 32, 32);
    CHECK((everything | packed | lengths) == clattn__attn_matrix.features, "a claim of attn_matrix is not tried: 0x%x",
          clattn__attn_matrix.features & ~(everything | packed | lengths));
}

static void test_subgroups(void) {
    if (!has_subgroups()) {
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

/* ---- planted mistakes ------------------------------------------------------------------------------------------ */

#define STEP_TEXT(STEP, what) [MATRIX_PROBE_##STEP] = what,
static const char *const steps[] = {MATRIX_PROBE_STEPS(STEP_TEXT) NULL};
enum { UNSEEN = MATRIX_PROBE_COUNT }; /* outside of what the probe looks at */

/* step: where the engine's probe must stop. */
typedef struct mistake {
    const char *engine, *file, *right, *wrong;
    int step;
} mistake;

static const mistake mistakes[] = {
    {"wmma11", "inc/mma_rows.clh", "(((n) & ~15) | ((n)&7) << 1 | ((n) >> 3 & 1))", "(n)", MATRIX_PROBE_LOADS},
    {"mfma32", "inc/mma_rows.clh", "(((n) & ~12) | ((n)&4) << 1 | ((n)&8) >> 1)", "(n)", MATRIX_PROBE_LOADS},
    {"wmma11", "inc/mma_rows.clh", "upper ? other : own, upper ? own : other", "own, other", MATRIX_PROBE_SUMS},
    {"wmma12", "inc/mma_rows.clh", "return fmax(v, mma_swap(x, v));", "return v;", MATRIX_PROBE_EXCHANGE},
    {"wmma12", "inc/mma_rows.clh", "return v + mma_swap(x, v);", "return v;", MATRIX_PROBE_EXCHANGE},
    {"dpas16", "inc/mma_rows.clh", "mma_pack8(c[2 * j].x), mma_pack8(c[2 * j + 1].x)",
     "mma_pack8(c[2 * j + 1].x), mma_pack8(c[2 * j].x)", MATRIX_PROBE_SUMS},
    {"dpas8", "inc/mma_rows.clh", "tile + TILE_AT(d + 1, j, BLOCK_KV)", "tile + TILE_AT(d, j, BLOCK_KV)",
     MATRIX_PROBE_COPIES},
    {"nv", "inc/mma_nv.clh", "(x->lane >> 3 & 1) * 8", "(x->lane >> 4) * 8", MATRIX_PROBE_LOADS},
    {"nv", "inc/mma_nv.clh", "mma_ldmatrix_transposed(x, stage", "mma_ldmatrix(x, stage", MATRIX_PROBE_LOADS},
    {"nv", "inc/mma_nv.clh", "c[j].v[2 * r], c[j].v[2 * r + 1]", "c[j].v[2 * r + 1], c[j].v[2 * r]", MATRIX_PROBE_SUMS},
    {"nv", "inc/mma_nv.clh", "    mma_wait(x);\n", "", MATRIX_PROBE_COPIES},
    {"dpas8", "inc/mma_rows.clh", "block + matrix_weight_at(MATRIX_ENGINE, MMA_N * n, 16 * step, HEAD_DIM)",
     "block + (MMA_N * n * HEAD_DIM + 16 * step)", MATRIX_PROBE_WEIGHTS},
    {"nv", "inc/mma_nv.clh", "d < width && attn_exists(head, k0 + row)", "d < width", MATRIX_PROBE_COPIES},
    {"wmma12", "inc/mma_rows.clh", "#define mma_eight_at(x, i) (8 * mma_upper(x))", "#define mma_eight_at(x, i) 0",
     MATRIX_PROBE_PRODUCT},
    {"mfma32", "inc/mma_rows.clh", "j & 1 ? c[j >> 1].x.hi : c[j >> 1].x.lo", "j & 1 ? c[j >> 1].x.lo : c[j >> 1].x.hi",
     MATRIX_PROBE_SUMS},
    /* engines that are not as the back end believes */
    {"wmma11", "inc/mma_rows_emulated.clh", "(2 * (i) + (l) / 16)", "(8 * ((l) / 16) + (i))", MATRIX_PROBE_INSTRUCTION},
    {"nv", "inc/mma_nv_emulated.clh", "(x)->tiles)[at]", "(x)->tiles)[(at) + 1]", MATRIX_PROBE_ADDRESSES},
    {"nv", "attn_matrix.cl", "next, (stage + 1) % MMA_STAGES", "next, stage", UNSEEN},
    {"nv", "attn_matrix.cl", "k0 + BLOCK_KV > top_run.y", "k0 > top_run.y", UNSEEN},
    {"wmma12", "attn_matrix.cl", "h / (all.query_heads / all.kv_heads)", "h % all.kv_heads", UNSEEN},
    {"wmma12", "attn_matrix.cl", "mma_exp2(rows->top[t][slot] - base[slot])",
     "mma_exp2(base[slot] - rows->top[t][slot])", UNSEEN},
    {"wmma12", "attn_matrix.cl", "!any ? 0.0f : sum == sum", "sum == sum", UNSEEN},
    {"nv", "attn_matrix.cl", "rows->total[t][slot] *= rescale;", "", UNSEEN},
    {"nv", "attn_matrix.cl", "if (!odd) break;", "break;", UNSEEN},
    {"nv", "attn_matrix.cl", "a.scale < 0.0f ? 0x80008000u : 0u", "0u", UNSEEN},
};
/* In what products alone go through. */
static const mistake product_mistakes[] = {
    {"nv", "gemm_matrix.cl", "(clattn_i64)at->step * WEIGHT_BLOCK", "0", UNSEEN},
    {"nv", "gemm_matrix.cl", "            at->k0 += BLOCK_K;\n", "", UNSEEN},
    {"nv", "inc/mma_nv.clh", "s ? eights[slot].z : eights[slot].x", "eights[slot].x", UNSEEN},
    {"nv", "inc/mma_nv.clh", "stage * (KEY_TILE + VALUE_TILE) + mma_key_at(row, column)", "mma_key_at(row, column)",
     UNSEEN},
    {"nv", "inc/tile_mma.clh", "#define MMA_LANES_MATCH() true", "#define MMA_LANES_MATCH() false", UNSEEN},
    {"wmma11", "gemm_matrix.cl", " * vload4(0, factor + c)", "", UNSEEN},
    {"wmma12", "gemm_matrix.cl", "aligned ? a.k / BLOCK_K * a.weight_parts : 0", "aligned ? walk.steps : 0", UNSEEN},
    {"mfma32", "gemm_matrix.cl", "in_part / a->width * a->y.head +", "", UNSEEN},
    {"dpas8", "gemm_matrix.cl", "column < w->columns ?", "column < w->columns - 1 ?", UNSEEN},
    {"dpas8", "gemm_matrix.cl", "w->n0 + n, p", "n, p", UNSEEN},
    {"dpas16", "gemm_matrix.cl", "a.m - 1)", "a.m - 2)", UNSEEN},
};
/* The emulated instructions hold work-group barriers of their own, which hide these; sub-group barriers do not. */
static const mistake missing_barriers[] = {
    {"nv", "inc/mma_nv.clh", "    mma_wait(x);\n    MMA_BARRIER();\n", "    mma_wait(x);\n", UNSEEN},
    {"dpas16", "inc/mma_rows.clh", "    MMA_BARRIER();\n}", "}", UNSEEN},
};

static char folder[] = "/tmp/clattn-matrix-XXXXXX";

/* All kernels, one of them with the mistake, in the folder. */
static bool write_kernels(const mistake *planted) {
    bool found = false;
    for (const clattn__embedded_file *file = clattn__embedded_files; file->name; file++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", folder, file->name);
        FILE *out = fopen(path, "wb");
        if (!out) return false;
        const char *text = (const char *)file->bytes, *end = text + file->count, *at = end;
        if (strcmp(file->name, planted->file) == 0) {
            const size_t length = strlen(planted->right);
            for (at = text; at < end && !((size_t)(end - at) >= length && memcmp(at, planted->right, length) == 0);
                 at++) {
            }
            found = at < end;
        }
        bool good = fwrite(text, 1, (size_t)(at - text), out) == (size_t)(at - text);
        if (at < end) {
            const char *rest = at + strlen(planted->right);
            good = good && fputs(planted->wrong, out) >= 0 &&
                   fwrite(rest, 1, (size_t)(end - rest), out) == (size_t)(end - rest);
        }
        if (fclose(out) != 0 || !good) return false;
    }
    return found;
}

static void remove_kernels(void) {
    char path[512];
    for (const clattn__embedded_file *file = clattn__embedded_files; file->name; file++) {
        snprintf(path, sizeof path, "%s/%s", folder, file->name);
        remove(path);
    }
    snprintf(path, sizeof path, "%s/inc", folder);
    rmdir(path);
    snprintf(path, sizeof path, "%s/shared", folder);
    rmdir(path);
    rmdir(folder);
}

static void must_catch_in_product(const mistake *planted) {
    REQUIRE(write_kernels(planted), "cannot plant \"%s\" in %s", planted->wrong, planted->file);
    clattn_context *context = context_with(planted->engine, false, folder);
    if (!context) return;
    clattn_status status = verify_product(context, &products[0], 0, true, NULL);
    CHECK(status == CLATTN_WRONG_RESULT, "%s, \"%s\" instead of \"%s\": %s", planted->engine, planted->wrong,
          planted->right, status == CLATTN_OK ? "not noticed" : clattn_last_error());
    clattn_context_destroy(&context);
}

/* The probe stops at the mistake's step, or finds nothing where it does not look. */
static void probe_must_stop(clattn_context *context, const mistake *planted) {
    const clattn__op_variant variant = {.dtype = CLATTN_F16};
    clattn_status status = clattn__op_verify(context, "mma_probe", &variant, NULL, NULL);
    if (planted->step == UNSEEN)
        CHECK(status == CLATTN_OK, "%s, \"%s\": %s", planted->engine, planted->wrong, clattn_last_error());
    else
        CHECK(status == CLATTN_WRONG_RESULT && strstr(clattn_last_error(), steps[planted->step]),
              "%s, \"%s\": the probe does not stop at %s: %s", planted->engine, planted->wrong, steps[planted->step],
              status == CLATTN_OK ? "not noticed" : clattn_last_error());
}

static void must_catch(const mistake *planted, bool subgroups) {
    REQUIRE(write_kernels(planted), "cannot plant \"%s\" in %s", planted->wrong, planted->file);
    clattn_context *context = context_with(planted->engine, subgroups, folder);
    if (!context) return;
    if (!subgroups) probe_must_stop(context, planted);
    /* What the probe finds, verification finds too, as the full run shows; but for what the probe alone reads. */
    const bool found = planted->step != UNSEEN && !clattn_test_flag("CLATTN_TEST_FULL");
    if (found || planted->step == MATRIX_PROBE_ADDRESSES) {
        clattn_context_destroy(&context);
        return;
    }
    const uint32_t causal = plain | CLATTN__CAUSAL;
    clattn_status status = verify(context, problem_of(causal, CLATTN_F16, 32, 32), false, NULL);
    if (status == CLATTN_OK) /* NaN that a padding mask hides */
        status = verify(context, problem_of(causal | CLATTN__PADDING, CLATTN_F16, 32, 32), false, NULL);
    if (status == CLATTN_OK) status = verify(context, problem_of(causal, CLATTN_F16, 32, 32), true, NULL);
    CHECK(status == CLATTN_WRONG_RESULT, "%s, \"%s\" instead of \"%s\": %s", planted->engine, planted->wrong,
          planted->right, status == CLATTN_OK ? "not noticed" : clattn_last_error());
    clattn_context_destroy(&context);
}

/* The next kernel of the list takes over, and says why. */
static void must_step_down(const mistake *planted) {
    REQUIRE(write_kernels(planted), "cannot plant \"%s\" in %s", planted->wrong, planted->file);
    clattn_context *context = context_with(planted->engine, false, folder);
    if (!context) return;
    context->env.device.caps.type = CLATTN_DEVICE_GPU;
    const clattn__attn_problem problem = problem_of(plain, CLATTN_F16, 32, 32);
    clattn__attn_kernel kernel;
    clattn__text notes = {0};
    clattn_status status = clattn__attn_choose(context, &problem, NULL, &kernel, &notes);
    CHECK(status == CLATTN_OK && kernel.impl == &clattn__attn_tiled, "%s", clattn_last_error());
    CHECK(notes.data && strstr(notes.data, "mma_probe, ") && strstr(notes.data, steps[planted->step]), "notes: %s",
          notes.data ? notes.data : "none");
    const char *record = clattn_context_quarantined(context, 0);
    CHECK(record && strstr(record, steps[planted->step]), "quarantined: %s", record ? record : "nothing");
    clattn__text_free(&notes);
    clattn__attn_kernel_clear(&kernel);
    clattn_context_destroy(&context);
}

static void test_mistakes(void) {
    char path[512];
    REQUIRE(mkdtemp(folder), "no folder %s", folder);
    snprintf(path, sizeof path, "%s/inc", folder);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/shared", folder);
    mkdir(path, 0700);
    if (has_subgroups()) { /* mistakes that only show there; the others fail alike on every device */
        for (size_t i = 0; i < sizeof missing_barriers / sizeof missing_barriers[0]; i++)
            must_catch(&missing_barriers[i], true);
        clattn_test_note("planted %zu missing barriers", sizeof missing_barriers / sizeof missing_barriers[0]);
    } else {
        for (size_t i = 0; i < sizeof mistakes / sizeof mistakes[0]; i += EVERY) must_catch(&mistakes[i], false);
        const size_t count = sizeof product_mistakes / sizeof product_mistakes[0];
        for (size_t i = 0; i < count; i += EVERY) must_catch_in_product(&product_mistakes[i]);
        must_step_down(&mistakes[0]);
        clattn_test_note("planted one in %d of %zu mistakes", EVERY, sizeof mistakes / sizeof mistakes[0] + count);
    }
    remove_kernels();
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
    clattn__attn_problem problem = problem_of(plain, CLATTN_F16, 64, 64);
    clattn__refusal why = {{0}};
    CHECK(!clattn__attn_matrix.supports(&problem, &context->env.device.caps, &why) &&
              strstr(why.text, "no matrix engine"),
          "%s", why.text);
    clattn_context_destroy(&context);

    context = context_with("nv", false, NULL);
    if (!context) return;
    const clattn__caps *caps = &context->env.device.caps;
    problem = problem_of(plain, CLATTN_F32, 64, 64);
    CHECK(!clattn__attn_matrix.supports(&problem, caps, &why) && strstr(why.text, "float32"), "%s", why.text);
    problem = problem_of(plain, CLATTN_F16, 60, 64);
    CHECK(!clattn__attn_matrix.supports(&problem, caps, &why) && strstr(why.text, "head_dim 60"), "%s", why.text);
    clattn__caps small = *caps;
    small.local_memory = 4096;
    problem = problem_of(plain, CLATTN_F16, 64, 64);
    CHECK(!clattn__attn_matrix.supports(&problem, &small, &why) && strstr(why.text, "bytes of local memory"), "%s",
          why.text);
    clattn__caps turing = *caps;
    turing.matrix = (clattn__matrix){.engine = MATRIX_NV, .arch = 75};
    problem = problem_of(plain, CLATTN_BF16, 64, 64);
    CHECK(!clattn__attn_matrix.supports(&problem, &turing, &why) && strstr(why.text, "7.5"), "%s", why.text);
    clattn_context_destroy(&context);
}

/* Keys that reach over 4 GB, in memory of which next to nothing is touched: each row has a page of its own. */
static void test_far_rows(void) {
    enum { KEYS = 2065, ROWS = 3, D = 16 };
    const int64_t far = 1 << 20; /* elements from row to row */
    const size_t bytes = (size_t)KEYS * (size_t)far * sizeof(uint16_t);
    static uint16_t query[ROWS * D], got[ROWS * D], want[ROWS * D];
    static float got_float[ROWS * D], want_float[ROWS * D], tolerance[ROWS * D];
    clattn_context *context = context_with("wmma11", false, NULL);
    REQUIRE(context != NULL, "no context");
    clattn_device_info device;
    clattn_context_device(context, &device);
    uint16_t *keys = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (keys == MAP_FAILED || !device.unified_memory || device.max_allocation < bytes) {
        clattn_test_skip("no tensor of 4 GB on this machine or device");
    } else {
        clattn_random random = {7};
        for (int64_t i = 0; i < KEYS * D; i++)
            keys[i / D * far + i % D] = clattn__float_to_half((float)(i < D ? 3 : clattn_random_normal(&random)));
        for (int i = 0; i < ROWS * D; i++) query[i] = clattn__float_to_half((float)clattn_random_normal(&random));
        clattn_attention *plan = NULL;
        clattn_attention_desc d;
        clattn_attention_desc_init(&d);
        d.batch = 1, d.query_heads = 1, d.query_len = ROWS, d.kv_len = KEYS, d.head_dim = D, d.dtype = CLATTN_F16;
        d.kernel = "attn_matrix";
        clattn_attention_io io = {.query = clattn_host(query, CLATTN_F16, 4, 1, 1, ROWS, D),
                                  .key = clattn_host(keys, CLATTN_F16, 4, 1, 1, KEYS, D),
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
    if (keys != MAP_FAILED) munmap(keys, bytes);
    clattn_context_destroy(&context);
}

static const clattn_test matrix_tests[] = {
    {"layouts", test_layouts},   {"products", test_products},   {"probes", test_probes},
    {"features", test_features}, {"subgroups", test_subgroups}, {"mistakes", test_mistakes},
    {"refusals", test_refusals}, {"far_rows", test_far_rows},   {NULL, NULL},
};

int main(int argc, char **argv) {
    static const clattn_test_suite suites[] = {{"matrix", matrix_tests}, {NULL, NULL}};
    return clattn_test_main(suites, argc, argv);
}
