/* clattn run: one multi-head layer on real tensors, compared with the scalar reference and with expected values. */
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "problem.h"
#include "run.h"
#include "table.h"

static const char help[] =
    "usage: clattn run --weights FILE --heads N --query FILE [options]\n"
    "\n"
    "Runs a multi-head attention layer and compares its output with the scalar reference.\n"
    "Tensor files are .npy or .safetensors (FILE.safetensors:NAME when it holds several).\n"
    "\n"
    "the layer\n"
    "  --weights FILE       .safetensors with the projections, by PyTorch's names (in_proj_weight or\n"
    "                       q_proj_weight ..., out_proj.weight), BERT's (attention.self.query.weight ...)\n"
    "                       or q_proj.weight, k_proj.weight, v_proj.weight, out_proj.weight (o_proj.weight)\n"
    "  --prefix P           what stands before those names; needed when the file holds several layers\n"
    "  --heads N            number of heads\n"
    "  --add-zero-attn      append a key and a value of zeros\n"
    "inputs\n"
    "  --query FILE         (batch, length, features) or (length, features)\n"
    "  --key FILE           default: the query (self-attention)\n"
    "  --value FILE         default: the key\n"
    "  --padding-mask FILE  (batch, keys); true or not zero = attend\n"
    "  --mask FILE          up to (batch, heads, queries, keys), right-aligned; floats are added to the scores,\n"
    "                       of other types true or not zero = attend\n"
    "  --causal             key j is visible to query i when j <= i\n"
    "  --causal-offset N    the same with j <= i + N; 'bottom-right' means N = keys - queries\n"
    "outputs\n"
    "  --out FILE           the layer's output, .npy or .safetensors\n"
    "  --weights-out FILE   the attention weights (batch, heads, queries, keys)\n"
    "  --heatmap FILE.png   a picture of the attention weights of one batch entry (needs gnuplot)\n"
    "  --batch-index N      that batch entry (default 0)\n"
    "  --labels FILE        its labels: one line per batch entry, tokens separated by spaces\n"
    "  --json               report as JSON\n"
    "checks\n"
    "  --expect FILE        compare the whole output with these values\n"
    "  --tolerance X        greatest difference allowed there (default 2e-5)\n"
    "  --reference WHAT     sample (default): compare with the scalar reference as much as takes about 0.1 s,\n"
    "                       the report says how much that is; all; none\n"
    "running\n"
    "  --memory-limit SIZE  bytes for intermediate buffers, with K, M or G (default: no limit)\n"
    "  --kernel NAME        only this attention kernel\n"
    "  --gemm-kernel NAME   only this kernel for the projections\n"
    "  --dtype TYPE         element type of inputs, output and intermediate buffers: float32 (default), float16,\n"
    "                       bfloat16; sums are float32 always. Weights keep the type that they have in their file\n"
    "  --precision WHICH    default, strict (float32 throughout, no matrix engines) or fast (native functions)\n"
    "  --repeat N           warm runs to time (default: for 0.01 s, at least 3)\n" CLI_DEVICE_HELP
    "  --help               this text\n"
    "\n"
    "examples\n"
    "  clattn run --weights examples/data/minilm-layer0.safetensors --heads 12 --query examples/data/hidden.npy \\\n"
    "      --padding-mask examples/data/padding.npy --expect examples/data/attention-out.npy --out y.npy\n"
    "  clattn run --weights model.safetensors --prefix encoder.layer.3 --heads 12 --query x.npy --causal \\\n"
    "      --heatmap heads.png --labels tokens.txt --device gpu\n"
    "\n"
    "exit code: 0 all results agree, 1 one differs, 2 usage or bad input, 3 not supported, 4 no device\n";

