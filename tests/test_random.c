/* Features drawn together at random: every kernel that claims a combination against the scalar reference, and every
 * claim in the feature table backed by at least one combination that came out right.
 *
 * A class is a set of features, head sizes and an element type: it costs one compilation per kernel. Each class gets
 * many problems: sizes, heads, layouts, offsets, lengths, mask shapes, data. A failure prints CLASS:CASE;
 * CLATTN_RANDOM=CLASS:CASE replays it, and CLATTN_TEST_FULL=1 draws four times as many classes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/check.h"
#include "clattn/clattn.h"
#include "harness.h"
#include "plan/plan.h"
#include "random_data.h"

#ifdef __SANITIZE_ADDRESS__
/* Reference and drivers' compilers are slow there. The release tree draws all, and proves the claims. */
enum { CASES = 29, CLASS_STEP = 3 };
#else
enum { CASES = 116, CLASS_STEP = 1 };
#endif
enum { CLASSES = 18, HOST_TURN = 8, MOST_KERNELS = 8, MOST_FEATURES = 32, MOST_INPUTS = 24 };

static clattn_context *context;
static long right[MOST_KERNELS][MOST_FEATURES]; /* cases that came out right, per kernel and feature */
static long ran[MOST_KERNELS];

typedef struct stage {
    clattn_random random;
    clattn_attention_desc desc;
    clattn_attention_io io;
    void *inputs[MOST_INPUTS];
    int input_count;
    float *want_lse, *want_weights, *want_scores, *tolerance;
    void *want;
    size_t out_bytes, lse_bytes, weights_bytes;
    int64_t few, many[2], group; /* of the class: tiles are chosen by query rows, and each choice costs a compilation */
    char what[32];
} stage;

static bool chance(stage *s, double p) { return draw_chance(&s->random, p); }
static int64_t pick(stage *s, int64_t low, int64_t high) { return draw_between(&s->random, low, high); }

static void *keep(stage *s, void *memory) { return s->inputs[s->input_count++] = memory; }

/* ---- one class: what shapes the binary -------------------------------------------------------------------------- */

/* Outputs and scores that few kernels serve: too many of them would leave the others idle. */
static void draw_rare(stage *s) {
    clattn_attention_desc *d = &s->desc;
    if (chance(s, 0.3)) d->weights = chance(s, 0.5) ? CLATTN_WEIGHTS_PER_HEAD : CLATTN_WEIGHTS_AVERAGED;
    if (chance(s, 0.2)) d->scores = (clattn_scores_output)pick(s, 1, 4);
    if (chance(s, 0.3)) d->score = (clattn_score)pick(s, 1, 3);
}

/* The first classes take turns in having one feature for certain, so that each is drawn at least once. */
enum { TURNS = 18 };
static void take_turn(clattn_attention_desc *d, int number) {
    if (number < 8) d->dropout = 0, d->prefix = d->documents = d->varlen = 0; /* for attn_decode too */
    switch (number) {
    case 0:
        d->sinks = 1;
        break;
    case 1:
        d->window_left = 1;
        break;
    case 2:
        d->mask = CLATTN_MASK_BOOL;
        break;
    case 3:
        d->mask = CLATTN_MASK_FLOAT;
        break;
    case 4:
        d->padding_mask = 1;
        break;
    case 5:
        d->kv_lengths = d->causal = CLATTN_CAUSAL_BOTTOM_RIGHT;
        break;
    case 6:
        d->softcap = 1;
        break;
    case 7:
        d->alibi = d->logsumexp = 1;
        break;
    case 8:
        d->dropout = 0.3f;
        break;
    case 9:
        d->prefix = d->causal = CLATTN_CAUSAL_TOP_LEFT;
        break;
    case 10:
        d->documents = 1;
        break;
    case 11:
        d->varlen = 1;
        break;
    case 12:
        d->weights = CLATTN_WEIGHTS_PER_HEAD, d->varlen = 1;
        break;
    case 13:
        d->weights = CLATTN_WEIGHTS_AVERAGED;
        break;
    case 14:
        d->scores = CLATTN_SCORES_MASKED, d->varlen = 1;
        break;
    case 15:
        d->score = CLATTN_SCORE_GAUSSIAN;
        break;
    case 16:
        d->score = CLATTN_SCORE_ADDITIVE;
        break;
    case 17:
        d->score = CLATTN_SCORE_ADDITIVE_LINEAR;
        break;
    default:
        break;
    }
}

