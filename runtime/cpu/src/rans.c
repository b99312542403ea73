/* rANS tiles: 32 lanes, 12-bit probabilities, 16-bit words (F. Giesen, "Interleaved entropy coders", 2014).
 *
 * A slot is the symbol, its frequency - 1 (bits 8 to 19) and the slot's place within the symbol's range (bits 20 to 31), so that a step of
 * the decoder, x = frequency * (x >> 12) + place, needs one load. */
#include "coding.h"

enum { SCALE_BITS = 12, LEAST_STATE = 1 << 16 };

static uint32_t bits_at(const uint8_t *data, int64_t position, int count) {
    uint32_t value = 0;
    for (int i = 0; i < count; i++) value |= (uint32_t)(data[(position + i) >> 3] >> ((position + i) & 7) & 1) << i;
    return value;
}

int qcc_rans_fill(uint32_t *slots, const uint8_t *data, int64_t bytes, int bits) {
    int symbols = 1 << bits, filled = 0;
    int64_t mask_bytes = (symbols + 7) / 8, present = 0;
    if (bytes < mask_bytes) return 0;
    for (int s = 0; s < symbols; s++) present += data[s >> 3] >> (s & 7) & 1;
    if (bytes < mask_bytes + (present * SCALE_BITS + 7) / 8) return 0;
    int64_t position = mask_bytes * 8;
    for (int s = 0; s < symbols; s++) {
        if (!(data[s >> 3] >> (s & 7) & 1)) continue;
        uint32_t frequency = bits_at(data, position, SCALE_BITS);
        if (!frequency) frequency = QCC_SLOTS;
        position += SCALE_BITS;
        if (frequency > (uint32_t)(QCC_SLOTS - filled)) return 0;
        for (uint32_t i = 0; i < frequency; i++) slots[filled++] = (uint32_t)s | (frequency - 1) << 8 | i << 20;
    }
    return filled == QCC_SLOTS;
}

static inline uint32_t advance(uint32_t x, uint32_t slot) { return ((slot >> 8 & (QCC_SLOTS - 1)) + 1) * (x >> SCALE_BITS) + (slot >> 20); }

static void rows_scalar(const uint32_t *slots, struct qcc_tile *t) {
    uint32_t state[QCC_LANES]; /* a copy, which stores to `out` cannot change */
    memcpy(state, t->state, sizeof state);
    for (int64_t rows; (rows = qcc_safe_rows(t)) > 0;) {
        t->count -= rows * QCC_LANES;
        const uint8_t *next = t->next;
        uint8_t *out = t->out;
        for (; rows > 0; rows--, out += QCC_LANES)
            for (int i = 0; i < QCC_LANES; i++) {
                uint32_t slot = slots[state[i] & (QCC_SLOTS - 1)], x = advance(state[i], slot), low = x < LEAST_STATE;
                out[i] = (uint8_t)slot;
                state[i] = x << 16 * low | (qcc_word(next) & -low); /* no branch: it would be taken at random */
                next += 2 * low;
            }
        t->next = next, t->out = out;
    }
    memcpy(t->state, state, sizeof state);
}

/* The rest, with a look at the end before every word; then whether the tile ended as it must. */
static int finish(const uint32_t *slots, struct qcc_tile *t) {
    rows_scalar(slots, t);
    for (; t->count > 0; t->count -= QCC_LANES, t->out += QCC_LANES)
        for (int i = 0; i < QCC_LANES && i < t->count; i++) {
            uint32_t slot = slots[t->state[i] & (QCC_SLOTS - 1)], x = advance(t->state[i], slot);
            t->out[i] = (uint8_t)slot;
            if (x < LEAST_STATE) {
                if (t->next == t->end) return 0;
                x = x << 16 | qcc_word(t->next);
                t->next += 2;
            }
            t->state[i] = x;
        }
    int sound = t->next == t->end;
    for (int i = 0; i < QCC_LANES; i++) sound &= t->state[i] == LEAST_STATE;
    return sound;
}

#if defined(__x86_64__)
QCC_AVX512 static inline __m512i step16(const uint32_t *slots, __m512i x, const uint8_t **next, uint8_t *out) {
    const __m512i mask = _mm512_set1_epi32(QCC_SLOTS - 1);
    __m512i high = _mm512_srli_epi32(x, SCALE_BITS), slot = qcc_gather16(slots, _mm512_and_si512(x, mask));
    _mm_storeu_si128((__m128i *)out, _mm512_cvtepi32_epi8(slot));
    __m512i place = _mm512_add_epi32(_mm512_srli_epi32(slot, 20), high);
    x = _mm512_add_epi32(_mm512_mullo_epi32(_mm512_and_si512(_mm512_srli_epi32(slot, 8), mask), high), place);
    __mmask16 low = _mm512_cmplt_epu32_mask(x, _mm512_set1_epi32(LEAST_STATE));
    return _mm512_mask_or_epi32(x, low, _mm512_slli_epi32(x, 16), qcc_take16(low, next));
}

