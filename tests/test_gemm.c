/* Every projection kernel against the double reference, also the ones that this device would not choose. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "kernels/impl.h"
#include "ref/ref.h"

/* ---- a device ---------------------------------------------------------------------------------------------------- */
static clattn__env env;
static clattn__programs programs;

static bool open_device(void) {
    clattn_context_options options;
    clattn_context_options_init(&options);
    options.cache_dir = "";
    if (!CHECK(clattn__env_create(&env, &options) == CLATTN_OK, "%s", clattn_last_error())) return false;
    return CHECK(clattn__programs_create(&programs, &env) == CLATTN_OK, "%s", clattn_last_error());
}

static void close_device(void) {
    clattn__programs_clear(&programs);
    clattn__env_clear(&env);
}

/* ---- one product ------------------------------------------------------------------------------------------------- */

typedef struct product {
    int batch, rows, n, k; /* m = batch * rows */
    int width;             /* columns per head; 0: heads stay side by side */
    int parts;             /* stacked outputs; 0 means 1 */
    bool no_bias, accumulate;
    int gap; /* elements between rows, heads, batches and parts, of x and y */
} product;

typedef struct stage {
    clattn_gemm_args args;
    float *x, *w, *bias; /* host, x with NaN in its gaps */
    int64_t w_row;
    float *y, *start; /* y after and before; on the device x and y are of dtype, which all of them fit */
    clattn_dtype dtype;
    clattn_activation activation;
    double *want, *tolerance; /* as y; tolerance < 0: no element of y lies here */
    int64_t x_count, y_count;
} stage;

static void describe(const product *p, const stage *s, char text[160]) {
    snprintf(text, 160, "m %d (%d x %d) n %d k %d width %d parts %d bias %d accumulate %d gap %d %s activation %d",
             p->batch * p->rows, p->batch, p->rows, p->n, p->k, p->width, p->parts, !p->no_bias, p->accumulate, p->gap,
             clattn_dtype_name(s->dtype), (int)s->activation);
}

static int64_t place_in_y(const clattn_gemm_args *a, int m, int n) {
    const int in_part = n % a->part_columns;
    return a->y.offset + m / a->rows * a->y.batch + m % a->rows * a->y.row + n / a->part_columns * a->y_part +
           in_part / a->width * a->y.head + in_part % a->width;
}

static void set_layout(stage *s, const product *p) {
    const int parts = p->parts ? p->parts : 1, part_columns = p->n / parts;
    const int width = p->width ? p->width : part_columns, heads = part_columns / width;
    clattn_gemm_args *a = &s->args;
    *a = (clattn_gemm_args){.m = p->batch * p->rows,
                            .n = p->n,
                            .k = p->k,
                            .rows = p->rows,
                            .width = width,
                            .part_columns = part_columns,
                            .has_bias = !p->no_bias,
                            .accumulate = p->accumulate};
    a->x = (clattn_place){.offset = p->gap, .row = p->k + p->gap, .batch = (int64_t)p->rows * (p->k + p->gap) + p->gap};
    a->y.offset = p->gap;
    a->y.row = width + p->gap;
    a->y.head = p->rows * a->y.row + p->gap;
    a->y.batch = heads * a->y.head + p->gap;
    a->y_part = p->batch * a->y.batch + p->gap;
    s->x_count = a->x.offset + p->batch * a->x.batch;
    s->y_count = a->y.offset + parts * a->y_part;
}

/* Values that the storage type can tell exactly. */
static void fill_rounded(const stage *s, clattn_random *random, float *values, int64_t count) {
    clattn_fill_normal(random, values, count, 1);
    for (int64_t i = 0; i < count && s->dtype != CLATTN_F32; i++) {
        uint16_t narrow;
        clattn__ref_store(&narrow, s->dtype, 0, (double)values[i]);
        values[i] = (float)clattn__ref_load(&narrow, s->dtype, 0);
    }
}

