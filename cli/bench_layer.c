/* bench --layer: a whole self-attention layer. */
#include <stdlib.h>
#include <string.h>

#include "bench.h"

#define LARGE_ENTRY 1e9   /* projecting one batch entry of this size takes the reference about a second */
enum { SAMPLE_ROWS = 8 }; /* of one call: projecting keys and values costs the same for one row and for eight */

typedef struct layer_state {
    cli_problem problem;
    cli_array input, output; /* (B, L, E) */
    cli_layer_weights weights;
    clattn_mha_io io;
    clattn_mha *plan;
} layer_state;

static bool parse(bench_case *c, const char *text) {
    layer_state *s = c->state;
    if (!cli_problem_layer(&s->problem, text)) return false;
    memcpy(c->shape, s->problem.shape, sizeof c->shape);
    c->causal = s->problem.causal;
    c->flops = cli_problem_flops(&s->problem);
    return true;
}

static int open_case(bench_case *c, clattn_context *context, const bench_settings *settings) {
    layer_state *s = c->state;
    s->problem.mha.precision = settings->precision;
    clattn_mha_desc desc = s->problem.mha;
    uint64_t random = settings->seed;
    const int64_t shape[3] = {desc.batch, desc.query_len, desc.embed_dim};
    desc.attention_kernel = settings->kernel;
    desc.gemm_kernel = settings->gemm;
    if (!bench_array(&s->input, desc.dtype, 3, shape, &random) ||
        !bench_array(&s->output, desc.dtype, 3, shape, NULL) ||
        !cli_layer_weights_make(&s->weights, desc.embed_dim, &random))
        return cli_fail(EXIT_NOT_SUPPORTED, "%s: too little memory for its tensors", c->shape);
    s->io = (clattn_mha_io){.query = cli_array_tensor(&s->input), .output = cli_array_tensor(&s->output)};
    clattn_status status = clattn_mha_create(&s->plan, context, &desc, &s->weights.tensors);
    if (status != CLATTN_OK) return bench_fail(c, status, "planning");
    return bench_place(c, context, settings, (clattn_tensor *[]){&s->io.query, &s->io.output}, 2);
}

static clattn_status run(bench_case *c) {
    layer_state *s = c->state;
    return clattn_mha_run(s->plan, &s->io);
}

static clattn_status info(const bench_case *c, clattn_plan_info *figures) {
    return clattn_mha_info(((const layer_state *)c->state)->plan, figures);
}

/* ---- the proof --------------------------------------------------------------------------------------------------- */

/* `rows` query rows of batch entry b, from row `first` on in steps of `step`, over the first `keys` keys. */
typedef struct layer_sample {
    int64_t batch, first, step, rows, keys;
} layer_sample;

static clattn_status check_sample(bench_case *c, const layer_sample *sample, cli_array *want, float *tolerance) {
    const layer_state *s = c->state;
    const clattn_mha_desc *all = &s->problem.mha;
    int64_t e = all->embed_dim, l = all->query_len;
    int64_t entry = sample->batch * l * e, start = entry + sample->first * e;
    clattn_mha_desc part = *all;
    part.batch = 1;
    part.query_len = sample->rows;
    part.kv_len = sample->keys;
    part.inputs = CLATTN_MHA_CROSS;
    part.attention_kernel = c->result.kernels; /* what they round is allowed for */
    if (c->causal) {
        part.causal = CLATTN_CAUSAL_OFFSET;
        part.causal_offset = sample->first;
    }
    clattn_mha_io io = {0};
    io.query = clattn_host(s->input.data, all->dtype, 3, 1, sample->rows, e, 0);
    io.query.offset = start;
    io.query.stride[0] = l * e;
    io.query.stride[1] = sample->step * e;
    io.query.stride[2] = 1;
    io.key = clattn_host(s->input.data, all->dtype, 3, 1, sample->keys, e, 0);
    io.key.offset = entry;
    io.output = clattn_host(want->data, all->dtype, 3, 1, sample->rows, e, 0);
    clattn_status status = clattn_reference_mha(&part, &s->weights.tensors, &io, tolerance);
    if (status == CLATTN_OK)
        bench_compare(&c->result, &s->output, start, sample->step * e, want, tolerance, sample->rows, e);
    return status;
}

/* Without causal order, rows from all over the sequence in one call. With it, neighbouring rows share a call: the first
 * rows, which see few keys and so cost little, and the last ones, which see all. */
static clattn_status check_entry(bench_case *c, int64_t batch, int64_t rows, cli_array *want, float *tolerance) {
    int64_t l = ((const layer_state *)c->state)->problem.mha.query_len;
    layer_sample sample = {.batch = batch, .first = 0, .step = 1, .rows = rows, .keys = l};
    if (rows == l || !c->causal) {
        if (rows > 1) sample.step = (l - 1) / (rows - 1);
        sample.first = l - 1 - sample.step * (rows - 1); /* so that the last one is the last row */
        return check_sample(c, &sample, want, tolerance);
    }
    sample.keys = rows;
    clattn_status status = check_sample(c, &sample, want, tolerance);
    sample.first = l - rows;
    sample.keys = l;
    return status == CLATTN_OK ? check_sample(c, &sample, want, tolerance) : status;
}

static clattn_status check(bench_case *c) {
    const clattn_mha_desc *all = &((const layer_state *)c->state)->problem.mha;
    bool everything = c->flops <= BENCH_CHECK_FLOPS;
    int64_t l = all->query_len, rows = everything || l < SAMPLE_ROWS ? l : SAMPLE_ROWS;
    double entry_flops = 4.0 * (double)l * (double)all->embed_dim * (double)all->embed_dim;
    int64_t entries = everything ? all->batch : (int64_t)(BENCH_CHECK_FLOPS / entry_flops);
    if (entries < 2) entries = entry_flops < LARGE_ENTRY ? 2 : 1; /* the first and the last, or the last */
    if (entries > all->batch) entries = all->batch;
    cli_array want = {0};
    const int64_t shape[2] = {rows, all->embed_dim};
    float *tolerance = malloc((size_t)(rows * all->embed_dim) * sizeof *tolerance);
    bool good = bench_array(&want, all->dtype, 2, shape, NULL) && tolerance;
    clattn_status status = good ? CLATTN_OK : CLATTN_OUT_OF_MEMORY;
    c->result.rows = all->batch * l;
    for (int64_t k = 0; k < entries && status == CLATTN_OK; k++) {
        int64_t batch = entries > 1 ? k * (all->batch - 1) / (entries - 1) : all->batch - 1;
        status = check_entry(c, batch, rows, &want, tolerance);
    }
    cli_array_free(&want);
    free(tolerance);
    return status;
}

static void close_case(bench_case *c) {
    layer_state *s = c->state;
    cli_array_free(&s->input);
    cli_array_free(&s->output);
    cli_layer_weights_free(&s->weights);
    clattn_mha_destroy(&s->plan);
}

const bench_kind bench_layer = {.op = "layer",
                                .state_bytes = sizeof(layer_state),
                                .parse = parse,
                                .open = open_case,
                                .run = run,
                                .info = info,
                                .check = check,
                                .close = close_case};
