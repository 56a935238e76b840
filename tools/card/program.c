/* Programs: PTX in the place of compiled source. */
#include "card.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/base.h"

static char *format(const char *text, const char *a, const char *b, const char *c) {
    const size_t bytes = strlen(text) + strlen(a) + strlen(b) + strlen(c) + 1;
    char *made = malloc(bytes);
    if (made) snprintf(made, bytes, text, a, b, c);
    return made;
}

static char *read_file(const char *path) {
    FILE *file = path ? fopen(path, "rb") : NULL;
    char *text = NULL;
    long bytes = -1;
    if (file && fseek(file, 0, SEEK_END) == 0) bytes = ftell(file);
    if (bytes >= 0) text = calloc((size_t)bytes + 1, 1);
    if (text && (fseek(file, 0, SEEK_SET) != 0 || fread(text, 1, (size_t)bytes, file) != (size_t)bytes)) {
        free(text);
        text = NULL;
    }
    if (file) fclose(file);
    return text;
}

static cl_program create(cl_context context, cl_int *code) {
    cl_program program = card_object(sizeof *program, code);
    if (!program) return NULL;
    program->context = context;
    program->status = CL_BUILD_NONE;
    CARD_RETAIN(context);
    return program;
}

static char *joined(cl_uint count, const char **texts, const size_t *lengths) {
    size_t bytes = 1;
    for (cl_uint i = 0; i < count; i++) bytes += lengths && lengths[i] ? lengths[i] : strlen(texts[i]);
    char *all = calloc(bytes, 1), *end = all;
    for (cl_uint i = 0; all && i < count; i++) {
        const size_t length = lengths && lengths[i] ? lengths[i] : strlen(texts[i]);
        memcpy(end, texts[i], length);
        end += length;
    }
    return all;
}

cl_program card_CreateProgramWithSource(cl_context context, cl_uint count, const char **texts, const size_t *lengths,
                                        cl_int *code) {
    cl_program program = create(context, code);
    if (!program) return NULL;
    program->source = joined(count, texts, lengths);
    if (program->source) return program;
    card_ReleaseProgram(program);
    return card_set(code, CL_OUT_OF_HOST_MEMORY), NULL;
}

cl_program card_CreateProgramWithBinary(cl_context context, cl_uint count, const cl_device_id *devices,
                                        const size_t *lengths, const unsigned char **binaries, cl_int *states,
                                        cl_int *code) {
    (void)devices;
    if (count != 1 || lengths[0] == 0) return card_set(code, CL_INVALID_VALUE), NULL;
    cl_program program = create(context, code);
    if (!program) return NULL;
    const char *text = (const char *)binaries[0];
    program->ptx = joined(1, &text, lengths);
    if (states) *states = CL_SUCCESS;
    if (program->ptx) return program;
    card_ReleaseProgram(program);
    return card_set(code, CL_OUT_OF_HOST_MEMORY), NULL;
}

cl_int card_RetainProgram(cl_program program) { return CARD_RETAIN(program); }

cl_int card_ReleaseProgram(cl_program program) {
    if (!CARD_LAST(program)) return CL_SUCCESS;
    card_enter();
    if (program->module) cuda.module_unload(program->module);
    card_ReleaseContext(program->context);
    free(program->source);
    free(program->ptx);
    free(program->log);
    free(program);
    return CL_SUCCESS;
}

/* ---- builds ------------------------------------------------------------------------------------------------------ */

/* For the next time: the source, and the options in a line before it. */
static void keep_missing(const char *key, const char *options, const char *source) {
    const char *folder = getenv("CLATTN_CARD_MISSING");
    char *path = folder ? format("%s/%s.cl%s", folder, key, "") : NULL;
    FILE *file = path ? fopen(path, "w") : NULL;
    if (file) fprintf(file, "//options %s\n%s", options, source);
    if (file) fclose(file);
    free(path);
}

