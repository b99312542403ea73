"""The loop nest of convolution, linear and matmul: direct implicit GEMM with a register tile of pixels x channel vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import ELEMENT_BYTES, Contraction, blocks
from qcc.dialects.instruction_sets import ISAS, weights_in_memory
from qcc.passes.llvm.codelets import halo, listed
from qcc.passes.llvm.codelets.access import bytes_of, load, pieces
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value
from qcc.passes.llvm.codelets.compute import compute_tile
from qcc.passes.llvm.codelets.prefetch import Ahead
from qcc.passes.llvm.codelets.results import Results
from qcc.passes.llvm.codelets.sign_products import edge

UNROLLED = (4, 3, 2, 1)
"""Steps of the reduction per turn of the loop: where a hyper-thread shares the front end, instructions beside the products cost time."""


def emit(b: Builder, codelet: Contraction, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task."""
    halo.fill_once(b, codelet, buffers, task)
    Nest(b, codelet, buffers, instructions).task(task)


class Nest:
    """The loops of a contraction, on buffers that it is given."""

    def __init__(self, b: Builder, codelet: Contraction, buffers: Sequence[Value], instructions: Any) -> None:
        self.b, self.codelet, self.buffers = b, codelet, buffers
        self.tile = compute_tile(b, codelet, instructions)
        self.instructions = instructions
        self.lanes = ISAS[codelet.isa].lanes

    def task(self, task: Value) -> None:
        """g, a chunk of blocks, n and a chunk of rows; images and rows innermost, so that neighbouring tasks share weights."""
        b, c = self.b, self.codelet
        images, groups, height, _, _ = c.sizes
        count = blocks(c)
        rest, row_chunk = b.divmod(task, -(-height // c.chunks[1]))
        rest, n = b.divmod(rest, images)
        g, block_chunk = b.divmod(rest, -(-count // c.chunks[0]))
        first, row = b.mul(block_chunk, c.chunks[0]), b.mul(row_chunk, c.chunks[1])
        self._blocks(
            n if images > 1 else 0,
            g if groups > 1 else 0,
            first,
            b.minimum(b.add(first, c.chunks[0]), count),
            row,
            b.minimum(b.add(row, c.chunks[1]), height),
        )

    def matrix(self, n: Index) -> None:
        """All rows and columns of image n times the first block, which is whole."""
        self._rows(n, 0, 0, [self.lanes] * self.codelet.tile[2], 0, self.codelet.sizes[2])

    def _blocks(self, n: Index, g: Index, first: Index, last: Index, row: Index, row_end: Index) -> None:
        b, c = self.b, self.codelet
        width = c.tile[2] * self.lanes
        full, rest = divmod(c.sizes[4], width)

        def whole(block: Index) -> None:
            self._rows(n, g, block, [self.lanes] * c.tile[2], row, row_end)

        def partial() -> None:
            self._rows(n, g, full, [min(self.lanes, rest - start) for start in range(0, rest, self.lanes)], row, row_end)

        if full:
            b.loop(first, b.minimum(last, full), 1, whole)
        if rest:
            b.when(b.equal(last, full + 1), partial)

    def _rows(self, n: Index, g: Index, block: Index, vectors: list[int], row: Index, row_end: Index) -> None:
        b, (_, _, height, _, _), rows = self.b, self.codelet.sizes, self.codelet.tile[0]
        full = height // rows * rows

        def whole(h: Index) -> None:
            self._columns(n, g, h, block, vectors, rows)

        b.loop(row, b.minimum(row_end, full), rows, whole)
        if full < height:
            b.when(b.equal(row_end, height), lambda: self._columns(n, g, full, block, vectors, height - full))

    def _columns(self, n: Index, g: Index, h: Index, block: Index, vectors: list[int], rows: int) -> None:
        width, columns = self.codelet.sizes[3], self.codelet.tile[1]
        full = width // columns * columns

        def whole(w: Index) -> None:
            self._kernel((n, g, h, w), block, vectors, rows, columns)

        self.b.loop(0, full, columns, whole)
        if full < width:
            self._kernel((n, g, h, full), block, vectors, rows, width - full)

    def _kernel(self, place: tuple[Index, ...], block: Index, vectors: list[int], rows: int, columns: int) -> None:
        """One register tile: rows x columns pixels times len(vectors) vectors of channels, from bias to store."""
        b, c = self.b, self.codelet
        pixels = [(r, q) for r in range(rows) for q in range(columns)]
        channel = b.mul(block, c.tile[2] * self.lanes)
        if c.signs is not None:
            accumulators = self._reduce_signs(place, block, len(vectors), pixels)
        else:
            start = [self._initial(c.bias, place, channel, v) for v in range(len(vectors))]
            accumulators = self._reduce(place, block, len(vectors), pixels, [v for _ in pixels for v in start])
        results = Results(b, c, self.buffers, self.instructions, (*place, channel))
        for p, (r, q) in enumerate(pixels):
            for v, lanes in enumerate(vectors):
                value = accumulators[p * len(vectors) + v]
                for first, count in pieces(lanes, self.lanes):
                    part = value if count == self.lanes else b.shuffle(value, value, list(range(first, first + count)))
                    results.put((0, 0, r, q, v * self.lanes + first), part)
        results.end()

    def _initial(self, bias: Any, place: tuple[Index, ...], channel: Index, vector: int) -> Value:
        kind = f"{self.lanes}x{self.tile.accumulator}"
        if bias is None:
            return self.b.constant(0, kind)
        address = self.b.at(self.buffers[bias.buffer], bytes_of(bias, (*place, channel), self.b))
        return load(self.b, bias.element, address + vector * self.lanes * ELEMENT_BYTES[bias.element], 1, self.lanes)

    def _reduce_signs(self, place: tuple[Index, ...], block: Index, vectors: int, pixels: list[tuple[int, int]]) -> list[Value]:
        """Accumulators [pixel][vector] of products of bits; the bias depends on which taps of a pixel are outside of the image."""
        b, c = self.b, self.codelet
        assert c.signs is not None
        (n, g, h, w), (_, _, height, width, _), size = place, c.sizes, ELEMENT_BYTES[c.x.element]
        top, bottom, left, right = c.signs.edges
        places = [(n, g, edge(b, b.add(h, r), height, top, bottom), edge(b, b.add(w, q), width, left, right)) for r, q in pixels]
        channel = b.mul(block, c.tile[2] * self.lanes)
        biases = [[self._initial(c.bias, here, channel, v) for v in range(vectors)] for here in places]
        x = b.at(self.buffers[c.x.buffer], bytes_of(c.x, (n, g, h, w, 0), b))
        weights = b.at(self.buffers[c.w.buffer], bytes_of(c.w, (n, g, h, w, block), b))
        ahead = Ahead(b, c, weights, (n, h, w), len(pixels), math.prod(c.taps) * c.run)
        offsets = [(r * c.x.strides[2] + q * c.x.strides[3]) * size for r, q in pixels]
        return self.tile.reduce(x, weights, vectors, offsets, ahead, biases)

    def _reduce(
        self, place: tuple[Index, ...], block: Index, vectors: int, pixels: list[tuple[int, int]], start: list[Value]
    ) -> list[Value]:
        """Accumulators [pixel][vector] after all taps and runs."""
        b, c, tile = self.b, self.codelet, self.tile
        size = ELEMENT_BYTES[c.x.element]
        n, g, h, w = place
        x = b.at(self.buffers[c.x.buffer], bytes_of(c.x, (n, g, h, w, 0), b))
        if c.listed is not None:
            offsets = [(r * c.x.strides[2] + q * c.x.strides[3]) * size for r, q in pixels]
            return listed.reduce(b, c, self.buffers, self.instructions, x, b.add(b.mul(g, blocks(c)), block), offsets, start)
        weights = b.at(self.buffers[c.w.buffer], bytes_of(c.w, (n, g, h, w, block), b))
        step_bytes = vectors * self.lanes * tile.w_bytes
        steps = -(-c.run // tile.depth)
        overlaps = c.compute == "dot2_bf16" and c.run % tile.depth > 0  # the last step begins within the one before
        in_memory = weights_in_memory(c.isa, c.compute, c.w.element, len(pixels), vectors)
        segment = c.segment or steps - overlaps
        unrolled = next(u for u in UNROLLED if segment % u == 0)
        ahead = Ahead(b, c, weights, (n, h, w), len(pixels), math.prod(c.taps) * steps // unrolled)
        summed = c.zero is not None
        if summed:
            start = [*start, *[b.constant(0, f"{self.lanes}xi32") for _ in pixels]]

        def multiply(here: Address, stored: Address, sums: Address, acc: Sequence[Value]) -> list[Value]:
            places = [stored + v * self.lanes * tile.w_bytes for v in range(vectors)]
            ws = [tile.load_w(place) for place in places[: vectors - in_memory]]
            ones = tile.load_x(sums) if summed else None
            made = list(acc)
            for p, (r, q) in enumerate(pixels):
                xs = tile.load_x(here + (r * c.x.strides[2] + q * c.x.strides[3]) * size)
                for v in range(vectors):
                    i, held = p * vectors + v, v < len(ws)
                    made[i] = tile.multiply_add(made[i], xs, ws[v]) if held else tile.multiply_add_at(made[i], xs, places[v])
                if summed:
                    made[len(pixels) * vectors + p] = tile.multiply_add(made[len(pixels) * vectors + p], xs, ones)
            return made

        def outer(t0: Index, *acc: Value) -> list[Value]:
            def inner(t1: Index, *acc: Value) -> list[Value]:
                x_tap = b.at(x, b.mul(b.dot((t0, t1), c.tap_strides), size))
                turns = (steps - overlaps) // unrolled
                tap = b.add(b.mul(t0, c.taps[1]), t1)
                before, w_tap = b.mul(tap, turns), b.at(weights, b.mul(tap, steps * step_bytes))

                def turn(k: Index, *acc: Value) -> list[Value]:
                    ahead.prefetch(b.add(before, k))
                    here = b.at(x_tap, b.mul(k, unrolled * tile.x_bytes))
                    stored = b.at(w_tap, b.mul(k, unrolled * step_bytes))
                    sums = b.at(self.buffers[c.sums], b.mul(k, 4 * unrolled)) if summed else here
                    made = list(acc)
                    for i in range(unrolled):
                        made = multiply(here + i * tile.x_bytes, stored + i * step_bytes, sums + 4 * i, made)
                    return made

                if not c.segment:
                    made = b.loop(0, turns, 1, turn, acc)
                    if overlaps:
                        made = multiply(x_tap + (c.run - tile.depth) * size, w_tap + (steps - 1) * step_bytes, x_tap, made)
                    return made

                def widened(first: Index, *acc: Value) -> list[Value]:
                    sums = b.loop(first, b.add(first, segment // unrolled), 1, turn, [b.constant(0, f"{self.lanes}xi32")] * len(acc))
                    return [b.binary("add", wide, b.cast("sext", part, "i64")) for wide, part in zip(acc, sums, strict=True)]

                return b.loop(0, turns, segment // unrolled, widened, acc)

            return b.loop(0, c.taps[1], 1, inner, acc)

        done = b.loop(0, c.taps[0], 1, outer, start)
        if not summed:
            return done
        channel = b.mul(block, c.tile[2] * self.lanes)
        zeros = [self._initial(c.zero, place, channel, v) for v in range(vectors)]
        count = len(pixels) * vectors
        return [b.binary("sub", done[i], b.binary("mul", done[count + i // vectors], zeros[i % vectors])) for i in range(count)]
