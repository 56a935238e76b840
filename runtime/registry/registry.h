/* Which kernel serves a problem on a device, and whether it may be trusted. */
#ifndef CLATTN_REGISTRY_H
#define CLATTN_REGISTRY_H

#include "clattn/tune.h"
#include "clattn/verify.h"
#include "kernels/impl.h"

/* trust.c: what is known of kernel variants on this device and driver. */
typedef struct clattn__trust_entry {
    char key[33]; /* device, driver, platform, library version, program key */
    clattn_trust state;
    char *detail;
    struct clattn__trust_entry *next;
} clattn__trust_entry;
typedef struct clattn__trust {
    clattn__trust_entry *first;
    clattn__mutex *lock;
} clattn__trust;

/* workloads.c: problems that stand for many, by which measurements are kept. */
typedef enum clattn__workload_kind {
    CLATTN__PREFILL,
    CLATTN__DECODE,
    CLATTN__GEMM,
    CLATTN__GEMM_FEW
} clattn__workload_kind;
typedef struct clattn__workload {
    const char *name; /* "prefill-64-32bit" */
    clattn__workload_kind kind;
    int width;   /* of heads; 0 for products */
    bool narrow; /* 16-bit storage */
} clattn__workload;
extern const clattn__workload clattn__workloads[];
extern const int clattn__workload_count;
int clattn__workload_named(const char *name); /* its number; -1 when there is none */
/* Which workload stands for the problem; -1: none does. */
int clattn__workload_of_attention(const clattn__attn_problem *problem, const clattn__caps *caps);
int clattn__workload_of_gemm(const clattn__gemm_problem *problem);
clattn__attn_problem clattn__workload_attention(const clattn__workload *workload, const clattn__caps *caps);
clattn__gemm_problem clattn__workload_gemm(const clattn__workload *workload);

/* tuning.c: what was measured on this device. */
#define CLATTN__WORTH 0.97 /* of the own choice's time: what is not faster than that may be noise */
typedef struct clattn__measured {
    int workload;
    char kernel[32];
    clattn__params params;
    long long nanoseconds; /* of one run; 0: wrong, or it does not run */
    int day;               /* when it was recorded: 20261122 */
} clattn__measured;
typedef struct clattn__tuning {
    clattn__measured *rows; /* of one kernel and workload: its own choice first */
    int count, capacity;
    char *note;   /* why a file is ignored; NULL */
    bool ignored; /* asked for by the context's options */
    bool loaded;
    bool renewed; /* forget(): the next save replaces the file; others add to what is there by then */
    clattn__mutex *lock;
    uint32_t settled;        /* rivals.c: a bit for each workload whose rivals are known, or cannot be told apart */
    clattn__mutex *settling; /* held while they are timed: by one thread of a context at a time */
} clattn__tuning;

/* The context as everything below the API sees it. */
struct clattn_context {
    clattn__env env;
    clattn__programs programs;
    clattn__trust trust;
    clattn__tuning tuning;
};

/* The ordered lists, best first; NULL ends them. */
extern const clattn__attn_impl *const clattn__attn_list[];
extern const clattn__gemm_impl *const clattn__gemm_list[];

/* Whether a kernel named in the text (a name, or several as in clattn_plan_info.kernels) rounds weights to its storage
 * type. NULL names none. */
bool clattn__rounds_weights(const char *names);
bool clattn__attn_serves(const clattn__attn_impl *impl, const clattn__attn_problem *problem, const clattn__caps *caps,
                         clattn__refusal *why);
bool clattn__gemm_serves(const clattn__gemm_impl *impl, const clattn__gemm_problem *problem, const clattn__caps *caps,
                         clattn__refusal *why);
/* The first kernel that serves the problem, built or not; NULL when there is none. */
const clattn__attn_impl *clattn__attn_first(clattn_context *context, const clattn__attn_problem *problem,
                                            const char *forced);
/* Picks the first kernel that supports the problem, prepares and verifies it; a kernel that fails to build or to
 * reproduce the reference is passed over with a warning. forced: NULL or a name. notes receives one line per kernel
 * that was passed over. kernel is ready to enqueue on success. */
clattn_status clattn__attn_choose(clattn_context *context, const clattn__attn_problem *problem, const char *forced,
                                  clattn__attn_kernel *kernel, clattn__text *notes);
/* The problem as far as the kernel can serve it: the layer reads heads that are left side by side through strides, and
 * adds a step for an activation that is left out. */
clattn__gemm_problem clattn__gemm_fitted(const clattn__gemm_impl *impl, const clattn__gemm_problem *problem);
clattn_status clattn__gemm_choose(clattn_context *context, const clattn__gemm_problem *problem, const char *forced,
                                  const float *w, int64_t w_row, const float *bias, clattn__gemm_kernel *kernel,
                                  clattn__text *notes);

