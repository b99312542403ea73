"""The loop nest of sparse linear layers with few rows: a vector of weights of one channel meets what is gathered of x.

Only weights that are stored are read and multiplied: 6 bytes and, on AVX-512, 0.7 cycles each. Where a gather takes more than a load for
every lane (`IsaFacts.gathers`), x is loaded lane by lane. The sums of as many channels as there are lanes are added up across lanes
together, and go through the steps as one vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import SparseGather
from qcc.dialects.instruction_sets import ISAS
from qcc.passes.llvm.codelets.access import bytes_of, load, pieces
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value
from qcc.passes.llvm.codelets.results import Results
from qcc.passes.llvm.codelets.transposition import sums_of

AHEAD_BYTES, LINE_BYTES = 3072, 64
"""Weights are asked for this far ahead; at two distances, as streams do it, requests take more of the ports of loads than they save."""


def emit(b: Builder, codelet: SparseGather, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task: a chunk of blocks, the last one with the channels that are left."""
    lanes = ISAS[codelet.isa].lanes
    full, rest = divmod(codelet.sizes[1], lanes)
    nest = _Nest(b, codelet, buffers, instructions)
    first = b.mul(task, codelet.chunk)
    last = b.minimum(b.add(first, codelet.chunk), full + bool(rest))
    if full:
        b.loop(first, b.minimum(last, full), 1, lambda block: nest.block(block, lanes))
    if rest:
        b.when(b.equal(last, full + 1), lambda: nest.block(full, rest))


class _Nest:
    def __init__(self, b: Builder, codelet: SparseGather, buffers: Sequence[Value], instructions: Any) -> None:
        self.b, self.codelet, self.buffers, self.instructions = b, codelet, buffers, instructions
        self.lanes = ISAS[codelet.isa].lanes
        x = codelet.x
        self.rows = [b.pointer(b.at(buffers[x.buffer], bytes_of(x, (m, 0), b))) for m in range(codelet.sizes[0])]

    def block(self, block: Index, channels: int) -> None:
        """`channels` channels from the block's first one on."""
        b, c = self.b, self.codelet
        first = b.mul(block, self.lanes)
        counts = b.at(self.buffers[c.counts], b.mul(first, 4))
        place = b.load("i64", b.at(self.buffers[c.starts], b.mul(block, 8)))
        nothing = b.constant(0, f"{self.lanes}xf32")
        sums: list[list[Value]] = []
        for channel in range(channels):
            count = b.cast("zext", b.load("i32", counts + 4 * channel), "i64")
            place, *totals = b.loop(0, count, 1, self._step, [place, *[nothing] * len(self.rows)])
            sums.append(totals)
        sums += [[nothing] * len(self.rows)] * (self.lanes - channels)
        results = Results(b, c, self.buffers, self.instructions, (0, first))
        for m in range(len(self.rows)):
            total = sums_of(b, [s[m] for s in sums])
            if c.bias is not None:
                bias = load(b, "f32", b.at(self.buffers[c.bias.buffer], bytes_of(c.bias, (0, first), b)), 1, self.lanes)
                total = b.binary("fadd", total, bias)
            for start, count in pieces(channels, self.lanes):
                part = total if count == self.lanes else b.shuffle(total, total, list(range(start, start + count)))
                results.put((m, start), part)
        results.end()

    def _step(self, _: Index, place: Value, *totals: Value) -> list[Value]:
        """`lanes` weights of a channel."""
        b, size = self.b, self.codelet.step_bytes
        here = b.at(self.buffers[self.codelet.w.buffer], place)
        for line in range(0, size, LINE_BYTES):
            b.prefetch(here + (AHEAD_BYTES + line), level=1)
        gather = self._gather if ISAS[self.codelet.isa].gathers else self._collect
        gathered = gather(here)
        weights = b.load(f"{self.lanes}xf32", here + 2 * self.lanes)
        made = [b.op("llvm.intr.fma", [weights, x, total], f"{self.lanes}xf32") for x, total in zip(gathered, totals, strict=True)]
        return [b.add(place, size), *made]

    def _gather(self, columns: Address) -> list[Value]:
        """What every row has in the columns of a step."""
        numbers = self.b.cast("zext", self.b.load(f"{self.lanes}xi16", columns), "i32")
        return [self.b.gather(row, numbers, "f32") for row in self.rows]

    def _collect(self, columns: Address) -> list[Value]:
        """The same by a load per lane."""
        b = self.b
        found = [b.op("llvm.mlir.poison", [], f"{self.lanes}xf32")] * len(self.rows)
        for lane in range(self.lanes):
            offset = b.mul(b.cast("zext", b.load("i16", columns + 2 * lane, single=True), "i64"), 4)
            found = [
                b.insert(made, b.load("f32", b.at(row, offset), single=True), lane) for made, row in zip(found, self.rows, strict=True)
            ]
        return found
