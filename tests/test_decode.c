/* The decode kernel: against the reference in both of its forms, and that neither splits nor the batch change a bit. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clattn/reference.h"
#include "harness.h"
#include "kernels/attn_decode.h"
#include "registry/registry.h"

static clattn_context *context;

/* ---- against the reference ------------------------------------------------------------------------------------- */

typedef struct variant {
    int64_t head_dim, value_dim, group, query_len;
    clattn_dtype dtype;
    uint32_t features;
    clattn_dtype cells; /* with CLATTN__CELLS */
} variant;

static const variant variants[] = {
    {64, 64, 1, 1, CLATTN_F32, 0, CLATTN_F32},
    {128, 128, 4, 1, CLATTN_F32, CLATTN__CAUSAL | CLATTN__LENGTHS | CLATTN__OFFSET_FROM_LENGTHS | CLATTN__LSE,
     CLATTN_F32},
    {80, 80, 1, 3, CLATTN_F32, CLATTN__CAUSAL | CLATTN__LSE, CLATTN_F32},
    {40, 24, 3, 5, CLATTN_F32, CLATTN__CAUSAL | CLATTN__WINDOW | CLATTN__ALIBI | CLATTN__SOFTCAP | CLATTN__SINKS,
     CLATTN_F32},
    {33, 20, 2, 2, CLATTN_F32, CLATTN__MASK_FLOAT | CLATTN__PADDING | CLATTN__SINKS | CLATTN__LSE, CLATTN_F32},
    {64, 32, 8, 2, CLATTN_F32, CLATTN__MASK_BOOL | CLATTN__LENGTHS | CLATTN__WINDOW, CLATTN_F32},
    {17, 300, 1, 8, CLATTN_F32, CLATTN__PADDING | CLATTN__LSE, CLATTN_F32},
    {512, 512, 2, 1, CLATTN_F32, CLATTN__CAUSAL | CLATTN__LENGTHS, CLATTN_F32},
    {5, 4, 1, 1, CLATTN_F32, CLATTN__LSE, CLATTN_F32},
    {64, 64, 4, 1, CLATTN_F16, CLATTN__LENGTHS | CLATTN__LSE, CLATTN_F32},
    {72, 40, 2, 3, CLATTN_BF16, CLATTN__CAUSAL | CLATTN__MASK_FLOAT, CLATTN_F32},
    {64, 64, 4, 1, CLATTN_F32, CLATTN__CAUSAL | CLATTN__LENGTHS | CLATTN__OFFSET_FROM_LENGTHS | CLATTN__PAGED,
     CLATTN_F32},
    {40, 24, 3, 5, CLATTN_F32, CLATTN__CAUSAL | CLATTN__WINDOW | CLATTN__ALIBI | CLATTN__RING | CLATTN__LSE,
     CLATTN_F32},
    {33, 20, 2, 2, CLATTN_F32, CLATTN__LENGTHS | CLATTN__CELLS | CLATTN__LSE, CLATTN_I8},
    {72, 48, 1, 1, CLATTN_F32, CLATTN__CAUSAL | CLATTN__LENGTHS | CLATTN__PAGED | CLATTN__CELLS, CLATTN_I8},
    {64, 64, 8, 1, CLATTN_F32, CLATTN__PADDING | CLATTN__CELLS, CLATTN_F16},
    {48, 40, 2, 2, CLATTN_F32, CLATTN__RING | CLATTN__MASK_BOOL | CLATTN__CELLS, CLATTN_BF16},
    {17, 64, 1, 2, CLATTN_F16, CLATTN__PAGED | CLATTN__SINKS | CLATTN__CELLS, CLATTN_I8},
};

static void verify(const variant *v, bool groups) {
    char features[256], what[320];
    clattn__attn_kernel kernel = {.impl = &clattn__attn_decode, .programs = &context->programs};
    kernel.problem = (clattn__attn_problem){.features = v->features,
                                            .dtype = v->dtype,
                                            .cells = v->cells,
                                            .batch = 1,
                                            .query_heads = 2 * v->group,
                                            .kv_heads = 2,
                                            .query_len = v->query_len,
                                            .kv_len = 700,
                                            .head_dim = v->head_dim,
                                            .value_dim = v->value_dim};
    clattn__refusal why;
    clattn__verify_stats stats = {0};
    clattn__features_text(v->features, features, sizeof features);
    snprintf(what, sizeof what, "%s, D %lld, Dv %lld, %lld heads x %lld queries, %s: %s",
             groups ? "groups" : "device's own form", (long long)v->head_dim, (long long)v->value_dim,
             (long long)v->group, (long long)v->query_len, clattn_dtype_name(v->dtype), features);
    clattn__attn_decode_force_groups(groups);
    clattn_test_unoptimized(groups);
    if (CHECK(clattn__attn_decode.supports(&kernel.problem, &context->env.device.caps, &why), "%s: %s", what,
              why.text)) {
        clattn_status status = clattn__attn_prepare(&kernel, NULL);
        if (status == CLATTN_OK) status = clattn__attn_verify(&kernel, true, &stats);
        CHECK(status == CLATTN_OK && stats.cases > 3, "%s: %d cases: %s", what, stats.cases, clattn_last_error());
    }
    clattn_test_unoptimized(false);
    clattn__attn_decode_force_groups(false);
    clattn__attn_kernel_clear(&kernel);
}

