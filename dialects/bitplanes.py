"""Bit-planes: how the accelerator stores activations and weights. Pure numpy.

A *word* is K bits, held here as K/8 bytes, bit i of a word in bit i % 8 of byte i // 8. An activation pixel of
`positions` channel positions and b bits is `ceil(positions / K)` times b words: word by word, within a word plane by
plane, least significant plane first. A weight *line* is R words, one per row of the array, of one plane of one word of
the reduction; a *tile* of R output channels is its lines in the order plane, word.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

INDEX_BITS, PLANE_BITS, LAST_BITS, COUNT_BITS = 13, 5, 1, 13  # of a run header, which fills the low 32 bits of a word
MAX_RUN = (1 << COUNT_BITS) - 1


def words_for(positions: int, word_bits: int) -> int:
    """Words that hold one plane of `positions` bits."""
    return -(-positions // word_bits)


def pack(values: np.ndarray, planes: int, word_bits: int) -> np.ndarray:
    """Integers [..., positions] to words [..., ceil(positions / K), planes, K/8] u8 of their low `planes` bits.

    Missing positions are zero.
    """
    count = words_for(values.shape[-1], word_bits)
    padded = np.zeros((*values.shape[:-1], count * word_bits), np.int64)  # [..., words * K]
    padded[..., : values.shape[-1]] = values
    padded = padded.reshape(*values.shape[:-1], count, 1, word_bits)
    bits = (padded >> np.arange(planes).reshape(-1, 1)) & 1  # [..., words, planes, K]
    return np.packbits(bits.astype(np.uint8), axis=-1, bitorder="little")


def unpack(words: np.ndarray, signed: bool) -> np.ndarray:
    """The inverse: words [..., words, planes, K/8] u8 to integers [..., words * K] i64; `signed` makes the top plane negative."""
    bits = np.unpackbits(words, axis=-1, bitorder="little")  # [..., words, planes, K]
    weights = plane_weights(words.shape[-2], signed)
    values = np.einsum("...pk,p->...k", bits.astype(np.int64), weights)
    return values.reshape(*words.shape[:-3], -1)


def plane_weights(planes: int, signed: bool) -> np.ndarray:
    """What one bit of each plane counts: [planes] i64, the top one negative where `signed`."""
    weights = np.int64(1) << np.arange(planes, dtype=np.int64)
    if signed:
        weights[-1] = -weights[-1]
    return weights


def planes_of(low: int, high: int) -> tuple[int, bool]:
    """Least number of planes, and whether they are signed, that hold all integers from `low` to `high`."""
    if low >= 0:
        return max(int(high).bit_length(), 1), False
    return max(max(int(high), 0).bit_length(), int(-low - 1).bit_length()) + 1, True


def weight_lines(weights: np.ndarray, planes: int, rows: int, word_bits: int) -> np.ndarray:
    """Weights [out, positions] (positions a multiple of K) as lines [tiles, planes, words, rows, K/8] u8; missing outputs are zero."""
    out, positions = weights.shape
    tiles = -(-out // rows)
    padded = np.zeros((tiles * rows, positions), np.int64)
    padded[:out] = weights
    words = pack(padded, planes, word_bits).reshape(tiles, rows, positions // word_bits, planes, word_bits // 8)
    return np.ascontiguousarray(words.transpose(0, 3, 2, 1, 4))


def run_header(plane: int, index: int, count: int, last: bool, word_bytes: int) -> bytes:
    """The word in front of a run of lines: where the run starts, its length, and whether it ends its tile."""
    value = index | plane << INDEX_BITS | int(last) << INDEX_BITS + PLANE_BITS | count << INDEX_BITS + PLANE_BITS + LAST_BITS
    return value.to_bytes(word_bytes, "little")


def parse_header(word: Any) -> tuple[int, int, int, bool]:
    """(plane, index, count, last) of a run header given as bytes."""
    value = int.from_bytes(bytes(word), "little")
    index = value & ((1 << INDEX_BITS) - 1)
    plane = value >> INDEX_BITS & ((1 << PLANE_BITS) - 1)
    last = value >> INDEX_BITS + PLANE_BITS & 1
    return plane, index, value >> INDEX_BITS + PLANE_BITS + LAST_BITS, bool(last)


def stored_lines(lines: np.ndarray) -> np.ndarray:
    """Which lines of weight_lines() the run coding stores: those that are not zero, and one of every tile: [tiles, planes * words] bool."""
    kept = (lines.reshape(lines.shape[0], lines.shape[1] * lines.shape[2], -1) != 0).sum(axis=-1) > 0
    kept[kept.sum(axis=1) == 0, 0] = True
    return kept


def code_runs(lines: np.ndarray) -> bytes:
    """Zero-run coding of tiles [tiles, planes, words, rows, K/8]: runs of stored lines behind a header each."""
    tiles, _, words, _, word_bytes = lines.shape
    flat = lines.reshape(tiles, lines.shape[1] * words, -1)
    kept = stored_lines(lines)
    return b"".join(code_tile(np.flatnonzero(kept[t]), flat[t][kept[t]], words, word_bytes) for t in range(tiles))


def code_tile(places: np.ndarray, payload: np.ndarray, words: int, word_bytes: int) -> bytes:
    """Zero-run coding of one tile: its stored lines `payload` [n, bytes] at ascending `places` [n], plane * words + index; n >= 1."""
    starts = np.flatnonzero(np.diff(places, prepend=-2) != 1)
    parts: list[bytes] = []
    bounds = [int(s) for s in starts] + [len(places)]
    for start, end in itertools.pairwise(bounds):
        for first in range(start, end, MAX_RUN):
            count, place = min(end - first, MAX_RUN), int(places[first])
            parts.append(run_header(place // words, place % words, count, first + count == len(places), word_bytes))
            parts.append(payload[first : first + count].tobytes())
    return b"".join(parts)


def code_raw(lines: np.ndarray) -> bytes:
    """Every line of tiles [tiles, planes, words, rows, K/8], without headers."""
    return lines.tobytes()
