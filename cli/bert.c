#include "bert.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "table.h"

/* ---- config.json ------------------------------------------------------------------------------------------------- */

static bool read_extent(const cJSON *config, const char *name, long long high, long long *value, char why[512]) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(config, name);
    const double number = cJSON_IsNumber(item) ? item->valuedouble : NAN;
    if (!(number >= 1 && number <= (double)high) || number != floor(number))
        return cli_why(why, 512, "config.json: %s is missing or not a whole number in 1..%lld", name, high);
    *value = (long long)number;
    return true;
}

static bool read_activation(const cJSON *config, clattn_activation *activation, char why[512]) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(config, "hidden_act");
    const char *name = cJSON_IsString(item) ? item->valuestring : "gelu";
    *activation = strcmp(name, "relu") == 0 ? CLATTN_ACTIVATION_RELU : CLATTN_ACTIVATION_GELU;
    if (strcmp(name, "relu") == 0 || strcmp(name, "gelu") == 0) return true;
    return cli_why(why, 512, "config.json: hidden_act is '%.32s'; it must be gelu or relu", name);
}

static bool read_positions(const cJSON *config, char why[512]) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(config, "position_embedding_type");
    if (!cJSON_IsString(item) || strcmp(item->valuestring, "absolute") == 0) return true;
    return cli_why(why, 512, "config.json: position_embedding_type is '%.32s'; it must be absolute", item->valuestring);
}

static bool read_config(const char *path, cli_bert *bert, char why[512]) {
    enum { MOST = 1 << 24, MOST_LAYERS = 4096 };
    cJSON *config = cli_json_read(path, why);
    if (!config) return false;
    const cJSON *eps = cJSON_GetObjectItemCaseSensitive(config, "layer_norm_eps");
    bert->eps = cJSON_IsNumber(eps) ? eps->valuedouble : 1e-12; /* what BERT's own configuration takes for granted */
    bool good = read_extent(config, "hidden_size", MOST, &bert->features, why) &&
                read_extent(config, "num_attention_heads", MOST, &bert->heads, why) &&
                read_extent(config, "intermediate_size", MOST, &bert->feed_forward, why) &&
                read_extent(config, "num_hidden_layers", MOST_LAYERS, &bert->layers, why) &&
                read_activation(config, &bert->activation, why) && read_positions(config, why);
    cJSON_Delete(config);
    return good;
}

/* ---- model.safetensors ------------------------------------------------------------------------------------------- */

static const char word_table[] = "embeddings.word_embeddings.weight";

static bool find_prefix(cli_bert *bert, char why[512]) {
    for (int i = 0; i < bert->tensors.count; i++) {
        const char *name = bert->tensors.items[i].name, *found = strstr(name, word_table);
        if (!found || strcmp(found, word_table) != 0 || found - name >= (long)sizeof bert->prefix) continue;
        memcpy(bert->prefix, name, (size_t)(found - name));
        bert->prefix[found - name] = '\0';
        return true;
    }
    return cli_why(why, 512, "model.safetensors: holds no tensor named %s", word_table);
}

/* The tensor as float32, by one of its two names. */
static cli_array *find(cli_bert *bert, const char *name, const char *other, char why[512]) {
    char full[256], reason[256];
    cli_array *array = NULL;
    for (int i = 0; i < 2 && !array; i++) {
        const char *tried = i ? other : name;
        if (!tried) break;
        if (snprintf(full, sizeof full, "%s%s", bert->prefix, tried) < (int)sizeof full)
            array = cli_tensors_find(&bert->tensors, full);
    }
    if (!array) return cli_why(why, 512, "model.safetensors: holds no tensor named %s%s", bert->prefix, name), NULL;
    if (!cli_array_to_f32(array, reason))
        return cli_why(why, 512, "model.safetensors: %s: %s", array->name, reason), NULL;
    return array;
}

