/* One run: lend the outside tensors to the device, resolve every operand's address, enqueue, take the outputs back. */
#include "plan/plan.h"

#include <limits.h>
#include <string.h>

bool clattn__role_is_output(clattn__role role) { return role >= CLATTN__ROLE_OUTPUT; }

/* ---- binding ---------------------------------------------------------------------------------------------------- */

/* Elements from the first to behind the last one of a view; 0 when it is empty. */
static int64_t span_of(const clattn_tensor *tensor) {
    int64_t span = 1;
    for (int i = 0; i < tensor->rank; i++) {
        if (tensor->shape[i] == 0) return 0;
        span += (tensor->shape[i] - 1) * tensor->stride[i];
    }
    return span;
}

/* Extents of 1 are read again and again: that is all there is to broadcasting. */
static int64_t stride_of(const clattn_tensor *tensor, int axis, bool broadcast) {
    if (axis < 0 || axis >= tensor->rank) return 0;
    return broadcast && tensor->shape[axis] == 1 ? 0 : tensor->stride[axis];
}

/* (batch, head, row) from the axes of each role's layout. */
static void place_of(clattn__role role, const clattn_tensor *tensor, clattn__bound *bound) {
    const bool mask = role == CLATTN__ROLE_MASK || role == CLATTN__ROLE_MEMORY_MASK;
    const bool headed = tensor->rank == 4 || role == CLATTN__ROLE_LSE; /* else (batch, row, ...) */
    bound->place.batch = stride_of(tensor, 0, mask);
    bound->place.head = headed ? stride_of(tensor, 1, mask) : 0;
    bound->place.row = stride_of(tensor, headed ? 2 : 1, mask);
    bound->column = mask ? stride_of(tensor, 3, true) : 1;
    if (mask && tensor->shape[3] > 1) bound->column = 1;
}

static clattn_status check_mem(clattn__plan *plan, const clattn_tensor *tensor) {
    size_t bytes = 0;
    cl_context context = NULL;
    cl_int code = clGetMemObjectInfo((cl_mem)tensor->mem, CL_MEM_SIZE, sizeof bytes, &bytes, NULL);
    if (code == CL_SUCCESS)
        code = clGetMemObjectInfo((cl_mem)tensor->mem, CL_MEM_CONTEXT, sizeof(cl_context), (void *)&context, NULL);
    if (code != CL_SUCCESS) return clattn__cl_fail(code, "clGetMemObjectInfo", plan->context->env.device.caps.name);
    if (context != plan->context->env.context)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "a cl_mem belongs to another context than the plan");
    size_t needed = (size_t)(tensor->offset + span_of(tensor)) * clattn_dtype_size(tensor->dtype);
    if (needed > bytes)
        return clattn__fail(CLATTN_INVALID_SHAPE, "a cl_mem holds %zu bytes, but its view reaches to byte %zu", bytes,
                            needed);
    return CLATTN_OK;
}

/* Host lengths become int32, whatever they were. */
static void take_lengths(clattn__plan *plan, const clattn_tensor *tensor, clattn_tensor *taken) {
    for (int64_t b = 0; b < tensor->shape[0]; b++) {
        int64_t at = tensor->offset + b * tensor->stride[0];
        plan->lengths[b] = tensor->dtype == CLATTN_I64 ? (int32_t)((const int64_t *)tensor->data)[at]
                                                       : ((const int32_t *)tensor->data)[at];
    }
    *taken = clattn_host(plan->lengths, CLATTN_I32, 1, tensor->shape[0], 0, 0, 0);
    taken->stride[0] = 1;
}

/* The first byte of a bound host tensor and its size. */
static char *host_range(const clattn_tensor *tensor, size_t *bytes) {
    const size_t unit = clattn_dtype_size(tensor->dtype);
    *bytes = (size_t)span_of(tensor) * unit;
    return (char *)tensor->data + (size_t)tensor->offset * unit;
}

/* Inputs that share host memory (query = key = value, or slices of one packed array) must share one loan: OpenCL leaves
 * two buffers on the same host memory undefined. So must outputs (keys and values side by side in the rows of one
 * array): what is copied back of one would bring along the old bytes of the other. Widens [*first, *first + *bytes)
 * over every input, or every output, that it touches, and tells the first role among them, which owns the loan. */
