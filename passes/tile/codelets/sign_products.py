"""Convolutions and linear layers whose operands are -1, 0 and 1: population counts of bits, where predicted faster than products of bytes.

Padding is 0, which a bit for the sign alone cannot say. Where x is never 0, its border reads as 1, and the bias, which then has a row for
each class of places, takes the sum of the weights outside of the image off again. Where x may be 0, a second bit says so, also in the
border.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qcc.dialects import codelet_cost
from qcc.dialects.codelet import Contraction, Operand, PackSigns
from qcc.dialects.element_types import Affine
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.machine import shipped
from qcc.dialects.mlir import layer_name, op_attribute
from qcc.dialects.sign_codelet import BYTE_STEPS, WORD_BITS, Signs
from qcc.passes.tile.codelets import packing
from qcc.passes.tile.codelets.lowering import Lowering
from qcc.passes.tile.codelets.place import Place, stored_offset
from qcc.passes.tile.codelets.register_tile import choose_tile
from qcc.passes.values import MOVEMENT, affine_of, producer, quantized_levels, scalar

GAIN = 0.9  # worth it below this part of the time of products of bytes
PAIRS_SHARE = 0.75  # of the steps of pairs_u8s8: weights of -1, 0 and 1 go together in fours
TILE_SHARE = 0.4  # of the rate of a matrix unit that convolutions reach
ROWS_PER_TASK = 8

Sizes = tuple[int, int, int, int, int]  # n, g, h, w, c of the result


@dataclass(frozen=True)
class Window:
    """Per axis (rows, columns): size of x, kernel, stride, dilation, and padding before the first element."""

    size: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    padding: tuple[int, int]

    def outside(self, axis: int, index: int) -> list[bool]:
        """Of result `index`, which taps are outside of the image."""
        first = index * self.strides[axis] - self.padding[axis]
        return [not 0 <= first + t * self.dilations[axis] < self.size[axis] for t in range(self.kernel[axis])]

    def edges(self, axis: int, results: int) -> tuple[int, int]:
        """How many results at the beginning and at the end have taps outside; all, none where the two meet."""
        before = sum(i * self.strides[axis] < self.padding[axis] for i in range(results))
        reach = self.dilations[axis] * (self.kernel[axis] - 1) - self.padding[axis]
        behind = sum(i * self.strides[axis] + reach >= self.size[axis] for i in range(results))
        return (before, behind) if before + behind <= results else (results, 0)


@dataclass(frozen=True)
class Plan:
    """The fields of `Contraction` that sign products decide; a pixel has `words` words, some of which may be padding.

    `segment` is how far apart words are that neighbouring taps of a row begin with, 0 where these are the pixels.
    """

    compute: str
    signs: Signs
    taps: tuple[int, int]
    run: int
    words: int
    segment: int
    tile: tuple[int, int, int]


def window_of(op: Any, x: Place) -> Window:
    """What conv2d `op` reads of x [n, c, h, w]; a linear layer reads pixels."""
    size = (x.shape[2], x.shape[3])
    if op.name != "qcc.conv2d":
        return Window(size, (1, 1), (1, 1), (1, 1), (0, 0))
    strides, padding, dilations = (tuple(op_attribute(op, name)[:2]) for name in ("strides", "padding", "dilations"))
    kernel = tuple(op.operands[1].type.shape[2:])
    return Window(size, kernel, strides, dilations, padding)  # type: ignore[arg-type]


def plan(
    lowering: Lowering, op: Any, place: Place, values: np.ndarray, sizes: Sizes, window: Window, other: float = math.inf
) -> Plan | None:
    """How to compute `op` with x at `place` and integer weights [out, c, kh, kw] by population counts; None where it does not pay.

    `other`: microseconds of another way, apart from products of bytes.
    """
    kind = affine_of(op.operands[0])
    if values.dtype.kind == "f" or not values.size or place.element != "u8" or kind is None or kind.axis is not None or sizes[1] != 1:
        return None
    if not are_signs(kind, values):
        report_multiplier(lowering, op, values)
        return None
    edges = (*window.edges(0, sizes[2]), *window.edges(1, sizes[3]))
    planes = 1 if _never_zero(op.operands[0]) else 2
    signs = Signs(planes, 1 if values.all() else 2, edges if planes == 1 else (0, 0, 0, 0))
    found = _cut(lowering, signs, sizes, values.shape[1], window)
    if found is None:
        return None
    ours, theirs = _microseconds(lowering, found, sizes, values), min(other, _bytes_microseconds(lowering, sizes, values))
    ratio = f"population counts of bits predicted {theirs / ours:.1f}x as fast as products of bytes"
    lowering.fact(layer_name(op.location), products=ratio if ours < GAIN * theirs else ratio + ", not used")
    return found if ours < GAIN * theirs else None


def are_signs(x: Affine, values: np.ndarray) -> bool:
    """Whether x and weights `values` are -1, 0 and 1, times a scale."""
    zero = int(x.zero_points[0])
    return zero - 1 <= x.qmin and x.qmax <= zero + 1 and bool(np.abs(values).max() <= 1)


def report_multiplier(lowering: Lowering, op: Any, values: np.ndarray) -> None:
    """What weights that need no multiplier would gain without one: measured, and not used."""
    sizes = np.abs(values)
    signs_only = bool(sizes.max() <= 1)
    way, rates = ("add and subtract", codelet_cost.ADD_SUBTRACT) if signs_only else ("shift", codelet_cost.SHIFT)
    if signs_only or not (sizes & (sizes - 1)).any():
        text = f"{way}: {rates[lowering.isa]:.1f}x the rate of products of bytes, not used"
        lowering.fact(layer_name(op.location), products=text)


def _never_zero(x: Any) -> bool:
    """Whether quantized x is known to be -1 or 1 everywhere: two levels of a binarized value."""
    while (op := producer(x, "qcc.reshape", "qcc.transpose", "qcc.slice", "qcc.broadcast", "qcc.max_pool2d")) is not None:
        x = op.operands[0]
    kind, op = affine_of(x), producer(x, "qcc.quantize")
    if kind is None or op is None or kind.axis is not None:
        return False
    value, level = op.operands[0], 1.0
    while (made := producer(value, "qcc.mul", *MOVEMENT - {"qcc.pad"})) is not None:
        if made.name == "qcc.mul":
            factor = scalar(made.operands[1])
            if factor is None:
                return False
            level *= factor
        value = made.operands[0]
    binarized = producer(value, "qcc.unary")
    if binarized is None or op_attribute(binarized, "kind") != "binarize":
        return False
    stored = quantized_levels(np.array([-level, level], np.float32), kind)
    return bool((stored != kind.zero_points[0]).all())


def _cut(lowering: Lowering, signs: Signs, sizes: Sizes, channels: int, window: Window) -> Plan | None:
    """Taps and runs: neighbouring pixels are one run, unless sums of bytes would leave a byte."""
    (kh, kw), words = window.kernel, math.ceil(channels / WORD_BITS)
    dense = window.dilations[1] == 1 or kw == 1
    compute = "popcount_words" if lowering.popcount and ISAS[lowering.isa].lanes == 16 else "popcount_bytes"
    taps, run, segment = (kh, kw), words, 0
    if dense and (compute == "popcount_words" or kw * words <= BYTE_STEPS):
        taps, run = (kh, 1), kw * words
    elif words > BYTE_STEPS and compute == "popcount_bytes":
        if not dense:
            return None
        parts = math.ceil(words / BYTE_STEPS)
        run = math.ceil(words / parts)
        taps, words, segment = (kh, kw * parts), run * parts, run
    tile = choose_tile(lowering.isa, compute, "i32", *sizes[2:], math.prod(taps) * run, one_row=False, summed=False, signs=signs)
    return Plan(compute, signs, taps, run, words, segment, tile)


def _microseconds(lowering: Lowering, found: Plan, sizes: Sizes, values: np.ndarray) -> float:
    """Predicted time, with that of making bits of x."""
    n, _, h, w, _ = sizes
    channels = values.shape[1]
    somewhere = Operand(0, "u8", (0, 0, 0, 0))
    pack = PackSigns(lowering.isa, (n, h, w, channels), found.words, found.signs.x_planes, somewhere, somewhere, 0, 0, n * h)
    cost = codelet_cost.cost(pack, shipped(lowering.isa))
    assert cost is not None
    return cost.microseconds + _predicted(lowering.isa, found.compute, sizes, found.taps, found.run, "i32", found.tile, found.signs)


def _bytes_microseconds(lowering: Lowering, sizes: Sizes, values: np.ndarray) -> float:
    """Predicted time of the best products of bytes."""
    _, channels, kh, kw = values.shape
    isa, facts, machine = lowering.isa, ISAS[lowering.isa], shipped(lowering.isa)
    compute, run = "lane_i32", kw * channels
    if facts.dot4:
        compute = "dot4_u8s8"
    elif facts.pairs:
        compute, run = "pairs_u8s8", math.ceil(run * PAIRS_SHARE)
    steps = kh * math.ceil(run / codelet_cost.DEPTHS.get(compute, 1))
    tile = choose_tile(isa, compute, "s8", *sizes[2:], steps, one_row=False, summed=False)
    found = _predicted(isa, compute, sizes, (kh, 1), run, "s8", tile, None)
    if facts.tiles:
        macs, bandwidth = math.prod(sizes) * values[0].size, machine.read_gbytes[machine.level_of(values.size)][0]
        found = min(found, macs / (TILE_SHARE * machine.gmacs["amx_int8"]) / 1000 + values.size / bandwidth / 1000)
    return found


def _predicted(
    isa: str, compute: str, sizes: Sizes, taps: tuple[int, int], run: int, element: str, tile: tuple[int, int, int], signs: Signs | None
) -> float:
    x, w = Operand(0, "i32" if signs else "u8", (0, 0, 1, run, 0)), Operand(1, element, (0, 0, 0, 0, 0))
    contraction = Contraction(isa, compute, sizes, x, w, taps, (0, 0), run, tile, (1, sizes[2]), (), (), x, signs=signs)
    cost = codelet_cost.cost(contraction, shipped(isa))
    assert cost is not None
    return cost.microseconds


@dataclass(frozen=True)
class Packed:
    """What the contraction reads: sign words of x as an image [n, words * planes, h, w], weights and their stride of a block, the bias by
    classes of rows and columns [rows * columns * channels padded to blocks] and its strides over (n, g, h, w, c)."""

    x: Place
    w: Place
    block: int
    bias: Place
    bias_strides: tuple[int, int, int, int, int]


def pack(
    lowering: Lowering, op: Any, chosen: Plan, x: Place, border: list[int], values: np.ndarray, bias: np.ndarray | None, sizes: Sizes,
    window: Window,
) -> Packed:  # fmt: skip
    """x [n, c, h, w] with contiguous c, `border` [top, left, bottom, right] of it that is read, weights [out, c, kh, kw], bias [out]."""
    lanes, vectors = ISAS[lowering.isa].lanes, chosen.tile[2]
    w, block = _weights(chosen, values, lanes)
    table, classes = _bias_table(chosen, values, bias, sizes, window)
    padded = packing.pad_channels(table, vectors * lanes)
    width = padded.shape[1]
    return Packed(
        _sign_words(lowering, op, chosen, x, border),
        lowering.weights(w, "i32"),
        block,
        lowering.weights(padded, "i32"),
        (0, 0, classes[1] * width if classes[0] > 1 else 0, width if classes[1] > 1 else 0, 1),
    )


def _sign_words(lowering: Lowering, op: Any, chosen: Plan, x: Place, border: list[int]) -> Place:
    """x as bits, made once for all that read it alike."""
    key = (x.buffer, x.offset, x.strides, x.shape, chosen.words, chosen.signs.x_planes, tuple(border))
    if key not in lowering.signs:
        n, channels, height, width = x.shape
        planes, kind = chosen.signs.x_planes, affine_of(op.operands[0])
        assert kind is not None
        y = lowering.image("i32", (n, chosen.words * planes, height, width), border)
        zero = int(kind.zero_points[0]) + stored_offset(op.operands[0].type)
        codelet = PackSigns(
            isa=lowering.isa,
            sizes=(n, height, width, channels),
            words=chosen.words,
            planes=planes,
            x=x.operand(0, (x.strides[0], x.strides[2], x.strides[3], 1)),
            y=y.operand(2, (y.strides[0], y.strides[2], y.strides[3])),
            zero=0,
            params=1,
            chunk=max(ROWS_PER_TASK, math.ceil(n * height / ROWS_PER_TASK)),
            halo=y.fill(1),
        )
        lowering.call(codelet, [x, lowering.params([zero, 0]), y])
        lowering.signs[key] = y
    return lowering.signs[key]


def _weights(chosen: Plan, values: np.ndarray, lanes: int) -> tuple[np.ndarray, int]:
    """Sign words of weights [out, c, kh, kw] in the order in which they are read, flat i32, and the elements of a whole block."""
    out, channels, kh, kw = values.shape
    bits = np.zeros((chosen.signs.w_planes, out, kh, kw, chosen.words * WORD_BITS), np.uint8)
    by_tap = values.transpose(0, 2, 3, 1)
    bits[0, ..., :channels] = by_tap < 0
    bits[1:, ..., :channels] = by_tap != 0
    words = np.packbits(bits, axis=-1, bitorder="little").view(np.int32)  # [planes, out, kh, kw, words]
    shaped = words.reshape(chosen.signs.w_planes, 1, out, math.prod(chosen.taps), chosen.run)
    planes = [packing.pack(np.ascontiguousarray(p), lanes=lanes, depth=1, vectors=chosen.tile[2])[0].reshape(-1, lanes) for p in shaped]
    block = packing.block_stride(taps=math.prod(chosen.taps), run=chosen.run, lanes=lanes, depth=1, vectors=chosen.tile[2])
    return np.stack(planes, axis=1).reshape(-1), block * chosen.signs.w_planes


def _bias_table(
    chosen: Plan, values: np.ndarray, bias: np.ndarray | None, sizes: Sizes, window: Window
) -> tuple[np.ndarray, tuple[int, int]]:
    """[classes of rows * of columns, out] i32: the bias, what is not 0 in the weights, less the weights outside of the image."""
    out, signs = len(values), chosen.signs
    total = np.zeros(out, np.int64) if bias is None else bias.astype(np.int64)
    if signs.x_planes == 1:
        total = total + np.abs(values).sum(axis=(1, 2, 3))
    by_tap = values.sum(axis=1, dtype=np.int64)  # [out, kh, kw]
    taps = []
    for axis in (0, 1):
        first, last = signs.edges[2 * axis : 2 * axis + 2]
        results = sizes[2 + axis]
        middle = [min(first, results - 1)] if first + last else []
        indices = [*range(first), *middle, *range(results - last, results)] if first + last else [0]
        kept = [[False] * window.kernel[axis]] if not first + last else [window.outside(axis, i) for i in indices]
        taps.append(np.array(kept))
    outside = taps[0][:, None, :, None] | taps[1][None, :, None, :]  # [rows, columns, kh, kw]
    table = total - np.einsum("rcij,oij->rco", outside.astype(np.int64), by_tap)
    return table.reshape(-1, out).astype(np.uint32).view(np.int32), (len(taps[0]), len(taps[1]))


def tap_strides(chosen: Plan, x: Place, window: Window) -> tuple[int, int]:
    """Elements between taps in the sign words x."""
    down = x.strides[2] * window.dilations[0]
    if chosen.segment:
        return down, chosen.segment * chosen.signs.x_planes
    return down, x.strides[3] * window.dilations[1] if chosen.taps[1] > 1 else 0


def of_rows(place: Place, sizes: list[int], strides: list[int]) -> Place:
    """Rows of x [n, h, rows, k] as an image [n, k, h, rows]."""
    (n, h, rows), (sn, sh, sr, sk) = sizes, strides
    return replace(place, shape=(n, place.shape[-1], h, rows), strides=(sn, sk, sh, sr), halo=(0, 0, 0, 0))
