/* Attention on CPU devices: one work-item per work-group owns a tile of query rows; no local memory, no barriers.
 *
 *                head_dim               keys ->                        Query rows lie in the lanes of the vectors:
 *              +----------+      +----------+----------+---+             scores  S^T (key, row)  = K x Q^T
 *   BLOCK_Q    | Q^T in   |  x   | BLOCK_KV | BLOCK_KV |   |             output  O (row, column) = P^T x V
 *   = NV * VW  | private  |      | keys     | keys     |   |           so that neither maximum nor sum ever crosses
 *   rows       +----------+      +----------+----------+---+           lanes, and K and V are read as they lie.
 *                                   skip, full or partial
 *
 * For one block of keys after the other:
 *   passes 1, 2  MR keys x NV vectors of scores in registers along head_dim, terms and masks, stored to p (key, row)
 *   pass 3       running maximum, p = 2^(score - maximum), running sum
 *   pass 4       MV rows x NC vectors of output in registers along the keys; old output is rescaled as it is loaded
 * and at the end
 *   pass 5       output / sum, logsumexp.
 *
 * The query is loaded as query * scale * log2(e) / temperature: scores are exponents of 2, any scale will do. Blocks
 * begin at multiples of BLOCK_KV: a row's result has the same bits whatever tile, batch or chunk of the query it is
 * computed in. Blocks without an allowed key are skipped; only blocks with a forbidden one (partial) compare. Where the
 * rows' ranges end within a block (the diagonal, the edges of a window), each vector of rows goes over its own keys.
 * What is forbidden has the score -inf and weighs exactly 0; where V holds an infinity or NaN, 0 would still spoil the
 * sum. Then the tile is done again, carefully: partial blocks look through V first and may go row by row.
 *
 * Tails. Keys: the last register tile repeats the last key and nobody reads the copies. Rows: lanes without a row have
 * a query of zeros, vectors without a row are left out. Columns of V that are no whole vectors: half a vector
 * more, or value tiles that overlap; where V has to become floats anyhow, its copy is padded.
 *
 * Heads. Where all heads have the same mask, a work-group does the same rows of several: the mask of a block is read
 * and turned once, then each head goes through passes 1 to 4.
 *
 * Tiles. Where K and V are of 16 bits, a work-group does several tiles of rows of one head: a block's keys and values
 * become floats once, then each tile goes through passes 1 to 4.
 *
 * Options: HEAD_DIM, VALUE_DIM, STORAGE_F16, STORAGE_BF16, every feature as 0 or 1, and the tile sizes below. */
#include "inc/cells.clh"
#include "inc/dropout.clh"
#include "inc/lane_mask.clh"
#include "inc/lanes.clh"
#include "inc/varlen.clh"

/* NV: vectors of query rows, 1..4. MR: keys of a score tile, 1..16. MR * NV sums, NV queries and a broadcast are live:
 * from 8 sums on they hide the latency of the multiply-add, and more than the registers hold spill.
 * BLOCK_Q: rows of a tile, NV * VW. */
#if NV < 1 || NV > 4
#error "NV must be in 1..4"
#endif
#if MR < 1 || MR > 16
#error "MR must be in 1..16"
#endif
/* BLOCK_KV: keys of a block, multiple of MR and VW, VW..256.
 * Private: 2 * (BLOCK_KV + 16) * BLOCK_Q + BLOCK_KV * NC * VW floats. */
#if BLOCK_KV % MR != 0 || BLOCK_KV % VW != 0 || BLOCK_KV < VW || BLOCK_KV > 256
#error "BLOCK_KV must be a multiple of MR and VW in VW..256"
#endif
/* NC: vectors of columns of a value tile, 1..8. MV: its rows, a divisor of VW, 1..16. MV * NC sums and NC values
 * are live. TILE_COLUMNS: columns of a value tile, NC * VW; unless V is copied, at most VALUE_DIM: columns of V.
 * HALF_TAIL: 1 for one value tile of NC vectors and half a vector more, which then is all of V. */
#if NC < 1 || NC > 8
#error "NC must be in 1..8"
#endif
#if MV < 1 || MV > 16 || VW % MV != 0
#error "MV must divide VW and be in 1..16"
#endif
/* HEADS: query heads of a work-group, 1..8; more than 1 only with a mask that is the same for all heads. Private: so
 * many queries and outputs, and one mask more. */
