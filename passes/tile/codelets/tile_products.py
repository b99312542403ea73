"""Products on a matrix unit: when it pays, how pixels and reduction are cut into tiles, and the call."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qcc.dialects.codelet import ELEMENT_BYTES, Operand, TileContraction
from qcc.dialects.instruction_sets import ISAS
from qcc.passes.tile.codelets import packing
from qcc.passes.tile.codelets.lowering import Lowering
from qcc.passes.tile.codelets.place import Place
from qcc.passes.tile.codelets.program import Program
from qcc.passes.tile.codelets.register_tile import choose_chunks

ROWS = CHANNELS = 16
ROW_BYTES = 64
REGISTER_TILES = ((2, 2), (1, 4), (4, 1), (1, 3), (3, 1), (1, 2), (2, 1), (1, 1))
"""(tiles of pixels, tiles of channels): accumulators, the held tiles and two streamed ones fit eight tiles."""

TASK_CYCLES = 400  # configuring the tiles, and filling and draining the unit
VECTOR_CYCLES = 6.5  # of the steps of one result vector

Sizes = tuple[int, int, int, int, int]
Strided = tuple[Place, Sizes]  # with strides over (n, g, h, w, c)


@dataclass(frozen=True)
class Shape:
    """How a product is cut: fields of `TileContraction`."""

    pitch: int
    rows: int
    depth: int
    steps: int
    tile: tuple[int, int]


def choose(sizes: Sizes, strides: Sizes, taps: int, run: int, element: str, *, one_row: bool = False) -> Shape | None:
    """The tiles with the fewest predicted cycles for x of these strides over (n, g, h, w, c), or None where vectors are predicted faster.

    `one_row`: weights differ between rows of x.
    """
    found = cut(run, element)
    if found is None:
        return None
    steps, depth = found
    best = min(candidates(sizes, strides, taps * steps, depth, steps, one_row), key=lambda found: found[0])
    n, g, h, w, channels = sizes
    vectors = n * g * h * w * math.ceil(channels / CHANNELS) * (taps * math.ceil(run * ELEMENT_BYTES[element] / 4) * 0.55 + 6)
    return best[1] if best[0] < vectors else None


def choose_matmul(isa: str, y: Sequence[int], k: int) -> Shape | None:
    """As `choose`, for bytes a [..., m, k] times computed b [..., k, n] to y; b is packed without steps of padding, so k must divide."""
    quads = math.ceil(k / 4)
    fewest = math.ceil(quads / ROWS)
    steps = next((s for s in range(fewest, 2 * fewest + 1) if quads % s == 0), None)
    if not ISAS[isa].tiles or steps is None:
        return None
    sizes = (1, 1, math.prod(y[:-2]), y[-2], y[-1])
    shape = choose(sizes, (0, 0, 0, 1, 0), 1, k, "u8", one_row=True)
    return None if shape is None else replace(shape, steps=steps, depth=4 * quads // steps)


def cut(run: int, element: str) -> tuple[int, int] | None:
    """(steps, depth) such that steps * depth elements cover a run: few steps first, then little padding.

    Of bf16 exactly, or None: what lies behind a run may be no number, and 0 times that is no number either.
    """
    size = ELEMENT_BYTES[element]
    steps = math.ceil(run * size / ROW_BYTES)
    if element != "bf16":
        return steps, math.ceil(run * size / steps / 4) * 4 // size
    exact = next((s for s in range(steps, 2 * steps + 1) if run % (2 * s) == 0), None)
    return None if exact is None else (exact, run // exact)


def candidates(sizes: Sizes, strides: Sizes, reduction: int, depth: int, steps: int, one_row: bool) -> Iterator[tuple[float, Shape]]:
    n, g, h, w, channels = sizes
    images = [(0, h, w)]
    pitch, ragged = divmod(strides[2], strides[3]) if strides[3] else (0, 1)
    if h > 1 and not one_row and not ragged and pitch >= w:  # the image is one row of pixels, some of which are border
        images.append((pitch, 1, (h - 1) * pitch + w))
    count = math.ceil(channels / CHANNELS)
    for pitch, image_rows, pixels in images:
        rows = math.ceil(pixels / math.ceil(pixels / ROWS))
        for tile in REGISTER_TILES:
            across = math.ceil(pixels / (rows * tile[0]))
            cycles = sum(times * _unit_cycles(tile[0], part, rows, reduction) for part, times in _parts(count, tile[1]))
            total = n * g * image_rows * across * cycles + TASK_CYCLES
            yield total, Shape(pitch, rows, depth, steps, tile)


def _parts(size: int, tile: int) -> list[tuple[int, int]]:
    return [(t, times) for t, times in ((tile, size // tile), (size % tile, 1)) if t and times]


def _unit_cycles(pixels: int, channels: int, rows: int, reduction: int) -> float:
    """Cycles of one register tile: a product takes a cycle per row of x (at least 8), a load half a cycle per row; loads and products
    overlap. Then accumulators are stored and every vector goes through the steps."""
    products = pixels * channels * max(rows, 8)
    loads = (pixels * rows + channels * ROWS) / 2
    return reduction * max(products, loads) + 1.2 * pixels * channels * rows + VECTOR_CYCLES * pixels * channels * rows + 60


def constant_weights(
    lowering: Lowering,
    compute: str,
    values: np.ndarray,
    bias: np.ndarray | None,
    zero: np.ndarray | None,
    reading: Any,
    sizes: Sizes,
    program: Program,
    y: Place,
    spread: Sequence[tuple[int, ...]],
    halo_word: int,
) -> bool:
    """Lower a product with weights [groups, c, taps, run], bias and zero [groups, c] to tiles, if that is predicted to pay.

    `compute` tile_u8s8: weights s8, bias i32. tile_bf16: weights f32 that bf16 holds, bias f32. The other arguments are those of
    `products`. False: nothing was done.
    """
    if not ISAS[lowering.isa].tiles or not readable(reading.place):
        return False
    groups, channels, taps, run = values.shape
    shape = choose(sizes, reading.strides, taps, run, reading.place.element)
    if shape is None:
        return False
    padded = np.zeros((groups, channels, taps, shape.steps * shape.depth), values.dtype)
    padded[..., :run] = values
    quad = 4 // ELEMENT_BYTES[reading.place.element]
    flat, group_stride = packing.pack(padded, lanes=CHANNELS, depth=quad, vectors=1)
    block = packing.block_stride(taps=taps, run=padded.shape[3], lanes=CHANNELS, depth=quad, vectors=1)
    w = lowering.weights(flat, "s8") if compute == "tile_u8s8" else lowering.weights(packing.bf16_words(flat), "bf16")
    per_channel = (0, math.ceil(channels / CHANNELS) * CHANNELS, 0, 0, 1)
    accumulator = "i32" if compute == "tile_u8s8" else "f32"

    def spread_out(v: np.ndarray | None) -> Strided | None:
        return None if v is None else (lowering.weights(packing.pad_channels(v, CHANNELS), accumulator), per_channel)

    start, zeros = spread_out(bias), spread_out(zero)
    emit(lowering, shape, compute, sizes, reading, (w, (0, group_stride, 0, 0, block)), start, zeros, program, y, spread, halo_word)
    return True


def readable(x: Place) -> bool:
    """Whether tiles may read past the last pixel: constants have no slack behind them."""
    return x.buffer.owner.attributes["space"].value != "weights"


def emit(
    lowering: Lowering,
    shape: Shape,
    compute: str,
    sizes: Sizes,
    reading: Any,
    w: Strided,
    bias: Strided | None,
    zero: Strided | None,
    program: Program,
    y: Place,
    spread: Sequence[tuple[int, ...]],
    halo_word: int,
) -> None:
    """Call the contraction; `spread` has the strides over (n, g, h, w, c) of the program's operands, then of y."""
    halo = None
    if any(y.halo):
        halo = y.fill(len(program.words))
        program.words.append(halo_word)
    places: list[Place] = [reading.place]

    def added(operand: Strided | None) -> Operand | None:
        if operand is None:
            return None
        places.append(operand[0])
        return Operand(len(places) - 1, operand[0].element, operand[1], operand[0].offset)

    w_operand, bias_operand, zero_operand = added(w), added(bias), added(zero)
    assert w_operand is not None
    sums = -1
    if zero is not None:
        sums = len(places)
        places.append(lowering.weights(_ones(reading.run, shape.steps * shape.depth), "u8"))
    operands = [place.operand(len(places) + i, spread[i]) for i, place in enumerate(program.operands)]
    places += program.operands
    params = lowering.append_params(places, program.words)
    n, groups, height, width, channels = sizes
    pixels = (height - 1) * shape.pitch + width if shape.pitch else width
    units = (1 if shape.pitch else height) * math.ceil(pixels / (shape.rows * shape.tile[0]))
    blocks = math.ceil(channels / (CHANNELS * shape.tile[1]))
    weight_bytes = blocks * shape.tile[1] * w[1][4] * ELEMENT_BYTES[w[0].element]
    macs = math.prod(sizes) * math.prod(reading.taps) * reading.run
    codelet = TileContraction(
        isa=lowering.isa,
        compute=compute,
        sizes=sizes,
        pitch=shape.pitch,
        x=Operand(0, reading.place.element, reading.strides, reading.place.offset + reading.offset),
        w=w_operand,
        taps=reading.taps,
        tap_strides=reading.tap_strides,
        run=reading.run,
        rows=shape.rows,
        depth=shape.depth,
        tile=shape.tile,
        chunks=choose_chunks((1, 1, 1), n * groups, blocks, units, macs // 4, weight_bytes),
        operands=tuple(operands),
        steps=tuple(program.steps),
        y=y.operand(len(places), spread[-1]),
        bias=bias_operand,
        zero=zero_operand,
        sums=sums,
        params=params,
        halo=halo,
    )
    lowering.call(codelet, [*places, y], scratch_bytes=codelet.scratch_bytes)


def _ones(run: int, padded: int) -> np.ndarray:
    """[padded] u8: 1 where a run has an element."""
    ones = np.zeros(padded, np.uint8)
    ones[:run] = 1
    return ones
