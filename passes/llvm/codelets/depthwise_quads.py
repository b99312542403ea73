"""The loop nest of depthwise convolution by products of depth 4.

The four pixels of a quadruple are loaded as 64 bytes of channels each and interleaved by two rounds of unpacking, which costs eight
shuffles for 64 channels where widening every tap of every output would cost a shuffle per 16 products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import ELEMENT_BYTES
from qcc.dialects.window_codelet import DepthwiseQuads, channel_blocks
from qcc.passes.llvm.codelets import halo
from qcc.passes.llvm.codelets.access import bytes_of, pieces, store
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value
from qcc.passes.llvm.codelets.fetch import Fetch
from qcc.passes.llvm.codelets.steps import Steps

LANES = 16


def emit(b: Builder, codelet: DepthwiseQuads, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task."""
    halo.fill_once(b, codelet, buffers, task)
    _Nest(b, codelet, buffers, instructions).task(task)


class _Nest:
    def __init__(self, b: Builder, codelet: DepthwiseQuads, buffers: Sequence[Value], instructions: Any) -> None:
        self.b, self.codelet, self.buffers, self.instructions = b, codelet, buffers, instructions
        self.steps = Steps(b, instructions)
        self.quads = codelet.quads()
        self.block_bytes = codelet.taps[0] * codelet.pixels * len(self.quads) * 4 * 64

    def task(self, task: Value) -> None:
        b, c = self.b, self.codelet
        n, height, rows = c.sizes[0], c.sizes[1], c.rows
        tiles = -(-height // rows)
        full = height // rows

        def tile(index: Index) -> None:
            image, number = b.divmod(index, tiles) if n > 1 else (0, index)
            h = b.mul(number, rows)
            if full == tiles:
                self._row(image, h, rows)
                return
            b.when(b.less(number, full), lambda: self._row(image, h, rows))
            b.when(b.equal(number, full), lambda: self._row(image, full * rows, height - full * rows))

        low = b.mul(task, c.chunk)
        b.loop(low, b.minimum(b.add(low, c.chunk), n * tiles), 1, tile)

    def _row(self, n: Index, h: Index, rows: int) -> None:
        """All channels and columns of `rows` output rows; whole blocks of 64 channels share their code."""
        b, blocks = self.b, channel_blocks(self.codelet.sizes[3])
        whole = self.codelet.sizes[3] // 64
        b.loop(0, whole, 1, lambda block: self._columns(n, h, b.mul(block, 64), block, 4, rows, 64))
        for number, (first, vectors) in list(enumerate(blocks))[whole:]:
            self._columns(n, h, first, number, vectors, rows, min(16 * vectors, self.codelet.sizes[3] - first))

    def _columns(self, n: Index, h: Index, channel: Index, block: Index, vectors: int, rows: int, channels: int) -> None:
        b, width, pixels = self.b, self.codelet.sizes[2], self.codelet.pixels
        groups = 4 // vectors
        step = pixels * groups
        full = width // step * step

        def whole(w: Index) -> None:
            self._kernel(n, h, [b.add(w, g * pixels) for g in range(groups)], channel, block, vectors, rows, channels)

        b.loop(0, full, step, whole)
        if full < width:  # groups of the last tile overlap, so that none leaves the row
            starts: list[Index] = [min(full + g * pixels, width - pixels) for g in range(groups)]
            self._kernel(n, h, starts, channel, block, vectors, rows, channels)

    def _kernel(
        self, n: Index, h: Index, columns: list[Index], channel: Index, block: Index, vectors: int, rows: int, channels: int
    ) -> None:
        """`rows` x `pixels` outputs of 16 * `vectors` channels at every one of `columns`, of which `channels` are stored."""
        b, c = self.b, self.codelet
        size = ELEMENT_BYTES[c.x.element]
        sources = [b.at(self.buffers[c.x.buffer], bytes_of(c.x, (n, h, w, channel), b)) for w in columns]
        weights = b.at(self.buffers[c.w.buffer], b.mul(block, self.block_bytes))
        bias = b.at(self.buffers[c.bias.buffer], b.mul(block, 4 * LANES * 4))
        start = [b.load("16xi32", bias + 64 * k) for k in range(4)]
        acc = [[list(start) for _ in range(c.pixels)] for _ in range(rows)]
        reached: dict[int, list[tuple[int, int]]] = {}  # offset of an input row -> (output row, tap row)
        for r in range(rows):
            for i in range(c.taps[0]):
                reached.setdefault(r * c.x.strides[1] + i * c.tap_strides[0], []).append((r, i))
        for offset, users in sorted(reached.items()):
            for j, quad in enumerate(self.quads):
                found = self._interleaved([self._load(sources, (offset + o) * size, vectors) for o in quad])
                for r, i in users:
                    for p in range(c.pixels):
                        if not any(self._tap(o, p) for o in quad):
                            continue
                        w = weights + ((i * c.pixels + p) * len(self.quads) + j) * 4 * 64
                        acc[r][p] = [self.instructions.dot4_u8s8(b, acc[r][p][k], found[k], b.load("64xi8", w + 64 * k)) for k in range(4)]
        self._finish(n, h, columns, channel, vectors, channels, acc)

    def _tap(self, offset: int, pixel: int) -> bool:
        c = self.codelet
        return any(offset == pixel * c.x.strides[2] + t * c.tap_strides[1] for t in range(c.taps[1]))

    def _load(self, sources: Sequence[Address], offset: int, vectors: int) -> Value:
        """64 bytes: 16 * `vectors` channels of one pixel of every group."""
        b = self.b
        parts = [b.load(f"{16 * vectors}xi8", source + offset) for source in sources]
        while len(parts) > 1:
            count = 2 * parts[0].type.shape[0]
            parts = [b.shuffle(parts[i], parts[i + 1], list(range(count))) for i in range(0, len(parts), 2)]
        return parts[0]

    def _interleaved(self, pixels: list[Value]) -> list[Value]:
        """Quadruples [4 vectors][16 lanes][pixel] of up to four vectors of 64 bytes; absent pixels are 0."""
        b = self.b
        zero = b.constant(0, "64xi8")
        first, second, third, fourth = [*pixels, *[zero] * (4 - len(pixels))]
        pairs = [self._unpack(b, x, y, 16) for x, y in ((first, second), (third, fourth))]
        words = [[b.op("llvm.bitcast", [half], "32xi16") for half in pair] for pair in pairs]
        quads = [v for half in (0, 1) for v in self._unpack(b, words[0][half], words[1][half], 8)]
        return [b.op("llvm.bitcast", [v], "64xi8") for v in quads]

    @staticmethod
    def _unpack(b: Builder, x: Value, y: Value, width: int) -> list[Value]:
        """Lower and upper halves of every 128-bit lane (`width` elements) of x and y, alternating."""
        total = x.type.shape[0]
        return [
            b.shuffle(
                x, y, [n for lane in range(0, total, width) for i in range(width // 2) for n in (lane + half + i, total + lane + half + i)]
            )
            for half in (0, width // 2)
        ]

    def _finish(
        self, n: Index, h: Index, columns: list[Index], channel: Index, vectors: int, channels: int, acc: list[list[list[Value]]]
    ) -> None:
        """Run the steps and store: 64 bytes at once where the program allows it, else by vectors in the order of channels."""
        b, c = self.b, self.codelet
        fetch = Fetch(b, c.operands, self.buffers, c.params, self.instructions)
        places = [(n, h, w, channel) for w in columns]
        bases = [[b.at(self.buffers[o.buffer], bytes_of(o, place, b)) for o in c.operands] for place in places]
        targets = [b.at(self.buffers[c.y.buffer], bytes_of(c.y, place, b)) for place in places]
        packed = channels == LANES * vectors and c.y.strides[3] == 1 and self.steps.packs(c.steps, c.y.element)

        def move(m: int, r: int, p: int, first: int = 0) -> None:
            """Let `fetch` read behind natural vector m (of 4) of output (r, p)."""
            group, vector = divmod(m, vectors)
            step = (r, p, LANES * vector + first)
            fetch.key, fetch.place = step[2], lambda number: bases[group][number] + _static(c.operands[number], step)

        def interleaved(k: int, r: int, p: int) -> Any:
            def argument(arg: int, element: Any, lanes: int) -> Value:
                if arg >= 0 or not isinstance(element, str):
                    return fetch(arg, element, lanes)
                natural: list[Value] = []
                for m in range(4):
                    move(m, r, p)
                    natural.append(fetch(arg, element, lanes))
                return self._transposed(natural)[k]

            return argument

        for r, row in enumerate(acc):
            for p, accumulators in enumerate(row):
                if packed:
                    found = self.steps.run_packed(c.steps, accumulators, [interleaved(k, r, p) for k in range(4)])
                    for group, target in enumerate(targets):
                        width = LANES * vectors
                        part = b.shuffle(found, found, list(range(group * width, (group + 1) * width))) if vectors < 4 else found
                        b.store(part, target + _static(c.y, (r, p, 0)))
                    continue
                for m, whole in enumerate(self._transposed(accumulators)):
                    group, vector = divmod(m, vectors)
                    for first, count in pieces(min(LANES, channels - LANES * vector), LANES):
                        value = whole if count == LANES else b.shuffle(whole, whole, list(range(first, first + count)))
                        move(m, r, p, first)
                        result = self.steps.run(c.steps, value, fetch)
                        store(b, c.y.element, targets[group] + _static(c.y, (r, p, LANES * vector + first)), c.y.strides[3], result)

    def _transposed(self, accumulators: list[Value]) -> list[Value]:
        """The 4 x 4 matrix of 128-bit lanes, transposed."""
        b = self.b

        def halves(x: Value, y: Value, lanes: Sequence[int]) -> Value:
            return b.shuffle(x, y, [4 * lane + i for lane in lanes for i in range(4)])

        (a0, a1), (a2, a3) = ((halves(x, y, (0, 4, 1, 5)), halves(x, y, (2, 6, 3, 7))) for x, y in (accumulators[:2], accumulators[2:]))
        return [halves(low, high, lanes) for low, high in ((a0, a2), (a1, a3)) for lanes in ((0, 1, 4, 5), (2, 3, 6, 7))]


def _static(operand: Any, step: tuple[int, int, int]) -> int:
    return sum(s * i for s, i in zip(operand.strides[1:], step, strict=True)) * ELEMENT_BYTES[operand.element]
