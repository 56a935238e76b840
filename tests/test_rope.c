/* Rotary positions against the reference, and against bad input. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clattn/clattn.h"
#include "harness.h"
#include "kv_data.h"

static clattn_context *context;

typedef struct rope_case {
    int64_t batch, heads, rows, head_dim, rotary_dim;
    clattn_rope_style style;
    clattn_rope_source source;
    clattn_rope_positions positions;
    int64_t first;
    int inverse;
    double base;
} rope_case;

static const rope_case rope_cases[] = {
    {2, 3, 7, 64, 0, CLATTN_ROPE_HALF_SPLIT, CLATTN_ROPE_COMPUTED, CLATTN_ROPE_NO_POSITIONS, 0, 0, 10000},
    {1, 2, 9, 80, 32, CLATTN_ROPE_INTERLEAVED, CLATTN_ROPE_COMPUTED, CLATTN_ROPE_NO_POSITIONS, 200000000, 0, 500000},
    {2, 1, 5, 6, 4, CLATTN_ROPE_HALF_SPLIT, CLATTN_ROPE_COMPUTED, CLATTN_ROPE_POSITIONS_BY_ROW, -3, 0, 10000},
    {3, 2, 4, 33, 2, CLATTN_ROPE_INTERLEAVED, CLATTN_ROPE_COMPUTED, CLATTN_ROPE_POSITIONS_BY_ENTRY, 0, 1, 10000},
    {2, 2, 5, 16, 0, CLATTN_ROPE_HALF_SPLIT, CLATTN_ROPE_TABLE, CLATTN_ROPE_POSITIONS_BY_ROW, 0, 0, 10000},
    {2, 2, 5, 16, 8, CLATTN_ROPE_INTERLEAVED, CLATTN_ROPE_TABLE, CLATTN_ROPE_POSITIONS_BY_ENTRY, 3, 1, 10000},
    {1, 2, 5, 16, 8, CLATTN_ROPE_HALF_SPLIT, CLATTN_ROPE_TABLE, CLATTN_ROPE_NO_POSITIONS, 4, 0, 10000},
    {2, 4, 3, 8, 4, CLATTN_ROPE_INTERLEAVED, CLATTN_ROPE_ROWS, CLATTN_ROPE_NO_POSITIONS, 0, 0, 10000},
    {0, 4, 3, 8, 4, CLATTN_ROPE_INTERLEAVED, CLATTN_ROPE_COMPUTED, CLATTN_ROPE_NO_POSITIONS, 0, 0, 10000},
    {2, 4, 0, 8, 4, CLATTN_ROPE_INTERLEAVED, CLATTN_ROPE_COMPUTED, CLATTN_ROPE_NO_POSITIONS, 0, 0, 10000},
};

enum { TABLE_ROWS = 40 };

static void describe_rope(const rope_case *r, clattn_rope_desc *d) {
    clattn_rope_desc_init(d);
    d->batch = r->batch;
    d->heads = r->heads;
    d->rows = r->rows;
    d->head_dim = r->head_dim;
    d->rotary_dim = r->rotary_dim;
    d->style = r->style;
    d->source = r->source;
    d->positions = r->positions;
    d->first = r->first;
    d->inverse = r->inverse;
    d->base = r->base;
    d->table_rows = r->source == CLATTN_ROPE_TABLE ? TABLE_ROWS : 0;
}

/* (B, L, H*D) seen as (B, H, L, D). */
static clattn_tensor token_view(const void *data, const rope_case *r, clattn_dtype dtype) {
    clattn_tensor t = clattn_host(data, dtype, 4, r->batch, r->heads, r->rows, r->head_dim);
    const int64_t stride[4] = {r->rows * r->heads * r->head_dim, r->head_dim, r->heads * r->head_dim, 1};
    memcpy(t.stride, stride, sizeof stride);
    return t;
}

