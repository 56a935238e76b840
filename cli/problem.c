/* Descriptions given as sizes and words on the command line. */
#include "problem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- sizes and words --------------------------------------------------------------------------------------------- */

static bool is_causal(const char *word) { return strcmp(word, "causal") == 0; }

/* Calls take() with the next word of *text, which is moved behind it; what it took, but causal, ends up in shape. */
static bool take_next(const char **text, cli_take_word take, void *user, char shape[CLI_SHAPE_TEXT]) {
    char word[64];
    size_t length = strcspn(*text, ","), used = strlen(shape);
    if (length == 0 || length >= sizeof word || used + length + 2 > CLI_SHAPE_TEXT) return false;
    memcpy(word, *text, length);
    word[length] = '\0';
    *text += length;
    if (!is_causal(word)) snprintf(shape + used, CLI_SHAPE_TEXT - used, "+%s", word);
    char *value = strchr(word, '=');
    if (value) *value++ = '\0';
    return take(user, word, value);
}

static bool take_sizes(const char **text, int count, long long *sizes, char shape[CLI_SHAPE_TEXT]) {
    size_t used = 0;
    for (int i = 0; i < count; i++) {
        char word[24];
        size_t length = strcspn(*text, ",");
        if (length >= sizeof word) return false;
        memcpy(word, *text, length);
        word[length] = '\0';
        if (!cli_parse_int(word, 0, INT64_MAX, &sizes[i])) return false;
        used += (size_t)snprintf(shape + used, CLI_SHAPE_TEXT - used, "%s%lld", i ? "x" : "", sizes[i]);
        *text += length;
        if (i + 1 < count && *(*text)++ != ',') return false;
    }
    return true;
}

/* What the word at `word` decides, which is its name, or the element type; its length. */
static int word_topic(const char *word, const char **topic) {
    static const clattn_dtype types[] = {CLATTN_F32, CLATTN_F16, CLATTN_BF16, CLATTN_I8};
    const size_t length = strcspn(word, ",=");
    *topic = word;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const char *name = clattn_dtype_name(types[i]);
        if (strlen(name) == length && strncmp(name, word, length) == 0) *topic = "type";
    }
    return *topic == word ? (int)length : (int)strlen(*topic);
}

/* Whether a word from `first` on, before `word`, decides the same. */
static bool decided_before(const char *first, const char *word) {
    const char *topic, *other;
    const int length = word_topic(word, &topic);
    for (; first < word; first += strcspn(first, ",") + 1)
        if (word_topic(first, &other) == length && strncmp(other, topic, (size_t)length) == 0) return true;
    return false;
}

bool cli_parse_shape(const char *option, const char *form, const char *text, int count, long long *sizes,
                     cli_take_word take, void *user, char shape[CLI_SHAPE_TEXT]) {
    const char *rest = text;
    bool good = take_sizes(&rest, count, sizes, shape);
    for (const char *first = rest + 1; good && *rest == ',';) {
        const char *word = ++rest;
        if (decided_before(first, word)) {
            cli_fail(EXIT_USAGE, "--%s '%s': '%.*s' decides again what a word before it decided", option, text,
                     (int)strcspn(word, ","), word);
            return false;
        }
        good = take_next(&rest, take, user, shape);
    }
    if (good && *rest == '\0') return true;
    cli_fail(EXIT_USAGE, "--%s '%s': expected %s, whole numbers >= 0%s", option, text, form,
             strchr(form, '[') ? ", then words (see --help)" : "");
    return false;
}

bool cli_parse_dtype(const char *text, clattn_dtype *dtype) {
    static const clattn_dtype all[] = {CLATTN_F32, CLATTN_F16, CLATTN_BF16};
    for (int i = 0; i < 3; i++)
        if (strcmp(text, clattn_dtype_name(all[i])) == 0) return *dtype = all[i], true;
    return false;
}

bool cli_parse_precision(const char *text, clattn_precision *precision) {
    static const char *const names[] = {"default", "strict", "fast"}; /* in the order of clattn_precision */
    for (int i = 0; i < 3; i++)
        if (strcmp(text, names[i]) == 0) return *precision = (clattn_precision)i, true;
    return false;
}

static bool take_window(const char *value, clattn_attention_desc *desc) {
    char left[24];
    long long sizes[2];
    const char *colon = strchr(value, ':');
    size_t length = colon ? (size_t)(colon - value) : strlen(value);
    if (length >= sizeof left) return false;
    memcpy(left, value, length);
    left[length] = '\0';
    if (!cli_parse_int(left, 0, INT32_MAX, &sizes[0])) return false;
    sizes[1] = sizes[0];
    if (colon && !cli_parse_int(colon + 1, 0, INT32_MAX, &sizes[1])) return false;
    desc->window_left = sizes[0];
    desc->window_right = sizes[1];
    return true;
}

