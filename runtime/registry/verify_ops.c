/* Verification of the small kernels: each runs small cases of its own variant, and the scalar reference says what is
 * right. Widths are 1, 7 and 65, values reach 1e4. */
#include "../../cl/shared/matrix.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clattn/layers.h"
#include "registry/verify_bench.h"

enum { HEADS = 2, CASES = 3 };
static const int WIDTHS[CASES] = {1, 7, 65};
static const double SIZES[CASES] = {1, 1e4, 1};
static const double u = CLATTN__REF_ROUNDOFF;

/* ---- rows -------------------------------------------------------------------------------------------------------- */

/* In turn: one row everywhere, one row added to what is there, zeros. */
static clattn_status verify_rows(clattn__bench *b) {
    enum { BEFORE = 5 }; /* floats before the source */
    float source[BEFORE + HEADS * CLATTN__BENCH_WIDEST];
    const clattn_rows_args args = {.source_offset = BEFORE,
                                   .batch = CLATTN__BENCH_BATCH,
                                   .heads = HEADS,
                                   .rows = CLATTN__BENCH_ROWS,
                                   .width = b->width,
                                   .has_source = b->which != 2,
                                   .accumulate = b->which == 1};
    for (size_t i = 0; i < CLATTN__COUNT(source); i++)
        source[i] = i < BEFORE ? NAN : (float)(1e4 * clattn__bench_noise(b));
    const clattn_dtype dtype = b->variant->dtype;
    if (!clattn__bench_add_output(b, CLATTN__ROWS_Y, dtype, CLATTN__BENCH_BATCH, HEADS, CLATTN__BENCH_ROWS, b->width))
        return CLATTN_OUT_OF_MEMORY;
    if (args.accumulate) clattn__bench_fill(b, CLATTN__ROWS_Y, 1e4);
    const clattn__bench_tensor *y = &b->t[CLATTN__ROWS_Y];
    for (int64_t i = 0; i < clattn__bench_dense_count(y); i++) {
        const int64_t head = i / b->width / CLATTN__BENCH_ROWS % HEADS, column = head * b->width + i % b->width;
        const double before = args.accumulate ? clattn__ref_load(y->start, dtype, clattn__bench_at(y, i)) : 0;
        const double want = before + (args.has_source ? (double)source[BEFORE + column] : 0);
        y->want[clattn__bench_at(y, i)] = want;
        y->tolerance[clattn__bench_at(y, i)] =
            (args.accumulate ? u * fabs(want) : 0) + clattn__bench_narrowing(dtype, want);
    }
    clattn_status status = clattn__rows_create(&b->op, &b->context->programs, dtype);
    if (status == CLATTN_OK) status = clattn__op_constant(&b->op, CLATTN__ROWS_SOURCE, source, CLATTN__COUNT(source));
    return clattn__bench_finish(b, status, &args, sizeof args);
}

/* ---- normalisation ----------------------------------------------------------------------------------------------- */

typedef struct norm_case {
    float weight[CLATTN__BENCH_WIDEST], bias[CLATTN__BENCH_WIDEST], mean[CLATTN__BENCH_WIDEST],
        variance[CLATTN__BENCH_WIDEST];
    clattn__bench_dense x, y;
    clattn__ref_norm ref;
    clattn_norm_args args;
} norm_case;

/* Weights, x and what follows from them. */
static norm_case *make_norm(clattn__bench *b) {
    norm_case *c = clattn__alloc(1, sizeof *c);
    if (!c || !clattn__bench_add_filled(b, CLATTN__NORM_X, b->variant->dtype, 1, CLATTN__BENCH_ROWS, b->width,
                                        SIZES[b->which])) {
        clattn__free(c);
        return NULL;
    }
    for (int i = 0; i < b->width; i++) {
        c->weight[i] = (float)clattn__bench_noise(b);
        c->bias[i] = (float)clattn__bench_noise(b);
        c->mean[i] = (float)(SIZES[b->which] * clattn__bench_noise(b));
        c->variance[i] = (float)fabs(clattn__bench_noise(b));
    }
    const float eps = 1e-5f;
    clattn__bench_take(b, CLATTN__NORM_X, &c->x);
    c->args =
        (clattn_norm_args){.batch = CLATTN__BENCH_BATCH, .rows = CLATTN__BENCH_ROWS, .features = b->width, .eps = eps};
    c->ref = (clattn__ref_norm){
        CLATTN__BENCH_BATCH * CLATTN__BENCH_ROWS, b->width, c->weight, c->bias, NULL, NULL, (double)eps};
    return c;
}

