/* Key/value caches and rotary positions: what decoding, one token after the other, needs.
 *
 * Letters as in clattn/attention.h; L rows of one call, C capacity, R rotary_dim, P table_rows, N pages, M pages that
 * one batch entry may have. */
#ifndef CLATTN_KV_CACHE_H
#define CLATTN_KV_CACHE_H

#include "clattn/attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- rotary position embedding --------------------------------------------------------------------------------- */

/* Each of R/2 pairs of features turns by its own angle: (a, b) becomes (a cos t - b sin t, a sin t + b cos t). Features
 * from R on stay as they are. Source: Su et al. 2021 (arXiv:2104.09864); ONNX RotaryEmbedding-23. */
typedef enum clattn_rope_style {
    CLATTN_ROPE_HALF_SPLIT = 0, /* pair i is features i and i + R/2 (rotate_half) */
    CLATTN_ROPE_INTERLEAVED = 1 /* pair i is features 2i and 2i + 1 */
} clattn_rope_style;

typedef enum clattn_rope_source {
    CLATTN_ROPE_COMPUTED = 0, /* t = position * base^(-2i/R), exact to float precision at any position */
    CLATTN_ROPE_TABLE = 1,    /* cosine and sine are (P, R/2), rows by position */
    CLATTN_ROPE_ROWS = 2      /* cosine and sine are (B, L, R/2), rows by token; there are no positions */
} clattn_rope_source;

typedef enum clattn_rope_positions {
    CLATTN_ROPE_NO_POSITIONS = 0,      /* row r of every batch entry is at first + r */
    CLATTN_ROPE_POSITIONS_BY_ROW = 1,  /* the run gets (B, L) int32; row r is at first + positions[b, r] */
    CLATTN_ROPE_POSITIONS_BY_ENTRY = 2 /* the run gets (B) int32; row r is at first + positions[b] + r */
} clattn_rope_positions;

typedef struct clattn_rope_desc {
    size_t struct_size; /* set by clattn_rope_desc_init */
    int64_t batch;      /* B >= 0 */
    int64_t heads;      /* H >= 1 */
    int64_t rows;       /* L >= 0 */
    int64_t head_dim;   /* D 2..512 */
    int64_t rotary_dim; /* R even, 2..D; 0 means D */
    clattn_dtype dtype; /* of input and output: CLATTN_F32, F16 or BF16 */
    clattn_rope_style style;
    clattn_rope_source source;
    double base;        /* >= 1, finite; default 10000; read with CLATTN_ROPE_COMPUTED */
    int64_t table_rows; /* P >= 1 with CLATTN_ROPE_TABLE */
    clattn_rope_positions positions;
    int64_t first; /* added to every position; |first| <= 2^28; default 0 */
    int inverse;   /* 1: turns back, which is also the gradient */
} clattn_rope_desc;
CLATTN_API void clattn_rope_desc_init_sized(clattn_rope_desc *desc, size_t caller_size);
#define clattn_rope_desc_init(d) clattn_rope_desc_init_sized((d), sizeof *(d))

/* Absent tensors stay zeroed. Any strides with a contiguous last axis: (B, L, H*D) is a strided view of (B, H, L,
 * D). */
typedef struct clattn_rope_io {
    clattn_tensor input;     /* (B, H, L, D) */
    clattn_tensor positions; /* int32; with a table, host positions outside 0..P-1 are an error, those in a cl_mem are
                                   clamped */
    clattn_tensor cosine, sine; /* float32, unless the angles are computed */
    clattn_tensor output;       /* (B, H, L, D), not overlapping input */
} clattn_rope_io;

/* Thread rules, ownership and errors as for clattn_attention. */
typedef struct clattn_rope clattn_rope;
CLATTN_API clattn_status clattn_rope_create(clattn_rope **out, clattn_context *context, const clattn_rope_desc *desc);
CLATTN_API clattn_status clattn_rope_run(clattn_rope *rope, const clattn_rope_io *io);
CLATTN_API void clattn_rope_destroy(clattn_rope **rope);
CLATTN_API const char *clattn_rope_explain(const clattn_rope *rope);
CLATTN_API clattn_status clattn_rope_info(const clattn_rope *rope, clattn_plan_info *info);

/* The same in scalar double C on host tensors; any thread. tolerance: NULL, or dense floats (B, H, L, D): how far a
 * correct float32 device may be from each element. */
