/* y = act(x + addend): activations, residual sums, copies. One work-item per VW features of a row; the last one of a
 * row may have fewer. y may be x or addend.
 *
 * ACTIVATION: 0 none, 1 relu, 2 gelu (clattn_activation). */
#include "inc/lanes.clh"
#include "inc/types.clh"
#include "inc/vendor.clh"
#include "shared/args.h"
#include "shared/layer_args.h"

#if ACTIVATION < 0 || ACTIVATION > 2
#error "ACTIVATION must be 0, 1 or 2"
#endif

/* The normal distribution's share below -t, t >= 0: 2^polynomial, where the polynomial is fitted to log2 of the share
 * on 0..6. Off by 5e-8 at most, rounding left aside. Beyond 6 the share is below 1e-9 and counts as nothing, so that an
 * infinite x gives what the formula says. */
static inline vec normal_tail(vec t) {
    vec p = muladd((vec)(2.1369128e-07f), t, (vec)(-4.9454757e-06f));
    p = muladd(p, t, (vec)(4.5928569e-05f));
    p = muladd(p, t, (vec)(-1.8804277e-04f));
    p = muladd(p, t, (vec)(-1.6619066e-04f));
    p = muladd(p, t, (vec)(7.1250368e-03f));
    p = muladd(p, t, (vec)(-5.2546620e-02f));
    p = muladd(p, t, (vec)(-4.5919111e-01f));
    p = muladd(p, t, (vec)(-1.1511070e+00f));
    p = muladd(p, t, (vec)(-1.0f));
    return t > 6.0f ? (vec)(0.0f) : vec_exp2(p);
}

/* x times the normal distribution's share below x, which is x / 2 * (1 + erf(x / sqrt(2))). By way of the tail nothing
 * cancels where x is negative. */
static inline vec gelu(vec x) {
    const vec tail = normal_tail(fabs(x));
    return x * (x < 0.0f ? tail : 1.0f - tail);
}

static inline vec activate(vec x) {
    if (ACTIVATION == 1) x = x < 0.0f ? (vec)(0.0f) : x; /* NaN stays NaN */
    if (ACTIVATION == 2) x = gelu(x);
    return x;
}

__kernel void elementwise(const clattn_elementwise_args a, /* grid: (at least ceil(features / VW), batch * rows)  */
                          const __global float *x,         /* (batch, rows, features) at a.x                      */
                          const __global float *addend,    /* likewise at a.addend, read when a.has_addend        */
                          __global float *y)               /* likewise at a.y                                     */
{
    const int c = (int)get_global_id(0) * VW, b = (int)get_global_id(1) / a.rows, r = (int)get_global_id(1) % a.rows;
    if (c >= a.features) return;
    x += a.x.offset + b * a.x.batch + r * a.x.row + c;
    y += a.y.offset + b * a.y.batch + r * a.y.row + c;
    if (a.has_addend) addend += a.addend.offset + b * a.addend.batch + r * a.addend.row + c;

    const int count = min(VW, a.features - c);
    if (count == VW) {
        const vec v = a.has_addend ? LOAD(x) + LOAD(addend) : LOAD(x);
        STORE(activate(v), y);
        return;
    }
    float part[VW];
    for (int i = 0; i < VW; i++) part[i] = i >= count ? 0.0f : a.has_addend ? x[i] + addend[i] : x[i];
    const vec v = activate(LOAD(part));
    STORE(v, part);
    for (int i = 0; i < count; i++) y[i] = part[i];
}
