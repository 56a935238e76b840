/* What the lessons share: a device, numbers from files, a comparison that decides the exit code, and drawing, on the
 * terminal and through gnuplot. Helpers end the program when something is missing, which is fine in an example. */
#ifndef LESSON_H
#define LESSON_H

#include <clattn/clattn.h>
#include <stdio.h>

/* `lessonN [DATA [PICTURES]]`: the folder with the lesson's numbers and the one that pictures are written to. The
 * device is the best one, or $CLATTN_DEVICE. */
clattn_context *lesson_begin(int argc, char **argv, const char *title);
/* Says which examples of DATA were looked at and whether all comparisons were right; the program's exit code. */
int lesson_end(clattn_context **context);

/* Ends the program with the library's error text unless the call went well. */
void or_die(clattn_status status);

/* The float32 numbers of DATA/<example>/<role>.npy; there must be `count` of them. They live until lesson_end. */
const float *lesson_load(const char *example, const char *role, int64_t count);
/* The same for bool. */
const unsigned char *lesson_load_bool(const char *example, const char *role, int64_t count);

/* Prints the first numbers beside the expected ones and the greatest difference; a difference above
 * atol + rtol * |want|, or a NaN, makes the lesson fail. */
void lesson_compare(const char *what, const float *got, const float *want, int64_t count, double rtol, double atol);
/* lesson_compare with the numbers of DATA/<example>/<role>.npy. */
void lesson_expect(const char *example, const char *role, const float *got, int64_t count, double rtol, double atol);
/* The same for a statement: prints it with "yes" or "NO". */
void lesson_check(int holds, const char *format, ...);

/* Normally distributed numbers, those of numpy.random.seed(seed) and numpy.random.randn: the same on every machine. */
void lesson_seed(uint32_t seed);
void lesson_normal(float *values, int64_t count);

/* Dense host tensors of rank 4, 3, 2: (1, H, S, D) as attention wants them, (1, S, D), (S, D). */
clattn_tensor lesson_heads(const float *values, int64_t heads, int64_t rows, int64_t columns);
clattn_tensor lesson_rows(const float *values, int64_t rows, int64_t columns);

/* output (rows, n) = x (rows, k) W^T + bias, W (n, k), bias (n) or NULL: how PyTorch stores a linear layer. */
void lesson_linear(clattn_context *context, const float *x, const float *w, const float *bias, int64_t rows, int64_t k,
                   int64_t n, float *output);
/* output (rows, n) = x (rows, k) W, W (k, n): how formulas are written. */
void lesson_project(clattn_context *context, const float *x, const float *w, int64_t rows, int64_t k, int64_t n,
                    float *output);
/* output = softmax(scale q k^T) v with every head on its own; weights and scores may be NULL. */
void lesson_attend(clattn_context *context, clattn_attention_desc *desc, const float *q, const float *k, const float *v,
                   float *output, float *weights, float *scores);
/* Softmax of (rows, columns) along an axis (0 or 1). */
void lesson_softmax(clattn_context *context, const float *x, int64_t rows, int64_t columns, int axis, float temperature,
                    float *probability);

/* Row by row of n: the gradient of sum_i enters_i p_i for the x whose softmax p is. */
void lesson_softmax_gradient(clattn_context *context, const float *p, const float *enters, int64_t rows, int64_t n,
                             float *gradient);

/* ---- drawing --------------------------------------------------------------------------------------------------- */

/* A table of numbers with a cell of shades beside each row; shades reach from the least to the greatest value. */
void lesson_heatmap(const char *title, const float *values, int rows, int columns);
/* Adds to counts[i] how many values fall into part i of `bins` equal parts of low..high. */
void lesson_count(const float *values, int64_t count, double low, double high, int bins, float *counts);
/* One bar per part, or for a few neighbours together when there are more than 20. */
void lesson_histogram(const char *title, const float *counts, double low, double high, int bins);
/* One bar per value. */
void lesson_bars(const char *title, const char *const *labels, const float *values, int count);

/* A gnuplot that reads a script from the returned file and writes PICTURES/<name>.png; never NULL. */
FILE *lesson_picture(const char *name, int width, int height);
/* Writes values as a gnuplot data block $<name>: a matrix of `columns` columns. */
void lesson_block(FILE *script, const char *name, const float *values, int rows, int columns);
/* Ends gnuplot; says where the picture is, or that gnuplot is not installed. */
void lesson_picture_end(FILE *script);

/* A whole picture: heatmaps side by side, small ones with the numbers in their cells, the others with a scale of the
 * shades. low == high: each has shades from its own least to its own greatest value. */
typedef struct lesson_heat {
    const char *title;
    const float *values;
    int rows, columns;
    const char *column_label; /* NULL: that of the whole picture */
} lesson_heat;
void lesson_heat_picture(const char *name, int width, int height, const lesson_heat *panels, int count, double low,
                         double high, const char *row_label, const char *column_label);

#endif
