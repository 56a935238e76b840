#include <string.h>

#include "api/check_kv_cache.h"
#include "api/rules.h"
#include "clattn/interop.h"

enum { PUT_INTS = CLATTN__PUT_BYTES / sizeof(int32_t) };

/* What a cache holds: keys, values and their scales. */
enum { KEY = 0, VALUE, KEY_SCALES, VALUE_SCALES, CELLS };

struct clattn_kv_cache {
    clattn_context *context;
    clattn__kv_desc desc;
    clattn__kv_plan append, attend;
    clattn__kv_plan read; /* made by the first read */
    clattn__buffer cells[CELLS];
    /* Both sides of what changes from call to call; the host's is what counts. The rows of device tensors are padded to
     * PUT_INTS elements. */
    clattn__buffer lengths_mem; /* (2, B): tokens of each entry; keys that a ring holds of them */
    clattn__buffer table_mem;   /* (B, M) */
    int32_t *lengths, *kept;    /* (B) */
    int32_t *lost;              /* (B): how many of the first tokens a ring has overwritten */
    int32_t *table;             /* (B, M), -1: no page */
    int32_t *free_pages;        /* a stack */
    int64_t free_count;
    size_t padded_batch, padded_table; /* elements */
    size_t held_bytes;
    clattn__text explain;
};

static size_t padded(int64_t count) { return ((size_t)count + PUT_INTS - 1) / PUT_INTS * PUT_INTS; }

static clattn__env *env_of(const clattn_kv_cache *cache) { return &cache->context->env; }

static bool is_paged(const clattn_kv_cache *cache) { return cache->desc.layout == CLATTN_KV_PAGED; }

/* ---- creation -------------------------------------------------------------------------------------------------- */

static clattn_status make_cells(clattn_kv_cache *cache) {
    const clattn__kv_desc *d = &cache->desc;
    const clattn_attention_desc *a = &d->attention;
    const bool paged = is_paged(cache), bytes = d->storage == CLATTN_I8;
    const struct {
        int64_t width;
        size_t unit;
        bool wanted;
    } rows[CELLS] = {[KEY] = {a->head_dim, clattn_dtype_size(d->storage), true},
                     [VALUE] = {a->value_dim, clattn_dtype_size(d->storage), true},
                     [KEY_SCALES] = {1, sizeof(float), bytes},
                     [VALUE_SCALES] = {1, sizeof(float), bytes}};
    for (int i = 0; i < CELLS && !d->caller_memory; i++) {
        const int64_t extents[4] = {paged ? d->pages : a->batch, a->kv_heads, paged ? d->page_size : a->kv_len,
                                    rows[i].width};
        size_t size;
        if (!rows[i].wanted) continue;
        if (!clattn__volume(extents, 4, rows[i].unit, &size))
            return clattn__fail(CLATTN_OUT_OF_MEMORY, "the keys or values are larger than the address space");
        CLATTN__TRY(clattn__buffer_create(env_of(cache), size, &cache->cells[i]));
        cache->held_bytes += cache->cells[i].bytes;
    }
    return CLATTN_OK;
}

static clattn_status make_mirrors(clattn_kv_cache *cache) {
    const clattn__kv_desc *d = &cache->desc;
    const bool paged = is_paged(cache) && !d->caller_memory;
    cache->padded_batch = padded(d->attention.batch);
    cache->lengths = clattn__alloc(3 * cache->padded_batch + 1, sizeof *cache->lengths);
    if (!cache->lengths) return CLATTN_OUT_OF_MEMORY;
    cache->kept = cache->lengths + cache->padded_batch;
    cache->lost = cache->kept + cache->padded_batch;
    CLATTN__TRY(clattn__buffer_create(env_of(cache), 2 * cache->padded_batch * sizeof(int32_t), &cache->lengths_mem));
    if (!paged) return CLATTN_OK;
    const int64_t extents[2] = {d->attention.batch, d->table_columns};
    size_t size;
    if (!clattn__volume(extents, 2, sizeof(int32_t), &size))
        return clattn__fail(CLATTN_OUT_OF_MEMORY, "the block table is larger than the address space");
    cache->padded_table = padded((int64_t)(size / sizeof(int32_t)));
    cache->table = clattn__alloc(cache->padded_table + 1, sizeof *cache->table);
    cache->free_pages = clattn__alloc((size_t)d->pages, sizeof *cache->free_pages);
    if (!cache->table || !cache->free_pages) return CLATTN_OUT_OF_MEMORY;
    for (size_t i = 0; i < cache->padded_table; i++) cache->table[i] = -1;
    for (int64_t i = 0; i < d->pages; i++) cache->free_pages[i] = (int32_t)(d->pages - 1 - i); /* page 0 goes first */
    cache->free_count = d->pages;
    size = cache->padded_table * sizeof(int32_t);
    CLATTN__TRY(clattn__buffer_create(env_of(cache), size, &cache->table_mem));
    return clattn__buffer_write(env_of(cache), cache->table_mem.mem, 0, size, cache->table);
}

