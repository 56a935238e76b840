/* Verification: a kernel variant meets small adversarial cases, and the scalar reference says what is right.
 *
 * What has gone wrong in drivers, and so what the cases hold: odd lengths around the tile sizes, one row, one key; both
 * causal alignments with rows that have no key; logits of +-1e4; fully masked rows; padding and lengths that hide NaN;
 * grouped heads; strides with gaps; packed sequences with NaN behind the last. Each output is surrounded by canaries
 * and starts as NaN, and each case runs twice, the second time with one work-group for all keys of its rows: the
 * results must be bit-equal. */
#include "registry/registry.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ref/ref.h"

enum { CANARIES = 64 };                 /* elements before and behind every output */
static const uint16_t CANARY = 0x7fedu; /* a NaN that no arithmetic makes: alone in 16 bits, or twice as float32 */

typedef struct verify_case {
    int64_t query_len, kv_len;
    int64_t batch, group;   /* group: query heads per kv head */
    double logits;          /* typical size of a logit */
    int causal_offset_kind; /* 0: top-left, 1: bottom-right, 2: negative, so that first rows are empty */
    bool causal;
} verify_case;

static int64_t tile_keys(const clattn__attn_kernel *kernel) { return kernel->block_kv > 0 ? kernel->block_kv : 16; }

/* The variant's own tile sizes give the lengths: below, at and above one tile, and two tiles with a tail. With causal
 * order too, all rows of the second case have keys of two tiles. */
static int make_cases(const clattn__attn_kernel *kernel, bool long_form, verify_case *cases) {
    const int64_t bq = kernel->block_q > 0 ? kernel->block_q : 16, bk = tile_keys(kernel);
    const bool causal = kernel->problem.features & CLATTN__CAUSAL;
    int n = 0;
    cases[n++] = (verify_case){1, 1, 1, 1, 1, 0, false};
    cases[n++] = (verify_case){7, bk + 7, 2, 1, 3, 1, causal};
    cases[n++] = (verify_case){bq + 1, bk - 1 > 0 ? bk - 1 : 1, 1, 3, 1e4, 2, causal};
    if (!long_form) return n;
    cases[n++] = (verify_case){bq, bk, 1, 1, 1, 0, causal};
    cases[n++] = (verify_case){1, 2 * bk + 7, 2, 8, 3, 1, causal};
    cases[n++] = (verify_case){2 * bq + 1, 65, 1, 2, 3, 0, causal};
    cases[n++] = (verify_case){65, 129, 2, 1, -1e4, 1, causal};
    cases[n++] = (verify_case){63, 7, 1, 1, 1, 1, causal};
    return n;
}
enum { MOST_CASES = 8 };

/* ---- data ------------------------------------------------------------------------------------------------------- */

