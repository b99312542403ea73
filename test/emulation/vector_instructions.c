/* Vector instructions that codelets use and this machine may lack, one plain function each, for any width.
 *
 * Semantics: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, under the name of the instruction. `size` is the
 * number of bytes of the result; operands are in the order of LLVM's intrinsic, each where it lies in memory.
 */
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define INSTRUCTION(name) void name(void *result, int64_t size, const void *const *operands)
#define LANES(type) (size / (int64_t)sizeof(type))
#define OPERAND(type, name, i) const type *name = operands[i]
#define RESULT(type, name) type *name = result

static int64_t clamp(int64_t value, int64_t low, int64_t high) { return value < low ? low : value > high ? high : value; }

INSTRUCTION(vpdpbusd) { /* accumulators, unsigned bytes, signed bytes */
    RESULT(uint32_t, y);
    OPERAND(uint32_t, sum, 0);
    OPERAND(uint8_t, a, 1);
    OPERAND(int8_t, b, 2);
    for (int64_t i = 0; i < LANES(uint32_t); i++) {
        y[i] = sum[i];
        for (int j = 0; j < 4; j++) y[i] += (uint32_t)(a[4 * i + j] * b[4 * i + j]);
    }
}

INSTRUCTION(vpdpwssd) { /* accumulators, signed words, signed words */
    RESULT(uint32_t, y);
    OPERAND(uint32_t, sum, 0);
    OPERAND(int16_t, a, 1);
    OPERAND(int16_t, b, 2);
    for (int64_t i = 0; i < LANES(uint32_t); i++)
        y[i] = sum[i] + (uint32_t)(a[2 * i] * b[2 * i]) + (uint32_t)(a[2 * i + 1] * b[2 * i + 1]);
}

static float float_of_bf16(uint16_t upper) {
    uint32_t word = (uint32_t)upper << 16;
    float value;
    memcpy(&value, &word, 4);
    return value;
}

INSTRUCTION(vdpbf16ps) { /* accumulators, bfloat16 pairs, bfloat16 pairs: the upper products first, denormals are zero */
    RESULT(float, y);
    OPERAND(float, sum, 0);
    OPERAND(uint16_t, a, 1);
    OPERAND(uint16_t, b, 2);
    unsigned mode = _mm_getcsr();
    _mm_setcsr(0x1f80 | 0x8040);
    for (int64_t i = 0; i < LANES(float); i++) {
        float upper = sum[i] + float_of_bf16(a[2 * i + 1]) * float_of_bf16(b[2 * i + 1]);
        y[i] = upper + float_of_bf16(a[2 * i]) * float_of_bf16(b[2 * i]);
    }
    _mm_setcsr(mode);
}

INSTRUCTION(vpmaddwd) {
    RESULT(uint32_t, y);
    OPERAND(int16_t, a, 0);
    OPERAND(int16_t, b, 1);
    for (int64_t i = 0; i < LANES(uint32_t); i++) y[i] = (uint32_t)(a[2 * i] * b[2 * i]) + (uint32_t)(a[2 * i + 1] * b[2 * i + 1]);
}

INSTRUCTION(vpmaddubsw) { /* unsigned bytes, signed bytes */
    RESULT(int16_t, y);
    OPERAND(uint8_t, a, 0);
    OPERAND(int8_t, b, 1);
    for (int64_t i = 0; i < LANES(int16_t); i++)
        y[i] = (int16_t)clamp(a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1], INT16_MIN, INT16_MAX);
}

INSTRUCTION(vpackssdw) { /* per 16 bytes: four of the first, four of the second */
    RESULT(int16_t, y);
    for (int64_t i = 0; i < LANES(int16_t); i++) {
        OPERAND(int32_t, from, i / 4 % 2);
        y[i] = (int16_t)clamp(from[i / 8 * 4 + i % 4], INT16_MIN, INT16_MAX);
    }
}

INSTRUCTION(vpackuswb) { /* per 16 bytes: eight of the first, eight of the second */
    RESULT(uint8_t, y);
    for (int64_t i = 0; i < LANES(uint8_t); i++) {
        OPERAND(int16_t, from, i / 8 % 2);
        y[i] = (uint8_t)clamp(from[i / 16 * 8 + i % 8], 0, UINT8_MAX);
    }
}

INSTRUCTION(vpshufb) { /* table, indices; both per 16 bytes */
    RESULT(uint8_t, y);
    OPERAND(uint8_t, table, 0);
    OPERAND(uint8_t, index, 1);
    for (int64_t i = 0; i < LANES(uint8_t); i++) y[i] = index[i] & 0x80 ? 0 : table[i / 16 * 16 + index[i] % 16];
}

#define PERMUTATION(name, type) /* table, indices */ \
    INSTRUCTION(name) { \
        RESULT(type, y); \
        OPERAND(type, table, 0); \
        OPERAND(type, index, 1); \
        for (int64_t i = 0; i < LANES(type); i++) y[i] = table[index[i] % LANES(type)]; \
    }
PERMUTATION(vpermb, uint8_t)
PERMUTATION(vpermps, uint32_t)

#define PERMUTATION_OF_TWO(name, type) /* first table, indices, second table */ \
    INSTRUCTION(name) { \
        RESULT(type, y); \
        OPERAND(type, index, 1); \
        for (int64_t i = 0; i < LANES(type); i++) { \
            OPERAND(type, table, index[i] / LANES(type) % 2 * 2); \
            y[i] = table[index[i] % LANES(type)]; \
        } \
    }
PERMUTATION_OF_TWO(vpermi2b, uint8_t)
PERMUTATION_OF_TWO(vpermi2d, uint32_t)

INSTRUCTION(vscalefps) { /* numbers, whole exponents; all lanes are asked for */
    RESULT(float, y);
    OPERAND(float, number, 0);
    OPERAND(float, exponent, 1);
    for (int64_t i = 0; i < LANES(float); i++) y[i] = scalbnf(number[i], (int)clamp((int64_t)fmaxf(-1e6f, fminf(1e6f, exponent[i])), -1000, 1000));
}

INSTRUCTION(vfmadd231ps) { /* accumulators, factors, factors */
    RESULT(float, y);
    OPERAND(float, sum, 0);
    OPERAND(float, a, 1);
    OPERAND(float, b, 2);
    for (int64_t i = 0; i < LANES(float); i++) y[i] = fmaf(a[i], b[i], sum[i]);
}

INSTRUCTION(vbroadcastf32x4) {
    for (int64_t i = 0; i < size; i += 16) memcpy((char *)result + i, operands[0], 16);
}

/* Where in memory the elements begin, a bit for each lane, and the lanes without one. */
static void expand(char *y, int64_t size, const void *const *operands, int64_t element) {
    const char *from = *(const char *const *)operands[0];
    const uint8_t *mask = operands[1];
    memcpy(y, operands[2], (size_t)size);
    for (int64_t i = 0; i < size / element; i++)
        if (mask[i / 8] >> i % 8 & 1) {
            memcpy(y + i * element, from, (size_t)element);
            from += element;
        }
}

INSTRUCTION(vpexpandb) { expand(result, size, operands, 1); }

INSTRUCTION(vexpandps) { expand(result, size, operands, 4); }

/* What LLVM calls where there is no instruction that rounds to bfloat16 (ties to even); the result is in the lower half of xmm0. */
float __truncsfbf2(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = x != x ? bits >> 16 | 0x40 : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    memcpy(&x, &bits, sizeof bits);
    return x;
}
