/* What clattn bench found, as a table, JSON or CSV. */
#include <string.h>

#include "bench.h"
#include "table.h"

/* Share of the limit that applies: reading memory for decoding, else multiply-adds; 0 unknown. */
static double fraction(const bench_report *report, const bench_case *c) {
    if (c->read_bytes > 0) return 0;
    return report->peak > 0 ? bench_gflops(c) / report->peak : 0;
}

static const char *fraction_text(const bench_report *report, const bench_case *c, char text[16]) {
    double share = fraction(report, c);
    text[0] = '\0';
    if (share > 0) snprintf(text, 16, "%.3f", share);
    return text;
}

void bench_print_table(const bench_report *report) {
    static const char *const titles[] = {"operation", "shape",    "causal",  "min ms",  "median ms",
                                         "spread",    "runs",     "GFLOP/s", "of peak", "extra memory",
                                         "error",     "of bound", "rows",    "kernels"};
    cli_table table;
    cli_table_start(&table, titles, "lllrrrrrrrrrrl");
    for (int i = 0; i < report->count; i++) {
        const bench_case *c = &report->cases[i];
        const bench_result *r = &c->result;
        char text[16], bytes[32];
        if (!c->timed) continue;
        cli_table_add(&table, "%s", c->kind->op);
        cli_table_add(&table, "%s", c->shape);
        cli_table_add(&table, "%s", c->causal ? "yes" : "no");
        cli_table_add(&table, "%.3f", r->min_ms);
        cli_table_add(&table, "%.3f", r->median_ms);
        cli_table_add(&table, "%.1f %%", 100 * r->spread);
        cli_table_add(&table, "%d", r->runs);
        cli_table_add(&table, "%.1f", bench_gflops(c));
        cli_table_add(&table, "%s", fraction_text(report, c, text));
        cli_table_add(&table, "%s", cli_bytes_text(r->extra_bytes, bytes));
        cli_table_add(&table, "%.2e", r->max_error);
        cli_table_add(&table, "%.3f", r->error_fraction);
        cli_table_add(&table, "%lld/%lld", (long long)r->rows_checked, (long long)r->rows);
        cli_table_add(&table, "%s", r->kernels);
    }
    printf("%s (%s, driver %s)\n", report->device.name, report->device.platform, report->device.driver);
    if (report->peak > 0)
        printf("multiply-add peak of the host with %u threads: %.1f GFLOP/s\n", report->device.compute_units,
               report->peak);
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
    cli_json_number(item, "gflops", bench_gflops(c));
    if (fraction(report, c) > 0) cli_json_number(item, "fraction_of_peak", fraction(report, c));
    cJSON_AddNumberToObject(item, "extra_bytes", (double)r->extra_bytes);
    cli_json_number(item, "max_error", r->max_error);
    cli_json_number(item, "error_fraction", r->error_fraction);
    cJSON_AddNumberToObject(item, "rows_checked", (double)r->rows_checked);
    cJSON_AddNumberToObject(item, "rows", (double)r->rows);
    cJSON_AddStringToObject(item, "kernels", r->kernels);
    cJSON_AddItemToArray(rows, item);
}

int bench_print_json(const bench_report *report) {
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "device", report->device.name);
    cJSON_AddStringToObject(root, "platform", report->device.platform);
    cJSON_AddStringToObject(root, "driver", report->device.driver);
    cli_json_number(root, "peak_gflops", report->peak);
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
        char text[16];
        if (!c->timed) continue;
        fprintf(file, "%s,clattn,%s,%d,%.3f,%.3f,%.1f,%s,", c->kind->op, c->shape, c->causal, r->min_ms, r->median_ms,
                bench_gflops(c), fraction_text(report, c, text));
        csv_text(file, report->device.name);
        fputc(',', file);
        csv_text(file, report->device.driver);
        fputc(',', file);
        csv_text(file, r->kernels);
        fprintf(file, ",%.3e\n", r->max_error);
    }
}
