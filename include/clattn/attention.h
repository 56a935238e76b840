/* Attention: softmax(scale * Q K^T ...) V as a plan that is described once, created once and run many times.
 *
 * Source of the formula: Vaswani et al. 2017 (arXiv:1706.03762), equation 1; options as in ONNX Attention-23..25 and
 * torch.nn.functional.scaled_dot_product_attention. docs/numerics.md has the exact order of operations.
 *
 * Letters: B batch, Hq query heads, Hkv key/value heads, Sq query_len, Sk kv_len, D head_dim, Dv value_dim.
 * Query head h reads key/value head h / (Hq / Hkv).
 *
 * One score:   s = scale * <q_i, k_j>; s = softcap * tanh(s / softcap); s += float mask + alibi[h] * (j - i - offset);
 *              forbidden keys are removed;  p = softmax(s / temperature) over what is left (a sink logit joins the
 *              denominator only);  dropout sets some p_j to 0 and the others to p_j / (1 - dropout);
 *              output = sum_j p_j v_j.
 * A row without any allowed key gives output 0, weights 0 and logsumexp -inf. A float mask of -inf forbids its key. */
#ifndef CLATTN_ATTENTION_H
#define CLATTN_ATTENTION_H

#include "clattn/context.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum clattn_causal {
    CLATTN_CAUSAL_NONE = 0,
    CLATTN_CAUSAL_TOP_LEFT = 1,     /* key j <= i */
    CLATTN_CAUSAL_BOTTOM_RIGHT = 2, /* key j <= i + Sk - Sq; with kv_lengths: j <= i + length[b] - Sq */
    CLATTN_CAUSAL_OFFSET = 3        /* key j <= i + causal_offset */
} clattn_causal;

typedef enum clattn_mask_type {
    CLATTN_MASK_NONE = 0,
    CLATTN_MASK_BOOL =
        1, /* true = attend (ONNX, scaled_dot_product_attention); the opposite of nn.MultiheadAttention */
    CLATTN_MASK_FLOAT = 2 /* added to the scaled score; -inf forbids */
} clattn_mask_type;

typedef enum clattn_weights_output {
    CLATTN_WEIGHTS_NONE = 0,
    CLATTN_WEIGHTS_PER_HEAD = 1, /* (B, Hq, Sq, Sk) */
    CLATTN_WEIGHTS_AVERAGED = 2  /* (B, Sq, Sk), mean over the heads */
} clattn_weights_output;

/* The four qk_matmul_output modes of ONNX Attention; (B, Hq, Sq, Sk). */
typedef enum clattn_scores_output {
    CLATTN_SCORES_NONE = 0,
    CLATTN_SCORES_RAW = 1,     /* mode 0: scale * <q, k>, before softcap */
    CLATTN_SCORES_SOFTCAP = 2, /* mode 1: after softcap, before masks */
    CLATTN_SCORES_MASKED = 3,  /* mode 2: after masks; -inf at forbidden keys */
    CLATTN_SCORES_SOFTMAX = 4  /* mode 3: the weights */
} clattn_scores_output;

/* What s is before the scale. w is the score_weight, b the score_bias. Additive scores expect query and key as
 * projected by the caller (their D is the hidden size). */
typedef enum clattn_score {
    CLATTN_SCORE_DOT = 0,            /* <q, k> */
    CLATTN_SCORE_GAUSSIAN = 1,       /* -1/2 sum_d ((q_d - k_d) w_d)^2: Nadaraya-Watson attention pooling (Nadaraya
                                        1964; Zhang et al., Dive into Deep Learning, section 11.2) */
    CLATTN_SCORE_ADDITIVE = 2,       /* sum_d w_d tanh(q_d + k_d + b_d): Bahdanau et al. 2014 (arXiv:1409.0473) */
    CLATTN_SCORE_ADDITIVE_LINEAR = 3 /* sum_d w_d (q_d + k_d + b_d): without the tanh */
} clattn_score;

