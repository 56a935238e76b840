/* clattn verify: the long form of what every kernel goes through before its first use, on demand. */
#define _POSIX_C_SOURCE 200809L /* isatty */
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "table.h"

static const char help[] =
    "usage: clattn verify [options]\n"
    "\n"
    "Runs every kernel in many variants on adversarial cases, compares each result with the scalar reference,\n"
    "and renews the trust record of the device.\n"
    "\n"
    "  --all                verify every device, not only the picked one\n"
    "  --kernel NAME        only this kernel, or small kernel (layer_norm, rope, ...); 3 is the exit code where the\n"
    "                       device, or each one of --all, refuses all of it\n"
    "  --most N             the first N variants of each kernel\n"
    "  --brief              each kernel with each feature, in few variants and short cases\n"
    "  --json               the same as JSON\n" CLI_DEVICE_HELP "  --help               this text\n"
    "\n"
    "worst: the greatest error as a fraction of what the error model allows a correct device; above 1 is wrong.\n"
    "\n"
    "examples:\n"
    "  clattn verify\n"
    "  clattn verify --device gpu,vendor=amd\n"
    "  clattn verify --brief --kernel attn_tiled --pretend type=gpu,local_memory=16384,work_group=64\n"
    "  clattn verify --all --json > verified.json\n"
    "\n"
    "exit: 0 all agree, 1 a result differs, 2 bad option, 3 not supported, 4 no device\n";

typedef struct verify_report {
    cli_table table;
    cJSON *results; /* NULL without --json */
    long variants, refused, failed;
    double worst;
    char *failures;    /* texts of the failures, a line each; NULL when there is none */
    char refusal[256]; /* the first one's reason */
} verify_report;

static void keep_failure(verify_report *report, const clattn_verify_result *result) {
    size_t old = report->failures ? strlen(report->failures) : 0;
    size_t more = strlen(result->kernel) + strlen(result->variant) + strlen(result->detail) + 16;
    char *text = realloc(report->failures, old + more);
    if (!text) return;
    snprintf(text + old, more, "%s [%s]: %s\n", result->kernel, result->variant, result->detail);
    report->failures = text;
}

static const char *verdict_text(const clattn_verify_result *result) {
    return result->refused ? "refused" : result->failures ? "WRONG" : "agrees";
}

static void add_json(cJSON *results, const clattn_verify_result *result) {
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "kernel", result->kernel);
    cJSON_AddStringToObject(item, "variant", result->variant);
    cJSON_AddStringToObject(item, "verdict", verdict_text(result));
    cJSON_AddNumberToObject(item, "cases", result->cases);
    cJSON_AddNumberToObject(item, "failures", result->failures);
    cli_json_number(item, "worst", result->worst);
    cJSON_AddStringToObject(item, "detail", result->detail);
    cJSON_AddItemToArray(results, item);
}

static void add_row(cli_table *table, const clattn_verify_result *result) {
    cli_table_add(table, "%s", result->kernel);
    cli_table_add(table, "%s", verdict_text(result));
    cli_table_add(table, "%d", result->cases);
    if (result->refused)
        cli_table_add(table, "-");
    else
        cli_table_add(table, "%.3f", result->worst);
    cli_table_add(table, "%s%s%s", result->variant, result->refused ? ": " : "", result->refused ? result->detail : "");
}

static void on_result(void *user, const clattn_verify_result *result) {
    verify_report *report = user;
    report->variants++;
    if (result->refused) {
        if (report->refused++ == 0) snprintf(report->refusal, sizeof report->refusal, "%s", result->detail);
    } else if (!isnan(report->worst) && !(result->worst <= report->worst)) {
        report->worst = result->worst; /* also when it is NaN, and then for good */
    }
    if (result->failures) {
        report->failed++;
        keep_failure(report, result);
    }
    if (report->results)
        add_json(report->results, result);
    else
        add_row(&report->table, result);
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[K%ld variants verified", report->variants);
}

static void print_report(const verify_report *report, const clattn_device_info *info, double seconds) {
    printf("%s (%s, driver %s)\n\n", info->name, info->platform, info->driver);
    cli_table_print(&report->table, stdout);
    if (report->failures) printf("\n%s", report->failures);
    printf("\n%ld variants: %ld agree, %ld wrong, %ld refused; worst error %.3f of its tolerance; %.1f s\n",
           report->variants, report->variants - report->failed - report->refused, report->failed, report->refused,
           report->worst, seconds);
}

static cJSON *report_json(verify_report *report, const clattn_device_info *info, clattn_status status, double seconds) {
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "device", info->name);
    cJSON_AddStringToObject(item, "platform", info->platform);
    cJSON_AddStringToObject(item, "driver", info->driver);
    cJSON_AddStringToObject(item, "status", clattn_status_name(status));
    cJSON_AddNumberToObject(item, "variants", (double)report->variants);
    cJSON_AddNumberToObject(item, "wrong", (double)report->failed);
    cJSON_AddNumberToObject(item, "refused", (double)report->refused);
    cli_json_number(item, "worst", report->worst);
    cJSON_AddNumberToObject(item, "seconds", seconds);
    cJSON_AddItemToObject(item, "results", report->results);
    report->results = NULL;
    return item;
}

/* Over all devices: whether one of them ran anything, and why the first one that did not refused it. */
typedef struct verify_summary {
    bool ran;
    char refusal[512];
} verify_summary;

