/* Projection y = x W^T + bias with tiles in local memory, for any OpenCL 1.2 device.
 *
 *          k ->                        BLOCK_N
 *         +--------+----+           +---------+---------+    A work-group owns BLOCK_M x BLOCK_N elements of y. For
 *         | x tile |tail|         k | W tile  |  next   |    each DEPTH steps of k it brings both tiles into local
 * BLOCK_M |        |    |    x    | |(DEPTH,  |         |    memory; each work-item then adds to its ROWS rows, which
 *         +--------+----+         v | BLOCK_N)|         |    lie TILE_Y apart, of VECTORS times four columns, which
 *         |  next  |    |           +---------+---------+    lie 4 * TILE_X apart.
 *         +--------+----+           |  tail   |         |
 *                                   +---------+---------+
 * x and y lie in memory as storage (inc/types.clh); the tiles, the weight and all arithmetic are float.
 *
 * Tails. Rows: loads repeat the last row, stores are guarded. Columns and k: the weight is stored transposed, (k, n),
 * with zeros up to a multiple of BLOCK_N and of DEPTH; beyond k the x tile holds zeros, whatever is in memory.
 *
 * Tile macros, chosen by the host half:
 *   TILE_X, TILE_Y: the work-group, 8 or 16 items each way.
 *   ROWS: rows of an item, 4 or 8.  VECTORS: its float4 of columns, 1 or 2. Registers: 4 * ROWS * VECTORS sums.
 *   DEPTH: steps of k per tile; a multiple of 4, and of SUBGROUP where sub-groups share rows; 16 in use.
 * What follows from them:
 *   ITEMS: of the work-group.  BLOCK_M, BLOCK_N: rows and columns of its block of y.
 *   X_LOADS, W_LOADS: float4 that an item brings of each tile.
 *   X_LD, W_LD: float4 per row of the tiles; one more than needed of x, so that neighbouring rows start in other banks.
 *   Local: 16 * (BLOCK_M * X_LD + DEPTH * W_LD) bytes, 18 KB with 16 x 16 items of 8 x 8. */
#include "inc/gemm.clh"
#include "inc/local.clh"
#include "inc/types.clh"
#include "inc/vendor.clh"

#if (TILE_X != 8 && TILE_X != 16) || (TILE_Y != 8 && TILE_Y != 16)
#error "TILE_X and TILE_Y must be 8 or 16"
#endif
#define ITEMS (TILE_X * TILE_Y)
#define BLOCK_M (TILE_Y * ROWS)
#define BLOCK_N (TILE_X * VECTORS * 4)
#define X_LD (DEPTH / 4 + 1)
#define W_LD (TILE_X * VECTORS)
#define X_LOADS (BLOCK_M * (DEPTH / 4) / ITEMS)
#define W_LOADS (DEPTH * W_LD / ITEMS)
#if DEPTH % 4 != 0 || X_LOADS * ITEMS != BLOCK_M * (DEPTH / 4) || W_LOADS * ITEMS != DEPTH * W_LD
#error "DEPTH must be a multiple of 4, and both tiles a multiple of the work-group"
#endif

#define SHARED_ROWS (HAVE_BROADCAST(TILE_X) && DEPTH % SUBGROUP == 0)
#include "inc/tile_product.clh" /* after what it needs */

#if VECTORS == 1
#define EACH_VECTOR(DO) DO(0)
#define UNROLL_PRODUCT UNROLL_TERMS
#elif VECTORS == 2
#define EACH_VECTOR(DO) DO(0) DO(1)
#define UNROLL_PRODUCT NO_UNROLL /* enough to do in one step, and no registers for what the next one reads */
#else
#error "VECTORS must be 1 or 2"
#endif

/* All columns of an item's rows. */
typedef struct block_tile {
    sum_tile c0, c1;
} block_tile;

/* Where column c of a row of y lies. */
static inline clattn_i64 column_offset(const clattn_gemm_args *a, int c) {
    const int in_part = c % a->part_columns;
    return c / a->part_columns * a->y_part + in_part / a->width * a->y.head + in_part % a->width;
}

/* Four neighbouring columns of a row; together: of the same head, and all of them exist. */
static inline void put4(const clattn_gemm_args *a, __global storage *row, int c, float4 x, bool together) {
    if (together) {
        __global storage *to = row + column_offset(a, c);
        store4(a->accumulate ? load4(to) + x : x, to);
        return;
    }
    NO_UNROLL
    for (int j = 0; j < 4 && c + j < a->n; j += ROLLED(1)) {
        __global storage *to = row + column_offset(a, c + j);
        const float value = j == 0 ? x.x : j == 1 ? x.y : j == 2 ? x.z : x.w;
        store1(a->accumulate ? load1(to) + value : value, to);
    }
}

