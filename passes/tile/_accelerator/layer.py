"""A layer of the accelerator: one sweep of the matrix engine over output pixels, whatever the operation was.

Convolutions and linear layers multiply by their weights. Pooling, additions and rescaling multiply by an identity:
the array then only gathers,
and its zero words are never issued, so it needs no hardware of its own.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qcc.dialects import bitplanes


@dataclass
class Buffer:
    """A tensor's place in DRAM: `pixels` records of `pixel_words` words, with the room that their coding needs.

    `use` is input, output or arena; `index` numbers the first two.
    """

    name: str
    pixels: int
    pixel_words: int
    use: str = "arena"
    index: int = 0
    value: Any = None  # the qtile.buffer that stands for it
    zeros: float = 0.0  # share of its elements that is 0, as measured
    zero: int = 0  # the integer that stands for 0
    coding: str = "raw"  # of its pixels, one of isa.ACTIVATION_CODINGS


@dataclass
class Placement:
    """One activation tensor inside a buffer: logical `shape`, channel axis `axis`, stored integers `low`..`high`.

    `positions[c]` is the bit position of channel c in the pixel; `offset` words in front of it belong to other
    tensors of the same buffer.
    """

    shape: list[int]
    axis: int
    low: int
    high: int
    positions: np.ndarray
    word_bits: int
    buffer: Buffer | None = None
    offset: int = 0
    gather: Window | None = None  # of a segment's input: the driver stores windows of the tensor instead of its pixels
    gather_value: int = 0  # what a tap outside the image reads
    constant: np.ndarray | None = None  # one pixel's stored integers that stand for all pixels; has no buffer

    @property
    def planes(self) -> int:
        return bitplanes.planes_of(self.low, self.high)[0]

    @property
    def signed(self) -> bool:
        return bitplanes.planes_of(self.low, self.high)[1]

    @property
    def words(self) -> int:
        """Words of one plane of a pixel."""
        return bitplanes.words_for(int(self.positions[-1]) + 1, self.word_bits)

    @property
    def pixels(self) -> int:
        return math.prod(self.shape) // self.shape[self.axis]

    def as_dict(self) -> dict[str, Any]:
        """What the driver needs to pack or unpack it, without addresses."""
        assert self.buffer is not None
        gather = None
        if self.gather is not None:
            gather = {**dataclasses.asdict(self.gather), "value": self.gather_value}
        return {
            "gather": gather,
            "shape": self.shape,
            "axis": self.axis,
            "planes": self.planes,
            "signed": int(self.signed),
            "word_offset": self.offset,
            "pixel_words": self.buffer.pixel_words,
            "positions": [int(p) for p in self.positions],
        }


@dataclass(frozen=True)
class Window:
    """Output pixels [images, out_height, out_width] and the input pixels each one reads."""

    images: int
    height: int
    width: int
    out_height: int
    out_width: int
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    top: int = 0
    left: int = 0

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]

    @property
    def pixels(self) -> int:
        return self.images * self.out_height * self.out_width

    @property
    def padded(self) -> bool:
        """Whether any window leaves its image."""
        last = [
            (n - 1) * s + (k - 1) * d
            for n, s, k, d in zip((self.out_height, self.out_width), self.strides, self.kernel, self.dilations, strict=True)
        ]
        return bool(self.top or self.left or last[0] - self.top >= self.height or last[1] - self.left >= self.width)

    def flattened(self, greatest: int) -> Window:
        """The same as one row of pixels, where every output pixel reads just its own input pixel."""
        if (
            self.taps == 1
            and self.strides == (1, 1)
            and not self.padded
            and (self.out_height, self.out_width) == (self.height, self.width)
            and self.pixels <= greatest
        ):
            return Window(1, 1, self.pixels, 1, self.pixels)
        return self


class Weights:
    """What the array multiplies by: R output positions at a time, so that identities of large layers are never built whole."""

    outputs: int  # output positions
    window: int = 1  # weight tiles per channel tile, of which the post unit keeps the greatest
    low: int
    high: int
    bipolar: bool = False

    @property
    def planes(self) -> int:
        return 1 if self.bipolar else bitplanes.planes_of(self.low, self.high)[0]

    @property
    def signed(self) -> bool:
        return not self.bipolar and bitplanes.planes_of(self.low, self.high)[1]

    def rows(self, first: int, count: int, tap: int, words: tuple[int, int]) -> np.ndarray:
        """[count, taps, (words[1] - words[0]) * K] stored integers of outputs `first`.. and pooling tap `tap`."""
        raise NotImplementedError  # abstract

    def input_words(self, first: int, count: int) -> tuple[int, int]:
        """Range of input words that outputs `first`..`first + count` read."""
        raise NotImplementedError  # abstract


@dataclass
class Matrix(Weights):
    """Real weights w [out, channels per group, taps], of an input whose channel c lies at bit positions[c]."""

    w: np.ndarray
    groups: int
    positions: np.ndarray
    word_bits: int
    outputs: int = field(init=False)
    low: int = field(init=False)
    high: int = field(init=False)

    def __post_init__(self) -> None:
        self.outputs, self.low, self.high = self.w.shape[0], int(self.w.min(initial=0)), int(self.w.max(initial=0))
        dense = self.groups == 1 and np.array_equal(self.positions, np.arange(len(self.positions)))
        self.bipolar = dense and bool(np.isin(self.w, (-1, 1)).all())

    def _channels(self, output: int) -> np.ndarray:
        per_group = self.w.shape[1]
        group = output // (self.outputs // self.groups)
        return self.positions[group * per_group : (group + 1) * per_group]

    def rows(self, first: int, count: int, tap: int, words: tuple[int, int]) -> np.ndarray:
        k = self.word_bits
        out = np.zeros((count, self.w.shape[2], (words[1] - words[0]) * k), np.int64)
        for i in range(min(count, self.outputs - first)):
            at = self._channels(first + i) - words[0] * k
            inside = (at >= 0) & (at < out.shape[2])
            taken = self.w[first + i][inside].T  # [taps, channels]
            out[i][:, at[inside]] = (taken + 1) // 2 if self.bipolar else taken
        return out

    def input_words(self, first: int, count: int) -> tuple[int, int]:
        last = min(first + count, self.outputs) - 1
        low, high = self._channels(first), self._channels(last)
        return int(low[0]) // self.word_bits, int(high[-1]) // self.word_bits + 1


@dataclass
class Identity(Weights):
    """Output c is the sum over taps (or, pooling, every tap by itself) of the input's bit positions[c]."""

    positions: np.ndarray
    taps: int
    pooling: bool
    word_bits: int
    outputs: int = field(init=False)
    low: int = 0
    high: int = 1
    window: int = field(init=False)

    def __post_init__(self) -> None:
        self.outputs, self.window = len(self.positions), self.taps if self.pooling else 1

    def rows(self, first: int, count: int, tap: int, words: tuple[int, int]) -> np.ndarray:
        out = np.zeros((count, self.taps, (words[1] - words[0]) * self.word_bits), np.int64)
        at = self.positions[first : first + count] - words[0] * self.word_bits
        row = np.flatnonzero((at >= 0) & (at < out.shape[2]))
        out[row, tap if self.pooling else slice(None), at[row]] = 1
        return out

    def input_words(self, first: int, count: int) -> tuple[int, int]:
        last = min(first + count, self.outputs) - 1
        return int(self.positions[first]) // self.word_bits, int(self.positions[last]) // self.word_bits + 1


@dataclass
class Requantization:
    """Per output position `bias`, `multiplier`, `shift` (i64 arrays), then zero point, clamp and the stored format."""

    bias: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    zero_point: int
    low: int
    high: int
    bits: int
    rounding: str


@dataclass
class Residual:
    """The addition behind the requantization; see isa.post_residual and isa.post_residual_scale."""

    source: Placement
    scale: dict[str, int]
    zero_point: int
    low: int
    high: int


@dataclass
class Layer:
    """One sweep: gather `source` by `window`, multiply by `weights`, `post`, add `residual`, write to `destination`."""

    name: str
    location: Any
    source: Placement
    window: Window
    weights: Weights
    post: Requantization
    destination: Placement
    residual: Residual | None = None
    pad_value: int = 0
