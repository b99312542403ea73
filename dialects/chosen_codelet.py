"""The configurations of codelets that copy whole rows chosen by integers; `dialects/codelet.py` has the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qcc.dialects.codelet import Operand


@dataclass(frozen=True)
class Embedding:
    """y[i, :] = table[ids[i], :] over `sizes` (ids, width); ids below 0 count from the end, then all are cut to 0..rows - 1.

    A task is `chunk` ids.
    """

    isa: str
    sizes: tuple[int, int]
    rows: int
    table: Operand
    ids: Operand
    y: Operand
    chunk: int
    kind: str = "embedding"


@dataclass(frozen=True)
class Insert:
    """y[o, positions[i], :] = x[o, i, :] over `sizes` (o, i, width), i in order; all else of y stays as it is.

    Positions below 0 count from the end, then all are cut to 0..rows - 1. A task is `chunk` of the o.
    """

    isa: str
    sizes: tuple[int, int, int]
    rows: int
    x: Operand
    positions: Operand
    y: Operand
    chunk: int
    kind: str = "insert"
