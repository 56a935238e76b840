/* NumPy's .npy format: a magic number, a version, and a Python dictionary that says how to read the rest.
 * Reads versions 1.0, 2.0 and 3.0, writes 1.0. */
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the file formats are little-endian and are read without swapping"
#endif

static const unsigned char magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};
enum { MAX_HEADER = 1 << 16, MAX_RANK = 8 };

/* What the dictionary says. */
typedef struct npy_header {
    char descr[16];
    bool fortran_order;
    int rank;
    int64_t shape[MAX_RANK];
    bool has_descr, has_order, has_shape;
} npy_header;

typedef struct cursor {
    const char *at, *end;
    const char *path;
    char *why; /* 512 bytes */
} cursor;

#define BAD(c, ...) cli_why((c)->why, 512, __VA_ARGS__)

static void skip_space(cursor *c) {
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n' || *c->at == '\t' || *c->at == '\r')) c->at++;
}

static bool take(cursor *c, char wanted) {
    skip_space(c);
    if (c->at >= c->end || *c->at != wanted) return false;
    c->at++;
    return true;
}

/* 'text' or "text"; no escapes, as none of the words that matter has one. */
static bool take_string(cursor *c, char *text, size_t capacity) {
    skip_space(c);
    if (c->at >= c->end || (*c->at != '\'' && *c->at != '"')) return false;
    char quote = *c->at++;
    size_t length = 0;
    for (; c->at < c->end && *c->at != quote; c->at++) {
        if (length + 1 >= capacity || *c->at < ' ' || *c->at == '\\') return false;
        text[length++] = *c->at;
    }
    text[length] = '\0';
    return take(c, quote);
}

static bool take_word(cursor *c, const char *word) {
    size_t length = strlen(word);
    skip_space(c);
    if ((size_t)(c->end - c->at) < length || memcmp(c->at, word, length) != 0) return false;
    c->at += length;
    return true;
}

static bool take_extent(cursor *c, int64_t *extent) {
    skip_space(c);
    if (c->at >= c->end || *c->at < '0' || *c->at > '9') return false;
    for (*extent = 0; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++) {
        int digit = *c->at - '0';
        if (*extent > (INT64_MAX - digit) / 10) return false;
        *extent = *extent * 10 + digit;
    }
    return true;
}

static bool parse_shape(cursor *c, npy_header *header) {
    if (!take(c, '(')) return BAD(c, "%s: shape is not a tuple", c->path);
    for (header->rank = 0; !take(c, ')'); header->rank++) {
        if (header->rank == MAX_RANK) return BAD(c, "%s: shape has more than %d extents", c->path, MAX_RANK);
        if (!take_extent(c, &header->shape[header->rank]))
            return BAD(c, "%s: shape[%d] is not a whole number in 0..2^63-1", c->path, header->rank);
        if (take(c, ',')) continue;
        if (!take(c, ')')) return BAD(c, "%s: shape has something other than numbers and commas", c->path);
        header->rank++;
        break;
    }
    return true;
}

static bool parse_entry(cursor *c, npy_header *header) {
    char key[32];
    if (!take_string(c, key, sizeof key))
        return BAD(c, "%s: header is not a dictionary: a key is no short string", c->path);
    if (!take(c, ':')) return BAD(c, "%s: header is not a dictionary: no colon after '%s'", c->path, key);
    bool *seen = strcmp(key, "descr") == 0           ? &header->has_descr
                 : strcmp(key, "fortran_order") == 0 ? &header->has_order
                 : strcmp(key, "shape") == 0         ? &header->has_shape
                                                     : NULL;
    if (!seen) return BAD(c, "%s: header has the unknown key '%s'", c->path, key);
    if (*seen) return BAD(c, "%s: header has the key '%s' twice", c->path, key);
    *seen = true;
    if (seen == &header->has_shape) return parse_shape(c, header);
    if (seen == &header->has_descr) {
        if (take_string(c, header->descr, sizeof header->descr)) return true;
        return BAD(c, "%s: descr is not one plain element type; records are not read", c->path);
    }
    header->fortran_order = take_word(c, "True");
    if (header->fortran_order || take_word(c, "False")) return true;
    return BAD(c, "%s: fortran_order is neither True nor False", c->path);
}

