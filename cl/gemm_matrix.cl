/* Projection y = act(x W^T + bias) on matrix engines: 16-bit storage, products of 16-bit operands summed in float.
 *
 *           depth ->                  BLOCK_N columns
 *         +-------+------+         +--------+--------+   A work-group owns BLOCK_M x BLOCK_N elements of y, each of its
 * wave 0  | x, in | next |      |  | W,     |        |   waves QT tiles of MMA_M rows and BLOCK_N / COLUMN_WAVES of the
 * wave 1  | regi- |      |  x   v  | packed |        |   columns. For each BLOCK_K steps of depth W comes through local
 *  ...    | sters |      |         +--------+--------+   memory, as keys do in attention, or straight from where the
 *         +-------+------+         |  next  |        |   host put it in the engine's order. Each lane loads its own
 *                                  +--------+--------+   part of x, the next as soon as the last products with it are
 *                                                        on their way.
 *
 * The float32 weight is kept as a sum of 16-bit parts, so that no more of it is lost than a float32 sum loses:
 * W = (W0 + W1 + ...) * factor, with one power of two per column. The parts of a block lie behind each other. A weight
 * that fits the storage type has one part.
 *
 * Tails. Rows beyond the last repeat it and are never stored. Columns and depth: the weight is padded with zeros to
 * BLOCK_N and BLOCK_K. Where x has fewer than BLOCK_K more columns, or rows that are not aligned to 16 bytes, its
 * elements are loaded one by one, with zeros in place of what lies behind column k.
 *
 * Macros chosen by the host half, beside those of tile_mma.clh:
 *   WAVES: waves per work-group.
 *   COLUMN_WAVES: how many of them share rows.
 *   QT: row tiles per wave; an operand from W is used that often.
 *   BLOCK_N: columns per work-group, COLUMN_WAVES times a multiple of MMA_N and of 16: tile_mma.clh's BLOCK_KV.
 *   BLOCK_K: steps of depth between two loads of W, a multiple of 32: its HEAD_DIM.
 *   STAGES: 2 when the next block of W travels into local memory meanwhile.
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

#define WAVE_N (BLOCK_N / COLUMN_WAVES)
#define WAVE_TILES (WAVE_N / MMA_N)
#define WAVE_ROWS (MMA_M * QT)
#define BLOCK_M (WAVE_ROWS * (WAVES / COLUMN_WAVES))
#define WEIGHT_BLOCK (BLOCK_N * BLOCK_K)
#if WAVES % COLUMN_WAVES != 0 || BLOCK_N % COLUMN_WAVES != 0 || WAVE_N % MMA_N != 0 || WAVE_N % 16 != 0 ||             \
    BLOCK_K % 32 != 0
#error "COLUMN_WAVES must divide WAVES, BLOCK_N be a multiple of its MMA_N and 16, BLOCK_K of 32"
#endif
/* Sums on their way out: OUT_N columns of a row tile at a time, which keeps them below what W took. */
#if MMA_M == 32 || WAVE_N % 64 != 0
#define OUT_N (WAVE_N % 32 == 0 ? 32 : 16)
#else
#define OUT_N 64
#endif
#define OUT_TILES (OUT_N / MMA_N)
#define OUT_ROUNDS (QT * (WAVE_N / OUT_N))
#define OUT_PITCH (OUT_N + 4)                                                /* floats between rows */
#define OUT_TILE (WAVES * MMA_M * OUT_PITCH * 2)                             /* in elements of 16 bits */
#define WEIGHT_TILES (MMA_DIRECT ? 0 : MMA_STAGES * (KEY_TILE + VALUE_TILE)) /* likewise; sums take their place */
#define LOCAL_ELEMENTS (WEIGHT_TILES > OUT_TILE ? WEIGHT_TILES : OUT_TILE)

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

/* What a wave multiplies. */
typedef struct gemm_wave {
    const __global ushort *own[QT][MMA_SLOTS]; /* this lane's rows of x */
    const __global ushort *weight;             /* this group's columns */
    int columns, parts;                        /* of x, of the weight */
    int n0;                                    /* the wave's first tile of columns in a block of W */
} gemm_wave;

#define LOADS (KEY_STEPS / MMA_LOAD_STEPS)
typedef uint4 x_part[QT][MMA_EIGHTS]; /* this lane's operands for MMA_LOAD_STEPS steps */

