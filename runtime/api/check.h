/* Every argument and shape rule of the library. Each function copies what it accepts, with defaults resolved, so that
 * nothing below it has to ask again; what it rejects is named with field, value and rule. */
#ifndef CLATTN_CHECK_H
#define CLATTN_CHECK_H

#include "api/rules.h"
#include "clattn/mha.h"
#include "clattn/softmax.h"

/* Largest extent of any axis: index arithmetic in kernels then fits 32 bits with room for offsets and windows. */
#define CLATTN__MAX_EXTENT ((int64_t)1 << 28)

/* kv_heads, value_dim, scale (has_scale becomes 1) and mask_shape are filled in. */
clattn_status clattn__check_attention_desc(const clattn_attention_desc *in, clattn_attention_desc *resolved);
/* Presence, dtype, rank, shape and strides of every tensor; strides are filled in. Lengths, prefixes and starts in host
 * memory are checked value by value. Packed tensors (T, H, D) come back as views (1, H, T, D), their logsumexp as
 * (1, Hq, Tq). */
clattn_status clattn__check_attention_io(const clattn_attention_desc *resolved, const clattn_attention_io *io,
                                         clattn_attention_io *dense);

clattn_status clattn__check_mha_desc(const clattn_mha_desc *in, clattn_mha_desc *resolved);
/* in_proj_weight and in_proj_bias are split into their three parts, so that only the separate ones remain; all come
 * back in float32. copies is the caller's to clear, after a failure too. */
clattn_status clattn__check_mha_weights(const clattn_mha_desc *resolved, const clattn_mha_weights *in,
                                        clattn_mha_weights *separate, clattn__widened *copies);
/* appended_keys: clattn__mha_appended_keys; they count in the last extent of the weights. */
clattn_status clattn__check_mha_io(const clattn_mha_desc *resolved, int64_t appended_keys, const clattn_mha_io *io,
                                   clattn_mha_io *dense);

/* Keys appended behind the projected ones: bias_k/bias_v and the zero key. */
int64_t clattn__mha_appended_keys(const clattn_mha_desc *desc, const clattn_mha_weights *weights);

/* check_softmax.c: axis becomes 0..rank-1, mask_shape is filled in. */
clattn_status clattn__check_softmax_desc(const clattn_softmax_desc *in, clattn_softmax_desc *resolved);
/* The same with extents of 1 in front, up to rank 4. */
clattn_softmax_desc clattn__softmax_padded(const clattn_softmax_desc *resolved);
/* The tensors come back with rank 4. */
clattn_status clattn__check_softmax_io(const clattn_softmax_desc *resolved, const clattn_softmax_io *io,
                                       clattn_softmax_io *padded);

#endif
