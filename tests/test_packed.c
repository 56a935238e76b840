/* Packed sequences with lengths, windows that count from the end, weights and scores: what the reference says of all
 * of them is bit by bit what it says of each alone, and every kernel agrees with it. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clattn/clattn.h"
#include "harness.h"

static clattn_context *context;

enum { B = 3, H = 4, G = 2, D = 16, QUERIES = 20, KEYS = 23, ROWS = 31, CELLS = 40 };
static const int32_t query_starts[B + 1] = {0, 7, 7, 27}, key_starts[B + 1] = {0, 12, 17, 40};
static const int32_t lengths[B] = {9, 5, 17};

typedef struct outputs {
    float output[ROWS * H * D], lse[H * ROWS], weights[B * H * QUERIES * KEYS], scores[B * H * QUERIES * KEYS];
} outputs;

static float query[ROWS * H * D], key[CELLS * G * D], value[CELLS * G * D], slopes[H], tolerance[ROWS * H * D];
static outputs want, got;

typedef struct packed_case {
    const char *name;
    clattn_causal causal;
    int align_end, window_left, window_right, kv_lengths, alibi;
    clattn_weights_output weights;
    clattn_scores_output scores;
} packed_case;

static const packed_case cases[] = {
    {"window", CLATTN_CAUSAL_NONE, 0, 3, 2, 0, 0, CLATTN_WEIGHTS_NONE, CLATTN_SCORES_NONE},
    {"window from the end", CLATTN_CAUSAL_NONE, 1, 3, 2, 0, 0, CLATTN_WEIGHTS_NONE, CLATTN_SCORES_NONE},
    {"window from the end of lengths, ALiBi", CLATTN_CAUSAL_NONE, 1, 4, 0, 1, 1, CLATTN_WEIGHTS_NONE,
     CLATTN_SCORES_NONE},
    {"lengths", CLATTN_CAUSAL_NONE, 0, -1, -1, 1, 0, CLATTN_WEIGHTS_PER_HEAD, CLATTN_SCORES_RAW},
    {"lengths, causal", CLATTN_CAUSAL_TOP_LEFT, 0, -1, -1, 1, 0, CLATTN_WEIGHTS_AVERAGED, CLATTN_SCORES_NONE},
    {"lengths, causal from the end", CLATTN_CAUSAL_BOTTOM_RIGHT, 0, 6, -1, 1, 0, CLATTN_WEIGHTS_PER_HEAD,
     CLATTN_SCORES_MASKED},
    {"weights", CLATTN_CAUSAL_NONE, 0, -1, -1, 0, 1, CLATTN_WEIGHTS_AVERAGED, CLATTN_SCORES_SOFTMAX},
};

static clattn_attention_desc describe(const packed_case *c) {
    clattn_attention_desc d;
    clattn_attention_desc_init(&d);
    d.query_heads = H;
    d.kv_heads = G;
    d.head_dim = D;
    d.causal = c->causal;
    d.align_end = c->align_end;
    d.window_left = c->window_left;
    d.window_right = c->window_right;
    d.kv_lengths = c->kv_lengths;
    d.alibi = c->alibi;
    d.weights = c->weights;
    d.scores = c->scores;
    d.logsumexp = 1;
    return d;
}

static clattn_attention_io packed_io(const packed_case *c, outputs *o) {
    memset(o, 0xff, sizeof *o);
    clattn_attention_io io = {.query = clattn_host(query, CLATTN_F32, 3, ROWS, H, D, 0),
                              .key = clattn_host(key, CLATTN_F32, 3, CELLS, G, D, 0),
                              .value = clattn_host(value, CLATTN_F32, 3, CELLS, G, D, 0),
                              .query_starts = clattn_host((void *)query_starts, CLATTN_I32, 1, B + 1, 0, 0, 0),
                              .key_starts = clattn_host((void *)key_starts, CLATTN_I32, 1, B + 1, 0, 0, 0),
                              .output = clattn_host(o->output, CLATTN_F32, 3, ROWS, H, D, 0),
                              .logsumexp = clattn_host(o->lse, CLATTN_F32, 2, H, ROWS, 0, 0)};
    if (c->kv_lengths) io.kv_lengths = clattn_host((void *)lengths, CLATTN_I32, 1, B, 0, 0, 0);
    if (c->alibi) io.alibi = clattn_host(slopes, CLATTN_F32, 1, H, 0, 0, 0);
    if (c->weights == CLATTN_WEIGHTS_PER_HEAD) io.weights = clattn_host(o->weights, CLATTN_F32, 4, B, H, QUERIES, KEYS);
    if (c->weights == CLATTN_WEIGHTS_AVERAGED) io.weights = clattn_host(o->weights, CLATTN_F32, 3, B, QUERIES, KEYS, 0);
    if (c->scores) io.scores = clattn_host(o->scores, CLATTN_F32, 4, B, H, QUERIES, KEYS);
    return io;
}

/* (T, heads, D) from row `first` on as (1, heads, rows, D). */
static clattn_tensor sequence(float *data, int64_t heads, int64_t first, int64_t rows) {
    clattn_tensor t = clattn_host(data, CLATTN_F32, 4, 1, heads, rows, D);
    const int64_t stride[4] = {rows * heads * D, D, heads * D, 1};
    memcpy(t.stride, stride, sizeof stride);
    t.offset = first * heads * D;
    return t;
}

