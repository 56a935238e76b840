/* Rules for one value and for one tensor; check*.c put them together. */
#include "api/rules.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- one value ------------------------------------------------------------------------------------------------- */

clattn_status clattn__check_extent(const char *field, int64_t value, int64_t low, int64_t high) {
    if (value < low || value > high)
        return clattn__fail(CLATTN_INVALID_SHAPE, "%s is %lld; it must be in %lld..%lld", field, (long long)value,
                            (long long)low, (long long)high);
    return CLATTN_OK;
}

clattn_status clattn__check_choice(const char *field, int value, int last) {
    if (value < 0 || value > last)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is %d; it must be in 0..%d", field, value, last);
    return CLATTN_OK;
}

clattn_status clattn__check_finite(const char *field, double value) {
    if (!isfinite(value)) return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is %g; it must be finite", field, value);
    return CLATTN_OK;
}

clattn_status clattn__check_struct_size(const char *type, size_t size, size_t least, size_t ours) {
    if (size < least || size > ours)
        return clattn__fail(CLATTN_INVALID_ARGUMENT,
                            "%s.struct_size is %zu; call %s_init first (this library knows %zu bytes)", type, size,
                            type, ours);
    return CLATTN_OK;
}

clattn_status clattn__check_volume(const char *what, const int64_t *extents, int rank) {
    size_t bytes;
    if (!clattn__volume(extents, rank, 8, &bytes) || bytes > (size_t)1 << 62)
        return clattn__fail(CLATTN_INVALID_SHAPE, "%s has %lld x %lld x %lld x %lld elements; the product overflows",
                            what, (long long)extents[0], (long long)(rank > 1 ? extents[1] : 1),
                            (long long)(rank > 2 ? extents[2] : 1), (long long)(rank > 3 ? extents[3] : 1));
    return CLATTN_OK;
}

/* ---- one tensor ------------------------------------------------------------------------------------------------ */

static void shape_text(const int64_t *shape, int rank, char *text, size_t capacity) {
    size_t at = 0;
    text[0] = 0;
    for (int i = 0; i < rank && at < capacity; i++) {
        int n = snprintf(text + at, capacity - at, "%s%lld", i ? ", " : "", (long long)shape[i]);
        if (n < 0) return;
        at += (size_t)n;
    }
}

static bool is_empty(const clattn_tensor *tensor) {
    for (int i = 0; i < tensor->rank; i++)
        if (tensor->shape[i] == 0) return true;
    return false;
}

/* Two elements of an output may not share memory: walking from the smallest stride up, each must step over everything
 * that the smaller ones cover. */
static bool strides_overlap(const clattn_tensor *tensor) {
    bool used[CLATTN_MAX_RANK] = {false};
    int64_t covered = 1;
    for (int round = 0; round < tensor->rank; round++) {
        int smallest = -1;
        for (int i = 0; i < tensor->rank; i++)
            if (!used[i] && tensor->shape[i] > 1 && (smallest < 0 || tensor->stride[i] < tensor->stride[smallest]))
                smallest = i;
        if (smallest < 0) return false;
        used[smallest] = true;
        if (tensor->stride[smallest] < covered) return true;
        covered = tensor->stride[smallest] * (tensor->shape[smallest] - 1) + covered;
    }
    return false;
}

static clattn_status check_strides(const clattn__tensor_rule *rule, clattn_tensor *tensor) {
    bool dense = true;
    for (int i = 0; i < tensor->rank; i++) dense = dense && tensor->stride[i] == 0;
    if (dense) {
        int64_t step = 1;
        for (int i = tensor->rank - 1; i >= 0; i--) {
            tensor->stride[i] = step;
            step *= tensor->shape[i] > 0 ? tensor->shape[i] : 1;
        }
        return CLATTN_OK;
    }
    for (int i = 0; i < tensor->rank; i++) {
        if (tensor->stride[i] < 0 || tensor->stride[i] > (int64_t)1 << 40)
            return clattn__fail(CLATTN_INVALID_SHAPE, "%s.stride[%d] is %lld; it must be in 0..2^40", rule->name, i,
                                (long long)tensor->stride[i]);
        int64_t extents[2] = {tensor->stride[i], tensor->shape[i]};
        CLATTN__TRY(clattn__check_volume(rule->name, extents, 2));
    }
    int last = tensor->rank - 1;
    if (tensor->shape[last] > 1 && tensor->stride[last] != 1)
        return clattn__fail(CLATTN_INVALID_SHAPE, "%s.stride[%d] is %lld; the last axis must be contiguous (stride 1)",
                            rule->name, last, (long long)tensor->stride[last]);
    if (rule->output && !is_empty(tensor) && strides_overlap(tensor))
        return clattn__fail(CLATTN_INVALID_SHAPE, "%s has strides by which elements share memory; an output must not",
                            rule->name);
    return CLATTN_OK;
}

/* What a rule's element type is called in messages. */
static const char *dtype_text(int dtype) {
    if (dtype == CLATTN__ANY_LENGTHS) return "int32 (or int64 in host memory)";
    if (dtype == CLATTN__ANY_FLOAT) return "float32, float16 or bfloat16";
    return clattn_dtype_name((clattn_dtype)dtype);
}

