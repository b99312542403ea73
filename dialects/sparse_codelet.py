"""Configurations of the codelets for linear layers that keep only the weights that are not zero; `dialects/codelet.py` has the others.

Weights are compressed rows: per output channel, column numbers of 16 bits beside f32 values. `passes/tile/codelets/sparse_packing.py` packs
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qcc.dialects.instruction_sets import ISAS

if TYPE_CHECKING:
    from qcc.dialects.codelet import Operand, Step

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


@dataclass(frozen=True)
class SparseLanes:
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
    def group(self) -> int:
        """Channels taken at once, so many that no sum waits for the multiply-add before, and that half of the registers hold the sums."""
        facts = ISAS[self.isa]
        most = facts.registers // 2 // self.vectors
        return min(facts.lanes, 1 << (most.bit_length() - 1))

    @property
    def head_bytes(self) -> int:
        return 2 * (self.group + 1)

    @property
    def heads_bytes(self) -> int:
        """Of all groups, tasks and blocks of k together."""
        tasks, left = divmod(self.sizes[1], self.chunk)
        return self.k_blocks * self.head_bytes * (tasks * -(-self.chunk // self.group) + -(-left // self.group))

    @property
    def unit_bytes(self) -> int:
        return 6 * self.group

    @property
    def row_bytes(self) -> int:
        """One k of a block of rows of x, and the sums of one channel."""
        return 4 * self.vectors * ISAS[self.isa].lanes

    @property
    def k_blocks(self) -> int:
        return -(-self.sizes[2] // self.depth)

    @property
    def scratch_bytes(self) -> int:
        """Sums of a task's channels, padded to whole vectors."""
        lanes = ISAS[self.isa].lanes
        return -(-self.chunk // lanes) * lanes * self.row_bytes


def lanes_shape(isa: str, rows: int) -> tuple[int, int]:
    """(vectors, depth) of `SparseLanes` for `rows` rows of x."""
    lanes = ISAS[isa].lanes
    needed = -(-rows // lanes)
    vectors = -(-needed // -(-needed // MOST_VECTORS))
    return vectors, BLOCK_BYTES // (4 * vectors * lanes) // lanes * lanes
