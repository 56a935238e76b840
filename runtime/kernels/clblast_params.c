/* Tuning parameters of CLBlast's products: their names and rules, the text that gives them, and which are in force.
 *
 * CLBlast keeps them by device for the whole process, exchanges them under plans that exist, and cannot tell what they
 * are. So what is in force is remembered here, and may only be set before the first plan that uses it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/gemm.h"

static const char *const FIELD = "options.clblast_parameters";
enum { DEVICES = 64, ABSENT = -1 };

/* ---- what there is ----------------------------------------------------------------------------------------------- */

enum { XGEMM, DIRECT, ROUTINE, KERNELS };
typedef enum range {
    COUNT, /* 1..1024 */
    FLAG,  /* 0..1 */
    WIDTH, /* of a vector: 1, 2, 4, 8, 16 */
    SIDE,  /* of the smallest matrix for the large kernel: 0..65536 */
} range;
typedef struct parameter {
    const char *name;
    range range;
} parameter;

/* Those of CLBlast 1.5 and later, of the two kernels for float32 products, and of the choice between them. */
static const struct {
    const char *name;
    parameter parameters[CLATTN__CLBLAST_PARAMS];
} kernels[KERNELS] = {
    [XGEMM] = {"Xgemm",
               {{"GEMMK", FLAG},
                {"KREG", COUNT},
                {"KWG", COUNT},
                {"KWI", COUNT},
                {"MDIMA", COUNT},
                {"MDIMC", COUNT},
                {"MWG", COUNT},
                {"NDIMB", COUNT},
                {"NDIMC", COUNT},
                {"NWG", COUNT},
                {"SA", FLAG},
                {"SB", FLAG},
                {"STRM", FLAG},
                {"STRN", FLAG},
                {"VWM", WIDTH},
                {"VWN", WIDTH}}},
    [DIRECT] = {"XgemmDirect",
                {{"KWID", COUNT},
                 {"MDIMAD", COUNT},
                 {"MDIMCD", COUNT},
                 {"NDIMBD", COUNT},
                 {"NDIMCD", COUNT},
                 {"PADA", FLAG},
                 {"PADB", FLAG},
                 {"VWMD", WIDTH},
                 {"VWND", WIDTH},
                 {"WGD", COUNT}}},
    [ROUTINE] = {"GemmRoutine", {{"XGEMM_MIN_INDIRECT_SIZE", SIDE}}},
};

/* What makes whole tiles, as CLBlast's own tuners demand it: `of` is a multiple of a * b / over, a whole number. */
static const struct rule {
    int kernel;
    const char *of, *a, *b, *over; /* b and over may be NULL */
    int gemmk;                     /* only with this value of GEMMK; ABSENT: always */
} rules[] = {
    {XGEMM, "KWG", "KWI", NULL, NULL, ABSENT},
    {XGEMM, "MWG", "MDIMC", "VWM", NULL, ABSENT},
    {XGEMM, "NWG", "NDIMC", "VWN", NULL, ABSENT},
    {XGEMM, "MWG", "MDIMA", "VWM", NULL, ABSENT},
    {XGEMM, "NWG", "NDIMB", "VWN", NULL, ABSENT},
    {XGEMM, "KWG", "MDIMC", "NDIMC", "MDIMA", 0},
    {XGEMM, "KWG", "MDIMC", "NDIMC", "NDIMB", 0},
    {XGEMM, "KREG", "VWN", NULL, NULL, 1},
    {DIRECT, "WGD", "KWID", NULL, NULL, ABSENT},
    {DIRECT, "WGD", "MDIMCD", "VWMD", NULL, ABSENT},
    {DIRECT, "WGD", "NDIMCD", "VWND", NULL, ABSENT},
    {DIRECT, "WGD", "MDIMAD", "VWMD", NULL, ABSENT},
    {DIRECT, "WGD", "NDIMBD", "VWND", NULL, ABSENT},
    {DIRECT, "WGD", "MDIMCD", "NDIMCD", "MDIMAD", ABSENT},
    {DIRECT, "WGD", "MDIMCD", "NDIMCD", "NDIMBD", ABSENT},
};

