/* What clattn run says at the end, for people and for machines. */
#include <string.h>

#include "run.h"
#include "table.h"

static double gflops(const clattn_plan_info *info, double ms) { return ms > 0 ? info->flops / ms * 1e-6 : 0; }

static size_t saved_bytes(const clattn_plan_info *info) {
    return info->unshared_bytes > info->arena_bytes ? info->unshared_bytes - info->arena_bytes : 0;
}

/* ---- for people --------------------------------------------------------------------------------------------- */

static void print_diff(const char *title, const cli_diff *diff, const char *what) {
    printf("%-11s%s: greatest error %.3g, ", title, diff->wrong ? "DIFFERS" : "agrees", diff->error);
    if (diff->wrong)
        printf("%lld of %lld values are off; the worst is element %lld: %.9g instead of %.9g, tolerance %.3g",
               (long long)diff->wrong, (long long)diff->count, (long long)diff->index, diff->got, diff->want,
               diff->tolerance);
    else
        printf("at most %.0f%% of its tolerance (%.3g there)", 100 * diff->fraction, diff->tolerance);
    printf("; %s\n", what);
}

static void print_checks(const run_job *job) {
    const clattn_mha_desc *d = &job->desc;
    char what[160];
    snprintf(what, sizeof what, "compared %lld of %lld batch entries, %lld of %lld query rows each",
             (long long)job->entries_checked, (long long)d->batch, (long long)job->rows_checked,
             (long long)d->query_len);
    if (job->options.reference == RUN_REFERENCE_NONE)
        puts("reference  not compared");
    else
        print_diff("reference", &job->reference, what);
    if (job->options.expect) print_diff("expected", &job->expected, job->options.expect);
    if (job->attention_diff.count)
        print_diff("weights", &job->attention_diff, "attention weights against the reference");
}

static void print_files(const run_job *job) {
    const run_options *o = &job->options;
    if (o->out) printf("output     %s\n", o->out);
    if (o->weights_out) printf("weights    %s\n", o->weights_out);
    if (job->picture_drawn) printf("picture    %s (batch entry %lld)\n", o->heatmap, o->entry);
}

static void print_trust(clattn_context *context) {
    int verified, quarantined;
    if (clattn_context_trust(context, &verified, &quarantined) != CLATTN_OK) return;
    printf("trust      %d kernel variants verified on this device, %d quarantined\n", verified, quarantined);
    const char *reason;
    for (int i = 0; (reason = clattn_context_quarantined(context, i)) != NULL; i++)
        printf("           not used: %s\n", reason);
}

static void print_text(const run_job *job, clattn_context *context, const clattn_device_info *device,
                       const clattn_plan_info *info) {
    const clattn_mha_desc *d = &job->desc;
    char arena[32], saved[32], held[32];
    printf("layer      batch %lld, %lld queries, %lld keys, %lld features, %lld heads, %s\n", (long long)d->batch,
           (long long)d->query_len, (long long)d->kv_len, (long long)d->embed_dim, (long long)d->heads,
           clattn_dtype_name(d->dtype));
    printf("device     %s (%s), driver %s\n", device->name, device->platform, device->driver);
    printf("why        %s\n", device->why);
    printf("kernels    %s\n", info->kernels);
    printf("tiles      %s\n", info->tiles);
    print_trust(context);
    printf("memory     %s peak of the arena, %s saved by sharing, %s held in all\n",
           cli_bytes_text(info->arena_bytes, arena), cli_bytes_text(saved_bytes(info), saved),
           cli_bytes_text(info->held_bytes, held));
    printf("copies     %zu bytes to the device and %zu bytes back in each run\n", info->copied_to_device,
           info->copied_to_host);
    printf("time       first run %.3f ms, then %.3f ms (median of %d); before: device %.1f ms, plan %.1f ms\n",
           job->cold_ms, job->warm_ms, job->warm_runs, job->open_ms, job->plan_ms);
    printf("speed      %.2f GFLOP/s (%.4g MFLOP per run)\n", gflops(info, job->warm_ms), info->flops * 1e-6);
    print_checks(job);
    print_files(job);
}

/* ---- for machines ------------------------------------------------------------------------------------------- */

