/* The tool's file formats: what is written is read back, and every kind of broken file has its own message. */
#define _POSIX_C_SOURCE 200809L /* mkdtemp */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "harness.h"

static char folder[64], path[128];

static const char *in_folder(const char *name) {
    if (!folder[0]) {
        strcpy(folder, "/tmp/clattn-test-XXXXXX");
        if (!mkdtemp(folder)) strcpy(folder, ".");
    }
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static bool put_file(const char *file, const void *bytes, size_t size) {
    FILE *out = fopen(file, "wb");
    if (!out) return false;
    bool good = fwrite(bytes, 1, size, out) == size;
    return fclose(out) == 0 && good;
}

/* ---- .npy ----------------------------------------------------------------------------------------------------- */

/* A file of the given version with the header text as it is and `data` zero bytes behind it. */
static size_t npy_bytes(unsigned char *out, int major, const char *header, size_t data) {
    size_t length = strlen(header), width = major == 1 ? 2 : 4;
    memcpy(out, "\x93NUMPY", 6);
    out[6] = (unsigned char)major;
    out[7] = 0;
    for (size_t i = 0; i < width; i++) out[8 + i] = (unsigned char)(length >> (8 * i));
    memcpy(out + 8 + width, header, length);
    memset(out + 8 + width + length, 0, data);
    return 8 + width + length + data;
}

static void check_npy(const char *name, const unsigned char *bytes, size_t size, const char *message) {
    cli_array array;
    char why[512] = "";
    const char *file = in_folder("case.npy");
    REQUIRE(put_file(file, bytes, size), "%s", name);
    bool good = cli_npy_read(file, &array, why);
    if (!message)
        CHECK(good, "%s: %s", name, why);
    else
        CHECK(!good && strstr(why, message) && strstr(why, file), "%s: message is '%s', wanted '%s'", name, why,
              message);
    if (good)
        cli_array_free(&array);
    else
        CHECK(array.data == NULL, "%s leaves data behind", name);
}

static const struct {
    const char *name;
    int major;
    const char *header;
    size_t data;
    const char *message; /* NULL: is read */
} npy_cases[] = {
    {"plain", 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", 24, NULL},
    {"version 2.0", 2, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", 24, NULL},
    {"version 3.0", 3, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", 24, NULL},
    {"no spaces, other order", 1, "{\"shape\":(6,),'fortran_order':False,'descr':\"<i4\"}", 24, NULL},
    {"scalar", 1, "{'descr': '<i8', 'fortran_order': False, 'shape': (), }", 8, NULL},
    {"no element", 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3), }", 0, NULL},
    {"one axis in Fortran order", 1, "{'descr': '<f4', 'fortran_order': True, 'shape': (1, 6), }", 24, NULL},
    {"Fortran order", 1, "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }", 24, "fortran_order is True"},
    {"big-endian", 1, "{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3), }", 24, "big-endian"},
    {"unsigned", 1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }", 6, "descr is '|u1'"},
    {"record", 1, "{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (2, 3), }", 24, "records are not read"},
    {"truncated data", 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 23, "is truncated"},
    {"bytes behind", 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 25, "1 bytes behind"},
    {"product overflows", 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 8), }", 0,
     "overflows"},
    {"extent overflows", 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", 0,
     "shape[0]"},
    {"negative extent", 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 3), }", 24, "shape[0]"},
    {"extent is no number", 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, x), }", 24, "shape[1]"},
    {"shape is a list", 1, "{'descr': '<f4', 'fortran_order': False, 'shape': [2, 3], }", 24, "shape is not a tuple"},
    {"too many extents", 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 1, 1, 1, 1, 1, 1, 6), }", 24,
     "more than 8"},
    {"order is a number", 1, "{'descr': '<f4', 'fortran_order': 0, 'shape': (2, 3), }", 24, "neither True nor False"},
    {"key twice", 1, "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 24, "twice"},
    {"unknown key", 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), 'x': 1}", 24, "unknown key 'x'"},
    {"no shape", 1, "{'descr': '<f4', 'fortran_order': False}", 24, "lacks the key 'shape'"},
    {"no descr", 1, "{'fortran_order': False, 'shape': (2, 3)}", 24, "lacks the key 'descr'"},
    {"no order", 1, "{'descr': '<f4', 'shape': (2, 3)}", 24, "lacks the key 'fortran_order'"},
    {"open brace", 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)", 24, "no comma or '}'"},
    {"behind the brace", 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)} x", 24,
     "behind its closing brace"},
    {"no dictionary", 1, "hello", 24, "does not start with '{'"},
    {"future version", 4, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 24, "version is 4.0"},
};

