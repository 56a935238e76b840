/* Softmax along one axis, its gradient, and cross entropy. One work-group per row.
 *
 *        i ->  0..VW-1  VW..     2VW..    ...        Work-item m reads vectors m, m + GROUP, m + 2 * GROUP, ...
 *            +--------+--------+--------+-----+--+   of VW elements; lanes behind the end take no part.
 *      row   | item 0 | item 1 | item 2 | ... |  |   Elements of a row lie `along` apart, so that any axis can
 *            +--------+--------+--------+-----+--+   be the row.
 *
 * Pass 1: greatest allowed element. Pass 2: sum of exponentials (or of g p). Pass 3: outputs.
 *
 * GROUP: work-items per row, a power of two; 1 on CPUs, where a work-item has the vectors for itself; 64 elsewhere.
 * VW: 8 on CPUs, where a row has one work-item; 4 elsewhere: 16 bytes of floats. */
#include "inc/lanes.clh"
#include "inc/local.clh"
#include "inc/types.clh"
#include "inc/vendor.clh"
#include "shared/args.h"

#if GROUP < 1 || (GROUP & (GROUP - 1)) != 0
#error "GROUP must be a power of two"
#endif

/* Where a row is on the three other axes. */
static inline int3 place_of(const clattn_softmax_shape *s, long row) {
    const long rest = row / s->outer[2];
    return (int3)((int)(rest / s->outer[1]), (int)(rest % s->outer[1]), (int)(row % s->outer[2]));
}

/* The row's first element in a tensor. */
static inline long start_of(const clattn_softmax_view *v, int3 at) {
    return v->offset + at.x * v->outer[0] + at.y * v->outer[1] + at.z * v->outer[2];
}

/* What the lanes behind the end get is of no account, so that no load needs a condition. */
static inline vec load_vec(const __global storage *x, long along, int left) {
    if (along == 1 && left >= VW) return load_lanes(x);
    float lanes[VW];
    UNROLL for (int k = 0; k < VW; k++) {
        lanes[k] = load1(x);
        x += k + 1 < left ? along : 0;
    }
    return LOAD(lanes);
}

static inline void store_vec(vec value, __global storage *x, long along, int left) {
    if (along == 1 && left >= VW) {
        store_lanes(value, x);
        return;
    }
    float lanes[VW];
    STORE(value, lanes);
    UNROLL for (int k = 0; k < VW; k++, x += along) {
        if (k < left) store1(lanes[k], x);
    }
}

/* -1 in the lanes that take part: inside the row and not forbidden. */
static inline ivec allowed_lanes(const __global uchar *mask, long along, int left, int has_mask) {
    const ivec inside = LANE_NUMBERS < (ivec)(left);
    if (!has_mask) return inside;
    int lanes[VW];
    UNROLL for (int k = 0; k < VW; k++) {
        lanes[k] = *mask ? -1 : 0;
        mask += k + 1 < left ? along : 0;
    }
    return inside & LOAD(lanes);
}

static inline float max_lanes(vec v) {
    float lanes[VW];
    STORE(v, lanes);
    float most = lanes[0];
    UNROLL for (int k = 1; k < VW; k++) most = fmax(most, lanes[k]);
    return most;
}

static inline float sum_lanes(vec v) {
    float lanes[VW], sum = 0.0f;
    STORE(v, lanes);
    UNROLL for (int k = 0; k < VW; k++) sum += lanes[k];
    return sum;
}

/* Compensated addition (Kahan 1965): the error of a sum does not grow with the length of the row. */
static inline void add_lanes(vec *sum, vec *lost, vec value) {
    const vec corrected = value - *lost, next = *sum + corrected;
    *lost = (next - *sum) - corrected;
    *sum = next;
}

/* The greatest, or the sum, of the values of a group's work-items; the same for all of them. Each takes the value of
 * the one `apart` from it, so that there is no condition that would have to be kept. */
static inline float group_reduce(float value, int greatest, __local float *scratch) {
    const int me = (int)get_local_id(0);
    for (int apart = GROUP / 2; apart > 0; apart /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        scratch[me] = value;
        barrier(CLK_LOCAL_MEM_FENCE);
        const float other = scratch[me ^ apart];
        value = greatest ? fmax(value, other) : value + other;
    }
    return value;
}

/* exp((x - greatest) / t), 0 where forbidden; a comparison of floats tells nothing about a row of minus infinities, the
 * mask does. */
static inline vec power_lanes(vec x, float greatest, float factor, ivec allowed) {
    return select((vec)(0.0f), fast_exp2((x - greatest) * factor), allowed);
}

