/* Golden cases of the operation "bert_encoder": token ids to sentence embedding. The model is a folder beside the case.
 * The encoder runs as one stack that also gives every layer's output; the inside of layer 0 is built from parts. */
#include <string.h>

#include "bert.h"
#include "case.h"

typedef struct bert_case {
    cli_bert model;
    cli_array *mask;          /* (B, S) bool */
    cli_array words;          /* (B, S, E) */
    cli_array hidden, output; /* (1 + layers, B, S, E), (B, S, E) */
} bert_case;

static void bert_case_free(bert_case *b) {
    cli_bert_free(&b->model);
    cli_array_free(&b->words);
    cli_array_free(&b->hidden);
    cli_array_free(&b->output);
}

static case_result load(cli_case *c, bert_case *b) {
    cli_array *ids;
    char folder[4096], reason[256];
    const char *model = case_text(c, "model");
    if (!model[0] || strchr(model, '/')) return case_error(c, "model is not the name of a folder beside the case");
    if (snprintf(folder, sizeof folder, "%s/../%s", c->folder, model) >= (int)sizeof folder)
        return case_error(c, "the path of the model is too long");
    if (!cli_bert_load(folder, &b->model, c->why)) return CASE_ERROR;
    CASE_TRY(case_input(c, "input_ids", &ids));
    CASE_TRY(case_input(c, "attention_mask", &b->mask));
    if (!ids || !b->mask || b->mask->rank != 2 || cli_array_elements(ids) != cli_array_elements(b->mask))
        return case_error(c, "input_ids or attention_mask is missing, or they differ in shape");
    if (!cli_array_to_bool(b->mask, reason)) return case_error(c, "attention_mask: %s", reason);
    return cli_bert_words(&b->model, ids, &b->words, c->why) ? CASE_DONE : CASE_ERROR;
}

static case_result run_encoder(cli_case *c, bert_case *b) {
    const int64_t *n = b->words.shape, hidden[4] = {b->model.layers + 1, n[0], n[1], n[2]};
    if (!cli_array_new(&b->hidden, CLATTN_F32, 4, hidden, c->why)) return CASE_ERROR;
    if (!cli_array_new(&b->output, CLATTN_F32, 3, n, c->why)) return CASE_ERROR;
    clattn_stack_desc d;
    cli_bert_describe(&b->model, n[0], n[1], &d);
    d.hidden = 1;
    d.attention_kernel = c->kernel;
    const clattn_layer_io io = {.input = cli_array_tensor(&b->words),
                                .padding_mask = cli_array_tensor(b->mask),
                                .output = cli_array_tensor(&b->output),
                                .hidden = cli_array_tensor(&b->hidden)};
    clattn_layer *layer = NULL;
    clattn_status status = clattn_stack_create(&layer, c->context, &d, &b->model.weights);
    return case_run_layer(c, status, layer, &io);
}

/* hidden[index], as an array that borrows its memory. */
static cli_array hidden_state(const bert_case *b, int64_t index) {
    cli_array state = b->output;
    state.data = (float *)b->hidden.data + index * cli_array_elements(&b->output);
    return state;
}

static case_result take_hidden(cli_case *c, const bert_case *b, const char *role, int64_t index) {
    cli_array *want;
    CASE_TRY(case_output(c, role, CLATTN_F32, &want));
    if (!want) return CASE_DONE;
    const cli_array state = hidden_state(b, index);
    if (cli_array_elements(want) != cli_array_elements(&state))
        return case_error(c, "output '%s' does not have the shape of the hidden state", role);
    memcpy(want->data, state.data, (size_t)cli_array_elements(&state) * sizeof(float));
    return CASE_DONE;
}

static case_result take_layers(cli_case *c, const bert_case *b) {
    static char roles[64][32]; /* outlive the case's verdict */
    CASE_TRY(take_hidden(c, b, "embedding_output", 0));
    for (long long i = 0; i < b->model.layers && i < 64; i++) {
        snprintf(roles[i], sizeof roles[i], "layer_%lld_output", i);
        CASE_TRY(take_hidden(c, b, roles[i], i + 1));
    }
    return CASE_DONE;
}

