/* Host half of cl/attn_decode.cl (CPUs) and cl/attn_decode_gpu.cl: few query rows, keys split over work-groups. */
#include "kernels/attn_decode.h"

#include <stdio.h>

enum {
    MOST_ROWS = 16,      /* of one key/value head, and */
    MOST_QUERIES = 8,    /* of one query head: beyond either, tiles of query rows are faster */
    CHUNK = 128,         /* keys per partial result; on GPUs more for many keys: */
    MOST_CHUNKS = 128,   /* a merge reads so many partial results one after the other, */
    MOST_SCORES = 2048,  /* unless a tile's scores of a chunk became so many */
    GROUP_ROWS = 8,      /* rows of a tile on GPUs, */
    INTEL_ROWS = 4,      /* and on Intel's, whose registers are fewer */
    GROUP = 128,         /* work-items of a group, fewer where the device allows fewer, */
    LEAST_GROUP = 32,    /* but so many at least, */
    MOST_GROUP = 256,    /* more where a value has more pieces */
    TEAM = 8,            /* as in the kernel: work-items that share a key, */
    MOST_KEEPERS = 32,   /* and those that share the scores of a row */
    MOST_LOCAL = 32768,  /* bytes of tiles of several rows: two groups at a time then fit on any large GPU */
    BUSY = 4,            /* work-groups per compute unit that keep a device busy; twice or half as many may be better */
    MOST_TURNS = 8,      /* that a unit's work is cut into, so that its last is a small one */
    LEAST_PARTIALS = 256 /* room for the splits of verification */
};

static int forced_splits;
static bool forced_groups;

void clattn__attn_decode_force_splits(int splits) { forced_splits = splits; }

void clattn__attn_decode_force_groups(bool groups) { forced_groups = groups; }

static bool in_groups(const clattn__caps *caps) { return forced_groups || caps->type != CLATTN_DEVICE_CPU; }

static bool is_in_groups(const clattn__attn_kernel *kernel) { return kernel->local_items[0] > 1; }

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

/* Elements that one work-item of a GPU reads at a time: PIECE of cl/inc/cell_pieces.clh. */
static int64_t piece_of(const clattn__attn_problem *p) {
    const clattn_dtype cells = p->features & CLATTN__CELLS ? p->cells : p->dtype;
    return cells == CLATTN_F32 ? 4 : 8;
}

static int64_t pieces_of(const clattn__attn_problem *p, int64_t elements) { return ceil_div(elements, piece_of(p)); }

/* Work-items that reach over a value's pieces. */
static int group_of(const clattn__attn_problem *p, const clattn__caps *caps) {
    const int64_t pieces = pieces_of(p, p->value_dim);
    int group = GROUP;
    while (group < pieces) group *= 2;
    while (group > LEAST_GROUP && group / 2 >= pieces && (uint64_t)group > caps->max_work_group) group /= 2;
    return group;
}

/* Keys per partial result of a tile of so many rows. The batch has no say in it: it must change no bit. */
static int chunk_of(const clattn__attn_problem *p, const clattn__caps *caps, int rows, int group) {
    const int64_t most = least(MOST_SCORES / rows, 32 * least(group / rows, MOST_KEEPERS));
    int chunk = CHUNK;
    while (in_groups(caps) && 2 * chunk <= most && p->kv_len > (int64_t)chunk * MOST_CHUNKS) chunk *= 2;
    return chunk;
}

/* Pieces that a work-item has on their way: 64 bytes, as far as what they are multiplied with fits into registers and a
 * group needs no more keys than CHUNK. */
static int loads_of(const clattn__attn_problem *p, const clattn__caps *caps, int rows, int group) {
    const bool halves = p->features & CLATTN__CELLS && p->cells == CLATTN_I8; /* pieces of 8 bytes */
    const int loads = halves && rows <= 4 && caps->vendor != CLATTN__VENDOR_INTEL ? 8 : 4;
    return (int)least(loads, CHUNK / (group / TEAM));
}

/* decode_shared of the kernel. */
static size_t local_bytes(const clattn__attn_problem *p, const clattn__caps *caps, int tile, int work_items) {
    const size_t rows = (size_t)tile, group = (size_t)work_items, chunk = (size_t)chunk_of(p, caps, tile, work_items);
    const size_t piece = (size_t)piece_of(p), keepers = (size_t)least(work_items / tile, MOST_KEEPERS);
    const size_t head = (size_t)ceil_div(pieces_of(p, p->head_dim), TEAM) * TEAM * piece;
    const size_t value = (size_t)pieces_of(p, p->value_dim) * piece;
    const size_t products = group * (size_t)loads_of(p, caps, tile, work_items) * rows + TEAM * 4;
    const size_t slices = group * rows * 4, row = 64; /* decode_row and decode_sums */
    const size_t floats = (products > slices ? products : slices) + rows * (head + value + chunk + 2 * keepers);
    const bool mapped = p->features & (CLATTN__PAGED | CLATTN__RING);
    return floats * 4 + rows * row + (mapped ? chunk * 8 : 8) + (p->features & CLATTN__CELLS ? chunk * 4 : 4) + 64;
}