static void own_form(void) {
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) verify(&variants[i], false);
}

static void form_for_gpus(void) {
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) verify(&variants[i], true);
}

/* ---- bits ------------------------------------------------------------------------------------------------------ */

enum { HQ = 6, HKV = 2, SQ = 2, SK = 1500, D = 48, DV = 24, BATCH = 3 };

typedef struct sample {
    float *query, *key, *value, *output, *lse, *want, *tolerance, *want_lse;
    int32_t lengths[BATCH];
    clattn_attention_desc desc;
} sample;

static float *floats(int64_t count) {
    float *memory = malloc(((size_t)count + 1) * sizeof *memory);
    if (!memory) abort(); /* a test without memory cannot go on */
    return memory;
}

static clattn_attention_io io_of(sample *s, int64_t first) {
    clattn_attention_io io;
    const int64_t B = s->desc.batch;
    memset(&io, 0, sizeof io);
    io.query = clattn_host(s->query + first * HQ * SQ * D, CLATTN_F32, 4, B, HQ, SQ, D);
    io.key = clattn_host(s->key + first * HKV * SK * D, CLATTN_F32, 4, B, HKV, SK, D);
    io.value = clattn_host(s->value + first * HKV * SK * DV, CLATTN_F32, 4, B, HKV, SK, DV);
    io.kv_lengths = clattn_host(s->lengths + first, CLATTN_I32, 1, B, 0, 0, 0);
    io.output = clattn_host(s->output + first * HQ * SQ * DV, CLATTN_F32, 4, B, HQ, SQ, DV);
    io.logsumexp = clattn_host(s->lse + first * HQ * SQ, CLATTN_F32, 3, B, HQ, SQ, 0);
    return io;
}

/* Keys behind the lengths are NaN. */
static void make(sample *s) {
    clattn_random random = {20};
    const int32_t lengths[BATCH] = {SK, 700, 1};
    s->query = floats(BATCH * HQ * SQ * D);
    s->key = floats(BATCH * HKV * SK * D);
    s->value = floats(BATCH * HKV * SK * DV);
    s->output = floats(BATCH * HQ * SQ * DV);
    s->lse = floats(BATCH * HQ * SQ);
    s->want = floats(BATCH * HQ * SQ * DV);
    s->tolerance = floats(BATCH * HQ * SQ * DV);
    s->want_lse = floats(BATCH * HQ * SQ);
    memcpy(s->lengths, lengths, sizeof lengths);
    clattn_fill_normal(&random, s->query, BATCH * HQ * SQ * D, 1);
    clattn_fill_normal(&random, s->key, BATCH * HKV * SK * D, 1);
    clattn_fill_normal(&random, s->value, BATCH * HKV * SK * DV, 1);
    for (int b = 0; b < BATCH; b++)
        for (int h = 0; h < HKV; h++)
            for (int j = lengths[b]; j < SK; j++) {
                for (int d = 0; d < D; d++) s->key[((b * HKV + h) * SK + j) * D + d] = NAN;
                for (int d = 0; d < DV; d++) s->value[((b * HKV + h) * SK + j) * DV + d] = NAN;
            }
    clattn_attention_desc_init(&s->desc);
    s->desc.batch = BATCH;
    s->desc.query_heads = HQ;
    s->desc.kv_heads = HKV;
    s->desc.query_len = SQ;
    s->desc.kv_len = SK;
    s->desc.head_dim = D;
    s->desc.value_dim = DV;
    s->desc.kv_lengths = 1;
    s->desc.logsumexp = 1;
    s->desc.causal = CLATTN_CAUSAL_BOTTOM_RIGHT;
    s->desc.kernel = "attn_decode";
}

