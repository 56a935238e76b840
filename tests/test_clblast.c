/* CLBlast as a guest: its tuning parameters as given by the user, and products that keep their place in the queue. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clattn/interop.h"
#include "clattn/reference.h"
#include "clblast_small.h"
#include "harness.h"
#include "ref/ref.h"
#include "registry/registry.h"

static clattn_status open_with(const char *parameters, int compute_units, clattn_context **context) {
    clattn_context_options options;
    clattn_context_options_init(&options);
    options.selector = getenv("CLATTN_DEVICE");
    options.cache_dir = "";
    options.pretend = "type=gpu";
    options.compute_units = compute_units;
    options.clblast_parameters = parameters;
    return clattn_context_create(context, &options);
}

/* What is wrong is named, with its value and its rule; nothing of it reaches CLBlast. */
static void test_errors(void) {
    static const struct {
        const char *text, *says[3];
    } cases[] = {
        {"Sgemm KWG=16", {"a kernel is \"Sgemm\"", "Xgemm, XgemmDirect, GemmRoutine"}},
        {"GemmRoutine MWG=16", {"a parameter of GemmRoutine is \"MWG\"", "XGEMM_MIN_INDIRECT_SIZE"}},
        {"GemmRoutine", {"XGEMM_MIN_INDIRECT_SIZE of GemmRoutine is missing"}},
        {"GemmRoutine XGEMM_MIN_INDIRECT_SIZE", {"no NAME=VALUE"}},
        {"GemmRoutine XGEMM_MIN_INDIRECT_SIZE=-1", {"is \"-1\"", "0..65536"}},
        {"GemmRoutine XGEMM_MIN_INDIRECT_SIZE=1x", {"is \"1x\""}},
        {"GemmRoutine XGEMM_MIN_INDIRECT_SIZE=", {"is \"\""}},
        {"GemmRoutine XGEMM_MIN_INDIRECT_SIZE=99999999999999999999", {"0..65536"}},
        {"GemmRoutine XGEMM_MIN_INDIRECT_SIZE=1 XGEMM_MIN_INDIRECT_SIZE=1", {"given twice"}},
        {"# all\n" XGEMM_BUT_WIDTH " MWG=16\n", {"VWM of Xgemm is missing"}},
        {XGEMM_BUT_WIDTH " MWG=0 VWM=2", {"MWG of Xgemm is \"0\"", "1..1024"}},
        {XGEMM_BUT_WIDTH " MWG=16 VWM=3", {"VWM of Xgemm is \"3\"", "1, 2, 4, 8 or 16"}},
        {XGEMM_BUT_WIDTH " MWG=20 VWM=2", {"MWG of Xgemm is 20", "multiple of MDIMC * VWM, 8"}},
        {DIRECT ";" XGEMM_BUT_WIDTH " MWG=16 VWM=8", {"MWG of Xgemm is 16", "MDIMC * VWM, 32"}},
    };
    for (size_t i = 0; i < CLATTN__COUNT(cases); i++) {
        clattn_context *context = NULL;
        clattn_status status = open_with(cases[i].text, 0, &context);
        CHECK(status == CLATTN_INVALID_ARGUMENT && !context, "%s: status %d", cases[i].text, (int)status);
        CHECK(strstr(clattn_last_error(), "options.clblast_parameters"), "%s", clattn_last_error());
        for (int s = 0; s < 3 && cases[i].says[s]; s++)
            CHECK(strstr(clattn_last_error(), cases[i].says[s]), "\"%s\" is not in: %s", cases[i].says[s],
                  clattn_last_error());
        clattn_context_destroy(&context);
    }
}

#ifdef CLATTN_WITH_CLBLAST
enum { M = 70, N = 50, K = 450 };
static float product_x[M * K], product_w[N * K], product_y[M * N]; /* (M, K), (N, K), (M, N) */

