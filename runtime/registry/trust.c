/* The trust record: kernel variants that reproduced the reference on this device and driver, and those that did not.
 * In memory for the life of a context; on disk as one small file per variant, so that processes never fight over one
 * file: <cache>/trust/<device>/<variant>, whose first line is "clattn-trust 1 verified" or "clattn-trust 1 quarantined"
 * and whose rest says which variant it was. Anything else in a file counts as unknown, and the variant is verified
 * again. */
#include "registry/registry.h"

#include <string.h>

static const char *const VERIFIED = "clattn-trust 1 verified\n";
static const char *const QUARANTINED = "clattn-trust 1 quarantined\n";
enum { LARGEST_RECORD = 64 * 1024 };

clattn_status clattn__trust_create(clattn__trust *trust) {
    *trust = (clattn__trust){.lock = clattn__mutex_create()};
    return trust->lock ? CLATTN_OK : clattn__fail(CLATTN_OUT_OF_MEMORY, "no memory for the trust record");
}

void clattn__trust_clear(clattn__trust *trust) {
    for (clattn__trust_entry *entry = trust->first, *next; entry; entry = next) {
        next = entry->next;
        clattn__free(entry->detail);
        clattn__free(entry);
    }
    trust->first = NULL;
    clattn__mutex_destroy(&trust->lock);
}

void clattn__trust_key(const clattn__env *env, const char *program_key, char key[33]) {
    char device[33];
    clattn__text text = {0};
    clattn__env_key(env, device);
    clattn__text_add(&text, "%s|%s", device, program_key);
    clattn__hash_hex(text.data ? text.data : program_key, text.data ? text.length : strlen(program_key), key);
    clattn__text_free(&text);
}

static clattn__trust_entry *find(clattn__trust *trust, const char *key) {
    for (clattn__trust_entry *entry = trust->first; entry; entry = entry->next)
        if (strcmp(entry->key, key) == 0) return entry;
    return NULL;
}

static void remember(clattn__trust *trust, const char *key, clattn_trust state, const char *detail) {
    clattn__trust_entry *entry = find(trust, key);
    if (!entry) {
        entry = clattn__alloc(1, sizeof *entry);
        if (!entry) return; /* it is verified again next time */
        memcpy(entry->key, key, sizeof entry->key);
        entry->next = trust->first;
        trust->first = entry;
    }
    clattn__free(entry->detail);
    entry->detail = clattn__strdup(detail);
    entry->state = state;
}

/* The path of a record, or of the device's folder when key is ""; NULL when nothing is kept on disk. Caller frees. */
static char *record_path(const clattn__env *env, const char *key) {
    if (!env->cache_dir) return NULL;
    char device[33];
    clattn__text path = {0};
    clattn__env_key(env, device);
    clattn__text_add(&path, "%s/trust/%s%s%s", env->cache_dir, device, key[0] ? "/" : "", key);
    if (path.failed) clattn__text_free(&path);
    return path.data;
}

static clattn_trust read_record(clattn_context *context, const char *key) {
    char *path = record_path(&context->env, key);
    size_t count = 0;
    char *text = path ? clattn__os_read_file(path, LARGEST_RECORD, &count) : NULL;
    clattn_trust state = CLATTN_TRUST_UNKNOWN;
    const char *detail = NULL;
    if (text && strncmp(text, VERIFIED, strlen(VERIFIED)) == 0) {
        state = CLATTN_TRUST_VERIFIED;
        detail = text + strlen(VERIFIED);
    } else if (text && strncmp(text, QUARANTINED, strlen(QUARANTINED)) == 0) {
        state = CLATTN_TRUST_QUARANTINED;
        detail = text + strlen(QUARANTINED);
    } else if (text) {
        clattn__log_text(&context->env.log, CLATTN_LOG_WARNING,
                         "%s is not a trust record; the kernel is verified again", path);
    }
    if (detail) remember(&context->trust, key, state, detail);
    clattn__free(text);
    clattn__free(path);
    return state;
}

clattn_trust clattn__trust_get(clattn_context *context, const char *key) {
    clattn__mutex_lock(context->trust.lock);
    const clattn__trust_entry *entry = find(&context->trust, key);
    clattn_trust state = entry ? entry->state : CLATTN_TRUST_UNKNOWN;
    if (!entry && context->env.verify == CLATTN_VERIFY_ONCE) state = read_record(context, key);
    clattn__mutex_unlock(context->trust.lock);
    return state;
}

void clattn__trust_set(clattn_context *context, const char *key, clattn_trust state, const char *detail) {
    clattn__mutex_lock(context->trust.lock);
    remember(&context->trust, key, state, detail);
    clattn__mutex_unlock(context->trust.lock);
    char *folder = record_path(&context->env, ""), *path = record_path(&context->env, key);
    if (folder && !clattn__os_make_dirs(folder)) {
        clattn__free(path);
        path = NULL;
    }
    clattn__free(folder);
    clattn__text text = {0};
    clattn__text_add(&text, "%s%s\n%s, driver %s\n", state == CLATTN_TRUST_VERIFIED ? VERIFIED : QUARANTINED, detail,
                     context->env.device.caps.name, context->env.device.caps.driver);
    if (path && !text.failed && !clattn__os_write_file(path, text.data, text.length))
        clattn__log_text(&context->env.log, CLATTN_LOG_DEBUG,
                         "the trust record %s could not be written; nothing depends on it", path);
    clattn__text_free(&text);
    clattn__free(path);
}

clattn_status clattn__trust_quarantined(clattn_context *context, const char *name, const char *key) {
    clattn__mutex_lock(context->trust.lock);
    const clattn__trust_entry *entry = find(&context->trust, key);
    clattn_status status = clattn__fail(CLATTN_WRONG_RESULT, "%s is quarantined on this device and driver: %s", name,
                                        entry && entry->detail ? entry->detail : "it did not reproduce the reference");
    clattn__mutex_unlock(context->trust.lock);
    return status;
}

static void read_one(void *user, const char *name) {
    clattn_context *context = user;
    if (strlen(name) == 32 && !find(&context->trust, name)) read_record(context, name);
}

void clattn__trust_load(clattn_context *context) {
    if (context->env.verify != CLATTN_VERIFY_ONCE) return;
    char *folder = record_path(&context->env, "");
    clattn__mutex_lock(context->trust.lock);
    if (folder) clattn__os_list_dir(folder, read_one, context);
    clattn__mutex_unlock(context->trust.lock);
    clattn__free(folder);
}
