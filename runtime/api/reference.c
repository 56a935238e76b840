/* clattn/reference.h: descriptions become problems of ref/. */
#include "api/reference.h"

#include <string.h>

#include "../../cl/shared/philox.h"
#include "api/check.h"
#include "ref/ref.h"
#include "registry/registry.h"

/* ---- views: which stride of a tensor is batch, head, row and column -------------------------------------------- */

static clattn__ref_array view(const clattn_tensor *t, int64_t batch, int64_t head, int64_t row, int64_t column) {
    clattn__ref_array array = {NULL, t->dtype, {batch, head, row, column}};
    if (t->data) array.data = (char *)t->data + (size_t)t->offset * clattn_dtype_size(t->dtype);
    return array;
}

static clattn__ref_array view4(const clattn_tensor *t) {
    return view(t, t->stride[0], t->stride[1], t->stride[2], t->stride[3]);
}

static clattn__ref_array view_vector(const clattn_tensor *t) { return view(t, t->stride[0], 0, 0, 0); }

static clattn__ref_array view_padding(const clattn_tensor *t) { return view(t, t->stride[0], 0, 0, t->stride[1]); }

static clattn__ref_array view_weights(const clattn_tensor *t, bool averaged) {
    return averaged ? view(t, t->stride[0], 0, t->stride[1], t->stride[2]) : view4(t);
}

/* An axis of extent 1 is broadcast. A mask without any element forbids all keys, so it must not look absent. */
static clattn__ref_array view_mask(const clattn_tensor *t) {
    static float nothing;
    clattn__ref_array array = view4(t);
    for (int i = 0; i < 4; i++)
        if (t->shape[i] == 1) array.stride[i] = 0;
    if (!array.data) array.data = &nothing;
    return array;
}

/* Dense (n0, n1, n2, n3); a NULL memory is an absent array. */
static clattn__ref_array dense(void *memory, clattn_dtype dtype, int64_t n1, int64_t n2, int64_t n3) {
    return (clattn__ref_array){memory, dtype, {n1 * n2 * n3, n2 * n3, n3, 1}};
}

static clattn__ref_array dense_weights(void *memory, bool averaged, int64_t heads, int64_t rows, int64_t keys) {
    clattn__ref_array array = dense(memory, CLATTN_F32, averaged ? 1 : heads, rows, keys);
    if (averaged) array.stride[1] = 0;
    return array;
}

/* A mask column of extent 1 speaks of all keys. */
static int64_t mask_len_of(const int64_t mask_shape[4], int64_t keys) {
    return mask_shape[3] == 1 ? keys : mask_shape[3];
}

static int64_t offset_of(clattn_causal causal, int64_t given, int64_t bottom_right) {
    if (causal == CLATTN_CAUSAL_BOTTOM_RIGHT) return bottom_right;
    return causal == CLATTN_CAUSAL_OFFSET ? given : 0;
}

static bool aligns_end(const clattn_attention_desc *d) {
    return d->causal == CLATTN_CAUSAL_BOTTOM_RIGHT || d->align_end;
}

clattn_dtype clattn__weight_dtype(clattn_dtype dtype, const char *kernels) {
    return clattn__rounds_weights(kernels) ? dtype : CLATTN_F32;
}

/* ---- attention ------------------------------------------------------------------------------------------------- */

/* Dense like the outputs: (B, Hq, Sq, ..), or packed (Tq, Hq, Dv) with logsumexp (Hq, Tq). */
static void set_tolerances(clattn__ref_attention *p, const clattn__tolerances *tolerances) {
    const int64_t Hq = p->query_heads, Sq = p->query_len, Sk = p->kv_len, Dv = p->value_dim;
    p->tolerance = dense(tolerances->output, CLATTN_F32, Hq, Sq, Dv);
    p->lse_tolerance = dense(tolerances->logsumexp, CLATTN_F32, Hq, Sq, 1);
    if (p->query_starts.data) {
        p->tolerance = (clattn__ref_array){tolerances->output, CLATTN_F32, {0, Dv, Hq * Dv, 1}};
        p->lse_tolerance = (clattn__ref_array){tolerances->logsumexp, CLATTN_F32, {0, p->query_total, 1, 1}};
    }
    p->weights_tolerance = dense_weights(tolerances->weights, p->average_weights, Hq, Sq, Sk);
    p->scores_tolerance = dense(tolerances->scores, CLATTN_F32, Hq, Sq, Sk);
}

