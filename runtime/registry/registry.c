/* The ordered lists. The first kernel that supports a problem, builds, and reproduces the reference on this device is
 * the one that runs; every one before it leaves a sentence in the notes. */
#include "registry/registry.h"

#include <stdio.h>
#include <string.h>

const clattn__attn_impl *const clattn__attn_list[] = {
    &clattn__attn_decode, /* few query rows */
    &clattn__attn_cpu,    /* register tiles, for CPU devices */
    &clattn__attn_matrix, /* matrix engines, 16-bit storage */
    &clattn__attn_tiled,  /* local-memory tiles, for everything else */
    &clattn__attn_naive,  /* every feature, any device */
    &clattn__attn_host,   /* the scalar reference on the host: when a driver gets everything wrong */
    NULL,
};

const clattn__gemm_impl *const clattn__gemm_list[] = {
    &clattn__gemm_cpu,     &clattn__gemm_matrix,
#ifdef CLATTN_WITH_CLBLAST
    &clattn__gemm_clblast,
#endif
    &clattn__gemm_tiled,   &clattn__gemm_host,   NULL,
};

/* ---- what both lists share -------------------------------------------------------------------------------------- */

/* The reasons of one search, and those of the whole plan. */
typedef struct reasons {
    clattn__text own, *plan;
} reasons;

static void pass_over(clattn_context *context, reasons *notes, clattn_log_level level, const char *name,
                      const char *reason) {
    clattn__text line = {0};
    clattn__text_add(&line, "  %-14s %s\n", name, reason);
    if (line.data) clattn__text_add(&notes->own, "%s", line.data);
    /* the layer asks for several products of one kind: each reason is told once */
    if (line.data && !(notes->plan->data && strstr(notes->plan->data, line.data)))
        clattn__text_add(notes->plan, "%s", line.data);
    clattn__text_free(&line);
    clattn__log_text(&context->env.log, level, "%s is passed over: %s", name, reason);
}

/* A failure that says nothing about the kernel: another kernel would fail alike, so it ends the search. */
static bool is_fatal(clattn_status status) { return status == CLATTN_OUT_OF_MEMORY; }

static clattn_status nobody(const char *kind, const char *forced, const reasons *notes) {
    const char *text = notes->own.data;
    if (forced)
        return clattn__fail(CLATTN_UNSUPPORTED, "%s kernel \"%s\" cannot serve this:\n%s", kind, forced,
                            text ? text : "  no kernel has this name\n");
    return clattn__fail(CLATTN_UNSUPPORTED, "no %s kernel can serve this:\n%s", kind, text ? text : "");
}

static const char *quarantine_text = "quarantined: it did not reproduce the reference on this device and driver";

/* Known good, known bad, or to be tried. A variant is a built program, or of a library's kernel a name. The host
 * kernels are the reference itself. */
static clattn_trust trust_of(clattn_context *context, const char *name, const char *variant, char key[33]) {
    const bool host = strcmp(name, clattn__attn_host.name) == 0 || strcmp(name, clattn__gemm_host.name) == 0;
    if (host || context->env.verify == CLATTN_VERIFY_NEVER) return CLATTN_TRUST_VERIFIED;
    clattn__trust_key(&context->env, variant, key);
    return clattn__trust_get(context, key);
}

clattn_status clattn__trust_record(clattn_context *context, const char *name, const clattn__program *variant,
                                   const char *key, clattn_status verified) {
    if (verified == CLATTN_OK) {
        clattn__trust_set(context, key, CLATTN_TRUST_VERIFIED, name);
    } else if (verified == CLATTN_WRONG_RESULT) {
        clattn__text detail = {0};
        clattn__text_add(&detail, "%s (%s): %s", name, variant ? variant->options : "a library's kernel",
                         clattn_last_error());
        clattn__trust_set(context, key, CLATTN_TRUST_QUARANTINED, detail.data ? detail.data : name);
        clattn__text_free(&detail);
    }
    return verified;
}

