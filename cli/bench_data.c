/* Random data for a case, and the comparison of its output with the scalar reference. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

enum { LEAST_ROWS = 32 };

/* Nearly standard normal, and quick: the sum of four uniform values has the same mean and variance. */
static double nearly_normal(uint64_t *random) {
    double sum = 0;
    for (int i = 0; i < 4; i++) sum += (double)cli_random_uniform(random);
    return sum * sqrt(3.0 / 4);
}

bool bench_array(cli_array *array, clattn_dtype dtype, int rank, const int64_t *shape, uint64_t *random) {
    char why[512];
    double elements = 1;
    for (int i = 0; i < rank; i++) elements *= (double)shape[i];
    if (elements > 1e12) return false; /* nobody times tensors of a trillion elements */
    if (!cli_array_new(array, dtype, rank, shape, why)) return false;
    for (int64_t i = 0; random && i < cli_array_elements(array); i++)
        if (!cli_array_set(array, i, nearly_normal(random))) return false;
    return true;
}

void bench_compare(bench_result *result, const cli_array *got, int64_t start, int64_t row_step, const cli_array *want,
                   const float *tolerance, int64_t rows, int64_t width) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < width; i++) {
            double error = fabs(cli_array_get(got, start + r * row_step + i) - cli_array_get(want, r * width + i));
            double fraction = error == 0 ? 0 : error / (double)tolerance[r * width + i];
            if (!isnan(result->max_error) && !(error <= result->max_error)) result->max_error = error;
            if (!isnan(result->error_fraction) && !(fraction <= result->error_fraction))
                result->error_fraction = fraction;
        }
    result->rows_checked += rows;
}

/* Everything that is added to row i of head h, as one float mask (Sk): the mask itself, ALiBi, and -inf for what causal
 * order, window and blocks forbid. */
static void row_mask(const cli_problem *problem, const bench_attention_data *data, int64_t h, int64_t i, float *mask) {
    const clattn_attention_desc *d = &problem->attention;
    int64_t first, last, place = problem->causal ? i + d->kv_len - d->query_len : i;
    double slope = d->alibi ? cli_array_get(&data->alibi, h) : 0;
    cli_problem_keys(problem, i, &first, &last);
    for (int64_t j = 0; j < d->kv_len; j++) {
        double add = slope * (double)(j - place);
        double given = d->mask == CLATTN_MASK_NONE ? 0 : cli_array_get(&data->mask, i * d->kv_len + j);
        if (d->mask == CLATTN_MASK_FLOAT) add += given;
        bool forbidden = j < first || j > last || (d->mask == CLATTN_MASK_BOOL && given == 0);
        mask[j] = forbidden ? -INFINITY : (float)add;
    }
}

static clattn_tensor part(const cli_array *array, int64_t offset, int64_t rows, int64_t width) {
    clattn_tensor tensor = clattn_host(array->data, array->dtype, 4, 1, 1, rows, width);
    tensor.offset = offset;
    return tensor;
}

/* Row `row` of (B, Hq, Sq) as a problem of its own: one query with one mask. mask has room for Sk. */
static clattn_status check_row(const cli_problem *problem, const bench_attention_data *data, int64_t row, float *mask,
                               cli_array *want, float *tolerance, bench_result *result) {
    const clattn_attention_desc *all = &problem->attention;
    int64_t sk = all->kv_len, d = all->head_dim;
    int64_t i = row % all->query_len, head = row / all->query_len % all->query_heads;
    int64_t batch = row / all->query_len / all->query_heads;
    int64_t kv = batch * all->kv_heads + head / (all->query_heads / all->kv_heads);
    clattn_attention_desc one = *all;
    one.batch = one.query_heads = one.kv_heads = one.query_len = 1;
    one.causal = CLATTN_CAUSAL_NONE;
    one.window_left = one.window_right = -1;
    one.alibi = 0;
    one.mask = CLATTN_MASK_FLOAT;
    one.kernel = result->kernels; /* what they round is allowed for */
    row_mask(problem, data, head, i, mask);
    clattn_attention_io io = {.query = part(&data->query, row * d, 1, d),
                              .key = part(&data->key, kv * sk * d, sk, d),
                              .value = part(&data->value, kv * sk * d, sk, d),
                              .mask = clattn_host(mask, CLATTN_F32, 4, 1, 1, 1, sk),
                              .output = part(want, 0, 1, d)};
    if (all->sinks) io.sinks = clattn_host((const float *)data->sinks.data + head, CLATTN_F32, 1, 1, 0, 0, 0);
    clattn_status status = clattn_reference_attention(&one, &io, tolerance);
    if (status == CLATTN_OK) bench_compare(result, &data->output, row * d, d, want, tolerance, 1, d);
    return status;
}

clattn_status bench_check_attention(const cli_problem *problem, const bench_attention_data *data,
                                    bench_result *result) {
    const clattn_attention_desc *all = &problem->attention;
    float tolerance[CLATTN_MAX_HEAD_DIM];
    double row_flops = 4.0 * (double)all->kv_len * (double)all->head_dim;
    int64_t rows = all->batch * all->query_heads * all->query_len;
    int64_t count = row_flops * (double)rows <= BENCH_CHECK_FLOPS ? rows : (int64_t)(BENCH_CHECK_FLOPS / row_flops);
    if (count < LEAST_ROWS) count = LEAST_ROWS;
    if (count > rows) count = rows;
    result->rows = rows;
    cli_array want = {0};
    float *mask = malloc((size_t)all->kv_len * sizeof *mask);
    bool good = mask && bench_array(&want, all->dtype, 1, &all->head_dim, NULL);
    clattn_status status = good ? CLATTN_OK : CLATTN_OUT_OF_MEMORY;
    for (int64_t k = 0; k < count && status == CLATTN_OK; k++) {
        /* Evenly from the first to the last row; the odd distance meets every place within a tile. */
        int64_t row = count > 1 ? (int64_t)((double)k * (double)(rows - 1) / (double)(count - 1)) : 0;
        status = check_row(problem, data, row, mask, &want, tolerance, result);
    }
    cli_array_free(&want);
    free(mask);
    return status;
}
