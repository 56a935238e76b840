/* Mistakes planted in the kernels for matrix engines, one at a time, on emulated engines: the probe has to stop at the
 * step that each is about, or verification has to find it. */
#define _DEFAULT_SOURCE
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../cl/shared/matrix.h"
#include "clattn/clattn.h"
#include "harness.h"
#include "matrix_case.h"
#include "planted.h"

#define STEP_TEXT(STEP, what) [MATRIX_PROBE_##STEP] = what,
static const char *const steps[] = {MATRIX_PROBE_STEPS(STEP_TEXT) NULL};

/* Who has to find it: the probe's step, or verification of attn_matrix with its first tile, with its last one (a single
 * stage, and queries in local memory), with a padding mask, with pages of bytes, or of gemm_matrix. */
enum { ATTENTION = MATRIX_PROBE_COUNT, LAST_TILE, PADDED, CACHED, PRODUCTS };
#define PROBE(STEP) MATRIX_PROBE_##STEP

typedef struct mistake {
    const char *what, *engine, *file, *right, *wrong;
    int found_by;
} mistake;

#define NV "inc/mma_nv.clh"
#define ROWS "inc/mma_rows.clh"
#define WALK "attn_matrix.cl"

static const mistake mistakes[] = {
    /* NVIDIA's layouts and copies */
    {"A registers 1 and 2 swapped", "nv", NV,
     "*p = row[r & 1];\n        const int d = first + (x->lane & 3) * 2 + 8 * (r >> 1)",
     "*p = row[r >> 1];\n        const int d = first + (x->lane & 3) * 2 + 8 * (r & 1)", PROBE(PRODUCT)},
    {"K halves swapped", "nv", NV, "(x->lane >> 4) * 8, column = 16 * step + (x->lane >> 3 & 1) * 8",
     "(x->lane >> 3 & 1) * 8, column = 16 * step + (x->lane >> 4) * 8", PROBE(LOADS)},
    {"V not transposed", "nv", NV, "mma_ldmatrix_transposed(x, stage", "mma_ldmatrix(x, stage", PROBE(LOADS)},
    {"P registers 1 and 2 swapped", "nv", NV, "a.r[r] = mma_pack(c[j]", "a.r[(r & 1) << 1 | r >> 1] = mma_pack(c[j]",
     PROBE(SUMS)},
    {"P columns swapped", "nv", NV, "c[j].v[2 * r], c[j].v[2 * r + 1]", "c[j].v[2 * r + 1], c[j].v[2 * r]",
     PROBE(SUMS)},
    {"places differ between copy and load", "nv", NV, "row * KEY_PITCH + column, b.r", "row * KEY_WIDTH + column, b.r",
     PROBE(LOADS)},
    {"column of the right half off", "nv", NV, "+ ((i)&1) + 8 * ((i) >> 2))", "+ ((i)&1) + 4 * ((i) >> 2))",
     PROBE(INSTRUCTION)},
    {"row maximum over two lanes only", "nv", NV, "return fmax(v, mma_shuffle(x, v, 2));", "return v;",
     PROBE(EXCHANGE)},
    {"no wait", "nv", NV, "    mma_wait(x);\n", "", PROBE(COPIES)},
    {"tail rows not cleared", "nv", NV, "d < width && attn_exists(head, k0 + row)", "d < width", PROBE(COPIES)},
    /* AMD's and Intel's */
    {"row permutation missing", "wmma11", ROWS, "(((n) & ~15) | ((n)&7) << 1 | ((n) >> 3 & 1))", "(n)", PROBE(LOADS)},
    {"half swap not mirrored", "wmma11", ROWS, "upper ? other : own, upper ? own : other", "own, other", PROBE(SUMS)},
    {"column of the upper half", "wmma11", ROWS, "((i) / 8 * 16 + 8 * mma_upper(x) + (i) % 8)",
     "((i) / 8 * 16 + (i) % 8)", PROBE(INSTRUCTION)},
    {"A half offset missing", "wmma12", ROWS, "#define mma_eight_at(x, i) (8 * mma_upper(x))",
     "#define mma_eight_at(x, i) 0", PROBE(PRODUCT)},
    {"row maximum of one half only", "wmma12", ROWS, "return fmax(v, mma_swap(x, v));", "return v;", PROBE(EXCHANGE)},
    {"row sum of one half only", "wmma12", ROWS, "return v + mma_swap(x, v);", "return v;", PROBE(EXCHANGE)},
    {"row permutation missing", "mfma32", ROWS, "(((n) & ~12) | ((n)&4) << 1 | ((n)&8) >> 1)", "(n)", PROBE(LOADS)},
    {"P halves swapped", "mfma32", ROWS, "j & 1 ? c[j >> 1].x.hi : c[j >> 1].x.lo",
     "j & 1 ? c[j >> 1].x.lo : c[j >> 1].x.hi", PROBE(SUMS)},
    {"P tiles swapped", "dpas8", ROWS, "mma_pack8(c[2 * j].x), mma_pack8(c[2 * j + 1].x)",
     "mma_pack8(c[2 * j + 1].x), mma_pack8(c[2 * j].x)", PROBE(SUMS)},
    {"K halves of a fragment swapped", "dpas8", ROWS, "(((n)&7) << 4) + ((k)&15))", "(((n)&7) << 4) + (((k)&15) ^ 8))",
     PROBE(LOADS)},
    {"one V row twice", "dpas8", ROWS, "tile + TILE_AT(d + 1, j, BLOCK_KV)", "tile + TILE_AT(d, j, BLOCK_KV)",
     PROBE(COPIES)},
    {"weights not in fragments", "dpas8", ROWS,
     "block + matrix_weight_at(MATRIX_ENGINE, MMA_N * n, 16 * step, HEAD_DIM)",
     "block + (MMA_N * n * HEAD_DIM + 16 * step)", PROBE(WEIGHTS)},
    {"V pairs swapped", "dpas16", ROWS, "mma_lower4(pairs.even, pairs.odd)", "mma_lower4(pairs.odd, pairs.even)",
     PROBE(COPIES)},
    /* engines that are not as the back end believes */
    {"another layout of sums", "wmma11", "inc/mma_rows_emulated.clh", "(2 * (i) + (l) / 16)", "(8 * ((l) / 16) + (i))",
     PROBE(INSTRUCTION)},
    {"another address", "nv", "inc/mma_nv_emulated.clh", "(x)->tiles)[at]", "(x)->tiles)[(at) + 1]", PROBE(ADDRESSES)},
    /* the walk over the keys, which the probe does not see */
    {"last partial block taken as full", "nv", WALK, "k0 + BLOCK_KV > top_run.y",
     "(k0 + BLOCK_KV > top_run.y && k0 + BLOCK_KV < stop)", ATTENTION},
    {"one block too many called full", "wmma12", WALK, "k0 + BLOCK_KV > top_run.y", "k0 > top_run.y", ATTENTION},
    {"one block too few", "nv", WALK, "while (k0 < stop) {", "while (k0 + 1 < stop) {", ATTENTION},
    {"next block over this one", "nv", WALK, "next, (stage + 1) % MMA_STAGES", "next, stage", ATTENTION},
    /* queries and keys never lie in one place, so no barrier keeps them apart that could be missing */
    {"queries of two waves in one place", "nv", WALK, "(x->wave * QT * QUERY_LOCAL * MMA_LANES + x->lane)", "x->lane",
     LAST_TILE},
    {"mask ignores the half", "mfma32", WALK, "const int j = k0 + n * MMA_N + mma_column(x, i);",
     "const int j = k0 + n * MMA_N + mma_column(x, i) - 8 * mma_upper(x);", ATTENTION},
    {"head of grouped queries wrong", "nv", WALK, "h / (all.query_heads / all.kv_heads)", "h % all.kv_heads",
     ATTENTION},
    {"head of grouped queries wrong", "wmma11", WALK, "h / (all.query_heads / all.kv_heads)", "h % all.kv_heads",
     ATTENTION},
    {"sum not rescaled", "nv", WALK, "rows->total[t][slot] *= rescale;", "", ATTENTION},
    {"output not rescaled", "nv", WALK, "mma_scale(&rows->acc[t][n], slot, rescale);", ";", ATTENTION},
    {"rescaling inverted", "dpas8", WALK, "if (rescale != 1.0f)", "if (rescale == 1.0f)", ATTENTION},
    {"rescaling by the inverse", "wmma12", WALK, "mma_exp2(rows->top[t][slot] - base[slot])",
     "mma_exp2(base[slot] - rows->top[t][slot])", ATTENTION},
    {"empty row not handled", "wmma12", WALK, "!any ? 0.0f : sum == sum", "sum == sum", ATTENTION},
    {"no second round for odd values", "nv", WALK, "if (!odd) break;", "break;", PADDED},
    {"sign of the scale lost", "nv", WALK, "a.scale < 0.0f ? 0x80008000u : 0u", "0u", ATTENTION},
    /* where a cache has its keys */
    {"every block is the first one", "nv", "inc/mma_cells.clh", "cells_at(&keys, k0 + mma_nearest",
     "cells_at(&keys, mma_nearest", CACHED},
    {"scale of values lost", "dpas16", "inc/mma_cells.clh", "mma_two(p) * scale", "mma_two(p)", CACHED},
    /* what products alone go through */
    {"always the first block of the weight", "nv", "gemm_matrix.cl", "(clattn_i64)at->step * WEIGHT_BLOCK", "0",
     PRODUCTS},
    {"no step along the depth", "nv", "gemm_matrix.cl", "            at->k0 += BLOCK_K;\n", "", PRODUCTS},
    {"the first of two steps twice", "nv", NV, "s ? eights[slot].z : eights[slot].x", "eights[slot].x", PRODUCTS},
    {"weight copied to one stage", "nv", NV, "stage * (KEY_TILE + VALUE_TILE) + mma_key_at(row, column)",
     "mma_key_at(row, column)", PRODUCTS},
    {"nothing written", "nv", "inc/tile_mma.clh", "#define MMA_LANES_MATCH() true", "#define MMA_LANES_MATCH() false",
     PRODUCTS},
    {"factors of columns lost", "wmma11", "gemm_matrix.cl", " * vload4(0, factor + c)", "", PRODUCTS},
    {"tail of the depth read as whole", "wmma12", "gemm_matrix.cl", "aligned ? a.k / BLOCK_K * a.weight_parts : 0",
     "aligned ? walk.steps : 0", PRODUCTS},
    {"all heads in one place", "mfma32", "gemm_matrix.cl", "in_part / a->width * a->y.head +", "", PRODUCTS},
    {"last column of x left out", "dpas8", "gemm_matrix.cl", "column < w->columns ?", "column < w->columns - 1 ?",
     PRODUCTS},
    {"columns of the first wave alone", "dpas8", "gemm_matrix.cl", "w->n0 + n, p", "n, p", PRODUCTS},
    {"last row of x left out", "dpas16", "gemm_matrix.cl", "a.m - 1)", "a.m - 2)", PRODUCTS},
};
/* The emulated instructions hold work-group barriers of their own, which hide these; sub-group barriers do not. */
static const mistake missing_barriers[] = {
    {"no barrier before block j", "nv", NV, "    mma_wait(x);\n    MMA_BARRIER();\n", "    mma_wait(x);\n", ATTENTION},
    {"no barrier before K is overwritten", "nv", NV,
     "        MMA_BARRIER(); /* everybody is done with the block before */\n", "", LAST_TILE},
    {"no barrier before block j", "dpas16", ROWS, "    MMA_BARRIER();\n}", "}", ATTENTION},
};

