/* Verification of chains. Four products and two norms work on one input and three buffers; every product has another
 * activation, or adds to what is there:
 *
 *     a = x W0^T + b0           s = a + x     a = norm(s)
 *     h = gelu(a W1^T + b1)     a = a + h W2^T + b2
 *     s = norm(a + s)           h = relu(s W3^T + b3)
 *
 * x, a and s have `width` features, h has twice as many. */
#include <string.h>

#include "registry/verify_bench.h"

enum { X = 0, A, S, H }; /* operands */
enum { ROWS = CLATTN__BENCH_BATCH * CLATTN__BENCH_ROWS, WIDEST = CLATTN__BENCH_WIDEST };

typedef struct chain_case {
    float weight[CHAIN_PRODUCTS][WIDEST * WIDEST / 2], bias[CHAIN_PRODUCTS][WIDEST];
    float norm_weight[CHAIN_NORMS][WIDEST], norm_bias[CHAIN_NORMS][WIDEST];
    clattn__gemm_kernel gemms[CHAIN_PRODUCTS];
    clattn__op norms[CHAIN_NORMS];
    clattn__chain chain;
    clattn__chain_call calls[CHAIN_STEPS];
    clattn__bench_dense x, a, s, h;
} chain_case;

/* What the four products read and write, and what becomes of their sums. */
static const struct {
    int x, y;
    clattn_activation activation;
    int accumulate;
} products[CHAIN_PRODUCTS] = {{X, A, CLATTN_ACTIVATION_NONE, 0},
                              {A, H, CLATTN_ACTIVATION_GELU, 0},
                              {H, A, CLATTN_ACTIVATION_NONE, 1},
                              {S, H, CLATTN_ACTIVATION_RELU, 0}};
static const bool is_norm[CHAIN_STEPS] = {false, true, false, false, true, false};

static int features_of(const clattn__bench *b, int slot) { return slot == H ? 2 * b->width : b->width; }

static clattn__bench_dense *dense_of(chain_case *c, int slot) {
    return slot == X ? &c->x : slot == A ? &c->a : slot == S ? &c->s : &c->h;
}

/* ---- what is wanted ---------------------------------------------------------------------------------------------- */

static void refer_product(const clattn__bench *b, chain_case *c, int i) {
    clattn__bench_dense *x = dense_of(c, products[i].x), *y = dense_of(c, products[i].y), result = {{0}, {0}};
    const int n = features_of(b, products[i].y), k = features_of(b, products[i].x);
    const clattn__ref_values values = clattn__bench_values_of(&result);
    clattn__ref_project(&(clattn__ref_projection){.m = ROWS,
                                                  .n = n,
                                                  .k = k,
                                                  .x = x->value,
                                                  .x_error = x->error,
                                                  .w = c->weight[i],
                                                  .w_row = k,
                                                  .bias = c->bias[i],
                                                  .y = result.value,
                                                  .y_error = result.error});
    if (products[i].accumulate) clattn__ref_add(values, clattn__bench_values_of(y), (int64_t)ROWS * n);
    clattn__ref_activate(products[i].activation, values, (int64_t)ROWS * n);
    clattn__ref_stored(b->variant->dtype, values, (int64_t)ROWS * n);
    memcpy(y, &result, sizeof result);
}

/* y = norm(x + residual), which goes to sum first when that is wanted. */
static void refer_norm(const clattn__bench *b, chain_case *c, int i, clattn__bench_dense *x,
                       clattn__bench_dense *residual, clattn__bench_dense *sum, clattn__bench_dense *y) {
    const int64_t count = (int64_t)ROWS * b->width;
    const clattn__ref_norm norm = {ROWS, b->width, c->norm_weight[i], c->norm_bias[i], NULL, NULL, (double)1e-5f};
    clattn__bench_dense added = *x;
    clattn__ref_add(clattn__bench_values_of(&added), clattn__bench_values_of(residual), count);
    if (sum) *sum = added;
    if (sum) clattn__ref_stored(b->variant->dtype, clattn__bench_values_of(sum), count);
    clattn__ref_layer_norm(&norm, clattn__bench_values_of(&added), clattn__bench_values_of(y));
    clattn__ref_stored(b->variant->dtype, clattn__bench_values_of(y), count);
}

static void refer(const clattn__bench *b, chain_case *c) {
    refer_product(b, c, 0);
    refer_norm(b, c, 0, &c->a, &c->x, &c->s, &c->a);
    refer_product(b, c, 1);
    refer_product(b, c, 2);
    refer_norm(b, c, 1, &c->a, &c->s, NULL, &c->s);
    refer_product(b, c, 3);
}

/* ---- the chain --------------------------------------------------------------------------------------------------- */

static void fill(clattn__bench *b, float *values, size_t count, double size) {
    for (size_t i = 0; i < count; i++) values[i] = (float)(size * clattn__bench_noise(b));
}

