/* Built programs kept between processes: one file per program, <cache>/programs/<key>, where the key stands for the
 * device, its driver and platform, the library's version, the source and the options. A file begins with a line of
 * length, checksum and key, and no byte of it reaches a driver before all are proved: there are drivers that crash on a
 * damaged binary. While a driver reads one, a mark <key>.loading-<numbers> lies beside it, one for each process and
 * context at it; where an abandoned one is found, a process died of that binary, which is then built anew instead. */
#include <stdio.h>
#include <string.h>

#include "program/program.h"

enum { MOST_BYTES = 64 << 20, HEADER_BYTES = 128 };

static const char *const HEADER = "clattn-program 2 %zu %s %s\n"; /* bytes behind this line, their hash, the key */
static const char *const LOADING = ".loading";

/* <cache>/programs, with /<key> and a suffix when there is a key; NULL when nothing is kept on disk, or the driver does
 * that itself. Caller frees. */
static char *path_of(const clattn__env *env, const char *key, const char *suffix) {
    if (!env->cache_dir || (env->device.caps.quirks & CLATTN__QUIRK_CACHES_ITSELF)) return NULL;
    clattn__text path = {0};
    clattn__text_add(&path, "%s/programs%s%s%s", env->cache_dir, key[0] ? "/" : "", key, suffix);
    if (path.failed) clattn__text_free(&path);
    return path.data;
}

static void file_key(const clattn__env *env, const clattn__program *program, char key[33]) {
    char device[33], both[67];
    clattn__env_key(env, device);
    snprintf(both, sizeof both, "%s|%s", device, program->key);
    clattn__hash_hex(both, strlen(both), key);
}

/* The bytes behind a header that tells the truth about them; NULL else. */
static const char *content_of(const char *file, size_t count, const char *key, size_t *bytes) {
    char header[HEADER_BYTES], hash[33];
    const char *end = file ? memchr(file, '\n', count) : NULL;
    if (!end) return NULL;
    *bytes = count - (size_t)(end + 1 - file);
    clattn__hash_hex(end + 1, *bytes, hash);
    const int length = snprintf(header, sizeof header, HEADER, *bytes, hash, key);
    return length == (int)(end + 1 - file) && memcmp(file, header, (size_t)length) == 0 ? end + 1 : NULL;
}

/* The driver's own program of the bytes; NULL when it does not want them. */
static cl_program program_of(clattn__env *env, const char *options, const char *content, size_t bytes) {
    const unsigned char *binary = (const unsigned char *)content;
    cl_int code, status;
    cl_program program = clCreateProgramWithBinary(env->context, 1, &env->device.id, &bytes, &binary, &status, &code);
    if (!program) return NULL;
    if (code == CL_SUCCESS && status == CL_SUCCESS)
        code = clBuildProgram(program, 1, &env->device.id, options, NULL, NULL);
    if (code == CL_SUCCESS && status == CL_SUCCESS) return program;
    clReleaseProgram(program);
    return NULL;
}

/* ---- loading ---------------------------------------------------------------------------------------------------- */

typedef struct mark_scan {
    const char *folder, *key;
    bool abandoned;
} mark_scan;

static void scan_mark(void *user, const char *name) {
    mark_scan *scan = user;
    const size_t length = strlen(scan->key);
    if (strncmp(name, scan->key, length) != 0 || strncmp(name + length, LOADING, strlen(LOADING)) != 0) return;
    clattn__text path = {0};
    clattn__text_add(&path, "%s/%s", scan->folder, name);
    if (!path.failed && clattn__os_mark_abandoned(path.data)) {
        clattn__os_remove(path.data);
        scan->abandoned = true;
    }
    clattn__text_free(&path);
}

/* Whether a process died while a driver read the program of this key for it; asked once, as its mark is gone then. */
static bool was_deadly(const clattn__env *env, const char *key) {
    char *folder = path_of(env, "", "");
    mark_scan scan = {.folder = folder, .key = key};
    if (folder) clattn__os_list_dir(folder, scan_mark, &scan);
    clattn__free(folder);
    return scan.abandoned;
}

