/* Size arithmetic that says no instead of wrapping. */
#include "base/base.h"

bool clattn__mul(size_t a, size_t b, size_t *product) {
    if (b != 0 && a > SIZE_MAX / b) return false;
    *product = a * b;
    return true;
}

bool clattn__add(size_t a, size_t b, size_t *sum) {
    if (a > SIZE_MAX - b) return false;
    *sum = a + b;
    return true;
}

bool clattn__volume(const int64_t *extents, int rank, size_t unit, size_t *bytes) {
    bool empty = unit == 0;
    for (int i = 0; i < rank; i++) {
        if (extents[i] < 0) return false;
        if (extents[i] == 0) empty = true;
    }
    /* Decided before multiplying: a zero extent makes the product zero wherever it stands among large ones. */
    size_t product = empty ? 0 : unit;
    for (int i = 0; i < rank && !empty; i++) {
        if ((uint64_t)extents[i] > SIZE_MAX) return false;
        if (!clattn__mul(product, (size_t)extents[i], &product)) return false;
    }
    if (product > SIZE_MAX / 2) return false; /* differences of offsets must fit ptrdiff_t */
    *bytes = product;
    return true;
}
