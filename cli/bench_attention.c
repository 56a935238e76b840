/* bench --attention: one softmax(QK^T)V with any of its options. */
#include <math.h>
#include <string.h>

#include "bench.h"

#define FORBIDDEN_SHARE (1.0f / 16) /* of a bool mask */

typedef struct attention_state {
    cli_problem problem;
    bench_attention_data data;
    clattn_attention_io io;
    clattn_attention *plan;
} attention_state;

static bool parse(bench_case *c, const char *text) {
    attention_state *s = c->state;
    if (!cli_problem_attention(&s->problem, text)) return false;
    const clattn_attention_desc *d = &s->problem.attention;
    memcpy(c->shape, s->problem.shape, sizeof c->shape);
    c->causal = s->problem.causal;
    c->flops = cli_problem_flops(&s->problem);
    if (d->query_len == 1)
        c->read_bytes = 2.0 * (double)d->batch * (double)d->kv_heads * (double)d->kv_len * (double)d->head_dim *
                        (double)clattn_dtype_size(d->dtype);
    return true;
}

/* Slopes of Press et al. 2022 (arXiv:2108.12409): 2^(-8 (h + 1) / H). */
static bool make_alibi(cli_array *alibi, int64_t heads) {
    if (!bench_array(alibi, CLATTN_F32, 1, &heads, NULL)) return false;
    for (int64_t h = 0; h < heads; h++) cli_array_set(alibi, h, exp2(-8.0 * (double)(h + 1) / (double)heads));
    return true;
}

static bool make_mask(cli_array *mask, const cli_problem *problem, uint64_t *random) {
    const clattn_attention_desc *d = &problem->attention;
    const int64_t shape[4] = {1, 1, d->query_len, d->kv_len};
    if (d->mask == CLATTN_MASK_FLOAT) return bench_array(mask, CLATTN_F32, 4, shape, random);
    if (!bench_array(mask, CLATTN_BOOL, 4, shape, NULL)) return false;
    uint8_t *allowed = mask->data;
    for (int64_t i = 0; i < d->query_len; i++)
        for (int64_t j = 0; j < d->kv_len; j++)
            *allowed++ = problem->blocks ? i / CLI_BLOCK == j / CLI_BLOCK
                                         : cli_random_uniform(random) >= 2 * FORBIDDEN_SHARE - 1;
    return true;
}

static bool make_data(bench_attention_data *data, const cli_problem *problem, uint64_t random) {
    const clattn_attention_desc *d = &problem->attention;
    const int64_t query[4] = {d->batch, d->query_heads, d->query_len, d->head_dim};
    const int64_t key[4] = {d->batch, d->kv_heads, d->kv_len, d->head_dim};
    return bench_array(&data->query, d->dtype, 4, query, &random) &&
           bench_array(&data->key, d->dtype, 4, key, &random) && bench_array(&data->value, d->dtype, 4, key, &random) &&
           bench_array(&data->output, d->dtype, 4, query, NULL) &&
           (d->mask == CLATTN_MASK_NONE || make_mask(&data->mask, problem, &random)) &&
           (!d->alibi || make_alibi(&data->alibi, d->query_heads)) &&
           (!d->sinks || bench_array(&data->sinks, CLATTN_F32, 1, &d->query_heads, &random));
}

static int open_case(bench_case *c, clattn_context *context, const bench_settings *settings) {
    attention_state *s = c->state;
    bench_attention_data *data = &s->data;
    s->problem.attention.precision = settings->precision;
    clattn_attention_desc desc = s->problem.attention;
    desc.kernel = settings->kernel;
    clattn_status status = clattn_attention_create(&s->plan, context, &desc);
    if (status != CLATTN_OK) return bench_fail(c, status, "planning");
    if (!make_data(data, &s->problem, settings->seed))
        return cli_fail(EXIT_NOT_SUPPORTED, "%s: too little memory for its tensors", c->shape);
    s->io = (clattn_attention_io){.query = cli_array_tensor(&data->query),
                                  .key = cli_array_tensor(&data->key),
                                  .value = cli_array_tensor(&data->value),
                                  .output = cli_array_tensor(&data->output)};
    if (desc.mask != CLATTN_MASK_NONE) s->io.mask = cli_array_tensor(&data->mask);
    if (desc.alibi) s->io.alibi = cli_array_tensor(&data->alibi);
    if (desc.sinks) s->io.sinks = cli_array_tensor(&data->sinks);
    clattn_tensor *const tensors[] = {&s->io.query, &s->io.key,   &s->io.value, &s->io.output,
                                      &s->io.mask,  &s->io.alibi, &s->io.sinks};
    return bench_place(c, context, settings, tensors, sizeof tensors / sizeof *tensors);
}

static clattn_status run(bench_case *c) {
    attention_state *s = c->state;
    return clattn_attention_run(s->plan, &s->io);
}

static clattn_status info(const bench_case *c, clattn_plan_info *figures) {
    return clattn_attention_info(((const attention_state *)c->state)->plan, figures);
}

static clattn_status check(bench_case *c) {
    const attention_state *s = c->state;
    return bench_check_attention(&s->problem, &s->data, &c->result);
}

static void close_case(bench_case *c) {
    attention_state *s = c->state;
    bench_attention_data *data = &s->data;
    cli_array *const arrays[] = {&data->query, &data->key,   &data->value, &data->output,
                                 &data->mask,  &data->alibi, &data->sinks};
    cli_arrays_free(arrays, sizeof arrays / sizeof *arrays);
    clattn_attention_destroy(&s->plan);
}

const bench_kind bench_attention = {.op = "attention",
                                    .state_bytes = sizeof(attention_state),
                                    .parse = parse,
                                    .open = open_case,
                                    .run = run,
                                    .info = info,
                                    .check = check,
                                    .close = close_case};
