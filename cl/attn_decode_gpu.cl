/* Attention of few queries on devices with local memory: one work-group of GROUP items owns a tile of rows and its
 * share of the chunks of keys. Keys and values are read once, in pieces of 16 bytes, by neighbours side by side:
 *
 *   a round of keys               passes 1, 2                          the chunk's values
 *   +----- head_dim -----+        a team of TEAM items has a key,      +---- value_dim ---+   pass 4
 *   | 0  1  2 .. TEAM-1  | team 0 each item every TEAM-th piece; what  | 0  1 .. COLUMNS-1| slice 0   an item has one
 *   | 0  1  2 .. TEAM-1  | team 1 the members have is added up by      | 0  1 .. COLUMNS-1| slice 1   column of pieces
 *   |        ...         |  ...   way of local memory, and becomes     |       ...        |  ...      for all rows, and
 *   +--------------------+        ROUND * ROWS scores                  +------------------+   every SLICES-th value
 *
 *   pass 1    products
 *   pass 2    terms and masks, and the maximum: an item looks after row item % ROWS, with KEEPERS - 1 others
 *   pass 3    p = 2^(score - maximum), and the sum of p
 *   pass 4    p * value, added up in registers
 *   pass 5    slices are added, in order; what comes out joins, or goes to the partial results
 *
 * Each item has LOADS pieces on their way at a time. Forbidden keys have weight -1, which no power has, and are passed
 * over, so that what lies there has no effect. All barriers are in the kernel itself, and what it calls is INLINE and
 * returns no struct: pocl 3.1 took sums for 0 where reading them had stayed a function, and oclgrind 21.10 does not
 * know what inlining leaves of a struct. */
#include "inc/cell_pieces.clh"
#include "inc/decode.clh"
#include "inc/local.clh"

/* GROUP: work-items, a power of two, 32..256, at least the pieces of a value.
 * VALUE_DIM: at most GROUP * PIECE.
 * PIECE: of inc/cell_pieces.clh, 4 or 8. */
#if GROUP < 32 || GROUP > 256 || (GROUP & (GROUP - 1)) != 0 || GROUP * PIECE < VALUE_DIM
#error "GROUP must be a power of two in 32..256, and at least VALUE_DIM / PIECE"
#endif
/* ROWS: rows of a tile, 1, 2, 4 or 8; each costs registers, and GROUP * 16 bytes of local memory or more. */
#if ROWS > 8 || (ROWS & (ROWS - 1)) != 0
#error "ROWS must be 1, 2, 4 or 8"
#endif
/* TEAM: 8 pieces are a line of 128 bytes. ROUND: keys of a round. */
#define TEAM 8
#define TEAMS (GROUP / TEAM)
#define ROUND (TEAMS * LOADS)
/* CHUNK: keys per partial result, as in inc/decode.clh, and whole rounds. Local: CHUNK * ROWS floats. */
#if CHUNK % ROUND != 0
#error "CHUNK must be a multiple of GROUP / 8 * LOADS"
#endif
/* KEEPERS: items that share the scores of a row; each remembers by a bit which of its keys are forbidden. */
#define KEEPERS (GROUP / ROWS < 32 ? GROUP / ROWS : 32)
#if CHUNK > 32 * KEEPERS
#error "CHUNK must be at most 1024 and at most 32 * GROUP / ROWS"
#endif
#define HEAD_PIECES ((HEAD_DIM + PIECE * TEAM - 1) / (PIECE * TEAM) * TEAM)
#define COLUMNS ((VALUE_DIM + PIECE - 1) / PIECE)
#define SLICES (GROUP / COLUMNS)
#define VALUE_FOURS (COLUMNS * PIECE_FOURS)
#define PART (VALUE_FOURS + 1) /* of a partial result, in float4: values, then (maximum, sum, 0, 0) */
/* In float4: what a team adds up lies MEMBER apart, so that its members write to different banks. */
#define MEMBER (ROUND * ROWS / 4 + 1)
#define SCRATCH (TEAM * MEMBER > ROWS * GROUP ? TEAM * MEMBER : ROWS * GROUP)

