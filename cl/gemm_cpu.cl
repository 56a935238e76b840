/* Projection y = act(x W^T + bias) on CPU devices: each work-group, of one work-item, computes one block of y. */
#include "inc/gemm_cpu.clh"

__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
gemm_cpu(const clattn_gemm_args a,   /* grid: (ceil(m / rows_per_item), ceil(n / columns_per_item))  */
         const __global storage *x,  /* (m, k) at a.x                                                */
         const __global float *w,    /* (ceil(n / NR), k, NR) packed panels                          */
         const __global float *bias, /* (ceil(n / NR) * NR), zeros where there is none               */
         __global storage *y)        /* (m, n) at a.y; overwritten whatever it holds, or added to    */
{
    gemm_cpu_body((int)get_group_id(0), (int)get_group_id(1), a, x, w, bias, y);
}
