/* Tensors of 16 bits and weights of every float type: each layer against its reference, on every kernel that takes
 * them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clattn/layers.h"
#include "clattn/reference.h"
#include "clattn/softmax.h"
#include "harness.h"
#include "ref/ref.h"

static clattn_context *context;

/* Types of the tensors and of the weights. */
typedef struct types {
    clattn_dtype tensors, weights;
} types;
static const types TYPES[] = {{CLATTN_F16, CLATTN_F16},
                              {CLATTN_BF16, CLATTN_BF16},
                              {CLATTN_F16, CLATTN_F32},
                              {CLATTN_BF16, CLATTN_F16},
                              {CLATTN_F32, CLATTN_BF16}};
enum { TYPE_COUNT = sizeof TYPES / sizeof *TYPES };

/* ---- one case's memory, behind guards --------------------------------------------------------------------------- */

enum { MOST = 96 };
typedef struct stage {
    types types;
    clattn_random random;
    void *memory[MOST];
    int count;
    char what[160];
} stage;

static void *new_memory(stage *s, size_t bytes) {
    if (s->count == MOST) abort(); /* a mistake in the test */
    return s->memory[s->count++] = clattn_guard_alloc(bytes);
}

static clattn_tensor new_tensor(stage *s, clattn_dtype dtype, int rank, int64_t n0, int64_t n1, int64_t n2,
                                int64_t n3) {
    clattn_tensor t = clattn_host(NULL, dtype, rank, n0, n1, n2, n3);
    int64_t count = 1;
    for (int i = 0; i < rank; i++) count *= t.shape[i];
    t.data = new_memory(s, (size_t)count * clattn_dtype_size(dtype));
    return t;
}

static int64_t count_of(const clattn_tensor *t) {
    int64_t count = 1;
    for (int i = 0; i < t->rank; i++) count *= t->shape[i];
    return count;
}

static clattn_tensor filled(stage *s, clattn_dtype dtype, double size, int rank, int64_t n0, int64_t n1, int64_t n2) {
    clattn_tensor t = new_tensor(s, dtype, rank, n0, n1, n2, 0);
    for (int64_t i = 0; i < count_of(&t); i++)
        clattn__ref_store(t.data, dtype, i, size * clattn_random_normal(&s->random));
    return t;
}

static clattn_tensor tokens(stage *s, int64_t batch, int64_t rows, int64_t features) {
    return filled(s, s->types.tensors, 1, 3, batch, rows, features);
}

static clattn_tensor matrix(stage *s, int64_t n, int64_t k) {
    return filled(s, s->types.weights, 1 / sqrt((double)k), 2, n, k, 0);
}

static clattn_tensor vector(stage *s, int64_t n) { return filled(s, s->types.weights, 1, 1, n, 0, 0); }

static void drop(stage *s) {
    for (int i = 0; i < s->count; i++) {
        CHECK(clattn_guard_intact(s->memory[i]), "%s: something wrote beside tensor %d", s->what, i);
        clattn_guard_free(s->memory[i]);
    }
}

/* Element i of the dense tensor, whatever its type and strides are. */
static float element(const clattn_tensor *t, int64_t i) {
    int64_t at = 0, step = 1;
    for (int axis = t->rank - 1; axis >= 0; axis--) {
        at += i % t->shape[axis] * (t->stride[t->rank - 1] ? t->stride[axis] : step);
        i /= t->shape[axis];
        step *= t->shape[axis];
    }
    return (float)clattn__ref_load(t->data, t->dtype, at);
}

static void compare(const stage *s, const clattn_tensor *got, const clattn_tensor *want, const float *tolerance) {
    const int64_t count = count_of(got);
    float *wide = calloc(2 * (size_t)count + 1, sizeof *wide);
    if (!wide) abort(); /* a test without memory cannot go on */
    for (int64_t i = 0; i < count; i++) {
        wide[i] = element(got, i);
        wide[count + i] = element(want, i);
    }
    clattn_check_close(wide, wide + count, tolerance, 0, count, s->what);
    free(wide);
}

