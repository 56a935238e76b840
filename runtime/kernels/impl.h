/* The contract between the registry and the host half of each kernel: supports, prepare, enqueue. */
#ifndef CLATTN_IMPL_H
#define CLATTN_IMPL_H

#include "../../cl/shared/args.h"
#include "../../cl/shared/cache_args.h"
#include "../../cl/shared/layer_args.h"
#include "clattn/attention.h"
#include "clattn/kv_cache.h"
#include "clattn/layers.h"
#include "clattn/softmax.h"
#include "program/program.h"

/* Why a kernel does not serve a problem, in one sentence with the numbers. */
typedef struct clattn__refusal {
    char text[256];
} clattn__refusal;
bool clattn__refuse(clattn__refusal *why, const char *format, ...) CLATTN__PRINTF(2, 3); /* always false */

/* What a kernel may choose without changing what it computes: tile sizes, shapes of work-groups (params.c). A kernel
 * names its parameters and lists the sets of values that serve a problem on a device, its own choice first. A set that
 * is not in the list is never taken, so that no file can hand a kernel a tile of size 0. */
enum { CLATTN__PARAMS = 8, CLATTN__CANDIDATES = 24 };
typedef struct clattn__params {
    int value[CLATTN__PARAMS]; /* in the order of the names; 0 behind the last */
} clattn__params;
typedef struct clattn__candidates {
    clattn__params set[CLATTN__CANDIDATES];
    int count;
    bool timed; /* the first is there because it was the fastest, and is taken even if registers spill */
} clattn__candidates;
/* Adds a set unless it is there already; what goes beyond the room is left out. */
void clattn__candidates_add(clattn__candidates *list, clattn__params set);
/* Puts a set first, the others keep their order; false when it is not in the list. */
bool clattn__candidates_prefer(clattn__candidates *list, const clattn__params *set);
/* "lanes 16, rows 4"; "" without parameters. */
void clattn__params_text(const char *const *names, const clattn__params *params, char *text, size_t capacity);

/* What a description asks for beyond plain softmax(Q K^T) V. A kernel lists what it can do; a bit that it does not list
 * is refused, so a new feature is refused everywhere until a kernel claims it. */
#define CLATTN__FEATURE_MAP(X)                                                                                         \
    X(CAUSAL, 0, "causal")                                                                                             \
    X(WINDOW, 1, "window")                                                                                             \
    X(MASK_BOOL, 2, "bool mask")                                                                                       \
    X(MASK_FLOAT, 3, "float mask")                                                                                     \
    X(PADDING, 4, "padding mask")                                                                                      \
    X(LENGTHS, 5, "kv lengths")                                                                                        \
    X(SOFTCAP, 6, "softcap")                                                                                           \
    X(ALIBI, 7, "ALiBi")                                                                                               \
    X(SINKS, 8, "sinks")                                                                                               \
    X(LSE, 9, "logsumexp output")                                                                                      \
    X(WEIGHTS, 10, "weights output")                                                                                   \
    X(AVERAGED_WEIGHTS, 11, "averaged weights output")                                                                 \
    X(SCORES, 12, "scores output")                                                                                     \
    X(ALWAYS_KEYS, 13, "appended keys")                                                                                \
    X(OFFSET_FROM_LENGTHS, 14, "causal offset from kv lengths")                                                        \
    X(SCORE_GAUSSIAN, 15, "Gaussian score")                                                                            \
    X(SCORE_ADDITIVE, 16, "additive score")                                                                            \
    X(SCORE_LINEAR, 17, "additive score without tanh")                                                                 \
    X(SCORE_WEIGHT, 18, "score weight")                                                                                \
    X(SCORE_BIAS, 19, "score bias")                                                                                    \
    X(DROPOUT, 20, "dropout")                                                                                          \
    X(PREFIX, 21, "prefix")                                                                                            \
    X(DOCUMENTS, 22, "documents")                                                                                      \
    X(VARLEN, 23, "packed sequences")                                                                                  \
    X(PAGED, 24, "paged keys")                                                                                         \
    X(RING, 25, "ring of keys")                                                                                        \
    X(CELLS, 26, "keys of another type")
