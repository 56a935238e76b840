/* Projection y = x W^T + bias on CPU devices: register tiles of explicit vectors, one work-item per work-group, neither
 * local memory nor barriers.
 *
 *         k ->                   NR columns   NR columns
 *        +-----------+          +------------+------------+     One work-item owns rows_per_item rows and
 *   MR   | row tile  |    x   k | panel of W | next panel |     columns_per_item columns of y. It copies MR rows of x,
 *   rows | (a copy)  |        | | (k, NR)    |            |     walks the panels of its columns from left to right with
 *        +-----------+        v |            |            |     that tile, then takes the next MR rows. The row tile
 *        | next tile |          +------------+------------+     stays in the first-level cache, the item's part of W in
 *        +-----------+                                          the second, MR x NV vectors of sums in registers.
 *
 * Tails. Rows: the last tile repeats the last row and does not store the copies. Columns: W is padded with zeros to
 * whole panels; a panel that passes the end of y, or in which a vector crosses the end of a head, is stored lane by
 * lane. k: beyond BLOCK_K the sums are parked and picked up by the next block: in y, or, where y has not the bits for
 * them, in a private array that serves PARKED_ROWS rows at a time.
 *
 * x and y lie in memory as storage (inc/types.clh); the row tile, W and all arithmetic are float. */
#include "inc/lanes.clh"
#include "inc/types.clh"
#include "inc/vendor.clh"
#include "shared/args.h"

/* MR: rows of a register tile, 1..16. NV: vectors in each of them, 1..4. MR * NV sums, NV weights and one broadcast
 * live in registers; fewer than 8 sums cannot hide the latency of the multiply-add. */
#if MR < 1 || MR > 16
#error "MR must be in 1..16"
#endif
#if NV < 1 || NV > 4
#error "NV must be in 1..4"
#endif
/* BLOCK_K: steps of k between two visits to y; multiple of VW, 64..4096. Private: MR * (BLOCK_K + VW) floats. */
#if BLOCK_K % VW != 0 || BLOCK_K < 64 || BLOCK_K > 4096
#error "BLOCK_K must be a multiple of VW in 64..4096"
#endif
/* NR: columns of a panel and of a register tile. */
#define NR (NV * VW)
/* MAX_COLUMNS: greatest columns_per_item; multiple of NR. Private: MAX_COLUMNS longs. */
#if MAX_COLUMNS % NR != 0 || MAX_COLUMNS < NR
#error "MAX_COLUMNS must be a multiple of NV * VW"
#endif

/* PARKED_ROWS: rows that go through all of k before the next ones start; multiple of MR. Private, with storage of 16
 * bits: PARKED_ROWS * MAX_COLUMNS floats. */
#define PARKED_ROWS (4 * MR)
#define NARROW (STORAGE_F16 || STORAGE_BF16)

/* No multiple of a page, so that the rows of the tile do not compete for the same cache sets. */
#define TILE_STRIDE (BLOCK_K + VW)

/* BODY_NOINLINE is set where the driver emits a kernel's code several times: the body then exists once, as a callee. It
 * gets the group's number as an argument, because pocl inlines whatever asks for that itself. */
#ifdef BODY_NOINLINE
#define BODY __attribute__((noinline)) void
#else
#define BODY void
#endif

/* Where the columns first..end - 1 lie in y, without their row; and of each panel, whether the lanes of each of its
 * vectors lie side by side. */
void place_columns(const clattn_gemm_args *a, int first, int end, long *column_at, char *whole) {
    const int heads = a->part_columns / a->width; /* of one part */
    int d = first % a->width, head = first % a->part_columns / a->width;
    long part_at = first / a->part_columns * a->y_part;

    for (int i = 0; i < end - first; i++, d++) {
        if (i % NR == 0) whole[i / NR] = first + i + NR <= a->n;
        if (d == a->width) {
            d = 0;
            if (++head == heads) {
                head = 0;
                part_at += a->y_part;
            }
            if (i % VW != 0) whole[i / NR] = 0;
        }
        column_at[i] = part_at + head * a->y.head + d;
    }
}

/* k_count elements of one row of x. */
void copy_row(const __global storage *from, float *to, int k_count) {
    int k = 0;
    for (; k + VW <= k_count; k += VW) STORE(load_lanes(from + k), to + k);
    for (; k < k_count; k++) to[k] = load1(from + k);
}

