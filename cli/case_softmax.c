/* Golden cases of the operations "softmax" and "softmax_cross_entropy". */
#include <math.h>
#include <string.h>

#include "case.h"

static case_result run_plan(cli_case *c, const clattn_softmax_desc *desc, const clattn_softmax_io *io) {
    clattn_softmax *plan = NULL;
    clattn_plan_info info = {0};
    clattn_status status = clattn_softmax_create(&plan, c->context, desc);
    if (status == CLATTN_OK) status = clattn_softmax_run(plan, io);
    if (status == CLATTN_OK) status = clattn_softmax_info(plan, &info);
    case_result result = case_status(c, status, &info);
    clattn_softmax_destroy(&plan);
    return result;
}

/* A description of x, along the axis that the case names. */
static case_result describe(cli_case *c, const cli_array *x, clattn_softmax_desc *desc) {
    if (!x || x->dtype != CLATTN_F32 || x->rank < 1 || x->rank > CLATTN_MAX_RANK)
        return case_error(c, "there is no float32 input of rank 1 to %d", CLATTN_MAX_RANK);
    clattn_softmax_desc_init(desc);
    desc->rank = x->rank;
    memcpy(desc->shape, x->shape, sizeof desc->shape);
    desc->axis = case_whole(c, "axis", -1);
    return CASE_DONE;
}

/* Row i of output is softmax(x / temperature[i]); without a temperature, output is softmax(x). */
case_result case_softmax(cli_case *c) {
    cli_array *x, *temperature, *mask, *output;
    clattn_softmax_desc desc;
    CASE_TRY(case_input(c, "x", &x));
    CASE_TRY(case_input(c, "temperature", &temperature));
    CASE_TRY(case_input(c, "mask", &mask));
    CASE_TRY(case_output(c, "output", CLATTN_F32, &output));
    CASE_TRY(describe(c, x, &desc));
    if (!output) return case_error(c, "the case has no output");
    if (temperature && temperature->dtype != CLATTN_F32) return case_error(c, "temperature is not float32");
    if (mask && strcmp(case_text(c, "mask_true_means"), "masked") == 0)
        return case_unsupported(c, "a mask of forbidden elements");
    desc.mask = mask != NULL;
    const int64_t times = temperature ? cli_array_elements(temperature) : 1, count = cli_array_elements(x);
    if (cli_array_elements(output) != times * count)
        return case_error(c, "output does not hold one row per temperature");
    for (int64_t i = 0; i < times; i++) {
        clattn_softmax_io io = {.x = cli_array_tensor(x), .probability = cli_array_tensor(x)};
        io.probability.data = (float *)output->data + i * count;
        if (mask) io.mask = cli_array_tensor(mask);
        if (temperature) desc.temperature = ((const float *)temperature->data)[i];
        CASE_TRY(run_plan(c, &desc, &io));
    }
    return CASE_DONE;
}

/* The roles of one half of the case: x as it is, or divided. */
typedef struct entropy_roles {
    const char *x, *probability, *greatest, *least, *loss, *gradient;
} entropy_roles;

/* The library gives the row; its ends are looked up here. */
static void ends_of(const cli_array *row, float *least, float *greatest) {
    const float *values = row->data;
    *least = INFINITY;
    *greatest = -INFINITY;
    for (int64_t n = cli_array_elements(row), i = 0; i < n; i++) {
        *least = fminf(*least, values[i]);
        *greatest = fmaxf(*greatest, values[i]);
    }
}

static case_result entropy_half(cli_case *c, const entropy_roles *roles) {
    cli_array *x, *probability, *greatest, *least, *loss, *gradient, *labels;
    clattn_softmax_desc desc;
    CASE_TRY(case_input(c, roles->x, &x));
    if (!x) return CASE_DONE;
    CASE_TRY(case_output(c, roles->probability, CLATTN_F32, &probability));
    CASE_TRY(case_output(c, roles->greatest, CLATTN_F32, &greatest));
    CASE_TRY(case_output(c, roles->least, CLATTN_F32, &least));
    CASE_TRY(case_output(c, roles->loss, CLATTN_F32, &loss));
    CASE_TRY(case_output(c, roles->gradient, CLATTN_F32, &gradient));
    CASE_TRY(describe(c, x, &desc));
    const int64_t one = 1;
    if (x->rank != 1 || !probability || !loss || !gradient || cli_array_elements(probability) != x->shape[0] ||
        cli_array_elements(gradient) != x->shape[0] || cli_array_elements(loss) != 1)
        return case_unsupported(c, "only one row with probability, loss and gradient is supported");
    CASE_TRY(case_scratch(c, CLATTN_I32, 1, &one, &labels));
    *(int32_t *)labels->data = case_whole(c, "true_label", -1);
    desc.kind = CLATTN_SOFTMAX_CROSS_ENTROPY;
    desc.probability = desc.gradient = 1;
    const clattn_softmax_io io = {.x = cli_array_tensor(x),
                                  .labels = cli_array_tensor(labels),
                                  .probability = cli_array_tensor(probability),
                                  .loss = cli_array_tensor(loss),
                                  .grad_x = cli_array_tensor(gradient)};
    CASE_TRY(run_plan(c, &desc, &io));
    float low, high;
    ends_of(probability, &low, &high);
    if (greatest) *(float *)greatest->data = high;
    if (least) *(float *)least->data = low;
    return CASE_DONE;
}

case_result case_softmax_cross_entropy(cli_case *c) {
    static const entropy_roles plain = {"x", "probability", "max_probability", "min_probability", "loss", "grad_x"},
                               divided = {"x_divided",
                                          "probability_divided",
                                          "max_probability_divided",
                                          "min_probability_divided",
                                          "loss_divided",
                                          "grad_x_divided"};
    CASE_TRY(entropy_half(c, &plain));
    return entropy_half(c, &divided);
}
