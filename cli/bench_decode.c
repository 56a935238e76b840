/* bench --decode: one step of decoding, which appends a token to a key/value cache and attends to all of them. */
#include <string.h>

#include "bench.h"

#define FORM "B,Hq,Hkv,S,D[,WORD]..."
enum { DEFAULT_PAGE = 16 };

typedef struct decode_state {
    cli_problem problem; /* what one step computes, on the cache's content as float32 */
    clattn_kv_cache_desc desc;
    bench_attention_data data; /* key and value: all tokens, as they were appended; check reads them back */
    clattn_tensor key, value;  /* of data */
    clattn_kv_attend_io io;
    clattn_kv_cache *cache;
} decode_state;

static bool word(void *user, const char *name, const char *value) {
    clattn_kv_cache_desc *d = user;
    long long page = DEFAULT_PAGE;
    if (strcmp(name, "paged") == 0) {
        d->layout = CLATTN_KV_PAGED;
        bool good = !value || cli_parse_int(value, 1, INT32_MAX, &page);
        d->page_size = page;
        return good;
    }
    if (value) return false;
    d->has_storage = 1;
    d->storage = CLATTN_I8;
    return strcmp(name, clattn_dtype_name(CLATTN_I8)) == 0 || cli_parse_dtype(name, &d->storage);
}

/* Sizes are what the user wrote: a number of pages that has no 64 bits is the greatest, which the plan refuses. */
static int64_t pages_for(int64_t batch, int64_t tokens, int64_t page_size) {
    const int64_t pages = tokens / page_size + (tokens % page_size != 0);
    return pages > 0 && batch > INT64_MAX / pages ? INT64_MAX : batch * pages;
}

static bool parse(bench_case *c, const char *text) {
    decode_state *s = c->state;
    clattn_attention_desc *a = &s->problem.attention;
    clattn_kv_cache_desc *d = &s->desc;
    long long sizes[5];
    clattn_kv_cache_desc_init(d);
    if (!cli_parse_shape("decode", FORM, text, 5, sizes, word, d, c->shape)) return false;
    clattn_attention_desc_init(a);
    a->batch = sizes[0];
    a->query_heads = sizes[1];
    a->kv_heads = sizes[2];
    a->query_len = 1;
    a->kv_len = sizes[3];
    a->head_dim = sizes[4];
    if (d->layout == CLATTN_KV_PAGED) d->pages = pages_for(a->batch, a->kv_len, d->page_size);
    c->flops = cli_problem_flops(&s->problem);
    const clattn_dtype storage = d->has_storage ? d->storage : CLATTN_F32;
    const double row = (double)a->head_dim * (double)clattn_dtype_size(storage) + (storage == CLATTN_I8 ? 4 : 0);
    c->read_bytes = 2.0 * (double)a->batch * (double)a->kv_heads * (double)a->kv_len * row;
    return true;
}

/* Token t of (B, Hkv, S, D), as (B, Hkv, 1, D). */
static clattn_tensor token(clattn_tensor tensor, int64_t t) {
    const int64_t *n = tensor.shape;
    const int64_t stride[4] = {n[1] * n[2] * n[3], n[2] * n[3], n[3], 1};
    memcpy(tensor.stride, stride, sizeof stride);
    tensor.offset = t * n[3];
    tensor.shape[2] = 1;
    return tensor;
}

static clattn_status append(decode_state *s, int64_t t) {
    const clattn_kv_append_io io = {.key = token(s->key, t), .value = token(s->value, t)};
    return clattn_kv_cache_append(s->cache, &io);
}

static bool make_data(bench_attention_data *data, const clattn_attention_desc *a, uint64_t random) {
    const int64_t query[4] = {a->batch, a->query_heads, 1, a->head_dim};
    const int64_t key[4] = {a->batch, a->kv_heads, a->kv_len, a->head_dim};
    return bench_array(&data->query, CLATTN_F32, 4, query, &random) &&
           bench_array(&data->key, CLATTN_F32, 4, key, &random) &&
           bench_array(&data->value, CLATTN_F32, 4, key, &random) &&
           bench_array(&data->output, CLATTN_F32, 4, query, NULL);
}

