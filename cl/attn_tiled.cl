/* Attention by tiles in local memory, for any GPU: OpenCL C 1.2, no extension, arithmetic in float.
 *
 * A work-group of TILE_X x TILE_Y items owns BLOCK_Q query rows of one head and walks the keys, BLOCK_KV at a time,
 * with a running maximum and sum per row (Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022,
 * arXiv:2205.14135).
 * It works like a matrix product: query, key and value pass through local memory in slices, so that local memory does
 * not grow with HEAD_DIM. Keys are turned on their way, so that both products are the same lines: four terms of a sum,
 * for ROWS rows and four columns of an item.
 *
 *        keys 4*tx..4*tx+3 of each block          columns 4*tx..4*tx+3, then 4*TILE_X further on  (VALUE_VECTORS times)
 *      +-----------------------------+          +-----------------------------+
 *   ty | ROWS x 4 scores per item    |  exp ->  | ROWS x 4*VALUE_VECTORS      |  rows ty, ty+TILE_Y, ...  (ROWS)
 *      | S = Q K^T, DEPTH at a time  |  weights | O += P V, VALUE_KEYS keys   |
 *      +-----------------------------+  (local) +-----------------------------+
 *
 *   keys ->  skipped  | partial | full    full    full | partial | skipped    causal, window and length leave one run
 *            no work    compare   nothing to compare     compare   no work     of blocks; masks make all partial
 *
 * Which keys a row may attend to is decided before any value is read into a result: values of forbidden keys are never
 * multiplied in, not even by 0, since 0 * NaN is NaN. Forbidden weights are kept as -0.0f, which exp2 never gives; a
 * slice of values that holds a NaN or an infinity takes a loop that looks for them. Rows that do not exist for the
 * whole batch entry are zeros in local memory.
 *
 * Tile macros, chosen by the host half from the device's limits:
 *   TILE_X: items along keys or columns; a multiple of 4, 8 to 32 in use.
 *   TILE_Y: items along rows.
 *   ROWS: query rows per item, 1, 2 or 4; costs 8 + 4 * VALUE_VECTORS registers each.
 *   DEPTH: elements of HEAD_DIM staged at once; a multiple of 4.
 *   VALUE_KEYS: keys of V staged at once; a multiple of 4 that divides BLOCK_KV.
 *   AREA_FLOATS: floats in the staging area that the slices and the table of row maxima share.
 * What follows from them:
 *   BLOCK_Q: query rows per group.  BLOCK_KV: keys per step.
 *   VALUE_VECTORS: float4 columns per item, 1 to 4.  ROW_VECTORS: float4 per staged row of V.
 *   QUERY_LD, KEY_LD, WEIGHT_LD: float4 per row of the slices of Q and K^T and of the weights, one more than needed, so
 *   that neighbouring rows start in other banks; keys that only one sub-group of 8 or 16 reads at once need none.
 *   TERMS: terms of a product per step: 4, or with SHARED_ROWS as many as a sub-group has items.
 * Others: HEAD_DIM, VALUE_DIM, SUBGROUP (of inc/vendor.clh), KEY_PARTS (of inc/key_parts.clh), STORAGE_F16,
 * STORAGE_BF16, every feature as 0 or 1 (no weights and no scores output). */
#include "inc/cell_rows.clh"
#include "inc/dropout.clh"
#include "inc/key_parts.clh"
#include "inc/local.clh"
#include "inc/mask.clh"
#include "inc/types.clh"
#include "inc/varlen.clh"
#include "inc/vendor.clh"

