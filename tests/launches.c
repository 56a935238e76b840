/* Counts launches on their way to the driver, or stops one. A program that asks for the number gets this file's
 * clEnqueueNDRangeKernel in place of the loader's. */
#define _GNU_SOURCE /* RTLD_NEXT */
#include "harness.h"
#include "ocl/ocl.h"

#include <dlfcn.h>

static int launches;
static bool fail_next;

int clattn_test_launches(void) {
    const int count = launches;
    launches = 0;
    return count;
}

void clattn_test_fail_launch(void) { fail_next = true; }

cl_int clEnqueueNDRangeKernel(cl_command_queue queue, cl_kernel kernel, cl_uint dims, const size_t *offset,
                              const size_t *global, const size_t *local, cl_uint waits, const cl_event *wait_list,
                              cl_event *event) {
    typedef cl_int (*enqueue_fn)(cl_command_queue, cl_kernel, cl_uint, const size_t *, const size_t *, const size_t *,
                                 cl_uint, const cl_event *, cl_event *);
    union {
        void *object;
        enqueue_fn function;
    } real = {dlsym(RTLD_NEXT, "clEnqueueNDRangeKernel")};
    launches++;
    if (fail_next) return fail_next = false, CL_OUT_OF_RESOURCES;
    return real.function(queue, kernel, dims, offset, global, local, waits, wait_list, event);
}
