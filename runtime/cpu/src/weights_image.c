/* Reading coded weights. Every number of the image is checked before it is used: a damaged image gives an error, never a stray access. */
#include "weights_image.h"

#include <omp.h>
#include <stdatomic.h>
#include <stdlib.h>

struct header {
    char magic[8];
    uint64_t image_bytes;
    uint64_t decoded_bytes;
    uint32_t entry_count;
    uint32_t table_count;
    uint32_t tile_count;
    uint32_t recipe_count;
    uint8_t zero[24];
};
_Static_assert(sizeof(struct header) == 64 && sizeof(struct qcc_image_entry) == 32 && sizeof(struct qcc_image_table) == 8, "layout of the image");

int qcc_coding_isa(void) {
    int64_t found = qcc_cpu_features();
#define HAS(symbol) (found >> QCC_CPU_##symbol & 1)
    if (!HAS(AVX2) || !HAS(BMI2) || !HAS(POPCNT)) return QCC_CODING_SCALAR;
    return HAS(AVX512F) && HAS(AVX512BW) && HAS(AVX512DQ) && HAS(AVX512VL) ? QCC_CODING_AVX512 : QCC_CODING_AVX2;
#undef HAS
}

static int damaged(const char *what, long long where) {
    return qcc_fail(QCC_BAD_WEIGHTS, "the coded weights are damaged: %s %lld; compile the model again, or copy the file again", what, where);
}

static int bits_of(const struct qcc_image_entry *entry) { return entry->width & 15; }
static int64_t tile_symbols(const struct qcc_image_entry *entry) { return (int64_t)QCC_TILE_SYMBOLS << (entry->width >> 4); }
static int64_t symbols_of(const struct qcc_image_entry *entry) { return (int64_t)entry->size_bytes * 8 / bits_of(entry); }

/* `made`: by a recipe, from as many bytes as that says. */
static int entry_is_sound(const struct qcc_image *image, const struct qcc_image_entry *entry, int64_t table_count, int made) {
    uint64_t decoded = (uint64_t)image->decoded_bytes, size = entry->size_bytes;
    if (entry->offset_bytes > decoded || size > (made ? INT64_MAX / 16 : decoded - entry->offset_bytes)) return 0;
    if (entry->mode == QCC_CODING_RAW)
        return entry->place <= (uint64_t)image->bytes && size <= (uint64_t)image->bytes - entry->place && entry->place % QCC_ALIGNMENT == 0;
    if (entry->mode != QCC_CODING_HUFFMAN && entry->mode != QCC_CODING_RANS) return 0;
    if (entry->width >> 4 ? bits_of(entry) != 8 : bits_of(entry) != 8 && bits_of(entry) != 4 && bits_of(entry) != 2) return 0;
    if (entry->table >= table_count || image->tables[entry->table].mode != entry->mode || image->tables[entry->table].bits != bits_of(entry)) return 0;
    if ((symbols_of(entry) + tile_symbols(entry) - 1) / tile_symbols(entry) != entry->tiles) return 0;
    return entry->place <= (uint64_t)image->tile_count && entry->tiles <= (uint64_t)image->tile_count - entry->place;
}

/* Whether a recipe fits its entry's source, and what it makes the place up to the next entry. */
static int recipe_is_sound(const struct qcc_image *image, int64_t i) {
    const struct qcc_recipe *recipe = &image->recipes[i];
    if (recipe->entry >= image->entry_count || (i && recipe->entry <= recipe[-1].entry)) return 0;
    const struct qcc_image_entry *entry = &image->entries[recipe->entry];
    uint64_t end = recipe->entry + 1 < image->entry_count ? entry[1].offset_bytes : (uint64_t)image->decoded_bytes;
    uint64_t source = qcc_recipe_source_bytes(recipe, (uint64_t)image->bytes);
    return source && source == entry->size_bytes && qcc_recipe_target_bytes(recipe) <= end - entry->offset_bytes && entry->offset_bytes % QCC_ALIGNMENT == 0;
}

int qcc_image_open(struct qcc_image *image, const void *data, int64_t bytes) {
    const struct header *header = data;
    if (bytes < (int64_t)sizeof *header || memcmp(header->magic, "QCCCODE3", 8) || header->image_bytes != (uint64_t)bytes || header->decoded_bytes > INT64_MAX / 16)
        return damaged("their header of", sizeof *header);
    const uint8_t *at = (const uint8_t *)data + sizeof *header;
    uint64_t directories = (uint64_t)header->entry_count * 32 + (uint64_t)header->recipe_count * 64 + (uint64_t)header->table_count * 8 + ((uint64_t)header->tile_count + 1) * 8;
    if (directories > (uint64_t)bytes - sizeof *header) return damaged("their directory of", (long long)directories);
    *image = (struct qcc_image){.data = data, .bytes = bytes, .decoded_bytes = (int64_t)header->decoded_bytes, .entry_count = header->entry_count,
                                .tile_count = header->tile_count, .recipe_count = header->recipe_count, .entries = (const void *)at};
    image->recipes = (const void *)(at += image->entry_count * 32);
    image->tables = (const void *)(at += image->recipe_count * 64);
    image->tiles = (const void *)(at + (int64_t)header->table_count * 8);
    uint64_t end = 0;
    for (int64_t i = 0, r = 0; i < image->entry_count; i++) {
        int made = r < image->recipe_count && image->recipes[r].entry == i;
        if (image->entries[i].offset_bytes < end || !entry_is_sound(image, &image->entries[i], header->table_count, made)) return damaged("entry", i);
        end = image->entries[i].offset_bytes + (made ? 0 : image->entries[i].size_bytes); /* what is made has its place: see below */
        r += made;
    }
    for (int64_t i = 0; i < image->recipe_count; i++)
        if (!recipe_is_sound(image, i)) return damaged("recipe", i);
    for (int64_t i = 0; i < header->table_count; i++)
        if (image->tables[i].offset_bytes > (uint64_t)bytes) return damaged("table", i);
    for (int64_t i = 0; i <= image->tile_count; i++)
        if (image->tiles[i] > (uint64_t)bytes || (i && image->tiles[i] < image->tiles[i - 1])) return damaged("tile", i);
    return QCC_OK;
}