#define KEYS 4 /* keys per item and block */
/* Whole sub-groups work on the same rows. */
#define SHARED_ROWS (HAVE_BROADCAST(TILE_X) && DEPTH % SUBGROUP == 0 && VALUE_KEYS % SUBGROUP == 0)
#define ITEMS (TILE_X * TILE_Y)
#define BLOCK_Q (TILE_Y * ROWS)
#define BLOCK_KV (TILE_X * KEYS)
#define VALUE_VECTORS ((VALUE_DIM + 4 * TILE_X - 1) / (4 * TILE_X))
#define ROW_VECTORS (VALUE_VECTORS * TILE_X)
#define QUERY_LD (DEPTH / 4 + 1)
#define KEY_LD (TILE_X + !SHARED_ROWS)
#define WEIGHT_LD (TILE_X + 1)
/* Step of the loops that stage: wide tiles, or tables of pages, leave no registers for several float4 at once. */
#define STAGED_ITEMS (VALUE_VECTORS > 1 || CELLS_MAPPED ? ROLLED(ITEMS) : ITEMS)
/* Columns from column c on that there are, as far as staging asks: 4 when all slices are whole. */
#define DEPTH_LEFT(c) (HEAD_DIM % DEPTH == 0 ? 4 : HEAD_DIM - (c))
#define VALUES_LEFT(c) (VALUE_DIM % (4 * TILE_X) == 0 ? 4 : VALUE_DIM - (c))

#if TILE_X % 4 != 0 || DEPTH % 4 != 0 || VALUE_KEYS % 4 != 0 || BLOCK_KV % VALUE_KEYS != 0
#error "TILE_X, DEPTH and VALUE_KEYS must be multiples of 4, and VALUE_KEYS must divide 4 * TILE_X"
#endif
#if AREA_FLOATS < (BLOCK_Q * QUERY_LD + DEPTH * KEY_LD) * 4 || AREA_FLOATS < VALUE_KEYS * ROW_VECTORS * 4 ||           \
    AREA_FLOATS < ITEMS * 4
#error "AREA_FLOATS is too small for these tiles"
#endif

#include "inc/tile_product.clh" /* after what it needs */

/* An item's vectors of columns, written out like its rows. */
#if VALUE_VECTORS == 1
#define EACH_VECTOR(DO) DO(0)
#elif VALUE_VECTORS == 2
#define EACH_VECTOR(DO) DO(0) DO(1)
#elif VALUE_VECTORS == 3
#define EACH_VECTOR(DO) DO(0) DO(1) DO(2)
#elif VALUE_VECTORS == 4
#define EACH_VECTOR(DO) DO(0) DO(1) DO(2) DO(3)
#else
#error "VALUE_DIM must be at most 16 * TILE_X"
#endif

/* All its columns of the output. */
typedef struct value_tile {
    sum_tile c0, c1, c2, c3;
} value_tile;

#define FORBIDDEN_WEIGHT (-0.0f)
#define IS_FORBIDDEN(weight) (as_uint(weight) == 0x80000000u)
#define LOG2_E 1.44269504089f
#define LN_2 0.69314718056f

/* May key j of this batch entry be read at all? The staged tiles hold zeros for the others. */
static inline bool readable(const attn_head *head, int j) {
    if (!attn_exists(head, j)) return false;
    return !(PADDING && j < head->always) || head->padding[j];
}

/* BLOCK_Q rows of Q from row q0, columns d0..d0+DEPTH-1; zeros beyond the last row and column. */
static inline void stage_query(__local float4 *slice, const __global storage *q, clattn_i64 stride, int q0, int rows,
                               int d0, int item) {
    for (int u = item; u < BLOCK_Q * (DEPTH / 4); u += STAGED_ITEMS) {
        const int r = u / (DEPTH / 4), d = u % (DEPTH / 4);
        float4 x = (float4)(0.0f);
        if (q0 + r < rows) x = load4_part(q + ((q0 + r) * stride + d0 + 4 * d), DEPTH_LEFT(d0 + 4 * d));
        slice[r * QUERY_LD + d] = x;
    }
}

/* The first `count` of four columns of key j from column c, zeros behind them. */
static inline float4 staged_part(const cell_rows *rows, int j, int c, int count) {
    const int2 at = cells_at(rows, j);
    const float4 x = cell4_part(cells_row(rows, at) + c, count);
    return CELL_I8 ? x * cells_scale(rows, at) : x;
}

