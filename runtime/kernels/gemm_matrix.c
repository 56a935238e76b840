/* Host half of cl/gemm_matrix.cl: tiles by engine, and the weight as a sum of 16-bit parts. */
#include "../../cl/shared/matrix.h"

#include <math.h>
#include <stdio.h>

#include "kernels/gemm.h"
#include "kernels/matrix.h"

/* Tile shapes by engine, the large one first; rows were chosen by what the vendors' compilers make of them. */
static const struct gemm_shape {
    int engine, waves, column_waves, row_tiles, block_n, block_k, stages;
    bool prefetch;
} shapes[] = {
    {MATRIX_NV, 4, 1, 2, 128, 64, 2, false},     {MATRIX_NV, 4, 1, 1, 64, 64, 2, false},
    {MATRIX_WMMA11, 4, 1, 2, 128, 32, 1, true},  {MATRIX_WMMA11, 4, 1, 1, 64, 32, 1, true},
    {MATRIX_WMMA12, 4, 1, 2, 128, 32, 1, true},  {MATRIX_WMMA12, 4, 1, 1, 64, 32, 1, true},
    {MATRIX_MFMA32, 4, 1, 2, 128, 32, 1, true},  {MATRIX_MFMA32, 4, 1, 1, 64, 32, 1, true},
    {MATRIX_DPAS8, 16, 4, 4, 128, 32, 1, false}, {MATRIX_DPAS8, 8, 2, 2, 64, 32, 1, false},
    {MATRIX_DPAS16, 8, 2, 2, 128, 32, 1, false}, {MATRIX_DPAS16, 4, 2, 1, 128, 32, 1, false},
};

typedef struct gemm_plan {
    int waves, column_waves, row_tiles, block_n, block_k, stages, items, block_m;
    bool prefetch;
    size_t local_bytes;
} gemm_plan;

/* Columns of a row tile of sums that leave through local memory at once. */
static int out_columns(const gemm_plan *plan, const clattn__matrix_engine *engine) {
    const int own = plan->block_n / plan->column_waves;
    return engine->m < 32 && own % 64 == 0 ? 64 : own % 32 == 0 ? 32 : 16;
}

static gemm_plan plan_of_params(const clattn__params *params, const clattn__caps *caps) {
    const clattn__matrix_engine *engine = clattn__matrix_engine_of(caps);
    const int *v = params->value;
    gemm_plan plan = {.waves = v[0],
                      .column_waves = v[1],
                      .row_tiles = v[2],
                      .block_n = v[3],
                      .block_k = v[4],
                      .stages = v[5],
                      .prefetch = v[6] != 0};
    if (caps->matrix.emulated && plan.waves > 2) { /* each lane costs a work-item's stack */
        const int own = plan.block_n / plan.column_waves;
        plan.waves = 2;
        if (plan.column_waves > 2) plan.column_waves = 2;
        plan.block_n = own * plan.column_waves;
    }
    plan.items = plan.waves * engine->lanes;
    plan.block_m = plan.waves / plan.column_waves * plan.row_tiles * engine->m;
    const size_t weight = (size_t)(plan.stages * plan.block_n * (plan.block_k + 8)) * sizeof(uint16_t);
    const size_t sums = (size_t)(plan.waves * engine->m * (out_columns(&plan, engine) + 4)) * sizeof(float);
    plan.local_bytes = (weight > sums ? weight : sums) + clattn__matrix_exchange(caps, plan.waves);
    return plan;
}

static bool fits(const gemm_plan *plan, const clattn__caps *caps) {
    return (uint64_t)plan->items <= caps->max_work_group && (uint64_t)plan->items <= caps->max_item_sizes[0] &&
           plan->local_bytes + CLATTN__MATRIX_RESERVE <= caps->local_memory;
}

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

/* Large tiles first where they are enough to give every compute unit one, else small ones. */
static void candidates(const clattn__gemm_problem *problem, const clattn__caps *caps, clattn__candidates *list) {
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < CLATTN__COUNT(shapes); i++) {
            const struct gemm_shape *s = &shapes[i];
            if (s->engine != caps->matrix.engine) continue;
            const clattn__params params = {
                {s->waves, s->column_waves, s->row_tiles, s->block_n, s->block_k, s->stages, s->prefetch}};
            const gemm_plan plan = plan_of_params(&params, caps);
            const int64_t groups = ceil_div(problem->m, plan.block_m) * ceil_div(problem->n, plan.block_n);
            if (fits(&plan, caps) && (pass > 0 || groups >= (int64_t)caps->compute_units))
                clattn__candidates_add(list, params);
        }
    }
    /* none is enough: the smallest comes first */
    const int64_t count = list->count;
    if (count > 1) {
        const gemm_plan first = plan_of_params(&list->set[0], caps);
        if (ceil_div(problem->m, first.block_m) * ceil_div(problem->n, first.block_n) < (int64_t)caps->compute_units) {
            const clattn__params last = list->set[count - 1];
            clattn__candidates_prefer(list, &last);
        }
    }
}

