/* The CPU kernel takes several heads through a mask that they share. Each head must come out as the reference says, and
 * with the same bits as alone, also where one head has infinities and NaN at keys that a mask hides. */
#include <math.h>
#include <string.h>

#include "clattn/clattn.h"
#include "harness.h"
#include "kernels/attn_cpu.h"

/* Two blocks of keys; a work-group of 4 heads, and one of the 2 that are left. */
enum { B = 2, H = 6, G = 2, SQ = 37, SK = 150, D = 24, TOGETHER = 4, UNSEEN = 7, SEEN_ONCE = 9, WHO_SEES = 3 };

static clattn_context *context;
static float query[B * H * SQ * D], key[B * G * SK * D], value[B * G * SK * D], slopes[H], sinks[H], bias[SQ * SK];
static uint8_t allowed[SQ * SK];

typedef struct outputs {
    float output[B * H * SQ * D], lse[B * H * SQ];
} outputs;

/* Half of the keys hidden, and of each second block all but a few. Key UNSEEN from every row, SEEN_ONCE from all but
 * one; in the second kv head both hold what would spoil the sums of rows that must not see it. */
static void fill(void) {
    clattn_random random = {23};
    clattn_fill_normal(&random, query, B * H * SQ * D, 1);
    clattn_fill_normal(&random, key, B * G * SK * D, 1);
    clattn_fill_normal(&random, value, B * G * SK * D, 1);
    clattn_fill_normal(&random, slopes, H, 0.1);
    clattn_fill_normal(&random, sinks, H, 1);
    for (int i = 0; i < SQ * SK; i++) {
        const int row = i / SK, column = i % SK;
        allowed[i] = clattn_random_below(&random, 2) == 0 && column != UNSEEN && row % 5 != 4;
        if (column == SEEN_ONCE) allowed[i] = row == WHO_SEES;
        bias[i] = allowed[i] ? (float)clattn_random_normal(&random) : -INFINITY;
    }
    for (int d = 0; d < D; d++) {
        key[(SK + UNSEEN) * D + d] = value[(SK + UNSEEN) * D + d] = NAN;
        value[(SK + SEEN_ONCE) * D + d] = INFINITY;
    }
}

static clattn_attention_io io_of(const clattn_attention_desc *d, outputs *out) {
    clattn_attention_io io = {.query = clattn_host(query, CLATTN_F32, 4, B, H, SQ, D),
                              .key = clattn_host(key, CLATTN_F32, 4, B, G, SK, D),
                              .value = clattn_host(value, CLATTN_F32, 4, B, G, SK, D),
                              .output = clattn_host(out->output, CLATTN_F32, 4, B, H, SQ, D),
                              .logsumexp = clattn_host(out->lse, CLATTN_F32, 3, B, H, SQ, 0)};
    io.mask = d->mask == CLATTN_MASK_BOOL ? clattn_host(allowed, CLATTN_BOOL, 4, 1, 1, SQ, SK)
                                          : clattn_host(bias, CLATTN_F32, 4, 1, 1, SQ, SK);
    if (d->alibi) io.alibi = clattn_host(slopes, CLATTN_F32, 1, H, 0, 0, 0);
    if (d->sinks) io.sinks = clattn_host(sinks, CLATTN_F32, 1, H, 0, 0, 0);
    return io;
}

/* heads: of a work-group. */
static bool run(const clattn_attention_desc *d, int heads, outputs *out) {
    const clattn_attention_io io = io_of(d, out);
    clattn_attention *plan = NULL;
    memset(out, 0xff, sizeof *out);
    clattn__attn_cpu_force_heads(heads);
    clattn_status status = clattn_attention_create(&plan, context, d);
    clattn__attn_cpu_force_heads(0);
    if (status == CLATTN_OK) status = clattn_attention_run(plan, &io);
    bool good = CHECK(status == CLATTN_OK, "%d heads: %s", heads, clattn_last_error());
    good = good && CHECK((strstr(clattn_attention_explain(plan), "4 heads for each reading of the mask") != NULL) ==
                             (heads == TOGETHER),
                         "%s", clattn_attention_explain(plan));
    clattn_attention_destroy(&plan);
    return good;
}

static void check(clattn_attention_desc *d, const char *what) {
    static outputs want, alone, together;
    static float tolerance[B * H * SQ * D];
    clattn_device_info device;
    REQUIRE(clattn_context_device(context, &device) == CLATTN_OK, "%s", clattn_last_error());
    if (device.type != CLATTN_DEVICE_CPU) {
        clattn_test_skip("attn_cpu is for CPUs");
        return;
    }
    d->batch = B;
    d->query_heads = H;
    d->kv_heads = G;
    d->query_len = SQ;
    d->kv_len = SK;
    d->head_dim = D;
    d->logsumexp = 1;
    d->mask_shape[0] = d->mask_shape[1] = 1;
    d->mask_shape[2] = SQ;
    d->mask_shape[3] = SK;
    d->kernel = "attn_cpu";
    fill();
    const clattn_attention_io io = io_of(d, &want);
    memset(tolerance, 0, sizeof tolerance);
    REQUIRE(clattn_reference_attention(d, &io, tolerance) == CLATTN_OK, "%s", clattn_last_error());
    if (!run(d, 1, &alone) || !run(d, TOGETHER, &together)) return;
    clattn_check_close(together.output, want.output, tolerance, 0, B * H * SQ * D, what);
    clattn_check_close(together.lse, want.lse, NULL, 2e-5, B * H * SQ, what);
    CHECK(memcmp(&alone, &together, sizeof alone) == 0, "%s: other bits than alone", what);
}

static void bool_mask(void) {
    clattn_attention_desc d;
    clattn_attention_desc_init(&d);
    d.mask = CLATTN_MASK_BOOL;
    d.causal = CLATTN_CAUSAL_BOTTOM_RIGHT;
    d.sinks = 1;
    check(&d, "bool mask, causal, sinks");
}

static void float_mask(void) {
    clattn_attention_desc d;
    clattn_attention_desc_init(&d);
    d.mask = CLATTN_MASK_FLOAT;
    d.alibi = 1;
    d.dropout = 0.25f;
    d.dropout_seed = 5;
    check(&d, "float mask, ALiBi, dropout");
}

int main(int argc, char **argv) {
    static const clattn_test tests[] = {{"bool_mask", bool_mask}, {"float_mask", float_mask}, {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"heads", tests}, {NULL, NULL}};
    return clattn_test_main_with(&context, CLATTN_VERIFY_NEVER, suites, argc, argv);
}
