/* Launch structs and argument slots, compiled by C and by OpenCL C. Every kernel takes its struct by value in slot 0.
 * Wide members first, so that both compilers lay the struct out alike without padding; all strides and offsets count
 * elements. */
#ifndef CLATTN_ARGS_H
#define CLATTN_ARGS_H

#ifdef __OPENCL_VERSION__
typedef long clattn_i64;
#else
#include <stdint.h>
typedef int64_t clattn_i64;
#endif

/* Where a tensor of (batch, head, row, column) lies: element (b, h, r, c) is at offset + b*batch + h*head + r*row + c
 * (the mask alone has a column stride too: 0 when it is broadcast over the keys). */
typedef struct clattn_place {
    clattn_i64 offset, batch, head, row;
} clattn_place;

/* How a key/value cache keeps its tokens: inc/cells.clh finds token t of batch entry b in
 *   dense   row t of cache entry b
 *   ring    row t % capacity of cache entry b
 *   paged   row t % page_size of page table[b, t / page_size] */
typedef struct clattn_cells {
    clattn_place table; /* batch and row strides; attention on a ring: (B) tokens that it has seen */
    int capacity;       /* tokens that a batch entry may have; ring: rows */
    int page_size;      /* 0: not paged */
    int pages;          /* in all; a table entry outside is no page */
    int ring;
} clattn_cells;

/* All attention kernels (attn_*.cl). */
typedef struct clattn_attn_args {
    clattn_place query, key, value, output, mask, weights, scores;
    clattn_place key_scales, value_scales;      /* cells of int8: a float for each row */
    clattn_cells cells;                         /* PAGED, RING */
    clattn_i64 padding_offset, padding_batch;   /* padding mask (B, Sk) bytes */
    clattn_i64 lse_offset, lse_batch, lse_head; /* logsumexp (B, Hq, Sq), rows contiguous */
    clattn_i64 lengths_offset, alibi_offset, sinks_offset;
    clattn_i64 score_weight_offset, score_bias_offset;        /* (D) floats */
    clattn_i64 query_starts_offset, key_starts_offset;        /* packed: (B + 1) ints */
    clattn_i64 prefix_offset;                                 /* (B) ints */
    clattn_i64 query_documents_offset, query_documents_batch; /* (B, Sq) ints */
    clattn_i64 key_documents_offset, key_documents_batch;     /* (B, Sk) ints */
    int mask_column;                                          /* 1, or 0 when one mask column serves all keys */
    int mask_len; /* keys the mask speaks of; later keys are forbidden (ONNX 24), except the last always_keys */
    int batch, query_heads, kv_heads, query_len, kv_len;
    int query_first;   /* row number of local row 0: a chunk of a longer query */
    int causal_offset; /* allowed: j <= i + causal_offset (+ length[b] with OFFSET_FROM_LENGTHS), i from query_first */
    int window_left, window_right; /* INT_MAX: unbounded */
    int always_keys;               /* the last keys of kv_len that no mask hides (appended bias_k, zero_attn) */
    int causal;                    /* 0 or 1 */
    float scale;                   /* of <q, k> */
    float inverse_temperature;     /* 1 / temperature */
    float softcap;                 /* 0: off */
    float weights_factor;          /* 1, or 1 / heads when weights are averaged */
    int weights_accumulate;        /* averaged weights: add to what is there (second head group on) */
    int query_total, key_total;    /* packed: rows of all sequences; query_len and kv_len are the greatest lengths */
    int align_end;                 /* packed: causal_offset becomes kv_len - query_len of the sequence */
    unsigned int dropout_threshold, seed_low, seed_high; /* as in shared/philox.h */
    float dropout_factor;                                /* 1 / (1 - p), of kept weights */
    int batch_first, head_first;                         /* of the whole problem: dropout counts from there */
    int reserved;
} clattn_attn_args;

/* Their tensors in the order of the slots, which follow the struct in slot 0: X(SLOT, name, type). Kernels declare each
 * as `type *name`, the host puts it in slot ATTN_<SLOT>; NULL when absent. */
#define ATTN_TENSORS(X)                                                                                                \
    X(QUERY, query, const __global storage)    /* (B, Hq, Sq, D) */                                                    \
    X(KEY, key, const __global cell)           /* (B, Hkv, Sk, D), or where cells says */                              \
    X(VALUE, value, const __global cell)       /* (B, Hkv, Sk, Dv), likewise */                                        \
    X(OUTPUT, output, __global storage)        /* (B, Hq, Sq, Dv) */                                                   \
    X(MASK, mask, const __global mask_element) /* (B|1, Hq|1, Sq|1, Sk|1): bytes or floats, by MASK_FLOAT */           \
    X(PADDING, padding, const __global uchar)  /* (B, Sk), true = attend */                                            \
    X(LENGTHS, lengths, const __global int)    /* (B) */                                                               \
    X(ALIBI, alibi, const __global float)      /* (Hq) */                                                              \
    X(SINKS, sinks, const __global float)      /* (Hq) */                                                              \
    X(LSE, lse, __global float)                /* (B, Hq, Sq) */                                                       \
    X(WEIGHTS, weights, __global float)        /* (B, Hq, Sq, Sk), averaged (B, Sq, Sk) */                             \
    X(SCORES, scores, __global float)          /* (B, Hq, Sq, Sk) */
