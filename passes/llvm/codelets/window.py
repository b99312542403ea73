"""The loop nest of pooling: vectors run over channels, the taps inside the image are found per row and column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import ELEMENT_BYTES
from qcc.dialects.window_codelet import Window
from qcc.passes.llvm.codelets import halo
from qcc.passes.llvm.codelets.access import bytes_of, load, pieces, store
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value
from qcc.passes.llvm.codelets.fetch import Fetch
from qcc.passes.llvm.codelets.steps import Steps

LANES = 64  # vectors that do not wait for each other
_LEAST = {"u8": 0, "s16": -32768, "f32": -math.inf, "bf16": -math.inf}


def emit(b: Builder, codelet: Window, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task."""
    c = codelet
    halo.fill_once(b, c, buffers, task)
    _, height, width, channels = c.sizes
    steps = Steps(b, instructions)
    size = ELEMENT_BYTES[c.x.element]
    fetch = Fetch(b, c.operands, buffers, c.params, instructions)

    def taps(index: Index, axis: int) -> tuple[Index, Index, Index]:
        """Position of tap 0 in the image, and the first and last + 1 tap inside of it."""
        start = b.sub(b.mul(index, c.strides[axis]), c.padding[axis])
        count, dilation, extent = c.kernel[axis], c.dilations[axis], c.image[axis]
        furthest = (c.sizes[1 + axis] - 1) * c.strides[axis] - c.padding[axis] + (count - 1) * dilation
        first: Index = 0
        last: Index = count
        if c.padding[axis]:
            missing = _maximum(b, b.sub(0, start), 0)
            first = b.minimum(b.divmod(b.add(missing, dilation - 1), dilation)[0], count)
        if furthest >= extent:
            left = _maximum(b, b.sub(extent + dilation - 1, start), 0)
            last = b.minimum(b.divmod(left, dilation)[0], count)
        return start, first, last

    def pixel(n: Index, h: Index, w: Index, rows: tuple[Index, Index, Index]) -> None:
        columns = taps(w, 1)
        image = b.at(buffers[c.x.buffer], bytes_of(c.x, (n, rows[0], columns[0], 0), b))
        counted = _maximum(b, b.mul(b.sub(rows[2], rows[1]), b.sub(columns[2], columns[1])), 0)
        divisor = c.kernel[0] * c.kernel[1] if c.count_pad else _maximum(b, counted, 1)
        whole = channels // LANES * LANES

        def vector(channel: Index, lanes: int) -> None:
            total = _reduce(b, c, image, channel, rows, columns, size, lanes)
            value = _finish(b, c, total, counted, divisor, fetch, lanes)
            place = (n, h, w, channel)
            fetch.place = lambda number: b.at(buffers[c.operands[number].buffer], bytes_of(c.operands[number], place, b))
            fetch.cache = {}
            result = steps.run(c.steps, value, fetch)
            store(b, c.y.element, b.at(buffers[c.y.buffer], bytes_of(c.y, place, b)), c.y.strides[3], result)

        b.loop(0, whole, LANES, lambda channel: vector(channel, LANES))
        for first, count in pieces(channels - whole, LANES):
            vector(whole + first, count)

    def row(index: Index) -> None:
        n, h = b.divmod(index, height) if c.sizes[0] > 1 else (0, index)
        rows = taps(h, 0)
        b.loop(0, width, 1, lambda w: pixel(n, h, w, rows))

    low = b.mul(task, c.chunk)
    b.loop(low, b.minimum(b.add(low, c.chunk), c.sizes[0] * height), 1, row)


def _reduce(b: Builder, c: Window, image: Address, channel: Index, rows: Any, columns: Any, size: int, lanes: int) -> Value:
    """Maximum or sum over the taps inside the image, in row-major order."""
    kind = "f32" if c.x.element in ("f32", "bf16") else "i32"
    start = b.constant(_LEAST[c.x.element] if c.op == "max" else 0, f"{lanes}x{kind}")

    def tap(i: Index, j: Index, acc: Value) -> list[Value]:
        moved = b.dot((b.mul(i, c.dilations[0]), b.mul(j, c.dilations[1]), channel), c.x.strides[1:])
        value = load(b, c.x.element, b.at(image, b.mul(moved, size)), c.x.strides[3], lanes)
        if c.op != "max":
            return [b.binary("fadd" if kind == "f32" else "add", acc, value)]
        if kind == "f32":  # NaN wins
            better = b.binary("or", b.compare("ogt", value, acc), b.compare("uno", value, value))
            return [b.select(better, value, acc)]
        return [b.binary("intr.smax", acc, value)]

    def line(i: Index, acc: Value) -> list[Value]:
        return b.loop(columns[1], columns[2], 1, lambda j, acc: tap(i, j, acc), [acc])

    return b.loop(rows[1], rows[2], 1, line, [start])[0]


def _finish(b: Builder, c: Window, total: Value, counted: Index, divisor: Index, fetch: Fetch, lanes: int) -> Value:
    if c.op == "max":
        return total
    shared = b.splat(b.cast("sitofp", b.index(divisor), "f32"), lanes)
    if c.op == "mean":
        return b.binary("fdiv", total, shared)
    zero = b.binary("mul", fetch(c.args[0], "i32", lanes), b.splat(b.cast("trunc", b.index(counted), "i32"), lanes))
    real = b.cast("sitofp", b.binary("sub", total, zero), "f32")
    return b.binary("fmul", real, b.binary("fdiv", fetch(c.args[1], "f32", lanes), shared))


def _maximum(b: Builder, a: Index, least: int) -> Index:
    if isinstance(a, int):
        return max(a, least)
    return b.op("llvm.intr.smax", [a, b.index(least)], "i64")
