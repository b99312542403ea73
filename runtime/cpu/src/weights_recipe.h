/* Packed weights that an image holds in logical order. The record is said in runtime/reference/weights_recipes.py, its meaning in
 * dialects/weight_recipes.py. */
#ifndef QCC_WEIGHTS_RECIPE_H
#define QCC_WEIGHTS_RECIPE_H

#include <stdint.h>

enum qcc_layout { QCC_PANELS_F32, QCC_PANELS_BF16, QCC_WINOGRAD_S16, QCC_WINOGRAD_F32, QCC_PIXEL_UNITS, QCC_LAYOUT_COUNT };

struct qcc_recipe {
    uint32_t entry;
    uint8_t layout; /* enum qcc_layout */
    uint8_t coded;  /* the source holds codes of levels; else s8 for QCC_WINOGRAD_S16 and QCC_PIXEL_UNITS, f32 for the others */
    uint8_t lanes;
    uint8_t vectors; /* lanes * vectors channels are a block */
    uint32_t batches, channels, columns; /* of the source */
    union {
        struct {
            uint32_t inner, period, group; /* scale of column c: c / inner % period / group */
            uint32_t level_count, level_rows, scale_count, scale_rows;
        };
        struct { /* QCC_PIXEL_UNITS */
            uint32_t run, squares, chunk, members, ordered, made_bytes, zero;
        };
    };
    uint64_t parameters; /* byte offset of levels, scales and zeros, f32; or of what is known of cells */
    uint32_t level_groups; /* 1, or scale_count */
    uint32_t zeros;        /* 1 where there are as many zeros as scales, else 0 */
};

/* Bytes of the source, and of what is made; 0 where the record contradicts itself, or its parameters leave an image of `image_bytes`. */
uint64_t qcc_recipe_source_bytes(const struct qcc_recipe *recipe, uint64_t image_bytes);
uint64_t qcc_recipe_target_bytes(const struct qcc_recipe *recipe);

/* How many blocks a recipe has, which may be made in any order. */
int64_t qcc_recipe_blocks(const struct qcc_recipe *recipe);

/* Make one block from the source; 0 where it cannot be what the compiler made. `scratch` has room for qcc_recipe_scratch_bytes. */
uint64_t qcc_recipe_scratch_bytes(const struct qcc_recipe *recipe);
int qcc_recipe_make(const struct qcc_recipe *recipe, const uint8_t *image, const uint8_t *source, uint8_t *target, int64_t block, void *scratch);

#endif