/* Values by kernel, in the order of its parameters; ABSENT where CLBlast chooses. */
typedef struct values {
    int of[KERNELS][CLATTN__CLBLAST_PARAMS];
} values;

static void clear(values *v) {
    for (int k = 0; k < KERNELS; k++)
        for (int p = 0; p < CLATTN__CLBLAST_PARAMS; p++) v->of[k][p] = ABSENT;
}

static bool is_given(const values *v, int kernel) { return v->of[kernel][0] != ABSENT; }

static int count_of(int kernel) {
    int count = 0;
    while (count < CLATTN__CLBLAST_PARAMS && kernels[kernel].parameters[count].name) count++;
    return count;
}

static int parameter_named(int kernel, const char *name) {
    for (int p = 0; p < count_of(kernel); p++)
        if (strcmp(kernels[kernel].parameters[p].name, name) == 0) return p;
    return ABSENT;
}

/* 1 for NULL, which changes no product. */
static int value_named(const values *v, int kernel, const char *name) {
    return name ? v->of[kernel][parameter_named(kernel, name)] : 1;
}

/* "Xgemm GEMMK=0 ...", kernels that are given one after the other. */
static void add_text(clattn__text *text, const values *v) {
    for (int k = 0; k < KERNELS; k++) {
        if (!is_given(v, k)) continue;
        clattn__text_add(text, "%s%s", text->length ? "; " : "", kernels[k].name);
        for (int p = 0; p < count_of(k); p++)
            clattn__text_add(text, " %s=%d", kernels[k].parameters[p].name, v->of[k][p]);
    }
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static clattn_status unknown_name(const char *what, const char *name, int kernel) {
    clattn__text known = {0};
    const int count = kernel < 0 ? KERNELS : count_of(kernel);
    for (int i = 0; i < count; i++)
        clattn__text_add(&known, "%s%s", i ? ", " : "",
                         kernel < 0 ? kernels[i].name : kernels[kernel].parameters[i].name);
    clattn_status status = clattn__fail(CLATTN_INVALID_ARGUMENT, "%s: %s is \"%s\"; it must be one of %s", FIELD, what,
                                        name, known.data ? known.data : "");
    clattn__text_free(&known);
    return status;
}

static clattn_status check_range(const char *kernel, const parameter *p, const char *text, int *value) {
    static const struct {
        int low, high;
        const char *rule;
    } ranges[] = {[COUNT] = {1, 1024, "a whole number in 1..1024"},
                  [FLAG] = {0, 1, "0 or 1"},
                  [WIDTH] = {1, 16, "1, 2, 4, 8 or 16"},
                  [SIDE] = {0, 65536, "a whole number in 0..65536"}};
    char *end;
    const long number = strtol(text, &end, 10);
    const bool whole = text[0] >= '0' && text[0] <= '9' && *end == '\0';
    const bool fits = number >= ranges[p->range].low && number <= ranges[p->range].high;
    if (!whole || !fits || (p->range == WIDTH && (number & (number - 1))))
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s: %s of %s is \"%s\"; it must be %s", FIELD, p->name, kernel,
                            text, ranges[p->range].rule);
    *value = (int)number;
    return CLATTN_OK;
}

/* NAME=VALUE */
static clattn_status take_pair(values *v, int kernel, char *pair) {
    char *equals = strchr(pair, '=');
    if (!equals)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s: \"%s\" of %s is no NAME=VALUE", FIELD, pair,
                            kernels[kernel].name);
    *equals = '\0';
    const int p = parameter_named(kernel, pair);
    char what[64];
    snprintf(what, sizeof what, "a parameter of %s", kernels[kernel].name);
    if (p < 0) return unknown_name(what, pair, kernel);
    if (v->of[kernel][p] != ABSENT)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s: %s of %s is given twice", FIELD, pair, kernels[kernel].name);
    return check_range(kernels[kernel].name, &kernels[kernel].parameters[p], equals + 1, &v->of[kernel][p]);
}

