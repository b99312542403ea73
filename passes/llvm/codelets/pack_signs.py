"""The loop nest that turns stored bytes into the words of sign products: one comparison gives the bits of 64 channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import PackSigns
from qcc.dialects.sign_codelet import WORD_BITS
from qcc.passes.llvm.codelets import halo
from qcc.passes.llvm.codelets.access import bytes_of
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value

BYTES = 64  # compared at once
WORD = 4  # bytes


def emit(b: Builder, codelet: PackSigns, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task."""
    c = codelet
    halo.fill_once(b, c, buffers, task)
    images, height, width, channels = c.sizes
    word = b.load("i32", Address(buffers[c.params], WORD * c.zero), invariant=True)
    zero = b.splat(b.cast("trunc", word, "i8"), BYTES)
    whole, rest = divmod(channels, BYTES)

    def bits(source: Address, target: Address, count: int) -> None:
        """The words of `count` channels."""
        x = b.load(f"{BYTES}xi8", source)
        for plane in range(c.planes):
            found = b.op("llvm.bitcast", [b.compare("ne" if plane else "ult", x, zero)], "i64")
            if count < BYTES:
                found = b.binary("and", found, b.constant((1 << count) - 1, "i64"))
            for i in range(-(-count // WORD_BITS)):
                moved = b.binary("lshr", found, b.constant(WORD_BITS * i, "i64")) if i else found
                b.store(b.cast("trunc", moved, "i32"), target + (i * c.planes + plane) * WORD)

    def pixel(n: Index, h: Index, w: Index) -> None:
        source = b.at(buffers[c.x.buffer], bytes_of(c.x, (n, h, w, 0), b))
        target = b.at(buffers[c.y.buffer], bytes_of(c.y, (n, h, w), b))
        step = BYTES // WORD_BITS * c.planes * WORD
        b.loop(0, whole, 1, lambda i: bits(b.at(source, b.mul(i, BYTES)), b.at(target, b.mul(i, step)), BYTES))
        if rest:
            bits(source + whole * BYTES, target + whole * step, rest)
        for i in range(-(-channels // WORD_BITS) * c.planes, c.words * c.planes):
            b.store(b.constant(0, "i32"), target + i * WORD)

    def row(index: Index) -> None:
        n, h = b.divmod(index, height)
        b.loop(0, width, 1, lambda w: pixel(n if images > 1 else 0, h, w))

    low = b.mul(task, c.chunk)
    b.loop(low, b.minimum(b.add(low, c.chunk), images * height), 1, row)
