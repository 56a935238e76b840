/* Attention, one query row at a time, in five passes that every kernel follows:
 *   1 logits; 2 softcap, additive terms, forbidden keys; 3 maximum and sum; 4 weighted values; 5 outputs.
 * Formula: Vaswani et al. 2017 (arXiv:1706.03762), equation 1; docs/numerics.md tells the order of all options. */
#include "ref/ref.h"

#include <math.h>

#include "../../cl/shared/philox.h"
#include "ref/row.h"

static bool is_always_key(const clattn__ref_attention *p, int64_t j) { return j >= p->kv_len - p->always_keys; }

bool clattn__ref_key_exists(const clattn__ref_attention *p, const clattn__ref_row *row, int64_t j) {
    return j < row->length || is_always_key(p, j);
}

static bool has_float_mask(const clattn__ref_attention *p) { return p->mask.data && p->mask.dtype != CLATTN_BOOL; }

double clattn__ref_additive(const clattn__ref_attention *p, const clattn__ref_row *row, int64_t j) {
    double term = 0;
    if (has_float_mask(p) && j < p->mask_len && !is_always_key(p, j))
        term += clattn__ref_get(&p->mask, row->b, row->h, row->i, j);
    if (p->alibi.data) term += clattn__ref_get(&p->alibi, row->h, 0, 0, 0) * (double)(j - row->position);
    return term;
}

/* Decided on masks, lengths and positions alone, never on the value of a logit. */
static bool is_allowed(const clattn__ref_attention *p, const clattn__ref_row *row, int64_t j) {
    const int64_t distance = j - row->position;
    if (is_always_key(p, j)) return true;
    if (j >= row->length) return false;
    if (p->causal && distance > 0 && j >= row->prefix) return false;
    if (p->window_left >= 0 && distance < -p->window_left) return false;
    if (p->window_right >= 0 && distance > p->window_right) return false;
    if (p->padding.data && clattn__ref_get(&p->padding, row->b, 0, 0, j) == 0) return false;
    if (p->query_documents.data && clattn__ref_get(&p->query_documents, row->b, 0, row->i, 0) !=
                                       clattn__ref_get(&p->key_documents, row->b, 0, 0, j))
        return false;
    if (!p->mask.data) return true;
    if (j >= p->mask_len) return false;
    double mask = clattn__ref_get(&p->mask, row->b, row->h, row->i, j);
    return has_float_mask(p) ? mask != -INFINITY : mask != 0;
}

/* Which key/value head, how many keys and which origin. */
static void row_begin(const clattn__ref_attention *p, clattn__ref_row *row, int64_t b, int64_t h, int64_t i) {
    row->b = b;
    row->h = h;
    row->g = h / (p->query_heads / p->kv_heads);
    row->i = i;
    row->length = p->lengths.data ? (int64_t)clattn__ref_get(&p->lengths, b, 0, 0, 0) : p->kv_len;
    row->prefix = p->prefix.data ? (int64_t)clattn__ref_get(&p->prefix, b, 0, 0, 0) : 0;
    row->position = i + p->query_first + p->offset + (p->offset_from_lengths ? row->length : 0);
}

/* 1: raw_j = scale * score(q, k_j). A key that does not exist is not read; it counts as -inf. */
static void pass_logits(const clattn__ref_attention *p, clattn__ref_row *row) {
    for (int64_t j = 0; j < p->kv_len; j++) {
        row->raw[j] = -INFINITY;
        if (clattn__ref_key_exists(p, row, j)) row->raw[j] = p->scale * clattn__ref_score(p, row, j);
    }
}

/* 2: softcap, then the additive terms, then the forbidden keys. */
static void pass_masks(const clattn__ref_attention *p, clattn__ref_row *row) {
    row->empty = true;
    for (int64_t j = 0; j < p->kv_len; j++) {
        bool exists = clattn__ref_key_exists(p, row, j);
        row->capped[j] = row->raw[j];
        if (exists && p->softcap > 0) row->capped[j] = p->softcap * tanh(row->raw[j] / p->softcap);
        row->allowed[j] = is_allowed(p, row, j);
        row->logit[j] = row->allowed[j] ? row->capped[j] + clattn__ref_additive(p, row, j) : -INFINITY;
        if (row->allowed[j]) row->empty = false;
    }
}

