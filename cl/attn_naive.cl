/* Attention with one work-item per query row: any device, every feature, no local memory, no barrier.
 *
 *   work-item = row i of head h in batch entry b          (AVERAGED_WEIGHTS: row i of b, all heads one after the other)
 *               |
 *               +-- walks the keys once:     passes 1 to 4 with a running maximum, one private row of VALUE_DIM sums
 *               +-- pass 5:                  output row, logsumexp
 *               +-- walks the keys again,    only when weights or scores of mode SOFTMAX are wanted
 *
 * Scores are never kept, so memory does not grow with the number of keys. Made to be right and short; the tiled kernels
 * are for speed. With KEY_PARTS (inc/key_parts.clh) the keys of the second walk count behind those of the first, and
 * averaged heads have launches of their own:
 *
 *   0 .. kv_len - 1: first walk | kv_len .. 2 * kv_len - 1: second walk        parts may begin and end anywhere
 *
 * Options: HEAD_DIM, VALUE_DIM, STORAGE_F16, STORAGE_BF16, KEY_PARTS, every feature as 0 or 1, and
 *   SCORES_MODE  a clattn_scores_output when SCORES is 1: 1 raw, 2 after softcap, 3 after masks, 4 weights. */
#include "inc/cell_rows.clh"
#include "inc/dropout.clh"
#include "inc/key_parts.clh"
#include "inc/mask.clh"
#include "inc/score.clh"
#include "inc/types.clh"
#include "inc/varlen.clh"
#include "shared/args.h"

#define WRITES_LISTS (WEIGHTS || AVERAGED_WEIGHTS || SCORES) /* outputs of one number per key */
#define WANT_SCORES(mode) (SCORES && SCORES_MODE == (mode))

/* One row's softmax: what the second walk needs of the first. */
typedef struct row_softmax {
    float top;   /* greatest allowed score (sink included), -inf when there is none */
    float base;  /* top, or 0 when top is -inf: safe to subtract */
    float total; /* sum of exp((s - base) / temperature) over the allowed keys and the sink */
    int allowed; /* how many keys the row may attend to; none: the row is empty, whatever the values are */
} row_softmax;

/* What an item leaves to the next part. */
typedef struct kept_row {
    row_softmax softmax;
    float sums[VALUE_DIM];
} kept_row;

/* Pass 3 for one more score: what the sums so far have to be multiplied by, and the new score's weight. */
static void add_score(row_softmax *r, float s, float inverse_temperature, float *rescale, float *weight) {
    float top = fmax(r->top, s);
    float base = top == -INFINITY ? 0.0f : top;
    *rescale = exp((r->top - base) * inverse_temperature);
    *weight = exp((s - base) * inverse_temperature);
    r->total = fma(r->total, *rescale, *weight);
    r->top = top;
    r->base = base;
}

/* Packed sequences: weights and scores of the keys from `first` on, which the sequence of row i lacks. */
static void fill_missing(const clattn_attn_args *a, int b, int first_head, int heads, int i, int first, int end,
                         __global float *weights, __global float *scores) {
    const float score = WANT_SCORES(4) ? 0.0f : -INFINITY;
    if (WEIGHTS || AVERAGED_WEIGHTS) weights += a->weights.offset + b * a->weights.batch + i * a->weights.row;
    if (SCORES) scores += a->scores.offset + b * a->scores.batch + i * a->scores.row;
    for (int h = first_head; h < first_head + heads; h++)
        for (int j = first; j < end; j++) {
            if (WEIGHTS) weights[h * a->weights.head + j] = 0.0f;
            if (AVERAGED_WEIGHTS && !a->weights_accumulate) weights[j] = 0.0f;
            if (SCORES) scores[h * a->scores.head + j] = score;
        }
}

