/* No launch keeps a slow device busy for longer than 200 ms: what would, goes in parts that give the same bits as one
 * launch, which is what a device of today gets. */
#include "clattn/clattn.h"
#include "harness.h"
#include "kernels/impl.h"
#include "registry/registry.h"

#include <stdlib.h>
#include <string.h>

static const char *const fast_device = "type=gpu,vendor=other,compute_units=40,clock_mhz=2000";
static const char *const slow_device = "type=gpu,vendor=other,compute_units=1,clock_mhz=1";

static clattn_context *open_with(const char *pretend, const char *engine) {
    clattn_context *context = NULL;
    clattn_context_options options;
    clattn_context_options_init(&options);
    options.selector = getenv("CLATTN_DEVICE");
    options.pretend = pretend;
    options.matrix_engine = engine;
    options.cache_dir = "";
    CHECK(clattn_context_create(&context, &options) == CLATTN_OK, "\"%s\": %s", pretend, clattn_last_error());
    return context;
}

static clattn_context *open_as(const char *pretend) { return open_with(pretend, NULL); }

/* ---- small kernels ----------------------------------------------------------------------------------------------- */

struct op_case;
typedef struct op_maker {
    clattn_status (*create)(clattn__op *op, clattn__programs *programs, const struct op_case *c);
    void (*fill)(clattn__op_call *call, const struct op_case *c);
} op_maker;

/* Every tensor is (1, 1, rows, width), dense, of float32 or of what fits into as many bytes. */
typedef struct op_case {
    const char *name;
    const op_maker *maker;
    int inputs[3], output; /* operands; inputs end with -1 */
    int spare;             /* another output, which is not looked at; 0: none */
    int rows, width, slow; /* launches on the slow device, which moves 50,000 elements in 200 ms */
    int kind;
} op_case;

static float table[64];

static clattn_status create_rows(clattn__op *op, clattn__programs *programs, const op_case *c) {
    clattn_status status = clattn__rows_create(op, programs, CLATTN_F32);
    return status == CLATTN_OK ? clattn__op_constant(op, CLATTN__ROWS_SOURCE, table, (size_t)c->width) : status;
}

static void fill_rows(clattn__op_call *call, const op_case *c) {
    const clattn_rows_args args = {.batch = 1, .heads = 1, .rows = c->rows, .width = c->width, .has_source = 1};
    memcpy(call->args.bytes, &args, sizeof args);
}

static clattn_status create_layer_norm(clattn__op *op, clattn__programs *programs, const op_case *c) {
    return clattn__layer_norm_create(op, programs, CLATTN_F32, c->width, NULL, NULL);
}

static clattn_status create_batch_apply(clattn__op *op, clattn__programs *programs, const op_case *c) {
    return clattn__batch_apply_create(op, programs, CLATTN_F32, c->width, NULL, NULL, table);
}

static void fill_norm(clattn__op_call *call, const op_case *c) {
    const clattn_norm_args args = {.batch = 1, .rows = c->rows, .features = c->width, .eps = 1e-5f};
    memcpy(call->args.bytes, &args, sizeof args);
}

static clattn_status create_elementwise(clattn__op *op, clattn__programs *programs, const op_case *c) {
    return clattn__elementwise_create(op, programs, CLATTN_F32, c->kind);
}

static void fill_elementwise(clattn__op_call *call, const op_case *c) {
    const clattn_elementwise_args args = {.batch = 1, .rows = c->rows, .features = c->width};
    memcpy(call->args.bytes, &args, sizeof args);
}

static clattn_status create_sinusoidal(clattn__op *op, clattn__programs *programs, const op_case *c) {
    const uint64_t turns[] = {1u << 20, 1u << 30, 3u << 28, 5u << 29};
    return clattn__sinusoidal_create(op, programs, CLATTN_F32, c->width, turns);
}

static clattn_status create_learned(clattn__op *op, clattn__programs *programs, const op_case *c) {
    return clattn__learned_create(op, programs, CLATTN_F32, table, 4, c->width);
}

static void fill_positions(clattn__op_call *call, const op_case *c) {
    const clattn_positions_args args = {.batch = 1, .rows = c->rows, .features = c->width, .table_rows = 4, .has_x = 1};
    memcpy(call->args.bytes, &args, sizeof args);
}

static clattn_rope_desc rope_desc(const op_case *c) {
    clattn_rope_desc d;
    clattn_rope_desc_init(&d);
    d.batch = d.heads = 1, d.rows = c->rows, d.head_dim = d.rotary_dim = c->width;
    d.positions = CLATTN_ROPE_NO_POSITIONS;
    return d;
}

