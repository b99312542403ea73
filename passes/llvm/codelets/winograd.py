"""The loop nest of a 3x3 convolution by Winograd's minimal filtering F(4x4, 3x3): 36 products where the direct loop has 144.

Where an edge of 2 results is left, F(2, 3) computes it at four of the six points, with the same weights: only its transform of x differs.

A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.3. Integers stay exact: the transform of x
has whole coefficients and its results fit 16 bits; that of the weights is scaled by 24 in both directions to be whole; sums wrap modulo
2^32 and hold 576 times the result, which the inverse of 9 modulo 2^32 and a shift by 6 bring back exactly if the result fits 26 bits. The
bias is added at the point (1, 1), which enters all results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from qcc.dialects.codelet import ELEMENT_BYTES, Contraction, Operand
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.winograd_codelet import Winograd, narrow_tiles, pitches
from qcc.passes.llvm.codelets import halo
from qcc.passes.llvm.codelets.access import STORAGE, bytes_of, load
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value, kind_of
from qcc.passes.llvm.codelets.contraction import Nest
from qcc.passes.llvm.codelets.results import Results

EDGE = 4  # of a tile of results
FIELD = 6  # edge of the tile of x behind it
POINTS = {4: (0, 1, 2, 3, 4, 5), 2: (0, 1, 2, 5)}
"""The points of a dimension (0, 1, -1, 2, -2, infinity) at which so many results are computed."""
INVERSE_OF_9 = pow(9, -1, 1 << 32)


def emit(b: Builder, codelet: Winograd, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task."""
    halo.fill_once(b, codelet, buffers, task)
    _Nest(b, codelet, buffers, instructions, scratch).task(task)


@dataclass(frozen=True)
class _Tiles:
    """`count` tiles of a strip, from number `first` on, with high x wide results each; `pixel(t)` is n, h, w of the first result of tile t
    of them."""

    first: int
    count: int
    high: int
    wide: int
    pixel: Callable[[Index], tuple[Index, Index, Index]]


