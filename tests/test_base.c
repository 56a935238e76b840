/* The bottom layer: sizes, memory, errors, text, log, hash, half precision, files. */
#define _POSIX_C_SOURCE 200809L
#include "base/base.h"
#include "harness.h"

#include <float.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- sizes ---- */

static void test_mul_add(void) {
    size_t out = 7;
    CHECK(clattn__mul(0, SIZE_MAX, &out) && out == 0, "0 x max gave %zu", out);
    CHECK(clattn__mul(SIZE_MAX, 0, &out) && out == 0, "max x 0 gave %zu", out);
    CHECK(clattn__mul(SIZE_MAX, 1, &out) && out == SIZE_MAX, "max x 1 gave %zu", out);
    CHECK(clattn__mul(SIZE_MAX / 3, 3, &out) && out == SIZE_MAX / 3 * 3, "max/3 x 3 gave %zu", out);
    CHECK(!clattn__mul(SIZE_MAX / 2 + 1, 2, &out), "2^63 x 2 gave %zu", out);
    CHECK(!clattn__mul(2, SIZE_MAX / 2 + 1, &out), "2 x 2^63 gave %zu", out);
    CHECK(clattn__add(SIZE_MAX - 1, 1, &out) && out == SIZE_MAX, "max-1 + 1 gave %zu", out);
    CHECK(!clattn__add(SIZE_MAX, 1, &out), "max + 1 gave %zu", out);
}

static void test_volume(void) {
    static const struct {
        int64_t extents[4];
        int rank;
        size_t unit;
        bool good;
        size_t bytes;
    } cases[] = {
        {{2, 3, 5, 7}, 4, 4, true, 840},
        {{0}, 0, 4, true, 4}, /* a scalar */
        {{0, INT64_MAX, INT64_MAX, INT64_MAX}, 4, 8, true, 0},
        {{INT64_MAX, INT64_MAX, INT64_MAX, 0}, 4, 8, true, 0},
        {{INT64_MAX, INT64_MAX, -1, 0}, 4, 8, false, 0},
        {{-1, 0}, 2, 4, false, 0},
        {{INT64_MAX}, 1, 1, true, INT64_MAX},
        {{INT64_MAX}, 1, 2, false, 0},
        {{(int64_t)1 << 31, (int64_t)1 << 31}, 2, 1, true, (size_t)1 << 62},
        {{(int64_t)1 << 32, (int64_t)1 << 32}, 2, 1, false, 0},
        {{(int64_t)1 << 32, (int64_t)1 << 31}, 2, 1, false, 0}, /* 2^63 passes SIZE_MAX / 2 */
    };
    for (size_t i = 0; i < CLATTN__COUNT(cases); i++) {
        size_t bytes = 99;
        bool good = clattn__volume(cases[i].extents, cases[i].rank, cases[i].unit, &bytes);
        CHECK(good == cases[i].good, "case %zu", i);
        CHECK(bytes == (cases[i].good ? cases[i].bytes : 99), "case %zu: %zu bytes", i, bytes);
    }
}

/* ---- memory ---- */

static void test_alloc(void) {
    unsigned char *memory = clattn__alloc(1000, 3);
    REQUIRE(memory != NULL, "3000 bytes");
    int used = 0;
    for (int i = 0; i < 3000; i++) used |= memory[i];
    CHECK(used == 0, "memory is not zeroed");
    clattn__free(memory);
    clattn__free(NULL);

    void *empty = clattn__alloc(0, 8);
    CHECK(empty != NULL, "an empty allocation looks like a failure");
    clattn__free(empty);

    CHECK(clattn__alloc(SIZE_MAX / 2, 3) == NULL, "an overflowing product was allocated");
    CHECK(strstr(clattn_last_error(), "out of host memory") != NULL, "%s", clattn_last_error());

    char *copy = clattn__strdup("text");
    CHECK(copy && strcmp(copy, "text") == 0, "%s", copy ? copy : "(null)");
    clattn__free(copy);
}

