/* Launch structs of rope.cl, kv_append.cl, kv_gather.cl and attn_decode.cl. The same rules as in args.h, which goes
 * before this file. */
#ifndef CLATTN_CACHE_ARGS_H
#define CLATTN_CACHE_ARGS_H

/* rope.cl: row r of batch entry b is at position first + positions[b, r] (without positions 0) + r with count_rows. */
typedef struct clattn_rope_args {
    clattn_place x, y;
    clattn_place positions;    /* batch and row strides */
    clattn_place cosine, sine; /* table: row stride by position; rows: batch and row strides */
    clattn_i64 first;
    int batch, heads, rows, head_dim;
    int rotary_dim;
    int table_rows; /* positions are clamped to it */
    int has_positions, count_rows;
} clattn_rope_args;

enum clattn_rope_slot { ROPE_ARGS = 0, ROPE_X, ROPE_POSITIONS, ROPE_COSINE, ROPE_SINE, ROPE_Y };

/* kv_append.cl and kv_gather.cl: head h, feature d of a token in row r of entry e of the cache is at
 * offset + e * batch + h * head + r * row + d. */
typedef struct clattn_cache_args {
    clattn_place tokens;  /* (B, H, rows, width): the new ones, or the gathered ones */
    clattn_place cache;   /* (B or pages, H, capacity or page_size, width) */
    clattn_place scales;  /* likewise, (.., 1): cells of int8 */
    clattn_place lengths; /* batch stride: tokens in the cache, without the new ones */
    clattn_cells cells;
    int batch, heads, rows, width;
    int fill;  /* gather: rows behind the last token become zeros; else they are left alone */
    int items; /* work-items per row: width, or 1 where a row needs one scale */
} clattn_cache_args;

enum clattn_cache_slot { CACHE_ARGS = 0, CACHE_TOKENS, CACHE_LENGTHS, CACHE_TABLE, CACHE_CELLS, CACHE_SCALES };

/* attn_decode.cl, beside clattn_attn_args. One item serves one key/value head and one tile of its rows; row r is query
 * i = r / group of query head kv_head * group + r % group. */
typedef struct clattn_decode_args {
    clattn_i64 first; /* attn_decode_gpu.cl: pairs of line and split that earlier launches have done */
    int group;  /* query heads per key/value head */
    int rows;   /* group * query_len */
    int splits; /* items that share the chunks of keys: chunk c goes to item c % splits */
    int chunks; /* that the partial results have room for; splits > 1 only */
} clattn_decode_args;

/* Behind the slots that all attention kernels have. */
enum clattn_decode_slot { DECODE_ARGS = ATTN_SLOTS, DECODE_PARTIALS };

#endif
