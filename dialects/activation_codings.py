"""How pixels of activations may lie in DRAM: raw, with zero flags, or as run lengths.

Each keeps a pixel in a slot of fixed size, because windows are gathered by address: what is saved is traffic, not memory, and pixels that
do not compress have room.
"""

from __future__ import annotations

import numpy as np

from qcc.dialects import run_lengths, zero_flags
from qcc.runtime.fpga.isa import ACTIVATION_CODINGS

_CODERS = {"flags": zero_flags, "run_lengths": run_lengths}
assert ("raw", *_CODERS) == ACTIVATION_CODINGS


def slot_words(coding: str, run_words: int) -> int:
    """Words from one pixel of `run_words` words to the next: the most that it takes."""
    return run_words if coding == "raw" else _CODERS[coding].slot_words(run_words)


def code(coding: str, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [n, words, K/8] u8 as slots [n, slot_words, K/8], and the words of each that are in use [n]."""
    return (runs, np.full(len(runs), runs.shape[1])) if coding == "raw" else _CODERS[coding].code(runs)


def decode(coding: str, slots: np.ndarray, run_words: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixels [n, run_words, K/8] of any slots, and the words of each slot in use [n]."""
    return (slots, np.full(len(slots), run_words)) if coding == "raw" else _CODERS[coding].decode(slots, run_words)