static void test_alloc_fail_after(void) {
    for (long nth = 1; nth <= 3; nth++) {
        clattn__fail(CLATTN_OK, "%s", "");
        clattn__alloc_fail_after(nth);
        for (long i = 1; i <= 5; i++) {
            void *memory = clattn__alloc(1, 16);
            CHECK((memory == NULL) == (i == nth), "nth %ld, allocation %ld", nth, i);
            clattn__free(memory);
        }
        CHECK(strstr(clattn_last_error(), "16 bytes") != NULL, "%s", clattn_last_error());
    }
    clattn__alloc_fail_after(2);
    clattn__alloc_fail_after(0);
    for (int i = 0; i < 3; i++) {
        void *memory = clattn__alloc(1, 1);
        CHECK(memory != NULL, "allocation %d failed although switched off", i);
        clattn__free(memory);
    }
}

/* ---- the last error ---- */

static void test_error_text(void) {
    CHECK(clattn__fail(CLATTN_INVALID_SHAPE, "batch is %d", -1) == CLATTN_INVALID_SHAPE, "status");
    CHECK(strcmp(clattn_last_error(), "batch is -1") == 0, "%s", clattn_last_error());
    clattn__fail_note("; hint %s", "A");
    CHECK(strcmp(clattn_last_error(), "batch is -1; hint A") == 0, "%s", clattn_last_error());
    /* The old text as an argument of the new one. */
    clattn__fail(CLATTN_UNSUPPORTED, "plan: %s", clattn_last_error());
    CHECK(strcmp(clattn_last_error(), "plan: batch is -1; hint A") == 0, "%s", clattn_last_error());
    clattn__fail_note(" (%s)", clattn_last_error());
    CHECK(strcmp(clattn_last_error(), "plan: batch is -1; hint A (plan: batch is -1; hint A)") == 0, "%s",
          clattn_last_error());
}

static void test_error_keep(void) {
    clattn__fail(CLATTN_UNSUPPORTED, "first");
    char *kept = clattn__error_keep();
    clattn__fail(CLATTN_UNSUPPORTED, "second");
    clattn__error_restore(kept);
    CHECK(strcmp(clattn_last_error(), "first") == 0, "%s", clattn_last_error());
    clattn__fail(CLATTN_OK, "%s", "");
    kept = clattn__error_keep();
    CHECK(kept == NULL, "nothing to keep, yet \"%s\"", kept);
    clattn__fail(CLATTN_UNSUPPORTED, "second");
    clattn__error_restore(kept);
    CHECK(clattn_last_error()[0] == '\0', "%s", clattn_last_error());
}

static void test_error_truncation(void) {
    enum { LONG = 20000 };
    char *long_text = malloc(LONG + 1);
    REQUIRE(long_text != NULL, "no memory");
    memset(long_text, 'x', LONG);
    long_text[LONG] = '\0';
    clattn__fail(CLATTN_BUILD_FAILED, "%s", long_text);
    size_t length = strlen(clattn_last_error());
    CHECK(length > 8000 && length < 8192, "%zu characters", length);
    CHECK(strcmp(clattn_last_error() + length - 6, " [...]") == 0, "%s", clattn_last_error() + length - 6);
    clattn__fail_note("more");
    CHECK(strlen(clattn_last_error()) < 8192, "a note passed the end");

    clattn__fail(CLATTN_BUILD_FAILED, "short");
    clattn__fail_note("%s", long_text);
    length = strlen(clattn_last_error());
    CHECK(strncmp(clattn_last_error(), "shortxxx", 8) == 0 && length < 8192, "%zu characters", length);

    /* Two-byte characters at both parities: the cut never leaves half of one. */
    for (int shift = 0; shift < 2; shift++) {
        for (int i = 0; i < LONG; i++) long_text[i] = (i & 1) ? '\xA4' : '\xC3';
        clattn__fail(CLATTN_BUILD_FAILED, "%s%s", shift ? "x" : "", long_text);
        const char *text = clattn_last_error();
        unsigned char last = (unsigned char)text[strlen(text) - 7];
        CHECK(last == 0xA4, "shift %d: byte 0x%02x before the mark", shift, last);
    }

    /* Text that fits exactly is not cut. */
    memset(long_text, 'y', LONG);
    clattn__fail(CLATTN_BUILD_FAILED, "%.*s", 8191, long_text);
    CHECK(strlen(clattn_last_error()) == 8191 && clattn_last_error()[8190] == 'y', "8191 characters must fit");
    clattn__fail(CLATTN_BUILD_FAILED, "%.*s", 8192, long_text);
    CHECK(clattn_last_error()[strlen(clattn_last_error()) - 1] == ']', "8192 characters must be marked as cut");
    free(long_text);
}

