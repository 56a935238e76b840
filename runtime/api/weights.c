/* Weights: what a layer's description may bring in host memory, and float32 copies of those that have 16 bits. */
#include "api/rules.h"

/* One copy, in a list of all. */
struct clattn__widened_copy {
    clattn__widened_copy *next;
    float *values;
};

static float *new_copy(clattn__widened *copies, int64_t count) {
    clattn__widened_copy *copy = clattn__alloc(1, sizeof *copy);
    if (!copy) return NULL;
    copy->values = clattn__alloc((size_t)count, sizeof *copy->values);
    copy->next = copies->first;
    copies->first = copy;
    return copy->values;
}

void clattn__widened_clear(clattn__widened *copies) {
    while (copies->first) {
        clattn__widened_copy *copy = copies->first;
        copies->first = copy->next;
        clattn__free(copy->values);
        clattn__free(copy);
    }
}

/* A view with strides filled in becomes a dense float32 one, of rank 1 or 2. */
static clattn_status widen(clattn_tensor *tensor, clattn__widened *copies) {
    const uint16_t *from = (const uint16_t *)tensor->data + tensor->offset;
    const int64_t rows = tensor->rank == 2 ? tensor->shape[0] : 1, columns = tensor->shape[tensor->rank - 1];
    const int64_t row = tensor->rank == 2 ? tensor->stride[0] : 0;
    float *to = new_copy(copies, rows * columns);
    if (!to) return CLATTN_OUT_OF_MEMORY;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) {
            const uint16_t bits = from[r * row + c];
            to[r * columns + c] =
                tensor->dtype == CLATTN_F16 ? clattn__half_to_float(bits) : clattn__bf16_to_float(bits);
        }
    tensor->data = to;
    tensor->offset = 0;
    tensor->dtype = CLATTN_F32;
    if (tensor->rank == 2) tensor->stride[0] = columns;
    tensor->stride[tensor->rank - 1] = 1;
    return CLATTN_OK;
}

clattn_status clattn__check_weight(const char *name, bool wanted, int rank, int64_t n0, int64_t n1,
                                   const clattn_tensor *in, clattn_tensor *dense, clattn__widened *copies) {
    if (in->mem) return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is a cl_mem; weights are given in host memory", name);
    if (!in->data && wanted) return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is missing", name);
    const clattn__tensor_rule rule = {
        .name = name, .wanted = in->data != NULL, .dtype = CLATTN__ANY_FLOAT, .rank = rank, .shape = {n0, n1}};
    CLATTN__TRY(clattn__check_tensor(&rule, in, dense));
    return dense->data && dense->dtype != CLATTN_F32 ? widen(dense, copies) : CLATTN_OK;
}
