/* Choosing among devices: ranking, duplicates, selectors and the quirks table. The devices are made up, so that no
 * driver is needed; and those installed, met by several threads at once. */
#define _POSIX_C_SOURCE 200809L /* barriers */
#include "device/device.h"
#include "harness.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- made-up devices ---- */

/* Strings are borrowed: such a device is never cleared, only its `why` is freed. */
static clattn__device made_up(clattn__runtime runtime, const char *platform, const char *name, clattn_device_type type,
                              bool unified, uint32_t units, uint32_t mhz) {
    clattn__device device = {0};
    device.caps.runtime = runtime;
    device.caps.platform = (char *)platform;
    device.caps.name = (char *)name;
    device.caps.vendor_text = (char *)"";
    device.caps.driver = (char *)"1.0";
    device.caps.type = type;
    device.caps.unified_memory = unified;
    device.caps.compute_units = units;
    device.caps.clock_mhz = mhz;
    device.caps.matrix_engine = "";
    device.caps.quirks = clattn__quirks_of(&device.caps);
    clattn__device_rank(&device);
    return device;
}

static void free_made_up(clattn__device *devices, int count) {
    for (int i = 0; i < count; i++) clattn__free(devices[i].why);
}

#define GPU CLATTN_DEVICE_GPU
#define CPU CLATTN_DEVICE_CPU
#define NATIVE CLATTN__RUNTIME_NATIVE
#define POCL CLATTN__RUNTIME_POCL
#define RUSTICL CLATTN__RUNTIME_RUSTICL
#define ON12 CLATTN__RUNTIME_OPENCLON12

/* ---- ranking ---- */

static void test_ranking(void) {
    /* In the order wanted, shuffled below. */
    clattn__device devices[] = {
        made_up(CLATTN__RUNTIME_NATIVE, "N", "discrete 40 x 2000", GPU, false, 40, 2000),
        made_up(CLATTN__RUNTIME_NATIVE, "N", "discrete 60 x 1000", GPU, false, 60, 1000),
        made_up(CLATTN__RUNTIME_NATIVE, "N", "discrete, clock unknown", GPU, false, 4000, 0),
        made_up(CLATTN__RUNTIME_NATIVE, "N", "absurd integrated", GPU, true, UINT32_MAX, UINT32_MAX),
        made_up(CLATTN__RUNTIME_NATIVE, "N", "integrated", GPU, true, 96, 1500),
        made_up(CLATTN__RUNTIME_NATIVE, "N", "cpu", CPU, true, 128, 4000),
        made_up(CLATTN__RUNTIME_NATIVE, "N", "accelerator", CLATTN_DEVICE_OTHER, false, 1000, 4000),
        made_up(CLATTN__RUNTIME_RUSTICL, "rusticl", "discrete", GPU, false, 40, 2000),
        made_up(CLATTN__RUNTIME_POCL, "pocl", "cpu", CPU, true, 2, 2600),
        made_up(CLATTN__RUNTIME_OCLGRIND, "Oclgrind", "simulator", CPU, true, 2, 2600),
        made_up(CLATTN__RUNTIME_CLOVER, "Clover", "discrete", GPU, false, 40, 2000),
        made_up(CLATTN__RUNTIME_OPENCLON12, "OpenCLOn12", "integrated", GPU, true, 40, 2000),
    };
    enum { COUNT = (int)CLATTN__COUNT(devices) };
    clattn__device shuffled[COUNT];
    clattn_random random = {12};
    for (int round = 0; round < 20; round++) {
        memcpy(shuffled, devices, sizeof shuffled);
        for (int i = COUNT - 1; i > 0; i--) {
            int j = (int)clattn_random_below(&random, i + 1);
            clattn__device moving = shuffled[i];
            shuffled[i] = shuffled[j];
            shuffled[j] = moving;
        }
        clattn__devices_sort(shuffled, COUNT);
        for (int i = 0; i < COUNT; i++)
            CHECK(shuffled[i].why == devices[i].why, "round %d, place %d: %s [%s] instead of %s [%s]", round, i,
                  shuffled[i].caps.name, shuffled[i].caps.platform, devices[i].caps.name, devices[i].caps.platform);
    }
    free_made_up(devices, COUNT);
}