/* The sanitizers slow the driver's compiler down, which is all that this waits for. */
#ifdef __SANITIZE_ADDRESS__
enum { EVERY = 10 };
#else
enum { EVERY = 1 };
#endif

static char folder[] = "/tmp/clattn-planted-XXXXXX", kernels[64];

static clattn_status probe(clattn_context *context) {
    const clattn__op_variant variant = {.dtype = CLATTN_F16};
    return clattn__op_verify(context, "mma_probe", &variant, NULL, NULL);
}

static clattn_status verify(clattn_context *context, int found_by) {
    const uint32_t pages = CLATTN__LENGTHS | CLATTN__PAGED | CLATTN__CELLS;
    const uint32_t more = found_by == PADDED ? CLATTN__PADDING : found_by == CACHED ? pages : 0;
    const uint32_t features = CLATTN__LSE | CLATTN__CAUSAL | more;
    const clattn__attn_problem problem = matrix_problem(features, CLATTN_F16, 32, 32);
    if (found_by == PRODUCTS) return matrix_verify_product(context, &matrix_products[0], 0, true, NULL);
    clattn_status status = matrix_verify(context, problem, found_by == LAST_TILE ? -1 : 0, false, NULL);
    if (status == CLATTN_OK) status = matrix_verify(context, problem, found_by == LAST_TILE ? -1 : 0, true, NULL);
    return status;
}