const struct qcc_image_entry *qcc_image_find(const struct qcc_image *image, int64_t offset) {
    int64_t low = 0, high = image->entry_count; /* the last entry that does not begin behind `offset` */
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (image->entries[middle].offset_bytes <= (uint64_t)offset)
            low = middle + 1;
        else
            high = middle;
    }
    const struct qcc_image_entry *entry = low ? &image->entries[low - 1] : NULL;
    return entry && (uint64_t)offset < entry->offset_bytes + entry->size_bytes ? entry : NULL;
}

void qcc_decoder_start(struct qcc_decoder *decoder, int isa) {
    decoder->table = -1;
    decoder->isa = isa;
}

static int use_table(const struct qcc_image *image, const struct qcc_image_entry *entry, struct qcc_decoder *decoder) {
    if (decoder->table == entry->table) return 1;
    const struct qcc_image_table *table = &image->tables[entry->table];
    int (*fill)(uint32_t *, const uint8_t *, int64_t, int) = entry->mode == QCC_CODING_RANS ? qcc_rans_fill : qcc_huffman_fill;
    decoder->table = -1;
    if (!fill(decoder->slots, image->data + table->offset_bytes, image->bytes - table->offset_bytes, table->bits)) return 0;
    decoder->table = entry->table;
    return 1;
}

static int start_tile(const struct qcc_image *image, const struct qcc_image_entry *entry, int64_t tile, uint8_t *out, struct qcc_tile *t) {
    const uint8_t *data = image->data + image->tiles[entry->place + (uint64_t)tile];
    int64_t bytes = (int64_t)(image->tiles[entry->place + (uint64_t)tile + 1] - image->tiles[entry->place + (uint64_t)tile]);
    if (bytes < QCC_STATE_BYTES || bytes % 2) return 0;
    memcpy(t->state, data, QCC_STATE_BYTES);
    for (int i = 0; i < QCC_LANES; i++) t->held[i] = 32;
    t->next = data + QCC_STATE_BYTES;
    t->end = data + bytes;
    t->out = out;
    int64_t left = symbols_of(entry) - tile * tile_symbols(entry);
    t->count = left < tile_symbols(entry) ? left : tile_symbols(entry);
    return 1;
}

static void join(uint8_t *out, const uint8_t *symbols, int64_t count, int bits) {
    if (bits == 4)
        for (int64_t i = 0; i < count / 2; i++) out[i] = (uint8_t)(symbols[2 * i] | symbols[2 * i + 1] << 4);
    else
        for (int64_t i = 0; i < count / 4; i++)
            out[i] = (uint8_t)(symbols[4 * i] | symbols[4 * i + 1] << 2 | symbols[4 * i + 2] << 4 | symbols[4 * i + 3] << 6);
}

/* Tiles [first, last) of an entry, two at a time. */
static int decode_tiles(const struct qcc_image *image, const struct qcc_image_entry *entry, int64_t first, int64_t last, uint8_t *target, struct qcc_decoder *decoder) {
    int (*decode)(const uint32_t *, struct qcc_tile *, struct qcc_tile *, int) = entry->mode == QCC_CODING_RANS ? qcc_rans_decode : qcc_huffman_decode;
    int64_t tile_bytes = tile_symbols(entry) * bits_of(entry) / 8;
    if (!use_table(image, entry, decoder)) return 0;
    for (int64_t tile = first; tile < last; tile += 2) {
        struct qcc_tile t[2];
        int64_t counts[2];
        int pair = last - tile > 1 ? 2 : 1;
        for (int i = 0; i < pair; i++) {
            uint8_t *out = bits_of(entry) == 8 ? target + (tile + i) * tile_bytes : decoder->symbols[i];
            if (!start_tile(image, entry, tile + i, out, &t[i])) return 0;
            counts[i] = t[i].count;
        }
        if (!decode(decoder->slots, &t[0], pair == 2 ? &t[1] : NULL, decoder->isa)) return 0;
        for (int i = 0; i < pair && bits_of(entry) != 8; i++) join(target + (tile + i) * tile_bytes, decoder->symbols[i], counts[i], bits_of(entry));
    }
    return 1;
}

