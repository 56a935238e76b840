/* Projections y = x W^T + bias in double, and how far a float32 device may be from them. */
#include "ref/ref.h"

#include <math.h>

void clattn__ref_linear(const float *x,                /* (m, k), rows x_row apart */
                        int64_t x_row, const float *w, /* (n, k) */
                        const float *bias,             /* (n) or NULL */
                        double *y,                     /* (m, n), rows y_row apart; overwritten */
                        int64_t y_row, int64_t m, int64_t n, int64_t k) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = bias ? bias[j] : 0;
            for (int64_t c = 0; c < k; c++) sum += (double)x[i * x_row + c] * w[j * k + c];
            y[i * y_row + j] = sum;
        }
}

double clattn__ref_product(const void *x, clattn_dtype dtype, int64_t at, const float *w, int64_t k) {
    double sum = 0;
    for (int64_t c = 0; c < k; c++) sum += clattn__ref_load(x, dtype, at + c) * w[c];
    return sum;
}

void clattn__ref_linear_tolerance(const float *x, int64_t x_row, const float *w, const float *bias, double *tolerance,
                                  int64_t y_row, int64_t m, int64_t n, int64_t k) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = bias ? bias[j] : 0, size = fabs(sum);
            for (int64_t c = 0; c < k; c++) {
                double term = (double)x[i * x_row + c] * w[j * k + c];
                sum += term;
                size += fabs(term);
            }
            tolerance[i * y_row + j] = clattn__ref_rounding(k + 1, size, sum);
        }
}

/* Errors of distinct elements of x are independent, so their effects add up in squares; the rounding of the product
 * itself comes on top. */
void clattn__ref_project(const clattn__ref_projection *p) {
    for (int64_t i = 0; i < p->m; i++) {
        const double *x = p->x + i * p->k;                                 /* (k) */
        const double *x_error = p->x_error ? p->x_error + i * p->k : NULL; /* (k) */
        for (int64_t j = 0; j < p->n; j++) {
            const float *w = p->w + j * p->w_row; /* (k) */
            double sum = p->bias ? p->bias[j] : 0, size = fabs(sum), squares = 0;
            for (int64_t c = 0; c < p->k; c++) {
                const double term = x[c] * w[c], inherited = x_error ? x_error[c] * w[c] : 0;
                sum += term;
                size += fabs(term);
                squares += inherited * inherited;
            }
            p->y[i * p->n + j] = sum;
            if (p->y_error) p->y_error[i * p->n + j] = clattn__ref_rounding(p->k + 1, size, sum) + sqrt(squares);
        }
    }
}
