/* Encoder and decoder blocks and stacks of them against the reference: orders, masks, positions, norms, hidden states,
 * one arena, bad input. */
#define _DEFAULT_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block_cases.h"
#include "clattn/interop.h"
#include "harness.h"
#include "planted.h"

static clattn_context *context;

enum { MOST_BLOCKS = 3, TABLE_ROWS = 40 };

typedef struct stage {
    clattn_stack_desc desc;
    clattn_stack_weights weights;
    clattn_block_weights encoder[MOST_BLOCKS], decoder[MOST_BLOCKS];
    clattn_layer_io io;
    float *memory[160];
    int floats;
    uint8_t *bytes[3];
    float *want, *tolerance, *want_hidden;
    int64_t out_count, hidden_count;
    int32_t positions[160];
} stage;

static float *normal(stage *s, clattn_random *random, int64_t count, double mean, double size) {
    float *values = clattn_guard_alloc((size_t)count * sizeof *values);
    for (int64_t i = 0; i < count; i++) values[i] = (float)(mean + size * clattn_random_normal(random));
    return s->memory[s->floats++] = values;
}

static clattn_tensor vector(stage *s, clattn_random *random, int64_t count, double mean) {
    return clattn_host(normal(s, random, count, mean, 0.3), CLATTN_F32, 1, count, 0, 0, 0);
}

static clattn_tensor matrix(stage *s, clattn_random *random, int64_t rows, int64_t columns) {
    return clattn_host(normal(s, random, rows * columns, 0, 1 / sqrt((double)columns)), CLATTN_F32, 2, rows, columns, 0,
                       0);
}

static clattn_norm_weights norm(stage *s, clattn_random *random, int64_t E) {
    return (clattn_norm_weights){.weight = vector(s, random, E, 1), .bias = vector(s, random, E, 0)};
}

static clattn_mha_weights attention(stage *s, clattn_random *random, int64_t E, bool bias) {
    clattn_mha_weights w = {.in_proj_weight = matrix(s, random, 3 * E, E), .out_proj_weight = matrix(s, random, E, E)};
    if (!bias) return w;
    w.in_proj_bias = vector(s, random, 3 * E, 0);
    w.out_proj_bias = vector(s, random, E, 0);
    return w;
}

static void make_block(stage *s, clattn_random *random, const stack_case *c, bool decoder, clattn_block_weights *w) {
    const int64_t E = c->features, F = c->feed_forward;
    w->self_attention = attention(s, random, E, !c->no_bias);
    w->self_norm = norm(s, random, E);
    if (decoder) {
        w->cross_attention = attention(s, random, E, !c->no_bias);
        w->cross_norm = norm(s, random, E);
    }
    w->expand.weight = matrix(s, random, F, E);
    w->contract.weight = matrix(s, random, E, F);
    if (!c->no_bias) {
        w->expand.bias = vector(s, random, F, 0);
        w->contract.bias = vector(s, random, E, 0);
    }
    w->feed_forward_norm = norm(s, random, E);
}

/* true = attend; the last entries of later batch entries are padding. */
static clattn_tensor padding(stage *s, int index, int64_t batch, int64_t keys) {
    s->bytes[index] = clattn_guard_alloc((size_t)(batch * keys));
    for (int64_t i = 0; i < batch * keys; i++) s->bytes[index][i] = i % keys < keys - i / keys;
    return clattn_host(s->bytes[index], CLATTN_BOOL, 2, batch, keys, 0, 0);
}

static void make_desc(stage *s, const stack_case *c) {
    clattn_stack_desc *d = &s->desc;
    clattn_stack_desc_init(d);
    d->batch = c->batch;
    d->rows = c->rows;
    d->memory_rows = c->memory_rows;
    d->features = c->features;
    d->heads = c->heads;
    d->feed_forward = c->feed_forward;
    d->encoder_blocks = c->encoder_blocks;
    d->decoder_blocks = c->decoder_blocks;
    d->order = c->order;
    if (c->activation) d->activation = c->activation;
    d->causal = c->causal;
    d->mask = c->mask;
    d->memory_mask = c->memory_mask;
    d->padding_mask = c->padding;
    d->memory_padding_mask = c->memory_padding;
    d->positions = c->positions;
    d->positions_given = c->positions_given;
    d->hidden = c->hidden;
}

