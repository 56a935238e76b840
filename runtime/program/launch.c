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
    cl_int code =
        clEnqueueNDRangeKernel(env->queue, launch->kernel, launch->dims, from[0] || from[1] || from[2] ? from : NULL,
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

/* The next part of the grid behind the one at `from`; false behind the last. */
static bool next_part(size_t from[3], const size_t part[3], const size_t global[3]) {
    for (int i = 0; i < 3; i++) {
        from[i] += part[i];
        if (from[i] < global[i]) return true;
        from[i] = 0;
    }
    return false;
}

clattn_status clattn__launch_enqueue(clattn__env *env, const clattn__launch *launch) {
    const bool short_grids = env->device.caps.quirks & CLATTN__QUIRK_SHORT_GRIDS;
    bool fixed_group = false;
    size_t global[3] = {1, 1, 1}, most[3] = {SIZE_MAX, SIZE_MAX, SIZE_MAX}, from[3] = {0}, part[3];
    for (cl_uint i = 0; i < launch->dims; i++) {
        if (launch->global[i] == 0) return CLATTN_OK;
        fixed_group = fixed_group || launch->local[i] != 0;
        global[i] = launch->global[i];
        if (launch->most[i]) most[i] = launch->most[i];
        const size_t grid = MOST_GROUPS * (launch->local[i] ? launch->local[i] : 1);
        if (short_grids && i > 0 && grid < most[i]) most[i] = grid;
    }
    clattn_status status;
    do {
        for (int i = 0; i < 3; i++) part[i] = global[i] - from[i] < most[i] ? global[i] - from[i] : most[i];
        status = enqueue_part(env, launch, from, part, fixed_group);
    } while (status == CLATTN_OK && next_part(from, part, global));
    return status;
}
