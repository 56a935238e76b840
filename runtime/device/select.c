/* Which device is better, which are one and the same, and which one a selector means. Works on plain structs. */
#include "device/device.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* ---- ranking ---- */

/* By who implements OpenCL, then by kind of hardware, then by compute units x clock. */
static const struct {
    int score;
    const char *text;
} runtime_rows[] = {
    [CLATTN__RUNTIME_NATIVE] = {3, "vendor driver"},
    [CLATTN__RUNTIME_POCL] = {2, "through pocl, below vendor drivers"},
    [CLATTN__RUNTIME_RUSTICL] = {2, "through rusticl, below vendor drivers"},
    [CLATTN__RUNTIME_CLOVER] = {0, "through Clover, below all others"},
    [CLATTN__RUNTIME_OPENCLON12] = {0, "through OpenCLOn12, below all others"},
    [CLATTN__RUNTIME_OCLGRIND] = {1, "through the simulator Oclgrind, below real devices"},
};

static int kind_score(const clattn__caps *caps) {
    if (caps->type == CLATTN_DEVICE_GPU) return caps->unified_memory ? 2 : 3;
    return caps->type == CLATTN_DEVICE_CPU ? 1 : 0;
}

static const char *kind_text(const clattn__caps *caps) {
    if (caps->type == CLATTN_DEVICE_GPU) return caps->unified_memory ? "integrated GPU" : "discrete GPU";
    return caps->type == CLATTN_DEVICE_CPU ? "CPU" : "accelerator";
}

void clattn__device_rank(clattn__device *device) {
    const clattn__caps *caps = &device->caps;
    const int64_t most = ((int64_t)1 << 48) - 1;
    uint64_t speed = (uint64_t)caps->compute_units * (caps->clock_mhz ? caps->clock_mhz : 1);
    int64_t bounded = speed > (uint64_t)most ? most : (int64_t)speed;
    device->rank = ((int64_t)runtime_rows[caps->runtime].score << 52) + ((int64_t)kind_score(caps) << 48) + bounded;

    clattn__text why = {0};
    clattn__text_add(&why, "%s, %s, %u compute unit%s", kind_text(caps), runtime_rows[caps->runtime].text,
                     (unsigned)caps->compute_units, caps->compute_units == 1 ? "" : "s");
    if (caps->clock_mhz)
        clattn__text_add(&why, " x %u MHz = %.1f GHz", (unsigned)caps->clock_mhz, (double)speed / 1000);
    else
        clattn__text_add(&why, ", clock unknown");
    if (caps->quirks & CLATTN__QUIRK_NEVER_PICK)
        clattn__text_add(&why, "; never picked unasked: %s", clattn__quirk_reason(caps, CLATTN__QUIRK_NEVER_PICK));
    clattn__free(device->why);
    device->why = why.data;
    if (why.failed) {
        clattn__text_free(&why);
        device->why = NULL;
    }
}

/* ---- comparing texts, case ignored ---- */

typedef struct span { /* a piece of the selector */
    const char *at;
    size_t length;
} span;

static bool same_letter(char a, char b) { return tolower((unsigned char)a) == tolower((unsigned char)b); }

static bool is_word(span part, const char *word) {
    if (part.length != strlen(word)) return false;
    for (size_t i = 0; i < part.length; i++) {
        if (!same_letter(part.at[i], word[i])) return false;
    }
    return true;
}

static bool contains(const char *text, span part) {
    size_t length = text ? strlen(text) : 0;
    for (size_t i = 0; i + part.length <= length; i++) {
        size_t same = 0;
        while (same < part.length && same_letter(text[i + same], part.at[same])) same++;
        if (same == part.length) return true;
    }
    return false;
}

static span span_of(const char *text) { return (span){text, strlen(text)}; }

/* ---- duplicates ---- */

bool clattn__device_same(const clattn__caps *a, const clattn__caps *b) {
    bool both_uuid = a->uuid[0] && b->uuid[0], both_pci = a->pci[0] && b->pci[0];
    bool same_uuid = both_uuid && strcmp(a->uuid, b->uuid) == 0;
    if (a->type != b->type) return false;
    if (same_uuid) return true;
    bool one_platform = strcmp(a->platform, b->platform) == 0;
    if (both_pci) {
        /* Two parts of one split card share the slot, but one driver gives them two numbers. */
        return strcmp(a->pci, b->pci) == 0 && !(one_platform && both_uuid);
    }
    if (both_uuid || one_platform || a->type != CLATTN_DEVICE_GPU || a->vendor != b->vendor) return false;
    /* A translation layer without any number: the name of the hardware must do. */
    if (a->runtime == CLATTN__RUNTIME_NATIVE && b->runtime == CLATTN__RUNTIME_NATIVE) return false;
    return a->name[0] && b->name[0] && (contains(a->name, span_of(b->name)) || contains(b->name, span_of(a->name)));
}

