/* The search: every candidate of every kernel that may serve a workload, one after the other; each result is kept at
 * once, so that a search that ends early goes on where it stopped. */
#include "registry/registry.h"

#include <stdio.h>
#include <string.h>

static const double DEFAULT_SECONDS = 10;
enum { TURNS = 3 };

typedef struct search {
    clattn_context *context;
    const clattn_tune_options *options;
    clattn_tune_result result;
    double start, longest; /* of one candidate */
    bool counting;         /* only how many there are */
    bool stopped;
    clattn_status status; /* a failure that ends the search */
    int index;
    /* the candidate */
    const clattn__workload *workload;
    const clattn__attn_impl *attention; /* either this */
    const clattn__gemm_impl *gemm;      /* or this */
    clattn__params params;
    bool own;
} search;

static const char *name_of(const search *s) { return s->attention ? s->attention->name : s->gemm->name; }

static void report(search *s, clattn_tune_outcome outcome, long long nanoseconds, const char *detail) {
    char parameters[128];
    if (!s->options->progress) return;
    clattn__params_text(s->attention ? s->attention->params : s->gemm->params, &s->params, parameters,
                        sizeof parameters);
    const clattn_tune_step step = {.index = s->index,
                                   .count = s->result.candidates,
                                   .workload = s->workload->name,
                                   .kernel = name_of(s),
                                   .parameters = parameters,
                                   .own = s->own,
                                   .outcome = outcome,
                                   .seconds = 1e-9 * (double)nanoseconds,
                                   .detail = detail};
    if (s->options->progress(s->options->user, &step) != 0) s->stopped = true;
}

static clattn_status time_gemm(search *s, const clattn__gemm_impl *impl, const clattn__params *params,
                               double *seconds) {
    const clattn__gemm_problem problem = clattn__workload_gemm(s->workload);
    return clattn__time_gemm(s->context, impl, &problem, params, seconds);
}

static clattn_status time_attention(search *s, const clattn__attn_impl *impl, const clattn__params *params,
                                    double *seconds) {
    const clattn__attn_problem problem = clattn__workload_attention(s->workload, &s->context->env.device.caps);
    const clattn__candidates list = {.set = {*params}, .count = 1};
    clattn__attn_kernel kernel;
    clattn_status status = clattn__attn_ready(s->context, impl, &problem, &list, &kernel);
    if (status == CLATTN_OK) status = clattn__time_attention(s->context, &kernel, seconds);
    clattn__attn_kernel_clear(&kernel);
    return status;
}

static const clattn__attn_impl *attention_named(const char *name) {
    for (int i = 0; clattn__attn_list[i]; i++)
        if (strcmp(clattn__attn_list[i]->name, name) == 0) return clattn__attn_list[i];
    return NULL;
}

static const clattn__gemm_impl *gemm_named(const char *name) {
    for (int i = 0; clattn__gemm_list[i]; i++)
        if (strcmp(clattn__gemm_list[i]->name, name) == 0) return clattn__gemm_list[i];
    return NULL;
}

/* Sets the row's time: the shorter of what it was and what it takes now. */
static clattn_status measure(search *s, clattn__measured *row) {
    double seconds = 0;
    clattn_status status = CLATTN_UNSUPPORTED;
    const clattn__gemm_impl *gemm = gemm_named(row->kernel);
    const clattn__attn_impl *attention = attention_named(row->kernel);
    if (gemm) status = time_gemm(s, gemm, &row->params, &seconds);
    if (attention) status = time_attention(s, attention, &row->params, &seconds);
    const long long nanoseconds = (long long)(1e9 * seconds) + 1;
    if (status == CLATTN_OK && (!row->nanoseconds || nanoseconds < row->nanoseconds)) row->nanoseconds = nanoseconds;
    return status;
}

/* The machine may have been slower while the best so far was measured: who seems to beat it has to do so in turns, by
 * the shortest time of each. */
static clattn_status compete(search *s, clattn__measured *row) {
    clattn__measured best;
    clattn_status status = CLATTN_OK;
    if (!clattn__tuning_best(s->context, row->workload, NULL, &best)) return CLATTN_OK;
    for (int i = 0; i < TURNS && status == CLATTN_OK && row->nanoseconds < best.nanoseconds; i++) {
        status = measure(s, &best);
        if (status == CLATTN_OK) status = clattn__tuning_record(s->context, &best);
        if (status == CLATTN_OK) status = measure(s, row);
    }
    return status;
}

