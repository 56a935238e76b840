#include "clattn/verify.h"

#include "api/rules.h"
#include "registry/registry.h"

#include <string.h>

clattn_status clattn_verify(clattn_context *context, clattn_verify_fn report, void *user) {
    return clattn_verify_with(context, NULL, report, user);
}

clattn_status clattn_verify_with(clattn_context *context, const clattn_verify_options *options, clattn_verify_fn report,
                                 void *user) {
    clattn_verify_options o;
    clattn_verify_options_init(&o);
    if (!context) return clattn__fail(CLATTN_INVALID_ARGUMENT, "context is NULL");
    if (options) {
        clattn_status status =
            clattn__check_struct_size("clattn_verify_options", options->struct_size, sizeof *options, sizeof *options);
        if (status != CLATTN_OK) return status;
        memcpy(&o, options, options->struct_size);
        if (o.most < 0)
            return clattn__fail(CLATTN_INVALID_ARGUMENT, "options.most is %d; it must be >= 0, 0 for all", o.most);
    }
    return clattn__verify_all(context, &o, report, user);
}

clattn_status clattn_kernel_sources(clattn_context *context, clattn_source_fn report, void *user) {
    if (!context || !report) return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is NULL", context ? "report" : "context");
    return clattn__kernel_sources(context, report, user);
}

int clattn_kernel_count(void) {
    int count = 0;
    for (int i = 0; clattn__attn_list[i]; i++) count++;
    for (int i = 0; clattn__gemm_list[i]; i++) count++;
    return count;
}

clattn_status clattn_kernel_get(int index, clattn_kernel_info *info) {
    if (!info) return clattn__fail(CLATTN_INVALID_ARGUMENT, "info is NULL");
    if (index < 0 || index >= clattn_kernel_count())
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "index is %d; there are %d kernels", index, clattn_kernel_count());
    int attention = 0;
    while (clattn__attn_list[attention]) attention++;
    if (index < attention) {
        const clattn__attn_impl *impl = clattn__attn_list[index];
        *info = (clattn_kernel_info){impl->name, "attention", impl->what, impl->features};
    } else {
        const clattn__gemm_impl *impl = clattn__gemm_list[index - attention];
        *info = (clattn_kernel_info){impl->name, "projection", impl->what, 0};
    }
    return CLATTN_OK;
}

const char *clattn_feature_name(int index) {
    switch (index) {
#define CASE(name, bit, text)                                                                                          \
    case bit:                                                                                                          \
        return text;
        CLATTN__FEATURE_MAP(CASE)
#undef CASE
    }
    return NULL;
}
