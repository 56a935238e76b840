/* Softmax, its gradient and cross entropy against the reference, and the reference against plain formulas. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clattn/interop.h"
#include "clattn/softmax.h"
#include "harness.h"

static clattn_context *context;

typedef struct softmax_case {
    const char *name;
    int rank;
    int64_t shape[4];
    int axis;
    float temperature;
    double size;            /* of x */
    bool mask;              /* about a third of the elements are forbidden */
    int64_t mask_shape[4];  /* 0: shape */
    bool empty_row, poison; /* the first row is forbidden; forbidden elements are NaN */
    bool flat;              /* one x of 0, else ln 0.7: a plain float sum is off by the same in each step */
    int64_t gap;            /* elements between the rows of every tensor */
} softmax_case;

static const softmax_case CASES[] = {
    {.name = "one", .rank = 1, .shape = {1}, .axis = -1, .temperature = 1, .size = 1},
    {.name = "vector", .rank = 1, .shape = {100}, .axis = 0, .temperature = 1, .size = 10},
    {.name = "seven", .rank = 2, .shape = {3, 7}, .axis = -1, .temperature = 0.5f, .size = 3},
    {.name = "eight", .rank = 2, .shape = {5, 8}, .axis = 1, .temperature = 2, .size = 3},
    {.name = "nine", .rank = 2, .shape = {5, 9}, .axis = 1, .temperature = 1, .size = 3},
    {.name = "around a group", .rank = 2, .shape = {4, 513}, .axis = 1, .temperature = 1, .size = 5},
    {.name = "axis 0", .rank = 2, .shape = {33, 6}, .axis = 0, .temperature = 1, .size = 2},
    {.name = "axis 1 of 4", .rank = 4, .shape = {2, 19, 3, 5}, .axis = 1, .temperature = 1, .size = 2, .mask = true},
    {.name = "axis 2 of 4", .rank = 4, .shape = {2, 3, 65, 4}, .axis = -2, .temperature = 3, .size = 2, .mask = true},
    {.name = "axis 0 of 3", .rank = 3, .shape = {17, 3, 5}, .axis = -3, .temperature = 1, .size = 2},
    {.name = "1e4", .rank = 2, .shape = {9, 129}, .axis = 1, .temperature = 1, .size = 1e4},
    {.name = "1e4 hot", .rank = 2, .shape = {9, 129}, .axis = 1, .temperature = 1e4f, .size = 1e4},
    {.name = "cold", .rank = 2, .shape = {9, 31}, .axis = 1, .temperature = 1e-30f, .size = 1},
    {.name = "long", .rank = 2, .shape = {2, 300007}, .axis = 1, .temperature = 1, .size = 0.01},
    {.name = "long and flat", .rank = 1, .shape = {300007}, .temperature = 1, .size = 1, .flat = true},
    {.name = "masked", .rank = 3, .shape = {3, 5, 40}, .axis = 2, .temperature = 1, .size = 3, .mask = true},
    {.name = "masked NaN",
     .rank = 2,
     .shape = {6, 45},
     .axis = 1,
     .temperature = 1,
     .size = 3,
     .mask = true,
     .poison = true},
    {.name = "empty row",
     .rank = 2,
     .shape = {6, 20},
     .axis = 1,
     .temperature = 1,
     .size = 3,
     .mask = true,
     .empty_row = true},
    {.name = "mask per column",
     .rank = 3,
     .shape = {2, 7, 21},
     .axis = 2,
     .temperature = 1,
     .size = 3,
     .mask = true,
     .mask_shape = {1, 1, 21}},
    {.name = "mask per row",
     .rank = 3,
     .shape = {2, 7, 21},
     .axis = 2,
     .temperature = 1,
     .size = 3,
     .mask = true,
     .mask_shape = {2, 7, 1}},
    {.name = "gaps", .rank = 3, .shape = {3, 4, 26}, .axis = 1, .temperature = 1, .size = 3, .mask = true, .gap = 5},
    {.name = "many rows", .rank = 2, .shape = {70001, 3}, .axis = 1, .temperature = 1, .size = 1},
    {.name = "no rows", .rank = 3, .shape = {2, 0, 5}, .axis = 2, .temperature = 1, .size = 1},
    {.name = "no elements", .rank = 2, .shape = {4, 0}, .axis = 1, .temperature = 1, .size = 1},
};
enum { CASE_COUNT = sizeof CASES / sizeof *CASES, TENSORS = 7 };

