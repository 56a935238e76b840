/* The specification: the same descriptions in scalar double-precision C, no OpenCL, no device, no context.
 * Slow on purpose. Host tensors only. Any thread. */
#ifndef CLATTN_REFERENCE_H
#define CLATTN_REFERENCE_H

#include "clattn/attention.h"
#include "clattn/mha.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Writes every output that the description asks for, accumulated in double, rounded once. tolerance: NULL, or host
 * float, dense in the shape of the output, receives for each output element how far a correct float32 device may be
 * from it (docs/numerics.md derives it). Some kernels for matrix engines also round weights to 16 bits: where
 * desc->kernel names such a one, alone or in a list as clattn_plan_info.kernels is, the tolerance allows for that. */
CLATTN_API clattn_status clattn_reference_attention(const clattn_attention_desc *desc, const clattn_attention_io *io,
                                                    float *tolerance);

/* Likewise for the layer, by desc->attention_kernel; tolerance: NULL, or host float (B, L, E) dense. */
CLATTN_API clattn_status clattn_reference_mha(const clattn_mha_desc *desc, const clattn_mha_weights *weights,
                                              const clattn_mha_io *io, float *tolerance);

#ifdef __cplusplus
}
#endif
#endif
