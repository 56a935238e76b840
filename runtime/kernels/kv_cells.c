/* Host half of cl/kv_append.cl and cl/kv_gather.cl: tokens into a cache, and out of it again. */
#include <stdio.h>
#include <string.h>

#include "kernels/impl.h"

enum { NO_TOKENS = 0 }; /* constant: the length of every batch entry of a cache that starts empty */
/* Of memory: a token's element, the cell, the table. A work-item that is alone in its group waits so much longer. */
enum { CELL_ELEMENTS = 3, LONE_ITEM = 8 };

static clattn_status enqueue(clattn__op *op, const clattn__op_call *call) {
    clattn__env *env = op->programs->env;
    clattn_cache_args args;
    memcpy(&args, call->args.bytes, sizeof args);
    const struct {
        cl_uint slot;
        int operand;
        clattn_place *place;
    } tensors[] = {{CACHE_TOKENS, CLATTN__CACHE_TOKENS, &args.tokens},
                   {CACHE_LENGTHS, CLATTN__CACHE_LENGTHS, &args.lengths},
                   {CACHE_TABLE, CLATTN__CACHE_TABLE, &args.cells.table},
                   {CACHE_CELLS, CLATTN__CACHE_CELLS, &args.cache},
                   {CACHE_SCALES, CLATTN__CACHE_SCALES, &args.scales}};
    clattn_status status = CLATTN_OK;
    for (size_t i = 0; i < CLATTN__COUNT(tensors) && status == CLATTN_OK; i++) {
        *tensors[i].place = call->place[tensors[i].operand];
        status = clattn__arg_mem(env, op->kernel, tensors[i].slot, call->mem[tensors[i].operand]);
    }
    if (status == CLATTN_OK && op->constants[NO_TOKENS].mem)
        status = clattn__arg_mem(env, op->kernel, CACHE_LENGTHS, op->constants[NO_TOKENS].mem);
    if (status == CLATTN_OK) status = clattn__arg(env, op->kernel, CACHE_ARGS, sizeof args, &args);
    if (status != CLATTN_OK) return status;
    const bool by_row = args.items == 1;
    clattn__launch launch =
        clattn__rows_launch(&env->device.caps, op->kernel, (size_t)args.items,
                            (size_t)args.batch * (size_t)args.heads * (size_t)args.rows, CELL_ELEMENTS);
    if (by_row) {
        launch.global[0] = launch.local[0] = 1;
        clattn__launch_shorten(&launch, &env->device.caps, (double)LONE_ITEM * CELL_ELEMENTS * args.width);
    }
    return clattn__launch_enqueue(env, &launch);
}

/* The bits of 0.0f are those of 0; the stride of absent lengths is 0 too. */
clattn_status clattn__cache_starts_empty(clattn__op *op) {
    const float none = 0;
    return clattn__op_constant(op, NO_TOKENS, &none, 1);
}

clattn_status clattn__cache_create(clattn__op *op, clattn__programs *programs, const char *kernel, clattn_dtype tokens,
                                   clattn_dtype cells) {
    char file[32];
    clattn__options options;
    clattn__options_start(&options);
    clattn__storage_options(&options, tokens);
    clattn__cell_options(&options, cells);
    snprintf(file, sizeof file, "%s.cl", kernel);
    clattn_status status = clattn__op_create(op, programs, file, kernel, &options, enqueue);
    op->variant = (clattn__op_variant){.dtype = tokens, .cells = cells};
    return status;
}
