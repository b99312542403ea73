"""Configurations of the codelets for products that keep only the weights that are not zero; `dialects/codelet.py` has the others.

Weights are compressed rows: per output channel, where they are in 16 bits beside f32 values, or beside quadruples of bytes.
`passes/tile/codelets/sparse_packing.py` and `dialects/pixel_units.py` pack them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qcc.dialects.instruction_sets import ISAS

if TYPE_CHECKING:
    from qcc.dialects.codelet import Halo, Operand, Step

MOST_VECTORS = 4  # of rows of x that share a weight
BLOCK_BYTES = 32 * 1024  # of x that stay in the first-level cache while weights pass by
MOST_COLUMNS = 1 << 16  # that a column number names


@dataclass(frozen=True)
class SparseGather:
    """y[m, n] = bias[n] + sum over the stored k of x[m, k] * w[n, k]: the lanes are weights of one channel, x is gathered.

    `sizes` are rows, channels and k. A step of a channel is `lanes` column numbers u16, then as many f32 values; `counts` (i32, one for
    each channel, padded to whole blocks) has the steps of every channel and `starts` (i64) the byte where each block of `lanes` channels
    begins. What is missing in a channel's last step has value 0. A task is `chunk` blocks. x has strides over (m, k), y and operands over
    (m, n).
    """

    isa: str
    sizes: tuple[int, int, int]
    chunk: int
    x: Operand
    w: Operand
    starts: int
    counts: int
    operands: tuple[Operand, ...]
    steps: tuple[Step, ...]
    y: Operand
    bias: Operand | None = None
    params: int = -1
    kind: str = "sparse_gather"

    @property
    def step_bytes(self) -> int:
        """Of `lanes` weights with their columns."""
        return 6 * ISAS[self.isa].lanes


@dataclass(frozen=True)
class RowLanes:
    """x f32 [rows, k] with rows innermost: y[block][k][width], `width` rows a block, k padded to whole vectors; missing rows are 0.

    A task is `chunk` vectors of k.
    """

    isa: str
    sizes: tuple[int, int]
    width: int
    chunk: int
    x: Operand
    y: Operand
    kind: str = "row_lanes"

    @property
    def padded_k(self) -> int:
        lanes = ISAS[self.isa].lanes
        return -(-self.sizes[1] // lanes) * lanes


class _InUnits:
    """What codelets share whose weights come in units: of each channel of a group one."""

    isa: str
    vectors: int
    chunk: int

    @property
    def group(self) -> int:
        """Channels taken at once, so many that no sum waits for the multiply-add before, and that half of the registers hold the sums."""
        facts = ISAS[self.isa]
        most = max(1, facts.registers // 2 // self.vectors)
        return min(facts.lanes, 1 << (most.bit_length() - 1))

    @property
    def head_bytes(self) -> int:
        return 2 * (self.group + 1)

    @property
    def unit_bytes(self) -> int:
        return 6 * self.group

    @property
    def row_bytes(self) -> int:
        """Of x, what one weight meets; and the sums of one channel."""
        return 4 * self.vectors * ISAS[self.isa].lanes

    @property
    def sums_bytes(self) -> int:
        """Scratch for the sums of a task's channels, padded to whole vectors."""
        lanes = ISAS[self.isa].lanes
        return -(-self.chunk // lanes) * lanes * self.row_bytes

    def _heads_bytes(self, channels: int, blocks: int) -> int:
        """Of all groups, tasks' channels and blocks of x together."""
        chunks, left = divmod(channels, self.chunk)
        return blocks * self.head_bytes * (chunks * -(-self.chunk // self.group) + -(-left // self.group))


@dataclass(frozen=True)
class SparseLanes(_InUnits):
    """As `SparseGather`, for many rows of x: the lanes are rows, of which x is what `RowLanes` makes, and a weight is broadcast.

    A block of `depth` k and `vectors` vectors of rows of x stays in the first-level cache while the weights of a task pass by; sums wait in
    scratch [channel of the task][vector][lane]. Per task (`chunk` channels) and block of k, channels are ordered by their number of weights
    and taken in groups of `group`, whose sums stay in registers. From the byte that `starts` (i64) has for both: per group a head (u16 the
    number of every channel in the task, u16 how many units), then in this order their units: of each channel of the group one weight, first
    the offsets u16 (bytes of x from the start of the block of k), then the f32 values. A channel with fewer weights than the last of its
    group gets zeros, in columns where it has no weight; a last group that is not full has channels without weights.
    `padded_k` is RowLanes's. y and operands have strides over (m, n).
    """

    isa: str
    sizes: tuple[int, int, int]
    vectors: int
    depth: int
    padded_k: int
    chunk: int
    x: Operand
    w: Operand
    starts: int
    operands: tuple[Operand, ...]
    steps: tuple[Step, ...]
    y: Operand
    bias: Operand | None = None
    params: int = -1
    kind: str = "sparse_lanes"

    @property
    def heads_bytes(self) -> int:
        return self._heads_bytes(self.sizes[1], self.k_blocks)

    @property
    def k_blocks(self) -> int:
        return -(-self.sizes[2] // self.depth)

    @property
    def scratch_bytes(self) -> int:
        return self.sums_bytes


@dataclass(frozen=True)
class SparsePixels(_InUnits):
    """A convolution of bytes: acc[n, h, w, c] = bias[c] + sum over the stored quadruples of x * w, then the steps; the lanes are pixels.

    The iteration space of every operand is (n, h, w, c); y and the operands that vary over pixels have as many channels as 4 divides. The
    reduction is that of `Contraction`, each run cut into quadruples. A task is `strip` tiles of `vectors` vectors of pixels (in the order
    n, h, w) and `chunk` channels. Into scratch, x of a tile is turned around, so that each quadruple is a row of words [pixel]: square by
    square of as many quadruples as a vector has lanes (the last of a run reaches into the next, which overwrites what it left), `squares`
    of them a block, which stays in the first-level cache while the weights of the channels pass by.
    Weights (`dialects/pixel_units.py`) begin, where `ordered`, with the order of the channels of a square, bytes [chunk][square][channel of
    the square], then have i64 [chunk][block], the byte of the weights where both begin. There they are those of `SparseLanes`, a word of
    four signed bytes where it has a float: groups of channels in the order of their number of quadruples; offsets are bytes from the first
    quadruple of the block. Sums wait in scratch [channel of the task][pixel], then the places of pixels in x, in y and in the operands, in
    bytes.
    """

    isa: str
    sizes: tuple[int, int, int, int]
    x: Operand
    w: Operand
    taps: tuple[int, int]
    tap_strides: tuple[int, int]
    run: int
    vectors: int
    squares: int
    chunk: int
    strip: int
    operands: tuple[Operand, ...]
    steps: tuple[Step, ...]
    y: Operand
    bias: Operand
    params: int = -1
    ordered: bool = False
    halo: Halo | None = None
    kind: str = "sparse_pixels"

    @property
    def pixels(self) -> int:
        """Of a tile."""
        return self.vectors * ISAS[self.isa].lanes

    @property
    def tiles(self) -> int:
        """A last one of fewer pixels included."""
        return -(-self.sizes[0] * self.sizes[1] * self.sizes[2] // self.pixels)

    @property
    def run_squares(self) -> int:
        return -(-self.run // (4 * ISAS[self.isa].lanes))

    def first(self, square: int) -> int:
        """Number of the first quadruple of a square in the reduction."""
        tap, place = divmod(square, self.run_squares)
        return tap * -(-self.run // 4) + place * ISAS[self.isa].lanes

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """First quadruple, and the one behind the last, of every block of the reduction."""
        total = self.taps[0] * self.taps[1] * self.run_squares
        begins = [self.first(square) for square in range(0, total, self.squares)]
        return list(zip(begins, [*begins[1:], self.first(total)], strict=True))

    @property
    def order_bytes(self) -> int:
        """In front of the weights."""
        chunks, total = -(-self.sizes[3] // self.chunk), self.taps[0] * self.taps[1] * self.run_squares
        return chunks * total * 4 * ISAS[self.isa].lanes if self.ordered else 0

    @property
    def heads_bytes(self) -> int:
        return self._heads_bytes(self.sizes[3], len(self.blocks))

    @property
    def varying(self) -> list[int]:
        """Numbers of the operands that differ between pixels."""
        return [i for i, operand in enumerate(self.operands) if any(operand.strides[:3])]

    @property
    def x_bytes(self) -> int:
        """Scratch for a block of x."""
        return self.squares * ISAS[self.isa].lanes * self.row_bytes

    @property
    def scratch_bytes(self) -> int:
        return self.x_bytes + self.sums_bytes + (2 + len(self.varying)) * 8 * self.pixels


def lanes_shape(isa: str, rows: int) -> tuple[int, int]:
    """(vectors, depth) of `SparseLanes` for `rows` rows of x."""
    lanes = ISAS[isa].lanes
    needed = -(-rows // lanes)
    vectors = -(-needed // -(-needed // MOST_VECTORS))
    return vectors, BLOCK_BYTES // (4 * vectors * lanes) // lanes * lanes
