/* Rotary positions and key/value caches as plans.
 *
 *   append   key -> (rope) -> cache,  value -> cache
 *   attend   query -> (rope);  cache -> (gather, for a kernel that cannot read it as it lies);
 *            attention, by one of two kernels: for few rows, or for many
 *   read     cache -> key, value
 *
 * The number of rows changes from call to call: clattn__kv_plan_rows writes it into the steps before each run. */
#include "layers/layers.h"

#include <string.h>

static clattn_status add_op_step(clattn__plan *plan, clattn__step **step, clattn_status created) {
    *step = created == CLATTN_OK ? clattn__plan_add_step(plan, CLATTN__STEP_OP, plan->op_count - 1) : NULL;
    return created == CLATTN_OK && !*step ? CLATTN_OUT_OF_MEMORY : created;
}

static void bind(clattn__step *step, int slot, const clattn__port *port) {
    step->args.op.place[slot] = port->place;
    clattn__plan_operand(step, slot, port->id, 0, 0, 0);
}

static void bind_role(clattn__step *step, int slot, int role) { clattn__plan_operand(step, slot, role, 0, 0, 0); }

static const float *floats_of(const clattn_tensor *tensor) {
    return tensor->data ? (const float *)tensor->data + tensor->offset : NULL;
}

/* ---- rotary positions ------------------------------------------------------------------------------------------ */

/* cosine and sine: tables that the op keeps, or absent. */
static clattn_status add_rope(clattn__plan *plan, const clattn_rope_desc *d, const clattn_tensor *cosine,
                              const clattn_tensor *sine, const clattn__port *x, const clattn__port *y,
                              clattn__step **step) {
    clattn__op *op = clattn__plan_add_op(plan);
    if (!op) return CLATTN_OUT_OF_MEMORY;
    clattn_status status = add_op_step(
        plan, step, clattn__rope_create(op, &plan->context->programs, d, floats_of(cosine), floats_of(sine)));
    if (status != CLATTN_OK) return status;
    const clattn_rope_args args = clattn__rope_args(d);
    memcpy((*step)->args.op.args.bytes, &args, sizeof args);
    bind(*step, CLATTN__ROPE_X, x);
    bind(*step, CLATTN__ROPE_Y, y);
    if (args.has_positions) bind_role(*step, CLATTN__ROPE_POSITIONS, CLATTN__ROLE_POSITIONS);
    return CLATTN_OK;
}

clattn_status clattn__plan_rope(clattn__plan *plan, clattn_context *context, const clattn_rope_desc *d) {
    const clattn__port x = clattn__role_port(CLATTN__ROLE_INPUT), y = clattn__role_port(CLATTN__ROLE_OUTPUT);
    const clattn_tensor none = {0};
    clattn__step *step;
    plan->context = context;
    plan->what = "rotary positions";
    clattn_status status = add_rope(plan, d, &none, &none, &x, &y, &step);
    if (status != CLATTN_OK) return status;
    if (d->source != CLATTN_ROPE_COMPUTED) {
        bind_role(step, CLATTN__ROPE_COSINE, CLATTN__ROLE_COSINE);
        bind_role(step, CLATTN__ROPE_SINE, CLATTN__ROLE_SINE);
    }
    plan->flops = 3.0 * (double)d->batch * (double)d->heads * (double)d->rows * (double)d->rotary_dim;
    return clattn__plan_finish(plan);
}

/* ---- pieces of the cache's plans ------------------------------------------------------------------------------- */

/* An arena buffer for (B, heads, rows, width) of the attention's type. */
static clattn_status add_buffer(clattn__plan *plan, const clattn__kv_desc *d, const char *name, int64_t heads,
                                int64_t rows, int64_t width, clattn__port *port) {
    const int64_t extents[] = {d->attention.batch, heads, rows, width};
    const clattn_dtype dtype = d->attention.dtype;
    size_t bytes;
    if (!clattn__volume(extents, 4, clattn_dtype_size(dtype), &bytes))
        return clattn__fail(CLATTN_OUT_OF_MEMORY, "the %s of this cache is larger than the address space", name);
    const int buffer = clattn__plan_add_buffer(plan, dtype, bytes / clattn_dtype_size(dtype), "%s", name);
    if (buffer < 0) return CLATTN_OUT_OF_MEMORY;
    *port = (clattn__port){.id = CLATTN__ROLE_COUNT + buffer,
                           .place = {.batch = heads * rows * width, .head = rows * width, .row = width}};
    return CLATTN_OK;
}

