/* What the subcommands share. The CLI sees include/clattn only. */
#ifndef CLI_H
#define CLI_H

#include <stdbool.h>
#include <stdio.h>

#include "clattn/clattn.h"

/* Exit codes, documented in the man page. */
enum { EXIT_GOOD = 0, EXIT_WRONG = 1, EXIT_USAGE = 2, EXIT_NOT_SUPPORTED = 3, EXIT_NO_DEVICE = 4 };

/* One subcommand per file cmd_<name>.c; argv[0] is the subcommand's name. Each returns an exit code. */
int cmd_devices(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_explain(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_embed(int argc, char **argv);
int cmd_kernels(int argc, char **argv);
int cmd_tune(int argc, char **argv);

/* common.c: options that every command with a device takes. Each command appends CLI_DEVICE_OPTIONS to its long options
 * and hands unknown-to-it values to cli_device_option first. */
typedef struct cli_device {
    const char *selector;      /* --device SELECTOR, else $CLATTN_DEVICE */
    const char *cache_dir;     /* --cache DIR ("" or --no-cache: none), else $CLATTN_CACHE_DIR */
    const char *matrix_engine; /* --matrix-engine NAME */
    const char *kernel_dir;    /* --kernel-dir DIR, else $CLATTN_KERNEL_DIR */
    int compute_units;         /* --compute-units N, 0: all */
    const char *pretend;       /* --pretend PAIRS */
    bool ignore_tuning;        /* --no-tuning */
    const char *clblast;       /* --clblast FILE */
    clattn_verify_mode verify; /* --trust once|always|never */
    bool verbose;              /* -v, --verbose: log at info level and below to stderr */
} cli_device;
enum {
    CLI_OPT_DEVICE = 1000,
    CLI_OPT_CACHE,
    CLI_OPT_NO_CACHE,
    CLI_OPT_KERNEL_DIR,
    CLI_OPT_MATRIX_ENGINE,
    CLI_OPT_TRUST,
    CLI_OPT_COMPUTE_UNITS,
    CLI_OPT_PRETEND,
    CLI_OPT_NO_TUNING,
    CLI_OPT_CLBLAST,
    CLI_OPT_VERBOSE,
    CLI_OPT_FIRST_OWN
};
/* clang-format off */
#define CLI_DEVICE_OPTIONS                                                                                             \
    {"device", required_argument, NULL, CLI_OPT_DEVICE}, {"cache", required_argument, NULL, CLI_OPT_CACHE},            \
        {"no-cache", no_argument, NULL, CLI_OPT_NO_CACHE}, {"no-tuning", no_argument, NULL, CLI_OPT_NO_TUNING},        \
        {"compute-units", required_argument, NULL, CLI_OPT_COMPUTE_UNITS},                                             \
        {"kernel-dir", required_argument, NULL, CLI_OPT_KERNEL_DIR},                                                   \
        {"clblast", required_argument, NULL, CLI_OPT_CLBLAST},                                                         \
        {"matrix-engine", required_argument, NULL, CLI_OPT_MATRIX_ENGINE},                                             \
        {"pretend", required_argument, NULL, CLI_OPT_PRETEND},                                                         \
        {"trust", required_argument, NULL, CLI_OPT_TRUST}, {"verbose", no_argument, NULL, CLI_OPT_VERBOSE}
/* clang-format on */
#define CLI_DEVICE_HELP                                                                                                \
    "  --device SELECTOR    gpu, cpu, an index, uuid:HEX, or platform=,device=,vendor= pairs (default: the best)\n"    \
    "  --compute-units N    use so many of the device's compute units (on a CPU: threads)\n"                           \
    "  --trust MODE         once, always or never: when kernels are verified (default once)\n"                         \
    "  --cache DIR          folder for trust records and built kernels; --no-cache keeps nothing\n"                    \
    "  --kernel-dir DIR     read the .cl files from DIR instead of the built-in ones\n"                                \
    "  --matrix-engine NAME none, or an emulated one, for tests: emulated:nv, wmma11, wmma12, mfma32, dpas8, dpas16\n" \
    "  --no-tuning          use nothing that was measured, and measure nothing\n"                                      \
    "  --clblast FILE       tuning parameters for CLBlast's products, lines of KERNEL NAME=VALUE ...\n"                \
    "  --pretend PAIRS      choose kernels as for another device: type=gpu,local_memory=16384,work_group=64\n"         \
    "  -v, --verbose        log choices and build logs to standard error\n"
void cli_device_init(cli_device *device); /* from the environment */
/* 1 handled, 0 not one of these, -1 bad value (message printed). */
int cli_device_option(cli_device *device, int option, const char *value);
/* The text of --clblast's file, for the caller to free, or NULL without one; false with the message printed. */
bool cli_clblast_text(const cli_device *device, char **text);
/* Creates the context; prints the error and returns an exit code other than 0 on failure. */
int cli_context(const cli_device *device, clattn_context **context);

/* common.c: "clattn COMMAND: message" on stderr; returns the code, so that `return cli_fail(...)` reads as one line. */
void cli_set_command(const char *name);
int cli_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prints clattn_last_error(); the code that fits the status. */
int cli_fail_status(clattn_status status, const char *doing);
int cli_usage_hint(void); /* "try clattn COMMAND --help"; returns EXIT_USAGE */
/* Whole-string integer and number parsers; false on rubbish or out of range. */
bool cli_parse_int(const char *text, long long low, long long high, long long *value);
bool cli_parse_double(const char *text, double *value);
double cli_seconds(void);
/* A progress line on stderr, only when it is a terminal; done == total ends it. */
void cli_progress(const char *what, long done, long total);

/* array.c: a loaded or made array that owns its memory. */
typedef struct cli_array {
    char name[256]; /* tensor name in a safetensors file, else "" */
    clattn_dtype dtype;
    int rank;
    int64_t shape[8];
    void *data;
    size_t bytes;
} cli_array;
/* Allocates; every byte is 0xff, which is NaN in each float type, so that a value nobody wrote shows. */
bool cli_array_new(cli_array *array, clattn_dtype dtype, int rank, const int64_t *shape, char why[512]);
void cli_array_free(cli_array *array);
void cli_arrays_free(cli_array *const *arrays, size_t count);
int64_t cli_array_elements(const cli_array *array);
/* Any dtype to float32 / to bool bytes / to int32, in place; false with a message in `why` when values do not fit. */
bool cli_array_to_f32(cli_array *array, char why[256]);
/* To a float type: rounded to nearest even when it has 16 bits. */
bool cli_array_to_float(cli_array *array, clattn_dtype dtype, char why[256]);
bool cli_array_to_bool(cli_array *array, char why[256]);
bool cli_array_to_i32(cli_array *array, char why[256]);
clattn_tensor cli_array_tensor(const cli_array *array); /* dense host view; rank <= 4 */
/* Element i as a double, which holds every value but large int64 exactly. */
double cli_array_get(const cli_array *array, int64_t i);
/* Stores `value` as element i, floats rounded to nearest even; false when another type cannot hold it exactly (bool:
 * when it is NaN). */
bool cli_array_set(cli_array *array, int64_t i, double value);

/* io_npy.c, io_safetensors.c: false with one sentence in `why` that names the file, the field and the rule. */
bool cli_npy_read(const char *path, cli_array *array, char why[512]);
bool cli_npy_write(const char *path, const cli_array *array, char why[512]); /* temporary file, then rename */
typedef struct cli_tensors {
    cli_array *items;
    int count;
} cli_tensors;
bool cli_safetensors_read(const char *path, cli_tensors *tensors, char why[512]);
bool cli_safetensors_write(const char *path, const cli_tensors *tensors, char why[512]);
void cli_tensors_free(cli_tensors *tensors);
cli_array *cli_tensors_find(const cli_tensors *tensors, const char *name);
/* By extension: .npy, or .safetensors (with exactly one tensor, or FILE.safetensors:NAME). */
bool cli_array_read(const char *path, cli_array *array, char why[512]);
bool cli_array_write(const char *path, const cli_array *array, char why[512]);
/* Whether that would work, found out before the work is done: nothing is left behind and nothing is changed. */
bool cli_array_writable(const char *path, char why[512]);
/* file.c: the same for a file of any name. */
bool cli_file_writable(const char *path, char why[512]);

/* weights.c: finds a multi-head layer's weights by PyTorch (in_proj_weight ...), BERT (attention.self.query.weight ...)
 * and q_proj/k_proj/v_proj/out_proj names under a prefix. The tensors in *weights point into *tensors. */
bool cli_weights_find(const cli_tensors *tensors, const char *prefix, clattn_mha_weights *weights, char *why,
                      size_t why_size);

/* draw.c: attention weights (heads, rows, columns) as a grid of heatmaps, PNG through gnuplot; labels may be NULL. */
bool cli_heatmap(const char *path, const float *weights, int heads, int rows, int columns, const char *const *labels,
                 const char *title, char why[512]);

#endif
