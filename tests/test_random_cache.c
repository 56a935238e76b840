/* Key/value caches drawn at random: layout, storage, who holds the memory, order of pages, rotary positions and options
 * of attention together; tokens are appended, dropped and asked in random portions, and every answer is compared with
 * the scalar reference on a dense cache of the same storage.
 *
 * A class is what shapes the binaries; each gets many cases. A failure prints CLASS:CASE; CLATTN_RANDOM=CLASS:CASE
 * replays it. */
#include <stdio.h>
#include <string.h>

#include "clattn/clattn.h"
#include "random_data.h"

#ifdef __SANITIZE_ADDRESS__
enum { CASES = 6 }; /* drivers' compilers are slow there */
#else
enum { CASES = 60 };
#endif
enum {
    LAYOUTS = 3,
    STORAGES = 4,
    CLASSES = LAYOUTS * STORAGES, /* each pair once */
    OPTIONS = 4,                  /* sets of options, each with several layouts and storages */
    STEPS = 7,
    MOST_BATCH = 3,
    MOST_MEMORY = 32
};

static clattn_context *context;
static long answered[LAYOUTS][STORAGES]; /* right answers */

static const char *const layout_names[LAYOUTS] = {"dense", "ring", "paged"};
static const clattn_dtype storages[STORAGES] = {CLATTN_F32, CLATTN_F16, CLATTN_BF16, CLATTN_I8};

typedef struct stage {
    clattn_random random;
    clattn_attention_desc attention, wide; /* of the device; of the reference, which never forgets a token */
    clattn_rope_desc rope;
    clattn_kv_cache_desc desc, dense; /* of the device; of the reference */
    clattn_kv_cache *cache;
    clattn_kv_memory memory, want_memory;                  /* the caller's, if it holds it; the reference's */
    int32_t lengths[MOST_BATCH], want_lengths[MOST_BATCH]; /* of the caller; those that count */
    int64_t lost[MOST_BATCH];                              /* how many of the first tokens the ring has overwritten */
    int32_t *table, *pages;                                /* the caller's; all pages in random order */
    clattn_tensor alibi, sinks;
    void *memories[MOST_MEMORY];
    int memory_count;
    int storage; /* of storages[] */
    char what[32];
} stage;

static bool chance(stage *s, double p) { return draw_chance(&s->random, p); }
static int64_t pick(stage *s, int64_t low, int64_t high) { return draw_between(&s->random, low, high); }

static clattn_dtype storage_of(const stage *s) { return s->desc.has_storage ? s->desc.storage : s->attention.dtype; }

/* A turned key may round to another neighbour before it is stored in fewer bits. */
static bool rounds_turned_keys(const stage *s) { return s->desc.rope && storage_of(s) != CLATTN_F32; }

static int64_t volume(const clattn_tensor *t) {
    int64_t count = 1;
    for (int i = 0; i < t->rank; i++) count *= t->shape[i];
    return count;
}

/* Guarded memory full of NaN for a tensor, freed with the stage. */
static clattn_tensor poisoned(stage *s, clattn_dtype dtype, int rank, int64_t n0, int64_t n1, int64_t n2, int64_t n3) {
    clattn_tensor t = clattn_host(NULL, dtype, rank, n0, n1, n2, n3);
    t.data = s->memories[s->memory_count++] = clattn_guard_alloc((size_t)volume(&t) * clattn_dtype_size(dtype));
    return t;
}

static void fill(stage *s, const clattn_tensor *t) {
    const int64_t count = volume(t);
    for (int64_t i = 0; i < count; i++) clattn__ref_store(t->data, t->dtype, i, clattn_random_normal(&s->random));
}

/* Tokens. Rows of int8 caches are multiples of a power of two with 127 of them among each, so that no rounding of a
 * quotient can fall two ways. */
