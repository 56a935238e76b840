/* The rules of clattn/softmax.h. */
#include <float.h>
#include <string.h>

#include "api/check.h"
#include "api/rules.h"

static clattn_status check_mask_extents(clattn_softmax_desc *d) {
    bool given = false;
    for (int i = 0; i < d->rank; i++) given = given || d->mask_shape[i] != 0;
    for (int i = 0; i < d->rank; i++) {
        if (!given) d->mask_shape[i] = d->shape[i];
        if (d->mask_shape[i] != 1 && d->mask_shape[i] != d->shape[i])
            return clattn__fail(CLATTN_INVALID_SHAPE, "mask_shape[%d] is %lld; it must be 1 or %lld", i,
                                (long long)d->mask_shape[i], (long long)d->shape[i]);
    }
    return CLATTN_OK;
}

clattn_status clattn__check_softmax_desc(const clattn_softmax_desc *in, clattn_softmax_desc *d) {
    if (!in) return clattn__fail(CLATTN_INVALID_ARGUMENT, "desc is NULL");
    CLATTN__TRY(clattn__check_struct_size("clattn_softmax_desc", in->struct_size,
                                          offsetof(clattn_softmax_desc, gradient), sizeof *in));
    clattn_softmax_desc_init(d);
    memcpy(d, in, in->struct_size);
    d->struct_size = sizeof *d;
    CLATTN__TRY(clattn__check_choice("kind", (int)d->kind, CLATTN_SOFTMAX_CROSS_ENTROPY));
    CLATTN__TRY(clattn__check_choice("dtype", (int)d->dtype, CLATTN_BF16));
    CLATTN__TRY(clattn__check_extent("rank", d->rank, 1, CLATTN_MAX_RANK));
    static const char *const fields[CLATTN_MAX_RANK] = {"shape[0]", "shape[1]", "shape[2]", "shape[3]"};
    for (int i = 0; i < d->rank; i++) CLATTN__TRY(clattn__check_extent(fields[i], d->shape[i], 0, CLATTN__MAX_EXTENT));
    CLATTN__TRY(clattn__check_volume("x", d->shape, d->rank));
    if (d->axis < -d->rank || d->axis >= d->rank)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "axis is %d; it must be in %d..%d", d->axis, -d->rank,
                            d->rank - 1);
    if (d->axis < 0) d->axis += d->rank;
    CLATTN__TRY(clattn__check_finite("temperature", d->temperature));
    if (!(d->temperature >= FLT_MIN))
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "temperature is %g; it must be at least %g", d->temperature,
                            FLT_MIN);
    return d->mask ? check_mask_extents(d) : CLATTN_OK;
}

clattn_softmax_desc clattn__softmax_padded(const clattn_softmax_desc *desc) {
    clattn_softmax_desc padded = *desc;
    const int added = CLATTN_MAX_RANK - desc->rank;
    for (int i = CLATTN_MAX_RANK - 1; i >= 0; i--) {
        padded.shape[i] = i < added ? 1 : desc->shape[i - added];
        padded.mask_shape[i] = i < added ? 1 : desc->mask_shape[i - added];
    }
    padded.rank = CLATTN_MAX_RANK;
    padded.axis += added;
    return padded;
}

/* Absent views stay absent. */
static void pad(clattn_tensor *t, int rank) {
    const int added = CLATTN_MAX_RANK - rank;
    if (t->rank != rank) return;
    for (int i = CLATTN_MAX_RANK - 1; i >= 0; i--) {
        t->shape[i] = i < added ? 1 : t->shape[i - added];
        t->stride[i] = i < added ? 0 : t->stride[i - added];
    }
    t->rank = CLATTN_MAX_RANK;
}

/* Labels of rank 4 in host memory must lie on the axis. */
static clattn_status check_labels(const clattn_tensor *labels, int64_t n) {
    if (!labels->data) return CLATTN_OK;
    const int64_t *shape = labels->shape, *stride = labels->stride;
    for (int64_t i = 0; i < shape[0] * shape[1] * shape[2] * shape[3]; i++) {
        int64_t at = labels->offset, rest = i;
        for (int axis = CLATTN_MAX_RANK - 1; axis >= 0; axis--) {
            at += rest % shape[axis] * stride[axis];
            rest /= shape[axis];
        }
        const int32_t label = ((const int32_t *)labels->data)[at];
        if (label >= n)
            return clattn__fail(CLATTN_INVALID_ARGUMENT, "labels[%lld] is %d; it must be below %lld", (long long)i,
                                (int)label, (long long)n);
    }
    return CLATTN_OK;
}

static clattn__tensor_rule rule_of(const clattn_softmax_desc *d, const char *name, bool wanted, bool output,
                                   clattn_dtype dtype, const int64_t shape[CLATTN_MAX_RANK]) {
    clattn__tensor_rule rule = {name, wanted, output, (int)dtype, d->rank, {0}};
    memcpy(rule.shape, shape, sizeof rule.shape);
    return rule;
}

clattn_status clattn__check_softmax_io(const clattn_softmax_desc *d, const clattn_softmax_io *io,
                                       clattn_softmax_io *out) {
    if (!io) return clattn__fail(CLATTN_INVALID_ARGUMENT, "io is NULL");
    const bool forward = d->kind == CLATTN_SOFTMAX_FORWARD, backward = d->kind == CLATTN_SOFTMAX_BACKWARD,
               loss = d->kind == CLATTN_SOFTMAX_CROSS_ENTROPY;
    int64_t kept[CLATTN_MAX_RANK];
    memcpy(kept, d->shape, sizeof kept);
    kept[d->axis] = 1;
    const clattn__tensor_row rows[] = {
        {rule_of(d, "x", !backward, false, d->dtype, d->shape), &io->x, &out->x},
        {rule_of(d, "mask", d->mask != 0, false, CLATTN_BOOL, d->mask_shape), &io->mask, &out->mask},
        {rule_of(d, "grad_output", backward, false, d->dtype, d->shape), &io->grad_output, &out->grad_output},
        {rule_of(d, "labels", loss, false, CLATTN_I32, kept), &io->labels, &out->labels},
        {rule_of(d, "probability", !loss || d->probability, forward || loss, d->dtype, d->shape), &io->probability,
         &out->probability},
        {rule_of(d, "loss", loss, true, CLATTN_F32, kept), &io->loss, &out->loss},
        {rule_of(d, "grad_x", backward || (loss && d->gradient), true, d->dtype, d->shape), &io->grad_x, &out->grad_x},
    };
    CLATTN__TRY(clattn__check_tensors(rows, CLATTN__COUNT(rows)));
    for (size_t i = 0; i < CLATTN__COUNT(rows); i++) pad(rows[i].out, d->rank);
    return loss ? check_labels(&out->labels, d->shape[d->axis]) : CLATTN_OK;
}
