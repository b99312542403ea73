"""Where a tensor lies: a buffer, strides and an offset; and the views that movement operations are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from qcc.dialects import element_types
from qcc.dialects.codelet import ELEMENT_BYTES, Halo, Operand
from qcc.dialects.mlir import ir

SLACK_BYTES = 64  # behind every allocation, so that vector loads may read past the last element


@dataclass(frozen=True)
class Place:
    """A strided tensor in a `qtile.buffer`; strides and offset in elements.

    `halo` (top, left, bottom, right) is the border around h and w of a channels-last image that holds the zero point.
    """

    buffer: Any
    element: str  # of ELEMENT_BYTES
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    halo: tuple[int, int, int, int] = (0, 0, 0, 0)

    def operand(self, number: int, strides: Sequence[int] | None = None) -> Operand:
        """This place as operand `number`, with strides over the codelet's iteration space."""
        return Operand(number, self.element, tuple(self.strides if strides is None else strides), self.offset)

    def transposed(self, permutation: Sequence[int]) -> Place:
        return self._view([self.shape[i] for i in permutation], [self.strides[i] for i in permutation])

    def broadcast(self, shape: Sequence[int]) -> Place:
        """numpy.broadcast_to as strides of 0."""
        extra = len(shape) - len(self.shape)
        strides = [0] * extra + [
            0 if s == 1 and t != 1 else stride for s, t, stride in zip(self.shape, shape[extra:], self.strides, strict=True)
        ]
        return self._view(shape, strides)

    def sliced(self, offsets: Sequence[int], steps: Sequence[int], shape: Sequence[int]) -> Place:
        moved = self.offset + sum(o * s for o, s in zip(offsets, self.strides, strict=True))
        return replace(self._view(shape, [s * step for s, step in zip(self.strides, steps, strict=True)]), offset=moved)

    def reshaped(self, shape: Sequence[int]) -> Place | None:
        """The row-major reshape as a view, or None where elements would have to move."""
        strides = reshape_strides(self.shape, self.strides, shape)
        return None if strides is None else self._view(shape, strides)

    def _view(self, shape: Sequence[int], strides: Sequence[int]) -> Place:
        return replace(self, shape=tuple(shape), strides=tuple(strides), halo=(0, 0, 0, 0))

    @property
    def contiguous(self) -> bool:
        """Row-major, without gaps, from the start of the buffer."""
        return self.offset == 0 and all(s == t for s, t, n in zip(self.strides, row_major(self.shape), self.shape, strict=True) if n > 1)

    def fill(self, param: int) -> Halo | None:
        """The border that a producer of this place fills, or None where there is none."""
        if not any(self.halo):
            return None
        (n, c, h, w), (top, left, bottom, right) = self.shape, self.halo
        return Halo(n, (top, h, bottom), (left, w, right), c, param)


def row_major(shape: Sequence[int]) -> list[int]:
    """Strides of a contiguous array."""
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]


def reshape_strides(shape: Sequence[int], strides: Sequence[int], target: Sequence[int]) -> list[int] | None:
    """Strides that make the array `target`-shaped without moving elements, or None.

    Both shapes are walked from the right in groups of equal size; inside a group the source must be one run.
    """
    source = [(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]
    merged: list[list[int]] = []  # runs (size, stride of its last element)
    for n, s in source:
        if merged and merged[-1][1] == n * s:
            merged[-1] = [merged[-1][0] * n, s]
        else:
            merged.append([n, s])
    found = [0] * len(target)
    run = len(merged) - 1
    left, stride = merged[run] if merged else [1, 1]
    for i in reversed(range(len(target))):
        if target[i] == 1:
            found[i] = 0
            continue
        if left == 1:
            run -= 1
            left, stride = merged[run]
        if left % target[i]:
            return None
        found[i] = stride
        stride *= target[i]
        left //= target[i]
    return found


def element_name(kind: ir.Type, *, native: bool = False) -> str | None:
    """How elements of tensor type `kind` are stored between codelets (decision 0002), or, with `native`, in the model's own container.

    None for types that no codelet stores. Floats other than f32 are moved as integers (MOVED_AS).
    """
    tensor = ir.RankedTensorType(kind)
    if (a := element_types.affine(tensor)) is not None:
        if a.bits > 16:
            return None
        if a.bits > 8:
            return "s16" if a.signed or not native else "u16"
        return "s8" if a.signed and native else "u8"
    element = tensor.element_type
    if isinstance(element, ir.IntegerType):
        if element.is_unsigned:
            return {8: "u8", 16: "u16"}.get(element.width)
        if element.width == 1:
            return "i1"
        if element.width <= 32 and not native:
            return "i32"
        return next((name for bits, name in ((8, "s8"), (16, "s16"), (32, "i32"), (64, "i64")) if element.width <= bits), None)
    return {"f32": "f32", **MOVED_AS}.get(str(element))


MOVED_AS = {"f64": "i64", "f16": "s16", "bf16": "s16", "f8E4M3FN": "s8", "f8E5M2": "s8"}
"""Floats that only generic functions compute with; codelets move their bits as integers of the same size."""


def stored_offset(kind: ir.Type) -> int:
    """What is added to a stored integer of quantized type `kind` to make the bytes that codelets see."""
    a = element_types.affine(ir.RankedTensorType(kind))
    if a is None:
        return 0
    if a.bits <= 8:
        return 128 if a.signed else 0
    return 0 if a.signed else -32768


def memref_type(place: Place) -> ir.Type:
    """The memref type that `qtile.buffer` shows for a place."""
    from qcc.dialects.mlir import ir

    bits = {"i1": 1, "f32": 0}.get(place.element, 8 * ELEMENT_BYTES[place.element])
    element = "f32" if place.element == "f32" else f"i{bits}"
    shape = "".join(f"{n}x" for n in place.shape)
    if place.contiguous:
        return ir.Type.parse(f"memref<{shape}{element}>")
    return ir.Type.parse(f"memref<{shape}{element}, strided<{list(place.strides)}, offset: {place.offset}>>")


def span_bytes(place: Place) -> int:
    """Bytes from the start of the buffer to the end of the last element, without slack and halo."""
    if 0 in place.shape:
        return 0
    last = place.offset + sum((n - 1) * s for n, s in zip(place.shape, place.strides, strict=True))
    return (last + 1) * ELEMENT_BYTES[place.element]
