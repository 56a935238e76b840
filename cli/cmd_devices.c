/* clattn devices: what there is, what is known of it, and which one would be picked. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "table.h"

static const char help[] =
    "usage: clattn devices [options]\n"
    "\n"
    "Lists the OpenCL devices, best first, with what clattn knows of them. The picked one is marked *, and shown as\n"
    "--pretend, --matrix-engine and --compute-units make it.\n"
    "\n"
    "  --json               the same as JSON\n" CLI_DEVICE_HELP "  --help               this text\n"
    "\n"
    "trust: how many kernel variants reproduced the scalar reference on that device and driver, and how many\n"
    "did not (quarantined, never used there). A variant is verified before its first use.\n"
    "\n"
    "examples:\n"
    "  clattn devices\n"
    "  clattn devices --device gpu,platform=intel\n"
    "  clattn devices --json\n"
    "\n"
    "exit: 0 a device is picked, 2 bad option, 4 no device matches\n";

typedef struct trust_state {
    bool known;
    int verified, quarantined;
    char why[256]; /* when it is not known */
} trust_state;

/* A context on the device: its record is kept by device and driver. The picked one is opened as the options say, with
 * CLBlast's parameters where they are asked for. */
static clattn_status open_device(const cli_device *device, int index, bool picked, const char *clblast,
                                 clattn_context **context) {
    char selector[16];
    snprintf(selector, sizeof selector, "%d", index);
    clattn_context_options options;
    clattn_context_options_init(&options);
    options.selector = selector;
    options.cache_dir = device->cache_dir;
    options.kernel_dir = device->kernel_dir;
    if (picked) {
        options.pretend = device->pretend;
        options.matrix_engine = device->matrix_engine;
        options.compute_units = device->compute_units;
        options.clblast_parameters = clblast;
    }
    return clattn_context_create(context, &options);
}

/* A device that is there and cannot be opened is listed with its reason; what the options ask of it is an error. */
static int check_options(const cli_device *device, int picked) {
    clattn_context *context = NULL;
    char *clblast;
    if (!cli_clblast_text(device, &clblast)) return EXIT_USAGE;
    const bool asked = device->pretend || device->matrix_engine || device->compute_units || clblast;
    clattn_status status = CLATTN_OK;
    if (picked >= 0 && asked) status = open_device(device, picked, true, clblast, &context);
    clattn_context_destroy(&context);
    free(clblast);
    return status == CLATTN_OK ? EXIT_GOOD : cli_fail_status(status, "opening the device");
}

static trust_state read_trust(clattn_context *context) {
    trust_state trust = {0};
    if (context) trust.known = clattn_context_trust(context, &trust.verified, &trust.quarantined) == CLATTN_OK;
    const char *error = clattn_last_error();
    if (!trust.known) snprintf(trust.why, sizeof trust.why, "%.*s", (int)strcspn(error, "\n"), error);
    return trust;
}

enum { TRUST_TEXT = 320 };

static const char *trust_text(const trust_state *trust, char text[TRUST_TEXT]) {
    if (!trust->known)
        snprintf(text, TRUST_TEXT, "unusable: %s", trust->why);
    else if (trust->verified + trust->quarantined == 0)
        snprintf(text, TRUST_TEXT, "nothing verified yet");
    else if (trust->quarantined == 0)
        snprintf(text, TRUST_TEXT, "%d verified", trust->verified);
    else
        snprintf(text, TRUST_TEXT, "%d verified, %d quarantined", trust->verified, trust->quarantined);
    return text;
}

static const char *type_text(clattn_device_type type) {
    return type == CLATTN_DEVICE_CPU ? "cpu" : type == CLATTN_DEVICE_GPU ? "gpu" : "other";
}

/* Drivers put "OpenCL " in front and the platform's name behind; the number is what a table needs. */
static const char *version_text(const char *version, char text[16]) {
    if (strncmp(version, "OpenCL ", 7) == 0) version += 7;
    snprintf(text, 16, "%.*s", (int)strcspn(version, " "), version);
    return text;
}

