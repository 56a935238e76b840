#include "golden_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "ref/ref.h"

/* ---- loading --------------------------------------------------------------------------------------------------- */

static char *read_text(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    char *text = calloc(1, 1 << 20);
    size_t count = text ? fread(text, 1, (1 << 20) - 1, file) : 0;
    fclose(file);
    if (count == 0) {
        free(text);
        return NULL;
    }
    return text;
}

static bool load_group(golden_case *c, const char *folder, const char *group, char why[512]) {
    const cJSON *file = NULL;
    cJSON_ArrayForEach(file, cJSON_GetObjectItem(c->json, group)) {
        char path[1024];
        if (strncmp(file->string, "grad_", 5) == 0) continue;
        if (c->count == GOLDEN_TENSORS || !cJSON_IsString(file)) {
            snprintf(why, 512, "%s: too many tensors, or one without a file", group);
            return false;
        }
        golden_tensor *tensor = &c->tensors[c->count];
        snprintf(path, sizeof path, "%s/%s", folder, file->valuestring);
        if (!cli_npy_read(path, &tensor->array, why)) return false;
        tensor->role = file->string;
        c->count++;
    }
    return true;
}

bool golden_load(golden_case *c, const char *folder, char why[512]) {
    char path[1024];
    memset(c, 0, sizeof *c);
    snprintf(path, sizeof path, "%s/case.json", folder);
    char *text = read_text(path);
    c->json = text ? cJSON_Parse(text) : NULL;
    free(text);
    if (!c->json) {
        snprintf(why, 512, "case.json is missing or no JSON");
        return false;
    }
    if (load_group(c, folder, "inputs", why) && load_group(c, folder, "outputs", why)) return true;
    golden_free(c);
    return false;
}

void golden_free(golden_case *c) {
    for (int i = 0; i < c->count; i++) cli_array_free(&c->tensors[i].array);
    cJSON_Delete(c->json);
    memset(c, 0, sizeof *c);
}

const cli_array *golden_find(const golden_case *c, const char *role) {
    for (int i = 0; i < c->count; i++)
        if (strcmp(c->tensors[i].role, role) == 0) return &c->tensors[i].array;
    return NULL;
}

const char *golden_op(const golden_case *c) {
    const char *op = cJSON_GetStringValue(cJSON_GetObjectItem(c->json, "op"));
    return op ? op : "";
}

static const cJSON *attribute_of(const golden_case *c, const char *attribute) {
    return cJSON_GetObjectItem(cJSON_GetObjectItem(c->json, "attributes"), attribute);
}

double golden_number(const golden_case *c, const char *attribute, double otherwise) {
    const cJSON *item = attribute_of(c, attribute);
    return cJSON_IsNumber(item) ? item->valuedouble : otherwise;
}

bool golden_flag(const golden_case *c, const char *attribute) { return cJSON_IsTrue(attribute_of(c, attribute)); }

const char *golden_text(const golden_case *c, const char *attribute) {
    const char *text = cJSON_GetStringValue(attribute_of(c, attribute));
    return text ? text : "";
}

/* ---- tensors --------------------------------------------------------------------------------------------------- */

static void *own(golden_problem *p, void *buffer) {
    if (!buffer || p->buffer_count == GOLDEN_BUFFERS) abort(); /* a test without memory cannot go on */
    p->buffers[p->buffer_count++] = buffer;
    return buffer;
}

static void *own_floats(golden_problem *p, int64_t count) { return own(p, calloc((size_t)count + 1, sizeof(float))); }

void golden_problem_free(golden_problem *p) {
    for (int i = 0; i < p->buffer_count; i++) free(p->buffers[i]);
    memset(p, 0, sizeof *p);
}

static int64_t extent(const cli_array *array, int from_the_right) {
    return array->shape[array->rank - 1 - from_the_right];
}

/* Stored as (B, H, S, D), (B, S, H*D) or (S, D): seen as (B, H, S, D). */
static clattn_tensor heads_view(void *data, clattn_dtype dtype, const cli_array *array, int64_t heads) {
    int64_t S = extent(array, 1), D = extent(array, 0);
    if (array->rank == 4) return clattn_host(data, dtype, 4, array->shape[0], array->shape[1], S, D);
    int64_t B = array->rank == 3 ? array->shape[0] : 1;
    clattn_tensor view = clattn_host(data, dtype, 4, B, heads, S, D / heads);
    const int64_t stride[4] = {S * D, D / heads, D, 1};
    memcpy(view.stride, stride, sizeof stride);
    return view;
}

