/* Every attention kernel against the scalar reference, over the case table, through the public functions.
 * CLATTN_TEST_FULL=1: every variant with every shape. CLATTN_DEVICE: selector of the device. CLATTN_TEST_KERNEL: only
 * the kernels that this names. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/reference.h"
#include "cases.h"
#include "clattn/clattn.h"
#include "harness.h"
#include "kernels/attn_cpu.h"
#include "kernels/impl.h"
#include "plan/plan.h"
#include "ref/ref.h"

static clattn_context *context;

/* ---- tensors in guarded memory --------------------------------------------------------------------------------- */

typedef struct guarded {
    clattn_tensor view;
    void *memory; /* all of it NaN but the elements */
    void *before; /* inputs: copy of the memory */
    size_t bytes;
    int64_t elements;
} guarded;

static int64_t elements_of(const clattn_tensor *t) {
    int64_t count = 1;
    for (int i = 0; i < t->rank; i++) count *= t->shape[i];
    return count;
}

/* Where element i, counted in C order, lies in the memory. */
static int64_t place_of(const clattn_tensor *t, int64_t i) {
    int64_t at = t->offset;
    for (int k = t->rank - 1; k >= 0; k--) {
        at += i % t->shape[k] * t->stride[k];
        i /= t->shape[k];
    }
    return at;
}

/* Strides for the order of the axes in memory, outermost first, with unused elements behind each of them. */
static void set_strides(clattn_tensor *t, const int *order, int gap) {
    int64_t step = 1;
    for (int k = t->rank - 1; k >= 0; k--) {
        int axis = order[k];
        t->stride[axis] = step;
        step = step * (t->shape[axis] > 0 ? t->shape[axis] : 1) + gap;
    }
}

static guarded make_tensor(clattn_dtype dtype, int rank, const int64_t *shape, case_layout layout) {
    static const int dense[4] = {0, 1, 2, 3}, bshd[4] = {0, 2, 1, 3}, sbhd[4] = {2, 0, 1, 3};
    guarded g = {.view = {.dtype = dtype, .rank = rank}};
    memcpy(g.view.shape, shape, sizeof *shape * (size_t)rank);
    const int *order = dense;
    if (rank == 4 && layout == LAYOUT_BSHD) order = bshd;
    if (rank == 4 && layout == LAYOUT_SBHD) order = sbhd;
    set_strides(&g.view, order, layout == LAYOUT_GAPS ? 3 : 0);
    g.view.offset = layout == LAYOUT_GAPS ? 5 : 0;
    g.elements = elements_of(&g.view);
    int64_t last = g.elements > 0 ? place_of(&g.view, g.elements - 1) : g.view.offset;
    g.bytes = (size_t)(last + 1) * clattn_dtype_size(dtype);
    g.memory = clattn_guard_alloc(g.bytes);
    g.view.data = g.memory;
    return g;
}

static double get(const guarded *g, int64_t i) {
    return clattn__ref_load(g->memory, g->view.dtype, place_of(&g->view, i));
}
static void set(guarded *g, int64_t i, double value) {
    clattn__ref_store(g->memory, g->view.dtype, place_of(&g->view, i), value);
}

static void remember(guarded *g) {
    if (!g->memory) return;
    g->before = malloc(g->bytes);
    if (!g->before) abort();
    memcpy(g->before, g->memory, g->bytes);
}

static void guarded_free(guarded *g) {
    clattn_guard_free(g->memory);
    free(g->before);
    memset(g, 0, sizeof *g);
}

/* Everything but the elements is still poison. */
static bool gaps_untouched(const guarded *g) {
    size_t size = clattn_dtype_size(g->view.dtype);
    char *copy = malloc(g->bytes);
    if (!copy) abort();
    memcpy(copy, g->memory, g->bytes);
    for (int64_t i = 0; i < g->elements; i++) clattn_poison(copy + (size_t)place_of(&g->view, i) * size, size);
    bool untouched = clattn_is_poison(copy, g->bytes);
    free(copy);
    return untouched;
}

/* ---- one case -------------------------------------------------------------------------------------------------- */

