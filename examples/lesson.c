#define _POSIX_C_SOURCE 200809L /* popen */

#include "lesson.h"

#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { LOADED = 256, EXAMPLES = 16, SHOWN = 6, BAR = 48, LINES = 20 };

static struct {
    const char *data, *pictures, *title;
    char picture[512];
    void *loaded[LOADED];
    int loads, wrong, compared;
    const char *examples[EXAMPLES]; /* looked at */
} lesson;

/* ---- beginning and end ----------------------------------------------------------------------------------------- */

static void die(const char *format, ...) {
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fputc('\n', stderr);
    exit(1);
}

void or_die(clattn_status status) {
    if (status != CLATTN_OK) die("%s: %s", clattn_status_name(status), clattn_last_error());
}

clattn_context *lesson_begin(int argc, char **argv, const char *title) {
    clattn_context *context;
    clattn_context_options options;
    clattn_device_info device;
    lesson.data = argc > 1 ? argv[1] : LESSON_DATA;
    lesson.pictures = argc > 2 ? argv[2] : ".";
    lesson.title = title;
    signal(SIGPIPE, SIG_IGN); /* a gnuplot that is not there closes the pipe */
    clattn_context_options_init(&options);
    options.selector = getenv("CLATTN_DEVICE");
    or_die(clattn_context_create(&context, &options));
    or_die(clattn_context_device(context, &device));
    printf("%s\non %s (%s)\n", title, device.name, device.platform);
    return context;
}

int lesson_end(clattn_context **context) {
    clattn_context_destroy(context);
    for (int i = 0; i < lesson.loads; i++) free(lesson.loaded[i]);
    puts(lesson.examples[0] ? "\nexamples compared:" : "");
    for (int i = 0; i < EXAMPLES && lesson.examples[i]; i++) printf("  %s\n", lesson.examples[i]);
    printf("%s: %d of %d comparisons are right\n", lesson.title, lesson.compared - lesson.wrong, lesson.compared);
    return lesson.wrong > 0 || lesson.compared == 0;
}

/* ---- numbers --------------------------------------------------------------------------------------------------- */

/* Version 1.0 of the .npy format in C order: what the lessons' files are. */
static void *load(const char *example, const char *role, const char *type, size_t size, int64_t count) {
    char path[512], header[4096];
    unsigned char start[10];
    snprintf(path, sizeof path, "%s/%s/%s.npy", lesson.data, example, role);
    FILE *file = fopen(path, "rb");
    if (!file) die("%s: cannot be opened; give the folder of the lessons' data as first argument", path);
    size_t length = fread(start, 1, sizeof start, file) == sizeof start ? start[8] + 256u * start[9] : 0;
    if (length == 0 || length >= sizeof header || fread(header, 1, length, file) != length) die("%s: no header", path);
    header[length] = '\0';
    if (memcmp(start, "\x93NUMPY\x01", 7) != 0 || !strstr(header, type)) die("%s: is not a %s .npy file", path, type);
    void *values = malloc((size_t)count * size);
    if (!values || lesson.loads == LOADED) die("%s: no memory", path);
    if (fread(values, size, (size_t)count, file) != (size_t)count || fgetc(file) != EOF)
        die("%s: does not hold %lld numbers", path, (long long)count);
    fclose(file);
    return lesson.loaded[lesson.loads++] = values;
}

const float *lesson_load(const char *example, const char *role, int64_t count) {
    return load(example, role, "'<f4'", sizeof(float), count);
}

const unsigned char *lesson_load_bool(const char *example, const char *role, int64_t count) {
    return load(example, role, "'|b1'", 1, count);
}

static void judge(int right) {
    lesson.compared++;
    lesson.wrong += !right;
}

void lesson_compare(const char *what, const float *got, const float *want, int64_t count, double rtol, double atol) {
    double worst = 0;
    int right = 1;
    for (int64_t i = 0; i < count; i++) {
        const double g = (double)got[i], w = (double)want[i], error = fabs(g - w);
        if (g == w) continue;
        right = right && error <= atol + rtol * fabs(w);
        if (!isnan(worst) && !(error <= worst)) worst = error; /* a NaN stays */
    }
    judge(right);
    printf("%s: %s, greatest difference %.2g of %lld\n", what, right ? "right" : "WRONG", worst, (long long)count);
    const int shown = count < SHOWN ? (int)count : SHOWN;
    printf("  expected");
    for (int i = 0; i < shown; i++) printf(" %12.7g", (double)want[i]);
    printf("%s\n  got     ", shown < count ? " ..." : "");
    for (int i = 0; i < shown; i++) printf(" %12.7g", (double)got[i]);
    puts(shown < count ? " ..." : "");
}

