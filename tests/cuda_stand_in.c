/* libcuda.so.1 for machines without a card, as much of it as pocl uses: one device of compute capability STAND_IN_ARCH
 * (80 for 8.0), whose memory is the host's. Modules are handed to the assembler STAND_IN_PTXAS and are refused where it
 * refuses them; launches do nothing. With STAND_IN_DEVICES=0 there is a driver and no card.
 * tools/pocl_cuda_rehearsal.py builds it. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CALL __attribute__((visibility("default"))) int
typedef void *handle;
typedef uint64_t place; /* CUdeviceptr */

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_PTX = 218, NOT_FOUND = 500 };
enum { MEMORY = 2000000000 };

static int number_of(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

/* ---- the device ---- */

CALL cuInit(unsigned flags) { return flags == 0 && number_of("STAND_IN_DEVICES", 1) ? OK : NO_DEVICE; }
CALL cuDriverGetVersion(int *version) {
    *version = 12080;
    return OK;
}
CALL cuDeviceGetCount(int *count) {
    *count = number_of("STAND_IN_DEVICES", 1);
    return OK;
}
CALL cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return OK;
}
CALL cuDeviceGetName(char *name, int bytes, int device) {
    snprintf(name, (size_t)bytes, "stand-in %d for sm_%d", device, number_of("STAND_IN_ARCH", 80));
    return OK;
}
CALL cuDeviceGetAttribute(int *value, int attribute, int device) {
    static const int known[][2] = {{1, 1024},     {2, 1024}, {3, 1024}, {4, 64}, {8, 49152}, {9, 65536}, {10, 32},
                                   {13, 1980000}, {14, 512}, {16, 132}, {41, 1}, {83, 1},    {113, 1}};
    const int arch = number_of("STAND_IN_ARCH", 80);
    *value = attribute == 75 ? arch / 10 : attribute == 76 ? arch % 10 : 0;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i][0] == attribute) *value = known[i][1];
    return device == 0 ? OK : INVALID_VALUE;
}
CALL cuDeviceCanAccessPeer(int *can, int a, int b) {
    *can = a == b;
    return OK;
}
CALL cuGetErrorName(int error, const char **text) {
    static char name[32];
    snprintf(name, sizeof name, "error %d", error);
    *text = name;
    return OK;
}
CALL cuGetErrorString(int error, const char **text) { return cuGetErrorName(error, text); }

/* ---- contexts, streams, events: all is over when it returns ---- */

static int thing;
CALL cuCtxCreate_v2(handle *context, unsigned flags, int device) {
    *context = &thing;
    return OK;
}
CALL cuCtxDestroy_v2(handle context) { return context ? OK : INVALID_VALUE; }
CALL cuCtxSetCurrent(handle context) { return context ? OK : INVALID_VALUE; }
CALL cuCtxEnablePeerAccess(handle context, unsigned flags) { return context ? OK : INVALID_VALUE; }
CALL cuStreamCreate(handle *stream, unsigned flags) {
    *stream = &thing;
    return OK;
}
CALL cuStreamDestroy_v2(handle stream) { return stream ? OK : INVALID_VALUE; }
CALL cuStreamSynchronize(handle stream) { return OK; }
CALL cuStreamWaitEvent(handle stream, handle event, unsigned flags) { return OK; }
CALL cuStreamWaitValue32_v2(handle stream, place at, uint32_t value, unsigned flags) { return OK; }
CALL cuEventCreate(handle *event, unsigned flags) {
    *event = &thing;
    return OK;
}
CALL cuEventDestroy_v2(handle event) { return event ? OK : INVALID_VALUE; }
CALL cuEventRecord(handle event, handle stream) { return event ? OK : INVALID_VALUE; }
CALL cuEventSynchronize(handle event) { return event ? OK : INVALID_VALUE; }
CALL cuEventElapsedTime(float *ms, handle from, handle to) {
    *ms = 0.001f;
    return OK;
}

/* ---- memory ---- */