static void set_features(clattn__ref_attention *p, const clattn_attention_desc *d, const clattn_attention_io *io) {
    p->score = d->score;
    p->score_weight = view_vector(&io->score_weight);
    p->score_bias = view_vector(&io->score_bias);
    p->dropout_factor = d->dropout > 0 ? 1.0 / (1.0 - (double)d->dropout) : 0;
    p->dropout_threshold = clattn_dropout_threshold(d->dropout);
    p->dropout_seed = d->dropout_seed;
    p->prefix = view_vector(&io->prefix_lengths);
    p->query_documents = view(&io->query_documents, io->query_documents.stride[0], 0, io->query_documents.stride[1], 0);
    p->key_documents = view_padding(&io->key_documents);
    p->query_starts = view_vector(&io->query_starts);
    p->key_starts = view_vector(&io->key_starts);
    p->query_total = io->query.shape[2];
    p->key_total = io->key.shape[2];
    p->align_end = aligns_end(d);
}

static clattn__ref_attention problem_of(const clattn_attention_desc *d, const clattn_attention_io *io) {
    clattn__ref_attention p = {0};
    p.batch = d->batch;
    p.query_heads = d->query_heads;
    p.kv_heads = d->kv_heads;
    p.query_len = d->query_len;
    p.kv_len = d->kv_len;
    p.head_dim = d->head_dim;
    p.value_dim = d->value_dim;
    p.scale = d->scale;
    p.temperature = d->temperature;
    p.softcap = d->softcap;
    p.causal = d->causal != CLATTN_CAUSAL_NONE;
    p.offset_from_lengths = aligns_end(d) && d->kv_lengths;
    p.offset = offset_of(aligns_end(d) ? CLATTN_CAUSAL_BOTTOM_RIGHT : d->causal, d->causal_offset,
                         (p.offset_from_lengths ? 0 : d->kv_len) - d->query_len);
    p.window_left = d->window_left;
    p.window_right = d->window_right;
    p.query = view4(&io->query);
    p.key = view4(&io->key);
    p.value = view4(&io->value);
    p.mask_len = mask_len_of(d->mask_shape, d->kv_len);
    if (d->mask != CLATTN_MASK_NONE) p.mask = view_mask(&io->mask);
    p.padding = view_padding(&io->padding_mask);
    p.lengths = view_vector(&io->kv_lengths);
    p.alibi = view_vector(&io->alibi);
    p.sinks = view_vector(&io->sinks);
    p.output = view4(&io->output);
    p.lse = view4(&io->logsumexp);
    p.average_weights = d->weights == CLATTN_WEIGHTS_AVERAGED;
    p.weights_factor = 1.0 / (double)d->query_heads;
    p.weights = view_weights(&io->weights, p.average_weights);
    p.scores = view4(&io->scores);
    p.scores_mode = d->scores;
    p.weight_dtype = clattn__weight_dtype(d->dtype, d->kernel);
    set_features(&p, d, io);
    return p;
}

clattn_status clattn__reference_attention(const clattn_attention_desc *desc, const clattn_attention_io *io,
                                          const clattn__tolerances *tolerances) {
    clattn_attention_desc d;
    clattn_attention_io all;
    clattn_status status = clattn__check_attention_desc(desc, &d);
    if (status == CLATTN_OK) status = clattn__check_attention_io(&d, io, &all);
    if (status != CLATTN_OK) return status;
    const clattn__named_tensor tensors[] = {{"query", &all.query},
                                            {"key", &all.key},
                                            {"value", &all.value},
                                            {"past_key", &all.past_key},
                                            {"past_value", &all.past_value},
                                            {"present_key", &all.present_key},
                                            {"present_value", &all.present_value},
                                            {"mask", &all.mask},
                                            {"padding_mask", &all.padding_mask},
                                            {"kv_lengths", &all.kv_lengths},
                                            {"alibi", &all.alibi},
                                            {"sinks", &all.sinks},
                                            {"score_weight", &all.score_weight},
                                            {"score_bias", &all.score_bias},
                                            {"prefix_lengths", &all.prefix_lengths},
                                            {"query_documents", &all.query_documents},
                                            {"key_documents", &all.key_documents},
                                            {"query_starts", &all.query_starts},
                                            {"key_starts", &all.key_starts},
                                            {"output", &all.output},
                                            {"logsumexp", &all.logsumexp},
                                            {"weights", &all.weights},
                                            {"scores", &all.scores}};
    status = clattn__check_on_host(tensors, CLATTN__COUNT(tensors));
    if (status != CLATTN_OK) return status;

    void *joined[2];
    status = clattn__reference_join_past(&d, &all, joined);
    if (status == CLATTN_OK) {
        clattn__ref_attention problem = problem_of(&d, &all);
        set_tolerances(&problem, tolerances);
        status = clattn__ref_attention_run(&problem);
    }
    clattn__free(joined[0]);
    clattn__free(joined[1]);
    return status;
}

