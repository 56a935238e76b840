/* Verification of projections: the variant's own weight shape, a few ragged rows, strides with gaps, canaries, the
 * bias, accumulation, and two runs that must be bit-equal. */
#include "registry/registry.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ref/ref.h"

enum { BATCH = 2, ROWS = 5, LONG_ROWS = 67, GAP = 3, CANARIES = 64 };
static const uint32_t CANARY = 0x7fc17fc1u; /* that no arithmetic makes: a NaN, and as two elements of 16 bits too */

typedef struct gemm_stage {
    clattn_context *context;
    clattn__gemm_kernel kernel;
    int64_t rows; /* per batch */
    clattn_dtype dtype;
    void *x, *y, *first, *start; /* of dtype */
    float *w, *bias;
    double *want, *tolerance;
    float *x_plain; /* (m, k) without gaps */
    clattn__buffer x_device, y_device;
    clattn__gemm_call call;
    size_t y_count;
} gemm_stage;

static float noise(uint64_t *state) { /* xorshift64*, Vigna 2016: -1..1 */
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (float)((double)((*state * 0x2545f4914f6cdd1du) >> 11) * 0x1p-52 - 1.0);
}

/* Rounded to the storage type, so that the reference sees what the device does. */
static double put(const gemm_stage *s, void *data, int64_t i, double value) {
    clattn__ref_store(data, s->dtype, i, value);
    return clattn__ref_load(data, s->dtype, i);
}

static bool make(gemm_stage *s, const clattn__gemm_problem *p) {
    const int64_t m = BATCH * s->rows, x_row = p->k + GAP;
    const size_t x_count = (size_t)(m * x_row), unit = clattn_dtype_size(p->dtype);
    s->dtype = p->dtype;
    s->y_count = (size_t)(m * p->n) + 2 * CANARIES;
    s->x = clattn__alloc(x_count, unit);
    s->x_plain = clattn__alloc((size_t)(m * p->k), sizeof *s->x_plain);
    s->w = clattn__alloc((size_t)(p->n * p->k), sizeof *s->w);
    s->bias = clattn__alloc((size_t)p->n, sizeof *s->bias);
    s->y = clattn__alloc(s->y_count, unit);
    s->first = clattn__alloc(s->y_count, unit);
    s->start = clattn__alloc(s->y_count, unit);
    s->want = clattn__alloc((size_t)(m * p->n), sizeof *s->want);
    s->tolerance = clattn__alloc((size_t)(m * p->n), sizeof *s->tolerance);
    if (!s->x || !s->x_plain || !s->w || !s->bias || !s->y || !s->first || !s->start || !s->want || !s->tolerance)
        return false;
    uint64_t seed = 20170612;
    const float size = (float)(1.0 / sqrt((double)p->k));
    for (int64_t i = 0; i < m; i++)
        for (int64_t d = 0; d < x_row; d++) {
            const double value = put(s, s->x, i * x_row + d, d < p->k ? (double)noise(&seed) : NAN);
            if (d < p->k) s->x_plain[i * p->k + d] = (float)value;
        }
    for (int64_t i = 0; i < p->n * p->k; i++) s->w[i] = noise(&seed) * size;
    for (int64_t i = 0; i < p->n; i++) s->bias[i] = noise(&seed);
    s->call.args = (clattn_gemm_args){.x = {.batch = s->rows * x_row, .row = x_row},
                                      .y = {.offset = CANARIES, .batch = s->rows * p->n, .row = p->n},
                                      .m = (int)m,
                                      .n = (int)p->n,
                                      .k = (int)p->k,
                                      .rows = (int)s->rows,
                                      .width = (int)p->n,
                                      .part_columns = (int)p->n,
                                      .has_bias = p->bias};
    if (p->split_heads) { /* (B, heads, rows, width) */
        s->call.args.width = (int)p->width;
        s->call.args.y.head = s->rows * p->width;
        s->call.args.y.row = p->width;
    }
    clattn__env *env = &s->context->env;
    return clattn__buffer_create(env, x_count * unit, &s->x_device) == CLATTN_OK &&
           clattn__buffer_create(env, s->y_count * unit, &s->y_device) == CLATTN_OK &&
           clattn__buffer_write(env, s->x_device.mem, 0, x_count * unit, s->x) == CLATTN_OK;
}

