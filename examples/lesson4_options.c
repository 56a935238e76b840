/* Lesson 4, second part: every option of torch.nn.MultiheadAttention on one layer: 32 features, 4 heads, 10 tokens,
 * batch of 3. The first run is the tutorial's own; the others are compared with the library's scalar reference, which
 * computes the same formulas in double. docs/tutorial.md has the text to it. */
#include "lesson.h"

#include <math.h>

enum { BATCH = 3, LENGTH = 10, EMBED = 32, HEADS = 4, KDIM = 20, VDIM = 24, KEYS = LENGTH + 2 };

static const char DEMO[] = "002_multihead_attention_demo";

/* (LENGTH, BATCH, n), as PyTorch has it without batch_first, seen as (BATCH, LENGTH, n). */
static clattn_tensor sequence_first(const float *values, int64_t n) {
    clattn_tensor view = clattn_host(values, CLATTN_F32, 3, BATCH, LENGTH, n, 0);
    view.stride[0] = n;
    view.stride[1] = BATCH * n;
    view.stride[2] = 1;
    return view;
}

static clattn_tensor matrix(const float *values, int64_t rows, int64_t columns) {
    return clattn_host(values, CLATTN_F32, 2, rows, columns, 0, 0);
}

static clattn_tensor vector(const float *values, int64_t count) {
    return clattn_host(values, CLATTN_F32, 1, count, 0, 0, 0);
}

static clattn_mha_weights demo_weights(void) {
    return (clattn_mha_weights){
        .in_proj_weight = matrix(lesson_load(DEMO, "in_proj_weight", 3 * EMBED * EMBED), (int64_t)3 * EMBED, EMBED),
        .in_proj_bias = vector(lesson_load(DEMO, "in_proj_bias", 3 * EMBED), 3 * EMBED),
        .out_proj_weight = matrix(lesson_load(DEMO, "out_proj_weight", EMBED * EMBED), EMBED, EMBED),
        .out_proj_bias = vector(lesson_load(DEMO, "out_proj_bias", EMBED), EMBED)};
}

static clattn_mha_desc demo_desc(void) {
    clattn_mha_desc desc;
    clattn_mha_desc_init(&desc);
    desc.batch = BATCH;
    desc.query_len = desc.kv_len = LENGTH;
    desc.embed_dim = EMBED;
    desc.heads = HEADS;
    desc.inputs = CLATTN_MHA_SEPARATE;
    desc.weights = CLATTN_WEIGHTS_AVERAGED;
    return desc;
}

static void run(clattn_context *context, const clattn_mha_desc *desc, const clattn_mha_weights *weights,
                const clattn_mha_io *io) {
    clattn_mha *mha;
    or_die(clattn_mha_create(&mha, context, desc, weights));
    or_die(clattn_mha_run(mha, io));
    clattn_mha_destroy(&mha);
}

static clattn_mha_io demo_io(void) {
    return (clattn_mha_io){.query = sequence_first(lesson_load(DEMO, "query", LENGTH * BATCH * EMBED), EMBED),
                           .key = sequence_first(lesson_load(DEMO, "key", LENGTH * BATCH * EMBED), EMBED),
                           .value = sequence_first(lesson_load(DEMO, "value", LENGTH * BATCH * EMBED), EMBED)};
}

static void demo(clattn_context *context) {
    static float output[LENGTH * BATCH * EMBED], averaged[BATCH * LENGTH * LENGTH];
    const clattn_mha_desc desc = demo_desc();
    const clattn_mha_weights weights = demo_weights();
    clattn_mha_io io = demo_io();
    io.output = sequence_first(output, EMBED);
    io.weights = clattn_host(averaged, CLATTN_F32, 3, BATCH, LENGTH, LENGTH, 0);
    run(context, &desc, &weights, &io);
    puts("\nnn.MultiheadAttention(32, 4), length first, weights averaged over the heads");
    lesson_expect(DEMO, "output", output, LENGTH * BATCH * EMBED, 1e-4, 1e-5);
    lesson_expect(DEMO, "attn_weights", averaged, BATCH * LENGTH * LENGTH, 1e-4, 5e-6);
    const lesson_heat panel = {"mean over the heads", averaged, LENGTH, LENGTH, NULL};
    lesson_heatmap("batch entry 0: mean over the heads", averaged, LENGTH, LENGTH);
    lesson_heat_picture("lesson4_options", 340, 320, &panel, 1, 0, 0, "query", "key");
}

typedef struct option {
    const char *name;
    int causal, padding, mask, bias_kv, zero_attn, other_sizes, no_bias, per_head;
} option;

