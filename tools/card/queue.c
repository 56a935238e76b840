/* Queues are streams; commands of one run in order. Events mark the end of a command. */
#include "card.h"

#include <stdlib.h>

cl_command_queue card_CreateCommandQueue(cl_context context, cl_device_id device,
                                         cl_command_queue_properties properties, cl_int *code) {
    (void)device;
    if (properties & CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE) return card_set(code, CL_INVALID_QUEUE_PROPERTIES), NULL;
    cl_command_queue queue = card_object(sizeof *queue, code);
    if (!queue) return NULL;
    card_enter();
    const CUresult result = cuda.stream_create(&queue->stream, CUDA_STREAM_NON_BLOCKING);
    if (card_set(code, card_result(result, "cuStreamCreate")) != CL_SUCCESS) return free(queue), NULL;
    queue->properties = properties;
    queue->context = context;
    CARD_RETAIN(context);
    return queue;
}

cl_int card_RetainCommandQueue(cl_command_queue queue) { return CARD_RETAIN(queue); }

cl_int card_ReleaseCommandQueue(cl_command_queue queue) {
    if (!CARD_LAST(queue)) return CL_SUCCESS;
    card_enter();
    cuda.stream_synchronize(queue->stream);
    cuda.stream_destroy(queue->stream);
    card_ReleaseContext(queue->context);
    free(queue);
    return CL_SUCCESS;
}

cl_int card_GetCommandQueueInfo(cl_command_queue queue, cl_command_queue_info what, size_t room, void *to,
                                size_t *got) {
    switch (what) {
    case CL_QUEUE_CONTEXT:
        return CARD_REPLY(cl_context, queue->context);
    case CL_QUEUE_DEVICE:
        return CARD_REPLY(cl_device_id, &card_device);
    case CL_QUEUE_REFERENCE_COUNT:
        return CARD_REPLY(cl_uint, (cl_uint)queue->references);
    case CL_QUEUE_PROPERTIES:
        return CARD_REPLY(cl_command_queue_properties, queue->properties);
    default:
        return CL_INVALID_VALUE;
    }
}

cl_int card_Flush(cl_command_queue queue) { return queue ? CL_SUCCESS : CL_INVALID_COMMAND_QUEUE; }

