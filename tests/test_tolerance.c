/* Tolerances: wide enough for plain float32 arithmetic in the simplest order, narrow enough to see a bug. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clattn/clattn.h"
#include "harness.h"
#include "ref/ref.h"

/* Attention in float32 the simplest way, scores scaled by `scale`. */
static void float_attention(const float *q, const float *k, const float *v, float *o, int Sq, int Sk, int D, int Dv,
                            float scale) {
    float *p = malloc(sizeof(float) * (size_t)Sk);
    if (!p) abort();
    for (int i = 0; i < Sq; i++) {
        float max = -INFINITY, sum = 0;
        for (int j = 0; j < Sk; j++) {
            float s = 0;
            for (int d = 0; d < D; d++) s += q[i * D + d] * k[j * D + d];
            p[j] = s * scale;
            max = fmaxf(max, p[j]);
        }
        for (int j = 0; j < Sk; j++) sum += p[j] = expf(p[j] - max);
        for (int c = 0; c < Dv; c++) {
            float a = 0;
            for (int j = 0; j < Sk; j++) a += p[j] * v[j * Dv + c];
            o[i * Dv + c] = a / sum;
        }
    }
    free(p);
}

typedef struct tolerance_case {
    int Sq, Sk, D;
    double size;     /* of query and key: logits grow with its square */
    double mean;     /* of the values */
    bool is_typical; /* the scale matters to the result; not so with one key, equal weights or one weight of 1 */
} tolerance_case;

static const tolerance_case tolerance_cases[] = {
    {5, 1, 1, 1, 0, false},     {9, 7, 5, 1, 0, true},       {16, 64, 64, 1, 0, true},    {16, 385, 64, 1, 0, true},
    {8, 1000, 128, 1, 0, true}, {16, 129, 64, 10, 0, true},  {16, 65, 64, 100, 0, false}, {16, 129, 32, 0.1, 5, false},
    {8, 4000, 16, 1, 1, true},  {16, 129, 512, 0.3, 0, true}};

/* Greatest error of float32 attention as a fraction of the tolerance, when the scale is off by `fault`. */
static double tolerance_ratio(const tolerance_case *c, double fault, uint64_t seed) {
    const int64_t q_count = c->Sq * c->D, k_count = c->Sk * c->D;
    float *memory = calloc((size_t)(4 * q_count + 2 * k_count), sizeof(float));
    if (!memory) abort();
    float *q = memory, *want = q + q_count, *tolerance = want + q_count, *got = tolerance + q_count, *k = got + q_count,
          *v = k + k_count;
    clattn_random random = {seed};
    clattn_fill_normal(&random, q, q_count, c->size);
    clattn_fill_normal(&random, k, k_count, c->size);
    clattn_fill_normal(&random, v, k_count, 1);
    for (int64_t i = 0; i < k_count; i++) v[i] += (float)c->mean;
    clattn_attention_desc d;
    clattn_attention_desc_init(&d);
    d.batch = d.query_heads = 1;
    d.query_len = c->Sq;
    d.kv_len = c->Sk;
    d.head_dim = c->D;
    const clattn_attention_io io = {.query = clattn_host(q, CLATTN_F32, 4, 1, 1, c->Sq, c->D),
                                    .key = clattn_host(k, CLATTN_F32, 4, 1, 1, c->Sk, c->D),
                                    .value = clattn_host(v, CLATTN_F32, 4, 1, 1, c->Sk, c->D),
                                    .output = clattn_host(want, CLATTN_F32, 4, 1, 1, c->Sq, c->D)};
    CHECK(clattn_reference_attention(&d, &io, tolerance) == CLATTN_OK, "%s", clattn_last_error());
    float scale = (float)(1 / sqrt((double)c->D));
    float_attention(q, k, v, got, c->Sq, c->Sk, c->D, c->D, scale * (float)(1 + fault));
    double ratio = clattn_compare(got, want, tolerance, 0, q_count).ratio;
    free(memory);
    return ratio;
}

