/* How long a launch may be. */
#include "kernels/impl.h"

#define LONGEST_SECONDS 0.2
/* A device that does not tell its clock is taken for a slow one. */
#define LEAST_MHZ 300

/* Of what one unit does in that time. */
static int64_t units_of(const clattn__caps *caps, double units, double work, double per_clock) {
    if (caps->type == CLATTN_DEVICE_CPU) return INT64_MAX / 4096; /* nobody waits for it but the caller */
    const double clock = (caps->clock_mhz ? caps->clock_mhz : LEAST_MHZ) * 1e6;
    const double bound = LONGEST_SECONDS * clock * units * per_clock / (work < 1 ? 1 : work);
    return bound < 1 ? 1 : bound > 1e15 ? (int64_t)1e15 : (int64_t)bound;
}

int64_t clattn__launch_units(const clattn__caps *caps, double work, double per_clock) {
    return units_of(caps, caps->compute_units ? caps->compute_units : 1, work, per_clock);
}

int64_t clattn__launch_unit(const clattn__caps *caps, double work, double per_clock) {
    return units_of(caps, 1, work, per_clock);
}

/* What Intel calls a unit has 8 lanes, and nobody has smaller ones; the units of NVIDIA and AMD have 64 and more. Of
 * their multiply-adds kernels by tiles do a quarter at least. */
static double tiles_per_clock(const clattn__caps *caps, bool on_engine) {
    const bool large = caps->vendor == CLATTN__VENDOR_NVIDIA || caps->vendor == CLATTN__VENDOR_AMD;
    const double by_lanes = large ? 64 / 4.0 : 8 / 4.0;
    return on_engine ? 4 * by_lanes : by_lanes; /* engines: 8 times as much and more */
}

int64_t clattn__launch_tiles(const clattn__caps *caps, double multiply_adds, bool on_engine) {
    return clattn__launch_units(caps, multiply_adds, tiles_per_clock(caps, on_engine));
}

int64_t clattn__launch_keys(const clattn__caps *caps, double multiply_adds, bool on_engine, size_t items) {
    enum { SHARING = 2, UNIT_ITEMS = 64 }; /* an execution unit of Intel holds 7 or 8 threads of 8 lanes and more */
    const bool spreads = caps->vendor == CLATTN__VENDOR_INTEL && items > UNIT_ITEMS;
    const double units = (spreads ? (double)items / UNIT_ITEMS : 1.0) / SHARING;
    return units_of(caps, units, multiply_adds, tiles_per_clock(caps, on_engine));
}
