"""Rules for attention: one operation of queries, keys, values and a mask of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from qcc.dialects.mlir import ir
from qcc.passes.graph._torch_movement import repeated
from qcc.passes.graph._torch_reader import Reader, require, rule


@rule("torch.aten.scaled_dot_product_attention")
def _attention(r: Reader, op: Any) -> Sequence[Any]:
    q, k, v, mask, dropout, causal, scale, grouped = op.operands
    r.f32(q, k, v)
    require(r.number(dropout) == 0, "attention with dropout")
    keys, values = r.builtin(k), r.builtin(v)
    if r.flag(grouped) and r.shape(q)[:-2] != r.shape(k)[:-2]:
        keys, values = (repeated(r, value, -3, r.shape(q)[-3] // r.shape(x)[-3]) for value, x in ((keys, k), (values, v)))
    term = None
    if not r.is_none(mask):
        if str(r.type(mask).element_type) == "i1":
            term = _additive(r, mask)
        else:
            r.f32(mask)
            term = r.builtin(mask)
    given = r.optional(scale)
    factor = 1.0 / math.sqrt(r.shape(q)[-1]) if given is None else float(given)
    return [r.make("qcc.attention", [r.builtin(q), keys, values, term], r.type(op.results[0]), scale=factor,
                   causal=r.flag(causal))]  # fmt: skip


def _additive(r: Reader, mask: Any) -> Any:
    """0 where the boolean `mask` allows, minus infinity elsewhere; computed on the generic path where `mask` is not constant."""
    allowed = r.known(mask)
    if allowed is not None:
        return r.constant(np.where(allowed, 0.0, -np.inf).astype(np.float32))
    kind = ir.Type.parse("!torch.float")
    sides = [r.make("torch.constant.float", [], kind, value=v) for v in (0.0, -math.inf)]
    shape = ",".join(str(size) for size in r.shape(mask))
    return r.builtin(r.make("torch.aten.where.Scalar", [mask, *sides], ir.Type.parse(f"!torch.vtensor<[{shape}],f32>")))