static void draw_class(stage *s, int number) {
    static const int dims[] = {8, 16, 24, 33, 64, 5, 80};
    clattn_attention_desc *d = &s->desc;
    s->random.state = 1000003u * (uint64_t)(number + 1);
    clattn_attention_desc_init(d);
    static const int64_t rows[][2] = {{33, 70}, {17, 32}, {5, 16}};
    const int range = (int)pick(s, 0, 2);
    s->few = pick(s, 1, 4);
    s->many[0] = rows[range][0], s->many[1] = rows[range][1];
    s->group = pick(s, 2, 4);
    d->head_dim = dims[pick(s, 0, 6)];
    d->value_dim = chance(s, 0.7) ? d->head_dim : dims[pick(s, 0, 6)];
    d->dtype = chance(s, 0.7) ? CLATTN_F32 : chance(s, 0.5) ? CLATTN_F16 : CLATTN_BF16;
    d->causal = chance(s, 0.5) ? CLATTN_CAUSAL_TOP_LEFT : CLATTN_CAUSAL_NONE;
    d->window_left = chance(s, 0.25) ? 1 : -1; /* the values are drawn for each case */
    d->mask = chance(s, 0.6) ? CLATTN_MASK_NONE : chance(s, 0.5) ? CLATTN_MASK_BOOL : CLATTN_MASK_FLOAT;
    d->padding_mask = chance(s, 0.25);
    d->kv_lengths = chance(s, 0.25);
    d->softcap = chance(s, 0.25);
    d->alibi = chance(s, 0.25);
    d->sinks = chance(s, 0.25);
    d->logsumexp = chance(s, 0.5);
    d->prefix = d->causal && chance(s, 0.2);
    d->documents = chance(s, 0.15);
    d->varlen = chance(s, 0.15);
    if (chance(s, 0.15)) d->dropout = 0.3f;
    if (number >= TURNS) draw_rare(s);
    take_turn(d, number);
    d->score_weight = d->score != CLATTN_SCORE_DOT;
    d->score_bias = d->score >= CLATTN_SCORE_ADDITIVE;
    d->align_end = !d->causal && chance(s, 0.5);
}

/* ---- one case: what does not ------------------------------------------------------------------------------------ */

static void draw_sizes(stage *s) {
    clattn_attention_desc *d = &s->desc;
    d->batch = pick(s, 1, 3);
    d->kv_heads = pick(s, 1, 3);
    d->query_heads = d->kv_heads * (chance(s, 0.4) ? 1 : s->group);
    d->query_len = chance(s, 0.3) ? s->few : pick(s, s->many[0], s->many[1]);
    d->kv_len = chance(s, 0.1) ? pick(s, 0, 2) : pick(s, 1, 150);
    d->has_scale = chance(s, 0.2);
    d->scale = (float)clattn_random_uniform(&s->random, -1, 1);
    d->temperature = chance(s, 0.2) ? 0.7f : 1.0f;
    if (d->softcap > 0) d->softcap = 3.0f;
    if (d->causal && d->causal != CLATTN_CAUSAL_BOTTOM_RIGHT && !d->varlen) {
        d->causal = chance(s, 0.5) ? CLATTN_CAUSAL_TOP_LEFT : CLATTN_CAUSAL_OFFSET;
        d->causal_offset = pick(s, -5, 40);
    }
    if (d->window_left >= 0) {
        d->window_left = pick(s, 0, 30);
        d->window_right = chance(s, 0.5) ? -1 : pick(s, 0, 30);
    }
    memset(d->mask_shape, 0, sizeof d->mask_shape);
    if (d->mask != CLATTN_MASK_NONE) {
        d->mask_shape[0] = chance(s, 0.5) ? 1 : d->batch;
        d->mask_shape[1] = chance(s, 0.5) ? 1 : d->query_heads;
        d->mask_shape[2] = chance(s, 0.3) ? 1 : d->query_len;
        d->mask_shape[3] = chance(s, 0.2) ? 1 : chance(s, 0.2) ? d->kv_len / 2 : d->kv_len;
    }
    d->dropout_seed = (uint64_t)pick(s, 0, 1 << 20);
}

