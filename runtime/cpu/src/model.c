/* Contexts and the walk over the step table. */
#define _GNU_SOURCE
#include "internal.h"

#include <omp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct patch { /* an operand that lies in a caller's buffer, known only in the call */
    int64_t operand;
    int64_t index;
    int64_t offset_bytes;
    int output;
};

/* Where the threads of one run meet between steps. OpenMP's own barrier spins for milliseconds before it lets go of a processor that the
 * thread it waits for may need. */
struct barrier {
    _Alignas(QCC_ALIGNMENT) atomic_int arrived;
    _Alignas(QCC_ALIGNMENT) atomic_int phase;
};

struct qcc_model {
    struct barrier barrier;
    const qcc_program *program;
    int threads;
    int serial; /* no step has more than one task */
    atomic_flag busy;
    char *memory; /* one block: arena, then one scratch area per thread */
    char *scratch;
    int64_t scratch_stride;
    atomic_int_fast64_t *taken; /* [threads][step_count]: tasks of the thread's range that somebody has begun */
    void **pointers; /* [operand_count] */
    struct patch *patches;
    int64_t patch_count;
    int profiling;
    int64_t profiled_runs;
    int64_t *step_ns; /* [step_count] */
};

static _Thread_local char error_text[512] = "";

const char *qcc_model_error(void) { return error_text; }

int qcc_fail(int status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error_text, sizeof error_text, format, arguments);
    va_end(arguments);
    return status;
}

static int64_t round_up(int64_t bytes) { return (bytes + QCC_ALIGNMENT - 1) / QCC_ALIGNMENT * QCC_ALIGNMENT; }

static int choose_threads(int threads) {
    if (threads <= 0) {
        const char *text = getenv("QCC_NUM_THREADS");
        threads = text ? atoi(text) : 0;
    }
    if (threads <= 0) threads = omp_get_num_procs();
    return threads < 1 ? 1 : threads > 1024 ? 1024 : threads;
}

static int check_cpu(const qcc_program *program) {
    int64_t missing = program->cpu_features & ~qcc_cpu_features();
    if (missing) {
        char list[256] = "";
        for (int bit = 0; bit < QCC_CPU_FEATURE_COUNT; bit++)
            if (missing >> bit & 1) {
                size_t used = strlen(list);
                snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "", qcc_cpu_feature_name(bit));
            }
        return qcc_fail(QCC_BAD_CPU, "this CPU lacks %s, which the model was compiled for; compile it again with --cpu native or a smaller --cpu",
                        list[0] ? list : "a feature unknown to this runtime");
    }
    if (!qcc_allow_amx(program->cpu_features))
        return qcc_fail(QCC_BAD_CPU, "the kernel refuses AMX tile state to this process; compile the model again with --cpu icelake-server");
    return QCC_OK;
}

/* Fills `pointers` and `patches` from the operand table, which is checked entry by entry. */
static int resolve_operands(qcc_model *model, const char *weights) {
    const qcc_program *program = model->program;
    for (int64_t i = 0; i < program->operand_count; i++) {
        const qcc_operand *operand = &program->operands[i];
        int64_t size = operand->space == QCC_ARENA ? program->arena_bytes : program->weights_bytes;
        int64_t count = operand->space == QCC_INPUT ? program->input_count : program->output_count;
        switch (operand->space) {
        case QCC_INPUT:
        case QCC_OUTPUT:
            if (operand->index < 0 || operand->index >= count) return qcc_fail(QCC_BAD_PROGRAM, "operand %lld names no input or output", (long long)i);
            model->patches[model->patch_count++] = (struct patch){i, operand->index, operand->offset_bytes, operand->space == QCC_OUTPUT};
            break;
        case QCC_ARENA:
        case QCC_WEIGHTS:
            if (operand->offset_bytes < 0 || operand->offset_bytes > size) return qcc_fail(QCC_BAD_PROGRAM, "operand %lld lies outside its space", (long long)i);
            model->pointers[i] = (operand->space == QCC_ARENA ? model->memory : (char *)weights) + operand->offset_bytes;
            break;
        default:
            return qcc_fail(QCC_BAD_PROGRAM, "operand %lld has an unknown space", (long long)i);
        }
    }
    model->serial = 1;
    for (int64_t s = 0; s < program->step_count; s++) {
        const qcc_step *step = &program->steps[s];
        if (step->tasks > 1) model->serial = 0;
        if (step->operand_begin < 0 || step->operand_count < 0 || step->operand_begin > program->operand_count - step->operand_count || step->tasks < 0)
            return qcc_fail(QCC_BAD_PROGRAM, "step %lld is malformed", (long long)s);
    }
    return QCC_OK;
}