enum {
    QUERY,
    KEY,
    VALUE,
    MASK,
    PADDING,
    LENGTHS,
    ALIBI,
    SINKS,
    INPUTS,
    OUTPUT = INPUTS,
    LSE,
    WEIGHTS,
    SCORES,
    TENSORS
};
static const char *const tensor_names[TENSORS] = {"query", "key",   "value",  "mask",      "padding_mask", "kv_lengths",
                                                  "alibi", "sinks", "output", "logsumexp", "weights",      "scores"};

typedef struct test_case {
    char name[192];
    const case_variant *variant;
    clattn_attention_desc desc;
    guarded tensors[TENSORS];
    float *want[TENSORS], *tolerance[TENSORS]; /* of the outputs, dense */
} test_case;

static clattn_attention_io io_of(const guarded tensors[TENSORS]) {
    const clattn_attention_io io = {.query = tensors[QUERY].view,
                                    .key = tensors[KEY].view,
                                    .value = tensors[VALUE].view,
                                    .mask = tensors[MASK].view,
                                    .padding_mask = tensors[PADDING].view,
                                    .kv_lengths = tensors[LENGTHS].view,
                                    .alibi = tensors[ALIBI].view,
                                    .sinks = tensors[SINKS].view,
                                    .output = tensors[OUTPUT].view,
                                    .logsumexp = tensors[LSE].view,
                                    .weights = tensors[WEIGHTS].view,
                                    .scores = tensors[SCORES].view};
    return io;
}

static void describe(const case_variant *v, const case_shape *shape, clattn_attention_desc *d) {
    clattn_attention_desc_init(d);
    d->batch = shape->batch;
    d->query_heads = shape->query_heads;
    d->kv_heads = shape->kv_heads;
    d->query_len = shape->query_len;
    d->kv_len = shape->kv_len;
    d->head_dim = v->head_dim;
    d->value_dim = v->value_dim;
    d->dtype = v->dtype;
    d->has_scale = v->has_scale;
    d->scale = v->scale;
    if (v->temperature > 0) d->temperature = v->temperature;
    d->softcap = v->softcap;
    d->causal = v->causal;
    d->causal_offset = v->offset;
    d->window_left = v->window_left_plus_1 - 1;
    d->window_right = v->window_right_plus_1 - 1;
    d->mask = v->mask;
    const char axes[4] = {'b', 'h', 'q', 'k'};
    const int64_t full[4] = {d->batch, d->query_heads, d->query_len, d->kv_len};
    for (int i = 0; i < 4; i++) d->mask_shape[i] = v->mask_axes && strchr(v->mask_axes, axes[i]) ? full[i] : 1;
    if (v->mask_axes && strchr(v->mask_axes, 's'))
        d->mask_shape[3] = d->kv_len > 3 ? d->kv_len - d->kv_len / 3 : d->kv_len;
    d->padding_mask = v->padding;
    d->kv_lengths = v->lengths;
    d->alibi = v->alibi;
    d->sinks = v->sinks;
    d->weights = v->weights;
    d->scores = v->scores;
    d->logsumexp = v->lse;
}