static void make_inputs(stage *s, clattn_random *random, const stack_case *c) {
    const int64_t B = c->batch, L = c->rows, S = c->memory_rows, E = c->features;
    clattn_layer_io *io = &s->io;
    io->input = clattn_host(normal(s, random, B * L * E, 0, 1), CLATTN_F32, 3, B, L, E, 0);
    if (c->decoder_blocks) io->memory = clattn_host(normal(s, random, B * S * E, 0, 1), CLATTN_F32, 3, B, S, E, 0);
    if (c->padding) io->padding_mask = padding(s, 0, B, L);
    if (c->memory_padding) io->memory_padding_mask = padding(s, 1, B, S);
    if (c->mask) {
        s->bytes[2] = clattn_guard_alloc((size_t)(L * L));
        for (int64_t i = 0; i < L * L; i++) s->bytes[2][i] = (i / L + i % L) % 3 != 0;
        io->mask = clattn_host(s->bytes[2], CLATTN_BOOL, 4, 1, 1, L, L);
    }
    if (c->memory_mask) {
        float *mask = normal(s, random, L * S, 0, 1);
        for (int64_t i = 0; i < L * S; i += 4) mask[i] = -INFINITY;
        io->memory_mask = clattn_host(mask, CLATTN_F32, 4, 1, 1, L, S);
    }
    for (int64_t i = 0; i < L; i++) s->positions[i] = (int32_t)((7 * i + 3) % TABLE_ROWS);
    if (c->positions_given) io->positions = clattn_host(s->positions, CLATTN_I32, 1, L, 0, 0, 0);
}

/* Description, weights, inputs and the reference's answer. */
static bool make(stage *s, const stack_case *c) {
    clattn_random random = {900 + (uint64_t)(c - CASES)};
    memset(s, 0, sizeof *s);
    make_desc(s, c);
    for (int64_t i = 0; i < c->encoder_blocks; i++) make_block(s, &random, c, false, &s->encoder[i]);
    for (int64_t i = 0; i < c->decoder_blocks; i++) make_block(s, &random, c, true, &s->decoder[i]);
    s->weights.encoder = s->encoder;
    s->weights.decoder = s->decoder;
    if (c->input_norm) s->weights.input_norm = norm(s, &random, c->features);
    if (c->last_norm && c->encoder_blocks) s->weights.encoder_norm = norm(s, &random, c->features);
    if (c->last_norm && c->decoder_blocks) s->weights.decoder_norm = norm(s, &random, c->features);
    if (c->positions == CLATTN_POSITIONS_LEARNED)
        s->weights.position_table = matrix(s, &random, TABLE_ROWS, c->features);
    make_inputs(s, &random, c);
    const int64_t blocks = 1 + (c->decoder_blocks ? c->decoder_blocks : c->encoder_blocks);
    s->out_count = c->batch * c->rows * c->features;
    s->want = clattn_guard_alloc((size_t)s->out_count * sizeof(float));
    s->tolerance = clattn_guard_alloc((size_t)s->out_count * sizeof(float));
    s->io.output = clattn_host(s->want, CLATTN_F32, 3, c->batch, c->rows, c->features, 0);
    if (c->hidden) {
        s->hidden_count = blocks * s->out_count;
        s->want_hidden = clattn_guard_alloc((size_t)s->hidden_count * sizeof(float));
        s->io.hidden = clattn_host(s->want_hidden, CLATTN_F32, 4, blocks, c->batch, c->rows, c->features);
    }
    return CHECK(clattn_reference_stack(&s->desc, &s->weights, &s->io, s->tolerance) == CLATTN_OK, "%s: reference: %s",
                 c->name, clattn_last_error());
}

static void drop(stage *s) {
    for (int i = 0; i < s->floats; i++) {
        CHECK(clattn_guard_intact(s->memory[i]), "something wrote beside input %d", i);
        clattn_guard_free(s->memory[i]);
    }
    for (int i = 0; i < 3; i++) clattn_guard_free(s->bytes[i]);
    clattn_guard_free(s->want);
    clattn_guard_free(s->tolerance);
    clattn_guard_free(s->want_hidden);
}

