/* clattn explain: what a plan would do, without any data. */
#include <getopt.h>
#include <string.h>

#include "problem.h"
#include "table.h"

static const char help[] =
    "usage: clattn explain --attention " CLI_ATTENTION_FORM " [options]\n"
    "       clattn explain --layer " CLI_LAYER_FORM " [options]\n"
    "\n"
    "Makes the plan for a description and says in words which kernels run, why the faster ones were refused, the tile\n"
    "sizes, the work in FLOPs and, for a layer, when each intermediate buffer lives and where.\n"
    "\n"
    "  --attention SIZES    batch, query heads, key heads, query length, key length, head width\n"
    "  --layer SIZES        batch, length, embedding width, heads: a self-attention layer\n"
    "  --kernel NAME        this attention kernel and no other\n"
    "  --gemm-kernel NAME   this projection kernel and no other (layer)\n"
    "  --memory-limit SIZE  bytes for intermediate buffers, K, M or G allowed behind the number (layer)\n"
    "  --causal KIND        top-left, bottom-right, or an offset N: key j <= i + N\n"
    "  --window L,R         keys before and after a query's own place, inclusive; -1 is no bound (attention)\n"
    "  --mask KIND          bool or float, one mask for all batch entries and heads\n"
    "  --padding-mask       a bool mask over the keys of each batch entry\n"
    "  --value-dim N        width of a value, if it is not D (attention)\n"
    "  --softcap X          c * tanh(score / c) (attention)\n"
    "  --weights KIND       per-head or averaged: the softmax weights are an output as well\n"
    "  --logsumexp          so is the logarithm of each row's denominator (attention)\n"
    "  --precision WHICH    default, strict (float32 throughout, no matrix engines) or fast (native functions)\n"
    "  --json               figures, schedule and text as JSON\n" CLI_DEVICE_HELP "  --help               this text\n"
    "\n" CLI_ATTENTION_WORDS "\n"
    "examples:\n"
    "  clattn explain --attention 1,8,8,1024,1024,64,causal\n"
    "  clattn explain --layer 4,128,384,12 --memory-limit 2M\n"
    "  clattn explain --attention 1,32,8,1,4096,128 --kernel attn_naive --json\n"
    "\n"
    "exit: 0 good, 2 bad option or description, 3 no kernel serves it, 4 no device\n";

enum {
    OPT_ATTENTION = CLI_OPT_FIRST_OWN,
    OPT_LAYER,
    OPT_KERNEL,
    OPT_GEMM,
    OPT_MEMORY_LIMIT,
    OPT_CAUSAL,
    OPT_WINDOW,
    OPT_MASK,
    OPT_PADDING,
    OPT_VALUE_DIM,
    OPT_SOFTCAP,
    OPT_WEIGHTS,
    OPT_LOGSUMEXP,
    OPT_PRECISION,
    OPT_JSON
};

static const struct option long_options[] = {CLI_DEVICE_OPTIONS,
                                             {"attention", required_argument, NULL, OPT_ATTENTION},
                                             {"layer", required_argument, NULL, OPT_LAYER},
                                             {"kernel", required_argument, NULL, OPT_KERNEL},
                                             {"gemm-kernel", required_argument, NULL, OPT_GEMM},
                                             {"precision", required_argument, NULL, OPT_PRECISION},
                                             {"memory-limit", required_argument, NULL, OPT_MEMORY_LIMIT},
                                             {"causal", required_argument, NULL, OPT_CAUSAL},
                                             {"window", required_argument, NULL, OPT_WINDOW},
                                             {"mask", required_argument, NULL, OPT_MASK},
                                             {"padding-mask", no_argument, NULL, OPT_PADDING},
                                             {"value-dim", required_argument, NULL, OPT_VALUE_DIM},
                                             {"softcap", required_argument, NULL, OPT_SOFTCAP},
                                             {"weights", required_argument, NULL, OPT_WEIGHTS},
                                             {"logsumexp", no_argument, NULL, OPT_LOGSUMEXP},
                                             {"json", no_argument, NULL, OPT_JSON},
                                             {"help", no_argument, NULL, 'h'},
                                             {NULL, 0, NULL, 0}};

/* Everything given on the command line, kept apart from the descriptions because the options may come in any order. */
typedef struct explain_request {
    const char *attention, *layer, *kernel, *gemm;
    long long memory_limit, window_left, window_right, value_dim, causal_offset;
    clattn_causal causal;
    clattn_mask_type mask;
    bool window, padding, logsumexp, json;
    double softcap;
    clattn_weights_output weights;
    clattn_precision precision;
    const char *attention_only, *layer_only; /* an option given that the other kind has no use for */
} explain_request;

static bool parse_window(const char *text, explain_request *request) {
    char left[32];
    const char *comma = strchr(text, ',');
    size_t length = comma ? (size_t)(comma - text) : sizeof left;
    if (length >= sizeof left) return false;
    memcpy(left, text, length);
    left[length] = '\0';
    return cli_parse_int(left, -1, INT32_MAX, &request->window_left) &&
           cli_parse_int(comma + 1, -1, INT32_MAX, &request->window_right);
}

