/* One device at work: context, queue, log, folders, accounting. */
#include "device/device.h"

#include <string.h>

static clattn_status choose_cache_dir(clattn__env *env, const char *wanted) {
    if (wanted && !wanted[0]) return CLATTN_OK; /* asked for none */
    if (wanted) {
        env->cache_dir = clattn__strdup(wanted);
        if (!env->cache_dir) return CLATTN_OUT_OF_MEMORY;
    } else if (!clattn__os_cache_dir(&env->cache_dir)) {
        clattn__log_text(&env->log, CLATTN_LOG_WARNING,
                         "neither XDG_CACHE_HOME nor HOME is an absolute path: nothing is kept on disk, so kernels are "
                         "verified anew at every start");
        return CLATTN_OK;
    }
    if (clattn__os_make_dirs(env->cache_dir) && clattn__os_writable_dir(env->cache_dir)) return CLATTN_OK;
    clattn__log_text(&env->log, CLATTN_LOG_WARNING,
                     "the cache folder %s cannot be made or written: nothing is kept on disk, so kernels are verified "
                     "anew at every start",
                     env->cache_dir);
    clattn__free(env->cache_dir);
    env->cache_dir = NULL;
    return CLATTN_OK;
}

/* What both ways to an env share, before any OpenCL object is made. */
static clattn_status start(clattn__env *env, const clattn_context_options *options) {
    *env = (clattn__env){.log = {options->log, options->log_user}, .verify = options->verify};
    env->lock = clattn__mutex_create();
    if (!env->lock) return CLATTN_OUT_OF_MEMORY;
    if (options->kernel_dir && options->kernel_dir[0]) {
        if (!clattn__os_is_dir(options->kernel_dir))
            return clattn__fail(CLATTN_FILE_FAILED,
                                "options.kernel_dir is \"%s\"; it must be a folder that holds the .cl files",
                                options->kernel_dir);
        env->kernel_dir = clattn__strdup(options->kernel_dir);
        if (!env->kernel_dir) return CLATTN_OUT_OF_MEMORY;
    }
    return choose_cache_dir(env, options->cache_dir);
}

static void log_device(const clattn__env *env) {
    const clattn__caps *caps = &env->device.caps;
    clattn__log_text(&env->log, CLATTN_LOG_INFO, "device: %s [%s, driver %s]: %s", caps->name, caps->platform,
                     caps->driver, env->device.why);
    for (uint32_t bit = 1; bit && bit <= caps->quirks; bit <<= 1) {
        const char *reason = caps->quirks & bit ? clattn__quirk_reason(caps, (clattn__quirk)bit) : NULL;
        if (reason) clattn__log_text(&env->log, CLATTN_LOG_DEBUG, "device quirk: %s", reason);
    }
}

static clattn_status pick_device(clattn__env *env, const char *selector) {
    clattn_device_list *list = NULL;
    int index;
    clattn_status status = clattn_device_list_create(&list);
    if (status == CLATTN_OK) status = clattn_device_list_select(list, selector, &index);
    if (status == CLATTN_OK) {
        for (int i = 0; i < list->skipped_count; i++)
            clattn__log_text(&env->log, CLATTN_LOG_INFO, "left out: %s", list->skipped[i]);
        env->device = list->devices[index]; /* moved: the list's copy must not free the strings */
        list->devices[index] = (clattn__device){0};
    }
    clattn_device_list_destroy(&list);
    return status;
}

static clattn_status pretend(clattn__env *env, const char *text) {
    return text && text[0] ? clattn__caps_pretend(&env->device.caps, text) : CLATTN_OK;
}

clattn_status clattn__env_create(clattn__env *env, const clattn_context_options *options) {
    cl_int code;
    clattn_status status = start(env, options);
    if (status) goto fail;
    if ((status = pick_device(env, options->selector))) goto fail;
    if ((status = pretend(env, options->pretend))) goto fail;
    if ((status = clattn__matrix_override(&env->device.caps, options->matrix_engine))) goto fail;
    if ((status = clattn__env_partition(env, options->compute_units))) goto fail;
    const cl_context_properties properties[] = {CL_CONTEXT_PLATFORM, (cl_context_properties)env->device.platform, 0};
    env->context = clCreateContext(properties, 1, &env->device.id, NULL, NULL, &code);
    if (code != CL_SUCCESS) {
        status = clattn__cl_fail(code, "clCreateContext", env->device.caps.name);
        goto fail;
    }
    env->profiling = options->profiling != 0;
    env->queue =
        clCreateCommandQueue(env->context, env->device.id, env->profiling ? CL_QUEUE_PROFILING_ENABLE : 0, &code);
    if (code != CL_SUCCESS) {
        status = clattn__cl_fail(code, "clCreateCommandQueue", env->device.caps.name);
        goto fail;
    }
    env->owns_queue = true;
    log_device(env);
    return CLATTN_OK;
fail:
    clattn__env_clear(env);
    return status;
}

