#include <clattn/clattn.h>
#include <stdio.h>

int main(void) {
    enum { H = 2, S = 5, D = 16, N = H * S * D };
    float q[N], k[N], v[N], out[N]; /* (1, H, S, D) */
    for (int i = 0; i < N; i++) q[i] = (float)(i % 7) / 7, k[i] = (float)(i % 5) / 5, v[i] = (float)i;
    clattn_context *context = NULL;
    clattn_attention *plan = NULL;
    clattn_attention_desc desc;
    clattn_attention_desc_init(&desc);
    desc.batch = 1, desc.query_heads = H, desc.query_len = S, desc.kv_len = S, desc.head_dim = D;
    desc.causal = CLATTN_CAUSAL_TOP_LEFT;
    clattn_attention_io io = {.query = clattn_host(q, CLATTN_F32, 4, 1, H, S, D),
                              .key = clattn_host(k, CLATTN_F32, 4, 1, H, S, D),
                              .value = clattn_host(v, CLATTN_F32, 4, 1, H, S, D),
                              .output = clattn_host(out, CLATTN_F32, 4, 1, H, S, D)};
    int failed = clattn_context_create(&context, NULL) || clattn_attention_create(&plan, context, &desc) ||
                 clattn_attention_run(plan, &io);
    if (failed) fprintf(stderr, "%s\n", clattn_last_error());
    if (!failed) printf("out[0] = %g, out[%d] = %g\n", (double)out[0], N - 1, (double)out[N - 1]);
    clattn_attention_destroy(&plan);
    clattn_context_destroy(&context);
    return failed;
}
