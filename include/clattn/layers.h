/* What stands around attention in a Transformer: linear layers, normalisations, activations, positional encodings, and
 * whole stacks of encoder and decoder blocks.
 *
 * One object serves them all: a clattn_layer is described and created once, with its weights uploaded, and run many
 * times. Letters: B batch, L rows (tokens of the input), S memory_rows, E features, F feed_forward, H heads.
 * Inputs and outputs have the element type that the description says, float32 by default, and any strides with a
 * contiguous last axis; all arithmetic is float32.
 *
 *   linear       y = act(x W^T + b)                                       torch.nn.Linear
 *   norm         y = (x - mean) / sqrt(variance + eps) * weight + bias    torch.nn.LayerNorm, torch.nn.BatchNorm1d
 *   activation   relu(x) = max(x, 0);  gelu(x) = x / 2 * (1 + erf(x / sqrt(2)))    torch.nn.functional
 *   positions    PE[p, 2i] = sin(p / base^(2i/E)), PE[p, 2i+1] = cos(same)         Vaswani et al. 2017, section 3.5
 *   stack        blocks of Vaswani et al. 2017, section 3.1, as torch.nn.TransformerEncoderLayer and DecoderLayer */
#ifndef CLATTN_PUBLIC_LAYERS_H
#define CLATTN_PUBLIC_LAYERS_H

#include "clattn/mha.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum clattn_activation {
    CLATTN_ACTIVATION_NONE = 0,
    CLATTN_ACTIVATION_RELU = 1,
    CLATTN_ACTIVATION_GELU = 2 /* the exact one, by erf */
} clattn_activation;

/* ---- weights ----------------------------------------------------------------------------------------------------- */

/* Host tensors with dense rows, each of its own type, float32, float16 or bfloat16, whatever the description's dtype
 * is: they are used exactly as they are. Borrowed during create only. */

typedef struct clattn_linear_weights {
    clattn_tensor weight; /* (out_features, in_features) */
    clattn_tensor bias;   /* (out_features), optional */
} clattn_linear_weights;

typedef struct clattn_norm_weights {
    clattn_tensor weight;         /* (E), optional: ones */
    clattn_tensor bias;           /* (E), optional: zeros */
    clattn_tensor mean, variance; /* (E), for CLATTN_NORM_BATCH_INFERENCE only, which needs both; variance >= 0 */
} clattn_norm_weights;

/* One encoder or decoder block. cross_attention and cross_norm: decoder blocks only. Names as in PyTorch: self_attn,
 * multihead_attn, linear1, linear2; norm1, norm2, norm3 are self_norm, cross_norm, feed_forward_norm (an encoder's
 * norm2 is its feed_forward_norm). */
typedef struct clattn_block_weights {
    clattn_mha_weights self_attention;
    clattn_norm_weights self_norm;
    clattn_mha_weights cross_attention;
    clattn_norm_weights cross_norm;
    clattn_linear_weights expand;   /* (F, E), (F) */
    clattn_linear_weights contract; /* (E, F), (E) */
    clattn_norm_weights feed_forward_norm;
} clattn_block_weights;

/* ---- what a run reads and writes --------------------------------------------------------------------------------- */

/* Absent tensors stay zeroed. Inputs and outputs must not overlap. Outputs are overwritten and never read. */
typedef struct clattn_layer_io {
    clattn_tensor input;     /* (B, L, in): every layer; positions only with `add` */
    clattn_tensor residual;  /* (B, L, E): norm with `residual` */
    clattn_tensor positions; /* (L) or (B, L) int32, in host memory also int64: positions and stacks, when described */
    clattn_tensor mask;      /* stack: self-attention on the input, bool or float32, as mask_shape says */
    clattn_tensor padding_mask;        /* stack: (B, L) bool, true = attend */
    clattn_tensor memory;              /* stack with decoder blocks: (B, S, E) */
    clattn_tensor memory_mask;         /* stack: cross-attention, as memory_mask_shape says */
    clattn_tensor memory_padding_mask; /* stack: (B, S) bool, true = attend */
    clattn_tensor output;              /* (B, L, out) */
    clattn_tensor sum;                 /* (B, L, E): norm with `sum` */
    clattn_tensor hidden;              /* stack with `hidden`: (1 + blocks, B, L, E) */
} clattn_layer_io;

