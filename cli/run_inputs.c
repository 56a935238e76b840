/* From files to a description: shapes are read off the tensors, so that few options are needed. */
#define _POSIX_C_SOURCE 200809L /* getline */

#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "run.h"

/* ---- arrays ------------------------------------------------------------------------------------------------- */

static int bad_input(const char *why) { return cli_fail(EXIT_USAGE, "%s", why); }

static int read_array(const char *path, cli_array *array) {
    char why[512];
    return cli_array_read(path, array, why) ? EXIT_GOOD : bad_input(why);
}

static int convert(const char *option, const char *path, cli_array *array, bool (*to)(cli_array *, char *)) {
    char why[256];
    if (to(array, why)) return EXIT_GOOD;
    return cli_fail(EXIT_USAGE, "%s %s: %s", option, path, why);
}

/* A float tensor of rank 3 (B, rows, features) as dtype; rank 2 gets a batch of one. */
static int read_input(const char *option, const char *path, clattn_dtype dtype, cli_array *array) {
    int code = read_array(path, array);
    if (code != EXIT_GOOD) return code;
    if (array->dtype != CLATTN_F32 && array->dtype != CLATTN_F16 && array->dtype != CLATTN_BF16)
        return cli_fail(EXIT_USAGE, "%s %s: has element type %s; it must be a float type", option, path,
                        clattn_dtype_name(array->dtype));
    if (array->rank != 2 && array->rank != 3)
        return cli_fail(EXIT_USAGE, "%s %s: has rank %d; it must be (batch, length, features) or (length, features)",
                        option, path, array->rank);
    char why[256];
    if (!cli_array_to_float(array, dtype, why)) return cli_fail(EXIT_USAGE, "%s %s: %s", option, path, why);
    return EXIT_GOOD;
}

static int64_t extent(const cli_array *array, int from_end) { return array->shape[array->rank - from_end]; }

static int64_t batch_of(const cli_array *array) { return array->rank == 3 ? array->shape[0] : 1; }

static clattn_tensor input_tensor(const cli_array *array) {
    return clattn_host(array->data, array->dtype, 3, batch_of(array), extent(array, 2), extent(array, 1), 0);
}

static int read_padding(run_job *job) {
    const char *path = job->options.padding_mask;
    cli_array *mask = &job->padding_mask;
    int code = read_array(path, mask);
    if (code == EXIT_GOOD) code = convert("--padding-mask", path, mask, cli_array_to_bool);
    if (code != EXIT_GOOD) return code;
    if (mask->rank != 2 && !(mask->rank == 1 && job->desc.batch == 1))
        return cli_fail(EXIT_USAGE, "--padding-mask %s: has rank %d; it must be (batch, keys)", path, mask->rank);
    job->desc.padding_mask = 1;
    job->io.padding_mask =
        clattn_host(mask->data, CLATTN_BOOL, 2, mask->rank == 2 ? mask->shape[0] : 1, extent(mask, 1), 0, 0);
    return EXIT_GOOD;
}

/* Right-aligned: (keys), (L, S), (heads, L, S) or (batch, heads, L, S). Floats are added, all else is true or false. */
static int read_mask(run_job *job) {
    const char *path = job->options.mask;
    cli_array *mask = &job->mask;
    int code = read_array(path, mask);
    if (code != EXIT_GOOD) return code;
    if (mask->rank < 1 || mask->rank > 4)
        return cli_fail(EXIT_USAGE, "--mask %s: has rank %d; it must be 1 to 4", path, mask->rank);
    bool is_float = mask->dtype == CLATTN_F32 || mask->dtype == CLATTN_F16 || mask->dtype == CLATTN_BF16;
    code = convert("--mask", path, mask, is_float ? cli_array_to_f32 : cli_array_to_bool);
    if (code != EXIT_GOOD) return code;
    int64_t shape[4] = {1, 1, 1, 1};
    for (int i = 0; i < mask->rank; i++) shape[4 - mask->rank + i] = mask->shape[i];
    memcpy(job->desc.mask_shape, shape, sizeof shape);
    job->desc.mask = is_float ? CLATTN_MASK_FLOAT : CLATTN_MASK_BOOL;
    job->io.mask = clattn_host(mask->data, mask->dtype, 4, shape[0], shape[1], shape[2], shape[3]);
    return EXIT_GOOD;
}

/* ---- the layer ---------------------------------------------------------------------------------------------- */