static clattn_context *context_with(const mistake *planted, bool subgroups) {
    const bool written = planted_copies(kernels, "", "", "", "") &&
                         planted_replace(kernels, planted->file, planted->right, planted->wrong);
    if (!CHECK(written, "cannot plant \"%s\" in %s", planted->wrong, planted->file)) return NULL;
    return matrix_context(planted->engine, subgroups, kernels);
}

/* What the probe finds, verification finds too, as the full run shows; but for what the probe alone reads. */
static void must_be_found(const mistake *planted, bool subgroups) {
    clattn_context *context = context_with(planted, subgroups);
    if (!context) return;
    const bool probed = planted->found_by < ATTENTION;
    if (probed) {
        const clattn_status status = probe(context);
        CHECK(status == CLATTN_WRONG_RESULT && strstr(clattn_last_error(), steps[planted->found_by]),
              "%s, %s: the probe does not stop at %s: %s", planted->engine, planted->what, steps[planted->found_by],
              status == CLATTN_OK ? "not noticed" : clattn_last_error());
    }
    if (!probed || (clattn_test_flag("CLATTN_TEST_FULL") && planted->found_by != PROBE(ADDRESSES))) {
        const clattn_status status = verify(context, planted->found_by);
        CHECK(status == CLATTN_WRONG_RESULT, "%s, %s: %s", planted->engine, planted->what,
              status == CLATTN_OK ? "not noticed" : clattn_last_error());
    }
    clattn_context_destroy(&context);
}

