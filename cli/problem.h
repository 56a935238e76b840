/* Descriptions given as sizes and words on the command line, for explain and bench. */
#ifndef CLI_PROBLEM_H
#define CLI_PROBLEM_H

#include "cli.h"

enum { CLI_SHAPE_TEXT = 160 };

/* "1,8,8,1024,1024,64,causal,window=256": `count` whole numbers >= 0, then words, with a value behind "=" or without
 * (value NULL). take() gets the words one by one and says no to what it does not know. shape becomes
 * "1x8x8x1024x1024x64+window=256"; causal, which reports show in a column of its own, is left out. False with the
 * message printed. */
typedef bool (*cli_take_word)(void *user, const char *name, const char *value);
bool cli_parse_shape(const char *option, const char *form, const char *text, int count, long long *sizes,
                     cli_take_word take, void *user, char shape[CLI_SHAPE_TEXT]);
/* "float32", "float16" or "bfloat16". */
bool cli_parse_dtype(const char *text, clattn_dtype *dtype);
/* "default", "strict" or "fast". */
bool cli_parse_precision(const char *text, clattn_precision *precision);

typedef struct cli_problem {
    bool layer; /* which of the two descriptions holds */
    bool causal;
    bool blocks; /* attention: the mask keeps documents of CLI_BLOCK tokens apart */
    char shape[CLI_SHAPE_TEXT];
    clattn_attention_desc attention;
    clattn_mha_desc mha;
} cli_problem;

enum { CLI_BLOCK = 256 };

#define CLI_ATTENTION_FORM "B,Hq,Hkv,Sq,Skv,D[,WORD]..."
#define CLI_LAYER_FORM "B,L,E,H[,causal][,TYPE]"
#define CLI_ATTENTION_WORDS                                                                                            \
    "  Words behind the sizes of attention:\n"                                                                         \
    "  causal                       key j <= i + Skv - Sq\n"                                                           \
    "  window=LEFT[:RIGHT]          keys near to the query's own place, inclusive; RIGHT as LEFT if not given\n"       \
    "  mask=bool|float|blocks       a mask for all batch entries and heads; blocks: documents of 256 tokens\n"         \
    "  alibi, sinks, softcap=X      slopes per head, sink logits per head, c * tanh(score / c)\n"                      \
    "  float16, bfloat16            storage of query, key, value and output; of a layer's and a projection's too\n"

/* False with the message printed. */
bool cli_problem_attention(cli_problem *problem, const char *text);
bool cli_problem_layer(cli_problem *problem, const char *text);

/* Attention: the keys first..last that causal order, window and blocks leave to query row i; none when first > last. */
void cli_problem_keys(const cli_problem *problem, int64_t i, int64_t *first, int64_t *last);

/* The usual count, which other benchmarks use too: 4 B Hq Sq Skv D for the two products of attention, and 8 B L E E
 * more for a layer's four projections. Of causal order, a window or blocks only allowed pairs of query and key are
 * counted. */
double cli_problem_flops(const cli_problem *problem);

/* What a layer needs when only its sizes are known; zeroed until made. */
typedef struct cli_layer_weights {
    float *in_proj, *in_bias, *out_proj, *out_bias; /* (3E, E) (3E) (E, E) (E) */
    clattn_mha_weights tensors;
} cli_layer_weights;
enum { CLI_MOST_EMBED = 1 << 20 }; /* the largest E */
/* All zero when random is NULL, else uniform in +-1/sqrt(E), biases too. False for lack of memory or E out of range. */
bool cli_layer_weights_make(cli_layer_weights *weights, int64_t embed_dim, uint64_t *random);
void cli_layer_weights_free(cli_layer_weights *weights);

/* A small generator, so that the same seed gives the same numbers everywhere. Uniform in [-1, 1); standard normal. */
float cli_random_uniform(uint64_t *state);
float cli_random_normal(uint64_t *state);

#endif