/* The device's lengths follow the host's. */
static clattn_status put_lengths(clattn_kv_cache *cache) {
    const clattn__kv_desc *d = &cache->desc;
    for (int64_t b = 0; b < d->attention.batch; b++)
        cache->kept[b] = cache->lengths[b] < d->attention.kv_len ? cache->lengths[b] : (int32_t)d->attention.kv_len;
    return clattn__buffer_put(env_of(cache), cache->lengths_mem.mem, 0, 2 * cache->padded_batch * sizeof(int32_t),
                              cache->lengths);
}

static clattn_status describe(clattn_kv_cache *cache) {
    static const char *const layouts[] = {"dense", "ring", "paged"};
    const clattn__kv_desc *d = &cache->desc;
    const clattn_attention_desc *a = &d->attention;
    clattn__text *text = &cache->explain;
    clattn__text_add(text, "key/value cache: %s, %lld x %lld heads x %lld tokens, %lld + %lld elements of %s",
                     layouts[d->layout], (long long)a->batch, (long long)a->kv_heads, (long long)a->kv_len,
                     (long long)a->head_dim, (long long)a->value_dim, clattn_dtype_name(d->storage));
    if (is_paged(cache))
        clattn__text_add(text, ", %lld pages of %lld tokens", (long long)d->pages, (long long)d->page_size);
    clattn__text_add(text, d->caller_memory ? ", in the caller's memory\n" : ", %zu bytes\n", cache->held_bytes);
    clattn__text_add(text, "%s%s", cache->append.plan.explain.data, cache->attend.plan.explain.data);
    return text->failed ? clattn__fail(CLATTN_OUT_OF_MEMORY, "no memory for the explanation of the cache") : CLATTN_OK;
}

clattn_status clattn_kv_cache_create(clattn_kv_cache **out, clattn_context *context, const clattn_kv_cache_desc *desc) {
    if (out) *out = NULL;
    if (!out || !context) return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is NULL", out ? "context" : "out");
    clattn__kv_desc resolved;
    CLATTN__TRY(clattn__check_kv_desc(desc, &resolved));
    clattn_kv_cache *cache = clattn__alloc(1, sizeof *cache);
    if (!cache) return CLATTN_OUT_OF_MEMORY;
    cache->context = context;
    cache->desc = resolved;
    clattn_status status = clattn__plan_kv_append(&cache->append, context, &resolved);
    if (status == CLATTN_OK) status = clattn__plan_kv_attend(&cache->attend, context, &resolved);
    /* what was borrowed is not needed any more */
    memset(&cache->desc.cosine, 0, sizeof cache->desc.cosine);
    memset(&cache->desc.sine, 0, sizeof cache->desc.sine);
    cache->desc.attention.kernel = NULL;
    if (status == CLATTN_OK) status = make_cells(cache);
    if (status == CLATTN_OK) status = make_mirrors(cache);
    if (status == CLATTN_OK) status = put_lengths(cache);
    if (status == CLATTN_OK) status = describe(cache);
    if (status != CLATTN_OK) clattn_kv_cache_destroy(&cache);
    *out = cache;
    return status;
}

