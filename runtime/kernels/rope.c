/* Host half of cl/rope.cl. */
#include <string.h>

#include "kernels/impl.h"

enum { COSINE = 0, SINE = 1 }; /* constants: turns or the two tables, where the call brings none */
enum { PAIR_ELEMENTS = 8 };    /* of memory: a pair twice, position, angle, and for turns the arithmetic */

static clattn_status enqueue(clattn__op *op, const clattn__op_call *call) {
    clattn__env *env = op->programs->env;
    clattn_rope_args args;
    memcpy(&args, call->args.bytes, sizeof args);
    args.x = call->place[CLATTN__ROPE_X];
    args.y = call->place[CLATTN__ROPE_Y];
    args.positions = call->place[CLATTN__ROPE_POSITIONS];
    const bool given = call->mem[CLATTN__ROPE_COSINE] != NULL;
    const clattn_place dense = {.row = args.rotary_dim / 2};
    args.cosine = given ? call->place[CLATTN__ROPE_COSINE] : dense;
    args.sine = given ? call->place[CLATTN__ROPE_SINE] : dense;
    const struct {
        cl_uint slot;
        cl_mem mem;
    } mems[] = {{ROPE_X, call->mem[CLATTN__ROPE_X]},
                {ROPE_POSITIONS, call->mem[CLATTN__ROPE_POSITIONS]},
                {ROPE_COSINE, given ? call->mem[CLATTN__ROPE_COSINE] : op->constants[COSINE].mem},
                {ROPE_SINE, given ? call->mem[CLATTN__ROPE_SINE] : op->constants[SINE].mem},
                {ROPE_Y, call->mem[CLATTN__ROPE_Y]}};
    clattn_status status = clattn__arg(env, op->kernel, ROPE_ARGS, sizeof args, &args);
    for (size_t i = 0; i < CLATTN__COUNT(mems) && status == CLATTN_OK; i++)
        status = clattn__arg_mem(env, op->kernel, mems[i].slot, mems[i].mem);
    if (status != CLATTN_OK) return status;
    const clattn__launch launch =
        clattn__rows_launch(&env->device.caps, op->kernel, (size_t)(args.head_dim - args.rotary_dim / 2),
                            (size_t)args.batch * (size_t)args.heads * (size_t)args.rows, PAIR_ELEMENTS);
    return clattn__launch_enqueue(env, &launch);
}

static clattn_status upload_turns(clattn__op *op, const clattn_rope_desc *d) {
    uint64_t *turns = clattn__turns(d->rotary_dim, d->base);
    if (!turns) return CLATTN_OUT_OF_MEMORY;
    const void *elements = turns; /* of 8 bytes; the constant counts in fours */
    clattn_status status = clattn__op_constant(op, COSINE, elements, 2 * (size_t)(d->rotary_dim / 2));
    clattn__free(turns);
    return status;
}

clattn_status clattn__rope_create(clattn__op *op, clattn__programs *programs, const clattn_rope_desc *d,
                                  const float *cosine, const float *sine) {
    clattn__options options;
    clattn__options_start(&options);
    clattn__storage_options(&options, d->dtype);
    clattn__options_int(&options, "INTERLEAVED", d->style == CLATTN_ROPE_INTERLEAVED);
    clattn__options_int(&options, "ROPE_SOURCE", (long long)d->source);
    clattn__options_int(&options, "INVERSE", d->inverse != 0);
    clattn_status status = clattn__op_create(op, programs, "rope.cl", "rope", &options, enqueue);
    op->variant = (clattn__op_variant){.kind = (int)d->source,
                                       .dtype = d->dtype,
                                       .interleaved = d->style == CLATTN_ROPE_INTERLEAVED,
                                       .inverse = d->inverse != 0};
    if (status == CLATTN_OK && d->source == CLATTN_ROPE_COMPUTED) return upload_turns(op, d);
    const size_t count = (size_t)d->table_rows * (size_t)(d->rotary_dim / 2);
    if (status == CLATTN_OK && cosine) status = clattn__op_constant(op, COSINE, cosine, count);
    if (status == CLATTN_OK && sine) status = clattn__op_constant(op, SINE, sine, count);
    return status;
}

clattn_rope_args clattn__rope_args(const clattn_rope_desc *d) {
    return (clattn_rope_args){.first = d->first,
                              .batch = (int)d->batch,
                              .heads = (int)d->heads,
                              .rows = (int)d->rows,
                              .head_dim = (int)d->head_dim,
                              .rotary_dim = (int)d->rotary_dim,
                              .table_rows = (int)d->table_rows,
                              .has_positions = d->positions != CLATTN_ROPE_NO_POSITIONS,
                              .count_rows = d->positions != CLATTN_ROPE_POSITIONS_BY_ROW};
}