static void test_npy_table(void) {
    unsigned char bytes[512];
    for (size_t i = 0; i < sizeof npy_cases / sizeof npy_cases[0]; i++) {
        size_t size = npy_bytes(bytes, npy_cases[i].major, npy_cases[i].header, npy_cases[i].data);
        check_npy(npy_cases[i].name, bytes, size, npy_cases[i].message);
    }
    check_npy("empty", bytes, 0, "is truncated");
    size_t size = npy_bytes(bytes, 1, npy_cases[0].header, 24);
    check_npy("cut in the header", bytes, 40, "is truncated: the header length is");
    bytes[0] = 'x';
    check_npy("magic", bytes, size, "wrong magic number");
    static unsigned char large[(1 << 17) + 16];
    npy_bytes(large, 2, "", 1 << 17);
    large[10] = 2; /* header length 2^17 */
    check_npy("long header", large, sizeof large - 4, "must be at most");
}

static void test_npy_values(void) {
    unsigned char bytes[512];
    const double doubles[3] = {1.5, -INFINITY, 1e300};
    cli_array array;
    char why[512];
    const char *file = in_folder("double.npy");
    size_t start = npy_bytes(bytes, 1, "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }", 0);
    memcpy(bytes + start, doubles, sizeof doubles);
    REQUIRE(put_file(file, bytes, start + 16) && cli_npy_read(file, &array, why), "float64: %s", why);
    const float *values = array.data;
    CHECK(array.dtype == CLATTN_F32 && values[0] == 1.5f && values[1] == -INFINITY, "float64 gives %g, %g", values[0],
          values[1]);
    cli_array_free(&array);
    memcpy(bytes + start, doubles + 1, 16);
    REQUIRE(put_file(file, bytes, start + 16), "second file");
    CHECK(!cli_npy_read(file, &array, why) && strstr(why, "element 1 is 1e+300"), "message is '%s'", why);
}

/* ---- round trips ---------------------------------------------------------------------------------------------- */

static void fill(cli_array *array, uint64_t seed) {
    clattn_random random = {seed};
    unsigned char *bytes = array->data;
    for (size_t i = 0; i < array->bytes; i++)
        bytes[i] = (unsigned char)clattn_random_below(&random, array->dtype == CLATTN_BOOL ? 2 : 256);
}

static bool same_array(const cli_array *a, const cli_array *b) {
    return a->dtype == b->dtype && a->rank == b->rank && a->bytes == b->bytes &&
           memcmp(a->shape, b->shape, sizeof *a->shape * (size_t)a->rank) == 0 &&
           memcmp(a->data, b->data, a->bytes) == 0;
}

static void test_round_trips(void) {
    static const int64_t shapes[][4] = {{7, 0, 0, 0}, {2, 3, 0, 0}, {1, 1, 1, 1}, {2, 0, 3, 1}, {3, 5, 7, 2}};
    static const int ranks[] = {1, 2, 4, 4, 4};
    for (int dtype = CLATTN_F32; dtype <= CLATTN_I64; dtype++)
        for (int s = 0; s < 5; s++) {
            cli_array made, npy, tensor;
            char why[512] = "";
            REQUIRE(cli_array_new(&made, (clattn_dtype)dtype, ranks[s], shapes[s], why), "%s", why);
            fill(&made, (uint64_t)(dtype * 8 + s));
            if (dtype != CLATTN_BF16) { /* which .npy does not know */
                CHECK(cli_array_write(in_folder("a.npy"), &made, why) && cli_array_read(path, &npy, why),
                      "dtype %d shape %d: %s", dtype, s, why);
                CHECK(same_array(&made, &npy), "dtype %d shape %d", dtype, s);
                cli_array_free(&npy);
            }
            CHECK(cli_array_write(in_folder("a.safetensors"), &made, why) && cli_array_read(path, &tensor, why),
                  "dtype %d shape %d: %s", dtype, s, why);
            CHECK(same_array(&made, &tensor) && strcmp(tensor.name, "output") == 0, "dtype %d shape %d", dtype, s);
            cli_array_free(&tensor);
            cli_array_free(&made);
        }
}

