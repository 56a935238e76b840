/* Halves in the CPU kernel: each of the 65536 comes through, whatever width the vectors have that convert them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/base.h"
#include "clattn/clattn.h"
#include "harness.h"
#include "kernels/attn_cpu.h"

static clattn_context *context;

/* With one key a row's output is that key's value: all halves as values, in whole vectors and a rest. */
enum { HALVES = 1 << 16, HEADS = 16, DV = 71, B = (HALVES + HEADS * DV - 1) / (HEADS * DV), COUNT = B * HEADS * DV };

static void run_one_key(const uint16_t *zeros, const uint16_t *value, uint16_t *output) {
    clattn_attention *plan = NULL;
    clattn_attention_desc desc;
    clattn_attention_desc_init(&desc);
    desc.batch = B;
    desc.query_heads = desc.kv_heads = HEADS;
    desc.query_len = desc.kv_len = desc.head_dim = 1;
    desc.value_dim = DV;
    desc.dtype = CLATTN_F16;
    desc.kernel = "attn_cpu";
    const clattn_attention_io io = {.query = clattn_host((void *)zeros, CLATTN_F16, 4, B, HEADS, 1, 1),
                                    .key = clattn_host((void *)zeros, CLATTN_F16, 4, B, HEADS, 1, 1),
                                    .value = clattn_host((void *)value, CLATTN_F16, 4, B, HEADS, 1, DV),
                                    .output = clattn_host(output, CLATTN_F16, 4, B, HEADS, 1, DV)};
    CHECK(clattn_attention_create(&plan, context, &desc) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(plan && clattn_attention_run(plan, &io) == CLATTN_OK, "%s", clattn_last_error());
    clattn_attention_destroy(&plan);
}

static void every_half(void) {
    static const int widths[] = {4, 8, 16};
    static uint16_t zeros[B * HEADS], value[COUNT], output[COUNT];
    clattn_device_info device;
    REQUIRE(clattn_context_device(context, &device) == CLATTN_OK, "%s", clattn_last_error());
    if (device.type != CLATTN_DEVICE_CPU) {
        clattn_test_skip("attn_cpu is for CPUs");
        return;
    }
    for (int i = 0; i < COUNT; i++) value[i] = (uint16_t)i;
    for (int w = 0; w < 3; w++) {
        int wrong = 0, first = -1;
        clattn_poison(output, sizeof output);
        clattn__attn_cpu_force_width(widths[w]);
        run_one_key(zeros, value, output);
        clattn__attn_cpu_force_width(0);
        for (int i = 0; i < COUNT; i++) {
            const float got = clattn__half_to_float(output[i]), want = clattn__half_to_float(value[i]);
            if (got == want || (isnan(got) && isnan(want))) continue;
            if (wrong++ == 0) first = i;
        }
        CHECK(wrong == 0, "%d lanes: %d halves are wrong, 0x%04x first, which became 0x%04x", widths[w], wrong,
              first < 0 ? 0 : value[first], first < 0 ? 0 : output[first]);
    }
}

int main(int argc, char **argv) {
    clattn_context_options options;
    clattn_context_options_init(&options);
    options.selector = getenv("CLATTN_DEVICE");
    options.verify = CLATTN_VERIFY_NEVER; /* wrong kernels are to show here */
    options.cache_dir = "";
    if (clattn_context_create(&context, &options) != CLATTN_OK) return fprintf(stderr, "%s\n", clattn_last_error()), 1;
    static const clattn_test tests[] = {{"every_half", every_half}, {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"halves", tests}, {NULL, NULL}};
    const int failed = clattn_test_main(suites, argc, argv);
    clattn_context_destroy(&context);
    return failed;
}