static bool take_mask(const char *value, cli_problem *problem) {
    problem->blocks = strcmp(value, "blocks") == 0;
    problem->attention.mask = strcmp(value, "float") == 0 ? CLATTN_MASK_FLOAT : CLATTN_MASK_BOOL;
    return problem->blocks || strcmp(value, "float") == 0 || strcmp(value, "bool") == 0;
}

static bool attention_word(void *user, const char *name, const char *value) {
    cli_problem *problem = user;
    clattn_attention_desc *desc = &problem->attention;
    double softcap;
    if (!value) {
        if (strcmp(name, "alibi") == 0) return desc->alibi = 1, true;
        if (strcmp(name, "sinks") == 0) return desc->sinks = 1, true;
        if (is_causal(name)) return problem->causal = true, true;
        return cli_parse_dtype(name, &desc->dtype);
    }
    if (strcmp(name, "window") == 0) return take_window(value, desc);
    if (strcmp(name, "mask") == 0) return take_mask(value, problem);
    if (strcmp(name, "softcap") != 0 || !cli_parse_double(value, &softcap) || !((float)softcap > 0)) return false;
    desc->softcap = (float)softcap;
    return true;
}

bool cli_problem_attention(cli_problem *problem, const char *text) {
    long long sizes[6];
    memset(problem, 0, sizeof *problem);
    clattn_attention_desc *desc = &problem->attention;
    clattn_attention_desc_init(desc);
    if (!cli_parse_shape("attention", CLI_ATTENTION_FORM, text, 6, sizes, attention_word, problem, problem->shape))
        return false;
    desc->batch = sizes[0];
    desc->query_heads = sizes[1];
    desc->kv_heads = sizes[2];
    desc->query_len = sizes[3];
    desc->kv_len = sizes[4];
    desc->head_dim = sizes[5];
    if (problem->causal) desc->causal = CLATTN_CAUSAL_BOTTOM_RIGHT;
    return true;
}

static bool layer_word(void *user, const char *name, const char *value) {
    cli_problem *problem = user;
    if (value) return false;
    if (is_causal(name)) return problem->causal = true, true;
    return cli_parse_dtype(name, &problem->mha.dtype);
}

bool cli_problem_layer(cli_problem *problem, const char *text) {
    long long sizes[4];
    memset(problem, 0, sizeof *problem);
    clattn_mha_desc *desc = &problem->mha;
    clattn_mha_desc_init(desc);
    if (!cli_parse_shape("layer", CLI_LAYER_FORM, text, 4, sizes, layer_word, problem, problem->shape)) return false;
    problem->layer = true;
    desc->batch = sizes[0];
    desc->query_len = sizes[1];
    desc->kv_len = sizes[1];
    desc->embed_dim = sizes[2];
    desc->heads = sizes[3];
    if (problem->causal) desc->causal = CLATTN_CAUSAL_TOP_LEFT;
    return true;
}

/* ---- work -------------------------------------------------------------------------------------------------------- */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t greatest(int64_t a, int64_t b) { return a > b ? a : b; }

void cli_problem_keys(const cli_problem *problem, int64_t i, int64_t *first, int64_t *last) {
    const clattn_attention_desc *d = &problem->attention;
    int64_t place = problem->causal ? i + d->kv_len - d->query_len : i;
    *first = 0;
    *last = d->kv_len - 1;
    if (problem->causal) *last = least(*last, place);
    if (d->window_left >= 0) *first = greatest(*first, place - d->window_left);
    if (d->window_right >= 0) *last = least(*last, place + d->window_right);
    if (problem->blocks) {
        *first = greatest(*first, i / CLI_BLOCK * CLI_BLOCK);
        *last = least(*last, i / CLI_BLOCK * CLI_BLOCK + CLI_BLOCK - 1);
    }
}

/* The sum of min(max(x, 0), keys) over x = 1 .. last. */
static double clamped_sum(double last, double keys) {
    const double x = fmax(0, fmin(last, keys));
    return x * (x + 1) / 2 + fmax(0, last - keys) * keys;
}

/* Pairs (i, j) of a row i < rows and a key j < keys with j < i + shift: row i has min(max(i + shift, 0), keys). */
static double pairs_before(double rows, double keys, double shift) {
    return clamped_sum(rows - 1 + shift, keys) - clamped_sum(shift - 1, keys);
}

/* Pairs of `rows` queries and `keys` keys that causal order and window allow: those up to the last key of each row less
 * those before its first. The size of the work is told before anything is known to fit, so nothing loops over it. */