/* What the items of a group share. */
typedef struct decode_shared {
    float4 scratch[SCRATCH];                        /* products of a round, then slices of values */
    float4 query[ROWS * HEAD_PIECES * PIECE_FOURS]; /* (ROWS, PIECE_FOURS, HEAD_PIECES), zeros behind the end */
    float4 joined[ROWS * VALUE_FOURS];              /* weighted values so far */
    float4 tops[ROWS * KEEPERS / 4], sums[ROWS * KEEPERS / 4];
    float4 p[CHUNK * ROWS / 4]; /* (CHUNK, ROWS) scores, then weights */
    decode_row rows[ROWS];
    decode_sums joined_sums[ROWS];
    int2 places[CELLS_MAPPED ? CHUNK : 1]; /* of the chunk's keys */
    float value_scales[CELL_I8 ? CHUNK : 1];
} decode_shared;

/* The chunk that is being worked on. */
typedef struct decode_chunk {
    int first, count;
} decode_chunk;

INLINE __local float *scores_of(__local decode_shared *s) { return (__local float *)s->p; }

INLINE int2 place_of(const __local decode_shared *s, decode_chunk chunk, int x) {
    return CELLS_MAPPED ? s->places[x] : (int2)(0, chunk.first + x);
}

INLINE void find_places(__local decode_shared *s, decode_chunk chunk, const cell_rows *keys, const cell_rows *values) {
    for (int x = (int)get_local_id(0); x < chunk.count; x += GROUP) {
        const int2 at = cells_at(keys, chunk.first + x);
        if (CELLS_MAPPED) s->places[x] = at;
        if (CELL_I8) s->value_scales[x] = cells_scale(values, at);
    }
}

INLINE void load_queries(__local decode_shared *s, const clattn_attn_args *a, float scale, int b,
                         const __global storage *query) {
    for (int i = (int)get_local_id(0); i < ROWS * HEAD_PIECES * PIECE_FOURS; i += GROUP) {
        const int index = i % HEAD_PIECES, f = i / HEAD_PIECES % PIECE_FOURS, r = i / (HEAD_PIECES * PIECE_FOURS);
        const int column = index * PIECE + 4 * f;
        const __global storage *from = query + (a->query.offset + b * a->query.batch + s->rows[r].head * a->query.head +
                                                s->rows[r].i * a->query.row);
        s->query[i] = load4_part(from + column, HEAD_DIM - column) * scale;
    }
}

/* Pass 1 of the keys from `round` on; scratch: (TEAM, ROUND, ROWS), the members MEMBER apart. */
INLINE void multiply_keys(__local decode_shared *s, decode_chunk chunk, const cell_rows *keys, int round,
                          bool aligned) {
    const int item = (int)get_local_id(0), member = item % TEAM, team = item / TEAM;
    __local float *products = (__local float *)(s->scratch + member * MEMBER);
    const __global cell *rows[LOADS];
    float sums[LOADS][ROWS];
    UNROLL for (int n = 0; n < LOADS; n++) {
        const int x = min(round + n * TEAMS + team, chunk.count - 1); /* keys behind the last are not looked at */
        rows[n] = cells_row(keys, place_of(s, chunk, x));
        UNROLL for (int r = 0; r < ROWS; r++) sums[n][r] = 0.0f;
    }
    NO_UNROLL for (int index = member; index < HEAD_PIECES; index += TEAM) {
        piece pieces[LOADS];
        pieces_load(rows, index, HEAD_DIM, aligned, pieces);
        UNROLL for (int f = 0; f < PIECE_FOURS; f++) {
            float4 x[LOADS];
            UNROLL for (int n = 0; n < LOADS; n++) x[n] = piece_four(pieces[n], f);
            UNROLL for (int r = 0; r < ROWS; r++) {
                const float4 y = s->query[(r * PIECE_FOURS + f) * HEAD_PIECES + index];
                UNROLL for (int n = 0; n < LOADS; n++) sums[n][r] =
                    muladd(x[n].x, y.x, muladd(x[n].y, y.y, muladd(x[n].z, y.z, muladd(x[n].w, y.w, sums[n][r]))));
            }
        }
    }
    UNROLL for (int n = 0; n < LOADS; n++) {
        UNROLL for (int r = 0; r < ROWS; r++) products[(n * TEAMS + team) * ROWS + r] = sums[n][r];
    }
}

INLINE void add_products(__local decode_shared *s, int round) {
    for (int i = (int)get_local_id(0); i < ROUND * ROWS / 4; i += GROUP) {
        float4 sum = s->scratch[i];
        UNROLL for (int member = 1; member < TEAM; member++) sum += s->scratch[member * MEMBER + i];
        s->p[round * ROWS / 4 + i] = sum;
    }
}

