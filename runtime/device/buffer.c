/* Device memory with its accounting, and host memory lent to the device for one run. */
#include "device/device.h"

static void account(clattn__env *env, size_t taken, size_t given) {
    clattn__mutex_lock(env->lock);
    env->memory_now = env->memory_now + taken - given;
    if (env->memory_now > env->memory_peak) env->memory_peak = env->memory_now;
    clattn__mutex_unlock(env->lock);
}

clattn_status clattn__buffer_create(clattn__env *env, size_t bytes, clattn__buffer *buffer) {
    const clattn__caps *caps = &env->device.caps;
    *buffer = (clattn__buffer){0};
    if (bytes == 0) bytes = 1; /* OpenCL refuses empty buffers */
    if (bytes > caps->max_allocation)
        return clattn__fail(
            CLATTN_OUT_OF_MEMORY,
            "a buffer of %zu bytes passes the device's limit of %llu bytes for one buffer (%s); a smaller "
            "batch or a memory limit may help",
            bytes, (unsigned long long)caps->max_allocation, caps->name);
    cl_int code;
    cl_mem mem = clCreateBuffer(env->context, CL_MEM_READ_WRITE, bytes, NULL, &code);
    if (!mem || code != CL_SUCCESS) {
        clattn_status status = clattn__cl_fail(code, "clCreateBuffer", caps->name);
        clattn__fail_note("; %zu bytes were asked for", bytes);
        return status;
    }
    *buffer = (clattn__buffer){mem, bytes};
    account(env, bytes, 0);
    return CLATTN_OK;
}

void clattn__buffer_clear(clattn__env *env, clattn__buffer *buffer) {
    if (!buffer->mem) return;
    clReleaseMemObject(buffer->mem);
    account(env, 0, buffer->bytes);
    *buffer = (clattn__buffer){0};
}

clattn_status clattn__buffer_write(clattn__env *env, cl_mem mem, size_t offset, size_t bytes, const void *data) {
    if (bytes == 0) return CLATTN_OK;
    cl_int code = clEnqueueWriteBuffer(env->queue, mem, CL_TRUE, offset, bytes, data, 0, NULL, NULL);
    return code == CL_SUCCESS ? CLATTN_OK : clattn__cl_fail(code, "clEnqueueWriteBuffer", env->device.caps.name);
}

clattn_status clattn__buffer_read(clattn__env *env, cl_mem mem, size_t offset, size_t bytes, void *data) {
    if (bytes == 0) return CLATTN_OK;
    cl_int code = clEnqueueReadBuffer(env->queue, mem, CL_TRUE, offset, bytes, data, 0, NULL, NULL);
    return code == CL_SUCCESS ? CLATTN_OK : clattn__cl_fail(code, "clEnqueueReadBuffer", env->device.caps.name);
}

clattn_status clattn__buffer_put(clattn__env *env, cl_mem mem, size_t offset, size_t bytes, const void *data) {
    const size_t step = env->device.caps.quirks & CLATTN__QUIRK_NARROW_FILLS ? 4 : CLATTN__PUT_BYTES;
    for (size_t at = 0; at < bytes; at += step) {
        cl_int code =
            clEnqueueFillBuffer(env->queue, mem, (const char *)data + at, step, offset + at, step, 0, NULL, NULL);
        if (code != CL_SUCCESS) return clattn__cl_fail(code, "clEnqueueFillBuffer", env->device.caps.name);
    }
    return CLATTN_OK;
}

/* Drivers of GPUs that share the host's memory use a caller's memory where it lies only from the start of a page and in
 * whole cache lines, and quietly copy anything else (Intel, "Getting the Most from OpenCL 1.2: How to Increase
 * Performance by Minimizing Buffer Copies on Intel Processor Graphics", 2014). CPU runtimes take it as it is: pocl 3.1
 * and Intel's write to memory at any multiple of 4 bytes before it is mapped (measured 2026-11-21). */
enum { PAGE_BYTES = 4096, LINE_BYTES = 64 };

