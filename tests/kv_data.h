/* Data for the tests of rotary positions and key/value caches. */
#ifndef CLATTN_TEST_KV_DATA_H
#define CLATTN_TEST_KV_DATA_H

#include <stdlib.h>
#include <string.h>

#include "clattn/clattn.h"
#include "harness.h"

static inline void *guarded(int64_t count, size_t unit) { return clattn_guard_alloc((size_t)count * unit); }

static inline float *normal(clattn_random *random, int64_t count) {
    float *values = guarded(count, sizeof *values);
    clattn_fill_normal(random, values, count, 1);
    return values;
}

static inline void free_all(void **memory, size_t count) {
    for (size_t i = 0; i < count; i++) {
        CHECK(!memory[i] || clattn_guard_intact(memory[i]), "wrote beside memory %d", (int)i);
        clattn_guard_free(memory[i]);
    }
}

static inline void expect(clattn_status status, clattn_status want, const char *words) {
    CHECK(status == want && strstr(clattn_last_error(), words), "wanted %s with \"%s\", got %s: %s",
          clattn_status_name(want), words, clattn_status_name(status), clattn_last_error());
}

/* ---- a cache and what it is fed ---- */

typedef struct cache_case {
    const char *name;
    int64_t batch, query_heads, kv_heads, tokens, prefill, head_dim, value_dim;
    clattn_kv_layout layout;
    int64_t page_size, capacity; /* 0: tokens */
    int storage;                 /* -1: that of the attention */
    int rope;
    int64_t window;
    float softcap;
    int alibi, sinks;
} cache_case;

typedef struct cache_data {
    clattn_attention_desc attention;
    clattn_rope_desc rope;
    clattn_kv_cache_desc desc;
    float *query, *key, *value, *output, *lse, *slopes, *sinks;
} cache_data;

static inline void make_cache_data(const cache_case *c, cache_data *t) {
    clattn_random random = {7};
    clattn_attention_desc *a = &t->attention;
    memset(t, 0, sizeof *t);
    clattn_attention_desc_init(a);
    clattn_kv_cache_desc_init(&t->desc);
    clattn_rope_desc_init(&t->rope);
    a->batch = c->batch;
    a->query_heads = c->query_heads;
    a->kv_heads = c->kv_heads;
    a->query_len = c->layout == CLATTN_KV_RING ? c->prefill : c->tokens;
    a->kv_len = c->capacity ? c->capacity : c->tokens;
    a->head_dim = c->head_dim;
    a->value_dim = c->value_dim;
    a->causal = CLATTN_CAUSAL_BOTTOM_RIGHT;
    a->window_left = c->window;
    a->softcap = c->softcap;
    a->alibi = c->alibi;
    a->sinks = c->sinks;
    a->logsumexp = 1;
    t->desc.attention = a;
    t->desc.layout = c->layout;
    t->desc.page_size = c->page_size ? c->page_size : 16;
    t->desc.pages = c->batch * ((a->kv_len + t->desc.page_size - 1) / t->desc.page_size);
    t->desc.has_storage = c->storage >= 0;
    t->desc.storage = c->storage >= 0 ? (clattn_dtype)c->storage : CLATTN_F32;
    t->rope.rotary_dim = c->head_dim / 2 / 2 * 2;
    t->rope.style = CLATTN_ROPE_INTERLEAVED;
    if (c->rope) t->desc.rope = &t->rope;
    t->query = normal(&random, c->batch * c->query_heads * c->tokens * c->head_dim);
    t->key = normal(&random, c->batch * c->kv_heads * c->tokens * c->head_dim);
    t->value = normal(&random, c->batch * c->kv_heads * c->tokens * c->value_dim);
    t->output = guarded(c->batch * c->query_heads * c->tokens * c->value_dim, 4);
    t->lse = guarded(c->batch * c->query_heads * c->tokens, 4);
    t->slopes = normal(&random, c->query_heads);
    t->sinks = normal(&random, c->query_heads);
}

static inline void free_cache_data(cache_data *t) {
    void *all[] = {t->query, t->key, t->value, t->output, t->lse, t->slopes, t->sinks};
    free_all(all, sizeof all / sizeof all[0]);
}

/* Tokens first..first+count-1 of (B, H, T, D); rank 3: (B, H, T). */
static inline clattn_tensor part(float *data, int rank, int64_t batch, int64_t heads, int64_t tokens, int64_t width,
                                 int64_t first, int64_t count) {
    clattn_tensor t = clattn_host(data, CLATTN_F32, rank, batch, heads, count, width);
    const int64_t row = rank == 4 ? width : 1, stride[4] = {heads * tokens * row, tokens * row, row, 1};
    memcpy(t.stride, stride, (size_t)rank * sizeof stride[0]);
    t.offset = first * row;
    return t;
}

static inline clattn_kv_append_io tokens_of(const cache_case *c, const cache_data *t, int64_t first, int64_t count) {
    clattn_kv_append_io io;
    memset(&io, 0, sizeof io);
    io.key = part(t->key, 4, c->batch, c->kv_heads, c->tokens, c->head_dim, first, count);
    io.value = part(t->value, 4, c->batch, c->kv_heads, c->tokens, c->value_dim, first, count);
    return io;
}

static inline clattn_kv_attend_io question(const cache_case *c, const cache_data *t, int64_t first, int64_t count) {
    clattn_kv_attend_io io;
    memset(&io, 0, sizeof io);
    io.query = part(t->query, 4, c->batch, c->query_heads, c->tokens, c->head_dim, first, count);
    io.output = part(t->output, 4, c->batch, c->query_heads, c->tokens, c->value_dim, first, count);
    io.logsumexp = part(t->lse, 3, c->batch, c->query_heads, c->tokens, 1, first, count);
    if (c->alibi) io.alibi = clattn_host(t->slopes, CLATTN_F32, 1, c->query_heads, 0, 0, 0);
    if (c->sinks) io.sinks = clattn_host(t->sinks, CLATTN_F32, 1, c->query_heads, 0, 0, 0);
    return io;
}

#endif
