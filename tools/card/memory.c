/* Buffers and copies. */
#include "card.h"

#include <pthread.h>
#include <stdlib.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static cl_mem buffers;

static void add(cl_mem mem) {
    pthread_mutex_lock(&lock);
    mem->next = buffers;
    buffers = mem;
    pthread_mutex_unlock(&lock);
}

static void take_out(cl_mem mem) {
    pthread_mutex_lock(&lock);
    cl_mem *link = &buffers;
    while (*link && *link != mem) link = &(*link)->next;
    if (*link) *link = mem->next;
    pthread_mutex_unlock(&lock);
}

bool card_is_buffer(const void *handle) {
    pthread_mutex_lock(&lock);
    cl_mem mem = buffers;
    while (mem && mem != handle) mem = mem->next;
    pthread_mutex_unlock(&lock);
    return mem != NULL;
}

cl_mem card_CreateBuffer(cl_context context, cl_mem_flags flags, size_t bytes, void *host, cl_int *code) {
    if (bytes == 0) return card_set(code, CL_INVALID_BUFFER_SIZE), NULL;
    if (flags & CL_MEM_USE_HOST_PTR)
        return card_set(code, CL_INVALID_HOST_PTR), NULL; /* the card has memory of its own */
    cl_mem mem = card_object(sizeof *mem, code);
    if (!mem) return NULL;
    card_enter();
    if (card_set(code, card_result(cuda.memory_alloc(&mem->memory, bytes), "cuMemAlloc")) != CL_SUCCESS)
        return free(mem), NULL;
    mem->flags = flags;
    mem->bytes = bytes;
    mem->context = context;
    CARD_RETAIN(context);
    add(mem);
    if (!(flags & CL_MEM_COPY_HOST_PTR)) return mem;
    CUresult result = cuda.copy_in(mem->memory, host, bytes, NULL);
    if (result == 0) result = cuda.stream_synchronize(NULL);
    if (card_set(code, card_result(result, "cuMemcpyHtoD")) == CL_SUCCESS) return mem;
    card_ReleaseMemObject(mem);
    return NULL;
}

cl_int card_RetainMemObject(cl_mem mem) { return CARD_RETAIN(mem); }

/* Freeing waits for the launches that may still use the memory. */
cl_int card_ReleaseMemObject(cl_mem mem) {
    if (!CARD_LAST(mem)) return CL_SUCCESS;
    take_out(mem);
    card_enter();
    while (mem->mappings) {
        card_mapping *next = mem->mappings->next;
        free(mem->mappings->host);
        free(mem->mappings);
        mem->mappings = next;
    }
    const cl_int code = card_result(cuda.memory_free(mem->memory), "cuMemFree");
    card_ReleaseContext(mem->context);
    free(mem);
    return code;
}

cl_int card_GetMemObjectInfo(cl_mem mem, cl_mem_info what, size_t room, void *to, size_t *got) {
    switch (what) {
    case CL_MEM_TYPE:
        return CARD_REPLY(cl_mem_object_type, CL_MEM_OBJECT_BUFFER);
    case CL_MEM_FLAGS:
        return CARD_REPLY(cl_mem_flags, mem->flags);
    case CL_MEM_SIZE:
        return CARD_REPLY(size_t, mem->bytes);
    case CL_MEM_CONTEXT:
        return CARD_REPLY(cl_context, mem->context);
    case CL_MEM_REFERENCE_COUNT:
        return CARD_REPLY(cl_uint, (cl_uint)mem->references);
    default:
        return CL_INVALID_VALUE;
    }
}

static bool inside(cl_mem mem, size_t offset, size_t bytes) {
    return bytes > 0 && offset <= mem->bytes && bytes <= mem->bytes - offset;
}

/* Behind every copy: its event, and the wait for it. */
static cl_int ended(cl_command_queue queue, CUresult result, const char *call, cl_bool blocking, cl_command_type type,
                    cl_event *event) {
    cl_int code = card_result(result, call);
    if (code == CL_SUCCESS) code = card_event(queue, type, event);
    return code == CL_SUCCESS && blocking ? card_Finish(queue) : code;
}

