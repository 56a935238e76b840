/* Attention on matrix engines: 16-bit storage, products of 16-bit operands summed in float, softmax in float.
 *
 *             head_dim               keys ->
 *           +----------+     +---------+---------+---------+   A work-group of WAVES waves owns BLOCK_Q query rows of
 *   wave 0  | Q, in    |  x  | partial | full    | partial |   one head, QT tiles of MMA_M rows per wave, with their
 *   wave 1  | registers|     | compare | nothing | compare |   running maximum, sum and output in registers, and
 *   ...     +----------+     +---------+---------+---------+   walks the key blocks that causal order, window and
 *                             BLOCK_KV each, through local     length leave. (Dao 2023, arXiv:2307.08691)
 *                             memory
 *
 * Where registers have no room for sums of all of V's columns, neighbouring groups share them out: each computes the
 * scores for itself and VALUE_DIM columns of the output.
 *
 * Weights are rounded to the storage type before they meet V, as matrix engines want it; sums are not.
 *
 * Forbidden weights are 0, and 0 * NaN is NaN: a NaN or an infinity in a value that a row may not attend to would reach
 * it. Outputs that come out finite prove that there was none. A tile with another output is computed once more with
 * care: values that are not finite are staged as 0 and added by hand where they are allowed.
 *
 * Macros chosen by the host half, beside those of tile_mma.clh:
 *   WAVES: waves per work-group.
 *   QT: row tiles per wave; a tile of K or V is used that often.
 *   BLOCK_KV: keys per step, a multiple of 16 and of MMA_N: the engine's columns.
 *   STAGES: 2 when the next block travels into local memory meanwhile.
 *   PREFETCH: 1 when the next block travels through registers meanwhile.
 *   QUERY_LOCAL: how many of Q's operands per row tile rest in local memory, the last ones; the others rest in
 *   registers.
 *   VALUE_GROUPS: groups that share rows; V has VALUE_GROUPS * VALUE_DIM columns.
 * What follows from them:
 *   KEY_STEPS: operands of Q per row tile.  QUERY_HELD: those in registers. */
#include "inc/dropout.clh"
#include "inc/key_parts.clh"
#include "inc/local.clh"
#include "inc/tile_mma.clh"
#include "inc/varlen.clh"

#define WAVE_ROWS (MMA_M * QT)
#define BLOCK_Q (WAVE_ROWS * WAVES)
#define LOG2_E 1.44269504089f
#define LN_2 0.69314718056f
#define HAS_MASKS (MASK_BOOL || MASK_FLOAT || PADDING || DOCUMENTS) /* allowed keys are not a run */
#define HAS_TERMS (SOFTCAP || MASK_FLOAT || ALIBI)                  /* scores change before the softmax */

#if BLOCK_KV % MMA_N != 0 || BLOCK_KV % 16 != 0
#error "BLOCK_KV must be a multiple of MMA_N and of 16"
#endif

/* What a lane knows of its rows. */
typedef struct tile_rows {
    mma_c acc[QT][VALUE_TILES];
    float top[QT][MMA_SLOTS];    /* greatest logit so far, in units of log2 */
    float total[QT][MMA_SLOTS];  /* this lane's part of the sum */
    int attended[QT][MMA_SLOTS]; /* with masks: has this lane seen an allowed key? */
} tile_rows;

#if QUERY_LOCAL > KEY_STEPS
#error "QUERY_LOCAL must be at most KEY_STEPS"
#endif
#define QUERY_HELD (KEY_STEPS - QUERY_LOCAL)
typedef struct query_tiles {
    mma_a held[QT][QUERY_HELD + !QUERY_HELD]; /* one at least, for C's sake */
    __local mma_a *rest;                      /* of this lane: QT * QUERY_LOCAL operands, MMA_LANES apart */
} query_tiles;

