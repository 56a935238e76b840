/* IEEE binary16 and bfloat16 in plain integer steps, round to nearest even. */
#include "base/base.h"

#include <string.h>

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* bits / 2^shift, rounded to nearest, ties to the even quotient; shift 1..31. */
static uint32_t shift_round(uint32_t bits, int shift) {
    uint32_t half = 1u << (shift - 1), rest = bits & ((1u << shift) - 1), quotient = bits >> shift;
    return quotient + (rest > half || (rest == half && (quotient & 1)));
}

float clattn__half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = (half >> 10) & 31, fraction = half & 0x3FF;
    if (exponent == 31) return float_of(sign | 0x7F800000u | fraction << 13); /* infinity, NaN with its payload */
    if (exponent == 0) {
        float magnitude = (float)fraction * 0x1p-24f; /* zero and subnormals, exact */
        return float_of(sign | bits_of(magnitude));
    }
    return float_of(sign | (exponent + 127 - 15) << 23 | fraction << 13);
}

uint16_t clattn__float_to_half(float value) {
    uint32_t bits = bits_of(value), magnitude = bits & 0x7FFFFFFFu;
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    if (magnitude > 0x7F800000u) return (uint16_t)(sign | 0x7E00 | (magnitude >> 13 & 0x3FF)); /* quiet NaN */
    if (magnitude >= 0x477FF000u) return (uint16_t)(sign | 0x7C00); /* 65520 = 65504 + half a step rounds to infinity */
    if (magnitude >= 0x38800000u) return (uint16_t)(sign | shift_round(magnitude - (112u << 23), 13)); /* >= 2^-14 */
    if (magnitude < 0x33000000u) return sign;                                                          /* < 2^-25 */
    /* Subnormal: the 24-bit significand in units of 2^-24. A carry into the exponent is the right result. */
    int shift = 126 - (int)(magnitude >> 23);
    return (uint16_t)(sign | shift_round((magnitude & 0x7FFFFFu) | 0x800000u, shift));
}

float clattn__bf16_to_float(uint16_t bf16) { return float_of((uint32_t)bf16 << 16); }

uint16_t clattn__float_to_bf16(float value) {
    uint32_t bits = bits_of(value);
    /* Without the set bit a NaN whose payload lies in the dropped half would become infinity. */
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)shift_round(bits, 16);
}
