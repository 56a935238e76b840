/* New tokens to the end of a cache: token r of batch entry b becomes token lengths[b] + r. */
#include "inc/cache.clh"

#if CELL_I8

/* x = scale * n, n in -127..127, scale = max|x| / 127: off by max|x| / 254 at most, and the rounding of a float. A row
 * with NaN or infinity has a scale of NaN, so that all of it reads as NaN. One work-item per row. */
__kernel void kv_append(const clattn_cache_args a,      /* grid: (at least 1, batch * heads * rows)          */
                        const __global storage *tokens, /* (batch, heads, rows, width) at a.tokens            */
                        const __global int *lengths,    /* (batch) at a.lengths                               */
                        const __global int *table,      /* (batch, M) at a.cells.table, read when paged             */
                        __global cell *cells,           /* cache at a.cache                                   */
                        __global float *scales)         /* one per row of it at a.scales                      */
{
    const int line = (int)get_global_id(1), r = line % a.rows, h = line / a.rows % a.heads, b = line / a.rows / a.heads;
    if (get_global_id(0) > 0) return;
    const int2 place = cells_place(&a.cells, table, b, lengths[a.lengths.offset + b * a.lengths.batch] + r);
    if (place.y < 0) return;
    const __global storage *from = tokens + place_at(&a.tokens, b, h, r);
    float most = 0.0f;
    bool finite = true;
    for (int d = 0; d < a.width; d++) {
        const float size = fabs(load1(from + d));
        most = fmax(most, size);
        finite = finite && size < INFINITY;
    }
    const float scale = finite ? most / 127.0f : NAN;
    __global cell *to = cells + place_at(&a.cache, place.x, h, place.y);
    for (int d = 0; d < a.width; d++) to[d] = scale > 0.0f ? convert_char_sat_rte(load1(from + d) / scale) : (char)0;
    scales[place_at(&a.scales, place.x, h, place.y)] = scale;
}

#else

/* One work-item per element. */
__kernel void kv_append(const clattn_cache_args a,      /* grid: (at least width, batch * heads * rows)       */
                        const __global storage *tokens, /* (batch, heads, rows, width) at a.tokens            */
                        const __global int *lengths,    /* (batch) at a.lengths                               */
                        const __global int *table,      /* (batch, M) at a.cells.table, read when paged             */
                        __global cell *cells,           /* cache at a.cache                                   */
                        __global float *scales)         /* not made here                                      */
{
    const int d = (int)get_global_id(0), line = (int)get_global_id(1);
    const int r = line % a.rows, h = line / a.rows % a.heads, b = line / a.rows / a.heads;
    if (d >= a.width) return;
    const int2 place = cells_place(&a.cells, table, b, lengths[a.lengths.offset + b * a.lengths.batch] + r);
    if (place.y < 0) return;
    cell_store1(load1(tokens + place_at(&a.tokens, b, h, r) + d), cells + place_at(&a.cache, place.x, h, place.y) + d);
}

#endif
