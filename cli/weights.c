/* Finds the tensors of one multi-head layer by the names that other projects give them. */
#include <string.h>

#include "file.h"

enum { MAX_ROLES = 12, MAX_CANDIDATES = 1024 };

/* One tensor of a layer: up to two spellings of its name behind the prefix, and where it goes. */
typedef struct role {
    const char *name, *other;
    size_t field; /* offset in clattn_mha_weights */
    bool optional;
    bool vector; /* rank 1 for the library, whatever extents of 1 the file adds */
} role;

#define FIELD(name) offsetof(clattn_mha_weights, name)
#define BIAS(name, field)                                                                                              \
    { name, NULL, FIELD(field), true, true }
#define OUT_PROJ                                                                                                       \
    {"out_proj.weight", "out_proj_weight", FIELD(out_proj_weight), false, false},                                      \
        {"out_proj.bias", "out_proj_bias", FIELD(out_proj_bias), true, true}, BIAS("bias_k", bias_k),                  \
        BIAS("bias_v", bias_v)

/* The first role of a scheme is the one by which its layers are recognised. */
static const struct scheme {
    const char *title;
    role roles[MAX_ROLES];
} schemes[] = {
    {"PyTorch, packed",
     {{"in_proj_weight", NULL, FIELD(in_proj_weight), false, false}, BIAS("in_proj_bias", in_proj_bias), OUT_PROJ}},
    {"PyTorch, separate",
     {{"q_proj_weight", NULL, FIELD(q_proj_weight), false, false},
      {"k_proj_weight", NULL, FIELD(k_proj_weight), false, false},
      {"v_proj_weight", NULL, FIELD(v_proj_weight), false, false},
      BIAS("in_proj_bias", in_proj_bias),
      OUT_PROJ}},
    {"BERT",
     {{"attention.self.query.weight", NULL, FIELD(q_proj_weight), false, false},
      {"attention.self.key.weight", NULL, FIELD(k_proj_weight), false, false},
      {"attention.self.value.weight", NULL, FIELD(v_proj_weight), false, false},
      {"attention.output.dense.weight", NULL, FIELD(out_proj_weight), false, false},
      BIAS("attention.self.query.bias", q_proj_bias),
      BIAS("attention.self.key.bias", k_proj_bias),
      BIAS("attention.self.value.bias", v_proj_bias),
      BIAS("attention.output.dense.bias", out_proj_bias)}},
    {"q_proj",
     {{"q_proj.weight", NULL, FIELD(q_proj_weight), false, false},
      {"k_proj.weight", NULL, FIELD(k_proj_weight), false, false},
      {"v_proj.weight", NULL, FIELD(v_proj_weight), false, false},
      {"out_proj.weight", "o_proj.weight", FIELD(out_proj_weight), false, false},
      BIAS("q_proj.bias", q_proj_bias),
      BIAS("k_proj.bias", k_proj_bias),
      BIAS("v_proj.bias", v_proj_bias),
      {"out_proj.bias", "o_proj.bias", FIELD(out_proj_bias), true, true}}},
};

/* A layer that the file holds: its scheme and the length of the prefix in the name of its first tensor. */
typedef struct candidate {
    const struct scheme *scheme;
    const char *name;
    size_t prefix;
} candidate;

/* ---- messages that list things ------------------------------------------------------------------------------ */

/* Adds to a list in `text`; what does not fit is replaced by dots once. */
static void list_item(char *text, size_t size, const char *separator, const char *item, size_t length) {
    static const char more[] = ", ...";
    size_t at = strlen(text), wanted = strlen(separator) + length;
    if (at >= sizeof more && strcmp(text + at + 1 - sizeof more, more) == 0) return;
    if (at + wanted + sizeof more <= size)
        snprintf(text + at, size - at, "%s%.*s", separator, (int)length, item);
    else if (at + sizeof more <= size)
        memcpy(text + at, more, sizeof more);
}

static void list_names(const cli_tensors *tensors, char *text, size_t size) {
    if (tensors->count == 0) list_item(text, size, "", "nothing", strlen("nothing"));
    for (int i = 0; i < tensors->count; i++)
        list_item(text, size, i ? ", " : "", tensors->items[i].name, strlen(tensors->items[i].name));
}

static void list_prefixes(const candidate *found, int count, char *text, size_t size) {
    for (int i = 0; i < count; i++) {
        list_item(text, size, i ? ", '" : "'", found[i].name, found[i].prefix);
        list_item(text, size, "", "'", 1);
    }
}

/* ---- finding ------------------------------------------------------------------------------------------------ */