static void fill_tokens(stage *s, const clattn_tensor *t, bool bytes) {
    const int64_t count = volume(t), width = t->shape[3];
    if (!bytes) {
        fill(s, t);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        clattn__ref_store(t->data, t->dtype, i, (i % width == i / width % width ? 127 : pick(s, -127, 127)) * 0x1p-6);
}

/* ---- one class: what shapes the binaries ------------------------------------------------------------------------- */

static void draw_options(stage *s, int number) {
    static const int dims[] = {8, 16, 24, 33, 64, 5, 40};
    clattn_attention_desc *a = &s->attention;
    s->random.state = 2000003u * (uint64_t)(number + 1);
    clattn_attention_desc_init(a);
    clattn_rope_desc_init(&s->rope);
    a->head_dim = dims[pick(s, 0, 6)];
    a->value_dim = chance(s, 0.7) ? a->head_dim : dims[pick(s, 0, 6)];
    a->query_heads = pick(s, 1, 4); /* of each key/value head, until the case tells how many there are */
    a->query_len = pick(s, 9, 24);
    a->dtype = number == OPTIONS - 1 ? CLATTN_F16 : CLATTN_F32;
    a->causal = number == 1 ? CLATTN_CAUSAL_NONE : CLATTN_CAUSAL_BOTTOM_RIGHT;
    a->window_left = number % 2 == 0 ? 1 : -1; /* the values are drawn for each case */
    a->softcap = chance(s, 0.5) ? 3.0f : 0;
    a->alibi = a->causal && chance(s, 0.5);
    a->sinks = chance(s, 0.5);
    a->logsumexp = chance(s, 0.5);
    s->rope.style = chance(s, 0.5) ? CLATTN_ROPE_HALF_SPLIT : CLATTN_ROPE_INTERLEAVED;
    s->rope.rotary_dim = chance(s, 0.5) ? a->head_dim / 2 * 2 : a->head_dim / 4 * 2;
    s->desc.rope = number % 2 == 1 ? &s->rope : NULL;
}

static void draw_class(stage *s, int number) {
    draw_options(s, number % OPTIONS);
    clattn_attention_desc *a = &s->attention;
    clattn_kv_cache_desc *d = &s->desc;
    const clattn_rope_desc *rope = d->rope;
    clattn_kv_cache_desc_init(d);
    d->rope = rope;
    d->attention = a;
    d->layout = (clattn_kv_layout)(number % LAYOUTS);
    s->storage = number / LAYOUTS;
    d->has_storage = storages[s->storage] != a->dtype;
    d->storage = storages[s->storage];
    if (a->dtype == CLATTN_F16 && d->storage != CLATTN_I8) d->has_storage = 0; /* float16 tokens stay what they are */
    if (d->layout == CLATTN_KV_RING) {
        a->causal = CLATTN_CAUSAL_BOTTOM_RIGHT;
        a->window_left = 1;
        if (rounds_turned_keys(s)) d->rope = NULL; /* what a ring keeps cannot be compared token by token */
    }
    /* the registry's choice, and in some cases another kernel */
    static const char *const kernels[] = {"attn_naive", "attn_tiled", "attn_cpu", "attn_host"};
    a->kernel = kernels[number % 4];
}

/* ---- one case: what does not ------------------------------------------------------------------------------------- */

static void draw_case(stage *s, int number) {
    clattn_attention_desc *a = &s->attention;
    clattn_kv_cache_desc *d = &s->desc;
    a->batch = pick(s, 1, MOST_BATCH);
    a->kv_heads = pick(s, 1, 3);
    a->query_heads *= a->kv_heads;
    a->kv_len = pick(s, a->query_len, 60);
    a->has_scale = chance(s, 0.2);
    a->scale = (float)clattn_random_uniform(&s->random, -1, 1);
    a->temperature = chance(s, 0.2) ? 0.7f : 1.0f;
    if (a->window_left >= 0) {
        a->window_left = pick(s, 0, 30);
        a->window_right = chance(s, 0.5) ? -1 : pick(s, 0, 3);
    }
    if (number % 4 != 0) a->kernel = NULL;
    d->caller_memory = d->layout != CLATTN_KV_RING && (chance(s, 0.5) || rounds_turned_keys(s));
    d->page_size = pick(s, 1, 17);
    const int64_t columns = (a->kv_len + d->page_size - 1) / d->page_size;
    d->pages = a->batch * columns + pick(s, 0, 5);
    s->wide = *a;
    s->wide.kernel = NULL;
    s->dense = *d;
    s->dense.attention = &s->wide;
    s->dense.layout = CLATTN_KV_DENSE;
    s->dense.caller_memory = 1;
    if (d->layout != CLATTN_KV_RING) return;
    a->kv_len = a->window_left + a->query_len + pick(s, 0, 9);
    s->wide.kv_len = STEPS * a->query_len;
}

/* Keys, values and scales of a cache in memory of ours, every cell NaN. */
static clattn_kv_memory cells(stage *s, const clattn_kv_cache_desc *d, int32_t *lengths) {
    const clattn_attention_desc *a = d->attention;
    const bool paged = d->layout == CLATTN_KV_PAGED;
    const int64_t n0 = paged ? d->pages : a->batch, n1 = paged ? d->page_size : a->kv_heads;
    const int64_t n2 = paged ? a->kv_heads : a->kv_len;
    const clattn_dtype storage = storage_of(s);
    clattn_kv_memory m;
    memset(&m, 0, sizeof m);
    m.key = poisoned(s, storage, 4, n0, n1, n2, a->head_dim);
    m.value = poisoned(s, storage, 4, n0, n1, n2, a->value_dim);
    if (storage == CLATTN_I8) m.key_scales = poisoned(s, CLATTN_F32, 3, n0, n1, n2, 0);
    if (storage == CLATTN_I8) m.value_scales = poisoned(s, CLATTN_F32, 3, n0, n1, n2, 0);
    m.lengths = clattn_host(lengths, CLATTN_I32, 1, a->batch, 0, 0, 0);
    return m;
}

/* All pages in random order, and a table without any. */
static void draw_pages(stage *s) {
    const clattn_kv_cache_desc *d = &s->desc;
    const int64_t B = s->attention.batch, columns = (s->attention.kv_len + d->page_size - 1) / d->page_size;
    const clattn_tensor pages = poisoned(s, CLATTN_I32, 1, d->pages, 0, 0, 0);
    s->pages = pages.data;
    for (int64_t i = 0; i < d->pages; i++) {
        const int64_t other = pick(s, 0, i);
        s->pages[i] = s->pages[other];
        s->pages[other] = (int32_t)i;
    }
    s->memory.block_table = poisoned(s, CLATTN_I32, 2, B, columns, 0, 0);
    s->table = s->memory.block_table.data;
    for (int64_t i = 0; i < B * columns; i++) s->table[i] = -1;
}

/* The caller's pages for what each entry will hold; those behind may be there already, or be missing. */
static void give_pages(stage *s, int64_t added) {
    const int64_t columns = s->memory.block_table.shape[1];
    for (int64_t b = 0; b < s->attention.batch; b++)
        for (int64_t m = 0; m < columns; m++) {
            const bool needed = m * s->desc.page_size < s->want_lengths[b] + added;
            s->table[b * columns + m] = needed || chance(s, 0.3) ? s->pages[b * columns + m] : -1;
        }
}

static bool start(stage *s) {
    clattn_attention_desc *a = &s->attention;
    memset(s->want_lengths, 0, sizeof s->want_lengths);
    s->want_memory = cells(s, &s->dense, s->want_lengths);
    if (s->desc.caller_memory) s->memory = cells(s, &s->desc, s->lengths);
    if (s->desc.caller_memory && s->desc.layout == CLATTN_KV_PAGED) draw_pages(s);
    if (a->alibi) s->alibi = poisoned(s, CLATTN_F32, 1, a->query_heads, 0, 0, 0);
    if (a->alibi) fill(s, &s->alibi);
    if (a->sinks) s->sinks = poisoned(s, CLATTN_F32, 1, a->query_heads, 0, 0, 0);
    if (a->sinks) fill(s, &s->sinks);
    clattn_status status = clattn_kv_cache_create(&s->cache, context, &s->desc);
    if (status == CLATTN_UNSUPPORTED && a->kernel) {
        a->kernel = NULL;
        status = clattn_kv_cache_create(&s->cache, context, &s->desc);
    }
    return CHECK(status == CLATTN_OK, "%s: %s", s->what, clattn_last_error());
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

/* Element 0 of token t of entry b and head h in memory of ours. */
static int64_t cell(const stage *s, const clattn_tensor *cells, bool paged, int64_t b, int64_t h, int64_t t) {
    const int64_t width = cells->rank == 4 ? cells->shape[3] : 1;
    if (!paged) return ((b * cells->shape[1] + h) * cells->shape[2] + t) * width;
    const int64_t page = s->table[b * s->memory.block_table.shape[1] + t / s->desc.page_size];
    return ((page * s->desc.page_size + t % s->desc.page_size) * cells->shape[2] + h) * width;
}

/* Keys that were turned and rounded on the device must be neighbours of the reference's, which takes them over: the
 * answers are then compared for the same cache. */
static bool take_over(stage *s, const clattn_tensor *got, const clattn_tensor *want) {
    const bool paged = s->desc.layout == CLATTN_KV_PAGED;
    const int64_t width = got->rank == 4 ? got->shape[3] : 1;
    const double unit = got->dtype == CLATTN_I8 ? 1 : 0;
    const double relative = s->attention.dtype == CLATTN_F16 ? 2e-5 : 2e-6; /* float16 keys were rounded before */
    for (int64_t b = 0; b < s->attention.batch; b++)
        for (int64_t h = 0; h < s->attention.kv_heads; h++)
            for (int64_t t = 0; t < s->want_lengths[b]; t++) {
                const size_t size = clattn_dtype_size(got->dtype);
                char *from = (char *)got->data + (size_t)cell(s, got, paged, b, h, t) * size;
                char *to = (char *)want->data + (size_t)cell(s, want, false, b, h, t) * size;
                const stored_pair pair = {from, to, got->dtype, width, NULL, relative, unit};
                double allowed;
                const int64_t i = first_wrong(&pair, &allowed);
                if (i >= 0)
                    return CHECK(false, "%s: token %d of entry %d, head %d, element %d is %.9g, not %.9g", s->what,
                                 (int)t, (int)b, (int)h, (int)i, clattn__ref_load(from, got->dtype, i),
                                 clattn__ref_load(to, got->dtype, i));
                memcpy(to, from, (size_t)width * size);
            }
    return true;
}

static bool append(stage *s) {
    const clattn_attention_desc *a = &s->attention, *w = &s->wide;
    int64_t room = a->query_len;
    for (int64_t b = 0; b < a->batch; b++)
        if (w->kv_len - s->want_lengths[b] < room) room = w->kv_len - s->want_lengths[b];
    const int64_t rows = chance(s, 0.3) ? (room > 0) : pick(s, 0, room);
    const int kept = s->memory_count;
    clattn_kv_append_io io = {.key = poisoned(s, a->dtype, 4, a->batch, a->kv_heads, rows, a->head_dim),
                              .value = poisoned(s, a->dtype, 4, a->batch, a->kv_heads, rows, a->value_dim)};
    clattn_kv_append_io want = io;
    fill_tokens(s, &io.key, storage_of(s) == CLATTN_I8);
    fill_tokens(s, &io.value, storage_of(s) == CLATTN_I8);
    want.memory = s->want_memory;
    if (s->desc.caller_memory) {
        if (s->table) give_pages(s, rows);
        memcpy(s->lengths, s->want_lengths, sizeof s->lengths);
        io.memory = s->memory;
    }
    bool good =
        CHECK(clattn_reference_kv_append(&s->dense, &want) == CLATTN_OK, "%s: %s", s->what, clattn_last_error()) &&
        CHECK(clattn_kv_cache_append(s->cache, &io) == CLATTN_OK, "%s: %s", s->what, clattn_last_error());
    for (int64_t b = 0; b < a->batch; b++) {
        s->want_lengths[b] += (int32_t)rows;
        if (s->desc.layout == CLATTN_KV_RING && s->want_lengths[b] - a->kv_len > s->lost[b])
            s->lost[b] = s->want_lengths[b] - a->kv_len;
    }
    while (s->memory_count > kept) clattn_guard_free(s->memories[--s->memory_count]);
    if (good && rounds_turned_keys(s)) good = take_over(s, &s->memory.key, &s->want_memory.key);
    if (good && rounds_turned_keys(s) && storage_of(s) == CLATTN_I8)
        good = take_over(s, &s->memory.key_scales, &s->want_memory.key_scales);
    return good;
}

/* A ring must say no when a window begins in what it has overwritten. */
static bool ring_lacks(const stage *s, int64_t b, int64_t length, int64_t rows) {
    return s->lost[b] > 0 && length - rows - s->attention.window_left < s->lost[b];
}

/* Forgets the newest tokens of one entry. */
static bool drop(stage *s) {
    const int64_t b = pick(s, 0, s->attention.batch - 1);
    const int64_t length = chance(s, 0.2) ? 0 : pick(s, 0, s->want_lengths[b]);
    const bool lacks = length > 0 && ring_lacks(s, b, length, 0);
    if (!lacks) s->want_lengths[b] = (int32_t)length;
    if (length == 0) s->lost[b] = 0;
    if (s->desc.caller_memory) return true;
    const clattn_status status = clattn_kv_cache_truncate(s->cache, b, length);
    return CHECK(status == (lacks ? CLATTN_INVALID_ARGUMENT : CLATTN_OK), "%s: truncating entry %d to %d: %s: %s",
                 s->what, (int)b, (int)length, clattn_status_name(status), clattn_last_error());
}

/* Without a causal mask each row needs its token. */
static int64_t draw_rows(stage *s) {
    int64_t most = s->attention.query_len;
    for (int64_t b = 0; b < s->attention.batch && s->attention.causal == CLATTN_CAUSAL_NONE; b++)
        if (s->want_lengths[b] > 0 && s->want_lengths[b] < most) most = s->want_lengths[b];
    return chance(s, 0.5) ? 1 : pick(s, 1, most);
}

/* Turned queries: in float32, and of the logsumexp in float16. */
static double slack_of(const stage *s, bool lse) {
    if (!s->desc.rope) return 0;
    return lse && s->attention.dtype == CLATTN_F16 ? 0.01 : 2e-6;
}

static bool same(stage *s, const clattn_tensor *got, const clattn_tensor *want, const float *tolerance,
                 double relative) {
    const clattn_attention_desc *a = &s->attention;
    const stored_pair pair = {
        got->data, want->data, got->dtype, volume(got), tolerance, relative, slack_of(s, !tolerance)};
    double allowed;
    const int64_t i = first_wrong(&pair, &allowed);
    if (i >= 0)
        return CHECK(false,
                     "%s: %s cache of %s%s%s, kernel %s, D %d, Dv %d, B %d, heads %d over %d, page size %d: element "
                     "%lld of the %s is %.9g, not %.9g (tolerance %.3g)",
                     s->what, layout_names[s->desc.layout], clattn_dtype_name(storage_of(s)),
                     s->desc.caller_memory ? ", caller's memory" : "", s->desc.rope ? ", rope" : "",
                     a->kernel ? a->kernel : "of the registry's choice", (int)a->head_dim, (int)a->value_dim,
                     (int)a->batch, (int)a->query_heads, (int)a->kv_heads, (int)s->desc.page_size, (long long)i,
                     tolerance ? "output" : "logsumexp", clattn__ref_load(got->data, got->dtype, i),
                     clattn__ref_load(want->data, want->dtype, i), allowed);
    return CHECK(clattn_guard_intact(got->data), "%s: something wrote beside an output", s->what);
}

static bool attend(stage *s) {
    const clattn_attention_desc *a = &s->attention;
    const int64_t B = a->batch, H = a->query_heads, rows = draw_rows(s);
    const int kept = s->memory_count;
    clattn_kv_attend_io io = {.query = poisoned(s, a->dtype, 4, B, H, rows, a->head_dim),
                              .output = poisoned(s, a->dtype, 4, B, H, rows, a->value_dim),
                              .alibi = s->alibi,
                              .sinks = s->sinks};
    fill(s, &io.query);
    if (a->logsumexp) io.logsumexp = poisoned(s, CLATTN_F32, 3, B, H, rows, 0);
    clattn_kv_attend_io want = io;
    want.output = poisoned(s, a->dtype, 4, B, H, rows, a->value_dim);
    if (a->logsumexp) want.logsumexp = poisoned(s, CLATTN_F32, 3, B, H, rows, 0);
    want.memory = s->want_memory;
    const clattn_tensor tolerance = poisoned(s, CLATTN_F32, 4, B, H, rows, a->value_dim);
    if (s->desc.caller_memory) {
        if (s->table) give_pages(s, 0);
        memcpy(s->lengths, s->want_lengths, sizeof s->lengths);
        io.memory = s->memory;
    }
    clattn_plan_info info;
    clattn_kv_cache_info(s->cache, &info);
    clattn_attention_desc as_run = s->wide; /* the tolerance is that of the kernels that run */
    as_run.kernel = info.kernels;
    clattn_kv_cache_desc dense = s->dense;
    dense.attention = &as_run;
    bool good = CHECK(clattn_reference_kv_attend(&dense, &want, tolerance.data) == CLATTN_OK, "%s: %s", s->what,
                      clattn_last_error());
    bool lacks = false;
    for (int64_t b = 0; b < B; b++) lacks = lacks || ring_lacks(s, b, s->want_lengths[b], rows);
    const clattn_status status = clattn_kv_cache_attend(s->cache, &io);
    good = good && CHECK(status == (lacks ? CLATTN_INVALID_ARGUMENT : CLATTN_OK), "%s: %d rows: %s: %s", s->what,
                         (int)rows, clattn_status_name(status), clattn_last_error());
    if (good && !lacks)
        good = same(s, &io.output, &want.output, tolerance.data, 0) &&
               (!a->logsumexp || same(s, &io.logsumexp, &want.logsumexp, NULL, 3e-5));
    while (s->memory_count > kept) clattn_guard_free(s->memories[--s->memory_count]);
    answered[s->desc.layout][s->storage] += good && !lacks;
    return good;
}

static void run_case(int class_number, int case_number) {
    stage s;
    memset(&s, 0, sizeof s);
    draw_class(&s, class_number);
    s.random.state += 7919u * (uint64_t)(case_number + 1);
    snprintf(s.what, sizeof s.what, "%d:%d", class_number, case_number);
    draw_case(&s, case_number);
    bool good = start(&s);
    for (int step = 0; step < STEPS && good; step++) {
        good = append(&s);
        if (good && chance(&s, 0.3)) good = drop(&s);
        good = good && attend(&s);
    }
    clattn_kv_cache_destroy(&s.cache);
    for (int i = 0; i < s.memory_count; i++) {
        CHECK(clattn_guard_intact(s.memories[i]), "%s: something wrote beside memory %d", s.what, i);
        clattn_guard_free(s.memories[i]);
    }
}

static void combinations(void) {
    int only_class, only_case;
    if (is_replay(&only_class, &only_case)) {
        run_case(only_class, only_case);
        return;
    }
    for (int c = 0; c < CLASSES; c++)
        for (int i = 0; i < CASES; i++) run_case(c, i);
    for (int l = 0; l < LAYOUTS; l++)
        for (int t = 0; t < STORAGES; t++) {
            clattn_test_note("%s, %s: %ld answers right", layout_names[l], clattn_dtype_name(storages[t]),
                             answered[l][t]);
            CHECK(answered[l][t] > 0, "no answer of a %s cache of %s was right", layout_names[l],
                  clattn_dtype_name(storages[t]));
        }
}

int main(int argc, char **argv) {
    static const clattn_test tests[] = {{"combinations", combinations}, {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"random_cache", tests}, {NULL, NULL}};
    return clattn_test_main_with(&context, CLATTN_VERIFY_NEVER, suites, argc, argv);
}