void clattn_kv_cache_destroy(clattn_kv_cache **handle) {
    if (!handle || !*handle) return;
    clattn_kv_cache *cache = *handle;
    clattn__plan_clear(&cache->append.plan);
    clattn__plan_clear(&cache->attend.plan);
    clattn__plan_clear(&cache->read.plan);
    for (int i = 0; i < CELLS; i++) clattn__buffer_clear(env_of(cache), &cache->cells[i]);
    clattn__buffer_clear(env_of(cache), &cache->lengths_mem);
    clattn__buffer_clear(env_of(cache), &cache->table_mem);
    clattn__free(cache->lengths);
    clattn__free(cache->table);
    clattn__free(cache->free_pages);
    clattn__text_free(&cache->explain);
    clattn__free(cache);
    *handle = NULL;
}

/* ---- pages ----------------------------------------------------------------------------------------------------- */

static int64_t pages_for(const clattn_kv_cache *cache, int64_t tokens) {
    return (tokens + cache->desc.page_size - 1) / cache->desc.page_size;
}

static clattn_status put_table(clattn_kv_cache *cache, int64_t entry) {
    const size_t columns = (size_t)cache->desc.table_columns, first = (size_t)entry * columns / PUT_INTS * PUT_INTS;
    const size_t end = padded((int64_t)(((size_t)entry + 1) * columns));
    return clattn__buffer_put(env_of(cache), cache->table_mem.mem, first * sizeof(int32_t),
                              (end - first) * sizeof(int32_t), cache->table + first);
}

/* Pages of an entry that will hold `tokens`: more from the stack, or those that are too many back to it. Whether the
 * entry's row of the host's table changed. */
static bool assign_pages(clattn_kv_cache *cache, int64_t entry, int64_t tokens) {
    int32_t *row = cache->table + entry * cache->desc.table_columns;
    const int64_t wanted = pages_for(cache, tokens);
    bool changed = false;
    for (int64_t m = cache->desc.table_columns - 1; m >= wanted; m--) {
        if (row[m] < 0) continue;
        cache->free_pages[cache->free_count++] = row[m];
        row[m] = -1;
        changed = true;
    }
    for (int64_t m = 0; m < wanted; m++) {
        if (row[m] >= 0) continue;
        row[m] = cache->free_pages[--cache->free_count];
        changed = true;
    }
    return changed;
}

static clattn_status set_pages(clattn_kv_cache *cache, int64_t entry, int64_t tokens) {
    return assign_pages(cache, entry, tokens) ? put_table(cache, entry) : CLATTN_OK;
}

/* What an append took that failed. The device's table keeps it: nothing reads there beyond an entry's length, and the
 * next append that takes pages writes the row anew. */
static void return_pages(clattn_kv_cache *cache) {
    for (int64_t b = 0; b < cache->desc.attention.batch; b++) (void)assign_pages(cache, b, cache->lengths[b]);
}

static clattn_status take_pages(clattn_kv_cache *cache, int64_t added) {
    const int64_t B = cache->desc.attention.batch;
    int64_t wanted = 0;
    for (int64_t b = 0; b < B; b++)
        wanted += pages_for(cache, cache->lengths[b] + added) - pages_for(cache, cache->lengths[b]);
    if (wanted > cache->free_count)
        return clattn__fail(CLATTN_OUT_OF_MEMORY, "%lld more tokens per entry need %lld pages; %lld of %lld are free",
                            (long long)added, (long long)wanted, (long long)cache->free_count,
                            (long long)cache->desc.pages);
    for (int64_t b = 0; b < B; b++) CLATTN__TRY(set_pages(cache, b, cache->lengths[b] + added));
    return CLATTN_OK;
}

/* ---- tensors of a call ----------------------------------------------------------------------------------------- */

static clattn_tensor view(const clattn__buffer *buffer, int64_t offset, clattn_dtype dtype, int rank, int64_t n0,
                          int64_t n1, int64_t n2, int64_t n3) {
    clattn_tensor t = clattn_mem(buffer->mem, dtype, rank, n0, n1, n2, n3);
    t.offset = offset;
    for (int64_t i = rank - 1, step = 1; i >= 0; step *= t.shape[i--]) t.stride[i] = step;
    return t;
}