static bool supports(const clattn__gemm_problem *problem, const clattn__caps *caps, clattn__refusal *why) {
    clattn__candidates list = {.count = 0};
    if (!clattn__matrix_serves(problem->dtype, caps, why)) return false;
    candidates(problem, caps, &list);
    if (list.count == 0)
        return clattn__refuse(
            why, "none of its tiles fits %llu bytes of local memory (%d reserved) and %llu work-items per group",
            (unsigned long long)caps->local_memory, CLATTN__MATRIX_RESERVE, (unsigned long long)caps->max_work_group);
    return clattn__gemm_fits(problem, why);
}

/* ---- the weight -------------------------------------------------------------------------------------------------- */

static uint16_t narrow(clattn_dtype dtype, float value) {
    return dtype == CLATTN_F16 ? clattn__float_to_half(value) : clattn__float_to_bf16(value);
}

static float widen(clattn_dtype dtype, uint16_t bits) {
    return dtype == CLATTN_F16 ? clattn__half_to_float(bits) : clattn__bf16_to_float(bits);
}

/* One part when all elements fit the storage type. Else as many as hold 22 bits or more of float32's 24: two of float16
 * (11 bits each), three of bfloat16 (8 each). */
static int count_parts(const clattn__gemm_problem *problem, const float *w, int64_t w_row) {
    for (int64_t c = 0; c < problem->n; c++)
        for (int64_t i = 0; i < problem->k; i++) {
            const float value = w[c * w_row + i];
            if (!(widen(problem->dtype, narrow(problem->dtype, value)) == value))
                return problem->dtype == CLATTN_F16 ? 2 : 3;
        }
    return 1;
}

/* float16 has few exponents: a column's greatest element is brought to 2^13..2^14, so that later parts stay normal. */
static int exponent_of(const clattn__gemm_problem *problem, const float *column, int parts) {
    float most = 0;
    int exponent = 0;
    if (problem->dtype != CLATTN_F16 || parts == 1) return 0;
    for (int64_t i = 0; i < problem->k; i++)
        if (isfinite(column[i])) most = fmaxf(most, fabsf(column[i]));
    frexpf(most, &exponent);
    return most > 0 ? 14 - exponent : 0;
}

/* One column of a block, at `column` in it; the parts of the block are `block` elements apart, and so many times that
 * its neighbours along the depth. */
static void pack_column(const clattn__gemm_kernel *kernel, const float *w, int exponent, uint16_t *to, int column) {
    const clattn__gemm_problem *p = &kernel->problem;
    const int engine = kernel->programs->env->device.caps.matrix.engine, block_k = kernel->block_k;
    const int64_t block = (int64_t)kernel->block_n * block_k;
    for (int64_t i = 0; i < p->k; i++) {
        const int depth = matrix_depth_at(engine, (int)(i % block_k));
        uint16_t *at = to + i / block_k * kernel->weight_parts * block;
        at += matrix_weight_at(engine, column, depth, block_k);
        float rest = ldexpf(w[i], exponent);
        for (int part = 0; part < kernel->weight_parts; part++) {
            const uint16_t bits = narrow(p->dtype, rest);
            at[part * block] = bits;
            rest = isfinite(widen(p->dtype, bits)) ? rest - widen(p->dtype, bits) : 0; /* exact: Sterbenz's lemma */
        }
    }
}

static clattn_status upload(clattn__gemm_kernel *kernel, clattn__buffer *buffer, const void *host, size_t bytes) {
    clattn__env *env = kernel->programs->env;
    clattn_status status = clattn__buffer_create(env, bytes, buffer);
    return status == CLATTN_OK ? clattn__buffer_write(env, buffer->mem, 0, bytes, host) : status;
}

