/* Projection y = x W^T + bias with tiles in local memory, for any OpenCL 1.2 device.
 *
 *          k ->                        BLOCK_N
 *         +--------+----+           +---------+---------+    A work-group owns BLOCK_M x BLOCK_N elements of y. For
 *         | x tile |tail|         k | W tile  |  next   |    each BLOCK_K steps of k it brings both tiles into local
 * BLOCK_M |        |    |    x    | |(BLOCK_K,|         |    memory; each work-item then adds to its PER_Y x PER_X
 *         +--------+----+         v | BLOCK_N)|         |    elements, which lie ITEMS_Y rows and ITEMS_X columns
 *         |  next  |    |           +---------+---------+    apart, so that neighbours read and write neighbouring
 *         +--------+----+           |  tail   |         |    words.
 *                                   +---------+---------+
 * x and y lie in memory as storage (inc/types.clh); the tiles, the weight and all arithmetic are float.
 *
 * Tails. Rows: loads repeat the last row, stores are guarded. Columns and k: the weight is stored transposed, (k, n),
 * with zeros up to a multiple of WEIGHT_PAD and of BLOCK_K; beyond k the x tile holds zeros, whatever is in memory. */
#include "inc/gemm.clh"
#include "inc/local.clh"
#include "inc/types.clh"
#include "inc/vendor.clh"

/* ITEMS_X, ITEMS_Y: the work-group, 8 or 16 each way. PER_X, PER_Y: columns and rows per work-item, 4 by default. */
#if ITEMS_X != 8 && ITEMS_X != 16
#error "ITEMS_X must be 8 or 16"
#endif
#if ITEMS_Y != 8 && ITEMS_Y != 16
#error "ITEMS_Y must be 8 or 16"
#endif
#define PER_X 4
#define PER_Y 4
#define ITEMS (ITEMS_X * ITEMS_Y)
/* BLOCK_M, BLOCK_N: rows and columns of a work-group's block of y. */
#define BLOCK_M (ITEMS_Y * PER_Y)
#define BLOCK_N (ITEMS_X * PER_X)
/* BLOCK_K: steps of k per tile: 8 or 16. Local: BLOCK_K * (BLOCK_M + 1 + BLOCK_N) floats, 8.1 KB with 16 x 16 items. */
#if BLOCK_K != 8 && BLOCK_K != 16
#error "BLOCK_K must be 8 or 16"
#endif
/* WEIGHT_PAD: columns that the stored weight is padded to; a multiple of BLOCK_N. */
#if WEIGHT_PAD % BLOCK_N != 0
#error "WEIGHT_PAD must be a multiple of ITEMS_X * PER_X"
#endif

#define X_STRIDE (BLOCK_M + 1) /* odd: the transposing stores of the x tile fall into different banks */
#define X_LOADS (BLOCK_M * BLOCK_K / ITEMS)
#define W_LOADS (BLOCK_N * BLOCK_K / ITEMS)

__kernel __attribute__((reqd_work_group_size(ITEMS_X, ITEMS_Y, 1))) void
gemm_tiled(const clattn_gemm_args a,   /* grid: work-groups for blocks from a.first_block_m, _n on         */
           const __global storage *x,  /* (m, k) at a.x                                                     */
           const __global float *w,    /* (k up to a multiple of BLOCK_K, n up to a multiple of WEIGHT_PAD) */
           const __global float *bias, /* (n), read when a.has_bias                                         */
           __global storage *y)        /* (m, n) at a.y; overwritten whatever it holds, or added to         */
{
    __local float x_tile[BLOCK_K * X_STRIDE]; /* (BLOCK_K, BLOCK_M) */
    __local float w_tile[BLOCK_K * BLOCK_N];  /* (BLOCK_K, BLOCK_N) */
    const int item_x = (int)get_local_id(0), item_y = (int)get_local_id(1), item = item_y * ITEMS_X + item_x;
    const int2 start = block_start(&a, BLOCK_M, BLOCK_N);
    const int m_first = start.x, n_first = start.y;
    const long w_row = (a.n + WEIGHT_PAD - 1) / WEIGHT_PAD * WEIGHT_PAD;
    const int load_k = item % BLOCK_K; /* the column of the x tile that this item always loads */
    POISON(x_tile, item, ITEMS);
    POISON(w_tile, item, ITEMS);

    const __global storage *x_from[X_LOADS];
    UNROLL
    for (int i = 0; i < X_LOADS; i++)
        x_from[i] = x + row_offset(&a.x, a.rows, min(a.m - 1, m_first + (i * ITEMS + item) / BLOCK_K)) + load_k;

    float sum[PER_Y][PER_X];
    UNROLL
    for (int i = 0; i < PER_Y; i++) {
        UNROLL
        for (int j = 0; j < PER_X; j++) sum[i][j] = 0.0f;
    }

    for (int k_first = 0; k_first < a.k; k_first += BLOCK_K) {
        UNROLL
        for (int i = 0; i < X_LOADS; i++)
            x_tile[load_k * X_STRIDE + (i * ITEMS + item) / BLOCK_K] =
                k_first + load_k < a.k ? load1(x_from[i] + k_first) : 0.0f;
        UNROLL
        for (int i = 0; i < W_LOADS; i++) {
            const int at = i * ITEMS + item;
            w_tile[at] = w[(k_first + at / BLOCK_N) * w_row + n_first + at % BLOCK_N];
        }
        barrier(CLK_LOCAL_MEM_FENCE);

        UNROLL_DEPTH
        for (int k = 0; k < BLOCK_K; k++) {
            float weight[PER_X];
            UNROLL
            for (int j = 0; j < PER_X; j++) weight[j] = w_tile[k * BLOCK_N + j * ITEMS_X + item_x];
            UNROLL
            for (int i = 0; i < PER_Y; i++) {
                const float value = x_tile[k * X_STRIDE + i * ITEMS_Y + item_y];
                UNROLL
                for (int j = 0; j < PER_X; j++) sum[i][j] = muladd(value, weight[j], sum[i][j]);
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }

    UNROLL
    for (int j = 0; j < PER_X; j++) {
        const int c = n_first + j * ITEMS_X + item_x;
        if (c >= a.n) continue;
        const float start = a.has_bias ? bias[c] : 0.0f;
        const int in_part = c % a.part_columns;
        const long column_at = c / a.part_columns * a.y_part + in_part / a.width * a.y.head + in_part % a.width;
        UNROLL
        for (int i = 0; i < PER_Y; i++) {
            const int m = m_first + i * ITEMS_Y + item_y;
            if (m >= a.m) continue;
            __global storage *to = y + row_offset(&a.y, a.rows, m) + column_at;
            const float value = sum[i][j] + start;
            store1(a.accumulate ? load1(to) + value : value, to);
        }
    }
}