int qcc_model_create_from(const qcc_program *program, const void *weights, int threads, qcc_model **result) {
    if (!program || !result) return qcc_fail(QCC_BAD_ARGUMENT, "program and model must not be null");
    *result = NULL;
    if (program->magic != QCC_PROGRAM_MAGIC)
        return qcc_fail(QCC_BAD_PROGRAM, "the model was compiled for another version of the runtime; compile it again");
    if ((uintptr_t)weights % QCC_ALIGNMENT) return qcc_fail(QCC_BAD_ARGUMENT, "weights must be aligned to %d bytes", QCC_ALIGNMENT);
    int status = check_cpu(program);
    if (status) return status;

    qcc_model *model = aligned_alloc(QCC_ALIGNMENT, sizeof *model); /* a multiple of its alignment */
    if (!model) return qcc_fail(QCC_NO_MEMORY, "out of memory");
    memset(model, 0, sizeof *model);
    atomic_flag_clear(&model->busy);
    model->program = program;
    model->threads = choose_threads(threads);
    model->scratch_stride = round_up(program->scratch_bytes);
    int64_t arena = round_up(program->arena_bytes), total = arena + model->threads * model->scratch_stride + QCC_ALIGNMENT;
    model->memory = aligned_alloc(4096, (size_t)((total + 4095) / 4096 * 4096));
    model->pointers = calloc((size_t)program->operand_count + 1, sizeof *model->pointers);
    model->patches = calloc((size_t)program->operand_count + 1, sizeof *model->patches);
    model->step_ns = calloc((size_t)program->step_count + 1, sizeof *model->step_ns);
    model->taken = calloc((size_t)program->step_count * (size_t)model->threads + 1, sizeof *model->taken);
    if (!model->memory || !model->pointers || !model->patches || !model->step_ns || !model->taken) {
        qcc_model_destroy(model);
        return qcc_fail(QCC_NO_MEMORY, "out of memory: the model needs %lld bytes for %d threads", (long long)total, model->threads);
    }
    memset(model->memory, 0, (size_t)total); /* touches every page now rather than in the first run */
    model->scratch = model->memory + arena;
    status = resolve_operands(model, weights);
    if (status) {
        qcc_model_destroy(model);
        return status;
    }
    *result = model;
    return QCC_OK;
}

void qcc_model_destroy(qcc_model *model) {
    if (!model) return;
    free(model->memory);
    free(model->pointers);
    free(model->patches);
    free(model->step_ns);
    free(model->taken);
    free(model);
}

int qcc_model_threads(const qcc_model *model) { return model->threads; }

/* Every thread has a range of the tasks, the same in every step, so that it finds in its cache what it wrote. It takes a quarter of the
 * range at a time, and what others have not begun when it is done: a thread that lost its processor holds up one piece only. */
static void run_step(qcc_model *model, int64_t s, int thread, int threads) {
    const qcc_step *step = &model->program->steps[s];
    qcc_codelet codelet = model->program->codelets[s];
    void *const *buffers = model->pointers + step->operand_begin;
    void *scratch = model->scratch + thread * model->scratch_stride;
    if (threads == 1 || step->tasks <= 1) {
        if (thread == threads - 1 && step->tasks > 0) codelet(buffers, 0, step->tasks, scratch);
        return;
    }
    int64_t piece = (step->tasks + 4 * threads - 1) / (4 * threads);
    for (int turn = 0; turn < threads; turn++) {
        int owner = (thread + turn) % threads;
        int64_t first = step->tasks * owner / threads, last = step->tasks * (owner + 1) / threads;
        atomic_int_fast64_t *taken = &model->taken[owner * model->program->step_count + s];
        for (;;) {
            int64_t begin = first + atomic_fetch_add_explicit(taken, piece, memory_order_relaxed);
            if (begin >= last) break;
            codelet(buffers, begin, begin + piece < last ? begin + piece : last, scratch);
        }
    }
}