static void fill(stage *s, const product *p, uint64_t seed) {
    clattn_random random = {seed};
    const clattn_gemm_args *a = &s->args;
    s->w_row = p->k + (p->gap ? 2 : 0);
    s->x = clattn_guard_alloc((size_t)s->x_count * sizeof *s->x); /* NaN everywhere */
    s->w = clattn_guard_alloc((size_t)(p->n * s->w_row) * sizeof *s->w);
    s->bias = clattn_guard_alloc((size_t)p->n * sizeof *s->bias);
    s->y = clattn_guard_alloc((size_t)s->y_count * sizeof *s->y);
    s->start = clattn_guard_alloc((size_t)s->y_count * sizeof *s->start);
    s->want = calloc((size_t)s->y_count, sizeof *s->want);
    s->tolerance = malloc((size_t)s->y_count * sizeof *s->tolerance);
    if (!s->want || !s->tolerance) abort(); /* a test without memory cannot go on */
    for (int m = 0; m < a->m; m++)
        fill_rounded(s, &random, s->x + a->x.offset + m / a->rows * a->x.batch + m % a->rows * a->x.row, p->k);
    for (int n = 0; n < p->n; n++) clattn_fill_normal(&random, s->w + n * s->w_row, p->k, 1 / sqrt((double)p->k));
    clattn_fill_normal(&random, s->bias, p->n, 1);
    for (int64_t i = 0; i < s->y_count; i++) s->tolerance[i] = -1;
    const double u = 0x1p-24, growth = 8 + 4 * sqrt((double)p->k);
    for (int m = 0; m < a->m; m++) {
        const float *x = s->x + a->x.offset + m / a->rows * a->x.batch + m % a->rows * a->x.row; /* (k) */
        for (int n = 0; n < a->n; n++) {
            const float *w = s->w + n * s->w_row, *bias = p->no_bias ? NULL : s->bias + n;
            const int64_t at = place_in_y(a, m, n);
            double size = bias ? fabs((double)*bias) : 0;
            for (int k = 0; k < a->k; k++) size += fabs((double)x[k] * w[k]);
            clattn__ref_linear(x, a->k, w, bias, &s->want[at], 1, 1, 1, a->k);
            if (p->accumulate) {
                fill_rounded(s, &random, s->start + at, 1);
                s->want[at] += s->start[at];
                size += fabs((double)s->start[at]);
            }
            s->tolerance[at] = u * growth * size + u * fabs(s->want[at]);
            clattn__ref_activate(s->activation, (clattn__ref_values){&s->want[at], &s->tolerance[at]}, 1);
            if (s->dtype != CLATTN_F32) s->tolerance[at] += clattn__ref_storage_rounding(s->dtype, s->want[at]);
        }
    }
}

static void release(stage *s) {
    void *const guarded[] = {s->x, s->w, s->bias, s->y, s->start};
    for (size_t i = 0; i < CLATTN__COUNT(guarded); i++) clattn_guard_free(guarded[i]);
    free(s->want);
    free(s->tolerance);
}

static const clattn__params *forced; /* parameters that kernels are made with; NULL: their own choice */

static clattn_status prepare(clattn__gemm_kernel *kernel, const clattn__gemm_impl *impl, const product *p,
                             const stage *s) {
    const clattn__candidates one = {.set = {forced ? *forced : (clattn__params){{0}}}, .count = 1};
    *kernel = (clattn__gemm_kernel){.impl = impl,
                                    .programs = &programs,
                                    .problem = {.m = s->args.m,
                                                .n = p->n,
                                                .k = p->k,
                                                .width = s->args.width,
                                                .dtype = s->dtype,
                                                .split_heads = p->width != 0,
                                                .bias = !p->no_bias,
                                                .activation = s->activation}};
    return clattn__gemm_prepare(kernel, forced ? &one : NULL, s->w, s->w_row, p->no_bias ? NULL : s->bias);
}

/* As the device sees it; the caller frees. */
static void *narrowed(const stage *s, const float *values, int64_t count) {
    void *copy = clattn_guard_alloc((size_t)count * clattn_dtype_size(s->dtype));
    if (s->dtype == CLATTN_F32) memcpy(copy, values, (size_t)count * sizeof *values);
    for (int64_t i = 0; i < count && s->dtype != CLATTN_F32; i++)
        clattn__ref_store(copy, s->dtype, i, (double)values[i]);
    return copy;
}