static clattn_status run_once(gemm_stage *s) {
    clattn__env *env = &s->context->env;
    const size_t bytes = s->y_count * clattn_dtype_size(s->dtype);
    clattn_status status = clattn__buffer_write(env, s->y_device.mem, 0, bytes, s->start);
    s->call.x = s->x_device.mem;
    s->call.y = s->y_device.mem;
    if (status == CLATTN_OK) status = s->kernel.impl->enqueue(&s->kernel, &s->call);
    return status == CLATTN_OK ? clattn__buffer_read(env, s->y_device.mem, 0, bytes, s->y) : status;
}

/* Element (row i, column c) of the product lies here in y. */
static int64_t place_in_y(const clattn_gemm_args *a, int64_t i, int64_t c) {
    return a->y.offset + i / a->rows * a->y.batch + i % a->rows * a->y.row + c / a->width * a->y.head + c % a->width;
}

/* What no product of this size is off by: sum |x||w| <= k * 1/sqrt(k), and bias and what y holds are 1 at most. With
 * few terms it is less than what the error model allows. */
static double greatest_error(int64_t k) {
    const double root = sqrt((double)k);
    return CLATTN__REF_ROUNDOFF * fmin((double)k, 8 + 4 * root) * (root + 2);
}

/* Products of all rows and columns, and how far a device may be from them. */
static void set_expected(gemm_stage *s, const clattn__gemm_problem *p) {
    const int64_t m = s->call.args.m, count = m * p->n;
    const float *bias = p->bias ? s->bias : NULL;
    clattn__ref_linear(s->x_plain, p->k, s->w, bias, s->want, p->n, m, p->n, p->k);
    clattn__ref_linear_tolerance(s->x_plain, p->k, s->w, bias, s->tolerance, p->n, m, p->n, p->k);
    for (int64_t i = 0; i < count; i++) s->tolerance[i] = fmin(s->tolerance[i], greatest_error(p->k));
    clattn__ref_activate(p->activation, (clattn__ref_values){s->want, s->tolerance}, count);
}

static clattn_status compare(gemm_stage *s, const clattn__gemm_problem *p, bool accumulate, double *worst) {
    const clattn_gemm_args *a = &s->call.args;
    for (int64_t i = 0; i < a->m; i++) {
        for (int64_t c = 0; c < p->n; c++) {
            const int64_t at = place_in_y(a, i, c);
            const double before = accumulate ? clattn__ref_load(s->start, s->dtype, at) : 0;
            const double want = s->want[i * p->n + c] + before, got = clattn__ref_load(s->y, s->dtype, at);
            double tolerance = s->tolerance[i * p->n + c];
            if (accumulate)
                tolerance =
                    fmin(tolerance + clattn__ref_rounding(p->k + 1, fabs(before), before), greatest_error(p->k));
            tolerance += clattn__ref_storage_rounding(s->dtype, want);
            const double ratio = fabs(got - want) / tolerance;
            if (!(ratio <= *worst)) *worst = ratio;
            if (!(fabs(got - want) <= tolerance))
                return clattn__fail(
                    CLATTN_WRONG_RESULT,
                    "%s %lld x %lld x %lld: row %lld, column %lld is %.9g; the reference says %.9g, tolerance %.3g",
                    s->kernel.impl->name, (long long)a->m, (long long)p->n, (long long)p->k, (long long)i, (long long)c,
                    got, want, tolerance);
        }
    }
    const size_t edge = CANARIES * clattn_dtype_size(s->dtype), bytes = s->y_count * clattn_dtype_size(s->dtype);
    if (memcmp(s->y, s->start, edge) != 0 ||
        memcmp((char *)s->y + bytes - edge, (char *)s->start + bytes - edge, edge) != 0)
        return clattn__fail(CLATTN_WRONG_RESULT, "%s wrote outside its output", s->kernel.impl->name);
    return CLATTN_OK;
}