static void note_rival(clattn_context *context, reasons *notes, int workload, const char *name, const char *taken) {
    char reason[160];
    if (clattn__rival_text(context, workload, name, taken, reason, sizeof reason))
        pass_over(context, notes, CLATTN_LOG_DEBUG, name, reason);
}

/* ---- attention -------------------------------------------------------------------------------------------------- */

clattn_status clattn__attn_ready(clattn_context *context, const clattn__attn_impl *impl,
                                 const clattn__attn_problem *problem, const clattn__candidates *list,
                                 clattn__attn_kernel *kernel) {
    *kernel = (clattn__attn_kernel){.impl = impl, .programs = &context->programs, .problem = *problem};
    clattn_status status = clattn__attn_prepare(kernel, list);
    char key[33];
    if (status == CLATTN_OK) {
        switch (trust_of(context, impl->name, kernel->program ? kernel->program->key : impl->name, key)) {
        case CLATTN_TRUST_VERIFIED:
            return CLATTN_OK;
        case CLATTN_TRUST_QUARANTINED:
            status = clattn__fail(CLATTN_WRONG_RESULT, "%s", quarantine_text);
            break;
        case CLATTN_TRUST_UNKNOWN:
            if (impl->uses_engine) status = clattn__engine_trust(context, problem->dtype);
            if (status == CLATTN_OK)
                status = clattn__trust_record(context, impl->name, kernel->program, key,
                                              clattn__attn_verify(kernel, false, NULL));
            break;
        }
    }
    if (status != CLATTN_OK) clattn__attn_kernel_clear(kernel);
    return status;
}

/* With the parameters that are to be taken; where those fail though they were measured or shipped, with the kernel's
 * own. */
static clattn_status prepare_as(clattn_context *context, const clattn__attn_impl *impl,
                                const clattn__attn_problem *problem, clattn__attn_kernel *kernel) {
    clattn__choice choice;
    clattn__attn_choice(context, impl, problem, &choice);
    clattn_status status = clattn__attn_ready(context, impl, problem, &choice.list, kernel);
    if (status != CLATTN_OK && !is_fatal(status) && !clattn__choice_is_own(&choice))
        status = clattn__attn_ready(context, impl, problem, &choice.own, kernel);
    if (status == CLATTN_OK) kernel->origin = clattn__choice_origin(&choice, &kernel->params);
    return status;
}

/* Native functions that are not good enough are done without. */
static clattn_status prepare_attention(clattn_context *context, const clattn__attn_impl *impl,
                                       const clattn__attn_problem *problem, clattn__attn_kernel *kernel) {
    clattn_status status = prepare_as(context, impl, problem, kernel);
    if (status != CLATTN_WRONG_RESULT || problem->precision != CLATTN_PRECISION_FAST) return status;
    clattn__attn_problem safer = *problem;
    safer.precision = CLATTN_PRECISION_DEFAULT;
    return prepare_as(context, impl, &safer, kernel);
}

bool clattn__rounds_weights(const char *names) {
    for (int i = 0; names && clattn__attn_list[i]; i++)
        if (clattn__attn_list[i]->rounds_weights && strstr(names, clattn__attn_list[i]->name)) return true;
    return false;
}

bool clattn__attn_serves(const clattn__attn_impl *impl, const clattn__attn_problem *problem, const clattn__caps *caps,
                         clattn__refusal *why) {
    if (problem->precision == CLATTN_PRECISION_STRICT && impl->rounds_weights)
        return clattn__refuse(why, "rounds weights to %s, which strict precision forbids",
                              clattn_dtype_name(problem->dtype));
    return clattn__refuse_features(why, problem->features, impl->features) && impl->supports(problem, caps, why);
}

bool clattn__gemm_serves(const clattn__gemm_impl *impl, const clattn__gemm_problem *problem, const clattn__caps *caps,
                         clattn__refusal *why) {
    if (problem->precision == CLATTN_PRECISION_STRICT && impl->rounds_operands)
        return clattn__refuse(why, "rounds operands to 16 bits, which strict precision forbids");
    return impl->supports(problem, caps, why);
}