/* One run; s->y gets the result. x must come back as it was. */
static clattn_status run(clattn__gemm_kernel *kernel, const stage *s, const clattn_gemm_args *args) {
    const size_t unit = clattn_dtype_size(s->dtype), x_bytes = (size_t)s->x_count * unit;
    const size_t y_bytes = (size_t)s->y_count * unit;
    clattn__buffer x = {0}, y = {0};
    void *x_before = narrowed(s, s->x, s->x_count), *y_before = narrowed(s, s->start, s->y_count);
    void *x_after = clattn_guard_alloc(x_bytes), *y_after = clattn_guard_alloc(y_bytes);
    clattn_status status = clattn__buffer_create(&env, x_bytes, &x);
    if (status == CLATTN_OK) status = clattn__buffer_create(&env, y_bytes, &y);
    if (status == CLATTN_OK) status = clattn__buffer_write(&env, x.mem, 0, x_bytes, x_before);
    if (status == CLATTN_OK) status = clattn__buffer_write(&env, y.mem, 0, y_bytes, y_before);
    const clattn__gemm_call call = {.args = *args, .x = x.mem, .y = y.mem};
    if (status == CLATTN_OK) status = kernel->impl->enqueue(kernel, &call);
    if (status == CLATTN_OK) status = clattn__buffer_read(&env, y.mem, 0, y_bytes, y_after);
    if (status == CLATTN_OK) status = clattn__buffer_read(&env, x.mem, 0, x_bytes, x_after);
    if (status == CLATTN_OK) CHECK(memcmp(x_before, x_after, x_bytes) == 0, "%s changed its input", kernel->impl->name);
    for (size_t i = 0; i < (size_t)s->y_count && status == CLATTN_OK; i++) {
        const bool kept = memcmp((char *)y_before + i * unit, (char *)y_after + i * unit, unit) == 0;
        if (kept)
            memcpy(&s->y[i], &s->start[i], sizeof *s->y);
        else
            s->y[i] = (float)clattn__ref_load(y_after, s->dtype, (int64_t)i);
    }
    void *const guarded[] = {x_before, y_before, x_after, y_after};
    for (size_t i = 0; i < CLATTN__COUNT(guarded); i++) clattn_guard_free(guarded[i]);
    clattn__buffer_clear(&env, &x);
    clattn__buffer_clear(&env, &y);
    return status;
}

static void check_result(const stage *s, const char *name, const char *what) {
    int64_t bad = 0, touched = 0, worst = -1;
    double worst_ratio = 0;
    for (int64_t i = 0; i < s->y_count; i++) {
        if (s->tolerance[i] < 0) {
            touched += memcmp(&s->y[i], &s->start[i], sizeof *s->y) != 0;
            continue;
        }
        const double error = fabs(s->y[i] - s->want[i]);
        const bool ok = s->y[i] == s->want[i] || error <= s->tolerance[i];
        bad += !ok;
        if (!(error / s->tolerance[i] <= worst_ratio) && (worst < 0 || !ok)) {
            worst = i;
            worst_ratio = error / s->tolerance[i];
        }
    }
    CHECK(bad == 0, "%s, %s: %lld elements differ, first or worst at %lld: got %.9g, want %.9g, tolerance %.3g", name,
          what, (long long)bad, (long long)worst, worst < 0 ? 0 : (double)s->y[worst], worst < 0 ? 0 : s->want[worst],
          worst < 0 ? 0 : s->tolerance[worst]);
    CHECK(touched == 0, "%s, %s: %lld elements beside the output were written", name, what, (long long)touched);
}

static void check_variant(const clattn__gemm_impl *impl, const product *p, clattn_dtype dtype,
                          clattn_activation activation, uint64_t seed) {
    char what[160];
    stage s = {.dtype = dtype, .activation = activation};
    clattn__gemm_kernel kernel;
    describe(p, &s, what);
    set_layout(&s, p);
    fill(&s, p, seed);
    clattn_status status = prepare(&kernel, impl, p, &s);
    if (status == CLATTN_OK) status = run(&kernel, &s, &s.args);
    if (CHECK(status == CLATTN_OK, "%s, %s: %s", impl->name, what, clattn_last_error())) {
        check_result(&s, impl->name, what);
        float *first = clattn_guard_alloc((size_t)s.y_count * sizeof *first);
        memcpy(first, s.y, (size_t)s.y_count * sizeof *first);
        status = run(&kernel, &s, &s.args);
        CHECK(status == CLATTN_OK && memcmp(first, s.y, (size_t)s.y_count * sizeof *first) == 0,
              "%s, %s: two runs differ", impl->name, what);
        clattn_guard_free(first);
        CHECK(kernel.tiles[0] && kernel.block_m > 0 && kernel.block_n > 0 && kernel.block_k > 0, "%s says its tiles",
              impl->name);
    }
    clattn__gemm_kernel_clear(&kernel);
    release(&s);
}

