/* Precision: 16-bit tensors are no further off than twice a plain 16-bit implementation; strict really is strict. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "clattn/clattn.h"
#include "harness.h"

static clattn_context *open_context(const char *engine) {
    clattn_context *context = NULL;
    clattn_context_options options;
    clattn_context_options_init(&options);
    options.selector = getenv("CLATTN_DEVICE");
    options.cache_dir = "";
    options.matrix_engine = engine;
    options.pretend = engine ? "type=gpu" : NULL; /* or the CPU's own kernel would come first */
    clattn_test_unoptimized(engine != NULL);
    CHECK(clattn_context_create(&context, &options) == CLATTN_OK, "%s", clattn_last_error());
    return context;
}

/* ---- a plain implementation -------------------------------------------------------------------------------------- */

static uint16_t narrow(clattn_dtype dtype, float x) {
    return dtype == CLATTN_F16 ? clattn__float_to_half(x) : clattn__float_to_bf16(x);
}

static float widen(clattn_dtype dtype, uint16_t x) {
    return dtype == CLATTN_F16 ? clattn__half_to_float(x) : clattn__bf16_to_float(x);
}

static float rounded(clattn_dtype dtype, float x) { return widen(dtype, narrow(dtype, x)); }

typedef struct shape {
    int heads, query_len, kv_len, head_dim;
    bool causal; /* top left */
} shape;

/* One row as a library without a fused kernel computes it: every operation gives a tensor of 16 bits. */
static void plain_row(const shape *s, clattn_dtype dtype, const float *q, const float *k, const float *v, int keys,
                      float *p, float *out) {
    const float scale = 1 / sqrtf((float)s->head_dim);
    float top = -INFINITY, sum = 0;
    for (int j = 0; j < keys; j++) {
        float score = 0;
        for (int d = 0; d < s->head_dim; d++) score += rounded(dtype, q[d] * scale) * k[j * s->head_dim + d];
        p[j] = rounded(dtype, score);
        if (p[j] > top) top = p[j];
    }
    for (int j = 0; j < keys; j++) sum += p[j] = expf(p[j] - top);
    for (int j = 0; j < keys; j++) p[j] = rounded(dtype, p[j] / sum);
    for (int d = 0; d < s->head_dim; d++) {
        float o = 0;
        for (int j = 0; j < keys; j++) o += p[j] * v[j * s->head_dim + d];
        out[d] = rounded(dtype, o);
    }
}

static void plain(const shape *s, clattn_dtype dtype, const float *q, const float *k, const float *v, float *out) {
    float *p = malloc((size_t)s->kv_len * sizeof *p);
    for (int h = 0; h < s->heads && p; h++)
        for (int i = 0; i < s->query_len; i++) {
            const size_t row = ((size_t)h * (size_t)s->query_len + (size_t)i) * (size_t)s->head_dim;
            const size_t keys = (size_t)h * (size_t)s->kv_len * (size_t)s->head_dim;
            plain_row(s, dtype, q + row, k + keys, v + keys, s->causal && i < s->kv_len ? i + 1 : s->kv_len, p,
                      out + row);
        }
    CHECK(p != NULL, "no memory");
    free(p);
}

/* ---- one comparison ---------------------------------------------------------------------------------------------- */

typedef struct data {
    clattn_attention_desc desc;
    size_t rows, keys; /* elements of query and output; of key and value */
    float *q, *k, *v, *want, *tolerance, *got, *plain;
    uint16_t *narrow[4]; /* query, key, value, output */
} data;

static void free_data(data *t) {
    float *const floats[] = {t->q, t->k, t->v, t->want, t->tolerance, t->got, t->plain};
    for (size_t i = 0; i < sizeof floats / sizeof floats[0]; i++) free(floats[i]);
    for (int i = 0; i < 4; i++) free(t->narrow[i]);
}

static float *numbers(size_t count) { return calloc(count, sizeof(float)); }

/* Normal entries, rounded to the type; what is wanted is exact for these. */
static void make_data(const shape *s, clattn_dtype dtype, uint64_t seed, data *t) {
    *t = (data){.rows = (size_t)(s->heads * s->query_len * s->head_dim),
                .keys = (size_t)(s->heads * s->kv_len * s->head_dim)};
    clattn_attention_desc_init(&t->desc);
    t->desc.batch = 1;
    t->desc.query_heads = s->heads;
    t->desc.query_len = s->query_len;
    t->desc.kv_len = s->kv_len;
    t->desc.head_dim = s->head_dim;
    t->desc.causal = s->causal ? CLATTN_CAUSAL_TOP_LEFT : CLATTN_CAUSAL_NONE;
    float **const floats[] = {&t->q, &t->k, &t->v, &t->want, &t->tolerance, &t->got, &t->plain};
    for (size_t i = 0; i < 7; i++) *floats[i] = numbers(i == 1 || i == 2 ? t->keys : t->rows);
    clattn_random random = {seed};
    for (int i = 0; i < 4; i++) {
        const size_t count = i == 1 || i == 2 ? t->keys : t->rows;
        t->narrow[i] = calloc(count, sizeof(uint16_t));
        if (i < 3) clattn_fill_normal(&random, *floats[i], (int64_t)count, 1);
        for (size_t n = 0; n < count && i < 3; n++) {
            t->narrow[i][n] = narrow(dtype, (*floats[i])[n]);
            (*floats[i])[n] = widen(dtype, t->narrow[i][n]);
        }
    }
    plain(s, dtype, t->q, t->k, t->v, t->plain);
    const int H = s->heads, D = s->head_dim;
    const clattn_attention_io io = {.query = clattn_host(t->q, CLATTN_F32, 4, 1, H, s->query_len, D),
                                    .key = clattn_host(t->k, CLATTN_F32, 4, 1, H, s->kv_len, D),
                                    .value = clattn_host(t->v, CLATTN_F32, 4, 1, H, s->kv_len, D),
                                    .output = clattn_host(t->want, CLATTN_F32, 4, 1, H, s->query_len, D)};
    CHECK(clattn_reference_attention(&t->desc, &io, t->tolerance) == CLATTN_OK, "%s", clattn_last_error());
    t->desc.dtype = dtype;
}

