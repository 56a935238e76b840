/* clattn bench: time per run, measured only after the output has been proved. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "table.h"

static const char help[] =
    "usage: clattn bench [--attention " CLI_ATTENTION_FORM "]... [--layer " CLI_LAYER_FORM "]... [options]\n"
    "\n"
    "Times attention and self-attention layers on random data. Without a shape, a set of common ones runs.\n"
    "Each output is first compared with the scalar reference: all rows of a small case, else a sample of rows spread\n"
    "over batch entries, heads and positions, which may take some seconds for large layers. A wrong output is not "
    "timed.\n"
    "\n"
    "  --attention SIZES    batch, query heads, key heads, query length, key length, head width; repeatable\n"
    "  --layer SIZES        batch, length, embedding width, heads; repeatable\n"
    "  --kernel NAME        this attention kernel and no other\n"
    "  --gemm NAME          this projection kernel and no other\n"
    "  --warmup N           runs before the clock starts (default 2)\n"
    "  --repeat N           timed runs, 1..2000 (default: for --seconds, at least five)\n"
    "  --seconds X          how long to go on with each shape (default 1)\n"
    "  --seed N             of the random data (default 1)\n"
    "  --csv FILE           write the rows as CSV as well; - is standard output, instead of the table\n"
    "  --json               rows as JSON instead of the table\n" CLI_DEVICE_HELP "  --help               this text\n"
    "\n"
    "GFLOP/s are computed from the median and the usual count: attention 4*B*Hq*Sq*Skv*D, a layer 8*B*L*E*E more for\n"
    "its projections; causal counts half of the score work. A run goes from host memory to host memory.\n"
    "\n"
    "peak: the share of the processor's own limit. The limit is measured in the same run: chains of float32\n"
    "multiply-adds in the widest vector registers of the host, one thread per compute unit of the device, the best of\n"
    "several runs before and after the cases. Only for CPU devices; empty on others.\n"
    "\n"
    "A warning is printed when other processes used more than 5 % of the processor meanwhile.\n"
    "\n"
    "examples:\n"
    "  clattn bench\n"
    "  clattn bench --attention 1,8,8,1024,1024,64 --attention 1,8,8,1024,1024,64,causal\n"
    "  clattn bench --layer 4,128,384,12 --repeat 50 --csv layer.csv\n"
    "\n"
    "exit: 0 good, 1 a wrong result, 2 bad option, shape or file, 3 not supported, 4 no device\n";

enum {
    OPT_ATTENTION = CLI_OPT_FIRST_OWN,
    OPT_LAYER,
    OPT_KERNEL,
    OPT_GEMM,
    OPT_WARMUP,
    OPT_REPEAT,
    OPT_SECONDS,
    OPT_SEED,
    OPT_CSV,
    OPT_JSON
};

static const struct option long_options[] = {CLI_DEVICE_OPTIONS,
                                             {"attention", required_argument, NULL, OPT_ATTENTION},
                                             {"layer", required_argument, NULL, OPT_LAYER},
                                             {"kernel", required_argument, NULL, OPT_KERNEL},
                                             {"gemm", required_argument, NULL, OPT_GEMM},
                                             {"warmup", required_argument, NULL, OPT_WARMUP},
                                             {"repeat", required_argument, NULL, OPT_REPEAT},
                                             {"seconds", required_argument, NULL, OPT_SECONDS},
                                             {"seed", required_argument, NULL, OPT_SEED},
                                             {"csv", required_argument, NULL, OPT_CSV},
                                             {"json", no_argument, NULL, OPT_JSON},
                                             {"help", no_argument, NULL, 'h'},
                                             {NULL, 0, NULL, 0}};

#define MOST_CASES 64
#define BUSY_SHARE 0.05

static const char *const common_attention[] = {
    "1,8,8,1024,1024,64",  "1,8,8,1024,1024,64,causal",  "1,8,8,4096,4096,64", "1,8,8,4096,4096,64,causal",
    "1,8,8,1024,1024,128", "1,8,8,1024,1024,128,causal", "4,12,12,128,128,32", "1,8,8,1000,1000,80,causal",
    "1,32,32,1,4096,128",  "1,32,8,1,4096,128"};
static const char *const common_layers[] = {"4,128,384,12", "1,1024,512,8", "1,1024,512,8,causal", "1,2048,1024,16"};

typedef struct bench_row {
    cli_problem problem;
    bench_result result;
    bool timed;
} bench_row;

typedef struct bench {
    cli_device device;
    bench_settings settings;
    const char *csv; /* path, "-" or NULL: none */
    FILE *csv_file;  /* opened before anything is timed, so that a bad path costs no time */
    bool json;
    bench_row *rows;
    int count, timed;
    clattn_device_info info;
    double peak;   /* GFLOP/s, 0 unknown */
    double others; /* share of the processor that others used, negative unknown */
} bench;