static void run(stage *s, const clattn_stack_desc *d, const char *what) {
    clattn_layer *layer = NULL;
    if (!CHECK(clattn_stack_create(&layer, context, d, &s->weights) == CLATTN_OK, "%s: %s", what, clattn_last_error()))
        return;
    float *got = clattn_guard_alloc((size_t)s->out_count * sizeof *got);
    float *hidden = clattn_guard_alloc((size_t)s->hidden_count * sizeof *hidden);
    clattn_layer_io io = s->io;
    io.output.data = got;
    if (s->want_hidden) io.hidden.data = hidden;
    for (int twice = 0; twice < 2; twice++) {
        clattn_poison(got, (size_t)s->out_count * sizeof *got);
        clattn_poison(hidden, (size_t)s->hidden_count * sizeof *hidden);
        CHECK(clattn_layer_run(layer, &io) == CLATTN_OK, "%s: %s", what, clattn_last_error());
        clattn_check_close(got, s->want, s->tolerance, 0, s->out_count, what);
        if (s->want_hidden) clattn_check_close(hidden, s->want_hidden, NULL, 2e-5, s->hidden_count, what);
    }
    CHECK(clattn_guard_intact(got) && clattn_guard_intact(hidden), "%s: wrote beside the outputs", what);
    clattn_guard_free(got);
    clattn_guard_free(hidden);
    clattn_layer_destroy(&layer);
}

static void every_case(void) {
    for (int i = 0; i < CASE_COUNT; i++) {
        stage s;
        if (make(&s, &CASES[i])) run(&s, &s.desc, CASES[i].name);
        drop(&s);
    }
}

/* The bound that the reference gives must be of use: far below the values, which have size 1. */
static void tolerances_are_tight(void) {
    for (int i = 0; i < CASE_COUNT; i++) {
        stage s;
        if (make(&s, &CASES[i]))
            for (int64_t k = 0; k < s.out_count; k++)
                if (!(s.tolerance[k] < 2e-3)) {
                    CHECK(false, "%s: tolerance[%lld] is %g", CASES[i].name, (long long)k, (double)s.tolerance[k]);
                    break;
                }
        drop(&s);
    }
}

static void other_kernels(void) {
    static const char *const gemms[] = {"gemm_tiled", "gemm_host"}, *const attentions[] = {"attn_naive", "attn_host"};
    static const int some[] = {3, 6};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        stage s;
        if (make(&s, &CASES[some[i]]))
            for (int k = 0; k < 2; k++) {
                clattn_stack_desc d = s.desc;
                d.gemm_kernel = gemms[k];
                d.attention_kernel = attentions[k];
                run(&s, &d, gemms[k]);
            }
        drop(&s);
    }
}

/* A stack is the same as its blocks one after another. */
static void stack_is_its_blocks(void) {
    stage s;
    if (make(&s, &CASES[4])) {
        const stack_case *c = &CASES[4];
        clattn_stack_desc d = s.desc;
        clattn_stack_weights w = {0};
        float *x = clattn_guard_alloc((size_t)s.out_count * sizeof *x),
              *y = clattn_guard_alloc((size_t)s.out_count * sizeof *y);
        memcpy(x, s.want_hidden, (size_t)s.out_count * sizeof *x);
        d.encoder_blocks = 1;
        d.positions = CLATTN_POSITIONS_NONE;
        d.hidden = 0;
        for (int64_t i = 0; i < c->encoder_blocks; i++) {
            clattn_layer *layer = NULL;
            clattn_layer_io io = s.io;
            w.encoder = &s.encoder[i];
            io.input.data = x;
            io.output.data = y;
            memset(&io.hidden, 0, sizeof io.hidden);
            CHECK(clattn_stack_create(&layer, context, &d, &w) == CLATTN_OK, "%s", clattn_last_error());
            CHECK(clattn_layer_run(layer, &io) == CLATTN_OK, "%s", clattn_last_error());
            clattn_check_close(y, s.want_hidden + (i + 1) * s.out_count, NULL, 2e-5, s.out_count, "one block");
            memcpy(x, y, (size_t)s.out_count * sizeof *x);
            clattn_layer_destroy(&layer);
        }
        clattn_guard_free(x);
        clattn_guard_free(y);
    }
    drop(&s);
}

/* Buffers that live at the same time lie apart; those of different blocks share bytes, so that a deeper stack needs no
 * larger arena. In a chain more of them live at the same time: `few` is without. */
