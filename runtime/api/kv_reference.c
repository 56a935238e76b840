/* The references of clattn/kv_cache.h. */
#include <string.h>

#include "api/check_kv_cache.h"
#include "api/reference.h"
#include "api/rules.h"
#include "ref/ref.h"

/* Axes of a tensor in the order batch, head, row, column; -1: the array does not have it. */
static clattn__ref_array array_of(const clattn_tensor *t, int batch, int head, int row, int column) {
    const int axes[4] = {batch, head, row, column};
    clattn__ref_array array = {.dtype = t->dtype};
    if (t->data) array.data = (char *)t->data + (size_t)t->offset * clattn_dtype_size(t->dtype);
    for (int i = 0; i < 4; i++) array.stride[i] = axes[i] >= 0 && axes[i] < t->rank ? t->stride[axes[i]] : 0;
    return array;
}

static clattn__ref_array array4(const clattn_tensor *t) { return array_of(t, 0, 1, 2, 3); }

/* Dense (heads, rows, width) per batch entry. */
static clattn__ref_array dense(void *memory, clattn_dtype dtype, int64_t heads, int64_t rows, int64_t width) {
    return (clattn__ref_array){memory, dtype, {heads * rows * width, rows * width, width, 1}};
}

/* ---- rotary positions ------------------------------------------------------------------------------------------ */

static clattn__ref_rope rotation(const clattn_rope_desc *d) {
    return (clattn__ref_rope){.batch = d->batch,
                              .heads = d->heads,
                              .rows = d->rows,
                              .head_dim = d->head_dim,
                              .rotary_dim = d->rotary_dim,
                              .first = d->first,
                              .table_rows = d->table_rows,
                              .source = d->source,
                              .base = d->base,
                              .interleaved = d->style == CLATTN_ROPE_INTERLEAVED,
                              .inverse = d->inverse != 0,
                              .count_rows = d->positions != CLATTN_ROPE_POSITIONS_BY_ROW,
                              .stored = d->dtype};
}

clattn_status clattn_reference_rope(const clattn_rope_desc *desc, const clattn_rope_io *io, float *tolerance) {
    clattn_rope_desc d;
    clattn_rope_io all;
    CLATTN__TRY(clattn__check_rope_desc(desc, &d));
    CLATTN__TRY(clattn__check_rope_io(&d, io, &all));
    const clattn__named_tensor tensors[] = {{"input", &all.input},
                                            {"positions", &all.positions},
                                            {"cosine", &all.cosine},
                                            {"sine", &all.sine},
                                            {"output", &all.output}};
    CLATTN__TRY(clattn__check_on_host(tensors, CLATTN__COUNT(tensors)));
    clattn__ref_rope p = rotation(&d);
    p.x = array4(&all.input);
    p.y = array4(&all.output);
    p.positions = array_of(&all.positions, 0, -1, d.positions == CLATTN_ROPE_POSITIONS_BY_ROW ? 1 : -1, -1);
    p.cosine = array_of(&all.cosine, 0, -1, 1, 2);
    p.sine = array_of(&all.sine, 0, -1, 1, 2);
    p.tolerance = dense(tolerance, CLATTN_F32, d.heads, d.rows, d.head_dim);
    clattn__ref_rope_run(&p);
    return CLATTN_OK;
}

/* ---- key/value cache ------------------------------------------------------------------------------------------- */

static clattn_status check_memory(const clattn__kv_desc *d, bool writes, const clattn_kv_memory *in,
                                  clattn_kv_memory *m) {
    if (!d->caller_memory)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "caller_memory is 0; the reference holds no tokens");
    CLATTN__TRY(clattn__check_kv_memory(d, true, writes, in, m));
    const clattn__named_tensor tensors[] = {{"memory.key", &m->key},
                                            {"memory.value", &m->value},
                                            {"memory.key_scales", &m->key_scales},
                                            {"memory.value_scales", &m->value_scales},
                                            {"memory.lengths", &m->lengths},
                                            {"memory.block_table", &m->block_table}};
    return clattn__check_on_host(tensors, CLATTN__COUNT(tensors));
}

