/* Layers: weights and sub-plans. They know shapes and schedules, and nothing of kernels. */
#ifndef CLATTN_LAYERS_H
#define CLATTN_LAYERS_H

#include "clattn/kv_cache.h"
#include "clattn/layers.h"
#include "plan/plan.h"

/* Where a layer finds or leaves a (batch, row, column) tensor: an outside role, whose strides come from the run, or an
 * arena buffer (CLATTN__ROLE_COUNT + index) with the place of its elements. */
typedef struct clattn__port {
    int id;
    clattn_place place;
    int64_t row; /* of linear layers: the first one */
} clattn__port;

typedef struct clattn__mha_ports {
    clattn__port query, key, value, output; /* key and value: as desc->inputs says; unused ones are ignored */
    int mask, padding, weights;             /* outside roles; read when the description asks for them */
} clattn__mha_ports;

/* Adds the layer's kernels and steps to a plan under construction. desc and weights with every default resolved and the
 * projections separate; both are borrowed. appended_keys: one for bias_k/bias_v, one for the zero key. */
clattn_status clattn__add_mha(clattn__plan *plan, const clattn_mha_desc *desc, const clattn_mha_weights *weights,
                              int64_t appended_keys, const clattn__mha_ports *ports);

/* The layer alone, finished. plan is zeroed by the caller, who clears it on failure too. */
clattn_status clattn__plan_mha(clattn__plan *plan, clattn_context *context, const clattn_mha_desc *desc,
                               const clattn_mha_weights *weights, int64_t appended_keys);

/* ---- layers around attention: descriptions and weights resolved and checked; empty tensors add no steps ------ */

/* An arena buffer that holds a dense (B, rows, features) tensor. */
clattn__port clattn__arena_port(int buffer, int64_t rows, int64_t features);
clattn__port clattn__role_port(int role); /* strides come from the run */

/* linear.c: y = act(x W^T + b), prepared for the description's rows: *gemm is the product's place in the plan; and as
 * steps for as many or fewer rows. Then both at once. */
clattn_status clattn__choose_linear(clattn__plan *plan, const clattn_linear_desc *desc,
                                    const clattn_linear_weights *weights, int *gemm);
clattn_status clattn__add_linear_step(clattn__plan *plan, const clattn_linear_desc *desc, int gemm,
                                      const clattn__port *x, const clattn__port *y);
clattn_status clattn__add_linear(clattn__plan *plan, const clattn_linear_desc *desc,
                                 const clattn_linear_weights *weights, const clattn__port *x, const clattn__port *y);

/* norm.c: y may be x or residual; sum may be neither. residual and sum are read when the description asks for them. */
typedef struct clattn__norm_ports {
    clattn__port x, residual, sum, y;
} clattn__norm_ports;
clattn_status clattn__add_norm(clattn__plan *plan, const clattn_norm_desc *desc, const clattn_norm_weights *weights,
                               const clattn__norm_ports *ports);

/* elementwise.c: y = act(x + addend), addend may be NULL; y may be one of them. */
clattn_status clattn__add_elementwise(clattn__plan *plan, const clattn_activation_desc *desc, const clattn__port *x,
                                      const clattn__port *addend, const clattn__port *y);
/* Copies x (B, L, E) to y[index] of an outside (n, B, L, E). */
clattn_status clattn__add_copy(clattn__plan *plan, const clattn_activation_desc *desc, const clattn__port *x, int role,
                               int64_t index);

/* position.c: x may be NULL, then the encoding alone; positions come from CLATTN__ROLE_POSITIONS when described. */
clattn_status clattn__add_positions(clattn__plan *plan, const clattn_positions_desc *desc, const clattn_tensor *table,
                                    const clattn__port *x, const clattn__port *y);

/* block.c: one block on a stream of (B, rows, E). */
typedef struct clattn__block {
    const clattn_stack_desc *desc;
    int64_t rows;
    const clattn_mha_desc *self, *cross; /* cross NULL: an encoder block */
    const clattn_block_weights *weights;
    int mask, padding;   /* roles of the self-attention */
    clattn__port memory; /* (B, S, E), of cross */
    size_t memory_limit; /* of the feed-forward part's own buffer; 0: none */
} clattn__block;
clattn_status clattn__add_block(clattn__plan *plan, const clattn__block *block, const clattn__port *x,
                                const clattn__port *y);

/* stack.c: everything that a stack needs, resolved. */
typedef struct clattn__stack {
    clattn_stack_desc desc;
    clattn_mha_desc encoder_self, decoder_self, cross;
    clattn_block_weights *encoder, *decoder;
    clattn_tensor position_table;
    clattn_norm_weights input_norm, encoder_norm, decoder_norm;
    bool has_input_norm, has_encoder_norm, has_decoder_norm;
} clattn__stack;
/* Finished; plan is zeroed by the caller, who clears it on failure too. */
clattn_status clattn__plan_stack(clattn__plan *plan, clattn_context *context, const clattn__stack *stack);

/* ---- kv_cache.c
 * ------------------------------------------------------------------------------------------------------ */

/* Roles: INPUT, POSITIONS, COSINE and SINE (a table as (1, P, R/2)), OUTPUT. */
clattn_status clattn__plan_rope(clattn__plan *plan, clattn_context *context, const clattn_rope_desc *desc);

/* A cache with everything resolved. */
typedef struct clattn__kv_desc {
    clattn_attention_desc attention; /* kv_lengths is on */
    clattn_kv_layout layout;
    clattn_dtype storage;
    int64_t page_size, pages, table_columns; /* M */
    bool caller_memory, has_rope;
    clattn_rope_desc rope;      /* its extents are not used */
    clattn_tensor cosine, sine; /* host (P, R/2), dense, or absent */
} clattn__kv_desc;

typedef struct clattn__kv_plan {
    clattn__plan plan;
    int rope, cells, attention; /* first step of each kind, -1: none; there are two of cells */
    int64_t few;                /* rows that the first attention step serves */
    bool gathers, fills;        /* cells become tokens; rows without one become zeros */
    bool gathers_for[2];        /* the attention steps: they cannot read the cache as it lies */
} clattn__kv_plan;

/* Each zeroed by the caller, who clears the plan on failure too. Roles, with caches as (entries, heads, rows, width):
 *   append   KEY, VALUE: new tokens; POSITIONS: lengths (B); TABLE; KEY_CACHE, VALUE_CACHE and their SCALES
 *   attend   QUERY, KEY, VALUE: the caches; KEY_SCALES, VALUE_SCALES, TABLE; POSITIONS: lengths; LENGTHS: keys of each
 * entry;
 *            ALIBI, SINKS, OUTPUT, LSE
 *   read     KEY, VALUE, scales, TABLE, POSITIONS as above; KEY_CACHE, VALUE_CACHE: where the tokens go */
clattn_status clattn__plan_kv_append(clattn__kv_plan *plan, clattn_context *context, const clattn__kv_desc *desc);
clattn_status clattn__plan_kv_attend(clattn__kv_plan *plan, clattn_context *context, const clattn__kv_desc *desc);
clattn_status clattn__plan_kv_read(clattn__kv_plan *plan, clattn_context *context, const clattn__kv_desc *desc);
/* Before a run: how many rows it has, and at most how many tokens an entry. */
void clattn__kv_plan_rows(clattn__kv_plan *plan, int64_t rows, int64_t tokens);

#endif