/* ---- log and text ---- */

static char logged[70000];
static int logged_count;
static void log_to_memory(void *user, clattn_log_level level, const char *message) {
    *(int *)user = (int)level;
    logged_count++;
    snprintf(logged, sizeof logged, "%s", message);
}

static void test_log(void) {
    int level = -1;
    clattn__log log = {log_to_memory, &level}, silent = {NULL, NULL};
    clattn__log_text(&silent, CLATTN_LOG_ERROR, "nobody hears %d", 1);
    clattn__log_text(NULL, CLATTN_LOG_ERROR, "nobody hears %d", 1);
    CHECK(logged_count == 0, "%d messages", logged_count);
    clattn__log_text(&log, CLATTN_LOG_WARNING, "kernel %s\r\n", "k");
    CHECK(level == CLATTN_LOG_WARNING && strcmp(logged, "kernel k") == 0, "level %d: %s", level, logged);
    for (int length = 1022; length <= 1026; length++) {
        clattn__log_text(&log, CLATTN_LOG_DEBUG, "%0*d", length, 5);
        CHECK((int)strlen(logged) == length, "%d characters arrived as %zu", length, strlen(logged));
    }
    clattn__log_text(&log, CLATTN_LOG_DEBUG, "%060000d", 5);
    CHECK(strlen(logged) == 60000, "%zu characters", strlen(logged));
    /* Without memory for the whole message its start arrives, and the last error stays what it was. */
    clattn__fail(CLATTN_UNSUPPORTED, "%s", "");
    clattn__alloc_fail_after(1);
    clattn__log_text(&log, CLATTN_LOG_DEBUG, "%060000d", 5);
    clattn__alloc_fail_after(0);
    CHECK(strlen(logged) == 1023, "%zu characters", strlen(logged));
    CHECK(clattn_last_error()[0] == '\0', "%s", clattn_last_error());
}

static void test_text_growth(void) {
    clattn__text text = {0};
    char want[24];
    for (int i = 0; i < 5000; i++) clattn__text_add(&text, "%04d,", i);
    clattn__text_add_bytes(&text, "raw\0byte", 8);
    clattn__text_add_bytes(&text, NULL, 0);
    REQUIRE(!text.failed && text.data != NULL, "growth failed");
    CHECK(text.length == 25008 && text.capacity > text.length, "length %zu", text.length);
    CHECK(text.data[text.length] == '\0' && memcmp(text.data + 25000, "raw\0byte", 8) == 0, "raw bytes differ");
    for (int i = 0; i < 5000; i += 499) {
        snprintf(want, sizeof want, "%04d,", i);
        CHECK(memcmp(text.data + 5 * i, want, 5) == 0, "entry %d is %.5s", i, text.data + 5 * i);
    }
    clattn__text_free(&text);
    CHECK(!text.data && !text.length, "free left something");

    /* A failure sticks, what was there before stays readable. */
    clattn__text_add(&text, "kept");
    clattn__alloc_fail_after(1);
    clattn__text_add(&text, "%0500d", 1);
    clattn__alloc_fail_after(0);
    clattn__text_add(&text, "later");
    CHECK(text.failed && strcmp(text.data, "kept") == 0, "failed %d: %s", text.failed, text.data);
    clattn__text_free(&text);
    clattn__text_free(&text);
}

