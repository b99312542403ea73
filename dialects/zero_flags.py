"""Zero flags of activations: the bytes of a pixel that are not 0, behind one bit per byte (after Moons and Verhelst, VLSI 2016).

A pixel is a run of words, its slot in DRAM `flag_words` more, so that pixels stay where they are: what is saved is traffic, not memory.
The slot begins with a bit for every byte of the run, least significant first, then come the bytes whose bit is set; a transfer ends with
the last word that holds one. Bytes rather than words: a byte is one plane of eight channels, and upper planes are mostly 0.
"""

from __future__ import annotations

import numpy as np


def flag_words(run_words: int) -> int:
    """Words of flags in front of a run."""
    return -(-run_words // 8)


def code(runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs [n, words, K/8] u8 as slots [n, flag_words + words, K/8], 0 behind their end, and the words of each that are in use [n]."""
    count, words, word_bytes = runs.shape
    flat = runs.reshape(count, words * word_bytes)
    some = flat != 0
    front = flag_words(words) * word_bytes
    slots = np.zeros((count, front + flat.shape[1]), np.uint8)
    flags = np.packbits(some, axis=1, bitorder="little")
    slots[:, : flags.shape[1]] = flags
    row, column = np.nonzero(some)
    slots[row, front + (np.cumsum(some, axis=1) - 1)[row, column]] = flat[row, column]
    used = flag_words(words) - (-some.sum(axis=1) // word_bytes)
    return slots.reshape(count, flag_words(words) + words, word_bytes), used


def decode(slots: np.ndarray, run_words: int) -> tuple[np.ndarray, np.ndarray]:
    """What `code` made of runs of `run_words` words, of any slots: the runs, and the words of each slot in use."""
    count, slot_words, word_bytes = slots.shape
    flat, front, size = slots.reshape(count, slot_words * word_bytes), flag_words(run_words) * word_bytes, run_words * word_bytes
    some = np.unpackbits(flat[:, :front], axis=1, bitorder="little")[:, :size].astype(bool)
    runs = np.zeros((count, size), np.uint8)
    row, column = np.nonzero(some)
    runs[row, column] = flat[row, front + (np.cumsum(some, axis=1) - 1)[row, column]]
    return runs.reshape(count, run_words, word_bytes), flag_words(run_words) - (-some.sum(axis=1) // word_bytes)


def expected_words(run_words: int, held_bytes: int, zeros: float, word_bytes: int) -> float:
    """Words of a slot in use where `held_bytes` of the run's bytes have channels and `zeros` of these are 0.

    The bits of other channels are taken for as often 1 as 0: upper planes hold fewer, so that there will be less.
    """
    filled = 1 - ((1 + zeros) / 2) ** 8
    return flag_words(run_words) + held_bytes * filled / word_bytes
