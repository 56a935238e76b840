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
    normalise_row(&a, (int)get_global_id(1), item, x, residual, weight, bias, sum, y, parts);
}

/* Mean and 1 / sqrt(variance + eps) of each feature over all batch * rows. One work-item per feature: neighbours read
 * neighbouring words. The sums are compensated (Kahan 1965), as there may be many rows and one item adds them all.
 *
 *   rows     0 ...         first ...      first + count ...     end
 *            | launches before | this launch |  launches after  |
 *   statistics: mean, squares of v - mean    ->               mean, 1 / sqrt(variance + eps)
 *
 * A launch unites what it finds with what is there already (Chan, Golub and LeVeque 1979). */
static inline void add_to(float *sum, float *lost, float term) {
    const float part = term - *lost, next = *sum + part;
    *lost = (next - *sum) - part;
    *sum = next;
}

/* The launch's rows of column x: the sum of v, or of the squares of v - mean. */
static inline float sum_rows(const clattn_norm_args *a, const __global storage *x, int first, int count, bool squares,
                             float mean) {
    float sum = 0.0f, lost = 0.0f;
    for (int b = first / a->rows, r = first % a->rows; count > 0; count--) {
        const float v = load1(x + row_at(a->x, b, r));
        add_to(&sum, &lost, squares ? (v - mean) * (v - mean) : v);
        if (++r == a->rows) b++, r = 0;
    }
    return sum;
}

__kernel void batch_statistics(const clattn_norm_args a,   /* grid: (at least features)        */
                               const __global storage *x,  /* (batch, rows, features) at a.x   */
                               __global float *statistics, /* (2, features) at a.statistics    */
                               int first, int count)       /* rows                             */
{
    const int c = (int)get_global_id(0);
    if (c >= a.features) return;
    __global float *means = statistics + a.statistics + c, *factors = means + a.features;
    const float total = (float)first + (float)count, share = (float)count / total; /* of the rows so far */
    const float mean = sum_rows(&a, x + c, first, count, false, 0.0f) / (float)count;
    const float squares = sum_rows(&a, x + c, first, count, true, mean);

    const float mean_before = first > 0 ? *means : 0.0f, squares_before = first > 0 ? *factors : 0.0f;
    const float step = mean - mean_before;
    const float all = squares_before + squares + step * ((float)first * share) * step;
    *means = first > 0 ? mean_before + step * share : mean;
    *factors = first + count == a.batch * a.rows ? 1.0f / sqrt(all / total + a.eps) : all;
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