/* Chooses CLBlast for y = x W^T, which verifies it. */
static clattn_status choose(clattn_context *context, clattn__gemm_kernel *kernel) {
    const clattn__gemm_problem problem = {.m = M, .n = N, .k = K, .width = N, .dtype = CLATTN_F32};
    clattn_random random = {11};
    clattn__text notes = {0};
    clattn_fill_normal(&random, product_x, M * K, 1);
    clattn_fill_normal(&random, product_w, N * K, 0.1);
    clattn_status status = clattn__gemm_choose(context, &problem, "gemm_clblast", product_w, K, NULL, kernel, &notes);
    clattn__text_free(&notes);
    return status;
}

static void check_product(void) {
    static double want[M * N];
    static float tolerance[M * N], expected[M * N];
    clattn__ref_linear(product_x, K, product_w, NULL, want, N, M, N, K);
    for (int i = 0; i < M * N; i++) {
        double size = 0;
        for (int k = 0; k < K; k++) size += fabs((double)product_x[i / N * K + k] * product_w[i % N * K + k]);
        expected[i] = (float)want[i];
        tolerance[i] = (float)(clattn__ref_rounding(K, size, want[i]) + 0x1p-24 * fabs(want[i]));
    }
    clattn_check_close(product_y, expected, tolerance, 0, M * N, "a product of CLBlast");
}

/* A product waits for what is before it in the queue, and what is behind it waits for the product: the call returns
 * while a gate holds the queue, and a marker behind it is complete only when the result is there. Returns the number of
 * launches. */
static int check_order(clattn_context *context, clattn__gemm_kernel *kernel) {
    clattn__env *env = &context->env;
    clattn__buffer from = {0}, to = {0};
    cl_event gate = clCreateUserEvent(env->context, NULL), marker = NULL;
    cl_int state = CL_COMPLETE;
    clattn_status status = clattn__buffer_create(env, sizeof product_x, &from);
    if (status == CLATTN_OK) status = clattn__buffer_create(env, sizeof product_y, &to);
    CHECK(status == CLATTN_OK && clEnqueueBarrierWithWaitList(env->queue, 1, &gate, NULL) == CL_SUCCESS, "%s",
          clattn_last_error());
    /* x is not there before the gate opens */
    cl_int code = clEnqueueWriteBuffer(env->queue, from.mem, CL_FALSE, 0, sizeof product_x, product_x, 0, NULL, NULL);
    const clattn__gemm_call call = {.args = {.x = {.row = K, .batch = M * K},
                                             .y = {.row = N, .batch = M * N, .head = N},
                                             .m = M,
                                             .n = N,
                                             .k = K,
                                             .rows = M,
                                             .width = N,
                                             .part_columns = N},
                                    .x = from.mem,
                                    .y = to.mem};
    clattn_test_launches();
    CHECK(kernel->impl->enqueue(kernel, &call) == CLATTN_OK, "%s", clattn_last_error());
    const int launches = clattn_test_launches();
    if (code == CL_SUCCESS) code = clEnqueueMarkerWithWaitList(env->queue, 0, NULL, &marker);
    if (code == CL_SUCCESS) code = clFlush(env->queue);
    if (code == CL_SUCCESS)
        code = clGetEventInfo(marker, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL);
    CHECK(code == CL_SUCCESS && state != CL_COMPLETE, "code %d, state %d: it did not wait for the gate", code, state);
    clSetUserEventStatus(gate, CL_COMPLETE);
    CHECK(clattn__event_wait(env, marker) == CLATTN_OK, "%s", clattn_last_error());
    status = clattn__buffer_read(env, to.mem, 0, sizeof product_y, product_y);
    CHECK(status == CLATTN_OK, "%s", clattn_last_error());
    check_product();
    if (marker) clReleaseEvent(marker);
    clReleaseEvent(gate);
    clattn__buffer_clear(env, &from);
    clattn__buffer_clear(env, &to);
    return launches;
}