static clattn__role shared_range(const clattn_tensor tensors[], clattn__role role, char **first, size_t *bytes) {
    clattn__role owner = role;
    const bool output = clattn__role_is_output(role);
    const int begin = output ? CLATTN__ROLE_OUTPUT : 0, end = output ? CLATTN__ROLE_COUNT : CLATTN__ROLE_OUTPUT;
    for (bool wider = true; wider;) {
        wider = false;
        for (int other = begin; other < end; other++) {
            size_t size;
            if (!tensors[other].data || span_of(&tensors[other]) == 0) continue;
            char *from = host_range(&tensors[other], &size);
            if (from >= *first + *bytes || *first >= from + size) continue;
            char *low = from < *first ? from : *first,
                 *high = from + size > *first + *bytes ? from + size : *first + *bytes;
            wider = wider || low != *first || (size_t)(high - low) != *bytes;
            *first = low;
            *bytes = (size_t)(high - low);
            if (other < (int)owner) owner = (clattn__role)other;
        }
    }
    return owner;
}

static clattn_status bind_host(clattn__plan *plan, const clattn_tensor tensors[], clattn__role role,
                               clattn__bound *bound) {
    const size_t unit = clattn_dtype_size(tensors[role].dtype);
    size_t bytes, own_bytes;
    char *own = host_range(&tensors[role], &own_bytes), *first = own;
    bytes = own_bytes;
    clattn__role owner = shared_range(tensors, role, &first, &bytes);
    if ((size_t)(own - first) % unit !=
        0) { /* elements of the union do not line up: OpenCL's rule cannot be kept by views */
        first = own;
        bytes = own_bytes;
        owner = role;
    }
    bound->place.offset = (own - first) / (ptrdiff_t)unit;
    const clattn__loan *shared = &plan->bound[owner].loan;
    if (owner != role && shared->mem && shared->host == first) { /* else the owner's elements did not line up */
        bound->mem = shared->mem;
        return CLATTN_OK;
    }
    clattn_status status = clattn__loan_begin(&plan->context->env, first, bytes, clattn__role_is_output(role),
                                              &plan->staging[role], &bound->loan);
    bound->mem = bound->loan.mem;
    if (status == CLATTN_OK && !bound->loan.wrapped) plan->copied_to_device += bytes;
    return status;
}

static clattn_status bind(clattn__plan *plan, const clattn_tensor tensors[], clattn__role role) {
    clattn__bound *bound = &plan->bound[role];
    const clattn_tensor *tensor = &tensors[role];
    if (!tensor->data && !tensor->mem) return CLATTN_OK; /* absent or empty: a null pointer that no kernel reads */
    place_of(role, tensor, bound);
    if (span_of(tensor) == 0) return CLATTN_OK;
    if (tensor->data) return bind_host(plan, tensors, role, bound);
    bound->mem = (cl_mem)tensor->mem;
    bound->place.offset = tensor->offset;
    return check_mem(plan, tensor);
}

/* ---- resolving -------------------------------------------------------------------------------------------------- */

/* The buffer of an operand, and its place: strides from the bound tensor, or the step's own in the arena. */
static cl_mem resolve(const clattn__plan *plan, const clattn__operand *operand, clattn_place *place) {
    if (operand->id == CLATTN__ROLE_NONE) return NULL;
    cl_mem mem;
    if (operand->id < CLATTN__ROLE_COUNT) {
        *place = plan->bound[operand->id].place;
        mem = plan->bound[operand->id].mem;
    } else {
        const clattn__arena_buffer *buffer = &plan->buffers[operand->id - CLATTN__ROLE_COUNT];
        place->offset += (clattn_i64)(buffer->offset / buffer->unit);
        mem = plan->arena.mem;
    }
    place->offset +=
        operand->origin[0] * place->batch + operand->origin[1] * place->head + operand->origin[2] * place->row;
    return mem;
}

/* Every tensor of an attention step. The launch struct has whole places for some of them; of the others it holds the
 * offset and what strides they have. */
