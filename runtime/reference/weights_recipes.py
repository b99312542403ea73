"""Recipes (`dialects/weight_recipes.py`) in the image of coded weights: a record each, and levels and scales beside it.

The record, 64 bytes, little endian: entry u32, layout u8 (place in `LAYOUTS`), coded u8 (1 where the source holds codes of levels), lanes
u8, vectors u8; u32 each: batches, channels, columns, inner, period, group, number of levels, rows of levels, scales in a row, rows of
scales; byte offset of levels f32, scales f32 and zeros f32 u64; groups of levels u32 (1, or as many as scales in a row) and whether there
are zeros u32.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from qcc.dialects.weight_recipes import LAYOUTS, WINOGRAD_S16, Recipe

Array = np.ndarray[Any, Any]
_RECORD = struct.Struct("<IBBBBIIIIIIIIIIQII")
BYTES = _RECORD.size


def parameters(recipe: Recipe) -> Array:
    """Levels, scales and zeros as bytes; empty where the source holds the values."""
    held = [np.ascontiguousarray(a, np.float32).reshape(-1) for a in (recipe.levels, recipe.scales, recipe.zeros) if a is not None]
    return np.concatenate([np.zeros(0, np.float32), *held]).view(np.uint8)


def pack(entry: int, recipe: Recipe, place: int) -> bytes:
    """The record of a recipe for entry number `entry` whose parameters are at byte `place`."""
    levels = (0, 0, 0) if recipe.levels is None else recipe.levels.shape
    scales = (0, 0) if recipe.scales is None else recipe.scales.shape
    shape, layout = recipe.source.shape, LAYOUTS.index(recipe.layout)
    order = (recipe.inner, recipe.period, recipe.group)
    sizes = (levels[2], levels[0], scales[1], scales[0], place, levels[1], int(recipe.zeros is not None))
    return _RECORD.pack(entry, layout, int(recipe.levels is not None), recipe.lanes, recipe.vectors, *shape, *order, *sizes)


def unpack(data: bytes, at: int) -> tuple[int, Callable[[Array], Recipe]]:
    """Number of the entry, and the recipe for its payload u8."""
    entry, layout, coded, lanes, vectors, *rest = _RECORD.unpack_from(data, at)
    shape, (inner, period, group, level_count, level_rows, scale_count, scale_rows, place, level_groups, has_zeros) = rest[:3], rest[3:]
    levels = scales = zeros = None
    if coded:
        count = level_count * level_rows * level_groups
        values = np.frombuffer(data, "<f4", count + scale_count * scale_rows * (1 + has_zeros), place)
        levels = values[:count].reshape(level_rows, level_groups, level_count)
        scales, *more = values[count:].reshape(1 + has_zeros, scale_rows, scale_count)
        zeros = more[0] if more else None
    dtype = np.uint8 if coded else np.int8 if LAYOUTS[layout] == WINOGRAD_S16 else np.float32

    def of(payload: Array) -> Recipe:
        source = payload.view(dtype).reshape(shape)
        return Recipe(LAYOUTS[layout], lanes, vectors, source, levels, scales, zeros, inner, period, group)

    return entry, of