/* ---- hash ---- */

static void test_hash(void) {
    char empty[33], one[33], again[33], other[33];
    clattn__hash_hex("", 0, empty);
    /* XXH3-128 of nothing with seed 0, from the algorithm's specification. */
    CHECK(strcmp(empty, "99aa06d3014798d86001c324468d497f") == 0, "%s", empty);
    clattn__hash_hex("kernel", 6, one);
    clattn__hash_hex("kernel", 6, again);
    clattn__hash_hex("kerneL", 6, other);
    CHECK(strlen(one) == 32 && strspn(one, "0123456789abcdef") == 32, "%s", one);
    CHECK(strcmp(one, again) == 0 && strcmp(one, other) != 0 && strcmp(one, empty) != 0, "%s %s", one, other);
}

/* ---- half precision ---- */

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* What binary16 means, by the definition. */
static double half_value(uint16_t half) {
    int exponent = half >> 10 & 31, fraction = half & 0x3FF;
    double magnitude = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return half & 0x8000 ? -magnitude : magnitude;
}

static void test_half_all(void) {
    int wrong = 0, lost = 0;
    for (uint32_t half = 0; half < 65536; half++) {
        float value = clattn__half_to_float((uint16_t)half);
        uint16_t back = clattn__float_to_half(value);
        if ((half & 0x7C00) == 0x7C00 && (half & 0x3FF)) {
            if (!isnan(value)) wrong++;
            if ((back & 0x7C00) != 0x7C00 || !(back & 0x3FF) || (back & 0x8000) != (half & 0x8000)) lost++;
            continue;
        }
        double want = (half & 0x7FFF) == 0x7C00 ? (half & 0x8000 ? -INFINITY : INFINITY) : half_value((uint16_t)half);
        if ((double)value != want || !!signbit(value) != (half >> 15)) wrong++;
        if (back != half) lost++;
    }
    CHECK(wrong == 0, "%d of 65536 halves have the wrong value", wrong);
    CHECK(lost == 0, "%d of 65536 halves do not survive the way there and back", lost);
}

/* Between each two neighbours: the middle goes to the even one, a step beside it to the nearer one. */
static void test_half_rounding(void) {
    int wrong = 0;
    for (uint32_t half = 0; half < 0x7BFF; half++) {
        float low = clattn__half_to_float((uint16_t)half), high = clattn__half_to_float((uint16_t)(half + 1));
        float middle = (float)(((double)low + (double)high) / 2); /* exact */
        uint16_t even = (uint16_t)(half & 1 ? half + 1 : half);
        if (clattn__float_to_half(middle) != even) wrong++;
        if (clattn__float_to_half(nextafterf(middle, 0)) != half) wrong++;
        if (clattn__float_to_half(nextafterf(middle, INFINITY)) != half + 1) wrong++;
        if (clattn__float_to_half(-middle) != (even | 0x8000)) wrong++;
    }
    CHECK(wrong == 0, "%d roundings are wrong", wrong);
    static const struct {
        float value;
        uint16_t half;
    } cases[] = {{65504.0f, 0x7BFF}, {65519.99f, 0x7BFF}, {65520.0f, 0x7C00}, {1e30f, 0x7C00}, {-1e30f, 0xFC00},
                 {INFINITY, 0x7C00}, {FLT_MIN, 0},        {0.0f, 0},          {-0.0f, 0x8000}, {-1e-30f, 0x8000},
                 {0x1p-24f, 1},      {0x1p-25f, 0},       {0x1.8p-25f, 1},    {1.0f, 0x3C00}};
    for (size_t i = 0; i < CLATTN__COUNT(cases); i++) {
        uint16_t got = clattn__float_to_half(cases[i].value);
        CHECK(got == cases[i].half, "%a gave 0x%04x, not 0x%04x", (double)cases[i].value, got, cases[i].half);
    }
}

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void test_bf16(void) {
    int wrong = 0;
    for (uint32_t half = 0; half < 65536; half++) {
        float value = clattn__bf16_to_float((uint16_t)half);
        if (bits_of(value) != half << 16) wrong++;
        uint16_t back = clattn__float_to_bf16(value);
        if (isnan(value) ? !isnan(clattn__bf16_to_float(back)) : back != half) wrong++;
        if ((half & 0x7F80) == 0x7F80) continue; /* no neighbours to round between */
        uint16_t even = (uint16_t)(half & 1 ? half + 1 : half);
        if (clattn__float_to_bf16(float_of(half << 16 | 0x8000)) != even) wrong++;
        if (clattn__float_to_bf16(float_of(half << 16 | 0x7FFF)) != half) wrong++;
        if (clattn__float_to_bf16(float_of(half << 16 | 0x8001)) != half + 1) wrong++;
    }
    CHECK(wrong == 0, "%d bfloat16 conversions are wrong", wrong);
    /* NaNs whose payload lies in the dropped half only. */
    for (uint32_t bits = 0x7F800001u; bits < 0x7F810000u; bits = bits * 2 - 0x7F800000u + 1) {
        CHECK(isnan(clattn__bf16_to_float(clattn__float_to_bf16(float_of(bits)))), "NaN 0x%08x", (unsigned)bits);
        CHECK(isnan(clattn__half_to_float(clattn__float_to_half(float_of(bits)))), "NaN 0x%08x", (unsigned)bits);
    }
    CHECK(clattn__float_to_bf16(FLT_MAX) == 0x7F80, "the greatest float rounds to infinity");
}

