"""conv2d, linear and matmul as contractions: packed weights, folded zero points, a register tile, fused steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qcc.dialects import integer_values
from qcc.dialects.codelet import ELEMENT_BYTES, FLOATS, WIDE
from qcc.dialects.codelet_cost import DEPTHS
from qcc.dialects.element_types import are_bfloat16
from qcc.dialects.errors import QccError
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.mlir import error_at, ir, layer_name, op_attribute
from qcc.passes.tile.codelets import (
    byte_pairs,
    channel_parts,
    columns,
    elementwise,
    packing,
    sign_products,
    sparse_pixels,
    tile_products,
    wide_sums,
    windows,
    winograd,
)
from qcc.passes.tile.codelets.border import read_border
from qcc.passes.tile.codelets.contracting import Contracting, emit
from qcc.passes.tile.codelets.level_codes import LevelCodes, level_codes
from qcc.passes.tile.codelets.lowering import Lowering
from qcc.passes.tile.codelets.place import Place, stored_offset
from qcc.passes.tile.codelets.program import Program
from qcc.passes.tile.codelets.reading import Reading, over_groups, reading_of
from qcc.passes.tile.codelets.register_tile import choose_tile
from qcc.passes.values import affine_of, shape_of


@dataclass
class Weights:
    """The constant side of a contraction: integers (zero point subtracted) or floats [groups, c, taps, run], and the bias [groups, c]."""

    values: np.ndarray
    bias: np.ndarray | None
    codes: LevelCodes | None = None  # where the values are real, and few levels


def conv2d(lowering: Lowering, op: Any) -> set[Any]:
    x, w, result = op.operands[0], op.operands[1], op.results[0]
    groups, (out, per_group, kh, kw) = op_attribute(op, "groups"), shape_of(w)
    place = _image(lowering, op, x)
    if groups == shape_of(x)[1] == out:
        return _depthwise(lowering, op, place)
    values = integers(lowering, op, w)
    program = Program(lowering)
    absorbed = elementwise.absorb(lowering, program, result)
    y, word = lowering.result(last_of(op, absorbed)), lowering.halo_word(last_of(op, absorbed))
    facts = ISAS[lowering.isa]
    faster = facts.tiles and place.element in ("u8", "bf16")
    bias = _folded_bias(op, values.reshape(1, out, 1, -1), _bias(lowering, op, 1)) if groups == 1 else None
    faster |= lowering.streamed  # several times the bytes would be decoded in every run
    chosen = None if faster else winograd.plan(lowering, op, place, values, bias)
    other = math.inf if chosen is None else chosen.microseconds
    n, _, height, width = shape_of(result)
    sizes = (n, groups, height, width, out // groups)
    if _by_signs(lowering, op, place, read_border(op), values, sizes, program, y, over_groups([*program.operands, y], out), word, other):
        return {op, *absorbed}
    reading, spread = reading_of(op, place), over_groups([*program.operands, y], out // groups)
    flat = values.reshape(groups, out // groups, per_group, kh, kw).transpose(0, 1, 3, 4, 2)
    flat = flat.reshape(groups, out // groups, math.prod(reading.taps), reading.run)
    narrow = _accumulator_bits(op) <= 32
    if narrow and sparse_pixels.lower(lowering, op, reading, flat, bias, sizes, program, y, spread, word, chosen):
        return {op, *absorbed}
    if chosen is not None:
        codes = _level_codes(lowering, op)
        winograd.lower(lowering, chosen, place, op_attribute(op, "padding")[:2], values, bias, program, y, word, codes)
        return {op, *absorbed}
    weights = Weights(flat, _bias(lowering, op, groups), _level_codes(lowering, op))
    _constant_weights(lowering, op, reading, weights, sizes, program, y, spread, 1, word)
    return {op, *absorbed}


def _depthwise(lowering: Lowering, op: Any, place: Place) -> set[Any]:
    values, bias = integers(lowering, op, op.operands[1]), _bias(lowering, op, 1)
    if values.dtype.kind == "f":
        flat = None if bias is None else bias.reshape(-1)
        return windows.depthwise(lowering, op, place, values, flat, "lane_f32", _level_codes(lowering, op))
    compute = "lane_i64" if _accumulator_bits(op) > 32 else "lane_i32"
    total = (0 if bias is None else bias.reshape(-1)) - _stored_zero(op.operands[0]) * values.astype(np.int64).sum(axis=(1, 2, 3))
    if compute == "lane_i32" and windows.takes_quads(lowering.isa, place, values):
        return windows.depthwise_quads(lowering, op, place, values, _bias_container(total, compute))
    return windows.depthwise(lowering, op, place, values, _bias_container(total, compute), compute)


def _accumulator_bits(op: Any) -> int:
    element = ir.RankedTensorType(op.results[0].type).element_type
    return ir.IntegerType(element).width if isinstance(element, ir.IntegerType) else 32  # a dynamic_linear keeps its sums to itself


def linear(lowering: Lowering, op: Any) -> set[Any]:
    """Rows of x are the pixels of image rows."""
    program = Program(lowering)
    absorbed = elementwise.absorb(lowering, program, op.results[0])
    contract_rows(lowering, op, lowering.place(op.operands[0], narrow=True), _bias(lowering, op, 1), program, absorbed)
    return {op, *absorbed}


def contract_rows(lowering: Lowering, op: Any, place: Place, bias: np.ndarray | None, program: Program, absorbed: Sequence[Any]) -> None:
    """The linear layer `op` with x at `place` and constant weights, its sums starting at `bias` [1, out]."""
    w = op.operands[1]
    out, inside = shape_of(w)
    y = lowering.result(last_of(op, absorbed))
    place, sizes, strides = rows_of(lowering, place, program.operands, y, 3)
    n, h, rows = sizes
    (sn, sh, sr, _), *others = strides
    reading = Reading(place, (sn, 0, sh, sr, 0), (1, 1), (0, 0), inside)
    weights = Weights(integers(lowering, op, w).reshape(1, out, 1, inside), bias, _level_codes(lowering, op))
    spread = [(a, 0, b, c, last) for a, b, c, last in others]
    image, values = sign_products.of_rows(place, sizes, strides[0]), weights.values.reshape(out, inside, 1, 1)
    if _by_signs(lowering, op, image, [0] * 4, values, (n, 1, h, rows, out), program, y, spread):
        return
    narrow = _accumulator_bits(op) <= 32
    if n * h * rows == 1 and narrow and (chosen := columns.plan(lowering, op, place, weights.values[0, :, 0])) is not None:
        start = _folded_bias(op, weights.values, bias)
        flat = None if start is None else _bias_container(start.reshape(-1), "lane_i32")
        columns.lower(lowering, chosen, place, weights.values[0, :, 0], flat, program, y, [s[4] for s in spread])
        return
    start = _folded_bias(op, weights.values, bias)
    if narrow and sparse_pixels.lower(lowering, op, reading, weights.values, start, (n, 1, h, rows, out), program, y, spread):
        return
    _constant_weights(lowering, op, reading, weights, (n, 1, h, rows, out), program, y, spread, len(y.shape) - 1)


def _by_signs(
    lowering: Lowering,
    op: Any,
    place: Place,
    border: list[int],
    values: np.ndarray,
    sizes: tuple[int, int, int, int, int],
    program: Program,
    y: Place,
    spread: Sequence[tuple[int, ...]],
    halo_word: int = 0,
    other: float = math.inf,
) -> bool:
    """Lower a product of x [n, c, h, w] at `place` and weights [out, c, kh, kw] to population counts where both are -1, 0 and 1 and it
    pays, also against `other` microseconds. False: nothing was done."""
    window = sign_products.window_of(op, place)
    chosen = sign_products.plan(lowering, op, place, values, sizes, window, other)
    if chosen is None:
        return False
    bias = _bias(lowering, op, 1)
    found = sign_products.pack(lowering, op, chosen, place, border, values, None if bias is None else bias.reshape(-1), sizes, window)
    sn, _, sh, sw = found.x.strides
    reading = Reading(
        found.x,
        (sn, 0, sh * window.strides[0], sw * window.strides[1], 0),
        chosen.taps,
        sign_products.tap_strides(chosen, found.x, window),
        chosen.run,
        -window.padding[0] * sh - window.padding[1] * sw,
    )
    contracting = Contracting(
        chosen.compute, sizes, reading, found.w, (0, 0, 0, 0, found.block), found.bias, None, chosen.tile, found.bias_strides,
        signs=chosen.signs,
    )  # fmt: skip
    emit(lowering, contracting, program, y, halo_word, spread)
    return True


def last_of(op: Any, absorbed: Sequence[Any]) -> Any:
    return absorbed[-1].results[0] if absorbed else op.results[0]


def _copied(lowering: Lowering, place: Place) -> Place:
    y = lowering.temporary(place.element, place.shape)
    elementwise.copy(lowering, place, y)
    return y


def rows_contiguous(lowering: Lowering, place: Place) -> Place:
    """x [..., k] with contiguous k and slack behind the buffer."""
    if (place.strides[-1] in (1, 0) and place.shape[-1] == 1) or place.strides[-1] == 1:
        if not _outside(place):
            return place
    return _copied(lowering, place)


def row_space(lowering: Lowering, places: Sequence[Place], count: int) -> tuple[list[int], list[list[int]] | None]:
    """Leading dimensions (all but the last) of equally shaped places, merged into `count`: sizes; per place strides, then the last one.

    Strides are None where more dimensions than `count` are left.
    """
    sizes, strides = elementwise.collapse(places[0].shape[:-1], [p.strides[:-1] for p in places])
    extra = count - len(sizes)
    if extra < 0:
        return sizes, None
    return [1] * extra + sizes, [[0] * extra + list(s) + [p.strides[-1]] for s, p in zip(strides, places, strict=True)]


def rows_of(lowering: Lowering, x: Place, operands: list[Place], y: Place, count: int = 1) -> tuple[Place, list[int], list[list[int]]]:
    """x with contiguous rows, and the `row_space` of it, of `operands` and of y; where that has too many dimensions, x and the operands are
    copied, so that all are in the same plain order."""
    x = rows_contiguous(lowering, x)
    sizes, strides = row_space(lowering, [x, *operands, y], count)
    if strides is None:
        x, operands[:] = _copied(lowering, x), [_copied(lowering, p) for p in operands]
        sizes, strides = row_space(lowering, [x, *operands, y], count)
        assert strides is not None, "row-major copies collapse"
    return x, sizes, strides


def _bias(lowering: Lowering, op: Any, groups: int) -> np.ndarray | None:
    if len(op.operands) < 3:
        return None
    bias = lowering.constant_of(op, op.operands[2], "bias")
    return (bias if bias.dtype == np.float32 else bias.astype(np.int64)).reshape(groups, -1)


def _level_codes(lowering: Lowering, op: Any) -> LevelCodes | None:
    """The codes behind the real weights of `op`, where they are dequantized; says so in the report."""
    found = level_codes(*lowering.stored[op.operands[1]]) if op.operands[1] in lowering.stored else None
    if found is not None:
        rows, groups, count = found.levels.shape
        per = " per group" if groups > 1 else " per channel" if rows > 1 else ""
        words = f"{count} levels{per}, which become f32 when loaded" if lowering.coded else f"f32 ({count} levels{per} with --coding)"
        lowering.fact(layer_name(op.location), stored_format=words)
    return found


def integers(lowering: Lowering, op: Any, w: Any) -> np.ndarray:
    """What a constant operand multiplies with: floats as they are, others as the integers behind the stored values (i64)."""
    array = lowering.constant_of(op, w, "weight")
    kind = ir.RankedTensorType(w.type)
    if isinstance(kind.element_type, ir.FloatType):
        return array.astype(np.float32)
    try:
        return integer_values.integers(array, kind)
    except QccError as problem:
        raise error_at(op, f"'{op.name}' found weights of {kind.element_type}: {problem.message}") from None


def _image(lowering: Lowering, op: Any, x: Any) -> Place:
    """x channels-last with the border the convolution reads; copied where it does not lie so."""
    place, border = lowering.place(x, narrow=True), read_border(op)
    deep_enough = all(have >= need for have, need in zip(place.halo, border, strict=True))
    readable = place.strides[1] == 1 or place.shape[1] == 1
    if deep_enough and readable and not _outside(place):
        return place if place.shape[1] > 1 else replace(place, strides=(place.strides[0], 1, *place.strides[2:]))
    copied = lowering.image(place.element, place.shape, border)
    elementwise.copy(lowering, place, copied, halo_word=lowering.halo_word(x))
    return copied


def _outside(place: Place) -> bool:
    """Whether the buffer is the caller's, behind which no vector load may read."""
    return place.buffer.owner.attributes["space"].value == "input" and place.element != "f32"