/* A rank-4 operand in one of the layouts (B,H,S,D), (B,S,H,D), (S,B,H,D), or with gaps of NaN between the rows. */
static clattn_tensor operand(stage *s, int64_t heads, int64_t rows, int64_t width) {
    const int64_t B = s->desc.batch, gap = chance(s, 0.3) ? pick(s, 1, 9) : 0, row = width + gap;
    clattn_tensor t = clattn_host(NULL, s->desc.dtype, 4, B, heads, rows, width);
    switch (pick(s, 0, 2)) {
    case 0:
        t.stride[0] = heads * rows * row, t.stride[1] = rows * row, t.stride[2] = row;
        break;
    case 1:
        t.stride[0] = rows * heads * row, t.stride[1] = row, t.stride[2] = heads * row;
        break;
    default:
        t.stride[0] = heads * row, t.stride[1] = row, t.stride[2] = B * heads * row;
        break;
    }
    t.stride[3] = 1;
    const int64_t count = B * heads * rows * row;
    t.data = keep(s, clattn_guard_alloc((size_t)count * clattn_dtype_size(t.dtype)));
    const double size = chance(s, 0.1) ? 30 : 1;
    for (int64_t i = 0; i < count; i++)
        clattn__ref_store(t.data, t.dtype, i, i % row < width ? size * clattn_random_normal(&s->random) : NAN);
    return t;
}

/* (T, H, D): packed sequences. */
static clattn_tensor packed(stage *s, int64_t heads, int64_t total, int64_t width) {
    clattn_tensor t = clattn_host(NULL, s->desc.dtype, 3, total, heads, width, 0);
    t.data = keep(s, clattn_guard_alloc((size_t)(total * heads * width) * clattn_dtype_size(t.dtype)));
    for (int64_t i = 0; i < total * heads * width; i++)
        clattn__ref_store(t.data, t.dtype, i, clattn_random_normal(&s->random));
    return t;
}

static clattn_tensor floats(stage *s, int64_t count, double size) {
    float *values = keep(s, clattn_guard_alloc((size_t)count * sizeof *values));
    clattn_fill_normal(&s->random, values, count, size);
    return clattn_host(values, CLATTN_F32, 1, count, 0, 0, 0);
}

static clattn_tensor integers(stage *s, int rank, int64_t n0, int64_t n1, int64_t high) {
    const int64_t count = n0 * (rank > 1 ? n1 : 1);
    int32_t *values = keep(s, clattn_guard_alloc((size_t)count * sizeof *values));
    for (int64_t i = 0; i < count; i++) values[i] = (int32_t)pick(s, 0, high);
    return clattn_host(values, CLATTN_I32, rank, n0, rank > 1 ? n1 : 0, 0, 0);
}

static clattn_tensor booleans(stage *s, int rank, const int64_t *shape, double share) {
    int64_t count = 1;
    for (int i = 0; i < rank; i++) count *= shape[i];
    uint8_t *values = keep(s, clattn_guard_alloc((size_t)count));
    for (int64_t i = 0; i < count; i++) values[i] = chance(s, share);
    return clattn_host(values, CLATTN_BOOL, rank, shape[0], rank > 1 ? shape[1] : 0, rank > 2 ? shape[2] : 0,
                       rank > 3 ? shape[3] : 0);
}

static clattn_tensor float_mask(stage *s) {
    const int64_t *shape = s->desc.mask_shape, count = shape[0] * shape[1] * shape[2] * shape[3];
    float *values = keep(s, clattn_guard_alloc((size_t)count * sizeof *values));
    for (int64_t i = 0; i < count; i++)
        values[i] = chance(s, 0.2) ? -INFINITY : (float)clattn_random_normal(&s->random);
    return clattn_host(values, CLATTN_F32, 4, shape[0], shape[1], shape[2], shape[3]);
}

