/* Single layers around attention against their references: ragged sizes, strides, extremes, bad input. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clattn/interop.h"
#include "clattn/layers.h"
#include "harness.h"

static clattn_context *context;

/* One layer with its io; every tensor on the heap behind guards. */
typedef struct stage {
    clattn_layer *layer;
    clattn_layer_io io;
    float *memory[12];
    int count;
    float *want, *tolerance;
    int64_t out_count;
} stage;

static float *fill(stage *s, clattn_random *random, int64_t count, double mean, double size) {
    float *values = clattn_guard_alloc((size_t)count * sizeof *values);
    for (int64_t i = 0; i < count; i++) values[i] = (float)(mean + size * clattn_random_normal(random));
    return s->memory[s->count++] = values;
}

static void expect_output(stage *s, int64_t batch, int64_t rows, int64_t features) {
    s->out_count = batch * rows * features;
    s->want = clattn_guard_alloc((size_t)s->out_count * sizeof(float));
    s->tolerance = clattn_guard_alloc((size_t)s->out_count * sizeof(float));
    s->io.output = clattn_host(s->want, CLATTN_F32, 3, batch, rows, features, 0);
}

/* Runs the layer twice on poisoned memory and compares with the reference's answer in want. */
static void run(stage *s, const char *what) {
    float *got = clattn_guard_alloc((size_t)s->out_count * sizeof *got);
    float *first = clattn_guard_alloc((size_t)s->out_count * sizeof *first);
    s->io.output.data = got;
    for (int twice = 0; twice < 2 && s->layer; twice++) {
        clattn_poison(got, (size_t)s->out_count * sizeof *got);
        CHECK(clattn_layer_run(s->layer, &s->io) == CLATTN_OK, "%s: %s", what, clattn_last_error());
        clattn_check_close(got, s->want, s->tolerance, 0, s->out_count, what);
        if (twice)
            CHECK(memcmp(first, got, (size_t)s->out_count * sizeof *got) == 0, "%s: two runs differ", what);
        else
            memcpy(first, got, (size_t)s->out_count * sizeof *got);
    }
    CHECK(clattn_guard_intact(got), "%s: wrote beside the output", what);
    clattn_guard_free(got);
    clattn_guard_free(first);
}

static void drop(stage *s) {
    clattn_layer_destroy(&s->layer);
    for (int i = 0; i < s->count; i++) {
        CHECK(clattn_guard_intact(s->memory[i]), "something wrote beside input %d", i);
        clattn_guard_free(s->memory[i]);
    }
    clattn_guard_free(s->want);
    clattn_guard_free(s->tolerance);
}

static const int64_t WIDTHS[] = {1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 255, 257, 384, 1023};
enum { WIDTH_COUNT = sizeof WIDTHS / sizeof *WIDTHS };

/* ---- linear ------------------------------------------------------------------------------------------------------ */