static inline mma_a query_get(const query_tiles *q, int t, int step) {
    if (step < QUERY_HELD) return q->held[t][step];
    return q->rest[(t * QUERY_LOCAL + step - QUERY_HELD) * MMA_LANES];
}

static inline void query_put(query_tiles *q, int t, int step, mma_a part) {
    if (step < QUERY_HELD)
        q->held[t][step] = part;
    else
        q->rest[(t * QUERY_LOCAL + step - QUERY_HELD) * MMA_LANES] = part;
}

static inline void start_rows(const mma_context *x, tile_rows *rows, float sink) {
    MMA_UNROLL
    for (int t = 0; t < QT; t++) {
        MMA_UNROLL
        for (int slot = 0; slot < MMA_SLOTS; slot++) {
            rows->top[t][slot] = sink;
            rows->total[t][slot] = mma_speaks(x) && sink != -INFINITY ? 1.0f : 0.0f;
            rows->attended[t][slot] = 0;
        }
        MMA_UNROLL
        for (int n = 0; n < VALUE_TILES; n++) mma_zero(&rows->acc[t][n]);
    }
}

/* S = Q K^T */
static inline void add_products(mma_context *x, mma_c s[QT][KEY_TILES], const query_tiles *queries, int stage) {
    MMA_UNROLL
    for (int t = 0; t < QT; t++) {
        MMA_UNROLL
        for (int n = 0; n < KEY_TILES; n++) mma_zero(&s[t][n]);
    }
    MMA_UNROLL
    for (int step = 0; step < KEY_STEPS; step++) {
        mma_a q[QT];
        MMA_UNROLL
        for (int t = 0; t < QT; t++) q[t] = query_get(queries, t, step);
        MMA_UNROLL
        for (int n = 0; n < KEY_TILES; n++) {
            const mma_b k = mma_from_keys(x, stage, n, step);
            MMA_UNROLL
            for (int t = 0; t < QT; t++) mma(x, &s[t][n], &q[t], &k);
        }
    }
}

#if KEY_TILES * MMA_VALUES > 32
typedef ulong key_bits;
#else
typedef uint key_bits;
#endif

/* Which of this lane's scores of a row tile are allowed: bit n * MMA_VALUES + i is value i of tile n. Four at a time,
 * so that the loads of the masks hold few registers; the scores cannot wait for them in such a loop, as registers have
 * no addresses. */
static inline key_bits allowed_bits(const mma_context *x, const attn_head *head, const int2 *run, const int *row,
                                    int k0) {
    key_bits bits = 0;
    MMA_ROLL
    for (int first = 0; first < KEY_TILES * MMA_VALUES; first += 4) {
        const int column = k0 + first / MMA_VALUES * MMA_N;
        key_bits four = 0;
        MMA_UNROLL
        for (int i = 0; i < 4; i++) {
            const int slot = mma_slot(i), j = column + mma_column(x, first % MMA_VALUES + i);
            if (attn_allowed(head, run[slot], row[slot], j)) four |= (key_bits)1 << i;
        }
        bits |= four << first;
    }
    return bits;
}

