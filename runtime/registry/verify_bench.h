/* What the verification of small kernels stands on: tensors with gaps and edges of NaN, a run, a comparison. */
#ifndef CLATTN_VERIFY_BENCH_H
#define CLATTN_VERIFY_BENCH_H

#include "ref/ref.h"
#include "registry/registry.h"

enum { CLATTN__BENCH_BATCH = 2, CLATTN__BENCH_ROWS = 3, CLATTN__BENCH_WIDEST = 130 };

typedef struct clattn__bench_tensor {
    clattn_dtype dtype;
    int64_t extent[4]; /* batch, head, row, column */
    clattn_place place;
    size_t count;             /* elements, with edges and gaps; 0: absent */
    void *start, *got;        /* before and after a run */
    void *first;              /* outputs: the first run */
    double *want, *tolerance; /* outputs; a tolerance below 0 means that the bits stay */
    clattn__buffer device;
} clattn__bench_tensor;

typedef struct clattn__bench {
    clattn_context *context;
    const char *name;
    const clattn__op_variant *variant;
    int which; /* case */
    int width;
    const char *about; /* the case in words; NULL: its width says it */
    clattn__op op;     /* of that variant, with weights of its own */
    clattn__op_call call;
    clattn_status (*enqueue)(struct clattn__bench *b); /* instead of the op's, with places and buffers of call */
    void *user;                                        /* its own */
    clattn__bench_tensor t[CLATTN__OP_OPERANDS];
    uint64_t seed;
    double worst;
} clattn__bench;

/* Dense copies for the references of layers. An absent tensor is zeros. */
typedef struct clattn__bench_dense {
    double value[CLATTN__BENCH_BATCH * CLATTN__BENCH_ROWS * CLATTN__BENCH_WIDEST],
        error[CLATTN__BENCH_BATCH * CLATTN__BENCH_ROWS * CLATTN__BENCH_WIDEST];
} clattn__bench_dense;

/* -1..1 */
double clattn__bench_noise(clattn__bench *b);
/* Elements without gaps and edges. */
int64_t clattn__bench_dense_count(const clattn__bench_tensor *t);
/* Where element i of the dense tensor lies. */
int64_t clattn__bench_at(const clattn__bench_tensor *t, int64_t i);
/* Operand `slot`, all NaN: false when there is no memory. Outputs are compared; others are only read. */
bool clattn__bench_add(clattn__bench *b, int slot, clattn_dtype dtype, int64_t batch, int64_t heads, int64_t rows,
                       int64_t columns);
bool clattn__bench_add_output(clattn__bench *b, int slot, clattn_dtype dtype, int64_t batch, int64_t heads,
                              int64_t rows, int64_t columns);
void clattn__bench_clear(clattn__bench *b);
void clattn__bench_set(clattn__bench *b, int slot, int64_t i, double value);
/* Every element of the dense tensor to size * noise. */
void clattn__bench_fill(clattn__bench *b, int slot, double size);
bool clattn__bench_add_filled(clattn__bench *b, int slot, clattn_dtype dtype, int64_t heads, int64_t rows,
                              int64_t columns, double size);
/* A tensor's memory as the reference sees it: absent ones have no data. */
clattn__ref_array clattn__bench_array_of(const clattn__bench_tensor *t, void *data, clattn_dtype dtype);
clattn__ref_array clattn__bench_input_of(const clattn__bench_tensor *t);
clattn__ref_array clattn__bench_want_of(const clattn__bench_tensor *t);
clattn__ref_array clattn__bench_tolerance_of(const clattn__bench_tensor *t);
/* What storing a result costs beyond the roundings that its step counts: nothing in float32. */
double clattn__bench_narrowing(clattn_dtype dtype, double value);
clattn__ref_values clattn__bench_values_of(clattn__bench_dense *d);
/* Elements of an operand, or zeros where it is absent; and back, as what is wanted. */
void clattn__bench_take(const clattn__bench *b, int slot, clattn__bench_dense *d);
void clattn__bench_expect(clattn__bench *b, int slot, const clattn__bench_dense *d);
/* Of element i in two copies of t. */
bool clattn__bench_same_bits(const clattn__bench_tensor *t, const void *x, const void *y, size_t i);
/* Runs the op twice and compares, unless it could not be created; args: its launch struct, or NULL. */
clattn_status clattn__bench_finish(clattn__bench *b, clattn_status created, const void *args, size_t bytes);

/* verify_engine.c: a step of the probe of a matrix engine. */
clattn_status clattn__verify_engine(clattn__bench *b);
/* verify_chain.c */
clattn_status clattn__verify_chain(clattn__bench *b);

#endif