clattn_status clattn_reference_attention(const clattn_attention_desc *desc, const clattn_attention_io *io,
                                         float *tolerance) {
    const clattn__tolerances tolerances = {.output = tolerance};
    return clattn__reference_attention(desc, io, &tolerances);
}

/* ---- the multi-head layer -------------------------------------------------------------------------------------- */

/* Everything between input and output, in double; each with the error that a device may have made so far, which stays
 * NULL when no tolerance is asked for. All dense. */
typedef struct layer_memory {
    double *query_in, *key_in, *value_in; /* (B, L, E), (B, S, kdim), (B, S, vdim) */
    double *query, *query_error;          /* (B, L, H, D)                          */
    double *key, *key_error;              /* (B, T, H, D), T = S + appended keys   */
    double *value, *value_error;          /* (B, T, H, D)                          */
    double *heads_out, *heads_error;      /* (B, L, H, D)                          */
    double *y, *y_error;                  /* (B, L, E)                             */
} layer_memory;

static clattn_status layer_memory_create(layer_memory *m, const clattn_mha_desc *d, int64_t T, bool with_errors) {
    const int64_t L = d->query_len, S = d->kv_len, E = d->embed_dim;
    const struct {
        double **memory, **error;
        int64_t rows, columns;
    } parts[] = {{&m->query_in, NULL, L, E},
                 {&m->key_in, NULL, S, d->key_dim},
                 {&m->value_in, NULL, S, d->value_dim},
                 {&m->query, &m->query_error, L, E},
                 {&m->key, &m->key_error, T, E},
                 {&m->value, &m->value_error, T, E},
                 {&m->heads_out, &m->heads_error, L, E},
                 {&m->y, &m->y_error, L, E}};
    memset(m, 0, sizeof *m);
    for (size_t i = 0; i < CLATTN__COUNT(parts); i++) {
        const size_t count = (size_t)d->batch * (size_t)parts[i].rows * (size_t)parts[i].columns;
        *parts[i].memory = clattn__alloc(count, sizeof(double));
        if (!*parts[i].memory) return CLATTN_OUT_OF_MEMORY;
        if (!with_errors || !parts[i].error) continue;
        *parts[i].error = clattn__alloc(count, sizeof(double));
        if (!*parts[i].error) return CLATTN_OUT_OF_MEMORY;
    }
    return CLATTN_OK;
}

static void layer_memory_clear(layer_memory *m) {
    double *const parts[] = {m->query_in,    m->key_in,    m->value_in, m->query,       m->query_error,
                             m->key,         m->key_error, m->value,    m->value_error, m->heads_out,
                             m->heads_error, m->y,         m->y_error};
    for (size_t i = 0; i < CLATTN__COUNT(parts); i++) clattn__free(parts[i]);
}

/* Any strides and type to dense double. */
static void load_input(const clattn_tensor *tensor, double *to) {
    const clattn__ref_array array = view(tensor, tensor->stride[0], 0, tensor->stride[1], tensor->stride[2]);
    for (int64_t b = 0; b < tensor->shape[0]; b++)
        for (int64_t r = 0; r < tensor->shape[1]; r++)
            for (int64_t c = 0; c < tensor->shape[2]; c++) *to++ = clattn__ref_get(&array, b, 0, r, c);
}

static void store_output(const clattn_tensor *tensor, const double *from) {
    const clattn__ref_array array = view(tensor, tensor->stride[0], 0, tensor->stride[1], tensor->stride[2]);
    for (int64_t b = 0; b < tensor->shape[0]; b++)
        for (int64_t r = 0; r < tensor->shape[1]; r++)
            for (int64_t c = 0; c < tensor->shape[2]; c++) clattn__ref_set(&array, b, 0, r, c, *from++);
}

