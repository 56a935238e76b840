/* bench --resident: tensors in device memory, where an application on a GPU keeps them. */
#include "clattn/interop.h"

#include "bench.h"

static size_t bytes_of(const clattn_tensor *tensor) {
    size_t bytes = clattn_dtype_size(tensor->dtype);
    for (int i = 0; i < tensor->rank; i++) bytes *= (size_t)tensor->shape[i];
    return bytes;
}

int bench_place(bench_case *c, clattn_context *context, const bench_settings *settings, clattn_tensor *const *tensors,
                int count) {
    cl_context cl = NULL;
    cl_command_queue queue = NULL;
    if (!settings->resident) return EXIT_GOOD;
    clattn_status status = clattn_context_objects(context, &cl, NULL, &queue);
    if (status != CLATTN_OK) return bench_fail(c, status, "placing");
    for (int i = 0; i < count; i++) {
        clattn_tensor *tensor = tensors[i];
        if (!tensor->data) continue; /* absent */
        bench_resident *place = &c->residents[c->resident_count];
        cl_int code = CL_SUCCESS;
        *place = (bench_resident){.host = tensor->data, .bytes = bytes_of(tensor), .queue = queue};
        cl_mem mem = clCreateBuffer(cl, CL_MEM_READ_WRITE | CL_MEM_COPY_HOST_PTR, place->bytes, place->host, &code);
        if (code != CL_SUCCESS)
            return cli_fail(EXIT_USAGE, "%s: %zu bytes of device memory: clCreateBuffer says %d", c->shape,
                            place->bytes, code);
        place->mem = tensor->mem = mem;
        tensor->data = NULL;
        c->resident_count++;
    }
    return EXIT_GOOD;
}

bool bench_fetch(const bench_case *c) {
    bool good = true;
    for (int i = 0; i < c->resident_count; i++) {
        const bench_resident *place = &c->residents[i];
        if (clEnqueueReadBuffer(place->queue, place->mem, CL_TRUE, 0, place->bytes, place->host, 0, NULL, NULL) !=
            CL_SUCCESS)
            good = false;
    }
    return good;
}

void bench_release(bench_case *c) {
    for (int i = 0; i < c->resident_count; i++) clReleaseMemObject(c->residents[i].mem);
    c->resident_count = 0;
}