static void poison(const clattn_tensor *t) {
    clattn_poison(t->data, (size_t)count_of(t) * clattn_dtype_size(t->dtype));
}

/* ---- multi-head attention --------------------------------------------------------------------------------------- */

typedef struct mha_case {
    clattn_mha_desc desc;
    clattn_mha_weights weights;
    clattn_mha_io io;
} mha_case;

/* Self-attention in causal order; three inputs of different widths, rows first; appended keys under masks. */
enum { SELF = 0, SEPARATE = 1, APPENDED = 2, MHA_CASES = 3 };

static void make_mha(stage *s, int which, mha_case *c) {
    const int64_t B = 2, E = 48, H = 3, L = which == SELF ? 65 : 9, S = which == SELF ? L : 21;
    const int64_t kdim = which == SEPARATE ? 20 : E, vdim = which == SEPARATE ? 27 : E;
    clattn_mha_desc *d = &c->desc;
    clattn_mha_weights *w = &c->weights;
    memset(c, 0, sizeof *c);
    clattn_mha_desc_init(d);
    d->batch = B, d->query_len = L, d->kv_len = S, d->embed_dim = E, d->heads = H, d->key_dim = kdim,
    d->value_dim = vdim;
    d->inputs = which == SELF ? CLATTN_MHA_SELF : which == SEPARATE ? CLATTN_MHA_SEPARATE : CLATTN_MHA_CROSS;
    d->dtype = s->types.tensors;
    if (which == SELF) d->causal = CLATTN_CAUSAL_TOP_LEFT;
    c->io.query = tokens(s, B, L, E);
    if (which != SELF) c->io.key = tokens(s, B, S, kdim);
    if (which == SEPARATE) c->io.value = tokens(s, B, S, vdim);
    c->io.output = new_tensor(s, s->types.tensors, 3, B, L, E, 0);
    if (which == SEPARATE) { /* (L, B, E) */
        clattn_tensor *const turned[] = {&c->io.query, &c->io.output};
        for (int i = 0; i < 2; i++) turned[i]->stride[0] = E, turned[i]->stride[1] = B * E, turned[i]->stride[2] = 1;
    }
    if (which == SELF) {
        w->in_proj_weight = matrix(s, 3 * E, E);
        w->in_proj_bias = vector(s, 3 * E);
    } else {
        w->q_proj_weight = matrix(s, E, E);
        w->k_proj_weight = matrix(s, E, kdim);
        w->v_proj_weight = matrix(s, E, vdim);
        w->q_proj_bias = vector(s, E);
    }
    w->out_proj_weight = matrix(s, E, E);
    w->out_proj_bias = vector(s, E);
    if (which != APPENDED) return;
    w->bias_k = vector(s, E);
    w->bias_v = vector(s, E);
    d->add_zero_attn = 1;
    d->mask = CLATTN_MASK_FLOAT;
    d->mask_shape[0] = d->mask_shape[1] = 1, d->mask_shape[2] = L, d->mask_shape[3] = S;
    c->io.mask = filled(s, CLATTN_F32, 1, 3, 1, L, S);
    c->io.mask = clattn_host(c->io.mask.data, CLATTN_F32, 4, 1, 1, L, S);
}

static void check_mha(stage *s, mha_case *c, const char *gemm) {
    clattn_mha *mha = NULL;
    clattn_tensor want = new_tensor(s, c->desc.dtype, 3, c->desc.batch, c->desc.query_len, c->desc.embed_dim, 0);
    clattn_tensor got = c->io.output;
    memcpy(want.stride, got.stride, sizeof want.stride);
    float *tolerance = new_memory(s, (size_t)count_of(&want) * sizeof *tolerance);
    c->desc.gemm_kernel = gemm;
    c->io.output = want;
    if (!CHECK(clattn_reference_mha(&c->desc, &c->weights, &c->io, tolerance) == CLATTN_OK, "%s: %s", s->what,
               clattn_last_error()))
        return;
    c->io.output = got;
    poison(&got);
    if (CHECK(clattn_mha_create(&mha, context, &c->desc, &c->weights) == CLATTN_OK, "%s: %s", s->what,
              clattn_last_error()) &&
        CHECK(clattn_mha_run(mha, &c->io) == CLATTN_OK, "%s: %s", s->what, clattn_last_error()))
        compare(s, &got, &want, tolerance);
    clattn_mha_destroy(&mha);
}