static void resolve_attention(const clattn__plan *plan, const clattn__operand *operands, clattn__attn_call *call) {
    clattn_attn_args *args = &call->args;
    clattn_place place[ATTN_SLOTS] = {{0}}; /* of those others */
    const struct {
        clattn__role role;
        int slot;
        clattn_place *place;
    } tensors[] = {
        {CLATTN__ROLE_QUERY, ATTN_QUERY, &args->query},
        {CLATTN__ROLE_KEY, ATTN_KEY, &args->key},
        {CLATTN__ROLE_VALUE, ATTN_VALUE, &args->value},
        {CLATTN__ROLE_OUTPUT, ATTN_OUTPUT, &args->output},
        {CLATTN__ROLE_MASK, ATTN_MASK, &args->mask},
        {CLATTN__ROLE_WEIGHTS, ATTN_WEIGHTS, &args->weights},
        {CLATTN__ROLE_SCORES, ATTN_SCORES, &args->scores},
        {CLATTN__ROLE_PADDING, ATTN_PADDING, &place[ATTN_PADDING]},
        {CLATTN__ROLE_LENGTHS, ATTN_LENGTHS, &place[ATTN_LENGTHS]},
        {CLATTN__ROLE_ALIBI, ATTN_ALIBI, &place[ATTN_ALIBI]},
        {CLATTN__ROLE_SINKS, ATTN_SINKS, &place[ATTN_SINKS]},
        {CLATTN__ROLE_LSE, ATTN_LSE, &place[ATTN_LSE]},
        {CLATTN__ROLE_SCORE_WEIGHT, ATTN_SCORE_WEIGHT, &place[ATTN_SCORE_WEIGHT]},
        {CLATTN__ROLE_SCORE_BIAS, ATTN_SCORE_BIAS, &place[ATTN_SCORE_BIAS]},
        {CLATTN__ROLE_QUERY_STARTS, ATTN_QUERY_STARTS, &place[ATTN_QUERY_STARTS]},
        {CLATTN__ROLE_KEY_STARTS, ATTN_KEY_STARTS, &place[ATTN_KEY_STARTS]},
        {CLATTN__ROLE_PREFIX, ATTN_PREFIX, &place[ATTN_PREFIX]},
        {CLATTN__ROLE_QUERY_DOCUMENTS, ATTN_QUERY_DOCUMENTS, &place[ATTN_QUERY_DOCUMENTS]},
        {CLATTN__ROLE_KEY_DOCUMENTS, ATTN_KEY_DOCUMENTS, &place[ATTN_KEY_DOCUMENTS]},
        {CLATTN__ROLE_KEY_SCALES, ATTN_KEY_SCALES, &args->key_scales},
        {CLATTN__ROLE_VALUE_SCALES, ATTN_VALUE_SCALES, &args->value_scales},
        {CLATTN__ROLE_TABLE, ATTN_TABLE, &args->cells.table},
    };
    for (size_t i = 0; i < CLATTN__COUNT(tensors); i++)
        call->mem[tensors[i].slot] = resolve(plan, &operands[tensors[i].role], tensors[i].place);
    args->padding_offset = place[ATTN_PADDING].offset;
    args->padding_batch = place[ATTN_PADDING].batch;
    args->lengths_offset = place[ATTN_LENGTHS].offset;
    args->alibi_offset = place[ATTN_ALIBI].offset;
    args->sinks_offset = place[ATTN_SINKS].offset;
    args->lse_offset = place[ATTN_LSE].offset;
    args->lse_batch = place[ATTN_LSE].batch;
    args->lse_head = place[ATTN_LSE].head;
    args->score_weight_offset = place[ATTN_SCORE_WEIGHT].offset;
    args->score_bias_offset = place[ATTN_SCORE_BIAS].offset;
    args->query_starts_offset = place[ATTN_QUERY_STARTS].offset;
    args->key_starts_offset = place[ATTN_KEY_STARTS].offset;
    args->prefix_offset = place[ATTN_PREFIX].offset;
    args->query_documents_offset = place[ATTN_QUERY_DOCUMENTS].offset;
    args->query_documents_batch = place[ATTN_QUERY_DOCUMENTS].batch;
    args->key_documents_offset = place[ATTN_KEY_DOCUMENTS].offset;
    args->key_documents_batch = place[ATTN_KEY_DOCUMENTS].batch;
}

