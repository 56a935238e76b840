/* An OpenCL driver for one NVIDIA card whose machine has CUDA's driver library but no OpenCL: what clattn needs of
 * OpenCL 1.2, on the driver API. It compiles nothing. Programs are PTX that tools/card_ptx.py made of the sources that
 * `clattn kernels --sources` lists, KEY.ptx in the folder $CLATTN_CARD_PTX, where KEY is clattn's own fingerprint of
 * options and source; a program that is not there is refused, and its source is put into $CLATTN_CARD_MISSING for the
 * next time. For tests on the card; clattn itself knows nothing of it.
 *
 *     clattn -> OpenCL's loader -> libclattn_card.so -> libcuda.so.1 -> card
 */
#ifndef CLATTN_CARD_H
#define CLATTN_CARD_H

#define CL_TARGET_OPENCL_VERSION 120
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include <CL/cl_icd.h>

#include <stdatomic.h>
#include <string.h>

#include "cuda.h"

enum { CARD_ILLEGAL_ACCESS = -9999 }; /* as NVIDIA's own OpenCL calls it */
enum { CARD_PARAMS = 64 };

/* ---- objects: the loader wants the table of functions first ------------------------------------------------------ */

#define CARD_OBJECT                                                                                                    \
    const cl_icd_dispatch *dispatch;                                                                                   \
    atomic_int references

struct _cl_platform_id {
    CARD_OBJECT;
};
struct _cl_device_id {
    CARD_OBJECT;
    CUdevice device;
    CUcontext context; /* the device's own, held to the end of the process */
};
struct _cl_context {
    CARD_OBJECT;
};
struct _cl_command_queue {
    CARD_OBJECT;
    cl_context context;
    cl_command_queue_properties properties;
    CUstream stream;
};
typedef struct card_mapping {
    struct card_mapping *next;
    void *host;
    size_t offset, bytes;
    bool writes;
} card_mapping;
struct _cl_mem {
    CARD_OBJECT;
    cl_context context;
    cl_mem_flags flags;
    size_t bytes;
    CUdeviceptr memory;
    card_mapping *mappings;
    cl_mem next; /* of all that there are */
};
struct _cl_program {
    CARD_OBJECT;
    cl_context context;
    char *source; /* NULL: made from PTX */
    char *ptx;    /* NULL before it is built */
    char *log;
    CUmodule module;
    cl_build_status status;
};
typedef struct card_param {
    size_t bytes, offset; /* in _cl_kernel.values */
    bool set;
} card_param;
struct _cl_kernel {
    CARD_OBJECT;
    cl_program program;
    CUfunction function;
    char name[96];
    cl_uint count;
    card_param params[CARD_PARAMS];
    _Alignas(16) unsigned char values[4096]; /* one behind the other; a buffer is its address */
};
struct _cl_event {
    CARD_OBJECT;
    cl_command_queue queue;
    cl_command_type type;
    CUevent event;
};

extern const cl_icd_dispatch card_dispatch;
extern struct _cl_platform_id card_platform;
extern struct _cl_device_id card_device;

/* Zeroed, with one reference; NULL, and *code says so, without memory. */
void *card_object(size_t bytes, cl_int *code);
cl_int card_retain(atomic_int *references);
#define CARD_RETAIN(object) card_retain(&(object)->references)
#define CARD_LAST(object) (atomic_fetch_sub(&(object)->references, 1) == 1)

/* What every function that calls the card begins with: makes the card's context the thread's own. */
void card_enter(void);
/* OpenCL's word for CUDA's; a failure is told on standard error, with CUDA's name for it. */
cl_int card_result(CUresult result, const char *call);
/* Answers a query. */
cl_int card_reply(const void *from, size_t bytes, size_t room, void *to, size_t *got);
#define CARD_REPLY(type, value) card_reply(&(type){(value)}, sizeof(type), room, to, got)
bool card_is_buffer(const void *handle);
cl_int card_set(cl_int *to, cl_int code); /* to may be NULL; gives the code */
/* Waits on the queue for the events of a list; makes the event of what was enqueued, if it is wanted. */
cl_int card_wait(cl_command_queue queue, cl_uint count, const cl_event *events);
cl_int card_event(cl_command_queue queue, cl_command_type type, cl_event *event);

