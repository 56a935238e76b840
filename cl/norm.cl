/* Normalisation of rows (layer norm) and of columns (batch norm).
 *
 *   layer_norm:  1  v = x + residual, mean of v; write v to sum
 *                2  variance: mean of (v - mean)^2
 *                3  y = (v - mean) / sqrt(variance + eps) * weight + bias
 *
 * One work-group owns one row:     | VW | VW | VW | VW | VW | VW | tail |      ITEMS = 4
 *                            item:   0    1    2    3    0    1   0 1 2        each walks vectors ITEMS apart
 *
 * ITEMS: work-items per row: 1 on CPUs, where the row is one loop over vectors, else a power of two, 64 by default.
 * Local: ITEMS floats. */
#include "inc/lanes.clh"
#include "inc/local.clh"
#include "inc/types.clh"
#include "inc/vendor.clh"
#include "shared/args.h"
#include "shared/layer_args.h"

#if ITEMS < 1 || (ITEMS & (ITEMS - 1)) != 0
#error "ITEMS must be a power of two"
#endif

static inline float lane_sum(vec v) {
    float lanes[VW], sum = 0.0f;
    STORE(v, lanes);
    UNROLL for (int i = 0; i < VW; i++) sum += lanes[i];
    return sum;
}

/* The sum over all items of the group; every item gets it. */
static inline float group_sum(float part, __local float *parts) {
    const int item = (int)get_local_id(0);
    parts[item] = part;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int half_way = ITEMS / 2; half_way > 0; half_way /= 2) {
        if (item < half_way) parts[item] += parts[item + half_way];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    const float sum = parts[0];
    barrier(CLK_LOCAL_MEM_FENCE); /* before the next sum overwrites it */
    return sum;
}

static inline vec row_vector(const __global storage *x, const __global storage *residual, bool add, int c) {
    vec v = load_lanes(x + c);
    if (add) v += load_lanes(residual + c);
    return v;
}

static inline float row_element(const __global storage *x, const __global storage *residual, bool add, int c) {
    return add ? load1(x + c) + load1(residual + c) : load1(x + c);
}

static inline clattn_i64 row_at(clattn_place place, int b, int r) {
    return place.offset + b * place.batch + r * place.row;
}

__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) void
layer_norm(const clattn_norm_args a,       /* grid: (ITEMS, batch * rows)                      */
           const __global storage *x,      /* (batch, rows, features) at a.x                   */
           const __global storage *residual, /* likewise at a.residual, read when a.has_residual */
           const __global float *weight,   /* (features)                                       */
           const __global float *bias,     /* (features)                                       */
           __global storage *sum,          /* like x at a.sum, written when a.has_sum          */
           __global storage *y)            /* like x at a.y; may be x or residual              */
{
    __local float parts[ITEMS];
    const int item = (int)get_local_id(0), b = (int)get_group_id(1) / a.rows, r = (int)get_group_id(1) % a.rows;
    const int whole = a.features / VW * VW; /* features in whole vectors */
    const bool add = a.has_residual;
    POISON(parts, item, ITEMS);
    x += row_at(a.x, b, r);
    y += row_at(a.y, b, r);
    if (add) residual += row_at(a.residual, b, r);
    if (a.has_sum) sum += row_at(a.sum, b, r);

    /* 1 */
    vec sums = 0.0f;
    float rest = 0.0f;
    for (int c = item * VW; c < whole; c += ITEMS * VW) {
        const vec v = row_vector(x, residual, add, c);
        sums += v;
        if (a.has_sum) store_lanes(v, sum + c);
    }
    for (int c = whole + item; c < a.features; c += ITEMS) {
        const float v = row_element(x, residual, add, c);
        rest += v;
        if (a.has_sum) store1(v, sum + c);
    }
    const float mean = group_sum(lane_sum(sums) + rest, parts) / (float)a.features;

    /* 2 */
    sums = 0.0f;
    rest = 0.0f;
    for (int c = item * VW; c < whole; c += ITEMS * VW) {
        const vec v = row_vector(x, residual, add, c) - mean;
        sums = muladd(v, v, sums);
    }
    for (int c = whole + item; c < a.features; c += ITEMS) {
        const float v = row_element(x, residual, add, c) - mean;
        rest += v * v;
    }
    const float variance = group_sum(lane_sum(sums) + rest, parts) / (float)a.features;
    const float factor = 1.0f / sqrt(variance + a.eps);

    /* 3 */
    for (int c = item * VW; c < whole; c += ITEMS * VW)
        store_lanes((row_vector(x, residual, add, c) - mean) * factor * LOAD(weight + c) + LOAD(bias + c), y + c);
    for (int c = whole + item; c < a.features; c += ITEMS)
        store1((row_element(x, residual, add, c) - mean) * factor * weight[c] + bias[c], y + c);
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