#if HEADS < 1 || HEADS > 8
#error "HEADS must be in 1..8"
#endif
#define TILE_COLUMNS (NC * VW + (HALF_TAIL ? HALF_VW : 0))
#define ACC_COLUMNS (NC * VW + (HALF_TAIL ? VW : 0)) /* whole vectors */
#define VALUE_TILES ((VALUE_DIM + TILE_COLUMNS - 1) / TILE_COLUMNS)

#define SINGLE_MR 8               /* keys of a score tile of one vector */
#define QUERY_ROWS (HEAD_DIM + 1) /* of Q^T per vector: one more keeps the vectors out of the same cache sets */

#define QUERY_VECTORS (HEAD_DIM / VW)

/* CONVERT: K and V become floats on the way. */
#define CONVERT (STORAGE_F16 || STORAGE_BF16)
#define COPY_VALUE (CONVERT || VALUE_DIM < VW)
#define KEY_STRIDE ((HEAD_DIM + VW - 1) / VW * VW) /* of converted keys */

/* TILES: tiles of rows of a work-group, 1..8; more than 1 only where K and V are converted, and with one head. Private:
 * so many queries and outputs, and BLOCK_KV * (HEAD_DIM + VALUE_DIM) floats. */
#if TILES < 1 || TILES > 8 || (TILES > 1 && (HEADS > 1 || !CONVERT))
#error "TILES must be in 1..8, and 1 with several heads or float storage"
#endif
#define KEEP_BLOCK (TILES > 1) /* all of a block at once, see below */

#if CONVERT
typedef const float *key_row;
#else
typedef const __global float *key_row;
#endif

#if COPY_VALUE
typedef const float *value_row;
#define VALUE_AT(p) VEC_AT(p)
#else
typedef const __global float *value_row;
#define VALUE_AT(p) LOAD(p)
#if VALUE_DIM < TILE_COLUMNS
#error "NC vectors must not pass VALUE_DIM"
#endif
#if HALF_TAIL && VALUE_DIM != TILE_COLUMNS
#error "HALF_TAIL needs a value tile that is all of V"
#endif
#endif

/* With KEEP_BLOCK: a block of K and V as floats, from key `first` on. */
typedef struct kept_block {
    float keys[KEEP_BLOCK ? BLOCK_KV * KEY_STRIDE : 1] __attribute__((aligned(64))); /* (BLOCK_KV, KEY_STRIDE) */
    float values[KEEP_BLOCK ? VALUE_TILES * BLOCK_KV * TILE_COLUMNS : 1] __attribute__((aligned(64))); /* by tiles */
    int first;
} kept_block;

#define LN_2 0.6931471806f

/* Set where the driver emits a kernel's code several times: the body then exists once, as a callee. */
#ifdef BODY_NOINLINE
#define BODY __attribute__((noinline)) static void
#else
#define BODY static void
#endif

/* Q^T. Rows that do not exist become zeros. Whole rows are fetched before any is turned: read chunk by chunk across the
 * rows, they come from memory one by one. */
static inline void load_query(const __global storage *q, /* (rows, D) */
                              clattn_i64 stride, const query_tile *tile, float *qt) /* (NV, QUERY_ROWS, VW) */ {
    const float factor = tile->scale * tile->exponent;
    for (int r = 0; r < tile->vectors * VW; r += VW, qt += QUERY_ROWS * VW) {
        vec rows[VW][QUERY_VECTORS + 1];
        for (int i = 0; i < VW; i++)
            for (int d = 0; d < QUERY_VECTORS; d++)
                rows[i][d] = r + i < tile->rows ? load_lanes(q + (r + i) * stride + d * VW) * factor : (vec)(0.0f);
        for (int d = 0; d < QUERY_VECTORS; d++) {
            vec lanes[VW];
            UNROLL for (int i = 0; i < VW; i++) lanes[i] = rows[i][d];
            transpose(lanes);
            UNROLL for (int i = 0; i < VW; i++) VEC_AT(qt + (d * VW + i) * VW) = lanes[i];
        }
        for (int d = QUERY_VECTORS * VW; d < HEAD_DIM; d++)
            for (int i = 0; i < VW; i++)
                qt[d * VW + i] = r + i < tile->rows ? load1(q + (r + i) * stride + d) * factor : 0.0f;
    }
}

