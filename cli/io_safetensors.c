/* The safetensors format: 8 bytes with the length of a JSON header, the header, the tensors' bytes without gaps. */
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the file formats are little-endian and are read without swapping"
#endif

enum { MAX_HEADER = 100000000, MAX_RANK = 8 }; /* the header limit is the format's own */

/* Where a tensor's bytes lie, counted from the end of the header. */
typedef struct extent {
    int64_t begin, end;
    int item;
} extent;

typedef struct loader {
    const char *path;
    FILE *file;
    int64_t data_start, data_size;
    cli_tensors *tensors;
    extent *extents;
    char *why; /* 512 bytes */
} loader;

#define BAD(l, ...) cli_why((l)->why, 512, __VA_ARGS__)

static const struct {
    const char *name;
    clattn_dtype dtype;
} types[] = {{"F32", CLATTN_F32}, {"F16", CLATTN_F16}, {"BF16", CLATTN_BF16},
             {"I64", CLATTN_I64}, {"I32", CLATTN_I32}, {"BOOL", CLATTN_BOOL}};

/* cJSON holds numbers as double, which is exact for whole numbers up to 2^53. */
static bool whole_number(const cJSON *item, int64_t *value) {
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble <= 9007199254740992.0)) return false;
    *value = (int64_t)item->valuedouble;
    return (double)*value == item->valuedouble;
}

static bool read_dtype(loader *l, const cJSON *entry, cli_array *array) {
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(entry, "dtype");
    if (!cJSON_IsString(dtype)) return BAD(l, "%s: tensor '%s' has no dtype", l->path, array->name);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(types[i].name, dtype->valuestring) == 0) return array->dtype = types[i].dtype, true;
    return BAD(l, "%s: tensor '%s' has dtype '%.32s'; it must be F32, F16, BF16, I64, I32 or BOOL", l->path,
               array->name, dtype->valuestring);
}

static bool read_shape(loader *l, const cJSON *entry, cli_array *array) {
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(entry, "shape"), *item;
    if (!cJSON_IsArray(shape)) return BAD(l, "%s: tensor '%s' has no shape", l->path, array->name);
    int64_t elements = 1;
    cJSON_ArrayForEach(item, shape) {
        if (array->rank == MAX_RANK)
            return BAD(l, "%s: tensor '%s': shape has more than %d extents", l->path, array->name, MAX_RANK);
        int64_t *n = &array->shape[array->rank];
        if (!whole_number(item, n))
            return BAD(l, "%s: tensor '%s': shape[%d] is not a whole number in 0..2^53", l->path, array->name,
                       array->rank);
        if (*n > 0 && elements > ((int64_t)1 << 56) / *n)
            return BAD(l, "%s: tensor '%s': shape is too large: the product of its extents overflows", l->path,
                       array->name);
        elements *= *n;
        array->rank++;
    }
    array->bytes = (size_t)elements * clattn_dtype_size(array->dtype);
    return true;
}

static bool read_offsets(loader *l, const cJSON *entry, const cli_array *array, extent *place) {
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(entry, "data_offsets");
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 || !whole_number(offsets->child, &place->begin) ||
        !whole_number(offsets->child->next, &place->end))
        return BAD(l, "%s: tensor '%s': data_offsets is not a pair of whole numbers", l->path, array->name);
    const char *name = array->name;
    long long begin = place->begin, end = place->end;
    if (begin > end)
        return BAD(l, "%s: tensor '%s': data_offsets [%lld, %lld] do not ascend", l->path, name, begin, end);
    if (end > l->data_size)
        return BAD(l, "%s: tensor '%s': data_offsets [%lld, %lld] reach beyond the file's %lld bytes of data", l->path,
                   name, begin, end, (long long)l->data_size);
    if ((size_t)(end - begin) != array->bytes)
        return BAD(l, "%s: tensor '%s': data_offsets span %lld bytes; shape and dtype need %zu", l->path, name,
                   end - begin, array->bytes);
    return true;
}

