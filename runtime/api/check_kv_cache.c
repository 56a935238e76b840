#include "api/check_kv_cache.h"

#include <string.h>

#include "api/check.h"
#include "api/rules.h"

/* ---- rotary positions ------------------------------------------------------------------------------------------ */

/* Everything but the extents. */
static clattn_status check_rotation(clattn_rope_desc *d) {
    if (d->rotary_dim == 0) d->rotary_dim = d->head_dim;
    CLATTN__TRY(clattn__check_choice("style", (int)d->style, CLATTN_ROPE_INTERLEAVED));
    CLATTN__TRY(clattn__check_choice("source", (int)d->source, CLATTN_ROPE_ROWS));
    if (d->rotary_dim < 2 || d->rotary_dim > d->head_dim || d->rotary_dim % 2 != 0)
        return clattn__fail(CLATTN_INVALID_SHAPE,
                            "rotary_dim is %lld; it must be even and in 2..head_dim (%lld): features turn in pairs",
                            (long long)d->rotary_dim, (long long)d->head_dim);
    if (d->source == CLATTN_ROPE_TABLE)
        CLATTN__TRY(clattn__check_extent("table_rows", d->table_rows, 1, CLATTN__MAX_EXTENT));
    if (d->source != CLATTN_ROPE_COMPUTED) return CLATTN_OK;
    CLATTN__TRY(clattn__check_finite("base", d->base));
    return d->base >= 1 ? CLATTN_OK
                        : clattn__fail(CLATTN_INVALID_ARGUMENT, "base is %g; it must be at least 1", d->base);
}

static clattn_status copy_rope(const clattn_rope_desc *in, clattn_rope_desc *d) {
    CLATTN__TRY(clattn__check_struct_size("clattn_rope_desc", in->struct_size, offsetof(clattn_rope_desc, inverse),
                                          sizeof *in));
    clattn_rope_desc_init(d);
    memcpy(d, in, in->struct_size);
    d->struct_size = sizeof *d;
    return CLATTN_OK;
}

clattn_status clattn__check_rope_desc(const clattn_rope_desc *in, clattn_rope_desc *d) {
    if (!in) return clattn__fail(CLATTN_INVALID_ARGUMENT, "desc is NULL");
    CLATTN__TRY(copy_rope(in, d));
    CLATTN__TRY(clattn__check_extent("batch", d->batch, 0, CLATTN__MAX_EXTENT));
    CLATTN__TRY(clattn__check_extent("heads", d->heads, 1, CLATTN__MAX_EXTENT));
    CLATTN__TRY(clattn__check_extent("rows", d->rows, 0, CLATTN__MAX_EXTENT));
    CLATTN__TRY(clattn__check_extent("head_dim", d->head_dim, 2, CLATTN_MAX_HEAD_DIM));
    const int64_t extents[4] = {d->batch, d->heads, d->rows, d->head_dim};
    CLATTN__TRY(clattn__check_volume("input", extents, 4));
    CLATTN__TRY(clattn__check_choice("dtype", (int)d->dtype, CLATTN_BF16));
    CLATTN__TRY(check_rotation(d));
    CLATTN__TRY(clattn__check_choice("positions", (int)d->positions, CLATTN_ROPE_POSITIONS_BY_ENTRY));
    if (d->source == CLATTN_ROPE_ROWS && d->positions != CLATTN_ROPE_NO_POSITIONS)
        return clattn__fail(CLATTN_INVALID_ARGUMENT,
                            "positions is %d; it must be 0, because cosine and sine by token need none",
                            (int)d->positions);
    if (d->first < -CLATTN__MAX_EXTENT || d->first > CLATTN__MAX_EXTENT)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "first is %lld; it must be in -2^28..2^28", (long long)d->first);
    if (d->source == CLATTN_ROPE_TABLE && d->positions == CLATTN_ROPE_NO_POSITIONS && d->rows > 0 &&
        (d->first < 0 || d->first + d->rows > d->table_rows))
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "positions are %lld..%lld; the table has rows 0..%lld",
                            (long long)d->first, (long long)(d->first + d->rows - 1), (long long)d->table_rows - 1);
    return CLATTN_OK;
}

