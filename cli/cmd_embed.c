/* clattn embed: token ids to sentence embeddings with a BERT model, the whole encoder as one plan. */
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bert.h"
#include "table.h"

static const char help[] =
    "usage: clattn embed --model DIR --ids FILE.npy --out FILE [options]\n"
    "\n"
    "Loads a model with BERT's structure and tensor names (config.json and model.safetensors in DIR), runs its "
    "encoder\n"
    "on the token ids as one plan, averages over the real tokens and scales each sentence to length 1.\n"
    "\n"
    "  --model DIR            folder of the model\n"
    "  --ids FILE             int64 or int32 (sentences, tokens)\n"
    "  --attention-mask FILE  the same shape, not 0 at real tokens (default: all are real)\n"
    "  --out FILE             float32 (sentences, features), .npy or .safetensors\n"
    "  --expect FILE          compare with these embeddings: exit code 1 unless every cosine is at least 0.99999\n"
    "                         and no value differs by more than 1e-4\n"
    "  --repeat N             time N runs after the first one (default 5)\n"
    "  --kernel NAME          only this attention kernel\n"
    "  --gemm-kernel NAME     only this kernel for products\n"
    "  --explain              also print the plan: steps, kernels, memory schedule\n"
    "  --json                 one JSON document instead of text\n" CLI_DEVICE_HELP "  --help               this text\n"
    "\n"
    "examples\n"
    "  clattn embed --model model --ids ids.npy --attention-mask mask.npy --out embeddings.npy\n"
    "  clattn embed --device gpu --model model --ids ids.npy --out e.npy --expect wanted.npy\n"
    "\n"
    "exit code: 0 good, 1 differs from --expect, 2 usage or files, 3 not supported, 4 no device\n";

static const double LEAST_COSINE = 0.99999, GREATEST_DIFFERENCE = 1e-4;

typedef struct embed_options {
    cli_device device;
    const char *model, *ids, *mask, *out, *expect, *kernel, *gemm;
    long long repeat;
    bool explain, json;
} embed_options;

typedef struct embed_job {
    embed_options o;
    cli_bert model;
    cli_array ids, mask, words, hidden, embedding, expect; /* mask (B, L) bool; hidden (B, L, E); embedding (B, E) */
    double plan_ms, cold_ms, warm_ms;
    double difference, cosine; /* against --expect: greatest and least */
    bool differs;
} embed_job;

/* ---- files ------------------------------------------------------------------------------------------------------- */

static bool load_mask(embed_job *job, char why[512]) {
    char reason[256];
    if (!job->o.mask) {
        if (!cli_array_new(&job->mask, CLATTN_BOOL, 2, job->ids.shape, why)) return false;
        memset(job->mask.data, 1, job->mask.bytes);
        return true;
    }
    if (!cli_array_read(job->o.mask, &job->mask, why)) return false;
    if (job->mask.rank != 2 || memcmp(job->mask.shape, job->ids.shape, 2 * sizeof(int64_t)) != 0)
        return snprintf(why, 512, "%s: does not have the shape of the token ids", job->o.mask), false;
    if (cli_array_to_bool(&job->mask, reason)) return true;
    return snprintf(why, 512, "%s: %s", job->o.mask, reason), false;
}

static bool load_expect(embed_job *job, char why[512]) {
    char reason[256];
    if (!job->o.expect) return true;
    if (!cli_array_read(job->o.expect, &job->expect, why)) return false;
    if (!cli_array_to_f32(&job->expect, reason)) return snprintf(why, 512, "%s: %s", job->o.expect, reason), false;
    if (job->expect.rank == 2 && memcmp(job->expect.shape, job->embedding.shape, 2 * sizeof(int64_t)) == 0) return true;
    return snprintf(why, 512, "%s: must hold %lld x %lld values, one row per sentence", job->o.expect,
                    (long long)job->embedding.shape[0], (long long)job->embedding.shape[1]),
           false;
}

