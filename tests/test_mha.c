/* The multi-head layer against its reference: every option, every kernel, memory limits, strides, cl_mem views. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clattn/interop.h"
#include "clattn/reference.h"
#include "harness.h"
#include "ocl/ocl.h"

static clattn_context *context;

typedef struct layer {
    const char *name;
    int64_t batch, query_len, kv_len, embed, heads, kdim, vdim;
    clattn_mha_inputs inputs;
    clattn_causal causal;
    clattn_mask_type mask;
    int64_t mask_shape[4];
    bool padding, biases, bias_kv, zero_attn, packed, sequence_first;
    clattn_weights_output weights;
} layer;

static const layer LAYERS[] = {
    {.name = "self", .batch = 3, .query_len = 15, .embed = 48, .heads = 4, .biases = true, .packed = true},
    {.name = "self causal",
     .batch = 2,
     .query_len = 65,
     .embed = 64,
     .heads = 2,
     .causal = CLATTN_CAUSAL_TOP_LEFT,
     .biases = true,
     .packed = true},
    {.name = "self no bias", .batch = 1, .query_len = 7, .embed = 33, .heads = 3},
    {.name = "self padding", .batch = 2, .query_len = 31, .embed = 64, .heads = 4, .padding = true, .biases = true},
    {.name = "self weights",
     .batch = 2,
     .query_len = 17,
     .embed = 24,
     .heads = 3,
     .biases = true,
     .weights = CLATTN_WEIGHTS_AVERAGED},
    {.name = "self weights per head",
     .batch = 2,
     .query_len = 17,
     .embed = 24,
     .heads = 3,
     .padding = true,
     .weights = CLATTN_WEIGHTS_PER_HEAD},
    {.name = "cross",
     .batch = 2,
     .query_len = 9,
     .kv_len = 21,
     .embed = 32,
     .heads = 4,
     .inputs = CLATTN_MHA_CROSS,
     .biases = true,
     .packed = true},
    {.name = "separate kdim vdim",
     .batch = 2,
     .query_len = 8,
     .kv_len = 11,
     .embed = 32,
     .heads = 4,
     .kdim = 20,
     .vdim = 27,
     .inputs = CLATTN_MHA_SEPARATE,
     .biases = true},
    {.name = "bottom-right",
     .batch = 1,
     .query_len = 12,
     .kv_len = 30,
     .embed = 32,
     .heads = 2,
     .inputs = CLATTN_MHA_CROSS,
     .causal = CLATTN_CAUSAL_BOTTOM_RIGHT,
     .biases = true},
    {.name = "bias_kv",
     .batch = 3,
     .query_len = 10,
     .embed = 32,
     .heads = 4,
     .biases = true,
     .bias_kv = true,
     .packed = true},
    {.name = "bias_kv zero_attn masked",
     .batch = 3,
     .query_len = 10,
     .kv_len = 13,
     .embed = 32,
     .heads = 4,
     .inputs = CLATTN_MHA_SEPARATE,
     .mask = CLATTN_MASK_FLOAT,
     .padding = true,
     .biases = true,
     .bias_kv = true,
     .zero_attn = true,
     .weights = CLATTN_WEIGHTS_AVERAGED},
    {.name = "zero_attn causal",
     .batch = 2,
     .query_len = 20,
     .embed = 32,
     .heads = 4,
     .causal = CLATTN_CAUSAL_TOP_LEFT,
     .biases = true,
     .zero_attn = true},
    {.name = "bool mask per head",
     .batch = 2,
     .query_len = 12,
     .kv_len = 19,
     .embed = 32,
     .heads = 4,
     .inputs = CLATTN_MHA_CROSS,
     .mask = CLATTN_MASK_BOOL,
     .mask_shape = {2, 4, 12, 19},
     .biases = true},
    {.name = "float mask per key",
     .batch = 2,
     .query_len = 12,
     .kv_len = 19,
     .embed = 32,
     .heads = 4,
     .inputs = CLATTN_MHA_CROSS,
     .mask = CLATTN_MASK_FLOAT,
     .mask_shape = {2, 1, 1, 19},
     .biases = true},
    {.name = "sequence first",
     .batch = 3,
     .query_len = 14,
     .kv_len = 9,
     .embed = 40,
     .heads = 5,
     .inputs = CLATTN_MHA_SEPARATE,
     .biases = true,
     .packed = true,
     .sequence_first = true,
     .causal = CLATTN_CAUSAL_TOP_LEFT},
    {.name = "no batch", .batch = 0, .query_len = 14, .embed = 40, .heads = 5, .biases = true},
    {.name = "no keys",
     .batch = 2,
     .query_len = 5,
     .kv_len = 0,
     .embed = 16,
     .heads = 2,
     .inputs = CLATTN_MHA_CROSS,
     .biases = true},
};
enum { LAYER_COUNT = sizeof LAYERS / sizeof *LAYERS };

/* One case's memory; everything is on the heap behind guards. */
typedef struct stage {
    clattn_mha_desc desc;
    clattn_mha_weights weights;
    clattn_mha_io io;
    float *memory[20];
    uint8_t *bytes[2];
    int floats;
    float *want, *want_weights, *tolerance;
    int64_t out_count, weights_count;
} stage;

