"""Rules for data movement: views, transposes, slices, padding, concatenation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from qcc.dialects import element_types
from qcc.dialects.mlir import ir, op_attribute, to_attribute
from qcc.passes.graph._torch_choice import NUMBERS, converted
from qcc.passes.graph._torch_layers import is_constant, transposed_constant
from qcc.passes.graph._torch_reader import IDENTITIES, Reader, axis_of, like, owner, require, rule
from qcc.passes.values import constant_array, producer, shape_of

VIEWS = (
    "view", "reshape", "_unsafe_view", "_reshape_alias", "flatten.using_ints", "unflatten.int", "unsqueeze", "squeeze", "squeeze.dim",
)  # fmt: skip


@rule("torch.prims.collapse", "torch.prims.split_dim", *(f"torch.aten.{name}" for name in VIEWS))
def _view(r: Reader, op: Any) -> Sequence[Any]:
    _movable(r, op)
    x = r.builtin(op.operands[0])
    return [r.reshape(x, r.shape(op.results[0]))]


@rule(*IDENTITIES)
def _identity(r: Reader, op: Any) -> Sequence[Any]:
    x, result = op.operands[0], r.type(op.results[0])
    stored = r.known(x) if isinstance(result.element_type, ir.F32Type) and r.type(x) != result else None
    if stored is not None and stored.ndim >= 2 and stored.dtype.kind in "iu" and stored.itemsize == 1:
        # weights that are scaled behind their product: they stay integers, of scale one
        element = element_types.affine_type(1.0, signed=stored.dtype.kind == "i")
        kept = r.constant(stored, like(result, list(result.shape), element))
        return [r.make("qcc.dequantize", [kept], result)]
    if str(result.element_type) in _ROUNDED and isinstance(r.type(x).element_type, ir.F32Type):
        return _round_trip(r, op)
    if (made := converted(r, x, result)) is not None:
        return [made]
    require(r.type(x) == result, "a change of element type")
    return [r.builtin(x)]


_ROUNDED = {"f8E4M3FN": "round_e4m3", "f8E5M2": "round_e5m2", "f16": "round_f16", "bf16": "round_bf16"}


def _round_trip(r: Reader, op: Any) -> Sequence[Any]:
    """A conversion to a small float whose results all become f32 again is a function of f32."""
    readers = [use.owner.operation for use in op.results[0].uses]
    back = all(u.name in IDENTITIES and isinstance(r.type(u.results[0]).element_type, ir.F32Type) for u in readers)
    require(back, "a small float that something other than a conversion to f32 reads")
    kind = r.type(op.operands[0])
    rounded = r.make("qcc.unary", [r.builtin(op.operands[0])], kind, kind=_ROUNDED[str(r.type(op.results[0]).element_type)])
    for reader in readers:
        r.replace_early(reader, rounded)
    return []


@rule("torch.aten.dropout")
def _dropout(r: Reader, op: Any) -> Sequence[Any]:
    require(not r.flag(op.operands[2]) or r.number(op.operands[1]) == 0, "dropout in training mode")
    return [r.builtin(op.operands[0])]


@rule("torch.aten.permute", "torch.aten.transpose.int", "torch.aten.t", "torch.aten.numpy_T")
def _transpose(r: Reader, op: Any) -> Sequence[Any]:
    _movable(r, op)
    x = op.operands[0]
    rank, kind = len(r.shape(x)), op.name.removeprefix("torch.aten.")
    order = list(range(rank))
    if kind == "permute":
        order = [axis_of(a, rank, op) for a in r.integers(op.operands[1])]
    elif kind == "transpose.int":
        a, b = (axis_of(r.integer(v), rank, op) for v in list(op.operands)[1:])
        order[a], order[b] = order[b], order[a]
    else:
        order.reverse()
    value = r.builtin(x)
    if order == list(range(rank)):
        return [value]
    moved = transposed_constant(r, value, order) if is_constant(value) else None
    return [moved if moved is not None else r.make("qcc.transpose", [value], r.type(op.results[0]), permutation=order)]


@rule("torch.aten.expand", "torch.aten.broadcast_to", "torch.aten.expand_as")
def _expand(r: Reader, op: Any) -> Sequence[Any]:
    _movable(r, op)
    x, result = r.builtin(op.operands[0]), r.type(op.results[0])
    return [x if x.type == result else r.make("qcc.broadcast", [x], result)]


@rule("torch.aten.slice.Tensor")
def _slice(r: Reader, op: Any) -> Sequence[Any]:
    _movable(r, op)
    x, axis, start, _, step = op.operands
    shape = r.shape(x)
    at = axis_of(r.integer(axis), len(shape), op)
    require(r.integer(step) > 0, "a slice that steps backwards")
    first = 0 if r.is_none(start) else r.integer(start)
    first = min(max(first + shape[at] if first < 0 else first, 0), shape[at])
    return [_sliced(r, r.builtin(x), at, first, r.integer(step), r.shape(op.results[0])[at])]


@rule("torch.aten.roll")
def _roll(r: Reader, op: Any) -> Sequence[Any]:
    _movable(r, op)
    x, shifts, axes = op.operands
    shape, value = r.shape(x), r.builtin(x)
    at = [axis_of(a, len(shape), op) for a in r.integers(axes)]
    require(bool(at), "a roll of the flattened tensor")
    for axis, shift in zip(at, r.integers(shifts), strict=True):
        size = shape[axis]
        if shift % size:
            value = picked(r, value, axis, np.roll(np.arange(size), shift))
    return [value]


@rule("torch.aten.narrow")
def _narrow(r: Reader, op: Any) -> Sequence[Any]:
    _movable(r, op)
    x, axis, start, length = op.operands
    at = axis_of(r.integer(axis), len(r.shape(x)), op)
    first = r.integer(start)
    return [_sliced(r, r.builtin(x), at, first + r.shape(x)[at] if first < 0 else first, 1, r.integer(length))]


@rule("torch.aten.select.int")
def _select(r: Reader, op: Any) -> Sequence[Any]:
    _movable(r, op)
    x, axis, index = op.operands
    shape = r.shape(x)
    at, i = axis_of(r.integer(axis), len(shape), op), r.integer(index)
    one = _sliced(r, r.builtin(x), at, i + shape[at] if i < 0 else i, 1, 1)
    return [r.reshape(one, r.shape(op.results[0]))]


@rule("torch.aten.index_put")
def _index_put(r: Reader, op: Any) -> Sequence[Any]:
    """x[:, :, positions] = rows: positions along one axis."""
    _movable(r, op)
    x, listed, rows, accumulates = op.operands
    indices = r.items(listed)
    at = [axis for axis, index in enumerate(indices) if not r.is_none(index)]
    require(len(at) == 1 and not r.flag(accumulates), "writing to scattered places")
    positions, axis, shape = indices[at[0]], at[0], r.shape(x)
    require(r.type(positions).element_type.width > 1 and len(r.shape(positions)) <= 1, "writing where a mask or a table says")
    numbers, (count,) = r.reshape(r.builtin(positions), r.shape(positions) or [1]), r.shape(positions) or [1]
    there = [*shape[:axis], *r.shape(positions), *shape[axis + 1 :]]
    value = r.builtin(rows)
    if r.shape(rows) != there:
        value = r.make("qcc.broadcast", [value], like(r.type(rows), there))
    value = r.reshape(value, [*shape[:axis], count, *shape[axis + 1 :]])
    return [r.make("qcc.insert", [r.builtin(x), value, numbers], r.type(x), axis=axis)]


@rule("torch.aten.scatter.src")
def _scatter(r: Reader, op: Any) -> Sequence[Any]:
    """x[:, numbers] = rows, where all of a row goes where one number says, as ONNX's ScatterND has it."""
    _movable(r, op)
    x, axis, numbers, rows = op.operands
    shape, at = r.shape(x), axis_of(r.integer(axis), len(r.shape(x)), op)
    count = r.shape(numbers)[at]
    require(r.shape(rows) == r.shape(numbers) == [*shape[:at], count, *shape[at + 1 :]], "writing to scattered places")
    spread = producer(r.builtin(numbers), "qcc.broadcast")
    require(spread is not None and math.prod(shape_of(spread.operands[0])) == count, "writing to scattered places")
    assert spread is not None
    plain = _from_either_end(r, spread.operands[0], shape[at])
    return [r.make("qcc.insert", [r.builtin(x), r.builtin(rows), r.reshape(plain, [count])], r.type(x), axis=at)]