static void add_diff(cJSON *root, const char *name, const cli_diff *diff) {
    cJSON *o = cJSON_AddObjectToObject(root, name);
    cJSON_AddBoolToObject(o, "agrees", diff->wrong == 0);
    cli_json_number(o, "greatest_error", diff->error);
    cli_json_number(o, "fraction_of_tolerance", diff->fraction);
    cli_json_number(o, "tolerance", diff->tolerance);
    cli_json_number(o, "index", (double)diff->index);
    cli_json_number(o, "got", diff->got);
    cli_json_number(o, "want", diff->want);
    cli_json_number(o, "compared", (double)diff->count);
    cli_json_number(o, "wrong", (double)diff->wrong);
}

static void add_device(cJSON *root, clattn_context *context, const clattn_device_info *device) {
    cJSON *o = cJSON_AddObjectToObject(root, "device");
    cJSON_AddStringToObject(o, "name", device->name);
    cJSON_AddStringToObject(o, "platform", device->platform);
    cJSON_AddStringToObject(o, "driver", device->driver);
    cJSON_AddStringToObject(o, "why", device->why);
    int verified, quarantined;
    if (clattn_context_trust(context, &verified, &quarantined) != CLATTN_OK) return;
    cJSON_AddNumberToObject(o, "verified", verified);
    cJSON_AddNumberToObject(o, "quarantined", quarantined);
}

static void add_checks(cJSON *root, const run_job *job) {
    if (job->options.reference != RUN_REFERENCE_NONE) {
        add_diff(root, "reference", &job->reference);
        cJSON *o = cJSON_GetObjectItemCaseSensitive(root, "reference");
        cli_json_number(o, "batch_entries", (double)job->entries_checked);
        cli_json_number(o, "query_rows", (double)job->rows_checked);
    }
    if (job->options.expect) add_diff(root, "expected", &job->expected);
    if (job->attention_diff.count) add_diff(root, "attention_weights", &job->attention_diff);
}

static void add_figures(cJSON *root, const run_job *job, const clattn_plan_info *info) {
    const clattn_mha_desc *d = &job->desc;
    const struct {
        const char *name;
        double value;
    } figures[] = {
        {"batch", (double)d->batch},
        {"query_len", (double)d->query_len},
        {"kv_len", (double)d->kv_len},
        {"embed_dim", (double)d->embed_dim},
        {"heads", (double)d->heads},
        {"arena_bytes", (double)info->arena_bytes},
        {"saved_bytes", (double)saved_bytes(info)},
        {"held_bytes", (double)info->held_bytes},
        {"copied_to_device", (double)info->copied_to_device},
        {"copied_to_host", (double)info->copied_to_host},
        {"device_ms", job->open_ms},
        {"plan_ms", job->plan_ms},
        {"cold_ms", job->cold_ms},
        {"warm_ms", job->warm_ms},
        {"warm_runs", job->warm_runs},
        {"flops", info->flops},
        {"gflops", gflops(info, job->warm_ms)},
    };
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++)
        cli_json_number(root, figures[i].name, figures[i].value);
}

static int print_json(const run_job *job, clattn_context *context, const clattn_device_info *device,
                      const clattn_plan_info *info) {
    const run_options *o = &job->options;
    cJSON *root = cJSON_CreateObject();
    add_device(root, context, device);
    cJSON_AddStringToObject(root, "kernels", info->kernels);
    cJSON_AddStringToObject(root, "tiles", info->tiles);
    cJSON_AddStringToObject(root, "dtype", clattn_dtype_name(job->desc.dtype));
    add_figures(root, job, info);
    add_checks(root, job);
    if (o->out) cJSON_AddStringToObject(root, "out", o->out);
    if (o->weights_out) cJSON_AddStringToObject(root, "weights_out", o->weights_out);
    if (job->picture_drawn) cJSON_AddStringToObject(root, "heatmap", o->heatmap);
    return cli_json_print(root);
}

int run_report(const run_job *job, clattn_context *context, const clattn_mha *mha) {
    clattn_device_info device;
    clattn_plan_info info;
    clattn_status status = clattn_context_device(context, &device);
    if (status == CLATTN_OK) status = clattn_mha_info(mha, &info);
    if (status != CLATTN_OK) return cli_fail_status(status, "asking for the plan's figures");
    if (job->options.json) return print_json(job, context, &device, &info);
    print_text(job, context, &device, &info);
    return EXIT_GOOD;
}