/* Starts of packed sequences no longer than `longest`; returns the rows of all of them. */
static int64_t draw_starts(stage *s, int64_t longest, clattn_tensor *starts) {
    *starts = integers(s, 1, s->desc.batch + 1, 0, 0);
    int32_t *values = starts->data;
    for (int64_t b = 0; b < s->desc.batch; b++) values[b + 1] = values[b] + (int32_t)pick(s, 0, longest);
    return values[s->desc.batch];
}

/* No more keys than the packed sequence has. */
static void cut_lengths(int32_t *lengths, const int32_t *starts, int64_t batch) {
    for (int64_t b = 0; b < batch; b++)
        if (lengths[b] > starts[b + 1] - starts[b]) lengths[b] = starts[b + 1] - starts[b];
}

static void draw_inputs(stage *s) {
    const clattn_attention_desc *d = &s->desc;
    clattn_attention_io *io = &s->io;
    if (d->varlen) {
        const int64_t queries = draw_starts(s, d->query_len, &io->query_starts);
        const int64_t keys = draw_starts(s, d->kv_len, &io->key_starts);
        io->query = packed(s, d->query_heads, queries, d->head_dim);
        io->key = packed(s, d->kv_heads, keys, d->head_dim);
        io->value = packed(s, d->kv_heads, keys, d->value_dim);
    } else {
        io->query = operand(s, d->query_heads, d->query_len, d->head_dim);
        io->key = operand(s, d->kv_heads, d->kv_len, d->head_dim);
        io->value = operand(s, d->kv_heads, d->kv_len, d->value_dim);
    }
    if (d->mask == CLATTN_MASK_BOOL) io->mask = booleans(s, 4, d->mask_shape, 0.7);
    if (d->mask == CLATTN_MASK_FLOAT) io->mask = float_mask(s);
    if (d->padding_mask) io->padding_mask = booleans(s, 2, (int64_t[2]){d->batch, d->kv_len}, 0.8);
    if (d->kv_lengths) io->kv_lengths = integers(s, 1, d->batch, 0, d->kv_len);
    if (d->kv_lengths && d->varlen) cut_lengths(io->kv_lengths.data, io->key_starts.data, d->batch);
    if (d->alibi) io->alibi = floats(s, d->query_heads, 0.3);
    if (d->sinks) io->sinks = floats(s, d->query_heads, 1);
    if (d->score_weight) io->score_weight = floats(s, d->head_dim, 1);
    if (d->score_bias) io->score_bias = floats(s, d->head_dim, 1);
    if (d->prefix) io->prefix_lengths = integers(s, 1, d->batch, 0, d->kv_len);
    if (d->documents) io->query_documents = integers(s, 2, d->batch, d->query_len, 2);
    if (d->documents) io->key_documents = integers(s, 2, d->batch, d->kv_len, 2);
}

static void *output_like(const clattn_tensor *t) {
    size_t count = 1;
    for (int i = 0; i < t->rank; i++) count *= (size_t)t->shape[i];
    return clattn_guard_alloc(count * clattn_dtype_size(t->dtype));
}

