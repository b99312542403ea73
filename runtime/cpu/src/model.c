/* Contexts and the walk over the step table. */
#define _GNU_SOURCE
#include "internal.h"
#include "weights_stream.h"

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
    struct qcc_stream *stream;  /* weights decoded while running, or NULL */
    qcc_shared_weights *shared; /* where this model's decoded weights are counted, or NULL */
    qcc_shared_weights own;     /* for a model that shares with no other */
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

/* Fills `pointers` and `patches` from the operand table, which is checked entry by entry; not the weights where they come in a stream. */
static int resolve_operands(qcc_model *model, const char *weights, int streams) {
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
            if (operand->space == QCC_WEIGHTS && streams) break; /* the stream knows where they will be */
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

static void set_initial(qcc_model *model) {
    if (model->program->initial)
        memcpy(model->memory, model->program->initial, (size_t)model->program->state_bytes);
    else
        memset(model->memory, 0, (size_t)model->program->state_bytes);
}

/* A model with everything but its operands' addresses. */
static int create(const qcc_program *program, int threads, qcc_model **result) {
    *result = NULL;
    if (program->magic != QCC_PROGRAM_MAGIC)
        return qcc_fail(QCC_BAD_PROGRAM, "the model was compiled for another version of the runtime; compile it again");
    if (program->state_bytes < 0 || program->state_bytes > program->arena_bytes) return qcc_fail(QCC_BAD_PROGRAM, "the state is larger than the arena");
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
    model->memory = qcc_pages((size_t)total);
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
    set_initial(model);
    *result = model;
    return QCC_OK;
}

static int finish(qcc_model *model, int status, qcc_model **result) {
    if (status)
        qcc_model_destroy(model);
    else
        *result = model;
    return status;
}

int qcc_model_create_from(const qcc_program *program, const void *weights, int threads, qcc_model **result) {
    qcc_model *model;
    if (!program || !result) return qcc_fail(QCC_BAD_ARGUMENT, "program and model must not be null");
    *result = NULL;
    if ((uintptr_t)weights % QCC_ALIGNMENT) return qcc_fail(QCC_BAD_ARGUMENT, "weights must be aligned to %d bytes", QCC_ALIGNMENT);
    int status = create(program, threads, &model);
    return status ? status : finish(model, resolve_operands(model, weights, 0), result);
}

int qcc_weights_decode(const void *image, int64_t image_bytes, void *block, int64_t block_bytes, int threads, int isa) {
    struct qcc_image opened;
    int best = qcc_coding_isa();
    if (!image || !block || (uintptr_t)image % QCC_ALIGNMENT || (uintptr_t)block % QCC_ALIGNMENT)
        return qcc_fail(QCC_BAD_ARGUMENT, "image and block must be aligned to %d bytes", QCC_ALIGNMENT);
    if (isa > best) return qcc_fail(QCC_BAD_CPU, "this CPU cannot run decoder %d, expected at most %d", isa, best);
    int status = qcc_image_open(&opened, image, image_bytes);
    if (status) return status;
    if (opened.decoded_bytes != block_bytes)
        return qcc_fail(QCC_BAD_WEIGHTS, "the coded weights decode to %lld bytes, expected %lld", (long long)opened.decoded_bytes, (long long)block_bytes);
    return qcc_image_decode_all(&opened, block, threads < 1 ? 1 : threads, isa < 0 ? best : isa);
}

static void hold(qcc_shared_weights *shared) {
    while (__atomic_exchange_n(&shared->lock, 1, __ATOMIC_ACQUIRE)) sched_yield();
}

static void let_go(qcc_shared_weights *shared) { __atomic_store_n(&shared->lock, 0, __ATOMIC_RELEASE); }

/* The decoded weights of `shared`, which the model counts as one of its users. */
static int decode_shared(qcc_model *model, const void *image, int64_t image_bytes, qcc_shared_weights *shared) {
    int64_t bytes = model->program->weights_bytes;
    int status = QCC_OK;
    hold(shared);
    if (!shared->block) {
        void *block = qcc_pages((size_t)(bytes + QCC_ALIGNMENT)); /* slack for wide loads behind the last */
        status = block ? qcc_weights_decode(image, image_bytes, block, bytes, model->threads, -1)
                       : qcc_fail(QCC_NO_MEMORY, "out of memory: the decoded weights have %lld bytes", (long long)bytes);
        if (status)
            free(block);
        else
            shared->block = block;
    }
    if (!status) {
        shared->users++;
        model->shared = shared;
    }
    let_go(shared);
    return status;
}

static void release_shared(qcc_shared_weights *shared) {
    if (!shared) return;
    hold(shared);
    if (--shared->users == 0) {
        free(shared->block);
        shared->block = NULL;
    }
    let_go(shared);
}

int qcc_model_create_coded(const qcc_program *program, const void *image, int64_t image_bytes, int decode, qcc_shared_weights *shared, int threads,
                           qcc_model **result) {
    qcc_model *model;
    if (!program || !image || !result) return qcc_fail(QCC_BAD_ARGUMENT, "program, image and model must not be null");
    *result = NULL;
    if ((uintptr_t)image % QCC_ALIGNMENT) return qcc_fail(QCC_BAD_ARGUMENT, "weights must be aligned to %d bytes", QCC_ALIGNMENT);
    int status = create(program, threads, &model);
    if (status) return status;
    if (decode == QCC_DECODE_STREAM) {
        status = resolve_operands(model, NULL, 1);
        if (!status) status = qcc_stream_create(&model->stream, program, image, image_bytes, model->threads, model->pointers);
    } else {
        status = decode_shared(model, image, image_bytes, shared ? shared : &model->own);
        if (!status) status = resolve_operands(model, model->shared->block, 0);
    }
    return finish(model, status, result);
}

void qcc_model_destroy(qcc_model *model) {
    if (!model) return;
    release_shared(model->shared);
    qcc_stream_destroy(model->stream);
    free(model->memory);
    free(model->pointers);
    free(model->patches);
    free(model->step_ns);
    free(model->taken);
    free(model);
}

void *qcc_model_state(qcc_model *model) { return model->program->state_bytes ? model->memory : NULL; }

int qcc_model_reset(qcc_model *model) {
    if (!model) return qcc_fail(QCC_BAD_ARGUMENT, "model must not be null");
    if (atomic_flag_test_and_set_explicit(&model->busy, memory_order_acquire)) return qcc_fail(QCC_BUSY, "the model is running in another thread");
    set_initial(model);
    atomic_flag_clear_explicit(&model->busy, memory_order_release);
    return QCC_OK;
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

/* Decode the weights of step `s` where they are coded; 0 where they are damaged, for all threads alike. */
static int prepare_step(qcc_model *model, int64_t s, int thread, int threads) {
    int decodes = model->stream && qcc_stream_has(model->stream, s);
    if (threads > 1 && (decodes || needs_barrier(model->program, s))) wait_for_all(&model->barrier, threads);
    if (!decodes) return 1;
    qcc_stream_decode(model->stream, s, thread, threads);
    if (threads > 1) wait_for_all(&model->barrier, threads);
    return !qcc_stream_is_damaged(model->stream);
}

static void walk(qcc_model *model, int thread, int threads) {
    for (int64_t s = 0; s < model->program->step_count; s++) {
        if (!prepare_step(model, s, thread, threads)) return;
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
        if (!prepare_step(model, s, thread, threads)) return;
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
    int damaged = model->stream && qcc_stream_is_damaged(model->stream);
    atomic_flag_clear_explicit(&model->busy, memory_order_release);
    return damaged ? qcc_fail(QCC_BAD_WEIGHTS, "the coded weights are damaged; compile the model again, or copy the file again") : QCC_OK;
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
