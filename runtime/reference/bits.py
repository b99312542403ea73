"""Codes of any width as packed bits."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def pack_bits(codes: Array, bits: int) -> bytes:
    """Codes one behind the other, least significant bit first, padded to a byte."""
    planes = (codes.astype(np.uint64).reshape(-1, 1) >> np.arange(bits, dtype=np.uint64)) & np.uint64(1)
    return np.packbits(planes.astype(np.uint8).reshape(-1), bitorder="little").tobytes()


def unpack_bits(data: bytes, bits: int, count: int) -> Array:
    """Inverse of `pack_bits`, u64. Raises ValueError where `data` has not the size of `count` codes."""
    if len(data) != -(-count * bits // 8):
        raise ValueError(f"stream has {len(data)} bytes, expected {-(-count * bits // 8)} for {count} codes of {bits} bits")
    planes = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits, bitorder="little").reshape(count, bits)
    return (planes.astype(np.uint64) << np.arange(bits, dtype=np.uint64)).sum(axis=1, dtype=np.uint64)