BODY gemm_cpu_body(int row_first, int row_end, int column_block, const clattn_gemm_args a, const __global storage *x,
                   const __global float *w, const __global float *bias, __global storage *y) {
    const int column_first = column_block * a.columns_per_item;
    const int column_end = min(a.n, column_first + a.columns_per_item);
    float tile[MR * TILE_STRIDE] __attribute__((aligned(64))); /* (MR, BLOCK_K) */
    long column_at[MAX_COLUMNS];
    char whole[MAX_COLUMNS / NR];
    float parked[NARROW ? PARKED_ROWS * MAX_COLUMNS : VW] __attribute__((aligned(64))); /* (row_end - row_first, ..) */

    place_columns(&a, column_first, column_end, column_at, whole);

    for (int k_first = 0; k_first < a.k; k_first += BLOCK_K) {
        const int k_count = min(BLOCK_K, a.k - k_first);
        const int add_to_y = (!NARROW && k_first > 0) || a.accumulate;
        const int park = NARROW && k_first + k_count < a.k, resume = NARROW && k_first > 0;

        for (int m = row_first; m < row_end; m += MR) {
            const int rows_left = row_end - m;
            long row_at[MR]; /* offset in y of each row */
            for (int i = 0; i < MR; i++) {
                const int row = min(m + i, row_end - 1), b = row / a.rows, s = row % a.rows;
                row_at[i] = a.y.offset + b * a.y.batch + s * a.y.row;
                copy_row(x + a.x.offset + b * a.x.batch + s * a.x.row + k_first, tile + i * TILE_STRIDE, k_count);
            }

            for (int c = column_first; c < column_end; c += NR) {
                const __global float *panel = w + (long)c * a.k + (long)k_first * NR; /* (k_count, NR) */
                const long *at = column_at + (c - column_first);                      /* (NR) */
                float *kept = parked + (NARROW ? (m - row_first) * MAX_COLUMNS + (c - column_first) : 0);
                vec sum[MR][NV];
                UNROLL
                for (int j = 0; j < NV; j++) {
                    const vec start = k_first == 0 && a.has_bias ? LOAD(bias + c + j * VW) : (vec)0.0f;
                    UNROLL
                    for (int i = 0; i < MR; i++)
                        sum[i][j] = resume ? VEC_AT(kept + i * MAX_COLUMNS + j * VW) : start;
                }

                for (int k = 0; k < k_count; k++) {
                    vec weight[NV];
                    UNROLL
                    for (int j = 0; j < NV; j++) weight[j] = LOAD(panel + k * NR + j * VW);
                    UNROLL
                    for (int i = 0; i < MR; i++) {
                        const vec value = (vec)tile[i * TILE_STRIDE + k];
                        UNROLL
                        for (int j = 0; j < NV; j++) sum[i][j] = muladd(value, weight[j], sum[i][j]);
                    }
                }

                if (park) {
                    UNROLL
                    for (int i = 0; i < MR; i++) {
                        UNROLL
                        for (int j = 0; j < NV; j++) VEC_AT(kept + i * MAX_COLUMNS + j * VW) = sum[i][j];
                    }
                } else if (whole[(c - column_first) / NR]) {
                    UNROLL
                    for (int i = 0; i < MR; i++) {
                        __global storage *row = y + row_at[i];
                        if (i >= rows_left) continue;
                        UNROLL
                        for (int j = 0; j < NV; j++) {
                            __global storage *to = row + at[j * VW];
                            store_lanes(add_to_y ? sum[i][j] + load_lanes(to) : sum[i][j], to);
                        }
                    }
                } else {
                    float lanes[MR * NR] __attribute__((aligned(64)));
                    UNROLL
                    for (int i = 0; i < MR; i++) {
                        UNROLL
                        for (int j = 0; j < NV; j++) STORE(sum[i][j], lanes + i * NR + j * VW);
                    }
                    for (int i = 0; i < min(MR, rows_left); i++)
                        for (int j = 0; j < min(NR, column_end - c); j++) {
                            __global storage *to = y + row_at[i] + at[j];
                            store1(add_to_y ? lanes[i * NR + j] + load1(to) : lanes[i * NR + j], to);
                        }
                }
            }
        }
    }
}

__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
gemm_cpu(const clattn_gemm_args a,   /* grid: (ceil(m / rows_per_item), ceil(n / columns_per_item))  */
         const __global storage *x,  /* (m, k) at a.x                                                */
         const __global float *w,    /* (ceil(n / NR), k, NR) packed panels                          */
         const __global float *bias, /* (ceil(n / NR) * NR), zeros where there is none               */
         __global storage *y)        /* (m, n) at a.y; overwritten whatever it holds, or added to    */
{
    const int row_first = (int)get_group_id(0) * a.rows_per_item, row_end = min(a.m, row_first + a.rows_per_item);
    const int rows = NARROW ? PARKED_ROWS : a.rows_per_item;
    for (int first = row_first; first < row_end; first += rows)
        gemm_cpu_body(first, min(row_end, first + rows), (int)get_group_id(1), a, x, w, bias, y);
}
