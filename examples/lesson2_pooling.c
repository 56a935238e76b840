/* Lesson 2: attention pooling with a Gaussian kernel (Nadaraya 1964, Watson 1964). docs/tutorial.md has the text to it.
 *
 * A table knows the weight of three people by their waist. What does somebody with waist 62 weigh? Attention answers
 * with a mean of the table's values, in which those count most whose key is closest to the query. */
#include "lesson.h"

#include <math.h>
#include <string.h>

enum { KEYS = 3, CURVE = 121, WIDTHS = 3 };

/* Gaussian attention of n queries of `dim` numbers on three keys; width is the standard deviation of the kernel. */
static void pool(clattn_context *context, int n, int dim, float width, const float *query, const float *key,
                 const float *value, float *output, float *weights, float *scores) {
    const float inverse[2] = {1 / width, 1 / width};
    clattn_attention_desc desc;
    clattn_attention_desc_init(&desc);
    desc.batch = desc.query_heads = 1;
    desc.query_len = n;
    desc.kv_len = KEYS;
    desc.head_dim = dim;
    desc.score = CLATTN_SCORE_GAUSSIAN;
    desc.score_weight = 1;
    desc.weights = CLATTN_WEIGHTS_PER_HEAD;
    desc.scores = CLATTN_SCORES_RAW;
    const clattn_attention_io io = {.query = lesson_heads(query, 1, n, dim),
                                    .key = lesson_heads(key, 1, KEYS, dim),
                                    .value = lesson_heads(value, 1, KEYS, dim),
                                    .score_weight = clattn_host(inverse, CLATTN_F32, 1, dim, 0, 0, 0),
                                    .output = lesson_heads(output, 1, n, dim),
                                    .weights = lesson_heads(weights, 1, n, KEYS),
                                    .scores = lesson_heads(scores, 1, n, KEYS)};
    clattn_attention *plan;
    or_die(clattn_attention_create(&plan, context, &desc));
    or_die(clattn_attention_run(plan, &io));
    clattn_attention_destroy(&plan);
}

static const char WAIST[] = "001_gaussian_waist_weight", MANY[] = "001_gaussian_many_waists",
                  MATRIX[] = "001_gaussian_matrix";
static const float keys[KEYS] = {68, 60, 64}, values[KEYS] = {126, 110, 115};

static void one_waist(clattn_context *context) {
    static const char *const labels[KEYS] = {"waist 68", "waist 60", "waist 64"};
    const float query = 62;
    float output, weights[KEYS], scores[KEYS], kernel[KEYS];
    puts("\nwaist 62 among waists 68, 60, 64 with weights 126, 110, 115");
    pool(context, 1, 1, 1, &query, keys, values, &output, weights, scores);
    for (int i = 0; i < KEYS; i++) kernel[i] = expf(scores[i]);
    lesson_expect(WAIST, "scores", scores, KEYS, 1e-5, 0);
    lesson_expect(WAIST, "kernel", kernel, KEYS, 1e-5, 0);
    lesson_expect(WAIST, "attn_weights", weights, KEYS, 1e-5, 0);
    lesson_expect(WAIST, "output", &output, 1, 1e-5, 1e-5);
    lesson_bars("attention weights", labels, weights, KEYS);
}

static void many_waists(clattn_context *context) {
    enum { N = 26 };
    float output[N], weights[N * KEYS], scores[N * KEYS];
    puts("\n26 waists at once");
    pool(context, N, 1, 1, lesson_load(MANY, "query", N), keys, values, output, weights, scores);
    lesson_expect(MANY, "attn_weights", weights, N * KEYS, 1e-4, 1e-6);
    lesson_expect(MANY, "output", output, N, 1e-4, 1e-4);
}

/* Keys and values may be vectors: here waist and another measure, of two people. */
static void matrices(clattn_context *context) {
    float output[4], weights[6], scores[6];
    puts("\nqueries, keys and values of two numbers each");
    pool(context, 2, 2, 1, lesson_load(MATRIX, "query", 4), lesson_load(MATRIX, "key", 6),
         lesson_load(MATRIX, "value", 6), output, weights, scores);
    lesson_expect(MATRIX, "scores", scores, 6, 1e-4, 1e-4);
    lesson_expect(MATRIX, "attn_weights", weights, 6, 1e-4, 1e-6);
    lesson_expect(MATRIX, "output", output, 4, 1e-4, 1e-4);
}

/* A narrow kernel repeats the nearest neighbour, a wide one forgets the query and gives the mean. */
static void widths(clattn_context *context) {
    static const float width[WIDTHS] = {0.5f, 1, 4};
    static float query[CURVE], output[WIDTHS * CURVE], table[CURVE * (WIDTHS + 1)], weights[CURVE * KEYS],
        scores[CURVE * KEYS];
    for (int i = 0; i < CURVE; i++) table[i * (WIDTHS + 1)] = query[i] = 56 + 0.125f * (float)i;
    puts("\nthe same table with kernels of width 0.5, 1 and 4");
    for (int w = 0; w < WIDTHS; w++) {
        pool(context, CURVE, 1, width[w], query, keys, values, output + w * CURVE, weights, scores);
        for (int i = 0; i < CURVE; i++) table[i * (WIDTHS + 1) + w + 1] = output[w * CURVE + i];
    }
    const int at62 = 48, at60 = 32, last = CURVE - 1;
    printf("  waist 62: %.4f, %.4f, %.4f\n", (double)output[at62], (double)output[CURVE + at62],
           (double)output[2 * CURVE + at62]);
    lesson_check(fabsf(output[at60] - 110) < 0.01f, "a narrow kernel gives the value of the key itself");
    lesson_check(output[2 * CURVE + last] < output[CURVE + last], "a wide kernel stays nearer to the mean");
    FILE *gnuplot = lesson_picture("lesson2", 760, 420);
    lesson_block(gnuplot, "curves", table, CURVE, WIDTHS + 1);
    fprintf(gnuplot, "$points << EOD\n68 126\n60 110\n64 115\nEOD\nset grid\nset key left top\nset xlabel 'waist'\n"
                     "set ylabel 'weight'\nset yrange [108:128]\nset xrange [56:71]\n");
    fprintf(gnuplot,
            "plot $curves using 1:2 with lines lw 2 lc rgb '#6aaed6' title 'width 0.5', "
            "$curves using 1:3 with lines lw 2 lc rgb '#08306b' title 'width 1', "
            "$curves using 1:4 with lines lw 2 lc rgb '#d95f0e' title 'width 4', "
            "$points with points pt 7 ps 1.6 lc rgb '#333333' title 'table', "
            "'-' with points pt 2 ps 2 lc rgb '#b10026' title 'waist 62'\n62 %.7g\ne\n",
            (double)output[CURVE + at62]);
    lesson_picture_end(gnuplot);
}

int main(int argc, char **argv) {
    clattn_context *context = lesson_begin(argc, argv, "lesson 2: attention pooling");
    one_waist(context);
    many_waists(context);
    matrices(context);
    widths(context);
    return lesson_end(&context);
}
