/* How far a correct float32 device may be from the reference, element by element. docs/numerics.md derives each term;
 * the letters are the same there. */
#include "ref/ref.h"

#include <float.h>
#include <math.h>

#include "ref/row.h"

static const double u = CLATTN__REF_ROUNDOFF;

/* No order of summation exceeds n + 2 roundings per term. The usual ones stay far below: rounding errors have mixed
 * signs, so that beside a few roundings per term only a common sign of the terms lets the error grow, with the root
 * of n. */
double clattn__ref_rounding(int64_t n, double sum_of_magnitudes, double sum) {
    double worst = (double)(n + 2) * sum_of_magnitudes;
    double usual = 8 * sum_of_magnitudes + 4 * sqrt((double)n) * fabs(sum);
    return u * fmin(worst, usual);
}

static double softcap_of(const clattn__ref_attention *p, double s) { return p->softcap * tanh(s / p->softcap); }

/* Through the softcap: it is monotone, so the ends of the interval bound it; tanh itself may be computed by way of
 * exp. */
static double capped_error(const clattn__ref_attention *p, double raw, double error) {
    if (!(p->softcap > 0)) return error;
    double middle = softcap_of(p, raw);
    return fmax(softcap_of(p, raw + error) - middle, middle - softcap_of(p, raw - error)) + 8 * u * p->softcap;
}

/* Rounding of the masked logit, before the maximum is taken off. */
static double logit_error(const clattn__ref_attention *p, const clattn__ref_row *row, int64_t j, double capped) {
    return capped + 4 * u * (fabs(row->capped[j]) + fabs(clattn__ref_additive(p, row, j)));
}

static void write_scores(const clattn__ref_attention *p, const clattn__ref_row *row, int64_t j, double raw,
                         double capped) {
    double error = 0;
    if (p->scores_mode == CLATTN_SCORES_RAW) error = raw;
    if (p->scores_mode == CLATTN_SCORES_SOFTCAP) error = capped;
    if (p->scores_mode == CLATTN_SCORES_MASKED && row->allowed[j]) error = logit_error(p, row, j, capped);
    clattn__ref_set(&p->scores_tolerance, row->b, row->h, row->i, j, error + FLT_MIN);
}

/* A weight whose exponent is off by `shift`. By way of the exponent, because a weight of 0 may have a large shift. */
static double shifted_weight(const clattn__ref_attention *p, const clattn__ref_row *row, double logit, double shift) {
    return exp(logit / p->temperature - row->lse + shift);
}

/* What the errors of all exponents together do to the sum of the weights, which is 1 without them. */
typedef struct sum_errors {
    double gain; /* how much it may grow  */
    double left; /* what it keeps at least */
    double sink; /* share of the sink in gain */
} sum_errors;

/* Fills rounded_j and inherited_j, writes the tolerances of the scores on the way. */
static sum_errors exponent_errors(const clattn__ref_attention *p, clattn__ref_row *row) {
    sum_errors sums = {0};
    if (row->sink_weight > 0) {
        double sink = clattn__ref_get(&p->sinks, row->h, 0, 0, 0),
               slack = 4 * u * (fabs(sink / p->temperature) + fabs(row->max));
        sums.gain = sums.sink = shifted_weight(p, row, sink, slack) - row->sink_weight;
        sums.left = shifted_weight(p, row, sink, -slack);
    }
    double squares = 0;
    for (int64_t j = 0; j < p->kv_len; j++) {
        double raw = 0, inherited = 0;
        if (clattn__ref_key_exists(p, row, j) && (row->allowed[j] || p->scores_tolerance.data))
            clattn__ref_score_errors(p, row, j, &raw, &inherited);
        double capped = capped_error(p, row->raw[j], raw);
        if (p->scores_tolerance.data) write_scores(p, row, j, raw, capped);
        if (!row->allowed[j]) continue;
        double logit = row->logit[j];
        double slack =
            logit_error(p, row, j, capped) / p->temperature + 4 * u * (fabs(logit / p->temperature) + fabs(row->max));
        row->rounded[j] = shifted_weight(p, row, logit, slack) - row->weight[j];
        row->inherited[j] = shifted_weight(p, row, logit, inherited / p->temperature) - row->weight[j];
        sums.gain += row->rounded[j];
        sums.left += shifted_weight(p, row, logit, -slack);
        squares += row->inherited[j] * row->inherited[j];
    }
    sums.gain += sqrt(squares);
    return sums;
}

double clattn__ref_storage_rounding(clattn_dtype dtype, double value) {
    if (dtype == CLATTN_F16) return 2 * (0x1p-11 * fabs(value) + 0x1p-25);
    if (dtype == CLATTN_BF16) return 2 * 0x1p-8 * fabs(value);
    return 2 * u * fabs(value);
}

/* Half a unit in the last place, three times: errors of a step's inputs add up in squares, which fits errors that are
 * mostly far below their bound, and a rounding to 16 bits is not. Those to float32 are counted by the steps. */
void clattn__ref_stored(clattn_dtype dtype, clattn__ref_values x, int64_t count) {
    if (!x.error || dtype == CLATTN_F32) return;
    for (int64_t i = 0; i < count; i++) x.error[i] += 1.5 * clattn__ref_storage_rounding(dtype, x.value[i]);
}

