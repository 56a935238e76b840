/* Positional encodings, alone or added to x.
 *
 *   sinusoidal   y[2i] = x[2i] + sin(p / base^(2i/E)),  y[2i + 1] = x[2i + 1] + cos(same)     one work-item per pair
 *   learned      y[c] = x[c] + table[p][c]                                                    one work-item per feature
 *
 * Angles are counted in turns, as 64-bit fractions of one: whole turns drop out of the integer product p * turns[i]
 * without any rounding, so that far positions are as exact as near ones. */
#include "inc/types.clh"
#include "shared/args.h"
#include "shared/layer_args.h"

static inline clattn_i64 position_of(const clattn_positions_args *a, const __global int *positions, int b, int r) {
    return a->has_positions ? positions[a->positions.offset + b * a->positions.batch + r * a->positions.row]
                            : a->first + r;
}

static inline clattn_i64 row_at(clattn_place place, int b, int r) {
    return place.offset + b * place.batch + r * place.row;
}

__kernel void sinusoidal(const clattn_positions_args a, /* grid: (at least features / 2, batch * rows)                */
                         const __global storage *x,     /* (batch, rows, features) at a.x, read when a.has_x          */
                         const __global int *positions, /* (batch, rows) at a.positions, read when a.has_positions    */
                         const __global ulong *turns,   /* (features / 2) turns per position, times 2^64              */
                         __global storage *y)           /* like x at a.y                                              */
{
    const int i = (int)get_global_id(0), b = (int)get_global_id(1) / a.rows, r = (int)get_global_id(1) % a.rows;
    if (2 * i >= a.features) return;
    const ulong turn = (ulong)position_of(&a, positions, b, r) * turns[i];
    const float half_turns = (float)as_long(turn) * 0x1p-63f; /* -1..1, its sign from the topmost bit */
    float first = sinpi(half_turns), second = cospi(half_turns);
    if (a.has_x) {
        const __global storage *from = x + row_at(a.x, b, r) + 2 * i;
        first += load1(from);
        second += load1(from + 1);
    }
    __global storage *to = y + row_at(a.y, b, r) + 2 * i;
    store1(first, to);
    store1(second, to + 1);
}

__kernel void learned(const clattn_positions_args a, /* grid: (at least features, batch * rows)                 */
                      const __global storage *x,     /* (batch, rows, features) at a.x, read when a.has_x       */
                      const __global int *positions, /* (batch, rows) at a.positions, read when a.has_positions */
                      const __global float *table,   /* (table_rows, features)                                  */
                      __global storage *y)           /* like x at a.y                                           */
{
    const int c = (int)get_global_id(0), b = (int)get_global_id(1) / a.rows, r = (int)get_global_id(1) % a.rows;
    if (c >= a.features) return;
    const clattn_i64 p = clamp(position_of(&a, positions, b, r), (clattn_i64)0, (clattn_i64)a.table_rows - 1);
    const float code = table[p * a.features + c];
    store1(a.has_x ? load1(x + row_at(a.x, b, r) + c) + code : code, y + row_at(a.y, b, r) + c);
}
