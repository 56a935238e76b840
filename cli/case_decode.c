/* Golden cases on key/value caches: "decode" (prefill, then single steps), "decode_append" (a ragged batch in the
 * caller's own cache) and "attention_paged" (the caller's own pages). */
#include <math.h>
#include <string.h>

#include "case.h"

typedef struct decode_case {
    clattn_attention_desc attention;
    clattn_rope_desc rope;
    clattn_kv_cache_desc desc;
    cli_array *query, *key, *value; /* new tokens; of pages: query alone */
    cli_array *cosine, *sine, *slopes, *sinks, *output, *lse;
} decode_case;

/* Extents n[axes] of an array, by letters; -1 when it is absent. */
static int64_t extent(const cli_array *array, int axis) { return array ? array->shape[axis] : -1; }

static case_result check_rank(cli_case *c, const char *role, const cli_array *array, int rank) {
    if (!array) return case_error(c, "%s is missing", role);
    if (array->rank != rank) return case_error(c, "%s has rank %d; it must have rank %d", role, array->rank, rank);
    return CASE_DONE;
}

/* Everything that the three operations have alike. */
static case_result describe(cli_case *c, decode_case *k) {
    clattn_attention_desc *a = &k->attention;
    clattn_attention_desc_init(a);
    clattn_kv_cache_desc_init(&k->desc);
    k->desc.attention = a;
    CASE_TRY(case_input(c, "query", &k->query));
    CASE_TRY(case_input(c, "cos_cache", &k->cosine));
    CASE_TRY(case_input(c, "sin_cache", &k->sine));
    CASE_TRY(case_input(c, "alibi_slopes", &k->slopes));
    CASE_TRY(case_input(c, "sink_logits", &k->sinks));
    CASE_TRY(check_rank(c, "query", k->query, 4));
    a->batch = k->query->shape[0];
    a->query_heads = k->query->shape[1];
    a->query_len = k->query->shape[2];
    a->head_dim = k->query->shape[3];
    a->dtype = k->query->dtype;
    a->kernel = c->kernel;
    const double scale = case_number(c, "scale", NAN);
    a->has_scale = !isnan(scale);
    a->scale = a->has_scale ? (float)scale : 0;
    a->softcap = (float)case_number(c, "softcap", 0);
    a->window_left = case_whole(c, "window_left", -1);
    a->window_right = case_whole(c, "window_right", -1);
    a->causal = case_flag(c, "is_causal") ? CLATTN_CAUSAL_BOTTOM_RIGHT : CLATTN_CAUSAL_NONE;
    a->alibi = k->slopes != NULL;
    a->sinks = k->sinks != NULL;
    CASE_TRY(case_output(c, "output", a->dtype, &k->output));
    CASE_TRY(case_output(c, "lse", CLATTN_F32, &k->lse));
    CASE_TRY(check_rank(c, "output", k->output, 4));
    a->logsumexp = k->lse != NULL;
    if (!k->cosine || !k->sine) return CASE_DONE;
    CASE_TRY(case_rotary_describe(c, &k->rope, k->cosine));
    k->desc.rope = &k->rope;
    k->desc.cosine = cli_array_tensor(k->cosine);
    k->desc.sine = cli_array_tensor(k->sine);
    return CASE_DONE;
}

/* Tokens first..first+count-1 of (B, H, T, D); of (B, H, T) without the last axis. */
static clattn_tensor tokens_of(const cli_array *array, int64_t first, int64_t count) {
    clattn_tensor t = cli_array_tensor(array);
    if (!array) return t;
    for (int64_t i = t.rank - 1, step = 1; i >= 0; step *= t.shape[i--]) t.stride[i] = step;
    t.offset = first * t.stride[2];
    t.shape[2] = count;
    return t;
}

static clattn_kv_attend_io ask(const decode_case *k, int64_t first, int64_t count) {
    clattn_kv_attend_io io;
    memset(&io, 0, sizeof io);
    io.query = tokens_of(k->query, first, count);
    io.output = tokens_of(k->output, first, count);
    if (k->lse) io.logsumexp = tokens_of(k->lse, first, count);
    if (k->slopes) io.alibi = cli_array_tensor(k->slopes);
    if (k->sinks) io.sinks = cli_array_tensor(k->sinks);
    return io;
}

