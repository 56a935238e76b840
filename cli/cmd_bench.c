/* clattn bench: time per run, measured only after the output has been proved. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

static const char help[] =
    "usage: clattn bench [--attention SIZES]... [--layer SIZES]... [--gemm SIZES]... [--decode SIZES]...\n"
    "                    [--model FOLDER]... [options]\n"
    "\n"
    "Times attention, layers, projections, decoding steps and models on random data. Without a shape, a set of common\n"
    "ones runs. Each output is first compared with the scalar reference: all rows of a small case, else a sample of\n"
    "rows spread over batch entries, heads and positions, which may take some seconds for large ones. A wrong output "
    "is\n"
    "not timed.\n"
    "\n"
    "  --attention " CLI_ATTENTION_FORM "\n"
    "                       batch, query heads, key heads, query length, key length, head width\n"
    "  --layer " CLI_LAYER_FORM "\n"
    "                       self-attention layer: batch, length, embedding width, heads\n"
    "  --gemm M,N,K[,TYPE]  projection with bias: rows, output features, input features\n"
    "  --decode B,Hq,Hkv,S,D[,WORD]...\n"
    "                       append one token to a key/value cache and attend to all S of them; words: float16,\n"
    "                       bfloat16 or int8 for what the cache holds, paged[=TOKENS] (default 16 per page)\n"
    "  --model FOLDER[,BxT] the encoder of clattn embed on B sentences of T tokens (default 1x128)\n"
    "  --startup            start to first result of a process, with nothing cached and with everything, for\n"
    "                       attention 1,8,8,1024,1024,64 and layer 4,128,384,12; and a call at S 16. Options of\n"
    "                       the device, kernels, precision, --resident and --seed hold there too; caches are its own\n"
    "  --once               run each shape once, unchecked, print a line and end: what --startup times\n"
    "  --resident           tensors in device memory, where an application on a GPU keeps them\n"
    "  --kernel NAME        this attention kernel and no other\n"
    "  --gemm-kernel NAME   this projection kernel and no other\n"
    "  --warmup N           runs before the clock starts, at least (default 2); without --repeat also 0.4 * --seconds\n"
    "  --repeat N           timed runs, 1..2000 (default: for --seconds, at least five)\n"
    "  --seconds X          how long to go on with each shape (default 1)\n"
    "  --precision WHICH    default, strict (float32 throughout, no matrix engines) or fast (native functions)\n"
    "  --seed N             of the random data (default 1)\n"
    "  --csv FILE           write the rows as CSV as well; - is standard output, instead of the table\n"
    "  --json               rows as JSON instead of the table\n" CLI_DEVICE_HELP "  --help               this text\n"
    "\n" CLI_ATTENTION_WORDS "\n"
    "GFLOP/s are computed from the median and the usual count: attention 4*B*Hq*Sq*Skv*D, a layer 8*B*L*E*E more for\n"
    "its projections, 2*M*N*K for one; causal order, windows and blocks count the allowed pairs of the score work. A\n"
    "run goes from host memory to host memory, or stays in the device's with --resident. spread: the quartiles' "
    "distance over the median.\n"
    "\n"
    "of peak: the share of the device's own limit, measured in the same run by OpenCL kernels, before and after the\n"
    "cases: float32 multiply-adds in registers; for a single query per head (Sq 1, --decode) reading memory, where "
    "the\n"
    "bytes are those of keys and values.\n"
    "\n"
    "extra memory: intermediate results, by the plan; seen: what the first run added to the process's memory, which "
    "counts\n"
    "whatever a driver compiled or loaded for it.\n"
    "\n"
    "A warning is printed when other processes used more than 5 % of the processor meanwhile.\n"
    "\n"
    "examples:\n"
    "  clattn bench\n"
    "  clattn bench --attention 1,8,8,1024,1024,64 --attention 1,16,4,1024,1024,64,causal,window=256\n"
    "  clattn bench --layer 4,128,384,12 --gemm 512,1152,384 --repeat 50 --csv layer.csv\n"
    "  clattn bench --decode 1,32,8,4096,128,int8,paged --model model,8x128\n"
    "\n"
    "exit: 0 good, 1 a wrong result, 2 bad option, shape or file, 3 not supported, 4 no device\n";

enum {
    OPT_ATTENTION = CLI_OPT_FIRST_OWN,
    OPT_LAYER,
    OPT_GEMM,
    OPT_DECODE,
    OPT_MODEL,
    OPT_STARTUP,
    OPT_ONCE,
    OPT_RESIDENT,
    OPT_KERNEL,
    OPT_GEMM_KERNEL,
    OPT_WARMUP,
    OPT_REPEAT,
    OPT_SECONDS,
    OPT_SEED,
    OPT_PRECISION,
    OPT_CSV,
    OPT_JSON
};

static const struct option long_options[] = {CLI_DEVICE_OPTIONS,
                                             {"attention", required_argument, NULL, OPT_ATTENTION},
                                             {"layer", required_argument, NULL, OPT_LAYER},
                                             {"gemm", required_argument, NULL, OPT_GEMM},
                                             {"decode", required_argument, NULL, OPT_DECODE},
                                             {"model", required_argument, NULL, OPT_MODEL},
                                             {"startup", no_argument, NULL, OPT_STARTUP},
                                             {"once", no_argument, NULL, OPT_ONCE},
                                             {"resident", no_argument, NULL, OPT_RESIDENT},
                                             {"kernel", required_argument, NULL, OPT_KERNEL},
                                             {"gemm-kernel", required_argument, NULL, OPT_GEMM_KERNEL},
                                             {"warmup", required_argument, NULL, OPT_WARMUP},
                                             {"repeat", required_argument, NULL, OPT_REPEAT},
                                             {"seconds", required_argument, NULL, OPT_SECONDS},
                                             {"seed", required_argument, NULL, OPT_SEED},
                                             {"precision", required_argument, NULL, OPT_PRECISION},
                                             {"csv", required_argument, NULL, OPT_CSV},
                                             {"json", no_argument, NULL, OPT_JSON},
                                             {"help", no_argument, NULL, 'h'},
                                             {NULL, 0, NULL, 0}};

enum { MOST_CASES = 128 };
#define BUSY_SHARE 0.05

typedef struct case_row {
    const bench_kind *kind;
    const char *shape;
} case_row;
static const case_row common_cases[] = {{&bench_attention, "1,8,8,1024,1024,64"},
                                        {&bench_attention, "1,8,8,1024,1024,64,causal"},
                                        {&bench_attention, "1,8,8,4096,4096,64"},
                                        {&bench_attention, "1,8,8,4096,4096,64,causal"},
                                        {&bench_attention, "1,8,8,1024,1024,128"},
                                        {&bench_attention, "1,8,8,1024,1024,128,causal"},
                                        {&bench_attention, "4,12,12,128,128,32"},
                                        {&bench_attention, "1,8,8,1000,1000,80,causal"},
                                        {&bench_attention, "1,32,32,1,4096,128"},
                                        {&bench_attention, "1,32,8,1,4096,128"},
                                        {&bench_decode, "1,32,8,4096,128,float16"},
                                        {&bench_gemm, "512,384,384"},
                                        {&bench_gemm, "1024,512,512"},
                                        {&bench_layer, "4,128,384,12"},
                                        {&bench_layer, "1,1024,512,8"},
                                        {&bench_layer, "1,1024,512,8,causal"},
                                        {&bench_layer, "1,2048,1024,16"}};

static const case_row startup_cases[] = {{&bench_first_run, "attention 1,8,8,1024,1024,64"},
                                         {&bench_warm_start, "attention 1,8,8,1024,1024,64"},
                                         {&bench_first_run, "layer 4,128,384,12"},
                                         {&bench_warm_start, "layer 4,128,384,12"},
                                         {&bench_attention, "1,1,1,16,16,64"}};

typedef struct bench {
    cli_device device;
    bench_settings settings;
    const char *csv; /* path, "-" or NULL: none */
    bool json, once;
    bool limited;       /* the limits are measured: */
    double limited_at;  /* when, by cli_seconds() */
    clattn_limits last; /* what that found */
    bench_case *cases;
    int count, timed, handed;
    bench_report report;
} bench;

