#define _POSIX_C_SOURCE 200809L /* clock_gettime, isatty */

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "file.h"

static const char *command_name; /* NULL before a command is known */

void cli_set_command(const char *name) { command_name = name; }

int cli_fail(int code, const char *format, ...) {
    fflush(stdout);
    fprintf(stderr, "clattn%s%s: ", command_name ? " " : "", command_name ? command_name : "");
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    return code;
}

static int code_of(clattn_status status) {
    switch (status) {
    case CLATTN_OK:
        return EXIT_GOOD;
    case CLATTN_WRONG_RESULT:
        return EXIT_WRONG;
    case CLATTN_UNSUPPORTED:
    case CLATTN_OUT_OF_MEMORY:
        return EXIT_NOT_SUPPORTED;
    case CLATTN_NO_DEVICE:
    case CLATTN_DEVICE_FAILED:
    case CLATTN_BUILD_FAILED:
        return EXIT_NO_DEVICE;
    case CLATTN_INVALID_ARGUMENT:
    case CLATTN_INVALID_SHAPE:
    case CLATTN_MEMORY_LIMIT:
    case CLATTN_FILE_FAILED:
        break;
    }
    return EXIT_USAGE;
}

int cli_fail_status(clattn_status status, const char *doing) {
    const char *story = clattn_last_error();
    return cli_fail(code_of(status), "%s: %s", doing, story[0] ? story : clattn_status_text(status));
}

int cli_usage_hint(void) {
    if (command_name)
        fprintf(stderr, "try clattn %s --help\n", command_name);
    else
        fputs("try clattn --help\n", stderr);
    return EXIT_USAGE;
}

/* ---- device options ----------------------------------------------------------------------------------------- */

void cli_device_init(cli_device *device) {
    *device = (cli_device){.selector = getenv("CLATTN_DEVICE"),
                           .cache_dir = getenv("CLATTN_CACHE_DIR"),
                           .kernel_dir = getenv("CLATTN_KERNEL_DIR"),
                           .verify = CLATTN_VERIFY_ONCE};
}

static bool parse_trust(const char *text, clattn_verify_mode *mode) {
    static const char *const names[] = {"once", "always", "never"}; /* in the order of clattn_verify_mode */
    for (int i = 0; i < 3; i++)
        if (strcmp(text, names[i]) == 0) return *mode = (clattn_verify_mode)i, true;
    return false;
}

int cli_device_option(cli_device *device, int option, const char *value) {
    long long units;
    switch (option) {
    case CLI_OPT_DEVICE:
        device->selector = value;
        return 1;
    case CLI_OPT_CACHE:
        device->cache_dir = value;
        return 1;
    case CLI_OPT_NO_CACHE:
        device->cache_dir = "";
        return 1;
    case CLI_OPT_KERNEL_DIR:
        device->kernel_dir = value;
        return 1;
    case CLI_OPT_MATRIX_ENGINE:
        device->matrix_engine = value;
        return 1;
    case CLI_OPT_NO_TUNING:
        device->ignore_tuning = true;
        return 1;
    case CLI_OPT_CLBLAST:
        device->clblast = value;
        return 1;
    case CLI_OPT_PRETEND:
        device->pretend = value;
        return 1;
    case CLI_OPT_TRUST:
        if (parse_trust(value, &device->verify)) return 1;
        cli_fail(EXIT_USAGE, "--trust is '%s'; it must be once, always or never", value);
        return -1;
    case CLI_OPT_COMPUTE_UNITS:
        if (cli_parse_int(value, 1, 1 << 20, &units)) return device->compute_units = (int)units, 1;
        cli_fail(EXIT_USAGE, "--compute-units is '%s'; it must be a whole number >= 1", value);
        return -1;
    case CLI_OPT_VERBOSE:
    case 'v':
        device->verbose = true;
        return 1;
    default:
        return 0;
    }
}

/* Errors come back as statuses and are printed from there, so the log adds them only when everything is wanted. */
static void log_line(void *user, clattn_log_level level, const char *message) {
    static const char *const names[] = {"error", "warning", "info", "debug"};
    const cli_device *device = user;
    if (!device->verbose && level != CLATTN_LOG_WARNING) return;
    fprintf(stderr, "clattn: %s: %s\n", level >= CLATTN_LOG_ERROR && level <= CLATTN_LOG_DEBUG ? names[level] : "log",
            message);
}

bool cli_clblast_text(const cli_device *device, char **text) {
    char why[512];
    *text = NULL;
    if (!device->clblast || cli_file_text(device->clblast, 1 << 16, text, NULL, why)) return true;
    cli_fail(EXIT_USAGE, "--clblast %s", why);
    return false;
}

int cli_context(const cli_device *device, clattn_context **context) {
    /* The log may be called as long as the context lives, which may be longer than the caller's struct. */
    static cli_device kept;
    kept = *device;
    clattn_context_options options;
    clattn_context_options_init(&options);
    options.selector = device->selector;
    options.verify = device->verify;
    options.compute_units = device->compute_units;
    options.cache_dir = device->cache_dir;
    options.kernel_dir = device->kernel_dir;
    options.matrix_engine = device->matrix_engine;
    options.pretend = device->pretend;
    options.ignore_tuning = device->ignore_tuning;
    options.log = log_line;
    options.log_user = &kept;
    char *parameters;
    if (!cli_clblast_text(device, &parameters)) return EXIT_USAGE;
    options.clblast_parameters = parameters;
    clattn_status status = clattn_context_create(context, &options);
    free(parameters);
    return status == CLATTN_OK ? EXIT_GOOD : cli_fail_status(status, "opening the device");
}

/* ---- values ------------------------------------------------------------------------------------------------- */

bool cli_parse_int(const char *text, long long low, long long high, long long *value) {
    char *end;
    if (text[0] == '\0' || strchr(" \t\n\r\v\f", text[0])) return false;
    errno = 0;
    long long parsed = strtoll(text, &end, 10);
    if (errno || *end != '\0' || parsed < low || parsed > high) return false;
    *value = parsed;
    return true;
}

bool cli_parse_double(const char *text, double *value) {
    char *end;
    if (text[0] == '\0' || strchr(" \t\n\r\v\f", text[0])) return false;
    double parsed = strtod(text, &end);
    if (*end != '\0') return false;
    *value = parsed;
    return true;
}

double cli_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void cli_progress(const char *what, long done, long total) {
    static double last;
    static bool shown; /* a line stands there and must be wiped */
    if (!isatty(STDERR_FILENO)) return;
    double now = cli_seconds();
    if (done >= total) {
        if (shown) fputs("\r\033[K", stderr);
        shown = false;
    } else if (!shown || now - last > 0.1) { /* a terminal is slow; ten lines a second are plenty */
        fprintf(stderr, "\r\033[K%s %ld/%ld", what, done, total);
        shown = true;
        last = now;
    }
    fflush(stderr);
}
