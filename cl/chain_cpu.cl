/* Several steps on the same rows in one launch, on CPU devices: each work-group, of one work-item, takes rows_per_item
 * rows through all of them. Products and layer norms need nothing of other rows, so nobody waits for anybody, and what
 * a step writes is still in the nearest caches when the next one reads it.
 *
 *                  product     norm     product    product     norm
 *            rows  +------+   +----+   +--------+  +------+   +----+
 *   group 0        |......|-->|....|-->|........|->|......|-->|....|     Columns of a product are walked in blocks of
 *                  +------+   +----+   +--------+  +------+   +----+     columns_per_item, whose weights fit the
 *   group 1        |......|-->|....|-->|........|->|......|-->|....|     second-level cache: see inc/gemm_cpu.clh.
 *                  +------+   +----+   +--------+  +------+   +----+     */
#define ITEMS 1
#include "inc/gemm_cpu.clh"
#include "inc/norm_row.clh"

__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
chain_cpu(const clattn_chain_args a, /* grid: ceil(rows / rows_per_item) */
          __global storage *memory0, __global storage *memory1, __global storage *memory2, __global storage *memory3,
          const __global float *weight0, const __global float *bias0, /* of products: as in gemm_cpu.cl */
          const __global float *weight1, const __global float *bias1, const __global float *weight2,
          const __global float *bias2, const __global float *weight3, const __global float *bias3,
          const __global float *norm_weight0, const __global float *norm_bias0, /* (features) */
          const __global float *norm_weight1, const __global float *norm_bias1) {
    __global storage *const memory[CHAIN_MEMORIES] = {memory0, memory1, memory2, memory3};
    const __global float *const weight[CHAIN_PRODUCTS] = {weight0, weight1, weight2, weight3};
    const __global float *const bias[CHAIN_PRODUCTS] = {bias0, bias1, bias2, bias3};
    const __global float *const norm_weight[CHAIN_NORMS] = {norm_weight0, norm_weight1};
    const __global float *const norm_bias[CHAIN_NORMS] = {norm_bias0, norm_bias1};
    const int block = (int)get_group_id(0), first = block * a.rows_per_item;
    const int end = min(a.rows, first + a.rows_per_item);
    int product = 0, norm = 0;

    for (int step = 0; step < a.steps; step++) {
        if (a.is_norm[step]) {
            for (int row = first; row < end; row++)
                normalise_row(&a.norm[norm], row, 0, memory[a.norm_x[norm]], memory[a.norm_residual[norm]],
                              norm_weight[norm], norm_bias[norm], memory[a.norm_sum[norm]], memory[a.norm_y[norm]], 0);
            norm++;
        } else {
            const int columns = a.product[product].columns_per_item;
            for (int column = 0; column * columns < a.product[product].n; column++)
                gemm_cpu_body(block, column, a.product[product], memory[a.product_x[product]], weight[product],
                              bias[product], memory[a.product_y[product]]);
            product++;
        }
    }
}