class _Nest:
    """Scratch holds the transformed x [36][tile][channel] of a strip of tiles and the sums [36][tile][channel of the block]."""

    def __init__(self, b: Builder, codelet: Winograd, buffers: Sequence[Value], instructions: Any, scratch: Value) -> None:
        self.b, self.codelet, self.buffers, self.instructions = b, codelet, buffers, instructions
        self.lanes = ISAS[codelet.isa].lanes
        self.width = codelet.tile[2] * self.lanes  # channels of a block
        self.whole = codelet.compute == "dot2_s16"
        self.element, self.sum = ("s16", "i32") if self.whole else ("f32", "f32")
        self.pitches = pitches(codelet)
        self.x = Address(scratch)
        self.sums = self.x + FIELD * FIELD * self.pitches[0]

    def task(self, task: Value) -> None:
        """A chunk of blocks and a strip of tiles; strips innermost, so that neighbouring tasks share weights."""
        b, c = self.b, self.codelet
        channels = c.sizes[3]
        chunk, strip = b.divmod(task, c.tiles // c.strip)
        block = b.mul(chunk, c.chunk)
        kinds = self._narrow(strip) if c.narrow else [self._overlapping(strip)]

        def each(kind: _Tiles, transform: Callable[[_Tiles, Index], None]) -> None:
            b.loop(0, kind.count, 1, lambda t: transform(kind, t))

        for kind in kinds:
            each(kind, self._transform_x)

        def of_block(block: Index) -> None:
            self._multiply(block, kinds)
            for kind in kinds:
                each(kind, lambda kind, t: self._transform_sums(kind, t, b.mul(block, self.width)))

        b.loop(block, b.minimum(b.add(block, c.chunk), channels // self.width), 1, of_block)

    def _overlapping(self, strip: Index) -> _Tiles:
        """The tiles of a strip; the last one of a row or column begins early, so that it reads and writes nothing outside of the image."""
        b, c = self.b, self.codelet
        _, height, width, _ = c.sizes
        begin = b.mul(strip, c.strip)

        def pixel(t: Index) -> tuple[Index, Index, Index]:
            rest, column = b.divmod(b.add(begin, t), -(-width // EDGE))
            n, row = b.divmod(rest, -(-height // EDGE))
            h, w = b.mul(row, EDGE), b.mul(column, EDGE)
            return n, b.minimum(h, height - EDGE) if height % EDGE else h, b.minimum(w, width - EDGE) if width % EDGE else w

        return _Tiles(0, c.strip, EDGE, EDGE, pixel)

    def _narrow(self, strip: Index) -> list[_Tiles]:
        """The tiles of the images of a strip, by their sizes."""
        b, c = self.b, self.codelet
        _, height, width, _ = c.sizes
        images = c.strip // (c.tiles // c.sizes[0])
        kinds: list[_Tiles] = []
        for rows, columns, high, wide in narrow_tiles(height, width):

            def pixel(t: Index, rows: int = rows, columns: int = columns, high: int = high, wide: int = wide) -> tuple[Index, Index, Index]:
                rest, column = b.divmod(t, columns)
                n, row = b.divmod(rest, rows)
                top, left = 0 if high == EDGE else height - high, 0 if wide == EDGE else width - wide
                return b.add(b.mul(strip, images), n), b.add(b.mul(row, EDGE), top), b.add(b.mul(column, EDGE), left)

            first = kinds[-1].first + kinds[-1].count if kinds else 0
            kinds.append(_Tiles(first, images * rows * columns, high, wide, pixel))
        return kinds

    def _transform_x(self, kind: _Tiles, t: Index) -> None:
        b, c = self.b, self.codelet
        size, made = ELEMENT_BYTES[c.x.element], ELEMENT_BYTES[self.element]
        lanes = 64 // made
        source = b.at(self.buffers[c.x.buffer], bytes_of(c.x, (*kind.pixel(t), 0), b))
        target = b.at(self.x, b.mul(b.add(t, kind.first), c.channels * made))

        def channels(channel: Index) -> None:
            x, y = b.at(source, b.mul(channel, size)), b.at(target, b.mul(channel, made))

            def pixel(r: int, q: int) -> Value:
                value = b.load(f"{lanes}x{STORAGE[c.x.element]}", x + (r * c.x.strides[1] + q * c.x.strides[2]) * size)
                return value if c.x.element == self.element else b.cast("zext" if self.whole else "fpext", value, STORAGE[self.element])

            rows, width = POINTS[kind.high], kind.wide + 2
            columns = [self._of_x([pixel(r, q) for r in range(len(rows))]) for q in range(width)]
            for i, r in enumerate(rows):
                for q, value in zip(POINTS[kind.wide], self._of_x([column[i] for column in columns]), strict=True):
                    b.store(value, y + (FIELD * r + q) * self.pitches[0])

        b.loop(0, c.channels, lanes, channels)

    def _multiply(self, block: Index, kinds: Sequence[_Tiles]) -> None:
        """sums[f] = x[f] times the block's weights[f], for the 36 points f; tiles that have not all points are left out of the others."""
        b, c = self.b, self.codelet
        matrix = c.channels * self.width
        weights = b.at(self.buffers[c.w.buffer], b.mul(block, FIELD * FIELD * matrix * ELEMENT_BYTES[c.w.element]))

        def nest(having: Sequence[_Tiles]) -> Nest:
            first, count = having[0].first, sum(kind.count for kind in having)
            product = Contraction(
                isa=c.isa,
                compute=c.compute,
                sizes=(FIELD * FIELD, 1, 1, count, self.width),
                x=Operand(0, self.element, (self.pitches[0] // ELEMENT_BYTES[self.element], 0, 0, c.channels, 0)),
                w=Operand(1, c.w.element, (matrix, 0, 0, 0, 0)),
                taps=(1, 1),
                tap_strides=(0, 0),
                run=c.channels,
                tile=(1, -(-count // -(-count // c.tile[1])), c.tile[2]),
                chunks=(1, 1),
                operands=(),
                steps=(),
                y=Operand(2, self.sum, (self.pitches[1] // ELEMENT_BYTES[self.sum], 0, 0, self.width, 1)),
            )
            x = self.x + first * c.channels * ELEMENT_BYTES[self.element]
            sums = self.sums + first * self.width * ELEMENT_BYTES[self.sum]
            return Nest(b, product, [b.pointer(a) for a in (x, weights, sums)], self.instructions)

        if not c.narrow:
            b.loop(0, FIELD * FIELD, 1, nest(kinds).matrix)
            return
        further = [p for p in POINTS[EDGE] if p not in POINTS[2]]
        mask = b.index(sum(1 << p for p in further))

        def of_point(r: Index, q: Index) -> None:
            """In the order of the weights, which are prefetched in it."""
            high, wide = (b.binary("and", b.binary("lshr", mask, b.index(p)), b.index(1)) for p in (r, q))
            place = b.add(b.mul(r, FIELD), q)
            for number in range(4):
                having = [k for k in kinds if (k.high == EDGE or number < 2) and (k.wide == EDGE or number % 2 == 0)]
                b.when(b.equal(b.add(b.mul(high, 2), wide), number), lambda having=having: nest(having).matrix(place))

        b.loop(0, FIELD, 1, lambda r: b.loop(0, FIELD, 1, lambda q: of_point(r, q)))

    def _transform_sums(self, kind: _Tiles, t: Index, channel: Index) -> None:
        b, c = self.b, self.codelet
        size = ELEMENT_BYTES[self.sum]
        source = b.at(self.sums, b.mul(b.add(t, kind.first), self.width * size))
        results = Results(b, c, self.buffers, self.instructions, (*kind.pixel(t), channel))
        rows: list[list[list[Value]]] = []  # [vector][row of results][column of sums]
        for v in range(c.tile[2]):
            bias = self._bias(channel, v)

            def sums(r: int, q: int, v: int = v, bias: Value | None = bias) -> Value:
                found = b.load(f"{self.lanes}x{self.sum}", source + (FIELD * r + q) * self.pitches[1] + v * self.lanes * size)
                return found if bias is None or (r, q) != (1, 1) else self._add(found, bias)

            columns = [self._of_sums([sums(r, q) for r in POINTS[kind.high]]) for q in POINTS[kind.wide]]
            rows.append([[column[r] for column in columns] for r in range(kind.high)])
        for r in range(kind.high):
            values = [self._of_sums(row[r]) for row in rows]
            for q in range(kind.wide):
                for v, vector in enumerate(values):
                    results.put((0, r, q, v * self.lanes), self._divided(vector[q]))
        results.end()

    def _bias(self, channel: Index, vector: int) -> Value | None:
        bias = self.codelet.bias
        if bias is None:
            return None
        address = self.b.at(self.buffers[bias.buffer], bytes_of(bias, (0, 0, 0, channel), self.b))
        return load(self.b, bias.element, address + vector * self.lanes * ELEMENT_BYTES[bias.element], 1, self.lanes)

    # --- the transforms in one dimension --------------------------------------------------------------------------------------------

    def _of_x(self, d: Sequence[Value]) -> list[Value]:
        """B^T d; of F(2, 3) scaled to the weights of F(4, 3)"""
        add, sub, times = self._add, self._sub, self._times
        if len(d) == 4:
            both, rising = add(d[1], d[2]), sub(d[2], d[1])
            return [times(4, sub(d[0], d[2])), sub(both, times(4, both)), sub(rising, times(4, rising)), sub(d[3], d[1])]
        four_1, even, odd = times(4, d[1]), sub(d[4], times(4, d[2])), sub(d[4], d[2])
        outer, inner = sub(d[3], four_1), times(2, sub(d[3], d[1]))
        return [
            add(times(4, d[0]), sub(even, d[2])),
            add(even, outer),
            sub(even, outer),
            add(odd, inner),
            sub(odd, inner),
            add(four_1, sub(sub(d[5], d[3]), times(4, d[3]))),
        ]

    def _of_sums(self, m: Sequence[Value]) -> list[Value]:
        """A^T m, the last of m being a quarter of the paper's"""
        add, sub, times = self._add, self._sub, self._times
        if len(m) == 4:
            return [add(m[0], add(m[1], m[2])), add(sub(m[1], m[2]), times(4, m[3]))]
        p, q, r, s = add(m[1], m[2]), sub(m[1], m[2]), add(m[3], m[4]), sub(m[3], m[4])
        return [add(m[0], add(p, r)), add(q, times(2, s)), add(p, times(4, r)), add(add(q, times(8, s)), times(4, m[5]))]

    def _divided(self, v: Value) -> Value:
        """v / 576 where sums carry that factor."""
        if not self.whole:
            return v
        b = self.b
        return b.binary("ashr", b.binary("mul", v, b.like(INVERSE_OF_9, v)), b.like(6, v))

    def _add(self, x: Value, y: Value) -> Value:
        return self._plus("add", x, y)

    def _sub(self, x: Value, y: Value) -> Value:
        return self._plus("sub", x, y)

    def _plus(self, name: str, x: Value, y: Value) -> Value:
        return self.b.binary(name if self.whole else f"f{name}", x, y)

    def _times(self, factor: int, v: Value) -> Value:
        """`factor`, a power of two, times v."""
        if not self.whole:
            return self.b.binary("fmul", v, self.b.like(factor, v))
        return self.b.binary("shl", v, self.b.constant(factor.bit_length() - 1, kind_of(v)))
