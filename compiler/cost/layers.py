"""What each layer of a model computes and moves: counted on the integer form, before any target is chosen.

Counts are per inference (the whole batch). A layer is an operation that has arithmetic of its own; requantize, views
and constants belong to the layer whose accumulator they finish.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from qcc.compiler.cost.weight_format import weight_format
from qcc.dialects import compressed_types, element_types, weights
from qcc.dialects.mlir import ir, layer_name, python_value, walk
from qcc.dialects.real_values import decode

COMPUTE = ("qcc.conv2d", "qcc.linear", "qcc.dynamic_linear", "qcc.matmul", "qcc.attention")
MOVEMENT = (
    "qcc.constant", "qcc.read_state", "qcc.write_state", "qcc.reshape", "qcc.transpose", "qcc.slice", "qcc.broadcast", "arith.constant",
    "func.func", "func.return",
)  # fmt: skip


@dataclass(frozen=True)
class LayerCount:
    """One layer. Bits are per element, sizes in bytes as stored after packing to whole bits, `macs` multiply-accumulates."""

    name: str
    op: str
    output_shape: tuple[int, ...]
    weight_bits: int
    activation_bits: int
    accumulator_bits: int
    density: float
    weights: int
    macs: int
    nonzero_macs: int
    weight_bytes: int
    input_bytes: int
    output_bytes: int
    generic: str = ""
    entropy_bits: float = 0.0  # order 0, per weight as stored before packing
    arithmetic: str = "int"  # or fp16, fp32: what the layer computes in
    unit_weights: bool = False  # all are -1, 0 or 1, so that products are signs
    weight_format: str = ""  # in words

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def count(module: ir.Module) -> list[LayerCount]:
    """Every layer of the module's @main in program order."""
    main = next(f for f in walk(module, "func.func") if python_value(f.attributes["sym_name"]) == "main")
    found: list[LayerCount] = []
    for op in walk(main):
        if op.name.startswith(("qcc.", "tensor.concat")) and not _belongs_to_another(op):
            found.append(_count(op))
        elif op.name == "func.call":
            found.append(_generic(op, module))
    return found


def _belongs_to_another(op: Any) -> bool:
    """Whether `op` moves, finishes a sum, or decodes the constant weights of the layer that reads it."""
    decodes = op.name == "qcc.dequantize" and _constant(op.operands[0]) is not None
    return op.name in MOVEMENT or op.name == "qcc.requantize" or decodes


def element_bits(kind: ir.Type) -> int:
    """Bits of one stored element of a tensor type."""
    return element_types.bits_of(kind)


def _bytes(kind: ir.Type) -> int:
    return math.ceil(math.prod(ir.RankedTensorType(kind).shape) * element_bits(kind) / 8)


def _constant(value: Any) -> np.ndarray | None:
    """The payload behind an operand that is a constant (through a dequantize), or None."""
    owner = value.owner
    if not isinstance(owner, ir.Operation | ir.OpView):
        return None
    if owner.name == "qcc.dequantize":
        return _constant(owner.operands[0])
    if owner.name != "qcc.constant":
        return None
    return weights.array_of(owner.attributes["value"])


def _weight_type(value: Any) -> ir.Type:
    owner = value.owner
    if isinstance(owner, ir.Operation | ir.OpView) and owner.name == "qcc.dequantize":
        return owner.operands[0].type
    return value.type


