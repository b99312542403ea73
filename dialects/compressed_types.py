"""Element types of `!qcc`: levels (binary, ternary, powers of two, codebooks) and small floats with scales.

Each IRDL class has a description beside it, a frozen dataclass of numpy arrays, which `describe` reads from a type and `make_type` turns
into one. `runtime/reference/formats.py` says in numpy what stored elements mean.

*Scales* (and level tables) are arrays with one entry, or with as many axes as the tensor, where every size divides the tensor's: a tensor
[64, 512] has per-channel scales [64, 1] and groups of 32 have scales [64, 16].
"""

# No `from __future__ import annotations` here: the bindings read annotations as objects.
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qcc.dialects import weights
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import ir, to_attribute
from qcc.dialects.operation import Invalid
from qcc.dialects.qcc import Qcc

INLINE_PARAMETERS = 4096  # arrays up to this size stand in the type's text


class BinaryType(Qcc.Type, name="binary"):
    """{-a, a}: BinaryConnect, BWN, XNOR-Net."""

    scales: Any


class TernaryType(Qcc.Type, name="ternary"):
    """{-negative, 0, positive}: TWN, TTQ."""

    negative: Any
    positive: Any


class Log2Type(Qcc.Type, name="log2"):
    """0 and +-2^e: LogNet."""

    bits: Any
    signed: Any
    least: Any
    scales: Any


class CodebookType(Qcc.Type, name="codebook"):
    """An index into K levels: weight sharing, NF4."""

    levels: Any
    scales: Any


class ScaledType(Qcc.Type, name="scaled"):
    """A builtin float times a scale."""

    element: Any
    scales: Any


class BlockscaledType(Qcc.Type, name="blockscaled"):
    """A builtin float (or i8) times the scale of its block: OCP microscaling (MX) formats v1.0, NVFP4."""

    element: Any
    block: Any
    scales: Any


class MinifloatType(Qcc.Type, name="minifloat"):
    """A float of any exponent and mantissa width times a scale."""

    exponent: Any
    mantissa: Any
    bias: Any
    special: Any
    scales: Any


@dataclass(frozen=True, eq=False)
class Binary:
    """stored -1 or 1 (i8); real = stored * scale. 1 bit."""

    scales: np.ndarray

    bits = 1


@dataclass(frozen=True, eq=False)
class Ternary:
    """stored -1, 0, 1 (i8); real = -negative, 0, positive. 2 bits."""

    negative: np.ndarray
    positive: np.ndarray

    bits = 2

    @property
    def symmetric(self) -> bool:
        return np.array_equal(self.negative, self.positive)


@dataclass(frozen=True, eq=False)
class Log2:
    """stored 0 is 0; stored +-k is +-2^(least + k - 1) * scale, k up to `most`; i8, or u8 where not `signed`."""

    bits: int
    signed: bool
    least: int
    scales: np.ndarray

    @property
    def most(self) -> int:
        return (1 << (self.bits - self.signed)) - 1


@dataclass(frozen=True, eq=False)
class Codebook:
    """real = f32(levels[..., stored]) * scale; stored u8. `levels` [K] for the tensor or [blocks..., K], f32 or integers."""

    levels: np.ndarray
    scales: np.ndarray

    @property
    def bits(self) -> int:
        return max(1, (self.levels.shape[-1] - 1).bit_length())


@dataclass(frozen=True, eq=False)
class Scaled:
    """real = f32(stored) * scale; stored in the numpy dtype of builtin float `element`."""

    element: ir.Type
    scales: np.ndarray

    @property
    def bits(self) -> int:
        return self.element.width


@dataclass(frozen=True, eq=False)
class Blockscaled:
    """real = f32(stored) * f32(scale of its block), i8 elements being stored * 2^-6 (MXINT8).

    `block` is the size of a block along every axis; `scales` are f8E8M0FNU (powers of two), f8E4M3FN or f32.
    """

    element: ir.Type
    block: tuple[int, ...]
    scales: np.ndarray

    @property
    def bits(self) -> int:
        return self.element.width