int qcc_image_decode(const struct qcc_image *image, const struct qcc_decode_job *jobs, int64_t job_count, int thread, int threads, struct qcc_decoder *decoder) {
    if (!job_count) return 1;
    int64_t total = jobs[job_count - 1].first_tile + jobs[job_count - 1].entry->tiles;
    int64_t begin = total * thread / threads, end = total * (thread + 1) / threads;
    for (int64_t i = 0; i < job_count; i++) {
        const struct qcc_decode_job *job = &jobs[i];
        int64_t first = begin - job->first_tile, last = end - job->first_tile;
        if (first < 0) first = 0;
        if (last > job->entry->tiles) last = job->entry->tiles;
        if (first < last && !decode_tiles(image, job->entry, first, last, job->target, decoder)) return 0;
    }
    return 1;
}

static uint64_t round_up(uint64_t bytes) { return (bytes + QCC_ALIGNMENT - 1) / QCC_ALIGNMENT * QCC_ALIGNMENT; }

/* What every recipe makes, from its source in `sources`; all threads of a parallel region come here. */
static void make_recipes(const struct qcc_image *image, uint8_t *block, uint8_t *const *sources, void *scratch, atomic_int *sound) {
    for (int64_t i = 0; i < image->recipe_count; i++) {
        const struct qcc_recipe *recipe = &image->recipes[i];
#pragma omp for schedule(dynamic) nowait
        for (int64_t b = 0; b < qcc_recipe_blocks(recipe); b++)
            if (!qcc_recipe_make(recipe, image->data, sources[i], block + image->entries[recipe->entry].offset_bytes, b, scratch)) atomic_store(sound, 0);
    }
}

/* Where the source of every recipe goes, in one block of memory; NULL where there is none. */
static uint8_t *place_sources(const struct qcc_image *image, uint8_t **sources, uint64_t *most_scratch) {
    uint64_t total = 0;
    for (int64_t i = 0; i < image->recipe_count; i++) {
        total += round_up(image->entries[image->recipes[i].entry].size_bytes);
        uint64_t scratch = round_up(qcc_recipe_scratch_bytes(&image->recipes[i]));
        if (scratch > *most_scratch) *most_scratch = scratch;
    }
    uint8_t *memory = aligned_alloc(QCC_ALIGNMENT, (size_t)total + QCC_ALIGNMENT), *at = memory;
    for (int64_t i = 0; memory && i < image->recipe_count; i++) {
        sources[i] = at;
        at += round_up(image->entries[image->recipes[i].entry].size_bytes);
    }
    return memory;
}

int qcc_image_decode_all(const struct qcc_image *image, uint8_t *block, int threads, int isa) {
    struct qcc_decode_job *jobs = calloc((size_t)image->entry_count + 1, sizeof *jobs);
    struct qcc_decoder *decoders = calloc((size_t)threads, sizeof *decoders);
    uint8_t **sources = calloc((size_t)image->recipe_count + 1, sizeof *sources), *memory = NULL;
    uint8_t *scratch = NULL;
    int64_t count = 0, tiles = 0;
    uint64_t each = 0, end = 0; /* bytes of a thread's scratch; of the block that are done */
    atomic_int sound = 1;
    if (sources) memory = place_sources(image, sources, &each);
    if (memory) scratch = aligned_alloc(QCC_ALIGNMENT, (size_t)threads * each + QCC_ALIGNMENT);
    if (!jobs || !decoders || !scratch) {
        free(jobs), free(decoders), free(sources), free(memory), free(scratch);
        return qcc_fail(QCC_NO_MEMORY, "out of memory while the weights were decoded");
    }
    for (int64_t i = 0, r = 0; i < image->entry_count; i++) {
        const struct qcc_image_entry *entry = &image->entries[i];
        int made = r < image->recipe_count && image->recipes[r].entry == i;
        uint8_t *target = made ? sources[r] : block + entry->offset_bytes;
        memset(block + end, 0, entry->offset_bytes - end);
        end = entry->offset_bytes + (made ? qcc_recipe_target_bytes(&image->recipes[r]) : entry->size_bytes);
        r += made;
        if (entry->mode == QCC_CODING_RAW) {
            memcpy(target, image->data + entry->place, entry->size_bytes);
        } else {
            jobs[count++] = (struct qcc_decode_job){entry, target, tiles};
            tiles += entry->tiles;
        }
    }
    memset(block + end, 0, (uint64_t)image->decoded_bytes - end);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        int thread = omp_get_thread_num();
        qcc_decoder_start(&decoders[thread], isa);
        if (!qcc_image_decode(image, jobs, count, thread, omp_get_num_threads(), &decoders[thread])) atomic_store(&sound, 0);
#pragma omp barrier
        if (atomic_load(&sound)) make_recipes(image, block, sources, scratch + (uint64_t)thread * each, &sound);
    }
    free(jobs), free(decoders), free(sources), free(memory), free(scratch);
    return atomic_load(&sound) ? QCC_OK : damaged("a tile, table or recipe of", (long long)tiles);
}
