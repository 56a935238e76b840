/* Softmax along one axis, its gradient, and cross entropy. One work-group per row, taking row after row.
 *
 *        i ->  0..7     8..15    16..23   ...        Work-item m reads vectors m, m + GROUP, m + 2 * GROUP, ...
 *            +--------+--------+--------+-----+--+   of eight elements; lanes behind the end take no part.
 *      row   | item 0 | item 1 | item 2 | ... |  |   Elements of a row lie `along` apart, so that any axis can
 *            +--------+--------+--------+-----+--+   be the row.
 *
 * Pass 1: greatest allowed element. Pass 2: sum of exponentials (or of g p). Pass 3: outputs.
 *
 * GROUP: work-items per row, a power of two; 1 on CPUs, where a work-item has the vectors for itself; 64 elsewhere. */
/* Vectors of eight, whatever the device likes best. */
#define VW 8
#include "inc/lanes.clh"
#include "inc/types.clh"
#include "inc/vendor.clh"
#include "shared/args.h"

#if GROUP < 1 || (GROUP & (GROUP - 1)) != 0
#error "GROUP must be a power of two"
#endif

enum { LANES = 8 };

/* The row's first element in a tensor. */
static inline long start_of(const clattn_softmax_view *v, const clattn_softmax_shape *s, long row) {
    const long last = row % s->outer[2], rest = row / s->outer[2];
    return v->offset + rest / s->outer[1] * v->outer[0] + rest % s->outer[1] * v->outer[1] + last * v->outer[2];
}

static inline float8 load8(const __global storage *x, long along, int left) {
    if (along == 1 && left >= LANES) return load_lanes(x);
    float lanes[LANES];
    for (int k = 0; k < LANES; k++) lanes[k] = k < left ? load1(x + k * along) : 0.0f;
    return vload8(0, lanes);
}

static inline void store8(float8 value, __global storage *x, long along, int left) {
    if (along == 1 && left >= LANES) {
        store_lanes(value, x);
        return;
    }
    float lanes[LANES];
    vstore8(value, 0, lanes);
    for (int k = 0; k < LANES && k < left; k++) store1(lanes[k], x + k * along);
}

/* -1 in the lanes that take part: inside the row and not forbidden. */
static inline int8 allowed8(const __global uchar *mask, long along, int left, int has_mask) {
    const int8 inside = (int8)(0, 1, 2, 3, 4, 5, 6, 7) < (int8)(left);
    if (!has_mask) return inside;
    int lanes[LANES];
    for (int k = 0; k < LANES; k++) lanes[k] = k < left && mask[k * along] ? -1 : 0;
    return vload8(0, lanes);
}

static inline float max8(float8 v) {
    const float4 a = fmax(v.lo, v.hi);
    const float2 b = fmax(a.lo, a.hi);
    return fmax(b.x, b.y);
}

static inline float sum8(float8 v) {
    const float4 a = v.lo + v.hi;
    const float2 b = a.lo + a.hi;
    return b.x + b.y;
}

/* Compensated addition (Kahan 1965): the error of a sum does not grow with the length of the row. */
static inline void add8(float8 *sum, float8 *lost, float8 value) {
    const float8 corrected = value - *lost, next = *sum + corrected;
    *lost = (next - *sum) - corrected;
    *sum = next;
}