static void check_arena(const stack_case *c, bool few) {
    stage s;
    if (make(&s, c)) {
        size_t arena[2] = {0};
        for (int deep = 0; deep < 2; deep++) {
            clattn_layer *layer = NULL;
            clattn_stack_desc d = s.desc;
            clattn_plan_info info;
            clattn_plan_buffer a, b;
            d.encoder_blocks = deep ? 3 : 2;
            d.hidden = 0;
            if (few) d.batch = 1;
            REQUIRE(clattn_stack_create(&layer, context, &d, &s.weights) == CLATTN_OK, "%s", clattn_last_error());
            clattn_layer_info(layer, &info);
            arena[deep] = info.arena_bytes;
            CHECK(info.arena_bytes * (few ? 2 : 1) < info.unshared_bytes, "%zu of %zu bytes", info.arena_bytes,
                  info.unshared_bytes);
            CHECK(info.flops > 0 && strstr(info.kernels, "layer_norm"), "kernels: %s", info.kernels);
            for (int i = 0; i < info.buffers; i++) {
                CHECK(clattn_layer_buffer(layer, i, &a) == CLATTN_OK && a.first_step >= 0, "buffer %d", i);
                CHECK(strstr(clattn_layer_explain(layer), a.name) != NULL, "explain does not show %s", a.name);
                for (int j = 0; j < i; j++) {
                    clattn_layer_buffer(layer, j, &b);
                    const bool together = a.first_step <= b.last_step && b.first_step <= a.last_step;
                    CHECK(!together || a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset,
                          "%s and %s overlap", a.name, b.name);
                }
            }
            CHECK(clattn_layer_buffer(layer, info.buffers, &a) == CLATTN_INVALID_ARGUMENT, "a row too many");
            clattn_layer_destroy(&layer);
        }
        CHECK(arena[0] == arena[1], "the arena grew from %zu to %zu bytes with a block more", arena[0], arena[1]);
    }
    drop(&s);
}

static void one_arena(void) {
    check_arena(&CASES[4], true);
    check_arena(&CASES[CASE_COUNT - 2], false);
}

/* Parts of the batch one after the other, then fewer rows at a time: the arena fits, and the result is the same. */
static void memory_limits(void) {
    static const int some[] = {4, 6, CASE_COUNT - 3, CASE_COUNT - 2, CASE_COUNT - 1};
    int in_parts = 0, in_rows = 0;
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        stage s;
        if (make(&s, &CASES[some[i]])) {
            clattn_stack_desc d = s.desc;
            clattn_layer *layer = NULL;
            clattn_plan_info whole = {0};
            CHECK(clattn_stack_create(&layer, context, &d, &s.weights) == CLATTN_OK &&
                      clattn_layer_info(layer, &whole) == CLATTN_OK,
                  "%s", clattn_last_error());
            clattn_layer_destroy(&layer);
            d.memory_limit = 1;
            CHECK(clattn_stack_create(&layer, context, &d, &s.weights) == CLATTN_MEMORY_LIMIT && !layer,
                  "a limit of one byte was accepted");
            const char *least = strstr(clattn_last_error(), "least that works is ");
            REQUIRE(least != NULL, "error was: %s", clattn_last_error());
            const size_t bytes = (size_t)strtoull(least + strlen("least that works is "), NULL, 10);
            d.memory_limit = bytes - 1;
            CHECK(clattn_stack_create(&layer, context, &d, &s.weights) == CLATTN_MEMORY_LIMIT, "less than the least");
            for (int times = 1; times <= 2; times++) {
                clattn_plan_info info = {0};
                d.memory_limit = bytes * (size_t)times;
                run(&s, &d, CASES[some[i]].name);
                CHECK(clattn_stack_create(&layer, context, &d, &s.weights) == CLATTN_OK &&
                          clattn_layer_info(layer, &info) == CLATTN_OK && info.arena_bytes <= d.memory_limit,
                      "%s: %zu of %zu bytes", CASES[some[i]].name, info.arena_bytes, d.memory_limit);
                in_parts += strstr(clattn_layer_explain(layer), "parts, one after the other, of") != NULL;
                in_rows += info.steps > whole.steps;
                clattn_layer_destroy(&layer);
            }
        }
        drop(&s);
    }
    CHECK(in_parts > 0 && in_rows > 0, "%d divided by batch entries, %d by rows", in_parts, in_rows);
}

/* On CPUs, what needs nothing of other rows is one launch, from the projection behind attention to the next block's;
 * buffers that such a launch uses at any step lie apart. */
