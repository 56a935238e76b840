/* A plan in words and in figures. */
#include "plan/plan.h"

#include <stdio.h>
#include <string.h>

enum { EXPLAIN_ROWS = 48 }; /* of the schedule; a long plan repeats itself */

static void add_once(clattn__text *list, const char *word, const char *separator) {
    if (!word[0] || (list->data && strstr(list->data, word))) return;
    clattn__text_add(list, "%s%s", list->length ? separator : "", word);
}

static void name_kernels(clattn__plan *plan) {
    for (int s = 0; s < plan->step_count; s++) {
        const clattn__step *step = &plan->steps[s];
        if (step->kind == CLATTN__STEP_ATTENTION) {
            add_once(&plan->kernels, plan->attentions[step->kernel].impl->name, ", ");
            add_once(&plan->tiles, plan->attentions[step->kernel].tiles, "; ");
        } else if (step->kind == CLATTN__STEP_GEMM) {
            add_once(&plan->kernels, plan->gemms[step->kernel].impl->name, ", ");
            add_once(&plan->tiles, plan->gemms[step->kernel].tiles, "; ");
        } else {
            add_once(&plan->kernels, plan->ops[step->kernel].name, ", ");
        }
    }
    if (plan->chain_count) add_once(&plan->kernels, plan->chains[0].chain.op.name, ", ");
}

static void operand_name(const clattn__plan *plan, int id, char *text, size_t capacity) {
    static const char *const roles[CLATTN__ROLE_COUNT] = {
#define ROLE_NAME(name, text) [CLATTN__ROLE_##name] = text,
        CLATTN__ROLE_MAP(ROLE_NAME)
#undef ROLE_NAME
    };
    snprintf(text, capacity, "%s", id < CLATTN__ROLE_COUNT ? roles[id] : plan->buffers[id - CLATTN__ROLE_COUNT].name);
}

static void explain_step(clattn__plan *plan, int index) {
    const clattn__step *step = &plan->steps[index];
    clattn__text *out = &plan->explain;
    const char *kernel = step->kind == CLATTN__STEP_ATTENTION ? plan->attentions[step->kernel].impl->name
                         : step->kind == CLATTN__STEP_GEMM    ? plan->gemms[step->kernel].impl->name
                                                              : plan->ops[step->kernel].name;
    clattn__text_add(out, "  %4d  %-12s", index, kernel);
    if (step->kind == CLATTN__STEP_GEMM)
        clattn__text_add(out, " %d x %d x %d", step->args.gemm.m, step->args.gemm.n, step->args.gemm.k);
    if (step->kind == CLATTN__STEP_ATTENTION)
        clattn__text_add(out, " %d x %d heads, %d queries x %d keys", step->args.attn.batch,
                         step->args.attn.query_heads, step->args.attn.query_len, step->args.attn.kv_len);
    const char *separator = "   ";
    for (int i = 0; i < CLATTN__STEP_OPERANDS; i++) {
        if (step->operands[i].id == CLATTN__ROLE_NONE) continue;
        char name[64];
        operand_name(plan, step->operands[i].id, name, sizeof name);
        clattn__text_add(out, "%s%s", separator, name);
        separator = ", ";
    }
    clattn__text_add(out, "\n");
}

static void explain_chains(clattn__plan *plan) {
    for (int i = 0; i < plan->chain_count; i++) {
        const clattn__plan_chain *c = &plan->chains[i];
        clattn__text_add(&plan->explain, "%s %d to %d", i == 0 ? "one launch each, by chain_cpu: steps" : ",", c->first,
                         c->first + c->chain.count - 1);
    }
    if (plan->chain_count) clattn__text_add(&plan->explain, "\n");
}

/* Of work-groups that share the keys of one query. */
static size_t partial_bytes(const clattn__plan *plan) {
    size_t bytes = 0;
    for (int i = 0; i < plan->attention_count; i++) bytes += plan->attentions[i].scratch.bytes;
    return bytes;
}

static void explain_schedule(clattn__plan *plan) {
    clattn__text *out = &plan->explain;
    if (partial_bytes(plan)) clattn__text_add(out, "memory: %zu bytes for partial results\n", partial_bytes(plan));
    if (!plan->buffer_count) {
        clattn__text_add(out, "memory: no intermediate buffers\n");
        return;
    }
    clattn__text_add(out, "memory: arena of %zu bytes; %zu without sharing, %zu saved\n", plan->arena_bytes,
                     plan->unshared_bytes,
                     plan->unshared_bytes > plan->arena_bytes ? plan->unshared_bytes - plan->arena_bytes : 0);
    clattn__text_add(out, "  %-28s %12s %6s %6s %12s\n", "buffer", "bytes", "first", "last", "offset");
    for (int i = 0; i < plan->buffer_count && i < EXPLAIN_ROWS; i++) {
        const clattn__arena_buffer *b = &plan->buffers[i];
        clattn__text_add(out, "  %-28s %12zu %6d %6d %12zu\n", b->name, b->bytes, b->first, b->last, b->offset);
    }
    if (plan->buffer_count > EXPLAIN_ROWS)
        clattn__text_add(out, "  ... and %d more buffers\n", plan->buffer_count - EXPLAIN_ROWS);
}

static void explain_set(clattn__text *lines, const char *kernel, const char *const *names, const clattn__params *params,
                        const char *origin) {
    char values[128], line[256];
    if (!names[0]) return;
    clattn__params_text(names, params, values, sizeof values);
    snprintf(line, sizeof line, "parameters: %s: %s; %s\n", kernel, values, origin);
    if (!lines->data || !strstr(lines->data, line)) clattn__text_add(lines, "%s", line);
}