static float *normal(stage *s, clattn_random *random, int64_t count, double size) {
    float *values = clattn_guard_alloc((size_t)count * sizeof *values);
    clattn_fill_normal(random, values, count, size);
    return s->memory[s->floats++] = values;
}

static clattn_tensor input(stage *s, clattn_random *random, bool sequence_first, int64_t batch, int64_t length,
                           int64_t width) {
    clattn_tensor t = clattn_host(normal(s, random, batch * length * width, 1), CLATTN_F32, 3, batch, length, width, 0);
    if (sequence_first) t.stride[0] = width, t.stride[1] = batch * width, t.stride[2] = 1;
    return t;
}

static void make_masks(stage *s, clattn_random *random, const layer *l) {
    const clattn_mha_desc *d = &s->desc;
    if (l->mask != CLATTN_MASK_NONE) {
        int64_t shape[4] = {1, 1, d->query_len, d->kv_len};
        if (l->mask_shape[3]) memcpy(shape, l->mask_shape, sizeof shape);
        int64_t count = shape[0] * shape[1] * shape[2] * shape[3];
        if (l->mask == CLATTN_MASK_BOOL) {
            s->bytes[0] = clattn_guard_alloc((size_t)count);
            for (int64_t i = 0; i < count; i++) s->bytes[0][i] = clattn_random_uniform(random, 0, 1) < 0.7;
            s->io.mask = clattn_host(s->bytes[0], CLATTN_BOOL, 4, shape[0], shape[1], shape[2], shape[3]);
        } else {
            float *mask = normal(s, random, count, 1);
            for (int64_t i = 0; i < count; i += 3) mask[i] = -INFINITY;
            s->io.mask = clattn_host(mask, CLATTN_F32, 4, shape[0], shape[1], shape[2], shape[3]);
        }
    }
    if (l->padding) {
        s->bytes[1] = clattn_guard_alloc((size_t)(d->batch * d->kv_len));
        for (int64_t i = 0; i < d->batch * d->kv_len; i++)
            s->bytes[1][i] = i % d->kv_len < d->kv_len - 1 - i / d->kv_len;
        s->io.padding_mask = clattn_host(s->bytes[1], CLATTN_BOOL, 2, d->batch, d->kv_len, 0, 0);
    }
}

