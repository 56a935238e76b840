/* Builds programs once per (file, options) and context, or takes what an earlier process built; the driver's log goes
 * to the log callback in full. */
#include <string.h>

#include "program/program.h"

enum { EXCERPT_BYTES = 2048 }; /* of the build log, in the last error */

clattn_status clattn__programs_create(clattn__programs *programs, clattn__env *env) {
    *programs = (clattn__programs){.env = env, .lock = clattn__mutex_create()};
    if (!programs->lock) return clattn__fail(CLATTN_OUT_OF_MEMORY, "no memory for the lock of the programs");
    return CLATTN_OK;
}

static void program_free(clattn__program *program) {
    if (!program) return;
    if (program->program) clReleaseProgram(program->program);
    clattn__free(program->file);
    clattn__free(program->options);
    clattn__free(program);
}

void clattn__programs_clear(clattn__programs *programs) {
    while (programs->first) {
        clattn__program *next = programs->first->next;
        program_free(programs->first);
        programs->first = next;
    }
    clattn__mutex_destroy(&programs->lock);
    programs->env = NULL;
}

static bool is_blank(const char *text) { return text[strspn(text, " \t\r\n")] == '\0'; }

/* The driver's log of the last build, NULL when it has none. Caller frees. */
static char *build_log(cl_program program, cl_device_id device) {
    size_t bytes = 0;
    if (clGetProgramBuildInfo(program, device, CL_PROGRAM_BUILD_LOG, 0, NULL, &bytes) != CL_SUCCESS || bytes == 0)
        return NULL;
    char *log = clattn__alloc(bytes + 1, 1);
    if (log && (clGetProgramBuildInfo(program, device, CL_PROGRAM_BUILD_LOG, bytes, log, NULL) != CL_SUCCESS ||
                is_blank(log))) {
        clattn__free(log);
        return NULL;
    }
    for (size_t end = log ? strlen(log) : 0; end > 0 && strchr(" \t\r\n", log[end - 1]); end--) log[end - 1] = '\0';
    return log;
}

static clattn_status build_failed(const clattn__env *env, const clattn__program *program, const char *log,
                                  cl_int code) {
    const clattn__caps *caps = &env->device.caps;
    clattn__log_text(&env->log, CLATTN_LOG_ERROR, "%s does not build on %s (%s %s) with options \"%s\":\n%s",
                     program->file, caps->name, caps->platform, caps->driver, program->options,
                     log ? log : "(the driver left no log)");
    clattn_status status = clattn__fail(
        CLATTN_BUILD_FAILED, "clBuildProgram failed with %s (%d) for %s on %s (platform %s, driver %s), options \"%s\"",
        clattn__cl_error_name(code), (int)code, program->file, caps->name, caps->platform, caps->driver,
        program->options);
    if (!log) {
        clattn__fail_note("; the driver left no build log");
        return status;
    }
    bool cut = strlen(log) > EXCERPT_BYTES;
    clattn__fail_note("; build log%s:\n%.*s%s", cut ? ", first lines" : "", EXCERPT_BYTES, log,
                      cut ? "\n(the log callback has all of it)" : "");
    return status;
}

static clattn_status build(clattn__env *env, clattn__program *program, const char *source) {
    const clattn__caps *caps = &env->device.caps;
    cl_int code;
    program->program = clCreateProgramWithSource(env->context, 1, &source, NULL, &code);
    if (!program->program || code != CL_SUCCESS) return clattn__cl_fail(code, "clCreateProgramWithSource", caps->name);

    double start = clattn__os_seconds();
    code = clBuildProgram(program->program, 1, &env->device.id, program->options, NULL, NULL);
    program->build_seconds = clattn__os_seconds() - start;

    char *log = build_log(program->program, env->device.id);
    clattn_status status = CLATTN_OK;
    if (code != CL_SUCCESS) {
        status = build_failed(env, program, log, code);
    } else {
        clattn__log_text(&env->log, CLATTN_LOG_DEBUG, "built %s in %.0f ms with %s", program->file,
                         program->build_seconds * 1e3, program->options);
        /* Text beside a success is no error; some drivers always write some. */
        if (log)
            clattn__log_text(&env->log, CLATTN_LOG_DEBUG, "build log of %s%s:\n%s", program->file,
                             caps->quirks & CLATTN__QUIRK_LOG_NEVER_EMPTY ? " (this driver always writes one)" : "",
                             log);
    }
    clattn__free(log);
    return status;
}

static bool load(clattn__env *env, clattn__program *program) {
    const double start = clattn__os_seconds();
    if (!clattn__cache_load(env, program)) return false;
    program->build_seconds = clattn__os_seconds() - start;
    clattn__log_text(&env->log, CLATTN_LOG_DEBUG, "loaded %s in %.0f ms, built before with %s", program->file,
                     program->build_seconds * 1e3, program->options);
    return true;
}

