/* The multi-head layer as a plan: project, append, attend, project.
 *
 *   for each chunk of the batch, for each group of heads:
 *       key, value   = input W^T + b                   (B', H', T, D)
 *       for each chunk of query rows:
 *           query    = input W_Q^T + b                 (B', H', L', D)
 *           context  = attention(query, key, value)    (B', L', H' * D)
 *           output  += context W_O[:, group]^T         (B', L', E)      the first group brings the bias and overwrites
 *
 * Without a memory limit each loop runs once, and self-attention projects query, key and value by one product. */
#include "layers/layers.h"

#include <string.h>

/* How much of each axis one round of the loops takes. */
typedef struct chunking {
    int64_t batch, heads, rows;
} chunking;

typedef struct builder {
    clattn__plan *plan;
    const clattn_mha_desc *d;
    const clattn_mha_weights *w;
    int64_t head_dim, appended, total_len; /* D; keys appended; T = S + appended */
    chunking chunk;
    bool fuse_query; /* query, key and value come from one product */
    const clattn__mha_ports *ports;
    int attention, append; /* the plan's attention kernel and its op that appends keys */
} builder;

/* What one step works on: batch entries [batch0, batch0 + batch), heads [head, head + heads), query rows [row, row +
 * rows). */
typedef struct slice {
    int64_t batch0, batch, head, heads, row, rows;
} slice;

/* One projected tensor: the arena buffer it lies in and how (batch, head, row) walk through it. */
typedef struct projected {
    int buffer;
    clattn_place place;
} projected;

enum { QUERY_PART = 0, KEY_PART = 1, VALUE_PART = 2 };

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- chunk sizes under a memory limit --------------------------------------------------------------------------- */

static const int64_t LEAST_ROWS = 16; /* fewer query rows at a time would only be slow */

static double chunk_bytes(const builder *b, chunking c) {
    double keys = (double)c.batch * (double)c.heads * (double)b->total_len * (double)b->head_dim * 2;
    double rows = (double)c.batch * (double)c.heads * (double)c.rows * (double)b->head_dim * 2;
    enum { BUFFERS = 4, PADDING = 4096 }; /* each buffer may start at a page boundary */
    return (keys + rows) * (double)clattn_dtype_size(b->d->dtype) + BUFFERS * PADDING;
}

/* Halves what costs least speed first: batch entries, then query rows down to 128, then heads, then the remaining
 * rows. Heads are added up in the output: only where that has all bits of a sum. */
static clattn_status choose_chunks(builder *b) {
    const clattn_mha_desc *d = b->d;
    b->chunk = (chunking){.batch = d->batch, .heads = d->heads, .rows = d->query_len};
    if (d->memory_limit == 0) return CLATTN_OK;
    const double limit = (double)d->memory_limit;
    chunking *c = &b->chunk;
    while (chunk_bytes(b, *c) > limit && c->batch > 1) c->batch = (c->batch + 1) / 2;
    while (chunk_bytes(b, *c) > limit && c->rows > 128) c->rows = (c->rows + 1) / 2;
    while (chunk_bytes(b, *c) > limit && c->heads > 1 && d->dtype == CLATTN_F32) c->heads = (c->heads + 1) / 2;
    while (chunk_bytes(b, *c) > limit && c->rows > LEAST_ROWS) c->rows = (c->rows + 1) / 2;
    if (chunk_bytes(b, *c) > limit)
        return clattn__fail(CLATTN_MEMORY_LIMIT,
                            "memory_limit is %zu bytes; the least that works is %.0f (one batch entry, %lld of %lld "
                            "heads, %lld query rows at a time)",
                            d->memory_limit, chunk_bytes(b, *c), (long long)c->heads, (long long)d->heads,
                            (long long)c->rows);
    return CLATTN_OK;
}

/* ---- weights ---------------------------------------------------------------------------------------------------- */

static const float *host_floats(const clattn_tensor *tensor) {
    return tensor->data ? (const float *)tensor->data + tensor->offset : NULL;
}

static const clattn_tensor *part_weight(const builder *b, int part) {
    return part == QUERY_PART ? &b->w->q_proj_weight : part == KEY_PART ? &b->w->k_proj_weight : &b->w->v_proj_weight;
}