static void find_ptx(cl_program program, const char *options) {
    const char *folder = getenv("CLATTN_CARD_PTX");
    char *text = format("%s\n%s%s", options, program->source, ""), key[33];
    if (!text) return;
    clattn__hash_hex(text, strlen(text), key);
    free(text);
    char *path = format("%s/%s.ptx%s", folder ? folder : ".", key, "");
    program->ptx = read_file(path);
    free(path);
    if (program->ptx) return;
    keep_missing(key, options, program->source);
    program->log =
        format("no PTX was made of this program: %s has no %s.ptx%s", folder ? folder : "$CLATTN_CARD_PTX", key, "");
}

static cl_int load(cl_program program) {
    char info[8192] = "", error[8192] = "";
    int options[] = {CUDA_JIT_INFO, CUDA_JIT_INFO_BYTES, CUDA_JIT_ERROR, CUDA_JIT_ERROR_BYTES};
    void *values[] = {info, (void *)sizeof info, error, (void *)sizeof error}; /* sizes in the place of pointers */
    card_enter();
    const CUresult result = cuda.module_load(&program->module, program->ptx, 4, options, values);
    program->log = format("%s%s%s", info, error, "");
    if (result == 0) return CL_SUCCESS;
    program->module = NULL;
    card_result(result, "cuModuleLoadDataEx");
    return CL_BUILD_PROGRAM_FAILURE;
}

cl_int card_BuildProgram(cl_program program, cl_uint count, const cl_device_id *devices, const char *options,
                         void(CL_CALLBACK *notify)(cl_program, void *), void *user) {
    (void)count, (void)devices;
    if (notify) return CL_INVALID_OPERATION;
    (void)user;
    if (program->module) return CL_SUCCESS;
    free(program->log);
    program->log = NULL;
    if (!program->ptx) find_ptx(program, options ? options : "");
    const cl_int code = program->ptx ? load(program) : CL_BUILD_PROGRAM_FAILURE;
    program->status = code == CL_SUCCESS ? CL_BUILD_SUCCESS : CL_BUILD_ERROR;
    return code;
}

/* ---- queries ----------------------------------------------------------------------------------------------------- */

static cl_int give_binary(cl_program program, size_t room, unsigned char **to, size_t *got) {
    if (got) *got = sizeof *to;
    if (!to) return CL_SUCCESS;
    if (room < sizeof *to || !program->ptx) return CL_INVALID_VALUE;
    if (to[0]) memcpy(to[0], program->ptx, strlen(program->ptx));
    return CL_SUCCESS;
}

cl_int card_GetProgramInfo(cl_program program, cl_program_info what, size_t room, void *to, size_t *got) {
    switch (what) {
    case CL_PROGRAM_REFERENCE_COUNT:
        return CARD_REPLY(cl_uint, (cl_uint)program->references);
    case CL_PROGRAM_CONTEXT:
        return CARD_REPLY(cl_context, program->context);
    case CL_PROGRAM_NUM_DEVICES:
        return CARD_REPLY(cl_uint, 1);
    case CL_PROGRAM_DEVICES:
        return CARD_REPLY(cl_device_id, &card_device);
    case CL_PROGRAM_BINARY_SIZES:
        return CARD_REPLY(size_t, program->ptx ? strlen(program->ptx) : 0);
    case CL_PROGRAM_BINARIES:
        return give_binary(program, room, to, got);
    default:
        return CL_INVALID_VALUE;
    }
}

cl_int card_GetProgramBuildInfo(cl_program program, cl_device_id device, cl_program_build_info what, size_t room,
                                void *to, size_t *got) {
    const char *log = program->log ? program->log : "";
    (void)device;
    switch (what) {
    case CL_PROGRAM_BUILD_STATUS:
        return CARD_REPLY(cl_build_status, program->status);
    case CL_PROGRAM_BUILD_LOG:
        return card_reply(log, strlen(log) + 1, room, to, got);
    default:
        return CL_INVALID_VALUE;
    }
}
