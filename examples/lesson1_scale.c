/* Lesson 1: why attention divides by the square root of d_k. docs/tutorial.md has the text to it.
 *
 * q and k hold independent numbers of mean 0 and variance 1. q.k is a sum of d_k products, each of mean 0 and variance
 * 1, so its variance is d_k; that of q.k / sqrt(d_k) is 1 again. */
#include "lesson.h"

#include <math.h>
#include <stdlib.h>

enum { LENGTH = 10000, DIM = 100, CHUNK = 500, BINS = 160, SMALL = 200 };

typedef struct moments {
    double count, sum, squares; /* the mean is near 0: no need to subtract it first */
} moments;

static void add(moments *m, const float *values, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        const double v = (double)values[i];
        m->sum += v;
        m->squares += v * v;
    }
    m->count += (double)count;
}

static double mean(const moments *m) { return m->sum / m->count; }

static double variance(const moments *m) { return (m->squares - m->sum * m->sum / m->count) / (m->count - 1); }

/* Everything that is known of queries, keys and their products, beside the expected numbers. */
static void compare(const char *name, const moments *query, const moments *key, const moments *qk) {
    const struct {
        const char *role;
        double got;
    } rows[] = {{"query_mean", mean(query)},
                {"query_std", sqrt(variance(query))},
                {"key_mean", mean(key)},
                {"key_std", sqrt(variance(key))},
                {"qk_mean", mean(qk)},
                {"qk_var", variance(qk)},
                {"qk_std", sqrt(variance(qk))},
                {"qk_scaled_mean", mean(qk) / sqrt(DIM)},
                {"qk_scaled_var", variance(qk) / DIM},
                {"qk_scaled_std", sqrt(variance(qk) / DIM)}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const float value = (float)rows[i].got;
        lesson_expect(name, rows[i].role, &value, 1, 1e-3, 1e-3);
    }
}

/* 200 queries and keys from a file; every score is compared. */
static void small_case(clattn_context *context) {
    static const char name[] = "000_sqrt_dk_statistics_small";
    const float *query = lesson_load(name, "query", SMALL * DIM);
    const float *key = lesson_load(name, "key", DIM * SMALL); /* (d_k, length): K^T */
    static float scores[SMALL * SMALL];
    moments of_query = {0}, of_key = {0}, qk = {0};
    lesson_project(context, query, key, SMALL, DIM, SMALL, scores);
    add(&of_query, query, SMALL * DIM);
    add(&of_key, key, SMALL * DIM);
    add(&qk, scores, SMALL * SMALL);
    puts("\n200 queries and 200 keys of a file");
    compare(name, &of_query, &of_key, &qk);
    for (int i = 0; i < SMALL * SMALL; i++) scores[i] /= sqrtf(DIM);
    lesson_expect(name, "qk_scaled", scores, SMALL * SMALL, 1e-3, 1e-3);
}

/* All 10000 x 10000 scores, a strip of queries at a time; the first query's scores stay in *row. */
static void large_case(clattn_context *context, float *row, float *before, float *after) {
    float *query = malloc(sizeof(float) * LENGTH * DIM), *key = malloc(sizeof(float) * LENGTH * DIM);
    float *scores = malloc(sizeof(float) * CHUNK * LENGTH);
    moments of_query = {0}, of_key = {0}, qk = {0};
    if (!query || !key || !scores) exit(1);
    lesson_seed(0);
    lesson_normal(query, LENGTH * DIM); /* (length, d_k) */
    lesson_normal(key, LENGTH * DIM);   /* (d_k, length) */
    add(&of_query, query, LENGTH * DIM);
    add(&of_key, key, LENGTH * DIM);
    for (int first = 0; first < LENGTH; first += CHUNK) {
        lesson_project(context, query + first * DIM, key, CHUNK, DIM, LENGTH, scores);
        add(&qk, scores, CHUNK * LENGTH);
        if (first > 0) continue;
        for (int i = 0; i < LENGTH; i++) row[i] = scores[i];
        lesson_count(scores, CHUNK * LENGTH, -40, 40, BINS, before);
        for (int i = 0; i < CHUNK * LENGTH; i++) scores[i] /= sqrtf(DIM);
        lesson_count(scores, CHUNK * LENGTH, -40, 40, BINS, after);
    }
    printf("\n%d queries and keys of dimension %d: %.0f scores\n", LENGTH, DIM, qk.count);
    compare("000_sqrt_dk_statistics", &of_query, &of_key, &qk);
    lesson_check(fabs(variance(&qk) / DIM - 1) < 0.02, "the variance of q.k is d_k within 2 %%");
    free(query);
    free(key);
    free(scores);
}