static int add_case(bench *b, bool layer, const char *text) {
    if (b->count == MOST_CASES) return cli_fail(EXIT_USAGE, "more than %d shapes", MOST_CASES);
    cli_problem *problem = &b->rows[b->count].problem;
    if (layer ? !cli_problem_layer(problem, text) : !cli_problem_attention(problem, text)) return EXIT_USAGE;
    if (!(cli_problem_flops(problem) > 0))
        return cli_fail(EXIT_USAGE, "%s: a size is 0, so there is nothing to time", text);
    b->count++;
    return EXIT_GOOD;
}

static int bad_value(const char *option, const char *value, const char *rule) {
    return cli_fail(EXIT_USAGE, "--%s '%s': expected %s", option, value, rule);
}

static int take_option(bench *b, int option, const char *value) {
    long long seed;
    switch (option) {
    case OPT_ATTENTION:
        return add_case(b, false, value);
    case OPT_LAYER:
        return add_case(b, true, value);
    case OPT_KERNEL:
        b->settings.kernel = value;
        break;
    case OPT_GEMM:
        b->settings.gemm = value;
        break;
    case OPT_WARMUP:
        if (!cli_parse_int(value, 0, 1000000, &b->settings.warmup)) return bad_value("warmup", value, "0..1000000");
        break;
    case OPT_REPEAT:
        if (!cli_parse_int(value, 1, 2000, &b->settings.repeat)) return bad_value("repeat", value, "1..2000");
        break;
    case OPT_SECONDS:
        if (!cli_parse_double(value, &b->settings.seconds) || !(b->settings.seconds >= 0))
            return bad_value("seconds", value, "a number >= 0");
        break;
    case OPT_SEED:
        if (!cli_parse_int(value, 0, INT64_MAX, &seed)) return bad_value("seed", value, "a whole number >= 0");
        b->settings.seed = (uint64_t)seed;
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

static int add_common_cases(bench *b) {
    int code = EXIT_GOOD;
    for (size_t i = 0; i < sizeof common_attention / sizeof *common_attention && code == EXIT_GOOD; i++)
        code = add_case(b, false, common_attention[i]);
    for (size_t i = 0; i < sizeof common_layers / sizeof *common_layers && code == EXIT_GOOD; i++)
        code = add_case(b, true, common_layers[i]);
    return code;
}

static const char *operation(const bench_row *row) { return row->problem.layer ? "layer" : "attention"; }

/* "" when the peak is not known or does not apply. */
static const char *fraction_text(const bench *b, const bench_row *row, char text[16]) {
    text[0] = '\0';
    if (b->peak > 0 && row->timed) snprintf(text, 16, "%.3f", row->result.gflops / b->peak);
    return text;
}

static void print_table(const bench *b) {
    static const char *const titles[] = {"operation", "shape", "causal", "min ms",   "median ms", "runs",
                                         "GFLOP/s",   "peak",  "error",  "of bound", "rows",      "kernels"};
    cli_table table;
    cli_table_start(&table, titles, "lllrrrrrrrrl");
    for (int i = 0; i < b->count; i++) {
        const bench_row *row = &b->rows[i];
        const bench_result *r = &row->result;
        char text[16];
        if (!row->timed) continue;
        cli_table_add(&table, "%s", operation(row));
        cli_table_add(&table, "%s", row->problem.shape);
        cli_table_add(&table, "%s", row->problem.causal ? "yes" : "no");
        cli_table_add(&table, "%.3f", r->min_ms);
        cli_table_add(&table, "%.3f", r->median_ms);
        cli_table_add(&table, "%d", r->runs);
        cli_table_add(&table, "%.1f", r->gflops);
        cli_table_add(&table, "%s", fraction_text(b, row, text));
        cli_table_add(&table, "%.2e", r->max_error);
        cli_table_add(&table, "%.3f", r->error_fraction);
        cli_table_add(&table, "%lld/%lld", (long long)r->rows_checked, (long long)r->rows);
        cli_table_add(&table, "%s", r->kernels);
    }
    printf("%s (%s, driver %s)\n", b->info.name, b->info.platform, b->info.driver);
    if (b->peak > 0)
        printf("multiply-add peak of the host with %u threads: %.1f GFLOP/s\n", b->info.compute_units, b->peak);
    putchar('\n');
    cli_table_print(&table, stdout);
    cli_table_free(&table);
}

static int print_json(const bench *b) {
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "device", b->info.name);
    cJSON_AddStringToObject(root, "platform", b->info.platform);
    cJSON_AddStringToObject(root, "driver", b->info.driver);
    cli_json_number(root, "peak_gflops", b->peak);
    cli_json_number(root, "others_share", b->others);
    cJSON *rows = cJSON_AddArrayToObject(root, "rows");
    for (int i = 0; i < b->count; i++) {
        const bench_row *row = &b->rows[i];
        const bench_result *r = &row->result;
        if (!row->timed) continue;
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "op", operation(row));
        cJSON_AddStringToObject(item, "shape", row->problem.shape);
        cJSON_AddBoolToObject(item, "causal", row->problem.causal);
        cli_json_number(item, "min_ms", r->min_ms);
        cli_json_number(item, "median_ms", r->median_ms);
        cJSON_AddNumberToObject(item, "runs", r->runs);
        cli_json_number(item, "gflops", r->gflops);
        if (b->peak > 0) cli_json_number(item, "fraction_of_peak", r->gflops / b->peak);
        cli_json_number(item, "max_error", r->max_error);
        cli_json_number(item, "error_fraction", r->error_fraction);
        cJSON_AddNumberToObject(item, "rows_checked", (double)r->rows_checked);
        cJSON_AddNumberToObject(item, "rows", (double)r->rows);
        cJSON_AddStringToObject(item, "kernels", r->kernels);
        cJSON_AddItemToArray(rows, item);
    }
    return cli_json_print(root);
}

