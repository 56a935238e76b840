/* The multi-head attention layer: input projections, attention per head, output projection.
 *
 *   Q = query W_Q^T + b_Q,  K = key W_K^T + b_K,  V = value W_V^T + b_V,   split into H heads,
 *   output = concat_h(attention(Q_h, K_h, V_h)) W_O^T + b_O
 *
 * Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.2; options as in torch.nn.MultiheadAttention.
 * Letters: B batch, L query_len, S kv_len, E embed_dim, H heads, D = E / H. */
#ifndef CLATTN_MHA_H
#define CLATTN_MHA_H

#include "clattn/attention.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum clattn_mha_inputs {
    CLATTN_MHA_SELF = 0,    /* query serves as key and value too: one fused projection */
    CLATTN_MHA_CROSS = 1,   /* key serves as value too */
    CLATTN_MHA_SEPARATE = 2 /* three inputs */
} clattn_mha_inputs;

typedef struct clattn_mha_desc {
    size_t struct_size; /* set by clattn_mha_desc_init */
    int64_t batch;      /* B >= 0 */
    int64_t query_len;  /* L >= 0 */
    int64_t kv_len;     /* S >= 0; 0 with SELF means query_len */
    int64_t embed_dim;  /* E >= 1, a multiple of heads */
    int64_t heads;      /* H >= 1 */
    int64_t key_dim;    /* kdim, default 0 = E */
    int64_t value_dim;  /* vdim, default 0 = E */
    clattn_mha_inputs inputs;
    int has_scale; /* 0: 1/sqrt(E/H) */
    float scale;
    clattn_causal causal;
    int64_t causal_offset;
    clattn_mask_type mask; /* true = attend, as everywhere in clattn */
    int64_t mask_shape[4]; /* as in clattn_attention_desc; the last extent counts the S keys of the input */
    int padding_mask;      /* 1: the run gets a bool (B, S), true = attend */
    int add_zero_attn;     /* 1: a zero key and value per head, always attended, behind bias_k/bias_v if present */
    clattn_weights_output weights; /* (B, H, L, T) or (B, L, T), T = S + appended keys */
    size_t memory_limit; /* bytes for intermediate buffers; 0 = no limit. Below the least that works: MEMORY_LIMIT,
                              and the error text names that least. */
    const char *attention_kernel; /* as clattn_attention_desc.kernel */
    const char *gemm_kernel;      /* the same for the projections */
    clattn_dtype dtype;           /* of query, key, value, output and every intermediate buffer: default CLATTN_F32, or
                              CLATTN_F16, CLATTN_BF16. Sums are float32 always; with 16 bits a memory_limit does not
                              divide the heads, since their sum would be rounded at each part */
    clattn_precision precision;   /* of attention and projections: default CLATTN_PRECISION_DEFAULT */
} clattn_mha_desc;

CLATTN_API void clattn_mha_desc_init_sized(clattn_mha_desc *desc, size_t caller_size);
#define clattn_mha_desc_init(d) clattn_mha_desc_init_sized((d), sizeof *(d))

/* Host tensors, each of its own type, float32, float16 or bfloat16, whatever the description's dtype is: they are used
 * exactly as they are. Borrowed during create only (they are packed and uploaded there, in float32).
 * Give either in_proj_weight (then key_dim = value_dim = E), or the three separate weights. */
typedef struct clattn_mha_weights {
    clattn_tensor in_proj_weight;                        /* (3E, E): query, key, value stacked */
    clattn_tensor q_proj_weight;                         /* (E, E)    */
    clattn_tensor k_proj_weight;                         /* (E, kdim) */
    clattn_tensor v_proj_weight;                         /* (E, vdim) */
    clattn_tensor in_proj_bias;                          /* (3E), or the three below, or none */
    clattn_tensor q_proj_bias, k_proj_bias, v_proj_bias; /* (E) each */
    clattn_tensor out_proj_weight;                       /* (E, E) */
    clattn_tensor out_proj_bias;                         /* (E), optional */
    clattn_tensor bias_k, bias_v; /* (E), both or none: one learned key and value, appended after the projections */
} clattn_mha_weights;

/* query (B, L, E), key (B, S, kdim), value (B, S, vdim), output (B, L, E), all of the description's dtype; any strides
 * with a contiguous last axis, so sequence-first tensors are passed as strided views. */
typedef struct clattn_mha_io {
    clattn_tensor query, key, value;
    clattn_tensor mask;         /* bool or float32, as mask_shape says */
    clattn_tensor padding_mask; /* (B, S) bool */
    clattn_tensor output;
    clattn_tensor weights; /* float32 */
} clattn_mha_io;

/* Thread rules, ownership and errors as for clattn_attention. */
typedef struct clattn_mha clattn_mha;
CLATTN_API clattn_status clattn_mha_create(clattn_mha **out, clattn_context *context, const clattn_mha_desc *desc,
                                           const clattn_mha_weights *weights);
CLATTN_API clattn_status clattn_mha_run(clattn_mha *mha, const clattn_mha_io *io);
CLATTN_API void clattn_mha_destroy(clattn_mha **mha);
CLATTN_API const char *clattn_mha_explain(const clattn_mha *mha);
CLATTN_API clattn_status clattn_mha_info(const clattn_mha *mha, clattn_plan_info *info);

/* One row of the memory schedule that explain prints. */
typedef struct clattn_plan_buffer {
    const char *name;
    size_t bytes;
    size_t offset;  /* in the arena */
    int first_step; /* that touches it */
    int last_step;
} clattn_plan_buffer;
CLATTN_API clattn_status clattn_mha_buffer(const clattn_mha *mha, int index, clattn_plan_buffer *row);

#ifdef __cplusplus
}
#endif
#endif