/* ---- passes 1 and 2 ---------------------------------------------------------------------------------------------- */

/* Where the keys of one head are read. */
typedef struct key_source {
    const __global storage *k; /* (Sk, D) */
    clattn_i64 stride;
    const kept_block *kept;
} key_source;

static inline void convert_key(const __global storage *k, float *converted) /* (KEY_STRIDE) */ {
    int d = 0;
    for (; d + VW <= HEAD_DIM; d += VW) VEC_AT(converted + d) = load_lanes(k + d);
    for (; d < HEAD_DIM; d++) converted[d] = load1(k + d);
}

/* converted: (KEY_STRIDE) for one key of a register tile. */
static inline key_row key_row_of(const key_source *source, int key, float *converted) {
#if KEEP_BLOCK
    return source->kept->keys + (key - source->kept->first) * KEY_STRIDE;
#elif CONVERT
    convert_key(source->k + key * source->stride, converted);
    return converted;
#else
    return source->k + key * source->stride;
#endif
}

/* Where the tile of keys from c on is read; keys behind the last one repeat it. */
static inline void set_key_rows(const key_source *source, const key_block *block, int c, int end, int count,
                                float *converted, /* (count, KEY_STRIDE), with CONVERT but not KEEP_BLOCK */
                                key_row *rows) /* (count) */ {
    UNROLL for (int i = 0; i < count; i++) rows[i] = key_row_of(
        source, key_at(block, min(c + i, end - 1)), converted + (CONVERT && !KEEP_BLOCK ? i * KEY_STRIDE : 0));
}

/* The keys begin..end-1 of a block for all vectors, MR keys at a time; they are in the range of every row. Masked
 * scores go to p, top moves on to their maximum. */
static inline void score_whole(const key_source *source, const attn_head *head, const query_tile *tile,
                               const key_block *block, int begin, int end, const float *qt, float *p,
                               vec *top) /* (NV) */ {
    float converted[CONVERT && !KEEP_BLOCK ? MR * KEY_STRIDE : 1] __attribute__((aligned(64)));
    vec highest[NV];
    UNROLL for (int j = 0; j < NV; j++) highest[j] = top[j];
    for (int c = begin; c < end; c += MR) {
        key_row rows[MR];
        vec s[MR][NV];
        set_key_rows(source, block, c, end, MR, converted, rows);
        UNROLL for (int i = 0; i < MR; i++) UNROLL for (int j = 0; j < NV; j++) s[i][j] = (vec)(0.0f);
        for (int d = 0; d < HEAD_DIM; d++) {
            vec q[NV];
            UNROLL for (int j = 0; j < NV; j++) q[j] = VEC_AT(qt + (j * QUERY_ROWS + d) * VW);
            UNROLL for (int i = 0; i < MR; i++) {
                const vec x = (vec)(rows[i][d]);
                UNROLL for (int j = 0; j < NV; j++) s[i][j] = muladd(x, q[j], s[i][j]);
            }
        }
        if (SOFTCAP && head->softcap > 0.0f) {
            vec largest = (vec)(0.0f);
            UNROLL for (int i = 0; i < MR; i++) UNROLL for (int j = 0; j < NV; j++) largest =
                vec_max(s[i][j] * s[i][j], largest);
            const float cap = head->softcap * tile->exponent_of_term;
            if (any(largest >= TANH_SERIES_END))
                UNROLL for (int i = 0; i < MR; i++) UNROLL for (int j = 0; j < NV; j++) s[i][j] =
                    vec_tanh(s[i][j]) * cap;
            else
                UNROLL for (int i = 0; i < MR; i++) UNROLL for (int j = 0; j < NV; j++) s[i][j] =
                    vec_tanh_series(s[i][j]) * cap;
        }
        if (TERMS) /* before any score is stored: p may still hold the mask */
            UNROLL for (int i = 0; i < MR; i++) {
                const int key = key_at(block, min(c + i, end - 1));
                UNROLL for (int j = 0; j < NV; j++) s[i][j] = with_terms(head, tile, block, key, j, s[i][j]);
            }
        UNROLL for (int i = 0; i < MR; i++) {
            UNROLL for (int j = 0; j < NV; j++) {
                highest[j] = vec_max(s[i][j], highest[j]);
                VEC_AT(LANES_AT(p, j, c + i)) = s[i][j];
            }
        }
    }
    UNROLL for (int j = 0; j < NV; j++) top[j] = highest[j];
}