/* Rows go in parts where all of them would take a slow device more than 200 ms. */
static void test_short_launches(void) {
    static const char *const devices[] = {"type=gpu,vendor=other,compute_units=40,clock_mhz=2000",
                                          "type=gpu,vendor=other,compute_units=1,clock_mhz=1"};
    int launches[2] = {0};
    for (int i = 0; i < 2; i++) {
        clattn_context_options options;
        clattn_context *context = NULL;
        clattn__gemm_kernel kernel = {0};
        clattn_context_options_init(&options);
        options.selector = getenv("CLATTN_DEVICE");
        options.cache_dir = "";
        options.pretend = devices[i];
        REQUIRE(clattn_context_create(&context, &options) == CLATTN_OK, "%s", clattn_last_error());
        if (CHECK(choose(context, &kernel) == CLATTN_OK, "%s", clattn_last_error()))
            launches[i] = check_order(context, &kernel);
        clattn__gemm_kernel_clear(&kernel);
        clattn_context_destroy(&context);
    }
    CHECK(launches[0] >= 1 && launches[1] == 5 * launches[0], "%d launches on a fast device, %d on a slow one",
          launches[0], launches[1]);
}

/* Both kernels of CLBlast, the large one for every size; then other parameters are too late. */
static void test_override(void) {
    clattn_context *context = NULL, *other = NULL;
    clattn__gemm_kernel kernel = {0};
    char key[33], same[33];
    REQUIRE(open_with(XGEMM "\n" DIRECT " # small\n GemmRoutine XGEMM_MIN_INDIRECT_SIZE=0", 0, &context) == CLATTN_OK,
            "%s", clattn_last_error());
    clattn__clblast_key(&context->env, key);
    CHECK(strlen(key) == 32, "the key is \"%s\"", key);
    if (CHECK(choose(context, &kernel) == CLATTN_OK, "%s", clattn_last_error())) {
        CHECK(strstr(kernel.tiles, "Xgemm overridden, XgemmDirect overridden, GemmRoutine overridden"), "%s",
              kernel.tiles);
        CHECK(strstr(kernel.variant, key), "trusted as \"%s\"", kernel.variant);
        check_order(context, &kernel);
    }
    CHECK(open_with(XGEMM, 0, &other) == CLATTN_INVALID_ARGUMENT, "other parameters while these are in use");
    CHECK(strstr(clattn_last_error(), "MWG=16") && strstr(clattn_last_error(), "already"), "%s", clattn_last_error());
    CHECK(open_with(NULL, 0, &other) == CLATTN_OK, "%s", clattn_last_error());
    clattn__clblast_key(&other->env, same);
    CHECK(strcmp(key, same) == 0, "a context without parameters works with those in force: \"%s\", \"%s\"", key, same);
    clattn_context_destroy(&other);
    CHECK(open_with(DIRECT "; GemmRoutine XGEMM_MIN_INDIRECT_SIZE=0; " XGEMM, 0, &other) == CLATTN_OK, "%s",
          clattn_last_error());
    clattn_context_destroy(&other);
    clattn__gemm_kernel_clear(&kernel);
    clattn_context_destroy(&context);
}

/* A part of the device is a device of its own. There CLBlast gets a work-group that no device takes: it uses what
 * it is given, and the kernel is passed over. */
static void test_override_too_large(void) {
    clattn_context *context = NULL;
    clattn__gemm_kernel kernel = {0};
    char key[33];
    clattn_status status =
        open_with("GemmRoutine XGEMM_MIN_INDIRECT_SIZE=0; Xgemm GEMMK=0 KREG=1 KWG=128 KWI=1 MDIMA=128 "
                  "MDIMC=128 NDIMB=128 NDIMC=128 NWG=128 SA=0 SB=0 STRM=0 STRN=0 VWN=1 MWG=128 "
                  "VWM=1",
                  1, &context);
    if (status == CLATTN_UNSUPPORTED) {
        clattn_test_skip("this device cannot be divided");
        return;
    }
    REQUIRE(status == CLATTN_OK, "%s", clattn_last_error());
    /* whole blocks, so that CLBlast has nothing to pad, and no kernels for that to be compiled */
    const clattn__gemm_problem problem = {.m = 128, .n = 128, .k = 128, .width = 128, .dtype = CLATTN_F32};
    clattn__text notes = {0};
    status = clattn__gemm_choose(context, &problem, "gemm_clblast", product_w, 128, NULL, &kernel, &notes);
    CHECK(status == CLATTN_UNSUPPORTED && strstr(clattn_last_error(), "CLBlastSgemm"), "%s", clattn_last_error());
    clattn__text_free(&notes);
    clattn__clblast_key(&context->env, key);
    CHECK(key[0] != '\0', "in force all the same");
    clattn__gemm_kernel_clear(&kernel);
    clattn_context_destroy(&context);
}
/* ---- layers ------------------------------------------------------------------------------------------------------ */

