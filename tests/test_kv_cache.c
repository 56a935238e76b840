/* Key/value caches against their reference, against recomputation, and against bad input. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/reference.h"
#include "clattn/interop.h"
#include "clattn/reference.h"
#include "harness.h"
#include "kv_data.h"

static clattn_context *context;

/* ---- a cache and what it should give ---------------------------------------------------------------------------- */

static const cache_case cache_cases[] = {
    {"dense", 2, 4, 2, 40, 33, 64, 64, CLATTN_KV_DENSE, 0, 0, -1, 0, -1, 0, 0, 0},
    {"dense, rope", 1, 6, 2, 30, 20, 48, 40, CLATTN_KV_DENSE, 0, 50, -1, 1, -1, 0, 0, 0},
    {"dense, everything", 2, 6, 3, 30, 20, 40, 24, CLATTN_KV_DENSE, 0, 0, -1, 1, 11, 3, 1, 1},
    {"paged", 2, 4, 2, 40, 33, 64, 64, CLATTN_KV_PAGED, 16, 0, -1, 0, -1, 0, 0, 0},
    {"paged, rope, window", 3, 4, 1, 29, 17, 32, 32, CLATTN_KV_PAGED, 5, 0, -1, 1, 9, 0, 0, 0},
    {"pages of one", 1, 2, 2, 9, 5, 16, 16, CLATTN_KV_PAGED, 1, 0, -1, 0, -1, 0, 0, 0},
    {"ring", 2, 4, 2, 60, 8, 64, 64, CLATTN_KV_RING, 0, 20, -1, 0, 10, 0, 0, 0},
    {"ring, rope, alibi, sinks", 1, 4, 4, 50, 5, 32, 24, CLATTN_KV_RING, 0, 17, -1, 1, 12, 0, 1, 1},
    {"float16", 1, 4, 2, 30, 20, 64, 64, CLATTN_KV_DENSE, 0, 0, CLATTN_F16, 0, -1, 0, 0, 0},
    {"bfloat16, paged", 1, 4, 2, 30, 20, 40, 64, CLATTN_KV_PAGED, 8, 0, CLATTN_BF16, 1, -1, 0, 0, 0},
    {"int8", 2, 4, 2, 30, 20, 64, 48, CLATTN_KV_DENSE, 0, 0, CLATTN_I8, 0, -1, 0, 0, 0},
    {"int8, paged, rope", 1, 4, 1, 30, 20, 64, 48, CLATTN_KV_PAGED, 7, 0, CLATTN_I8, 1, -1, 0, 0, 0},
    {"int8, ring", 1, 4, 1, 40, 6, 33, 17, CLATTN_KV_RING, 0, 19, CLATTN_I8, 0, 9, 0, 0, 0},
};

static clattn_status step(clattn_kv_cache *cache, const cache_case *c, const cache_data *t, int64_t first,
                          int64_t count) {
    const clattn_kv_append_io new_tokens = tokens_of(c, t, first, count);
    const clattn_kv_attend_io asked = question(c, t, first, count);
    clattn_status status = clattn_kv_cache_append(cache, &new_tokens);
    return status == CLATTN_OK ? clattn_kv_cache_attend(cache, &asked) : status;
}

static bool decode_all(const cache_case *c, const cache_data *t) {
    clattn_kv_cache *cache = NULL;
    clattn_status status = clattn_kv_cache_create(&cache, context, &t->desc);
    if (status == CLATTN_OK) status = step(cache, c, t, 0, c->prefill);
    for (int64_t i = c->prefill; i < c->tokens && status == CLATTN_OK; i++) status = step(cache, c, t, i, 1);
    CHECK(clattn_kv_cache_length(cache, 0) == (status == CLATTN_OK ? c->tokens : -1), "%s: length %lld", c->name,
          (long long)clattn_kv_cache_length(cache, 0));
    clattn_kv_cache_destroy(&cache);
    return CHECK(status == CLATTN_OK, "%s: %s", c->name, clattn_last_error());
}