static uint64_t next_random(uint64_t *state) { /* splitmix64, Steele, Lea and Flood 2014 */
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static double uniform(uint64_t *state) { return (double)(next_random(state) >> 11) * 0x1p-52 - 1.0; } /* -1..1 */

/* One tensor on both sides. */
typedef struct twin {
    void *host;
    clattn__buffer device;
    size_t bytes;
} twin;

static const char *const slot_names[ATTN_SLOTS] = {
#define SLOT_NAME(SLOT, name, type) [ATTN_##SLOT] = #name,
    ATTN_TENSORS(SLOT_NAME) ATTN_FEATURE_TENSORS(SLOT_NAME)
#undef SLOT_NAME
};

typedef struct stage {
    clattn__env *env;
    clattn__attn_kernel *kernel;
    const verify_case *c;
    int64_t Hq, Hkv;
    bool packed;
    int64_t gap;                  /* elements between rows */
    twin t[ATTN_SLOTS];           /* by clattn_attn_slot */
    float *want[ATTN_SLOTS];      /* outputs by the reference */
    float *tolerance[ATTN_SLOTS]; /* of outputs, by the reference */
    float *dense[2];              /* keys and values of a cache as floats, side by side: what the reference reads */
    clattn__attn_call call;
    clattn__ref_attention ref;
    uint64_t seed;
} stage;

static bool twin_make(stage *s, int which, int64_t count, size_t unit) {
    s->t[which].bytes = (size_t)count * unit;
    s->t[which].host = clattn__alloc((size_t)count + 1, unit);
    return s->t[which].host && clattn__buffer_create(s->env, s->t[which].bytes, &s->t[which].device) == CLATTN_OK;
}

static void store(const stage *s, int which, int64_t at, double value) {
    clattn__ref_store(s->t[which].host, s->kernel->problem.dtype, at, value);
}

/* Sequence b of a packed batch has `longest` rows, the ones behind the first a row less; starts[batch] is their end. */
static int64_t packed_start(int64_t longest, int64_t b) {
    return b == 0 || longest == 0 ? 0 : longest + (b - 1) * (longest - 1);
}

/* Which row of its tensor row i of batch entry b is. */
static int64_t row_of(const stage *s, int64_t longest, int64_t b, int64_t i) {
    return i + (s->packed ? packed_start(longest, b) : b * longest);
}

/* q, k, v as (B, S, H, D + gap): strided, with NaN in the gaps, and behind the last of packed sequences. A gap of 8
 * leaves rows on multiples of 16 bytes, which some kernels read in wider pieces than others. */
enum { ODD_GAP = 3, EVEN_GAP = 8 };

/* Keys behind the first tile are larger, and with them their scores: what was summed before them has to be rescaled. */
static double growth_of(const stage *s, int64_t key) { return key < tile_keys(s->kernel) ? 1.0 : 4.0; }

static bool fill_operand(stage *s, int which, int64_t heads, int64_t rows, int64_t width, double size,
                         clattn_place *place, clattn__ref_array *ref) {
    const int64_t B = s->c->batch, row = heads * (width + s->gap);
    if (!twin_make(s, which, B * rows * row, clattn_dtype_size(s->kernel->problem.dtype))) return false;
    const int64_t used = row_of(s, rows, B, 0) * heads, batch = s->packed ? 0 : rows * row;
    for (int64_t i = 0; i < B * rows * heads; i++) {
        const double here = which == ATTN_KEY ? size * growth_of(s, i / heads % rows) : size;
        for (int64_t d = 0; d < width + s->gap; d++)
            store(s, which, i * (width + s->gap) + d, i < used && d < width ? here * uniform(&s->seed) : NAN);
    }
    *place = (clattn_place){.batch = batch, .head = width + s->gap, .row = row};
    *ref = (clattn__ref_array){s->t[which].host, s->kernel->problem.dtype, {batch, width + s->gap, row, 1}};
    return true;
}

/* A table of int32, (batch, count). */
static int32_t *make_ints(stage *s, int which, int64_t batch, int64_t count, clattn__ref_array *ref) {
    if (!twin_make(s, which, batch * count, 4)) return NULL;
    *ref = (clattn__ref_array){s->t[which].host, CLATTN_I32, {count, 0, 1, 1}};
    return s->t[which].host;
}

/* ---- keys and values as a cache has them ------------------------------------------------------------------------- */

/* Pages of a few tokens, taken from the last one down; page 0 is nobody's. A ring that has overwritten some. */
enum { PAGE_ROWS = 3, OVERWRITTEN = 5 };

static int64_t pages_per_entry(const stage *s) { return (s->c->kv_len + PAGE_ROWS - 1) / PAGE_ROWS; }

/* Which row of which entry of the cache, counted through, is key j of batch entry b. */
static int64_t cell_row(const stage *s, int64_t b, int64_t j) {
    const uint32_t features = s->kernel->problem.features;
    const int64_t pages = pages_per_entry(s);
    if (features & CLATTN__PAGED)
        return (s->c->batch * pages - (b * pages + j / PAGE_ROWS)) * PAGE_ROWS + j % PAGE_ROWS;
    return b * s->c->kv_len + (j + (features & CLATTN__RING ? OVERWRITTEN : 0)) % s->c->kv_len;
}

static bool fill_cell_table(stage *s) {
    const uint32_t features = s->kernel->problem.features;
    const int64_t B = s->c->batch, M = features & CLATTN__PAGED ? pages_per_entry(s) : 1;
    clattn__ref_array unused;
    s->call.args.cells = (clattn_cells){.table = {.batch = M, .row = 1},
                                        .capacity = (int)s->c->kv_len,
                                        .page_size = features & CLATTN__PAGED ? PAGE_ROWS : 0,
                                        .pages = (int)(B * M + 1),
                                        .ring = (features & CLATTN__RING) != 0};
    if (!(features & (CLATTN__PAGED | CLATTN__RING))) return true;
    int32_t *table = make_ints(s, ATTN_TABLE, B, M, &unused);
    for (int64_t i = 0; table && i < B * M; i++)
        table[i] = (int32_t)(features & CLATTN__PAGED ? B * M - i : s->c->kv_len + OVERWRITTEN);
    return table != NULL;
}

/* What a kernel reckons with in place of x, which it read from a cell. */
static float as_read(const stage *s, float x) {
    const clattn__attn_problem *p = &s->kernel->problem;
    float room;
    if (!(p->features & CLATTN__CELLS) || !s->kernel->impl->rounds_weights) return x;
    clattn__ref_store(&room, p->dtype, 0, (double)x);
    return (float)clattn__ref_load(&room, p->dtype, 0);
}

/* Cells (entry, row, head, width + gap) of one kind; NaN in the gaps and in rows that are nobody's. */
static bool fill_cells(stage *s, int which, int64_t width, double size, clattn_place *place, clattn_place *scale_place,
                       clattn__ref_array *ref) {
    const clattn__attn_problem *p = &s->kernel->problem;
    const clattn_dtype dtype = p->features & CLATTN__CELLS ? p->cells : p->dtype;
    const bool paged = p->features & CLATTN__PAGED, bytes = dtype == CLATTN_I8;
    const int scales = which == ATTN_KEY ? ATTN_KEY_SCALES : ATTN_VALUE_SCALES;
    const int64_t B = s->c->batch, Sk = s->c->kv_len, wide = width + s->gap, row = s->Hkv * wide;
    const int64_t entry_rows = paged ? PAGE_ROWS : Sk, rows = paged ? s->call.args.cells.pages * PAGE_ROWS : B * Sk;
    float *dense = s->dense[which == ATTN_VALUE] = clattn__alloc((size_t)(B * Sk * s->Hkv * width) + 1, sizeof *dense);
    if (!dense || !twin_make(s, which, rows * row, clattn_dtype_size(dtype))) return false;
    if (bytes && !twin_make(s, scales, rows * s->Hkv, sizeof(float))) return false;
    for (int64_t i = 0; i < rows * row; i++) clattn__ref_store(s->t[which].host, dtype, i, bytes ? 127 : NAN);
    for (int64_t i = 0; i < rows * s->Hkv && bytes; i++) ((float *)s->t[scales].host)[i] = NAN;
    for (int64_t i = 0; i < B * Sk * s->Hkv; i++) {
        const int64_t line = cell_row(s, i / s->Hkv / Sk, i / s->Hkv % Sk) * s->Hkv + i % s->Hkv;
        const double here = which == ATTN_KEY ? size * growth_of(s, i / s->Hkv % Sk) : size;
        const float scale = bytes ? (float)(here / 127 * (1 + 0.5 * uniform(&s->seed))) : 1.0f;
        if (bytes) ((float *)s->t[scales].host)[line] = scale;
        for (int64_t d = 0; d < width; d++) {
            const double x = uniform(&s->seed);
            clattn__ref_store(s->t[which].host, dtype, line * wide + d, bytes ? floor(127 * x) : here * x);
            dense[i * width + d] =
                as_read(s, scale * (float)clattn__ref_load(s->t[which].host, dtype, line * wide + d));
        }
    }
    *place = (clattn_place){.batch = entry_rows * row, .head = wide, .row = row};
    *scale_place = (clattn_place){.batch = entry_rows * s->Hkv, .head = 1, .row = s->Hkv};
    *ref = (clattn__ref_array){dense, CLATTN_F32, {Sk * s->Hkv * width, width, s->Hkv * width, 1}};
    return true;
}

static bool fill_keys_and_values(stage *s, double size) {
    const clattn__attn_problem *p = &s->kernel->problem;
    clattn_attn_args *a = &s->call.args;
    const int64_t Sk = s->c->kv_len;
    if (p->features & CLATTN__CACHE_FEATURES)
        return fill_cell_table(s) && fill_cells(s, ATTN_KEY, p->head_dim, size, &a->key, &a->key_scales, &s->ref.key) &&
               fill_cells(s, ATTN_VALUE, p->value_dim, 1.0, &a->value, &a->value_scales, &s->ref.value);
    return fill_operand(s, ATTN_KEY, s->Hkv, Sk, p->head_dim, size, &a->key, &s->ref.key) &&
           fill_operand(s, ATTN_VALUE, s->Hkv, Sk, p->value_dim, 1.0, &a->value, &s->ref.value);
}

static void poison_cells(stage *s, int64_t b, int64_t j) {
    const clattn__attn_problem *p = &s->kernel->problem;
    const clattn_dtype dtype = p->features & CLATTN__CELLS ? p->cells : p->dtype;
    for (int64_t i = 0; i < 2 * s->Hkv; i++) {
        const bool key = i % 2 == 0;
        const int64_t width = key ? p->head_dim : p->value_dim, line = cell_row(s, b, j) * s->Hkv + i / 2;
        float *dense = s->dense[!key] + ((b * s->c->kv_len + j) * s->Hkv + i / 2) * width;
        for (int64_t d = 0; d < width; d++) dense[d] = NAN;
        if (dtype == CLATTN_I8) ((float *)s->t[key ? ATTN_KEY_SCALES : ATTN_VALUE_SCALES].host)[line] = NAN;
        for (int64_t d = 0; d < width && dtype != CLATTN_I8; d++)
            clattn__ref_store(s->t[key ? ATTN_KEY : ATTN_VALUE].host, dtype, line * (width + s->gap) + d, NAN);
    }
}

/* ---- masks and terms --------------------------------------------------------------------------------------------- */

static void poison_keys(stage *s, int64_t b, int64_t j) {
    if (s->kernel->problem.features & CLATTN__CACHE_FEATURES) {
        poison_cells(s, b, j);
        return;
    }
    const int64_t rows = s->c->kv_len, D = s->kernel->problem.head_dim, Dv = s->kernel->problem.value_dim;
    const int64_t row = row_of(s, rows, b, j);
    if (j >= rows - s->call.args.always_keys) return; /* no mask hides those */
    if (row >= row_of(s, rows, b + 1, 0)) return;     /* a packed sequence is shorter than the mask */
    for (int64_t h = 0; h < s->Hkv; h++) {
        for (int64_t d = 0; d < D; d++) store(s, ATTN_KEY, (row * s->Hkv + h) * (D + s->gap) + d, NAN);
        for (int64_t d = 0; d < Dv; d++) store(s, ATTN_VALUE, (row * s->Hkv + h) * (Dv + s->gap) + d, NAN);
    }
}

/* Masks of every kind that the variant knows. The last batch entry loses all its keys by padding or length, so that
 * whole rows are empty; hidden keys hold NaN. */
static bool fill_masks(stage *s) {
    const uint32_t features = s->kernel->problem.features;
    const int64_t B = s->c->batch, Sq = s->c->query_len, Sk = s->c->kv_len;
    clattn_attn_args *args = &s->call.args;
    if (features & (CLATTN__MASK_BOOL | CLATTN__MASK_FLOAT)) {
        const bool boolean = features & CLATTN__MASK_BOOL;
        if (!twin_make(s, ATTN_MASK, Sq * Sk, boolean ? 1 : 4)) return false;
        for (int64_t i = 0; i < Sq * Sk; i++) {
            const bool allowed = (i / Sk) % 5 != 4 && uniform(&s->seed) > -0.6; /* every fifth row is empty */
            if (boolean)
                ((uint8_t *)s->t[ATTN_MASK].host)[i] = allowed;
            else
                ((float *)s->t[ATTN_MASK].host)[i] = allowed ? (float)uniform(&s->seed) : -INFINITY;
        }
        args->mask = (clattn_place){.row = Sk};
        args->mask_column = 1;
        s->ref.mask = (clattn__ref_array){s->t[ATTN_MASK].host, boolean ? CLATTN_BOOL : CLATTN_F32, {0, 0, Sk, 1}};
    }
    if (features & CLATTN__PADDING) {
        if (!twin_make(s, ATTN_PADDING, B * Sk, 1)) return false;
        for (int64_t b = 0; b < B; b++)
            for (int64_t j = 0; j < Sk; j++) {
                const bool allowed = (b == 0 || b < B - 1) && (Sk < 4 || j % 4 != 3);
                ((uint8_t *)s->t[ATTN_PADDING].host)[b * Sk + j] = allowed;
                if (!allowed) poison_keys(s, b, j);
            }
        args->padding_batch = Sk;
        s->ref.padding = (clattn__ref_array){s->t[ATTN_PADDING].host, CLATTN_BOOL, {Sk, 0, 0, 1}};
    }
    if (features & CLATTN__LENGTHS) {
        if (!twin_make(s, ATTN_LENGTHS, B, 4)) return false;
        for (int64_t b = 0; b < B; b++) {
            const bool crosses = Sk > tile_keys(s->kernel); /* then so does the length */
            const int64_t length = b > 0 ? 0 : crosses ? Sk - 1 : Sk - Sk / 3;
            ((int32_t *)s->t[ATTN_LENGTHS].host)[b] = (int32_t)length;
            for (int64_t j = length; j < Sk; j++) poison_keys(s, b, j);
        }
        s->ref.lengths = (clattn__ref_array){s->t[ATTN_LENGTHS].host, CLATTN_I32, {1, 0, 0, 0}};
    }
    return true;
}

static bool fill_head_terms(stage *s) {
    const uint32_t features = s->kernel->problem.features;
    const struct {
        uint32_t bit;
        int which;
        clattn__ref_array *ref;
        double size;
    } terms[] = {{CLATTN__ALIBI, ATTN_ALIBI, &s->ref.alibi, 0.5}, {CLATTN__SINKS, ATTN_SINKS, &s->ref.sinks, 2.0}};
    for (size_t i = 0; i < CLATTN__COUNT(terms); i++) {
        if (!(features & terms[i].bit)) continue;
        if (!twin_make(s, terms[i].which, s->Hq, 4)) return false;
        for (int64_t h = 0; h < s->Hq; h++)
            ((float *)s->t[terms[i].which].host)[h] = (float)(terms[i].size * uniform(&s->seed));
        *terms[i].ref = (clattn__ref_array){s->t[terms[i].which].host, CLATTN_F32, {1, 0, 0, 0}};
    }
    return true;
}

/* Documents change twice along queries and keys; every seventh query belongs to none. */
static bool fill_documents(stage *s) {
    const int64_t B = s->c->batch, Sq = s->c->query_len, Sk = s->c->kv_len;
    int32_t *query = make_ints(s, ATTN_QUERY_DOCUMENTS, B, Sq, &s->ref.query_documents);
    int32_t *key = make_ints(s, ATTN_KEY_DOCUMENTS, B, Sk, &s->ref.key_documents);
    if (!query || !key) return false;
    for (int64_t i = 0; i < B * Sq; i++) query[i] = i % 7 == 6 ? -1 : (int32_t)(i % Sq * 3 / Sq);
    for (int64_t j = 0; j < B * Sk; j++) key[j] = (int32_t)(j % Sk * 3 / Sk);
    s->call.args.query_documents_batch = Sq;
    s->call.args.key_documents_batch = Sk;
    return true;
}

static bool fill_starts(stage *s, int which, int64_t longest, clattn__ref_array *ref) {
    int32_t *starts = make_ints(s, which, s->c->batch + 1, 1, ref);
    for (int64_t b = 0; starts && b <= s->c->batch; b++) starts[b] = (int32_t)packed_start(longest, b);
    return starts != NULL;
}

static void set_dropout(stage *s) {
    clattn_attn_args *args = &s->call.args;
    args->dropout_threshold = s->ref.dropout_threshold = 0x40000000; /* p = 1/4 */
    args->dropout_factor = (float)(4.0 / 3.0);
    args->seed_low = 20u;
    args->seed_high = 11u;
    args->batch_first = 1;
    args->head_first = 2;
    s->ref.dropout_factor = 4.0 / 3.0;
    s->ref.dropout_seed = (uint64_t)11 << 32 | 20;
    s->ref.batch_first = 1;
    s->ref.head_first = 2;
}

/* What has slots of its own, and dropout. */
static bool fill_features(stage *s) {
    const uint32_t features = s->kernel->problem.features;
    const int64_t B = s->c->batch, D = s->kernel->problem.head_dim;
    clattn__ref_array *const vectors[] = {&s->ref.score_weight, &s->ref.score_bias};
    for (int i = 0; i < 2; i++) {
        if (!(features & (i == 0 ? CLATTN__SCORE_WEIGHT : CLATTN__SCORE_BIAS))) continue;
        if (!twin_make(s, ATTN_SCORE_WEIGHT + i, D, 4)) return false;
        *vectors[i] = (clattn__ref_array){s->t[ATTN_SCORE_WEIGHT + i].host, CLATTN_F32, {1, 0, 0, 0}};
        for (int64_t d = 0; d < D; d++) clattn__ref_set(vectors[i], d, 0, 0, 0, uniform(&s->seed));
    }
    if (features & CLATTN__DROPOUT) set_dropout(s);
    if (features & CLATTN__PREFIX) {
        int32_t *prefix = make_ints(s, ATTN_PREFIX, B, 1, &s->ref.prefix);
        for (int64_t b = 0; prefix && b < B; b++) prefix[b] = (int32_t)(b == 0 ? s->c->kv_len / 2 : 0);
        if (!prefix) return false;
    }
    if ((features & CLATTN__DOCUMENTS) && !fill_documents(s)) return false;
    return !s->packed || (fill_starts(s, ATTN_QUERY_STARTS, s->c->query_len, &s->ref.query_starts) &&
                          fill_starts(s, ATTN_KEY_STARTS, s->c->kv_len, &s->ref.key_starts));
}

/* Outputs are dense behind CANARIES elements; `place` starts behind them. Those of packed sequences are packed, but for
 * weights and scores; rows behind the last sequence must stay as they are, which is NaN. */
static bool make_output(stage *s, int which, clattn_dtype dtype, int64_t heads, int64_t rows, int64_t width,
                        clattn_place *place, clattn__ref_array *ref, clattn__ref_array *tolerance) {
    const int64_t count = s->c->batch * heads * rows * width;
    if (!twin_make(s, which, count + 2 * CANARIES, clattn_dtype_size(dtype))) return false;
    s->want[which] = clattn__alloc((size_t)count + 1, sizeof(float));
    s->tolerance[which] = clattn__alloc((size_t)count + 1, sizeof(float));
    if (!s->want[which] || !s->tolerance[which]) return false;
    const bool packed = s->packed && which != ATTN_WEIGHTS && which != ATTN_SCORES;
    for (int64_t i = 0; packed && i < count; i++) s->want[which][i] = NAN;
    const int64_t head = (packed ? s->c->batch : 1) * rows * width, batch = packed ? 0 : heads * head;
    *place = (clattn_place){.offset = CANARIES, .batch = batch, .head = head, .row = width};
    *ref = (clattn__ref_array){s->want[which], CLATTN_F32, {batch, head, width, 1}};
    *tolerance = *ref;
    tolerance->data = s->tolerance[which];
    return true;
}

static bool make_outputs(stage *s) {
    const clattn__attn_problem *p = &s->kernel->problem;
    clattn_attn_args *args = &s->call.args;
    const int64_t Sq = s->c->query_len, Sk = s->c->kv_len;
    clattn__ref_attention *ref = &s->ref;
    clattn_place lse = {0};
    if (!make_output(s, ATTN_OUTPUT, p->dtype, s->Hq, Sq, p->value_dim, &args->output, &ref->output, &ref->tolerance))
        return false;
    if ((p->features & CLATTN__LSE) &&
        !make_output(s, ATTN_LSE, CLATTN_F32, s->Hq, Sq, 1, &lse, &ref->lse, &ref->lse_tolerance))
        return false;
    args->lse_offset = lse.offset;
    args->lse_batch = lse.batch;
    args->lse_head = lse.head;
    if ((p->features & (CLATTN__WEIGHTS | CLATTN__AVERAGED_WEIGHTS)) &&
        !make_output(s, ATTN_WEIGHTS, CLATTN_F32, p->features & CLATTN__WEIGHTS ? s->Hq : 1, Sq, Sk, &args->weights,
                     &ref->weights, &ref->weights_tolerance))
        return false;
    return !(p->features & CLATTN__SCORES) ||
           make_output(s, ATTN_SCORES, CLATTN_F32, s->Hq, Sq, Sk, &args->scores, &ref->scores, &ref->scores_tolerance);
}

/* ---- one case --------------------------------------------------------------------------------------------------- */

static void set_options(stage *s) {
    const verify_case *c = s->c;
    const clattn__attn_problem *p = &s->kernel->problem;
    const uint32_t features = p->features;
    clattn_attn_args *args = &s->call.args;
    int offset = c->causal_offset_kind == 0 ? 0 : c->causal_offset_kind == 1 ? (int)(c->kv_len - c->query_len) : -3;
    if (features & CLATTN__OFFSET_FROM_LENGTHS) offset = -(int)c->query_len;
    const double scale = c->logits < 0 ? -1.0 : 1.0; /* negative logits come from a negative scale */
    *args = (clattn_attn_args){.batch = (int)c->batch,
                               .query_heads = (int)s->Hq,
                               .kv_heads = (int)s->Hkv,
                               .query_len = (int)c->query_len,
                               .kv_len = (int)c->kv_len,
                               .mask_len = (int)c->kv_len,
                               .mask_column = 1,
                               .causal = c->causal,
                               .causal_offset = offset,
                               .window_left = features & CLATTN__WINDOW ? 5 : INT_MAX,
                               .window_right = features & CLATTN__WINDOW ? 9 : INT_MAX,
                               .always_keys = features & CLATTN__ALWAYS_KEYS ? 1 : 0,
                               .scale = (float)(scale / sqrt((double)p->head_dim)),
                               .inverse_temperature = 0.5f,
                               .softcap = features & CLATTN__SOFTCAP ? 2.0f : 0.0f,
                               .weights_factor = features & CLATTN__AVERAGED_WEIGHTS ? 1.0f / (float)s->Hq : 1.0f};
    s->ref = (clattn__ref_attention){.weight_dtype = s->kernel->impl->rounds_weights ? p->dtype : CLATTN_F32,
                                     .batch = c->batch,
                                     .query_heads = s->Hq,
                                     .kv_heads = s->Hkv,
                                     .query_len = c->query_len,
                                     .kv_len = c->kv_len,
                                     .head_dim = p->head_dim,
                                     .value_dim = p->value_dim,
                                     .scale = args->scale,
                                     .temperature = 2.0,
                                     .softcap = args->softcap,
                                     .causal = c->causal,
                                     .offset = offset,
                                     .offset_from_lengths = features & CLATTN__OFFSET_FROM_LENGTHS,
                                     .window_left = features & CLATTN__WINDOW ? 5 : -1,
                                     .window_right = features & CLATTN__WINDOW ? 9 : -1,
                                     .mask_len = c->kv_len,
                                     .always_keys = args->always_keys,
                                     .average_weights = features & CLATTN__AVERAGED_WEIGHTS,
                                     .weights_factor = args->weights_factor,
                                     .scores_mode = p->scores,
                                     .score = features & CLATTN__SCORE_GAUSSIAN   ? CLATTN_SCORE_GAUSSIAN
                                              : features & CLATTN__SCORE_ADDITIVE ? CLATTN_SCORE_ADDITIVE
                                              : features & CLATTN__SCORE_LINEAR   ? CLATTN_SCORE_ADDITIVE_LINEAR
                                                                                  : CLATTN_SCORE_DOT,
                                     .query_total = c->batch * c->query_len,
                                     .key_total = c->batch * c->kv_len,
                                     .align_end = c->causal_offset_kind == 1};
    args->query_total = (int)s->ref.query_total;
    args->key_total = (int)s->ref.key_total;
    args->align_end = s->ref.align_end;
}

static clattn_status upload(stage *s) {
    for (int i = 0; i < ATTN_SLOTS; i++) {
        if (!s->t[i].host) continue;
        if (s->want[i]) /* canaries and poison alike */
            for (size_t w = 0; w < s->t[i].bytes / 2; w++) ((uint16_t *)s->t[i].host)[w] = CANARY;
        clattn_status status = clattn__buffer_write(s->env, s->t[i].device.mem, 0, s->t[i].bytes, s->t[i].host);
        if (status != CLATTN_OK) return status;
    }
    return CLATTN_OK;
}

static clattn_status run_once(stage *s) {
    clattn_status status = upload(s);
    if (status == CLATTN_OK) status = s->kernel->impl->enqueue(s->kernel, &s->call);
    for (int i = 0; i < ATTN_SLOTS && status == CLATTN_OK; i++)
        if (s->want[i]) status = clattn__buffer_read(s->env, s->t[i].device.mem, 0, s->t[i].bytes, s->t[i].host);
    return status;
}

static clattn_status wrong(const stage *s, const char *format, ...) {
    char what[192];
    va_list values;
    va_start(values, format);
    vsnprintf(what, sizeof what, format, values);
    va_end(values);
    char features[256];
    clattn__features_text(s->kernel->problem.features, features, sizeof features);
    return clattn__fail(CLATTN_WRONG_RESULT,
                        "%s with %lld queries, %lld keys, %lld+%lld heads, head_dim %lld, value_dim %lld, %s%s: %s",
                        s->kernel->impl->name, (long long)s->c->query_len, (long long)s->c->kv_len, (long long)s->Hq,
                        (long long)s->Hkv, (long long)s->kernel->problem.head_dim,
                        (long long)s->kernel->problem.value_dim, features, s->c->causal ? "" : ", causal off", what);
}

static clattn_status check_canaries(const stage *s, int which, clattn_dtype dtype) {
    const size_t edge = CANARIES * clattn_dtype_size(dtype) / 2, halves = s->t[which].bytes / 2;
    const uint16_t *half = s->t[which].host;
    for (size_t i = 0; i < edge; i++)
        if (half[i] != CANARY || half[halves - 1 - i] != CANARY) return wrong(s, "it wrote outside its output");
    return CLATTN_OK;
}

static clattn_status compare(const stage *s, int which, clattn_dtype dtype, double *worst) {
    const int64_t count = (int64_t)(s->t[which].bytes / clattn_dtype_size(dtype)) - 2 * CANARIES;
    for (int64_t i = 0; i < count; i++) {
        const double got = clattn__ref_load(s->t[which].host, dtype, CANARIES + i), want = (double)s->want[which][i];
        double tolerance = (double)s->tolerance[which][i];
        if (dtype == CLATTN_F16) tolerance += 0x1p-11 * fabs(want) + 0x1p-25; /* half an ulp of the stored type */
        if (dtype == CLATTN_BF16) tolerance += 0x1p-8 * fabs(want);
        if (got == want || (isnan(got) && isnan(want))) continue;
        const double ratio = fabs(got - want) / tolerance;
        if (!(ratio <= *worst)) *worst = ratio; /* NaN is the worst, and wrong, so nothing follows it */
        if (!(fabs(got - want) <= tolerance))
            return wrong(s, "element %lld of %s is %.9g; the reference says %.9g, tolerance %.3g", (long long)i,
                         slot_names[which], got, want, tolerance);
    }
    return CLATTN_OK;
}

static clattn_status check_case(stage *s, double *worst) {
    const clattn_dtype dtype = s->kernel->problem.dtype;
    clattn_status status = clattn__ref_attention_run(&s->ref);
    if (status == CLATTN_OK) status = run_once(s);
    void *first = status == CLATTN_OK ? clattn__alloc(s->t[ATTN_OUTPUT].bytes + 1, 1) : NULL;
    if (status == CLATTN_OK && !first) status = CLATTN_OUT_OF_MEMORY;
    if (status == CLATTN_OK) memcpy(first, s->t[ATTN_OUTPUT].host, s->t[ATTN_OUTPUT].bytes);
    for (int i = 0; i < ATTN_SLOTS && status == CLATTN_OK; i++) {
        if (!s->want[i]) continue;
        status = check_canaries(s, i, i == ATTN_OUTPUT ? dtype : CLATTN_F32);
        if (status == CLATTN_OK) status = compare(s, i, i == ATTN_OUTPUT ? dtype : CLATTN_F32, worst);
    }
    s->call.unshared = true; /* few rows always share their keys among work-groups; many, in use, do not */
    if (status == CLATTN_OK) status = run_once(s);
    if (status == CLATTN_OK && memcmp(first, s->t[ATTN_OUTPUT].host, s->t[ATTN_OUTPUT].bytes) != 0)
        status = wrong(s, "two runs on the same input differ");
    clattn__free(first);
    return status;
}

static clattn_status run_case(clattn__attn_kernel *kernel, const verify_case *c, double *worst) {
    const clattn__attn_problem *p = &kernel->problem;
    stage s = {
        .env = kernel->programs->env, .kernel = kernel, .c = c, .Hkv = 2, .seed = 20170612u + (uint64_t)c->kv_len};
    s.Hq = s.Hkv * c->group;
    s.packed = p->features & CLATTN__VARLEN;
    s.gap = c->batch > 1 ? EVEN_GAP : ODD_GAP;
    set_options(&s);
    /* uniform entries of size a in q and k give logits of about a^2 / 3 * sqrt(D) before the scale of 1 / sqrt(D) */
    const double size = sqrt(3 * fabs(c->logits));
    bool made = fill_operand(&s, ATTN_QUERY, s.Hq, c->query_len, p->head_dim, size, &s.call.args.query, &s.ref.query) &&
                fill_keys_and_values(&s, size) && fill_masks(&s) && fill_head_terms(&s) && fill_features(&s) &&
                make_outputs(&s);
    for (int i = 0; i < ATTN_SLOTS; i++) s.call.mem[i] = s.t[i].device.mem;
    clattn_status status = made ? check_case(&s, worst) : CLATTN_OUT_OF_MEMORY;
    for (int i = 0; i < ATTN_SLOTS; i++) {
        clattn__buffer_clear(s.env, &s.t[i].device);
        clattn__free(s.t[i].host);
        clattn__free(s.want[i]);
        clattn__free(s.tolerance[i]);
    }
    clattn__free(s.dense[0]);
    clattn__free(s.dense[1]);
    return status;
}

clattn_status clattn__attn_verify(clattn__attn_kernel *kernel, bool long_form, clattn__verify_stats *stats) {
    verify_case cases[MOST_CASES];
    clattn__verify_stats own = {0};
    const int count = make_cases(kernel, long_form, cases);
    clattn_status first = CLATTN_OK;
    for (int i = 0; i < count && (long_form || first == CLATTN_OK); i++) {
        double worst = 0;
        clattn_status status = run_case(kernel, &cases[i], &worst);
        own.cases++;
        if (!isnan(own.worst) && !(worst <= own.worst)) own.worst = worst;
        if (status != CLATTN_OK) own.failures++;
        if (first == CLATTN_OK) first = status;
    }
    if (stats) *stats = own;
    return first;
}
