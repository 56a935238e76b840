/* The rules of clattn/kv_cache.h. */
#ifndef CLATTN_API_CHECK_KV_CACHE_H
#define CLATTN_API_CHECK_KV_CACHE_H

#include "layers/layers.h"

clattn_status clattn__check_rope_desc(const clattn_rope_desc *in, clattn_rope_desc *resolved);
/* Strides are filled in; cosine and sine come back with rank 3: a table as (1, P, R/2). */
clattn_status clattn__check_rope_io(const clattn_rope_desc *resolved, const clattn_rope_io *io, clattn_rope_io *dense);

clattn_status clattn__check_kv_desc(const clattn_kv_cache_desc *in, clattn__kv_desc *resolved);
/* Keys, values and scales come back as (entries, heads, rows, width), whatever their layout. writes: the cache is an
 * output. */
clattn_status clattn__check_kv_memory(const clattn__kv_desc *desc, bool wanted, bool writes,
                                      const clattn_kv_memory *memory, clattn_kv_memory *dense);
/* The memory is not looked at. */
clattn_status clattn__check_kv_append(const clattn__kv_desc *desc, const clattn_kv_append_io *io,
                                      clattn_kv_append_io *dense);
clattn_status clattn__check_kv_attend(const clattn__kv_desc *desc, const clattn_kv_attend_io *io,
                                      clattn_kv_attend_io *dense);
/* lengths (B): tokens before `added` new ones come, or with the `rows` that ask. */
clattn_status clattn__check_kv_growth(const clattn__kv_desc *desc, const int32_t *lengths, int64_t added);
clattn_status clattn__check_kv_rows(const clattn__kv_desc *desc, const int32_t *lengths, int64_t rows);
/* The windows of an entry's last `rows` rows, and of the one that comes next, begin behind what its ring has lost. */
clattn_status clattn__check_kv_window(const clattn__kv_desc *desc, const int32_t *lost, int64_t entry, int64_t length,
                                      int64_t rows);
/* A host table has a page for each token before `added` more. */
clattn_status clattn__check_kv_table(const clattn__kv_desc *desc, const clattn_tensor *table, const int32_t *lengths,
                                     int64_t added);
/* Host lengths as int32 that fit the capacity. */
clattn_status clattn__check_kv_lengths(const clattn__kv_desc *desc, const clattn_tensor *tensor, int32_t *lengths);

#endif