/* The keys begin..end-1 of a block for vector j alone, SINGLE_MR keys at a time; some rows' range may end there. */
static inline void score_vector(const key_source *source, const attn_head *head, const query_tile *tile,
                                const key_block *block, int j, int begin, int end, const float *qt, float *p,
                                vec *top) /* (NV) */ {
    float converted[CONVERT && !KEEP_BLOCK ? SINGLE_MR * KEY_STRIDE : 1] __attribute__((aligned(64)));
    vec highest = top[j];
    for (int c = begin; c < end; c += SINGLE_MR) {
        key_row rows[SINGLE_MR];
        vec s[SINGLE_MR];
        set_key_rows(source, block, c, end, SINGLE_MR, converted, rows);
        UNROLL for (int i = 0; i < SINGLE_MR; i++) s[i] = (vec)(0.0f);
        for (int d = 0; d < HEAD_DIM; d++) {
            const vec q = VEC_AT(qt + (j * QUERY_ROWS + d) * VW);
            UNROLL for (int i = 0; i < SINGLE_MR; i++) s[i] = muladd((vec)(rows[i][d]), q, s[i]);
        }
        UNROLL for (int i = 0; i < SINGLE_MR; i++) {
            const int key = key_at(block, min(c + i, end - 1));
            if (SOFTCAP && head->softcap > 0.0f) s[i] = vec_tanh(s[i]) * (head->softcap * tile->exponent_of_term);
            if (TERMS) s[i] = with_terms(head, tile, block, key, j, s[i]);
            if (RANGES && block->ranged) s[i] = within_range(tile, key, j, s[i]);
            highest = vec_max(s[i], highest);
        }
        UNROLL for (int i = 0; i < SINGLE_MR; i++) VEC_AT(LANES_AT(p, j, c + i)) = s[i];
    }
    top[j] = highest;
}

/* The keys (begin, end) of a block that go through score_whole: register tiles of keys in all rows' ranges. */
static inline int2 whole_keys(const query_tile *tile, const key_block *block) {
    const int2 common = block->common;
    if (tile->vectors < NV || block->skips) return (int2)(0);
    if (!RANGES || !block->ranged) return (int2)(0, block->count);
    if (MASK_FLOAT && common.x > 0) return (int2)(0); /* score_vector writes beyond its end, where the mask may lie */
    const int tiles = (common.y - common.x) / MR;
    return tiles > 0 ? (int2)(common.x, common.x + tiles * MR) : (int2)(0);
}

/* All vectors at once, or, where they differ in their keys or some have no rows, one after the other. */
static inline void score_block(const key_source *source, const attn_head *head, const query_tile *tile,
                               const key_block *block, const float *qt, /* (NV, QUERY_ROWS, VW) */
                               float *p,                                /* (NV, KEY_ROWS, VW) */
                               vec *top) /* (NV) */ {
    const int2 whole = whole_keys(tile, block);
    UNROLL for (int j = 0; j < NV; j++) top[j] = (vec)(-INFINITY);
    for (int behind = 0; behind < 2; behind++) { /* what lies before the whole keys, then they, and what lies behind */
        if (behind && whole.x < whole.y) score_whole(source, head, tile, block, whole.x, whole.y, qt, p, top);
        if (behind ? whole.y == block->count : whole.x == 0) continue;
        for (int j = 0; j < tile->vectors; j++) {
            const int2 run = keys_of_rows(tile, block, j * VW, VW);
            score_vector(source, head, tile, block, j, behind ? max(run.x, whole.y) : run.x,
                         behind ? run.y : min(run.y, whole.x), qt, p, top);
        }
    }
}

/* ---- pass 3 ------------------------------------------------------------------------------------------------------ */

/* Scores in p become weights 2^(score - m); m and l move on; what was summed before has to be multiplied by rescale.
 * While a row's maximum is -inf, 0 is subtracted instead: its weights are 2^-inf = 0. */