static void multi_head_attention(void) {
    static const char *const gemms[] = {NULL, "gemm_tiled", "gemm_host"};
    for (int which = 0; which < MHA_CASES; which++)
        for (int t = 0; t < TYPE_COUNT; t++) {
            stage s = {.types = TYPES[t], .random = {40 + (uint64_t)which}};
            mha_case c;
            const char *gemm = gemms[(which + t) % 3];
            snprintf(s.what, sizeof s.what, "layer %d, %s with %s weights, %s", which,
                     clattn_dtype_name(TYPES[t].tensors), clattn_dtype_name(TYPES[t].weights),
                     gemm ? gemm : "the first product");
            make_mha(&s, which, &c);
            check_mha(&s, &c, gemm);
            drop(&s);
        }
}

/* With 16 bits there are half the bytes, and a limit leaves the heads together. */
static void memory(void) {
    stage s = {.types = {CLATTN_F16, CLATTN_F32}, .random = {50}, .what = "float16 in the least memory that works"};
    mha_case c;
    make_mha(&s, SELF, &c);
    size_t bytes[2] = {0};
    for (int narrow = 0; narrow < 2; narrow++) {
        clattn_mha *mha = NULL;
        clattn_plan_info info;
        c.desc.dtype = narrow ? CLATTN_F16 : CLATTN_F32;
        if (CHECK(clattn_mha_create(&mha, context, &c.desc, &c.weights) == CLATTN_OK, "%s", clattn_last_error()) &&
            CHECK(clattn_mha_info(mha, &info) == CLATTN_OK, "no info"))
            bytes[narrow] = info.unshared_bytes;
        clattn_mha_destroy(&mha);
    }
    CHECK(bytes[1] >= bytes[0] / 2 && bytes[1] < bytes[0] / 2 + 1024, "float32 takes %zu bytes, float16 %zu", bytes[0],
          bytes[1]);
    clattn_mha *mha = NULL;
    c.desc.memory_limit = 1;
    CHECK(clattn_mha_create(&mha, context, &c.desc, &c.weights) == CLATTN_MEMORY_LIMIT &&
              strstr(clattn_last_error(), "3 of 3 heads"),
          "%s", clattn_last_error());
    const char *least = strstr(clattn_last_error(), "least that works is ");
    if (CHECK(least != NULL, "error was: %s", clattn_last_error())) {
        c.desc.memory_limit = (size_t)strtoull(least + strlen("least that works is "), NULL, 10);
        check_mha(&s, &c, NULL);
    }
    drop(&s);
}

/* ---- layers around attention ------------------------------------------------------------------------------------ */

/* One layer, already described: its create and reference calls with everything but the outputs. */
typedef struct layer_case {
    clattn_linear_desc linear;
    clattn_linear_weights linear_weights;
    clattn_norm_desc norm;
    clattn_norm_weights norm_weights;
    clattn_activation_desc activation;
    clattn_positions_desc positions;
    clattn_tensor table;
    clattn_stack_desc stack;
    clattn_stack_weights stack_weights;
    clattn_block_weights encoder[2], decoder[2];
    clattn_layer_io io;
} layer_case;

enum kind { LINEAR, NORM, BATCH_NORM, ACTIVATION, SINUSOIDAL, LEARNED, POST_NORM, PRE_NORM, KINDS };
static const char *const KIND_NAMES[KINDS] = {"linear",     "layer norm", "batch norm",       "activation",
                                              "sinusoidal", "learned",    "post-norm blocks", "pre-norm blocks"};
enum { B = 2, L = 11, S = 7, E = 36, F = 50, HEADS = 4 };

static clattn_norm_weights norm_weights(stage *s) {
    return (clattn_norm_weights){.weight = vector(s, E), .bias = vector(s, E)};
}

