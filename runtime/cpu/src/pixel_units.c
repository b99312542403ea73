/* Codelets follow the offsets that are made here, so that every cell must be the compiler's, byte for byte: its record has a checksum. */
#include "pixel_units.h"

#include <emmintrin.h>
#include <string.h>

enum { QUAD = 4, WIDTH = 64, SHARED = 10, OWN = 3 }; /* dialects/channel_order.py */
#define MOST (UINT64_C(1) << 40)

/* Of every cell, beside the record. */
struct known {
    uint32_t begin; /* byte of the weights */
    uint32_t check; /* sum of its 16-bit words times 1, 3, 5, ... */
};

/* Of one thread; all sizes are those of the largest cell. */
struct scratch {
    uint64_t *rows;     /* [channel]: bits of the channels of x in a square that it reads */
    uint64_t *columns;  /* [channel of x][channels / 64]: the same bits turned around */
    uint64_t *together; /* [channels / 64]: who reads the channels of the word in hand */
    uint32_t *words;    /* [channel][quadruple of the block] */
    uint32_t *counts;   /* [channel]: quadruples that are not 0 */
    uint32_t *sorted;   /* [channel]: numbers by ascending count */
    uint32_t *places;   /* [count]: of the next channel with that count */
    uint16_t *kept;     /* [quadruple]: numbers of those that are not 0 */
    uint16_t *zeros;    /* [quadruple]: of the others */
};

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }
static uint64_t divide(uint64_t a, uint64_t b) { return (a + b - 1) / b; }
static uint64_t run_squares(const struct qcc_recipe *r) { return divide(r->run, (uint64_t)QUAD * r->lanes); }
static uint64_t total_squares(const struct qcc_recipe *r) { return r->columns / r->run * run_squares(r); }
static uint64_t blocks(const struct qcc_recipe *r) { return divide(total_squares(r), r->squares); }
static uint64_t chunks(const struct qcc_recipe *r) { return divide(r->channels, r->chunk); }
static uint64_t order_bytes(const struct qcc_recipe *r) { return r->ordered ? chunks(r) * total_squares(r) * WIDTH : 0; }
static uint64_t row_bytes(const struct qcc_recipe *r) { return (uint64_t)4 * r->vectors * r->lanes; }
static uint64_t most_channels(const struct qcc_recipe *r) { return least(r->chunk, r->channels); }
static uint64_t most_depth(const struct qcc_recipe *r) { return least(r->squares, total_squares(r)) * r->lanes; }
/* Number of the first quadruple of a square in the reduction. */
static uint64_t first_quadruple(const struct qcc_recipe *r, uint64_t square) {
    return square / run_squares(r) * divide(r->run, QUAD) + square % run_squares(r) * r->lanes;
}

int64_t qcc_pixel_units_cells(const struct qcc_recipe *r) { return (int64_t)(chunks(r) * blocks(r)); }

uint64_t qcc_pixel_units_source_bytes(const struct qcc_recipe *r, uint64_t image_bytes) {
    if (r->coded || r->batches != 1 || !r->run || r->columns % r->run || !r->squares || !r->chunk || !r->members || r->ordered > 1) return 0;
    if ((r->lanes != 8 && r->lanes != 16) || (r->ordered && QUAD * r->lanes != WIDTH) || r->members > r->lanes) return 0;
    if (most_channels(r) > UINT16_MAX - r->lanes || most_depth(r) * row_bytes(r) > UINT16_MAX + 1) return 0; /* numbers and offsets have 16 bits */
    uint64_t count = (uint64_t)r->channels * r->columns, cells = chunks(r) * blocks(r);
    if (count > MOST || r->parameters > image_bytes || r->parameters % 8 || cells > (image_bytes - r->parameters) / sizeof(struct known)) return 0;
    return r->made_bytes >= order_bytes(r) + 8 * cells ? count : 0;
}

static struct scratch divided(const struct qcc_recipe *r, uint8_t *at, uint64_t *bytes) {
    uint64_t n = most_channels(r), depth = most_depth(r), in_words = divide(n, 64);
    uint64_t sizes[] = {8 * n, 8 * WIDTH * in_words, 8 * in_words, 4 * n * depth, 4 * n, 4 * n, 4 * (depth + 2), 2 * depth, 2 * depth}, places[9];
    *bytes = 0;
    for (int i = 0; i < 9; i++) {
        places[i] = *bytes;
        *bytes += divide(sizes[i], 64) * 64;
    }
    if (!at) return (struct scratch){0};
    return (struct scratch){(void *)(at + places[0]), (void *)(at + places[1]), (void *)(at + places[2]), (void *)(at + places[3]), (void *)(at + places[4]),
                            (void *)(at + places[5]), (void *)(at + places[6]), (void *)(at + places[7]), (void *)(at + places[8])};
}