/* Creation compiles, verifies, packs and uploads; a run only enqueues. One thread at a time per layer. */
typedef struct clattn_layer clattn_layer;

/* Runs and blocks until the outputs are there; every tensor is borrowed for the call. On error nothing was written, or,
 * after DEVICE_FAILED, the outputs are undefined. */
CLATTN_API clattn_status clattn_layer_run(clattn_layer *layer, const clattn_layer_io *io);
CLATTN_API void clattn_layer_destroy(clattn_layer **layer);
/* Steps, kernels and the memory schedule in words; owned by the layer. */
CLATTN_API const char *clattn_layer_explain(const clattn_layer *layer);
CLATTN_API clattn_status clattn_layer_info(const clattn_layer *layer, clattn_plan_info *info);
CLATTN_API clattn_status clattn_layer_buffer(const clattn_layer *layer, int index, clattn_plan_buffer *row);

/* ---- linear ------------------------------------------------------------------------------------------------------ */

typedef struct clattn_linear_desc {
    size_t struct_size;
    int64_t batch, rows;               /* >= 0 */
    int64_t in_features, out_features; /* >= 1 */
    clattn_activation activation;
    const char *gemm_kernel;    /* default NULL: the first that fits; borrowed during create */
    clattn_dtype dtype;         /* of input and output: default CLATTN_F32, or CLATTN_F16, CLATTN_BF16 */
    clattn_precision precision; /* default CLATTN_PRECISION_DEFAULT */
} clattn_linear_desc;
CLATTN_API void clattn_linear_desc_init_sized(clattn_linear_desc *desc, size_t caller_size);
#define clattn_linear_desc_init(d) clattn_linear_desc_init_sized((d), sizeof *(d))

/* output (B, L, out) = act(input (B, L, in) W^T + b). Every create below: on failure *out is NULL and
 * clattn_last_error() says why. */
CLATTN_API clattn_status clattn_linear_create(clattn_layer **out, clattn_context *context,
                                              const clattn_linear_desc *desc, const clattn_linear_weights *weights);

/* ---- normalisation ----------------------------------------------------------------------------------------------- */

typedef enum clattn_norm_kind {
    CLATTN_NORM_LAYER = 0,          /* mean and variance of each row over its E features (Ba et al. 2016) */
    CLATTN_NORM_BATCH = 1,          /* of each feature over all B * L rows (Ioffe and Szegedy 2015, training) */
    CLATTN_NORM_BATCH_INFERENCE = 2 /* mean and variance come with the weights */
} clattn_norm_kind;

/* Variances are biased: divided by the count. */
typedef struct clattn_norm_desc {
    size_t struct_size;
    clattn_norm_kind kind;
    int64_t batch, rows, features; /* B, L >= 0; E >= 1 */
    float eps;                     /* > 0; default 1e-5 */
    int residual;                  /* 1: x = input + residual is what gets normalised */
    int sum;                       /* 1: the run also writes input + residual; needs residual */
    clattn_dtype dtype; /* of input, residual, sum and output: default CLATTN_F32, or CLATTN_F16, CLATTN_BF16 */
} clattn_norm_desc;
CLATTN_API void clattn_norm_desc_init_sized(clattn_norm_desc *desc, size_t caller_size);
#define clattn_norm_desc_init(d) clattn_norm_desc_init_sized((d), sizeof *(d))

/* weights may be NULL: ones and zeros (not for CLATTN_NORM_BATCH_INFERENCE). residual goes with CLATTN_NORM_LAYER only:
 * it is the "Add and Norm" of a Transformer. */
CLATTN_API clattn_status clattn_norm_create(clattn_layer **out, clattn_context *context, const clattn_norm_desc *desc,
                                            const clattn_norm_weights *weights);