/* What one row of 100 scores becomes, and how much of the gradient is left: all 100 x 100 derivatives dp_i / dx_j. */
static double row_of(clattn_context *context, const float *scores, float factor, float *p) {
    static float x[DIM], copies[DIM * DIM], unit[DIM * DIM], derivatives[DIM * DIM];
    float greatest = 0;
    double size = 0;
    for (int i = 0; i < DIM; i++) x[i] = scores[i] * factor;
    lesson_softmax(context, x, 1, DIM, 1, 1, p);
    for (int i = 0; i < DIM * DIM; i++) copies[i] = p[i % DIM];
    for (int i = 0; i < DIM; i++) unit[i * DIM + i] = 1;
    lesson_softmax_gradient(context, copies, unit, DIM, DIM, derivatives);
    for (int i = 0; i < DIM * DIM; i++) size += fabs((double)derivatives[i]);
    for (int i = 0; i < DIM; i++) greatest = fmaxf(greatest, p[i]);
    printf("  scores times %-4.3g  greatest probability %.6f  sum of all |dp_i/dx_j| %.4g\n", (double)factor,
           (double)greatest, size);
    return size;
}

static void draw(const float *before, const float *after, float rows[3][DIM]) {
    lesson_histogram("q.k", before, -40, 40, BINS);
    lesson_histogram("q.k / sqrt(d_k)", after, -40, 40, BINS);
    FILE *gnuplot = lesson_picture("lesson1", 900, 380);
    lesson_block(gnuplot, "before", before, BINS, 1);
    lesson_block(gnuplot, "after", after, BINS, 1);
    for (int i = 0; i < 3; i++) lesson_block(gnuplot, (const char *[]){"wide", "plain", "scaled"}[i], rows[i], DIM, 1);
    fprintf(gnuplot, "set multiplot layout 1,2\nset style fill solid 0.6\nset boxwidth 1 relative\nset grid ytics\n");
    fprintf(gnuplot, "set key right top samplen 1\nset title 'scores'\nset format y ''\nset ylabel 'how many'\nset "
                     "xlabel 'score'\n");
    fprintf(gnuplot, "plot $before using (-40+($0+0.5)*%g):1 with boxes lc rgb '#6aaed6' title 'q.k', ", 80.0 / BINS);
    fprintf(gnuplot, "$after using (-40+($0+0.5)*%g):1 with boxes lc rgb '#d95f0e' title 'q.k / sqrt(d_k)'\n",
            80.0 / BINS);
    fprintf(gnuplot, "set title 'softmax of one row of %d scores'\nset format y '%%g'\nset ylabel 'probability'\n",
            DIM);
    fprintf(gnuplot, "set xlabel 'key'\nset yrange [0:1]\nset key right top\nplot $plain with impulses lw 3 lc rgb "
                     "'#6aaed6' title 'q.k', ");
    fprintf(gnuplot, "$scaled with impulses lw 3 lc rgb '#d95f0e' title 'q.k / sqrt(d_k)'\nunset multiplot\n");
    lesson_picture_end(gnuplot);
}

int main(int argc, char **argv) {
    clattn_context *context = lesson_begin(argc, argv, "lesson 1: why divide by sqrt(d_k)");
    static float row[LENGTH], before[BINS], after[BINS], rows[3][DIM];
    small_case(context);
    large_case(context, row, before, after);
    puts("\nsoftmax of the first 100 scores of query 0");
    const double wide = row_of(context, row, 10, rows[0]);
    const double plain = row_of(context, row, 1, rows[1]);
    const double scaled = row_of(context, row, 1 / sqrtf(DIM), rows[2]);
    lesson_check(wide < 0.01 * plain && plain < 0.8 * scaled,
                 "the larger the scores, the less is left of the gradient");
    draw(before, after, rows);
    return lesson_end(&context);
}