/* Softcap, masks and terms; forbidden scores become -inf. row0: of this wave. */
static inline void change_scores(const mma_context *x, tile_rows *rows, mma_c s[QT][KEY_TILES], const attn_head *head,
                                 int row0, int query_len, int k0, float scale, bool compare) {
    MMA_UNROLL
    for (int t = 0; t < QT; t++) {
        int row[MMA_SLOTS];
        int2 run[MMA_SLOTS];
        MMA_UNROLL
        for (int slot = 0; slot < MMA_SLOTS; slot++) { /* rows beyond the last repeat it, unseen */
            row[slot] = min(row0 + t * MMA_M + mma_slot_row(x, slot), query_len - 1);
            run[slot] = attn_range(head, row[slot]);
        }
        const key_bits bits = HAS_MASKS ? allowed_bits(x, head, run, row, k0) : 0;
        MMA_UNROLL
        for (int slot = 0; slot < MMA_SLOTS; slot++) { /* row by row: what is known of one holds registers */
            MMA_UNROLL
            for (int n = 0; n < KEY_TILES; n++) {
                MMA_UNROLL
                for (int i = 0; i < MMA_VALUES; i++) {
                    if (mma_slot(i) != slot) continue;
                    const int j = k0 + n * MMA_N + mma_column(x, i);
                    const bool allowed = HAS_MASKS ? bits >> (n * MMA_VALUES + i) & 1
                                                   : !compare || attn_allowed(head, run[slot], row[slot], j);
                    float value = s[t][n].v[i];
                    if (HAS_TERMS) value = attn_softcap(head, scale * value);
                    if (HAS_TERMS && allowed) value = attn_terms(head, row[slot], j, value);
                    if (HAS_MASKS && allowed) rows->attended[t][slot] = 1;
                    s[t][n].v[i] = allowed ? value : -INFINITY;
                }
                mma_in_order();
            }
        }
    }
}

/* Scores become weights against the running maximum; what was summed before is brought to the new one. */
static inline void soften(mma_context *x, tile_rows *rows, mma_c s[QT][KEY_TILES], float to_log2) {
    MMA_UNROLL
    for (int t = 0; t < QT; t++) {
        float base[MMA_SLOTS];
        MMA_UNROLL
        for (int slot = 0; slot < MMA_SLOTS; slot++) base[slot] = -INFINITY;
        MMA_UNROLL
        for (int n = 0; n < KEY_TILES; n++) {
            MMA_UNROLL
            for (int i = 0; i < MMA_VALUES; i++) base[mma_slot(i)] = fmax(base[mma_slot(i)], s[t][n].v[i]);
        }
        MMA_UNROLL
        for (int slot = 0; slot < MMA_SLOTS; slot++) {
            const float top = fmax(rows->top[t][slot], mma_row_max(x, base[slot]) * to_log2);
            base[slot] = top == -INFINITY ? 0.0f : top; /* safe to subtract */
            const float rescale = mma_exp2(rows->top[t][slot] - base[slot]);
            rows->top[t][slot] = top;
            if (rescale != 1.0f) { /* a branch, not a select: some compilers keep a second copy of acc otherwise */
                rows->total[t][slot] *= rescale;
                MMA_UNROLL
                for (int n = 0; n < VALUE_TILES; n++) mma_scale(&rows->acc[t][n], slot, rescale);
            }
        }
        mma_converge();
        float2 total[MMA_SLOTS]; /* neighbours have one row: two at a time, where there are instructions for it */
        MMA_UNROLL
        for (int slot = 0; slot < MMA_SLOTS; slot++) total[slot] = (float2)(rows->total[t][slot], 0.0f);
        MMA_UNROLL
        for (int n = 0; n < KEY_TILES; n++) {
            MMA_UNROLL
            for (int i = 0; i < MMA_VALUES; i += 2) {
                const int slot = mma_slot(i);
                const float2 power =
                    fma((float2)(s[t][n].v[i], s[t][n].v[i + 1]), (float2)(to_log2), (float2)(-base[slot]));
                s[t][n].v[i] = mma_exp2(power.x);
                s[t][n].v[i + 1] = mma_exp2(power.y);
                total[slot] += (float2)(s[t][n].v[i], s[t][n].v[i + 1]);
            }
        }
        MMA_UNROLL
        for (int slot = 0; slot < MMA_SLOTS; slot++) rows->total[t][slot] = total[slot].x + total[slot].y;
    }
}

static inline void drop_weights(const mma_context *x, mma_c s[QT][KEY_TILES], const clattn_attn_args *a, int b, int h,
                                int row0, int k0) {
    MMA_UNROLL
    for (int t = 0; t < QT; t++) {
        MMA_UNROLL
        for (int n = 0; n < KEY_TILES; n++) {
            MMA_UNROLL
            for (int i = 0; i < MMA_VALUES; i++)
                s[t][n].v[i] *= attn_dropout(a, b, h, row0 + t * MMA_M + mma_slot_row(x, mma_slot(i)),
                                             k0 + n * MMA_N + mma_column(x, i));
        }
    }
}