enum { B = 2, L = 19, H = 2, E = 24 };
static float input[B * L * E], packed[3 * E * E], packed_bias[3 * E], out_weight[E * E], out_bias[E], appended[2 * E];
static float got[B * L * E], want[B * L * E], tolerance[B * L * E];

static clattn_mha_weights fill_layer(void) {
    clattn_random random = {3};
    clattn_fill_normal(&random, input, B * L * E, 1);
    clattn_fill_normal(&random, packed, 3 * E * E, 0.2);
    clattn_fill_normal(&random, packed_bias, 3 * E, 0.5);
    clattn_fill_normal(&random, out_weight, E * E, 0.2);
    clattn_fill_normal(&random, out_bias, E, 0.5);
    clattn_fill_normal(&random, appended, 2 * E, 1);
    return (clattn_mha_weights){.in_proj_weight = clattn_host(packed, CLATTN_F32, 2, 3 * E, E, 0, 0),
                                .in_proj_bias = clattn_host(packed_bias, CLATTN_F32, 1, 3 * E, 0, 0, 0),
                                .out_proj_weight = clattn_host(out_weight, CLATTN_F32, 2, E, E, 0, 0),
                                .out_proj_bias = clattn_host(out_bias, CLATTN_F32, 1, E, 0, 0, 0)};
}

static clattn_mha_desc describe_layer(void) {
    clattn_mha_desc d;
    clattn_mha_desc_init(&d);
    d.batch = B, d.query_len = L, d.embed_dim = E, d.heads = H;
    d.causal = CLATTN_CAUSAL_TOP_LEFT;
    return d;
}

static void check_layer(clattn_context *context, const clattn_mha_desc *d, const clattn_mha_weights *w,
                        const clattn_tensor *query, const char *what) {
    clattn_mha *mha = NULL;
    clattn_plan_info info;
    clattn_mha_io io = {.query = *query, .output = clattn_host(want, CLATTN_F32, 3, B, L, E, 0)};
    CHECK(clattn_reference_mha(d, w, &io, tolerance) == CLATTN_OK, "%s: %s", what, clattn_last_error());
    io.output.data = got;
    memset(got, 0xff, sizeof got); /* NaN */
    clattn_status status = clattn_mha_create(&mha, context, d, w);
    if (status == CLATTN_OK) status = clattn_mha_run(mha, &io);
    if (CHECK(status == CLATTN_OK, "%s: %s", what, clattn_last_error())) {
        clattn_check_close(got, want, tolerance, 0, B * L * E, what);
        CHECK(clattn_mha_info(mha, &info) == CLATTN_OK && strncmp(info.kernels, "gemm_clblast, ", 14) == 0 &&
                  !strstr(info.kernels, "gemm_tiled"),
              "%s: by %s", what, info.kernels);
    }
    clattn_mha_destroy(&mha);
}

/* On a GPU in float32 all projections of a layer are CLBlast's: heads and parts side by side, a product for each batch
 * entry where appended keys or the caller's strides leave gaps, and head groups added up under a memory limit. */