static double element(const cli_array *array, int64_t i) { return clattn__ref_load(array->data, array->dtype, i); }

/* A mask of any rank, seen as rank 4 from the right. */
typedef struct mask_source {
    const cli_array *array;
    int64_t shape[4];
} mask_source;

static mask_source mask_of(const cli_array *array, int64_t batch) {
    mask_source mask = {array, {1, 1, 1, 1}};
    for (int i = 0; array && i < array->rank; i++) mask.shape[3 - i] = extent(array, i);
    if (array && array->rank == 3 && batch > 0) { /* (B*H, L, S) of nn.MultiheadAttention */
        mask.shape[0] = batch;
        mask.shape[1] = array->shape[0] / batch;
    }
    return mask;
}

static double mask_at(const mask_source *mask, int64_t b, int64_t h, int64_t i, int64_t j) {
    const int64_t at[4] = {b, h, i, j};
    int64_t index = 0;
    for (int k = 0; k < 4; k++) index = index * mask->shape[k] + (mask->shape[k] == 1 ? 0 : at[k]);
    return element(mask->array, index);
}

/* ---- attention ------------------------------------------------------------------------------------------------- */

/* What flex_attention expresses as functions of the indices, as one float mask (B, Hq, Sq, Sk): 0, a bias, or -inf. */
typedef struct flex_mask {
    const cli_array *dead;      /* (L) query rows that see nothing */
    const cli_array *documents; /* (B, L) */
    const cli_array *bias;      /* (H, L + S - 1) */
    int64_t prefix;             /* keys below it are visible to all, the rest causal; 0: none */
} flex_mask;

static bool flex_hides(const flex_mask *m, int64_t b, int64_t i, int64_t j) {
    if (m->dead && element(m->dead, i) != 0) return true;
    if (m->documents) {
        int64_t L = extent(m->documents, 0);
        if (element(m->documents, b * L + i) != element(m->documents, b * L + j)) return true;
    }
    return m->prefix > 0 && j >= m->prefix && j > i;
}

static void add_flex_mask(const golden_case *c, golden_problem *p) {
    clattn_attention_desc *d = &p->attention;
    flex_mask m = {golden_find(c, "query_dead"), golden_find(c, "document_ids"), golden_find(c, "relative_bias"),
                   (int64_t)golden_number(c, "prefix_length", 0)};
    if (!m.dead && !m.documents && !m.bias && m.prefix == 0) return;
    if (m.prefix > 0) d->causal = CLATTN_CAUSAL_NONE; /* the mask says it all */
    const int64_t B = d->batch, H = d->query_heads, L = d->query_len, S = d->kv_len;
    float *mask = own_floats(p, B * H * L * S);
    for (int64_t x = 0; x < B * H * L * S; x++) {
        int64_t j = x % S, i = x / S % L, h = x / S / L % H, b = x / S / L / H;
        double bias = m.bias ? element(m.bias, h * (L + S - 1) + j - i + L - 1) : 0;
        mask[x] = flex_hides(&m, b, i, j) ? -INFINITY : (float)bias;
    }
    d->mask = CLATTN_MASK_FLOAT;
    const int64_t shape[4] = {B, H, L, S};
    memcpy(d->mask_shape, shape, sizeof shape);
    p->attention_io.mask = clattn_host(mask, CLATTN_F32, 4, B, H, L, S);
}

static void add_mask(const golden_case *c, golden_problem *p) {
    const cli_array *array = golden_find(c, "attn_mask");
    if (!array) return;
    const mask_source mask = mask_of(array, 0);
    const bool is_bool = array->dtype == CLATTN_BOOL;
    void *data = array->data;
    if (array->dtype == CLATTN_F16) { /* the library adds float32 masks */
        float *wide = own_floats(p, cli_array_elements(array));
        for (int64_t i = 0; i < cli_array_elements(array); i++) wide[i] = (float)element(array, i);
        data = wide;
    }
    p->attention.mask = is_bool ? CLATTN_MASK_BOOL : CLATTN_MASK_FLOAT;
    memcpy(p->attention.mask_shape, mask.shape, sizeof mask.shape);
    p->attention_io.mask = clattn_host(data, is_bool ? CLATTN_BOOL : CLATTN_F32, 4, mask.shape[0], mask.shape[1],
                                       mask.shape[2], mask.shape[3]);
}

