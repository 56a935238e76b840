/* clattn kernels: what the registry holds, as a Markdown table (docs/kernels.md holds its output) or JSON. */
#include <getopt.h>
#include <string.h>

#include "table.h"

enum { OPT_JSON = CLI_OPT_FIRST_OWN };

static const char help[] =
    "usage: clattn kernels [--json]\n"
    "\n"
    "Lists the kernels in the order in which they are tried, and which features each one serves.\n"
    "\n"
    "  --json               for machines\n"
    "  --help               this text\n"
    "\n"
    "Examples:\n"
    "  clattn kernels\n"
    "  clattn kernels --json\n";

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

int cmd_kernels(int argc, char **argv) {
    static const struct option long_options[] = {
        {"json", no_argument, NULL, OPT_JSON}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    bool json = false;
    for (int option; (option = getopt_long(argc, argv, "h", long_options, NULL)) != -1;) {
        if (option == 'h') return fputs(help, stdout), EXIT_GOOD;
        if (option != OPT_JSON) return cli_usage_hint();
        json = true;
    }
    if (optind < argc) return cli_fail(EXIT_USAGE, "unexpected argument \"%s\"", argv[optind]);
    if (json) return print_json();
    clattn_kernel_info info;
    printf("| kernel | kind | what it is |\n|---|---|---|\n");
    for (int k = 0; k < clattn_kernel_count() && clattn_kernel_get(k, &info) == CLATTN_OK; k++)
        printf("| %s | %s | %s |\n", info.name, info.kind, info.what);
    printf("\n");
    print_features();
    return EXIT_GOOD;
}