/* One case's memory. Tensors are described by a shape whose last axis is followed by the gap. */
typedef struct stage {
    clattn_softmax_desc desc;
    clattn_softmax_io io;
    void *memory[TENSORS];
    int tensors;
} stage;

static int64_t count_of(const clattn_tensor *t) {
    int64_t count = 1;
    for (int i = 0; i < t->rank; i++) count *= t->shape[i];
    return count;
}

/* Elements from the first to behind the last, gaps included. */
static int64_t span_of(const clattn_tensor *t) { return count_of(t) ? t->stride[0] * t->shape[0] : 0; }

static clattn_tensor tensor_of(stage *s, clattn_dtype dtype, const int64_t *shape, int rank, int64_t gap) {
    clattn_tensor t = {.dtype = dtype, .rank = rank};
    int64_t step = 1;
    for (int i = rank - 1; i >= 0; i--) {
        t.shape[i] = shape[i];
        t.stride[i] = step;
        step *= shape[i] ? shape[i] : 1;
        if (i == rank - 1) step += gap;
    }
    t.data = s->memory[s->tensors++] = clattn_guard_alloc((size_t)step * clattn_dtype_size(dtype));
    return t;
}

/* Element i of a tensor, counted as if it were dense. */
static int64_t place(const clattn_tensor *t, int64_t i) {
    int64_t at = 0;
    for (int axis = t->rank - 1; axis >= 0; axis--) {
        at += i % t->shape[axis] * t->stride[axis];
        i /= t->shape[axis];
    }
    return at;
}

static float *floats(const clattn_tensor *t, int64_t i) { return (float *)t->data + place(t, i); }

static void fill(clattn_random *random, const clattn_tensor *t, double size) {
    for (int64_t n = count_of(t), i = 0; i < n; i++) *floats(t, i) = (float)(size * clattn_random_normal(random));
}

/* The value of a broadcast mask at element i of x. */
static uint8_t *mask_at(const stage *s, int64_t i) {
    int64_t at = 0;
    for (int axis = s->desc.rank - 1; axis >= 0; axis--) {
        const int64_t extent = s->desc.shape[axis];
        if (s->io.mask.shape[axis] > 1) at += i % extent * s->io.mask.stride[axis];
        i /= extent;
    }
    return (uint8_t *)s->io.mask.data + at;
}

static void make_mask(stage *s, clattn_random *random, const softmax_case *c) {
    int64_t shape[4];
    memcpy(shape, c->mask_shape[0] ? c->mask_shape : c->shape, sizeof shape);
    s->desc.mask = 1;
    memcpy(s->desc.mask_shape, c->mask_shape, sizeof shape);
    s->io.mask = tensor_of(s, CLATTN_BOOL, shape, c->rank, c->gap);
    for (int64_t n = count_of(&s->io.mask), i = 0; i < n; i++)
        ((uint8_t *)s->io.mask.data)[place(&s->io.mask, i)] = (uint8_t)(clattn_random_below(random, 3) * 5);
    if (c->empty_row) memset(s->io.mask.data, 0, (size_t)c->shape[c->rank - 1]);
}