void lesson_expect(const char *example, const char *role, const float *got, int64_t count, double rtol, double atol) {
    int i = 0;
    while (i < EXAMPLES - 1 && lesson.examples[i] && strcmp(lesson.examples[i], example) != 0) i++;
    lesson.examples[i] = example;
    lesson_compare(role, got, lesson_load(example, role, count), count, rtol, atol);
}

void lesson_check(int holds, const char *format, ...) {
    va_list values;
    judge(holds != 0);
    printf("%s  ", holds ? "yes" : "NO ");
    va_start(values, format);
    vprintf(format, values);
    va_end(values);
    putchar('\n');
}

/* The Mersenne Twister MT19937 (Matsumoto and Nishimura 1998). */
static struct {
    uint32_t word[624];
    int next;
    double kept; /* the second number of a pair, when there is one */
    int has_kept;
} twister;

void lesson_seed(uint32_t seed) {
    twister.word[0] = seed;
    for (uint32_t i = 1; i < 624; i++) {
        const uint32_t before = twister.word[i - 1];
        twister.word[i] = 1812433253u * (before ^ (before >> 30)) + i;
    }
    twister.next = 624;
    twister.has_kept = 0;
}

static uint32_t random_word(void) {
    if (twister.next == 624) {
        for (int i = 0; i < 624; i++) {
            const uint32_t y = (twister.word[i] & 0x80000000u) | (twister.word[(i + 1) % 624] & 0x7fffffffu);
            twister.word[i] = twister.word[(i + 397) % 624] ^ (y >> 1) ^ (y & 1 ? 0x9908b0dfu : 0);
        }
        twister.next = 0;
    }
    uint32_t y = twister.word[twister.next++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

/* -1..1, from 53 bits. */
static double random_side(void) {
    const uint32_t high = random_word() >> 5, low = random_word() >> 6;
    return 2 * ((high * 67108864.0 + low) / 9007199254740992.0) - 1;
}

/* Marsaglia's polar method: two numbers from a point in the circle. */
static double random_normal(void) {
    double x, y, square;
    twister.has_kept = !twister.has_kept;
    if (!twister.has_kept) return twister.kept;
    do {
        x = random_side();
        y = random_side();
        square = x * x + y * y;
    } while (square >= 1 || square == 0);
    const double factor = sqrt(-2 * log(square) / square);
    twister.kept = factor * x;
    return factor * y;
}

void lesson_normal(float *values, int64_t count) {
    for (int64_t i = 0; i < count; i++) values[i] = (float)random_normal();
}

/* ---- small plans, made for one run ----------------------------------------------------------------------------- */

clattn_tensor lesson_heads(const float *values, int64_t heads, int64_t rows, int64_t columns) {
    return clattn_host(values, CLATTN_F32, 4, 1, heads, rows, columns);
}

clattn_tensor lesson_rows(const float *values, int64_t rows, int64_t columns) {
    return clattn_host(values, CLATTN_F32, 3, 1, rows, columns, 0);
}

void lesson_linear(clattn_context *context, const float *x, const float *w, const float *bias, int64_t rows, int64_t k,
                   int64_t n, float *output) {
    clattn_linear_desc desc;
    clattn_linear_desc_init(&desc);
    desc.batch = 1;
    desc.rows = rows;
    desc.in_features = k;
    desc.out_features = n;
    clattn_linear_weights weights = {.weight = clattn_host(w, CLATTN_F32, 2, n, k, 0, 0)};
    if (bias) weights.bias = clattn_host(bias, CLATTN_F32, 1, n, 0, 0, 0);
    const clattn_layer_io io = {.input = lesson_rows(x, rows, k), .output = lesson_rows(output, rows, n)};
    clattn_layer *layer;
    or_die(clattn_linear_create(&layer, context, &desc, &weights));
    or_die(clattn_layer_run(layer, &io));
    clattn_layer_destroy(&layer);
}

void lesson_project(clattn_context *context, const float *x, const float *w, int64_t rows, int64_t k, int64_t n,
                    float *output) {
    float *turned = malloc((size_t)(k * n) * sizeof *turned);
    if (!turned) die("no memory");
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < n; j++) turned[j * k + i] = w[i * n + j];
    lesson_linear(context, x, turned, NULL, rows, k, n, output);
    free(turned);
}

void lesson_attend(clattn_context *context, clattn_attention_desc *desc, const float *q, const float *k, const float *v,
                   float *output, float *weights, float *scores) {
    const int64_t H = desc->query_heads, Sq = desc->query_len, Sk = desc->kv_len,
                  Dv = desc->value_dim ? desc->value_dim : desc->head_dim;
    clattn_attention *plan;
    desc->batch = 1;
    desc->weights = weights ? CLATTN_WEIGHTS_PER_HEAD : CLATTN_WEIGHTS_NONE;
    if (scores && desc->scores == CLATTN_SCORES_NONE) desc->scores = CLATTN_SCORES_RAW;
    clattn_attention_io io = {.query = lesson_heads(q, H, Sq, desc->head_dim),
                              .key = lesson_heads(k, H, Sk, desc->head_dim),
                              .value = lesson_heads(v, H, Sk, Dv),
                              .output = lesson_heads(output, H, Sq, Dv)};
    if (weights) io.weights = lesson_heads(weights, H, Sq, Sk);
    if (scores) io.scores = lesson_heads(scores, H, Sq, Sk);
    or_die(clattn_attention_create(&plan, context, desc));
    or_die(clattn_attention_run(plan, &io));
    clattn_attention_destroy(&plan);
}

void lesson_softmax(clattn_context *context, const float *x, int64_t rows, int64_t columns, int axis, float temperature,
                    float *probability) {
    clattn_softmax_desc desc;
    clattn_softmax_desc_init(&desc);
    desc.rank = 2;
    desc.shape[0] = rows;
    desc.shape[1] = columns;
    desc.axis = axis;
    desc.temperature = temperature;
    const clattn_softmax_io io = {.x = clattn_host(x, CLATTN_F32, 2, rows, columns, 0, 0),
                                  .probability = clattn_host(probability, CLATTN_F32, 2, rows, columns, 0, 0)};
    clattn_softmax *plan;
    or_die(clattn_softmax_create(&plan, context, &desc));
    or_die(clattn_softmax_run(plan, &io));
    clattn_softmax_destroy(&plan);
}

void lesson_softmax_gradient(clattn_context *context, const float *p, const float *enters, int64_t rows, int64_t n,
                             float *gradient) {
    clattn_softmax_desc desc;
    clattn_softmax_desc_init(&desc);
    desc.kind = CLATTN_SOFTMAX_BACKWARD;
    desc.rank = 2;
    desc.shape[0] = rows;
    desc.shape[1] = n;
    const clattn_softmax_io io = {.probability = clattn_host(p, CLATTN_F32, 2, rows, n, 0, 0),
                                  .grad_output = clattn_host(enters, CLATTN_F32, 2, rows, n, 0, 0),
                                  .grad_x = clattn_host(gradient, CLATTN_F32, 2, rows, n, 0, 0)};
    clattn_softmax *plan;
    or_die(clattn_softmax_create(&plan, context, &desc));
    or_die(clattn_softmax_run(plan, &io));
    clattn_softmax_destroy(&plan);
}

/* ---- drawing on the terminal ----------------------------------------------------------------------------------- */

void lesson_heatmap(const char *title, const float *values, int rows, int columns) {
    static const char shades[] = " .:-=+*#%@";
    float low = INFINITY, high = -INFINITY;
    for (int i = 0; i < rows * columns; i++)
        if (isfinite(values[i])) low = fminf(low, values[i]), high = fmaxf(high, values[i]);
    printf("%s\n", title);
    for (int r = 0; r < rows; r++) {
        printf("  |");
        for (int c = 0; c < columns; c++) {
            const float v = values[r * columns + c];
            const double share = high > low && isfinite(v) ? (double)(v - low) / (double)(high - low) : 0;
            const char shade = isfinite(v) ? shades[(int)(share * 9.999)] : 'x';
            printf("%c%c", shade, shade);
        }
        printf("|");
        for (int c = 0; c < columns && columns <= SHOWN; c++) printf(" %9.4f", (double)values[r * columns + c]);
        putchar('\n');
    }
}

static void bar(double share) {
    for (int i = 0; i < (int)(share * BAR + 0.5); i++) putchar('#');
    putchar('\n');
}

void lesson_count(const float *values, int64_t count, double low, double high, int bins, float *counts) {
    for (int64_t i = 0; i < count; i++) {
        const double place = ((double)values[i] - low) / (high - low) * bins;
        if (place >= 0 && place < bins) counts[(int)place]++;
    }
}

void lesson_histogram(const char *title, const float *counts, double low, double high, int bins) {
    const int merged = (bins + LINES - 1) / LINES, lines = (bins + merged - 1) / merged;
    float sums[LINES] = {0}, most = 1;
    for (int i = 0; i < bins; i++) sums[i / merged] += counts[i];
    for (int i = 0; i < lines; i++) most = fmaxf(most, sums[i]);
    printf("%s\n", title);
    for (int i = 0; i < lines; i++) {
        printf("  %7.2f ", low + (i + 0.5) * merged * (high - low) / bins);
        bar((double)(sums[i] / most));
    }
}

void lesson_bars(const char *title, const char *const *labels, const float *values, int count) {
    double most = 1e-30;
    for (int i = 0; i < count; i++) most = fmax(most, fabs((double)values[i]));
    printf("%s\n", title);
    for (int i = 0; i < count; i++) {
        printf("  %10s %12.5g ", labels[i], (double)values[i]);
        bar(fabs((double)values[i]) / most);
    }
}

/* ---- drawing through gnuplot ----------------------------------------------------------------------------------- */

FILE *lesson_picture(const char *name, int width, int height) {
    snprintf(lesson.picture, sizeof lesson.picture, "%s/%s.png", lesson.pictures, name);
    fflush(stdout);
    FILE *script = popen("gnuplot -d 2>/dev/null", "w"); /* -d: no start-up files */
    if (!script) die("gnuplot cannot be started");
    fprintf(script, "set terminal png truecolor size %d,%d\nset encoding utf8\nset output '%s'\n", width, height,
            lesson.picture);
    fputs("set palette defined (0 '#ffffff', 0.15 '#d6e6f4', 0.4 '#6aaed6', 0.7 '#2070b4', 1 '#08306b')\n", script);
    return script;
}

void lesson_block(FILE *script, const char *name, const float *values, int rows, int columns) {
    fprintf(script, "$%s << EOD\n", name);
    for (int i = 0; i < rows * columns; i++) {
        if (isfinite(values[i]))
            fprintf(script, "%.6g%c", (double)values[i], (i + 1) % columns ? ' ' : '\n');
        else
            fprintf(script, "NaN%c", (i + 1) % columns ? ' ' : '\n');
    }
    fputs("EOD\n", script);
}

void lesson_picture_end(FILE *script) {
    fputs("set output\n", script);
    if (pclose(script) == 0)
        printf("picture: %s\n", lesson.picture);
    else
        printf("no picture: gnuplot is not installed or failed (on Debian and Ubuntu: apt install gnuplot-nox)\n");
}

/* The least and the greatest finite value. */
static void range_of(const lesson_heat *p, float *low, float *high) {
    *low = INFINITY, *high = -INFINITY;
    for (int i = 0; i < p->rows * p->columns; i++)
        if (isfinite(p->values[i])) *low = fminf(*low, p->values[i]), *high = fmaxf(*high, p->values[i]);
}

/* Where the number stands, its text, and white on dark cells. */
static void put_numbers(FILE *script, const lesson_heat *p, float low, float high) {
    fputs("$numbers << EOD\n", script);
    for (int i = 0; i < p->rows * p->columns; i++) {
        const float v = p->values[i];
        const int dark = isfinite(v) && v > low + 0.55f * (high - low);
        char text[32] = "-inf";
        if (isfinite(v)) snprintf(text, sizeof text, v == rintf(v) ? "%.0f" : "%.2f", (double)v);
        fprintf(script, "%d %d %s %d\n", i % p->columns, i / p->columns, text, dark ? 0xffffff : 0);
    }
    fputs("EOD\n", script);
}

static int tics(int extent) { return extent <= SHOWN ? 1 : extent <= 16 ? 3 : 8; }

void lesson_heat_picture(const char *name, int width, int height, const lesson_heat *panels, int count, double low,
                         double high, const char *row_label, const char *column_label) {
    FILE *script = lesson_picture(name, width, height);
    fprintf(script, "set multiplot layout 1,%d\nset size ratio -1\nset ylabel '%s' offset 1,0\n", count, row_label);
    fputs("set format cb '%.2g'\n", script);
    for (int i = 0; i < count; i++) {
        const lesson_heat *p = &panels[i];
        const int numbered = p->columns <= SHOWN;
        lesson_block(script, "cells", p->values, p->rows, p->columns);
        float least = (float)low, most = (float)high;
        if (!(high > low)) range_of(p, &least, &most);
        if (most > least) fprintf(script, "set cbrange [%g:%g]\n", (double)least, (double)most);
        if (most > least) fprintf(script, "set cbtics (%g, %g)\n", (double)least, (double)most);
        if (numbered) put_numbers(script, p, least, most);
        fprintf(script, "%s colorbox\n", numbered ? "unset" : "set");
        fprintf(script, "set xlabel '%s' offset 0,0.5\n", p->column_label ? p->column_label : column_label);
        fprintf(script, "set title \"%s\"\nset xtics %d\nset ytics %d\n", p->title, tics(p->columns), tics(p->rows));
        fprintf(script, "set xrange [-0.5:%d.5]\nset yrange [%d.5:-0.5]\n", p->columns - 1, p->rows - 1);
        fprintf(script, "plot $cells matrix with image notitle%s\n",
                numbered ? ", $numbers using 1:2:3:4 with labels font ',9' tc rgb variable notitle" : "");
    }
    fputs("unset multiplot\n", script);
    lesson_picture_end(script);
}
