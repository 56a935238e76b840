/* What clattn bench found, as a table, JSON or CSV. */
#include <string.h>

#include "bench.h"
#include "table.h"

/* Share of the limit that applies: reading memory when decoding, else arithmetic. */
static double fraction(const bench_report *report, const bench_case *c) {
    if (c->read_bytes > 0) return c->read_bytes / c->result.median_ms * 1e-6 / c->read_gbps;
    return bench_gflops(c) / report->limits.multiply_add_gflops;
}

void bench_print_table(const bench_report *report) {
    static const char *const titles[] = {"operation", "shape",    "causal",  "min ms",  "median ms",
                                         "spread",    "runs",     "GFLOP/s", "of peak", "extra memory",
                                         "seen",      "error",    "of bound", "rows",   "kernels"};
    cli_table table;
    cli_table_start(&table, titles, "lllrrrrrrrrrrrl");
    for (int i = 0; i < report->count; i++) {
        const bench_case *c = &report->cases[i];
        const bench_result *r = &c->result;
        char bytes[32];
        if (!c->timed) continue;
        cli_table_add(&table, "%s", c->kind->op);
        cli_table_add(&table, "%s", c->shape);
        cli_table_add(&table, "%s", c->causal ? "yes" : "no");
        cli_table_add(&table, "%.3f", r->min_ms);
        cli_table_add(&table, "%.3f", r->median_ms);
        cli_table_add(&table, "%.1f %%", 100 * r->spread);
        cli_table_add(&table, "%d", r->runs);
        if (!c->flops) {
            for (int column = 0; column < 8; column++) cli_table_add(&table, "%s", "");
            continue;
        }
        cli_table_add(&table, "%.1f", bench_gflops(c));
        cli_table_add(&table, "%.3f%s", fraction(report, c), c->read_bytes > 0 ? " read" : "");
        cli_table_add(&table, "%s", cli_bytes_text(r->extra_bytes, bytes));
        cli_table_add(&table, "%s", r->seen_bytes < 0 ? "-" : cli_bytes_text((uint64_t)r->seen_bytes, bytes));
        cli_table_add(&table, "%.2e", r->max_error);
        cli_table_add(&table, "%.3f", r->error_fraction);
        cli_table_add(&table, "%lld/%lld", (long long)r->rows_checked, (long long)r->rows);
        cli_table_add(&table, "%s", r->kernels);
    }
    printf("%s (%s, driver %s)\n", report->device.name, report->device.platform, report->device.driver);
    printf("limits: %.1f GFLOP/s of multiply-adds, %.1f GB/s of reading, with %u compute units\n",
           report->limits.multiply_add_gflops, report->limits.read_gbps, report->device.compute_units);
    putchar('\n');
    cli_table_print(&table, stdout);
    cli_table_free(&table);
}

static void add_row(cJSON *rows, const bench_report *report, const bench_case *c) {
    const bench_result *r = &c->result;
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "op", c->kind->op);
    cJSON_AddStringToObject(item, "shape", c->shape);
    cJSON_AddBoolToObject(item, "causal", c->causal);
    cli_json_number(item, "min_ms", r->min_ms);
    cli_json_number(item, "median_ms", r->median_ms);
    cli_json_number(item, "spread", r->spread);
    cJSON_AddNumberToObject(item, "runs", r->runs);
    cJSON_AddItemToArray(rows, item);
    if (!c->flops) return;
    cli_json_number(item, "gflops", bench_gflops(c));
    cli_json_number(item, "fraction_of_peak", fraction(report, c));
    cJSON_AddStringToObject(item, "limit", c->read_bytes > 0 ? "read" : "multiply-add");
    cJSON_AddNumberToObject(item, "extra_bytes", (double)r->extra_bytes);
    if (r->seen_bytes >= 0) cJSON_AddNumberToObject(item, "seen_bytes", (double)r->seen_bytes);
    cli_json_number(item, "max_error", r->max_error);
    cli_json_number(item, "error_fraction", r->error_fraction);
    cJSON_AddNumberToObject(item, "rows_checked", (double)r->rows_checked);
    cJSON_AddNumberToObject(item, "rows", (double)r->rows);
    cJSON_AddStringToObject(item, "kernels", r->kernels);
}

int bench_print_json(const bench_report *report) {
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "device", report->device.name);
    cJSON_AddStringToObject(root, "platform", report->device.platform);
    cJSON_AddStringToObject(root, "driver", report->device.driver);
    cli_json_number(root, "peak_gflops", report->limits.multiply_add_gflops);
    cli_json_number(root, "read_gbps", report->limits.read_gbps);
    cli_json_number(root, "others_share", report->others);
    cJSON *rows = cJSON_AddArrayToObject(root, "rows");
    for (int i = 0; i < report->count; i++)
        if (report->cases[i].timed) add_row(rows, report, &report->cases[i]);
    return cli_json_print(root);
}

/* Device and kernel names may hold commas and quotes. */
static void csv_text(FILE *file, const char *text) {
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, file);
        return;
    }
    fputc('"', file);
    for (; *text; text++) {
        if (*text == '"') fputc('"', file);
        fputc(*text, file);
    }
    fputc('"', file);
}

void bench_print_csv(const bench_report *report, FILE *file) {
    fputs("op,peer,shape,causal,min_ms,median_ms,gflops,fraction_of_peak,device,driver,kernel,max_error\n", file);
    for (int i = 0; i < report->count; i++) {
        const bench_case *c = &report->cases[i];
        const bench_result *r = &c->result;
        if (!c->timed) continue;
        fprintf(file, "%s,clattn,%s,%d,%.3f,%.3f,", c->kind->op, c->shape, c->causal, r->min_ms, r->median_ms);
        if (c->flops) fprintf(file, "%.1f,%.3f", bench_gflops(c), fraction(report, c));
        fputs(c->flops ? "," : ",,", file);
        csv_text(file, report->device.name);
        fputc(',', file);
        csv_text(file, report->device.driver);
        fputc(',', file);
        csv_text(file, r->kernels);
        fputc(',', file);
        if (c->flops) fprintf(file, "%.3e", r->max_error);
        fputc('\n', file);
    }
}