/* Runs it on the device; kernel receives the name of the one that ran. */
static bool run(clattn_context *context, const shape *s, clattn_precision precision, data *t, char *kernel,
                size_t capacity) {
    clattn_attention *plan = NULL;
    clattn_plan_info info;
    const clattn_dtype dtype = t->desc.dtype;
    const int H = s->heads, D = s->head_dim;
    t->desc.precision = precision;
    const clattn_attention_io io = {.query = clattn_host(t->narrow[0], dtype, 4, 1, H, s->query_len, D),
                                    .key = clattn_host(t->narrow[1], dtype, 4, 1, H, s->kv_len, D),
                                    .value = clattn_host(t->narrow[2], dtype, 4, 1, H, s->kv_len, D),
                                    .output = clattn_host(t->narrow[3], dtype, 4, 1, H, s->query_len, D)};
    if (!CHECK(clattn_attention_create(&plan, context, &t->desc) == CLATTN_OK, "%s", clattn_last_error())) return false;
    const bool good = CHECK(clattn_attention_run(plan, &io) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(clattn_attention_info(plan, &info) == CLATTN_OK, "%s", clattn_last_error());
    snprintf(kernel, capacity, "%s", info.kernels);
    static const char *const words[] = {"precision: default", "precision: strict", "precision: fast"};
    CHECK(strstr(clattn_attention_explain(plan), words[precision]), "%s", clattn_attention_explain(plan));
    for (size_t i = 0; i < t->rows; i++) t->got[i] = widen(dtype, t->narrow[3][i]);
    clattn_attention_destroy(&plan);
    return good;
}

static double greatest(const float *got, const float *want, size_t count, double *mean) {
    double worst = 0, sum = 0;
    for (size_t i = 0; i < count; i++) {
        const double error = fabs((double)got[i] - (double)want[i]);
        if (!(error <= worst)) worst = error; /* NaN is the worst */
        sum += error;
    }
    *mean = sum / (double)count;
    return worst;
}

static const shape shapes[] = {{2, 64, 64, 64, false}, {1, 77, 145, 64, false}, {1, 128, 257, 128, true}};

/* The sanitizers look at the host's code, which does not change with the numbers. */
#ifdef __SANITIZE_ADDRESS__
enum { SEEDS = 1 };
#else
enum { SEEDS = 3 };
#endif

static void compare_with_plain(const char *engine, const char *expected, int shape_count) {
    clattn_context *context = open_context(engine);
    REQUIRE(context != NULL, "no context");
    for (int n = 0; n < 2 * shape_count; n++) {
        const shape *s = &shapes[n / 2];
        const clattn_dtype dtype = n % 2 ? CLATTN_BF16 : CLATTN_F16;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
            data t;
            char kernel[64] = "";
            double mean = 0, plain_mean = 0;
            make_data(s, dtype, seed, &t);
            if (run(context, s, CLATTN_PRECISION_DEFAULT, &t, kernel, sizeof kernel)) {
                const double most = greatest(t.got, t.want, t.rows, &mean),
                             plain_most = greatest(t.plain, t.want, t.rows, &plain_mean);
                CHECK(!expected || strcmp(kernel, expected) == 0, "%s ran", kernel);
                CHECK(most <= 2 * plain_most && mean <= 2 * plain_mean,
                      "%s, %s, %d x %d x %d, seed %d: off by %g (mean %g); a plain one by %g (mean %g)", kernel,
                      clattn_dtype_name(dtype), s->query_len, s->kv_len, s->head_dim, (int)seed, most, mean, plain_most,
                      plain_mean);
                if (seed == 1)
                    clattn_test_note("%s, %s: error of a plain one times %.2f, mean %.2f", kernel,
                                     clattn_dtype_name(dtype), most / plain_most, mean / plain_mean);
            }
            free_data(&t);
        }
    }
    clattn_context_destroy(&context);
}

static void storage(void) { compare_with_plain(NULL, NULL, 3); }