static void drop(sample *s) {
    float *all[] = {s->query, s->key, s->value, s->output, s->lse, s->want, s->tolerance, s->want_lse};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
}

/* Entries first..first+batch-1 alone, into poisoned outputs. */
static bool run(sample *s, int64_t first, int64_t batch, int splits, bool groups) {
    clattn_attention *plan = NULL;
    s->desc.batch = batch;
    const clattn_attention_io io = io_of(s, first);
    clattn_poison(s->output, BATCH * HQ * SQ * DV * sizeof(float));
    clattn_poison(s->lse, BATCH * HQ * SQ * sizeof(float));
    clattn__attn_decode_force_splits(splits);
    clattn__attn_decode_force_groups(groups);
    clattn_status status = clattn_attention_create(&plan, context, &s->desc);
    if (status == CLATTN_OK) status = clattn_attention_run(plan, &io);
    clattn__attn_decode_force_splits(0);
    clattn__attn_decode_force_groups(false);
    clattn_attention_destroy(&plan);
    s->desc.batch = BATCH;
    return CHECK(status == CLATTN_OK, "%d splits: %s", splits, clattn_last_error());
}

static void bits_of(bool groups) {
    sample s;
    make(&s);
    clattn_attention_io wanted = io_of(&s, 0);
    wanted.output.data = s.want;
    wanted.logsumexp.data = s.want_lse;
    clattn_attention_desc any = s.desc;
    any.kernel = NULL;
    CHECK(clattn_reference_attention(&any, &wanted, s.tolerance) == CLATTN_OK, "%s", clattn_last_error());
    const size_t bytes = BATCH * HQ * SQ * DV * sizeof(float), lse_bytes = BATCH * HQ * SQ * sizeof(float);
    float *first = floats(BATCH * HQ * SQ * DV), *first_lse = floats(BATCH * HQ * SQ);
    if (run(&s, 0, BATCH, 1, groups)) {
        clattn_check_close(s.output, s.want, s.tolerance, 0, BATCH * HQ * SQ * DV, "one item per tile");
        clattn_check_close(s.lse, s.want_lse, NULL, 1e-5, BATCH * HQ * SQ, "logsumexp");
        memcpy(first, s.output, bytes);
        memcpy(first_lse, s.lse, lse_bytes);
    }
    static const int splits[] = {0, 2, 3, 7, 1000};
    for (size_t i = 0; i < sizeof splits / sizeof splits[0]; i++)
        if (run(&s, 0, BATCH, splits[i], groups))
            CHECK(memcmp(first, s.output, bytes) == 0 && memcmp(first_lse, s.lse, lse_bytes) == 0,
                  "%d splits change the result", splits[i]);
    const int64_t entry = HQ * SQ * DV;
    for (int b = 0; b < BATCH; b++)
        if (run(&s, b, 1, 0, groups))
            CHECK(memcmp(first + b * entry, s.output + b * entry, (size_t)entry * sizeof(float)) == 0,
                  "the batch changes entry %d", b);
    free(first);
    free(first_lse);
    drop(&s);
}

static void splits_and_batch(void) { bits_of(false); }
static void splits_and_batch_of_groups(void) { bits_of(true); }

/* What the kernel must leave to others. */
static void refusals(void) {
    static const struct {
        int64_t heads, query_len, head_dim;
        const char *part;
    } rows[] = {{17, 1, 64, "17 query rows"}, {1, 9, 64, "9 queries"}, {1, 1, 3, "head_dim 3"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const clattn__attn_problem p = {.batch = 1,
                                        .query_heads = rows[i].heads,
                                        .kv_heads = 1,
                                        .query_len = rows[i].query_len,
                                        .kv_len = 64,
                                        .head_dim = rows[i].head_dim,
                                        .value_dim = 64};
        clattn__refusal why = {{0}};
        const bool served = clattn__attn_decode.supports(&p, &context->env.device.caps, &why);
        if (i == 2 && context->env.device.caps.type != CLATTN_DEVICE_CPU) continue;
        CHECK(!served && strstr(why.text, rows[i].part), "case %d: served %d, \"%s\"", (int)i, served, why.text);
    }
}

int main(int argc, char **argv) {
    static const clattn_test tests[] = {{"own_form", own_form},
                                        {"form_for_gpus", form_for_gpus},
                                        {"splits_and_batch", splits_and_batch},
                                        {"splits_and_batch_of_groups", splits_and_batch_of_groups},
                                        {"refusals", refusals},
                                        {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"decode", tests}, {NULL, NULL}};
    return clattn_test_main_with(&context, CLATTN_VERIFY_NEVER, suites, argc, argv);
}
