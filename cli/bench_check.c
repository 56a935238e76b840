/* Is the output that is about to be timed right? Rows of it against the scalar reference. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

/* What the reference may cost per case: a good second on the slowest machine that one would measure. */
#define CHECK_FLOPS 1e8
#define LEAST_ROWS 32
#define LARGE_ENTRY 1e9 /* projecting one batch entry of this size takes the reference about a second */
#define LAYER_ROWS 8    /* of one call: projecting keys and values costs the same for one row and for eight */

/* `got` and `want` (rows, width), tolerance alike; the distance between rows of `got` is got_row. */
static void compare(bench_result *result, const float *got, int64_t got_row, const float *want, const float *tolerance,
                    int64_t rows, int64_t width) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < width; c++) {
            double error = fabs((double)got[r * got_row + c] - (double)want[r * width + c]);
            double fraction = error == 0 ? 0 : error / (double)tolerance[r * width + c];
            if (!isnan(result->max_error) && !(error <= result->max_error)) result->max_error = error;
            if (!isnan(result->error_fraction) && !(fraction <= result->error_fraction))
                result->error_fraction = fraction;
        }
    result->rows_checked += rows;
}

/* Row `row` of (B, Hq, Sq) as a problem of its own: one query that sees the keys its place allows. */
static clattn_status check_row(const cli_problem *problem, const bench_data *data, int64_t row, float *want,
                               float *tolerance, bench_result *result) {
    const clattn_attention_desc *all = &problem->attention;
    int64_t sk = all->kv_len, d = all->head_dim;
    int64_t i = row % all->query_len, head = row / all->query_len % all->query_heads;
    int64_t batch = row / all->query_len / all->query_heads;
    int64_t kv = batch * all->kv_heads + head / (all->query_heads / all->kv_heads);
    clattn_attention_desc one = *all;
    one.batch = one.query_heads = one.kv_heads = one.query_len = 1;
    if (problem->causal) {
        one.causal = CLATTN_CAUSAL_OFFSET;
        one.causal_offset = i + sk - all->query_len;
    }
    clattn_attention_io io = {0};
    io.query = clattn_host(data->query + row * d, CLATTN_F32, 4, 1, 1, 1, d);
    io.key = clattn_host(data->key + kv * sk * d, CLATTN_F32, 4, 1, 1, sk, d);
    io.value = clattn_host(data->value + kv * sk * d, CLATTN_F32, 4, 1, 1, sk, d);
    io.output = clattn_host(want, CLATTN_F32, 4, 1, 1, 1, d);
    clattn_status status = clattn_reference_attention(&one, &io, tolerance);
    if (status == CLATTN_OK) compare(result, data->output + row * d, d, want, tolerance, 1, d);
    return status;
}

clattn_status bench_check_attention(const cli_problem *problem, const bench_data *data, bench_result *result) {
    const clattn_attention_desc *all = &problem->attention;
    float want[CLATTN_MAX_HEAD_DIM], tolerance[CLATTN_MAX_HEAD_DIM]; /* (D) */
    double row_flops = 4.0 * (double)all->kv_len * (double)all->head_dim;
    int64_t rows = all->batch * all->query_heads * all->query_len;
    int64_t count = row_flops * (double)rows <= CHECK_FLOPS ? rows : (int64_t)(CHECK_FLOPS / row_flops);
    if (count < LEAST_ROWS) count = LEAST_ROWS;
    if (count > rows) count = rows;
    result->rows = rows;
    for (int64_t k = 0; k < count; k++) {
        /* Evenly from the first to the last row; the odd distance meets every place within a tile. */
        int64_t row = count > 1 ? (int64_t)((double)k * (double)(rows - 1) / (double)(count - 1)) : 0;
        clattn_status status = check_row(problem, data, row, want, tolerance, result);
        if (status != CLATTN_OK) return status;
    }
    return CLATTN_OK;
}

/* `rows` query rows of batch entry b, from row `first` on in steps of `step`, over the first `keys` keys. */
typedef struct layer_sample {
    int64_t batch, first, step, rows, keys;
} layer_sample;

