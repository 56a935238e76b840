/* Past and present keys and values: attention on both parts is attention on the whole, in the reference to the bit and
 * in every kernel within the error model; present is the whole. */
#include <string.h>

#include "clattn/clattn.h"
#include "harness.h"
#include "ref/ref.h"

static clattn_context *context;

enum { B = 2, H = 4, G = 2, L = 5, T = 21, D = 12, DV = 9, QUERY = B * H * L * D, OUTPUT = B * H * L * DV };
enum { KEYS = B * G * T * D, VALUES = B * G * T * DV };

typedef struct past_case {
    clattn_dtype dtype;
    int64_t past;
    int present, causal, window;
} past_case;

static const past_case cases[] = {
    {CLATTN_F32, 16, 0, 1, -1}, {CLATTN_F32, 16, 1, 0, 3}, {CLATTN_F32, 0, 1, 1, -1},
    {CLATTN_F32, T, 1, 1, -1},  {CLATTN_F16, 7, 1, 1, -1}, {CLATTN_BF16, 20, 0, 1, -1},
};

/* Guarded elements of the case's type. */
typedef struct tensors {
    void *query, *key, *value, *present_key, *present_value, *output;
} tensors;

static void *elements(clattn_dtype dtype, int64_t count, clattn_random *random) {
    void *memory = clattn_guard_alloc((size_t)count * clattn_dtype_size(dtype));
    for (int64_t i = 0; random && i < count; i++) clattn__ref_store(memory, dtype, i, clattn_random_normal(random));
    return memory;
}

/* Rows first..first+count-1 of (B, G, T, width). */
static clattn_tensor part(void *whole, clattn_dtype dtype, int64_t width, int64_t first, int64_t count) {
    clattn_tensor t = clattn_host(whole, dtype, 4, B, G, count, width);
    const int64_t stride[4] = {G * T * width, T * width, width, 1};
    memcpy(t.stride, stride, sizeof stride);
    t.offset = first * width;
    return t;
}

static clattn_attention_desc describe(const past_case *c) {
    clattn_attention_desc d;
    clattn_attention_desc_init(&d);
    d.batch = B;
    d.query_heads = H;
    d.kv_heads = G;
    d.query_len = L;
    d.kv_len = T;
    d.head_dim = D;
    d.value_dim = DV;
    d.dtype = c->dtype;
    d.causal = c->causal ? CLATTN_CAUSAL_BOTTOM_RIGHT : CLATTN_CAUSAL_NONE;
    d.align_end = !c->causal;
    d.window_left = c->window;
    return d;
}

static clattn_attention_io joined_io(const past_case *c, const tensors *t) {
    return (clattn_attention_io){.query = clattn_host(t->query, c->dtype, 4, B, H, L, D),
                                 .key = part(t->key, c->dtype, D, 0, T),
                                 .value = part(t->value, c->dtype, DV, 0, T),
                                 .output = clattn_host(t->output, c->dtype, 4, B, H, L, DV)};
}

static clattn_attention_io divided_io(const past_case *c, const tensors *t) {
    clattn_attention_io io = joined_io(c, t);
    io.key = part(t->key, c->dtype, D, c->past, T - c->past);
    io.value = part(t->value, c->dtype, DV, c->past, T - c->past);
    if (c->past > 0) io.past_key = part(t->key, c->dtype, D, 0, c->past);
    if (c->past > 0) io.past_value = part(t->value, c->dtype, DV, 0, c->past);
    if (c->present) io.present_key = part(t->present_key, c->dtype, D, 0, T);
    if (c->present) io.present_value = part(t->present_value, c->dtype, DV, 0, T);
    return io;
}

static void check_present(const past_case *c, const tensors *t, const char *who) {
    const size_t unit = clattn_dtype_size(c->dtype);
    CHECK(!c->present || (memcmp(t->present_key, t->key, KEYS * unit) == 0 &&
                          memcmp(t->present_value, t->value, VALUES * unit) == 0),
          "%s: present with a past of %d is not what was given", who, (int)c->past);
}

static void check_kernel(const past_case *c, const tensors *t, const void *want, const float *tolerance,
                         const char *kernel, int *ran) {
    clattn_attention_desc d = describe(c);
    clattn_attention *plan = NULL;
    d.past_len = c->past;
    d.present = c->present;
    d.kernel = kernel;
    const clattn_status status = clattn_attention_create(&plan, context, &d);
    if (status == CLATTN_UNSUPPORTED) return;
    const clattn_attention_io io = divided_io(c, t);
    const size_t unit = clattn_dtype_size(c->dtype);
    clattn_poison(t->output, OUTPUT * unit);
    clattn_poison(t->present_key, KEYS * unit);
    clattn_poison(t->present_value, VALUES * unit);
    REQUIRE(status == CLATTN_OK && clattn_attention_run(plan, &io) == CLATTN_OK, "%s: %s", kernel, clattn_last_error());
    const double stored = c->dtype == CLATTN_F16 ? 0x1p-10 : c->dtype == CLATTN_BF16 ? 0x1p-7 : 0;
    for (int64_t i = 0; i < OUTPUT; i++) {
        const double got = clattn__ref_load(t->output, c->dtype, i), wanted = clattn__ref_load(want, c->dtype, i);
        const double allowed =
            (double)tolerance[i] + stored * (wanted < 0 ? -wanted : wanted) + (stored > 0 ? 1e-7 : 0);
        if (!CHECK(clattn_close(got, wanted, allowed), "%s, past %d: element %d is %.9g, not %.9g", kernel,
                   (int)c->past, (int)i, got, wanted))
            break;
    }
    check_present(c, t, kernel);
    ++*ran;
    clattn_attention_destroy(&plan);
}