enum {
    OPT_WEIGHTS = CLI_OPT_FIRST_OWN,
    OPT_PREFIX,
    OPT_HEADS,
    OPT_ZERO_ATTN,
    OPT_QUERY,
    OPT_KEY,
    OPT_VALUE,
    OPT_PADDING,
    OPT_MASK,
    OPT_CAUSAL,
    OPT_CAUSAL_OFFSET,
    OPT_OUT,
    OPT_WEIGHTS_OUT,
    OPT_HEATMAP,
    OPT_ENTRY,
    OPT_LABELS,
    OPT_JSON,
    OPT_EXPECT,
    OPT_TOLERANCE,
    OPT_REFERENCE,
    OPT_MEMORY_LIMIT,
    OPT_KERNEL,
    OPT_GEMM,
    OPT_REPEAT,
    OPT_DTYPE,
    OPT_PRECISION
};

static const struct option long_options[] = {CLI_DEVICE_OPTIONS,
                                             {"weights", required_argument, NULL, OPT_WEIGHTS},
                                             {"prefix", required_argument, NULL, OPT_PREFIX},
                                             {"heads", required_argument, NULL, OPT_HEADS},
                                             {"add-zero-attn", no_argument, NULL, OPT_ZERO_ATTN},
                                             {"query", required_argument, NULL, OPT_QUERY},
                                             {"key", required_argument, NULL, OPT_KEY},
                                             {"value", required_argument, NULL, OPT_VALUE},
                                             {"padding-mask", required_argument, NULL, OPT_PADDING},
                                             {"mask", required_argument, NULL, OPT_MASK},
                                             {"causal", no_argument, NULL, OPT_CAUSAL},
                                             {"causal-offset", required_argument, NULL, OPT_CAUSAL_OFFSET},
                                             {"out", required_argument, NULL, OPT_OUT},
                                             {"weights-out", required_argument, NULL, OPT_WEIGHTS_OUT},
                                             {"heatmap", required_argument, NULL, OPT_HEATMAP},
                                             {"batch-index", required_argument, NULL, OPT_ENTRY},
                                             {"labels", required_argument, NULL, OPT_LABELS},
                                             {"json", no_argument, NULL, OPT_JSON},
                                             {"expect", required_argument, NULL, OPT_EXPECT},
                                             {"tolerance", required_argument, NULL, OPT_TOLERANCE},
                                             {"reference", required_argument, NULL, OPT_REFERENCE},
                                             {"memory-limit", required_argument, NULL, OPT_MEMORY_LIMIT},
                                             {"kernel", required_argument, NULL, OPT_KERNEL},
                                             {"gemm-kernel", required_argument, NULL, OPT_GEMM},
                                             {"repeat", required_argument, NULL, OPT_REPEAT},
                                             {"dtype", required_argument, NULL, OPT_DTYPE},
                                             {"precision", required_argument, NULL, OPT_PRECISION},
                                             {"help", no_argument, NULL, 'h'},
                                             {0}};

/* ---- option values ------------------------------------------------------------------------------------------ */

static bool take_int(const char *option, const char *text, long long low, long long high, long long *value) {
    if (cli_parse_int(text, low, high, value)) return true;
    cli_fail(EXIT_USAGE, "%s is '%s'; it must be a whole number in %lld..%lld", option, text, low, high);
    return false;
}

static bool take_size(const char *text, size_t *value) {
    long long bytes;
    if (cli_parse_bytes(text, &bytes)) return *value = (size_t)bytes, true;
    cli_fail(EXIT_USAGE, "--memory-limit is '%s'; it must be a number of bytes above 0, K, M or G may follow", text);
    return false;
}

static bool take_causal_offset(const char *text, run_options *o) {
    if (strcmp(text, "bottom-right") == 0) return o->causal = CLATTN_CAUSAL_BOTTOM_RIGHT, true;
    o->causal = CLATTN_CAUSAL_OFFSET;
    if (cli_parse_int(text, -(1 << 28), 1 << 28, &o->causal_offset)) return true;
    cli_fail(EXIT_USAGE, "--causal-offset is '%s'; it must be a whole number in -2^28..2^28 or bottom-right", text);
    return false;
}

