"""Codecs of streams: raw, Huffman and rANS, each with a raw escape.

A coded stream is `mode` (one byte: 0 raw, 1 huffman, 2 rans), then for the coded modes its table and one tile (`huffman.py`, `rans.py`).
Codes wider than 8 bits are cut into bytes first. Codec "raw" has no mode byte: it is the packed bits and nothing else.
Where many tiles share a table the words are those of `weights_image.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.runtime.reference import huffman, rans
from qcc.runtime.reference.bits import pack_bits, unpack_bits

Array = np.ndarray[Any, Any]

RAW, HUFFMAN, RANS = range(3)
MODES = {"huffman": HUFFMAN, "rans": RANS}
CODERS = {HUFFMAN: huffman, RANS: rans}


def entropy_bits(codes: Array) -> float:
    """Order-0 entropy of `codes` (any integers) in bits per code: what no coder that looks at one code at a time can go below."""
    if not codes.size:
        return 0.0
    _, counts = np.unique(codes, return_counts=True)
    p = counts / codes.size
    return float(-(p * np.log2(p)).sum())


def encode(codes: Array, bits: int, codec: str) -> bytes:
    """`codes` u64 of `bits` bits each as bytes."""
    raw = pack_bits(codes, bits)
    if codec == "raw":
        return raw
    if codes.size:
        symbols, width = _symbols(codes, bits)
        coder = CODERS[MODES[codec]]
        table = coder.table_of(np.bincount(symbols, minlength=1 << width))
        (tile,) = coder.encode_tiles(symbols[None], np.array([symbols.size]), table[None], np.array([0]))
        coded = coder.table_bytes(table) + tile
        if len(coded) < len(raw):
            return bytes([MODES[codec]]) + coded
    return bytes([RAW]) + raw


def decode(data: bytes, bits: int, count: int, codec: str) -> Array:
    """The `count` codes of `data`, u64. Raises ValueError where the data is too short or damaged."""
    if codec == "raw":
        return unpack_bits(data, bits, count)
    if not data:
        raise ValueError("empty stream, expected at least its mode")
    mode, body = data[0], data[1:]
    if mode == RAW:
        return unpack_bits(body, bits, count)
    if mode not in CODERS:
        raise ValueError(f"stream has mode {mode}, expected 0 to 2")
    parts = -(-bits // 8)
    table, end = CODERS[mode].read_table(body, min(bits, 8))
    symbols = CODERS[mode].decode_tile(body[end:], table, count * parts)
    split = symbols.reshape(count, parts).astype(np.uint64)
    return (split << (np.arange(parts, dtype=np.uint64) * np.uint64(8))).sum(axis=1, dtype=np.uint64)


def _symbols(codes: Array, bits: int) -> tuple[Array, int]:
    """Symbols of at most 8 bits, low byte first, and their width."""
    if bits <= 8:
        return codes.astype(np.uint8), bits
    parts = np.arange(-(-bits // 8), dtype=np.uint64) * np.uint64(8)
    return ((codes[:, None] >> parts) & np.uint64(255)).astype(np.uint8).reshape(-1), 8