static bool add_residual(clattn__bench *b, norm_case *c) {
    if (!clattn__bench_add_filled(b, CLATTN__NORM_RESIDUAL, b->variant->dtype, 1, CLATTN__BENCH_ROWS, b->width,
                                  SIZES[b->which]) ||
        !clattn__bench_add_output(b, CLATTN__NORM_SUM, b->variant->dtype, CLATTN__BENCH_BATCH, 1, CLATTN__BENCH_ROWS,
                                  b->width))
        return false;
    clattn__bench_take(b, CLATTN__NORM_RESIDUAL, &c->y);
    clattn__ref_add(clattn__bench_values_of(&c->x), clattn__bench_values_of(&c->y),
                    CLATTN__BENCH_BATCH * CLATTN__BENCH_ROWS * b->width);
    clattn__bench_expect(b, CLATTN__NORM_SUM, &c->x);
    c->args.has_residual = c->args.has_sum = 1;
    return true;
}

static clattn_status verify_layer_norm(clattn__bench *b) {
    norm_case *c = make_norm(b);
    clattn_status status = CLATTN_OUT_OF_MEMORY;
    if (c && (b->which == 0 || add_residual(b, c)) &&
        clattn__bench_add_output(b, CLATTN__NORM_Y, b->variant->dtype, CLATTN__BENCH_BATCH, 1, CLATTN__BENCH_ROWS,
                                 b->width)) {
        clattn__ref_layer_norm(&c->ref, clattn__bench_values_of(&c->x), clattn__bench_values_of(&c->y));
        clattn__bench_expect(b, CLATTN__NORM_Y, &c->y);
        status =
            clattn__layer_norm_create(&b->op, &b->context->programs, b->variant->dtype, b->width, c->weight, c->bias);
        status = clattn__bench_finish(b, status, &c->args, sizeof c->args);
    }
    clattn__free(c);
    return status;
}

/* (2, features) without gaps, as the kernels want it. */
static bool place_statistics(clattn__bench *b, bool made) {
    b->t[CLATTN__NORM_STATISTICS].place.row = b->width;
    return made;
}

static clattn_status verify_batch_statistics(clattn__bench *b) {
    norm_case *c = make_norm(b);
    clattn_status status = CLATTN_OUT_OF_MEMORY;
    if (c && place_statistics(b, clattn__bench_add_output(b, CLATTN__NORM_STATISTICS, CLATTN_F32, 1, 1, 2, b->width))) {
        clattn__ref_batch_statistics(&c->ref, clattn__bench_values_of(&c->x), clattn__bench_values_of(&c->y));
        clattn__bench_expect(b, CLATTN__NORM_STATISTICS, &c->y);
        status = clattn__batch_statistics_create(&b->op, &b->context->programs, b->variant->dtype);
        status = clattn__bench_finish(b, status, &c->args, sizeof c->args);
    }
    clattn__free(c);
    return status;
}

static clattn_status verify_batch_apply(clattn__bench *b) {
    norm_case *c = make_norm(b);
    clattn_status status = CLATTN_OUT_OF_MEMORY;
    if (c && place_statistics(b, clattn__bench_add(b, CLATTN__NORM_STATISTICS, CLATTN_F32, 1, 1, 2, b->width)) &&
        clattn__bench_add_output(b, CLATTN__NORM_Y, b->variant->dtype, CLATTN__BENCH_BATCH, 1, CLATTN__BENCH_ROWS,
                                 b->width)) {
        for (int i = 0; i < b->width; i++) {
            clattn__bench_set(b, CLATTN__NORM_STATISTICS, i, (double)c->mean[i]);
            clattn__bench_set(b, CLATTN__NORM_STATISTICS, b->width + i, 1 / sqrt((double)c->variance[i] + c->ref.eps));
        }
        c->ref.mean = c->mean;
        c->ref.variance = c->variance;
        clattn__ref_batch_norm(&c->ref, clattn__bench_values_of(&c->x), clattn__bench_values_of(&c->y));
        clattn__bench_expect(b, CLATTN__NORM_Y, &c->y);
        status = clattn__batch_apply_create(&b->op, &b->context->programs, b->variant->dtype, b->width, c->weight,
                                            c->bias, NULL);
        status = clattn__bench_finish(b, status, &c->args, sizeof c->args);
    }
    clattn__free(c);
    return status;
}

/* ---- elementwise and positions ----------------------------------------------------------------------------------- */

