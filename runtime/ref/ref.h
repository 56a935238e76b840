/* The specification in scalar C: plain loops, double accumulation, nothing to configure. */
#ifndef CLATTN_REF_H
#define CLATTN_REF_H

#include "base/base.h"
#include "clattn/kv_cache.h"
#include "clattn/layers.h"
#include "clattn/softmax.h"

/* Unit roundoff of float32, and an element type for intermediate results that stay double (runtime only). */
#define CLATTN__REF_ROUNDOFF 0x1p-24
#define CLATTN__F64 ((clattn_dtype)100)

/* A host array of (batch, head, row, column) with strides in elements; data NULL means absent. Columns may be broadcast
 * (stride 0). Elements are read as double whatever their type is. */
typedef struct clattn__ref_array {
    void *data;
    clattn_dtype dtype;
    int64_t stride[4];
} clattn__ref_array;

typedef struct clattn__ref_attention {
    int64_t batch, query_heads, kv_heads, query_len, kv_len, head_dim, value_dim;
    clattn_score score;
    double scale, temperature, softcap; /* softcap 0: off */
    bool causal;
    int64_t offset;           /* origin of causal, window and ALiBi: p = i + query_first + offset */
    bool offset_from_lengths; /* offset += length[b] */
    int64_t query_first;
    int64_t window_left, window_right; /* -1: unbounded */
    int64_t mask_len;                  /* keys the mask speaks of; later keys are forbidden */
    int64_t always_keys;               /* the last keys of kv_len that no mask hides */
    double dropout_factor;             /* 1 / (1 - p), of kept weights; 0: no dropout */
    uint32_t dropout_threshold;        /* as in cl/shared/philox.h */
    uint64_t dropout_seed;
    int64_t batch_first, head_first; /* of the whole problem: dropout counts from there, and rows from query_first */
    clattn__ref_array query, key, value;
    clattn__ref_array mask;                     /* CLATTN_BOOL: true = attend; float: added */
    clattn__ref_array padding;                  /* strides batch and column */
    clattn__ref_array lengths, alibi, sinks;    /* stride[0] */
    clattn__ref_array prefix;                   /* stride[0]: keys before it are not hidden by causal */
    clattn__ref_array score_weight, score_bias; /* stride[0] */
    clattn__ref_array query_documents;          /* strides batch and row */
    clattn__ref_array key_documents;            /* strides batch and column */
    /* Packed: rows starts[b]..starts[b+1]-1 of query, key, value and outputs are batch entry b; query_len and kv_len
     * are the greatest lengths, query_total and key_total the rows there are, align_end sets offset to the difference
     * of the lengths. Their batch strides are 0. */
    clattn__ref_array query_starts, key_starts; /* stride[0] */
    int64_t query_total, key_total;
    bool align_end;
    clattn__ref_array output, lse; /* lse strides: batch, head, row */
    clattn__ref_array weights;     /* per head, or averaged when average_weights */
    bool average_weights;
    bool accumulate_weights; /* averaged weights are added to what is there */
    double weights_factor;   /* averaged: 1 / all heads */
    clattn__ref_array scores;
    clattn_scores_output scores_mode;
    clattn__ref_array tolerance;                                          /* float, as output; or absent */
    clattn__ref_array lse_tolerance, weights_tolerance, scores_tolerance; /* likewise, as lse, weights and scores */
    /* What goes into the tolerances when query, key and value are themselves results of a device: how far each element
     * may be off there. Absent: they are exact. */
    clattn__ref_array query_error, key_error, value_error;
    clattn_dtype weight_dtype; /* the device rounds weights to this type before they meet the values */
} clattn__ref_attention;

clattn_status clattn__ref_attention_run(const clattn__ref_attention *problem); /* fails only for lack of memory */

/* y = x W^T + bias: x (m, k) and y (m, n) with row strides, W (n, k) dense, bias (n) or NULL. */
void clattn__ref_linear(const float *x, int64_t x_row, const float *w, const float *bias, double *y, int64_t y_row,
                        int64_t m, int64_t n, int64_t k);
/* The sum over c < k of x[at + c] w[c], x of any type. */
double clattn__ref_product(const void *x, clattn_dtype dtype, int64_t at, const float *w, int64_t k);
/* How far a float32 device may be from that y: written in the layout of y. */
void clattn__ref_linear_tolerance(const float *x, int64_t x_row, const float *w, const float *bias, double *tolerance,
                                  int64_t y_row, int64_t m, int64_t n, int64_t k);

/* The same for a chain of products: x (m, k) and y (m, n) dense double, W (n, k) with a row stride. x_error: how far
 * each element of x may be off on the device, or NULL; y_error: receives the same for y, or NULL. */
typedef struct clattn__ref_projection {
    int64_t m, n, k;
    const double *x, *x_error;
    const float *w, *bias;
    int64_t w_row;
    double *y, *y_error;
} clattn__ref_projection;
void clattn__ref_project(const clattn__ref_projection *projection);

/* softmax.c: every array as (outer 0, outer 1, outer 2, element of the row); absent outputs are not written. */
typedef struct clattn__ref_softmax {
    clattn_softmax_kind kind;
    clattn_dtype stored; /* how the device stores probability and gradient */
    int64_t outer[3], n;
    double temperature;
    clattn__ref_array x;      /* backward: the probability */
    clattn__ref_array mask;   /* true = allowed, or absent */
    clattn__ref_array second; /* backward: the gradient that enters; cross entropy: labels, one per row */
    clattn__ref_array probability, loss, gradient;
    clattn__ref_array probability_tolerance, loss_tolerance, gradient_tolerance;
} clattn__ref_softmax;
void clattn__ref_softmax_run(const clattn__ref_softmax *problem);