static void check_product(const clattn__gemm_impl *impl, const product *p, uint64_t seed) {
    check_variant(impl, p, CLATTN_F32, CLATTN_ACTIVATION_NONE, seed);
}

/* ---- cases ------------------------------------------------------------------------------------------------------- */

static const product plain_products[] = {
    {1, 1, 1, 1, 0, 0, false, false, 0},      {1, 1, 64, 384, 0, 0, false, false, 0},
    {1, 7, 63, 65, 0, 0, true, false, 3},     {3, 21, 129, 7, 0, 0, false, false, 5},
    {1, 64, 64, 64, 0, 0, false, false, 0},   {5, 13, 385, 129, 0, 0, false, true, 1},
    {1, 129, 65, 384, 0, 0, false, false, 2}, {1, 384, 7, 63, 0, 0, true, true, 0},
    {5, 77, 384, 64, 0, 0, false, false, 0},  {3, 15, 384, 385, 0, 0, false, false, 0},
    {2, 1, 129, 1, 0, 0, true, false, 4},     {1, 3, 1, 513, 0, 0, false, false, 0},
    {2, 65, 64, 1030, 0, 0, false, true, 1},  {1, 5, 1153, 512, 0, 0, false, false, 0},
    {2, 4, 23, 24, 0, 0, false, true, 1},     {1, 70, 200, 1100, 0, 0, false, false, 1},
    {2, 37, 210, 1025, 0, 0, true, true, 2},
};

static const product split_products[] = {
    {3, 15, 96, 65, 32, 3, false, false, 0},    {3, 15, 99, 65, 33, 3, false, false, 3},
    {2, 9, 384, 63, 64, 3, false, false, 0},    {1, 7, 288, 64, 32, 3, true, false, 1},
    {2, 5, 198, 600, 33, 3, false, false, 0},   {2, 5, 130, 7, 13, 0, false, true, 2},
    {3, 4, 17, 33, 1, 0, false, false, 0},      {2, 3, 51, 17, 17, 3, true, true, 5},
    {1, 65, 1152, 128, 32, 3, false, false, 0}, {2, 31, 192, 1030, 64, 0, false, true, 0},
};

/* Ragged ones, k beyond one block, heads and parts, sums onto y: in both types of 16 bits. */
static void check_narrow(const clattn__gemm_impl *impl) {
    static const size_t plain[] = {3, 5, 12, 14}, split[] = {1, 4, 7, 9};
    for (clattn_dtype dtype = CLATTN_F16; dtype <= CLATTN_BF16; dtype++)
        for (size_t i = 0; i < CLATTN__COUNT(plain); i++) {
            check_variant(impl, &plain_products[plain[i]], dtype, CLATTN_ACTIVATION_NONE, 900 + i);
            check_variant(impl, &split_products[split[i]], dtype, CLATTN_ACTIVATION_NONE, 950 + i);
        }
}

/* Ragged ones, k beyond one block, heads and parts, storage of 16 bits. */
static void check_activations(const clattn__gemm_impl *impl) {
    if (!impl->activates) return;
    for (clattn_activation a = CLATTN_ACTIVATION_RELU; a <= CLATTN_ACTIVATION_GELU; a++) {
        check_variant(impl, &plain_products[9], CLATTN_F32, a, 970);
        check_variant(impl, &plain_products[15], CLATTN_F32, a, 971);
        check_variant(impl, &split_products[4], CLATTN_F32, a, 972);
        check_variant(impl, &plain_products[3], CLATTN_BF16, a, 973);
    }
}

static void check_products(const clattn__gemm_impl *impl) {
    if (!open_device()) return;
    for (size_t i = 0; i < CLATTN__COUNT(plain_products); i++) check_product(impl, &plain_products[i], 100 + i);
    for (size_t i = 0; i < CLATTN__COUNT(split_products); i++) check_product(impl, &split_products[i], 200 + i);
    check_narrow(impl);
    check_activations(impl);
    close_device();
}

