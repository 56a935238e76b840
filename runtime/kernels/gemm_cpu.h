/* What products on CPUs share with chains, which run the same blocks. */
#ifndef CLATTN_GEMM_CPU_H
#define CLATTN_GEMM_CPU_H

#include "kernels/gemm.h"

/* Options of inc/gemm_cpu.clh but ACTIVATION. */
void clattn__gemm_cpu_options(const clattn__gemm_kernel *kernel, clattn__options *options);
/* Whether both run the same code. */
bool clattn__gemm_cpu_same_tiles(const clattn__gemm_kernel *a, const clattn__gemm_kernel *b);
/* The most columns, in whole panels, that one block of so many rows may have: their weights stay in the second-level
 * cache, and sums that wait for the next block of k have room. */
int64_t clattn__gemm_cpu_columns(const clattn__gemm_kernel *kernel, const clattn_gemm_args *args, int64_t rows);

#endif
