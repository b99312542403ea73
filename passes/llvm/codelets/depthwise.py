"""The loop nest of depthwise convolution: vectors run over channels, a few pixels share the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import ELEMENT_BYTES
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.window_codelet import Depthwise
from qcc.passes.llvm.codelets import halo
from qcc.passes.llvm.codelets.access import bytes_of, load, pieces
from qcc.passes.llvm.codelets.builder import Builder, Index, Value
from qcc.passes.llvm.codelets.results import Results


def emit(b: Builder, codelet: Depthwise, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task."""
    c = codelet
    halo.fill_once(b, c, buffers, task)
    vector = ISAS[c.isa].lanes
    n_rows, height, width, channels = c.sizes[0] * c.sizes[1], c.sizes[1], c.sizes[2], c.sizes[3]
    accumulator = c.compute.removeprefix("lane_")
    x_bytes, w_bytes = ELEMENT_BYTES[c.x.element], ELEMENT_BYTES[c.w.element]
    padded = -(-channels // vector) * vector

    def wide(value: Value) -> Value:
        return b.cast("sext", value, "i64") if accumulator == "i64" and c.x.element != "i64" else value

    def multiply_add(acc: Value, x: Value, w: Value) -> Value:
        if accumulator == "f32":
            return b.call(f"llvm.fma.v{x.type.shape[0]}f32", [x, w, acc], f"{x.type.shape[0]}xf32")
        if accumulator == "i32" and c.x.element == "u8" and c.w.element in ("s8", "s16"):
            return instructions.multiply_add_u8(b, acc, x, w)
        return b.binary("add", acc, b.binary("mul", wide(x), wide(w)))

    def kernel(n: Index, h: Index, w: Index, channel: Index, columns: int, lanes: int) -> None:
        place = (n, h, w, channel)
        x = b.at(buffers[c.x.buffer], bytes_of(c.x, place, b))
        weights = b.at(buffers[c.w.buffer], b.mul(channel, w_bytes))
        start = b.constant(0, f"{lanes}x{accumulator}")
        if c.bias is not None:
            address = b.at(buffers[c.bias.buffer], b.mul(channel, ELEMENT_BYTES[c.bias.element]))
            start = load(b, c.bias.element, address, 1, lanes)
        acc = [start] * columns
        for i in range(c.taps[0]):
            for j in range(c.taps[1]):
                tap = load(b, c.w.element, weights + (i * c.taps[1] + j) * padded * w_bytes, 1, lanes, invariant=True)
                for q in range(columns):
                    moved = (i * c.tap_strides[0] + j * c.tap_strides[1] + q * c.x.strides[2]) * x_bytes
                    acc[q] = multiply_add(acc[q], load(b, c.x.element, x + moved, 1, lanes), tap)
        results = Results(b, c, buffers, instructions, place)
        for q, value in enumerate(acc):
            results.put((0, 0, q, 0), value)
        results.end()

    def columns_of(n: Index, h: Index, channel: Index, lanes: int) -> None:
        full = width // c.columns * c.columns
        b.loop(0, full, c.columns, lambda w: kernel(n, h, w, channel, c.columns, lanes))
        if full < width:
            kernel(n, h, full, channel, width - full, lanes)

    def row(index: Index) -> None:
        n, h = b.divmod(index, height) if c.sizes[0] > 1 else (0, index)
        whole = channels // vector * vector
        b.loop(0, whole, vector, lambda channel: columns_of(n, h, channel, vector))
        for first, count in pieces(channels - whole, vector):
            columns_of(n, h, whole + first, count)

    low = b.mul(task, c.chunk)
    b.loop(low, b.minimum(b.add(low, c.chunk), n_rows), 1, row)
