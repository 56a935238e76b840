/* Tuning: the tile sizes that are fastest on this very device, found by trying.
 *
 * A kernel's parameters (clattn_attention_explain names them) come from the first of these that says something:
 *   1. what clattn_tune measured on this device, with this driver and this version of the library;
 *   2. values that ship with the library for the device's architecture, measured on such a device;
 *   3. the kernel's own choice, which follows from the device's limits.
 * The same holds for the choice between two kernels of which either may be faster. Nothing is measured unless
 * clattn_tune is called, but for one thing: where several kernels could project on a GPU, they are timed against each
 * other, each as it would be taken, when a plan first has products that one of the workloads below stands for. The
 * timed runs take half a second together, or two runs of each where that is longer. What they found is kept, and told,
 * like any other measurement. Parameters do not change what is computed: each candidate has to reproduce the scalar
 * reference before it is kept. */
#ifndef CLATTN_TUNE_H
#define CLATTN_TUNE_H

#include "clattn/context.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum clattn_tune_outcome {
    CLATTN_TUNE_MEASURED = 0,
    CLATTN_TUNE_KNOWN = 1, /* measured by an earlier call */
    CLATTN_TUNE_WRONG = 2, /* it did not reproduce the reference: never used */
    CLATTN_TUNE_FAILED = 3 /* it could not be built or run: never used */
} clattn_tune_outcome;

/* One candidate. Strings are valid during the callback only. */
typedef struct clattn_tune_step {
    int index, count;       /* which candidate of how many, from 1 */
    const char *workload;   /* "prefill-64-32bit": what it was measured on, see clattn_tune_choice */
    const char *kernel;     /* "attn_cpu" */
    const char *parameters; /* "lanes 16, vectors 4" */
    int own;                /* 1: what the kernel would choose itself */
    clattn_tune_outcome outcome;
    double seconds;     /* of one run; 0 when there was none */
    const char *detail; /* what went wrong; "" */
} clattn_tune_step;
/* Returns 0 to go on; anything else stops, and keeps what was measured. Must not call clattn. */
typedef int (*clattn_tune_fn)(void *user, const clattn_tune_step *step);

typedef struct clattn_tune_options {
    size_t struct_size; /* set by clattn_tune_options_init */
    double seconds;     /* stop after about so long, > 0; default 0: 10. What is left is for the next call */
    int again;          /* 1: forget earlier measurements of this device and driver first */
    clattn_tune_fn progress;
    void *user;
} clattn_tune_options;
CLATTN_API void clattn_tune_options_init_sized(clattn_tune_options *options, size_t caller_size);
#define clattn_tune_options_init(o) clattn_tune_options_init_sized((o), sizeof *(o))

typedef struct clattn_tune_result {
    int candidates; /* that there are */
    int measured;   /* by this call */
    int known;      /* from earlier ones */
    int rejected;   /* by this call: wrong, or did not run */
    int remaining;  /* not tried yet: call again */
} clattn_tune_result;

/* Measures candidates on the context's device until all are done or the time is over, and keeps each result in the
 * context's cache folder at once, so that a call that was stopped or killed is continued by the next. Plans that are
 * created from then on use what was found, in this context and in later processes; existing plans stay as they are.
 * options and result may be NULL. FILE_FAILED when there is no cache folder, nothing can be written there, or a kernel
 * cannot be read; what was measured until then holds for this context. The device should have nothing else to do
 * meanwhile. */
CLATTN_API clattn_status clattn_tune(clattn_context *context, const clattn_tune_options *options,
                                     clattn_tune_result *result);

/* What measuring has settled for one kernel on one workload. A workload stands for problems of one kind: prefill (many
 * query rows, enough for all compute units; query_len and kv_len 512 or more), decode (one query row, kv_len 1024 or
 * more), both for head sizes 33..64 or 65..128; gemm (128 rows or more) and gemm-few (at most 16), k and n 256 or more;
 * each for float32 or 16 bits. Other problems keep the parameters that follow from limits. Strings belong to the
 * library. */
typedef struct clattn_tune_choice {
    const char *workload;
    const char *kernel;
    char parameters[128];        /* the fastest; others than the kernel's own only when they save 3 percent or more */
    double seconds, own_seconds; /* of one run, with these parameters and with the kernel's own */
    int preferred;               /* 1: the kernel that is tried first for such problems */
} clattn_tune_choice;
/* The i-th choice; INVALID_ARGUMENT behind the last. */
CLATTN_API clattn_status clattn_tuned(clattn_context *context, int i, clattn_tune_choice *choice);

#ifdef __cplusplus
}
#endif
#endif