static const clattn_tensor *part_bias(const builder *b, int part) {
    return part == QUERY_PART ? &b->w->q_proj_bias : part == KEY_PART ? &b->w->k_proj_bias : &b->w->v_proj_bias;
}

/* The rows of parts [first, first + count) that belong to heads [head, head + heads), stacked: (count * heads * D,
 * k). */
static clattn_status choose_input_gemm(builder *b, int first, int count, int64_t head, int64_t heads, int64_t m) {
    const int64_t D = b->head_dim, n = heads * D, k = part_weight(b, first)->shape[1];
    float *w = clattn__alloc((size_t)(count * n), (size_t)k * sizeof *w);
    float *bias = clattn__alloc((size_t)(count * n), sizeof *bias);
    clattn_status status = w && bias ? CLATTN_OK : CLATTN_OUT_OF_MEMORY;
    bool has_bias = false;
    for (int p = 0; p < count && status == CLATTN_OK; p++) {
        const clattn_tensor *weight = part_weight(b, first + p);
        const float *from = host_floats(weight), *from_bias = host_floats(part_bias(b, first + p));
        for (int64_t r = 0; r < n; r++)
            memcpy(w + (p * n + r) * k, from + (head * D + r) * weight->stride[0], (size_t)k * sizeof *w);
        if (from_bias) memcpy(bias + p * n, from_bias + head * D, (size_t)n * sizeof *bias);
        has_bias = has_bias || from_bias;
    }
    clattn__gemm_kernel *gemm = status == CLATTN_OK ? clattn__plan_add_gemm(b->plan) : NULL;
    if (status == CLATTN_OK && !gemm) status = CLATTN_OUT_OF_MEMORY;
    if (status == CLATTN_OK) {
        clattn__gemm_problem problem = {.m = m,
                                        .n = count * n,
                                        .k = k,
                                        .width = D,
                                        .dtype = b->d->dtype,
                                        .precision = b->d->precision,
                                        .split_heads = true,
                                        .bias = has_bias};
        status = clattn__gemm_choose(b->plan->context, &problem, b->d->gemm_kernel, w, k, has_bias ? bias : NULL, gemm,
                                     &b->plan->notes);
    }
    clattn__free(w);
    clattn__free(bias);
    return status;
}

/* Columns of W_O that meet heads [head, head + heads); only the first group adds the bias. */
static clattn_status choose_output_gemm(builder *b, int64_t head, int64_t heads, int64_t m) {
    const int64_t D = b->head_dim, E = b->d->embed_dim, k = heads * D;
    clattn__gemm_kernel *gemm = clattn__plan_add_gemm(b->plan);
    if (!gemm) return CLATTN_OUT_OF_MEMORY;
    const float *w = host_floats(&b->w->out_proj_weight) + head * D;
    const float *bias = head == 0 ? host_floats(&b->w->out_proj_bias) : NULL;
    clattn__gemm_problem problem = {
        .m = m, .n = E, .k = k, .width = E, .dtype = b->d->dtype, .precision = b->d->precision, .bias = bias != NULL};
    return clattn__gemm_choose(b->plan->context, &problem, b->d->gemm_kernel, w, b->w->out_proj_weight.stride[0], bias,
                               gemm, &b->plan->notes);
}

/* ---- steps ------------------------------------------------------------------------------------------------------ */

/* One product that projects `count` parts of rows [at.row, at.row + at.rows) of an input into a buffer with room for
 * `capacity` rows per batch entry. Parts are written per head, (part, B', H', capacity, D), where the kernel can; else
 * side by side, (B', capacity, count * H' * D). */
