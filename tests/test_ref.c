/* The scalar reference: by hand, by its properties, and against stored results of other implementations. */
#define _POSIX_C_SOURCE 200809L /* scandir */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clattn/clattn.h"
#include "golden_case.h"
#include "harness.h"

/* ---- stored cases ---------------------------------------------------------------------------------------------- */

static void check_attention_case(const golden_case *c, golden_problem *p) {
    clattn_status status = clattn_reference_attention(&p->attention, &p->attention_io, NULL);
    REQUIRE(status == CLATTN_OK, "%s", clattn_last_error());
    golden_check(c, "output", &p->attention_io.output);
    golden_check(c, "lse", &p->attention_io.logsumexp);
    golden_check(c, "qk_matmul_output", &p->attention_io.scores);
}

static void check_layer_case(const golden_case *c, golden_problem *p) {
    clattn_status status = clattn_reference_mha(&p->mha, &p->mha_weights, &p->mha_io, NULL);
    REQUIRE(status == CLATTN_OK, "%s", clattn_last_error());
    golden_check(c, "output", &p->mha_io.output);
    golden_check(c, "attn_weights", &p->mha_io.weights);
}

/* True when the case was run; else `why` has the reason. */
static bool run_case(const char *folder, char why[512]) {
    golden_case c;
    golden_problem p = {0};
    if (!CHECK(golden_load(&c, folder, why), "%s: %s", folder, why)) return true;
    bool is_layer = strcmp(golden_op(&c), "mha") == 0, is_attention = strcmp(golden_op(&c), "attention") == 0;
    bool applies = is_layer ? golden_mha(&c, &p, why) : is_attention && golden_attention(&c, &p, why);
    if (!is_layer && !is_attention) snprintf(why, 512, "op \"%s\" is not attention", golden_op(&c));
    if (applies && is_layer) check_layer_case(&c, &p);
    if (applies && is_attention) check_attention_case(&c, &p);
    golden_problem_free(&p);
    golden_free(&c);
    return applies;
}

static void run_group(const char *group) {
    const char *root = getenv("CLATTN_GOLDEN_DIR");
    char folder[1024], why[512] = "";
    struct dirent **names = NULL;
    REQUIRE(root && root[0], "CLATTN_GOLDEN_DIR is not set; it names tests/golden");
    snprintf(folder, sizeof folder, "%s/%s", root, group);
    int entries = scandir(folder, &names, NULL, alphasort), run = 0, left_out = 0;
    for (int i = 0; i < entries; i++) {
        char path[2048];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
        if (names[i]->d_name[0] != '.') {
            bool ran = run_case(path, why);
            if (ran) run++;
            if (!ran) {
                left_out++;
                clattn_test_note("not applicable: %s: %s", names[i]->d_name, why);
            }
        }
        free(names[i]);
    }
    free(names);
    CHECK(run > 0, "no case in %s", folder);
    clattn_test_note("%d cases run, %d not applicable", run, left_out);
}

static void test_onnx(void) { run_group("onnx"); }
static void test_torch_sdpa(void) { run_group("torch_sdpa"); }
static void test_torch_flex(void) { run_group("torch_flex"); }
static void test_torch_mha(void) { run_group("torch_mha"); }

/* ---- by hand --------------------------------------------------------------------------------------------------- */

/* One query, two keys, D = Dv = 1: scores 0 and log 3 give weights 1/4 and 3/4, values 4 and 8 give 7. */
typedef struct tiny {
    clattn_attention_desc desc;
    clattn_attention_io io;
    float query[1], key[2], value[2], output[1], lse[1], weights[2], scores[2], sink[1], alibi[1], mask[2];
} tiny;