static clattn_status create_rope(clattn__op *op, clattn__programs *programs, const op_case *c) {
    const clattn_rope_desc d = rope_desc(c);
    return clattn__rope_create(op, programs, &d, NULL, NULL);
}

static void fill_rope(clattn__op_call *call, const op_case *c) {
    const clattn_rope_desc d = rope_desc(c);
    const clattn_rope_args args = clattn__rope_args(&d);
    memcpy(call->args.bytes, &args, sizeof args);
}

static clattn_status create_softmax(clattn__op *op, clattn__programs *programs, const op_case *c) {
    return clattn__softmax_create(op, programs, CLATTN_F32, (clattn_softmax_kind)c->kind);
}

static void fill_softmax(clattn__op_call *call, const op_case *c) {
    clattn_softmax_desc d;
    clattn_softmax_desc_init(&d);
    d.kind = (clattn_softmax_kind)c->kind;
    d.rank = 4, d.axis = 3, d.shape[0] = d.shape[1] = 1, d.shape[2] = c->rows, d.shape[3] = c->width;
    d.probability = c->kind == CLATTN_SOFTMAX_CROSS_ENTROPY;
    clattn_softmax_shape shape;
    clattn__softmax_shape(&d, &shape);
    memcpy(call->args.bytes, &shape, sizeof shape);
}

/* The cache is empty, or full. */
static clattn_status create_cache(clattn__op *op, clattn__programs *programs, const op_case *c) {
    const bool gathers = c->output == CLATTN__CACHE_TOKENS;
    clattn_status status =
        clattn__cache_create(op, programs, gathers ? "kv_gather" : "kv_append", CLATTN_F32, (clattn_dtype)c->kind);
    float length;
    const int32_t tokens = gathers ? c->rows : 0;
    memcpy(&length, &tokens, sizeof length);
    return status == CLATTN_OK ? clattn__op_constant(op, 0, &length, 1) : status;
}

static void fill_cache(clattn__op_call *call, const op_case *c) {
    const clattn_cache_args args = {.cells = {.capacity = c->rows},
                                    .batch = 1,
                                    .heads = 1,
                                    .rows = c->rows,
                                    .width = c->width,
                                    .items = c->kind == CLATTN_I8 ? 1 : c->width};
    memcpy(call->args.bytes, &args, sizeof args);
}

static const op_maker row_filler = {create_rows, fill_rows}, layer_norm = {create_layer_norm, fill_norm},
                      batch_norm = {create_batch_apply, fill_norm},
                      elementwise = {create_elementwise, fill_elementwise},
                      sinusoidal = {create_sinusoidal, fill_positions}, learned = {create_learned, fill_positions},
                      rope = {create_rope, fill_rope}, softmax = {create_softmax, fill_softmax},
                      cache = {create_cache, fill_cache};
enum { RELU = CLATTN_ACTIVATION_RELU, ENTROPY = CLATTN_SOFTMAX_CROSS_ENTROPY };

static const op_case op_cases[] = {
    {"rows", &row_filler, {-1}, CLATTN__ROWS_Y, 0, 1000, 8, 4, 0},
    {"layer norm", &layer_norm, {CLATTN__NORM_X, -1}, CLATTN__NORM_Y, 0, 500, 8, 8, 0},
    {"batch norm", &batch_norm, {CLATTN__NORM_X, -1}, CLATTN__NORM_Y, 0, 500, 8, 4, 0},
    {"activation", &elementwise, {CLATTN__ELEMENTWISE_X, -1}, CLATTN__ELEMENTWISE_Y, 0, 500, 8, 8, RELU},
    {"long rows", &elementwise, {CLATTN__ELEMENTWISE_X, -1}, CLATTN__ELEMENTWISE_Y, 0, 2, 40000, 6, RELU},
    {"sinusoidal", &sinusoidal, {CLATTN__POSITIONS_X, -1}, CLATTN__POSITIONS_Y, 0, 500, 8, 6, 0},
    {"learned", &learned, {CLATTN__POSITIONS_X, -1}, CLATTN__POSITIONS_Y, 0, 500, 8, 3, 0},
    {"rope", &rope, {CLATTN__ROPE_X, -1}, CLATTN__ROPE_Y, 0, 500, 8, 6, 0},
    {"softmax", &softmax, {SOFTMAX_X, -1}, SOFTMAX_PROBABILITY, 0, 300, 8, 5, CLATTN_SOFTMAX_FORWARD},
    {"backward", &softmax, {SOFTMAX_X, SOFTMAX_SECOND, -1}, SOFTMAX_GRAD, 0, 300, 8, 5, CLATTN_SOFTMAX_BACKWARD},
    {"entropy", &softmax, {SOFTMAX_X, SOFTMAX_SECOND, -1}, SOFTMAX_PROBABILITY, SOFTMAX_LOSS, 300, 8, 5, ENTROPY},
    {"append", &cache, {CLATTN__CACHE_TOKENS, -1}, CLATTN__CACHE_CELLS, 0, 1000, 8, 4, CLATTN_F32},
    {"bytes", &cache, {CLATTN__CACHE_TOKENS, -1}, CLATTN__CACHE_CELLS, CLATTN__CACHE_SCALES, 1000, 8, 4, CLATTN_I8},
    {"gather", &cache, {CLATTN__CACHE_CELLS, -1}, CLATTN__CACHE_TOKENS, 0, 1000, 8, 4, CLATTN_F32},
};
enum { MOST_ELEMENTS = 2 * 40000 };