static void test_several_tensors(void) {
    static const int64_t shape[2] = {2, 3};
    cli_array items[3];
    cli_tensors tensors = {.items = items, .count = 3}, read;
    cli_array one;
    char why[512] = "", named[512];
    for (int i = 0; i < 3; i++) {
        REQUIRE(cli_array_new(&items[i], i == 1 ? CLATTN_BOOL : CLATTN_F32, 2, shape, why), "%s", why);
        fill(&items[i], (uint64_t)i);
        snprintf(items[i].name, sizeof items[i].name, "layer.%d.\"we\\ird\"", i);
    }
    CHECK(cli_safetensors_write(in_folder("t.safetensors"), &tensors, why), "%s", why);
    REQUIRE(cli_safetensors_read(path, &read, why), "%s", why);
    for (int i = 0; i < 3; i++) {
        cli_array *found = cli_tensors_find(&read, items[i].name);
        CHECK(found && same_array(found, &items[i]), "tensor %d", i);
    }
    CHECK(!cli_tensors_find(&read, "absent"), "an absent name is found");
    cli_tensors_free(&read);
    CHECK(!cli_array_read(path, &one, why) && strstr(why, "holds 3 tensors"), "message is '%s'", why);
    snprintf(named, sizeof named, "%s:%s", path, items[1].name);
    CHECK(cli_array_read(named, &one, why) && same_array(&one, &items[1]), "%s", why);
    cli_array_free(&one);
    snprintf(named, sizeof named, "%s:nobody", path);
    CHECK(!cli_array_read(named, &one, why) && strstr(why, "no tensor named 'nobody'"), "message is '%s'", why);
    for (int i = 0; i < 3; i++) cli_array_free(&items[i]);
}

/* ---- safetensors ---------------------------------------------------------------------------------------------- */

static size_t safetensors_bytes(unsigned char *out, const char *header, size_t data) {
    size_t length = strlen(header);
    for (int i = 0; i < 8; i++) out[i] = (unsigned char)((uint64_t)length >> (8 * i));
    memcpy(out + 8, header, length);
    memset(out + 8 + length, 0, data);
    return 8 + length + data;
}

#define A "\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}"
#define B(begin, end) "\"b\":{\"dtype\":\"I64\",\"shape\":[2],\"data_offsets\":[" #begin "," #end "]}"

static const struct {
    const char *name, *header;
    size_t data;
    const char *message; /* NULL: is read */
} safetensors_cases[] = {
    {"plain", "{" A "," B(24, 40) "}", 40, NULL},
    {"padded, metadata", "{\"__metadata__\":{\"format\":\"pt\"}," A "}   ", 24, NULL},
    {"order of names is free", "{" B(24, 40) "," A "}", 40, NULL},
    {"nothing", "{}", 0, NULL},
    {"no JSON", "{\"a\":", 24, "is not a JSON object"},
    {"a list", "[1]", 24, "is not a JSON object"},
    {"two documents", "{}{}", 0, "is not a JSON object"},
    {"entry is a number", "{\"a\":1}", 24, "is not an object"},
    {"no dtype", "{\"a\":{\"shape\":[2,3],\"data_offsets\":[0,24]}}", 24, "has no dtype"},
    {"unknown dtype", "{\"a\":{\"dtype\":\"F64\",\"shape\":[3],\"data_offsets\":[0,24]}}", 24, "dtype 'F64'"},
    {"no shape", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,24]}}", 24, "has no shape"},
    {"half an element", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2.5],\"data_offsets\":[0,24]}}", 24, "shape[0]"},
    {"negative extent", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,-3],\"data_offsets\":[0,24]}}", 24, "shape[1]"},
    {"product overflows", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,24]}}", 24,
     "overflows"},
    {"too many extents", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,6],\"data_offsets\":[0,24]}}", 24,
     "more than 8"},
    {"no offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[6]}}", 24, "not a pair"},
    {"three offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[0,24,48]}}", 24, "not a pair"},
    {"offsets as text", "{\"a\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[\"0\",24]}}", 24, "not a pair"},
    {"descending", "{\"a\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[24,0]}}", 24, "do not ascend"},
    {"beyond the file", "{\"a\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[4,28]}}", 24, "reach beyond"},
    {"size differs", "{\"a\":{\"dtype\":\"F32\",\"shape\":[5],\"data_offsets\":[0,24]}}", 24,
     "span 24 bytes; shape and dtype need 20"},
    {"overlap", "{" A "," B(16, 32) "}", 32, "overlap"},
    {"gap", "{" A "," B(32, 48) "}", 48, "gap of 8 bytes"},
    {"bytes behind", "{" A "}", 28, "4 bytes behind the last tensor"},
    {"name twice", "{" A ",\"a\":{\"dtype\":\"I64\",\"shape\":[2],\"data_offsets\":[24,40]}}", 40, "is there twice"},
};