typedef enum clattn__feature {
#define CLATTN__FEATURE_ENUM(name, bit, text) CLATTN__##name = 1 << bit,
    CLATTN__FEATURE_MAP(CLATTN__FEATURE_ENUM)
#undef CLATTN__FEATURE_ENUM
} clattn__feature;
/* Features with argument slots of their own (from ATTN_FEATURE_SLOTS on): a kernel that lists one declares them all. */
#define CLATTN__FEATURE_SLOTS                                                                                          \
    (CLATTN__SCORE_WEIGHT | CLATTN__SCORE_BIAS | CLATTN__PREFIX | CLATTN__DOCUMENTS | CLATTN__VARLEN |                 \
     CLATTN__CACHE_FEATURES)
/* Keys and values that are read as a cache holds them. */
#define CLATTN__CACHE_FEATURES (CLATTN__PAGED | CLATTN__RING | CLATTN__CELLS)
#define CLATTN__SCORE_KINDS                                                                                            \
    (CLATTN__SCORE_GAUSSIAN | CLATTN__SCORE_ADDITIVE | CLATTN__SCORE_LINEAR | CLATTN__SCORE_WEIGHT | CLATTN__SCORE_BIAS)
void clattn__features_text(uint32_t features, char *text, size_t capacity); /* "causal, window" or "none" */
bool clattn__refuse_features(clattn__refusal *why, uint32_t wanted,
                             uint32_t supported); /* true when all are supported */

/* All that may shape a binary or a choice. Lengths are the greatest that calls of this kernel will have. */
typedef struct clattn__attn_problem {
    uint32_t features;
    clattn_dtype dtype, cells; /* cells: of key and value, with CELLS */
    clattn_precision precision;
    clattn_scores_output scores;
    int64_t batch, query_heads, kv_heads, query_len, kv_len, head_dim, value_dim;
    bool shared_mask; /* the mask is the same for all heads */
} clattn__attn_problem;

/* One call: launch arguments (sizes, strides, offsets) and the buffers. */
typedef struct clattn__attn_call {
    clattn_attn_args args;
    cl_mem mem[ATTN_SLOTS]; /* by clattn_attn_slot; NULL when absent */
    bool unshared; /* each work-group walks all keys of its rows, where several would share them; the same bits */
} clattn__attn_call;

typedef struct clattn__attn_impl clattn__attn_impl;
/* A prepared kernel: built, with its own cl_kernel objects. One thread at a time. */
typedef struct clattn__attn_kernel {
    const clattn__attn_impl *impl;
    clattn__programs *programs;
    clattn__attn_problem problem;
    clattn__params params; /* set before prepare */
    cl_kernel kernel;
    clattn__program *program; /* its key names the variant; NULL for the host kernel */
    int block_q, block_kv;    /* tile sizes; verification tries lengths around them */
    int block_heads;          /* attn_cpu: query heads of a work-group */
    int block_tiles;          /* attn_cpu: tiles of block_q rows of a work-group */
    int value_groups;         /* attn_matrix: work-groups of one tile, each with some of V's columns; 0: one */
    size_t local_items[3];    /* work-group shape */
    cl_kernel merge;          /* of partial results, where there are any */
    clattn__buffer scratch;   /* for them, or for what a launch leaves to the next one */
    int64_t part_keys;        /* keys that a launch walks; 0: all there are */
    size_t kept_bytes;        /* of a tile, from part to part */
    char tiles[224];          /* in words, for explain */
    const char *origin;       /* of params, in words; a constant */
} clattn__attn_kernel;

