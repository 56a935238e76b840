/* A part of a device: some of its compute units, so that the threads of an application are left alone. */
#include "device/device.h"

enum { MOST_PROPERTIES = 16 };

/* Whether the device can be parted by a list of unit counts. */
static bool parts_by_counts(cl_device_id id) {
    cl_device_partition_property offered[MOST_PROPERTIES] = {0};
    size_t bytes = 0;
    if (clGetDeviceInfo(id, CL_DEVICE_PARTITION_PROPERTIES, sizeof offered, offered, &bytes) != CL_SUCCESS)
        return false;
    for (size_t i = 0; i < bytes / sizeof *offered && i < MOST_PROPERTIES; i++)
        if (offered[i] == CL_DEVICE_PARTITION_BY_COUNTS) return true;
    return false;
}

clattn_status clattn__env_partition(clattn__env *env, int units) {
    clattn__caps *caps = &env->device.caps;
    if (units <= 0 || (uint32_t)units >= caps->compute_units) return CLATTN_OK;
    if (!parts_by_counts(env->device.id))
        return clattn__fail(CLATTN_UNSUPPORTED,
                            "options.compute_units is %d of %u, but %s (platform %s, driver %s) cannot be divided "
                            "(CL_DEVICE_PARTITION_BY_COUNTS); its driver may have a setting for the number of threads",
                            units, (unsigned)caps->compute_units, caps->name, caps->platform, caps->driver);
    const cl_device_partition_property counts[] = {CL_DEVICE_PARTITION_BY_COUNTS, units,
                                                   CL_DEVICE_PARTITION_BY_COUNTS_LIST_END, 0};
    cl_device_id part = NULL;
    cl_uint made = 0;
    cl_int code = clCreateSubDevices(env->device.id, counts, 1, &part, &made);
    if (code != CL_SUCCESS || made != 1) return clattn__cl_fail(code, "clCreateSubDevices", caps->name);
    env->held_device = env->device.id = part;
    caps->whole_units = caps->compute_units;
    caps->compute_units = (uint32_t)units;
    clattn__log_text(&env->log, CLATTN_LOG_INFO, "%d of the %u compute units are used", units,
                     (unsigned)caps->whole_units);
    return CLATTN_OK;
}

static void CL_CALLBACK event_ended(cl_event event, cl_int state, void *signal) {
    (void)event;
    (void)state;
    clattn__signal_raise(signal);
}

/* Sleeps where clWaitForEvents would work. */
static cl_int sleep_until(cl_event event, clattn__signal *signal) {
    cl_int state = CL_COMPLETE, code = clSetEventCallback(event, CL_COMPLETE, event_ended, signal);
    if (code != CL_SUCCESS) return code;
    clattn__signal_wait(signal);
    code = clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL);
    return code == CL_SUCCESS && state < 0 ? state : code;
}

clattn_status clattn__event_wait(clattn__env *env, cl_event event) {
    const clattn__caps *caps = &env->device.caps;
    const bool sleeps = caps->whole_units && (caps->quirks & CLATTN__QUIRK_WAITER_WORKS);
    clattn__signal *signal = sleeps ? clattn__signal_create() : NULL;
    if (!signal) { /* also when there is no memory for a signal: then one thread more works */
        cl_int code = clWaitForEvents(1, &event);
        return code == CL_SUCCESS ? CLATTN_OK : clattn__cl_fail(code, "clWaitForEvents", caps->name);
    }
    cl_int code = clFlush(env->queue);
    if (code == CL_SUCCESS) code = sleep_until(event, signal);
    clattn__signal_destroy(&signal);
    return code == CL_SUCCESS ? CLATTN_OK : clattn__cl_fail(code, "waiting for an event", caps->name);
}
