/* What C11 lacks: clock, files, folders, threads, environment. No other file calls the system directly. */
#define _POSIX_C_SOURCE 200809L
#include "base/base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

double clattn__os_seconds(void) {
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) return 0;
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int clattn__os_day(void) {
    const time_t now = time(NULL);
    struct tm day;
    if (now == (time_t)-1 || !gmtime_r(&now, &day)) return 0;
    return (day.tm_year + 1900) * 10000 + (day.tm_mon + 1) * 100 + day.tm_mday;
}

uint64_t clattn__os_second_cache(void) {
#ifdef _SC_LEVEL2_CACHE_SIZE /* glibc's */
    const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (bytes > 0) return (uint64_t)bytes;
#endif
    return 0;
}

void clattn__os_nap(void) {
    const struct timespec nap = {.tv_nsec = 3000000};
    nanosleep(&nap, NULL);
}

bool clattn__os_cache_dir(char **path) {
    clattn__text text = {0};
    const char *base = getenv("XDG_CACHE_HOME");
    *path = NULL;
    /* The XDG rule: a relative path is to be ignored. */
    if (base && base[0] == '/') {
        clattn__text_add(&text, "%s/clattn", base);
    } else {
        base = getenv("HOME");
        if (!base || base[0] != '/') return false;
        clattn__text_add(&text, "%s/.cache/clattn", base);
    }
    if (text.failed) {
        clattn__text_free(&text);
        return false;
    }
    *path = text.data;
    return true;
}

bool clattn__os_is_dir(const char *path) {
    struct stat about;
    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

bool clattn__os_make_dirs(const char *path) {
    if (!path[0]) return false;
    if (clattn__os_is_dir(path)) return true;
    char *prefix = clattn__strdup(path);
    if (!prefix) return false;
    /* Each prefix in turn; a failure shows in the final check. From 1: the root is there. */
    for (size_t i = 1; prefix[i]; i++) {
        if (prefix[i] != '/') continue;
        prefix[i] = '\0';
        mkdir(prefix, 0700);
        prefix[i] = '/';
    }
    mkdir(prefix, 0700);
    clattn__free(prefix);
    return clattn__os_is_dir(path);
}

bool clattn__os_writable_dir(const char *path) { return clattn__os_is_dir(path) && access(path, W_OK | X_OK) == 0; }

char *clattn__os_read_file(const char *path, size_t limit, size_t *count) {
    struct stat about;
    char *bytes = NULL;
    size_t got = 0;
    /* Non-blocking: a pipe in the place of a file must not hang the caller before it is refused. */
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) return NULL;
    if (fstat(file, &about) != 0 || !S_ISREG(about.st_mode) || about.st_size < 0) goto fail;
    if ((uintmax_t)about.st_size > limit || (uintmax_t)about.st_size >= SIZE_MAX) goto fail;
    size_t size = (size_t)about.st_size;
    bytes = clattn__alloc(size + 1, 1);
    if (!bytes) goto fail;
    while (got < size) {
        ssize_t part = read(file, bytes + got, size - got);
        if (part < 0 && errno == EINTR) continue;
        if (part < 0) goto fail;
        if (part == 0) break; /* shortened meanwhile */
        got += (size_t)part;
    }
    close(file);
    bytes[got] = '\0';
    if (count) *count = got;
    return bytes;
fail:
    close(file);
    clattn__free(bytes);
    return NULL;
}

static bool write_all(int file, const char *bytes, size_t count) {
    for (size_t done = 0; done < count;) {
        ssize_t part = write(file, bytes + done, count - done);
        if (part < 0 && errno == EINTR) continue;
        if (part <= 0) return false;
        done += (size_t)part;
    }
    return true;
}

/* With the process's own number it makes file names that nobody else uses. */
static unsigned next_number(void) {
    static atomic_uint number;
    return atomic_fetch_add(&number, 1u);
}

bool clattn__os_write_file(const char *path, const void *bytes, size_t count) {
    clattn__text name = {0};
    bool good = false;
    clattn__text_add(&name, "%s.%ld-%u.tmp", path, (long)getpid(), next_number());
    if (name.failed) goto done;
    int file = open(name.data, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file < 0) goto done;
    good = write_all(file, bytes, count);
    if (close(file) != 0) good = false; /* where some file systems report that the disk is full */
    if (good) good = rename(name.data, path) == 0;
    if (!good) unlink(name.data);
done:
    clattn__text_free(&name);
    return good;
}