static clattn_status make_key(clattn__program *program, const char *source) {
    clattn__text text = {0};
    clattn__text_add(&text, "%s\n", program->options);
    clattn__text_add_bytes(&text, source, strlen(source));
    if (!text.failed) clattn__hash_hex(text.data, text.length, program->key);
    clattn_status status =
        text.failed ? clattn__fail(CLATTN_OUT_OF_MEMORY, "no memory to hash %s", program->file) : CLATTN_OK;
    clattn__text_free(&text);
    return status;
}

static clattn_status make_program(clattn__programs *programs, const char *file, const char *options,
                                  clattn__program **out) {
    clattn_status status = CLATTN_OUT_OF_MEMORY;
    char *source = NULL;
    clattn__program *program = clattn__alloc(1, sizeof *program);
    if (!program) goto fail;
    program->file = clattn__strdup(file);
    program->options = clattn__strdup(options);
    if (!program->file || !program->options) goto fail;
    if ((status = clattn__source_load(programs->env->kernel_dir, file, &source)) != CLATTN_OK) goto fail;
    if ((status = make_key(program, source)) != CLATTN_OK) goto fail;
    if (programs->recorder) {
        programs->recorder->program(programs->recorder->user, program, source);
    } else if (!load(programs->env, program)) {
        if ((status = build(programs->env, program, source)) != CLATTN_OK) goto fail;
        clattn__cache_store(programs->env, program);
    }
    clattn__free(source);
    *out = program;
    return CLATTN_OK;
fail:
    clattn__free(source);
    program_free(program);
    return status;
}

static clattn__program *find(const clattn__programs *programs, const char *file, const char *options) {
    for (clattn__program *row = programs->first; row; row = row->next)
        if (strcmp(row->file, file) == 0 && strcmp(row->options, options) == 0) return row;
    return NULL;
}

clattn_status clattn__program_get(clattn__programs *programs, const char *file, const clattn__options *options,
                                  clattn__program **program) {
    *program = NULL;
    if (options->overflow)
        return clattn__fail(CLATTN_BUILD_FAILED, "the build options of %s pass %zu bytes", file,
                            sizeof options->text - 1);
    clattn_status status = CLATTN_OK;
    clattn__mutex_lock(programs->lock);
    *program = find(programs, file, options->text);
    if (!*program) {
        status = make_program(programs, file, options->text, program);
        if (status == CLATTN_OK) {
            (*program)->next = programs->first;
            programs->first = *program;
        }
    }
    clattn__mutex_unlock(programs->lock);
    return status;
}

clattn_status clattn__kernel_create(clattn__programs *programs, clattn__program *program, const char *name,
                                    cl_kernel *kernel) {
    const clattn__caps *caps = &programs->env->device.caps;
    cl_int code;
    *kernel = NULL;
    if (programs->recorder) return CLATTN_OK;
    *kernel = clCreateKernel(program->program, name, &code);
    if (*kernel && code == CL_SUCCESS) return CLATTN_OK;
    *kernel = NULL;
    clattn_status status = clattn__cl_fail(code, "clCreateKernel", caps->name);
    clattn__fail_note("; kernel \"%s\" of %s", name, program->file);
    return status;
}

size_t clattn__kernel_most_items(const clattn__programs *programs, cl_kernel kernel) {
    const clattn__device *device = &programs->env->device;
    size_t items = 0;
    if (programs->recorder || (device->caps.quirks & CLATTN__QUIRK_GROUP_LIMIT_WRONG))
        return device->caps.max_work_group;
    cl_int code = clGetKernelWorkGroupInfo(kernel, device->id, CL_KERNEL_WORK_GROUP_SIZE, sizeof items, &items, NULL);
    return code == CL_SUCCESS && items > 0 ? items : SIZE_MAX;
}

/* CL_KERNEL_SPILL_MEM_SIZE_INTEL: there private memory is what the source asked for, without spilled registers. */
static size_t kernel_bytes(cl_kernel kernel, cl_device_id device, cl_kernel_work_group_info what) {
    cl_ulong bytes = 0;
    cl_int code = clGetKernelWorkGroupInfo(kernel, device, what, sizeof bytes, &bytes, NULL);
    return code == CL_SUCCESS ? (size_t)bytes : 0;
}

size_t clattn__kernel_spilled(const clattn__programs *programs, cl_kernel kernel) {
    enum { SPILL_MEM_SIZE_INTEL = 0x4109 };
    const cl_device_id device = programs->env->device.id;
    cl_device_type type = 0; /* the driver's: of a device that is only pretended to be a GPU it knows nothing */
    if (programs->recorder || !kernel) return 0;
    if (clGetDeviceInfo(device, CL_DEVICE_TYPE, sizeof type, &type, NULL) != CL_SUCCESS) return 0;
    if (!(type & CL_DEVICE_TYPE_GPU)) return 0;
    return kernel_bytes(kernel, device, CL_KERNEL_PRIVATE_MEM_SIZE) +
           kernel_bytes(kernel, device, SPILL_MEM_SIZE_INTEL);
}
