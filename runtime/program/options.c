/* Build options as text: the order of the calls is the order in the text, which is part of a program's key. */
#include <stdio.h>
#include <string.h>

#include "program/program.h"

static void add(clattn__options *options, const char *text) {
    const size_t length = strlen(text);
    if (options->length + length >= sizeof options->text) {
        options->overflow = true;
        return;
    }
    memcpy(options->text + options->length, text, length + 1);
    options->length += length;
}

/* Options that would allow more speed at the price of infinities, NaN or the order of sums are left out on purpose:
 * masked means -inf, and results are compared with an error model that counts roundings. */
void clattn__options_start(clattn__options *options) {
    memset(options, 0, sizeof *options);
    add(options, "-cl-std=CL1.2");
}

void clattn__options_flag(clattn__options *options, const char *name) {
    add(options, " -D");
    add(options, name);
}

void clattn__options_raw(clattn__options *options, const char *text) {
    add(options, " ");
    add(options, text);
}

void clattn__options_int(clattn__options *options, const char *name, long long value) {
    char text[32];
    snprintf(text, sizeof text, "=%lld", value);
    clattn__options_flag(options, name);
    add(options, text);
}
