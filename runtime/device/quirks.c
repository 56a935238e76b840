/* Known driver problems, one row each. A row may go when its test passes without it on every driver still in use. */
#include "device/device.h"

#include <stdlib.h>

typedef struct quirk_row {
    clattn__quirk effect;
    clattn__runtime runtime;
    int vendor;              /* clattn__vendor, or -1: any */
    int type;                /* clattn_device_type, or -1: any */
    const char *driver_upto; /* "3.1": driver versions up to and with 3.1; NULL: all */
    const char *why;
    const char *source;
    const char *test; /* that shows it */
} quirk_row;

static const quirk_row rows[] = {
    {.effect = CLATTN__QUIRK_NOINLINE_BODY,
     .runtime = CLATTN__RUNTIME_POCL,
     .vendor = -1,
     .type = CLATTN_DEVICE_CPU,
     .why =
         "the work-group compiler emits a kernel function three times; with the body in a callee that is not inlined "
         "it is compiled once",
     .source = "measured with pocl 3.1, 2026-11-21",
     .test = "test_select quirks/versions"},
    {.effect = CLATTN__QUIRK_BINARY_CRASHES,
     .runtime = CLATTN__RUNTIME_POCL,
     .vendor = -1,
     .type = -1,
     .driver_upto = "3.1",
     .why =
         "a program binary cut in half crashes the process instead of giving an error; what is kept on disk is proved "
         "whole before the driver sees it",
     .source = "measured with pocl 3.1, 2026-11-21",
     .test = "test_device driver/quirks"},
    {.effect = CLATTN__QUIRK_CACHES_ITSELF,
     .runtime = CLATTN__RUNTIME_POCL,
     .vendor = -1,
     .type = -1,
     .why = "it keeps what it compiles on disk, and to hand out a binary compiles every kernel once more for "
            "work-groups of "
            "any size: 1.9 instead of 1.5 s for the first run of a layer",
     .source = "measured with pocl 3.1, 2026-11-21",
     .test = "test_select quirks/versions"},
    {.effect = CLATTN__QUIRK_GROUP_LIMIT_WRONG,
     .runtime = CLATTN__RUNTIME_RUSTICL,
     .vendor = -1,
     .type = CLATTN_DEVICE_CPU,
     .driver_upto = "22.3",
     .why = "CL_KERNEL_WORK_GROUP_SIZE is 32 for every kernel, also for those that require and get 256 work-items; "
            "the device's own limit holds",
     .source = "measured with Mesa 22.3.6 on llvmpipe, 2026-11-21",
     .test = "run_matrix rusticl, attn_tiled"},
    {.effect = CLATTN__QUIRK_SLOW_VECTORS,
     .runtime = CLATTN__RUNTIME_RUSTICL,
     .vendor = -1,
     .type = CLATTN_DEVICE_CPU,
     .why =
         "llvmpipe vectorises over work-items itself and takes float4 and float8 apart: it compiles attn_cpu for more "
         "than a minute",
     .source = "measured with Mesa 22.3.6 on llvmpipe, 2026-11-21",
     .test = "run_matrix rusticl; test_select quirks/versions"},
    {.effect = CLATTN__QUIRK_WRONG_LOOPS,
     .runtime = CLATTN__RUNTIME_RUSTICL,
     .vendor = -1,
     .type = CLATTN_DEVICE_CPU,
     .driver_upto = "22.3",
     .why = "llvmpipe loses what loops carry from one tile to the next: gemm_cpu is wrong with more than one block of "
            "k, attn_decode with more than one tile of keys",
     .source = "found by verification with Mesa 22.3.6, 2026-11-22; it warns of control flow that it cannot structure",
     .test = "run_matrix rusticl; test_select quirks/versions"},
    {.effect = CLATTN__QUIRK_NEVER_PICK,
     .runtime = CLATTN__RUNTIME_CLOVER,
     .vendor = -1,
     .type = -1,
     .why = "Clover is no longer maintained and miscompiles kernels; Mesa's rusticl serves the same hardware",
     .source = "Mesa, which names rusticl as its successor",
     .test = "test_select select/never_picked"},
    {.effect = CLATTN__QUIRK_NEVER_PICK,
     .runtime = CLATTN__RUNTIME_OPENCLON12,
     .vendor = -1,
     .type = -1,
     .why = "OpenCLOn12 is a layer over Direct3D 12 for hardware that mostly has a driver of its own",
     .source = "darktable pull request 15044",
     .test = "test_select select/never_picked"},
    {.effect = CLATTN__QUIRK_LOG_NEVER_EMPTY,
     .runtime = CLATTN__RUNTIME_NATIVE,
     .vendor = CLATTN__VENDOR_INTEL,
     .type = CLATTN_DEVICE_CPU,
     .why = "the build log of a clean build holds progress messages",
     .source = "measured with Intel's CPU runtime 2026.22.10, 2026-11-21",
     .test = "test_device driver/quirks"},
    {.effect = CLATTN__QUIRK_WAITER_WORKS,
     .runtime = CLATTN__RUNTIME_NATIVE,
     .vendor = CLATTN__VENDOR_INTEL,
     .type = CLATTN_DEVICE_CPU,
     .why = "a thread in clWaitForEvents works on the queue too, one more than the compute units of a sub-device",
     .source = "measured with Intel's CPU runtime 2026.22.10, 2026-11-21",
     .test = "test_partition partition/one_unit"},
    {.effect = CLATTN__QUIRK_LATE_RELEASE,
     .runtime = CLATTN__RUNTIME_POCL,
     .vendor = -1,
     .type = -1,
     .driver_upto = "3.1",
     .why = "clFinish returns while a thread of the driver still lets go of the last command; where all else is let go "
            "meanwhile, that thread reads what was freed, and crashes",
     .source = "seen with pocl 3.1, 2026-11-22: one of five cold runs of the test, none of those with a nap",
     .test = "test_clblast override, too large"},
    {.effect = CLATTN__QUIRK_NARROW_FILLS,
     .runtime = CLATTN__RUNTIME_POCL,
     .vendor = CLATTN__VENDOR_NVIDIA,
     .type = CLATTN_DEVICE_GPU,
     .why = "clEnqueueFillBuffer with a pattern of more than 4 bytes ends the process",
     .source = "pocl 6.0's and 7.2's sources, pocl_cuda_submit_memfill",
     .test = "test_pretend pretend/narrow_fills"},
    {.effect = CLATTN__QUIRK_SHORT_GRIDS,
     .runtime = CLATTN__RUNTIME_POCL,
     .vendor = CLATTN__VENDOR_NVIDIA,
     .type = CLATTN_DEVICE_GPU,
     .why = "a launch of more than 65535 work-groups in the second or third dimension ends the process",
     .source = "pocl 6.0's and 7.2's sources, pocl_cuda_submit_kernel; CUDA's limits of grids",
     .test = "test_pretend pretend/short_grids"},
    {.effect = CLATTN__QUIRK_SHORT_GRIDS,
     .runtime = CLATTN__RUNTIME_NATIVE,
     .vendor = CLATTN__VENDOR_NVIDIA,
     .type = CLATTN_DEVICE_GPU,
     .why = "the hardware's grids hold 65535 work-groups in the second and third dimension; how this driver takes more "
            "is not documented",
     .source = "CUDA C++ programming guide, technical specifications per compute capability",
     .test = "test_pretend pretend/short_grids"},
};

