/* Golden cases: a folder with case.json and one .npy per tensor. cmd_check.c finds them and reports; each operation has
 * a file of its own that turns a case into calls of the library. */
#ifndef CLI_CASE_H
#define CLI_CASE_H

#include <cjson/cJSON.h>

#include "diff.h"

enum { CASE_MAX_TENSORS = 48 };

typedef enum case_result {
    CASE_DONE = 0,        /* ran; the outputs can be compared */
    CASE_UNSUPPORTED = 1, /* the library does not do this; why says what */
    CASE_ERROR = 2        /* the case or the run is broken; why says how */
} case_result;

typedef struct case_tensor {
    const char *role;
    cli_array array; /* inputs: the value; outputs: what the library wrote */
    cli_array want;  /* outputs only, float32 */
} case_tensor;

typedef struct cli_case {
    clattn_context *context;
    const char *kernel; /* NULL, or the only attention kernel to use */
    const char *folder;
    const cJSON *root, *attributes;
    char name[256], op[64];
    char kernels[128]; /* what ran */
    case_tensor inputs[CASE_MAX_TENSORS], outputs[CASE_MAX_TENSORS];
    int input_count, output_count;
    char why[512];
} cli_case;

/* ---- cases.c: what the operations use ------------------------------------------------------------------------ */

/* Attributes of case.json. */
double case_number(const cli_case *c, const char *name, double fallback);
int32_t case_whole(const cli_case *c, const char *name, double fallback); /* what does not fit is cut to what does */
bool case_flag(const cli_case *c, const char *name);
const char *case_text(const cli_case *c, const char *name); /* "" when absent */

/* Messages; the result is what the operation returns. */
case_result case_unsupported(cli_case *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
case_result case_error(cli_case *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The library's answer; info is read when the status is OK. */
case_result case_status(cli_case *c, clattn_status status, const clattn_plan_info *info);

/* Loads an input once; *array is NULL when the case has none of that role. Freed with the case. */
case_result case_input(cli_case *c, const char *role, cli_array **array);
/* Loads the expected values of an output and makes an array like them, of element type dtype, for the library to write;
 * *array is NULL when the case wants none. The caller compares nothing: all outputs made so are compared afterwards. */
case_result case_output(cli_case *c, const char *role, clattn_dtype dtype, cli_array **array);
/* An array that the operation makes for itself, freed with the case; dense, of the given extents. */
case_result case_scratch(cli_case *c, clattn_dtype dtype, int rank, const int64_t *shape, cli_array **array);
/* A dense view with other extents; an error when the number of elements differs. Of an absent array an absent view. */
case_result case_view(cli_case *c, const cli_array *array, int rank, const int64_t *shape, clattn_tensor *view);

#define CASE_TRY(call)                                                                                                 \
    do {                                                                                                               \
        case_result try_result = (call);                                                                               \
        if (try_result != CASE_DONE) return try_result;                                                                \
    } while (0)

/* ---- one file per operation ---------------------------------------------------------------------------------- */

case_result case_attention(cli_case *c); /* case_attention.c */
case_result case_mha(cli_case *c);       /* case_mha.c */
case_result case_softmax(cli_case *c);   /* case_softmax.c */
case_result case_softmax_cross_entropy(cli_case *c);
case_result case_layernorm(cli_case *c); /* case_layers.c; residual_layernorm too */
case_result case_batchnorm(cli_case *c);
case_result case_positional_encoding(cli_case *c);
case_result case_positional_encoding_shift(cli_case *c);
case_result case_positional_encoding_dot(cli_case *c);
case_result case_transformer_block(cli_case *c); /* case_block.c */
case_result case_bert_encoder(cli_case *c);      /* case_bert.c */
case_result case_rotary(cli_case *c);            /* case_rotary.c */
case_result case_decode(cli_case *c);            /* case_decode.c */
case_result case_decode_append(cli_case *c);
case_result case_attention_paged(cli_case *c);

case_result case_gaussian_attention(cli_case *c); /* case_scores.c */
case_result case_additive_attention(cli_case *c);
case_result case_attention_over_queries(cli_case *c); /* "attention" with softmax_axis 0 */
case_result case_self_attention(cli_case *c);         /* case_self.c */
case_result case_multi_head_self_attention(cli_case *c);
case_result case_score_statistics(cli_case *c);
case_result case_attention_varlen(cli_case *c); /* case_varlen.c */

/* case_scores.c: attention of dense arrays (.., rows, columns) of one head; leading axes are the batch. Sizes, element
 * type and flags of the description are filled in; desc->scores is what `scores` means. Optional ones may be NULL. */
typedef struct case_operands {
    cli_array *query, *key, *value, *output;
    cli_array *scores, *weights, *score_weight, *score_bias; /* optional */
} case_operands;
case_result case_attend(cli_case *c, clattn_attention_desc *desc, const case_operands *operands);
void case_scale(const cli_case *c, clattn_attention_desc *desc); /* the attribute scale, if there is one */
/* A float32 matrix the other way round, freed with the case. */
case_result case_transposed(cli_case *c, const cli_array *array, cli_array **transposed);

/* case_rotary.c: style, rotary_dim and source from the attributes; cosine: (P, R/2) or (B, S, R/2). */
case_result case_rotary_describe(cli_case *c, clattn_rope_desc *desc, const cli_array *cosine);

/* case_layers.c: one layer on (B, L, n) or (B, L, E) arrays; bias, residual, sum and weights of a norm may be NULL. */
case_result case_run_linear(cli_case *c, const clattn_linear_weights *weights, clattn_activation activation,
                            const cli_array *x, cli_array *y);
case_result case_run_norm(cli_case *c, const clattn_norm_weights *weights, clattn_norm_kind kind, float eps,
                          const cli_array *x, const cli_array *residual, cli_array *sum, cli_array *y);
/* Runs a layer once, keeps the names of its kernels and destroys it; status is the one of its creation. */
case_result case_run_layer(cli_case *c, clattn_status status, clattn_layer *layer, const clattn_layer_io *io);

/* ---- cases.c: what cmd_check.c uses --------------------------------------------------------------------------- */

typedef struct case_verdict {
    case_result result;
    cli_diff diff;    /* over all outputs that were compared */
    const char *role; /* where diff is worst; a string of the case */
    int gradients;    /* outputs named grad_* that the operation does not make, so that they are not compared */
} case_verdict;

/* Runs the case in a folder. The case must be freed after its verdict was used, whatever the result. */
case_verdict case_run(cli_case *c);
void case_free(cli_case *c);

#endif