/* present = past, then new, on the sequence axis. */
static clattn_tensor with_past(golden_problem *p, const cli_array *past, clattn_tensor now) {
    if (!past) return now;
    const int64_t B = now.shape[0], H = now.shape[1], S = now.shape[2], D = now.shape[3], P = past->shape[2];
    const int64_t dense[4] = {H * S * D, S * D, D, 1};
    if (now.stride[3] == 0) memcpy(now.stride, dense, sizeof dense);
    size_t size = clattn_dtype_size(now.dtype);
    char *present = own_floats(p, B * H * (P + S) * D);
    for (int64_t b = 0; b < B; b++)
        for (int64_t h = 0; h < H; h++) {
            char *to = present + (size_t)((b * H + h) * (P + S) * D) * size;
            memcpy(to, (char *)past->data + (size_t)((b * H + h) * P * D) * size, (size_t)(P * D) * size);
            for (int64_t s = 0; s < S; s++)
                memcpy(to + (size_t)((P + s) * D) * size,
                       (char *)now.data + (size_t)(b * now.stride[0] + h * now.stride[1] + s * now.stride[2]) * size,
                       (size_t)D * size);
        }
    return clattn_host(present, now.dtype, 4, B, H, P + S, D);
}

static bool set_causal(const golden_case *c, clattn_attention_desc *d, int64_t past, char why[512]) {
    const char *alignment = golden_text(c, "causal_alignment");
    if (!golden_flag(c, "is_causal")) {
        if (past > 0 && (d->window_left >= 0 || d->window_right >= 0)) {
            snprintf(why, 512, "a window that is not causal, with a past");
            return false;
        }
        return true;
    }
    if (strcmp(alignment, "top_left") == 0) d->causal = CLATTN_CAUSAL_TOP_LEFT;
    if (strcmp(alignment, "bottom_right") == 0 || strcmp(alignment, "offset_per_batch") == 0)
        d->causal = CLATTN_CAUSAL_BOTTOM_RIGHT;
    if (strcmp(alignment, "offset") == 0) {
        d->causal = CLATTN_CAUSAL_OFFSET;
        d->causal_offset = past;
    }
    snprintf(why, 512, "causal_alignment is \"%s\"", alignment);
    return d->causal != CLATTN_CAUSAL_NONE;
}

bool golden_attention(const golden_case *c, golden_problem *p, char why[512]) {
    const cli_array *query = golden_find(c, "query"), *key = golden_find(c, "key"), *value = golden_find(c, "value");
    const cli_array *output = golden_find(c, "output"), *past = golden_find(c, "past_key");
    memset(p, 0, sizeof *p);
    if (!query || !key || !value || !output) {
        snprintf(why, 512, "query, key, value or output is missing");
        return false;
    }
    clattn_attention_desc *d = &p->attention;
    clattn_attention_io *io = &p->attention_io;
    clattn_attention_desc_init(d);
    d->query_heads = (int64_t)golden_number(c, "q_num_heads", 1);
    d->kv_heads = (int64_t)golden_number(c, "kv_num_heads", 1);
    d->dtype = query->dtype;
    io->query = heads_view(query->data, query->dtype, query, d->query_heads);
    io->key = with_past(p, past, heads_view(key->data, key->dtype, key, d->kv_heads));
    io->value = with_past(p, golden_find(c, "past_value"), heads_view(value->data, value->dtype, value, d->kv_heads));
    io->output = heads_view(own_floats(p, cli_array_elements(output)), d->dtype, output, d->query_heads);
    d->batch = io->query.shape[0];
    d->query_len = io->query.shape[2];
    d->head_dim = io->query.shape[3];
    d->kv_len = io->key.shape[2];
    d->value_dim = io->value.shape[3];
    d->has_scale = 1;
    d->scale = (float)golden_number(c, "scale", 1);
    d->softcap = (float)golden_number(c, "softcap", 0);
    d->window_left = (int64_t)golden_number(c, "window_left", -1);
    d->window_right = (int64_t)golden_number(c, "window_right", -1);
    if (!set_causal(c, d, past ? past->shape[2] : 0, why)) return false;
    add_mask(c, p);
    add_flex_mask(c, p);

    const cli_array *lengths = golden_find(c, "nonpad_kv_seqlen"), *slopes = golden_find(c, "alibi_slopes");
    const cli_array *scores = golden_find(c, "qk_matmul_output");
    if (lengths) {
        d->kv_lengths = 1;
        io->kv_lengths = clattn_host(lengths->data, lengths->dtype, 1, d->batch, 0, 0, 0);
    }
    if (slopes) {
        d->alibi = 1;
        io->alibi = clattn_host(slopes->data, CLATTN_F32, 1, d->query_heads, 0, 0, 0);
    }
    if (golden_find(c, "lse")) {
        d->logsumexp = 1;
        float *lse = own_floats(p, d->batch * d->query_heads * d->query_len);
        io->logsumexp = clattn_host(lse, CLATTN_F32, 3, d->batch, d->query_heads, d->query_len, 0);
    }
    if (scores) {
        d->scores = (clattn_scores_output)(CLATTN_SCORES_RAW + (int)golden_number(c, "qk_matmul_output_mode", 0));
        float *memory = own_floats(p, cli_array_elements(scores));
        io->scores = clattn_host(memory, CLATTN_F32, 4, d->batch, d->query_heads, d->query_len, d->kv_len);
    }
    return true;
}