/* Host positions within the table. */
static clattn_status check_positions(const clattn_rope_desc *d, const clattn_tensor *positions) {
    const bool by_entry = d->positions == CLATTN_ROPE_POSITIONS_BY_ENTRY;
    if (!positions->data || d->source != CLATTN_ROPE_TABLE || d->rows == 0) return CLATTN_OK;
    for (int64_t b = 0; b < d->batch; b++)
        for (int64_t r = 0; r < (by_entry ? 1 : d->rows); r++) {
            const int64_t at = positions->offset + b * positions->stride[0] + (by_entry ? 0 : r * positions->stride[1]);
            const int64_t low = d->first + ((const int32_t *)positions->data)[at],
                          high = low + (by_entry ? d->rows : 1);
            if (low < 0 || high > d->table_rows)
                return clattn__fail(CLATTN_INVALID_ARGUMENT,
                                    "positions[%lld, %lld] leads to %lld; the table has rows 0..%lld", (long long)b,
                                    (long long)r, (long long)(low < 0 ? low : high - 1), (long long)d->table_rows - 1);
        }
    return CLATTN_OK;
}

/* (P, R/2) as (1, P, R/2). */
static void add_axis(clattn_tensor *t) {
    if (t->rank != 2) return;
    t->rank = 3;
    for (int i = 2; i > 0; i--) {
        t->shape[i] = t->shape[i - 1];
        t->stride[i] = t->stride[i - 1];
    }
    t->shape[0] = 1;
    t->stride[0] = 0;
}

clattn_status clattn__check_rope_io(const clattn_rope_desc *d, const clattn_rope_io *io, clattn_rope_io *out) {
    if (!io) return clattn__fail(CLATTN_INVALID_ARGUMENT, "io is NULL");
    const int64_t pairs = d->rotary_dim / 2;
    const bool table = d->source == CLATTN_ROPE_TABLE, given = d->source != CLATTN_ROPE_COMPUTED;
    const clattn__tensor_rule by_position = {"cosine", given, false, CLATTN_F32, 2, {d->table_rows, pairs}};
    const clattn__tensor_rule by_token = {"cosine", given, false, CLATTN_F32, 3, {d->batch, d->rows, pairs}};
    const clattn__tensor_rule cosine = table ? by_position : by_token;
    clattn__tensor_rule sine = cosine;
    sine.name = "sine";
    const clattn__tensor_row rows[] = {
        {{"input", true, false, (int)d->dtype, 4, {d->batch, d->heads, d->rows, d->head_dim}}, &io->input, &out->input},
        {{"positions",
          d->positions != CLATTN_ROPE_NO_POSITIONS,
          false,
          CLATTN_I32,
          d->positions == CLATTN_ROPE_POSITIONS_BY_ROW ? 2 : 1,
          {d->batch, d->rows}},
         &io->positions,
         &out->positions},
        {cosine, &io->cosine, &out->cosine},
        {sine, &io->sine, &out->sine},
        {{"output", true, true, (int)d->dtype, 4, {d->batch, d->heads, d->rows, d->head_dim}},
         &io->output,
         &out->output},
    };
    CLATTN__TRY(clattn__check_tensors(rows, CLATTN__COUNT(rows)));
    add_axis(&out->cosine);
    add_axis(&out->sine);
    return check_positions(d, &out->positions);
}

/* ---- description of a cache ------------------------------------------------------------------------------------ */

