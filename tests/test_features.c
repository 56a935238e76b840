/* Dropout, score kinds, prefixes, documents and packed sequences: what each means, on every kernel that claims it. The
 * random combinations of tests/test_random.c compare kernels with the reference; here the reference itself is held
 * against plain formulas and against problems that must come out alike. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../cl/shared/philox.h"
#include "clattn/clattn.h"
#include "harness.h"
#include "kernels/impl.h"

enum { B = 2, H = 4, G = 2, SQ = 37, SK = 70, D = 24, MOST = B * H * SQ * SK };

static clattn_context *context;

/* ---- one problem ------------------------------------------------------------------------------------------------ */

typedef struct problem {
    clattn_attention_desc desc;
    clattn_attention_io io;
    float query[B * H * SQ * D], key[B * G * SK * D], value[B * G * SK * D];
    float weight[D], bias[D];
    int32_t prefix[B], query_documents[B * SQ], key_documents[B * SK], query_starts[B + 1], key_starts[B + 1];
    float output[B * H * SQ * D], lse[B * H * SQ], weights[MOST], scores[MOST];
    float want[B * H * SQ * D], want_lse[B * H * SQ], tolerance[B * H * SQ * D];
} problem;

static void problem_init(problem *p, uint64_t seed) {
    clattn_random random = {seed};
    memset(p, 0, sizeof *p);
    clattn_attention_desc_init(&p->desc);
    p->desc.batch = B;
    p->desc.query_heads = H;
    p->desc.kv_heads = G;
    p->desc.query_len = SQ;
    p->desc.kv_len = SK;
    p->desc.head_dim = D;
    clattn_fill_normal(&random, p->query, B * H * SQ * D, 1);
    clattn_fill_normal(&random, p->key, B * G * SK * D, 1);
    clattn_fill_normal(&random, p->value, B * G * SK * D, 1);
    clattn_fill_normal(&random, p->weight, D, 0.5);
    clattn_fill_normal(&random, p->bias, D, 0.5);
    p->io.query = clattn_host(p->query, CLATTN_F32, 4, B, H, SQ, D);
    p->io.key = clattn_host(p->key, CLATTN_F32, 4, B, G, SK, D);
    p->io.value = clattn_host(p->value, CLATTN_F32, 4, B, G, SK, D);
    p->io.output = clattn_host(p->output, CLATTN_F32, 4, B, H, SQ, D);
}

static void want_lse(problem *p) {
    p->desc.logsumexp = 1;
    p->io.logsumexp = clattn_host(p->lse, CLATTN_F32, 3, B, H, SQ, 0);
}

static void with_score(problem *p, clattn_score score, bool weight, bool bias) {
    p->desc.score = score;
    p->desc.score_weight = weight;
    p->desc.score_bias = bias;
    if (weight) p->io.score_weight = clattn_host(p->weight, CLATTN_F32, 1, D, 0, 0, 0);
    if (bias) p->io.score_bias = clattn_host(p->bias, CLATTN_F32, 1, D, 0, 0, 0);
}

static void with_prefix(problem *p, int32_t first, int32_t second) {
    p->desc.prefix = 1;
    p->desc.causal = CLATTN_CAUSAL_TOP_LEFT;
    p->prefix[0] = first;
    p->prefix[1] = second;
    p->io.prefix_lengths = clattn_host(p->prefix, CLATTN_I32, 1, B, 0, 0, 0);
}

/* Three documents; the last query rows belong to one without keys. */
static void with_documents(problem *p) {
    p->desc.documents = 1;
    for (int i = 0; i < B * SQ; i++) p->query_documents[i] = i % SQ > SQ - 4 ? 99 : i % SQ * 3 / SQ;
    for (int j = 0; j < B * SK; j++) p->key_documents[j] = j % SK * 3 / SK;
    p->io.query_documents = clattn_host(p->query_documents, CLATTN_I32, 2, B, SQ, 0, 0);
    p->io.key_documents = clattn_host(p->key_documents, CLATTN_I32, 2, B, SK, 0, 0);
}

