/* clattn kernels: what the registry holds, as a Markdown table (docs/kernels.md holds its output) or JSON. */
#include <errno.h>
#include <getopt.h>
#include <string.h>
#include <sys/stat.h>

#include "table.h"

enum { OPT_JSON = CLI_OPT_FIRST_OWN, OPT_SOURCES };

static const char help[] =
    "usage: clattn kernels [--json]\n"
    "       clattn kernels --sources DIR [--device SELECTOR] [--pretend PAIRS]\n"
    "\n"
    "Lists the kernels in the order in which they are tried (of rival projections on a GPU the faster one first, see\n"
    "clattn explain), and which features each one serves. With --sources, writes the programs that a device would be\n"
    "given, which may be one that is not at hand, and builds nothing.\n"
    "\n"
    "  --sources DIR        write them into DIR, and DIR/programs.json: kernel, variant, file, options, source and\n"
    "                       key of each, and whether it is an alternative to the first choice of tiles\n"
    "  --json               the list as JSON\n" CLI_DEVICE_HELP "  --help               this text\n"
    "\n"
    "examples:\n"
    "  clattn kernels\n"
    "  clattn kernels --json\n"
    "  clattn kernels --sources build/programs --pretend type=gpu,vendor=AMD,local_memory=65536,work_group=256\n"
    "\n"
    "exit: 0 good, 2 bad option, or a file that cannot be written, 3 too little memory, 4 no device\n";

static bool is_attention(const clattn_kernel_info *info) { return strcmp(info->kind, "attention") == 0; }

static void print_features(void) {
    clattn_kernel_info info;
    printf("| feature |");
    for (int k = 0; clattn_kernel_get(k, &info) == CLATTN_OK && is_attention(&info); k++) printf(" %s |", info.name);
    printf("\n|---|");
    for (int k = 0; clattn_kernel_get(k, &info) == CLATTN_OK && is_attention(&info); k++) printf("---|");
    printf("\n");
    for (int f = 0; clattn_feature_name(f); f++) {
        printf("| %s |", clattn_feature_name(f));
        for (int k = 0; clattn_kernel_get(k, &info) == CLATTN_OK && is_attention(&info); k++)
            printf(" %s |", info.features >> f & 1 ? "yes" : "-");
        printf("\n");
    }
}

static int print_json(void) {
    cJSON *root = cJSON_CreateArray();
    clattn_kernel_info info;
    for (int k = 0; root && k < clattn_kernel_count() && clattn_kernel_get(k, &info) == CLATTN_OK; k++) {
        cJSON *item = cJSON_CreateObject(), *features = cJSON_CreateArray();
        cJSON_AddStringToObject(item, "name", info.name);
        cJSON_AddStringToObject(item, "kind", info.kind);
        cJSON_AddStringToObject(item, "what", info.what);
        for (int f = 0; clattn_feature_name(f); f++)
            if (info.features >> f & 1) cJSON_AddItemToArray(features, cJSON_CreateString(clattn_feature_name(f)));
        cJSON_AddItemToObject(item, "features", features);
        cJSON_AddItemToArray(root, item);
    }
    return cli_json_print(root);
}

/* ---- sources ----------------------------------------------------------------------------------------------------- */

typedef struct sources {
    const char *dir;
    cJSON *list;
    bool failed; /* message printed */
} sources;

static bool write_text(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    const bool good = file && fputs(text, file) >= 0;
    if ((file && fclose(file) != 0) || !good) {
        cli_fail(EXIT_USAGE, "%s cannot be written: %s", path, strerror(errno));
        return false;
    }
    return true;
}

static void write_program(void *user, const clattn_program_source *program) {
    sources *all = user;
    char name[128], path[4096];
    snprintf(name, sizeof name, "%s-%s.cl", program->kernel, program->key);
    snprintf(path, sizeof path, "%s/%s", all->dir, name);
    all->failed = all->failed || !write_text(path, program->source);
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "kernel", program->kernel);
    cJSON_AddStringToObject(item, "variant", program->variant);
    cJSON_AddStringToObject(item, "file", program->file);
    cJSON_AddStringToObject(item, "options", program->options);
    cJSON_AddStringToObject(item, "source", name);
    cJSON_AddStringToObject(item, "key", program->key);
    cJSON_AddBoolToObject(item, "alternative", program->alternative);
    cJSON_AddItemToArray(all->list, item);
}

static int write_sources(const char *dir, const cli_device *device) {
    clattn_context *context = NULL;
    if (mkdir(dir, 0777) != 0 && errno != EEXIST)
        return cli_fail(EXIT_USAGE, "the folder %s cannot be made: %s", dir, strerror(errno));
    const int opened = cli_context(device, &context);
    if (opened != EXIT_GOOD) return opened;
    sources all = {.dir = dir, .list = cJSON_CreateArray()};
    clattn_status status = clattn_kernel_sources(context, write_program, &all);
    clattn_context_destroy(&context);
    char *text = cJSON_Print(all.list), path[4096];
    cJSON_Delete(all.list);
    snprintf(path, sizeof path, "%s/programs.json", dir);
    if (!text) return cli_fail(EXIT_NOT_SUPPORTED, "no memory for %s", path);
    all.failed = all.failed || !write_text(path, text);
    cJSON_free(text);
    if (status != CLATTN_OK) return cli_fail_status(status, "listing the programs");
    return all.failed ? EXIT_USAGE : EXIT_GOOD;
}

int cmd_kernels(int argc, char **argv) {
    static const struct option long_options[] = {{"json", no_argument, NULL, OPT_JSON},
                                                 {"sources", required_argument, NULL, OPT_SOURCES},
                                                 {"help", no_argument, NULL, 'h'},
                                                 CLI_DEVICE_OPTIONS,
                                                 {NULL, 0, NULL, 0}};
    cli_device device;
    const char *dir = NULL;
    bool json = false;
    cli_device_init(&device);
    for (int option; (option = getopt_long(argc, argv, "hv", long_options, NULL)) != -1;) {
        if (option == 'h') return fputs(help, stdout), EXIT_GOOD;
        const int known = cli_device_option(&device, option, optarg);
        if (known < 0) return EXIT_USAGE;
        if (known) continue;
        if (option == OPT_JSON)
            json = true;
        else if (option == OPT_SOURCES)
            dir = optarg;
        else
            return cli_usage_hint();
    }
    if (optind < argc) return cli_fail(EXIT_USAGE, "unexpected argument \"%s\"", argv[optind]);
    if (dir) return write_sources(dir, &device);
    if (json) return print_json();
    clattn_kernel_info info;
    printf("| kernel | kind | what it is |\n|---|---|---|\n");
    for (int k = 0; k < clattn_kernel_count() && clattn_kernel_get(k, &info) == CLATTN_OK; k++)
        printf("| %s | %s | %s |\n", info.name, info.kind, info.what);
    printf("\n");
    print_features();
    return EXIT_GOOD;
}
