/* Lesson 6, part 2: layer normalisation against batch normalisation, and the residual connection around a sublayer.
 * docs/tutorial.md has the text to it. */
#include "lesson.h"

#include <math.h>

enum { BATCH = 4, LENGTH = 6, DIM = 10, TOKENS = BATCH * LENGTH, COUNT = TOKENS * DIM };

/* A normalisation of (batch, length, DIM); residual and sum may be NULL. */
static void norm(clattn_context *context, clattn_norm_kind kind, int64_t batch, int64_t length, const char *name,
                 const float *residual, float *sum, float *output) {
    clattn_norm_desc desc;
    clattn_norm_desc_init(&desc);
    desc.kind = kind;
    desc.batch = batch;
    desc.rows = length;
    desc.features = DIM;
    desc.residual = residual != NULL;
    desc.sum = sum != NULL;
    const clattn_norm_weights weights = {
        .weight = clattn_host(lesson_load(name, "weight", DIM), CLATTN_F32, 1, DIM, 0, 0, 0),
        .bias = clattn_host(lesson_load(name, "bias", DIM), CLATTN_F32, 1, DIM, 0, 0, 0)};
    const float *x = lesson_load(name, "x", batch * length * DIM);
    clattn_layer_io io = {.input = clattn_host(x, CLATTN_F32, 3, batch, length, DIM, 0),
                          .output = clattn_host(output, CLATTN_F32, 3, batch, length, DIM, 0)};
    if (residual) io.residual = clattn_host(residual, CLATTN_F32, 3, batch, length, DIM, 0);
    if (sum) io.sum = clattn_host(sum, CLATTN_F32, 3, batch, length, DIM, 0);
    clattn_layer *layer;
    or_die(clattn_norm_create(&layer, context, &desc, &weights));
    or_die(clattn_layer_run(layer, &io));
    clattn_layer_destroy(&layer);
}

/* Greatest |mean| over groups of `count` numbers, `step` apart, of the normalised x before weight and bias. */
static double greatest_mean(const float *y, const char *name, int groups, int group_step, int count, int step) {
    const float *weight = lesson_load(name, "weight", DIM), *bias = lesson_load(name, "bias", DIM);
    double worst = 0;
    for (int g = 0; g < groups; g++) {
        double sum = 0;
        for (int i = 0; i < count; i++) {
            const int at = g * group_step + i * step;
            sum += ((double)y[at] - (double)bias[at % DIM]) / (double)weight[at % DIM];
        }
        worst = fmax(worst, fabs(sum / count));
    }
    return worst;
}

int main(int argc, char **argv) {
    static const char LAYER[] = "004_layernorm", BATCHED[] = "004_batchnorm", CONSTANT[] = "004_layernorm_constant",
                      RESIDUAL[] = "004_residual_layernorm";
    static float by_token[COUNT], by_feature[COUNT], constant[DIM], sum[COUNT], output[COUNT];
    clattn_context *context = lesson_begin(argc, argv, "lesson 6, part 2: normalisation");

    puts("\nlayer norm: each token over its own features");
    norm(context, CLATTN_NORM_LAYER, BATCH, LENGTH, LAYER, NULL, NULL, by_token);
    lesson_expect(LAYER, "output", by_token, COUNT, 1e-4, 1e-5);
    double mean = greatest_mean(by_token, LAYER, TOKENS, DIM, DIM, 1);
    lesson_check(mean < 1e-5, "each token has mean 0 before weight and bias (%.1g)", mean);

    puts("\nbatch norm: each feature over all tokens of the batch");
    norm(context, CLATTN_NORM_BATCH, BATCH, LENGTH, BATCHED, NULL, NULL, by_feature);
    lesson_expect(BATCHED, "output", by_feature, COUNT, 1e-4, 1e-5);
    mean = greatest_mean(by_feature, BATCHED, DIM, 1, TOKENS, DIM);
    lesson_check(mean < 1e-5, "each feature has mean 0 before weight and bias (%.1g)", mean);
    mean = greatest_mean(by_feature, BATCHED, TOKENS, DIM, DIM, 1);
    lesson_check(mean > 0.1, "its tokens do not (%.2g): they depend on who else is in the batch", mean);

    puts("\na token whose features are all equal has variance 0: eps keeps the division finite");
    norm(context, CLATTN_NORM_LAYER, 1, 1, CONSTANT, NULL, NULL, constant);
    lesson_expect(CONSTANT, "output", constant, DIM, 1e-4, 1e-5);

    puts("\nAdd and Norm: LayerNorm(x + sublayer(x))");
    norm(context, CLATTN_NORM_LAYER, BATCH, LENGTH, RESIDUAL, lesson_load(RESIDUAL, "sublayer", COUNT), sum, output);
    lesson_expect(RESIDUAL, "sum", sum, COUNT, 1e-4, 1e-5);
    lesson_expect(RESIDUAL, "output", output, COUNT, 1e-4, 1e-5);

    const lesson_heat panels[3] = {{"input", lesson_load(LAYER, "x", COUNT), TOKENS, DIM, NULL},
                                   {"layer norm", by_token, TOKENS, DIM, NULL},
                                   {"batch norm", by_feature, TOKENS, DIM, NULL}};
    for (int i = 0; i < 3; i++) lesson_heatmap(panels[i].title, panels[i].values, LENGTH, DIM);
    lesson_heat_picture("lesson6b", 960, 480, panels, 3, -3, 3, "token (6 for each batch entry)", "feature");
    return lesson_end(&context);
}
