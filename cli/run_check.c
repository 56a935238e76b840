/* The output against the scalar reference, on as many threads as there are processors, and against expected values. */
#define _POSIX_C_SOURCE 200809L /* sysconf */

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "run.h"

/* Multiply-adds that one thread spends on the reference, about 0.07 s. */
static const double budget = 2.8e7;
enum { MAX_THREADS = 16 };

typedef struct sample {
    int64_t entries;     /* how many batch entries */
    int64_t first, rows; /* query rows of each */
    int threads;
} sample;

/* What the threads share. The lock guards everything below it. */
typedef struct check {
    const run_job *job;
    sample sample;
    pthread_mutex_t lock;
    int64_t next; /* position in the sample */
    cli_diff output, attention;
    int code;
} check;

static int processors(void) {
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count < 1 ? 1 : count > MAX_THREADS ? MAX_THREADS : (int)count;
}

static sample choose_sample(const run_job *job) {
    const clattn_mha_desc *d = &job->desc;
    double E = (double)d->embed_dim, S = (double)d->kv_len, L = (double)d->query_len;
    double keys = S * E * (double)(d->key_dim + d->value_dim), per_row = 2 * E * E + 2 * (double)job->all_keys * E;
    sample s = {.entries = d->batch, .rows = d->query_len, .threads = processors()};
    if (job->options.reference == RUN_REFERENCE_SAMPLE) {
        double affordable = floor(budget * s.threads / fmax(keys + L * per_row, 1));
        if (affordable < (double)s.entries) s.entries = affordable < 1 ? 1 : (int64_t)affordable;
        if (affordable < 1) s.rows = (int64_t)fmin(L, fmax(8, (budget - keys) / per_row));
    }
    s.first = (d->query_len - s.rows) / 2;
    if (s.threads > s.entries) s.threads = s.entries < 1 ? 1 : (int)s.entries;
    return s;
}

/* Evenly spread, first and last included, and one of them moved to the picture's entry. */
static int64_t sampled_entry(const run_job *job, const sample *s, int64_t position) {
    if (s->entries == job->desc.batch) return position;
    if (job->attention.data && position == 0) return job->options.entry;
    int64_t entry = s->entries > 1 ? position * (job->desc.batch - 1) / (s->entries - 1) : job->desc.batch / 2;
    return job->attention.data && entry == job->options.entry ? 0 : entry;
}

/* Attention weights of a batch entry, (H, L, T), or NULL when they were not computed. */
static const float *attention_of(const run_job *job, int64_t entry) {
    const cli_array *a = &job->attention;
    if (!a->data || entry < job->attention_entry || entry >= job->attention_entry + a->shape[0]) return NULL;
    return (const float *)a->data + (entry - job->attention_entry) * a->shape[1] * a->shape[2] * a->shape[3];
}

static void compare_output(const check *c, int64_t entry, const cli_array *want, const float *tolerance,
                           cli_diff *diff) {
    const clattn_mha_desc *d = &c->job->desc;
    int64_t start = (entry * d->query_len + c->sample.first) * d->embed_dim;
    for (int64_t i = 0; i < c->sample.rows * d->embed_dim; i++)
        cli_diff_add(diff, cli_array_get(&c->job->output, start + i), cli_array_get(want, i), tolerance[i], start + i);
}

double run_weights_tolerance(clattn_dtype dtype) {
    return dtype == CLATTN_F32 ? 5e-5 : dtype == CLATTN_F16 ? 5e-3 : 4e-2;
}

static void compare_attention(const check *c, const float *got, const float *want, cli_diff *diff) {
    const clattn_mha_desc *d = &c->job->desc;
    int64_t T = c->job->all_keys;
    for (int64_t h = 0; h < d->heads; h++)
        for (int64_t i = 0; i < c->sample.rows; i++)
            for (int64_t j = 0; j < T; j++) {
                int64_t index = (h * d->query_len + c->sample.first + i) * T + j;
                cli_diff_add(diff, got[index], want[(h * c->sample.rows + i) * T + j], run_weights_tolerance(d->dtype),
                             index);
            }
}

