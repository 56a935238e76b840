/* What the file formats share: messages, reading with a known size, writing without leaving half a file. */
#ifndef CLI_FILE_H
#define CLI_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "cli.h"

/* Names and texts come from files, and a terminal must not obey what stands in them: control characters become question
 * marks, but line breaks stay where `lines`. */
void cli_printable(char *text, bool lines);
/* Writes one sentence, printable, and returns false, so that `return cli_why(...)` reads as one line. */
bool cli_why(char *why, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Opens a regular file for reading and tells its size. */
bool cli_file_open(const char *path, FILE **file, int64_t *size, char why[512]);
/* Reads exactly `bytes` or says that the file ends too early, naming `field`. */
bool cli_file_read(FILE *file, const char *path, const char *field, void *data, size_t bytes, char why[512]);

/* All of a file of fewer than `most` bytes, NUL behind it; the caller frees. size may be NULL. */
bool cli_file_text(const char *path, int64_t most, char **text, int64_t *size, char why[512]);

/* A file in the making. It replaces `path` only when everything was written. What is not a regular file (a terminal, a
 * pipe, /dev/null) is written directly. */
typedef struct cli_writer {
    FILE *file;
    const char *path; /* borrowed */
    char *temporary;  /* NULL: written directly */
} cli_writer;
bool cli_writer_open(cli_writer *writer, const char *path, char why[512]);
/* `good` false drops what was written. Always frees; true when the file is in place. */
bool cli_writer_close(cli_writer *writer, bool good, char why[512]);

/* Allocates array->data for the shape and dtype that are set, contents undefined. */
bool cli_array_allocate(cli_array *array, char *why, size_t why_size);

#endif