/* The memory of (B, ...) seen as packed rows: the second sequence begins right behind the shorter first one. */
static void with_varlen(problem *p, int queries0, int queries1, int keys0, int keys1) {
    p->desc.varlen = 1;
    p->query_starts[1] = queries0;
    p->query_starts[2] = queries0 + queries1;
    p->key_starts[1] = keys0;
    p->key_starts[2] = keys0 + keys1;
    p->io.query_starts = clattn_host(p->query_starts, CLATTN_I32, 1, B + 1, 0, 0, 0);
    p->io.key_starts = clattn_host(p->key_starts, CLATTN_I32, 1, B + 1, 0, 0, 0);
    p->io.query = clattn_host(p->query, CLATTN_F32, 3, B * SQ, H, D, 0);
    p->io.key = clattn_host(p->key, CLATTN_F32, 3, B * SK, G, D, 0);
    p->io.value = clattn_host(p->value, CLATTN_F32, 3, B * SK, G, D, 0);
    p->io.output = clattn_host(p->output, CLATTN_F32, 3, B * SQ, H, D, 0);
    if (p->desc.logsumexp) p->io.logsumexp = clattn_host(p->lse, CLATTN_F32, 2, H, B * SQ, 0, 0);
}

/* Rows that nobody writes keep the NaN that is everywhere at first. */
static void poison_outputs(problem *p) {
    memset(p->output, 0xff, sizeof p->output);
    memset(p->lse, 0xff, sizeof p->lse);
    memset(p->tolerance, 0, sizeof p->tolerance);
}

static bool reference(problem *p) {
    poison_outputs(p);
    if (!CHECK(clattn_reference_attention(&p->desc, &p->io, p->tolerance) == CLATTN_OK, "%s", clattn_last_error()))
        return false;
    memcpy(p->want, p->output, sizeof p->want);
    memcpy(p->want_lse, p->lse, sizeof p->want_lse);
    return true;
}

static const char *const kernels[] = {"attn_cpu", "attn_tiled", "attn_naive", "attn_host"};

static clattn_status run_on(problem *p, const char *kernel) {
    clattn_attention *plan = NULL;
    p->desc.kernel = kernel;
    clattn_status status = clattn_attention_create(&plan, context, &p->desc);
    poison_outputs(p);
    if (status == CLATTN_OK) status = clattn_attention_run(plan, &p->io);
    clattn_attention_destroy(&plan);
    p->desc.kernel = NULL;
    return status;
}

/* Every kernel that serves the description against the reference; attn_naive and attn_host must. */
static void check_kernels(problem *p, const char *what) {
    float tolerance[B * H * SQ * D];
    int served = 0;
    if (!reference(p)) return;
    memcpy(tolerance, p->tolerance, sizeof tolerance);
    for (size_t k = 0; k < sizeof kernels / sizeof kernels[0]; k++) {
        char name[160];
        const clattn_status status = run_on(p, kernels[k]);
        if (status == CLATTN_UNSUPPORTED && k < 2) continue;
        snprintf(name, sizeof name, "%s on %s", what, kernels[k]);
        if (!CHECK(status == CLATTN_OK, "%s: %s", name, clattn_last_error())) continue;
        clattn_check_close(p->output, p->want, tolerance, 0, B * H * SQ * D, name);
        if (p->desc.logsumexp) clattn_check_close(p->lse, p->want_lse, NULL, 2e-5, B * H * SQ, name);
        served++;
    }
    clattn_test_note("%s: %d kernels", what, served);
}

/* ---- dropout ---------------------------------------------------------------------------------------------------- */