static clattn_status add_projection(builder *b, int gemm_index, const clattn__port *input, int count, slice at,
                                    int64_t capacity, int buffer, projected *parts) {
    const int64_t D = b->head_dim, n = at.heads * D;
    const clattn__gemm_kernel *gemm = &b->plan->gemms[gemm_index];
    const bool split = gemm->impl->splits_heads;
    clattn__step *step = clattn__plan_add_step(b->plan, CLATTN__STEP_GEMM, gemm_index);
    if (!step) return CLATTN_OUT_OF_MEMORY;
    clattn_gemm_args *args = &step->args.gemm;
    args->m = (int)(at.batch * at.rows);
    args->n = (int)(count * n);
    args->k = (int)gemm->problem.k;
    args->rows = (int)at.rows;
    args->width = split ? (int)D : (int)(count * n);
    args->part_columns = split ? (int)n : (int)(count * n);
    args->has_bias = gemm->problem.bias;
    args->x = input->place;
    args->y_part = split ? at.batch * capacity * n : 0;
    args->y = split ? (clattn_place){.batch = capacity * n, .head = capacity * D, .row = D}
                    : (clattn_place){.batch = capacity * count * n, .head = D, .row = count * n};
    clattn__plan_operand(step, CLATTN__GEMM_X, input->id, at.batch0, 0, at.row);
    clattn__plan_operand(step, CLATTN__GEMM_Y, CLATTN__ROLE_COUNT + buffer, 0, 0, 0);
    for (int p = 0; p < count; p++) {
        parts[p] = (projected){.buffer = buffer, .place = args->y};
        parts[p].place.offset = split ? p * args->y_part : p * n;
    }
    return CLATTN_OK;
}

/* bias_k or bias_v, then the zero row, behind the projected keys or values of every batch entry. */
static clattn_status add_appended(builder *b, const projected *to, int part, slice at) {
    const int64_t D = b->head_dim;
    int64_t row = b->d->kv_len;
    for (int zero = b->w->bias_k.data ? 0 : 1; zero <= (b->d->add_zero_attn ? 1 : 0); zero++) {
        clattn__step *step = clattn__plan_add_step(b->plan, CLATTN__STEP_OP, b->append);
        if (!step) return CLATTN_OUT_OF_MEMORY;
        const clattn_rows_args args = {.source_offset = (part == KEY_PART ? 0 : b->d->embed_dim) + at.head * D,
                                       .batch = (int)at.batch,
                                       .heads = (int)at.heads,
                                       .rows = 1,
                                       .width = (int)D,
                                       .has_source = !zero};
        memcpy(step->args.op.args.bytes, &args, sizeof args);
        step->args.op.place[CLATTN__ROWS_Y] = to->place;
        clattn__plan_operand(step, CLATTN__ROWS_Y, CLATTN__ROLE_COUNT + to->buffer, 0, 0, row++);
    }
    return CLATTN_OK;
}

static int64_t causal_origin(const builder *b) {
    if (b->d->causal == CLATTN_CAUSAL_BOTTOM_RIGHT) return b->d->kv_len - b->d->query_len;
    return b->d->causal == CLATTN_CAUSAL_OFFSET ? b->d->causal_offset : 0;
}

static clattn_status add_attention(builder *b, const projected parts[3], int context, slice at) {
    const clattn_mha_desc *d = b->d;
    const int64_t n = at.heads * b->head_dim;
    clattn__step *step = clattn__plan_add_step(b->plan, CLATTN__STEP_ATTENTION, b->attention);
    if (!step) return CLATTN_OUT_OF_MEMORY;
    clattn_attn_args *args = &step->args.attn;
    *args = (clattn_attn_args){.query = parts[QUERY_PART].place,
                               .key = parts[KEY_PART].place,
                               .value = parts[VALUE_PART].place,
                               .output = {.batch = at.rows * n, .head = b->head_dim, .row = n},
                               .mask_len = (int)d->kv_len,
                               .batch = (int)at.batch,
                               .query_heads = (int)at.heads,
                               .kv_heads = (int)at.heads,
                               .query_len = (int)at.rows,
                               .kv_len = (int)b->total_len,
                               .query_first = (int)at.row,
                               .causal_offset = (int)causal_origin(b),
                               .window_left = INT32_MAX,
                               .window_right = INT32_MAX,
                               .always_keys = (int)b->appended,
                               .causal = d->causal != CLATTN_CAUSAL_NONE,
                               .scale = d->scale,
                               .inverse_temperature = 1.0f,
                               .weights_factor = d->weights == CLATTN_WEIGHTS_AVERAGED ? 1.0f / (float)d->heads : 1.0f,
                               .weights_accumulate = at.head > 0};
    if (d->mask != CLATTN_MASK_NONE && d->mask_shape[3] != 1) args->mask_len = (int)d->mask_shape[3];
    const int query_row = b->fuse_query ? (int)at.row : 0; /* the fused buffer holds all rows, a chunk's its own */
    clattn__plan_operand(step, CLATTN__ROLE_QUERY, CLATTN__ROLE_COUNT + parts[QUERY_PART].buffer, 0, 0, query_row);
    clattn__plan_operand(step, CLATTN__ROLE_KEY, CLATTN__ROLE_COUNT + parts[KEY_PART].buffer, 0, 0, 0);
    clattn__plan_operand(step, CLATTN__ROLE_VALUE, CLATTN__ROLE_COUNT + parts[VALUE_PART].buffer, 0, 0, 0);
    clattn__plan_operand(step, CLATTN__ROLE_OUTPUT, CLATTN__ROLE_COUNT + context, 0, 0, 0);
    if (d->mask != CLATTN_MASK_NONE)
        clattn__plan_operand(step, CLATTN__ROLE_MASK, b->ports->mask, at.batch0, at.head, at.row);
    if (d->padding_mask) clattn__plan_operand(step, CLATTN__ROLE_PADDING, b->ports->padding, at.batch0, 0, 0);
    if (d->weights != CLATTN_WEIGHTS_NONE)
        clattn__plan_operand(step, CLATTN__ROLE_WEIGHTS, b->ports->weights, at.batch0, at.head, at.row);
    return CLATTN_OK;
}