cl_int card_Finish(cl_command_queue queue) {
    card_enter();
    return card_result(cuda.stream_synchronize(queue->stream), "cuStreamSynchronize");
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

cl_int card_wait(cl_command_queue queue, cl_uint count, const cl_event *events) {
    cl_int code = CL_SUCCESS;
    for (cl_uint i = 0; i < count && code == CL_SUCCESS; i++)
        if (events[i]->queue != queue)
            code = card_result(cuda.stream_wait(queue->stream, events[i]->event, 0), "cuStreamWaitEvent");
    return code;
}

cl_int card_event(cl_command_queue queue, cl_command_type type, cl_event *event) {
    cl_int code;
    if (!event) return CL_SUCCESS;
    cl_event made = card_object(sizeof *made, &code);
    if (!made) return code;
    code = card_result(cuda.event_create(&made->event, CUDA_EVENT_NO_TIMING), "cuEventCreate");
    if (code != CL_SUCCESS) return free(made), code;
    made->type = type;
    made->queue = queue;
    CARD_RETAIN(queue);
    code = card_result(cuda.event_record(made->event, queue->stream), "cuEventRecord");
    if (code != CL_SUCCESS) return card_ReleaseEvent(made), code;
    *event = made;
    return CL_SUCCESS;
}

static cl_int mark(cl_command_queue queue, cl_uint waits, const cl_event *list, cl_command_type type, cl_event *event) {
    card_enter();
    cl_int code = card_wait(queue, waits, list);
    return code == CL_SUCCESS ? card_event(queue, type, event) : code;
}

cl_int card_EnqueueMarkerWithWaitList(cl_command_queue queue, cl_uint waits, const cl_event *list, cl_event *event) {
    return mark(queue, waits, list, CL_COMMAND_MARKER, event);
}

cl_int card_EnqueueBarrierWithWaitList(cl_command_queue queue, cl_uint waits, const cl_event *list, cl_event *event) {
    return mark(queue, waits, list, CL_COMMAND_BARRIER, event);
}

cl_int card_WaitForEvents(cl_uint count, const cl_event *events) {
    card_enter();
    cl_int code = CL_SUCCESS;
    for (cl_uint i = 0; i < count; i++) {
        const cl_int one = card_result(cuda.event_synchronize(events[i]->event), "cuEventSynchronize");
        if (code == CL_SUCCESS) code = one;
    }
    return code;
}

static cl_int state_of(cl_event event) {
    card_enter();
    const CUresult result = cuda.event_query(event->event);
    return result == CUDA_NOT_READY ? CL_RUNNING : result == 0 ? CL_COMPLETE : card_result(result, "cuEventQuery");
}

cl_int card_GetEventInfo(cl_event event, cl_event_info what, size_t room, void *to, size_t *got) {
    switch (what) {
    case CL_EVENT_COMMAND_EXECUTION_STATUS:
        return CARD_REPLY(cl_int, state_of(event));
    case CL_EVENT_COMMAND_TYPE:
        return CARD_REPLY(cl_command_type, event->type);
    case CL_EVENT_COMMAND_QUEUE:
        return CARD_REPLY(cl_command_queue, event->queue);
    case CL_EVENT_CONTEXT:
        return CARD_REPLY(cl_context, event->queue->context);
    case CL_EVENT_REFERENCE_COUNT:
        return CARD_REPLY(cl_uint, (cl_uint)event->references);
    default:
        return CL_INVALID_VALUE;
    }
}

cl_int card_GetEventProfilingInfo(cl_event event, cl_profiling_info what, size_t room, void *to, size_t *got) {
    (void)event, (void)what, (void)room, (void)to, (void)got;
    return CL_PROFILING_INFO_NOT_AVAILABLE;
}

cl_int card_RetainEvent(cl_event event) { return CARD_RETAIN(event); }

cl_int card_ReleaseEvent(cl_event event) {
    if (!CARD_LAST(event)) return CL_SUCCESS;
    card_enter();
    cuda.event_destroy(event->event);
    card_ReleaseCommandQueue(event->queue);
    free(event);
    return CL_SUCCESS;
}

/* A stream cannot wait for the host. */
cl_event card_CreateUserEvent(cl_context context, cl_int *code) {
    (void)context;
    return card_set(code, CL_INVALID_OPERATION), NULL;
}

cl_int card_SetUserEventStatus(cl_event event, cl_int status) {
    (void)event, (void)status;
    return CL_INVALID_EVENT;
}

cl_int card_SetEventCallback(cl_event event, cl_int status, void(CL_CALLBACK *notify)(cl_event, cl_int, void *),
                             void *user) {
    (void)event, (void)status, (void)notify, (void)user;
    return CL_INVALID_OPERATION;
}

/* ---- launches ---------------------------------------------------------------------------------------------------- */

/* Nobody chose the groups: as many items of the first dimension as divide it. */
static unsigned own_choice(size_t items) {
    unsigned group = 256;
    while (items % group != 0) group--;
    return group;
}

cl_int card_EnqueueNDRangeKernel(cl_command_queue queue, cl_kernel kernel, cl_uint dims, const size_t *offset,
                                 const size_t *global, const size_t *local, cl_uint waits, const cl_event *list,
                                 cl_event *event) {
    unsigned grid[3] = {1, 1, 1}, group[3] = {1, 1, 1};
    void *arguments[CARD_PARAMS];
    if (dims < 1 || dims > 3) return CL_INVALID_WORK_DIMENSION;
    if (offset && (offset[0] || (dims > 1 && offset[1]) || (dims > 2 && offset[2]))) return CL_INVALID_GLOBAL_OFFSET;
    for (cl_uint i = 0; i < dims; i++) {
        group[i] = local ? (unsigned)local[i] : i == 0 ? own_choice(global[0]) : 1;
        if (group[i] == 0 || global[i] % group[i] != 0) return CL_INVALID_WORK_GROUP_SIZE;
        if (global[i] == 0 || global[i] / group[i] > 0x7fffffff) return CL_INVALID_GLOBAL_WORK_SIZE;
        grid[i] = (unsigned)(global[i] / group[i]);
    }
    for (cl_uint i = 0; i < kernel->count; i++) {
        if (!kernel->params[i].set) return CL_INVALID_KERNEL_ARGS;
        arguments[i] = kernel->values + kernel->params[i].offset;
    }
    card_enter();
    cl_int code = card_wait(queue, waits, list);
    if (code == CL_SUCCESS)
        code = card_result(cuda.launch(kernel->function, grid[0], grid[1], grid[2], group[0], group[1], group[2], 0,
                                       queue->stream, arguments, NULL),
                           kernel->name);
    return code == CL_SUCCESS ? card_event(queue, CL_COMMAND_NDRANGE_KERNEL, event) : code;
}
