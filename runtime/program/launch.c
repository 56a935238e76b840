/* Arguments and launches; every failure names the kernel. */
#include <stdio.h>

#include "program/program.h"

static void kernel_name(cl_kernel kernel, char name[64]) {
    if (clGetKernelInfo(kernel, CL_KERNEL_FUNCTION_NAME, 64, name, NULL) != CL_SUCCESS)
        snprintf(name, 64, "unnamed kernel");
}

clattn_status clattn__arg(clattn__env *env, cl_kernel kernel, cl_uint slot, size_t bytes, const void *value) {
    cl_int code = clSetKernelArg(kernel, slot, bytes, value);
    if (code == CL_SUCCESS) return CLATTN_OK;
    char name[64], call[128];
    kernel_name(kernel, name);
    snprintf(call, sizeof call, "clSetKernelArg (%s, slot %u, %zu bytes)", name, (unsigned)slot, bytes);
    return clattn__cl_fail(code, call, env->device.caps.name);
}

clattn_status clattn__arg_mem(clattn__env *env, cl_kernel kernel, cl_uint slot, cl_mem mem) {
    return clattn__arg(env, kernel, slot, sizeof mem, &mem);
}

clattn_status clattn__launch_enqueue(clattn__env *env, const clattn__launch *launch) {
    bool fixed_group = false;
    for (cl_uint i = 0; i < launch->dims; i++) {
        if (launch->global[i] == 0) return CLATTN_OK;
        fixed_group = fixed_group || launch->local[i] != 0;
    }
    cl_int code = clEnqueueNDRangeKernel(env->queue, launch->kernel, launch->dims, NULL, launch->global,
                                         fixed_group ? launch->local : NULL, 0, NULL, NULL);
    if (code == CL_SUCCESS) return CLATTN_OK;
    char name[64], call[192];
    kernel_name(launch->kernel, name);
    snprintf(call, sizeof call, "clEnqueueNDRangeKernel (%s, %u dimensions, %zux%zux%zu in groups of %zux%zux%zu)",
             name, (unsigned)launch->dims, launch->global[0], launch->global[1], launch->global[2], launch->local[0],
             launch->local[1], launch->local[2]);
    return clattn__cl_fail(code, call, env->device.caps.name);
}