static clattn_status add_output(builder *b, int gemm_index, int context, slice at) {
    const int64_t n = at.heads * b->head_dim;
    clattn__step *step = clattn__plan_add_step(b->plan, CLATTN__STEP_GEMM, gemm_index);
    if (!step) return CLATTN_OUT_OF_MEMORY;
    clattn_gemm_args *args = &step->args.gemm;
    args->m = (int)(at.batch * at.rows);
    args->n = (int)b->d->embed_dim;
    args->k = (int)n;
    args->rows = (int)at.rows;
    args->width = args->part_columns = args->n;
    args->has_bias = b->plan->gemms[gemm_index].problem.bias;
    args->accumulate = at.head > 0;
    args->x = (clattn_place){.batch = at.rows * n, .row = n};
    args->y = b->ports->output.place;
    clattn__plan_operand(step, CLATTN__GEMM_X, CLATTN__ROLE_COUNT + context, 0, 0, 0);
    clattn__plan_operand(step, CLATTN__GEMM_Y, b->ports->output.id, at.batch0, 0, at.row);
    return CLATTN_OK;
}

/* ---- the loops -------------------------------------------------------------------------------------------------- */

/* The products of one head group, prepared once and used by every chunk: indices into the plan's gemms. */
typedef struct group_gemms {
    int query, key, value, output; /* fused ones share an index */
    int key_parts;                 /* parts in the product at `key` */
} group_gemms;

static clattn_status prepare_group(builder *b, int64_t head, int64_t heads, group_gemms *g) {
    const int64_t query_rows = b->chunk.batch * b->chunk.rows, key_rows = b->chunk.batch * b->d->kv_len;
    clattn_status status = CLATTN_OK;
    g->query = b->plan->gemm_count;
    if (b->fuse_query) {
        g->key = g->value = g->query;
        g->key_parts = 3;
        status = choose_input_gemm(b, QUERY_PART, 3, head, heads, query_rows);
    } else {
        status = choose_input_gemm(b, QUERY_PART, 1, head, heads, query_rows);
        g->key_parts = b->d->inputs == CLATTN_MHA_SEPARATE ? 1 : 2;
        g->key = g->value = b->plan->gemm_count;
        if (status == CLATTN_OK) status = choose_input_gemm(b, KEY_PART, g->key_parts, head, heads, key_rows);
        if (status == CLATTN_OK && g->key_parts == 1) {
            g->value = b->plan->gemm_count;
            status = choose_input_gemm(b, VALUE_PART, 1, head, heads, key_rows);
        }
    }
    g->output = b->plan->gemm_count;
    return status == CLATTN_OK ? choose_output_gemm(b, head, heads, query_rows) : status;
}

