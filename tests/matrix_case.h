/* What tests of the matrix engines share: contexts with an emulated engine, and verification of one variant. */
#ifndef CLATTN_TEST_MATRIX_CASE_H
#define CLATTN_TEST_MATRIX_CASE_H

#include "registry/registry.h"

/* Caller destroys. NULL: a check failed, or lanes are to meet in sub-groups and the device has none of a fixed size. */
clattn_context *matrix_context(const char *engine, bool subgroups, const char *kernel_dir);
/* Emulated engines are the same code on every device. Where lanes can meet in sub-groups, the tests are about that, and
 * only one engine meets in work-groups. */
bool matrix_has_subgroups(void);

clattn__attn_problem matrix_problem(uint32_t features, clattn_dtype dtype, int64_t head_dim, int64_t value_dim);
/* attn_matrix meets verification's cases: its own tile sizes, empty rows, NaN that must not matter, gaps, +-1e4.
 * set: which of its tiles, counted round and round; -1 is the last. stats may be NULL. */
clattn_status matrix_verify(clattn_context *context, clattn__attn_problem problem, int set, bool long_form,
                            clattn__verify_stats *stats);
/* gemm_matrix likewise. */
clattn_status matrix_verify_product(clattn_context *context, const clattn__gemm_problem *problem, int set,
                                    bool long_form, clattn__verify_stats *stats);

/* Odd widths and depths; heads, and columns that are no whole heads' worth; each weight needs all its parts. */
enum { MATRIX_PRODUCTS = 2 };
extern const clattn__gemm_problem matrix_products[MATRIX_PRODUCTS];

#endif