/* Options of the attention that have no meaning on a cache. */
static clattn_status check_options(const clattn_attention_desc *a) {
    const struct {
        const char *name;
        bool given;
    } options[] = {{"mask", a->mask != CLATTN_MASK_NONE},
                   {"padding_mask", a->padding_mask != 0},
                   {"kv_lengths", a->kv_lengths != 0},
                   {"weights", a->weights != CLATTN_WEIGHTS_NONE},
                   {"scores", a->scores != CLATTN_SCORES_NONE},
                   {"score", a->score != CLATTN_SCORE_DOT},
                   {"dropout", a->dropout != 0},
                   {"prefix", a->prefix != 0},
                   {"documents", a->documents != 0},
                   {"varlen", a->varlen != 0},
                   {"align_end", a->align_end != 0},
                   {"past_len", a->past_len != 0},
                   {"present", a->present != 0}};
    for (size_t i = 0; i < CLATTN__COUNT(options); i++)
        if (options[i].given)
            return clattn__fail(CLATTN_INVALID_ARGUMENT, "attention->%s is given; a cache does not serve it",
                                options[i].name);
    if (a->causal != CLATTN_CAUSAL_NONE && a->causal != CLATTN_CAUSAL_BOTTOM_RIGHT)
        return clattn__fail(CLATTN_INVALID_ARGUMENT,
                            "attention->causal is %d; on a cache it must be CLATTN_CAUSAL_BOTTOM_RIGHT or NONE",
                            (int)a->causal);
    const bool positioned = a->window_left >= 0 || a->window_right >= 0 || a->alibi;
    if (positioned && a->causal == CLATTN_CAUSAL_NONE)
        return clattn__fail(CLATTN_INVALID_ARGUMENT,
                            "attention->causal is off, but window or alibi is on; on a cache they need "
                            "CLATTN_CAUSAL_BOTTOM_RIGHT");
    return CLATTN_OK;
}

static clattn_status check_storage(const clattn_kv_cache_desc *in, clattn__kv_desc *d) {
    const clattn_dtype dtype = d->attention.dtype;
    d->storage = in->has_storage ? in->storage : dtype;
    const bool half = d->storage == CLATTN_F16 || d->storage == CLATTN_BF16;
    if (d->storage == dtype || d->storage == CLATTN_I8 || (half && dtype == CLATTN_F32)) return CLATTN_OK;
    return clattn__fail(CLATTN_INVALID_ARGUMENT,
                        "storage is %s; for an attention of %s it must be that, int8, or for float32 float16 or "
                        "bfloat16",
                        clattn_dtype_name(d->storage), clattn_dtype_name(dtype));
}

static clattn_status check_layout(const clattn_kv_cache_desc *in, clattn__kv_desc *d) {
    const clattn_attention_desc *a = &d->attention;
    CLATTN__TRY(clattn__check_choice("layout", (int)in->layout, CLATTN_KV_PAGED));
    d->layout = in->layout;
    d->caller_memory = in->caller_memory != 0;
    if (in->layout == CLATTN_KV_PAGED) {
        CLATTN__TRY(clattn__check_extent("page_size", in->page_size, 1, CLATTN__MAX_EXTENT));
        CLATTN__TRY(clattn__check_extent("pages", in->pages, 1, CLATTN__MAX_EXTENT));
        d->page_size = in->page_size;
        d->pages = in->pages;
        d->table_columns = (a->kv_len + in->page_size - 1) / in->page_size;
        const int64_t key[4] = {in->pages, in->page_size, a->kv_heads, a->head_dim};
        const int64_t value[4] = {in->pages, in->page_size, a->kv_heads, a->value_dim};
        CLATTN__TRY(clattn__check_volume("pages of keys", key, 4));
        CLATTN__TRY(clattn__check_volume("pages of values", value, 4));
    }
    if (in->layout != CLATTN_KV_RING) return CLATTN_OK;
    if (d->caller_memory)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "caller_memory is %d; a ring keeps its memory itself",
                            in->caller_memory);
    if (a->window_left < 0)
        return clattn__fail(CLATTN_INVALID_ARGUMENT,
                            "attention->window_left is off; a ring needs it, because old tokens are overwritten");
    if (a->kv_len < a->window_left + a->query_len)
        return clattn__fail(CLATTN_INVALID_SHAPE,
                            "attention->kv_len is %lld; a ring needs at least window_left + query_len (%lld), so that "
                            "new tokens leave the windows of all rows alone",
                            (long long)a->kv_len, (long long)(a->window_left + a->query_len));
    return CLATTN_OK;
}