static clattn_status run_case(gemm_stage *s, const clattn__gemm_problem *p, bool accumulate, double *worst) {
    uint64_t seed = 99;
    s->call.args.accumulate = accumulate;
    for (size_t i = 0; i < s->y_count; i++) {
        if (accumulate && i >= CANARIES && i < s->y_count - CANARIES)
            put(s, s->start, (int64_t)i, (double)noise(&seed));
        else
            memcpy((char *)s->start + i * clattn_dtype_size(s->dtype), &CANARY, clattn_dtype_size(s->dtype));
    }
    clattn_status status = run_once(s);
    if (status == CLATTN_OK) status = compare(s, p, accumulate, worst);
    if (status != CLATTN_OK) return status;
    memcpy(s->first, s->y, s->y_count * clattn_dtype_size(s->dtype));
    status = run_once(s);
    if (status == CLATTN_OK && memcmp(s->first, s->y, s->y_count * clattn_dtype_size(s->dtype)) != 0)
        return clattn__fail(CLATTN_WRONG_RESULT, "%s: two runs on the same input differ", s->kernel.impl->name);
    return status;
}

/* *params receives what the kernel was prepared with. */
static clattn_status verify_shape(clattn_context *context, const clattn__gemm_impl *impl,
                                  const clattn__gemm_problem *problem, const clattn__candidates *given, int64_t rows,
                                  clattn__params *params, clattn__verify_stats *stats) {
    clattn__verify_stats own = *stats;
    gemm_stage s = {.context = context, .rows = rows};
    s.kernel = (clattn__gemm_kernel){.impl = impl, .programs = &context->programs, .problem = *problem};
    clattn_status status = make(&s, problem) ? CLATTN_OK : CLATTN_OUT_OF_MEMORY;
    if (status == CLATTN_OK)
        status = clattn__gemm_prepare(&s.kernel, given, s.w, problem->k, problem->bias ? s.bias : NULL);
    if (status == CLATTN_OK) {
        *params = s.kernel.params;
        own.program = s.kernel.program;
        snprintf(own.variant, sizeof own.variant, "%s", clattn__gemm_variant(&s.kernel));
        set_expected(&s, problem);
    }
    const int kinds = problem->activation == CLATTN_ACTIVATION_NONE ? 2 : 1;
    for (int accumulate = 0; accumulate < kinds && status == CLATTN_OK; accumulate++) {
        status = run_case(&s, problem, accumulate != 0, &own.worst);
        own.cases++;
        own.failures += status != CLATTN_OK;
    }
    clattn__gemm_kernel_clear(&s.kernel);
    clattn__buffer_clear(&context->env, &s.x_device);
    clattn__buffer_clear(&context->env, &s.y_device);
    void *const owned[] = {s.x, s.x_plain, s.w, s.bias, s.y, s.first, s.start, s.want, s.tolerance};
    for (size_t i = 0; i < CLATTN__COUNT(owned); i++) clattn__free(owned[i]);
    *stats = own;
    return status;
}

/* A program serves weights of every shape, and is trusted with all of them once one has been verified: so it meets
 * another that is deeper than any block of k and ragged in each direction, with bias and heads. */
static clattn__gemm_problem hard_shape(const clattn__gemm_impl *impl, const clattn__gemm_problem *problem) {
    clattn__gemm_problem hard = *problem;
    hard.n = 99;
    hard.k = 1030;
    hard.width = 33;
    hard.split_heads = hard.bias = true;
    return clattn__gemm_fitted(impl, &hard);
}

clattn_status clattn__gemm_verify(clattn_context *context, const clattn__gemm_impl *impl,
                                  const clattn__gemm_problem *problem, const clattn__params *params, bool long_form,
                                  clattn__verify_stats *stats) {
    clattn__verify_stats own = {0};
    clattn__params used = {{0}};
    const clattn__candidates given = {.set = {params ? *params : used}, .count = 1};
    clattn_status status =
        verify_shape(context, impl, problem, params ? &given : NULL, long_form ? LONG_ROWS : ROWS, &used, &own);
    if (status == CLATTN_OK && own.program) {
        const clattn__candidates same = {.set = {used}, .count = 1};
        const clattn__gemm_problem hard = hard_shape(impl, problem);
        status = verify_shape(context, impl, &hard, &same, ROWS, &used, &own);
    }
    if (stats) *stats = own;
    return status;
}
