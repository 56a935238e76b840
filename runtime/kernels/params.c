/* Parameters of kernels: lists of candidate sets, and preparation with the first that works. */
#include <stdio.h>
#include <string.h>

#include "kernels/impl.h"

static int find(const clattn__candidates *list, const clattn__params *set) {
    for (int i = 0; i < list->count; i++)
        if (memcmp(&list->set[i], set, sizeof *set) == 0) return i;
    return -1;
}

void clattn__candidates_add(clattn__candidates *list, clattn__params set) {
    if (list->count < CLATTN__CANDIDATES && find(list, &set) < 0) list->set[list->count++] = set;
}

bool clattn__candidates_prefer(clattn__candidates *list, const clattn__params *set) {
    const int at = find(list, set);
    if (at < 0) return false;
    const clattn__params first = list->set[at];
    memmove(&list->set[1], &list->set[0], (size_t)at * sizeof list->set[0]);
    list->set[0] = first;
    return true;
}

void clattn__params_text(const char *const *names, const clattn__params *params, char *text, size_t capacity) {
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < CLATTN__PARAMS && names[i] && used < capacity; i++) {
        const int added =
            snprintf(text + used, capacity - used, "%s%s %d", i > 0 ? ", " : "", names[i], params->value[i]);
        used += added > 0 ? (size_t)added : 0;
    }
}

/* ---- preparation ------------------------------------------------------------------------------------------------ */

/* Prepares with one set; spilled: bytes of a work-item that lie in memory instead of registers. */
typedef clattn_status (*attempt_fn)(void *kernel, const clattn__params *set, size_t *spilled);

/* The first set that runs and leaves no more than FEW_BYTES in memory; else, after MOST_SPILLING that leave more, the
 * first that ran. Each costs a compilation. */
static clattn_status prepare_first(const clattn__candidates *list, attempt_fn attempt, void *kernel) {
    enum { FEW_BYTES = 128, MOST_SPILLING = 3 };
    int spilling = 0, first = -1;
    clattn_status status = CLATTN_UNSUPPORTED;
    for (int i = 0; i < list->count && spilling < MOST_SPILLING; i++) {
        size_t spilled = 0;
        status = attempt(kernel, &list->set[i], &spilled);
        if (status != CLATTN_OK && status != CLATTN_UNSUPPORTED) return status;
        if (status == CLATTN_OK && (spilled <= FEW_BYTES || list->count == 1 || (list->timed && i == 0))) return status;
        if (status == CLATTN_OK && first < 0) first = i;
        spilling += status == CLATTN_OK;
    }
    size_t spilled;
    return first < 0 ? status : attempt(kernel, &list->set[first], &spilled);
}

static void tell_spilled(char *tiles, size_t capacity, size_t spilled) {
    const size_t used = strlen(tiles);
    if (spilled)
        snprintf(tiles + used, capacity - used, "%s%zu bytes of each work-item in memory for want of registers",
                 used ? ", " : "", spilled);
}

/* ---- attention -------------------------------------------------------------------------------------------------- */

void clattn__attn_candidates(const clattn__attn_impl *impl, const clattn__attn_problem *problem,
                             const clattn__caps *caps, clattn__candidates *list) {
    *list = (clattn__candidates){.count = impl->candidates ? 0 : 1};
    if (impl->candidates) impl->candidates(problem, caps, list);
}

typedef struct attn_attempt {
    clattn__attn_kernel start, *kernel;
} attn_attempt;

static clattn_status attempt_attn(void *user, const clattn__params *set, size_t *spilled) {
    attn_attempt *a = user;
    clattn__attn_kernel *kernel = a->kernel;
    clattn__attn_kernel_clear(kernel);
    *kernel = a->start;
    kernel->params = *set;
    const clattn_status status = kernel->impl->prepare(kernel);
    if (status != CLATTN_OK) return status;
    *spilled = clattn__kernel_spilled(kernel->programs, kernel->kernel);
    tell_spilled(kernel->tiles, sizeof kernel->tiles, *spilled);
    return CLATTN_OK;
}

clattn_status clattn__attn_prepare(clattn__attn_kernel *kernel, const clattn__candidates *list) {
    attn_attempt a = {*kernel, kernel};
    clattn__candidates own;
    if (!list) clattn__attn_candidates(kernel->impl, &kernel->problem, &kernel->programs->env->device.caps, &own);
    if (!list) list = &own;
    if (!list->count) return clattn__fail(CLATTN_UNSUPPORTED, "%s has no tile for this problem", kernel->impl->name);
    return prepare_first(list, attempt_attn, &a);
}

/* ---- projections ------------------------------------------------------------------------------------------------ */

void clattn__gemm_candidates(const clattn__gemm_impl *impl, const clattn__gemm_problem *problem,
                             const clattn__caps *caps, clattn__candidates *list) {
    *list = (clattn__candidates){.count = impl->candidates ? 0 : 1};
    if (impl->candidates) impl->candidates(problem, caps, list);
}

typedef struct gemm_attempt {
    clattn__gemm_kernel start, *kernel;
    const float *w, *bias;
    int64_t w_row;
} gemm_attempt;

static clattn_status attempt_gemm(void *user, const clattn__params *set, size_t *spilled) {
    gemm_attempt *a = user;
    clattn__gemm_kernel *kernel = a->kernel;
    clattn__gemm_kernel_clear(kernel);
    *kernel = a->start;
    kernel->params = *set;
    const clattn_status status = kernel->impl->prepare(kernel, a->w, a->w_row, a->bias);
    if (status != CLATTN_OK) return status;
    *spilled = clattn__kernel_spilled(kernel->programs, kernel->kernel);
    tell_spilled(kernel->tiles, sizeof kernel->tiles, *spilled);
    return CLATTN_OK;
}

clattn_status clattn__gemm_prepare(clattn__gemm_kernel *kernel, const clattn__candidates *list, const float *w,
                                   int64_t w_row, const float *bias) {
    gemm_attempt a = {*kernel, kernel, w, bias, w_row};
    clattn__candidates own;
    if (!list) clattn__gemm_candidates(kernel->impl, &kernel->problem, &kernel->programs->env->device.caps, &own);
    if (!list) list = &own;
    if (!list->count) return clattn__fail(CLATTN_UNSUPPORTED, "%s has no tile for this problem", kernel->impl->name);
    return prepare_first(list, attempt_gemm, &a);
}