static int load_weights(run_job *job) {
    char why[512], story[2048];
    if (!cli_safetensors_read(job->options.weights, &job->tensors, why)) return bad_input(why);
    if (cli_weights_find(&job->tensors, job->options.prefix, &job->weights, story, sizeof story)) return EXIT_GOOD;
    return cli_fail(EXIT_USAGE, "%s: %s", job->options.weights, story);
}

static int load_inputs(run_job *job) {
    const run_options *o = &job->options;
    int code = read_input("--query", o->query, o->dtype, &job->query);
    if (code == EXIT_GOOD && o->key) code = read_input("--key", o->key, o->dtype, &job->key);
    if (code == EXIT_GOOD && o->value) code = read_input("--value", o->value, o->dtype, &job->value);
    if (code != EXIT_GOOD) return code;
    clattn_mha_desc *d = &job->desc;
    const cli_array *key = o->key ? &job->key : &job->query, *value = o->value ? &job->value : key;
    d->batch = batch_of(&job->query);
    d->query_len = extent(&job->query, 2);
    d->embed_dim = extent(&job->query, 1);
    d->kv_len = extent(key, 2);
    d->key_dim = extent(key, 1);
    d->value_dim = extent(value, 1);
    d->inputs = o->value ? CLATTN_MHA_SEPARATE : o->key ? CLATTN_MHA_CROSS : CLATTN_MHA_SELF;
    job->io.query = input_tensor(&job->query);
    if (o->key)
        job->io.key = input_tensor(&job->key);
    else if (o->value)
        job->io.key = job->io.query;
    if (o->value) job->io.value = input_tensor(&job->value);
    return EXIT_GOOD;
}

static int make_output(run_job *job) {
    char why[512];
    if (!cli_array_new(&job->output, job->options.dtype, job->query.rank, job->query.shape, why)) return bad_input(why);
    job->io.output = input_tensor(&job->output);
    return EXIT_GOOD;
}

static void shape_text(const cli_array *array, char text[128]) {
    int at = 0;
    text[0] = '\0';
    for (int i = 0; i < array->rank && at < 100; i++)
        at += snprintf(text + at, 128 - (size_t)at, "%s%lld", i ? ", " : "", (long long)array->shape[i]);
}

static int load_expected(run_job *job) {
    const char *path = job->options.expect;
    int code = read_array(path, &job->expect);
    if (code == EXIT_GOOD) code = convert("--expect", path, &job->expect, cli_array_to_f32);
    if (code != EXIT_GOOD) return code;
    const cli_array *got = &job->output, *want = &job->expect;
    if (got->rank == want->rank && memcmp(got->shape, want->shape, sizeof *got->shape * (size_t)got->rank) == 0)
        return EXIT_GOOD;
    char is[128], must[128];
    shape_text(want, is);
    shape_text(got, must);
    return cli_fail(EXIT_USAGE, "--expect %s: has shape (%s); the output has (%s)", path, is, must);
}

/* ---- labels ------------------------------------------------------------------------------------------------- */

static bool read_line(const char *path, long long wanted, char **line, char why[512]) {
    FILE *file;
    int64_t size;
    size_t capacity = 0;
    if (!cli_file_open(path, &file, &size, why)) return false;
    long long at = -1;
    while (at < wanted && getline(line, &capacity, file) >= 0) at++;
    fclose(file);
    if (at == wanted) return true;
    return cli_why(why, 512, "%s: has %lld lines; batch entry %lld needs line %lld", path, at + 1, wanted, wanted + 1);
}

static int load_labels(run_job *job) {
    char why[512];
    const char *path = job->options.labels;
    run_labels *labels = &job->labels;
    if (!read_line(path, job->options.entry, &labels->text, why)) return cli_fail(EXIT_USAGE, "--labels %s", why);
    labels->words = malloc(sizeof *labels->words * (size_t)(job->all_keys + 1));
    if (!labels->words) return cli_fail(EXIT_USAGE, "--labels %s: no memory", path);
    int64_t count = 0;
    char *rest = NULL;
    for (char *word = strtok_r(labels->text, " \t\r\n", &rest); word; word = strtok_r(NULL, " \t\r\n", &rest)) {
        if (count < job->desc.kv_len) labels->words[count] = word;
        count++;
    }
    if (count > job->desc.kv_len)
        return cli_fail(EXIT_USAGE, "--labels %s: line %lld has %lld tokens; the keys are %lld", path,
                        job->options.entry + 1, (long long)count, (long long)job->desc.kv_len);
    for (; count < job->desc.kv_len; count++) labels->words[count] = "";
    if (job->weights.bias_k.data) labels->words[count++] = "(bias)";
    if (job->desc.add_zero_attn) labels->words[count++] = "(zero)";
    return EXIT_GOOD;
}

