/* y = act(x + addend): activations, residual sums, copies. One work-item per VW features of a row; the last one of a
 * row may have fewer. y may be x or addend. ACTIVATION: see inc/activation.clh. */
#include "inc/activation.clh"
#include "inc/lanes.clh"
#include "inc/types.clh"
#include "inc/vendor.clh"
#include "shared/args.h"
#include "shared/layer_args.h"

__kernel void elementwise(const clattn_elementwise_args a, /* grid: (at least ceil(features / VW), batch * rows)  */
                          const __global storage *x,       /* (batch, rows, features) at a.x                      */
                          const __global storage *addend,  /* likewise at a.addend, read when a.has_addend        */
                          __global storage *y)             /* likewise at a.y                                     */
{
    const int c = (int)get_global_id(0) * VW, b = (int)get_global_id(1) / a.rows, r = (int)get_global_id(1) % a.rows;
    if (c >= a.features) return;
    x += a.x.offset + b * a.x.batch + r * a.x.row + c;
    y += a.y.offset + b * a.y.batch + r * a.y.row + c;
    if (a.has_addend) addend += a.addend.offset + b * a.addend.batch + r * a.addend.row + c;

    const int count = min(VW, a.features - c);
    if (count == VW) {
        const vec v = a.has_addend ? load_lanes(x) + load_lanes(addend) : load_lanes(x);
        store_lanes(activate(v), y);
        return;
    }
    /* One after the other: for an array of VW that is filled under conditions, NVIDIA's compiler takes scratch memory,
     * and clang 19 for gfx900 crashes (2026-11-21). */
    for (int i = 0; i < count; i++) {
        const float v = a.has_addend ? load1(x + i) + load1(addend + i) : load1(x + i);
        store1(activate((vec)(v)).x, y + i);
    }
}