static void test_attention_tolerance(void) {
    for (size_t i = 0; i < sizeof tolerance_cases / sizeof tolerance_cases[0]; i++) {
        const tolerance_case *c = &tolerance_cases[i];
        double honest = tolerance_ratio(c, 0, 10 + i), faulty = tolerance_ratio(c, 1e-3, 10 + i);
        clattn_test_note(
            "Sq %d Sk %d D %d size %g mean %g: float32 uses %.3g of the tolerance, a scale off by 0.1%% %.3g", c->Sq,
            c->Sk, c->D, c->size, c->mean, honest, faulty);
        CHECK(honest <= 0.7, "float32 uses %g of the tolerance (case %zu)", honest, i);
        CHECK(!c->is_typical || honest >= 0.003, "the tolerance is too wide: float32 uses %g of it (case %zu)", honest,
              i);
        CHECK(!c->is_typical || faulty > 1, "a wrong scale stays within the tolerance: %g (case %zu)", faulty, i);
    }
}

static void test_linear_tolerance(void) {
    enum { M = 4, N = 6, K = 384 };
    static float x[M * K], w[N * K], bias[N];
    double y[M * N], tolerance[M * N], worst = 0;
    clattn_random random = {77};
    clattn_fill_normal(&random, x, M * K, 1);
    clattn_fill_normal(&random, w, N * K, 1);
    clattn_fill_normal(&random, bias, N, 1);
    clattn__ref_linear(x, K, w, bias, y, N, M, N, K);
    clattn__ref_linear_tolerance(x, K, w, bias, tolerance, N, M, N, K);
    for (int i = 0; i < M * N; i++) {
        float sum = bias[i % N];
        for (int k = 0; k < K; k++) sum += x[i / N * K + k] * w[i % N * K + k];
        worst = fmax(worst, fabs(sum - y[i]) / tolerance[i]);
    }
    clattn_test_note("a float32 product of %d terms uses %.3g of the tolerance", K, worst);
    CHECK(worst <= 0.7 && worst > 0.003, "float32 uses %g of the tolerance", worst);
}

/* ---- the layer ------------------------------------------------------------------------------------------------- */

enum { LB = 2, LL = 9, LE = 48, LH = 4, LD = LE / LH };

typedef struct layer_sample {
    float x[LB * LL * LE], in_weight[3 * LE * LE], in_bias[3 * LE], out_weight[LE * LE], out_bias[LE];
    float want[LB * LL * LE], tolerance[LB * LL * LE], got[LB * LL * LE];
    float q[LB * LL * LE], k[LB * LL * LE], v[LB * LL * LE], heads[LB * LL * LE];
    clattn_mha_desc desc;
    clattn_mha_weights weights;
    clattn_mha_io io;
} layer_sample;

static layer_sample *layer_create(uint64_t seed) {
    layer_sample *s = calloc(1, sizeof *s);
    clattn_random random = {seed};
    if (!s) abort();
    clattn_fill_normal(&random, s->x, LB * LL * LE, 1);
    clattn_fill_normal(&random, s->in_weight, 3 * LE * LE, 1 / sqrt(LE));
    clattn_fill_normal(&random, s->in_bias, 3 * LE, 0.1);
    clattn_fill_normal(&random, s->out_weight, LE * LE, 1 / sqrt(LE));
    clattn_fill_normal(&random, s->out_bias, LE, 0.1);
    clattn_mha_desc_init(&s->desc);
    s->desc.batch = LB;
    s->desc.query_len = LL;
    s->desc.embed_dim = LE;
    s->desc.heads = LH;
    s->weights.in_proj_weight = clattn_host(s->in_weight, CLATTN_F32, 2, 3 * LE, LE, 0, 0);
    s->weights.in_proj_bias = clattn_host(s->in_bias, CLATTN_F32, 1, 3 * LE, 0, 0, 0);
    s->weights.out_proj_weight = clattn_host(s->out_weight, CLATTN_F32, 2, LE, LE, 0, 0);
    s->weights.out_proj_bias = clattn_host(s->out_bias, CLATTN_F32, 1, LE, 0, 0, 0);
    s->io.query = clattn_host(s->x, CLATTN_F32, 3, LB, LL, LE, 0);
    s->io.output = clattn_host(s->want, CLATTN_F32, 3, LB, LL, LE, 0);
    return s;
}

static void float_linear(const float *x, const float *w, const float *bias, float *y, int rows) {
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < LE; j++) {
            float sum = bias[j];
            for (int k = 0; k < LE; k++) sum += x[i * LE + k] * w[j * LE + k];
            y[i * LE + j] = sum;
        }
}