static clattn_status check_table(const char *name, const clattn_rope_desc *d, const clattn_tensor *in,
                                 clattn_tensor *out) {
    const bool table = d->source == CLATTN_ROPE_TABLE;
    const clattn__tensor_rule rule = {name, table, false, CLATTN_F32, 2, {d->table_rows, d->rotary_dim / 2}};
    CLATTN__TRY(clattn__check_tensor(&rule, in, out));
    if (out->mem) return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is a cl_mem; it must be in host memory", name);
    if (table && out->shape[0] > 1 && out->stride[0] != out->shape[1])
        return clattn__fail(CLATTN_INVALID_SHAPE, "%s.stride[0] is %lld; the table must be dense (%lld)", name,
                            (long long)out->stride[0], (long long)out->shape[1]);
    return CLATTN_OK;
}

static clattn_status check_cache_rope(const clattn_kv_cache_desc *in, clattn__kv_desc *d) {
    d->has_rope = in->rope != NULL;
    if (!d->has_rope && (in->cosine.data || in->cosine.mem || in->sine.data || in->sine.mem))
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "cosine or sine is given, but rope is NULL");
    if (!d->has_rope) return CLATTN_OK;
    CLATTN__TRY(copy_rope(in->rope, &d->rope));
    d->rope.head_dim = d->attention.head_dim;
    d->rope.first = 0;
    d->rope.inverse = 0;
    CLATTN__TRY(check_rotation(&d->rope));
    if (d->rope.source == CLATTN_ROPE_ROWS)
        return clattn__fail(CLATTN_INVALID_ARGUMENT,
                            "rope->source is CLATTN_ROPE_ROWS; a cache turns by position: COMPUTED or TABLE");
    CLATTN__TRY(check_table("cosine", &d->rope, &in->cosine, &d->cosine));
    return check_table("sine", &d->rope, &in->sine, &d->sine);
}

clattn_status clattn__check_kv_desc(const clattn_kv_cache_desc *given, clattn__kv_desc *d) {
    clattn_kv_cache_desc in;
    if (!given) return clattn__fail(CLATTN_INVALID_ARGUMENT, "desc is NULL");
    CLATTN__TRY(clattn__check_struct_size("clattn_kv_cache_desc", given->struct_size,
                                          offsetof(clattn_kv_cache_desc, sine), sizeof in));
    clattn_kv_cache_desc_init(&in);
    memcpy(&in, given, given->struct_size);
    memset(d, 0, sizeof *d);
    if (!in.attention) return clattn__fail(CLATTN_INVALID_ARGUMENT, "attention is NULL");
    CLATTN__TRY(clattn__check_attention_desc(in.attention, &d->attention));
    CLATTN__TRY(check_options(&d->attention));
    d->attention.kv_lengths = 1;
    CLATTN__TRY(check_storage(&in, d));
    CLATTN__TRY(check_layout(&in, d));
    return check_cache_rope(&in, d);
}

/* ---- tensors of a call ----------------------------------------------------------------------------------------- */

/* (N, page_size, Hkv, D) seen as (N, Hkv, page_size, D); scales have one column. */
static void by_head(const clattn__kv_desc *d, clattn_tensor *t) {
    if (!t->data && !t->mem) return;
    if (t->rank == 3) {
        t->rank = 4;
        t->shape[3] = t->stride[3] = 1;
    }
    if (d->layout != CLATTN_KV_PAGED) return;
    const int64_t shape = t->shape[1], stride = t->stride[1];
    t->shape[1] = t->shape[2];
    t->stride[1] = t->stride[2];
    t->shape[2] = shape;
    t->stride[2] = stride;
}

/* Cells of keys or values, or with width 0 their scales. */
static clattn__tensor_rule cells_rule(const clattn__kv_desc *d, const char *name, bool wanted, bool writes,
                                      int64_t width) {
    const clattn_attention_desc *a = &d->attention;
    const bool paged = d->layout == CLATTN_KV_PAGED;
    return (clattn__tensor_rule){
        name,
        wanted,
        writes,
        width ? (int)d->storage : CLATTN_F32,
        width ? 4 : 3,
        {paged ? d->pages : a->batch, paged ? d->page_size : a->kv_heads, paged ? a->kv_heads : a->kv_len, width}};
}