/* Emulation takes its time: two engines, one of which keeps weights in other lanes than it makes them in. */
static void engines(void) {
    compare_with_plain("emulated:nv", "attn_matrix", 2);
    compare_with_plain("emulated:dpas8", "attn_matrix", 1);
}

/* Strict keeps away from the engine, and within what float32 and the rounding of the output may be off; the engine does
 * not, so that this bound tells them apart. */
static void strict(void) {
    const char *const engine[] = {NULL, "emulated:nv"};
    for (int e = 0; e < 2; e++)
        for (int n = 0; n < 2; n++) {
            clattn_context *context = open_context(engine[e]);
            REQUIRE(context != NULL, "no context");
            const shape *s = &shapes[1];
            const clattn_dtype dtype = n ? CLATTN_BF16 : CLATTN_F16;
            const double unit = n ? 0x1p-8 : 0x1p-11, least = n ? 0 : 0x1p-25;
            char kernel[64] = "";
            data t;
            make_data(s, dtype, 7, &t);
            for (int precision = 0; precision < 3; precision++) {
                if (!run(context, s, (clattn_precision)precision, &t, kernel, sizeof kernel)) continue;
                int beyond = 0;
                for (size_t i = 0; i < t.rows; i++)
                    if (!(fabs((double)t.got[i] - (double)t.want[i]) <=
                          (double)t.tolerance[i] + unit * fabs((double)t.want[i]) + least))
                        beyond++;
                const bool on_engine = strcmp(kernel, "attn_matrix") == 0;
                CHECK(on_engine == (e == 1 && precision != CLATTN_PRECISION_STRICT), "precision %d: %s", precision,
                      kernel);
                CHECK(on_engine == (beyond > 0), "precision %d: %s, %d of %d beyond float32", precision, kernel, beyond,
                      (int)t.rows);
            }
            free_data(&t);
            clattn_context_destroy(&context);
        }
}

/* The reference's tolerance allows for rounded weights when it is told of the kernel, and only then. */
static void named(void) {
    clattn_context *context = open_context("emulated:nv");
    REQUIRE(context != NULL, "no context");
    const shape *s = &shapes[1];
    const int H = s->heads, D = s->head_dim;
    char kernel[64] = "";
    data t;
    make_data(s, CLATTN_F16, 7, &t);
    const bool ran = run(context, s, CLATTN_PRECISION_DEFAULT, &t, kernel, sizeof kernel);
    uint16_t *want = calloc(t.rows, sizeof *want);
    CHECK(want && strcmp(kernel, "attn_matrix") == 0, "%s ran", kernel);
    static const char *const names[] = {NULL, "attn_tiled", "attn_matrix", "gemm_matrix, attn_matrix"};
    for (int n = 0; n < 4 && want && ran; n++) {
        const clattn_attention_io io = {.query = clattn_host(t.narrow[0], CLATTN_F16, 4, 1, H, s->query_len, D),
                                        .key = clattn_host(t.narrow[1], CLATTN_F16, 4, 1, H, s->kv_len, D),
                                        .value = clattn_host(t.narrow[2], CLATTN_F16, 4, 1, H, s->kv_len, D),
                                        .output = clattn_host(want, CLATTN_F16, 4, 1, H, s->query_len, D)};
        int beyond = 0;
        t.desc.kernel = names[n];
        CHECK(clattn_reference_attention(&t.desc, &io, t.tolerance) == CLATTN_OK, "%s", clattn_last_error());
        for (size_t i = 0; i < t.rows; i++)
            if (!(fabsf(t.got[i] - widen(CLATTN_F16, want[i])) <= t.tolerance[i])) beyond++;
        CHECK((beyond == 0) == (n >= 2), "%s: %d of %d beyond the tolerance", names[n] ? names[n] : "no name", beyond,
              (int)t.rows);
    }
    free(want);
    free_data(&t);
    clattn_context_destroy(&context);
}

/* What the compilers are given: no native function under strict, wherever the program would run. */
static void options(void) {
    clattn_context *context = open_context(NULL);
    REQUIRE(context != NULL, "no context");
    clattn_attention *plan = NULL;
    clattn_attention_desc desc;
    clattn_attention_desc_init(&desc);
    desc.batch = desc.query_heads = 1;
    desc.query_len = desc.kv_len = 16;
    desc.head_dim = 16;
    desc.precision = (clattn_precision)3;
    CHECK(clattn_attention_create(&plan, context, &desc) == CLATTN_INVALID_ARGUMENT &&
              strstr(clattn_last_error(), "precision"),
          "%s", clattn_last_error());
    desc.precision = CLATTN_PRECISION_STRICT;
    desc.dtype = CLATTN_F16;
    desc.kernel = "attn_matrix";
    CHECK(clattn_attention_create(&plan, context, &desc) == CLATTN_UNSUPPORTED &&
              strstr(clattn_last_error(), "strict precision forbids"),
          "%s", clattn_last_error());
    clattn_context_destroy(&context);
}

int main(int argc, char **argv) {
    static const clattn_test tests[] = {{"storage", storage}, {"engines", engines}, {"strict", strict},
                                        {"named", named},     {"options", options}, {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"precision", tests}, {NULL, NULL}};
    return clattn_test_main(suites, argc, argv);
}