/* O += P V */
static inline void add_values(mma_context *x, tile_rows *rows, mma_c s[QT][KEY_TILES], int stage) {
    MMA_UNROLL
    for (int step = 0; step < BLOCK_KV / 16; step++) {
        mma_a p[QT];
        MMA_UNROLL
        for (int t = 0; t < QT; t++) p[t] = mma_from_sums(x, s[t], step);
        MMA_UNROLL
        for (int n = 0; n < VALUE_TILES; n++) {
            const mma_b v = mma_from_values(x, stage, step, n);
            MMA_UNROLL
            for (int t = 0; t < QT; t++) mma(x, &rows->acc[t][n], &p[t], &v);
        }
    }
}

#if KEY_PARTS
/* What a lane leaves to the next part: words of 32 bits, ITEMS apart: the sums of each row tile, then for each of its
 * slots maximum, total and attended, then whether a value so far was odd. */
#define KEPT_SLOTS (QT * VALUE_TILES * MMA_VALUES)
#define KEPT_ODD (KEPT_SLOTS + 3 * QT * MMA_SLOTS)

/* What waits for the next round, or for the end, in local memory: registers are for the walk. */
typedef struct part_state {
    __global uint4 *kept;
    int first, end;
} part_state;

/* Of the lane that asks. */
static inline __global uint *own_words(const __local part_state *state, const mma_context *x) {
    return (__global uint *)state->kept + ((clattn_i64)get_group_id(0) * (KEPT_ODD + 1) * ITEMS + x->item);
}

static inline void keep_rows(const tile_rows *rows, __global uint *to) {
    MMA_UNROLL
    for (int t = 0; t < QT; t++) {
        MMA_UNROLL
        for (int n = 0; n < VALUE_TILES; n++) {
            MMA_UNROLL
            for (int i = 0; i < MMA_VALUES; i++)
                to[((t * VALUE_TILES + n) * MMA_VALUES + i) * ITEMS] = as_uint(rows->acc[t][n].v[i]);
        }
        MMA_UNROLL
        for (int slot = 0; slot < MMA_SLOTS; slot++) {
            __global uint *words = to + (KEPT_SLOTS + 3 * (t * MMA_SLOTS + slot)) * ITEMS;
            words[0] = as_uint(rows->top[t][slot]);
            words[ITEMS] = as_uint(rows->total[t][slot]);
            words[2 * ITEMS] = (uint)rows->attended[t][slot];
        }
    }
}

/* What is there, else what rows begin with: choices, as a branch around all of it costs scalar registers on AMD. */
static inline void take_rows(tile_rows *rows, const __global uint *from, bool there) {
    MMA_UNROLL
    for (int t = 0; t < QT; t++) {
        MMA_UNROLL
        for (int n = 0; n < VALUE_TILES; n++) {
            MMA_UNROLL
            for (int i = 0; i < MMA_VALUES; i++)
                rows->acc[t][n].v[i] = there ? as_float(from[((t * VALUE_TILES + n) * MMA_VALUES + i) * ITEMS]) : 0.0f;
        }
        MMA_UNROLL
        for (int slot = 0; slot < MMA_SLOTS; slot++) {
            const __global uint *words = from + (KEPT_SLOTS + 3 * (t * MMA_SLOTS + slot)) * ITEMS;
            rows->top[t][slot] = there ? as_float(words[0]) : rows->top[t][slot];
            rows->total[t][slot] = there ? as_float(words[ITEMS]) : rows->total[t][slot];
            rows->attended[t][slot] = there ? (int)words[2 * ITEMS] : rows->attended[t][slot];
        }
    }
}
#endif