typedef struct clattn_attention_desc {
    size_t struct_size;  /* set by clattn_attention_desc_init */
    int64_t batch;       /* B  >= 0; 0 is a success that writes nothing */
    int64_t query_heads; /* Hq >= 1, a multiple of kv_heads */
    int64_t kv_heads;    /* Hkv >= 1; 0 means query_heads */
    int64_t query_len;   /* Sq >= 0 */
    int64_t kv_len;      /* Sk >= 0; 0 gives zero rows; with past_len it counts the past too */
    int64_t head_dim;    /* D  1..512 */
    int64_t value_dim;   /* Dv 1..512; 0 means head_dim */
    clattn_dtype dtype;  /* of query, key, value, output: default CLATTN_F32 */
    int has_scale;       /* 0: 1/sqrt(D); 1: scale below, any finite value, also 0 and negative */
    float scale;
    float temperature; /* > 0, default 1 */
    float softcap;     /* >= 0, default 0 = off */
    clattn_causal causal;
    int64_t causal_offset; /* read with CLATTN_CAUSAL_OFFSET; also the origin of window and ALiBi in that mode */
    int64_t window_left;   /* keys before i + offset that may be attended, inclusive; default -1 = unbounded */
    int64_t window_right;  /* likewise after */
    clattn_mask_type mask;
    int64_t mask_shape[4]; /* (B or 1, Hq or 1, Sq or 1, Sk or 1 or fewer: missing keys are forbidden); all 0 means
                              (1, 1, Sq, Sk) */
    int padding_mask;      /* 1: the run gets a bool (B, Sk), true = attend */
    int kv_lengths;        /* 1: the run gets int32 (B): keys j >= length[b] are never read */
    int alibi;             /* 1: the run gets float (Hq) slopes */
    int sinks;             /* 1: the run gets float (Hq) sink logits */
    clattn_weights_output weights;
    clattn_scores_output scores;
    int logsumexp;         /* 1: the run writes (B, Hq, Sq) float, natural logarithm */
    const char *kernel;    /* default NULL: the first that supports the description; else a name from the registry, by
                             which every other kernel is refused. Borrowed during create only. */
    clattn_score score;    /* default the dot product. Of the other kinds the default scale is 1 */
    int score_weight;      /* 1: the run gets float (D), w; additive kinds need it, the Gaussian has ones without */
    int score_bias;        /* 1: the run gets float (D), b; additive kinds only */
    float dropout;         /* 0 <= p < 1, default 0 = off. A weight is kept with probability 1 - p */
    uint64_t dropout_seed; /* the same seed drops the same weights, on every device: Philox 4x32-10 (Salmon et al. 2011)
                              of (seed, batch, head, row, key). `weights` and `scores` are those before dropout */
    int prefix;            /* 1: the run gets int32 (B): keys j < prefix[b] are not hidden by the causal mask, which
                              must be on (prefix language models) */
    int documents;         /* 1: the run gets int32 (B, Sq) and (B, Sk): key j is allowed only where the numbers of the
                              documents of i and j are equal */
    int varlen;            /* 1: sequences of different lengths lie one behind the other: query (Tq, Hq, D), key
                              (Tk, Hkv, D), value (Tk, Hkv, Dv), output (Tq, Hq, Dv), logsumexp (Hq, Tq); query_starts
                              and key_starts say where each begins. query_len and kv_len are upper bounds of the
                              lengths. Every other option counts rows and keys within the sequence; bottom right ends
                              with each sequence's end, or with kv_lengths at its length (seqused_k elsewhere), which
                              then is at most the keys of the sequence. weights and scores have query_len rows and
                              kv_len keys for each sequence; those that it lacks are 0, in scores of the modes 0 to 2
                              -inf */
    int align_end; /* 1, with causal off: row i stands at i + Sk - Sq all the same (with kv_lengths i + length[b] - Sq),
                      so that windows and ALiBi count from the end, as with CLATTN_CAUSAL_BOTTOM_RIGHT */
    int64_t past_len; /* P, 0..Sk, default 0: the first P keys and values come from past_key and past_value, key and
                         value hold the Sk - P behind them (past and present of ONNX Attention). Not with varlen */
    int present;      /* 1: the run also writes all keys and values, past and new, to present_key and present_value */
    clattn_precision precision; /* default CLATTN_PRECISION_DEFAULT */
} clattn_attention_desc;

CLATTN_API void clattn_attention_desc_init_sized(clattn_attention_desc *desc, size_t caller_size);
#define clattn_attention_desc_init(d) clattn_attention_desc_init_sized((d), sizeof *(d))

