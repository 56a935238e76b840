/* Attention of few queries on CPU devices: one work-item per work-group owns a tile of rows and its share of the chunks
 * of keys; no local memory, no barriers. The features of keys and values lie in the lanes of the vectors. For one
 * chunk:
 *
 *   passes 1, 2  ROWS x CHUNK scores: products summed across the lanes; terms, masks
 *   pass 3       maximum, p = 2^(score - maximum), sum
 *   pass 4       RT rows x NC vectors of values in registers along the keys
 *   pass 5       joins what there is, or goes to the partial results; at the end output / sum, logsumexp
 *
 * The work is to read keys and values once; chunks stay in the caches between the passes. Rows that are no whole number
 * of vectors end with a vector that overlaps the one before. Forbidden keys weigh 0, and in chunks that have any,
 * values are added row by row for the allowed ones only, so that what lies there has no effect.
 *
 * Options: HEAD_DIM, VALUE_DIM >= VW, STORAGE_F16, STORAGE_BF16, every feature as 0 or 1, CHUNK, ROWS, and below. */
#include "inc/decode.clh"
#include "inc/lanes.clh"

/* RT: rows of a register tile, 1..8; NC: vectors of columns of one, 1..16. RT * NC sums.
 * HEAD_DIM: at least VW, as the last vector of a row overlaps its neighbour. VALUE_DIM: likewise. */
#if RT < 1 || RT > 8
#error "RT must be in 1..8"
#endif
#if NC < 1 || NC > 16
#error "NC must be in 1..16"
#endif
#if HEAD_DIM < VW || VALUE_DIM < VW
#error "VW: lanes, at most HEAD_DIM and VALUE_DIM"
#endif
#define TILE_ROWS ((ROWS + RT - 1) / RT * RT)
#define HEAD_VECS ((HEAD_DIM + VW - 1) / VW)
#define VALUE_VECS ((VALUE_DIM + VW - 1) / VW)
#define VALUE_PAD (VALUE_VECS * VW)
#define PART (VALUE_PAD + 2)
/* First element of vector j of a row: the last one overlaps. */
#define AT(j, dim) min((j)*VW, (dim)-VW)
#define KEY_OVERLAP (HEAD_VECS * VW - HEAD_DIM)

/* Set where the driver emits a kernel's code several times: the body then exists once, as a callee. */
#ifdef BODY_NOINLINE
#define BODY __attribute__((noinline)) static void
#else
#define BODY static void
#endif

static inline float sum_lanes(vec x) {
#if VW == 16
    const float8 y = x.lo + x.hi;
#elif VW == 8
    const float8 y = x;
#endif
#if VW >= 8
    const float4 z = y.lo + y.hi;
#else
    const float4 z = x;
#endif
    return (z.x + z.y) + (z.z + z.w);
}

static inline float max_lanes(vec x) {
    float most = x.s0;
    const float *lanes = (const float *)&x;
    for (int i = 1; i < VW; i++) most = lanes[i] > most ? lanes[i] : most;
    return most;
}

/* VW cells as floats, bytes without their scale. */
static inline vec cell_lanes(const __global cell *p) {
#if CELL_I8
    return TO_VEC(TO_IVEC(PASTE(vload, VW)(0, p)));
#elif CELL_F16
    return lanes_of_halves(p);
#elif CELL_BF16
    return lanes_of_bfloats(p);
#else
    return load_lanes(p);
#endif
}

/* Vector j of a query, without what vector j - 1 has. */
static inline vec query_lanes(const __global storage *q, int j) {
    const vec x = load_lanes(q + AT(j, HEAD_DIM));
    return KEY_OVERLAP && j == HEAD_VECS - 1 ? (LANE_NUMBERS >= KEY_OVERLAP ? x : (vec)(0.0f)) : x;
}

/* Likewise of a key, so that what is twice there has no effect even if it is infinite. */
static inline vec key_lanes(const __global cell *k, int j) {
    const vec x = cell_lanes(k + AT(j, HEAD_DIM));
    return KEY_OVERLAP && j == HEAD_VECS - 1 ? (LANE_NUMBERS >= KEY_OVERLAP ? x : (vec)(0.0f)) : x;
}

