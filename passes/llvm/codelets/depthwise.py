"""The loop nest of depthwise convolution: vectors run over channels, a few pixels share the weights.

Where products come in pairs (`dot2_s16`), the bytes of two taps are widened to 16 bits and interleaved, 16 channels at a time: half the
products and sums. Neighbouring outputs share the interleaved taps of a column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import ELEMENT_BYTES
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.window_codelet import PAIRED_CHANNELS, Depthwise, tap_pairs
from qcc.passes.llvm.codelets import halo
from qcc.passes.llvm.codelets.access import bytes_of, load, pieces
from qcc.passes.llvm.codelets.builder import Builder, Index, Value
from qcc.passes.llvm.codelets.results import Results

LANES = 8  # of a vector of sums of pairs


def emit(b: Builder, codelet: Depthwise, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task."""
    halo.fill_once(b, codelet, buffers, task)
    _Nest(b, codelet, buffers, instructions).task(task)


class _Nest:
    def __init__(self, b: Builder, codelet: Depthwise, buffers: Sequence[Value], instructions: Any) -> None:
        self.b, self.codelet, self.buffers, self.instructions = b, codelet, buffers, instructions
        self.paired = codelet.compute == "dot2_s16"
        self.lanes = 2 * LANES if self.paired else ISAS[codelet.isa].lanes
        self.accumulator = "i32" if self.paired else codelet.compute.removeprefix("lane_")

    def task(self, task: Value) -> None:
        b, c = self.b, self.codelet
        images, height, _, channels = c.sizes
        whole = channels // self.lanes * self.lanes

        def row(index: Index) -> None:
            n, h = b.divmod(index, height) if images > 1 else (0, index)
            b.loop(0, whole, self.lanes, lambda channel: self._columns(n, h, channel, self.lanes))
            for first, count in pieces(channels - whole, self.lanes):
                self._columns(n, h, whole + first, count)

        low = b.mul(task, c.chunk)
        b.loop(low, b.minimum(b.add(low, c.chunk), images * height), 1, row)

    def _columns(self, n: Index, h: Index, channel: Index, lanes: int) -> None:
        width, columns = self.codelet.sizes[2], self.codelet.columns
        kernel = self._pairs if self.paired else self._taps
        full = width // columns * columns
        self.b.loop(0, full, columns, lambda w: kernel((n, h, w, channel), columns, lanes))
        if full < width:
            kernel((n, h, full, channel), width - full, lanes)

    def _taps(self, place: tuple[Index, ...], columns: int, lanes: int) -> None:
        """`columns` outputs of `lanes` channels from `place` on, tap by tap."""
        b, c, channel = self.b, self.codelet, place[-1]
        x_bytes, w_bytes = ELEMENT_BYTES[c.x.element], ELEMENT_BYTES[c.w.element]
        padded = -(-c.sizes[3] // self.lanes) * self.lanes
        x = b.at(self.buffers[c.x.buffer], bytes_of(c.x, place, b))
        weights = b.at(self.buffers[c.w.buffer], b.mul(channel, w_bytes))
        start = b.constant(0, f"{lanes}x{self.accumulator}")
        if c.bias is not None:
            address = b.at(self.buffers[c.bias.buffer], b.mul(channel, ELEMENT_BYTES[c.bias.element]))
            start = load(b, c.bias.element, address, 1, lanes)
        acc = [start] * columns
        for i in range(c.taps[0]):
            for j in range(c.taps[1]):
                tap = load(b, c.w.element, weights + (i * c.taps[1] + j) * padded * w_bytes, 1, lanes, invariant=True)
                for q in range(columns):
                    acc[q] = self._multiply_add(acc[q], load(b, c.x.element, x + self._moved(i, j, q) * x_bytes, 1, lanes), tap)
        results = Results(b, c, self.buffers, self.instructions, place)
        for q, value in enumerate(acc):
            results.put((0, 0, q, 0), value)
        results.end()

    def _multiply_add(self, acc: Value, x: Value, w: Value) -> Value:
        b, c = self.b, self.codelet
        if self.accumulator == "f32":
            return b.call(f"llvm.fma.v{x.type.shape[0]}f32", [x, w, acc], f"{x.type.shape[0]}xf32")
        if self.accumulator == "i32" and c.x.element == "u8" and c.w.element in ("s8", "s16"):
            return self.instructions.multiply_add_u8(b, acc, x, w)
        return b.binary("add", acc, b.binary("mul", self._wide(x, c.x.element), self._wide(w, c.w.element)))

    def _wide(self, value: Value, element: str) -> Value:
        return self.b.cast("sext", value, "i64") if self.accumulator == "i64" and element != "i64" else value

    def _pairs(self, place: tuple[Index, ...], columns: int, lanes: int) -> None:
        """As `_taps` for 16 channels, two taps at a time; sums hold the channels in the order of PAIRED_CHANNELS."""
        b, c, channel = self.b, self.codelet, place[-1]
        x = b.at(self.buffers[c.x.buffer], bytes_of(c.x, place, b))
        weights = b.at(self.buffers[c.w.buffer], b.mul(channel, 4))
        start = [b.constant(0, f"{LANES}xi32")] * 2
        if c.bias is not None:
            address = b.at(self.buffers[c.bias.buffer], b.mul(channel, 4))
            bias = [b.load(f"{LANES}xi32", address + half * LANES * 4) for half in (0, 1)]
            start = [b.shuffle(bias[0], bias[1], order) for order in PAIRED_CHANNELS]
        acc = [list(start) for _ in range(columns)]

        def words(tap: int | None, q: int) -> Value:
            if tap is None:
                return b.constant(0, f"{lanes}xi16")
            return b.cast("zext", b.load(f"{lanes}xi8", x + self._moved(*divmod(tap, c.taps[1]), q)), "i16")

        for number, taps in enumerate(tap_pairs(*c.taps)):
            stored = weights + number * c.sizes[3] * 4
            ws = [b.load(f"{lanes}xi16", stored + half * LANES * 4, invariant=True) for half in (0, 1)]
            for q in range(columns):
                first, second = (words(tap, q) for tap in taps)
                for half, order in enumerate(PAIRED_CHANNELS):
                    pairs = b.shuffle(first, second, [k for i in order for k in (i, lanes + i)])
                    acc[q][half] = self.instructions.dot2_s16(b, acc[q][half], pairs, ws[half])
        results = Results(b, c, self.buffers, self.instructions, place)
        for q, halves in enumerate(acc):
            for half, order in enumerate(PAIRED_CHANNELS):  # its own inverse
                results.put((0, 0, q, half * LANES), b.shuffle(halves[0], halves[1], order))
        results.end()

    def _moved(self, i: int, j: int, q: int) -> int:
        """Elements from the first one of x to what tap (i, j) of output q reads."""
        c = self.codelet
        return i * c.tap_strides[0] + j * c.tap_strides[1] + q * c.x.strides[2]