static bool parse_header(cursor *c, npy_header *header) {
    *header = (npy_header){0};
    if (!take(c, '{')) return BAD(c, "%s: header is not a dictionary: it does not start with '{'", c->path);
    while (!take(c, '}')) {
        if (!parse_entry(c, header)) return false;
        if (take(c, ',')) continue;
        if (!take(c, '}')) return BAD(c, "%s: header is not a dictionary: no comma or '}' after a value", c->path);
        break;
    }
    skip_space(c);
    if (c->at != c->end) return BAD(c, "%s: header has something behind its closing brace", c->path);
    if (!header->has_descr) return BAD(c, "%s: header lacks the key 'descr'", c->path);
    if (!header->has_order) return BAD(c, "%s: header lacks the key 'fortran_order'", c->path);
    if (!header->has_shape) return BAD(c, "%s: header lacks the key 'shape'", c->path);
    return true;
}

/* Element types. float64 is read into float32, as everything computes in that. */
typedef struct npy_type {
    const char *descr;
    clattn_dtype dtype;
    size_t file_size; /* bytes per element in the file */
} npy_type;

static const npy_type types[] = {{"<f4", CLATTN_F32, 4}, {"<f2", CLATTN_F16, 2}, {"<f8", CLATTN_F32, 8},
                                 {"<i4", CLATTN_I32, 4}, {"<i8", CLATTN_I64, 8}, {"|b1", CLATTN_BOOL, 1}};

static const npy_type *find_type(const char *descr) {
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(types[i].descr, descr) == 0) return &types[i];
    return NULL;
}

/* The header's text, NUL-terminated, in malloc'ed memory; *data_size is what follows it in the file. */
static char *read_header(FILE *file, const char *path, int64_t size, size_t *length, int64_t *data_size,
                         char why[512]) {
    unsigned char start[12];
    if (!cli_file_read(file, path, "magic number and version", start, 8, why)) return NULL;
    if (memcmp(start, magic, sizeof magic) != 0)
        return cli_why(why, 512, "%s: is not a .npy file: wrong magic number", path), NULL;
    int major = start[6], minor = start[7], width = major == 1 ? 2 : 4;
    if (major < 1 || major > 3 || minor != 0)
        return cli_why(why, 512, "%s: version is %d.%d; it must be 1.0, 2.0 or 3.0", path, major, minor), NULL;
    if (!cli_file_read(file, path, "header length", start + 8, (size_t)width, why)) return NULL;
    *length = 0;
    for (int i = width - 1; i >= 0; i--) *length = *length << 8 | start[8 + i];
    *data_size = size - 8 - width - (int64_t)*length;
    if (*data_size < 0)
        return cli_why(why, 512, "%s: is truncated: the header length is %zu, the file has %lld bytes", path, *length,
                       (long long)size),
               NULL;
    if (*length > MAX_HEADER)
        return cli_why(why, 512, "%s: header length is %zu; it must be at most %d", path, *length, MAX_HEADER), NULL;
    char *text = malloc(*length + 1);
    if (!text) return cli_why(why, 512, "%s: no memory for the header", path), NULL;
    text[*length] = '\0';
    if (cli_file_read(file, path, "header", text, *length, why)) return text;
    free(text);
    return NULL;
}

static bool describe(const npy_header *header, const char *path, int64_t data_size, cli_array *array,
                     const npy_type **type, char why[512]) {
    *type = find_type(header->descr);
    if (!*type && header->descr[0] == '>')
        return cli_why(why, 512, "%s: descr is '%s', big-endian; it must be little-endian ('<')", path, header->descr);
    if (!*type)
        return cli_why(why, 512, "%s: descr is '%s'; it must be <f4, <f2, <f8, <i4, <i8 or |b1", path, header->descr);
    *array = (cli_array){.dtype = (*type)->dtype, .rank = header->rank};
    int64_t elements = 1;
    int long_axes = 0;
    for (int i = 0; i < header->rank; i++) {
        array->shape[i] = header->shape[i];
        long_axes += header->shape[i] != 1;
        /* 2^56 elements never fit into memory, and up to there no product below overflows */
        if (header->shape[i] > 0 && elements > ((int64_t)1 << 56) / header->shape[i])
            return cli_why(why, 512, "%s: shape is too large: the product of its extents overflows", path);
        elements *= header->shape[i];
    }
    if (header->fortran_order && long_axes > 1)
        return cli_why(why, 512, "%s: fortran_order is True; it must be False (save it with numpy.ascontiguousarray)",
                       path);
    int64_t wanted = elements * (int64_t)(*type)->file_size;
    if (wanted > data_size)
        return cli_why(why, 512, "%s: is truncated: shape and descr need %lld bytes of data, the file has %lld", path,
                       (long long)wanted, (long long)data_size);
    if (wanted < data_size)
        return cli_why(why, 512, "%s: has %lld bytes behind the data that shape and descr describe", path,
                       (long long)(data_size - wanted));
    return true;
}

