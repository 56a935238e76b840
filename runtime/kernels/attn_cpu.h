/* What tests may ask of the CPU kernel beyond impl.h. */
#ifndef CLATTN_ATTN_CPU_H
#define CLATTN_ATTN_CPU_H

#include "kernels/impl.h"

/* Kernels prepared from now on use vectors of 4, 8 or 16 lanes whatever the device says; 0 = off. Not for threads. */
void clattn__attn_cpu_force_width(int lanes);
/* Likewise: work-groups do so many heads where these share a mask. */
void clattn__attn_cpu_force_heads(int heads);
/* Likewise: work-groups do so many tiles of rows where keys and values are of 16 bits. */
void clattn__attn_cpu_force_tiles(int tiles);

#endif
