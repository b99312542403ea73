"""Bytes of every storage form that can hold the zeros of a weight, as `runtime/reference/storage.py` stores them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qcc.dialects.encodings import Encoding

Mask = np.ndarray[Any, np.dtype[np.bool_]]

_BLOCKS = ((4, 4), (8, 1), (1, 8), (16, 1), (1, 16))
_GROUPS = (2, 4, 8, 16, 32)  # neighbours of which at most half are not zero
_SAMPLE = 16  # output channels, of which one group that is fuller tells enough
_INDEX_BITS = 4  # relative index of EIE (Han et al., ISCA 2016) and run length of Eyeriss (Chen et al., JSSC 2017: 5 bits)
_COLUMN_BITS = 16  # absolute index of compressed rows that a codelet reads without sums
_STRUCTURED_DENSITY = 0.8  # above it no structured form but removed channels can save anything


def candidates(kept: Mask, count: int, bits: int) -> list[tuple[Encoding, int]]:
    """Every encoding that can hold the mask [o, ...] of non-zeros with its bytes for elements of `bits`; dense first, then from the most
    to the least regular, so that of equal sizes the more regular one is found first."""
    size = kept.size
    found = [(Encoding(), _bytes(size * bits))]
    bitmap = Encoding("bitmap"), _bytes(size) + _bytes(count * bits)
    for axis in (0, 1):
        alive = int(np.count_nonzero(kept.any(axis=tuple(i for i in range(kept.ndim) if i != axis))))
        if alive < kept.shape[axis]:
            stored = size // kept.shape[axis] * alive
            found.append((Encoding("channel", {"axis": axis}), _bytes(kept.shape[axis]) + _bytes(stored * bits)))
    if count > _STRUCTURED_DENSITY * size:
        return [*found, bitmap]
    found += _blocks(kept, bits) + _groups(kept, bits)
    if kept.ndim == 4 and 1 < kept.shape[2] * kept.shape[3] <= 64:
        found += _patterns(kept, count, bits)
    found.append(bitmap)
    starts = 4 * (kept.shape[0] + 1)
    in_rows, in_all = (count + fillers for fillers in _fillers(kept, (1 << _INDEX_BITS) - 1))
    index = {"index_bits": _INDEX_BITS, "relative": True}
    found.append((Encoding("csr", index), starts + _bytes(in_rows * _INDEX_BITS) + _bytes(in_rows * bits)))
    if kept.ndim == 2 and kept.shape[1] <= 1 << _COLUMN_BITS:
        columns = {"index_bits": _COLUMN_BITS, "relative": False}
        found.append((Encoding("csr", columns), starts + _bytes(count * _COLUMN_BITS) + _bytes(count * bits)))
    found.append((Encoding("run-length", {"run_bits": _INDEX_BITS}), 4 + _bytes(in_all * _INDEX_BITS) + _bytes(in_all * bits)))
    return found


def _blocks(kept: Mask, bits: int) -> list[tuple[Encoding, int]]:
    matrix = kept.reshape(kept.shape[0], -1)
    found: list[tuple[Encoding, int]] = []
    for b0, b1 in _BLOCKS:
        rows, columns = -(-matrix.shape[0] // b0), -(-matrix.shape[1] // b1)
        padded = np.zeros((rows * b0, columns * b1), np.bool_)
        padded[: matrix.shape[0], : matrix.shape[1]] = matrix
        filled = int(np.count_nonzero(padded.reshape(rows, b0, columns, b1).any(axis=(1, 3))))
        found.append((Encoding("block", {"shape": [b0, b1]}), _bytes(rows * columns) + _bytes(filled * b0 * b1 * bits)))
    return found


def _groups(kept: Mask, bits: int) -> list[tuple[Encoding, int]]:
    """n:m along the input channels, where every m neighbours have at most n non-zeros; of those that keep as large a part the least m."""
    found: list[tuple[Encoding, int]] = []
    last, least = np.moveaxis(kept, 1, -1), 1.0
    for m in _GROUPS:
        if kept.shape[1] < m:
            break
        if 2 * _fullest(last[:_SAMPLE], m) > m:
            continue
        n = max(1, _fullest(last, m))
        if 2 * n <= m and n / m < least:
            least = n / m
            stored = kept.size // kept.shape[1] * -(-kept.shape[1] // m) * n
            index = _bytes(stored * (m - 1).bit_length())
            found.append((Encoding("n:m", {"n": n, "m": m, "axis": 1}), index + _bytes(stored * bits)))
    return found


def _fullest(last: Mask, m: int) -> int:
    """Non-zeros of the fullest `m` neighbours."""
    padded = np.zeros((*last.shape[:-1], -(-last.shape[-1] // m) * m), np.bool_)
    padded[..., : last.shape[-1]] = last
    return int(padded.reshape(-1, m).sum(axis=1).max(initial=0))


def _patterns(kept: Mask, count: int, bits: int) -> list[tuple[Encoding, int]]:
    taps = kept.shape[2] * kept.shape[3]
    kernels = kept.reshape(-1, taps)
    patterns = len(np.unique(np.packbits(kernels, axis=1), axis=0))
    if patterns > 256:
        return []
    index = _bytes(len(kernels) * max(1, (patterns - 1).bit_length()))
    return [(Encoding("pattern"), _bytes(patterns * taps) + 2 + index + _bytes(count * bits))]


def _fillers(kept: Mask, longest: int) -> tuple[int, int]:
    """Zeros stored because a gap to the previous non-zero is longer than `longest`: of the same row, and of all."""
    places = np.flatnonzero(kept)
    gaps = np.diff(places, prepend=-1) - 1
    long = np.flatnonzero(gaps > longest)
    gaps, columns = gaps[long], places[long] % (kept.size // kept.shape[0])
    return int((np.minimum(gaps, columns) // (longest + 1)).sum()), int((gaps // (longest + 1)).sum())


def _bytes(bits: int) -> int:
    return math.ceil(bits / 8)


def label(encoding: Encoding) -> str:
    """The encoding in words for facts: `block 4x4`, `2:4`, `channel 0`, `csr, relative index`."""
    given = encoding.parameters
    match encoding.kind:
        case "block":
            return "block " + "x".join(str(b) for b in given["shape"])
        case "n:m":
            return f"{given['n']}:{given['m']}"
        case "channel":
            return f"channel {given['axis']}"
        case "csr" if given["relative"]:
            return "csr, relative index"
        case kind:
            return kind