static void summarize(verify_summary *summary, const verify_report *report, const char *device) {
    if (report->refused < report->variants) summary->ran = true;
    if (summary->ran || summary->refusal[0]) return;
    snprintf(summary->refusal, sizeof summary->refusal, "%s: %s", device, report->refusal);
}

/* devices: the array that collects the JSON of each device, or NULL for text. */
static int verify_device(const cli_device *device, const clattn_verify_options *options, cJSON *devices,
                         verify_summary *summary) {
    static const char *const titles[] = {"kernel", "result", "cases", "worst", "variant"};
    clattn_context *context = NULL;
    int code = cli_context(device, &context);
    if (code != EXIT_GOOD) return code;
    clattn_device_info info;
    clattn_context_device(context, &info);
    verify_report report = {.results = devices ? cJSON_CreateArray() : NULL};
    cli_table_start(&report.table, titles, "llrrl");
    double start = cli_seconds();
    clattn_status status = clattn_verify_with(context, options, on_result, &report);
    double seconds = cli_seconds() - start;
    if (isatty(STDERR_FILENO)) fputs("\r\033[K", stderr);
    if (devices)
        cJSON_AddItemToArray(devices, report_json(&report, &info, status, seconds));
    else
        print_report(&report, &info, seconds);
    fflush(stdout);
    if (status == CLATTN_WRONG_RESULT)
        code = cli_fail(EXIT_WRONG, "%s gives wrong results", info.name);
    else if (status != CLATTN_OK)
        code = cli_fail_status(status, "verifying");
    summarize(summary, &report, info.name);
    cli_table_free(&report.table);
    free(report.failures);
    clattn_context_destroy(&context);
    return code;
}

/* A wrong result outweighs every other failure. */
static int verify_all(const cli_device *device, const clattn_verify_options *options, cJSON *devices,
                      verify_summary *summary) {
    clattn_device_list *list = NULL;
    clattn_status status = clattn_device_list_create(&list);
    if (status != CLATTN_OK) return cli_fail_status(status, "looking for devices");
    int count = clattn_device_list_count(list), code = EXIT_GOOD;
    clattn_device_list_destroy(&list);
    if (count == 0) return cli_fail(EXIT_NO_DEVICE, "no OpenCL device; clattn devices says what was left out and why");
    for (int i = 0; i < count; i++) {
        cli_device one = *device;
        char selector[16];
        snprintf(selector, sizeof selector, "%d", i);
        one.selector = selector;
        if (i > 0 && !devices) putchar('\n');
        int result = verify_device(&one, options, devices, summary);
        if (code == EXIT_GOOD || result == EXIT_WRONG) code = result;
    }
    return code;
}

int cmd_verify(int argc, char **argv) {
    enum { OPT_ALL = CLI_OPT_FIRST_OWN, OPT_KERNEL, OPT_BRIEF, OPT_MOST, OPT_JSON };
    static const struct option options[] = {CLI_DEVICE_OPTIONS,
                                            {"all", no_argument, NULL, OPT_ALL},
                                            {"kernel", required_argument, NULL, OPT_KERNEL},
                                            {"brief", no_argument, NULL, OPT_BRIEF},
                                            {"most", required_argument, NULL, OPT_MOST},
                                            {"json", no_argument, NULL, OPT_JSON},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    cli_device device;
    cli_device_init(&device);
    clattn_verify_options o;
    clattn_verify_options_init(&o);
    bool all = false, json = false;
    for (int option; (option = getopt_long(argc, argv, "hv", options, NULL)) != -1;) {
        int handled = cli_device_option(&device, option, optarg);
        if (handled < 0) return EXIT_USAGE;
        if (handled > 0) continue;
        if (option == 'h') return fputs(help, stdout), EXIT_GOOD;
        if (option == OPT_ALL)
            all = true;
        else if (option == OPT_KERNEL)
            o.kernel = optarg;
        else if (option == OPT_BRIEF)
            o.brief = 1;
        else if (option == OPT_MOST) {
            long long most;
            if (!cli_parse_int(optarg, 1, 1000, &most))
                return cli_fail(EXIT_USAGE, "--most \"%s\": a number in 1..1000 is wanted", optarg);
            o.most = (int)most;
        } else if (option == OPT_JSON)
            json = true;
        else
            return cli_usage_hint();
    }
    if (optind < argc) return cli_fail(EXIT_USAGE, "unexpected argument '%s'", argv[optind]);
    cJSON *devices = json ? cJSON_CreateArray() : NULL;
    if (json && !devices) return cli_fail(EXIT_USAGE, "out of memory");
    verify_summary summary = {0};
    int code = (all ? verify_all : verify_device)(&device, &o, devices, &summary);
    /* A kernel that was asked for by its name. Some devices may lack what it needs: a matrix engine, for example. */
    if (code == EXIT_GOOD && o.kernel && !summary.ran)
        code = cli_fail(EXIT_NOT_SUPPORTED, "nothing of %s can run there: %s", o.kernel, summary.refusal);
    if (json) {
        cJSON *root = cJSON_CreateObject();
        cJSON_AddItemToObject(root, "devices", devices);
        int printed = cli_json_print(root);
        if (code == EXIT_GOOD) code = printed;
    }
    return code;
}
