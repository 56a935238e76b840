/* Lesson 5, demos 1 and 2: self-attention without weights, with W_Q, W_K and W_V (d_k = 4, d_v = 5), and what happens
 * when the tokens change places. docs/tutorial.md has the text to it. */
#include "lesson.h"

enum { TOKENS = 2, DIM = 3, DK = 4, DV = 5 };

static const char PLAIN[] = "003_1_plain_qkv", AXIS0[] = "003_1_plain_qkv_axis0", PROJECTED[] = "003_1_projected",
                  PERMUTED[] = "003_2_permutation";

/* softmax(q k^T) v of two tokens; the demos do not divide by sqrt(d_k). */
static void attend(clattn_context *context, int dim, int value_dim, const float *q, const float *k, const float *v,
                   float *output, float *weights, float *scores) {
    clattn_attention_desc desc;
    clattn_attention_desc_init(&desc);
    desc.query_heads = 1;
    desc.query_len = desc.kv_len = TOKENS;
    desc.head_dim = dim;
    desc.value_dim = value_dim;
    desc.has_scale = 1;
    desc.scale = 1;
    lesson_attend(context, &desc, q, k, v, output, weights, scores);
}

static void plain(clattn_context *context, float *weights, float *columns) {
    const float *q = lesson_load(PLAIN, "query", TOKENS * DIM), *k = lesson_load(PLAIN, "key", TOKENS * DIM),
                *v = lesson_load(PLAIN, "value", TOKENS * DIM);
    float output[TOKENS * DIM], scores[TOKENS * TOKENS];
    puts("\ndemo 1: plain self-attention of two tokens");
    attend(context, DIM, DIM, q, k, v, output, weights, scores);
    lesson_expect(PLAIN, "scores", scores, TOKENS * TOKENS, 1e-4, 1e-5);
    lesson_expect(PLAIN, "attn_weights", weights, TOKENS * TOKENS, 1e-4, 1e-5);
    lesson_expect(PLAIN, "output", output, TOKENS * DIM, 1e-4, 1e-5);

    /* the tutorial's code normalises over axis 0, the queries: then the columns add up to 1 and not the rows */
    puts("\nthe same with the softmax over the queries (axis 0), which is not attention");
    lesson_softmax(context, scores, TOKENS, TOKENS, 0, 1, columns);
    lesson_project(context, columns, v, TOKENS, TOKENS, DIM, output);
    lesson_expect(AXIS0, "scores", scores, TOKENS * TOKENS, 1e-4, 1e-5);
    lesson_expect(AXIS0, "attn_weights", columns, TOKENS * TOKENS, 1e-4, 1e-5);
    lesson_expect(AXIS0, "output", output, TOKENS * DIM, 1e-4, 1e-5);
}

static void projected(clattn_context *context, float *weights) {
    const float *x = lesson_load(PROJECTED, "x", TOKENS * DIM);
    float q[TOKENS * DK], k[TOKENS * DK], v[TOKENS * DV], output[TOKENS * DV], scores[TOKENS * TOKENS];
    puts("\ndemo 1 with projections: d_k = 4, d_v = 5");
    lesson_project(context, x, lesson_load(PROJECTED, "w_query", DIM * DK), TOKENS, DIM, DK, q);
    lesson_project(context, x, lesson_load(PROJECTED, "w_key", DIM * DK), TOKENS, DIM, DK, k);
    lesson_project(context, x, lesson_load(PROJECTED, "w_value", DIM * DV), TOKENS, DIM, DV, v);
    attend(context, DK, DV, q, k, v, output, weights, scores);
    lesson_expect(PROJECTED, "query", q, TOKENS * DK, 1e-4, 1e-5);
    lesson_expect(PROJECTED, "key", k, TOKENS * DK, 1e-4, 1e-5);
    lesson_expect(PROJECTED, "value", v, TOKENS * DV, 1e-4, 1e-5);
    lesson_expect(PROJECTED, "scores", scores, TOKENS * TOKENS, 1e-4, 1e-5);
    lesson_expect(PROJECTED, "attn_weights", weights, TOKENS * TOKENS, 1e-4, 1e-5);
    lesson_expect(PROJECTED, "output", output, TOKENS * DV, 1e-4, 1e-5);
}

static void permuted(clattn_context *context, float *before, float *after) {
    const float *x = lesson_load(PERMUTED, "x", TOKENS * DIM),
                *swapped = lesson_load(PERMUTED, "x_permuted", TOKENS * DIM);
    float output[TOKENS * DIM], other[TOKENS * DIM], back[TOKENS * DIM], scores[TOKENS * TOKENS];
    puts("\ndemo 2: the two tokens change places");
    attend(context, DIM, DIM, x, x, x, output, before, scores);
    attend(context, DIM, DIM, swapped, swapped, swapped, other, after, scores);
    lesson_expect(PERMUTED, "attn_weights", before, TOKENS * TOKENS, 1e-4, 1e-5);
    lesson_expect(PERMUTED, "output", output, TOKENS * DIM, 1e-4, 1e-5);
    lesson_expect(PERMUTED, "attn_weights_permuted", after, TOKENS * TOKENS, 1e-4, 1e-5);
    lesson_expect(PERMUTED, "output_permuted", other, TOKENS * DIM, 1e-4, 1e-5);
    for (int i = 0; i < TOKENS * DIM; i++) back[i] = other[(i + DIM) % (TOKENS * DIM)];
    lesson_compare("outputs of the exchanged tokens, exchanged back", back, output, TOKENS * DIM, 0, 1e-6);
}

int main(int argc, char **argv) {
    static const char *const titles[5] = {"plain", "softmax over axis 0", "projected", "before", "exchanged"};
    float panels[5][TOKENS * TOKENS];
    clattn_context *context = lesson_begin(argc, argv, "lesson 5, demos 1 and 2: self-attention");
    plain(context, panels[0], panels[1]);
    projected(context, panels[2]);
    permuted(context, panels[3], panels[4]);
    lesson_heat heats[5];
    for (int i = 0; i < 5; i++) {
        heats[i] = (lesson_heat){titles[i], panels[i], TOKENS, TOKENS, NULL};
        lesson_heatmap(titles[i], panels[i], TOKENS, TOKENS);
    }
    lesson_heat_picture("lesson5a", 1000, 260, heats, 5, 0, 1, "query", "key");
    return lesson_end(&context);
}