/* Where the keys or the values of one chunk lie: the lookups are done once, for all rows. */
typedef struct chunk_cells {
    const __global cell *first;
    clattn_i64 stride;
    clattn_i64 at[CELLS_MAPPED ? CHUNK : 1]; /* offsets from first, where there is no stride */
    float scale[CELL_I8 ? CHUNK : 1];
} chunk_cells;

static inline void find_cells(const cell_rows *rows, int first, int count, chunk_cells *chunk) {
    chunk->stride = rows->row;
    chunk->first = CELLS_MAPPED ? rows->cells : rows->cells + first * rows->row;
    if (!(CELLS_MAPPED || CELL_I8)) return;
    for (int c = 0, run; c < count; c += run) {
        const int2 at = cells_at(rows, first + c);
        run = min(cells_run(rows, at), count - c);
        for (int i = 0; i < run; i++) {
            if (CELLS_MAPPED) chunk->at[c + i] = cells_offset(rows, at) + i * rows->row;
            if (CELL_I8) chunk->scale[c + i] = cells_scale(rows, (int2)(at.x, at.y + i));
        }
    }
}

static inline const __global cell *chunk_row(const chunk_cells *chunk, int c) {
    return chunk->first + (CELLS_MAPPED ? chunk->at[c] : c * chunk->stride);
}

/* Processors foresee the rows of a tensor, but not those of pages: the row of the key AHEAD of key c is asked for in
 * time. 16 to 64 keys ahead are alike; without it, pages of 16 tokens take 1.2 times (float) to 1.8 times (int8) as
 * long. */
enum { AHEAD = 48, CACHE_LINE = 64 };

static inline void fetch_row_ahead(const chunk_cells *chunk, int c, int count, int width) {
    const __global cell *row = chunk_row(chunk, min(c + AHEAD, count - 1));
    UNROLL for (int i = 0; i < width; i += CACHE_LINE / (int)sizeof(cell)) fetch_ahead(row + i);
}

/* Of a value's weight: what makes floats of its bytes. */
static inline float scaled(const chunk_cells *chunk, int c, float weight) {
    return CELL_I8 ? weight * chunk->scale[c] : weight;
}

static inline void load_queries(const clattn_attn_args *a, const decode_tile *tile, const decode_row *rows, int b,
                                const __global storage *query, float *q) /* (TILE_ROWS, HEAD_VECS * VW) */ {
    for (int r = 0; r < TILE_ROWS; r++)
        for (int j = 0; j < HEAD_VECS; j++) {
            vec x = (vec)(0.0f);
            if (r < tile->rows)
                x = query_lanes(query + (a->query.offset + b * a->query.batch + rows[r].head * a->query.head +
                                         rows[r].i * a->query.row),
                                j);
            VEC_AT(q + (r * HEAD_VECS + j) * VW) = x * tile->scale;
        }
}

/* Pass 1. p: (TILE_ROWS, CHUNK) */
static inline void score_keys(const chunk_cells *keys, const decode_tile *tile, int count, const float *q, float *p) {
    for (int c = 0; c < count; c++) {
        const __global cell *key = chunk_row(keys, c);
        if (CELLS_MAPPED) fetch_row_ahead(keys, c, count, HEAD_DIM);
        for (int r = 0; r < tile->rows; r += RT) {
            vec sums[RT];
            UNROLL for (int i = 0; i < RT; i++) sums[i] = (vec)(0.0f);
            UNROLL for (int j = 0; j < HEAD_VECS; j++) {
                const vec x = key_lanes(key, j);
                UNROLL for (int i = 0; i < RT; i++) sums[i] =
                    muladd(VEC_AT(q + ((r + i) * HEAD_VECS + j) * VW), x, sums[i]);
            }
            UNROLL for (int i = 0; i < RT; i++) p[(r + i) * CHUNK + c] = scaled(keys, c, sum_lanes(sums[i]));
        }
    }
}

/* Pass 2 for one row: p (CHUNK). Where the row's range ends in the chunk, or keys have holes, forbidden keys become
 * -inf; hidden (CHUNK) tells the holes. Returns how many keys are allowed. */