static clattn_status enqueue_attention(clattn__plan *plan, const clattn__step *step) {
    clattn__attn_call call = {.args = step->args.attn};
    resolve_attention(plan, step->operands, &call);
    const int mask = step->operands[CLATTN__ROLE_MASK].id;
    call.args.mask_column = mask == CLATTN__ROLE_NONE ? 0 : (int)plan->bound[mask].column;
    if (call.mem[ATTN_QUERY_STARTS]) {
        call.args.query_total = (int)plan->query_total;
        call.args.key_total = (int)plan->key_total;
    }
    clattn__attn_kernel *kernel = &plan->attentions[step->kernel];
    return kernel->impl->enqueue(kernel, &call);
}

static clattn__gemm_call gemm_call(const clattn__plan *plan, const clattn__step *step) {
    clattn__gemm_call call = {.args = step->args.gemm};
    call.x = resolve(plan, &step->operands[CLATTN__GEMM_X], &call.args.x);
    call.y = resolve(plan, &step->operands[CLATTN__GEMM_Y], &call.args.y);
    return call;
}

static clattn_status enqueue_gemm(clattn__plan *plan, const clattn__step *step) {
    clattn__gemm_kernel *gemm = &plan->gemms[step->kernel];
    const clattn__gemm_call call = gemm_call(plan, step);
    return gemm->impl->enqueue(gemm, &call);
}

static clattn__op_call op_call(const clattn__plan *plan, const clattn__step *step) {
    clattn__op_call call = step->args.op;
    for (int i = 0; i < CLATTN__OP_OPERANDS; i++) call.mem[i] = resolve(plan, &step->operands[i], &call.place[i]);
    return call;
}

static clattn_status enqueue_op(clattn__plan *plan, const clattn__step *step) {
    clattn__op *op = &plan->ops[step->kernel];
    const clattn__op_call call = op_call(plan, step);
    return op->enqueue(op, &call);
}

static clattn_status enqueue_step(clattn__plan *plan, const clattn__step *step) {
    switch (step->kind) {
    case CLATTN__STEP_ATTENTION:
        return enqueue_attention(plan, step);
    case CLATTN__STEP_GEMM:
        return enqueue_gemm(plan, step);
    case CLATTN__STEP_OP:
        return enqueue_op(plan, step);
    }
    return CLATTN_OK;
}

static clattn_status enqueue_chain(clattn__plan *plan, clattn__plan_chain *chain) {
    clattn__chain_call calls[CHAIN_STEPS];
    for (int i = 0; i < chain->chain.count; i++) {
        const clattn__step *step = &plan->steps[chain->first + i];
        if (step->kind == CLATTN__STEP_GEMM)
            calls[i].gemm = gemm_call(plan, step);
        else
            calls[i].op = op_call(plan, step);
    }
    return clattn__chain_enqueue(&chain->chain, calls);
}

static clattn_status enqueue_once(clattn__plan *plan) {
    clattn_status status = CLATTN_OK;
    for (int s = 0, c = 0; s < plan->step_count && status == CLATTN_OK;) {
        if (c < plan->chain_count && plan->chains[c].first == s) {
            status = enqueue_chain(plan, &plan->chains[c]);
            s += plan->chains[c++].chain.count;
        } else {
            status = enqueue_step(plan, &plan->steps[s++]);
        }
    }
    return status;
}

static clattn_status enqueue_steps(clattn__plan *plan) {
    clattn_status status = enqueue_once(plan);
    for (int64_t part = 1; part < plan->parts && status == CLATTN_OK; part++) {
        for (int role = 0; role < CLATTN__ROLE_COUNT; role++) { /* outside tensors move on to the next entries */
            clattn_place *place = &plan->bound[role].place;
            place->offset += plan->part_batch * (role == CLATTN__ROLE_HIDDEN ? place->head : place->batch);
        }
        status = enqueue_once(plan);
    }
    return status;
}

/* ---- events ----------------------------------------------------------------------------------------------------- */

/* *first becomes the event of the wait; NULL without one. */
static clattn_status wait_first(clattn__env *env, cl_uint waits, const cl_event *wait_list, cl_event *first) {
    if (waits == 0) return CLATTN_OK;
    cl_int code = clEnqueueBarrierWithWaitList(env->queue, waits, wait_list, first);
    return code == CL_SUCCESS ? CLATTN_OK
                              : clattn__cl_fail(code, "clEnqueueBarrierWithWaitList", env->device.caps.name);
}