static clattn_linear_weights linear_weights(stage *s, int64_t n, int64_t k) {
    return (clattn_linear_weights){.weight = matrix(s, n, k), .bias = vector(s, n)};
}

static clattn_mha_weights attention_weights(stage *s) {
    return (clattn_mha_weights){.in_proj_weight = matrix(s, 3 * E, E),
                                .in_proj_bias = vector(s, 3 * E),
                                .out_proj_weight = matrix(s, E, E),
                                .out_proj_bias = vector(s, E)};
}

static clattn_block_weights block_weights(stage *s, bool decoder) {
    clattn_block_weights w = {.self_attention = attention_weights(s),
                              .self_norm = norm_weights(s),
                              .expand = linear_weights(s, F, E),
                              .contract = linear_weights(s, E, F),
                              .feed_forward_norm = norm_weights(s)};
    if (!decoder) return w;
    w.cross_attention = attention_weights(s);
    w.cross_norm = norm_weights(s);
    return w;
}

/* An encoder-decoder in post-norm order with everything around it, or a decoder in pre-norm order. */
static void make_stack(stage *s, layer_case *c, bool pre_norm) {
    clattn_stack_desc *d = &c->stack;
    clattn_stack_desc_init(d);
    d->batch = B, d->rows = L, d->memory_rows = S, d->features = E, d->heads = HEADS, d->feed_forward = F;
    d->encoder_blocks = pre_norm ? 0 : 1, d->decoder_blocks = 2;
    d->order = pre_norm ? CLATTN_PRE_NORM : CLATTN_POST_NORM;
    d->activation = CLATTN_ACTIVATION_GELU;
    d->causal = CLATTN_CAUSAL_TOP_LEFT;
    d->dtype = s->types.tensors;
    d->positions = pre_norm ? CLATTN_POSITIONS_SINUSOIDAL : CLATTN_POSITIONS_LEARNED;
    d->hidden = 1;
    c->io.memory = tokens(s, B, S, E);
    c->io.hidden = new_tensor(s, s->types.tensors, 4, 3, B, L, E);
    c->encoder[0] = block_weights(s, false);
    for (int i = 0; i < 2; i++) c->decoder[i] = block_weights(s, true);
    c->stack_weights.encoder = pre_norm ? NULL : c->encoder;
    c->stack_weights.decoder = c->decoder;
    c->stack_weights.decoder_norm = norm_weights(s);
    if (pre_norm) return;
    c->stack_weights.position_table = matrix(s, L, E);
    c->stack_weights.input_norm = norm_weights(s);
    c->stack_weights.encoder_norm = norm_weights(s);
}

static void make_layer(stage *s, enum kind kind, layer_case *c) {
    const clattn_dtype dtype = s->types.tensors;
    memset(c, 0, sizeof *c);
    c->io.input = tokens(s, B, L, E);
    c->io.output = new_tensor(s, dtype, 3, B, L, kind == LINEAR ? F : E, 0);
    clattn_linear_desc_init(&c->linear);
    c->linear.batch = B, c->linear.rows = L, c->linear.in_features = E, c->linear.out_features = F;
    c->linear.activation = CLATTN_ACTIVATION_GELU, c->linear.dtype = dtype;
    if (kind == LINEAR) c->linear_weights = linear_weights(s, F, E);
    clattn_norm_desc_init(&c->norm);
    c->norm.batch = B, c->norm.rows = L, c->norm.features = E, c->norm.dtype = dtype;
    c->norm.kind = kind == BATCH_NORM ? CLATTN_NORM_BATCH : CLATTN_NORM_LAYER;
    if (kind == NORM || kind == BATCH_NORM) c->norm_weights = norm_weights(s);
    if (kind == NORM) {
        c->norm.residual = c->norm.sum = 1;
        c->io.residual = tokens(s, B, L, E);
        c->io.sum = new_tensor(s, dtype, 3, B, L, E, 0);
    }
    clattn_activation_desc_init(&c->activation);
    c->activation.batch = B, c->activation.rows = L, c->activation.features = E, c->activation.dtype = dtype;
    c->activation.activation = CLATTN_ACTIVATION_GELU;
    clattn_positions_desc_init(&c->positions);
    c->positions.batch = B, c->positions.rows = L, c->positions.features = E, c->positions.dtype = dtype;
    c->positions.add = 1;
    c->positions.kind = kind == LEARNED ? CLATTN_POSITIONS_LEARNED : CLATTN_POSITIONS_SINUSOIDAL;
    if (kind == LEARNED) c->table = matrix(s, L, E);
    if (kind == POST_NORM || kind == PRE_NORM) make_stack(s, c, kind == PRE_NORM);
}

