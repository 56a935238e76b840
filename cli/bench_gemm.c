/* bench --gemm: one projection x W^T + bias, as the layers use it. */
#include <stdlib.h>

#include "bench.h"

enum { LEAST_ROWS = 8 };

typedef struct gemm_state {
    long long sizes[3];                    /* M, N, K */
    cli_array input, weight, bias, output; /* (1, M, K), (N, K), (N), (1, M, N) */
    clattn_linear_desc desc;
    clattn_linear_weights weights;
    clattn_layer_io io;
    clattn_layer *layer;
} gemm_state;

static bool take_word(void *user, const char *name, const char *value) {
    gemm_state *s = user;
    return !value && cli_parse_dtype(name, &s->desc.dtype);
}

static bool parse(bench_case *c, const char *text) {
    gemm_state *s = c->state;
    clattn_linear_desc_init(&s->desc);
    if (!cli_parse_shape("gemm", "M,N,K[,TYPE]", text, 3, s->sizes, take_word, s, c->shape)) return false;
    c->flops = 2.0 * (double)s->sizes[0] * (double)s->sizes[1] * (double)s->sizes[2];
    return true;
}

static int open_case(bench_case *c, clattn_context *context, const bench_settings *settings) {
    gemm_state *s = c->state;
    const int64_t m = s->sizes[0], n = s->sizes[1], k = s->sizes[2];
    const int64_t input[3] = {1, m, k}, weight[2] = {n, k}, output[3] = {1, m, n};
    uint64_t random = settings->seed;
    if (!bench_array(&s->weight, CLATTN_F32, 2, weight, &random) || !bench_array(&s->bias, CLATTN_F32, 1, &n, &random))
        return cli_fail(EXIT_NOT_SUPPORTED, "%s: too little memory for its weights", c->shape);
    s->desc.batch = 1;
    s->desc.rows = m;
    s->desc.in_features = k;
    s->desc.out_features = n;
    s->desc.gemm_kernel = settings->gemm;
    s->desc.precision = settings->precision;
    s->weights = (clattn_linear_weights){.weight = cli_array_tensor(&s->weight), .bias = cli_array_tensor(&s->bias)};
    clattn_status status = clattn_linear_create(&s->layer, context, &s->desc, &s->weights);
    if (status != CLATTN_OK) return bench_fail(c, status, "planning");
    if (!bench_array(&s->input, s->desc.dtype, 3, input, &random) ||
        !bench_array(&s->output, s->desc.dtype, 3, output, NULL))
        return cli_fail(EXIT_NOT_SUPPORTED, "%s: too little memory for its tensors", c->shape);
    s->io = (clattn_layer_io){.input = cli_array_tensor(&s->input), .output = cli_array_tensor(&s->output)};
    return bench_place(c, context, settings, (clattn_tensor *[]){&s->io.input, &s->io.output}, 2);
}

static clattn_status run(bench_case *c) {
    gemm_state *s = c->state;
    return clattn_layer_run(s->layer, &s->io);
}

static clattn_status info(const bench_case *c, clattn_plan_info *figures) {
    return clattn_layer_info(((const gemm_state *)c->state)->layer, figures);
}

/* Rows from the first to the last in even steps; the last one is the last row. */
static clattn_status check(bench_case *c) {
    const gemm_state *s = c->state;
    const int64_t m = s->sizes[0], n = s->sizes[1], k = s->sizes[2];
    int64_t rows = c->flops <= BENCH_CHECK_FLOPS ? m : (int64_t)(BENCH_CHECK_FLOPS / (c->flops / (double)m));
    if (rows < LEAST_ROWS) rows = LEAST_ROWS;
    if (rows > m) rows = m;
    const int64_t step = rows > 1 ? (m - 1) / (rows - 1) : 1, first = m - 1 - step * (rows - 1);
    const int64_t shape[3] = {1, rows, n};
    clattn_linear_desc part = s->desc;
    part.rows = rows;
    cli_array want = {0};
    float *tolerance = malloc((size_t)(rows * n) * sizeof *tolerance);
    bool good = bench_array(&want, part.dtype, 3, shape, NULL) && tolerance;
    clattn_status status = good ? CLATTN_OK : CLATTN_OUT_OF_MEMORY;
    clattn_layer_io io = {.input = clattn_host(s->input.data, part.dtype, 3, 1, rows, k, 0),
                          .output = cli_array_tensor(&want)};
    io.input.offset = first * k;
    io.input.stride[0] = m * k;
    io.input.stride[1] = step * k;
    io.input.stride[2] = 1;
    if (status == CLATTN_OK) status = clattn_reference_linear(&part, &s->weights, &io, tolerance);
    c->result.rows = m;
    if (status == CLATTN_OK) bench_compare(&c->result, &s->output, first * n, step * n, &want, tolerance, rows, n);
    cli_array_free(&want);
    free(tolerance);
    return status;
}

static void close_case(bench_case *c) {
    gemm_state *s = c->state;
    cli_array *const arrays[] = {&s->input, &s->weight, &s->bias, &s->output};
    cli_arrays_free(arrays, sizeof arrays / sizeof *arrays);
    clattn_layer_destroy(&s->layer);
}

const bench_kind bench_gemm = {.op = "gemm",
                               .state_bytes = sizeof(gemm_state),
                               .parse = parse,
                               .open = open_case,
                               .run = run,
                               .info = info,
                               .check = check,
                               .close = close_case};