static clattn_status check_sample(const cli_problem *problem, const bench_data *data, const layer_sample *sample,
                                  float *want, float *tolerance, bench_result *result) {
    const clattn_mha_desc *all = &problem->mha;
    int64_t e = all->embed_dim, l = all->query_len;
    const float *x = data->query + sample->batch * l * e; /* (L, E) of this batch entry */
    clattn_mha_desc part = *all;
    part.batch = 1;
    part.query_len = sample->rows;
    part.kv_len = sample->keys;
    part.inputs = CLATTN_MHA_CROSS;
    if (problem->causal) {
        part.causal = CLATTN_CAUSAL_OFFSET;
        part.causal_offset = sample->first;
    }
    clattn_mha_io io = {0};
    io.query = clattn_host(x + sample->first * e, CLATTN_F32, 3, 1, sample->rows, e, 0);
    io.query.stride[0] = l * e;
    io.query.stride[1] = sample->step * e;
    io.query.stride[2] = 1;
    io.key = clattn_host(x, CLATTN_F32, 3, 1, sample->keys, e, 0);
    io.output = clattn_host(want, CLATTN_F32, 3, 1, sample->rows, e, 0);
    clattn_status status = clattn_reference_mha(&part, &data->weights.tensors, &io, tolerance);
    const float *got = data->output + (sample->batch * l + sample->first) * e;
    if (status == CLATTN_OK) compare(result, got, sample->step * e, want, tolerance, sample->rows, e);
    return status;
}

/* Without causal order, rows from all over the sequence in one call. With it, neighbouring rows share a call: the first
 * rows, which see few keys and so cost little, and the last ones, which see all. */
static clattn_status check_entry(const cli_problem *problem, const bench_data *data, int64_t batch, int64_t rows,
                                 float *want, float *tolerance, bench_result *result) {
    int64_t l = problem->mha.query_len;
    layer_sample sample = {.batch = batch, .first = 0, .step = 1, .rows = rows, .keys = l};
    if (rows == l || !problem->causal) {
        if (rows > 1) sample.step = (l - 1) / (rows - 1);
        sample.first = l - 1 - sample.step * (rows - 1); /* so that the last one is the last row */
        return check_sample(problem, data, &sample, want, tolerance, result);
    }
    sample.keys = rows;
    clattn_status status = check_sample(problem, data, &sample, want, tolerance, result);
    sample.first = l - rows;
    sample.keys = l;
    return status == CLATTN_OK ? check_sample(problem, data, &sample, want, tolerance, result) : status;
}

clattn_status bench_check_layer(const cli_problem *problem, const bench_data *data, bench_result *result) {
    const clattn_mha_desc *all = &problem->mha;
    bool everything = cli_problem_flops(problem) <= CHECK_FLOPS;
    int64_t l = all->query_len, rows = everything || l < LAYER_ROWS ? l : LAYER_ROWS;
    double entry_flops = 4.0 * (double)l * (double)all->embed_dim * (double)all->embed_dim;
    int64_t entries = everything ? all->batch : (int64_t)(CHECK_FLOPS / entry_flops);
    if (entries < 2) entries = entry_flops < LARGE_ENTRY ? 2 : 1; /* the first and the last, or the last */
    if (entries > all->batch) entries = all->batch;
    size_t bytes = (size_t)(rows * all->embed_dim) * sizeof(float);
    float *want = malloc(bytes), *tolerance = malloc(bytes); /* (rows, E) */
    clattn_status status = want && tolerance ? CLATTN_OK : CLATTN_OUT_OF_MEMORY;
    result->rows = all->batch * l;
    for (int64_t k = 0; k < entries && status == CLATTN_OK; k++) {
        int64_t batch = entries > 1 ? k * (all->batch - 1) / (entries - 1) : all->batch - 1;
        status = check_entry(problem, data, batch, rows, want, tolerance, result);
    }
    free(want);
    free(tolerance);
    return status;
}