static void linear(void) {
    static const struct {
        int64_t batch, rows, in, out;
        clattn_activation activation;
        bool bias;
    } cases[] = {{1, 1, 1, 1, CLATTN_ACTIVATION_NONE, true},    {2, 5, 7, 9, CLATTN_ACTIVATION_RELU, true},
                 {3, 17, 33, 65, CLATTN_ACTIVATION_GELU, true}, {1, 64, 128, 31, CLATTN_ACTIVATION_GELU, false},
                 {2, 3, 64, 1, CLATTN_ACTIVATION_RELU, false},  {0, 3, 4, 5, CLATTN_ACTIVATION_GELU, true},
                 {2, 0, 4, 5, CLATTN_ACTIVATION_NONE, true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        stage s = {0};
        clattn_random random = {100 + i};
        char what[96];
        snprintf(what, sizeof what, "linear case %d", (int)i);
        clattn_linear_desc d;
        clattn_linear_desc_init(&d);
        d.batch = cases[i].batch;
        d.rows = cases[i].rows;
        d.in_features = cases[i].in;
        d.out_features = cases[i].out;
        d.activation = cases[i].activation;
        clattn_linear_weights w = {.weight = clattn_host(fill(&s, &random, d.in_features * d.out_features, 0, 1),
                                                         CLATTN_F32, 2, d.out_features, d.in_features, 0, 0)};
        if (cases[i].bias)
            w.bias = clattn_host(fill(&s, &random, d.out_features, 0, 1), CLATTN_F32, 1, d.out_features, 0, 0, 0);
        s.io.input = clattn_host(fill(&s, &random, d.batch * d.rows * d.in_features, 0, 1), CLATTN_F32, 3, d.batch,
                                 d.rows, d.in_features, 0);
        expect_output(&s, d.batch, d.rows, d.out_features);
        CHECK(clattn_reference_linear(&d, &w, &s.io, s.tolerance) == CLATTN_OK, "%s: %s", what, clattn_last_error());
        CHECK(clattn_linear_create(&s.layer, context, &d, &w) == CLATTN_OK, "%s: %s", what, clattn_last_error());
        run(&s, what);
        drop(&s);
    }
}

/* ---- norms ------------------------------------------------------------------------------------------------------- */

typedef struct norm_case {
    clattn_norm_kind kind;
    int64_t batch, rows, features;
    double mean, size;
    bool weights, residual, sum;
} norm_case;

static void one_norm(const norm_case *c, uint64_t seed) {
    stage s = {0};
    clattn_random random = {seed};
    char what[128];
    snprintf(what, sizeof what, "norm kind %d, %lld x %lld x %lld, mean %g size %g, seed %llu", (int)c->kind,
             (long long)c->batch, (long long)c->rows, (long long)c->features, c->mean, c->size,
             (unsigned long long)seed);
    clattn_norm_desc d;
    clattn_norm_desc_init(&d);
    d.kind = c->kind;
    d.batch = c->batch;
    d.rows = c->rows;
    d.features = c->features;
    d.residual = c->residual;
    d.sum = c->sum;
    const int64_t E = c->features, count = c->batch * c->rows * E;
    clattn_norm_weights w = {0};
    if (c->weights) {
        w.weight = clattn_host(fill(&s, &random, E, 1, 0.5), CLATTN_F32, 1, E, 0, 0, 0);
        w.bias = clattn_host(fill(&s, &random, E, 0, 1), CLATTN_F32, 1, E, 0, 0, 0);
    }
    if (c->kind == CLATTN_NORM_BATCH_INFERENCE) {
        w.mean = clattn_host(fill(&s, &random, E, c->mean, 1), CLATTN_F32, 1, E, 0, 0, 0);
        float *variance = fill(&s, &random, E, 0, c->size);
        for (int64_t i = 0; i < E; i++) variance[i] = variance[i] * variance[i];
        w.variance = clattn_host(variance, CLATTN_F32, 1, E, 0, 0, 0);
    }
    s.io.input = clattn_host(fill(&s, &random, count, c->mean, c->size), CLATTN_F32, 3, c->batch, c->rows, E, 0);
    if (c->residual)
        s.io.residual = clattn_host(fill(&s, &random, count, 0, c->size), CLATTN_F32, 3, c->batch, c->rows, E, 0);
    float *want_sum = c->sum ? fill(&s, &random, count, 0, 1) : NULL;
    float *got_sum = c->sum ? fill(&s, &random, count, 0, 1) : NULL;
    if (c->sum) s.io.sum = clattn_host(want_sum, CLATTN_F32, 3, c->batch, c->rows, E, 0);
    expect_output(&s, c->batch, c->rows, E);
    CHECK(clattn_reference_norm(&d, &w, &s.io, s.tolerance) == CLATTN_OK, "%s: %s", what, clattn_last_error());
    CHECK(clattn_norm_create(&s.layer, context, &d, &w) == CLATTN_OK, "%s: %s", what, clattn_last_error());
    if (c->sum) s.io.sum.data = got_sum;
    run(&s, what);
    if (c->sum) CHECK(memcmp(want_sum, got_sum, (size_t)count * sizeof *got_sum) == 0, "%s: the sum differs", what);
    drop(&s);
}

static void norms(void) {
    for (int i = 0; i < WIDTH_COUNT; i++) {
        const norm_case c = {.kind = CLATTN_NORM_LAYER,
                             .batch = 2,
                             .rows = 3,
                             .features = WIDTHS[i],
                             .mean = i % 3 ? 0 : 5,
                             .size = 1,
                             .weights = i % 2,
                             .residual = i % 4 > 1,
                             .sum = i % 4 == 3};
        one_norm(&c, 200 + (uint64_t)i);
    }
    static const norm_case others[] = {
        {.kind = CLATTN_NORM_LAYER, .batch = 3, .rows = 5, .features = 64, .size = 1e4, .weights = true},
        {.kind = CLATTN_NORM_LAYER, .batch = 3, .rows = 5, .features = 65, .mean = 1e4, .size = 1, .weights = true},
        {.kind = CLATTN_NORM_LAYER, .batch = 1, .rows = 4, .features = 100, .mean = 3, .size = 0},
        {.kind = CLATTN_NORM_LAYER, .batch = 1, .rows = 4, .features = 48, .size = 1e-6, .weights = true},
        {.kind = CLATTN_NORM_LAYER, .batch = 0, .rows = 4, .features = 48, .size = 1},
        {.kind = CLATTN_NORM_BATCH, .batch = 4, .rows = 6, .features = 10, .size = 1, .weights = true},
        {.kind = CLATTN_NORM_BATCH, .batch = 1, .rows = 1, .features = 70, .size = 1, .weights = true},
        {.kind = CLATTN_NORM_BATCH, .batch = 7, .rows = 129, .features = 129, .mean = 100, .size = 1},
        {.kind = CLATTN_NORM_BATCH, .batch = 0, .rows = 3, .features = 8, .size = 1},
        {.kind = CLATTN_NORM_BATCH_INFERENCE, .batch = 2, .rows = 9, .features = 65, .size = 2, .weights = true},
        {.kind = CLATTN_NORM_BATCH_INFERENCE, .batch = 2, .rows = 9, .features = 8, .mean = -50, .size = 2},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) one_norm(&others[i], 300 + i);
}

/* A batch-norm over the whole batch and its inference form with the same statistics agree. */
static void norm_forms_agree(void) {
    enum { B = 3, L = 7, E = 12, N = B * L };
    stage s = {0};
    clattn_random random = {41};
    float *x = fill(&s, &random, N * E, 2, 3), mean[E], variance[E], a[N * E], b[N * E];
    for (int e = 0; e < E; e++) {
        double sum = 0, squares = 0;
        for (int i = 0; i < N; i++) sum += x[i * E + e];
        for (int i = 0; i < N; i++) squares += (x[i * E + e] - sum / N) * (x[i * E + e] - sum / N);
        mean[e] = (float)(sum / N);
        variance[e] = (float)(squares / N);
    }
    const clattn_norm_weights w = {.mean = clattn_host(mean, CLATTN_F32, 1, E, 0, 0, 0),
                                   .variance = clattn_host(variance, CLATTN_F32, 1, E, 0, 0, 0)};
    clattn_norm_desc d;
    clattn_norm_desc_init(&d);
    d.batch = B;
    d.rows = L;
    d.features = E;
    clattn_layer_io io = {.input = clattn_host(x, CLATTN_F32, 3, B, L, E, 0)};
    for (int form = 0; form < 2; form++) {
        clattn_layer *layer = NULL;
        d.kind = form ? CLATTN_NORM_BATCH_INFERENCE : CLATTN_NORM_BATCH;
        io.output = clattn_host(form ? b : a, CLATTN_F32, 3, B, L, E, 0);
        CHECK(clattn_norm_create(&layer, context, &d, form ? &w : NULL) == CLATTN_OK, "%s", clattn_last_error());
        CHECK(clattn_layer_run(layer, &io) == CLATTN_OK, "%s", clattn_last_error());
        clattn_layer_destroy(&layer);
    }
    clattn_check_close(a, b, NULL, 2e-6, N * E, "batch norm in both forms");
    drop(&s);
}

/* ---- activations ------------------------------------------------------------------------------------------------- */

static void activations(void) {
    for (int kind = CLATTN_ACTIVATION_NONE; kind <= CLATTN_ACTIVATION_GELU; kind++)
        for (int i = 0; i < WIDTH_COUNT; i++) {
            stage s = {0};
            clattn_random random = {400 + (uint64_t)i};
            const int64_t E = WIDTHS[i];
            char what[64];
            snprintf(what, sizeof what, "activation %d on %lld", kind, (long long)E);
            clattn_activation_desc d;
            clattn_activation_desc_init(&d);
            d.batch = 2;
            d.rows = 3;
            d.features = E;
            d.activation = (clattn_activation)kind;
            s.io.input = clattn_host(fill(&s, &random, 6 * E, 0, i % 2 ? 2 : 40), CLATTN_F32, 3, d.batch, d.rows, E, 0);
            expect_output(&s, d.batch, d.rows, E);
            CHECK(clattn_reference_activation(&d, &s.io, s.tolerance) == CLATTN_OK, "%s", clattn_last_error());
            CHECK(clattn_activation_create(&s.layer, context, &d) == CLATTN_OK, "%s", clattn_last_error());
            run(&s, what);
            drop(&s);
        }
}

/* gelu at values whose results are known by its formula, infinities and NaN included. */
static void gelu_values(void) {
    static const float x[] = {0, -0.0f, 1, -1, 0.5f, -3, 5.9f, -5.9f, 6.1f, -6.1f, 100, -100, 1e-20f, 3e38f, INFINITY};
    enum { COUNT = sizeof x / sizeof *x };
    float y[COUNT + 1], in[COUNT + 1];
    memcpy(in, x, sizeof x);
    in[COUNT] = NAN;
    clattn_activation_desc d;
    clattn_activation_desc_init(&d);
    d.batch = d.rows = 1;
    d.features = COUNT + 1;
    d.activation = CLATTN_ACTIVATION_GELU;
    clattn_layer *layer = NULL;
    const clattn_layer_io io = {.input = clattn_host(in, CLATTN_F32, 3, 1, 1, COUNT + 1, 0),
                                .output = clattn_host(y, CLATTN_F32, 3, 1, 1, COUNT + 1, 0)};
    REQUIRE(clattn_activation_create(&layer, context, &d) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(clattn_layer_run(layer, &io) == CLATTN_OK, "%s", clattn_last_error());
    for (int i = 0; i < COUNT; i++) {
        const double want = isinf(x[i]) ? x[i] : x[i] * 0.5 * erfc(-(double)x[i] / sqrt(2));
        CHECK(clattn_close(y[i], want, 3e-7 * fabs((double)x[i])), "gelu(%g) is %g, want %g", (double)x[i],
              (double)y[i], want);
    }
    CHECK(isnan(y[COUNT]), "gelu(NaN) is %g", (double)y[COUNT]);
    clattn_layer_destroy(&layer);
}

/* ---- positions --------------------------------------------------------------------------------------------------- */

static void positions(void) {
    static const int64_t given64[] = {0, 1, -1, 5, 1000, 99999, 12345678, -200000000, 2147483647, 3};
    static const int32_t given32[] = {4, 3, 2, 1, 0, 0, 1, 2, 3, 4};
    for (int i = 0; i < 10; i++) {
        const bool learned = i >= 6, add = i % 2, given = i % 3 > 0;
        stage s = {0};
        clattn_random random = {500 + (uint64_t)i};
        const int64_t B = 2, L = 5, E = learned ? 33 : 34;
        char what[64];
        snprintf(what, sizeof what, "positions case %d", i);
        clattn_positions_desc d;
        clattn_positions_desc_init(&d);
        d.kind = learned ? CLATTN_POSITIONS_LEARNED : CLATTN_POSITIONS_SINUSOIDAL;
        d.batch = B;
        d.rows = L;
        d.features = E;
        d.first = learned ? 1 : -3;
        d.add = add;
        d.positions = given;
        if (i == 5) d.base = 50;
        clattn_tensor table = clattn_host(fill(&s, &random, 6 * E, 0, 1), CLATTN_F32, 2, 6, E, 0, 0);
        if (add) s.io.input = clattn_host(fill(&s, &random, B * L * E, 0, 1), CLATTN_F32, 3, B, L, E, 0);
        if (given && learned)
            s.io.positions = clattn_host(given32, CLATTN_I32, 2, B, L, 0, 0);
        else if (given)
            s.io.positions = i % 3 == 1 ? clattn_host(given64, CLATTN_I64, 2, B, L, 0, 0)
                                        : clattn_host(given64, CLATTN_I64, 1, L, 0, 0, 0);
        expect_output(&s, B, L, E);
        CHECK(clattn_reference_positions(&d, learned ? &table : NULL, &s.io, s.tolerance) == CLATTN_OK, "%s: %s", what,
              clattn_last_error());
        CHECK(clattn_positions_create(&s.layer, context, &d, learned ? &table : NULL) == CLATTN_OK, "%s: %s", what,
              clattn_last_error());
        run(&s, what);
        drop(&s);
    }
}

/* PE(p + k) = M_k PE(p), with M_k from the library and both encodings from the device. */
static void shift_matrix(void) {
    enum { E = 32, L = 9, K = 23 };
    float near[L * E], far[L * E], matrix[E * E], shifted[L * E];
    clattn_positions_desc d;
    clattn_positions_desc_init(&d);
    d.batch = 1;
    d.rows = L;
    d.features = E;
    for (int k = 0; k < 2; k++) {
        clattn_layer *layer = NULL;
        const clattn_layer_io io = {.output = clattn_host(k ? far : near, CLATTN_F32, 3, 1, L, E, 0)};
        d.first = 100 + (k ? K : 0);
        REQUIRE(clattn_positions_create(&layer, context, &d, NULL) == CLATTN_OK, "%s", clattn_last_error());
        CHECK(clattn_layer_run(layer, &io) == CLATTN_OK, "%s", clattn_last_error());
        clattn_layer_destroy(&layer);
    }
    REQUIRE(clattn_positions_shift(E, 10000, K, matrix) == CLATTN_OK, "%s", clattn_last_error());
    for (int r = 0; r < L; r++)
        for (int i = 0; i < E; i++) {
            double sum = 0;
            for (int j = 0; j < E; j++) sum += (double)matrix[i * E + j] * near[r * E + j];
            shifted[r * E + i] = (float)sum;
        }
    clattn_check_close(shifted, far, NULL, 2e-6, L * E, "PE shifted by its matrix");
    CHECK(clattn_positions_shift(E + 1, 10000, K, matrix) == CLATTN_INVALID_SHAPE, "odd features were accepted");
    CHECK(clattn_positions_shift(E, 1, K, matrix) == CLATTN_INVALID_ARGUMENT, "base 1 was accepted");
    CHECK(clattn_positions_shift(E, 10000, K, NULL) == CLATTN_INVALID_ARGUMENT, "no matrix was accepted");
}

/* ---- strides and bad input --------------------------------------------------------------------------------------- */

/* Sequence-first tensors and rows with gaps; the gaps keep what was in them. */
static void strides(void) {
    enum { B = 3, L = 4, E = 21, GAP = 5, ROW = E + GAP };
    stage s = {0};
    clattn_random random = {600};
    float *x = fill(&s, &random, B * L * ROW, 0, 1), *y = fill(&s, &random, B * L * ROW, 0, 1);
    clattn_norm_desc d;
    clattn_norm_desc_init(&d);
    d.batch = B;
    d.rows = L;
    d.features = E;
    s.io.input = clattn_host(x, CLATTN_F32, 3, B, L, E, 0);
    s.io.input.stride[0] = ROW;
    s.io.input.stride[1] = B * ROW;
    s.io.input.stride[2] = 1;
    expect_output(&s, B, L, E);
    CHECK(clattn_reference_norm(&d, NULL, &s.io, s.tolerance) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(clattn_norm_create(&s.layer, context, &d, NULL) == CLATTN_OK, "%s", clattn_last_error());
    clattn_poison(y, B * L * ROW * sizeof *y);
    clattn_layer_io io = s.io;
    io.output = s.io.input;
    io.output.data = y;
    CHECK(clattn_layer_run(s.layer, &io) == CLATTN_OK, "%s", clattn_last_error());
    for (int b = 0; b < B; b++)
        for (int r = 0; r < L; r++) {
            const float *row = y + (r * B + b) * ROW;
            const int64_t at = (b * L + r) * E;
            clattn_check_close(row, s.want + at, s.tolerance + at, 0, E, "sequence first");
            CHECK(clattn_is_poison(row + E, GAP * sizeof *row), "the gap behind row %d of %d was written", r, b);
        }
    drop(&s);
}

static void bad_input(void) {
    float values[64] = {0}, bad[8] = {-1};
    const clattn_tensor square = clattn_host(values, CLATTN_F32, 2, 8, 8, 0, 0),
                        vector = clattn_host(values, CLATTN_F32, 1, 8, 0, 0, 0);
    clattn_layer *layer = NULL;
#define EXPECT(call, status, word)                                                                                     \
    do {                                                                                                               \
        const clattn_status got = (call);                                                                              \
        CHECK(got == (status) && !layer && strstr(clattn_last_error(), word), "%s: %s, '%s'", #call,                   \
              clattn_status_name(got), clattn_last_error());                                                           \
        clattn_layer_destroy(&layer);                                                                                  \
    } while (0)
    clattn_linear_desc l;
    clattn_linear_desc_init(&l);
    l.batch = l.rows = 1;
    l.in_features = l.out_features = 8;
    clattn_linear_weights lw = {.weight = square, .bias = vector};
    EXPECT(clattn_linear_create(&layer, NULL, &l, &lw), CLATTN_INVALID_ARGUMENT, "context");
    EXPECT(clattn_linear_create(&layer, context, NULL, &lw), CLATTN_INVALID_ARGUMENT, "desc");
    EXPECT(clattn_linear_create(&layer, context, &l, NULL), CLATTN_INVALID_ARGUMENT, "weights");
    l.activation = (clattn_activation)7;
    EXPECT(clattn_linear_create(&layer, context, &l, &lw), CLATTN_INVALID_ARGUMENT, "activation is 7");
    l.activation = CLATTN_ACTIVATION_NONE;
    l.out_features = 9;
    EXPECT(clattn_linear_create(&layer, context, &l, &lw), CLATTN_INVALID_SHAPE, "weight");
    l.out_features = 8;
    l.batch = -1;
    EXPECT(clattn_linear_create(&layer, context, &l, &lw), CLATTN_INVALID_SHAPE, "batch is -1");
    l.batch = l.rows = (int64_t)1 << 20;
    EXPECT(clattn_linear_create(&layer, context, &l, &lw), CLATTN_INVALID_SHAPE, "batch * rows");
    l.batch = l.rows = 1;
    lw.weight.data = NULL;
    EXPECT(clattn_linear_create(&layer, context, &l, &lw), CLATTN_INVALID_ARGUMENT, "weight is missing");
    lw.weight = square;
    l.gemm_kernel = "no such kernel";
    EXPECT(clattn_linear_create(&layer, context, &l, &lw), CLATTN_UNSUPPORTED, "no such kernel");
    l.struct_size = 3;
    EXPECT(clattn_linear_create(&layer, context, &l, &lw), CLATTN_INVALID_ARGUMENT, "struct_size");

    clattn_norm_desc n;
    clattn_norm_desc_init(&n);
    n.batch = n.rows = 1;
    n.features = 8;
    clattn_norm_weights nw = {.weight = vector};
    for (int i = 0; i < 4; i++) {
        static const float eps[4] = {0, -1e-5f, NAN, INFINITY};
        n.eps = eps[i];
        EXPECT(clattn_norm_create(&layer, context, &n, &nw), CLATTN_INVALID_ARGUMENT, "eps is");
    }
    n.eps = 1e-5f;
    n.sum = 1;
    EXPECT(clattn_norm_create(&layer, context, &n, &nw), CLATTN_INVALID_ARGUMENT, "sum is 1");
    n.sum = 0;
    n.features = 7;
    EXPECT(clattn_norm_create(&layer, context, &n, &nw), CLATTN_INVALID_SHAPE, "weight");
    n.features = 8;
    n.kind = CLATTN_NORM_BATCH_INFERENCE;
    EXPECT(clattn_norm_create(&layer, context, &n, &nw), CLATTN_INVALID_ARGUMENT, "mean is missing");
    nw.mean = vector;
    nw.variance = clattn_host(bad, CLATTN_F32, 1, 8, 0, 0, 0);
    EXPECT(clattn_norm_create(&layer, context, &n, &nw), CLATTN_INVALID_ARGUMENT, "variance[0] is -1");
    n.kind = CLATTN_NORM_BATCH;
    EXPECT(clattn_norm_create(&layer, context, &n, &nw), CLATTN_INVALID_ARGUMENT, "mean is given");
    nw.mean.data = nw.variance.data = NULL;
    n.residual = 1;
    EXPECT(clattn_norm_create(&layer, context, &n, &nw), CLATTN_INVALID_ARGUMENT, "residual is 1");

    clattn_positions_desc p;
    clattn_positions_desc_init(&p);
    p.batch = 1;
    p.rows = 9;
    p.features = 7;
    EXPECT(clattn_positions_create(&layer, context, &p, NULL), CLATTN_INVALID_SHAPE, "features is 7");
    p.features = 8;
    p.base = 1;
    EXPECT(clattn_positions_create(&layer, context, &p, NULL), CLATTN_INVALID_ARGUMENT, "base is 1");
    p.base = 10000;
    EXPECT(clattn_positions_create(&layer, context, &p, &square), CLATTN_INVALID_ARGUMENT, "table is given");
    p.kind = CLATTN_POSITIONS_LEARNED;
    EXPECT(clattn_positions_create(&layer, context, &p, NULL), CLATTN_INVALID_ARGUMENT, "table is missing");
    EXPECT(clattn_positions_create(&layer, context, &p, &square), CLATTN_INVALID_SHAPE, "rows is 9");
    p.kind = (clattn_positions_kind)0;
    EXPECT(clattn_positions_create(&layer, context, &p, NULL), CLATTN_INVALID_ARGUMENT, "kind is 0");
#undef EXPECT
}

/* What a run brings is checked too: shapes, presence, the range of positions. */
static void bad_runs(void) {
    float table[4 * 6] = {0}, x[2 * 3 * 6] = {0}, y[2 * 3 * 6];
    int64_t where[3] = {0, 4, 1};
    const clattn_tensor learned = clattn_host(table, CLATTN_F32, 2, 4, 6, 0, 0);
    clattn_positions_desc d;
    clattn_positions_desc_init(&d);
    d.kind = CLATTN_POSITIONS_LEARNED;
    d.batch = 2;
    d.rows = 3;
    d.features = 6;
    d.positions = d.add = 1;
    clattn_layer *layer = NULL;
    REQUIRE(clattn_positions_create(&layer, context, &d, &learned) == CLATTN_OK, "%s", clattn_last_error());
    clattn_layer_io io = {.input = clattn_host(x, CLATTN_F32, 3, 2, 3, 6, 0),
                          .positions = clattn_host(where, CLATTN_I64, 1, 3, 0, 0, 0),
                          .output = clattn_host(y, CLATTN_F32, 3, 2, 3, 6, 0)};
    clattn_poison(y, sizeof y);
    CHECK(clattn_layer_run(layer, &io) == CLATTN_INVALID_ARGUMENT &&
              strstr(clattn_last_error(), "positions[0, 1] is 4"),
          "a position beyond the table: %s", clattn_last_error());
    where[1] = -1;
    CHECK(clattn_layer_run(layer, &io) == CLATTN_INVALID_ARGUMENT, "a negative position was accepted");
    CHECK(clattn_is_poison(y, sizeof y), "a refused run wrote");
    where[1] = 3;
    CHECK(clattn_layer_run(layer, &io) == CLATTN_OK, "%s", clattn_last_error());
    io.input.shape[2] = 5;
    CHECK(clattn_layer_run(layer, &io) == CLATTN_INVALID_SHAPE, "a wrong shape was accepted");
    io.input.shape[2] = 6;
    io.residual = io.input;
    CHECK(clattn_layer_run(layer, &io) == CLATTN_INVALID_ARGUMENT, "a tensor too many was accepted");
    memset(&io.residual, 0, sizeof io.residual);
    io.output.data = NULL;
    CHECK(clattn_layer_run(layer, &io) == CLATTN_INVALID_ARGUMENT, "no output was accepted");
    CHECK(clattn_layer_run(layer, NULL) == CLATTN_INVALID_ARGUMENT, "no io was accepted");
    CHECK(clattn_layer_run(NULL, &io) == CLATTN_INVALID_ARGUMENT, "no layer was accepted");
    clattn_layer_destroy(&layer);
    clattn_layer_destroy(&layer);
    clattn_layer_destroy(NULL);
}

int main(int argc, char **argv) {
    static const clattn_test tests[] = {{"linear", linear},
                                        {"norms", norms},
                                        {"norm_forms_agree", norm_forms_agree},
                                        {"activations", activations},
                                        {"gelu_values", gelu_values},
                                        {"positions", positions},
                                        {"shift_matrix", shift_matrix},
                                        {"strides", strides},
                                        {"bad_input", bad_input},
                                        {"bad_runs", bad_runs},
                                        {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"layers", tests}, {NULL, NULL}};
    return clattn_test_main_with(&context, CLATTN_VERIFY_ONCE, suites, argc, argv);
}
