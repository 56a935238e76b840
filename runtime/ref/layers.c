/* Layers around attention, in double, with the error that a float32 device may have made so far. Errors of distinct
 * elements count as independent, so what they do to a result adds up in squares; roundings of the step itself come on
 * top. docs/layers.md has the bounds. */
#include "ref/ref.h"

#include <math.h>

static const double u = CLATTN__REF_ROUNDOFF;

static const double PI = 3.14159265358979323846;

/* ---- normalisation ----------------------------------------------------------------------------------------------- */

/* n values with a stride, what they have in common, and how far a device may be from that. */
typedef struct sample {
    const double *x, *error; /* error may be NULL */
    int64_t n, stride;
    double mean, factor;             /* factor = 1 / sqrt(variance + eps) */
    double mean_error, factor_error; /* the latter relative */
    double inherited[3];             /* sums over j of error_j^2 times 1, z_j, z_j^2; z = (x - mean) * factor */
} sample;

static void take_statistics(sample *s, double eps) {
    double sum = 0, size = 0, squares = 0;
    for (int64_t i = 0; i < s->n; i++) {
        sum += s->x[i * s->stride];
        size += fabs(s->x[i * s->stride]);
    }
    const double n = (double)s->n;
    s->mean = sum / n;
    s->mean_error = clattn__ref_rounding(s->n, size, sum) / n + 2 * u * fabs(s->mean);
    for (int64_t i = 0; i < s->n; i++) {
        const double deviation = s->x[i * s->stride] - s->mean;
        squares += deviation * deviation;
    }
    const double variance = squares / n;
    /* a mean that is off adds its error's square to the variance: the first order cancels */
    const double variance_error =
        s->mean_error * s->mean_error + clattn__ref_rounding(s->n, squares, squares) / n + 6 * u * variance;
    s->factor = 1 / sqrt(variance + eps);
    s->factor_error = fmin(1, variance_error / (2 * (variance + eps))) + 8 * u;
}

static void take_inherited(sample *s) {
    for (int64_t i = 0; s->error && i < s->n; i++) {
        const double z = (s->x[i * s->stride] - s->mean) * s->factor;
        const double square = s->error[i * s->stride] * s->error[i * s->stride];
        s->inherited[0] += square;
        s->inherited[1] += square * z;
        s->inherited[2] += square * z * z;
    }
}

/* What the errors of all x do to z_i: the derivative of z_i by x_j is factor * (delta_ij - 1/n - z_i z_j / n). */
static double inherited_error(const sample *s, int64_t i, double z) {
    if (!s->error) return 0;
    const double n = (double)s->n, own = s->error[i * s->stride];
    const double squares = own * own * (1 - 2 * (1 + z * z) / n) +
                           (s->inherited[0] + 2 * z * s->inherited[1] + z * z * s->inherited[2]) / (n * n);
    return s->factor * sqrt(fmax(0, squares));
}

static void normalise(const sample *s, int64_t i, double weight, double bias, double *value, double *error) {
    const double deviation = s->x[i * s->stride] - s->mean, z = deviation * s->factor, y = z * weight + bias;
    if (error) {
        const double own = s->factor * (s->mean_error + u * fabs(deviation)) + fabs(z) * (s->factor_error + 4 * u);
        *error = fabs(weight) * (own + inherited_error(s, i, z)) + 2 * u * (fabs(y) + fabs(bias));
    }
    *value = y;
}

static double weight_of(const float *weights, int64_t i, double otherwise) { return weights ? weights[i] : otherwise; }

void clattn__ref_layer_norm(const clattn__ref_norm *p, clattn__ref_values x, clattn__ref_values y) {
    for (int64_t r = 0; r < p->rows; r++) {
        const int64_t at = r * p->features;
        sample s = {.x = x.value + at, .error = x.error ? x.error + at : NULL, .n = p->features, .stride = 1};
        take_statistics(&s, p->eps);
        take_inherited(&s);
        for (int64_t c = 0; c < p->features; c++)
            normalise(&s, c, weight_of(p->weight, c, 1), weight_of(p->bias, c, 0), &y.value[at + c],
                      y.error ? &y.error[at + c] : NULL);
    }
}

void clattn__ref_batch_norm(const clattn__ref_norm *p, clattn__ref_values x, clattn__ref_values y) {
    for (int64_t c = 0; c < p->features; c++) {
        sample s = {.x = x.value + c, .error = x.error ? x.error + c : NULL, .n = p->rows, .stride = p->features};
        if (p->mean) {
            s.mean = p->mean[c];
            s.factor = 1 / sqrt(p->variance[c] + p->eps);
            s.factor_error = 2 * u;
        } else {
            take_statistics(&s, p->eps);
            take_inherited(&s);
        }
        for (int64_t r = 0; r < p->rows; r++)
            normalise(&s, r, weight_of(p->weight, c, 1), weight_of(p->bias, c, 0), &y.value[r * p->features + c],
                      y.error ? &y.error[r * p->features + c] : NULL);
    }
}

void clattn__ref_batch_statistics(const clattn__ref_norm *p, clattn__ref_values x, clattn__ref_values statistics) {
    for (int64_t c = 0; c < p->features; c++) {
        sample s = {.x = x.value + c, .n = p->rows, .stride = p->features};
        take_statistics(&s, p->eps);
        statistics.value[c] = s.mean;
        statistics.error[c] = s.mean_error;
        statistics.value[p->features + c] = s.factor;
        statistics.error[p->features + c] = s.factor * s.factor_error;
    }
}

/* ---- element by element ------------------------------------------------------------------------------------------ */

static void relu(clattn__ref_values x, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        if (x.value[i] < 0) x.value[i] = 0; /* its slope is 1 at most: the error stays */
}

