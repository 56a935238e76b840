#include "diff.h"

#include <math.h>

void cli_diff_add(cli_diff *diff, double got, double want, double tolerance, int64_t index) {
    bool equal = got == want || (isnan(got) && isnan(want));
    double error = equal ? 0 : fabs(got - want);
    if (!(error < INFINITY)) error = INFINITY;           /* NaN is the greatest error and not the least */
    bool right = error < INFINITY && error <= tolerance; /* a tolerance of infinity or NaN lets nothing pass */
    if (error == 0) right = true;
    double fraction = error == 0 ? 0 : error < INFINITY ? error / tolerance : INFINITY;
    if (diff->count == 0 || fraction > diff->fraction) {
        diff->fraction = fraction;
        diff->got = got;
        diff->want = want;
        diff->tolerance = tolerance;
        diff->index = index;
    }
    if (error > diff->error) diff->error = error;
    diff->count++;
    diff->wrong += !right;
}

void cli_diff_merge(cli_diff *diff, const cli_diff *other) {
    if (other->count == 0) return;
    int64_t count = diff->count + other->count, wrong = diff->wrong + other->wrong;
    double error = fmax(diff->error, other->error);
    if (diff->count == 0 || other->fraction > diff->fraction) *diff = *other;
    diff->count = count;
    diff->wrong = wrong;
    diff->error = error;
}
