/* The attention cases: variants (what shapes a binary: features, dimensions, element type) times shapes (what does
 * not). A variant costs a compilation per kernel, a shape next to nothing, so there are few of the former and many of
 * the latter.
 *
 * Mask axes: the letters b, h, q, k name the axes that the mask has (the others are 1); s instead of k: fewer keys
 * than kv_len, the missing ones are forbidden. */
#ifndef CLATTN_TEST_CASES_H
#define CLATTN_TEST_CASES_H

#include "clattn/attention.h"

typedef struct case_shape {
    int batch, query_heads, kv_heads, query_len, kv_len;
} case_shape;

/* Around the tile sizes in use (16, 32, 64) and around 128 and 384; 1, primes, and heads in groups of 1, 3 and 8. */
static const case_shape case_shapes[] = {
    {1, 1, 1, 1, 1},     /* 0 */
    {2, 3, 3, 7, 7},     /* 1 */
    {1, 8, 1, 1, 129},   /* 2 */
    {2, 3, 1, 63, 64},   /* 3 */
    {1, 3, 3, 64, 63},   /* 4 */
    {1, 8, 8, 65, 65},   /* 5 */
    {2, 2, 2, 64, 64},   /* 6 */
    {1, 6, 2, 129, 65},  /* 7 */
    {1, 1, 1, 65, 129},  /* 8 */
    {2, 2, 1, 7, 385},   /* 9 */
    {1, 1, 1, 385, 7},   /* 10 */
    {1, 1, 1, 384, 385}, /* 11 */
    {1, 1, 1, 3, 1000},  /* 12 */
    {1, 1, 1, 1000, 63}, /* 13 */
    {3, 1, 1, 1, 7},     /* 14 */
    {1, 24, 3, 5, 64},   /* 15 */
    {1, 2, 2, 17, 31},   /* 16 */
    {1, 2, 2, 33, 47},   /* 17 */
};
enum {
    SHAPE_COUNT = sizeof case_shapes / sizeof case_shapes[0],
    SHAPES_ALL = (1 << SHAPE_COUNT) - 1,
    SHAPES_MIXED = 1 << 1 | 1 << 3 | 1 << 7 | 1 << 9 | 1 << 14, /* batch, groups, ragged tiles both ways */
    SHAPES_SQUARE = 1 << 0 | 1 << 1 | 1 << 6 | 1 << 8 | 1 << 10,
    SHAPES_FEW = 1 << 3 | 1 << 16
};

typedef enum case_layout {
    LAYOUT_BHSD = 0, /* dense */
    LAYOUT_BSHD,     /* (B, S, H*D) seen as (B, H, S, D) */
    LAYOUT_SBHD,     /* (S, B, H*D) likewise */
    LAYOUT_GAPS      /* dense order, but with unused elements between rows, heads and entries, and in front */
} case_layout;

typedef enum case_data {
    DATA_NORMAL = 0,
    DATA_LARGE,      /* logits about +-1e4 */
    DATA_EQUAL_KEYS, /* all weights of a row are equal */
    DATA_PLUS_1000,  /* every logit near +1000 */
    DATA_MINUS_1000, /* every logit near -1000 */
    DATA_BIG_VALUES  /* values about 1e30 */
} case_data;

/* shapes of a variant that only CLATTN_TEST_FULL=1 runs: a device compiler may take seconds for each */
enum { FULL_ONLY = 0 };

/* Zero means off or the usual value, but for the window, which is stored plus 1. */
typedef struct case_variant {
    const char *suite; /* the test that runs it */
    const char *name;
    unsigned shapes; /* bit i: case_shapes[i] */
    int head_dim, value_dim;
    clattn_dtype dtype;
    case_layout layout;
    case_data data;
    int has_scale;
    float scale, temperature, softcap;
    clattn_causal causal;
    int offset;
    int window_left_plus_1, window_right_plus_1;
    clattn_mask_type mask;
    const char *mask_axes;
    int padding, lengths, alibi, sinks, lse;
    int nan_in_masked; /* keys that the mask forbids to every row hold NaN */
    clattn_weights_output weights;
    clattn_scores_output scores;
} case_variant;

#define D32 .head_dim = 32, .value_dim = 32
#define D33 .head_dim = 33, .value_dim = 20
#define D64 .head_dim = 64, .value_dim = 64