/* The length of what stands before `suffix` in `name`; -1 when it does not end so or the prefix ends inside a word. */
static long prefix_before(const char *name, const char *suffix) {
    size_t n = strlen(name), m = strlen(suffix);
    if (n < m || strcmp(name + n - m, suffix) != 0) return -1;
    return n == m || name[n - m - 1] == '.' ? (long)(n - m) : -1;
}

/* "encoder.layer.0" and "encoder.layer.0." both name the layer. */
static bool same_prefix(const char *name, size_t length, const char *prefix) {
    size_t wanted = strlen(prefix);
    if (wanted > 0 && prefix[wanted - 1] == '.') wanted--;
    if (length > 0) length--; /* its own dot */
    return length == wanted && strncmp(name, prefix, wanted) == 0;
}

static int find_candidates(const cli_tensors *tensors, const char *prefix, candidate *found) {
    int count = 0;
    for (int i = 0; i < tensors->count; i++)
        for (size_t s = 0; s < sizeof schemes / sizeof schemes[0] && count < MAX_CANDIDATES; s++) {
            const char *name = tensors->items[i].name;
            long length = prefix_before(name, schemes[s].roles[0].name);
            if (length < 0 || (prefix && !same_prefix(name, (size_t)length, prefix))) continue;
            found[count++] = (candidate){&schemes[s], name, (size_t)length};
        }
    return count;
}

static cli_array *find_role(const cli_tensors *tensors, const candidate *layer, const char *role_name) {
    if (!role_name) return NULL;
    for (int i = 0; i < tensors->count; i++) {
        const char *name = tensors->items[i].name;
        if (strncmp(name, layer->name, layer->prefix) == 0 && strcmp(name + layer->prefix, role_name) == 0)
            return &tensors->items[i];
    }
    return NULL;
}

static bool take_role(const cli_tensors *tensors, const candidate *layer, const role *r, clattn_mha_weights *weights,
                      char *why, size_t size) {
    cli_array *array = find_role(tensors, layer, r->name);
    if (!array) array = find_role(tensors, layer, r->other);
    if (!array && r->optional) return true;
    if (!array) {
        cli_why(why, size, "the layer (%s names) lacks '%.*s%s'%s%s; the file holds ", layer->scheme->title,
                (int)layer->prefix, layer->name, r->name, r->other ? " or " : "", r->other ? r->other : "");
        list_names(tensors, why, size);
        return false;
    }
    char reason[256];
    const bool is_half = array->dtype == CLATTN_F16 || array->dtype == CLATTN_BF16; /* the library takes those */
    if (!is_half && !cli_array_to_f32(array, reason)) return cli_why(why, size, "tensor '%s': %s", array->name, reason);
    if (array->rank > CLATTN_MAX_RANK)
        return cli_why(why, size, "tensor '%s' has rank %d; it must be at most %d", array->name, array->rank,
                       CLATTN_MAX_RANK);
    clattn_tensor tensor = cli_array_tensor(array);
    if (r->vector && tensor.rank > 1 && tensor.shape[tensor.rank - 1] == cli_array_elements(array))
        tensor = clattn_host(array->data, array->dtype, 1, cli_array_elements(array), 0, 0, 0);
    memcpy((char *)weights + r->field, &tensor, sizeof tensor);
    return true;
}

bool cli_weights_find(const cli_tensors *tensors, const char *prefix, clattn_mha_weights *weights, char *why,
                      size_t size) {
    candidate found[MAX_CANDIDATES];
    memset(weights, 0, sizeof *weights);
    int count = find_candidates(tensors, prefix, found);
    if (count > 1) {
        cli_why(why, size, "%d layers match, choose one with --prefix: ", count);
        list_prefixes(found, count, why, size);
        return false;
    }
    if (count == 0) {
        int all = find_candidates(tensors, NULL, found);
        cli_why(why, size, "no multi-head layer%s%s%s found by name; ", prefix ? " under the prefix '" : "",
                prefix ? prefix : "", prefix ? "'" : "");
        if (all > 0)
            list_item(why, size, "", "there are layers under ", strlen("there are layers under "));
        else
            list_item(why, size, "", "the file holds ", strlen("the file holds "));
        if (all > 0)
            list_prefixes(found, all, why, size);
        else
            list_names(tensors, why, size);
        return false;
    }
    for (int i = 0; i < MAX_ROLES && found[0].scheme->roles[i].name; i++)
        if (!take_role(tensors, &found[0], &found[0].scheme->roles[i], weights, why, size)) return false;
    return true;
}