/* 3: softmax of logit / temperature over the allowed keys. The sink is one more logit, of a key without a value. */
static void pass_softmax(const clattn__ref_attention *p, clattn__ref_row *row) {
    const bool has_sink = p->sinks.data && !row->empty;
    const double sink = has_sink ? clattn__ref_get(&p->sinks, row->h, 0, 0, 0) / p->temperature : -INFINITY;
    row->max = sink;
    for (int64_t j = 0; j < p->kv_len; j++)
        if (row->allowed[j]) row->max = fmax(row->max, row->logit[j] / p->temperature);

    row->sum = has_sink ? exp(sink - row->max) : 0;
    for (int64_t j = 0; j < p->kv_len; j++)
        if (row->allowed[j]) row->sum += exp(row->logit[j] / p->temperature - row->max);

    row->sink_weight = has_sink ? exp(sink - row->max) / row->sum : 0;
    for (int64_t j = 0; j < p->kv_len; j++)
        row->weight[j] = row->allowed[j] ? exp(row->logit[j] / p->temperature - row->max) / row->sum : 0;
    row->lse = row->empty ? -INFINITY : row->max + log(row->sum);
}

/* 4: which weights are kept, and by how much they grow. */
static void pass_dropout(const clattn__ref_attention *p, clattn__ref_row *row) {
    for (int64_t j = 0; j < p->kv_len; j++) {
        row->dropout[j] = 1;
        if (p->dropout_factor == 0) continue;
        const bool kept = clattn_dropout_keeps(p->dropout_threshold, (uint32_t)p->dropout_seed,
                                               (uint32_t)(p->dropout_seed >> 32), (int)(p->batch_first + row->b),
                                               (int)(p->head_first + row->h), (int)(p->query_first + row->i), (int)j);
        row->dropout[j] = kept ? p->dropout_factor : 0;
    }
}

/* 4: output = sum_j dropout_j * weight_j * v_j over the allowed keys; 0 for an empty row. */
static void pass_values(const clattn__ref_attention *p, clattn__ref_row *row) {
    for (int64_t c = 0; c < p->value_dim; c++) {
        double sum = 0;
        for (int64_t j = 0; j < p->kv_len; j++)
            if (row->allowed[j])
                sum += row->dropout[j] * row->weight[j] * clattn__ref_get(&p->value, row->b, row->g, j, c);
        row->output[c] = sum;
    }
}

static double score_of(const clattn__ref_attention *p, const clattn__ref_row *row, int64_t j) {
    switch (p->scores_mode) {
    case CLATTN_SCORES_RAW:
        return row->raw[j];
    case CLATTN_SCORES_SOFTCAP:
        return row->capped[j];
    case CLATTN_SCORES_MASKED:
        return row->logit[j];
    default:
        return row->weight[j];
    }
}

/* 5: outputs. average: (Sk), collects the weights of all heads of this row. */
static void pass_outputs(const clattn__ref_attention *p, const clattn__ref_row *row, double *average) {
    const int64_t b = row->b, h = row->h, i = row->i;
    for (int64_t c = 0; c < p->value_dim; c++) clattn__ref_set(&p->output, b, h, i, c, row->output[c]);
    if (p->lse.data) clattn__ref_set(&p->lse, b, h, i, 0, row->lse);
    for (int64_t j = 0; j < p->kv_len; j++) {
        average[j] += row->weight[j];
        if (p->weights.data && !p->average_weights) clattn__ref_set(&p->weights, b, h, i, j, row->weight[j]);
        if (p->scores.data) clattn__ref_set(&p->scores, b, h, i, j, score_of(p, row, j));
    }
}

/* The mean over the heads, rounded once; the sums are in `average`. */
static void write_average(const clattn__ref_attention *p, const clattn__ref_array *to, int64_t b, int64_t i,
                          const double *average) {
    if (!to->data || !p->average_weights) return;
    for (int64_t j = 0; j < p->kv_len; j++) {
        double before = p->accumulate_weights ? clattn__ref_get(to, b, 0, i, j) : 0;
        clattn__ref_set(to, b, 0, i, j, before + average[j] * p->weights_factor);
    }
}

static bool has_tolerance(const clattn__ref_attention *p) {
    return p->tolerance.data || p->lse_tolerance.data || p->weights_tolerance.data || p->scores_tolerance.data;
}