/* BLOCK_KV keys from key k0 likewise, turned: (DEPTH, BLOCK_KV). Sixteen items read sixteen keys, so that what they
 * write lies side by side; the next sixteen read the next four columns of the same keys. */
static inline void stage_key(__local float *slice, const cell_rows *k, const attn_head *head, int k0, int d0,
                             int item) {
    for (int u = item; u < BLOCK_KV * (DEPTH / 4); u += STAGED_ITEMS) {
        const int j = u % 16 + u / (4 * DEPTH) * 16, d = u / 16 % (DEPTH / 4) * 4;
        float4 x = (float4)(0.0f);
        if (readable(head, k0 + j)) x = staged_part(k, k0 + j, d0 + d, DEPTH_LEFT(d0 + d));
        __local float *column = slice + d * KEY_LD * 4 + j;
        column[0] = x.x;
        column[KEY_LD * 4] = x.y;
        column[KEY_LD * 8] = x.z;
        column[KEY_LD * 12] = x.w;
    }
}

/* VALUE_KEYS rows of V from key j0, padded with zero columns. Returns true when this item saw a NaN or an infinity. */
static inline bool stage_value(__local float4 *slice, const cell_rows *v, const attn_head *head, int j0, int item) {
    bool odd = false;
    for (int u = item; u < VALUE_KEYS * ROW_VECTORS; u += STAGED_ITEMS) {
        const int r = u / ROW_VECTORS, c = u % ROW_VECTORS * 4;
        float4 x = (float4)(0.0f);
        if (readable(head, j0 + r)) x = staged_part(v, j0 + r, c, VALUES_LEFT(c));
        odd = odd || !all(isfinite(x));
        slice[u] = x;
    }
    return odd;
}

/* Bit KEYS * r + j: row r of this item may not attend to its key j. Rows beyond the last repeat it, unseen. Not
 * unrolled: sixteen copies of all masks cost more registers than the tile itself. */
static inline uint forbidden_keys(const attn_head *head, int row, int last_row, int key) {
    uint forbidden = 0;
    NO_UNROLL
    for (int r = 0; r < ROWS; r += ROLLED(1)) {
        const int i = min(row + r * TILE_Y, last_row);
        const int2 run = attn_range(head, i);
        NO_UNROLL
        for (int j = 0; j < KEYS; j += ROLLED(1))
            if (!attn_allowed(head, run, i, key + j)) forbidden |= 1u << (KEYS * r + j);
    }
    return forbidden;
}

/* Those of row r as a mask for select(). */
#define HIDDEN(n) (((int4)((int)(forbidden >> (KEYS * n))) & (int4)(1, 2, 4, 8)) != (int4)(0))

/* s += Q K^T for one staged slice; query: this item's first row, key: its first column. */
INLINE void add_scores(sum_tile *s, const __local float4 *query, const __local float4 *key) {
    UNROLL_TERMS
    for (int d = 0; d < DEPTH; d += STEP(DEPTH)) {
        const left_tile left = load_left(query + d / 4, QUERY_LD);
        add_terms(s, &left, key + d * KEY_LD, KEY_LD);
    }
}

/* acc += weights * V for one staged slice, likewise. */
INLINE void add_values(value_tile *acc, const __local float4 *weights, const __local float4 *values) {
    UNROLL_TERMS
    for (int j = 0; j < VALUE_KEYS; j += STEP(VALUE_KEYS)) {
        const left_tile left = load_left(weights + j / 4, WEIGHT_LD);
#define ADD_VECTOR(n) add_terms(&acc->c##n, &left, values + (j * ROW_VECTORS + n * TILE_X), ROW_VECTORS);
        EACH_VECTOR(ADD_VECTOR)
    }
}

