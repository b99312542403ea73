/* The CPU runtime: walks a compiled model's step table. No allocation, no lock and no system call happens in a run.
 *
 * A *program* is constant data emitted by the compiler (passes/llvm/emit_step_table.py); a *model* is one running context with its own
 * arena, so that any number of threads may run the same program, each with its own model. So has each its own state.
 */
#ifndef QCC_RUNTIME_H
#define QCC_RUNTIME_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QCC_PROGRAM_MAGIC INT64_C(0x32474f5250434351) /* "QCCPROG2", little endian; the digit is the version of this ABI */
#define QCC_ALIGNMENT 64                              /* of arena, weights and scratch; inputs and outputs: their element size */

/* Code of one layer. `buffers` holds one pointer per operand; tasks [task_begin, task_end) are independent of each other;
 * `scratch` is memory of the calling thread, `scratch_bytes` of the program large, with undefined contents. */
typedef void (*qcc_codelet)(void *const *buffers, int64_t task_begin, int64_t task_end, void *scratch);

enum qcc_space { QCC_INPUT = 0, QCC_OUTPUT = 1, QCC_ARENA = 2, QCC_WEIGHTS = 3 };

typedef struct qcc_operand {
    int64_t space;        /* enum qcc_space */
    int64_t index;        /* which input or output; 0 elsewhere */
    int64_t offset_bytes; /* from the start of the space, or of that input or output */
} qcc_operand;

typedef struct qcc_step {
    int64_t operand_begin; /* first entry in `operands` */
    int64_t operand_count;
    int64_t tasks;      /* how many independent tasks; 1 runs on one thread */
    int64_t layer_name; /* byte offset in `strings` of the layer's name in the source model */
} qcc_step;

typedef struct qcc_program {
    int64_t magic; /* QCC_PROGRAM_MAGIC */
    int64_t step_count;
    int64_t operand_count;
    int64_t input_count;
    int64_t output_count;
    int64_t state_bytes; /* of the arena, from its beginning: what is kept from run to run */
    int64_t arena_bytes;
    int64_t scratch_bytes; /* per thread */
    int64_t weights_bytes;
    int64_t cpu_features; /* bits of enum qcc_cpu_feature that the code needs */
    const qcc_codelet *codelets; /* [step_count] */
    const qcc_step *steps;       /* [step_count] */
    const qcc_operand *operands; /* [operand_count] */
    const char *strings;
    const void *initial; /* [state_bytes] what states hold before the first run; NULL: zeros */
} qcc_program;

/* Names are LLVM's target features; compiler/targets/cpu.py has the same list in the same order (a test compares them). */
#define QCC_CPU_FEATURES(X)                                                                                                          \
    X(SSE4_2, "sse4.2")                                                                                                              \
    X(POPCNT, "popcnt")                                                                                                              \
    X(AVX, "avx")                                                                                                                    \
    X(F16C, "f16c")                                                                                                                  \
    X(FMA, "fma")                                                                                                                    \
    X(AVX2, "avx2")                                                                                                                  \
    X(BMI, "bmi")                                                                                                                    \
    X(BMI2, "bmi2")                                                                                                                  \
    X(LZCNT, "lzcnt")                                                                                                                \
    X(MOVBE, "movbe")                                                                                                                \
    X(AVXVNNI, "avxvnni")                                                                                                            \
    X(AVX512F, "avx512f")                                                                                                            \
    X(AVX512CD, "avx512cd")                                                                                                          \
    X(AVX512BW, "avx512bw")                                                                                                          \
    X(AVX512DQ, "avx512dq")                                                                                                          \
    X(AVX512VL, "avx512vl")                                                                                                          \
    X(AVX512VNNI, "avx512vnni")                                                                                                      \
    X(AVX512IFMA, "avx512ifma")                                                                                                      \
    X(AVX512VBMI, "avx512vbmi")                                                                                                      \
    X(AVX512VBMI2, "avx512vbmi2")                                                                                                    \
    X(AVX512BITALG, "avx512bitalg")                                                                                                  \
    X(AVX512VPOPCNTDQ, "avx512vpopcntdq")                                                                                            \
    X(GFNI, "gfni")                                                                                                                  \
    X(AVX512BF16, "avx512bf16")                                                                                                      \
    X(AVX512FP16, "avx512fp16")                                                                                                      \
    X(AMX_TILE, "amx-tile")                                                                                                          \
    X(AMX_INT8, "amx-int8")                                                                                                          \
    X(AMX_BF16, "amx-bf16")

