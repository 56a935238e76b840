/* A plan: ordered steps on prepared kernels, one arena for what lives between them, and the outside tensors that a run
 * binds. Made once; a run only resolves addresses and enqueues. */
#ifndef CLATTN_PLAN_H
#define CLATTN_PLAN_H

#include "clattn/mha.h"
#include "registry/registry.h"

/* Tensors from outside, bound by each run, with their names in explain; the outputs come last. */
#define CLATTN__ROLE_MAP(X)                                                                                            \
    X(QUERY, "query")                                                                                                  \
    X(KEY, "key")                                                                                                      \
    X(VALUE, "value")                                                                                                  \
    X(MASK, "mask")                                                                                                    \
    X(PADDING, "padding_mask")                                                                                         \
    X(LENGTHS, "kv_lengths")                                                                                           \
    X(ALIBI, "alibi")                                                                                                  \
    X(SINKS, "sinks")                                                                                                  \
    X(SCORE_WEIGHT, "score_weight")                                                                                    \
    X(SCORE_BIAS, "score_bias")                                                                                        \
    X(QUERY_STARTS, "query_starts")                                                                                    \
    X(KEY_STARTS, "key_starts")                                                                                        \
    X(PREFIX, "prefix_lengths")                                                                                        \
    X(QUERY_DOCUMENTS, "query_documents")                                                                              \
    X(KEY_DOCUMENTS, "key_documents")                                                                                  \
    /* a decoder's second input, with its masks */                                                                     \
    X(MEMORY, "memory")                                                                                                \
    X(MEMORY_MASK, "memory_mask")                                                                                      \
    X(MEMORY_PADDING, "memory_padding_mask")                                                                           \
    /* of layers around attention; positions (B or 1, L) int32; cosine and sine of rotary positions */                 \
    X(INPUT, "input")                                                                                                  \
    X(RESIDUAL, "residual")                                                                                            \
    X(POSITIONS, "positions")                                                                                          \
    X(COSINE, "cosine")                                                                                                \
    X(SINE, "sine")                                                                                                    \
    /* of a cache: its pages, (B, M) int32, and scales of int8 cells */                                                \
    X(TABLE, "block_table")                                                                                            \
    X(KEY_SCALES, "key_scales")                                                                                        \
    X(VALUE_SCALES, "value_scales")                                                                                    \
    /* of earlier calls, which go before the new ones */                                                               \
    X(PAST_KEY, "past_key")                                                                                            \
    X(PAST_VALUE, "past_value")                                                                                        \
    X(OUTPUT, "output")                                                                                                \
    X(LSE, "logsumexp")                                                                                                \
    X(WEIGHTS, "weights")                                                                                              \
    X(SCORES, "scores")                                                                                                \
    X(SUM, "sum")                                                                                                      \
    /* (blocks, B, L, E) */                                                                                            \
    X(HIDDEN, "hidden")                                                                                                \
    /* appending writes these */                                                                                       \
    X(KEY_CACHE, "key_cache")                                                                                          \
    X(VALUE_CACHE, "value_cache")                                                                                      \
    X(KEY_CACHE_SCALES, "key_cache_scales")                                                                            \
    X(VALUE_CACHE_SCALES, "value_cache_scales")                                                                        \
    /* past and new: written before attention reads them */                                                            \
    X(PRESENT_KEY, "present_key")                                                                                      \
    X(PRESENT_VALUE, "present_value")
typedef enum clattn__role {
    CLATTN__ROLE_NONE = -1,
#define CLATTN__ROLE_ENUM(name, text) CLATTN__ROLE_##name,
    CLATTN__ROLE_MAP(CLATTN__ROLE_ENUM)
#undef CLATTN__ROLE_ENUM
        CLATTN__ROLE_COUNT
} clattn__role;
bool clattn__role_is_output(clattn__role role);

/* arena.c: buffers with lifetimes in steps; layout() gives those that are never alive together the same bytes. */
typedef struct clattn__arena_buffer {
    char name[48];
    size_t bytes;
    int first, last; /* steps, inclusive */
    size_t offset;
    size_t unit; /* bytes of one element */
} clattn__arena_buffer;
/* alignment: a power of two. peak receives the arena's size; false on overflow. */
bool clattn__arena_layout(clattn__arena_buffer *buffers, int count, size_t alignment, size_t *peak);

/* Where a step finds one tensor: an outside role or an arena buffer (CLATTN__ROLE_COUNT + index), and the (batch, head,
 * row) at which the step starts in it. In arena buffers the strides come from the step's own place, outside they come
 * from the tensor that the run binds. */
typedef struct clattn__operand {
    int id;            /* clattn__role, or CLATTN__ROLE_COUNT + arena buffer */
    int64_t origin[3]; /* batch, head, row */
} clattn__operand;

typedef enum clattn__step_kind { CLATTN__STEP_ATTENTION, CLATTN__STEP_GEMM, CLATTN__STEP_OP } clattn__step_kind;
enum { CLATTN__STEP_OPERANDS = CLATTN__ROLE_COUNT, CLATTN__GEMM_X = 0, CLATTN__GEMM_Y = 1 };

typedef struct clattn__step {
    clattn__step_kind kind;
    int kernel; /* index into the plan's kernels of that kind */
    union {
        clattn_attn_args attn;
        clattn_gemm_args gemm;
        clattn__op_call op; /* launch struct and the places of arena operands */
    } args;
    /* attention: indexed by role; gemm: X and Y; op: its own slots */
    clattn__operand operands[CLATTN__STEP_OPERANDS];
} clattn__step;

/* Steps first..first + chain.count - 1, as one launch. */
typedef struct clattn__plan_chain {
    int first;
    clattn__chain chain;
} clattn__plan_chain;

