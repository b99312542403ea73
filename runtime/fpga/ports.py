"""Tensors of the host into the accelerator's DRAM and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.dialects import bitplanes
from qcc.dialects.errors import QccError


@dataclass(frozen=True)
class Port:
    """One tensor at a segment's border: number `value` of its arguments or results, stored from word `address` on.

    `shape` is logical, `axis` its channel axis, `positions[c]` the bit position of channel c in a pixel of `pixel_words` words.
    """

    value: int
    address: int
    shape: tuple[int, ...]
    axis: int
    planes: int
    signed: bool
    word_offset: int
    pixel_words: int
    positions: tuple[int, ...]

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Port:
        """Raises QccError where an entry is missing or impossible."""
        try:
            port = cls(
                found["value"],
                found["address"],
                tuple(found["shape"]),
                found["axis"],
                found["planes"],
                bool(found["signed"]),
                found["word_offset"],
                found["pixel_words"],
                tuple(found["positions"]),
            )
        except (KeyError, TypeError) as error:
            raise QccError(f"the accelerator file describes a tensor without {error}; compile the model again") from None
        if not 0 <= port.axis < len(port.shape) or len(port.positions) != port.shape[port.axis] or not 1 <= port.planes <= 32:
            raise QccError("the accelerator file describes a tensor whose channels do not fit its shape; compile the model again")
        return port

    def as_dict(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "address": self.address,
            "shape": list(self.shape),
            "axis": self.axis,
            "planes": self.planes,
            "signed": self.signed,
            "word_offset": self.word_offset,
            "pixel_words": self.pixel_words,
            "positions": list(self.positions),
        }

    @property
    def pixels(self) -> int:
        return math.prod(self.shape) // self.shape[self.axis]

    def _words(self, dram: np.ndarray) -> np.ndarray:
        """View of the tensor's words: [pixels, words, planes, K/8]."""
        count = bitplanes.words_for(max(self.positions) + 1, 8 * dram.shape[1])
        records = dram[self.address : self.address + self.pixels * self.pixel_words].reshape(self.pixels, self.pixel_words, -1)
        run = records[:, self.word_offset : self.word_offset + count * self.planes]
        return run.reshape(self.pixels, count, self.planes, -1)

    def write(self, dram: np.ndarray, values: np.ndarray) -> None:
        """Store integers of `shape` as bit-planes in `dram` [words, K/8] u8."""
        pixels = np.moveaxis(values, self.axis, -1).reshape(self.pixels, -1)
        spread = np.zeros((self.pixels, max(self.positions) + 1), np.int64)
        spread[:, list(self.positions)] = pixels
        packed = bitplanes.pack(spread, self.planes, 8 * dram.shape[1]).reshape(self.pixels, -1, dram.shape[1])
        records = dram[self.address : self.address + self.pixels * self.pixel_words].reshape(self.pixels, self.pixel_words, -1)
        records[:, self.word_offset : self.word_offset + packed.shape[1]] = packed

    def read(self, dram: np.ndarray) -> np.ndarray:
        """The integers of `shape`, i64."""
        values = bitplanes.unpack(self._words(dram), self.signed)[:, list(self.positions)]
        moved = [size for axis, size in enumerate(self.shape) if axis != self.axis]
        return np.moveaxis(values.reshape(*moved, self.shape[self.axis]), -1, self.axis)
