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


def slot_words(run_words: int) -> int:
    """Words of the slot of a run: room for one without zeros."""
    return flag_words(run_words) + run_words


def code(runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs [n, words, K/8] u8 as slots [n, slot_words, K/8], 0 behind their end, and the words of each that are in use [n]."""
    count, words, word_bytes = runs.shape
    flat = runs.reshape(count, words * word_bytes)
    some = flat != 0
    front = flag_words(words) * word_bytes
    slots = np.zeros((count, slot_words(words) * word_bytes), np.uint8)
    flags = np.packbits(some, axis=1, bitorder="little")
    slots[:, : flags.shape[1]] = flags
    row, column = np.nonzero(some)
    slots[row, front + (np.cumsum(some, axis=1) - 1)[row, column]] = flat[row, column]
    used = flag_words(words) - (-some.sum(axis=1) // word_bytes)
    return slots.reshape(count, slot_words(words), word_bytes), used


def decode(slots: np.ndarray, run_words: int) -> tuple[np.ndarray, np.ndarray]:
    """What `code` made of runs of `run_words` words, of any slots: the runs, and the words of each slot in use."""
    count, _, word_bytes = slots.shape
    flat = slots.reshape(count, slot_words(run_words) * word_bytes)
    front, size = flag_words(run_words) * word_bytes, run_words * word_bytes
    some = np.unpackbits(flat[:, :front], axis=1, bitorder="little")[:, :size].astype(bool)
    runs = np.zeros((count, size), np.uint8)
    row, column = np.nonzero(some)
    runs[row, column] = flat[row, front + (np.cumsum(some, axis=1) - 1)[row, column]]
    return runs.reshape(count, run_words, word_bytes), flag_words(run_words) - (-some.sum(axis=1) // word_bytes)
