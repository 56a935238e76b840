/* Everything that is asked of a device, asked once. */
#include "../../cl/shared/matrix.h"
#include "device/device.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* Queries of extensions, by number because headers differ in what they name. */
enum {
    DEVICE_UUID_KHR = 0x106A,              /* 16 bytes */
    DEVICE_PCI_BUS_INFO_KHR = 0x410F,      /* four cl_uint: domain, bus, device, function */
    DEVICE_COMPUTE_MAJOR_NV = 0x4000,      /* cl_uint */
    DEVICE_COMPUTE_MINOR_NV = 0x4001,      /* cl_uint */
    DEVICE_INTEGRATED_NV = 0x4006,         /* cl_bool */
    DEVICE_PCI_BUS_NV = 0x4008,            /* cl_uint */
    DEVICE_PCI_SLOT_NV = 0x4009,           /* cl_uint: device * 8 + function */
    DEVICE_PCI_DOMAIN_NV = 0x400A,         /* cl_uint */
    DEVICE_TOPOLOGY_AMD = 0x4037,          /* 24 bytes: cl_uint 1 for PCIe, 17 unused, then bus, device, function */
    DEVICE_BOARD_NAME_AMD = 0x4038,        /* text */
    DEVICE_WAVEFRONT_WIDTH_AMD = 0x4043,   /* cl_uint */
    DEVICE_SUB_GROUP_SIZES_INTEL = 0x4108, /* size_t each */
    DEVICE_MAX_SUB_GROUPS = 0x105C         /* cl_uint; OpenCL 2.1 */
};

static clattn_status query_fail(cl_int code, const char *what) {
    /* Not clattn__cl_fail: whatever code a broken driver answers with, the host has not run out of memory. */
    return clattn__fail(CLATTN_DEVICE_FAILED, "clGetDeviceInfo(%s) failed with %s (%d)", what,
                        clattn__cl_error_name(code), (int)code);
}

/* For values a device may do without: false leaves *value as it was. */
static bool get_optional(cl_device_id id, cl_device_info what, size_t bytes, void *value) {
    unsigned char fresh[64];
    size_t got = 0;
    if (bytes > sizeof fresh || clGetDeviceInfo(id, what, sizeof fresh, fresh, &got) != CL_SUCCESS || got < bytes)
        return false;
    memcpy(value, fresh, bytes);
    return true;
}

static void trim(char *text) {
    size_t start = strspn(text, " \t\r\n"), length = strlen(text);
    while (length > start && isspace((unsigned char)text[length - 1])) length--;
    memmove(text, text + start, length - start);
    text[length - start] = '\0';
}

/* Spaces around are dropped: some drivers pad their names. */
static clattn_status get_text(cl_device_id id, cl_device_info what, const char *name, char **text) {
    size_t bytes = 0;
    cl_int code = clGetDeviceInfo(id, what, 0, NULL, &bytes);
    if (code != CL_SUCCESS) return query_fail(code, name);
    *text = clattn__alloc(bytes + 1, 1);
    if (!*text) return CLATTN_OUT_OF_MEMORY;
    if (bytes) code = clGetDeviceInfo(id, what, bytes, *text, NULL);
    if (code != CL_SUCCESS) return query_fail(code, name);
    trim(*text);
    return CLATTN_OK;
}

static clattn_status get_platform_text(cl_platform_id platform, cl_platform_info what, const char *name, char **text) {
    size_t bytes = 0;
    cl_int code = clGetPlatformInfo(platform, what, 0, NULL, &bytes);
    if (code == CL_SUCCESS) {
        *text = clattn__alloc(bytes + 1, 1);
        if (!*text) return CLATTN_OUT_OF_MEMORY;
        if (bytes) code = clGetPlatformInfo(platform, what, bytes, *text, NULL);
    }
    if (code != CL_SUCCESS)
        return clattn__fail(CLATTN_DEVICE_FAILED, "clGetPlatformInfo(%s) failed with %s (%d)", name,
                            clattn__cl_error_name(code), (int)code);
    trim(*text);
    return CLATTN_OK;
}