cl_int card_EnqueueWriteBuffer(cl_command_queue queue, cl_mem mem, cl_bool blocking, size_t offset, size_t bytes,
                               const void *from, cl_uint waits, const cl_event *list, cl_event *event) {
    if (!inside(mem, offset, bytes) || !from) return CL_INVALID_VALUE;
    card_enter();
    const cl_int code = card_wait(queue, waits, list);
    if (code != CL_SUCCESS) return code;
    return ended(queue, cuda.copy_in(mem->memory + offset, from, bytes, queue->stream), "cuMemcpyHtoD", blocking,
                 CL_COMMAND_WRITE_BUFFER, event);
}

cl_int card_EnqueueReadBuffer(cl_command_queue queue, cl_mem mem, cl_bool blocking, size_t offset, size_t bytes,
                              void *to, cl_uint waits, const cl_event *list, cl_event *event) {
    if (!inside(mem, offset, bytes) || !to) return CL_INVALID_VALUE;
    card_enter();
    const cl_int code = card_wait(queue, waits, list);
    if (code != CL_SUCCESS) return code;
    return ended(queue, cuda.copy_out(to, mem->memory + offset, bytes, queue->stream), "cuMemcpyDtoH", blocking,
                 CL_COMMAND_READ_BUFFER, event);
}

cl_int card_EnqueueCopyBuffer(cl_command_queue queue, cl_mem from, cl_mem to, size_t from_offset, size_t to_offset,
                              size_t bytes, cl_uint waits, const cl_event *list, cl_event *event) {
    if (!inside(from, from_offset, bytes) || !inside(to, to_offset, bytes)) return CL_INVALID_VALUE;
    card_enter();
    const cl_int code = card_wait(queue, waits, list);
    if (code != CL_SUCCESS) return code;
    return ended(queue, cuda.copy_within(to->memory + to_offset, from->memory + from_offset, bytes, queue->stream),
                 "cuMemcpyDtoD", CL_FALSE, CL_COMMAND_COPY_BUFFER, event);
}

cl_int card_EnqueueFillBuffer(cl_command_queue queue, cl_mem mem, const void *pattern, size_t pattern_bytes,
                              size_t offset, size_t bytes, cl_uint waits, const cl_event *list, cl_event *event) {
    if (!inside(mem, offset, bytes) || pattern_bytes == 0 || bytes % pattern_bytes != 0) return CL_INVALID_VALUE;
    char *block = malloc(bytes);
    if (!block) return CL_OUT_OF_HOST_MEMORY;
    for (size_t at = 0; at < bytes; at += pattern_bytes) memcpy(block + at, pattern, pattern_bytes);
    const cl_int code = card_EnqueueWriteBuffer(queue, mem, CL_TRUE, offset, bytes, block, waits, list, event);
    free(block);
    return code;
}

/* A mapping is a copy on the host, which goes back when it was mapped for writing. */
void *card_EnqueueMapBuffer(cl_command_queue queue, cl_mem mem, cl_bool blocking, cl_map_flags flags, size_t offset,
                            size_t bytes, cl_uint waits, const cl_event *list, cl_event *event, cl_int *code) {
    (void)blocking;
    if (!inside(mem, offset, bytes)) return card_set(code, CL_INVALID_VALUE), NULL;
    card_mapping *mapping = malloc(sizeof *mapping);
    void *host = malloc(bytes);
    cl_int result = mapping && host ? CL_SUCCESS : CL_OUT_OF_HOST_MEMORY;
    if (result == CL_SUCCESS)
        result = card_EnqueueReadBuffer(queue, mem, CL_TRUE, offset, bytes, host, waits, list, event);
    if (card_set(code, result) != CL_SUCCESS) {
        free(host);
        free(mapping);
        return NULL;
    }
    *mapping = (card_mapping){mem->mappings, host, offset, bytes, (flags & ~(cl_map_flags)CL_MAP_READ) != 0};
    mem->mappings = mapping;
    return host;
}

cl_int card_EnqueueUnmapMemObject(cl_command_queue queue, cl_mem mem, void *host, cl_uint waits, const cl_event *list,
                                  cl_event *event) {
    card_mapping **link = &mem->mappings;
    while (*link && (*link)->host != host) link = &(*link)->next;
    card_mapping *mapping = *link;
    if (!mapping) return CL_INVALID_VALUE;
    *link = mapping->next;
    cl_int code = CL_SUCCESS;
    if (mapping->writes)
        code = card_EnqueueWriteBuffer(queue, mem, CL_TRUE, mapping->offset, mapping->bytes, host, waits, list, event);
    else
        code = card_EnqueueMarkerWithWaitList(queue, waits, list, event);
    free(host);
    free(mapping);
    return code;
}
