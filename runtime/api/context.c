#include "clattn/interop.h"

#include <string.h>

#include "api/rules.h"
#include "registry/registry.h"

static clattn_status check_options(const clattn_context_options *in, clattn_context_options *options) {
    clattn_context_options_init(options);
    if (!in) return CLATTN_OK;
    CLATTN__TRY(clattn__check_struct_size("clattn_context_options", in->struct_size,
                                          offsetof(clattn_context_options, profiling), sizeof *options));
    memcpy(options, in, in->struct_size);
    if (options->compute_units < 0)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "options.compute_units is %d; it must be >= 0",
                            options->compute_units);
    if ((int)options->verify < 0 || options->verify > CLATTN_VERIFY_NEVER)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "options.verify is %d; it must be in 0..2", (int)options->verify);
    return CLATTN_OK;
}

/* With `queue` NULL the device is chosen by the selector. */
static clattn_status create(clattn_context **out, const clattn_context_options *in, cl_context cl, cl_device_id device,
                            cl_command_queue queue) {
    if (!out) return clattn__fail(CLATTN_INVALID_ARGUMENT, "out is NULL");
    *out = NULL;
    clattn_context_options options;
    clattn_status status = check_options(in, &options);
    if (status != CLATTN_OK) return status;
    if (queue && options.compute_units)
        return clattn__fail(CLATTN_INVALID_ARGUMENT,
                            "options.compute_units is %d; a device of the caller is used as it is, so it must be 0",
                            options.compute_units);
    clattn_context *context = clattn__alloc(1, sizeof *context);
    if (!context) return CLATTN_OUT_OF_MEMORY;
    status = queue ? clattn__env_adopt(&context->env, cl, device, queue, &options)
                   : clattn__env_create(&context->env, &options);
    if (status == CLATTN_OK) status = clattn__programs_create(&context->programs, &context->env);
    if (status == CLATTN_OK) status = clattn__trust_create(&context->trust);
    if (status == CLATTN_OK) status = clattn__tuning_create(&context->tuning, options.ignore_tuning != 0);
    if (status == CLATTN_OK) status = clattn__clblast_override(&context->env, options.clblast_parameters);
    if (status != CLATTN_OK) clattn_context_destroy(&context);
    *out = context;
    return status;
}

clattn_status clattn_context_create(clattn_context **out, const clattn_context_options *options) {
    return create(out, options, NULL, NULL, NULL);
}

clattn_status clattn_context_create_from(clattn_context **out, cl_context context, cl_device_id device,
                                         cl_command_queue queue, const clattn_context_options *options) {
    if (out) *out = NULL;
    if (!context || !device || !queue)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is NULL", !context ? "context" : !device ? "device" : "queue");
    return create(out, options, context, device, queue);
}

void clattn_context_destroy(clattn_context **context) {
    if (!context || !*context) return;
    clattn__env_finish(&(*context)->env);
    clattn__clblast_leave(&(*context)->env);
    clattn__tuning_clear(&(*context)->tuning);
    clattn__trust_clear(&(*context)->trust);
    clattn__programs_clear(&(*context)->programs);
    clattn__env_clear(&(*context)->env);
    clattn__free(*context);
    *context = NULL;
}

clattn_status clattn_context_device(const clattn_context *context, clattn_device_info *info) {
    if (!context || !info) return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is NULL", context ? "info" : "context");
    clattn__device_info(&context->env.device, 0, info);
    return CLATTN_OK;
}

clattn_status clattn_context_finish(clattn_context *context) {
    if (!context) return clattn__fail(CLATTN_INVALID_ARGUMENT, "context is NULL");
    cl_int code = clFinish(context->env.queue);
    return code == CL_SUCCESS ? CLATTN_OK : clattn__cl_fail(code, "clFinish", context->env.device.caps.name);
}

clattn_status clattn_context_memory(const clattn_context *context, size_t *now, size_t *peak) {
    if (!context) return clattn__fail(CLATTN_INVALID_ARGUMENT, "context is NULL");
    clattn__mutex_lock(context->env.lock);
    if (now) *now = context->env.memory_now;
    if (peak) *peak = context->env.memory_peak;
    clattn__mutex_unlock(context->env.lock);
    return CLATTN_OK;
}

clattn_status clattn_context_limits(clattn_context *context, clattn_limits *limits) {
    if (!context || !limits) return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is NULL", context ? "limits" : "context");
    return clattn__limits_measure(&context->programs, limits);
}

clattn_status clattn_context_trust(clattn_context *context, int *verified, int *quarantined) {
    if (!context) return clattn__fail(CLATTN_INVALID_ARGUMENT, "context is NULL");
    clattn__trust_load(context);
    int counts[3] = {0};
    clattn__mutex_lock(context->trust.lock);
    for (const clattn__trust_entry *entry = context->trust.first; entry; entry = entry->next) counts[entry->state]++;
    clattn__mutex_unlock(context->trust.lock);
    if (verified) *verified = counts[CLATTN_TRUST_VERIFIED];
    if (quarantined) *quarantined = counts[CLATTN_TRUST_QUARANTINED];
    return CLATTN_OK;
}

const char *clattn_context_quarantined(const clattn_context *context, int i) {
    if (!context || i < 0) return NULL;
    const char *detail = NULL;
    clattn__mutex_lock(context->trust.lock);
    for (const clattn__trust_entry *entry = context->trust.first; entry && !detail; entry = entry->next)
        if (entry->state == CLATTN_TRUST_QUARANTINED && i-- == 0) detail = entry->detail ? entry->detail : "";
    clattn__mutex_unlock(context->trust.lock);
    return detail;
}