/* The layer in float32: projections, one head at a time, output projection. */
static void float_layer(layer_sample *s, float scale) {
    float q[LL * LD], k[LL * LD], v[LL * LD], o[LL * LD];
    float_linear(s->x, s->in_weight, s->in_bias, s->q, LB * LL);
    float_linear(s->x, s->in_weight + LE * LE, s->in_bias + LE, s->k, LB * LL);
    float_linear(s->x, s->in_weight + 2 * LE * LE, s->in_bias + 2 * LE, s->v, LB * LL);
    for (int head = 0; head < LB * LH; head++) {
        const int b = head / LH, h = head % LH;
        for (int x = 0; x < LL * LD; x++) {
            int at = (b * LL + x / LD) * LE + h * LD + x % LD;
            q[x] = s->q[at];
            k[x] = s->k[at];
            v[x] = s->v[at];
        }
        float_attention(q, k, v, o, LL, LL, LD, LD, scale);
        for (int x = 0; x < LL * LD; x++) s->heads[(b * LL + x / LD) * LE + h * LD + x % LD] = o[x];
    }
    float_linear(s->heads, s->out_weight, s->out_bias, s->got, LB * LL);
}

static void test_layer_is_the_sum_of_its_parts(void) {
    double worst = 0, faulty = 0;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        layer_sample *s = layer_create(seed);
        clattn_status status = clattn_reference_mha(&s->desc, &s->weights, &s->io, s->tolerance);
        CHECK(status == CLATTN_OK, "%s", clattn_last_error());
        float_layer(s, (float)(1 / sqrt(LD)));
        clattn_check_close(s->got, s->want, s->tolerance, 0, LB * LL * LE, "float32 layer");
        worst = fmax(worst, clattn_compare(s->got, s->want, s->tolerance, 0, LB * LL * LE).ratio);
        float_layer(s, (float)(1.001 / sqrt(LD)));
        faulty = fmax(faulty, clattn_compare(s->got, s->want, s->tolerance, 0, LB * LL * LE).ratio);
        free(s);
    }
    clattn_test_note("a float32 layer uses %.3g of the tolerance, one with a scale off by 0.1%% %.3g", worst, faulty);
    CHECK(worst > 0.003, "the tolerance is too wide: float32 uses %g of it", worst);
    CHECK(faulty > 1, "a wrong scale stays within the tolerance: %g", faulty);
}

/* Separate tensors and a packed one, self-attention and three equal inputs: all the same layer. */
static void test_layer_forms(void) {
    layer_sample *s = layer_create(9);
    float *other = calloc(LB * LL * LE, sizeof(float));
    if (!other) abort();
    CHECK(clattn_reference_mha(&s->desc, &s->weights, &s->io, NULL) == CLATTN_OK, "%s", clattn_last_error());
    clattn_mha_desc desc = s->desc;
    clattn_mha_weights w = {.out_proj_weight = s->weights.out_proj_weight, .out_proj_bias = s->weights.out_proj_bias};
    clattn_tensor *const parts[3] = {&w.q_proj_weight, &w.k_proj_weight, &w.v_proj_weight};
    clattn_tensor *const biases[3] = {&w.q_proj_bias, &w.k_proj_bias, &w.v_proj_bias};
    for (int i = 0; i < 3; i++) {
        *parts[i] = clattn_host(s->in_weight + i * LE * LE, CLATTN_F32, 2, LE, LE, 0, 0);
        *biases[i] = clattn_host(s->in_bias + i * LE, CLATTN_F32, 1, LE, 0, 0, 0);
    }
    clattn_mha_io io = s->io;
    desc.inputs = CLATTN_MHA_SEPARATE;
    desc.kv_len = LL;
    io.key = io.value = s->io.query;
    io.output = clattn_host(other, CLATTN_F32, 3, LB, LL, LE, 0);
    CHECK(clattn_reference_mha(&desc, &w, &io, NULL) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(memcmp(other, s->want, sizeof s->want) == 0, "separate weights and inputs give another result");
    free(other);
    free(s);
}

static const clattn_test tolerance_tests[] = {
    {"attention", test_attention_tolerance}, {"linear", test_linear_tolerance}, {NULL, NULL}};
static const clattn_test layer_tests[] = {
    {"sum_of_its_parts", test_layer_is_the_sum_of_its_parts}, {"forms", test_layer_forms}, {NULL, NULL}};
static const clattn_test_suite suites[] = {{"tolerance", tolerance_tests}, {"layer", layer_tests}, {NULL, NULL}};

int main(int argc, char **argv) { return clattn_test_main(suites, argc, argv); }
