/* What the device can do at most: float32 multiply-adds in registers, and reading memory.
 *
 * LANES: floats per vector: 4, 8 or 16. CHAINS vectors have to fit into the registers beside two more, which with
 * LANES 16 they do only where a register holds 16 floats; the host tries each and keeps the best. */
#include "inc/vendor.clh"

#if LANES == 16
typedef float16 vector;
#elif LANES == 8
typedef float8 vector;
#elif LANES == 4
typedef float4 vector;
#else
#error "LANES must be 4, 8 or 16"
#endif

/* A multiply-add waits some four cycles for the one before it in its chain, and two may start per cycle, so eight
 * independent chains are the least that keep the units busy; twelve leave room for longer delays. They are written out
 * so that they stay in registers. The host counts on the number. */
#define CHAINS(STEP) STEP(0) STEP(1) STEP(2) STEP(3) STEP(4) STEP(5) STEP(6) STEP(7) STEP(8) STEP(9) STEP(10) STEP(11)
#define CHAIN_START(i) vector c##i = (vector)((float)i);
#define CHAIN_STEP(i) c##i = muladd(c##i, factor, addend);
#define CHAIN_SUM(i) sum += c##i;

/* Each chain runs c = f c + a, which comes to rest at a / (1 - f). */
__kernel void multiply_adds(const float f, const float a, const int rounds,
                            __global float *sums) /* (work-items, LANES): over the chains */
{
    const vector factor = (vector)f, addend = (vector)a;
    CHAINS(CHAIN_START)
    for (int n = 0; n < rounds; n++) {
        CHAINS(CHAIN_STEP)
    }
    vector sum = (vector)0.0f;
    CHAINS(CHAIN_SUM)
    *(__global vector *)(sums + get_global_id(0) * LANES) = sum;
}

/* Work-item i starts at vector i * start and goes on in steps of `step`, `count` times, a multiple of four. Items of a
 * CPU have a stretch of their own each (step 1); neighbouring items of a GPU read neighbours (start 1). */
__kernel void read_memory(const __global vector *x, const long start, const long step, const long count,
                          __global float *sums) /* (work-items, LANES) */
{
    const __global vector *from = x + get_global_id(0) * start;
    vector a = (vector)0.0f, b = a, c = a, d = a;
    for (long k = 0; k < count; k += 4) {
        a += from[k * step];
        b += from[(k + 1) * step];
        c += from[(k + 2) * step];
        d += from[(k + 3) * step];
    }
    *(__global vector *)(sums + get_global_id(0) * LANES) = (a + b) + (c + d);
}

/* The same stretches, so that each page comes to lie with the unit that will read it. */
__kernel void fill_memory(__global vector *x, const long start, const long step, const long count) {
    __global vector *to = x + get_global_id(0) * start;
    for (long k = 0; k < count; k++) to[k * step] = (vector)1.0f;
}
