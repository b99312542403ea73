/* Making packed weights of logical ones while a model is loaded. */
#include "weights_recipe.h"

#include "pixel_units.h"

#include <string.h>

_Static_assert(sizeof(struct qcc_recipe) == 64, "layout of the image");
enum { FIELD = 6, POINTS = FIELD * FIELD };
#define MOST (UINT64_C(1) << 40)

static int element_bytes(const struct qcc_recipe *r) { return r->layout == QCC_PANELS_F32 || r->layout == QCC_WINOGRAD_F32 ? 4 : 2; }
static uint64_t width_of(const struct qcc_recipe *r) { return (uint64_t)r->lanes * r->vectors; }

uint64_t qcc_recipe_source_bytes(const struct qcc_recipe *r, uint64_t image_bytes) {
    if (r->layout >= QCC_LAYOUT_COUNT || !r->lanes || !r->vectors || !r->batches || !r->channels || !r->columns) return 0;
    uint64_t count = (uint64_t)r->batches * r->channels; /* below 2^64 */
    if (count > MOST || count * r->columns / r->columns != count || count * r->columns > MOST) return 0;
    if (r->layout == QCC_PIXEL_UNITS) return qcc_pixel_units_source_bytes(r, image_bytes);
    if (!r->inner || !r->period || !r->group) return 0;
    if (r->layout >= QCC_WINOGRAD_S16 && (r->batches != 1 || r->columns % 9 || r->channels % width_of(r))) return 0;
    if (r->layout == QCC_WINOGRAD_S16 && (r->coded || r->columns / 9 % 2)) return 0;
    if (r->coded) {
        if (r->level_count < 1 || r->level_count > 256 || (r->level_rows != 1 && r->level_rows != count) || (r->scale_rows != 1 && r->scale_rows != count)) return 0;
        if (r->scale_count <= (r->period - 1) / r->group || r->scale_count > MOST / count || r->zeros > 1) return 0;
        if (r->level_groups != 1 && r->level_groups != r->scale_count) return 0;
        uint64_t floats = (uint64_t)r->level_count * r->level_rows * r->level_groups + (uint64_t)r->scale_count * r->scale_rows * (1 + r->zeros);
        if (r->parameters > image_bytes || r->parameters % 4 || floats > (image_bytes - r->parameters) / 4) return 0;
    }
    return count * r->columns * (r->coded || r->layout == QCC_WINOGRAD_S16 ? 1 : 4);
}

uint64_t qcc_recipe_target_bytes(const struct qcc_recipe *r) {
    if (r->layout == QCC_PIXEL_UNITS) return r->made_bytes;
    if (r->layout >= QCC_WINOGRAD_S16) return (uint64_t)r->channels * (r->columns / 9) * POINTS * (uint64_t)element_bytes(r);
    return ((uint64_t)r->channels + r->lanes - 1) / r->lanes * r->lanes * r->batches * r->columns * (uint64_t)element_bytes(r);
}

static int64_t blocks_of_batch(const struct qcc_recipe *r) { return (int64_t)((r->channels + width_of(r) - 1) / width_of(r)); }
int64_t qcc_recipe_blocks(const struct qcc_recipe *r) { return r->layout == QCC_PIXEL_UNITS ? qcc_pixel_units_cells(r) : blocks_of_batch(r) * r->batches; }
uint64_t qcc_recipe_scratch_bytes(const struct qcc_recipe *r) {
    if (r->layout == QCC_PIXEL_UNITS) return qcc_pixel_units_scratch_bytes(r);
    return r->layout == QCC_WINOGRAD_S16 ? POINTS * 2 * 2 * width_of(r) : 4 * (uint64_t)r->columns;
}

/* The real weights of channel `c` of all batches. A code beyond the levels, which only a damaged image has, is the last level. */
static const float *real_row(const struct qcc_recipe *r, const uint8_t *image, const uint8_t *source, uint64_t c, float *row) {
    if (!r->coded) return (const float *)source + c * r->columns;
    const uint8_t *codes = source + c * r->columns;
    uint64_t row_levels = (uint64_t)r->level_count * r->level_groups;
    const float *levels = (const float *)(image + r->parameters), *scales = levels + row_levels * r->level_rows;
    const float *zeros = scales + (uint64_t)r->scale_count * r->scale_rows;
    if (r->level_rows > 1) levels += c * row_levels;
    if (r->scale_rows > 1) scales += c * r->scale_count, zeros += c * r->scale_count;
    for (uint32_t i = 0; i < r->columns; i++) {
        uint32_t code = codes[i] < r->level_count ? codes[i] : r->level_count - 1, group = i / r->inner % r->period / r->group;
        float level = levels[(r->level_groups > 1 ? group * (uint64_t)r->level_count : 0) + code];
        row[i] = (r->zeros ? level - zeros[group] : level) * scales[group];
    }
    return row;
}

