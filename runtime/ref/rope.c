/* Rotary positions, pair by pair in double: Su et al. 2021 (arXiv:2104.09864), equation 34. */
#include <float.h>
#include <math.h>

#include "ref/ref.h"

static const double u = CLATTN__REF_ROUNDOFF;

typedef struct rotation {
    double cosine, sine;
    double error; /* of either, on a float32 device */
} rotation;

/* Of pair i of row r of batch entry b. */
static rotation rotation_of(const clattn__ref_rope *p, int64_t b, int64_t r, int64_t i) {
    rotation t;
    if (p->source == CLATTN_ROPE_ROWS) {
        t = (rotation){clattn__ref_get(&p->cosine, b, 0, r, i), clattn__ref_get(&p->sine, b, 0, r, i), 0};
    } else {
        const double given = p->positions.data ? clattn__ref_get(&p->positions, b, 0, r, 0) : 0;
        const int64_t position = p->first + (int64_t)given + (p->count_rows ? r : 0);
        if (p->source == CLATTN_ROPE_TABLE) {
            const int64_t row = position < 0 ? 0 : position < p->table_rows ? position : p->table_rows - 1;
            t = (rotation){clattn__ref_get(&p->cosine, 0, 0, row, i), clattn__ref_get(&p->sine, 0, 0, row, i), 0};
        } else {
            const double angle = (double)position * pow(p->base, -2.0 * (double)i / (double)p->rotary_dim);
            t = (rotation){cos(angle), sin(angle), 16 * u}; /* the angle's own rounding, then sinpi or cospi */
        }
    }
    if (p->inverse) t.sine = -t.sine;
    return t;
}

static void put(const clattn__ref_rope *p, int64_t b, int64_t h, int64_t r, int64_t d, double value, double error) {
    clattn__ref_set(&p->y, b, h, r, d, value);
    if (!p->tolerance.data) return;
    clattn__ref_set(&p->tolerance, b, h, r, d, error + clattn__ref_storage_rounding(p->stored, value) + FLT_MIN);
}

static void rotate_row(const clattn__ref_rope *p, int64_t b, int64_t h, int64_t r) {
    const int64_t pairs = p->rotary_dim / 2;
    for (int64_t i = 0; i < pairs; i++) {
        const int64_t first = p->interleaved ? 2 * i : i, second = p->interleaved ? 2 * i + 1 : i + pairs;
        const double x = clattn__ref_get(&p->x, b, h, r, first), y = clattn__ref_get(&p->x, b, h, r, second);
        const rotation t = rotation_of(p, b, r, i);
        const double size = fabs(x) + fabs(y), sum = 4 * u * size + t.error * size;
        put(p, b, h, r, first, x * t.cosine - y * t.sine, sum);
        put(p, b, h, r, second, x * t.sine + y * t.cosine, sum);
    }
    for (int64_t d = p->rotary_dim; d < p->head_dim; d++) {
        const double x = clattn__ref_get(&p->x, b, h, r, d);
        clattn__ref_set(&p->y, b, h, r, d, x);
        if (p->tolerance.data) clattn__ref_set(&p->tolerance, b, h, r, d, 0);
    }
}

void clattn__ref_rope_run(const clattn__ref_rope *p) {
    for (int64_t b = 0; b < p->batch; b++)
        for (int64_t h = 0; h < p->heads; h++)
            for (int64_t r = 0; r < p->rows; r++) rotate_row(p, b, h, r);
}
