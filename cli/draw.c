/* Heatmaps through gnuplot, which runs only here, on a script and a data file in a folder of its own. */
#define _POSIX_C_SOURCE 200809L /* mkdtemp, posix_spawn */

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "file.h"

extern char **environ;

enum { MAX_LABELS = 48 }; /* more would overlap; numbers are shown instead */

/* ---- the folder --------------------------------------------------------------------------------------------- */

typedef struct workshop {
    char folder[256];
    char script[280], data[280], picture[280], errors[280];
} workshop;

static bool workshop_open(workshop *w, char why[512]) {
    const char *parent = getenv("TMPDIR");
    int length = snprintf(w->folder, sizeof w->folder, "%s/clattn-XXXXXX", parent && parent[0] ? parent : "/tmp");
    if (length >= (int)sizeof w->folder || !mkdtemp(w->folder))
        return cli_why(why, 512, "%s: cannot make a temporary folder: %s", parent && parent[0] ? parent : "/tmp",
                       strerror(errno));
    snprintf(w->script, sizeof w->script, "%s/script", w->folder);
    snprintf(w->data, sizeof w->data, "%s/data", w->folder);
    snprintf(w->picture, sizeof w->picture, "%s/picture", w->folder);
    snprintf(w->errors, sizeof w->errors, "%s/errors", w->folder);
    return true;
}

static void workshop_close(workshop *w) {
    unlink(w->script);
    unlink(w->data);
    unlink(w->picture);
    unlink(w->errors);
    rmdir(w->folder);
}

/* ---- the script --------------------------------------------------------------------------------------------- */

/* A gnuplot string. Single quotes switch off every substitution; a quote inside is doubled. */
static void put_string(FILE *out, const char *text, int most) {
    fputc('\'', out);
    for (int i = 0; text[i] && i < most; i++) {
        if ((unsigned char)text[i] < ' ') continue;
        if (text[i] == '\'') fputc('\'', out);
        fputc(text[i], out);
    }
    /* not in the middle of a UTF-8 character */
    for (int i = most; (int)strlen(text) > most && ((unsigned char)text[i] & 0xc0) == 0x80; i++) fputc(text[i], out);
    fputc('\'', out);
}

static void put_tics(FILE *out, const char *axis, const char *const *labels, int count, const char *style) {
    fprintf(out, "set %stics %s (", axis, style);
    for (int i = 0; i < count; i++) {
        if (i) fputs(", ", out);
        put_string(out, labels[i], 16);
        fprintf(out, " %d", i);
    }
    fputs(")\n", out);
}

typedef struct picture {
    int heads, rows, columns;
    int grid_rows, grid_columns;
    const char *const *labels;
    const char *title;
    float most; /* upper end of the colours */
} picture;

/* Labels and numbers stand at the left and at the bottom of the grid only. */
static void put_axis(FILE *out, const picture *p, const char *axis, int count, bool outer, const char *style) {
    bool named = p->labels && count == p->columns && count <= MAX_LABELS;
    if (named && outer)
        put_tics(out, axis, p->labels, count, style);
    else
        fprintf(out, "set %stics norotate %s\n", axis, named ? "0,1" : "autofreq");
    fprintf(out, "set format %s '%s'\n", axis, outer ? "%g" : "");
}

/* Text and heatmap sizes in pixels; everything else follows from them. */
static void put_layout(FILE *out, const picture *p) {
    int longest = p->rows > p->columns ? p->rows : p->columns;
    int side = longest * 16 < 160 ? 160 : longest * 16 > 320 ? 320 : longest * 16;
    int left = 110, right = 80, bottom = 100, top = 60, gap = 28;
    int width = left + right + p->grid_columns * side + (p->grid_columns - 1) * gap;
    int height = bottom + top + p->grid_rows * side + (p->grid_rows - 1) * gap;
    fprintf(out, "set terminal png truecolor noenhanced size %d,%d\n", width, height);
    fprintf(out, "set multiplot layout %d,%d margins screen %.4f,%.4f,%.4f,%.4f spacing screen %.4f,%.4f title ",
            p->grid_rows, p->grid_columns, (double)left / width, 1 - (double)right / width, (double)bottom / height,
            1 - (double)top / height, (double)gap / width, (double)gap / height);
    char title[256];
    snprintf(title, sizeof title, "%.200s (rows: queries, columns: keys)", p->title);
    put_string(out, title, sizeof title);
    fprintf(out, "\nset colorbox user origin screen %.4f,%.4f size screen %.4f,%.4f\n", 1 - 60.0 / width,
            (double)bottom / height, 14.0 / width, 1 - (double)(bottom + top) / height);
}

static void put_head(FILE *out, const picture *p, int head, const workshop *w) {
    bool leftmost = head % p->grid_columns == 0, lowest = head + p->grid_columns >= p->heads;
    fprintf(out, "set title 'head %d' offset 0,-0.6\n", head);
    put_axis(out, p, "y", p->rows, leftmost, "");
    put_axis(out, p, "x", p->columns, lowest, "rotate by 90 right");
    fputs("plot ", out);
    put_string(out, w->data, 300);
    fprintf(out, " binary skip=%lld array=(%d,%d) format='%%float32' with image notitle\n",
            (long long)head * p->rows * p->columns * 4, p->columns, p->rows);
    if (head == 0) fputs("unset colorbox\n", out);
}

