/* The last resort: the scalar reference on the host, over mapped buffers. Serves every device and every feature. */
#include <limits.h>
#include <stdio.h>

#include "kernels/impl.h"
#include "ref/ref.h"

/* The buffers of one call. The plan keeps many tensors in one arena, and mapping a region twice while it is written is
 * undefined, so each cl_mem is mapped once, whole, for all its tensors. */
typedef struct mapping {
    cl_mem mem;
    unsigned char *data;
} mapping;

typedef struct mappings {
    clattn__env *env;
    mapping list[ATTN_SLOTS];
    int count;
    clattn_status status; /* of the first map that failed; later ones are not tried */
} mappings;

static unsigned char *map_buffer(mappings *maps, cl_mem mem) {
    for (int n = 0; n < maps->count; n++)
        if (maps->list[n].mem == mem) return maps->list[n].data;
    if (maps->status != CLATTN_OK) return NULL;
    const char *device = maps->env->device.caps.name;
    size_t bytes = 0;
    cl_int code = clGetMemObjectInfo(mem, CL_MEM_SIZE, sizeof bytes, &bytes, NULL);
    if (code != CL_SUCCESS) {
        maps->status = clattn__cl_fail(code, "clGetMemObjectInfo(CL_MEM_SIZE)", device);
        return NULL;
    }
    /* Outputs may have gaps that must survive, so they are mapped for reading too. */
    unsigned char *data =
        clEnqueueMapBuffer(maps->env->queue, mem, CL_TRUE, CL_MAP_READ | CL_MAP_WRITE, 0, bytes, 0, NULL, NULL, &code);
    if (code != CL_SUCCESS) {
        maps->status = clattn__cl_fail(code, "clEnqueueMapBuffer for attn_host", device);
        return NULL;
    }
    maps->list[maps->count].mem = mem;
    maps->list[maps->count++].data = data;
    return data;
}

static clattn_status unmap_all(mappings *maps) {
    clattn_status status = maps->status;
    for (int n = 0; n < maps->count; n++) {
        cl_int code = clEnqueueUnmapMemObject(maps->env->queue, maps->list[n].mem, maps->list[n].data, 0, NULL, NULL);
        if (code != CL_SUCCESS && status == CLATTN_OK)
            status = clattn__cl_fail(code, "clEnqueueUnmapMemObject for attn_host", maps->env->device.caps.name);
    }
    return status;
}

/* Element (0, 0, 0, 0) of a tensor at `offset` elements, with its strides; absent when mem is NULL. */
static clattn__ref_array array_of(mappings *maps, cl_mem mem, clattn_dtype dtype, clattn_place place, int64_t column) {
    clattn__ref_array array = {.dtype = dtype, .stride = {place.batch, place.head, place.row, column}};
    unsigned char *data = mem ? map_buffer(maps, mem) : NULL;
    if (data) array.data = data + (size_t)place.offset * clattn_dtype_size(dtype);
    return array;
}

static clattn__ref_array vector_of(mappings *maps, cl_mem mem, clattn_dtype dtype, clattn_i64 offset) {
    const clattn_place place = {.offset = offset, .batch = 1};
    return array_of(maps, mem, dtype, place, 0);
}

static int64_t window_of(int window) { return window == INT_MAX ? -1 : window; }

/* (batch, row or column) of ints. */
static clattn__ref_array table_of(mappings *maps, cl_mem mem, clattn_i64 offset, clattn_i64 batch, int row,
                                  int column) {
    const clattn_place place = {.offset = offset, .batch = batch, .row = row};
    return array_of(maps, mem, CLATTN_I32, place, column);
}

static clattn_score score_of(uint32_t features) {
    if (features & CLATTN__SCORE_GAUSSIAN) return CLATTN_SCORE_GAUSSIAN;
    if (features & CLATTN__SCORE_ADDITIVE) return CLATTN_SCORE_ADDITIVE;
    return features & CLATTN__SCORE_LINEAR ? CLATTN_SCORE_ADDITIVE_LINEAR : CLATTN_SCORE_DOT;
}