static clattn_status verify_elementwise(clattn__bench *b) {
    static const int X = CLATTN__ELEMENTWISE_X, ADDEND = CLATTN__ELEMENTWISE_ADDEND, Y = CLATTN__ELEMENTWISE_Y;
    const int64_t count = CLATTN__BENCH_BATCH * CLATTN__BENCH_ROWS * b->width;
    clattn__bench_dense x, addend;
    const clattn_elementwise_args args = {
        .batch = CLATTN__BENCH_BATCH, .rows = CLATTN__BENCH_ROWS, .features = b->width, .has_addend = b->which > 0};
    if (!clattn__bench_add_filled(b, X, b->variant->dtype, 1, CLATTN__BENCH_ROWS, b->width, 3 * SIZES[b->which]) ||
        (args.has_addend &&
         !clattn__bench_add_filled(b, ADDEND, b->variant->dtype, 1, CLATTN__BENCH_ROWS, b->width, 3)) ||
        !clattn__bench_add_output(b, Y, b->variant->dtype, CLATTN__BENCH_BATCH, 1, CLATTN__BENCH_ROWS, b->width))
        return CLATTN_OUT_OF_MEMORY;
    clattn__bench_take(b, X, &x);
    clattn__bench_take(b, ADDEND, &addend);
    if (args.has_addend) clattn__ref_add(clattn__bench_values_of(&x), clattn__bench_values_of(&addend), count);
    clattn__ref_activate((clattn_activation)b->variant->kind, clattn__bench_values_of(&x), count);
    clattn__bench_expect(b, Y, &x);
    clattn_status status =
        clattn__elementwise_create(&b->op, &b->context->programs, b->variant->dtype, b->variant->kind);
    return clattn__bench_finish(b, status, &args, sizeof args);
}

enum { TABLE_ROWS = 5 };

/* From first on, or given: near, far, and outside of a table. */
static bool add_positions(clattn__bench *b, int slot, bool far) {
    static const int32_t near[] = {4, 0, -3, 1, 900, 2}, wide[] = {0, 1, 4095, 1000003, 77, 131072};
    if (!clattn__bench_add(b, slot, CLATTN_I32, CLATTN__BENCH_BATCH, 1, CLATTN__BENCH_ROWS, 1)) return false;
    for (int i = 0; i < CLATTN__BENCH_BATCH * CLATTN__BENCH_ROWS; i++)
        clattn__bench_set(b, slot, i, far ? wide[i] : near[i]);
    return true;
}

static clattn_status verify_positions(clattn__bench *b) {
    static const int X = CLATTN__POSITIONS_X, POSITIONS = CLATTN__POSITIONS_POSITIONS, Y = CLATTN__POSITIONS_Y;
    const bool learned = strcmp(b->name, "learned") == 0, given = b->which > 0;
    const int features = learned ? b->width : 2 * b->width;
    const double base = 10000;
    float table[TABLE_ROWS * CLATTN__BENCH_WIDEST];
    clattn__bench_dense y, positions;
    const clattn_positions_args args = {.first = learned ? 3 : 1000000,
                                        .batch = CLATTN__BENCH_BATCH,
                                        .rows = CLATTN__BENCH_ROWS,
                                        .features = features,
                                        .table_rows = TABLE_ROWS,
                                        .has_x = given,
                                        .has_positions = given};
    for (int i = 0; i < TABLE_ROWS * features; i++) table[i] = (float)clattn__bench_noise(b);
    if ((given &&
         !clattn__bench_add_filled(b, X, b->variant->dtype, 1, CLATTN__BENCH_ROWS, features, SIZES[b->which])) ||
        (given && !add_positions(b, POSITIONS, !learned)) ||
        !clattn__bench_add_output(b, Y, b->variant->dtype, CLATTN__BENCH_BATCH, 1, CLATTN__BENCH_ROWS, features))
        return CLATTN_OUT_OF_MEMORY;
    clattn__bench_take(b, X, &y);
    clattn__bench_take(b, POSITIONS, &positions);
    for (int i = 0; i < CLATTN__BENCH_BATCH * CLATTN__BENCH_ROWS; i++) {
        const clattn__ref_values row = {y.value + i * features, y.error + i * features};
        const int64_t p = given ? (int64_t)positions.value[i] : args.first + i % CLATTN__BENCH_ROWS;
        const int64_t inside = p < 0 ? 0 : p < TABLE_ROWS ? p : TABLE_ROWS - 1;
        if (learned)
            clattn__ref_add_learned(row, features, table, inside);
        else
            clattn__ref_add_sinusoidal(row, features, base, p);
    }
    clattn__bench_expect(b, Y, &y);
    uint64_t *turns = clattn__turns(features + features % 2, base);
    if (!turns) return CLATTN_OUT_OF_MEMORY;
    clattn_status status =
        learned ? clattn__learned_create(&b->op, &b->context->programs, b->variant->dtype, table, TABLE_ROWS, features)
                : clattn__sinusoidal_create(&b->op, &b->context->programs, b->variant->dtype, features, turns);
    clattn__free(turns);
    return clattn__bench_finish(b, status, &args, sizeof args);
}