/* ---- files, folders, clock, mutex ---- */

static char folder[512]; /* a fresh one per test */
static bool make_folder(void) {
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/clattn-test-XXXXXX", base && base[0] ? base : "/tmp");
    return mkdtemp(folder) != NULL;
}

static const char *in_folder(const char *name) {
    static char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void test_files(void) {
    REQUIRE(make_folder(), "no temporary folder");
    char path[1024];
    size_t count = 0;
    snprintf(path, sizeof path, "%s", in_folder("file"));
    CHECK(clattn__os_read_file(path, 100, &count) == NULL, "a missing file was read");
    CHECK(clattn__os_write_file(path, "old\0text", 8), "first write");
    char *text = clattn__os_read_file(path, 100, &count);
    CHECK(text && count == 8 && memcmp(text, "old\0text", 9) == 0, "%zu bytes came back", count);
    clattn__free(text);
    CHECK(clattn__os_write_file(path, "new", 3), "second write");
    text = clattn__os_read_file(path, 3, NULL);
    CHECK(text && strcmp(text, "new") == 0, "%s", text ? text : "(null)");
    clattn__free(text);
    CHECK(clattn__os_read_file(path, 2, &count) == NULL, "3 bytes passed a limit of 2");
    CHECK(clattn__os_write_file(path, NULL, 0), "empty file");
    text = clattn__os_read_file(path, 0, &count);
    CHECK(text && count == 0 && text[0] == '\0', "empty file");
    clattn__free(text);
    CHECK(clattn__os_read_file(folder, 100, &count) == NULL, "a folder was read");
    CHECK(mkfifo(in_folder("pipe"), 0600) == 0, "no pipe");
    CHECK(clattn__os_read_file(in_folder("pipe"), 100, &count) == NULL, "a pipe was read");
    unlink(in_folder("pipe"));
    unlink(path);
    CHECK(rmdir(folder) == 0, "a temporary file was left behind");
}

static void test_file_failure(void) {
    REQUIRE(make_folder(), "no temporary folder");
    /* The target is a folder: the temporary file is written, the rename fails, nothing is left. */
    char path[1024];
    snprintf(path, sizeof path, "%s", in_folder("target"));
    CHECK(mkdir(path, 0700) == 0, "mkdir");
    CHECK(!clattn__os_write_file(path, "x", 1), "a folder was overwritten");
    CHECK(!clattn__os_write_file(in_folder("missing/file"), "x", 1), "written into a missing folder");
    clattn__alloc_fail_after(1);
    CHECK(!clattn__os_write_file(in_folder("file"), "x", 1), "written without memory for the name");
    clattn__alloc_fail_after(0);
    CHECK(!clattn__os_write_file("/dev/full/file", "x", 1), "written below a device");
    rmdir(path);
    CHECK(rmdir(folder) == 0, "a temporary file was left behind");
}

static void path_in_folder(void *path, const char *name) { strcpy(path, in_folder(name)); }

/* A process that ends at once leaves its mark behind; one that is alive does not look abandoned. */
static void test_marks(void) {
    REQUIRE(make_folder(), "no temporary folder");
    clattn__mark mark;
    char path[1024] = "";
    REQUIRE(clattn__os_mark(in_folder("work"), &mark), "no mark");
    CHECK(!clattn__os_mark_abandoned(mark.path), "its process is alive");
    clattn__os_unmark(&mark);
    const pid_t child = fork();
    if (child == 0) _exit(clattn__os_mark(in_folder("work"), &mark) ? 0 : 1);
    int code = 1;
    CHECK(child > 0 && waitpid(child, &code, 0) == child && code == 0, "the child's code is %d", code);
    clattn__os_list_dir(folder, path_in_folder, path);
    CHECK(clattn__os_mark_abandoned(path), "%s: its process has ended", path);
    CHECK(!clattn__os_mark_abandoned(in_folder("none")), "there is no such mark");
    CHECK(!clattn__os_mark(in_folder("missing/work"), &mark), "a mark in a missing folder");
    unlink(path);
    CHECK(rmdir(folder) == 0, "a file was left behind");
}

/* A limit on file sizes acts like a disk that is full after 1000 bytes. */
static void test_full_disk(void) {
    static char big[5000];
    struct rlimit old, small;
    char path[1024];
    REQUIRE(make_folder(), "no temporary folder");
    snprintf(path, sizeof path, "%s", in_folder("file"));
    CHECK(clattn__os_write_file(path, "old", 3), "first write");
    REQUIRE(getrlimit(RLIMIT_FSIZE, &old) == 0, "no limits here");
    small = old;
    small.rlim_cur = 1000;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    bool written = clattn__os_write_file(path, big, sizeof big);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, handler);
    CHECK(!written, "5000 bytes went to a disk with room for 1000");
    char *text = clattn__os_read_file(path, 100, NULL);
    CHECK(text && strcmp(text, "old") == 0, "the old content must stay: %s", text ? text : "(null)");
    clattn__free(text);
    unlink(path);
    CHECK(rmdir(folder) == 0, "a temporary file was left behind");
}

