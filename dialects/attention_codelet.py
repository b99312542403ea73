"""The configuration of the codelet that computes attention of a few queries; `dialects/codelet.py` has the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qcc.dialects.instruction_sets import ISAS

if TYPE_CHECKING:
    from qcc.dialects.codelet import Operand

MOST_QUERIES = 8
"""Beyond, products that pack keys and values first are faster."""


@dataclass(frozen=True)
class Attend:
    """y = softmax(scale * q k^T + mask) v over `sizes` (b0, b1, t, s, d, e), f32 throughout, keys and values read where they lie.

    Strides of q and y are over (b0, b1, t, .), of k and v over (b0, b1, s, .), each contiguous in the last; `mask` over (b0, b1, t, s). d
    and e are whole vectors. Keys whose mask is minus infinity for a vector of them are not read. `scale` is word 0 of `params`. A task is
    `chunk` of the b0 * b1 heads.
    """

    isa: str
    sizes: tuple[int, int, int, int, int, int]
    q: Operand
    k: Operand
    v: Operand
    params: int
    y: Operand
    chunk: int
    mask: Operand | None = None
    kind: str = "attend"

    @property
    def padded_keys(self) -> int:
        """Keys in whole vectors: scores of a query in thread scratch."""
        lanes = ISAS[self.isa].lanes
        return -(-self.sizes[3] // lanes) * lanes

    @property
    def scratch_bytes(self) -> int:
        """Scores and sums of all queries of a head, and one over the sum of the exponentials of each."""
        return 4 * self.sizes[2] * (self.padded_keys + self.sizes[5] + 1)