static void try_candidate(search *s, clattn__measured *row) {
    const double start = clattn__os_seconds();
    clattn_status status = measure(s, row);
    if (status == CLATTN_OK) status = compete(s, row);
    const double spent = clattn__os_seconds() - start;
    if (spent > s->longest) s->longest = spent;
    if (status == CLATTN_OUT_OF_MEMORY || status == CLATTN_FILE_FAILED) { /* says nothing about the candidate */
        s->status = status;
        return;
    }
    if (status != CLATTN_OK) row->nanoseconds = 0;
    s->result.measured++;
    if (status != CLATTN_OK) s->result.rejected++;
    char detail[512];
    snprintf(detail, sizeof detail, "%s", status == CLATTN_OK ? "" : clattn_last_error());
    s->status = clattn__tuning_record(s->context, row);
    if (s->status == CLATTN_OK) s->status = clattn__tuning_save(s->context);
    report(s,
           status == CLATTN_OK             ? CLATTN_TUNE_MEASURED
           : status == CLATTN_WRONG_RESULT ? CLATTN_TUNE_WRONG
                                           : CLATTN_TUNE_FAILED,
           row->nanoseconds, detail);
}

static void visit(search *s) {
    clattn__measured row = {.workload = (int)(s->workload - clattn__workloads), .params = s->params};
    if (s->counting) {
        s->result.candidates++;
        return;
    }
    snprintf(row.kernel, sizeof row.kernel, "%s", name_of(s));
    s->index++;
    if (s->status != CLATTN_OK) return;
    if (clattn__tuning_find(s->context, &row)) {
        s->result.known++;
        if (!s->stopped) report(s, CLATTN_TUNE_KNOWN, row.nanoseconds, "");
        return;
    }
    const double limit = s->options->seconds > 0 ? s->options->seconds : DEFAULT_SECONDS;
    if (s->stopped || clattn__os_seconds() - s->start + s->longest > limit)
        s->result.remaining++;
    else
        try_candidate(s, &row);
}

static void visit_all(search *s, const clattn__candidates *list) {
    for (int i = 0; i < list->count; i++) {
        s->params = list->set[i];
        s->own = i == 0;
        visit(s);
    }
}

/* The kernel that the list's order gives, and those behind it that may be faster. */
static void visit_attention(search *s) {
    const clattn__caps *caps = &s->context->env.device.caps;
    const clattn__attn_problem problem = clattn__workload_attention(s->workload, caps);
    clattn__candidates list;
    clattn__refusal why;
    bool more = true;
    s->gemm = NULL;
    for (int i = 0; clattn__attn_list[i] && more; i++) {
        s->attention = clattn__attn_list[i];
        if (!clattn__attn_serves(s->attention, &problem, caps, &why)) continue;
        more = s->attention->has_rival;
        clattn__attn_candidates(s->attention, &problem, caps, &list);
        if (s->attention->candidates) visit_all(s, &list);
    }
}

static void visit_gemm(search *s) {
    const clattn__caps *caps = &s->context->env.device.caps;
    const clattn__gemm_problem problem = clattn__workload_gemm(s->workload);
    clattn__candidates list;
    clattn__refusal why;
    bool more = true;
    s->attention = NULL;
    for (int i = 0; clattn__gemm_list[i] && more; i++) {
        s->gemm = clattn__gemm_list[i];
        if (!clattn__gemm_serves(s->gemm, &problem, caps, &why)) continue;
        more = s->gemm->has_rival;
        clattn__gemm_candidates(s->gemm, &problem, caps, &list);
        if (s->gemm->candidates || more) visit_all(s, &list);
    }
}

static void walk(search *s, bool counting) {
    s->counting = counting;
    for (int i = 0; i < clattn__workload_count; i++) {
        s->workload = &clattn__workloads[i];
        if (s->workload->kind == CLATTN__GEMM || s->workload->kind == CLATTN__GEMM_FEW)
            visit_gemm(s);
        else
            visit_attention(s);
    }
}

clattn_status clattn__tune(clattn_context *context, const clattn_tune_options *options, clattn_tune_result *result) {
    search s = {.context = context, .options = options, .start = clattn__os_seconds()};
    if (options->again) clattn__tuning_forget(context);
    walk(&s, true);
    s.status = clattn__tuning_save(context); /* before time is spent on what cannot be kept */
    if (s.status == CLATTN_OK) walk(&s, false);
    *result = s.result;
    return s.status;
}