static void test_folders(void) {
    REQUIRE(make_folder(), "no temporary folder");
    struct stat about;
    CHECK(clattn__os_make_dirs(in_folder("a/b//c/")), "a/b//c/");
    CHECK(clattn__os_make_dirs(in_folder("a/b/c")), "already there");
    CHECK(stat(in_folder("a/b"), &about) == 0 && (about.st_mode & 0777) == 0700, "mode %o", (unsigned)about.st_mode);
    CHECK(clattn__os_writable_dir(in_folder("a")), "a is writable");
    CHECK(!clattn__os_writable_dir(in_folder("b")), "b does not exist");
    CHECK(clattn__os_write_file(in_folder("file"), "x", 1), "file");
    CHECK(!clattn__os_make_dirs(in_folder("file")), "a file is no folder");
    CHECK(!clattn__os_make_dirs(in_folder("file/below")), "nothing can be below a file");
    CHECK(!clattn__os_make_dirs(""), "the empty path");
    CHECK(!clattn__os_writable_dir(in_folder("file")), "a file is no folder");
    rmdir(in_folder("a/b/c"));
    rmdir(in_folder("a/b"));
    rmdir(in_folder("a"));
    unlink(in_folder("file"));
    CHECK(rmdir(folder) == 0, "something was left behind");
}

