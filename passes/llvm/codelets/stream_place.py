"""Where a group of a block of streamed weights lies, and how its memory is asked for ahead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.stream_layout import StreamLayout
from qcc.passes.llvm.codelets.builder import Address, Builder, Index
from qcc.passes.llvm.codelets.stream_prefetch import LINE_BYTES, Distances, prefetch_lines


@dataclass(frozen=True)
class Place:
    """Scales and zeros of all vectors at `header`; steps of vector v from `codes[v]` on, `stride` bytes apart."""

    layout: StreamLayout
    header: Address
    codes: Sequence[Address]
    stride: int

    @property
    def vectors(self) -> int:
        return len(self.codes)

    def step(self, b: Builder, v: int, s: Index) -> Address:
        return b.at(self.codes[v], b.mul(s, self.stride))

    def prefetch_steps(self, b: Builder, first: Index, count: int, part: tuple[int, int]) -> None:
        """Ask for part (i, n) of what lies as far ahead of `count` steps from `first` on as is best.

        Where the processor reads ahead well by itself, asking is slower, but for decoder "sums", whose streams advance slowly: half as far.
        """
        asks = ISAS[self.layout.codelet.isa].asks_ahead
        if not asks and self.layout.codelet.decoder != "sums":
            return
        if not self.layout.is_split:
            start = self.step(b, 0, first)
            lines = [start + line for line in range(0, count * self.stride, LINE_BYTES)]
            prefetch_lines(b, lines, part)
            return
        starts = [self.step(b, v, first) for v in range(self.vectors)]
        ends = [i * self.stride for i in range(count + 1)]  # a step may be half of a line
        lines = [
            start + line * LINE_BYTES
            for first, end in pairwise(-(-end // LINE_BYTES) for end in ends)
            for start in starts
            for line in range(first, end)
        ]
        prefetch_lines(b, lines, part, Distances.of(self.vectors if asks else 2 * self.vectors))

    def prefetch_header(self, b: Builder) -> None:
        """The same for the header, where it does not lie between codes; of the only group, the header itself, which is used last."""
        if not self.layout.is_split:
            return
        size = self.vectors * self.layout.header_bytes
        lines = [self.header + line for line in range(0, size, LINE_BYTES)]
        prefetch_lines(b, lines, (0, 1), Distances(2 * size, 16 * size) if self.layout.groups > 1 else Distances(0))
