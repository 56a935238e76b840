/* Parameters that ship with the library, by architecture. A row goes in here when clattn tune, on an otherwise idle
 * device of that architecture, found it faster than the kernel's own choice in every one of several calls with --again;
 * `evidence` says on which device and driver, when, and by how much.
 *
 * Measured without a row to show for it, on 2026-11-21: an AVX-512 CPU (Zen 4 class) with pocl 3.1 and with Intel's
 * runtime, where no candidate was reliably faster than what the kernels choose. */
#include "registry/registry.h"

#include <string.h>

static const clattn__shipped shipped[] = {
    {.kernel = NULL},
};

static bool is_for(const clattn__shipped *row, const clattn__caps *caps) {
    return row->type == caps->type && (row->runtime < 0 || (clattn__runtime)row->runtime == caps->runtime) &&
           (row->lanes == 0 || (uint32_t)row->lanes == caps->vector_width) &&
           (row->engine == 0 || row->engine == caps->matrix.engine) &&
           (row->arch == 0 || row->arch == caps->matrix.arch) && (!row->name || strstr(caps->name, row->name));
}

const clattn__shipped *clattn__shipped_in(const clattn__shipped *table, const clattn__caps *caps, int workload,
                                          const char *kernel) {
    for (const clattn__shipped *row = table; row->kernel; row++)
        if (is_for(row, caps) && strcmp(row->kernel, kernel) == 0 &&
            strcmp(row->workload, clattn__workloads[workload].name) == 0)
            return row;
    return NULL;
}

const clattn__shipped *clattn__shipped_for(const clattn__caps *caps, int workload, const char *kernel) {
    return clattn__shipped_in(shipped, caps, workload, kernel);
}
