/* The start-up probe of a matrix engine (cl/mma_probe.cl): each step is a case with numbers of its own. The operands
 * are small integers, or values that are all different, so that every result is exact and a value in the wrong place
 * shows. */
#include "../../cl/shared/matrix.h"

#include <math.h>

#include "registry/verify_bench.h"

enum { WAVES = MATRIX_PROBE_WAVES, KEYS = MATRIX_PROBE_KEYS, COLUMNS = MATRIX_PROBE_COLUMNS };
enum { WIDE_COLUMNS = COLUMNS + 5 }; /* with the bench's gap behind them, rows start at multiples of 16 bytes */

static const char *const steps[] = {
#define STEP_TEXT(STEP, what) [MATRIX_PROBE_##STEP] = what,
    MATRIX_PROBE_STEPS(STEP_TEXT)
#undef STEP_TEXT
};

static int step_of(const clattn__bench *b) { return b->which; }

static const clattn__matrix_engine *engine_of(const clattn__bench *b) {
    return clattn__matrix_engine_of(&b->context->env.device.caps);
}

/* Operand element (row, column); columns beyond COLUMNS are nobody's. */
static double at(const clattn__bench *b, int slot, int row, int column) {
    const clattn__bench_tensor *t = &b->t[slot];
    return clattn__ref_load(t->start, t->dtype, clattn__bench_at(t, row * t->extent[3] + column));
}

/* most 0: values that are all different, with 8 significant bits; else integers from -most to most. */
static bool add_operand(clattn__bench *b, int slot, int rows, int most) {
    const bool packed = step_of(b) == MATRIX_PROBE_WEIGHTS; /* one row, as weights lie without gaps */
    const int64_t columns = step_of(b) == MATRIX_PROBE_COPIES ? WIDE_COLUMNS : COLUMNS;
    if (!clattn__bench_add(b, slot, b->variant->dtype, 1, 1, packed ? 1 : rows, packed ? rows * columns : columns))
        return false;
    for (int i = 0; i < rows * COLUMNS; i++) {
        const double value =
            most == 0 ? ldexp(128 + i % 128, i / 128 - 7) : floor(clattn__bench_noise(b) * (most + 0.5) + 0.5);
        clattn__bench_set(b, slot, i / COLUMNS * columns + i % COLUMNS, value);
    }
    return true;
}

/* sum over d < depth of query[i][d] key[j][d] */
static double score(const clattn__bench *b, int i, int j, int depth) {
    double sum = 0;
    for (int d = 0; d < depth; d++) sum += at(b, CLATTN__PROBE_QUERY, i, d) * at(b, CLATTN__PROBE_KEY, j, d);
    return sum;
}

static double weighted_values(const clattn__bench *b, int i, int column) {
    double sum = 0;
    for (int j = 0; j < KEYS; j++) sum += score(b, i, j, COLUMNS) * at(b, CLATTN__PROBE_VALUE, j, column);
    return sum;
}

/* The last key exists in memory alone: a copy takes zeros in its place, or the key before it. */
static double staged(const clattn__bench *b, int row, int column) {
    const int slot = row < KEYS ? CLATTN__PROBE_KEY : CLATTN__PROBE_VALUE, key = row % KEYS;
    if (step_of(b) != MATRIX_PROBE_COPIES || key < KEYS - 1) return at(b, slot, key, column);
    return b->context->env.device.caps.matrix.engine == MATRIX_NV ? 0 : at(b, slot, key - 1, column);
}

static int exchanged(int lane, int wave) { return lane * 7 % 32 + wave; }

/* The greatest number, or their sum, of the lanes that share a row of sums. */
static double over_row(const clattn__bench *b, int wave, int column) {
    const clattn__matrix_engine *engine = engine_of(b);
    const int lane = column % engine->lanes;
    const bool nv = b->context->env.device.caps.matrix.engine == MATRIX_NV;
    int most = 0, sum = 0;
    for (int l = 0; l < engine->lanes; l++) {
        if (nv ? l / 4 != lane / 4 : l % engine->m != lane % engine->m) continue;
        sum += exchanged(l, wave);
        if (exchanged(l, wave) > most) most = exchanged(l, wave);
    }
    return column < engine->lanes ? most : sum;
}