const clattn__attn_impl *clattn__attn_first(clattn_context *context, const clattn__attn_problem *problem,
                                            const char *forced) {
    const int fastest = clattn__attn_fastest(context, problem);
    clattn__refusal why;
    for (int i = 0; clattn__attn_list[i]; i++) {
        const clattn__attn_impl *impl = clattn__attn_list[clattn__turn_of(i, fastest)];
        if (forced && strcmp(forced, impl->name) != 0) continue;
        if (clattn__attn_serves(impl, problem, &context->env.device.caps, &why)) return impl;
    }
    return NULL;
}

static void note_attention_rivals(clattn_context *context, const clattn__attn_problem *problem,
                                  const clattn__attn_impl *taken, reasons *notes) {
    const int workload = clattn__workload_of_attention(problem, &context->env.device.caps);
    clattn__refusal why;
    for (int i = 0; clattn__attn_list[i]; i++)
        if (clattn__attn_list[i] != taken &&
            clattn__attn_serves(clattn__attn_list[i], problem, &context->env.device.caps, &why))
            note_rival(context, notes, workload, clattn__attn_list[i]->name, taken->name);
}

static clattn_status choose_attention(clattn_context *context, const clattn__attn_problem *problem, const char *forced,
                                      clattn__attn_kernel *kernel, reasons *notes) {
    const int fastest = forced ? 0 : clattn__attn_fastest(context, problem);
    memset(kernel, 0, sizeof *kernel);
    for (int i = 0; clattn__attn_list[i]; i++) {
        const clattn__attn_impl *impl = clattn__attn_list[clattn__turn_of(i, fastest)];
        if (forced && strcmp(forced, impl->name) != 0) continue;
        clattn__refusal why = {{0}};
        if (!clattn__attn_serves(impl, problem, &context->env.device.caps, &why)) {
            pass_over(context, notes, CLATTN_LOG_DEBUG, impl->name, why.text);
            continue;
        }
        clattn_status status = prepare_attention(context, impl, problem, kernel);
        if (status == CLATTN_OK && !forced) note_attention_rivals(context, problem, impl, notes);
        if (status == CLATTN_OK || is_fatal(status)) return status;
        pass_over(context, notes, CLATTN_LOG_WARNING, impl->name, clattn_last_error());
    }
    return nobody("attention", forced, notes);
}

clattn_status clattn__attn_choose(clattn_context *context, const clattn__attn_problem *problem, const char *forced,
                                  clattn__attn_kernel *kernel, clattn__text *notes) {
    reasons told = {.plan = notes};
    clattn_status status = choose_attention(context, problem, forced, kernel, &told);
    clattn__text_free(&told.own);
    return status;
}

/* ---- projections ------------------------------------------------------------------------------------------------ */

const char *clattn__gemm_variant(const clattn__gemm_kernel *kernel) {
    if (kernel->program) return kernel->program->key;
    return kernel->variant[0] ? kernel->variant : kernel->impl->name;
}

clattn_status clattn__gemm_ready(clattn_context *context, const clattn__gemm_impl *impl,
                                 const clattn__gemm_problem *problem, const clattn__candidates *list, const float *w,
                                 int64_t w_row, const float *bias, clattn__gemm_kernel *kernel) {
    *kernel = (clattn__gemm_kernel){.impl = impl, .programs = &context->programs, .problem = *problem};
    clattn_status status = clattn__gemm_prepare(kernel, list, w, w_row, bias);
    char key[33];
    if (status == CLATTN_OK) {
        switch (trust_of(context, impl->name, clattn__gemm_variant(kernel), key)) {
        case CLATTN_TRUST_VERIFIED:
            return CLATTN_OK;
        case CLATTN_TRUST_QUARANTINED:
            status = clattn__fail(CLATTN_WRONG_RESULT, "%s", quarantine_text);
            break;
        case CLATTN_TRUST_UNKNOWN:
            if (impl->uses_engine) status = clattn__engine_trust(context, problem->dtype);
            if (status == CLATTN_OK)
                status =
                    clattn__trust_record(context, impl->name, kernel->program, key,
                                         clattn__gemm_verify(context, impl, problem, &kernel->params, false, NULL));
            break;
        }
    }
    if (status != CLATTN_OK) clattn__gemm_kernel_clear(kernel);
    return status;
}