static bool take_tolerance(const char *text, double *value) {
    if (cli_parse_double(text, value) && *value >= 0 && isfinite(*value)) return true;
    cli_fail(EXIT_USAGE, "--tolerance is '%s'; it must be a finite number, 0 or more", text);
    return false;
}

static bool take_reference(const char *text, run_reference *value) {
    static const char *const names[] = {"sample", "all", "none"}; /* in the order of run_reference */
    for (int i = 0; i < 3; i++)
        if (strcmp(text, names[i]) == 0) return *value = (run_reference)i, true;
    cli_fail(EXIT_USAGE, "--reference is '%s'; it must be sample, all or none", text);
    return false;
}

static bool take_dtype(const char *text, clattn_dtype *value) {
    if (cli_parse_dtype(text, value)) return true;
    cli_fail(EXIT_USAGE, "--dtype is '%s'; it must be float32, float16 or bfloat16", text);
    return false;
}

/* Options whose value is kept as it is. */
static const char **text_option(run_options *o, int option) {
    switch (option) {
    case OPT_WEIGHTS:
        return &o->weights;
    case OPT_PREFIX:
        return &o->prefix;
    case OPT_QUERY:
        return &o->query;
    case OPT_KEY:
        return &o->key;
    case OPT_VALUE:
        return &o->value;
    case OPT_PADDING:
        return &o->padding_mask;
    case OPT_MASK:
        return &o->mask;
    case OPT_OUT:
        return &o->out;
    case OPT_WEIGHTS_OUT:
        return &o->weights_out;
    case OPT_HEATMAP:
        return &o->heatmap;
    case OPT_LABELS:
        return &o->labels;
    case OPT_EXPECT:
        return &o->expect;
    case OPT_KERNEL:
        return &o->kernel;
    case OPT_GEMM:
        return &o->gemm;
    default:
        return NULL;
    }
}

/* False with the message printed. */
static bool take_option(run_options *o, int option, const char *value) {
    const char **text = text_option(o, option);
    if (text) return *text = value, true;
    switch (option) {
    case OPT_HEADS:
        return take_int("--heads", value, 1, 1 << 28, &o->heads);
    case OPT_ENTRY:
        o->entry_given = true;
        return take_int("--batch-index", value, 0, 1 << 28, &o->entry);
    case OPT_REPEAT:
        return take_int("--repeat", value, 1, 1000000, &o->repeat);
    case OPT_PRECISION:
        if (cli_parse_precision(value, &o->precision)) return true;
        cli_fail(EXIT_USAGE, "--precision is '%s'; it must be default, strict or fast", value);
        return false;
    case OPT_DTYPE:
        return take_dtype(value, &o->dtype);
    case OPT_TOLERANCE:
        return take_tolerance(value, &o->tolerance);
    case OPT_REFERENCE:
        return take_reference(value, &o->reference);
    case OPT_MEMORY_LIMIT:
        return take_size(value, &o->memory_limit);
    case OPT_CAUSAL_OFFSET:
        return take_causal_offset(value, o);
    case OPT_CAUSAL:
        if (o->causal == CLATTN_CAUSAL_NONE) o->causal = CLATTN_CAUSAL_TOP_LEFT;
        return true;
    case OPT_ZERO_ATTN:
        return o->zero_attn = true;
    case OPT_JSON:
        return o->json = true;
    default:
        return cli_usage_hint(), false; /* getopt has said what is wrong */
    }
}