/* The published vectors: tests/kat_vectors of the authors' Random123, philox4x32 with 10 rounds. */
static void philox_known_answers(void) {
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } rows[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        clattn_philox counter;
        memcpy(counter.word, rows[i].counter, sizeof counter.word);
        const clattn_philox got = clattn_philox4x32(counter, rows[i].key[0], rows[i].key[1]);
        for (int k = 0; k < 4; k++)
            CHECK(got.word[k] == rows[i].want[k], "row %d, word %d: %08x", (int)i, k, (unsigned)got.word[k]);
    }
}

/* With a scale of 0 all weights are 1 / SK, so that with V = identity columns the output shows which keys were kept. */
static void dropout_mask(void) {
    static problem p;
    const float drop = 0.3f;
    problem_init(&p, 1);
    p.desc.has_scale = 1;
    p.desc.scale = 0;
    p.desc.dropout = drop;
    p.desc.dropout_seed = 0x123456789abcdefu;
    long kept_of_all = 0, seen = 0;
    for (int first = 0; first < SK; first += D) {
        memset(p.value, 0, sizeof p.value);
        for (int bg = 0; bg < B * G; bg++)
            for (int d = 0; d < D && first + d < SK; d++) p.value[(bg * SK + first + d) * D + d] = 1;
        for (size_t k = 0; k <= sizeof kernels / sizeof kernels[0]; k++) {
            const bool is_reference = k == sizeof kernels / sizeof kernels[0];
            const clattn_status status =
                is_reference ? (reference(&p) ? CLATTN_OK : CLATTN_OUT_OF_MEMORY) : run_on(&p, kernels[k]);
            if (status == CLATTN_UNSUPPORTED && k < 2) continue;
            REQUIRE(status == CLATTN_OK, "%s", clattn_last_error());
            long wrong = 0;
            for (int at = 0; at < B * H * SQ * D; at++) {
                const int d = at % D, i = at / D % SQ, h = at / D / SQ % H, b = at / D / SQ / H, j = first + d;
                const bool kept =
                    clattn_dropout_keeps(clattn_dropout_threshold(drop), 0x89abcdef, 0x1234567, b, h, i, j);
                const double want = kept && j < SK ? 1 / (1 - (double)drop) / SK : 0;
                wrong += !(fabs((double)p.output[at] - want) <= 1e-6 * want);
                kept_of_all += is_reference && j < SK && kept;
                seen += is_reference && j < SK;
            }
            CHECK(wrong == 0, "%s, keys from %d: %ld values are wrong", is_reference ? "reference" : kernels[k], first,
                  wrong);
        }
    }
    const double share = (double)kept_of_all / (double)seen, sigma = sqrt(0.3 * 0.7 / (double)seen);
    CHECK(fabs(share - 0.7) < 4 * sigma, "%.5f of %ld weights were kept, not 0.7", share, seen);
}

/* Other seeds, batches, heads, rows and keys draw on their own: no two of those masks may agree. */
static void dropout_keys(void) {
    static const struct {
        uint32_t low, high;
        int b, h, i, j;
    } from[] = {{7, 9, 0, 0, 0, 0}, {8, 9, 0, 0, 0, 0}, {7, 8, 0, 0, 0, 0},  {7, 9, 1, 0, 0, 0},
                {7, 9, 0, 1, 0, 0}, {7, 9, 0, 0, 1, 0}, {7, 9, 0, 0, 0, 100}};
    uint64_t drawn[7] = {0};
    for (int k = 0; k < 7; k++)
        for (int bit = 0; bit < 64; bit++)
            drawn[k] |= (uint64_t)clattn_dropout_keeps(0x80000000u, from[k].low, from[k].high, from[k].b, from[k].h,
                                                       from[k].i, from[k].j + bit)
                        << bit;
    for (int k = 0; k < 7; k++)
        for (int other = 0; other < k; other++)
            CHECK(drawn[k] != drawn[other], "draws %d and %d are the same", k, other);
    CHECK(clattn_dropout_threshold(0) == 0 && clattn_dropout_threshold(0.5f) == 0x80000000u, "thresholds");
}