static int take(void **memory, size_t bytes) { return (*memory = calloc(1, bytes ? bytes : 1)) ? OK : OUT_OF_MEMORY; }
static int copy(place to, place from, size_t bytes) {
    memcpy((void *)(uintptr_t)to, (const void *)(uintptr_t)from, bytes);
    return OK;
}
static int fill(place to, uint32_t value, size_t width, size_t count) { /* little end first */
    for (size_t i = 0; i < count; i++) memcpy((char *)(uintptr_t)to + i * width, &value, width);
    return OK;
}
CALL cuMemGetInfo_v2(size_t *unused, size_t *total) {
    *unused = *total = MEMORY;
    return OK;
}
CALL cuMemAlloc_v2(place *at, size_t bytes) {
    void *memory;
    const int error = take(&memory, bytes);
    return *at = (place)(uintptr_t)memory, error;
}
CALL cuMemAllocManaged(place *at, size_t bytes, unsigned flags) { return cuMemAlloc_v2(at, bytes); }
CALL cuMemFree_v2(place at) {
    free((void *)(uintptr_t)at);
    return OK;
}
CALL cuMemHostAlloc(void **memory, size_t bytes, unsigned flags) { return take(memory, bytes); }
CALL cuMemFreeHost(void *memory) {
    free(memory);
    return OK;
}
CALL cuMemHostGetDevicePointer_v2(place *at, void *memory, unsigned flags) {
    *at = (place)(uintptr_t)memory;
    return OK;
}
CALL cuMemHostRegister_v2(void *memory, size_t bytes, unsigned flags) { return memory ? OK : 1; }
CALL cuMemHostUnregister(void *memory) { return memory ? OK : INVALID_VALUE; }
CALL cuMemcpy(place to, place from, size_t bytes) { return copy(to, from, bytes); }
CALL cuMemcpyAsync(place to, place from, size_t bytes, handle stream) { return copy(to, from, bytes); }
CALL cuMemcpyDtoDAsync_v2(place to, place from, size_t bytes, handle stream) { return copy(to, from, bytes); }
CALL cuMemcpyPeerAsync(place to, handle there, place from, handle here, size_t bytes, handle stream) {
    return copy(to, from, bytes);
}
CALL cuMemcpyDtoH_v2(void *to, place from, size_t bytes) { return copy((place)(uintptr_t)to, from, bytes); }
CALL cuMemcpyDtoHAsync_v2(void *to, place from, size_t bytes, handle stream) {
    return cuMemcpyDtoH_v2(to, from, bytes);
}
CALL cuMemcpyHtoD_v2(place to, const void *from, size_t bytes) { return copy(to, (place)(uintptr_t)from, bytes); }
CALL cuMemcpyHtoDAsync_v2(place to, const void *from, size_t bytes, handle stream) {
    return cuMemcpyHtoD_v2(to, from, bytes);
}
CALL cuMemcpy3DAsync_v2(const void *boxes, handle stream) { return INVALID_VALUE; }
CALL cuMemsetD8Async(place to, unsigned char value, size_t count, handle stream) { return fill(to, value, 1, count); }
CALL cuMemsetD16Async(place to, unsigned short value, size_t count, handle stream) { return fill(to, value, 2, count); }
CALL cuMemsetD32Async(place to, unsigned value, size_t count, handle stream) { return fill(to, value, 4, count); }

/* ---- modules ---- */

CALL cuModuleLoad(handle *module, const char *path) {
    const char *assembler = getenv("STAND_IN_PTXAS");
    char command[8192];
    if (!assembler || snprintf(command, sizeof command, "'%s' -v -arch=sm_%d '%s' -o /dev/null >&2", assembler,
                               number_of("STAND_IN_ARCH", 80), path) >= (int)sizeof command)
        return INVALID_VALUE;
    fflush(NULL);
    const int error = system(command);
    fprintf(stderr, "stand-in: %s %s\n", error ? "refused" : "assembled", path);
    *module = &thing;
    return error ? INVALID_PTX : OK;
}
CALL cuModuleLoadData(handle *module, const void *text) {
    char path[] = "/tmp/stand_in.XXXXXX";
    const int descriptor = mkstemp(path);
    FILE *file = descriptor < 0 ? NULL : fdopen(descriptor, "w");
    if (!file) return OUT_OF_MEMORY;
    fputs(text, file);
    fclose(file);
    const int error = cuModuleLoad(module, path);
    remove(path);
    return error;
}
CALL cuModuleLoadDataEx(handle *module, const void *text, unsigned options, int *names, void **values) {
    for (unsigned i = 0; i < options; i++)
        if (names[i] == 6) values[i] = NULL; /* no error log was written */
    return cuModuleLoadData(module, text);
}
CALL cuModuleUnload(handle module) { return module ? OK : INVALID_VALUE; }
CALL cuModuleGetFunction(handle *function, handle module, const char *name) {
    *function = &thing;
    return module && name[0] ? OK : NOT_FOUND;
}
CALL cuModuleGetGlobal_v2(place *at, size_t *bytes, handle module, const char *name) {
    static char constants[65536];
    *at = (place)(uintptr_t)constants;
    *bytes = sizeof constants;
    return module && name[0] ? OK : NOT_FOUND;
}
CALL cuLaunchKernel(handle function, unsigned gx, unsigned gy, unsigned gz, unsigned x, unsigned y, unsigned z,
                    unsigned local_bytes, handle stream, void **arguments, void **extra) {
    const int fits =
        gx && gy && gz && gy < 65536 && gz < 65536 && x && y && z && x * y * z <= 1024 && local_bytes <= 49152;
    return function && fits ? OK : INVALID_VALUE;
}