static bool add_angles(clattn__bench *b, clattn_rope_source source, int64_t pairs) {
    const bool by_row = source == CLATTN_ROPE_ROWS;
    for (int slot = CLATTN__ROPE_COSINE; slot <= CLATTN__ROPE_SINE && source != CLATTN_ROPE_COMPUTED; slot++) {
        if (!clattn__bench_add(b, slot, CLATTN_F32, by_row ? CLATTN__BENCH_BATCH : 1, 1,
                               by_row ? CLATTN__BENCH_ROWS : TABLE_ROWS, pairs))
            return false;
        clattn__bench_fill(b, slot, 1);
    }
    return true;
}

/* Positions by row of a batch entry, none, and one per batch entry. */
static clattn_status verify_rope(clattn__bench *b) {
    static const int dims[CASES] = {2, 7, 65}, rotary[CASES] = {2, 6, 34};
    const clattn_rope_source source = (clattn_rope_source)b->variant->kind;
    const int64_t D = dims[b->which], R = rotary[b->which];
    const bool given = b->which != 1 && source != CLATTN_ROPE_ROWS;
    clattn_rope_desc d;
    clattn_rope_desc_init(&d);
    d.batch = CLATTN__BENCH_BATCH, d.heads = HEADS, d.rows = CLATTN__BENCH_ROWS, d.head_dim = D, d.rotary_dim = R,
    d.table_rows = TABLE_ROWS;
    d.source = source, d.dtype = b->variant->dtype, d.inverse = b->variant->inverse, d.first = 1;
    d.style = b->variant->interleaved ? CLATTN_ROPE_INTERLEAVED : CLATTN_ROPE_HALF_SPLIT;
    d.positions = !given          ? CLATTN_ROPE_NO_POSITIONS
                  : b->which == 0 ? CLATTN_ROPE_POSITIONS_BY_ROW
                                  : CLATTN_ROPE_POSITIONS_BY_ENTRY;
    const clattn_rope_args args = clattn__rope_args(&d);
    if (!clattn__bench_add_filled(b, CLATTN__ROPE_X, d.dtype, HEADS, CLATTN__BENCH_ROWS, D, SIZES[b->which]) ||
        !add_angles(b, source, R / 2) ||
        (given && !add_positions(b, CLATTN__ROPE_POSITIONS, source == CLATTN_ROPE_COMPUTED)) ||
        !clattn__bench_add_output(b, CLATTN__ROPE_Y, d.dtype, CLATTN__BENCH_BATCH, HEADS, CLATTN__BENCH_ROWS, D))
        return CLATTN_OUT_OF_MEMORY;
    if (args.count_rows) b->t[CLATTN__ROPE_POSITIONS].place.row = b->call.place[CLATTN__ROPE_POSITIONS].row = 0;
    const clattn__ref_rope ref = {.batch = CLATTN__BENCH_BATCH,
                                  .heads = HEADS,
                                  .rows = CLATTN__BENCH_ROWS,
                                  .head_dim = D,
                                  .rotary_dim = R,
                                  .first = d.first,
                                  .table_rows = TABLE_ROWS,
                                  .source = source,
                                  .base = d.base,
                                  .interleaved = b->variant->interleaved,
                                  .inverse = b->variant->inverse,
                                  .count_rows = args.count_rows,
                                  .stored = d.dtype,
                                  .x = clattn__bench_input_of(&b->t[CLATTN__ROPE_X]),
                                  .y = clattn__bench_want_of(&b->t[CLATTN__ROPE_Y]),
                                  .positions = clattn__bench_input_of(&b->t[CLATTN__ROPE_POSITIONS]),
                                  .cosine = clattn__bench_input_of(&b->t[CLATTN__ROPE_COSINE]),
                                  .sine = clattn__bench_input_of(&b->t[CLATTN__ROPE_SINE]),
                                  .tolerance = clattn__bench_tolerance_of(&b->t[CLATTN__ROPE_Y])};
    clattn__ref_rope_run(&ref);
    clattn_status status = clattn__rope_create(&b->op, &b->context->programs, &d, NULL, NULL);
    return clattn__bench_finish(b, status, &args, sizeof args);
}