static void make_tensors(test_case *c) {
    const clattn_attention_desc *d = &c->desc;
    const case_variant *v = c->variant;
    const bool averaged = d->weights == CLATTN_WEIGHTS_AVERAGED;
    const int64_t B = d->batch, Hq = d->query_heads, Hkv = d->kv_heads, Sq = d->query_len, Sk = d->kv_len;
    /* the layouts with moved axes are for query, key, value and output; gaps are for everything with rows */
    const case_layout moved = v->layout, rows = v->layout == LAYOUT_GAPS ? LAYOUT_GAPS : LAYOUT_BHSD;
    const struct {
        bool wanted;
        clattn_dtype dtype;
        int rank;
        int64_t shape[4];
        case_layout layout;
    } plan[TENSORS] = {
        [QUERY] = {true, d->dtype, 4, {B, Hq, Sq, d->head_dim}, moved},
        [KEY] = {true, d->dtype, 4, {B, Hkv, Sk, d->head_dim}, moved},
        [VALUE] = {true, d->dtype, 4, {B, Hkv, Sk, d->value_dim}, moved},
        [MASK] = {d->mask != CLATTN_MASK_NONE,
                  d->mask == CLATTN_MASK_BOOL ? CLATTN_BOOL : CLATTN_F32,
                  4,
                  {d->mask_shape[0], d->mask_shape[1], d->mask_shape[2], d->mask_shape[3]},
                  rows},
        [PADDING] = {d->padding_mask, CLATTN_BOOL, 2, {B, Sk}, rows},
        [LENGTHS] = {d->kv_lengths, CLATTN_I32, 1, {B}, LAYOUT_BHSD},
        [ALIBI] = {d->alibi, CLATTN_F32, 1, {Hq}, LAYOUT_BHSD},
        [SINKS] = {d->sinks, CLATTN_F32, 1, {Hq}, LAYOUT_BHSD},
        [OUTPUT] = {true, d->dtype, 4, {B, Hq, Sq, d->value_dim}, moved},
        [LSE] = {d->logsumexp, CLATTN_F32, 3, {B, Hq, Sq}, rows},
        [WEIGHTS] = {d->weights != CLATTN_WEIGHTS_NONE,
                     CLATTN_F32,
                     averaged ? 3 : 4,
                     {B, averaged ? Sq : Hq, averaged ? Sk : Sq, Sk},
                     rows},
        [SCORES] = {d->scores != CLATTN_SCORES_NONE, CLATTN_F32, 4, {B, Hq, Sq, Sk}, rows},
    };
    for (int t = 0; t < TENSORS; t++)
        if (plan[t].wanted) c->tensors[t] = make_tensor(plan[t].dtype, plan[t].rank, plan[t].shape, plan[t].layout);
}

static void fill_normal(guarded *g, clattn_random *random, double size) {
    for (int64_t i = 0; i < g->elements; i++) set(g, i, size * clattn_random_normal(random));
}

/* Query and key such that scale * <q, k> is as the case wants it. */
static void fill_query_key_value(test_case *c, clattn_random *random) {
    guarded *q = &c->tensors[QUERY], *k = &c->tensors[KEY];
    const int64_t D = c->desc.head_dim, Sk = c->desc.kv_len;
    const case_data data = c->variant->data;
    const double size = data == DATA_LARGE ? 100 : 1;
    fill_normal(q, random, size);
    fill_normal(k, random, size);
    fill_normal(&c->tensors[VALUE], random, data == DATA_BIG_VALUES ? 1e30 : 1);
    if (data == DATA_EQUAL_KEYS)
        for (int64_t i = 0; i < k->elements; i++) set(k, i, get(k, i / (Sk * D) * (Sk * D) + i % D));
    if (data == DATA_PLUS_1000 || data == DATA_MINUS_1000) { /* column 0 adds +-1000 to every score */
        for (int64_t i = 0; i < q->elements; i += D) set(q, i, 10 * sqrt((double)D));
        for (int64_t i = 0; i < k->elements; i += D) set(k, i, data == DATA_PLUS_1000 ? 100 : -100);
    }
}

/* Seven in ten cells attend; every fifth row is empty, and so is the last batch entry where the mask has that axis. */
static void fill_mask(test_case *c, clattn_random *random) {
    guarded *mask = &c->tensors[MASK];
    const int64_t *shape = mask->view.shape;
    for (int64_t i = 0; i < mask->elements; i++) {
        int64_t row = i / shape[3] % shape[2], b = i / shape[3] / shape[2] / shape[1];
        bool attend = clattn_random_below(random, 10) < 7 && !(shape[2] > 1 && row % 5 == 2) &&
                      !(shape[0] > 1 && b == shape[0] - 1);
        double term = clattn_random_normal(random);
        set(mask, i, c->desc.mask == CLATTN_MASK_BOOL ? attend : attend ? 2 * term : -INFINITY);
    }
}

static void fill_poison(guarded *g, int64_t first, int64_t count) {
    for (int64_t i = first; i < first + count; i++) set(g, i, NAN);
}

/* NaN in key j of batch entry b, for all heads. */
static void poison_key(test_case *c, int64_t b, int64_t j) {
    const int64_t Hkv = c->desc.kv_heads, Sk = c->desc.kv_len, D = c->desc.head_dim, Dv = c->desc.value_dim;
    for (int64_t g = b * Hkv; g < (b + 1) * Hkv; g++) {
        fill_poison(&c->tensors[KEY], (g * Sk + j) * D, D);
        fill_poison(&c->tensors[VALUE], (g * Sk + j) * Dv, Dv);
    }
}