static int load(embed_job *job) {
    char why[512];
    bool good = cli_array_read(job->o.ids, &job->ids, why) && cli_bert_load(job->o.model, &job->model, why) &&
                cli_bert_words(&job->model, &job->ids, &job->words, why) && load_mask(job, why);
    if (good) {
        const int64_t embedding[2] = {job->ids.shape[0], job->model.features};
        good = cli_array_new(&job->hidden, CLATTN_F32, 3, job->words.shape, why) &&
               cli_array_new(&job->embedding, CLATTN_F32, 2, embedding, why) && load_expect(job, why);
    }
    return good ? EXIT_GOOD : cli_fail(EXIT_USAGE, "%s", why);
}

static void job_free(embed_job *job) {
    cli_bert_free(&job->model);
    cli_array *const arrays[] = {&job->ids, &job->mask, &job->words, &job->hidden, &job->embedding, &job->expect};
    cli_arrays_free(arrays, sizeof arrays / sizeof *arrays);
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static clattn_status run_all(embed_job *job, clattn_layer *layer, double *times) {
    const clattn_layer_io io = {.input = cli_array_tensor(&job->words),
                                .padding_mask = cli_array_tensor(&job->mask),
                                .output = cli_array_tensor(&job->hidden)};
    clattn_status status = CLATTN_OK;
    for (long long i = 0; i <= job->o.repeat && status == CLATTN_OK; i++) {
        const double begin = cli_seconds();
        status = clattn_layer_run(layer, &io);
        times[i] = 1000 * (cli_seconds() - begin);
    }
    job->cold_ms = times[0];
    qsort(times + 1, (size_t)job->o.repeat, sizeof *times, by_value);
    job->warm_ms = job->o.repeat > 0 ? times[1 + job->o.repeat / 2] : times[0];
    return status;
}

static int run_model(embed_job *job, clattn_context *context, clattn_layer **layer) {
    clattn_stack_desc d;
    cli_bert_describe(&job->model, job->ids.shape[0], job->ids.shape[1], &d);
    d.attention_kernel = job->o.kernel;
    d.gemm_kernel = job->o.gemm;
    const double begin = cli_seconds();
    clattn_status status = clattn_stack_create(layer, context, &d, &job->model.weights);
    if (status != CLATTN_OK) return cli_fail_status(status, "making the plan");
    job->plan_ms = 1000 * (cli_seconds() - begin);
    double *times = calloc((size_t)job->o.repeat + 1, sizeof *times);
    if (!times) return cli_fail(EXIT_NOT_SUPPORTED, "no memory for %lld times", job->o.repeat);
    status = run_all(job, *layer, times);
    free(times);
    if (status != CLATTN_OK) return cli_fail_status(status, "running the model");
    cli_bert_pool(&job->hidden, &job->mask, NULL, job->embedding.data);
    return EXIT_GOOD;
}

/* NaN is as far off as can be, and stays so whatever comes after it. */
static void compare(embed_job *job) {
    const int64_t B = job->embedding.shape[0], E = job->embedding.shape[1];
    const float *got = job->embedding.data, *want = job->expect.data;
    job->cosine = 1;
    for (int64_t b = 0; b < B; b++, got += E, want += E) {
        double dot = 0, a = 0, w = 0;
        for (int64_t e = 0; e < E; e++) {
            const double difference = fabs((double)got[e] - (double)want[e]);
            if (!(difference <= job->difference)) job->difference = isnan(difference) ? INFINITY : difference;
            dot += (double)got[e] * (double)want[e];
            a += (double)got[e] * (double)got[e];
            w += (double)want[e] * (double)want[e];
        }
        const double cosine = a == 0 && w == 0 ? 1 : dot / sqrt(a * w);
        if (!(cosine >= job->cosine)) job->cosine = isnan(cosine) ? -1 : cosine;
    }
    job->differs = !(job->cosine >= LEAST_COSINE && job->difference <= GREATEST_DIFFERENCE);
}

/* ---- report ------------------------------------------------------------------------------------------------------ */

static double gflops(const clattn_plan_info *info, double ms) { return ms > 0 ? info->flops / ms * 1e-6 : 0; }

static double saved(const clattn_plan_info *info) {
    return info->unshared_bytes > info->arena_bytes ? (double)(info->unshared_bytes - info->arena_bytes) : 0;
}

static void print_text(const embed_job *job, const clattn_device_info *device, const clattn_plan_info *info,
                       const clattn_layer *layer) {
    char arena[32], less[32], held[32];
    printf("model      %s: %lld layers, %lld features, %lld heads, feed-forward %lld\n", job->o.model,
           job->model.layers, job->model.features, job->model.heads, job->model.feed_forward);
    printf("input      %lld sentences of up to %lld tokens\n", (long long)job->ids.shape[0],
           (long long)job->ids.shape[1]);
    printf("device     %s (%s), driver %s\n", device->name, device->platform, device->driver);
    printf("kernels    %s\n", info->kernels);
    printf("tiles      %s\n", info->tiles);
    printf("memory     %s peak of the arena, %s saved by sharing, %s held with the weights\n",
           cli_bytes_text(info->arena_bytes, arena), cli_bytes_text((uint64_t)saved(info), less),
           cli_bytes_text(info->held_bytes, held));
    printf("time       first run %.3f ms, then %.3f ms (median of %lld); plan %.1f ms\n", job->cold_ms, job->warm_ms,
           job->o.repeat, job->plan_ms);
    printf("speed      %.2f GFLOP/s (%.4g MFLOP per run)\n", gflops(info, job->warm_ms), info->flops * 1e-6);
    if (job->o.expect)
        printf("expected   %s: least cosine %.9f, greatest difference %.3g; %s\n", job->differs ? "DIFFERS" : "agrees",
               job->cosine, job->difference, job->o.expect);
    printf("output     %s\n", job->o.out);
    if (job->o.explain) printf("\n%s", clattn_layer_explain(layer));
}

static int print_json(const embed_job *job, const clattn_device_info *device, const clattn_plan_info *info,
                      const clattn_layer *layer) {
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "model", job->o.model);
    cJSON_AddStringToObject(root, "device", device->name);
    cJSON_AddStringToObject(root, "platform", device->platform);
    cJSON_AddStringToObject(root, "driver", device->driver);
    cJSON_AddStringToObject(root, "kernels", info->kernels);
    const struct {
        const char *name;
        double value;
    } figures[] = {{"sentences", (double)job->ids.shape[0]},
                   {"tokens", (double)job->ids.shape[1]},
                   {"features", (double)job->model.features},
                   {"layers", (double)job->model.layers},
                   {"arena_bytes", (double)info->arena_bytes},
                   {"saved_bytes", saved(info)},
                   {"held_bytes", (double)info->held_bytes},
                   {"plan_ms", job->plan_ms},
                   {"cold_ms", job->cold_ms},
                   {"warm_ms", job->warm_ms},
                   {"flops", info->flops},
                   {"gflops", gflops(info, job->warm_ms)}};
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++)
        cli_json_number(root, figures[i].name, figures[i].value);
    if (job->o.expect) {
        cJSON *expected = cJSON_AddObjectToObject(root, "expected");
        cJSON_AddBoolToObject(expected, "agrees", !job->differs);
        cli_json_number(expected, "least_cosine", job->cosine);
        cli_json_number(expected, "greatest_difference", job->difference);
    }
    if (job->o.explain) cJSON_AddStringToObject(root, "explain", clattn_layer_explain(layer));
    cJSON_AddStringToObject(root, "out", job->o.out);
    return cli_json_print(root);
}

