/* The search: every candidate of every kernel that may serve a workload, one after the other; each result is kept at
 * once, so that a search that ends early goes on where it stopped. */
#include "registry/registry.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double DEFAULT_SECONDS = 10;
enum { TURNS = 3 };

/* How long each timing takes, and all of them together. */
typedef struct pace {
    int least_runs;
    double least_seconds, most_seconds;
} pace;
static const pace thorough = {3, 0.06, INFINITY}, quick = {2, 0.015, 0.5};

typedef struct search {
    clattn_context *context;
    const clattn_tune_options *options;
    clattn_tune_result result;
    pace pace;
    double start, longest; /* of one candidate */
    double timed;          /* seconds in which kernels ran to be timed */
    bool rivals;           /* each kernel as it would be taken, and nothing else of it */
    bool counting;         /* only how many there are */
    bool stopped;
    clattn_status status; /* a failure that ends the search */
    int index;
    const clattn__workload *workload;
    clattn__bench *bench; /* of the workload; NULL: nothing was measured on it yet */
    /* the candidate */
    const clattn__attn_impl *attention; /* either this */
    const clattn__gemm_impl *gemm;      /* or this */
    clattn__candidates list;            /* the first that works */
    bool own;
} search;

static const char *name_of(const search *s) { return s->attention ? s->attention->name : s->gemm->name; }

static void report(search *s, clattn_tune_outcome outcome, long long nanoseconds, const char *detail) {
    char parameters[128];
    if (!s->options->progress) return;
    clattn__params_text(s->attention ? s->attention->params : s->gemm->params, &s->list.set[0], parameters,
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

/* Sets the row's time: the shorter of what it was and what it takes now. */
static clattn_status measure(search *s, clattn__contender *contender, clattn__measured *row) {
    const double start = clattn__os_seconds();
    double seconds = 0;
    clattn_status status = clattn__bench_time(s->bench, contender, s->pace.least_runs, s->pace.least_seconds, &seconds);
    const long long nanoseconds = (long long)(1e9 * seconds) + 1;
    s->timed += clattn__os_seconds() - start;
    if (status == CLATTN_OK && (!row->nanoseconds || nanoseconds < row->nanoseconds)) row->nanoseconds = nanoseconds;
    return status;
}

/* The machine may have been slower while the best so far was measured: who seems to beat it has to do so in turns, by
 * the shortest time of each. */
static clattn_status compete(search *s, clattn__contender *contender, clattn__measured *row) {
    clattn__measured best;
    clattn__contender holder;
    if (!clattn__tuning_best(s->context, row->workload, NULL, &best)) return CLATTN_OK;
    if (row->nanoseconds >= best.nanoseconds) return CLATTN_OK;
    const clattn__candidates list = {.set = {best.params}, .count = 1};
    clattn_status status = clattn__bench_enter(s->bench, best.kernel, &list, &holder);
    for (int i = 0; i < TURNS && status == CLATTN_OK && row->nanoseconds < best.nanoseconds; i++) {
        if (s->timed > s->pace.most_seconds) break;
        status = measure(s, &holder, &best);
        if (status == CLATTN_OK) status = clattn__tuning_record(s->context, &best);
        if (status == CLATTN_OK) status = measure(s, contender, row);
    }
    clattn__contender_clear(&holder);
    return status;
}

static clattn_status enter(search *s, clattn__contender *contender, clattn__measured *row) {
    clattn_status status = CLATTN_OK;
    *contender = (clattn__contender){0};
    if (!s->bench) status = clattn__bench_create(s->context, s->workload, &s->bench);
    if (status == CLATTN_OK) status = clattn__bench_enter(s->bench, name_of(s), &s->list, contender);
    if (status == CLATTN_OK) row->params = *clattn__contender_params(contender);
    return status;
}

static void try_candidate(search *s, clattn__measured *row) {
    const double start = clattn__os_seconds();
    clattn__contender contender;
    clattn_status status = enter(s, &contender, row);
    if (status == CLATTN_OK) status = measure(s, &contender, row);
    if (status == CLATTN_OK) status = compete(s, &contender, row);
    clattn__contender_clear(&contender);
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
    if (s->status == CLATTN_OK && !s->rivals) s->status = clattn__tuning_save(s->context);
    report(s,
           status == CLATTN_OK             ? CLATTN_TUNE_MEASURED
           : status == CLATTN_WRONG_RESULT ? CLATTN_TUNE_WRONG
                                           : CLATTN_TUNE_FAILED,
           row->nanoseconds, detail);
}

static bool is_known(const search *s, clattn__measured *row) {
    if (s->rivals) return clattn__tuning_sets(s->context, row->workload, row->kernel) > 0;
    return clattn__tuning_find(s->context, row);
}

static void visit(search *s) {
    clattn__measured row = {.workload = (int)(s->workload - clattn__workloads), .params = s->list.set[0]};
    if (s->counting) {
        s->result.candidates++;
        return;
    }
    snprintf(row.kernel, sizeof row.kernel, "%s", name_of(s));
    s->index++;
    if (s->status != CLATTN_OK) return;
    if (is_known(s, &row)) {
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
    if (s->rivals) {
        s->list = *list;
        visit(s);
    }
    for (int i = 0; i < list->count && !s->rivals; i++) {
        s->list = (clattn__candidates){.set = {list->set[i]}, .count = 1};
        s->own = i == 0;
        visit(s);
    }
}

/* Its own choice first, or for rivals what a plan would take. */
static void list_gemm(const search *s, const clattn__gemm_problem *problem, clattn__candidates *list) {
    clattn__choice choice;
    clattn__gemm_choice(s->context, s->gemm, problem, &choice);
    *list = s->rivals ? choice.list : choice.own;
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
        list_gemm(s, &problem, &list);
        if (s->gemm->candidates || more) visit_all(s, &list);
    }
}

static void visit_workload(search *s, int workload) {
    s->workload = &clattn__workloads[workload];
    if (s->workload->kind == CLATTN__GEMM || s->workload->kind == CLATTN__GEMM_FEW)
        visit_gemm(s);
    else
        visit_attention(s);
    clattn__bench_destroy(&s->bench);
}

static void walk(search *s, bool counting) {
    s->counting = counting;
    for (int i = 0; i < clattn__workload_count; i++) visit_workload(s, i);
}

clattn_status clattn__tune(clattn_context *context, const clattn_tune_options *options, clattn_tune_result *result) {
    search s = {.context = context, .options = options, .pace = thorough, .start = clattn__os_seconds()};
    if (options->again) clattn__tuning_forget(context);
    walk(&s, true);
    s.status = clattn__tuning_save(context); /* before time is spent on what cannot be kept */
    if (s.status == CLATTN_OK) walk(&s, false);
    *result = s.result;
    return s.status;
}

bool clattn__tune_rivals(clattn_context *context, int workload, double *timed) {
    const clattn_tune_options options = {.seconds = INFINITY}; /* for compilers; the kernels themselves are bounded */
    search s = {.context = context, .options = &options, .pace = quick, .start = clattn__os_seconds(), .rivals = true};
    visit_workload(&s, workload);
    if (s.result.measured && context->env.cache_dir && clattn__tuning_save(context) != CLATTN_OK)
        clattn__log_text(&context->env.log, CLATTN_LOG_DEBUG, "%s; nothing depends on it", clattn_last_error());
    *timed = s.timed;
    return s.result.measured > 0;
}