/* Features a and b became x and y of the same length, so |a| + |b| <= sqrt(2) (|x| + |y|). */
static double turning_error(const clattn__ref_turned *t, double x, double y) {
    return (t->computed ? 20 : 4) * u * sqrt(2.0) * (fabs(x) + fabs(y)) + FLT_MIN;
}

/* The other feature of the pair that d belongs to. */
static int64_t partner_of(const clattn__ref_turned *t, int64_t d) {
    const int64_t pairs = t->rotary_dim / 2;
    return t->interleaved ? d ^ 1 : d < pairs ? d + pairs : d - pairs;
}

/* Where the cache has fewer bits, the least difference may round to the other side: a unit in the last place, or of
 * bytes a step, which is a 127th of the greatest element. The step itself is as far off as that element. */
static void turned_key(const clattn__ref_turned *t, int64_t b, int64_t h, int64_t r) {
    double most = 0;
    for (int64_t d = 0; d < t->width; d++) most = fmax(most, fabs(clattn__ref_get(&t->keys, b, h, r, d)));
    for (int64_t d = 0; d < t->width; d++) {
        const double x = clattn__ref_get(&t->keys, b, h, r, d);
        const bool turns = d < t->rotary_dim;
        double error = turns ? turning_error(t, x, clattn__ref_get(&t->keys, b, h, r, partner_of(t, d))) : 0;
        if (t->cells == CLATTN_I8)
            error += most / 127 + turning_error(t, most, most);
        else if (turns)
            error += clattn__ref_storage_rounding(t->cells, x);
        clattn__ref_set(&t->error, b, h, r, d, error);
    }
}

void clattn__ref_turned_keys(const clattn__ref_turned *t) {
    for (int64_t b = 0; b < t->batch; b++)
        for (int64_t h = 0; h < t->heads; h++)
            for (int64_t r = 0; r < t->rows; r++) turned_key(t, b, h, r);
}

static double output_error(const clattn__ref_attention *p, const clattn__ref_row *row, const sum_errors *sums,
                           int64_t c) {
    const double o = row->output[c];
    double moved = sums->sink * fabs(o), squares = 0, size = 0, largest = 0, by_weight = 0;
    for (int64_t j = 0; j < p->kv_len; j++) {
        if (!row->allowed[j]) continue;
        double v = row->dropout[j] * clattn__ref_get(&p->value, row->b, row->g, j, c);
        double dv = p->value_error.data ? row->dropout[j] * clattn__ref_get(&p->value_error, row->b, row->g, j, c) : 0;
        double by_score = row->inherited[j] * (v - o), by_value = row->weight[j] * dv;
        moved += row->rounded[j] * fabs(v - o);
        squares += by_score * by_score + by_value * by_value;
        size += row->weight[j] * fabs(v);
        largest = fmax(largest, fabs(v));
        /* once, not twice: the reference rounds no weight; the greatest exponential is 1, so their sum is no less */
        if (p->weight_dtype != CLATTN_F32)
            by_weight += 0.5 * clattn__ref_storage_rounding(p->weight_dtype, row->weight[j]) * fabs(v);
    }
    double sum = clattn__ref_rounding(p->kv_len, size, o) + clattn__ref_rounding(p->kv_len, fabs(o), o) + 16 * u * size;
    double vanished =
        FLT_MIN * (1 + largest * (double)p->kv_len); /* weights and results too small for a normal float */
    return moved / sums->left + sqrt(squares) + by_weight + sum + vanished +
           clattn__ref_storage_rounding(p->output.dtype, o);
}

static double weight_error(const clattn__ref_attention *p, const clattn__ref_row *row, const sum_errors *sums,
                           int64_t j) {
    double weight = row->weight[j];
    double moved = (row->rounded[j] + weight * sums->gain) / sums->left + row->inherited[j];
    return moved + clattn__ref_rounding(p->kv_len, weight, weight) + 16 * u * weight + FLT_MIN;
}

static void write_weights(const clattn__ref_attention *p, const clattn__ref_row *row, const sum_errors *sums,
                          double *average) {
    for (int64_t j = 0; j < p->kv_len; j++) {
        double error = row->allowed[j] ? weight_error(p, row, sums, j) : 0;
        average[j] += error + clattn__ref_rounding(p->query_heads, row->weight[j], row->weight[j]);
        if (!p->average_weights && p->weights_tolerance.data)
            clattn__ref_set(&p->weights_tolerance, row->b, row->h, row->i, j, error);
        if (p->scores_tolerance.data && p->scores_mode == CLATTN_SCORES_SOFTMAX)
            clattn__ref_set(&p->scores_tolerance, row->b, row->h, row->i, j, error);
    }
}

void clattn__ref_row_tolerance(const clattn__ref_attention *p, clattn__ref_row *row, double *average) {
    const sum_errors sums = exponent_errors(p, row);
    write_weights(p, row, &sums, average);
    if (p->lse_tolerance.data) {
        double rounding = clattn__ref_rounding(p->kv_len, 1, 1) + 16 * u + 4 * u * (fabs(row->lse) + fabs(row->max));
        clattn__ref_set(&p->lse_tolerance, row->b, row->h, row->i, 0, row->empty ? 0 : log1p(sums.gain) + rounding);
    }
    for (int64_t c = 0; p->tolerance.data && c < p->value_dim; c++)
        clattn__ref_set(&p->tolerance, row->b, row->h, row->i, c, row->empty ? 0 : output_error(p, row, &sums, c));
}
