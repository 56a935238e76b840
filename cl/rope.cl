/* Rotary position embedding: pairs of features (a, b) become (a cos - b sin, a sin + b cos).
 *
 *   INTERLEAVED 0   pair i is features i and i + R/2         (rotate_half)
 *   INTERLEAVED 1   pair i is features 2i and 2i + 1
 *
 * Features from R on are copied. One work-item per pair, and one per copied feature. The angle of pair i:
 *   ROPE_SOURCE 0   position * base^(-2i/R), from turns
 *   ROPE_SOURCE 1   cosine and sine are rows by position
 *   ROPE_SOURCE 2   cosine and sine are rows by token
 * INVERSE 1 turns back. */
#include "inc/turns.clh"
#include "inc/types.clh"
#include "shared/args.h"
#include "shared/cache_args.h"

/* (cosine, sine) of one pair of one row. */
static inline float2 angle_of(const clattn_rope_args *a, int b, int r, int pair, const __global int *positions,
                              const __global float *cosine, const __global float *sine) {
    if (ROPE_SOURCE == 2) {
        const clattn_i64 at = b * a->cosine.batch + r * a->cosine.row + a->cosine.offset + pair;
        return (float2)(cosine[at], sine[b * a->sine.batch + r * a->sine.row + a->sine.offset + pair]);
    }
    clattn_i64 position = a->first + (a->count_rows ? r : 0);
    if (a->has_positions) position += positions[a->positions.offset + b * a->positions.batch + r * a->positions.row];
    if (ROPE_SOURCE == 0) return turned(position, ((const __global ulong *)cosine)[pair]);
    position = clamp(position, (clattn_i64)0, (clattn_i64)a->table_rows - 1);
    return (float2)(cosine[a->cosine.offset + position * a->cosine.row + pair],
                    sine[a->sine.offset + position * a->sine.row + pair]);
}

__kernel void rope(const clattn_rope_args a,      /* grid: (at least D - R/2, batch * heads * rows)            */
                   const __global storage *x,     /* (batch, heads, rows, D) at a.x                            */
                   const __global int *positions, /* (batch, rows) at a.positions, read when a.has_positions   */
                   const __global float *cosine,  /* (table_rows, R/2) or (batch, rows, R/2) at a.cosine; with
                                                     ROPE_SOURCE 0: ulong (R/2), turns per position            */
                   const __global float *sine,    /* likewise; not read with ROPE_SOURCE 0                     */
                   __global storage *y)           /* like x at a.y                                             */
{
    const int item = (int)get_global_id(0), line = (int)get_global_id(1), half_dim = a.rotary_dim / 2;
    if (item >= a.head_dim - half_dim) return;
    const int r = line % a.rows, h = line / a.rows % a.heads, b = line / a.rows / a.heads;
    const __global storage *from = x + (a.x.offset + b * a.x.batch + h * a.x.head + r * a.x.row);
    __global storage *to = y + (a.y.offset + b * a.y.batch + h * a.y.head + r * a.y.row);
    if (item >= half_dim) {
        store1(load1(from + half_dim + item), to + half_dim + item);
        return;
    }
    const int first = INTERLEAVED ? 2 * item : item, second = INTERLEAVED ? first + 1 : item + half_dim;
    float2 angle = angle_of(&a, b, r, item, positions, cosine, sine);
    if (INVERSE) angle.y = -angle.y;
    const float u = load1(from + first), v = load1(from + second);
    store1(u * angle.x - v * angle.y, to + first);
    store1(u * angle.y + v * angle.x, to + second);
}