static inline int apply_terms(const attn_head *head, const decode_tile *tile, const decode_row *row, int first,
                              int count, bool careful, float *p, uchar *hidden) {
    const bool capped = SOFTCAP && tile->softcap_exponent > 0.0f;
    for (int c = 0; c < count && (capped || ALIBI || careful); c += VW) {
        const ivec keys = LANE_NUMBERS + (first + c);
        vec s = VEC_AT(p + c);
        if (capped) s = vec_tanh(s) * tile->softcap_exponent;
        if (ALIBI) s = muladd((vec)(row->slope), TO_VEC(LANE_NUMBERS) + (float)(first + c - row->position), s);
        s = keys >= row->first ? s : (vec)(-INFINITY);
        VEC_AT(p + c) = keys < row->end ? s : (vec)(-INFINITY);
    }
    int allowed = max(0, min(row->end, first + count) - max(row->first, first));
    for (int c = 0; c < count && HOLES; c++) {
        const bool shown = decode_allows(head, row, first + c);
        hidden[c] = !shown;
        if (shown) {
            p[c] += decode_bias(head, tile, row, first + c);
        } else {
            allowed -= decode_in_range(row, first + c);
            p[c] = -INFINITY;
        }
    }
    for (int c = count; c < CHUNK && c % VW != 0; c++) p[c] = -INFINITY;
    return allowed;
}

/* Pass 3 for one row with an allowed key. */
static inline decode_sums weigh_keys(int count, float *p) {
    vec top = VEC_AT(p), sum = (vec)(0.0f);
    for (int c = VW; c < count; c += VW) top = vec_max(VEC_AT(p + c), top);
    const float m = max_lanes(top);
    for (int c = 0; c < count; c += VW) {
        const vec weight = vec_exp2(VEC_AT(p + c) - m);
        sum += weight;
        VEC_AT(p + c) = weight;
    }
    return (decode_sums){m, sum_lanes(sum)};
}

/* Pass 4. acc: (TILE_ROWS, VALUE_PAD) */
static inline void add_values(const chunk_cells *values, const decode_tile *tile, int count, const float *p,
                              float *acc) {
    for (int r = 0; r < tile->rows; r += RT)
        for (int j = 0; j < VALUE_VECS; j += NC) {
            vec sums[RT][NC];
            UNROLL for (int i = 0; i < RT * NC; i++) sums[i / NC][i % NC] = (vec)(0.0f);
            for (int c = 0; c < count; c++) {
                const __global cell *value = chunk_row(values, c);
                if (CELLS_MAPPED) fetch_row_ahead(values, c, count, VALUE_DIM);
                vec x[NC];
                UNROLL for (int n = 0; n < NC; n++) x[n] = cell_lanes(value + AT(j + n, VALUE_DIM));
                UNROLL for (int i = 0; i < RT; i++) {
                    const vec weight = (vec)(scaled(values, c, p[(r + i) * CHUNK + c]));
                    UNROLL for (int n = 0; n < NC; n++) sums[i][n] = muladd(weight, x[n], sums[i][n]);
                }
            }
            UNROLL for (int i = 0; i < RT; i++) {
                UNROLL for (int n = 0; n < NC; n++) {
                    if (j + n < VALUE_VECS) VEC_AT(acc + (r + i) * VALUE_PAD + (j + n) * VW) = sums[i][n];
                }
            }
        }
}

/* Pass 4 where some row must not see some key: what is hidden has no effect, whatever it is. */
static inline void add_allowed_values(const chunk_cells *values, const decode_tile *tile, const decode_row *rows,
                                      int first, int count, const float *p, const uchar *hidden, float *acc) {
    for (int i = 0; i < TILE_ROWS * VALUE_PAD; i += VW) VEC_AT(acc + i) = (vec)(0.0f);
    for (int c = 0; c < count; c++)
        for (int r = 0; r < tile->rows; r++) {
            if (HOLES ? hidden[r * CHUNK + c] != 0 : !decode_in_range(&rows[r], first + c)) continue;
            const vec weight = (vec)(scaled(values, c, p[r * CHUNK + c]));
            float *sums = acc + r * VALUE_PAD;
            for (int j = 0; j < VALUE_VECS; j++)
                VEC_AT(sums + j * VW) =
                    muladd(weight, cell_lanes(chunk_row(values, c) + AT(j, VALUE_DIM)), VEC_AT(sums + j * VW));
        }
}

