"""Configurations for layers that look at a window of each channel by itself; `dialects/codelet.py` has the other codelets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qcc.dialects.codelet import Halo, Operand, Step


@dataclass(frozen=True)
class Depthwise:
    """Depthwise convolution: acc[n, h, w, c] = bias[c] + sum over taps of x * w[tap, c], then the steps.

    The iteration space is (n, h, w, c); x's strides include the convolution's, `tap_strides` are those of a kernel row and column. w is
    packed [tap][c padded to whole vectors] and so is the bias. `columns` pixels share the loaded weights; a task is `chunk` rows of n * h.
    dot2_s16 multiplies u8 x s16 in pairs of taps, a multiple of 16 channels: w is packed [pair of `tap_pairs`][c / 16][2][8][2], the
    channels of 16 in the order of `PAIRED_CHANNELS`.
    """

    isa: str
    compute: str  # lane_i32, lane_i64, lane_f32, dot2_s16
    sizes: tuple[int, int, int, int]
    x: Operand
    w: Operand
    taps: tuple[int, int]
    tap_strides: tuple[int, int]
    columns: int
    chunk: int
    operands: tuple[Operand, ...]
    steps: tuple[Step, ...]
    y: Operand
    bias: Operand | None = None
    params: int = -1
    halo: Halo | None = None
    kind: str = "depthwise"


PAIRED_CHANNELS = ((0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15))
"""Of 16 channels those that interleaving the low and the high words of every 128 bits brings together."""


def tap_pairs(rows: int, columns: int) -> list[tuple[int, int | None]]:
    """The taps of a kernel, numbered row by row, in pairs: one above the other, which neighbouring outputs share, then side by side."""
    pairs: list[tuple[int, int | None]] = [(r * columns + j, (r + 1) * columns + j) for r in range(0, rows - 1, 2) for j in range(columns)]
    rest = range((rows - rows % 2) * columns, rows * columns)
    return pairs + [(t, t + 1 if t + 1 in rest else None) for t in rest[::2]]


@dataclass(frozen=True)
class DepthwiseQuads:
    """Depthwise convolution u8 x s8 by products of depth 4: up to four pixels of a row, interleaved by channel, make the quadruples.

    The iteration space and `taps` are those of `Depthwise`. `pixels` neighbouring outputs share the interleaved input, each with weights
    that are 0 where a pixel is not its own: a 3 wide kernel of stride 1 serves two outputs by one quadruple. A tile is `rows` output rows.
    Channels are cut into `channel_blocks` of 16 * V channels; 64 bytes hold 4 / V groups of `pixels` outputs. w is packed
    [block][tap row][pixel][quad][4][16][4] and bias [block][4][16], both in the order in which `interleaved_channel` gives the channels.
    A task is `chunk` tiles of rows, n * ceil(h / rows) in all.
    """

    isa: str
    sizes: tuple[int, int, int, int]
    x: Operand
    w: Operand
    taps: tuple[int, int]
    tap_strides: tuple[int, int]
    pixels: int
    rows: int
    chunk: int
    operands: tuple[Operand, ...]
    steps: tuple[Step, ...]
    y: Operand
    bias: Operand
    params: int = -1
    halo: Halo | None = None
    kind: str = "depthwise_quads"

    def quads(self) -> list[list[int]]:
        """Offsets of x in elements, four to a quadruple, that the taps of one kernel row reach for `pixels` outputs."""
        return quads_of(self.taps[1], self.tap_strides[1], self.x.strides[2], self.pixels)


def quads_of(taps: int, tap_stride: int, pixel_stride: int, pixels: int) -> list[list[int]]:
    """`DepthwiseQuads.quads` of a kernel row."""
    offsets = sorted({p * pixel_stride + t * tap_stride for p in range(pixels) for t in range(taps)})
    return [offsets[i : i + 4] for i in range(0, len(offsets), 4)]


def channel_blocks(channels: int) -> list[tuple[int, int]]:
    """(first channel, vectors of 16) of the blocks of `DepthwiseQuads`: 64 channels each, then 32, then 16."""
    found: list[tuple[int, int]] = []
    first = 0
    while first < channels:
        left = -(-(channels - first) // 16)
        vectors = 4 if left >= 4 else 2 if left >= 2 else 1
        found.append((first, vectors))
        first += 16 * vectors
    return found


def interleaved_channel(vector: int, lane: int, vectors: int) -> int:
    """Channel, within its block, of lane `lane` (of 16) of vector `vector` (of 4) after unpacking bytes, then words, in 128-bit lanes."""
    return (16 * (lane // 4) + 4 * vector + lane % 4) % (16 * vectors)


@dataclass(frozen=True)
class Window:
    """Pooling: over (n, h, w, c) the `op` of a window of x, then the steps.

    `op`: max (same element as x), mean (f32), mean_quantized (f32; words `args` are the stored zero point of x and the multiplier). x's
    strides are those of single pixels of an image of `image` rows and columns; taps outside of it do not take part, and count in the
    divisor if `count_pad`. A task is `chunk` rows of n * h.
    """

    isa: str
    op: str
    sizes: tuple[int, int, int, int]
    image: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int]
    dilations: tuple[int, int]
    count_pad: bool
    args: tuple[int, ...]
    x: Operand
    chunk: int
    operands: tuple[Operand, ...]
    steps: tuple[Step, ...]
    y: Operand
    params: int = -1
    halo: Halo | None = None
    kind: str = "window"