static clattn_status pack(clattn__gemm_kernel *kernel, const float *w, int64_t w_row, const float *bias) {
    const clattn__gemm_problem *p = &kernel->problem;
    const int64_t columns = round_up(p->n, kernel->block_n), depth = round_up(p->k, kernel->block_k);
    size_t bytes;
    kernel->weight_parts = count_parts(p, w, w_row);
    if (!clattn__volume((const int64_t[]){columns, kernel->weight_parts, depth}, 3, sizeof(uint16_t), &bytes))
        return clattn__fail(CLATTN_INVALID_SHAPE, "a weight of %lld x %lld elements does not fit the address space",
                            (long long)p->n, (long long)p->k);
    uint16_t *packed = clattn__alloc(bytes / sizeof *packed, sizeof *packed);
    float *rows = clattn__gemm_scratch(2, columns); /* the bias, the factors */
    clattn_status status = packed && rows ? CLATTN_OK : CLATTN_OUT_OF_MEMORY;
    for (int64_t c = 0; c < p->n && status == CLATTN_OK; c++) {
        const float *column = w + c * w_row;
        const int exponent = exponent_of(p, column, kernel->weight_parts);
        pack_column(kernel, column, exponent,
                    packed + c / kernel->block_n * kernel->block_n * kernel->weight_parts * depth,
                    (int)(c % kernel->block_n));
        rows[c] = bias ? bias[c] : 0;
        rows[columns + c] = ldexpf(1, -exponent);
    }
    if (status == CLATTN_OK) status = upload(kernel, &kernel->weight, packed, bytes);
    if (status == CLATTN_OK) status = upload(kernel, &kernel->bias, rows, (size_t)(2 * columns) * sizeof *rows);
    clattn__free(rows);
    clattn__free(packed);
    return status;
}

/* ---- building and running ---------------------------------------------------------------------------------------- */

static clattn_status build(clattn__gemm_kernel *kernel, const gemm_plan *plan) {
    const clattn__caps *caps = &kernel->programs->env->device.caps;
    clattn__options options;
    clattn__options_start(&options);
    clattn__storage_options(&options, kernel->problem.dtype);
    clattn__options_int(&options, "ACTIVATION", (int)kernel->problem.activation);
    clattn__options_int(&options, "WAVES", plan->waves);
    clattn__options_int(&options, "COLUMN_WAVES", plan->column_waves);
    clattn__options_int(&options, "QT", plan->row_tiles);
    clattn__options_int(&options, "BLOCK_N", plan->block_n);
    clattn__options_int(&options, "BLOCK_K", plan->block_k);
    clattn__options_int(&options, "STAGES", plan->stages);
    clattn__options_int(&options, "PREFETCH", plan->prefetch);
    clattn__matrix_options(&options, caps);
    clattn_status status = clattn__program_get(kernel->programs, "gemm_matrix.cl", &options, &kernel->program);
    if (status == CLATTN_OK)
        status = clattn__kernel_create(kernel->programs, kernel->program, "gemm_matrix", &kernel->kernel);
    if (status != CLATTN_OK) return status;
    const size_t most = clattn__kernel_most_items(kernel->programs, kernel->kernel);
    if ((size_t)plan->items > most)
        return clattn__fail(
            CLATTN_UNSUPPORTED,
            "gemm_matrix: the built kernel runs with at most %zu work-items per group on %s; its tile needs %d", most,
            caps->name, plan->items);
    return CLATTN_OK;
}

static clattn_status prepare(clattn__gemm_kernel *kernel, const float *w, int64_t w_row, const float *bias) {
    const clattn__caps *caps = &kernel->programs->env->device.caps;
    const gemm_plan plan = plan_of_params(&kernel->params, caps);
    clattn_status status = build(kernel, &plan);
    if (status != CLATTN_OK) return status;
    kernel->block_m = plan.block_m;
    kernel->block_n = plan.block_n;
    kernel->block_k = plan.block_k;
    kernel->items = plan.items;
    status = pack(kernel, w, w_row, bias);
    snprintf(kernel->tiles, sizeof kernel->tiles,
             "%d rows x %d columns x %d steps of k, %d work-items, %zu bytes local, weight in %d parts of 16 bits%s",
             plan.block_m, plan.block_n, plan.block_k, plan.items, plan.local_bytes, kernel->weight_parts,
             caps->matrix.emulated ? ", emulated" : "");
    return status;
}

static clattn_status enqueue(clattn__gemm_kernel *kernel, const clattn__gemm_call *call) {
    clattn_gemm_args args = clattn__gemm_plain_args(call);
    args.weight_parts = kernel->weight_parts;
    return clattn__gemm_enqueue_blocks(kernel, call, &args, (size_t)kernel->items);
}

const clattn__gemm_impl clattn__gemm_matrix = {
    .name = "gemm_matrix",
    .what = "matrix engines of NVIDIA, AMD and Intel GPUs, 16-bit storage",
    .splits_heads = true,
    .has_rival = true,
    .uses_engine = true,
    .activates = true,
    .rounds_operands = true,
    .supports = supports,
    .params = {"waves", "column_waves", "row_tiles", "block_n", "block_k", "stages", "prefetch"},
    .candidates = candidates,
    .prepare = prepare,
    .enqueue = enqueue,
};
