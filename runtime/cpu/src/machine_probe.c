/* Rates of this machine, for the cost model: `qcc-bench machine` calls this once and keeps the answers. Only in the runtime's own library,
 * never in artefacts. Each loop is the plainest one that reaches the rate, compiled for its instruction set whatever the compiler's default. */
#define _GNU_SOURCE
#include "internal.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* compiler/cost/probe.py has the same list in the same order. */
enum probe {
    PROBE_CLOCK,      /* cycles per ns of dependent multiplications */
    PROBE_DOT4_512,   /* u8 x s8 multiply-accumulates per ns, registers only */
    PROBE_DOT4_256,
    PROBE_FMA_512,    /* f32 multiply-accumulates per ns */
    PROBE_FMA_256,
    PROBE_AMX_INT8,   /* tiles in registers */
    PROBE_AMX_BF16,
    PROBE_READ,       /* bytes per ns that each thread reads from its own `bytes` */
    PROBE_STEP,       /* steps of a model per ns: one task per thread, with the barrier between */
    PROBE_LONE_STEP,  /* steps of one task */
    PROBE_COUNT
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double run_clock(int64_t count) {
    uint64_t x = (uint64_t)count | 1;
    for (int64_t i = 0; i < count; i++)
        for (int j = 0; j < 16; j++) {
            x *= x; /* 3 cycles on every x86-64 of the last decade */
            __asm__ volatile("" : "+r"(x));
        }
    return (double)count * 16 * 3;
}

#if defined(__x86_64__)
#include <immintrin.h>
#define CHAINS 12 /* independent accumulators: enough for a latency of 5 at two per cycle, and 16 registers hold them */
#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)

/* One variable per accumulator: compilers keep an array in memory. */
#define DEFINE_LOOP(name, isa, type, zero, multiply_add, each) \
    __attribute__((target(isa), noinline)) static double name(int64_t count) { \
        type EACH(DECLARE) x = zero, w = zero; \
        EACH(CLEAR) \
        for (int64_t i = 0; i < count; i++) { EACH(multiply_add) } \
        return (double)count * CHAINS * (each); \
    }
#define DECLARE(n) sum##n,
#define CLEAR(n) sum##n = x;
#define DOT4(n) __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(sum##n) : "v"(x), "v"(w));
#define MULTIPLY_ADD(n) __asm__ volatile("vfmadd231ps %2, %1, %0" : "+v"(sum##n) : "v"(x), "v"(w));

DEFINE_LOOP(run_dot4_512, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), DOT4, 64)
DEFINE_LOOP(run_dot4_256, "avx512f,avx512vl,avx512vnni", __m256i, _mm256_setzero_si256(), DOT4, 32)
DEFINE_LOOP(run_fma_512, "avx512f", __m512, _mm512_setzero_ps(), MULTIPLY_ADD, 16)
DEFINE_LOOP(run_fma_256, "avx2,fma", __m256, _mm256_setzero_ps(), MULTIPLY_ADD, 8)

