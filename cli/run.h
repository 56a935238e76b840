/* The parts of clattn run: options and inputs, the comparison with the reference, the report. */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include "diff.h"

/* How much of the output is compared with the scalar reference. */
typedef enum run_reference { RUN_REFERENCE_SAMPLE, RUN_REFERENCE_ALL, RUN_REFERENCE_NONE } run_reference;

typedef struct run_options {
    cli_device device;
    const char *weights, *prefix;
    const char *query, *key, *value, *padding_mask, *mask, *expect;
    const char *out, *weights_out, *heatmap, *labels;
    const char *kernel, *gemm;
    long long heads;
    long long repeat; /* 0: as many as fit into a short time */
    long long entry;  /* batch entry of the picture */
    bool entry_given;
    clattn_precision precision;
    clattn_dtype dtype; /* of inputs, output and intermediate buffers */
    clattn_causal causal;
    long long causal_offset;
    double tolerance; /* for --expect */
    size_t memory_limit;
    run_reference reference;
    bool zero_attn, json;
} run_options;

/* Tokens of one batch entry, one label per key of the attention weights. */
typedef struct run_labels {
    char *text;
    const char **words; /* NULL when there are none */
} run_labels;

typedef struct run_job {
    run_options options;
    cli_tensors tensors; /* what `weights` points into */
    clattn_mha_weights weights;
    cli_array query, key, value, padding_mask, mask, expect;
    run_labels labels;
    clattn_mha_desc desc;
    clattn_mha_io io;
    int64_t all_keys;                          /* keys of the input and those that the layer appends */
    cli_array output, attention;               /* attention: (B or 1, H, L, T) for --weights-out and --heatmap */
    double open_ms, plan_ms, cold_ms, warm_ms; /* device, plan, first run, median of the later ones */
    int warm_runs;
    const char *kernels; /* that ran; owned by the plan */
    cli_diff reference, expected, attention_diff;
    int64_t entries_checked, rows_checked; /* by the reference; rows per entry */
    int64_t attention_entry;               /* the batch entry that job->attention starts with */
    bool picture_drawn;
} run_job;

/* run_inputs.c: reads every file and fills desc, io and output. An exit code, with the message printed when not 0. */
int run_load(run_job *job);
void run_free(run_job *job);
/* The same layer on one batch entry and on query rows [first, first + rows) of it; output and weights are left out. */
void run_narrow(const run_job *job, int64_t entry, int64_t first, int64_t rows, clattn_mha_desc *desc,
                clattn_mha_io *io);

/* Attention weights are at most 1; the reference gives no tolerance for them. Query and key of 16 bits shift a logit of
 * size 10 by some units of 2^-11 or 2^-8 of it, and a weight by a quarter of that. */
double run_weights_tolerance(clattn_dtype dtype);

/* run_check.c: fills job->reference, and job->attention_diff for the entries that job->attention holds. Everything is
 * compared when that is cheap or asked for, else a sample: evenly spread batch entries and the one of the picture, or
 * of only one entry a run of query rows from its middle. */
int run_check_reference(run_job *job);
void run_check_expected(run_job *job);

/* run_report.c */
int run_report(const run_job *job, clattn_context *context, const clattn_mha *mha);

#endif
