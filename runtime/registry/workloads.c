/* Workloads: problems that stand for many, on which candidates are measured. */
#include "registry/registry.h"

#include <string.h>

enum {
    PREFILL_LEN = 1024,
    DECODE_KEYS = 4096,
    DECODE_HEADS = 32,
    DECODE_KV_HEADS = 8,
    GEMM_ROWS = 512,
    GEMM_WIDTH = 1024,
    FEW_ROWS = 8,
    LEAST_HEADS = 4,
    MOST_HEADS = 64,
};

/* Most wanted first: a search that runs out of time has done these. */
const clattn__workload clattn__workloads[] = {
    {"prefill-64-32bit", CLATTN__PREFILL, 64, false},
    {"prefill-128-32bit", CLATTN__PREFILL, 128, false},
    {"gemm-32bit", CLATTN__GEMM, 0, false},
    {"decode-128-32bit", CLATTN__DECODE, 128, false},
    {"prefill-64-16bit", CLATTN__PREFILL, 64, true},
    {"prefill-128-16bit", CLATTN__PREFILL, 128, true},
    {"gemm-16bit", CLATTN__GEMM, 0, true},
    {"decode-128-16bit", CLATTN__DECODE, 128, true},
    {"gemm-few-32bit", CLATTN__GEMM_FEW, 0, false},
    {"gemm-few-16bit", CLATTN__GEMM_FEW, 0, true},
    {"decode-64-32bit", CLATTN__DECODE, 64, false},
    {"decode-64-16bit", CLATTN__DECODE, 64, true},
};
const int clattn__workload_count = CLATTN__COUNT(clattn__workloads);

int clattn__workload_named(const char *name) {
    for (int i = 0; i < clattn__workload_count; i++)
        if (strcmp(clattn__workloads[i].name, name) == 0) return i;
    return -1;
}

static int find(clattn__workload_kind kind, int width, clattn_dtype dtype) {
    for (int i = 0; i < clattn__workload_count; i++) {
        const clattn__workload *w = &clattn__workloads[i];
        if (w->kind == kind && w->width == width && w->narrow == (dtype != CLATTN_F32)) return i;
    }
    return -1;
}

/* Heads of prefill: two for each compute unit, within reason. */
static int64_t prefill_heads(const clattn__caps *caps) {
    const int64_t heads = 2 * (int64_t)caps->compute_units;
    return heads < LEAST_HEADS ? LEAST_HEADS : heads > MOST_HEADS ? MOST_HEADS : heads;
}

int clattn__workload_of_attention(const clattn__attn_problem *p, const clattn__caps *caps) {
    const int64_t heads = p->batch * p->query_heads;
    const int64_t widest = p->head_dim > p->value_dim ? p->head_dim : p->value_dim;
    const int width = widest > 128 || widest <= 32 ? -1 : widest > 64 ? 128 : 64;
    if (p->query_len == 1 && p->kv_len >= DECODE_KEYS / 4) return find(CLATTN__DECODE, width, p->dtype);
    if (p->query_len < PREFILL_LEN / 2 || p->kv_len < PREFILL_LEN / 2) return -1;
    /* with fewer rows, how they divide among the compute units decides */
    return 2 * heads * p->query_len >= prefill_heads(caps) * PREFILL_LEN ? find(CLATTN__PREFILL, width, p->dtype) : -1;
}

int clattn__workload_of_gemm(const clattn__gemm_problem *p) {
    if (p->n < GEMM_WIDTH / 4 || p->k < GEMM_WIDTH / 4) return -1;
    if (p->m >= GEMM_ROWS / 4) return find(CLATTN__GEMM, 0, p->dtype);
    return p->m <= 2 * FEW_ROWS ? find(CLATTN__GEMM_FEW, 0, p->dtype) : -1;
}

clattn__attn_problem clattn__workload_attention(const clattn__workload *w, const clattn__caps *caps) {
    clattn__attn_problem p = {
        .dtype = w->narrow ? CLATTN_F16 : CLATTN_F32, .batch = 1, .head_dim = w->width, .value_dim = w->width};
    if (w->kind == CLATTN__DECODE) {
        p.query_heads = DECODE_HEADS;
        p.kv_heads = DECODE_KV_HEADS;
        p.query_len = 1;
        p.kv_len = DECODE_KEYS;
        return p;
    }
    p.query_heads = p.kv_heads = prefill_heads(caps);
    p.query_len = p.kv_len = PREFILL_LEN;
    return p;
}

clattn__gemm_problem clattn__workload_gemm(const clattn__workload *w) {
    return (clattn__gemm_problem){.m = w->kind == CLATTN__GEMM ? GEMM_ROWS : FEW_ROWS,
                                  .n = GEMM_WIDTH,
                                  .k = GEMM_WIDTH,
                                  .width = GEMM_WIDTH,
                                  .bias = true,
                                  .dtype = w->narrow ? CLATTN_F16 : CLATTN_F32};
}