@rule("torch.aten.index_select")
def _index_select(r: Reader, op: Any) -> Sequence[Any]:
    _movable(r, op)
    x, axis, numbers = op.operands
    shape = r.shape(x)
    at = axis_of(r.integer(axis), len(shape), op)
    plain = _from_either_end(r, r.builtin(numbers), shape[at])
    known = constant_array(plain)
    if known is not None:
        return [picked(r, r.builtin(x), at, known.reshape(-1))]
    return [_rows(r, r.builtin(x), at, r.reshape(plain, r.shape(numbers)))]


@rule("torch.aten.flip")
def _flip(r: Reader, op: Any) -> Sequence[Any]:
    _movable(r, op)
    value, shape = r.builtin(op.operands[0]), r.shape(op.operands[0])
    for axis in r.integers(op.operands[1]):
        at = axis_of(axis, len(shape), op)
        value = picked(r, value, at, np.arange(shape[at])[::-1])
    return [value]


MOST_PIECES = 16
"""Slices that are put together where numbers are known; more become the rows of a table."""


def picked(r: Reader, value: Any, axis: int, chosen: np.ndarray) -> Any:
    """Elements number `chosen` (from 0) of `axis` of `value` (builtin): all of them repeated, slices of those at even distances, or rows
    of a table."""
    size = ir.RankedTensorType(value.type).shape[axis]
    if chosen.size > size and np.array_equal(chosen, np.repeat(np.arange(size), chosen.size // size)):
        return repeated(r, value, axis, chosen.size // size)
    runs: list[list[int]] = []
    for number in map(int, chosen):
        run = runs[-1] if runs else []
        if (len(run) == 1 and number > run[0]) or (len(run) > 1 and number - run[-1] == run[1] - run[0]):
            run.append(number)
        else:
            runs.append([number])
    if len(runs) > MOST_PIECES:
        return _rows(r, value, axis, r.constant(chosen.astype(np.int64)))
    parts = [_sliced(r, value, axis, run[0], run[1] - run[0] if len(run) > 1 else 1, len(run)) for run in runs]
    return parts[0] if len(parts) == 1 else _joined(r, parts, axis)


def repeated(r: Reader, value: Any, axis: int, times: int) -> Any:
    """Every element along `axis` of `value` (builtin) `times` times in a row."""
    kind = ir.RankedTensorType(value.type)
    shape = list(kind.shape)
    axis %= len(shape)
    front, back = shape[: axis + 1], shape[axis + 1 :]
    spread = r.make("qcc.broadcast", [r.reshape(value, [*front, 1, *back])], like(kind, [*front, times, *back]))
    return r.reshape(spread, [*shape[:axis], shape[axis] * times, *back])


def _rows(r: Reader, value: Any, axis: int, ids: Any) -> Any:
    """Elements number `ids` (builtin, [n]) of `axis` of `value` (builtin), as rows of a table that has the axis in front."""
    kind, count = ir.RankedTensorType(value.type), ir.RankedTensorType(ids.type).shape[0]
    rank, front = len(kind.shape), [n for i, n in enumerate(kind.shape) if i != axis]
    order = [axis, *(i for i in range(rank) if i != axis)]
    table = r.make("qcc.transpose", [value], like(kind, [kind.shape[i] for i in order]), permutation=order) if axis else value
    rows = r.make("qcc.embedding", [r.reshape(table, [kind.shape[axis], math.prod(front)]), ids], like(kind, [count, math.prod(front)]))
    rows = r.reshape(rows, [count, *front])
    if not axis:
        return rows
    result = like(kind, [count if i == axis else n for i, n in enumerate(kind.shape)])
    return r.make("qcc.transpose", [rows], result, permutation=[order.index(i) for i in range(rank)])


def _joined(r: Reader, parts: Sequence[Any], axis: int) -> Any:
    kinds = [ir.RankedTensorType(part.type) for part in parts]
    shape = list(kinds[0].shape)
    shape[axis] = sum(kind.shape[axis] for kind in kinds)
    return r.make("tensor.concat", parts, like(kinds[0], shape), dim=to_attribute(axis))


def _from_either_end(r: Reader, numbers: Any, size: int) -> Any:
    """`numbers` (builtin) without the arithmetic by which upstream makes negative ones count from the end of `size`, and as narrow as they
    were before; they may have another shape.
    """
    while (op := producer(numbers, "qcc.reshape")) is not None:
        numbers = op.operands[0]
    chosen = producer(numbers, "qcc.select")
    if chosen is not None:
        negative, wrapped, plain = chosen.operands
        below, added = producer(negative, "qcc.compare"), producer(wrapped, "qcc.add")
        if below is not None and op_attribute(below, "kind") == "lt" and _is_with(below, plain, 0) and _is_with(added, plain, size):
            numbers = plain
    while (op := producer(numbers, "qcc.reshape")) is not None:
        numbers = op.operands[0]
    return _narrow_integers(r, numbers)


def _is_with(op: Any, value: Any, number: int) -> bool:
    """Whether the operands of `op` are `value` and a constant that is `number` everywhere."""
    if op is None or _source(op.operands[0]) != _source(value):
        return False
    array = constant_array(op.operands[1])
    return array is not None and bool((array == number).all())


def _source(value: Any) -> Any:
    """The torch value that `value` (builtin) is, where it is one."""
    out = producer(value, "torch_c.to_builtin_tensor")
    return value if out is None else out.operands[0]


def _narrow_integers(r: Reader, value: Any) -> Any:
    """Integers before they were widened, which nothing here needs."""
    cast = owner(_source(value))
    if cast is None or cast.name != "torch.aten.to.dtype":
        return value
    wide, narrow = (r.type(v).element_type for v in (cast.results[0], cast.operands[0]))
    whole = all(isinstance(kind, ir.IntegerType) and kind.width >= 32 for kind in (wide, narrow))
    return r.builtin(cast.operands[0]) if whole and narrow.width < wide.width else value


def _sliced(r: Reader, value: Any, axis: int, first: int, step: int, count: int) -> Any:
    kind = ir.RankedTensorType(value.type)
    shape = list(kind.shape)
    if shape[axis] == count:
        return value
    offsets, strides = [0] * len(shape), [1] * len(shape)
    offsets[axis], strides[axis], shape[axis] = first, step, count
    return r.make("qcc.slice", [value], like(kind, shape), offsets=offsets, strides=strides)


@rule("torch.aten.constant_pad_nd", "torch.aten.pad")
def _pad(r: Reader, op: Any) -> Sequence[Any]:
    r.f32(op.operands[0])
    x, amounts = op.operands[0], r.integers(op.operands[1])
    shape = r.shape(x)
    rank = len(shape)
    low, high = [0] * rank, [0] * rank
    for i in range(len(amounts) // 2):  # torch counts axes from the last
        low[rank - 1 - i], high[rank - 1 - i] = amounts[2 * i], amounts[2 * i + 1]
    mode, value = r.scalar(op.operands[2]) if op.name == "torch.aten.pad" else "constant", r.builtin(x)
    if mode != "constant":
        require(mode in _OUTSIDE, f"padding with mode {mode}")
        for axis, (before, behind, size) in enumerate(zip(low, high, shape, strict=True)):
            if before or behind:
                value = picked(r, value, axis, _OUTSIDE[str(mode)](np.arange(-before, size + behind), size))
        return [value]
    for axis, (before, behind, size) in enumerate(zip(low, high, shape, strict=True)):  # less than zero crops
        value = _sliced(r, value, axis, max(-before, 0), 1, size - max(-before, 0) - max(-behind, 0))
    low, high = ([max(n, 0) for n in amount] for amount in (low, high))
    if any(low) or any(high):
        filled = r.optional(op.operands[-1])
        value = r.make("qcc.pad", [value], r.type(op.results[0]), low=low, high=high, value=0.0 if filled is None else _rounded(filled))
    return [value]


def _rounded(value: Any) -> float:
    """As binary32; the lowest number of a wider type is minus infinity."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))


_OUTSIDE = {
    "reflect": lambda i, size: size - 1 - np.abs(size - 1 - np.abs(i)),
    "replicate": lambda i, size: np.clip(i, 0, size - 1),
    "circular": lambda i, size: i % size,
}
"""Which element stands at place `i` of an axis, in front of it and behind it."""


@rule("torch.aten.cat")
def _concatenate(r: Reader, op: Any) -> Sequence[Any]:
    xs = r.items(op.operands[0])
    r.f32(*xs)
    result = r.type(op.results[0])
    axis = axis_of(r.integer(op.operands[1]), len(result.shape), op)
    parts = [x for x in xs if r.shape(x) != [0]]  # torch lets an empty vector stand among tensors of any rank
    if len(parts) == 1:
        return [r.builtin(parts[0])]
    return [r.make("tensor.concat", [r.builtin(x) for x in parts], result, dim=to_attribute(axis))]


def _movable(r: Reader, op: Any) -> None:
    """Only what qcc computes with is moved by it."""
    element = str(r.type(op.operands[0]).element_type)
    require(element in NUMBERS, f"moves {element}, expected one of {', '.join(NUMBERS)}")
    require(len(r.shape(op.results[0])) > 0, "a scalar result")