static void test_cpu(void) { check_products(&clattn__gemm_cpu); }
static void test_tiled(void) { check_products(&clattn__gemm_tiled); }
static void test_host(void) { check_products(&clattn__gemm_host); }

/* The register tiles that other CPUs get. */
static void test_cpu_vector_widths(void) {
    static const uint32_t widths[] = {1, 4, 8, 16};
    if (!open_device()) return;
    for (size_t w = 0; w < CLATTN__COUNT(widths); w++) {
        env.device.caps.vector_width = widths[w], env.device.caps.second_cache = (uint64_t)widths[w] << 16;
        for (size_t i = 0; i < CLATTN__COUNT(plain_products); i += 2)
            check_product(&clattn__gemm_cpu, &plain_products[i], 300 + i);
        for (size_t i = 0; i < CLATTN__COUNT(split_products); i += 2)
            check_product(&clattn__gemm_cpu, &split_products[i], 400 + i);
        check_narrow(&clattn__gemm_cpu);
        check_activations(&clattn__gemm_cpu);
    }
    close_device();
}

/* The body as a callee and in place: which one a driver gets is a quirk. */
static void test_cpu_inline(void) {
    if (!open_device()) return;
    env.device.caps.quirks ^= CLATTN__QUIRK_NOINLINE_BODY;
    check_product(&clattn__gemm_cpu, &plain_products[5], 500);
    check_product(&clattn__gemm_cpu, &split_products[1], 501);
    close_device();
}

/* Every tile: ragged products around its edges, heads whose columns come in fours and others. */
static void test_tiled_tiles(void) {
    static const product products[] = {{1, 129, 130, 33, 0, 0, false, false, 1},
                                       {2, 65, 132, 20, 0, 0, true, true, 0},
                                       {2, 34, 192, 17, 64, 3, false, false, 2},
                                       {1, 127, 126, 40, 42, 0, false, true, 0}};
    clattn__candidates list = {0};
    const clattn__gemm_problem any = {0};
    if (!open_device()) return;
    clattn__gemm_candidates(&clattn__gemm_tiled, &any, &env.device.caps, &list);
    for (int i = 0; i < list.count; i++) {
        forced = &list.set[i];
        for (size_t p = 0; p < CLATTN__COUNT(products); p++) check_product(&clattn__gemm_tiled, &products[p], 610 + p);
        check_variant(&clattn__gemm_tiled, &products[2], CLATTN_BF16, CLATTN_ACTIVATION_NONE, 620);
    }
    forced = NULL;
    close_device();
}

/* Large tiles where they keep every unit busy, smaller ones elsewhere and in the work-groups of weaker devices. */
static void test_tiled_choice(void) {
    static const struct {
        int m, n, units, items;
        clattn__params tile;
    } cases[] = {{4096, 1024, 108, 256, {{16, 16, 8, 2}}},
                 {4096, 512, 108, 256, {{16, 16, 8, 1}}},
                 {134, 384, 108, 256, {{16, 16, 4, 1}}},
                 {4096, 1024, 108, 255, {{16, 8, 4, 1}}},
                 {4096, 1024, 108, 64, {{8, 8, 4, 1}}}};
    for (size_t i = 0; i < CLATTN__COUNT(cases); i++) {
        const clattn__gemm_problem p = {.m = cases[i].m, .n = cases[i].n, .k = 64, .width = cases[i].n};
        const clattn__caps caps = {.type = CLATTN_DEVICE_GPU,
                                   .compute_units = (uint32_t)cases[i].units,
                                   .max_work_group = (uint64_t)cases[i].items,
                                   .max_item_sizes = {1024, 1024, 1024},
                                   .local_memory = 32768};
        clattn__candidates list = {0};
        clattn__gemm_candidates(&clattn__gemm_tiled, &p, &caps, &list);
        CHECK(memcmp(&list.set[0], &cases[i].tile, sizeof cases[i].tile) == 0, "case %d of %d tiles", (int)i,
              list.count);
    }
}

/* Nine blocks of 0.2 million multiply-adds: one launch for a GPU of today, several for one of 1 MHz. The second one
 * begins inside a row of blocks. */
