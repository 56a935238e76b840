/* Lesson 3: additive, dot-product and scaled dot-product scores on the same data; queries, keys and values as matrices;
 * self-attention with W_Q, W_K, W_V. docs/tutorial.md has the text to it. */
#include "lesson.h"

#include <math.h>

enum { QUERIES = 2, KEYS = 3, DIM = 2 };

/* Scores, weights and output as the case says. */
static void compare(const char *name, int queries, const float *scores, const float *weights, const float *output) {
    printf("\n%s\n", name);
    lesson_expect(name, "scores", scores, queries * KEYS, 1e-4, 1e-2);
    lesson_expect(name, "attn_weights", weights, queries * KEYS, 1e-4, 1e-5);
    lesson_expect(name, "output", output, queries * DIM, 1e-4, 1e-3);
}

/* Dot-product attention; scale 1 is the plain one. */
static void dot_product(clattn_context *context, const char *name, int queries, float scale, float *weights) {
    float output[KEYS * DIM], scores[KEYS * KEYS];
    clattn_attention_desc desc;
    clattn_attention_desc_init(&desc);
    desc.query_heads = 1;
    desc.query_len = queries;
    desc.kv_len = KEYS;
    desc.head_dim = DIM;
    desc.has_scale = 1;
    desc.scale = scale;
    lesson_attend(context, &desc, lesson_load(name, "query", queries * DIM), lesson_load(name, "key", KEYS * DIM),
                  lesson_load(name, "value", KEYS * DIM), output, weights, scores);
    compare(name, queries, scores, weights, output);
}

/* score = w . tanh(W_q q + W_k k + b), or without w and tanh; attention gets W_q q and W_k k as query and key. */
static void additive(clattn_context *context, const char *name, int hidden, int with_tanh, float *weights) {
    static const float one = 1;
    float query[QUERIES * 8], key[KEYS * 8], output[QUERIES * DIM], scores[QUERIES * KEYS];
    lesson_linear(context, lesson_load(name, "query", QUERIES * DIM), lesson_load(name, "w_query", hidden * DIM), NULL,
                  QUERIES, DIM, hidden, query);
    lesson_linear(context, lesson_load(name, "key", KEYS * DIM), lesson_load(name, "w_key", hidden * DIM), NULL, KEYS,
                  DIM, hidden, key);
    clattn_attention_desc desc;
    clattn_attention_desc_init(&desc);
    desc.batch = desc.query_heads = 1;
    desc.query_len = QUERIES;
    desc.kv_len = KEYS;
    desc.head_dim = hidden;
    desc.value_dim = DIM;
    desc.score = with_tanh ? CLATTN_SCORE_ADDITIVE : CLATTN_SCORE_ADDITIVE_LINEAR;
    desc.score_weight = desc.score_bias = 1;
    desc.weights = CLATTN_WEIGHTS_PER_HEAD;
    desc.scores = CLATTN_SCORES_RAW;
    const float *w = with_tanh ? lesson_load(name, "w_score", hidden) : &one;
    const clattn_attention_io io = {.query = lesson_heads(query, 1, QUERIES, hidden),
                                    .key = lesson_heads(key, 1, KEYS, hidden),
                                    .value = lesson_heads(lesson_load(name, "value", KEYS * DIM), 1, KEYS, DIM),
                                    .score_weight = clattn_host(w, CLATTN_F32, 1, hidden, 0, 0, 0),
                                    .score_bias =
                                        clattn_host(lesson_load(name, "bias", hidden), CLATTN_F32, 1, hidden, 0, 0, 0),
                                    .output = lesson_heads(output, 1, QUERIES, DIM),
                                    .weights = lesson_heads(weights, 1, QUERIES, KEYS),
                                    .scores = lesson_heads(scores, 1, QUERIES, KEYS)};
    clattn_attention *plan;
    or_die(clattn_attention_create(&plan, context, &desc));
    or_die(clattn_attention_run(plan, &io));
    clattn_attention_destroy(&plan);
    compare(name, QUERIES, scores, weights, output);
}

/* X W_Q, X W_K, X W_V, then scaled dot-product attention of X on itself. */
static void projected(clattn_context *context) {
    enum { N = 3, DK = 4, DV = 3 };
    static const char name[] = "001_self_attention_projected";
    const float *x = lesson_load(name, "x", N * DIM);
    float q[N * DK], k[N * DK], v[N * DV], output[N * DV], weights[N * N], scores[N * N];
    lesson_project(context, x, lesson_load(name, "w_query", DIM * DK), N, DIM, DK, q);
    lesson_project(context, x, lesson_load(name, "w_key", DIM * DK), N, DIM, DK, k);
    lesson_project(context, x, lesson_load(name, "w_value", DIM * DV), N, DIM, DV, v);
    clattn_attention_desc desc;
    clattn_attention_desc_init(&desc);
    desc.query_heads = 1;
    desc.query_len = desc.kv_len = N;
    desc.head_dim = DK;
    desc.value_dim = DV;
    lesson_attend(context, &desc, q, k, v, output, weights, scores);
    printf("\n%s\n", name);
    lesson_expect(name, "query", q, N * DK, 1e-4, 1e-4);
    lesson_expect(name, "key", k, N * DK, 1e-4, 1e-4);
    lesson_expect(name, "value", v, N * DV, 1e-4, 1e-3);
    lesson_expect(name, "scores", scores, N * N, 1e-4, 1e-3);
    lesson_expect(name, "attn_weights", weights, N * N, 1e-4, 1e-3);
    lesson_expect(name, "output", output, N * DV, 1e-4, 1e-3);
}

int main(int argc, char **argv) {
    clattn_context *context = lesson_begin(argc, argv, "lesson 3: scores");
    float linear[6], with_tanh[6], dot[6], scaled[6], standard[6], self[9], self_standard[9];
    additive(context, "001_additive_linear", 1, 0, linear);
    lesson_check(fabsf(linear[0] - linear[3]) < 1e-6f, "without the tanh the query cancels out of the softmax");
    additive(context, "001_additive_tanh", 8, 1, with_tanh);
    dot_product(context, "001_dot_product", QUERIES, 1, dot);
    dot_product(context, "001_scaled_dot_product", QUERIES, sqrtf(0.5f), scaled);
    dot_product(context, "001_scaled_dot_product_standardised", QUERIES, sqrtf(0.5f), standard);
    dot_product(context, "001_self_attention_x", KEYS, sqrtf(0.5f), self);
    dot_product(context, "001_self_attention_x_standardised", KEYS, sqrtf(0.5f), self_standard);
    projected(context);
    const lesson_heat panels[4] = {{"additive (tanh)", with_tanh, QUERIES, KEYS, NULL},
                                   {"dot product", dot, QUERIES, KEYS, NULL},
                                   {"scaled", scaled, QUERIES, KEYS, NULL},
                                   {"scaled, standardised", standard, QUERIES, KEYS, NULL}};
    for (int i = 0; i < 4; i++) lesson_heatmap(panels[i].title, panels[i].values, QUERIES, KEYS);
    lesson_heat_picture("lesson3", 900, 240, panels, 4, 0, 1, "query", "key");
    return lesson_end(&context);
}
