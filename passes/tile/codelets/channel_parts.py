"""Large layers whose weights are decoded while the model runs are called part by part: a few output channels, whose weights are a coded
unit of their own. So what is decoded at a time lies in the cache, and memory for it is bounded, however large the layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qcc.passes.tile.codelets.lowering import Lowering
from qcc.passes.tile.codelets.place import Place
from qcc.passes.tile.codelets.program import Program

PART_BYTES = 2 << 20  # of decoded weights, about: threads share them in pairs of tiles of 64 KB, so that fewer would be shared unevenly
CHANNELS = 128  # at least: blocks for two threads


def cut(lowering: Lowering, channels: int, channel_bytes: float) -> list[tuple[int, int]]:
    """(first, count) of the channels of every part; one part where nothing is decoded while running, or weights are few."""
    if not lowering.streamed or channels * channel_bytes <= 2 * PART_BYTES:
        return [(0, channels)]
    size = max(1, round(PART_BYTES / channel_bytes / CHANNELS)) * CHANNELS
    return [(first, min(size, channels - first)) for first in range(0, channels, size)]


def take(program: Program, y: Place, part: tuple[int, int], axis: int) -> tuple[Program, Place]:
    """The steps behind a product and its result for one of the parts that `cut` gives, channels being dimension `axis` of y.

    The first part keeps y as it is, for it fills the whole border.
    """
    first, count = part

    def sliced(place: Place) -> Place:
        offsets, shape = [0] * len(place.shape), list(place.shape)
        offsets[axis], shape[axis] = first, count
        return place.sliced(offsets, [1] * len(shape), shape)

    copied: dict[str, Any] = {"operands": [sliced(p) for p in program.operands], "words": list(program.words)}
    return replace(program, **copied), sliced(y) if first else y
