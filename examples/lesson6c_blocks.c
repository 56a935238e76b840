/* Lesson 6, part 3: an encoder block from its parts and as one plan, and a decoder block with masked self-attention and
 * cross-attention. docs/tutorial.md has the text to it. */
#include "lesson.h"

#include <math.h>

enum {
    BATCH = 2,
    LENGTH = 10,
    TARGET = 7,
    MEMORY = 11,
    EMBED = 32,
    HEADS = 4,
    HIDDEN = 64,
    COUNT = BATCH * LENGTH * EMBED
};

static const char ENCODER[] = "004_encoder_block", DECODER[] = "004_decoder_block";

static clattn_tensor tokens(const float *values, int64_t length) {
    return clattn_host(values, CLATTN_F32, 3, BATCH, length, EMBED, 0);
}

static clattn_tensor matrix(const char *name, const char *role, int64_t rows, int64_t columns) {
    return clattn_host(lesson_load(name, role, rows * columns), CLATTN_F32, 2, rows, columns, 0, 0);
}

static clattn_tensor vector(const char *name, const char *role, int64_t count) {
    return clattn_host(lesson_load(name, role, count), CLATTN_F32, 1, count, 0, 0, 0);
}

/* The weights under PyTorch's names; an encoder's second norm is a decoder's third. */
static clattn_block_weights load_block(const char *name, int decoder) {
    clattn_block_weights w = {
        .self_attention = {.in_proj_weight = matrix(name, "self_attn_in_proj_weight", (int64_t)3 * EMBED, EMBED),
                           .in_proj_bias = vector(name, "self_attn_in_proj_bias", (int64_t)3 * EMBED),
                           .out_proj_weight = matrix(name, "self_attn_out_proj_weight", EMBED, EMBED),
                           .out_proj_bias = vector(name, "self_attn_out_proj_bias", EMBED)},
        .self_norm = {.weight = vector(name, "norm1_weight", EMBED), .bias = vector(name, "norm1_bias", EMBED)},
        .expand = {.weight = matrix(name, "linear1_weight", HIDDEN, EMBED),
                   .bias = vector(name, "linear1_bias", HIDDEN)},
        .contract = {.weight = matrix(name, "linear2_weight", EMBED, HIDDEN),
                     .bias = vector(name, "linear2_bias", EMBED)},
        .feed_forward_norm = {.weight = vector(name, decoder ? "norm3_weight" : "norm2_weight", EMBED),
                              .bias = vector(name, decoder ? "norm3_bias" : "norm2_bias", EMBED)}};
    if (!decoder) return w;
    w.cross_attention =
        (clattn_mha_weights){.in_proj_weight = matrix(name, "multihead_attn_in_proj_weight", (int64_t)3 * EMBED, EMBED),
                             .in_proj_bias = vector(name, "multihead_attn_in_proj_bias", (int64_t)3 * EMBED),
                             .out_proj_weight = matrix(name, "multihead_attn_out_proj_weight", EMBED, EMBED),
                             .out_proj_bias = vector(name, "multihead_attn_out_proj_bias", EMBED)};
    w.cross_norm =
        (clattn_norm_weights){.weight = vector(name, "norm2_weight", EMBED), .bias = vector(name, "norm2_bias", EMBED)};
    return w;
}

/* LayerNorm(x + sublayer) */
static void add_and_norm(clattn_context *context, const float *x, const float *sublayer, const clattn_norm_weights *w,
                         float *y) {
    clattn_norm_desc desc;
    clattn_norm_desc_init(&desc);
    desc.batch = BATCH;
    desc.rows = LENGTH;
    desc.features = EMBED;
    desc.residual = 1;
    const clattn_layer_io io = {
        .input = tokens(x, LENGTH), .residual = tokens(sublayer, LENGTH), .output = tokens(y, LENGTH)};
    clattn_layer *layer;
    or_die(clattn_norm_create(&layer, context, &desc, w));
    or_die(clattn_layer_run(layer, &io));
    clattn_layer_destroy(&layer);
}

