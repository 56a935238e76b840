/* Pass 1: what a query row and a key have in common, by the kinds of clattn_score, and how exactly a float32 device can
 * tell. */
#include <math.h>

#include "ref/ref.h"
#include "ref/row.h"

/* What one feature d goes through. */
typedef struct feature {
    double q, k, w, b; /* query, key, score_weight (1 when absent), score_bias (0) */
} feature;

static feature feature_of(const clattn__ref_attention *p, const clattn__ref_row *row, int64_t j, int64_t d) {
    return (feature){.q = clattn__ref_get(&p->query, row->b, row->h, row->i, d),
                     .k = clattn__ref_get(&p->key, row->b, row->g, j, d),
                     .w = p->score_weight.data ? clattn__ref_get(&p->score_weight, d, 0, 0, 0) : 1,
                     .b = p->score_bias.data ? clattn__ref_get(&p->score_bias, d, 0, 0, 0) : 0};
}

static double term_of(clattn_score score, feature f) {
    switch (score) {
    case CLATTN_SCORE_GAUSSIAN:
        return -0.5 * (f.q - f.k) * f.w * (f.q - f.k) * f.w;
    case CLATTN_SCORE_ADDITIVE:
        return f.w * tanh(f.q + f.k + f.b);
    case CLATTN_SCORE_ADDITIVE_LINEAR:
        return f.w * (f.q + f.k + f.b);
    default:
        return f.q * f.k;
    }
}

double clattn__ref_score(const clattn__ref_attention *p, const clattn__ref_row *row, int64_t j) {
    double sum = 0;
    for (int64_t d = 0; d < p->head_dim; d++) sum += term_of(p->score, feature_of(p, row, j, d));
    return sum;
}

/* Roundings inside one term, beyond the one of a product: each of q - k, times w and the square, or of the two sums and
 * the tanh (which may be made of exponentials), whose slope is at most 1. */
static double term_rounding(clattn_score score, feature f, double term) {
    switch (score) {
    case CLATTN_SCORE_GAUSSIAN:
        return 6 * CLATTN__REF_ROUNDOFF * fabs(term);
    case CLATTN_SCORE_ADDITIVE:
        return CLATTN__REF_ROUNDOFF * fabs(f.w) * (8 + 2 * (fabs(f.q) + fabs(f.k) + fabs(f.b)));
    case CLATTN_SCORE_ADDITIVE_LINEAR:
        return CLATTN__REF_ROUNDOFF * fabs(f.w) * 2 * (fabs(f.q) + fabs(f.k) + fabs(f.b));
    default:
        return 0;
    }
}

/* How far the term moves with the query (or the key, with another sign). */
static double slope_of(clattn_score score, feature f, bool by_query) {
    switch (score) {
    case CLATTN_SCORE_GAUSSIAN:
        return (f.q - f.k) * f.w * f.w;
    case CLATTN_SCORE_ADDITIVE:
    case CLATTN_SCORE_ADDITIVE_LINEAR:
        return f.w;
    default:
        return by_query ? f.k : f.q;
    }
}

void clattn__ref_score_errors(const clattn__ref_attention *p, const clattn__ref_row *row, int64_t j, double *rounding,
                              double *inherited) {
    double size = 0, squares = 0, inner = 0;
    for (int64_t d = 0; d < p->head_dim; d++) {
        const feature f = feature_of(p, row, j, d);
        const double term = term_of(p->score, f);
        const double dq = p->query_error.data ? clattn__ref_get(&p->query_error, row->b, row->h, row->i, d) : 0;
        const double dk = p->key_error.data ? clattn__ref_get(&p->key_error, row->b, row->g, j, d) : 0;
        const double by_query = dq * slope_of(p->score, f, true), by_key = dk * slope_of(p->score, f, false);
        size += fabs(term);
        squares += by_query * by_query + by_key * by_key;
        inner += term_rounding(p->score, f, term);
    }
    const double scale = fabs(p->scale);
    *rounding = clattn__ref_rounding(p->head_dim, scale * size, row->raw[j]) + scale * inner +
                4 * CLATTN__REF_ROUNDOFF * fabs(row->raw[j]);
    *inherited = scale * sqrt(squares);
}
