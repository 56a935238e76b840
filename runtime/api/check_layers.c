#include "api/check_layers.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/check.h"

/* ---- shared by the layers ---------------------------------------------------------------------------------------- */

/* Rows of all batch entries together are counted by 32 bits in the kernels. */
static clattn_status check_tokens(int64_t batch, int64_t rows, int64_t features) {
    CLATTN__TRY(clattn__check_extent("batch", batch, 0, CLATTN__MAX_EXTENT));
    CLATTN__TRY(clattn__check_extent("rows", rows, 0, CLATTN__MAX_EXTENT));
    CLATTN__TRY(clattn__check_extent("features", features, 1, CLATTN__MAX_EXTENT));
    CLATTN__TRY(clattn__check_extent("batch * rows", batch * rows, 0, CLATTN__MAX_EXTENT));
    const int64_t extents[3] = {batch, rows, features};
    return clattn__check_volume("the input", extents, 3);
}

clattn_status clattn__check_eps(float eps) {
    CLATTN__TRY(clattn__check_finite("eps", eps));
    if (!(eps > 0)) return clattn__fail(CLATTN_INVALID_ARGUMENT, "eps is %g; it must be > 0", (double)eps);
    return CLATTN_OK;
}

clattn_status clattn__check_base(double base) {
    CLATTN__TRY(clattn__check_finite("base", base));
    if (!(base > 1)) return clattn__fail(CLATTN_INVALID_ARGUMENT, "base is %g; it must be > 1", base);
    return CLATTN_OK;
}

static clattn__tensor_rule tokens_rule(const char *name, bool output, clattn_dtype dtype, int64_t batch, int64_t rows,
                                       int64_t features) {
    return (clattn__tensor_rule){.name = name,
                                 .wanted = true,
                                 .output = output,
                                 .dtype = (int)dtype,
                                 .rank = 3,
                                 .shape = {batch, rows, features}};
}

/* Everything unwanted but input and output of (batch, rows, in) and (batch, rows, out). */
static void start_rules(clattn__layer_rules *rules, clattn_dtype dtype, int64_t batch, int64_t rows, int64_t in,
                        int64_t out) {
    static const char *const names[CLATTN__LAYER_TENSORS] = {
        "input",  "residual", "positions", "mask", "padding_mask", "memory", "memory_mask", "memory_padding_mask",
        "output", "sum",      "hidden"};
    memset(rules, 0, sizeof *rules);
    for (int i = 0; i < CLATTN__LAYER_TENSORS; i++) rules->tensors[i].name = names[i];
    rules->tensors[CLATTN__LAYER_INPUT] = tokens_rule("input", false, dtype, batch, rows, in);
    rules->tensors[CLATTN__LAYER_OUTPUT] = tokens_rule("output", true, dtype, batch, rows, out);
    rules->position_low = -INT32_MAX;
    rules->position_high = INT32_MAX;
}

/* "owner" + "part" is its name. */
static clattn_status check_weight(const char *owner, const char *part, bool wanted, int rank, int64_t n0, int64_t n1,
                                  const clattn_tensor *in, clattn_tensor *dense, clattn__widened *copies) {
    char name[96];
    snprintf(name, sizeof name, "%s%s", owner, part);
    return clattn__check_weight(name, wanted, rank, n0, n1, in, dense, copies);
}

clattn_status clattn__check_linear_weights(const char *name, const clattn_linear_weights *in, int64_t out_features,
                                           int64_t in_features, clattn_linear_weights *dense, clattn__widened *copies) {
    CLATTN__TRY(check_weight(name, "weight", true, 2, out_features, in_features, &in->weight, &dense->weight, copies));
    return check_weight(name, "bias", false, 1, out_features, 0, &in->bias, &dense->bias, copies);
}

static clattn_status check_variance(const char *name, const clattn_tensor *variance, int64_t features) {
    const float *values = (const float *)variance->data + variance->offset;
    for (int64_t i = 0; i < features; i++)
        if (!(values[i] >= 0))
            return clattn__fail(CLATTN_INVALID_ARGUMENT, "%svariance[%lld] is %g; it must be >= 0", name, (long long)i,
                                (double)values[i]);
    return CLATTN_OK;
}