static bool parse_causal(const char *text, explain_request *request) {
    if (strcmp(text, "top-left") == 0) return request->causal = CLATTN_CAUSAL_TOP_LEFT, true;
    if (strcmp(text, "bottom-right") == 0) return request->causal = CLATTN_CAUSAL_BOTTOM_RIGHT, true;
    request->causal = CLATTN_CAUSAL_OFFSET;
    return cli_parse_int(text, INT32_MIN, INT32_MAX, &request->causal_offset);
}

/* One of two words; their values are 1 and 2 in both public enums that are read this way. */
static int one_of(const char *text, const char *first, const char *second) {
    return strcmp(text, first) == 0 ? 1 : strcmp(text, second) == 0 ? 2 : 0;
}

static int bad_value(const char *option, const char *value, const char *rule) {
    return cli_fail(EXIT_USAGE, "--%s '%s': expected %s", option, value, rule);
}

static int take_option(explain_request *request, int option, const char *value) {
    switch (option) {
    case OPT_ATTENTION:
        request->attention = value;
        break;
    case OPT_LAYER:
        request->layer = value;
        break;
    case OPT_KERNEL:
        request->kernel = value;
        break;
    case OPT_GEMM:
        request->layer_only = "--gemm-kernel";
        request->gemm = value;
        break;
    case OPT_MEMORY_LIMIT:
        request->layer_only = "--memory-limit";
        if (!cli_parse_bytes(value, &request->memory_limit))
            return bad_value("memory-limit", value, "a number of bytes > 0, with K, M or G behind it if you like");
        break;
    case OPT_CAUSAL:
        if (!parse_causal(value, request))
            return bad_value("causal", value, "top-left, bottom-right or a whole number");
        break;
    case OPT_WINDOW:
        request->attention_only = "--window";
        request->window = true;
        if (!parse_window(value, request)) return bad_value("window", value, "L,R: two whole numbers >= -1");
        break;
    case OPT_MASK:
        request->mask = (clattn_mask_type)one_of(value, "bool", "float");
        if (!request->mask) return bad_value("mask", value, "bool or float");
        break;
    case OPT_PADDING:
        request->padding = true;
        break;
    case OPT_VALUE_DIM:
        request->attention_only = "--value-dim";
        if (!cli_parse_int(value, 1, CLATTN_MAX_HEAD_DIM, &request->value_dim))
            return bad_value("value-dim", value, "a whole number 1..512");
        break;
    case OPT_SOFTCAP:
        request->attention_only = "--softcap";
        if (!cli_parse_double(value, &request->softcap) || (request->softcap != 0 && (float)request->softcap == 0))
            return bad_value("softcap", value, "a number >= 0, at least 2^-149 where it is not 0");
        break;
    case OPT_WEIGHTS:
        request->weights = (clattn_weights_output)one_of(value, "per-head", "averaged");
        if (!request->weights) return bad_value("weights", value, "per-head or averaged");
        break;
    case OPT_LOGSUMEXP:
        request->attention_only = "--logsumexp";
        request->logsumexp = true;
        break;
    case OPT_PRECISION:
        if (!cli_parse_precision(value, &request->precision))
            return bad_value("precision", value, "default, strict or fast");
        break;
    case OPT_JSON:
        request->json = true;
        break;
    default:
        return cli_usage_hint();
    }
    return EXIT_GOOD;
}

static int check_request(const explain_request *request) {
    if (!request->attention == !request->layer)
        return cli_fail(EXIT_USAGE, "give either --attention or --layer"), cli_usage_hint();
    if (request->attention && request->layer_only)
        return cli_fail(EXIT_USAGE, "%s is for --layer only", request->layer_only);
    if (request->layer && request->attention_only)
        return cli_fail(EXIT_USAGE, "%s is for --attention only", request->attention_only);
    return EXIT_GOOD;
}

/* An option replaces what a word of --attention said of the same; one that is not given leaves it alone. */
static void describe_attention(const explain_request *request, clattn_attention_desc *desc) {
    desc->kernel = request->kernel;
    desc->precision = request->precision;
    if (request->window) {
        desc->window_left = request->window_left;
        desc->window_right = request->window_right;
    }
    desc->value_dim = request->value_dim;
    if (request->softcap != 0) desc->softcap = (float)request->softcap;
    if (request->mask != CLATTN_MASK_NONE) desc->mask = request->mask;
    desc->padding_mask = request->padding;
    desc->weights = request->weights;
    desc->logsumexp = request->logsumexp;
    if (request->causal != CLATTN_CAUSAL_NONE) desc->causal = request->causal;
    desc->causal_offset = request->causal_offset;
}

static void describe_layer(const explain_request *request, clattn_mha_desc *desc) {
    desc->attention_kernel = request->kernel;
    desc->gemm_kernel = request->gemm;
    desc->precision = request->precision;
    desc->memory_limit = (size_t)request->memory_limit;
    desc->mask = request->mask;
    desc->padding_mask = request->padding;
    desc->weights = request->weights;
    if (request->causal != CLATTN_CAUSAL_NONE) desc->causal = request->causal;
    desc->causal_offset = request->causal_offset;
}

