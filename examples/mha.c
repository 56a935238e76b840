/* A whole multi-head attention layer: weights are packed once, then it runs as often as there are inputs. Two sentences
 * of different length share a batch, and a padding mask keeps the shorter one from looking at its padding. */
#include <clattn/clattn.h>
#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 2, LEN = 6, EMBED = 32, HEADS = 4 };

static void or_die(clattn_status status) {
    if (status == CLATTN_OK) return;
    fprintf(stderr, "%s: %s\n", clattn_status_name(status), clattn_last_error());
    exit(1);
}

/* Made-up numbers in -1..1; a program would read trained ones from a file. */
static void fill(float *values, int count, float scale) {
    static unsigned state = 1;
    for (int i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        values[i] = scale * ((float)(state >> 8) / (float)(1 << 23) - 1);
    }
}

int main(void) {
    static float in_weight[3 * EMBED * EMBED], in_bias[3 * EMBED]; /* (3E, E), (3E): query, key, value stacked */
    static float out_weight[EMBED * EMBED], out_bias[EMBED];       /* (E, E), (E) */
    static float x[BATCH * LEN * EMBED], y[BATCH * LEN * EMBED];   /* (B, L, E) */
    static float weights[BATCH * LEN * LEN];                       /* (B, L, L), mean over the heads */
    static const unsigned char attend[BATCH * LEN] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0}; /* (B, L) */
    fill(in_weight, 3 * EMBED * EMBED, 0.2f);
    fill(in_bias, 3 * EMBED, 0.1f);
    fill(out_weight, EMBED * EMBED, 0.2f);
    fill(out_bias, EMBED, 0.1f);
    fill(x, BATCH * LEN * EMBED, 1);

    clattn_context *context;
    or_die(clattn_context_create(&context, NULL));
    clattn_mha_desc desc;
    clattn_mha_desc_init(&desc);
    desc.batch = BATCH;
    desc.query_len = LEN;
    desc.embed_dim = EMBED;
    desc.heads = HEADS;
    desc.padding_mask = 1;
    desc.weights = CLATTN_WEIGHTS_AVERAGED;
    clattn_mha_weights parameters = {.in_proj_weight = clattn_host(in_weight, CLATTN_F32, 2, 3 * EMBED, EMBED, 0, 0),
                                     .in_proj_bias = clattn_host(in_bias, CLATTN_F32, 1, 3 * EMBED, 0, 0, 0),
                                     .out_proj_weight = clattn_host(out_weight, CLATTN_F32, 2, EMBED, EMBED, 0, 0),
                                     .out_proj_bias = clattn_host(out_bias, CLATTN_F32, 1, EMBED, 0, 0, 0)};
    clattn_mha *layer;
    or_die(clattn_mha_create(&layer, context, &desc, &parameters));
    fputs(clattn_mha_explain(layer), stdout);

    clattn_mha_io io = {.query = clattn_host(x, CLATTN_F32, 3, BATCH, LEN, EMBED, 0),
                        .padding_mask = clattn_host(attend, CLATTN_BOOL, 2, BATCH, LEN, 0, 0),
                        .output = clattn_host(y, CLATTN_F32, 3, BATCH, LEN, EMBED, 0),
                        .weights = clattn_host(weights, CLATTN_F32, 3, BATCH, LEN, LEN, 0)};
    or_die(clattn_mha_run(layer, &io));
    puts("weights of the second sentence, whose last two tokens are padding:");
    for (int i = 0; i < LEN; i++, putchar('\n'))
        for (int j = 0; j < LEN; j++) printf(" %.3f", (double)weights[(LEN + i) * LEN + j]);

    clattn_mha_destroy(&layer);
    clattn_context_destroy(&context);
    return 0;
}
