/* Who else uses the processor. */
#define _POSIX_C_SOURCE 200809L /* sysconf, getrusage */
#include <sys/resource.h>
#include <unistd.h>

#include "bench.h"

static double used_by(int who) {
    struct rusage usage;
    if (getrusage(who, &usage) != 0) return 0;
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/* The processes that --startup starts are ours too. */
static double own_seconds(void) { return used_by(RUSAGE_SELF) + used_by(RUSAGE_CHILDREN); }

/* The first line of /proc/stat: user nice system idle iowait irq softirq steal, in clock ticks over all processors. */
bench_load bench_load_now(void) {
    bench_load load = {0};
    long long ticks[8] = {0};
    long rate = sysconf(_SC_CLK_TCK);
    FILE *file = fopen("/proc/stat", "r");
    if (!file) return load;
    int fields = fscanf(file, "cpu %lld %lld %lld %lld %lld %lld %lld %lld", &ticks[0], &ticks[1], &ticks[2], &ticks[3],
                        &ticks[4], &ticks[5], &ticks[6], &ticks[7]);
    fclose(file);
    if (fields < 5 || rate <= 0) return load;
    for (int i = 0; i < 8; i++) {
        load.total += (double)ticks[i] / (double)rate;
        if (i != 3 && i != 4) load.busy += (double)ticks[i] / (double)rate;
    }
    load.own = own_seconds();
    load.known = true;
    return load;
}

double bench_load_others(const bench_load *start) {
    bench_load now = bench_load_now();
    double total = now.total - start->total;
    if (!now.known || !start->known || total <= 0) return -1;
    double others = (now.busy - start->busy) - (now.own - start->own);
    return others > 0 ? others / total : 0;
}
