/* 16-bit keys and values in the CPU kernel: each half comes through, whatever width the vectors have that convert them,
 * and tiles of rows that share a converted block come out as alone. */
#include <math.h>
#include <string.h>

#include "base/base.h"
#include "clattn/clattn.h"
#include "clattn/reference.h"
#include "harness.h"
#include "kernels/attn_cpu.h"
#include "ref/ref.h"

static clattn_context *context;

static bool is_cpu(void) {
    clattn_device_info device;
    const bool known = CHECK(clattn_context_device(context, &device) == CLATTN_OK, "%s", clattn_last_error());
    if (known && device.type != CLATTN_DEVICE_CPU) clattn_test_skip("attn_cpu is for CPUs");
    return known && device.type == CLATTN_DEVICE_CPU;
}

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
    if (!is_cpu()) return;
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

/* ---- tiles of rows that share a converted block ------------------------------------------------------------------ */

/* Work-groups of four tiles, and a last one of a full and a short tile; ends of blocks and ranges in between. */
enum { H = 4, G = 2, SQ = 4 * 64 + 64 + 9, SK = SQ + 21, D = 40, HIDDEN = 7 };

typedef struct tensors {
    uint16_t query[H * SQ * D], key[G * SK * D], value[G * SK * D];
    float sinks[H];
    uint8_t padding[SK];
} tensors;

typedef struct outputs {
    uint16_t output[H * SQ * D];
    float lse[H * SQ];
} outputs;

static void fill(clattn_dtype dtype, tensors *t) {
    clattn_random random = {31};
    for (int i = 0; i < H * SQ * D; i++) clattn__ref_store(t->query, dtype, i, clattn_random_normal(&random));
    for (int i = 0; i < G * SK * D; i++) {
        clattn__ref_store(t->key, dtype, i, clattn_random_normal(&random));
        clattn__ref_store(t->value, dtype, i, clattn_random_normal(&random));
    }
    for (int h = 0; h < H; h++) t->sinks[h] = (float)clattn_random_normal(&random);
    for (int j = 0; j < SK; j++) t->padding[j] = j != HIDDEN && clattn_random_below(&random, 5) != 0;
    /* Spoils the sums of all rows unless it is left out; and one key that only some rows must not see. */
    for (int d = 0; d < D; d++) {
        clattn__ref_store(t->value, dtype, HIDDEN * D + d, NAN);
        clattn__ref_store(t->value, dtype, (SK / 2) * D + d, INFINITY);
    }
    t->padding[SK / 2] = 1;
}

static clattn_attention_io io_of(const clattn_attention_desc *d, tensors *t, outputs *out) {
    clattn_attention_io io = {.query = clattn_host(t->query, d->dtype, 4, 1, H, SQ, D),
                              .key = clattn_host(t->key, d->dtype, 4, 1, G, SK, D),
                              .value = clattn_host(t->value, d->dtype, 4, 1, G, SK, D),
                              .output = clattn_host(out->output, d->dtype, 4, 1, H, SQ, D),
                              .logsumexp = clattn_host(out->lse, CLATTN_F32, 3, 1, H, SQ, 0)};
    if (d->padding_mask) io.padding_mask = clattn_host(t->padding, CLATTN_BOOL, 2, 1, SK, 0, 0);
    if (d->sinks) io.sinks = clattn_host(t->sinks, CLATTN_F32, 1, H, 0, 0, 0);
    return io;
}

static bool run_tiles(const clattn_attention_desc *d, int lanes, int tiles, tensors *t, outputs *out) {
    const clattn_attention_io io = io_of(d, t, out);
    clattn_attention *plan = NULL;
    clattn_poison(out, sizeof *out);
    clattn__attn_cpu_force_width(lanes);
    clattn__attn_cpu_force_tiles(tiles);
    clattn_status status = clattn_attention_create(&plan, context, d);
    clattn__attn_cpu_force_width(0);
    clattn__attn_cpu_force_tiles(0);
    if (status == CLATTN_OK) status = clattn_attention_run(plan, &io);
    bool good = CHECK(status == CLATTN_OK, "%d tiles: %s", tiles, clattn_last_error());
    good = good && CHECK((strstr(clattn_attention_explain(plan), "4 tiles of rows for each conversion") != NULL) ==
                             (tiles == 4),
                         "%s", clattn_attention_explain(plan));
    clattn_attention_destroy(&plan);
    return good;
}

/* As the reference says, and with the same bits as a tile alone. */
static void check_tiles(clattn_attention_desc *d, clattn_dtype dtype, int lanes, const char *what) {
    static tensors t;
    static outputs want, alone, together;
    static float tolerance[H * SQ * D], wide[2][H * SQ * D];
    d->batch = 1;
    d->query_heads = H;
    d->kv_heads = G;
    d->query_len = SQ;
    d->kv_len = SK;
    d->head_dim = D;
    d->logsumexp = 1;
    d->dtype = dtype;
    d->kernel = "attn_cpu";
    fill(dtype, &t);
    const clattn_attention_io io = io_of(d, &t, &want);
    memset(tolerance, 0, sizeof tolerance);
    REQUIRE(clattn_reference_attention(d, &io, tolerance) == CLATTN_OK, "%s", clattn_last_error());
    if (!run_tiles(d, lanes, 1, &t, &alone) || !run_tiles(d, lanes, 4, &t, &together)) return;
    for (int i = 0; i < H * SQ * D; i++) {
        wide[0][i] = (float)clattn__ref_load(together.output, dtype, i);
        wide[1][i] = (float)clattn__ref_load(want.output, dtype, i);
    }
    clattn_check_close(wide[0], wide[1], tolerance, 0, H * SQ * D, what);
    clattn_check_close(together.lse, want.lse, NULL, 2e-5, H * SQ, what);
    CHECK(memcmp(&alone, &together, sizeof alone) == 0, "%s: other bits than alone", what);
}

static void shared_blocks(void) {
    clattn_attention_desc d;
    if (!is_cpu()) return;
    clattn_attention_desc_init(&d);
    d.causal = CLATTN_CAUSAL_BOTTOM_RIGHT;
    d.sinks = d.padding_mask = 1;
    check_tiles(&d, CLATTN_F16, 8, "float16, causal, padding, sinks");
    clattn_attention_desc_init(&d);
    d.window_left = 100;
    d.window_right = 30;
    d.padding_mask = 1;
    check_tiles(&d, CLATTN_BF16, 16, "bfloat16, window, padding");
}

int main(int argc, char **argv) {
    static const clattn_test tests[] = {{"every_half", every_half}, {"shared_blocks", shared_blocks}, {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"halves", tests}, {NULL, NULL}};
    return clattn_test_main_with(&context, CLATTN_VERIFY_NEVER, suites, argc, argv);
}