static void tiny_init(tiny *t) {
    memset(t, 0, sizeof *t);
    clattn_attention_desc *d = &t->desc;
    clattn_attention_desc_init(d);
    d->batch = d->query_heads = d->query_len = d->head_dim = 1;
    d->kv_len = 2;
    d->has_scale = 1;
    d->scale = 1;
    d->logsumexp = 1;
    d->weights = CLATTN_WEIGHTS_PER_HEAD;
    t->query[0] = 1;
    t->key[1] = logf(3);
    t->value[0] = 4;
    t->value[1] = 8;
    t->io.query = clattn_host(t->query, CLATTN_F32, 4, 1, 1, 1, 1);
    t->io.key = clattn_host(t->key, CLATTN_F32, 4, 1, 1, 2, 1);
    t->io.value = clattn_host(t->value, CLATTN_F32, 4, 1, 1, 2, 1);
    t->io.output = clattn_host(t->output, CLATTN_F32, 4, 1, 1, 1, 1);
    t->io.logsumexp = clattn_host(t->lse, CLATTN_F32, 3, 1, 1, 1, 0);
    t->io.weights = clattn_host(t->weights, CLATTN_F32, 4, 1, 1, 1, 2);
}

static void tiny_check(tiny *t, const char *what, double output, double lse, double first_weight) {
    clattn_status status = clattn_reference_attention(&t->desc, &t->io, NULL);
    REQUIRE(status == CLATTN_OK, "%s: %s", what, clattn_last_error());
    CHECK(clattn_close(t->output[0], output, 2e-6), "%s: output %.9g, by hand %.9g", what, t->output[0], output);
    CHECK(clattn_close(t->lse[0], lse, 5e-7), "%s: logsumexp %.9g, by hand %.9g", what, t->lse[0], lse);
    CHECK(clattn_close(t->weights[0], first_weight, 2e-7), "%s: weight %.9g, by hand %.9g", what, t->weights[0],
          first_weight);
}

static void test_two_keys(void) {
    const double log3 = log(3), log4 = log(4);
    tiny t;
    tiny_init(&t);
    tiny_check(&t, "plain", 7, log4, 0.25);

    tiny_init(&t);
    t.desc.scale = 0;
    tiny_check(&t, "scale 0", 6, log(2), 0.5);

    tiny_init(&t);
    t.desc.scale = -1; /* scores 0 and -log 3 */
    tiny_check(&t, "scale -1", 5, log(4.0 / 3), 0.75);

    tiny_init(&t);
    t.desc.temperature = 2;
    t.key[1] = (float)(2 * log3);
    tiny_check(&t, "temperature 2", 7, log4, 0.25);

    tiny_init(&t);
    t.desc.softcap = 2;
    t.key[1] = (float)(2 * atanh(log3 / 2));
    tiny_check(&t, "softcap 2", 7, log4, 0.25);

    tiny_init(&t);
    t.desc.sinks = 1;
    t.sink[0] = logf(4); /* denominator 1 + 3 + 4 */
    t.io.sinks = clattn_host(t.sink, CLATTN_F32, 1, 1, 0, 0, 0);
    tiny_check(&t, "sink", 3.5, log(8), 0.125);
    t.desc.temperature = 0.5f; /* every exponent doubles: 1 + 9 + 16 */
    tiny_check(&t, "sink and temperature", 76.0 / 26, log(26), 1.0 / 26);

    tiny_init(&t);
    t.desc.alibi = 1; /* slope * (j - i) with i = 0: 0 and log 3 */
    t.key[1] = 0;
    t.alibi[0] = logf(3);
    t.io.alibi = clattn_host(t.alibi, CLATTN_F32, 1, 1, 0, 0, 0);
    tiny_check(&t, "alibi", 7, log4, 0.25);
    t.desc.causal = CLATTN_CAUSAL_OFFSET; /* slope * (j - i - 1): both scores fall by log 3 */
    t.desc.causal_offset = 1;
    tiny_check(&t, "alibi with offset", 7, log4 - log3, 0.25);
}