static inline void weigh_block(const attn_head *head, const query_tile *tile, const key_block *block, const vec *top,
                               float *p, vec *m, vec *l, float *rescale) {
    for (int j = 0; j < tile->vectors; j++) {
        const int2 run = keys_of_rows(tile, block, j * VW, VW);
        const vec highest = vec_max(top[j], m[j]);
        const vec base = highest == -INFINITY ? (vec)(0.0f) : highest;
        const vec factor = vec_exp2(m[j] - base);
        vec sum = (vec)(0.0f);
        for (int c = run.x; c < run.y; c++) {
            const vec weight = vec_exp2(VEC_AT(LANES_AT(p, j, c)) - base);
            sum += weight;
            VEC_AT(LANES_AT(p, j, c)) = weight;
        }
        VEC_AT(rescale + j * VW) = factor;
        m[j] = highest;
        l[j] = l[j] * factor + sum;
    }
}

/* Dropout comes after the softmax: the sums are those of all weights. */
static inline void drop_weights(const clattn_attn_args *a, int b, int h, const query_tile *tile, const key_block *block,
                                float *p) {
    for (int c = 0; c < block->count; c++)
        for (int i = 0; i < tile->rows; i++)
            LANES_AT(p, i / VW, c)[i % VW] *= attn_dropout(a, b, h, tile->row + i, key_at(block, c));
}

#include "inc/value_tiles.clh"

/* ---- pass 5 ------------------------------------------------------------------------------------------------------ */

/* Turns each row's sum into the factor of its output, 0 for a row without keys, and writes its logsumexp. */
static inline void close_rows(const attn_head *head, const query_tile *tile, float first_m, /* a sink's, or -inf */
                              const vec *m, const vec *l, float *factors,                   /* (BLOCK_Q) */
                              __global float *lse) /* (rows) or unused */ {
    for (int j = 0; j < tile->vectors; j++) {
        /* all allowed scores are -inf: 0 / 0, unless the row is empty */
        const vec highest = m[j], sum = highest == -INFINITY ? (vec)(NAN) : l[j];
        const ivec untouched = (highest == -INFINITY) | ((highest == first_m) & (sum == 1.0f));
        VEC_AT(factors + j * VW) = 1.0f / sum;
        if (!LSE && !any(untouched)) continue;
        float sums[VW] __attribute__((aligned(64))), tops[VW] __attribute__((aligned(64)));
        int asked[VW] __attribute__((aligned(64)));
        VEC_AT(sums) = sum;
        VEC_AT(tops) = highest;
        *(ivec *)asked = untouched;
        for (int i = 0; i < min(VW, tile->rows - j * VW); i++) {
            const int r = j * VW + i;
            const bool empty = asked[i] && row_is_empty(head, tile->row + r);
            if (empty) factors[r] = 0.0f;
            if (LSE) lse[r] = empty ? -INFINITY : muladd(tops[i], LN_2, log(sums[i]));
        }
    }
}

static inline void write_output(const query_tile *tile, const float *acc, const float *factors,
                                __global storage *o, /* (rows, Dv) */
                                clattn_i64 stride) {
    const bool aligned = lanes_aligned(o, stride) && VALUE_DIM % VW == 0;
    for (int t = 0; t < VALUE_TILES; t++) {
        const int column = tile_column(t), columns = min(TILE_COLUMNS, VALUE_DIM - column);
        for (int i = 0; i < tile->rows; i++) {
            const float *from = acc + (t * BLOCK_Q + i) * ACC_COLUMNS;
            __global storage *to = o + i * stride + column;
            int d = 0;
            if (aligned)
                for (; d < columns; d += VW) store_aligned_lanes(VEC_AT(from + d) * factors[i], to + d);
            for (; d + VW <= columns; d += VW) store_lanes(VEC_AT(from + d) * factors[i], to + d);
            if (HALF_TAIL) {
                HALF_STORE(HALF_VEC_AT(from + d) * factors[i], (__global float *)(to + d));
                d += HALF_VW;
            }
            for (; d < columns; d++) store1(from[d] * factors[i], to + d);
        }
    }
}

/* ---- the work-group ---------------------------------------------------------------------------------------------- */

