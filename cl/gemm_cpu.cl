/* Projection y = act(x W^T + bias) on CPU devices: register tiles of explicit vectors, one work-item per work-group,
 * neither local memory nor barriers.
 *
 *         k ->                   NR columns   NR columns
 *        +-----------+          +------------+------------+     One work-item owns rows_per_item rows and
 *   MR   | row tile  |    x   k | panel of W | next panel |     columns_per_item columns of y. It copies MR rows of x,
 *   rows | (a copy)  |        | | (k, NR)    |            |     walks the panels of its columns from left to right with
 *        +-----------+        v |            |            |     that tile, then takes the next MR rows. The row tile
 *        | next tile |          +------------+------------+     stays in the first-level cache, the item's part of W in
 *        +-----------+                                          the second, MR x NV vectors of sums in registers. Each
 *                                                               panel's pass asks for one row of the next row tile.
 *
 * Tails. Rows: the last tile repeats the last row and does not store the copies. Columns: W is padded with zeros to
 * whole panels; a panel that passes the end of y, or in which a vector crosses the end of a head, is stored lane by
 * lane. k: beyond BLOCK_K it is walked in blocks of nearly equal length, and the item parks its sums in between. Each
 * block is summed for itself, which keeps the error of a long k small.
 *
 * x and y lie in memory as storage (inc/types.clh); the row tile, W and all arithmetic are float. */
#include "inc/activation.clh"
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
/* BLOCK_K: greatest number of steps of k at a time; multiple of VW, 64..4096. Private: MR * (BLOCK_K + VW) floats. */
#if BLOCK_K % VW != 0 || BLOCK_K < 64 || BLOCK_K > 4096
#error "BLOCK_K must be a multiple of VW in 64..4096"
#endif
/* NR: columns of a panel and of a register tile. */
#define NR (NV * VW)
/* MAX_COLUMNS: greatest columns_per_item; multiple of NR. Private: MAX_COLUMNS longs. */
#if MAX_COLUMNS % NR != 0 || MAX_COLUMNS < NR
#error "MAX_COLUMNS must be a multiple of NV * VW"
#endif
/* PARKED: greatest rows_per_item (in whole tiles) * columns_per_item (in whole panels) with more than one block of k.
 * Private: as many floats. */
#if PARKED < MR * NR
#error "PARKED must have room for a register tile"
#endif

/* No multiple of a page, so that the rows of the tile do not compete for the same cache sets. */
#define TILE_STRIDE (BLOCK_K + VW)

/* BODY_NOINLINE is set where the driver emits a kernel's code several times: the body then exists once, as a callee. It
 * gets the group's number as an argument, because pocl inlines whatever asks for that itself. */
#ifdef BODY_NOINLINE
#define BODY __attribute__((noinline)) void
#else
#define BODY void
#endif

/* A column on its way through heads and parts. */
typedef struct column {
    int d, head, heads; /* heads of one part */
    long part_at;
} column;

static inline void advance(column *c, const clattn_gemm_args *a, int count) {
    c->d += count;
    while (c->d >= a->width) {
        c->d -= a->width;
        if (++c->head == c->heads) {
            c->head = 0;
            c->part_at += a->y_part;
        }
    }
}

/* Where the columns first..end - 1 lie in y, without their row: of each panel whether its vectors are whole, which
 * means that their lanes lie side by side, and the places of its vectors if they are, else of all its columns. */
static inline void place_columns(const clattn_gemm_args *a, int first, int end, long *column_at, char *whole) {
    column at;
    at.d = first % a->width;
    at.head = first % a->part_columns / a->width;
    at.heads = a->part_columns / a->width;
    at.part_at = first / a->part_columns * a->y_part;
    for (int panel = 0; first + panel * NR < end; panel++, column_at += NR) {
        const int count = min(NR, end - first - panel * NR);
        column lane = at;
        whole[panel] = count == NR;
        for (int j = 0; j < NV; j++) {
            if (at.d + VW > a->width) whole[panel] = 0;
            column_at[j * VW] = at.part_at + at.head * a->y.head + at.d;
            advance(&at, a, VW);
        }
        for (int i = 0; i < count && !whole[panel]; i++) {
            column_at[i] = lane.part_at + lane.head * a->y.head + lane.d;
            advance(&lane, a, 1);
        }
    }
}

static inline long row_offset(const clattn_place *place, int rows, int row) {
    return place->offset + row / rows * place->batch + row % rows * place->row;
}

/* k_count elements of one row of x; `to` is aligned. */
static inline void copy_row(const __global storage *from, float *to, int k_count) {
    int k = 0;
    for (; k + VW <= k_count; k += VW) VEC_AT(to + k) = load_lanes(from + k);
    for (; k < k_count; k++) to[k] = load1(from + k);
}