/* ---- activation -------------------------------------------------------------------------------------------------- */

typedef struct clattn_activation_desc {
    size_t struct_size;
    int64_t batch, rows, features;
    clattn_activation activation;
    clattn_dtype dtype; /* of input and output: default CLATTN_F32, or CLATTN_F16, CLATTN_BF16 */
} clattn_activation_desc;
CLATTN_API void clattn_activation_desc_init_sized(clattn_activation_desc *desc, size_t caller_size);
#define clattn_activation_desc_init(d) clattn_activation_desc_init_sized((d), sizeof *(d))

CLATTN_API clattn_status clattn_activation_create(clattn_layer **out, clattn_context *context,
                                                  const clattn_activation_desc *desc);

/* ---- positional encodings ---------------------------------------------------------------------------------------- */

typedef enum clattn_positions_kind {
    CLATTN_POSITIONS_NONE = 0,
    CLATTN_POSITIONS_SINUSOIDAL = 1, /* sine and cosine side by side; any position, also negative */
    CLATTN_POSITIONS_LEARNED = 2     /* row p of a table */
} clattn_positions_kind;

typedef struct clattn_positions_desc {
    size_t struct_size;
    clattn_positions_kind kind;    /* default CLATTN_POSITIONS_SINUSOIDAL */
    int64_t batch, rows, features; /* E must be even for sinusoidal ones */
    double base;                   /* > 1; default 10000 */
    int64_t first;                 /* position of row 0, when the run gives no positions; |first| <= 2^28 */
    int positions;                 /* 1: the run gives a position for each row, |p| <= 2^31 - 1 */
    int add;                       /* 1: output = input + encoding; 0: the encoding alone */
    clattn_dtype dtype;            /* of input and output: default CLATTN_F32, or CLATTN_F16, CLATTN_BF16 */
} clattn_positions_desc;
CLATTN_API void clattn_positions_desc_init_sized(clattn_positions_desc *desc, size_t caller_size);
#define clattn_positions_desc_init(d) clattn_positions_desc_init_sized((d), sizeof *(d))

/* table: (P, E) in host memory, of any float type, for learned ones, else NULL; positions are 0..P-1: host positions
 * beyond it are an error, those in a cl_mem are clamped to it. Angles are exact to float precision at any position. */
CLATTN_API clattn_status clattn_positions_create(clattn_layer **out, clattn_context *context,
                                                 const clattn_positions_desc *desc, const clattn_tensor *table);

/* M_k with PE(p + k) = M_k PE(p) for every p: block diagonal, with blocks [[cos t, sin t], [-sin t, cos t]],
 * t = k / base^(2i/E). Writes (features, features) floats, dense. features even and >= 2, base > 1, |shift| <= 2^28.
 * Any thread. */
CLATTN_API clattn_status clattn_positions_shift(int64_t features, double base, int64_t shift, float *matrix);

/* ---- stacks of blocks -------------------------------------------------------------------------------------------- */

typedef enum clattn_norm_order {
    CLATTN_POST_NORM = 0, /* x = norm(x + sublayer(x)), as in the paper and in BERT */
    CLATTN_PRE_NORM = 1   /* x = x + sublayer(norm(x)) (norm_first in PyTorch) */
} clattn_norm_order;

/* Which blocks there are decides what the stack is:
 *   encoder_blocks only   an encoder on `input`
 *   decoder_blocks only   a decoder on `input`, with the encoder's result given as `memory`
 *   both                  an encoder-decoder: the encoder turns `memory` (the source) into what the decoder attends to
 * A single block is a stack of one. Everything runs as one plan with one arena. */
