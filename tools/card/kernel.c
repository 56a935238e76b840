/* Kernels and their arguments, whose number and sizes the PTX tells. */
#include "card.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

/* Behind the "(" of `.entry NAME (`; NULL without such a kernel. */
static const char *entry_of(const char *ptx, const char *name) {
    const size_t length = strlen(name);
    for (const char *at = strstr(ptx, ".entry"); at; at = strstr(at + 1, ".entry")) {
        const char *word = at + strlen(".entry");
        word += strspn(word, " \t\n");
        if (strncmp(word, name, length) != 0) continue;
        word += length;
        word += strspn(word, " \t\n");
        if (*word == '(') return word + 1;
    }
    return NULL;
}

/* One of `.param .u64 NAME`, `.param .align 8 .b8 NAME[472]`, `.param .f32 NAME`. */
static bool read_param(const char *text, size_t length, card_param *param) {
    char line[256];
    size_t unit = 0;
    if (length >= sizeof line) return false;
    memcpy(line, text, length);
    line[length] = '\0';
    for (const char *dot = strchr(line, '.'); dot; dot = strchr(dot + 1, '.')) /* .u32 .s64 .f32 .b8 */
        if (strchr("usfb", dot[1]) && dot[1] && isdigit((unsigned char)dot[2])) unit = (size_t)atoi(dot + 2) / 8;
    const char *bracket = strchr(line, '[');
    param->bytes = unit * (bracket ? (size_t)atoi(bracket + 1) : 1);
    return param->bytes > 0;
}

static bool read_params(cl_kernel kernel, const char *text) {
    const char *end = strchr(text, ')');
    size_t used = 0;
    while (end && text < end) {
        const size_t length = strcspn(text, ",)");
        card_param *param = &kernel->params[kernel->count];
        if (strspn(text, " \t\n") < length) { /* else there are none */
            if (kernel->count == CARD_PARAMS || !read_param(text, length, param)) return false;
            param->offset = used;
            used += (param->bytes + 15) / 16 * 16;
            if (used > sizeof kernel->values) return false;
            kernel->count++;
        }
        text += length + 1;
    }
    return end != NULL;
}

cl_kernel card_CreateKernel(cl_program program, const char *name, cl_int *code) {
    if (!program->module) return card_set(code, CL_INVALID_PROGRAM_EXECUTABLE), NULL;
    const char *text = entry_of(program->ptx, name);
    if (!text) return card_set(code, CL_INVALID_KERNEL_NAME), NULL;
    cl_kernel kernel = card_object(sizeof *kernel, code);
    if (!kernel) return NULL;
    snprintf(kernel->name, sizeof kernel->name, "%s", name);
    cl_int failed = read_params(kernel, text) ? CL_SUCCESS : CL_INVALID_KERNEL_DEFINITION;
    card_enter();
    if (failed == CL_SUCCESS &&
        card_result(cuda.module_function(&kernel->function, program->module, name), "cuModuleGetFunction"))
        failed = CL_INVALID_KERNEL_NAME;
    if (card_set(code, failed) != CL_SUCCESS) return free(kernel), NULL;
    kernel->program = program;
    CARD_RETAIN(program);
    return kernel;
}

cl_int card_RetainKernel(cl_kernel kernel) { return CARD_RETAIN(kernel); }

cl_int card_ReleaseKernel(cl_kernel kernel) {
    if (!CARD_LAST(kernel)) return CL_SUCCESS;
    card_ReleaseProgram(kernel->program);
    free(kernel);
    return CL_SUCCESS;
}

cl_int card_SetKernelArg(cl_kernel kernel, cl_uint slot, size_t bytes, const void *value) {
    if (slot >= kernel->count) return CL_INVALID_ARG_INDEX;
    card_param *param = &kernel->params[slot];
    if (bytes != param->bytes) return CL_INVALID_ARG_SIZE;
    if (!value) return CL_INVALID_ARG_VALUE; /* local memory: no kernel of clattn has it as an argument */
    memcpy(kernel->values + param->offset, value, bytes);
    /* PTX does not tell buffers from integers; what is a buffer's handle is taken for one. */
    cl_mem mem;
    if (bytes == sizeof mem) {
        memcpy(&mem, value, sizeof mem);
        if (card_is_buffer(mem)) memcpy(kernel->values + param->offset, &mem->memory, sizeof mem->memory);
    }
    param->set = true;
    return CL_SUCCESS;
}

cl_int card_GetKernelInfo(cl_kernel kernel, cl_kernel_info what, size_t room, void *to, size_t *got) {
    switch (what) {
    case CL_KERNEL_FUNCTION_NAME:
        return card_reply(kernel->name, strlen(kernel->name) + 1, room, to, got);
    case CL_KERNEL_NUM_ARGS:
        return CARD_REPLY(cl_uint, kernel->count);
    case CL_KERNEL_REFERENCE_COUNT:
        return CARD_REPLY(cl_uint, (cl_uint)kernel->references);
    case CL_KERNEL_CONTEXT:
        return CARD_REPLY(cl_context, kernel->program->context);
    case CL_KERNEL_PROGRAM:
        return CARD_REPLY(cl_program, kernel->program);
    default:
        return CL_INVALID_VALUE;
    }
}

static size_t attribute(cl_kernel kernel, int which) {
    int value = 0;
    card_enter();
    return cuda.function_attribute(&value, which, kernel->function) == 0 ? (size_t)value : 0;
}

cl_int card_GetKernelWorkGroupInfo(cl_kernel kernel, cl_device_id device, cl_kernel_work_group_info what, size_t room,
                                   void *to, size_t *got) {
    static const size_t any[3] = {0, 0, 0};
    (void)device;
    switch (what) {
    case CL_KERNEL_WORK_GROUP_SIZE:
        return CARD_REPLY(size_t, attribute(kernel, CUDA_FUNC_MAX_THREADS));
    case CL_KERNEL_LOCAL_MEM_SIZE:
        return CARD_REPLY(cl_ulong, attribute(kernel, CUDA_FUNC_SHARED_BYTES));
    case CL_KERNEL_PRIVATE_MEM_SIZE:
        return CARD_REPLY(cl_ulong, attribute(kernel, CUDA_FUNC_LOCAL_BYTES));
    case CL_KERNEL_PREFERRED_WORK_GROUP_SIZE_MULTIPLE:
        return CARD_REPLY(size_t, 32);
    case CL_KERNEL_COMPILE_WORK_GROUP_SIZE:
        return card_reply(any, sizeof any, room, to, got);
    default:
        return CL_INVALID_VALUE;
    }
}
