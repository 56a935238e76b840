/* What was measured on this device: kept in memory, and in <cache>/tuning/<device>/<key>, where the key stands for all
 * that a measurement depends on: device, driver, platform, version of the library, compute units, limits, parameters of
 * CLBlast's that were overridden. A file is
 *
 *   clattn-tuning 2 <hash of all lines below>
 *   for <key> <device>, driver <driver>
 *   <workload> <kernel> <nanoseconds of a run, 0: not usable> <day> <values of all parameters>
 *   ...
 *
 * and is taken as a whole or not at all: at the first odd byte it is ignored, with a note. */
#include "registry/registry.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const MAGIC = "clattn-tuning 2 ";
enum { LARGEST_FILE = 256 * 1024, MOST_ROWS = 2048, HASH = 32 };

clattn_status clattn__tuning_create(clattn__tuning *tuning, bool ignored) {
    *tuning = (clattn__tuning){.lock = clattn__mutex_create(), .settling = clattn__mutex_create(), .ignored = ignored};
    if (tuning->lock && tuning->settling) return CLATTN_OK;
    return clattn__fail(CLATTN_OUT_OF_MEMORY, "no memory for the tuning record");
}

void clattn__tuning_clear(clattn__tuning *tuning) {
    clattn__free(tuning->rows);
    clattn__free(tuning->note);
    clattn__mutex_destroy(&tuning->lock);
    clattn__mutex_destroy(&tuning->settling);
    *tuning = (clattn__tuning){0};
}

/* ---- where it lies ----------------------------------------------------------------------------------------------- */

static void tuning_key(const clattn__env *env, char key[33]) {
    const clattn__caps *caps = &env->device.caps;
    char device[33], clblast[33];
    clattn__text text = {0};
    clattn__env_key(env, device);
    clattn__clblast_key(env, clblast);
    clattn__text_add(&text, "%s%s|%d|%u|%u|%llu|%llu|%d|%d|%d", device, clblast, (int)caps->type,
                     (unsigned)caps->compute_units, (unsigned)caps->vector_width,
                     (unsigned long long)caps->local_memory, (unsigned long long)caps->max_work_group,
                     caps->matrix.engine, caps->matrix.arch, caps->matrix.emulated);
    clattn__hash_hex(text.data ? text.data : "", text.data ? text.length : 0, key);
    clattn__text_free(&text);
}

/* The folder of this device, with every driver and version; NULL when nothing is kept. Caller frees. */
static char *folder_of(const clattn__env *env) {
    if (!env->cache_dir) return NULL;
    const clattn__caps *caps = &env->device.caps;
    char device[33];
    clattn__text text = {0};
    clattn__text_add(&text, "%s|%s", caps->platform, caps->name);
    clattn__hash_hex(text.data ? text.data : "", text.data ? text.length : 0, device);
    clattn__text_free(&text);
    clattn__text_add(&text, "%s/tuning/%s", env->cache_dir, device);
    if (text.failed) clattn__text_free(&text);
    return text.data;
}