static clattn_status check_rules(const values *v, int kernel) {
    for (int p = 0; p < count_of(kernel); p++)
        if (v->of[kernel][p] == ABSENT)
            return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s: %s of %s is missing; CLBlast takes all of them or none",
                                FIELD, kernels[kernel].parameters[p].name, kernels[kernel].name);
    for (size_t i = 0; i < CLATTN__COUNT(rules); i++) {
        const struct rule *r = &rules[i];
        if (r->kernel != kernel || (r->gemmk != ABSENT && r->gemmk != value_named(v, XGEMM, "GEMMK"))) continue;
        const int of = value_named(v, kernel, r->of), over = value_named(v, kernel, r->over);
        const int product = value_named(v, kernel, r->a) * value_named(v, kernel, r->b);
        if (product % over != 0)
            return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s: %s * %s of %s is %d; it must be a multiple of %s, %d",
                                FIELD, r->a, r->b, kernels[kernel].name, product, r->over, over);
        if (of % (product / over) != 0)
            return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s: %s of %s is %d; it must be a multiple of %s%s%s%s%s, %d",
                                FIELD, r->of, kernels[kernel].name, of, r->a, r->b ? " * " : "", r->b ? r->b : "",
                                r->over ? " / " : "", r->over ? r->over : "", product / over);
    }
    return CLATTN_OK;
}

/* The next part of the text that ends at one of the marks, NUL behind it; NULL at the end. */
static char *next_part(char **at, const char *marks) {
    char *part = *at + strspn(*at, marks);
    if (*part == '\0') return NULL;
    char *end = part + strcspn(part, marks);
    *at = *end ? end + 1 : end;
    *end = '\0';
    return part;
}

/* KERNEL NAME=VALUE NAME=VALUE ... */
static clattn_status take_kernel(values *v, char *statement) {
    static const char *const BLANKS = " \t\r,";
    int kernel = 0;
    const char *name = next_part(&statement, BLANKS);
    if (!name) return CLATTN_OK;
    while (kernel < KERNELS && strcmp(kernels[kernel].name, name) != 0) kernel++;
    if (kernel == KERNELS) return unknown_name("a kernel", name, -1);
    clattn_status status = CLATTN_OK;
    for (char *pair; status == CLATTN_OK && (pair = next_part(&statement, BLANKS));)
        status = take_pair(v, kernel, pair);
    return status == CLATTN_OK ? check_rules(v, kernel) : status;
}

static clattn_status parse(const char *text, values *v) {
    char *copy = clattn__strdup(text), *line, *statement;
    clattn_status status = copy ? CLATTN_OK : CLATTN_OUT_OF_MEMORY;
    clear(v);
    for (char *lines = copy; status == CLATTN_OK && (line = next_part(&lines, "\n"));) {
        line[strcspn(line, "#")] = '\0';
        while (status == CLATTN_OK && (statement = next_part(&line, ";"))) status = take_kernel(v, statement);
    }
    clattn__free(copy);
    return status;
}

/* ---- what is in force -------------------------------------------------------------------------------------------- */

typedef struct in_force {
    cl_device_id device;
    bool used; /* by a plan: they stay as they are */
    values values;
} in_force;

/* Of this process, as in CLBlast itself; under the process's lock. */
static in_force devices[DEVICES];
static int device_count;
static int users; /* contexts */

static in_force *find(cl_device_id device) {
    for (int i = 0; i < device_count; i++)
        if (devices[i].device == device) return &devices[i];
    return NULL;
}

