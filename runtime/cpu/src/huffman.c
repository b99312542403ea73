/* Canonical Huffman tiles: 32 lanes, code words of at most 12 bits, 16-bit words taken in the order of lanes.
 *
 * A slot, found by the upper 12 bits of a lane's register, is the symbol and the length of its code word (from bit 8). */
#include "coding.h"

enum { LONGEST = 12, LEAST_HELD = 16 };

int qcc_huffman_fill(uint32_t *slots, const uint8_t *data, int64_t bytes, int bits) {
    int symbols = 1 << bits, filled = 0, used = 0, last = 0;
    if (bytes < (4 * symbols + 7) / 8) return 0;
    for (int s = 0; s < symbols; s++) {
        int length = data[s >> 1] >> 4 * (s & 1) & 15;
        if (length > LONGEST) return 0;
        if (length) used++, last = s;
    }
    if (used == 1) { /* one symbol takes one bit; both values mean it */
        if ((data[last >> 1] >> 4 * (last & 1) & 15) != 1) return 0;
        for (int i = 0; i < QCC_SLOTS; i++) slots[i] = (uint32_t)last | 1 << 8;
        return 1;
    }
    for (int length = 1; length <= LONGEST; length++)
        for (int s = 0; s < symbols; s++) {
            if ((data[s >> 1] >> 4 * (s & 1) & 15) != length) continue;
            int span = 1 << (LONGEST - length);
            if (span > QCC_SLOTS - filled) return 0;
            for (int i = 0; i < span; i++) slots[filled++] = (uint32_t)s | (uint32_t)length << 8;
        }
    return filled == QCC_SLOTS;
}

static void rows_scalar(const uint32_t *slots, struct qcc_tile *t) {
    uint32_t state[QCC_LANES]; /* copies, which stores to `out` cannot change */
    int32_t held[QCC_LANES];
    memcpy(state, t->state, sizeof state), memcpy(held, t->held, sizeof held);
    for (int64_t rows; (rows = qcc_safe_rows(t)) > 0;) {
        t->count -= rows * QCC_LANES;
        const uint8_t *next = t->next;
        uint8_t *out = t->out;
        for (; rows > 0; rows--, out += QCC_LANES)
            for (int i = 0; i < QCC_LANES; i++) {
                uint32_t slot = slots[state[i] >> (32 - LONGEST)], x = state[i] << (slot >> 8);
                int32_t left = held[i] - (int32_t)(slot >> 8), low = left < LEAST_HELD;
                out[i] = (uint8_t)slot;
                state[i] = x | (qcc_word(next) << ((LEAST_HELD - left) & 31) & -(uint32_t)low); /* no branch: it would be taken at random */
                held[i] = left + 16 * low;
                next += 2 * low;
            }
        t->next = next, t->out = out;
    }
    memcpy(t->state, state, sizeof state), memcpy(t->held, held, sizeof held);
}

/* The rest, with a look at the end before every word; then whether the tile ended as it must. */
static int finish(const uint32_t *slots, struct qcc_tile *t) {
    rows_scalar(slots, t);
    for (; t->count > 0; t->count -= QCC_LANES, t->out += QCC_LANES)
        for (int i = 0; i < QCC_LANES && i < t->count; i++) {
            uint32_t slot = slots[t->state[i] >> (32 - LONGEST)];
            t->out[i] = (uint8_t)slot;
            t->state[i] <<= slot >> 8;
            t->held[i] -= (int32_t)(slot >> 8);
            if (t->held[i] < LEAST_HELD) {
                if (t->next == t->end) return 0;
                t->state[i] |= qcc_word(t->next) << (LEAST_HELD - t->held[i]);
                t->held[i] += 16;
                t->next += 2;
            }
        }
    int sound = t->next == t->end;
    for (int i = 0; i < QCC_LANES; i++) sound &= t->state[i] == 0;
    return sound;
}

#if defined(__x86_64__)
struct lanes16 {
    __m512i x, held;
};

QCC_AVX512 static inline void step16(const uint32_t *slots, struct lanes16 *l, const uint8_t **next, uint8_t *out) {
    const __m512i least = _mm512_set1_epi32(LEAST_HELD);
    __m512i slot = qcc_gather16(slots, _mm512_srli_epi32(l->x, 32 - LONGEST)), length = _mm512_srli_epi32(slot, 8);
    _mm_storeu_si128((__m128i *)out, _mm512_cvtepi32_epi8(slot));
    __m512i x = _mm512_sllv_epi32(l->x, length), held = _mm512_sub_epi32(l->held, length);
    __mmask16 low = _mm512_cmplt_epi32_mask(held, least);
    __m512i words = _mm512_sllv_epi32(qcc_take16(low, next), _mm512_sub_epi32(least, held));
    l->x = _mm512_mask_or_epi32(x, low, x, words);
    l->held = _mm512_mask_add_epi32(held, low, held, least);
}