struct clattn__attn_impl {
    const char *name; /* "attn_cpu" */
    const char *what; /* one line for explain and docs */
    uint32_t features;
    bool has_rival;      /* a kernel behind it in the list may be faster: clattn_tune compares them */
    bool uses_engine;    /* the matrix engine, which is probed before anything is computed with it */
    bool walks_parts;    /* of the keys, where there are too many for one launch */
    bool rounds_weights; /* to the storage type, before they meet V: part of the error model, and not with strict
                            precision; and so the numbers that cells of another type stand for */
    bool (*supports)(const clattn__attn_problem *problem, const clattn__caps *caps, clattn__refusal *why);
    const char *params[CLATTN__PARAMS]; /* names, NULL behind the last */
    /* Of a problem that it supports; NULL for a kernel without parameters. */
    void (*candidates)(const clattn__attn_problem *problem, const clattn__caps *caps, clattn__candidates *list);
    /* problem, programs and params are set; fills the rest. UNSUPPORTED: not with these parameters. */
    clattn_status (*prepare)(clattn__attn_kernel *kernel);
    clattn_status (*enqueue)(clattn__attn_kernel *kernel, const clattn__attn_call *call);
};
void clattn__attn_kernel_clear(clattn__attn_kernel *kernel); /* attn_common.c */
/* params.c: the kernel's candidates, or one empty set; and preparation with the first that the built kernel can run
 * with and that fits into registers, by what the driver says of it. list NULL: the kernel's own. impl, problem and
 * programs are set. */
void clattn__attn_candidates(const clattn__attn_impl *impl, const clattn__attn_problem *problem,
                             const clattn__caps *caps, clattn__candidates *list);
clattn_status clattn__attn_prepare(clattn__attn_kernel *kernel, const clattn__candidates *list);
/* attn_common.c: sets all slots of call on kernel->kernel; -D options that every attention kernel shares (features,
 * dims, types, quirks). */
clattn_status clattn__attn_set_args(clattn__attn_kernel *kernel, const clattn__attn_call *call);
void clattn__attn_options(clattn__options *options, const clattn__attn_problem *problem, const clattn__caps *caps);
/* launches.c: how many units of work one launch may hold so that it ends within 200 ms on a device that does
 * `per_clock` of that work per clock and compute unit: desktops reset a GPU that works on one launch for two seconds,
 * and stand still meanwhile. At least 1; without a bound on CPUs. */
int64_t clattn__launch_units(const clattn__caps *caps, double work, double per_clock);
/* How many a single compute unit may have. */
int64_t clattn__launch_unit(const clattn__caps *caps, double work, double per_clock);
/* The same for tiles of so many multiply-adds each, on_engine: of a matrix engine. */
int64_t clattn__launch_tiles(const clattn__caps *caps, double multiply_adds, bool on_engine);
/* How many keys a work-group of so many items may walk in a launch, where each costs so many multiply-adds and two
 * work-groups share a unit. */
int64_t clattn__launch_keys(const clattn__caps *caps, double multiply_adds, bool on_engine, size_t items);
/* Of kernels that wait for memory: elements that the slowest devices read or write per clock and compute unit. */
#define CLATTN__ELEMENTS_PER_CLOCK 0.25
/* A call's work-groups of local_items[0] each, in launches that stay short. */
typedef struct clattn__attn_launches {
    int64_t groups, at_once; /* work-groups, and how many a launch may hold */
    int64_t walk, keys;      /* how many keys each walks, and how many of them in a launch */
    int heads;               /* that have launches of their own, else 1 */
} clattn__attn_launches;
/* For kernels that end in ATTN_FIRST, or with part_keys in ATTN_KEPT. */
clattn_status clattn__attn_enqueue_groups(clattn__attn_kernel *kernel, const clattn__attn_call *call,
                                          const clattn__attn_launches *all);
/* How many keys of a walk go in one launch. Where all would fit there are two launches, so that verification, whose
 * cases are small, sees what parts leave to each other. */
