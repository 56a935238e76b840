/* Platform, device and context, and the door through which OpenCL's loader comes in. */
#include "card.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

const cl_icd_dispatch card_dispatch = {
#define ENTRY(name, result, arguments) .cl##name = card_##name,
    CARD_FUNCTIONS(ENTRY)
#undef ENTRY
};
struct _cl_platform_id card_platform = {.dispatch = &card_dispatch};
struct _cl_device_id card_device = {.dispatch = &card_dispatch};

/* ---- what all files share ---------------------------------------------------------------------------------------- */

void *card_object(size_t bytes, cl_int *code) {
    struct _cl_context *object = calloc(1, bytes); /* any of them: all begin alike */
    card_set(code, object ? CL_SUCCESS : CL_OUT_OF_HOST_MEMORY);
    if (!object) return NULL;
    object->dispatch = &card_dispatch;
    object->references = 1;
    return object;
}

cl_int card_retain(atomic_int *references) {
    atomic_fetch_add(references, 1);
    return CL_SUCCESS;
}

cl_int card_set(cl_int *to, cl_int code) {
    if (to) *to = code;
    return code;
}

cl_int card_reply(const void *from, size_t bytes, size_t room, void *to, size_t *got) {
    if (got) *got = bytes;
    if (!to) return CL_SUCCESS;
    if (room < bytes) return CL_INVALID_VALUE;
    memcpy(to, from, bytes);
    return CL_SUCCESS;
}

static cl_int reply_text(const char *text, size_t room, void *to, size_t *got) {
    return card_reply(text, strlen(text) + 1, room, to, got);
}

/* ---- the card ---------------------------------------------------------------------------------------------------- */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool found;

static void find_card(void) {
    found = card_cuda_load() && card_result(cuda.device_get(&card_device.device, 0), "cuDeviceGet") == CL_SUCCESS;
}

static bool have_card(void) {
    pthread_once(&once, find_card);
    return found;
}

void card_enter(void) { cuda.context_set(card_device.context); }

static int attribute(int which) {
    int value = 0;
    return cuda.device_attribute(&value, which, card_device.device) == 0 ? value : 0;
}

/* The architecture that programs are chosen for: the newest of those that PTX is made for, up to the card's own. The
 * driver makes the card's machine code of it. */
static unsigned code_arch(void) {
    static const unsigned made[] = {90, 80, 75}; /* as in tools/card_ptx.py */
    const unsigned own = (unsigned)(10 * attribute(CUDA_MAJOR) + attribute(CUDA_MINOR));
    for (size_t i = 0; i < sizeof made / sizeof made[0]; i++)
        if (own >= made[i]) return made[i];
    return own;
}

/* ---- queries ----------------------------------------------------------------------------------------------------- */

cl_int card_GetPlatformIDs(cl_uint room, cl_platform_id *platforms, cl_uint *count) {
    if (!have_card()) return CL_PLATFORM_NOT_FOUND_KHR;
    if (count) *count = 1;
    if (platforms && room > 0) platforms[0] = &card_platform;
    return CL_SUCCESS;
}

cl_int card_GetPlatformInfo(cl_platform_id platform, cl_platform_info what, size_t room, void *to, size_t *got) {
    (void)platform;
    switch (what) {
    case CL_PLATFORM_NAME:
        return reply_text("CUDA driver, PTX made before", room, to, got);
    case CL_PLATFORM_VENDOR:
        return reply_text("clattn", room, to, got);
    case CL_PLATFORM_VERSION:
        return reply_text("OpenCL 1.2 of clattn_card", room, to, got);
    case CL_PLATFORM_PROFILE:
        return reply_text("FULL_PROFILE", room, to, got);
    case CL_PLATFORM_EXTENSIONS:
        return reply_text("cl_khr_icd", room, to, got);
    case CL_PLATFORM_ICD_SUFFIX_KHR:
        return reply_text("CARD", room, to, got);
    default:
        return CL_INVALID_VALUE;
    }
}

cl_int card_GetDeviceIDs(cl_platform_id platform, cl_device_type type, cl_uint room, cl_device_id *devices,
                         cl_uint *count) {
    (void)platform;
    if (!(type & (CL_DEVICE_TYPE_GPU | CL_DEVICE_TYPE_DEFAULT))) return CL_DEVICE_NOT_FOUND;
    if (count) *count = 1;
    if (devices && room > 0) devices[0] = &card_device;
    return CL_SUCCESS;
}

static cl_int driver_version(size_t room, void *to, size_t *got) {
    int version = 0;
    char text[32];
    cuda.driver_version(&version);
    snprintf(text, sizeof text, "CUDA %d.%d", version / 1000, version % 1000 / 10);
    return reply_text(text, room, to, got);
}

