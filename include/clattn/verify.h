/* Verification on demand: the long form of what every kernel variant goes through before its first use. */
#ifndef CLATTN_VERIFY_H
#define CLATTN_VERIFY_H

#include "clattn/context.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One kernel variant on one device. Strings are valid during the callback only. */
typedef struct clattn_verify_result {
    const char *kernel;
    const char *variant; /* build options that shape the binary */
    int cases;           /* cases run */
    int failures;
    double worst; /* greatest error as a fraction of its tolerance; > 1 or NaN is a failure */
    const char
        *detail; /* the first failure: case, place, both values; or why the kernel refused; "" when all is well */
    int refused; /* the kernel does not serve this device or feature set */
} clattn_verify_result;
typedef void (*clattn_verify_fn)(void *user, const clattn_verify_result *result);

typedef struct clattn_verify_options {
    size_t struct_size; /* set by clattn_verify_options_init */
    const char *kernel; /* default NULL: all of them; else this one: "attn_tiled", "gemm_cpu", "layer_norm", ... */
    int brief;          /* default 0; 1: each kernel with each feature it has, in few variants and short cases, where
                           the long form would take minutes (an emulator, a slow compiler) */
    int most;           /* default 0: all variants; else the first so many of each kernel */
} clattn_verify_options;
CLATTN_API void clattn_verify_options_init_sized(clattn_verify_options *options, size_t caller_size);
#define clattn_verify_options_init(o) clattn_verify_options_init_sized((o), sizeof *(o))

/* Verifies every kernel of the registry over many variants on the context's device, and renews the trust record.
 * OK when all agree, WRONG_RESULT when any differs or fails. */
CLATTN_API clattn_status clattn_verify(clattn_context *context, clattn_verify_fn report, void *user);
/* The same as the options say; NULL: the long form of all. INVALID_ARGUMENT when no kernel has the name. */
CLATTN_API clattn_status clattn_verify_with(clattn_context *context, const clattn_verify_options *options,
                                            clattn_verify_fn report, void *user);

/* One program as a driver would be given it. Strings are valid during the callback only. */
typedef struct clattn_program_source {
    const char *kernel;  /* whose program it is: "attn_tiled", or a small kernel like "layer_norm" */
    const char *variant; /* in words */
    const char *file;    /* "attn_tiled.cl" */
    const char *options; /* for the OpenCL compiler */
    const char *source;  /* whole: includes are in place */
    const char *key;     /* 32 hex digits of options and source */
    int alternative;     /* 1: of a variant listed before, with a tile that tuning tries or few queries are given */
} clattn_program_source;
typedef void (*clattn_source_fn)(void *user, const clattn_program_source *program);

/* Reports the programs that the kernels of the registry would have built on the context's device, for each of many
 * variants; nothing is built or run. With clattn_context_options.pretend, those of a device that is not at hand.
 * Variants and kernels that share a program report the same key; an alternative is reported when no variant before it
 * has its program. */
CLATTN_API clattn_status clattn_kernel_sources(clattn_context *context, clattn_source_fn report, void *user);

/* The registry, for listings: attention kernels in the order in which they are tried, then projections. Strings are
 * constants. */
typedef struct clattn_kernel_info {
    const char *name;  /* "attn_cpu": what desc.kernel, attention_kernel and gemm_kernel take */
    const char *kind;  /* "attention" or "projection" */
    const char *what;  /* one line */
    uint64_t features; /* bit i: it serves clattn_feature_name(i); projections: 0 */
} clattn_kernel_info;
CLATTN_API int clattn_kernel_count(void);
CLATTN_API clattn_status clattn_kernel_get(int index, clattn_kernel_info *info);
/* "causal", "window", ...; NULL behind the last. */
CLATTN_API const char *clattn_feature_name(int index);

#ifdef __cplusplus
}
#endif
#endif
