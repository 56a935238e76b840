/* The tokens of a cache side by side, as attention kernels read them: row r of batch entry b is token first + r, where
 * first is 0, and in a ring that overflowed the oldest token that it holds. One work-item per element. */
#include "inc/cache.clh"

__kernel void kv_gather(const clattn_cache_args a,   /* grid: (at least width, batch * heads * rows)              */
                        __global storage *tokens,    /* (batch, heads, rows, width) at a.tokens                   */
                        const __global int *lengths, /* (batch) at a.lengths                                      */
                        const __global int *table, /* (batch, M) at a.cells.table, read when paged                    */
                        const __global cell *cells,   /* cache at a.cache                                          */
                        const __global float *scales) /* one per row of it at a.scales, read with CELL_I8        */
{
    const int d = (int)get_global_id(0), line = (int)get_global_id(1);
    const int r = line % a.rows, h = line / a.rows % a.heads, b = line / a.rows / a.heads;
    if (d >= a.width) return;
    const int length = lengths[a.lengths.offset + b * a.lengths.batch];
    const int first = a.cells.ring ? max(0, length - a.cells.capacity) : 0;
    const int2 place = first + r < length ? cells_place(&a.cells, table, b, first + r) : (int2)(0, -1);
    __global storage *to = tokens + place_at(&a.tokens, b, h, r) + d;
    if (place.y < 0) {
        if (a.fill) store1(0.0f, to);
        return;
    }
    float x = cell1(cells + place_at(&a.cache, place.x, h, place.y) + d);
    if (CELL_I8) x *= scales[place_at(&a.scales, place.x, h, place.y)];
    store1(x, to);
}
