/* Golden cases of the operation "rotary": ONNX RotaryEmbedding. */
#include <string.h>

#include "case.h"

/* (B, H, S, D), or (B, S, H*D) seen as such. */
static case_result token_view(cli_case *c, const char *role, const cli_array *array, clattn_tensor *view) {
    const int64_t *n = array->shape, heads = case_whole(c, "num_heads", 0);
    if (strcmp(case_text(c, "layout"), "B H S D") == 0) {
        if (array->rank != 4) return case_error(c, "%s has rank %d; it must have rank 4", role, array->rank);
        return case_view(c, array, 4, n, view);
    }
    if (array->rank != 3 || heads < 1 || n[2] % heads != 0)
        return case_error(c, "%s is not (B, S, H*D) with num_heads heads", role);
    const int64_t D = n[2] / heads;
    *view = (clattn_tensor){.data = array->data,
                            .dtype = array->dtype,
                            .rank = 4,
                            .shape = {n[0], heads, n[1], D},
                            .stride = {n[1] * n[2], D, n[2], 1}};
    return CASE_DONE;
}

case_result case_rotary_describe(cli_case *c, clattn_rope_desc *d, const cli_array *cosine) {
    const char *style = case_text(c, "style")[0] ? case_text(c, "style") : case_text(c, "rope_style");
    clattn_rope_desc_init(d);
    d->rotary_dim = case_whole(c, "rotary_dim", 0);
    d->source = cosine->rank == 2 ? CLATTN_ROPE_TABLE : CLATTN_ROPE_ROWS;
    d->table_rows = cosine->rank == 2 ? cosine->shape[0] : 0;
    if (strcmp(style, "interleaved") == 0)
        d->style = CLATTN_ROPE_INTERLEAVED;
    else if (strcmp(style, "half_split") != 0)
        return case_unsupported(c, "rotary style '%s' is not supported", style);
    return CASE_DONE;
}

case_result case_rotary(cli_case *c) {
    cli_array *input, *cosine, *sine, *positions, *output;
    clattn_rope_io io = {.input = {.rank = 0}};
    clattn_rope_desc d;
    char reason[256];
    CASE_TRY(case_input(c, "input", &input));
    CASE_TRY(case_input(c, "cos_cache", &cosine));
    CASE_TRY(case_input(c, "sin_cache", &sine));
    CASE_TRY(case_input(c, "position_ids", &positions));
    if (!input || !cosine || !sine) return case_error(c, "input, cos_cache or sin_cache is missing");
    CASE_TRY(case_output(c, "output", input->dtype, &output));
    if (!output) return case_error(c, "the case has no output");
    CASE_TRY(token_view(c, "input", input, &io.input));
    CASE_TRY(token_view(c, "output", output, &io.output));
    CASE_TRY(case_rotary_describe(c, &d, cosine));
    d.batch = io.input.shape[0];
    d.heads = io.input.shape[1];
    d.rows = io.input.shape[2];
    d.head_dim = io.input.shape[3];
    d.dtype = input->dtype;
    if (!cli_array_to_f32(cosine, reason) || !cli_array_to_f32(sine, reason) ||
        (positions && !cli_array_to_i32(positions, reason)))
        return case_error(c, "cos_cache, sin_cache or position_ids: %s", reason);
    io.cosine = cli_array_tensor(cosine);
    io.sine = cli_array_tensor(sine);
    if (positions) io.positions = cli_array_tensor(positions);
    d.positions = positions ? CLATTN_ROPE_POSITIONS_BY_ROW : CLATTN_ROPE_NO_POSITIONS;
    clattn_rope *rope = NULL;
    clattn_plan_info info;
    clattn_status status = clattn_rope_create(&rope, c->context, &d);
    if (status == CLATTN_OK) status = clattn_rope_run(rope, &io);
    if (status == CLATTN_OK) status = clattn_rope_info(rope, &info);
    case_result result = case_status(c, status, &info);
    clattn_rope_destroy(&rope);
    return result;
}