/* ---- the selector ---- */

typedef enum term_kind { TERM_INDEX, TERM_TYPE, TERM_UUID, TERM_PLATFORM, TERM_DEVICE, TERM_VENDOR } term_kind;

typedef struct term {
    term_kind kind;
    span value;
    int number; /* the index, or the clattn_device_type */
} term;

static const char grammar[] = "a selector is gpu, cpu, an index, uuid:HEX, or platform=, device= (or name=), vendor=, "
                              "type= with a value, joined by commas";

static span trimmed(span part) {
    while (part.length && isspace((unsigned char)part.at[0])) part.at++, part.length--;
    while (part.length && isspace((unsigned char)part.at[part.length - 1])) part.length--;
    return part;
}

static bool type_of_word(span word, int *type) {
    if (is_word(word, "gpu"))
        *type = CLATTN_DEVICE_GPU;
    else if (is_word(word, "cpu"))
        *type = CLATTN_DEVICE_CPU;
    else
        return false;
    return true;
}

/* Digits only. */
static bool parse_index(span word, int *index) {
    int value = 0;
    if (!word.length || word.length > 6) return false; /* no machine has a million devices */
    for (size_t i = 0; i < word.length; i++) {
        if (word.at[i] < '0' || word.at[i] > '9') return false;
        value = value * 10 + (word.at[i] - '0');
    }
    *index = value;
    return true;
}

/* Compares with 32 lower-case digits; hyphens are for the eye. digits receives how many there are, -1 for rubbish. */
static bool uuid_equals(const char *uuid, span word, int *digits) {
    bool equal = true;
    size_t length = strlen(uuid);
    *digits = 0;
    for (size_t i = 0; i < word.length; i++) {
        char c = word.at[i];
        if (c == '-') continue;
        if (!isxdigit((unsigned char)c)) {
            *digits = -1;
            return false;
        }
        if ((size_t)*digits >= length || !same_letter(uuid[*digits], c)) equal = false;
        ++*digits;
    }
    return equal && (size_t)*digits == length;
}

static clattn_status parse_pair(span part, span key, span value, term *parsed) {
    static const struct {
        const char *key;
        term_kind kind;
    } rows[] = {{"platform", TERM_PLATFORM},
                {"device", TERM_DEVICE},
                {"name", TERM_DEVICE},
                {"vendor", TERM_VENDOR},
                {"type", TERM_TYPE}};
    for (size_t i = 0; i < CLATTN__COUNT(rows); i++) {
        if (!is_word(key, rows[i].key)) continue;
        if (!value.length)
            return clattn__fail(CLATTN_INVALID_ARGUMENT, "device selector: \"%s=\" has no value", rows[i].key);
        *parsed = (term){rows[i].kind, value, 0};
        if (rows[i].kind == TERM_TYPE && !type_of_word(value, &parsed->number))
            return clattn__fail(CLATTN_INVALID_ARGUMENT, "device selector: \"type=%.*s\" must be type=gpu or type=cpu",
                                (int)value.length, value.at);
        return CLATTN_OK;
    }
    return clattn__fail(CLATTN_INVALID_ARGUMENT, "device selector: unknown key in \"%.*s\"; %s", (int)part.length,
                        part.at, grammar);
}

static clattn_status parse_term(span part, term *parsed) {
    static const char uuid_mark[] = "uuid:";
    int digits;
    if (!part.length)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "device selector: nothing between two commas or at an end; %s",
                            grammar);
    *parsed = (term){.kind = TERM_TYPE};
    if (type_of_word(part, &parsed->number)) return CLATTN_OK;
    *parsed = (term){.kind = TERM_INDEX};
    if (parse_index(part, &parsed->number)) return CLATTN_OK;
    if (part.length >= 5 && is_word((span){part.at, 5}, uuid_mark)) {
        *parsed = (term){TERM_UUID, trimmed((span){part.at + 5, part.length - 5}), 0};
        uuid_equals("", parsed->value, &digits);
        if (digits == 32) return CLATTN_OK;
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "device selector: \"%.*s\" must be uuid: and 32 hex digits",
                            (int)part.length, part.at);
    }
    const char *equals = memchr(part.at, '=', part.length);
    if (equals) {
        size_t length = (size_t)(equals - part.at);
        return parse_pair(part, trimmed((span){part.at, length}), trimmed((span){equals + 1, part.length - length - 1}),
                          parsed);
    }
    return clattn__fail(CLATTN_INVALID_ARGUMENT, "device selector: \"%.*s\" is no kind and no index; %s",
                        (int)part.length, part.at, grammar);
}