/* Compares the numbers of a driver's text ("3.1+debian") with a limit ("3.1"), part by part as far as the limit goes.
 * A driver without a number at its start is taken for the newest. */
static bool driver_within(const char *driver, const char *limit) {
    for (;;) {
        char *driver_end, *limit_end;
        if (*driver < '0' || *driver > '9') return false;
        unsigned long have = strtoul(driver, &driver_end, 10), most = strtoul(limit, &limit_end, 10);
        if (have != most) return have < most;
        if (*limit_end != '.') return true;
        if (*driver_end != '.') return true; /* "3" against "3.1": 3.0 */
        driver = driver_end + 1;
        limit = limit_end + 1;
    }
}

static bool applies(const quirk_row *row, const clattn__caps *caps) {
    if (row->runtime != caps->runtime) return false;
    if (row->vendor >= 0 && row->vendor != (int)caps->vendor) return false;
    if (row->type >= 0 && row->type != (int)caps->type) return false;
    return !row->driver_upto || driver_within(caps->driver ? caps->driver : "", row->driver_upto);
}

uint32_t clattn__quirks_of(const clattn__caps *caps) {
    uint32_t quirks = 0;
    for (size_t i = 0; i < CLATTN__COUNT(rows); i++) {
        if (applies(&rows[i], caps)) quirks |= (uint32_t)rows[i].effect;
    }
    return quirks;
}

const char *clattn__quirk_reason(const clattn__caps *caps, clattn__quirk quirk) {
    for (size_t i = 0; i < CLATTN__COUNT(rows); i++) {
        if (rows[i].effect == quirk && applies(&rows[i], caps)) return rows[i].why;
    }
    return NULL;
}
