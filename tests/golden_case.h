/* One folder of stored cases (case.json and .npy files): loading, and the descriptions it stands for.
 * tests/golden/README.md has the format and where the numbers come from. */
#ifndef CLATTN_TEST_GOLDEN_CASE_H
#define CLATTN_TEST_GOLDEN_CASE_H

#include <cjson/cJSON.h>

#include "../cli/cli.h"
#include "clattn/clattn.h"

enum { GOLDEN_TENSORS = 32, GOLDEN_BUFFERS = 16 };

typedef struct golden_tensor {
    const char *role; /* inside the JSON text's tree */
    cli_array array;
} golden_tensor;

typedef struct golden_case {
    cJSON *json;
    golden_tensor tensors[GOLDEN_TENSORS]; /* inputs and outputs by role */
    int count;
} golden_case;

/* False with a sentence in `why`. Outputs named grad_* are not loaded: there are no gradients to compare with. */
bool golden_load(golden_case *c, const char *folder, char why[512]);
void golden_free(golden_case *c);
const cli_array *golden_find(const golden_case *c, const char *role); /* NULL: the case has none */
const char *golden_op(const golden_case *c);
double golden_number(const golden_case *c, const char *attribute, double otherwise);
bool golden_flag(const golden_case *c, const char *attribute);
const char *golden_text(const golden_case *c, const char *attribute); /* "" when absent */

/* A case as a call of the library. Outputs lie in own buffers with the same element order as the stored arrays. */
typedef struct golden_problem {
    clattn_attention_desc attention;
    clattn_attention_io attention_io;
    clattn_mha_desc mha;
    clattn_mha_weights mha_weights;
    clattn_mha_io mha_io;
    void *buffers[GOLDEN_BUFFERS];
    int buffer_count;
} golden_problem;

/* op "attention" and op "mha"; false with the reason when the library has no such option. */
bool golden_attention(const golden_case *c, golden_problem *p, char why[512]);
bool golden_mha(const golden_case *c, golden_problem *p, char why[512]);
void golden_problem_free(golden_problem *p);

/* Compares one output with the stored one by the case's own tolerance: |got - want| <= atol + rtol |want|. Does nothing
 * when the case does not store that role. */
void golden_check(const golden_case *c, const char *role, const clattn_tensor *got);

#endif