int64_t clattn__attn_part_of(const clattn__attn_kernel *kernel, const clattn__attn_call *call, int64_t walk);
/* Makes room for what the items of so many work-groups keep, and tells explain. */
clattn_status clattn__attn_keep_groups(clattn__attn_kernel *kernel, int64_t groups, size_t item_bytes);

/* All of that for kernels whose work-groups have a tile of block_q rows each, or value_groups of them. */
clattn_status clattn__attn_enqueue_tiles(clattn__attn_kernel *kernel, const clattn__attn_call *call);
/* Decides on part_keys, a multiple of block_kv, by the tile and the keys of the problem. */
void clattn__attn_set_parts(clattn__attn_kernel *kernel);
/* With part_keys, makes room for tiles whose items keep so many bytes each, and tells explain. */
clattn_status clattn__attn_make_parts(clattn__attn_kernel *kernel, size_t item_bytes);

extern const clattn__attn_impl clattn__attn_decode, clattn__attn_cpu, clattn__attn_matrix, clattn__attn_tiled,
    clattn__attn_naive, clattn__attn_host;

/* Projections. */
typedef struct clattn__gemm_problem {
    int64_t m, n, k;    /* greatest m; n and k of the weight */
    int64_t width;      /* columns per head in the output, n when heads stay side by side */
    clattn_dtype dtype; /* of x and y; the weight is kept in float32 */
    clattn_precision precision;
    bool split_heads; /* the output is written per head (y.head != width) or in parts */
    bool bias;
    clattn_activation activation; /* of the sums before they are stored; not together with accumulate */
} clattn__gemm_problem;

typedef struct clattn__gemm_call {
    clattn_gemm_args args; /* columns_per_item and what follows are filled by the kernel */
    cl_mem x, y;
} clattn__gemm_call;

typedef struct clattn__gemm_impl clattn__gemm_impl;
/* A prepared projection with its weight, packed as the kernel likes it and uploaded. */
typedef struct clattn__gemm_kernel {
    const clattn__gemm_impl *impl;
    clattn__programs *programs;
    clattn__gemm_problem problem;
    clattn__params params; /* set before prepare */
    cl_kernel kernel;
    clattn__program *program; /* NULL for clblast and host */
    char variant[64];         /* of those: what the kernel is trusted as; "": its name */
    clattn__buffer weight, bias;
    cl_kernel bias_kernel;         /* rows.cl: clblast needs the bias in y beforehand */
    int block_m, block_n, block_k; /* tile sizes; verification tries extents around them */
    int items, weight_parts;       /* gemm_matrix: work-items per group, 16-bit parts of the weight */
    char tiles[224];
    const char *origin;
} clattn__gemm_kernel;

struct clattn__gemm_impl {
    const char *name;
    const char *what;
    bool splits_heads;    /* can write per-head or per-part outputs directly */
    bool has_rival;       /* likewise, and before their first use on a device (registry/rivals.c) */
    bool uses_engine;     /* likewise */
    bool rounds_operands; /* to 16 bits before they are multiplied: not with strict precision */
    bool activates;       /* can apply the activation; one that cannot is given a problem without it */
    bool (*supports)(const clattn__gemm_problem *problem, const clattn__caps *caps, clattn__refusal *why);
    const char *params[CLATTN__PARAMS]; /* parameters as in clattn__attn_impl */
    void (*candidates)(const clattn__gemm_problem *problem, const clattn__caps *caps, clattn__candidates *list);
    /* w (n, k) with row stride w_row, bias (n) or NULL: host floats, borrowed during the call. */
    clattn_status (*prepare)(clattn__gemm_kernel *kernel, const float *w, int64_t w_row, const float *bias);
    clattn_status (*enqueue)(clattn__gemm_kernel *kernel, const clattn__gemm_call *call);
};
void clattn__gemm_kernel_clear(clattn__gemm_kernel *kernel); /* gemm_common.c */
/* params.c: as for attention. */
void clattn__gemm_candidates(const clattn__gemm_impl *impl, const clattn__gemm_problem *problem,
                             const clattn__caps *caps, clattn__candidates *list);
