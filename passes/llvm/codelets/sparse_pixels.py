"""The loop nest of convolutions without zero blocks: four weights of an output channel are broadcast and meet four channels of many pixels.

A quadruple of x is a word, so that turning x around is a transposition of words: from [pixel][quadruple], as channels-last images lie, to
[quadruple][pixel], for every tap anew, so that a tap, a stride or a border is only another place to read from and all loads of products are
aligned. Results take the same way back: four channels become a word of bytes, and words [quadruple][pixel] turn around to
[pixel][quadruple].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qcc.dialects.codelet import ELEMENT_BYTES, SparsePixels
from qcc.dialects.instruction_sets import ISAS
from qcc.passes.llvm.codelets import halo
from qcc.passes.llvm.codelets.access import bytes_of, load, load_first, pieces, store
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value
from qcc.passes.llvm.codelets.fetch import Fetch
from qcc.passes.llvm.codelets.sparse_units import Units
from qcc.passes.llvm.codelets.steps import Steps
from qcc.passes.llvm.codelets.transposition import transposed

QUAD = 4  # channels of a word
PLACE_BYTES = 8  # of an entry of a table of pixels


def emit(b: Builder, codelet: SparsePixels, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task: a strip of tiles, for a chunk of channels."""
    halo.fill_once(b, codelet, buffers, task)
    n, height, width, _ = codelet.sizes
    chunk, strip = b.divmod(task, -(-codelet.tiles // codelet.strip))
    nest = _Nest(b, codelet, buffers, instructions, chunk, scratch)
    full, rest = divmod(n * height * width, codelet.pixels)
    first = b.mul(strip, codelet.strip)
    end = b.minimum(b.add(first, codelet.strip), codelet.tiles)
    b.loop(first, b.minimum(end, full), 1, lambda tile: nest.tile(tile, codelet.pixels))
    if rest:
        b.when(b.equal(end, full + 1), lambda: nest.tile(full, rest))


class _Nest:
    def __init__(
        self, b: Builder, codelet: SparsePixels, buffers: Sequence[Value], instructions: Any, chunk: Index, scratch: Value
    ) -> None:
        self.b, self.codelet, self.buffers, self.instructions, self.chunk = b, codelet, buffers, instructions, chunk
        self.lanes, self.steps = ISAS[codelet.isa].lanes, Steps(b, instructions)
        self.first = b.mul(chunk, codelet.chunk)
        self.channels = b.minimum(codelet.chunk, b.sub(codelet.sizes[3], self.first))
        self.x, self.sums = Address(scratch), Address(scratch, codelet.x_bytes)
        tables = self.sums + codelet.sums_bytes
        self.tables = [tables + i * PLACE_BYTES * codelet.pixels for i in range(2 + len(codelet.varying))]  # of x, y, operands

    def tile(self, number: Index, count: int) -> None:
        """`count` pixels from the tile's first one on."""
        b, c, vectors = self.b, self.codelet, -(-count // self.lanes)
        self._list_pixels(b.mul(number, c.pixels), count)
        blocks, w = len(c.blocks), self.buffers[c.w.buffer]
        starts = b.at(w, b.mul(self.chunk, 8 * blocks)) + c.order_bytes

        def block(k: Index, start: Any) -> None:
            self._turn_x(k, vectors)
            heads = b.at(w, b.load("i64", b.at(starts, b.mul(k, 8))))
            Units(b, c, self.instructions, vectors, self._sums).block(heads, self.x, self.channels, start, lambda _: None)

        block(0, self._bias)
        b.loop(1, blocks, 1, lambda k: block(k, None))
        if self._in_words():
            self._end_in_words(count)
        else:
            self._end(count)

    def _sums(self, channel: Index) -> Address:
        return self.b.at(self.sums, self.b.mul(channel, self.codelet.row_bytes))

    def _bias(self, channel: Value) -> Value:
        b, bias = self.b, self.codelet.bias
        place = b.at(self.buffers[bias.buffer], bytes_of(bias, (0, 0, 0, b.add(self.first, channel)), b))
        return b.splat(b.load("i32", place), self.lanes)

    # --- pixels ---------------------------------------------------------------------------------------------------------------------

    def _list_pixels(self, first: Index, count: int) -> None:
        """Where `count` pixels from number `first` on are in x, in y and in the operands that vary; a last vector repeats the last one."""
        b, c = self.b, self.codelet
        _, height, width, _ = c.sizes
        operands = [c.x, c.y, *(c.operands[i] for i in c.varying)]
        rest, w = b.divmod(first, width)
        n, h = b.divmod(rest, height)

        def pixel(i: Index, n: Value, h: Value, w: Value) -> list[Value]:
            for table, operand in zip(self.tables, operands, strict=True):
                b.store(b.index(bytes_of(operand, (n, h, w, 0), b)), b.at(table, b.mul(i, PLACE_BYTES)))
            right = b.add(w, 1)
            wraps = b.equal(right, width)
            below = b.select(wraps, b.add(h, 1), h)
            ends = b.equal(below, height)
            return [b.select(ends, b.add(n, 1), n), b.select(ends, b.index(0), below), b.select(wraps, b.index(0), right)]

        b.loop(0, count, 1, pixel, [b.index(i) for i in (n, h, w)])
        for table in self.tables:
            last = b.load("i64", table + PLACE_BYTES * (count - 1)) if count % self.lanes else None
            for i in range(count, -(-count // self.lanes) * self.lanes):
                b.store(last, table + PLACE_BYTES * i)

    def _pixel(self, table: int, number: Index) -> Value:
        return self.b.load("i64", self.b.at(self.tables[table], self.b.mul(number, PLACE_BYTES)))

    def _turn_x(self, block: Index, vectors: int) -> None:
        """The squares of a block, as [quadruple][pixel]."""
        b, c, lanes = self.b, self.codelet, self.lanes
        total = c.taps[0] * c.taps[1] * c.run_squares
        begin = b.mul(block, c.squares)
        base = self._first_quadruple(begin)

        def square(number: Index) -> None:
            tap, place = b.divmod(number, c.run_squares)
            moved = b.add(b.dot(b.divmod(tap, c.taps[1]), c.tap_strides), b.mul(place, QUAD * lanes))
            source = b.at(self.buffers[c.x.buffer], moved)
            target = b.at(self.x, b.mul(b.sub(self._first_quadruple(number), base), c.row_bytes))
            ordered = self._ordered(number)

            def vector(v: Index) -> None:
                pixels = [self._pixel(0, b.add(b.mul(v, lanes), i)) for i in range(lanes)]
                made = transposed(b, [ordered(b.at(source, pixel)) for pixel in pixels])
                to = b.at(target, b.mul(v, 4 * lanes))
                for i, row in enumerate(made):
                    b.store(row, to + i * c.row_bytes)

            b.loop(0, vectors, 1, vector)

        b.loop(begin, b.minimum(b.add(begin, c.squares), total), 1, square)

    def _ordered(self, square: Index) -> Callable[[Address], Value]:
        """What reads the channels of a square of a pixel in their order."""
        b, c, lanes = self.b, self.codelet, self.lanes
        if not c.ordered:
            return lambda place: b.load(f"{lanes}xi32", place)
        total, kind = c.taps[0] * c.taps[1] * c.run_squares, f"{QUAD * lanes}xi8"
        number = b.add(b.mul(self.chunk, total), square)
        order = b.load(kind, b.at(self.buffers[c.w.buffer], b.mul(number, QUAD * lanes)))
        return lambda place: b.op("llvm.bitcast", [self.instructions.permute_bytes(b, b.load(kind, place), order)], f"{lanes}xi32")

    def _first_quadruple(self, square: Index) -> Index:
        """`SparsePixels.first`."""
        b, c = self.b, self.codelet
        tap, place = b.divmod(square, c.run_squares)
        return b.add(b.mul(tap, -(-c.run // QUAD)), b.mul(place, self.lanes))

    # --- what follows the product ---------------------------------------------------------------------------------------------------

    def _in_words(self) -> bool:
        """Whether results are bytes side by side, and so are all operands that vary over pixels."""
        c = self.codelet
        plain = all(c.operands[i].element == "u8" and c.operands[i].strides[3] == 1 for i in c.varying)
        return plain and c.y.strides[3] == 1 and self.steps.packs(c.steps, c.y.element)

    def _end_in_words(self, count: int) -> None:
        """Four channels of a vector of pixels go through the steps together and become a word of bytes."""
        self._squares(count, QUAD * self.lanes, lambda channel, channels, *pixels: self._words(channel, channels // QUAD, *pixels))

    def _words(self, channel: Index, words: int, v: Index, pixels: int) -> None:
        """`words` quadruples of channels from `channel` on, for `pixels` pixels of vector `v`."""
        b, c, lanes = self.b, self.codelet, self.lanes
        number = b.mul(v, lanes)
        sums = b.at(self._sums(b.sub(channel, self.first)), b.mul(v, 4 * lanes))
        read = [self._read_words(i, 2 + at, channel, words, number) for at, i in enumerate(c.varying)]
        fetch = Fetch(b, c.operands, self.buffers, c.params, self.instructions)
        places = [b.at(self.buffers[o.buffer], bytes_of(o, (0, 0, 0, channel), b)) for o in c.operands]

        def fetching(step: int) -> Any:
            """Arguments of channel + step: its own number for all pixels, or a byte of the words that were read."""

            def argument(arg: int, element: Any, count: int) -> Value:
                if not isinstance(element, str) or arg >= 0:
                    return fetch(arg, element, count)
                operand = c.operands[-1 - arg]
                if -1 - arg not in c.varying:
                    moved = places[-1 - arg] + step * operand.strides[3] * ELEMENT_BYTES[operand.element]
                    return load(b, operand.element, moved, 0, count)
                word = read[c.varying.index(-1 - arg)][step // QUAD]
                shifted = b.binary("lshr", word, b.like(8 * (step % QUAD), word))
                return b.binary("and", shifted, b.like(255, word))

            return argument

        made: list[Value] = []
        for word in range(words):
            steps = range(QUAD * word, QUAD * word + QUAD)
            values = [b.load(f"{lanes}xi32", sums + step * c.row_bytes) for step in steps]
            packed = self.steps.run_packed(c.steps, values, [fetching(step) for step in steps])
            order = [16 * group + 4 * step + i for group in range(lanes // 4) for i in range(4) for step in range(QUAD)]
            made.append(b.op("llvm.bitcast", [b.shuffle(packed, packed, order)], f"{lanes}xi32"))
        rows = transposed(b, [*made, *[b.constant(0, f"{lanes}xi32")] * (lanes - words)])
        y = b.at(self.buffers[c.y.buffer], b.mul(channel, ELEMENT_BYTES[c.y.element]))
        for i in range(pixels):
            place = b.at(y, self._pixel(1, b.add(number, i)))
            for start, size in pieces(words, lanes):
                row = rows[i] if size == lanes else b.shuffle(rows[i], rows[i], list(range(start, start + size)))
                b.store(row, place + QUAD * start)

    def _read_words(self, operand: int, table: int, channel: Index, words: int, number: Index) -> list[Value]:
        """Words [quadruple of channels][pixel] of an operand."""
        b, lanes = self.b, self.lanes
        base = b.at(self.buffers[self.codelet.operands[operand].buffer], channel)
        rows = [load_first(b, b.at(base, self._pixel(table, b.add(number, i))), words, lanes) for i in range(lanes)]
        return [b.op("llvm.bitcast", [row], f"{lanes}xi32") for row in transposed(b, rows)]

    def _end(self, count: int) -> None:
        """Squares of sums are turned around, and a vector of channels of each pixel goes through the steps."""
        self._squares(count, self.lanes, self._square)

    def _squares(self, count: int, width: int, end: Callable[[Index, int, Index, int], None]) -> None:
        """`end` for the first channel, the number of channels (`width`, but for the last), the vector of pixels and its pixels."""
        b, lanes = self.b, self.lanes
        full, rest = divmod(self.codelet.sizes[3], width)
        first, behind = b.divmod(self.first, width)[0], b.add(self.first, self.channels)
        last = b.divmod(b.add(behind, width - 1), width)[0]
        whole = count // lanes

        def of_channels(number: Index, channels: int) -> None:
            b.loop(0, whole, 1, lambda v: end(b.mul(number, width), channels, v, lanes))
            if count % lanes:
                end(b.mul(number, width), channels, whole, count % lanes)

        if full:
            b.loop(first, b.minimum(last, full), 1, lambda number: of_channels(number, width))
        if rest:
            b.when(b.equal(last, full + 1), lambda: of_channels(full, rest))

    def _square(self, channel: Index, channels: int, v: Index, pixels: int) -> None:
        b, c, lanes = self.b, self.codelet, self.lanes
        number = b.mul(v, lanes)
        sums = b.at(self._sums(b.sub(channel, self.first)), b.mul(v, 4 * lanes))
        made = transposed(b, [b.load(f"{lanes}xi32", sums + i * c.row_bytes) for i in range(lanes)])
        fetch = Fetch(b, c.operands, self.buffers, c.params, self.instructions)
        for i in range(pixels):
            places = {operand: self._pixel(2 + at, b.add(number, i)) for at, operand in enumerate(c.varying)}
            y = b.at(self.buffers[c.y.buffer], self._pixel(1, b.add(number, i)))
            y = b.at(y, b.mul(channel, c.y.strides[3] * ELEMENT_BYTES[c.y.element]))
            for start, size in pieces(channels, lanes):

                def place(operand: int, start: int = start, places: dict[int, Value] = places) -> Address:
                    o = c.operands[operand]
                    base = b.at(self.buffers[o.buffer], places[operand] if operand in places else bytes_of(o, (0, 0, 0, 0), b))
                    moved = b.at(base, b.mul(channel, o.strides[3] * ELEMENT_BYTES[o.element]))
                    return moved + start * o.strides[3] * ELEMENT_BYTES[o.element]

                fetch.place, fetch.key = place, start
                value = made[i] if size == lanes else b.shuffle(made[i], made[i], list(range(start, start + size)))
                address = y + start * c.y.strides[3] * ELEMENT_BYTES[c.y.element]
                store(b, c.y.element, address, c.y.strides[3], self.steps.run(c.steps, value, fetch))
