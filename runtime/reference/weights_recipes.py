"""Recipes (`dialects/weight_recipes.py`) in the image of coded weights: a record each, and levels and scales beside it.

The record, 64 bytes, little endian: entry u32, layout u8 (place in `LAYOUTS`), coded u8 (1 where the source holds codes of levels), lanes
u8, vectors u8; u32 each: batches, channels, columns, inner, period, group, number of levels, rows of levels, scales in a row, rows of
scales; byte offset of levels f32, scales f32 and zeros f32 u64; groups of levels u32 (1, or as many as scales in a row) and whether there
are zeros u32.

`pixel_units` have from inner on, u32 each: run, squares, chunk, members, ordered, bytes that are made, without slack, and 0; then the byte
offset u64 of what is known of every cell, u32 each: the byte where it begins, and a checksum, for codelets follow the places in it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from qcc.dialects.pixel_units import PIXEL_UNITS, SLACK_BYTES, PixelUnits
from qcc.dialects.weight_recipes import LAYOUTS, WINOGRAD_S16, AnyRecipe, Recipe

Array = np.ndarray[Any, Any]
_RECORD = struct.Struct("<IBBBBIIIIIIIIIIQII")
_KNOWN = np.dtype([("begin", "<u4"), ("check", "<u4")])  # of a cell
BYTES = _RECORD.size


def parameters(recipe: AnyRecipe) -> Array:
    """Levels, scales and zeros as bytes, or what is known of cells; empty where the source holds the values."""
    if isinstance(recipe, PixelUnits):
        known = np.zeros(len(recipe.cells), _KNOWN)
        known["begin"], known["check"] = recipe.starts, [_check(cell) for cell in recipe.cells]
        return known.view(np.uint8)
    held = [np.ascontiguousarray(a, np.float32).reshape(-1) for a in (recipe.levels, recipe.scales, recipe.zeros) if a is not None]
    return np.concatenate([np.zeros(0, np.float32), *held]).view(np.uint8)


def _check(cell: Array) -> int:
    """The sum of its 16-bit words times 1, 3, 5, ... modulo 2^32."""
    words = cell.view(np.uint16).astype(np.uint64)
    return int((words * (2 * np.arange(words.size, dtype=np.uint64) + 1)).sum()) & 0xFFFFFFFF


def pack(entry: int, recipe: AnyRecipe, place: int) -> bytes:
    """The record of a recipe for entry number `entry` whose parameters are at byte `place`."""
    if isinstance(recipe, PixelUnits):
        r, made_bytes = recipe, recipe.apply().size - SLACK_BYTES
        head = (entry, LAYOUTS.index(PIXEL_UNITS), 0, r.lanes, r.vectors, *r.source.shape)
        return _RECORD.pack(*head, r.run, r.squares, r.chunk, r.members, int(r.ordered), made_bytes, 0, place, 0, 0)
    levels = (0, 0, 0) if recipe.levels is None else recipe.levels.shape
    scales = (0, 0) if recipe.scales is None else recipe.scales.shape
    shape, layout = recipe.source.shape, LAYOUTS.index(recipe.layout)
    order = (recipe.inner, recipe.period, recipe.group)
    sizes = (levels[2], levels[0], scales[1], scales[0], place, levels[1], int(recipe.zeros is not None))
    return _RECORD.pack(entry, layout, int(recipe.levels is not None), recipe.lanes, recipe.vectors, *shape, *order, *sizes)


def unpack(data: bytes, at: int) -> tuple[int, Callable[[Array], AnyRecipe]]:
    """Number of the entry, and the recipe for its payload u8."""
    entry, layout, coded, lanes, vectors, *rest = _RECORD.unpack_from(data, at)
    shape, (inner, period, group, level_count, level_rows, scale_count, scale_rows, place, level_groups, has_zeros) = rest[:3], rest[3:]
    if LAYOUTS[layout] == PIXEL_UNITS:
        run, squares, chunk, members, ordered = rest[3:8]
        sizes = (lanes, vectors, members, run, squares, chunk, bool(ordered))
        return entry, lambda payload: PixelUnits(*sizes, payload.view(np.int8).reshape(shape))
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