static bool read_entry(loader *l, const cJSON *entry) {
    int index = l->tensors->count;
    cli_array *array = &l->tensors->items[index];
    *array = (cli_array){0};
    if (strlen(entry->string) >= sizeof array->name)
        return BAD(l, "%s: a tensor's name is longer than %zu bytes: '%.64s...'", l->path, sizeof array->name - 1,
                   entry->string);
    strcpy(array->name, entry->string);
    if (!cJSON_IsObject(entry)) return BAD(l, "%s: the entry of tensor '%s' is not an object", l->path, array->name);
    if (!read_dtype(l, entry, array) || !read_shape(l, entry, array)) return false;
    l->extents[index].item = index;
    if (!read_offsets(l, entry, array, &l->extents[index])) return false;
    l->tensors->count++;
    return true;
}

static int by_place(const void *a, const void *b) {
    const extent *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static bool names_are_unique(loader *l) {
    int count = l->tensors->count;
    const char **names = malloc(sizeof *names * (size_t)(count + 1));
    if (!names) return BAD(l, "%s: no memory for %d names", l->path, count);
    for (int i = 0; i < count; i++) names[i] = l->tensors->items[i].name;
    qsort(names, (size_t)count, sizeof *names, by_name);
    bool good = true;
    for (int i = 1; i < count && good; i++)
        if (strcmp(names[i - 1], names[i]) == 0) good = BAD(l, "%s: tensor '%s' is there twice", l->path, names[i]);
    free(names);
    return good;
}

/* The tensors must cover the data from its first byte to its last, each byte once. */
static bool places_are_dense(loader *l) {
    int64_t at = 0;
    qsort(l->extents, (size_t)l->tensors->count, sizeof *l->extents, by_place);
    for (int i = 0; i < l->tensors->count; i++) {
        const extent *e = &l->extents[i];
        const char *name = l->tensors->items[e->item].name;
        if (e->begin < at) return BAD(l, "%s: tensor '%s': data_offsets overlap the tensor before it", l->path, name);
        if (e->begin > at)
            return BAD(l, "%s: tensor '%s': data_offsets leave a gap of %lld bytes before it", l->path, name,
                       (long long)(e->begin - at));
        at = e->end;
    }
    if (at != l->data_size)
        return BAD(l, "%s: has %lld bytes behind the last tensor", l->path, (long long)(l->data_size - at));
    return true;
}

static bool load_data(loader *l) {
    char reason[256];
    for (int i = 0; i < l->tensors->count; i++) { /* in file order: one pass, no seeking */
        cli_array *array = &l->tensors->items[l->extents[i].item];
        if (!cli_array_allocate(array, reason, sizeof reason))
            return BAD(l, "%s: tensor '%s': %s", l->path, array->name, reason);
        if (!cli_file_read(l->file, l->path, "data", array->data, array->bytes, l->why)) return false;
    }
    return true;
}

static bool load_header(loader *l, const cJSON *root) {
    int entries = 0;
    const cJSON *entry;
    cJSON_ArrayForEach(entry, root) entries++;
    l->tensors->items = calloc((size_t)entries + 1, sizeof *l->tensors->items);
    l->extents = malloc(sizeof *l->extents * ((size_t)entries + 1));
    if (!l->tensors->items || !l->extents) return BAD(l, "%s: no memory for %d tensors", l->path, entries);
    cJSON_ArrayForEach(entry, root) {
        if (strcmp(entry->string, "__metadata__") == 0) continue;
        if (!read_entry(l, entry)) return false;
    }
    return names_are_unique(l) && places_are_dense(l) && load_data(l);
}

static bool only_spaces(const char *text, const char *end) {
    while (text < end && (*text == ' ' || *text == '\n' || *text == '\t' || *text == '\r')) text++;
    return text == end;
}

static bool read_open_file(loader *l, int64_t size) {
    unsigned char start[8];
    if (!cli_file_read(l->file, l->path, "header length", start, sizeof start, l->why)) return false;
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--) length = length << 8 | start[i];
    if (length > (uint64_t)size - 8)
        return BAD(l, "%s: header length is %llu; the file has %lld bytes behind it", l->path,
                   (unsigned long long)length, (long long)size - 8);
    if (length > MAX_HEADER)
        return BAD(l, "%s: header length is %llu; it must be at most %d", l->path, (unsigned long long)length,
                   MAX_HEADER);
    l->data_start = 8 + (int64_t)length;
    l->data_size = size - l->data_start;
    char *text = malloc((size_t)length + 1);
    if (!text) return BAD(l, "%s: no memory for the header", l->path);
    text[length] = '\0';
    bool good = cli_file_read(l->file, l->path, "header", text, (size_t)length, l->why);
    const char *end = NULL;
    cJSON *root = good && text[0] == '{' ? cJSON_ParseWithLengthOpts(text, (size_t)length, &end, false) : NULL;
    if (good && (!cJSON_IsObject(root) || !only_spaces(end, text + length)))
        good = BAD(l, "%s: header is not a JSON object", l->path);
    free(text);
    if (good) good = load_header(l, root);
    cJSON_Delete(root);
    return good;
}

