"""Rules for quantization: PT2E's quantize and dequantize pairs, and fake quantization.

A range `[quant_min, quant_max]` decides the width, not the container: [-8, 7] in int8 is a 4-bit type, [0, 127] in uint8 a 7-bit one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qcc.dialects import element_types, weights
from qcc.dialects.mlir import error_at, ir
from qcc.passes.graph._torch_reader import Reader, axis_of, like, owner, require, rule

DECOMPOSED = "torch.quantized_decomposed."


def quantized_element(
    r: Reader, scale: np.ndarray, zero: np.ndarray, qmin: int, qmax: int, axis: int | None, block: dict[int, int] | None = None
) -> ir.Type:
    """`!quant.uniform` for a range; raises QccError where scale or range make no sense, declines above 16 bits."""
    if qmin >= qmax:
        raise error_at(r.op, f"quant_min is {qmin} and quant_max {qmax}, expected quant_min below quant_max")
    narrow = scale.astype(np.float32)
    if not np.isfinite(narrow).all() or not (narrow > 0).all():
        bad = narrow[~(np.isfinite(narrow) & (narrow > 0))][0]
        raise error_at(r.op, f"found a scale of {bad}, expected finite scales above zero; calibrate the model again")
    least, most = min(qmin, int(zero.min())), max(qmax, int(zero.max()))  # a zero point may lie outside of the range
    signed = least < 0
    bits = max(most.bit_length(), (-least - 1).bit_length()) + 1 if signed else most.bit_length()
    require(bits <= 16, f"{bits}-bit integers")
    if block is not None:
        return element_types.affine_type(narrow, zero, bits=bits, signed=signed, qmin=qmin, qmax=qmax, block=block)
    if axis is None:
        return element_types.affine_type(narrow.reshape(-1)[0], int(zero.reshape(-1)[0]), bits=bits, signed=signed, qmin=qmin, qmax=qmax)
    return element_types.affine_type(narrow, zero.astype(np.int64), bits=bits, signed=signed, qmin=qmin, qmax=qmax, axis=axis)


def _per_tensor(r: Reader, op: Any) -> ir.Type:
    _, scale, zero, qmin, qmax = list(op.operands)[:5]
    return quantized_element(r, np.array([_value(r, scale)]), np.array([_value(r, zero)]), r.integer(qmin), r.integer(qmax), None)


def _per_channel(r: Reader, op: Any) -> ir.Type:
    x, scales, zeros, axis, qmin, qmax = list(op.operands)[:6]
    at = axis_of(r.integer(axis), len(r.shape(x)), op)
    s = r.array(scales)
    z = np.zeros(s.shape, np.int64) if r.is_none(zeros) else np.rint(r.array(zeros)).astype(np.int64)
    if s.size != r.shape(x)[at]:
        raise error_at(op, f"found {s.size} scales for {r.shape(x)[at]} channels, expected one per index of axis {at}")
    return quantized_element(r, s, z, r.integer(qmin), r.integer(qmax), at)


def _per_group(r: Reader, op: Any) -> ir.Type:
    """One scale per output channel and group of `group_size` neighbours along the input: scales [out, in / group_size]."""
    x, scales, zeros, qmin, qmax, _, size = list(op.operands)[:7]
    s, shape = r.array(scales), r.shape(x)
    require(len(shape) == 2, "groups in a tensor of another rank than two")
    counts = [shape[0], shape[1] // r.integer(size)]
    if s.size != counts[0] * counts[1]:
        raise error_at(op, f"found {s.size} scales for {counts[0]} channels of {counts[1]} groups, expected one for each")
    z = np.zeros(s.shape, np.int64) if r.is_none(zeros) else np.rint(r.array(zeros)).astype(np.int64)
    blocks = {0: 1, 1: r.integer(size)}
    return quantized_element(r, s.reshape(counts), z.reshape(counts), r.integer(qmin), r.integer(qmax), None, blocks)


def _element_of(r: Reader, op: Any) -> ir.Type:
    """The quantized type that an operation of `quantized_decomposed` states."""
    if op.name.endswith("_group"):
        return _per_group(r, op)
    return _per_channel(r, op) if "per_channel" in op.name else _per_tensor(r, op)


def _value(r: Reader, value: Any) -> float:
    """A scale or zero point: a scalar constant or a constant tensor of one element."""
    known = r.known(value)
    return float(known.reshape(-1)[0]) if known is not None and known.size else r.number(value)


@rule(f"{DECOMPOSED}quantize_per_tensor", f"{DECOMPOSED}quantize_per_tensor.tensor", f"{DECOMPOSED}quantize_per_channel")
def _quantize(r: Reader, op: Any) -> Sequence[Any]:
    """The integers have no tensor type of their own in qcc, so all uses are rewritten together with the quantize."""
    r.f32(op.operands[0])
    element = _element_of(r, op)
    users = [use.owner for use in op.results[0].uses]
    for user in users:
        require(user.operation.name.startswith(f"{DECOMPOSED}dequantize"), "the quantized integers are used as numbers")
        require(_same_parameters(r, op, user), "dequantized with other parameters")
    kind = r.type(op.operands[0])
    q = r.make("qcc.quantize", [r.builtin(op.operands[0])], like(kind, list(kind.shape), element))
    for user in users:
        r.replace_early(user.operation, r.make("qcc.dequantize", [q], r.type(user.operation.results[0])))
    return []


def _same_parameters(r: Reader, quantize: Any, dequantize: Any) -> bool:
    count = 6 if "per_channel" in quantize.name else 5
    if ("per_channel" in quantize.name) != ("per_channel" in dequantize.operation.name):
        return False
    pairs = zip(list(quantize.operands)[1:count], list(dequantize.operation.operands)[1:count], strict=True)
    return all(a == b or _constant_of(r, a) == _constant_of(r, b) for a, b in pairs)


def _constant_of(r: Reader, value: Any) -> Any:
    known = r.known(value)
    return known.reshape(-1).tolist() if known is not None else [r.optional(value)]


@rule(
    f"{DECOMPOSED}dequantize_per_tensor",
    f"{DECOMPOSED}dequantize_per_tensor.tensor",
    f"{DECOMPOSED}dequantize_per_channel",
    f"{DECOMPOSED}dequantize_per_channel_group",
)
def _dequantize(r: Reader, op: Any) -> Sequence[Any]:
    """Of a constant: a typed qcc.constant. Those of a quantize were rewritten with it."""
    x, result = op.operands[0], r.type(op.results[0])
    r.f32(op.results[0])
    payload = r.known(x)
    require(payload is not None, "the integers are computed at run time")
    assert payload is not None
    if payload.dtype.itemsize > 2:  # a 32-bit bias: its real value is what the graph form wants
        return [r.constant(_real(r, op, payload))]
    element = _element_of(r, op)
    kind = like(result, list(result.shape), element)
    affine = element_types.affine(kind)
    assert affine is not None
    if payload.size and not affine.qmin <= int(payload.min()) <= int(payload.max()) <= affine.qmax:
        raise error_at(op, f"the integers reach {int(payload.min())}..{int(payload.max())}, expected "
                           f"{affine.qmin}..{affine.qmax} as quant_min and quant_max say")  # fmt: skip
    stored = payload.astype(element_types.storage_dtype(kind), copy=False)
    attribute = weights.constant_attribute(stored, constant_name(x))
    c = r.make("qcc.constant", [], kind, value=attribute)
    return [r.make("qcc.dequantize", [c], result)]


def _real(r: Reader, op: Any, payload: np.ndarray) -> np.ndarray:
    shape = [1] * payload.ndim
    if "per_channel" in op.name:
        shape[axis_of(r.integer(op.operands[3]), payload.ndim, op)] = -1
        scale, zero = r.array(op.operands[1]).reshape(shape), r.array(op.operands[2]).reshape(shape)
    else:
        scale, zero = np.asarray(_value(r, op.operands[1])), np.asarray(_value(r, op.operands[2]))
    return ((payload - zero).astype(np.float32) * scale.astype(np.float32)).astype(np.float32)


def constant_name(value: Any) -> str:
    """Name of the parameter behind a torch literal, from its location."""
    op = owner(value)
    return str(op.location.name_str) if op is not None and isinstance(op.location, ir.NameLoc) else ""


@rule("torch.aten.fake_quantize_per_tensor_affine", "torch.aten.fake_quantize_per_tensor_affine_cachemask",
      "torch.aten.fake_quantize_per_tensor_affine.tensor_qparams")  # fmt: skip
def _fake_per_tensor(r: Reader, op: Any) -> Sequence[Any]:
    return _fake(r, op, _per_tensor(r, op))


@rule("torch.aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams")
def _fake_per_tensor_enabled(r: Reader, op: Any) -> Sequence[Any]:
    _, scale, zero, enabled, qmin, qmax = op.operands
    if not _value(r, enabled):
        r.only_first_result()
        return [r.builtin(op.operands[0])]
    element = quantized_element(r, np.array([_value(r, scale)]), np.array([_value(r, zero)]), r.integer(qmin), r.integer(qmax), None)
    return _fake(r, op, element)


@rule("torch.aten.fake_quantize_per_channel_affine", "torch.aten.fake_quantize_per_channel_affine_cachemask")
def _fake_per_channel(r: Reader, op: Any) -> Sequence[Any]:
    return _fake(r, op, _per_channel(r, op))


def _fake(r: Reader, op: Any, element: ir.Type) -> Sequence[Any]:
    x = op.operands[0]
    r.f32(x)
    r.only_first_result()
    kind = r.type(x)
    q = r.make("qcc.quantize", [r.builtin(x)], like(kind, list(kind.shape), element))
    return [r.make("qcc.dequantize", [q], kind)]