/* Sequence b by itself; its outputs come dense. */
static clattn_status run_alone(const packed_case *c, int b, outputs *o) {
    const int64_t q0 = query_starts[b], n = query_starts[b + 1] - q0, k0 = key_starts[b], m = key_starts[b + 1] - k0;
    clattn_attention_desc d = describe(c);
    d.batch = 1;
    d.query_len = n;
    d.kv_len = m;
    clattn_attention_io io = {.query = sequence(query, H, q0, n),
                              .key = sequence(key, G, k0, m),
                              .value = sequence(value, G, k0, m),
                              .output = clattn_host(o->output, CLATTN_F32, 4, 1, H, n, D),
                              .logsumexp = clattn_host(o->lse, CLATTN_F32, 3, 1, H, n, 0)};
    if (c->kv_lengths) io.kv_lengths = clattn_host((void *)(lengths + b), CLATTN_I32, 1, 1, 0, 0, 0);
    if (c->alibi) io.alibi = clattn_host(slopes, CLATTN_F32, 1, H, 0, 0, 0);
    if (c->weights == CLATTN_WEIGHTS_PER_HEAD) io.weights = clattn_host(o->weights, CLATTN_F32, 4, 1, H, n, m);
    if (c->weights == CLATTN_WEIGHTS_AVERAGED) io.weights = clattn_host(o->weights, CLATTN_F32, 3, 1, n, m, 0);
    if (c->scores) io.scores = clattn_host(o->scores, CLATTN_F32, 4, 1, H, n, m);
    return clattn_reference_attention(&d, &io, NULL);
}

/* (heads, n, m) of one sequence inside (heads, QUERIES, KEYS) with `missing` around it. */
static bool same_square(const float *all, const float *alone, int64_t heads, int64_t n, int64_t m, float missing) {
    for (int64_t h = 0; h < heads; h++)
        for (int64_t i = 0; i < QUERIES; i++)
            for (int64_t j = 0; j < KEYS; j++) {
                const float expected = i < n && j < m ? alone[(h * n + i) * m + j] : missing;
                if (all[(h * QUERIES + i) * KEYS + j] != expected) return false;
            }
    return true;
}

static void check_alone(const packed_case *c) {
    static outputs alone;
    for (int b = 0; b < B; b++) {
        const int64_t q0 = query_starts[b], n = query_starts[b + 1] - q0, m = key_starts[b + 1] - key_starts[b];
        const int64_t heads = c->weights == CLATTN_WEIGHTS_AVERAGED ? 1 : H, square = QUERIES * KEYS;
        REQUIRE(run_alone(c, b, &alone) == CLATTN_OK, "%s: %s", c->name, clattn_last_error());
        bool same = true;
        for (int64_t h = 0; h < H; h++)
            for (int64_t i = 0; i < n; i++) {
                same = same && alone.lse[h * n + i] == want.lse[h * ROWS + q0 + i];
                same = same && memcmp(alone.output + (h * n + i) * D, want.output + ((q0 + i) * H + h) * D,
                                      D * sizeof(float)) == 0;
            }
        CHECK(same, "%s: sequence %d", c->name, b);
        CHECK(!c->weights || same_square(want.weights + b * heads * square, alone.weights, heads, n, m, 0),
              "%s: weights of sequence %d", c->name, b);
        CHECK(!c->scores || same_square(want.scores + b * H * square, alone.scores, H, n, m,
                                        c->scores == CLATTN_SCORES_SOFTMAX ? 0 : -INFINITY),
              "%s: scores of sequence %d", c->name, b);
    }
}

