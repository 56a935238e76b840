/* The public reference with a tolerance for every output, for tests and verification inside the project. */
#ifndef CLATTN_API_REFERENCE_H
#define CLATTN_API_REFERENCE_H

#include <stdbool.h>

#include "clattn/kv_cache.h"
#include "clattn/reference.h"

/* How far a correct float32 device may be from each output. Each NULL, or dense floats in the output's shape. */
typedef struct clattn__tolerances {
    float *output, *logsumexp, *weights, *scores;
} clattn__tolerances;

/* What the kernels that a description names round weights to before they meet the values; float32: nothing. */
clattn_dtype clattn__weight_dtype(clattn_dtype dtype, const char *kernels);

clattn_status clattn__reference_attention(const clattn_attention_desc *desc, const clattn_attention_io *io,
                                          const clattn__tolerances *tolerances);
/* reference_past.c: io->key and io->value become those of all tokens: io's present ones, or memory in `owned`, which
 * the caller frees whatever the status is. Host tensors, checked. */
clattn_status clattn__reference_join_past(const clattn_attention_desc *desc, clattn_attention_io *io, void *owned[2]);
/* kv_reference.c. turned: the keys that a rope turned may be off as those are that a device turned and stored, although
 * io->memory holds the reference's. Output and logsumexp are looked at. */
clattn_status clattn__reference_kv_attend(const clattn_kv_cache_desc *desc, const clattn_kv_attend_io *io, bool turned,
                                          const clattn__tolerances *tolerances);
/* Here only output and weights are looked at. */
clattn_status clattn__reference_mha(const clattn_mha_desc *desc, const clattn_mha_weights *weights,
                                    const clattn_mha_io *io, const clattn__tolerances *tolerances);

#endif