static int add_case(bench *b, const bench_kind *kind, const char *text) {
    if (b->count == MOST_CASES) return cli_fail(EXIT_USAGE, "more than %d shapes", MOST_CASES);
    bench_case *c = &b->cases[b->count++];
    c->kind = kind;
    c->state = calloc(1, kind->state_bytes);
    if (!c->state) return cli_fail(EXIT_USAGE, "out of memory");
    if (!kind->parse(c, text)) return EXIT_USAGE;
    if (!kind->measure && !(c->flops > 0))
        return cli_fail(EXIT_USAGE, "%s: a size is 0, so there is nothing to time", text);
    return EXIT_GOOD;
}

static int add_cases(bench *b, const case_row *rows, size_t count) {
    int code = EXIT_GOOD;
    for (size_t i = 0; i < count && code == EXIT_GOOD; i++) code = add_case(b, rows[i].kind, rows[i].shape);
    return code;
}

static int bad_value(const char *option, const char *value, const char *rule) {
    return cli_fail(EXIT_USAGE, "--%s '%s': expected %s", option, value, rule);
}

static int take_option(bench *b, int option, const char *value) {
    static const bench_kind *const kinds[] = {&bench_attention, &bench_layer, &bench_gemm, &bench_decode, &bench_model};
    long long seed;
    switch (option) {
    case OPT_ATTENTION:
    case OPT_LAYER:
    case OPT_GEMM:
    case OPT_DECODE:
    case OPT_MODEL:
        return add_case(b, kinds[option - OPT_ATTENTION], value);
    case OPT_STARTUP:
        return add_cases(b, startup_cases, sizeof startup_cases / sizeof *startup_cases);
    case OPT_ONCE:
        b->once = true;
        break;
    case OPT_RESIDENT:
        b->settings.resident = true;
        break;
    case OPT_KERNEL:
        b->settings.kernel = value;
        break;
    case OPT_GEMM_KERNEL:
        b->settings.gemm = value;
        break;
    case OPT_WARMUP:
        if (!cli_parse_int(value, 0, 1000000, &b->settings.warmup)) return bad_value("warmup", value, "0..1000000");
        break;
    case OPT_REPEAT:
        if (!cli_parse_int(value, 1, 2000, &b->settings.repeat)) return bad_value("repeat", value, "1..2000");
        break;
    case OPT_SECONDS:
        if (!cli_parse_double(value, &b->settings.seconds) ||
            !(b->settings.seconds >= 0 && b->settings.seconds <= 86400))
            return bad_value("seconds", value, "a number in 0..86400");
        break;
    case OPT_SEED:
        if (!cli_parse_int(value, 0, INT64_MAX, &seed)) return bad_value("seed", value, "a whole number >= 0");
        b->settings.seed = (uint64_t)seed;
        break;
    case OPT_PRECISION:
        if (!cli_parse_precision(value, &b->settings.precision))
            return bad_value("precision", value, "default, strict or fast");
        break;
    case OPT_CSV:
        b->csv = value;
        break;
    case OPT_JSON:
        b->json = true;
        break;
    default:
        return cli_usage_hint();
    }
    return EXIT_GOOD;
}

