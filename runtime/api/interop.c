#include "clattn/interop.h"

#include "registry/registry.h"

clattn_status clattn_context_objects(const clattn_context *context, cl_context *cl, cl_device_id *device,
                                     cl_command_queue *queue) {
    if (!context) return clattn__fail(CLATTN_INVALID_ARGUMENT, "context is NULL");
    if (cl) *cl = context->env.context;
    if (device) *device = context->env.device.id;
    if (queue) *queue = context->env.queue;
    return CLATTN_OK;
}

clattn_tensor clattn_mem(cl_mem mem, clattn_dtype dtype, int rank, int64_t n0, int64_t n1, int64_t n2, int64_t n3) {
    clattn_tensor tensor = clattn_host(NULL, dtype, rank, n0, n1, n2, n3);
    tensor.mem = mem;
    return tensor;
}