static clattn_status create_layer(clattn_layer **layer, enum kind kind, const layer_case *c) {
    switch (kind) {
    case LINEAR:
        return clattn_linear_create(layer, context, &c->linear, &c->linear_weights);
    case NORM:
    case BATCH_NORM:
        return clattn_norm_create(layer, context, &c->norm, &c->norm_weights);
    case ACTIVATION:
        return clattn_activation_create(layer, context, &c->activation);
    case SINUSOIDAL:
    case LEARNED:
        return clattn_positions_create(layer, context, &c->positions, kind == LEARNED ? &c->table : NULL);
    default:
        return clattn_stack_create(layer, context, &c->stack, &c->stack_weights);
    }
}

static clattn_status refer(enum kind kind, const layer_case *c, const clattn_layer_io *io, float *tolerance) {
    switch (kind) {
    case LINEAR:
        return clattn_reference_linear(&c->linear, &c->linear_weights, io, tolerance);
    case NORM:
    case BATCH_NORM:
        return clattn_reference_norm(&c->norm, &c->norm_weights, io, tolerance);
    case ACTIVATION:
        return clattn_reference_activation(&c->activation, io, tolerance);
    case SINUSOIDAL:
    case LEARNED:
        return clattn_reference_positions(&c->positions, kind == LEARNED ? &c->table : NULL, io, tolerance);
    default:
        return clattn_reference_stack(&c->stack, &c->stack_weights, io, tolerance);
    }
}

static void check_layer(stage *s, enum kind kind, layer_case *c) {
    clattn_layer *layer = NULL;
    clattn_layer_io want = c->io;
    clattn_tensor *const outputs[][2] = {
        {&c->io.output, &want.output}, {&c->io.sum, &want.sum}, {&c->io.hidden, &want.hidden}};
    for (int i = 0; i < 3; i++) {
        if (!outputs[i][0]->data) continue;
        poison(outputs[i][0]);
        const int64_t *n = outputs[i][0]->shape;
        *outputs[i][1] = new_tensor(s, s->types.tensors, outputs[i][0]->rank, n[0], n[1], n[2], n[3]);
    }
    float *tolerance = new_memory(s, (size_t)count_of(&c->io.output) * sizeof *tolerance);
    if (CHECK(refer(kind, c, &want, tolerance) == CLATTN_OK, "%s: %s", s->what, clattn_last_error()) &&
        CHECK(create_layer(&layer, kind, c) == CLATTN_OK, "%s: %s", s->what, clattn_last_error()) &&
        CHECK(clattn_layer_run(layer, &c->io) == CLATTN_OK, "%s: %s", s->what, clattn_last_error())) {
        compare(s, &c->io.output, &want.output, tolerance);
        for (int64_t i = 0; c->io.sum.data && i < count_of(&c->io.sum); i++) { /* one sum, one rounding */
            const float got = element(&c->io.sum, i), right = element(&want.sum, i);
            CHECK(got == right, "%s: sum %lld is %g, not %g", s->what, (long long)i, (double)got, (double)right);
        }
        if (c->io.hidden.data && c->stack.positions == CLATTN_POSITIONS_SINUSOIDAL) { /* one rounding behind the sum */
            for (int64_t i = 0; i < B * L * E; i++) {
                const double got = (double)element(&c->io.hidden, i), right = (double)element(&want.hidden, i);
                CHECK(fabs(got - right) <= clattn__ref_storage_rounding(s->types.tensors, right) + 1e-6,
                      "%s: hidden %lld is %g, not %g", s->what, (long long)i, got, right);
            }
        }
    }
    clattn_layer_destroy(&layer);
}

