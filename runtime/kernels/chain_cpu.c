/* Host half of cl/chain_cpu.cl: products and layer norms on CPUs. */
#include <string.h>

#include "kernels/gemm_cpu.h"

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Rows of a compute unit: with fewer, reading all weights would cost more than launches do. */
enum { LEAST_ROWS = 32 };

static int64_t units_of(const clattn__caps *caps) { return caps->compute_units ? caps->compute_units : 1; }

static clattn_dtype dtype_of(const clattn__chain_part *part) {
    return part->gemm ? part->gemm->problem.dtype : part->op->variant.dtype;
}

bool clattn__chain_takes(const clattn__chain_part *parts, int count, const clattn__chain_part *next) {
    const clattn__gemm_kernel *gemm = NULL;
    int products = next->gemm != NULL, norms = next->op != NULL;
    if (next->gemm && next->gemm->impl != &clattn__gemm_cpu) return false;
    if (next->op && strcmp(next->op->name, "layer_norm") != 0) return false;
    for (int i = 0; i < count; i++) {
        if (dtype_of(&parts[i]) != dtype_of(next)) return false;
        if (parts[i].gemm) gemm = parts[i].gemm;
        products += parts[i].gemm != NULL;
        norms += parts[i].op != NULL;
    }
    if (gemm && next->gemm && !clattn__gemm_cpu_same_tiles(gemm, next->gemm)) return false;
    return products <= CHAIN_PRODUCTS && norms <= CHAIN_NORMS;
}

static const clattn__gemm_kernel *first_product(const clattn__chain *chain) {
    for (int i = 0; i < chain->count; i++)
        if (chain->parts[i].gemm) return chain->parts[i].gemm;
    return NULL;
}

bool clattn__chain_pays(const clattn__chain *chain, const clattn__caps *caps, int64_t rows) {
    return chain->count > 1 && first_product(chain) && rows >= LEAST_ROWS * units_of(caps);
}

clattn_status clattn__chain_create(clattn__chain *chain, clattn__programs *programs) {
    const clattn__gemm_kernel *product = first_product(chain);
    clattn__options options;
    clattn__gemm_cpu_options(product, &options);
    clattn_status status = clattn__op_create(&chain->op, programs, "chain_cpu.cl", "chain_cpu", &options, NULL);
    chain->op.variant.dtype = product->problem.dtype;
    return status;
}

void clattn__chain_clear(clattn__chain *chain) {
    clattn__op_clear(&chain->op);
    memset(chain, 0, sizeof *chain);
}

/* ---- launches ---------------------------------------------------------------------------------------------------- */

_Static_assert(sizeof(clattn_chain_args) + (CHAIN_SLOTS - CHAIN_MEMORY) * sizeof(cl_mem) <= 1024,
               "OpenCL promises no more bytes of arguments");

/* A launch as it grows, part by part. */
typedef struct growing {
    clattn_chain_args args;
    cl_mem mem[CHAIN_SLOTS];
    int memories, products, norms;
} growing;

/* The number of a tensor's memory. */
static unsigned char number_of(growing *l, cl_mem mem) {
    int i = 0;
    while (i < l->memories && l->mem[CHAIN_MEMORY + i] != mem) i++;
    if (i == l->memories && i < CHAIN_MEMORIES && mem) l->mem[CHAIN_MEMORY + l->memories++] = mem;
    return (unsigned char)(mem ? i : 0);
}

static void add_product(growing *l, const clattn__gemm_kernel *kernel, const clattn__gemm_call *call) {
    const int p = l->products++;
    l->args.product[p] = clattn__gemm_plain_args(call);
    l->args.product[p].activation = (int)kernel->problem.activation;
    l->args.product_x[p] = number_of(l, call->x);
    l->args.product_y[p] = number_of(l, call->y);
    l->args.rows = call->args.m;
    l->mem[CHAIN_PRODUCT + 2 * p] = kernel->weight.mem;
    l->mem[CHAIN_PRODUCT + 2 * p + 1] = kernel->bias.mem;
}

static void add_norm(growing *l, const clattn__op *op, const clattn__op_call *call) {
    const int n = l->norms++;
    l->args.norm[n] = clattn__norm_args(call);
    l->args.norm_x[n] = number_of(l, call->mem[CLATTN__NORM_X]);
    l->args.norm_residual[n] = number_of(l, call->mem[CLATTN__NORM_RESIDUAL]);
    l->args.norm_sum[n] = number_of(l, call->mem[CLATTN__NORM_SUM]);
    l->args.norm_y[n] = number_of(l, call->mem[CLATTN__NORM_Y]);
    clattn__layer_norm_constants(op, &l->mem[CHAIN_NORM + 2 * n], &l->mem[CHAIN_NORM + 2 * n + 1]);
}

/* Rows of a work-group, by the earliest expected finish. Reading the weights costs as much as about one row; a
 * twentieth of a work-group stands for units that start late. Two of them at least, so that a small case shows how they
 * share the rows. */
static int rows_per_item(int64_t rows, int64_t units, int64_t tile) {
    enum { MOST = 128 };
    const double weight_rows = 1, late_items = 0.05;
    const int64_t half = ceil_div(rows, 2);
    int64_t chosen = tile;
    double best = -1;
    for (int64_t own = tile; own <= MOST && own < half + tile; own += tile) {
        const double turns = (double)ceil_div(ceil_div(rows, own), units);
        const double finish = (turns + late_items) * ((double)own + weight_rows);
        if (best >= 0 && finish >= best) continue;
        best = finish;
        chosen = own;
    }
    return (int)chosen;
}

/* Rows of a work-group, and columns of each block of its products. */
static void split(const clattn__chain *chain, clattn_chain_args *args) {
    args->rows_per_item =
        rows_per_item(args->rows, units_of(&chain->op.programs->env->device.caps), first_product(chain)->block_m);
    for (int i = 0, p = 0; i < chain->count; i++) {
        if (!chain->parts[i].gemm) continue;
        clattn_gemm_args *product = &args->product[p++];
        const int64_t panel = chain->parts[i].gemm->block_n;
        const int64_t most = clattn__gemm_cpu_columns(chain->parts[i].gemm, product, args->rows_per_item);
        const int64_t blocks = ceil_div(product->n, most);
        product->rows_per_item = args->rows_per_item;
        product->columns_per_item = (int)(ceil_div(ceil_div(product->n, blocks), panel) * panel);
    }
}

clattn_status clattn__chain_enqueue(clattn__chain *chain, const clattn__chain_call *calls) {
    clattn__env *env = chain->op.programs->env;
    growing l = {.args = {.steps = (unsigned char)chain->count}};
    for (int i = 0; i < chain->count; i++) {
        l.args.is_norm[i] = chain->parts[i].op != NULL;
        if (chain->parts[i].gemm)
            add_product(&l, chain->parts[i].gemm, &calls[i].gemm);
        else
            add_norm(&l, chain->parts[i].op, &calls[i].op);
    }
    split(chain, &l.args);
    clattn_status status = clattn__arg(env, chain->op.kernel, CHAIN_ARGS, sizeof l.args, &l.args);
    for (cl_uint slot = CHAIN_MEMORY; slot < CHAIN_SLOTS && status == CLATTN_OK; slot++)
        status = clattn__arg_mem(env, chain->op.kernel, slot, l.mem[slot]);
    if (status != CLATTN_OK) return status;
    const clattn__launch launch = {.kernel = chain->op.kernel,
                                   .dims = 1,
                                   .global = {(size_t)ceil_div(l.args.rows, l.args.rows_per_item)},
                                   .local = {1}};
    return clattn__launch_enqueue(env, &launch);
}