/* Those from column d on. */
INLINE void load_part(const mma_context *c, const gemm_wave *w, x_part part, int d) {
    MMA_UNROLL
    for (int t = 0; t < QT; t++) {
        MMA_UNROLL
        for (int i = 0; i < MMA_EIGHTS; i++)
            part[t][i] = *(const __global uint4 *)(w->own[t][mma_eight_slot(i)] + (d + mma_eight_at(c, i)));
    }
}

/* The same, element by element, with zeros behind the last column: seldom wanted, and in few registers. */
INLINE void load_part_slowly(const mma_context *c, const gemm_wave *w, x_part part, int d) {
    MMA_UNROLL
    for (int t = 0; t < QT; t++) {
        MMA_UNROLL
        for (int i = 0; i < MMA_EIGHTS; i++) part[t][i] = (uint4)(0u);
    }
    MMA_ROLL
    for (int e = MMA_TIMES(8) - 1; e >= 0; e--) {
        MMA_UNROLL
        for (int t = 0; t < QT; t++) {
            MMA_UNROLL
            for (int i = 0; i < MMA_EIGHTS; i++) {
                const int column = d + mma_eight_at(c, i) + e;
                const uint bits = w->own[t][mma_eight_slot(i)][min(column, w->columns - 1)];
                const uint4 eight = part[t][i];
                part[t][i] = eight << 16 | (uint4)(column < w->columns ? bits : 0u, eight.xyz >> 16);
            }
        }
    }
    mma_converge();
}

/* How far it is: blocks along the depth, and of each the parts of the weight. */
typedef struct gemm_walk {
    int step, steps, k0, part, stage;
    mma_stage in_flight;
} gemm_walk;

/* Not more than four operands from W wait for their products at a time; n: the last of them. */
INLINE void issue(mma_c sums[QT][WAVE_TILES], int n) {
    MMA_UNROLL
    for (int t = 0; t < QT; t++) {
        MMA_UNROLL
        for (int i = n / 4 * 4; i <= n; i++) mma_issue(&sums[t][i]);
    }
}

/* Goes on to step `end`. whole: these steps want no column of x behind the last, and its rows are aligned. */
INLINE void add_products(mma_context *c, const gemm_wave *w, gemm_walk *at, mma_c sums[QT][WAVE_TILES], int end,
                         const bool whole) {
    x_part part[LOADS];
    if (at->step >= end) return;
    MMA_UNROLL
    for (int p = 0; p < LOADS; p++) {
        const int d = at->k0 + 16 * MMA_LOAD_STEPS * p;
        if (whole) load_part(c, w, part[p], d);
        if (!whole) load_part_slowly(c, w, part[p], d);
    }
    do {
        const __global ushort *block = w->weight + (clattn_i64)at->step * WEIGHT_BLOCK;
        const int stage = at->stage;
        mma_settle_weight(c, &at->in_flight, block, stage);
        at->stage = (stage + 1) % MMA_STAGES;
        if (++at->step < at->steps) mma_fetch_weight(c, &at->in_flight, block + WEIGHT_BLOCK, at->stage);
        if (++at->part == w->parts) {
            at->part = 0;
            at->k0 += BLOCK_K;
        }
        /* what the last step loads nobody wants: once more the block before */
        const int next = whole ? min(at->k0, (w->columns / BLOCK_K - 1) * BLOCK_K) : at->k0;
        MMA_UNROLL
        for (int p = 0; p < LOADS; p++) {
            MMA_UNROLL
            for (int s = 0; s < MMA_LOAD_STEPS; s++) {
                mma_a rows[QT];
                MMA_UNROLL
                for (int t = 0; t < QT; t++) rows[t] = mma_from_eights(part[p][t], s);
                MMA_UNROLL
                for (int n = 0; n < WAVE_TILES; n++) {
                    const mma_b weight = mma_from_weight(c, block, stage, w->n0 + n, p * MMA_LOAD_STEPS + s);
                    MMA_UNROLL
                    for (int t = 0; t < QT; t++) mma_multiply(c, &sums[t][n], &rows[t], &weight);
                    if (n % 4 == 3 || n == WAVE_TILES - 1) issue(sums, n);
                }
            }
            const int d = next + 16 * MMA_LOAD_STEPS * p;
            if (whole) load_part(c, w, part[p], d);
            if (!whole && at->step < end) load_part_slowly(c, w, part[p], d);
        }
    } while (at->step < end);
}