def _constant_weights(
    lowering: Lowering,
    op: Any,
    reading: Reading,
    weights: Weights,
    sizes: tuple[int, int, int, int, int],
    program: Program,
    y: Place,
    spread: Sequence[tuple[int, ...]],
    axis: int,
    halo_word: int = 0,
) -> None:
    """Call with all channels, which are dimension `axis` of y, or part by part; `spread` are the strides of the program's operands and of y
    over (n, g, h, w, c)."""
    n, groups, h, w, channels = sizes
    values, bias = weights.values, weights.bias
    element = "f32" if values.dtype.kind == "f" else packing.narrowest(values)
    parts = channel_parts.cut(lowering, channels, values[0, 0].size * ELEMENT_BYTES[element]) if groups == 1 else [(0, channels)]
    for first, count in parts:
        own, behind, result = weights, program, y
        if len(parts) > 1:
            own = Weights(values[:, first : first + count], None if bias is None else bias[:, first : first + count])
            behind, result = channel_parts.take(program, y, (first, count), axis)
        _pack_and_call(lowering, op, reading, own, (n, groups, h, w, count), behind, result, spread, halo_word)


def _pack_and_call(
    lowering: Lowering,
    op: Any,
    reading: Reading,
    weights: Weights,
    sizes: tuple[int, int, int, int, int],
    program: Program,
    y: Place,
    spread: Sequence[tuple[int, ...]],
    halo_word: int,
) -> None:
    """Pack, choose a tile, call."""
    compute, element, packed, zero = _compute(lowering, op, weights.values, reading.place)
    _, channels, taps, run = packed.shape
    bias = _folded_bias(op, weights.values, weights.bias)
    on_tiles = {("dot4_u8s8", "u8"): "tile_u8s8", ("lane_f32", "bf16"): "tile_bf16"}.get((compute, reading.place.element))
    if on_tiles and element in ("s8", "bf16"):
        start = None if bias is None else _bias_container(bias, compute)
        if tile_products.constant_weights(lowering, on_tiles, packed, start, zero, reading, sizes, program, y, spread, halo_word):
            return
    facts = ISAS[lowering.isa]
    if facts.dot2_bf16 and reading.place.element == element == "bf16" and run > 1:
        compute = "dot2_bf16"
    depth = DEPTHS.get(compute, 1)
    steps, table = taps * -(-run // depth), None
    if depth == 2 and reading.place.element == "u8":
        if compute == "dot2_s16" and not lowering.coded and (table := _listed(lowering, op, packed, reading, sizes)) is not None:
            compute, element, steps = "pairs_u8s8", "s8", math.ceil(taps * -(-run // 4) * table.instructions / 3)
        else:
            reading = replace(reading, place=elementwise.widened(lowering, reading.place))
    if compute == "dot2_s16":
        if facts.lanes == 8 and packed.size <= FEW_WEIGHTS and not lowering.coded:
            element = "s16"
        elif element == "s16" and (split := _split_zero(packed)) is not None:
            element, (packed, zero) = "s8", split
    tile = choose_tile(lowering.isa, compute, element, sizes[2], sizes[3], channels, steps, one_row=False, summed=zero is not None)
    block = packing.block_stride(taps=taps, run=run, lanes=facts.lanes, depth=depth, vectors=tile[2])
    if table is not None:
        flat, group_stride = table.weights, 0
    else:
        if compute == "dot2_bf16":
            stored = packing.overlapped(packed)
        else:
            stored = packed.astype(np.int8 if element == "s8" else np.int16) if depth == 2 else packed
        flat, group_stride = packing.pack(stored, lanes=facts.lanes, depth=depth, vectors=tile[2])
    width = tile[2] * facts.lanes
    bias_place = (
        None if bias is None else lowering.weights(packing.pad_channels(_bias_container(bias, compute), width), _bias_element(compute))
    )
    zero_place = None if zero is None else lowering.weights(packing.pad_channels(zero.astype(np.int32), width), "i32")
    recipe = (
        None if weights.codes is None or compute == "dot2_bf16" else weights.codes.panels(packed.shape[0], element, facts.lanes, tile[2])
    )
    w_place = lowering.weights(packing.bf16_words(flat) if element == "bf16" else flat, element, recipe)
    segment = wide_sums.segment(packed, _greatest(op.operands[0])) if compute == "dot2_s16_i64" else 0
    contracting = Contracting(
        compute, sizes, reading, w_place, (0, group_stride, 0, 0, block), bias_place, zero_place, tile, listed=table, segment=segment
    )
    emit(lowering, contracting, program, y, halo_word, spread)


def _listed(lowering: Lowering, op: Any, w: np.ndarray, reading: Reading, sizes: Sequence[int]) -> byte_pairs.Listed | None:
    """u8 x s8 products summed in 16 bits without overflow, where that takes fewer instructions than 16-bit products."""
    if sizes[2] * sizes[3] < LEAST_PIXELS or not w.any() or np.abs(w).max() > MOST_LISTED:
        return None
    distances = np.add.outer(*(np.arange(count) * stride for count, stride in zip(reading.taps, reading.tap_strides, strict=True)))
    lanes, quads, pairs = ISAS[lowering.isa].lanes, -(-reading.run // 4), -(-reading.run // 2)
    table = byte_pairs.pack(w, distances.reshape(-1), lanes=lanes, greatest=_greatest(op.operands[0]))
    return table if table.instructions * quads < DOT2_INSTRUCTIONS[lanes] * pairs / 2 else None


MOST_LISTED = 255  # of the magnitude of weights: greater ones are cut into so many parts that 16-bit products are fewer
LEAST_PIXELS = 4  # below, tables cost more than they save
DOT2_INSTRUCTIONS = {8: 3.65, 16: 3.2}
"""By lanes: cost of 16-bit products of four elements of the reduction, to be compared with the instructions of `Listed`.

Products have half the ports of additions on the machines measured, so that 16-bit ones, with fewer products, come out ahead.
"""
FEW_WEIGHTS = 64 * 1024  # are stored in 16 bits for 16-bit products: loads that widen compete with products for ports


def _folded_bias(op: Any, values: np.ndarray, bias: np.ndarray | None) -> np.ndarray | None:
    """bias [groups, c] of weights [groups, c, taps, run] with the zero point of x: sum (x - zx) * w = sum x * w - zx * sum w."""
    if values.dtype.kind == "f":
        return bias
    total = np.zeros(values.shape[:2], np.int64) if bias is None else bias
    return total - _stored_zero(op.operands[0]) * values.astype(np.int64).sum(axis=(2, 3))


def _bias_container(bias: np.ndarray, compute: str) -> np.ndarray:
    """Biases wrap like the accumulators they start."""
    if compute in FLOATS:
        return bias.astype(np.float32)
    return bias if compute in WIDE else bias.astype(np.int64).astype(np.uint32).view(np.int32)


def _bias_element(compute: str) -> str:
    return "f32" if compute in FLOATS else "i64" if compute in WIDE else "i32"


def _stored_zero(x: Any) -> int:
    """Zero point of the stored bytes of a quantized value; 0 of integers."""
    kind = affine_of(x)
    return 0 if kind is None else int(kind.zero_points[0]) + stored_offset(x.type)


def _split_zero(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Integers [groups, c, taps, run] as signed bytes less a zero [groups, c], where every channel allows it."""
    split = packing.split_zero(values.reshape(values.shape[0] * values.shape[1], -1))
    return None if split is None else (split[0].reshape(values.shape), None if split[1] is None else split[1].reshape(values.shape[:2]))


def _greatest(x: Any) -> int:
    """The greatest magnitude of the stored bytes of a quantized value, or of its 16 bits."""
    kind = affine_of(x)
    return 255 if kind is None else max(abs(int(bound) + stored_offset(x.type)) for bound in (kind.qmin, kind.qmax))


def _compute(lowering: Lowering, op: Any, values: np.ndarray, x: Place) -> tuple[str, str, np.ndarray, np.ndarray | None]:
    """(compute tile, element of the packed weights, values to pack, zero [groups, c] or None)."""
    if values.dtype.kind == "f":
        return "lane_f32", "bf16" if are_bfloat16(values) else "f32", values, None
    element, pairs = packing.narrowest(values), ISAS[lowering.isa].pairs and x.element in ("u8", "s16")
    if _accumulator_bits(op) > 32:
        in_pairs = pairs and element != "i32" and wide_sums.segment(values, _greatest(op.operands[0])) > 0
        return "dot2_s16_i64" if in_pairs else "lane_i64", element, values, None
    if ISAS[lowering.isa].dot4 and x.element == "u8" and (split := _split_zero(values)) is not None:
        return "dot4_u8s8", "s8", *split
    return "dot2_s16" if pairs and element != "i32" else "lane_i32", element, values, None