/* ---- decode ---------------------------------------------------------------------------------------------------- */

static clattn_status append_and_ask(clattn_kv_cache *cache, const decode_case *k, int64_t first, int64_t count) {
    clattn_kv_append_io tokens;
    memset(&tokens, 0, sizeof tokens);
    tokens.key = tokens_of(k->key, first, count);
    tokens.value = tokens_of(k->value, first, count);
    const clattn_kv_attend_io asked = ask(k, first, count);
    const clattn_status status = clattn_kv_cache_append(cache, &tokens);
    return status == CLATTN_OK ? clattn_kv_cache_attend(cache, &asked) : status;
}

/* The queries as they are turned, by the public operation. */
static clattn_status turn_queries(const cli_case *c, const decode_case *k, const cli_array *turned) {
    clattn_rope *rope = NULL;
    clattn_rope_desc d = k->rope;
    d.batch = k->attention.batch;
    d.heads = k->attention.query_heads;
    d.rows = k->attention.query_len;
    d.head_dim = k->attention.head_dim;
    d.dtype = k->attention.dtype;
    const clattn_rope_io io = {.input = cli_array_tensor(k->query),
                               .cosine = k->desc.cosine,
                               .sine = k->desc.sine,
                               .output = cli_array_tensor(turned)};
    clattn_status status = clattn_rope_create(&rope, c->context, &d);
    if (status == CLATTN_OK) status = clattn_rope_run(rope, &io);
    clattn_rope_destroy(&rope);
    return status;
}

case_result case_decode(cli_case *c) {
    decode_case k = {.query = NULL};
    cli_array *key_turned, *query_turned, *value_held;
    CASE_TRY(describe(c, &k));
    CASE_TRY(case_input(c, "key", &k.key));
    CASE_TRY(case_input(c, "value", &k.value));
    CASE_TRY(check_rank(c, "key", k.key, 4));
    CASE_TRY(check_rank(c, "value", k.value, 4));
    CASE_TRY(case_output(c, "key_rotated", k.key->dtype, &key_turned));
    CASE_TRY(case_output(c, "query_rotated", k.query->dtype, &query_turned));
    CASE_TRY(case_scratch(c, k.value->dtype, 4, k.value->shape, &value_held));
    k.attention.kv_heads = k.key->shape[1];
    k.attention.kv_len = k.key->shape[2];
    k.attention.value_dim = k.value->shape[3];
    const int64_t total = k.attention.query_len, prefill = case_whole(c, "prefill_length", (double)total);
    if (prefill < 0 || prefill > total) return case_error(c, "prefill_length is not within the tokens");

    clattn_kv_cache *cache = NULL;
    clattn_plan_info info;
    clattn_status status = clattn_kv_cache_create(&cache, c->context, &k.desc);
    if (status == CLATTN_OK) status = append_and_ask(cache, &k, 0, prefill);
    for (int64_t t = prefill; t < total && status == CLATTN_OK; t++) status = append_and_ask(cache, &k, t, 1);
    if (status == CLATTN_OK && key_turned) {
        const clattn_tensor held = cli_array_tensor(key_turned), values = cli_array_tensor(value_held);
        status = clattn_kv_cache_read(cache, &held, &values);
    }
    if (status == CLATTN_OK && query_turned) status = turn_queries(c, &k, query_turned);
    if (status == CLATTN_OK) status = clattn_kv_cache_info(cache, &info);
    case_result result = case_status(c, status, &info);
    clattn_kv_cache_destroy(&cache);
    return result;
}

/* ---- the caller's own memory ----------------------------------------------------------------------------------- */

/* append may be NULL. */
static case_result run_on_memory(cli_case *c, const decode_case *k, const clattn_kv_append_io *append,
                                 const clattn_kv_memory *memory) {
    clattn_kv_cache *cache = NULL;
    clattn_plan_info info;
    clattn_kv_attend_io asked = ask(k, 0, k->attention.query_len);
    asked.memory = *memory;
    clattn_status status = clattn_kv_cache_create(&cache, c->context, &k->desc);
    if (status == CLATTN_OK && append) status = clattn_kv_cache_append(cache, append);
    if (status == CLATTN_OK) status = clattn_kv_cache_attend(cache, &asked);
    if (status == CLATTN_OK) status = clattn_kv_cache_info(cache, &info);
    case_result result = case_status(c, status, &info);
    clattn_kv_cache_destroy(&cache);
    return result;
}