/* An event that completes when everything in the queue so far has; and fails if `first` did, which may be NULL: not all
 * drivers let a failure pass from one command of a queue to the next. */
static clattn_status mark(clattn__env *env, cl_event first, cl_event *marker) {
    cl_int code = clEnqueueMarkerWithWaitList(env->queue, first ? 1 : 0, first ? &first : NULL, marker);
    return code == CL_SUCCESS ? CLATTN_OK : clattn__cl_fail(code, "clEnqueueMarkerWithWaitList", env->device.caps.name);
}

/* Enqueues the way back of lent outputs; *last is the event of the last one, NULL when none was lent. */
static clattn_status return_outputs(clattn__plan *plan, cl_event *last) {
    clattn_status status = CLATTN_OK;
    for (int role = CLATTN__ROLE_OUTPUT; role < CLATTN__ROLE_COUNT && status == CLATTN_OK; role++) {
        const clattn__loan *loan = &plan->bound[role].loan;
        status = clattn__loan_return(&plan->context->env, loan, last);
        if (loan->mem && !loan->wrapped) plan->copied_to_host += loan->bytes;
    }
    if (status != CLATTN_OK && *last) { /* it says nothing about what was enqueued since */
        clReleaseEvent(*last);
        *last = NULL;
    }
    return status;
}

/* Waits for what this run enqueued, and for nothing that others put behind it; last may be NULL. */
static clattn_status wait_last(clattn__env *env, cl_event last) {
    clattn_status status = CLATTN_OK;
    if (!last) status = mark(env, NULL, &last);
    if (status == CLATTN_OK) status = clattn__event_wait(env, last);
    if (last) clReleaseEvent(last);
    return status;
}

/* An enqueued run outlives the call, and nobody says how long host memory does. */
static clattn_status check_enqueued(const clattn_tensor tensors[CLATTN__ROLE_COUNT]) {
    for (int role = 0; role < CLATTN__ROLE_COUNT; role++)
        if (tensors[role].data)
            return clattn__fail(CLATTN_INVALID_ARGUMENT,
                                "a tensor of rank %d in host memory is given; an enqueued run takes cl_mem views only",
                                tensors[role].rank);
    return CLATTN_OK;
}

clattn_status clattn__plan_run(clattn__plan *plan, const clattn_tensor tensors[CLATTN__ROLE_COUNT], bool blocking,
                               cl_uint waits, const cl_event *wait_list, cl_event *event) {
    clattn__env *env = &plan->context->env;
    memset(plan->bound, 0, sizeof plan->bound);
    plan->copied_to_device = plan->copied_to_host = 0;
    clattn_status status = blocking ? CLATTN_OK : check_enqueued(tensors);
    if (status != CLATTN_OK) return status;
    clattn_tensor bound[CLATTN__ROLE_COUNT];
    memcpy(bound, tensors, sizeof bound);
    if (bound[CLATTN__ROLE_LENGTHS].data)
        take_lengths(plan, &tensors[CLATTN__ROLE_LENGTHS], &bound[CLATTN__ROLE_LENGTHS]);
    plan->query_total = bound[CLATTN__ROLE_QUERY].shape[2];
    plan->key_total = bound[CLATTN__ROLE_KEY].shape[2];
    for (int role = 0; role < CLATTN__ROLE_COUNT && status == CLATTN_OK; role++)
        status = bind(plan, bound, (clattn__role)role);
    cl_event first = NULL, last = NULL;
    if (status == CLATTN_OK) status = wait_first(env, waits, wait_list, &first);
    if (status == CLATTN_OK) status = enqueue_steps(plan);
    if (status == CLATTN_OK) status = return_outputs(plan, &last);
    if (status == CLATTN_OK && !blocking) {
        if (event) status = mark(env, first, event);
        clFlush(env->queue);
    } else {
        /* one wait for all; after a failure too: what was enqueued may still use the loans */
        clattn_status ended = wait_last(env, last);
        if (status == CLATTN_OK) status = ended;
    }
    if (first) clReleaseEvent(first);
    for (int role = 0; role < CLATTN__ROLE_COUNT; role++) clattn__loan_end(&plan->bound[role].loan);
    return status;
}