typedef struct clattn_stack_desc {
    size_t struct_size;
    int64_t batch, rows;                    /* B, L >= 0 */
    int64_t memory_rows;                    /* S >= 0, with decoder blocks */
    int64_t features;                       /* E >= 1, a multiple of heads */
    int64_t heads;                          /* H >= 1 */
    int64_t feed_forward;                   /* F >= 1 */
    int64_t encoder_blocks, decoder_blocks; /* >= 0, not both 0 */
    clattn_norm_order order;
    clattn_activation activation; /* of the feed-forward part; default RELU */
    float eps;                    /* > 0; default 1e-5 */
    clattn_causal causal;         /* self-attention on the input; NONE or TOP_LEFT. Decoders usually want TOP_LEFT. */
    clattn_mask_type mask;        /* of the same; with mask_shape as in clattn_mha_desc */
    int64_t mask_shape[4];
    int padding_mask; /* 1: the run gets (B, L) for the input */
    clattn_mask_type memory_mask;
    int64_t memory_mask_shape[4];
    int memory_padding_mask;         /* 1: the run gets (B, S) for the memory, used by the encoder on it as well */
    clattn_positions_kind positions; /* added to the input (and to the source of an encoder-decoder) */
    double position_base;            /* default 10000 */
    int positions_given;             /* 1: the run gives the input's positions; else 0, 1, 2, ... */
    int hidden;                   /* 1: the run writes the input of the first block and the output of every block that
                                        works on `input`: (1 + blocks, B, L, E), before the final norm */
    const char *attention_kernel; /* as clattn_attention_desc.kernel */
    const char *gemm_kernel;
    clattn_dtype dtype; /* of input, memory, output, hidden and every intermediate buffer: default CLATTN_F32, or
                              CLATTN_F16, CLATTN_BF16 */
    clattn_precision precision; /* of attention and products: default CLATTN_PRECISION_DEFAULT */
    size_t memory_limit;        /* as in clattn_mha_desc; parts of the batch go through all blocks one after the other,
                              and within a single sequence each block works on fewer rows or heads at a time */
} clattn_stack_desc;
CLATTN_API void clattn_stack_desc_init_sized(clattn_stack_desc *desc, size_t caller_size);
#define clattn_stack_desc_init(d) clattn_stack_desc_init_sized((d), sizeof *(d))

typedef struct clattn_stack_weights {
    const clattn_block_weights *encoder; /* encoder_blocks of them */
    const clattn_block_weights *decoder; /* decoder_blocks of them */
    clattn_tensor position_table;        /* (P, E) for CLATTN_POSITIONS_LEARNED; P >= L and S */
    clattn_norm_weights input_norm;      /* layer norm after the positions (BERT); only with weight or bias given */
    clattn_norm_weights encoder_norm;    /* layer norm behind the last encoder block; only when given */
    clattn_norm_weights decoder_norm;    /* behind the last decoder block; only when given */
} clattn_stack_weights;

CLATTN_API clattn_status clattn_stack_create(clattn_layer **out, clattn_context *context, const clattn_stack_desc *desc,
                                             const clattn_stack_weights *weights);

/* ---- the same in scalar double C, no device ---------------------------------------------------------------------- */

/* Host tensors only; any thread. tolerance: NULL, or dense floats in the shape of output: how far a correct float32
 * device may be from each element (docs/layers.md). */
CLATTN_API clattn_status clattn_reference_linear(const clattn_linear_desc *desc, const clattn_linear_weights *weights,
                                                 const clattn_layer_io *io, float *tolerance);
CLATTN_API clattn_status clattn_reference_norm(const clattn_norm_desc *desc, const clattn_norm_weights *weights,
                                               const clattn_layer_io *io, float *tolerance);
CLATTN_API clattn_status clattn_reference_activation(const clattn_activation_desc *desc, const clattn_layer_io *io,
                                                     float *tolerance);
CLATTN_API clattn_status clattn_reference_positions(const clattn_positions_desc *desc, const clattn_tensor *table,
                                                    const clattn_layer_io *io, float *tolerance);
CLATTN_API clattn_status clattn_reference_stack(const clattn_stack_desc *desc, const clattn_stack_weights *weights,
                                                const clattn_layer_io *io, float *tolerance);

#ifdef __cplusplus
}
#endif
#endif
