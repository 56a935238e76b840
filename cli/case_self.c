/* Golden cases of the tutorial's self-attention: "self_attention" and "multi_head_self_attention", whose weights
 * multiply from the right (x @ W), and "score_statistics". Letters: S tokens, E features, H heads, D, Dv sizes of a
 * head. */
#include <math.h>
#include <string.h>

#include "case.h"

/* y = x W with W (E, n), by a linear layer, which wants (n, E). y: an output or a scratch array. */
static case_result multiply(cli_case *c, const cli_array *x, const cli_array *w, const cli_array *y) {
    cli_array *transposed;
    CASE_TRY(case_transposed(c, w, &transposed));
    const clattn_linear_weights weights = {.weight = cli_array_tensor(transposed)};
    return case_run_linear(c, &weights, CLATTN_ACTIVATION_NONE, x, (cli_array *)y);
}

/* The output of that role, or an array of that shape when the case does not want it. */
static case_result output_or_scratch(cli_case *c, const char *role, int rank, const int64_t *shape, cli_array **array) {
    CASE_TRY(case_output(c, role, CLATTN_F32, array));
    if (!*array) return case_scratch(c, CLATTN_F32, rank, shape, array);
    int64_t want = 1;
    for (int i = 0; i < rank; i++) want *= shape[i];
    return cli_array_elements(*array) == want ? CASE_DONE : case_error(c, "'%s' has another size", role);
}

/* x (S, E), or projected when the case has that weight. */
static case_result project(cli_case *c, const char *weight_role, const char *role, cli_array *x, cli_array **y) {
    cli_array *weight;
    CASE_TRY(case_input(c, weight_role, &weight));
    *y = x;
    if (!weight) return CASE_DONE;
    if (weight->rank != 2 || weight->shape[0] != x->shape[1]) return case_error(c, "'%s' is not (E, D)", weight_role);
    const int64_t shape[2] = {x->shape[0], weight->shape[1]};
    CASE_TRY(output_or_scratch(c, role, 2, shape, y));
    return multiply(c, x, weight, *y);
}

/* The names of one variant of the input: with or without "_permuted". */
typedef struct self_roles {
    const char *x, *query, *key, *value, *scores, *mask, *masked, *weights, *output;
} self_roles;

/* Where the mask forbids, the masked scores are -inf: the mask of the case, True = masked, is read off them. */
static void mask_of_scores(const cli_array *masked, const cli_array *mask) {
    for (int64_t n = cli_array_elements(mask), i = 0; i < n; i++) {
        const float score = ((const float *)masked->data)[i];
        ((float *)mask->data)[i] = score == -INFINITY ? 1 : 0;
    }
}

static case_result attend_to_self(cli_case *c, const self_roles *roles) {
    case_operands o = {0};
    cli_array *x, *mask, *masked, *scores;
    clattn_attention_desc desc;
    clattn_attention_desc_init(&desc);
    CASE_TRY(case_input(c, roles->x, &x));
    if (!x) return CASE_DONE;
    if (x->rank != 2 || x->dtype != CLATTN_F32) return case_error(c, "'%s' is not float32 (S, E)", roles->x);
    CASE_TRY(project(c, "w_query", roles->query, x, &o.query));
    CASE_TRY(project(c, "w_key", roles->key, x, &o.key));
    CASE_TRY(project(c, "w_value", roles->value, x, &o.value));
    CASE_TRY(case_output(c, roles->scores, CLATTN_F32, &scores));
    CASE_TRY(case_output(c, roles->mask, CLATTN_F32, &mask));
    CASE_TRY(case_output(c, roles->masked, CLATTN_F32, &masked));
    CASE_TRY(case_output(c, roles->weights, CLATTN_F32, &o.weights));
    CASE_TRY(case_output(c, roles->output, CLATTN_F32, &o.output));
    if (mask && !masked) return case_unsupported(c, "a mask without masked_scores");
    case_scale(c, &desc);
    if (case_flag(c, "is_causal")) desc.causal = CLATTN_CAUSAL_TOP_LEFT;
    o.scores = scores;
    desc.scores = CLATTN_SCORES_RAW;
    CASE_TRY(case_attend(c, &desc, &o));
    if (!masked) return CASE_DONE;
    o.scores = masked;
    desc.scores = CLATTN_SCORES_MASKED;
    CASE_TRY(case_attend(c, &desc, &o));
    if (mask) mask_of_scores(masked, mask);
    return CASE_DONE;
}