__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) MMA_ATTRIBUTES void
gemm_matrix(const clattn_gemm_args a,   /* grid: work-groups for blocks from a.first_block_m, _n on              */
            const __global storage *x,  /* (m, k) at a.x                                                          */
            const __global ushort *w,   /* (blocks of n, blocks of k, weight_parts, packed BLOCK_N x BLOCK_K)     */
            const __global float *bias, /* (2, n up to a multiple of BLOCK_N): the bias, the factors              */
            __global storage *y)        /* (m, n) at a.y; overwritten whatever it holds, or added to              */
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
    const int row0 = start.x + c->wave / COLUMN_WAVES * WAVE_ROWS, wave_column = c->wave % COLUMN_WAVES * WAVE_N;
    const bool aligned = mma_is_wide((const __global ushort *)x + a.x.offset, a.x.row) && (a.x.batch & 7) == 0;
    gemm_walk walk = {.steps = (a.k + BLOCK_K - 1) / BLOCK_K * a.weight_parts};
    gemm_wave wave = {.columns = a.k, .parts = a.weight_parts, .n0 = wave_column / MMA_N};
    wave.weight = w + (clattn_i64)(start.y / BLOCK_N) * walk.steps * WEIGHT_BLOCK;
    MMA_UNROLL
    for (int t = 0; t < QT; t++) {
        MMA_UNROLL
        for (int slot = 0; slot < MMA_SLOTS; slot++) {
            const int m = min(row0 + t * MMA_M + mma_slot_row(c, slot), a.m - 1);
            wave.own[t][slot] = (const __global ushort *)x + row_offset(&a.x, a.rows, m);
        }
    }
    mma_c sums[QT][WAVE_TILES];
    MMA_UNROLL
    for (int t = 0; t < QT; t++) {
        MMA_UNROLL
        for (int n = 0; n < WAVE_TILES; n++) mma_zero(&sums[t][n]);
    }
    if (walk.steps > 0) mma_fetch_weight(c, &walk.in_flight, wave.weight, 0);
    const int whole_steps = aligned ? a.k / BLOCK_K * a.weight_parts : 0;
#if MMA_EMULATE /* the same loop twice: two of them take minutes to compile */
    MMA_ROLL
    for (int round = 0; round < 2; round++)
        add_products(c, &wave, &walk, sums, round == 0 ? whole_steps : walk.steps, round == 0);
#else
    add_products(c, &wave, &walk, sums, whole_steps, true);
    add_products(c, &wave, &walk, sums, walk.steps, false);
#endif

    /* Through local memory: the code for heads, parts and activation is there once, and rows are written whole. */
    __local float *out = (__local float *)tiles + c->wave * MMA_M * OUT_PITCH;
    const int columns = (a.n + BLOCK_N - 1) / BLOCK_N * BLOCK_N;
    MMA_ROLL
    for (int round = 0; round < MMA_TIMES(OUT_ROUNDS); round++) {
        const int row = row0 + round % QT * MMA_M, column = start.y + wave_column + round / QT * OUT_N;
        MMA_BARRIER(); /* nobody reads W, or the sums before, any more */
        MMA_UNROLL
        for (int t = 0; t < QT; t++) {
            MMA_UNROLL
            for (int n = 0; n < WAVE_TILES; n++) {
                if (round != n / OUT_TILES * QT + t) continue; /* registers have no addresses */
                MMA_UNROLL
                for (int i = 0; i < MMA_VALUES; i++)
                    out[mma_sum_row(c, i) * OUT_PITCH + n % OUT_TILES * MMA_N + mma_sum_column(c, i)] = sums[t][n].v[i];
            }
        }
        MMA_BARRIER();
        MMA_ROLL
        for (int u = c->lane; u < MMA_M * OUT_N / 4; u += MMA_LANES) {
            const int m = row + u / (OUT_N / 4), at = u % (OUT_N / 4) * 4;
            if (m >= a.m || column + at >= a.n) continue;
            put_four(&a, bias, bias + columns, y + row_offset(&a.y, a.rows, m), column + at,
                     out + (u / (OUT_N / 4) * OUT_PITCH + at));
        }
    }
}
