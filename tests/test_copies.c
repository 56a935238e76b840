/* What a run copies between host and device: nothing where both share memory, and else exactly the tensors' bytes. */
#include "clattn/clattn.h"
#include "harness.h"
#include "registry/registry.h"

#include <stdlib.h>
#include <string.h>

static clattn_context *context;

enum { B = 2, H = 3, S = 9, D = 16, PER_TENSOR = B * H * S * D, GAP = 5 };

/* The plan runs on (B, H, S, D) tensors at the four places; `row` is the distance of their rows. */
static void run(const float *query, const float *key, const float *value, float *output, int64_t row,
                clattn_plan_info *info) {
    const int64_t shape[4] = {B, H, S, D}, stride[4] = {H * S * row, S * row, row, 1};
    clattn_attention_desc desc;
    clattn_attention_desc_init(&desc);
    desc.batch = B;
    desc.query_heads = H;
    desc.query_len = desc.kv_len = S;
    desc.head_dim = D;
    clattn_attention *plan = NULL;
    memset(info, 0xff, sizeof *info);
    REQUIRE(clattn_attention_create(&plan, context, &desc) == CLATTN_OK, "%s", clattn_last_error());
    clattn_attention_io io = {0};
    clattn_tensor *const tensors[] = {&io.query, &io.key, &io.value, &io.output};
    const float *const data[] = {query, key, value, output};
    for (int i = 0; i < 4; i++) {
        *tensors[i] = clattn_host((void *)data[i], CLATTN_F32, 4, B, H, S, D);
        memcpy(tensors[i]->shape, shape, sizeof shape);
        memcpy(tensors[i]->stride, stride, sizeof stride);
    }
    CHECK(clattn_attention_run(plan, &io) == CLATTN_OK, "%s", clattn_last_error());
    clattn_test_transferred();
    CHECK(clattn_attention_run(plan, &io) == CLATTN_OK, "%s", clattn_last_error());
    clattn_attention_info(plan, info); /* of the second run alone */
    const size_t transferred = clattn_test_transferred();
    CHECK(transferred == info->copied_to_device + info->copied_to_host, "%zu bytes were copied; told are %zu and %zu",
          transferred, info->copied_to_device, info->copied_to_host);
    clattn_attention_destroy(&plan);
}

static float *make_tensor(uint64_t seed, int64_t count) {
    clattn_random random = {seed};
    float *tensor = clattn_guard_alloc((size_t)count * sizeof(float));
    clattn_fill_normal(&random, tensor, count, 1);
    return tensor;
}

typedef struct operands {
    float *query, *key, *value, *output;
} operands;

static operands make_operands(int64_t count) {
    return (operands){make_tensor(1, count), make_tensor(2, count), make_tensor(3, count), make_tensor(4, count)};
}

static void free_operands(operands *o) {
    float *const all[] = {o->query, o->key, o->value, o->output};
    for (int i = 0; i < 4; i++) {
        CHECK(clattn_guard_intact(all[i]), "tensor %d", i);
        clattn_guard_free(all[i]);
    }
}

static void none_in_place(void) {
    if (context->env.device.caps.type != CLATTN_DEVICE_CPU) {
        clattn_test_skip("the device is no CPU");
        return;
    }
    for (int64_t misplaced = 0; misplaced < 3; misplaced++) { /* floats */
        operands o = make_operands(PER_TENSOR + misplaced);
        clattn_plan_info info;
        run(o.query + misplaced, o.key + misplaced, o.value + misplaced, o.output + misplaced, D, &info);
        CHECK(info.copied_to_device == 0 && info.copied_to_host == 0, "%lld floats off: %zu bytes there, %zu back",
              (long long)misplaced, info.copied_to_device, info.copied_to_host);
        free_operands(&o);
    }
}

