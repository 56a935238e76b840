/* The specification in scalar C: plain loops, double accumulation, nothing to configure. */
#ifndef CLATTN_REF_H
#define CLATTN_REF_H

#include "base/base.h"
#include "clattn/mha.h"

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
    double scale, temperature, softcap; /* softcap 0: off */
    bool causal;
    int64_t offset;           /* origin of causal, window and ALiBi: p = i + query_first + offset */
    bool offset_from_lengths; /* offset += length[b] */
    int64_t query_first;
    int64_t window_left, window_right; /* -1: unbounded */
    int64_t mask_len;                  /* keys the mask speaks of; later keys are forbidden */
    int64_t always_keys;               /* the last keys of kv_len that no mask hides */
    clattn__ref_array query, key, value;
    clattn__ref_array mask;                  /* CLATTN_BOOL: true = attend; float: added */
    clattn__ref_array padding;               /* strides batch and column */
    clattn__ref_array lengths, alibi, sinks; /* stride[0] */
    clattn__ref_array output, lse;           /* lse strides: batch, head, row */
    clattn__ref_array weights;               /* per head, or averaged when average_weights */
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
} clattn__ref_attention;

clattn_status clattn__ref_attention_run(const clattn__ref_attention *problem); /* fails only for lack of memory */

/* y = x W^T + bias: x (m, k) and y (m, n) with row strides, W (n, k) dense, bias (n) or NULL. */
void clattn__ref_linear(const float *x, int64_t x_row, const float *w, const float *bias, double *y, int64_t y_row,
                        int64_t m, int64_t n, int64_t k);
/* How far a float32 device may be from that y: written in the layout of y. */
void clattn__ref_linear_tolerance(const float *x, int64_t x_row, const float *w, const float *bias, double *tolerance,
                                  int64_t y_row, int64_t m, int64_t n, int64_t k);

/* The same for a chain of products: x (m, k) and y (m, n) dense double, W (n, k) with a row stride. x_error: how far each
 * element of x may be off on the device, or NULL; y_error: receives the same for y, or NULL. */
typedef struct clattn__ref_projection {
    int64_t m, n, k;
    const double *x, *x_error;
    const float *w, *bias;
    int64_t w_row;
    double *y, *y_error;
} clattn__ref_projection;
void clattn__ref_project(const clattn__ref_projection *projection);

/* tolerance.c: bound for the rounding of one float32 sum of n terms, from the sum of their magnitudes and the sum itself.
 * docs/numerics.md derives it. */
double clattn__ref_rounding(int64_t n, double sum_of_magnitudes, double sum);

/* Reads element i of an array of any type as double. */
double clattn__ref_load(const void *data, clattn_dtype dtype, int64_t i);
void clattn__ref_store(void *data, clattn_dtype dtype, int64_t i, double value);
/* Element (b, h, r, c) of an array. */
double clattn__ref_get(const clattn__ref_array *array, int64_t b, int64_t h, int64_t r, int64_t c);
void clattn__ref_set(const clattn__ref_array *array, int64_t b, int64_t h, int64_t r, int64_t c, double value);

#endif
