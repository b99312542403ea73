"""Attention: for a few queries one codelet that reads keys and values where they lie, else two products with a softmax between."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qcc.dialects.attention_codelet import MOST_QUERIES
from qcc.dialects.codelet import Attend, Operand, Step
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.mlir import op_attribute
from qcc.passes.tile.codelets import elementwise, rows
from qcc.passes.tile.codelets.lowering import Lowering
from qcc.passes.tile.codelets.matmul import multiply
from qcc.passes.tile.codelets.place import Place
from qcc.passes.tile.codelets.program import Program

MOST_SCORES = 1 << 17  # of a head, which are in a thread's scratch
TASK_PRODUCTS = 16384


def lower(lowering: Lowering, op: Any) -> set[Any]:
    """softmax(q k^T * scale + mask) v"""
    q, k, v = (lowering.place(value) for value in op.operands[:3])
    mask = lowering.place(op.operands[3]) if len(op.operands) > 3 else None
    y = lowering.result(op.results[0])
    if op_attribute(op, "causal") or not _attend(lowering, q, k, v, mask, y, op_attribute(op, "scale")):
        _products(lowering, op, q, k, v, mask, y)
    return {op}


def _attend(lowering: Lowering, q: Place, k: Place, v: Place, mask: Place | None, y: Place, scale: float) -> bool:
    """Call the codelet, if it takes these places."""
    batch, (t, d), (s, e) = list(y.shape[:-2]), q.shape[-2:], v.shape[-2:]
    lanes, places = ISAS[lowering.isa].lanes, [q, k, v, y]
    if t > MOST_QUERIES or t * s > MOST_SCORES or d % lanes or e % lanes or any(p.element != "f32" or p.strides[-1] != 1 for p in places):
        return False
    wide = [p.broadcast([*batch, *p.shape[-2:]]) for p in places]
    if mask is not None:
        if mask.element != "f32":
            return False
        spread = mask.broadcast([*batch, t, s])
        if spread.strides[-1] != 1 and s > 1:
            return False
        wide.append(spread)
    sizes, strides = elementwise.collapse(batch, [p.strides[:-2] for p in wide])
    if len(sizes) > 2:
        return False
    if len(sizes) == 1:
        sizes, strides = [1, *sizes], [(0, *each) for each in strides]
    program = Program(lowering)
    program.real(scale)
    params = lowering.params(program.words)
    buffers = [q, k, v, *([] if mask is None else [mask]), params, y]

    def operand(i: int, number: int) -> Operand:
        return wide[i].operand(number, (*strides[i], *wide[i].strides[-2:]))

    codelet = Attend(
        isa=lowering.isa,
        sizes=(sizes[0], sizes[1], t, s, d, e),
        q=operand(0, 0),
        k=operand(1, 1),
        v=operand(2, 2),
        mask=None if mask is None else operand(4, 3),
        params=len(buffers) - 2,
        y=operand(3, len(buffers) - 1),
        chunk=max(1, math.ceil(TASK_PRODUCTS / (t * s * (d + e)))),
    )
    lowering.call(codelet, buffers, scratch_bytes=codelet.scratch_bytes)
    return True


def _products(lowering: Lowering, op: Any, q: Place, k: Place, v: Place, mask: Place | None, y: Place) -> None:
    batch, (t, s) = y.shape[:-2], (q.shape[-2], k.shape[-2])
    scores = lowering.temporary("f32", [*batch, t, s])
    program = Program(lowering)
    program.steps.append(Step("float", (program.real(op_attribute(op, "scale")),), kind="mul"))
    if mask is not None:
        argument = program.operand(mask.broadcast(scores.shape))
        program.steps.append(Step("keep", (argument,)) if mask.element == "i1" else Step("float", (argument,), kind="add"))
    if op_attribute(op, "causal"):
        kept = lowering.weights(np.tri(t, s, dtype=np.uint8), "i1").broadcast(scores.shape)
        program.steps.append(Step("keep", (program.operand(kept),)))
    last = list(range(len(k.shape)))
    last[-2:] = last[-1], last[-2]
    multiply(lowering, q, k.transposed(last), program, scores, "lane_f32")
    weights = lowering.temporary("f32", scores.shape)
    rows.along_rows(lowering, "softmax", scores, Program(lowering), weights, ())
    multiply(lowering, weights, v, Program(lowering), y, "lane_f32")
