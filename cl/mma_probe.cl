/* Start-up probe of a matrix engine: what a back end of tile_mma.clh relies on, one step at a time, so that a failure
 * has a name before anything is computed with it. The host fills the operands with small integers, whose sums are
 * exact, and knows what each step has to write; shared/matrix.h lists the steps.
 *
 * A work-group of two waves stages 32 keys and values of 32 columns, which the waves copy together. */
#define WAVES MATRIX_PROBE_WAVES
#define QT 1
#define BLOCK_KV MATRIX_PROBE_KEYS
#define HEAD_DIM MATRIX_PROBE_COLUMNS
#define VALUE_DIM MATRIX_PROBE_COLUMNS
#define STAGES 1
#define PREFETCH 0
#include "inc/local.clh"
#include "inc/no_features.clh"
#include "inc/tile_mma.clh"
#include "shared/layer_args.h"

/* Operands by their elements. */
typedef union probe_a {
    mma_a operand;
    ushort e[sizeof(mma_a) / sizeof(ushort)];
} probe_a;
typedef union probe_b {
    mma_b operand;
    ushort e[sizeof(mma_b) / sizeof(ushort)];
} probe_b;
#define A_ELEMENTS (int)(sizeof(mma_a) / sizeof(ushort))
#define B_ELEMENTS (int)(sizeof(mma_b) / sizeof(ushort))

typedef struct probe_out {
    __global float *out;
    int row; /* stride */
} probe_out;

static inline void put(const probe_out *o, int row, int column, float value) { o->out[row * o->row + column] = value; }

/* A lane's sums; row0, column0: of their tile. */
static inline void put_sums(const mma_context *x, const probe_out *o, const mma_c *c, int row0, int column0) {
    MMA_UNROLL
    for (int i = 0; i < MMA_VALUES; i++)
        put(o, row0 + mma_slot_row(x, mma_slot(i)), column0 + mma_column(x, i), c->v[i]);
}

/* One mma() of operands that go straight to where the layout wants them. */
static inline void instruction(mma_context *x, const probe_out *o, const __global ushort *q, int q_row,
                               const __global ushort *k, int k_row) {
    probe_a a;
    probe_b b;
    mma_c c;
    MMA_UNROLL
    for (int e = 0; e < A_ELEMENTS; e++) a.e[e] = q[(x->wave * MMA_M + mma_a_row(x, e)) * q_row + mma_a_depth(x, e)];
    MMA_UNROLL
    for (int e = 0; e < B_ELEMENTS; e++) b.e[e] = k[mma_b_column(x, e) * k_row + mma_b_depth(x, e)];
    mma_zero(&c);
    mma(x, &c, &a.operand, &b.operand);
    put_sums(x, o, &c, x->wave * MMA_M, 0);
}

/* What lies in local memory, by ordinary loads. */
static inline void staged(const mma_context *x, const probe_out *o) {
    MMA_ROLL
    for (int u = x->item; u < BLOCK_KV * HEAD_DIM; u += ITEMS) {
        const int n = u / HEAD_DIM, d = u % HEAD_DIM;
        put(o, n, d, mma_widen(x->tiles[mma_key_at(n, d)]));
        put(o, BLOCK_KV + n, d, mma_widen(x->tiles[mma_value_at(n, d)]));
    }
}

/* The same, by the loads of operands. */
static inline void operands(mma_context *x, const probe_out *o) {
    MMA_UNROLL
    for (int step = 0; step < KEY_STEPS; step++) {
        MMA_UNROLL
        for (int n = 0; n < KEY_TILES; n++) {
            const probe_b b = {.operand = mma_from_keys(x, 0, n, step)};
            MMA_UNROLL
            for (int e = 0; e < B_ELEMENTS; e++)
                put(o, n * MMA_N + mma_b_column(x, e), step * 16 + mma_b_depth(x, e), mma_widen(b.e[e]));
        }
    }
    MMA_UNROLL
    for (int step = 0; step < BLOCK_KV / 16; step++) {
        MMA_UNROLL
        for (int n = 0; n < VALUE_TILES; n++) {
            const probe_b b = {.operand = mma_from_values(x, 0, step, n)};
            MMA_UNROLL
            for (int e = 0; e < B_ELEMENTS; e++)
                put(o, BLOCK_KV + step * 16 + mma_b_depth(x, e), n * MMA_N + mma_b_column(x, e), mma_widen(b.e[e]));
        }
    }
}

/* Operands from a packed block of weights: keys in the order in which they lie in memory. */
static inline void weights(mma_context *x, const probe_out *o, const __global ushort *block) {
    MMA_UNROLL
    for (int step = 0; step < KEY_STEPS; step++) {
        MMA_UNROLL
        for (int n = 0; n < KEY_TILES; n++) {
            const probe_b b = {.operand = mma_from_weight(x, block, 0, n, step)};
            MMA_UNROLL
            for (int e = 0; e < B_ELEMENTS; e++)
                put(o, n * MMA_N + mma_weight_column(x, e), step * 16 + mma_weight_depth(x, e), mma_widen(b.e[e]));
        }
    }
}