static const float *floats(const clattn_tensor *tensor) {
    return tensor->data ? (const float *)tensor->data + tensor->offset : NULL;
}

/* x (B, rows, columns) W^T + bias into y (B, y_rows, E), y_rows >= rows. */
static void project(const double *x, int64_t batch, int64_t rows, int64_t columns, const clattn_tensor *w,
                    const clattn_tensor *bias, double *y, double *y_error, int64_t y_rows) {
    const int64_t E = w->shape[0];
    for (int64_t b = 0; b < batch; b++) {
        const clattn__ref_projection projection = {.m = rows,
                                                   .n = E,
                                                   .k = columns,
                                                   .x = x + b * rows * columns,
                                                   .w = floats(w),
                                                   .bias = floats(bias),
                                                   .w_row = w->stride[0],
                                                   .y = y + b * y_rows * E,
                                                   .y_error = y_error ? y_error + b * y_rows * E : NULL};
        clattn__ref_project(&projection);
    }
}

/* The learned key or value behind the S projected ones of every batch entry; the zero key is there already. */
static void append_row(double *y, const clattn_tensor *row, int64_t batch, int64_t S, int64_t T) {
    if (!row->data) return;
    const int64_t E = row->shape[0];
    for (int64_t b = 0; b < batch; b++)
        for (int64_t e = 0; e < E; e++) y[(b * T + S) * E + e] = floats(row)[e];
}

/* Dense (B, rows, H, D) seen as (batch, head, row, column). */
static clattn__ref_array split_heads(double *memory, const clattn_mha_desc *d, int64_t rows) {
    return (clattn__ref_array){memory, CLATTN__F64, {rows * d->embed_dim, d->embed_dim / d->heads, d->embed_dim, 1}};
}

static clattn__ref_attention layer_problem(const clattn_mha_desc *d, const clattn_mha_io *io, const layer_memory *m,
                                           int64_t T, float *weights_tolerance) {
    const int64_t L = d->query_len, S = d->kv_len, H = d->heads, D = d->embed_dim / d->heads;
    clattn__ref_attention p = {.batch = d->batch,
                               .query_heads = H,
                               .kv_heads = H,
                               .query_len = L,
                               .kv_len = T,
                               .head_dim = D,
                               .value_dim = D,
                               .scale = d->scale,
                               .temperature = 1,
                               .window_left = -1,
                               .window_right = -1,
                               .weight_dtype = clattn__weight_dtype(d->dtype, d->attention_kernel)};
    p.causal = d->causal != CLATTN_CAUSAL_NONE;
    p.offset = offset_of(d->causal, d->causal_offset, S - L);
    p.always_keys = T - S;
    p.query = split_heads(m->query, d, L);
    p.query_error = split_heads(m->query_error, d, L);
    p.key = split_heads(m->key, d, T);
    p.key_error = split_heads(m->key_error, d, T);
    p.value = split_heads(m->value, d, T);
    p.value_error = split_heads(m->value_error, d, T);
    p.mask_len = mask_len_of(d->mask_shape, S);
    if (d->mask != CLATTN_MASK_NONE) p.mask = view_mask(&io->mask);
    p.padding = view_padding(&io->padding_mask);
    p.output = split_heads(m->heads_out, d, L);
    p.tolerance = split_heads(m->heads_error, d, L);
    p.average_weights = d->weights == CLATTN_WEIGHTS_AVERAGED;
    p.weights_factor = 1.0 / (double)H;
    p.weights = view_weights(&io->weights, p.average_weights);
    p.weights_tolerance = dense_weights(weights_tolerance, p.average_weights, H, L, T);
    return p;
}

/* Rows of (B, rows, E) as the device keeps them. */
static void keep(const clattn_mha_desc *d, double *values, double *errors, int64_t rows) {
    clattn__ref_stored(d->dtype, (clattn__ref_values){values, errors}, d->batch * rows * d->embed_dim);
}

