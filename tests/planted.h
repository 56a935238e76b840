/* Copies of the shipped kernels with a mistake in front of some of them, for contexts with a kernel_dir. */
#ifndef CLATTN_TEST_PLANTED_H
#define CLATTN_TEST_PLANTED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "program/program.h"

/* Copies cl/<name> of the source tree into the folder with `planted` in front of it. */
static bool planted_copy(const char *folder, const char *name, const char *planted) {
    char from[512], to[512];
    snprintf(from, sizeof from, "%s/cl/%s", getenv("CLATTN_SOURCE_ROOT"), name);
    snprintf(to, sizeof to, "%s/%s", folder, name);
    size_t count;
    char *text = clattn__os_read_file(from, 1 << 24, &count);
    FILE *file = text ? fopen(to, "wb") : NULL;
    bool good = file && fprintf(file, "%s\n", planted) >= 0 && fwrite(text, 1, count, file) == count;
    if (file) good = fclose(file) == 0 && good;
    clattn__free(text);
    return good;
}

/* A fresh copy of all kernels, in which two begin with the given mistakes. */
static bool planted_copies(const char *folder, const char *first, const char *in_first, const char *second,
                           const char *in_second) {
    char part[512];
    mkdir(folder, 0700);
    snprintf(part, sizeof part, "%s/inc", folder);
    mkdir(part, 0700);
    snprintf(part, sizeof part, "%s/shared", folder);
    mkdir(part, 0700);
    for (const clattn__embedded_file *file = clattn__embedded_files; file->name; file++) {
        const char *planted = strcmp(file->name, first) == 0    ? in_first
                              : strcmp(file->name, second) == 0 ? in_second
                                                                : "";
        if (!planted_copy(folder, file->name, planted)) return false;
    }
    return true;
}

/* Replaces `right`, which must be there, in one file of the folder. */
static inline bool planted_replace(const char *folder, const char *name, const char *right, const char *wrong) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    size_t count;
    char *text = clattn__os_read_file(path, 1 << 24, &count), *at = text ? strstr(text, right) : NULL;
    FILE *file = at ? fopen(path, "wb") : NULL;
    bool good = file && fprintf(file, "%.*s%s%s", (int)(at - text), text, wrong, at + strlen(right)) >= 0;
    if (file) good = fclose(file) == 0 && good;
    clattn__free(text);
    return good;
}

/* The folder and all in it. */
static inline void planted_remove(const char *folder) {
    char command[256];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (system(command) != 0) fprintf(stderr, "%s is left behind\n", folder);
}

#endif