bool cli_safetensors_read(const char *path, cli_tensors *tensors, char why[512]) {
    loader l = {.path = path, .tensors = tensors, .why = why};
    int64_t size;
    *tensors = (cli_tensors){0};
    if (!cli_file_open(path, &l.file, &size, why)) return false;
    bool good = read_open_file(&l, size);
    free(l.extents);
    fclose(l.file);
    if (!good) cli_tensors_free(tensors);
    return good;
}

void cli_tensors_free(cli_tensors *tensors) {
    for (int i = 0; i < tensors->count; i++) cli_array_free(&tensors->items[i]);
    free(tensors->items);
    *tensors = (cli_tensors){0};
}

cli_array *cli_tensors_find(const cli_tensors *tensors, const char *name) {
    for (int i = 0; i < tensors->count; i++)
        if (strcmp(tensors->items[i].name, name) == 0) return &tensors->items[i];
    return NULL;
}

/* ---- writing ------------------------------------------------------------------------------------------------ */

static cJSON *entry_json(const cli_array *array, int64_t begin) {
    cJSON *entry = cJSON_CreateObject();
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].dtype == array->dtype) cJSON_AddStringToObject(entry, "dtype", types[i].name);
    cJSON *shape = cJSON_AddArrayToObject(entry, "shape");
    for (int i = 0; i < array->rank; i++) cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)array->shape[i]));
    cJSON *offsets = cJSON_AddArrayToObject(entry, "data_offsets");
    cJSON_AddItemToArray(offsets, cJSON_CreateNumber((double)begin));
    cJSON_AddItemToArray(offsets, cJSON_CreateNumber((double)(begin + (int64_t)array->bytes)));
    return entry;
}

static char *header_text(const cli_tensors *tensors) {
    cJSON *root = cJSON_CreateObject();
    int64_t at = 0;
    for (int i = 0; i < tensors->count; i++) {
        cJSON_AddItemToObject(root, tensors->items[i].name, entry_json(&tensors->items[i], at));
        at += (int64_t)tensors->items[i].bytes;
    }
    char *text = cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    return text;
}

bool cli_safetensors_write(const char *path, const cli_tensors *tensors, char why[512]) {
    char *text = header_text(tensors);
    if (!text) return cli_why(why, 512, "%s: no memory for the header", path);
    cli_writer writer;
    if (!cli_writer_open(&writer, path, why)) {
        cJSON_free(text);
        return false;
    }
    size_t length = strlen(text), padded = (length + 7) / 8 * 8; /* spaces keep the data 8-byte aligned */
    for (int i = 0; i < 8; i++) fputc((int)((uint64_t)padded >> (8 * i) & 255), writer.file);
    fprintf(writer.file, "%-*s", (int)padded, text);
    cJSON_free(text);
    for (int i = 0; i < tensors->count; i++)
        if (tensors->items[i].bytes) fwrite(tensors->items[i].data, 1, tensors->items[i].bytes, writer.file);
    return cli_writer_close(&writer, true, why);
}
