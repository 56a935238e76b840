/* clattn tune: measures tile sizes on a device and keeps the fastest in the cache folder. */
#define _POSIX_C_SOURCE 200809L /* isatty */
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "table.h"

static const char help[] =
    "usage: clattn tune [options]\n"
    "\n"
    "Measures the parameters that kernels could take on this device, and keeps the fastest in the cache folder, for\n"
    "this device, driver and version of clattn. Plans use them from then on; clattn explain shows them. Without this\n"
    "command only rival kernels of projections are compared, on GPUs, when a plan first needs them. A candidate is "
    "kept\n"
    "only when it reproduces the scalar reference. What was measured before is not measured again, so a call that was\n"
    "stopped goes on where it was.\n"
    "\n"
    "  --seconds S          stop after about S seconds (default 10); call again for the rest\n"
    "  --again              forget what was measured before on this device and driver\n"
    "  --json               the result as JSON\n" CLI_DEVICE_HELP "  --help               this text\n"
    "\n"
    "gain: time of the kernel's own choice over that of the fastest; - where its own choice is taken.\n"
    "\n"
    "examples:\n"
    "  clattn tune\n"
    "  clattn tune --device gpu --seconds 60\n"
    "  clattn tune --again --json > tuned.json\n"
    "\n"
    "exit: 0 measured, 1 a candidate was wrong (it is not used), 2 bad option or nothing can be kept, 3 not "
    "supported,\n"
    "4 no device\n";

static volatile sig_atomic_t interrupted;

static void on_signal(int number) {
    (void)number;
    interrupted = 1;
}

typedef struct tune_report {
    bool verbose;
    int wrong;
} tune_report;

static int on_step(void *user, const clattn_tune_step *step) {
    tune_report *report = user;
    char what[192];
    snprintf(what, sizeof what, "%s, %s: %s", step->workload, step->kernel, step->parameters);
    if (step->outcome == CLATTN_TUNE_WRONG) report->wrong++;
    if (step->outcome == CLATTN_TUNE_WRONG || step->outcome == CLATTN_TUNE_FAILED)
        fprintf(stderr, "%sclattn: %s: %s\n", isatty(STDERR_FILENO) ? "\r\033[K" : "", what, step->detail);
    else if (report->verbose)
        fprintf(stderr, "clattn: %d/%d %s: %.3f ms%s\n", step->index, step->count, what, 1e3 * step->seconds,
                step->outcome == CLATTN_TUNE_KNOWN ? ", known" : "");
    else
        cli_progress(what, step->index, step->count);
    return interrupted != 0;
}

static void add_row(cli_table *table, const clattn_tune_choice *choice) {
    cli_table_add(table, "%s", choice->workload);
    cli_table_add(table, "%s%s", choice->kernel, choice->preferred ? "" : " (slower)");
    cli_table_add(table, "%.3f", 1e3 * choice->seconds);
    if (choice->seconds < choice->own_seconds)
        cli_table_add(table, "%.2f", choice->own_seconds / choice->seconds);
    else
        cli_table_add(table, "-");
    cli_table_add(table, "%s", choice->parameters);
}

static void print_text(clattn_context *context, const clattn_tune_result *result) {
    static const char *const titles[] = {"workload", "kernel", "ms", "gain", "parameters"};
    clattn_device_info info;
    clattn_tune_choice choice;
    cli_table table;
    clattn_context_device(context, &info);
    cli_table_start(&table, titles, "llrrl");
    for (int i = 0; clattn_tuned(context, i, &choice) == CLATTN_OK; i++) add_row(&table, &choice);
    printf("%s (%s, driver %s)\n\n", info.name, info.platform, info.driver);
    cli_table_print(&table, stdout);
    cli_table_free(&table);
    printf("\n%d candidates: %d measured now, %d before, %d rejected, %d left%s\n", result->candidates,
           result->measured - result->rejected, result->known, result->rejected, result->remaining,
           result->remaining ? "; run clattn tune again to go on" : "");
}