static void test_two_keys_masked(void) {
    tiny t;
    tiny_init(&t);
    t.desc.mask = CLATTN_MASK_FLOAT;
    t.io.mask = clattn_host(t.mask, CLATTN_F32, 4, 1, 1, 1, 2);
    t.mask[0] = logf(3);
    tiny_check(&t, "float mask", 6, log(6), 0.5);
    t.mask[0] = -INFINITY;
    tiny_check(&t, "-inf forbids", 8, log(3), 0);
    t.key[0] = t.value[0] = NAN;
    tiny_check(&t, "NaN in a forbidden key", 8, log(3), 0);
    t.mask[1] = -INFINITY;
    tiny_check(&t, "empty row", 0, -INFINITY, 0);

    tiny_init(&t);
    t.desc.mask = CLATTN_MASK_FLOAT;
    t.io.mask = clattn_host(t.mask, CLATTN_F32, 4, 1, 1, 1, 2);
    t.key[1] = 0;
    t.mask[0] = t.mask[1] = -1e9f;
    tiny_check(&t, "-1e9 does not forbid", 6, -1e9, 0.5); /* -1e9 + log 2, rounded to float32 */

    tiny_init(&t);
    t.value[1] = NAN;
    clattn_status status = clattn_reference_attention(&t.desc, &t.io, NULL);
    CHECK(status == CLATTN_OK && isnan(t.output[0]), "NaN in an attended value: output %g", t.output[0]);
    tiny_init(&t);
    t.query[0] = INFINITY; /* inf * 0 */
    status = clattn_reference_attention(&t.desc, &t.io, NULL);
    CHECK(status == CLATTN_OK && isnan(t.output[0]) && isnan(t.lse[0]), "inf * 0 in a score: output %g", t.output[0]);
}

static void test_two_keys_scores(void) {
    static const double want[4][2] = {{0, 4}, {0, 1.9280552}, {0.5, -INFINITY}, {1, 0}}; /* 2 tanh(4 / 2) */
    for (int mode = 0; mode < 4; mode++) {
        tiny t;
        tiny_init(&t);
        t.desc.softcap = 2;
        t.key[1] = 4;
        t.desc.mask = CLATTN_MASK_FLOAT;
        t.mask[0] = 0.5f;
        t.mask[1] = -INFINITY;
        t.io.mask = clattn_host(t.mask, CLATTN_F32, 4, 1, 1, 1, 2);
        t.desc.scores = (clattn_scores_output)(CLATTN_SCORES_RAW + mode);
        t.io.scores = clattn_host(t.scores, CLATTN_F32, 4, 1, 1, 1, 2);
        tiny_check(&t, "scores", 4, 0.5, 1);
        for (int j = 0; j < 2; j++)
            CHECK(clattn_close(t.scores[j], want[mode][j], 1e-6), "mode %d, key %d: %.9g, by hand %.9g", mode, j,
                  t.scores[j], want[mode][j]);
    }
}

/* Which keys a row sees: with query 0 all weights are equal, and with values 2^j the output times the number of keys
 * is a set of bits. Bit j of a row: key j is allowed. */
enum { ROWS = 4, KEYS = 6 };
typedef struct visible_case {
    const char *what;
    clattn_causal causal;
    int64_t offset, left, right;
    int length;          /* -1: no kv_lengths */
    const char *padding; /* "110111": 1 = attend */
    int64_t mask_rows, mask_columns;
    const char *mask; /* bool mask of that shape, row after row */
    unsigned want[ROWS];
} visible_case;