uint64_t qcc_pixel_units_scratch_bytes(const struct qcc_recipe *r) {
    uint64_t bytes;
    divided(r, NULL, &bytes);
    return bytes;
}

/* Which of 64 bytes are not 0. */
static uint64_t nonzero(const uint8_t *bytes) {
    uint64_t zeros = 0;
    for (int i = 0; i < WIDTH; i += 16) {
        __m128i equal = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(bytes + i)), _mm_setzero_si128());
        zeros |= (uint64_t)(uint32_t)_mm_movemask_epi8(equal) << i;
    }
    return ~zeros;
}

/* The order of the channels of a square whose bits are in s->rows: the fullest that is left, then three times the one that shares most with
 * those before it, and of equal ones the first. */
static void find_order(const struct scratch *s, uint64_t n, uint8_t *order) {
    uint64_t in_words = divide(n, 64), left = UINT64_MAX;
    int32_t counts[WIDTH] = {0}, shared[WIDTH];
    memset(s->columns, 0, 8 * WIDTH * in_words);
    for (uint64_t c = 0; c < n; c++)
        for (uint64_t bits = s->rows[c]; bits; bits &= bits - 1) {
            int j = __builtin_ctzll(bits);
            s->columns[(uint64_t)j * in_words + c / 64] |= UINT64_C(1) << c % 64;
            counts[j]++;
        }
    for (int place = 0; place < WIDTH; place++) {
        int starts = place % QUAD == 0, best = -1;
        int32_t most = INT32_MIN;
        if (starts) {
            memset(s->together, 0, 8 * in_words);
            memset(shared, 0, sizeof shared);
        }
        for (uint64_t bits = left; bits; bits &= bits - 1) {
            int j = __builtin_ctzll(bits);
            int32_t score = starts ? counts[j] : SHARED * shared[j] - OWN * counts[j];
            if (score > most) most = score, best = j;
        }
        order[place] = (uint8_t)best;
        left &= ~(UINT64_C(1) << best);
        for (uint64_t w = 0; w < in_words && place % QUAD < QUAD - 1; w++) {
            uint64_t fresh = s->columns[(uint64_t)best * in_words + w] & ~s->together[w];
            s->together[w] |= fresh;
            for (; fresh; fresh &= fresh - 1)
                for (uint64_t bits = s->rows[64 * w + (uint64_t)__builtin_ctzll(fresh)] & left; bits; bits &= bits - 1) shared[__builtin_ctzll(bits)]++;
        }
    }
}

/* The words of a square of `n` channels from `source` on, which are `stride` bytes apart, to `words`, `depth` apart. */
static void put_in_order(const struct scratch *s, const uint8_t *source, uint64_t stride, uint64_t n, uint8_t *order, uint32_t *words, uint64_t depth) {
    uint8_t place[WIDTH];
    for (uint64_t c = 0; c < n; c++) s->rows[c] = nonzero(source + c * stride);
    find_order(s, n, order);
    for (int i = 0; i < WIDTH; i++) place[order[i]] = (uint8_t)i;
    for (uint64_t c = 0; c < n; c++) {
        uint8_t *out = (uint8_t *)(words + c * depth);
        memset(out, 0, WIDTH);
        for (uint64_t bits = s->rows[c]; bits; bits &= bits - 1) {
            int j = __builtin_ctzll(bits);
            out[place[j]] = source[c * stride + (uint64_t)j];
        }
    }
}

/* Count what is not 0 in each of `n` channels, and sort their numbers by it; equal ones stay in their order. */
static void sort(const struct scratch *s, uint64_t n, uint64_t depth) {
    memset(s->places, 0, 4 * (depth + 2));
    for (uint64_t c = 0; c < n; c++) {
        uint32_t count = 0;
        for (uint64_t i = 0; i < depth; i++) count += s->words[c * depth + i] != 0;
        s->counts[c] = count;
        s->places[count + 1]++;
    }
    for (uint64_t i = 0; i < depth; i++) s->places[i + 1] += s->places[i];
    for (uint64_t c = 0; c < n; c++) s->sorted[s->places[s->counts[c]]++] = (uint32_t)c;
}

