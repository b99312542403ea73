"""QONNX's operators: Quant, BipolarQuant, Trunc and FloatQuant, which Brevitas exports.

Pappalardo et al., "QONNX: Representing Arbitrary-Precision Quantized Neural Networks", 2022; Trunc and FloatQuant as the qonnx package 1.0
defines them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import ml_dtypes
import numpy as np

from qcc.compiler.frontend.onnx_expansion import Expansion
from qcc.compiler.frontend.onnx_graph import attributes, error_at_node

DOMAINS = ("qonnx.custom_op.general", "finn.custom_op.general", "qonnx.custom_op.channels_last", "onnx.brevitas", "qonnx", "finn")
GREATEST_BITS = 16  # of a run-time value; constants (biases) go to 32
MOST_BINADES = 32  # of a small float that a run-time value is rounded to step by step

_FP8 = {(4.0, 3.0, 7.0, 448.0): ml_dtypes.float8_e4m3fn, (5.0, 2.0, 15.0, 57344.0): ml_dtypes.float8_e5m2}
"""ONNX's types by exponent bits, mantissa bits, exponent bias and greatest value."""

_ROUNDING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ROUND": np.rint,
    "HALF_EVEN": np.rint,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "ROUND_TO_ZERO": np.trunc,
    "UP": lambda v: np.sign(v) * np.ceil(np.abs(v)),
    "DOWN": np.trunc,
    "HALF_UP": lambda v: np.sign(v) * np.floor(np.abs(v) + 0.5),
    "HALF_DOWN": lambda v: np.sign(v) * np.ceil(np.abs(v) - 0.5),
}
_OPERATORS = {"ROUND": "Round", "HALF_EVEN": "Round", "CEIL": "Ceil", "FLOOR": "Floor"}  # of ONNX, for run-time values
_OF_MAGNITUDES = {"ROUND_TO_ZERO": ("Floor", 0.0), "DOWN": ("Floor", 0.0), "UP": ("Ceil", 0.0), "HALF_UP": ("Floor", 0.5),
                  "HALF_DOWN": ("Ceil", -0.5)}  # fmt: skip
"""Modes that treat both signs alike: the operator, and what is added to a magnitude before it."""


def _rounding_mode(e: Expansion, default: str) -> str:
    found = str(attributes(e.source).get("rounding_mode", default)).upper()
    if found not in _ROUNDING:
        raise error_at_node(e.source, f"rounding_mode of {e.source.op_type} is {found}, expected one of {', '.join(_ROUNDING)}")
    return found


def _rounded(e: Expansion, x: str, mode: str) -> str:
    """`x` rounded to whole numbers by ONNX's operators."""
    if mode in _OPERATORS:
        return e.add(_OPERATORS[mode], [x])
    operator, added = _OF_MAGNITUDES[mode]
    size = e.add("Abs", [x])
    return e.add("Mul", [e.add("Sign", [x]), e.add(operator, [e.add("Add", [size, _constant(e, added)]) if added else size])])


def _stored(e: Expansion, x: str, scale: np.ndarray, zero: np.ndarray) -> str:
    """x / scale + zero point."""
    return e.add("Add", [e.add("Div", [x, _constant(e, scale)]), _constant(e, zero)])


def _constant(e: Expansion, value: np.ndarray | float) -> str:
    return e.graph.constant(np.asarray(value, np.float32), f"{e.name}.constant")


