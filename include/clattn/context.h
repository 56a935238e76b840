/* Devices and contexts. */
#ifndef CLATTN_CONTEXT_H
#define CLATTN_CONTEXT_H

#include "clattn/types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum clattn_device_type {
    CLATTN_DEVICE_CPU = 0,
    CLATTN_DEVICE_GPU = 1,
    CLATTN_DEVICE_OTHER = 2
} clattn_device_type;

/* One device as clattn sees it. Strings belong to the list or context that the struct came from. */
typedef struct clattn_device_info {
    int index; /* position in the ranked list: selector "0", "1", ... */
    clattn_device_type type;
    const char *name;
    const char *vendor;   /* as the driver spells it */
    const char *platform; /* platform name */
    const char *driver;   /* driver version */
    const char *version;  /* OpenCL version string of the device */
    const char *uuid;     /* 32 hex digits, "" when the driver reports none */
    uint32_t compute_units;
    uint32_t clock_mhz;
    uint32_t vector_width;     /* native float lanes */
    uint64_t global_memory;    /* bytes */
    uint64_t local_memory;     /* bytes */
    uint64_t second_cache;     /* bytes of a CPU core's second-level cache; 0: no CPU, or the system does not tell */
    uint64_t max_allocation;   /* bytes of one buffer */
    uint64_t max_work_group;   /* work-items */
    int unified_memory;        /* the device shares the host's memory */
    int fp16;                  /* cl_khr_fp16 */
    int subgroups;             /* cl_khr_subgroups, cl_intel_subgroups or core 2.1/3.0 */
    const char *matrix_engine; /* "tensor cores", "XMX", "WMMA", "MFMA" or "" */
    const char *why;           /* why it stands where it stands in the ranking, in words */
} clattn_device_info;

typedef struct clattn_device_list clattn_device_list;

/* Enumerates all platforms and devices, best first, duplicates dropped. A platform or device that fails is left out and
 * its reason kept (clattn_device_list_skipped). An empty list is a success. Any thread; *out is owned by the caller. */
CLATTN_API clattn_status clattn_device_list_create(clattn_device_list **out);
CLATTN_API void clattn_device_list_destroy(clattn_device_list **list);
CLATTN_API int clattn_device_list_count(const clattn_device_list *list);
CLATTN_API clattn_status clattn_device_list_get(const clattn_device_list *list, int index, clattn_device_info *info);
/* The i-th reason why a platform or device was left out; NULL behind the last. */
CLATTN_API const char *clattn_device_list_skipped(const clattn_device_list *list, int i);
/* Which device a selector picks (index), or NO_DEVICE with an error text that lists what there is. NULL or "": the
 * best. Selector: a kind ("gpu", "cpu"), an index ("2"), or key=value pairs joined by commas, all of which must match,
 * case ignored, value being part of the driver's text: platform=, device= (or name=), vendor= (amd, intel, nvidia, pocl
 * ... or part of the vendor's own spelling), type=gpu|cpu; "uuid:HEX" picks one physical device. Kinds and pairs may be
 * mixed: "gpu,platform=intel". */
CLATTN_API clattn_status clattn_device_list_select(const clattn_device_list *list, const char *selector, int *index);

typedef enum clattn_verify_mode {
    CLATTN_VERIFY_ONCE = 0,   /* each kernel variant once per device and driver; recorded in the cache folder */
    CLATTN_VERIFY_ALWAYS = 1, /* once per context, whatever is recorded */
    CLATTN_VERIFY_NEVER = 2   /* trust blindly: for measuring only */
} clattn_verify_mode;