/* What each kernel chose for itself, or was told, and by what. */
static void explain_parameters(clattn__plan *plan) {
    clattn__text lines = {0};
    for (int i = 0; i < plan->attention_count; i++) {
        const clattn__attn_kernel *k = &plan->attentions[i];
        if (k->impl) explain_set(&lines, k->impl->name, k->impl->params, &k->params, k->origin);
    }
    for (int i = 0; i < plan->gemm_count; i++) {
        const clattn__gemm_kernel *k = &plan->gemms[i];
        if (k->impl) explain_set(&lines, k->impl->name, k->impl->params, &k->params, k->origin);
    }
    if (lines.data) clattn__text_add(&plan->explain, "%s", lines.data);
    clattn__text_free(&lines);
    clattn__tuning_note(plan->context, &plan->explain);
}

static const char *precision_text(clattn_precision precision) {
    if (precision == CLATTN_PRECISION_STRICT) return "strict: float32 arithmetic, functions of documented accuracy";
    if (precision == CLATTN_PRECISION_FAST) return "fast: native functions where they are good enough";
    return "default: float32 arithmetic; matrix engines on 16-bit storage";
}

/* What becomes of tensors in host memory. */
static const char *host_memory_text(const clattn__caps *caps) {
    if (!caps->unified_memory) return "copied to the device and back by each run";
    return caps->type == CLATTN_DEVICE_CPU ? "used in place, nothing is copied"
                                           : "used in place where it starts at a page of 4096 bytes and fills whole "
                                             "lines of 64; else copied by each run";
}

void clattn__plan_explain(clattn__plan *plan) {
    clattn__text *out = &plan->explain;
    const clattn__caps *caps = &plan->context->env.device.caps;
    name_kernels(plan);
    clattn__text_add(out, "%s on %s (%s, driver %s)\n", plan->what, caps->name, caps->platform, caps->driver);
    clattn__text_add(out, "kernels: %s\n", plan->kernels.data ? plan->kernels.data : "none");
    if (plan->tiles.data) clattn__text_add(out, "tiles: %s\n", plan->tiles.data);
    explain_parameters(plan);
    for (int i = 0; i < plan->attention_count; i++) {
        const uint32_t own = plan->attentions[i].problem.features;
        char features[256];
        if (i > 0 && own == plan->attentions[i - 1].problem.features) continue; /* the next block of the same kind */
        clattn__features_text(own, features, sizeof features);
        clattn__text_add(out, "features: %s\n", features);
    }
    if (plan->attention_count)
        clattn__text_add(out, "precision: %s\n", precision_text(plan->attentions[0].problem.precision));
    clattn__text_add(out, "passed over:%s", plan->notes.data ? "\n" : " nothing\n");
    if (plan->notes.data) clattn__text_add(out, "%s", plan->notes.data);
    clattn__text_add(out, "work: %.6g FLOP in %d step%s\n", plan->flops, plan->step_count,
                     plan->step_count == 1 ? "" : "s");
    if (plan->parts > 1)
        clattn__text_add(out, "in %lld parts, one after the other, of %lld batch entries each\n",
                         (long long)plan->parts, (long long)plan->part_batch);
    for (int s = 0; s < plan->step_count && s < EXPLAIN_ROWS; s++) explain_step(plan, s);
    if (plan->step_count > EXPLAIN_ROWS)
        clattn__text_add(out, "  ... and %d more steps\n", plan->step_count - EXPLAIN_ROWS);
    explain_chains(plan);
    explain_schedule(plan);
    clattn__text_add(out, "host tensors: %s\n", host_memory_text(caps));
}

void clattn__plan_info(const clattn__plan *plan, clattn_plan_info *info) {
    *info = (clattn_plan_info){.flops = plan->flops,
                               .arena_bytes = plan->arena_bytes,
                               .unshared_bytes = plan->unshared_bytes,
                               .partial_bytes = partial_bytes(plan),
                               .held_bytes = plan->arena.bytes,
                               .steps = plan->step_count,
                               .buffers = plan->buffer_count,
                               .copied_to_device = plan->copied_to_device,
                               .copied_to_host = plan->copied_to_host,
                               .kernels = plan->kernels.data ? plan->kernels.data : "",
                               .tiles = plan->tiles.data ? plan->tiles.data : ""};
    for (int i = 0; i < plan->gemm_count; i++)
        info->held_bytes += plan->gemms[i].weight.bytes + plan->gemms[i].bias.bytes;
    for (int i = 0; i < plan->op_count; i++)
        for (int c = 0; c < CLATTN__OP_CONSTANTS; c++) info->held_bytes += plan->ops[i].constants[c].bytes;
    info->held_bytes += info->partial_bytes;
    for (int i = 0; i < CLATTN__ROLE_COUNT; i++) info->held_bytes += plan->staging[i].bytes;
}

clattn_status clattn__plan_buffer(const clattn__plan *plan, int index, clattn_plan_buffer *row) {
    if (index < 0 || index >= plan->buffer_count)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "index is %d; the plan has %d buffers", index, plan->buffer_count);
    const clattn__arena_buffer *b = &plan->buffers[index];
    *row = (clattn_plan_buffer){
        .name = b->name, .bytes = b->bytes, .offset = b->offset, .first_step = b->first, .last_step = b->last};
    return CLATTN_OK;
}