static clattn_status check_lengths(const clattn__kv_desc *d, const clattn_kv_memory *m, int64_t added, int64_t rows) {
    int32_t *lengths = clattn__alloc((size_t)d->attention.batch + 1, sizeof *lengths);
    clattn_status status = lengths ? clattn__check_kv_lengths(d, &m->lengths, lengths) : CLATTN_OUT_OF_MEMORY;
    if (status == CLATTN_OK) status = clattn__check_kv_growth(d, lengths, added);
    if (status == CLATTN_OK) status = clattn__check_kv_rows(d, lengths, rows);
    if (status == CLATTN_OK) status = clattn__check_kv_table(d, &m->block_table, lengths, added);
    clattn__free(lengths);
    return status;
}

static clattn__ref_cache cache_of(const clattn__kv_desc *d, const clattn_kv_memory *m, bool value) {
    return (clattn__ref_cache){.batch = d->attention.batch,
                               .heads = d->attention.kv_heads,
                               .width = value ? d->attention.value_dim : d->attention.head_dim,
                               .capacity = d->attention.kv_len,
                               .page_size = d->layout == CLATTN_KV_PAGED ? d->page_size : 0,
                               .pages = d->pages,
                               .cells = array4(value ? &m->value : &m->key),
                               .scales = array4(value ? &m->value_scales : &m->key_scales),
                               .lengths = array_of(&m->lengths, 0, -1, -1, -1),
                               .table = array_of(&m->block_table, 0, -1, 1, -1)};
}

/* x, turned for the positions lengths[b] + first + row, as double; error (may be NULL): how far a device may be off. */
static void turn(const clattn__kv_desc *d, const clattn_tensor *x, const clattn_kv_memory *m, int64_t first, double *y,
                 double *error) {
    clattn__ref_rope p = rotation(&d->rope);
    p.batch = x->shape[0];
    p.heads = x->shape[1];
    p.rows = x->shape[2];
    p.head_dim = x->shape[3];
    p.first = first;
    p.count_rows = true;
    p.stored = d->attention.dtype;
    p.x = array4(x);
    p.y = dense(y, CLATTN__F64, p.heads, p.rows, p.head_dim);
    p.tolerance = dense(error, CLATTN__F64, p.heads, p.rows, p.head_dim);
    p.positions = array_of(&m->lengths, 0, -1, -1, -1);
    p.cosine = array_of(&d->cosine, -1, -1, 0, 1);
    p.sine = array_of(&d->sine, -1, -1, 0, 1);
    clattn__ref_rope_run(&p);
}

static size_t elements_of(const clattn_tensor *t) {
    return (size_t)t->shape[0] * (size_t)t->shape[1] * (size_t)t->shape[2] * (size_t)t->shape[3];
}

clattn_status clattn_reference_kv_append(const clattn_kv_cache_desc *desc, const clattn_kv_append_io *io) {
    clattn__kv_desc d;
    clattn_kv_append_io all;
    CLATTN__TRY(clattn__check_kv_desc(desc, &d));
    CLATTN__TRY(clattn__check_kv_append(&d, io, &all));
    CLATTN__TRY(check_memory(&d, true, &io->memory, &all.memory));
    const clattn__named_tensor tensors[] = {{"key", &all.key}, {"value", &all.value}};
    CLATTN__TRY(clattn__check_on_host(tensors, CLATTN__COUNT(tensors)));
    const int64_t rows = all.key.shape[2];
    CLATTN__TRY(check_lengths(&d, &all.memory, rows, 0));

    clattn__ref_cache key = cache_of(&d, &all.memory, false), value = cache_of(&d, &all.memory, true);
    key.rows = value.rows = rows;
    key.tokens = array4(&all.key);
    value.tokens = array4(&all.value);
    double *turned = d.has_rope ? clattn__alloc(elements_of(&all.key) + 1, sizeof *turned) : NULL;
    if (d.has_rope && !turned) return CLATTN_OUT_OF_MEMORY;
    if (d.has_rope) {
        turn(&d, &all.key, &all.memory, 0, turned, NULL);
        key.tokens = dense(turned, CLATTN__F64, d.attention.kv_heads, rows, d.attention.head_dim);
    }
    clattn__ref_cache_append(&key);
    clattn__ref_cache_append(&value);
    clattn__free(turned);
    return CLATTN_OK;
}