/* The same device, taken for one with memory of its own: the same bits, and every byte is counted. */
static void exact_where_staged(void) {
    const int64_t row = D + GAP, span = (int64_t)(B * H * S - 1) * row + D;
    const bool unified = context->env.device.caps.unified_memory;
    operands o = make_operands(span);
    float *in_place = make_tensor(4, span);
    clattn_plan_info info;
    run(o.query, o.key, o.value, in_place, row, &info);
    context->env.device.caps.unified_memory = false;
    run(o.query, o.key, o.value, o.output, row, &info);
    /* an output goes there too: what lies between its rows has to come back */
    const size_t bytes = (size_t)span * sizeof(float);
    CHECK(info.copied_to_device == 4 * bytes && info.copied_to_host == bytes,
          "%zu bytes there, %zu back; tensors of %zu", info.copied_to_device, info.copied_to_host, bytes);
    CHECK(memcmp(in_place, o.output, bytes) == 0, "staging changed the result");
    run(o.query, o.query, o.query, o.output, row, &info);
    CHECK(info.copied_to_device == 2 * bytes, "%zu bytes there: one memory as three inputs is copied once",
          info.copied_to_device);
    context->env.device.caps.unified_memory = unified;
    clattn_guard_free(in_place);
    free_operands(&o);
}

/* (B, H, S, D), of which a row of D lies in each row of `row` elements. */
static clattn_tensor rows_of(float *data, int64_t row) {
    const int64_t stride[4] = {H * S * row, S * row, row, 1};
    clattn_tensor t = clattn_host(data, CLATTN_F32, 4, B, H, S, D);
    memcpy(t.stride, stride, sizeof stride);
    return t;
}

/* Keys and values that a run writes side by side into the rows of one array: both are there afterwards. */
static void outputs_side_by_side(void) {
    const bool unified = context->env.device.caps.unified_memory;
    operands o = make_operands(PER_TENSOR);
    float *both = make_tensor(5, 2 * PER_TENSOR);
    clattn_attention_desc desc;
    clattn_attention_desc_init(&desc);
    desc.batch = B, desc.query_heads = H, desc.query_len = desc.kv_len = S, desc.head_dim = D;
    desc.present = 1;
    const clattn_attention_io io = {.query = rows_of(o.query, D),
                                    .key = rows_of(o.key, D),
                                    .value = rows_of(o.value, D),
                                    .output = rows_of(o.output, D),
                                    .present_key = rows_of(both, 2 * D),
                                    .present_value = rows_of(both + D, 2 * D)};
    for (int own = 0; own <= 1; own++) {
        clattn_attention *plan = NULL;
        context->env.device.caps.unified_memory = unified && !own;
        memset(both, 0xff, 2 * PER_TENSOR * sizeof *both);
        REQUIRE(clattn_attention_create(&plan, context, &desc) == CLATTN_OK, "%s", clattn_last_error());
        CHECK(clattn_attention_run(plan, &io) == CLATTN_OK, "%s", clattn_last_error());
        int lost = 0;
        for (int64_t row = 0; row < B * H * S; row++)
            lost += memcmp(both + 2 * row * D, o.key + row * D, D * sizeof *both) != 0 ||
                    memcmp(both + (2 * row + 1) * D, o.value + row * D, D * sizeof *both) != 0;
        CHECK(lost == 0, "memory of its own %d: %d of %d rows are not there", own, lost, B * H * S);
        clattn_attention_destroy(&plan);
    }
    context->env.device.caps.unified_memory = unified;
    clattn_guard_free(both);
    free_operands(&o);
}