/* Dense rows of values, each with how far a float32 device may be from it; error is NULL when nobody asks. */
typedef struct clattn__ref_values {
    double *value, *error;
} clattn__ref_values;

/* tolerance.c: the device keeps these intermediate results in memory as dtype, which adds to their errors; the
 * reference goes on with what they are. */
void clattn__ref_stored(clattn_dtype dtype, clattn__ref_values x, int64_t count);

/* layers.c. Weights (features), or NULL for ones and zeros. */
typedef struct clattn__ref_norm {
    int64_t rows, features;
    const float *weight, *bias;
    const float *mean, *variance; /* batch norm: given ones, or NULL for the batch's own */
    double eps;
} clattn__ref_norm;
void clattn__ref_layer_norm(const clattn__ref_norm *norm, clattn__ref_values x, clattn__ref_values y); /* y may be x */
void clattn__ref_batch_norm(const clattn__ref_norm *norm, clattn__ref_values x, clattn__ref_values y); /* y may be x */
/* (2, features) of x (rows, features): mean, then 1 / sqrt(variance + eps). */
void clattn__ref_batch_statistics(const clattn__ref_norm *norm, clattn__ref_values x, clattn__ref_values statistics);
void clattn__ref_activate(clattn_activation activation, clattn__ref_values x, int64_t count);
void clattn__ref_add(clattn__ref_values x, clattn__ref_values y, int64_t count); /* x += y */
/* Adds the encoding of position p to one row. */
void clattn__ref_add_sinusoidal(clattn__ref_values row, int64_t features, double base, int64_t p);
void clattn__ref_add_learned(clattn__ref_values row, int64_t features, const float *table, int64_t p);

/* Multi-head attention inside a block: query_in (B, L, E), key_in (B, S, E), which serves as value too. */
typedef struct clattn__ref_heads {
    int64_t batch, query_len, kv_len, features, heads;
    double scale;
    clattn_dtype stored;              /* how the device keeps projections and context */
    clattn_dtype weight_dtype;        /* as in clattn__ref_attention */
    bool causal;                      /* key j <= i */
    const float *weight[4], *bias[4]; /* query, key, value, output: (E, E) rows weight_row apart, (E) or NULL */
    int64_t weight_row[4];
    clattn__ref_array mask, padding; /* as in clattn__ref_attention */
    int64_t mask_len;
    clattn__ref_values query_in, key_in, output; /* output (B, L, E) */
} clattn__ref_heads;
clattn_status clattn__ref_heads_run(const clattn__ref_heads *problem); /* fails only for lack of memory */

/* tolerance.c: bound for the rounding of one float32 sum of n terms, from the sum of their magnitudes and the sum
 * itself. docs/numerics.md derives it. */
double clattn__ref_rounding(int64_t n, double sum_of_magnitudes, double sum);

/* tolerance.c: rounding when a result is stored, here and on the device. */
double clattn__ref_storage_rounding(clattn_dtype dtype, double value);

/* rope.c: row r of batch entry b is at first + positions[b, r] (absent: 0) + r with count_rows. */
typedef struct clattn__ref_rope {
    int64_t batch, heads, rows, head_dim, rotary_dim, first, table_rows;
    clattn_rope_source source;
    double base;
    bool interleaved, inverse, count_rows;
    clattn_dtype stored;            /* how the device stores y */
    clattn__ref_array x, y;         /* (B, H, L, D) */
    clattn__ref_array positions;    /* strides batch and row */
    clattn__ref_array cosine, sine; /* table: strides row (by position) and column; rows: batch, row and column */
    clattn__ref_array tolerance;    /* as y, or absent */
} clattn__ref_rope;
void clattn__ref_rope_run(const clattn__ref_rope *problem);

/* kv_cache.c: tokens (B, H, rows, width) to the end of a cache, or its first `rows` tokens out of it; rows behind the
 * last token are left alone. */
typedef struct clattn__ref_cache {
    int64_t batch, heads, rows, width, capacity;
    int64_t page_size, pages; /* 0: not paged */
    clattn__ref_array tokens;
    clattn__ref_array cells;   /* (B or pages, H, capacity or page_size, width) */
    clattn__ref_array scales;  /* likewise, with CLATTN_I8 cells */
    clattn__ref_array lengths; /* stride batch */
    clattn__ref_array table;   /* strides batch and row */
} clattn__ref_cache;
/* tolerance.c: how far the keys of a cache may be off when a device turned and stored them itself: keys and error as
 * (batch, head, row, column); rotary_dim and interleaved as in clattn__ref_rope, cells: the cache's type. */
typedef struct clattn__ref_turned {
    int64_t batch, heads, rows, width, rotary_dim;
    bool interleaved, computed; /* computed: sine and cosine by the device, not from a table */
    clattn_dtype cells;
    clattn__ref_array keys, error;
} clattn__ref_turned;
void clattn__ref_turned_keys(const clattn__ref_turned *turned);

void clattn__ref_cache_append(const clattn__ref_cache *cache);
void clattn__ref_cache_gather(const clattn__ref_cache *cache);

/* Reads element i of an array of any type as double. */
double clattn__ref_load(const void *data, clattn_dtype dtype, int64_t i);
void clattn__ref_store(void *data, clattn_dtype dtype, int64_t i, double value);
/* Element (b, h, r, c) of an array. */
double clattn__ref_get(const clattn__ref_array *array, int64_t b, int64_t h, int64_t r, int64_t c);
void clattn__ref_set(const clattn__ref_array *array, int64_t b, int64_t h, int64_t r, int64_t c, double value);

#endif