static void make_weights(stage *s, clattn_random *random, const layer *l) {
    const int64_t E = l->embed, kdim = l->kdim ? l->kdim : E, vdim = l->vdim ? l->vdim : E;
    const double size = 1 / sqrt((double)E);
    clattn_mha_weights *w = &s->weights;
    if (l->packed) {
        w->in_proj_weight = clattn_host(normal(s, random, 3 * E * E, size), CLATTN_F32, 2, 3 * E, E, 0, 0);
        if (l->biases) w->in_proj_bias = clattn_host(normal(s, random, 3 * E, 1), CLATTN_F32, 1, 3 * E, 0, 0, 0);
    } else {
        w->q_proj_weight = clattn_host(normal(s, random, E * E, size), CLATTN_F32, 2, E, E, 0, 0);
        w->k_proj_weight = clattn_host(normal(s, random, E * kdim, size), CLATTN_F32, 2, E, kdim, 0, 0);
        w->v_proj_weight = clattn_host(normal(s, random, E * vdim, size), CLATTN_F32, 2, E, vdim, 0, 0);
        if (l->biases) {
            w->q_proj_bias = clattn_host(normal(s, random, E, 1), CLATTN_F32, 1, E, 0, 0, 0);
            w->v_proj_bias = clattn_host(normal(s, random, E, 1), CLATTN_F32, 1, E, 0, 0, 0); /* the key has none */
        }
    }
    w->out_proj_weight = clattn_host(normal(s, random, E * E, size), CLATTN_F32, 2, E, E, 0, 0);
    if (l->biases) w->out_proj_bias = clattn_host(normal(s, random, E, 1), CLATTN_F32, 1, E, 0, 0, 0);
    if (l->bias_kv) {
        w->bias_k = clattn_host(normal(s, random, E, 1), CLATTN_F32, 1, E, 0, 0, 0);
        w->bias_v = clattn_host(normal(s, random, E, 1), CLATTN_F32, 1, E, 0, 0, 0);
    }
}

/* Description, weights, inputs and the reference's answer. */
static bool make(stage *s, const layer *l) {
    memset(s, 0, sizeof *s);
    clattn_random random = {20 + (uint64_t)(l - LAYERS)};
    clattn_mha_desc *d = &s->desc;
    clattn_mha_desc_init(d);
    d->batch = l->batch;
    d->query_len = l->query_len;
    d->kv_len = l->inputs == CLATTN_MHA_SELF || l->kv_len || strcmp(l->name, "no keys") == 0 ? l->kv_len : l->query_len;
    if (l->inputs == CLATTN_MHA_SELF) d->kv_len = l->query_len;
    d->embed_dim = l->embed;
    d->heads = l->heads;
    d->key_dim = l->kdim;
    d->value_dim = l->vdim;
    d->inputs = l->inputs;
    d->causal = l->causal;
    d->mask = l->mask;
    memcpy(d->mask_shape, l->mask_shape, sizeof d->mask_shape);
    d->padding_mask = l->padding;
    d->add_zero_attn = l->zero_attn;
    d->weights = l->weights;
    make_weights(s, &random, l);
    s->io.query = input(s, &random, l->sequence_first, d->batch, d->query_len, l->embed);
    if (l->inputs != CLATTN_MHA_SELF)
        s->io.key = input(s, &random, l->sequence_first, d->batch, d->kv_len, l->kdim ? l->kdim : l->embed);
    if (l->inputs == CLATTN_MHA_SEPARATE)
        s->io.value = input(s, &random, l->sequence_first, d->batch, d->kv_len, l->vdim ? l->vdim : l->embed);
    make_masks(s, &random, l);
    const int64_t T = d->kv_len + l->bias_kv + l->zero_attn, rows = d->batch * d->query_len;
    s->out_count = rows * l->embed;
    s->want = clattn_guard_alloc((size_t)s->out_count * sizeof(float));
    s->tolerance = clattn_guard_alloc((size_t)s->out_count * sizeof(float));
    s->io.output = clattn_host(s->want, CLATTN_F32, 3, d->batch, d->query_len, l->embed, 0);
    if (l->weights != CLATTN_WEIGHTS_NONE) {
        const bool averaged = l->weights == CLATTN_WEIGHTS_AVERAGED;
        s->weights_count = rows * T * (averaged ? 1 : l->heads);
        s->want_weights = clattn_guard_alloc((size_t)s->weights_count * sizeof(float));
        s->io.weights = averaged ? clattn_host(s->want_weights, CLATTN_F32, 3, d->batch, d->query_len, T, 0)
                                 : clattn_host(s->want_weights, CLATTN_F32, 4, d->batch, l->heads, d->query_len, T);
    }
    return CHECK(clattn_reference_mha(d, &s->weights, &s->io, s->tolerance) == CLATTN_OK, "%s: reference: %s", l->name,
                 clattn_last_error());
}

