/* Which instructions this CPU has and this operating system lets us use. */
#define _GNU_SOURCE
#include "internal.h"

#include <stddef.h>

static const char *const names[] = {
#define NAME(symbol, name) name,
    QCC_CPU_FEATURES(NAME)
#undef NAME
};

const char *qcc_cpu_feature_name(int bit) { return bit >= 0 && bit < QCC_CPU_FEATURE_COUNT ? names[bit] : NULL; }

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BIT(symbol) (INT64_C(1) << QCC_CPU_##symbol)

static uint64_t enabled_state(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

int64_t qcc_cpu_features(void) {
    unsigned a, b, c, d;
    int64_t found = 0;
#define TEST(reg, position, symbol)                                                                                                  \
    if (reg >> (position)&1) found |= BIT(symbol)
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    int avx = 0, avx512 = 0, amx = 0;
    if (c >> 27 & 1) { /* OSXSAVE: the operating system saves extended registers; which ones is in XCR0 */
        uint64_t state = enabled_state();
        avx = (state & 0x6) == 0x6;
        avx512 = (state & 0xe6) == 0xe6;
        amx = (state & 0x60000) == 0x60000;
    }
    TEST(c, 20, SSE4_2);
    TEST(c, 22, MOVBE);
    TEST(c, 23, POPCNT);
    if (avx) {
        TEST(c, 28, AVX);
        TEST(c, 29, F16C);
        TEST(c, 12, FMA);
    }
    if (__get_cpuid(0x80000001, &a, &b, &c, &d)) TEST(c, 5, LZCNT);
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return found;
    unsigned subleaves = a;
    TEST(b, 3, BMI);
    TEST(b, 8, BMI2);
    if (avx) TEST(b, 5, AVX2);
    TEST(c, 8, GFNI);
    if (avx512) {
        TEST(b, 16, AVX512F);
        TEST(b, 17, AVX512DQ);
        TEST(b, 21, AVX512IFMA);
        TEST(b, 28, AVX512CD);
        TEST(b, 30, AVX512BW);
        TEST(b, 31, AVX512VL);
        TEST(c, 1, AVX512VBMI);
        TEST(c, 6, AVX512VBMI2);
        TEST(c, 11, AVX512VNNI);
        TEST(c, 12, AVX512BITALG);
        TEST(c, 14, AVX512VPOPCNTDQ);
        TEST(d, 23, AVX512FP16);
    }
    if (amx) {
        TEST(d, 22, AMX_BF16);
        TEST(d, 24, AMX_TILE);
        TEST(d, 25, AMX_INT8);
    }
    if (subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) {
        if (avx) TEST(a, 4, AVXVNNI);
        if (avx512) TEST(a, 5, AVX512BF16);
    }
#undef TEST
    return found;
}

int qcc_allow_amx(int64_t required) {
#if defined(__linux__)
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    if (required & (BIT(AMX_TILE) | BIT(AMX_INT8) | BIT(AMX_BF16)))
        return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    (void)required;
#endif
    return 1;
}

#else
int64_t qcc_cpu_features(void) { return 0; }
int qcc_allow_amx(int64_t required) {
    (void)required;
    return 1;
}
#endif
