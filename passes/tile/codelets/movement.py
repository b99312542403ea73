"""Operations that only move elements: views where strides can say it, copies where not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from qcc.dialects.mlir import op_attribute
from qcc.passes.tile.codelets import elementwise
from qcc.passes.tile.codelets.lowering import Lowering
from qcc.passes.tile.codelets.place import Place
from qcc.passes.values import shape_of


def reshape(lowering: Lowering, op: Any) -> None:
    source, shape = lowering.place(op.operands[0], narrow=True), shape_of(op.results[0])
    view = source.reshaped(shape)
    if view is None:
        view = contiguous(lowering, source).reshaped(shape)
        assert view is not None
    lowering.places[op.results[0]] = view


def transpose(lowering: Lowering, op: Any) -> None:
    lowering.places[op.results[0]] = lowering.place(op.operands[0], narrow=True).transposed(op_attribute(op, "permutation"))


def slice_(lowering: Lowering, op: Any) -> None:
    source = lowering.place(op.operands[0], narrow=True)
    lowering.places[op.results[0]] = source.sliced(op_attribute(op, "offsets"), op_attribute(op, "strides"), shape_of(op.results[0]))


def broadcast(lowering: Lowering, op: Any) -> None:
    lowering.places[op.results[0]] = lowering.place(op.operands[0], narrow=True).broadcast(shape_of(op.results[0]))


def pad(lowering: Lowering, op: Any) -> None:
    """Fill the whole result, then copy the inside."""
    source, y = lowering.place(op.operands[0], narrow=True), lowering.result(op.results[0])
    low = op_attribute(op, "low")
    value = op_attribute(op, "value", 0.0) if y.element == "f32" else 0
    fill_place(lowering, y, lowering.halo_word(op.results[0]) if y.element != "f32" else _bits(value))
    inside = replace(y.sliced(low, [1] * len(low), source.shape), halo=(0, 0, 0, 0))
    elementwise.copy(lowering, source, inside)


def fill_place(lowering: Lowering, y: Place, word: int) -> None:
    """Every element of y, and its border, becomes the low bits of `word`."""
    one = lowering.params([word])
    source = replace(one, element=y.element, shape=y.shape, strides=(0,) * len(y.shape))
    elementwise.copy(lowering, source, y, halo_word=word)


def concat(lowering: Lowering, op: Any) -> None:
    """One copy per operand into its part of the result."""
    y, dim = lowering.result(op.results[0]), op_attribute(op, "dim")
    start = 0
    for number, value in enumerate(op.operands):
        source = lowering.place(value, narrow=True)
        offsets = [0] * len(y.shape)
        offsets[dim] = start
        part = y.sliced(offsets, [1] * len(y.shape), source.shape)
        start += source.shape[dim]
        elementwise.copy(lowering, source, part)
        if number == 0 and any(y.halo):
            fill_border(lowering, y, lowering.halo_word(op.results[0]))


def fill_border(lowering: Lowering, y: Place, word: int) -> None:
    """Fill the border of y only."""
    (n, c, h, w), (top, left, bottom, right) = y.shape, y.halo
    one = lowering.params([word])
    whole = replace(y, offset=y.offset - top * y.strides[2] - left * y.strides[3], shape=(n, c, top + h + bottom, left + w + right))
    for first, count, axis in ((0, top, 2), (top + h, bottom, 2), (0, left, 3), (left + w, right, 3)):
        if count:
            offsets, shape = [0] * 4, list(whole.shape)
            offsets[axis], shape[axis] = first, count
            part = whole.sliced(offsets, [1] * 4, shape)
            source = replace(one, element=y.element, shape=part.shape, strides=(0,) * 4)
            elementwise.copy(lowering, source, part)


def contiguous(lowering: Lowering, source: Place, shape: Sequence[int] | None = None) -> Place:
    """`source` itself where it is row-major and gapless, else a row-major copy."""
    if source.contiguous and shape is None:
        return source
    y = lowering.temporary(source.element, source.shape)
    elementwise.copy(lowering, source, y)
    return y


def _bits(value: float) -> int:
    import numpy as np

    return int(np.float32(value).view(np.uint32))
