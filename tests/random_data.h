/* What the tests with random combinations share: draws, replay of one case, comparison of stored results. */
#ifndef CLATTN_TEST_RANDOM_DATA_H
#define CLATTN_TEST_RANDOM_DATA_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "harness.h"
#include "ref/ref.h"

static inline bool draw_chance(clattn_random *random, double p) { return clattn_random_uniform(random, 0, 1) < p; }

static inline int64_t draw_between(clattn_random *random, int64_t low, int64_t high) {
    return low + clattn_random_below(random, high - low + 1);
}

/* True when CLATTN_RANDOM=CLASS:CASE asks for one case. */
static inline bool is_replay(int *class_number, int *case_number) {
    const char *replay = getenv("CLATTN_RANDOM");
    return replay && sscanf(replay, "%d:%d", class_number, case_number) == 2;
}

/* Two arrays of a stored type. tolerance: one per element, or NULL for relative * (1 + |want|). */
typedef struct stored_pair {
    const void *got, *want;
    clattn_dtype dtype;
    int64_t count;
    const float *tolerance;
    double relative, slack; /* slack is added to every tolerance */
} stored_pair;

/* The first element that is too far off, or -1; then what it may be off. The reference rounds to the stored type as a
 * kernel does: one unit in the last place apart is right. */
static inline int64_t first_wrong(const stored_pair *p, double *allowed) {
    const double unit = p->dtype == CLATTN_F16 ? 0x1p-10 : p->dtype == CLATTN_BF16 ? 0x1p-7 : 0;
    for (int64_t i = 0; i < p->count; i++) {
        const double got = clattn__ref_load(p->got, p->dtype, i), want = clattn__ref_load(p->want, p->dtype, i);
        *allowed = p->slack + (p->tolerance ? (double)p->tolerance[i] : p->relative * (1 + fabs(want))) +
                   unit * fabs(want) + (unit > 0 ? 1e-7 : 0);
        if (!clattn_close(got, want, *allowed)) return i;
    }
    return -1;
}

#endif
