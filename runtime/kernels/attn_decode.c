/* Host half of cl/attn_decode.cl (CPUs) and cl/attn_decode_gpu.cl: few query rows, keys split over work-groups. */
#include "kernels/attn_decode.h"

#include <stdio.h>

enum {
    MOST_ROWS = 16,      /* of one key/value head, and */
    MOST_QUERIES = 8,    /* of one query head: beyond either, tiles of query rows are faster */
    GROUP_ROWS = 4,      /* of a tile on GPUs: 8 spill on gfx900, by its offline compiler */
    CHUNK = 128,         /* keys per partial result */
    LEAST_GROUP = 128,   /* work-items of a group, fewer where the device allows fewer */
    BUSY = 4,            /* work-groups per compute unit that keep a device busy; twice or half as many may be better */
    LEAST_PARTIALS = 256 /* room for the splits of verification */
};

static int forced_splits;
static bool forced_groups;

void clattn__attn_decode_force_splits(int splits) { forced_splits = splits; }

void clattn__attn_decode_force_groups(bool groups) { forced_groups = groups; }

static bool in_groups(const clattn__caps *caps) { return forced_groups || caps->type != CLATTN_DEVICE_CPU; }

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t rows_of(const clattn__attn_problem *p) { return p->query_heads / p->kv_heads * p->query_len; }

/* ---- tiles ----------------------------------------------------------------------------------------------------- */

/* Lanes that neither a key nor a value is shorter than. */
static int lanes_of(const clattn__attn_problem *p, const clattn__caps *caps) {
    int lanes = clattn__lanes(caps);
    while (lanes > 4 && (lanes > p->head_dim || lanes > p->value_dim)) lanes /= 2;
    return lanes;
}

/* Work-items that reach over a value's float4 columns. */
static int group_of(const clattn__attn_problem *p) {
    int group = LEAST_GROUP;
    while (group * 4 < p->value_dim) group *= 2;
    return group;
}

static size_t local_bytes(const clattn__attn_problem *p, int rows, int group) {
    const size_t fours = (size_t)ceil_div(p->head_dim, 4);
    const size_t row = 64; /* decode_row, at most */
    return (size_t)rows * (row + fours * 16 + CHUNK * 4 + (size_t)group * 20);
}

/* As many rows as there are, as far as registers and local memory go. */
static int tile_rows(const clattn__attn_problem *p, const clattn__caps *caps) {
    int rows = (int)least(rows_of(p) > 1 ? rows_of(p) : 1, in_groups(caps) ? GROUP_ROWS : MOST_ROWS);
    while (in_groups(caps) && rows > 1 && local_bytes(p, rows, group_of(p)) > caps->local_memory) rows = (rows + 1) / 2;
    return rows;
}

/* Floats of one partial result. */
static size_t partial_floats(const clattn__attn_problem *p, const clattn__caps *caps) {
    const int64_t width = in_groups(caps) ? 4 : lanes_of(p, caps);
    return (size_t)(ceil_div(p->value_dim, width) * width + 2);
}

/* ---- contract -------------------------------------------------------------------------------------------------- */

static bool supports(const clattn__attn_problem *p, const clattn__caps *caps, clattn__refusal *why) {
    if (rows_of(p) > MOST_ROWS)
        return clattn__refuse(why, "%lld query rows per key/value head; made for %d at most", (long long)rows_of(p),
                              MOST_ROWS);
    if (p->query_len > MOST_QUERIES)
        return clattn__refuse(why, "%lld queries per head; made for %d at most", (long long)p->query_len, MOST_QUERIES);
    if (!in_groups(caps) && (p->head_dim < 4 || p->value_dim < 4))
        return clattn__refuse(why, "head_dim %lld, value_dim %lld: a vector has 4 lanes at least",
                              (long long)p->head_dim, (long long)p->value_dim);
    if (in_groups(caps) && caps->max_work_group < (uint64_t)group_of(p))
        return clattn__refuse(why, "work-groups of %d items; the device allows %llu", group_of(p),
                              (unsigned long long)caps->max_work_group);
    if (in_groups(caps) && caps->local_memory < local_bytes(p, 1, group_of(p)))
        return clattn__refuse(why, "%zu bytes of local memory; the device has %llu", local_bytes(p, 1, group_of(p)),
                              (unsigned long long)caps->local_memory);
    return clattn__refuse_features(why, p->features, clattn__attn_decode.features);
}

