/* A string that grows. */
#include "base/base.h"

#include <stdio.h>
#include <string.h>

/* Makes room for `more` characters and the NUL. */
static bool reserve(clattn__text *text, size_t more) {
    size_t needed;
    if (text->failed) return false;
    if (!clattn__add(text->length, more, &needed) || !clattn__add(needed, 1, &needed)) {
        text->failed = true;
        return false;
    }
    if (needed <= text->capacity) return true;
    size_t capacity = needed < SIZE_MAX / 2 ? needed * 2 : needed;
    if (capacity < 128) capacity = 128;
    char *data = clattn__alloc(capacity, 1);
    if (!data) {
        text->failed = true;
        return false;
    }
    if (text->data) memcpy(data, text->data, text->length);
    clattn__free(text->data);
    text->data = data;
    text->capacity = capacity;
    return true;
}

void clattn__text_add_bytes(clattn__text *text, const char *bytes, size_t count) {
    if (!reserve(text, count)) return;
    if (count) memcpy(text->data + text->length, bytes, count);
    text->length += count;
    text->data[text->length] = '\0';
}

void clattn__text_add(clattn__text *text, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int wanted = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (wanted < 0) text->failed = true;
    if (wanted < 0 || !reserve(text, (size_t)wanted)) return;
    va_start(arguments, format);
    vsnprintf(text->data + text->length, (size_t)wanted + 1, format, arguments);
    va_end(arguments);
    text->length += (size_t)wanted;
}

void clattn__text_free(clattn__text *text) {
    clattn__free(text->data);
    *text = (clattn__text){0};
}
