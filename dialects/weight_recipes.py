"""Packed weights that are larger than what they are made from: how an artefact with coded weights makes them when it is loaded.

A recipe holds the weights in logical order and says how codelets read them; `apply` is its meaning in numpy. In C it is
`runtime/cpu/src/weights_recipe.c`, which gives the same bits: products and sums of binary64, in this order, rounded once.

Layouts, of weights [batches, channels, columns] and blocks of up to `vectors` * `lanes` channels:

* `panels_f32`, `panels_bf16`: [batch][block][column][channel of the block], zeros up to whole vectors (`packing.pack` at depth 1)
* `winograd_s16`, `winograd_f32`: columns are [input channel][3][3]; G w G^T as [block][36][input channel / depth][channel][depth], the
  integers times 576 and at depth 2; channels fill whole blocks
* `pixel_units`: what is not zero of s8 weights, by words of four input channels; see `dialects/pixel_units.py`
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.dialects.mlir import to_attribute
from qcc.dialects.pixel_units import PIXEL_UNITS, PixelUnits

Array = np.ndarray[Any, Any]
F32 = np.float32

PANELS_F32, PANELS_BF16, WINOGRAD_S16, WINOGRAD_F32 = "panels_f32", "panels_bf16", "winograd_s16", "winograd_f32"
LAYOUTS = (PANELS_F32, PANELS_BF16, WINOGRAD_S16, WINOGRAD_F32, PIXEL_UNITS)
POINTS = 36
TRANSFORM_TIMES_24 = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 6]])
"""G of F(4x4, 3x3); Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, section 4.3."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """`source` [batches, channels, columns]: s8 or f32 values, or u8 codes of `levels`.

    real = (levels[channel or 0, g or 0, code] - zeros[channel or 0, g]) * scales[channel or 0, g], g = (column / inner % period) / group;
    `levels` f32 [1 or batches * channels, 1 or groups, K], `scales` and `zeros` (or None) f32 [1 or batches * channels, groups].
    """

    layout: str
    lanes: int
    vectors: int
    source: Array
    levels: Array | None = None
    scales: Array | None = None
    zeros: Array | None = None
    inner: int = 1
    period: int = 1
    group: int = 1

    def as_attribute(self) -> Any:
        """For `qtile.buffer`."""
        fields = {name: value for name, value in vars(self).items() if value is not None}
        source = self.source.view(np.int8) if self.source.dtype == np.uint8 else self.source
        return to_attribute(fields | {"source": source, "coded": self.levels is not None})

    def real(self) -> Array:
        """f32 [batches, channels, columns]."""
        if self.levels is None or self.scales is None:
            return self.source.astype(F32)
        batches, channels, columns = self.source.shape
        codes = self.source.reshape(batches * channels, columns)
        group = np.arange(columns) // self.inner % self.period // self.group
        row = np.arange(len(codes))[:, None] if len(self.levels) > 1 else np.zeros((1, 1), np.int64)
        level = self.levels[row, group if self.levels.shape[1] > 1 else 0, codes]
        if self.zeros is not None:
            level = level - self.zeros[:, group]
        return (level * self.scales[:, group]).astype(F32).reshape(self.source.shape)

    def apply(self) -> Array:
        """The packed weights, flat: f32, or i16 of bfloat16 words and of integers."""
        if self.layout in (PANELS_F32, PANELS_BF16):
            packed = self._panels()
            return packed if self.layout == PANELS_F32 else (packed.view(np.uint32) >> 16).astype(np.uint16).view(np.int16)
        return self._winograd()

    def _panels(self) -> Array:
        real, width, parts = self.real(), self.vectors * self.lanes, []
        for batch in real:
            for first in range(0, len(batch), width):
                block = batch[first : first + width]
                padded = np.zeros((block.shape[1], -(-len(block) // self.lanes) * self.lanes), F32)
                padded[:, : len(block)] = block.T
                parts.append(padded.reshape(-1))
        return np.concatenate(parts)

    def _winograd(self) -> Array:
        whole = self.layout == WINOGRAD_S16
        depth, width = 2 if whole else 1, self.vectors * self.lanes
        _, out, columns = self.source.shape
        w = (self.source.astype(np.int64) if whole else self.real().astype(np.float64)).reshape(out, columns // 9, 3, 3)
        g = TRANSFORM_TIMES_24 if whole else TRANSFORM_TIMES_24 / 24
        half = np.stack([_sum3(g[r], w[:, :, 0], w[:, :, 1], w[:, :, 2]) for r in range(6)])  # [6, out, in, 3]
        points = np.stack([_sum3(g[q], half[..., 0], half[..., 1], half[..., 2]) for q in range(6)], axis=1)  # [6, 6, out, in]
        points = points.astype(np.int16 if whole else F32).reshape(POINTS, out // width, width, columns // 9 // depth, depth)
        return np.ascontiguousarray(points.transpose(1, 0, 3, 2, 4)).reshape(-1)


AnyRecipe = Recipe | PixelUnits


def recipe_of(fields: dict[str, Any]) -> AnyRecipe:
    """From the Python value of the attribute."""
    if fields["layout"] == PIXEL_UNITS:
        return PixelUnits(**fields)
    given = {name: value for name, value in fields.items() if name != "coded"}
    source = np.asarray(given.pop("source"))
    return Recipe(source=source.view(np.uint8) if fields["coded"] else source, **given)


def _sum3(g: Array, a: Array, b: Array, c: Array) -> Array:
    return (g[0] * a + g[1] * b) + g[2] * c
