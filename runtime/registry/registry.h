/* Which kernel serves a problem on a device, and whether it may be trusted. */
#ifndef CLATTN_REGISTRY_H
#define CLATTN_REGISTRY_H

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

/* The context as everything below the API sees it. */
struct clattn_context {
    clattn__env env;
    clattn__programs programs;
    clattn__trust trust;
};

/* The ordered lists, best first; NULL ends them. */
extern const clattn__attn_impl *const clattn__attn_list[];
extern const clattn__gemm_impl *const clattn__gemm_list[];

bool clattn__attn_serves(const clattn__attn_impl *impl, const clattn__attn_problem *problem, const clattn__caps *caps,
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

/* verify.c: runs adversarial cases of the kernel's own variant against ref/. OK, or WRONG_RESULT with the last error
 * naming case, place and both values. stats may be NULL. */
typedef struct clattn__verify_stats {
    int cases, failures;
    double worst; /* error / tolerance */
} clattn__verify_stats;
clattn_status clattn__attn_verify(clattn__attn_kernel *kernel, bool long_form, clattn__verify_stats *stats);
clattn_status clattn__gemm_verify(clattn_context *context, const clattn__gemm_impl *impl,
                                  const clattn__gemm_problem *problem, bool long_form, clattn__verify_stats *stats);

/* verify_ops.c: the same for a small kernel (clattn__op), by entry name and variant; one that is not listed there is
 * refused. program: receives the build that was tried, whose key with the name identifies it; may be NULL. */
clattn_status clattn__op_verify(clattn_context *context, const char *name, const clattn__op_variant *variant,
                                clattn__verify_stats *stats, clattn__program **program);
/* Verifies an op before its first use on this device, or looks up that it has been. A small kernel has no other to step
 * down to: WRONG_RESULT with the counter-example when it does not reproduce the reference. */
clattn_status clattn__op_trust(clattn_context *context, const clattn__op *op);
void clattn__op_trust_key(const clattn_context *context, const char *name, const clattn__program *program,
                          char key[33]);

/* variants.c: calls one of these for each variant of each kernel, whether the device takes it or not. */
typedef struct clattn__variants {
    void (*attention)(void *user, const clattn__attn_impl *impl, const clattn__attn_problem *problem);
    void (*gemm)(void *user, const clattn__gemm_impl *impl, const clattn__gemm_problem *problem);
    void (*op)(void *user, const char *name, const clattn__op_variant *variant);
    void *user;
    bool wide_tiles; /* attention on 16-bit storage at the second width too */
} clattn__variants;
void clattn__variants_walk(const clattn__variants *visit);

/* sources.c: the body of clattn_kernel_sources. */
clattn_status clattn__kernel_sources(clattn_context *context, clattn_source_fn report, void *user);

/* verify_all.c: the body of clattn_verify. */
clattn_status clattn__verify_all(clattn_context *context, clattn_verify_fn report, void *user);

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