/* ---- softmax ----------------------------------------------------------------------------------------------------- */

/* With the axis of the row last, as the reference counts. */
static clattn__ref_array along(clattn__ref_array a, int axis) {
    const int64_t stride = a.stride[axis];
    for (int i = axis; i < 3; i++) a.stride[i] = a.stride[i + 1];
    a.stride[3] = stride;
    return a;
}

/* Some elements are forbidden, and NaN; in one row all of them. */
static void fill_mask(clattn__bench *b, int axis) {
    const clattn__bench_tensor *x = &b->t[SOFTMAX_X];
    for (int64_t i = 0; i < clattn__bench_dense_count(x); i++) {
        const bool first_row = axis == 3 ? i < x->extent[3] : i % (x->extent[2] * x->extent[3]) == 0;
        const bool allowed = clattn__bench_noise(b) > -0.5 && !first_row;
        clattn__bench_set(b, SOFTMAX_MASK, i, allowed);
        if (!allowed) clattn__bench_set(b, SOFTMAX_X, i, NAN);
    }
}

static bool add_softmax(clattn__bench *b, const clattn_softmax_desc *d) {
    const int64_t *e = d->shape;
    int64_t kept[4] = {e[0], e[1], e[2], e[3]};
    kept[d->axis] = 1;
    const bool loss = d->kind == CLATTN_SOFTMAX_CROSS_ENTROPY, backward = d->kind == CLATTN_SOFTMAX_BACKWARD;
    if (!clattn__bench_add_filled(b, SOFTMAX_X, b->variant->dtype, e[1], e[2], e[3], backward ? 1 : SIZES[b->which]))
        return false;
    if (d->mask && !clattn__bench_add(b, SOFTMAX_MASK, CLATTN_BOOL, e[0], e[1], e[2], e[3])) return false;
    if (d->mask) fill_mask(b, d->axis);
    if (backward && !clattn__bench_add_filled(b, SOFTMAX_SECOND, b->variant->dtype, e[1], e[2], e[3], SIZES[b->which]))
        return false;
    if (!backward && !clattn__bench_add_output(b, SOFTMAX_PROBABILITY, b->variant->dtype, e[0], e[1], e[2], e[3]))
        return false;
    if ((backward || loss) && !clattn__bench_add_output(b, SOFTMAX_GRAD, b->variant->dtype, e[0], e[1], e[2], e[3]))
        return false;
    if (!loss) return true;
    if (!clattn__bench_add(b, SOFTMAX_SECOND, CLATTN_I32, kept[0], kept[1], kept[2], kept[3])) return false;
    for (int64_t i = 0; i < clattn__bench_dense_count(&b->t[SOFTMAX_SECOND]); i++) /* every fifth row has no label */
        clattn__bench_set(b, SOFTMAX_SECOND, i, i % 5 == 4 ? -100.0 : (double)(i * 11 % e[d->axis]));
    return clattn__bench_add_output(b, SOFTMAX_LOSS, CLATTN_F32, kept[0], kept[1], kept[2], kept[3]);
}

static clattn_softmax_kind softmax_kind(const char *name) {
    return strcmp(name, "softmax_forward") == 0    ? CLATTN_SOFTMAX_FORWARD
           : strcmp(name, "softmax_backward") == 0 ? CLATTN_SOFTMAX_BACKWARD
                                                   : CLATTN_SOFTMAX_CROSS_ENTROPY;
}

