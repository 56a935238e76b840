#include "clattn/tune.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/rules.h"
#include "registry/registry.h"

static clattn_status check_options(const clattn_tune_options *in, clattn_tune_options *options) {
    clattn_tune_options_init(options);
    if (!in) return CLATTN_OK;
    CLATTN__TRY(clattn__check_struct_size("clattn_tune_options", in->struct_size, sizeof *options, sizeof *options));
    *options = *in;
    CLATTN__TRY(clattn__check_finite("options.seconds", options->seconds));
    if (options->seconds < 0)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "options.seconds is %g; it must be >= 0", options->seconds);
    return CLATTN_OK;
}

clattn_status clattn_tune(clattn_context *context, const clattn_tune_options *options, clattn_tune_result *result) {
    clattn_tune_options checked;
    clattn_tune_result ignored;
    if (!context) return clattn__fail(CLATTN_INVALID_ARGUMENT, "context is NULL");
    CLATTN__TRY(check_options(options, &checked));
    if (context->tuning.ignored)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "the context ignores tuning; measure with one that does not");
    return clattn__tune(context, &checked, result ? result : &ignored);
}

clattn_status clattn_tuned(clattn_context *context, int i, clattn_tune_choice *choice) {
    clattn__measured row;
    bool preferred;
    if (!context || !choice) return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is NULL", context ? "choice" : "context");
    memset(choice, 0, sizeof *choice);
    if (i < 0 || !clattn__tuning_get(context, i, &row, &choice->own_seconds, &preferred))
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "i is %d; there is no such choice", i);
    const char *const *names = clattn__parameter_names(row.kernel, &choice->kernel);
    if (names) clattn__params_text(names, &row.params, choice->parameters, sizeof choice->parameters);
    choice->workload = clattn__workloads[row.workload].name;
    choice->seconds = 1e-9 * (double)row.nanoseconds;
    choice->preferred = preferred;
    return CLATTN_OK;
}
