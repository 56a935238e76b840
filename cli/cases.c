/* Loading a golden case, handing it to its operation, comparing what came out. */
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "case.h"
#include "file.h"
#include "table.h"

/* Later operations are a line each. */
static const struct {
    const char *name;
    case_result (*run)(cli_case *c);
} operations[] = {
    {"attention", case_attention},
    {"mha", case_mha},
    {"rotary", case_rotary},
    {"decode", case_decode},
    {"decode_append", case_decode_append},
    {"attention_paged", case_attention_paged},
    {"layernorm", case_layernorm},
    {"residual_layernorm", case_layernorm},
    {"batchnorm", case_batchnorm},
    {"positional_encoding", case_positional_encoding},
    {"positional_encoding_shift", case_positional_encoding_shift},
    {"positional_encoding_dot", case_positional_encoding_dot},
    {"transformer_block", case_transformer_block},
    {"bert_encoder", case_bert_encoder},
    {"gaussian_attention", case_gaussian_attention},
    {"additive_attention", case_additive_attention},
    {"self_attention", case_self_attention},
    {"multi_head_self_attention", case_multi_head_self_attention},
    {"score_statistics", case_score_statistics},
    {"attention_varlen", case_attention_varlen},
    {"softmax", case_softmax},
    {"softmax_cross_entropy", case_softmax_cross_entropy},
};

/* ---- messages and attributes --------------------------------------------------------------------------------- */

case_result case_unsupported(cli_case *c, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(c->why, sizeof c->why, format, arguments);
    va_end(arguments);
    cli_printable(c->why, true);
    return CASE_UNSUPPORTED;
}

case_result case_error(cli_case *c, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(c->why, sizeof c->why, format, arguments);
    va_end(arguments);
    cli_printable(c->why, true);
    return CASE_ERROR;
}

case_result case_status(cli_case *c, clattn_status status, const clattn_plan_info *info) {
    if (status == CLATTN_OK) {
        snprintf(c->kernels, sizeof c->kernels, "%s", info->kernels);
        return CASE_DONE;
    }
    const char *story = clattn_last_error();
    if (status == CLATTN_UNSUPPORTED) return case_unsupported(c, "%s", story);
    return case_error(c, "%s: %s", clattn_status_name(status), story);
}

double case_number(const cli_case *c, const char *name, double fallback) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(c->attributes, name);
    return cJSON_IsNumber(item) ? item->valuedouble : fallback;
}

int32_t case_whole(const cli_case *c, const char *name, double fallback) {
    const double value = case_number(c, name, fallback);
    return value > INT32_MAX ? INT32_MAX : value > INT32_MIN ? (int32_t)value : INT32_MIN;
}

bool case_flag(const cli_case *c, const char *name) {
    return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(c->attributes, name));
}

const char *case_text(const cli_case *c, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(c->attributes, name);
    return cJSON_IsString(item) ? item->valuestring : "";
}

/* ---- tensors -------------------------------------------------------------------------------------------------- */

/* The file of a role lies in the case's own folder, whatever the name says. */
static case_result read_role(cli_case *c, const char *group, const char *role, cli_array *array, bool *present) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(c->root, group), role);
    char path[4096];
    *present = item != NULL;
    if (!item) return CASE_DONE;
    if (!cJSON_IsString(item) || strchr(item->valuestring, '/'))
        return case_error(c, "case.json: %s '%s' is not the name of a file in the folder", group, role);
    if (snprintf(path, sizeof path, "%s/%s", c->folder, item->valuestring) >= (int)sizeof path)
        return case_error(c, "case.json: the path of '%s' is too long", role);
    return cli_array_read(path, array, c->why) ? CASE_DONE : CASE_ERROR;
}

static case_tensor *find(case_tensor *tensors, int count, const char *role) {
    for (int i = 0; i < count; i++)
        if (tensors[i].role && strcmp(tensors[i].role, role) == 0) return &tensors[i];
    return NULL;
}

