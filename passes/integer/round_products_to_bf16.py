"""Let the float products of a model multiply bfloat16 numbers: their operands are rounded, their sums stay f32.

Before:

    %y = qcc.linear %x, %w                     // all f32

After:

    %r = qcc.unary %x {kind = "round_bf16"}
    %y = qcc.linear %r, %v                     // %v is %w rounded

The operands of qcc.conv2d, qcc.linear and qcc.matmul are rounded to the nearest bfloat16, half to even, where they are made (in front of
reshapes, transposes, slices and concatenations), and every other operation that reads such a value reads the rounded one, so that only one
is stored.
What @main returns stays unrounded. Attention of more than a few queries becomes its two products and the softmax between them, so that
they are products like others; that of a few, whose time is that of reading keys and values, stays in f32, and so do weight-only linear
layers, which stream their stored weights.

Requires: integer form; option `enabled`, without which nothing changes.
Guarantees: both operands of every f32 product hold bfloat16 values, in f32 containers: storing them in two bytes loses nothing, and a
product of two is exact in f32. So results differ between targets by the order and rounding of f32 sums only (AMX adds even and odd
products of a step apart; AMX and vdpbf16ps take denormals as zero).
Why: half the bytes of weights, and the one float format AMX multiplies (Kalamkar et al., "A Study of BFLOAT16 for Deep Learning Training",
2019); compiler/decisions/0006.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.dialects import shapes, weights
from qcc.dialects.attention_codelet import MOST_QUERIES
from qcc.dialects.element_types import are_bfloat16
from qcc.dialects.mlir import create, ir, layer_name, op_attribute, replace_op, walk
from qcc.dialects.real_values import decode
from qcc.dialects.unary_functions import unary
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import VIEWS, constant_array, dequantized, make_float_constant, producer, shape_of

PRODUCTS = ("qcc.conv2d", "qcc.linear", "qcc.matmul")


@dataclass(frozen=True)
class Options:
    """`enabled`: whether to do anything."""

    enabled: bool = True


class RoundProductsToBf16Pass(Pass):
    """See the module's docstring."""

    name = "round-products-to-bf16"
    Options = Options

    def run(self, module: ir.Module, context: PassContext) -> None:
        if not self.options.enabled:
            return
        for op in list(walk(module, "qcc.attention")):
            if shape_of(op.operands[0])[-2] > MOST_QUERIES and all(_is_f32(v) for v in op.operands):
                _separate(op)
        rounded: dict[Any, Any] = {}
        for op in list(walk(module)):
            if op.name == "qcc.conv2d":
                _decode_weights(op)
            if op.name in PRODUCTS and not _streams(op) and all(_is_f32(v) for v in list(op.operands)[:2]):
                for i in range(2):
                    sources = _sources(op.operands[i])
                    if i == 1 and op.name == "qcc.conv2d" and _compressed(op) is not None:
                        continue  # of bfloat16 values already
                    if any(constant_array(value) is not None for value in sources):
                        op.operands[i] = _rounded_constant(op, op.operands[i])
                        continue
                    for value in sources:
                        if value not in rounded and not _is_rounded(value):
                            rounded[value] = _round(value)


def _separate(op: Any) -> None:
    """softmax(q k^T * scale + mask) v as operations of their own."""
    q, k, v, *terms = op.operands
    *batch, keys, depth = shape_of(k)

    def make(name: str, operands: list[Any], shape: list[int], **attributes: Any) -> Any:
        kind = ir.RankedTensorType.get(shape, ir.F32Type.get())
        return create(name, operands, [kind], attributes, loc=op.location, ip=ir.InsertionPoint(op)).results[0]

    turned = make("qcc.transpose", [k], [*batch, depth, keys], permutation=[*range(len(batch)), len(batch) + 1, len(batch)])
    shape = [*_together(shape_of(q)[:-2], batch), shape_of(q)[-2], keys]
    scores = make("qcc.matmul", [q, turned], shape)
    scores = make("qcc.mul", [scores, make_float_constant(np.array([op_attribute(op, "scale")]), op)], shape)
    if op_attribute(op, "causal"):
        later = np.where(np.tri(*shape[-2:], dtype=np.bool_), 0, -np.inf)
        terms.append(make_float_constant(later, op))
    for term in terms:
        shape = _together(shape, shape_of(term))
        scores = make("qcc.add", [scores, term], shape)
    softmax = make("qcc.softmax", [scores], shape, axis=len(shape) - 1)
    replace_op(op, [make("qcc.matmul", [softmax, v], shape_of(op.results[0]))])


def _together(*given: list[int]) -> list[int]:
    found = shapes.broadcast(*given)
    assert found is not None, "the operation was verified"
    return found


def _streams(op: Any) -> bool:
    """Whether `op` is a weight-only linear layer, whose stored weights are decoded on the way."""
    return op.name == "qcc.linear" and _compressed(op) is not None


def _compressed(op: Any) -> Any:
    """The constant whose real values are the weights of `op`, or None."""
    stored = dequantized(op.operands[1])
    return None if stored is None or constant_array(stored) is None else stored


def _decode_weights(op: Any) -> None:
    """Float weights for convolution `op` where the real values of its compressed ones are no bfloat16."""
    if (stored := _compressed(op)) is not None and _is_f32(op.operands[0]):
        array = constant_array(stored)
        assert array is not None
        real = decode(array, ir.RankedTensorType(stored.type))
        if not are_bfloat16(real):
            op.operands[1] = make_float_constant(real, op, name=layer_name(op.location))


def _is_f32(value: Any) -> bool:
    return str(ir.RankedTensorType(value.type).element_type) == "f32"


def _is_rounded(value: Any) -> bool:
    op = producer(value, "qcc.unary")
    return op is not None and op_attribute(op, "kind") == "round_bf16"


def _sources(value: Any) -> list[Any]:
    """What views and concatenations show."""
    op = producer(value, *VIEWS, "tensor.concat")
    return [value] if op is None else [source for operand in op.operands for source in _sources(operand)]


def _rounded_constant(op: Any, value: Any) -> Any:
    """A constant with the rounded numbers of `value`, which is a constant; a view of one is rounded as it is read."""
    array = constant_array(value)
    if array is None:
        return _rounding(value, op.location, ir.InsertionPoint(op))
    name = layer_name(op.location) or "weights"
    attributes = {"value": weights.constant_attribute(unary("round_bf16", array).astype(np.float32), name)}
    return create("qcc.constant", [], [value.type], attributes, loc=op.location, ip=ir.InsertionPoint(op)).results[0]


def _round(value: Any) -> Any:
    """Round `value` where it is made and let everything but @main's results read that."""
    uses = [(use.owner.operation, use.operand_number) for use in value.uses]
    if isinstance(value.owner, ir.Block):
        ip, location = ir.InsertionPoint.at_block_begin(value.owner), uses[0][0].location
    else:
        ip, location = ir.InsertionPoint.after(value.owner.operation), value.owner.location
    made = _rounding(value, location, ip)
    for user, number in uses:
        if user.name != "func.return":
            user.operands[number] = made
    return made


def _rounding(value: Any, location: Any, ip: Any) -> Any:
    return create("qcc.unary", [value], [value.type], {"kind": "round_bf16"}, loc=location, ip=ip).results[0]