/* Padding and lengths: some keys in the middle or at the end, in the last of several entries all. What is hidden is
 * NaN. */
static void fill_lengths(test_case *c, clattn_random *random) {
    const int64_t B = c->desc.batch, Sk = c->desc.kv_len;
    for (int64_t b = 0; b < B; b++) {
        const bool nothing = B > 1 && b == B - 1;
        const int64_t length = nothing ? 0 : Sk - clattn_random_below(random, Sk / 2 + 1);
        if (c->desc.kv_lengths) set(&c->tensors[LENGTHS], b, (double)length);
        for (int64_t j = 0; j < Sk; j++) {
            bool attend = j < length && clattn_random_below(random, 10) > 0;
            if (c->desc.padding_mask) set(&c->tensors[PADDING], b * Sk + j, attend);
            if (c->desc.padding_mask ? !attend : c->desc.kv_lengths && j >= length) poison_key(c, b, j);
        }
    }
}

/* Keys that a mask without query and head axes forbids. */
static void fill_masked_keys(test_case *c) {
    const guarded *mask = &c->tensors[MASK];
    const int64_t columns = mask->view.shape[3];
    const double hidden = c->desc.mask == CLATTN_MASK_BOOL ? 0 : -INFINITY;
    for (int64_t b = 0; b < c->desc.batch; b++)
        for (int64_t j = 0; j < c->desc.kv_len; j++)
            if (j >= columns || get(mask, (mask->view.shape[0] > 1 ? b : 0) * columns + j) == hidden)
                poison_key(c, b, j);
}

static void fill_case(test_case *c, uint64_t seed) {
    clattn_random random = {seed};
    fill_query_key_value(c, &random);
    if (c->tensors[MASK].memory) fill_mask(c, &random);
    if (c->desc.padding_mask || c->desc.kv_lengths) fill_lengths(c, &random);
    if (c->variant->nan_in_masked && c->desc.kv_len > 1) fill_masked_keys(c);
    for (int64_t h = 0; c->desc.alibi && h < c->desc.query_heads; h++)
        set(&c->tensors[ALIBI], h, exp2(-8.0 * (double)(h + 1) / (double)c->desc.query_heads));
    if (c->desc.sinks) fill_normal(&c->tensors[SINKS], &random, 1);
    for (int t = 0; t < INPUTS; t++) remember(&c->tensors[t]);
}

/* The reference writes into dense tensors of its own. */
static void make_expectation(test_case *c) {
    guarded tensors[TENSORS];
    memcpy(tensors, c->tensors, sizeof tensors);
    for (int t = OUTPUT; t < TENSORS; t++) {
        if (!c->tensors[t].memory) continue;
        tensors[t] =
            make_tensor(c->tensors[t].view.dtype, c->tensors[t].view.rank, c->tensors[t].view.shape, LAYOUT_BHSD);
        c->want[t] = calloc((size_t)tensors[t].elements + 1, sizeof(float));
        c->tolerance[t] = calloc((size_t)tensors[t].elements + 1, sizeof(float));
        if (!c->want[t] || !c->tolerance[t]) abort();
    }
    const clattn_attention_io io = io_of(tensors);
    const clattn__tolerances tolerances = {c->tolerance[OUTPUT], c->tolerance[LSE], c->tolerance[WEIGHTS],
                                           c->tolerance[SCORES]};
    clattn_status status = clattn__reference_attention(&c->desc, &io, &tolerances);
    CHECK(status == CLATTN_OK, "%s: reference: %s", c->name, clattn_last_error());
    for (int t = OUTPUT; t < TENSORS; t++) {
        for (int64_t i = 0; i < tensors[t].elements; i++) c->want[t][i] = (float)get(&tensors[t], i);
        if (c->tensors[t].memory) guarded_free(&tensors[t]);
    }
}