static void test_ranking_ties(void) {
    clattn__device devices[] = {
        made_up(CLATTN__RUNTIME_NATIVE, "A", "one", GPU, false, 40, 2000),
        made_up(CLATTN__RUNTIME_NATIVE, "A", "two", GPU, false, 40, 2000),
        made_up(CLATTN__RUNTIME_NATIVE, "A", "two", GPU, false, 40, 2000),
        made_up(CLATTN__RUNTIME_NATIVE, "B", "one", GPU, false, 40, 2000),
    };
    clattn__device reversed[4];
    snprintf(devices[1].caps.pci, sizeof devices[1].caps.pci, "0000:01:00.0");
    snprintf(devices[2].caps.pci, sizeof devices[2].caps.pci, "0000:02:00.0");
    for (int i = 0; i < 4; i++) reversed[i] = devices[3 - i];
    clattn__devices_sort(reversed, 4);
    for (int i = 0; i < 4; i++)
        CHECK(reversed[i].why == devices[i].why, "place %d: %s [%s] %s", i, reversed[i].caps.name,
              reversed[i].caps.platform, reversed[i].caps.pci);
    free_made_up(devices, 4);
}

static void check_why(clattn__runtime runtime, clattn_device_type type, bool unified, uint32_t units, uint32_t mhz,
                      const char *want) {
    clattn__device device = made_up(runtime, "P", "d", type, unified, units, mhz);
    CHECK(device.why && strstr(device.why, want) == device.why, "%s", device.why ? device.why : "(null)");
    free_made_up(&device, 1);
}

static void test_ranking_why(void) {
    check_why(CLATTN__RUNTIME_NATIVE, GPU, false, 32, 1500,
              "discrete GPU, vendor driver, 32 compute units x 1500 MHz = 48.0 GHz");
    check_why(CLATTN__RUNTIME_NATIVE, GPU, true, 1, 1500,
              "integrated GPU, vendor driver, 1 compute unit x 1500 MHz = 1.5 GHz");
    check_why(CLATTN__RUNTIME_POCL, CPU, true, 2, 0,
              "CPU, through pocl, below vendor drivers, 2 compute units, clock unknown");
    check_why(
        CLATTN__RUNTIME_CLOVER, GPU, false, 1, 1000,
        "discrete GPU, through Clover, below all others, 1 compute unit x 1000 MHz = 1.0 GHz; never picked unasked: ");
}

/* ---- duplicates ---- */

static void test_duplicates(void) {
    const char *u1 = "00112233445566778899aabbccddeeff", *u2 = "ffeeddccbbaa99887766554433221100";
    const char *p1 = "0000:01:00.0", *p2 = "0000:02:00.0";
    const struct row {
        const char *what;
        clattn__runtime runtime_a, runtime_b;
        const char *platform_a, *platform_b, *name_a, *name_b;
        clattn_device_type type_a, type_b;
        const char *uuid_a, *uuid_b, *pci_a, *pci_b;
        bool same;
    } rows[] = {
        {"equal uuid", NATIVE, RUSTICL, "N", "rusticl", "x", "y", GPU, GPU, u1, u1, "", "", true},
        {"equal uuid beats PCI", NATIVE, RUSTICL, "N", "rusticl", "x", "y", GPU, GPU, u1, u1, p1, p2, true},
        {"equal uuid, one platform", NATIVE, NATIVE, "N", "N", "x", "x", GPU, GPU, u1, u1, "", "", true},
        {"different uuid", NATIVE, RUSTICL, "N", "rusticl", "x", "x", GPU, GPU, u1, u2, "", "", false},
        {"drivers count uuids differently", NATIVE, RUSTICL, "N", "rusticl", "x", "y", GPU, GPU, u1, u2, p1, p1, true},
        {"one card in two parts", NATIVE, NATIVE, "N", "N", "x", "x", GPU, GPU, u1, u2, p1, p1, false},
        {"equal PCI", NATIVE, ON12, "N", "OpenCLOn12", "x", "y", GPU, GPU, "", "", p1, p1, true},
        {"two equal cards", NATIVE, NATIVE, "N", "N", "x", "x", GPU, GPU, "", "", p1, p2, false},
        {"two equal cards, no numbers", NATIVE, NATIVE, "N", "N", "x", "x", GPU, GPU, "", "", "", "", false},
        {"a layer, same name", NATIVE, ON12, "N", "OpenCLOn12", "GeForce X", "NVIDIA GeForce X", GPU, GPU, u1, "", p1,
         "", true},
        {"a layer, other name", NATIVE, ON12, "N", "OpenCLOn12", "GeForce X", "GeForce Y", GPU, GPU, u1, "", p1, "",
         false},
        {"two native drivers, same name", NATIVE, NATIVE, "N", "M", "x", "x", GPU, GPU, "", "", "", "", false},
        {"two CPU drivers", NATIVE, POCL, "Intel", "pocl", "EPYC", "pthread-EPYC", CPU, CPU, u1, "", "", "", false},
        {"CPU and GPU on one chip", NATIVE, NATIVE, "N", "N", "x", "x", CPU, GPU, u1, u1, "", "", false},
    };
    for (size_t i = 0; i < CLATTN__COUNT(rows); i++) {
        const struct row *row = &rows[i];
        clattn__caps a = {.runtime = row->runtime_a,
                          .platform = (char *)row->platform_a,
                          .name = (char *)row->name_a,
                          .type = row->type_a};
        clattn__caps b = {.runtime = row->runtime_b,
                          .platform = (char *)row->platform_b,
                          .name = (char *)row->name_b,
                          .type = row->type_b};
        snprintf(a.uuid, sizeof a.uuid, "%s", row->uuid_a);
        snprintf(b.uuid, sizeof b.uuid, "%s", row->uuid_b);
        snprintf(a.pci, sizeof a.pci, "%s", row->pci_a);
        snprintf(b.pci, sizeof b.pci, "%s", row->pci_b);
        CHECK(clattn__device_same(&a, &b) == row->same, "%s", row->what);
        CHECK(clattn__device_same(&b, &a) == row->same, "%s, the other way round", row->what);
    }
}