static cl_ulong memory_bytes(void) {
    size_t bytes = 0;
    cuda.device_memory(&bytes, card_device.device);
    return bytes;
}

static cl_int device_text(cl_device_info what, size_t room, void *to, size_t *got) {
    char name[256] = "";
    switch (what) {
    case CL_DEVICE_NAME:
        cuda.device_name(name, sizeof name, card_device.device);
        return reply_text(name, room, to, got);
    case CL_DEVICE_VENDOR:
        return reply_text("NVIDIA Corporation", room, to, got);
    case CL_DRIVER_VERSION:
        return driver_version(room, to, got);
    case CL_DEVICE_VERSION:
        return reply_text("OpenCL 1.2 CUDA", room, to, got);
    case CL_DEVICE_OPENCL_C_VERSION:
        return reply_text("OpenCL C 1.2", room, to, got);
    case CL_DEVICE_PROFILE:
        return reply_text("FULL_PROFILE", room, to, got);
    case CL_DEVICE_EXTENSIONS:
        return reply_text("cl_nv_device_attribute_query", room, to, got);
    default:
        return CL_INVALID_VALUE;
    }
}

cl_int card_GetDeviceInfo(cl_device_id device, cl_device_info what, size_t room, void *to, size_t *got) {
    /* of cl_nv_device_attribute_query */
    enum {
        MAJOR_NV = 0x4000,
        MINOR_NV = 0x4001,
        WARP_NV = 0x4003,
        BUS_NV = 0x4008,
        SLOT_NV = 0x4009,
        DOMAIN_NV = 0x400A
    };
    (void)device;
    switch (what) {
    case CL_DEVICE_TYPE:
        return CARD_REPLY(cl_device_type, CL_DEVICE_TYPE_GPU);
    case CL_DEVICE_VENDOR_ID:
        return CARD_REPLY(cl_uint, 0x10DE);
    case CL_DEVICE_PLATFORM:
        return CARD_REPLY(cl_platform_id, &card_platform);
    case CL_DEVICE_AVAILABLE:
    case CL_DEVICE_COMPILER_AVAILABLE: /* so it seems to whoever asks for a listed program */
    case CL_DEVICE_ENDIAN_LITTLE:
        return CARD_REPLY(cl_bool, CL_TRUE);
    case CL_DEVICE_HOST_UNIFIED_MEMORY:
    case CL_DEVICE_IMAGE_SUPPORT:
        return CARD_REPLY(cl_bool, CL_FALSE);
    case CL_DEVICE_MAX_COMPUTE_UNITS:
        return CARD_REPLY(cl_uint, (cl_uint)attribute(CUDA_MULTIPROCESSORS));
    case CL_DEVICE_MAX_CLOCK_FREQUENCY:
        return CARD_REPLY(cl_uint, (cl_uint)attribute(CUDA_CLOCK_KHZ) / 1000);
    case CL_DEVICE_GLOBAL_MEM_SIZE:
    case CL_DEVICE_MAX_MEM_ALLOC_SIZE:
        return CARD_REPLY(cl_ulong, memory_bytes() / (what == CL_DEVICE_MAX_MEM_ALLOC_SIZE ? 4 : 1));
    case CL_DEVICE_LOCAL_MEM_SIZE:
        return CARD_REPLY(cl_ulong, (cl_ulong)attribute(CUDA_MAX_SHARED));
    case CL_DEVICE_LOCAL_MEM_TYPE:
        return CARD_REPLY(cl_device_local_mem_type, CL_LOCAL);
    case CL_DEVICE_MAX_WORK_GROUP_SIZE:
        return CARD_REPLY(size_t, (size_t)attribute(CUDA_MAX_THREADS));
    case CL_DEVICE_MAX_WORK_ITEM_DIMENSIONS:
        return CARD_REPLY(cl_uint, 3);
    case CL_DEVICE_MAX_WORK_ITEM_SIZES: {
        size_t sizes[3];
        for (int i = 0; i < 3; i++) sizes[i] = (size_t)attribute(CUDA_MAX_BLOCK_X + i);
        return card_reply(sizes, sizeof sizes, room, to, got);
    }
    case CL_DEVICE_ADDRESS_BITS:
        return CARD_REPLY(cl_uint, 64);
    case CL_DEVICE_MEM_BASE_ADDR_ALIGN:
        return CARD_REPLY(cl_uint, 256 * 8);
    case CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT:
    case CL_DEVICE_PREFERRED_VECTOR_WIDTH_FLOAT:
        return CARD_REPLY(cl_uint, 1);
    case CL_DEVICE_QUEUE_PROPERTIES:
        return CARD_REPLY(cl_command_queue_properties, CL_QUEUE_PROFILING_ENABLE);
    case CL_DEVICE_REFERENCE_COUNT:
        return CARD_REPLY(cl_uint, 1);
    case MAJOR_NV:
        return CARD_REPLY(cl_uint, code_arch() / 10);
    case MINOR_NV:
        return CARD_REPLY(cl_uint, code_arch() % 10);
    case WARP_NV:
        return CARD_REPLY(cl_uint, 32);
    case BUS_NV:
        return CARD_REPLY(cl_uint, (cl_uint)attribute(CUDA_PCI_BUS));
    case SLOT_NV:
        return CARD_REPLY(cl_uint, (cl_uint)attribute(CUDA_PCI_DEVICE) << 3);
    case DOMAIN_NV:
        return CARD_REPLY(cl_uint, (cl_uint)attribute(CUDA_PCI_DOMAIN));
    default:
        return device_text(what, room, to, got);
    }
}