static void add_row(cli_table *table, const clattn_device_info *info, const trust_state *trust, bool picked) {
    char text[TRUST_TEXT];
    cli_table_add(table, "%s%d", picked ? "*" : "", info->index);
    cli_table_add(table, "%s", type_text(info->type));
    cli_table_add(table, "%s", info->name);
    cli_table_add(table, "%s", info->vendor);
    cli_table_add(table, "%s", info->driver);
    cli_table_add(table, "%s", version_text(info->version, text));
    cli_table_add(table, "%u", info->compute_units);
    cli_table_add(table, "%s", cli_bytes_text(info->global_memory, text));
    cli_table_add(table, "%s", cli_bytes_text(info->local_memory, text));
    cli_table_add(table, "%s", info->fp16 ? "yes" : "no");
    cli_table_add(table, "%s", info->subgroups ? "yes" : "no");
    cli_table_add(table, "%s", info->matrix_engine[0] ? info->matrix_engine : "none");
    cli_table_add(table, "%s", trust_text(trust, text));
}

/* What the list says of a device, or its context where there is one: NULL when it cannot be opened. */
static bool get_device(const clattn_device_list *list, const cli_device *device, int index, int picked,
                       clattn_device_info *info, clattn_context **context) {
    if (clattn_device_list_get(list, index, info) != CLATTN_OK) return false;
    if (open_device(device, index, index == picked, NULL, context) != CLATTN_OK) return true;
    const bool known = clattn_context_device(*context, info) == CLATTN_OK;
    info->index = index;
    return known;
}

static void print_devices(const clattn_device_list *list, const cli_device *device, int picked) {
    static const char *const titles[] = {"#",      "type",  "name", "vendor",     "driver", "OpenCL", "units",
                                         "memory", "local", "fp16", "sub-groups", "matrix", "trust"};
    cli_table table;
    cli_table_start(&table, titles, "rlllllrrrllll");
    for (int i = 0; i < clattn_device_list_count(list); i++) {
        clattn_device_info info;
        clattn_context *context = NULL;
        if (!get_device(list, device, i, picked, &info, &context)) continue;
        trust_state trust = read_trust(context);
        add_row(&table, &info, &trust, i == picked);
        clattn_context_destroy(&context); /* owns the names in info */
    }
    if (table.count > 0) cli_table_print(&table, stdout);
    cli_table_free(&table);
}

static void print_reasons(const clattn_device_list *list, const cli_device *device, int picked) {
    for (int i = 0; i < clattn_device_list_count(list); i++) {
        clattn_device_info info;
        if (clattn_device_list_get(list, i, &info) != CLATTN_OK) continue;
        printf("%s%d is on %s: %s\n", i == 0 ? "\n" : "", i, info.platform, info.why);
    }
    const char *reason;
    for (int i = 0; (reason = clattn_device_list_skipped(list, i)) != NULL; i++) printf("left out: %s\n", reason);
    if (picked >= 0 && device->selector)
        printf("picked: %d, by selector '%s'\n", picked, device->selector);
    else if (picked >= 0)
        printf("picked: %d, the best\n", picked);
}

