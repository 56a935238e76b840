/* How long a launch may be. */
#include "kernels/impl.h"

#define LONGEST_SECONDS 0.2
/* A device that does not tell its clock is taken for a slow one. */
#define LEAST_MHZ 300

int64_t clattn__launch_units(const clattn__caps *caps, double multiply_adds, double per_clock) {
    if (caps->type == CLATTN_DEVICE_CPU) return INT64_MAX / 4096; /* nobody waits for it but the caller */
    const double clock = (caps->clock_mhz ? caps->clock_mhz : LEAST_MHZ) * 1e6;
    const double units = caps->compute_units ? caps->compute_units : 1;
    const double bound = LONGEST_SECONDS * clock * units * per_clock / (multiply_adds < 1 ? 1 : multiply_adds);
    return bound < 1 ? 1 : bound > 1e15 ? (int64_t)1e15 : (int64_t)bound;
}