static void candidates(const clattn__attn_problem *p, const clattn__caps *caps, clattn__candidates *list) {
    const int rows = tile_rows(p, caps), group = in_groups(caps) ? group_of(p) : 1;
    clattn__candidates_add(list, (clattn__params){{rows, group, BUSY}});
    clattn__candidates_add(list, (clattn__params){{rows, group, 2 * BUSY}});
    clattn__candidates_add(list, (clattn__params){{rows, group, BUSY / 2}});
    if (in_groups(caps) && caps->max_work_group >= (uint64_t)(2 * group) &&
        caps->local_memory >= local_bytes(p, rows, 2 * group))
        clattn__candidates_add(list, (clattn__params){{rows, 2 * group, BUSY}});
}

/* Register tiles: 16 lanes come with 32 registers, fewer lanes with 16. */
static void add_tile_options(clattn__options *options, const clattn__attn_problem *p, int rows,
                             const clattn__caps *caps) {
    const int lanes = lanes_of(p, caps), tile = rows < 4 ? rows : 4;
    const int64_t vectors = ceil_div(p->value_dim, lanes), most = lanes == 16 ? (tile < 3 ? 8 : 4) : (tile < 3 ? 4 : 2);
    clattn__options_int(options, "VW", lanes);
    clattn__options_int(options, "RT", tile);
    clattn__options_int(options, "NC", least(vectors, most));
}

/* How many items share the chunks of one tile, so that the device is busy. */
static int64_t wanted_splits(const clattn__attn_kernel *kernel, int64_t lines, int64_t rows, int64_t chunks) {
    const clattn__caps *caps = &kernel->programs->env->device.caps;
    const int64_t items = lines * ceil_div(rows, kernel->block_q),
                  busy = (int64_t)kernel->params.value[2] * caps->compute_units;
    if (forced_splits) return least(forced_splits, chunks);
    return items >= busy || items == 0 ? 1 : least(ceil_div(busy, items), chunks);
}

static clattn_status make_scratch(clattn__attn_kernel *kernel) {
    const clattn__attn_problem *p = &kernel->problem;
    const clattn__caps *caps = &kernel->programs->env->device.caps;
    const int64_t lines = p->batch * p->kv_heads, rows = rows_of(p), chunks = ceil_div(p->kv_len, CHUNK);
    const int64_t extents[3] = {lines, rows, chunks};
    size_t bytes = 0, floor = LEAST_PARTIALS * partial_floats(p, caps) * sizeof(float);
    if (wanted_splits(kernel, lines, rows, chunks) > 1 || forced_splits)
        if (!clattn__volume(extents, 3, partial_floats(p, caps) * sizeof(float), &bytes))
            return clattn__fail(CLATTN_OUT_OF_MEMORY, "the partial results are larger than the address space");
    return clattn__buffer_create(kernel->programs->env, bytes > floor ? bytes : floor, &kernel->scratch);
}

static clattn_status prepare(clattn__attn_kernel *kernel) {
    const clattn__attn_problem *p = &kernel->problem;
    const clattn__caps *caps = &kernel->programs->env->device.caps;
    const bool groups = in_groups(caps);
    const int rows = kernel->params.value[0], group = kernel->params.value[1];
    clattn__options options;
    clattn__options_start(&options);
    clattn__attn_options(&options, p, caps);
    clattn__options_int(&options, "CHUNK", CHUNK);
    clattn__options_int(&options, "ROWS", rows);
    if (groups)
        clattn__options_int(&options, "GROUP", group);
    else
        add_tile_options(&options, p, rows, caps);
    const char *file = groups ? "attn_decode_gpu.cl" : "attn_decode.cl";
    clattn_status status = clattn__program_get(kernel->programs, file, &options, &kernel->program);
    if (status == CLATTN_OK)
        status = clattn__kernel_create(kernel->programs, kernel->program, "attn_decode", &kernel->kernel);
    if (status == CLATTN_OK)
        status = clattn__kernel_create(kernel->programs, kernel->program, "attn_decode_merge", &kernel->merge);
    if (status != CLATTN_OK) return status;
    kernel->block_q = rows;
    kernel->block_kv = CHUNK;
    kernel->local_items[0] = (size_t)group;
    kernel->local_items[1] = kernel->local_items[2] = 1;
    snprintf(kernel->tiles, sizeof kernel->tiles, "%d query rows x %d keys, chunks shared by up to %d work-groups",
             rows, CHUNK, (int)wanted_splits(kernel, p->batch * p->kv_heads, rows_of(p), ceil_div(p->kv_len, CHUNK)));
    return make_scratch(kernel);
}