static const visible_case visible_cases[] = {
    {"everything", CLATTN_CAUSAL_NONE, 0, -1, -1, -1, NULL, 0, 0, NULL, {0x3f, 0x3f, 0x3f, 0x3f}},
    {"top left", CLATTN_CAUSAL_TOP_LEFT, 0, -1, -1, -1, NULL, 0, 0, NULL, {0x01, 0x03, 0x07, 0x0f}},
    {"bottom right", CLATTN_CAUSAL_BOTTOM_RIGHT, 0, -1, -1, -1, NULL, 0, 0, NULL, {0x07, 0x0f, 0x1f, 0x3f}},
    {"bottom right of length 3", CLATTN_CAUSAL_BOTTOM_RIGHT, 0, -1, -1, 3, NULL, 0, 0, NULL, {0x00, 0x01, 0x03, 0x07}},
    {"offset 1", CLATTN_CAUSAL_OFFSET, 1, -1, -1, -1, NULL, 0, 0, NULL, {0x03, 0x07, 0x0f, 0x1f}},
    {"offset -2", CLATTN_CAUSAL_OFFSET, -2, -1, -1, -1, NULL, 0, 0, NULL, {0x00, 0x00, 0x01, 0x03}},
    {"offset 100", CLATTN_CAUSAL_OFFSET, 100, -1, -1, -1, NULL, 0, 0, NULL, {0x3f, 0x3f, 0x3f, 0x3f}},
    {"window 1 left, 2 right", CLATTN_CAUSAL_NONE, 0, 1, 2, -1, NULL, 0, 0, NULL, {0x07, 0x0f, 0x1e, 0x3c}},
    {"window 0, 0", CLATTN_CAUSAL_NONE, 0, 0, 0, -1, NULL, 0, 0, NULL, {0x01, 0x02, 0x04, 0x08}},
    {"window left only", CLATTN_CAUSAL_NONE, 0, 1, -1, -1, NULL, 0, 0, NULL, {0x3f, 0x3f, 0x3e, 0x3c}},
    {"widest window", CLATTN_CAUSAL_NONE, 0, INT64_MAX, INT64_MAX, -1, NULL, 0, 0, NULL, {0x3f, 0x3f, 0x3f, 0x3f}},
    {"causal window at the bottom right",
     CLATTN_CAUSAL_BOTTOM_RIGHT,
     0,
     1,
     -1,
     -1,
     NULL,
     0,
     0,
     NULL,
     {0x06, 0x0c, 0x18, 0x30}},
    {"length 4", CLATTN_CAUSAL_NONE, 0, -1, -1, 4, NULL, 0, 0, NULL, {0x0f, 0x0f, 0x0f, 0x0f}},
    {"length 0", CLATTN_CAUSAL_NONE, 0, -1, -1, 0, NULL, 0, 0, NULL, {0x00, 0x00, 0x00, 0x00}},
    {"padding", CLATTN_CAUSAL_NONE, 0, -1, -1, -1, "101100", 0, 0, NULL, {0x0d, 0x0d, 0x0d, 0x0d}},
    {"padding and causal", CLATTN_CAUSAL_TOP_LEFT, 0, -1, -1, -1, "011011", 0, 0, NULL, {0x00, 0x02, 0x06, 0x06}},
    {"one mask row", CLATTN_CAUSAL_NONE, 0, -1, -1, -1, NULL, 1, 6, "010011", {0x32, 0x32, 0x32, 0x32}},
    {"one mask column", CLATTN_CAUSAL_NONE, 0, -1, -1, -1, NULL, 4, 1, "1010", {0x3f, 0x00, 0x3f, 0x00}},
    {"short mask", CLATTN_CAUSAL_NONE, 0, -1, -1, -1, NULL, 1, 3, "101", {0x05, 0x05, 0x05, 0x05}},
    {"empty mask", CLATTN_CAUSAL_NONE, 0, -1, -1, -1, NULL, 4, 0, "", {0x00, 0x00, 0x00, 0x00}},
};

