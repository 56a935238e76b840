/* Attention by tiles in local memory, for any GPU: OpenCL C 1.2, no extension, arithmetic in float.
 *
 * A work-group of TILE_X x TILE_Y items owns BLOCK_Q query rows of one head and walks the keys, BLOCK_KV at a time,
 * with a running maximum and sum per row (Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022,
 * arXiv:2205.14135).
 * It works like a matrix product: query, key and value pass through local memory in slices, so that local memory does
 * not grow with HEAD_DIM.
 *
 *        keys tx, tx+TILE_X, ...  (4)             columns 4*tx..4*tx+3, then 4*TILE_X further on  (VALUE_VECTORS times)
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
 *   TILE_X: items along keys or columns; a multiple of 4, 8 or 16 in use.
 *   TILE_Y: items along rows.
 *   ROWS: query rows per item, 1, 2 or 4; costs 4 + 4 * VALUE_VECTORS registers each.
 *   DEPTH: elements of HEAD_DIM staged at once; a multiple of 4.
 *   VALUE_KEYS: keys of V staged at once; a multiple of 4 that divides BLOCK_KV.
 *   AREA_FLOATS: floats in the staging area that the slices and the table of row maxima share.
 * What follows from them:
 *   BLOCK_Q: query rows per group.  BLOCK_KV: keys per step.
 *   VALUE_VECTORS: float4 columns per item.  ROW_VECTORS: float4 per staged row of V.
 *   SLICE_LD: float4 per staged row of Q and K, one more than needed, so that neighbouring rows start in other banks.
 *   WEIGHT_LD: the same for a row of weights.
 * Others: HEAD_DIM, VALUE_DIM, STORAGE_F16, STORAGE_BF16, every feature as 0 or 1 (no weights and no scores output). */
#include "inc/cell_rows.clh"
#include "inc/dropout.clh"
#include "inc/mask.clh"
#include "inc/types.clh"
#include "inc/varlen.clh"
#include "inc/vendor.clh"

#define KEYS 4 /* keys per item and block */
#define ITEMS (TILE_X * TILE_Y)
#define BLOCK_Q (TILE_Y * ROWS)
#define BLOCK_KV (TILE_X * KEYS)
#define VALUE_VECTORS ((VALUE_DIM + 4 * TILE_X - 1) / (4 * TILE_X))
#define ROW_VECTORS (VALUE_VECTORS * TILE_X)
#define SLICE_LD (DEPTH / 4 + 1)
#define WEIGHT_LD (BLOCK_KV / 4 + 1)

#if TILE_X % 4 != 0 || DEPTH % 4 != 0 || VALUE_KEYS % 4 != 0 || BLOCK_KV % VALUE_KEYS != 0
#error "TILE_X, DEPTH and VALUE_KEYS must be multiples of 4, and VALUE_KEYS must divide 4 * TILE_X"
#endif
#if AREA_FLOATS < (BLOCK_Q + BLOCK_KV) * SLICE_LD * 4 || AREA_FLOATS < VALUE_KEYS * ROW_VECTORS * 4 ||                 \
    AREA_FLOATS < BLOCK_Q * TILE_X
#error "AREA_FLOATS is too small for these tiles"
#endif

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
    for (int u = item; u < BLOCK_Q * (DEPTH / 4); u += ITEMS) {
        const int r = u / (DEPTH / 4), d = u % (DEPTH / 4) * 4;
        float4 x = (float4)(0.0f);
        if (q0 + r < rows) x = load4_part(q + ((q0 + r) * stride + d0 + d), HEAD_DIM - d0 - d);
        slice[r * SLICE_LD + d / 4] = x;
    }
}

/* Four columns of key j from column c, zeros beyond the last. */
static inline float4 staged_part(const cell_rows *rows, int j, int c, int columns) {
    const int2 at = cells_at(rows, j);
    const float4 x = cell4_part(cells_row(rows, at) + c, columns - c);
    return CELL_I8 ? x * cells_scale(rows, at) : x;
}

