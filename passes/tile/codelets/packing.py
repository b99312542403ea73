"""Packing weights in the order in which a contraction reads them."""

from __future__ import annotations

import math

import numpy as np

S8 = (-128, 127)
UNITS = {2: np.uint16, 4: np.uint32, 8: np.uint64}


def pack(w: np.ndarray, *, lanes: int, depth: int, vectors: int) -> tuple[np.ndarray, int]:
    """Weights [batch, c, taps, run] as [batch][block][tap][step][vector][lane][depth], flat, and the stride of a batch entry.

    A block is `vectors` vectors of `lanes` channels; the last block has as many vectors as are left. What is missing in the last vector
    and in the last step of a run is 0. The stride of a block is `block_stride`.
    """
    batch, channels, taps, run = w.shape
    steps = -(-run // depth)
    padded = np.zeros((batch, -(-channels // lanes) * lanes, taps, steps * depth), w.dtype)
    padded[:, :channels, :, :run] = w
    padded = padded.view(UNITS[depth * w.dtype.itemsize] if depth > 1 else w.dtype)  # of a step, copied whole
    parts = []
    for first in range(0, padded.shape[1], vectors * lanes):
        block = padded[:, first : first + vectors * lanes]  # [batch, v * lanes, taps, steps]
        block = block.reshape(batch, -1, lanes, taps, steps).transpose(0, 3, 4, 1, 2)
        parts.append(np.ascontiguousarray(block).reshape(batch, -1))
    packed = np.concatenate(parts, axis=1).view(w.dtype)
    return packed.reshape(-1), packed.shape[1]


def overlapped(w: np.ndarray) -> np.ndarray:
    """Weights [..., run] for pairs of which the last one of an odd run begins one element earlier: a 0 in front of the last weight."""
    return np.insert(w, w.shape[-1] - 1, 0, axis=-1) if w.shape[-1] % 2 else w


def block_stride(*, taps: int, run: int, lanes: int, depth: int, vectors: int) -> int:
    """Elements from one whole block to the next."""
    return taps * -(-run // depth) * vectors * lanes * depth


def pad_channels(values: np.ndarray, width: int) -> np.ndarray:
    """[batch, c] with c padded by zeros to a multiple of `width`."""
    batch, channels = values.shape
    padded = np.zeros((batch, -(-channels // width) * width), values.dtype)
    padded[:, :channels] = values
    return padded


def bf16_words(values: np.ndarray) -> np.ndarray:
    """The 16 upper bits of f32 `values` whose lower bits are 0, as i16."""
    return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.int16)


def narrowest(values: np.ndarray) -> str:
    """The smallest signed element that holds all integers of `values`."""
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    return "s8" if -128 <= low and high <= 127 else "s16" if -32768 <= low and high <= 32767 else "i32"


def split_zero(w: np.ndarray) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Integers [c, ...] as (s8 values, zero [c]) with integers = values - zero; zero is None where all fit as they are.

    None where some channel spans more than 256 values.
    """
    flat = w.reshape(w.shape[0], -1) if math.prod(w.shape) else np.zeros((w.shape[0], 1), np.int64)
    low, high = flat.min(axis=1), flat.max(axis=1)
    if low.min() >= S8[0] and high.max() <= S8[1]:
        return w.astype(np.int8), None
    if int((high - low).max()) > 255:
        return None
    zero = np.where(low < S8[0], S8[0] - low, np.where(high > S8[1], S8[1] - high, 0))
    return (w + zero.reshape(-1, *[1] * (w.ndim - 1))).astype(np.int8), zero
