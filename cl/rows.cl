/* Puts one row, or zeros, into rows of a (B, H, S, D) tensor: appended keys and values, and the bias of a projection
 * whose product comes from elsewhere. One work-item per element. */
#include "inc/types.clh"
#include "shared/args.h"

__kernel void rows(const clattn_rows_args a,     /* grid: (at least heads * width, batch * rows)           */
                   const __global float *source, /* (heads * width) at source_offset; read when has_source */
                   __global storage *y)          /* (batch, heads, rows, width) at a.y                     */
{
    const int c = (int)get_global_id(0), b = (int)get_global_id(1) / a.rows, r = (int)get_global_id(1) % a.rows;
    if (c >= a.heads * a.width || b >= a.batch) return;
    const float value = a.has_source ? source[a.source_offset + c] : 0.0f;
    __global storage *to = y + a.y.offset + b * a.y.batch + c / a.width * a.y.head + r * a.y.row + c % a.width;
    store1(a.accumulate ? load1(to) + value : value, to);
}