/* All tokens at once, by the reference, on a dense cache of the same storage in plain memory. */
static void check_by_reference(const cache_case *c, const cache_data *t) {
    clattn_attention_desc a = t->attention;
    clattn_kv_cache_desc d = t->desc;
    const int64_t B = c->batch, Hkv = c->kv_heads, T = c->tokens, D = c->head_dim, Dv = c->value_dim;
    const size_t unit = clattn_dtype_size(d.storage);
    a.query_len = a.kv_len = T;
    d.attention = &a;
    d.layout = CLATTN_KV_DENSE;
    d.caller_memory = 1;
    void *key = guarded(B * Hkv * T * D, unit), *value = guarded(B * Hkv * T * Dv, unit);
    float *key_scales = guarded(B * Hkv * T, 4), *value_scales = guarded(B * Hkv * T, 4);
    float *want = guarded(B * c->query_heads * T * Dv, 4), *want_lse = guarded(B * c->query_heads * T, 4);
    float *tolerance = guarded(B * c->query_heads * T * Dv, 4), *lse_tolerance = guarded(B * c->query_heads * T, 4);
    int32_t *lengths = guarded(B, 4);
    clattn_kv_append_io append = tokens_of(c, t, 0, T);
    clattn_kv_attend_io ask = question(c, t, 0, T);
    append.memory.key = clattn_host(key, d.storage, 4, B, Hkv, T, D);
    append.memory.value = clattn_host(value, d.storage, 4, B, Hkv, T, Dv);
    append.memory.lengths = clattn_host(lengths, CLATTN_I32, 1, B, 0, 0, 0);
    if (d.storage == CLATTN_I8) {
        append.memory.key_scales = clattn_host(key_scales, CLATTN_F32, 3, B, Hkv, T, 0);
        append.memory.value_scales = clattn_host(value_scales, CLATTN_F32, 3, B, Hkv, T, 0);
    }
    ask.memory = append.memory;
    ask.output = clattn_host(want, CLATTN_F32, 4, B, c->query_heads, T, Dv);
    ask.logsumexp = clattn_host(want_lse, CLATTN_F32, 3, B, c->query_heads, T, 0);
    for (int64_t b = 0; b < B; b++) lengths[b] = 0;
    CHECK(clattn_reference_kv_append(&d, &append) == CLATTN_OK, "%s: %s", c->name, clattn_last_error());
    for (int64_t b = 0; b < B; b++) lengths[b] = (int32_t)T;
    const clattn__tolerances tolerances = {.output = tolerance, .logsumexp = lse_tolerance};
    CHECK(clattn__reference_kv_attend(&d, &ask, true, &tolerances) == CLATTN_OK, "%s: %s", c->name,
          clattn_last_error());
    clattn_check_close(t->output, want, tolerance, 0, B * c->query_heads * T * Dv, c->name);
    clattn_check_close(t->lse, want_lse, lse_tolerance, 0, B * c->query_heads * T, c->name);
    void *all[] = {key, value, key_scales, value_scales, want, want_lse, tolerance, lse_tolerance, lengths};
    free_all(all, sizeof all / sizeof all[0]);
}

static void decoding_is_recomputation(void) {
    for (size_t i = 0; i < sizeof cache_cases / sizeof cache_cases[0]; i++) {
        cache_data t;
        make_cache_data(&cache_cases[i], &t);
        if (decode_all(&cache_cases[i], &t)) check_by_reference(&cache_cases[i], &t);
        free_cache_data(&t);
    }
}

/* Pages in any order hold the same numbers, and the same kernel gives the same bits. */
static void pages_change_no_bit(void) {
    cache_case dense = cache_cases[0], paged = cache_cases[3];
    cache_data t, u;
    make_cache_data(&dense, &t);
    make_cache_data(&paged, &u);
    if (decode_all(&dense, &t) && decode_all(&paged, &u))
        CHECK(memcmp(t.output, u.output,
                     (size_t)(dense.batch * dense.query_heads * dense.tokens * dense.value_dim) * 4) == 0,
              "pages change the result");
    free_cache_data(&t);
    free_cache_data(&u);
}

