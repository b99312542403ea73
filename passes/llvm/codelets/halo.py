"""Filling the border of an image buffer, so that readers need no bounds checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import ELEMENT_BYTES, Halo
from qcc.passes.llvm.codelets.access import STORAGE, pieces
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value


def fill_once(b: Builder, codelet: Any, buffers: Sequence[Value], task: Value) -> None:
    """Let task 0 fill the border of y where the codelet has one."""
    halo, y = codelet.halo, codelet.y
    if halo is not None:
        b.when(b.equal(task, 0), lambda: fill(b, halo, y.element, buffers[y.buffer], buffers[codelet.params]))


def fill(b: Builder, halo: Halo, element: str, base: Value, params: Value) -> None:
    """Store word `halo.param` of `params` in every border element of the buffer at `base`."""
    size, (top, h, bottom), (left, w, right), c = ELEMENT_BYTES[element], halo.rows, halo.columns, halo.channels
    row = (left + w + right) * c
    word = b.load("f32" if element == "f32" else "i32", Address(params, 4 * halo.param), invariant=True)
    storage = "i16" if element == "bf16" else STORAGE[element]
    value = b.splat(b.cast("trunc", word, storage) if size < 4 else word, 64 // size)

    def image(n: Index) -> None:
        start = b.at(base, b.mul(n, (top + h + bottom) * row * size))
        _run(b, start, top * row + left * c, size, value)

        def between(i: Index) -> None:
            _run(b, b.at(start, b.mul(i, row * size)) + (top * row + (left + w) * c) * size, (right + left) * c, size, value)

        if left + right:
            b.loop(0, h - 1, 1, between)
        _run(b, start + ((top + h - 1) * row + (left + w) * c) * size, right * c + bottom * row, size, value)

    b.loop(0, halo.images, 1, image)


def _run(b: Builder, start: Address, count: int, size: int, value: Value) -> None:
    """`count` elements from `start` on."""
    width = 64 // size
    whole = count // width * width

    def body(offset: Index) -> None:
        b.store(value, b.at(start, offset))

    b.loop(0, whole * size, 64, body)
    for first, lanes in pieces(count - whole, width):
        b.store(b.shuffle(value, value, list(range(lanes))), start + (whole + first) * size)