typedef struct clattn_context_options {
    size_t struct_size;        /* set by clattn_context_options_init */
    const char *selector;      /* default NULL: the best device */
    clattn_verify_mode verify; /* default CLATTN_VERIFY_ONCE */
    const char *cache_dir;     /* default NULL: $XDG_CACHE_HOME/clattn or ~/.cache/clattn; "": keep nothing on disk */
    const char *kernel_dir;    /* default NULL: the kernels inside the library; else read .cl files from this folder,
                                  which must be there (FILE_FAILED) */
    clattn_log_fn log;         /* default NULL: silent */
    void *log_user;
    int profiling; /* default 0; 1 makes the context's queue with CL_QUEUE_PROFILING_ENABLE, for the caller: clattn
                      reads no times. The event of an enqueued run (clattn/interop.h) is a marker behind the run, so its
                      CL_PROFILING_COMMAND_END is when that ended; a marker that the caller puts into the queue first
                      (clattn_context_objects) tells when it could begin. A caller's own queue stays as it is */
    /* default NULL: the device's own, if it has one. "none": do without. "emulated:NAME" (nv, wmma11, wmma12, mfma32,
     * dpas8, dpas16): the kernel for that engine, its instructions replaced by OpenCL C 1.2, on any device; slow, for
     * tests. "emulated-subgroups:NAME" lets lanes meet in sub-group barriers. */
    const char *matrix_engine;
    int compute_units; /* default 0, or as many as there are and more: all that the device has. Fewer: a part of it,
                          where it can be divided (CL_DEVICE_PARTITION_BY_COUNTS; pocl's and Intel's CPU devices can),
                          else UNSUPPORTED. On a CPU each is one thread, so that an application keeps the others for
                          its own. Not for clattn_context_create_from: there the caller makes the sub-device */
    /* For tests and listings: default NULL; else key=value pairs joined by commas that overwrite what the device says
     * of itself, so that kernels are chosen as for that device while the real one builds and runs them: type (cpu, gpu,
     * other), name, vendor, platform, local_memory and second_cache (bytes), work_group (greatest number of items),
     * compute_units, clock_mhz, lanes (4, 8, 16), subgroups and fp16 (0, 1), subgroup_lanes (width that kernels pin:
     * 0, 8, 16, 32), matrix (nv:80, wmma11, wmma12, mfma32, dpas8, dpas16). "type=gpu,local_memory=16384,work_group=64"
     */
    const char *pretend;
    int ignore_tuning; /* default 0; 1: what was measured on this device (clattn/tune.h) is not used, nor is anything
                          measured when a plan is made */
    /* Default NULL: CLBlast, which projects on GPUs, takes the tuning parameters that it ships for the device. Else
     * "KERNEL NAME=VALUE ...", one kernel per line or between semicolons, '#' begins a comment: Xgemm (products of
     * large matrices), XgemmDirect (of small ones) and GemmRoutine (XGEMM_MIN_INDIRECT_SIZE, where one ends and the
     * other begins), for float32, each with all of its parameters, as CLBlast's tuners print them. They hold for the
     * device in the whole process, for CLBlast keeps them there and cannot give them back: so they must be given
     * before the first plan that uses CLBlast, and other contexts give the same or NULL; else INVALID_ARGUMENT.
     * UNSUPPORTED without CLBlast. What does not build or computes wrong with them is passed over like any kernel. */
    const char *clblast_parameters;
} clattn_context_options;

CLATTN_API void clattn_context_options_init_sized(clattn_context_options *options, size_t caller_size);
#define clattn_context_options_init(o) clattn_context_options_init_sized((o), sizeof *(o))

/* A device with its queue, built programs and trust record. May be shared by threads; must outlive what was made from
 * it. */
typedef struct clattn_context clattn_context;

/* options may be NULL. On failure *out is NULL. */
CLATTN_API clattn_status clattn_context_create(clattn_context **out, const clattn_context_options *options);
/* Waits for what is left in the context's own queue; a queue that the caller brought is let go as it is. */
CLATTN_API void clattn_context_destroy(clattn_context **context);
CLATTN_API clattn_status clattn_context_device(const clattn_context *context, clattn_device_info *info);
/* Blocks until everything enqueued on the context's queue has ended. */
CLATTN_API clattn_status clattn_context_finish(clattn_context *context);
/* Bytes of device memory that clattn holds in this context now, and the most it ever held (host memory that is only
 * wrapped does not count). Either pointer may be NULL. */
CLATTN_API clattn_status clattn_context_memory(const clattn_context *context, size_t *now, size_t *peak);

/* What the device can do at most, to judge measured times by. */
typedef struct clattn_limits {
    double multiply_add_gflops; /* 10^9 float32 operations per second in registers; a multiply-add counts two */
    double read_gbps;           /* 10^9 bytes per second read from memory, by all compute units, beyond the caches */
} clattn_limits;
/* Measures them on the context's device, best of several runs: takes about a second, and for that time up to 512 MiB of
 * device memory (which clattn_context_memory counts). Anything else that runs meanwhile lowers the figures. */
CLATTN_API clattn_status clattn_context_limits(clattn_context *context, clattn_limits *limits);

typedef enum clattn_trust {
    CLATTN_TRUST_UNKNOWN = 0,
    CLATTN_TRUST_VERIFIED = 1,
    CLATTN_TRUST_QUARANTINED = 2
} clattn_trust;
/* What is known of this device and driver, from this context and from the cache folder: the number of kernel variants
 * that reproduced the reference and of those that did not. Either pointer may be NULL. */
CLATTN_API clattn_status clattn_context_trust(clattn_context *context, int *verified, int *quarantined);
/* Text of the i-th quarantined variant (kernel, options, what went wrong); NULL behind the last. Owned by the context,
 * until it verifies that variant again. */
CLATTN_API const char *clattn_context_quarantined(const clattn_context *context, int i);

/* Library version, "0.1.0". */
CLATTN_API const char *clattn_version(void);

#ifdef __cplusplus
}
#endif
#endif