/* Whatever the cache is made of, a decoding step reads it where it lies: there is no memory that grows with it. */
static void decoding_needs_no_copy(void) {
    static const cache_case cases[] = {
        {"paged", 2, 4, 2, 4096, 1, 64, 64, CLATTN_KV_PAGED, 16, 0, -1, 1, -1, 0, 0, 0},
        {"ring", 2, 4, 2, 4096, 1, 64, 64, CLATTN_KV_RING, 0, 2048, -1, 0, 1000, 0, 0, 0},
        {"int8", 2, 4, 2, 4096, 1, 64, 64, CLATTN_KV_DENSE, 0, 0, CLATTN_I8, 0, -1, 0, 0, 0},
        {"float16, paged", 2, 4, 2, 4096, 1, 64, 64, CLATTN_KV_PAGED, 16, 0, CLATTN_F16, 0, -1, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cache_data t;
        clattn_kv_cache *cache = NULL;
        clattn_plan_info info = {0};
        make_cache_data(&cases[i], &t);
        t.attention.query_len = 1;
        const bool made = clattn_kv_cache_create(&cache, context, &t.desc) == CLATTN_OK;
        CHECK(made && clattn_kv_cache_info(cache, &info) == CLATTN_OK, "%s: %s", cases[i].name, clattn_last_error());
        CHECK(made && strstr(info.kernels, "kv_gather") == NULL, "%s: %s", cases[i].name, info.kernels);
        CHECK(info.arena_bytes <= 4096, "%s: an arena of %zu bytes", cases[i].name, info.arena_bytes);
        clattn_kv_cache_destroy(&cache);
        free_cache_data(&t);
    }
}

/* ---- int8 ------------------------------------------------------------------------------------------------------- */

static void int8_error_bound(void) {
    static const cache_case c = {"int8 bound", 1, 2,  2, 64, 64, 37, 20, CLATTN_KV_DENSE, 0, 0,
                                 CLATTN_I8,    0, -1, 0, 0,  0};
    cache_data t;
    make_cache_data(&c, &t);
    float *held = t.key; /* some rows with numbers of very different sizes, of zeros, and with one that is no number */
    for (int d = 0; d < 37; d++) {
        held[37 * 3 + d] *= d == 5 ? 1e4f : 1e-4f;
        held[37 * 4 + d] = 0;
        held[37 * 5 + d] *= 1e-30f;
        held[37 * 6 + d] *= 1e30f;
    }
    held[37 * 7 + 2] = NAN;
    held[37 * 8 + 36] = -INFINITY;
    float *key = guarded(2 * 64 * 37, 4), *value = guarded(2 * 64 * 20, 4);
    clattn_kv_cache *cache = NULL;
    const clattn_kv_append_io io = tokens_of(&c, &t, 0, 64);
    const clattn_tensor keys = clattn_host(key, CLATTN_F32, 4, 1, 2, 64, 37),
                        values = clattn_host(value, CLATTN_F32, 4, 1, 2, 64, 20);
    clattn_status status = clattn_kv_cache_create(&cache, context, &t.desc);
    if (status == CLATTN_OK) status = clattn_kv_cache_append(cache, &io);
    if (status == CLATTN_OK) status = clattn_kv_cache_read(cache, &keys, &values);
    if (CHECK(status == CLATTN_OK, "%s", clattn_last_error()))
        for (int r = 0; r < 2 * 64; r++) {
            const bool finite = r != 7 && r != 8;
            float most = 0;
            for (int d = 0; d < 37; d++) most = fmaxf(most, fabsf(t.key[r * 37 + d]));
            for (int d = 0; d < 37; d++) {
                const double got = (double)key[r * 37 + d], want = (double)t.key[r * 37 + d];
                CHECK(finite ? fabs(got - want) <= (double)most / 254 * (1 + 1e-4) : isnan(got),
                      "row %d, element %d: got %g, want %g, max %g", r, d, got, want, (double)most);
            }
        }
    clattn_kv_cache_destroy(&cache);
    void *all[] = {key, value};
    free_all(all, 2);
    free_cache_data(&t);
}

/* ---- lengths, pages, reading back ------------------------------------------------------------------------------- */

static void truncate_and_read(void) {
    static const cache_case c = {"truncate", 2, 2, 2, 12, 12, 8, 4, CLATTN_KV_PAGED, 4, 0, -1, 0, -1, 0, 0, 0};
    cache_data t;
    clattn_kv_cache *cache = NULL;
    make_cache_data(&c, &t);
    t.desc.pages = 5; /* of 6 that two full entries would need */
    REQUIRE(clattn_kv_cache_create(&cache, context, &t.desc) == CLATTN_OK, "%s", clattn_last_error());
    clattn_kv_append_io io = tokens_of(&c, &t, 0, 12);
    CHECK(clattn_kv_cache_append(cache, &io) == CLATTN_OUT_OF_MEMORY && strstr(clattn_last_error(), "pages"),
          "six of five pages: %s", clattn_last_error());
    CHECK(clattn_kv_cache_length(cache, 1) == 0 && clattn_kv_cache_free_pages(cache) == 5, "the failure left traces");
    io = tokens_of(&c, &t, 0, 7);
    CHECK(clattn_kv_cache_append(cache, &io) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(clattn_kv_cache_free_pages(cache) == 1, "%lld pages are free", (long long)clattn_kv_cache_free_pages(cache));
    CHECK(clattn_kv_cache_truncate(cache, 0, 3) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(clattn_kv_cache_free_pages(cache) == 2, "%lld pages are free", (long long)clattn_kv_cache_free_pages(cache));
    io = tokens_of(&c, &t, 7, 2); /* entry 0 goes on at 3, entry 1 at 7 */
    CHECK(clattn_kv_cache_append(cache, &io) == CLATTN_OK, "%s", clattn_last_error());
    float *key = guarded(2 * 2 * 10 * 8, 4), *value = guarded(2 * 2 * 10 * 4, 4);
    const clattn_tensor keys = clattn_host(key, CLATTN_F32, 4, 2, 2, 10, 8),
                        values = clattn_host(value, CLATTN_F32, 4, 2, 2, 10, 4);
    CHECK(clattn_kv_cache_read(cache, &keys, &values) == CLATTN_OK, "%s", clattn_last_error());
    for (int b = 0; b < 2; b++)
        for (int h = 0; h < 2; h++)
            for (int r = 0; r < 10; r++) {
                const int kept = b == 0 ? 3 : 7, token = r < kept ? r : 7 + r - kept;
                for (int d = 0; d < 8; d++) {
                    const float want = r < kept + 2 ? t.key[((b * 2 + h) * 12 + token) * 8 + d] : 0;
                    const float got = key[((b * 2 + h) * 10 + r) * 8 + d];
                    CHECK(got == want, "entry %d, head %d, row %d: %g, want %g", b, h, r, (double)got, (double)want);
                }
            }
    CHECK(clattn_kv_cache_truncate(cache, 1, 10) == CLATTN_INVALID_ARGUMENT, "an entry grew by truncation");
    CHECK(clattn_kv_cache_truncate(cache, 2, 0) == CLATTN_INVALID_ARGUMENT, "entry 2 of 2");
    CHECK(clattn_kv_cache_reset(cache) == CLATTN_OK && clattn_kv_cache_free_pages(cache) == 5 &&
              clattn_kv_cache_length(cache, 1) == 0,
          "reset");
    CHECK(strstr(clattn_kv_cache_explain(cache), "5 pages of 4 tokens") != NULL, "%s", clattn_kv_cache_explain(cache));
    clattn_plan_info info;
    CHECK(clattn_kv_cache_info(cache, &info) == CLATTN_OK && info.held_bytes >= 5 * 4 * 2 * 12 * 4, "info");
    clattn_kv_cache_destroy(&cache);
    void *all[] = {key, value};
    free_all(all, 2);
    free_cache_data(&t);
}

static void ring_goes_back_a_window(void) {
    static const cache_case c = {"ring", 1, 1, 1, 30, 2, 8, 8, CLATTN_KV_RING, 0, 12, -1, 0, 6, 0, 0, 0};
    cache_data t;
    clattn_kv_cache *cache = NULL;
    make_cache_data(&c, &t);
    REQUIRE(clattn_kv_cache_create(&cache, context, &t.desc) == CLATTN_OK, "%s", clattn_last_error());
    for (int64_t i = 0; i < 30; i += 2) CHECK(step(cache, &c, &t, i, 2) == CLATTN_OK, "%s", clattn_last_error());
    float before[8];
    memcpy(before, t.output + 29 * 8, sizeof before);
    CHECK(clattn_kv_cache_truncate(cache, 0, 23) == CLATTN_INVALID_ARGUMENT, "the window of token 23 is overwritten");
    CHECK(clattn_kv_cache_truncate(cache, 0, 25) == CLATTN_OK, "%s", clattn_last_error());
    /* what a ring has overwritten stays lost, however short the entry is now */
    const clattn_kv_attend_io asked = question(&c, &t, 23, 2);
    expect(clattn_kv_cache_attend(cache, &asked), CLATTN_INVALID_ARGUMENT, "begins at token 17");
    expect(clattn_kv_cache_truncate(cache, 0, 20), CLATTN_INVALID_ARGUMENT, "begins at token 14");
    for (int64_t i = 25; i < 30; i++) CHECK(step(cache, &c, &t, i, 1) == CLATTN_OK, "%s", clattn_last_error());
    clattn_check_close(t.output + 29 * 8, before, NULL, 1e-6, 8, "the same tokens once more");
    clattn_kv_cache_destroy(&cache);
    free_cache_data(&t);
}

/* Nothing to do is a success that changes nothing. */
static void empty_calls(void) {
    cache_case c = cache_cases[1];
    cache_data t;
    for (int none = 0; none < 2; none++) {
        clattn_kv_cache *cache = NULL;
        if (none) c.batch = 0;
        make_cache_data(&c, &t);
        REQUIRE(clattn_kv_cache_create(&cache, context, &t.desc) == CLATTN_OK, "%s", clattn_last_error());
        const clattn_kv_attend_io early = question(&c, &t, 0, 1); /* nothing is there yet: an empty row */
        CHECK(clattn_kv_cache_attend(cache, &early) == CLATTN_OK, "%s", clattn_last_error());
        if (!none) CHECK(t.output[0] == 0 && t.lse[0] == -INFINITY, "%g, %g", (double)t.output[0], (double)t.lse[0]);
        CHECK(step(cache, &c, &t, 0, 0) == CLATTN_OK, "%s", clattn_last_error());
        CHECK(step(cache, &c, &t, 0, 3) == CLATTN_OK, "%s", clattn_last_error());
        CHECK(clattn_kv_cache_length(cache, 0) == (none ? -1 : 3), "length");
        clattn_kv_cache_destroy(&cache);
        free_cache_data(&t);
    }
}

/* ---- bad input -------------------------------------------------------------------------------------------------- */

typedef struct bad_desc {
    const char *part; /* of the message */
    void (*spoil)(cache_data *t);
} bad_desc;

static void no_attention(cache_data *t) { t->desc.attention = NULL; }
static void page_size_0(cache_data *t) { t->desc.page_size = 0; }
static void no_pages(cache_data *t) { t->desc.pages = 0; }
static void odd_rotary_dim(cache_data *t) { t->rope.rotary_dim = 7; }
static void wide_rotary_dim(cache_data *t) { t->rope.rotary_dim = t->attention.head_dim + 2; }
static void small_base(cache_data *t) { t->rope.base = 0.5; }
static void nan_base(cache_data *t) { t->rope.base = NAN; }
static void rope_by_rows(cache_data *t) { t->rope.source = CLATTN_ROPE_ROWS; }
static void table_missing(cache_data *t) { t->rope.source = CLATTN_ROPE_TABLE, t->rope.table_rows = 8; }
static void unknown_layout(cache_data *t) { t->desc.layout = (clattn_kv_layout)3; }
static void bool_storage(cache_data *t) { t->desc.has_storage = 1, t->desc.storage = CLATTN_BOOL; }
static void top_left(cache_data *t) { t->attention.causal = CLATTN_CAUSAL_TOP_LEFT; }
static void window_alone(cache_data *t) { t->attention.causal = CLATTN_CAUSAL_NONE, t->attention.window_left = 3; }
static void with_weights(cache_data *t) { t->attention.weights = CLATTN_WEIGHTS_PER_HEAD; }
static void negative_softcap(cache_data *t) { t->attention.softcap = -1; }
static void ring_without_window(cache_data *t) { t->desc.layout = CLATTN_KV_RING; }
static void short_ring(cache_data *t) {
    t->desc.layout = CLATTN_KV_RING;
    t->attention.window_left = t->attention.kv_len - t->attention.query_len + 1;
}
static void foreign_ring(cache_data *t) {
    ring_without_window(t);
    t->desc.caller_memory = 1;
}

static const bad_desc bad_descs[] = {{"attention is NULL", no_attention},
                                     {"page_size is 0", page_size_0},
                                     {"pages is 0", no_pages},
                                     {"rotary_dim is 7", odd_rotary_dim},
                                     {"rotary_dim is 34", wide_rotary_dim},
                                     {"base is 0.5", small_base},
                                     {"base is", nan_base},
                                     {"rope->source", rope_by_rows},
                                     {"cosine is missing", table_missing},
                                     {"layout is 3", unknown_layout},
                                     {"storage is bool", bool_storage},
                                     {"attention->causal is 1", top_left},
                                     {"attention->causal is off", window_alone},
                                     {"attention->weights", with_weights},
                                     {"softcap is -1", negative_softcap},
                                     {"attention->window_left is off", ring_without_window},
                                     {"window_left + query_len", short_ring},
                                     {"caller_memory is 1", foreign_ring}};

static void bad_descriptions(void) {
    static const cache_case c = {"bad", 1, 2, 1, 20, 5, 32, 32, CLATTN_KV_PAGED, 4, 0, -1, 1, -1, 0, 0, 0};
    for (size_t i = 0; i < sizeof bad_descs / sizeof bad_descs[0]; i++) {
        cache_data t;
        clattn_kv_cache *cache = (clattn_kv_cache *)&t;
        make_cache_data(&c, &t);
        bad_descs[i].spoil(&t);
        clattn_status status = clattn_kv_cache_create(&cache, context, &t.desc);
        CHECK((status == CLATTN_INVALID_ARGUMENT || status == CLATTN_INVALID_SHAPE) && !cache, "%s: %s",
              bad_descs[i].part, clattn_status_name(status));
        CHECK(strstr(clattn_last_error(), bad_descs[i].part) != NULL, "\"%s\" is not in \"%s\"", bad_descs[i].part,
              clattn_last_error());
        free_cache_data(&t);
    }
}

/* Calls on the caller's own pages, with a table and lengths that must be refused before a kernel sees them. */
static void bad_calls(void) {
    static const cache_case c = {"calls", 1, 1, 1, 8, 2, 4, 4, CLATTN_KV_PAGED, 4, 0, -1, 0, -1, 0, 0, 0};
    cache_data t;
    clattn_kv_cache *cache = NULL;
    make_cache_data(&c, &t);
    t.desc.caller_memory = 1;
    t.desc.pages = 3;
    t.desc.rope = &t.rope;
    t.rope.source = CLATTN_ROPE_TABLE;
    t.rope.rotary_dim = 4;
    t.rope.table_rows = 7;
    float table[14] = {0}, *pages = guarded(3 * 4 * 4, 4), *values = guarded(3 * 4 * 4, 4);
    int32_t lengths[1] = {0}, blocks[2] = {2, 0};
    t.desc.cosine = t.desc.sine = clattn_host(table, CLATTN_F32, 2, 7, 2, 0, 0);
    REQUIRE(clattn_kv_cache_create(&cache, context, &t.desc) == CLATTN_OK, "%s", clattn_last_error());
    clattn_kv_append_io io = tokens_of(&c, &t, 0, 2);
    expect(clattn_kv_cache_append(cache, &io), CLATTN_INVALID_ARGUMENT, "memory.key is missing");
    io.memory.key = clattn_host(pages, CLATTN_F32, 4, 3, 4, 1, 4);
    io.memory.value = clattn_host(values, CLATTN_F32, 4, 3, 4, 1, 4);
    io.memory.lengths = clattn_host(lengths, CLATTN_I32, 1, 1, 0, 0, 0);
    io.memory.block_table = clattn_host(blocks, CLATTN_I32, 2, 1, 2, 0, 0);
    CHECK(clattn_kv_cache_append(cache, &io) == CLATTN_OK, "%s", clattn_last_error());
    lengths[0] = 9;
    expect(clattn_kv_cache_append(cache, &io), CLATTN_INVALID_ARGUMENT, "memory.lengths[0] is 9");
    lengths[0] = -1;
    expect(clattn_kv_cache_append(cache, &io), CLATTN_INVALID_ARGUMENT, "memory.lengths[0] is -1");
    lengths[0] = 7;
    expect(clattn_kv_cache_append(cache, &io), CLATTN_INVALID_ARGUMENT, "pass its capacity of 8");
    lengths[0] = 6;
    expect(clattn_kv_cache_append(cache, &io), CLATTN_INVALID_ARGUMENT, "position 7");
    lengths[0] = 2;
    blocks[0] = 3;
    expect(clattn_kv_cache_append(cache, &io), CLATTN_INVALID_ARGUMENT, "block_table[0, 0] is 3");
    blocks[0] = -2;
    expect(clattn_kv_cache_append(cache, &io), CLATTN_INVALID_ARGUMENT, "block_table[0, 0] is -2");
    blocks[0] = 2;
    blocks[1] = -1;
    lengths[0] = 3;
    expect(clattn_kv_cache_append(cache, &io), CLATTN_INVALID_ARGUMENT, "block_table[0, 1] is -1");
    expect(clattn_reference_kv_append(&t.desc, &io), CLATTN_INVALID_ARGUMENT, "block_table[0, 1] is -1");
    io.key.shape[2] = 9;
    expect(clattn_kv_cache_append(cache, &io), CLATTN_INVALID_SHAPE, "key.shape[2] is 9");
    io = tokens_of(&c, &t, 0, 2);
    io.value.shape[2] = 3;
    expect(clattn_kv_cache_append(cache, &io), CLATTN_INVALID_SHAPE, "value has shape");
    expect(clattn_kv_cache_append(cache, NULL), CLATTN_INVALID_ARGUMENT, "io is NULL");
    expect(clattn_kv_cache_append(NULL, &io), CLATTN_INVALID_ARGUMENT, "cache is NULL");
    expect(clattn_kv_cache_truncate(cache, 0, 0), CLATTN_INVALID_ARGUMENT, "caller's memory");
    const clattn_tensor absent = {0};
    expect(clattn_kv_cache_read(cache, &absent, &absent), CLATTN_INVALID_ARGUMENT, "caller's memory");
    clattn_kv_cache_destroy(&cache);
    void *all[] = {pages, values};
    free_all(all, 2);
    free_cache_data(&t);
}

/* What an append took that fails on the device is free again: the same append then finds its pages. */
static void failed_append_keeps_no_page(void) {
    static const cache_case c = {"failing", 2, 1, 1, 8, 3, 8, 8, CLATTN_KV_PAGED, 2, 0, -1, 0, -1, 0, 0, 0};
    cache_data t;
    clattn_kv_cache *cache = NULL;
    make_cache_data(&c, &t);
    REQUIRE(clattn_kv_cache_create(&cache, context, &t.desc) == CLATTN_OK, "%s", clattn_last_error());
    const int64_t all = clattn_kv_cache_free_pages(cache);
    for (int64_t first = 0; first < c.tokens; first += 4) {
        const clattn_kv_append_io io = tokens_of(&c, &t, first, 4);
        const int64_t before = clattn_kv_cache_free_pages(cache);
        clattn_test_fail_launch();
        CHECK(clattn_kv_cache_append(cache, &io) == CLATTN_DEVICE_FAILED, "a launch that fails is not told");
        CHECK(clattn_kv_cache_free_pages(cache) == before && clattn_kv_cache_length(cache, 0) == first,
              "%lld of %lld pages are free", (long long)clattn_kv_cache_free_pages(cache), (long long)before);
        CHECK(step(cache, &c, &t, first, 4) == CLATTN_OK, "%s", clattn_last_error());
    }
    CHECK(clattn_kv_cache_free_pages(cache) == all - 8, "%lld pages are free",
          (long long)clattn_kv_cache_free_pages(cache));
    check_by_reference(&c, &t);
    clattn_kv_cache_destroy(&cache);
    free_cache_data(&t);
}

int main(int argc, char **argv) {
    static const clattn_test tests[] = {{"decoding_is_recomputation", decoding_is_recomputation},
                                        {"pages_change_no_bit", pages_change_no_bit},
                                        {"decoding_needs_no_copy", decoding_needs_no_copy},
                                        {"int8_error_bound", int8_error_bound},
                                        {"truncate_and_read", truncate_and_read},
                                        {"ring_goes_back_a_window", ring_goes_back_a_window},
                                        {"empty_calls", empty_calls},
                                        {"bad_descriptions", bad_descriptions},
                                        {"bad_calls", bad_calls},
                                        {"failed_append_keeps_no_page", failed_append_keeps_no_page},
                                        {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"kv_cache", tests}, {NULL, NULL}};
    return clattn_test_main_with(&context, CLATTN_VERIFY_ONCE, suites, argc, argv);
}
