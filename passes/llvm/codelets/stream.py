"""The loop nest of weight-only linear layers: weights stream by once, in the order in which they lie, and every row of x uses them.

Channels are the lanes. The reduction over one group is `stream_float` (f32 lanes), `stream_pairs` (x of 16 bits), or on x as bytes
`stream_digits`, `stream_shuffle` (levels of a table), `stream_sums` and `stream_byte_sums` (few bits), `stream_bitmap`, `stream_quads`,
`stream_indexed` or `stream_relative` (zeros not stored); this file has blocks, groups, rows and epilogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import ELEMENT_BYTES, Stream
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.stream_layout import StreamLayout
from qcc.passes.llvm.codelets import (
    stream_activations,
    stream_bitmap,
    stream_bitmap_float,
    stream_byte_sums,
    stream_digits,
    stream_float,
    stream_indexed,
    stream_pairs,
    stream_panel,
    stream_quads,
    stream_relative,
    stream_shuffle,
    stream_sums,
)
from qcc.passes.llvm.codelets.access import bytes_of, load, pieces, store
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value
from qcc.passes.llvm.codelets.fetch import Fetch
from qcc.passes.llvm.codelets.steps import Steps
from qcc.passes.llvm.codelets.stream_place import Place

MOST_ROWS = 8  # of x that share decoded weights
REDUCTIONS: dict[str, Any] = {
    "bitmap": stream_bitmap,
    "bitmap_f32": stream_bitmap_float,
    "indexed": stream_indexed,
    "quads": stream_quads,
    "relative": stream_relative,
    "shuffle": stream_shuffle,
    "products": stream_byte_sums,
    "sums": stream_sums,
}


def prologue(b: Builder, codelet: Stream, buffers: Sequence[Value], instructions: Any, scratch: Value) -> None:
    """What is done once for all tasks of a call: x quantized, or summed by groups, in this thread's scratch."""
    stream_activations.emit(b, codelet, buffers, instructions, scratch)