static clattn_status verify_softmax(clattn__bench *b) {
    static const int axes[CASES] = {3, 1, 3};
    clattn_softmax_desc d;
    clattn_softmax_desc_init(&d);
    d.kind = softmax_kind(b->name);
    d.rank = 4, d.axis = axes[b->which], d.temperature = b->which == 2 ? 2.0f : 1.0f, d.mask = b->which > 0;
    for (int i = 0; i < 4; i++)
        d.shape[i] = d.mask_shape[i] = i == d.axis ? b->width : i == 0 ? CLATTN__BENCH_BATCH : CLATTN__BENCH_ROWS;
    d.probability = d.gradient = d.kind == CLATTN_SOFTMAX_CROSS_ENTROPY;
    clattn_softmax_shape shape;
    clattn__softmax_shape(&d, &shape);
    if (!add_softmax(b, &d)) return CLATTN_OUT_OF_MEMORY;
    const clattn__bench_tensor *t = b->t;
    const clattn__ref_softmax ref = {.kind = d.kind,
                                     .stored = b->variant->dtype,
                                     .outer = {shape.outer[0], shape.outer[1], shape.outer[2]},
                                     .n = b->width,
                                     .temperature = (double)d.temperature,
                                     .x = along(clattn__bench_input_of(&t[SOFTMAX_X]), d.axis),
                                     .mask = along(clattn__bench_input_of(&t[SOFTMAX_MASK]), d.axis),
                                     .second = along(clattn__bench_input_of(&t[SOFTMAX_SECOND]), d.axis),
                                     .probability = along(clattn__bench_want_of(&t[SOFTMAX_PROBABILITY]), d.axis),
                                     .loss = along(clattn__bench_want_of(&t[SOFTMAX_LOSS]), d.axis),
                                     .gradient = along(clattn__bench_want_of(&t[SOFTMAX_GRAD]), d.axis),
                                     .probability_tolerance =
                                         along(clattn__bench_tolerance_of(&t[SOFTMAX_PROBABILITY]), d.axis),
                                     .loss_tolerance = along(clattn__bench_tolerance_of(&t[SOFTMAX_LOSS]), d.axis),
                                     .gradient_tolerance = along(clattn__bench_tolerance_of(&t[SOFTMAX_GRAD]), d.axis)};
    clattn__ref_softmax_run(&ref);
    clattn_status status = clattn__softmax_create(&b->op, &b->context->programs, b->variant->dtype, d.kind);
    return clattn__bench_finish(b, status, &shape, sizeof shape);
}

/* ---- key/value cache --------------------------------------------------------------------------------------------- */

enum { TOKENS = CLATTN__CACHE_TOKENS, CELLS = CLATTN__CACHE_CELLS, SCALES = CLATTN__CACHE_SCALES };
enum { DENSE = 0, PAGED = 1, RING = 2 }; /* the cases */

typedef struct cache_case {
    bool gathers;
    clattn_cache_args args;
    int32_t lengths[CLATTN__BENCH_BATCH], table[CLATTN__BENCH_BATCH * 16]; /* as the reference sees them */
    clattn__ref_cache ref;
} cache_case;

/* Quotients by the row's scale, which is a power of two, stay away from halves: no rounding of a division matters. */
static void fill_tokens(clattn__bench *b) {
    const clattn__bench_tensor *t = &b->t[TOKENS];
    for (int64_t i = 0; i < clattn__bench_dense_count(t); i++) {
        const double scale = ldexp(1, (int)(i / t->extent[3] % 5)), number = floor(clattn__bench_noise(b) * 31) + 0.25;
        clattn__bench_set(b, TOKENS, i, scale * (i % t->extent[3] == 0 ? -127 : number));
    }
}

/* Cells lie as (entry, row, head, column), so that a ring is a paged cache with pages of one row. */
static bool add_cells(clattn__bench *b, int slot, clattn_dtype dtype, bool output, int entries, int rows, int columns) {
    const bool made = output ? clattn__bench_add_output(b, slot, dtype, entries, rows, HEADS, columns)
                             : clattn__bench_add(b, slot, dtype, entries, rows, HEADS, columns);
    if (!made) return false;
    if (!output) clattn__bench_fill(b, slot, dtype == CLATTN_I8 ? 127 : 1e4);
    clattn_place *place = &b->t[slot].place;
    const int64_t row = place->head;
    place->head = place->row;
    place->row = row;
    b->call.place[slot] = *place;
    return true;
}