QCC_AVX512 static void rows_avx512(const uint32_t *slots, struct qcc_tile *a, struct qcc_tile *b) {
    __m512i a0 = _mm512_loadu_si512(a->state), a1 = _mm512_loadu_si512(a->state + 16), b0, b1;
    if (b) {
        b0 = _mm512_loadu_si512(b->state), b1 = _mm512_loadu_si512(b->state + 16);
        for (int64_t rows; (rows = qcc_safe_rows(a)) > 0 && qcc_safe_rows(b) > 0;) {
            if (qcc_safe_rows(b) < rows) rows = qcc_safe_rows(b);
            a->count -= rows * QCC_LANES, b->count -= rows * QCC_LANES;
            const uint8_t *an = a->next, *bn = b->next;
            uint8_t *ao = a->out, *bo = b->out;
            for (; rows > 0; rows--, ao += QCC_LANES, bo += QCC_LANES) {
                a0 = step16(slots, a0, &an, ao);
                b0 = step16(slots, b0, &bn, bo);
                a1 = step16(slots, a1, &an, ao + 16);
                b1 = step16(slots, b1, &bn, bo + 16);
            }
            a->next = an, a->out = ao, b->next = bn, b->out = bo;
        }
        _mm512_storeu_si512(b->state, b0), _mm512_storeu_si512(b->state + 16, b1);
    }
    for (int64_t rows; (rows = qcc_safe_rows(a)) > 0;) {
        a->count -= rows * QCC_LANES;
        for (; rows > 0; rows--, a->out += QCC_LANES) {
            a0 = step16(slots, a0, &a->next, a->out);
            a1 = step16(slots, a1, &a->next, a->out + 16);
        }
    }
    _mm512_storeu_si512(a->state, a0), _mm512_storeu_si512(a->state + 16, a1);
}

QCC_AVX2 static inline __m256i step8(const uint32_t *slots, __m256i x, const uint8_t **next, __m256i *slot) {
    const __m256i mask = _mm256_set1_epi32(QCC_SLOTS - 1);
    __m256i high = _mm256_srli_epi32(x, SCALE_BITS);
    *slot = _mm256_i32gather_epi32((const int *)slots, _mm256_and_si256(x, mask), 4);
    __m256i place = _mm256_add_epi32(_mm256_srli_epi32(*slot, 20), high);
    x = _mm256_add_epi32(_mm256_mullo_epi32(_mm256_and_si256(_mm256_srli_epi32(*slot, 8), mask), high), place);
    __m256i low = _mm256_cmpeq_epi32(_mm256_srli_epi32(x, 16), _mm256_setzero_si256());
    __m256i words = qcc_take8((unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(low)), next);
    return _mm256_blendv_epi8(x, _mm256_or_si256(_mm256_slli_epi32(x, 16), words), low);
}

QCC_AVX2 static void rows_avx2(const uint32_t *slots, struct qcc_tile *t) {
    __m256i x[4], slot[4];
    for (int i = 0; i < 4; i++) x[i] = _mm256_loadu_si256((const __m256i *)(t->state + 8 * i));
    for (int64_t rows; (rows = qcc_safe_rows(t)) > 0;) {
        t->count -= rows * QCC_LANES;
        for (; rows > 0; rows--, t->out += QCC_LANES) {
            for (int i = 0; i < 4; i++) x[i] = step8(slots, x[i], &t->next, &slot[i]);
            qcc_store_bytes(t->out, slot[0], slot[1], slot[2], slot[3]);
        }
    }
    for (int i = 0; i < 4; i++) _mm256_storeu_si256((__m256i *)(t->state + 8 * i), x[i]);
}
#endif

int qcc_rans_decode(const uint32_t *slots, struct qcc_tile *a, struct qcc_tile *b, int isa) {
#if defined(__x86_64__)
    if (isa == QCC_CODING_AVX512) {
        rows_avx512(slots, a, b);
        if (b) rows_avx512(slots, b, NULL);
    } else if (isa == QCC_CODING_AVX2) {
        rows_avx2(slots, a);
        if (b) rows_avx2(slots, b);
    }
#else
    (void)isa;
#endif
    return finish(slots, a) && (!b || finish(slots, b));
}
