/* Descriptions given as a list of sizes on the command line, for explain and bench. */
#ifndef CLI_PROBLEM_H
#define CLI_PROBLEM_H

#include "cli.h"

typedef struct cli_problem {
    bool layer; /* which of the two descriptions holds */
    bool causal;
    char shape[160]; /* "1x8x8x1024x1024x64" */
    clattn_attention_desc attention;
    clattn_mha_desc mha;
} cli_problem;

#define CLI_ATTENTION_FORM "B,Hq,Hkv,Sq,Skv,D[,causal]"
#define CLI_LAYER_FORM "B,L,E,H[,causal]"

/* Sizes to a description; causal means key j <= i + Skv - Sq, so that a short query stands at the end of its keys.
 * False with the message printed. */
bool cli_problem_attention(cli_problem *problem, const char *text);
bool cli_problem_layer(cli_problem *problem, const char *text);

/* The usual count, which other benchmarks use too: 4 B Hq Sq Skv D for the two products of attention, and 8 B L E E
 * more for a layer's four projections; causal counts half of the score work. */
double cli_problem_flops(const cli_problem *problem);

/* What a layer needs when only its sizes are known; zeroed until made. */
typedef struct cli_layer_weights {
    float *in_proj, *in_bias, *out_proj, *out_bias; /* (3E, E) (3E) (E, E) (E) */
    clattn_mha_weights tensors;
} cli_layer_weights;
/* All zero when random is NULL, else uniform in +-1/sqrt(E), biases too. False for lack of memory or E out of range. */
bool cli_layer_weights_make(cli_layer_weights *weights, int64_t embed_dim, uint64_t *random);
void cli_layer_weights_free(cli_layer_weights *weights);

/* A small generator, so that the same seed gives the same numbers everywhere. Uniform in [-1, 1); standard normal. */
float cli_random_uniform(uint64_t *state);
float cli_random_normal(uint64_t *state);

#endif
