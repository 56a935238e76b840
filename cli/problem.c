/* Descriptions given as a list of sizes on the command line. */
#include "problem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool parse(cli_problem *problem, const char *option, const char *form, const char *text, int count,
                  long long *sizes) {
    if (!cli_parse_shape(text, count, sizes, &problem->causal)) {
        cli_fail(EXIT_USAGE, "--%s '%s': expected %s, whole numbers >= 0", option, text, form);
        return false;
    }
    size_t used = 0;
    for (int i = 0; i < count && used < sizeof problem->shape; i++)
        used += (size_t)snprintf(problem->shape + used, sizeof problem->shape - used, "%s%lld", i ? "x" : "", sizes[i]);
    return true;
}

bool cli_problem_attention(cli_problem *problem, const char *text) {
    long long sizes[6];
    memset(problem, 0, sizeof *problem);
    if (!parse(problem, "attention", CLI_ATTENTION_FORM, text, 6, sizes)) return false;
    clattn_attention_desc *desc = &problem->attention;
    clattn_attention_desc_init(desc);
    desc->batch = sizes[0];
    desc->query_heads = sizes[1];
    desc->kv_heads = sizes[2];
    desc->query_len = sizes[3];
    desc->kv_len = sizes[4];
    desc->head_dim = sizes[5];
    if (problem->causal) desc->causal = CLATTN_CAUSAL_BOTTOM_RIGHT;
    return true;
}

bool cli_problem_layer(cli_problem *problem, const char *text) {
    long long sizes[4];
    memset(problem, 0, sizeof *problem);
    if (!parse(problem, "layer", CLI_LAYER_FORM, text, 4, sizes)) return false;
    problem->layer = true;
    clattn_mha_desc *desc = &problem->mha;
    clattn_mha_desc_init(desc);
    desc->batch = sizes[0];
    desc->query_len = sizes[1];
    desc->kv_len = sizes[1];
    desc->embed_dim = sizes[2];
    desc->heads = sizes[3];
    if (problem->causal) desc->causal = CLATTN_CAUSAL_TOP_LEFT;
    return true;
}

double cli_problem_flops(const cli_problem *problem) {
    double half = problem->causal ? 0.5 : 1.0;
    if (problem->layer) {
        const clattn_mha_desc *d = &problem->mha;
        double rows = (double)d->batch * (double)d->query_len, width = (double)d->embed_dim;
        return 8 * rows * width * width + half * 4 * rows * (double)d->kv_len * width;
    }
    const clattn_attention_desc *d = &problem->attention;
    double scores = (double)d->batch * (double)d->query_heads * (double)d->query_len * (double)d->kv_len;
    return half * 4 * scores * (double)d->head_dim;
}

/* A Weyl sequence through a 64-bit mixer: any seed is good, zero too. */
static uint64_t next(uint64_t *state) {
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
    return x ^ (x >> 32);
}

float cli_random_uniform(uint64_t *state) { return (float)(next(state) >> 40) / (float)(1 << 23) - 1.0f; }

/* The polar method: a point of the unit disc gives a normal value; the second one is dropped for simplicity. */
float cli_random_normal(uint64_t *state) {
    float x, y, radius;
    do {
        x = cli_random_uniform(state);
        y = cli_random_uniform(state);
        radius = x * x + y * y;
    } while (radius >= 1.0f || radius == 0.0f);
    return x * sqrtf(-2.0f * logf(radius) / radius);
}

static float *make_weight(int64_t count, float range, uint64_t *random) {
    float *weight = calloc((size_t)count, sizeof *weight);
    if (weight && random)
        for (int64_t i = 0; i < count; i++) weight[i] = range * cli_random_uniform(random);
    return weight;
}

bool cli_layer_weights_make(cli_layer_weights *weights, int64_t embed_dim, uint64_t *random) {
    memset(weights, 0, sizeof *weights);
    if (embed_dim < 1 || embed_dim > 1 << 20) return false;
    int64_t e = embed_dim;
    float range = 1.0f / sqrtf((float)e);
    weights->in_proj = make_weight(3 * e * e, range, random);
    weights->in_bias = make_weight(3 * e, range, random);
    weights->out_proj = make_weight(e * e, range, random);
    weights->out_bias = make_weight(e, range, random);
    if (!weights->in_proj || !weights->in_bias || !weights->out_proj || !weights->out_bias) {
        cli_layer_weights_free(weights);
        return false;
    }
    weights->tensors.in_proj_weight = clattn_host(weights->in_proj, CLATTN_F32, 2, 3 * e, e, 0, 0);
    weights->tensors.in_proj_bias = clattn_host(weights->in_bias, CLATTN_F32, 1, 3 * e, 0, 0, 0);
    weights->tensors.out_proj_weight = clattn_host(weights->out_proj, CLATTN_F32, 2, e, e, 0, 0);
    weights->tensors.out_proj_bias = clattn_host(weights->out_bias, CLATTN_F32, 1, e, 0, 0, 0);
    return true;
}

void cli_layer_weights_free(cli_layer_weights *weights) {
    free(weights->in_proj);
    free(weights->in_bias);
    free(weights->out_proj);
    free(weights->out_bias);
    memset(weights, 0, sizeof *weights);
}