static inline void join_values(decode_sums *sums, decode_sums chunk, const float *from, float *to) {
    float2 factors;
    if (!decode_join(sums, chunk, &factors)) return;
    for (int j = 0; j < VALUE_PAD; j += VW)
        VEC_AT(to + j) = muladd(VEC_AT(from + j), (vec)(factors.y), VEC_AT(to + j) * factors.x);
}

static inline void write_row(const clattn_attn_args *a, const decode_tile *tile, const decode_row *row, int b,
                             decode_sums sums, const float *values, const __global float *sinks,
                             __global storage *output, __global float *lse) {
    const float2 end = decode_close(sums, decode_sink(a, tile, sinks, row->head));
    __global storage *to = output + decode_output_at(a, b, row);
    for (int j = 0; j < VALUE_VECS; j++) store_lanes(VEC_AT(values + j * VW) * end.x, to + AT(j, VALUE_DIM));
    if (LSE) lse[decode_lse_at(a, b, row)] = end.y;
}

BODY attn_decode_body(int split, int index, int line, const clattn_attn_args *a, const clattn_decode_args *d,
                      const __global storage *query, const cell_rows *keys, const cell_rows *values,
                      __global storage *output, const __global mask_element *mask, const __global uchar *padding,
                      const __global int *lengths, const __global float *alibi, const __global float *sinks,
                      __global float *lse, __global float *partials) {
    float q[TILE_ROWS * HEAD_VECS * VW] __attribute__((aligned(64)));
    float p[TILE_ROWS * CHUNK] __attribute__((aligned(64)));
    float acc[TILE_ROWS * VALUE_PAD] __attribute__((aligned(64)));  /* of one chunk */
    float sums[TILE_ROWS * VALUE_PAD] __attribute__((aligned(64))); /* of all chunks so far */
    uchar hidden[HOLES ? TILE_ROWS * CHUNK : 1];
    decode_sums joined[TILE_ROWS], chunk[TILE_ROWS];
    chunk_cells key_cells, value_cells;
    /* One more than there are: the compiler of Intel's CPU runtime 2026.22 crashes in instruction selection when the
     * fields of a single row become registers (causal, HEAD_DIM 64; seen 2026-11-21). Drop it when newer ones build
     * that. */
    decode_row rows[TILE_ROWS + 1];
    decode_tile tile;
    attn_head head;
    const int b = line / a->kv_heads, kv_head = line % a->kv_heads;
    attn_head_set(&head, a, b, kv_head * d->group, mask, padding, lengths, alibi);
    decode_tile_set(&tile, a, d, &head, kv_head, index);
    for (int r = 0; r < tile.rows; r++) decode_row_set(&rows[r], a, d, &head, &tile, r, alibi);
    load_queries(a, &tile, rows, b, query, q);
    for (int i = 0; i < TILE_ROWS * CHUNK; i += VW) VEC_AT(p + i) = (vec)(0.0f);
    for (int i = 0; i < TILE_ROWS * VALUE_PAD; i += VW) VEC_AT(sums + i) = (vec)(0.0f);
    for (int r = 0; r < TILE_ROWS; r++) joined[r] = (decode_sums){-INFINITY, 0.0f};

    for (int c = tile.keys.x / CHUNK + split; c * CHUNK < tile.keys.y; c += d->splits) {
        const int first = max(c * CHUNK, tile.keys.x), count = min((c + 1) * CHUNK, tile.keys.y) - first;
        const bool careful = HOLES || first < tile.all.x || first + count > tile.all.y;
        find_cells(keys, first, count, &key_cells);
        find_cells(values, first, count, &value_cells);
        score_keys(&key_cells, &tile, count, q, p);
        for (int r = 0; r < tile.rows; r++) {
            const int allowed = apply_terms(&head, &tile, &rows[r], first, count, careful, p + r * CHUNK,
                                            hidden + (HOLES ? r * CHUNK : 0));
            chunk[r] = allowed ? weigh_keys(count, p + r * CHUNK) : (decode_sums){-INFINITY, 0.0f};
        }
        if (careful)
            add_allowed_values(&value_cells, &tile, rows, first, count, p, hidden, acc);
        else
            add_values(&value_cells, &tile, count, p, acc);
        for (int r = 0; r < tile.rows; r++) {
            if (d->splits == 1) {
                join_values(&joined[r], chunk[r], acc + r * VALUE_PAD, sums + r * VALUE_PAD);
                continue;
            }
            __global float *part = partials + decode_part(d, decode_line(a, d, b, kv_head, tile.row + r), c, PART);
            for (int j = 0; j < VALUE_PAD; j += VW) STORE(VEC_AT(acc + r * VALUE_PAD + j), part + j);
            part[VALUE_PAD] = chunk[r].m;
            part[VALUE_PAD + 1] = chunk[r].l;
        }
    }
    for (int r = 0; r < tile.rows && d->splits == 1; r++)
        write_row(a, &tile, &rows[r], b, joined[r], sums + r * VALUE_PAD, sinks, output, lse);
}

