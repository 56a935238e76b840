/* Small kernels on the bench: every tensor has gaps between its rows and an edge around it, all NaN; what the reference
 * does not write must keep its bits, and two runs must agree bit by bit. */
#include "registry/verify_bench.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { GAP = 3, EDGE = 16 }; /* elements */

double clattn__bench_noise(clattn__bench *b) { /* xorshift64*, Vigna 2016: -1..1 */
    b->seed ^= b->seed >> 12;
    b->seed ^= b->seed << 25;
    b->seed ^= b->seed >> 27;
    return (double)((b->seed * 0x2545f4914f6cdd1du) >> 11) * 0x1p-52 - 1.0;
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

int64_t clattn__bench_dense_count(const clattn__bench_tensor *t) {
    return t->extent[0] * t->extent[1] * t->extent[2] * t->extent[3];
}

/* Where element i of the dense tensor lies. */
int64_t clattn__bench_at(const clattn__bench_tensor *t, int64_t i) {
    const int64_t column = i % t->extent[3], row = i / t->extent[3] % t->extent[2];
    const int64_t head = i / t->extent[3] / t->extent[2] % t->extent[1];
    const int64_t batch = i / t->extent[3] / t->extent[2] / t->extent[1];
    return t->place.offset + batch * t->place.batch + head * t->place.head + row * t->place.row + column;
}

/* NaN as a float of 16 or 32 bits; as an integer far outside of everything. */
static void poison(void *data, clattn_dtype dtype, size_t count) {
    const size_t size = clattn_dtype_size(dtype);
    const uint32_t word = 0x7fc0beefu;
    const uint16_t half = 0x7fc1u;
    for (size_t i = 0; i < count; i++)
        memcpy((char *)data + i * size, size == 2 ? (const void *)&half : (const void *)&word, size);
}

bool clattn__bench_add(clattn__bench *b, int slot, clattn_dtype dtype, int64_t batch, int64_t heads, int64_t rows,
                       int64_t columns) {
    clattn__bench_tensor *t = &b->t[slot];
    const int64_t row = columns + GAP;
    *t = (clattn__bench_tensor){.dtype = dtype, .extent = {batch, heads, rows, columns}};
    t->place = (clattn_place){.offset = EDGE, .batch = heads * rows * row, .head = rows * row, .row = row};
    t->count = (size_t)(batch * heads * rows * row) + 2 * EDGE;
    t->start = clattn__alloc(t->count, clattn_dtype_size(dtype));
    if (!t->start) return false;
    poison(t->start, dtype, t->count);
    b->call.place[slot] = t->place;
    return clattn__buffer_create(&b->context->env, t->count * clattn_dtype_size(dtype), &t->device) == CLATTN_OK;
}

bool clattn__bench_add_output(clattn__bench *b, int slot, clattn_dtype dtype, int64_t batch, int64_t heads,
                              int64_t rows, int64_t columns) {
    if (!clattn__bench_add(b, slot, dtype, batch, heads, rows, columns)) return false;
    clattn__bench_tensor *t = &b->t[slot];
    t->got = clattn__alloc(t->count, clattn_dtype_size(dtype));
    t->first = clattn__alloc(t->count, clattn_dtype_size(dtype));
    t->want = clattn__alloc(t->count, sizeof *t->want);
    t->tolerance = clattn__alloc(t->count, sizeof *t->tolerance);
    for (size_t i = 0; t->tolerance && i < t->count; i++) t->tolerance[i] = -1;
    return t->got && t->first && t->want && t->tolerance;
}

void clattn__bench_clear(clattn__bench *b) {
    for (int i = 0; i < CLATTN__OP_OPERANDS; i++) {
        clattn__bench_tensor *t = &b->t[i];
        void *const owned[] = {t->start, t->got, t->first, t->want, t->tolerance};
        for (size_t j = 0; j < CLATTN__COUNT(owned); j++) clattn__free(owned[j]);
        clattn__buffer_clear(&b->context->env, &t->device);
    }
    clattn__op_clear(&b->op);
}

void clattn__bench_set(clattn__bench *b, int slot, int64_t i, double value) {
    clattn__ref_store(b->t[slot].start, b->t[slot].dtype, clattn__bench_at(&b->t[slot], i), value);
}

void clattn__bench_fill(clattn__bench *b, int slot, double size) {
    for (int64_t i = 0; i < clattn__bench_dense_count(&b->t[slot]); i++)
        clattn__bench_set(b, slot, i, size * clattn__bench_noise(b));
}

bool clattn__bench_add_filled(clattn__bench *b, int slot, clattn_dtype dtype, int64_t heads, int64_t rows,
                              int64_t columns, double size) {
    if (!clattn__bench_add(b, slot, dtype, CLATTN__BENCH_BATCH, heads, rows, columns)) return false;
    clattn__bench_fill(b, slot, size);
    return true;
}

/* A tensor's memory as the reference sees it: absent ones have no data. */
clattn__ref_array clattn__bench_array_of(const clattn__bench_tensor *t, void *data, clattn_dtype dtype) {
    const int64_t offset =
        t->place.offset * (int64_t)(dtype == CLATTN__F64 ? sizeof(double) : clattn_dtype_size(dtype));
    return (clattn__ref_array){
        data ? (char *)data + offset : NULL, dtype, {t->place.batch, t->place.head, t->place.row, 1}};
}

clattn__ref_array clattn__bench_input_of(const clattn__bench_tensor *t) {
    return clattn__bench_array_of(t, t->start, t->dtype);
}

clattn__ref_array clattn__bench_want_of(const clattn__bench_tensor *t) {
    return clattn__bench_array_of(t, t->want, CLATTN__F64);
}

clattn__ref_array clattn__bench_tolerance_of(const clattn__bench_tensor *t) {
    return clattn__bench_array_of(t, t->tolerance, CLATTN__F64);
}

double clattn__bench_narrowing(clattn_dtype dtype, double value) {
    return dtype == CLATTN_F32 ? 0 : clattn__ref_storage_rounding(dtype, value);
}

clattn__ref_values clattn__bench_values_of(clattn__bench_dense *d) { return (clattn__ref_values){d->value, d->error}; }

void clattn__bench_take(const clattn__bench *b, int slot, clattn__bench_dense *d) {
    const clattn__bench_tensor *t = &b->t[slot];
    memset(d, 0, sizeof *d);
    for (int64_t i = 0; t->count && i < clattn__bench_dense_count(t); i++)
        d->value[i] = clattn__ref_load(t->start, t->dtype, clattn__bench_at(t, i));
}

void clattn__bench_expect(clattn__bench *b, int slot, const clattn__bench_dense *d) {
    clattn__bench_tensor *t = &b->t[slot];
    for (int64_t i = 0; i < clattn__bench_dense_count(t); i++) {
        t->want[clattn__bench_at(t, i)] = d->value[i];
        t->tolerance[clattn__bench_at(t, i)] = d->error[i] + clattn__bench_narrowing(t->dtype, d->value[i]) + FLT_MIN;
    }
}

/* ---- running and comparing --------------------------------------------------------------------------------------- */

static clattn_status wrong(const clattn__bench *b, const char *what) {
    if (b->about) return clattn__fail(CLATTN_WRONG_RESULT, "%s, %s: %s", b->name, b->about, what);
    return clattn__fail(CLATTN_WRONG_RESULT, "%s, rows of %d: %s", b->name, b->width, what);
}

static clattn_status run_once(clattn__bench *b) {
    clattn__env *env = &b->context->env;
    clattn_status status = CLATTN_OK;
    for (int i = 0; i < CLATTN__OP_OPERANDS && status == CLATTN_OK; i++) {
        const clattn__bench_tensor *t = &b->t[i];
        b->call.mem[i] = t->device.mem;
        if (t->count)
            status = clattn__buffer_write(env, t->device.mem, 0, t->count * clattn_dtype_size(t->dtype), t->start);
    }
    if (status == CLATTN_OK) status = b->enqueue ? b->enqueue(b) : b->op.enqueue(&b->op, &b->call);
    for (int i = 0; i < CLATTN__OP_OPERANDS && status == CLATTN_OK; i++) {
        const clattn__bench_tensor *t = &b->t[i];
        if (t->want)
            status = clattn__buffer_read(env, t->device.mem, 0, t->count * clattn_dtype_size(t->dtype), t->got);
    }
    return status;
}

bool clattn__bench_same_bits(const clattn__bench_tensor *t, const void *x, const void *y, size_t i) {
    const size_t size = clattn_dtype_size(t->dtype);
    return memcmp((const char *)x + i * size, (const char *)y + i * size, size) == 0;
}

static clattn_status compare(clattn__bench *b, int slot) {
    const clattn__bench_tensor *t = &b->t[slot];
    char what[160];
    for (size_t i = 0; i < t->count; i++) {
        const double want = t->want[i], got = clattn__ref_load(t->got, t->dtype, (int64_t)i), off = fabs(got - want);
        if (t->tolerance[i] < 0) {
            if (!clattn__bench_same_bits(t, t->got, t->start, i)) return wrong(b, "it wrote outside its output");
            continue;
        }
        if (got == want || (isnan(got) && isnan(want))) continue;
        if (!(off / t->tolerance[i] <= b->worst)) b->worst = off / t->tolerance[i]; /* NaN is the worst */
        if (off <= t->tolerance[i]) continue;
        snprintf(what, sizeof what, "element %zu of operand %d is %.9g; the reference says %.9g, tolerance %.3g", i,
                 slot, got, want, t->tolerance[i]);
        return wrong(b, what);
    }
    return CLATTN_OK;
}

static clattn_status check(clattn__bench *b) {
    clattn_status status = run_once(b);
    for (int i = 0; i < CLATTN__OP_OPERANDS && status == CLATTN_OK; i++) {
        const clattn__bench_tensor *t = &b->t[i];
        if (!t->want) continue;
        status = compare(b, i);
        memcpy(t->first, t->got, t->count * clattn_dtype_size(t->dtype));
    }
    if (status == CLATTN_OK) status = run_once(b);
    for (int i = 0; i < CLATTN__OP_OPERANDS && status == CLATTN_OK; i++) {
        const clattn__bench_tensor *t = &b->t[i];
        if (t->want && memcmp(t->first, t->got, t->count * clattn_dtype_size(t->dtype)) != 0)
            status = wrong(b, "two runs on the same input differ");
    }
    return status;
}

/* args: the op's launch struct, or NULL. created: whether the op could be made. */
clattn_status clattn__bench_finish(clattn__bench *b, clattn_status created, const void *args, size_t bytes) {
    if (args) memcpy(b->call.args.bytes, args, bytes);
    return created == CLATTN_OK ? check(b) : created;
}
