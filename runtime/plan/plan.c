/* Building a plan: growing lists of steps, buffers and kernels; finish() turns them into something that only runs. */
#include "plan/plan.h"

#include <stdio.h>
#include <string.h>

/* Makes room for one more element; false leaves everything as it was. */
static bool grow(void **items, int count, int *capacity, size_t size) {
    if (count < *capacity) return true;
    int wanted = *capacity ? *capacity * 2 : 8;
    void *larger = clattn__alloc((size_t)wanted, size);
    if (!larger) return false;
    if (count) memcpy(larger, *items, (size_t)count * size);
    clattn__free(*items);
    *items = larger;
    *capacity = wanted;
    return true;
}

int clattn__plan_add_buffer(clattn__plan *plan, clattn_dtype dtype, size_t count, const char *name_format, ...) {
    const size_t unit = clattn_dtype_size(dtype);
    void *items = plan->buffers;
    if (!grow(&items, plan->buffer_count, &plan->buffer_capacity, sizeof *plan->buffers)) return -1;
    plan->buffers = items;
    clattn__arena_buffer *buffer = &plan->buffers[plan->buffer_count];
    *buffer = (clattn__arena_buffer){.bytes = count * unit, .first = -1, .last = -1, .unit = unit};
    va_list values;
    const int used = snprintf(buffer->name, sizeof buffer->name, "%s", plan->scope);
    va_start(values, name_format);
    vsnprintf(buffer->name + used, sizeof buffer->name - (size_t)used, name_format, values);
    va_end(values);
    return plan->buffer_count++;
}

clattn__step *clattn__plan_add_step(clattn__plan *plan, clattn__step_kind kind, int kernel) {
    void *items = plan->steps;
    if (!grow(&items, plan->step_count, &plan->step_capacity, sizeof *plan->steps)) return NULL;
    plan->steps = items;
    clattn__step *step = &plan->steps[plan->step_count++];
    memset(step, 0, sizeof *step);
    step->kind = kind;
    step->kernel = kernel;
    for (int i = 0; i < CLATTN__STEP_OPERANDS; i++) step->operands[i].id = CLATTN__ROLE_NONE;
    return step;
}

clattn__attn_kernel *clattn__plan_add_attention(clattn__plan *plan) {
    void *items = plan->attentions;
    if (!grow(&items, plan->attention_count, &plan->attention_capacity, sizeof *plan->attentions)) return NULL;
    plan->attentions = items;
    memset(&plan->attentions[plan->attention_count], 0, sizeof *plan->attentions);
    return &plan->attentions[plan->attention_count++];
}

clattn__gemm_kernel *clattn__plan_add_gemm(clattn__plan *plan) {
    void *items = plan->gemms;
    if (!grow(&items, plan->gemm_count, &plan->gemm_capacity, sizeof *plan->gemms)) return NULL;
    plan->gemms = items;
    memset(&plan->gemms[plan->gemm_count], 0, sizeof *plan->gemms);
    return &plan->gemms[plan->gemm_count++];
}

clattn__op *clattn__plan_add_op(clattn__plan *plan) {
    void *items = plan->ops;
    if (!grow(&items, plan->op_count, &plan->op_capacity, sizeof *plan->ops)) return NULL;
    plan->ops = items;
    memset(&plan->ops[plan->op_count], 0, sizeof *plan->ops);
    return &plan->ops[plan->op_count++];
}

void clattn__plan_operand(clattn__step *step, int slot, int id, int64_t batch, int64_t head, int64_t row) {
    step->operands[slot] = (clattn__operand){.id = id, .origin = {batch, head, row}};
}

/* What one launch uses at any time, it uses all the time: its work-groups are at different steps. */
static void find_lifetimes(clattn__plan *plan) {
    for (int s = 0, c = 0; s < plan->step_count; s++) {
        int first = s, last = s;
        while (c < plan->chain_count && plan->chains[c].first + plan->chains[c].chain.count <= s) c++;
        if (c < plan->chain_count && plan->chains[c].first <= s) {
            first = plan->chains[c].first;
            last = first + plan->chains[c].chain.count - 1;
        }
        for (int i = 0; i < CLATTN__STEP_OPERANDS; i++) {
            int index = plan->steps[s].operands[i].id - CLATTN__ROLE_COUNT;
            if (index < 0) continue;
            clattn__arena_buffer *buffer = &plan->buffers[index];
            if (buffer->first < 0) buffer->first = first;
            buffer->last = last;
        }
    }
}

clattn_status clattn__plan_finish(clattn__plan *plan) {
    clattn__env *env = &plan->context->env;
    for (int i = 0; i < plan->op_count; i++) {
        clattn_status status = clattn__op_trust(plan->context, &plan->ops[i]);
        if (status != CLATTN_OK) return status;
    }
    clattn_status status = clattn__plan_find_chains(plan);
    if (status != CLATTN_OK) return status;
    find_lifetimes(plan);
    size_t alignment = env->device.caps.alignment_bytes > 64 ? env->device.caps.alignment_bytes : 64;
    if (!clattn__arena_layout(plan->buffers, plan->buffer_count, alignment, &plan->arena_bytes))
        return clattn__fail(CLATTN_OUT_OF_MEMORY,
                            "the intermediate buffers of this plan are larger than the address space");
    if (plan->memory_limit && plan->arena_bytes > plan->memory_limit)
        return clattn__fail(CLATTN_MEMORY_LIMIT, "memory_limit is %zu bytes; the intermediate buffers take %zu",
                            plan->memory_limit, plan->arena_bytes);
    plan->unshared_bytes = 0;
    for (int i = 0; i < plan->buffer_count; i++)
        plan->unshared_bytes += (plan->buffers[i].bytes + alignment - 1) & ~(alignment - 1);
    if (plan->buffer_count) {
        status = clattn__buffer_create(env, plan->arena_bytes, &plan->arena);
        if (status != CLATTN_OK) return status;
    }
    clattn__plan_explain(plan);
    if (plan->explain.failed || plan->kernels.failed || plan->tiles.failed)
        return clattn__fail(CLATTN_OUT_OF_MEMORY, "no memory for the explanation of the plan");
    return CLATTN_OK;
}

void clattn__plan_clear(clattn__plan *plan) {
    if (!plan->context) return;
    clattn__env *env = &plan->context->env;
    for (int i = 0; i < plan->attention_count; i++) clattn__attn_kernel_clear(&plan->attentions[i]);
    for (int i = 0; i < plan->gemm_count; i++) clattn__gemm_kernel_clear(&plan->gemms[i]);
    for (int i = 0; i < plan->op_count; i++) clattn__op_clear(&plan->ops[i]);
    for (int i = 0; i < plan->chain_count; i++) clattn__chain_clear(&plan->chains[i].chain);
    for (int i = 0; i < CLATTN__ROLE_COUNT; i++) clattn__buffer_clear(env, &plan->staging[i]);
    clattn__buffer_clear(env, &plan->arena);
    clattn__free(plan->steps);
    clattn__free(plan->buffers);
    clattn__free(plan->attentions);
    clattn__free(plan->gemms);
    clattn__free(plan->ops);
    clattn__free(plan->chains);
    clattn__free(plan->lengths);
    clattn__text_free(&plan->notes);
    clattn__text_free(&plan->explain);
    clattn__text_free(&plan->kernels);
    clattn__text_free(&plan->tiles);
    memset(plan, 0, sizeof *plan);
}
