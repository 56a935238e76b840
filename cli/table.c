/* Tables, JSON and sizes in bytes. */
#include "table.h"

#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"

void cli_table_start(cli_table *table, const char *const *titles, const char *align) {
    memset(table, 0, sizeof *table);
    table->titles = titles;
    table->align = align;
}

static bool table_grow(cli_table *table) {
    if (table->count < table->capacity) return true;
    size_t capacity = table->capacity ? 2 * table->capacity : 64;
    char **cells = realloc(table->cells, capacity * sizeof *cells);
    if (!cells) return false;
    table->cells = cells;
    table->capacity = capacity;
    return true;
}

void cli_table_add(cli_table *table, const char *format, ...) {
    va_list list;
    va_start(list, format);
    int length = vsnprintf(NULL, 0, format, list);
    va_end(list);
    char *cell = length < 0 ? NULL : malloc((size_t)length + 1);
    if (!cell || !table_grow(table)) {
        free(cell);
        table->failed = true;
        return;
    }
    va_start(list, format);
    vsnprintf(cell, (size_t)length + 1, format, list);
    va_end(list);
    table->cells[table->count++] = cell;
}

static int column_width(const cli_table *table, size_t columns, size_t column) {
    size_t width = strlen(table->titles[column]);
    for (size_t i = column; i < table->count; i += columns) {
        size_t length = strlen(table->cells[i]);
        if (length > width) width = length;
    }
    return (int)width;
}

static void print_cell(const cli_table *table, FILE *out, size_t column, size_t columns, int width, const char *cell) {
    bool last = column + 1 == columns;
    if (table->align[column] == 'r')
        fprintf(out, "%*s", width, cell);
    else if (last)
        fputs(cell, out);
    else
        fprintf(out, "%-*s", width, cell);
    fputs(last ? "\n" : "  ", out);
}

void cli_table_print(const cli_table *table, FILE *out) {
    size_t columns = strlen(table->align);
    int widths[32];
    for (size_t c = 0; c < columns && c < 32; c++) widths[c] = column_width(table, columns, c);
    for (size_t c = 0; c < columns; c++) print_cell(table, out, c, columns, widths[c], table->titles[c]);
    for (size_t i = 0; i < table->count; i++) {
        size_t column = i % columns;
        print_cell(table, out, column, columns, widths[column], table->cells[i]);
    }
    if (table->failed) cli_fail(EXIT_USAGE, "out of memory: the table is incomplete");
}

void cli_table_free(cli_table *table) {
    for (size_t i = 0; i < table->count; i++) free(table->cells[i]);
    free(table->cells);
    memset(table, 0, sizeof *table);
}

int cli_json_print(cJSON *root) {
    char *text = root ? cJSON_Print(root) : NULL;
    cJSON_Delete(root);
    if (!text) return cli_fail(EXIT_NOT_SUPPORTED, "no memory for the report");
    puts(text);
    cJSON_free(text);
    return EXIT_GOOD;
}

void cli_json_number(cJSON *object, const char *name, double value) {
    if (isfinite(value))
        cJSON_AddNumberToObject(object, name, value);
    else
        cJSON_AddNullToObject(object, name);
}

cJSON *cli_json_read(const char *path, char why[512]) {
    char *text;
    int64_t size;
    if (!cli_file_text(path, 1 << 24, &text, &size, why)) return NULL;
    cJSON *root = cJSON_ParseWithLength(text, (size_t)size);
    free(text);
    if (cJSON_IsObject(root)) return root;
    cJSON_Delete(root);
    cli_why(why, 512, "%s: is not a JSON object", path);
    return NULL;
}

const char *cli_bytes_text(uint64_t bytes, char text[32]) {
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    if (bytes < 1024) {
        snprintf(text, 32, "%d B", (int)bytes);
        return text;
    }
    double value = (double)bytes / 1024;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof *units) {
        value /= 1024;
        unit++;
    }
    snprintf(text, 32, "%.1f %s", value, units[unit]);
    return text;
}

bool cli_parse_bytes(const char *text, long long *bytes) {
    static const char letters[] = "KMG";
    char digits[24];
    size_t length = strlen(text);
    if (length == 0 || length >= sizeof digits) return false;
    memcpy(digits, text, length + 1);
    const char *letter = strchr(letters, digits[length - 1]);
    int shift = letter ? 10 * (int)(letter - letters + 1) : 0;
    if (letter) digits[length - 1] = '\0';
    long long count;
    if (!cli_parse_int(digits, 1, LLONG_MAX >> shift, &count)) return false;
    *bytes = count << shift;
    return true;
}