static void dropout(void) {
    static problem p;
    problem_init(&p, 2);
    want_lse(&p);
    p.desc.dropout = 0.5f;
    p.desc.dropout_seed = 42;
    check_kernels(&p, "dropout");
    p.desc.causal = CLATTN_CAUSAL_BOTTOM_RIGHT;
    with_documents(&p);
    check_kernels(&p, "dropout, causal, documents");

    /* weights on request are those before dropout */
    problem_init(&p, 2);
    p.desc.weights = CLATTN_WEIGHTS_PER_HEAD;
    p.io.weights = clattn_host(p.weights, CLATTN_F32, 4, B, H, SQ, SK);
    p.io.scores = clattn_host(p.scores, CLATTN_F32, 4, B, H, SQ, SK);
    p.desc.scores = CLATTN_SCORES_SOFTMAX;
    p.desc.dropout = 0.9f;
    CHECK(run_on(&p, "attn_naive") == CLATTN_OK, "%s", clattn_last_error());
    for (int row = 0; row < B * H * SQ; row++) {
        double sum = 0, sum_of_scores = 0;
        for (int j = 0; j < SK; j++) {
            sum += (double)p.weights[row * SK + j];
            sum_of_scores += (double)p.scores[row * SK + j];
        }
        REQUIRE(fabs(sum - 1) < 1e-5 && fabs(sum_of_scores - 1) < 1e-5, "row %d: weights add up to %g", row, sum);
    }
}

/* ---- scores ----------------------------------------------------------------------------------------------------- */

static double plain_score(const problem *p, clattn_score score, const float *q, const float *k) {
    double sum = 0;
    for (int d = 0; d < D; d++) {
        const double w = p->desc.score_weight ? (double)p->weight[d] : 1, x = (double)q[d], y = (double)k[d];
        const double together = x + y + (p->desc.score_bias ? (double)p->bias[d] : 0);
        if (score == CLATTN_SCORE_GAUSSIAN) sum -= 0.5 * pow((x - y) * w, 2);
        if (score == CLATTN_SCORE_ADDITIVE) sum += w * tanh(together);
        if (score == CLATTN_SCORE_ADDITIVE_LINEAR) sum += w * together;
    }
    return sum;
}

static void scores(void) {
    static const struct {
        clattn_score score;
        bool weight, bias;
        const char *name;
    } kinds[] = {{CLATTN_SCORE_GAUSSIAN, false, false, "Gaussian"},
                 {CLATTN_SCORE_GAUSSIAN, true, false, "Gaussian with widths"},
                 {CLATTN_SCORE_ADDITIVE, true, false, "additive"},
                 {CLATTN_SCORE_ADDITIVE, true, true, "additive with bias"},
                 {CLATTN_SCORE_ADDITIVE_LINEAR, true, true, "linear"}};
    for (size_t n = 0; n < sizeof kinds / sizeof kinds[0]; n++) {
        static problem p;
        problem_init(&p, 10 + n);
        with_score(&p, kinds[n].score, kinds[n].weight, kinds[n].bias);
        p.desc.scores = CLATTN_SCORES_RAW;
        p.io.scores = clattn_host(p.scores, CLATTN_F32, 4, B, H, SQ, SK);
        for (int scaled = 0; scaled < 2; scaled++) { /* the default scale of these kinds is 1 */
            p.desc.has_scale = scaled;
            p.desc.scale = scaled ? -0.25f : 77;
            REQUIRE(reference(&p), "%s", kinds[n].name);
            for (int at = 0; at < MOST; at++) {
                const int j = at % SK, i = at / SK % SQ, h = at / SK / SQ % H, b = at / SK / SQ / H;
                const float *q = p.query + ((b * H + h) * SQ + i) * D, *k = p.key + ((b * G + h / 2) * SK + j) * D;
                const double want = plain_score(&p, kinds[n].score, q, k) * (scaled ? -0.25 : 1);
                REQUIRE(fabs((double)p.scores[at] - want) <= 1e-6 * (1 + fabs(want)), "%s: score %d is %g, not %g",
                        kinds[n].name, at, (double)p.scores[at], want);
            }
            check_kernels(&p, kinds[n].name);
        }
        p.desc.causal = CLATTN_CAUSAL_TOP_LEFT;
        p.desc.softcap = 2;
        p.desc.temperature = 0.5f;
        check_kernels(&p, kinds[n].name);
    }
}

