/* Rules for one value and for one tensor. Each failure text names the field, its value and the rule. */
#ifndef CLATTN_API_RULES_H
#define CLATTN_API_RULES_H

#include "base/base.h"

/* Runs a check and leaves the function on failure; every rule then stays one line. */
#define CLATTN__TRY(call)                                                                                              \
    do {                                                                                                               \
        clattn_status try_status = (call);                                                                             \
        if (try_status != CLATTN_OK) return try_status;                                                                \
    } while (0)

clattn_status clattn__check_extent(const char *field, int64_t value, int64_t low, int64_t high);
clattn_status clattn__check_choice(const char *field, int value, int last); /* 0..last */
clattn_status clattn__check_finite(const char *field, double value);
/* least: up to where the oldest version of the struct reached; ours: what this library knows. */
clattn_status clattn__check_struct_size(const char *type, size_t size, size_t least, size_t ours);
/* The product of the extents fits, with room for element sizes. */
clattn_status clattn__check_volume(const char *what, const int64_t *extents, int rank);

enum { CLATTN__ANY_LENGTHS = -1, CLATTN__ANY_FLOAT = -2 };

typedef struct clattn__tensor_rule {
    const char *name;
    bool wanted;
    bool output;
    int dtype; /* a clattn_dtype, or CLATTN__ANY_LENGTHS: int32, in host memory also int64; or CLATTN__ANY_FLOAT */
    int rank;
    int64_t shape[CLATTN_MAX_RANK];
} clattn__tensor_rule;

/* Presence, element type, rank, shape and strides; *out is *in with the strides filled in. */
clattn_status clattn__check_tensor(const clattn__tensor_rule *rule, const clattn_tensor *in, clattn_tensor *out);

/* All tensors of one call: each by its rule, and no output in the memory of another tensor, as far as first elements
 * and views without gaps tell. */
typedef struct clattn__tensor_row {
    clattn__tensor_rule rule;
    const clattn_tensor *in;
    clattn_tensor *out;
} clattn__tensor_row;
clattn_status clattn__check_tensors(const clattn__tensor_row *rows, size_t count);

/* Of the references: none of these tensors is a cl_mem. */
typedef struct clattn__named_tensor {
    const char *name;
    const clattn_tensor *tensor;
} clattn__named_tensor;
clattn_status clattn__check_on_host(const clattn__named_tensor *tensors, size_t count);

/* weights.c: float32 copies of weights of 16 bits, kept until the layer is made. Zeroed at first. */
typedef struct clattn__widened_copy clattn__widened_copy;
typedef struct clattn__widened {
    clattn__widened_copy *first;
} clattn__widened;
void clattn__widened_clear(clattn__widened *copies);
/* A weight in host memory, of rank 1 or 2; it may be absent unless it is wanted. *dense is float32, whatever it was. */
clattn_status clattn__check_weight(const char *name, bool wanted, int rank, int64_t n0, int64_t n1,
                                   const clattn_tensor *in, clattn_tensor *dense, clattn__widened *copies);

#endif