CLATTN_API clattn_status clattn_reference_rope(const clattn_rope_desc *desc, const clattn_rope_io *io,
                                               float *tolerance);

/* ---- key/value cache ------------------------------------------------------------------------------------------- */

/* Each step appends the keys and values of L new tokens and then asks the queries of the same tokens:
 *
 *     clattn_kv_cache_append(cache, &new);       prefill: L is the prompt's length; then 1 at a time
 *     clattn_kv_cache_attend(cache, &ask);       row i of L stands at position length[b] - L + i
 *
 * Prompts of different lengths: append them padded to the longest, attend, then clattn_kv_cache_truncate each entry to
 * its own length; the causal mask keeps the padding from the rows that matter. */
typedef enum clattn_kv_layout {
    CLATTN_KV_DENSE = 0, /* (B, Hkv, C, D) */
    CLATTN_KV_RING = 1,  /* the same, but token t lies in row t % C: new tokens overwrite those that left the window */
    CLATTN_KV_PAGED = 2 /* N pages of page_size tokens, taken as they are needed (Kwon et al. 2023, arXiv:2309.06180) */
} clattn_kv_layout;

typedef struct clattn_kv_cache_desc {
    size_t struct_size; /* set by clattn_kv_cache_desc_init */
    /* Extents and options of the attention on the cache; borrowed during create.
     *   kv_len      C: tokens that a batch entry may have; RING: tokens that are kept, >= window_left + query_len
     *   query_len   the greatest L of a call
     *   causal      CLATTN_CAUSAL_BOTTOM_RIGHT, or NONE when neither window nor alibi is on
     * Options that work: scale, temperature, softcap, window, alibi, sinks, logsumexp, kernel; RING needs causal and
     * window_left. */
    const clattn_attention_desc *attention;
    clattn_kv_layout layout;
    /* has_storage 0: the cache holds elements of attention->dtype; 1: of `storage`, which is attention->dtype; F16 or
     * BF16 for a float32 attention; or I8: signed bytes with one scale per token and head, max|x| / 127, so that each
     * element is off by at most max|x| / 254 and its rounding (1e-4 of that; below 1.5e-36 it may become 0). A token
     * with NaN or infinity reads as NaN. */
    int has_storage;
    clattn_dtype storage;
    int64_t page_size; /* PAGED: tokens per page, >= 1; default 16 */
    int64_t pages;     /* PAGED: N >= 1 */
    int caller_memory; /* 1: the cache holds nothing, each call brings clattn_kv_memory; not with RING */
    /* NULL: off. Else new keys are turned when they are appended, queries when they are asked, each for its position.
     * Read are style, source (not ROWS), base, rotary_dim and table_rows; borrowed during create. */
    const clattn_rope_desc *rope;
    clattn_tensor cosine, sine; /* host float32 (P, R/2), for a rope with CLATTN_ROPE_TABLE; borrowed during create */
} clattn_kv_cache_desc;
CLATTN_API void clattn_kv_cache_desc_init_sized(clattn_kv_cache_desc *desc, size_t caller_size);
#define clattn_kv_cache_desc_init(d) clattn_kv_cache_desc_init_sized((d), sizeof *(d))

/* The caller's own cache. Host memory and cl_mem may be mixed. What host memory holds of lengths and tables is checked;
 * a cl_mem that breaks the rules gives wrong results, and no wild access. */
typedef struct clattn_kv_memory {
    clattn_tensor key, value; /* DENSE: (B, Hkv, C, D), (B, Hkv, C, Dv); PAGED: (N, page_size, Hkv, D or Dv), token t
                                 of entry b in page block_table[b, t / page_size], row t % page_size */
    clattn_tensor key_scales, value_scales; /* storage I8: float32 (B, Hkv, C), or (N, page_size, Hkv) */
    /* (B) int32, in host memory also int64: tokens of each entry; append: before the new ones, which the caller adds;
     * attend: with them. */
    clattn_tensor lengths;
    clattn_tensor block_table; /* PAGED: (B, M) int32, M = ceil(C / page_size); -1: no page */
} clattn_kv_memory;

typedef struct clattn_kv_append_io {
    clattn_tensor key, value; /* (B, Hkv, L, D), (B, Hkv, L, Dv) of attention->dtype, 0 <= L <= attention->query_len */
    clattn_kv_memory memory;  /* with caller_memory, else zeroed */
} clattn_kv_append_io;

