/* clattn COMMAND [options]: chooses the subcommand; everything else is in cmd_<name>.c. */
#include <string.h>

#include "cli.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"devices", cmd_devices, "list the OpenCL devices and say which one would be used, and why"},
    {"run", cmd_run, "run a multi-head attention layer on tensor files and compare the result"},
    {"embed", cmd_embed, "turn token ids into sentence embeddings with a BERT model"},
    {"check", cmd_check, "run golden cases from folders and compare"},
    {"verify", cmd_verify, "compare every kernel with the scalar reference on a device"},
    {"explain", cmd_explain, "say how a problem would be computed: kernels, tiles, memory"},
    {"kernels", cmd_kernels, "list the kernels and the features that each one serves"},
    {"tune", cmd_tune, "measure which kernels and tile sizes are fastest on this device, and keep them"},
    {"bench", cmd_bench, "measure attention or a layer"},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static void usage(FILE *out) {
    fputs("usage: clattn COMMAND [options]\n"
          "       clattn --help | --version\n"
          "\n"
          "The attention mechanism on any OpenCL device.\n"
          "\n"
          "commands\n",
          out);
    for (int i = 0; i < COMMANDS; i++) fprintf(out, "  %-9s  %s\n", commands[i].name, commands[i].summary);
    fputs("\n"
          "'clattn COMMAND --help' describes the options of a command, with examples.\n"
          "\n"
          "example\n"
          "  clattn devices\n"
          "\n"
          "exit code: 0 good, 1 wrong result, 2 usage or bad input, 3 not supported, 4 no device\n",
          out);
}

static int run_command(int argc, char **argv) {
    for (int i = 0; i < COMMANDS; i++) {
        if (strcmp(argv[1], commands[i].name) != 0) continue;
        char title[32]; /* getopt starts its messages with argv[0] */
        snprintf(title, sizeof title, "clattn %s", commands[i].name);
        argv[1] = title;
        cli_set_command(commands[i].name);
        return commands[i].run(argc - 1, argv + 1);
    }
    cli_fail(EXIT_USAGE, "unknown %s '%s'", argv[1][0] == '-' ? "option" : "command", argv[1]);
    usage(stderr);
    return EXIT_USAGE;
}

int main(int argc, char **argv) {
    int code = EXIT_GOOD;
    if (argc < 2) {
        usage(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        usage(stdout);
    else if (strcmp(argv[1], "--version") == 0)
        printf("clattn %s\n", clattn_version());
    else
        code = run_command(argc, argv);
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == EXIT_GOOD)
        code = cli_fail(EXIT_USAGE, "standard output cannot be written");
    return code;
}