/* What a file holds, as a program; without a mark nothing reaches the driver. False: the file is of no use. */
static bool load_file(clattn__env *env, const char *path, const char *key, clattn__program *program) {
    size_t count = 0, bytes = 0;
    char *file = clattn__os_read_file(path, MOST_BYTES, &count), *stem = path_of(env, key, LOADING);
    const char *content = content_of(file, count, key, &bytes);
    clattn__mark mark;
    const bool marked = content && stem && clattn__os_mark(stem, &mark);
    if (marked) {
        program->program = program_of(env, program->options, content, bytes);
        clattn__os_unmark(&mark);
    }
    const bool useless = file && (!content || (marked && !program->program));
    clattn__free(stem);
    clattn__free(file);
    return !useless;
}

bool clattn__cache_load(clattn__env *env, clattn__program *program) {
    char key[33];
    file_key(env, program, key);
    char *path = path_of(env, key, "");
    if (!path) return false;
    if (was_deadly(env, key)) {
        clattn__log_text(&env->log, CLATTN_LOG_WARNING,
                         "a process ended while %s loaded the kept binary of %s; it is built anew",
                         env->device.caps.driver, program->file);
        clattn__os_remove(path);
    } else if (!load_file(env, path, key, program)) {
        clattn__log_text(&env->log, CLATTN_LOG_INFO,
                         "%s is damaged, or of another device, or the driver refuses it; %s is built anew", path,
                         program->file);
        clattn__os_remove(path);
    }
    clattn__free(path);
    return program->program != NULL;
}

/* ---- keeping ---------------------------------------------------------------------------------------------------- */

typedef struct folder_scan {
    const char *folder;
    size_t bytes; /* of all files */
    char *oldest;
    int64_t oldest_time;
} folder_scan;

static void scan_one(void *user, const char *name) {
    folder_scan *scan = user;
    clattn__text path = {0};
    size_t bytes = 0;
    int64_t time = 0;
    clattn__text_add(&path, "%s/%s", scan->folder, name);
    if (path.failed || !clattn__os_file_info(path.data, &bytes, &time)) {
        clattn__text_free(&path);
        return;
    }
    scan->bytes += bytes;
    if (scan->oldest && scan->oldest_time <= time) {
        clattn__text_free(&path);
        return;
    }
    clattn__free(scan->oldest);
    scan->oldest = path.data;
    scan->oldest_time = time;
}

void clattn__cache_trim(const char *folder, size_t most_bytes) {
    for (bool over = true; over;) {
        folder_scan scan = {.folder = folder};
        clattn__os_list_dir(folder, scan_one, &scan);
        over = scan.bytes > most_bytes && scan.oldest && clattn__os_remove(scan.oldest);
        clattn__free(scan.oldest);
    }
}

void clattn__cache_store(clattn__env *env, const clattn__program *program) {
    char key[33], hash[33];
    clattn__text file = {0};
    size_t bytes = 0;
    unsigned char *binary = NULL;
    file_key(env, program, key);
    char *folder = path_of(env, "", ""), *path = path_of(env, key, "");
    if (!folder || !path || !clattn__os_make_dirs(folder)) goto done;
    if (clGetProgramInfo(program->program, CL_PROGRAM_BINARY_SIZES, sizeof bytes, &bytes, NULL) != CL_SUCCESS ||
        bytes == 0 || bytes > MOST_BYTES / 4 || !(binary = clattn__alloc(bytes, 1)))
        goto done;
    if (clGetProgramInfo(program->program, CL_PROGRAM_BINARIES, sizeof binary, &binary, NULL) != CL_SUCCESS) goto done;
    clattn__hash_hex(binary, bytes, hash);
    clattn__text_add(&file, HEADER, bytes, hash, key);
    clattn__text_add_bytes(&file, (const char *)binary, bytes);
    if (!file.failed && clattn__os_write_file(path, file.data, file.length)) clattn__cache_trim(folder, MOST_BYTES);
done:
    clattn__text_free(&file);
    clattn__free(binary);
    clattn__free(folder);
    clattn__free(path);
}