@dataclass(frozen=True, eq=False)
class Minifloat:
    """sign, `exponent` and `mantissa` bits as one code (u8, u16 above 8 bits), real = value(code) * scale.

    Exponent field 0 is subnormal. `special` says what the greatest exponent field means: "none" ordinary numbers, "ieee" infinity and NaN,
    "fn" NaN where all mantissa bits are set, else ordinary numbers.
    """

    exponent: int
    mantissa: int
    bias: int
    special: str
    scales: np.ndarray

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.mantissa


Description = Binary | Ternary | Log2 | Codebook | Scaled | Blockscaled | Minifloat


def describe(kind: ir.Type) -> Description | None:
    """The description of a tensor type (or element type), or None where its elements are not one of this file's types."""
    element: Any = kind.element_type if isinstance(kind, ir.RankedTensorType) else kind
    try:
        match element:
            case BinaryType():
                return Binary(_array(element.scales))
            case TernaryType():
                return Ternary(_array(element.negative), _array(element.positive))
            case Log2Type():
                return Log2(_int(element.bits), _bool(element.signed), _int(element.least), _array(element.scales))
            case CodebookType():
                return Codebook(_array(element.levels), _array(element.scales))
            case ScaledType():
                return Scaled(_type(element.element), _array(element.scales))
            case BlockscaledType():
                block = tuple(int(v) for v in ir.DenseI64ArrayAttr(element.block))
                return Blockscaled(_type(element.element), block, _array(element.scales))
            case MinifloatType():
                fields = (_int(element.exponent), _int(element.mantissa), _int(element.bias))
                return Minifloat(*fields, ir.StringAttr(element.special).value, _array(element.scales))
            case _:
                return None
    except ValueError as problem:
        raise Invalid(f"{element} has a parameter of the wrong kind: {problem}; {_form(element)}") from None


def make_type(description: Description) -> ir.Type:
    """The element type of `description`. Needs a current context."""
    match description:
        case Binary():
            return BinaryType.get(parameter(description.scales))
        case Ternary():
            return TernaryType.get(parameter(description.negative), parameter(description.positive))
        case Log2(bits=bits, signed=signed, least=least):
            return Log2Type.get(*(to_attribute(v) for v in (bits, signed, least)), parameter(description.scales))
        case Codebook():
            levels = description.levels
            return CodebookType.get(parameter(levels, levels.dtype), parameter(description.scales))
        case Scaled():
            return ScaledType.get(description.element, parameter(description.scales))
        case Blockscaled(scales=scales):
            return BlockscaledType.get(description.element, to_attribute(description.block), parameter(scales, scales.dtype))
        case Minifloat(exponent=e, mantissa=m, bias=bias, special=special):
            return MinifloatType.get(*(to_attribute(v) for v in (e, m, bias, special)), parameter(description.scales))


def transposed(description: Description, order: Sequence[int]) -> ir.Type:
    """The element type after axis `i` of a tensor of `description` became the old axis `order[i]`."""
    moved: dict[str, Any] = {
        name: values.transpose([*order, *range(len(order), values.ndim)])  # levels have one axis more
        for name, values in vars(description).items()
        if isinstance(values, np.ndarray) and values.ndim >= len(order)
    }
    if isinstance(description, Blockscaled):
        moved["block"] = tuple(description.block[axis] for axis in order)
    return make_type(replace(description, **moved))


def parameter(values: Any, dtype: Any = np.float32) -> ir.Attribute:
    """The elements attribute of a type's scales or levels; large ones become resources."""
    array = np.asarray(values).astype(dtype)
    array = array if array.ndim else array.reshape(1)
    if array.size > INLINE_PARAMETERS:
        return weights.constant_attribute(array, "parameters")
    return weights.inline_attribute(array)


