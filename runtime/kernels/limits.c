/* Host half of cl/limits.cl: how fast the device multiplies and adds, and reads. */
#include <math.h>

#include "kernels/impl.h"

enum {
    CHAINS = 12,      /* of cl/limits.cl */
    GPU_ITEMS = 2048, /* work-items per compute unit, in groups of GPU_GROUP where the device allows */
    GPU_GROUP = 256,
    FIRST_ROUNDS = 1 << 6, /* few: the slowest device ends them in milliseconds */
    MOST_ROUNDS = 1 << 28,
    TRIES = 5
};
#define RUN_SECONDS 0.01                            /* a run long enough to hide the launch */
#define READ_BYTES (512ull << 20)                   /* beyond any cache */
#define MEMORY_SHARE 8                              /* of the device's memory, at most */
static const float FACTOR = 0.999f, ADDEND = 1e-3f; /* chains come to rest near 1 */

typedef struct limits_job {
    clattn__programs *programs;
    clattn__program *program;
    int lanes;
    size_t items, group;
    clattn__buffer sums; /* (items, lanes) */
    float *host;         /* the same */
    cl_kernel kernel;
} limits_job;

static void job_clear(limits_job *job) {
    if (job->kernel) clReleaseKernel(job->kernel);
    clattn__buffer_clear(job->programs->env, &job->sums);
    clattn__free(job->host);
}

const int clattn__limits_lanes[] = {16, 8, 4, 0};

clattn_status clattn__limits_program(clattn__programs *programs, int lanes, clattn__program **program) {
    clattn__options options;
    clattn__options_start(&options);
    clattn__options_int(&options, "LANES", lanes);
    return clattn__program_get(programs, "limits.cl", &options, program);
}

static clattn_status job_start(limits_job *job, clattn__programs *programs, int lanes) {
    clattn__env *env = programs->env;
    const clattn__caps *caps = &env->device.caps;
    const bool cpu = caps->type == CLATTN_DEVICE_CPU;
    *job = (limits_job){.programs = programs, .lanes = lanes, .items = caps->compute_units, .group = 1};
    if (!cpu && caps->max_work_group >= GPU_GROUP && caps->max_item_sizes[0] >= GPU_GROUP) job->group = GPU_GROUP;
    if (!cpu) job->items *= GPU_ITEMS;
    const size_t count = job->items * (size_t)lanes;
    job->host = clattn__alloc(count, sizeof *job->host);
    clattn_status status = job->host ? CLATTN_OK : CLATTN_OUT_OF_MEMORY;
    if (status == CLATTN_OK) status = clattn__buffer_create(env, count * sizeof(float), &job->sums);
    if (status == CLATTN_OK) status = clattn__limits_program(programs, lanes, &job->program);
    return status;
}

static clattn_status job_kernel(limits_job *job, const char *name) {
    if (job->kernel) clReleaseKernel(job->kernel);
    return clattn__kernel_create(job->programs, job->program, name, &job->kernel);
}

/* Launches and waits. */
static clattn_status run(limits_job *job, double *seconds) {
    clattn__env *env = job->programs->env;
    const clattn__launch launch = {.kernel = job->kernel, .dims = 1, .global = {job->items}, .local = {job->group}};
    const double start = clattn__os_seconds();
    clattn_status status = clattn__launch_enqueue(env, &launch);
    if (status != CLATTN_OK) return status;
    const cl_int code = clFinish(env->queue);
    *seconds = clattn__os_seconds() - start;
    return code == CL_SUCCESS ? CLATTN_OK : clattn__cl_fail(code, "clFinish", env->device.caps.name);
}

/* A limit from a kernel that did something else would make every figure measured against it wrong. */
static clattn_status check_sums(const limits_job *job, const char *what, double each, double tolerance) {
    clattn__env *env = job->programs->env;
    const size_t count = job->items * (size_t)job->lanes;
    clattn_status status = clattn__buffer_read(env, job->sums.mem, 0, count * sizeof(float), job->host);
    for (size_t i = 0; i < count && status == CLATTN_OK; i++)
        if (!(fabs((double)job->host[i] - each) <= tolerance))
            status = clattn__fail(CLATTN_WRONG_RESULT, "%s of limits.cl on %s: sum %zu is %g instead of %g", what,
                                  env->device.caps.name, i, (double)job->host[i], each);
    return status;
}

/* ---- arithmetic -------------------------------------------------------------------------------------------------- */

static clattn_status time_rounds(limits_job *job, cl_int rounds, double *seconds) {
    clattn__env *env = job->programs->env;
    clattn_status status = clattn__arg(env, job->kernel, 2, sizeof rounds, &rounds);
    return status == CLATTN_OK ? run(job, seconds) : status;
}