static void run_rope_case(const rope_case *r, int index) {
    clattn_random random = {100 + (uint64_t)index};
    clattn_rope_desc d;
    describe_rope(r, &d);
    const int64_t count = r->batch * r->heads * r->rows * r->head_dim;
    const int64_t pairs = (r->rotary_dim ? r->rotary_dim : r->head_dim) / 2;
    const int64_t turns = r->source == CLATTN_ROPE_ROWS ? r->batch * r->rows * pairs : TABLE_ROWS * pairs;
    float *x = normal(&random, count), *y = guarded(count, 4), *want = guarded(count, 4);
    float *tolerance = guarded(count, 4), *cosine = normal(&random, turns), *sine = normal(&random, turns);
    int32_t *positions = guarded(r->batch * r->rows, 4);
    for (int64_t i = 0; i < r->batch * r->rows; i++) positions[i] = (int32_t)(5 + i * 3 % 17);
    clattn_rope_io io = {.input = token_view(x, r, CLATTN_F32), .output = token_view(y, r, CLATTN_F32)};
    if (r->positions == CLATTN_ROPE_POSITIONS_BY_ROW)
        io.positions = clattn_host(positions, CLATTN_I32, 2, r->batch, r->rows, 0, 0);
    if (r->positions == CLATTN_ROPE_POSITIONS_BY_ENTRY)
        io.positions = clattn_host(positions, CLATTN_I32, 1, r->batch, 0, 0, 0);
    const bool table = r->source == CLATTN_ROPE_TABLE;
    if (r->source != CLATTN_ROPE_COMPUTED) {
        io.cosine = clattn_host(cosine, CLATTN_F32, table ? 2 : 3, table ? TABLE_ROWS : r->batch,
                                table ? pairs : r->rows, pairs, 0);
        io.sine = io.cosine;
        io.sine.data = sine;
    }
    clattn_rope *rope = NULL;
    char what[64];
    snprintf(what, sizeof what, "rope case %d", index);
    if (CHECK(clattn_rope_create(&rope, context, &d) == CLATTN_OK, "%s: %s", what, clattn_last_error()))
        CHECK(clattn_rope_run(rope, &io) == CLATTN_OK, "%s: %s", what, clattn_last_error());
    clattn_rope_destroy(&rope);
    io.input = clattn_host(x, CLATTN_F32, 4, r->batch, r->heads, r->rows, r->head_dim);
    float *permuted = guarded(count, 4); /* the reference writes dense tolerances, so it gets dense tensors */
    for (int64_t b = 0; b < r->batch; b++)
        for (int64_t h = 0; h < r->heads; h++)
            for (int64_t l = 0; l < r->rows; l++)
                memcpy(permuted + ((b * r->heads + h) * r->rows + l) * r->head_dim,
                       x + ((b * r->rows + l) * r->heads + h) * r->head_dim, (size_t)r->head_dim * 4);
    io.input.data = permuted;
    io.output = io.input;
    io.output.data = want;
    CHECK(clattn_reference_rope(&d, &io, tolerance) == CLATTN_OK, "%s: %s", what, clattn_last_error());
    for (int64_t b = 0; b < r->batch; b++)
        for (int64_t h = 0; h < r->heads; h++)
            for (int64_t l = 0; l < r->rows; l++) {
                const int64_t at = ((b * r->heads + h) * r->rows + l) * r->head_dim;
                clattn_check_close(y + ((b * r->rows + l) * r->heads + h) * r->head_dim, want + at, tolerance + at, 0,
                                   r->head_dim, what);
            }
    void *all[] = {x, y, want, tolerance, cosine, sine, positions, permuted};
    free_all(all, sizeof all / sizeof all[0]);
}

static void rope_against_reference(void) {
    for (size_t i = 0; i < sizeof rope_cases / sizeof rope_cases[0]; i++) run_rope_case(&rope_cases[i], (int)i);
}

static void bad_ropes(void) {
    clattn_rope_desc good, d;
    clattn_rope *rope = NULL;
    describe_rope(&rope_cases[4], &good);
    d = good, d.rotary_dim = 5;
    expect(clattn_rope_create(&rope, context, &d), CLATTN_INVALID_SHAPE, "rotary_dim is 5");
    d = good, d.rotary_dim = 18;
    expect(clattn_rope_create(&rope, context, &d), CLATTN_INVALID_SHAPE, "rotary_dim is 18");
    d = good, d.table_rows = 0;
    expect(clattn_rope_create(&rope, context, &d), CLATTN_INVALID_SHAPE, "table_rows is 0");
    d = good, d.style = (clattn_rope_style)2;
    expect(clattn_rope_create(&rope, context, &d), CLATTN_INVALID_ARGUMENT, "style is 2");
    d = good, d.source = CLATTN_ROPE_ROWS;
    expect(clattn_rope_create(&rope, context, &d), CLATTN_INVALID_ARGUMENT, "positions is 1");
    d = good, d.positions = CLATTN_ROPE_NO_POSITIONS, d.first = 36;
    expect(clattn_rope_create(&rope, context, &d), CLATTN_INVALID_ARGUMENT, "positions are 36..40");
    d = good, d.struct_size = 3;
    expect(clattn_rope_create(&rope, context, &d), CLATTN_INVALID_ARGUMENT, "struct_size");
    REQUIRE(clattn_rope_create(&rope, context, &good) == CLATTN_OK, "%s", clattn_last_error());
    float x[2 * 2 * 5 * 16] = {0}, y[2 * 2 * 5 * 16], table[TABLE_ROWS * 8] = {0};
    int32_t positions[10] = {0, 1, 2, 3, 4, 5, 6, 40, 8, 9};
    clattn_rope_io io = {.input = clattn_host(x, CLATTN_F32, 4, 2, 2, 5, 16),
                         .positions = clattn_host(positions, CLATTN_I32, 2, 2, 5, 0, 0),
                         .cosine = clattn_host(table, CLATTN_F32, 2, TABLE_ROWS, 8, 0, 0),
                         .sine = clattn_host(table, CLATTN_F32, 2, TABLE_ROWS, 8, 0, 0),
                         .output = clattn_host(y, CLATTN_F32, 4, 2, 2, 5, 16)};
    expect(clattn_rope_run(rope, &io), CLATTN_INVALID_ARGUMENT, "positions[1, 2] leads to 40");
    positions[7] = -1;
    expect(clattn_rope_run(rope, &io), CLATTN_INVALID_ARGUMENT, "positions[1, 2] leads to -1");
    positions[7] = 39;
    CHECK(clattn_rope_run(rope, &io) == CLATTN_OK, "%s", clattn_last_error());
    clattn_rope_destroy(&rope);
}

int main(int argc, char **argv) {
    static const clattn_test tests[] = {
        {"against_reference", rope_against_reference}, {"bad_input", bad_ropes}, {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"rope", tests}, {NULL, NULL}};
    return clattn_test_main_with(&context, CLATTN_VERIFY_ONCE, suites, argc, argv);
}