/* ---- the multi-head layer -------------------------------------------------------------------------------------- */

/* Stored as (B, L, E), (L, B, E) or (L, E): seen as (B, L, E). */
static clattn_tensor sequence_view(void *data, const cli_array *array, bool batch_first) {
    const int64_t E = extent(array, 0);
    if (array->rank == 2) return clattn_host(data, CLATTN_F32, 3, 1, array->shape[0], E, 0);
    if (batch_first) return clattn_host(data, CLATTN_F32, 3, array->shape[0], array->shape[1], E, 0);
    clattn_tensor view = clattn_host(data, CLATTN_F32, 3, array->shape[1], array->shape[0], E, 0);
    view.stride[0] = E;
    view.stride[1] = array->shape[1] * E;
    view.stride[2] = 1;
    return view;
}

static clattn_tensor dense_view(const cli_array *array) {
    clattn_tensor none = {0};
    if (!array) return none;
    if (array->rank == 3)
        return clattn_host(array->data, CLATTN_F32, 1, extent(array, 0), 0, 0, 0); /* bias_k (1, 1, E) */
    return clattn_host(array->data, CLATTN_F32, array->rank, array->shape[0], array->rank > 1 ? array->shape[1] : 0, 0,
                       0);
}

/* Stored: bool true = masked, or a float that is added. Both masks may come as floats, so one float mask takes them
 * all; a bool key padding mask alone goes the short way. */
static void add_layer_masks(const golden_case *c, golden_problem *p) {
    clattn_mha_desc *d = &p->mha;
    const cli_array *mask = golden_find(c, "attn_mask"), *padding = golden_find(c, "key_padding_mask");
    const int64_t B = d->batch, H = d->heads, L = d->query_len, S = d->kv_len;
    const bool float_padding = padding && padding->dtype != CLATTN_BOOL;
    if (padding && !float_padding) {
        unsigned char *attend = own_floats(p, B * S);
        for (int64_t x = 0; x < B * S; x++) attend[x] = element(padding, x) == 0;
        d->padding_mask = 1;
        p->mha_io.padding_mask = clattn_host(attend, CLATTN_BOOL, 2, B, S, 0, 0);
    }
    if (!mask && !float_padding) return;
    const mask_source source = mask_of(mask, B);
    if (mask && mask->dtype == CLATTN_BOOL && !float_padding) {
        unsigned char *attend = own_floats(p, cli_array_elements(mask));
        for (int64_t x = 0; x < cli_array_elements(mask); x++) attend[x] = element(mask, x) == 0;
        d->mask = CLATTN_MASK_BOOL;
        memcpy(d->mask_shape, source.shape, sizeof source.shape);
        p->mha_io.mask =
            clattn_host(attend, CLATTN_BOOL, 4, source.shape[0], source.shape[1], source.shape[2], source.shape[3]);
        return;
    }
    float *sum = own_floats(p, B * H * L * S);
    for (int64_t x = 0; x < B * H * L * S; x++) {
        int64_t j = x % S, i = x / S % L, h = x / S / L % H, b = x / S / L / H;
        double term = mask ? mask_at(&source, b, h, i, j) : 0;
        if (mask && mask->dtype == CLATTN_BOOL) term = term != 0 ? -INFINITY : 0;
        sum[x] = (float)(term + (float_padding ? element(padding, b * S + j) : 0));
    }
    const int64_t shape[4] = {B, H, L, S};
    d->mask = CLATTN_MASK_FLOAT;
    memcpy(d->mask_shape, shape, sizeof shape);
    p->mha_io.mask = clattn_host(sum, CLATTN_F32, 4, B, H, L, S);
}