clattn_status clattn__check_kv_memory(const clattn__kv_desc *d, bool wanted, bool writes, const clattn_kv_memory *in,
                                      clattn_kv_memory *out) {
    const clattn_attention_desc *a = &d->attention;
    const bool bytes = wanted && d->storage == CLATTN_I8, paged = wanted && d->layout == CLATTN_KV_PAGED;
    const clattn__tensor_row rows[] = {
        {cells_rule(d, "memory.key", wanted, writes, a->head_dim), &in->key, &out->key},
        {cells_rule(d, "memory.value", wanted, writes, a->value_dim), &in->value, &out->value},
        {cells_rule(d, "memory.key_scales", bytes, writes, 0), &in->key_scales, &out->key_scales},
        {cells_rule(d, "memory.value_scales", bytes, writes, 0), &in->value_scales, &out->value_scales},
        {{"memory.lengths", wanted, false, CLATTN__ANY_LENGTHS, 1, {a->batch}}, &in->lengths, &out->lengths},
        {{"memory.block_table", paged, false, CLATTN_I32, 2, {a->batch, d->table_columns}},
         &in->block_table,
         &out->block_table},
    };
    CLATTN__TRY(clattn__check_tensors(rows, CLATTN__COUNT(rows)));
    for (size_t i = 0; i < 4; i++) by_head(d, rows[i].out);
    return CLATTN_OK;
}

/* How many rows a call has: only its first tensor can say. */
static clattn_status check_call_rows(const clattn__kv_desc *d, const char *name, const clattn_tensor *t) {
    if (t->rank != 4) return clattn__fail(CLATTN_INVALID_SHAPE, "%s has rank %d; it must have rank 4", name, t->rank);
    if (t->shape[2] < 0 || t->shape[2] > d->attention.query_len)
        return clattn__fail(CLATTN_INVALID_SHAPE, "%s.shape[2] is %lld; it must be in 0..attention->query_len (%lld)",
                            name, (long long)t->shape[2], (long long)d->attention.query_len);
    return CLATTN_OK;
}

clattn_status clattn__check_kv_append(const clattn__kv_desc *d, const clattn_kv_append_io *io,
                                      clattn_kv_append_io *out) {
    if (!io) return clattn__fail(CLATTN_INVALID_ARGUMENT, "io is NULL");
    const clattn_attention_desc *a = &d->attention;
    CLATTN__TRY(check_call_rows(d, "key", &io->key));
    const int64_t L = io->key.shape[2];
    const clattn__tensor_rule key = {"key", true, false, (int)a->dtype, 4, {a->batch, a->kv_heads, L, a->head_dim}};
    const clattn__tensor_rule value = {"value",       true, false,
                                       (int)a->dtype, 4,    {a->batch, a->kv_heads, L, a->value_dim}};
    CLATTN__TRY(clattn__check_tensor(&key, &io->key, &out->key));
    return clattn__check_tensor(&value, &io->value, &out->value);
}

clattn_status clattn__check_kv_attend(const clattn__kv_desc *d, const clattn_kv_attend_io *io,
                                      clattn_kv_attend_io *out) {
    if (!io) return clattn__fail(CLATTN_INVALID_ARGUMENT, "io is NULL");
    const clattn_attention_desc *a = &d->attention;
    CLATTN__TRY(check_call_rows(d, "query", &io->query));
    const int64_t B = a->batch, H = a->query_heads, L = io->query.shape[2];
    const clattn__tensor_row rows[] = {
        {{"query", true, false, (int)a->dtype, 4, {B, H, L, a->head_dim}}, &io->query, &out->query},
        {{"alibi", a->alibi != 0, false, CLATTN_F32, 1, {H}}, &io->alibi, &out->alibi},
        {{"sinks", a->sinks != 0, false, CLATTN_F32, 1, {H}}, &io->sinks, &out->sinks},
        {{"output", true, true, (int)a->dtype, 4, {B, H, L, a->value_dim}}, &io->output, &out->output},
        {{"logsumexp", a->logsumexp != 0, true, CLATTN_F32, 3, {B, H, L}}, &io->logsumexp, &out->logsumexp},
    };
    return clattn__check_tensors(rows, CLATTN__COUNT(rows));
}

/* ---- lengths and pages ----------------------------------------------------------------------------------------- */

