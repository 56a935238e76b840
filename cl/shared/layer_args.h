/* Launch structs of the small kernels around attention: norm.cl, elementwise.cl, posenc.cl, mma_probe.cl, and of chains
 * of norms and products. The same rules as in args.h, which goes before this file. */
#ifndef CLATTN_LAYER_ARGS_H
#define CLATTN_LAYER_ARGS_H

/* norm.cl. Row m of a tensor is (b, r) with r < rows. */
typedef struct clattn_norm_args {
    clattn_place x, residual, sum, y;
    clattn_i64 statistics; /* offset of (2, features): mean, then 1 / sqrt(variance + eps) */
    int batch, rows, features;
    int has_residual, has_sum;
    float eps;
} clattn_norm_args;

enum clattn_layer_norm_slot { NORM_ARGS = 0, NORM_X, NORM_RESIDUAL, NORM_WEIGHT, NORM_BIAS, NORM_SUM, NORM_Y };
enum clattn_batch_statistics_slot { BATCH_ARGS = 0, BATCH_X, BATCH_STATISTICS, BATCH_FIRST, BATCH_COUNT };
enum clattn_batch_apply_slot { APPLY_ARGS = 0, APPLY_X, APPLY_STATISTICS, APPLY_WEIGHT, APPLY_BIAS, APPLY_Y };

/* elementwise.cl: y = act(x + addend) */
typedef struct clattn_elementwise_args {
    clattn_place x, addend, y;
    int batch, rows, features;
    int has_addend;
    int copies; /* y has one axis more, (copy, batch, row, feature): its place names the batch stride `head` */
    int reserved;
} clattn_elementwise_args;

enum clattn_elementwise_slot { ELEMENTWISE_ARGS = 0, ELEMENTWISE_X, ELEMENTWISE_ADDEND, ELEMENTWISE_Y };

/* posenc.cl: y = x + the encoding of position[b, r], or of first + r */
typedef struct clattn_positions_args {
    clattn_place x, positions, y; /* positions: batch and row strides */
    clattn_i64 first;
    int batch, rows, features;
    int table_rows; /* learned: positions are clamped to the table */
    int has_x, has_positions;
} clattn_positions_args;

/* mma_probe.cl */
typedef struct clattn_probe_args {
    clattn_place query, key, value, out; /* row strides */
    int step;                            /* of shared/matrix.h */
    int keys;                            /* that exist; the others lie in memory too and must not be read */
} clattn_probe_args;

enum clattn_probe_slot { PROBE_ARGS = 0, PROBE_QUERY, PROBE_KEY, PROBE_VALUE, PROBE_OUT };

enum clattn_positions_slot { POSITIONS_ARGS = 0, POSITIONS_X, POSITIONS_POSITIONS, POSITIONS_TABLE, POSITIONS_Y };

/* chain_cpu.cl: as many products and norms as fit into the 1024 bytes of arguments that every device takes. Tensors lie
 * in memories, by number: several of them in one where they share a buffer. */
#define CHAIN_PRODUCTS 4
#define CHAIN_NORMS 2
#define CHAIN_STEPS 6
#define CHAIN_MEMORIES 4

typedef struct clattn_chain_args {
    clattn_gemm_args product[CHAIN_PRODUCTS];
    clattn_norm_args norm[CHAIN_NORMS];
    int rows, rows_per_item; /* of all steps alike */
    unsigned char product_x[CHAIN_PRODUCTS], product_y[CHAIN_PRODUCTS];
    unsigned char norm_x[CHAIN_NORMS], norm_residual[CHAIN_NORMS], norm_sum[CHAIN_NORMS], norm_y[CHAIN_NORMS];
    unsigned char is_norm[CHAIN_STEPS]; /* else a product; each kind in the order of its numbers */
    unsigned char steps, reserved;
} clattn_chain_args;

enum clattn_chain_slot {
    CHAIN_ARGS = 0,
    CHAIN_MEMORY,                                    /* CHAIN_MEMORIES of them */
    CHAIN_PRODUCT = CHAIN_MEMORY + CHAIN_MEMORIES,   /* weight, then bias, of each product */
    CHAIN_NORM = CHAIN_PRODUCT + 2 * CHAIN_PRODUCTS, /* weight, then bias, of each norm */
    CHAIN_SLOTS = CHAIN_NORM + 2 * CHAIN_NORMS
};

#endif