static int open_case(bench_case *c, clattn_context *context, const bench_settings *settings) {
    decode_state *s = c->state;
    s->problem.attention.precision = settings->precision;
    clattn_attention_desc attention = s->problem.attention;
    attention.kernel = settings->kernel;
    attention.causal = CLATTN_CAUSAL_BOTTOM_RIGHT;
    s->desc.attention = &attention;
    clattn_status status = clattn_kv_cache_create(&s->cache, context, &s->desc);
    s->desc.attention = NULL;
    if (status != CLATTN_OK) return bench_fail(c, status, "planning");
    if (!make_data(&s->data, &attention, settings->seed))
        return cli_fail(EXIT_NOT_SUPPORTED, "%s: too little memory for its tensors", c->shape);
    s->key = cli_array_tensor(&s->data.key);
    s->value = cli_array_tensor(&s->data.value);
    s->io.query = cli_array_tensor(&s->data.query);
    s->io.output = cli_array_tensor(&s->data.output);
    clattn_tensor *const tensors[] = {&s->key, &s->value, &s->io.query, &s->io.output};
    int code = bench_place(c, context, settings, tensors, sizeof tensors / sizeof *tensors);
    if (code != EXIT_GOOD) return code;
    for (int64_t t = 0; t + 1 < attention.kv_len && status == CLATTN_OK; t++) status = append(s, t);
    return status == CLATTN_OK ? EXIT_GOOD : bench_fail(c, status, "filling the cache of");
}

/* The newest token goes and comes again, so that every run sees the same length. */
static clattn_status run(bench_case *c) {
    decode_state *s = c->state;
    const clattn_attention_desc *a = &s->problem.attention;
    clattn_status status = CLATTN_OK;
    for (int64_t b = 0; b < a->batch && status == CLATTN_OK; b++)
        if (clattn_kv_cache_length(s->cache, b) == a->kv_len)
            status = clattn_kv_cache_truncate(s->cache, b, a->kv_len - 1);
    if (status == CLATTN_OK) status = append(s, a->kv_len - 1);
    return status == CLATTN_OK ? clattn_kv_cache_attend(s->cache, &s->io) : status;
}

static clattn_status info(const bench_case *c, clattn_plan_info *figures) {
    return clattn_kv_cache_info(((const decode_state *)c->state)->cache, figures);
}

/* What the cache holds, rounded as its storage rounds, is what the reference attends to. */
static clattn_status check(bench_case *c) {
    decode_state *s = c->state;
    bench_attention_data held = s->data;
    held.key = held.value = (cli_array){0};
    bool good = bench_array(&held.key, CLATTN_F32, 4, s->data.key.shape, NULL) &&
                bench_array(&held.value, CLATTN_F32, 4, s->data.value.shape, NULL);
    clattn_tensor key = cli_array_tensor(&held.key), value = cli_array_tensor(&held.value);
    clattn_status status = good ? clattn_kv_cache_read(s->cache, &key, &value) : CLATTN_OUT_OF_MEMORY;
    if (status == CLATTN_OK) status = bench_check_attention(&s->problem, &held, &c->result);
    cli_array_free(&held.key);
    cli_array_free(&held.value);
    return status;
}

static void close_case(bench_case *c) {
    decode_state *s = c->state;
    cli_array *const arrays[] = {&s->data.query, &s->data.key, &s->data.value, &s->data.output};
    cli_arrays_free(arrays, sizeof arrays / sizeof *arrays);
    clattn_kv_cache_destroy(&s->cache);
}

const bench_kind bench_decode = {.op = "decode",
                                 .state_bytes = sizeof(decode_state),
                                 .parse = parse,
                                 .open = open_case,
                                 .run = run,
                                 .info = info,
                                 .check = check,
                                 .close = close_case};
