/* Messages to the caller's hook; the library itself never prints. */
#include "base/base.h"

#include <stdio.h>
#include <string.h>

/* Long messages are build logs; most others fit the stack. */
enum { SHORT_MESSAGE = 1024 };

static void strip_line_end(char *text) {
    size_t length = strlen(text);
    while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == '\r')) text[--length] = '\0';
}

void clattn__log_text(const clattn__log *log, clattn_log_level level, const char *format, ...) {
    if (!log || !log->write) return;
    char message[SHORT_MESSAGE];
    va_list arguments;
    va_start(arguments, format);
    int wanted = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (wanted < 0) return;

    char *whole = NULL;
    if ((size_t)wanted >= sizeof message) {
        char *kept = clattn__error_keep(); /* a message cut short is no failure of the call that logs */
        whole = clattn__alloc((size_t)wanted + 1, 1);
        clattn__error_restore(kept);
    }
    if (whole) {
        va_start(arguments, format);
        vsnprintf(whole, (size_t)wanted + 1, format, arguments);
        va_end(arguments);
    }
    char *text = whole ? whole : message;
    strip_line_end(text);
    log->write(log->user, level, text);
    clattn__free(whole);
}