static void case_create(test_case *c, const case_variant *variant, const case_shape *shape, uint64_t seed) {
    memset(c, 0, sizeof *c);
    c->variant = variant;
    snprintf(c->name, sizeof c->name, "%s (B %d, Hq %d, Hkv %d, Sq %d, Sk %d, D %d, Dv %d, seed %llu)", variant->name,
             shape->batch, shape->query_heads, shape->kv_heads, shape->query_len, shape->kv_len, variant->head_dim,
             variant->value_dim, (unsigned long long)seed);
    describe(variant, shape, &c->desc);
    make_tensors(c);
    fill_case(c, seed);
    make_expectation(c);
}

static void case_free(test_case *c) {
    for (int t = 0; t < TENSORS; t++) {
        guarded_free(&c->tensors[t]);
        free(c->want[t]);
        free(c->tolerance[t]);
    }
}

/* ---- kernels --------------------------------------------------------------------------------------------------- */

static const clattn__attn_impl *const kernels[] = {&clattn__attn_decode, &clattn__attn_cpu, &clattn__attn_tiled,
                                                   &clattn__attn_naive, &clattn__attn_host};
enum { KERNELS = sizeof kernels / sizeof kernels[0] };

typedef struct kernel_tally {
    int run, refused;
    double worst; /* greatest error as a fraction of its tolerance */
} kernel_tally;

/* A kernel may refuse what it does not list, attn_cpu a device that is no CPU, and attn_decode many rows or short
 * ones. */
static bool may_refuse(const clattn__attn_impl *impl, const clattn_attention_desc *desc) {
    clattn_device_info device = {0};
    clattn_attention_desc resolved = *desc;
    (void)clattn_context_device(context, &device);
    if (impl == &clattn__attn_cpu && device.type != CLATTN_DEVICE_CPU) return true;
    if (impl == &clattn__attn_decode) {
        const int64_t rows = desc->query_heads / desc->kv_heads * desc->query_len;
        if (rows > 16 || desc->query_len > 8 || desc->head_dim < 4 || desc->value_dim < 4) return true;
    }
    return (clattn__attention_features(&resolved) & ~impl->features) != 0;
}

static void check_outputs(test_case *c, const char *what, kernel_tally *tally) {
    for (int t = OUTPUT; t < TENSORS; t++) {
        const guarded *g = &c->tensors[t];
        char name[320];
        if (!g->memory) continue;
        float *got = calloc((size_t)g->elements + 1, sizeof(float));
        if (!got) abort();
        for (int64_t i = 0; i < g->elements; i++) got[i] = (float)get(g, i);
        snprintf(name, sizeof name, "%s, %s", what, tensor_names[t]);
        if (clattn_check_close(got, c->want[t], c->tolerance[t], 0, g->elements, name))
            tally->worst = fmax(tally->worst, clattn_compare(got, c->want[t], c->tolerance[t], 0, g->elements).ratio);
        CHECK(gaps_untouched(g), "%s: wrote between the elements", name);
        CHECK(clattn_guard_intact(g->memory), "%s: wrote beside the memory", name);
        free(got);
    }
}

static void check_inputs(const test_case *c, const char *what) {
    for (int t = 0; t < INPUTS; t++) {
        const guarded *g = &c->tensors[t];
        if (!g->memory) continue;
        CHECK(memcmp(g->memory, g->before, g->bytes) == 0, "%s: %s was changed", what, tensor_names[t]);
        CHECK(clattn_guard_intact(g->memory), "%s: %s: wrote beside the memory", what, tensor_names[t]);
    }
}

/* Runs once into poisoned outputs; the whole output memory is handed out for the comparison of two runs. */
static bool run_once(test_case *c, clattn_attention *plan, const char *what, char *copies[TENSORS]) {
    for (int t = OUTPUT; t < TENSORS; t++)
        if (c->tensors[t].memory) clattn_poison(c->tensors[t].memory, c->tensors[t].bytes);
    const clattn_attention_io io = io_of(c->tensors);
    clattn_status status = clattn_attention_run(plan, &io);
    if (!CHECK(status == CLATTN_OK, "%s: %s: %s", what, clattn_status_name(status), clattn_last_error())) return false;
    for (int t = OUTPUT; copies && t < TENSORS; t++) {
        if (!c->tensors[t].memory) continue;
        copies[t] = malloc(c->tensors[t].bytes);
        if (!copies[t]) abort();
        memcpy(copies[t], c->tensors[t].memory, c->tensors[t].bytes);
    }
    return true;
}