static void check_visible(const visible_case *c) {
    float query[ROWS] = {0}, key[KEYS] = {0}, value[KEYS], output[ROWS], lse[ROWS];
    unsigned char padding[KEYS], mask[ROWS * KEYS];
    int32_t length[1] = {c->length};
    for (int j = 0; j < KEYS; j++) value[j] = (float)(1 << j);
    clattn_attention_desc d;
    clattn_attention_io io = {.query = clattn_host(query, CLATTN_F32, 4, 1, 1, ROWS, 1),
                              .key = clattn_host(key, CLATTN_F32, 4, 1, 1, KEYS, 1),
                              .value = clattn_host(value, CLATTN_F32, 4, 1, 1, KEYS, 1),
                              .output = clattn_host(output, CLATTN_F32, 4, 1, 1, ROWS, 1),
                              .logsumexp = clattn_host(lse, CLATTN_F32, 3, 1, 1, ROWS, 0)};
    clattn_attention_desc_init(&d);
    d.batch = d.query_heads = d.head_dim = 1;
    d.query_len = ROWS;
    d.kv_len = KEYS;
    d.logsumexp = 1;
    d.causal = c->causal;
    d.causal_offset = c->offset;
    d.window_left = c->left;
    d.window_right = c->right;
    d.kv_lengths = c->length >= 0;
    if (d.kv_lengths) io.kv_lengths = clattn_host(length, CLATTN_I32, 1, 1, 0, 0, 0);
    if (c->padding) {
        for (int j = 0; j < KEYS; j++) padding[j] = c->padding[j] == '1';
        d.padding_mask = 1;
        io.padding_mask = clattn_host(padding, CLATTN_BOOL, 2, 1, KEYS, 0, 0);
    }
    if (c->mask) {
        for (size_t k = 0; k < strlen(c->mask); k++) mask[k] = c->mask[k] == '1';
        d.mask = CLATTN_MASK_BOOL;
        const int64_t shape[4] = {1, 1, c->mask_rows, c->mask_columns};
        memcpy(d.mask_shape, shape, sizeof shape);
        io.mask = clattn_host(mask, CLATTN_BOOL, 4, 1, 1, c->mask_rows, c->mask_columns);
    }
    clattn_status status = clattn_reference_attention(&d, &io, NULL);
    REQUIRE(status == CLATTN_OK, "%s: %s", c->what, clattn_last_error());
    for (int i = 0; i < ROWS; i++) {
        int count = 0;
        for (int j = 0; j < KEYS; j++) count += c->want[i] >> j & 1;
        CHECK(fabs(output[i] * count - c->want[i]) < 1e-4, "%s: row %d sees 0x%02x, by hand 0x%02x", c->what, i,
              (unsigned)(output[i] * (float)count + 0.5f), c->want[i]);
        CHECK(clattn_close(lse[i], count ? log(count) : -INFINITY, 1e-6), "%s: row %d: logsumexp %g for %d keys",
              c->what, i, lse[i], count);
    }
}

static void test_visible_keys(void) {
    for (size_t i = 0; i < sizeof visible_cases / sizeof visible_cases[0]; i++) check_visible(&visible_cases[i]);
}

static void test_empty_sizes(void) {
    tiny t;
    tiny_init(&t);
    t.desc.kv_len = 0; /* no keys at all: zero rows */
    t.io.key.shape[2] = t.io.value.shape[2] = t.io.weights.shape[3] = 0;
    t.output[0] = NAN;
    clattn_status status = clattn_reference_attention(&t.desc, &t.io, NULL);
    CHECK(status == CLATTN_OK && t.output[0] == 0 && t.lse[0] == -INFINITY, "no keys: %s, output %g",
          clattn_last_error(), t.output[0]);
    tiny_init(&t);
    t.desc.batch = 0;
    clattn_tensor *const tensors[] = {&t.io.query,  &t.io.key,       &t.io.value,
                                      &t.io.output, &t.io.logsumexp, &t.io.weights};
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) tensors[i]->shape[0] = 0;
    t.output[0] = 123;
    status = clattn_reference_attention(&t.desc, &t.io, NULL);
    CHECK(status == CLATTN_OK && t.output[0] == 123, "no batch: %s, output %g", clattn_last_error(), t.output[0]);
}

static void test_refuses_device_memory(void) {
    tiny t;
    tiny_init(&t);
    t.io.key.mem = t.io.key.data; /* any address: it is refused before it is used */
    t.io.key.data = NULL;
    clattn_status status = clattn_reference_attention(&t.desc, &t.io, NULL);
    CHECK(status == CLATTN_INVALID_ARGUMENT && strstr(clattn_last_error(), "key"), "status %d: %s", status,
          clattn_last_error());
}

/* ---- properties ------------------------------------------------------------------------------------------------ */