/* The same for one kernel with the first candidate of the list that it can run with. */
clattn_status clattn__attn_ready(clattn_context *context, const clattn__attn_impl *impl,
                                 const clattn__attn_problem *problem, const clattn__candidates *list,
                                 clattn__attn_kernel *kernel);
clattn_status clattn__gemm_ready(clattn_context *context, const clattn__gemm_impl *impl,
                                 const clattn__gemm_problem *problem, const clattn__candidates *list, const float *w,
                                 int64_t w_row, const float *bias, clattn__gemm_kernel *kernel);

/* params.c: the candidates of a kernel in the order in which they are to be tried, and where the first comes from. */
typedef struct clattn__choice {
    clattn__candidates list, own; /* own: as the kernel would have it */
    const char *origin;           /* of the first of list, in words */
} clattn__choice;
void clattn__attn_choice(clattn_context *context, const clattn__attn_impl *impl, const clattn__attn_problem *problem,
                         clattn__choice *choice);
void clattn__gemm_choice(clattn_context *context, const clattn__gemm_impl *impl, const clattn__gemm_problem *problem,
                         clattn__choice *choice);
bool clattn__choice_is_own(const clattn__choice *choice);
const char *clattn__choice_origin(const clattn__choice *choice, const clattn__params *taken); /* of the set taken */

/* rivals.c: where in its list the kernel stands that is tried first: the fastest on the problem's workload, as
 * measured; 0 when nothing says so. Projections that are rivals here are timed when it is asked for the first time. */
int clattn__attn_fastest(clattn_context *context, const clattn__attn_problem *problem);
int clattn__gemm_fastest(clattn_context *context, const clattn__gemm_problem *problem);
int clattn__turn_of(int i, int fastest); /* where the i-th to be tried stands */
/* Why a kernel was not taken that measuring compared with the one that was; false when it did not. */
bool clattn__rival_text(clattn_context *context, int workload, const char *name, const char *taken, char *text,
                        size_t capacity);

/* Of a kernel's parameters; *name receives its name as a constant. NULL when there is no such kernel. */
const char *const *clattn__parameter_names(const char *kernel, const char **name);

/* shipped.c: parameters for an architecture; zero or NULL fields match anything, runtime: -1. */
typedef struct clattn__shipped {
    const char *architecture; /* for explain: "shipped for ..." */
    clattn_device_type type;
    int runtime, lanes, engine, arch;
    const char *name; /* part of the device's name */
    const char *workload, *kernel;
    clattn__params params;
    const char *evidence; /* device, driver, date, what it gained */
} clattn__shipped;
const clattn__shipped *clattn__shipped_for(const clattn__caps *caps, int workload, const char *kernel);
/* The same in any table; kernel NULL ends it. */
const clattn__shipped *clattn__shipped_in(const clattn__shipped *table, const clattn__caps *caps, int workload,
                                          const char *kernel);

/* tuning.c. The file is read at the first question; a thread-safe context stays one. */
clattn_status clattn__tuning_create(clattn__tuning *tuning, bool ignored);
void clattn__tuning_clear(clattn__tuning *tuning);
/* The fastest of a kernel, or with kernel NULL of all; false when nothing usable was measured. */
bool clattn__tuning_best(clattn_context *context, int workload, const char *kernel, clattn__measured *row);
bool clattn__tuning_find(clattn_context *context, clattn__measured *row);           /* by its first three members */
int clattn__tuning_sets(clattn_context *context, int workload, const char *kernel); /* measured, usable or not */
/* The i-th (workload, kernel) with its fastest row. */
bool clattn__tuning_get(clattn_context *context, int index, clattn__measured *row, double *own_seconds,
                        bool *preferred);
void clattn__tuning_note(clattn_context *context, clattn__text *text); /* adds a line when a file is ignored */
void clattn__tuning_forget(clattn_context *context);
clattn_status clattn__tuning_record(clattn_context *context, const clattn__measured *row); /* or renews it */
clattn_status clattn__tuning_save(clattn_context *context); /* FILE_FAILED with the path */

/* tune.c: the body of clattn_tune. */
clattn_status clattn__tune(clattn_context *context, const clattn_tune_options *options, clattn_tune_result *result);
/* The same for one question: which of the projections that serve a workload is the fastest, each as it would be taken.
 * They get half a second, or two runs each where that is longer. What is known is not measured again,
 * and what cannot be measured is no failure. True when something was; timed: seconds of the timed runs. */
bool clattn__tune_rivals(clattn_context *context, int workload, double *timed);