/* S = Q K^T, and with sums_too S V: attention without a softmax. */
static inline void product(mma_context *x, const probe_out *o, const __global ushort *q, int q_row, bool sums_too) {
    const int row0 = x->wave * MMA_M;
    mma_c s[KEY_TILES];
    MMA_UNROLL
    for (int n = 0; n < KEY_TILES; n++) mma_zero(&s[n]);
    MMA_UNROLL
    for (int step = 0; step < KEY_STEPS; step++) {
        const mma_a a = mma_from_query(x, q, q_row, row0, MATRIX_PROBE_WAVES * MMA_M, step, false);
        MMA_UNROLL
        for (int n = 0; n < KEY_TILES; n++) {
            const mma_b b = mma_from_keys(x, 0, n, step);
            mma(x, &s[n], &a, &b);
        }
    }
    if (!sums_too) {
        MMA_UNROLL
        for (int n = 0; n < KEY_TILES; n++) put_sums(x, o, &s[n], row0, n * MMA_N);
        return;
    }
    MMA_UNROLL
    for (int n = 0; n < VALUE_TILES; n++) {
        mma_c c;
        mma_zero(&c);
        MMA_UNROLL
        for (int step = 0; step < BLOCK_KV / 16; step++) {
            const mma_a a = mma_from_sums(x, s, step);
            const mma_b b = mma_from_values(x, 0, step, n);
            mma(x, &c, &a, &b);
        }
        put_sums(x, o, &c, row0, n * MMA_N);
    }
}

__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) MMA_ATTRIBUTES void
mma_probe(const clattn_probe_args a,     /* grid: one work-group                          */
          const __global storage *query, /* (2 * MMA_M, 32)                               */
          const __global storage *key,   /* (32, 32)                                      */
          const __global storage *value, /* (32, 32)                                      */
          __global float *out)           /* what the step looks at; the host knows shapes */
{
    __local __attribute__((aligned(128))) ushort tiles[KEY_TILE + VALUE_TILE];
    mma_context context, *x = &context;
#if MMA_EXCHANGE
    __local __attribute__((aligned(16))) uint exchange[MMA_EXCHANGE * WAVES];
    MMA_START(context, tiles, exchange);
    POISON(exchange, x->item, ITEMS);
#else
    MMA_START(context, tiles, 0);
#endif
    if (!MMA_LANES_MATCH()) return; /* nothing is written, which the host notices */
    POISON(tiles, x->item, ITEMS);
    const probe_out o = {out + a.out.offset, (int)a.out.row};
    const __global ushort *q = (const __global ushort *)query + a.query.offset;
    const bool packed = a.step == MATRIX_PROBE_WEIGHTS; /* rows without gaps */
    mma_source source = {.careful = false};
    source.keys.cells = (const __global ushort *)key + a.key.offset;
    source.keys.row = packed ? HEAD_DIM : a.key.row;
    source.values.cells = (const __global ushort *)value + a.value.offset;
    source.values.row = packed ? VALUE_DIM : a.value.row;
    /* The one step takes the engine's copies, the others ordinary stores, which its loads must see as well. */
    source.wide = mma_is_wide(source.keys.cells, a.key.row) && mma_is_wide(source.values.cells, a.value.row);
    const attn_head head = {.key_end = a.keys};

    MMA_ROLL
    for (int i = x->item; i < KEY_TILE + VALUE_TILE; i += ITEMS)
        tiles[i] = (ushort)i; /* nothing of an earlier launch */
    MMA_BARRIER();
    if (a.step == MATRIX_PROBE_LANES) {
        put(&o, x->wave, x->lane, (float)mma_own_lane(x));
    } else if (a.step == MATRIX_PROBE_ADDRESSES) {
        put(&o, x->wave, x->lane, (float)mma_word(x, x->item));
    } else if (a.step == MATRIX_PROBE_EXCHANGE) {
        const float number = (float)(x->lane * 7 % 32 + x->wave);
        put(&o, x->wave, x->lane, mma_row_max(x, number));
        put(&o, x->wave, MMA_LANES + x->lane, mma_row_sum(x, number));
    } else if (a.step == MATRIX_PROBE_INSTRUCTION) {
        instruction(x, &o, q, (int)a.query.row, source.keys.cells, (int)source.keys.row);
    } else {
        mma_stage in_flight;
        mma_fetch(x, &in_flight, &source, &head, 0, 0);
        mma_settle(x, &in_flight, &source, &head, 0, 0);
        if (a.step == MATRIX_PROBE_COPIES)
            staged(x, &o);
        else if (a.step == MATRIX_PROBE_LOADS)
            operands(x, &o);
        else if (a.step == MATRIX_PROBE_WEIGHTS)
            weights(x, &o, source.keys.cells);
        else
            product(x, &o, q, (int)a.query.row, a.step == MATRIX_PROBE_SUMS);
    }
}