/* A tensor bound by the current run. */
typedef struct clattn__bound {
    cl_mem mem;
    clattn_place place;
    int64_t column; /* stride of the last axis: 0 for a broadcast mask column */
    clattn__loan loan;
} clattn__bound;

typedef struct clattn__plan {
    clattn_context *context;
    clattn__step *steps;
    int step_count, step_capacity;
    clattn__arena_buffer *buffers;
    int buffer_count, buffer_capacity;
    clattn__buffer arena;
    size_t arena_bytes, unshared_bytes;
    clattn__attn_kernel *attentions;
    int attention_count, attention_capacity;
    clattn__gemm_kernel *gemms;
    int gemm_count, gemm_capacity;
    clattn__op *ops;
    int op_count, op_capacity;
    clattn__plan_chain *chains; /* in the order of their steps */
    int chain_count;
    clattn__buffer staging[CLATTN__ROLE_COUNT];
    int32_t *lengths;               /* kv_lengths of the current run as int32 */
    int64_t query_total, key_total; /* rows of the packed tensors of the current run */
    clattn__bound bound[CLATTN__ROLE_COUNT];
    size_t copied_to_device, copied_to_host; /* bytes of host tensors that the last run copied */
    double flops;
    clattn__text notes;   /* kernels passed over, and why */
    clattn__text explain; /* made by clattn__plan_finish */
    clattn__text kernels, tiles;
    const char *what; /* first line of explain; owned by the caller's object */
    /* The steps serve part_batch entries, and run for so many parts of the batch, one after the other; 0: for all. */
    int64_t parts, part_batch;
    size_t memory_limit; /* of the arena; 0: none */
    char scope[32];      /* goes before the names of buffers that are added: the block they belong to */
} clattn__plan;

/* Building: each returns an index >= 0, or -1 after recording OUT_OF_MEMORY. */
/* A buffer of count elements, whose bytes fit the address space. */
int clattn__plan_add_buffer(clattn__plan *plan, clattn_dtype dtype, size_t count, const char *name_format, ...)
    CLATTN__PRINTF(4, 5);
clattn__step *clattn__plan_add_step(clattn__plan *plan, clattn__step_kind kind,
                                    int kernel); /* operands start as NONE */
/* Kernels; the pointers are valid until the next add of the same kind. A zeroed one may stay behind after a failure. */
clattn__attn_kernel *clattn__plan_add_attention(clattn__plan *plan);
clattn__gemm_kernel *clattn__plan_add_gemm(clattn__plan *plan);
clattn__op *clattn__plan_add_op(clattn__plan *plan);
void clattn__plan_operand(clattn__step *step, int slot, int id, int64_t batch, int64_t head, int64_t row);
/* Lifetimes from the steps, arena layout and allocation, explain text. MEMORY_LIMIT: arena_bytes is what it takes. */
clattn_status clattn__plan_finish(clattn__plan *plan);
void clattn__plan_clear(clattn__plan *plan); /* accepts half-built ones */

/* chain.c: all steps are there; kernels and ops stay where they are from now on. */
clattn_status clattn__plan_find_chains(clattn__plan *plan);

/* attention.c: descriptions to problems and launch arguments. */
uint32_t clattn__attention_features(const clattn_attention_desc *resolved);
void clattn__attention_args(const clattn_attention_desc *resolved, clattn_attn_args *args);
/* A kernel for the description and one step with outside tensors for all operands: the plan's last. plan->context is
 * set. */
clattn_status clattn__add_attention(clattn__plan *plan, const clattn_attention_desc *resolved);
/* past.c: the same on past and new keys and values, which copies put one behind the other. */
clattn_status clattn__add_attention_with_past(clattn__plan *plan, const clattn_attention_desc *resolved);
/* The kernels' view of a description. cache: CLATTN__CACHE_FEATURES with which keys and values are read, cells: their
 * type then. */
clattn__attn_problem clattn__attention_problem(const clattn_attention_desc *resolved, uint32_t cache,
                                               clattn_dtype cells);
/* The same with a problem that says more than the description, and only by kernel `forced`, which may be NULL. */
clattn_status clattn__add_attention_as(clattn__plan *plan, const clattn_attention_desc *resolved,
                                       const clattn__attn_problem *problem, const char *forced);
clattn_status clattn__plan_attention(clattn__plan *plan, clattn_context *context,
                                     const clattn_attention_desc *resolved);
/* (query, key) pairs that causal order and window allow, per head and batch. */
double clattn__allowed_pairs(int64_t query_len, int64_t kv_len, bool causal, int64_t offset, int64_t window_left,
                             int64_t window_right);

/* softmax.c: a resolved description of rank 4 and axis 0..3. Roles: x (backward: probability) QUERY, grad_output or
 * labels KEY, mask MASK, probability WEIGHTS, loss LSE, grad_x OUTPUT. */
clattn_status clattn__plan_softmax(clattn__plan *plan, clattn_context *context, const clattn_softmax_desc *desc);

/* run.c: tensors[role] absent ones zeroed; ranks and shapes are checked already. blocking: outputs are in place on
 * return. Otherwise all tensors are cl_mem and *event (may be NULL) completes when they are. */
clattn_status clattn__plan_run(clattn__plan *plan, const clattn_tensor tensors[CLATTN__ROLE_COUNT], bool blocking,
                               cl_uint waits, const cl_event *wait_list, cl_event *event);

/* explain.c */
void clattn__plan_explain(clattn__plan *plan);
void clattn__plan_info(const clattn__plan *plan, clattn_plan_info *info);
clattn_status clattn__plan_buffer(const clattn__plan *plan, int index, clattn_plan_buffer *row);

#endif