static char *path_of(const clattn__env *env) {
    char key[33], *folder = folder_of(env);
    clattn__text text = {0};
    tuning_key(env, key);
    if (folder) clattn__text_add(&text, "%s/%s", folder, key);
    clattn__free(folder);
    if (text.failed) clattn__text_free(&text);
    return text.data;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static clattn__measured *find(const clattn__tuning *tuning, int workload, const char *kernel,
                              const clattn__params *params) {
    for (int i = 0; i < tuning->count; i++) {
        clattn__measured *row = &tuning->rows[i];
        if (row->workload == workload && strcmp(row->kernel, kernel) == 0 &&
            memcmp(&row->params, params, sizeof *params) == 0)
            return row;
    }
    return NULL;
}

static bool add(clattn__tuning *tuning, const clattn__measured *row) {
    if (tuning->count == tuning->capacity) {
        const int capacity = tuning->capacity ? 2 * tuning->capacity : 64;
        clattn__measured *rows = capacity > MOST_ROWS ? NULL : clattn__alloc((size_t)capacity, sizeof *rows);
        if (!rows) return false;
        if (tuning->count) memcpy(rows, tuning->rows, (size_t)tuning->count * sizeof *rows);
        clattn__free(tuning->rows);
        tuning->rows = rows;
        tuning->capacity = capacity;
    }
    tuning->rows[tuning->count++] = *row;
    return true;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* A word up to a blank or the line's end, not longer than its room; *at moves behind it and one blank. */
static bool take_word(const char **at, char *word, size_t capacity) {
    const size_t length = strcspn(*at, " \n");
    if (length == 0 || length >= capacity) return false;
    memcpy(word, *at, length);
    word[length] = '\0';
    *at += length + ((*at)[length] == ' ');
    return true;
}

static bool take_number(const char **at, long long low, long long high, long long *value) {
    char word[24], *end;
    if (!take_word(at, word, sizeof word)) return false;
    errno = 0;
    *value = strtoll(word, &end, 10);
    return *end == '\0' && errno == 0 && *value >= low && *value <= high;
}

static bool take_row(const char **at, clattn__measured *row) {
    char workload[sizeof row->kernel];
    long long value;
    memset(row, 0, sizeof *row);
    if (!take_word(at, workload, sizeof workload) || !take_word(at, row->kernel, sizeof row->kernel)) return false;
    row->workload = clattn__workload_named(workload);
    if (row->workload < 0 || !take_number(at, 0, 1000000000000, &row->nanoseconds)) return false;
    if (!take_number(at, 0, 99991231, &value)) return false;
    row->day = (int)value;
    for (int i = 0; i < CLATTN__PARAMS; i++) {
        if (!take_number(at, -1000000, 1000000, &value)) return false;
        row->params.value[i] = (int)value;
    }
    return *(*at)++ == '\n';
}

/* Why the text is not used; NULL when all of it was taken. */
static const char *parse(clattn__tuning *tuning, const char *text, size_t count, const char *key) {
    const size_t magic = strlen(MAGIC);
    char hash[HASH + 1];
    if (count != strlen(text) || strncmp(text, MAGIC, magic) != 0) return "it is not a tuning file of this version";
    if (count < magic + HASH + 1 || text[magic + HASH] != '\n') return "it is cut short";
    const char *at = text + magic + HASH + 1;
    clattn__hash_hex(at, count - (size_t)(at - text), hash);
    if (memcmp(hash, text + magic, HASH) != 0) return "its checksum is wrong";
    if (strncmp(at, "for ", 4) != 0 || strncmp(at + 4, key, HASH) != 0)
        return "it was made for another device, driver or version";
    at = strchr(at, '\n');
    for (at = at ? at + 1 : ""; *at;) {
        clattn__measured row;
        if (!take_row(&at, &row)) return "it holds a line that is no measurement";
        if (find(tuning, row.workload, row.kernel, &row.params)) return "it holds a measurement twice";
        if (!add(tuning, &row)) return "it is too large";
    }
    return NULL;
}

static void count_name(void *user, const char *name) {
    if (strlen(name) == HASH) ++*(int *)user;
}

static void set_note(clattn_context *context, const char *path, const char *why) {
    clattn__text note = {0};
    clattn__text_add(&note, "%s is ignored: %s; clattn tune measures anew", path, why);
    context->tuning.note = note.data;
    if (note.data) clattn__log_text(&context->env.log, CLATTN_LOG_WARNING, "%s", note.data);
}

/* With the lock held; once per context. */
static void load(clattn_context *context) {
    clattn__tuning *tuning = &context->tuning;
    if (tuning->loaded) return;
    tuning->loaded = true;
    char key[33], *path = path_of(&context->env), *folder = folder_of(&context->env);
    size_t count = 0, bytes = 0;
    tuning_key(&context->env, key);
    const bool there = path && clattn__os_file_info(path, &bytes, NULL);
    char *text = there ? clattn__os_read_file(path, LARGEST_FILE, &count) : NULL;
    const char *why = text ? parse(tuning, text, count, key) : "it cannot be read";
    if (there && why) {
        tuning->count = 0;
        set_note(context, path, why);
    } else if (!there && folder) {
        int others = 0;
        clattn__os_list_dir(folder, count_name, &others);
        if (others) set_note(context, folder, "it was made with another driver, version or part of the device");
    }
    clattn__free(text);
    clattn__free(path);
    clattn__free(folder);
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

/* The fastest usable row of a kernel, or of any kernel when it is NULL. The first row measured, which is the own
 * choice, counts as faster unless another one saves more than noise would. */
static const clattn__measured *best(const clattn__tuning *tuning, int workload, const char *kernel,
                                    const clattn__measured **own) {
    const clattn__measured *first = NULL, *fastest = NULL;
    for (int i = 0; i < tuning->count; i++) {
        const clattn__measured *row = &tuning->rows[i];
        if (row->workload != workload || row->nanoseconds <= 0) continue;
        if (kernel && strcmp(row->kernel, kernel) != 0) continue;
        if (!first) first = row;
        if (!fastest || row->nanoseconds < fastest->nanoseconds) fastest = row;
    }
    if (own) *own = first;
    if (first && (double)fastest->nanoseconds > CLATTN__WORTH * (double)first->nanoseconds) return first;
    return fastest;
}

bool clattn__tuning_best(clattn_context *context, int workload, const char *kernel, clattn__measured *row) {
    clattn__mutex_lock(context->tuning.lock);
    load(context);
    const clattn__measured *found = context->tuning.ignored ? NULL : best(&context->tuning, workload, kernel, NULL);
    if (found) *row = *found;
    clattn__mutex_unlock(context->tuning.lock);
    return found != NULL;
}

bool clattn__tuning_find(clattn_context *context, clattn__measured *row) {
    clattn__mutex_lock(context->tuning.lock);
    load(context);
    const clattn__measured *found = find(&context->tuning, row->workload, row->kernel, &row->params);
    if (found) *row = *found;
    clattn__mutex_unlock(context->tuning.lock);
    return found != NULL;
}

int clattn__tuning_sets(clattn_context *context, int workload, const char *kernel) {
    int sets = 0;
    clattn__mutex_lock(context->tuning.lock);
    load(context);
    for (int i = 0; i < context->tuning.count; i++)
        sets += context->tuning.rows[i].workload == workload && strcmp(context->tuning.rows[i].kernel, kernel) == 0;
    clattn__mutex_unlock(context->tuning.lock);
    return sets;
}

void clattn__tuning_note(clattn_context *context, clattn__text *text) {
    clattn__mutex_lock(context->tuning.lock);
    load(context);
    if (context->tuning.note && !context->tuning.ignored) clattn__text_add(text, "tuning: %s\n", context->tuning.note);
    clattn__mutex_unlock(context->tuning.lock);
}

static bool is_first_of_kernel(const clattn__tuning *tuning, int index) {
    const clattn__measured *row = &tuning->rows[index];
    for (int i = 0; i < index; i++)
        if (tuning->rows[i].workload == row->workload && strcmp(tuning->rows[i].kernel, row->kernel) == 0) return false;
    return true;
}

bool clattn__tuning_get(clattn_context *context, int index, clattn__measured *row, double *own_seconds,
                        bool *preferred) {
    const clattn__measured *chosen = NULL, *own = NULL;
    clattn__mutex_lock(context->tuning.lock);
    load(context);
    const clattn__tuning *tuning = &context->tuning;
    for (int i = 0; i < tuning->count && !chosen; i++) {
        if (!is_first_of_kernel(tuning, i)) continue;
        chosen = best(tuning, tuning->rows[i].workload, tuning->rows[i].kernel, &own);
        if (chosen && index-- > 0) chosen = NULL;
    }
    if (chosen) {
        *row = *chosen;
        *own_seconds = 1e-9 * (double)own->nanoseconds;
        *preferred = strcmp(best(tuning, chosen->workload, NULL, NULL)->kernel, chosen->kernel) == 0;
    }
    clattn__mutex_unlock(context->tuning.lock);
    return chosen != NULL;
}

/* ---- keeping ----------------------------------------------------------------------------------------------------- */

void clattn__tuning_forget(clattn_context *context) {
    clattn__mutex_lock(context->tuning.lock);
    load(context);
    context->tuning.count = 0;
    context->tuning.renewed = true;
    clattn__mutex_unlock(context->tuning.lock);
}

clattn_status clattn__tuning_record(clattn_context *context, const clattn__measured *row) {
    clattn__mutex_lock(context->tuning.lock);
    load(context);
    clattn__measured *before = find(&context->tuning, row->workload, row->kernel, &row->params);
    clattn__measured today = *row;
    today.day = clattn__os_day();
    if (before) *before = today;
    const bool kept = before || add(&context->tuning, &today);
    clattn__mutex_unlock(context->tuning.lock);
    return kept ? CLATTN_OK : clattn__fail(CLATTN_OUT_OF_MEMORY, "no memory for the measurement");
}

static void write_rows(const clattn_context *context, clattn__text *text) {
    const clattn__caps *caps = &context->env.device.caps;
    char key[33];
    tuning_key(&context->env, key);
    clattn__text_add(text, "for %s %s, driver %s\n", key, caps->name, caps->driver);
    for (int i = 0; i < context->tuning.count; i++) {
        const clattn__measured *row = &context->tuning.rows[i];
        clattn__text_add(text, "%s %s %lld %d", clattn__workloads[row->workload].name, row->kernel, row->nanoseconds,
                         row->day);
        for (int p = 0; p < CLATTN__PARAMS; p++) clattn__text_add(text, " %d", row->params.value[p]);
        clattn__text_add(text, "\n");
    }
}

/* Takes over what another process has measured since the file was read. Its rows go behind those that are here, in
 * their order, so that each kernel's own choice stays before its others. */
static void merge_file(clattn_context *context, const char *path) {
    clattn__tuning theirs = {0}, *ours = &context->tuning;
    char key[33];
    size_t count = 0;
    tuning_key(&context->env, key);
    char *text = ours->renewed ? NULL : clattn__os_read_file(path, LARGEST_FILE, &count);
    if (text && !parse(&theirs, text, count, key))
        for (int i = 0; i < theirs.count; i++) {
            const clattn__measured *row = &theirs.rows[i];
            if (!find(ours, row->workload, row->kernel, &row->params) && !add(ours, row)) break;
        }
    clattn__free(text);
    clattn__free(theirs.rows);
}

static clattn_status write_file(clattn_context *context, const char *path) {
    char hash[33];
    clattn__text body = {0}, file = {0};
    clattn_status status = CLATTN_OK;
    write_rows(context, &body);
    clattn__hash_hex(body.data ? body.data : "", body.length, hash);
    clattn__text_add(&file, "%s%s\n%s", MAGIC, hash, body.data ? body.data : "");
    if (body.failed || file.failed)
        status = clattn__fail(CLATTN_OUT_OF_MEMORY, "no memory for the tuning file");
    else if (!clattn__os_write_file(path, file.data, file.length))
        status =
            clattn__fail(CLATTN_FILE_FAILED, "%s cannot be written: the folder or the disk does not take it", path);
    clattn__text_free(&body);
    clattn__text_free(&file);
    return status;
}

/* Two processes may tune at once: each adds its rows to what the other has written. */
static clattn_status save_locked(clattn_context *context, const char *path) {
    clattn__text name = {0};
    clattn__text_add(&name, "%s.lock", path);
    const int lock = name.failed ? -1 : clattn__os_lock(name.data);
    merge_file(context, path);
    const clattn_status status = write_file(context, path);
    clattn__os_unlock(lock);
    clattn__text_free(&name);
    if (status != CLATTN_OK) return status;
    context->tuning.renewed = false;
    clattn__free(context->tuning.note); /* what was odd is replaced */
    context->tuning.note = NULL;
    return CLATTN_OK;
}

clattn_status clattn__tuning_save(clattn_context *context) {
    if (!context->env.cache_dir)
        return clattn__fail(CLATTN_FILE_FAILED, "the context has no cache folder to keep measurements in");
    char *folder = folder_of(&context->env), *path = path_of(&context->env);
    clattn_status status = folder && path ? CLATTN_OK : CLATTN_OUT_OF_MEMORY;
    if (status == CLATTN_OK && !clattn__os_make_dirs(folder))
        status = clattn__fail(CLATTN_FILE_FAILED, "%s cannot be written: the folder cannot be made", path);
    clattn__mutex_lock(context->tuning.lock);
    load(context);
    if (status == CLATTN_OK) status = save_locked(context, path);
    clattn__mutex_unlock(context->tuning.lock);
    clattn__free(folder);
    clattn__free(path);
    return status;
}