static void draw_outputs(stage *s) {
    const clattn_attention_desc *d = &s->desc;
    clattn_attention_io *io = &s->io;
    const int64_t B = d->batch, H = d->query_heads, Sq = d->query_len, Sk = d->kv_len, total = io->query.shape[0];
    io->output = d->varlen ? clattn_host(NULL, d->dtype, 3, total, H, d->value_dim, 0)
                           : clattn_host(NULL, d->dtype, 4, B, H, Sq, d->value_dim);
    s->out_bytes = (size_t)((d->varlen ? total : B * Sq) * H * d->value_dim) * clattn_dtype_size(d->dtype);
    io->output.data = s->want = output_like(&io->output);
    if (d->logsumexp) {
        io->logsumexp = d->varlen ? clattn_host(NULL, CLATTN_F32, 2, H, total, 0, 0)
                                  : clattn_host(NULL, CLATTN_F32, 3, B, H, Sq, 0);
        s->lse_bytes = (size_t)((d->varlen ? total : B * Sq) * H) * sizeof(float);
        io->logsumexp.data = s->want_lse = output_like(&io->logsumexp);
    }
    s->weights_bytes = (size_t)(B * H * Sq * Sk) * sizeof(float);
    if (d->scores != CLATTN_SCORES_NONE) {
        io->scores = clattn_host(NULL, CLATTN_F32, 4, B, H, Sq, Sk);
        io->scores.data = s->want_scores = output_like(&io->scores);
    }
    if (d->weights != CLATTN_WEIGHTS_NONE) {
        const bool averaged = d->weights == CLATTN_WEIGHTS_AVERAGED;
        if (averaged) s->weights_bytes /= (size_t)H;
        io->weights =
            averaged ? clattn_host(NULL, CLATTN_F32, 3, B, Sq, Sk, 0) : clattn_host(NULL, CLATTN_F32, 4, B, H, Sq, Sk);
        io->weights.data = s->want_weights = output_like(&io->weights);
    }
    s->tolerance = clattn_guard_alloc(s->out_bytes * 4);
}

/* ---- comparison ------------------------------------------------------------------------------------------------- */

static bool same(stage *s, const char *kernel, const void *got, const void *want, clattn_dtype dtype, size_t bytes,
                 const float *tolerance, double relative) {
    const stored_pair pair = {got, want, dtype, (int64_t)(bytes / clattn_dtype_size(dtype)), tolerance, relative, 0};
    double allowed;
    const int64_t i = first_wrong(&pair, &allowed);
    if (i >= 0) {
        char features[300];
        clattn__features_text(clattn__attention_features(&s->desc), features, sizeof features);
        return CHECK(
            false,
            "%s: %s, %s, D %d, Dv %d, B %d, heads %d over %d, %d x %d: element %lld is %.9g, not %.9g (tolerance %.3g)",
            s->what, kernel, features, (int)s->desc.head_dim, (int)s->desc.value_dim, (int)s->desc.batch,
            (int)s->desc.query_heads, (int)s->desc.kv_heads, (int)s->desc.query_len, (int)s->desc.kv_len, (long long)i,
            clattn__ref_load(got, dtype, i), clattn__ref_load(want, dtype, i), allowed);
    }
    return CHECK(clattn_guard_intact(got), "%s: %s wrote beside an output", s->what, kernel);
}

/* Sets the tolerance: kernels that round weights have one of their own. */
static bool tolerate(stage *s, const char *kernel) {
    clattn_attention_desc d = s->desc;
    d.kernel = kernel;
    return CHECK(clattn_reference_attention(&d, &s->io, s->tolerance) == CLATTN_OK, "%s: %s", s->what,
                 clattn_last_error());
}

static void run_kernel(stage *s, int k, const clattn_kernel_info *info) {
    const bool rounds = clattn__rounds_weights(info->name);
    clattn_attention_desc d = s->desc;
    clattn_attention_io io = s->io;
    clattn_attention *plan = NULL;
    d.kernel = info->name;
    clattn_test_unoptimized(strcmp(info->name, clattn__attn_tiled.name) == 0);
    clattn_status status = clattn_attention_create(&plan, context, &d);
    clattn_test_unoptimized(false);
    if (status == CLATTN_UNSUPPORTED) return; /* a refusal for another reason than features: counted by its absence */
    if (!CHECK(status == CLATTN_OK, "%s: %s: %s", s->what, info->name, clattn_last_error())) return;
    io.output.data = output_like(&io.output);
    if (s->want_lse) io.logsumexp.data = output_like(&io.logsumexp);
    if (s->want_weights) io.weights.data = output_like(&io.weights);
    if (s->want_scores) io.scores.data = output_like(&io.scores);
    bool good =
        CHECK(clattn_attention_run(plan, &io) == CLATTN_OK, "%s: %s: %s", s->what, info->name, clattn_last_error());
    if (rounds) good = tolerate(s, info->name) && good;
    good = good && same(s, info->name, io.output.data, s->want, d.dtype, s->out_bytes, s->tolerance, 0);
    if (rounds) good = tolerate(s, NULL) && good;
    if (s->want_lse)
        good = good && same(s, info->name, io.logsumexp.data, s->want_lse, CLATTN_F32, s->lse_bytes, NULL, 3e-5);
    if (s->want_weights)
        good = good && same(s, info->name, io.weights.data, s->want_weights, CLATTN_F32, s->weights_bytes, NULL, 1e-4);
    if (s->want_scores) {
        const size_t bytes = (size_t)(d.batch * d.query_heads * d.query_len * d.kv_len) * sizeof(float);
        good = good && same(s, info->name, io.scores.data, s->want_scores, CLATTN_F32, bytes, NULL, 1e-4);
    }
    clattn_guard_free(io.output.data);
    if (s->want_lse) clattn_guard_free(io.logsumexp.data);
    if (s->want_weights) clattn_guard_free(io.weights.data);
    if (s->want_scores) clattn_guard_free(io.scores.data);
    clattn_attention_destroy(&plan);
    clattn_attention_desc resolved;
    if (!good || clattn__check_attention_desc(&s->desc, &resolved) != CLATTN_OK) return;
    const uint32_t features = clattn__attention_features(&resolved);
    ran[k]++;
    for (int f = 0; f < MOST_FEATURES; f++) right[k][f] += features >> f & 1;
}