clattn_status clattn__gemm_prepare(clattn__gemm_kernel *kernel, const clattn__candidates *list, const float *w,
                                   int64_t w_row, const float *bias);
clattn_status clattn__gemm_set_args(clattn__gemm_kernel *kernel, const clattn__gemm_call *call,
                                    const clattn_gemm_args *args);

/* clblast_params.c: sets tuning parameters of CLBlast's products on the device, as clattn_context_options describes
 * them; NULL sets none. And a hash of those in force there, "" where CLBlast chooses them itself. */
clattn_status clattn__clblast_override(clattn__env *env, const char *text);
void clattn__clblast_key(const clattn__env *env, char key[33]);
/* The context ends: with the last one that CLBlast worked in go the programs that CLBlast keeps. */
void clattn__clblast_leave(clattn__env *env);

extern const clattn__gemm_impl clattn__gemm_cpu, clattn__gemm_matrix, clattn__gemm_clblast, clattn__gemm_tiled,
    clattn__gemm_host;

/* Small kernels: everything in a plan that is neither attention nor a product (norms, activations, rotation, cache
 * appends, ...). One file <name>.c beside cl/<name>.cl makes them; `constants` are weights that the op owns. */
enum { CLATTN__OP_OPERANDS = 8, CLATTN__OP_CONSTANTS = 4, CLATTN__OP_ARGS = 256 };
typedef struct clattn__op clattn__op;
typedef struct clattn__op_call {
    cl_mem mem[CLATTN__OP_OPERANDS];
    clattn_place place[CLATTN__OP_OPERANDS];
    union { /* the op's own launch struct from cl/shared/args.h */
        unsigned char bytes[CLATTN__OP_ARGS];
        int64_t alignment;
    } args;
} clattn__op_call;
/* What shapes the binary of an op beside its name; zero where the op has no such choice. Verification makes an op of
 * the same variant from it. */
typedef struct clattn__op_variant {
    int kind;                  /* activation, or source of the rotation's angles */
    clattn_dtype dtype, cells; /* of tensors (cache: of tokens), and of the cache */
    bool interleaved, inverse;
} clattn__op_variant;
struct clattn__op {
    const char *name; /* of the kernel's entry */
    clattn__programs *programs;
    clattn__program *program; /* with the name, it tells which variant this is */
    clattn__op_variant variant;
    cl_kernel kernel;
    clattn__buffer constants[CLATTN__OP_CONSTANTS];
    clattn_status (*enqueue)(clattn__op *op, const clattn__op_call *call);
};
void clattn__op_clear(clattn__op *op); /* op_common.c; accepts half-built ones */
/* Builds file with options, makes kernel `entry`, sets name and enqueue. */
clattn_status clattn__op_create(clattn__op *op, clattn__programs *programs, const char *file, const char *entry,
                                const clattn__options *options,
                                clattn_status (*enqueue)(clattn__op *op, const clattn__op_call *call));
/* Uploads host floats as constants[index]. */
clattn_status clattn__op_constant(clattn__op *op, int index, const float *values, size_t count);

/* Chains (chain_cpu.c): consecutive steps that need nothing of other rows, as one launch in which each work-group takes
 * some rows through all of them. */
/* A step: one of the two. Both outlive the chain and stay where they are. */
typedef struct clattn__chain_part {
    const clattn__gemm_kernel *gemm;
    const clattn__op *op;
} clattn__chain_part;

typedef struct clattn__chain {
    clattn__op op; /* how it is built and verified; it has no constants, and its own way to be enqueued */
    clattn__chain_part parts[CHAIN_STEPS];
    int count;
} clattn__chain;

/* The call of a step, as its own kernel would get it. */
typedef union clattn__chain_call {
    clattn__gemm_call gemm;
    clattn__op_call op;
} clattn__chain_call;

