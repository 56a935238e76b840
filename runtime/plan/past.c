/* Keys and values of earlier calls in front of the new ones: four copies, then attention on what they make.
 *
 *   past_key (B, Hkv, P, D) --------> rows 0..P-1  \
 *                                                   present_key (B, Hkv, T, D): the caller's, or in the arena
 *   key (B, Hkv, T - P, D) ---------> rows P..T-1  /                            and likewise values */
#include <string.h>

#include "plan/plan.h"

/* Where keys or values of all tokens lie. */
typedef struct joined {
    const char *name;
    int past, fresh, present; /* roles */
    int64_t width;
    int id; /* role or arena buffer */
    clattn_place place;
} joined;

static clattn_status place_joined(clattn__plan *plan, const clattn_attention_desc *d, joined *j) {
    const int64_t extents[] = {d->batch, d->kv_heads, d->kv_len, j->width};
    const size_t unit = clattn_dtype_size(d->dtype);
    size_t bytes;
    j->id = j->present;
    if (d->present) return CLATTN_OK;
    if (!clattn__volume(extents, 4, unit, &bytes))
        return clattn__fail(CLATTN_OUT_OF_MEMORY, "the %s of all tokens is larger than the address space", j->name);
    const int buffer = clattn__plan_add_buffer(plan, d->dtype, bytes / unit, "%s of all tokens", j->name);
    if (buffer < 0) return CLATTN_OUT_OF_MEMORY;
    j->id = CLATTN__ROLE_COUNT + buffer;
    j->place =
        (clattn_place){.batch = d->kv_heads * d->kv_len * j->width, .head = d->kv_len * j->width, .row = j->width};
    return CLATTN_OK;
}

/* `rows` tokens of a role to the rows from `first` on. */
static clattn_status add_copy(clattn__plan *plan, const clattn_attention_desc *d, const joined *j, int source,
                              int64_t first, int64_t rows) {
    if (rows == 0) return CLATTN_OK;
    const int index = plan->op_count;
    clattn__op *op = clattn__plan_add_op(plan);
    if (!op) return CLATTN_OUT_OF_MEMORY;
    clattn_status status = clattn__cache_create(op, &plan->context->programs, "kv_append", d->dtype, d->dtype);
    if (status == CLATTN_OK) status = clattn__cache_starts_empty(op);
    if (status != CLATTN_OK) return status;
    clattn__step *step = clattn__plan_add_step(plan, CLATTN__STEP_OP, index);
    if (!step) return CLATTN_OUT_OF_MEMORY;
    const clattn_cache_args args = {.batch = (int)d->batch,
                                    .heads = (int)d->kv_heads,
                                    .rows = (int)rows,
                                    .width = (int)j->width,
                                    .cells = {.capacity = (int)rows},
                                    .items = (int)j->width};
    memcpy(step->args.op.args.bytes, &args, sizeof args);
    step->args.op.place[CLATTN__CACHE_CELLS] = j->place;
    clattn__plan_operand(step, CLATTN__CACHE_TOKENS, source, 0, 0, 0);
    clattn__plan_operand(step, CLATTN__CACHE_CELLS, j->id, 0, 0, first);
    return CLATTN_OK;
}

clattn_status clattn__add_attention_with_past(clattn__plan *plan, const clattn_attention_desc *d) {
    joined key = {"key", CLATTN__ROLE_PAST_KEY, CLATTN__ROLE_KEY, CLATTN__ROLE_PRESENT_KEY, d->head_dim, 0, {0}};
    joined value = {"value", CLATTN__ROLE_PAST_VALUE, CLATTN__ROLE_VALUE, CLATTN__ROLE_PRESENT_VALUE, d->value_dim, 0,
                    {0}};
    joined *const both[] = {&key, &value};
    for (int i = 0; i < 2; i++) {
        clattn_status status = place_joined(plan, d, both[i]);
        if (status == CLATTN_OK) status = add_copy(plan, d, both[i], both[i]->past, 0, d->past_len);
        if (status == CLATTN_OK)
            status = add_copy(plan, d, both[i], both[i]->fresh, d->past_len, d->kv_len - d->past_len);
        if (status != CLATTN_OK) return status;
    }
    clattn_status status = clattn__add_attention(plan, d);
    if (status != CLATTN_OK) return status;
    clattn__step *step = &plan->steps[plan->step_count - 1];
    step->args.attn.key = key.place;
    step->args.attn.value = value.place;
    clattn__plan_operand(step, CLATTN__ROLE_KEY, key.id, 0, 0, 0);
    clattn__plan_operand(step, CLATTN__ROLE_VALUE, value.id, 0, 0, 0);
    return CLATTN_OK;
}