/* attn_host is the reference itself behind other plumbing, and slow: one case of some is enough for it. */
static bool has_turn(const clattn_kernel_info *info, int case_number) {
    return strcmp(info->name, "attn_host") != 0 || case_number % HOST_TURN == 0;
}

static void run_case(int class_number, int case_number) {
    stage s = {0};
    draw_class(&s, class_number);
    s.random.state += 7919u * (uint64_t)(case_number + 1);
    snprintf(s.what, sizeof s.what, "%d:%d", class_number, case_number);
    draw_sizes(&s);
    draw_inputs(&s);
    draw_outputs(&s);
    clattn_attention_desc resolved;
    bool good =
        CHECK(clattn__check_attention_desc(&s.desc, &resolved) == CLATTN_OK, "%s: %s", s.what, clattn_last_error()) &&
        tolerate(&s, NULL);
    const uint32_t features = good ? clattn__attention_features(&resolved) : 0;
    clattn_kernel_info info;
    for (int k = 0; good && k < clattn_kernel_count() && clattn_kernel_get(k, &info) == CLATTN_OK; k++)
        if (strcmp(info.kind, "attention") == 0 && (features & ~info.features) == 0 && has_turn(&info, case_number))
            run_kernel(&s, k, &info);
    for (int i = 0; i < s.input_count; i++) {
        CHECK(clattn_guard_intact(s.inputs[i]), "%s: something wrote beside input %d", s.what, i);
        clattn_guard_free(s.inputs[i]);
    }
    clattn_guard_free(s.want);
    clattn_guard_free(s.want_lse);
    clattn_guard_free(s.want_weights);
    clattn_guard_free(s.want_scores);
    clattn_guard_free(s.tolerance);
}

static void combinations(void) {
    int only_class, only_case;
    if (is_replay(&only_class, &only_case)) {
        run_case(only_class, only_case);
        return;
    }
    const int classes = CLASSES * (clattn_test_flag("CLATTN_TEST_FULL") ? 4 : 1);
    for (int c = 0; c < classes; c += clattn_test_every(CLASS_STEP))
        for (int i = 0; i < CASES; i++) run_case(c, i);
    clattn_kernel_info info;
    for (int k = 0; k < clattn_kernel_count() && clattn_kernel_get(k, &info) == CLATTN_OK; k++)
        if (strcmp(info.kind, "attention") == 0) clattn_test_note("%s: %ld cases right", info.name, ran[k]);
}