static clattn_status missing(const char *name) {
    return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is NULL; context, device and queue are all needed", name);
}

/* The three objects must belong together, and a plan relies on the order of its commands. */
static clattn_status check_queue(cl_context context, cl_device_id device, cl_command_queue queue,
                                 cl_command_queue_properties *properties) {
    cl_context queue_context = NULL;
    cl_device_id queue_device = NULL;
    cl_int code = clGetCommandQueueInfo(queue, CL_QUEUE_CONTEXT, sizeof(cl_context), &queue_context, NULL);
    if (code == CL_SUCCESS)
        code = clGetCommandQueueInfo(queue, CL_QUEUE_DEVICE, sizeof(cl_device_id), &queue_device, NULL);
    if (code == CL_SUCCESS)
        code = clGetCommandQueueInfo(queue, CL_QUEUE_PROPERTIES, sizeof *properties, properties, NULL);
    if (code != CL_SUCCESS) return clattn__cl_fail(code, "clGetCommandQueueInfo", NULL);
    if (queue_context != context)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "queue belongs to another context than the one given");
    if (queue_device != device)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "queue belongs to another device than the one given");
    if (*properties & CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE)
        return clattn__fail(CLATTN_INVALID_ARGUMENT,
                            "queue was made with CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE; it must be an in-order queue");
    return CLATTN_OK;
}

clattn_status clattn__env_adopt(clattn__env *env, cl_context context, cl_device_id device, cl_command_queue queue,
                                const clattn_context_options *options) {
    cl_command_queue_properties properties = 0;
    cl_platform_id platform;
    cl_int code;
    *env = (clattn__env){0};
    if (!context) return missing("context");
    if (!device) return missing("device");
    if (!queue) return missing("queue");
    clattn_status status = start(env, options);
    if (status) goto fail;
    if ((status = check_queue(context, device, queue, &properties))) goto fail;
    code = clGetDeviceInfo(device, CL_DEVICE_PLATFORM, sizeof(cl_platform_id), &platform, NULL);
    if (code != CL_SUCCESS) {
        status = clattn__cl_fail(code, "clGetDeviceInfo(CL_DEVICE_PLATFORM)", NULL);
        goto fail;
    }
    if ((status = clattn__device_query(platform, device, &env->device))) goto fail;
    if ((status = pretend(env, options->pretend))) goto fail;
    if ((status = clattn__matrix_override(&env->device.caps, options->matrix_engine))) goto fail;
    /* Each member is set only once its object is held, so that clear releases exactly what was retained. */
    if ((code = clRetainContext(context)) == CL_SUCCESS) env->context = context;
    if (code == CL_SUCCESS && (code = clRetainCommandQueue(queue)) == CL_SUCCESS) env->queue = queue;
    if (code == CL_SUCCESS && (code = clRetainDevice(device)) == CL_SUCCESS) env->held_device = device;
    if (code != CL_SUCCESS) {
        status =
            clattn__cl_fail(code, "clRetainContext, clRetainCommandQueue or clRetainDevice", env->device.caps.name);
        goto fail;
    }
    env->profiling = (properties & CL_QUEUE_PROFILING_ENABLE) != 0;
    log_device(env);
    return CLATTN_OK;
fail:
    clattn__env_clear(env);
    return status;
}

void clattn__env_key(const clattn__env *env, char key[33]) {
    const clattn__caps *caps = &env->device.caps;
    clattn__text text = {0};
    clattn__text_add(&text, "%s|%s|%s|%s|%s|%s|%u|%s", caps->platform, caps->platform_version, caps->name,
                     caps->vendor_text, caps->version, caps->driver,
                     caps->whole_units ? caps->whole_units : caps->compute_units, clattn_version());
    clattn__hash_hex(text.data ? text.data : "", text.data ? text.length : 0, key);
    clattn__text_free(&text);
}

void clattn__env_finish(clattn__env *env) {
    if (!env->queue || !env->owns_queue) return;
    clFinish(env->queue);
    if (env->device.caps.quirks & CLATTN__QUIRK_LATE_RELEASE) clattn__os_nap();
}

void clattn__env_clear(clattn__env *env) {
    if (env->queue) clReleaseCommandQueue(env->queue);
    if (env->context) clReleaseContext(env->context);
    if (env->held_device) clReleaseDevice(env->held_device);
    clattn__device_clear(&env->device);
    clattn__free(env->cache_dir);
    clattn__free(env->kernel_dir);
    clattn__mutex_destroy(&env->lock);
    *env = (clattn__env){0};
}