/* A power of two, for all rows as far as registers and local memory go. */
static int tile_rows(const clattn__attn_problem *p, const clattn__caps *caps) {
    const int64_t all = rows_of(p) > 1 ? rows_of(p) : 1;
    if (!in_groups(caps)) return (int)least(all, MOST_ROWS);
    const int most = caps->vendor == CLATTN__VENDOR_INTEL ? INTEL_ROWS : GROUP_ROWS, group = group_of(p, caps);
    int rows = 1;
    while (rows < all && rows < most && CHUNK <= 32 * group / (2 * rows) &&
           local_bytes(p, caps, 2 * rows, group) <= (caps->local_memory < MOST_LOCAL ? caps->local_memory : MOST_LOCAL))
        rows *= 2;
    return rows;
}

/* ---- contract -------------------------------------------------------------------------------------------------- */

static bool supports(const clattn__attn_problem *p, const clattn__caps *caps, clattn__refusal *why) {
    if (rows_of(p) > MOST_ROWS)
        return clattn__refuse(why, "%lld query rows per key/value head; made for %d at most", (long long)rows_of(p),
                              MOST_ROWS);
    if (p->query_len > MOST_QUERIES)
        return clattn__refuse(why, "%lld queries per head; made for %d at most", (long long)p->query_len, MOST_QUERIES);
    if (!in_groups(caps) && (caps->quirks & CLATTN__QUIRK_WRONG_LOOPS))
        return clattn__refuse(why, "%s", clattn__quirk_reason(caps, CLATTN__QUIRK_WRONG_LOOPS));
    if (!in_groups(caps) && (p->head_dim < 4 || p->value_dim < 4))
        return clattn__refuse(why, "head_dim %lld, value_dim %lld: a vector has 4 lanes at least",
                              (long long)p->head_dim, (long long)p->value_dim);
    if (in_groups(caps) && pieces_of(p, p->value_dim) > MOST_GROUP)
        return clattn__refuse(why, "value_dim %lld; made for %lld at most", (long long)p->value_dim,
                              (long long)(MOST_GROUP * piece_of(p)));
    if (in_groups(caps) && caps->max_work_group < (uint64_t)group_of(p, caps))
        return clattn__refuse(why, "work-groups of %d items; the device allows %llu", group_of(p, caps),
                              (unsigned long long)caps->max_work_group);
    if (in_groups(caps) && caps->local_memory < local_bytes(p, caps, 1, group_of(p, caps)))
        return clattn__refuse(why, "%zu bytes of local memory; the device has %llu",
                              local_bytes(p, caps, 1, group_of(p, caps)), (unsigned long long)caps->local_memory);
    return clattn__refuse_features(why, p->features, clattn__attn_decode.features);
}