/* What lies in the feature slots, and dropout. */
static void set_features(clattn__ref_attention *p, uint32_t features, const clattn__attn_call *call, mappings *maps) {
    const clattn_attn_args *args = &call->args;
    const cl_mem weight = features & CLATTN__SCORE_WEIGHT ? call->mem[ATTN_SCORE_WEIGHT] : NULL;
    const cl_mem bias = features & CLATTN__SCORE_BIAS ? call->mem[ATTN_SCORE_BIAS] : NULL;
    const bool documents = features & CLATTN__DOCUMENTS, packed = features & CLATTN__VARLEN;
    p->score = score_of(features);
    p->score_weight = vector_of(maps, weight, CLATTN_F32, args->score_weight_offset);
    p->score_bias = vector_of(maps, bias, CLATTN_F32, args->score_bias_offset);
    p->dropout_factor = features & CLATTN__DROPOUT ? (double)args->dropout_factor : 0;
    p->dropout_threshold = args->dropout_threshold;
    p->dropout_seed = (uint64_t)args->seed_high << 32 | args->seed_low;
    p->batch_first = args->batch_first;
    p->head_first = args->head_first;
    p->prefix =
        vector_of(maps, features & CLATTN__PREFIX ? call->mem[ATTN_PREFIX] : NULL, CLATTN_I32, args->prefix_offset);
    p->query_documents = table_of(maps, documents ? call->mem[ATTN_QUERY_DOCUMENTS] : NULL,
                                  args->query_documents_offset, args->query_documents_batch, 1, 0);
    p->key_documents = table_of(maps, documents ? call->mem[ATTN_KEY_DOCUMENTS] : NULL, args->key_documents_offset,
                                args->key_documents_batch, 0, 1);
    p->query_starts =
        vector_of(maps, packed ? call->mem[ATTN_QUERY_STARTS] : NULL, CLATTN_I32, args->query_starts_offset);
    p->key_starts = vector_of(maps, packed ? call->mem[ATTN_KEY_STARTS] : NULL, CLATTN_I32, args->key_starts_offset);
    p->query_total = args->query_total;
    p->key_total = args->key_total;
    p->align_end = args->align_end != 0;
}