static clattn_status prepare_gemm(clattn_context *context, const clattn__gemm_impl *impl,
                                  const clattn__gemm_problem *problem, const float *w, int64_t w_row, const float *bias,
                                  clattn__gemm_kernel *kernel) {
    clattn__choice choice;
    clattn__gemm_choice(context, impl, problem, &choice);
    clattn_status status = clattn__gemm_ready(context, impl, problem, &choice.list, w, w_row, bias, kernel);
    if (status != CLATTN_OK && !is_fatal(status) && !clattn__choice_is_own(&choice))
        status = clattn__gemm_ready(context, impl, problem, &choice.own, w, w_row, bias, kernel);
    if (status == CLATTN_OK) kernel->origin = clattn__choice_origin(&choice, &kernel->params);
    return status;
}

clattn__gemm_problem clattn__gemm_fitted(const clattn__gemm_impl *impl, const clattn__gemm_problem *problem) {
    clattn__gemm_problem fitted = *problem;
    if (!impl->splits_heads) {
        fitted.split_heads = false;
        fitted.width = problem->n;
    }
    if (!impl->activates) fitted.activation = CLATTN_ACTIVATION_NONE;
    return fitted;
}

static void note_gemm_rivals(clattn_context *context, const clattn__gemm_problem *problem,
                             const clattn__gemm_impl *taken, reasons *notes) {
    const int workload = clattn__workload_of_gemm(problem);
    clattn__refusal why;
    for (int i = 0; clattn__gemm_list[i]; i++) {
        const clattn__gemm_problem fitting = clattn__gemm_fitted(clattn__gemm_list[i], problem);
        if (clattn__gemm_list[i] != taken &&
            clattn__gemm_serves(clattn__gemm_list[i], &fitting, &context->env.device.caps, &why))
            note_rival(context, notes, workload, clattn__gemm_list[i]->name, taken->name);
    }
}

static clattn_status choose_gemm(clattn_context *context, const clattn__gemm_problem *problem, const char *forced,
                                 const float *w, int64_t w_row, const float *bias, clattn__gemm_kernel *kernel,
                                 reasons *notes) {
    const int fastest = forced ? 0 : clattn__gemm_fastest(context, problem);
    memset(kernel, 0, sizeof *kernel);
    for (int i = 0; clattn__gemm_list[i]; i++) {
        const clattn__gemm_impl *impl = clattn__gemm_list[clattn__turn_of(i, fastest)];
        if (forced && strcmp(forced, impl->name) != 0) continue;
        const clattn__gemm_problem fitting = clattn__gemm_fitted(impl, problem);
        clattn__refusal why = {{0}};
        if (!clattn__gemm_serves(impl, &fitting, &context->env.device.caps, &why)) {
            pass_over(context, notes, CLATTN_LOG_DEBUG, impl->name, why.text);
            continue;
        }
        clattn_status status = prepare_gemm(context, impl, &fitting, w, w_row, bias, kernel);
        if (status == CLATTN_OK && !forced) note_gemm_rivals(context, problem, impl, notes);
        if (status == CLATTN_OK || is_fatal(status)) return status;
        pass_over(context, notes, CLATTN_LOG_WARNING, impl->name, clattn_last_error());
    }
    return nobody("projection", forced, notes);
}

clattn_status clattn__gemm_choose(clattn_context *context, const clattn__gemm_problem *problem, const char *forced,
                                  const float *w, int64_t w_row, const float *bias, clattn__gemm_kernel *kernel,
                                  clattn__text *notes) {
    reasons told = {.plan = notes};
    clattn_status status = choose_gemm(context, problem, forced, w, w_row, bias, kernel, &told);
    clattn__text_free(&told.own);
    return status;
}