static int report(const embed_job *job, clattn_context *context, const clattn_layer *layer) {
    clattn_device_info device;
    clattn_plan_info info;
    clattn_status status = clattn_context_device(context, &device);
    if (status == CLATTN_OK) status = clattn_layer_info(layer, &info);
    if (status != CLATTN_OK) return cli_fail_status(status, "asking for the plan's figures");
    if (job->o.json) return print_json(job, &device, &info, layer);
    print_text(job, &device, &info, layer);
    return EXIT_GOOD;
}

static int embed(embed_job *job) {
    char why[512];
    clattn_context *context = NULL;
    clattn_layer *layer = NULL;
    int code = load(job);
    if (code == EXIT_GOOD && !cli_array_writable(job->o.out, why)) code = cli_fail(EXIT_USAGE, "--out %s", why);
    if (code == EXIT_GOOD) code = cli_context(&job->o.device, &context);
    if (code == EXIT_GOOD) code = run_model(job, context, &layer);
    if (code == EXIT_GOOD && job->o.expect) compare(job);
    if (code == EXIT_GOOD && !cli_array_write(job->o.out, &job->embedding, why))
        code = cli_fail(EXIT_USAGE, "--out %s", why);
    if (code == EXIT_GOOD) code = report(job, context, layer);
    clattn_layer_destroy(&layer);
    clattn_context_destroy(&context);
    return code == EXIT_GOOD && job->differs ? EXIT_WRONG : code;
}

