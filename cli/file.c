#define _POSIX_C_SOURCE 200809L /* mkstemp, fstat */

#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void cli_printable(char *text, bool lines) {
    for (char *c = text; *c; c++)
        if (((unsigned char)*c < ' ' && !(lines && *c == '\n')) || *c == 0x7f) *c = '?';
}

bool cli_why(char *why, size_t size, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, size, format, arguments);
    va_end(arguments);
    cli_printable(why, false);
    return false;
}

bool cli_file_open(const char *path, FILE **file, int64_t *size, char why[512]) {
    struct stat info;
    /* Non-blocking: a pipe that nobody writes to would be waited for before it is refused. */
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    *file = descriptor < 0 ? NULL : fdopen(descriptor, "rb");
    if (!*file) {
        cli_why(why, 512, "%s: cannot be opened: %s", path, strerror(errno));
        if (descriptor >= 0) close(descriptor);
        return false;
    }
    if (fstat(fileno(*file), &info) != 0 || !S_ISREG(info.st_mode)) {
        fclose(*file);
        *file = NULL;
        return cli_why(why, 512, "%s: is not a regular file", path);
    }
    *size = (int64_t)info.st_size;
    return true;
}

bool cli_file_read(FILE *file, const char *path, const char *field, void *data, size_t bytes, char why[512]) {
    if (bytes == 0 || fread(data, 1, bytes, file) == bytes) return true;
    if (ferror(file)) return cli_why(why, 512, "%s: %s cannot be read: %s", path, field, strerror(errno));
    return cli_why(why, 512, "%s: is truncated: it ends inside the %s (%zu bytes)", path, field, bytes);
}

bool cli_file_text(const char *path, int64_t most, char **text, int64_t *size, char why[512]) {
    FILE *file;
    int64_t bytes;
    *text = NULL;
    if (!cli_file_open(path, &file, &bytes, why)) return false;
    if (bytes < most) *text = malloc((size_t)bytes + 1);
    bool good = *text ? cli_file_read(file, path, "text", *text, (size_t)bytes, why)
                      : cli_why(why, 512, "%s: is too large", path);
    fclose(file);
    if (good) (*text)[bytes] = '\0';
    if (good && size) *size = bytes;
    if (!good) free(*text);
    if (!good) *text = NULL;
    return good;
}

/* mkstemp makes files that only the owner may read; a result should follow the umask like any other file. */
static void follow_umask(int descriptor) {
    mode_t mask = umask(0);
    umask(mask);
    if (fchmod(descriptor, 0666 & ~mask) != 0) return; /* the file stays private, which harms nothing */
}

bool cli_writer_open(cli_writer *writer, const char *path, char why[512]) {
    struct stat info;
    *writer = (cli_writer){.path = path};
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) {
        writer->file = fopen(path, "wb");
        if (!writer->file) return cli_why(why, 512, "%s: cannot be written: %s", path, strerror(errno));
        return true;
    }
    size_t length = strlen(path);
    writer->temporary = malloc(length + sizeof ".XXXXXX");
    if (!writer->temporary) return cli_why(why, 512, "%s: no memory to write it", path);
    memcpy(writer->temporary, path, length);
    memcpy(writer->temporary + length, ".XXXXXX", sizeof ".XXXXXX");
    int descriptor = mkstemp(writer->temporary);
    if (descriptor >= 0) {
        follow_umask(descriptor);
        writer->file = fdopen(descriptor, "wb");
        if (writer->file) return true;
        close(descriptor);
        unlink(writer->temporary);
    }
    cli_why(why, 512, "%s: cannot be written: %s", path, strerror(errno));
    free(writer->temporary);
    *writer = (cli_writer){0};
    return false;
}

/* A pipe is not opened, because its reader would see the end when it is closed again. */
bool cli_file_writable(const char *path, char why[512]) {
    struct stat info;
    cli_writer writer;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode))
        return cli_why(why, 512, "%s: cannot be written: %s", path, strerror(EISDIR));
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode))
        return access(path, W_OK) == 0 || cli_why(why, 512, "%s: cannot be written: %s", path, strerror(errno));
    if (!cli_writer_open(&writer, path, why)) return false;
    cli_writer_close(&writer, false, why);
    return true;
}

bool cli_writer_close(cli_writer *writer, bool good, char why[512]) {
    bool failed = !good || ferror(writer->file);
    if (fclose(writer->file) != 0) failed = true;
    if (!failed && writer->temporary && rename(writer->temporary, writer->path) != 0) failed = true;
    if (failed) {
        if (good) cli_why(why, 512, "%s: cannot be written: %s", writer->path, strerror(errno));
        if (writer->temporary) unlink(writer->temporary);
    }
    free(writer->temporary);
    *writer = (cli_writer){0};
    return !failed;
}