static int check_entry(check *c, int64_t entry) {
    const run_job *job = c->job;
    int64_t E = job->desc.embed_dim, rows = c->sample.rows;
    size_t outputs = (size_t)(rows * E), pairs = (size_t)(job->desc.heads * rows * job->all_keys);
    const float *attention = attention_of(job, entry);
    clattn_mha_desc desc;
    clattn_mha_io io;
    run_narrow(job, entry, c->sample.first, rows, &desc, &io);
    desc.attention_kernel = job->kernels; /* what they round is allowed for */
    char why[512];
    cli_array want = {0};
    const int64_t shape[3] = {1, rows, E};
    float *tolerance = malloc(sizeof *tolerance * (outputs + (attention ? pairs : 0) + 1)), *want_weights;
    if (!tolerance || !cli_array_new(&want, desc.dtype, 3, shape, why)) {
        free(tolerance);
        return cli_fail(EXIT_NOT_SUPPORTED, "no memory for the reference");
    }
    want_weights = tolerance + outputs;
    io.output = cli_array_tensor(&want);
    if (attention) {
        desc.weights = CLATTN_WEIGHTS_PER_HEAD;
        io.weights = clattn_host(want_weights, CLATTN_F32, 4, 1, desc.heads, rows, job->all_keys);
    }
    clattn_status status = clattn_reference_mha(&desc, &job->weights, &io, tolerance);
    int code = status == CLATTN_OK ? EXIT_GOOD : cli_fail_status(status, "computing the reference");
    cli_diff output = {0}, weights = {0};
    if (code == EXIT_GOOD) {
        compare_output(c, entry, &want, tolerance, &output);
        if (attention) compare_attention(c, attention, want_weights, &weights);
    }
    free(tolerance);
    cli_array_free(&want);
    pthread_mutex_lock(&c->lock);
    cli_diff_merge(&c->output, &output);
    cli_diff_merge(&c->attention, &weights);
    pthread_mutex_unlock(&c->lock);
    return code;
}

static void *work(void *argument) {
    check *c = argument;
    for (;;) {
        pthread_mutex_lock(&c->lock);
        int64_t position = c->next++;
        bool done = position >= c->sample.entries || c->code != EXIT_GOOD;
        pthread_mutex_unlock(&c->lock);
        if (done) return NULL;
        int code = check_entry(c, sampled_entry(c->job, &c->sample, position));
        pthread_mutex_lock(&c->lock);
        if (code != EXIT_GOOD) c->code = code;
        pthread_mutex_unlock(&c->lock);
    }
}

int run_check_reference(run_job *job) {
    if (job->options.reference == RUN_REFERENCE_NONE) return EXIT_GOOD;
    check c = {.job = job, .sample = choose_sample(job)};
    pthread_t threads[MAX_THREADS];
    int started = 0;
    if (pthread_mutex_init(&c.lock, NULL) != 0) return cli_fail(EXIT_NOT_SUPPORTED, "no memory for the reference");
    while (started + 1 < c.sample.threads && pthread_create(&threads[started], NULL, work, &c) == 0) started++;
    work(&c); /* this thread works too, so that no thread at all is enough */
    for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
    pthread_mutex_destroy(&c.lock);
    job->reference = c.output;
    job->attention_diff = c.attention;
    job->entries_checked = c.sample.entries;
    job->rows_checked = c.sample.rows;
    return c.code;
}

void run_check_expected(run_job *job) {
    const float *want = job->expect.data;
    int64_t elements = cli_array_elements(&job->output);
    for (int64_t i = 0; i < elements; i++)
        cli_diff_add(&job->expected, cli_array_get(&job->output, i), want[i], job->options.tolerance, i);
}
