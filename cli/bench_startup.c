/* bench --startup: how long a process of its own takes from its start to its first result, with nothing cached on disk
 * and once everything is. */
#define _XOPEN_SOURCE 700 /* mkdtemp, nftw, posix_spawn */
#include <errno.h>
#include <ftw.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

extern char **environ;

enum { WARM_RUNS = 5, PATH_BYTES = 1024, MOST_VARIABLES = 1024 };

/* Where libraries and drivers keep what they compiled: all of it goes to a folder of our own. */
static const char *const cache_variables[] = {"XDG_CACHE_HOME",  "CLATTN_CACHE_DIR", "POCL_CACHE_DIR",
                                              "CUDA_CACHE_PATH", "NEO_CACHE_DIR",    "HOME"};
enum { CACHES = sizeof cache_variables / sizeof *cache_variables };

typedef struct startup_state {
    char option[16], sizes[CLI_SHAPE_TEXT]; /* "--attention", "1,8,8,1024,1024,64" */
    char folder[PATH_BYTES];                /* of the caches, "" when there is none */
    char variables[CACHES][PATH_BYTES + 32];
    char *environment[MOST_VARIABLES + 1];
} startup_state;

static bool parse(bench_case *c, const char *text) {
    startup_state *s = c->state;
    const char *space = strchr(text, ' ');
    snprintf(s->option, sizeof s->option, "--%.*s", (int)(space - text), text);
    snprintf(s->sizes, sizeof s->sizes, "%s", space + 1);
    snprintf(c->shape, sizeof c->shape, "%s", text);
    for (char *at = c->shape; *at; at++) *at = *at == ',' ? 'x' : *at == ' ' ? ':' : *at;
    return true;
}

static bool is_cache(const char *variable) {
    for (int i = 0; i < CACHES; i++) {
        size_t length = strlen(cache_variables[i]);
        if (strncmp(variable, cache_variables[i], length) == 0 && variable[length] == '=') return true;
    }
    return false;
}

static bool make_folder(startup_state *s) {
    const char *parent = getenv("TMPDIR");
    snprintf(s->folder, sizeof s->folder, "%s/clattn-startup-XXXXXX", parent && parent[0] ? parent : "/tmp");
    if (mkdtemp(s->folder)) return true;
    s->folder[0] = '\0';
    return false;
}

static void make_environment(startup_state *s) {
    int count = 0;
    for (; count < CACHES; count++) {
        snprintf(s->variables[count], sizeof s->variables[count], "%s=%s", cache_variables[count], s->folder);
        s->environment[count] = s->variables[count];
    }
    for (char **variable = environ; *variable && count < MOST_VARIABLES; variable++)
        if (!is_cache(*variable)) s->environment[count++] = *variable;
    s->environment[count] = NULL;
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *place) {
    (void)status, (void)type, (void)place;
    return remove(path);
}

/* "clattn bench --once SHAPE" with the options that it gets from here; NULL without memory. */
static char **make_arguments(const startup_state *s, char **handed) {
    char *own[] = {"clattn", "bench", "--once", (char *)s->option, (char *)s->sizes};
    const size_t before = sizeof own / sizeof *own;
    size_t count = 0;
    while (handed[count]) count++;
    char **arguments = calloc(before + count + 1, sizeof *arguments);
    if (!arguments) return NULL;
    memcpy(arguments, own, sizeof own);
    memcpy(arguments + before, handed, count * sizeof *handed);
    return arguments;
}

/* Seconds from the start of the process to its line. Its exit code; EXIT_NO_DEVICE when it has none. */
static int start_once(const startup_state *s, char **arguments, double *seconds) {
    posix_spawn_file_actions_t actions;
    int ends[2], status = 0;
    char byte;
    pid_t child;
    if (pipe(ends) != 0) return EXIT_NO_DEVICE;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    double start = cli_seconds();
    int failed = posix_spawn(&child, "/proc/self/exe", &actions, NULL, arguments, s->environment);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    bool answered = !failed && read(ends[0], &byte, 1) == 1;
    *seconds = cli_seconds() - start;
    close(ends[0]);
    if (failed) return EXIT_NO_DEVICE;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_NO_DEVICE;
    return code == EXIT_GOOD && !answered ? EXIT_NO_DEVICE : code;
}

/* `runs` starts after `unmeasured` ones, all with the same caches, which are empty at first. */
static int measure(bench_case *c, const bench_settings *settings, int unmeasured, int runs) {
    startup_state *s = c->state;
    double times[WARM_RUNS];
    int code = EXIT_GOOD;
    char **arguments = make_arguments(s, settings->handed);
    if (!arguments) return cli_fail(EXIT_NOT_SUPPORTED, "out of memory");
    if (!make_folder(s)) {
        free(arguments);
        return cli_fail(EXIT_USAGE, "%s: %s", s->folder, strerror(errno));
    }
    make_environment(s);
    for (int i = -unmeasured; i < runs && code == EXIT_GOOD; i++) {
        double seconds = 0;
        code = start_once(s, arguments, &seconds);
        if (code != EXIT_GOOD) cli_fail(code, "clattn bench --once %s %s failed", s->option, s->sizes);
        if (i >= 0) times[i] = seconds;
    }
    nftw(s->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(arguments);
    if (code == EXIT_GOOD) bench_take_times(&c->result, times, runs);
    return code;
}

static int measure_first(bench_case *c, const bench_settings *settings) { return measure(c, settings, 0, 1); }

static int measure_warm(bench_case *c, const bench_settings *settings) { return measure(c, settings, 1, WARM_RUNS); }

const bench_kind bench_first_run = {
    .op = "first_run", .state_bytes = sizeof(startup_state), .parse = parse, .measure = measure_first};
const bench_kind bench_warm_start = {
    .op = "warm_start", .state_bytes = sizeof(startup_state), .parse = parse, .measure = measure_warm};
