"""The configuration of the codelet for weight-only linear layers; `dialects/codelet.py` has the others and what they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qcc.dialects.instruction_sets import ISAS

if TYPE_CHECKING:
    from qcc.dialects.codelet import Operand, Step

PANEL_ROWS = 17
"""From which on a block of weights is decoded once for all of them."""


@dataclass(frozen=True)
class Stream:
    """Weight-only linear: y[m, n] = bias[n] + sum over groups of scale[g, n] * sum over k of x[m, k] * (level(code) - zero[g, n]).

    `sizes` are rows, channels and k. Channels are the lanes; a block is `vectors` vectors of them, a task `chunk` blocks. Weights are the
    headers [block][group], each its scales as [vector][lane] (and zeros likewise, of 4 bytes), then for each vector its codes
    [block][group][step][words of the decoder]; the last block, if it has fewer vectors, follows in the same form. Where blocks are not
    split so (`StreamLayout.is_split`): [block][group], header and codes [step][vector][words]. The last group has as many k as are left.
    `compute` is f32, or int16 and int8 for x quantized per row and group in the call and multiplied as signed bytes, high ones first; those
    two read affine codes only. Instruction sets without products of four bytes (`streams_pairs`) multiply 16 bits in pairs, and the bytes
    of a word of planes hold k 0, 2, 1, 3: both pairs are a mask away. `zeros` says where zero[g, n] is: "none" (0), "constant" (`zero`),
    "channel" (in the header; i32 where x is quantized, else f32). level(code) is `step` * code for the decoder "planes", what `table` says
    for "table", the byte itself for "bytes", the value of a half whose upper bits are the byte's for "half", and for "shuffle" the
    `level_digits` bytes, high one first, that `table` [digits, 64] (repeated) has for the code, less `zero` (low byte 128 where there are
    two). "sums" is "planes" of one bit each, [bit] words of 32 k, whose groups of 4 k name an entry in a table of sums of x that is made in
    the call; where lanes are bytes, [plane][step] bytes of 8 k. "products" has bytes of two codes of 4 bits, which name an entry in the
    tables that the call makes of every x times the 16 levels of `table`. "bitmap" stores a bit per byte of codes, [step][vector] words of
    64 bits for 16 channels of 4 bytes, and the bytes of the set ones in `values`; the others are `zero`. A byte is one code of 8 bits, or
    two of 4 bits, whose k are 4 apart. "indexed" stores signed values of 8 or 4 bits and the column of each in `values`, and in w per block
    of 16 channels their scales, the i32 sums of their values and a record per step (`stream_layout`); `starts` then has for every block
    where it begins in w and in `values`, and half of the number of its steps. "relative" stores how far the column of each value is from
    that of the value before of its channel, in 4 bits beside it, and in w per step how far its window moves on; else it is as "indexed".
    "quads" stores for every 4 k `kept` signed values of 8 or 4 bits, [step of 64 k][vector] first two bits each for where they are and then
    the values; sums of a group's values are in its header in the place of zeros. "bitmap_f32" stores a bit per weight, [step][vector] words
    of 64 bits for 4 k of 16 channels, and the set ones in `values`.
    x has strides over (m, k), y and operands over (m, n).
    """

    isa: str
    compute: str  # f32, int16, int8
    decoder: str  # of passes/llvm/codelets/decoders
    bits: int
    sizes: tuple[int, int, int]
    group: int
    vectors: int
    chunk: int
    x: Operand
    w: Operand
    operands: tuple[Operand, ...]
    steps: tuple[Step, ...]
    y: Operand
    scale: str = "f32"  # of the scales in headers, bf16, or e8m0 (exponents of powers of two; 0 is 0)
    zeros: str = "none"
    zero: int = 0
    step: int = 1
    level_digits: int = 0  # bytes of a level of decoder "shuffle"
    mantissa: int = 0  # of the small float behind decoder "half"
    table: int = -1  # number of the buffer with the levels
    values: int = -1  # number of the buffer with the values of decoders "bitmap", "indexed" and "relative"
    span: int = 0  # k of which 32 bits hold the exact sum, where x is multiplied in pairs and a group has more
    fill: int = 0  # bytes of values behind a mask, or of a pair of steps, on average
    kept: int = 0  # values of every 4 k behind decoder "quads"
    starts: int = -1  # number of the buffer with where in them every block begins, i64
    unit: bool = False  # x holds integers, which are multiplied as they are: its scale is 1
    bias: Operand | None = None
    params: int = -1
    kind: str = "stream"

    @property
    def lanes(self) -> int:
        """Channels of a vector: as many as 32-bit lanes, or where bytes are looked up for want of wider ones as bytes or words."""
        facts = ISAS[self.isa]
        if self.decoder not in ("sums", "products") or not facts.streams_pairs:
            return facts.lanes
        return facts.lanes * (2 if self.has_words else 4)

    @property
    def has_steps(self) -> bool:
        """Whether blocks are as many pairs of steps as their values need, each in a window of columns of its own."""
        return self.decoder in ("indexed", "relative")

    @property
    def has_panel(self) -> bool:
        """Whether a block's weights are decoded once for all rows, to f32 in the thread's scratch."""
        return self.compute == "f32" and self.decoder != "bitmap_f32" and self.sizes[0] >= PANEL_ROWS

    @property
    def has_words(self) -> bool:
        """Whether looked-up bytes of two planes of a channel make a word."""
        return self.decoder == "sums" and self.bits == 2
