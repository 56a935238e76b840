/* A context on a part of its device: as many threads as were asked for, and the same results. */
#include "clattn/interop.h"
#include "harness.h"
#include "registry/registry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { HEADS = 4, LEN = 256, DIM = 64, COUNT = HEADS * LEN * DIM };

static clattn_context *open_units(int units) {
    clattn_context *context = NULL;
    clattn_context_options options;
    clattn_context_options_init(&options);
    options.selector = getenv("CLATTN_DEVICE");
    options.compute_units = units;
    CHECK(clattn_context_create(&context, &options) == CLATTN_OK, "%d units: %s", units, clattn_last_error());
    return context;
}

/* Attends for a while; returns how many processors were at work in it, by the process's time. */
static double attend(clattn_context *context, float *input, float *output) {
    clattn_attention_desc desc;
    clattn_attention_desc_init(&desc);
    desc.batch = 1;
    desc.query_heads = HEADS;
    desc.query_len = desc.kv_len = LEN;
    desc.head_dim = DIM;
    clattn_attention *plan = NULL;
    if (!CHECK(clattn_attention_create(&plan, context, &desc) == CLATTN_OK, "%s", clattn_last_error())) return 0;
    clattn_attention_io io = {0};
    io.query = io.key = io.value = clattn_host(input, CLATTN_F32, 4, 1, HEADS, LEN, DIM);
    io.output = clattn_host(output, CLATTN_F32, 4, 1, HEADS, LEN, DIM);
    CHECK(clattn_attention_run(plan, &io) == CLATTN_OK, "%s", clattn_last_error());
    const clock_t used = clock();
    const double start = clattn__os_seconds();
    double wall = 0;
    while (wall < 0.3) {
        CHECK(clattn_attention_run(plan, &io) == CLATTN_OK, "%s", clattn_last_error());
        wall = clattn__os_seconds() - start;
    }
    clattn_attention_destroy(&plan);
    return (double)(clock() - used) / CLOCKS_PER_SEC / wall;
}

static bool divisible(const clattn_context *context) {
    cl_device_partition_property offered[16] = {0};
    size_t bytes = 0;
    clGetDeviceInfo(context->env.device.id, CL_DEVICE_PARTITION_PROPERTIES, sizeof offered, offered, &bytes);
    for (size_t i = 0; i < bytes / sizeof *offered && i < CLATTN__COUNT(offered); i++)
        if (offered[i] == CL_DEVICE_PARTITION_BY_COUNTS) return true;
    return false;
}

static void one_unit(void) {
    clattn_random random = {7};
    clattn_device_info info = {0};
    clattn_context *whole = open_units(0);
    REQUIRE(whole, "the whole device");
    clattn_context_device(whole, &info);
    if (info.compute_units < 2) {
        clattn_context_destroy(&whole);
        clattn_test_skip("the device has one compute unit");
        return;
    }
    if (!divisible(whole)) {
        clattn_context *none = whole;
        clattn_context_options options;
        clattn_context_options_init(&options);
        options.selector = getenv("CLATTN_DEVICE");
        options.compute_units = 1;
        CHECK(clattn_context_create(&none, &options) == CLATTN_UNSUPPORTED && !none, "it was divided");
        CHECK(strstr(clattn_last_error(), "options.compute_units is 1") != NULL, "%s", clattn_last_error());
        clattn_context_destroy(&whole);
        return;
    }
    float *input = clattn_guard_alloc(COUNT * sizeof *input), *one = clattn_guard_alloc(COUNT * sizeof *one),
          *all = clattn_guard_alloc(COUNT * sizeof *all);
    clattn_fill_normal(&random, input, COUNT, 1);
    attend(whole, input, all);
    clattn_context *part = open_units(1);
    if (part) {
        clattn_context_device(part, &info);
        CHECK(info.compute_units == 1, "%u compute units", (unsigned)info.compute_units);
        const double busy = attend(part, input, one);
        if (info.type == CLATTN_DEVICE_CPU) CHECK(busy < 1.3, "%.2f processors were busy", busy);
        clattn_check_close(one, all, NULL, 1e-5, COUNT, "one unit against all");
        CHECK(clattn_guard_intact(input) && clattn_guard_intact(one) && clattn_guard_intact(all), "guards");
    }
    char key[33], part_key[33];
    clattn__env_key(&whole->env, key);
    if (part) clattn__env_key(&part->env, part_key);
    CHECK(!part || strcmp(key, part_key) == 0, "what is known of a device holds for its parts");
    clattn_guard_free(input);
    clattn_guard_free(one);
    clattn_guard_free(all);
    clattn_context_destroy(&part);
    clattn_context_destroy(&whole);
}

static void more_than_there_are(void) {
    clattn_device_info info = {0}, whole = {0};
    clattn_context *context = open_units(1 << 20), *plain = open_units(0);
    REQUIRE(context && plain, "contexts");
    clattn_context_device(context, &info);
    clattn_context_device(plain, &whole);
    CHECK(info.compute_units == whole.compute_units, "%u, not %u", (unsigned)info.compute_units,
          (unsigned)whole.compute_units);
    clattn_context_destroy(&context);
    clattn_context_destroy(&plain);
}

static void refused(void) {
    clattn_context *none = NULL, *context = open_units(0);
    REQUIRE(context, "the whole device");
    clattn_context_options options;
    clattn_context_options_init(&options);
    options.compute_units = -1;
    CHECK(clattn_context_create(&none, &options) == CLATTN_INVALID_ARGUMENT && !none, "-1 units");
    CHECK(strstr(clattn_last_error(), "options.compute_units is -1") != NULL, "%s", clattn_last_error());
    options.compute_units = 1;
    CHECK(clattn_context_create_from(&none, context->env.context, context->env.device.id, context->env.queue,
                                     &options) == CLATTN_INVALID_ARGUMENT,
          "a caller's device was divided");
    CHECK(strstr(clattn_last_error(), "options.compute_units is 1") != NULL, "%s", clattn_last_error());
    clattn_context_destroy(&context);
}

int main(int argc, char **argv) {
    static const clattn_test tests[] = {
        {"one_unit", one_unit}, {"more_than_there_are", more_than_there_are}, {"refused", refused}, {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"partition", tests}, {NULL, NULL}};
    return clattn_test_main(suites, argc, argv);
}