static bool has_extension(const char *list, const char *name) {
    size_t length = strlen(name);
    for (const char *at = strstr(list, name); at; at = strstr(at + length, name)) {
        if ((at == list || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0')) return true;
    }
    return false;
}

/* A word of the text starts with this, whatever the case: "AMD" in "AMD EPYC", not in "foamdriver". */
static bool has_word(const char *text, const char *word) {
    size_t length = strlen(word);
    for (size_t i = 0; text[i]; i++) {
        if (i > 0 && isalnum((unsigned char)text[i - 1])) continue;
        size_t same = 0;
        while (same < length && tolower((unsigned char)text[i + same]) == tolower((unsigned char)word[same])) same++;
        if (same == length) return true;
    }
    return false;
}

/* The text first: pocl gives its CPU devices Intel's number whatever they are. */
clattn__vendor clattn__vendor_of(const char *text, cl_uint number) {
    static const struct {
        const char *word;
        cl_uint number; /* PCI vendor, or 0 */
        clattn__vendor vendor;
    } rows[] = {
        {"AMD", 0x1002, CLATTN__VENDOR_AMD},       {"Advanced Micro Devices", 0x1022, CLATTN__VENDOR_AMD},
        {"AuthenticAMD", 0, CLATTN__VENDOR_AMD},   {"Intel", 0x8086, CLATTN__VENDOR_INTEL},
        {"GenuineIntel", 0, CLATTN__VENDOR_INTEL}, {"NVIDIA", 0x10DE, CLATTN__VENDOR_NVIDIA},
        {"ARM", 0x13B5, CLATTN__VENDOR_ARM},       {"Qualcomm", 0x5143, CLATTN__VENDOR_QUALCOMM},
        {"Apple", 0x106B, CLATTN__VENDOR_APPLE},
    };
    for (size_t i = 0; i < CLATTN__COUNT(rows); i++) {
        if (has_word(text, rows[i].word)) return rows[i].vendor;
    }
    for (size_t i = 0; i < CLATTN__COUNT(rows); i++) {
        if (rows[i].number && rows[i].number == number) return rows[i].vendor;
    }
    return CLATTN__VENDOR_OTHER;
}

clattn__runtime clattn__runtime_of(const char *platform) {
    static const struct {
        const char *word;
        clattn__runtime runtime;
    } rows[] = {
        {"Portable Computing Language", CLATTN__RUNTIME_POCL},
        {"pocl", CLATTN__RUNTIME_POCL},
        {"rusticl", CLATTN__RUNTIME_RUSTICL},
        {"Clover", CLATTN__RUNTIME_CLOVER},
        {"OpenCLOn12", CLATTN__RUNTIME_OPENCLON12},
        {"Oclgrind", CLATTN__RUNTIME_OCLGRIND},
    };
    for (size_t i = 0; i < CLATTN__COUNT(rows); i++) {
        if (has_word(platform, rows[i].word)) return rows[i].runtime;
    }
    return CLATTN__RUNTIME_NATIVE;
}

/* pocl names LLVM's processor model in device name or version; these have AVX-512. */
static bool names_avx512(const clattn__caps *caps) {
    static const char *const words[] = {
        "avx512",  "avx-512",   "znver4",     "znver5",         "cascadelake",   "cooperlake",    "cannonlake",
        "icelake", "tigerlake", "rocketlake", "sapphirerapids", "emeraldrapids", "graniterapids", "diamondrapids"};
    for (size_t i = 0; i < CLATTN__COUNT(words); i++) {
        if (has_word(caps->name, words[i]) || has_word(caps->version, words[i])) return true;
    }
    return false;
}

/* CPU kernels exist for 4, 8 and 16 lanes; a GPU's own figure is only reported. */
static uint32_t lanes_of(const clattn__caps *caps, cl_uint native) {
    if (caps->type != CLATTN_DEVICE_CPU) return native ? native : 1;
    if (native >= 16 || names_avx512(caps)) return 16;
    return native >= 8 ? 8 : 4;
}

static void get_uuid(cl_device_id id, clattn__caps *caps) {
    unsigned char bytes[16], any = 0;
    if (!has_extension(caps->extensions, "cl_khr_device_uuid")) return;
    if (!get_optional(id, DEVICE_UUID_KHR, sizeof bytes, bytes)) return;
    for (size_t i = 0; i < sizeof bytes; i++) any |= bytes[i];
    for (size_t i = 0; i < sizeof bytes && any; i++) snprintf(caps->uuid + 2 * i, 3, "%02x", bytes[i]);
}

static void get_pci(cl_device_id id, clattn__caps *caps) {
    cl_uint place[4] = {0}, bus, slot; /* domain, bus, device, function */
    unsigned char topology[24];
    const char *list = caps->extensions;
    if (caps->type == CLATTN_DEVICE_CPU) return;
    if (has_extension(list, "cl_khr_pci_bus_info") && get_optional(id, DEVICE_PCI_BUS_INFO_KHR, sizeof place, place)) {
        /* all set */
    } else if (has_extension(list, "cl_nv_device_attribute_query") &&
               get_optional(id, DEVICE_PCI_BUS_NV, sizeof bus, &bus) &&
               get_optional(id, DEVICE_PCI_SLOT_NV, sizeof slot, &slot)) {
        get_optional(id, DEVICE_PCI_DOMAIN_NV, sizeof place[0], &place[0]);
        place[1] = bus;
        place[2] = slot >> 3;
        place[3] = slot & 7;
    } else if (has_extension(list, "cl_amd_device_attribute_query") &&
               get_optional(id, DEVICE_TOPOLOGY_AMD, sizeof topology, topology)) {
        for (int i = 0; i < 3; i++) place[1 + i] = topology[21 + i];
    } else {
        return;
    }
    snprintf(caps->pci, sizeof caps->pci, "%04x:%02x:%02x.%x", (unsigned)(place[0] & 0xFFFFFF),
             (unsigned)(place[1] & 0xFF), (unsigned)(place[2] & 0xFF), (unsigned)(place[3] & 0xFF));
}

/* Widths below 8, which CPU drivers offer, leave most of the hardware idle. */
static void get_subgroup_lanes(cl_device_id id, clattn__caps *caps) {
    size_t widths[8] = {0}, bytes = 0;
    if (!has_extension(caps->extensions, "cl_intel_required_subgroup_size") ||
        clGetDeviceInfo(id, DEVICE_SUB_GROUP_SIZES_INTEL, sizeof widths, widths, &bytes) != CL_SUCCESS)
        return;
    for (size_t i = 0; i < bytes / sizeof widths[0]; i++)
        if (widths[i] >= 8 && (!caps->subgroup_lanes || widths[i] < caps->subgroup_lanes))
            caps->subgroup_lanes = (uint32_t)widths[i];
}

/* What the driver says; the kernel still proves itself before it is used. A compiler builtin on the wrong chip can end
 * the process, so nothing is ever tried out. (gfx908's MFMA lacks the bfloat16 form in use.) */
static void get_matrix_engine(cl_device_id id, clattn__caps *caps) {
    static const struct {
        const char *word;
        const char *name;
        int engine;
        cl_uint lanes;
    } amd[] = {{"gfx11", "WMMA", MATRIX_WMMA11, 32},  {"gfx12", "WMMA", MATRIX_WMMA12, 32},
               {"gfx90a", "MFMA", MATRIX_MFMA32, 64}, {"gfx942", "MFMA", MATRIX_MFMA32, 64},
               {"gfx950", "MFMA", MATRIX_MFMA32, 64}, {"gfx908", "MFMA", MATRIX_NONE, 0}};
    cl_uint major = 0, minor = 0, wave = 0;
    if (caps->type != CLATTN_DEVICE_GPU) return;
    if (has_extension(caps->extensions, "cl_intel_subgroup_matrix_multiply_accumulate")) {
        caps->matrix_engine = "XMX";
        caps->matrix.engine = caps->subgroup_lanes == 8    ? MATRIX_DPAS8
                              : caps->subgroup_lanes == 16 ? MATRIX_DPAS16
                                                           : MATRIX_NONE;
    } else if (has_extension(caps->extensions, "cl_nv_device_attribute_query") &&
               get_optional(id, DEVICE_COMPUTE_MAJOR_NV, sizeof major, &major)) {
        get_optional(id, DEVICE_COMPUTE_MINOR_NV, sizeof minor, &minor);
        if (major * 10 + minor < 75) return;
        caps->matrix_engine = "tensor cores";
        caps->matrix = (clattn__matrix){.engine = MATRIX_NV, .arch = (int)(major * 10 + minor)};
    } else if (caps->vendor == CLATTN__VENDOR_AMD && caps->runtime == CLATTN__RUNTIME_NATIVE) {
        get_optional(id, DEVICE_WAVEFRONT_WIDTH_AMD, sizeof wave, &wave);
        for (size_t i = 0; i < CLATTN__COUNT(amd); i++) {
            if (!has_word(caps->name, amd[i].word)) continue;
            caps->matrix_engine = amd[i].name;
            if (wave == amd[i].lanes) caps->matrix.engine = amd[i].engine;
        }
    }
}

/* AMD's driver calls its devices "gfx1030"; the name on the box is what people look for. */
static clattn_status add_board_name(cl_device_id id, clattn__caps *caps) {
    if (!has_extension(caps->extensions, "cl_amd_device_attribute_query")) return CLATTN_OK;
    char *board = NULL;
    clattn__text both = {0};
    clattn_status status = get_text(id, DEVICE_BOARD_NAME_AMD, "CL_DEVICE_BOARD_NAME_AMD", &board);
    if (status == CLATTN_OK && board[0] && !strstr(caps->name, board)) {
        clattn__text_add(&both, "%s (%s)", caps->name, board);
        if (both.failed) {
            status = CLATTN_OUT_OF_MEMORY;
        } else {
            clattn__free(caps->name);
            caps->name = both.data;
            both.data = NULL;
        }
    }
    clattn__text_free(&both);
    clattn__free(board);
    return status == CLATTN_OUT_OF_MEMORY ? status : CLATTN_OK; /* only a nicety */
}

static clattn_status get_texts(cl_platform_id platform, cl_device_id id, clattn__caps *caps) {
    clattn_status status;
    if ((status = get_platform_text(platform, CL_PLATFORM_NAME, "CL_PLATFORM_NAME", &caps->platform))) return status;
    if ((status = get_platform_text(platform, CL_PLATFORM_VERSION, "CL_PLATFORM_VERSION", &caps->platform_version)))
        return status;
    if ((status = get_text(id, CL_DEVICE_NAME, "CL_DEVICE_NAME", &caps->name))) return status;
    if ((status = get_text(id, CL_DEVICE_VENDOR, "CL_DEVICE_VENDOR", &caps->vendor_text))) return status;
    if ((status = get_text(id, CL_DRIVER_VERSION, "CL_DRIVER_VERSION", &caps->driver))) return status;
    if ((status = get_text(id, CL_DEVICE_VERSION, "CL_DEVICE_VERSION", &caps->version))) return status;
    if ((status = get_text(id, CL_DEVICE_EXTENSIONS, "CL_DEVICE_EXTENSIONS", &caps->extensions))) return status;
    return add_board_name(id, caps);
}

static clattn_status check_usable(cl_device_id id) {
    cl_bool available = CL_TRUE, compiler = CL_TRUE;
    get_optional(id, CL_DEVICE_AVAILABLE, sizeof available, &available);
    get_optional(id, CL_DEVICE_COMPILER_AVAILABLE, sizeof compiler, &compiler);
    if (!available) return clattn__fail(CLATTN_DEVICE_FAILED, "the driver says that the device is not available");
    if (!compiler) return clattn__fail(CLATTN_DEVICE_FAILED, "the driver cannot compile OpenCL C for this device");
    return CLATTN_OK;
}

static clattn_status get_numbers(cl_device_id id, clattn__caps *caps) {
    cl_device_type type = 0;
    cl_uint vendor = 0, native = 0, align_bits = 0, dims = 0, sub_groups = 0;
    cl_ulong global = 0, local = 0, largest = 0;
    cl_bool unified = CL_FALSE;
    size_t group = 0, sizes[8] = {0};
    const struct {
        cl_device_info what;
        const char *name;
        size_t bytes;
        void *value;
    } rows[] = {
        {CL_DEVICE_TYPE, "CL_DEVICE_TYPE", sizeof type, &type},
        {CL_DEVICE_MAX_COMPUTE_UNITS, "CL_DEVICE_MAX_COMPUTE_UNITS", sizeof(cl_uint), &caps->compute_units},
        {CL_DEVICE_GLOBAL_MEM_SIZE, "CL_DEVICE_GLOBAL_MEM_SIZE", sizeof global, &global},
        {CL_DEVICE_LOCAL_MEM_SIZE, "CL_DEVICE_LOCAL_MEM_SIZE", sizeof local, &local},
        {CL_DEVICE_MAX_MEM_ALLOC_SIZE, "CL_DEVICE_MAX_MEM_ALLOC_SIZE", sizeof largest, &largest},
        {CL_DEVICE_MAX_WORK_GROUP_SIZE, "CL_DEVICE_MAX_WORK_GROUP_SIZE", sizeof group, &group},
        {CL_DEVICE_MAX_WORK_ITEM_DIMENSIONS, "CL_DEVICE_MAX_WORK_ITEM_DIMENSIONS", sizeof dims, &dims},
    };
    for (size_t i = 0; i < CLATTN__COUNT(rows); i++) {
        cl_int code = clGetDeviceInfo(id, rows[i].what, rows[i].bytes, rows[i].value, NULL);
        if (code != CL_SUCCESS) return query_fail(code, rows[i].name);
    }
    if (dims < 3 || dims > CLATTN__COUNT(sizes))
        return clattn__fail(CLATTN_DEVICE_FAILED, "the driver reports %u work-item dimensions; 3 are the rule",
                            (unsigned)dims);
    cl_int code = clGetDeviceInfo(id, CL_DEVICE_MAX_WORK_ITEM_SIZES, dims * sizeof sizes[0], sizes, NULL);
    if (code != CL_SUCCESS) return query_fail(code, "CL_DEVICE_MAX_WORK_ITEM_SIZES");
    if (!caps->compute_units || !largest || !group)
        return clattn__fail(CLATTN_DEVICE_FAILED,
                            "the driver reports %u compute units, %llu bytes per buffer, %zu items "
                            "per work-group; none may be 0",
                            (unsigned)caps->compute_units, (unsigned long long)largest, group);

    caps->type = type & CL_DEVICE_TYPE_GPU   ? CLATTN_DEVICE_GPU
                 : type & CL_DEVICE_TYPE_CPU ? CLATTN_DEVICE_CPU
                                             : CLATTN_DEVICE_OTHER;
    get_optional(id, CL_DEVICE_VENDOR_ID, sizeof vendor, &vendor);
    caps->vendor = clattn__vendor_of(caps->vendor_text, vendor);
    caps->runtime = clattn__runtime_of(caps->platform);
    get_optional(id, CL_DEVICE_MAX_CLOCK_FREQUENCY, sizeof(cl_uint), &caps->clock_mhz);
    get_optional(id, CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT, sizeof native, &native);
    caps->vector_width = lanes_of(caps, native);
    /* OpenCL tells one cache's size, and drivers give the last level's; but a CPU device is the host itself. */
    caps->second_cache = caps->type == CLATTN_DEVICE_CPU ? clattn__os_second_cache() : 0;
    caps->global_memory = global;
    caps->local_memory = local;
    caps->max_allocation = largest;
    caps->max_work_group = group;
    memcpy(caps->max_item_sizes, sizes, sizeof caps->max_item_sizes);
    get_optional(id, CL_DEVICE_MEM_BASE_ADDR_ALIGN, sizeof align_bits, &align_bits);
    caps->alignment_bytes = align_bits >= 8 ? align_bits / 8 : 1;
    if (!get_optional(id, CL_DEVICE_HOST_UNIFIED_MEMORY, sizeof unified, &unified) &&
        has_extension(caps->extensions, "cl_nv_device_attribute_query"))
        get_optional(id, DEVICE_INTEGRATED_NV, sizeof unified, &unified);
    caps->unified_memory = unified || caps->type == CLATTN_DEVICE_CPU;
    caps->fp16 = has_extension(caps->extensions, "cl_khr_fp16");
    caps->subgroups =
        has_extension(caps->extensions, "cl_khr_subgroups") || has_extension(caps->extensions, "cl_intel_subgroups");
    /* Core since 2.1, optional again in 3.0, where 0 sub-groups per work-group means none. */
    if (get_optional(id, DEVICE_MAX_SUB_GROUPS, sizeof sub_groups, &sub_groups) && sub_groups > 0)
        caps->subgroups = true;
    return CLATTN_OK;
}

clattn_status clattn__device_query(cl_platform_id platform, cl_device_id id, clattn__device *device) {
    *device = (clattn__device){.platform = platform, .id = id};
    clattn__caps *caps = &device->caps;
    clattn_status status;
    caps->matrix_engine = "";
    if ((status = get_texts(platform, id, caps))) goto fail;
    if ((status = check_usable(id))) goto fail;
    if ((status = get_numbers(id, caps))) goto fail;
    get_uuid(id, caps);
    get_pci(id, caps);
    get_subgroup_lanes(id, caps);
    get_matrix_engine(id, caps);
    caps->quirks = clattn__quirks_of(caps);
    clattn__device_rank(device);
    if (device->why) return CLATTN_OK;
    status = CLATTN_OUT_OF_MEMORY;
fail:
    clattn__device_clear(device);
    return status;
}

void clattn__device_clear(clattn__device *device) {
    clattn__caps *caps = &device->caps;
    clattn__free(caps->name);
    clattn__free(caps->vendor_text);
    clattn__free(caps->platform);
    clattn__free(caps->platform_version);
    clattn__free(caps->driver);
    clattn__free(caps->version);
    clattn__free(caps->extensions);
    clattn__free(device->why);
    *device = (clattn__device){0};
}

void clattn__device_info(const clattn__device *device, int index, clattn_device_info *info) {
    const clattn__caps *caps = &device->caps;
    *info = (clattn_device_info){
        .index = index,
        .type = caps->type,
        .name = caps->name,
        .vendor = caps->vendor_text,
        .platform = caps->platform,
        .driver = caps->driver,
        .version = caps->version,
        .uuid = caps->uuid,
        .compute_units = caps->compute_units,
        .clock_mhz = caps->clock_mhz,
        .vector_width = caps->vector_width,
        .global_memory = caps->global_memory,
        .local_memory = caps->local_memory,
        .second_cache = caps->second_cache,
        .max_allocation = caps->max_allocation,
        .max_work_group = caps->max_work_group,
        .unified_memory = caps->unified_memory,
        .fp16 = caps->fp16,
        .subgroups = caps->subgroups,
        .matrix_engine = caps->matrix_engine,
        .why = device->why,
    };
}