/* Key and value of one (batch chunk, head group), with the query too when one product makes all three. */
static clattn_status add_keys(builder *b, const group_gemms *g, slice at, projected parts[3]) {
    const clattn__port *key = b->d->inputs == CLATTN_MHA_SELF ? &b->ports->query : &b->ports->key;
    const size_t part_count = (size_t)(at.batch * at.heads * b->total_len * b->head_dim);
    static const char *const names[4] = {"", "key", "key+value", "query+key+value"};
    at.row = 0;
    at.rows = b->d->kv_len;
    int buffer = clattn__plan_add_buffer(b->plan, b->d->dtype, part_count * (size_t)g->key_parts, "%s b%lld h%lld",
                                         names[g->key_parts], (long long)at.batch0, (long long)at.head);
    if (buffer < 0) return CLATTN_OUT_OF_MEMORY;
    projected *first = g->key_parts == 3 ? &parts[QUERY_PART] : &parts[KEY_PART];
    clattn_status status = add_projection(b, g->key, key, g->key_parts, at, b->total_len, buffer, first);
    if (status == CLATTN_OK && g->key_parts == 1) {
        buffer = clattn__plan_add_buffer(b->plan, b->d->dtype, part_count, "value b%lld h%lld", (long long)at.batch0,
                                         (long long)at.head);
        if (buffer < 0) return CLATTN_OUT_OF_MEMORY;
        status = add_projection(b, g->value, &b->ports->value, 1, at, b->total_len, buffer, &parts[VALUE_PART]);
    }
    for (int part = KEY_PART; part <= VALUE_PART && status == CLATTN_OK; part++)
        status = add_appended(b, &parts[part], part, at);
    return status;
}

static clattn_status add_query_chunks(builder *b, const group_gemms *g, slice at, projected parts[3]) {
    const size_t count = (size_t)(at.batch * at.heads * b->chunk.rows * b->head_dim);
    int query = -1;
    if (!b->fuse_query)
        query = clattn__plan_add_buffer(b->plan, b->d->dtype, count, "query b%lld h%lld", (long long)at.batch0,
                                        (long long)at.head);
    int context = clattn__plan_add_buffer(b->plan, b->d->dtype, count, "context b%lld h%lld", (long long)at.batch0,
                                          (long long)at.head);
    if (context < 0 || (!b->fuse_query && query < 0)) return CLATTN_OUT_OF_MEMORY;
    clattn_status status = CLATTN_OK;
    for (at.row = 0; at.row < b->d->query_len && status == CLATTN_OK; at.row += b->chunk.rows) {
        at.rows = least(b->chunk.rows, b->d->query_len - at.row);
        if (!b->fuse_query)
            status = add_projection(b, g->query, &b->ports->query, 1, at, at.rows, query, &parts[QUERY_PART]);
        if (status == CLATTN_OK) status = add_attention(b, parts, context, at);
        if (status == CLATTN_OK) status = add_output(b, g->output, context, at);
    }
    return status;
}

/* bias_k and bias_v side by side on the device: the source of the rows that are appended. */
static clattn_status prepare_append(builder *b) {
    if (b->appended == 0) return CLATTN_OK;
    const size_t E = (size_t)b->d->embed_dim;
    b->append = b->plan->op_count;
    clattn__op *op = clattn__plan_add_op(b->plan);
    float *rows = clattn__alloc(2 * E, sizeof *rows);
    clattn_status status =
        op && rows ? clattn__rows_create(op, &b->plan->context->programs, b->d->dtype) : CLATTN_OUT_OF_MEMORY;
    if (status == CLATTN_OK && b->w->bias_k.data) {
        memcpy(rows, host_floats(&b->w->bias_k), E * sizeof *rows);
        memcpy(rows + E, host_floats(&b->w->bias_v), E * sizeof *rows);
    }
    if (status == CLATTN_OK) status = clattn__op_constant(op, CLATTN__ROWS_SOURCE, rows, 2 * E);
    clattn__free(rows);
    return status;
}

