/* Models with BERT's structure and tensor names: config.json and model.safetensors in one folder. */
#ifndef CLI_BERT_H
#define CLI_BERT_H

#include "cli.h"

typedef struct cli_bert {
    cli_tensors tensors; /* what the weights point into */
    char prefix[64];     /* before every name: "" or "bert." */
    long long features, heads, feed_forward, layers;
    double eps;
    clattn_activation activation;
    const cli_array *words, *types; /* (vocabulary, features), (types, features) */
    clattn_block_weights *blocks;
    clattn_stack_weights weights;
} cli_bert;

/* False with one sentence in `why`; free in either case. */
bool cli_bert_load(const char *folder, cli_bert *bert, char why[512]);
void cli_bert_free(cli_bert *bert);

/* The whole encoder on (batch, rows) tokens with a padding mask: positions, the norm behind them, all blocks. */
void cli_bert_describe(const cli_bert *bert, int64_t batch, int64_t rows, clattn_stack_desc *desc);

/* What the encoder reads: word and token type 0 of each id (B, L), any integer type; x (B, L, E) is made. */
bool cli_bert_words(const cli_bert *bert, const cli_array *ids, cli_array *x, char why[512]);

/* Mean of hidden (B, L, E) over the tokens that mask (B, L) bool marks, then divided by its length. pooled and
 * embedding (B, E); pooled may be NULL. A row without any token gives zeros. */
void cli_bert_pool(const cli_array *hidden, const cli_array *mask, float *pooled, float *embedding);

#endif