static void check_cache_dir(const char *xdg, const char *home, const char *want) {
    char *path = (char *)"";
    if (xdg)
        setenv("XDG_CACHE_HOME", xdg, 1);
    else
        unsetenv("XDG_CACHE_HOME");
    if (home)
        setenv("HOME", home, 1);
    else
        unsetenv("HOME");
    bool got = clattn__os_cache_dir(&path);
    CHECK(got == (want != NULL) && (want ? path && strcmp(path, want) == 0 : path == NULL), "XDG %s, HOME %s: %s",
          xdg ? xdg : "-", home ? home : "-", path ? path : "(none)");
    clattn__free(path);
}

static void test_cache_dir(void) {
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char *old_xdg = xdg ? clattn__strdup(xdg) : NULL, *old_home = home ? clattn__strdup(home) : NULL;
    check_cache_dir("/x", "/h", "/x/clattn");
    check_cache_dir("", "/h", "/h/.cache/clattn");
    check_cache_dir("relative", "/h", "/h/.cache/clattn");
    check_cache_dir(NULL, "/h", "/h/.cache/clattn");
    check_cache_dir(NULL, "h", NULL);
    check_cache_dir("", "", NULL);
    check_cache_dir(NULL, NULL, NULL);
    if (old_xdg)
        setenv("XDG_CACHE_HOME", old_xdg, 1);
    else
        unsetenv("XDG_CACHE_HOME");
    if (old_home)
        setenv("HOME", old_home, 1);
    else
        unsetenv("HOME");
    clattn__free(old_xdg);
    clattn__free(old_home);
}

static void test_clock_and_mutex(void) {
    const int day = clattn__os_day(); /* 20261122 */
    CHECK(day / 10000 >= 2024 && day / 100 % 100 >= 1 && day / 100 % 100 <= 12 && day % 100 >= 1 && day % 100 <= 31,
          "today is %d", day);
    double start = clattn__os_seconds(), end = clattn__os_seconds();
    CHECK(end >= start && end - start < 10, "%g then %g", start, end);
    clattn__mutex *mutex = clattn__mutex_create();
    REQUIRE(mutex != NULL, "no mutex");
    clattn__mutex_lock(mutex);
    clattn__mutex_unlock(mutex);
    clattn__mutex_destroy(&mutex);
    CHECK(mutex == NULL, "destroy must clear the pointer");
    clattn__mutex_destroy(&mutex);
    clattn__alloc_fail_after(1);
    CHECK(clattn__mutex_create() == NULL, "made without memory");
    clattn__alloc_fail_after(0);
}

static const clattn_test sizes_tests[] = {{"mul_add", test_mul_add}, {"volume", test_volume}, {NULL, NULL}};
static const clattn_test memory_tests[] = {
    {"alloc", test_alloc}, {"alloc_fail_after", test_alloc_fail_after}, {NULL, NULL}};
static const clattn_test error_tests[] = {
    {"text", test_error_text}, {"keep", test_error_keep}, {"truncation", test_error_truncation}, {NULL, NULL}};
static const clattn_test text_tests[] = {
    {"log", test_log}, {"growth", test_text_growth}, {"hash", test_hash}, {NULL, NULL}};
static const clattn_test half_tests[] = {
    {"all", test_half_all}, {"rounding", test_half_rounding}, {"bf16", test_bf16}, {NULL, NULL}};
static const clattn_test os_tests[] = {{"files", test_files},
                                       {"file_failure", test_file_failure},
                                       {"marks", test_marks},
                                       {"full_disk", test_full_disk},
                                       {"folders", test_folders},
                                       {"cache_dir", test_cache_dir},
                                       {"clock_and_mutex", test_clock_and_mutex},
                                       {NULL, NULL}};

static const clattn_test_suite suites[] = {{"sizes", sizes_tests},
                                           {"memory", memory_tests},
                                           {"error", error_tests},
                                           {"text", text_tests},
                                           {"half", half_tests},
                                           {"os", os_tests},
                                           {NULL, NULL}};

int main(int argc, char **argv) { return clattn_test_main(suites, argc, argv); }