static void encoder_from_parts(clattn_context *context, const clattn_block_weights *w) {
    static float attended[COUNT], after[COUNT], hidden[BATCH * LENGTH * HIDDEN], fed[COUNT], output[COUNT];
    const float *x = lesson_load(ENCODER, "x", COUNT);
    clattn_mha_desc desc;
    clattn_mha_desc_init(&desc);
    desc.batch = BATCH;
    desc.query_len = LENGTH;
    desc.embed_dim = EMBED;
    desc.heads = HEADS;
    const clattn_mha_io io = {.query = tokens(x, LENGTH), .output = tokens(attended, LENGTH)};
    clattn_mha *mha;
    or_die(clattn_mha_create(&mha, context, &desc, &w->self_attention));
    or_die(clattn_mha_run(mha, &io));
    clattn_mha_destroy(&mha);
    add_and_norm(context, x, attended, &w->self_norm, after);
    lesson_linear(context, after, w->expand.weight.data, w->expand.bias.data, BATCH * LENGTH, EMBED, HIDDEN, hidden);
    for (int i = 0; i < BATCH * LENGTH * HIDDEN; i++) hidden[i] = fmaxf(hidden[i], 0); /* ReLU */
    lesson_linear(context, hidden, w->contract.weight.data, w->contract.bias.data, BATCH * LENGTH, HIDDEN, EMBED, fed);
    add_and_norm(context, after, fed, &w->feed_forward_norm, output);
    puts("\nan encoder block from its parts");
    lesson_expect(ENCODER, "self_attention", attended, COUNT, 1e-4, 1e-5);
    lesson_expect(ENCODER, "after_attention", after, COUNT, 1e-4, 1e-5);
    lesson_expect(ENCODER, "feed_forward_output", fed, COUNT, 1e-4, 1e-5);
    lesson_expect(ENCODER, "output", output, COUNT, 1e-4, 1e-5);
}

/* One block as a stack of one. */
static void block(clattn_context *context, const clattn_block_weights *w, int decoder, const float *x, float *output) {
    clattn_stack_desc desc;
    clattn_stack_desc_init(&desc);
    desc.batch = BATCH;
    desc.rows = decoder ? TARGET : LENGTH;
    desc.features = EMBED;
    desc.heads = HEADS;
    desc.feed_forward = HIDDEN;
    desc.activation = CLATTN_ACTIVATION_RELU;
    desc.encoder_blocks = !decoder;
    desc.decoder_blocks = decoder;
    desc.memory_rows = decoder ? MEMORY : 0;
    if (decoder) desc.causal = CLATTN_CAUSAL_TOP_LEFT;
    const clattn_stack_weights weights = {.encoder = w, .decoder = w};
    clattn_layer_io io = {.input = tokens(x, desc.rows), .output = tokens(output, desc.rows)};
    if (decoder) io.memory = tokens(lesson_load(DECODER, "memory", BATCH * MEMORY * EMBED), MEMORY);
    clattn_layer *layer;
    or_die(clattn_stack_create(&layer, context, &desc, &weights));
    or_die(clattn_layer_run(layer, &io));
    clattn_layer_destroy(&layer);
}

int main(int argc, char **argv) {
    static float output[COUNT], changed[COUNT], difference[COUNT], x[BATCH * TARGET * EMBED];
    clattn_context *context = lesson_begin(argc, argv, "lesson 6, part 3: blocks");
    const clattn_block_weights encoder = load_block(ENCODER, 0), decoder = load_block(DECODER, 1);
    encoder_from_parts(context, &encoder);
    puts("\nthe same as one plan");
    block(context, &encoder, 0, lesson_load(ENCODER, "x", COUNT), output);
    lesson_expect(ENCODER, "output", output, COUNT, 1e-4, 1e-5);

    puts("\na decoder block: masked self-attention, attention to the encoder's result, feed-forward");
    const float *given = lesson_load(DECODER, "x", BATCH * TARGET * EMBED);
    block(context, &decoder, 1, given, output);
    lesson_expect(DECODER, "output", output, BATCH * TARGET * EMBED, 1e-4, 1e-5);
    for (int i = 0; i < BATCH * TARGET * EMBED; i++) x[i] = given[i] + (i / EMBED % TARGET == TARGET - 1 ? 1.0f : 0);
    block(context, &decoder, 1, x, changed);
    lesson_compare("another last token leaves the tokens before it alone", changed, output, (TARGET - 1) * EMBED, 0, 0);
    for (int i = 0; i < TARGET * EMBED; i++) difference[i] = changed[i] - output[i];
    const lesson_heat panels[3] = {{"input", given, TARGET, EMBED, NULL},
                                   {"output", output, TARGET, EMBED, NULL},
                                   {"change after another last token", difference, TARGET, EMBED, NULL}};
    for (int i = 0; i < 3; i++) lesson_heatmap(panels[i].title, panels[i].values, TARGET, EMBED);
    lesson_heat_picture("lesson6c", 1400, 220, panels, 3, -3, 3, "token", "feature");
    return lesson_end(&context);
}
