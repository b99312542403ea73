"""Recipes (`dialects/weight_recipes.py`) in the image of coded weights: a record each, and levels and scales beside it.

The record, 64 bytes, little endian: entry u32, layout u8 (place in `LAYOUTS`), coded u8 (1 where the source holds codes of levels), lanes
u8, vectors u8; u32 each: batches, channels, columns, inner, period, group, number of levels, rows of levels, scales in a row, rows of
scales; byte offset of levels f32 and then scales f32 u64, zeros.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from qcc.dialects.weight_recipes import LAYOUTS, WINOGRAD_S16, Recipe

Array = np.ndarray[Any, Any]
_RECORD = struct.Struct("<IBBBBIIIIIIIIIIQ8x")
BYTES = _RECORD.size


def parameters(recipe: Recipe) -> Array:
    """Levels and scales as bytes; empty where the source holds the values."""
    if recipe.levels is None or recipe.scales is None:
        return np.zeros(0, np.uint8)
    return np.concatenate([np.ascontiguousarray(a, np.float32).reshape(-1) for a in (recipe.levels, recipe.scales)]).view(np.uint8)


def pack(entry: int, recipe: Recipe, place: int) -> bytes:
    """The record of a recipe for entry number `entry` whose parameters are at byte `place`."""
    levels, scales = (a.shape if a is not None else (0, 0) for a in (recipe.levels, recipe.scales))
    shape, layout = recipe.source.shape, LAYOUTS.index(recipe.layout)
    order = (recipe.inner, recipe.period, recipe.group)
    sizes = (levels[1], levels[0], scales[1], scales[0])
    return _RECORD.pack(entry, layout, int(recipe.levels is not None), recipe.lanes, recipe.vectors, *shape, *order, *sizes, place)


def unpack(data: bytes, at: int) -> tuple[int, Callable[[Array], Recipe]]:
    """Number of the entry, and the recipe for its payload u8."""
    entry, layout, coded, lanes, vectors, *rest = _RECORD.unpack_from(data, at)
    shape, (inner, period, group, level_count, level_rows, scale_count, scale_rows, place) = rest[:3], rest[3:]
    levels = scales = None
    if coded:
        count = level_count * level_rows
        values = np.frombuffer(data, "<f4", count + scale_count * scale_rows, place)
        levels, scales = values[:count].reshape(level_rows, level_count), values[count:].reshape(scale_rows, scale_count)
    dtype = np.uint8 if coded else np.int8 if LAYOUTS[layout] == WINOGRAD_S16 else np.float32

    def of(payload: Array) -> Recipe:
        source = payload.view(dtype).reshape(shape)
        return Recipe(LAYOUTS[layout], lanes, vectors, source, levels, scales, inner, period, group)

    return entry, of
