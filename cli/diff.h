/* How far results are from what they should be. */
#ifndef CLI_DIFF_H
#define CLI_DIFF_H

#include "cli.h"

/* Greatest error of many comparisons. Zero at the start; a NaN counts as wrong wherever it appears alone. */
typedef struct cli_diff {
    int64_t count, wrong;
    double error; /* greatest |got - want| */
    /* where the error is greatest as a fraction of its tolerance */
    double fraction, got, want, tolerance;
    int64_t index;
} cli_diff;

/* Right: equal, infinities included, or |got - want| <= tolerance. */
void cli_diff_add(cli_diff *diff, double got, double want, double tolerance, int64_t index);
/* Adds the figures of another comparison. */
void cli_diff_merge(cli_diff *diff, const cli_diff *other);

#endif