/* The cache's own memory, or the caller's: checked, with lengths on the device. `added` tokens will follow. */
static clattn_status memory_of(clattn_kv_cache *cache, const clattn_kv_memory *given, bool writes, int64_t added,
                               clattn_kv_memory *m) {
    const clattn__kv_desc *d = &cache->desc;
    const clattn_attention_desc *a = &d->attention;
    CLATTN__TRY(clattn__check_kv_memory(d, d->caller_memory, writes, given, m));
    const bool known = !m->lengths.mem; /* by the host */
    if (d->caller_memory && known) CLATTN__TRY(clattn__check_kv_lengths(d, &m->lengths, cache->lengths));
    if (known) CLATTN__TRY(clattn__check_kv_growth(d, cache->lengths, added));
    if (d->caller_memory && known) CLATTN__TRY(clattn__check_kv_table(d, &m->block_table, cache->lengths, added));
    if (d->caller_memory && known) CLATTN__TRY(put_lengths(cache));
    if (known) m->lengths = view(&cache->lengths_mem, 0, CLATTN_I32, 1, a->batch, 0, 0, 0);
    if (d->caller_memory) return CLATTN_OK;
    const bool paged = is_paged(cache);
    const int64_t entries = paged ? d->pages : a->batch, rows = paged ? d->page_size : a->kv_len, H = a->kv_heads;
    /* pages of the cache's own are (N, Hkv, page_size, D): a head's keys lie together */
    m->key = view(&cache->cells[KEY], 0, d->storage, 4, entries, H, rows, a->head_dim);
    m->value = view(&cache->cells[VALUE], 0, d->storage, 4, entries, H, rows, a->value_dim);
    if (paged) m->block_table = view(&cache->table_mem, 0, CLATTN_I32, 2, a->batch, d->table_columns, 0, 0);
    if (d->storage != CLATTN_I8) return CLATTN_OK;
    m->key_scales = view(&cache->cells[KEY_SCALES], 0, CLATTN_F32, 4, entries, H, rows, 1);
    m->value_scales = view(&cache->cells[VALUE_SCALES], 0, CLATTN_F32, 4, entries, H, rows, 1);
    return CLATTN_OK;
}

static int64_t most_kept(const clattn_kv_cache *cache) {
    int64_t most = 0;
    for (int64_t b = 0; b < cache->desc.attention.batch; b++)
        if (cache->kept[b] > most) most = cache->kept[b];
    return most;
}

/* ---- append ---------------------------------------------------------------------------------------------------- */

static clattn_status append(clattn_kv_cache *cache, const clattn_kv_append_io *io, bool blocking, cl_uint waits,
                            const cl_event *wait_list, cl_event *event) {
    if (!cache) return clattn__fail(CLATTN_INVALID_ARGUMENT, "cache is NULL");
    clattn_kv_append_io all;
    CLATTN__TRY(clattn__check_kv_append(&cache->desc, io, &all));
    const int64_t added = all.key.shape[2];
    CLATTN__TRY(memory_of(cache, &io->memory, true, added, &all.memory));
    const bool own = !cache->desc.caller_memory, pages = own && is_paged(cache);
    clattn__kv_plan_rows(&cache->append, added, 0);
    const clattn_tensor tensors[CLATTN__ROLE_COUNT] = {
        [CLATTN__ROLE_KEY] = all.key,
        [CLATTN__ROLE_VALUE] = all.value,
        [CLATTN__ROLE_POSITIONS] = all.memory.lengths,
        [CLATTN__ROLE_TABLE] = all.memory.block_table,
        [CLATTN__ROLE_KEY_CACHE] = all.memory.key,
        [CLATTN__ROLE_VALUE_CACHE] = all.memory.value,
        [CLATTN__ROLE_KEY_CACHE_SCALES] = all.memory.key_scales,
        [CLATTN__ROLE_VALUE_CACHE_SCALES] = all.memory.value_scales,
    };
    clattn_status status = pages ? take_pages(cache, added) : CLATTN_OK;
    if (status == CLATTN_OK) status = clattn__plan_run(&cache->append.plan, tensors, blocking, waits, wait_list, event);
    if (status != CLATTN_OK && pages) return_pages(cache);
    if (status != CLATTN_OK || !own) return status;
    for (int64_t b = 0; b < cache->desc.attention.batch; b++) {
        cache->lengths[b] += (int32_t)added;
        const int64_t lost = cache->lengths[b] - cache->desc.attention.kv_len;
        if (lost > cache->lost[b]) cache->lost[b] = (int32_t)lost;
    }
    return put_lengths(cache);
}