static void test_tiled_launches(void) {
    static const product p = {1, 130, 150, 40, 0, 0, false, true, 1};
    if (!open_device()) return;
    env.device.caps.type = CLATTN_DEVICE_GPU, env.device.caps.vendor = CLATTN__VENDOR_OTHER;
    env.device.caps.compute_units = 40, env.device.caps.clock_mhz = 2000;
    (void)clattn_test_launches();
    check_product(&clattn__gemm_tiled, &p, 650); /* runs it twice */
    const int fast = clattn_test_launches();
    CHECK(fast == 2 * 1, "%d launches on a fast device", fast);
    env.device.caps.compute_units = 5, env.device.caps.clock_mhz = 1;
    check_product(&clattn__gemm_tiled, &p, 650);
    const int slow = clattn_test_launches();
    CHECK(slow == 2 * 2, "%d launches on a slow device", slow);
    close_device();
}

#ifdef CLATTN_WITH_CLBLAST
static void test_clblast(void) {
    static const size_t few[] = {0, 2, 3, 5, 9, 11, 12}; /* its own kernels take long to compile on a CPU */
    if (!open_device()) return;
    for (size_t i = 0; i < CLATTN__COUNT(few); i++)
        check_product(&clattn__gemm_clblast, &plain_products[few[i]], 700 + i);
    stage s = {0};
    clattn__gemm_kernel kernel;
    set_layout(&s, &split_products[0]);
    fill(&s, &split_products[0], 1);
    CHECK(prepare(&kernel, &clattn__gemm_clblast, &split_products[0], &s) == CLATTN_OK, "%s", clattn_last_error());
    CHECK(run(&kernel, &s, &s.args) == CLATTN_UNSUPPORTED, "heads are not split silently");
    clattn__gemm_kernel_clear(&kernel);
    release(&s);
    close_device();
}
#else
static void test_clblast(void) { clattn_test_skip("built without CLBlast"); }
#endif

/* ---- properties -------------------------------------------------------------------------------------------------- */

/* A row's result does not depend on the rows around it, and a kernel made for m rows serves fewer, none too. */
static void test_rows_are_independent(void) {
    static const clattn__gemm_impl *const impls[] = {&clattn__gemm_cpu, &clattn__gemm_tiled, &clattn__gemm_host};
    const product p = {.batch = 1, .rows = 37, .n = 70, .k = 90};
    if (!open_device()) return;
    for (size_t i = 0; i < CLATTN__COUNT(impls); i++) {
        stage s = {0};
        clattn__gemm_kernel kernel;
        set_layout(&s, &p);
        fill(&s, &p, 800);
        CHECK(prepare(&kernel, impls[i], &p, &s) == CLATTN_OK && run(&kernel, &s, &s.args) == CLATTN_OK, "%s: %s",
              impls[i]->name, clattn_last_error());
        float all[70];
        memcpy(all, s.y + 36 * s.args.y.row, sizeof all);
        clattn_gemm_args one = s.args;
        one.m = one.rows = 1;
        one.x.offset += 36 * one.x.row;
        CHECK(run(&kernel, &s, &one) == CLATTN_OK, "%s: %s", impls[i]->name, clattn_last_error());
        CHECK(memcmp(all, s.y, sizeof all) == 0, "%s: the last row differs when it is alone", impls[i]->name);
        CHECK(memcmp(s.y + s.args.y.row, s.start + s.args.y.row, sizeof all) == 0, "%s: wrote more than one row",
              impls[i]->name);
        one.m = 0;
        CHECK(run(&kernel, &s, &one) == CLATTN_OK, "%s: %s", impls[i]->name, clattn_last_error());
        CHECK(memcmp(s.y, s.start, (size_t)s.y_count * sizeof *s.y) == 0, "%s: no rows, but y was written",
              impls[i]->name);
        clattn__gemm_kernel_clear(&kernel);
        release(&s);
    }
    close_device();
}