/* ---- launches -------------------------------------------------------------------------------------------------- */

static clattn_status enqueue_merge(clattn__attn_kernel *kernel, const clattn__attn_call *call,
                                   const clattn_decode_args *d) {
    clattn__env *env = kernel->programs->env;
    const struct {
        size_t bytes;
        const void *value;
    } slots[] = {{sizeof call->args, &call->args},
                 {sizeof(cl_mem), &call->mem[ATTN_OUTPUT]},
                 {sizeof(cl_mem), &call->mem[ATTN_LENGTHS]},
                 {sizeof(cl_mem), &call->mem[ATTN_ALIBI]},
                 {sizeof(cl_mem), &call->mem[ATTN_SINKS]},
                 {sizeof(cl_mem), &call->mem[ATTN_LSE]},
                 {sizeof *d, d},
                 {sizeof(cl_mem), &kernel->scratch.mem}};
    clattn_status status = CLATTN_OK;
    for (cl_uint i = 0; i < CLATTN__COUNT(slots) && status == CLATTN_OK; i++)
        status = clattn__arg(env, kernel->merge, i, slots[i].bytes, slots[i].value);
    const size_t group = kernel->local_items[0], lines = (size_t)call->args.batch * (size_t)call->args.kv_heads;
    clattn__launch launch = {.kernel = kernel->merge, .dims = 3, .local = {group, 1, 1}};
    launch.global[0] = group;
    launch.global[1] = (size_t)d->rows;
    launch.global[2] = lines;
    return status == CLATTN_OK ? clattn__launch_enqueue(env, &launch) : status;
}

static clattn_status enqueue(clattn__attn_kernel *kernel, const clattn__attn_call *call) {
    clattn__env *env = kernel->programs->env;
    const clattn_attn_args *args = &call->args;
    const int64_t group = args->query_heads / args->kv_heads, lines = (int64_t)args->batch * args->kv_heads;
    clattn_decode_args d = {.group = (int)group, .rows = (int)(group * args->query_len)};
    const int64_t chunks = ceil_div(args->kv_len, CHUNK), tiles = ceil_div(d.rows, kernel->block_q);
    const size_t part = partial_floats(&kernel->problem, &env->device.caps) * sizeof(float);
    d.splits = (int)wanted_splits(kernel, lines, d.rows, chunks);
    d.chunks = (int)chunks;
    /* a call beyond the sizes that the kernel was made for goes without splitting, and gives the same bits */
    if ((double)lines * d.rows * (double)chunks * (double)part > (double)kernel->scratch.bytes || d.splits < 1)
        d.splits = 1;
    clattn_status status = clattn__attn_set_args(kernel, call);
    if (status == CLATTN_OK) status = clattn__arg(env, kernel->kernel, DECODE_ARGS, sizeof d, &d);
    if (status == CLATTN_OK) status = clattn__arg_mem(env, kernel->kernel, DECODE_PARTIALS, kernel->scratch.mem);
    if (status != CLATTN_OK) return status;
    clattn__launch launch = {.kernel = kernel->kernel, .dims = 3};
    for (int i = 0; i < 3; i++) launch.local[i] = kernel->local_items[i];
    launch.global[0] = (size_t)d.splits * kernel->local_items[0];
    launch.global[1] = (size_t)tiles;
    launch.global[2] = (size_t)lines;
    status = clattn__launch_enqueue(env, &launch);
    return status == CLATTN_OK && d.splits > 1 ? enqueue_merge(kernel, call, &d) : status;
}

const clattn__attn_impl clattn__attn_decode = {
    .name = "attn_decode",
    .what = "few query rows against many keys, which several work-groups share; for decoding",
    .features = CLATTN__CAUSAL | CLATTN__WINDOW | CLATTN__MASK_BOOL | CLATTN__MASK_FLOAT | CLATTN__PADDING |
                CLATTN__LENGTHS | CLATTN__SOFTCAP | CLATTN__ALIBI | CLATTN__SINKS | CLATTN__LSE |
                CLATTN__OFFSET_FROM_LENGTHS | CLATTN__CACHE_FEATURES,
    .supports = supports,
    .params = {"rows", "group", "groups_per_unit"},
    .candidates = candidates,
    .prepare = prepare,
    .enqueue = enqueue,
};
