"""Tensors of the host into the accelerator's DRAM and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.dialects import bitplanes
from qcc.dialects.errors import QccError


@dataclass(frozen=True)
class Port:
    """One tensor at a segment's border: number `value` of its arguments or results, stored from word `address` on.

    `shape` is logical, `axis` its channel axis, `positions[c]` the bit position of channel c in a pixel of `pixel_words` words.
    With `gather` (images, height, width, out_height, out_width, kernel, strides, dilations, top, left, value) the
    host's tensor is
    [n, c, h, w] and what is stored are its windows, [n, taps * c, oh, ow], where taps outside the image read `value`.
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
    gather: Mapping[str, Any] | None = None

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
                _gather_of(found.get("gather"), found["shape"]),
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
            **({} if self.gather is None else {"gather": dict(self.gather)}),
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
        """Store integers of `shape` (with `gather`, the host's tensor) as bit-planes in `dram` [words, K/8] u8."""
        if self.gather is not None:
            values = _windows(values, self.gather)
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


_WINDOW = ("images", "height", "width", "out_height", "out_width", "top", "left", "value")


def _gather_of(found: Any, shape: list[int]) -> dict[str, Any] | None:
    """The window of a gathered input as plain data. Raises QccError where it does not lead to `shape`."""
    if found is None:
        return None
    window: dict[str, Any] = {key: int(found[key]) for key in _WINDOW}
    window |= {key: [int(v) for v in found[key]] for key in ("kernel", "strides", "dilations")}
    taps = math.prod(window["kernel"])
    expected = [window["images"], window["out_height"], window["out_width"]]
    if len(shape) != 4 or [shape[0], *shape[2:]] != expected or taps < 1 or shape[1] % taps or min(window["top"], window["left"]) < 0:
        raise QccError("the accelerator file describes an input whose windows do not fit its shape; compile the model again")
    return window


def _windows(x: np.ndarray, w: Mapping[str, Any]) -> np.ndarray:
    """Windows [n, taps * c, oh, ow] of x [n, c, h, w], tap by tap."""
    (n, channels, height, width), (ky, kx) = x.shape, w["kernel"]
    bottom = max((w["out_height"] - 1) * w["strides"][0] + (ky - 1) * w["dilations"][0] + 1 - w["top"] - height, 0)
    right = max((w["out_width"] - 1) * w["strides"][1] + (kx - 1) * w["dilations"][1] + 1 - w["left"] - width, 0)
    padded = np.pad(x, ((0, 0), (0, 0), (w["top"], bottom), (w["left"], right)), constant_values=w["value"])
    taps: list[np.ndarray] = []
    for tap in range(ky * kx):
        y, left = tap // kx * w["dilations"][0], tap % kx * w["dilations"][1]
        rows = slice(y, y + (w["out_height"] - 1) * w["strides"][0] + 1, w["strides"][0])
        columns = slice(left, left + (w["out_width"] - 1) * w["strides"][1] + 1, w["strides"][1])
        taps.append(padded[:, :, rows, columns])
    return np.stack(taps, axis=1).reshape(n, ky * kx * channels, w["out_height"], w["out_width"])