static bool dtype_fits(int dtype, const clattn_tensor *tensor) {
    if (dtype == CLATTN__ANY_LENGTHS)
        return tensor->dtype == CLATTN_I32 || (tensor->dtype == CLATTN_I64 && tensor->data);
    if (dtype == CLATTN__ANY_FLOAT)
        return tensor->dtype == CLATTN_F32 || tensor->dtype == CLATTN_F16 || tensor->dtype == CLATTN_BF16;
    return (int)tensor->dtype == dtype;
}

clattn_status clattn__check_tensor(const clattn__tensor_rule *rule, const clattn_tensor *in, clattn_tensor *out) {
    *out = *in;
    bool given = in->data || in->mem;
    if (!rule->wanted) {
        if (given)
            return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is given, but the description does not ask for it",
                                rule->name);
        memset(out, 0, sizeof *out);
        return CLATTN_OK;
    }
    bool empty = false;
    for (int i = 0; i < rule->rank; i++) empty = empty || rule->shape[i] == 0;
    if (!given && !empty)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is missing; the description asks for it", rule->name);
    if (!given) { /* nothing to read or write: an empty view stands for it */
        memset(out, 0, sizeof *out);
        out->rank = rule->rank;
        memcpy(out->shape, rule->shape, sizeof out->shape);
        out->dtype = rule->dtype >= 0 ? (clattn_dtype)rule->dtype : CLATTN_I32;
        return check_strides(rule, out);
    }
    if (in->data && in->mem)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s has both data and mem; give exactly one", rule->name);
    if (!dtype_fits(rule->dtype, in))
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s has element type %s; it must be %s", rule->name,
                            clattn_dtype_name(in->dtype), dtype_text(rule->dtype));
    if ((uintptr_t)in->data % clattn_dtype_size(in->dtype) != 0)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s.data is %p; it must be a multiple of %zu, the size of a %s",
                            rule->name, in->data, clattn_dtype_size(in->dtype), clattn_dtype_name(in->dtype));
    if (in->rank != rule->rank)
        return clattn__fail(CLATTN_INVALID_SHAPE, "%s has rank %d; it must have rank %d", rule->name, in->rank,
                            rule->rank);
    if (memcmp(in->shape, rule->shape, sizeof(int64_t) * (size_t)rule->rank) != 0) {
        char got[96], want[96];
        shape_text(in->shape, in->rank, got, sizeof got);
        shape_text(rule->shape, rule->rank, want, sizeof want);
        return clattn__fail(CLATTN_INVALID_SHAPE, "%s has shape (%s); the description says (%s)", rule->name, got,
                            want);
    }
    if (in->offset < 0 || in->offset > (int64_t)1 << 48)
        return clattn__fail(CLATTN_INVALID_SHAPE, "%s.offset is %lld; it must be in 0..2^48", rule->name,
                            (long long)in->offset);
    return check_strides(rule, out);
}

/* ---- all tensors of a call --------------------------------------------------------------------------------------- */

/* The bytes from a tensor's first element to its last. */
typedef struct extent {
    const void *mem; /* the cl_mem that they are counted in; NULL: host memory */
    uint64_t begin, end;
    bool gaps; /* not all of them are the tensor's */
} extent;

/* False when there is nothing to read or write. */
static bool extent_of(const clattn_tensor *tensor, extent *e) {
    const uint64_t size = clattn_dtype_size(tensor->dtype);
    uint64_t elements = 1, last = 0;
    if ((!tensor->data && !tensor->mem) || is_empty(tensor)) return false;
    for (int i = 0; i < tensor->rank; i++) {
        elements *= (uint64_t)tensor->shape[i];
        last += (uint64_t)(tensor->shape[i] - 1) * (uint64_t)tensor->stride[i];
    }
    const uint64_t begin = (uint64_t)(uintptr_t)tensor->data + (uint64_t)tensor->offset * size;
    *e = (extent){tensor->mem, begin, begin + (last + 1) * size, last + 1 > elements};
    return true;
}

static bool overlap(const extent *a, const extent *b) {
    if (a->mem != b->mem) return false;
    return a->begin == b->begin || (!a->gaps && !b->gaps && a->begin < b->end && b->begin < a->end);
}

clattn_status clattn__check_tensors(const clattn__tensor_row *rows, size_t count) {
    for (size_t i = 0; i < count; i++) CLATTN__TRY(clattn__check_tensor(&rows[i].rule, rows[i].in, rows[i].out));
    for (size_t i = 0; i < count; i++) {
        extent output, other;
        if (!rows[i].rule.output || !extent_of(rows[i].out, &output)) continue;
        for (size_t k = 0; k < count; k++)
            if (k != i && extent_of(rows[k].out, &other) && overlap(&output, &other))
                return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s overlaps %s; an output needs memory of its own",
                                    rows[i].rule.name, rows[k].rule.name);
    }
    return CLATTN_OK;
}

clattn_status clattn__check_on_host(const clattn__named_tensor *tensors, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (tensors[i].tensor->mem)
            return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is a cl_mem; the reference works on host memory only",
                                tensors[i].name);
    return CLATTN_OK;
}
