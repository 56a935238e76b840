/* clattn check: every golden case below some folders, on the device, through the public interface. */
#define _POSIX_C_SOURCE 200809L /* opendir, strdup */

#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "case.h"
#include "table.h"

static const char help[] =
    "usage: clattn check [options] DIR...\n"
    "\n"
    "Runs every golden case: each folder at or below DIR that holds a case.json and the .npy files it names.\n"
    "A value is right when |got - want| <= atol + rtol * |want|, with the tolerances of the case; infinities must be\n"
    "equal. One line per case gives the greatest error, the tolerance where the error is greatest relative to it, and\n"
    "the kernels that ran.\n"
    "Outputs named grad_* are counted and not compared.\n"
    "\n"
    "  --allow-unsupported  exit with 0 although some cases are not supported\n"
    "  --kernel NAME        only this attention kernel\n"
    "  --quiet              only failures and the totals\n"
    "  --json               one JSON document instead of lines\n" CLI_DEVICE_HELP "  --help               this text\n"
    "\n"
    "examples\n"
    "  clattn check tests/golden\n"
    "  clattn check --device cpu --kernel attn_tiled --allow-unsupported tests/golden/torch_sdpa\n"
    "\n"
    "exit code: 0 all pass, 1 one failed, 2 usage or no case found, 3 one is not supported, 4 no device\n";

typedef struct check_options {
    cli_device device;
    const char *kernel;
    bool allow_unsupported, quiet, json;
} check_options;

/* ---- finding -------------------------------------------------------------------------------------------------- */

typedef struct path_list {
    char **items;
    size_t count, capacity;
} path_list;

enum { MAX_DEPTH = 32 }; /* ends walks through links that lead back */

static bool list_add(path_list *list, const char *path) {
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 64;
        char **items = realloc(list->items, capacity * sizeof *items);
        if (!items) return false;
        list->items = items;
        list->capacity = capacity;
    }
    char *copy = strdup(path);
    if (!copy) return false;
    list->items[list->count++] = copy;
    return true;
}

static void list_free(path_list *list) {
    for (size_t i = 0; i < list->count; i++) free(list->items[i]);
    free(list->items);
}

/* What stat says of a name in a folder; false when there is nothing. */
static bool look_at(const char *folder, const char *name, struct stat *info) {
    char path[4096];
    return snprintf(path, sizeof path, "%s/%s", folder, name) < (int)sizeof path && stat(path, info) == 0;
}

/* EXIT_GOOD, or a code with the message printed. */
static int find_cases(const char *folder, int depth, path_list *list) {
    struct stat info;
    bool is_case = look_at(folder, "case.json", &info) && S_ISREG(info.st_mode);
    if (is_case && !list_add(list, folder)) return cli_fail(EXIT_USAGE, "no memory for the list of cases");
    DIR *directory = opendir(folder);
    if (!directory) return cli_fail(EXIT_USAGE, "%s: cannot be opened: %s", folder, strerror(errno));
    int code = EXIT_GOOD;
    for (struct dirent *entry; code == EXIT_GOOD && (entry = readdir(directory)) != NULL;) {
        char path[4096];
        if (entry->d_name[0] == '.' || depth == MAX_DEPTH) continue;
        if (!look_at(folder, entry->d_name, &info) || !S_ISDIR(info.st_mode)) continue;
        if (snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) < (int)sizeof path)
            code = find_cases(path, depth + 1, list);
    }
    closedir(directory);
    return code;
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static int find_all(int count, char **folders, path_list *list) {
    for (int i = 0; i < count; i++) {
        char *folder = folders[i];
        for (size_t n = strlen(folder); n > 1 && folder[n - 1] == '/'; n--) folder[n - 1] = '\0';
        int code = find_cases(folder, 0, list);
        if (code != EXIT_GOOD) return code;
    }
    if (list->count == 0) return cli_fail(EXIT_USAGE, "there is no case.json at or below %s", folders[0]);
    qsort(list->items, list->count, sizeof *list->items, by_text);
    size_t kept = 1; /* the same folder given twice counts once */
    for (size_t i = 1; i < list->count; i++) {
        if (strcmp(list->items[i], list->items[kept - 1]) == 0)
            free(list->items[i]);
        else
            list->items[kept++] = list->items[i];
    }
    list->count = kept;
    return EXIT_GOOD;
}

/* ---- reporting ------------------------------------------------------------------------------------------------ */

typedef struct totals {
    int passed, failed, unsupported, gradients;
} totals;

static const char *word_of(const case_verdict *v) {
    if (v->result == CASE_UNSUPPORTED) return "unsupported";
    return v->result == CASE_DONE && v->diff.wrong == 0 ? "pass" : "FAIL";
}

/* Only the first line of a long story; the rest is in --json. */
static int first_line(const char *text) { return (int)strcspn(text, "\n"); }

static void print_line(const cli_case *c, const case_verdict *v) {
    const cli_diff *d = &v->diff;
    printf("%-11s %s", word_of(v), c->name);
    if (v->result != CASE_DONE)
        printf(": %.*s\n", first_line(c->why), c->why);
    else if (d->wrong == 0)
        printf(" error %.3g tolerance %.3g (%s)\n", d->error, d->tolerance, c->kernels);
    else
        printf(" error %.3g tolerance %.3g (%s): %lld of %lld values are off, the worst is %s[%lld]: %.9g instead of "
               "%.9g\n",
               d->error, d->tolerance, c->kernels, (long long)d->wrong, (long long)d->count, v->role,
               (long long)d->index, d->got, d->want);
}