static bool add_cache(clattn__bench *b, cache_case *c) {
    static const int lengths[CASES][CLATTN__BENCH_BATCH] = {{5, 0}, {5, 0}, {12, 2}};
    static const int table[2][4] = {{4, 0, 3, 6}, {1, 9, 5, 2}}; /* 9 is outside */
    const clattn_dtype tokens = b->variant->dtype, cells = b->variant->cells;
    const int entries = c->args.cells.page_size ? c->args.cells.pages : CLATTN__BENCH_BATCH;
    const int rows = c->args.cells.page_size ? c->args.cells.page_size : c->args.cells.capacity;
    const bool in = c->gathers;
    if (!(in ? clattn__bench_add_output(b, TOKENS, tokens, CLATTN__BENCH_BATCH, HEADS, c->args.rows, b->width)
             : clattn__bench_add(b, TOKENS, tokens, CLATTN__BENCH_BATCH, HEADS, c->args.rows, b->width)) ||
        !add_cells(b, CELLS, cells, !in, entries, rows, b->width) ||
        (cells == CLATTN_I8 && !add_cells(b, SCALES, CLATTN_F32, !in, entries, rows, 1)) ||
        !clattn__bench_add(b, CLATTN__CACHE_LENGTHS, CLATTN_I32, CLATTN__BENCH_BATCH, 1, 1, 1) ||
        !clattn__bench_add(b, CLATTN__CACHE_TABLE, CLATTN_I32, CLATTN__BENCH_BATCH, 1, 4, 1))
        return false;
    if (!in) fill_tokens(b);
    for (int i = 0; i < CLATTN__BENCH_BATCH; i++)
        clattn__bench_set(b, CLATTN__CACHE_LENGTHS, i, c->lengths[i] = lengths[b->which][i]);
    for (int i = 0; i < CLATTN__BENCH_BATCH * 4; i++) clattn__bench_set(b, CLATTN__CACHE_TABLE, i, table[i / 4][i % 4]);
    return true;
}

/* The reference knows no ring, but pages of one row that are used again. */
static void unroll_ring(cache_case *c) {
    const int capacity = c->args.cells.capacity;
    for (int b = 0; b < CLATTN__BENCH_BATCH; b++) {
        const int first = c->gathers && c->lengths[b] > capacity ? c->lengths[b] - capacity : 0;
        c->lengths[b] -= first;
        for (int t = 0; t < 16; t++) c->table[b * 16 + t] = b * capacity + (first + t) % capacity;
    }
    c->ref.capacity = 16;
    c->ref.page_size = 1;
    c->ref.pages = CLATTN__BENCH_BATCH * capacity;
    c->ref.cells.stride[0] = c->ref.cells.stride[2];
    c->ref.scales.stride[0] = c->ref.scales.stride[2];
    c->ref.table = (clattn__ref_array){c->table, CLATTN_I32, {16, 0, 1, 1}};
    c->ref.lengths = (clattn__ref_array){c->lengths, CLATTN_I32, {1, 0, 0, 0}};
}

/* Where the reference writes: into a copy of what the output is before the run. */
static clattn__ref_array copy_of(const clattn__bench_tensor *t) {
    if (!t->want) return clattn__bench_input_of(t);
    memcpy(t->first, t->start, t->count * clattn_dtype_size(t->dtype));
    return clattn__bench_array_of(t, t->first, t->dtype);
}

/* What changed in that copy is wanted, to the bit but for scales; the rest stays. */
static void expect_copy(const clattn__bench_tensor *t, double tolerance) {
    for (size_t i = 0; t->want && i < t->count; i++) {
        if (clattn__bench_same_bits(t, t->first, t->start, i)) continue;
        t->want[i] = clattn__ref_load(t->first, t->dtype, (int64_t)i);
        t->tolerance[i] = tolerance * fabs(t->want[i]);
    }
}

static void run_reference(clattn__bench *b, cache_case *c) {
    const clattn__bench_tensor *tokens = &b->t[TOKENS];
    c->ref = (clattn__ref_cache){.batch = CLATTN__BENCH_BATCH,
                                 .heads = HEADS,
                                 .rows = c->args.rows,
                                 .width = b->width,
                                 .capacity = c->args.cells.capacity,
                                 .page_size = c->args.cells.page_size,
                                 .pages = c->args.cells.pages,
                                 .tokens = copy_of(tokens),
                                 .cells = copy_of(&b->t[CELLS]),
                                 .scales = copy_of(&b->t[SCALES]),
                                 .lengths = clattn__bench_input_of(&b->t[CLATTN__CACHE_LENGTHS]),
                                 .table = clattn__bench_input_of(&b->t[CLATTN__CACHE_TABLE])};
    if (b->which == RING) unroll_ring(c);
    for (int64_t i = 0; c->args.fill && i < clattn__bench_dense_count(tokens); i++)
        clattn__ref_store(tokens->first, tokens->dtype, clattn__bench_at(tokens, i), 0);
    (c->gathers ? clattn__ref_cache_gather : clattn__ref_cache_append)(&c->ref);
    expect_copy(tokens, 0);
    expect_copy(&b->t[CELLS], 0);
    expect_copy(&b->t[SCALES], 4 * u);
}