static void test_mistakes(void) {
    enum {
        COUNT = sizeof mistakes / sizeof mistakes[0],
        BARRIERS = sizeof missing_barriers / sizeof missing_barriers[0]
    };
    if (matrix_has_subgroups()) { /* mistakes that only show there; the others fail alike on every device */
        for (int i = 0; i < BARRIERS; i++) must_be_found(&missing_barriers[i], true);
        clattn_test_note("planted %d missing barriers", BARRIERS);
    } else {
        for (int i = 0; i < COUNT; i += EVERY) must_be_found(&mistakes[i], false);
        clattn_test_note("planted one in %d of %d mistakes", EVERY, COUNT);
    }
}

/* The next kernel of the list takes over, and says why. */
static void test_stepping_down(void) {
    const mistake *planted = &mistakes[0];
    clattn_context *context = context_with(planted, false);
    if (!context) return;
    context->env.device.caps.type = CLATTN_DEVICE_GPU;
    const clattn__attn_problem problem = matrix_problem(CLATTN__LSE, CLATTN_F16, 32, 32);
    clattn__attn_kernel kernel;
    clattn__text notes = {0};
    clattn_status status = clattn__attn_choose(context, &problem, NULL, &kernel, &notes);
    CHECK(status == CLATTN_OK && kernel.impl == &clattn__attn_tiled, "%s", clattn_last_error());
    CHECK(notes.data && strstr(notes.data, "mma_probe, ") && strstr(notes.data, steps[planted->found_by]), "notes: %s",
          notes.data ? notes.data : "none");
    const char *record = clattn_context_quarantined(context, 0);
    CHECK(record && strstr(record, steps[planted->found_by]), "quarantined: %s", record ? record : "nothing");
    clattn__text_free(&notes);
    clattn__attn_kernel_clear(&kernel);
    clattn_context_destroy(&context);
}

int main(int argc, char **argv) {
    if (!getenv("CLATTN_SOURCE_ROOT") || !mkdtemp(folder))
        return fprintf(stderr, "set CLATTN_SOURCE_ROOT to the source tree\n"), 1;
    snprintf(kernels, sizeof kernels, "%s/cl", folder);
    static const clattn_test tests[] = {
        {"mistakes", test_mistakes}, {"stepping_down", test_stepping_down}, {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"planted", tests}, {NULL, NULL}};
    const int failed = clattn_test_main(suites, argc, argv);
    planted_remove(folder);
    return failed;
}