/* Head groups add up: the bias is in the kernel, but only the call that says so adds it. */
static void test_bias_on_request(void) {
    static const clattn__gemm_impl *const impls[] = {&clattn__gemm_cpu, &clattn__gemm_tiled, &clattn__gemm_host,
#ifdef CLATTN_WITH_CLBLAST
                                                     &clattn__gemm_clblast
#endif
    };
    const product with = {.batch = 2, .rows = 3, .n = 19, .k = 40};
    product without = with;
    without.no_bias = true;
    if (!open_device()) return;
    for (size_t i = 0; i < CLATTN__COUNT(impls); i++) {
        stage s = {0}, expected = {0};
        clattn__gemm_kernel kernel;
        set_layout(&s, &with);
        fill(&s, &with, 900);
        set_layout(&expected, &without);
        fill(&expected, &without, 900);
        CHECK(prepare(&kernel, impls[i], &with, &s) == CLATTN_OK, "%s", clattn_last_error());
        CHECK(run(&kernel, &expected, &expected.args) == CLATTN_OK, "%s", clattn_last_error());
        check_result(&expected, impls[i]->name, "made with a bias, called without");
        clattn__gemm_kernel_clear(&kernel);
        release(&s);
        release(&expected);
    }
    close_device();
}

static void test_refusals(void) {
    clattn__gemm_problem problem = {.m = 512, .n = 384, .k = 384, .width = 384};
    clattn__refusal why;
    clattn__caps cpu = {.type = CLATTN_DEVICE_CPU,
                        .compute_units = 2,
                        .vector_width = 16,
                        .local_memory = 32768,
                        .max_work_group = 4096,
                        .max_item_sizes = {4096, 4096, 4096}};
    clattn__caps gpu = cpu;
    gpu.type = CLATTN_DEVICE_GPU;
    CHECK(clattn__gemm_cpu.supports(&problem, &cpu, &why), "%s", why.text);
    CHECK(!clattn__gemm_cpu.supports(&problem, &gpu, &why) && strstr(why.text, "CPU"), "%s", why.text);
    CHECK(clattn__gemm_tiled.supports(&problem, &gpu, &why), "%s", why.text);
    gpu.local_memory = 4000;
    CHECK(!clattn__gemm_tiled.supports(&problem, &gpu, &why) && strstr(why.text, "4000") && strstr(why.text, "4608"),
          "%s", why.text);
    gpu.local_memory = 32768;
    gpu.max_work_group = 32;
    CHECK(!clattn__gemm_tiled.supports(&problem, &gpu, &why) && strstr(why.text, "32 items"), "%s", why.text);
    problem.k = INT64_C(3000000000);
    CHECK(!clattn__gemm_cpu.supports(&problem, &cpu, &why) && strstr(why.text, "k 3000000000"), "%s", why.text);
    CHECK(!clattn__gemm_host.supports(&problem, &cpu, &why), "%s", why.text);
#ifdef CLATTN_WITH_CLBLAST
    problem.k = 384;
    problem.dtype = CLATTN_F16;
    CHECK(!clattn__gemm_clblast.supports(&problem, &gpu, &why) && strstr(why.text, "float16"), "%s", why.text);
    problem.dtype = CLATTN_F32;
    CHECK(!clattn__gemm_clblast.supports(&problem, &cpu, &why) && strstr(why.text, "gemm_cpu is faster on a CPU"), "%s",
          why.text);
    CHECK(clattn__gemm_clblast.supports(&problem, &gpu, &why), "%s", why.text);
    problem.split_heads = true;
    problem.width = 32;
    CHECK(!clattn__gemm_clblast.supports(&problem, &gpu, &why) && strstr(why.text, "32 columns"), "%s", why.text);
#endif
}

/* Every allocation of a preparation fails once: an error, and nothing is left behind. */
static void test_out_of_memory(void) {
    static const clattn__gemm_impl *const impls[] = {&clattn__gemm_cpu, &clattn__gemm_tiled, &clattn__gemm_host};
    const product p = {.batch = 1, .rows = 2, .n = 5, .k = 6, .gap = 1};
    if (!open_device()) return;
    for (size_t i = 0; i < CLATTN__COUNT(impls); i++) {
        stage s = {0};
        set_layout(&s, &p);
        fill(&s, &p, 1000);
        const size_t before = env.memory_now;
        clattn_status status = CLATTN_OUT_OF_MEMORY;
        for (long nth = 1; nth < 400 && status != CLATTN_OK; nth++) {
            clattn__gemm_kernel kernel;
            clattn__alloc_fail_after(nth);
            status = prepare(&kernel, impls[i], &p, &s);
            clattn__alloc_fail_after(0);
            clattn__gemm_kernel_clear(&kernel);
            CHECK(env.memory_now == before, "%s: allocation %ld leaves %zu bytes", impls[i]->name, nth,
                  env.memory_now - before);
        }
        CHECK(status == CLATTN_OK, "%s: %s", impls[i]->name, clattn_last_error());
        release(&s);
    }
    close_device();
}

