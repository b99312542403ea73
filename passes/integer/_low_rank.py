"""Whether a matrix is the product of two thin ones, to the rounding of binary32: a sample first, then a test of every element. Pure numpy.

A submatrix has at most the rank of the matrix, so that a matrix of low rank never fails the sample; one that passes it by chance fails the
test. Both look at the matrix with its rows and columns divided by scales that the caller gives, so that none is too small to matter. Cost
for [n, k] and a sample of s rows and columns: 2 s^3 where the rank is not low, else 5 n k r.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

TOLERANCE = 2.0**-18
"""Of an element, times the scales of its row and column: four times what is left behind where 1000 products were added up in
binary32 to make it, as tools do that put truncated factors back together."""
MOST_RANK = 1024  # that is looked for
_BLOCK = 32  # rows of the sample that are looked at together
_SPARE = 16  # probes of the rows beyond the rank that the sample shows
_OUTSIDE = 2.0**-7  # of the greatest element: what rows of the sample leave outside of a span that has them all; else about 1
_ROWS = 64  # on which a rank is found
_CHUNK = 1 << 22  # elements that are binary64 at a time
F32 = np.float32


@dataclass(frozen=True)
class Factors:
    """The matrix is `left` [n, r] times `right` [r, k], both f32."""

    left: Array
    right: Array

    @property
    def rank(self) -> int:
        return self.left.shape[1]


def factors(matrix: Array, down: Array, across: Array, most: int) -> Factors | None:
    """`matrix` [n, k] f32 as a product of rank at most `most`, every element within TOLERANCE of the scales `down` [n] of its row and
    `across` [k] of its column; None where there is none."""
    most = min(most, MOST_RANK, min(matrix.shape) - 1)
    if most < 1 or not matrix.any():
        return None
    even = matrix / down[:, None] / across
    rng = np.random.default_rng(0)
    bound, rank, basis = _bound(even, most, rng), None, even
    rows = even[rng.permutation(len(even))[:_ROWS]].astype(np.float64)
    while bound is not None and rank is None:
        basis = _row_space(even, bound, rng)
        rank = _least_rank(rows, basis)
        bound = min(2 * bound, most) if bound < most else None  # the sample does not show what is small everywhere
    if rank is None or rank > most:
        return None
    basis = basis[:rank]
    left = np.concatenate([even[part].astype(np.float64) @ basis.T for part in _chunks(matrix)])
    found = Factors((left * down[:, None]).astype(F32), (basis * across).astype(F32))
    return found if _holds(matrix, found, down, across) else None


def _bound(matrix: Array, most: int, rng: np.random.Generator) -> int | None:
    """What the rank of `matrix` does not exceed as far as a sample shows, at most `most`; None where it is above.

    Sampled rows, a block at a time, leave their span, until some leave nothing outside of it.
    """
    rows, columns = (rng.permutation(size)[: most + _BLOCK] for size in matrix.shape)
    sample = matrix[np.ix_(rows, columns)]
    largest = np.abs(sample).max()
    span, count = np.empty_like(sample), 0
    for first in range(0, len(sample), _BLOCK):
        block = sample[first : first + _BLOCK]
        known = span[:count]
        left = block - (block @ known.T) @ known
        basis = _orthonormal(left.astype(np.float64), _OUTSIDE * largest)
        span[count : count + len(basis)] = basis
        count += len(basis)
        if not len(basis) or count > most:
            break
    return max(count, 1) if count <= most else None


def _row_space(matrix: Array, bound: int, rng: np.random.Generator) -> Array:
    """An orthonormal basis [p, k] f64 of the rows of `matrix`, the most important first.

    Halko, Martinsson, Tropp, "Finding structure with randomness", 2011, with Gram matrices in place of QR decompositions.
    """
    probes = rng.standard_normal((matrix.shape[1], bound + _SPARE)).astype(F32)
    columns = _orthonormal((matrix @ probes).T.astype(np.float64))
    rows = np.zeros((len(columns), matrix.shape[1]))
    for part in _chunks(matrix):
        rows += columns[:, part] @ matrix[part].astype(np.float64)
    return _orthonormal(rows)


def _orthonormal(rows: Array, least: float = 0.0) -> Array:
    """Orthonormal rows [p, k] that span those of `rows` [q, k], the greatest first, but for what is less than `least` or than binary64 can
    tell from 0."""
    values, vectors = np.linalg.eigh(rows @ rows.T)
    kept = np.flatnonzero(values > max(values[-1] * 2.0**-48, least**2))[::-1]
    return (vectors[:, kept] / np.sqrt(values[kept])).T @ rows


def _least_rank(rows: Array, basis: Array) -> int | None:
    """The least r for which the first r of `basis` [p, k] hold `rows` [m, k] within half of the tolerance; None: there is none."""
    inside = rows @ basis.T

    def good(rank: int) -> bool:
        return bool(np.abs(inside[:, :rank] @ basis[:rank] - rows).max() <= TOLERANCE / 2)

    low, high = 0, len(basis)
    if not high or not good(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if good(middle) else (middle, high)
    return high


def _holds(matrix: Array, found: Factors, down: Array, across: Array) -> bool:
    right = found.right.astype(np.float64)
    for part in _chunks(matrix):
        apart = np.abs(found.left[part].astype(np.float64) @ right - matrix[part])
        if not (apart <= TOLERANCE * down[part, None] * across).all():
            return False
    return True


def _chunks(matrix: Array) -> Iterator[slice]:
    step = max(1, _CHUNK // matrix.shape[1])
    return (slice(first, first + step) for first in range(0, len(matrix), step))
