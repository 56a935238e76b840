/* Arrays that own their memory, and conversions between element types. */
#define _POSIX_C_SOURCE 200809L /* strdup */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"

/* Device drivers wrap host memory without copying it when it starts on a cache line or a page; this suits all seen. */
enum { ALIGNMENT = 128 };

int64_t cli_array_elements(const cli_array *array) {
    int64_t elements = 1;
    for (int i = 0; i < array->rank; i++) elements *= array->shape[i];
    return elements;
}

void cli_array_free(cli_array *array) {
    free(array->data);
    *array = (cli_array){0};
}

void cli_arrays_free(cli_array *const *arrays, size_t count) {
    for (size_t i = 0; i < count; i++) cli_array_free(arrays[i]);
}

bool cli_array_allocate(cli_array *array, char *why, size_t why_size) {
    size_t size = clattn_dtype_size(array->dtype);
    int64_t elements = 1;
    bool empty = false;
    for (int i = 0; i < array->rank; i++) empty = empty || array->shape[i] == 0;
    for (int i = 0; i < array->rank; i++) {
        if (array->shape[i] < 0)
            return cli_why(why, why_size, "shape[%d] is %lld; it must be 0 or more", i, (long long)array->shape[i]);
        if (!empty && array->shape[i] > INT64_MAX / 16 / elements)
            return cli_why(why, why_size, "shape has too many elements: the product overflows at shape[%d] = %lld", i,
                           (long long)array->shape[i]);
        elements = empty ? 0 : elements * array->shape[i];
    }
    array->bytes = (size_t)elements * size;
    array->data = aligned_alloc(ALIGNMENT, (array->bytes / ALIGNMENT + 1) * ALIGNMENT);
    if (!array->data) return cli_why(why, why_size, "no memory for %zu bytes", array->bytes);
    return true;
}

bool cli_array_new(cli_array *array, clattn_dtype dtype, int rank, const int64_t *shape, char why[512]) {
    *array = (cli_array){.dtype = dtype, .rank = rank};
    memcpy(array->shape, shape, sizeof *shape * (size_t)rank);
    if (!cli_array_allocate(array, why, 512)) return false;
    memset(array->data, 0xff, array->bytes);
    return true;
}

clattn_tensor cli_array_tensor(const cli_array *array) {
    clattn_tensor tensor = {.data = array->data, .dtype = array->dtype, .rank = array->rank > 0 ? array->rank : 1};
    for (int i = 0; i < array->rank && i < CLATTN_MAX_RANK; i++) tensor.shape[i] = array->shape[i];
    if (array->rank == 0) tensor.shape[0] = 1; /* a scalar counts as one element */
    return tensor;
}

/* ---- conversions -------------------------------------------------------------------------------------------- */

static float from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static float half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = (half >> 10) & 31u, fraction = half & 0x3ffu;
    if (exponent == 31) return from_bits(sign | 0x7f800000u | fraction << 13);
    if (exponent == 0) return (sign ? -1.0f : 1.0f) * ldexpf((float)fraction, -24);
    return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

/* Round to nearest, ties to even: `keep` drops `bits` low bits of a whole number. */
static uint32_t keep(uint32_t value, int bits) {
    uint32_t half = 1u << (bits - 1), rest = value & (2 * half - 1), kept = value >> bits;
    return kept + (rest > half || (rest == half && (kept & 1)));
}

static uint32_t to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static uint16_t float_to_half(float value) {
    uint32_t bits = to_bits(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 0x47800000u) return (uint16_t)(sign | 0x7c00u); /* 2^16 and beyond */
    if (magnitude < 0x38800000u)                                     /* below 2^-14: steps of 2^-24 */
        return (uint16_t)(sign | (uint32_t)nearbyintf(ldexpf(from_bits(magnitude), 24)));
    return (uint16_t)(sign | (keep(magnitude, 13) - (112u << 10)));
}

static uint16_t float_to_bf16(float value) {
    uint32_t bits = to_bits(value);
    return isnan(value) ? (uint16_t)(bits >> 16 | 0x40u) : (uint16_t)keep(bits, 16);
}

double cli_array_get(const cli_array *array, int64_t i) {
    switch (array->dtype) {
    case CLATTN_F32:
        return ((const float *)array->data)[i];
    case CLATTN_F16:
        return half_to_float(((const uint16_t *)array->data)[i]);
    case CLATTN_BF16:
        return from_bits((uint32_t)((const uint16_t *)array->data)[i] << 16);
    case CLATTN_BOOL:
        return ((const uint8_t *)array->data)[i] != 0;
    case CLATTN_I32:
        return ((const int32_t *)array->data)[i];
    case CLATTN_I64:
        return (double)((const int64_t *)array->data)[i];
    case CLATTN_I8:
        return ((const int8_t *)array->data)[i];
    }
    return NAN;
}

