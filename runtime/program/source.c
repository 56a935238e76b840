/* Kernel text: embedded or from a folder, with its includes put in place. */
#include <string.h>

#include "program/program.h"

enum {
    MAX_FILES = 32, /* distinct files of one kernel */
    MAX_DEPTH = 16, /* includes within includes */
    MAX_FILE_BYTES = 1 << 22
};

/* The build option poison_local: kernels that declare local memory fill it with NaN first. */
#ifdef CLATTN_POISON_LOCAL
static const char *const BEFORE_LOCAL = "#define POISON_LOCAL\n";
#else
static const char *const BEFORE_LOCAL = "";
#endif

typedef struct expansion {
    const char *kernel_dir;
    char *seen[MAX_FILES]; /* each file is put in once */
    int seen_count;
    clattn__text text;
} expansion;

static char *read_embedded(const char *file, size_t *count) {
    for (const clattn__embedded_file *row = clattn__embedded_files; row->name; row++) {
        if (strcmp(row->name, file) != 0) continue;
        char *copy = clattn__alloc(row->count + 1, 1);
        if (copy) memcpy(copy, row->bytes, row->count);
        *count = row->count;
        return copy;
    }
    clattn__fail(CLATTN_FILE_FAILED, "kernel file \"%s\" is not one of those built into the library", file);
    return NULL;
}

static char *read_from_dir(const char *dir, const char *file, size_t *count) {
    clattn__text path = {0};
    char *bytes = NULL;
    clattn__text_add(&path, "%s/%s", dir, file);
    if (path.failed)
        clattn__fail(CLATTN_OUT_OF_MEMORY, "no memory for the path of kernel file \"%s\"", file);
    else if (!(bytes = clattn__os_read_file(path.data, MAX_FILE_BYTES, count)))
        clattn__fail(CLATTN_FILE_FAILED, "kernel file \"%s\" cannot be read, or is larger than %d bytes", path.data,
                     MAX_FILE_BYTES);
    clattn__text_free(&path);
    return bytes;
}

/* The name between the quotes when the line is `#include "name"`, and its length; else NULL. */
static const char *include_name(const char *line, const char *end, size_t *length) {
    static const char word[] = "include";
    while (line < end && (*line == ' ' || *line == '\t')) line++;
    if (line == end || *line++ != '#') return NULL;
    while (line < end && (*line == ' ' || *line == '\t')) line++;
    if ((size_t)(end - line) < sizeof word - 1 || memcmp(line, word, sizeof word - 1) != 0) return NULL;
    line += sizeof word - 1;
    while (line < end && (*line == ' ' || *line == '\t')) line++;
    if (line == end || *line++ != '"') return NULL;
    const char *quote = memchr(line, '"', (size_t)(end - line));
    if (!quote || quote == line) return NULL;
    *length = (size_t)(quote - line);
    return line;
}

static bool already_seen(const expansion *e, const char *file) {
    for (int i = 0; i < e->seen_count; i++)
        if (strcmp(e->seen[i], file) == 0) return true;
    return false;
}

/* A file cannot be named from outside the kernel folder. */
static bool stays_inside(const char *file) { return file[0] != '/' && !strstr(file, ".."); }

static clattn_status expand(expansion *e, const char *file, const char *includer, int depth) {
    size_t count = 0;
    char *bytes = NULL;
    clattn_status status = CLATTN_FILE_FAILED;

    if (!stays_inside(file)) {
        clattn__fail(status, "kernel file \"%s\": the name must stay inside the kernel folder", file);
        goto fail;
    }
    if (e->seen_count == MAX_FILES || depth == MAX_DEPTH) {
        clattn__fail(status, "kernel file \"%s\": more than %d files or %d levels of includes", file, MAX_FILES,
                     MAX_DEPTH);
        goto fail;
    }
    bytes = e->kernel_dir ? read_from_dir(e->kernel_dir, file, &count) : read_embedded(file, &count);
    if (!bytes) goto fail;
    status = CLATTN_OUT_OF_MEMORY;
    if (!(e->seen[e->seen_count] = clattn__strdup(file))) goto fail;
    e->seen_count++;

    if (strcmp(file, "inc/local.clh") == 0) clattn__text_add(&e->text, "%s", BEFORE_LOCAL);
    /* #line makes the compiler's messages name the real file and line. */
    clattn__text_add(&e->text, "#line 1 \"%s\"\n", file);
    long number = 1;
    for (const char *line = bytes, *stop = bytes + count; line < stop; number++) {
        const char *newline = memchr(line, '\n', (size_t)(stop - line));
        const char *end = newline ? newline : stop;
        size_t length;
        const char *name = include_name(line, end, &length);
        if (!name) {
            clattn__text_add_bytes(&e->text, line, (size_t)(end - line));
            clattn__text_add_bytes(&e->text, "\n", 1);
        } else {
            char *inner = clattn__alloc(length + 1, 1);
            if (!inner) goto fail;
            memcpy(inner, name, length);
            status = already_seen(e, inner) ? CLATTN_OK : expand(e, inner, file, depth + 1);
            clattn__free(inner);
            if (status != CLATTN_OK) goto fail;
            status = CLATTN_OUT_OF_MEMORY;
            clattn__text_add(&e->text, "#line %ld \"%s\"\n", number + 1, file);
        }
        line = end + 1;
    }
    clattn__free(bytes);
    return CLATTN_OK;
fail:
    if (includer) clattn__fail_note("; included from \"%s\"", includer);
    clattn__free(bytes);
    return status;
}

clattn_status clattn__source_load(const char *kernel_dir, const char *file, char **text) {
    expansion e = {.kernel_dir = kernel_dir};
    *text = NULL;
    clattn_status status = expand(&e, file, NULL, 0);
    for (int i = 0; i < e.seen_count; i++) clattn__free(e.seen[i]);
    if (status == CLATTN_OK && e.text.failed)
        status = clattn__fail(CLATTN_OUT_OF_MEMORY, "no memory for the text of kernel file \"%s\"", file);
    if (status != CLATTN_OK) {
        clattn__text_free(&e.text);
        return status;
    }
    *text = e.text.data;
    return CLATTN_OK;
}