clattn_status clattn__check_kv_lengths(const clattn__kv_desc *d, const clattn_tensor *t, int32_t *lengths) {
    for (int64_t b = 0; t->data && b < d->attention.batch; b++) {
        const int64_t at = t->offset + b * t->stride[0];
        const int64_t n = t->dtype == CLATTN_I64 ? ((const int64_t *)t->data)[at] : ((const int32_t *)t->data)[at];
        if (n < 0 || n > d->attention.kv_len)
            return clattn__fail(CLATTN_INVALID_ARGUMENT,
                                "memory.lengths[%lld] is %lld; it must be in 0..attention->kv_len (%lld)", (long long)b,
                                (long long)n, (long long)d->attention.kv_len);
        lengths[b] = (int32_t)n;
    }
    return CLATTN_OK;
}

clattn_status clattn__check_kv_growth(const clattn__kv_desc *d, const int32_t *lengths, int64_t added) {
    const int64_t most = d->layout == CLATTN_KV_RING ? CLATTN__MAX_EXTENT : d->attention.kv_len;
    for (int64_t b = 0; b < d->attention.batch; b++) {
        if (lengths[b] + added > most)
            return clattn__fail(CLATTN_INVALID_ARGUMENT,
                                "entry %lld holds %d tokens; with %lld more it would pass its capacity of %lld",
                                (long long)b, lengths[b], (long long)added, (long long)most);
        if (d->has_rope && d->rope.source == CLATTN_ROPE_TABLE && lengths[b] + added > d->rope.table_rows)
            return clattn__fail(CLATTN_INVALID_ARGUMENT,
                                "entry %lld would reach position %lld; the rope's table has rows 0..%lld", (long long)b,
                                (long long)(lengths[b] + added - 1), (long long)d->rope.table_rows - 1);
    }
    return CLATTN_OK;
}

clattn_status clattn__check_kv_rows(const clattn__kv_desc *d, const int32_t *lengths, int64_t rows) {
    /* with a causal mask, rows before the first token are empty, and nothing of them matters */
    if (d->attention.causal != CLATTN_CAUSAL_NONE) return CLATTN_OK;
    for (int64_t b = 0; b < d->attention.batch; b++)
        if (lengths[b] > 0 && lengths[b] < rows)
            return clattn__fail(CLATTN_INVALID_ARGUMENT,
                                "query has %lld rows, but entry %lld holds %d tokens; without a causal mask each row "
                                "needs its token",
                                (long long)rows, (long long)b, lengths[b]);
    return CLATTN_OK;
}

clattn_status clattn__check_kv_window(const clattn__kv_desc *d, const int32_t *lost, int64_t entry, int64_t length,
                                      int64_t rows) {
    const int64_t begin = length - rows - d->attention.window_left;
    if (d->layout != CLATTN_KV_RING || lost[entry] == 0 || begin >= lost[entry]) return CLATTN_OK;
    return clattn__fail(CLATTN_INVALID_ARGUMENT,
                        "entry %lld of length %lld, %lld rows asked: the first window begins at token %lld, but the "
                        "ring has overwritten tokens before %d",
                        (long long)entry, (long long)length, (long long)rows, (long long)begin, lost[entry]);
}

clattn_status clattn__check_kv_table(const clattn__kv_desc *d, const clattn_tensor *table, const int32_t *lengths,
                                     int64_t added) {
    if (!table->data) return CLATTN_OK;
    for (int64_t b = 0; b < d->attention.batch; b++)
        for (int64_t m = 0; m < d->table_columns; m++) {
            const int32_t page =
                ((const int32_t *)table->data)[table->offset + b * table->stride[0] + m * table->stride[1]];
            if (page < -1 || page >= d->pages)
                return clattn__fail(CLATTN_INVALID_ARGUMENT,
                                    "memory.block_table[%lld, %lld] is %d; it must be in 0..pages - 1 (%lld), or -1",
                                    (long long)b, (long long)m, page, (long long)d->pages - 1);
            if (page < 0 && m * d->page_size < lengths[b] + added)
                return clattn__fail(CLATTN_INVALID_ARGUMENT,
                                    "memory.block_table[%lld, %lld] is -1, but entry %lld reaches token %lld there",
                                    (long long)b, (long long)m, (long long)b, (long long)(lengths[b] + added - 1));
        }
    return CLATTN_OK;
}