static void drop(stage *s) {
    for (int i = 0; i < s->floats; i++) {
        CHECK(clattn_guard_intact(s->memory[i]), "something wrote beside input %d", i);
        clattn_guard_free(s->memory[i]);
    }
    for (int i = 0; i < 2; i++) clattn_guard_free(s->bytes[i]);
    clattn_guard_free(s->want);
    clattn_guard_free(s->want_weights);
    clattn_guard_free(s->tolerance);
}

/* Runs one description on the device and compares; what names it in messages. */
static void run(stage *s, const clattn_mha_desc *d, const char *what) {
    clattn_mha *mha = NULL;
    if (!CHECK(clattn_mha_create(&mha, context, d, &s->weights) == CLATTN_OK, "%s: %s", what, clattn_last_error()))
        return;
    float *got = clattn_guard_alloc((size_t)s->out_count * sizeof *got), *got_weights = NULL;
    clattn_mha_io io = s->io;
    io.output.data = got;
    if (s->want_weights) io.weights.data = got_weights = clattn_guard_alloc((size_t)s->weights_count * sizeof *got);
    for (int twice = 0; twice < 2; twice++) {
        clattn_poison(got, (size_t)s->out_count * sizeof *got);
        CHECK(clattn_mha_run(mha, &io) == CLATTN_OK, "%s: %s", what, clattn_last_error());
        clattn_check_close(got, s->want, s->tolerance, 0, s->out_count, what);
        if (got_weights) clattn_check_close(got_weights, s->want_weights, NULL, 3e-6, s->weights_count, what);
    }
    CHECK(clattn_guard_intact(got), "%s: wrote beside the output", what);
    if (got_weights) CHECK(clattn_guard_intact(got_weights), "%s: wrote beside the weights", what);
    clattn_plan_info info;
    CHECK(clattn_mha_info(mha, &info) == CLATTN_OK && (d->memory_limit == 0 || info.arena_bytes <= d->memory_limit),
          "%s: the arena takes %zu bytes of %zu", what, info.arena_bytes, d->memory_limit);
    clattn_guard_free(got);
    clattn_guard_free(got_weights);
    clattn_mha_destroy(&mha);
}

static void every_option(void) {
    for (int i = 0; i < LAYER_COUNT; i++) {
        stage s;
        if (make(&s, &LAYERS[i])) run(&s, &s.desc, LAYERS[i].name);
        drop(&s);
    }
}

static void every_kernel(void) {
    static const char *const gemms[] = {"gemm_cpu", "gemm_tiled", "gemm_host"}, *const attentions[] = {"attn_tiled",
                                                                                                       "attn_naive",
                                                                                                       "attn_host"};
    static const int some[] = {1, 7, 10};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        stage s;
        if (make(&s, &LAYERS[some[i]]))
            for (size_t k = 0; k < 3; k++) {
                clattn_mha_desc d = s.desc;
                char what[96];
                d.gemm_kernel = gemms[k];
                d.attention_kernel = some[i] == 10 && k == 0 ? "attn_naive" : attentions[k];
                snprintf(what, sizeof what, "%s by %s and %s", LAYERS[some[i]].name, d.gemm_kernel, d.attention_kernel);
                clattn_device_info info;
                clattn_context_device(context, &info);
                if (k == 0 && info.type != CLATTN_DEVICE_CPU) continue;
                if (some[i] == 10 && k == 0) d.attention_kernel = "attn_naive";
                run(&s, &d, what);
            }
        drop(&s);
    }
}

