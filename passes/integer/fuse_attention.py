"""fuse-attention: products of a few queries with keys, a softmax and products with values, as exporters write them, become one operation.

Before:
    %t = qcc.transpose %k {permutation = [0, 1, 3, 2]}
    %s = qcc.matmul %q, %t : tensor<1x8x1x32xf32>, tensor<1x8x32x64xf32>
    %f = qcc.mul %s, %scale
    %m = qcc.add %f, %mask
    %w = qcc.softmax %m {axis = 3}
    %y = qcc.matmul %w, %v
After:
    %y = qcc.attention(%q, %k, %v, %mask) {scale = 0.25, causal = false}

Scale and mask may be absent; the scale may be a divisor, or factors of queries and keys. Keys that are not transposed here are transposed
back, which makes a view of them.

Requires: float elements; what is between is used nowhere else.
Guarantees: every product and sum is that of the source, but for rounding where queries or keys have factors.
Why: scores need not go to memory, keys and values are read where they lie, and no further than the mask reaches. Many queries stay
products, which are as fast and may be rounded to bfloat16; so do those of quantized values, which become integer products.
"""

from __future__ import annotations

from typing import Any

from qcc.dialects.attention_codelet import MOST_QUERIES
from qcc.dialects.mlir import create, ir, op_attribute, replace_op, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import MOVEMENT, element_of, erase_dead, producer, retyped, scalar, shape_of, used_once

QUANTIZED = ("qcc.dequantize", "qcc.round_dynamic")


class FuseAttentionPass(Pass):
    name = "fuse-attention"

    def run(self, module: ir.Module, context: PassContext) -> None:
        for op in list(walk(module, "qcc.matmul")):
            _fuse(op)
        erase_dead(module)


def _fuse(op: Any) -> None:
    weights, v = op.operands
    softmax = producer(weights, "qcc.softmax")
    if softmax is None or not used_once(weights) or op_attribute(softmax, "axis") != len(shape_of(weights)) - 1:
        return
    scores, mask = _with_mask(softmax.operands[0])
    scores, scale = _with_scale(scores)
    product = producer(scores, "qcc.matmul")
    if product is None or not used_once(scores) or shape_of(scores) != shape_of(weights) or shape_of(scores)[-2] > MOST_QUERIES:
        return
    (q, of_q), (keys, of_keys) = (_with_scale(x) for x in product.operands)
    if any(not isinstance(element_of(x), ir.F32Type) or _is_quantized(x) for x in (q, keys, v)):
        return
    k = _transposed(op, keys)
    operands = [q, k, v] if mask is None else [q, k, v, mask]
    given = {"scale": scale * of_q * of_keys, "causal": False}
    made = create("qcc.attention", operands, [op.results[0].type], given, loc=softmax.location, ip=ir.InsertionPoint(op))
    replace_op(op, made.results)


def _with_mask(value: Any) -> tuple[Any, Any]:
    """Scores and the term that is added to them, which is not scores of other queries."""
    op = producer(value, "qcc.add")
    if op is None or not used_once(value):
        return value, None
    for scores, mask in (list(op.operands), list(op.operands)[::-1]):
        inner = _with_scale(scores)[0]
        if shape_of(scores) == shape_of(value) and producer(inner, "qcc.matmul") is not None and isinstance(element_of(mask), ir.F32Type):
            return scores, mask
    return value, None


def _with_scale(value: Any) -> tuple[Any, float]:
    """What a number is multiplied with to make `value`, and the number."""
    op = producer(value, "qcc.mul", "qcc.div")
    if op is None or not used_once(value):
        return value, 1.0
    a, b = op.operands
    if (number := scalar(b)) is not None and shape_of(a) == shape_of(value) and number:
        return a, number if op.name == "qcc.mul" else 1 / number
    if op.name == "qcc.mul" and (number := scalar(a)) is not None and shape_of(b) == shape_of(value):
        return b, number
    return value, 1.0


def _is_quantized(value: Any) -> bool:
    """Whether `value` is dequantized, and only moved since."""
    while (op := producer(value, *MOVEMENT)) is not None:
        value = op.operands[0]
    return producer(value, *QUANTIZED) is not None


def _transposed(op: Any, value: Any) -> Any:
    """[.., s, d] of [.., d, s]; the batch axes may have been one where `value` was transposed, as torch writes attention in ONNX."""
    rank = len(shape_of(value))
    order, outer = _swapped(rank), producer(value, "qcc.reshape")
    shape = [shape_of(value)[axis] for axis in order]
    inner = value if outer is None else outer.operands[0]
    maker = producer(inner, "qcc.transpose")
    if maker is None or list(op_attribute(maker, "permutation")) != _swapped(len(shape_of(inner))):
        return _made(op, "qcc.transpose", value, shape, permutation=order)
    source = maker.operands[0]
    if outer is None:
        return source
    if shape_of(inner)[-2:] != shape_of(value)[-2:]:
        return _made(op, "qcc.transpose", value, shape, permutation=order)
    before = producer(source, "qcc.reshape")
    return _made(op, "qcc.reshape", source if before is None else before.operands[0], shape)


def _swapped(rank: int) -> list[int]:
    return [*range(rank - 2), rank - 1, rank - 2]


def _made(op: Any, name: str, value: Any, shape: list[int], **attributes: Any) -> Any:
    kind = retyped(value, element_of(value), shape)
    return create(name, [value], [kind], attributes, loc=op.location, ip=ir.InsertionPoint(op)).results[0]