/* ---- prefixes, documents, packed sequences ---------------------------------------------------------------------- */

/* A bool mask that says the same must give the same. */
static void as_a_mask(problem *p, const char *what, bool (*allowed)(const problem *p, int b, int i, int j)) {
    static uint8_t mask[B * SQ * SK];
    float with_feature[B * H * SQ * D];
    clattn_attention_desc d = p->desc;
    clattn_attention_io io = p->io;
    REQUIRE(reference(p), "%s", what);
    memcpy(with_feature, p->want, sizeof with_feature);
    for (int b = 0; b < B; b++)
        for (int i = 0; i < SQ; i++)
            for (int j = 0; j < SK; j++) mask[(b * SQ + i) * SK + j] = allowed(p, b, i, j);
    p->desc.causal = CLATTN_CAUSAL_NONE;
    p->desc.window_left = p->desc.window_right = -1;
    p->desc.prefix = p->desc.documents = 0;
    p->desc.mask = CLATTN_MASK_BOOL;
    p->desc.mask_shape[0] = B;
    p->desc.mask_shape[1] = 1;
    p->desc.mask_shape[2] = SQ;
    p->desc.mask_shape[3] = SK;
    p->io.mask = clattn_host(mask, CLATTN_BOOL, 4, B, 1, SQ, SK);
    memset(&p->io.prefix_lengths, 0, sizeof(clattn_tensor));
    memset(&p->io.query_documents, 0, sizeof(clattn_tensor));
    memset(&p->io.key_documents, 0, sizeof(clattn_tensor));
    if (reference(p)) CHECK(memcmp(with_feature, p->want, sizeof with_feature) == 0, "%s differs from its mask", what);
    p->desc = d;
    p->io = io;
}

static bool prefix_allows(const problem *p, int b, int i, int j) { return j <= i || j < p->prefix[b]; }
static bool window_prefix_allows(const problem *p, int b, int i, int j) {
    return prefix_allows(p, b, i, j) && j >= i - 9 && j <= i + 20;
}
static bool documents_allow(const problem *p, int b, int i, int j) {
    return p->query_documents[b * SQ + i] == p->key_documents[b * SK + j];
}

static void prefixes(void) {
    static problem p;
    problem_init(&p, 20);
    want_lse(&p);
    with_prefix(&p, 50, 0);
    as_a_mask(&p, "prefix", prefix_allows);
    check_kernels(&p, "prefix 50 and 0");
    with_prefix(&p, 3, SK);
    check_kernels(&p, "prefix 3 and all");
    p.desc.window_left = 9;
    p.desc.window_right = 20;
    with_prefix(&p, 41, 12);
    as_a_mask(&p, "prefix in a window", window_prefix_allows);
    check_kernels(&p, "prefix in a window");
    p.desc.causal = CLATTN_CAUSAL_OFFSET;
    p.desc.causal_offset = -11;
    check_kernels(&p, "prefix, offset -11, window");
}

static void documents(void) {
    static problem p;
    problem_init(&p, 30);
    want_lse(&p);
    with_documents(&p);
    as_a_mask(&p, "documents", documents_allow);
    check_kernels(&p, "documents");
    with_prefix(&p, 30, 60);
    check_kernels(&p, "documents, prefix");
    /* values of other documents are never read into a result */
    for (int j = 0; j < SK; j++)
        if (p.key_documents[j] == 1) p.value[j * D] = NAN;
    check_kernels(&p, "documents, NaN in one");
    /* numbers that no row has: all rows are empty */
    for (int j = 0; j < B * SK; j++) p.key_documents[j] = -5;
    check_kernels(&p, "documents without a match");
    for (int i = 0; i < B * H * SQ * D; i++)
        REQUIRE(p.output[i] == 0, "element %d of an empty row is %g", i, (double)p.output[i]);
}

