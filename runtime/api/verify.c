#include "clattn/verify.h"

#include "registry/registry.h"

clattn_status clattn_verify(clattn_context *context, clattn_verify_fn report, void *user) {
    if (!context) return clattn__fail(CLATTN_INVALID_ARGUMENT, "context is NULL");
    return clattn__verify_all(context, report, user);
}
