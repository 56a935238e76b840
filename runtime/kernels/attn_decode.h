/* What tests may ask of the decode kernel beyond impl.h. */
#ifndef CLATTN_ATTN_DECODE_H
#define CLATTN_ATTN_DECODE_H

#include "kernels/impl.h"

/* Launches from now on use so many splits, as far as there are chunks and scratch; 0 = off. Not for threads. */
void clattn__attn_decode_force_splits(int splits);
/* Kernels prepared from now on take the form for GPUs on a CPU too. Not for threads. */
void clattn__attn_decode_force_groups(bool groups);

#endif