enum { B = 2, HQ = 6, HKV = 3, SQ = 7, SK = 19, DIM = 5, VDIM = 4 };

/* A random problem with every weight and sum asked for. */
typedef struct sample {
    clattn_attention_desc desc;
    clattn_attention_io io;
    float query[B * HQ * SQ * DIM], key[B * HKV * SK * DIM], value[B * HKV * SK * VDIM], mask[HQ * SQ * SK];
    float output[B * HQ * SQ * VDIM], lse[B * HQ * SQ], weights[B * HQ * SQ * SK];
} sample;

static sample *sample_create(uint64_t seed) {
    sample *s = calloc(1, sizeof *s);
    clattn_random random = {seed};
    if (!s) abort();
    clattn_fill_normal(&random, s->query, B * HQ * SQ * DIM, 1);
    clattn_fill_normal(&random, s->key, B * HKV * SK * DIM, 1);
    clattn_fill_normal(&random, s->value, B * HKV * SK * VDIM, 1);
    clattn_fill_normal(&random, s->mask, HQ * SQ * SK, 1);
    clattn_attention_desc *d = &s->desc;
    clattn_attention_desc_init(d);
    d->batch = B;
    d->query_heads = HQ;
    d->kv_heads = HKV;
    d->query_len = SQ;
    d->kv_len = SK;
    d->head_dim = DIM;
    d->value_dim = VDIM;
    d->mask = CLATTN_MASK_FLOAT;
    const int64_t shape[4] = {1, HQ, SQ, SK};
    memcpy(d->mask_shape, shape, sizeof shape);
    d->weights = CLATTN_WEIGHTS_PER_HEAD;
    d->logsumexp = 1;
    s->io.query = clattn_host(s->query, CLATTN_F32, 4, B, HQ, SQ, DIM);
    s->io.key = clattn_host(s->key, CLATTN_F32, 4, B, HKV, SK, DIM);
    s->io.value = clattn_host(s->value, CLATTN_F32, 4, B, HKV, SK, VDIM);
    s->io.mask = clattn_host(s->mask, CLATTN_F32, 4, 1, HQ, SQ, SK);
    s->io.output = clattn_host(s->output, CLATTN_F32, 4, B, HQ, SQ, VDIM);
    s->io.logsumexp = clattn_host(s->lse, CLATTN_F32, 3, B, HQ, SQ, 0);
    s->io.weights = clattn_host(s->weights, CLATTN_F32, 4, B, HQ, SQ, SK);
    return s;
}

static void sample_run(sample *s) {
    clattn_status status = clattn_reference_attention(&s->desc, &s->io, NULL);
    CHECK(status == CLATTN_OK, "%s", clattn_last_error());
}

static void test_rows_sum_to_one(void) {
    sample *s = sample_create(1);
    sample_run(s);
    for (int row = 0; row < B * HQ * SQ; row++) {
        double sum = 0;
        for (int j = 0; j < SK; j++) sum += s->weights[row * SK + j];
        CHECK(fabs(sum - 1) < 1e-6, "row %d: weights add up to %.9g", row, sum);
    }
    free(s);
}

/* The output is the weights times the values of the right key/value head. */
static void test_weights_make_the_output(void) {
    sample *s = sample_create(2);
    sample_run(s);
    for (int x = 0; x < B * HQ * SQ * VDIM; x++) {
        int c = x % VDIM, row = x / VDIM, h = row / SQ % HQ, b = row / SQ / HQ, g = h / (HQ / HKV);
        double sum = 0;
        for (int j = 0; j < SK; j++)
            sum += (double)s->weights[row * SK + j] * s->value[((b * HKV + g) * SK + j) * VDIM + c];
        CHECK(fabs(sum - s->output[x]) < 1e-6, "element %d: %.9g, from the weights %.9g", x, s->output[x], sum);
    }
    free(s);
}

