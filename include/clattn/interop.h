/* For callers who own OpenCL objects already. The only public header that needs OpenCL's own. */
#ifndef CLATTN_INTEROP_H
#define CLATTN_INTEROP_H

#ifndef CL_TARGET_OPENCL_VERSION
#define CL_TARGET_OPENCL_VERSION 120
#endif
#include <CL/cl.h>

#include "clattn/attention.h"
#include "clattn/kv_cache.h"
#include "clattn/layers.h"
#include "clattn/mha.h"
#include "clattn/softmax.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A context on the caller's objects; each is retained, and released by clattn_context_destroy. queue must be an
 * in-order queue of that context and device. options->selector is ignored. */
CLATTN_API clattn_status clattn_context_create_from(clattn_context **out, cl_context context, cl_device_id device,
                                                    cl_command_queue queue, const clattn_context_options *options);

/* The objects that a context works with, for buffers and events beside it. Each pointer may be NULL. They are lent:
 * valid until clattn_context_destroy, unless the caller retains them. cl_mem views belong to *cl. */
CLATTN_API clattn_status clattn_context_objects(const clattn_context *context, cl_context *cl, cl_device_id *device,
                                                cl_command_queue *queue);

/* A dense view of a cl_mem. */
CLATTN_API clattn_tensor clattn_mem(cl_mem mem, clattn_dtype dtype, int rank, int64_t n0, int64_t n1, int64_t n2,
                                    int64_t n3);

/* Enqueues one run on the context's queue behind the events of the wait list and returns at once. All tensors must be
 * cl_mem views and stay alive until *event (may be NULL) completes. An event of the wait list that fails makes *event
 * fail; the outputs are undefined then. The queue is flushed, never finished. */
CLATTN_API clattn_status clattn_attention_enqueue(clattn_attention *plan, const clattn_attention_io *io, cl_uint waits,
                                                  const cl_event *wait_list, cl_event *event);
CLATTN_API clattn_status clattn_layer_enqueue(clattn_layer *layer, const clattn_layer_io *io, cl_uint waits,
                                              const cl_event *wait_list, cl_event *event);
CLATTN_API clattn_status clattn_mha_enqueue(clattn_mha *mha, const clattn_mha_io *io, cl_uint waits,
                                            const cl_event *wait_list, cl_event *event);
CLATTN_API clattn_status clattn_softmax_enqueue(clattn_softmax *plan, const clattn_softmax_io *io, cl_uint waits,
                                                const cl_event *wait_list, cl_event *event);

CLATTN_API clattn_status clattn_rope_enqueue(clattn_rope *rope, const clattn_rope_io *io, cl_uint waits,
                                             const cl_event *wait_list, cl_event *event);
/* Lengths may stay in host memory: they are taken at once. */
CLATTN_API clattn_status clattn_kv_cache_append_enqueue(clattn_kv_cache *cache, const clattn_kv_append_io *io,
                                                        cl_uint waits, const cl_event *wait_list, cl_event *event);
CLATTN_API clattn_status clattn_kv_cache_attend_enqueue(clattn_kv_cache *cache, const clattn_kv_attend_io *io,
                                                        cl_uint waits, const cl_event *wait_list, cl_event *event);

#ifdef __cplusplus
}
#endif
#endif