def _quant(e: Expansion) -> None:
    """Quant(x, scale, zero_point, bit_width): (clip(round(x / scale + zero_point)) - zero_point) * scale."""
    given = attributes(e.source)
    signed, narrow = bool(given.get("signed", 1)), bool(given.get("narrow", 0))
    bits = _bit_width(e, 3)
    scale, zero = e.constant_input(1, "the scale"), e.constant_input(2, "the zero point")
    if not np.array_equal(zero, np.rint(zero)):
        raise error_at_node(e.source, f"the zero point of Quant is {zero.reshape(-1)[0]}, expected an integer")
    rounding = _rounding_mode(e, "ROUND")
    low = (-(1 << (bits - 1)) + narrow) if signed else 0
    high = (1 << (bits - 1)) - 1 if signed else (1 << bits) - 1 - narrow
    x = e.graph.array(e.input(0))
    if x is not None:
        rounded = _ROUNDING[rounding](x / scale.astype(np.float32) + zero.astype(np.float32))
        e.fake_quantize(np.clip(rounded, low, high), scale, zero, bits, signed, narrow)
        return
    if bits > GREATEST_BITS:
        raise error_at_node(e.source, f"Quant has bit width {bits} on a run-time value, expected 1 to {GREATEST_BITS}")
    of = ""
    if rounding not in ("ROUND", "HALF_EVEN"):  # what is a level already is rounded to itself
        stored = _rounded(e, _stored(e, e.input(0), scale, zero), rounding)
        of = e.add("Mul", [e.add("Sub", [stored, _constant(e, zero)]), _constant(e, scale)])
    e.fake_quantize(None, scale, zero, bits, signed, narrow, of=of)


def _bipolar_quant(e: Expansion) -> None:
    """BipolarQuant(x, scale): scale where x >= 0, else -scale; stored as the narrow 2-bit integers -1 and 1."""
    scale = e.constant_input(1, "the scale")
    zero = np.zeros((), np.float32)
    x = e.graph.array(e.input(0))
    if x is not None:
        e.fake_quantize(np.where(x >= 0, 1, -1), scale, zero, 2, True, True)
        return
    positive, negative = (e.graph.constant(v.astype(np.float32), f"{e.name}.level") for v in (scale, -scale))
    above = e.add("GreaterOrEqual", [e.input(0), e.graph.constant(np.zeros((), np.float32), f"{e.name}.threshold")])
    e.fake_quantize(None, scale, zero, 2, True, True, of=e.add("Where", [above, positive, negative]))


def _trunc(e: Expansion) -> None:
    """Trunc(x, scale, zero_point, input_bit_width, output_scale, output_bit_width): the upper bits of quantized x.

    Version 1 has no `output_scale`: the integers become 2^(input bits - output bits) times smaller while their scale stays.
    """
    given, first = attributes(e.source), len(e.source.input) == 5
    scale, zero = e.constant_input(1, "the scale"), e.constant_input(2, "the zero point")
    out_scale = scale if first else e.constant_input(4, "the output scale")
    if first:
        shift = float(_bit_width(e, 3) - _bit_width(e, 4))
    else:
        shift = np.rint(np.log2(out_scale.astype(np.float64) / scale))
    signed, narrow, bits = bool(given.get("signed", 1)), bool(given.get("narrow", 0)), _bit_width(e, 4 if first else 5)
    mode = _rounding_mode(e, "FLOOR")
    if first:  # does not say whether there is a sign, nor cut what is rounded up to one more
        signed, narrow, bits = True, False, bits + (1 if mode in ("FLOOR", "DOWN", "ROUND_TO_ZERO") else 2)
    parts = np.asarray(2.0**shift)
    out_zero = np.asarray(zero if first else zero / parts)
    if not np.array_equal(out_zero, np.rint(out_zero)):
        raise error_at_node(e.source, f"the zero point of Trunc becomes {out_zero.reshape(-1)[0]}, expected an integer")
    whole = e.add("Round", [_stored(e, e.input(0), scale, zero)])
    upper = _rounded(e, e.add("Div", [whole, _constant(e, parts)]), mode)
    real = e.add("Mul", [e.add("Sub", [upper, _constant(e, out_zero)]), _constant(e, out_scale)])
    e.fake_quantize(None, out_scale, out_zero, bits, signed, narrow, of=real)