/* Four columns of an item's rows, from (m, c) on. */
INLINE void put_rows(const clattn_gemm_args *a, __global storage *y, int m, int c, const sum_tile *sums,
                            const __global float4 *bias) {
    if (c >= a->n) return;
    const float4 start = a->has_bias ? bias[c / 4] : (float4)(0.0f);
    const bool together = c + 4 <= a->n && a->width % 4 == 0;
#define PUT_ROW(n)                                                                                                     \
    if (m + n * TILE_Y < a->m)                                                                                         \
        put4(a, y + row_offset(&a->y, a->rows, m + n * TILE_Y), c, float4_of(sums->r##n) + start, together);
    EACH_ROW(PUT_ROW)
}

__kernel PIN_SUBGROUP __attribute__((reqd_work_group_size(ITEMS, 1, 1))) void
gemm_tiled(const clattn_gemm_args a,    /* grid: work-groups for blocks from a.first_block_m, _n on      */
           const __global storage *x,   /* (m, k) at a.x                                                  */
           const __global float4 *w,    /* (k up to a multiple of DEPTH, n up to a multiple of BLOCK_N)   */
           const __global float4 *bias, /* (n up to a multiple of BLOCK_N), read when a.has_bias          */
           __global storage *y)         /* (m, n) at a.y; overwritten whatever it holds, or added to      */
{
    __local float4 x_tile[BLOCK_M * X_LD]; /* (BLOCK_M, DEPTH), padded rows */
    __local float4 w_tile[DEPTH * W_LD];   /* (DEPTH, BLOCK_N)              */
    const int item = (int)get_local_id(0), tx = item % TILE_X, ty = item / TILE_X;
    const int2 start = block_start(&a, BLOCK_M, BLOCK_N);
    const int m_first = start.x, n_first = start.y;
    const long w_row = (a.n + BLOCK_N - 1) / BLOCK_N * W_LD;
    /* what an item brings of x: always the same four columns, of every (ITEMS / (DEPTH / 4))th row */
    const int load_row = item / (DEPTH / 4), load_column = item % (DEPTH / 4);
    POISON(x_tile, item, ITEMS);
    POISON(w_tile, item, ITEMS);

    const __global storage *x_from[X_LOADS];
    UNROLL
    for (int i = 0; i < X_LOADS; i++) {
        const int m = min(a.m - 1, m_first + load_row + i * (ITEMS / (DEPTH / 4)));
        x_from[i] = x + row_offset(&a.x, a.rows, m) + 4 * load_column;
    }
    const __global float4 *w_from = w + (item / W_LD * w_row + n_first / 4 + item % W_LD);

    block_tile sums;
#define CLEAR_ROW(n) sums.c0.r##n = sums.c1.r##n = four_of((float4)(0.0f));
    EACH_ROW(CLEAR_ROW)
    NO_UNROLL
    for (int terms = a.k - 4 * load_column, stop = -4 * load_column; terms > stop; terms -= DEPTH) {
        UNROLL
        for (int i = 0; i < X_LOADS; i++) {
            x_tile[(load_row + i * (ITEMS / (DEPTH / 4))) * X_LD + load_column] = load4_part(x_from[i], terms);
            x_from[i] += DEPTH;
        }
        UNROLL
        for (int i = 0; i < W_LOADS; i++) w_tile[i * ITEMS + item] = w_from[i * (ITEMS / W_LD) * w_row];
        w_from += DEPTH * w_row;
        barrier(CLK_LOCAL_MEM_FENCE);

        UNROLL_PRODUCT
        for (int d = 0; d < DEPTH; d += STEP(DEPTH)) {
            const left_tile left = load_left(x_tile + (ty * X_LD + d / 4), X_LD);
#define ADD_VECTOR(n) add_terms(&sums.c##n, &left, w_tile + (d * W_LD + n * TILE_X + tx), W_LD);
            EACH_VECTOR(ADD_VECTOR)
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }

#define PUT_VECTOR(n) put_rows(&a, y, m_first + ty, n_first + 4 * (n * TILE_X + tx), &sums.c##n, bias);
    EACH_VECTOR(PUT_VECTOR)
}
