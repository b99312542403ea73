"""Give constant weights that hold few numbers the type that says so, whichever tool made them, without changing a value.

Before:

    %w = qcc.constant dense<[[0.3, -0.3], [0.7, 0.7]]> : tensor<2x2xf32>
    %y = qcc.linear %x, %w

After:

    %c = qcc.constant dense<[[1, -1], [1, 1]]> : tensor<2x2x!qcc.binary<dense<[[0.3], [0.7]]>>>
    %w = qcc.dequantize %c
    %y = qcc.linear %x, %w

Looked for in float weights, each for the tensor and per output channel: {-a, a}, {-a, 0, b}, integers of up to 8 bits times a scale,
powers of two, small floats (FP4 to FP8), and up to 256 levels of any value; of those that hold, the one with the fewest bits, but floats
and levels only where nothing else holds: the others multiply as integers. Where no integers per channel hold, weights of linear layers are
also looked at in groups along the input, whose scales are counted: what GPTQ, AWQ, NF4, NVFP4 and MX tools leave behind. Affine weights
whose integers have a common divisor or fewer bits than their type get the narrower type. A sample decides what is worth a full test.

Requires: graph form, weights next to their layers, batch normalisation not yet folded (it rounds every weight anew).
Guarantees: real values unchanged: every dequantized element equals the original (a zero loses its sign). Linear time but for one sort of
tensors that passed the sample. Facts per layer: recognized.
Why: users prune and cluster with any tool; Han, Mao, Dally, "Deep compression", ICLR 2016; Miyashita et al., "Convolutional neural
networks using logarithmic data representation", 2016.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qcc.dialects import compressed_types as types
from qcc.dialects import element_types, minifloat, weights
from qcc.dialects.element_types import Affine
from qcc.dialects.mlir import create, ir, layer_name, replace_op, walk
from qcc.dialects.real_values import decode
from qcc.passes.base import Pass, PassContext
from qcc.passes.graph import _levels, _scaled_levels
from qcc.passes.values import constant_array, dequantized, make_constant, producer, users

Array = np.ndarray[Any, Any]
F32 = np.float32

_PRODUCTS = ("qcc.conv2d", "qcc.linear")
_USES_OF_A_LEVEL = 4  # on average, of one that is worth a table entry of 32 bits
_FEWEST_ELEMENTS = 32  # below, types cost more than they save
_SHORTEST_SUM = 8  # of a linear layer: shorter ones, such as coordinates times a matrix, save nothing and would round x
_GROUPS = (256, 128, 64, 32, 16)  # neighbours along the input that may share a scale
_SCALE_BITS = 16  # of the scale of a group, as streams store it
_SMALL_FLOAT_BITS = 4  # of the narrowest small float: its values are integers of 5 bits
_SMALL_FLOATS = {  # bits of mantissa -> builtin floats that hold them, the narrowest first, and their names
    1: (("f4E2M1FN", "FP4"), ("f6E3M2FN", "FP6 E3M2"), ("f8E5M2", "FP8 E5M2")),
    2: (("f6E3M2FN", "FP6 E3M2"), ("f6E2M3FN", "FP6 E2M3"), ("f8E5M2", "FP8 E5M2"), ("f8E4M3FN", "FP8 E4M3")),
    3: (("f6E2M3FN", "FP6 E2M3"), ("f8E4M3FN", "FP8 E4M3")),
}


@dataclass(frozen=True)
class Found:
    """A type for a tensor: stored elements, element type, bits of one with its part of what its group or channel has, words for the report,
    and whether its elements multiply as integers."""

    stored: Array
    element: Any
    bits: float
    words: str
    integers: bool = True


class RecognizeFormatsPass(Pass):
    """See the module's docstring."""

    name = "recognize-formats"

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Look at the weights of every convolution and linear layer."""
        seen: set[Any] = set()
        for op in walk(module):
            if op.name not in _PRODUCTS:
                continue
            weight = op.operands[1]
            source = dequantized(weight)
            constant = producer(weight if source is None else source, "qcc.constant")
            if constant is None or constant.results[0] in seen:
                continue
            found = _float_weight(constant) if source is None else _affine_weight(constant)
            if found is None:
                seen.add(constant.results[0])
                continue
            for name in {layer_name(user.location) for user in _layers(constant)}:
                context.fact(name, recognized=found.words)
            seen.add(_retype(constant, found, weight))


def _layers(constant: Any) -> list[Any]:
    """The operations that read `constant`, those behind a dequantize in its place."""
    found = users(constant.results[0])
    return [reader for user in found for reader in (users(user.results[0]) if user.name == "qcc.dequantize" else [user])]


def _retype(constant: Any, found: Found, weight: Any) -> Any:
    """Put the recognised constant (and a dequantize behind it) in the place of `constant`; the new constant's value. A float table that
    something else reads too, such as the embedding of tied weights, stays for that: layers read the most of it."""
    made = make_constant(found.stored, found.element, constant, name=layer_name(constant.location))
    if constant.results[0] == weight:
        real = create("qcc.dequantize", [made], [weight.type], loc=constant.location, ip=ir.InsertionPoint(constant)).results[0]
        readers = list(users(weight))
        for user in readers:
            if user.name in _PRODUCTS:
                user.operands[1] = real
        if all(user.name in _PRODUCTS for user in readers):
            constant.erase()
        return made
    for user in users(constant.results[0]):
        at = ir.InsertionPoint(user)
        replace_op(user, create("qcc.dequantize", [made], [user.results[0].type], loc=user.location, ip=at).results)
    constant.erase()
    return made


def _float_weight(constant: Any) -> Found | None:
    """The best type for a float weight, or None."""
    kind = ir.RankedTensorType(constant.results[0].type)
    array = constant_array(constant.results[0])
    if array is None or array.dtype != F32 or array.ndim < 2 or array.size < _FEWEST_ELEMENTS or kind.encoding is not None:
        return None
    if (array.ndim == 2 and array.shape[1] < _SHORTEST_SUM) or not np.isfinite(array).all() or not array.any():
        return None
    rows = array.reshape(array.shape[0], -1)
    levels = _levels.distinct(rows)
    found = _exact(
        [*(_of_levels(rows, levels, array.shape) if levels is not None else []), *_per_row(rows, array.shape, "per channel")], array
    )
    if (found is None or not found.integers) and all(user.name != "qcc.conv2d" for user in users(constant.results[0])):
        found = _exact([*([found] if found is not None else []), *_per_group(array)], array)
    return found


def _exact(found: list[Found], array: Array) -> Found | None:
    """The best of `found` that means `array` exactly: integers first, then the one of the fewest bits."""
    ordered = sorted(found, key=lambda f: (not f.integers, f.bits))
    return next((f for f in ordered if np.array_equal(decode(f.stored, _tensor(array.shape, f.element)), array)), None)


def _tensor(shape: tuple[int, ...], element: Any) -> ir.RankedTensorType:
    return ir.RankedTensorType.get(list(shape), element, loc=ir.Location.unknown())


def _of_levels(rows: Array, levels: Array, shape: tuple[int, ...]) -> list[Found]:
    """Types with one set of levels for the tensor, in order of preference."""
    found: list[Found] = []
    size = np.unique(np.abs(levels[levels != 0]))
    signs = (levels < 0).sum(), (levels > 0).sum()
    if signs[0] <= 1 and signs[1] <= 1:
        found.append(_amplitudes(rows, np.array([size[0] if not signs[0] else -levels[0]]), np.array([levels[-1] if signs[1] else size[0]]),
                                 shape, "per tensor"))  # fmt: skip
    if (steps := _levels.steps_per_tensor(rows, levels)) is not None:
        found += _integers(steps, shape, (1, 1), "per tensor")
    if (powers := _levels.power_of_two(levels)) is not None:
        found += _powers(rows, powers, bool(signs[0]), shape)
    if 2 <= levels.size <= np.count_nonzero(rows) // _USES_OF_A_LEVEL:  # few weights that survived pruning are no clusters
        stored = np.searchsorted(levels, rows).astype(np.uint8).reshape(shape)
        book = types.Codebook(levels, np.ones(1, F32))
        found.append(Found(stored, types.make_type(book), book.bits, f"codebook of {levels.size} levels per tensor", integers=False))
    return found


def _per_row(rows: Array, shape: tuple[int, ...], where: str) -> list[Found]:
    """Types with levels or a scale per row, which is an output channel or a group of one, of a tensor of `shape`."""
    ones = [1] * (len(shape) - 1)
    blocks = (shape[0], *ones) if where == "per channel" else (shape[0], rows.shape[0] // shape[0])  # of scales
    if (pair := _levels.amplitudes_per_row(rows)) is not None:
        return [_amplitudes(rows, pair[0].reshape(blocks), pair[1].reshape(blocks), shape, where)]
    found: list[Found] = []
    if (steps := _levels.steps_per_row(rows)) is not None:
        found = _integers(steps, shape, blocks, where)
        if where == "per channel" or any(f.bits <= _SMALL_FLOAT_BITS for f in found):
            return found
    if where == "per channel" and (book := _levels.codebook_per_row(rows)) is not None:
        levels, stored = book
        described = types.Codebook(levels.reshape(*blocks, -1), np.ones(1, F32))
        if described.levels.size <= np.count_nonzero(rows) // _USES_OF_A_LEVEL:
            words = f"codebook of {levels.shape[1]} levels per channel"
            bits = described.bits + 32 * levels.shape[1] / rows.shape[1]
            found.append(Found(stored.reshape(shape), types.make_type(described), bits, words, integers=False))
    if (floats := _scaled_levels.significands(rows)) is not None:
        found += _small_floats(*floats, shape, blocks, where)
    if (scaled := _scaled_levels.codebook(rows)) is not None:
        levels, stored, scales = scaled
        described = types.Codebook(levels, scales.reshape(blocks))
        words = f"codebook of {levels.size} levels, scale {where}"
        found.append(Found(stored.reshape(shape), types.make_type(described), described.bits, words, integers=False))
    return found


def _per_group(array: Array) -> list[Found]:
    """Types of weights [o, n] with a scale per group of neighbours, bits of scales counted: integers in the largest groups that have some,
    floats and levels of all sizes."""
    found: list[Found] = []
    for size in _GROUPS:
        if array.shape[1] % size or array.shape[1] == size or np.count_nonzero(array) * size < _USES_OF_A_LEVEL * array.size:
            continue
        here = _per_row(array.reshape(-1, size), array.shape, f"per group of {size}")
        found += [replace(f, bits=f.bits + _SCALE_BITS / size, integers=False) for f in here]
        if any(f.integers for f in here):
            break
    return found


def _amplitudes(rows: Array, low: Array, high: Array, shape: tuple[int, ...], where: str) -> Found:
    stored = np.sign(rows).astype(np.int8).reshape(shape)
    if np.array_equal(low, high) and stored.all():
        return Found(stored, types.make_type(types.Binary(low.astype(F32))), 1, f"binary, scale {where}")
    ternary = types.Ternary(low.astype(F32), high.astype(F32))
    words = "ternary, scale" if ternary.symmetric else "ternary, two scales"
    return Found(stored, types.make_type(ternary), 2, f"{words} {where}")


def _integers(steps: _levels.Steps, shape: tuple[int, ...], blocks: tuple[int, ...], where: str) -> list[Found]:
    """Integers of up to 8 bits: without zero points, with one for all, or with one per row where only that holds them, and in linear layers
    where it saves a bit."""

    def make(zeros: Array, bits: int, low: int, high: int, words: str) -> Found:
        at: dict[str, Any] = {"axis": 0} if math.prod(blocks) == shape[0] else {"block": {0: 1, 1: shape[1] // blocks[1]}}
        if len(steps.scales) == 1:
            at, scales, zero_points = {}, steps.scales[0], zeros[0]
        else:
            of = (-1,) if "axis" in at else blocks
            scales, zero_points = steps.scales.reshape(of), zeros.reshape(of)
        element = element_types.affine_type(scales, zero_points, bits=bits, qmin=low, qmax=high, **at)
        stored = (steps.integers + zeros[:, None]).astype(np.int8).reshape(shape)
        return Found(stored, element, bits, f"{bits}-bit integers, {words} {where}")

    least, most = np.minimum(steps.integers.min(axis=1), 0), np.maximum(steps.integers.max(axis=1), 0)
    low, high = int(least.min()), int(most.max())
    zeros, found = np.zeros(len(steps.scales), np.int64), list[Found]()
    if -128 <= low and high <= 127:
        bits = _bits(low, high)
        found.append(make(zeros, bits, *_even(low, high, bits), "scale"))
    elif high - low <= 255:
        found.append(make(zeros - 128 - low, 8, -128, 127, "scale"))
    bits = max(2, int((most - least).max()).bit_length())
    if bits <= 8 and (not found or (len(shape) == 2 and bits < found[0].bits)):
        half = 1 << (bits - 1)
        found.append(make(-half - least.astype(np.int64), bits, -half, half - 1, "scale and zero point"))
    return found


def _small_floats(
    multiples: Array, scales: Array, mantissa: int, shape: tuple[int, ...], blocks: tuple[int, ...], where: str
) -> list[Found]:
    """The narrowest builtin float that holds `multiples` [rows, n], whose greatest ones are in [1, 2), times a power of two per row."""
    for text, name in _SMALL_FLOATS[mantissa]:
        element = ir.Type.parse(text)
        dtype = weights.numpy_dtype(element)
        fraction, exponent = np.frexp(minifloat.greatest(dtype))
        shift = exponent - 1 - (np.abs(multiples).max(axis=1) > 2 * fraction)
        wide = np.ldexp(multiples, shift[:, None])
        stored = wide.astype(dtype)
        if np.array_equal(stored.astype(F32), wide):
            described = types.Scaled(element, np.ldexp(scales, -shift).reshape(blocks))
            return [Found(stored.reshape(shape), types.make_type(described), element.width, f"{name}, scale {where}", integers=False)]
    return []


def _bits(low: int, high: int) -> int:
    """Least N of at least 2 such that a signed N-bit integer holds low..high."""
    return max((-low - 1).bit_length() if low < 0 else 0, high.bit_length(), 1) + 1


def _even(low: int, high: int, bits: int) -> tuple[int, int]:
    """A range around 0 that holds low..high and, where the bits allow, also its negative: a normalisation may turn signs."""
    most = max(-low, high, 1)
    return (-most, most) if most < 1 << (bits - 1) else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def _powers(rows: Array, powers: tuple[int, int, Any], signed: bool, shape: tuple[int, ...]) -> list[Found]:
    least, greatest, scale = powers
    bits = (greatest - least + 1).bit_length() + signed
    if bits > 8:
        return []
    described = types.Log2(bits, signed, least, np.array([scale], F32))
    exponent = np.frexp(np.abs(rows))[1] - 1
    code = np.where(rows == 0, 0, np.sign(rows) * (exponent - least + 1)).astype(np.int8 if signed else np.uint8)
    return [Found(code.reshape(shape), types.make_type(described), bits, f"powers of two, {bits} bits per tensor")]


def _affine_weight(constant: Any) -> Found | None:
    """A narrower type for an affine weight, or None."""
    kind = ir.RankedTensorType(constant.results[0].type)
    a, stored = element_types.affine(kind), constant_array(constant.results[0])
    if a is None or stored is None or not stored.size or kind.encoding is not None or stored.ndim < 2:
        return None
    if a.axis not in (None, 0) or a.zero_points.any() or any(user.name != "qcc.dequantize" for user in users(constant.results[0])):
        return None
    rows = stored.reshape(stored.shape[0], -1)
    integers, scales, axis = _divided(rows, a)
    low, high = int(integers.min()), int(integers.max())
    bits = _bits(low, high)
    low, high = _even(low, high, bits)
    if bits >= a.bits:
        return None
    integers = integers.astype(np.int8 if bits <= 8 else np.int16).reshape(stored.shape)
    if a.block is not None:
        block = dict(zip(a.block_axes, a.block, strict=True))
        element = element_types.affine_type(a.scales, 0, bits=bits, qmin=low, qmax=high, block=block)
    else:
        element = element_types.affine_type(scales if axis is not None else scales[0], bits=bits, qmin=low, qmax=high, axis=axis)
    if not np.array_equal(decode(integers, _tensor(stored.shape, element)), decode(stored, kind)):
        return None
    name = {(2, -1, 1): "ternary" if not integers.all() else "binary"}.get((bits, low, high), f"{bits}-bit integers")
    return Found(integers, element, bits, f"{name} in a container of {a.bits} bits")


def _divided(rows: Array, a: Affine) -> tuple[Array, Array, int | None]:
    """`rows` [o, n] without their common divisor (of the tensor, or of each channel where those are worth it), scales and their axis."""
    if a.block is not None or a.bits > 8:
        return rows, a.scales, a.axis
    counts = np.bincount((rows.reshape(-1).astype(np.int16) + 128).astype(np.uint16), minlength=384)
    divisor = int(np.gcd.reduce(np.abs(np.flatnonzero(counts) - 128), initial=0))
    if divisor > 1:
        return rows // divisor, (a.scales * F32(divisor)).astype(F32), a.axis
    few = rows[:: max(1, len(rows) // 8)]
    if (np.gcd.reduce(np.abs(few.astype(np.int16)), axis=1) == 1).any():
        return rows, a.scales, a.axis
    each = np.gcd.reduce(np.abs(rows.astype(np.int16)), axis=1)
    each = np.where(each == 0, 1, each)
    return rows // each[:, None], (a.scales * each.astype(F32)).astype(F32), 0