static clattn__ref_attention problem_of(const clattn__attn_problem *problem, const clattn__attn_call *call,
                                        mappings *maps) {
    const clattn_attn_args *args = &call->args;
    const uint32_t features = problem->features;
    const clattn_place lse = {args->lse_offset, args->lse_batch, args->lse_head, 1};
    const clattn_place padding = {.offset = args->padding_offset, .batch = args->padding_batch};
    const bool averaged = (features & CLATTN__AVERAGED_WEIGHTS) != 0;
    const bool weights = averaged || (features & CLATTN__WEIGHTS);
    const bool mask = (features & (CLATTN__MASK_BOOL | CLATTN__MASK_FLOAT)) != 0;
    const clattn_dtype mask_dtype = features & CLATTN__MASK_FLOAT ? CLATTN_F32 : CLATTN_BOOL;
    clattn__ref_attention reference = {
        .batch = args->batch,
        .query_heads = args->query_heads,
        .kv_heads = args->kv_heads,
        .query_len = args->query_len,
        .kv_len = args->kv_len,
        .head_dim = problem->head_dim,
        .value_dim = problem->value_dim,
        .scale = (double)args->scale,
        .temperature = 1.0 / (double)args->inverse_temperature,
        .softcap = features & CLATTN__SOFTCAP ? (double)args->softcap : 0.0,
        .causal = (features & CLATTN__CAUSAL) && args->causal,
        .offset = args->causal_offset,
        .offset_from_lengths = (features & CLATTN__OFFSET_FROM_LENGTHS) != 0,
        .query_first = args->query_first,
        .window_left = features & CLATTN__WINDOW ? window_of(args->window_left) : -1,
        .window_right = features & CLATTN__WINDOW ? window_of(args->window_right) : -1,
        .mask_len = args->mask_len,
        .always_keys = features & CLATTN__ALWAYS_KEYS ? args->always_keys : 0,
        .query = array_of(maps, call->mem[ATTN_QUERY], problem->dtype, args->query, 1),
        .key = array_of(maps, call->mem[ATTN_KEY], problem->dtype, args->key, 1),
        .value = array_of(maps, call->mem[ATTN_VALUE], problem->dtype, args->value, 1),
        .mask = array_of(maps, mask ? call->mem[ATTN_MASK] : NULL, mask_dtype, args->mask, args->mask_column),
        .padding = array_of(maps, features & CLATTN__PADDING ? call->mem[ATTN_PADDING] : NULL, CLATTN_BOOL, padding, 1),
        .lengths = vector_of(maps, features & CLATTN__LENGTHS ? call->mem[ATTN_LENGTHS] : NULL, CLATTN_I32,
                             args->lengths_offset),
        .alibi =
            vector_of(maps, features & CLATTN__ALIBI ? call->mem[ATTN_ALIBI] : NULL, CLATTN_F32, args->alibi_offset),
        .sinks =
            vector_of(maps, features & CLATTN__SINKS ? call->mem[ATTN_SINKS] : NULL, CLATTN_F32, args->sinks_offset),
        .output = array_of(maps, call->mem[ATTN_OUTPUT], problem->dtype, args->output, 1),
        .lse = array_of(maps, features & CLATTN__LSE ? call->mem[ATTN_LSE] : NULL, CLATTN_F32, lse, 0),
        .weights = array_of(maps, weights ? call->mem[ATTN_WEIGHTS] : NULL, CLATTN_F32, args->weights, 1),
        .average_weights = averaged,
        .accumulate_weights = args->weights_accumulate != 0,
        .weights_factor = (double)args->weights_factor,
        .scores =
            array_of(maps, features & CLATTN__SCORES ? call->mem[ATTN_SCORES] : NULL, CLATTN_F32, args->scores, 1),
        .scores_mode = problem->scores,
    };
    static uint8_t nothing; /* a mask without any element forbids all keys, so it must not look absent */
    if (mask && !reference.mask.data) reference.mask = (clattn__ref_array){.data = &nothing, .dtype = CLATTN_BOOL};
    set_features(&reference, features, call, maps);
    return reference;
}

/* ---- keys and values of a cache ---------------------------------------------------------------------------------- */

/* Entry and row of key j; false where a table has no page for it. */
static bool find_cell(const clattn_cells *cells, const clattn__ref_array *table, int64_t b, int64_t j, int64_t *entry,
                      int64_t *row) {
    *entry = b;
    *row = j;
    if (cells->ring) {
        const int64_t overwritten = (int64_t)clattn__ref_get(table, b, 0, 0, 0) - cells->capacity;
        *row = ((overwritten > 0 ? overwritten : 0) + j) % cells->capacity;
    } else if (cells->page_size > 0) {
        *entry = (int64_t)clattn__ref_get(table, b, 0, j / cells->page_size, 0);
        *row = j % cells->page_size;
        return *entry >= 0 && *entry < cells->pages;
    }
    return true;
}

/* One of the two, side by side: (B, Hkv, Sk, width). The caller frees array->data. */
static clattn_status gather_cells(const clattn__attn_kernel *kernel, const clattn__attn_call *call, mappings *maps,
                                  bool keys, clattn__ref_array *array) {
    const clattn__attn_problem *p = &kernel->problem;
    const clattn_attn_args *a = &call->args;
    const clattn_dtype dtype = p->features & CLATTN__CELLS ? p->cells : p->dtype;
    const int64_t width = keys ? p->head_dim : p->value_dim, Hkv = a->kv_heads, Sk = a->kv_len;
    const bool looked_up = p->features & (CLATTN__PAGED | CLATTN__RING), bytes = dtype == CLATTN_I8;
    const cl_mem scale_mem = call->mem[keys ? ATTN_KEY_SCALES : ATTN_VALUE_SCALES];
    const clattn__ref_array cells =
        array_of(maps, call->mem[keys ? ATTN_KEY : ATTN_VALUE], dtype, keys ? a->key : a->value, 1);
    const clattn__ref_array scales =
        array_of(maps, bytes ? scale_mem : NULL, CLATTN_F32, keys ? a->key_scales : a->value_scales, 1);
    const clattn__ref_array table =
        array_of(maps, looked_up ? call->mem[ATTN_TABLE] : NULL, CLATTN_I32, a->cells.table, 1);
    double *to = clattn__alloc((size_t)(a->batch * Hkv * Sk * width) + 1, sizeof *to);
    *array = (clattn__ref_array){to, CLATTN__F64, {Hkv * Sk * width, Sk * width, width, 1}};
    if (!to) return CLATTN_OUT_OF_MEMORY;
    if (maps->status != CLATTN_OK) return maps->status;
    for (int64_t i = 0; i < a->batch * Sk; i++) {
        int64_t b = i / Sk, j = i % Sk, entry, row;
        if (!find_cell(&a->cells, &table, b, j, &entry, &row)) continue; /* behind the entry's length */
        for (int64_t h = 0; h < Hkv; h++) {
            const double scale = bytes ? clattn__ref_get(&scales, entry, h, row, 0) : 1;
            for (int64_t d = 0; d < width; d++)
                to[((b * Hkv + h) * Sk + j) * width + d] = scale * clattn__ref_get(&cells, entry, h, row, d);
        }
    }
    return CLATTN_OK;
}