/* Device and kernel names may hold commas and quotes. */
static void csv_text(FILE *file, const char *text) {
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, file);
        return;
    }
    fputc('"', file);
    for (; *text; text++) {
        if (*text == '"') fputc('"', file);
        fputc(*text, file);
    }
    fputc('"', file);
}

static void csv_rows(const bench *b, FILE *file) {
    fputs("op,peer,shape,causal,min_ms,median_ms,gflops,fraction_of_peak,device,driver,kernel,max_error\n", file);
    for (int i = 0; i < b->count; i++) {
        const bench_row *row = &b->rows[i];
        const bench_result *r = &row->result;
        char text[16];
        if (!row->timed) continue;
        fprintf(file, "%s,clattn,%s,%d,%.3f,%.3f,%.1f,%s,", operation(row), row->problem.shape, row->problem.causal,
                r->min_ms, r->median_ms, r->gflops, fraction_text(b, row, text));
        csv_text(file, b->info.name);
        fputc(',', file);
        csv_text(file, b->info.driver);
        fputc(',', file);
        csv_text(file, r->kernels);
        fprintf(file, ",%.3e\n", r->max_error);
    }
}

static int open_csv(bench *b) {
    if (!b->csv) return EXIT_GOOD;
    b->csv_file = strcmp(b->csv, "-") == 0 ? stdout : fopen(b->csv, "w");
    return b->csv_file ? EXIT_GOOD : cli_fail(EXIT_USAGE, "--csv %s: %s", b->csv, strerror(errno));
}

