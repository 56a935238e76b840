/* bench --model: the encoder of clattn embed on random token ids. */
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "bert.h"

#define FORM "FOLDER[,BATCHxTOKENS]"

typedef struct model_state {
    char folder[1024];
    int64_t batch, tokens;
    cli_bert model;
    cli_array ids, words, mask, hidden; /* (B, L), (B, L, E), (B, L) bool, (B, L, E) */
    clattn_stack_desc desc;
    clattn_layer_io io;
    clattn_layer *layer;
} model_state;

static bool take_size(const char *text, model_state *s) {
    char batch[24];
    long long sizes[2];
    const char *x = strchr(text, 'x');
    if (!x || (size_t)(x - text) >= sizeof batch) return false;
    memcpy(batch, text, (size_t)(x - text));
    batch[x - text] = '\0';
    if (!cli_parse_int(batch, 1, INT32_MAX, &sizes[0]) || !cli_parse_int(x + 1, 1, INT32_MAX, &sizes[1])) return false;
    s->batch = sizes[0];
    s->tokens = sizes[1];
    return true;
}

static bool parse(bench_case *c, const char *text) {
    model_state *s = c->state;
    const char *comma = strrchr(text, ',');
    size_t length = comma ? (size_t)(comma - text) : strlen(text);
    s->batch = 1;
    s->tokens = 128;
    if (length == 0 || length >= sizeof s->folder || (comma && !take_size(comma + 1, s)))
        return cli_fail(EXIT_USAGE, "--model '%s': expected " FORM ", whole numbers > 0", text), false;
    memcpy(s->folder, text, length);
    snprintf(c->shape, sizeof c->shape, "%lldx%lld", (long long)s->batch, (long long)s->tokens);
    c->flops = 1; /* known when the model is there */
    return true;
}

static bool load(model_state *s, uint64_t random, char why[512]) {
    const int64_t shape[2] = {s->batch, s->tokens};
    if (!cli_bert_load(s->folder, &s->model, why)) return false;
    if (!cli_array_new(&s->ids, CLATTN_I32, 2, shape, why) || !cli_array_new(&s->mask, CLATTN_BOOL, 2, shape, why))
        return false;
    const double vocabulary = (double)s->model.words->shape[0];
    for (int64_t i = 0; i < s->batch * s->tokens; i++)
        ((int32_t *)s->ids.data)[i] = (int32_t)((0.5 + 0.5 * (double)cli_random_uniform(&random)) * vocabulary);
    memset(s->mask.data, 1, s->mask.bytes);
    return cli_bert_words(&s->model, &s->ids, &s->words, why) &&
           cli_array_new(&s->hidden, CLATTN_F32, 3, s->words.shape, why);
}

/* Per token: four products of E x E, two of E x F; and the two products of attention over all tokens. */
static double work(const model_state *s) {
    const double e = (double)s->model.features, f = (double)s->model.feed_forward;
    const double rows = (double)s->batch * (double)s->tokens;
    return (double)s->model.layers * rows * (8 * e * e + 4 * e * f + 4 * (double)s->tokens * e);
}

static int open_case(bench_case *c, clattn_context *context, const bench_settings *settings) {
    model_state *s = c->state;
    char why[512];
    if (!load(s, settings->seed, why)) return cli_fail(EXIT_USAGE, "%s", why);
    snprintf(c->shape, sizeof c->shape, "%lldx%lldx%lldx%lldx%lld", (long long)s->batch, (long long)s->tokens,
             s->model.features, s->model.heads, s->model.layers);
    c->flops = work(s);
    cli_bert_describe(&s->model, s->batch, s->tokens, &s->desc);
    s->desc.precision = settings->precision;
    clattn_stack_desc desc = s->desc;
    desc.attention_kernel = settings->kernel;
    desc.gemm_kernel = settings->gemm;
    s->io = (clattn_layer_io){.input = cli_array_tensor(&s->words),
                              .padding_mask = cli_array_tensor(&s->mask),
                              .output = cli_array_tensor(&s->hidden)};
    clattn_status status = clattn_stack_create(&s->layer, context, &desc, &s->model.weights);
    if (status != CLATTN_OK) return bench_fail(c, status, "planning");
    clattn_tensor *const tensors[] = {&s->io.input, &s->io.padding_mask, &s->io.output};
    return bench_place(c, context, settings, tensors, 3);
}

static clattn_status run(bench_case *c) {
    model_state *s = c->state;
    return clattn_layer_run(s->layer, &s->io);
}

static clattn_status info(const bench_case *c, clattn_plan_info *figures) {
    return clattn_layer_info(((const model_state *)c->state)->layer, figures);
}

/* The last sentence, all of it: its tokens see each other, and no other sentence. */
static clattn_status check(bench_case *c) {
    const model_state *s = c->state;
    const int64_t l = s->tokens, e = s->model.features, b = s->batch - 1;
    const int64_t shape[3] = {1, l, e};
    clattn_stack_desc one = s->desc;
    one.batch = 1;
    one.attention_kernel = c->result.kernels; /* what they round is allowed for */
    cli_array want = {0};
    float *tolerance = malloc((size_t)(l * e) * sizeof *tolerance);
    bool good = bench_array(&want, CLATTN_F32, 3, shape, NULL) && tolerance;
    clattn_layer_io io = {.input = clattn_host(s->words.data, CLATTN_F32, 3, 1, l, e, 0),
                          .padding_mask = clattn_host(s->mask.data, CLATTN_BOOL, 2, 1, l, 0, 0),
                          .output = cli_array_tensor(&want)};
    io.input.offset = b * l * e;
    io.padding_mask.offset = b * l;
    clattn_status status = good ? CLATTN_OK : CLATTN_OUT_OF_MEMORY;
    if (status == CLATTN_OK) status = clattn_reference_stack(&one, &s->model.weights, &io, tolerance);
    c->result.rows = s->batch * l;
    if (status == CLATTN_OK) bench_compare(&c->result, &s->hidden, b * l * e, e, &want, tolerance, l, e);
    cli_array_free(&want);
    free(tolerance);
    return status;
}

static void close_case(bench_case *c) {
    model_state *s = c->state;
    cli_array *const arrays[] = {&s->ids, &s->words, &s->mask, &s->hidden};
    cli_arrays_free(arrays, sizeof arrays / sizeof *arrays);
    clattn_layer_destroy(&s->layer);
    cli_bert_free(&s->model);
}

const bench_kind bench_model = {.op = "model",
                                .state_bytes = sizeof(model_state),
                                .parse = parse,
                                .open = open_case,
                                .run = run,
                                .info = info,
                                .check = check,
                                .close = close_case};