/* Each sequence alone, as a problem of one batch entry, must give the same bits in the reference. */
static void packed_is_each_alone(problem *p) {
    static float alone[SQ * H * D];
    float packed[B * H * SQ * D];
    REQUIRE(reference(p), "packed");
    memcpy(packed, p->want, sizeof packed);
    for (int b = 0; b < B; b++) {
        const int64_t q0 = p->query_starts[b], k0 = p->key_starts[b], n = p->query_starts[b + 1] - q0,
                      m = p->key_starts[b + 1] - k0;
        clattn_attention_desc d = p->desc;
        d.varlen = d.logsumexp = 0;
        d.batch = 1;
        d.query_len = n;
        d.kv_len = m;
        clattn_attention_io io = {.query = clattn_host(p->query + q0 * H * D, CLATTN_F32, 4, 1, H, n, D),
                                  .key = clattn_host(p->key + k0 * G * D, CLATTN_F32, 4, 1, G, m, D),
                                  .value = clattn_host(p->value + k0 * G * D, CLATTN_F32, 4, 1, G, m, D),
                                  .output = clattn_host(alone, CLATTN_F32, 4, 1, H, n, D)};
        clattn_tensor *const tensors[] = {&io.query, &io.key, &io.value, &io.output};
        for (int t = 0; t < 4; t++) { /* rows of all heads side by side */
            const int64_t heads = tensors[t]->shape[1];
            const int64_t stride[4] = {tensors[t]->shape[2] * heads * D, D, heads * D, 1};
            memcpy(tensors[t]->stride, stride, sizeof stride);
        }
        if (n == 0) continue;
        REQUIRE(clattn_reference_attention(&d, &io, NULL) == CLATTN_OK, "%s", clattn_last_error());
        CHECK(memcmp(alone, packed + q0 * H * D, sizeof(float) * (size_t)(n * H * D)) == 0, "sequence %d differs", b);
    }
}

static void packed_sequences(void) {
    static const int lengths[][4] = {{SQ, 5, SK, 9}, {1, SQ, 1, SK}, {0, 20, 33, 0}, {12, 0, 3, 40}, {30, 31, 4, 5}};
    static const clattn_causal causal[] = {CLATTN_CAUSAL_NONE, CLATTN_CAUSAL_TOP_LEFT, CLATTN_CAUSAL_BOTTOM_RIGHT};
    for (int n = 0; n < 5; n++)
        for (int c = 0; c < 3; c++) {
            static problem p;
            char what[64];
            problem_init(&p, 40 + (uint64_t)n);
            if (n % 2) want_lse(&p);
            p.desc.causal = causal[c];
            if (n == 3) p.desc.window_left = 6;
            with_varlen(&p, lengths[n][0], lengths[n][1], lengths[n][2], lengths[n][3]);
            packed_is_each_alone(&p);
            snprintf(what, sizeof what, "packed %d+%d x %d+%d, causal %d", lengths[n][0], lengths[n][1], lengths[n][2],
                     lengths[n][3], (int)causal[c]);
            check_kernels(&p, what);
            for (int64_t at = (int64_t)p.query_starts[B] * H * D; at < B * SQ * H * D; at++)
                REQUIRE(isnan(p.output[at]), "%s: a row behind the last sequence was written", what);
        }
}

/* Everything at once, in sequences. */
static void combinations(void) {
    static problem p;
    problem_init(&p, 60);
    want_lse(&p);
    with_documents(&p);
    with_prefix(&p, 10, 3);
    with_varlen(&p, 30, SQ, SK, 17);
    p.desc.causal = CLATTN_CAUSAL_BOTTOM_RIGHT;
    p.desc.dropout = 0.2f;
    p.desc.dropout_seed = 5;
    p.desc.softcap = 3;
    check_kernels(&p, "packed, documents, prefix, dropout, softcap");
    with_score(&p, CLATTN_SCORE_ADDITIVE, true, true);
    check_kernels(&p, "the same with additive scores");
}

