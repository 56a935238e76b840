/* What the host halves of the kernels on matrix engines share: the engines, refusals, build options. */
#include "../../cl/shared/matrix.h"

#include "kernels/matrix.h"

static const clattn__matrix_engine engines[] = {
    [MATRIX_NV] = {16, 16, 32},     [MATRIX_WMMA11] = {16, 16, 32}, [MATRIX_WMMA12] = {16, 16, 32},
    [MATRIX_MFMA32] = {32, 32, 64}, [MATRIX_DPAS8] = {8, 8, 8},     [MATRIX_DPAS16] = {16, 8, 16},
};

const clattn__matrix_engine *clattn__matrix_engine_of(const clattn__caps *caps) {
    return &engines[caps->matrix.engine];
}

bool clattn__matrix_serves(clattn_dtype dtype, const clattn__caps *caps, clattn__refusal *why) {
    const clattn__matrix *matrix = &caps->matrix;
    if (matrix->engine == MATRIX_NONE) return clattn__refuse(why, "the device has no matrix engine that it drives");
    if (dtype == CLATTN_F32) return clattn__refuse(why, "matrix engines take 16-bit operands; the tensors are float32");
    if (dtype == CLATTN_BF16 && matrix->engine == MATRIX_NV && !matrix->emulated && matrix->arch < 80)
        return clattn__refuse(why, "bfloat16 needs compute capability 8.0; the device has %d.%d", matrix->arch / 10,
                              matrix->arch % 10);
    return true;
}

size_t clattn__matrix_exchange(const clattn__caps *caps, int waves) {
    const int lanes = clattn__matrix_engine_of(caps)->lanes;
    return caps->matrix.emulated ? (size_t)waves * (size_t)(32 * 16 * 4 + lanes * 8 * 4) : 0;
}

void clattn__matrix_options(clattn__options *options, const clattn__caps *caps) {
    const clattn__matrix *matrix = &caps->matrix;
    clattn__options_int(options, "MATRIX_ENGINE", matrix->engine);
    clattn__options_int(options, "MMA_EMULATE", matrix->emulated);
    if (matrix->emulated) {
        clattn__options_int(options, "MMA_EMULATE_SUBGROUPS", matrix->subgroups);
        clattn__options_int(options, "MMA_COPY_LATE", matrix->subgroups ? 0 : 1);
        return;
    }
    if (matrix->engine == MATRIX_NV) clattn__options_int(options, "PTX_ARCH", matrix->arch);
    if (matrix->engine == MATRIX_DPAS8 || matrix->engine == MATRIX_DPAS16) /* 256 registers per thread */
        clattn__options_raw(options, "-cl-intel-256-GRF-per-thread");
}