static const case_variant case_variants[] = {
    {"sizes", "plain d64", SHAPES_ALL, D64},
    {"sizes", "causal d64", SHAPES_MIXED | SHAPES_SQUARE, D64, .causal = CLATTN_CAUSAL_TOP_LEFT},

    {"dims", "d1", FULL_ONLY, .head_dim = 1, .value_dim = 1},
    {"dims", "d5", SHAPES_MIXED, .head_dim = 5, .value_dim = 5},
    {"dims", "d32", FULL_ONLY, D32},
    {"dims", "d33", FULL_ONLY, .head_dim = 33, .value_dim = 33},
    {"dims", "d80", SHAPES_FEW, .head_dim = 80, .value_dim = 80},
    {"dims", "d128", SHAPES_MIXED, .head_dim = 128, .value_dim = 128},
    {"dims", "d512", SHAPES_FEW, .head_dim = 512, .value_dim = 512},
    {"dims", "d33 dv128", SHAPES_FEW, .head_dim = 33, .value_dim = 128},
    {"dims", "d64 dv32", FULL_ONLY, .head_dim = 64, .value_dim = 32},
    {"dims", "d5 dv80", FULL_ONLY, .head_dim = 5, .value_dim = 80},
    {"dims", "d128 dv1", FULL_ONLY, .head_dim = 128, .value_dim = 1},
    {"dims", "d1 dv512", SHAPES_FEW, .head_dim = 1, .value_dim = 512},

    {"layouts", "bshd", SHAPES_MIXED, D64, .layout = LAYOUT_BSHD},
    {"layouts", "sbhd", SHAPES_MIXED, D64, .layout = LAYOUT_SBHD},
    {"layouts", "gaps", SHAPES_MIXED, D64, .layout = LAYOUT_GAPS},
    {"layouts", "gaps d33 all tensors", SHAPES_MIXED, D33, .layout = LAYOUT_GAPS, .mask = CLATTN_MASK_FLOAT,
     .mask_axes = "bhqk", .padding = 1, .lse = 1},
    {"layouts", "gaps weights", SHAPES_FEW, D33, .layout = LAYOUT_GAPS, .weights = CLATTN_WEIGHTS_PER_HEAD},
    {"layouts", "gaps averaged weights", SHAPES_FEW, D33, .layout = LAYOUT_GAPS, .weights = CLATTN_WEIGHTS_AVERAGED},
    {"layouts", "gaps scores", SHAPES_FEW, D33, .layout = LAYOUT_GAPS, .scores = CLATTN_SCORES_RAW},

    {"scale", "0", SHAPES_FEW, D64, .has_scale = 1, .scale = 0},
    {"scale", "negative", SHAPES_MIXED, D64, .has_scale = 1, .scale = -0.3f},
    {"scale", "3", SHAPES_MIXED, D64, .has_scale = 1, .scale = 3},
    {"scale", "temperature 0.25", SHAPES_MIXED, D64, .temperature = 0.25f},
    {"scale", "temperature 7 with causal", SHAPES_FEW, D64, .temperature = 7, .causal = CLATTN_CAUSAL_TOP_LEFT},

    {"extremes", "logits 1e4", SHAPES_MIXED, D64, .data = DATA_LARGE},
    {"extremes", "logits 1e4, causal", SHAPES_MIXED, D64, .data = DATA_LARGE, .causal = CLATTN_CAUSAL_TOP_LEFT},
    {"extremes", "equal keys", SHAPES_MIXED, D64, .data = DATA_EQUAL_KEYS},
    {"extremes", "logits near 1000", SHAPES_MIXED, D64, .data = DATA_PLUS_1000},
    {"extremes", "logits near -1000", SHAPES_MIXED, D64, .data = DATA_MINUS_1000},
    {"extremes", "values 1e30", SHAPES_FEW, D64, .data = DATA_BIG_VALUES},
    {"extremes", "logits 1e4, masks", SHAPES_MIXED, D33, .data = DATA_LARGE, .mask = CLATTN_MASK_FLOAT,
     .mask_axes = "qk", .lse = 1},

    {"causal", "top left", SHAPES_SQUARE, D32, .causal = CLATTN_CAUSAL_TOP_LEFT, .lse = 1},
    {"causal", "bottom right", SHAPES_SQUARE | SHAPES_MIXED, D32, .causal = CLATTN_CAUSAL_BOTTOM_RIGHT, .lse = 1},
    {"causal", "offset 3", SHAPES_SQUARE, D32, .causal = CLATTN_CAUSAL_OFFSET, .offset = 3, .lse = 1},
    {"causal", "offset -5", SHAPES_SQUARE, D32, .causal = CLATTN_CAUSAL_OFFSET, .offset = -5, .lse = 1},
    {"causal", "offset -1000000", SHAPES_FEW, D32, .causal = CLATTN_CAUSAL_OFFSET, .offset = -1000000, .lse = 1},
    {"causal", "offset 1000000", SHAPES_FEW, D32, .causal = CLATTN_CAUSAL_OFFSET, .offset = 1000000, .lse = 1},

    {"window", "3 left", SHAPES_SQUARE, D32, .window_left_plus_1 = 4, .lse = 1},
    {"window", "2 right", SHAPES_SQUARE, D32, .window_right_plus_1 = 3, .lse = 1},
    {"window", "70 left, 5 right", SHAPES_SQUARE, D32, .window_left_plus_1 = 71, .window_right_plus_1 = 6, .lse = 1},
    {"window", "own key only", SHAPES_SQUARE, D32, .window_left_plus_1 = 1, .window_right_plus_1 = 1, .lse = 1},
    {"window", "causal, 16 left", SHAPES_SQUARE, D32, .causal = CLATTN_CAUSAL_TOP_LEFT, .window_left_plus_1 = 17,
     .lse = 1},
    {"window", "bottom right, 4 left", SHAPES_SQUARE, D32, .causal = CLATTN_CAUSAL_BOTTOM_RIGHT,
     .window_left_plus_1 = 5, .lse = 1},
    {"window", "offset -7, 9 left", SHAPES_SQUARE, D32, .causal = CLATTN_CAUSAL_OFFSET, .offset = -7,
     .window_left_plus_1 = 10, .lse = 1},

    {"masks", "bool qk", SHAPES_MIXED, D33, .mask = CLATTN_MASK_BOOL, .mask_axes = "qk", .lse = 1},
    {"masks", "bool bhqk", SHAPES_MIXED, D33, .mask = CLATTN_MASK_BOOL, .mask_axes = "bhqk", .lse = 1},
    {"masks", "bool bk", SHAPES_MIXED, D33, .mask = CLATTN_MASK_BOOL, .mask_axes = "bk", .lse = 1},
    {"masks", "bool hq", SHAPES_MIXED, D33, .mask = CLATTN_MASK_BOOL, .mask_axes = "hq", .lse = 1},
    {"masks", "bool b", SHAPES_FEW, D33, .mask = CLATTN_MASK_BOOL, .mask_axes = "b", .lse = 1},
    {"masks", "bool short", SHAPES_MIXED, D33, .mask = CLATTN_MASK_BOOL, .mask_axes = "qs", .lse = 1},
    {"masks", "bool k, NaN behind", SHAPES_MIXED, D33, .mask = CLATTN_MASK_BOOL, .mask_axes = "k", .lse = 1,
     .nan_in_masked = 1},
    {"masks", "bool short, NaN behind", SHAPES_MIXED, D33, .mask = CLATTN_MASK_BOOL, .mask_axes = "bs", .lse = 1,
     .nan_in_masked = 1},
    {"masks", "float qk", SHAPES_MIXED, D33, .mask = CLATTN_MASK_FLOAT, .mask_axes = "qk", .lse = 1},
    {"masks", "float bhqk", SHAPES_MIXED, D33, .mask = CLATTN_MASK_FLOAT, .mask_axes = "bhqk", .lse = 1},
    {"masks", "float bhk", SHAPES_MIXED, D33, .mask = CLATTN_MASK_FLOAT, .mask_axes = "bhk", .lse = 1},
    {"masks", "float q", SHAPES_MIXED, D33, .mask = CLATTN_MASK_FLOAT, .mask_axes = "q", .lse = 1},
    {"masks", "float short", SHAPES_MIXED, D33, .mask = CLATTN_MASK_FLOAT, .mask_axes = "hs", .lse = 1},
    {"masks", "float k, NaN behind", SHAPES_MIXED, D33, .mask = CLATTN_MASK_FLOAT, .mask_axes = "k", .lse = 1,
     .nan_in_masked = 1},

    {"lengths", "padding and causal", SHAPES_MIXED, D32, .padding = 1, .causal = CLATTN_CAUSAL_TOP_LEFT, .lse = 1},
    {"lengths", "padding, everything behind", SHAPES_MIXED, D32, .padding = 1, .causal = CLATTN_CAUSAL_OFFSET,
     .offset = 5000, .lse = 1},
    {"lengths", "padding", FULL_ONLY, D32, .padding = 1, .lse = 1},
    {"lengths", "padding and bool mask", FULL_ONLY, D32, .padding = 1, .mask = CLATTN_MASK_BOOL, .mask_axes = "qk",
     .lse = 1},
    {"lengths", "kv lengths", SHAPES_MIXED, D32, .lengths = 1, .lse = 1},
    {"lengths", "kv lengths, bottom right", SHAPES_MIXED, D32, .lengths = 1, .causal = CLATTN_CAUSAL_BOTTOM_RIGHT,
     .lse = 1},
    {"lengths", "kv lengths, causal, short float mask", FULL_ONLY, D32, .lengths = 1, .causal = CLATTN_CAUSAL_TOP_LEFT,
     .mask = CLATTN_MASK_FLOAT, .mask_axes = "qs", .lse = 1},

    {"terms", "softcap", SHAPES_MIXED, D32, .softcap = 2.5f, .lse = 1},
    {"terms", "softcap, logits 1e4", SHAPES_FEW, D32, .softcap = 30, .data = DATA_LARGE, .lse = 1},
    {"terms", "alibi", FULL_ONLY, D32, .alibi = 1, .lse = 1},
    {"terms", "alibi, bottom right", SHAPES_MIXED, D32, .alibi = 1, .causal = CLATTN_CAUSAL_BOTTOM_RIGHT, .lse = 1},
    {"terms", "sinks", FULL_ONLY, D32, .sinks = 1, .lse = 1},
    {"terms", "sinks, causal", SHAPES_MIXED, D32, .sinks = 1, .causal = CLATTN_CAUSAL_TOP_LEFT, .lse = 1},
    {"terms", "sinks, offset -5", SHAPES_FEW, D32, .sinks = 1, .causal = CLATTN_CAUSAL_OFFSET, .offset = -5, .lse = 1},
    {"terms", "sinks, temperature, logits 1e4", SHAPES_FEW, D32, .sinks = 1, .causal = CLATTN_CAUSAL_OFFSET,
     .offset = 5000, .temperature = 3, .data = DATA_LARGE, .lse = 1},
    {"terms", "everything", SHAPES_MIXED, D33, .softcap = 5, .alibi = 1, .sinks = 1, .temperature = 0.5f, .padding = 1,
     .mask = CLATTN_MASK_FLOAT, .mask_axes = "bhqk", .causal = CLATTN_CAUSAL_BOTTOM_RIGHT, .window_left_plus_1 = 41,
     .lse = 1},

    {"outputs", "weights", SHAPES_MIXED, D32, .weights = CLATTN_WEIGHTS_PER_HEAD},
    {"outputs", "weights, masks", SHAPES_MIXED, D32, .weights = CLATTN_WEIGHTS_PER_HEAD, .mask = CLATTN_MASK_BOOL,
     .mask_axes = "hqk", .causal = CLATTN_CAUSAL_TOP_LEFT, .padding = 1},
    {"outputs", "averaged weights", SHAPES_MIXED, D32, .weights = CLATTN_WEIGHTS_AVERAGED,
     .causal = CLATTN_CAUSAL_TOP_LEFT},
    {"outputs", "weights with sinks", SHAPES_FEW, D32, .weights = CLATTN_WEIGHTS_PER_HEAD, .sinks = 1},
    {"outputs", "raw scores", SHAPES_MIXED, D32, .scores = CLATTN_SCORES_RAW, .softcap = 2, .padding = 1},
    {"outputs", "capped scores", SHAPES_FEW, D32, .scores = CLATTN_SCORES_SOFTCAP, .softcap = 2,
     .causal = CLATTN_CAUSAL_TOP_LEFT},
    {"outputs", "masked scores", SHAPES_MIXED, D32, .scores = CLATTN_SCORES_MASKED, .softcap = 2,
     .mask = CLATTN_MASK_FLOAT, .mask_axes = "qk", .causal = CLATTN_CAUSAL_TOP_LEFT},
    {"outputs", "masked scores, lengths", SHAPES_MIXED, D32, .scores = CLATTN_SCORES_MASKED, .lengths = 1, .alibi = 1},
    {"outputs", "softmax scores and weights", SHAPES_FEW, D32, .scores = CLATTN_SCORES_SOFTMAX,
     .weights = CLATTN_WEIGHTS_PER_HEAD, .lse = 1},

    {"storage", "float16", SHAPES_MIXED, D64, .dtype = CLATTN_F16},
    {"storage", "bfloat16", SHAPES_MIXED, D64, .dtype = CLATTN_BF16},
    {"storage", "float16 d33, masks", SHAPES_MIXED, D33, .dtype = CLATTN_F16, .mask = CLATTN_MASK_FLOAT,
     .mask_axes = "qk", .padding = 1, .causal = CLATTN_CAUSAL_BOTTOM_RIGHT, .lse = 1, .layout = LAYOUT_GAPS},
};

#undef D32
#undef D33
#undef D64

enum { VARIANT_COUNT = sizeof case_variants / sizeof case_variants[0] };

#endif