/* The rest exist only in kernels that list one of CLATTN__FEATURE_SLOTS (impl.h). */
#define ATTN_FEATURE_TENSORS(X)                                                                                        \
    X(SCORE_WEIGHT, score_weight, const __global float)     /* (D) */                                                  \
    X(SCORE_BIAS, score_bias, const __global float)         /* (D) */                                                  \
    X(QUERY_STARTS, query_starts, const __global int)       /* (B + 1) */                                              \
    X(KEY_STARTS, key_starts, const __global int)           /* (B + 1) */                                              \
    X(PREFIX, prefix, const __global int)                   /* (B) */                                                  \
    X(QUERY_DOCUMENTS, query_documents, const __global int) /* (B, Sq) */                                              \
    X(KEY_DOCUMENTS, key_documents, const __global int)     /* (B, Sk) */                                              \
    X(KEY_SCALES, key_scales, const __global float)         /* where the keys lie, one for D */                        \
    X(VALUE_SCALES, value_scales, const __global float)     /* likewise */                                             \
    X(TABLE, cell_table, const __global int)                /* paged: (B, M), ring: (B) */

#define ATTN_SLOT_OF(SLOT, name, type) ATTN_##SLOT,
enum clattn_attn_slot {
    ATTN_ARGS = 0,
    ATTN_TENSORS(ATTN_SLOT_OF) ATTN_FEATURE_SLOTS,
    ATTN_LAST_COMMON = ATTN_FEATURE_SLOTS - 1,
    ATTN_FEATURE_TENSORS(ATTN_SLOT_OF) ATTN_SLOTS,
    ATTN_FIRST = ATTN_SLOTS, /* clattn_i64, kernels of rows or tiles: those that earlier launches have done */
    ATTN_PART,               /* clattn_key_part, of kernels that walk the keys in parts */
    ATTN_KEPT                /* what an item leaves to the next part */
};

/* The keys that a launch walks: inc/key_parts.clh. */
typedef struct clattn_key_part {
    int first, end;
    int head; /* attn_naive with averaged weights: which one; else 0 */
} clattn_key_part;

/* A kernel's parameters; `args` is what it calls the struct. */
#define ATTN_PARAMETER_OF(SLOT, name, type) , type *name
#define ATTN_PARAMETERS(args) const clattn_attn_args args ATTN_TENSORS(ATTN_PARAMETER_OF)
#define ATTN_ALL_PARAMETERS(args) ATTN_PARAMETERS(args) ATTN_FEATURE_TENSORS(ATTN_PARAMETER_OF)

/* Projections y = x W^T + bias (gemm_*.cl). Row m of x is (b, s) with s < rows; column n of y is (h, d) with d < width.
 * x element (b, s, k) at x.offset + b*x.batch + s*x.row + k.
 * y element (b, s, h, d) at y.offset + b*y.batch + s*y.row + h*y.head + d, plus part*y_part when several stacked
 * outputs (query, key, value) of `part_columns` columns each are written by one product. */
typedef struct clattn_gemm_args {
    clattn_place x, y;
    clattn_i64 y_part;
    int m, n, k;
    int rows;         /* rows per batch: m = batch * rows */
    int width;        /* columns per head; n when the heads stay side by side */
    int part_columns; /* columns per part; n when there is one part */
    int has_bias;
    int accumulate;                      /* add to y instead of overwriting it */
    int columns_per_item, rows_per_item; /* what one work-item computes; filled by the kernel that uses them */
    int weight_parts;                    /* of 16 bits each, whose sum is the weight; likewise */
    int first_block_m, first_block_n;    /* block of y that a launch begins with, where it does not hold them all */
    int activation;                      /* clattn_activation; only read in chains, others know it when compiled */
} clattn_gemm_args;

enum clattn_gemm_slot { GEMM_ARGS = 0, GEMM_X, GEMM_W, GEMM_BIAS, GEMM_Y };

/* rows.cl: copies one row of `heads * width` floats to row `row0` of every batch, or zeros when has_source is 0. */
typedef struct clattn_rows_args {
    clattn_place y;
    clattn_i64 source_offset;
    int batch, heads, rows, width; /* rows: how many rows get the same content */
    int has_source;
    int accumulate; /* add to y instead of overwriting it */
} clattn_rows_args;

enum clattn_rows_slot { ROWS_ARGS = 0, ROWS_SOURCE, ROWS_Y };

/* softmax.cl: rows of n elements; the three other axes of a tensor are `outer`. Extents, then where each tensor lies:
 * an element is at offset + o0*outer[0] + o1*outer[1] + o2*outer[2] + i*along. */
enum clattn_softmax_operand {
    SOFTMAX_X = 0, /* backward: the probability */
    SOFTMAX_MASK,
    SOFTMAX_SECOND, /* backward: the gradient that enters; cross entropy: the labels */
    SOFTMAX_PROBABILITY,
    SOFTMAX_LOSS,
    SOFTMAX_GRAD,
    SOFTMAX_OPERANDS
};

typedef struct clattn_softmax_view {
    clattn_i64 offset, outer[3], along;
} clattn_softmax_view;

typedef struct clattn_softmax_shape {
    clattn_i64 rows; /* outer[0] * outer[1] * outer[2] */
    int outer[3];
    int n;
    int axis; /* of four: which one is the row; used by the host */
    int has_mask;
    int mask_column;       /* the host: 0 when the mask is broadcast along the last axis */
    float exponent_factor; /* log2(e) / t */
    float inverse_temperature;
    int writes_probability, writes_gradient; /* cross entropy */
    int reserved;
} clattn_softmax_shape;

typedef struct clattn_softmax_args {
    clattn_softmax_view view[SOFTMAX_OPERANDS];
    clattn_softmax_shape shape;
    clattn_i64 first; /* row of group 0: launches come in chunks */
} clattn_softmax_args;

#endif