static void make(stage *s, const softmax_case *c, clattn_softmax_kind kind) {
    memset(s, 0, sizeof *s);
    clattn_random random = {(uint64_t)(c - CASES) * 10 + (uint64_t)kind};
    clattn_softmax_desc_init(&s->desc);
    s->desc.kind = kind;
    s->desc.rank = c->rank;
    memcpy(s->desc.shape, c->shape, sizeof s->desc.shape);
    s->desc.axis = c->axis;
    s->desc.temperature = c->temperature;
    s->desc.probability = s->desc.gradient = kind == CLATTN_SOFTMAX_CROSS_ENTROPY;
    if (c->mask) make_mask(s, &random, c);
    clattn_tensor in = tensor_of(s, CLATTN_F32, c->shape, c->rank, c->gap);
    fill(&random, &in, c->size);
    for (int64_t n = count_of(&in), i = 0; i < n && c->flat; i++) *floats(&in, i) = i == 0 ? 0 : -0.35667494f;
    for (int64_t n = count_of(&in), i = 0; i < n && c->poison; i++)
        if (!*mask_at(s, i)) *floats(&in, i) = NAN;
    if (kind == CLATTN_SOFTMAX_BACKWARD) {
        for (int64_t n = count_of(&in), i = 0; i < n; i++) *floats(&in, i) = fabsf(*floats(&in, i)) / 1000;
        s->io.probability = in;
        s->io.grad_output = tensor_of(s, CLATTN_F32, c->shape, c->rank, c->gap);
        fill(&random, &s->io.grad_output, 1);
        return;
    }
    s->io.x = in;
    if (kind == CLATTN_SOFTMAX_FORWARD) return;
    int64_t kept[4];
    const int axis = c->axis < 0 ? c->axis + c->rank : c->axis;
    memcpy(kept, c->shape, sizeof kept);
    kept[axis] = 1;
    s->io.labels = tensor_of(s, CLATTN_I32, kept, c->rank, c->gap);
    for (int64_t n = count_of(&s->io.labels), i = 0; i < n; i++)
        ((int32_t *)s->io.labels.data)[place(&s->io.labels, i)] =
            (int32_t)clattn_random_below(&random, c->shape[axis] + 1) - 1;
}

static void drop(stage *s) {
    for (int i = 0; i < s->tensors; i++) {
        CHECK(clattn_guard_intact(s->memory[i]), "something wrote beside tensor %d", i);
        clattn_guard_free(s->memory[i]);
    }
}

typedef struct result {
    stage memory;
    clattn_softmax_io io; /* the stage's inputs with outputs of this result */
    float *probability, *loss, *grad_x;
} result;

static void make_outputs(result *r, const stage *s, int64_t gap) {
    memset(r, 0, sizeof *r);
    r->io = s->io;
    const clattn_softmax_kind kind = s->desc.kind;
    if (kind != CLATTN_SOFTMAX_BACKWARD) {
        r->io.probability = tensor_of(&r->memory, CLATTN_F32, s->desc.shape, s->desc.rank, gap);
        r->probability = r->io.probability.data;
    }
    if (kind != CLATTN_SOFTMAX_FORWARD) {
        r->io.grad_x = tensor_of(&r->memory, CLATTN_F32, s->desc.shape, s->desc.rank, gap);
        r->grad_x = r->io.grad_x.data;
    }
    if (kind == CLATTN_SOFTMAX_CROSS_ENTROPY) {
        r->io.loss = tensor_of(&r->memory, CLATTN_F32, s->io.labels.shape, s->desc.rank, gap);
        r->loss = r->io.loss.data;
    }
}

/* Gaps hold the poison on both sides, which compares equal. */
static void compare(const clattn_tensor *t, const float *got, const float *want, const float *tolerance,
                    const char *name, const char *what) {
    if (!got) return;
    char text[128];
    snprintf(text, sizeof text, "%s: %s", name, what);
    for (int64_t n = count_of(t), i = 0; i < n; i++) {
        const int64_t at = place(t, i);
        if (!clattn_check_close(&got[at], &want[at], NULL, tolerance[i], 1, text)) return;
    }
}

static void run_case(const softmax_case *c, clattn_softmax_kind kind) {
    stage s;
    result want, got, tolerance;
    make(&s, c, kind);
    make_outputs(&want, &s, c->gap);
    make_outputs(&got, &s, c->gap);
    make_outputs(&tolerance, &s, 0);
    const clattn_softmax_tolerance far = {tolerance.probability, tolerance.loss, tolerance.grad_x};
    CHECK(clattn_reference_softmax(&s.desc, &want.io, &far) == CLATTN_OK, "%s: %s", c->name, clattn_last_error());
    clattn_softmax *plan = NULL;
    CHECK(clattn_softmax_create(&plan, context, &s.desc) == CLATTN_OK, "%s: %s", c->name, clattn_last_error());
    for (int twice = 0; twice < 2 && plan; twice++) {
        if (got.probability) clattn_poison(got.probability, (size_t)span_of(&got.io.probability) * sizeof(float));
        CHECK(clattn_softmax_run(plan, &got.io) == CLATTN_OK, "%s: %s", c->name, clattn_last_error());
        compare(&got.io.probability, got.probability, want.probability, tolerance.probability, c->name, "probability");
        compare(&got.io.loss, got.loss, want.loss, tolerance.loss, c->name, "loss");
        compare(&got.io.grad_x, got.grad_x, want.grad_x, tolerance.grad_x, c->name, "grad_x");
    }
    clattn_softmax_destroy(&plan);
    drop(&got.memory);
    drop(&want.memory);
    drop(&tolerance.memory);
    drop(&s);
}