/* Keys or queries turned for their positions, from a role into the arena; without a rope the role itself. */
static clattn_status turn(clattn__kv_plan *p, const clattn__kv_desc *d, int role, int64_t heads, const char *name,
                          clattn__port *turned) {
    *turned = clattn__role_port(role);
    if (!d->has_rope) return CLATTN_OK;
    clattn_rope_desc rope = d->rope;
    rope.batch = d->attention.batch;
    rope.heads = heads;
    rope.rows = d->attention.query_len;
    rope.head_dim = d->attention.head_dim;
    rope.dtype = d->attention.dtype;
    rope.positions = CLATTN_ROPE_POSITIONS_BY_ENTRY;
    clattn__step *step;
    const clattn__port x = *turned;
    clattn_status status = add_buffer(&p->plan, d, name, heads, rope.rows, rope.head_dim, turned);
    p->rope = p->plan.step_count;
    return status == CLATTN_OK ? add_rope(&p->plan, &rope, &d->cosine, &d->sine, &x, turned, &step) : status;
}

/* One step between tokens and cells, of keys or of values. */
typedef struct cells_step {
    const char *kernel;
    clattn__port tokens;
    int cells, scales; /* roles */
    int64_t width;
} cells_step;

static clattn_cells cells_of(const clattn__kv_desc *d) {
    return (clattn_cells){.capacity = (int)d->attention.kv_len,
                          .page_size = d->layout == CLATTN_KV_PAGED ? (int)d->page_size : 0,
                          .pages = (int)d->pages,
                          .ring = d->layout == CLATTN_KV_RING};
}

static clattn_status add_cells(clattn__kv_plan *p, const clattn__kv_desc *d, const cells_step *c) {
    clattn__op *op = clattn__plan_add_op(&p->plan);
    if (!op) return CLATTN_OUT_OF_MEMORY;
    clattn__step *step;
    clattn_status status =
        add_op_step(&p->plan, &step,
                    clattn__cache_create(op, &p->plan.context->programs, c->kernel, d->attention.dtype, d->storage));
    if (status != CLATTN_OK) return status;
    const bool scaled_rows = d->storage == CLATTN_I8 && !p->gathers;
    const clattn_cache_args args = {.batch = (int)d->attention.batch,
                                    .heads = (int)d->attention.kv_heads,
                                    .width = (int)c->width,
                                    .cells = cells_of(d),
                                    .fill = p->fills,
                                    .items = scaled_rows ? 1 : (int)c->width};
    memcpy(step->args.op.args.bytes, &args, sizeof args);
    bind(step, CLATTN__CACHE_TOKENS, &c->tokens);
    bind_role(step, CLATTN__CACHE_LENGTHS, CLATTN__ROLE_POSITIONS);
    bind_role(step, CLATTN__CACHE_CELLS, c->cells);
    if (d->layout == CLATTN_KV_PAGED) bind_role(step, CLATTN__CACHE_TABLE, CLATTN__ROLE_TABLE);
    if (d->storage == CLATTN_I8) bind_role(step, CLATTN__CACHE_SCALES, c->scales);
    return CLATTN_OK;
}

static void start(clattn__kv_plan *p, clattn_context *context, const char *what) {
    p->plan.context = context;
    p->plan.what = what;
    p->rope = p->cells = p->attention = -1;
}

/* ---- append ---------------------------------------------------------------------------------------------------- */

clattn_status clattn__plan_kv_append(clattn__kv_plan *p, clattn_context *context, const clattn__kv_desc *d) {
    start(p, context, "key/value cache, append");
    cells_step key = {.kernel = "kv_append",
                      .cells = CLATTN__ROLE_KEY_CACHE,
                      .scales = CLATTN__ROLE_KEY_CACHE_SCALES,
                      .width = d->attention.head_dim};
    cells_step value = {.kernel = "kv_append",
                        .tokens = clattn__role_port(CLATTN__ROLE_VALUE),
                        .cells = CLATTN__ROLE_VALUE_CACHE,
                        .scales = CLATTN__ROLE_VALUE_CACHE_SCALES,
                        .width = d->attention.value_dim};
    clattn_status status = turn(p, d, CLATTN__ROLE_KEY, d->attention.kv_heads, "turned key", &key.tokens);
    p->cells = p->plan.step_count;
    if (status == CLATTN_OK) status = add_cells(p, d, &key);
    if (status == CLATTN_OK) status = add_cells(p, d, &value);
    return status == CLATTN_OK ? clattn__plan_finish(&p->plan) : status;
}

/* ---- attend ---------------------------------------------------------------------------------------------------- */