/* Where one row begins in x and its mask. */
typedef struct source {
    const __global storage *x;
    const __global uchar *mask;
    long along, mask_along;
} source;

static inline float greatest_of(const source *from, const clattn_softmax_shape *s, int lane, __local float *scratch) {
    vec greatest = (vec)(-INFINITY);
    for (int i = lane * VW; i < s->n; i += VW * GROUP) {
        const int left = s->n - i;
        const ivec allowed = allowed_lanes(from->mask + i * from->mask_along, from->mask_along, left, s->has_mask);
        const vec x = load_vec(from->x + i * from->along, from->along, left);
        greatest = fmax(greatest, select((vec)(-INFINITY), x, allowed));
    }
    return group_reduce(max_lanes(greatest), 1, scratch);
}

static inline float sum_of(const source *from, const clattn_softmax_shape *s, float greatest, int lane,
                           __local float *scratch) {
    vec sum = (vec)(0.0f), lost = (vec)(0.0f);
    for (int i = lane * VW; i < s->n; i += VW * GROUP) {
        const int left = s->n - i;
        const ivec allowed = allowed_lanes(from->mask + i * from->mask_along, from->mask_along, left, s->has_mask);
        const vec x = load_vec(from->x + i * from->along, from->along, left);
        add_lanes(&sum, &lost, power_lanes(x, greatest, s->exponent_factor, allowed));
    }
    return group_reduce(sum_lanes(sum), 0, scratch);
}

/* An empty row has no sum to divide by; every element is forbidden and stays 0. */
static inline float inverse_of(float sum) { return sum == 0.0f ? 0.0f : 1.0f / sum; }

static inline void write_probability(const source *from, const clattn_softmax_shape *s, float greatest, float inverse,
                                     int lane, __global storage *to, long along) {
    for (int i = lane * VW; i < s->n; i += VW * GROUP) {
        const int left = s->n - i;
        const ivec allowed = allowed_lanes(from->mask + i * from->mask_along, from->mask_along, left, s->has_mask);
        const vec x = load_vec(from->x + i * from->along, from->along, left);
        store_vec(power_lanes(x, greatest, s->exponent_factor, allowed) * inverse, to + i * along, along, left);
    }
}

__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void
softmax_forward(const clattn_softmax_args a,   /* grid: (GROUP * rows)                          */
                const __global storage *x,     /* (outer, n) at a.view[SOFTMAX_X]               */
                const __global uchar *mask,    /* (outer, n) true = allowed; when has_mask      */
                __global storage *probability) /* (outer, n) at a.view[SOFTMAX_PROBABILITY]     */
{
    __local float scratch[GROUP];
    const clattn_softmax_shape s = a.shape;
    const clattn_softmax_view vx = a.view[SOFTMAX_X], vm = a.view[SOFTMAX_MASK], vp = a.view[SOFTMAX_PROBABILITY];
    const int lane = (int)get_local_id(0);
    POISON(scratch, lane, GROUP);
    const int3 at = place_of(&s, a.first + (long)get_group_id(0));
    const source from = {x + start_of(&vx, at), mask + start_of(&vm, at), vx.along, vm.along};
    const float greatest = greatest_of(&from, &s, lane, scratch);
    const float inverse = inverse_of(sum_of(&from, &s, greatest, lane, scratch));
    write_probability(&from, &s, greatest, inverse, lane, probability + start_of(&vp, at), vp.along);
}