static clattn_status choose_attention(builder *b) {
    const clattn_mha_desc *d = b->d;
    clattn__attn_problem problem = {.dtype = d->dtype,
                                    .precision = d->precision,
                                    .batch = b->chunk.batch,
                                    .query_heads = b->chunk.heads,
                                    .kv_heads = b->chunk.heads,
                                    .query_len = b->chunk.rows,
                                    .kv_len = b->total_len,
                                    .head_dim = b->head_dim,
                                    .value_dim = b->head_dim,
                                    .shared_mask = d->mask != CLATTN_MASK_NONE && d->mask_shape[1] == 1};
    if (d->causal != CLATTN_CAUSAL_NONE) problem.features |= CLATTN__CAUSAL;
    if (d->mask == CLATTN_MASK_BOOL) problem.features |= CLATTN__MASK_BOOL;
    if (d->mask == CLATTN_MASK_FLOAT) problem.features |= CLATTN__MASK_FLOAT;
    if (d->padding_mask) problem.features |= CLATTN__PADDING;
    if (d->weights == CLATTN_WEIGHTS_PER_HEAD) problem.features |= CLATTN__WEIGHTS;
    if (d->weights == CLATTN_WEIGHTS_AVERAGED) problem.features |= CLATTN__AVERAGED_WEIGHTS;
    if (b->appended) problem.features |= CLATTN__ALWAYS_KEYS;
    b->attention = b->plan->attention_count;
    clattn__attn_kernel *kernel = clattn__plan_add_attention(b->plan);
    if (!kernel) return CLATTN_OUT_OF_MEMORY;
    return clattn__attn_choose(b->plan->context, &problem, d->attention_kernel, kernel, &b->plan->notes);
}

static double layer_flops(const builder *b) {
    const clattn_mha_desc *d = b->d;
    const double B = (double)d->batch, L = (double)d->query_len, S = (double)d->kv_len, E = (double)d->embed_dim;
    const double pairs =
        clattn__allowed_pairs(d->query_len, d->kv_len, d->causal != CLATTN_CAUSAL_NONE, causal_origin(b), -1, -1) +
        L * (double)b->appended;
    return 2 * B * (L * E * E * 2 + S * E * (double)(d->key_dim + d->value_dim)) + 4 * B * E * pairs;
}

clattn_status clattn__add_mha(clattn__plan *plan, const clattn_mha_desc *d, const clattn_mha_weights *w,
                              int64_t appended_keys, const clattn__mha_ports *ports) {
    builder b = {.plan = plan,
                 .d = d,
                 .w = w,
                 .head_dim = d->embed_dim / d->heads,
                 .appended = appended_keys,
                 .total_len = d->kv_len + appended_keys,
                 .ports = ports};
    clattn_status status = choose_chunks(&b);
    if (status != CLATTN_OK) return status;
    b.fuse_query = d->inputs == CLATTN_MHA_SELF && b.appended == 0 && b.chunk.rows == d->query_len;
    plan->flops += layer_flops(&b);
    if (d->batch == 0 || d->query_len == 0) return CLATTN_OK; /* no steps: a success that writes nothing */
    status = choose_attention(&b);
    if (status == CLATTN_OK) status = prepare_append(&b);
    slice at = {0};
    for (at.head = 0; at.head < d->heads && status == CLATTN_OK; at.head += b.chunk.heads) {
        at.heads = least(b.chunk.heads, d->heads - at.head);
        group_gemms gemms;
        status = prepare_group(&b, at.head, at.heads, &gemms);
        for (at.batch0 = 0; at.batch0 < d->batch && status == CLATTN_OK; at.batch0 += b.chunk.batch) {
            at.batch = least(b.chunk.batch, d->batch - at.batch0);
            projected parts[3];
            status = add_keys(&b, &gemms, at, parts);
            if (status == CLATTN_OK) status = add_query_chunks(&b, &gemms, at, parts);
        }
    }
    return status;
}

clattn_status clattn__plan_mha(clattn__plan *plan, clattn_context *context, const clattn_mha_desc *d,
                               const clattn_mha_weights *w, int64_t appended_keys) {
    static const clattn__mha_ports outside = {.query = {.id = CLATTN__ROLE_QUERY},
                                              .key = {.id = CLATTN__ROLE_KEY},
                                              .value = {.id = CLATTN__ROLE_VALUE},
                                              .output = {.id = CLATTN__ROLE_OUTPUT},
                                              .mask = CLATTN__ROLE_MASK,
                                              .padding = CLATTN__ROLE_PADDING,
                                              .weights = CLATTN__ROLE_WEIGHTS};
    plan->context = context;
    plan->what = "multi-head attention layer";
    clattn_status status = clattn__add_mha(plan, d, w, appended_keys, &outside);
    return status == CLATTN_OK ? clattn__plan_finish(plan) : status;
}