static void forward(void) {
    for (int i = 0; i < CASE_COUNT; i++) run_case(&CASES[i], CLATTN_SOFTMAX_FORWARD);
}

static void backward(void) {
    for (int i = 0; i < CASE_COUNT; i++) run_case(&CASES[i], CLATTN_SOFTMAX_BACKWARD);
}

static void cross_entropy(void) {
    for (int i = 0; i < CASE_COUNT; i++) run_case(&CASES[i], CLATTN_SOFTMAX_CROSS_ENTROPY);
}

/* Numbers worked out by hand: softmax(0, ln 2, ln 5) = (1, 2, 5) / 8. */
static void by_hand(void) {
    const float x[3] = {0, 0.693147181f, 1.60943791f}, g[3] = {1, 0, 2}, want[3] = {0.125f, 0.25f, 0.625f};
    const int32_t label = 1;
    float p[3], loss, grad[3];
    clattn_softmax_desc desc;
    clattn_softmax_desc_init(&desc);
    desc.rank = 1;
    desc.shape[0] = 3;
    clattn_softmax_io io = {.x = clattn_host(x, CLATTN_F32, 1, 3, 0, 0, 0),
                            .probability = clattn_host(p, CLATTN_F32, 1, 3, 0, 0, 0)};
    CHECK(clattn_reference_softmax(&desc, &io, NULL) == CLATTN_OK, "%s", clattn_last_error());
    clattn_check_close(p, want, NULL, 1e-7, 3, "softmax");
    desc.kind = CLATTN_SOFTMAX_BACKWARD;
    clattn_softmax_io back = {.probability = io.probability,
                              .grad_output = clattn_host(g, CLATTN_F32, 1, 3, 0, 0, 0),
                              .grad_x = clattn_host(grad, CLATTN_F32, 1, 3, 0, 0, 0)};
    CHECK(clattn_reference_softmax(&desc, &back, NULL) == CLATTN_OK, "%s", clattn_last_error());
    const float want_back[3] = {0.125f * -0.375f, 0.25f * -1.375f, 0.625f * 0.625f}; /* sum g p = 1.375 */
    clattn_check_close(grad, want_back, NULL, 1e-7, 3, "gradient");
    desc.kind = CLATTN_SOFTMAX_CROSS_ENTROPY;
    desc.gradient = 1;
    clattn_softmax_io entropy = {.x = io.x,
                                 .labels = clattn_host(&label, CLATTN_I32, 1, 1, 0, 0, 0),
                                 .loss = clattn_host(&loss, CLATTN_F32, 1, 1, 0, 0, 0),
                                 .grad_x = back.grad_x};
    CHECK(clattn_reference_softmax(&desc, &entropy, NULL) == CLATTN_OK, "%s", clattn_last_error());
    const float want_loss = 1.38629436f, want_grad[3] = {0.125f, -0.75f, 0.625f}; /* ln 4 */
    clattn_check_close(&loss, &want_loss, NULL, 1e-6, 1, "loss");
    clattn_check_close(grad, want_grad, NULL, 1e-7, 3, "gradient of the loss");
}