static void memory_limits(void) {
    static const int some[] = {1, 4, 10, 13};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        stage s;
        if (make(&s, &LAYERS[some[i]])) {
            clattn_mha_desc d = s.desc;
            clattn_mha *mha = NULL;
            d.memory_limit = 1;
            CHECK(clattn_mha_create(&mha, context, &d, &s.weights) == CLATTN_MEMORY_LIMIT && !mha,
                  "a limit of one byte was accepted");
            const char *least = strstr(clattn_last_error(), "least that works is ");
            REQUIRE(least != NULL, "error was: %s", clattn_last_error());
            d.memory_limit = (size_t)strtoull(least + strlen("least that works is "), NULL, 10);
            run(&s, &d, "the least memory that works");
            d.memory_limit += d.memory_limit / 2;
            run(&s, &d, "half as much again");
            d.memory_limit *= 2;
            run(&s, &d, "three times the least");
        }
        drop(&s);
    }
}

static void schedule_rows(void) {
    stage s;
    if (make(&s, &LAYERS[1])) {
        clattn_mha *mha = NULL;
        clattn_mha_desc d = s.desc;
        clattn_plan_info info;
        d.memory_limit = 40000;
        REQUIRE(clattn_mha_create(&mha, context, &d, &s.weights) == CLATTN_OK, "%s", clattn_last_error());
        clattn_mha_info(mha, &info);
        size_t highest = 0;
        for (int i = 0; i < info.buffers; i++) {
            clattn_plan_buffer a, b;
            CHECK(clattn_mha_buffer(mha, i, &a) == CLATTN_OK && a.first_step <= a.last_step && a.last_step < info.steps,
                  "row %d", i);
            CHECK(strstr(clattn_mha_explain(mha), a.name) != NULL, "explain does not show %s", a.name);
            if (a.offset + a.bytes > highest) highest = a.offset + a.bytes;
            for (int j = 0; j < i; j++) {
                clattn_mha_buffer(mha, j, &b);
                bool together = a.first_step <= b.last_step && b.first_step <= a.last_step;
                CHECK(!together || a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset,
                      "%s and %s overlap", a.name, b.name);
            }
        }
        CHECK(highest == info.arena_bytes && info.unshared_bytes >= info.arena_bytes, "peak %zu, arena %zu", highest,
              info.arena_bytes);
        clattn_plan_buffer row;
        CHECK(clattn_mha_buffer(mha, info.buffers, &row) == CLATTN_INVALID_ARGUMENT, "a row too many");
        clattn_mha_destroy(&mha);
    }
    drop(&s);
}

