/* For a program that uses OpenCL already: its own context, queue and buffers, no copy and no wait in between. The
 * attention is one more command on the program's queue, behind an event of its choice. */
#include <clattn/clattn.h>
#include <clattn/interop.h>
#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 1, HEADS = 4, LEN = 33, DIM = 32, COUNT = BATCH * HEADS * LEN * DIM };

static void or_die(clattn_status status) {
    if (status == CLATTN_OK) return;
    fprintf(stderr, "%s: %s\n", clattn_status_name(status), clattn_last_error());
    exit(1);
}

static void cl_or_die(cl_int code, const char *call) {
    if (code == CL_SUCCESS) return;
    fprintf(stderr, "%s failed with %d\n", call, (int)code);
    exit(1);
}

static cl_mem buffer_or_die(cl_context context, const float *content) {
    cl_int code;
    cl_mem_flags flags = content ? CL_MEM_READ_ONLY | CL_MEM_COPY_HOST_PTR : CL_MEM_WRITE_ONLY;
    cl_mem buffer = clCreateBuffer(context, flags, COUNT * sizeof(float), (void *)(size_t)content, &code);
    cl_or_die(code, "clCreateBuffer");
    return buffer;
}

int main(void) {
    static float q[COUNT], k[COUNT], v[COUNT], out[COUNT]; /* (B, H, S, D) */
    for (int i = 0; i < COUNT; i++) {
        q[i] = (float)(i % 11) / 11;
        k[i] = (float)(i % 13) / 13;
        v[i] = (float)(i % 17);
    }

    /* The program's own objects. */
    cl_platform_id platform;
    cl_device_id device;
    cl_int code;
    cl_or_die(clGetPlatformIDs(1, &platform, NULL), "clGetPlatformIDs");
    cl_or_die(clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &device, NULL), "clGetDeviceIDs");
    cl_context cl = clCreateContext(NULL, 1, &device, NULL, NULL, &code);
    cl_or_die(code, "clCreateContext");
    cl_command_queue queue = clCreateCommandQueue(cl, device, 0, &code);
    cl_or_die(code, "clCreateCommandQueue");
    cl_mem query = buffer_or_die(cl, q), key = buffer_or_die(cl, k), value = buffer_or_die(cl, v);
    cl_mem output = buffer_or_die(cl, NULL);
    cl_event ready = clCreateUserEvent(cl, &code); /* stands for the work that makes the inputs */
    cl_or_die(code, "clCreateUserEvent");

    /* clattn on top of them. */
    clattn_context *context;
    or_die(clattn_context_create_from(&context, cl, device, queue, NULL));
    clattn_attention_desc desc;
    clattn_attention_desc_init(&desc);
    desc.batch = BATCH;
    desc.query_heads = HEADS;
    desc.query_len = desc.kv_len = LEN;
    desc.head_dim = DIM;
    clattn_attention *plan;
    or_die(clattn_attention_create(&plan, context, &desc));
    clattn_attention_io io = {.query = clattn_mem(query, CLATTN_F32, 4, BATCH, HEADS, LEN, DIM),
                              .key = clattn_mem(key, CLATTN_F32, 4, BATCH, HEADS, LEN, DIM),
                              .value = clattn_mem(value, CLATTN_F32, 4, BATCH, HEADS, LEN, DIM),
                              .output = clattn_mem(output, CLATTN_F32, 4, BATCH, HEADS, LEN, DIM)};
    cl_event done;
    or_die(clattn_attention_enqueue(plan, &io, 1, &ready, &done)); /* returns at once */
    cl_or_die(clSetUserEventStatus(ready, CL_COMPLETE), "clSetUserEventStatus");
    cl_or_die(clEnqueueReadBuffer(queue, output, CL_TRUE, 0, sizeof out, out, 1, &done, NULL), "clEnqueueReadBuffer");
    printf("out[0] = %g, out[last] = %g\n", (double)out[0], (double)out[COUNT - 1]);

    clattn_attention_destroy(&plan);
    clattn_context_destroy(&context);
    clReleaseEvent(done);
    clReleaseEvent(ready);
    clReleaseMemObject(query);
    clReleaseMemObject(key);
    clReleaseMemObject(value);
    clReleaseMemObject(output);
    clReleaseCommandQueue(queue);
    clReleaseContext(cl);
    return 0;
}