def _count(op: Any) -> LayerCount:
    result = op.results[0]
    shape = tuple(ir.RankedTensorType(result.type).shape)
    macs, density, stored, weight_bits, weight_bytes, entropy, unit, words = _macs(op, shape), 1.0, 0, 0, 0, 0.0, False, ""
    inputs = list(op.operands)
    if op.name in COMPUTE[:-1] and (payload := _constant(op.operands[1])) is not None:
        kind = _weight_type(op.operands[1])
        stored, weight_bits, weight_bytes = payload.size, element_bits(kind), _bytes(kind)
        density = float(np.count_nonzero(_magnitudes(payload, kind))) / max(payload.size, 1)
        entropy, unit = _entropy_bits(payload), payload.dtype.kind == "i" and bool((np.abs(payload.astype(np.int32)) <= 1).all())
        inputs, words = inputs[:1], weight_format(ir.RankedTensorType(kind))
    within = op.name == "qcc.dynamic_linear"  # quantizes its input to bytes and adds up in 32 bits
    return LayerCount(
        name=layer_name(op.location),
        op=op.name.removeprefix("qcc."),
        output_shape=shape,
        weight_bits=weight_bits,
        activation_bits=8 if within else element_bits(op.operands[0].type) if len(op.operands) else 0,
        accumulator_bits=32 if within else element_bits(result.type),
        density=density,
        weights=stored,
        macs=macs,
        nonzero_macs=round(macs * density),
        weight_bytes=weight_bytes,
        input_bytes=sum(_bytes(v.type) for v in inputs),
        output_bytes=_bytes(_finished(result).type),
        entropy_bits=entropy,
        arithmetic="int" if within else _arithmetic(result.type),
        unit_weights=unit,
        weight_format=words,
    )


def _magnitudes(payload: np.ndarray, kind: ir.Type) -> np.ndarray:
    """An array that is zero where the real values are."""
    a, described = element_types.affine(kind), compressed_types.describe(kind)
    plain = not a.zero_points.any() if a is not None else not isinstance(described, compressed_types.Codebook | compressed_types.Minifloat)
    return payload if plain else decode(payload, ir.RankedTensorType(kind))


def _arithmetic(kind: ir.Type) -> str:
    element = ir.RankedTensorType(kind).element_type
    if isinstance(element, ir.FloatType):
        return "fp16" if element.width <= 16 else "fp32"
    return "int"


def _entropy_bits(payload: np.ndarray) -> float:
    """Order-0 entropy in bits per element, of up to 16 bits; 0 for wider ones, whose values hardly repeat."""
    if payload.dtype.itemsize > 2:
        return 0.0
    counts = np.bincount(payload.reshape(-1).view(f"u{payload.dtype.itemsize}"))
    p = counts[counts > 0] / max(payload.size, 1)
    return float(-(p * np.log2(p)).sum())


def _finished(value: Any) -> Any:
    """The value that leaves the layer: behind the requantize or dequantize that alone uses an accumulator."""
    uses = list(value.uses)
    if len(uses) == 1 and uses[0].owner.name in ("qcc.requantize", "qcc.dequantize"):
        return uses[0].owner.results[0]
    return value


def _macs(op: Any, shape: tuple[int, ...]) -> int:
    if op.name not in COMPUTE:
        return 0
    operands = [tuple(ir.RankedTensorType(v.type).shape) for v in op.operands]
    if op.name == "qcc.attention":
        q, k, v = operands[:3]
        return math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])
    per_output = math.prod(operands[1][1:]) if op.name == "qcc.conv2d" else operands[0][-1]
    return math.prod(shape) * per_output


def _generic(op: Any, module: ir.Module) -> LayerCount:
    callee = python_value(op.attributes["callee"])
    body = next(f for f in walk(module, "func.func") if python_value(f.attributes["sym_name"]) == callee)
    reason = python_value(body.attributes["qcc.generic"]) if "qcc.generic" in body.attributes else callee
    results = [r.type for r in op.results]
    shape = tuple(ir.RankedTensorType(results[0]).shape) if results else ()
    return LayerCount(
        name=layer_name(op.location) or callee, op="generic", output_shape=shape, weight_bits=0, activation_bits=32, accumulator_bits=32,
        density=1.0, weights=0, macs=0, nonzero_macs=0, weight_bytes=0, input_bytes=sum(_bytes(v.type) for v in op.operands),
        output_bytes=sum(_bytes(t) for t in results), generic=reason,
    )  # fmt: skip
