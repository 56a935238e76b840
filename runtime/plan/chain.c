/* Finds consecutive steps that may run as one launch: each row of what they make comes from the same row of what they
 * read. */
#include <string.h>

#include "plan/plan.h"

/* What a step reads and writes: operands, and where they lie when they are in the arena. */
typedef struct access {
    const clattn__operand *operand;
    const clattn_place *place;
} access;

/* The steps of a chain so far. */
typedef struct run {
    clattn__chain_part parts[CHAIN_STEPS];
    access accesses[CHAIN_STEPS * CLATTN__OP_OPERANDS];
    int count, access_count;
    int64_t rows, rows_per_batch;
} run;

static clattn__chain_part part_of(const clattn__plan *plan, const clattn__step *step) {
    clattn__chain_part part = {NULL, NULL};
    if (step->kind == CLATTN__STEP_GEMM) part.gemm = &plan->gemms[step->kernel];
    if (step->kind == CLATTN__STEP_OP) part.op = &plan->ops[step->kernel];
    return part;
}

static void count_rows(const clattn__step *step, int64_t *rows, int64_t *rows_per_batch) {
    if (step->kind == CLATTN__STEP_GEMM) {
        *rows = step->args.gemm.m;
        *rows_per_batch = step->args.gemm.rows;
    } else {
        clattn_norm_args args;
        memcpy(&args, step->args.op.args.bytes, sizeof args);
        *rows = (int64_t)args.batch * args.rows;
        *rows_per_batch = args.rows;
    }
}

static int accesses_of(const clattn__step *step, access *list) {
    int count = 0;
    for (int i = 0; i < CLATTN__OP_OPERANDS; i++) {
        if (step->operands[i].id == CLATTN__ROLE_NONE) continue;
        const clattn_place *place = step->kind == CLATTN__STEP_OP ? &step->args.op.place[i]
                                    : i == CLATTN__GEMM_X         ? &step->args.gemm.x
                                                                  : &step->args.gemm.y;
        list[count++] = (access){&step->operands[i], place};
    }
    return count;
}

/* Row by row: whole tensors, and the same rows of a buffer wherever it is used. */
static bool same_rows(const run *r, const access *one) {
    for (int i = 0; i < 3; i++)
        if (one->operand->origin[i] != 0) return false;
    for (int i = 0; i < r->access_count; i++) {
        const access *other = &r->accesses[i];
        if (other->operand->id != one->operand->id || one->operand->id < CLATTN__ROLE_COUNT) continue;
        if (other->place->offset != one->place->offset || other->place->batch != one->place->batch ||
            other->place->row != one->place->row)
            return false;
    }
    return true;
}

/* Buffers of the run: all of the arena are one. */
static int memories(const run *r) {
    int count = 0;
    for (int i = 0; i < r->access_count; i++) {
        const int id = r->accesses[i].operand->id;
        bool seen = false;
        for (int j = 0; j < i && !seen; j++) {
            const int earlier = r->accesses[j].operand->id;
            seen = earlier == id || (earlier >= CLATTN__ROLE_COUNT && id >= CLATTN__ROLE_COUNT);
        }
        count += !seen;
    }
    return count;
}

/* Adds the step when it may run on the same rows with those before it. */
static bool extend(run *r, const clattn__plan *plan, const clattn__step *step) {
    const clattn__chain_part part = part_of(plan, step);
    int64_t rows, rows_per_batch;
    if (r->count == CHAIN_STEPS || (!part.gemm && !part.op)) return false;
    if (!clattn__chain_takes(r->parts, r->count, &part)) return false;
    count_rows(step, &rows, &rows_per_batch);
    if (r->count > 0 && (rows != r->rows || rows_per_batch != r->rows_per_batch)) return false;
    run next = *r;
    next.access_count += accesses_of(step, next.accesses + r->access_count);
    for (int i = r->access_count; i < next.access_count; i++)
        if (!same_rows(r, &next.accesses[i])) return false;
    if (memories(&next) > CHAIN_MEMORIES) return false;
    next.parts[next.count++] = part;
    next.rows = rows;
    next.rows_per_batch = rows_per_batch;
    *r = next;
    return true;
}

/* Its steps run one by one where it does not reproduce the reference. */
static clattn_status add_chain(clattn__plan *plan, int first, const clattn__chain *parts) {
    clattn__plan_chain *added = &plan->chains[plan->chain_count++];
    *added = (clattn__plan_chain){.first = first, .chain = *parts};
    clattn_status status = clattn__chain_create(&added->chain, &plan->context->programs);
    if (status == CLATTN_OK) status = clattn__op_trust(plan->context, &added->chain.op);
    if (status != CLATTN_WRONG_RESULT) return status;
    clattn__text_add(&plan->notes, "  steps %d to %d in one launch: %s\n", first, first + parts->count - 1,
                     clattn_last_error());
    clattn__chain_clear(&added->chain);
    plan->chain_count--;
    return CLATTN_OK;
}

clattn_status clattn__plan_find_chains(clattn__plan *plan) {
    clattn_status status = CLATTN_OK;
    plan->chains = clattn__alloc((size_t)plan->step_count / 2 + 1, sizeof *plan->chains);
    if (!plan->chains) return CLATTN_OUT_OF_MEMORY;
    for (int s = 0; s < plan->step_count && status == CLATTN_OK;) {
        run r = {.count = 0};
        while (s + r.count < plan->step_count && extend(&r, plan, &plan->steps[s + r.count])) {
        }
        clattn__chain chain = {.count = r.count};
        memcpy(chain.parts, r.parts, sizeof r.parts);
        if (clattn__chain_pays(&chain, &plan->context->env.device.caps, r.rows)) status = add_chain(plan, s, &chain);
        s += r.count > 0 ? r.count : 1;
    }
    return status;
}
