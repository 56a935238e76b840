/* Bad input at the library's door: each mistake has its status, and a message that names the field, the value and the
 * rule. Nothing reaches a device. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "clattn/interop.h"
#include "clattn/reference.h"
#include "harness.h"
#include "ocl/ocl.h"

static clattn_context *context;

static clattn_attention_desc good_desc(void) {
    clattn_attention_desc d;
    clattn_attention_desc_init(&d);
    d.batch = 2;
    d.query_heads = 4;
    d.kv_heads = 2;
    d.query_len = 3;
    d.kv_len = 5;
    d.head_dim = 8;
    return d;
}

/* One changed field; the message must hold `says`. */
#define BAD_DESC(change, status, says)                                                                                 \
    do {                                                                                                               \
        clattn_attention_desc d = good_desc();                                                                         \
        clattn_attention *plan = (clattn_attention *)&d;                                                               \
        change;                                                                                                        \
        clattn_status got = clattn_attention_create(&plan, context, &d);                                               \
        CHECK(got == (status) && !plan, "%s: %s", #change, clattn_status_name(got));                                   \
        CHECK(strstr(clattn_last_error(), says) != NULL, "%s: the message was: %s", #change, clattn_last_error());     \
    } while (0)

static void attention_descriptions(void) {
    BAD_DESC(d.batch = -1, CLATTN_INVALID_SHAPE, "batch is -1");
    BAD_DESC(d.query_heads = 0, CLATTN_INVALID_SHAPE, "query_heads is 0");
    BAD_DESC(d.kv_heads = 3, CLATTN_INVALID_SHAPE, "multiple of kv_heads");
    BAD_DESC(d.kv_heads = -2, CLATTN_INVALID_SHAPE, "kv_heads is -2");
    BAD_DESC(d.query_len = -7, CLATTN_INVALID_SHAPE, "query_len is -7");
    BAD_DESC(d.kv_len = (int64_t)1 << 40, CLATTN_INVALID_SHAPE, "kv_len is 1099511627776");
    BAD_DESC(d.head_dim = 0, CLATTN_INVALID_SHAPE, "head_dim is 0");
    BAD_DESC(d.head_dim = 513, CLATTN_INVALID_SHAPE, "head_dim is 513");
    BAD_DESC(d.value_dim = 1000, CLATTN_INVALID_SHAPE, "value_dim is 1000");
    BAD_DESC((d.batch = d.query_heads = d.query_len = (int64_t)1 << 28, d.kv_heads = 1), CLATTN_INVALID_SHAPE,
             "overflow");
    BAD_DESC(d.dtype = (clattn_dtype)77, CLATTN_INVALID_ARGUMENT, "dtype is 77");
    BAD_DESC((d.has_scale = 1, d.scale = NAN), CLATTN_INVALID_ARGUMENT, "scale is");
    BAD_DESC((d.has_scale = 1, d.scale = INFINITY), CLATTN_INVALID_ARGUMENT, "finite");
    BAD_DESC(d.temperature = 0, CLATTN_INVALID_ARGUMENT, "temperature is 0; it must be > 0");
    BAD_DESC(d.temperature = -1, CLATTN_INVALID_ARGUMENT, "temperature is -1");
    BAD_DESC(d.temperature = NAN, CLATTN_INVALID_ARGUMENT, "temperature");
    BAD_DESC(d.softcap = -3, CLATTN_INVALID_ARGUMENT, "softcap is -3");
    BAD_DESC(d.softcap = NAN, CLATTN_INVALID_ARGUMENT, "softcap is nan");
    BAD_DESC(d.causal = (clattn_causal)9, CLATTN_INVALID_ARGUMENT, "causal is 9");
    BAD_DESC(d.causal_offset = (int64_t)1 << 50, CLATTN_INVALID_ARGUMENT, "causal_offset");
    BAD_DESC(d.window_left = -2, CLATTN_INVALID_ARGUMENT, "window_left is -2");
    BAD_DESC(d.window_right = -5, CLATTN_INVALID_ARGUMENT, "window_right is -5");
    BAD_DESC(d.mask = (clattn_mask_type)3, CLATTN_INVALID_ARGUMENT, "mask is 3");
    BAD_DESC((d.mask = CLATTN_MASK_BOOL, d.mask_shape[0] = 3, d.mask_shape[1] = d.mask_shape[2] = d.mask_shape[3] = 1),
             CLATTN_INVALID_SHAPE, "mask_shape[0] (batch) is 3; it must be 1 or 2");
    BAD_DESC((d.mask = CLATTN_MASK_BOOL, d.mask_shape[0] = d.mask_shape[1] = d.mask_shape[2] = 1, d.mask_shape[3] = 6),
             CLATTN_INVALID_SHAPE, "mask_shape[3] (kv_len) is 6");
    BAD_DESC(d.weights = (clattn_weights_output)5, CLATTN_INVALID_ARGUMENT, "weights is 5");
    BAD_DESC(d.scores = (clattn_scores_output)-1, CLATTN_INVALID_ARGUMENT, "scores is -1");
    BAD_DESC(d.struct_size = 3, CLATTN_INVALID_ARGUMENT, "struct_size is 3");
    BAD_DESC(d.struct_size = sizeof d + 64, CLATTN_INVALID_ARGUMENT, "struct_size");
    clattn_attention_desc d = good_desc();
    clattn_attention *plan = NULL;
    CHECK(clattn_attention_create(NULL, context, &d) == CLATTN_INVALID_ARGUMENT, "out NULL");
    CHECK(clattn_attention_create(&plan, NULL, &d) == CLATTN_INVALID_ARGUMENT, "context NULL");
    CHECK(clattn_attention_create(&plan, context, NULL) == CLATTN_INVALID_ARGUMENT, "desc NULL");
    clattn_attention_destroy(NULL);
    clattn_attention_destroy(&plan);
}

static float data[4096];
static int32_t lengths[2] = {5, 5};

static clattn_attention_io good_io(void) {
    return (clattn_attention_io){.query = clattn_host(data, CLATTN_F32, 4, 2, 4, 3, 8),
                                 .key = clattn_host(data, CLATTN_F32, 4, 2, 2, 5, 8),
                                 .value = clattn_host(data, CLATTN_F32, 4, 2, 2, 5, 8),
                                 .kv_lengths = clattn_host(lengths, CLATTN_I32, 1, 2, 0, 0, 0),
                                 .output = clattn_host(data + 2048, CLATTN_F32, 4, 2, 4, 3, 8)};
}

#define BAD_IO(change, status, says)                                                                                   \
    do {                                                                                                               \
        clattn_attention_io io = good_io();                                                                            \
        change;                                                                                                        \
        clattn_status got = clattn_attention_run(plan, &io);                                                           \
        CHECK(got == (status), "%s: %s", #change, clattn_status_name(got));                                            \
        CHECK(strstr(clattn_last_error(), says) != NULL, "%s: the message was: %s", #change, clattn_last_error());     \
        got = clattn_reference_attention(&d, &io, NULL);                                                               \
        CHECK(got == (status), "%s by the reference: %s", #change, clattn_status_name(got));                           \
    } while (0)

static void attention_tensors(void) {
    clattn_attention_desc d = good_desc();
    d.kv_lengths = 1;
    clattn_attention *plan = NULL;
    REQUIRE(clattn_attention_create(&plan, context, &d) == CLATTN_OK, "%s", clattn_last_error());
    clattn_attention_io good = good_io();
    CHECK(clattn_attention_run(plan, &good) == CLATTN_OK, "%s", clattn_last_error());
    BAD_IO(io.query.data = NULL, CLATTN_INVALID_ARGUMENT, "query is missing");
    BAD_IO(io.output.data = NULL, CLATTN_INVALID_ARGUMENT, "output is missing");
    BAD_IO(io.query.rank = 3, CLATTN_INVALID_SHAPE, "query has rank 3; it must have rank 4");
    BAD_IO(io.query.rank = -1, CLATTN_INVALID_SHAPE, "query has rank -1");
    BAD_IO(io.key.shape[2] = 6, CLATTN_INVALID_SHAPE, "key has shape (2, 2, 6, 8); the description says (2, 2, 5, 8)");
    BAD_IO(io.value.dtype = CLATTN_F16, CLATTN_INVALID_ARGUMENT, "value has element type float16; it must be float32");
    BAD_IO((io.query.stride[0] = 96, io.query.stride[1] = 24, io.query.stride[2] = 8, io.query.stride[3] = 2),
           CLATTN_INVALID_SHAPE, "contiguous");
    BAD_IO((io.query.stride[0] = -96, io.query.stride[3] = 1), CLATTN_INVALID_SHAPE, "query.stride[0] is -96");
    BAD_IO((io.output.stride[0] = 8, io.output.stride[1] = 24, io.output.stride[2] = 8, io.output.stride[3] = 1),
           CLATTN_INVALID_SHAPE, "share memory");
    BAD_IO(io.query.offset = -1, CLATTN_INVALID_SHAPE, "query.offset is -1");
    BAD_IO(io.mask = clattn_host(data, CLATTN_F32, 4, 1, 1, 3, 5), CLATTN_INVALID_ARGUMENT, "mask is given, but");
    BAD_IO(io.kv_lengths.dtype = CLATTN_F32, CLATTN_INVALID_ARGUMENT, "kv_lengths has element type float32");
    lengths[1] = 6;
    BAD_IO((void)0, CLATTN_INVALID_ARGUMENT, "kv_lengths[1] is 6; it must be in 0..kv_len (5)");
    lengths[1] = -1;
    BAD_IO((void)0, CLATTN_INVALID_ARGUMENT, "kv_lengths[1] is -1");
    lengths[1] = 5;
    BAD_IO(io.key.data = (char *)io.key.data + 1, CLATTN_INVALID_ARGUMENT, "key.data");
    BAD_IO(io.output = io.query, CLATTN_INVALID_ARGUMENT, "output overlaps query");
    BAD_IO(io.value.data = data + 2049, CLATTN_INVALID_ARGUMENT, "output overlaps value");
    BAD_IO(io.kv_lengths.data = data + 2048 + 191, CLATTN_INVALID_ARGUMENT, "output overlaps kv_lengths");
    /* side by side in the rows of one array, they have gaps and share nothing */
    clattn_attention_io apart = good_io();
    const int64_t rows_of_16[4] = {192, 48, 16, 1};
    memcpy(apart.output.stride, rows_of_16, sizeof rows_of_16);
    apart.query = apart.output;
    apart.query.offset = 8;
    CHECK(clattn_attention_run(plan, &apart) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(clattn_attention_run(plan, NULL) == CLATTN_INVALID_ARGUMENT, "io NULL");
    CHECK(clattn_attention_run(NULL, &good) == CLATTN_INVALID_ARGUMENT, "plan NULL");
    CHECK(clattn_attention_enqueue(plan, &good, 0, NULL, NULL) == CLATTN_INVALID_ARGUMENT &&
              strstr(clattn_last_error(), "takes cl_mem views only"),
          "host memory in an enqueued run: %s", clattn_last_error());
    good.query.mem = data;
    CHECK(clattn_attention_run(plan, &good) == CLATTN_INVALID_ARGUMENT &&
              strstr(clattn_last_error(), "both data and mem"),
          "%s", clattn_last_error());
    clattn_attention_destroy(&plan);
}

static clattn_mha_desc good_layer(void) {
    clattn_mha_desc d;
    clattn_mha_desc_init(&d);
    d.batch = 2;
    d.query_len = 3;
    d.embed_dim = 12;
    d.heads = 3;
    return d;
}

static clattn_mha_weights good_weights(void) {
    return (clattn_mha_weights){.in_proj_weight = clattn_host(data, CLATTN_F32, 2, 36, 12, 0, 0),
                                .out_proj_weight = clattn_host(data, CLATTN_F32, 2, 12, 12, 0, 0)};
}

#define BAD_LAYER(change, status, says)                                                                                \
    do {                                                                                                               \
        clattn_mha_desc d = good_layer();                                                                              \
        clattn_mha_weights w = good_weights();                                                                         \
        clattn_mha *mha = NULL;                                                                                        \
        change;                                                                                                        \
        clattn_status got = clattn_mha_create(&mha, context, &d, &w);                                                  \
        CHECK(got == (status) && !mha, "%s: %s", #change, clattn_status_name(got));                                    \
        CHECK(strstr(clattn_last_error(), says) != NULL, "%s: the message was: %s", #change, clattn_last_error());     \
    } while (0)

static void layer_descriptions(void) {
    BAD_LAYER(d.heads = 5, CLATTN_INVALID_SHAPE, "embed_dim must be a multiple of heads");
    BAD_LAYER(d.heads = 0, CLATTN_INVALID_SHAPE, "heads is 0");
    BAD_LAYER(d.embed_dim = -12, CLATTN_INVALID_SHAPE, "embed_dim is -12");
    BAD_LAYER((d.embed_dim = 1026, d.heads = 2), CLATTN_INVALID_SHAPE, "embed_dim / heads is 513");
    BAD_LAYER(d.kv_len = 4, CLATTN_INVALID_SHAPE, "self-attention needs them equal");
    BAD_LAYER(d.key_dim = 5, CLATTN_INVALID_SHAPE, "self-attention needs both equal");
    BAD_LAYER((d.inputs = CLATTN_MHA_CROSS, d.key_dim = 5), CLATTN_INVALID_SHAPE, "one tensor for key and value");
    BAD_LAYER((d.inputs = CLATTN_MHA_SEPARATE, d.key_dim = 5), CLATTN_INVALID_SHAPE, "in_proj_weight needs key_dim");
    BAD_LAYER(d.inputs = (clattn_mha_inputs)7, CLATTN_INVALID_ARGUMENT, "inputs is 7");
    BAD_LAYER((d.has_scale = 1, d.scale = NAN), CLATTN_INVALID_ARGUMENT, "scale");
    BAD_LAYER(d.memory_limit = 1, CLATTN_MEMORY_LIMIT, "the least that works is");
    BAD_LAYER(w.in_proj_weight.data = NULL, CLATTN_INVALID_ARGUMENT, "q_proj_weight is missing");
    BAD_LAYER(w.in_proj_weight.shape[0] = 35, CLATTN_INVALID_SHAPE,
              "in_proj_weight has shape (35, 12); the description says (36, 12)");
    BAD_LAYER(w.in_proj_weight.dtype = CLATTN_I8, CLATTN_INVALID_ARGUMENT, "in_proj_weight has element type int8");
    BAD_LAYER(w.out_proj_weight.data = NULL, CLATTN_INVALID_ARGUMENT, "out_proj_weight is missing");
    BAD_LAYER(w.q_proj_weight = w.out_proj_weight, CLATTN_INVALID_ARGUMENT, "give one form");
    BAD_LAYER(w.bias_k = clattn_host(data, CLATTN_F32, 1, 12, 0, 0, 0), CLATTN_INVALID_ARGUMENT, "bias_k and bias_v");
    BAD_LAYER((w.in_proj_weight.mem = data, w.in_proj_weight.data = NULL), CLATTN_INVALID_ARGUMENT, "cl_mem");
    BAD_LAYER(d.gemm_kernel = "gemm_by_hand", CLATTN_UNSUPPORTED, "gemm_by_hand");
}

static void empty_problems(void) {
    const struct { int64_t batch, query_len, kv_len; } sizes[] = {{0, 3, 5}, {2, 0, 5}, {2, 3, 0}, {0, 0, 0}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        clattn_attention_desc d = good_desc();
        d.batch = sizes[i].batch;
        d.query_len = sizes[i].query_len;
        d.kv_len = sizes[i].kv_len;
        d.logsumexp = 1;
        float out[192], lse[24];
        for (int e = 0; e < 192; e++) out[e] = 7;
        for (int e = 0; e < 24; e++) lse[e] = 7;
        clattn_attention *plan = NULL;
        REQUIRE(clattn_attention_create(&plan, context, &d) == CLATTN_OK, "%s", clattn_last_error());
        clattn_attention_io io = {.query = clattn_host(data, CLATTN_F32, 4, d.batch, 4, d.query_len, 8),
                                  .key = clattn_host(data, CLATTN_F32, 4, d.batch, 2, d.kv_len, 8),
                                  .value = clattn_host(data, CLATTN_F32, 4, d.batch, 2, d.kv_len, 8),
                                  .output = clattn_host(out, CLATTN_F32, 4, d.batch, 4, d.query_len, 8),
                                  .logsumexp = clattn_host(lse, CLATTN_F32, 3, d.batch, 4, d.query_len, 0)};
        CHECK(clattn_attention_run(plan, &io) == CLATTN_OK, "size %zu: %s", i, clattn_last_error());
        const bool rows = d.batch > 0 && d.query_len > 0;
        for (int e = 0; e < 192; e++)
            if (!CHECK(out[e] == (rows ? 0 : 7), "size %zu: output %d is %g", i, e, out[e])) break;
        for (int e = 0; e < 24; e++)
            if (!CHECK(rows ? lse[e] == -INFINITY : lse[e] == 7, "size %zu: logsumexp %d is %g", i, e, lse[e])) break;
        clattn_attention_destroy(&plan);
    }
}

/* An older program's smaller struct is read as far as it goes, and nothing behind it is written. */
static void older_structs(void) {
    unsigned char memory[sizeof(clattn_attention_desc) + 8];
    memset(memory, 0xAB, sizeof memory);
    const size_t older = offsetof(clattn_attention_desc, kernel);
    clattn_attention_desc_init_sized((clattn_attention_desc *)(void *)memory, older);
    for (size_t i = older; i < sizeof memory; i++) CHECK(memory[i] == 0xAB, "byte %zu was written", i);
    clattn_attention_desc d;
    memset(&d, 0xAB, sizeof d);
    memcpy(&d, memory, older);
    d.batch = d.query_heads = d.query_len = d.kv_len = d.head_dim = 1;
    clattn_attention *plan = NULL;
    CHECK(clattn_attention_create(&plan, context, &d) == CLATTN_OK, "%s", clattn_last_error());
    clattn_attention_destroy(&plan);
}

static void names(void) {
    CHECK(strcmp(clattn_status_name(CLATTN_MEMORY_LIMIT), "CLATTN_MEMORY_LIMIT") == 0, "name");
    CHECK(strcmp(clattn_status_name((clattn_status)-99), "?") == 0 &&
              strcmp(clattn_status_text((clattn_status)-99), "?") == 0,
          "unknown status");
    CHECK(clattn_dtype_size((clattn_dtype)-1) == 0 && strcmp(clattn_dtype_name((clattn_dtype)99), "?") == 0,
          "unknown dtype");
    CHECK(clattn_dtype_size(CLATTN_BF16) == 2 && clattn_dtype_size(CLATTN_I64) == 8, "sizes");
    CHECK(clattn_version()[0] != 0, "version");
}

static void contexts(void) {
    clattn_context *none = context;
    clattn_context_options options;
    clattn_context_options_init(&options);
    options.selector = "platform=of-no-vendor";
    CHECK(clattn_context_create(&none, &options) == CLATTN_NO_DEVICE && !none, "a device of no vendor was found");
    clattn_device_info info;
    clattn_context_device(context, &info);
    CHECK(strstr(clattn_last_error(), info.name) != NULL, "the error does not list %s: %s", info.name,
          clattn_last_error());
    options.selector = NULL;
    options.verify = (clattn_verify_mode)8;
    CHECK(clattn_context_create(&none, &options) == CLATTN_INVALID_ARGUMENT, "verify 8 was accepted");
    options.verify = CLATTN_VERIFY_ONCE;
    options.struct_size = 1;
    CHECK(clattn_context_create(&none, &options) == CLATTN_INVALID_ARGUMENT, "struct_size 1 was accepted");
    CHECK(clattn_context_create(NULL, NULL) == CLATTN_INVALID_ARGUMENT, "out NULL was accepted");
    clattn_context_destroy(NULL);
    CHECK(clattn_context_device(NULL, &info) == CLATTN_INVALID_ARGUMENT, "context NULL");
    clattn_context_options_init(&options);
    options.kernel_dir = "/no/such/folder";
    options.cache_dir = "";
    CHECK(clattn_context_create(&none, &options) == CLATTN_FILE_FAILED && !none &&
              strstr(clattn_last_error(), "options.kernel_dir is \"/no/such/folder\""),
          "%s", clattn_last_error());
    options.kernel_dir = "/"; /* a folder, but none with kernels */
    REQUIRE(clattn_context_create(&none, &options) == CLATTN_OK, "%s", clattn_last_error());
    clattn_attention_desc d = good_desc();
    d.kernel = "attn_naive";
    clattn_attention *plan = NULL;
    CHECK(clattn_attention_create(&plan, none, &d) == CLATTN_UNSUPPORTED &&
              strstr(clattn_last_error(), "//attn_naive.cl"),
          "%s", clattn_last_error());
    clattn_context_destroy(&none);
}

/* The objects that a context works with belong together: its queue takes work on a buffer of its context. */
static void objects(void) {
    cl_context cl = NULL, of_queue = NULL;
    cl_device_id device = NULL, under_queue = NULL;
    cl_command_queue queue = NULL;
    REQUIRE(clattn_context_objects(context, &cl, &device, &queue) == CLATTN_OK, "%s", clattn_last_error());
    clGetCommandQueueInfo(queue, CL_QUEUE_CONTEXT, sizeof of_queue, (void *)&of_queue, NULL);
    clGetCommandQueueInfo(queue, CL_QUEUE_DEVICE, sizeof under_queue, (void *)&under_queue, NULL);
    CHECK(of_queue == cl && under_queue == device, "the queue is of another context or device");
    const float put[2] = {1.5F, -2};
    float got[2] = {0};
    cl_int code = CL_SUCCESS;
    cl_mem mem = clCreateBuffer(cl, CL_MEM_READ_WRITE, sizeof put, NULL, &code);
    REQUIRE(code == CL_SUCCESS, "clCreateBuffer: %d", code);
    CHECK(clEnqueueWriteBuffer(queue, mem, CL_TRUE, 0, sizeof put, put, 0, NULL, NULL) == CL_SUCCESS, "write");
    CHECK(clEnqueueReadBuffer(queue, mem, CL_TRUE, 0, sizeof got, got, 0, NULL, NULL) == CL_SUCCESS, "read");
    CHECK(memcmp(put, got, sizeof put) == 0, "%g %g", got[0], got[1]);
    clReleaseMemObject(mem);
    CHECK(clattn_context_objects(context, NULL, NULL, NULL) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(clattn_context_objects(NULL, &cl, &device, &queue) == CLATTN_INVALID_ARGUMENT, "context NULL");
}

/* A buffer of another context, even of the same device, is none of this one's. */
static void foreign_memory(void) {
    cl_device_id device = NULL;
    cl_int code = CL_SUCCESS;
    REQUIRE(clattn_context_objects(context, NULL, &device, NULL) == CLATTN_OK, "%s", clattn_last_error());
    cl_context other = clCreateContext(NULL, 1, &device, NULL, NULL, &code);
    REQUIRE(code == CL_SUCCESS, "clCreateContext: %d", code);
    cl_mem mem = clCreateBuffer(other, CL_MEM_READ_WRITE, sizeof data, NULL, &code);
    clattn_attention_desc d = good_desc();
    clattn_attention *plan = NULL;
    CHECK(clattn_attention_create(&plan, context, &d) == CLATTN_OK, "%s", clattn_last_error());
    clattn_attention_io io = good_io();
    memset(&io.kv_lengths, 0, sizeof io.kv_lengths);
    CHECK(clattn_attention_run(plan, &io) == CLATTN_OK, "%s", clattn_last_error());
    io.output = clattn_mem(mem, CLATTN_F32, 4, 2, 4, 3, 8);
    CHECK(clattn_attention_run(plan, &io) == CLATTN_INVALID_ARGUMENT && strstr(clattn_last_error(), "another context"),
          "%s", clattn_last_error());
    clattn_attention_destroy(&plan);
    clReleaseMemObject(mem);
    clReleaseContext(other);
}

/* The references read and write host memory; a buffer is refused by its name before anything is touched. */
static void references_on_host(void) {
    static int handle; /* never looked into */
    clattn_attention_desc d = good_desc();
    clattn_attention_io io = good_io();
    memset(&io.kv_lengths, 0, sizeof io.kv_lengths);
    io.key.data = NULL, io.key.mem = &handle;
    CHECK(clattn_reference_attention(&d, &io, NULL) == CLATTN_INVALID_ARGUMENT &&
              strstr(clattn_last_error(), "key is a cl_mem"),
          "%s", clattn_last_error());
    clattn_softmax_desc softmax;
    clattn_softmax_desc_init(&softmax);
    softmax.rank = 1, softmax.shape[0] = 4;
    clattn_softmax_io row = {.x = clattn_host(data, CLATTN_F32, 1, 4, 0, 0, 0), .probability = io.key};
    row.probability.rank = 1, row.probability.shape[0] = 4;
    CHECK(clattn_reference_softmax(&softmax, &row, NULL) == CLATTN_INVALID_ARGUMENT &&
              strstr(clattn_last_error(), "probability is a cl_mem"),
          "%s", clattn_last_error());
}

static void limits(void) {
    clattn_limits first = {0}, second = {0};
    clattn_device_info info;
    size_t before = 0, after = 1;
    CHECK(clattn_context_limits(NULL, &first) == CLATTN_INVALID_ARGUMENT, "context NULL");
    CHECK(clattn_context_limits(context, NULL) == CLATTN_INVALID_ARGUMENT, "limits NULL");
    clattn_context_device(context, &info);
    clattn_context_memory(context, &before, NULL);
    REQUIRE(clattn_context_limits(context, &first) == CLATTN_OK, "%s", clattn_last_error());
    REQUIRE(clattn_context_limits(context, &second) == CLATTN_OK, "%s", clattn_last_error());
    clattn_context_memory(context, &after, NULL);
    CHECK(after == before, "%zu bytes are held, %zu before", after, before);
    /* Dropped work would look thousands of times faster; a busy machine makes it a few times slower. */
    const double unit = second.multiply_add_gflops / (double)info.compute_units;
    CHECK(unit > 0 && unit < 1e4, "%g GFLOP/s per compute unit", unit);
    CHECK(second.read_gbps > 0 && second.read_gbps < 1e5, "%g GB/s", second.read_gbps);
    const double change = second.multiply_add_gflops / first.multiply_add_gflops;
    CHECK(change > 0.05 && change < 20, "%g and then %g GFLOP/s", first.multiply_add_gflops,
          second.multiply_add_gflops);
}

/* A GPU of many units that all are slow: what it is given at a time has to be little, or its desktop stands still. */
static void limits_of_slow_units(void) {
    clattn_limits limits = {0};
    clattn_context *slow = NULL;
    clattn_context_options options;
    clattn_context_options_init(&options);
    options.selector = getenv("CLATTN_DEVICE");
    options.pretend = "type=gpu,compute_units=64";
    REQUIRE(clattn_context_create(&slow, &options) == CLATTN_OK, "%s", clattn_last_error());
    const double start = clattn__os_seconds();
    CHECK(clattn_context_limits(slow, &limits) == CLATTN_OK, "%s", clattn_last_error());
    const double seconds = clattn__os_seconds() - start;
    CHECK(seconds < 10, "%g s", seconds);
    clattn_context_destroy(&slow);
}

int main(int argc, char **argv) {
    static const clattn_test tests[] = {{"attention_descriptions", attention_descriptions},
                                        {"attention_tensors", attention_tensors},
                                        {"layer_descriptions", layer_descriptions},
                                        {"empty_problems", empty_problems},
                                        {"older_structs", older_structs},
                                        {"names", names},
                                        {"contexts", contexts},
                                        {"objects", objects},
                                        {"foreign_memory", foreign_memory},
                                        {"references_on_host", references_on_host},
                                        {"limits", limits},
                                        {"limits_of_slow_units", limits_of_slow_units},
                                        {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"api", tests}, {NULL, NULL}};
    return clattn_test_main_with(&context, CLATTN_VERIFY_ONCE, suites, argc, argv);
}