def emit(b: Builder, codelet: Stream, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task."""
    _Nest(b, codelet, buffers, instructions, scratch).task(task)


class _Nest:
    def __init__(self, b: Builder, codelet: Stream, buffers: Sequence[Value], instructions: Any, scratch: Value) -> None:
        self.b, self.codelet, self.buffers = b, codelet, buffers
        self.layout, self.scratch = StreamLayout(codelet), scratch
        self.lanes = self.layout.lanes
        self.steps = Steps(b, instructions)
        plain = stream_pairs if self.layout.has_pairs else stream_float if codelet.compute == "f32" else stream_digits
        reduction = stream_byte_sums if codelet.decoder == "sums" and self.layout.has_pairs else REDUCTIONS.get(codelet.decoder, plain)
        self.reduction = reduction.Reduction(b, codelet, buffers, instructions, scratch)

    def task(self, task: Value) -> None:
        """A chunk of blocks; the last block has the vectors that are left."""
        b, c = self.b, self.codelet
        width = c.vectors * self.lanes
        full, rest = divmod(c.sizes[1], width)
        first = b.mul(task, c.chunk)
        last = b.minimum(b.add(first, c.chunk), full + bool(rest))
        if full:
            b.loop(first, b.minimum(last, full), 1, lambda block: self._rows(block, [self.lanes] * c.vectors, full))
        if rest:
            vectors = [min(self.lanes, rest - start) for start in range(0, rest, self.lanes)]
            b.when(b.equal(last, full + 1), lambda: self._rows(full, vectors, 1))

    def _rows(self, block: Index, vectors: list[int], blocks: int) -> None:
        """All rows of x; `blocks` that share streams with this one."""
        if self.codelet.has_panel:
            self._panel(block, vectors, blocks)
            return
        full, rest = divmod(self.codelet.sizes[0], MOST_ROWS)
        self.b.loop(0, full * MOST_ROWS, MOST_ROWS, lambda row: self._tile(row, block, vectors, blocks, MOST_ROWS))
        if rest:
            self._tile(full * MOST_ROWS, block, vectors, blocks, rest)

    def _panel(self, block: Index, vectors: list[int], blocks: int) -> None:
        """All rows of x with weights that are decoded first."""
        b, c = self.b, self.codelet
        panel = stream_panel.Panel(b, c, self.buffers, self.steps.instructions, self.scratch, len(vectors))
        weights = self._weights(block)
        full, rest = divmod(c.sizes[2], c.group)
        b.loop(0, full, 1, lambda g: panel.decode(g, c.group, self._place(weights, block, blocks, g, len(vectors))))
        if rest:
            panel.decode(full, rest, self._place(weights, block, blocks, full, len(vectors)))
        channel = b.mul(block, c.vectors * self.lanes)
        start = [self._bias(channel, v) for v in range(len(vectors))]

        def tile(row: Index, rows: int) -> None:
            self._finish(row, rows, channel, vectors, panel.multiply(row, rows, start))

        whole = c.sizes[0] // panel.rows * panel.rows
        b.loop(0, whole, panel.rows, lambda row: tile(row, panel.rows))
        if whole < c.sizes[0]:
            tile(whole, c.sizes[0] - whole)

    def _weights(self, block: Index) -> Address:
        """Where the weights of `block` begin, if they are not split."""
        begin = 0 if self.layout.is_split else self.b.mul(block, self.layout.block_bytes(self.codelet.vectors))
        return self.b.at(self.buffers[self.codelet.w.buffer], begin)

    def _place(self, weights: Address, block: Index, blocks: int, g: Index, vectors: int) -> Place:
        return self._split(block, blocks, g, vectors) if self.layout.is_split else self._joined(weights, g, vectors)

    def _tile(self, row: Index, block: Index, vectors: list[int], blocks: int, rows: int) -> None:
        b, c = self.b, self.codelet
        channel = b.mul(block, c.vectors * self.lanes)
        start = [self._bias(channel, v) for v in range(len(vectors))]
        totals = [v for _ in range(rows) for v in start]
        weights = self._weights(block)
        if c.has_steps:
            begin, place, pairs = (b.load("i64", b.at(self.buffers[c.starts], b.mul(block, 24)) + 8 * i) for i in range(3))
            weights = b.at(self.buffers[c.w.buffer], begin)
            totals += [place, pairs]
        if c.starts >= 0 and not c.has_steps:  # the place in the values is carried from group to group
            totals.append(b.load("i64", b.at(self.buffers[c.starts], b.mul(block, 8))))
        full, rest = divmod(c.sizes[2], c.group)

        def group(g: Index, count: int, totals: Sequence[Value]) -> list[Value]:
            return self.reduction.group(row, rows, g, count, self._place(weights, block, blocks, g, len(vectors)), totals)

        totals = b.loop(0, full, 1, lambda g, *totals: group(g, c.group, totals), totals)
        if rest:
            totals = group(full, rest, totals)
        self._finish(row, rows, channel, vectors, totals)

    def _joined(self, weights: Address, g: Index, vectors: int) -> Place:
        """Group `g` of the block at `weights`."""
        b, layout = self.b, self.layout
        header = b.at(weights, b.mul(g, layout.group_bytes(self.codelet.group, vectors)))
        codes = header + vectors * layout.header_bytes
        return Place(layout, header, [codes + v * layout.step_bytes for v in range(vectors)], vectors * layout.step_bytes)

    def _split(self, block: Index, blocks: int, g: Index, vectors: int) -> Place:
        """Group `g` of `block`, one of `blocks` whose vectors are streams."""
        b, c, layout = self.b, self.codelet, self.layout
        base, full = Address(self.buffers[c.w.buffer]), c.sizes[1] // (c.vectors * layout.lanes)
        if isinstance(block, int) and block == full:  # the last one has streams of its own
            base, block = base + (layout.region_bytes(full, c.vectors) if full else 0), 0
        size = vectors * layout.header_bytes
        header = b.at(base, b.mul(b.add(b.mul(block, layout.groups), g), size))
        first = b.at(base, b.add(b.mul(block, layout.vector_bytes), b.mul(g, layout.codes_bytes(c.group))))
        first += layout.headers_bytes(blocks, vectors)
        return Place(layout, header, [first + v * layout.stream_bytes(blocks) for v in range(vectors)], layout.step_bytes)

    def _bias(self, channel: Index, vector: int) -> Value:
        bias = self.codelet.bias
        if bias is None:
            return self.b.constant(0, f"{self.lanes}xf32")
        address = self.b.at(self.buffers[bias.buffer], bytes_of(bias, (0, channel), self.b))
        return load(self.b, "f32", address + 4 * vector * self.lanes, 1, self.lanes)

    def _finish(self, row: Index, rows: int, channel: Index, vectors: list[int], totals: Sequence[Value]) -> None:
        """Steps and store."""
        b, c = self.b, self.codelet
        fetch = Fetch(b, c.operands, self.buffers, c.params, self.steps.instructions)
        bases = [b.at(self.buffers[o.buffer], bytes_of(o, (row, channel), b)) for o in c.operands]
        y = b.at(self.buffers[c.y.buffer], bytes_of(c.y, (row, channel), b))
        for r in range(rows):
            for v, lanes in enumerate(vectors):
                for first, count in pieces(lanes, ISAS[c.isa].lanes):
                    value = totals[r * len(vectors) + v]
                    if count < self.lanes:
                        value = b.shuffle(value, value, list(range(first, first + count)))
                    step = (r, v * self.lanes + first)
                    fetch.key = step[-1]
                    fetch.place = lambda number, step=step: bases[number] + _static(c.operands[number], step)
                    store(b, c.y.element, y + _static(c.y, step), c.y.strides[-1], self.steps.run(c.steps, value, fetch))


def _static(operand: Any, step: Sequence[int]) -> int:
    return sum(s * i for s, i in zip(operand.strides, step, strict=True)) * ELEMENT_BYTES[operand.element]