static void check_kernel(const packed_case *c, const clattn_attention_desc *described, const char *kernel, int *ran) {
    clattn_attention_desc d = *described;
    clattn_attention *plan = NULL;
    d.kernel = kernel;
    const clattn_status status = clattn_attention_create(&plan, context, &d);
    if (status == CLATTN_UNSUPPORTED) return;
    const clattn_attention_io io = packed_io(c, &got);
    if (CHECK(status == CLATTN_OK && clattn_attention_run(plan, &io) == CLATTN_OK, "%s, %s: %s", c->name, kernel,
              clattn_last_error())) {
        const int64_t squares = c->weights == CLATTN_WEIGHTS_AVERAGED ? B : B * H;
        char what[128];
        snprintf(what, sizeof what, "%s, %s", c->name, kernel);
        clattn_check_close(got.output, want.output, tolerance, 0, ROWS * H * D, what);
        clattn_check_close(got.lse, want.lse, NULL, 1e-5, H * ROWS, what);
        if (c->weights) clattn_check_close(got.weights, want.weights, NULL, 1e-5, squares * QUERIES * KEYS, what);
        if (c->scores) clattn_check_close(got.scores, want.scores, NULL, 1e-5, B * H * QUERIES * KEYS, what);
        ++*ran;
    }
    clattn_attention_destroy(&plan);
}

static void packed(void) {
    clattn_random random = {11};
    clattn_fill_normal(&random, query, ROWS * H * D, 1);
    clattn_fill_normal(&random, key, CELLS * G * D, 1);
    clattn_fill_normal(&random, value, CELLS * G * D, 1);
    clattn_fill_normal(&random, slopes, H, 0.5);
    for (int b = 0; b < B; b++) /* keys behind a length are never read */
        for (int64_t i = (int64_t)(key_starts[b] + lengths[b]) * G * D; i < (int64_t)key_starts[b + 1] * G * D; i++)
            if (i % 5 == 0) key[i] = value[i] = 1e30f;
    for (size_t n = 0; n < sizeof cases / sizeof cases[0]; n++) {
        clattn_attention_desc d = describe(&cases[n]);
        d.varlen = 1;
        d.batch = B;
        d.query_len = QUERIES;
        d.kv_len = KEYS;
        if (!cases[n].kv_lengths) clattn_fill_normal(&random, key, CELLS * G * D, 1);
        if (!cases[n].kv_lengths) clattn_fill_normal(&random, value, CELLS * G * D, 1);
        const clattn_attention_io io = packed_io(&cases[n], &want);
        memset(tolerance, 0, sizeof tolerance);
        REQUIRE(clattn_reference_attention(&d, &io, tolerance) == CLATTN_OK, "%s: %s", cases[n].name,
                clattn_last_error());
        check_alone(&cases[n]);
        int ran = 0;
        clattn_kernel_info info;
        for (int k = 0; k < clattn_kernel_count() && clattn_kernel_get(k, &info) == CLATTN_OK; k++)
            if (strcmp(info.kind, "attention") == 0) check_kernel(&cases[n], &d, info.name, &ran);
        CHECK(ran >= 2, "%s: %d kernels ran", cases[n].name, ran);
    }
}

/* More keys used than a sequence has, in the device's run and in the reference. */
static void too_long(void) {
    static const packed_case c = {"lengths",           CLATTN_CAUSAL_NONE, 0, -1, -1, 1, 0,
                                  CLATTN_WEIGHTS_NONE, CLATTN_SCORES_NONE};
    const int32_t wrong[B] = {9, 6, 17};
    clattn_attention_desc d = describe(&c);
    d.varlen = 1;
    d.batch = B;
    d.query_len = QUERIES;
    d.kv_len = KEYS;
    clattn_attention_io io = packed_io(&c, &got);
    io.kv_lengths.data = (void *)wrong;
    clattn_attention *plan = NULL;
    REQUIRE(clattn_attention_create(&plan, context, &d) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(clattn_attention_run(plan, &io) == CLATTN_INVALID_ARGUMENT &&
              strstr(clattn_last_error(), "kv_lengths[1] is 6; packed sequence 1 has 5 keys"),
          "%s", clattn_last_error());
    CHECK(clattn_reference_attention(&d, &io, NULL) == CLATTN_INVALID_ARGUMENT, "the reference takes it");
    clattn_attention_destroy(&plan);
}

int main(int argc, char **argv) {
    static const clattn_test tests[] = {{"packed", packed}, {"too_long", too_long}, {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"packed", tests}, {NULL, NULL}};
    return clattn_test_main_with(&context, CLATTN_VERIFY_ONCE, suites, argc, argv);
}