/* Appended keys come only with the layer: a zero key through each kernel that claims them. */
static bool appended_keys(const clattn_kernel_info *info) {
    enum { B = 2, L = 19, E = 24, H = 3 };
    clattn_random random = {77};
    float memory[4 * E * E + B * L * E], want[B * L * E], got[B * L * E], tolerance[B * L * E];
    clattn_fill_normal(&random, memory, 4 * E * E, 0.2);
    clattn_fill_normal(&random, memory + 4 * E * E, B * L * E, 1);
    clattn_mha_desc d;
    clattn_mha_desc_init(&d);
    d.batch = B, d.query_len = L, d.embed_dim = E, d.heads = H, d.add_zero_attn = 1;
    d.attention_kernel = info->name;
    const clattn_mha_weights w = {.in_proj_weight = clattn_host(memory, CLATTN_F32, 2, 3 * E, E, 0, 0),
                                  .out_proj_weight = clattn_host(memory + 3 * E * E, CLATTN_F32, 2, E, E, 0, 0)};
    clattn_mha_io io = {.query = clattn_host(memory + 4 * E * E, CLATTN_F32, 3, B, L, E, 0),
                        .output = clattn_host(want, CLATTN_F32, 3, B, L, E, 0)};
    clattn_mha *mha = NULL;
    bool good = clattn_reference_mha(&d, &w, &io, tolerance) == CLATTN_OK &&
                clattn_mha_create(&mha, context, &d, &w) == CLATTN_OK;
    io.output.data = got;
    good = good && clattn_mha_run(mha, &io) == CLATTN_OK;
    clattn_mha_destroy(&mha);
    return good && clattn_check_close(got, want, tolerance, 0, B * L * E, info->name);
}

/* Keys as caches hold them come only with a cache: the registry's own cases of them, in the long form. */
static bool cached_keys(const clattn_kernel_info *info, uint32_t feature) {
    clattn__attn_kernel kernel = {.programs = &context->programs};
    kernel.problem = (clattn__attn_problem){.features = CLATTN__CAUSAL | CLATTN__LENGTHS | CLATTN__LSE | feature,
                                            .cells = CLATTN_I8,
                                            .batch = 2,
                                            .query_heads = 4,
                                            .kv_heads = 2,
                                            .query_len = 2,
                                            .kv_len = 150,
                                            .head_dim = 24,
                                            .value_dim = 20};
    for (int i = 0; clattn__attn_list[i]; i++)
        if (strcmp(clattn__attn_list[i]->name, info->name) == 0) kernel.impl = clattn__attn_list[i];
    clattn__verify_stats stats = {0};
    clattn_status status = clattn__attn_prepare(&kernel, NULL);
    if (status == CLATTN_OK) status = clattn__attn_verify(&kernel, true, &stats);
    clattn__attn_kernel_clear(&kernel);
    return CHECK(status == CLATTN_OK && stats.cases > 3, "%s: %s", info->name, clattn_last_error());
}

/* The feature table says nothing that was not seen: each claim of a kernel that runs here at all. */
static void claims(void) {
    clattn_kernel_info info;
    if (getenv("CLATTN_RANDOM")) {
        clattn_test_skip("one case is replayed; claims need all of them");
        return;
    }
    if (clattn_test_every(CLASS_STEP) > 1) {
        clattn_test_skip("not every class is drawn (CLATTN_TEST_EVERY, or the sanitizers); claims need all of them");
        return;
    }
    for (int k = 0; k < clattn_kernel_count() && clattn_kernel_get(k, &info) == CLATTN_OK; k++) {
        if (strcmp(info.kind, "attention") != 0) continue;
        if (ran[k] == 0) {
            clattn_test_note("%s refuses this device; its claims are not tested here", info.name);
            continue;
        }
        for (int f = 0; clattn_feature_name(f); f++) {
            if (!(info.features >> f & 1)) continue;
            const uint32_t bit = 1u << f;
            const bool seen = bit == CLATTN__ALWAYS_KEYS            ? appended_keys(&info)
                              : (bit & CLATTN__CACHE_FEATURES) != 0 ? cached_keys(&info, bit)
                                                                    : right[k][f] > 0;
            CHECK(seen, "%s claims \"%s\", but no case with it came out right", info.name, clattn_feature_name(f));
        }
    }
}

int main(int argc, char **argv) {
    static const clattn_test tests[] = {{"combinations", combinations}, {"claims", claims}, {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"random", tests}, {NULL, NULL}};
    return clattn_test_main_with(&context, CLATTN_VERIFY_NEVER, suites, argc, argv);
}