static void add_json(cJSON *cases, const cli_case *c, const case_verdict *v) {
    cJSON *o = cJSON_CreateObject();
    cJSON_AddItemToArray(cases, o);
    cJSON_AddStringToObject(o, "name", c->name);
    cJSON_AddStringToObject(o, "result",
                            v->result == CASE_DONE && v->diff.wrong ? "fail"
                            : v->result == CASE_ERROR               ? "fail"
                                                                    : word_of(v));
    cJSON_AddNumberToObject(o, "gradients_not_checked", v->gradients);
    if (v->result != CASE_DONE) {
        cJSON_AddStringToObject(o, "why", c->why);
        return;
    }
    cJSON_AddStringToObject(o, "kernels", c->kernels);
    cJSON_AddStringToObject(o, "worst_output", v->role);
    cli_json_number(o, "greatest_error", v->diff.error);
    cli_json_number(o, "tolerance", v->diff.tolerance);
    cli_json_number(o, "fraction_of_tolerance", v->diff.fraction);
    cli_json_number(o, "wrong", (double)v->diff.wrong);
    cli_json_number(o, "compared", (double)v->diff.count);
}

static void count(totals *t, const case_verdict *v) {
    if (v->result == CASE_UNSUPPORTED)
        t->unsupported++;
    else if (v->result == CASE_DONE && v->diff.wrong == 0)
        t->passed++;
    else
        t->failed++;
    t->gradients += v->gradients;
}

static int print_totals(const check_options *o, const totals *t, int cases, cJSON *json) {
    if (!o->json) {
        printf("%d cases: %d passed, %d failed, %d unsupported (%d gradient outputs not checked)\n", cases, t->passed,
               t->failed, t->unsupported, t->gradients);
        return EXIT_GOOD;
    }
    cJSON_AddNumberToObject(json, "passed", t->passed);
    cJSON_AddNumberToObject(json, "failed", t->failed);
    cJSON_AddNumberToObject(json, "unsupported", t->unsupported);
    cJSON_AddNumberToObject(json, "gradients_not_checked", t->gradients);
    return cli_json_print(json);
}

/* ---- running -------------------------------------------------------------------------------------------------- */

static int run_cases(const check_options *o, clattn_context *context, const path_list *list) {
    totals t = {0};
    cJSON *json = o->json ? cJSON_CreateObject() : NULL,
          *cases = o->json ? cJSON_AddArrayToObject(json, "cases") : NULL;
    static cli_case c; /* large, and one at a time */
    for (size_t i = 0; i < list->count; i++) {
        cli_progress("case", (long)i, (long)list->count);
        c = (cli_case){.context = context, .kernel = o->kernel, .folder = list->items[i]};
        case_verdict v = case_run(&c);
        count(&t, &v);
        if (o->json)
            add_json(cases, &c, &v);
        else if (!o->quiet || strcmp(word_of(&v), "FAIL") == 0)
            print_line(&c, &v), fflush(stdout); /* a call that is ended early has told how far it came */
        case_free(&c);
    }
    cli_progress("case", (long)list->count, (long)list->count);
    int printed = print_totals(o, &t, (int)list->count, json);
    if (t.failed) return EXIT_WRONG;
    return t.unsupported && !o->allow_unsupported ? EXIT_NOT_SUPPORTED : printed;
}

int cmd_check(int argc, char **argv) {
    enum { OPT_ALLOW = CLI_OPT_FIRST_OWN, OPT_KERNEL, OPT_QUIET, OPT_JSON };
    static const struct option options[] = {CLI_DEVICE_OPTIONS,
                                            {"allow-unsupported", no_argument, NULL, OPT_ALLOW},
                                            {"kernel", required_argument, NULL, OPT_KERNEL},
                                            {"quiet", no_argument, NULL, OPT_QUIET},
                                            {"json", no_argument, NULL, OPT_JSON},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    check_options o = {0};
    cli_device_init(&o.device);
    for (int option; (option = getopt_long(argc, argv, "hv", options, NULL)) != -1;) {
        int handled = cli_device_option(&o.device, option, optarg);
        if (handled < 0) return EXIT_USAGE;
        if (handled > 0) continue;
        if (option == 'h') return fputs(help, stdout), EXIT_GOOD;
        if (option == OPT_ALLOW)
            o.allow_unsupported = true;
        else if (option == OPT_KERNEL)
            o.kernel = optarg;
        else if (option == OPT_QUIET)
            o.quiet = true;
        else if (option == OPT_JSON)
            o.json = true;
        else
            return cli_usage_hint();
    }
    if (optind == argc) return cli_fail(EXIT_USAGE, "DIR is missing"), cli_usage_hint();
    path_list list = {0};
    clattn_context *context = NULL;
    int code = find_all(argc - optind, argv + optind, &list);
    if (code == EXIT_GOOD) code = cli_context(&o.device, &context);
    if (code == EXIT_GOOD) code = run_cases(&o, context, &list);
    clattn_context_destroy(&context);
    list_free(&list);
    return code;
}
