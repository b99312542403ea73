"""Configurations for products of -1, 0 and 1, whose operands are bits; `dialects/codelet.py` has the other codelets.

A number in {-1, 0, 1} takes two bits: its sign (set for -1) and whether it is not 0. Where no element is 0, only the first is stored. Bits
of 32 neighbouring channels are a word; the words of a place are [word][plane], signs first. Bits without a channel are 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qcc.dialects.codelet import Halo, Operand


@dataclass(frozen=True)
class Signs:
    """What a `Contraction` of compute popcount_words or popcount_bytes adds: with d the bits in which x and w differ, and n those in which
    both are not 0, its accumulator is bias + n - 2 d.

    x and w are words, `run` counts them, and weights are packed [block][tap][word][vector][plane][lane]. Where one operand has one plane, n
    depends on the other alone: of w it is in the bias, of x it is counted while running. Where x has one plane, its border reads as 1, and
    the bias takes that off again: it has one row for each of the first `edges[0]` rows of results, one for all between, one for each of the
    last `edges[1]`; the same in columns with `edges[2:]`.
    """

    x_planes: int
    w_planes: int
    edges: tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass(frozen=True)
class PackSigns:
    """The sign words of stored bytes: x[n, h, w, c] u8 to y[n, h, w, word, plane] i32.

    `sizes` are n, h, w, c; y's strides are over (n, h, w), each place having `words` words. Word `zero` of `params` is the stored zero
    point: the sign of a channel is x < zero. A task is `chunk` rows of n * h.
    """

    isa: str
    sizes: tuple[int, int, int, int]
    words: int
    planes: int
    x: Operand
    y: Operand
    zero: int
    params: int
    chunk: int
    halo: Halo | None = None
    kind: str = "pack_signs"


WORD_BITS = 32
BYTE_STEPS = 31  # sums of 8-bit counts of the bits of a byte, at most 8 each, that fit a byte


def edge_class(index: int, size: int, first: int, last: int) -> int:
    """The row of the bias table for row `index` of `size` results."""
    return min(index, first) + max(0, index - (size - last) + 1)