static void run_plan(test_case *c, clattn_attention *plan, bool twice, const char *what, kernel_tally *tally) {
    char *first[TENSORS] = {NULL};
    if (run_once(c, plan, what, first)) {
        check_outputs(c, what, tally);
        if (twice && run_once(c, plan, what, NULL))
            for (int t = OUTPUT; t < TENSORS; t++)
                CHECK(!first[t] || memcmp(first[t], c->tensors[t].memory, c->tensors[t].bytes) == 0,
                      "%s: two runs differ in %s", what, tensor_names[t]);
        check_inputs(c, what);
    }
    for (int t = OUTPUT; t < TENSORS; t++) free(first[t]);
}

static void run_kernel(test_case *c, const clattn__attn_impl *impl, kernel_tally *tally) {
    char what[256];
    clattn_attention *plan = NULL;
    clattn_attention_desc desc = c->desc;
    desc.kernel = impl->name;
    snprintf(what, sizeof what, "%s: %s", impl->name, c->name);
    clattn_test_unoptimized(impl == &clattn__attn_tiled);
    clattn_status status = clattn_attention_create(&plan, context, &desc);
    clattn_test_unoptimized(false);
    if (may_refuse(impl, &desc)) {
        CHECK(status == CLATTN_UNSUPPORTED && !plan, "%s: gave %s, but does not list all features", what,
              clattn_status_name(status));
        tally->refused++;
    } else if (CHECK(status == CLATTN_OK, "%s: %s: %s", what, clattn_status_name(status), clattn_last_error())) {
        /* the host kernel is the reference, slow and without anything that could differ between two runs */
        run_plan(c, plan, impl != &clattn__attn_host, what, tally);
        tally->run++;
    }
    clattn_attention_destroy(&plan);
}

static bool is_kernel_wanted(const char *name) {
    const char *only = getenv("CLATTN_TEST_KERNEL");
    return !only || !only[0] || strstr(only, name);
}

/* Under the sanitizers, where the driver's compiler takes its time, every third variant will do. */
#ifdef __SANITIZE_ADDRESS__
enum { EVERY = 3 };
#else
enum { EVERY = 1 };
#endif

static void run_suite(const char *suite) {
    kernel_tally tallies[KERNELS] = {{0}};
    const bool full = clattn_test_flag("CLATTN_TEST_FULL");
    for (int v = 0, turn = 0; v < VARIANT_COUNT; v++) {
        if (strcmp(case_variants[v].suite, suite) != 0 || turn++ % clattn_test_every(EVERY)) continue;
        for (int s = 0; s < SHAPE_COUNT; s++) {
            if (!full && !(case_variants[v].shapes >> s & 1)) continue;
            test_case c;
            case_create(&c, &case_variants[v], &case_shapes[s], (uint64_t)(1000 * v + s));
            for (int k = 0; k < KERNELS; k++)
                if (is_kernel_wanted(kernels[k]->name)) run_kernel(&c, kernels[k], &tallies[k]);
            case_free(&c);
        }
    }
    int run = 0;
    for (int k = 0; k < KERNELS; k++) {
        clattn_test_note("%-10s %3d cases, %d not served; greatest error %.3g of its tolerance", kernels[k]->name,
                         tallies[k].run, tallies[k].refused, tallies[k].worst);
        run += tallies[k].run;
    }
    CHECK(run > 0, "no case ran");
}

static void test_sizes(void) { run_suite("sizes"); }
static void test_dims(void) { run_suite("dims"); }
static void test_layouts(void) { run_suite("layouts"); }
static void test_scale(void) { run_suite("scale"); }
static void test_extremes(void) { run_suite("extremes"); }
static void test_causal(void) { run_suite("causal"); }
static void test_window(void) { run_suite("window"); }
static void test_masks(void) { run_suite("masks"); }
static void test_lengths(void) { run_suite("lengths"); }
static void test_terms(void) { run_suite("terms"); }
static void test_outputs(void) { run_suite("outputs"); }
static void test_storage(void) { run_suite("storage"); }