static void put16(uint8_t *at, uint64_t value) {
    uint16_t held = (uint16_t)value;
    memcpy(at, &held, 2);
}

/* Heads and units of `n` channels into exactly `bytes`; 0 where those are not as many as there are. */
static int pack(const struct qcc_recipe *r, const struct scratch *s, uint64_t n, uint64_t depth, uint8_t *out, uint64_t bytes) {
    uint64_t members = r->members, groups = divide(n, members), unit_bytes = 6 * members, total = groups * 2 * (members + 1);
    for (uint64_t g = 0; g < groups; g++) total += s->counts[s->sorted[least(n, (g + 1) * members) - 1]] * unit_bytes;
    if (total != bytes) return 0;
    memset(out, 0, bytes);
    uint8_t *at = out + groups * 2 * (members + 1);
    for (uint64_t g = 0; g < groups; g++) {
        uint64_t units = s->counts[s->sorted[least(n, (g + 1) * members) - 1]]; /* of the fullest */
        for (uint64_t m = 0; m < members; m++, out += 2) {
            uint64_t number = g * members + m, found = 0, others = 0;
            put16(out, number < n ? s->sorted[number] : number);
            if (number >= n) continue;
            const uint32_t *words = s->words + s->sorted[number] * depth;
            for (uint64_t i = 0; i < depth; i++) {
                s->kept[found] = s->zeros[others] = (uint16_t)i;
                found += words[i] != 0;
                others += words[i] == 0;
            }
            for (uint64_t u = 0; u < units; u++) { /* zeros fill up, in columns where the channel has no weight */
                uint64_t column = u < found ? s->kept[u] : s->zeros[u - found];
                put16(at + u * unit_bytes + 2 * m, column * row_bytes(r));
                memcpy(at + u * unit_bytes + 2 * members + 4 * m, &words[column], 4);
            }
        }
        put16(out, units);
        out += 2;
        at += units * unit_bytes;
    }
    return 1;
}

static uint32_t check_of(const uint8_t *cell, uint64_t bytes) {
    uint32_t sum = 0;
    for (uint64_t i = 0; i < bytes / 2; i++) {
        uint16_t word;
        memcpy(&word, cell + 2 * i, 2);
        sum += word * (uint32_t)(2 * i + 1);
    }
    return sum;
}

int qcc_pixel_units_make(const struct qcc_recipe *r, const uint8_t *image, const uint8_t *source, uint8_t *target, int64_t cell, void *scratch) {
    uint64_t number = (uint64_t)cell, cells = chunks(r) * blocks(r), chunk = number / blocks(r), unused;
    uint64_t first = chunk * r->chunk, n = least(r->chunk, r->channels - first), square = number % blocks(r) * r->squares;
    uint64_t last = least(square + r->squares, total_squares(r)), base = first_quadruple(r, square), depth = first_quadruple(r, last) - base;
    const struct known *known = (const void *)(image + r->parameters);
    uint64_t begin = known[number].begin, end = number + 1 < cells ? known[number + 1].begin : r->made_bytes;
    struct scratch s = divided(r, scratch, &unused);
    if (begin < order_bytes(r) + 8 * cells || end < begin || end > r->made_bytes) return 0;
    memcpy(target + order_bytes(r) + 8 * number, &begin, 8);
    for (; square < last; square++) {
        uint64_t place = square % run_squares(r) * QUAD * r->lanes, bytes = least((uint64_t)QUAD * r->lanes, r->run - place);
        const uint8_t *from = source + first * r->columns + square / run_squares(r) * r->run + place;
        uint32_t *words = s.words + (first_quadruple(r, square) - base);
        uint8_t *order = target + (chunk * total_squares(r) + square) * WIDTH;
        if (r->ordered && bytes == WIDTH) {
            put_in_order(&s, from, r->columns, n, order, words, depth);
            continue;
        }
        for (int i = 0; i < WIDTH && r->ordered; i++) order[i] = (uint8_t)i;
        for (uint64_t c = 0; c < n; c++) {
            memset(words + c * depth, 0, divide(bytes, QUAD) * QUAD);
            memcpy(words + c * depth, from + c * r->columns, bytes);
        }
    }
    sort(&s, n, depth);
    return pack(r, &s, n, depth, target + begin, end - begin) && check_of(target + begin, end - begin) == known[number].check;
}
