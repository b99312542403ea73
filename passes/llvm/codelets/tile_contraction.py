"""The loop nest of convolution, linear and matmul on a matrix unit: direct implicit GEMM on tiles.

A tile of x is loaded straight from channels-last pixels, its stride being that of a pixel; no im2col. Accumulators go through thread
scratch to vectors, where the steps run pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from qcc.dialects.codelet import ELEMENT_BYTES, TileContraction
from qcc.passes.llvm.codelets import halo
from qcc.passes.llvm.codelets.access import bytes_of, load, pieces, store
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value
from qcc.passes.llvm.codelets.byte_stores import ByteStores
from qcc.passes.llvm.codelets.fetch import Fetch
from qcc.passes.llvm.codelets.isa import amx
from qcc.passes.llvm.codelets.steps import Steps

CHANNELS = 16  # of a tile
ROW_BYTES = 4 * CHANNELS
L1_BYTES = 32 * 1024  # of weights that one may expect to find again
PREFETCH_STEPS = 2


def emit(b: Builder, codelet: TileContraction, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task."""
    halo.fill_once(b, codelet, buffers, task)
    _Nest(b, codelet, buffers, instructions, Address(scratch)).task(task)


class _Nest:
    def __init__(self, b: Builder, codelet: TileContraction, buffers: Sequence[Value], instructions: Any, scratch: Address) -> None:
        self.b, self.codelet, self.buffers = b, codelet, buffers
        self.steps = Steps(b, instructions)
        self.config = scratch
        self.accumulators = scratch + amx.CONFIG_BYTES
        self.sums = self.accumulators + codelet.tile[0] * codelet.rows * codelet.tile[1] * ROW_BYTES
        self.x_bytes = ELEMENT_BYTES[codelet.x.element]
        self.step_bytes = codelet.depth * self.x_bytes  # of a row of x
        self.lanes = "i32" if codelet.compute == "tile_u8s8" else "f32"

    # --- tiles: accumulators first, then what is held during a step of the reduction, then what streams past it ----------------------

    def _shapes(self) -> dict[int, tuple[int, int]]:
        """The configuration of all tiles in use."""
        c, (pixels, channels) = self.codelet, self.codelet.tile
        shapes = {self._accumulator(p, v): (c.rows, ROW_BYTES) for p in range(pixels) for v in range(channels)}
        shapes |= {self._x(p): (c.rows, self.step_bytes) for p in range(pixels)}
        return shapes | {self._w(v): (self.step_bytes // 4, ROW_BYTES) for v in range(channels)}

    def _accumulator(self, pixels: int, channels: int) -> int:
        return pixels * self.codelet.tile[1] + channels

    def _x(self, pixels: int) -> int:
        p, v = self.codelet.tile
        return p * v + pixels if p <= v else p * v + v + pixels % 2

    def _w(self, channels: int) -> int:
        p, v = self.codelet.tile
        return p * v + p + channels % 2 if p <= v else p * v + channels

    # --- loops ----------------------------------------------------------------------------------------------------------------------

    def task(self, task: Value) -> None:
        """n, g, a chunk of channel blocks and a chunk of pixels; pixels innermost, so that neighbouring tasks share weights."""
        b, c = self.b, self.codelet
        rows, across = c.units
        rest, pixel_chunk = b.divmod(task, -(-rows * across // c.chunks[1]))
        rest, block_chunk = b.divmod(rest, -(-c.blocks // c.chunks[0]))
        n, g = b.divmod(rest, c.sizes[1]) if c.sizes[1] > 1 else (rest, 0)
        n = 0 if c.sizes[0] == 1 else n
        first, unit = b.mul(block_chunk, c.chunks[0]), b.mul(pixel_chunk, c.chunks[1])
        last, unit_end = b.minimum(b.add(first, c.chunks[0]), c.blocks), b.minimum(b.add(unit, c.chunks[1]), rows * across)
        full, rest_channels = divmod(c.sizes[4], c.tile[1] * CHANNELS)

        def pixels(block: Index, vectors: list[int]) -> None:
            b.loop(unit, unit_end, 1, lambda u: self._unit(self._places(n, g, u), b.sub(u, unit), block, vectors))

        if c.zero is not None:
            amx.configure(b, self.config, {0: (c.rows, 4), 1: (c.rows, self.step_bytes), 2: (self.step_bytes // 4, 4)})
            b.loop(unit, unit_end, 1, lambda u: self._sum(self._places(n, g, u), b.sub(u, unit)))
        amx.configure(b, self.config, self._shapes())
        if full:
            b.loop(first, b.minimum(last, full), 1, lambda block: pixels(block, [CHANNELS] * c.tile[1]))
        if rest_channels:
            tail = [min(CHANNELS, rest_channels - start) for start in range(0, rest_channels, CHANNELS)]
            b.when(b.equal(last, full + 1), lambda: pixels(full, tail))
        amx.release(b)

    def _places(self, n: Index, g: Index, unit: Index) -> list[tuple[Index, ...]]:
        """(n, g, h, w) of the first pixel of each of a register tile's tiles."""
        b, c = self.b, self.codelet
        h, across = b.divmod(unit, c.units[1]) if c.units[0] > 1 else (0, unit)
        first = b.mul(across, c.tile[0] * c.rows)
        return [(n, g, h, b.minimum(b.add(first, p * c.rows), c.image[1] - c.rows)) for p in range(c.tile[0])]

    def _unit(self, places: Sequence[tuple[Index, ...]], number: Index, block: Index, vectors: list[int]) -> None:
        """One register tile, `number` of the task, from bias to store; `vectors` are the channels of its tiles."""
        b, c = self.b, self.codelet
        channel = b.mul(block, c.tile[1] * CHANNELS)
        self._initial((*places[0][:3], 0, channel), len(vectors))
        self._reduce(places, block, len(vectors))
        row = c.tile[1] * ROW_BYTES
        for p in range(c.tile[0]):
            for v in range(len(vectors)):
                amx.store(b, self._accumulator(p, v), self.accumulators + p * c.rows * row + v * ROW_BYTES, row)
        for p, place in enumerate(places):
            sums = b.at(self.sums, b.mul(number, c.tile[0] * c.rows * 4)) + p * c.rows * 4
            self._finish(place, self.accumulators + p * c.rows * row, sums, channel, vectors)

    def _initial(self, place: tuple[Index, ...], count: int) -> None:
        """Accumulators start as the bias, one row of it loaded again and again."""
        b, bias = self.b, self.codelet.bias
        for v in range(count):
            for p in range(self.codelet.tile[0]):
                if bias is None:
                    amx.zero(b, self._accumulator(p, v))
                else:
                    address = b.at(self.buffers[bias.buffer], bytes_of(bias, place, b))
                    amx.load(b, self._accumulator(p, v), address + v * ROW_BYTES, 0)

    def _reduce(self, places: Sequence[tuple[Index, ...]], block: Index, count: int) -> None:
        """accumulators += x * w over all taps and runs."""
        b, c = self.b, self.codelet
        xs = [b.at(self.buffers[c.x.buffer], bytes_of(c.x, (*place, 0), b)) for place in places]
        n, g, h, _ = places[0]
        weights = b.at(self.buffers[c.w.buffer], bytes_of(c.w, (n, g, h, 0, b.mul(block, c.tile[1])), b))
        w_block = c.w.strides[4] * ELEMENT_BYTES[c.w.element]
        steps = -(-c.run // c.depth)
        w_step = self.step_bytes * CHANNELS
        far = count * c.taps[0] * c.taps[1] * steps * w_step > L1_BYTES

        def step(k: Index, tap: Index, moved: Index) -> None:
            stored = b.at(weights, b.mul(b.add(b.mul(tap, steps), k), w_step))

            def x(p: int) -> None:
                amx.load(b, self._x(p), b.at(xs[p], b.add(moved, b.mul(k, self.step_bytes))), c.x.strides[3] * self.x_bytes)

            def w(v: int) -> None:
                amx.load(b, self._w(v), stored + v * w_block, ROW_BYTES)
                if far:
                    for line in range(0, w_step, 64):
                        b.prefetch(stored + v * w_block + PREFETCH_STEPS * w_step + line, level=1)

            def product(p: int, v: int) -> None:
                amx.multiply_add(b, c.compute, self._accumulator(p, v), self._x(p), self._w(v))

            if c.tile[0] <= c.tile[1]:
                _stream(range(c.tile[0]), range(count), x, w, product)
            else:
                _stream(range(count), range(c.tile[0]), w, x, lambda v, p: product(p, v))

        self._each_step(step)

    def _each_step(self, step: Callable[[Index, Index, Index], None]) -> None:
        """step(k, tap, bytes that x moves for the tap) for all steps of all taps."""
        b, c = self.b, self.codelet

        def tap(t0: Index, t1: Index) -> None:
            moved = b.mul(b.dot((t0, t1), c.tap_strides), self.x_bytes)
            number = b.add(b.mul(t0, c.taps[1]), t1)
            b.loop(0, -(-c.run // c.depth), 1, lambda k: step(k, number, moved))

        b.loop(0, c.taps[0], 1, lambda t0: b.loop(0, c.taps[1], 1, lambda t1: tap(t0, t1)))

    def _sum(self, places: Sequence[tuple[Index, ...]], number: Index) -> None:
        """Sums of x over the reduction, one per pixel: products with a column of ones."""
        b, c = self.b, self.codelet
        for p, place in enumerate(places):
            x = b.at(self.buffers[c.x.buffer], bytes_of(c.x, (*place, 0), b))

            def step(k: Index, tap: Index, moved: Index, x: Address = x) -> None:
                amx.load(b, 1, b.at(x, b.add(moved, b.mul(k, self.step_bytes))), c.x.strides[3] * self.x_bytes)
                amx.load(b, 2, b.at(self.buffers[c.sums], b.mul(k, self.step_bytes)), 4)
                amx.multiply_add(b, c.compute, 0, 1, 2)

            amx.zero(b, 0)
            self._each_step(step)
            amx.store(b, 0, b.at(self.sums, b.mul(number, c.tile[0] * c.rows * 4)) + p * c.rows * 4, 4)

    # --- what follows the product ---------------------------------------------------------------------------------------------------

    def _finish(self, place: tuple[Index, ...], accumulators: Address, sums: Address, channel: Index, vectors: list[int]) -> None:
        """The steps and the store of one tile's pixels, as many at once as give 64 bytes where the program ends in bytes."""
        b, c = self.b, self.codelet
        n, g, h, start = place
        gaps = c.pitch not in (0, c.sizes[3])
        together = max(1, 4 // len(vectors)) if not gaps and self._packs() else 1

        def pixels(count: int, r: Index, h: Value, w: Value) -> list[Value]:
            found: list[_Pixel] = []
            for i in range(count):
                row = b.add(r, i)
                inside = b.less(w, c.sizes[3]) if gaps else True
                values = b.at(accumulators, b.mul(row, c.tile[1] * ROW_BYTES))
                found.append(_Pixel((n, g, h, w), inside, values, b.at(sums, b.mul(row, 4))))
                h, w = self._next(h, w)
            b.when(found[0].inside, lambda: self._store(found, channel, vectors))
            return [h, w]

        at = [b.index(i) for i in (b.divmod(start, c.pitch) if c.pitch else (h, start))]
        bulk = c.rows // together * together
        at = b.loop(0, bulk, together, lambda r, h, w: pixels(together, r, h, w), at)
        for r in range(bulk, c.rows):
            at = pixels(1, r, *at)

    def _next(self, h: Value, w: Value) -> tuple[Value, Value]:
        """The pixel behind (h, w)."""
        b, pitch = self.b, self.codelet.pitch
        following = b.add(w, 1)
        if not pitch:
            return h, following
        wraps = b.equal(following, pitch)
        return b.select(wraps, b.add(h, 1), h), b.select(wraps, b.index(0), following)

    def _packs(self) -> bool:
        """Whether results are bytes, which four vectors make at once."""
        return self.codelet.y.strides[4] == 1 and self.steps.packs(self.codelet.steps, self.codelet.y.element)

    def _store(self, pixels: Sequence[_Pixel], channel: Index, vectors: list[int]) -> None:
        """The steps and the store of all channels of some pixels."""
        b, c = self.b, self.codelet
        cache: dict[Any, Value] = {}
        collected = ByteStores(b, self.steps, c.steps, CHANNELS) if self._packs() else None
        for pixel in pixels:
            y = b.at(self.buffers[c.y.buffer], bytes_of(c.y, (*pixel.place, channel), b))
            for v, count in enumerate(vectors):
                for first, lanes in pieces(count, CHANNELS):
                    moved = v * CHANNELS + first
                    value, fetch = self._value(pixel, channel, moved, lanes), self._fetch(pixel, channel, moved, cache)
                    address = y + moved * c.y.strides[4] * ELEMENT_BYTES[c.y.element]
                    if collected:
                        collected.put(value, fetch, address)
                    else:
                        store(b, c.y.element, address, c.y.strides[4], self.steps.run(c.steps, value, fetch))
        if collected:
            collected.flush()

    def _value(self, pixel: _Pixel, channel: Index, moved: int, lanes: int) -> Value:
        """The sums of `lanes` channels."""
        b, zero = self.b, self.codelet.zero
        value = b.load(f"{lanes}x{self.lanes}", pixel.accumulators + 4 * moved)
        if zero is None:
            return value
        zeros = b.at(self.buffers[zero.buffer], bytes_of(zero, (*pixel.place, channel), b)) + 4 * moved
        return b.binary("sub", value, b.binary("mul", b.splat(b.load("i32", pixel.sum), lanes), load(b, "i32", zeros, 1, lanes)))

    def _fetch(self, pixel: _Pixel, channel: Index, moved: int, cache: dict[Any, Value]) -> Fetch:
        """Arguments of steps at a pixel's channels; what does not change between pixels is in `cache`."""
        b, c = self.b, self.codelet
        fetch = Fetch(b, c.operands, self.buffers, c.params, self.steps.instructions)
        fetch.cache, fetch.key = cache, moved

        def place(number: int) -> Address:
            operand = c.operands[number]
            base = b.at(self.buffers[operand.buffer], bytes_of(operand, (*pixel.place, channel), b))
            return base + moved * operand.strides[4] * ELEMENT_BYTES[operand.element]

        fetch.place = place
        return fetch


@dataclass(frozen=True)
class _Pixel:
    """One pixel of a tile: its place (n, g, h, w), whether it is a result, and where its accumulators and its sum of x are."""

    place: tuple[Index, ...]
    inside: Value
    accumulators: Address
    sum: Address


def _stream(
    held: range, streamed: range, hold: Callable[[int], None], load: Callable[[int], None], product: Callable[[int, int], None]
) -> None:
    """All products of held and streamed tiles, every load directly before its first use so that loads and products overlap."""
    for s in streamed:
        for i in held:
            if s == 0:
                hold(i)
            if i == 0:
                load(s)
            product(i, s)