/* ---- selectors ---- */

static const char uuid_of_gpu[] = "00112233445566778899aabbccddeeff";

/* 0: an NVIDIA GPU, 1: an Intel GPU, 2: a pocl CPU, 3: a Clover GPU. */
static void make_four(clattn__device devices[4]) {
    devices[0] = made_up(CLATTN__RUNTIME_NATIVE, "NVIDIA CUDA", "NVIDIA GeForce RTX 4090", GPU, false, 128, 2500);
    devices[1] =
        made_up(CLATTN__RUNTIME_NATIVE, "Intel(R) OpenCL Graphics", "Intel(R) Arc(TM) A770", GPU, false, 32, 2400);
    devices[2] = made_up(CLATTN__RUNTIME_POCL, "Portable Computing Language", "pthread-AMD EPYC", CPU, true, 2, 2600);
    devices[3] = made_up(CLATTN__RUNTIME_CLOVER, "Clover", "AMD Radeon R9", GPU, false, 40, 1000);
    devices[0].caps.vendor = CLATTN__VENDOR_NVIDIA;
    devices[0].caps.vendor_text = (char *)"NVIDIA Corporation";
    devices[1].caps.vendor = CLATTN__VENDOR_INTEL;
    devices[1].caps.vendor_text = (char *)"Intel(R) Corporation";
    devices[2].caps.vendor = devices[3].caps.vendor = CLATTN__VENDOR_AMD;
    devices[2].caps.vendor_text = (char *)"AuthenticAMD";
    devices[3].caps.vendor_text = (char *)"Advanced Micro Devices, Inc.";
    memcpy(devices[0].caps.uuid, uuid_of_gpu, sizeof uuid_of_gpu);
}