case_result case_self_attention(cli_case *c) {
    static const self_roles plain = {"x",    "query",         "key",          "value", "scores",
                                     "mask", "masked_scores", "attn_weights", "output"};
    static const self_roles permuted = {
        "x_permuted",    "query_permuted",         "key_permuted",          "value_permuted", "scores_permuted",
        "mask_permuted", "masked_scores_permuted", "attn_weights_permuted", "output_permuted"};
    CASE_TRY(attend_to_self(c, &plain));
    return attend_to_self(c, &permuted);
}

/* ---- several heads ---------------------------------------------------------------------------------------------- */

enum { TO_HEADS, TO_ROWS };

/* Between (H, S, n) and (S, H*n). */
static void regroup(int direction, float *heads, float *rows, int64_t H, int64_t S, int64_t n) {
    for (int64_t h = 0; h < H; h++)
        for (int64_t s = 0; s < S; s++) {
            float *of_head = heads + (h * S + s) * n, *of_row = rows + (s * H + h) * n;
            memcpy(direction == TO_HEADS ? of_head : of_row, direction == TO_HEADS ? of_row : of_head,
                   (size_t)n * sizeof(float));
        }
}

/* x (S, E) through the weights of all heads, one product: (H, S, D). */
static case_result project_heads(cli_case *c, const char *role, const cli_array *x, cli_array **y) {
    cli_array *weight, *turned, *rows;
    CASE_TRY(case_input(c, role, &weight));
    if (!weight || weight->rank != 3 || weight->dtype != CLATTN_F32 || weight->shape[1] != x->shape[1])
        return case_error(c, "'%s' is not float32 (H, E, D)", role);
    const int64_t H = weight->shape[0], E = weight->shape[1], D = weight->shape[2], S = x->shape[0];
    const int64_t turned_shape[2] = {H * D, E}, rows_shape[2] = {S, H * D}, heads_shape[3] = {H, S, D};
    CASE_TRY(case_scratch(c, CLATTN_F32, 2, turned_shape, &turned));
    CASE_TRY(case_scratch(c, CLATTN_F32, 2, rows_shape, &rows));
    CASE_TRY(case_scratch(c, CLATTN_F32, 3, heads_shape, y));
    for (int64_t h = 0; h < H; h++)
        for (int64_t e = 0; e < E; e++)
            for (int64_t d = 0; d < D; d++)
                ((float *)turned->data)[(h * D + d) * E + e] = ((const float *)weight->data)[(h * E + e) * D + d];
    const clattn_linear_weights weights = {.weight = cli_array_tensor(turned)};
    CASE_TRY(case_run_linear(c, &weights, CLATTN_ACTIVATION_NONE, x, rows));
    regroup(TO_HEADS, (*y)->data, rows->data, H, S, D);
    return CASE_DONE;
}

case_result case_multi_head_self_attention(cli_case *c) {
    case_operands o = {0};
    cli_array *x, *w_output, *joined, *output;
    clattn_attention_desc desc;
    clattn_attention_desc_init(&desc);
    CASE_TRY(case_input(c, "x", &x));
    CASE_TRY(case_input(c, "w_output", &w_output));
    CASE_TRY(case_output(c, "output", CLATTN_F32, &output));
    if (!x || x->rank != 2 || x->dtype != CLATTN_F32 || !w_output || !output)
        return case_error(c, "x, w_output or output is missing or has another form");
    CASE_TRY(project_heads(c, "w_query", x, &o.query));
    CASE_TRY(project_heads(c, "w_key", x, &o.key));
    CASE_TRY(project_heads(c, "w_value", x, &o.value));
    const int64_t H = o.value->shape[0], S = x->shape[0], Dv = o.value->shape[2];
    const int64_t heads[3] = {H, S, Dv}, rows[2] = {S, H * Dv};
    if (o.query->shape[0] != H || o.key->shape[0] != H) return case_error(c, "the weights differ in their heads");
    CASE_TRY(output_or_scratch(c, "head_outputs", 3, heads, &o.output));
    CASE_TRY(output_or_scratch(c, "concat_output", 2, rows, &joined));
    CASE_TRY(case_output(c, "attn_weights", CLATTN_F32, &o.weights));
    case_scale(c, &desc);
    if (case_flag(c, "is_causal")) desc.causal = CLATTN_CAUSAL_TOP_LEFT;
    CASE_TRY(case_attend(c, &desc, &o)); /* a head is a batch entry of its own */
    regroup(TO_ROWS, o.output->data, joined->data, H, S, Dv);
    return multiply(c, joined, w_output, output);
}

/* ---- statistics of scores --------------------------------------------------------------------------------------- */

typedef struct moments {
    double count, sum, squares;
} moments;

static void add_values(moments *m, const float *values, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        m->sum += (double)values[i];
        m->squares += (double)values[i] * (double)values[i];
    }
    m->count += (double)count;
}