/* A constant added to all scores changes the logsumexp by that constant and nothing else. */
static void test_shift_invariance(void) {
    sample *plain = sample_create(3), *shifted = sample_create(3);
    for (int i = 0; i < HQ * SQ * SK; i++) shifted->mask[i] = plain->mask[i] = roundf(plain->mask[i] * 1024) / 1024;
    for (int i = 0; i < HQ * SQ * SK; i++) shifted->mask[i] += 512; /* exact in float32 */
    sample_run(plain);
    sample_run(shifted);
    clattn_check_close(shifted->output, plain->output, NULL, 1e-6, B * HQ * SQ * VDIM, "output after a shift of 512");
    for (int i = 0; i < B * HQ * SQ; i++)
        CHECK(clattn_close(shifted->lse[i], plain->lse[i] + 512.0, 5e-5), "row %d: %.9g, %.9g", i, shifted->lse[i],
              plain->lse[i]);
    free(plain);
    free(shifted);
}

/* Swapping keys together with their values and mask columns changes nothing; swapping queries swaps rows. */
static void test_permutation(void) {
    sample *plain = sample_create(4), *moved = sample_create(4);
    for (int k = 0; k < B * HKV; k++)
        for (int j = 0; j < SK; j++) {
            int to = (j * 7 + 3) % SK; /* 7 and 19 have no common factor */
            memcpy(moved->key + (k * SK + to) * DIM, plain->key + (k * SK + j) * DIM, DIM * sizeof(float));
            memcpy(moved->value + (k * SK + to) * VDIM, plain->value + (k * SK + j) * VDIM, VDIM * sizeof(float));
            for (int r = 0; r < HQ * SQ; r++) moved->mask[r * SK + to] = plain->mask[r * SK + j];
        }
    sample_run(plain);
    sample_run(moved);
    clattn_check_close(moved->output, plain->output, NULL, 1e-6, B * HQ * SQ * VDIM,
                       "output after a permutation of the keys");
    clattn_check_close(moved->lse, plain->lse, NULL, 1e-6, B * HQ * SQ, "logsumexp after a permutation of the keys");
    free(plain);
    free(moved);
}

static void test_averaged_weights(void) {
    sample *s = sample_create(5);
    sample_run(s);
    float averaged[B * SQ * SK];
    sample *t = sample_create(5);
    t->desc.weights = CLATTN_WEIGHTS_AVERAGED;
    t->io.weights = clattn_host(averaged, CLATTN_F32, 3, B, SQ, SK, 0);
    sample_run(t);
    for (int x = 0; x < B * SQ * SK; x++) {
        double sum = 0;
        for (int h = 0; h < HQ; h++) sum += s->weights[(x / SQ / SK * HQ + h) * SQ * SK + x % (SQ * SK)];
        CHECK(fabs(sum / HQ - averaged[x]) < 1e-7, "element %d: %.9g, mean %.9g", x, averaged[x], sum / HQ);
    }
    free(s);
    free(t);
}

static const clattn_test golden_tests[] = {{"onnx", test_onnx},
                                           {"torch_sdpa", test_torch_sdpa},
                                           {"torch_flex", test_torch_flex},
                                           {"torch_mha", test_torch_mha},
                                           {NULL, NULL}};
static const clattn_test hand_tests[] = {{"two_keys", test_two_keys},
                                         {"two_keys_masked", test_two_keys_masked},
                                         {"two_keys_scores", test_two_keys_scores},
                                         {"visible_keys", test_visible_keys},
                                         {"empty_sizes", test_empty_sizes},
                                         {"refuses_device_memory", test_refuses_device_memory},
                                         {NULL, NULL}};
static const clattn_test property_tests[] = {
    {"rows_sum_to_one", test_rows_sum_to_one},   {"weights_make_the_output", test_weights_make_the_output},
    {"shift_invariance", test_shift_invariance}, {"permutation", test_permutation},
    {"averaged_weights", test_averaged_weights}, {NULL, NULL}};
static const clattn_test_suite suites[] = {
    {"golden", golden_tests}, {"by_hand", hand_tests}, {"properties", property_tests}, {NULL, NULL}};

int main(int argc, char **argv) { return clattn_test_main(suites, argc, argv); }