/* What shapes the work goes to the processes of --startup too. Not the cache folder, of which they have their own. */
static int hand_on(bench *b, int option, const char *value) {
    const bool own = option >= CLI_OPT_FIRST_OWN;
    if (option == CLI_OPT_CACHE || option == CLI_OPT_NO_CACHE) return EXIT_GOOD;
    if (own && option != OPT_RESIDENT && option != OPT_KERNEL && option != OPT_GEMM_KERNEL && option != OPT_SEED &&
        option != OPT_PRECISION)
        return EXIT_GOOD;
    const struct option *o = long_options;
    while (o->val != (option == 'v' ? CLI_OPT_VERBOSE : option)) o++;
    const size_t bytes = strlen(o->name) + (value ? strlen(value) : 0) + sizeof "--=";
    char *text = malloc(bytes);
    if (!text) return cli_fail(EXIT_NOT_SUPPORTED, "out of memory");
    snprintf(text, bytes, "--%s%s%s", o->name, value ? "=" : "", value ? value : "");
    b->settings.handed[b->handed++] = text;
    return EXIT_GOOD;
}

/* Before anything is timed, so that a bad path costs no time. */
static int check_reports(const bench *b) {
    char why[512];
    if (b->once && (b->csv || b->json))
        return cli_fail(EXIT_USAGE, "--once measures nothing that %s could report", b->csv ? "--csv" : "--json");
    if (!b->csv) return EXIT_GOOD;
    if (strcmp(b->csv, "-") == 0)
        return b->json ? cli_fail(EXIT_USAGE, "--json and --csv - would both write to standard output") : EXIT_GOOD;
    return cli_file_writable(b->csv, why) ? EXIT_GOOD : cli_fail(EXIT_USAGE, "--csv %s", why);
}