static case_tensor *next_input(cli_case *c) {
    return c->input_count < CASE_MAX_TENSORS ? &c->inputs[c->input_count] : NULL;
}

case_result case_input(cli_case *c, const char *role, cli_array **array) {
    bool present;
    case_tensor *known = find(c->inputs, c->input_count, role);
    *array = known ? &known->array : NULL;
    if (known) return CASE_DONE;
    case_tensor *slot = next_input(c);
    if (!slot) return case_error(c, "there are more than %d inputs", CASE_MAX_TENSORS);
    CASE_TRY(read_role(c, "inputs", role, &slot->array, &present));
    if (!present) return CASE_DONE;
    slot->role = role;
    c->input_count++;
    *array = &slot->array;
    if (slot->array.rank < 1 || slot->array.rank > CLATTN_MAX_RANK)
        return case_error(c, "input '%s' has rank %d; it must be 1 to %d", role, slot->array.rank, CLATTN_MAX_RANK);
    return CASE_DONE;
}

case_result case_scratch(cli_case *c, clattn_dtype dtype, int rank, const int64_t *shape, cli_array **array) {
    case_tensor *slot = next_input(c);
    if (!slot) return case_error(c, "there are more than %d inputs", CASE_MAX_TENSORS);
    if (!cli_array_new(&slot->array, dtype, rank, shape, c->why)) return CASE_ERROR;
    c->input_count++;
    *array = &slot->array;
    return CASE_DONE;
}

case_result case_output(cli_case *c, const char *role, clattn_dtype dtype, cli_array **array) {
    bool present;
    char reason[256];
    *array = NULL;
    if (c->output_count == CASE_MAX_TENSORS) return case_error(c, "there are more than %d outputs", CASE_MAX_TENSORS);
    case_tensor *slot = &c->outputs[c->output_count];
    CASE_TRY(read_role(c, "outputs", role, &slot->want, &present));
    if (!present) return CASE_DONE;
    slot->role = role;
    c->output_count++;
    if (!cli_array_to_f32(&slot->want, reason)) return case_error(c, "output '%s': %s", role, reason);
    if (!cli_array_new(&slot->array, dtype, slot->want.rank, slot->want.shape, c->why)) return CASE_ERROR;
    *array = &slot->array;
    return CASE_DONE;
}

case_result case_view(cli_case *c, const cli_array *array, int rank, const int64_t *shape, clattn_tensor *view) {
    memset(view, 0, sizeof *view);
    if (!array) return CASE_DONE;
    int64_t have = cli_array_elements(array), want = 1;
    *view = (clattn_tensor){.data = array->data, .dtype = array->dtype, .rank = rank};
    for (int i = 0; i < rank; i++) {
        view->shape[i] = shape[i];
        /* stays below `have` times one extent, so it cannot overflow */
        want = shape[i] < 0 || (want > 0 && shape[i] > INT64_MAX / want) ? -1 : want * shape[i];
        if (want < 0) break;
    }
    if (have == want) return CASE_DONE;
    return case_error(c, "a tensor has %lld elements where %lld are wanted", (long long)have, (long long)want);
}

/* ---- judging -------------------------------------------------------------------------------------------------- */

static bool is_gradient(const char *role) { return strncmp(role, "grad_", 5) == 0; }

/* Everything in the case must have been used, or the comparison would be about something else. */
static case_result all_used(cli_case *c) {
    const cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(c->root, "inputs")) {
        if (!is_gradient(item->string) && !find(c->inputs, c->input_count, item->string))
            return case_unsupported(c, "input '%s' is not supported", item->string);
    }
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(c->root, "outputs")) {
        if (!is_gradient(item->string) && !find(c->outputs, c->output_count, item->string))
            return case_unsupported(c, "output '%s' is not supported", item->string);
    }
    return CASE_DONE;
}

