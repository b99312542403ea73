"""The order of loops of `linalg.generic`: what is contiguous in every operand goes innermost, where the code generator vectorizes it.

A matrix product (m, n, k) becomes (m, k, n), a convolution ends with its output columns. Each sum still adds in the same order, so results
do not change by a bit.
"""

from __future__ import annotations

from typing import Any

from qcc.dialects.mlir import ir, walk


def vectorizable_loops_innermost(function: Any) -> None:
    """Permute the loops of every `linalg.generic` of `function` (on tensors) that reduces innermost and need not."""
    for op in walk(function, "linalg.generic"):
        maps = [attribute.value for attribute in op.attributes["indexing_maps"]]
        kinds = [str(kind) for kind in op.attributes["iterator_types"]]
        if not kinds or "reduction" not in kinds[-1]:
            continue
        best = _contiguous_dimension(op, maps, kinds)
        if best is not None:
            _permute(op, maps, [d for d in range(len(kinds)) if d != best] + [best])


def _contiguous_dimension(op: Any, maps: list[Any], kinds: list[str]) -> int | None:
    """A parallel dimension of at least 4 iterations with stride 1 in the result and 0 or 1 in every input."""
    count = len(maps)
    results = len(op.results)
    shapes = [list(ir.ShapedType(operand.type).shape) if isinstance(operand.type, ir.ShapedType) else [] for operand in op.operands]
    for dimension in reversed(range(len(kinds))):
        if "parallel" not in kinds[dimension]:
            continue
        strides = [_stride(maps[i], shapes[i], dimension) for i in range(count)]
        if (
            all(s == 1 for s in strides[count - results :])
            and all(s in (0, 1) for s in strides)
            and _extent(maps[-1], shapes[-1], dimension) >= 4
        ):
            return dimension
    return None


def _stride(affine_map: Any, shape: list[int], dimension: int) -> int | None:
    """Elements between neighbours along loop `dimension` of an operand of `shape` in C order; None where it is not linear."""
    total, step = 0, 1
    for result, size in reversed(list(zip(affine_map.results, shape, strict=True))):
        factor = _factor(result, dimension)
        if factor is None:
            return None
        total += factor * step
        step *= size
    return total


def _factor(expression: Any, dimension: int) -> int | None:
    """The factor of dimension `dimension` in a linear expression."""
    if isinstance(expression, ir.AffineDimExpr):
        return int(expression.position == dimension)
    if isinstance(expression, ir.AffineConstantExpr):
        return 0
    if isinstance(expression, ir.AffineAddExpr):
        parts = [_factor(expression.lhs, dimension), _factor(expression.rhs, dimension)]
        return None if None in parts else sum(p for p in parts if p is not None)
    if isinstance(expression, ir.AffineMulExpr) and isinstance(expression.rhs, ir.AffineConstantExpr):
        left = _factor(expression.lhs, dimension)
        return None if left is None else left * expression.rhs.value
    return None


def _extent(affine_map: Any, shape: list[int], dimension: int) -> int:
    for result, size in zip(affine_map.results, shape, strict=True):
        if isinstance(result, ir.AffineDimExpr) and result.position == dimension:
            return size
    return 0


def _permute(op: Any, maps: list[Any], order: list[int]) -> None:
    """Make `order[i]` the i-th loop."""
    place = {old: new for new, old in enumerate(order)}
    renamed = ir.AffineMap.get(len(order), 0, [ir.AffineExpr.get_dim(place[d]) for d in range(len(order))])
    op.attributes["indexing_maps"] = ir.ArrayAttr.get([ir.AffineMapAttr.get(_compose(m, renamed)) for m in maps])
    kinds = list(op.attributes["iterator_types"])
    op.attributes["iterator_types"] = ir.ArrayAttr.get([kinds[d] for d in order])
    for index in walk(op, "linalg.index"):
        index.attributes["dim"] = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), place[index.attributes["dim"].value])


def _compose(affine_map: Any, renamed: Any) -> Any:
    """`affine_map` over the dimensions that `renamed` gives."""
    dims = renamed.n_dims
    return ir.AffineMap.get(dims, 0, [expression.compose(renamed) for expression in affine_map.results])
