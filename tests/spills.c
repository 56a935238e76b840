/* A GPU driver whose kernels spill. A program that asks for it gets this file's functions in place of the loader's. */
#define _GNU_SOURCE /* RTLD_NEXT */
#include "harness.h"
#include "ocl/ocl.h"

#include <dlfcn.h>

static int spilling = -1; /* kernels that will; -1: the driver speaks for itself */
static cl_ulong spilled;

void clattn_test_spills(int kernels, size_t bytes) {
    spilling = kernels;
    spilled = bytes;
}

cl_int clGetDeviceInfo(cl_device_id device, cl_device_info what, size_t size, void *value, size_t *needed) {
    typedef cl_int (*info_fn)(cl_device_id, cl_device_info, size_t, void *, size_t *);
    union {
        void *object;
        info_fn function;
    } real = {dlsym(RTLD_NEXT, "clGetDeviceInfo")};
    const cl_int code = real.function(device, what, size, value, needed);
    if (spilling >= 0 && code == CL_SUCCESS && what == CL_DEVICE_TYPE && value)
        *(cl_device_type *)value = CL_DEVICE_TYPE_GPU;
    return code;
}

cl_int clGetKernelWorkGroupInfo(cl_kernel kernel, cl_device_id device, cl_kernel_work_group_info what, size_t size,
                                void *value, size_t *needed) {
    typedef cl_int (*info_fn)(cl_kernel, cl_device_id, cl_kernel_work_group_info, size_t, void *, size_t *);
    union {
        void *object;
        info_fn function;
    } real = {dlsym(RTLD_NEXT, "clGetKernelWorkGroupInfo")};
    const cl_int code = real.function(kernel, device, what, size, value, needed);
    if (spilling >= 0 && code == CL_SUCCESS && what == CL_KERNEL_PRIVATE_MEM_SIZE && value) {
        *(cl_ulong *)value = spilling > 0 ? spilled : 0;
        spilling -= spilling > 0;
    }
    return code;
}
