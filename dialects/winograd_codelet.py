"""Configuration of a 3x3 convolution by Winograd's minimal filtering, and its tilings; `dialects/codelet.py` has the other codelets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qcc.dialects.instruction_sets import ISAS

if TYPE_CHECKING:
    from qcc.dialects.codelet import Halo, Operand, Step

POINTS = 36  # of F(4x4, 3x3)


@dataclass(frozen=True)
class Winograd:
    """A 3x3 convolution of stride 1 by F(4x4, 3x3): acc[n, h, w, c] = bias[c] + sum of x * w over 3 x 3 and `channels`, then the steps.

    The iteration space of every operand is (n, h, w, c). h and w are 4 or more, x's channels and c multiples of 32. w holds transformed
    weights [block][36][step][vector][lane][depth], a block being `tile[2]` vectors; integers are scaled by 576 (see the loop nest), and so
    is the bias. `strip` of the `tiles` tiles of 4 x 4 results (in the order n, h, w; the last of a row or column ends with it and overlaps
    the one before) and `chunk` blocks are a task; `tile` is the register tile (1, at most so many tiles, vectors) of the 36 products. With
    `narrow`, h and w are 4k or 4k + 2, and the last tile of a row or column has 2 results there instead of overlapping (see
    `narrow_tiles`); a strip holds whole images. Scratch is 36 times the sum of `pitches`.
    """

    isa: str
    compute: str  # dot2_s16, lane_f32
    sizes: tuple[int, int, int, int]
    channels: int
    x: Operand
    w: Operand
    tile: tuple[int, int, int]
    strip: int
    chunk: int
    operands: tuple[Operand, ...]
    steps: tuple[Step, ...]
    y: Operand
    bias: Operand | None = None
    params: int = -1
    halo: Halo | None = None
    narrow: bool = False
    kind: str = "winograd"

    @property
    def tiles(self) -> int:
        """Tiles of results of all images."""
        n, h, w, _ = self.sizes
        return n * -(-h // 4) * -(-w // 4)


def narrow_tiles(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """(rows of tiles, columns of tiles, height, width of a tile's results) of the narrow tiling of an image, in the order of a strip: those
    at the right edge, whole ones, those at the bottom, the corner. So tiles with 4 rows, with 4 columns and with both are neighbours."""
    (down, bottom), (across, right) = ((size // 4, size % 4) for size in (height, width))
    kinds = [(down, 1, 4, right), (down, across, 4, 4), (1, across, bottom, 4), (1, 1, bottom, right)]
    return [kind for kind in kinds if kind[2] and kind[3]]


def products(height: int, width: int, narrow: bool) -> int:
    """Products of an image for one x channel and one result channel: a dimension of 4 results takes 6, one of 2 takes 4."""
    if not narrow:
        return POINTS * -(-height // 4) * -(-width // 4)
    return sum(rows * columns * (high + 2) * (wide + 2) for rows, columns, high, wide in narrow_tiles(height, width))


def pitches(codelet: Winograd) -> tuple[int, int]:
    """Bytes from one of the 36 points to the next: of the transformed x of a strip and of the sums of a block; no multiples of a page."""
    x_bytes = codelet.strip * codelet.channels * (2 if codelet.compute == "dot2_s16" else 4)
    return x_bytes + 64, codelet.strip * codelet.tile[2] * ISAS[codelet.isa].lanes * 4 + 64