/* The same layer through the caller's own objects: cl_mem in and out, chained by events. */
static void callers_buffers(void) {
    stage s;
    if (make(&s, &LAYERS[0])) {
        clattn_device_list *list = NULL;
        int index = 0;
        REQUIRE(clattn_device_list_create(&list) == CLATTN_OK, "%s", clattn_last_error());
        clattn_device_list_select(list, getenv("CLATTN_DEVICE"), &index);
        clattn_device_info wanted;
        clattn_device_list_get(list, index, &wanted);
        cl_platform_id platforms[8];
        cl_uint count = 0;
        cl_device_id device = NULL;
        clGetPlatformIDs(8, platforms, &count);
        for (cl_uint p = 0; p < count && p < 8 && !device; p++) {
            cl_device_id id = NULL;
            char name[256] = "", platform[256] = "";
            if (clGetDeviceIDs(platforms[p], CL_DEVICE_TYPE_ALL, 1, &id, NULL) != CL_SUCCESS) continue;
            clGetDeviceInfo(id, CL_DEVICE_NAME, sizeof name, name, NULL);
            clGetPlatformInfo(platforms[p], CL_PLATFORM_NAME, sizeof platform, platform, NULL);
            if (strcmp(platform, wanted.platform) == 0 && strstr(name, wanted.name)) device = id;
        }
        clattn_device_list_destroy(&list);
        REQUIRE(device != NULL, "the device was not found by hand");
        cl_context cl = clCreateContext(NULL, 1, &device, NULL, NULL, NULL);
        cl_command_queue queue = clCreateCommandQueue(cl, device, 0, NULL);
        clattn_context *own = NULL;
        CHECK(clattn_context_create_from(&own, cl, device, NULL, NULL) == CLATTN_INVALID_ARGUMENT,
              "no queue was accepted");
        REQUIRE(clattn_context_create_from(&own, cl, device, queue, NULL) == CLATTN_OK, "%s", clattn_last_error());
        clattn_mha *mha = NULL;
        REQUIRE(clattn_mha_create(&mha, own, &s.desc, &s.weights) == CLATTN_OK, "%s", clattn_last_error());
        const size_t bytes = (size_t)s.out_count * sizeof(float), shift = 5 * sizeof(float);
        cl_mem in = clCreateBuffer(cl, CL_MEM_READ_ONLY, bytes + shift, NULL, NULL),
               out = clCreateBuffer(cl, CL_MEM_READ_WRITE, bytes, NULL, NULL);
        cl_event written = NULL, done = NULL;
        clEnqueueWriteBuffer(queue, in, CL_FALSE, shift, bytes, s.io.query.data, 0, NULL, &written);
        clattn_mha_io io = {.query = clattn_mem(in, CLATTN_F32, 3, s.desc.batch, s.desc.query_len, s.desc.embed_dim, 0),
                            .output =
                                clattn_mem(out, CLATTN_F32, 3, s.desc.batch, s.desc.query_len, s.desc.embed_dim, 0)};
        io.query.offset = 5;
        CHECK(clattn_mha_enqueue(mha, &io, 1, &written, &done) == CLATTN_OK, "%s", clattn_last_error());
        float *got = clattn_guard_alloc(bytes);
        CHECK(clEnqueueReadBuffer(queue, out, CL_TRUE, 0, bytes, got, 1, &done, NULL) == CL_SUCCESS, "read");
        clattn_check_close(got, s.want, s.tolerance, 0, s.out_count, "cl_mem in and out");
        io.query.offset = 6;
        CHECK(clattn_mha_run(mha, &io) == CLATTN_INVALID_SHAPE, "a view beyond its cl_mem was accepted");
        clattn_guard_free(got);
        clReleaseEvent(written);
        clReleaseEvent(done);
        clReleaseMemObject(in);
        clReleaseMemObject(out);
        clattn_mha_destroy(&mha);
        clattn_context_destroy(&own);
        clReleaseCommandQueue(queue);
        clReleaseContext(cl);
    }
    drop(&s);
}

/* Attention over 16384 keys must not make a matrix of scores. */
static void memory_of_long_attention(void) {
    enum { S = 16384, D = 64 };
    clattn_attention_desc desc;
    clattn_attention_desc_init(&desc);
    desc.batch = desc.query_heads = 1;
    desc.query_len = desc.kv_len = S;
    desc.head_dim = D;
    size_t before, peak;
    clattn_context_memory(context, &before, NULL);
    clattn_attention *plan = NULL;
    REQUIRE(clattn_attention_create(&plan, context, &desc) == CLATTN_OK, "%s", clattn_last_error());
    clattn_plan_info info;
    clattn_attention_info(plan, &info);
    clattn_context_memory(context, NULL, &peak);
    CHECK(info.held_bytes < (size_t)64 << 20 && peak < (size_t)64 << 20, "the plan holds %zu bytes, peak %zu",
          info.held_bytes, peak);
    clattn_attention_destroy(&plan);
    size_t after;
    clattn_context_memory(context, &after, NULL);
    CHECK(after == before, "%zu bytes before, %zu after", before, after);
}

int main(int argc, char **argv) {
    static const clattn_test layer_tests[] = {{"every_option", every_option},
                                              {"every_kernel", every_kernel},
                                              {"memory_limits", memory_limits},
                                              {"schedule_rows", schedule_rows},
                                              {"callers_buffers", callers_buffers},
                                              {"memory_of_long_attention", memory_of_long_attention},
                                              {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"mha", layer_tests}, {NULL, NULL}};
    return clattn_test_main_with(&context, CLATTN_VERIFY_ONCE, suites, argc, argv);
}