static void candidates(const clattn__attn_problem *p, const clattn__caps *caps, clattn__candidates *list) {
    const int rows = tile_rows(p, caps), group = in_groups(caps) ? group_of(p, caps) : 1;
    clattn__candidates_add(list, (clattn__params){{rows, group, BUSY}});
    clattn__candidates_add(list, (clattn__params){{rows, group, 2 * BUSY}});
    clattn__candidates_add(list, (clattn__params){{rows, group, BUSY / 2}});
    if (in_groups(caps) && 2 * group <= MOST_GROUP && caps->max_work_group >= (uint64_t)(2 * group) &&
        caps->local_memory >= local_bytes(p, caps, rows, 2 * group))
        clattn__candidates_add(list, (clattn__params){{rows, 2 * group, BUSY}});
    if (in_groups(caps) && rows > 1) clattn__candidates_add(list, (clattn__params){{rows / 2, group, BUSY}});
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

/* Floats of one partial result. */
static size_t partial_floats(const clattn__attn_kernel *kernel) {
    const clattn__attn_problem *p = &kernel->problem;
    if (is_in_groups(kernel)) return (size_t)(pieces_of(p, p->value_dim) * piece_of(p) + 4);
    const int64_t width = lanes_of(p, &kernel->programs->env->device.caps);
    return (size_t)(ceil_div(p->value_dim, width) * width + 2);
}

/* How many pieces of work, of so many chunks each, a launch may hold. */
static int64_t launch_units(const clattn__attn_kernel *kernel, int64_t chunks) {
    const clattn__attn_problem *p = &kernel->problem;
    const double cells = (double)chunks * kernel->block_kv * (double)(p->head_dim + p->value_dim);
    return clattn__launch_units(&kernel->programs->env->device.caps, cells, CLATTN__ELEMENTS_PER_CLOCK);
}

/* How many items share the chunks of one tile, so that the device is busy. On GPUs all of its places get work in each
 * turn, the last included, as far as that goes; and no group works so long that a desktop would notice. Partial results
 * cost about a sixteenth. */
static int64_t wanted_splits(const clattn__attn_kernel *kernel, int64_t lines, int64_t rows, int64_t chunks) {
    const clattn__caps *caps = &kernel->programs->env->device.caps;
    const int64_t items = lines * ceil_div(rows, kernel->block_q),
                  busy = (int64_t)kernel->params.value[2] * caps->compute_units;
    if (items == 0 || chunks < 2) return 1;
    if (forced_splits) return least(forced_splits, chunks);
    if (!is_in_groups(kernel)) return items >= busy ? 1 : least(ceil_div(busy, items), chunks);
    int64_t best = 1, best_cost = INT64_MAX;
    for (int turns = 1; turns <= MOST_TURNS; turns++) {
        const int64_t most = least(busy * turns / items, chunks), share = ceil_div(chunks, most > 1 ? most : 1);
        const int64_t splits = ceil_div(chunks, share);
        const int64_t cost = ceil_div(items * splits, busy) * share * (splits > 1 ? 17 : 16);
        if (cost < best_cost) best = splits, best_cost = cost;
    }
    const int64_t longest = launch_units(kernel, 1) / (caps->compute_units ? caps->compute_units : 1);
    const int64_t fewest = ceil_div(chunks, longest > 1 ? longest : 1);
    return best > fewest ? best : fewest;
}

static clattn_status make_scratch(clattn__attn_kernel *kernel) {
    const clattn__attn_problem *p = &kernel->problem;
    const int64_t lines = p->batch * p->kv_heads, rows = rows_of(p), chunks = ceil_div(p->kv_len, kernel->block_kv);
    const int64_t extents[3] = {lines, rows, chunks};
    size_t bytes = 0, floor = LEAST_PARTIALS * partial_floats(kernel) * sizeof(float);
    if (wanted_splits(kernel, lines, rows, chunks) > 1 || forced_splits)
        if (!clattn__volume(extents, 3, partial_floats(kernel) * sizeof(float), &bytes))
            return clattn__fail(CLATTN_OUT_OF_MEMORY, "the partial results are larger than the address space");
    return clattn__buffer_create(kernel->programs->env, bytes > floor ? bytes : floor, &kernel->scratch);
}

static void add_group_options(clattn__options *options, const clattn__attn_problem *p, int rows, int group,
                              const clattn__caps *caps) {
    clattn__options_int(options, "GROUP", group);
    clattn__options_int(options, "LOADS", loads_of(p, caps, rows, group));
    clattn__subgroup_options(options, caps);
}

static clattn_status prepare(clattn__attn_kernel *kernel) {
    const clattn__attn_problem *p = &kernel->problem;
    const clattn__caps *caps = &kernel->programs->env->device.caps;
    const bool groups = in_groups(caps);
    const int rows = kernel->params.value[0], group = kernel->params.value[1], chunk = chunk_of(p, caps, rows, group);
    clattn__options options;
    clattn__options_start(&options);
    clattn__attn_options(&options, p, caps);
    clattn__options_int(&options, "CHUNK", chunk);
    clattn__options_int(&options, "ROWS", rows);
    if (groups)
        add_group_options(&options, p, rows, group, caps);
    else
        add_tile_options(&options, p, rows, caps);
    const char *file = groups ? "attn_decode_gpu.cl" : "attn_decode.cl";
    clattn_status status = clattn__program_get(kernel->programs, file, &options, &kernel->program);
    if (status == CLATTN_OK)
        status = clattn__kernel_create(kernel->programs, kernel->program, "attn_decode", &kernel->kernel);
    if (status == CLATTN_OK)
        status = clattn__kernel_create(kernel->programs, kernel->program, "attn_decode_merge", &kernel->merge);
    if (status != CLATTN_OK) return status;
    const size_t most = clattn__kernel_most_items(kernel->programs, kernel->kernel);
    if (groups && (size_t)group > most) /* too many registers */
        return clattn__fail(CLATTN_UNSUPPORTED,
                            "attn_decode: the built kernel runs with at most %zu work-items per group on %s, not %d",
                            most, caps->name, group);
    kernel->block_q = rows;
    kernel->block_kv = chunk;
    kernel->local_items[0] = (size_t)group;
    kernel->local_items[1] = kernel->local_items[2] = 1;
    snprintf(kernel->tiles, sizeof kernel->tiles, "%d query rows x %d keys, chunks shared by up to %d work-groups",
             rows, chunk, (int)wanted_splits(kernel, p->batch * p->kv_heads, rows_of(p), ceil_div(p->kv_len, chunk)));
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
    if (is_in_groups(kernel)) {
        const int64_t fours = pieces_of(&kernel->problem, kernel->problem.value_dim) * piece_of(&kernel->problem) / 4;
        launch.dims = 2;
        launch.global[0] = (size_t)ceil_div(d->rows * fours, (int64_t)group) * group;
        launch.global[1] = lines;
        clattn__launch_shorten(&launch, &env->device.caps, 4.0 * (double)d->chunks);
    }
    return status == CLATTN_OK ? clattn__launch_enqueue(env, &launch) : status;
}

/* cl/attn_decode.cl: one item per split, tile and line. */
static clattn_status enqueue_items(clattn__attn_kernel *kernel, const clattn_decode_args *d, int64_t tiles,
                                   int64_t lines) {
    clattn__env *env = kernel->programs->env;
    clattn__launch launch = {.kernel = kernel->kernel, .dims = 3, .local = {1, 1, 1}};
    launch.global[0] = (size_t)d->splits;
    launch.global[1] = (size_t)tiles;
    launch.global[2] = (size_t)lines;
    clattn_status status = clattn__arg(env, kernel->kernel, DECODE_ARGS, sizeof *d, d);
    return status == CLATTN_OK ? clattn__launch_enqueue(env, &launch) : status;
}

/* What CUDA's grids hold in their second dimension: clattn__launch_enqueue would cut up larger ones, into parts that
 * begin at an offset, which the kernel does not ask for (LONE_GROUP). */
enum { MOST_UNITS = 65535 };

/* cl/attn_decode_gpu.cl, in launches that stay short: tiles that read the same keys run side by side. */
static clattn_status enqueue_groups(clattn__attn_kernel *kernel, clattn_decode_args *d, int64_t tiles, int64_t lines) {
    clattn__env *env = kernel->programs->env;
    const int64_t units = lines * d->splits, share = ceil_div(d->chunks, d->splits);
    const int64_t most = least(launch_units(kernel, tiles * (share > 1 ? share : 1)), MOST_UNITS);
    clattn_status status = CLATTN_OK;
    for (d->first = 0; d->first < units && status == CLATTN_OK; d->first += most) {
        clattn__launch launch = {.kernel = kernel->kernel, .dims = 2, .local = {kernel->local_items[0], 1, 1}};
        launch.global[0] = (size_t)tiles * kernel->local_items[0];
        launch.global[1] = (size_t)least(most, units - d->first);
        status = clattn__arg(env, kernel->kernel, DECODE_ARGS, sizeof *d, d);
        if (status == CLATTN_OK) status = clattn__launch_enqueue(env, &launch);
    }
    return status;
}

static clattn_status enqueue(clattn__attn_kernel *kernel, const clattn__attn_call *call) {
    clattn__env *env = kernel->programs->env;
    const clattn_attn_args *args = &call->args;
    const int64_t group = args->query_heads / args->kv_heads, lines = (int64_t)args->batch * args->kv_heads;
    clattn_decode_args d = {.group = (int)group, .rows = (int)(group * args->query_len)};
    const int64_t chunks = ceil_div(args->kv_len, kernel->block_kv), tiles = ceil_div(d.rows, kernel->block_q);
    const size_t part = partial_floats(kernel) * sizeof(float);
    d.splits = (int)wanted_splits(kernel, lines, d.rows, chunks);
    d.chunks = (int)chunks;
    /* a call beyond the sizes that the kernel was made for goes without splitting, and gives the same bits */
    if ((double)lines * d.rows * (double)chunks * (double)part > (double)kernel->scratch.bytes || d.splits < 1 ||
        call->unshared)
        d.splits = 1;
    clattn_status status = clattn__attn_set_args(kernel, call);
    if (status == CLATTN_OK) status = clattn__arg_mem(env, kernel->kernel, DECODE_PARTIALS, kernel->scratch.mem);
    if (status != CLATTN_OK) return status;
    status = is_in_groups(kernel) ? enqueue_groups(kernel, &d, tiles, lines) : enqueue_items(kernel, &d, tiles, lines);
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
