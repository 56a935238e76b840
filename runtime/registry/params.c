/* Which parameters a kernel takes: what was measured here, then what ships for the architecture, then the kernel's own
 * choice. */
#include "registry/registry.h"

#include <string.h>

static const char *const MEASURED = "measured on this device";
static const char *const OWN = "from the device's limits";

static void choose(clattn_context *context, int workload, const char *kernel, clattn__choice *choice) {
    clattn__measured measured;
    choice->own = choice->list;
    choice->origin = OWN;
    if (workload < 0) return;
    /* one set that was measured alone, to compare the kernel with another, says nothing about the others */
    if (clattn__tuning_sets(context, workload, kernel) > 1 &&
        clattn__tuning_best(context, workload, kernel, &measured) &&
        clattn__candidates_prefer(&choice->list, &measured.params)) {
        choice->origin = MEASURED;
        choice->list.timed = true;
        return;
    }
    const clattn__shipped *shipped = clattn__shipped_for(&context->env.device.caps, workload, kernel);
    if (shipped && clattn__candidates_prefer(&choice->list, &shipped->params)) {
        choice->origin = shipped->architecture;
        choice->list.timed = true;
    }
}

void clattn__attn_choice(clattn_context *context, const clattn__attn_impl *impl, const clattn__attn_problem *problem,
                         clattn__choice *choice) {
    clattn__attn_candidates(impl, problem, &context->env.device.caps, &choice->list);
    choose(context, clattn__workload_of_attention(problem, &context->env.device.caps), impl->name, choice);
}

void clattn__gemm_choice(clattn_context *context, const clattn__gemm_impl *impl, const clattn__gemm_problem *problem,
                         clattn__choice *choice) {
    clattn__gemm_candidates(impl, problem, &context->env.device.caps, &choice->list);
    choose(context, clattn__workload_of_gemm(problem), impl->name, choice);
}

const char *clattn__choice_origin(const clattn__choice *choice, const clattn__params *taken) {
    return memcmp(&choice->list.set[0], taken, sizeof *taken) == 0 ? choice->origin : OWN;
}

bool clattn__choice_is_own(const clattn__choice *choice) { return choice->origin == OWN; }

const char *const *clattn__parameter_names(const char *kernel, const char **name) {
    for (int i = 0; clattn__attn_list[i]; i++)
        if (strcmp(*name = clattn__attn_list[i]->name, kernel) == 0) return clattn__attn_list[i]->params;
    for (int i = 0; clattn__gemm_list[i]; i++)
        if (strcmp(*name = clattn__gemm_list[i]->name, kernel) == 0) return clattn__gemm_list[i]->params;
    *name = "?"; /* a kernel that this build lacks */
    return NULL;
}