clattn_status clattn__check_norm_weights(const char *name, const clattn_norm_weights *in, int64_t features,
                                         clattn_norm_kind kind, clattn_norm_weights *dense, clattn__widened *copies) {
    static const clattn_norm_weights none;
    const bool given = kind == CLATTN_NORM_BATCH_INFERENCE;
    if (!in) in = &none;
    CLATTN__TRY(check_weight(name, "weight", false, 1, features, 0, &in->weight, &dense->weight, copies));
    CLATTN__TRY(check_weight(name, "bias", false, 1, features, 0, &in->bias, &dense->bias, copies));
    if (!given && (in->mean.data || in->variance.data))
        return clattn__fail(CLATTN_INVALID_ARGUMENT,
                            "%s%s is given; only CLATTN_NORM_BATCH_INFERENCE takes it from the weights", name,
                            in->mean.data ? "mean" : "variance");
    CLATTN__TRY(check_weight(name, "mean", given, 1, features, 0, &in->mean, &dense->mean, copies));
    CLATTN__TRY(check_weight(name, "variance", given, 1, features, 0, &in->variance, &dense->variance, copies));
    return given ? check_variance(name, &dense->variance, features) : CLATTN_OK;
}

clattn_status clattn__check_table(const clattn_tensor *in, int64_t features, clattn_tensor *dense,
                                  clattn__widened *copies) {
    const int64_t rows = in && in->rank == 2 ? in->shape[0] : 1;
    if (!in) return clattn__fail(CLATTN_INVALID_ARGUMENT, "the position table is missing; learned positions need it");
    CLATTN__TRY(clattn__check_extent("rows of the position table", rows, 1, CLATTN__MAX_EXTENT));
    CLATTN__TRY(check_weight("", "position table", true, 2, rows, features, in, dense, copies));
    if (dense->stride[0] != features)
        return clattn__fail(CLATTN_INVALID_SHAPE, "the position table has rows %lld apart; it must be dense (%lld)",
                            (long long)dense->stride[0], (long long)features);
    return CLATTN_OK;
}

