/* Lesson 4: multi-head attention from its parts: project, split into heads, attend, concatenate, project again; the
 * same by the layer of the library; and one head against four. docs/tutorial.md has the text to it. */
#include "lesson.h"

#include <math.h>

enum { BATCH = 3, LENGTH = 10, EMBED = 32, HEADS = 4, SIZE = EMBED / HEADS, TOKENS = BATCH * LENGTH };

/* (BATCH, LENGTH, EMBED) seen as (BATCH, HEADS, LENGTH, SIZE): head h is columns h * SIZE to (h + 1) * SIZE of each
 * token. Splitting and concatenating are nothing but strides. */
static clattn_tensor split(const float *tokens) {
    clattn_tensor view = clattn_host(tokens, CLATTN_F32, 4, BATCH, HEADS, LENGTH, SIZE);
    view.stride[0] = (int64_t)LENGTH * EMBED;
    view.stride[1] = SIZE;
    view.stride[2] = EMBED;
    view.stride[3] = 1;
    return view;
}

/* attend: NULL, or which keys there are, (BATCH, LENGTH). */
static void from_parts(clattn_context *context, const char *name, const unsigned char *attend, float *weights) {
    static float q[TOKENS * EMBED], k[TOKENS * EMBED], v[TOKENS * EMBED], joined[TOKENS * EMBED],
        output[TOKENS * EMBED];
    const float *x = lesson_load(name, "query", TOKENS * EMBED);
    lesson_linear(context, x, lesson_load(name, "q_proj_weight", EMBED * EMBED), NULL, TOKENS, EMBED, EMBED, q);
    lesson_linear(context, x, lesson_load(name, "k_proj_weight", EMBED * EMBED), NULL, TOKENS, EMBED, EMBED, k);
    lesson_linear(context, x, lesson_load(name, "v_proj_weight", EMBED * EMBED), NULL, TOKENS, EMBED, EMBED, v);
    clattn_attention_desc desc;
    clattn_attention_desc_init(&desc);
    desc.batch = BATCH;
    desc.query_heads = HEADS;
    desc.query_len = desc.kv_len = LENGTH;
    desc.head_dim = SIZE;
    desc.weights = CLATTN_WEIGHTS_PER_HEAD;
    desc.padding_mask = attend != NULL;
    clattn_attention_io io = {.query = split(q),
                              .key = split(k),
                              .value = split(v),
                              .output = split(joined),
                              .weights = clattn_host(weights, CLATTN_F32, 4, BATCH, HEADS, LENGTH, LENGTH)};
    if (attend) io.padding_mask = clattn_host(attend, CLATTN_BOOL, 2, BATCH, LENGTH, 0, 0);
    clattn_attention *plan;
    or_die(clattn_attention_create(&plan, context, &desc));
    or_die(clattn_attention_run(plan, &io));
    clattn_attention_destroy(&plan);
    lesson_linear(context, joined, lesson_load(name, "out_proj_weight", EMBED * EMBED),
                  lesson_load(name, "out_proj_bias", EMBED), TOKENS, EMBED, EMBED, output);
    printf("\n%s, from its parts\n", name);
    lesson_expect(name, "output", output, TOKENS * EMBED, 1e-4, 1e-5);
    lesson_expect(name, "attn_weights", weights, BATCH * HEADS * LENGTH * LENGTH, 1e-4, 5e-6);
}

static clattn_tensor square(const char *name, const char *role) {
    return clattn_host(lesson_load(name, role, EMBED * EMBED), CLATTN_F32, 2, EMBED, EMBED, 0, 0);
}

/* The same layer as one plan, with any number of heads. */
static void layer(clattn_context *context, const char *name, int heads, float *output, float *weights) {
    clattn_mha_desc desc;
    clattn_mha_desc_init(&desc);
    desc.batch = BATCH;
    desc.query_len = LENGTH;
    desc.embed_dim = EMBED;
    desc.heads = heads;
    desc.weights = CLATTN_WEIGHTS_PER_HEAD;
    const clattn_mha_weights parameters = {
        .q_proj_weight = square(name, "q_proj_weight"),
        .k_proj_weight = square(name, "k_proj_weight"),
        .v_proj_weight = square(name, "v_proj_weight"),
        .out_proj_weight = square(name, "out_proj_weight"),
        .out_proj_bias = clattn_host(lesson_load(name, "out_proj_bias", EMBED), CLATTN_F32, 1, EMBED, 0, 0, 0)};
    const clattn_mha_io io = {
        .query = clattn_host(lesson_load(name, "query", TOKENS * EMBED), CLATTN_F32, 3, BATCH, LENGTH, EMBED, 0),
        .output = clattn_host(output, CLATTN_F32, 3, BATCH, LENGTH, EMBED, 0),
        .weights = clattn_host(weights, CLATTN_F32, 4, BATCH, heads, LENGTH, LENGTH)};
    clattn_mha *mha;
    or_die(clattn_mha_create(&mha, context, &desc, &parameters));
    or_die(clattn_mha_run(mha, &io));
    clattn_mha_destroy(&mha);
}

static void draw(const float *one, const float *four) {
    static const char *const titles[4] = {"head 0 of 4", "head 1 of 4", "head 2 of 4", "head 3 of 4"};
    lesson_heat panels[5] = {{"one head", one, LENGTH, LENGTH, NULL}};
    for (int h = 0; h < HEADS; h++)
        panels[h + 1] = (lesson_heat){titles[h], four + h * LENGTH * LENGTH, LENGTH, LENGTH, NULL};
    for (int i = 0; i < 2; i++) lesson_heatmap(panels[i].title, panels[i].values, LENGTH, LENGTH);
    lesson_heat_picture("lesson4", 1500, 300, panels, 5, 0, 0, "query", "key");
}

int main(int argc, char **argv) {
    static const char plain[] = "002_multi_head_class", padded[] = "002_multi_head_class_padding";
    static float four[BATCH * HEADS * LENGTH * LENGTH], again[BATCH * HEADS * LENGTH * LENGTH],
        one[BATCH * LENGTH * LENGTH], output[TOKENS * EMBED], single[TOKENS * EMBED];
    clattn_context *context = lesson_begin(argc, argv, "lesson 4: multi-head attention");
    from_parts(context, plain, NULL, four);
    unsigned char attend[BATCH * LENGTH];
    const unsigned char *masked = lesson_load_bool(padded, "key_padding_mask", BATCH * LENGTH);
    for (int i = 0; i < BATCH * LENGTH; i++) attend[i] = !masked[i]; /* PyTorch marks what to ignore */
    from_parts(context, padded, attend, again);

    puts("\nthe same by the layer");
    layer(context, plain, HEADS, output, again);
    lesson_expect(plain, "output", output, TOKENS * EMBED, 1e-4, 1e-5);
    lesson_compare("attention weights", again, four, BATCH * HEADS * LENGTH * LENGTH, 0, 1e-6);

    puts("\none head of size 32 against four of size 8, with the same weights");
    layer(context, plain, 1, single, one);
    double difference = 0;
    for (int i = 0; i < TOKENS * EMBED; i++) difference = fmax(difference, fabs((double)(single[i] - output[i])));
    printf("  greatest difference of the outputs: %.3g\n", difference);
    lesson_check(difference > 1e-3, "they are two different functions");
    draw(one, four);
    return lesson_end(&context);
}