INLINE float decode_score(const attn_head *head, const decode_tile *tile, const decode_row *row, int j, float s) {
    if (SOFTCAP && tile->softcap_exponent > 0.0f) s = tanh(s) * tile->softcap_exponent;
    if (ALIBI) s = muladd(row->slope, (float)(j - row->position), s);
    return s + decode_bias(head, tile, row, j);
}

/* Pass 2; -inf where a key is forbidden, and then the bit of that turn is set. */
INLINE uint apply_terms(__local decode_shared *s, decode_chunk chunk, const cell_rows *keys, const attn_head *head,
                        const decode_tile *tile) {
    const int r = (int)get_local_id(0) % ROWS, keeper = (int)get_local_id(0) / ROWS;
    const decode_row row = s->rows[r];
    float top = -INFINITY;
    uint forbidden = 0;
    NO_UNROLL for (int n = 0; n < CHUNK / KEEPERS; n++) {
        const int x = keeper + n * KEEPERS;
        __local float *at = scores_of(s) + x * ROWS + r;
        float score = -INFINITY;
        if (x < chunk.count && r < tile->rows && decode_allows(head, &row, chunk.first + x)) {
            score = CELL_I8 ? *at * cells_scale(keys, place_of(s, chunk, x)) : *at;
            score = decode_score(head, tile, &row, chunk.first + x, score);
        } else {
            forbidden |= 1u << n;
        }
        *at = score;
        top = fmax(top, score);
    }
    ((__local float *)s->tops)[r * KEEPERS + keeper] = top;
    return forbidden;
}

INLINE float top_of(const __local decode_shared *s, int r) {
    float4 top = s->tops[r * KEEPERS / 4];
    UNROLL for (int n = 1; n < KEEPERS / 4; n++) top = fmax(top, s->tops[r * KEEPERS / 4 + n]);
    return fmax(fmax(top.x, top.y), fmax(top.z, top.w));
}

/* Pass 3. */
INLINE void weigh_keys(__local decode_shared *s, uint forbidden) {
    const int r = (int)get_local_id(0) % ROWS, keeper = (int)get_local_id(0) / ROWS;
    const float top = top_of(s, r);
    float sum = 0.0f;
    NO_UNROLL for (int n = 0; n < CHUNK / KEEPERS; n++) {
        __local float *at = scores_of(s) + (keeper + n * KEEPERS) * ROWS + r;
        const bool allowed = !(forbidden >> n & 1u);
        const float weight = allowed ? fast_exp2(*at - top) : -1.0f;
        sum += allowed ? weight : 0.0f;
        *at = weight;
    }
    ((__local float *)s->sums)[r * KEEPERS + keeper] = sum;
}

INLINE void sums_of(const __local decode_shared *s, int r, decode_sums *chunk) {
    float4 sums = s->sums[r * KEEPERS / 4];
    UNROLL for (int n = 1; n < KEEPERS / 4; n++) sums += s->sums[r * KEEPERS / 4 + n];
    chunk->l = (sums.x + sums.y) + (sums.z + sums.w);
    chunk->m = chunk->l == 0.0f ? -INFINITY : top_of(s, r);
}

/* Pass 4: the item's piece of all rows. */
INLINE void add_values(__local decode_shared *s, decode_chunk chunk, const cell_rows *values, bool aligned,
                       float4 sums[ROWS][PIECE_FOURS]) {
    const int column = (int)get_local_id(0) % COLUMNS, slice = (int)get_local_id(0) / COLUMNS;
    UNROLL for (int r = 0; r < ROWS; r++) { UNROLL for (int f = 0; f < PIECE_FOURS; f++) sums[r][f] = (float4)(0.0f); }
    NO_UNROLL for (int x0 = slice; x0 < chunk.count && slice < SLICES; x0 += SLICES * LOADS) {
        const __global cell *rows[LOADS];
        piece pieces[LOADS];
        UNROLL for (int n = 0; n < LOADS; n++) rows[n] =
            cells_row(values, place_of(s, chunk, min(x0 + n * SLICES, chunk.count - 1)));
        pieces_load(rows, column, VALUE_DIM, aligned, pieces);
        UNROLL for (int n = 0; n < LOADS; n++) {
            const int x = x0 + n * SLICES, at = min(x, chunk.count - 1);
            float4 y[PIECE_FOURS];
            UNROLL for (int f = 0; f < PIECE_FOURS; f++) y[f] = piece_four(pieces[n], f);
            UNROLL for (int r = 0; r < ROWS; r++) {
                float weight = scores_of(s)[at * ROWS + r];
                if (weight < 0.0f || x >= chunk.count) continue;
                if (CELL_I8) weight *= s->value_scales[at];
                UNROLL for (int f = 0; f < PIECE_FOURS; f++) sums[r][f] = muladd((float4)(weight), y[f], sums[r][f]);
            }
        }
    }
}