static void layers(void) {
    for (int kind = 0; kind < KINDS; kind++)
        for (int t = 0; t < TYPE_COUNT; t++) {
            stage s = {.types = TYPES[t], .random = {70 + (uint64_t)kind}};
            layer_case c;
            snprintf(s.what, sizeof s.what, "%s, %s with %s weights", KIND_NAMES[kind],
                     clattn_dtype_name(TYPES[t].tensors), clattn_dtype_name(TYPES[t].weights));
            make_layer(&s, (enum kind)kind, &c);
            check_layer(&s, (enum kind)kind, &c);
            drop(&s);
        }
}

/* ---- softmax ---------------------------------------------------------------------------------------------------- */

/* Every output of one kind, along the last axis and along another one, under a mask. */
static void check_softmax(stage *s, clattn_softmax_kind kind, int axis) {
    const clattn_dtype dtype = s->types.tensors;
    const int64_t n[3] = {3, 21, 10};
    const bool backward = kind == CLATTN_SOFTMAX_BACKWARD, loss = kind == CLATTN_SOFTMAX_CROSS_ENTROPY;
    int64_t kept[3] = {n[0], n[1], n[2]};
    kept[axis] = 1;
    clattn_softmax_desc d;
    clattn_softmax_desc_init(&d);
    d.kind = kind, d.rank = 3, d.axis = axis, d.dtype = dtype, d.mask = 1, d.temperature = 1.5f;
    d.probability = d.gradient = loss;
    memcpy(d.shape, n, sizeof n);
    clattn_softmax_io io = {0}, want;
    io.mask = new_tensor(s, CLATTN_BOOL, 3, n[0], n[1], n[2], 0);
    for (int64_t i = 0; i < count_of(&io.mask); i++)
        ((uint8_t *)io.mask.data)[i] = clattn_random_uniform(&s->random, 0, 1) < 0.8;
    clattn_tensor *const input = backward ? &io.probability : &io.x;
    *input = filled(s, dtype, backward ? 0.1 : 3, 3, n[0], n[1], n[2]);
    if (backward) io.grad_output = filled(s, dtype, 1, 3, n[0], n[1], n[2]);
    if (loss) io.labels = new_tensor(s, CLATTN_I32, 3, kept[0], kept[1], kept[2], 0);
    for (int64_t i = 0; loss && i < count_of(&io.labels); i++)
        ((int32_t *)io.labels.data)[i] = (int32_t)clattn_random_below(&s->random, n[axis]);
    want = io;
    for (int side = 0; side < 2; side++) {
        clattn_softmax_io *out = side ? &want : &io;
        if (!backward) out->probability = new_tensor(s, dtype, 3, n[0], n[1], n[2], 0);
        if (backward || loss) out->grad_x = new_tensor(s, dtype, 3, n[0], n[1], n[2], 0);
        if (loss) out->loss = new_tensor(s, CLATTN_F32, 3, kept[0], kept[1], kept[2], 0);
    }
    const size_t bytes = (size_t)(n[0] * n[1] * n[2]) * sizeof(float);
    const clattn_softmax_tolerance tolerance = {new_memory(s, bytes), new_memory(s, bytes), new_memory(s, bytes)};
    clattn_softmax *plan = NULL;
    if (CHECK(clattn_reference_softmax(&d, &want, &tolerance) == CLATTN_OK, "%s: %s", s->what, clattn_last_error()) &&
        CHECK(clattn_softmax_create(&plan, context, &d) == CLATTN_OK, "%s: %s", s->what, clattn_last_error()) &&
        CHECK(clattn_softmax_run(plan, &io) == CLATTN_OK, "%s: %s", s->what, clattn_last_error())) {
        if (!backward) compare(s, &io.probability, &want.probability, tolerance.probability);
        if (backward || loss) compare(s, &io.grad_x, &want.grad_x, tolerance.grad_x);
        if (loss) compare(s, &io.loss, &want.loss, tolerance.loss);
        clattn_softmax_io wrong = io;
        if (backward)
            wrong.grad_output.dtype = CLATTN_F32;
        else
            wrong.x.dtype = CLATTN_F32;
        CHECK(clattn_softmax_run(plan, &wrong) == CLATTN_INVALID_ARGUMENT &&
                  strstr(clattn_last_error(), "has element type float32; it must be"),
              "%s: mixed types: %s", s->what, clattn_last_error());
    }
    clattn_softmax_destroy(&plan);
    d.dtype = CLATTN_I64;
    CHECK(clattn_softmax_create(&plan, context, &d) == CLATTN_INVALID_ARGUMENT &&
              strstr(clattn_last_error(), "dtype is 5; it must be in 0..2"),
          "%s", clattn_last_error());
}