/* Whether step `s` may start only when every thread has finished the one before. A lone task always falls to the last thread, so that
 * chains of them need no barrier. */
static int needs_barrier(const qcc_program *program, int64_t s) { return s > 0 && (program->steps[s - 1].tasks > 1 || program->steps[s].tasks > 1); }

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void wait_for_all(struct barrier *barrier, int threads) {
    enum { SPINS = 1000 }; /* some 30 us: longer than the difference between two threads' shares of a step should be */
    int phase = atomic_load_explicit(&barrier->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&barrier->arrived, 1, memory_order_acq_rel) + 1 == threads) {
        atomic_store_explicit(&barrier->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&barrier->phase, phase + 1, memory_order_release);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&barrier->phase, memory_order_acquire) == phase; spins++) {
        if (spins < SPINS)
            pause_briefly();
        else
            sched_yield();
    }
}

static void walk(qcc_model *model, int thread, int threads) {
    for (int64_t s = 0; s < model->program->step_count; s++) {
        if (threads > 1 && needs_barrier(model->program, s)) wait_for_all(&model->barrier, threads);
        run_step(model, s, thread, threads);
    }
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void walk_profiled(qcc_model *model, int thread, int threads) {
    for (int64_t s = 0; s < model->program->step_count; s++) {
        int64_t start = now_ns();
        run_step(model, s, thread, threads);
        if (threads > 1) wait_for_all(&model->barrier, threads);
        if (thread == 0) model->step_ns[s] += now_ns() - start;
    }
}

int qcc_model_run(qcc_model *model, const void *const *inputs, void *const *outputs) {
    if (!model) return qcc_fail(QCC_BAD_ARGUMENT, "model must not be null");
    if ((model->program->input_count && !inputs) || (model->program->output_count && !outputs))
        return qcc_fail(QCC_BAD_ARGUMENT, "inputs and outputs must not be null");
    for (int64_t i = 0; i < model->program->input_count; i++)
        if (!inputs[i]) return qcc_fail(QCC_BAD_ARGUMENT, "input %lld is null", (long long)i);
    for (int64_t i = 0; i < model->program->output_count; i++)
        if (!outputs[i]) return qcc_fail(QCC_BAD_ARGUMENT, "output %lld is null", (long long)i);
    if (atomic_flag_test_and_set_explicit(&model->busy, memory_order_acquire))
        return qcc_fail(QCC_BUSY, "the model is running in another thread; create one model per thread");
    for (int64_t i = 0; i < model->patch_count; i++) {
        const struct patch *patch = &model->patches[i];
        model->pointers[patch->operand] = (char *)(patch->output ? outputs[patch->index] : (void *)inputs[patch->index]) + patch->offset_bytes;
    }
    void (*body)(qcc_model *, int, int) = model->profiling ? walk_profiled : walk;
    if (model->threads == 1 || model->serial) {
        body(model, 0, 1);
    } else {
        for (int64_t i = 0; i < model->program->step_count * model->threads; i++) atomic_store_explicit(&model->taken[i], 0, memory_order_relaxed);
#pragma omp parallel num_threads(model->threads)
        body(model, omp_get_thread_num(), omp_get_num_threads());
    }
    model->profiled_runs += model->profiling;
    atomic_flag_clear_explicit(&model->busy, memory_order_release);
    return QCC_OK;
}

int qcc_model_profile(qcc_model *model, int enable) {
    if (!model) return qcc_fail(QCC_BAD_ARGUMENT, "model must not be null");
    model->profiling = enable != 0;
    if (enable) {
        model->profiled_runs = 0;
        memset(model->step_ns, 0, (size_t)model->program->step_count * sizeof *model->step_ns);
    }
    return QCC_OK;
}

int64_t qcc_model_profile_read(const qcc_model *model, int64_t *step_ns) {
    if (step_ns) memcpy(step_ns, model->step_ns, (size_t)model->program->step_count * sizeof *step_ns);
    return model->profiled_runs;
}