/* What attending needs besides the caller's tensors. */
typedef struct attend_memory {
    void *key, *value;           /* (B, Hkv, C, D), (B, Hkv, C, Dv) of the attention's type: the cache's tokens */
    double *query, *query_error; /* (B, Hq, L, D), with a rope */
    double *key_error;           /* as key: of keys that a device turned, or rounds once more */
    double *value_error;         /* as value: likewise */
} attend_memory;

static void allow_for_turning(const clattn__kv_desc *d, const clattn__ref_cache *key, double *error) {
    const clattn__ref_turned turned = {.batch = key->batch,
                                       .heads = key->heads,
                                       .rows = key->rows,
                                       .width = key->width,
                                       .rotary_dim = d->rope.rotary_dim,
                                       .interleaved = d->rope.style == CLATTN_ROPE_INTERLEAVED,
                                       .computed = d->rope.source == CLATTN_ROPE_COMPUTED,
                                       .cells = d->storage,
                                       .keys = key->tokens,
                                       .error = dense(error, CLATTN__F64, key->heads, key->rows, key->width)};
    clattn__ref_turned_keys(&turned);
}

/* Bytes times their scale: some kernels go on with the product, others round it to the attention's 16 bits, as the
 * reference does. */
static void allow_for_rounding(const clattn__ref_cache *c, const clattn__ref_array *error) {
    for (int64_t i = 0; i < c->batch * c->heads * c->rows * c->width; i++) {
        const int64_t d = i % c->width, r = i / c->width % c->rows, h = i / c->width / c->rows % c->heads;
        const int64_t b = i / c->width / c->rows / c->heads;
        const double x = clattn__ref_get(&c->tokens, b, h, r, d), other = clattn__ref_get(error, b, h, r, d);
        clattn__ref_set(error, b, h, r, d, other + 1.5 * clattn__ref_storage_rounding(c->tokens.dtype, x));
    }
}