def _float_quant(e: Expansion) -> None:
    """FloatQuant(x, scale, exponent_bits, mantissa_bits, exponent_bias, max_value): the nearest small float times scale, saturating.

    Of a run-time value FP8 is ONNX's own; of others every binade is one rounding to steps of its own.
    """
    scale = e.constant_input(1, "the scale").astype(np.float32)
    names = ("the exponent's width", "the mantissa's width", "the exponent bias", "the greatest value")
    exponent, mantissa, bias, most = (float(e.constant_input(2 + i, name).reshape(-1)[0]) for i, name in enumerate(names))
    if not all(v == int(v) for v in (exponent, mantissa, bias)):
        found = [exponent, mantissa, bias]
        raise error_at_node(e.source, f"exponent bits, mantissa bits and bias of FloatQuant are {found}, expected whole numbers")
    mode = _rounding_mode(e, "ROUND")
    most = min(most, (2 - 2.0**-mantissa) * 2.0 ** (2**exponent - 1 - bias))
    least = int(1 - bias)  # exponent of the least binade, and of what is below it
    x = e.graph.array(e.input(0))
    if x is not None:
        real = np.asarray(x / scale, np.float32)
        step = np.ldexp(np.float32(1), np.maximum(np.frexp(real)[1] - 1, least) - int(mantissa)).astype(np.float32)
        rounded = _ROUNDING[mode](real / step) * step
        if (np.abs(rounded) > most).any() and not attributes(e.source).get("saturation", 1):
            raise error_at_node(e.source, f"a weight of FloatQuant is greater than {most:g}, expected saturation = 1")
        _small_floats(e, np.clip(rounded, -most, most), scale)
        return
    if not attributes(e.source).get("saturation", 1):
        raise error_at_node(e.source, "FloatQuant of a run-time value has saturation = 0, expected 1")
    dtype = _FP8.get((exponent, mantissa, bias, most))
    if dtype is not None and _ROUNDING[mode] is np.rint and scale.size == 1:
        parameters = (_constant(e, scale.reshape(())), e.graph.constant(np.zeros((), dtype), f"{e.name}.zero_point"))
        e.add("DequantizeLinear", [e.quantize(e.input(0), *parameters), *parameters], e.source.output[0])
        return
    real = e.add("Div", [e.input(0), _constant(e, scale)])
    limited = e.add("Clip", [real, _constant(e, -most), _constant(e, most)])
    exponents = range(least, math.frexp(most)[1])
    if len(exponents) > MOST_BINADES:
        raise error_at_node(e.source, f"FloatQuant rounds a run-time value to {exponent:g} exponent bits, expected at most 5")
    rounded = e.add("Clip", [_by_binades(e, limited, exponents, int(mantissa), mode), _constant(e, -most), _constant(e, most)])
    e.add("Mul", [rounded, _constant(e, scale)], e.source.output[0])


def _small_floats(e: Expansion, values: np.ndarray, scale: np.ndarray) -> None:
    """Constant `values` times `scale`: stored in the 8 bits of an ONNX type that holds them all, else in 32."""
    axes = [i - scale.ndim for i, size in enumerate(scale.shape) if size != 1]
    for dtype in _FP8.values():
        stored = values.astype(dtype)
        if len(axes) <= 1 and np.array_equal(stored.astype(np.float32), values):
            names = [e.graph.constant(stored, f"{e.name}.weight"), e.graph.constant(scale.reshape([-1] * len(axes)), f"{e.name}.scale")]
            e.add("DequantizeLinear", names, e.source.output[0], axis=axes[0] if axes else None)
            return
    e.add("Identity", [_constant(e, values * scale)], e.source.output[0])


def _by_binades(e: Expansion, x: str, exponents: range, mantissa: int, mode: str) -> str:
    """x to `mantissa` bits behind its first one; below the first of `exponents` in that one's steps."""
    size, found = e.add("Abs", [x]), ""
    for exponent in exponents:
        step = _constant(e, 2.0 ** (exponent - mantissa))
        rounded = e.add("Mul", [_rounded(e, e.add("Div", [x, step]), mode), step])
        above = "" if not found else e.add("GreaterOrEqual", [size, _constant(e, 2.0**exponent)])
        found = rounded if not found else e.add("Where", [above, rounded, found])
    return found


def _bit_width(e: Expansion, index: int) -> int:
    width = e.constant_input(index, "the bit width").reshape(-1)
    if width.size != 1 or width[0] != int(width[0]) or not 1 <= int(width[0]) <= 32:
        raise error_at_node(e.source, f"the bit width of {e.source.op_type} is {width.tolist()}, expected one whole number from 1 to 32")
    return int(width[0])


RULES: dict[str, Callable[[Expansion], None]] = {
    "Quant": _quant,
    "IntQuant": _quant,
    "BipolarQuant": _bipolar_quant,
    "Trunc": _trunc,
    "FloatQuant": _float_quant,
}
