/* Elements of host arrays as double, whatever their type is. */
#include "ref/ref.h"

double clattn__ref_load(const void *data, clattn_dtype dtype, int64_t i) {
    switch ((int)dtype) {
    case CLATTN_F32:
        return ((const float *)data)[i];
    case CLATTN_F16:
        return clattn__half_to_float(((const uint16_t *)data)[i]);
    case CLATTN_BF16:
        return clattn__bf16_to_float(((const uint16_t *)data)[i]);
    case CLATTN_BOOL:
        return ((const unsigned char *)data)[i] != 0;
    case CLATTN_I8:
        return ((const int8_t *)data)[i];
    case CLATTN_I32:
        return ((const int32_t *)data)[i];
    case CLATTN_I64:
        return (double)((const int64_t *)data)[i];
    default: /* CLATTN__F64 */
        return ((const double *)data)[i];
    }
}

void clattn__ref_store(void *data, clattn_dtype dtype, int64_t i, double value) {
    switch ((int)dtype) {
    case CLATTN_F32:
        ((float *)data)[i] = (float)value;
        break;
    case CLATTN_F16:
        ((uint16_t *)data)[i] = clattn__float_to_half((float)value);
        break;
    case CLATTN_BF16:
        ((uint16_t *)data)[i] = clattn__float_to_bf16((float)value);
        break;
    case CLATTN_BOOL:
        ((unsigned char *)data)[i] = value != 0;
        break;
    case CLATTN_I8:
        ((int8_t *)data)[i] = (int8_t)value;
        break;
    case CLATTN_I32:
        ((int32_t *)data)[i] = (int32_t)value;
        break;
    case CLATTN_I64:
        ((int64_t *)data)[i] = (int64_t)value;
        break;
    default: /* CLATTN__F64 */
        ((double *)data)[i] = value;
        break;
    }
}

static int64_t place(const clattn__ref_array *a, int64_t b, int64_t h, int64_t r, int64_t c) {
    return b * a->stride[0] + h * a->stride[1] + r * a->stride[2] + c * a->stride[3];
}

double clattn__ref_get(const clattn__ref_array *array, int64_t b, int64_t h, int64_t r, int64_t c) {
    return clattn__ref_load(array->data, array->dtype, place(array, b, h, r, c));
}

void clattn__ref_set(const clattn__ref_array *array, int64_t b, int64_t h, int64_t r, int64_t c, double value) {
    clattn__ref_store(array->data, array->dtype, place(array, b, h, r, c), value);
}
