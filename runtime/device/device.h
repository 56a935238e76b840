/* Devices: enumeration, choice, capabilities, quirks; the queue and the buffers on it. */
#ifndef CLATTN_DEVICE_H
#define CLATTN_DEVICE_H

#include "clattn/context.h"
#include "ocl/ocl.h"

typedef enum clattn__vendor {
    CLATTN__VENDOR_OTHER = 0,
    CLATTN__VENDOR_AMD,
    CLATTN__VENDOR_INTEL,
    CLATTN__VENDOR_NVIDIA,
    CLATTN__VENDOR_ARM,
    CLATTN__VENDOR_QUALCOMM,
    CLATTN__VENDOR_APPLE
} clattn__vendor;

typedef enum clattn__runtime {                             /* who implements OpenCL */
                               CLATTN__RUNTIME_NATIVE = 0, /* the hardware vendor */
                               CLATTN__RUNTIME_POCL,
                               CLATTN__RUNTIME_RUSTICL,
                               CLATTN__RUNTIME_CLOVER,
                               CLATTN__RUNTIME_OPENCLON12,
                               CLATTN__RUNTIME_OCLGRIND
} clattn__runtime;

/* Effects of the quirks table; honoured in one place each. */
typedef enum clattn__quirk {
    CLATTN__QUIRK_NOINLINE_BODY = 1 << 0, /* pocl emits three copies of a kernel function: keep the body in a callee */
    CLATTN__QUIRK_BINARY_CRASHES =
        1 << 1,                        /* a damaged program binary crashes the process: program/cache.c checks all */
    CLATTN__QUIRK_NEVER_PICK = 1 << 2, /* listed, but never the default */
    CLATTN__QUIRK_LOG_NEVER_EMPTY = 1 << 3, /* the build log holds chatter although the build is clean */
    CLATTN__QUIRK_WAITER_WORKS = 1 << 4,    /* a thread that waits for an event becomes one of the device's threads */
    CLATTN__QUIRK_CACHES_ITSELF = 1 << 5,   /* the driver keeps compiled kernels on disk: program/cache.c keeps none */
    CLATTN__QUIRK_GROUP_LIMIT_WRONG = 1 << 6, /* a built kernel's greatest work-group is not what the driver says */
    CLATTN__QUIRK_SLOW_VECTORS = 1 << 7, /* the compiler takes minutes for kernels of wide vectors: attn_cpu refuses */
    CLATTN__QUIRK_LATE_RELEASE = 1 << 8, /* a finished queue is still worked on for a moment: env.c naps */
    CLATTN__QUIRK_NARROW_FILLS = 1 << 9, /* buffers can be filled with 4 bytes at most: buffer.c repeats them */
    CLATTN__QUIRK_SHORT_GRIDS = 1 << 10, /* 65535 groups at most but in the first dimension: launch.c cuts grids up */
    CLATTN__QUIRK_WRONG_LOOPS = 1 << 11  /* gemm_cpu and attn_decode for CPUs come out wrong: they refuse */
} clattn__quirk;

/* What cl/attn_matrix.cl has to know of a matrix engine. */
typedef struct clattn__matrix {
    int engine;     /* MATRIX_* of cl/shared/matrix.h */
    int arch;       /* NVIDIA: compute capability, 75 for 7.5 */
    bool emulated;  /* asked for by clattn_context_options.matrix_engine */
    bool subgroups; /* emulated: lanes meet in sub-group barriers */
} clattn__matrix;

/* caps.c: everything queried, once. Strings are owned here. */
typedef struct clattn__caps {
    char *name, *vendor_text, *platform, *platform_version, *driver, *version, *extensions;
    char uuid[33]; /* "" when unknown */
    char pci[32];  /* "domain:bus:device.function", "" when unknown */
    clattn_device_type type;
    clattn__vendor vendor;
    clattn__runtime runtime;
    uint32_t compute_units, clock_mhz;
    uint32_t whole_units;  /* of the device that this one is a part of; 0: it is whole */
    uint32_t vector_width; /* float lanes: 4, 8 or 16 on CPUs (16 when the device names AVX-512); else as reported */
    uint64_t global_memory, local_memory, max_allocation, max_work_group;
    uint64_t second_cache; /* bytes of a core's second-level cache; 0: no CPU, or unknown */
    size_t max_item_sizes[3];
    uint32_t alignment_bytes; /* of sub-buffers and wrapped host memory */
    bool unified_memory, fp16, subgroups;
    uint32_t subgroup_lanes;   /* narrowest width, 8 at least, that a kernel can pin its sub-groups to; 0: it cannot */
    const char *matrix_engine; /* "" without one */
    clattn__matrix matrix;     /* how cl/attn_matrix.cl drives it */
    uint32_t quirks;           /* clattn__quirk bits */
} clattn__caps;

typedef struct clattn__device {
    cl_platform_id platform;
    cl_device_id id;
    clattn__caps caps;
    int64_t rank; /* higher is better */
    char *why;
} clattn__device;

/* Fills everything. OUT_OF_MEMORY is the host's; whatever the driver gets wrong is DEVICE_FAILED. */
clattn_status clattn__device_query(cl_platform_id platform, cl_device_id id, clattn__device *device);
void clattn__device_clear(clattn__device *device);
/* From what drivers write; number: PCI vendor, or 0. */
clattn__vendor clattn__vendor_of(const char *text, cl_uint number);
clattn__runtime clattn__runtime_of(const char *platform);
void clattn__device_info(const clattn__device *device, int index, clattn_device_info *info);