static inline bool all_finite(const tile_rows *rows) {
    float excess = 0.0f;
    MMA_UNROLL
    for (int t = 0; t < QT; t++) {
        MMA_UNROLL
        for (int n = 0; n < VALUE_TILES; n++) excess += mma_excess(&rows->acc[t][n]);
    }
    return excess == 0.0f;
}

/* With care, after the output: adds the values that were staged as 0 where they are allowed. An infinity keeps its
 * sign, as every allowed weight is above 0. Slow, and rolled up so that it takes no registers from the loop over the
 * keys. */
static inline void add_odd_values(const mma_context *x, const mma_source *s, const attn_head *head,
                                  const clattn_attn_args *a, int b, int h, int row0, __global storage *output) {
    for (int i = 0; i < QT * VALUE_TILES * MMA_VALUES; i++) {
        const int v = i % MMA_VALUES, n = i / MMA_VALUES % VALUE_TILES, t = i / (MMA_VALUES * VALUE_TILES);
        const int row = row0 + t * MMA_M + mma_slot_row(x, mma_slot(v)), column = n * MMA_N + mma_column(x, v);
        if (row >= a->query_len || column >= VALUE_DIM) continue;
        const int2 run = attn_range(head, row);
        __global storage *o = output + (row * a->output.row + column);
        for (int j = 0; j < a->kv_len; j++) {
            if (!attn_exists(head, j) || !attn_allowed(head, run, row, j)) continue;
            const ushort bits = mma_value(s, j, column);
            if (bits != mma_finite(bits)) store1(load1(o) + mma_widen(bits) * attn_dropout(a, b, h, row, j), o);
        }
    }
}