static void test_selectors(void) {
    static const struct {
        const char *selector;
        int index; /* -1: an error */
        clattn_status status;
        const char *text; /* part of the error */
    } rows[] = {
        {NULL, 0, CLATTN_OK, ""},
        {"", 0, CLATTN_OK, ""},
        {"gpu", 0, CLATTN_OK, ""},
        {"GPU", 0, CLATTN_OK, ""},
        {"cpu", 2, CLATTN_OK, ""},
        {" cpu ", 2, CLATTN_OK, ""},
        {"0", 0, CLATTN_OK, ""},
        {"3", 3, CLATTN_OK, ""},
        {"002", 2, CLATTN_OK, ""},
        {"platform=intel", 1, CLATTN_OK, ""},
        {"platform=INTEL,device=arc", 1, CLATTN_OK, ""},
        {" platform = intel , name = arc ", 1, CLATTN_OK, ""},
        {"gpu,platform=intel", 1, CLATTN_OK, ""},
        {"type=cpu", 2, CLATTN_OK, ""},
        {"type=GPU,vendor=nvidia", 0, CLATTN_OK, ""},
        {"vendor=amd", 2, CLATTN_OK, ""},
        {"vendor=amd,gpu", 3, CLATTN_OK, ""},
        {"vendor=pocl", 2, CLATTN_OK, ""},
        {"vendor=clover", 3, CLATTN_OK, ""},
        {"vendor=micro devices", 3, CLATTN_OK, ""},
        {"uuid:00112233445566778899aabbccddeeff", 0, CLATTN_OK, ""},
        {"UUID:00112233-4455-6677-8899-AABBCCDDEEFF,gpu", 0, CLATTN_OK, ""},
        {"2,cpu", 2, CLATTN_OK, ""},
        /* nothing matches */
        {"4", -1, CLATTN_NO_DEVICE, "\"4\""},
        {"2,gpu", -1, CLATTN_NO_DEVICE, "\"2,gpu\""},
        {"999999", -1, CLATTN_NO_DEVICE, "\"999999\""},
        {"vendor=apple", -1, CLATTN_NO_DEVICE, "\"vendor=apple\""},
        {"gpu,cpu", -1, CLATTN_NO_DEVICE, "\"gpu,cpu\""},
        {"platform=intel,device=geforce", -1, CLATTN_NO_DEVICE, "device=geforce"},
        {"uuid:ff112233445566778899aabbccddeeff", -1, CLATTN_NO_DEVICE, "uuid:ff11"},
        /* not a selector */
        {"npu", -1, CLATTN_INVALID_ARGUMENT, "\"npu\" is no kind and no index"},
        {"-1", -1, CLATTN_INVALID_ARGUMENT, "\"-1\""},
        {"2x", -1, CLATTN_INVALID_ARGUMENT, "\"2x\""},
        {"1.5", -1, CLATTN_INVALID_ARGUMENT, "\"1.5\""},
        {"99999999999999999999", -1, CLATTN_INVALID_ARGUMENT, "\"99999999999999999999\""},
        {"color=red", -1, CLATTN_INVALID_ARGUMENT, "unknown key in \"color=red\""},
        {"=red", -1, CLATTN_INVALID_ARGUMENT, "unknown key in \"=red\""},
        {"platform=", -1, CLATTN_INVALID_ARGUMENT, "\"platform=\" has no value"},
        {"gpu,name= ", -1, CLATTN_INVALID_ARGUMENT, "\"name=\" has no value"},
        {"type=npu", -1, CLATTN_INVALID_ARGUMENT, "must be type=gpu or type=cpu"},
        {"gpu,", -1, CLATTN_INVALID_ARGUMENT, "nothing between two commas"},
        {",gpu", -1, CLATTN_INVALID_ARGUMENT, "nothing between two commas"},
        {"gpu,,cpu", -1, CLATTN_INVALID_ARGUMENT, "nothing between two commas"},
        {"  ", -1, CLATTN_INVALID_ARGUMENT, "nothing between two commas"},
        {"uuid:", -1, CLATTN_INVALID_ARGUMENT, "32 hex digits"},
        {"uuid:0011", -1, CLATTN_INVALID_ARGUMENT, "32 hex digits"},
        {"uuid:00112233445566778899aabbccddeefg", -1, CLATTN_INVALID_ARGUMENT, "32 hex digits"},
        {"uuid:00112233445566778899aabbccddeeff0", -1, CLATTN_INVALID_ARGUMENT, "32 hex digits"},
    };
    clattn__device devices[4];
    make_four(devices);
    for (size_t i = 0; i < CLATTN__COUNT(rows); i++) {
        const char *selector = rows[i].selector ? rows[i].selector : "(null)";
        int index = 99;
        clattn_status status = clattn__device_select(devices, 4, rows[i].selector, &index);
        CHECK(status == rows[i].status && index == rows[i].index, "\"%s\": status %d, index %d", selector, (int)status,
              index);
        if (status == CLATTN_OK) continue;
        const char *text = clattn_last_error();
        CHECK(strstr(text, rows[i].text) != NULL, "\"%s\": %s", selector, text);
        CHECK(strstr(text, "\n  2: pthread-AMD EPYC [Portable Computing Language]") != NULL,
              "\"%s\" lists no devices: %s", selector, text);
    }
    free_made_up(devices, 4);
}

static void test_never_picked(void) {
    clattn__device devices[4];
    make_four(devices);
    int index = 99;
    CHECK(clattn__device_select(&devices[3], 1, NULL, &index) == CLATTN_NO_DEVICE && index == -1, "index %d", index);
    CHECK(strstr(clattn_last_error(), "Clover] (only when named)") != NULL, "%s", clattn_last_error());
    CHECK(clattn__device_select(&devices[3], 1, "gpu", &index) == CLATTN_OK && index == 0, "index %d", index);
    CHECK(clattn__device_select(devices, 0, NULL, &index) == CLATTN_NO_DEVICE && index == -1, "index %d", index);
    CHECK(strstr(clattn_last_error(), "install an OpenCL driver") != NULL, "%s", clattn_last_error());
    free_made_up(devices, 4);
}

/* ---- quirks ---- */

