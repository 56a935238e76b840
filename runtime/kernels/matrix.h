/* What the host halves of the kernels on matrix engines share. */
#ifndef CLATTN_KERNELS_MATRIX_H
#define CLATTN_KERNELS_MATRIX_H

#include "kernels/impl.h"

/* Bytes left free in local memory: drivers keep launch arguments and their own words there. */
enum { CLATTN__MATRIX_RESERVE = 128 };

/* Bytes of local memory in which emulated lanes meet. */
size_t clattn__matrix_exchange(const clattn__caps *caps, int waves);
/* The options of inc/tile_mma.clh that say which engine it is. */
void clattn__matrix_options(clattn__options *options, const clattn__caps *caps);

#endif
