/* Projection y = act(x W^T + bias) on matrix engines: 16-bit storage, products of 16-bit operands summed in float.
 *
 *           depth ->                  BLOCK_N columns
 *         +-------+------+         +-----------------+   A work-group owns BLOCK_M x BLOCK_N elements of y, each of its
 * wave 0  | x, in | next |      |  |      W tile     |   WAVES waves QT tiles of MMA_M rows and all the columns. For
 * wave 1  | regi- |      |  x   v  +-----------------+   each BLOCK_K steps of depth W comes through local memory, as
 *  ...    | sters |      |         |       next      |   keys do in attention; each lane loads its own part of x.
 *         +-------+------+         +-----------------+
 *
 * The float32 weight is kept as a sum of 16-bit parts, so that no more of it is lost than a float32 sum loses:
 * W = (W0 + W1 + ...) * factor, with one power of two per column. The parts of a column lie behind each other, and x is
 * walked once for each of them. A weight that fits the storage type has one part.
 *
 * Tails. Rows: loads give zeros, stores are guarded. Columns and depth: the weight is padded with zeros to BLOCK_N and
 * BLOCK_K; beyond k the lanes put zeros in the place of x, whatever is in memory.
 *
 * Macros chosen by the host half, beside those of tile_mma.clh:
 *   WAVES: waves per work-group.
 *   QT: row tiles per wave; a tile of W is used that often.
 *   BLOCK_N: columns per work-group, a multiple of MMA_N and of 16: what tile_mma.clh calls BLOCK_KV.
 *   BLOCK_K: steps of depth in local memory at once, a multiple of 16: its HEAD_DIM.
 *   STAGES: 2 when the next tile of W travels into local memory meanwhile.
 *   PREFETCH: 1 when it travels through registers meanwhile. */
#define BLOCK_KV BLOCK_N
#define HEAD_DIM BLOCK_K
#define VALUE_DIM 0
#define VW 4
#include "inc/activation.clh"
#include "inc/gemm.clh"
#include "inc/local.clh"
#include "inc/no_features.clh"
#include "inc/tile_mma.clh"

#if BLOCK_N % MMA_N != 0 || BLOCK_N % 16 != 0 || BLOCK_K % 16 != 0
#error "BLOCK_N must be a multiple of MMA_N and of 16, BLOCK_K of 16"
#endif
#define WAVE_ROWS (MMA_M * QT)
#define BLOCK_M (WAVE_ROWS * WAVES)
#define SUM_PITCH (BLOCK_N + 4)                             /* floats between rows of sums on their way out */
#define SUM_TILE (WAVES * MMA_M * SUM_PITCH * 2)            /* in elements of 16 bits */
#define WEIGHT_TILES (MMA_STAGES * (KEY_TILE + VALUE_TILE)) /* likewise; sums take their place at the end */
#define LOCAL_ELEMENTS (WEIGHT_TILES > SUM_TILE ? WEIGHT_TILES : SUM_TILE)

/* Four neighbouring elements of y from column c on, which lie at `sum`; those behind the last column are none. */
static inline void put_four(const clattn_gemm_args *a, const __global float *bias, const __global float *factor,
                            __global storage *row, int c, __local float *sum) {
    float4 value = vload4(0, sum) * vload4(0, factor + c); /* both are padded to whole blocks of columns */
    if (a->has_bias) value += vload4(0, bias + c);
    value = activate(value);
    const int in_part = c % a->part_columns;
    if (in_part % a->width + 4 <= a->width && c + 4 <= a->n) {
        __global storage *to =
            row + (c / a->part_columns * a->y_part + in_part / a->width * a->y.head + in_part % a->width);
        mma_store4(a->accumulate ? load4(to) + value : value, to);
        return;
    }
    vstore4(value, 0, sum);
    MMA_ROLL
    for (int i = c; i < c + 4 && i < a->n; i++) {
        const int here = i % a->part_columns;
        __global storage *to = row + (i / a->part_columns * a->y_part + here / a->width * a->y.head + here % a->width);
        store1(a->accumulate ? load1(to) + sum[i - c] : sum[i - c], to);
    }
}