static void test_quirk_versions(void) {
    static const struct {
        const char *driver;
        bool binary_crashes; /* a row up to and with 3.1 */
    } rows[] = {{"3.1+debian", true}, {"3.1", true},  {"3.0", true},     {"3", true},    {"1.8", true},
                {"3.1.2", true},      {"3.2", false}, {"3.10", false},   {"4.0", false}, {"5.0-pre main", false},
                {"10.0", false},      {"", false},    {"unknown", false}};
    for (size_t i = 0; i < CLATTN__COUNT(rows); i++) {
        clattn__caps caps = {.runtime = CLATTN__RUNTIME_POCL, .driver = (char *)rows[i].driver};
        uint32_t quirks = clattn__quirks_of(&caps);
        CHECK(!!(quirks & CLATTN__QUIRK_BINARY_CRASHES) == rows[i].binary_crashes, "pocl \"%s\"", rows[i].driver);
        CHECK(quirks & CLATTN__QUIRK_NOINLINE_BODY, "pocl \"%s\"", rows[i].driver);
        CHECK(quirks & CLATTN__QUIRK_CACHES_ITSELF, "pocl \"%s\"", rows[i].driver);
        CHECK((clattn__quirk_reason(&caps, CLATTN__QUIRK_BINARY_CRASHES) != NULL) == rows[i].binary_crashes,
              "pocl \"%s\"", rows[i].driver);
    }
    clattn__caps plain = {
        .runtime = CLATTN__RUNTIME_NATIVE, .type = GPU, .vendor = CLATTN__VENDOR_INTEL, .driver = (char *)"1"};
    CHECK(clattn__quirks_of(&plain) == 0, "quirks 0x%x", (unsigned)clattn__quirks_of(&plain));
    plain.type = CPU;
    CHECK(clattn__quirks_of(&plain) == (CLATTN__QUIRK_LOG_NEVER_EMPTY | CLATTN__QUIRK_WAITER_WORKS), "quirks 0x%x",
          (unsigned)clattn__quirks_of(&plain));
    clattn__caps mesa = {.runtime = CLATTN__RUNTIME_RUSTICL, .type = CPU, .driver = (char *)"22.3.6"};
    CHECK(clattn__quirks_of(&mesa) ==
              (CLATTN__QUIRK_SLOW_VECTORS | CLATTN__QUIRK_GROUP_LIMIT_WRONG | CLATTN__QUIRK_WRONG_LOOPS),
          "quirks 0x%x", (unsigned)clattn__quirks_of(&mesa));
    mesa.driver = (char *)"23.1.0";
    CHECK(clattn__quirks_of(&mesa) == CLATTN__QUIRK_SLOW_VECTORS, "quirks 0x%x", (unsigned)clattn__quirks_of(&mesa));
    mesa.type = GPU;
    CHECK(clattn__quirks_of(&mesa) == 0, "quirks 0x%x", (unsigned)clattn__quirks_of(&mesa));
}

/* ---- threads ---- */

enum { THREADS = 4 };

static pthread_barrier_t together;

static void *count_devices(void *count) {
    clattn_device_list *list = NULL;
    pthread_barrier_wait(&together);
    *(int *)count = clattn_device_list_create(&list) == CLATTN_OK ? clattn_device_list_count(list) : -1;
    clattn_device_list_destroy(&list);
    return NULL;
}

/* Nothing has asked this process's drivers for devices before: the threads do it all at the same time. */
static void test_first_question(void) {
    pthread_t threads[THREADS];
    int counts[THREADS], known = 0;
    clattn_device_list *list = NULL;
    pthread_barrier_init(&together, NULL, THREADS);
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, count_devices, &counts[i]) != 0) abort();
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&together);
    if (clattn_device_list_create(&list) == CLATTN_OK) known = clattn_device_list_count(list);
    clattn_device_list_destroy(&list);
    for (int i = 0; i < THREADS; i++) CHECK(counts[i] == known, "thread %d saw %d devices of %d", i, counts[i], known);
}

static const clattn_test rank_tests[] = {{"order", test_ranking},
                                         {"ties", test_ranking_ties},
                                         {"why", test_ranking_why},
                                         {"duplicates", test_duplicates},
                                         {NULL, NULL}};
static const clattn_test select_tests[] = {
    {"selectors", test_selectors}, {"never_picked", test_never_picked}, {NULL, NULL}};
static const clattn_test quirk_tests[] = {{"versions", test_quirk_versions}, {NULL, NULL}};
static const clattn_test thread_tests[] = {{"first_question", test_first_question}, {NULL, NULL}};
static const clattn_test_suite suites[] = {
    {"rank", rank_tests}, {"select", select_tests}, {"quirks", quirk_tests}, {"threads", thread_tests}, {NULL, NULL}};

int main(int argc, char **argv) { return clattn_test_main(suites, argc, argv); }