cl_int card_RetainDevice(cl_device_id device) { return device ? CL_SUCCESS : CL_INVALID_DEVICE; }
cl_int card_ReleaseDevice(cl_device_id device) { return device ? CL_SUCCESS : CL_INVALID_DEVICE; }

cl_int card_CreateSubDevices(cl_device_id device, const cl_device_partition_property *properties, cl_uint room,
                             cl_device_id *parts, cl_uint *count) {
    (void)device, (void)properties, (void)room, (void)parts, (void)count;
    return CL_DEVICE_PARTITION_FAILED;
}

/* ---- contexts ---------------------------------------------------------------------------------------------------- */

static pthread_once_t context_once = PTHREAD_ONCE_INIT;
static CUresult context_result;

static void retain_context(void) { context_result = cuda.context_retain(&card_device.context, card_device.device); }

cl_context card_CreateContext(const cl_context_properties *properties, cl_uint count, const cl_device_id *devices,
                              void(CL_CALLBACK *notify)(const char *, const void *, size_t, void *), void *user,
                              cl_int *code) {
    (void)properties, (void)count, (void)devices, (void)notify, (void)user;
    pthread_once(&context_once, retain_context);
    if (card_set(code, card_result(context_result, "cuDevicePrimaryCtxRetain")) != CL_SUCCESS) return NULL;
    return card_object(sizeof(struct _cl_context), code);
}

cl_int card_RetainContext(cl_context context) { return CARD_RETAIN(context); }

cl_int card_ReleaseContext(cl_context context) {
    if (CARD_LAST(context)) free(context);
    return CL_SUCCESS;
}

cl_int card_GetContextInfo(cl_context context, cl_context_info what, size_t room, void *to, size_t *got) {
    switch (what) {
    case CL_CONTEXT_REFERENCE_COUNT:
        return CARD_REPLY(cl_uint, (cl_uint)context->references);
    case CL_CONTEXT_NUM_DEVICES:
        return CARD_REPLY(cl_uint, 1);
    case CL_CONTEXT_DEVICES:
        return CARD_REPLY(cl_device_id, &card_device);
    default:
        return CL_INVALID_VALUE;
    }
}

/* ---- the loader's way in ----------------------------------------------------------------------------------------- */

/* The three names that a loader looks for. Inside this library nobody may call them: the loader's own functions of the
 * same names come first. */
#define EXPORT __attribute__((visibility("default")))

EXPORT cl_int CL_API_CALL clIcdGetPlatformIDsKHR(cl_uint room, cl_platform_id *platforms, cl_uint *count) {
    return card_GetPlatformIDs(room, platforms, count);
}

EXPORT cl_int CL_API_CALL clGetPlatformInfo(cl_platform_id platform, cl_platform_info what, size_t room, void *to,
                                            size_t *got) {
    return card_GetPlatformInfo(platform, what, room, to, got);
}

EXPORT void *CL_API_CALL clGetExtensionFunctionAddress(const char *name) {
    union {
        cl_int(CL_API_CALL *platforms)(cl_uint, cl_platform_id *, cl_uint *);
        cl_int(CL_API_CALL *info)(cl_platform_id, cl_platform_info, size_t, void *, size_t *);
        void *object;
    } function = {.object = NULL};
    if (strcmp(name, "clIcdGetPlatformIDsKHR") == 0) function.platforms = card_GetPlatformIDs;
    if (strcmp(name, "clGetPlatformInfo") == 0) function.info = card_GetPlatformInfo;
    return function.object;
}