/* sums += weight * value, stepping over forbidden weights. */
INLINE void add_term_with_care(sum_tile *sums, float4 weight, float4 value) {
#define ADD_WITH_CARE(n)                                                                                               \
    if (!IS_FORBIDDEN(weight.s##n)) sums->r##n = four_of(fma((float4)(weight.s##n), value, float4_of(sums->r##n)));
    EACH_ROW(ADD_WITH_CARE)
}

INLINE void add_values_with_care(value_tile *acc, const __local float *weights, const __local float4 *values) {
    NO_UNROLL
    for (int j = 0; j < VALUE_KEYS; j += ROLLED(1)) {
        float4 weight;
#define LOAD_WEIGHT(n) weight.s##n = weights[n * TILE_Y * WEIGHT_LD * 4 + j];
        EACH_ROW(LOAD_WEIGHT)
#define ADD_VECTOR_WITH_CARE(n) add_term_with_care(&acc->c##n, weight, values[j * ROW_VECTORS + n * TILE_X]);
        EACH_VECTOR(ADD_VECTOR_WITH_CARE)
    }
}

INLINE void scale_rows(sum_tile *x, float4 factor) {
#define SCALE_ROW(n) x->r##n = four_of(float4_of(x->r##n) * factor.s##n);
    EACH_ROW(SCALE_ROW)
}

static inline float greatest4(float4 x) { return fmax(fmax(x.x, x.y), fmax(x.z, x.w)); }

static inline float sum4(float4 x) { return (x.x + x.y) + (x.z + x.w); }

/* Pass 2 on an item's scores in local memory, where a loop can go over them. */
static inline void add_to_scores(__local float4 *scores, const attn_head *head, uint forbidden, int row, int last_row,
                                 int key) {
    NO_UNROLL
    for (int r = 0; r < ROWS; r += ROLLED(1)) {
        __local float *s = (__local float *)(scores + r * TILE_Y * WEIGHT_LD);
        const int i = min(row + r * TILE_Y, last_row);
        NO_UNROLL
        for (int j = 0; j < KEYS; j += ROLLED(1)) {
            float x = attn_softcap(head, s[j]);
            if (!(forbidden >> (KEYS * r + j) & 1u)) x = attn_terms(head, i, key + j, x);
            s[j] = x;
        }
    }
}

/* The same for the weights' share of pass 4. Forbidden weights stay -0. */
static inline void drop_weights(__local float4 *weights, const clattn_attn_args *a, int b, int h, int row, int key) {
    NO_UNROLL
    for (int r = 0; r < ROWS; r += ROLLED(1)) {
        __local float *p = (__local float *)(weights + r * TILE_Y * WEIGHT_LD);
        NO_UNROLL
        for (int j = 0; j < KEYS; j += ROLLED(1)) p[j] *= attn_dropout(a, b, h, row + r * TILE_Y, key + j);
    }
}

/* Four columns of an item's rows to the output; rows beyond the last and columns beyond VALUE_DIM write nothing. */
INLINE void store_rows(const sum_tile *x, __global storage *o, clattn_i64 stride, int row, int rows, int column) {
#define STORE_OUTPUT(n)                                                                                                \
    if (row + n * TILE_Y < rows)                                                                                       \
        store4_part(float4_of(x->r##n), o + ((row + n * TILE_Y) * stride + column), VALUE_DIM - column);
    EACH_ROW(STORE_OUTPUT)
}

/* What an item leaves to the next part: (VALUE_VECTORS, ROWS) sums, maxima, totals, bits; ITEMS apart. */
#define KEPT (VALUE_VECTORS * ROWS + 3)

INLINE void keep_rows(const sum_tile *x, __global uint4 *to) {
#define KEEP_ROW(n) to[n * ITEMS] = as_uint4(float4_of(x->r##n));
    EACH_ROW(KEEP_ROW)
}

INLINE void take_rows(sum_tile *x, const __global uint4 *from) {
#define TAKE_ROW(n) x->r##n = four_of(as_float4(from[n * ITEMS]));
    EACH_ROW(TAKE_ROW)
}

/* first: number of group 0's tile, as launches come in chunks. */
__kernel PIN_SUBGROUP __attribute__((reqd_work_group_size(ITEMS, 1, 1))) void
attn_tiled(ATTN_ALL_PARAMETERS(all), clattn_i64 first KEY_PART_PARAMETERS) {
    __local float4 area[AREA_FLOATS / 4];            /* slices of Q and K^T, of V, or what the items of a row tell */
    __local float4 weight_area[BLOCK_Q * WEIGHT_LD]; /* (BLOCK_Q, BLOCK_KV), padded rows */
    __local int odd_slice;                           /* number of the last slice of V with a NaN or an infinity */
    __local float4 *query_slice = area, *key_slice = area + BLOCK_Q * QUERY_LD;

    const int item = (int)get_local_id(0), tx = item % TILE_X, ty = item / TILE_X;
    __local float4 *own_weights = weight_area + (ty * WEIGHT_LD + tx);
    const int tiles = (all.query_len + BLOCK_Q - 1) / BLOCK_Q, heads = all.batch * all.query_heads;
    POISON(area, item, ITEMS);
    POISON(weight_area, item, ITEMS);
    const clattn_i64 number = first + (clattn_i64)get_group_id(0);
    /* With a causal mask the last tiles have the most keys: they start first, so that groups finish together. Otherwise
     * neighbouring groups share their head's keys in the cache. */
    const int tile = CAUSAL ? tiles - 1 - (int)(number / heads) : (int)(number % tiles);
    const int bh = CAUSAL ? (int)(number % heads) : (int)(number / tiles);
    const int b = bh / all.query_heads, h = bh % all.query_heads, kv_head = h / (all.query_heads / all.kv_heads);
    const int q0 = tile * BLOCK_Q;
    clattn_attn_args a = all;
    attn_sequence_set(&a, b, query_starts, key_starts);
    const __global storage *q = query + (a.query.offset + b * a.query.batch + h * a.query.head);
    const cell_rows k = cells_of(&a.cells, &a.key, &a.key_scales, key, key_scales, cell_table, b, kv_head);
    const cell_rows v = cells_of(&a.cells, &a.value, &a.value_scales, value, value_scales, cell_table, b, kv_head);
    attn_head head;
    attn_head_set(&head, &a, b, h, mask, padding, lengths, alibi);
    attn_head_set_features(&head, &a, b, prefix, query_documents, key_documents);

    /* Both ends of a row's run of keys grow with the row, so the tile's run goes from the first row's first key to the
     * last row's end, and all rows have the keys between the last row's first and the first row's end. */
    const int2 top_run = attn_range(&head, q0), bottom_run = attn_range(&head, min(q0 + BLOCK_Q, a.query_len) - 1);
    const int run_end = bottom_run.y;
    const int always_block = head.always / BLOCK_KV * BLOCK_KV;
    int stop = ALWAYS_KEYS && head.always < head.kv_len ? head.kv_len : run_end;
    if (VARLEN && q0 >= a.query_len) stop = 0; /* this sequence is shorter than the longest: nothing to do */
    int k0 = top_run.x / BLOCK_KV * BLOCK_KV;
    if (KEY_PARTS) k0 = max(k0, PART_FIRST), stop = min(stop, PART_END);
    if (ALWAYS_KEYS && k0 >= run_end) k0 = max(k0, always_block);

    /* Running values, component r for row r, in units of log2: top is the greatest score so far, total this item's part
     * of the sum. */
    const float to_log2 = a.inverse_temperature * LOG2_E;
    float4 top = (float4)(SINKS ? sinks[a.sinks_offset + h] * to_log2 : -INFINITY);
    float4 total = (float4)(tx == 0 && top.x != -INFINITY ? 1.0f : 0.0f);
    value_tile acc;
    uint attended = 0; /* bit KEYS * r + j: row r may attend to key j of one of this item's blocks */
#define CLEAR_ROWS(x) x.r0 = x.r1 = x.r2 = x.r3 = four_of((float4)(0.0f));
#define CLEAR_VECTOR(n) CLEAR_ROWS(acc.c##n)
    EACH_VECTOR(CLEAR_VECTOR)
    int slice_number = 0;
    if (item == 0) odd_slice = -1;
#if KEY_PARTS
    __global uint4 *own = kept + ((clattn_i64)get_group_id(0) * KEPT * ITEMS + item);
    __global uint4 *own_sums = own + VALUE_VECTORS * ROWS * ITEMS;
    if (!PART_BEGINS) {
#define TAKE_VECTOR(n) take_rows(&acc.c##n, own + n * ROWS * ITEMS);
        EACH_VECTOR(TAKE_VECTOR)
        top = as_float4(own_sums[0]);
        total = as_float4(own_sums[ITEMS]);
        attended = own_sums[2 * ITEMS].x;
    }
#endif

    while (k0 < stop) {
        const bool masks = MASK_BOOL || MASK_FLOAT || PADDING || DOCUMENTS;
        const bool compare = masks || k0 < bottom_run.x || k0 + BLOCK_KV > top_run.y;

        /* pass 1 */
        sum_tile scores;
        CLEAR_ROWS(scores)
        NO_UNROLL
        for (int d0 = 0; d0 < HEAD_DIM; d0 += ROLLED(DEPTH)) {
            barrier(CLK_LOCAL_MEM_FENCE);
            stage_query(query_slice, q, a.query.row, q0, a.query_len, d0, item);
            stage_key((__local float *)key_slice, &k, &head, k0, d0, item);
            barrier(CLK_LOCAL_MEM_FENCE);
            add_scores(&scores, query_slice + ty * QUERY_LD, key_slice + tx);
        }

        /* pass 2; bit KEYS * r + j of forbidden belongs to component j of row r */
        const int last_row = a.query_len - 1;
        const uint forbidden = compare ? forbidden_keys(&head, q0 + ty, last_row, k0 + 4 * tx) : 0;
        attended |= ~forbidden;
        row_tile s;
#define SCALE_SCORES(n) s.r##n = float4_of(scores.r##n) * a.scale;
        EACH_ROW(SCALE_SCORES)
        if (SOFTCAP || MASK_FLOAT || ALIBI) {
#define STORE_ROW(n) own_weights[n * TILE_Y * WEIGHT_LD] = s.r##n;
            EACH_ROW(STORE_ROW)
            add_to_scores(own_weights, &head, forbidden, q0 + ty, last_row, k0 + 4 * tx);
            s = load_rows(own_weights, WEIGHT_LD);
        }
        if (forbidden) {
#define HIDE_SCORE(n) s.r##n = select(s.r##n, (float4)(-INFINITY), HIDDEN(n));
            EACH_ROW(HIDE_SCORE)
        }

        /* pass 3: the items of a row tell each other their greatest scores, by registers where they can, else in the
         * staging area, which everybody has finished reading */
        float4 greatest = (float4)(-INFINITY);
#define FIND_GREATEST(n) greatest.s##n = greatest4(s.r##n);
        EACH_ROW(FIND_GREATEST)
        if (NEIGHBOURS(TILE_X) > 1) {
#define ASK_NEIGHBOURS(n) greatest.s##n = neighbours_max(greatest.s##n, NEIGHBOURS(TILE_X));
            EACH_ROW(ASK_NEIGHBOURS)
        }
        if (NEIGHBOURS(TILE_X) < TILE_X) {
            barrier(CLK_LOCAL_MEM_FENCE);
            area[item] = greatest;
            barrier(CLK_LOCAL_MEM_FENCE);
            UNROLL_TERMS
            for (int x = 0; x < TILE_X; x += NEIGHBOURS(TILE_X)) greatest = fmax(greatest, area[ty * TILE_X + x]);
        }
        const float4 new_top = fmax(top, greatest * to_log2);
        const float4 base = select(new_top, (float4)(0.0f), new_top == -INFINITY); /* safe to subtract */
        const float4 rescale = fast_exp2(top - base);
        top = new_top;
        float4 sum = (float4)(0.0f);
#define WEIGHT_ROW(n)                                                                                                  \
    s.r##n = fast_exp2(fma(s.r##n, (float4)(to_log2), (float4)(-base.s##n)));                                          \
    sum.s##n = sum4(s.r##n);
        EACH_ROW(WEIGHT_ROW)
        total = fma(total, rescale, sum);
        if (forbidden) {
#define HIDE_WEIGHT(n) s.r##n = select(s.r##n, (float4)(FORBIDDEN_WEIGHT), HIDDEN(n));
            EACH_ROW(HIDE_WEIGHT)
        }
        EACH_ROW(STORE_ROW)
        if (DROPOUT) drop_weights(own_weights, &a, b, h, q0 + ty, k0 + 4 * tx);
        if (any(rescale != (float4)(1.0f))) { /* a branch: some compilers keep a second copy of acc otherwise */
#define RESCALE_VECTOR(n) scale_rows(&acc.c##n, rescale);
            EACH_VECTOR(RESCALE_VECTOR)
        }

        /* pass 4 */
        NO_UNROLL
        for (int j0 = 0; j0 < BLOCK_KV && k0 + j0 < stop; j0 += ROLLED(VALUE_KEYS)) {
            barrier(CLK_LOCAL_MEM_FENCE);
            if (stage_value(area, &v, &head, k0 + j0, item))
                odd_slice = slice_number; /* whoever writes, writes the same */
            barrier(CLK_LOCAL_MEM_FENCE);
            const __local float4 *weights = weight_area + (ty * WEIGHT_LD + j0 / 4);
            if (compare && odd_slice == slice_number)
                add_values_with_care(&acc, (const __local float *)weights, area + tx);
            else
                add_values(&acc, weights, area + tx);
            slice_number++;
        }

        k0 += BLOCK_KV;
        if (ALWAYS_KEYS && k0 >= run_end) k0 = max(k0, always_block);
    }

#if KEY_PARTS
    if (!PART_ENDS) {
#define KEEP_VECTOR(n) keep_rows(&acc.c##n, own + n * ROWS * ITEMS);
        EACH_VECTOR(KEEP_VECTOR)
        own_sums[0] = as_uint4(top);
        own_sums[ITEMS] = as_uint4(total);
        own_sums[2 * ITEMS] = (uint4)(attended);
    }
#endif

    /* pass 5: the parts of the sums meet, and whether the row had a key at all */
    __local uint *attended_area = (__local uint *)weight_area;
    barrier(CLK_LOCAL_MEM_FENCE);
    area[item] = total;
    attended_area[item] = attended;
    barrier(CLK_LOCAL_MEM_FENCE);
    total = (float4)(0.0f);
    attended = 0;
    NO_UNROLL
    for (int x = 0; x < TILE_X; x += ROLLED(1)) {
        total += area[ty * TILE_X + x];
        attended |= attended_area[ty * TILE_X + x];
    }
    const int4 empty = ((int4)((int)attended) & (int4)(0xf, 0xf0, 0xf00, 0xf000)) == (int4)(0);
    const float4 inverse = select(1.0f / total, (float4)(0.0f), empty);
    __global storage *o = output + (a.output.offset + b * a.output.batch + h * a.output.head);
#define STORE_VECTOR(n)                                                                                                \
    scale_rows(&acc.c##n, inverse);                                                                                    \
    store_rows(&acc.c##n, o, a.output.row, q0 + ty, a.query_len, (n * TILE_X + tx) * 4);
    EACH_VECTOR(STORE_VECTOR)
    if (LSE && tx == 0) {
        const float4 safe_top = select(top, (float4)(0.0f), top == -INFINITY);
        const float4 natural = select((safe_top + log2(total)) * LN_2, (float4)(-INFINITY), empty);
        __global float *l = lse + (a.lse_offset + b * a.lse_batch + h * a.lse_head);
#define STORE_LSE(n)                                                                                                   \
    if (q0 + ty + n * TILE_Y < a.query_len) l[q0 + ty + n * TILE_Y] = natural.s##n;
        EACH_ROW(STORE_LSE)
    }
}
