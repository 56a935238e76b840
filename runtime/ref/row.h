/* Private to ref/: what is known of one query row after the passes of attention.c; tolerance.c reads it. */
#ifndef CLATTN_REF_ROW_H
#define CLATTN_REF_ROW_H

#include "ref/ref.h"

typedef struct clattn__ref_row {
    int64_t b, h, g, i; /* batch, query head, key/value head, query row */
    int64_t length;     /* keys from here on are never read */
    int64_t prefix;     /* keys before it are not hidden by causal */
    int64_t position;   /* origin of causal, window and ALiBi */
    double *raw;        /* (Sk) scale * <q, k>                              */
    double *capped;     /* (Sk) after softcap                               */
    double *logit;      /* (Sk) after the additive terms, before / t        */
    double *weight;     /* (Sk) after softmax; 0 where forbidden            */
    double *dropout;    /* (Sk) what dropout makes of each weight: 0 or the factor of kept ones; 1 without */
    bool *allowed;      /* (Sk)                                             */
    bool empty;         /* no key is allowed                                */
    double max, sum;    /* of logit / t and of exp(logit / t - max), sink included */
    double sink_weight; /* share of the sink in the softmax, else 0         */
    double lse;
    double *output;    /* (Dv) */
    double *rounded;   /* (Sk) tolerance.c: how much each weight may grow by rounding */
    double *inherited; /* (Sk) tolerance.c: the same by errors of query and key       */
} clattn__ref_row;

/* Whether key j exists for this row: the lengths end before it otherwise. */
bool clattn__ref_key_exists(const clattn__ref_attention *p, const clattn__ref_row *row, int64_t j);
/* score.c: one score without the scale. */
double clattn__ref_score(const clattn__ref_attention *p, const clattn__ref_row *row, int64_t j);
/* score.c: rounding of raw_j, and what errors of query and key do to it. */
void clattn__ref_score_errors(const clattn__ref_attention *p, const clattn__ref_row *row, int64_t j, double *rounding,
                              double *inherited);
/* The float mask and ALiBi term of key j; -inf when the float mask forbids. */
double clattn__ref_additive(const clattn__ref_attention *p, const clattn__ref_row *row, int64_t j);

/* Writes the tolerances that the problem asks for. average: (Sk), averaged weights add their share there. */
void clattn__ref_row_tolerance(const clattn__ref_attention *p, clattn__ref_row *row, double *average);

#endif
