/* The bottom layer: memory, errors, log, text, hash, files. Knows neither OpenCL nor attention. */
#ifndef CLATTN_BASE_H
#define CLATTN_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clattn/types.h"

#if defined(__GNUC__)
#define CLATTN__PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define CLATTN__PRINTF(text, first)
#endif

#define CLATTN__COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* alloc.c: zeroed memory, overflow-checked. NULL records OUT_OF_MEMORY; free accepts NULL. */
void *clattn__alloc(size_t count, size_t size);
void clattn__free(void *memory);
char *clattn__strdup(const char *text);
/* For tests: the nth allocation from now (1 = the next) fails once; 0 = off. */
void clattn__alloc_fail_after(long nth);

/* Products and sums that say no instead of wrapping. Extents must be >= 0. */
bool clattn__mul(size_t a, size_t b, size_t *product);
bool clattn__add(size_t a, size_t b, size_t *sum);
/* Product of rank extents times unit bytes; false when one is negative or the product passes SIZE_MAX / 2. */
bool clattn__volume(const int64_t *extents, int rank, size_t unit, size_t *bytes);

/* error.c: the calling thread's last failure. fail() replaces the text and returns status, so that
 * `return clattn__fail(...)` reads as one line; note() appends to it (hints, build log excerpts). */
clattn_status clattn__fail(clattn_status status, const char *format, ...) CLATTN__PRINTF(2, 3);
void clattn__fail_note(const char *format, ...) CLATTN__PRINTF(1, 2);
/* Around steps whose failure is not the call's failure (a skipped device, a kernel passed over): keep() copies the
 * text, NULL for none; restore() puts it back and frees the copy. */
char *clattn__error_keep(void);
void clattn__error_restore(char *kept);

/* log.c */
typedef struct clattn__log {
    clattn_log_fn write; /* NULL: silent */
    void *user;
} clattn__log;
void clattn__log_text(const clattn__log *log, clattn_log_level level, const char *format, ...) CLATTN__PRINTF(3, 4);

/* text.c: a string that grows. A failed allocation is remembered in `failed`, so callers check once at the end. Start
 * with {0}. data is NULL until something was added. */
typedef struct clattn__text {
    char *data;
    size_t length, capacity;
    bool failed;
} clattn__text;
void clattn__text_add(clattn__text *text, const char *format, ...) CLATTN__PRINTF(2, 3);
void clattn__text_add_bytes(clattn__text *text, const char *bytes, size_t count);
void clattn__text_free(clattn__text *text);

/* hash.c: xxHash XXH3-128 as 32 hex digits and a NUL. */
void clattn__hash_hex(const void *bytes, size_t count, char hex[33]);

/* half.c: IEEE binary16 and bfloat16, round to nearest even, NaN stays NaN. */
float clattn__half_to_float(uint16_t half);
uint16_t clattn__float_to_half(float value);
float clattn__bf16_to_float(uint16_t bf16);
uint16_t clattn__float_to_bf16(float value);

/* os.c: the only file with calls beyond C11, and the only one that reads the environment. */
double clattn__os_seconds(void);        /* monotonic */
int clattn__os_day(void);               /* 20261122, by UTC; 0 when the clock does not tell */
uint64_t clattn__os_second_cache(void); /* bytes of a core's second-level cache; 0: the system does not tell */
void clattn__os_nap(void);              /* a few milliseconds, for other threads to end what they do */
/* $XDG_CACHE_HOME/clattn, else $HOME/.cache/clattn; false when neither is set to an absolute path. Caller frees. */
bool clattn__os_cache_dir(char **path);
bool clattn__os_is_dir(const char *path);
bool clattn__os_make_dirs(const char *path);    /* mode 0700; true when it is there afterwards */
bool clattn__os_writable_dir(const char *path); /* a folder in which this process may create files */
/* Whole file with a NUL behind it; NULL when it cannot be read or is larger than limit. Caller frees. */
char *clattn__os_read_file(const char *path, size_t limit, size_t *count);
/* Temporary file beside it, then rename: readers see the old or the new content, never half. */
bool clattn__os_write_file(const char *path, const void *bytes, size_t count);
/* Of a regular file; false when there is none. Either pointer may be NULL. modified: seconds. */
bool clattn__os_file_info(const char *path, size_t *bytes, int64_t *modified);
bool clattn__os_remove(const char *path);
/* A file <stem>-<numbers> that says, as long as it is there, that this process is at work on something. False when it
 * cannot be made; else unmark removes it. */
typedef struct clattn__mark {
    char *path;
    int file;
} clattn__mark;
bool clattn__os_mark(const char *stem, clattn__mark *mark);
void clattn__os_unmark(clattn__mark *mark);
bool clattn__os_mark_abandoned(const char *path); /* who made it has ended and left it behind */
/* Waits until no other process holds the lock file, which is made when it is not there, and stays. The number is for
 * unlock; -1 when there are no locks in that place. */
int clattn__os_lock(const char *path);
void clattn__os_unlock(int lock);
/* Calls visit with the name of each entry that does not begin with a dot; an absent folder is an empty one. */
void clattn__os_list_dir(const char *path, void (*visit)(void *user, const char *name), void *user);

/* Raised once by one thread, waited for by another. */
typedef struct clattn__signal clattn__signal;
clattn__signal *clattn__signal_create(void);
void clattn__signal_destroy(clattn__signal **signal);
void clattn__signal_raise(clattn__signal *signal);
void clattn__signal_wait(clattn__signal *signal);

typedef struct clattn__mutex clattn__mutex;
clattn__mutex *clattn__mutex_create(void);
void clattn__mutex_destroy(clattn__mutex **mutex);
void clattn__mutex_lock(clattn__mutex *mutex);
void clattn__mutex_unlock(clattn__mutex *mutex);
clattn__mutex *clattn__process_lock(void); /* of what a process has only one of */

#endif
