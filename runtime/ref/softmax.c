/* Softmax, its gradient and cross entropy, row by row in double. */
#include <float.h>
#include <math.h>

#include "ref/ref.h"

static const double u = CLATTN__REF_ROUNDOFF;

/* One row: element i of array a is (o[0], o[1], o[2], i). */
typedef struct row_state {
    const clattn__ref_softmax *problem;
    int64_t o[3];
    double greatest, sum; /* of x, and of exp((x - greatest) / t) */
    double gain;          /* how much the errors of all terms may change the sum of the probabilities, which is 1 */
} row_state;

static double element(const row_state *row, const clattn__ref_array *a, int64_t i) {
    return clattn__ref_get(a, row->o[0], row->o[1], row->o[2], i);
}

/* Absent outputs and tolerances are passed over. */
static void put(const row_state *row, const clattn__ref_array *a, int64_t i, double value) {
    if (a->data) clattn__ref_set(a, row->o[0], row->o[1], row->o[2], i, value);
}

/* The error of a result of float32 and what storing it costs beyond that. */
static void put_error(const row_state *row, const clattn__ref_array *a, int64_t i, double value, double error) {
    const clattn_dtype stored = row->problem->stored;
    put(row, a, i, error + (stored == CLATTN_F32 ? 0 : clattn__ref_storage_rounding(stored, value)));
}

static bool allowed(const row_state *row, int64_t i) {
    const clattn__ref_array *mask = &row->problem->mask;
    return !mask->data || element(row, mask, i) != 0;
}

static double exponent(const row_state *row, int64_t i) {
    return (element(row, &row->problem->x, i) - row->greatest) / row->problem->temperature;
}

/* How far exp((x_i - greatest) / t) may be off: difference, the rounded factor 1 / t and the product by it cost half a
 * unit of the exponent or so each; then the power itself. By way of the exponent, because a power of 0 may have a large
 * shift. */
static double power_error(const row_state *row, int64_t i) {
    const double e = exponent(row, i);
    return exp(e + 4 * u * fabs(e)) - exp(e) + 8 * u * exp(e);
}

/* ---- forward --------------------------------------------------------------------------------------------------- */

static void reduce(row_state *row) {
    const clattn__ref_softmax *p = row->problem;
    row->greatest = -INFINITY;
    row->sum = row->gain = 0;
    for (int64_t i = 0; i < p->n; i++)
        if (allowed(row, i)) row->greatest = fmax(row->greatest, element(row, &p->x, i));
    for (int64_t i = 0; i < p->n; i++) {
        if (!allowed(row, i)) continue;
        row->sum += exp(exponent(row, i));
        row->gain += power_error(row, i);
    }
    /* compensated within a work-item, then a tree over lanes and work-items; powers that vanish */
    row->gain = row->gain / row->sum + 16 * u + (double)p->n * FLT_MIN;
}

static double probability(const row_state *row, int64_t i) {
    return allowed(row, i) ? exp(exponent(row, i)) / row->sum : 0;
}

static double probability_error(const row_state *row, int64_t i) {
    if (!allowed(row, i)) return 0;
    const double moved = power_error(row, i) / row->sum + probability(row, i) * (row->gain + 8 * u);
    return moved / (1 - row->gain) + 2 * FLT_MIN;
}

static void forward(row_state *row) {
    const clattn__ref_softmax *p = row->problem;
    reduce(row);
    for (int64_t i = 0; i < p->n; i++) {
        put(row, &p->probability, i, probability(row, i));
        put_error(row, &p->probability_tolerance, i, probability(row, i), probability_error(row, i));
    }
}

/* ---- backward -------------------------------------------------------------------------------------------------- */

/* p_i * (g_i - sum_k g_k p_k) / t */
static void backward(row_state *row) {
    const clattn__ref_softmax *p = row->problem;
    double inner = 0, size = 0;
    for (int64_t i = 0; i < p->n; i++) {
        if (!allowed(row, i)) continue;
        const double product = element(row, &p->second, i) * element(row, &p->x, i);
        inner += product;
        size += fabs(product);
    }
    const double inner_error = 18 * u * size + (double)p->n * FLT_MIN;
    for (int64_t i = 0; i < p->n; i++) {
        const double share = allowed(row, i) ? element(row, &p->x, i) / p->temperature : 0;
        const double difference = allowed(row, i) ? element(row, &p->second, i) - inner : 0;
        put(row, &p->gradient, i, share * difference);
        const double error = fabs(share) * (inner_error + 8 * u * fabs(difference));
        put_error(row, &p->gradient_tolerance, i, share * difference,
                  error + FLT_MIN * (1 + fabs(difference)) * (1 + 1 / p->temperature));
    }
}

/* ---- cross entropy --------------------------------------------------------------------------------------------- */

static void cross_entropy(row_state *row) {
    const clattn__ref_softmax *p = row->problem;
    const double t = p->temperature;
    const int64_t label = (int64_t)element(row, &p->second, 0);
    const bool counts = label >= 0 && label < p->n;
    forward(row);
    double loss = 0, loss_error = 0;
    if (counts && !allowed(row, label)) loss = INFINITY;
    if (counts && allowed(row, label)) {
        loss = log(row->sum) - exponent(row, label);
        loss_error = log1p(row->gain) + 8 * u * (fabs(log(row->sum)) + fabs(exponent(row, label)));
    }
    put(row, &p->loss, 0, loss);
    put(row, &p->loss_tolerance, 0, loss_error + FLT_MIN);
    for (int64_t i = 0; i < p->n; i++) {
        const double hit = i == label && allowed(row, i) ? 1 : 0, difference = counts ? probability(row, i) - hit : 0;
        put(row, &p->gradient, i, difference / t);
        const double error = counts ? (probability_error(row, i) + 4 * u * fabs(difference)) / t : 0;
        put_error(row, &p->gradient_tolerance, i, difference / t, error + FLT_MIN);
    }
}

void clattn__ref_softmax_run(const clattn__ref_softmax *problem) {
    const int64_t *extent = problem->outer;
    for (int64_t o0 = 0; o0 < extent[0]; o0++)
        for (int64_t o1 = 0; o1 < extent[1]; o1++)
            for (int64_t o2 = 0; o2 < extent[2]; o2++) {
                row_state row = {.problem = problem, .o = {o0, o1, o2}};
                if (problem->kind == CLATTN_SOFTMAX_BACKWARD)
                    backward(&row);
                else if (problem->kind == CLATTN_SOFTMAX_CROSS_ENTROPY)
                    cross_entropy(&row);
                else
                    forward(&row);
            }
}