/* ---- rows.cl ----------------------------------------------------------------------------------------------------- */

/* (B, H, rows, D) with gaps: a source row, zeros, or a row added to what is there. */
static void test_rows(void) {
    enum { B = 3, H = 5, ROWS = 2, D = 33, ROW = 40, HEAD = 90, BATCH = 470, OFFSET = 7, COUNT = OFFSET + B * BATCH };
    static float source[H * D], before[COUNT], after[COUNT];
    clattn__op kernel = {0};
    clattn__buffer from = {0}, to = {0};
    clattn_random random = {7};
    if (!open_device()) return;
    clattn_fill_normal(&random, source, H * D, 1);
    clattn_status status = clattn__rows_create(&kernel, &programs, CLATTN_F32);
    if (status == CLATTN_OK) status = clattn__buffer_create(&env, sizeof source, &from);
    if (status == CLATTN_OK) status = clattn__buffer_create(&env, sizeof before, &to);
    if (status == CLATTN_OK) status = clattn__buffer_write(&env, from.mem, 0, sizeof source, source);
    for (int mode = 0; mode < 3 && status == CLATTN_OK; mode++) { /* source, zeros, add */
        if (mode == 2)
            clattn_fill_normal(&random, before, COUNT, 1);
        else
            clattn_poison(before, sizeof before);
        const clattn_rows_args args = {.y = {.offset = OFFSET, .batch = BATCH, .head = HEAD, .row = ROW},
                                       .batch = B,
                                       .heads = H,
                                       .rows = ROWS,
                                       .width = D,
                                       .has_source = mode != 1,
                                       .accumulate = mode == 2};
        status = clattn__buffer_write(&env, to.mem, 0, sizeof before, before);
        if (status == CLATTN_OK)
            status = clattn__rows_enqueue(&programs, kernel.kernel, &args, mode == 1 ? NULL : from.mem, to.mem);
        if (status == CLATTN_OK) status = clattn__buffer_read(&env, to.mem, 0, sizeof after, after);
        for (int b = 0; b < B; b++)
            for (int h = 0; h < H; h++)
                for (int r = 0; r < ROWS; r++)
                    for (int d = 0; d < D; d++) {
                        float *at = before + OFFSET + b * BATCH + h * HEAD + r * ROW + d;
                        const float value = mode == 1 ? 0 : source[h * D + d];
                        *at = mode == 2 ? *at + value : value;
                    }
        CHECK(status == CLATTN_OK && memcmp(before, after, sizeof before) == 0, "mode %d: %s", mode,
              status == CLATTN_OK ? "wrong or stray values" : clattn_last_error());
    }
    CHECK(status == CLATTN_OK, "%s", clattn_last_error());
    clattn__op_clear(&kernel);
    clattn__buffer_clear(&env, &from);
    clattn__buffer_clear(&env, &to);
    close_device();
}

int main(int argc, char **argv) {
    static const clattn_test kernels[] = {{"gemm_cpu", test_cpu},
                                          {"gemm_cpu vector widths", test_cpu_vector_widths},
                                          {"gemm_cpu inline", test_cpu_inline},
                                          {"gemm_tiled", test_tiled},
                                          {"gemm_tiled tiles", test_tiled_tiles},
                                          {"gemm_tiled choice", test_tiled_choice},
                                          {"gemm_tiled launches", test_tiled_launches},
                                          {"gemm_clblast", test_clblast},
                                          {"gemm_host", test_host},
                                          {"rows", test_rows},
                                          {NULL, NULL}};
    static const clattn_test properties[] = {{"rows are independent", test_rows_are_independent},
                                             {"bias on request", test_bias_on_request},
                                             {"refusals", test_refusals},
                                             {"out of memory", test_out_of_memory},
                                             {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"gemm", kernels}, {"properties", properties}, {NULL, NULL}};
    return clattn_test_main(suites, argc, argv);
}
