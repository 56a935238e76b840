/* What the host halves of the projection kernels share beyond the contract in impl.h. */
#ifndef CLATTN_GEMM_H
#define CLATTN_GEMM_H

#include "kernels/impl.h"

/* The rule of every projection kernel: extents fit the launch struct's int. */
bool clattn__gemm_fits(const clattn__gemm_problem *problem, clattn__refusal *why);

/* The launch arguments of a call with its output described as simply as it can be: side-by-side heads are one. */
clattn_gemm_args clattn__gemm_plain_args(const clattn__gemm_call *call);

/* One work-group of so many items for each block of y, in launches of one dimension that stay short. For kernels on
 * inc/gemm.clh. */
clattn_status clattn__gemm_enqueue_blocks(clattn__gemm_kernel *kernel, const clattn__gemm_call *call,
                                          const clattn_gemm_args *args, size_t items);

/* Makes a zeroed host array of count floats for packing; NULL records OUT_OF_MEMORY. */
float *clattn__gemm_scratch(int64_t rows, int64_t columns);
/* Creates the buffer and fills it from host memory. */
clattn_status clattn__gemm_upload(clattn__gemm_kernel *kernel, clattn__buffer *buffer, const float *host, int64_t rows,
                                  int64_t columns);
/* Uploads the bias padded with zeros to count floats; zeros alone when bias is NULL. */
clattn_status clattn__gemm_upload_bias(clattn__gemm_kernel *kernel, const float *bias, int64_t count);
/* Uploads the weight as it is: (n, k) without gaps. */
clattn_status clattn__gemm_upload_plain(clattn__gemm_kernel *kernel, const float *w, int64_t w_row);

/* gemm_clblast.c: hands the parameters of one of CLBlast's kernels over. */
enum { CLATTN__CLBLAST_PARAMS = 16 };
clattn_status clattn__clblast_apply(clattn__env *env, const char *kernel, const char **names, const int *values,
                                    int count);
void clattn__clblast_forget(void); /* drops the programs that CLBlast keeps, of all contexts */
/* clblast_params.c: the device's parameters stay as they are from now on; text tells which they are. */
clattn_status clattn__clblast_use(clattn__env *env, char *text, size_t capacity);

#endif