int cmd_embed(int argc, char **argv) {
    enum { MODEL = CLI_OPT_FIRST_OWN, IDS, MASK, OUT, EXPECT, REPEAT, KERNEL, GEMM, EXPLAIN, JSON };
    static const struct option options[] = {CLI_DEVICE_OPTIONS,
                                            {"model", required_argument, NULL, MODEL},
                                            {"ids", required_argument, NULL, IDS},
                                            {"attention-mask", required_argument, NULL, MASK},
                                            {"out", required_argument, NULL, OUT},
                                            {"expect", required_argument, NULL, EXPECT},
                                            {"repeat", required_argument, NULL, REPEAT},
                                            {"kernel", required_argument, NULL, KERNEL},
                                            {"gemm-kernel", required_argument, NULL, GEMM},
                                            {"explain", no_argument, NULL, EXPLAIN},
                                            {"json", no_argument, NULL, JSON},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    embed_job job = {.o = {.repeat = 5}};
    embed_options *o = &job.o;
    cli_device_init(&o->device);
    const char **const texts[] = {[MODEL - MODEL] = &o->model,   [IDS - MODEL] = &o->ids,
                                  [MASK - MODEL] = &o->mask,     [OUT - MODEL] = &o->out,
                                  [EXPECT - MODEL] = &o->expect, [KERNEL - MODEL] = &o->kernel,
                                  [GEMM - MODEL] = &o->gemm};
    for (int option; (option = getopt_long(argc, argv, "hv", options, NULL)) != -1;) {
        const int handled = cli_device_option(&o->device, option, optarg);
        if (handled < 0) return EXIT_USAGE;
        if (handled > 0) continue;
        if (option == 'h') return fputs(help, stdout), EXIT_GOOD;
        if (option == EXPLAIN)
            o->explain = true;
        else if (option == JSON)
            o->json = true;
        else if (option == REPEAT && !cli_parse_int(optarg, 0, 100000, &o->repeat))
            return cli_fail(EXIT_USAGE, "--repeat is '%s'; it must be in 0..100000", optarg), cli_usage_hint();
        else if (option >= MODEL && option <= GEMM && option != REPEAT)
            *texts[option - MODEL] = optarg;
        else if (option != REPEAT)
            return cli_usage_hint();
    }
    if (optind < argc) return cli_fail(EXIT_USAGE, "'%s' is not an option", argv[optind]), cli_usage_hint();
    if (!o->model || !o->ids || !o->out)
        return cli_fail(EXIT_USAGE, "%s is missing",
                        !o->model ? "--model"
                        : !o->ids ? "--ids"
                                  : "--out"),
               cli_usage_hint();
    int code = embed(&job);
    job_free(&job);
    return code;
}