/* What a work-group carries of a tile of one head from block to block. */
typedef struct head_rows {
    float qt[NV * QUERY_ROWS * VW] __attribute__((aligned(64)));                 /* Q^T */
    float acc[VALUE_TILES * BLOCK_Q * ACC_COLUMNS] __attribute__((aligned(64))); /* sums of weight * value */
    vec m[NV], l[NV];                                                            /* running maximum, sum of weights */
    const __global storage *key, *value;                                         /* (Sk, D), (Sk, Dv) */
    float first_m; /* what the maximum starts with: a sink's score, or -inf */
    bool open;     /* not done yet */
} head_rows;

/* A tile of rows, of all heads of the work-group. */
typedef struct row_tile {
    query_tile query;
    int2 range;   /* (begin, end) of its keys */
    bool partial; /* some block was */
    bool fresh;   /* nothing is in the sums yet */
    head_rows heads[HEADS];
} row_tile;

static inline void open_rows(head_rows *rows) {
    UNROLL for (int j = 0; j < NV; j++) {
        rows->m[j] = (vec)(rows->first_m);
        rows->l[j] = (vec)(SINKS ? 1.0f : 0.0f);
    }
}

static inline void clear_output(head_rows *rows) {
    for (int i = 0; i < VALUE_TILES * BLOCK_Q * ACC_COLUMNS; i += VW) VEC_AT(rows->acc + i) = (vec)(0.0f);
}

/* The keys first..end-1. */
static inline void keep_block(const head_rows *rows, clattn_i64 key_stride, clattn_i64 value_stride, int first, int end,
                              kept_block *kept) {
    kept->first = first;
    for (int c = 0; c < end - first; c++) {
        convert_key(rows->key + (first + c) * key_stride, kept->keys + c * KEY_STRIDE);
        for (int t = 0; t < VALUE_TILES; t++)
            copy_value(rows->value + (first + c) * value_stride + tile_column(t),
                       min(TILE_COLUMNS, VALUE_DIM - tile_column(t)), kept->values + (t * BLOCK_KV + c) * TILE_COLUMNS);
    }
}