clattn_status clattn_kv_cache_append(clattn_kv_cache *cache, const clattn_kv_append_io *io) {
    return append(cache, io, true, 0, NULL, NULL);
}

clattn_status clattn_kv_cache_append_enqueue(clattn_kv_cache *cache, const clattn_kv_append_io *io, cl_uint waits,
                                             const cl_event *wait_list, cl_event *event) {
    return append(cache, io, false, waits, wait_list, event);
}

/* ---- attend ---------------------------------------------------------------------------------------------------- */

static clattn_status attend(clattn_kv_cache *cache, const clattn_kv_attend_io *io, bool blocking, cl_uint waits,
                            const cl_event *wait_list, cl_event *event) {
    if (!cache) return clattn__fail(CLATTN_INVALID_ARGUMENT, "cache is NULL");
    const clattn__kv_desc *d = &cache->desc;
    clattn_kv_attend_io all;
    CLATTN__TRY(clattn__check_kv_attend(d, io, &all));
    const int64_t rows = all.query.shape[2];
    CLATTN__TRY(memory_of(cache, &io->memory, false, 0, &all.memory));
    const bool known = all.memory.lengths.mem == cache->lengths_mem.mem;
    if (known) CLATTN__TRY(clattn__check_kv_rows(d, cache->lengths, rows));
    for (int64_t b = 0; b < d->attention.batch && known; b++)
        CLATTN__TRY(clattn__check_kv_window(d, cache->lost, b, cache->lengths[b], rows));
    clattn__kv_plan_rows(&cache->attend, rows, known ? most_kept(cache) : d->attention.kv_len);
    clattn_tensor keys = all.memory.lengths;
    if (known) keys.offset = (int64_t)cache->padded_batch;
    const clattn_tensor tensors[CLATTN__ROLE_COUNT] = {
        [CLATTN__ROLE_QUERY] = all.query,
        [CLATTN__ROLE_KEY] = all.memory.key,
        [CLATTN__ROLE_VALUE] = all.memory.value,
        [CLATTN__ROLE_KEY_SCALES] = all.memory.key_scales,
        [CLATTN__ROLE_VALUE_SCALES] = all.memory.value_scales,
        [CLATTN__ROLE_TABLE] = all.memory.block_table,
        [CLATTN__ROLE_POSITIONS] = all.memory.lengths,
        [CLATTN__ROLE_LENGTHS] = keys,
        [CLATTN__ROLE_ALIBI] = all.alibi,
        [CLATTN__ROLE_SINKS] = all.sinks,
        [CLATTN__ROLE_OUTPUT] = all.output,
        [CLATTN__ROLE_LSE] = all.logsumexp,
    };
    return clattn__plan_run(&cache->attend.plan, tensors, blocking, waits, wait_list, event);
}

clattn_status clattn_kv_cache_attend(clattn_kv_cache *cache, const clattn_kv_attend_io *io) {
    return attend(cache, io, true, 0, NULL, NULL);
}

clattn_status clattn_kv_cache_attend_enqueue(clattn_kv_cache *cache, const clattn_kv_attend_io *io, cl_uint waits,
                                             const cl_event *wait_list, cl_event *event) {
    return attend(cache, io, false, waits, wait_list, event);
}

/* ---- the rest -------------------------------------------------------------------------------------------------- */

static clattn_status check_own(const clattn_kv_cache *cache) {
    if (!cache) return clattn__fail(CLATTN_INVALID_ARGUMENT, "cache is NULL");
    if (cache->desc.caller_memory)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "this cache works on the caller's memory and holds no tokens");
    return CLATTN_OK;
}

