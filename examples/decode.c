/* Decoding with a key/value cache: a prompt, then one token after the other, from a dense cache and from pages;
 * compared with attention over all tokens at once. */
#include <clattn/clattn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS = 8, KV_HEADS = 2, WIDTH = 64, PROMPT = 20, STEPS = 12, TOKENS = PROMPT + STEPS };

static float query[HEADS * TOKENS * WIDTH], key[KV_HEADS * TOKENS * WIDTH], value[KV_HEADS * TOKENS * WIDTH];

static void or_die(clattn_status status) {
    if (status == CLATTN_OK) return;
    fprintf(stderr, "%s: %s\n", clattn_status_name(status), clattn_last_error());
    exit(1);
}

/* Tokens first..first+count-1 of (1, heads, TOKENS, WIDTH). */
static clattn_tensor tokens(float *data, int64_t heads, int64_t first, int64_t count) {
    clattn_tensor t = clattn_host(data, CLATTN_F32, 4, 1, heads, count, WIDTH);
    const int64_t stride[4] = {heads * TOKENS * WIDTH, TOKENS * WIDTH, WIDTH, 1};
    memcpy(t.stride, stride, sizeof stride);
    t.offset = first * WIDTH;
    return t;
}

static void step(clattn_kv_cache *cache, int64_t first, int64_t count, float *output) {
    const clattn_kv_append_io fresh = {.key = tokens(key, KV_HEADS, first, count),
                                       .value = tokens(value, KV_HEADS, first, count)};
    const clattn_kv_attend_io ask = {.query = tokens(query, HEADS, first, count),
                                     .output = tokens(output, HEADS, first, count)};
    or_die(clattn_kv_cache_append(cache, &fresh));
    or_die(clattn_kv_cache_attend(cache, &ask));
}

static void decode(clattn_context *context, const clattn_kv_cache_desc *desc, float *output) {
    clattn_kv_cache *cache;
    clattn_plan_info info;
    or_die(clattn_kv_cache_create(&cache, context, desc));
    step(cache, 0, PROMPT, output);
    for (int64_t t = PROMPT; t < TOKENS; t++) step(cache, t, 1, output);
    or_die(clattn_kv_cache_info(cache, &info));
    printf("%lld tokens, %lld free pages, %zu bytes, by %s\n", (long long)clattn_kv_cache_length(cache, 0),
           (long long)clattn_kv_cache_free_pages(cache), info.held_bytes, info.kernels);
    clattn_kv_cache_destroy(&cache);
}

/* All tokens at once: the same rotation by the public operation, then causal attention. */
static void recompute(clattn_context *context, clattn_attention_desc desc, clattn_rope_desc turn, float *output) {
    static float turned_query[HEADS * TOKENS * WIDTH], turned_key[KV_HEADS * TOKENS * WIDTH];
    float *from[2] = {query, key}, *to[2] = {turned_query, turned_key};
    clattn_attention *plan;
    turn.batch = 1, turn.rows = TOKENS, turn.head_dim = WIDTH;
    for (int i = 0; i < 2; i++) {
        clattn_rope *rope;
        turn.heads = i == 0 ? HEADS : KV_HEADS;
        const clattn_rope_io io = {.input = tokens(from[i], turn.heads, 0, TOKENS),
                                   .output = tokens(to[i], turn.heads, 0, TOKENS)};
        or_die(clattn_rope_create(&rope, context, &turn));
        or_die(clattn_rope_run(rope, &io));
        clattn_rope_destroy(&rope);
    }
    const clattn_attention_io io = {.query = tokens(turned_query, HEADS, 0, TOKENS),
                                    .key = tokens(turned_key, KV_HEADS, 0, TOKENS),
                                    .value = tokens(value, KV_HEADS, 0, TOKENS),
                                    .output = tokens(output, HEADS, 0, TOKENS)};
    or_die(clattn_attention_create(&plan, context, &desc));
    or_die(clattn_attention_run(plan, &io));
    clattn_attention_destroy(&plan);
}

/* Infinite when a number is none. */
static float greatest_difference(const float *a, const float *b) {
    float most = 0;
    for (int i = 0; i < HEADS * TOKENS * WIDTH; i++) {
        const float difference = fabsf(a[i] - b[i]);
        if (!(difference <= most)) most = isnan(difference) ? INFINITY : difference;
    }
    return most;
}

int main(void) {
    static float want[HEADS * TOKENS * WIDTH], dense[HEADS * TOKENS * WIDTH], paged[HEADS * TOKENS * WIDTH];
    for (int i = 0; i < HEADS * TOKENS * WIDTH; i++) query[i] = sinf((float)i * 0.7f);
    for (int i = 0; i < KV_HEADS * TOKENS * WIDTH; i++)
        key[i] = cosf((float)i * 1.3f), value[i] = sinf((float)i * 0.3f);
    clattn_context *context;
    clattn_attention_desc attention;
    clattn_rope_desc rope;
    clattn_kv_cache_desc desc;
    clattn_attention_desc_init(&attention);
    attention.batch = 1, attention.query_heads = HEADS, attention.kv_heads = KV_HEADS, attention.head_dim = WIDTH;
    attention.query_len = attention.kv_len = TOKENS; /* the longest call, and the capacity */
    attention.causal = CLATTN_CAUSAL_BOTTOM_RIGHT;
    clattn_rope_desc_init(&rope);
    clattn_kv_cache_desc_init(&desc);
    desc.attention = &attention;
    desc.rope = &rope;

    or_die(clattn_context_create(&context, NULL));
    recompute(context, attention, rope, want);
    decode(context, &desc, dense);
    desc.layout = CLATTN_KV_PAGED, desc.page_size = 8, desc.pages = 6;
    decode(context, &desc, paged);
    const float difference = greatest_difference(dense, want), pages = greatest_difference(paged, want);
    printf("greatest difference to recomputation: dense %g, paged %g\n", (double)difference, (double)pages);
    clattn_context_destroy(&context);
    return difference < 1e-5f && pages < 1e-5f ? 0 : 1;
}
