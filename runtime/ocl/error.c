/* OpenCL's error codes by name, with what usually helps. */
#include "ocl/ocl.h"

typedef struct error_row {
    cl_int code;
    const char *name;
    const char *hint; /* NULL: the name says it all */
} error_row;

/* Codes by number, not by macro: old headers lack the newer ones. */
static const error_row rows[] = {
    {0, "CL_SUCCESS", NULL},
    {-1, "CL_DEVICE_NOT_FOUND", "the driver found no hardware that it serves"},
    {-2, "CL_DEVICE_NOT_AVAILABLE", "the device is there but in use or switched off"},
    {-3, "CL_COMPILER_NOT_AVAILABLE", "this driver cannot compile OpenCL C; install its compiler package"},
    {-4, "CL_MEM_OBJECT_ALLOCATION_FAILURE", "the device's memory is full; use a smaller batch or a memory limit"},
    {-5, "CL_OUT_OF_RESOURCES",
     "device memory, registers or local memory ran out, or a kernel crashed; smaller sizes may help"},
    {-6, "CL_OUT_OF_HOST_MEMORY", "the host's memory is full"},
    {-7, "CL_PROFILING_INFO_NOT_AVAILABLE", "the queue was made without profiling"},
    {-8, "CL_MEM_COPY_OVERLAP", NULL},
    {-9, "CL_IMAGE_FORMAT_MISMATCH", NULL},
    {-10, "CL_IMAGE_FORMAT_NOT_SUPPORTED", NULL},
    {-11, "CL_BUILD_PROGRAM_FAILURE", "the build log says why"},
    {-12, "CL_MAP_FAILURE", "the buffer could not be made visible to the host"},
    {-13, "CL_MISALIGNED_SUB_BUFFER_OFFSET", NULL},
    {-14, "CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST", "an earlier command failed"},
    {-15, "CL_COMPILE_PROGRAM_FAILURE", "the build log says why"},
    {-16, "CL_LINKER_NOT_AVAILABLE", NULL},
    {-17, "CL_LINK_PROGRAM_FAILURE", "the build log says why"},
    {-18, "CL_DEVICE_PARTITION_FAILED", NULL},
    {-19, "CL_KERNEL_ARG_INFO_NOT_AVAILABLE", NULL},
    {-30, "CL_INVALID_VALUE", NULL},
    {-31, "CL_INVALID_DEVICE_TYPE", NULL},
    {-32, "CL_INVALID_PLATFORM", NULL},
    {-33, "CL_INVALID_DEVICE", NULL},
    {-34, "CL_INVALID_CONTEXT", "the context is not one of this driver, or was released"},
    {-35, "CL_INVALID_QUEUE_PROPERTIES", "the device has no such queue; try without profiling"},
    {-36, "CL_INVALID_COMMAND_QUEUE", "the queue was released, or an earlier kernel crashed it"},
    {-37, "CL_INVALID_HOST_PTR", NULL},
    {-38, "CL_INVALID_MEM_OBJECT", "a buffer belongs to another context or was released"},
    {-39, "CL_INVALID_IMAGE_FORMAT_DESCRIPTOR", NULL},
    {-40, "CL_INVALID_IMAGE_SIZE", NULL},
    {-41, "CL_INVALID_SAMPLER", NULL},
    {-42, "CL_INVALID_BINARY", "the stored program is of another driver version or damaged; remove it"},
    {-43, "CL_INVALID_BUILD_OPTIONS", NULL},
    {-44, "CL_INVALID_PROGRAM", NULL},
    {-45, "CL_INVALID_PROGRAM_EXECUTABLE", "the program was not built for this device"},
    {-46, "CL_INVALID_KERNEL_NAME", NULL},
    {-47, "CL_INVALID_KERNEL_DEFINITION", NULL},
    {-48, "CL_INVALID_KERNEL", NULL},
    {-49, "CL_INVALID_ARG_INDEX", NULL},
    {-50, "CL_INVALID_ARG_VALUE", NULL},
    {-51, "CL_INVALID_ARG_SIZE", "host and device disagree about the size of a kernel argument"},
    {-52, "CL_INVALID_KERNEL_ARGS", "a kernel argument was not set"},
    {-53, "CL_INVALID_WORK_DIMENSION", NULL},
    {-54, "CL_INVALID_WORK_GROUP_SIZE", "the work-group is too large for this kernel on this device"},
    {-55, "CL_INVALID_WORK_ITEM_SIZE", "the work-group is too large in one dimension for this device"},
    {-56, "CL_INVALID_GLOBAL_OFFSET", NULL},
    {-57, "CL_INVALID_EVENT_WAIT_LIST", "an event of the wait list is of another context or was released"},
    {-58, "CL_INVALID_EVENT", NULL},
    {-59, "CL_INVALID_OPERATION", NULL},
    {-60, "CL_INVALID_GL_OBJECT", NULL},
    {-61, "CL_INVALID_BUFFER_SIZE", "a buffer is larger than the device allows"},
    {-62, "CL_INVALID_MIP_LEVEL", NULL},
    {-63, "CL_INVALID_GLOBAL_WORK_SIZE", NULL},
    {-64, "CL_INVALID_PROPERTY", NULL},
    {-65, "CL_INVALID_IMAGE_DESCRIPTOR", NULL},
    {-66, "CL_INVALID_COMPILER_OPTIONS", NULL},
    {-67, "CL_INVALID_LINKER_OPTIONS", NULL},
    {-68, "CL_INVALID_DEVICE_PARTITION_COUNT", NULL},
    {-69, "CL_INVALID_PIPE_SIZE", NULL},
    {-70, "CL_INVALID_DEVICE_QUEUE", NULL},
    {-71, "CL_INVALID_SPEC_ID", NULL},
    {-72, "CL_MAX_SIZE_RESTRICTION_EXCEEDED", NULL},
    {-1001, "CL_PLATFORM_NOT_FOUND_KHR", "no OpenCL driver is installed, for example pocl-opencl-icd"},
    {-9999, "NVIDIA_ILLEGAL_ACCESS", "a kernel read or wrote outside its buffers"},
};

static const error_row *find(cl_int code) {
    for (size_t i = 0; i < CLATTN__COUNT(rows); i++) {
        if (rows[i].code == code) return &rows[i];
    }
    return NULL;
}

const char *clattn__cl_error_name(cl_int code) {
    const error_row *row = find(code);
    return row ? row->name : "unknown OpenCL error";
}

clattn_status clattn__cl_fail(cl_int code, const char *call, const char *device) {
    const error_row *row = find(code);
    const char *hint = row ? row->hint : NULL;
    bool memory = code == CL_MEM_OBJECT_ALLOCATION_FAILURE || code == CL_OUT_OF_HOST_MEMORY;
    return clattn__fail(memory ? CLATTN_OUT_OF_MEMORY : CLATTN_DEVICE_FAILED, "%s failed with %s (%d)%s%s%s%s", call,
                        clattn__cl_error_name(code), (int)code, device ? " on " : "", device ? device : "",
                        hint ? ": " : "", hint ? hint : "");
}
