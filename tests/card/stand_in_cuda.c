/* A libcuda.so.1 without a card, for rehearsals: what tools/card/ calls of the driver API, on a CPU's OpenCL. A module
 * is PTX whose comments hold the OpenCL source that it stands for: a line `//options OPTIONS`, then its lines, each
 * behind `//|`; launches of one without do nothing. Kernels take their arguments by the PTX's own list of parameters,
 * groups are held to its .maxntid.
 *   $STAND_IN_CUDA  plants a fault: "no card", "bad module", "no function", "launch N" (the Nth fails), "lose N" (the
 *                   Nth is not run), "unwritten" (what the host copies in arrives as zeros)
 *   $STAND_IN_ARCH  the compute capability, 90 without */
#define _POSIX_C_SOURCE 200809L /* strdup */
#define CL_TARGET_OPENCL_VERSION 120
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include <CL/cl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/card/cuda.h"

enum { INVALID_VALUE = 1, NO_DEVICE = 100, OUT_OF_RESOURCES = 701 };
enum { MOST_BUFFERS = 4096, MOST_PARAMS = 64 };

#define CHECK_SIGNATURE(member, symbol, arguments) __attribute__((visibility("default"))) CUresult symbol arguments;
CARD_CUDA_FUNCTIONS(CHECK_SIGNATURE)
#undef CHECK_SIGNATURE

struct CUmod_st {
    cl_program program; /* NULL: nothing is run */
    char *ptx;
};
struct CUfunc_st {
    cl_kernel kernel;
    int most_items;
    int count;
    size_t params[MOST_PARAMS]; /* bytes */
};
struct CUstream_st {
    cl_command_queue queue;
};
struct CUevent_st {
    cl_event event; /* NULL before it is recorded */
};

static cl_device_id device;
static cl_context context;
static struct CUstream_st first_stream; /* CUDA's NULL */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct buffer {
    CUdeviceptr start;
    size_t bytes;
    cl_mem mem;
} buffers[MOST_BUFFERS];
static int launches;

/* The number behind a planted word; 0: the word itself, -1: it is not planted. */
static int planted(const char *word) {
    const char *plant = getenv("STAND_IN_CUDA");
    if (!plant || strncmp(plant, word, strlen(word)) != 0) return -1;
    return atoi(plant + strlen(word));
}

/* Not when the library is loaded: OpenCL's loader is at work then. */
static void open_device(void) {
    cl_platform_id platforms[16];
    cl_uint count = 0;
    cl_int code = clGetPlatformIDs(16, platforms, &count);
    for (cl_uint i = 0; code == CL_SUCCESS && i < count && i < 16 && !device; i++)
        if (clGetDeviceIDs(platforms[i], CL_DEVICE_TYPE_CPU, 1, &device, NULL) != CL_SUCCESS) device = NULL;
    context = device ? clCreateContext(NULL, 1, &device, NULL, NULL, &code) : NULL;
    first_stream.queue = context ? clCreateCommandQueue(context, device, 0, &code) : NULL;
    if (!first_stream.queue) fprintf(stderr, "stand-in CUDA: no CPU with OpenCL to stand on\n");
}

static CUresult result_of(cl_int code) {
    if (code == CL_SUCCESS) return 0;
    fprintf(stderr, "stand-in CUDA: OpenCL's error %d\n", (int)code);
    return code == CL_MEM_OBJECT_ALLOCATION_FAILURE ? CUDA_OUT_OF_MEMORY : CUDA_LAUNCH_FAILED;
}

/* ---- the device -------------------------------------------------------------------------------------------------- */

CUresult cuInit(unsigned flags) { return flags ? INVALID_VALUE : planted("no card") == 0 ? NO_DEVICE : 0; }

CUresult cuDriverGetVersion(int *version) { return *version = 12090, 0; }