/* Runs the option on the device and in the reference, which also says how far a float32 device may be off. */
static void try_option(clattn_context *context, const option *o) {
    static float more[6][EMBED * EMBED], output[BATCH * LENGTH * EMBED], want[BATCH * LENGTH * EMBED],
        tolerance[BATCH * LENGTH * EMBED], weights[BATCH * HEADS * LENGTH * KEYS], mask[LENGTH * LENGTH];
    const clattn_tensor none = {0};
    unsigned char attend[BATCH * LENGTH];
    clattn_mha_desc desc = demo_desc();
    clattn_mha_weights w = demo_weights();
    clattn_mha_io io = demo_io();
    lesson_seed(4);
    for (int i = 0; i < 6; i++) lesson_normal(more[i], EMBED * EMBED);
    for (int i = 0; i < BATCH * LENGTH; i++) attend[i] = i % LENGTH < LENGTH - 2 * (i / LENGTH);
    for (int i = 0; i < LENGTH * LENGTH; i++) mask[i] = -0.25f * fabsf((float)(i % LENGTH - i / LENGTH));
    if (o->causal) desc.causal = CLATTN_CAUSAL_TOP_LEFT; /* is_causal */
    if (o->padding) desc.padding_mask = 1;               /* key_padding_mask, turned round: 1 is a key to attend to */
    if (o->padding) io.padding_mask = clattn_host(attend, CLATTN_BOOL, 2, BATCH, LENGTH, 0, 0);
    if (o->mask) desc.mask = CLATTN_MASK_FLOAT; /* attn_mask */
    if (o->mask) io.mask = clattn_host(mask, CLATTN_F32, 4, 1, 1, LENGTH, LENGTH);
    if (o->bias_kv) w.bias_k = vector(more[0], EMBED), w.bias_v = vector(more[1], EMBED); /* add_bias_kv */
    desc.add_zero_attn = o->zero_attn;
    if (o->no_bias) w.in_proj_bias = w.out_proj_bias = none;
    if (o->other_sizes) { /* kdim, vdim */
        desc.key_dim = KDIM, desc.value_dim = VDIM;
        w.in_proj_weight = none;
        w.q_proj_weight = matrix(more[2], EMBED, EMBED);
        w.k_proj_weight = matrix(more[3], EMBED, KDIM);
        w.v_proj_weight = matrix(more[4], EMBED, VDIM);
        io.key = sequence_first(more[5], KDIM);
        io.value = sequence_first(more[5], VDIM);
    }
    desc.weights = o->per_head ? CLATTN_WEIGHTS_PER_HEAD : CLATTN_WEIGHTS_NONE; /* average_attn_weights, need_weights */
    if (o->per_head) io.weights = clattn_host(weights, CLATTN_F32, 4, BATCH, HEADS, LENGTH, LENGTH);
    io.output = clattn_host(want, CLATTN_F32, 3, BATCH, LENGTH, EMBED, 0);
    or_die(clattn_reference_mha(&desc, &w, &io, tolerance));
    io.output = clattn_host(output, CLATTN_F32, 3, BATCH, LENGTH, EMBED, 0);
    run(context, &desc, &w, &io);
    double worst = 0;
    int right = 1;
    for (int i = 0; i < BATCH * LENGTH * EMBED; i++) {
        worst = fmax(worst, fabs((double)(output[i] - want[i])));
        right = right && fabsf(output[i] - want[i]) <= tolerance[i];
    }
    lesson_check(right, "%-42s greatest difference to the reference %.2g", o->name, worst);
}

int main(int argc, char **argv) {
    static const option options[] = {{.name = "is_causal", .causal = 1},
                                     {.name = "key_padding_mask", .padding = 1},
                                     {.name = "attn_mask (float)", .mask = 1},
                                     {.name = "add_bias_kv", .bias_kv = 1},
                                     {.name = "add_zero_attn", .zero_attn = 1},
                                     {.name = "kdim=20, vdim=24", .other_sizes = 1},
                                     {.name = "bias=False", .no_bias = 1},
                                     {.name = "average_attn_weights=False", .per_head = 1},
                                     {.name = "all masks, bias_kv and zero_attn together",
                                      .causal = 1,
                                      .padding = 1,
                                      .mask = 1,
                                      .bias_kv = 1,
                                      .zero_attn = 1}};
    clattn_context *context = lesson_begin(argc, argv, "lesson 4: the options of the layer");
    demo(context);
    puts("\none option after the other");
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) try_option(context, &options[i]);
    return lesson_end(&context);
}
