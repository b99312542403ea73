"""Run lengths of activations: the bytes of a pixel that are not 0, each behind the number of zeros in front of it.

A pixel is a run of words in a slot of fixed size, as with zero flags. The slot is a sequence of 12-bit codes: the length of a run of zeros
(4 bits), then the byte that ends it, least significant bits first and without regard to the borders of words. Two codes have the byte 0:
length 15 for 16 zeros, any other for nothing but zeros to the end of the pixel, where a transfer ends; or it ends with the pixel's last
byte. A pixel without zeros takes half as much again as raw, and no pixel more: a code stands for at least one byte.

Run-length coding is Eyeriss' (Chen et al., JSSC 2017: 5 bits of length, 16 of value), the two codes with 0 are JPEG's (ITU-T T.81). A value
is one plane of eight channels here, and 4 bits of length (EIE, Han et al., ISCA 2016) keep codes at multiples of 4 bits, so that a decoder
shifts words by one of K / 4 amounts. They are also about the best where run lengths beat zero flags: with b bits a byte that is not 0 costs
(8 + b) / (1 - (1 - p)^(2^b)) bits, p being the share of such bytes, with flags 8 + 1 / p: 12.4 and 13 at p = 0.2, 14.7 and 18 at p = 0.1.
"""

from __future__ import annotations

import numpy as np

LENGTH_BITS = 4
CODE_BITS = LENGTH_BITS + 8
_LONGEST = (1 << LENGTH_BITS) - 1
_MORE = np.uint16(_LONGEST)  # the code of _LONGEST + 1 zeros
_END = np.uint16(0)


def slot_words(run_words: int) -> int:
    """Words of the slot of a run: room for one without zeros."""
    return -(-run_words * CODE_BITS // 8)


def code(runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs [n, words, K/8] u8 as slots [n, slot_words, K/8], 0 behind their end, and the words of each that are in use [n]."""
    count, words, word_bytes = runs.shape
    flat = runs.reshape(count, words * word_bytes)
    row, column = np.nonzero(flat)
    first = np.diff(row, prepend=-1) != 0
    zeros = column - np.where(first, -1, np.roll(column, 1)) - 1  # in front of each byte that is not 0
    steps = zeros // (_LONGEST + 1) + 1
    behind = np.cumsum(steps)
    before = np.concatenate([[0], behind])[np.searchsorted(row, np.arange(count))]  # codes of the rows above
    total = np.bincount(row, steps, minlength=count).astype(np.int64)
    codes = np.where(np.arange(flat.shape[1]) < total[:, None], _MORE, _END)  # [n, bytes] u16
    codes[row, behind - before[row] - 1] = (zeros % (_LONGEST + 1)) | flat[row, column].astype(np.uint16) << LENGTH_BITS
    if flat.shape[1]:
        total += flat[:, -1] == 0  # the end is a code of its own
    nibbles = np.zeros((count, 2 * slot_words(words) * word_bytes), np.uint8)
    for place in range(3):
        nibbles[:, place : 3 * flat.shape[1] : 3] = codes >> 4 * place & 15
    slots = nibbles[:, ::2] | nibbles[:, 1::2] << 4
    return slots.reshape(count, slot_words(words), word_bytes), _words(total, word_bytes)


def decode(slots: np.ndarray, run_words: int) -> tuple[np.ndarray, np.ndarray]:
    """What `code` made of runs of `run_words` words, of any slots: the runs, and the words of each slot in use."""
    count, _, word_bytes = slots.shape
    size = run_words * word_bytes
    nibbles = np.stack([slots & 15, slots >> 4], axis=3).reshape(count, slots.shape[1] * 2 * word_bytes)[:, : 3 * size]
    lengths = nibbles[:, ::3].astype(np.int64)  # [n, bytes]
    values = nibbles[:, 1::3] | nibbles[:, 2::3] << 4
    ends = (values == 0) & (lengths != _LONGEST)
    places = np.cumsum(lengths + 1, axis=1) - 1  # of each code's byte
    begun = places - lengths < size
    begun[:, 1:] &= np.logical_and.accumulate(~ends, axis=1)[:, :-1]
    row, index = np.nonzero(begun & (values != 0) & (places < size))
    runs = np.zeros((count, size), np.uint8)
    runs[row, places[row, index]] = values[row, index]
    return runs.reshape(count, run_words, word_bytes), _words(begun.sum(axis=1), word_bytes)


def _words(codes: np.ndarray, word_bytes: int) -> np.ndarray:
    return -(-codes * CODE_BITS // (8 * word_bytes))