static clattn_status run_cache(const clattn__attn_kernel *kernel, const clattn__attn_call *call, mappings *maps,
                               clattn__ref_attention *problem) {
    clattn__ref_array key = {0}, value = {0};
    clattn_status status = gather_cells(kernel, call, maps, true, &key);
    if (status == CLATTN_OK) status = gather_cells(kernel, call, maps, false, &value);
    problem->key = key;
    problem->value = value;
    if (status == CLATTN_OK) status = clattn__ref_attention_run(problem);
    clattn__free(key.data);
    clattn__free(value.data);
    return status;
}

/* ---- contract ---------------------------------------------------------------------------------------------------*/

static bool supports(const clattn__attn_problem *problem, const clattn__caps *caps, clattn__refusal *why) {
    (void)caps;
    return clattn__refuse_features(why, problem->features, clattn__attn_host.features);
}

static clattn_status prepare(clattn__attn_kernel *kernel) {
    kernel->local_items[0] = kernel->local_items[1] = kernel->local_items[2] = 1;
    kernel->block_q = kernel->block_kv = 1;
    snprintf(kernel->tiles, sizeof kernel->tiles, "scalar C in double precision on the host, row by row");
    return CLATTN_OK;
}

static clattn_status enqueue(clattn__attn_kernel *kernel, const clattn__attn_call *call) {
    const clattn_attn_args *args = &call->args;
    if (args->batch == 0 || args->query_heads == 0 || args->query_len == 0) return CLATTN_OK;
    mappings maps = {.env = kernel->programs->env};
    clattn__ref_attention problem = problem_of(&kernel->problem, call, &maps);
    const bool cached = kernel->problem.features & CLATTN__CACHE_FEATURES;
    if (maps.status == CLATTN_OK && cached) maps.status = run_cache(kernel, call, &maps, &problem);
    if (maps.status == CLATTN_OK && !cached) maps.status = clattn__ref_attention_run(&problem);
    return unmap_all(&maps);
}

const clattn__attn_impl clattn__attn_host = {
    .name = "attn_host",
    .what = "the scalar reference on the host: slow, right everywhere",
    .features = CLATTN__CAUSAL | CLATTN__WINDOW | CLATTN__MASK_BOOL | CLATTN__MASK_FLOAT | CLATTN__PADDING |
                CLATTN__LENGTHS | CLATTN__SOFTCAP | CLATTN__ALIBI | CLATTN__SINKS | CLATTN__LSE | CLATTN__WEIGHTS |
                CLATTN__AVERAGED_WEIGHTS | CLATTN__SCORES | CLATTN__ALWAYS_KEYS | CLATTN__OFFSET_FROM_LENGTHS |
                CLATTN__SCORE_KINDS | CLATTN__DOCUMENTS | CLATTN__DROPOUT | CLATTN__PREFIX | CLATTN__VARLEN |
                CLATTN__CACHE_FEATURES,
    .supports = supports,
    .prepare = prepare,
    .enqueue = enqueue,
};