/* Is there anything to gain with these parts? Each work-group reads all weights, so it needs some rows for them. */
bool clattn__chain_pays(const clattn__chain *chain, const clattn__caps *caps, int64_t rows);
/* May `next` be part of a chain with the `count` parts before it? */
bool clattn__chain_takes(const clattn__chain_part *parts, int count, const clattn__chain_part *next);
/* `chain` is zeroed and has its parts. */
clattn_status clattn__chain_create(clattn__chain *chain, clattn__programs *programs);
void clattn__chain_clear(clattn__chain *chain); /* accepts half-built ones */
/* calls: of each part; all have the same rows, and at most CHAIN_MEMORIES different buffers. */
clattn_status clattn__chain_enqueue(clattn__chain *chain, const clattn__chain_call *calls);

/* softmax.c: operands are clattn_softmax_operand; the launch struct of a call is a clattn_softmax_shape. The
 * description is resolved, its rank 4 and its axis 0..3. */
clattn_status clattn__softmax_create(clattn__op *op, clattn__programs *programs, clattn_dtype dtype,
                                     clattn_softmax_kind kind);
void clattn__softmax_shape(const clattn_softmax_desc *desc, clattn_softmax_shape *shape);

/* rows.c: fills rows of a (B, H, S, D) buffer with one source row or zeros. */
enum { CLATTN__ROWS_Y = 0, CLATTN__ROWS_SOURCE = 0 /* constant */ };
clattn_status clattn__rows_create(clattn__op *op, clattn__programs *programs, clattn_dtype dtype);
clattn_status clattn__rows_enqueue(clattn__programs *programs, cl_kernel kernel, const clattn_rows_args *args,
                                   cl_mem source, cl_mem y);

/* op_common.c: -D options that choose the storage type of inc/types.clh. */
void clattn__storage_options(clattn__options *options, clattn_dtype dtype);
/* The type of a cache's elements, for inc/cells.clh. */
void clattn__cell_options(clattn__options *options, clattn_dtype cells);
/* SUBGROUP of inc/vendor.clh on GPUs that can pin the width of sub-groups, and registers for it. */
void clattn__subgroup_options(clattn__options *options, const clattn__caps *caps);
/* VW for kernels on inc/lanes.clh: the device's native width on CPUs, 4 elsewhere. */
int clattn__lanes(const clattn__caps *caps);
/* Turns per position of features / 2 pairs, as fractions of 2^64: base^(-2i / features) / (2 pi). Caller frees; NULL
 * when there is no memory. */
uint64_t *clattn__turns(int64_t features, double base);
/* A grid of (items, rows) work-items in groups of one row, items rounded up, in launches that stay short: `elements` of
 * memory are read or written by a work-item, counted once for each time. */
clattn__launch clattn__rows_launch(const clattn__caps *caps, cl_kernel kernel, size_t items, size_t rows,
                                   double elements);
/* Such launches of a grid (items, rows) that is there: by rows, and where one is too much by itself, by its groups. */
void clattn__launch_shorten(clattn__launch *launch, const clattn__caps *caps, double elements);

/* norm.c. weight and bias (features), NULL for ones and zeros. Operands of all three; unused ones are NONE. */
enum {
    CLATTN__NORM_X = 0,
    CLATTN__NORM_RESIDUAL,
    CLATTN__NORM_SUM,
    CLATTN__NORM_Y,
    CLATTN__NORM_STATISTICS /* (2, features); from statistics_create, or given to apply_create and then no operand */
};
clattn_status clattn__layer_norm_create(clattn__op *op, clattn__programs *programs, clattn_dtype dtype,
                                        int64_t features, const float *weight, const float *bias);