/* A mask of bytes that reaches into the first floats of the query, from where no float begins. */
static void inputs_out_of_line(void) {
    operands o = make_operands(PER_TENSOR);
    float *memory = make_tensor(6, PER_TENSOR + 1), *want = make_tensor(7, PER_TENSOR);
    unsigned char *mask = (unsigned char *)memory + 3, copy[B * S];
    for (int i = 0; i < B * S; i++) mask[i] = i % 3 != 0;
    memcpy(copy, mask, sizeof copy);
    clattn_attention_desc desc;
    clattn_attention_desc_init(&desc);
    desc.batch = B, desc.query_heads = H, desc.query_len = desc.kv_len = S, desc.head_dim = D;
    desc.padding_mask = 1;
    clattn_attention_io io = {.query = rows_of(memory + 1, D),
                              .key = rows_of(o.key, D),
                              .value = rows_of(o.value, D),
                              .padding_mask = clattn_host(mask, CLATTN_BOOL, 2, B, S, 0, 0),
                              .output = rows_of(o.output, D)};
    clattn_attention *plan = NULL;
    REQUIRE(clattn_attention_create(&plan, context, &desc) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(clattn_attention_run(plan, &io) == CLATTN_OK, "%s", clattn_last_error());
    io.padding_mask.data = copy;
    io.output.data = want;
    CHECK(clattn_attention_run(plan, &io) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(memcmp(o.output, want, PER_TENSOR * sizeof *want) == 0, "the mask was read from another place");
    clattn_attention_destroy(&plan);
    clattn_guard_free(memory);
    clattn_guard_free(want);
    free_operands(&o);
}

/* A layer too: nothing but its products and its attention touches the tensors. */
static void layers(void) {
    enum { E = 32 };
    clattn_mha_desc desc;
    clattn_mha_desc_init(&desc);
    desc.batch = B;
    desc.query_len = S;
    desc.embed_dim = E;
    desc.heads = 4;
    desc.padding_mask = 1;
    float *in_weight = make_tensor(5, 3 * E * E), *out_weight = make_tensor(6, E * E), *x = make_tensor(7, B * S * E);
    float *output = make_tensor(8, B * S * E);
    unsigned char attend[B * S];
    memset(attend, 1, sizeof attend);
    const clattn_mha_weights weights = {.in_proj_weight = clattn_host(in_weight, CLATTN_F32, 2, 3 * E, E, 0, 0),
                                        .out_proj_weight = clattn_host(out_weight, CLATTN_F32, 2, E, E, 0, 0)};
    const clattn_mha_io io = {.query = clattn_host(x, CLATTN_F32, 3, B, S, E, 0),
                              .padding_mask = clattn_host(attend, CLATTN_BOOL, 2, B, S, 0, 0),
                              .output = clattn_host(output, CLATTN_F32, 3, B, S, E, 0)};
    const size_t bytes = B * S * E * sizeof *x;
    const bool unified = context->env.device.caps.unified_memory;
    for (int own = 0; own <= 1; own++) {
        if (context->env.device.caps.type != CLATTN_DEVICE_CPU && !own) continue; /* may have to copy */
        clattn_mha *layer = NULL;
        clattn_plan_info info;
        context->env.device.caps.unified_memory = !own;
        REQUIRE(clattn_mha_create(&layer, context, &desc, &weights) == CLATTN_OK, "%s", clattn_last_error());
        clattn_test_transferred();
        CHECK(clattn_mha_run(layer, &io) == CLATTN_OK, "%s", clattn_last_error());
        const size_t transferred = clattn_test_transferred(), wanted = own ? 3 * bytes + sizeof attend : 0;
        clattn_mha_info(layer, &info);
        CHECK(transferred == wanted && info.copied_to_device + info.copied_to_host == wanted,
              "%zu bytes were copied instead of %zu; told are %zu and %zu", transferred, wanted, info.copied_to_device,
              info.copied_to_host);
        clattn_mha_destroy(&layer);
    }
    context->env.device.caps.unified_memory = unified;
    float *const all[] = {in_weight, out_weight, x, output};
    for (int i = 0; i < 4; i++) clattn_guard_free(all[i]);
}

static void explained(void) {
    const bool unified = context->env.device.caps.unified_memory;
    clattn_attention_desc desc;
    clattn_attention_desc_init(&desc);
    desc.batch = desc.query_heads = desc.query_len = desc.kv_len = 1;
    desc.head_dim = D;
    for (int own = 0; own <= 1; own++) {
        clattn_attention *plan = NULL;
        context->env.device.caps.unified_memory = !own;
        REQUIRE(clattn_attention_create(&plan, context, &desc) == CLATTN_OK, "%s", clattn_last_error());
        const char *text = clattn_attention_explain(plan);
        CHECK(strstr(text, own ? "host tensors: copied" : "host tensors: used in place") != NULL, "%s", text);
        clattn_attention_destroy(&plan);
    }
    context->env.device.caps.unified_memory = unified;
}

int main(int argc, char **argv) {
    static const clattn_test tests[] = {{"none_in_place", none_in_place},
                                        {"exact_where_staged", exact_where_staged},
                                        {"outputs_side_by_side", outputs_side_by_side},
                                        {"inputs_out_of_line", inputs_out_of_line},
                                        {"layers", layers},
                                        {"explained", explained},
                                        {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"copies", tests}, {NULL, NULL}};
    return clattn_test_main_with(&context, CLATTN_VERIFY_ONCE, suites, argc, argv);
}
