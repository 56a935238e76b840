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

/* ---- attention -------------------------------------------------------------------------------------------------- */

void clattn__attn_candidates(const clattn__attn_impl *impl, const clattn__attn_problem *problem,
                             const clattn__caps *caps, clattn__candidates *list) {
    *list = (clattn__candidates){.count = impl->candidates ? 0 : 1};
    if (impl->candidates) impl->candidates(problem, caps, list);
}

clattn_status clattn__attn_prepare(clattn__attn_kernel *kernel, const clattn__candidates *list) {
    const clattn__attn_kernel start = *kernel;
    clattn__candidates own;
    if (!list) clattn__attn_candidates(start.impl, &start.problem, &start.programs->env->device.caps, &own);
    if (!list) list = &own;
    clattn_status status = clattn__fail(CLATTN_UNSUPPORTED, "%s has no tile for this problem", start.impl->name);
    for (int i = 0; i < list->count && status == CLATTN_UNSUPPORTED; i++) {
        clattn__attn_kernel_clear(kernel);
        *kernel = start;
        kernel->params = list->set[i];
        status = kernel->impl->prepare(kernel);
    }
    return status;
}

/* ---- projections ------------------------------------------------------------------------------------------------ */

void clattn__gemm_candidates(const clattn__gemm_impl *impl, const clattn__gemm_problem *problem,
                             const clattn__caps *caps, clattn__candidates *list) {
    *list = (clattn__candidates){.count = impl->candidates ? 0 : 1};
    if (impl->candidates) impl->candidates(problem, caps, list);
}

clattn_status clattn__gemm_prepare(clattn__gemm_kernel *kernel, const clattn__candidates *list, const float *w,
                                   int64_t w_row, const float *bias) {
    const clattn__gemm_kernel start = *kernel;
    clattn__candidates own;
    if (!list) clattn__gemm_candidates(start.impl, &start.problem, &start.programs->env->device.caps, &own);
    if (!list) list = &own;
    clattn_status status = clattn__fail(CLATTN_UNSUPPORTED, "%s has no tile for this problem", start.impl->name);
    for (int i = 0; i < list->count && status == CLATTN_UNSUPPORTED; i++) {
        clattn__gemm_kernel_clear(kernel);
        *kernel = start;
        kernel->params = list->set[i];
        status = kernel->impl->prepare(kernel, w, w_row, bias);
    }
    return status;
}