static clattn_status verify_cache(clattn__bench *b) {
    cache_case c = {.gathers = strcmp(b->name, "kv_gather") == 0};
    const bool by_row = b->variant->cells == CLATTN_I8 && !c.gathers;
    c.args = (clattn_cache_args){.batch = CLATTN__BENCH_BATCH,
                                 .heads = HEADS,
                                 .rows = c.gathers ? 8 : CLATTN__BENCH_ROWS,
                                 .width = b->width,
                                 .cells = {.capacity = 7,
                                           .page_size = b->which == PAGED ? 2 : 0,
                                           .pages = b->which == PAGED ? 7 : 0,
                                           .ring = b->which == RING},
                                 .fill = c.gathers && b->which != DENSE,
                                 .items = by_row ? 1 : b->width};
    if (!add_cache(b, &c)) return CLATTN_OUT_OF_MEMORY;
    run_reference(b, &c);
    clattn_status status =
        clattn__cache_create(&b->op, &b->context->programs, b->name, b->variant->dtype, b->variant->cells);
    return clattn__bench_finish(b, status, &c.args, sizeof c.args);
}

/* ---- all of them ------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name; /* of the kernel's entry */
    clattn_status (*verify)(clattn__bench *b);
    int cases;
} kinds[] = {{"rows", verify_rows, CASES},
             {"layer_norm", verify_layer_norm, CASES},
             {"batch_statistics", verify_batch_statistics, CASES},
             {"batch_apply", verify_batch_apply, CASES},
             {"elementwise", verify_elementwise, CASES},
             {"sinusoidal", verify_positions, CASES},
             {"learned", verify_positions, CASES},
             {"rope", verify_rope, CASES},
             {"softmax_forward", verify_softmax, CASES},
             {"softmax_backward", verify_softmax, CASES},
             {"softmax_cross_entropy", verify_softmax, CASES},
             {"kv_append", verify_cache, CASES},
             {"kv_gather", verify_cache, CASES},
             {"mma_probe", clattn__verify_engine, MATRIX_PROBE_COUNT},
             {"chain_cpu", clattn__verify_chain, CASES}};

clattn_status clattn__op_verify(clattn_context *context, const char *name, const clattn__op_variant *variant,
                                clattn__verify_stats *stats, clattn__program **program) {
    clattn__verify_stats own = {0};
    clattn_status status = CLATTN_OK;
    size_t kind = 0;
    while (kind < CLATTN__COUNT(kinds) && strcmp(kinds[kind].name, name) != 0) kind++;
    if (kind == CLATTN__COUNT(kinds)) return clattn__fail(CLATTN_UNSUPPORTED, "nothing verifies the kernel %s", name);
    for (int i = 0; i < kinds[kind].cases && status == CLATTN_OK; i++) {
        clattn__bench b = {.context = context,
                           .name = name,
                           .variant = variant,
                           .which = i,
                           .width = WIDTHS[i % CASES],
                           .seed = 20170612u + (uint64_t)i};
        status = kinds[kind].verify(&b);
        if (program) *program = b.op.program;
        own.cases += status != CLATTN_UNSUPPORTED; /* then nothing ran */
        own.failures += status != CLATTN_OK && status != CLATTN_UNSUPPORTED;
        if (!isnan(own.worst) && !(b.worst <= own.worst)) own.worst = b.worst;
        clattn__bench_clear(&b);
    }
    if (stats) *stats = own;
    return status;
}

void clattn__op_trust_key(const clattn_context *context, const char *name, const clattn__program *program,
                          char key[33]) {
    char entry[96];
    snprintf(entry, sizeof entry, "%s|%s", program->key, name);
    clattn__trust_key(&context->env, entry, key);
}

clattn_status clattn__op_trust(clattn_context *context, const clattn__op *op) {
    char key[33];
    if (context->env.verify == CLATTN_VERIFY_NEVER) return CLATTN_OK;
    clattn__op_trust_key(context, op->name, op->program, key);
    switch (clattn__trust_get(context, key)) {
    case CLATTN_TRUST_VERIFIED:
        return CLATTN_OK;
    case CLATTN_TRUST_QUARANTINED:
        return clattn__trust_quarantined(context, op->name, key);
    case CLATTN_TRUST_UNKNOWN:
        break;
    }
    return clattn__trust_record(context, op->name, op->program, key,
                                clattn__op_verify(context, op->name, &op->variant, NULL, NULL));
}