/* ---- bad input -------------------------------------------------------------------------------------------------- */

static void expect_desc(problem *p, const char *says) {
    clattn_attention *plan = (clattn_attention *)p;
    const clattn_status status = clattn_attention_create(&plan, context, &p->desc);
    CHECK(status == CLATTN_INVALID_ARGUMENT && !plan, "%s: %s", says, clattn_status_name(status));
    CHECK(strstr(clattn_last_error(), says), "wanted '%s', the message was: %s", says, clattn_last_error());
}

#define BAD_DESC(change, says)                                                                                         \
    do {                                                                                                               \
        problem_init(&p, 1);                                                                                           \
        change;                                                                                                        \
        expect_desc(&p, says);                                                                                         \
    } while (0)

static void bad_descriptions(void) {
    static problem p;
    BAD_DESC(p.desc.dropout = 1, "dropout is 1; it must be at least 0 and below 1");
    BAD_DESC(p.desc.dropout = -0.1f, "dropout is -0.1");
    BAD_DESC(p.desc.dropout = NAN, "dropout is");
    BAD_DESC(p.desc.dropout = INFINITY, "dropout is inf");
    BAD_DESC(p.desc.score = (clattn_score)4, "score is 4; it must be in 0..3");
    BAD_DESC(p.desc.score = (clattn_score)-1, "score is -1");
    BAD_DESC(p.desc.score = CLATTN_SCORE_ADDITIVE, "score_weight is 0; additive scores (score 2) need it");
    BAD_DESC(p.desc.score = CLATTN_SCORE_ADDITIVE_LINEAR, "score_weight is 0; additive scores (score 3) need it");
    BAD_DESC(p.desc.score_weight = 1, "score_weight is 1; the dot product has none");
    BAD_DESC((p.desc.score = CLATTN_SCORE_GAUSSIAN, p.desc.score_bias = 1), "score_bias is 1; only additive scores");
    BAD_DESC(p.desc.prefix = 1, "prefix is 1, but causal is off");
    BAD_DESC((p.desc.align_end = 1, p.desc.causal = CLATTN_CAUSAL_TOP_LEFT), "align_end is 1, but causal is 1");
    BAD_DESC((p.desc.align_end = 1, p.desc.causal = CLATTN_CAUSAL_OFFSET), "align_end is 1, but causal is 3");
}

/* One changed tensor, by the device and by the reference. */
static void expect_io(problem *p, const char *says) {
    clattn_attention *plan = NULL;
    REQUIRE(clattn_attention_create(&plan, context, &p->desc) == CLATTN_OK, "%s", clattn_last_error());
    for (int by_reference = 0; by_reference < 2; by_reference++) {
        const clattn_status status =
            by_reference ? clattn_reference_attention(&p->desc, &p->io, NULL) : clattn_attention_run(plan, &p->io);
        CHECK(status == CLATTN_INVALID_ARGUMENT || status == CLATTN_INVALID_SHAPE, "%s: %s", says,
              clattn_status_name(status));
        CHECK(strstr(clattn_last_error(), says), "wanted '%s', the message was: %s", says, clattn_last_error());
    }
    clattn_attention_destroy(&plan);
}

#define BAD_IO(prepare, change, says)                                                                                  \
    do {                                                                                                               \
        problem_init(&p, 1);                                                                                           \
        prepare;                                                                                                       \
        change;                                                                                                        \
        expect_io(&p, says);                                                                                           \
    } while (0)
#define ADDITIVE with_score(&p, CLATTN_SCORE_ADDITIVE, true, true)
#define PACKED with_varlen(&p, 20, 30, 40, 50)