/* The gradient is what a small step does to the loss. */
static void gradient_is_a_slope(void) {
    enum { N = 11 };
    float x[N], p[N], grad[N], loss = NAN, up, down;
    const int32_t label = 4;
    clattn_random random = {77};
    clattn_fill_normal(&random, x, N, 1);
    clattn_softmax_desc desc;
    clattn_softmax_desc_init(&desc);
    desc.kind = CLATTN_SOFTMAX_CROSS_ENTROPY;
    desc.rank = 1;
    desc.shape[0] = N;
    desc.temperature = 0.7f;
    desc.probability = desc.gradient = 1;
    clattn_softmax_io io = {.x = clattn_host(x, CLATTN_F32, 1, N, 0, 0, 0),
                            .labels = clattn_host(&label, CLATTN_I32, 1, 1, 0, 0, 0),
                            .probability = clattn_host(p, CLATTN_F32, 1, N, 0, 0, 0),
                            .loss = clattn_host(&loss, CLATTN_F32, 1, 1, 0, 0, 0),
                            .grad_x = clattn_host(grad, CLATTN_F32, 1, N, 0, 0, 0)};
    CHECK(clattn_reference_softmax(&desc, &io, NULL) == CLATTN_OK, "%s", clattn_last_error());
    float slope[N], kept[N];
    memcpy(kept, grad, sizeof kept);
    for (int i = 0; i < N; i++) {
        const float middle = x[i], above = middle + 0x1p-6f, below = middle - 0x1p-6f;
        x[i] = above;
        clattn_reference_softmax(&desc, &io, NULL);
        up = loss;
        x[i] = below;
        clattn_reference_softmax(&desc, &io, NULL);
        down = loss;
        x[i] = middle;
        slope[i] = (up - down) / (above - below);
    }
    clattn_check_close(slope, kept, NULL, 2e-4, N, "slope of the loss");
}

