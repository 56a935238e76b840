/* Counts the bytes that commands copy between host and device, and those of the widest pattern that a buffer is filled
 * with. A program that asks for a number gets this file's functions in place of the loader's. */
#define _GNU_SOURCE /* RTLD_NEXT */
#include "harness.h"
#include "ocl/ocl.h"

#include <dlfcn.h>

static size_t transferred, widest_fill;

size_t clattn_test_transferred(void) {
    const size_t bytes = transferred;
    transferred = 0;
    return bytes;
}

cl_int clEnqueueWriteBuffer(cl_command_queue queue, cl_mem mem, cl_bool blocking, size_t offset, size_t bytes,
                            const void *data, cl_uint waits, const cl_event *wait_list, cl_event *event) {
    typedef cl_int (*write_fn)(cl_command_queue, cl_mem, cl_bool, size_t, size_t, const void *, cl_uint,
                               const cl_event *, cl_event *);
    union {
        void *object;
        write_fn function;
    } real = {dlsym(RTLD_NEXT, "clEnqueueWriteBuffer")};
    transferred += bytes;
    return real.function(queue, mem, blocking, offset, bytes, data, waits, wait_list, event);
}

cl_int clEnqueueReadBuffer(cl_command_queue queue, cl_mem mem, cl_bool blocking, size_t offset, size_t bytes,
                           void *data, cl_uint waits, const cl_event *wait_list, cl_event *event) {
    typedef cl_int (*read_fn)(cl_command_queue, cl_mem, cl_bool, size_t, size_t, void *, cl_uint, const cl_event *,
                              cl_event *);
    union {
        void *object;
        read_fn function;
    } real = {dlsym(RTLD_NEXT, "clEnqueueReadBuffer")};
    transferred += bytes;
    return real.function(queue, mem, blocking, offset, bytes, data, waits, wait_list, event);
}

size_t clattn_test_widest_fill(void) {
    const size_t bytes = widest_fill;
    widest_fill = 0;
    return bytes;
}

cl_int clEnqueueFillBuffer(cl_command_queue queue, cl_mem mem, const void *pattern, size_t pattern_bytes, size_t offset,
                           size_t bytes, cl_uint waits, const cl_event *wait_list, cl_event *event) {
    typedef cl_int (*fill_fn)(cl_command_queue, cl_mem, const void *, size_t, size_t, size_t, cl_uint, const cl_event *,
                              cl_event *);
    union {
        void *object;
        fill_fn function;
    } real = {dlsym(RTLD_NEXT, "clEnqueueFillBuffer")};
    if (pattern_bytes > widest_fill) widest_fill = pattern_bytes;
    return real.function(queue, mem, pattern, pattern_bytes, offset, bytes, waits, wait_list, event);
}
