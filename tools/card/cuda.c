/* Finds libcuda. */
#include "card.h"

#include <dlfcn.h>
#include <stdio.h>

card_cuda cuda;

bool card_cuda_load(void) {
    typedef void (*function)(void);
    static const char *const names[] = {
#define NAME(member, symbol, arguments) #symbol,
        CARD_CUDA_FUNCTIONS(NAME)
#undef NAME
    };
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "clattn_card: %s\n", dlerror());
        return false;
    }
    function found[sizeof names / sizeof names[0]];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        union {
            void *object;
            function code;
        } symbol = {dlsym(library, names[i])};
        if (!symbol.object) {
            fprintf(stderr, "clattn_card: libcuda.so.1 has no %s\n", names[i]);
            return false;
        }
        found[i] = symbol.code;
    }
    size_t next = 0;
#define SET(member, symbol, arguments) cuda.member = (CUresult(*) arguments)found[next++];
    CARD_CUDA_FUNCTIONS(SET)
#undef SET
    return card_result(cuda.init(0), "cuInit") == CL_SUCCESS;
}

cl_int card_result(CUresult result, const char *call) {
    const char *name = NULL;
    if (result == 0) return CL_SUCCESS;
    if (cuda.error_name(result, &name) != 0 || !name) name = "an unknown error";
    fprintf(stderr, "clattn_card: %s gave %s (%d)\n", call, name, result);
    switch (result) {
    case CUDA_OUT_OF_MEMORY:
        return CL_MEM_OBJECT_ALLOCATION_FAILURE;
    case CUDA_ILLEGAL_ADDRESS:
        return CARD_ILLEGAL_ACCESS;
    default:
        return CL_OUT_OF_RESOURCES;
    }
}
