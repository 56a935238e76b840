/* What a run takes in memory, as the system counts it. */
#define _POSIX_C_SOURCE 200809L /* sysconf */
#include <string.h>
#include <unistd.h>

#include "bench.h"

/* A field of /proc/self/status, in bytes; negative when the system does not say. */
static int64_t held(const char *field) {
    char line[256];
    long long kilobytes = -1;
    size_t length = strlen(field);
    FILE *file = fopen("/proc/self/status", "r");
    if (!file) return -1;
    while (kilobytes < 0 && fgets(line, sizeof line, file))
        if (strncmp(line, field, length) == 0 && sscanf(line + length, ": %lld", &kilobytes) != 1) kilobytes = -1;
    fclose(file);
    return kilobytes < 0 ? -1 : kilobytes * 1024;
}

int64_t bench_memory_now(void) {
    /* 5: the greatest so far becomes what is held now (proc(5), clear_refs). */
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (!file) return -1;
    bool cleared = fputs("5", file) >= 0;
    cleared = fclose(file) == 0 && cleared;
    return cleared ? held("VmRSS") : -1;
}

int64_t bench_memory_since(int64_t before) {
    int64_t most = before < 0 ? -1 : held("VmHWM");
    if (most < 0) return -1;
    return most > before ? most - before : 0;
}