static cJSON *info_json(const clattn_context *context, const clattn_plan_info *info, const char *explanation) {
    clattn_device_info device;
    clattn_context_device(context, &device);
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "device", device.name);
    cJSON_AddStringToObject(root, "driver", device.driver);
    cJSON_AddStringToObject(root, "kernels", info->kernels);
    cJSON_AddStringToObject(root, "tiles", info->tiles);
    cli_json_number(root, "flops", info->flops);
    cJSON_AddNumberToObject(root, "arena_bytes", (double)info->arena_bytes);
    cJSON_AddNumberToObject(root, "unshared_bytes", (double)info->unshared_bytes);
    cJSON_AddNumberToObject(root, "held_bytes", (double)info->held_bytes);
    cJSON_AddNumberToObject(root, "steps", info->steps);
    cJSON_AddNumberToObject(root, "buffers", info->buffers);
    cJSON_AddStringToObject(root, "explanation", explanation);
    return root;
}

static void add_schedule(cJSON *root, const clattn_mha *mha, int buffers) {
    cJSON *schedule = cJSON_AddArrayToObject(root, "schedule");
    for (int i = 0; i < buffers; i++) {
        clattn_plan_buffer row;
        if (clattn_mha_buffer(mha, i, &row) != CLATTN_OK) break;
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "name", row.name);
        cJSON_AddNumberToObject(item, "bytes", (double)row.bytes);
        cJSON_AddNumberToObject(item, "offset", (double)row.offset);
        cJSON_AddNumberToObject(item, "first_step", row.first_step);
        cJSON_AddNumberToObject(item, "last_step", row.last_step);
        cJSON_AddItemToArray(schedule, item);
    }
}

static void print_text(const char *explanation) {
    size_t length = strlen(explanation);
    fputs(explanation, stdout);
    if (length == 0 || explanation[length - 1] != '\n') putchar('\n');
}

static int explain_attention(clattn_context *context, const clattn_attention_desc *desc, bool json) {
    clattn_attention *plan = NULL;
    clattn_plan_info info;
    clattn_status status = clattn_attention_create(&plan, context, desc);
    if (status == CLATTN_OK) status = clattn_attention_info(plan, &info);
    int code = EXIT_GOOD;
    if (status != CLATTN_OK)
        code = cli_fail_status(status, "planning");
    else if (json)
        code = cli_json_print(info_json(context, &info, clattn_attention_explain(plan)));
    else
        print_text(clattn_attention_explain(plan));
    clattn_attention_destroy(&plan);
    return code;
}

/* Zero weights: the plan does not look at their values. */
static int explain_layer(clattn_context *context, const clattn_mha_desc *desc, bool json) {
    cli_layer_weights weights;
    if (!cli_layer_weights_make(&weights, desc->embed_dim, NULL))
        return cli_fail(EXIT_USAGE, "embedding width %lld: expected 1..%d, and memory for its weights",
                        (long long)desc->embed_dim, CLI_MOST_EMBED);
    clattn_mha *mha = NULL;
    clattn_plan_info info;
    clattn_status status = clattn_mha_create(&mha, context, desc, &weights.tensors);
    if (status == CLATTN_OK) status = clattn_mha_info(mha, &info);
    int code = EXIT_GOOD;
    if (status != CLATTN_OK) {
        code = cli_fail_status(status, "planning");
    } else if (json) {
        cJSON *root = info_json(context, &info, clattn_mha_explain(mha));
        add_schedule(root, mha, info.buffers);
        code = cli_json_print(root);
    } else {
        print_text(clattn_mha_explain(mha));
    }
    clattn_mha_destroy(&mha);
    cli_layer_weights_free(&weights);
    return code;
}

int cmd_explain(int argc, char **argv) {
    cli_device device;
    cli_device_init(&device);
    explain_request request = {0};
    for (int option; (option = getopt_long(argc, argv, "hv", long_options, NULL)) != -1;) {
        int handled = cli_device_option(&device, option, optarg);
        if (handled < 0) return EXIT_USAGE;
        if (handled > 0) continue;
        if (option == 'h') return fputs(help, stdout), EXIT_GOOD;
        int code = take_option(&request, option, optarg);
        if (code != EXIT_GOOD) return code;
    }
    if (optind < argc) return cli_fail(EXIT_USAGE, "unexpected argument '%s'", argv[optind]);
    int code = check_request(&request);
    if (code != EXIT_GOOD) return code;
    cli_problem problem;
    if (request.layer ? !cli_problem_layer(&problem, request.layer)
                      : !cli_problem_attention(&problem, request.attention))
        return EXIT_USAGE;
    if (problem.layer)
        describe_layer(&request, &problem.mha);
    else
        describe_attention(&request, &problem.attention);
    clattn_context *context = NULL;
    code = cli_context(&device, &context);
    if (code != EXIT_GOOD) return code;
    code = problem.layer ? explain_layer(context, &problem.mha, request.json)
                         : explain_attention(context, &problem.attention, request.json);
    clattn_context_destroy(&context);
    return code;
}
