"""merge-repeated-heads: queries that share keys and values become rows of one head, where keys and values were repeated for them.

Before:
    %r = qcc.broadcast (qcc.reshape %k) : tensor<1x4x1x64x32xf32> -> tensor<1x4x2x64x32xf32>     and %v alike
    %y = qcc.attention(%q, qcc.reshape %r, ...) : q tensor<1x8x5x32xf32>, k and v tensor<1x8x64x32xf32>
After:
    %y = qcc.reshape (qcc.attention(qcc.reshape %q, %k, %v)) : q tensor<1x4x10x32xf32>, k and v tensor<1x4x64x32xf32>

A mask over all heads is repeated instead, one over each head is taken apart as q is.

Requires: float attention that is not causal by itself, with two batch axes.
Guarantees: every product and sum is that of the source.
Why: grouped-query attention (Ainslie et al., "GQA: Training Generalized Multi-Query Transformer Models from Multi-Head Checkpoints", 2023)
has fewer keys and values so that decoders read less; as exported, they are copied once for every query head.
"""

from __future__ import annotations

from typing import Any

from qcc.dialects.mlir import create, ir, op_attribute, replace_op, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import attributes_of, element_of, erase_dead, producer, retyped, shape_of


class MergeRepeatedHeadsPass(Pass):
    name = "merge-repeated-heads"

    def run(self, module: ir.Module, context: PassContext) -> None:
        for op in list(walk(module, "qcc.attention")):
            _merge(op)
        erase_dead(module)


def _merge(op: Any) -> None:
    q, k, v, *mask = op.operands
    shape = shape_of(op.results[0])
    keys, values = _repeated(k), _repeated(v)
    if op_attribute(op, "causal") or len(shape) != 4 or len(shape_of(q)) != 4 or keys is None or values is None:
        return
    (key, times), (value, times_of_value) = keys, values
    batch, heads, queries, _ = shape
    groups, rows = heads // times, times * queries
    if times_of_value != times or shape_of(q)[:2] != [batch, heads] or shape_of(key)[1] != groups:
        return
    merged = [_reshaped(op, q, [batch, groups, rows, shape_of(q)[3]]), key, value]
    for term in mask:
        whole = [1] * (4 - len(shape_of(term))) + shape_of(term)
        if whole[1] == heads:
            whole = [whole[0], groups, times, *whole[2:]]
        elif whole[1] == 1:
            whole = [whole[0], 1, 1, *whole[2:]]
        else:
            return
        spread = [*whole[:2], times, queries, whole[4]]
        if queries == 1 and whole[2] == 1:  # the same for all rows
            merged.append(_reshaped(op, term, [*whole[:2], 1, whole[4]]))
            continue
        term = _reshaped(op, term, whole)
        if spread != whole:
            term = _made(op, "qcc.broadcast", term, spread)
        merged.append(_reshaped(op, term, [*whole[:2], rows, whole[4]]))
    kind = retyped(q, element_of(q), [batch, groups, rows, shape[3]])
    made = create(op.name, merged, [kind], attributes_of(op), loc=op.location, ip=ir.InsertionPoint(op))
    replace_op(op, [_reshaped(op, made.results[0], shape)])


def _repeated(value: Any) -> tuple[Any, int] | None:
    """x [b, g, s, d] and how often each of its heads is repeated, one copy behind the other, to make `value` [b, g * times, s, d]."""
    outer = producer(value, "qcc.reshape")
    spread = None if outer is None else producer(outer.operands[0], "qcc.broadcast")
    if spread is None:
        return None
    before, after, found = shape_of(spread.operands[0]), shape_of(spread.results[0]), shape_of(value)
    if len(after) != 5 or before != [*after[:2], 1, *after[3:]] or found != [after[0], after[1] * after[2], *after[3:]]:
        return None
    source, inner = [*before[:2], *before[3:]], producer(spread.operands[0], "qcc.reshape")
    if inner is None or shape_of(inner.operands[0]) != source:
        return None
    return inner.operands[0], after[2]


def _reshaped(op: Any, value: Any, shape: list[int]) -> Any:
    return value if shape_of(value) == shape else _made(op, "qcc.reshape", value, shape)


def _made(op: Any, name: str, value: Any, shape: list[int]) -> Any:
    return create(name, [value], [retyped(value, element_of(value), shape)], loc=op.location, ip=ir.InsertionPoint(op)).results[0]