/* A whole tile's rows to y, at the places of its vectors. */
static inline void store_vectors(const vec sum[MR][NV], const long *row_at, int rows, const long *at, int accumulate,
                                 __global storage *y) {
    UNROLL
    for (int i = 0; i < MR; i++) {
        __global storage *row = y + row_at[i];
        if (i >= rows) continue;
        UNROLL
        for (int j = 0; j < NV; j++) {
            __global storage *to = row + at[j * VW];
            store_lanes(accumulate ? sum[i][j] + load_lanes(to) : activate(sum[i][j]), to);
        }
    }
}

/* The same lane by lane, for the first `columns` of the panel. */
static inline void store_columns(const vec sum[MR][NV], const long *row_at, int rows, const long *at, int columns,
                                 int accumulate, __global storage *y) {
    float lanes[MR * NR] __attribute__((aligned(64)));
    UNROLL
    for (int i = 0; i < MR; i++) {
        UNROLL
        for (int j = 0; j < NV; j++) VEC_AT(lanes + i * NR + j * VW) = accumulate ? sum[i][j] : activate(sum[i][j]);
    }
    for (int i = 0; i < min(MR, rows); i++)
        for (int j = 0; j < columns; j++) {
            __global storage *to = y + row_at[i] + at[j];
            store1(accumulate ? lanes[i * NR + j] + load1(to) : lanes[i * NR + j], to);
        }
}

BODY gemm_cpu_body(int row_block, int column_block, const clattn_gemm_args a, const __global storage *x,
                   const __global float *w, const __global float *bias, __global storage *y) {
    const int row_first = row_block * a.rows_per_item;
    const int row_end = min(a.m, row_first + a.rows_per_item);
    const int column_first = column_block * a.columns_per_item;
    const int column_end = min(a.n, column_first + a.columns_per_item);
    const int blocks = (a.k + BLOCK_K - 1) / BLOCK_K, block_k = ((a.k + blocks - 1) / blocks + VW - 1) / VW * VW;
    float tile[MR * TILE_STRIDE] __attribute__((aligned(64))); /* (MR, BLOCK_K) */
    float parked[PARKED] __attribute__((aligned(64)));         /* (tiles, panels, MR, NR) */
    long column_at[MAX_COLUMNS];
    char whole[MAX_COLUMNS / NR];

    place_columns(&a, column_first, column_end, column_at, whole);

    for (int k_first = 0; k_first < a.k; k_first += block_k) {
        const int k_count = min(block_k, a.k - k_first);
        const bool ends = k_first + k_count == a.k;
        float *park = parked;

        for (int m = row_first; m < row_end; m += MR) {
            long row_at[MR]; /* offset in y of each row */
            for (int i = 0; i < MR; i++) {
                const int row = min(m + i, row_end - 1);
                row_at[i] = row_offset(&a.y, a.rows, row);
                copy_row(x + row_offset(&a.x, a.rows, row) + k_first, tile + i * TILE_STRIDE, k_count);
            }

            for (int c = column_first; c < column_end; c += NR) {
                const __global float *panel = w + (long)c * a.k + (long)k_first * NR; /* (k_count, NR) */
                const long *at = column_at + (c - column_first);                      /* (NR) */
                vec sum[MR][NV];
                UNROLL
                for (int j = 0; j < NV; j++) {
                    const vec start = k_first == 0 && a.has_bias ? LOAD(bias + c + j * VW) : (vec)0.0f;
                    UNROLL
                    for (int i = 0; i < MR; i++) sum[i][j] = start;
                }

                const int ahead = min(m + MR + (c - column_first) / NR % MR, row_end - 1);
                const __global storage *next = x + row_offset(&a.x, a.rows, ahead) + k_first;
                for (int k = 0; k < k_count; k++) {
                    vec weight[NV];
                    fetch_ahead(next + k);
                    UNROLL
                    for (int j = 0; j < NV; j++) weight[j] = LOAD(panel + k * NR + j * VW);
                    UNROLL
                    for (int i = 0; i < MR; i++) {
                        const vec value = (vec)tile[i * TILE_STRIDE + k];
                        UNROLL
                        for (int j = 0; j < NV; j++) sum[i][j] = muladd(value, weight[j], sum[i][j]);
                    }
                }

                if (k_first > 0) {
                    UNROLL
                    for (int i = 0; i < MR; i++) {
                        UNROLL
                        for (int j = 0; j < NV; j++) sum[i][j] += VEC_AT(park + i * NR + j * VW);
                    }
                }
                if (!ends) {
                    UNROLL
                    for (int i = 0; i < MR; i++) {
                        UNROLL
                        for (int j = 0; j < NV; j++) VEC_AT(park + i * NR + j * VW) = sum[i][j];
                    }
                } else if (whole[(c - column_first) / NR]) {
                    store_vectors(sum, row_at, row_end - m, at, a.accumulate, y);
                } else {
                    store_columns(sum, row_at, row_end - m, at, min(NR, column_end - c), a.accumulate, y);
                }
                if (blocks > 1) park += MR * NR;
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
    gemm_cpu_body((int)get_group_id(0), (int)get_group_id(1), a, x, w, bias, y);
}
