/* Names of matrix engines, and the context's wish about them: none, or one emulated in OpenCL C 1.2 on any device. */
#include "../../cl/shared/matrix.h"
#include "device/device.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name, *brand;
    int engine;
} engines[] = {
    {"nv", "tensor cores", MATRIX_NV}, {"wmma11", "WMMA", MATRIX_WMMA11}, {"wmma12", "WMMA", MATRIX_WMMA12},
    {"mfma32", "MFMA", MATRIX_MFMA32}, {"dpas8", "XMX", MATRIX_DPAS8},    {"dpas16", "XMX", MATRIX_DPAS16},
};

int clattn__matrix_named(const char *name) {
    for (size_t i = 0; i < CLATTN__COUNT(engines); i++)
        if (strcmp(name, engines[i].name) == 0) return engines[i].engine;
    return MATRIX_NONE;
}

const char *clattn__matrix_brand(int engine) {
    for (size_t i = 0; i < CLATTN__COUNT(engines); i++)
        if (engines[i].engine == engine) return engines[i].brand;
    return "";
}

static clattn_status unknown(const char *wanted) {
    clattn__text names = {0};
    for (size_t i = 0; i < CLATTN__COUNT(engines); i++)
        clattn__text_add(&names, ", emulated:%s, emulated-subgroups:%s", engines[i].name, engines[i].name);
    clattn_status status = clattn__fail(CLATTN_INVALID_ARGUMENT, "options.matrix_engine is \"%s\"; it must be none%s",
                                        wanted, names.data ? names.data : "");
    clattn__text_free(&names);
    return status;
}

clattn_status clattn__matrix_override(clattn__caps *caps, const char *wanted) {
    if (!wanted) return CLATTN_OK;
    clattn__matrix matrix = {.engine = MATRIX_NONE};
    if (strcmp(wanted, "none") == 0) {
        caps->matrix = matrix;
        caps->matrix_engine = "";
        return CLATTN_OK;
    }
    const char *colon = strchr(wanted, ':');
    if (!colon) return unknown(wanted);
    const size_t length = (size_t)(colon - wanted);
    matrix.emulated = true;
    matrix.subgroups = length == strlen("emulated-subgroups") && strncmp(wanted, "emulated-subgroups", length) == 0;
    if (!matrix.subgroups && !(length == strlen("emulated") && strncmp(wanted, "emulated", length) == 0))
        return unknown(wanted);
    matrix.engine = clattn__matrix_named(colon + 1);
    if (matrix.engine == MATRIX_NONE) return unknown(wanted);
    if (matrix.subgroups && !strstr(caps->extensions, "cl_intel_required_subgroup_size"))
        return clattn__fail(CLATTN_UNSUPPORTED,
                            "options.matrix_engine \"%s\" needs sub-groups of a fixed size "
                            "(cl_intel_required_subgroup_size), which %s does not offer",
                            wanted, caps->name);
    caps->matrix = matrix;
    caps->matrix_engine = "emulated";
    return CLATTN_OK;
}