/* Without a row there is nothing that the file should lose its contents for. */
static int write_csv(const bench *b) {
    if (!b->csv || b->timed == 0) return EXIT_GOOD;
    const bool standard = strcmp(b->csv, "-") == 0;
    FILE *file = standard ? stdout : fopen(b->csv, "w");
    bool good = file != NULL;
    if (good) {
        bench_print_csv(&b->report, file);
        good = !ferror(file);
        if (!standard && fclose(file) != 0) good = false;
    }
    return good ? EXIT_GOOD : cli_fail(EXIT_USAGE, "--csv %s: writing failed: %s", b->csv, strerror(errno));
}

static int print_report(bench *b) {
    int code = EXIT_GOOD;
    b->report.cases = b->cases;
    b->report.count = b->count;
    if (b->json)
        code = bench_print_json(&b->report);
    else if (b->timed > 0 && !(b->csv && strcmp(b->csv, "-") == 0))
        bench_print_table(&b->report);
    const int written = write_csv(b);
    if (code == EXIT_GOOD) code = written;
    if (b->timed > 0 && b->report.others > BUSY_SHARE)
        cli_fail(code, "warning: other processes used %.0f %% of the processor meanwhile; the times are too long",
                 100 * b->report.others);
    return code;
}

static double greater(double a, double b) { return a > b ? a : b; }

/* Keeps the greatest of what was measured in this run; *read_gbps of this call and what is there. What was measured
 * less than a second ago still holds. */
static int measure_limits(bench *b, clattn_context *context, double *read_gbps) {
    clattn_limits *limits = &b->report.limits;
    if (!b->limited || cli_seconds() - b->limited_at > 1) {
        clattn_status status = clattn_context_limits(context, &b->last);
        if (status != CLATTN_OK) return cli_fail_status(status, "measuring what the device can do");
        b->limited = true;
        b->limited_at = cli_seconds();
    }
    limits->multiply_add_gflops = greater(b->last.multiply_add_gflops, limits->multiply_add_gflops);
    limits->read_gbps = greater(b->last.read_gbps, limits->read_gbps);
    *read_gbps = greater(b->last.read_gbps, *read_gbps);
    return EXIT_GOOD;
}

/* Limits are measured once a case is planned: what no kernel takes is told without that wait. Reading memory varies
 * within seconds where machines share it, so for that the limit is taken on both sides of the case. */