static cJSON *result_json(clattn_context *context, const clattn_tune_result *result) {
    clattn_device_info info;
    clattn_tune_choice choice;
    cJSON *root = cJSON_CreateObject();
    clattn_context_device(context, &info);
    cJSON_AddStringToObject(root, "device", info.name);
    cJSON_AddStringToObject(root, "driver", info.driver);
    cJSON_AddNumberToObject(root, "candidates", result->candidates);
    cJSON_AddNumberToObject(root, "measured", result->measured);
    cJSON_AddNumberToObject(root, "known", result->known);
    cJSON_AddNumberToObject(root, "rejected", result->rejected);
    cJSON_AddNumberToObject(root, "remaining", result->remaining);
    cJSON *choices = cJSON_AddArrayToObject(root, "choices");
    for (int i = 0; clattn_tuned(context, i, &choice) == CLATTN_OK; i++) {
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "workload", choice.workload);
        cJSON_AddStringToObject(item, "kernel", choice.kernel);
        cJSON_AddStringToObject(item, "parameters", choice.parameters);
        cli_json_number(item, "seconds", choice.seconds);
        cli_json_number(item, "own_seconds", choice.own_seconds);
        cJSON_AddBoolToObject(item, "preferred", choice.preferred);
        cJSON_AddItemToArray(choices, item);
    }
    return root;
}

static int tune(clattn_context *context, clattn_tune_options *options, bool verbose, bool json) {
    tune_report report = {.verbose = verbose};
    clattn_tune_result result;
    options->progress = on_step;
    options->user = &report;
    signal(SIGINT, on_signal); /* the candidate at hand is finished and kept */
    clattn_status status = clattn_tune(context, options, &result);
    signal(SIGINT, SIG_DFL);
    cli_progress("", 1, 1);
    if (status != CLATTN_OK) return cli_fail_status(status, "tuning");
    int code = EXIT_GOOD;
    if (json)
        code = cli_json_print(result_json(context, &result));
    else
        print_text(context, &result);
    return report.wrong ? EXIT_WRONG : code;
}

int cmd_tune(int argc, char **argv) {
    enum { OPT_SECONDS = CLI_OPT_FIRST_OWN, OPT_AGAIN, OPT_JSON };
    static const struct option options[] = {CLI_DEVICE_OPTIONS,
                                            {"seconds", required_argument, NULL, OPT_SECONDS},
                                            {"again", no_argument, NULL, OPT_AGAIN},
                                            {"json", no_argument, NULL, OPT_JSON},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    cli_device device;
    cli_device_init(&device);
    clattn_tune_options wanted;
    clattn_tune_options_init(&wanted);
    bool json = false;
    for (int option; (option = getopt_long(argc, argv, "hv", options, NULL)) != -1;) {
        int handled = cli_device_option(&device, option, optarg);
        if (handled < 0) return EXIT_USAGE;
        if (handled > 0) continue;
        if (option == 'h') return fputs(help, stdout), EXIT_GOOD;
        if (option == OPT_SECONDS) {
            if (!cli_parse_double(optarg, &wanted.seconds) || !(wanted.seconds > 0 && wanted.seconds <= 86400))
                return cli_fail(EXIT_USAGE, "--seconds is '%s'; it must be a number above 0, 86400 at most", optarg);
        } else if (option == OPT_AGAIN) {
            wanted.again = 1;
        } else if (option == OPT_JSON) {
            json = true;
        } else {
            return cli_usage_hint();
        }
    }
    if (optind < argc) return cli_fail(EXIT_USAGE, "unexpected argument '%s'", argv[optind]);
    clattn_context *context = NULL;
    int code = cli_context(&device, &context);
    if (code != EXIT_GOOD) return code;
    code = tune(context, &wanted, device.verbose, json);
    clattn_context_destroy(&context);
    return code;
}
