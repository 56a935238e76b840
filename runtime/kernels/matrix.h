/* What the host halves of the kernels on matrix engines share. */
#ifndef CLATTN_KERNELS_MATRIX_H
#define CLATTN_KERNELS_MATRIX_H

#include "kernels/impl.h"

/* Bytes left free in local memory: drivers keep launch arguments and their own words there. */
enum { CLATTN__MATRIX_RESERVE = 128 };

/* Rows and columns of a tile of sums, and the lanes that own it. */
typedef struct clattn__matrix_engine {
    int m, n, lanes;
} clattn__matrix_engine;
const clattn__matrix_engine *clattn__matrix_engine_of(const clattn__caps *caps);

/* Whether the device has an engine, and one for this storage type. */
bool clattn__matrix_serves(clattn_dtype dtype, const clattn__caps *caps, clattn__refusal *why);
/* Bytes of local memory in which emulated lanes meet. */
size_t clattn__matrix_exchange(const clattn__caps *caps, int waves);
/* The options of inc/tile_mma.clh that say which engine it is. */
void clattn__matrix_options(clattn__options *options, const clattn__caps *caps);

#endif
