/* Keys and values of earlier calls in front of the new ones, for the reference of attention. */
#include "api/reference.h"

#include <string.h>

#include "api/rules.h"

/* (B, Hkv, T, width) dense: row r is row r of the past, or row r - P of the new tokens. */
static void join(const clattn_tensor *past, const clattn_tensor *fresh, const clattn_tensor *whole) {
    const size_t unit = clattn_dtype_size(whole->dtype);
    const int64_t P = past->data ? past->shape[2] : 0;
    for (int64_t b = 0; b < whole->shape[0]; b++)
        for (int64_t h = 0; h < whole->shape[1]; h++)
            for (int64_t r = 0; r < whole->shape[2]; r++) {
                const clattn_tensor *from = r < P ? past : fresh;
                const int64_t row = r < P ? r : r - P;
                const int64_t source = from->offset + b * from->stride[0] + h * from->stride[1] + row * from->stride[2];
                const int64_t target =
                    whole->offset + b * whole->stride[0] + h * whole->stride[1] + r * whole->stride[2];
                memcpy((char *)whole->data + (size_t)target * unit, (const char *)from->data + (size_t)source * unit,
                       (size_t)whole->shape[3] * unit);
            }
}

/* The caller's tensor, or memory that *owned keeps. */
static clattn_status place_of(const clattn_attention_desc *d, const clattn_tensor *present, int64_t width,
                              clattn_tensor *whole, void **owned) {
    *whole = *present;
    if (d->present) return CLATTN_OK;
    const int64_t T = d->kv_len, extents[4] = {d->batch, d->kv_heads, T, width};
    size_t bytes;
    if (!clattn__volume(extents, 4, clattn_dtype_size(d->dtype), &bytes)) return CLATTN_OUT_OF_MEMORY;
    *owned = clattn__alloc(bytes + 1, 1);
    if (!*owned) return CLATTN_OUT_OF_MEMORY;
    *whole = clattn_host(*owned, d->dtype, 4, d->batch, d->kv_heads, T, width);
    const int64_t stride[4] = {d->kv_heads * T * width, T * width, width, 1};
    memcpy(whole->stride, stride, sizeof stride);
    return CLATTN_OK;
}

clattn_status clattn__reference_join_past(const clattn_attention_desc *d, clattn_attention_io *io, void *owned[2]) {
    clattn_tensor key, value;
    owned[0] = owned[1] = NULL;
    if (d->past_len == 0 && !d->present) return CLATTN_OK;
    CLATTN__TRY(place_of(d, &io->present_key, d->head_dim, &key, &owned[0]));
    CLATTN__TRY(place_of(d, &io->present_value, d->value_dim, &value, &owned[1]));
    join(&io->past_key, &io->key, &key);
    join(&io->past_value, &io->value, &value);
    io->key = key;
    io->value = value;
    return CLATTN_OK;
}