clattn_status clattn_kv_cache_read(clattn_kv_cache *cache, const clattn_tensor *key, const clattn_tensor *value) {
    CLATTN__TRY(check_own(cache));
    if (!key || !value) return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is NULL", key ? "value" : "key");
    const clattn_attention_desc *a = &cache->desc.attention;
    const int64_t rows = key->rank == 4 ? key->shape[2] : 0;
    CLATTN__TRY(clattn__check_extent("key.shape[2]", rows, 0, a->kv_len));
    const clattn__tensor_rule keys = {"key", true, true, (int)a->dtype, 4, {a->batch, a->kv_heads, rows, a->head_dim}};
    const clattn__tensor_rule values = {"value",       true, true,
                                        (int)a->dtype, 4,    {a->batch, a->kv_heads, rows, a->value_dim}};
    clattn_tensor tensors[CLATTN__ROLE_COUNT] = {{0}};
    clattn_kv_memory none, memory;
    memset(&none, 0, sizeof none);
    CLATTN__TRY(clattn__check_tensor(&keys, key, &tensors[CLATTN__ROLE_KEY_CACHE]));
    CLATTN__TRY(clattn__check_tensor(&values, value, &tensors[CLATTN__ROLE_VALUE_CACHE]));
    CLATTN__TRY(memory_of(cache, &none, false, 0, &memory));
    if (!cache->read.plan.context) {
        clattn_status status = clattn__plan_kv_read(&cache->read, cache->context, &cache->desc);
        if (status != CLATTN_OK) {
            clattn__plan_clear(&cache->read.plan);
            return status;
        }
    }
    tensors[CLATTN__ROLE_KEY] = memory.key;
    tensors[CLATTN__ROLE_VALUE] = memory.value;
    tensors[CLATTN__ROLE_KEY_SCALES] = memory.key_scales;
    tensors[CLATTN__ROLE_VALUE_SCALES] = memory.value_scales;
    tensors[CLATTN__ROLE_TABLE] = memory.block_table;
    tensors[CLATTN__ROLE_POSITIONS] = memory.lengths;
    clattn__kv_plan_rows(&cache->read, 0, rows);
    return clattn__plan_run(&cache->read.plan, tensors, true, 0, NULL, NULL);
}

int64_t clattn_kv_cache_length(const clattn_kv_cache *cache, int64_t entry) {
    if (!cache || cache->desc.caller_memory || entry < 0 || entry >= cache->desc.attention.batch) return -1;
    return cache->lengths[entry];
}

clattn_status clattn_kv_cache_truncate(clattn_kv_cache *cache, int64_t entry, int64_t length) {
    CLATTN__TRY(check_own(cache));
    if (entry < 0 || entry >= cache->desc.attention.batch)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "entry is %lld; the cache has %lld", (long long)entry,
                            (long long)cache->desc.attention.batch);
    if (length < 0 || length > cache->lengths[entry])
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "length is %lld; entry %lld holds %d tokens", (long long)length,
                            (long long)entry, cache->lengths[entry]);
    if (length > 0) CLATTN__TRY(clattn__check_kv_window(&cache->desc, cache->lost, entry, length, 0));
    if (is_paged(cache)) CLATTN__TRY(set_pages(cache, entry, length));
    cache->lengths[entry] = (int32_t)length;
    if (length == 0) cache->lost[entry] = 0;
    return put_lengths(cache);
}

clattn_status clattn_kv_cache_reset(clattn_kv_cache *cache) {
    CLATTN__TRY(check_own(cache));
    for (int64_t b = 0; b < cache->desc.attention.batch; b++) CLATTN__TRY(clattn_kv_cache_truncate(cache, b, 0));
    return CLATTN_OK;
}

int64_t clattn_kv_cache_free_pages(const clattn_kv_cache *cache) { return cache ? cache->free_count : 0; }

const char *clattn_kv_cache_explain(const clattn_kv_cache *cache) {
    return cache && cache->explain.data ? cache->explain.data : "";
}

clattn_status clattn_kv_cache_info(const clattn_kv_cache *cache, clattn_plan_info *info) {
    if (!cache || !info) return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is NULL", cache ? "info" : "cache");
    clattn_plan_info appending;
    clattn__plan_info(&cache->append.plan, &appending);
    clattn__plan_info(&cache->attend.plan, info);
    info->held_bytes += appending.held_bytes + cache->held_bytes + cache->lengths_mem.bytes + cache->table_mem.bytes;
    info->copied_to_device += appending.copied_to_device;
    info->copied_to_host += appending.copied_to_host;
    return CLATTN_OK;
}
