/* Lesson 6, part 4: writing one token after the other. A small decoder with made-up weights chooses its next token,
 * once by computing everything anew at each step, once with a key/value cache that only looks at the newest token.
 * docs/tutorial.md has the text to it. */
#include "lesson.h"

#include <math.h>
#include <string.h>

enum { WORDS = 40, EMBED = 32, HEADS = 4, SIZE = EMBED / HEADS, PROMPT = 4, STEPS = 24, LENGTH = PROMPT + STEPS };

typedef struct model {
    float words[WORDS * EMBED], scores[WORDS * EMBED]; /* word to features, and features to scores of all words */
    float positions[LENGTH * EMBED];
    float q[EMBED * EMBED], k[EMBED * EMBED], v[EMBED * EMBED], o[EMBED * EMBED];
} model;

static void make(clattn_context *context, model *m) {
    float *const weights[4] = {m->q, m->k, m->v, m->o};
    lesson_seed(2);
    lesson_normal(m->words, WORDS * EMBED);
    lesson_normal(m->scores, WORDS * EMBED);
    for (int w = 0; w < 4; w++) {
        lesson_normal(weights[w], EMBED * EMBED);
        for (int i = 0; i < EMBED * EMBED; i++) weights[w][i] *= w == 3 ? 0.1f : 0.4f;
    }
    clattn_positions_desc desc;
    clattn_positions_desc_init(&desc);
    desc.batch = 1;
    desc.rows = LENGTH;
    desc.features = EMBED;
    clattn_layer *layer;
    const clattn_layer_io io = {.output = lesson_rows(m->positions, LENGTH, EMBED)};
    or_die(clattn_positions_create(&layer, context, &desc, NULL));
    or_die(clattn_layer_run(layer, &io));
    clattn_layer_destroy(&layer);
}

/* Embeddings of tokens first..first+count-1 and their queries, keys and values. */
static void project(clattn_context *context, const model *m, const int *tokens, int first, int count, float *x,
                    float *q, float *k, float *v) {
    for (int i = 0; i < count * EMBED; i++) {
        const int t = first + i / EMBED;
        x[i] = m->words[tokens[t] * EMBED + i % EMBED] + m->positions[t * EMBED + i % EMBED];
    }
    lesson_linear(context, x, m->q, NULL, count, EMBED, EMBED, q);
    lesson_linear(context, x, m->k, NULL, count, EMBED, EMBED, k);
    lesson_linear(context, x, m->v, NULL, count, EMBED, EMBED, v);
}

/* (count, EMBED) seen as (1, HEADS, count, SIZE). */
static clattn_tensor heads(const float *values, int64_t count) {
    clattn_tensor view = lesson_heads(values, HEADS, count, SIZE);
    view.stride[0] = count * EMBED;
    view.stride[1] = SIZE;
    view.stride[2] = EMBED;
    view.stride[3] = 1;
    return view;
}

/* x + W_O attention, scores of all words, the best one; scores go to *logits. */
static int next(clattn_context *context, const model *m, const float *x, const float *attended, float *logits) {
    float y[EMBED];
    int best = 0;
    lesson_linear(context, attended, m->o, NULL, 1, EMBED, EMBED, y);
    for (int i = 0; i < EMBED; i++) y[i] += x[i];
    lesson_linear(context, y, m->scores, NULL, 1, EMBED, WORDS, logits);
    for (int i = 0; i < WORDS; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

static clattn_attention_desc describe(int64_t query_len, int64_t kv_len) {
    clattn_attention_desc desc;
    clattn_attention_desc_init(&desc);
    desc.batch = 1;
    desc.query_heads = HEADS;
    desc.query_len = query_len;
    desc.kv_len = kv_len;
    desc.head_dim = SIZE;
    desc.causal = CLATTN_CAUSAL_BOTTOM_RIGHT;
    return desc;
}

/* Every step attends from all tokens to all tokens before them. */
static void recompute(clattn_context *context, const model *m, int *tokens, float *logits) {
    static float x[LENGTH * EMBED], q[LENGTH * EMBED], k[LENGTH * EMBED], v[LENGTH * EMBED], attended[LENGTH * EMBED];
    for (int n = PROMPT; n < LENGTH; n++) {
        const clattn_attention_desc desc = describe(n, n);
        clattn_attention *plan;
        project(context, m, tokens, 0, n, x, q, k, v);
        const clattn_attention_io io = {
            .query = heads(q, n), .key = heads(k, n), .value = heads(v, n), .output = heads(attended, n)};
        or_die(clattn_attention_create(&plan, context, &desc));
        or_die(clattn_attention_run(plan, &io));
        clattn_attention_destroy(&plan);
        tokens[n] = next(context, m, x + (n - 1) * EMBED, attended + (n - 1) * EMBED, logits + (n - PROMPT) * WORDS);
    }
}

/* The prompt at once, then one token at a time: keys and values of the others lie in the cache. */
static void with_cache(clattn_context *context, const model *m, int *tokens, float *logits) {
    static float x[PROMPT * EMBED], q[PROMPT * EMBED], k[PROMPT * EMBED], v[PROMPT * EMBED], attended[PROMPT * EMBED];
    const clattn_attention_desc attention = describe(PROMPT, LENGTH);
    clattn_kv_cache_desc desc;
    clattn_kv_cache *cache;
    clattn_kv_cache_desc_init(&desc);
    desc.attention = &attention;
    or_die(clattn_kv_cache_create(&cache, context, &desc));
    for (int n = PROMPT, count = PROMPT; n < LENGTH; n++, count = 1) {
        project(context, m, tokens, n - count, count, x, q, k, v);
        const clattn_kv_append_io fresh = {.key = heads(k, count), .value = heads(v, count)};
        const clattn_kv_attend_io ask = {.query = heads(q, count), .output = heads(attended, count)};
        or_die(clattn_kv_cache_append(cache, &fresh));
        or_die(clattn_kv_cache_attend(cache, &ask));
        tokens[n] =
            next(context, m, x + (count - 1) * EMBED, attended + (count - 1) * EMBED, logits + (n - PROMPT) * WORDS);
    }
    clattn_kv_cache_destroy(&cache);
}

static void print_tokens(const char *what, const int *tokens) {
    printf("%-10s", what);
    for (int i = 0; i < LENGTH; i++) printf("%s%d", i == PROMPT ? " | " : " ", tokens[i]);
    putchar('\n');
}

int main(int argc, char **argv) {
    static model m;
    static float anew[STEPS * WORDS], cached[STEPS * WORDS];
    int first[LENGTH] = {3, 14, 15, 9}, second[LENGTH] = {3, 14, 15, 9};
    clattn_context *context = lesson_begin(argc, argv, "lesson 6, part 4: decoding");
    make(context, &m);
    recompute(context, &m, first, anew);
    with_cache(context, &m, second, cached);
    printf("\nprompt of %d tokens, then %d chosen ones\n", PROMPT, STEPS);
    print_tokens("anew", first);
    print_tokens("cached", second);
    lesson_check(memcmp(first, second, sizeof first) == 0, "both ways choose the same tokens");
    lesson_compare("scores of all words at all steps", cached, anew, STEPS * WORDS, 1e-5, 1e-4);
    lesson_heatmap("scores of the words (columns), step after step (rows)", cached, STEPS, WORDS);
    const lesson_heat panel = {"scores of the words", cached, STEPS, WORDS, NULL};
    lesson_heat_picture("lesson6d", 700, 420, &panel, 1, 0, 0, "step", "word");
    return lesson_end(&context);
}