/* Softmax of -inf, +inf and NaN without a mask, as IEEE says. */
static void special_values(void) {
    float x[4] = {0, -INFINITY, 0, 0}, p[4];
    const float want[4] = {1.0f / 3, 0, 1.0f / 3, 1.0f / 3};
    clattn_softmax_desc desc;
    clattn_softmax_desc_init(&desc);
    desc.rank = 1;
    desc.shape[0] = 4;
    clattn_softmax *plan = NULL;
    clattn_softmax_io io = {.x = clattn_host(x, CLATTN_F32, 1, 4, 0, 0, 0),
                            .probability = clattn_host(p, CLATTN_F32, 1, 4, 0, 0, 0)};
    REQUIRE(clattn_softmax_create(&plan, context, &desc) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(clattn_softmax_run(plan, &io) == CLATTN_OK, "%s", clattn_last_error());
    clattn_check_close(p, want, NULL, 1e-6, 4, "one -inf");
    x[0] = NAN;
    CHECK(clattn_softmax_run(plan, &io) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(isnan(p[0]) && isnan(p[3]), "NaN must spread: %g %g", (double)p[0], (double)p[3]);
    x[0] = INFINITY;
    CHECK(clattn_softmax_run(plan, &io) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(isnan(p[0]), "inf - inf is NaN, not %g", (double)p[0]);
    clattn_softmax_destroy(&plan);
}

/* Each rule once: what is wrong, and a word of the message. */
static void bad_descriptions(void) {
    const struct {
        const char *word;
        clattn_softmax_desc desc;
    } rows[] = {
        {"kind", {.kind = (clattn_softmax_kind)3, .rank = 1, .shape = {3}, .axis = 0, .temperature = 1}},
        {"rank", {.rank = 0, .axis = 0, .temperature = 1}},
        {"rank", {.rank = 5, .axis = 0, .temperature = 1}},
        {"shape[1]", {.rank = 2, .shape = {3, -1}, .axis = 0, .temperature = 1}},
        {"overflows", {.rank = 4, .shape = {1 << 28, 1 << 28, 1 << 28, 1 << 28}, .axis = 0, .temperature = 1}},
        {"axis", {.rank = 2, .shape = {3, 3}, .axis = 2, .temperature = 1}},
        {"axis", {.rank = 2, .shape = {3, 3}, .axis = -3, .temperature = 1}},
        {"temperature", {.rank = 1, .shape = {3}, .axis = 0, .temperature = 0}},
        {"temperature", {.rank = 1, .shape = {3}, .axis = 0, .temperature = -1}},
        {"temperature", {.rank = 1, .shape = {3}, .axis = 0, .temperature = NAN}},
        {"temperature", {.rank = 1, .shape = {3}, .axis = 0, .temperature = 1e-40f}},
        {"mask_shape[0]", {.rank = 2, .shape = {3, 4}, .axis = 0, .temperature = 1, .mask = 1, .mask_shape = {2, 4}}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        clattn_softmax *plan = (clattn_softmax *)&plan;
        clattn_softmax_desc desc = rows[i].desc;
        desc.struct_size = sizeof desc;
        clattn_status status = clattn_softmax_create(&plan, context, &desc);
        CHECK(status != CLATTN_OK && !plan && strstr(clattn_last_error(), rows[i].word), "row %zu: %s", i,
              clattn_last_error());
    }
    clattn_softmax *plan;
    clattn_softmax_desc desc = {.rank = 1};
    CHECK(clattn_softmax_create(&plan, context, &desc) == CLATTN_INVALID_ARGUMENT, "struct_size 0 must be refused");
    CHECK(clattn_softmax_create(&plan, context, NULL) == CLATTN_INVALID_ARGUMENT, "no description");
    CHECK(clattn_softmax_create(&plan, NULL, &desc) == CLATTN_INVALID_ARGUMENT, "no context");
    clattn_softmax_destroy(NULL);
}

static void bad_tensors(void) {
    float x[6] = {0}, loss[2];
    int32_t labels[2] = {2, 3};
    clattn_softmax_desc desc;
    clattn_softmax_desc_init(&desc);
    desc.kind = CLATTN_SOFTMAX_CROSS_ENTROPY;
    desc.rank = 2;
    desc.shape[0] = 2;
    desc.shape[1] = 3;
    clattn_softmax *plan = NULL;
    REQUIRE(clattn_softmax_create(&plan, context, &desc) == CLATTN_OK, "%s", clattn_last_error());
    clattn_softmax_io io = {.x = clattn_host(x, CLATTN_F32, 2, 2, 3, 0, 0),
                            .labels = clattn_host(labels, CLATTN_I32, 2, 2, 1, 0, 0),
                            .loss = clattn_host(loss, CLATTN_F32, 2, 2, 1, 0, 0)};
    CHECK(clattn_softmax_run(plan, &io) == CLATTN_INVALID_ARGUMENT && strstr(clattn_last_error(), "labels[1] is 3"),
          "a label beyond the axis: %s", clattn_last_error());
    labels[1] = -1;
    CHECK(clattn_softmax_run(plan, &io) == CLATTN_OK && loss[1] == 0, "an ignored row has loss %g", (double)loss[1]);
    io.loss.data = NULL;
    CHECK(clattn_softmax_run(plan, &io) == CLATTN_INVALID_ARGUMENT && strstr(clattn_last_error(), "loss"),
          "no loss: %s", clattn_last_error());
    io.loss = clattn_host(loss, CLATTN_F32, 1, 2, 0, 0, 0);
    CHECK(clattn_softmax_run(plan, &io) == CLATTN_INVALID_SHAPE && strstr(clattn_last_error(), "rank"), "%s",
          clattn_last_error());
    io.loss = clattn_host(loss, CLATTN_F32, 2, 2, 1, 0, 0);
    io.grad_x = clattn_host(x, CLATTN_F32, 2, 2, 3, 0, 0);
    CHECK(clattn_softmax_run(plan, &io) == CLATTN_INVALID_ARGUMENT && strstr(clattn_last_error(), "grad_x"),
          "not asked for: %s", clattn_last_error());
    CHECK(clattn_softmax_run(plan, NULL) == CLATTN_INVALID_ARGUMENT, "no io");
    CHECK(clattn_softmax_run(NULL, &io) == CLATTN_INVALID_ARGUMENT, "no plan");
    clattn_plan_info info;
    CHECK(clattn_softmax_info(plan, &info) == CLATTN_OK && strstr(info.kernels, "softmax_cross_entropy"), "%s",
          info.kernels);
    CHECK(strstr(clattn_softmax_explain(plan), "softmax_cross_entropy") != NULL, "%s", clattn_softmax_explain(plan));
    clattn_softmax_destroy(&plan);
}

int main(int argc, char **argv) {
    static const clattn_test tests[] = {{"by_hand", by_hand},
                                        {"gradient_is_a_slope", gradient_is_a_slope},
                                        {"forward", forward},
                                        {"backward", backward},
                                        {"cross_entropy", cross_entropy},
                                        {"special_values", special_values},
                                        {"bad_descriptions", bad_descriptions},
                                        {"bad_tensors", bad_tensors},
                                        {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"softmax", tests}, {NULL, NULL}};
    return clattn_test_main_with(&context, CLATTN_VERIFY_ONCE, suites, argc, argv);
}