/* The launch struct of a call, and the op's own buffers: for kernels that normalise within another step. */
clattn_norm_args clattn__norm_args(const clattn__op_call *call);
void clattn__layer_norm_constants(const clattn__op *op, cl_mem *weight, cl_mem *bias);
clattn_status clattn__batch_statistics_create(clattn__op *op, clattn__programs *programs, clattn_dtype dtype);
clattn_status clattn__batch_apply_create(clattn__op *op, clattn__programs *programs, clattn_dtype dtype,
                                         int64_t features, const float *weight, const float *bias,
                                         const float *statistics);

/* elementwise.c */
enum { CLATTN__ELEMENTWISE_X = 0, CLATTN__ELEMENTWISE_ADDEND, CLATTN__ELEMENTWISE_Y };
clattn_status clattn__elementwise_create(clattn__op *op, clattn__programs *programs, clattn_dtype dtype,
                                         int activation);

/* posenc.c. turns: (features / 2) turns per position as fractions of 2^64; table: (rows, features). */
enum { CLATTN__POSITIONS_X = 0, CLATTN__POSITIONS_POSITIONS, CLATTN__POSITIONS_Y };
clattn_status clattn__sinusoidal_create(clattn__op *op, clattn__programs *programs, clattn_dtype dtype,
                                        int64_t features, const uint64_t *turns);
clattn_status clattn__learned_create(clattn__op *op, clattn__programs *programs, clattn_dtype dtype, const float *table,
                                     int64_t rows, int64_t features);

/* rope.c. The description is resolved; cosine, sine: (table_rows, rotary_dim / 2) for tables that the op keeps, NULL
 * when each call brings them. The launch struct of a call is what rope_args gives. */
enum { CLATTN__ROPE_X = 0, CLATTN__ROPE_POSITIONS, CLATTN__ROPE_COSINE, CLATTN__ROPE_SINE, CLATTN__ROPE_Y };
clattn_status clattn__rope_create(clattn__op *op, clattn__programs *programs, const clattn_rope_desc *desc,
                                  const float *cosine, const float *sine);
clattn_rope_args clattn__rope_args(const clattn_rope_desc *desc);

/* kv_cells.c. kernel: "kv_append" or "kv_gather"; cells: element type of the cache: that of the tokens, CLATTN_I8, or
 * with float32 tokens a type of 16 bits. */
enum {
    CLATTN__CACHE_TOKENS = 0,
    CLATTN__CACHE_LENGTHS,
    CLATTN__CACHE_TABLE,
    CLATTN__CACHE_CELLS,
    CLATTN__CACHE_SCALES
};
/* For a cache without tokens: calls bring no lengths. */
clattn_status clattn__cache_starts_empty(clattn__op *op);
clattn_status clattn__cache_create(clattn__op *op, clattn__programs *programs, const char *kernel, clattn_dtype tokens,
                                   clattn_dtype cells);

/* matrix_common.c: rows and columns of the matrix engine's tile of sums, and the lanes that own it. */
typedef struct clattn__matrix_engine {
    int m, n, lanes;
} clattn__matrix_engine;
const clattn__matrix_engine *clattn__matrix_engine_of(const clattn__caps *caps);
/* Whether the device has an engine, and one for this storage type. */
bool clattn__matrix_serves(clattn_dtype dtype, const clattn__caps *caps, clattn__refusal *why);
/* mma_probe.c: what the device's matrix engine relies on, by steps (shared/matrix.h). A call's launch struct is a
 * clattn_probe_args whose places are the call's. UNSUPPORTED without an engine for this storage type. */
enum { CLATTN__PROBE_QUERY = 0, CLATTN__PROBE_KEY, CLATTN__PROBE_VALUE, CLATTN__PROBE_OUT };
clattn_status clattn__mma_probe_create(clattn__op *op, clattn__programs *programs, clattn_dtype dtype);

/* limits.c: what clattn_context_limits gives, and the programs for it: one for each width, 0 behind the last. */
extern const int clattn__limits_lanes[];
clattn_status clattn__limits_program(clattn__programs *programs, int lanes, clattn__program **program);
clattn_status clattn__limits_measure(clattn__programs *programs, clattn_limits *limits);

#endif
