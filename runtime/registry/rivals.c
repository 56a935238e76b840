/* Rivals: kernels of which either may be the faster one, by device. Which is tried first was measured, by clattn_tune
 * or, of projections, here: at the first plan whose products a workload stands for, each rival is timed on that
 * workload, and the times are kept with all that is measured. Nothing is where there is no choice: on CPUs gemm_cpu
 * leaves no doubt. Rivals of attention wait for clattn_tune, since their workloads are too large to pass unnoticed. */
#include "registry/registry.h"

#include <stdio.h>
#include <string.h>

int clattn__turn_of(int i, int fastest) { return i == 0 ? fastest : i <= fastest ? i - 1 : i; }

int clattn__attn_fastest(clattn_context *context, const clattn__attn_problem *problem) {
    const int workload = clattn__workload_of_attention(problem, &context->env.device.caps);
    clattn__measured best;
    if (workload < 0 || !clattn__tuning_best(context, workload, NULL, &best)) return 0;
    for (int i = 0; clattn__attn_list[i]; i++)
        if (strcmp(clattn__attn_list[i]->name, best.kernel) == 0) return i;
    return 0;
}

/* ---- projections ------------------------------------------------------------------------------------------------ */

/* Kernels that would have to be compared; 0 where they shall not. */
static int count_rivals(const clattn_context *context, const clattn__gemm_problem *problem) {
    const clattn__caps *caps = &context->env.device.caps;
    int count = 0;
    bool more = true;
    for (int i = 0; clattn__gemm_list[i] && more; i++) {
        const clattn__gemm_impl *impl = clattn__gemm_list[i];
        const clattn__gemm_problem fitting = clattn__gemm_fitted(impl, problem);
        clattn__refusal why;
        if (!clattn__gemm_serves(impl, &fitting, caps, &why)) continue;
        if (impl->uses_engine && caps->matrix.emulated) return 0; /* asked for, and slow */
        more = impl->has_rival;
        count++;
    }
    return count;
}

static void tell_times(clattn_context *context, int workload, double seconds, double timed) {
    clattn__text line = {0};
    for (int i = 0; clattn__gemm_list[i]; i++) {
        const char *name = clattn__gemm_list[i]->name;
        clattn__measured row;
        if (clattn__tuning_best(context, workload, name, &row))
            clattn__text_add(&line, ", %s %.3f ms", name, 1e-6 * (double)row.nanoseconds);
        else if (clattn__tuning_sets(context, workload, name))
            clattn__text_add(&line, ", %s failed", name);
    }
    if (line.data)
        clattn__log_text(&context->env.log, CLATTN_LOG_INFO, "%s measured in %.2f seconds, %.2f of them timed%s",
                         clattn__workloads[workload].name, seconds, timed, line.data);
    clattn__text_free(&line);
}

/* Once per context; what is in the cache folder by then is not measured again. */
static void settle(clattn_context *context, int workload, const clattn__gemm_problem *problem) {
    clattn__tuning *tuning = &context->tuning;
    if (tuning->ignored || context->programs.recorder || count_rivals(context, problem) < 2) return;
    clattn__mutex_lock(tuning->settling);
    if (!(tuning->settled & UINT32_C(1) << workload)) {
        const double start = clattn__os_seconds();
        double timed;
        if (clattn__tune_rivals(context, workload, &timed))
            tell_times(context, workload, clattn__os_seconds() - start, timed);
        tuning->settled |= UINT32_C(1) << workload;
    }
    clattn__mutex_unlock(tuning->settling);
}

int clattn__gemm_fastest(clattn_context *context, const clattn__gemm_problem *problem) {
    const int workload = clattn__workload_of_gemm(problem);
    clattn__measured best;
    if (workload < 0) return 0;
    settle(context, workload, problem);
    if (!clattn__tuning_best(context, workload, NULL, &best)) return 0;
    for (int i = 0; clattn__gemm_list[i]; i++)
        if (strcmp(clattn__gemm_list[i]->name, best.kernel) == 0) return i;
    return 0;
}

/* ---- in words --------------------------------------------------------------------------------------------------- */

bool clattn__rival_text(clattn_context *context, int workload, const char *name, const char *taken, char *text,
                        size_t capacity) {
    clattn__measured row, best;
    if (workload < 0 || !clattn__tuning_best(context, workload, taken, &best) ||
        !clattn__tuning_sets(context, workload, name))
        return false;
    const char *what = clattn__workloads[workload].name;
    if (!clattn__tuning_best(context, workload, name, &row)) {
        snprintf(text, capacity, "failed here where it was measured (%s)", what);
        return true;
    }
    const double ratio = (double)row.nanoseconds / (double)best.nanoseconds;
    char day[32] = "";
    if (row.day) snprintf(day, sizeof day, " on %04d-%02d-%02d", row.day / 10000, row.day / 100 % 100, row.day % 100);
    if (ratio * CLATTN__WORTH > 1)
        snprintf(text, capacity, "takes %.2f times as long as %s here, measured%s (%s)", ratio, taken, day, what);
    else if (ratio >= CLATTN__WORTH)
        snprintf(text, capacity, "is as fast as %s here, measured%s (%s)", taken, day, what);
    else
        return false; /* it was the fastest, and failed since */
    return true;
}