static void gelu(clattn__ref_values x, int64_t count) {
    const double steepest = 1.13; /* slope */
    for (int64_t i = 0; i < count; i++) {
        if (x.error) x.error[i] = steepest * x.error[i] + 8 * u * fabs(x.value[i]);
        x.value[i] *= erfc(-x.value[i] / sqrt(2)) / 2;
    }
}

void clattn__ref_activate(clattn_activation activation, clattn__ref_values x, int64_t count) {
    if (activation == CLATTN_ACTIVATION_RELU) relu(x, count);
    if (activation == CLATTN_ACTIVATION_GELU) gelu(x, count);
}

void clattn__ref_add(clattn__ref_values x, clattn__ref_values y, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        x.value[i] += y.value[i];
        if (x.error) x.error[i] += (y.error ? y.error[i] : 0) + u * fabs(x.value[i]);
    }
}

/* ---- positions --------------------------------------------------------------------------------------------------- */

void clattn__ref_add_sinusoidal(clattn__ref_values row, int64_t features, double base, int64_t p) {
    for (int64_t c = 0; c < features; c++) {
        const double angle = (double)p * pow(base, -(double)(c - c % 2) / (double)features);
        row.value[c] += c % 2 ? cos(angle) : sin(angle);
        /* 4 units in the last place, an angle of up to pi rounded once, and what double makes of far positions */
        if (row.error) row.error[c] += (4 + PI) * u + fabs((double)p) * 0x1p-50 + u * fabs(row.value[c]);
    }
}

void clattn__ref_add_learned(clattn__ref_values row, int64_t features, const float *table, int64_t p) {
    for (int64_t c = 0; c < features; c++) {
        row.value[c] += table[p * features + c];
        if (row.error) row.error[c] += u * fabs(row.value[c]);
    }
}

/* ---- attention inside a block ------------------------------------------------------------------------------------ */

enum { QUERY = 0, KEY = 1, VALUE = 2, CONTEXT = 3 };

static void project(const clattn__ref_heads *p, int part, clattn__ref_values x, int64_t rows, clattn__ref_values y) {
    const clattn__ref_projection projection = {.m = p->batch * rows,
                                               .n = p->features,
                                               .k = p->features,
                                               .x = x.value,
                                               .x_error = x.error,
                                               .w = p->weight[part],
                                               .bias = p->bias[part],
                                               .w_row = p->weight_row[part],
                                               .y = y.value,
                                               .y_error = y.error};
    clattn__ref_project(&projection);
}

/* Dense (B, rows, H, D) seen as (batch, head, row, column). */
static clattn__ref_array split_heads(const clattn__ref_heads *p, double *memory, int64_t rows) {
    return (clattn__ref_array){memory, CLATTN__F64, {rows * p->features, p->features / p->heads, p->features, 1}};
}

static clattn_status attend(const clattn__ref_heads *p, const clattn__ref_values parts[4]) {
    const int64_t L = p->query_len, S = p->kv_len, D = p->features / p->heads;
    const clattn__ref_attention attention = {.batch = p->batch,
                                             .query_heads = p->heads,
                                             .kv_heads = p->heads,
                                             .query_len = L,
                                             .kv_len = S,
                                             .head_dim = D,
                                             .value_dim = D,
                                             .scale = p->scale,
                                             .temperature = 1,
                                             .causal = p->causal,
                                             .window_left = -1,
                                             .window_right = -1,
                                             .mask_len = p->mask_len,
                                             .query = split_heads(p, parts[QUERY].value, L),
                                             .query_error = split_heads(p, parts[QUERY].error, L),
                                             .key = split_heads(p, parts[KEY].value, S),
                                             .key_error = split_heads(p, parts[KEY].error, S),
                                             .value = split_heads(p, parts[VALUE].value, S),
                                             .value_error = split_heads(p, parts[VALUE].error, S),
                                             .mask = p->mask,
                                             .padding = p->padding,
                                             .output = split_heads(p, parts[CONTEXT].value, L),
                                             .tolerance = split_heads(p, parts[CONTEXT].error, L),
                                             .weight_dtype = p->weight_dtype};
    return clattn__ref_attention_run(&attention);
}

clattn_status clattn__ref_heads_run(const clattn__ref_heads *p) {
    const int64_t rows[4] = {[QUERY] = p->query_len, [KEY] = p->kv_len, [VALUE] = p->kv_len, [CONTEXT] = p->query_len};
    clattn__ref_values parts[4] = {{0}};
    clattn_status status = CLATTN_OK;
    for (int i = 0; i < 4 && status == CLATTN_OK; i++) {
        const size_t count = (size_t)(p->batch * rows[i] * p->features);
        parts[i].value = clattn__alloc(count, sizeof(double));
        if (p->output.error) parts[i].error = clattn__alloc(count, sizeof(double));
        if (!parts[i].value || (p->output.error && !parts[i].error)) status = CLATTN_OUT_OF_MEMORY;
    }
    if (status == CLATTN_OK) {
        project(p, QUERY, p->query_in, p->query_len, parts[QUERY]);
        project(p, KEY, p->key_in, p->kv_len, parts[KEY]);
        project(p, VALUE, p->key_in, p->kv_len, parts[VALUE]);
        for (int i = QUERY; i <= VALUE; i++) clattn__ref_stored(p->stored, parts[i], p->batch * rows[i] * p->features);
        status = attend(p, parts);
        clattn__ref_stored(p->stored, parts[CONTEXT], p->batch * p->query_len * p->features);
    }
    if (status == CLATTN_OK) project(p, CONTEXT, parts[CONTEXT], p->query_len, p->output);
    for (int i = 0; i < 4; i++) {
        clattn__free(parts[i].value);
        clattn__free(parts[i].error);
    }
    return status;
}