/* partials: (B * Hkv * rows, chunks, PART), with several splits. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
attn_decode(ATTN_ALL_PARAMETERS(a), const clattn_decode_args d, __global float *partials) {
    const int b = (int)get_group_id(2) / a.kv_heads, kv_head = (int)get_group_id(2) % a.kv_heads;
    const cell_rows k = cells_of(&a.cells, &a.key, &a.key_scales, key, key_scales, cell_table, b, kv_head);
    const cell_rows v = cells_of(&a.cells, &a.value, &a.value_scales, value, value_scales, cell_table, b, kv_head);
    attn_decode_body((int)get_group_id(0), (int)get_group_id(1), (int)get_group_id(2), &a, &d, query, &k, &v, output,
                     mask, padding, lengths, alibi, sinks, lse, partials);
}

BODY attn_decode_merge_body(int index, int line, const clattn_attn_args *a, const clattn_decode_args *d,
                            __global storage *output, const __global int *lengths, const __global float *alibi,
                            const __global float *sinks, __global float *lse, const __global float *partials) {
    float from[VALUE_PAD] __attribute__((aligned(64))), sums[VALUE_PAD] __attribute__((aligned(64)));
    decode_sums joined = {-INFINITY, 0.0f};
    decode_row row;
    decode_tile tile;
    attn_head head;
    const int b = line / a->kv_heads, kv_head = line % a->kv_heads;
    attn_head_set(&head, a, b, kv_head * d->group, 0, 0, lengths, alibi);
    decode_tile_set(&tile, a, d, &head, kv_head, index / ROWS);
    row.head = tile.first_head + index % d->group;
    row.i = index / d->group;
    for (int j = 0; j < VALUE_PAD; j += VW) VEC_AT(sums + j) = (vec)(0.0f);
    for (int c = tile.keys.x / CHUNK; c * CHUNK < tile.keys.y; c++) {
        const __global float *part = partials + decode_part(d, decode_line(a, d, b, kv_head, index), c, PART);
        const decode_sums chunk = {part[VALUE_PAD], part[VALUE_PAD + 1]};
        for (int j = 0; j < VALUE_PAD; j += VW) VEC_AT(from + j) = LOAD(part + j);
        join_values(&joined, chunk, from, sums);
    }
    write_row(a, &tile, &row, b, joined, sums, sinks, output, lse);
}

__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
attn_decode_merge(const clattn_attn_args a, __global storage *output, const __global int *lengths,
                  const __global float *alibi, const __global float *sinks, __global float *lse,
                  const clattn_decode_args d, const __global float *partials) {
    attn_decode_merge_body((int)get_group_id(1), (int)get_group_id(2), &a, &d, output, lengths, alibi, sinks, lse,
                           partials);
}