/* tune_bench.c: a workload's operands on the device, and the kernels that compete on them. */
typedef struct clattn__bench clattn__bench;
typedef struct clattn__contender {
    clattn__attn_kernel attention; /* either this */
    clattn__gemm_kernel gemm;      /* or this */
} clattn__contender;
clattn_status clattn__bench_create(clattn_context *context, const clattn__workload *workload, clattn__bench **out);
void clattn__bench_destroy(clattn__bench **bench);
/* Prepares a kernel with the first of the list that it can run with, verifies it, runs it once and compares some rows
 * of the result with the reference. */
clattn_status clattn__bench_enter(clattn__bench *bench, const char *kernel, const clattn__candidates *list,
                                  clattn__contender *contender);
const clattn__params *clattn__contender_params(const clattn__contender *contender);
/* The shortest of several runs. */
clattn_status clattn__bench_time(clattn__bench *bench, clattn__contender *contender, int least_runs,
                                 double least_seconds, double *seconds);
void clattn__contender_clear(clattn__contender *contender);

/* verify.c: runs adversarial cases of the kernel's own variant against ref/. OK, or WRONG_RESULT with the last error
 * naming case, place and both values. stats may be NULL. */
typedef struct clattn__verify_stats {
    int cases, failures;
    double worst; /* error / tolerance */
    /* of a projection: what it is trusted as, "" when it was not prepared, and its program, if it has one */
    char variant[64];
    const clattn__program *program;
} clattn__verify_stats;
clattn_status clattn__attn_verify(clattn__attn_kernel *kernel, bool long_form, clattn__verify_stats *stats);
const char *clattn__gemm_variant(const clattn__gemm_kernel *kernel); /* registry.c: what it is trusted as */
clattn_status clattn__gemm_verify(clattn_context *context, const clattn__gemm_impl *impl,
                                  const clattn__gemm_problem *problem, const clattn__params *params, bool long_form,
                                  clattn__verify_stats *stats); /* params NULL: the kernel's own choice */

/* verify_ops.c: the same for a small kernel (clattn__op), by entry name and variant; one that is not listed there is
 * refused. program: receives the build that was tried, whose key with the name identifies it; may be NULL. */
clattn_status clattn__op_verify(clattn_context *context, const char *name, const clattn__op_variant *variant,
                                clattn__verify_stats *stats, clattn__program **program);
/* Verifies an op before its first use on this device, or looks up that it has been. A small kernel has no other to step
 * down to: WRONG_RESULT with the counter-example when it does not reproduce the reference. */
clattn_status clattn__op_trust(clattn_context *context, const clattn__op *op);
/* verify_engine.c: the same for the matrix engine, by its probe. */
clattn_status clattn__engine_trust(clattn_context *context, clattn_dtype dtype);
void clattn__op_trust_key(const clattn_context *context, const char *name, const clattn__program *program,
                          char key[33]);

/* variants.c: calls one of these for each variant of each kernel, whether the device takes it or not. */
typedef struct clattn__variants {
    void (*attention)(void *user, const clattn__attn_impl *impl, const clattn__attn_problem *problem);
    void (*gemm)(void *user, const clattn__gemm_impl *impl, const clattn__gemm_problem *problem);
    void (*op)(void *user, const char *name, const clattn__op_variant *variant);
    void *user;
    bool all_tiles;     /* those of 16-bit storage at more widths, and of large products, too */
    bool brief;         /* few variants, in which each kernel still meets each of its features */
    const char *kernel; /* only this one; NULL: all */
    int most;           /* variants of each kernel; 0: all */
} clattn__variants;
void clattn__variants_walk(const clattn__variants *visit);

/* sources.c: the body of clattn_kernel_sources. */
clattn_status clattn__kernel_sources(clattn_context *context, clattn_source_fn report, void *user);

/* verify_all.c: the body of clattn_verify_with; options are never NULL. */
clattn_status clattn__verify_all(clattn_context *context, const clattn_verify_options *options, clattn_verify_fn report,
                                 void *user);

/* trust.c */
clattn_status clattn__trust_create(clattn__trust *trust);
void clattn__trust_clear(clattn__trust *trust);
void clattn__trust_key(const clattn__env *env, const char *program_key, char key[33]);
clattn_trust clattn__trust_get(clattn_context *context, const char *key);
/* Reads what the cache folder knows of this device, so that counts are whole. */
void clattn__trust_load(clattn_context *context);
void clattn__trust_set(clattn_context *context, const char *key, clattn_trust state, const char *detail);
/* WRONG_RESULT with what is recorded of a quarantined kernel: for those that have no other to step down to. */
clattn_status clattn__trust_quarantined(clattn_context *context, const char *name, const char *key);
/* registry.c: records what a verification returned, with the last error as the counter-example; returns it too. */
clattn_status clattn__trust_record(clattn_context *context, const char *name, const clattn__program *variant,
                                   const char *key, clattn_status verified);

#endif