/* out: what the op wrote over NaN. */
static int count_op_launches(const char *pretend, const op_case *c, float *out) {
    static float x[MOST_ELEMENTS];
    const size_t count = (size_t)c->rows * (size_t)c->width, bytes = count * sizeof *x;
    for (size_t i = 0; i < count; i++) x[i] = (float)(i * 7 % 31) / 31 - 0.5f;
    for (size_t i = 0; i < CLATTN__COUNT(table); i++) table[i] = 0.5f + (float)i / 64;
    clattn_poison(out, bytes);
    clattn_context *context = open_as(pretend);
    if (!context) return 0;
    clattn__env *env = &context->env;
    clattn__op op = {0};
    clattn__op_call call;
    clattn__buffer from = {0}, to = {0}, other = {0};
    memset(&call, 0, sizeof call);
    c->maker->fill(&call, c);
    clattn_status status = clattn__buffer_create(env, bytes, &from);
    if (status == CLATTN_OK) status = clattn__buffer_create(env, bytes, &to);
    if (status == CLATTN_OK) status = clattn__buffer_create(env, bytes, &other);
    if (status == CLATTN_OK) status = clattn__buffer_write(env, from.mem, 0, bytes, x);
    if (status == CLATTN_OK) status = clattn__buffer_write(env, to.mem, 0, bytes, out);
    for (int i = 0; i < CLATTN__OP_OPERANDS; i++) {
        call.place[i] = (clattn_place){.batch = (clattn_i64)count, .head = (clattn_i64)count, .row = c->width};
        call.mem[i] = i == c->output ? to.mem : i > 0 && i == c->spare ? other.mem : NULL;
    }
    for (int i = 0; c->inputs[i] >= 0; i++) call.mem[c->inputs[i]] = from.mem;
    if (status == CLATTN_OK) status = c->maker->create(&op, &context->programs, c);
    (void)clattn_test_launches();
    if (status == CLATTN_OK) status = op.enqueue(&op, &call);
    const int launches = clattn_test_launches();
    if (status == CLATTN_OK) status = clattn__buffer_read(env, to.mem, 0, bytes, out);
    CHECK(status == CLATTN_OK, "%s, %s: %s", c->name, pretend, clattn_last_error());
    clattn__op_clear(&op);
    clattn__buffer_clear(env, &other);
    clattn__buffer_clear(env, &to);
    clattn__buffer_clear(env, &from);
    clattn_context_destroy(&context);
    return launches;
}

/* That one launch gives what the reference says is proved elsewhere. */
static void small_kernels(void) {
    static float at_once[MOST_ELEMENTS], in_parts[MOST_ELEMENTS];
    for (size_t i = 0; i < CLATTN__COUNT(op_cases); i++) {
        const op_case *c = &op_cases[i];
        const size_t bytes = (size_t)c->rows * (size_t)c->width * (c->kind == CLATTN_I8 ? 1 : sizeof *at_once);
        const int fast = count_op_launches(fast_device, c, at_once), slow = count_op_launches(slow_device, c, in_parts);
        CHECK(fast == 1, "%s: %d launches on a fast device", c->name, fast);
        CHECK(slow == c->slow, "%s: %d launches on a slow device, not %d", c->name, slow, c->slow);
        CHECK(memcmp(at_once, in_parts, bytes) == 0, "%s: parts give other bits", c->name);
        CHECK(!clattn_is_poison((char *)at_once + bytes - 4, 4), "%s: the end was not written", c->name);
    }
}