static void test_layers(void) {
    clattn_context *context = NULL;
    REQUIRE(open_with(NULL, 0, &context) == CLATTN_OK, "%s", clattn_last_error());
    clattn_mha_weights w = fill_layer();
    clattn_mha_desc d = describe_layer();
    clattn_tensor query = clattn_host(input, CLATTN_F32, 3, B, L, E, 0);
    check_layer(context, &d, &w, &query, "self-attention");
    query.stride[0] = E, query.stride[1] = B * E, query.stride[2] = 1; /* (L, B, E) in memory */
    check_layer(context, &d, &w, &query, "sequence first");
    d.memory_limit = 4 * 4096 + 4 * L * E * (int)sizeof(float) - 1;
    check_layer(context, &d, &w, &query, "memory limit");
    d.memory_limit = 0;
    w.bias_k = clattn_host(appended, CLATTN_F32, 1, E, 0, 0, 0);
    w.bias_v = clattn_host(appended + E, CLATTN_F32, 1, E, 0, 0, 0);
    check_layer(context, &d, &w, &query, "appended keys");
    clattn_context_destroy(&context);
}

/* An event of the wait list that fails makes the event of the run fail. */
static void test_failure(void) {
    clattn_context *context = NULL;
    clattn_mha *mha = NULL;
    clattn__buffer from = {0}, to = {0};
    cl_event done = NULL;
    REQUIRE(open_with(NULL, 0, &context) == CLATTN_OK, "%s", clattn_last_error());
    clattn__env *env = &context->env;
    if (env->device.caps.runtime == CLATTN__RUNTIME_POCL) {
        clattn_test_skip("pocl 3.1 ends the process when an event fails that others wait for");
        clattn_context_destroy(&context);
        return;
    }
    const clattn_mha_weights w = fill_layer();
    const clattn_mha_desc d = describe_layer();
    cl_event gate = clCreateUserEvent(env->context, NULL);
    clattn_status status = clattn_mha_create(&mha, context, &d, &w);
    if (status == CLATTN_OK) status = clattn__buffer_create(env, sizeof input, &from);
    if (status == CLATTN_OK) status = clattn__buffer_create(env, sizeof got, &to);
    if (status == CLATTN_OK) status = clattn__buffer_write(env, from.mem, 0, sizeof input, input);
    const clattn_mha_io io = {.query = clattn_mem(from.mem, CLATTN_F32, 3, B, L, E, 0),
                              .output = clattn_mem(to.mem, CLATTN_F32, 3, B, L, E, 0)};
    if (status == CLATTN_OK) status = clattn_mha_enqueue(mha, &io, 1, &gate, &done);
    CHECK(status == CLATTN_OK, "%s", clattn_last_error());
    clSetUserEventStatus(gate, CL_OUT_OF_RESOURCES);
    if (done) {
        status = clattn__event_wait(env, done);
        CHECK(status == CLATTN_DEVICE_FAILED, "status %d", (int)status);
        clReleaseEvent(done);
    }
    clReleaseEvent(gate);
    clattn__buffer_clear(env, &from);
    clattn__buffer_clear(env, &to);
    clattn_mha_destroy(&mha);
    clattn_context_destroy(&context);
}
#else
static void test_override(void) {
    clattn_context *context = NULL;
    CHECK(open_with(DIRECT, 0, &context) == CLATTN_UNSUPPORTED && strstr(clattn_last_error(), "without CLBlast"), "%s",
          clattn_last_error());
}
static void test_short_launches(void) { clattn_test_skip("built without CLBlast"); }
static void test_override_too_large(void) { clattn_test_skip("built without CLBlast"); }
static void test_layers(void) { clattn_test_skip("built without CLBlast"); }
static void test_failure(void) { clattn_test_skip("built without CLBlast"); }
#endif

int main(int argc, char **argv) {
    static const clattn_test parameters[] = {{"errors", test_errors},
                                             {"override", test_override},
                                             {"override, too large", test_override_too_large},
                                             {"short launches", test_short_launches},
                                             {"layers", test_layers},
                                             {"failure", test_failure},
                                             {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"clblast", parameters}, {NULL, NULL}};
    return clattn_test_main(suites, argc, argv);
}