static bool vendor_matches(const clattn__caps *caps, span word) {
    static const struct {
        const char *word;
        clattn__vendor vendor;
    } vendors[] = {{"amd", CLATTN__VENDOR_AMD},           {"intel", CLATTN__VENDOR_INTEL},
                   {"nvidia", CLATTN__VENDOR_NVIDIA},     {"arm", CLATTN__VENDOR_ARM},
                   {"qualcomm", CLATTN__VENDOR_QUALCOMM}, {"apple", CLATTN__VENDOR_APPLE}};
    static const struct {
        const char *word;
        clattn__runtime runtime;
    } runtimes[] = {{"pocl", CLATTN__RUNTIME_POCL},
                    {"rusticl", CLATTN__RUNTIME_RUSTICL},
                    {"clover", CLATTN__RUNTIME_CLOVER},
                    {"openclon12", CLATTN__RUNTIME_OPENCLON12},
                    {"oclgrind", CLATTN__RUNTIME_OCLGRIND}};
    for (size_t i = 0; i < CLATTN__COUNT(vendors); i++) {
        if (is_word(word, vendors[i].word)) return caps->vendor == vendors[i].vendor;
    }
    for (size_t i = 0; i < CLATTN__COUNT(runtimes); i++) {
        if (is_word(word, runtimes[i].word)) return caps->runtime == runtimes[i].runtime;
    }
    return contains(caps->vendor_text, word);
}

static bool term_matches(const term *wanted, const clattn__caps *caps, int index) {
    int digits;
    switch (wanted->kind) {
    case TERM_INDEX:
        return wanted->number == index;
    case TERM_TYPE:
        return wanted->number == (int)caps->type;
    case TERM_UUID:
        return caps->uuid[0] && uuid_equals(caps->uuid, wanted->value, &digits);
    case TERM_PLATFORM:
        return contains(caps->platform, wanted->value);
    case TERM_DEVICE:
        return contains(caps->name, wanted->value);
    case TERM_VENDOR:
        return vendor_matches(caps, wanted->value);
    }
    return false;
}

/* The next comma-separated piece; *at moves behind it and becomes NULL at the end. */
static span next_part(const char **at) {
    const char *start = *at, *comma = strchr(start, ',');
    *at = comma ? comma + 1 : NULL;
    return trimmed((span){start, comma ? (size_t)(comma - start) : strlen(start)});
}

static clattn_status check_selector(const char *selector) {
    for (const char *at = selector; at;) {
        term parsed;
        clattn_status status = parse_term(next_part(&at), &parsed);
        if (status) return status;
    }
    return CLATTN_OK;
}

/* The selector is known to parse. */
static bool selector_matches(const char *selector, const clattn__caps *caps, int index) {
    for (const char *at = selector; at;) {
        term wanted = {0};
        parse_term(next_part(&at), &wanted);
        if (!term_matches(&wanted, caps, index)) return false;
    }
    return true;
}

/* Appends what could have been chosen. */
static clattn_status with_list(clattn_status status, const clattn__device *devices, int count) {
    clattn__fail_note(count ? "; the devices are:"
                            : "; there is none at all: install an OpenCL driver, for example pocl-opencl-icd");
    for (int i = 0; i < count; i++) {
        const clattn__caps *caps = &devices[i].caps;
        clattn__fail_note("\n  %d: %s [%s]%s", i, caps->name, caps->platform,
                          caps->quirks & CLATTN__QUIRK_NEVER_PICK ? " (only when named)" : "");
    }
    return status;
}

clattn_status clattn__device_select(const clattn__device *devices, int count, const char *selector, int *index) {
    bool unasked = !selector || !selector[0];
    *index = -1;
    if (!unasked) {
        clattn_status status = check_selector(selector);
        if (status) return with_list(status, devices, count);
    }
    for (int i = 0; i < count; i++) {
        const clattn__caps *caps = &devices[i].caps;
        if (unasked ? caps->quirks & CLATTN__QUIRK_NEVER_PICK : !selector_matches(selector, caps, i)) continue;
        *index = i;
        return CLATTN_OK;
    }
    if (unasked)
        clattn__fail(CLATTN_NO_DEVICE, "no OpenCL device to pick");
    else
        clattn__fail(CLATTN_NO_DEVICE, "no OpenCL device matches the selector \"%s\"", selector);
    return with_list(CLATTN_NO_DEVICE, devices, count);
}