static double band_pairs(const cli_problem *problem, int64_t rows, int64_t keys) {
    const clattn_attention_desc *d = &problem->attention;
    const double place = problem->causal ? (double)(d->kv_len - d->query_len) : 0; /* of row 0 */
    double all = (double)rows * (double)keys;
    if (problem->causal) all = pairs_before((double)rows, (double)keys, place + 1);
    if (d->window_right >= 0 && !problem->causal)
        all = pairs_before((double)rows, (double)keys, place + (double)d->window_right + 1);
    if (d->window_left >= 0) all -= pairs_before((double)rows, (double)keys, place - (double)d->window_left);
    return all;
}

/* Allowed pairs of query and key per head. Blocks that are whole have the same number. Of lengths that no plan takes
 * all pairs are counted: the difference of two such sums may have no digit that is right. */
static double pairs(const cli_problem *problem) {
    const int64_t rows = problem->attention.query_len, keys = problem->attention.kv_len;
    if (greatest(rows, keys) > INT32_MAX) return (double)rows * (double)keys;
    if (!problem->blocks) return band_pairs(problem, rows, keys);
    const int64_t whole = least(rows, keys) / CLI_BLOCK, done = whole * CLI_BLOCK;
    return (double)whole * band_pairs(problem, CLI_BLOCK, CLI_BLOCK) +
           band_pairs(problem, least(CLI_BLOCK, rows - done), least(CLI_BLOCK, keys - done));
}

double cli_problem_flops(const cli_problem *problem) {
    if (problem->layer) {
        const clattn_mha_desc *d = &problem->mha;
        double rows = (double)d->batch * (double)d->query_len, width = (double)d->embed_dim, keys = (double)d->kv_len;
        return 8 * rows * width * width + 4 * rows * (problem->causal ? (keys + 1) / 2 : keys) * width;
    }
    const clattn_attention_desc *d = &problem->attention;
    return 4 * (double)d->batch * (double)d->query_heads * pairs(problem) * (double)d->head_dim;
}

/* ---- data -------------------------------------------------------------------------------------------------------- */

/* A Weyl sequence through a 64-bit mixer: any seed is good, zero too. */
static uint64_t next(uint64_t *state) {
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
    return x ^ (x >> 32);
}

float cli_random_uniform(uint64_t *state) { return (float)(next(state) >> 40) / (float)(1 << 23) - 1.0f; }

/* The polar method: a point of the unit disc gives a normal value; the second one is dropped for simplicity. */
float cli_random_normal(uint64_t *state) {
    float x, y, radius;
    do {
        x = cli_random_uniform(state);
        y = cli_random_uniform(state);
        radius = x * x + y * y;
    } while (radius >= 1.0f || radius == 0.0f);
    return x * sqrtf(-2.0f * logf(radius) / radius);
}

static float *make_weight(int64_t count, float range, uint64_t *random) {
    float *weight = calloc((size_t)count, sizeof *weight);
    if (weight && random)
        for (int64_t i = 0; i < count; i++) weight[i] = range * cli_random_uniform(random);
    return weight;
}

bool cli_layer_weights_make(cli_layer_weights *weights, int64_t embed_dim, uint64_t *random) {
    memset(weights, 0, sizeof *weights);
    if (embed_dim < 1 || embed_dim > CLI_MOST_EMBED) return false;
    int64_t e = embed_dim;
    float range = 1.0f / sqrtf((float)e);
    weights->in_proj = make_weight(3 * e * e, range, random);
    weights->in_bias = make_weight(3 * e, range, random);
    weights->out_proj = make_weight(e * e, range, random);
    weights->out_bias = make_weight(e, range, random);
    if (!weights->in_proj || !weights->in_bias || !weights->out_proj || !weights->out_bias) {
        cli_layer_weights_free(weights);
        return false;
    }
    weights->tensors.in_proj_weight = clattn_host(weights->in_proj, CLATTN_F32, 2, 3 * e, e, 0, 0);
    weights->tensors.in_proj_bias = clattn_host(weights->in_bias, CLATTN_F32, 1, 3 * e, 0, 0, 0);
    weights->tensors.out_proj_weight = clattn_host(weights->out_proj, CLATTN_F32, 2, e, e, 0, 0);
    weights->tensors.out_proj_bias = clattn_host(weights->out_bias, CLATTN_F32, 1, e, 0, 0, 0);
    return true;
}

void cli_layer_weights_free(cli_layer_weights *weights) {
    free(weights->in_proj);
    free(weights->in_bias);
    free(weights->out_proj);
    free(weights->out_bias);
    memset(weights, 0, sizeof *weights);
}