static void check_safetensors(const char *name, const unsigned char *bytes, size_t size, const char *message) {
    cli_tensors tensors;
    char why[512] = "";
    const char *file = in_folder("case.safetensors");
    REQUIRE(put_file(file, bytes, size), "%s", name);
    bool good = cli_safetensors_read(file, &tensors, why);
    if (!message)
        CHECK(good, "%s: %s", name, why);
    else
        CHECK(!good && strstr(why, message) && strstr(why, file), "%s: message is '%s', wanted '%s'", name, why,
              message);
    if (good)
        cli_tensors_free(&tensors);
    else
        CHECK(tensors.items == NULL, "%s leaves tensors behind", name);
}

static void test_safetensors_table(void) {
    unsigned char bytes[1024];
    for (size_t i = 0; i < sizeof safetensors_cases / sizeof safetensors_cases[0]; i++) {
        size_t size = safetensors_bytes(bytes, safetensors_cases[i].header, safetensors_cases[i].data);
        check_safetensors(safetensors_cases[i].name, bytes, size, safetensors_cases[i].message);
    }
    check_safetensors("empty", bytes, 0, "is truncated");
    size_t size = safetensors_bytes(bytes, "{" A "}", 24);
    check_safetensors("cut in the header", bytes, 30, "header length is");
    memset(bytes, 0xff, 8);
    check_safetensors("lying length", bytes, size, "header length is 18446744073709551615");
    char header[400] = "{\"";
    memset(header + 2, 'n', 300);
    strcpy(header + 302, "\":{}}");
    size = safetensors_bytes(bytes, header, 0);
    check_safetensors("long name", bytes, size, "longer than");
}

/* ---- anything else -------------------------------------------------------------------------------------------- */

/* Random damage: nothing may crash, and a refusal must say why. Sanitizer builds see the rest. */
static void test_damage(void) {
    unsigned char whole[1024], bytes[1024];
    clattn_random random = {2024};
    for (int round = 0; round < 3000; round++) {
        bool npy = round % 2 == 0;
        const char *file = in_folder(npy ? "damaged.npy" : "damaged.safetensors");
        size_t size =
            npy ? npy_bytes(whole, 1, npy_cases[0].header, 24) : safetensors_bytes(whole, "{" A "," B(24, 40) "}", 40);
        memcpy(bytes, whole, size);
        for (int64_t i = 1 + clattn_random_below(&random, 5); i > 0; i--) {
            size_t at = (size_t)clattn_random_below(&random, (int64_t)size);
            if (clattn_random_below(&random, 2))
                bytes[at] = (unsigned char)clattn_random_below(&random, 256);
            else
                bytes[at] = (unsigned char)"0123456789{}[](),:'\"-e "[clattn_random_below(&random, 23)];
        }
        if (clattn_random_below(&random, 8) == 0) size = (size_t)clattn_random_below(&random, (int64_t)size + 1);
        REQUIRE(put_file(file, bytes, size), "round %d", round);
        char why[512] = "";
        cli_array array = {0};
        cli_tensors tensors = {0};
        bool good = npy ? cli_npy_read(file, &array, why) : cli_safetensors_read(file, &tensors, why);
        REQUIRE(good || why[0], "round %d: no message", round);
        cli_array_free(&array);
        cli_tensors_free(&tensors);
    }
}

static void test_paths(void) {
    static const int64_t shape[1] = {2};
    cli_array array, made;
    char why[512];
    CHECK(!cli_array_read(in_folder("absent.npy"), &array, why) && strstr(why, "cannot be opened"), "message is '%s'",
          why);
    CHECK(!cli_array_read(in_folder("x.txt"), &array, why) && strstr(why, "must end in .npy"), "message is '%s'", why);
    const char *directory = in_folder("folder.npy");
    mkdir(directory, 0700);
    CHECK(!cli_array_read(directory, &array, why) && strstr(why, "is not a regular file"), "message is '%s'", why);
    REQUIRE(cli_array_new(&made, CLATTN_F32, 1, shape, why), "%s", why);
    CHECK(isnan(((const float *)made.data)[1]), "a new array is not NaN");
    CHECK(!cli_array_write(in_folder("absent/x.npy"), &made, why) && strstr(why, "cannot be written"),
          "message is '%s'", why);
    CHECK(!cli_array_write(in_folder("folder.npy"), &made, why) && strstr(why, "cannot be written"), "message is '%s'",
          why);
    CHECK(!cli_array_write(in_folder("x.txt"), &made, why) && strstr(why, "must end in"), "message is '%s'", why);
    made.dtype = CLATTN_BF16;
    CHECK(!cli_array_write(in_folder("x.npy"), &made, why) && strstr(why, "no element type for"), "message is '%s'",
          why);
    cli_array_free(&made);
}

