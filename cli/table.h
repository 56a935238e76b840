/* Tables, JSON and sizes in bytes, for the commands that list things. */
#ifndef CLI_TABLE_H
#define CLI_TABLE_H

#include <cjson/cJSON.h>

#include "cli.h"

/* Cells row by row; the columns are as wide as their widest cell. The last column is printed as it is. */
typedef struct cli_table {
    const char *const *titles;
    const char *align; /* one letter per column: l or r */
    char **cells;
    size_t count, capacity;
    bool failed; /* out of memory; reported by cli_table_print */
} cli_table;

/* titles has one entry per letter of align; both are borrowed. */
void cli_table_start(cli_table *table, const char *const *titles, const char *align);
void cli_table_add(cli_table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
void cli_table_print(const cli_table *table, FILE *out);
void cli_table_free(cli_table *table);

/* Prints root and frees it; EXIT_GOOD, or a code with the message printed when root is NULL or memory ran out. */
int cli_json_print(cJSON *root);
/* cJSON stores numbers as double; NaN and infinity become null, as JSON has no word for them. */
void cli_json_number(cJSON *object, const char *name, double value);
/* The object in a file of at most 16 MiB; NULL with one sentence in `why`. */
cJSON *cli_json_read(const char *path, char why[512]);

/* "512 B", "4.0 KiB", "1.5 GiB". */
const char *cli_bytes_text(uint64_t bytes, char text[32]);
/* "2000000", "512K", "4M", "1G" (powers of 1024), > 0; false on rubbish or overflow. */
bool cli_parse_bytes(const char *text, long long *bytes);

#endif