static clattn_status multiply_adds(limits_job *job, double *gflops) {
    clattn__env *env = job->programs->env;
    cl_int rounds = FIRST_ROUNDS;
    double seconds = 0;
    clattn_status status = job_kernel(job, "multiply_adds");
    if (status == CLATTN_OK) status = clattn__arg(env, job->kernel, 0, sizeof FACTOR, &FACTOR);
    if (status == CLATTN_OK) status = clattn__arg(env, job->kernel, 1, sizeof ADDEND, &ADDEND);
    if (status == CLATTN_OK) status = clattn__arg_mem(env, job->kernel, 3, job->sums.mem);
    if (status == CLATTN_OK) status = time_rounds(job, rounds, &seconds); /* drivers compile at the first launch */
    for (seconds = 0; status == CLATTN_OK && seconds < RUN_SECONDS && rounds < MOST_ROUNDS; rounds *= 2)
        status = time_rounds(job, 2 * rounds, &seconds);
    for (int i = 0; i < TRIES && status == CLATTN_OK; i++) {
        status = time_rounds(job, rounds, &seconds);
        const double rate = 2e-9 * CHAINS * job->lanes * (double)job->items * rounds / seconds;
        if (status == CLATTN_OK && seconds > 0 && rate > *gflops) *gflops = rate;
    }
    /* Chain i began at i and comes nearer to the point of rest by f each round. f, a and each step are rounded, which
     * moves that point by 1e-4 at most. */
    const double rest = (double)ADDEND / (1.0 - (double)FACTOR), starts = CHAINS * (CHAINS - 1) / 2;
    const double sum = CHAINS * rest + (starts - CHAINS * rest) * pow((double)FACTOR, rounds);
    return status == CLATTN_OK ? check_sums(job, "multiply_adds", sum, 0.01 * CHAINS) : status;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static clattn_status set_stretches(limits_job *job, cl_mem memory, cl_long count) {
    clattn__env *env = job->programs->env;
    const bool cpu = job->group == 1;
    const cl_long start = cpu ? count : 1, step = cpu ? 1 : (cl_long)job->items;
    clattn_status status = clattn__arg_mem(env, job->kernel, 0, memory);
    if (status == CLATTN_OK) status = clattn__arg(env, job->kernel, 1, sizeof start, &start);
    if (status == CLATTN_OK) status = clattn__arg(env, job->kernel, 2, sizeof step, &step);
    return status == CLATTN_OK ? clattn__arg(env, job->kernel, 3, sizeof count, &count) : status;
}

static clattn_status read_memory(limits_job *job, double *gbps) {
    clattn__env *env = job->programs->env;
    const clattn__caps *caps = &env->device.caps;
    const size_t vector = (size_t)job->lanes * sizeof(float);
    uint64_t bytes = READ_BYTES;
    if (bytes > caps->max_allocation) bytes = caps->max_allocation;
    if (bytes > caps->global_memory / MEMORY_SHARE) bytes = caps->global_memory / MEMORY_SHARE;
    const size_t count = (size_t)bytes / vector / job->items / 4 * 4; /* vectors per work-item */
    clattn__buffer memory = {0};
    double seconds = 0;
    clattn_status status = clattn__buffer_create(env, job->items * count * vector, &memory);
    if (status == CLATTN_OK) status = job_kernel(job, "fill_memory");
    if (status == CLATTN_OK) status = set_stretches(job, memory.mem, (cl_long)count);
    if (status == CLATTN_OK) status = run(job, &seconds);
    if (status == CLATTN_OK) status = job_kernel(job, "read_memory");
    if (status == CLATTN_OK) status = set_stretches(job, memory.mem, (cl_long)count);
    if (status == CLATTN_OK) status = clattn__arg_mem(env, job->kernel, 4, job->sums.mem);
    for (int i = 0; i <= TRIES && status == CLATTN_OK; i++) {
        status = run(job, &seconds);
        const double rate = 1e-9 * (double)job->items * (double)count * (double)vector / seconds;
        if (status == CLATTN_OK && seconds > 0 && rate > *gbps) *gbps = rate;
    }
    if (status == CLATTN_OK) status = check_sums(job, "read_memory", (double)count, 1e-6 * (double)count);
    clattn__buffer_clear(env, &memory);
    return status;
}

clattn_status clattn__limits_measure(clattn__programs *programs, clattn_limits *limits) {
    clattn_status status = CLATTN_OK;
    *limits = (clattn_limits){0};
    for (int i = 0; clattn__limits_lanes[i] && status == CLATTN_OK; i++) {
        limits_job job;
        status = job_start(&job, programs, clattn__limits_lanes[i]);
        if (status == CLATTN_OK) status = multiply_adds(&job, &limits->multiply_add_gflops);
        if (status == CLATTN_OK && i == 0) status = read_memory(&job, &limits->read_gbps);
        job_clear(&job);
    }
    return status;
}
