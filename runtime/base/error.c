/* The calling thread's last failure, as text. */
#include "base/base.h"

#include <stdio.h>
#include <string.h>

enum { ERROR_BYTES = 8192 };
static const char cut_mark[] = " [...]";

static _Thread_local char last_error[ERROR_BYTES];

const char *clattn_last_error(void) { return last_error; }

/* Puts the mark that text is missing at the end of a full buffer, without splitting a UTF-8 character. */
static void mark_cut(char *text) {
    size_t end = ERROR_BYTES - sizeof cut_mark;
    while (end > 0 && ((unsigned char)text[end] & 0xC0) == 0x80) end--;
    memcpy(text + end, cut_mark, sizeof cut_mark);
}

/* Formats behind the first `start` bytes. Built aside first, because the arguments may point into last_error. */
static void set_text(size_t start, const char *format, va_list arguments) {
    char fresh[ERROR_BYTES];
    memcpy(fresh, last_error, start);
    int wanted = vsnprintf(fresh + start, sizeof fresh - start, format, arguments);
    if (wanted < 0) return; /* a broken format: the older text says more than nothing */
    size_t length = strlen(fresh);
    if ((size_t)wanted > length - start) mark_cut(fresh);
    memcpy(last_error, fresh, strlen(fresh) + 1);
}

clattn_status clattn__fail(clattn_status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    set_text(0, format, arguments);
    va_end(arguments);
    return status;
}

void clattn__fail_note(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    set_text(strlen(last_error), format, arguments);
    va_end(arguments);
}

char *clattn__error_keep(void) { return last_error[0] ? clattn__strdup(last_error) : NULL; }

void clattn__error_restore(char *kept) {
    memcpy(last_error, kept ? kept : "", kept ? strlen(kept) + 1 : 1);
    clattn__free(kept);
}