/* BLOCK_KV rows of K from key k0 in the same way. */
static inline void stage_key(__local float4 *slice, const cell_rows *k, const attn_head *head, int k0, int d0,
                             int item) {
    for (int u = item; u < BLOCK_KV * (DEPTH / 4); u += ITEMS) {
        const int r = u / (DEPTH / 4), d = u % (DEPTH / 4) * 4;
        float4 x = (float4)(0.0f);
        if (readable(head, k0 + r)) x = staged_part(k, k0 + r, d0 + d, HEAD_DIM);
        slice[r * SLICE_LD + d / 4] = x;
    }
}

/* VALUE_KEYS rows of V from key j0, padded with zero columns. Returns true when this item saw a NaN or an infinity. */
static inline bool stage_value(__local float4 *slice, const cell_rows *v, const attn_head *head, int j0, int item) {
    bool odd = false;
    for (int u = item; u < VALUE_KEYS * ROW_VECTORS; u += ITEMS) {
        const int r = u / ROW_VECTORS, c = u % ROW_VECTORS * 4;
        float4 x = (float4)(0.0f);
        if (readable(head, j0 + r)) x = staged_part(v, j0 + r, c, VALUE_DIM);
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
    for (int r = 0; r < ROWS; r++) {
        const int i = min(row + r * TILE_Y, last_row);
        const int2 run = attn_range(head, i);
        NO_UNROLL
        for (int j = 0; j < KEYS; j++)
            if (!attn_allowed(head, run, i, key + j * TILE_X)) forbidden |= 1u << (KEYS * r + j);
    }
    return forbidden;
}

/* acc += weights * V for one staged slice; weights: this item's first row. */
static inline void add_values(float4 acc[ROWS][VALUE_VECTORS], const __local float4 *weights,
                              const __local float4 *values) {
    UNROLL_DEPTH
    for (int j = 0; j < VALUE_KEYS / 4; j++) {
        float4 w[ROWS];
        UNROLL
        for (int r = 0; r < ROWS; r++) w[r] = weights[r * TILE_Y * WEIGHT_LD + j];
        UNROLL
        for (int c = 0; c < VALUE_VECTORS; c++) {
            const __local float4 *v = values + (4 * j * ROW_VECTORS + c * TILE_X);
            const float4 v0 = v[0], v1 = v[ROW_VECTORS], v2 = v[2 * ROW_VECTORS], v3 = v[3 * ROW_VECTORS];
            UNROLL
            for (int r = 0; r < ROWS; r++) {
                float4 sum = fma((float4)(w[r].x), v0, acc[r][c]);
                sum = fma((float4)(w[r].y), v1, sum);
                sum = fma((float4)(w[r].z), v2, sum);
                acc[r][c] = fma((float4)(w[r].w), v3, sum);
            }
        }
    }
}

/* The same, stepping over forbidden weights. */
static inline void add_values_with_care(float4 acc[ROWS][VALUE_VECTORS], const __local float *weights,
                                        const __local float4 *values) {
    for (int j = 0; j < VALUE_KEYS; j++) {
        UNROLL
        for (int r = 0; r < ROWS; r++) {
            const float w = weights[r * TILE_Y * WEIGHT_LD * 4 + j];
            UNROLL
            for (int c = 0; c < VALUE_VECTORS; c++) {
                const float4 sum = fma((float4)(w), values[j * ROW_VECTORS + c * TILE_X], acc[r][c]);
                acc[r][c] = IS_FORBIDDEN(w) ? acc[r][c] : sum;
            }
        }
    }
}

/* first: number of group 0's tile, as launches come in chunks. */
__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) void attn_tiled(ATTN_ALL_PARAMETERS(all),
                                                                            clattn_i64 first) {
    __local float4 area[AREA_FLOATS / 4];            /* slices of Q and K, of V, or a table (BLOCK_Q, TILE_X) */
    __local float4 weight_area[BLOCK_Q * WEIGHT_LD]; /* (BLOCK_Q, BLOCK_KV), padded rows */
    __local int odd_slice;                           /* number of the last slice of V with a NaN or an infinity */
    __local float *table = (__local float *)area;
    __local float *weight = (__local float *)weight_area;
    __local float4 *query_slice = area, *key_slice = area + BLOCK_Q * SLICE_LD;

    const int item = (int)get_local_id(0), tx = item % TILE_X, ty = item / TILE_X;
    const int tiles = (all.query_len + BLOCK_Q - 1) / BLOCK_Q, heads = all.batch * all.query_heads;
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
    if (ALWAYS_KEYS && k0 >= run_end) k0 = max(k0, always_block);

    /* Running values per row, in units of log2: top is the greatest score so far, total this item's part of the sum. */
    const float to_log2 = a.inverse_temperature * LOG2_E;
    float top[ROWS], total[ROWS];
    float4 acc[ROWS][VALUE_VECTORS];
    uint attended = 0; /* bit r: row r may attend to one of this item's keys */
    UNROLL
    for (int r = 0; r < ROWS; r++) {
        top[r] = SINKS ? sinks[a.sinks_offset + h] * to_log2 : -INFINITY;
        total[r] = tx == 0 && top[r] != -INFINITY ? 1.0f : 0.0f;
        UNROLL
        for (int c = 0; c < VALUE_VECTORS; c++) acc[r][c] = (float4)(0.0f);
    }
    int slice_number = 0;
    if (item == 0) odd_slice = -1;

    while (k0 < stop) {
        const bool masks = MASK_BOOL || MASK_FLOAT || PADDING || DOCUMENTS;
        const bool compare = masks || k0 < bottom_run.x || k0 + BLOCK_KV > top_run.y;

        /* pass 1 */
        float s[ROWS][KEYS];
        UNROLL
        for (int r = 0; r < ROWS; r++) {
            UNROLL
            for (int j = 0; j < KEYS; j++) s[r][j] = 0.0f;
        }
        for (int d0 = 0; d0 < HEAD_DIM; d0 += DEPTH) {
            barrier(CLK_LOCAL_MEM_FENCE);
            stage_query(query_slice, q, a.query.row, q0, a.query_len, d0, item);
            stage_key(key_slice, &k, &head, k0, d0, item);
            barrier(CLK_LOCAL_MEM_FENCE);
            UNROLL_DEPTH
            for (int d = 0; d < DEPTH / 4; d++) {
                float4 kd[KEYS];
                UNROLL
                for (int j = 0; j < KEYS; j++) kd[j] = key_slice[(tx + j * TILE_X) * SLICE_LD + d];
                UNROLL
                for (int r = 0; r < ROWS; r++) {
                    const float4 qd = query_slice[(ty + r * TILE_Y) * SLICE_LD + d];
                    UNROLL
                    for (int j = 0; j < KEYS; j++) {
                        float sum = fma(qd.x, kd[j].x, s[r][j]);
                        sum = fma(qd.y, kd[j].y, sum);
                        sum = fma(qd.z, kd[j].z, sum);
                        s[r][j] = fma(qd.w, kd[j].w, sum);
                    }
                }
            }
        }

        /* pass 2; bit KEYS * r + j of forbidden belongs to s[r][j] */
        const int last_row = a.query_len - 1;
        const uint forbidden = compare ? forbidden_keys(&head, q0 + ty, last_row, k0 + tx) : 0;
        UNROLL
        for (int r = 0; r < ROWS; r++) {
            UNROLL
            for (int j = 0; j < KEYS; j++) {
                s[r][j] = attn_softcap(&head, a.scale * s[r][j]);
                if ((MASK_FLOAT || ALIBI) && !(forbidden >> (KEYS * r + j) & 1u))
                    s[r][j] = attn_terms(&head, min(q0 + ty + r * TILE_Y, last_row), k0 + tx + j * TILE_X, s[r][j]);
            }
        }

        /* pass 3: the row maxima meet in the staging area, which everybody has finished reading */
        barrier(CLK_LOCAL_MEM_FENCE);
        UNROLL
        for (int r = 0; r < ROWS; r++) {
            float greatest = -INFINITY;
            UNROLL
            for (int j = 0; j < KEYS; j++) {
                if (forbidden >> (KEYS * r + j) & 1u)
                    s[r][j] = -INFINITY;
                else
                    attended |= 1u << r;
                greatest = fmax(greatest, s[r][j]);
            }
            table[(ty + r * TILE_Y) * TILE_X + tx] = greatest;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        UNROLL
        for (int r = 0; r < ROWS; r++) {
            const __local float4 *row = area + (ty + r * TILE_Y) * (TILE_X / 4);
            float4 greatest = row[0];
            UNROLL
            for (int x = 1; x < TILE_X / 4; x++) greatest = fmax(greatest, row[x]);
            const float block_top = fmax(fmax(greatest.x, greatest.y), fmax(greatest.z, greatest.w));
            const float new_top = fmax(top[r], block_top * to_log2);
            const float base = new_top == -INFINITY ? 0.0f : new_top; /* safe to subtract */
            const float rescale = fast_exp2(top[r] - base);
            float sum = 0.0f;
            UNROLL
            for (int j = 0; j < KEYS; j++) {
                float p = fast_exp2(fma(s[r][j], to_log2, -base));
                if (forbidden >> (KEYS * r + j) & 1u) p = FORBIDDEN_WEIGHT;
                sum += p;
                if (DROPOUT) p *= attn_dropout(&a, b, h, q0 + ty + r * TILE_Y, k0 + tx + j * TILE_X);
                weight[(ty + r * TILE_Y) * WEIGHT_LD * 4 + tx + j * TILE_X] = p;
            }
            top[r] = new_top;
            total[r] = fma(total[r], rescale, sum);
            if (rescale != 1.0f) { /* a branch, not a select: some compilers keep a second copy of acc otherwise */
                UNROLL
                for (int c = 0; c < VALUE_VECTORS; c++) acc[r][c] *= rescale;
            }
        }

        /* pass 4 */
        for (int j0 = 0; j0 < BLOCK_KV && k0 + j0 < stop; j0 += VALUE_KEYS) {
            barrier(CLK_LOCAL_MEM_FENCE);
            if (stage_value(area, &v, &head, k0 + j0, item))
                odd_slice = slice_number; /* whoever writes, writes the same */
            barrier(CLK_LOCAL_MEM_FENCE);
            if (compare && odd_slice == slice_number)
                add_values_with_care(acc, weight + (ty * WEIGHT_LD * 4 + j0), area + tx);
            else
                add_values(acc, weight_area + (ty * WEIGHT_LD + j0 / 4), area + tx);
            slice_number++;
        }

        k0 += BLOCK_KV;
        if (ALWAYS_KEYS && k0 >= run_end) k0 = max(k0, always_block);
    }

    /* pass 5: the parts of the sums meet, and whether the row had a key at all */
    barrier(CLK_LOCAL_MEM_FENCE);
    UNROLL
    for (int r = 0; r < ROWS; r++) {
        table[(ty + r * TILE_Y) * TILE_X + tx] = total[r];
        weight[(ty + r * TILE_Y) * WEIGHT_LD * 4 + tx] = attended >> r & 1u ? 1.0f : 0.0f;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    UNROLL
    for (int r = 0; r < ROWS; r++) {
        const int i = q0 + ty + r * TILE_Y;
        float sum = 0.0f, any = 0.0f;
        UNROLL
        for (int x = 0; x < TILE_X; x++) {
            sum += table[(ty + r * TILE_Y) * TILE_X + x];
            any += weight[(ty + r * TILE_Y) * WEIGHT_LD * 4 + x];
        }
        const float inverse = 1.0f / sum;
        __global storage *o = output + (a.output.offset + b * a.output.batch + h * a.output.head + i * a.output.row);
        const int columns = i < a.query_len ? VALUE_DIM : 0; /* rows beyond the last write nothing */
        UNROLL
        for (int c = 0; c < VALUE_VECTORS; c++) {
            const int column = (c * TILE_X + tx) * 4;
            store4_part(any > 0.0f ? acc[r][c] * inverse : (float4)(0.0f), o + column, columns - column);
        }
        if (LSE && tx == 0 && i < a.query_len) {
            const float base = top[r] == -INFINITY ? 0.0f : top[r];
            lse[a.lse_offset + b * a.lse_batch + h * a.lse_head + i] =
                any > 0.0f ? (base + log2(sum)) * LN_2 : -INFINITY;
        }
    }
}