static cJSON *device_json(const clattn_device_info *info, const trust_state *trust) {
    cJSON *item = cJSON_CreateObject();
    cJSON_AddNumberToObject(item, "index", info->index);
    cJSON_AddStringToObject(item, "type", type_text(info->type));
    cJSON_AddStringToObject(item, "name", info->name);
    cJSON_AddStringToObject(item, "vendor", info->vendor);
    cJSON_AddStringToObject(item, "platform", info->platform);
    cJSON_AddStringToObject(item, "driver", info->driver);
    cJSON_AddStringToObject(item, "version", info->version);
    cJSON_AddStringToObject(item, "uuid", info->uuid);
    cJSON_AddNumberToObject(item, "compute_units", info->compute_units);
    cJSON_AddNumberToObject(item, "clock_mhz", info->clock_mhz);
    cJSON_AddNumberToObject(item, "vector_width", info->vector_width);
    cJSON_AddNumberToObject(item, "global_memory", (double)info->global_memory);
    cJSON_AddNumberToObject(item, "local_memory", (double)info->local_memory);
    cJSON_AddNumberToObject(item, "second_cache", (double)info->second_cache);
    cJSON_AddNumberToObject(item, "max_allocation", (double)info->max_allocation);
    cJSON_AddNumberToObject(item, "max_work_group", (double)info->max_work_group);
    cJSON_AddBoolToObject(item, "unified_memory", info->unified_memory);
    cJSON_AddBoolToObject(item, "fp16", info->fp16);
    cJSON_AddBoolToObject(item, "subgroups", info->subgroups);
    cJSON_AddStringToObject(item, "matrix_engine", info->matrix_engine);
    cJSON_AddStringToObject(item, "why", info->why);
    cJSON *record = cJSON_AddObjectToObject(item, "trust");
    if (trust->known) {
        cJSON_AddNumberToObject(record, "verified", trust->verified);
        cJSON_AddNumberToObject(record, "quarantined", trust->quarantined);
    } else {
        cJSON_AddStringToObject(record, "error", trust->why);
    }
    return item;
}

static int print_json(const clattn_device_list *list, const cli_device *device, int picked) {
    cJSON *root = cJSON_CreateObject();
    if (device->selector)
        cJSON_AddStringToObject(root, "selector", device->selector);
    else
        cJSON_AddNullToObject(root, "selector");
    if (picked >= 0)
        cJSON_AddNumberToObject(root, "picked", picked);
    else
        cJSON_AddNullToObject(root, "picked");
    cJSON *devices = cJSON_AddArrayToObject(root, "devices");
    for (int i = 0; i < clattn_device_list_count(list); i++) {
        clattn_device_info info;
        clattn_context *context = NULL;
        if (!get_device(list, device, i, picked, &info, &context)) continue;
        trust_state trust = read_trust(context);
        cJSON_AddItemToArray(devices, device_json(&info, &trust));
        clattn_context_destroy(&context);
    }
    cJSON *skipped = cJSON_AddArrayToObject(root, "skipped");
    const char *reason;
    for (int i = 0; (reason = clattn_device_list_skipped(list, i)) != NULL; i++)
        cJSON_AddItemToArray(skipped, cJSON_CreateString(reason));
    return cli_json_print(root);
}

int cmd_devices(int argc, char **argv) {
    enum { OPT_JSON = CLI_OPT_FIRST_OWN };
    static const struct option options[] = {CLI_DEVICE_OPTIONS,
                                            {"json", no_argument, NULL, OPT_JSON},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    cli_device device;
    cli_device_init(&device);
    bool json = false;
    for (int option; (option = getopt_long(argc, argv, "hv", options, NULL)) != -1;) {
        int handled = cli_device_option(&device, option, optarg);
        if (handled < 0) return EXIT_USAGE;
        if (handled > 0) continue;
        if (option == 'h') return fputs(help, stdout), EXIT_GOOD;
        if (option != OPT_JSON) return cli_usage_hint();
        json = true;
    }
    if (optind < argc) return cli_fail(EXIT_USAGE, "unexpected argument '%s'", argv[optind]);
    clattn_device_list *list = NULL;
    clattn_status status = clattn_device_list_create(&list);
    if (status != CLATTN_OK) return cli_fail_status(status, "looking for devices");
    int picked = -1, code = EXIT_GOOD;
    status = clattn_device_list_select(list, device.selector, &picked);
    if (status != CLATTN_OK) picked = -1;
    code = check_options(&device, picked);
    if (code != EXIT_GOOD) {
        /* said already */
    } else if (json) {
        code = print_json(list, &device, picked);
    } else {
        print_devices(list, &device, picked);
        print_reasons(list, &device, picked);
    }
    /* The selection is repeated for its error text: reading the trust records may have replaced it. */
    if (status != CLATTN_OK) {
        fflush(stdout);
        code = cli_fail_status(clattn_device_list_select(list, device.selector, &picked), "choosing a device");
    }
    clattn_device_list_destroy(&list);
    return code;
}
