/* Host memory: zeroed, overflow-checked, and able to fail on demand for tests. */
#include "base/base.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static atomic_long fail_countdown; /* 0: off; n: the nth allocation from now fails */

static bool told_to_fail(void) {
    if (atomic_load(&fail_countdown) <= 0) return false;
    return atomic_fetch_sub(&fail_countdown, 1) == 1;
}

void clattn__alloc_fail_after(long nth) { atomic_store(&fail_countdown, nth > 0 ? nth : 0); }

void *clattn__alloc(size_t count, size_t size) {
    size_t bytes;
    if (!clattn__mul(count, size, &bytes)) {
        clattn__fail(CLATTN_OUT_OF_MEMORY, "out of host memory: %zu elements of %zu bytes pass the address space",
                     count, size);
        return NULL;
    }
    /* calloc(0) may return NULL, which callers would take for a failure. */
    void *memory = told_to_fail() ? NULL : calloc(1, bytes ? bytes : 1);
    if (!memory) clattn__fail(CLATTN_OUT_OF_MEMORY, "out of host memory: %zu bytes could not be allocated", bytes);
    return memory;
}

void clattn__free(void *memory) { free(memory); }

char *clattn__strdup(const char *text) {
    size_t count = strlen(text) + 1;
    char *copy = clattn__alloc(count, 1);
    if (copy) memcpy(copy, text, count);
    return copy;
}