CUresult cuGetErrorName(CUresult result, const char **name) {
    static const struct {
        CUresult result;
        const char *name;
    } rows[] = {{INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
                {CUDA_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
                {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
                {CUDA_INVALID_PTX, "CUDA_ERROR_INVALID_PTX"},
                {CUDA_NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
                {OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"},
                {CUDA_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].result == result) return *name = rows[i].name, 0;
    return INVALID_VALUE;
}

CUresult cuDeviceGet(CUdevice *id, int index) { return index ? INVALID_VALUE : (*id = 0); }

CUresult cuDeviceGetName(char *name, int room, CUdevice id) {
    (void)id;
    snprintf(name, (size_t)room, "a stand-in for a card");
    return 0;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice id) { return (void)id, *bytes = (size_t)8 << 30, 0; }

CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice id) {
    const char *text = getenv("STAND_IN_ARCH");
    (void)id;
    const int arch = text ? atoi(text) : 90;
    const int rows[][2] = {{CUDA_MAX_THREADS, 1024},   {CUDA_MAX_BLOCK_X, 1024}, {CUDA_MAX_BLOCK_X + 1, 1024},
                           {CUDA_MAX_BLOCK_X + 2, 64}, {CUDA_MAX_SHARED, 49152}, {CUDA_CLOCK_KHZ, 1500000},
                           {CUDA_MULTIPROCESSORS, 80}, {CUDA_PCI_BUS, 1},        {CUDA_PCI_DEVICE, 0},
                           {CUDA_PCI_DOMAIN, 0},       {CUDA_MAJOR, arch / 10},  {CUDA_MINOR, arch % 10}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i][0] == attribute) return *value = rows[i][1], 0;
    return INVALID_VALUE;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *made, CUdevice id) {
    (void)id;
    pthread_once(&once, open_device);
    *made = (CUcontext)(void *)&first_stream;
    return first_stream.queue ? 0 : NO_DEVICE;
}

CUresult cuCtxSetCurrent(CUcontext made) { return made ? 0 : INVALID_VALUE; }

/* ---- modules and functions --------------------------------------------------------------------------------------- */

/* The lines that begin with the words, without them. Caller frees. */
static char *lines_behind(const char *text, const char *words) {
    const size_t skip = strlen(words);
    char *all = calloc(strlen(text) + 1, 1), *end = all;
    for (const char *line = text; all && line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        if (strncmp(line, words, skip) != 0) continue;
        const size_t length = strcspn(line + skip, "\n") + (line[skip + strcspn(line + skip, "\n")] == '\n');
        memcpy(end, line + skip, length);
        end += length;
    }
    return all;
}

static CUresult build(CUmodule module, char *log, size_t room) {
    if (!strstr(module->ptx, "\n//|")) return 0;
    char *source = lines_behind(module->ptx, "//|"), *options = lines_behind(module->ptx, "//options ");
    cl_int code = CL_OUT_OF_HOST_MEMORY;
    if (options) options[strcspn(options, "\n")] = '\0';
    if (source && options) module->program = clCreateProgramWithSource(context, 1, (const char **)&source, NULL, &code);
    if (code == CL_SUCCESS) code = clBuildProgram(module->program, 1, &device, options, NULL, NULL);
    if (code != CL_SUCCESS && module->program)
        clGetProgramBuildInfo(module->program, device, CL_PROGRAM_BUILD_LOG, room, log, NULL);
    free(source);
    free(options);
    return code == CL_SUCCESS ? 0 : CUDA_INVALID_PTX;
}

CUresult cuModuleLoadDataEx(CUmodule *made, const void *image, unsigned count, int *options, void **values) {
    char *log = NULL;
    size_t room = 0;
    for (unsigned i = 0; i < count; i++) {
        if (options[i] == CUDA_JIT_ERROR) log = values[i];
        if (options[i] == CUDA_JIT_ERROR_BYTES) room = (size_t)values[i];
    }
    if (planted("bad module") == 0) {
        snprintf(log, room, "ptxas application ptx input, line 1; fatal: planted");
        return CUDA_INVALID_PTX;
    }
    CUmodule module = calloc(1, sizeof *module);
    if (module) module->ptx = strdup(image);
    CUresult result = module && module->ptx ? build(module, log, room) : CUDA_OUT_OF_MEMORY;
    if (result == 0) return *made = module, 0;
    cuModuleUnload(module);
    return result;
}

CUresult cuModuleUnload(CUmodule module) {
    if (!module) return INVALID_VALUE;
    if (module->program) clReleaseProgram(module->program);
    free(module->ptx);
    free(module);
    return 0;
}

/* Line by line, as compilers write them: `.param .align 8 .b8 NAME_param_0[472],`, `.param .u64 NAME_param_1`. */
static void read_entry(CUfunction function, const char *text) {
    char line[256], name[128];
    for (; sscanf(text, "%255[^\n]", line) == 1 && strchr(line, '{') == NULL; text = strchr(text, '\n') + 1) {
        const char *type = strrchr(line, '.');
        unsigned count = 1, bits = 0;
        if (strstr(line, ".maxntid")) sscanf(line, ".maxntid %d", &function->most_items);
        if (!strstr(line, ".param") || function->count == MOST_PARAMS) continue;
        if (sscanf(type, ".%*c%u %127[^][,][%u]", &bits, name, &count) >= 2)
            function->params[function->count] = (size_t)bits / 8 * count;
        function->count++;
    }
}

CUresult cuModuleGetFunction(CUfunction *made, CUmodule module, const char *name) {
    char words[128];
    cl_int code = CL_SUCCESS;
    snprintf(words, sizeof words, ".entry %s(\n", name);
    const char *entry = strstr(module->ptx, words);
    if (planted("no function") == 0 || !entry) return CUDA_NOT_FOUND;
    CUfunction function = calloc(1, sizeof *function); /* as in CUDA it goes with its module, whenever that is */
    if (!function) return CUDA_OUT_OF_MEMORY;
    if (module->program) function->kernel = clCreateKernel(module->program, name, &code);
    function->most_items = 1024;
    read_entry(function, entry + strlen(words));
    *made = function;
    return code == CL_SUCCESS ? 0 : CUDA_NOT_FOUND;
}

CUresult cuFuncGetAttribute(int *value, int attribute, CUfunction function) {
    *value = attribute == CUDA_FUNC_MAX_THREADS ? function->most_items : 0;
    return 0;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

CUresult cuMemAlloc_v2(CUdeviceptr *memory, size_t bytes) {
    static CUdeviceptr next = 0x7f0000000000u;
    cl_int code;
    cl_mem mem = clCreateBuffer(context, CL_MEM_READ_WRITE, bytes, NULL, &code);
    CUresult result = code == CL_SUCCESS ? CUDA_OUT_OF_MEMORY : result_of(code);
    pthread_mutex_lock(&lock);
    for (int i = 0; mem && i < MOST_BUFFERS && result != 0; i++) {
        if (buffers[i].mem) continue;
        buffers[i] = (struct buffer){next, bytes, mem};
        *memory = next;
        next += (bytes + 0xffff) / 0x10000 * 0x10000;
        result = 0;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

static struct buffer *buffer_at(CUdeviceptr memory) {
    struct buffer *found = NULL;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MOST_BUFFERS && !found; i++)
        if (buffers[i].mem && memory >= buffers[i].start && memory < buffers[i].start + buffers[i].bytes)
            found = &buffers[i];
    pthread_mutex_unlock(&lock);
    return found;
}

CUresult cuMemFree_v2(CUdeviceptr memory) {
    struct buffer *buffer = buffer_at(memory);
    if (!buffer || buffer->start != memory) return INVALID_VALUE;
    pthread_mutex_lock(&lock);
    clReleaseMemObject(buffer->mem);
    buffer->mem = NULL;
    pthread_mutex_unlock(&lock);
    return 0;
}

static CUstream stream_of(CUstream stream) { return stream ? stream : &first_stream; }

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
    const struct buffer *buffer = buffer_at(to);
    if (!buffer) return INVALID_VALUE;
    void *zeros = planted("unwritten") == 0 ? calloc(bytes, 1) : NULL;
    const cl_int code = clEnqueueWriteBuffer(stream_of(stream)->queue, buffer->mem, CL_TRUE, to - buffer->start, bytes,
                                             zeros ? zeros : from, 0, NULL, NULL);
    free(zeros);
    return result_of(code);
}

CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
    const struct buffer *buffer = buffer_at(from);
    if (!buffer) return INVALID_VALUE;
    return result_of(clEnqueueReadBuffer(stream_of(stream)->queue, buffer->mem, CL_TRUE, from - buffer->start, bytes,
                                         to, 0, NULL, NULL));
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    const struct buffer *a = buffer_at(from), *b = buffer_at(to);
    if (!a || !b) return INVALID_VALUE;
    return result_of(clEnqueueCopyBuffer(stream_of(stream)->queue, a->mem, b->mem, from - a->start, to - b->start,
                                         bytes, 0, NULL, NULL));
}

/* ---- launches ---------------------------------------------------------------------------------------------------- */

static CUresult set_argument(CUfunction function, int slot, const void *value) {
    const size_t bytes = function->params[slot];
    const struct buffer *buffer = bytes == sizeof(CUdeviceptr) ? buffer_at(*(const CUdeviceptr *)value) : NULL;
    return result_of(
        clSetKernelArg(function->kernel, (cl_uint)slot, bytes, buffer ? (const void *)&buffer->mem : value));
}

CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned x, unsigned y,
                        unsigned z, unsigned shared_bytes, CUstream stream, void **arguments, void **extra) {
    const size_t global[3] = {(size_t)grid_x * x, (size_t)grid_y * y, (size_t)grid_z * z}, local[3] = {x, y, z};
    CUresult result = 0;
    if (shared_bytes || extra || grid_y > 65535 || grid_z > 65535 || !grid_x || !x) return INVALID_VALUE;
    if (x * y * z > (unsigned)function->most_items) return OUT_OF_RESOURCES;
    pthread_mutex_lock(&lock);
    const int number = ++launches;
    pthread_mutex_unlock(&lock);
    if (planted("launch ") == number) return CUDA_LAUNCH_FAILED;
    if (planted("lose ") == number || !function->kernel) return 0;
    for (int i = 0; i < function->count && result == 0; i++) result = set_argument(function, i, arguments[i]);
    if (result != 0) return result;
    return result_of(
        clEnqueueNDRangeKernel(stream_of(stream)->queue, function->kernel, 3, NULL, global, local, 0, NULL, NULL));
}

/* ---- streams and events ------------------------------------------------------------------------------------------ */

CUresult cuStreamCreate(CUstream *made, unsigned flags) {
    cl_int code = CL_OUT_OF_HOST_MEMORY;
    CUstream stream = calloc(1, sizeof *stream);
    if (stream) stream->queue = clCreateCommandQueue(context, device, 0, &code);
    *made = stream;
    return flags == CUDA_STREAM_NON_BLOCKING ? result_of(code) : INVALID_VALUE;
}

CUresult cuStreamDestroy_v2(CUstream stream) {
    const cl_int code = clReleaseCommandQueue(stream->queue);
    free(stream);
    return result_of(code);
}

CUresult cuStreamSynchronize(CUstream stream) { return result_of(clFinish(stream_of(stream)->queue)); }

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags) {
    if (flags || !event->event) return INVALID_VALUE;
    return result_of(clEnqueueBarrierWithWaitList(stream_of(stream)->queue, 1, &event->event, NULL));
}

CUresult cuEventCreate(CUevent *made, unsigned flags) {
    *made = calloc(1, sizeof **made);
    return flags == CUDA_EVENT_NO_TIMING && *made ? 0 : INVALID_VALUE;
}

CUresult cuEventDestroy_v2(CUevent event) {
    if (event->event) clReleaseEvent(event->event);
    free(event);
    return 0;
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
    if (event->event) clReleaseEvent(event->event);
    return result_of(clEnqueueMarkerWithWaitList(stream_of(stream)->queue, 0, NULL, &event->event));
}

CUresult cuEventQuery(CUevent event) {
    cl_int state = CL_COMPLETE;
    const cl_int code = clGetEventInfo(event->event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL);
    return code != CL_SUCCESS ? result_of(code) : state > CL_COMPLETE ? CUDA_NOT_READY : result_of(state);
}

CUresult cuEventSynchronize(CUevent event) { return result_of(clWaitForEvents(1, &event->event)); }
