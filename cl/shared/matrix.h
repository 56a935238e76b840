/* The matrix engines that cl/attn_matrix.cl is written for; -DMATRIX_ENGINE names one by its number. */
#ifndef CLATTN_MATRIX_H
#define CLATTN_MATRIX_H

#define MATRIX_NONE 0
#define MATRIX_NV 1     /* NVIDIA mma.sync m16n8k16 (sm_75: m16n8k8), 32 lanes */
#define MATRIX_WMMA11 2 /* AMD WMMA of gfx11, 32 lanes */
#define MATRIX_WMMA12 3 /* AMD WMMA of gfx12, 32 lanes */
#define MATRIX_MFMA32 4 /* AMD MFMA 32x32x8 of gfx90a and gfx94x, 32x32x16 of gfx950, 64 lanes */
#define MATRIX_DPAS8 5  /* Intel DPAS of Xe-HPG, sub-groups of 8 */
#define MATRIX_DPAS16 6 /* Intel DPAS of Xe-HPC and Xe2, sub-groups of 16 */

/* A packed block of weights: so many columns, `depth` elements of each, a multiple of 32. Where along the depth element
 * k lies: NVIDIA's lanes load eight neighbours of x at once, which are two pairs for each of two steps of 16. */
static inline int matrix_depth_at(int engine, int k) {
    if (engine != MATRIX_NV) return k;
    return (k & ~31) | (k >> 2 & 1) << 4 | (k >> 1 & 1) << 3 | (k >> 3 & 3) << 1 | (k & 1);
}

/* Where place d along the depth of column n lies: columns behind each other, or Intel's fragments of 8 columns x 16,
 * which one block read fetches. */
static inline int matrix_weight_at(int engine, int n, int d, int depth) {
    if (engine != MATRIX_DPAS8 && engine != MATRIX_DPAS16) return n * depth + d;
    return ((n >> 3) * (depth >> 4) + (d >> 4)) * 128 + (n & 7) * 16 + (d & 15);
}

/* What mma_probe.cl looks at, each step relying on those before it: X(STEP, what it is). */
#define MATRIX_PROBE_STEPS(X)                                                                                          \
    X(LANES, "lane numbers")                                                                                           \
    X(ADDRESSES, "addresses of local memory")                                                                          \
    X(EXCHANGE, "exchange between lanes")                                                                              \
    X(INSTRUCTION, "layout of the matrix instruction")                                                                 \
    X(COPIES, "copies to local memory")                                                                                \
    X(LOADS, "operands from local memory")                                                                             \
    X(WEIGHTS, "operands from packed weights")                                                                         \
    X(PRODUCT, "product of staged tiles")                                                                              \
    X(SUMS, "sums that become an operand")
enum matrix_probe_step {
#define MATRIX_PROBE_STEP(STEP, what) MATRIX_PROBE_##STEP,
    MATRIX_PROBE_STEPS(MATRIX_PROBE_STEP)
#undef MATRIX_PROBE_STEP
        MATRIX_PROBE_COUNT
};
#define MATRIX_PROBE_WAVES 2
#define MATRIX_PROBE_KEYS 32
#define MATRIX_PROBE_COLUMNS 32 /* of queries, keys and values */

#endif