def verify(kind: ir.RankedTensorType) -> None:
    """Raise Invalid where the parameters of `kind`'s element type are out of range or do not fit the tensor's shape."""
    d = describe(kind)
    shape = list(kind.shape)
    match d:
        case None:
            return
        case Ternary():
            _expect_scales(d.negative, shape, "negative level")
            _expect_scales(d.positive, shape, "positive level")
            return
        case Log2():
            _expect(1 + d.signed <= d.bits <= 8, f"log2 has {d.bits} bits, expected {1 + d.signed} to 8")
            _expect(
                -149 <= d.least and d.least + d.most - 1 <= 127,
                f"log2 has exponents {d.least} to {d.least + d.most - 1}, expected -149 to 127",
            )
        case Codebook():
            count = d.levels.shape[-1]
            _expect(2 <= count <= 256, f"codebook has {count} levels, expected 2 to 256")
            _expect(d.levels.dtype.kind in "if", f"codebook has levels of {d.levels.dtype}, expected signed integers or floats")
            _expect(bool(np.isfinite(d.levels.astype(np.float64)).all()), "codebook has a level that is not finite")
            if d.levels.ndim > 1:
                _expect_blocks(d.levels.shape[:-1], shape, "levels")
        case Scaled():
            _expect(isinstance(d.element, ir.FloatType), f"scaled holds {d.element}, expected a builtin float type")
        case Blockscaled():
            known = isinstance(d.element, ir.FloatType) or str(d.element) == "i8"
            _expect(known, f"blockscaled holds {d.element}, expected a builtin float type or i8")
            fits = len(d.block) == len(shape) and all(b > 0 and s % b == 0 for b, s in zip(d.block, shape, strict=True))
            _expect(fits, f"blockscaled has blocks of {list(d.block)}, expected one size per axis that divides {shape}")
            expected = [s // b for b, s in zip(d.block, shape, strict=True)]
            _expect(list(d.scales.shape) == expected, f"blockscaled has scales of shape {list(d.scales.shape)}, expected {expected}")
        case Minifloat():
            _expect(
                d.exponent >= 1 and d.mantissa >= 0 and d.bits <= 16,
                f"minifloat has {d.exponent} exponent and {d.mantissa} mantissa "
                "bits, expected at least 1 exponent bit and at most 16 bits with the sign",
            )
            _expect(d.special in ("none", "ieee", "fn"), f"minifloat has special values '{d.special}', expected none, ieee or fn")
            _expect(not (d.special != "none" and d.mantissa == 0), "minifloat without mantissa bits cannot have NaN, expected special none")
            _expect(
                -149 <= 1 - d.bias - d.mantissa and (1 << d.exponent) - 1 - d.bias <= 127,
                f"minifloat with bias {d.bias} leaves the range of f32",
            )
        case Binary():
            pass
    _expect_scales(d.scales, shape, "scale")


def _expect(holds: bool, message: str) -> None:
    if not holds:
        raise Invalid(message)


def _expect_blocks(sizes: Sequence[int], shape: Sequence[int], what: str) -> None:
    if len(sizes) != len(shape) or any(n < 1 or s % n for n, s in zip(sizes, shape, strict=True)):
        raise Invalid(f"{what} have shape {list(sizes)}, expected one entry, or one size per axis that divides {list(shape)}")


def _expect_scales(scales: np.ndarray, shape: Sequence[int], what: str) -> None:
    values = scales.astype(np.float32)
    bad = values[~(np.isfinite(values) & (values > 0))]
    if bad.size:
        raise Invalid(f"{what} {bad[0]} found, expected positive finite numbers")
    if scales.size != 1:
        _expect_blocks(scales.shape, shape, f"{what}s")


def _form(element: Any) -> str:
    return f"expected !{element.type_name}<{', '.join(f.name for f in type(element)._fields)}>"


def _array(attribute: ir.Attribute) -> np.ndarray:
    attribute = attribute.maybe_downcast()
    if not weights.is_elements(attribute):
        raise ValueError(f"{attribute} is no elements attribute")
    try:
        return weights.array_of(attribute)
    except QccError as problem:
        raise Invalid(problem.message) from None


def _int(attribute: ir.Attribute) -> int:
    return ir.IntegerAttr(attribute).value


def _bool(attribute: ir.Attribute) -> bool:
    return ir.BoolAttr(attribute).value


def _type(attribute: ir.Attribute) -> ir.Type:
    return ir.TypeAttr(attribute).value