/* rows 0: a vector of columns; rows < 0: any number of rows. */
static bool take(cli_bert *bert, const char *name, const char *other, long long rows, long long columns,
                 clattn_tensor *tensor, char why[512]) {
    cli_array *array = find(bert, name, other, why);
    if (!array) return false;
    const bool fits = rows == 0 ? array->rank == 1 && array->shape[0] == columns
                                : array->rank == 2 && array->shape[1] == columns &&
                                      (rows < 0 ? array->shape[0] > 0 : array->shape[0] == rows);
    if (!fits && rows >= 0)
        return cli_why(why, 512, "model.safetensors: %s does not have the shape that config.json says: %lld x %lld",
                       array->name, rows ? rows : 1, columns);
    if (!fits) return cli_why(why, 512, "model.safetensors: %s is not a table with rows of %lld", array->name, columns);
    *tensor = cli_array_tensor(array);
    return true;
}

static bool take_linear(cli_bert *bert, const char *base, long long rows, long long columns, clattn_tensor *weight,
                        clattn_tensor *bias, char why[512]) {
    char weight_name[192], bias_name[192];
    snprintf(weight_name, sizeof weight_name, "%s.weight", base);
    snprintf(bias_name, sizeof bias_name, "%s.bias", base);
    return take(bert, weight_name, NULL, rows, columns, weight, why) && take(bert, bias_name, NULL, 0, rows, bias, why);
}

/* Old files call weight and bias gamma and beta. */
static bool take_norm(cli_bert *bert, const char *base, clattn_norm_weights *norm, char why[512]) {
    char names[4][192];
    static const char *const ends[4] = {"weight", "gamma", "bias", "beta"};
    for (int i = 0; i < 4; i++) snprintf(names[i], sizeof names[i], "%s.LayerNorm.%s", base, ends[i]);
    return take(bert, names[0], names[1], 0, bert->features, &norm->weight, why) &&
           take(bert, names[2], names[3], 0, bert->features, &norm->bias, why);
}

static bool take_block(cli_bert *bert, long long layer, clattn_block_weights *block, char why[512]) {
    const long long E = bert->features, F = bert->feed_forward;
    clattn_mha_weights *mha = &block->self_attention;
    const struct {
        const char *name;
        long long rows, columns;
        clattn_tensor *weight, *bias;
    } linears[] = {{"attention.self.query", E, E, &mha->q_proj_weight, &mha->q_proj_bias},
                   {"attention.self.key", E, E, &mha->k_proj_weight, &mha->k_proj_bias},
                   {"attention.self.value", E, E, &mha->v_proj_weight, &mha->v_proj_bias},
                   {"attention.output.dense", E, E, &mha->out_proj_weight, &mha->out_proj_bias},
                   {"intermediate.dense", F, E, &block->expand.weight, &block->expand.bias},
                   {"output.dense", E, F, &block->contract.weight, &block->contract.bias}};
    char base[128];
    for (size_t i = 0; i < sizeof linears / sizeof linears[0]; i++) {
        snprintf(base, sizeof base, "encoder.layer.%lld.%s", layer, linears[i].name);
        if (!take_linear(bert, base, linears[i].rows, linears[i].columns, linears[i].weight, linears[i].bias, why))
            return false;
    }
    snprintf(base, sizeof base, "encoder.layer.%lld.attention.output", layer);
    if (!take_norm(bert, base, &block->self_norm, why)) return false;
    snprintf(base, sizeof base, "encoder.layer.%lld.output", layer);
    return take_norm(bert, base, &block->feed_forward_norm, why);
}

static bool take_weights(cli_bert *bert, char why[512]) {
    clattn_tensor table;
    if (!find_prefix(bert, why) || !take(bert, word_table, NULL, -1, bert->features, &table, why) ||
        !take(bert, "embeddings.token_type_embeddings.weight", NULL, -1, bert->features, &table, why) ||
        !take(bert, "embeddings.position_embeddings.weight", NULL, -1, bert->features, &bert->weights.position_table,
              why) ||
        !take_norm(bert, "embeddings", &bert->weights.input_norm, why))
        return false;
    bert->words = find(bert, word_table, NULL, why);
    bert->types = find(bert, "embeddings.token_type_embeddings.weight", NULL, why);
    bert->blocks = calloc((size_t)bert->layers, sizeof *bert->blocks);
    if (!bert->blocks) return cli_why(why, 512, "no memory for %lld layers", bert->layers);
    bert->weights.encoder = bert->blocks;
    for (long long i = 0; i < bert->layers; i++)
        if (!take_block(bert, i, &bert->blocks[i], why)) return false;
    return true;
}