/* The greatest, or the sum, of the values of a group's work-items; the same for all of them. */
static inline float group_reduce(float value, int greatest, __local float *scratch) {
#if GROUP > 1
    const int me = (int)get_local_id(0);
    barrier(CLK_LOCAL_MEM_FENCE);
    scratch[me] = value;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int half_size = GROUP / 2; half_size > 0; half_size /= 2) {
        if (me < half_size) {
            const float other = scratch[me + half_size];
            scratch[me] = greatest ? fmax(scratch[me], other) : scratch[me] + other;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    value = scratch[0];
#endif
    return value;
}

/* exp((x - greatest) / t), 0 where forbidden; a comparison of floats tells nothing about a row of minus infinities, the
 * mask does. */
static inline float8 power8(float8 x, float greatest, float factor, int8 allowed) {
    return select((float8)(0.0f), fast_exp2((x - greatest) * factor), allowed);
}

/* Where one row begins in x and its mask. */
typedef struct source {
    const __global storage *x;
    const __global uchar *mask;
    long along, mask_along;
} source;

static inline float greatest_of(const source *from, const clattn_softmax_shape *s, int lane, __local float *scratch) {
    float8 greatest = (float8)(-INFINITY);
    for (int i = lane * LANES; i < s->n; i += LANES * GROUP) {
        const int left = s->n - i;
        const int8 allowed = allowed8(from->mask + i * from->mask_along, from->mask_along, left, s->has_mask);
        const float8 x = load8(from->x + i * from->along, from->along, left);
        greatest = fmax(greatest, select((float8)(-INFINITY), x, allowed));
    }
    return group_reduce(max8(greatest), 1, scratch);
}

static inline float sum_of(const source *from, const clattn_softmax_shape *s, float greatest, int lane,
                           __local float *scratch) {
    float8 sum = (float8)(0.0f), lost = (float8)(0.0f);
    for (int i = lane * LANES; i < s->n; i += LANES * GROUP) {
        const int left = s->n - i;
        const int8 allowed = allowed8(from->mask + i * from->mask_along, from->mask_along, left, s->has_mask);
        const float8 x = load8(from->x + i * from->along, from->along, left);
        add8(&sum, &lost, power8(x, greatest, s->exponent_factor, allowed));
    }
    return group_reduce(sum8(sum), 0, scratch);
}

/* An empty row has no sum to divide by; every element is forbidden and stays 0. */
static inline float inverse_of(float sum) { return sum == 0.0f ? 0.0f : 1.0f / sum; }

__kernel void softmax_forward(const clattn_softmax_args a, /* grid: (GROUP * groups)                        */
                              const __global storage *x,   /* (outer, n) at a.view[SOFTMAX_X]               */
                              const __global uchar *mask,  /* (outer, n) true = allowed; when has_mask      */
                              __global storage *probability) /* (outer, n) at a.view[SOFTMAX_PROBABILITY]     */
{
    __local float scratch[GROUP];
    const clattn_softmax_shape s = a.shape;
    const clattn_softmax_view vx = a.view[SOFTMAX_X], vm = a.view[SOFTMAX_MASK], vp = a.view[SOFTMAX_PROBABILITY];
    const int lane = (int)get_local_id(0);
    for (long row = get_group_id(0); row < s.rows; row += get_num_groups(0)) {
        const source from = {x + start_of(&vx, &s, row), mask + start_of(&vm, &s, row), vx.along, vm.along};
        __global storage *to = probability + start_of(&vp, &s, row);
        const float greatest = greatest_of(&from, &s, lane, scratch);
        const float inverse = inverse_of(sum_of(&from, &s, greatest, lane, scratch));
        for (int i = lane * LANES; i < s.n; i += LANES * GROUP) {
            const int left = s.n - i;
            const int8 allowed = allowed8(from.mask + i * vm.along, vm.along, left, s.has_mask);
            const float8 power =
                power8(load8(from.x + i * vx.along, vx.along, left), greatest, s.exponent_factor, allowed);
            store8(power * inverse, to + i * vp.along, vp.along, left);
        }
    }
}

__kernel void softmax_backward(const clattn_softmax_args a,       /* grid: (GROUP * groups)                       */
                               const __global storage *probability, /* (outer, n) at a.view[SOFTMAX_X]              */
                               const __global uchar *mask,        /* (outer, n) true = allowed; when has_mask     */
                               const __global storage *grad_output, /* (outer, n) at a.view[SOFTMAX_SECOND]         */
                               __global storage *grad_x)          /* (outer, n) at a.view[SOFTMAX_GRAD]           */
{
    __local float scratch[GROUP];
    const clattn_softmax_shape s = a.shape;
    const clattn_softmax_view vp = a.view[SOFTMAX_X], vm = a.view[SOFTMAX_MASK], vg = a.view[SOFTMAX_SECOND],
                              vx = a.view[SOFTMAX_GRAD];
    const int lane = (int)get_local_id(0);
    for (long row = get_group_id(0); row < s.rows; row += get_num_groups(0)) {
        const __global storage *p = probability + start_of(&vp, &s, row), *g = grad_output + start_of(&vg, &s, row);
        const __global uchar *m = mask + start_of(&vm, &s, row);
        __global storage *to = grad_x + start_of(&vx, &s, row);
        float8 sum = (float8)(0.0f), lost = (float8)(0.0f);
        for (int i = lane * LANES; i < s.n; i += LANES * GROUP) {
            const int left = s.n - i;
            const int8 allowed = allowed8(m + i * vm.along, vm.along, left, s.has_mask);
            const float8 product = load8(p + i * vp.along, vp.along, left) * load8(g + i * vg.along, vg.along, left);
            add8(&sum, &lost, select((float8)(0.0f), product, allowed));
        }
        const float inner = group_reduce(sum8(sum), 0, scratch); /* sum of g p */
        for (int i = lane * LANES; i < s.n; i += LANES * GROUP) {
            const int left = s.n - i;
            const int8 allowed = allowed8(m + i * vm.along, vm.along, left, s.has_mask);
            const float8 pi = load8(p + i * vp.along, vp.along, left), gi = load8(g + i * vg.along, vg.along, left);
            const float8 gradient = pi * (gi - inner) * s.inverse_temperature;
            store8(select((float8)(0.0f), gradient, allowed), to + i * vx.along, vx.along, left);
        }
    }
}

__kernel void softmax_cross_entropy(const clattn_softmax_args a, /* grid: (GROUP * groups)                        */
                                    const __global storage *x,   /* (outer, n) at a.view[SOFTMAX_X]               */
                                    const __global uchar *mask,  /* (outer, n) true = allowed; when has_mask      */
                                    const __global int *labels,  /* (outer)    at a.view[SOFTMAX_SECOND]          */
                                    __global storage *probability, /* (outer, n) when writes_probability            */
                                    __global float *loss,        /* (outer)    at a.view[SOFTMAX_LOSS]            */
                                    __global storage *grad_x)    /* (outer, n) when writes_gradient               */
{
    __local float scratch[GROUP];
    const clattn_softmax_shape s = a.shape;
    const clattn_softmax_view vx = a.view[SOFTMAX_X], vm = a.view[SOFTMAX_MASK], vl = a.view[SOFTMAX_SECOND],
                              vp = a.view[SOFTMAX_PROBABILITY], vo = a.view[SOFTMAX_LOSS], vg = a.view[SOFTMAX_GRAD];
    const int lane = (int)get_local_id(0);
    for (long row = get_group_id(0); row < s.rows; row += get_num_groups(0)) {
        const source from = {x + start_of(&vx, &s, row), mask + start_of(&vm, &s, row), vx.along, vm.along};
        const int label = labels[start_of(&vl, &s, row)];
        const int counts = label >= 0 && label < s.n;
        const float greatest = greatest_of(&from, &s, lane, scratch);
        const float sum = sum_of(&from, &s, greatest, lane, scratch), inverse = inverse_of(sum);
        if (lane == 0) {
            const int forbidden = counts && s.has_mask && !from.mask[label * vm.along];
            float value = 0.0f;
            if (counts) value = log(sum) + (greatest - load1(from.x + label * vx.along)) * s.inverse_temperature;
            loss[start_of(&vo, &s, row)] = forbidden ? INFINITY : value;
        }
        for (int i = lane * LANES; i < s.n; i += LANES * GROUP) {
            const int left = s.n - i;
            const int8 allowed = allowed8(from.mask + i * vm.along, vm.along, left, s.has_mask);
            const float8 xi = load8(from.x + i * vx.along, vx.along, left);
            const float8 p = power8(xi, greatest, s.exponent_factor, allowed) * inverse;
            const float8 hit = select((float8)(0.0f), (float8)(1.0f),
                                      (int8)(counts ? label - i : -1) == (int8)(0, 1, 2, 3, 4, 5, 6, 7));
            const float8 gradient =
                counts ? select((float8)(0.0f), (p - hit) * s.inverse_temperature, allowed) : (float8)(0.0f);
            if (s.writes_probability) store8(p, probability + start_of(&vp, &s, row) + i * vp.along, vp.along, left);
            if (s.writes_gradient) store8(gradient, grad_x + start_of(&vg, &s, row) + i * vg.along, vg.along, left);
        }
    }
}