enum qcc_cpu_feature {
#define QCC_FEATURE_BIT(symbol, name) QCC_CPU_##symbol,
    QCC_CPU_FEATURES(QCC_FEATURE_BIT)
#undef QCC_FEATURE_BIT
        QCC_CPU_FEATURE_COUNT
};

enum qcc_status {
    QCC_OK = 0,
    QCC_BAD_ARGUMENT = 1,
    QCC_BAD_PROGRAM = 2,  /* not a program of this ABI version */
    QCC_BAD_CPU = 3,      /* the CPU lacks what the code needs */
    QCC_NO_MEMORY = 4,
    QCC_BUSY = 5,         /* the model is running in another thread; make one model per thread */
    QCC_BAD_WEIGHTS = 6   /* coded weights are damaged */
};

typedef struct qcc_model qcc_model;

/* Bits of enum qcc_cpu_feature that this CPU and its operating system support. */
int64_t qcc_cpu_features(void);
/* Name of one feature bit, or NULL. */
const char *qcc_cpu_feature_name(int bit);

/* A running context of `program`. `weights` must stay alive, aligned to QCC_ALIGNMENT. `threads` <= 0 means QCC_NUM_THREADS, or else
 * every processor this process may use. On failure returns a qcc_status and leaves *model NULL. */
int qcc_model_create_from(const qcc_program *program, const void *weights, int threads, qcc_model **model);

enum qcc_decode {
    QCC_DECODE_LOAD = 0,  /* coded weights are decoded when the model is created */
    QCC_DECODE_STREAM = 1 /* those of every step are decoded in every run, right before the step: less memory, more time */
};

/* Weights decoded once for all models of an artefact; all zeros before the first. */
typedef struct qcc_shared_weights {
    int lock;
    int64_t users;
    void *block;
} qcc_shared_weights;

/* As qcc_model_create_from, with weights in coded form: `image` of `image_bytes` bytes, aligned to QCC_ALIGNMENT, must stay alive.
 * `shared` (may be NULL) keeps what QCC_DECODE_LOAD decodes as long as any model uses it. */
int qcc_model_create_coded(const qcc_program *program, const void *image, int64_t image_bytes, int decode, qcc_shared_weights *shared, int threads,
                           qcc_model **model);

/* Decode a whole image into `block`, aligned to QCC_ALIGNMENT, of `block_bytes` bytes, which must be the image's decoded size. `isa` is
 * 0 for portable code, 1 AVX2, 2 AVX-512, negative for the best that the CPU has; one that it lacks is QCC_BAD_CPU. */
int qcc_weights_decode(const void *image, int64_t image_bytes, void *block, int64_t block_bytes, int threads, int isa);

/* Run once. `inputs` and `outputs` hold one pointer each per input and output; dense C order. */
int qcc_model_run(qcc_model *model, const void *const *inputs, void *const *outputs);

/* What the model keeps from run to run, `state_bytes` of its program large, or NULL where it keeps nothing; qcc_model_info's "states" say
 * what lies where. Not to be touched during a run. */
void *qcc_model_state(qcc_model *model);
/* Make the state what it was before the first run. */
int qcc_model_reset(qcc_model *model);

void qcc_model_destroy(qcc_model *model);
int qcc_model_threads(const qcc_model *model);

/* Start (1) or stop (0) measuring; starting clears the figures. */
int qcc_model_profile(qcc_model *model, int enable);
/* Runs measured since, and nanoseconds per step summed over them in `step_ns` [step_count]. */
int64_t qcc_model_profile_read(const qcc_model *model, int64_t *step_ns);

/* What went wrong in this thread's last call; never NULL. */
const char *qcc_model_error(void);

#ifdef __cplusplus
}
#endif
#endif