bool clattn__os_mark(const char *stem, clattn__mark *mark) {
    clattn__text path = {0}, hidden = {0};
    const unsigned number = next_number();
    mark->file = -1;
    clattn__text_add(&path, "%s-%ld-%u", stem, (long)getpid(), number);
    clattn__text_add(&hidden, "%s.%ld-%u.tmp", stem, (long)getpid(), number);
    if (!path.failed && !hidden.failed)
        mark->file = open(hidden.data, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (mark->file >= 0) {
        /* The system takes the lock away when the process ends, however it ends. It is there before the file has its
         * name. Where the file system has no locks, no mark is ever abandoned. */
        flock(mark->file, LOCK_EX | LOCK_NB);
        if (rename(hidden.data, path.data) != 0) {
            unlink(hidden.data);
            close(mark->file);
            mark->file = -1;
        }
    }
    clattn__text_free(&hidden);
    if (mark->file < 0) clattn__text_free(&path);
    mark->path = path.data;
    return mark->file >= 0;
}

void clattn__os_unmark(clattn__mark *mark) {
    unlink(mark->path); /* first: without its lock it would look abandoned */
    close(mark->file);
    clattn__free(mark->path);
    *mark = (clattn__mark){.file = -1};
}

bool clattn__os_mark_abandoned(const char *path) {
    const int file = open(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    if (file < 0) return false;
    struct stat about;
    const bool locked = flock(file, LOCK_EX | LOCK_NB) == 0;
    const bool abandoned = locked && fstat(file, &about) == 0 && about.st_nlink > 0; /* 0: removed meanwhile */
    close(file);
    return abandoned;
}

int clattn__os_lock(const char *path) {
    const int lock = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (lock < 0) return -1;
    int locked;
    do locked = flock(lock, LOCK_EX);
    while (locked != 0 && errno == EINTR);
    if (locked == 0) return lock;
    close(lock);
    return -1;
}

void clattn__os_unlock(int lock) {
    if (lock >= 0) close(lock); /* which gives the lock back */
}

bool clattn__os_file_info(const char *path, size_t *bytes, int64_t *modified) {
    struct stat about;
    if (stat(path, &about) != 0 || !S_ISREG(about.st_mode) || about.st_size < 0) return false;
    if (bytes) *bytes = (size_t)about.st_size;
    if (modified) *modified = (int64_t)about.st_mtime;
    return true;
}

bool clattn__os_remove(const char *path) { return unlink(path) == 0; }

void clattn__os_list_dir(const char *path, void (*visit)(void *user, const char *name), void *user) {
    DIR *folder = opendir(path);
    if (!folder) return;
    for (struct dirent *entry; (entry = readdir(folder));)
        if (entry->d_name[0] != '.') visit(user, entry->d_name);
    closedir(folder);
}

struct clattn__mutex {
    pthread_mutex_t system;
};

clattn__mutex *clattn__mutex_create(void) {
    clattn__mutex *mutex = clattn__alloc(1, sizeof *mutex);
    if (!mutex) return NULL;
    if (pthread_mutex_init(&mutex->system, NULL) != 0) {
        clattn__fail(CLATTN_OUT_OF_MEMORY, "the system could not create a mutex");
        clattn__free(mutex);
        return NULL;
    }
    return mutex;
}

void clattn__mutex_destroy(clattn__mutex **mutex) {
    if (!*mutex) return;
    pthread_mutex_destroy(&(*mutex)->system);
    clattn__free(*mutex);
    *mutex = NULL;
}

void clattn__mutex_lock(clattn__mutex *mutex) { pthread_mutex_lock(&mutex->system); }

void clattn__mutex_unlock(clattn__mutex *mutex) { pthread_mutex_unlock(&mutex->system); }

clattn__mutex *clattn__process_lock(void) {
    static clattn__mutex lock = {PTHREAD_MUTEX_INITIALIZER};
    return &lock;
}

struct clattn__signal {
    pthread_mutex_t mutex;
    pthread_cond_t condition;
    bool raised;
};

clattn__signal *clattn__signal_create(void) {
    clattn__signal *signal = clattn__alloc(1, sizeof *signal);
    if (!signal) return NULL;
    const bool has_mutex = pthread_mutex_init(&signal->mutex, NULL) == 0;
    if (has_mutex && pthread_cond_init(&signal->condition, NULL) == 0) return signal;
    if (has_mutex) pthread_mutex_destroy(&signal->mutex);
    clattn__free(signal);
    clattn__fail(CLATTN_OUT_OF_MEMORY, "the system could not create a condition");
    return NULL;
}

void clattn__signal_destroy(clattn__signal **signal) {
    if (!*signal) return;
    pthread_cond_destroy(&(*signal)->condition);
    pthread_mutex_destroy(&(*signal)->mutex);
    clattn__free(*signal);
    *signal = NULL;
}

void clattn__signal_raise(clattn__signal *signal) {
    pthread_mutex_lock(&signal->mutex);
    signal->raised = true;
    pthread_cond_signal(&signal->condition); /* under the lock: the other thread may destroy it as soon as it is free */
    pthread_mutex_unlock(&signal->mutex);
}

void clattn__signal_wait(clattn__signal *signal) {
    pthread_mutex_lock(&signal->mutex);
    while (!signal->raised) pthread_cond_wait(&signal->condition, &signal->mutex);
    pthread_mutex_unlock(&signal->mutex);
}