__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) MMA_ATTRIBUTES void
gemm_matrix(const clattn_gemm_args a,   /* grid: work-groups for blocks from a.first_block_m, _n on             */
            const __global storage *x,  /* (m, k) at a.x                                                         */
            const __global ushort *w,   /* (n up to a multiple of BLOCK_N, weight_parts, k up to one of BLOCK_K) */
            const __global float *bias, /* (2, n up to a multiple of BLOCK_N): the bias, the factors             */
            __global storage *y)        /* (m, n) at a.y; overwritten whatever it holds, or added to             */
{
    __local __attribute__((aligned(128))) ushort tiles[LOCAL_ELEMENTS];
    mma_context context, *c = &context;
#if MMA_EXCHANGE
    __local __attribute__((aligned(16))) uint exchange[MMA_EXCHANGE * WAVES];
    MMA_START(context, tiles, exchange);
    POISON(exchange, c->item, ITEMS);
#else
    MMA_START(context, tiles, 0);
#endif
    if (!MMA_LANES_MATCH()) return; /* nothing is written, which verification notices */
    POISON(tiles, c->item, ITEMS);
    const int2 start = block_start(&a, BLOCK_M, BLOCK_N);
    const int row0 = start.x + c->wave * WAVE_ROWS, column0 = start.y;
    const int depth = (a.k + BLOCK_K - 1) / BLOCK_K * BLOCK_K, steps = a.weight_parts * depth / BLOCK_K;
    const __global ushort *own[QT][MMA_SLOTS]; /* this lane's rows of x; NULL beyond the last */
    MMA_UNROLL
    for (int t = 0; t < QT; t++) {
        MMA_UNROLL
        for (int slot = 0; slot < MMA_SLOTS; slot++) {
            const int m = row0 + t * MMA_M + mma_slot_row(c, slot);
            own[t][slot] = m < a.m ? (const __global ushort *)x + row_offset(&a.x, a.rows, m) : 0;
        }
    }
    const bool wide = mma_is_wide((const __global ushort *)x + a.x.offset, a.x.row) && (a.x.batch & 7) == 0;
    mma_source source = {.wide = true, .key_row = a.weight_parts * depth};
    source.keys = w + (clattn_i64)column0 * source.key_row;
    const attn_head all = {.key_end = BLOCK_N}; /* every column of the block exists */

    mma_c sums[QT][KEY_TILES];
    MMA_UNROLL
    for (int t = 0; t < QT; t++) {
        MMA_UNROLL
        for (int n = 0; n < KEY_TILES; n++) mma_zero(&sums[t][n]);
    }
    mma_stage in_flight;
    int stage = 0, k0 = 0;
    if (steps > 0) mma_fetch(c, &in_flight, &source, &all, 0, stage);
    for (int step = 0; step < steps; step++) {
        mma_a part[KEY_STEPS][QT];
        MMA_UNROLL
        for (int s = 0; s < KEY_STEPS; s++) {
            MMA_UNROLL
            for (int t = 0; t < QT; t++) part[s][t] = mma_from_rows(c, own[t], k0 + 16 * s, a.k, wide);
        }
        mma_settle(c, &in_flight, &source, &all, 0, stage);
        source.keys += BLOCK_K;
        if (step + 1 < steps) mma_fetch(c, &in_flight, &source, &all, 0, (stage + 1) % MMA_STAGES);
        mma_converge();
        MMA_UNROLL
        for (int s = 0; s < KEY_STEPS; s++) {
            MMA_UNROLL
            for (int n = 0; n < KEY_TILES; n++) {
                const mma_b weight = mma_from_keys(c, stage, n, s);
                MMA_UNROLL
                for (int t = 0; t < QT; t++) mma(c, &sums[t][n], &part[s][t], &weight);
            }
        }
        stage = (stage + 1) % MMA_STAGES;
        k0 = k0 + BLOCK_K < depth ? k0 + BLOCK_K : 0;
    }

    /* Through local memory: the code for heads, parts and activation is there once, and rows are written whole. */
    __local float *out = (__local float *)tiles + c->wave * MMA_M * SUM_PITCH;
    const int columns = (a.n + BLOCK_N - 1) / BLOCK_N * BLOCK_N;
    MMA_UNROLL
    for (int t = 0; t < QT; t++) {
        MMA_BARRIER(); /* nobody reads W, or the tile before, any more */
        MMA_UNROLL
        for (int n = 0; n < KEY_TILES; n++) {
            MMA_UNROLL
            for (int i = 0; i < MMA_VALUES; i++)
                out[mma_slot_row(c, mma_slot(i)) * SUM_PITCH + n * MMA_N + mma_column(c, i)] = sums[t][n].v[i];
        }
        MMA_BARRIER();
        MMA_ROLL
        for (int u = c->lane; u < MMA_M * BLOCK_N / 4; u += MMA_LANES) {
            const int m = row0 + t * MMA_M + u / (BLOCK_N / 4), at = u % (BLOCK_N / 4) * 4;
            if (m >= a.m || column0 + at >= a.n) continue;
            put_four(&a, bias, bias + columns, y + row_offset(&a.y, a.rows, m), column0 + at,
                     out + (u / (BLOCK_N / 4) * SUM_PITCH + at));
        }
    }
}