/* ---- OpenCL's functions, by file; card_dispatch in device.c lists them ------------------------------------------- */

/* X(name, result, arguments) */
#define CARD_FUNCTIONS(X)                                                                                              \
    /* device.c */                                                                                                     \
    X(GetPlatformIDs, cl_int, (cl_uint room, cl_platform_id * platforms, cl_uint * count))                             \
    X(GetPlatformInfo, cl_int, (cl_platform_id platform, cl_platform_info what, size_t room, void *to, size_t *got))   \
    X(GetDeviceIDs, cl_int,                                                                                            \
      (cl_platform_id platform, cl_device_type type, cl_uint room, cl_device_id * devices, cl_uint * count))           \
    X(GetDeviceInfo, cl_int, (cl_device_id device, cl_device_info what, size_t room, void *to, size_t *got))           \
    X(RetainDevice, cl_int, (cl_device_id device))                                                                     \
    X(ReleaseDevice, cl_int, (cl_device_id device))                                                                    \
    X(CreateContext, cl_context,                                                                                       \
      (const cl_context_properties *properties, cl_uint count, const cl_device_id *devices,                            \
       void(CL_CALLBACK * notify)(const char *, const void *, size_t, void *), void *user, cl_int *code))              \
    X(RetainContext, cl_int, (cl_context context))                                                                     \
    X(ReleaseContext, cl_int, (cl_context context))                                                                    \
    X(GetContextInfo, cl_int, (cl_context context, cl_context_info what, size_t room, void *to, size_t *got))          \
    X(CreateSubDevices, cl_int,                                                                                        \
      (cl_device_id device, const cl_device_partition_property *properties, cl_uint room, cl_device_id *parts,         \
       cl_uint *count))                                                                                                \
    /* queue.c */                                                                                                      \
    X(CreateCommandQueue, cl_command_queue,                                                                            \
      (cl_context context, cl_device_id device, cl_command_queue_properties properties, cl_int * code))                \
    X(RetainCommandQueue, cl_int, (cl_command_queue queue))                                                            \
    X(ReleaseCommandQueue, cl_int, (cl_command_queue queue))                                                           \
    X(GetCommandQueueInfo, cl_int,                                                                                     \
      (cl_command_queue queue, cl_command_queue_info what, size_t room, void *to, size_t *got))                        \
    X(Flush, cl_int, (cl_command_queue queue))                                                                         \
    X(Finish, cl_int, (cl_command_queue queue))                                                                        \
    X(EnqueueNDRangeKernel, cl_int,                                                                                    \
      (cl_command_queue queue, cl_kernel kernel, cl_uint dims, const size_t *offset, const size_t *global,             \
       const size_t *local, cl_uint waits, const cl_event *list, cl_event *event))                                     \
    X(EnqueueMarkerWithWaitList, cl_int,                                                                               \
      (cl_command_queue queue, cl_uint waits, const cl_event *list, cl_event *event))                                  \
    X(EnqueueBarrierWithWaitList, cl_int,                                                                              \
      (cl_command_queue queue, cl_uint waits, const cl_event *list, cl_event *event))                                  \
    X(WaitForEvents, cl_int, (cl_uint count, const cl_event *events))                                                  \
    X(GetEventInfo, cl_int, (cl_event event, cl_event_info what, size_t room, void *to, size_t *got))                  \
    X(GetEventProfilingInfo, cl_int, (cl_event event, cl_profiling_info what, size_t room, void *to, size_t *got))     \
    X(RetainEvent, cl_int, (cl_event event))                                                                           \
    X(ReleaseEvent, cl_int, (cl_event event))                                                                          \
    X(CreateUserEvent, cl_event, (cl_context context, cl_int * code))                                                  \
    X(SetUserEventStatus, cl_int, (cl_event event, cl_int status))                                                     \
    X(SetEventCallback, cl_int,                                                                                        \
      (cl_event event, cl_int status, void(CL_CALLBACK * notify)(cl_event, cl_int, void *), void *user))               \
    /* memory.c */                                                                                                     \
    X(CreateBuffer, cl_mem, (cl_context context, cl_mem_flags flags, size_t bytes, void *host, cl_int *code))          \
    X(RetainMemObject, cl_int, (cl_mem mem))                                                                           \
    X(ReleaseMemObject, cl_int, (cl_mem mem))                                                                          \
    X(GetMemObjectInfo, cl_int, (cl_mem mem, cl_mem_info what, size_t room, void *to, size_t *got))                    \
    X(EnqueueWriteBuffer, cl_int,                                                                                      \
      (cl_command_queue queue, cl_mem mem, cl_bool blocking, size_t offset, size_t bytes, const void *from,            \
       cl_uint waits, const cl_event *list, cl_event *event))                                                          \
    X(EnqueueReadBuffer, cl_int,                                                                                       \
      (cl_command_queue queue, cl_mem mem, cl_bool blocking, size_t offset, size_t bytes, void *to, cl_uint waits,     \
       const cl_event *list, cl_event *event))                                                                         \
    X(EnqueueCopyBuffer, cl_int,                                                                                       \
      (cl_command_queue queue, cl_mem from, cl_mem to, size_t from_offset, size_t to_offset, size_t bytes,             \
       cl_uint waits, const cl_event *list, cl_event *event))                                                          \
    X(EnqueueFillBuffer, cl_int,                                                                                       \
      (cl_command_queue queue, cl_mem mem, const void *pattern, size_t pattern_bytes, size_t offset, size_t bytes,     \
       cl_uint waits, const cl_event *list, cl_event *event))                                                          \
    X(EnqueueMapBuffer, void *,                                                                                        \
      (cl_command_queue queue, cl_mem mem, cl_bool blocking, cl_map_flags flags, size_t offset, size_t bytes,          \
       cl_uint waits, const cl_event *list, cl_event *event, cl_int *code))                                            \
    X(EnqueueUnmapMemObject, cl_int,                                                                                   \
      (cl_command_queue queue, cl_mem mem, void *host, cl_uint waits, const cl_event *list, cl_event *event))          \
    /* program.c */                                                                                                    \
    X(CreateProgramWithSource, cl_program,                                                                             \
      (cl_context context, cl_uint count, const char **texts, const size_t *lengths, cl_int *code))                    \
    X(CreateProgramWithBinary, cl_program,                                                                             \
      (cl_context context, cl_uint count, const cl_device_id *devices, const size_t *lengths,                          \
       const unsigned char **binaries, cl_int *states, cl_int *code))                                                  \
    X(RetainProgram, cl_int, (cl_program program))                                                                     \
    X(ReleaseProgram, cl_int, (cl_program program))                                                                    \
    X(BuildProgram, cl_int,                                                                                            \
      (cl_program program, cl_uint count, const cl_device_id *devices, const char *options,                            \
       void(CL_CALLBACK * notify)(cl_program, void *), void *user))                                                    \
    X(GetProgramInfo, cl_int, (cl_program program, cl_program_info what, size_t room, void *to, size_t *got))          \
    X(GetProgramBuildInfo, cl_int,                                                                                     \
      (cl_program program, cl_device_id device, cl_program_build_info what, size_t room, void *to, size_t *got))       \
    /* kernel.c */                                                                                                     \
    X(CreateKernel, cl_kernel, (cl_program program, const char *name, cl_int *code))                                   \
    X(RetainKernel, cl_int, (cl_kernel kernel))                                                                        \
    X(ReleaseKernel, cl_int, (cl_kernel kernel))                                                                       \
    X(SetKernelArg, cl_int, (cl_kernel kernel, cl_uint slot, size_t bytes, const void *value))                         \
    X(GetKernelInfo, cl_int, (cl_kernel kernel, cl_kernel_info what, size_t room, void *to, size_t *got))              \
    X(GetKernelWorkGroupInfo, cl_int,                                                                                  \
      (cl_kernel kernel, cl_device_id device, cl_kernel_work_group_info what, size_t room, void *to, size_t *got))

#define CARD_DECLARE(name, result, arguments) result CL_API_CALL card_##name arguments;
CARD_FUNCTIONS(CARD_DECLARE)
#undef CARD_DECLARE

#endif