bool clattn__loan_in_place(const clattn__caps *caps, const void *host, size_t bytes) {
    if (!caps->unified_memory || bytes == 0) return false;
    return caps->type == CLATTN_DEVICE_CPU || ((uintptr_t)host % PAGE_BYTES == 0 && bytes % LINE_BYTES == 0);
}

/* NULL when the driver will not have this memory; then it is copied, and no error is recorded. */
static cl_mem wrap(clattn__env *env, void *host, size_t bytes, bool output) {
    /* Outputs may also be read by kernels: a second head group adds to what the first one wrote. */
    cl_mem_flags flags = CL_MEM_USE_HOST_PTR | (output ? CL_MEM_READ_WRITE : CL_MEM_READ_ONLY);
    cl_int code;
    cl_mem mem = clCreateBuffer(env->context, flags, bytes, host, &code);
    return code == CL_SUCCESS ? mem : NULL;
}

clattn_status clattn__loan_begin(clattn__env *env, void *host, size_t bytes, bool output, clattn__buffer *staging,
                                 clattn__loan *loan) {
    *loan = (clattn__loan){.host = host, .bytes = bytes, .output = output};
    if (clattn__loan_in_place(&env->device.caps, host, bytes)) loan->mem = wrap(env, host, bytes, output);
    if (loan->mem) {
        loan->wrapped = true;
        return CLATTN_OK;
    }
    if (!staging->mem || staging->bytes < bytes) {
        clattn__buffer_clear(env, staging);
        clattn_status status = clattn__buffer_create(env, bytes, staging);
        if (status) return status;
    }
    loan->mem = staging->mem;
    if (bytes == 0) return CLATTN_OK;
    /* Outputs too: a strided view has bytes between its rows that no kernel writes, and they must survive the way
     * back. */
    cl_int code = clEnqueueWriteBuffer(env->queue, loan->mem, CL_FALSE, 0, bytes, host, 0, NULL, NULL);
    return code == CL_SUCCESS ? CLATTN_OK : clattn__cl_fail(code, "clEnqueueWriteBuffer", env->device.caps.name);
}

/* Mapping is the one way by which OpenCL promises that a kernel's writes are in memory under CL_MEM_USE_HOST_PTR. The
 * pointer is not used, so nobody has to wait between the two commands. */
static clattn_status sync_to_host(clattn__env *env, const clattn__loan *loan, cl_event *done) {
    const char *name = env->device.caps.name;
    cl_int code;
    void *mapped =
        clEnqueueMapBuffer(env->queue, loan->mem, CL_FALSE, CL_MAP_READ, 0, loan->bytes, 0, NULL, NULL, &code);
    if (code != CL_SUCCESS) return clattn__cl_fail(code, "clEnqueueMapBuffer", name);
    code = clEnqueueUnmapMemObject(env->queue, loan->mem, mapped, 0, NULL, done);
    return code == CL_SUCCESS ? CLATTN_OK : clattn__cl_fail(code, "clEnqueueUnmapMemObject", name);
}

clattn_status clattn__loan_return(clattn__env *env, const clattn__loan *loan, cl_event *last) {
    if (!loan->mem || !loan->output || loan->bytes == 0) return CLATTN_OK;
    cl_event done = NULL;
    clattn_status status = CLATTN_OK;
    if (loan->wrapped) {
        status = sync_to_host(env, loan, &done);
    } else {
        cl_int code = clEnqueueReadBuffer(env->queue, loan->mem, CL_FALSE, 0, loan->bytes, loan->host, 0, NULL, &done);
        if (code != CL_SUCCESS) status = clattn__cl_fail(code, "clEnqueueReadBuffer", env->device.caps.name);
    }
    if (status != CLATTN_OK) return status;
    if (*last) clReleaseEvent(*last);
    *last = done;
    return CLATTN_OK;
}

void clattn__loan_end(clattn__loan *loan) {
    if (loan->wrapped) clReleaseMemObject(loan->mem);
    *loan = (clattn__loan){0};
}
