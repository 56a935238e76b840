/* A device that claims to be another one, or a smaller one: the capabilities that kernels are chosen by are overwritten
 * after they were queried. Nothing else is pretended: programs are built and run by the device that is there. */
#include "../../cl/shared/matrix.h"
#include "device/device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const type_names[] = {
    [CLATTN_DEVICE_CPU] = "cpu", [CLATTN_DEVICE_GPU] = "gpu", [CLATTN_DEVICE_OTHER] = "other"};

static clattn_status refuse(const char *key, const char *value, const char *rule) {
    return clattn__fail(CLATTN_INVALID_ARGUMENT, "options.pretend: %s is \"%s\"; it must be %s", key, value, rule);
}

static clattn_status set_number(const char *key, const char *value, uint64_t low, uint64_t high, uint64_t *number) {
    char *end;
    errno = 0;
    const unsigned long long parsed = strtoull(value, &end, 10);
    if (value[0] < '0' || value[0] > '9' || *end != '\0' || errno || parsed < low || parsed > high)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "options.pretend: %s is \"%s\"; it must be a number in %llu..%llu",
                            key, value, (unsigned long long)low, (unsigned long long)high);
    *number = parsed;
    return CLATTN_OK;
}

static clattn_status set_type(clattn__caps *caps, const char *value) {
    for (size_t i = 0; i < CLATTN__COUNT(type_names); i++) {
        if (strcmp(value, type_names[i]) != 0) continue;
        caps->type = (clattn_device_type)i;
        return CLATTN_OK;
    }
    return refuse("type", value, "cpu, gpu or other");
}

static clattn_status set_text(char **text, const char *value) {
    char *copy = clattn__strdup(value);
    if (!copy) return CLATTN_OUT_OF_MEMORY;
    clattn__free(*text);
    *text = copy;
    return CLATTN_OK;
}

/* "nv:80", "wmma11": an engine, and for NVIDIA the architecture. */
static clattn_status set_matrix(clattn__caps *caps, const char *value) {
    char name[16] = "";
    const size_t length = strcspn(value, ":");
    if (length < sizeof name) memcpy(name, value, length);
    const clattn__matrix matrix = {.engine = clattn__matrix_named(name),
                                   .arch = value[length] ? atoi(value + length + 1) : 0};
    if (matrix.engine == MATRIX_NONE || (matrix.engine == MATRIX_NV && matrix.arch < 75))
        return refuse("matrix", value, "nv:ARCH (75 at least), wmma11, wmma12, mfma32, dpas8 or dpas16");
    caps->matrix = matrix;
    caps->matrix_engine = clattn__matrix_brand(matrix.engine);
    return CLATTN_OK;
}

static clattn_status set_one(clattn__caps *caps, const char *key, const char *value) {
    uint64_t number = 0;
    clattn_status status;
    if (strcmp(key, "type") == 0) return set_type(caps, value);
    if (strcmp(key, "matrix") == 0) return set_matrix(caps, value);
    if (strcmp(key, "name") == 0) return set_text(&caps->name, value);
    if (strcmp(key, "vendor") == 0) {
        caps->vendor = clattn__vendor_of(value, 0);
        return set_text(&caps->vendor_text, value);
    }
    if (strcmp(key, "platform") == 0) {
        caps->runtime = clattn__runtime_of(value);
        return set_text(&caps->platform, value);
    }
    if (strcmp(key, "local_memory") == 0) return set_number(key, value, 0, UINT64_MAX, &caps->local_memory);
    if (strcmp(key, "second_cache") == 0) return set_number(key, value, 0, UINT32_MAX, &caps->second_cache);
    if (strcmp(key, "work_group") == 0) {
        status = set_number(key, value, 1, UINT32_MAX, &caps->max_work_group);
        for (int i = 0; i < 3 && status == CLATTN_OK; i++) caps->max_item_sizes[i] = (size_t)caps->max_work_group;
        return status;
    }
    if (strcmp(key, "compute_units") == 0) {
        status = set_number(key, value, 1, 1 << 20, &number);
        if (status == CLATTN_OK) caps->compute_units = (uint32_t)number;
        return status;
    }
    if (strcmp(key, "clock_mhz") == 0) {
        status = set_number(key, value, 1, 100000, &number);
        if (status == CLATTN_OK) caps->clock_mhz = (uint32_t)number;
        return status;
    }
    if (strcmp(key, "lanes") == 0) {
        if (strcmp(value, "4") != 0 && strcmp(value, "8") != 0 && strcmp(value, "16") != 0)
            return refuse(key, value, "4, 8 or 16");
        caps->vector_width = (uint32_t)atoi(value);
        return CLATTN_OK;
    }
    if (strcmp(key, "subgroups") == 0 || strcmp(key, "fp16") == 0) {
        status = set_number(key, value, 0, 1, &number);
        if (status == CLATTN_OK) *(key[0] == 's' ? &caps->subgroups : &caps->fp16) = number != 0;
        if (!caps->subgroups) caps->subgroup_lanes = 0;
        return status;
    }
    if (strcmp(key, "subgroup_lanes") == 0) {
        if (strcmp(value, "0") != 0 && strcmp(value, "8") != 0 && strcmp(value, "16") != 0 && strcmp(value, "32") != 0)
            return refuse(key, value, "0, 8, 16 or 32");
        caps->subgroup_lanes = (uint32_t)atoi(value);
        return CLATTN_OK;
    }
    return clattn__fail(
        CLATTN_INVALID_ARGUMENT,
        "options.pretend: there is no key \"%s\"; the keys are type, name, vendor, platform, "
        "local_memory, second_cache, work_group, compute_units, clock_mhz, lanes, subgroups, subgroup_lanes, fp16 and "
        "matrix",
        key);
}

clattn_status clattn__caps_pretend(clattn__caps *caps, const char *text) {
    char *words = clattn__strdup(text);
    if (!words) return CLATTN_OUT_OF_MEMORY;
    clattn_status status = CLATTN_OK;
    for (char *word = words; word && status == CLATTN_OK;) {
        char *next = strchr(word, ',');
        if (next) *next++ = '\0';
        char *value = strchr(word, '=');
        if (!value) {
            status = clattn__fail(CLATTN_INVALID_ARGUMENT, "options.pretend: \"%s\" is not key=value", word);
            break;
        }
        *value++ = '\0';
        status = set_one(caps, word, value);
        word = next;
    }
    clattn__free(words);
    if (status == CLATTN_OK) caps->quirks = clattn__quirks_of(caps);
    return status;
}
