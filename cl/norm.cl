/* Normalisation of rows (layer norm: inc/norm_row.clh; one work-group owns one row) and of columns (batch norm). */
#include "inc/norm_row.clh"

__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) void
layer_norm(const clattn_norm_args a,         /* grid: (ITEMS, batch * rows)                      */
           const __global storage *x,        /* (batch, rows, features) at a.x                   */
           const __global storage *residual, /* likewise at a.residual, read when a.has_residual */
           const __global float *weight,     /* (features)                                       */
           const __global float *bias,       /* (features)                                       */
           __global storage *sum,            /* like x at a.sum, written when a.has_sum          */
           __global storage *y)              /* like x at a.y; may be x or residual              */
{
    __local float parts[ITEMS];
    const int item = (int)get_local_id(0);
    POISON(parts, item, ITEMS);
    normalise_row(&a, (int)get_group_id(1), item, x, residual, weight, bias, sum, y, parts);
}

/* Mean and 1 / sqrt(variance + eps) of each feature over all rows. One work-item per feature: neighbours read
 * neighbouring words. The sums are compensated (Kahan 1965), as there may be many rows and one item adds them all. */
static inline void add_to(float *sum, float *lost, float term) {
    const float part = term - *lost, next = *sum + part;
    *lost = (next - *sum) - part;
    *sum = next;
}

__kernel void batch_statistics(const clattn_norm_args a,   /* grid: (at least features)        */
                               const __global storage *x,  /* (batch, rows, features) at a.x   */
                               __global float *statistics) /* (2, features) at a.statistics    */
{
    const int c = (int)get_global_id(0);
    if (c >= a.features) return;
    const float count = (float)a.batch * (float)a.rows;
    float sum = 0.0f, lost = 0.0f;
    for (int b = 0; b < a.batch; b++)
        for (int r = 0; r < a.rows; r++) add_to(&sum, &lost, load1(x + row_at(a.x, b, r) + c));
    const float mean = sum / count;
    float squares = 0.0f;
    lost = 0.0f;
    for (int b = 0; b < a.batch; b++)
        for (int r = 0; r < a.rows; r++) {
            const float v = load1(x + row_at(a.x, b, r) + c) - mean;
            add_to(&squares, &lost, v * v);
        }
    statistics[a.statistics + c] = mean;
    statistics[a.statistics + a.features + c] = 1.0f / sqrt(squares / count + a.eps);
}

__kernel void batch_apply(const clattn_norm_args a,         /* grid: (at least features, batch * rows) */
                          const __global storage *x,        /* (batch, rows, features) at a.x          */
                          const __global float *statistics, /* (2, features) at a.statistics           */
                          const __global float *weight,     /* (features)                              */
                          const __global float *bias,       /* (features)                              */
                          __global storage *y)              /* like x at a.y                           */
{
    const int c = (int)get_global_id(0), b = (int)get_global_id(1) / a.rows, r = (int)get_global_id(1) % a.rows;
    if (c >= a.features) return;
    const float mean = statistics[a.statistics + c], factor = statistics[a.statistics + a.features + c];
    store1((load1(x + row_at(a.x, b, r) + c) - mean) * factor * weight[c] + bias[c], y + row_at(a.y, b, r) + c);
}
