#include <clattn/clattn.h>
#include <stdio.h>

int main(void) {
    enum { H = 2, S = 5, D = 16, N = H * S * D };
    float x[N], out[N]; /* (1, H, S, D): one batch entry, H heads, S tokens, D numbers each */
    for (int i = 0; i < N; i++) x[i] = (float)(i % 7) / 7;
    clattn_context *context = NULL;
    clattn_attention *plan = NULL;
    clattn_attention_desc desc;
    clattn_attention_desc_init(&desc);
    desc.batch = 1, desc.query_heads = H, desc.query_len = desc.kv_len = S, desc.head_dim = D;
    desc.causal = CLATTN_CAUSAL_TOP_LEFT;
    clattn_tensor in = clattn_host(x, CLATTN_F32, 4, 1, H, S, D), to = clattn_host(out, CLATTN_F32, 4, 1, H, S, D);
    clattn_attention_io io = {.query = in, .key = in, .value = in, .output = to};
    int failed = clattn_context_create(&context, NULL) || clattn_attention_create(&plan, context, &desc) ||
                 clattn_attention_run(plan, &io);
    if (failed) puts(clattn_last_error());
    if (!failed) printf("out[0] = %g, out[%d] = %g\n", (double)out[0], N - 1, (double)out[N - 1]);
    clattn_attention_destroy(&plan);
    clattn_context_destroy(&context);
    return failed;
}