__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) MMA_ATTRIBUTES void
attn_matrix(ATTN_ALL_PARAMETERS(all), clattn_i64 first KEY_PART_PARAMETERS) {
    /* first: number of group 0, as launches come in chunks */
    __local __attribute__((aligned(128))) ushort tiles[MMA_STAGES * (KEY_TILE + VALUE_TILE)];
    __local int odd;
    mma_context context, *x = &context;
#if MMA_EXCHANGE
    __local __attribute__((aligned(16))) uint exchange[MMA_EXCHANGE * WAVES];
    MMA_START(context, tiles, exchange);
    POISON(exchange, x->item, ITEMS);
#else
    MMA_START(context, tiles, 0);
#endif
    if (!MMA_LANES_MATCH()) return; /* nothing is written, which verification notices */
    POISON(tiles, x->item, ITEMS);

    const int tile_count = (all.query_len + BLOCK_Q - 1) / BLOCK_Q, heads = all.batch * all.query_heads;
    const clattn_i64 group = first + (clattn_i64)get_group_id(0), number = group / VALUE_GROUPS;
    const int column0 = (int)(group % VALUE_GROUPS) * VALUE_DIM; /* this group's first of V */
    /* With a causal mask the last tiles have the most keys: they start first, so that groups finish together. Otherwise
     * neighbouring groups share their head's keys in the cache. */
    const int tile = CAUSAL ? tile_count - 1 - (int)(number / heads) : (int)(number % tile_count);
    const int bh = CAUSAL ? (int)(number % heads) : (int)(number / tile_count);
    const int b = bh / all.query_heads, h = bh % all.query_heads, kv_head = h / (all.query_heads / all.kv_heads);
    const int q0 = tile * BLOCK_Q, row0 = q0 + x->wave * WAVE_ROWS;
    clattn_attn_args a = all;
    attn_sequence_set(&a, b, query_starts, key_starts);
    const __global ushort *q = (const __global ushort *)query + (a.query.offset + b * a.query.batch + h * a.query.head);
    mma_source source;
#if MMA_LOCATED
    const cell_rows keys = cells_of(&a.cells, &a.key, &a.key_scales, key, key_scales, cell_table, b, kv_head);
    cell_rows values = cells_of(&a.cells, &a.value, &a.value_scales, value, value_scales, cell_table, b, kv_head);
    values.cells += column0;
    __local mma_lookup lookup[1];
    POISON(lookup, x->item, ITEMS);
    mma_look_up(&source, lookup, &keys, &values, x->item);
#else
    source.keys.cells = (const __global ushort *)key + (a.key.offset + b * a.key.batch + kv_head * a.key.head);
    source.values.cells =
        (const __global ushort *)value + (a.value.offset + b * a.value.batch + kv_head * a.value.head + column0);
    source.keys.row = MMA_STRIDE(a.key.row);
    source.values.row = MMA_STRIDE(a.value.row);
    source.wide = mma_is_whole(&source.keys) && mma_is_whole(&source.values);
#endif
    source.careful = false;
    attn_head head;
    attn_head_set(&head, &a, b, h, mask, padding, lengths, alibi);
    attn_head_set_features(&head, &a, b, prefix, query_documents, key_documents);

    /* Both ends of a row's run of keys grow with the row, so the tile's run goes from the first row's first key to the
     * last row's end, and all rows have the keys between the last row's first and the first row's end. */
    const int2 top_run = attn_range(&head, q0), bottom_run = attn_range(&head, min(q0 + BLOCK_Q, a.query_len) - 1);
    const int run_end = bottom_run.y, always_block = head.always / BLOCK_KV * BLOCK_KV;
    int stop = ALWAYS_KEYS && head.always < head.kv_len ? head.kv_len : run_end;
    if (VARLEN && q0 >= a.query_len) stop = 0; /* this sequence is shorter than the longest: nothing to do */
    int start = top_run.x / BLOCK_KV * BLOCK_KV;
    if (KEY_PARTS) start = max(start, PART_FIRST), stop = min(stop, PART_END);
    if (ALWAYS_KEYS && start >= run_end) start = max(start, always_block);

    /* The running maximum stays on raw scores, so their factor must be above 0: the sign goes to Q. */
    const bool wide_query = mma_is_wide(q, a.query.row);
    const float heat = a.inverse_temperature * LOG2_E;
    const bool flat = !(fabs(a.scale) * heat >= FLT_MIN); /* all scores alike: Q counts as 0 */
    const uint keep = flat ? 0u : 0xffffffffu, flip = a.scale < 0.0f ? 0x80008000u : 0u;
    const float scale = flat ? 1.0f : fabs(a.scale);
    const float to_log2 = HAS_TERMS ? heat : scale * heat;
    query_tiles queries;
#if QUERY_LOCAL
    __local mma_a query_area[WAVES * QT * QUERY_LOCAL * MMA_LANES];
    POISON(query_area, x->item, ITEMS);
    queries.rest = query_area + (x->wave * QT * QUERY_LOCAL * MMA_LANES + x->lane);
#endif
    MMA_UNROLL
    for (int t = 0; t < QT; t++) {
        MMA_UNROLL
        for (int step = 0; step < KEY_STEPS; step++) {
            mma_a part = mma_from_query(x, q, a.query.row, row0 + t * MMA_M, a.query_len, step, wide_query);
            mma_change_sign(&part, keep, flip);
            query_put(&queries, t, step, part);
        }
    }
    if (x->item == 0) odd = 0;
#if KEY_PARTS
    __local part_state state[1];
    POISON(state, x->item, ITEMS);
    if (x->item == 0) state[0] = (part_state){kept, PART_FIRST, PART_END};
#endif

    tile_rows rows;
    for (;;) {
        start_rows(x, &rows, SINKS ? sinks[a.sinks_offset + h] * heat : -INFINITY);
        mma_stage in_flight;
        int k0 = start, stage = 0;
        if (k0 < stop) mma_locate(&source, &head, k0, x->item, ITEMS);
        MMA_BARRIER(); /* of an earlier round nobody reads any more */
#if KEY_PARTS
        take_rows(&rows, own_words(state, x), state->first > 0);
#endif
        mma_follow(&source);
        if (k0 < stop) mma_fetch(x, &in_flight, &source, &head, k0, stage);
        while (k0 < stop) {
            mma_c s[QT][KEY_TILES];
            const bool compare = HAS_MASKS || k0 < bottom_run.x || k0 + BLOCK_KV > top_run.y;
            int next = k0 + BLOCK_KV;
            if (ALWAYS_KEYS && next >= run_end) next = max(next, always_block);

            if (next < stop) mma_locate(&source, &head, next, x->item, ITEMS);
            mma_settle(x, &in_flight, &source, &head, k0, stage);
            mma_follow(&source);
            if (next < stop) mma_fetch(x, &in_flight, &source, &head, next, (stage + 1) % MMA_STAGES);
            add_products(x, s, &queries, stage);
            if (HAS_TERMS || compare) change_scores(x, &rows, s, &head, row0, a.query_len, k0, scale, compare);
            mma_converge();
            soften(x, &rows, s, to_log2);
            if (DROPOUT) drop_weights(x, s, &a, b, h, row0, k0);
            add_values(x, &rows, s, stage);
            mma_converge();
            stage = (stage + 1) % MMA_STAGES;
            k0 = next;
        }
        if (source.careful) break;
        if (!all_finite(&rows)) odd = 1; /* whoever writes, writes the same */
        MMA_BARRIER();
        if (!odd) break;
        source.careful = true;
    }

    bool ends = true, was_odd = source.careful;
#if KEY_PARTS
    ends = state->end == INT_MAX;
    if (state->first > 0 && own_words(state, x)[KEPT_ODD * ITEMS]) was_odd = true;
    if (!ends) {
        __global uint *own = own_words(state, x);
        keep_rows(&rows, own);
        own[KEPT_ODD * ITEMS] = was_odd;
    }
#endif

    __global storage *out = output + (a.output.offset + b * a.output.batch + h * a.output.head + column0);
    MMA_UNROLL
    for (int t = 0; t < QT; t++) {
        float inverse[MMA_SLOTS];
        MMA_UNROLL
        for (int slot = 0; slot < MMA_SLOTS; slot++) {
            const int i = row0 + t * MMA_M + mma_slot_row(x, slot);
            const float sum = mma_row_sum(x, rows.total[t][slot]);
            bool any = ALWAYS_KEYS && head.always < head.kv_len;
            if (HAS_MASKS) {
                any = mma_row_max(x, (float)rows.attended[t][slot]) > 0.0f;
            } else {
                const int2 run = attn_range(&head, i);
                any = any || run.y > run.x;
            }
            inverse[slot] = !any ? 0.0f : sum == sum ? 1.0f / sum : NAN; /* not with the NaN's own bits: mma_store */
            if (LSE && mma_speaks(x) && i < a.query_len && column0 == 0) {
                const float base = rows.top[t][slot] == -INFINITY ? 0.0f : rows.top[t][slot];
                lse[a.lse_offset + b * a.lse_batch + h * a.lse_head + i] = any ? (base + log2(sum)) * LN_2 : -INFINITY;
            }
        }
        MMA_UNROLL
        for (int n = 0; n < VALUE_TILES; n++) {
            MMA_UNROLL
            for (int i = 0; i < MMA_VALUES; i += MMA_RUN) {
                const int slot = mma_slot(i), row = row0 + t * MMA_M + mma_slot_row(x, slot);
                const int column = n * MMA_N + mma_column(x, i);
                if (row >= a.query_len || column >= VALUE_DIM) continue;
                mma_store(&rows.acc[t][n], i, inverse[slot], out + (row * a.output.row + column));
            }
        }
    }
    if (ends && was_odd) add_odd_values(x, &source, &head, &a, b, h, row0, out);
}