static clattn_status run_batch(const clattn__ref_attention *p) {
    const size_t keys = (size_t)p->kv_len;
    clattn__ref_row row = {0};
    double *memory = clattn__alloc(9 * keys + (size_t)p->value_dim, sizeof(double));
    row.allowed = clattn__alloc(keys, sizeof(bool));
    if (!memory || !row.allowed) {
        clattn__free(memory);
        clattn__free(row.allowed);
        return CLATTN_OUT_OF_MEMORY;
    }
    double **const parts[] = {&row.raw,     &row.capped,  &row.logit,    &row.weight,
                              &row.dropout, &row.rounded, &row.inherited};
    for (size_t k = 0; k < CLATTN__COUNT(parts); k++) *parts[k] = memory + k * keys;
    double *average = memory + 7 * keys, *average_tolerance = memory + 8 * keys;
    row.output = memory + 9 * keys;

    for (int64_t b = 0; b < p->batch; b++)
        for (int64_t i = 0; i < p->query_len; i++) {
            for (size_t j = 0; j < 2 * keys; j++) average[j] = 0; /* both averages */
            for (int64_t h = 0; h < p->query_heads; h++) {
                row_begin(p, &row, b, h, i);
                pass_logits(p, &row);
                pass_masks(p, &row);
                pass_softmax(p, &row);
                pass_dropout(p, &row);
                pass_values(p, &row);
                pass_outputs(p, &row, average);
                if (has_tolerance(p)) clattn__ref_row_tolerance(p, &row, average_tolerance);
            }
            write_average(p, &p->weights, b, i, average);
            write_average(p, &p->weights_tolerance, b, i, average_tolerance);
        }
    clattn__free(memory);
    clattn__free(row.allowed);
    return CLATTN_OK;
}

/* Moves an array to batch entry b and row r. */
static void advance(clattn__ref_array *array, int64_t b, int64_t r) {
    const size_t size = array->dtype == CLATTN__F64 ? sizeof(double) : clattn_dtype_size(array->dtype);
    if (array->data) array->data = (char *)array->data + (b * array->stride[0] + r * array->stride[2]) * (int64_t)size;
}

static int64_t clamp(int64_t value, int64_t low, int64_t high) {
    return value < low ? low : value > high ? high : value;
}

/* Sequence b of a packed batch as a problem of its own. Starts that do not fit the tensors are cut. */
static clattn__ref_attention sequence_of(const clattn__ref_attention *p, int64_t b) {
    clattn__ref_attention one = *p;
    const int64_t query = clamp((int64_t)clattn__ref_get(&p->query_starts, b, 0, 0, 0), 0, p->query_total);
    const int64_t query_end = clamp((int64_t)clattn__ref_get(&p->query_starts, b + 1, 0, 0, 0), 0, p->query_total);
    const int64_t key = clamp((int64_t)clattn__ref_get(&p->key_starts, b, 0, 0, 0), 0, p->key_total);
    const int64_t key_end = clamp((int64_t)clattn__ref_get(&p->key_starts, b + 1, 0, 0, 0), 0, p->key_total);
    one.batch = 1;
    one.batch_first += b;
    one.query_len = clamp(query_end - query, 0, p->query_len);
    one.kv_len = clamp(key_end - key, 0, p->kv_len);
    if (p->align_end) one.offset = (p->offset_from_lengths ? 0 : one.kv_len) - one.query_len;
    one.query_starts.data = one.key_starts.data = NULL;
    clattn__ref_array *const by_query[] = {&one.query, &one.output, &one.lse, &one.tolerance, &one.lse_tolerance};
    clattn__ref_array *const by_key[] = {&one.key, &one.value};
    clattn__ref_array *const by_batch[] = {
        &one.mask,          &one.padding, &one.lengths,           &one.prefix, &one.query_documents,
        &one.key_documents, &one.weights, &one.weights_tolerance, &one.scores, &one.scores_tolerance};
    for (size_t i = 0; i < CLATTN__COUNT(by_query); i++) advance(by_query[i], b, query);
    for (size_t i = 0; i < CLATTN__COUNT(by_key); i++) advance(by_key[i], b, key);
    for (size_t i = 0; i < CLATTN__COUNT(by_batch); i++) advance(by_batch[i], b, 0);
    return one;
}

/* Weights and scores of rows and keys that a packed sequence lacks. */
static void fill_missing(const clattn__ref_attention *p, const clattn__ref_attention *one, const clattn__ref_array *to,
                         int64_t heads, double value) {
    for (int64_t h = 0; to->data && h < heads; h++)
        for (int64_t i = 0; i < p->query_len; i++)
            for (int64_t j = i < one->query_len ? one->kv_len : 0; j < p->kv_len; j++)
                clattn__ref_set(to, 0, h, i, j, value);
}

clattn_status clattn__ref_attention_run(const clattn__ref_attention *p) {
    if (!p->query_starts.data) return run_batch(p);
    clattn_status status = CLATTN_OK;
    for (int64_t b = 0; b < p->batch && status == CLATTN_OK; b++) {
        const clattn__ref_attention one = sequence_of(p, b);
        status = run_batch(&one);
        const int64_t H = p->query_heads, shared = p->average_weights ? 1 : H;
        fill_missing(p, &one, &one.weights, shared, 0);
        fill_missing(p, &one, &one.weights_tolerance, shared, 0);
        fill_missing(p, &one, &one.scores, H, p->scores_mode == CLATTN_SCORES_SOFTMAX ? 0 : -INFINITY);
        fill_missing(p, &one, &one.scores_tolerance, H, 0);
    }
    return status;
}