/* What a kernel must know to read the cache as it lies. */
static uint32_t features_of(const clattn__kv_desc *d) {
    return (d->layout == CLATTN_KV_PAGED ? CLATTN__PAGED : 0) | (d->layout == CLATTN_KV_RING ? CLATTN__RING : 0) |
           (d->storage != d->attention.dtype ? CLATTN__CELLS : 0);
}

/* The kernel that is first asked for these rows, if it reads the cache as it lies; NULL: gathering is worth it. */
static const clattn__attn_impl *reader_of(clattn_context *context, const clattn__kv_desc *d, int64_t rows) {
    clattn_attention_desc a = d->attention;
    clattn__refusal why;
    a.query_len = rows;
    const clattn__attn_problem plain = clattn__attention_problem(&a, 0, a.dtype);
    const clattn__attn_problem direct = clattn__attention_problem(&a, features_of(d), d->storage);
    const clattn__attn_impl *first = clattn__attn_first(context, &plain, a.kernel);
    return first && clattn__attn_serves(first, &direct, &context->env.device.caps, &why) ? first : NULL;
}

static clattn_status gather(clattn__kv_plan *p, const clattn__kv_desc *d, clattn__port *key, clattn__port *value) {
    const clattn_attention_desc *a = &d->attention;
    cells_step keys = {"kv_gather", {0}, CLATTN__ROLE_KEY, CLATTN__ROLE_KEY_SCALES, a->head_dim};
    cells_step values = {"kv_gather", {0}, CLATTN__ROLE_VALUE, CLATTN__ROLE_VALUE_SCALES, a->value_dim};
    clattn_status status = add_buffer(&p->plan, d, "gathered key", a->kv_heads, a->kv_len, a->head_dim, key);
    if (status == CLATTN_OK)
        status = add_buffer(&p->plan, d, "gathered value", a->kv_heads, a->kv_len, a->value_dim, value);
    keys.tokens = *key;
    values.tokens = *value;
    p->cells = p->plan.step_count;
    if (status == CLATTN_OK) status = add_cells(p, d, &keys);
    if (status == CLATTN_OK) status = add_cells(p, d, &values);
    return status;
}

/* reader: the kernel that reads the cache as it lies, NULL: key and value are gathered ones. */
static clattn_status add_attention(clattn__kv_plan *p, const clattn__kv_desc *d, int64_t rows,
                                   const clattn__attn_impl *reader, const clattn__port *query, const clattn__port *key,
                                   const clattn__port *value) {
    clattn_attention_desc a = d->attention;
    a.query_len = rows;
    const clattn__attn_problem problem = clattn__attention_problem(&a, reader ? features_of(d) : 0, d->storage);
    const char *forced = reader ? reader->name : a.kernel;
    const clattn_status status = clattn__add_attention_as(&p->plan, &a, &problem, forced);
    if (status != CLATTN_OK) return status;
    clattn__step *step = &p->plan.steps[p->plan.step_count - 1];
    step->args.attn.query = query->place;
    bind_role(step, CLATTN__ROLE_QUERY, query->id);
    if (!reader) {
        step->args.attn.key = key->place;
        step->args.attn.value = value->place;
        bind_role(step, CLATTN__ROLE_KEY, key->id);
        bind_role(step, CLATTN__ROLE_VALUE, value->id);
        return CLATTN_OK;
    }
    step->args.attn.cells = cells_of(d);
    if (d->layout == CLATTN_KV_PAGED) bind_role(step, CLATTN__ROLE_TABLE, CLATTN__ROLE_TABLE);
    if (d->layout == CLATTN_KV_RING) bind_role(step, CLATTN__ROLE_TABLE, CLATTN__ROLE_POSITIONS);
    if (d->storage != CLATTN_I8) return CLATTN_OK;
    bind_role(step, CLATTN__ROLE_KEY_SCALES, CLATTN__ROLE_KEY_SCALES);
    bind_role(step, CLATTN__ROLE_VALUE_SCALES, CLATTN__ROLE_VALUE_SCALES);
    return CLATTN_OK;
}

/* Queries of one head that count as few: a kernel for decoding serves them. */
static int64_t few_queries(const clattn_attention_desc *a) {
    enum { ROWS = 16, QUERIES = 8 }; /* of one key/value head, of one query head */
    const int64_t group = a->query_heads / a->kv_heads, few = ROWS / group < QUERIES ? ROWS / group : QUERIES;
    return few > 1 ? few : 1;
}