/* NAME_mean, NAME_var and NAME_std, where the case wants them. */
static case_result write_moments(cli_case *c, const moments *m, const char *const roles[3]) {
    const double mean = m->sum / m->count, spare = m->count - case_number(c, "ddof", 0);
    const double variance = (m->squares - m->sum * mean) / spare;
    const double values[3] = {mean, variance, sqrt(variance)};
    for (int i = 0; i < 3; i++) {
        cli_array *array;
        CASE_TRY(case_output(c, roles[i], CLATTN_F32, &array));
        if (array && cli_array_elements(array) != 1) return case_error(c, "'%s' is not one number", roles[i]);
        if (array) *(float *)array->data = (float)values[i];
    }
    return CASE_DONE;
}

/* All scores of query (L, D) and key (S, D), some rows at a time, so that the table never has to exist. whole: (L, S)
 * for the scores themselves, or NULL. */
static case_result add_scores(cli_case *c, const cli_array *query, const cli_array *key, float scale,
                              const cli_array *whole, moments *m) {
    enum { ROWS = 500 };
    const int64_t L = query->shape[0], S = key->shape[0], D = query->shape[1], one[2] = {S, 1};
    const int64_t rows = L < ROWS ? L : ROWS, pairs[2] = {rows, S}, column[2] = {rows, 1};
    cli_array *value, *output, *scores;
    CASE_TRY(case_scratch(c, CLATTN_F32, 2, one, &value));
    CASE_TRY(case_scratch(c, CLATTN_F32, 2, column, &output));
    CASE_TRY(case_scratch(c, CLATTN_F32, 2, pairs, &scores));
    memset(value->data, 0, value->bytes);
    for (int64_t first = 0; first < L; first += rows) {
        clattn_attention_desc desc;
        clattn_attention_desc_init(&desc);
        desc.has_scale = 1;
        desc.scale = scale;
        desc.scores = CLATTN_SCORES_RAW;
        cli_array part = *query;
        part.data = (float *)query->data + first * D;
        part.shape[0] = scores->shape[0] = output->shape[0] = L - first < rows ? L - first : rows;
        const case_operands o = {
            .query = &part, .key = (cli_array *)key, .value = value, .output = output, .scores = scores};
        CASE_TRY(case_attend(c, &desc, &o));
        add_values(m, scores->data, part.shape[0] * S);
        if (whole) memcpy((float *)whole->data + first * S, scores->data, (size_t)(part.shape[0] * S) * sizeof(float));
    }
    return CASE_DONE;
}

case_result case_score_statistics(cli_case *c) {
    static const char *const query_roles[3] = {"query_mean", "query_var", "query_std"};
    static const char *const key_roles[3] = {"key_mean", "key_var", "key_std"};
    static const char *const raw_roles[3] = {"qk_mean", "qk_var", "qk_std"};
    static const char *const scaled_roles[3] = {"qk_scaled_mean", "qk_scaled_var", "qk_scaled_std"};
    moments of_query = {0}, of_key = {0}, raw = {0}, scaled = {0};
    cli_array *query, *key, *rows, *qk, *qk_scaled;
    CASE_TRY(case_input(c, "query", &query));
    CASE_TRY(case_input(c, "key", &key));
    if (!query || !key || query->rank != 2 || key->rank != 2 || query->dtype != CLATTN_F32 ||
        query->shape[1] != key->shape[0])
        return case_error(c, "query is not float32 (L, D), or key is not (D, S)");
    CASE_TRY(case_transposed(c, key, &rows));
    CASE_TRY(case_output(c, "qk", CLATTN_F32, &qk));
    CASE_TRY(case_output(c, "qk_scaled", CLATTN_F32, &qk_scaled));
    const int64_t pairs = query->shape[0] * rows->shape[0];
    if ((qk && cli_array_elements(qk) != pairs) || (qk_scaled && cli_array_elements(qk_scaled) != pairs))
        return case_error(c, "qk or qk_scaled is not (L, S)");
    add_values(&of_query, query->data, cli_array_elements(query));
    add_values(&of_key, key->data, cli_array_elements(key));
    CASE_TRY(add_scores(c, query, rows, 1, qk, &raw));
    CASE_TRY(add_scores(c, query, rows, (float)case_number(c, "scale", 1), qk_scaled, &scaled));
    CASE_TRY(write_moments(c, &of_query, query_roles));
    CASE_TRY(write_moments(c, &of_key, key_roles));
    CASE_TRY(write_moments(c, &raw, raw_roles));
    return write_moments(c, &scaled, scaled_roles);
}
