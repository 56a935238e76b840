/* Lesson 6, part 1: the sinusoidal positional encoding, its picture, and the linear map M_k with PE(p + k) = M_k PE(p).
 * docs/tutorial.md has the text to it. */
#include "lesson.h"

#include <math.h>

enum {
    LENGTH = 64,
    DIM = 32,

    FAR = 6,
    DOT = 40,
    DOT_DIM = 64,
    SHIFTED = 20,
    SHIFTS = 4
};

/* PE of rows 0, 1, 2, ..., or of the given positions. */
static void encode(clattn_context *context, int64_t rows, int64_t dim, const int32_t *positions, float *output) {
    clattn_positions_desc desc;
    clattn_positions_desc_init(&desc);
    desc.batch = 1;
    desc.rows = rows;
    desc.features = dim;
    desc.positions = positions != NULL;
    clattn_layer_io io = {.output = lesson_rows(output, rows, dim)};
    if (positions) io.positions = clattn_host(positions, CLATTN_I32, 1, rows, 0, 0, 0);
    clattn_layer *layer;
    or_die(clattn_positions_create(&layer, context, &desc, NULL));
    or_die(clattn_layer_run(layer, &io));
    clattn_layer_destroy(&layer);
}

static void tables(clattn_context *context, float *encoding) {
    static const int32_t far[FAR] = {0, 1, 511, 1023, 4095, 10000};
    static float distant[FAR * DOT_DIM];
    puts("\nPE[p, 2i] = sin(p / 10000^(2i/E)), PE[p, 2i+1] = cos(the same)");
    encode(context, LENGTH, DIM, NULL, encoding);
    lesson_expect("004_positional_encoding", "encoding", encoding, LENGTH * DIM, 1e-4, 1e-5);
    encode(context, FAR, DOT_DIM, far, distant);
    lesson_expect("004_positional_encoding_far", "encoding", distant, FAR * DOT_DIM, 1e-4, 5e-3);
}

/* A shift by k is one matrix for all positions: each pair (sin, cos) turns by its own angle. */
static void shifts(clattn_context *context) {
    static const int shift[SHIFTS] = {1, 5, -3, 17};
    static const char name[] = "004_positional_shift";
    static float encoding[SHIFTED * DIM], matrices[SHIFTS * DIM * DIM], moved[SHIFTS * SHIFTED * DIM],
        later[SHIFTED * DIM];
    puts("\nPE(p + k) = M_k PE(p) for k = 1, 5, -3, 17");
    encode(context, SHIFTED, DIM, NULL, encoding);
    lesson_expect(name, "encoding", encoding, SHIFTED * DIM, 1e-4, 1e-5);
    for (int i = 0; i < SHIFTS; i++) {
        float *matrix = matrices + i * DIM * DIM;
        or_die(clattn_positions_shift(DIM, 10000, shift[i], matrix));
        lesson_linear(context, encoding, matrix, NULL, SHIFTED, DIM, DIM, moved + i * SHIFTED * DIM);
    }
    lesson_expect(name, "shift_matrix", matrices, SHIFTS * DIM * DIM, 1e-4, 1e-5);
    lesson_expect(name, "shifted", moved, SHIFTS * SHIFTED * DIM, 1e-4, 1e-5);
    for (int i = 0; i < SHIFTS; i++) {
        int32_t positions[SHIFTED];
        char what[64];
        for (int p = 0; p < SHIFTED; p++) positions[p] = p + shift[i];
        encode(context, SHIFTED, DIM, positions, later);
        snprintf(what, sizeof what, "M_%d PE(p) against PE(p%+d)", shift[i], shift[i]);
        lesson_compare(what, moved + i * SHIFTED * DIM, later, SHIFTED * DIM, 0, 1e-5);
    }
}

/* PE(p) . PE(q) depends on the distance alone. */
static void products(clattn_context *context, float *dot) {
    static float encoding[DOT * DOT_DIM];
    puts("\nPE PE^T is constant along its diagonals");
    encode(context, DOT, DOT_DIM, NULL, encoding);
    lesson_linear(context, encoding, encoding, NULL, DOT, DOT_DIM, DOT, dot);
    lesson_expect("004_positional_dot_product", "dot", dot, DOT * DOT, 1e-4, 1e-4);
    double worst = 0;
    for (int i = 1; i < DOT; i++)
        for (int j = 1; j < DOT; j++)
            worst = fmax(worst, fabs((double)(dot[i * DOT + j] - dot[(i - 1) * DOT + j - 1])));
    lesson_check(worst < 1e-4, "greatest difference between neighbours on a diagonal: %.2g", worst);
}

int main(int argc, char **argv) {
    static float encoding[LENGTH * DIM], dot[DOT * DOT];
    clattn_context *context = lesson_begin(argc, argv, "lesson 6, part 1: positions");
    tables(context, encoding);
    shifts(context);
    products(context, dot);
    lesson_heatmap("positions 0 to 15 (rows), 32 features (columns)", encoding, 16, DIM);
    const lesson_heat panels[2] = {{"PE: position by feature", encoding, LENGTH, DIM, "feature"},
                                   {"PE PE^T: position by position", dot, DOT, DOT, NULL}};
    lesson_heat_picture("lesson6a", 900, 460, panels, 2, 0, 0, "position", "position");
    return lesson_end(&context);
}
