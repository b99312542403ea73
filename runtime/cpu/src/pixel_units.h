/* Making the weights of products without zero blocks of dense ones while a model is loaded: `PixelUnits` of dialects/pixel_units.py. */
#ifndef QCC_PIXEL_UNITS_H
#define QCC_PIXEL_UNITS_H

#include "weights_recipe.h"

/* As the functions of weights_recipe.h; a block is a cell: a chunk of channels and a block of x. */
uint64_t qcc_pixel_units_source_bytes(const struct qcc_recipe *recipe, uint64_t image_bytes);
uint64_t qcc_pixel_units_scratch_bytes(const struct qcc_recipe *recipe);
int64_t qcc_pixel_units_cells(const struct qcc_recipe *recipe);

/* 0 where the cell is not what the compiler found. */
int qcc_pixel_units_make(const struct qcc_recipe *recipe, const uint8_t *image, const uint8_t *source, uint8_t *target, int64_t cell, void *scratch);

#endif