static void test_conversions(void) {
    static const struct {
        uint16_t bits;
        float value;
    } halves[] = {{0x0000, 0},
                  {0x3c00, 1},
                  {0xc000, -2},
                  {0x7bff, 65504},
                  {0x0001, 5.9604644775390625e-8f},
                  {0x0400, 6.103515625e-5f},
                  {0x7c00, INFINITY},
                  {0xfc00, -INFINITY},
                  {0x3555, 0.333251953125f}};
    enum { HALVES = sizeof halves / sizeof halves[0] };
    int64_t shape[1] = {HALVES};
    cli_array array;
    char why[512];
    REQUIRE(cli_array_new(&array, CLATTN_F16, 1, shape, why), "%s", why);
    for (int i = 0; i < HALVES; i++) ((uint16_t *)array.data)[i] = halves[i].bits;
    REQUIRE(cli_array_to_f32(&array, why), "%s", why);
    for (int i = 0; i < HALVES; i++)
        CHECK(((float *)array.data)[i] == halves[i].value, "half %04x gives %.9g", halves[i].bits,
              ((float *)array.data)[i]);
    CHECK(!cli_array_to_i32(&array, why) && strstr(why, "does not fit"), "message is '%s'", why);
    CHECK(cli_array_to_bool(&array, why) && ((uint8_t *)array.data)[0] == 0 && ((uint8_t *)array.data)[1] == 1, "%s",
          why);
    cli_array_free(&array);
    shape[0] = 1;
    REQUIRE(cli_array_new(&array, CLATTN_F32, 1, shape, why), "%s", why); /* NaN */
    CHECK(!cli_array_to_bool(&array, why), "NaN became true or false");
    cli_array_free(&array);
    REQUIRE(cli_array_new(&array, CLATTN_I64, 1, shape, why), "%s", why);
    *(int64_t *)array.data = 16777217; /* one more than float32 counts */
    CHECK(!cli_array_to_f32(&array, why) && strstr(why, "element 0 is 16777217"), "message is '%s'", why);
    *(int64_t *)array.data = -7;
    CHECK(cli_array_to_i32(&array, why) && *(int32_t *)array.data == -7, "%s", why);
    cli_array_free(&array);
}

static void test_example_data(void) {
    static const char *const files[] = {"hidden.npy", "padding.npy", "attention-out.npy", "minilm-layer0.safetensors"};
    const char *root = getenv("CLATTN_SOURCE_ROOT");
    if (!root) {
        clattn_test_skip("CLATTN_SOURCE_ROOT is not set");
        return;
    }
    for (int i = 0; i < 4; i++) {
        char file[512], why[512] = "";
        cli_array array = {0};
        cli_tensors tensors = {0};
        snprintf(file, sizeof file, "%s/examples/data/%s", root, files[i]);
        bool good = i < 3 ? cli_npy_read(file, &array, why) : cli_safetensors_read(file, &tensors, why);
        CHECK(good, "%s", why);
        cli_array_free(&array);
        cli_tensors_free(&tensors);
    }
}

static void clean_up(void) {
    static const char *const names[] = {"case.npy",      "double.npy",       "a.npy",       "a.safetensors",
                                        "t.safetensors", "case.safetensors", "damaged.npy", "damaged.safetensors"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) unlink(in_folder(names[i]));
    rmdir(in_folder("folder.npy"));
    CHECK(rmdir(folder) == 0, "%s is not empty: a temporary file was left behind", folder);
}

int main(int argc, char **argv) {
    static const clattn_test npy[] = {{"table", test_npy_table}, {"values", test_npy_values}, {0}};
    static const clattn_test safetensors[] = {
        {"table", test_safetensors_table}, {"several", test_several_tensors}, {0}};
    static const clattn_test both[] = {{"round trips", test_round_trips},
                                       {"damage", test_damage},
                                       {"paths", test_paths},
                                       {"conversions", test_conversions},
                                       {"example data", test_example_data},
                                       {"nothing left behind", clean_up},
                                       {0}};
    static const clattn_test_suite suites[] = {{"npy", npy}, {"safetensors", safetensors}, {"files", both}, {0}};
    return clattn_test_main(suites, argc, argv);
}
