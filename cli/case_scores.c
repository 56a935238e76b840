/* Golden cases of attention with other scores than the dot product, "gaussian_attention" and "additive_attention", and
 * of one whose softmax runs over the queries; and what these and the tutorial's operations share. Letters: B batch (all
 * leading axes), L queries, S keys, D, Dv sizes, A hidden size of additive scores. */
#include <math.h>
#include <string.h>

#include "case.h"

/* ---- attention of plain arrays ---------------------------------------------------------------------------------- */

/* (.., rows, columns) as (B, 1, rows, columns). */
static clattn_tensor as_batch(const cli_array *array) {
    if (!array) return (clattn_tensor){0};
    const int64_t rows = array->shape[array->rank - 2], columns = array->shape[array->rank - 1];
    int64_t batch = 1;
    for (int i = 0; i < array->rank - 2; i++) batch *= array->shape[i];
    return clattn_host(array->data, array->dtype, 4, batch, 1, rows, columns);
}

static bool is_matrix(const cli_array *array) { return !array || array->rank >= 2; }

case_result case_attend(cli_case *c, clattn_attention_desc *desc, const case_operands *o) {
    if (!o->query || !o->key || !o->value || !o->output) return case_error(c, "query, key, value or output is missing");
    if (!is_matrix(o->query) || !is_matrix(o->key) || !is_matrix(o->value) || !is_matrix(o->output) ||
        !is_matrix(o->scores) || !is_matrix(o->weights))
        return case_error(c, "a tensor has fewer than two axes");
    clattn_attention_io io = {.query = as_batch(o->query),
                              .key = as_batch(o->key),
                              .value = as_batch(o->value),
                              .output = as_batch(o->output),
                              .scores = as_batch(o->scores),
                              .weights = as_batch(o->weights)};
    desc->batch = io.query.shape[0];
    desc->query_heads = 1;
    desc->query_len = io.query.shape[2];
    desc->kv_len = io.key.shape[2];
    desc->head_dim = io.query.shape[3];
    desc->value_dim = io.value.shape[3];
    desc->dtype = o->query->dtype;
    desc->kernel = c->kernel;
    if (!o->scores) desc->scores = CLATTN_SCORES_NONE;
    desc->weights = o->weights ? CLATTN_WEIGHTS_PER_HEAD : CLATTN_WEIGHTS_NONE;
    desc->score_weight = o->score_weight != NULL;
    desc->score_bias = o->score_bias != NULL;
    if (o->score_weight) io.score_weight = cli_array_tensor(o->score_weight);
    if (o->score_bias) io.score_bias = cli_array_tensor(o->score_bias);
    clattn_attention *plan = NULL;
    clattn_plan_info info = {0};
    clattn_status status = clattn_attention_create(&plan, c->context, desc);
    if (status == CLATTN_OK) status = clattn_attention_run(plan, &io);
    if (status == CLATTN_OK) status = clattn_attention_info(plan, &info);
    const case_result result = case_status(c, status, &info);
    clattn_attention_destroy(&plan);
    return result;
}

void case_scale(const cli_case *c, clattn_attention_desc *desc) {
    const double scale = case_number(c, "scale", NAN);
    desc->has_scale = !isnan(scale);
    desc->scale = desc->has_scale ? (float)scale : 0;
}

case_result case_transposed(cli_case *c, const cli_array *array, cli_array **transposed) {
    if (array->rank != 2 || array->dtype != CLATTN_F32) return case_error(c, "a matrix is not float32 with two axes");
    const int64_t rows = array->shape[0], columns = array->shape[1], shape[2] = {columns, rows};
    CASE_TRY(case_scratch(c, CLATTN_F32, 2, shape, transposed));
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            ((float *)(*transposed)->data)[j * rows + i] = ((const float *)array->data)[i * columns + j];
    return CASE_DONE;
}

/* The inputs and outputs that all cases of this file have. */
static case_result load_operands(cli_case *c, case_operands *o) {
    CASE_TRY(case_input(c, "query", &o->query));
    CASE_TRY(case_input(c, "key", &o->key));
    CASE_TRY(case_input(c, "value", &o->value));
    CASE_TRY(case_output(c, "output", CLATTN_F32, &o->output));
    CASE_TRY(case_output(c, "scores", CLATTN_F32, &o->scores));
    CASE_TRY(case_output(c, "attn_weights", CLATTN_F32, &o->weights));
    const cli_array *const needed[] = {o->query, o->key, o->value, o->output};
    for (int i = 0; i < 4; i++)
        if (!needed[i] || needed[i]->rank < 2 || needed[i]->dtype != CLATTN_F32)
            return case_error(c, "query, key, value or output is missing or not a float32 matrix");
    return CASE_DONE;
}

/* ---- Gaussian --------------------------------------------------------------------------------------------------- */