bool cli_bert_load(const char *folder, cli_bert *bert, char why[512]) {
    char config[4096], model[4096];
    *bert = (cli_bert){0};
    if (snprintf(config, sizeof config, "%s/config.json", folder) >= (int)sizeof config ||
        snprintf(model, sizeof model, "%s/model.safetensors", folder) >= (int)sizeof model)
        return cli_why(why, 512, "the path of the model is too long");
    return read_config(config, bert, why) && cli_safetensors_read(model, &bert->tensors, why) &&
           take_weights(bert, why);
}

void cli_bert_free(cli_bert *bert) {
    cli_tensors_free(&bert->tensors);
    free(bert->blocks);
    *bert = (cli_bert){0};
}

/* ---- around the encoder ------------------------------------------------------------------------------------------ */

void cli_bert_describe(const cli_bert *bert, int64_t batch, int64_t rows, clattn_stack_desc *desc) {
    clattn_stack_desc_init(desc);
    desc->batch = batch;
    desc->rows = rows;
    desc->features = bert->features;
    desc->heads = bert->heads;
    desc->feed_forward = bert->feed_forward;
    desc->encoder_blocks = bert->layers;
    desc->order = CLATTN_POST_NORM;
    desc->activation = bert->activation;
    desc->eps = (float)bert->eps;
    desc->padding_mask = 1;
    desc->positions = CLATTN_POSITIONS_LEARNED;
}

static bool read_id(const cli_array *ids, int64_t i, int64_t *id) {
    if (ids->dtype == CLATTN_I64)
        *id = ((const int64_t *)ids->data)[i];
    else if (ids->dtype == CLATTN_I32)
        *id = ((const int32_t *)ids->data)[i];
    else
        return false;
    return true;
}

bool cli_bert_words(const cli_bert *bert, const cli_array *ids, cli_array *x, char why[512]) {
    const int64_t E = bert->features;
    if (ids->rank != 2 || (ids->dtype != CLATTN_I64 && ids->dtype != CLATTN_I32))
        return cli_why(why, 512, "the token ids are %s of rank %d; they must be int64 or int32 of rank 2",
                       clattn_dtype_name(ids->dtype), ids->rank);
    const int64_t shape[3] = {ids->shape[0], ids->shape[1], E};
    if (!cli_array_new(x, CLATTN_F32, 3, shape, why)) return false;
    float *to = x->data;
    const float *type = bert->types->data; /* row 0: all tokens belong to the first sentence */
    for (int64_t i = 0; i < cli_array_elements(ids); i++) {
        int64_t id = 0;
        if (!read_id(ids, i, &id) || id < 0 || id >= bert->words->shape[0])
            return cli_why(why, 512, "token id [%lld, %lld] is %lld; the vocabulary has ids 0..%lld",
                           (long long)(i / shape[1]), (long long)(i % shape[1]), (long long)id,
                           (long long)bert->words->shape[0] - 1);
        const float *word = (const float *)bert->words->data + id * E;
        for (int64_t e = 0; e < E; e++) *to++ = word[e] + type[e];
    }
    return true;
}

void cli_bert_pool(const cli_array *hidden, const cli_array *mask, float *pooled, float *embedding) {
    const int64_t B = hidden->shape[0], L = hidden->shape[1], E = hidden->shape[2];
    const float *x = hidden->data;
    const uint8_t *real = mask->data;
    for (int64_t b = 0; b < B; b++) {
        double count = 0, squares = 0;
        for (int64_t r = 0; r < L; r++) count += real[b * L + r] != 0;
        for (int64_t e = 0; e < E; e++) {
            double sum = 0;
            for (int64_t r = 0; r < L; r++)
                if (real[b * L + r]) sum += (double)x[(b * L + r) * E + e];
            const double mean = count > 0 ? sum / count : 0;
            embedding[b * E + e] = (float)mean;
            squares += mean * mean;
        }
        for (int64_t e = 0; e < E; e++) {
            if (pooled) pooled[b * E + e] = embedding[b * E + e];
            if (squares > 0) embedding[b * E + e] = (float)((double)embedding[b * E + e] / sqrt(squares));
        }
    }
}