static int check_options(const run_options *o) {
    if (!o->weights)
        cli_fail(EXIT_USAGE, "--weights FILE is missing");
    else if (!o->heads)
        cli_fail(EXIT_USAGE, "--heads N is missing");
    else if (!o->query)
        cli_fail(EXIT_USAGE, "--query FILE is missing");
    else if (o->labels && !o->heatmap)
        cli_fail(EXIT_USAGE, "--labels is given without --heatmap; it labels the picture");
    else if (o->entry_given && !o->heatmap)
        cli_fail(EXIT_USAGE, "--batch-index is given without --heatmap; it chooses what the picture shows");
    else
        return EXIT_GOOD;
    return cli_usage_hint();
}

/* -1: go on; else the exit code. */
static int parse(int argc, char **argv, run_options *o) {
    *o = (run_options){.tolerance = 2e-5};
    cli_device_init(&o->device);
    for (int option; (option = getopt_long(argc, argv, "hv", long_options, NULL)) != -1;) {
        int handled = cli_device_option(&o->device, option, optarg);
        if (handled < 0) return EXIT_USAGE;
        if (handled > 0) continue;
        if (option == 'h') return fputs(help, stdout), EXIT_GOOD;
        if (!take_option(o, option, optarg)) return EXIT_USAGE;
    }
    if (optind < argc) return cli_fail(EXIT_USAGE, "unexpected argument '%s'", argv[optind]), cli_usage_hint();
    int code = check_options(o);
    return code == EXIT_GOOD ? -1 : code;
}

/* ---- running ------------------------------------------------------------------------------------------------ */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* One first run, then warm ones. */
static int run_timed(run_job *job, clattn_mha *mha) {
    enum { MOST = 1000 };
    double times[MOST], start = cli_seconds(), begun;
    clattn_status status = clattn_mha_run(mha, &job->io);
    if (status != CLATTN_OK) return cli_fail_status(status, "running the layer");
    job->cold_ms = 1e3 * (cli_seconds() - start);
    long long wanted = job->options.repeat, done = 0;
    for (start = begun = cli_seconds(); wanted ? done < wanted : done < 3 || (begun - start < 0.01 && done < MOST);
         done++) {
        status = clattn_mha_run(mha, &job->io);
        if (status != CLATTN_OK) return cli_fail_status(status, "running the layer");
        double now = cli_seconds();
        times[done % MOST] = 1e3 * (now - begun); /* of a longer series the last ones count */
        begun = now;
    }
    int kept = done < MOST ? (int)done : MOST;
    qsort(times, (size_t)kept, sizeof *times, by_value);
    job->warm_ms = kept % 2 ? times[kept / 2] : (times[kept / 2 - 1] + times[kept / 2]) / 2;
    job->warm_runs = (int)done;
    return EXIT_GOOD;
}

/* Weights need a plan of their own, so that the one that is timed stays as the user would run it. */
static int run_weights(run_job *job, clattn_context *context) {
    const run_options *o = &job->options;
    if (!o->weights_out && !o->heatmap) return EXIT_GOOD;
    char why[512];
    clattn_mha_desc desc = job->desc;
    clattn_mha_io io = job->io;
    cli_array output = {0};
    clattn_mha *mha = NULL;
    if (!o->weights_out) run_narrow(job, o->entry, 0, job->desc.query_len, &desc, &io);
    job->attention_entry = o->weights_out ? 0 : o->entry;
    int64_t shape[4] = {desc.batch, desc.heads, desc.query_len, job->all_keys};
    int64_t output_shape[3] = {desc.batch, desc.query_len, desc.embed_dim};
    if (!cli_array_new(&job->attention, CLATTN_F32, 4, shape, why) ||
        !cli_array_new(&output, desc.dtype, 3, output_shape, why))
        return cli_fail(EXIT_NOT_SUPPORTED, "attention weights: %s", why);
    io.output = cli_array_tensor(&output);
    io.weights = cli_array_tensor(&job->attention);
    desc.weights = CLATTN_WEIGHTS_PER_HEAD;
    clattn_status status = clattn_mha_create(&mha, context, &desc, &job->weights);
    if (status == CLATTN_OK) status = clattn_mha_run(mha, &io);
    int code = status == CLATTN_OK ? EXIT_GOOD : cli_fail_status(status, "computing the attention weights");
    clattn_mha_destroy(&mha);
    cli_array_free(&output);
    return code;
}