/* Pass 5, the float4 number f of each piece; scratch: (ROWS, SLICES, COLUMNS), the rows GROUP apart. */
INLINE void store_slices(__local decode_shared *s, float4 sums[ROWS][PIECE_FOURS], int f) {
    UNROLL for (int r = 0; r < ROWS; r++) s->scratch[r * GROUP + (int)get_local_id(0)] =
        f ? sums[r][PIECE_FOURS - 1] : sums[r][0];
}

/* part: where the chunk's partial result of the tile's first row goes, `stride` before that of the next; NULL: it
 * joins. */
INLINE void merge_slices(__local decode_shared *s, const decode_tile *tile, int f, __global float4 *part,
                         clattn_i64 stride) {
    for (int i = (int)get_local_id(0); i < tile->rows * COLUMNS; i += GROUP) {
        const int r = i / COLUMNS, column = i % COLUMNS, four = column * PIECE_FOURS + f;
        const __local float4 *from = s->scratch + r * GROUP + column;
        __local float4 *joined = s->joined + r * VALUE_FOURS + four;
        decode_sums chunk, before = s->joined_sums[r];
        float2 factors;
        float4 sum = from[0];
        sums_of(s, r, &chunk);
        for (int n = 1; n < SLICES; n++) sum += from[n * COLUMNS];
        if (part) {
            part[r * stride + four] = sum;
            if (four == 0) part[r * stride + VALUE_FOURS] = (float4)(chunk.m, chunk.l, 0.0f, 0.0f);
        } else if (decode_join(&before, chunk, &factors)) {
            *joined = muladd(sum, (float4)(factors.y), *joined * factors.x);
        }
    }
}

INLINE void join_sums(__local decode_shared *s) {
    const int r = (int)get_local_id(0);
    if (r >= ROWS) return;
    float2 factors;
    decode_sums chunk, joined = s->joined_sums[r];
    sums_of(s, r, &chunk);
    decode_join(&joined, chunk, &factors);
    s->joined_sums[r] = joined;
}

INLINE void write_four(const clattn_attn_args *a, const decode_tile *tile, const decode_row *row, int b, int four,
                       decode_sums sums, float4 values, const __global float *sinks, __global storage *output,
                       __global float *lse) {
    const float2 end = decode_close(sums, decode_sink(a, tile, sinks, row->head));
    store4_part(values * end.x, output + decode_output_at(a, b, row) + 4 * four, VALUE_DIM - 4 * four);
    if (LSE && four == 0) lse[decode_lse_at(a, b, row)] = end.y;
}