/* ---- all ---------------------------------------------------------------------------------------------------- */

static int check_entry(const run_job *job) {
    if (!job->options.heatmap || job->options.entry < job->desc.batch) return EXIT_GOOD;
    return cli_fail(EXIT_USAGE, "--batch-index is %lld; the batch has %lld entries, counted from 0", job->options.entry,
                    (long long)job->desc.batch);
}

int run_load(run_job *job) {
    const run_options *o = &job->options;
    clattn_mha_desc *d = &job->desc;
    clattn_mha_desc_init(d);
    int code = load_weights(job);
    if (code == EXIT_GOOD) code = load_inputs(job);
    if (code == EXIT_GOOD && o->padding_mask) code = read_padding(job);
    if (code == EXIT_GOOD && o->mask) code = read_mask(job);
    if (code != EXIT_GOOD) return code;
    d->heads = o->heads;
    d->dtype = o->dtype;
    d->causal = o->causal;
    d->causal_offset = o->causal_offset;
    d->add_zero_attn = o->zero_attn;
    d->memory_limit = o->memory_limit;
    d->attention_kernel = o->kernel;
    d->gemm_kernel = o->gemm;
    d->precision = o->precision;
    job->all_keys = d->kv_len + (job->weights.bias_k.data ? 1 : 0) + (o->zero_attn ? 1 : 0);
    code = check_entry(job);
    if (code == EXIT_GOOD) code = make_output(job);
    if (code == EXIT_GOOD && o->expect) code = load_expected(job);
    if (code == EXIT_GOOD && o->labels && o->heatmap) code = load_labels(job);
    return code;
}

void run_free(run_job *job) {
    cli_array *const arrays[] = {&job->query, &job->key,    &job->value,  &job->padding_mask,
                                 &job->mask,  &job->expect, &job->output, &job->attention};
    cli_arrays_free(arrays, sizeof arrays / sizeof *arrays);
    cli_tensors_free(&job->tensors);
    free(job->labels.text);
    free(job->labels.words);
}

/* ---- a part of the job -------------------------------------------------------------------------------------- */

/* Keeps [first, first + count) of one axis of a dense or strided view. */
static void keep(clattn_tensor *t, int axis, int64_t first, int64_t count) {
    if (t->stride[t->rank - 1] == 0) {
        t->stride[t->rank - 1] = 1;
        for (int i = t->rank - 2; i >= 0; i--) t->stride[i] = t->stride[i + 1] * t->shape[i + 1];
    }
    if (t->shape[axis] > 1) t->offset += first * t->stride[axis];
    t->shape[axis] = t->shape[axis] > 1 ? count : 1;
}

void run_narrow(const run_job *job, int64_t entry, int64_t first, int64_t rows, clattn_mha_desc *desc,
                clattn_mha_io *io) {
    *desc = job->desc;
    *io = job->io;
    memset(&io->output, 0, sizeof io->output);
    desc->batch = 1;
    desc->query_len = rows;
    if (rows != job->desc.query_len) { /* rows of a longer query: the mask must know where they stood */
        if (desc->causal == CLATTN_CAUSAL_TOP_LEFT) desc->causal_offset = first;
        if (desc->causal == CLATTN_CAUSAL_BOTTOM_RIGHT)
            desc->causal_offset = first + job->desc.kv_len - job->desc.query_len;
        if (desc->causal == CLATTN_CAUSAL_OFFSET) desc->causal_offset += first;
        if (desc->causal != CLATTN_CAUSAL_NONE) desc->causal = CLATTN_CAUSAL_OFFSET;
        if (desc->inputs == CLATTN_MHA_SELF) {
            desc->inputs = CLATTN_MHA_CROSS;
            io->key = io->query;
        }
    }
    if (io->key.data) keep(&io->key, 0, entry, 1);
    if (io->value.data) keep(&io->value, 0, entry, 1);
    keep(&io->query, 0, entry, 1);
    keep(&io->query, 1, first, rows);
    if (io->padding_mask.data) keep(&io->padding_mask, 0, entry, 1);
    if (io->mask.data) {
        keep(&io->mask, 0, entry, 1);
        keep(&io->mask, 2, first, rows);
        memcpy(desc->mask_shape, io->mask.shape, sizeof desc->mask_shape);
    }
}