static bool read_doubles(FILE *file, const char *path, cli_array *array, char why[512]) {
    double block[512];
    float *out = array->data;
    int64_t left = cli_array_elements(array), done = 0;
    while (left > 0) {
        size_t count = left < 512 ? (size_t)left : 512;
        if (!cli_file_read(file, path, "data", block, count * sizeof *block, why)) return false;
        for (size_t i = 0; i < count; i++) {
            if (isfinite(block[i]) && fabs(block[i]) > FLT_MAX)
                return cli_why(why, 512, "%s: element %lld is %g; it does not fit float32", path,
                               (long long)(done + (int64_t)i), block[i]);
            out[done + (int64_t)i] = (float)block[i];
        }
        left -= (int64_t)count;
        done += (int64_t)count;
    }
    return true;
}

static bool read_open_file(FILE *file, const char *path, int64_t size, cli_array *array, char why[512]) {
    size_t length;
    int64_t data_size;
    char *text = read_header(file, path, size, &length, &data_size, why);
    if (!text) return false;
    cursor c = {.at = text, .end = text + length, .path = path, .why = why};
    npy_header header;
    bool good = parse_header(&c, &header);
    free(text);
    const npy_type *type;
    char reason[256];
    if (!good || !describe(&header, path, data_size, array, &type, why)) return false;
    if (!cli_array_allocate(array, reason, sizeof reason)) return cli_why(why, 512, "%s: %s", path, reason);
    if (type->file_size != clattn_dtype_size(type->dtype)) return read_doubles(file, path, array, why);
    return cli_file_read(file, path, "data", array->data, array->bytes, why);
}

bool cli_npy_read(const char *path, cli_array *array, char why[512]) {
    FILE *file;
    int64_t size;
    *array = (cli_array){0};
    if (!cli_file_open(path, &file, &size, why)) return false;
    bool good = read_open_file(file, path, size, array, why);
    fclose(file);
    if (!good) cli_array_free(array);
    return good;
}

bool cli_npy_write(const char *path, const cli_array *array, char why[512]) {
    const char *descr = NULL;
    for (size_t i = 0; i < sizeof types / sizeof types[0] && !descr; i++)
        if (types[i].dtype == array->dtype && types[i].file_size == clattn_dtype_size(array->dtype))
            descr = types[i].descr;
    if (!descr) return cli_why(why, 512, "%s: .npy has no element type for %s", path, clattn_dtype_name(array->dtype));
    char text[256];
    int length = snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr);
    for (int i = 0; i < array->rank; i++)
        length += snprintf(text + length, sizeof text - (size_t)length,
                           i + 1 < array->rank || i == 0 ? "%lld, " : "%lld", (long long)array->shape[i]);
    length += snprintf(text + length, sizeof text - (size_t)length, "), }");
    int padded = (10 + length + 1 + 63) / 64 * 64 - 10; /* the data starts on a multiple of 64 */
    unsigned char start[10] = {0, 0, 0, 0, 0, 0, 1, 0, (unsigned char)(padded & 255), (unsigned char)(padded >> 8)};
    memcpy(start, magic, sizeof magic);
    cli_writer writer;
    if (!cli_writer_open(&writer, path, why)) return false;
    fwrite(start, 1, sizeof start, writer.file);
    fprintf(writer.file, "%-*s\n", padded - 1, text);
    if (array->bytes) fwrite(array->data, 1, array->bytes, writer.file);
    return cli_writer_close(&writer, true, why);
}
