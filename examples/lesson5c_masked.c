/* Lesson 5, demos 5 and 6: multi-head self-attention with an output projection, and causal masked attention with its
 * mask, masked scores and masked weights. docs/tutorial.md has the text to it. */
#include "lesson.h"

#include <math.h>

enum { DIM = 3, DK = 4, DV = 5, HEADS = 2, PAIR = 2, TOKENS = 4 };

static const char MULTI[] = "003_5_multi_head", CAUSAL[] = "003_6_causal";

static void project_all(clattn_context *context, const char *name, int tokens, int heads, float *q, float *k,
                        float *v) {
    const float *x = lesson_load(name, "x", tokens * DIM), *wq = lesson_load(name, "w_query", heads * DIM * DK),
                *wk = lesson_load(name, "w_key", heads * DIM * DK),
                *wv = lesson_load(name, "w_value", heads * DIM * DV);
    for (int h = 0; h < heads; h++) { /* every head sees the whole token */
        lesson_project(context, x, wq + h * DIM * DK, tokens, DIM, DK, q + h * tokens * DK);
        lesson_project(context, x, wk + h * DIM * DK, tokens, DIM, DK, k + h * tokens * DK);
        lesson_project(context, x, wv + h * DIM * DV, tokens, DIM, DV, v + h * tokens * DV);
    }
}

static clattn_attention_desc describe(int heads, int tokens) {
    clattn_attention_desc desc;
    clattn_attention_desc_init(&desc); /* the scale is 1 / sqrt(d_k) = 0.5 unless told otherwise */
    desc.query_heads = heads;
    desc.query_len = desc.kv_len = tokens;
    desc.head_dim = DK;
    desc.value_dim = DV;
    return desc;
}

static void multi_head(clattn_context *context) {
    float q[HEADS * PAIR * DK], k[HEADS * PAIR * DK], v[HEADS * PAIR * DV], heads[HEADS * PAIR * DV],
        weights[HEADS * PAIR * PAIR], joined[PAIR * HEADS * DV], output[PAIR * DIM];
    clattn_attention_desc desc = describe(HEADS, PAIR);
    puts("\ndemo 5: two heads, concatenated, projected back to the size of a token");
    project_all(context, MULTI, PAIR, HEADS, q, k, v);
    lesson_attend(context, &desc, q, k, v, heads, weights, NULL);
    for (int i = 0; i < PAIR; i++)
        for (int h = 0; h < HEADS; h++)
            for (int c = 0; c < DV; c++) joined[(i * HEADS + h) * DV + c] = heads[(h * PAIR + i) * DV + c];
    lesson_project(context, joined, lesson_load(MULTI, "w_output", HEADS * DV * DIM), PAIR, HEADS * DV, DIM, output);
    lesson_expect(MULTI, "attn_weights", weights, HEADS * PAIR * PAIR, 1e-4, 1e-5);
    lesson_expect(MULTI, "head_outputs", heads, HEADS * PAIR * DV, 1e-4, 1e-5);
    lesson_expect(MULTI, "concat_output", joined, PAIR * HEADS * DV, 1e-4, 1e-5);
    lesson_expect(MULTI, "output", output, PAIR * DIM, 1e-4, 1e-5);
}

/* panels: scores, mask, masked scores, weights */
static void causal(clattn_context *context, float panels[4][TOKENS * TOKENS]) {
    float q[TOKENS * DK], k[TOKENS * DK], v[TOKENS * DV], output[TOKENS * DV], weights[TOKENS * TOKENS];
    const unsigned char *hidden = lesson_load_bool(CAUSAL, "mask", TOKENS * TOKENS);
    int same = 1;
    puts("\ndemo 6: a token attends to itself and to what stands before it");
    project_all(context, CAUSAL, TOKENS, 1, q, k, v);
    clattn_attention_desc desc = describe(1, TOKENS);
    lesson_attend(context, &desc, q, k, v, output, weights, panels[0]);
    desc.causal = CLATTN_CAUSAL_TOP_LEFT;
    desc.scores = CLATTN_SCORES_MASKED;
    lesson_attend(context, &desc, q, k, v, output, panels[3], panels[2]);
    for (int i = 0; i < TOKENS * TOKENS; i++) {
        panels[1][i] = hidden[i];
        same = same && (isinf(panels[2][i]) != 0) == (hidden[i] != 0);
    }
    lesson_expect(CAUSAL, "query", q, TOKENS * DK, 1e-4, 1e-5);
    lesson_expect(CAUSAL, "key", k, TOKENS * DK, 1e-4, 1e-5);
    lesson_expect(CAUSAL, "value", v, TOKENS * DV, 1e-4, 1e-5);
    lesson_expect(CAUSAL, "scores", panels[0], TOKENS * TOKENS, 1e-4, 1e-5);
    lesson_check(same, "the masked scores are -inf where the mask says so, and nowhere else");
    lesson_expect(CAUSAL, "masked_scores", panels[2], TOKENS * TOKENS, 1e-4, 1e-5);
    lesson_expect(CAUSAL, "attn_weights", panels[3], TOKENS * TOKENS, 1e-4, 1e-5);
    lesson_expect(CAUSAL, "output", output, TOKENS * DV, 1e-4, 1e-5);

    puts("\nthe same by hand: softmax of the masked scores");
    lesson_softmax(context, panels[2], TOKENS, TOKENS, 1, 1, weights);
    lesson_expect(CAUSAL, "attn_weights", weights, TOKENS * TOKENS, 1e-4, 1e-5);
}

int main(int argc, char **argv) {
    static const char *const titles[4] = {"scores", "mask (1 = hidden)", "masked scores", "masked weights"};
    float panels[4][TOKENS * TOKENS];
    clattn_context *context = lesson_begin(argc, argv, "lesson 5, demos 5 and 6: heads and masks");
    multi_head(context);
    causal(context, panels);
    lesson_heat heats[4];
    for (int i = 0; i < 4; i++) {
        heats[i] = (lesson_heat){titles[i], panels[i], TOKENS, TOKENS, NULL};
        lesson_heatmap(titles[i], panels[i], TOKENS, TOKENS);
    }
    lesson_heat_picture("lesson5c", 1000, 320, heats, 4, 0, 0, "query", "key");
    return lesson_end(&context);
}
