/* Philox 4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011: a bijection of 128 bits under a key of 64 bits. Without any state, every (key, counter) has its
 * own numbers, in whatever order they are asked for. Compiled by C and by OpenCL C, so that both draw the same ones. */
#ifndef CLATTN_PHILOX_H
#define CLATTN_PHILOX_H

#ifdef __OPENCL_VERSION__
typedef uint clattn_u32;
#define CLATTN_MUL_HIGH(a, b) mul_hi((clattn_u32)(a), (clattn_u32)(b))
#else
#include <stdint.h>
typedef uint32_t clattn_u32;
#define CLATTN_MUL_HIGH(a, b) ((clattn_u32)(((uint64_t)(a) * (uint64_t)(b)) >> 32))
#endif

typedef struct clattn_philox {
    clattn_u32 word[4];
} clattn_philox;

/* Multipliers and key increments are those of the paper. */
static inline clattn_philox clattn_philox4x32(clattn_philox counter, clattn_u32 key0, clattn_u32 key1) {
    for (int round = 0; round < 10; round++) {
        const clattn_u32 high0 = CLATTN_MUL_HIGH(0xD2511F53u, counter.word[0]), low0 = 0xD2511F53u * counter.word[0];
        const clattn_u32 high1 = CLATTN_MUL_HIGH(0xCD9E8D57u, counter.word[2]), low1 = 0xCD9E8D57u * counter.word[2];
        counter.word[0] = high1 ^ counter.word[1] ^ key0;
        counter.word[1] = low1;
        counter.word[2] = high0 ^ counter.word[3] ^ key1;
        counter.word[3] = low0;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return counter;
}

/* Dropout of attention weights. The weight of (batch b, head h, row i, key j) is kept when the first word that Philox
 * makes of the counter (j, i, h, b) under the seed is at least p * 2^32; 0 <= p < 1. */
static inline clattn_u32 clattn_dropout_threshold(float p) { return (clattn_u32)(p * 4294967296.0f); }

static inline int clattn_dropout_keeps(clattn_u32 threshold, clattn_u32 seed_low, clattn_u32 seed_high, int b, int h,
                                       int i, int j) {
    const clattn_philox counter = {{(clattn_u32)j, (clattn_u32)i, (clattn_u32)h, (clattn_u32)b}};
    return clattn_philox4x32(counter, seed_low, seed_high).word[0] >= threshold;
}

#endif
