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

/* The part of the grid that begins at `from`. */
static clattn_status enqueue_part(clattn__env *env, const clattn__launch *launch, const size_t from[3],
                                  const size_t global[3], bool fixed_group) {
    cl_int code = clEnqueueNDRangeKernel(env->queue, launch->kernel, launch->dims, from[1] || from[2] ? from : NULL,
                                         global, fixed_group ? launch->local : NULL, 0, NULL, NULL);
    if (code == CL_SUCCESS) return CLATTN_OK;
    char name[64], call[192];
    kernel_name(launch->kernel, name);
    snprintf(call, sizeof call, "clEnqueueNDRangeKernel (%s, %u dimensions, %zux%zux%zu in groups of %zux%zux%zu)",
             name, (unsigned)launch->dims, global[0], global[1], global[2], launch->local[0], launch->local[1],
             launch->local[2]);
    return clattn__cl_fail(code, call, env->device.caps.name);
}

/* CUDA's grids hold so many groups in their second and third dimension. */
enum { MOST_GROUPS = 65535 };

clattn_status clattn__launch_enqueue(clattn__env *env, const clattn__launch *launch) {
    const bool short_grids = env->device.caps.quirks & CLATTN__QUIRK_SHORT_GRIDS;
    bool fixed_group = false;
    size_t global[3] = {1, 1, 1}, most[3] = {SIZE_MAX, SIZE_MAX, SIZE_MAX};
    for (cl_uint i = 0; i < launch->dims; i++) {
        if (launch->global[i] == 0) return CLATTN_OK;
        fixed_group = fixed_group || launch->local[i] != 0;
        global[i] = launch->global[i];
        if (short_grids && i > 0) most[i] = MOST_GROUPS * (launch->local[i] ? launch->local[i] : 1);
    }
    size_t from[3] = {0}, part[3] = {global[0]}, left[3];
    for (left[2] = global[2]; left[2] > 0; left[2] -= part[2], from[2] += part[2]) {
        part[2] = left[2] < most[2] ? left[2] : most[2];
        from[1] = 0;
        for (left[1] = global[1]; left[1] > 0; left[1] -= part[1], from[1] += part[1]) {
            part[1] = left[1] < most[1] ? left[1] : most[1];
            clattn_status status = enqueue_part(env, launch, from, part, fixed_group);
            if (status != CLATTN_OK) return status;
        }
    }
    return CLATTN_OK;
}
