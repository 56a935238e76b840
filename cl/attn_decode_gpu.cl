/* Attention of few queries on devices with local memory: one work-group of GROUP items owns a tile of rows and its
 * share of the chunks of keys. For one chunk:
 *
 *   passes 1, 2  each item takes keys of its own, and all rows of the tile: products, terms, masks
 *   pass 3       maximum by a tree in local memory, p = 2^(score - maximum)
 *   pass 4       items take float4 columns, and several slices of items share the keys; each adds up p * value and p
 *   pass 5       slices are added, in order; what comes out joins, or goes to the partial results
 *
 * Forbidden keys have weight -1, which no power has, and are passed over, so that what lies there has no effect. */
#include "inc/decode.clh"
#include "inc/local.clh"

/* GROUP: work-items, a power of two, 32..256, at least the float4 columns of a value. VALUE_DIM: at most GROUP * 4. */
#if GROUP < 32 || GROUP > 256 || (GROUP & (GROUP - 1)) != 0 || GROUP * 4 < VALUE_DIM
#error "GROUP must be a power of two in 32..256, at least VALUE_DIM / 4"
#endif
#define HEAD_FOURS ((HEAD_DIM + 3) / 4)
#define COLUMNS ((VALUE_DIM + 3) / 4) /* of float4 */
#define SLICES (GROUP / COLUMNS)
#define PART (COLUMNS * 4 + 2)
#define KEYS_PER_ITEM ((CHUNK + GROUP - 1) / GROUP)

static inline float decode_score(const attn_head *head, const decode_tile *tile, const decode_row *row, int j,
                                 float s) {
    if (SOFTCAP && tile->softcap_exponent > 0.0f) s = tanh(s) * tile->softcap_exponent;
    if (ALIBI) s = muladd(row->slope, (float)(j - row->position), s);
    return s + decode_bias(head, tile, row, j);
}

/* Passes 1 and 2 of one key for all rows; -inf where it is forbidden, and then the bit of the row is set. */
static inline uint score_key(const attn_head *head, const decode_tile *tile, const __local decode_row *rows,
                             const cell_rows *keys, int j, const __local float4 *q, __local float *p) {
    float s[ROWS];
    uint forbidden = 0;
    const int2 at = cells_at(keys, j);
    const __global cell *k = cells_row(keys, at);
    UNROLL for (int r = 0; r < ROWS; r++) s[r] = 0.0f;
    for (int d = 0; d < HEAD_FOURS; d++) {
        const float4 x = cell4_part(k + 4 * d, HEAD_DIM - 4 * d);
        UNROLL for (int r = 0; r < ROWS; r++) {
            const float4 y = q[r * HEAD_FOURS + d];
            s[r] = muladd(x.x, y.x, muladd(x.y, y.y, muladd(x.z, y.z, muladd(x.w, y.w, s[r]))));
        }
    }
    UNROLL for (int r = 0; r < ROWS; r++) {
        const decode_row row = rows[r];
        if (CELL_I8) s[r] *= cells_scale(keys, at);
        const bool allowed = r < tile->rows && decode_allows(head, &row, j);
        p[r * CHUNK] = allowed ? decode_score(head, tile, &row, j, s[r]) : -INFINITY;
        if (!allowed) forbidden |= 1u << r;
    }
    return forbidden;
}

static inline void join_four(decode_sums *sums, decode_sums chunk, float4 from, float4 *to) {
    float2 factors;
    if (decode_join(sums, chunk, &factors)) *to = muladd(from, (float4)(factors.y), *to * factors.x);
}

static inline void write_four(const clattn_attn_args *a, const decode_tile *tile, const decode_row *row, int b,
                              int column, decode_sums sums, float4 values, const __global float *sinks,
                              __global storage *output, __global float *lse) {
    const float2 end = decode_close(sums, decode_sink(a, tile, sinks, row->head));
    store4_part(values * end.x, output + decode_output_at(a, b, row) + 4 * column, VALUE_DIM - 4 * column);
    if (LSE && column == 0) lse[decode_lse_at(a, b, row)] = end.y;
}