static clattn_status prepare_product(clattn__bench *b, chain_case *c, int i) {
    const int n = features_of(b, products[i].y), k = features_of(b, products[i].x);
    clattn__gemm_kernel *gemm = &c->gemms[i];
    clattn__refusal why;
    *gemm = (clattn__gemm_kernel){.impl = &clattn__gemm_cpu,
                                  .programs = &b->context->programs,
                                  .problem = {.m = ROWS,
                                              .n = n,
                                              .k = k,
                                              .width = n,
                                              .dtype = b->variant->dtype,
                                              .bias = true,
                                              .activation = products[i].activation}};
    if (!clattn__gemm_serves(gemm->impl, &gemm->problem, &b->context->env.device.caps, &why))
        return clattn__fail(CLATTN_UNSUPPORTED, "%s", why.text);
    fill(b, c->weight[i], (size_t)(n * k), 1);
    fill(b, c->bias[i], (size_t)n, 1);
    return clattn__gemm_prepare(gemm, NULL, c->weight[i], k, c->bias[i]);
}

static clattn_status prepare(clattn__bench *b, chain_case *c) {
    clattn_status status = CLATTN_OK;
    for (int i = 0; i < CHAIN_PRODUCTS && status == CLATTN_OK; i++) status = prepare_product(b, c, i);
    for (int i = 0; i < CHAIN_NORMS && status == CLATTN_OK; i++) {
        fill(b, c->norm_weight[i], (size_t)b->width, 1);
        fill(b, c->norm_bias[i], (size_t)b->width, 1);
        status = clattn__layer_norm_create(&c->norms[i], &b->context->programs, b->variant->dtype, b->width,
                                           c->norm_weight[i], c->norm_bias[i]);
    }
    for (int s = 0, p = 0, n = 0; s < CHAIN_STEPS; s++) {
        if (is_norm[s])
            c->chain.parts[s].op = &c->norms[n++];
        else
            c->chain.parts[s].gemm = &c->gemms[p++];
    }
    c->chain.count = CHAIN_STEPS;
    return status == CLATTN_OK ? clattn__chain_create(&c->chain, &b->context->programs) : status;
}

static void call_product(const clattn__bench *b, int i, clattn__chain_call *call) {
    const int n = features_of(b, products[i].y), x = products[i].x, y = products[i].y;
    call->gemm = (clattn__gemm_call){.args = {.x = b->call.place[x],
                                              .y = b->call.place[y],
                                              .m = ROWS,
                                              .n = n,
                                              .k = features_of(b, x),
                                              .rows = CLATTN__BENCH_ROWS,
                                              .width = n,
                                              .part_columns = n,
                                              .has_bias = 1,
                                              .accumulate = products[i].accumulate},
                                     .x = b->call.mem[x],
                                     .y = b->call.mem[y]};
}

static void set_operand(const clattn__bench *b, clattn__op_call *call, int operand, int slot) {
    call->place[operand] = b->call.place[slot];
    call->mem[operand] = b->call.mem[slot];
}

static void call_norm(const clattn__bench *b, int i, clattn__chain_call *call) {
    const clattn_norm_args args = {.batch = CLATTN__BENCH_BATCH,
                                   .rows = CLATTN__BENCH_ROWS,
                                   .features = b->width,
                                   .has_residual = 1,
                                   .has_sum = i == 0,
                                   .eps = 1e-5f};
    memset(&call->op, 0, sizeof call->op);
    memcpy(call->op.args.bytes, &args, sizeof args);
    set_operand(b, &call->op, CLATTN__NORM_X, A);
    set_operand(b, &call->op, CLATTN__NORM_RESIDUAL, i == 0 ? X : S);
    if (i == 0) set_operand(b, &call->op, CLATTN__NORM_SUM, S);
    set_operand(b, &call->op, CLATTN__NORM_Y, i == 0 ? A : S);
}

static clattn_status enqueue(clattn__bench *b) {
    chain_case *c = b->user;
    for (int s = 0, p = 0, n = 0; s < CHAIN_STEPS; s++) {
        if (is_norm[s])
            call_norm(b, n++, &c->calls[s]);
        else
            call_product(b, p++, &c->calls[s]);
    }
    return clattn__chain_enqueue(&c->chain, c->calls);
}

static bool add_tensors(clattn__bench *b, double size) {
    if (!clattn__bench_add_filled(b, X, b->variant->dtype, 1, CLATTN__BENCH_ROWS, b->width, size)) return false;
    for (int slot = A; slot <= H; slot++)
        if (!clattn__bench_add_output(b, slot, b->variant->dtype, CLATTN__BENCH_BATCH, 1, CLATTN__BENCH_ROWS,
                                      features_of(b, slot)))
            return false;
    return true;
}

clattn_status clattn__verify_chain(clattn__bench *b) {
    static const double sizes[] = {1, 1e4, 1};
    chain_case *c = clattn__alloc(1, sizeof *c);
    clattn_status status = c && add_tensors(b, sizes[b->which]) ? CLATTN_OK : CLATTN_OUT_OF_MEMORY;
    if (status == CLATTN_OK) status = prepare(b, c);
    if (status == CLATTN_OK) {
        clattn__bench_take(b, X, &c->x);
        refer(b, c);
        for (int slot = A; slot <= H; slot++) clattn__bench_expect(b, slot, dense_of(c, slot));
        b->user = c;
        b->enqueue = enqueue;
        b->op.program = c->chain.op.program;
        status = clattn__bench_finish(b, status, NULL, 0);
    }
    for (int i = 0; c && i < CHAIN_PRODUCTS; i++) clattn__gemm_kernel_clear(&c->gemms[i]);
    for (int i = 0; c && i < CHAIN_NORMS; i++) clattn__op_clear(&c->norms[i]);
    if (c) clattn__chain_clear(&c->chain);
    clattn__free(c);
    return status;
}