static clattn_status attend(const clattn__kv_desc *d, const clattn_kv_attend_io *io, bool turned, attend_memory *memory,
                            const clattn__tolerances *tolerances) {
    const clattn_attention_desc *a = &d->attention;
    const int64_t rows = io->query.shape[2], C = a->kv_len, tokens = a->batch * a->kv_heads * C;
    const size_t unit = clattn_dtype_size(a->dtype), asked = elements_of(&io->query);
    memory->key = clattn__alloc((size_t)(tokens * a->head_dim) + 1, unit);
    memory->value = clattn__alloc((size_t)(tokens * a->value_dim) + 1, unit);
    memory->query = d->has_rope ? clattn__alloc(2 * asked + 1, sizeof(double)) : NULL;
    if (!memory->key || !memory->value || (d->has_rope && !memory->query)) return CLATTN_OUT_OF_MEMORY;
    memory->query_error = memory->query ? memory->query + asked : NULL;
    turned = turned && d->has_rope;
    const bool rounded = d->storage == CLATTN_I8 && a->dtype != CLATTN_F32;
    if (turned || rounded) memory->key_error = clattn__alloc((size_t)(tokens * a->head_dim) + 1, sizeof(double));
    if (rounded) memory->value_error = clattn__alloc((size_t)(tokens * a->value_dim) + 1, sizeof(double));
    if (((turned || rounded) && !memory->key_error) || (rounded && !memory->value_error)) return CLATTN_OUT_OF_MEMORY;

    clattn__ref_cache key = cache_of(d, &io->memory, false), value = cache_of(d, &io->memory, true);
    key.rows = value.rows = C;
    key.tokens = dense(memory->key, a->dtype, a->kv_heads, C, a->head_dim);
    value.tokens = dense(memory->value, a->dtype, a->kv_heads, C, a->value_dim);
    clattn__ref_cache_gather(&key);
    clattn__ref_cache_gather(&value);
    const bool causal = a->causal != CLATTN_CAUSAL_NONE;
    clattn__ref_attention p = {.batch = a->batch,
                               .query_heads = a->query_heads,
                               .kv_heads = a->kv_heads,
                               .query_len = rows,
                               .kv_len = C,
                               .head_dim = a->head_dim,
                               .value_dim = a->value_dim,
                               .scale = (double)a->scale,
                               .temperature = (double)a->temperature,
                               .softcap = (double)a->softcap,
                               .causal = causal,
                               .offset = causal ? -rows : 0,
                               .offset_from_lengths = causal,
                               .window_left = a->window_left,
                               .window_right = a->window_right,
                               .mask_len = C,
                               .query = array4(&io->query),
                               .key = key.tokens,
                               .value = value.tokens,
                               .lengths = key.lengths,
                               .alibi = array_of(&io->alibi, 0, -1, -1, -1),
                               .sinks = array_of(&io->sinks, 0, -1, -1, -1),
                               .output = array4(&io->output),
                               .lse = array4(&io->logsumexp),
                               .tolerance = dense(tolerances->output, CLATTN_F32, a->query_heads, rows, a->value_dim),
                               .lse_tolerance = dense(tolerances->logsumexp, CLATTN_F32, a->query_heads, rows, 1),
                               .weight_dtype = clattn__weight_dtype(a->dtype, a->kernel)};
    p.key_error = dense(memory->key_error, CLATTN__F64, a->kv_heads, C, a->head_dim);
    p.value_error = dense(memory->value_error, CLATTN__F64, a->kv_heads, C, a->value_dim);
    if (turned) allow_for_turning(d, &key, memory->key_error);
    if (rounded) allow_for_rounding(&key, &p.key_error);
    if (rounded) allow_for_rounding(&value, &p.value_error);
    if (d->has_rope) {
        turn(d, &io->query, &io->memory, -rows, memory->query, memory->query_error);
        p.query = dense(memory->query, CLATTN__F64, a->query_heads, rows, a->head_dim);
        p.query_error = dense(memory->query_error, CLATTN__F64, a->query_heads, rows, a->head_dim);
    }
    return clattn__ref_attention_run(&p);
}

clattn_status clattn_reference_kv_attend(const clattn_kv_cache_desc *desc, const clattn_kv_attend_io *io,
                                         float *tolerance) {
    const clattn__tolerances tolerances = {.output = tolerance};
    return clattn__reference_kv_attend(desc, io, false, &tolerances);
}

clattn_status clattn__reference_kv_attend(const clattn_kv_cache_desc *desc, const clattn_kv_attend_io *io, bool turned,
                                          const clattn__tolerances *tolerances) {
    clattn__kv_desc d;
    clattn_kv_attend_io all;
    CLATTN__TRY(clattn__check_kv_desc(desc, &d));
    CLATTN__TRY(clattn__check_kv_attend(&d, io, &all));
    CLATTN__TRY(check_memory(&d, false, &io->memory, &all.memory));
    const clattn__named_tensor tensors[] = {{"query", &all.query},
                                            {"alibi", &all.alibi},
                                            {"sinks", &all.sinks},
                                            {"output", &all.output},
                                            {"logsumexp", &all.logsumexp}};
    CLATTN__TRY(clattn__check_on_host(tensors, CLATTN__COUNT(tensors)));
    CLATTN__TRY(check_lengths(&d, &all.memory, 0, all.query.shape[2]));
    attend_memory memory = {0};
    clattn_status status = attend(&d, &all, turned, &memory, tolerances);
    clattn__free(memory.key);
    clattn__free(memory.value);
    clattn__free(memory.query);
    clattn__free(memory.key_error);
    clattn__free(memory.value_error);
    return status;
}
