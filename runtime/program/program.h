/* Kernel sources, build options, builds and launches. */
#ifndef CLATTN_PROGRAM_H
#define CLATTN_PROGRAM_H

#include "device/device.h"

/* source.c: the text of cl/<file> with its #include "..." lines replaced by the files' text, each file once (include
 * guards are not needed), paths relative to cl/. From the embedded table, or from kernel_dir. Caller frees *text. */
clattn_status clattn__source_load(const char *kernel_dir, const char *file, char **text);

/* Embedded files, made by tools/embed_cl.py at build time; the list ends with name NULL. */
typedef struct clattn__embedded_file {
    const char *name; /* "attn_cpu.cl", "inc/mask.clh", "shared/args.h" */
    const unsigned char *bytes;
    size_t count;
} clattn__embedded_file;
extern const clattn__embedded_file clattn__embedded_files[];

/* options.c: the -D list in the order added; the same calls always give the same text. Overflow of the fixed text is
 * remembered and reported by clattn__program_get. */
typedef struct clattn__options {
    char text[1536];
    size_t length;
    bool overflow;
} clattn__options;
void clattn__options_start(clattn__options *options); /* -cl-std=CL1.2 */
void clattn__options_int(clattn__options *options, const char *name, long long value);
void clattn__options_flag(clattn__options *options, const char *name);
void clattn__options_raw(clattn__options *options, const char *text); /* as the compiler is to see it */

/* build.c: one built program per (file, options) and context, kept until the context goes; thread-safe. A failed build
 * sends the whole log to the log callback and an excerpt to the last error. */
typedef struct clattn__program {
    char *file;
    char *options;
    char key[33]; /* hash of expanded source and options */
    cl_program program;
    double build_seconds; /* from the source, or from what was kept of an earlier build */
    struct clattn__program *next;
} clattn__program;

/* cache.c: the driver's binary on disk. load() sets program->program when there is a good one; whatever goes wrong with
 * either is no failure: the program is built from its source. */
bool clattn__cache_load(clattn__env *env, clattn__program *program);
void clattn__cache_store(clattn__env *env, const clattn__program *program);
void clattn__cache_trim(const char *folder, size_t most_bytes); /* the oldest files go first */
/* Told of what would be built, in the order in which it is asked for. */
typedef struct clattn__recorder {
    void (*program)(void *user, const clattn__program *program, const char *source);
    void *user;
} clattn__recorder;

typedef struct clattn__programs {
    clattn__env *env;
    clattn__program *first;
    clattn__mutex *lock;
    const clattn__recorder *recorder; /* NULL; else nothing is built and kernel objects stay NULL: for listings */
} clattn__programs;
clattn_status clattn__programs_create(clattn__programs *programs, clattn__env *env);
void clattn__programs_clear(clattn__programs *programs);
clattn_status clattn__program_get(clattn__programs *programs, const char *file, const clattn__options *options,
                                  clattn__program **program);
/* A kernel object of its own: OpenCL's argument setting is not thread-safe, so each plan makes its own kernels. */
clattn_status clattn__kernel_create(clattn__programs *programs, clattn__program *program, const char *name,
                                    cl_kernel *kernel);
/* How many work-items of the built kernel fit in a group: fewer than the device's limit when it needs many registers.
 * A driver that cannot tell is believed to have room. */
size_t clattn__kernel_most_items(const clattn__programs *programs, cl_kernel kernel);
/* Bytes of each work-item that a GPU's driver put into memory, because the built kernel has no registers for them; 0
 * when it cannot tell. */
size_t clattn__kernel_spilled(const clattn__programs *programs, cl_kernel kernel);

/* launch.c */
typedef struct clattn__launch {
    cl_kernel kernel;
    cl_uint dims;
    size_t global[3]; /* work-items; 0 in any dimension launches nothing and succeeds. Grids may be cut up but in the
                         first dimension, whatever `most` says: kernels of GPUs ask for their global number there */
    size_t local[3];
    size_t most[3]; /* work-items that one launch may hold, multiples of local; 0: all. Grids that are cut up have
                       offsets, so their kernels ask for global numbers */
} clattn__launch;
clattn_status clattn__arg(clattn__env *env, cl_kernel kernel, cl_uint slot, size_t bytes, const void *value);
clattn_status clattn__arg_mem(clattn__env *env, cl_kernel kernel, cl_uint slot,
                              cl_mem mem); /* NULL mem is a null pointer */
clattn_status clattn__launch_enqueue(clattn__env *env, const clattn__launch *launch);

#endif