static double wanted(const clattn__bench *b, int row, int column) {
    switch (step_of(b)) {
    case MATRIX_PROBE_LANES:
        return column;
    case MATRIX_PROBE_ADDRESSES: { /* two elements that hold their own numbers */
        const int item = row * engine_of(b)->lanes + column;
        return 2 * item + (2 * item + 1) * 65536.0;
    }
    case MATRIX_PROBE_EXCHANGE:
        return over_row(b, row, column);
    case MATRIX_PROBE_INSTRUCTION:
        return score(b, row, column, 16);
    case MATRIX_PROBE_COPIES:
    case MATRIX_PROBE_LOADS:
        return staged(b, row, column);
    case MATRIX_PROBE_WEIGHTS: {
        const int place = matrix_weight_at(b->context->env.device.caps.matrix.engine, row, column, COLUMNS);
        return at(b, CLATTN__PROBE_KEY, 0, place);
    }
    case MATRIX_PROBE_PRODUCT:
        return score(b, row, column, COLUMNS);
    default:
        return weighted_values(b, row, column);
    }
}

static bool add_out(clattn__bench *b) {
    const clattn__matrix_engine *engine = engine_of(b);
    int rows = WAVES, columns = engine->lanes;
    if (step_of(b) == MATRIX_PROBE_EXCHANGE) columns = 2 * engine->lanes;
    if (step_of(b) >= MATRIX_PROBE_INSTRUCTION) rows = WAVES * engine->m, columns = COLUMNS;
    if (step_of(b) == MATRIX_PROBE_INSTRUCTION) columns = engine->n;
    if (step_of(b) == MATRIX_PROBE_COPIES || step_of(b) == MATRIX_PROBE_LOADS) rows = 2 * KEYS;
    if (step_of(b) == MATRIX_PROBE_WEIGHTS) rows = KEYS;
    if (!clattn__bench_add_output(b, CLATTN__PROBE_OUT, CLATTN_F32, 1, 1, rows, columns)) return false;
    for (int i = 0; i < rows * columns; i++) {
        const int64_t place = clattn__bench_at(&b->t[CLATTN__PROBE_OUT], i);
        b->t[CLATTN__PROBE_OUT].want[place] = wanted(b, i / columns, i % columns);
        b->t[CLATTN__PROBE_OUT].tolerance[place] = 0;
    }
    return true;
}

clattn_status clattn__verify_engine(clattn__bench *b) {
    const int step = step_of(b);
    const bool moves = step == MATRIX_PROBE_COPIES || step == MATRIX_PROBE_LOADS || step == MATRIX_PROBE_WEIGHTS;
    const clattn_probe_args args = {.step = step, .keys = step == MATRIX_PROBE_COPIES ? KEYS - 1 : KEYS};
    b->about = steps[step];
    clattn_status status = clattn__mma_probe_create(&b->op, &b->context->programs, b->variant->dtype);
    if (status != CLATTN_OK) return status;
    /* scores stay below 2^7, which 16 bits hold */
    if (!add_operand(b, CLATTN__PROBE_QUERY, WAVES * engine_of(b)->m, 1) ||
        !add_operand(b, CLATTN__PROBE_KEY, KEYS, moves ? 0 : 3) ||
        !add_operand(b, CLATTN__PROBE_VALUE, KEYS, moves ? 0 : 5) || !add_out(b))
        return CLATTN_OUT_OF_MEMORY;
    return clattn__bench_finish(b, status, &args, sizeof args);
}

clattn_status clattn__engine_trust(clattn_context *context, clattn_dtype dtype) {
    clattn__op probe;
    clattn_status status = clattn__mma_probe_create(&probe, &context->programs, dtype);
    if (status == CLATTN_OK) status = clattn__op_trust(context, &probe);
    clattn__op_clear(&probe);
    return status;
}