static void softmax(void) {
    for (clattn_dtype dtype = CLATTN_F16; dtype <= CLATTN_BF16; dtype++)
        for (int kind = 0; kind <= CLATTN_SOFTMAX_CROSS_ENTROPY; kind++)
            for (int axis = 1; axis <= 2; axis++) {
                stage s = {.types = {dtype, dtype}, .random = {90}};
                snprintf(s.what, sizeof s.what, "softmax %d along axis %d, %s", kind, axis, clattn_dtype_name(dtype));
                check_softmax(&s, (clattn_softmax_kind)kind, axis);
                drop(&s);
            }
}

/* ---- what is refused -------------------------------------------------------------------------------------------- */

#define REFUSED(call, text)                                                                                            \
    CHECK((call) == CLATTN_INVALID_ARGUMENT && strstr(clattn_last_error(), text), "expected '%s', got '%s'", text,     \
          clattn_last_error())

static void mistakes(void) {
    stage s = {.types = {CLATTN_F16, CLATTN_F16}, .random = {60}, .what = "mistakes"};
    mha_case c;
    clattn_mha *mha = NULL;
    make_mha(&s, SELF, &c);
    c.desc.dtype = CLATTN_BOOL;
    REFUSED(clattn_mha_create(&mha, context, &c.desc, &c.weights), "dtype is 3; it must be in 0..2");
    c.desc.dtype = CLATTN_BF16;
    clattn_mha_weights w = c.weights;
    w.out_proj_bias.dtype = CLATTN_I32;
    REFUSED(clattn_mha_create(&mha, context, &c.desc, &w),
            "out_proj_bias has element type int32; it must be float32, float16 or bfloat16");
    if (CHECK(clattn_mha_create(&mha, context, &c.desc, &c.weights) == CLATTN_OK, "%s", clattn_last_error()))
        REFUSED(clattn_mha_run(mha, &c.io), "query has element type float16; it must be bfloat16");
    clattn_mha_destroy(&mha);
    drop(&s);
    for (int kind = 0; kind < KINDS; kind++) {
        stage other = {.types = {CLATTN_BF16, CLATTN_BF16}, .random = {80}, .what = "mistakes"};
        layer_case l;
        clattn_layer *layer = NULL;
        make_layer(&other, (enum kind)kind, &l);
        if (CHECK(create_layer(&layer, (enum kind)kind, &l) == CLATTN_OK, "%s", clattn_last_error())) {
            l.io.input.dtype = CLATTN_F16;
            REFUSED(clattn_layer_run(layer, &l.io), "input has element type float16; it must be bfloat16");
        }
        clattn_layer_destroy(&layer);
        l.linear.dtype = l.norm.dtype = l.activation.dtype = l.positions.dtype = l.stack.dtype = CLATTN_I8;
        REFUSED(create_layer(&layer, (enum kind)kind, &l), "dtype is 6; it must be in 0..2");
        drop(&other);
    }
}

int main(int argc, char **argv) {
    static const clattn_test tests[] = {{"multi_head_attention", multi_head_attention},
                                        {"memory", memory},
                                        {"layers", layers},
                                        {"softmax", softmax},
                                        {"mistakes", mistakes},
                                        {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"storage", tests}, {NULL, NULL}};
    return clattn_test_main_with(&context, CLATTN_VERIFY_ONCE, suites, argc, argv);
}
