/* A key/value cache, token by token: where each lies, and how bytes stand for numbers. */
#include <math.h>

#include "ref/ref.h"

/* Entry and row of token t of batch entry b. */
static bool place_of(const clattn__ref_cache *c, int64_t b, int64_t t, int64_t *entry, int64_t *row) {
    *entry = b;
    *row = t;
    if (t < 0 || t >= c->capacity) return false;
    if (c->page_size == 0) return true;
    *entry = (int64_t)clattn__ref_get(&c->table, b, 0, t / c->page_size, 0);
    *row = t % c->page_size;
    return *entry >= 0 && *entry < c->pages;
}

/* scale = max|x| / 127 in float; NaN where a number is not finite. */
static float scale_of(const clattn__ref_cache *c, int64_t b, int64_t h, int64_t r) {
    float most = 0;
    for (int64_t d = 0; d < c->width; d++) {
        const double x = clattn__ref_get(&c->tokens, b, h, r, d);
        if (!isfinite(x)) return NAN;
        most = fmaxf(most, (float)fabs(x));
    }
    return most / 127;
}

static void store_token(const clattn__ref_cache *c, int64_t b, int64_t h, int64_t r, int64_t entry, int64_t row) {
    if (c->cells.dtype != CLATTN_I8) {
        for (int64_t d = 0; d < c->width; d++)
            clattn__ref_set(&c->cells, entry, h, row, d, clattn__ref_get(&c->tokens, b, h, r, d));
        return;
    }
    const float scale = scale_of(c, b, h, r);
    clattn__ref_set(&c->scales, entry, h, row, 0, (double)scale);
    for (int64_t d = 0; d < c->width; d++) {
        const double n = scale > 0 ? rint(clattn__ref_get(&c->tokens, b, h, r, d) / (double)scale) : 0;
        clattn__ref_set(&c->cells, entry, h, row, d, fmin(fmax(n, -127), 127));
    }
}

void clattn__ref_cache_append(const clattn__ref_cache *c) {
    int64_t entry, row;
    for (int64_t b = 0; b < c->batch; b++) {
        const int64_t length = (int64_t)clattn__ref_get(&c->lengths, b, 0, 0, 0);
        for (int64_t h = 0; h < c->heads; h++)
            for (int64_t r = 0; r < c->rows; r++)
                if (place_of(c, b, length + r, &entry, &row)) store_token(c, b, h, r, entry, row);
    }
}

static void load_token(const clattn__ref_cache *c, int64_t b, int64_t h, int64_t r, int64_t entry, int64_t row) {
    for (int64_t d = 0; d < c->width; d++) {
        const double x = clattn__ref_get(&c->cells, entry, h, row, d);
        const bool bytes = c->cells.dtype == CLATTN_I8;
        const float scale = bytes ? (float)clattn__ref_get(&c->scales, entry, h, row, 0) : 1.0f;
        clattn__ref_set(&c->tokens, b, h, r, d, bytes ? (double)((float)x * scale) : x);
    }
}

void clattn__ref_cache_gather(const clattn__ref_cache *c) {
    int64_t entry, row;
    for (int64_t b = 0; b < c->batch; b++) {
        const int64_t length = (int64_t)clattn__ref_get(&c->lengths, b, 0, 0, 0);
        for (int64_t h = 0; h < c->heads; h++)
            for (int64_t r = 0; r < length && r < c->rows; r++)
                if (place_of(c, b, r, &entry, &row)) load_token(c, b, h, r, entry, row);
    }
}