static int close_csv(bench *b) {
    if (!b->csv_file || b->csv_file == stdout) return EXIT_GOOD;
    bool good = !ferror(b->csv_file);
    if (fclose(b->csv_file) != 0) good = false;
    b->csv_file = NULL;
    return good ? EXIT_GOOD : cli_fail(EXIT_USAGE, "--csv %s: writing failed: %s", b->csv, strerror(errno));
}

static int report(bench *b) {
    int code = EXIT_GOOD;
    if (b->json)
        code = print_json(b);
    else if (b->timed > 0 && b->csv_file != stdout)
        print_table(b);
    if (b->csv_file) csv_rows(b, b->csv_file);
    if (b->timed > 0 && b->others > BUSY_SHARE)
        cli_fail(code, "warning: other processes used %.0f %% of the processor meanwhile; the times are too long",
                 100 * b->others);
    return code;
}

/* The first failure decides the exit code; the cases behind it run all the same. */
static int run_cases(bench *b, clattn_context *context) {
    int code = EXIT_GOOD;
    bool cpu = b->info.type == CLATTN_DEVICE_CPU;
    bench_load start = bench_load_now();
    b->peak = cpu ? bench_peak_gflops((int)b->info.compute_units) : 0;
    for (int i = 0; i < b->count; i++) {
        cli_progress("case", i, b->count);
        int result = bench_run(context, &b->rows[i].problem, &b->settings, &b->rows[i].result);
        b->rows[i].timed = result == EXIT_GOOD;
        b->timed += b->rows[i].timed;
        if (code == EXIT_GOOD) code = result;
    }
    cli_progress("case", b->count, b->count);
    double again = cpu ? bench_peak_gflops((int)b->info.compute_units) : 0;
    if (again > b->peak) b->peak = again;
    b->others = bench_load_others(&start);
    return code;
}

int cmd_bench(int argc, char **argv) {
    bench b = {.settings = {.warmup = 2, .seconds = 1, .seed = 1}};
    int code = EXIT_GOOD;
    cli_device_init(&b.device);
    b.rows = calloc(MOST_CASES, sizeof *b.rows);
    if (!b.rows) return cli_fail(EXIT_USAGE, "out of memory");
    clattn_context *context = NULL;
    for (int option; (option = getopt_long(argc, argv, "hv", long_options, NULL)) != -1;) {
        int handled = cli_device_option(&b.device, option, optarg);
        if (handled > 0) continue;
        if (option == 'h') {
            fputs(help, stdout);
            goto done;
        }
        code = handled < 0 ? EXIT_USAGE : take_option(&b, option, optarg);
        if (code != EXIT_GOOD) goto done;
    }
    if (optind < argc) code = cli_fail(EXIT_USAGE, "unexpected argument '%s'", argv[optind]);
    if (code == EXIT_GOOD && b.count == 0) code = add_common_cases(&b);
    if (code == EXIT_GOOD) code = cli_context(&b.device, &context);
    if (code == EXIT_GOOD) code = open_csv(&b);
    if (code != EXIT_GOOD) goto done;
    clattn_context_device(context, &b.info);
    code = run_cases(&b, context);
    int reported = report(&b), closed = close_csv(&b);
    if (code == EXIT_GOOD) code = reported != EXIT_GOOD ? reported : closed;
done:
    clattn_context_destroy(&context);
    free(b.rows);
    return code;
}
