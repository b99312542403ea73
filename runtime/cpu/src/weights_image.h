/* The coded form of a model's weights; its layout is said in runtime/reference/weights_image.py. */
#ifndef QCC_WEIGHTS_IMAGE_H
#define QCC_WEIGHTS_IMAGE_H

#include "coding.h"
#include "internal.h"
#include "weights_recipe.h"

struct qcc_image_entry {
    uint64_t offset_bytes; /* in the decoded block */
    uint64_t size_bytes;
    uint64_t place; /* raw: byte offset in the image; else its first tile */
    uint8_t mode;   /* enum qcc_coding */
    uint8_t width;  /* lower half: bits of a symbol, 8, 4 or 2; upper: log2 of a tile's symbols beyond QCC_TILE_SYMBOLS, 0 where bits < 8 */
    uint16_t table;
    uint32_t tiles;
};

struct qcc_image_table {
    uint32_t offset_bytes;
    uint8_t mode;
    uint8_t bits;
    uint16_t zero;
};

struct qcc_image {
    const uint8_t *data;
    int64_t bytes;
    int64_t decoded_bytes;
    int64_t entry_count;
    int64_t tile_count;
    int64_t recipe_count;
    const struct qcc_image_entry *entries;
    const struct qcc_recipe *recipes; /* by ascending entry */
    const struct qcc_image_table *tables;
    const uint64_t *tiles; /* [tile_count + 1] */
};

/* What one thread needs to decode. */
struct qcc_decoder {
    uint32_t slots[QCC_SLOTS];
    uint8_t symbols[2][QCC_TILE_SYMBOLS]; /* of two tiles, where a symbol is no byte */
    int64_t table;                        /* that `slots` holds, or -1 */
    int isa;                              /* enum qcc_coding_isa */
};

/* One coded entry to decode to `target`; jobs stand in a list with the tiles counted through. */
struct qcc_decode_job {
    const struct qcc_image_entry *entry;
    uint8_t *target;
    int64_t first_tile; /* of all tiles of the list */
};

/* Read and check the directories of an image. */
int qcc_image_open(struct qcc_image *image, const void *data, int64_t bytes);

/* The entry that holds byte `offset` of the decoded block, or NULL. */
const struct qcc_image_entry *qcc_image_find(const struct qcc_image *image, int64_t offset);

void qcc_decoder_start(struct qcc_decoder *decoder, int isa);

/* Decode the part of thread `thread` of `threads` of a list of jobs; 0 where the image is damaged. */
int qcc_image_decode(const struct qcc_image *image, const struct qcc_decode_job *jobs, int64_t job_count, int thread, int threads, struct qcc_decoder *decoder);

/* Decode every entry into `block` [decoded_bytes], aligned to QCC_ALIGNMENT, with `threads` threads. */
int qcc_image_decode_all(const struct qcc_image *image, uint8_t *block, int threads, int isa);

#endif