/* Before anything is computed for files that cannot be written. */
static int check_outputs(const run_options *o) {
    char why[512];
    if (o->out && !cli_array_writable(o->out, why)) return cli_fail(EXIT_USAGE, "--out %s", why);
    if (o->weights_out && !cli_array_writable(o->weights_out, why))
        return cli_fail(EXIT_USAGE, "--weights-out %s", why);
    if (o->heatmap && !cli_file_writable(o->heatmap, why)) return cli_fail(EXIT_USAGE, "--heatmap %s", why);
    return EXIT_GOOD;
}

static int write_outputs(const run_job *job) {
    const run_options *o = &job->options;
    char why[512];
    if (o->out && !cli_array_write(o->out, &job->output, why)) return cli_fail(EXIT_USAGE, "--out %s", why);
    if (o->weights_out && !cli_array_write(o->weights_out, &job->attention, why))
        return cli_fail(EXIT_USAGE, "--weights-out %s", why);
    return EXIT_GOOD;
}

static int draw(run_job *job) {
    const run_options *o = &job->options;
    if (!o->heatmap) return EXIT_GOOD;
    char title[128], why[512];
    const int64_t *shape = job->attention.shape; /* (B or 1, H, L, T) */
    const float *weights =
        (const float *)job->attention.data + (o->entry - job->attention_entry) * shape[1] * shape[2] * shape[3];
    snprintf(title, sizeof title, "Attention weights%s, batch entry %lld of %lld", o->causal ? ", causal" : "",
             o->entry, (long long)job->desc.batch);
    job->picture_drawn =
        cli_heatmap(o->heatmap, weights, (int)shape[1], (int)shape[2], (int)shape[3], job->labels.words, title, why);
    return job->picture_drawn ? EXIT_GOOD : cli_fail(EXIT_USAGE, "--heatmap: %s", why);
}

/* A wrong result outranks what went wrong with a file. */
static int verdict(const run_job *job, int code) {
    bool wrong = job->reference.wrong || job->expected.wrong || job->attention_diff.wrong;
    return wrong ? EXIT_WRONG : code;
}

static int run_with(run_job *job, clattn_context *context) {
    clattn_mha *mha = NULL;
    double start = cli_seconds();
    clattn_status status = clattn_mha_create(&mha, context, &job->desc, &job->weights);
    if (status != CLATTN_OK) return cli_fail_status(status, "planning the layer");
    job->plan_ms = 1e3 * (cli_seconds() - start);
    clattn_plan_info info;
    clattn_mha_info(mha, &info);
    job->kernels = info.kernels;
    int code = run_timed(job, mha);
    if (code == EXIT_GOOD) code = run_weights(job, context);
    if (code == EXIT_GOOD) code = run_check_reference(job);
    if (code == EXIT_GOOD) {
        if (job->options.expect) run_check_expected(job);
        int written = write_outputs(job), drawn = draw(job);
        int printed = run_report(job, context, mha);
        code = verdict(job, written ? written : drawn ? drawn : printed);
    }
    clattn_mha_destroy(&mha);
    return code;
}

int cmd_run(int argc, char **argv) {
    run_job job = {0};
    clattn_context *context = NULL;
    int code = parse(argc, argv, &job.options);
    if (code >= 0) return code;
    code = run_load(&job);
    if (code == EXIT_GOOD) code = check_outputs(&job.options);
    if (code == EXIT_GOOD) {
        double start = cli_seconds();
        code = cli_context(&job.options.device, &context);
        job.open_ms = 1e3 * (cli_seconds() - start);
    }
    if (code == EXIT_GOOD) code = run_with(&job, context);
    clattn_context_destroy(&context);
    run_free(&job);
    return code;
}