/* What one run reads and writes. Absent tensors stay zeroed. Host pointers and cl_mem views may be mixed.
 *   query (B, Hq, Sq, D)   key (B, Hkv, Sk, D)   value (B, Hkv, Sk, Dv)   output (B, Hq, Sq, Dv)
 * Any strides with a contiguous last axis are fine, so (B, S, H*D) and (S, B, H*D) layouts are passed as strided views.
 * Outputs are overwritten and never read. Inputs and outputs must not overlap. */
typedef struct clattn_attention_io {
    clattn_tensor query, key, value;
    clattn_tensor mask;         /* as mask_shape says, bool or float32 */
    clattn_tensor padding_mask; /* (B, Sk) bool */
    clattn_tensor kv_lengths;   /* (B) int32 or int64, each 0..Sk, packed: 0..the keys of sequence b */
    clattn_tensor alibi;        /* (Hq) float32 */
    clattn_tensor sinks;        /* (Hq) float32 */
    clattn_tensor output;
    clattn_tensor logsumexp;       /* (B, Hq, Sq) float32 */
    clattn_tensor weights;         /* see clattn_weights_output, float32 */
    clattn_tensor scores;          /* (B, Hq, Sq, Sk) float32 */
    clattn_tensor score_weight;    /* (D) float32 */
    clattn_tensor score_bias;      /* (D) float32 */
    clattn_tensor prefix_lengths;  /* (B) int32, each 0..Sk */
    clattn_tensor query_documents; /* (B, Sq) int32, any numbers */
    clattn_tensor key_documents;   /* (B, Sk) int32 */
    clattn_tensor query_starts;    /* (B + 1) int32: row of the first query of each sequence, then the end of the last
                                      (cu_seqlens_q elsewhere). Not decreasing, 0 first, at most Tq last, each sequence
                                      at most query_len long; rows behind the last sequence are left alone */
    clattn_tensor key_starts;      /* (B + 1) int32, likewise for keys (cu_seqlens_k). What host memory holds is
                                      checked; a cl_mem that breaks these rules gives wrong results, no wild access */
    clattn_tensor past_key, past_value;       /* (B, Hkv, P, D), (B, Hkv, P, Dv) of dtype, with past_len > 0 */
    clattn_tensor present_key, present_value; /* (B, Hkv, Sk, D), (B, Hkv, Sk, Dv) of dtype, with present: what the next
                                                 call may bring as its past */
} clattn_attention_io;

/* A plan. Creation compiles, verifies and allocates; a run only enqueues. One thread at a time per plan. */
typedef struct clattn_attention clattn_attention;

/* On failure *out is NULL and clattn_last_error() says why; UNSUPPORTED lists each kernel's reason. */
CLATTN_API clattn_status clattn_attention_create(clattn_attention **out, clattn_context *context,
                                                 const clattn_attention_desc *desc);
/* Runs and blocks until the outputs are there. Every tensor is borrowed for the call. On error nothing was written, or,
 * after DEVICE_FAILED, the outputs are undefined. */
CLATTN_API clattn_status clattn_attention_run(clattn_attention *plan, const clattn_attention_io *io);
CLATTN_API void clattn_attention_destroy(clattn_attention **plan);
/* In words: the kernel that runs, why each faster one was refused, tile sizes, memory, FLOPs. Owned by the plan. */
CLATTN_API const char *clattn_attention_explain(const clattn_attention *plan);

/* Figures of a plan, for programs. */
typedef struct clattn_plan_info {
    double flops;          /* multiply-adds count two; only allowed (query, key) pairs under causal and window */
    size_t arena_bytes;    /* peak of the arena */
    size_t unshared_bytes; /* what the same buffers would take without sharing */
    size_t partial_bytes;  /* beside the arena: partial results of work-groups that share the keys of one query */
    size_t held_bytes;     /* device memory that the plan holds: arena, partial results, packed weights, staging */
    /* Bytes of tensors in host memory that the last run copied between host and device. Both are 0 where the device
     * works on the caller's memory in place: CPU devices always do, GPUs that share the host's memory do with tensors
     * that start at a page of 4096 bytes and fill whole lines of 64. */
    size_t copied_to_device, copied_to_host;
    int steps;
    int buffers;
    const char *kernels; /* "gemm_cpu, attn_cpu": in order of first use; owned by the plan */
    const char *tiles;   /* tile sizes of those kernels; owned by the plan */
} clattn_plan_info;
CLATTN_API clattn_status clattn_attention_info(const clattn_attention *plan, clattn_plan_info *info);

#ifdef __cplusplus
}
#endif
#endif
