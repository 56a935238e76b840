/* Lesson 5, demos 3 and 4: softmax with temperature, and what dividing by sqrt(d_k) does for the gradient of the loss.
 * docs/tutorial.md has the text to it. */
#include "lesson.h"

#include <math.h>

enum { SCORES = 3, TEMPERATURES = 3, CLASSES = 100, LABEL = 3, CURVE = 60 };

static const char HOT[] = "003_3_temperature", LOSS[] = "003_4_softmax_sqrt_dk_gradient";

/* Three scores at low, middle and high temperature; then a whole range of temperatures for the picture. */
static void temperature(clattn_context *context, float *curve) {
    static const char *const labels[SCORES] = {"score 0", "score 1", "score 2"};
    const float *x = lesson_load(HOT, "x", SCORES), *t = lesson_load(HOT, "temperature", TEMPERATURES);
    float output[TEMPERATURES * SCORES];
    puts("\ndemo 3: softmax with temperature");
    for (int i = 0; i < TEMPERATURES; i++) {
        char title[64];
        lesson_softmax(context, x, 1, SCORES, 1, t[i], output + i * SCORES);
        snprintf(title, sizeof title, "temperature %g", (double)t[i]);
        lesson_bars(title, labels, output + i * SCORES, SCORES);
    }
    lesson_expect(HOT, "output", output, TEMPERATURES * SCORES, 1e-5, 1e-6);
    for (int i = 0; i < CURVE; i++) {
        curve[i * (SCORES + 1)] = powf(10, -1 + 3 * (float)i / (CURVE - 1));
        lesson_softmax(context, x, 1, SCORES, 1, curve[i * (SCORES + 1)], curve + i * (SCORES + 1) + 1);
    }
}

typedef struct roles {
    const char *x, *probability, *most, *least, *loss, *gradient;
} roles;

/* Cross entropy of one row with the right class LABEL. */
static void loss_of(clattn_context *context, const roles *r, float *p, float *gradient) {
    const int32_t label = LABEL;
    float loss, most = 0, least = 1;
    clattn_softmax_desc desc;
    clattn_softmax_desc_init(&desc);
    desc.kind = CLATTN_SOFTMAX_CROSS_ENTROPY;
    desc.rank = 1;
    desc.shape[0] = CLASSES;
    desc.probability = desc.gradient = 1;
    const clattn_softmax_io io = {.x = clattn_host(lesson_load(LOSS, r->x, CLASSES), CLATTN_F32, 1, CLASSES, 0, 0, 0),
                                  .labels = clattn_host(&label, CLATTN_I32, 1, 1, 0, 0, 0),
                                  .probability = clattn_host(p, CLATTN_F32, 1, CLASSES, 0, 0, 0),
                                  .loss = clattn_host(&loss, CLATTN_F32, 1, 1, 0, 0, 0),
                                  .grad_x = clattn_host(gradient, CLATTN_F32, 1, CLASSES, 0, 0, 0)};
    clattn_softmax *plan;
    or_die(clattn_softmax_create(&plan, context, &desc));
    or_die(clattn_softmax_run(plan, &io));
    clattn_softmax_destroy(&plan);
    for (int i = 0; i < CLASSES; i++) {
        most = fmaxf(most, p[i]);
        least = fminf(least, p[i]);
    }
    lesson_expect(LOSS, r->probability, p, CLASSES, 1e-4, 0);
    lesson_expect(LOSS, r->most, &most, 1, 1e-4, 0);
    lesson_expect(LOSS, r->least, &least, 1, 1e-4, 0);
    lesson_expect(LOSS, r->loss, &loss, 1, 1e-4, 0);
    lesson_expect(LOSS, r->gradient, gradient, CLASSES, 1e-4, 1e-7);
}

/* How many classes get a gradient worth mentioning. */
static int alive(const float *gradient) {
    int count = 0;
    for (int i = 0; i < CLASSES; i++) count += fabsf(gradient[i]) > 1e-3f;
    return count;
}

static void draw(const float *curve, float panels[4][CLASSES]) {
    static const char *const names[4] = {"p", "pd", "g", "gd"};
    FILE *gnuplot = lesson_picture("lesson5b", 1000, 360);
    lesson_block(gnuplot, "curve", curve, CURVE, SCORES + 1);
    for (int i = 0; i < 4; i++) lesson_block(gnuplot, names[i], panels[i], CLASSES, 1);
    fprintf(gnuplot, "set multiplot layout 1,3\nset grid ytics\nset logscale x\nset key right top samplen 1\n");
    fprintf(gnuplot, "set title 'softmax with temperature'\nset xlabel 'temperature'\nset yrange [0:1]\nplot ");
    for (int i = 0; i < SCORES; i++)
        fprintf(gnuplot, "$curve using 1:%d with lines lw 2 title 'score %d'%s", i + 2, i,
                i + 1 < SCORES ? ", " : "\n");
    fprintf(
        gnuplot,
        "unset logscale x\nset xtics 25\nset key right top samplen 1\nset xlabel 'class'\nset title 'probability'\n");
    fprintf(gnuplot, "plot $p with impulses lw 3 lc rgb '#6aaed6' title 'x', "
                     "$pd with impulses lw 2 lc rgb '#d95f0e' title 'x / 10'\n");
    fprintf(gnuplot,
            "set yrange [1e-10:100]\nset logscale y\nset format y '%%.0e'\nset title '|gradient of the loss|'\n");
    fprintf(gnuplot, "plot $g using 0:(abs($1)) with points pt 7 ps 0.6 lc rgb '#6aaed6' title 'x', "
                     "$gd using 0:(abs($1)) with points pt 7 ps 0.6 lc rgb '#d95f0e' title 'x / 10'\n");
    fprintf(gnuplot, "unset multiplot\n");
    lesson_picture_end(gnuplot);
}

int main(int argc, char **argv) {
    static const roles plain = {"x", "probability", "max_probability", "min_probability", "loss", "grad_x"},
                       divided = {
                           "x_divided",    "probability_divided", "max_probability_divided", "min_probability_divided",
                           "loss_divided", "grad_x_divided"};
    static float curve[CURVE * (SCORES + 1)], panels[4][CLASSES];
    clattn_context *context = lesson_begin(argc, argv, "lesson 5, demos 3 and 4: softmax");
    temperature(context, curve);
    puts("\ndemo 4: 100 scores of variance 100, as they are");
    loss_of(context, &plain, panels[0], panels[2]);
    puts("\ndemo 4: the same divided by sqrt(100)");
    loss_of(context, &divided, panels[1], panels[3]);
    const int few = alive(panels[2]), many = alive(panels[3]);
    printf("  classes with a gradient above 0.001: %d before, %d after the division\n", few, many);
    lesson_check(many > 5 * few, "the division keeps the gradient alive");
    draw(curve, panels);
    return lesson_end(&context);
}