static clattn_status plan_attend(clattn__kv_plan *p, clattn_context *context, const clattn__kv_desc *d, bool gathers) {
    const clattn_attention_desc *a = &d->attention;
    const int64_t few = few_queries(a);
    const bool two = few < a->query_len && !a->kernel; /* kernels */
    const clattn__attn_impl *readers[2] = {NULL, NULL};
    clattn__port query, key = clattn__role_port(CLATTN__ROLE_KEY), value = clattn__role_port(CLATTN__ROLE_VALUE);
    start(p, context, "key/value cache, attend");
    p->few = two ? few : a->query_len;
    const int64_t rows[2] = {p->few, a->query_len};
    for (int i = 0; i < 2 && features_of(d); i++) {
        readers[i] = gathers ? NULL : reader_of(context, d, rows[i]);
        p->gathers_for[i] = !readers[i];
    }
    p->gathers = p->gathers_for[0] || (two && p->gathers_for[1]);
    clattn_status status = turn(p, d, CLATTN__ROLE_QUERY, a->query_heads, "turned query", &query);
    if (status == CLATTN_OK && p->gathers) status = gather(p, d, &key, &value);
    p->attention = p->plan.step_count;
    for (int i = 0; i < (two ? 2 : 1) && status == CLATTN_OK; i++)
        status = add_attention(p, d, rows[i], readers[i], &query, &key, &value);
    return status == CLATTN_OK ? clattn__plan_finish(&p->plan) : status;
}

clattn_status clattn__plan_kv_attend(clattn__kv_plan *p, clattn_context *context, const clattn__kv_desc *d) {
    const clattn_status status = plan_attend(p, context, d, false);
    if (status != CLATTN_UNSUPPORTED || !features_of(d)) return status;
    /* a kernel that should read the cache does not build or is quarantined: the next one gets it gathered */
    clattn__plan_clear(&p->plan);
    memset(p, 0, sizeof *p);
    return plan_attend(p, context, d, true);
}

/* ---- read ------------------------------------------------------------------------------------------------------ */

clattn_status clattn__plan_kv_read(clattn__kv_plan *p, clattn_context *context, const clattn__kv_desc *d) {
    start(p, context, "key/value cache, read");
    p->gathers = p->fills = true;
    const cells_step key = {"kv_gather", clattn__role_port(CLATTN__ROLE_KEY_CACHE), CLATTN__ROLE_KEY,
                            CLATTN__ROLE_KEY_SCALES, d->attention.head_dim};
    const cells_step value = {"kv_gather", clattn__role_port(CLATTN__ROLE_VALUE_CACHE), CLATTN__ROLE_VALUE,
                              CLATTN__ROLE_VALUE_SCALES, d->attention.value_dim};
    p->cells = 0;
    clattn_status status = add_cells(p, d, &key);
    if (status == CLATTN_OK) status = add_cells(p, d, &value);
    return status == CLATTN_OK ? clattn__plan_finish(&p->plan) : status;
}

/* ---- the rows of one call -------------------------------------------------------------------------------------- */

static void set_rope_rows(clattn__step *step, int64_t rows, bool asks) {
    clattn_rope_args args;
    memcpy(&args, step->args.op.args.bytes, sizeof args);
    args.rows = (int)rows;
    args.first = asks ? -rows : 0; /* the lengths count the tokens that ask, but not those that are appended */
    memcpy(step->args.op.args.bytes, &args, sizeof args);
}

static void set_cells_rows(clattn__step *step, int64_t rows) {
    clattn_cache_args args;
    memcpy(&args, step->args.op.args.bytes, sizeof args);
    args.rows = (int)rows;
    memcpy(step->args.op.args.bytes, &args, sizeof args);
}

/* A kernel that is not this call's gets no rows, and then launches nothing. */
static void set_attention_rows(clattn__step *step, int64_t rows, int64_t tokens) {
    clattn_attn_args *args = &step->args.attn;
    args->query_len = (int)rows;
    args->kv_len = args->mask_len = (int)tokens;
    if (args->causal) args->causal_offset = (int)-rows;
}

void clattn__kv_plan_rows(clattn__kv_plan *p, int64_t rows, int64_t tokens) {
    clattn__step *steps = p->plan.steps;
    if (p->rope >= 0) set_rope_rows(&steps[p->rope], rows, p->attention >= 0);
    const bool many = p->attention >= 0 && rows > p->few;
    const bool unread = p->attention >= 0 && !p->gathers_for[many]; /* nobody reads what would be gathered */
    const int64_t cells = unread ? 0 : p->gathers ? tokens : rows;
    for (int i = 0; i < 2 && p->cells >= 0; i++) set_cells_rows(&steps[p->cells + i], cells);
    if (p->attention < 0) return;
    set_attention_rows(&steps[p->attention], many ? 0 : rows, tokens);
    if (p->attention + 1 < p->plan.step_count) set_attention_rows(&steps[p->attention + 1], many ? rows : 0, tokens);
}