QCC_AVX512 static void load16(struct lanes16 *l, const struct qcc_tile *t) {
    for (int i = 0; i < 2; i++) l[i] = (struct lanes16){_mm512_loadu_si512(t->state + 16 * i), _mm512_loadu_si512(t->held + 16 * i)};
}

QCC_AVX512 static void store16(const struct lanes16 *l, struct qcc_tile *t) {
    for (int i = 0; i < 2; i++) _mm512_storeu_si512(t->state + 16 * i, l[i].x), _mm512_storeu_si512(t->held + 16 * i, l[i].held);
}

QCC_AVX512 static void rows_avx512(const uint32_t *slots, struct qcc_tile *a, struct qcc_tile *b) {
    struct lanes16 la[2], lb[2];
    load16(la, a);
    if (b) {
        load16(lb, b);
        for (int64_t rows; (rows = qcc_safe_rows(a)) > 0 && qcc_safe_rows(b) > 0;) {
            if (qcc_safe_rows(b) < rows) rows = qcc_safe_rows(b);
            a->count -= rows * QCC_LANES, b->count -= rows * QCC_LANES;
            const uint8_t *an = a->next, *bn = b->next;
            uint8_t *ao = a->out, *bo = b->out;
            for (; rows > 0; rows--, ao += QCC_LANES, bo += QCC_LANES) {
                step16(slots, &la[0], &an, ao);
                step16(slots, &lb[0], &bn, bo);
                step16(slots, &la[1], &an, ao + 16);
                step16(slots, &lb[1], &bn, bo + 16);
            }
            a->next = an, a->out = ao, b->next = bn, b->out = bo;
        }
        store16(lb, b);
    }
    for (int64_t rows; (rows = qcc_safe_rows(a)) > 0;) {
        a->count -= rows * QCC_LANES;
        for (; rows > 0; rows--, a->out += QCC_LANES) {
            step16(slots, &la[0], &a->next, a->out);
            step16(slots, &la[1], &a->next, a->out + 16);
        }
    }
    store16(la, a);
}

struct lanes8 {
    __m256i x, held;
};

QCC_AVX2 static inline __m256i step8(const uint32_t *slots, struct lanes8 *l, const uint8_t **next) {
    const __m256i least = _mm256_set1_epi32(LEAST_HELD);
    __m256i slot = _mm256_i32gather_epi32((const int *)slots, _mm256_srli_epi32(l->x, 32 - LONGEST), 4), length = _mm256_srli_epi32(slot, 8);
    __m256i x = _mm256_sllv_epi32(l->x, length), held = _mm256_sub_epi32(l->held, length), low = _mm256_cmpgt_epi32(least, held);
    __m256i words = _mm256_sllv_epi32(qcc_take8((unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(low)), next), _mm256_sub_epi32(least, held));
    l->x = _mm256_or_si256(x, _mm256_and_si256(words, low));
    l->held = _mm256_add_epi32(held, _mm256_and_si256(least, low));
    return slot;
}

QCC_AVX2 static void rows_avx2(const uint32_t *slots, struct qcc_tile *t) {
    struct lanes8 l[4];
    __m256i slot[4];
    for (int i = 0; i < 4; i++) {
        l[i].x = _mm256_loadu_si256((const __m256i *)(t->state + 8 * i));
        l[i].held = _mm256_loadu_si256((const __m256i *)(t->held + 8 * i));
    }
    for (int64_t rows; (rows = qcc_safe_rows(t)) > 0;) {
        t->count -= rows * QCC_LANES;
        for (; rows > 0; rows--, t->out += QCC_LANES) {
            for (int i = 0; i < 4; i++) slot[i] = step8(slots, &l[i], &t->next);
            qcc_store_bytes(t->out, slot[0], slot[1], slot[2], slot[3]);
        }
    }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_si256((__m256i *)(t->state + 8 * i), l[i].x);
        _mm256_storeu_si256((__m256i *)(t->held + 8 * i), l[i].held);
    }
}
#endif

int qcc_huffman_decode(const uint32_t *slots, struct qcc_tile *a, struct qcc_tile *b, int isa) {
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