/* exp(-|q - k|^2 / (2 sigma^2)); the kernel's values are exp(score). */
case_result case_gaussian_attention(cli_case *c) {
    case_operands o = {0};
    cli_array *kernel;
    clattn_attention_desc desc;
    clattn_attention_desc_init(&desc);
    CASE_TRY(load_operands(c, &o));
    CASE_TRY(case_output(c, "kernel", CLATTN_F32, &kernel));
    if (kernel && !o.scores) CASE_TRY(case_scratch(c, CLATTN_F32, kernel->rank, kernel->shape, &o.scores));
    const double sigma = case_number(c, "sigma", 1);
    if (!(sigma > 0)) return case_error(c, "sigma is %g; it must be > 0", sigma);
    desc.score = CLATTN_SCORE_GAUSSIAN;
    desc.has_scale = 1;
    desc.scale = (float)(1 / (sigma * sigma));
    desc.scores = CLATTN_SCORES_RAW;
    CASE_TRY(case_attend(c, &desc, &o));
    for (int64_t n = kernel ? cli_array_elements(kernel) : 0, i = 0; i < n; i++)
        ((float *)kernel->data)[i] = (float)exp((double)((const float *)o.scores->data)[i]);
    return CASE_DONE;
}

/* ---- additive --------------------------------------------------------------------------------------------------- */

/* (.., L, D) times (A, D) transposed: (.., L, A). */
static case_result project(cli_case *c, cli_array **x, const char *role) {
    cli_array *weight, *projected;
    CASE_TRY(case_input(c, role, &weight));
    if (!weight) return CASE_DONE;
    const int rank = (*x)->rank;
    if (weight->rank != 2 || weight->shape[1] != (*x)->shape[rank - 1])
        return case_error(c, "'%s' is not (hidden, features)", role);
    int64_t shape[CLATTN_MAX_RANK];
    memcpy(shape, (*x)->shape, sizeof shape);
    shape[rank - 1] = weight->shape[0];
    CASE_TRY(case_scratch(c, CLATTN_F32, rank, shape, &projected));
    const clattn_linear_weights weights = {.weight = cli_array_tensor(weight)};
    CASE_TRY(case_run_linear(c, &weights, CLATTN_ACTIVATION_NONE, *x, projected));
    *x = projected;
    return CASE_DONE;
}

/* w_score . tanh(W_q q + W_k k + b), or without tanh; without a w_score the hidden features are added up. */
case_result case_additive_attention(cli_case *c) {
    case_operands o = {0};
    clattn_attention_desc desc;
    clattn_attention_desc_init(&desc);
    CASE_TRY(load_operands(c, &o));
    CASE_TRY(project(c, &o.query, "w_query"));
    CASE_TRY(project(c, &o.key, "w_key"));
    CASE_TRY(case_input(c, "bias", &o.score_bias));
    CASE_TRY(case_input(c, "w_score", &o.score_weight));
    if (!o.score_weight) {
        const int64_t hidden = o.query->shape[o.query->rank - 1];
        CASE_TRY(case_scratch(c, CLATTN_F32, 1, &hidden, &o.score_weight));
        for (int64_t i = 0; i < hidden; i++) ((float *)o.score_weight->data)[i] = 1;
    }
    desc.score = case_flag(c, "tanh") ? CLATTN_SCORE_ADDITIVE : CLATTN_SCORE_ADDITIVE_LINEAR;
    desc.scores = CLATTN_SCORES_RAW;
    return case_attend(c, &desc, &o);
}

/* ---- softmax over the queries ----------------------------------------------------------------------------------- */

static case_result softmax_over_rows(cli_case *c, const cli_array *scores, const cli_array *weights) {
    clattn_softmax_desc d;
    clattn_softmax_desc_init(&d);
    d.rank = scores->rank;
    memcpy(d.shape, scores->shape, sizeof d.shape);
    d.axis = -2;
    const clattn_softmax_io io = {.x = cli_array_tensor(scores), .probability = cli_array_tensor(weights)};
    clattn_softmax *plan = NULL;
    clattn_plan_info info = {0};
    clattn_status status = clattn_softmax_create(&plan, c->context, &d);
    if (status == CLATTN_OK) status = clattn_softmax_run(plan, &io);
    if (status == CLATTN_OK) status = clattn_softmax_info(plan, &info);
    const case_result result = case_status(c, status, &info);
    clattn_softmax_destroy(&plan);
    return result;
}

/* Scores by attention, weights by softmax along axis -2, output = weights V by a linear layer. One batch entry. */
case_result case_attention_over_queries(cli_case *c) {
    case_operands o = {0};
    cli_array *scores, *weights, *transposed, *output;
    clattn_attention_desc desc;
    clattn_attention_desc_init(&desc);
    CASE_TRY(load_operands(c, &o));
    if (o.query->rank != 2 || o.value->rank != 2)
        return case_unsupported(c, "softmax over the queries is supported for one head of one batch entry");
    const int64_t pairs[2] = {o.query->shape[0], o.key->shape[0]};
    scores = o.scores;
    weights = o.weights;
    if (!scores) CASE_TRY(case_scratch(c, CLATTN_F32, 2, pairs, &scores));
    if (!weights) CASE_TRY(case_scratch(c, CLATTN_F32, 2, pairs, &weights));
    output = o.output;
    CASE_TRY(case_scratch(c, CLATTN_F32, 2, output->shape, &o.output)); /* attention's own output is of no use here */
    o.scores = scores;
    o.weights = NULL;
    case_scale(c, &desc);
    desc.scores = CLATTN_SCORES_RAW;
    CASE_TRY(case_attend(c, &desc, &o));
    CASE_TRY(softmax_over_rows(c, scores, weights));
    CASE_TRY(case_transposed(c, o.value, &transposed));
    const clattn_linear_weights value = {.weight = cli_array_tensor(transposed)};
    return case_run_linear(c, &value, CLATTN_ACTIVATION_NONE, weights, output);
}