bool cli_array_set(cli_array *array, int64_t i, double value) {
    switch (array->dtype) {
    case CLATTN_F32:
        ((float *)array->data)[i] = (float)value;
        return true;
    case CLATTN_F16:
        ((uint16_t *)array->data)[i] = float_to_half((float)value);
        return true;
    case CLATTN_BF16:
        ((uint16_t *)array->data)[i] = float_to_bf16((float)value);
        return true;
    case CLATTN_BOOL:
        ((uint8_t *)array->data)[i] = value != 0;
        return !isnan(value);
    case CLATTN_I32:
        if (!(value >= INT32_MIN && value <= INT32_MAX) || value != floor(value)) return false;
        ((int32_t *)array->data)[i] = (int32_t)value;
        return true;
    case CLATTN_I64:
    case CLATTN_I8:
        break; /* nothing converts to these */
    }
    return false;
}

/* Unlike cli_array_set: a float must hold the value exactly. */
static bool fits(const cli_array *array, int64_t i, double value) {
    return array->dtype != CLATTN_F32 || isnan(value) || cli_array_get(array, i) == value;
}

static bool convert(cli_array *array, clattn_dtype dtype, char why[256]) {
    if (array->dtype == dtype) return true;
    cli_array made = *array;
    made.dtype = dtype;
    if (!cli_array_allocate(&made, why, 256)) return false;
    int64_t elements = cli_array_elements(array);
    for (int64_t i = 0; i < elements; i++) {
        double value = cli_array_get(array, i);
        if (cli_array_set(&made, i, value) && fits(&made, i, value)) continue;
        free(made.data);
        return cli_why(why, 256, "element %lld is %.17g (%s); it does not fit %s", (long long)i, value,
                       clattn_dtype_name(array->dtype), clattn_dtype_name(dtype));
    }
    free(array->data);
    *array = made;
    return true;
}

bool cli_array_to_float(cli_array *array, clattn_dtype dtype, char why[256]) { return convert(array, dtype, why); }

bool cli_array_to_f32(cli_array *array, char why[256]) { return convert(array, CLATTN_F32, why); }

bool cli_array_to_bool(cli_array *array, char why[256]) { return convert(array, CLATTN_BOOL, why); }

bool cli_array_to_i32(cli_array *array, char why[256]) { return convert(array, CLATTN_I32, why); }

/* ---- by extension ------------------------------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static bool only_tensor(const char *path, cli_tensors *tensors, cli_array *array, char why[512]) {
    if (tensors->count != 1)
        return cli_why(why, 512, "%s: holds %d tensors; name one as FILE.safetensors:NAME", path, tensors->count);
    *array = tensors->items[0];
    tensors->items[0] = (cli_array){0};
    return true;
}

static bool named_tensor(const char *path, const char *name, cli_tensors *tensors, cli_array *array, char why[512]) {
    cli_array *found = cli_tensors_find(tensors, name);
    if (!found) return cli_why(why, 512, "%s: holds no tensor named '%s'", path, name);
    *array = *found;
    *found = (cli_array){0};
    return true;
}

bool cli_array_read(const char *path, cli_array *array, char why[512]) {
    *array = (cli_array){0};
    if (ends_with(path, ".npy")) return cli_npy_read(path, array, why);
    const char *colon = strstr(path, ".safetensors:");
    if (!colon && !ends_with(path, ".safetensors"))
        return cli_why(why, 512, "%s: its name must end in .npy or .safetensors, or be FILE.safetensors:NAME", path);
    cli_tensors tensors = {0};
    char *file = strdup(path);
    if (!file) return cli_why(why, 512, "%s: no memory to read it", path);
    if (colon) file[colon - path + (int)strlen(".safetensors")] = '\0';
    bool good = cli_safetensors_read(file, &tensors, why);
    if (good && colon)
        good = named_tensor(file, colon + strlen(".safetensors:"), &tensors, array, why);
    else if (good)
        good = only_tensor(file, &tensors, array, why);
    cli_tensors_free(&tensors);
    free(file);
    return good;
}

static bool is_array_name(const char *path, char why[512]) {
    return ends_with(path, ".npy") || ends_with(path, ".safetensors") ||
           cli_why(why, 512, "%s: its name must end in .npy or .safetensors", path);
}

bool cli_array_writable(const char *path, char why[512]) {
    return is_array_name(path, why) && cli_file_writable(path, why);
}

bool cli_array_write(const char *path, const cli_array *array, char why[512]) {
    if (ends_with(path, ".npy")) return cli_npy_write(path, array, why);
    if (!is_array_name(path, why)) return false;
    cli_array named = *array;
    if (!named.name[0]) strcpy(named.name, "output"); /* the format demands a name */
    cli_tensors tensors = {.items = &named, .count = 1};
    return cli_safetensors_write(path, &tensors, why);
}