/* select.c, over plain structs so that tests need no driver. */
void clattn__device_rank(clattn__device *device);                       /* sets rank and why */
bool clattn__device_same(const clattn__caps *a, const clattn__caps *b); /* one piece of hardware seen twice */
clattn_status clattn__device_select(const clattn__device *devices, int count, const char *selector, int *index);

/* matrix.c: replaces the device's engine by what the context's option asks for; NULL leaves it as it is. */
clattn_status clattn__matrix_override(clattn__caps *caps, const char *wanted);
int clattn__matrix_named(const char *name);   /* "nv", "wmma11", ...: an engine of cl/shared/matrix.h, or MATRIX_NONE */
const char *clattn__matrix_brand(int engine); /* what its maker calls it; "" for MATRIX_NONE */

/* quirks.c: the table, applied to caps->quirks; reasons go to the log at debug level. */
uint32_t clattn__quirks_of(const clattn__caps *caps);
const char *clattn__quirk_reason(const clattn__caps *caps, clattn__quirk quirk); /* NULL when it does not apply */

/* pretend.c: overwrites what `text` names, as clattn_context_options.pretend describes, and the quirks that follow. */
clattn_status clattn__caps_pretend(clattn__caps *caps, const char *text);

/* list.c: the public list; `devices` is what the rest of the library uses. */
void clattn__devices_sort(clattn__device *devices, int count); /* best first; ties by platform, name, PCI place, uuid */
struct clattn_device_list {
    clattn__device *devices;
    int count;
    char **skipped;
    int skipped_count;
};

/* env.c: one device at work. Everything above is handed this. */
typedef struct clattn__env {
    clattn__device device;
    cl_context context;
    cl_command_queue queue;
    bool owns_queue;          /* it is not the caller's */
    cl_device_id held_device; /* retained: the caller's own (it may be a sub-device), or the part in use; else NULL */
    clattn__log log;
    char *cache_dir;  /* NULL: keep nothing on disk */
    char *kernel_dir; /* NULL: embedded kernels */
    clattn_verify_mode verify;
    bool profiling;
    bool clblast;                   /* CLBlast holds programs of this context; guarded by the process's lock */
    size_t memory_now, memory_peak; /* device bytes allocated through clattn__buffer_create; guarded by lock */
    clattn__mutex *lock;
} clattn__env;
clattn_status clattn__env_create(clattn__env *env, const clattn_context_options *options); /* options never NULL */
clattn_status clattn__env_adopt(clattn__env *env, cl_context context, cl_device_id device, cl_command_queue queue,
                                const clattn_context_options *options);
/* What a built program and a verdict on it hold for: this device with this driver under this version of the library. */
void clattn__env_key(const clattn__env *env, char key[33]);
/* partition.c: from here on only so many of the device's compute units; 0, or as many as it has: all. */
clattn_status clattn__env_partition(clattn__env *env, int units);
/* Blocks until the event is complete; on a part of a device no more threads work than it has units. */
clattn_status clattn__event_wait(clattn__env *env, cl_event event);
/* Waits for all that the queue holds, unless the queue is the caller's. Comes before kernels and programs are let go:
 * with the last hold on one of them, a thread of the driver would take it down while the process ends. */
void clattn__env_finish(clattn__env *env);
void clattn__env_clear(clattn__env *env); /* accepts half-built ones */

/* buffer.c */
typedef struct clattn__buffer {
    cl_mem mem;
    size_t bytes;
} clattn__buffer;
clattn_status clattn__buffer_create(clattn__env *env, size_t bytes, clattn__buffer *buffer); /* bytes 0 becomes 1 */
void clattn__buffer_clear(clattn__env *env, clattn__buffer *buffer);
/* Blocking, on the context's queue. */
clattn_status clattn__buffer_write(clattn__env *env, cl_mem mem, size_t offset, size_t bytes, const void *data);
clattn_status clattn__buffer_read(clattn__env *env, cl_mem mem, size_t offset, size_t bytes, void *data);

/* Small data, taken at once and written when the queue comes to it: nothing blocks. offset and bytes are multiples of
 * CLATTN__PUT_BYTES, the largest pattern that OpenCL fills with. */
enum { CLATTN__PUT_BYTES = 128 };
clattn_status clattn__buffer_put(clattn__env *env, cl_mem mem, size_t offset, size_t bytes, const void *data);

/* How a run lends host memory to the device. Where the device works on the host's own memory it is wrapped
 * (CL_MEM_USE_HOST_PTR) and nothing is copied; elsewhere it goes through a staging buffer that the caller keeps between
 * runs (grown when too small). Nothing here blocks: the host memory stays lent until what was enqueued is complete. */
typedef struct clattn__loan {
    cl_mem mem;
    void *host;
    size_t bytes;
    bool output;
    bool wrapped;
} clattn__loan;
bool clattn__loan_in_place(const clattn__caps *caps, const void *host, size_t bytes); /* whether it would be wrapped */
clattn_status clattn__loan_begin(clattn__env *env, void *host, size_t bytes, bool output, clattn__buffer *staging,
                                 clattn__loan *loan);
/* Enqueues the way of an output back to the host; inputs have none. *last becomes the event that completes when it is
 * there, in place of the event that it was. */
clattn_status clattn__loan_return(clattn__env *env, const clattn__loan *loan, cl_event *last);
/* Releases the wrapping, when nothing works on it any more. */
void clattn__loan_end(clattn__loan *loan);

#endif