/* ---- attention, statistics --------------------------------------------------------------------------------------- */

enum { LONG_KEYS = 3000, LONG_DIM = 32 };

typedef struct long_case {
    const char *kernel;
    int query_len, kv_len, fast, slow; /* launches */
} long_case;

static int count_launches(const char *pretend, const long_case *c) {
    static float x[LONG_KEYS * LONG_DIM], out[LONG_KEYS * LONG_DIM], want[LONG_KEYS * LONG_DIM],
        tolerance[LONG_KEYS * LONG_DIM];
    for (int i = 0; i < LONG_KEYS * LONG_DIM; i++) x[i] = (float)(i * 7 % 31) / 31 - 0.5f;
    clattn_context *context = open_as(pretend);
    if (!CHECK(context, "%s: no context", pretend)) return 0;
    clattn_attention *plan = NULL;
    clattn_attention_desc d;
    clattn_attention_desc_init(&d);
    d.batch = 1, d.query_heads = 1, d.query_len = c->query_len, d.kv_len = c->kv_len, d.head_dim = LONG_DIM;
    d.causal = CLATTN_CAUSAL_BOTTOM_RIGHT;
    d.kernel = c->kernel;
    clattn_attention_io io = {.query = clattn_host(x, CLATTN_F32, 4, 1, 1, c->query_len, LONG_DIM),
                              .key = clattn_host(x, CLATTN_F32, 4, 1, 1, c->kv_len, LONG_DIM)};
    io.value = io.key, io.output = io.query;
    io.output.data = want;
    CHECK(clattn_reference_attention(&d, &io, tolerance) == CLATTN_OK, "%s", clattn_last_error());
    io.output.data = out;
    CHECK(clattn_attention_create(&plan, context, &d) == CLATTN_OK, "%s: %s", pretend, clattn_last_error());
    (void)clattn_test_launches();
    CHECK(plan && clattn_attention_run(plan, &io) == CLATTN_OK, "%s", clattn_last_error());
    const int count = clattn_test_launches();
    clattn_check_close(out, want, tolerance, 0, c->query_len * LONG_DIM, pretend);
    clattn_attention_destroy(&plan);
    clattn_context_destroy(&context);
    return count;
}

/* 5.8 million multiply-adds, and 0.2 million elements: no 200 ms for a GPU of today, many for one of 1 MHz. */
static void attention(void) {
    static const long_case cases[] = {{"attn_tiled", 300, 300, 1, 30},
                                      {"attn_naive", 300, 300, 1, 170},
                                      {"attn_decode", 1, LONG_KEYS, 2, 5}}; /* the last of them merges */
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const int fast = count_launches(fast_device, &cases[i]);
        const int slow = count_launches(slow_device, &cases[i]);
        CHECK(fast == cases[i].fast, "%s: %d launches on a fast device", cases[i].kernel, fast);
        CHECK(slow == cases[i].slow, "%s: %d launches on a slow device", cases[i].kernel, slow);
    }
}

static const struct {
    uint32_t features;
    int head_dim, value_dim;
    clattn_dtype dtype; /* on matrix engines: float16 */
} part_cases[] = {
    {CLATTN__CAUSAL | CLATTN__WINDOW | CLATTN__SOFTCAP | CLATTN__ALIBI | CLATTN__SINKS | CLATTN__LSE, 40, 24,
     CLATTN_F32},
    {CLATTN__MASK_BOOL | CLATTN__PADDING | CLATTN__ALWAYS_KEYS | CLATTN__DROPOUT | CLATTN__LSE, 32, 72, CLATTN_F16},
    {CLATTN__CAUSAL | CLATTN__VARLEN | CLATTN__LSE, 16, 16, CLATTN_F32},
    {CLATTN__CAUSAL | CLATTN__LENGTHS | CLATTN__OFFSET_FROM_LENGTHS | CLATTN__PAGED, 16, 16, CLATTN_F32},
    /* these only attn_naive has; keys are walked twice */
    {CLATTN__CAUSAL | CLATTN__WINDOW | CLATTN__SINKS | CLATTN__LSE | CLATTN__WEIGHTS, 9, 5, CLATTN_F32},
    {CLATTN__PADDING | CLATTN__ALWAYS_KEYS | CLATTN__VARLEN | CLATTN__AVERAGED_WEIGHTS | CLATTN__SCORES, 9, 5,
     CLATTN_F32}};