/* first: number of group 0, as launches are cut in chunks. */
__kernel void attn_naive(ATTN_ALL_PARAMETERS(all), clattn_i64 first KEY_PART_PARAMETERS) {
    const int heads = AVERAGED_WEIGHTS ? (KEY_PARTS ? 1 : all.query_heads) : 1; /* walked by this item */
    const clattn_i64 item = first * (clattn_i64)get_local_size(0) + (clattn_i64)get_global_id(0);
    const int i = (int)(item % all.query_len);
    const clattn_i64 entry = item / all.query_len; /* b, or b * Hq + h */
    const int b = (int)(AVERAGED_WEIGHTS ? entry : entry / all.query_heads);
    const int first_head = (int)(AVERAGED_WEIGHTS ? PART_HEAD : entry % all.query_heads);
    clattn_attn_args a = all;
    if (b >= a.batch) return;
    attn_sequence_set(&a, b, query_starts, key_starts);
    if (VARLEN && WRITES_LISTS)
        fill_missing(&a, b, first_head, heads, i, max(i < a.query_len ? a.kv_len : 0, PART_FIRST),
                     min(all.kv_len, PART_END), weights, scores);
    if (i >= a.query_len) return;
    if (SCORE_WEIGHT) score_weight += a.score_weight_offset;
    if (SCORE_BIAS) score_bias += a.score_bias_offset;

    for (int h = first_head; h < first_head + heads; h++) {
        const int kv_head = h / (a.query_heads / a.kv_heads);
        const __global storage *q = query + (a.query.offset + b * a.query.batch + h * a.query.head + i * a.query.row);
        const cell_rows k = cells_of(&a.cells, &a.key, &a.key_scales, key, key_scales, cell_table, b, kv_head);
        const cell_rows v = cells_of(&a.cells, &a.value, &a.value_scales, value, value_scales, cell_table, b, kv_head);
        __global float *score_row = scores;
        if (SCORES) score_row += a.scores.offset + b * a.scores.batch + h * a.scores.head + i * a.scores.row;
        attn_head head;
        attn_head_set(&head, &a, b, h, mask, padding, lengths, alibi);
        attn_head_set_features(&head, &a, b, prefix, query_documents, key_documents);
        const int2 range = attn_range(&head, i);
        /* Scores are written for every key; otherwise only keys that may be allowed are looked at. */
        const int begin = max(SCORES ? 0 : range.x, PART_FIRST);
        const int end = min(SCORES || ALWAYS_KEYS ? a.kv_len : range.y, PART_END);

        float sums[VALUE_DIM];
        for (int c = 0; c < VALUE_DIM; c++) sums[c] = 0.0f;
        row_softmax r = {-INFINITY, 0.0f, 0.0f, 0};
        float rescale, weight;
        if (SINKS) add_score(&r, sinks[a.sinks_offset + h], a.inverse_temperature, &rescale, &weight);
#if KEY_PARTS
        __global kept_row *own = (__global kept_row *)kept + get_global_id(0);
        if (!PART_BEGINS) {
            r = own->softmax;
            for (int c = 0; c < VALUE_DIM; c++) sums[c] = own->sums[c];
        }
#endif
        for (int j = begin; j < end; j++) {
            const bool allowed = attn_allowed(&head, range, i, j);
            const bool computed = SCORES ? attn_exists(&head, j) : allowed;
            if (!computed) {
                if (SCORES) score_row[j] = -INFINITY;
                continue;
            }
            const int2 at = cells_at(&k, j); /* pass 1 */
            float s = a.scale * attn_score(q, cells_row(&k, at), cells_scale(&k, at), score_weight, score_bias);
            if (WANT_SCORES(1)) score_row[j] = s;
            s = attn_softcap(&head, s); /* pass 2 */
            if (WANT_SCORES(2)) score_row[j] = s;
            if (!allowed) {
                if (WANT_SCORES(3)) score_row[j] = -INFINITY;
                continue;
            }
            s = attn_terms(&head, i, j, s);
            if (WANT_SCORES(3)) score_row[j] = s;
            add_score(&r, s, a.inverse_temperature, &rescale, &weight); /* pass 3 */
            r.allowed++;
            weight *= attn_dropout(&a, b, h, i, j); /* pass 4 */
            const __global cell *row = cells_row(&v, at);
            if (CELL_I8) weight *= cells_scale(&v, at);
            for (int c = 0; c < VALUE_DIM; c++) sums[c] = fma(weight, cell1(row + c), sums[c] * rescale);
        }
#if KEY_PARTS
        if (!PART_ENDS) {
            own->softmax = r;
            for (int c = 0; c < VALUE_DIM; c++) own->sums[c] = sums[c];
        }
#endif

        /* pass 5 */
        const float inverse = r.allowed ? 1.0f / r.total : 0.0f;
        __global storage *o = output + (a.output.offset + b * a.output.batch + h * a.output.head + i * a.output.row);
        for (int c = 0; c < VALUE_DIM; c++) store1(r.allowed ? sums[c] * inverse : 0.0f, o + c);
        if (LSE)
            lse[a.lse_offset + b * a.lse_batch + h * a.lse_head + i] =
                r.allowed ? r.base * a.inverse_temperature + log(r.total) : -INFINITY;

        /* The weights, now that the denominator is known: passes 1 and 2 again. */
        if (WEIGHTS || AVERAGED_WEIGHTS || WANT_SCORES(4)) {
            __global float *weight_row = weights;
            if (WEIGHTS || AVERAGED_WEIGHTS) weight_row += a.weights.offset + b * a.weights.batch + i * a.weights.row;
            if (WEIGHTS) weight_row += h * a.weights.head;
            const int behind = KEY_PARTS ? all.kv_len : 0; /* the first walk, in parts */
            for (int j = max(PART_FIRST - behind, 0); j < min(PART_END - behind, a.kv_len); j++) {
                float p = 0.0f;
                if (attn_allowed(&head, range, i, j)) {
                    const int2 at = cells_at(&k, j);
                    const float raw = attn_score(q, cells_row(&k, at), cells_scale(&k, at), score_weight, score_bias);
                    float s = attn_softcap(&head, a.scale * raw);
                    s = attn_terms(&head, i, j, s);
                    p = exp((s - r.base) * a.inverse_temperature) * inverse;
                }
                if (WEIGHTS) weight_row[j] = p;
                if (AVERAGED_WEIGHTS)
                    weight_row[j] = p * a.weights_factor + (h > 0 || a.weights_accumulate ? weight_row[j] : 0.0f);
                if (WANT_SCORES(4)) score_row[j] = p;
            }
        }
    }
}