bool golden_mha(const golden_case *c, golden_problem *p, char why[512]) {
    const cli_array *query = golden_find(c, "query"), *key = golden_find(c, "key"), *value = golden_find(c, "value");
    const cli_array *output = golden_find(c, "output"), *weights = golden_find(c, "attn_weights");
    memset(p, 0, sizeof *p);
    if (!query || !key || !value || !output) {
        snprintf(why, 512, "query, key, value or output is missing");
        return false;
    }
    const bool batch_first = golden_flag(c, "batch_first");
    clattn_mha_desc *d = &p->mha;
    clattn_mha_io *io = &p->mha_io;
    clattn_mha_desc_init(d);
    d->inputs = CLATTN_MHA_SEPARATE;
    io->query = sequence_view(query->data, query, batch_first);
    io->key = sequence_view(key->data, key, batch_first);
    io->value = sequence_view(value->data, value, batch_first);
    io->output = sequence_view(own_floats(p, cli_array_elements(output)), output, batch_first);
    d->batch = io->query.shape[0];
    d->query_len = io->query.shape[1];
    d->embed_dim = io->query.shape[2];
    d->kv_len = io->key.shape[1];
    d->key_dim = io->key.shape[2];
    d->value_dim = io->value.shape[2];
    d->heads = (int64_t)golden_number(c, "num_heads", 1);
    d->add_zero_attn = golden_flag(c, "add_zero_attn");
    add_layer_masks(c, p);
    if (weights) {
        bool per_head = weights->rank == 4;
        d->weights = per_head ? CLATTN_WEIGHTS_PER_HEAD : CLATTN_WEIGHTS_AVERAGED;
        int64_t T = extent(weights, 0);
        float *memory = own_floats(p, cli_array_elements(weights));
        io->weights = per_head ? clattn_host(memory, CLATTN_F32, 4, d->batch, d->heads, d->query_len, T)
                               : clattn_host(memory, CLATTN_F32, 3, d->batch, d->query_len, T, 0);
    }
    clattn_mha_weights *w = &p->mha_weights;
    const struct {
        const char *role;
        clattn_tensor *tensor;
    } rows[] = {{"in_proj_weight", &w->in_proj_weight},
                {"q_proj_weight", &w->q_proj_weight},
                {"k_proj_weight", &w->k_proj_weight},
                {"v_proj_weight", &w->v_proj_weight},
                {"in_proj_bias", &w->in_proj_bias},
                {"out_proj_weight", &w->out_proj_weight},
                {"out_proj_bias", &w->out_proj_bias},
                {"bias_k", &w->bias_k},
                {"bias_v", &w->bias_v}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        *rows[i].tensor = dense_view(golden_find(c, rows[i].role));
    return true;
}

/* ---- comparison ------------------------------------------------------------------------------------------------ */

static double tolerance_number(const golden_case *c, const char *role, const char *name) {
    const cJSON *own_one =
        cJSON_GetObjectItem(cJSON_GetObjectItem(cJSON_GetObjectItem(c->json, "output_tolerances"), role), name);
    const cJSON *item = own_one ? own_one : cJSON_GetObjectItem(c->json, name);
    return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

void golden_check(const golden_case *c, const char *role, const clattn_tensor *got) {
    const cli_array *want = golden_find(c, role);
    if (!want || !got->data) return;
    const double rtol = tolerance_number(c, role, "rtol"), atol = tolerance_number(c, role, "atol");
    const cli_array flat = {.dtype = got->dtype, .data = got->data};
    int64_t bad = 0, first = -1;
    for (int64_t i = 0; i < cli_array_elements(want); i++) {
        double w = element(want, i);
        if (clattn_close(element(&flat, i), w, atol + rtol * fabs(w))) continue;
        if (first < 0) first = i;
        bad++;
    }
    CHECK(bad == 0, "%s: %lld of %lld elements of %s differ, the first at %lld: got %.9g, want %.9g (rtol %g, atol %g)",
          cJSON_GetStringValue(cJSON_GetObjectItem(c->json, "name")), (long long)bad,
          (long long)cli_array_elements(want), role, (long long)first, first < 0 ? 0 : element(&flat, first),
          first < 0 ? 0 : element(want, first), rtol, atol);
}