static int run_case(bench *b, bench_case *c, clattn_context *context) {
    int code = bench_open(c, context, &b->settings);
    if (code == EXIT_GOOD && (c->read_bytes > 0 || !b->limited)) code = measure_limits(b, context, &c->read_gbps);
    if (code == EXIT_GOOD) code = bench_run(c, &b->settings);
    bench_close(c);
    if (code == EXIT_GOOD && c->read_bytes > 0) code = measure_limits(b, context, &c->read_gbps);
    b->timed += c->timed;
    return code;
}

/* One line as soon as all results are there: some other process measures how long that took. */
static int run_once(bench *b, clattn_context *context) {
    int code = EXIT_GOOD;
    for (int i = 0; i < b->count && code == EXIT_GOOD; i++) {
        bench_case *c = &b->cases[i];
        if (c->kind->measure) continue;
        code = bench_open(c, context, &b->settings);
        clattn_status status = code == EXIT_GOOD ? c->kind->run(c) : CLATTN_OK;
        if (status != CLATTN_OK) code = bench_fail(c, status, "running");
        if (code == EXIT_GOOD && i + 1 == b->count) puts("done"), fflush(stdout);
        bench_close(c);
    }
    return code;
}

/* The first failure decides the exit code; the cases behind it run all the same. */
static int run_cases(bench *b, clattn_context *context) {
    bench_report *report = &b->report;
    bench_load start = bench_load_now();
    double read_gbps = 0;
    int code = EXIT_GOOD;
    for (int i = 0; i < b->count; i++) {
        cli_progress("case", i, b->count);
        int result = run_case(b, &b->cases[i], context);
        if (code == EXIT_GOOD) code = result;
    }
    cli_progress("case", b->count, b->count);
    int again = b->limited ? measure_limits(b, context, &read_gbps) : EXIT_GOOD;
    report->others = bench_load_others(&start);
    return code == EXIT_GOOD ? again : code;
}

int cmd_bench(int argc, char **argv) {
    bench b = {.settings = {.warmup = 2, .seconds = 1, .seed = 1}};
    int code = EXIT_GOOD;
    cli_device_init(&b.device);
    clattn_context *context = NULL;
    b.cases = calloc(MOST_CASES, sizeof *b.cases);
    b.settings.handed = calloc((size_t)argc + 1, sizeof *b.settings.handed);
    if (!b.cases || !b.settings.handed) {
        code = cli_fail(EXIT_USAGE, "out of memory");
        goto done;
    }
    for (int option; (option = getopt_long(argc, argv, "hv", long_options, NULL)) != -1;) {
        if (option == 'h') {
            fputs(help, stdout);
            goto done;
        }
        int handled = cli_device_option(&b.device, option, optarg);
        code = handled < 0 ? EXIT_USAGE : handled > 0 ? EXIT_GOOD : take_option(&b, option, optarg);
        if (code == EXIT_GOOD) code = hand_on(&b, option, optarg);
        if (code != EXIT_GOOD) goto done;
    }
    if (optind < argc) code = cli_fail(EXIT_USAGE, "unexpected argument '%s'", argv[optind]);
    if (code == EXIT_GOOD && b.count == 0)
        code = add_cases(&b, common_cases, sizeof common_cases / sizeof *common_cases);
    if (code == EXIT_GOOD) code = cli_context(&b.device, &context);
    if (code == EXIT_GOOD) code = check_reports(&b);
    if (code != EXIT_GOOD) goto done;
    if (b.once) {
        code = run_once(&b, context);
        goto done;
    }
    clattn_context_device(context, &b.report.device);
    code = run_cases(&b, context);
    int reported = print_report(&b);
    if (code == EXIT_GOOD) code = reported;
done:
    clattn_context_destroy(&context);
    for (int i = 0; i < b.count; i++) free(b.cases[i].state);
    for (int i = 0; i < b.handed; i++) free(b.settings.handed[i]);
    free(b.settings.handed);
    free(b.cases);
    return code;
}