static void put_script(FILE *out, const picture *p, const workshop *w) {
    fputs("set encoding utf8\nset output ", out);
    put_string(out, w->picture, 300);
    fputc('\n', out);
    fputs("set palette defined (0 '#ffffff', 0.15 '#d6e6f4', 0.4 '#6aaed6', 0.7 '#2070b4', 1 '#08306b')\n"
          "set tics out nomirror scale 0.3\n",
          out);
    fprintf(out, "set cbrange [0:%.9g]\nset xrange [-0.5:%d.5]\nset yrange [%d.5:-0.5]\n", (double)p->most,
            p->columns - 1, p->rows - 1);
    put_layout(out, p);
    for (int head = 0; head < p->heads; head++) put_head(out, p, head, w);
    fputs("unset multiplot\nset output\n", out);
}

/* ---- running ------------------------------------------------------------------------------------------------ */

static void first_line(const char *path, char *line, size_t size) {
    FILE *file = fopen(path, "r");
    line[0] = '\0';
    while (file && fgets(line, (int)size, file))
        if (strspn(line, " \n\t^") < strlen(line)) break;
    if (file) fclose(file);
    line[strcspn(line, "\n")] = '\0';
}

static bool run_gnuplot(const workshop *w, char why[512]) {
    char *const arguments[] = {(char *)"gnuplot", (char *)"-d", (char *)w->script, NULL}; /* -d: no start-up files */
    posix_spawn_file_actions_t actions;
    pid_t child;
    int status;
    if (posix_spawn_file_actions_init(&actions) != 0) return cli_why(why, 512, "no memory to start gnuplot");
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, w->errors, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int error = posix_spawnp(&child, "gnuplot", &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error == ENOENT)
        return cli_why(why, 512,
                       "gnuplot is not installed or not in PATH, and pictures need it (on Debian and Ubuntu: apt "
                       "install gnuplot-nox)");
    if (error) return cli_why(why, 512, "gnuplot cannot be started: %s", strerror(error));
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return cli_why(why, 512, "gnuplot was lost: %s", strerror(errno));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return true;
    char line[200];
    first_line(w->errors, line, sizeof line);
    return cli_why(why, 512, "gnuplot failed (wait status %d): %s", status, line);
}

static bool write_data(const char *path, const float *weights, size_t count, char why[512]) {
    FILE *file = fopen(path, "wb");
    if (!file) return cli_why(why, 512, "%s: cannot be written: %s", path, strerror(errno));
    bool good = fwrite(weights, sizeof *weights, count, file) == count;
    if (fclose(file) != 0) good = false;
    return good || cli_why(why, 512, "%s: cannot be written: %s", path, strerror(errno));
}

static bool write_script(const picture *p, const workshop *w, char why[512]) {
    FILE *file = fopen(w->script, "w");
    if (!file) return cli_why(why, 512, "%s: cannot be written: %s", w->script, strerror(errno));
    put_script(file, p, w);
    bool good = !ferror(file);
    if (fclose(file) != 0) good = false;
    return good || cli_why(why, 512, "%s: cannot be written: %s", w->script, strerror(errno));
}

static bool copy_picture(const char *from, const char *to, char why[512]) {
    FILE *file;
    int64_t size;
    cli_writer writer;
    char block[16384];
    if (!cli_file_open(from, &file, &size, why)) return false;
    bool good = cli_writer_open(&writer, to, why);
    if (good) {
        for (size_t n; (n = fread(block, 1, sizeof block, file)) > 0;) fwrite(block, 1, n, writer.file);
        good = cli_writer_close(&writer, true, why);
    }
    fclose(file);
    return good;
}

bool cli_heatmap(const char *path, const float *weights, int heads, int rows, int columns, const char *const *labels,
                 const char *title, char why[512]) {
    picture p = {.heads = heads, .rows = rows, .columns = columns, .labels = labels, .title = title};
    size_t count = (size_t)heads * (size_t)rows * (size_t)columns;
    if (count == 0) return cli_why(why, 512, "%s: there are no attention weights to draw", path);
    for (size_t i = 0; i < count; i++)
        if (weights[i] > p.most && isfinite(weights[i])) p.most = weights[i];
    if (!(p.most > 0)) p.most = 1;
    p.grid_columns = (int)ceil(sqrt(heads * 1.3)); /* wider than high, as screens are */
    if (p.grid_columns > heads) p.grid_columns = heads;
    p.grid_rows = (heads + p.grid_columns - 1) / p.grid_columns;
    workshop w;
    if (!workshop_open(&w, why)) return false;
    bool good = write_data(w.data, weights, count, why) && write_script(&p, &w, why) && run_gnuplot(&w, why) &&
                copy_picture(w.picture, path, why);
    workshop_close(&w);
    return good;
}