/* Copies a description of an older or this size over the defaults. */
#define TAKE(type, in, desc, last)                                                                                     \
    do {                                                                                                               \
        if (!(in)) return clattn__fail(CLATTN_INVALID_ARGUMENT, "desc is NULL");                                       \
        CLATTN__TRY(clattn__check_struct_size(#type, (in)->struct_size, offsetof(type, last), sizeof *(in)));          \
        type##_init(desc);                                                                                             \
        memcpy((desc), (in), (in)->struct_size);                                                                       \
        (desc)->struct_size = sizeof *(desc);                                                                          \
    } while (0)

/* ---- linear, norm, activation ------------------------------------------------------------------------------------ */

clattn_status clattn__check_linear(const clattn_linear_desc *in, const clattn_linear_weights *weights,
                                   clattn_linear_desc *d, clattn_linear_weights *dense, clattn__widened *copies,
                                   clattn__layer_rules *rules) {
    TAKE(clattn_linear_desc, in, d, gemm_kernel);
    CLATTN__TRY(clattn__check_extent("in_features", d->in_features, 1, CLATTN__MAX_EXTENT));
    CLATTN__TRY(clattn__check_extent("out_features", d->out_features, 1, CLATTN__MAX_EXTENT));
    CLATTN__TRY(check_tokens(d->batch, d->rows, d->in_features));
    CLATTN__TRY(check_tokens(d->batch, d->rows, d->out_features));
    const int64_t weight[2] = {d->out_features, d->in_features};
    CLATTN__TRY(clattn__check_volume("weight", weight, 2));
    CLATTN__TRY(clattn__check_choice("activation", (int)d->activation, CLATTN_ACTIVATION_GELU));
    CLATTN__TRY(clattn__check_choice("dtype", (int)d->dtype, CLATTN_BF16));
    CLATTN__TRY(clattn__check_choice("precision", (int)d->precision, CLATTN_PRECISION_FAST));
    if (!weights) return clattn__fail(CLATTN_INVALID_ARGUMENT, "weights is NULL");
    CLATTN__TRY(clattn__check_linear_weights("", weights, d->out_features, d->in_features, dense, copies));
    start_rules(rules, d->dtype, d->batch, d->rows, d->in_features, d->out_features);
    return CLATTN_OK;
}

clattn_status clattn__check_norm(const clattn_norm_desc *in, const clattn_norm_weights *weights, clattn_norm_desc *d,
                                 clattn_norm_weights *dense, clattn__widened *copies, clattn__layer_rules *rules) {
    TAKE(clattn_norm_desc, in, d, sum);
    CLATTN__TRY(clattn__check_choice("kind", (int)d->kind, CLATTN_NORM_BATCH_INFERENCE));
    CLATTN__TRY(clattn__check_choice("dtype", (int)d->dtype, CLATTN_BF16));
    CLATTN__TRY(check_tokens(d->batch, d->rows, d->features));
    CLATTN__TRY(clattn__check_eps(d->eps));
    if (d->residual && d->kind != CLATTN_NORM_LAYER)
        return clattn__fail(CLATTN_INVALID_ARGUMENT,
                            "residual is 1 and kind is %d; only layer norm (0) adds a residual", (int)d->kind);
    if (d->sum && !d->residual)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "sum is 1 and residual is 0; without a residual there is no sum");
    CLATTN__TRY(clattn__check_norm_weights("", weights, d->features, d->kind, dense, copies));
    start_rules(rules, d->dtype, d->batch, d->rows, d->features, d->features);
    if (d->residual)
        rules->tensors[CLATTN__LAYER_RESIDUAL] =
            tokens_rule("residual", false, d->dtype, d->batch, d->rows, d->features);
    if (d->sum) rules->tensors[CLATTN__LAYER_SUM] = tokens_rule("sum", true, d->dtype, d->batch, d->rows, d->features);
    return CLATTN_OK;
}

clattn_status clattn__check_activation(const clattn_activation_desc *in, clattn_activation_desc *d,
                                       clattn__layer_rules *rules) {
    TAKE(clattn_activation_desc, in, d, activation);
    CLATTN__TRY(clattn__check_choice("activation", (int)d->activation, CLATTN_ACTIVATION_GELU));
    CLATTN__TRY(clattn__check_choice("dtype", (int)d->dtype, CLATTN_BF16));
    CLATTN__TRY(check_tokens(d->batch, d->rows, d->features));
    start_rules(rules, d->dtype, d->batch, d->rows, d->features, d->features);
    return CLATTN_OK;
}

/* ---- positions --------------------------------------------------------------------------------------------------- */

static clattn_status check_even(int64_t features) {
    if (features % 2 == 0) return CLATTN_OK;
    return clattn__fail(CLATTN_INVALID_SHAPE,
                        "features is %lld; sinusoidal positions come in pairs, so it must be even",
                        (long long)features);
}

clattn_status clattn__check_positions_shift(int64_t features, double base, int64_t shift, const float *matrix) {
    CLATTN__TRY(clattn__check_extent("features", features, 1, CLATTN__MAX_EXTENT));
    CLATTN__TRY(check_even(features));
    const int64_t extents[2] = {features, features};
    CLATTN__TRY(clattn__check_volume("matrix", extents, 2));
    CLATTN__TRY(clattn__check_base(base));
    CLATTN__TRY(clattn__check_extent("shift", shift, -CLATTN__MAX_EXTENT, CLATTN__MAX_EXTENT));
    return matrix ? CLATTN_OK : clattn__fail(CLATTN_INVALID_ARGUMENT, "matrix is NULL");
}

clattn_status clattn__check_positions(const clattn_positions_desc *in, const clattn_tensor *table,
                                      clattn_positions_desc *d, clattn_tensor *dense, clattn__widened *copies,
                                      clattn__layer_rules *rules) {
    TAKE(clattn_positions_desc, in, d, add);
    CLATTN__TRY(clattn__check_choice("kind", (int)d->kind, CLATTN_POSITIONS_LEARNED));
    CLATTN__TRY(clattn__check_choice("dtype", (int)d->dtype, CLATTN_BF16));
    if (d->kind == CLATTN_POSITIONS_NONE)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "kind is 0; it must be sinusoidal (1) or learned (2)");
    CLATTN__TRY(check_tokens(d->batch, d->rows, d->features));
    CLATTN__TRY(clattn__check_extent("first", d->first, -CLATTN__MAX_EXTENT, CLATTN__MAX_EXTENT));
    memset(dense, 0, sizeof *dense);
    start_rules(rules, d->dtype, d->batch, d->rows, d->features, d->features);
    if (!d->add) rules->tensors[CLATTN__LAYER_INPUT].wanted = false;
    if (d->positions)
        rules->tensors[CLATTN__LAYER_POSITIONS] = (clattn__tensor_rule){
            .name = "positions", .wanted = true, .dtype = CLATTN__ANY_LENGTHS, .rank = 2, .shape = {d->batch, d->rows}};
    if (d->kind == CLATTN_POSITIONS_SINUSOIDAL) {
        if (table) return clattn__fail(CLATTN_INVALID_ARGUMENT, "table is given; sinusoidal positions have none");
        CLATTN__TRY(clattn__check_base(d->base));
        return check_even(d->features);
    }
    CLATTN__TRY(clattn__check_table(table, d->features, dense, copies));
    rules->position_low = 0;
    rules->position_high = dense->shape[0] - 1;
    if (!d->positions && d->rows > 0 && (d->first < 0 || d->first + d->rows > dense->shape[0]))
        return clattn__fail(CLATTN_INVALID_SHAPE, "first is %lld and rows is %lld; the position table has rows 0..%lld",
                            (long long)d->first, (long long)d->rows, (long long)dense->shape[0] - 1);
    return CLATTN_OK;
}