/* The output starts as the input: the call writes in place. */
static case_result copy_cache(cli_case *c, const char *before, const char *after, cli_array **cache) {
    cli_array *given;
    CASE_TRY(case_input(c, before, &given));
    CASE_TRY(check_rank(c, before, given, 4));
    CASE_TRY(case_output(c, after, given->dtype, cache));
    if (!*cache) CASE_TRY(case_scratch(c, given->dtype, 4, given->shape, cache));
    if ((*cache)->bytes != given->bytes) return case_error(c, "%s and %s differ in shape", before, after);
    memcpy((*cache)->data, given->data, given->bytes);
    return CASE_DONE;
}

case_result case_decode_append(cli_case *c) {
    decode_case k = {.query = NULL};
    cli_array *keys, *values, *lengths, *grown;
    clattn_kv_append_io append;
    char reason[256];
    CASE_TRY(describe(c, &k));
    CASE_TRY(case_input(c, "key_new", &k.key));
    CASE_TRY(case_input(c, "value_new", &k.value));
    CASE_TRY(case_input(c, "cache_seqlens", &lengths));
    CASE_TRY(check_rank(c, "key_new", k.key, 4));
    CASE_TRY(check_rank(c, "value_new", k.value, 4));
    CASE_TRY(check_rank(c, "cache_seqlens", lengths, 1));
    CASE_TRY(copy_cache(c, "key_cache", "key_cache_after", &keys));
    CASE_TRY(copy_cache(c, "value_cache", "value_cache_after", &values));
    if (!cli_array_to_i32(lengths, reason)) return case_error(c, "cache_seqlens: %s", reason);
    CASE_TRY(case_scratch(c, CLATTN_I32, 1, lengths->shape, &grown));
    for (int64_t b = 0; b < lengths->shape[0]; b++)
        ((int32_t *)grown->data)[b] = ((const int32_t *)lengths->data)[b] + (int32_t)k.attention.query_len;
    k.attention.kv_heads = extent(keys, 1);
    k.attention.kv_len = extent(keys, 2);
    k.attention.value_dim = extent(values, 3);
    k.desc.caller_memory = 1;
    memset(&append, 0, sizeof append);
    append.key = cli_array_tensor(k.key);
    append.value = cli_array_tensor(k.value);
    append.memory.key = cli_array_tensor(keys);
    append.memory.value = cli_array_tensor(values);
    append.memory.lengths = cli_array_tensor(lengths);
    clattn_kv_memory memory = append.memory;
    memory.lengths = cli_array_tensor(grown);
    return run_on_memory(c, &k, &append, &memory);
}

case_result case_attention_paged(cli_case *c) {
    decode_case k = {.query = NULL};
    cli_array *keys, *values, *table, *lengths;
    clattn_kv_memory memory;
    char reason[256];
    CASE_TRY(describe(c, &k));
    CASE_TRY(case_input(c, "key_pages", &keys));
    CASE_TRY(case_input(c, "value_pages", &values));
    CASE_TRY(case_input(c, "block_table", &table));
    CASE_TRY(case_input(c, "context_lens", &lengths));
    CASE_TRY(check_rank(c, "key_pages", keys, 4));
    CASE_TRY(check_rank(c, "value_pages", values, 4));
    CASE_TRY(check_rank(c, "block_table", table, 2));
    CASE_TRY(check_rank(c, "context_lens", lengths, 1));
    if (!cli_array_to_i32(lengths, reason) || !cli_array_to_i32(table, reason))
        return case_error(c, "context_lens or block_table: %s", reason);
    k.desc.layout = CLATTN_KV_PAGED;
    k.desc.caller_memory = 1;
    k.desc.pages = keys->shape[0];
    k.desc.page_size = keys->shape[1];
    k.attention.kv_heads = keys->shape[2];
    k.attention.value_dim = values->shape[3];
    k.attention.kv_len = table->shape[1] * keys->shape[1];
    memset(&memory, 0, sizeof memory);
    memory.key = cli_array_tensor(keys);
    memory.value = cli_array_tensor(values);
    memory.block_table = cli_array_tensor(table);
    memory.lengths = cli_array_tensor(lengths);
    return run_on_memory(c, &k, NULL, &memory);
}
