"""Indices that come from data stay inside their tensors: out of range they mean the nearest element, never memory of something else.

PyTorch raises an error for such an index; a compiled model has no way to stop in the middle, and must neither crash nor read what is
not its own. The embedding codelet does the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.dialects import weights
from qcc.dialects.mlir import create, ir, op_attribute, walk

_FROM_LOOPS = ("linalg.index", "arith.constant", "affine.apply", "tensor.dim")


def keep_indices_inside(function: Any) -> None:
    """Clamp the data-dependent indices of `tensor.extract` and `tm_tensor.scatter` in `function` (on tensors); drop assertions."""
    for op in walk(function, "tensor.extract"):
        shape = ir.ShapedType(op.operands[0].type).shape
        for axis, size in enumerate(shape):
            index = op.operands[1 + axis]
            if not _is_loop_index(index) and size > 0:
                op.operands[1 + axis] = _clamped(index, size, op)
    for op in walk(function, "tm_tensor.scatter"):
        _clamp_scatter(op)
    for op in walk(function, "cf.assert"):
        op.operation.erase()


def _is_loop_index(value: Any) -> bool:
    """Whether an index is made of loop counters and constants only, as the importer made it to fit."""
    owner = value.owner
    if isinstance(owner, ir.Block):
        return isinstance(value.type, ir.IndexType)
    if owner.name in _FROM_LOOPS:
        return True
    return owner.name.startswith("arith.") and owner.name != "arith.index_cast" and all(_is_loop_index(o) for o in owner.operands)


def _clamped(index: Any, size: int, op: Any) -> Any:
    ip, kind = ir.InsertionPoint(op), ir.IndexType.get()
    bounds = [
        create("arith.constant", [], [kind], {"value": ir.IntegerAttr.get(kind, n)}, loc=op.location, ip=ip).results[0]
        for n in (0, size - 1)
    ]
    low = create("arith.maxsi", [index, bounds[0]], [kind], loc=op.location, ip=ip).results[0]
    return create("arith.minsi", [low, bounds[1]], [kind], loc=op.location, ip=ip).results[0]


def _clamp_scatter(op: Any) -> None:
    """`indices` [updates, indexed axes] of a scatter into `original`, whose axes `dimension_map` names."""
    indices, original = op.operands[1], op.operands[2]
    kind, shape = ir.RankedTensorType(indices.type), ir.ShapedType(original.type).shape
    axes = op_attribute(op, "dimension_map")
    last = np.array([shape[axis] - 1 for axis in axes], weights.numpy_dtype(kind.element_type))
    if not kind.has_static_shape or (last < 0).any():
        return
    ip = ir.InsertionPoint(op)
    value = indices
    for name, limit in (("arith.maxsi", np.zeros_like(last)), ("arith.minsi", last)):
        full = np.broadcast_to(limit, kind.shape)
        attribute = ir.DenseElementsAttr.get(np.ascontiguousarray(full), type=kind)
        bound = create("arith.constant", [], [kind], {"value": attribute}, loc=op.location, ip=ip)
        value = create(name, [value, bound.results[0]], [kind], loc=op.location, ip=ip).results[0]
    op.operands[1] = value