/* Layer 0 by hand: projections, attention per head, output projection, residual and norm. */
static case_result run_first_layer(cli_case *c, const bert_case *b) {
    cli_array *weights, *heads, *dense, *after, *q, *k, *v;
    CASE_TRY(case_output(c, "layer_0_attention_weights", CLATTN_F32, &weights));
    CASE_TRY(case_output(c, "layer_0_attention_heads", CLATTN_F32, &heads));
    CASE_TRY(case_output(c, "layer_0_attention_dense", CLATTN_F32, &dense));
    CASE_TRY(case_output(c, "layer_0_attention_output", CLATTN_F32, &after));
    if (!weights || !heads || !dense || !after) return CASE_DONE; /* what is left over is told as not supported */
    const cli_array x = hidden_state(b, 0);
    const int64_t B = x.shape[0], S = x.shape[1], E = x.shape[2], H = b->model.heads, D = E / H;
    const clattn_block_weights *w = b->model.weights.encoder;
    const clattn_mha_weights *a = &w->self_attention;
    CASE_TRY(case_scratch(c, CLATTN_F32, 3, x.shape, &q));
    CASE_TRY(case_scratch(c, CLATTN_F32, 3, x.shape, &k));
    CASE_TRY(case_scratch(c, CLATTN_F32, 3, x.shape, &v));
    const clattn_linear_weights linears[4] = {{a->q_proj_weight, a->q_proj_bias},
                                              {a->k_proj_weight, a->k_proj_bias},
                                              {a->v_proj_weight, a->v_proj_bias},
                                              {a->out_proj_weight, a->out_proj_bias}};
    CASE_TRY(case_run_linear(c, &linears[0], CLATTN_ACTIVATION_NONE, &x, q));
    CASE_TRY(case_run_linear(c, &linears[1], CLATTN_ACTIVATION_NONE, &x, k));
    CASE_TRY(case_run_linear(c, &linears[2], CLATTN_ACTIVATION_NONE, &x, v));
    clattn_attention_desc d;
    clattn_attention_desc_init(&d);
    d.batch = B;
    d.query_heads = H;
    d.query_len = d.kv_len = S;
    d.head_dim = D;
    d.padding_mask = 1;
    d.weights = CLATTN_WEIGHTS_PER_HEAD;
    d.kernel = c->kernel;
    clattn_attention_io io = {.padding_mask = cli_array_tensor(b->mask), .weights = cli_array_tensor(weights)};
    const struct {
        const cli_array *array;
        clattn_tensor *tensor;
    } tensors[] = {{q, &io.query}, {k, &io.key}, {v, &io.value}, {heads, &io.output}};
    for (int i = 0; i < 4; i++) /* (B, S, H * D) seen as (B, H, S, D) */
        *tensors[i].tensor = (clattn_tensor){.data = tensors[i].array->data,
                                             .dtype = CLATTN_F32,
                                             .rank = 4,
                                             .shape = {B, H, S, D},
                                             .stride = {S * E, D, E, 1}};
    clattn_attention *attention = NULL;
    clattn_plan_info info = {0};
    clattn_status status = clattn_attention_create(&attention, c->context, &d);
    if (status == CLATTN_OK) status = clattn_attention_run(attention, &io);
    if (status == CLATTN_OK) status = clattn_attention_info(attention, &info);
    case_result result = case_status(c, status, &info);
    clattn_attention_destroy(&attention);
    if (result != CASE_DONE) return result;
    CASE_TRY(case_run_linear(c, &linears[3], CLATTN_ACTIVATION_NONE, heads, dense));
    return case_run_norm(c, &w->self_norm, CLATTN_NORM_LAYER, (float)b->model.eps, dense, &x, NULL, after);
}

static case_result take_pooled(cli_case *c, const bert_case *b) {
    cli_array *pooled, *embedding, *scratch;
    const int64_t shape[2] = {b->output.shape[0], b->output.shape[2]};
    CASE_TRY(case_output(c, "mean_pooled", CLATTN_F32, &pooled));
    CASE_TRY(case_output(c, "sentence_embedding", CLATTN_F32, &embedding));
    CASE_TRY(case_scratch(c, CLATTN_F32, 2, shape, &scratch));
    if (!embedding) embedding = scratch;
    if (cli_array_elements(embedding) != shape[0] * shape[1] ||
        (pooled && cli_array_elements(pooled) != shape[0] * shape[1]))
        return case_error(c, "mean_pooled or sentence_embedding does not have one row per sentence");
    cli_bert_pool(&b->output, b->mask, pooled ? pooled->data : NULL, embedding->data);
    return CASE_DONE;
}

case_result case_bert_encoder(cli_case *c) {
    bert_case b = {0};
    char kernels[sizeof c->kernels]; /* of the whole encoder, not of the last part */
    case_result result = load(c, &b);
    if (result == CASE_DONE) result = run_encoder(c, &b);
    memcpy(kernels, c->kernels, sizeof kernels);
    if (result == CASE_DONE) result = take_layers(c, &b);
    if (result == CASE_DONE) result = run_first_layer(c, &b);
    if (result == CASE_DONE) result = take_pooled(c, &b);
    memcpy(c->kernels, kernels, sizeof kernels);
    bert_case_free(&b);
    return result;
}
