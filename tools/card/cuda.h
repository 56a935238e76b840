/* The few functions of CUDA's driver API that the card driver calls, found at run time: neither CUDA's headers nor its
 * libraries are needed to build it. Names, numbers and signatures: "CUDA Driver API", NVIDIA. */
#ifndef CLATTN_CARD_CUDA_H
#define CLATTN_CARD_CUDA_H

#include <stdbool.h>
#include <stddef.h>

typedef int CUresult; /* 0: success */
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;

enum { /* results */
       CUDA_OUT_OF_MEMORY = 2,
       CUDA_NO_BINARY = 209, /* the PTX's target is newer than the card */
       CUDA_INVALID_PTX = 218,
       CUDA_NOT_FOUND = 500,
       CUDA_NOT_READY = 600,
       CUDA_ILLEGAL_ADDRESS = 700,
       CUDA_LAUNCH_FAILED = 719
};
enum { /* attributes of a device */
       CUDA_MAX_THREADS = 1,
       CUDA_MAX_BLOCK_X = 2, /* Y and Z follow */
       CUDA_MAX_SHARED = 8,
       CUDA_CLOCK_KHZ = 13,
       CUDA_MULTIPROCESSORS = 16,
       CUDA_PCI_BUS = 33,
       CUDA_PCI_DEVICE = 34,
       CUDA_PCI_DOMAIN = 50,
       CUDA_MAJOR = 75,
       CUDA_MINOR = 76
};
enum { CUDA_FUNC_MAX_THREADS = 0, CUDA_FUNC_SHARED_BYTES = 1, CUDA_FUNC_LOCAL_BYTES = 3 };         /* of a function */
enum { CUDA_JIT_INFO = 3, CUDA_JIT_INFO_BYTES = 4, CUDA_JIT_ERROR = 5, CUDA_JIT_ERROR_BYTES = 6 }; /* of a build */
enum { CUDA_STREAM_NON_BLOCKING = 1, CUDA_EVENT_NO_TIMING = 2 };

/* X(member, symbol, arguments) */
#define CARD_CUDA_FUNCTIONS(X)                                                                                         \
    X(init, cuInit, (unsigned flags))                                                                                  \
    X(driver_version, cuDriverGetVersion, (int *version))                                                              \
    X(error_name, cuGetErrorName, (CUresult result, const char **name))                                                \
    X(device_get, cuDeviceGet, (CUdevice * device, int index))                                                         \
    X(device_name, cuDeviceGetName, (char *name, int room, CUdevice device))                                           \
    X(device_memory, cuDeviceTotalMem_v2, (size_t * bytes, CUdevice device))                                           \
    X(device_attribute, cuDeviceGetAttribute, (int *value, int attribute, CUdevice device))                            \
    X(context_retain, cuDevicePrimaryCtxRetain, (CUcontext * context, CUdevice device))                                \
    X(context_set, cuCtxSetCurrent, (CUcontext context))                                                               \
    X(module_load, cuModuleLoadDataEx,                                                                                 \
      (CUmodule * module, const void *image, unsigned count, int *options, void **values))                             \
    X(module_unload, cuModuleUnload, (CUmodule module))                                                                \
    X(module_function, cuModuleGetFunction, (CUfunction * function, CUmodule module, const char *name))                \
    X(function_attribute, cuFuncGetAttribute, (int *value, int attribute, CUfunction function))                        \
    X(memory_alloc, cuMemAlloc_v2, (CUdeviceptr * memory, size_t bytes))                                               \
    X(memory_free, cuMemFree_v2, (CUdeviceptr memory))                                                                 \
    X(copy_in, cuMemcpyHtoDAsync_v2, (CUdeviceptr to, const void *from, size_t bytes, CUstream stream))                \
    X(copy_out, cuMemcpyDtoHAsync_v2, (void *to, CUdeviceptr from, size_t bytes, CUstream stream))                     \
    X(copy_within, cuMemcpyDtoDAsync_v2, (CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream))            \
    X(launch, cuLaunchKernel,                                                                                          \
      (CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned x, unsigned y, unsigned z,     \
       unsigned shared_bytes, CUstream stream, void **arguments, void **extra))                                        \
    X(stream_create, cuStreamCreate, (CUstream * stream, unsigned flags))                                              \
    X(stream_destroy, cuStreamDestroy_v2, (CUstream stream))                                                           \
    X(stream_synchronize, cuStreamSynchronize, (CUstream stream))                                                      \
    X(stream_wait, cuStreamWaitEvent, (CUstream stream, CUevent event, unsigned flags))                                \
    X(event_create, cuEventCreate, (CUevent * event, unsigned flags))                                                  \
    X(event_destroy, cuEventDestroy_v2, (CUevent event))                                                               \
    X(event_record, cuEventRecord, (CUevent event, CUstream stream))                                                   \
    X(event_query, cuEventQuery, (CUevent event))                                                                      \
    X(event_synchronize, cuEventSynchronize, (CUevent event))

typedef struct card_cuda {
#define CARD_CUDA_MEMBER(member, symbol, arguments) CUresult(*member) arguments;
    CARD_CUDA_FUNCTIONS(CARD_CUDA_MEMBER)
#undef CARD_CUDA_MEMBER
} card_cuda;

extern card_cuda cuda; /* after card_cuda_load */

/* False, and why on standard error, without libcuda.so.1, one of its functions, or a card. Not thread-safe. */
bool card_cuda_load(void);

#endif