/* partials: (B * Hkv * rows, chunks, PART), with several splits. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void
attn_decode(ATTN_ALL_PARAMETERS(a), const clattn_decode_args d, __global float *partials) {
    __local float4 q[ROWS * HEAD_FOURS], slices[ROWS * GROUP];
    __local float p[ROWS * CHUNK], slice_sums[ROWS * GROUP];
    __local float *tree = (__local float *)slices; /* (ROWS, CHUNK), while the maximum is sought */
    float4 joined_values[ROWS];
    decode_sums joined[ROWS];
    __local decode_row rows[ROWS]; /* the same for all items, and too much for their registers */
    decode_tile tile;
    attn_head head;
    const int item = (int)get_local_id(0), split = (int)get_group_id(0), line = (int)get_group_id(2);
    const int b = line / a.kv_heads, kv_head = line % a.kv_heads;
    const int column = item % COLUMNS, slice = item / COLUMNS;
    POISON(q, item, GROUP);
    POISON(slices, item, GROUP);
    POISON(p, item, GROUP);
    POISON(slice_sums, item, GROUP);
    POISON(rows, item, GROUP);
    const cell_rows k = cells_of(&a.cells, &a.key, &a.key_scales, key, key_scales, cell_table, b, kv_head);
    const cell_rows v = cells_of(&a.cells, &a.value, &a.value_scales, value, value_scales, cell_table, b, kv_head);
    attn_head_set(&head, &a, b, kv_head * d.group, mask, padding, lengths, alibi);
    decode_tile_set(&tile, &a, &d, &head, kv_head, (int)get_group_id(1));
    UNROLL for (int r = 0; r < ROWS; r++) {
        joined[r] = (decode_sums){-INFINITY, 0.0f};
        joined_values[r] = (float4)(0.0f);
    }
    if (item < ROWS) {
        decode_row row;
        decode_row_set(&row, &a, &d, &head, &tile, min(item, tile.rows - 1), alibi);
        rows[item] = row;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = item; i < ROWS * HEAD_FOURS; i += GROUP) {
        const int r = i / HEAD_FOURS, at = i % HEAD_FOURS * 4;
        const __global storage *from =
            query + (a.query.offset + b * a.query.batch + rows[r].head * a.query.head + rows[r].i * a.query.row);
        q[i] = load4_part(from + at, HEAD_DIM - at) * tile.scale;
    }
    barrier(CLK_LOCAL_MEM_FENCE);

    for (int c = tile.keys.x / CHUNK + split; c * CHUNK < tile.keys.y; c += d.splits) {
        const int first = max(c * CHUNK, tile.keys.x), count = min((c + 1) * CHUNK, tile.keys.y) - first;
        uint forbidden[KEYS_PER_ITEM];
        for (int n = 0; n < KEYS_PER_ITEM; n++) {
            const int x = item + n * GROUP;
            forbidden[n] = ~0u;
            if (x >= CHUNK) continue;
            if (x < count) forbidden[n] = score_key(&head, &tile, rows, &k, first + x, q, p + x);
            UNROLL for (int r = 0; r < ROWS; r++) tree[r * CHUNK + x] =
                forbidden[n] >> r & 1u ? -INFINITY : p[r * CHUNK + x];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int width = CHUNK / 2; width > 0; width /= 2) {
            for (int i = item; i < width * ROWS; i += GROUP) {
                __local float *x = tree + i / width * CHUNK + i % width;
                x[0] = x[width] > x[0] ? x[width] : x[0];
            }
            barrier(CLK_LOCAL_MEM_FENCE);
        }
        float top[ROWS];
        UNROLL for (int r = 0; r < ROWS; r++) top[r] = tree[r * CHUNK];
        for (int n = 0; n < KEYS_PER_ITEM; n++) {
            const int x = item + n * GROUP;
            if (x >= count) continue;
            UNROLL for (int r = 0; r < ROWS; r++) p[r * CHUNK + x] =
                forbidden[n] >> r & 1u ? -1.0f : exp2(p[r * CHUNK + x] - top[r]);
        }
        barrier(CLK_LOCAL_MEM_FENCE);

        float4 values[ROWS];
        float sums[ROWS];
        UNROLL for (int r = 0; r < ROWS; r++) {
            values[r] = (float4)(0.0f);
            sums[r] = 0.0f;
        }
        for (int x = slice; x < count && slice < SLICES; x += SLICES) {
            const int2 at = cells_at(&v, first + x);
            float4 y = cell4_part(cells_row(&v, at) + 4 * column, VALUE_DIM - 4 * column);
            if (CELL_I8) y *= cells_scale(&v, at);
            UNROLL for (int r = 0; r < ROWS; r++) {
                const float weight = p[r * CHUNK + x];
                if (weight < 0.0f) continue;
                values[r] = muladd((float4)(weight), y, values[r]);
                sums[r] += weight;
            }
        }
        UNROLL for (int r = 0; r < ROWS; r++) {
            slices[r * GROUP + item] = values[r];
            slice_sums[r * GROUP + item] = sums[r];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        UNROLL for (int r = 0; r < ROWS; r++) {
            if (slice > 0 || r >= tile.rows) continue;
            for (int n = 1; n < SLICES; n++) {
                values[r] += slices[r * GROUP + n * COLUMNS + column];
                sums[r] += slice_sums[r * GROUP + n * COLUMNS + column];
            }
            const decode_sums chunk = {sums[r] == 0.0f ? -INFINITY : top[r], sums[r]};
            if (d.splits > 1) {
                __global float *part =
                    partials + decode_part(&d, decode_line(&a, &d, b, kv_head, tile.row + r), c, PART);
                vstore4(values[r], column, part);
                if (column == 0) vstore2((float2)(chunk.m, chunk.l), 0, part + COLUMNS * 4);
            } else {
                join_four(&joined[r], chunk, values[r], &joined_values[r]);
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE); /* p and slices are written again */
    }
    UNROLL for (int r = 0; r < ROWS; r++) {
        if (r >= tile.rows || d.splits > 1 || slice > 0) continue;
        const decode_row row = rows[r];
        write_four(&a, &tile, &row, b, column, joined[r], joined_values[r], sinks, output, lse);
    }
}

/* grid: (GROUP, rows, B * Hkv), each item one float4 column */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void
attn_decode_merge(const clattn_attn_args a, __global storage *output, const __global int *lengths,
                  const __global float *alibi, const __global float *sinks, __global float *lse,
                  const clattn_decode_args d, const __global float *partials) {
    const int column = (int)get_local_id(0), index = (int)get_group_id(1), line = (int)get_group_id(2);
    const int b = line / a.kv_heads, kv_head = line % a.kv_heads;
    float4 values = (float4)(0.0f);
    decode_sums joined = {-INFINITY, 0.0f};
    decode_row row;
    decode_tile tile;
    attn_head head;
    if (column >= COLUMNS) return;
    attn_head_set(&head, &a, b, kv_head * d.group, 0, 0, lengths, alibi);
    decode_tile_set(&tile, &a, &d, &head, kv_head, index / ROWS);
    row.head = tile.first_head + index % d.group;
    row.i = index / d.group;
    for (int c = tile.keys.x / CHUNK; c * CHUNK < tile.keys.y; c++) {
        const __global float *part = partials + decode_part(&d, decode_line(&a, &d, b, kv_head, index), c, PART);
        const decode_sums chunk = {part[COLUMNS * 4], part[COLUMNS * 4 + 1]};
        join_four(&joined, chunk, vload4(column, part), &values);
    }
    write_four(&a, &tile, &row, b, column, joined, values, sinks, output, lse);
}