static void steps_in_one_launch(void) {
    clattn_device_info device;
    clattn_context_device(context, &device);
    if (device.type != CLATTN_DEVICE_CPU || device.compute_units > 4) {
        clattn_test_skip("chains of 131 rows need a CPU with at most 4 compute units");
        return;
    }
    static const char *const first[2] = {"steps 1 to 2, 4 to 9, 11 to 16", "steps 0 to 1, 3 to 6"};
    for (int i = 0; i < 2; i++) {
        stage s;
        if (make(&s, &CASES[CASE_COUNT - 2 + i])) {
            clattn_layer *layer = NULL;
            clattn_plan_info info;
            REQUIRE(clattn_stack_create(&layer, context, &s.desc, &s.weights) == CLATTN_OK, "%s", clattn_last_error());
            clattn_layer_info(layer, &info);
            CHECK(strstr(info.kernels, "chain_cpu"), "kernels: %s", info.kernels);
            CHECK(strstr(clattn_layer_explain(layer), first[i]), "%s", clattn_layer_explain(layer));
            clattn_layer_destroy(&layer);
        }
        drop(&s);
    }
}

/* A chain that is wrong is not used: the steps run one by one, and the result is right. */
static void wrong_chains_are_found(void) {
    clattn_context *usual = context;
    clattn_context_options options;
    char folder[] = "/tmp/clattn-test-block-XXXXXX", kernels[64], command[96];
    if (!getenv("CLATTN_SOURCE_ROOT")) {
        clattn_test_skip("CLATTN_SOURCE_ROOT does not name the sources");
        return;
    }
    REQUIRE(mkdtemp(folder), "no folder");
    snprintf(kernels, sizeof kernels, "%s/cl", folder);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    REQUIRE(planted_copies(kernels, "chain_cpu.cl", "#define sqrt(x) pow(x, 0.49f)", "", ""), "no copies of kernels");
    clattn_context_options_init(&options);
    options.selector = getenv("CLATTN_DEVICE");
    options.kernel_dir = kernels;
    options.cache_dir = "";
    if (CHECK(clattn_context_create(&context, &options) == CLATTN_OK, "%s", clattn_last_error())) {
        stage s;
        clattn_layer *layer = NULL;
        if (make(&s, &CASES[CASE_COUNT - 2])) run(&s, &s.desc, "a wrong chain");
        CHECK(clattn_stack_create(&layer, context, &s.desc, &s.weights) == CLATTN_OK, "%s", clattn_last_error());
        CHECK(strstr(clattn_layer_explain(layer), "one launch each") == NULL, "%s", clattn_layer_explain(layer));
        clattn_layer_destroy(&layer);
        drop(&s);
        clattn_context_destroy(&context);
    }
    context = usual;
    CHECK(system(command) == 0, "%s", command);
}

