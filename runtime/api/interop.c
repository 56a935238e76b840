#include "clattn/interop.h"

clattn_tensor clattn_mem(cl_mem mem, clattn_dtype dtype, int rank, int64_t n0, int64_t n1, int64_t n2, int64_t n3) {
    clattn_tensor tensor = clattn_host(NULL, dtype, rank, n0, n1, n2, n3);
    tensor.mem = mem;
    return tensor;
}