static clattn_status run_layer(const clattn_mha_desc *d, const clattn_mha_weights *w, const clattn_mha_io *io,
                               layer_memory *m, int64_t T, const clattn__tolerances *tolerances) {
    const int64_t B = d->batch, L = d->query_len, S = d->kv_len, E = d->embed_dim;
    const clattn_tensor *key = d->inputs == CLATTN_MHA_SELF ? &io->query : &io->key;
    const clattn_tensor *value = d->inputs == CLATTN_MHA_SEPARATE ? &io->value : key;
    load_input(&io->query, m->query_in);
    load_input(key, m->key_in);
    load_input(value, m->value_in);

    project(m->query_in, B, L, E, &w->q_proj_weight, &w->q_proj_bias, m->query, m->query_error, L);
    project(m->key_in, B, S, d->key_dim, &w->k_proj_weight, &w->k_proj_bias, m->key, m->key_error, T);
    project(m->value_in, B, S, d->value_dim, &w->v_proj_weight, &w->v_proj_bias, m->value, m->value_error, T);
    append_row(m->key, &w->bias_k, B, S, T);
    append_row(m->value, &w->bias_v, B, S, T);
    keep(d, m->query, m->query_error, L);
    keep(d, m->key, m->key_error, T);
    keep(d, m->value, m->value_error, T);

    const clattn__ref_attention problem = layer_problem(d, io, m, T, tolerances->weights);
    clattn_status status = clattn__ref_attention_run(&problem);
    if (status != CLATTN_OK) return status;
    keep(d, m->heads_out, m->heads_error, L);

    const clattn__ref_projection out = {.m = B * L,
                                        .n = E,
                                        .k = E,
                                        .x = m->heads_out,
                                        .x_error = m->heads_error,
                                        .w = floats(&w->out_proj_weight),
                                        .bias = floats(&w->out_proj_bias),
                                        .w_row = w->out_proj_weight.stride[0],
                                        .y = m->y,
                                        .y_error = m->y_error};
    clattn__ref_project(&out);
    store_output(&io->output, m->y);
    for (int64_t i = 0; tolerances->output && i < B * L * E; i++) {
        const double narrowing = d->dtype == CLATTN_F32 ? 0 : clattn__ref_storage_rounding(d->dtype, m->y[i]);
        tolerances->output[i] = (float)(m->y_error[i] + narrowing);
    }
    return CLATTN_OK;
}

/* With everything resolved. */
static clattn_status reference_mha(const clattn_mha_desc *d, const clattn_mha_weights *w, const clattn_mha_io *io,
                                   const clattn__tolerances *tolerances) {
    const int64_t appended = clattn__mha_appended_keys(d, w), T = d->kv_len + appended;
    clattn_mha_io all;
    clattn_status status = clattn__check_mha_io(d, appended, io, &all);
    if (status != CLATTN_OK) return status;
    const clattn__named_tensor tensors[] = {{"query", &all.query},
                                            {"key", &all.key},
                                            {"value", &all.value},
                                            {"mask", &all.mask},
                                            {"padding_mask", &all.padding_mask},
                                            {"output", &all.output},
                                            {"weights", &all.weights}};
    status = clattn__check_on_host(tensors, CLATTN__COUNT(tensors));
    if (status != CLATTN_OK) return status;

    layer_memory memory;
    status = layer_memory_create(&memory, d, T, tolerances->output || tolerances->weights);
    if (status == CLATTN_OK) status = run_layer(d, w, &all, &memory, T, tolerances);
    layer_memory_clear(&memory);
    return status;
}

clattn_status clattn__reference_mha(const clattn_mha_desc *desc, const clattn_mha_weights *weights,
                                    const clattn_mha_io *io, const clattn__tolerances *tolerances) {
    clattn_mha_desc d;
    clattn_mha_weights w;
    clattn__widened copies = {0};
    clattn_status status = clattn__check_mha_desc(desc, &d);
    if (status == CLATTN_OK) status = clattn__check_mha_weights(&d, weights, &w, &copies);
    if (status == CLATTN_OK) status = reference_mha(&d, &w, io, tolerances);
    clattn__widened_clear(&copies);
    return status;
}

clattn_status clattn_reference_mha(const clattn_mha_desc *desc, const clattn_mha_weights *weights,
                                   const clattn_mha_io *io, float *tolerance) {
    const clattn__tolerances tolerances = {.output = tolerance};
    return clattn__reference_mha(desc, weights, io, &tolerances);
}