static void bad_input(void) {
    stage s;
    if (make(&s, &CASES[6])) {
        clattn_layer *layer = NULL;
        clattn_stack_desc d;
        clattn_stack_weights w = s.weights;
        clattn_block_weights *block = &s.decoder[1];
        clattn_tensor kept;
#define EXPECT(change, status, word)                                                                                   \
    do {                                                                                                               \
        d = s.desc;                                                                                                    \
        change;                                                                                                        \
        const clattn_status got = clattn_stack_create(&layer, context, &d, &w);                                        \
        CHECK(got == (status) && !layer && strstr(clattn_last_error(), word), "%s: %s, '%s'", #change,                 \
              clattn_status_name(got), clattn_last_error());                                                           \
        clattn_layer_destroy(&layer);                                                                                  \
        w = s.weights;                                                                                                 \
    } while (0)
        EXPECT(d.eps = 0, CLATTN_INVALID_ARGUMENT, "eps is 0");
        EXPECT(d.eps = NAN, CLATTN_INVALID_ARGUMENT, "eps is");
        EXPECT(d.heads = 5, CLATTN_INVALID_SHAPE, "heads is 5");
        EXPECT(d.heads = 0, CLATTN_INVALID_SHAPE, "heads is 0");
        EXPECT(d.feed_forward = 0, CLATTN_INVALID_SHAPE, "feed_forward is 0");
        EXPECT(d.feed_forward = 63, CLATTN_INVALID_SHAPE, "expand.weight");
        EXPECT(d.activation = (clattn_activation)9, CLATTN_INVALID_ARGUMENT, "activation is 9");
        EXPECT(d.order = (clattn_norm_order)2, CLATTN_INVALID_ARGUMENT, "order is 2");
        EXPECT(d.causal = CLATTN_CAUSAL_OFFSET, CLATTN_INVALID_ARGUMENT, "causal is 3");
        EXPECT(d.encoder_blocks = d.decoder_blocks = 0, CLATTN_INVALID_ARGUMENT, "needs a block");
        EXPECT(d.decoder_blocks = 0, CLATTN_INVALID_SHAPE, "memory_rows");
        EXPECT(d.decoder_blocks = -1, CLATTN_INVALID_SHAPE, "decoder_blocks is -1");
        EXPECT((d.decoder_blocks = 0, d.memory_rows = 0), CLATTN_INVALID_ARGUMENT, "memory_padding_mask");
        EXPECT(d.position_base = 1, CLATTN_INVALID_ARGUMENT, "base is 1");
        EXPECT((d.features = 33, d.heads = 3), CLATTN_INVALID_SHAPE, "must be even");
        EXPECT(d.positions = CLATTN_POSITIONS_LEARNED, CLATTN_INVALID_ARGUMENT, "position table");
        EXPECT((d.positions = CLATTN_POSITIONS_NONE, d.positions_given = 1), CLATTN_INVALID_ARGUMENT,
               "positions_given");
        EXPECT(w.position_table = s.encoder[0].contract.weight, CLATTN_INVALID_ARGUMENT, "position_table is given");
        EXPECT(w.decoder = NULL, CLATTN_INVALID_ARGUMENT, "weights->decoder is NULL");
        EXPECT(w.encoder_norm.weight = s.encoder[0].expand.bias, CLATTN_INVALID_SHAPE, "encoder_norm.weight");
        kept = block->contract.weight;
        block->contract.weight.data = NULL;
        EXPECT((void)0, CLATTN_INVALID_ARGUMENT, "contract.weight is missing (decoder block 1)");
        block->contract.weight = kept;
        block->self_attention.bias_k = block->self_attention.bias_v = block->contract.bias;
        EXPECT((void)0, CLATTN_INVALID_ARGUMENT, "bias_k");
        memset(&block->self_attention.bias_k, 0, sizeof kept);
        memset(&block->self_attention.bias_v, 0, sizeof kept);
        kept = block->cross_attention.in_proj_weight;
        memset(&block->cross_attention.in_proj_weight, 0, sizeof kept);
        EXPECT((void)0, CLATTN_INVALID_ARGUMENT, "q_proj_weight is missing");
        block->cross_attention.in_proj_weight = kept;
#undef EXPECT
        CHECK(clattn_stack_create(&layer, context, &s.desc, NULL) == CLATTN_INVALID_ARGUMENT, "no weights");
        CHECK(clattn_stack_create(NULL, context, &s.desc, &w) == CLATTN_INVALID_ARGUMENT, "nowhere to put it");
        REQUIRE(clattn_stack_create(&layer, context, &s.desc, &w) == CLATTN_OK, "%s", clattn_last_error());
        clattn_layer_io io = s.io;
        memset(&io.memory, 0, sizeof io.memory);
        CHECK(clattn_layer_run(layer, &io) == CLATTN_INVALID_ARGUMENT && strstr(clattn_last_error(), "memory"),
              "no memory: %s", clattn_last_error());
        io = s.io;
        io.hidden.shape[0]--;
        CHECK(clattn_layer_run(layer, &io) == CLATTN_INVALID_SHAPE, "too few hidden states were accepted");
        clattn_layer_destroy(&layer);
    }
    drop(&s);
    if (make(&s, &CASES[4])) { /* learned positions end somewhere */
        clattn_layer *layer = NULL;
        s.desc.rows = TABLE_ROWS + 1;
        CHECK(clattn_stack_create(&layer, context, &s.desc, &s.weights) == CLATTN_INVALID_SHAPE &&
                  strstr(clattn_last_error(), "rows is 41; the position table has 40 rows"),
              "%s", clattn_last_error());
    }
    drop(&s);
}

int main(int argc, char **argv) {
    static const clattn_test tests[] = {{"every_case", every_case},
                                        {"tolerances_are_tight", tolerances_are_tight},
                                        {"other_kernels", other_kernels},
                                        {"memory_limits", memory_limits},
                                        {"stack_is_its_blocks", stack_is_its_blocks},
                                        {"one_arena", one_arena},
                                        {"steps_in_one_launch", steps_in_one_launch},
                                        {"wrong_chains_are_found", wrong_chains_are_found},
                                        {"bad_input", bad_input},
                                        {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"block", tests}, {NULL, NULL}};
    return clattn_test_main_with(&context, CLATTN_VERIFY_ONCE, suites, argc, argv);
}