/* grid: (GROUP * tiles, units), unit d.first + n being split number unit % splits of (b, key/value head) unit / splits:
 * tiles of the same keys come one after the other, so that those are in a cache.
 * partials: (B * Hkv * rows, chunks, PART), with several splits. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) PIN_SUBGROUP void
attn_decode(ATTN_ALL_PARAMETERS(a), const clattn_decode_args d, __global float4 *partials) {
    __local decode_shared s[1];
    decode_tile tile;
    attn_head head;
    const clattn_i64 unit = d.first + (clattn_i64)LONE_GROUP(1);
    const int item = (int)get_local_id(0), split = (int)(unit % d.splits), line = (int)(unit / d.splits);
    const int b = line / a.kv_heads, kv_head = line % a.kv_heads;
    POISON(s, item, GROUP);
    const cell_rows k = cells_of(&a.cells, &a.key, &a.key_scales, key, key_scales, cell_table, b, kv_head);
    const cell_rows v = cells_of(&a.cells, &a.value, &a.value_scales, value, value_scales, cell_table, b, kv_head);
    const bool keys_aligned = pieces_aligned(&k), values_aligned = pieces_aligned(&v);
    attn_head_set(&head, &a, b, kv_head * d.group, mask, padding, lengths, alibi);
    decode_tile_set(&tile, &a, &d, &head, kv_head, (int)get_group_id(0));
    if (item < ROWS) {
        decode_row row;
        decode_row_set(&row, &a, &d, &head, &tile, min(item, tile.rows - 1), alibi);
        s->rows[item] = row;
        s->joined_sums[item] = (decode_sums){-INFINITY, 0.0f};
    }
    for (int i = item; i < ROWS * VALUE_FOURS; i += GROUP) s->joined[i] = (float4)(0.0f);
    barrier(CLK_LOCAL_MEM_FENCE);
    load_queries(s, &a, tile.scale, b, query);
    barrier(CLK_LOCAL_MEM_FENCE);

    for (int c = tile.keys.x / CHUNK + split; c * CHUNK < tile.keys.y; c += d.splits) {
        const int first = max(c * CHUNK, tile.keys.x);
        const decode_chunk chunk = {first, min((c + 1) * CHUNK, tile.keys.y) - first};
        __global float4 *part = partials + decode_part(&d, decode_line(&a, &d, b, kv_head, tile.row), c, PART);
        float4 sums[ROWS][PIECE_FOURS];
        uint forbidden = 0;
        find_places(s, chunk, &k, &v);
        barrier(CLK_LOCAL_MEM_FENCE);
        NO_UNROLL for (int round = 0; round < chunk.count; round += ROUND) {
            multiply_keys(s, chunk, &k, round, keys_aligned);
            barrier(CLK_LOCAL_MEM_FENCE);
            add_products(s, round);
            barrier(CLK_LOCAL_MEM_FENCE);
        }
        if (item < ROWS * KEEPERS) forbidden = apply_terms(s, chunk, &k, &head, &tile);
        barrier(CLK_LOCAL_MEM_FENCE);
        if (item < ROWS * KEEPERS) weigh_keys(s, forbidden);
        barrier(CLK_LOCAL_MEM_FENCE);
        add_values(s, chunk, &v, values_aligned, sums);
        NO_UNROLL for (int f = 0; f < PIECE_FOURS; f++) {
            store_slices(s, sums, f);
            barrier(CLK_LOCAL_MEM_FENCE);
            merge_slices(s, &tile, f, d.splits > 1 ? part : 0, (clattn_i64)d.chunks * PART);
            barrier(CLK_LOCAL_MEM_FENCE); /* the scratch memory is written again */
        }
        join_sums(s);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = item; i < tile.rows * VALUE_FOURS && d.splits == 1; i += GROUP) {
        const decode_row row = s->rows[i / VALUE_FOURS];
        write_four(&a, &tile, &row, b, i % VALUE_FOURS, s->joined_sums[i / VALUE_FOURS], s->joined[i], sinks, output,
                   lse);
    }
}

/* Partial results that an item has on their way at a time. */
#define AHEAD 4

/* grid: (rows * VALUE_FOURS items in groups of GROUP, B * Hkv) */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) PIN_SUBGROUP void
attn_decode_merge(const clattn_attn_args a, __global storage *output, const __global int *lengths,
                  const __global float *alibi, const __global float *sinks, __global float *lse,
                  const clattn_decode_args d, const __global float4 *partials) {
    const int at = (int)get_global_id(0), line = (int)get_global_id(1), index = at / VALUE_FOURS;
    const int b = line / a.kv_heads, kv_head = line % a.kv_heads, four = at % VALUE_FOURS;
    float4 values = (float4)(0.0f);
    decode_sums joined = {-INFINITY, 0.0f};
    decode_row row;
    decode_tile tile;
    attn_head head;
    if (index >= d.rows) return;
    attn_head_set(&head, &a, b, kv_head * d.group, 0, 0, lengths, alibi);
    decode_tile_set(&tile, &a, &d, &head, kv_head, index / ROWS);
    row.head = tile.first_head + index % d.group;
    row.i = index / d.group;
    const int end = (tile.keys.y + CHUNK - 1) / CHUNK;
    const __global float4 *parts = partials + decode_part(&d, decode_line(&a, &d, b, kv_head, index), 0, PART);
    for (int c = tile.keys.x / CHUNK; c < end; c += AHEAD) {
        float4 from[AHEAD];
        float2 chunk[AHEAD];
        UNROLL for (int n = 0; n < AHEAD; n++) {
            const __global float4 *part = parts + (clattn_i64)min(c + n, end - 1) * PART;
            from[n] = part[four];
            chunk[n] = part[VALUE_FOURS].xy;
        }
        UNROLL for (int n = 0; n < AHEAD; n++) {
            float2 factors;
            const decode_sums sums = {chunk[n].x, c + n < end ? chunk[n].y : 0.0f};
            if (decode_join(&joined, sums, &factors)) values = muladd(from[n], (float4)(factors.y), values * factors.x);
        }
    }
    write_four(&a, &tile, &row, b, four, joined, values, sinks, output, lse);
}