static void make_panel(const struct qcc_recipe *r, const uint8_t *image, const uint8_t *source, uint8_t *target, int64_t block, float *row) {
    uint64_t batch = (uint64_t)(block / blocks_of_batch(r)), first = (uint64_t)(block % blocks_of_batch(r)) * width_of(r);
    uint64_t padded = ((uint64_t)r->channels + r->lanes - 1) / r->lanes * r->lanes, left = padded - first, size = (uint64_t)element_bytes(r);
    uint64_t width = left < width_of(r) ? left : width_of(r), filled = r->channels - first < width ? r->channels - first : width;
    uint8_t *out = target + (batch * padded + first) * r->columns * size;
    memset(out, 0, width * r->columns * size);
    for (uint64_t j = 0; j < filled; j++) {
        const float *real = real_row(r, image, source, batch * r->channels + first + j, row);
        for (uint64_t i = 0; i < r->columns; i++) {
            uint32_t bits;
            memcpy(&bits, &real[i], 4);
            if (size == 4)
                memcpy(out + (i * width + j) * 4, &bits, 4);
            else
                ((uint16_t *)out)[i * width + j] = (uint16_t)(bits >> 16);
        }
    }
}

/* G of F(4x4, 3x3), times 24. */
static const int transform[FIELD][3] = {{6, 0, 0}, {-4, -4, -4}, {-4, 4, -4}, {1, 2, 4}, {1, -2, 4}, {0, 0, 6}};

static void points_s16(const int8_t *w, int16_t *points) {
    int half[FIELD][3];
    for (int r = 0; r < FIELD; r++)
        for (int b = 0; b < 3; b++) half[r][b] = transform[r][0] * w[b] + transform[r][1] * w[3 + b] + transform[r][2] * w[6 + b];
    for (int r = 0; r < FIELD; r++)
        for (int q = 0; q < FIELD; q++)
            points[FIELD * r + q] = (int16_t)(transform[q][0] * half[r][0] + transform[q][1] * half[r][1] + transform[q][2] * half[r][2]);
}

static void points_f32(const float *w, float *points) {
    double g[FIELD][3], half[FIELD][3];
    for (int r = 0; r < FIELD; r++)
        for (int b = 0; b < 3; b++) g[r][b] = transform[r][b] / 24.0;
    for (int r = 0; r < FIELD; r++)
        for (int b = 0; b < 3; b++) half[r][b] = (g[r][0] * w[b] + g[r][1] * w[3 + b]) + g[r][2] * w[6 + b];
    for (int r = 0; r < FIELD; r++)
        for (int q = 0; q < FIELD; q++) points[FIELD * r + q] = (float)((g[q][0] * half[r][0] + g[q][1] * half[r][1]) + g[q][2] * half[r][2]);
}

/* Pairs of inputs of all channels of a block go through `pairs` [POINTS][width][2]: the points lie so far apart that they share the sets of a cache. */
static void make_winograd_s16(const struct qcc_recipe *r, const uint8_t *source, uint8_t *target, int64_t block, int16_t *pairs) {
    uint64_t width = width_of(r), inputs = r->columns / 9, point = inputs * width;
    int16_t *out = (int16_t *)target + (uint64_t)block * POINTS * point;
    for (uint64_t i = 0; i < inputs; i += 2) {
        for (uint64_t j = 0; j < 2 * width; j++) {
            int16_t points[POINTS];
            points_s16((const int8_t *)source + ((uint64_t)block * width + j / 2) * r->columns + 9 * (i + j % 2), points);
            for (uint64_t p = 0; p < POINTS; p++) pairs[p * 2 * width + j] = points[p];
        }
        for (uint64_t p = 0; p < POINTS; p++) memcpy(out + p * point + i * width, pairs + p * 2 * width, 4 * width);
    }
}

static void make_winograd_f32(const struct qcc_recipe *r, const uint8_t *image, const uint8_t *source, uint8_t *target, int64_t block, float *row) {
    uint64_t width = width_of(r), inputs = r->columns / 9, point = inputs * width;
    float *out = (float *)target + (uint64_t)block * POINTS * point;
    for (uint64_t j = 0; j < width; j++) {
        const float *real = real_row(r, image, source, (uint64_t)block * width + j, row);
        for (uint64_t i = 0; i < inputs; i++) {
            float points[POINTS];
            points_f32(real + 9 * i, points);
            for (uint64_t p = 0; p < POINTS; p++) out[p * point + i * width + j] = points[p];
        }
    }
}

int qcc_recipe_make(const struct qcc_recipe *recipe, const uint8_t *image, const uint8_t *source, uint8_t *target, int64_t block, void *scratch) {
    if (recipe->layout == QCC_PIXEL_UNITS) return qcc_pixel_units_make(recipe, image, source, target, block, scratch);
    if (recipe->layout == QCC_WINOGRAD_S16)
        make_winograd_s16(recipe, source, target, block, scratch);
    else
        (recipe->layout == QCC_WINOGRAD_F32 ? make_winograd_f32 : make_panel)(recipe, image, source, target, block, scratch);
    return 1;
}
