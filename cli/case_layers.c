/* Golden cases of single layers around attention: norms and positional encodings. */
#include <string.h>

#include "case.h"

/* ---- running one layer ------------------------------------------------------------------------------------------- */

case_result case_run_layer(cli_case *c, clattn_status status, clattn_layer *layer, const clattn_layer_io *io) {
    clattn_plan_info info = {0};
    if (status == CLATTN_OK) status = clattn_layer_run(layer, io);
    if (status == CLATTN_OK) status = clattn_layer_info(layer, &info);
    case_result result = case_status(c, status, &info);
    clattn_layer_destroy(&layer);
    return result;
}

/* Any array as (1, everything else, last axis). */
static clattn_tensor as_tokens(const cli_array *array) {
    const int64_t last = array->rank > 0 ? array->shape[array->rank - 1] : 1;
    return clattn_host(array->data, array->dtype, 3, 1, last > 0 ? cli_array_elements(array) / last : 0, last, 0);
}

case_result case_run_linear(cli_case *c, const clattn_linear_weights *weights, clattn_activation activation,
                            const cli_array *x, cli_array *y) {
    const clattn_layer_io io = {.input = as_tokens(x), .output = as_tokens(y)};
    clattn_linear_desc d;
    clattn_linear_desc_init(&d);
    d.batch = 1;
    d.rows = io.input.shape[1];
    d.in_features = io.input.shape[2];
    d.out_features = io.output.shape[2];
    d.activation = activation;
    clattn_layer *layer = NULL;
    clattn_status status = clattn_linear_create(&layer, c->context, &d, weights);
    return case_run_layer(c, status, layer, &io);
}

case_result case_run_norm(cli_case *c, const clattn_norm_weights *weights, clattn_norm_kind kind, float eps,
                          const cli_array *x, const cli_array *residual, cli_array *sum, cli_array *y) {
    clattn_layer_io io = {.input = as_tokens(x), .output = as_tokens(y)};
    if (residual) io.residual = as_tokens(residual);
    if (sum) io.sum = as_tokens(sum);
    clattn_norm_desc d;
    clattn_norm_desc_init(&d);
    d.kind = kind;
    d.batch = 1;
    d.rows = io.input.shape[1];
    d.features = io.input.shape[2];
    d.eps = eps;
    d.residual = residual != NULL;
    d.sum = sum != NULL;
    clattn_layer *layer = NULL;
    clattn_status status = clattn_norm_create(&layer, c->context, &d, weights);
    return case_run_layer(c, status, layer, &io);
}

/* ---- norms ------------------------------------------------------------------------------------------------------- */

static case_result load_vector(cli_case *c, const char *role, clattn_tensor *tensor) {
    cli_array *array;
    CASE_TRY(case_input(c, role, &array));
    if (array) *tensor = cli_array_tensor(array);
    return CASE_DONE;
}

static case_result load_norm(cli_case *c, clattn_norm_weights *weights, cli_array **x, cli_array **y) {
    CASE_TRY(load_vector(c, "weight", &weights->weight));
    CASE_TRY(load_vector(c, "bias", &weights->bias));
    CASE_TRY(case_input(c, "x", x));
    CASE_TRY(case_output(c, "output", CLATTN_F32, y));
    return *x && *y ? CASE_DONE : case_error(c, "the case has no x or no output");
}

case_result case_layernorm(cli_case *c) {
    cli_array *x, *y, *sublayer, *sum;
    clattn_norm_weights weights = {0};
    CASE_TRY(load_norm(c, &weights, &x, &y));
    CASE_TRY(case_input(c, "sublayer", &sublayer));
    CASE_TRY(case_output(c, "sum", CLATTN_F32, &sum));
    return case_run_norm(c, &weights, CLATTN_NORM_LAYER, (float)case_number(c, "eps", 1e-5), x, sublayer, sum, y);
}

case_result case_batchnorm(cli_case *c) {
    cli_array *x, *y;
    clattn_norm_weights weights = {0};
    CASE_TRY(load_norm(c, &weights, &x, &y));
    CASE_TRY(load_vector(c, "mean", &weights.mean));
    CASE_TRY(load_vector(c, "variance", &weights.variance));
    const clattn_norm_kind kind = weights.mean.data ? CLATTN_NORM_BATCH_INFERENCE : CLATTN_NORM_BATCH;
    return case_run_norm(c, &weights, kind, (float)case_number(c, "eps", 1e-5), x, NULL, NULL, y);
}

