/* Decoders of entropy-coded tiles; what is stored is said in runtime/reference/rans.py and huffman.py. */
#ifndef QCC_CODING_H
#define QCC_CODING_H

#include <stdint.h>
#include <string.h>

enum { QCC_LANES = 32, QCC_SLOTS = 1 << 12, QCC_TILE_SYMBOLS = 1 << 16, QCC_STATE_BYTES = 4 * QCC_LANES };
enum qcc_coding { QCC_CODING_RAW = 0, QCC_CODING_HUFFMAN = 1, QCC_CODING_RANS = 2 };
enum qcc_coding_isa { QCC_CODING_SCALAR = 0, QCC_CODING_AVX2 = 1, QCC_CODING_AVX512 = 2 };

/* A tile while it is decoded. `slots` is the table that the fill functions make. */
struct qcc_tile {
    uint32_t state[QCC_LANES];
    int32_t held[QCC_LANES]; /* bits left in a Huffman register */
    const uint8_t *next;     /* words not yet taken, up to `end` */
    const uint8_t *end;
    uint8_t *out;
    int64_t count; /* symbols still to decode */
};

/* The best that this CPU has. */
int qcc_coding_isa(void);

/* Tables as stored, in `bytes` at `data`, for symbols of `bits` bits; 0 where damaged. */
int qcc_rans_fill(uint32_t *slots, const uint8_t *data, int64_t bytes, int bits);
int qcc_huffman_fill(uint32_t *slots, const uint8_t *data, int64_t bytes, int bits);

/* Decode one tile, or two (`b` may be NULL) whose lanes hide each other's latency; 0 where damaged. */
int qcc_rans_decode(const uint32_t *slots, struct qcc_tile *a, struct qcc_tile *b, int isa);
int qcc_huffman_decode(const uint32_t *slots, struct qcc_tile *a, struct qcc_tile *b, int isa);

static inline uint32_t qcc_word(const uint8_t *at) {
    uint16_t word;
    memcpy(&word, at, 2);
    return word;
}

/* Whole rows of lanes that can surely be decoded before the next look at the words left, whatever they take. */
static inline int64_t qcc_safe_rows(const struct qcc_tile *tile) {
    int64_t by_words = (tile->end - tile->next) / (2 * QCC_LANES), by_count = tile->count / QCC_LANES;
    return by_words < by_count ? by_words : by_count;
}

#if defined(__x86_64__)
#include <immintrin.h>
#define QCC_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,popcnt,bmi,bmi2")))
#define QCC_AVX2 __attribute__((target("avx2,popcnt,bmi,bmi2")))

/* The next words for the lanes of `mask`, in order, as 32-bit numbers; 0 in the others. */
QCC_AVX512 static inline __m512i qcc_take16(__mmask16 mask, const uint8_t **next) {
    __m512i words = _mm512_maskz_expand_epi32(mask, _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)*next)));
    *next += 2 * __builtin_popcount(mask);
    return words;
}

/* slots[index] for 16 lanes: two gathers of 8, because on Zen 4 one of 16 takes longer. What does not need them is best written before
 * them, for they hold up the instructions behind. */
QCC_AVX512 static inline __m512i qcc_gather16(const uint32_t *slots, __m512i index) {
    __m256i low = _mm256_i32gather_epi32((const int *)slots, _mm512_castsi512_si256(index), 4);
    __m256i high = _mm256_i32gather_epi32((const int *)slots, _mm512_extracti64x4_epi64(index, 1), 4);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

/* As `qcc_take16` for 8 lanes; what lanes outside `mask` get is undefined. */
QCC_AVX2 static inline __m256i qcc_take8(unsigned mask, const uint8_t **next) {
    uint64_t order = _pdep_u64(UINT64_C(0x0706050403020100), _pdep_u64(mask, UINT64_C(0x0101010101010101)) * 255);
    __m256i index = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)order));
    __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)*next));
    *next += 2 * __builtin_popcount(mask);
    return _mm256_permutevar8x32_epi32(words, index);
}

/* The low bytes of 32 numbers. */
QCC_AVX2 static inline void qcc_store_bytes(uint8_t *out, __m256i a, __m256i b, __m256i c, __m256i d) {
    const __m256i low = _mm256_set1_epi32(255);
    __m256i ab = _mm256_packus_epi32(_mm256_and_si256(a, low), _mm256_and_si256(b, low));
    __m256i cd = _mm256_packus_epi32(_mm256_and_si256(c, low), _mm256_and_si256(d, low));
    __m256i all = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(ab, cd), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)out, all);
}
#endif
#endif
