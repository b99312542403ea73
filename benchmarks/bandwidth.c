/* Read bandwidth of DRAM, as the bound of what streams weights: pointers through a buffer of huge pages, with and without software prefetch.
 * Compiled and called by benchmarks/bandwidth.py. */
#define _GNU_SOURCE
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

typedef uint64_t line __attribute__((vector_size(64))); /* whatever registers the machine has */

static char *memory;
static size_t memory_bytes;

int probe_prepare(size_t bytes) {
    memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return -1;
    madvise(memory, bytes, MADV_HUGEPAGE);
    memset(memory, 1, bytes);
    memory_bytes = bytes;
    return 0;
}

/* `streams` pointers at once over bytes from `start`; lines are prefetched `near` ahead of them to the first level and `far` to the second. */
static uint64_t read_all(const char *start, size_t bytes, int streams, size_t near, size_t far) {
    line sums[4] = {};
    size_t part = bytes / streams;
    for (size_t o = 0; o < part; o += 256)
        for (int s = 0; s < streams; s++) {
            const char *p = start + s * part + o;
            for (int j = 0; j < 4; j++) {
                if (far) __builtin_prefetch(p + 64 * j + far, 0, 2);
                if (near) __builtin_prefetch(p + 64 * j + near, 0, 3);
                sums[j] += *(const line *)(p + 64 * j);
            }
        }
    line sum = sums[0] + sums[1] + sums[2] + sums[3];
    return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

static volatile uint64_t sink;

/* Seconds of one read of the whole buffer by `threads` threads, each its own contiguous part. */
double probe_read(int threads, int streams, size_t near, size_t far) {
    struct timespec a, b;
    size_t part = memory_bytes / threads / 4096 * 4096;
    clock_gettime(CLOCK_MONOTONIC, &a);
#pragma omp parallel num_threads(threads)
    sink += read_all(memory + omp_get_thread_num() * part, part, streams, near, far);
    clock_gettime(CLOCK_MONOTONIC, &b);
    return (b.tv_sec - a.tv_sec) + 1e-9 * (b.tv_nsec - a.tv_nsec);
}
