"""The loop nest of a 3x3 convolution by Winograd's minimal filtering F(4x4, 3x3): 36 products where the direct loop has 144.

A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.3. Integers stay exact: the transform of x
has whole coefficients and its results fit 16 bits; that of the weights is scaled by 24 in both directions to be whole; sums wrap modulo
2^32 and hold 576 times the result, which the inverse of 9 modulo 2^32 and a shift by 6 bring back exactly if the result fits 26 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import ELEMENT_BYTES, Contraction, Operand, Winograd, winograd_pitches
from qcc.dialects.instruction_sets import ISAS
from qcc.passes.llvm.codelets import halo
from qcc.passes.llvm.codelets.access import STORAGE, bytes_of, load
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value, kind_of
from qcc.passes.llvm.codelets.contraction import Nest
from qcc.passes.llvm.codelets.results import Results

EDGE = 4  # of a tile of results
FIELD = 6  # edge of the tile of x behind it
INVERSE_OF_9 = pow(9, -1, 1 << 32)


def emit(b: Builder, codelet: Winograd, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task."""
    halo.fill_once(b, codelet, buffers, task)
    _Nest(b, codelet, buffers, instructions, scratch).task(task)


class _Nest:
    """Scratch holds the transformed x [36][tile][channel] of a strip of tiles and the sums [36][tile][channel of the block]."""

    def __init__(self, b: Builder, codelet: Winograd, buffers: Sequence[Value], instructions: Any, scratch: Value) -> None:
        self.b, self.codelet, self.buffers, self.instructions = b, codelet, buffers, instructions
        self.lanes = ISAS[codelet.isa].lanes
        self.width = codelet.tile[2] * self.lanes  # channels of a block
        self.whole = codelet.compute == "dot2_s16"
        self.element, self.sum = ("s16", "i32") if self.whole else ("f32", "f32")
        self.pitches = winograd_pitches(codelet)
        self.x = Address(scratch)
        self.sums = self.x + FIELD * FIELD * self.pitches[0]

    def task(self, task: Value) -> None:
        """A chunk of blocks and a strip of tiles; strips innermost, so that neighbouring tasks share weights."""
        b, c = self.b, self.codelet
        channels = c.sizes[3]
        chunk, strip = b.divmod(task, c.tiles // c.strip)
        tile, block = b.mul(strip, c.strip), b.mul(chunk, c.chunk)
        b.loop(0, c.strip, 1, lambda t: self._transform_x(t, b.add(tile, t)))

        def of_block(block: Index) -> None:
            self._multiply(block)
            b.loop(0, c.strip, 1, lambda t: self._transform_sums(t, b.add(tile, t), b.mul(block, self.width)))

        b.loop(block, b.minimum(b.add(block, c.chunk), channels // self.width), 1, of_block)

    def _pixel(self, tile: Index) -> tuple[Index, Index, Index]:
        """n, h, w of the first result of a tile; the last one begins early, so that it reads and writes nothing outside of the image."""
        b, (_, height, width, _) = self.b, self.codelet.sizes
        rest, column = b.divmod(tile, -(-width // EDGE))
        n, row = b.divmod(rest, -(-height // EDGE))
        h, w = b.mul(row, EDGE), b.mul(column, EDGE)
        return n, b.minimum(h, height - EDGE) if height % EDGE else h, b.minimum(w, width - EDGE) if width % EDGE else w

    def _transform_x(self, t: Index, tile: Index) -> None:
        b, c = self.b, self.codelet
        size, made = ELEMENT_BYTES[c.x.element], ELEMENT_BYTES[self.element]
        lanes = 64 // made
        source = b.at(self.buffers[c.x.buffer], bytes_of(c.x, (*self._pixel(tile), 0), b))
        target = b.at(self.x, b.mul(t, c.channels * made))

        def channels(channel: Index) -> None:
            x, y = b.at(source, b.mul(channel, size)), b.at(target, b.mul(channel, made))

            def pixel(r: int, q: int) -> Value:
                value = b.load(f"{lanes}x{STORAGE[c.x.element]}", x + (r * c.x.strides[1] + q * c.x.strides[2]) * size)
                return b.cast("zext", value, "i16") if self.whole else value

            columns = [self._of_x([pixel(r, q) for r in range(FIELD)]) for q in range(FIELD)]
            for r in range(FIELD):
                for q, value in enumerate(self._of_x([column[r] for column in columns])):
                    b.store(value, y + (FIELD * r + q) * self.pitches[0])

        b.loop(0, c.channels, lanes, channels)

    def _multiply(self, block: Index) -> None:
        """sums[f] = x[f] times the block's weights[f], for the 36 points f."""
        b, c = self.b, self.codelet
        matrix = c.channels * self.width
        weights = b.at(self.buffers[c.w.buffer], b.mul(block, FIELD * FIELD * matrix * ELEMENT_BYTES[c.w.element]))
        product = Contraction(
            isa=c.isa,
            compute=c.compute,
            sizes=(FIELD * FIELD, 1, 1, c.strip, self.width),
            x=Operand(0, self.element, (self.pitches[0] // ELEMENT_BYTES[self.element], 0, 0, c.channels, 0)),
            w=Operand(1, c.w.element, (matrix, 0, 0, 0, 0)),
            taps=(1, 1),
            tap_strides=(0, 0),
            run=c.channels,
            tile=c.tile,
            chunks=(1, 1),
            operands=(),
            steps=(),
            y=Operand(2, self.sum, (self.pitches[1] // ELEMENT_BYTES[self.sum], 0, 0, self.width, 1)),
        )
        nest = Nest(b, product, [b.pointer(a) for a in (self.x, weights, self.sums)], self.instructions)
        b.loop(0, FIELD * FIELD, 1, nest.matrix)

    def _transform_sums(self, t: Index, tile: Index, channel: Index) -> None:
        b, c = self.b, self.codelet
        size = ELEMENT_BYTES[self.sum]
        source = b.at(self.sums, b.mul(t, self.width * size))
        results = Results(b, c, self.buffers, self.instructions, (*self._pixel(tile), channel))
        rows: list[list[list[Value]]] = []  # [vector][row of results][column of sums]
        for v in range(c.tile[2]):

            def sums(r: int, q: int, v: int = v) -> Value:
                return b.load(f"{self.lanes}x{self.sum}", source + (FIELD * r + q) * self.pitches[1] + v * self.lanes * size)

            columns = [self._of_sums([sums(r, q) for r in range(FIELD)]) for q in range(FIELD)]
            rows.append([[column[r] for column in columns] for r in range(EDGE)])
        bias = [self._bias(channel, v) for v in range(c.tile[2])]
        for r in range(EDGE):
            values = [self._of_sums(row[r]) for row in rows]
            for q in range(EDGE):
                for v, vector in enumerate(values):
                    results.put((0, r, q, v * self.lanes), self._plus("add", self._divided(vector[q]), bias[v]))
        results.end()

    def _bias(self, channel: Index, vector: int) -> Value:
        bias = self.codelet.bias
        if bias is None:
            return self.b.constant(0, f"{self.lanes}x{self.sum}")
        address = self.b.at(self.buffers[bias.buffer], bytes_of(bias, (0, 0, 0, channel), self.b))
        return load(self.b, bias.element, address + vector * self.lanes * ELEMENT_BYTES[bias.element], 1, self.lanes)

    # --- the transforms in one dimension --------------------------------------------------------------------------------------------

    def _of_x(self, d: Sequence[Value]) -> list[Value]:
        """B^T d"""
        add, sub, times = self._add, self._sub, self._times
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
        """A^T m, m[5] being a quarter of the paper's"""
        add, sub, times = self._add, self._sub, self._times
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