/* No batch: nothing is written. No keys: rows of zeros. No queries: nothing to do. */
static void test_zero_sizes(void) {
    static const case_shape shapes[] = {{0, 2, 2, 5, 7}, {2, 2, 1, 5, 0}, {2, 2, 2, 0, 7}};
    static const case_variant variant = {"zero", "zero sizes", 0, .head_dim = 32, .value_dim = 32, .lse = 1};
    kernel_tally tallies[KERNELS] = {{0}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        test_case c;
        case_create(&c, &variant, &shapes[s], s);
        for (int k = 0; k < KERNELS; k++)
            if (is_kernel_wanted(kernels[k]->name)) run_kernel(&c, kernels[k], &tallies[k]);
        case_free(&c);
    }
}

/* A row's result does not depend on what else is in the batch. */
static void test_batch_independence(void) {
    static const case_shape both = {2, 2, 2, 33, 47}, one = {1, 2, 2, 33, 47};
    static const case_variant variant = {"batch", "batch", 0, .head_dim = 64, .value_dim = 64};
    for (int k = 0; k < KERNELS; k++) {
        if (!is_kernel_wanted(kernels[k]->name)) continue;
        test_case c, alone;
        clattn_attention *plan = NULL;
        case_create(&c, &variant, &both, 3);
        case_create(&alone, &variant, &one, 4);
        for (int t = QUERY; t <= VALUE; t++) /* the second entry */
            memcpy(alone.tensors[t].memory, (char *)c.tensors[t].memory + alone.tensors[t].bytes,
                   alone.tensors[t].bytes);
        test_case *const runs[] = {&c, &alone};
        for (int r = 0; r < 2; r++) {
            clattn_attention_desc desc = runs[r]->desc;
            desc.kernel = kernels[k]->name;
            if (may_refuse(kernels[k], &desc)) continue;
            clattn_status status = clattn_attention_create(&plan, context, &desc);
            if (CHECK(status == CLATTN_OK, "%s: %s", kernels[k]->name, clattn_last_error()))
                run_once(runs[r], plan, kernels[k]->name, NULL);
            clattn_attention_destroy(&plan);
        }
        const char *second = (char *)c.tensors[OUTPUT].memory + alone.tensors[OUTPUT].bytes;
        CHECK(memcmp(second, alone.tensors[OUTPUT].memory, alone.tensors[OUTPUT].bytes) == 0,
              "%s: the batch changes a row", kernels[k]->name);
        case_free(&c);
        case_free(&alone);
    }
}

/* The vectors of the CPU kernel are as wide as the device's; here all widths have their turn, each with columns that
 * are half a vector more than whole ones, that overlap, and that are fewer than a vector. */
static void test_widths(void) {
    static const int widths[] = {4, 8, 16};
    static const case_shape shape = {1, 2, 1, 75, 170};
    kernel_tally tally = {0};
    if (!is_kernel_wanted(clattn__attn_cpu.name)) return;
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++) {
        const int dims[] = {2 * widths[w] + widths[w] / 2, widths[w] + 1, widths[w] - 1};
        for (int d = 0; d < 3; d++) {
            const case_variant variant = {
                "widths", "widths", 0, .head_dim = dims[d], .value_dim = dims[d], .causal = CLATTN_CAUSAL_BOTTOM_RIGHT,
                .lse = 1};
            test_case c;
            case_create(&c, &variant, &shape, w);
            clattn__attn_cpu_force_width(widths[w]);
            run_kernel(&c, &clattn__attn_cpu, &tally);
            clattn__attn_cpu_force_width(0);
            case_free(&c);
        }
    }
}

static const clattn_test attention_tests[] = {
    {"sizes", test_sizes},           {"dims", test_dims},
    {"layouts", test_layouts},       {"scale", test_scale},
    {"extremes", test_extremes},     {"causal", test_causal},
    {"window", test_window},         {"masks", test_masks},
    {"lengths", test_lengths},       {"terms", test_terms},
    {"outputs", test_outputs},       {"storage", test_storage},
    {"zero_sizes", test_zero_sizes}, {"batch_independence", test_batch_independence},
    {"widths", test_widths},         {NULL, NULL}};
static const clattn_test_suite suites[] = {{"attention", attention_tests}, {NULL, NULL}};

int main(int argc, char **argv) {
    return clattn_test_main_with(&context, CLATTN_VERIFY_NEVER, suites, argc, argv);
}