/* Heads first_head..first_head+heads-1; heads is 1 where HEADS is. */
BODY attn_cpu_body(int group, int groups, int first_head, int heads, int b, const clattn_attn_args *a,
                   const __global storage *query, const __global storage *key, const __global storage *value,
                   __global storage *output, const __global mask_element *mask, const __global uchar *padding,
                   const __global int *lengths, const __global float *alibi, const __global float *sinks,
                   __global float *lse, const __global int *prefix, const __global int *query_documents,
                   const __global int *key_documents) {
    row_tile all[TILES];
    kept_block kept;
    kept.first = 0;
    float p[NV * KEY_ROWS * VW] __attribute__((aligned(64))); /* scores, then weights */
    float bias[HEADS > 1 && MASK_FLOAT ? NV * KEY_ROWS * VW : 1] __attribute__((aligned(64)));
    float factors[BLOCK_Q] __attribute__((aligned(64))); /* rescale, at last 1 / l */
    int list[KEY_LIST ? BLOCK_KV : 1], bits[MASK_BOOL ? NV * KEY_ROWS : 1];
    vec top[NV]; /* the block's greatest scores */

    attn_head head; /* what all heads share; its slope is that of the one at work */
    key_block block;
    attn_head_set(&head, a, b, first_head, mask, padding, lengths, alibi);
    attn_head_set_features(&head, a, b, prefix, query_documents, key_documents);
    /* The last causal tile has the most keys: longest first, so that all cores end at the same time. */
    const int first_row = TILES * BLOCK_Q * (CAUSAL ? groups - 1 - group : group);
    if (VARLEN && first_row >= a->query_len) return;
    const int tiles = TILES > 1 ? min(TILES, (a->query_len - first_row + BLOCK_Q - 1) / BLOCK_Q) : 1;
    int2 range; /* of all tiles */
    for (int t = 0; t < tiles; t++) {
        const query_tile *tile = &all[t].query;
        query_tile_set(&all[t].query, a, &head, first_row + t * BLOCK_Q);
        all[t].range = (int2)(attn_range(&head, tile->row).x, attn_range(&head, tile->row + tile->rows - 1).y);
        range = (int2)(t == 0 ? all[t].range.x : range.x, all[t].range.y);
        for (int n = 0; n < heads; n++) {
            const int h = first_head + n, kv_head = h / (a->query_heads / a->kv_heads);
            head_rows *rows = &all[t].heads[n];
            rows->key = key + (a->key.offset + b * a->key.batch + kv_head * a->key.head);
            rows->value = value + (a->value.offset + b * a->value.batch + kv_head * a->value.head);
            rows->first_m = SINKS ? sinks[a->sinks_offset + h] * tile->exponent_of_term : -INFINITY;
            rows->open = true;
            load_query(query + (a->query.offset + b * a->query.batch + h * a->query.head + tile->row * a->query.row),
                       a->query.row, tile, rows->qt);
        }
    }

    for (bool careful = false, done = false; !done; careful = true) {
        for (int t = 0; t < tiles; t++) {
            all[t].partial = false;
            all[t].fresh = true;
            for (int n = 0; n < heads; n++)
                if (all[t].heads[n].open) open_rows(&all[t].heads[n]);
        }

        bool always = !ALWAYS_KEYS;
        int at = range.x, end = range.y;
        while (at < end || !always) {
            if (at >= end) {
                always = true;
                at = head.always;
                end = head.kv_len;
                continue;
            }
            const int block_first = at, block_end = at + min(end - at, BLOCK_KV - at % BLOCK_KV);
            bool is_kept = !KEEP_BLOCK;
            at = block_end;
            for (int t = 0; t < tiles; t++) {
                row_tile *tile = &all[t];
                const bool all_keys = TILES == 1 || (ALWAYS_KEYS && always);
                const int first = all_keys ? block_first : max(block_first, tile->range.x);
                const int last = all_keys ? block_end : min(block_end, tile->range.y);
                if (first >= last || (KEEP_BLOCK && !tile->heads[0].open)) continue;
                /* The mask of one head may lie where its scores will be. */
                key_block_set(&block, &head, &tile->query, first, last, ALWAYS_KEYS && always, list, bits,
                              HEADS > 1 ? bias : p);
                if (block.count == 0) continue;
                tile->partial |= block.partial;
                if (!is_kept) keep_block(&tile->heads[0], a->key.row, a->value.row, block_first, block_end, &kept);
                is_kept = true;
                for (int n = 0; n < heads; n++) {
                    head_rows *rows = &tile->heads[n];
                    if (!rows->open) continue;
                    const key_source keys = {rows->key, a->key.row, &kept};
                    if (HEADS > 1 && ALIBI) head.slope = alibi[a->alibi_offset + first_head + n];
                    score_block(&keys, &head, &tile->query, &block, rows->qt, p, top);
                    weigh_block(&head, &tile->query, &block, top, p, rows->m, rows->l, factors);
                    if (DROPOUT) drop_weights(a, b, first_head + n, &tile->query, &block, p);
                    add_block(rows->value, a->value.row, &kept, &head, &tile->query, &block, tile->fresh, careful, p,
                              factors, rows->acc);
                }
                tile->fresh = false;
            }
        }
        done = true;
        for (int t = 0; t < tiles; t++)
            for (int n = 0; n < heads; n++) {
                head_rows *rows = &all[t].heads[n];
                if (!rows->open) continue;
                if (all[t].fresh) clear_output(rows);
                rows->open = !careful && all[t].partial && is_spoiled(&all[t].query, rows->acc);
                done = done && !rows->open;
            }
    }

    for (int t = 0; t < tiles; t++)
        for (int n = 0; n < heads; n++) {
            const int h = first_head + n;
            const query_tile *tile = &all[t].query;
            const head_rows *rows = &all[t].heads[n];
            close_rows(&head, tile, rows->first_m, rows->m, rows->l, factors,
                       lse + (a->lse_offset + b * a->lse_batch + h * a->lse_head + tile->row));
            write_output(tile, rows->acc, factors,
                         output +
                             (a->output.offset + b * a->output.batch + h * a->output.head + tile->row * a->output.row),
                         a->output.row);
        }
}

__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void attn_cpu(ATTN_ALL_PARAMETERS(all)) {
    clattn_attn_args a = all;
    const int b = (int)get_group_id(2), first_head = (int)get_group_id(1) * HEADS;
    attn_sequence_set(&a, b, query_starts, key_starts);
    attn_cpu_body((int)get_group_id(0), (int)get_num_groups(0), first_head,
                  HEADS > 1 ? min(HEADS, a.query_heads - first_head) : 1, b, &a, query, key, value, output, mask,
                  padding, lengths, alibi, sinks, lse, prefix, query_documents, key_documents);
}