static double tolerance_of(const cli_case *c, const char *role, const char *kind) {
    const cJSON *own =
        cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(c->root, "output_tolerances"), role);
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(own, kind);
    if (!item) item = cJSON_GetObjectItemCaseSensitive(c->root, kind);
    return cJSON_IsNumber(item) && item->valuedouble >= 0 ? item->valuedouble : NAN; /* NaN: nothing passes */
}

static case_result compare(cli_case *c, case_verdict *verdict) {
    char reason[256];
    for (int i = 0; i < c->output_count; i++) {
        case_tensor *t = &c->outputs[i];
        double rtol = tolerance_of(c, t->role, "rtol"), atol = tolerance_of(c, t->role, "atol");
        if (isnan(rtol) || isnan(atol))
            return case_error(c, "case.json: output '%s' has no rtol and atol of 0 or more", t->role);
        if (!cli_array_to_f32(&t->array, reason)) return case_error(c, "output '%s': %s", t->role, reason);
        const float *got = t->array.data, *want = t->want.data;
        cli_diff diff = {0};
        for (int64_t n = cli_array_elements(&t->want), k = 0; k < n; k++)
            cli_diff_add(&diff, got[k], want[k], isfinite(want[k]) ? atol + rtol * fabs((double)want[k]) : 0, k);
        if (!verdict->role || diff.fraction > verdict->diff.fraction) verdict->role = t->role;
        cli_diff_merge(&verdict->diff, &diff);
    }
    return c->output_count ? CASE_DONE : case_error(c, "case.json: there is no output to compare");
}

static void copy_text(char *to, size_t size, const cJSON *from, const char *fallback) {
    snprintf(to, size, "%s", cJSON_IsString(from) ? from->valuestring : fallback);
    cli_printable(to, false);
}

static case_result run_operation(cli_case *c) {
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++)
        if (strcmp(operations[i].name, c->op) == 0) return operations[i].run(c);
    return case_unsupported(c, "operation '%s' is not supported", c->op);
}

/* Gradients that the operation did not make. */
static int count_gradients(cli_case *c) {
    int count = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(c->root, "outputs")) {
        count += is_gradient(item->string) && !find(c->outputs, c->output_count, item->string);
    }
    return count;
}

case_verdict case_run(cli_case *c) {
    case_verdict verdict = {.result = CASE_ERROR};
    snprintf(c->name, sizeof c->name, "%.255s", c->folder);
    char path[4096];
    if (snprintf(path, sizeof path, "%s/case.json", c->folder) >= (int)sizeof path) {
        verdict.result = case_error(c, "the path is too long");
        return verdict;
    }
    c->root = cli_json_read(path, c->why);
    if (!c->root) return verdict;
    c->attributes = cJSON_GetObjectItemCaseSensitive(c->root, "attributes");
    copy_text(c->name, sizeof c->name, cJSON_GetObjectItemCaseSensitive(c->root, "name"), c->folder);
    copy_text(c->op, sizeof c->op, cJSON_GetObjectItemCaseSensitive(c->root, "op"), "");
    if (!cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(c->root, "inputs")) ||
        !cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(c->root, "outputs"))) {
        verdict.result = case_error(c, "case.json: inputs or outputs is not an object");
        return verdict;
    }
    verdict.result = run_operation(c);
    verdict.gradients = count_gradients(c);
    if (verdict.result == CASE_DONE) verdict.result = all_used(c);
    if (verdict.result == CASE_DONE) verdict.result = compare(c, &verdict);
    return verdict;
}

void case_free(cli_case *c) {
    for (int i = 0; i < CASE_MAX_TENSORS; i++) {
        cli_array_free(&c->inputs[i].array);
        cli_array_free(&c->outputs[i].array);
        cli_array_free(&c->outputs[i].want);
    }
    cJSON_Delete((cJSON *)c->root);
    memset(c, 0, sizeof *c);
}