struct tiles { /* Intel SDM, table "Memory Area for Tile Configuration" */
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

__attribute__((target("amx-tile"))) static void configure_tiles(void) {
    struct tiles tiles;
    memset(&tiles, 0, sizeof tiles);
    tiles.palette = 1;
    for (int i = 0; i < 8; i++) tiles.row_bytes[i] = 64, tiles.rows[i] = 16;
    _tile_loadconfig(&tiles);
}

#define DEFINE_AMX(name, isa, multiply, each) \
    __attribute__((target(isa), noinline)) static double name(int64_t count) { \
        configure_tiles(); \
        _tile_zero(0); \
        _tile_zero(1); \
        _tile_zero(2); \
        _tile_zero(3); \
        _tile_zero(4); \
        _tile_zero(5); \
        _tile_zero(6); \
        _tile_zero(7); \
        for (int64_t i = 0; i < count; i++) { \
            multiply(0, 4, 6); \
            multiply(1, 4, 7); \
            multiply(2, 5, 6); \
            multiply(3, 5, 7); \
        } \
        _tile_release(); \
        return (double)count * 4 * 16 * 16 * (each); \
    }

DEFINE_AMX(run_amx_int8, "amx-tile,amx-int8", _tile_dpbusd, 64)
DEFINE_AMX(run_amx_bf16, "amx-tile,amx-bf16", _tile_dpbf16ps, 32)

static double (*const RATES[])(int64_t) = {
    [PROBE_CLOCK] = run_clock,     [PROBE_DOT4_512] = run_dot4_512, [PROBE_DOT4_256] = run_dot4_256, [PROBE_FMA_512] = run_fma_512,
    [PROBE_FMA_256] = run_fma_256, [PROBE_AMX_INT8] = run_amx_int8, [PROBE_AMX_BF16] = run_amx_bf16,
};

#define BIT(name) (INT64_C(1) << QCC_CPU_##name)
static const int64_t NEEDS[] = {
    [PROBE_DOT4_512] = BIT(AVX512F) | BIT(AVX512VNNI),
    [PROBE_DOT4_256] = BIT(AVX512VL) | BIT(AVX512VNNI),
    [PROBE_FMA_512] = BIT(AVX512F),
    [PROBE_FMA_256] = BIT(AVX2) | BIT(FMA),
    [PROBE_AMX_INT8] = BIT(AMX_TILE) | BIT(AMX_INT8),
    [PROBE_AMX_BF16] = BIT(AMX_TILE) | BIT(AMX_BF16),
    [PROBE_READ] = 0,
};
#else
static double (*const RATES[])(int64_t) = {[PROBE_CLOCK] = run_clock, [PROBE_AMX_BF16] = NULL};
static const int64_t NEEDS[PROBE_READ + 1];
#endif

typedef int64_t line __attribute__((vector_size(64)));

/* Four streams, as codelets read: more misses in flight than one has, and not a power of two apart, which are the same banks of memory.
 * Plain vectors: the rate of memory does not depend on their width, that of the first-level cache does, hence the wide clone. */
#if defined(__x86_64__) && !defined(__clang__)
__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), noinline))
#endif
static double run_read(const char *memory, int64_t bytes, int64_t count) {
    line a = {0}, b = {0}, c = {0}, d = {0};
    int64_t quarter = bytes / 4 / 64 * 64 - (bytes > 1 << 20 ? 5 << 10 : 0);
    for (int64_t i = 0; i < count; i++) {
        for (int64_t at = 0; at < quarter; at += 64) {
            a += *(const line *)(memory + at), b += *(const line *)(memory + quarter + at);
            c += *(const line *)(memory + 2 * quarter + at), d += *(const line *)(memory + 3 * quarter + at);
        }
        __asm__ volatile("" : : "r"(memory) : "memory");
    }
    a += b + c + d;
    volatile int64_t sink = a[0] + a[1] + a[2] + a[3] + a[4] + a[5] + a[6] + a[7];
    (void)sink;
    return (double)count * 4 * (double)quarter;
}

static void nothing(void *const *buffers, int64_t begin, int64_t end, void *scratch) {
    (void)buffers, (void)begin, (void)end, (void)scratch;
}

static double steps_rate(int tasks, int threads, double ns) {
    enum { STEPS = 256 };
    qcc_codelet codelets[STEPS];
    qcc_step steps[STEPS];
    for (int i = 0; i < STEPS; i++) codelets[i] = nothing, steps[i] = (qcc_step){0, 0, tasks, 0};
    qcc_program program = {.magic = QCC_PROGRAM_MAGIC, .step_count = STEPS, .codelets = codelets, .steps = steps, .strings = ""};
    qcc_model *model;
    if (qcc_model_create_from(&program, NULL, threads, &model)) return 0;
    double start = now(), count = 0;
    do {
        qcc_model_run(model, NULL, NULL);
        count += STEPS;
    } while (now() - start < ns);
    double rate = count / (now() - start);
    qcc_model_destroy(model);
    return rate;
}

/* Units per nanosecond of `probe`, all threads together, measured for about `ns`; 0 where the CPU cannot, -1 for a bad argument or no
 * memory. `bytes` is what each thread reads again and again (PROBE_READ). */
double qcc_machine_probe(int probe, int threads, int64_t bytes, double ns) {
    if (probe < 0 || probe >= PROBE_COUNT || threads < 1 || bytes < 0) return -1;
    if (probe >= PROBE_STEP) return steps_rate(probe == PROBE_STEP ? threads : 1, threads, ns);
    if (NEEDS[probe] & ~qcc_cpu_features() || !qcc_allow_amx(NEEDS[probe])) return 0;
    if (probe != PROBE_READ && !RATES[probe]) return 0;
    size_t each = (size_t)((bytes + 4095) / 4096 * 4096);
    char *memory = probe == PROBE_READ ? qcc_pages((size_t)threads * each + 4096) : NULL; /* as weights have them */
    if (probe == PROBE_READ) {
        if (!memory) return -1;
        memset(memory, 1, (size_t)threads * each);
    }
    double total = 0;
#pragma omp parallel num_threads(threads) reduction(+ : total)
    {
        const char *mine = memory + (size_t)omp_get_thread_num() * each;
        int64_t count = 1;
        double spent = 0, units = 0, start = now();
        for (; spent < ns; count *= spent < ns / 8 ? 2 : 1) {
            units += probe == PROBE_READ ? run_read(mine, bytes, count) : RATES[probe](count);
            spent = now() - start;
        }
        total += units / spent;
    }
    free(memory);
    return total;
}