__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void
softmax_backward(const clattn_softmax_args a,         /* grid: (GROUP * rows)                         */
                 const __global storage *probability, /* (outer, n) at a.view[SOFTMAX_X]              */
                 const __global uchar *mask,          /* (outer, n) true = allowed; when has_mask     */
                 const __global storage *grad_output, /* (outer, n) at a.view[SOFTMAX_SECOND]         */
                 __global storage *grad_x)            /* (outer, n) at a.view[SOFTMAX_GRAD]           */
{
    __local float scratch[GROUP];
    const clattn_softmax_shape s = a.shape;
    const clattn_softmax_view vp = a.view[SOFTMAX_X], vm = a.view[SOFTMAX_MASK], vg = a.view[SOFTMAX_SECOND],
                              vx = a.view[SOFTMAX_GRAD];
    const int lane = (int)get_local_id(0);
    POISON(scratch, lane, GROUP);
    const int3 at = place_of(&s, a.first + (long)get_group_id(0));
    const __global storage *p = probability + start_of(&vp, at), *g = grad_output + start_of(&vg, at);
    const __global uchar *m = mask + start_of(&vm, at);
    __global storage *to = grad_x + start_of(&vx, at);
    vec sum = (vec)(0.0f), lost = (vec)(0.0f);
    for (int i = lane * VW; i < s.n; i += VW * GROUP) {
        const int left = s.n - i;
        const ivec allowed = allowed_lanes(m + i * vm.along, vm.along, left, s.has_mask);
        const vec product = load_vec(p + i * vp.along, vp.along, left) * load_vec(g + i * vg.along, vg.along, left);
        add_lanes(&sum, &lost, select((vec)(0.0f), product, allowed));
    }
    const float inner = group_reduce(sum_lanes(sum), 0, scratch); /* sum of g p */
    for (int i = lane * VW; i < s.n; i += VW * GROUP) {
        const int left = s.n - i;
        const ivec allowed = allowed_lanes(m + i * vm.along, vm.along, left, s.has_mask);
        const vec pi = load_vec(p + i * vp.along, vp.along, left), gi = load_vec(g + i * vg.along, vg.along, left);
        const vec gradient = pi * (gi - inner) * s.inverse_temperature;
        store_vec(select((vec)(0.0f), gradient, allowed), to + i * vx.along, vx.along, left);
    }
}

__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void
softmax_cross_entropy(const clattn_softmax_args a,   /* grid: (GROUP * rows)                          */
                      const __global storage *x,     /* (outer, n) at a.view[SOFTMAX_X]               */
                      const __global uchar *mask,    /* (outer, n) true = allowed; when has_mask      */
                      const __global int *labels,    /* (outer)    at a.view[SOFTMAX_SECOND]          */
                      __global storage *probability, /* (outer, n) when writes_probability            */
                      __global float *loss,          /* (outer)    at a.view[SOFTMAX_LOSS]            */
                      __global storage *grad_x)      /* (outer, n) when writes_gradient               */
{
    __local float scratch[GROUP];
    __local long starts[3]; /* probability, loss, grad_x: kept here, for AMD's scalar registers are too few for all */
    const clattn_softmax_shape s = a.shape;
    const clattn_softmax_view vx = a.view[SOFTMAX_X], vm = a.view[SOFTMAX_MASK], vl = a.view[SOFTMAX_SECOND];
    const int lane = (int)get_local_id(0);
    POISON(scratch, lane, GROUP);
    POISON(starts, lane, GROUP);
    const int3 at = place_of(&s, a.first + (long)get_group_id(0));
    const source from = {x + start_of(&vx, at), mask + start_of(&vm, at), vx.along, vm.along};
    if (lane == 0) {
        starts[0] = start_of(&a.view[SOFTMAX_PROBABILITY], at);
        starts[1] = start_of(&a.view[SOFTMAX_LOSS], at);
        starts[2] = start_of(&a.view[SOFTMAX_GRAD], at);
    }
    const int label = labels[start_of(&vl, at)];
    const int counts = label >= 0 && label < s.n;
    const float greatest = greatest_of(&from, &s, lane, scratch);
    const float sum = sum_of(&from, &s, greatest, lane, scratch), inverse = inverse_of(sum);
    if (lane == 0) {
        const int forbidden = counts && s.has_mask && !from.mask[label * vm.along];
        float value = 0.0f;
        if (counts) value = log(sum) + (greatest - load1(from.x + label * vx.along)) * s.inverse_temperature;
        loss[starts[1]] = forbidden ? INFINITY : value;
    }
    const long probability_along = a.view[SOFTMAX_PROBABILITY].along, grad_along = a.view[SOFTMAX_GRAD].along;
    if (s.writes_probability)
        write_probability(&from, &s, greatest, inverse, lane, probability + starts[0], probability_along);
    if (!s.writes_gradient) return;
    __global storage *to = grad_x + starts[2];
    for (int i = lane * VW; i < s.n; i += VW * GROUP) {
        const int left = s.n - i;
        const ivec allowed = allowed_lanes(from.mask + i * vm.along, vm.along, left, s.has_mask);
        const vec p =
            power_lanes(load_vec(from.x + i * vx.along, vx.along, left), greatest, s.exponent_factor, allowed);
        const vec hit = select((vec)(0.0f), (vec)(1.0f), (ivec)(counts ? label - i : -1) == LANE_NUMBERS);
        const vec gradient = (p * inverse - hit) * s.inverse_temperature;
        store_vec(select((vec)(0.0f), gradient, counts ? allowed : (ivec)(0)), to + i * grad_along, grad_along, left);
    }
}