static void past_and_present(void) {
    static float tolerance[OUTPUT];
    for (size_t n = 0; n < sizeof cases / sizeof cases[0]; n++) {
        const past_case *c = &cases[n];
        const size_t unit = clattn_dtype_size(c->dtype);
        clattn_random random = {n + 1};
        tensors t = {elements(c->dtype, QUERY, &random),  elements(c->dtype, KEYS, &random),
                     elements(c->dtype, VALUES, &random), elements(c->dtype, KEYS, NULL),
                     elements(c->dtype, VALUES, NULL),    elements(c->dtype, OUTPUT, NULL)};
        void *want = elements(c->dtype, OUTPUT, NULL);
        clattn_attention_desc d = describe(c);
        clattn_attention_io io = joined_io(c, &t);
        CHECK(clattn_reference_attention(&d, &io, tolerance) == CLATTN_OK, "%s", clattn_last_error());
        memcpy(want, t.output, OUTPUT * unit);
        clattn_poison(t.output, OUTPUT * unit);
        d.past_len = c->past;
        d.present = c->present;
        io = divided_io(c, &t);
        CHECK(clattn_reference_attention(&d, &io, NULL) == CLATTN_OK, "%s", clattn_last_error());
        CHECK(memcmp(want, t.output, OUTPUT * unit) == 0, "the reference with a past of %d differs", (int)c->past);
        check_present(c, &t, "reference");
        int ran = 0;
        clattn_kernel_info info;
        for (int k = 0; k < clattn_kernel_count() && clattn_kernel_get(k, &info) == CLATTN_OK; k++)
            if (strcmp(info.kind, "attention") == 0) check_kernel(c, &t, want, tolerance, info.name, &ran);
        CHECK(ran >= 3, "past %d: %d kernels ran", (int)c->past, ran);
        void *all[] = {t.query, t.key, t.value, t.present_key, t.present_value, t.output, want};
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
            CHECK(clattn_guard_intact(all[i]), "something wrote beside memory %d", (int)i);
            clattn_guard_free(all[i]);
        }
    }
}

/* ---- bad input -------------------------------------------------------------------------------------------------- */

static void refuse(const clattn_attention_desc *d, const clattn_attention_io *io, const char *words) {
    clattn_attention *plan = NULL;
    clattn_status status = clattn_attention_create(&plan, context, d);
    if (status == CLATTN_OK) status = clattn_attention_run(plan, io);
    CHECK((status == CLATTN_INVALID_ARGUMENT || status == CLATTN_INVALID_SHAPE) && strstr(clattn_last_error(), words),
          "wanted \"%s\", got %s: %s", words, clattn_status_name(status), clattn_last_error());
    status = clattn_reference_attention(d, io, NULL);
    CHECK((status == CLATTN_INVALID_ARGUMENT || status == CLATTN_INVALID_SHAPE) && strstr(clattn_last_error(), words),
          "reference: wanted \"%s\", got %s: %s", words, clattn_status_name(status), clattn_last_error());
    clattn_attention_destroy(&plan);
}

static void bad_input(void) {
    static const past_case c = {CLATTN_F32, 16, 1, 1, -1};
    static float query[QUERY], keys[2][KEYS], values[2][VALUES], output[OUTPUT];
    const tensors t = {query, keys[0], values[0], keys[1], values[1], output};
    clattn_attention_desc good = describe(&c);
    good.past_len = c.past;
    good.present = 1;
    const clattn_attention_io io = divided_io(&c, &t);
    clattn_attention_desc d = good;
    d.past_len = -1;
    refuse(&d, &io, "past_len is -1; it must be in 0..kv_len (21)");
    d.past_len = T + 1;
    refuse(&d, &io, "past_len is 22");
    d = good;
    d.varlen = 1;
    refuse(&d, &io, "varlen and past_len are both given");
    d.past_len = 0;
    refuse(&d, &io, "varlen and present are both given");
    clattn_attention_io bad = io;
    memset(&bad.past_key, 0, sizeof bad.past_key);
    refuse(&good, &bad, "past_key is missing");
    bad = io;
    bad.past_value.shape[2] = 15;
    refuse(&good, &bad, "past_value has shape (2, 2, 15, 9); the description says (2, 2, 16, 9)");
    bad = io;
    bad.key.shape[2] = T;
    refuse(&good, &bad, "key has shape (2, 2, 21, 12); the description says (2, 2, 5, 12)");
    bad = io;
    memset(&bad.present_value, 0, sizeof bad.present_value);
    refuse(&good, &bad, "present_value is missing");
    bad = io;
    bad.present_key.dtype = CLATTN_F16;
    refuse(&good, &bad, "present_key has element type float16");
    d = good;
    d.past_len = 0;
    bad = io;
    bad.key = part(keys[0], CLATTN_F32, D, 0, T);
    bad.value = part(values[0], CLATTN_F32, DV, 0, T);
    refuse(&d, &bad, "past_key is given, but");
}

int main(int argc, char **argv) {
    static const clattn_test tests[] = {{"past_and_present", past_and_present}, {"bad_input", bad_input}, {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"past", tests}, {NULL, NULL}};
    return clattn_test_main_with(&context, CLATTN_VERIFY_ONCE, suites, argc, argv);
}