enum { OUTPUTS_ALONE = 4, PART_CASES = CLATTN__COUNT(part_cases) };

static void try_parts(const clattn__attn_impl *impl, const char *engine, size_t i) {
    const clattn__attn_problem problem = {.features = part_cases[i].features,
                                          .dtype = impl->uses_engine ? CLATTN_F16 : part_cases[i].dtype,
                                          .scores = CLATTN_SCORES_SOFTMAX,
                                          .batch = 2,
                                          .query_heads = 2,
                                          .kv_heads = 1,
                                          .query_len = 100,
                                          .kv_len = LONG_KEYS,
                                          .head_dim = part_cases[i].head_dim,
                                          .value_dim = part_cases[i].value_dim};
    clattn_context *context = open_with(slow_device, engine);
    if (!context) return;
    clattn__attn_kernel kernel = {.impl = impl, .programs = &context->programs, .problem = problem};
    CHECK(clattn__attn_prepare(&kernel, NULL) == CLATTN_OK && clattn__attn_verify(&kernel, true, NULL) == CLATTN_OK,
          "%s, case %d: %s", impl->name, (int)i, clattn_last_error());
    CHECK(kernel.part_keys > 0, "%s, case %d: all keys in one launch", impl->name, (int)i);
    clattn__attn_kernel_clear(&kernel);
    clattn_context_destroy(&context);
}

/* What a launch leaves to the next one, with every way in which keys are forbidden or looked up; verification runs each
 * case in parts and, the second time, at once, and wants the same bits. */
static void parts_of_keys(void) {
    for (size_t i = 0; i < OUTPUTS_ALONE; i++) try_parts(&clattn__attn_tiled, NULL, i);
    for (size_t i = OUTPUTS_ALONE; i < PART_CASES; i++) try_parts(&clattn__attn_naive, NULL, i);
}

static void parts_on_engines(void) {
    static const char *const engines[] = {"emulated:nv", "emulated:wmma11"};
    for (size_t i = 0; i < CLATTN__COUNT(engines); i++) try_parts(&clattn__attn_matrix, engines[i], i);
}

/* Rows of a batch norm go in parts, whose statistics are united. */
static int count_norm_launches(const char *pretend) {
    enum { B = 3, L = 170, E = 5 };
    static float x[B * L * E], out[B * L * E], want[B * L * E], tolerance[B * L * E];
    for (int i = 0; i < B * L * E; i++) x[i] = (float)(i * 7 % 31) / 31 + (float)(i % E) + (float)i / (B * L);
    clattn_context *context = open_as(pretend);
    if (!CHECK(context, "%s: no context", pretend)) return 0;
    clattn_layer *norm = NULL;
    clattn_norm_desc d;
    clattn_norm_desc_init(&d);
    d.kind = CLATTN_NORM_BATCH, d.batch = B, d.rows = L, d.features = E;
    clattn_layer_io io = {.input = clattn_host(x, CLATTN_F32, 3, B, L, E, 0),
                          .output = clattn_host(want, CLATTN_F32, 3, B, L, E, 0)};
    CHECK(clattn_reference_norm(&d, NULL, &io, tolerance) == CLATTN_OK, "%s", clattn_last_error());
    io.output.data = out;
    CHECK(clattn_norm_create(&norm, context, &d, NULL) == CLATTN_OK, "%s: %s", pretend, clattn_last_error());
    (void)clattn_test_launches();
    CHECK(norm && clattn_layer_run(norm, &io) == CLATTN_OK, "%s", clattn_last_error());
    const int count = clattn_test_launches();
    clattn_check_close(out, want, tolerance, 0, B * L * E, pretend);
    clattn_layer_destroy(&norm);
    clattn_context_destroy(&context);
    return count;
}

static void batch_statistics(void) { /* and then normalise */
    const int fast = count_norm_launches(fast_device);
    const int slow = count_norm_launches(slow_device); /* 200 rows of 510 in 200 ms */
    CHECK(fast == 1 + 1, "%d launches on a fast device", fast);
    CHECK(slow == 3 + 4, "%d launches on a slow device", slow);
}

int main(int argc, char **argv) {
    static const clattn_test tests[] = {{"small kernels", small_kernels},       {"attention", attention},
                                        {"parts of keys", parts_of_keys},       {"parts on engines", parts_on_engines},
                                        {"batch statistics", batch_statistics}, {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"launches", tests}, {NULL, NULL}};
    return clattn_test_main(suites, argc, argv);
}
