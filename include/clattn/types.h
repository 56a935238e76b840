/* Element types and tensor views, shared by every public header.
 *
 * Descriptions and options begin with struct_size, so that a program runs with a later library than the header it was
 * built with. Structs of one call's tensors (clattn_mha_io, ...) and those that the library fills in (clattn_plan_info,
 * clattn_device_info, ...) have none: their layout changes only together with the library's soversion. */
#ifndef CLATTN_TYPES_H
#define CLATTN_TYPES_H

#include <stddef.h>
#include <stdint.h>

#include "clattn/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CLATTN_MAX_RANK 4
#define CLATTN_MAX_HEAD_DIM 512 /* largest head_dim and value_dim */

typedef enum clattn_dtype {
    CLATTN_F32 = 0,
    CLATTN_F16 = 1,  /* IEEE binary16 */
    CLATTN_BF16 = 2, /* the upper half of a binary32 */
    CLATTN_BOOL = 3, /* one byte, 0 is false, anything else is true */
    CLATTN_I32 = 4,
    CLATTN_I64 = 5,
    CLATTN_I8 = 6 /* key/value caches only */
} clattn_dtype;

/* Which arithmetic a description allows, whatever its storage type is; docs/numerics.md has the error bounds. */
typedef enum clattn_precision {
    CLATTN_PRECISION_DEFAULT = 0, /* float32; with 16-bit storage also matrix engines, which round weights to 16 bits */
    CLATTN_PRECISION_STRICT = 1,  /* float32 throughout, and functions of documented accuracy: no matrix engines */
    CLATTN_PRECISION_FAST = 2     /* also the device's native functions of undocumented accuracy, as far as they prove
                                     to be good enough; with float32 storage never fewer than 32 bits either */
} clattn_precision;

/* Bytes of one element; 0 for an unknown value. Name: "float32", "bool", ...; "?" for an unknown value. */
CLATTN_API size_t clattn_dtype_size(clattn_dtype dtype);
CLATTN_API const char *clattn_dtype_name(clattn_dtype dtype);

/* A view of memory that somebody else owns. Exactly one of data and mem is set; both NULL means "absent".
 *   data     host memory, aligned to its elements
 *   mem      a cl_mem of the context in use (declared void * so that this header needs no OpenCL header)
 *   offset   first element, counted in elements from data or from the start of mem
 *   rank     1..CLATTN_MAX_RANK
 *   shape    extents, outermost first
 *   stride   in elements; the last one must be 1 when the last extent is > 1. All zero means dense (C order). */
typedef struct clattn_tensor {
    void *data;
    void *mem;
    int64_t offset;
    clattn_dtype dtype;
    int rank;
    int64_t shape[CLATTN_MAX_RANK];
    int64_t stride[CLATTN_MAX_RANK];
} clattn_tensor;

/* A dense view of host memory, rank taken from the number of extents given (0 ends the list only by rank):
 *   clattn_tensor q = clattn_host(p, CLATTN_F32, 4, B, H, S, D);   unused extents: pass 0 */
CLATTN_API clattn_tensor clattn_host(const void *data, clattn_dtype dtype, int rank, int64_t n0, int64_t n1, int64_t n2,
                                     int64_t n3);

typedef enum clattn_log_level {
    CLATTN_LOG_ERROR = 0,
    CLATTN_LOG_WARNING = 1, /* a kernel was refused or quarantined, a cache file was ignored */
    CLATTN_LOG_INFO = 2,
    CLATTN_LOG_DEBUG = 3 /* full build logs, every choice */
} clattn_log_level;

/* Called from the thread that makes the call in question; message has no line break at its end and is valid only during
 * the callback. Must not call clattn. */
typedef void (*clattn_log_fn)(void *user, clattn_log_level level, const char *message);

#ifdef __cplusplus
}
#endif
#endif
