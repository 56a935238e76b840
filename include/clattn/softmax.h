/* Softmax along one axis, its gradient, and the cross-entropy loss with its gradient.
 *
 *   forward        p_j = exp(x_j / t) / sum_k exp(x_k / t)                 over the allowed j; 0 elsewhere
 *   backward       grad_x_j = p_j * (g_j - sum_k g_k p_k) / t
 *   cross entropy  loss = -log p_label,  grad_x_j = (p_j - [j = label]) / t
 *
 * Source: ONNX Softmax and SoftmaxCrossEntropyLoss; torch.nn.functional.softmax and cross_entropy without reduction.
 * t is the temperature: towards 0 the greatest x takes all, towards infinity all become equal. The greatest allowed x
 * of a row is taken off first, so that no exponential overflows. A row without any allowed element gives p = 0 and
 * grad_x = 0; only the mask decides that, not the values: NaN and infinity in allowed elements propagate as IEEE says,
 * those in forbidden elements have no effect. There is no choice of precision: whatever is computed is float32, within
 * the tolerances that the reference gives, and memory sets the time. */
#ifndef CLATTN_SOFTMAX_H
#define CLATTN_SOFTMAX_H

#include "clattn/attention.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum clattn_softmax_kind {
    CLATTN_SOFTMAX_FORWARD = 0,      /* x -> probability */
    CLATTN_SOFTMAX_BACKWARD = 1,     /* probability, grad_output -> grad_x */
    CLATTN_SOFTMAX_CROSS_ENTROPY = 2 /* x, labels -> loss, on request probability and grad_x */
} clattn_softmax_kind;

typedef struct clattn_softmax_desc {
    size_t struct_size; /* set by clattn_softmax_desc_init */
    clattn_softmax_kind kind;
    int rank;                            /* 1..CLATTN_MAX_RANK */
    int64_t shape[CLATTN_MAX_RANK];      /* of x, each >= 0; a product of 0 is a success that writes nothing */
    int axis;                            /* -rank..rank-1, default -1: the last */
    float temperature;                   /* t >= 1.1754944e-38 (FLT_MIN), finite, default 1 */
    int mask;                            /* 1: the run gets a bool mask, true = allowed */
    int64_t mask_shape[CLATTN_MAX_RANK]; /* rank extents, each that of shape or 1 (broadcast); all 0 means shape */
    int probability;                     /* CROSS_ENTROPY: 1 also writes probability */
    int gradient;                        /* CROSS_ENTROPY: 1 also writes grad_x */
    clattn_dtype dtype; /* of x, probability, grad_output, grad_x: default CLATTN_F32, or CLATTN_F16, CLATTN_BF16 */
} clattn_softmax_desc;

CLATTN_API void clattn_softmax_desc_init_sized(clattn_softmax_desc *desc, size_t caller_size);
#define clattn_softmax_desc_init(d) clattn_softmax_desc_init_sized((d), sizeof *(d))

/* What one run reads and writes; absent tensors stay zeroed. "shape" is that of the description; "kept" is the same
 * with extent 1 along the axis. Host pointers and cl_mem views may be mixed; any strides with a contiguous last axis.
 * Outputs are overwritten and never read; inputs and outputs must not overlap. */
typedef struct clattn_softmax_io {
    clattn_tensor x;           /* FORWARD, CROSS_ENTROPY: shape, dtype */
    clattn_tensor mask;        /* mask_shape, bool */
    clattn_tensor grad_output; /* BACKWARD: shape, dtype: gradient that enters for probability */
    clattn_tensor labels;      /* CROSS_ENTROPY: kept, int32: index along the axis; negative: the row is ignored, its
                                  loss and gradient are 0. Labels beyond the axis are an error in host memory; in a
                                  cl_mem they are ignored like negative ones. The loss of a forbidden label is +inf. */
    clattn_tensor probability; /* FORWARD: output; BACKWARD: input; CROSS_ENTROPY: output on request; shape, dtype */
    clattn_tensor loss;        /* CROSS_ENTROPY: output: kept, float32 */
    clattn_tensor grad_x; /* BACKWARD: output; CROSS_ENTROPY: on request: the gradient of the row's own loss; dtype */
} clattn_softmax_io;

/* Thread rules, ownership and errors as for clattn_attention. */
typedef struct clattn_softmax clattn_softmax;
CLATTN_API clattn_status clattn_softmax_create(clattn_softmax **out, clattn_context *context,
                                               const clattn_softmax_desc *desc);
CLATTN_API clattn_status clattn_softmax_run(clattn_softmax *plan, const clattn_softmax_io *io);
CLATTN_API void clattn_softmax_destroy(clattn_softmax **plan);
CLATTN_API const char *clattn_softmax_explain(const clattn_softmax *plan);
CLATTN_API clattn_status clattn_softmax_info(const clattn_softmax *plan, clattn_plan_info *info);

/* How far a correct device that computes in float32 may be from each output of the reference. Each NULL, or dense host
 * floats in the shape of that output. */
typedef struct clattn_softmax_tolerance {
    float *probability, *loss, *grad_x;
} clattn_softmax_tolerance;

/* The specification: scalar double on host tensors, no device. tolerance may be NULL. Any thread. */
CLATTN_API clattn_status clattn_reference_softmax(const clattn_softmax_desc *desc, const clattn_softmax_io *io,
                                                  const clattn_softmax_tolerance *tolerance);

#ifdef __cplusplus
}
#endif
#endif