/* ---- runs -------------------------------------------------------------------------------------------------------- */

/* (L) speaks for all batch entries: a (B, L) view that stands still along B. */
static clattn_tensor batched_positions(const clattn_tensor *in, int64_t batch) {
    clattn_tensor out = *in;
    if (in->rank != 1) return out;
    out.rank = 2;
    out.shape[0] = batch;
    out.shape[1] = in->shape[0];
    out.stride[0] = 0;
    out.stride[1] = in->stride[0] ? in->stride[0] : 1;
    return out;
}

static clattn_status check_positions_range(const clattn__layer_rules *rules, const clattn_tensor *positions) {
    for (int64_t b = 0; positions->data && b < positions->shape[0]; b++)
        for (int64_t r = 0; r < positions->shape[1]; r++) {
            const int64_t at = positions->offset + b * positions->stride[0] + r * positions->stride[1];
            const int64_t p = positions->dtype == CLATTN_I64 ? ((const int64_t *)positions->data)[at]
                                                             : ((const int32_t *)positions->data)[at];
            if (p < rules->position_low || p > rules->position_high)
                return clattn__fail(CLATTN_INVALID_ARGUMENT, "positions[%lld, %lld] is %lld; it must be in %lld..%lld",
                                    (long long)b, (long long)r, (long long)p, (long long)rules->position_low,
                                    (long long)rules->position_high);
        }
    return CLATTN_OK;
}

clattn_status clattn__check_layer_io(const clattn__layer_rules *rules, const clattn_layer_io *io,
                                     clattn_tensor tensors[CLATTN__LAYER_TENSORS]) {
    if (!io) return clattn__fail(CLATTN_INVALID_ARGUMENT, "io is NULL");
    clattn_tensor positions = io->positions;
    const clattn__tensor_rule *rule = &rules->tensors[CLATTN__LAYER_POSITIONS];
    if (rule->wanted) positions = batched_positions(&io->positions, rule->shape[0]);
    const clattn_tensor *const given[CLATTN__LAYER_TENSORS] = {
        &io->input,        &io->residual, &positions,       &io->mask,
        &io->padding_mask, &io->memory,   &io->memory_mask, &io->memory_padding_mask,
        &io->output,       &io->sum,      &io->hidden};
    clattn__tensor_row rows[CLATTN__LAYER_TENSORS];
    for (int i = 0; i < CLATTN__LAYER_TENSORS; i++)
        rows[i] = (clattn__tensor_row){rules->tensors[i], given[i], &tensors[i]};
    CLATTN__TRY(clattn__check_tensors(rows, CLATTN__COUNT(rows)));
    return check_positions_range(rules, &tensors[CLATTN__LAYER_POSITIONS]);
}