static clattn_status find_or_add(cl_device_id device, in_force **found) {
    *found = find(device);
    if (*found) return CLATTN_OK;
    if (device_count == DEVICES)
        return clattn__fail(CLATTN_UNSUPPORTED, "CLBlast was used on %d devices of this process; that is the most",
                            DEVICES);
    *found = &devices[device_count++];
    (*found)->device = device;
    clear(&(*found)->values);
    return CLATTN_OK;
}

#ifndef CLATTN_WITH_CLBLAST
clattn_status clattn__clblast_apply(clattn__env *env, const char *kernel, const char **names, const int *values,
                                    int count) {
    (void)env, (void)kernel, (void)names, (void)values, (void)count;
    return clattn__fail(CLATTN_UNSUPPORTED, "%s: this library was built without CLBlast", FIELD);
}

void clattn__clblast_forget(void) {}
#endif

static clattn_status set_once(clattn__env *env, in_force *now, const values *wanted) {
    clattn__text before = {0};
    clattn_status status = CLATTN_OK;
    add_text(&before, &now->values);
    const bool same = memcmp(&now->values, wanted, sizeof *wanted) == 0;
    if (!same && (now->used || before.length))
        status = clattn__fail(CLATTN_INVALID_ARGUMENT,
                              "%s: CLBlast works on %s with %s in this process already; they must be given before the "
                              "first plan, and be the same for each context",
                              FIELD, env->device.caps.name, before.length ? before.data : "parameters of its own");
    clattn__text_free(&before);
    for (int k = 0; k < KERNELS && !same && status == CLATTN_OK; k++) {
        if (!is_given(wanted, k)) continue;
        const char *names[CLATTN__CLBLAST_PARAMS];
        for (int p = 0; p < count_of(k); p++) names[p] = kernels[k].parameters[p].name;
        status = clattn__clblast_apply(env, kernels[k].name, names, wanted->of[k], count_of(k));
        if (status == CLATTN_OK) memcpy(now->values.of[k], wanted->of[k], sizeof now->values.of[k]);
    }
    return status;
}

clattn_status clattn__clblast_override(clattn__env *env, const char *text) {
    values wanted;
    in_force *now;
    if (!text) return CLATTN_OK;
    clattn_status status = parse(text, &wanted);
    if (status != CLATTN_OK) return status;
    clattn__mutex_lock(clattn__process_lock());
    status = find_or_add(env->device.id, &now);
    if (status == CLATTN_OK) status = set_once(env, now, &wanted);
    clattn__mutex_unlock(clattn__process_lock());
    return status;
}

void clattn__clblast_key(const clattn__env *env, char key[33]) {
    clattn__text text = {0};
    clattn__mutex_lock(clattn__process_lock());
    const in_force *now = find(env->device.id);
    if (now) add_text(&text, &now->values);
    clattn__mutex_unlock(clattn__process_lock());
    key[0] = '\0';
    if (text.length) clattn__hash_hex(text.data, text.length, key);
    clattn__text_free(&text);
}

/* CLBlast would keep them until the process ends, each with its context, and release them when some drivers are gone
 * already. */
void clattn__clblast_leave(clattn__env *env) {
    clattn__mutex_lock(clattn__process_lock());
    if (env->clblast && --users == 0) clattn__clblast_forget();
    env->clblast = false;
    clattn__mutex_unlock(clattn__process_lock());
}

clattn_status clattn__clblast_use(clattn__env *env, char *text, size_t capacity) {
    in_force *now;
    clattn__mutex_lock(clattn__process_lock());
    clattn_status status = find_or_add(env->device.id, &now);
    if (status == CLATTN_OK) {
        int used = snprintf(text, capacity, "as CLBlast chooses");
        for (int k = 0; k < KERNELS; k++)
            if (is_given(&now->values, k))
                used += snprintf(text + used, capacity - (size_t)used, ", %s overridden", kernels[k].name);
        now->used = true;
        users += !env->clblast;
        env->clblast = true;
    }
    clattn__mutex_unlock(clattn__process_lock());
    return status;
}