/* ---- positions --------------------------------------------------------------------------------------------------- */

/* PE of the positions (S) into an array (S, E). */
static case_result encode(cli_case *c, const cli_array *positions, cli_array *encoding) {
    const int64_t S = cli_array_elements(positions);
    clattn_positions_desc d;
    clattn_positions_desc_init(&d);
    d.batch = 1;
    d.rows = S;
    d.features = case_whole(c, "dim", 0);
    d.base = case_number(c, "base", 10000);
    d.positions = 1;
    const clattn_layer_io io = {.positions = clattn_host(positions->data, positions->dtype, 1, S, 0, 0, 0),
                                .output = as_tokens(encoding)};
    clattn_layer *layer = NULL;
    clattn_status status = clattn_positions_create(&layer, c->context, &d, NULL);
    return case_run_layer(c, status, layer, &io);
}

static case_result load_positions(cli_case *c, cli_array **positions) {
    CASE_TRY(case_input(c, "positions", positions));
    if (strcmp(case_text(c, "order"), "interleaved sin, cos") != 0)
        return case_unsupported(c, "the order '%s' of sine and cosine", case_text(c, "order"));
    return *positions ? CASE_DONE : case_error(c, "the case has no positions");
}

case_result case_positional_encoding(cli_case *c) {
    cli_array *positions, *encoding;
    CASE_TRY(load_positions(c, &positions));
    CASE_TRY(case_output(c, "encoding", CLATTN_F32, &encoding));
    return encoding ? encode(c, positions, encoding) : case_error(c, "the case has no encoding");
}

/* Rows of a larger array. */
static cli_array part_of(const cli_array *array, int64_t index, int64_t rows, int64_t columns) {
    cli_array part = {.dtype = array->dtype, .rank = 2, .shape = {rows, columns}};
    part.data = (float *)array->data + index * rows * columns;
    return part;
}

/* M_k from the library, shifted = encoding M_k^T on the device. */
case_result case_positional_encoding_shift(cli_case *c) {
    cli_array *positions, *shifts, *encoding, *matrices, *shifted;
    CASE_TRY(load_positions(c, &positions));
    CASE_TRY(case_input(c, "shifts", &shifts));
    CASE_TRY(case_output(c, "encoding", CLATTN_F32, &encoding));
    CASE_TRY(case_output(c, "shift_matrix", CLATTN_F32, &matrices));
    CASE_TRY(case_output(c, "shifted", CLATTN_F32, &shifted));
    if (!shifts || shifts->dtype != CLATTN_I64 || !encoding || !matrices || !shifted)
        return case_error(c, "the case lacks int64 shifts, encoding, shift_matrix or shifted");
    const int64_t S = cli_array_elements(positions), E = case_whole(c, "dim", 0), K = cli_array_elements(shifts);
    if (cli_array_elements(matrices) != K * E * E || cli_array_elements(shifted) != K * S * E)
        return case_error(c, "shift_matrix or shifted does not hold one part per shift");
    CASE_TRY(encode(c, positions, encoding));
    for (int64_t k = 0; k < K; k++) {
        cli_array matrix = part_of(matrices, k, E, E), y = part_of(shifted, k, S, E);
        clattn_status status =
            clattn_positions_shift(E, case_number(c, "base", 10000), ((const int64_t *)shifts->data)[k], matrix.data);
        if (status != CLATTN_OK) return case_status(c, status, NULL);
        const clattn_linear_weights weights = {.weight = cli_array_tensor(&matrix)};
        CASE_TRY(case_run_linear(c, &weights, CLATTN_ACTIVATION_NONE, encoding, &y));
    }
    return CASE_DONE;
}

/* dot = PE PE^T: a linear layer whose weights are the encodings themselves. */
case_result case_positional_encoding_dot(cli_case *c) {
    cli_array *positions, *encoding, *dot;
    CASE_TRY(load_positions(c, &positions));
    CASE_TRY(case_output(c, "dot", CLATTN_F32, &dot));
    const int64_t shape[2] = {cli_array_elements(positions), case_whole(c, "dim", 0)};
    if (!dot) return case_error(c, "the case has no dot");
    CASE_TRY(case_scratch(c, CLATTN_F32, 2, shape, &encoding));
    CASE_TRY(encode(c, positions, encoding));
    const clattn_linear_weights weights = {.weight = cli_array_tensor(encoding)};
    return case_run_linear(c, &weights, CLATTN_ACTIVATION_NONE, encoding, dot);
}