typedef struct clattn_kv_attend_io {
    clattn_tensor query;     /* (B, Hq, L, D), 0 <= L <= attention->query_len */
    clattn_tensor alibi;     /* (Hq) float32, when described */
    clattn_tensor sinks;     /* (Hq) float32, when described */
    clattn_tensor output;    /* (B, Hq, L, Dv) */
    clattn_tensor logsumexp; /* (B, Hq, L) float32, when described */
    clattn_kv_memory memory; /* with caller_memory, else zeroed; its keys and values are only read */
} clattn_kv_attend_io;

/* Creation compiles, verifies and allocates; calls only enqueue. One thread at a time per cache.
 * Attention reads rings, pages and other element types where they lie, by kernels with "paged keys", "ring of keys" and
 * "keys of another type" (docs/kernels.md). For calls of more queries than a decoding kernel takes, the fastest kernel
 * of a CPU has none of them: for those the cache keeps O(B * Hkv * C * (D + Dv)) elements into which it gathers. With
 * attention->query_len of at most 8, and 16 rows per key/value head, there are no such calls and no such memory.
 */
typedef struct clattn_kv_cache clattn_kv_cache;

/* On failure *out is NULL and clattn_last_error() says why. */
CLATTN_API clattn_status clattn_kv_cache_create(clattn_kv_cache **out, clattn_context *context,
                                                const clattn_kv_cache_desc *desc);
/* Puts L tokens behind those that are there. Blocks until the key and value tensors may be reused. On a failure the
 * cache keeps its lengths; INVALID_ARGUMENT: an entry would pass its capacity; OUT_OF_MEMORY: all pages are in use. */
CLATTN_API clattn_status clattn_kv_cache_append(clattn_kv_cache *cache, const clattn_kv_append_io *io);
/* Runs and blocks until the outputs are there. Rows before an entry's first token are empty: output 0, logsumexp
 * -inf. A ring that was truncated refuses rows whose windows begin before what it has overwritten. */
CLATTN_API clattn_status clattn_kv_cache_attend(clattn_kv_cache *cache, const clattn_kv_attend_io *io);
/* The rest is for caches that hold their memory.
 * Copies what the cache holds, turned keys and rounded values: key (B, Hkv, S, D), value (B, Hkv, S, Dv), S <= C, of
 * attention->dtype; row r is token r, in a ring that overflowed token length - C + r. Rows behind an entry's end are
 * 0. The first read compiles. */
CLATTN_API clattn_status clattn_kv_cache_read(clattn_kv_cache *cache, const clattn_tensor *key,
                                              const clattn_tensor *value);
/* Tokens of batch entry `entry`, those too that a ring has overwritten; -1 for an entry that there is not. */
CLATTN_API int64_t clattn_kv_cache_length(const clattn_kv_cache *cache, int64_t entry);
/* Drops the newest tokens of an entry, 0 <= length <= its length; 0 empties it. Its pages become free. A ring can only
 * go back as far as the window of the next token is still there. */
CLATTN_API clattn_status clattn_kv_cache_truncate(clattn_kv_cache *cache, int64_t entry, int64_t length);
/* Empties all entries. */
CLATTN_API clattn_status clattn_kv_cache_reset(clattn_kv_cache *cache);
/* Of PAGED: pages that no entry uses; else 0. */
CLATTN_API int64_t clattn_kv_cache_free_pages(const clattn_kv_cache *cache);
CLATTN_API void clattn_kv_cache_destroy(clattn_kv_cache **cache);
/* In words: the kernels of appending and attending, memory, tiles. Owned by the cache. */
CLATTN_API const char *clattn_kv_cache_explain(const clattn_kv_cache *cache);
/* Figures of attending; held_bytes counts the keys and values too, the copied bytes those of the last append. */
CLATTN_API clattn_status clattn_kv_cache_info(const clattn_kv_cache *cache, clattn_plan_info *info);

/* The same in scalar double C on host tensors, for caller_memory; any thread. attend: tolerance NULL, or dense floats
 * (B, Hq, L, Dv), how far a correct float32 device may be from each element of the output. A ring gives what a dense
 * cache with the same window gives. */
CLATTN_API clattn_status clattn_reference_kv_append(const clattn_kv_cache_desc *desc, const clattn_kv_append_io *io);
CLATTN_API clattn_status clattn_reference_kv_attend(const clattn_kv_cache_desc *desc, const clattn_kv_attend_io *io,
                                                    float *tolerance);

#ifdef __cplusplus
}
#endif
#endif