static void bad_tensors(void) {
    static problem p;
    BAD_IO(ADDITIVE, memset(&p.io.score_weight, 0, sizeof p.io.score_weight), "score_weight is missing");
    BAD_IO(ADDITIVE, p.io.score_bias.shape[0] = D + 1, "score_bias has shape (25); the description says (24)");
    BAD_IO((void)0, p.io.score_weight = clattn_host(p.weight, CLATTN_F32, 1, D, 0, 0, 0), "score_weight is given, but");
    BAD_IO(with_prefix(&p, 1, 1), p.prefix[1] = -1, "prefix_lengths[1] is -1; it must be in 0..kv_len (70)");
    BAD_IO(with_prefix(&p, 1, 1), p.prefix[0] = SK + 1, "prefix_lengths[0] is 71");
    BAD_IO(with_prefix(&p, 1, 1), p.io.prefix_lengths.dtype = CLATTN_I64, "prefix_lengths has element type int64");
    BAD_IO(with_documents(&p), p.io.query_documents.shape[1] = SK, "query_documents has shape (2, 70)");
    BAD_IO(with_documents(&p), memset(&p.io.key_documents, 0, sizeof p.io.key_documents), "key_documents is missing");
    BAD_IO(with_documents(&p), p.io.key_documents.dtype = CLATTN_F32, "key_documents has element type float32");
    BAD_IO(PACKED, p.query_starts[0] = 1, "query_starts[0] is 1; the first sequence must begin at 0");
    BAD_IO(PACKED, p.query_starts[1] = -3, "query_starts[1] is -3, below the 0 before it; it must not decrease");
    BAD_IO(PACKED, p.query_starts[2] = 19, "query_starts[2] is 19, below the 20 before it");
    BAD_IO(PACKED, p.query_starts[2] = 58, "query_starts says that sequence 1 has 38 rows; the most is 37");
    BAD_IO(PACKED, p.key_starts[1] = SK + 1, "key_starts says that sequence 0 has 71 rows; the most is 70");
    BAD_IO(PACKED, p.io.query.shape[0] = p.io.output.shape[0] = 49,
           "query_starts[2] is 50; the packed tensor has 49 rows");
    BAD_IO(PACKED, p.io.value.shape[0] = 139, "value has shape (139, 2, 24); the description says (140, 2, 24)");
    BAD_IO(PACKED, p.io.output.shape[0] = 73, "output has shape (73, 4, 24); the description says (74, 4, 24)");
    BAD_IO(PACKED, p.io.query.rank = 4, "query has rank 4; it must have rank 3");
    BAD_IO(PACKED, p.io.query_starts.shape[0] = B, "query_starts has shape (2); the description says (3)");
    BAD_IO(PACKED, memset(&p.io.key_starts, 0, sizeof p.io.key_starts), "key_starts is missing");
}

static void empty_batches(void) {
    static problem p;
    problem_init(&p, 1);
    with_varlen(&p, 0, 0, 0, 0);
    check_kernels(&p, "packed, no rows");
    p.desc.batch = 0;
    p.io.query_starts.shape[0] = p.io.key_starts.shape[0] = 1;
    check_kernels(&p, "packed, no sequence");
}

static const clattn_test tests[] = {{"philox_known_answers", philox_known_answers},
                                    {"dropout_keys", dropout_keys},
                                    {"dropout_mask", dropout_mask},
                                    {"dropout", dropout},
                                    {"scores", scores},
                                    {"prefixes", prefixes},
                                    {"documents", documents},
                                    {"packed_sequences", packed_sequences},
                                    {"combinations", combinations},
                                    {"bad_descriptions", bad_descriptions},
                                    {"bad_tensors", bad_tensors},
                                    {"empty_batches", empty_batches},
                                    {NULL, NULL}};
static const clattn_test_suite suites[] = {{"features", tests}, {NULL, NULL}};

int main(int argc, char **argv) {
    return clattn_test_main_with(&context, CLATTN_VERIFY_ONCE, suites, argc, argv);
}
