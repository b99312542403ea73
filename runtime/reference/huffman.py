"""Canonical Huffman codes with 32 interleaved lanes: their length tables and tiles.

Symbol i of a tile belongs to lane i mod 32. Every lane has a register whose upper bits are the next ones of its own sequence of code
words, most significant bit first; where fewer than 16 are left behind a symbol, it takes the next 16-bit word of one sequence that all
lanes share, in the order of lanes, as the lanes of rANS do. So a vector of lanes decodes with one gather from a table of 2^12 slots.

A tile is the 32 first registers (u32, little endian) and the words; bits behind a lane's last code word are 0.
Lengths are at most 12: D. Huffman, 1952; L. Larmore, D. Hirschberg, "A fast algorithm for optimal length-limited Huffman codes", 1990.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np

from qcc.runtime.reference.bits import pack_bits, unpack_bits

Array = np.ndarray[Any, Any]

LANES = 32
LONGEST = 12
REGISTER_BYTES = 4 * LANES


def table_of(counts: Array) -> Array:
    """Optimal code lengths [symbols] of at most `LONGEST` by package-merge; 0 for symbols that do not occur."""
    lengths = np.zeros(counts.size, np.int64)
    present = [int(s) for s in np.flatnonzero(counts)] or [0]
    if len(present) == 1:
        lengths[present[0]] = 1
        return lengths
    leaves = sorted((int(counts[s]), (s,)) for s in present)
    packages: list[tuple[int, tuple[int, ...]]] = []
    for _ in range(LONGEST):
        merged = list(heapq.merge(leaves, packages))
        packages = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(merged[::2], merged[1::2], strict=False)]
    for _, symbols in packages[: len(present) - 1]:
        for s in symbols:
            lengths[s] += 1
    return lengths


def cost_bits(counts: Array, table: Array) -> float:
    """Bits that `counts` of each symbol take with `table`; infinite where a symbol has no code word."""
    if (table[counts > 0] == 0).any():
        return float("inf")
    return float((counts * table).sum())


def table_bytes(table: Array) -> bytes:
    """4 bits per symbol."""
    return pack_bits(table.astype(np.uint64), 4)


def read_table(data: bytes, width: int) -> tuple[Array, int]:
    """The table at the start of `data` for symbols of `width` bits, and its size in bytes. Raises ValueError where it is damaged.

    Code words must fill all slots, but for the code of one symbol, whose word has one bit.
    """
    end = -(-(4 << width) // 8)
    lengths = unpack_bits(data[:end], 4, 1 << width).astype(np.int64)
    used = lengths[lengths > 0]
    filled = int((1 << (LONGEST - np.minimum(used, LONGEST))).sum())
    alone = used.size == 1 and used[0] == 1
    if (used > LONGEST).any() or (filled != 1 << LONGEST and not alone):
        raise ValueError(f"huffman code words fill {filled} of {1 << LONGEST} slots with lengths up to {int(lengths.max())}")
    return lengths, end


def code_words(lengths: Array) -> Array:
    """Canonical code words: shorter ones first, then smaller symbols first."""
    words = np.zeros(lengths.size, np.int64)
    word = previous = 0
    for s in sorted(np.flatnonzero(lengths).tolist(), key=lambda s: (lengths[s], s)):
        word <<= int(lengths[s]) - previous
        previous = int(lengths[s])
        words[s] = word
        word += 1
    return words


def encode_tiles(symbols: Array, sizes: Array, tables: Array, which: Array) -> list[bytes]:
    """Every row of `symbols` [tiles, n] u8 as a tile: its first `sizes[t]` symbols with table `which[t]` of `tables` [k, symbols].

    All tiles advance together, row of lanes by row of lanes, so that numpy works on long arrays.
    """
    tiles, width = symbols.shape[0], tables.shape[1]
    rows = -(-symbols.shape[1] // LANES)
    padded = np.zeros((tiles, rows * LANES), np.uint8)
    padded[:, : symbols.shape[1]] = symbols
    steps = np.ascontiguousarray(padded.reshape(tiles, rows, LANES).transpose(1, 0, 2)).reshape(rows, -1)  # [rows, tiles * lanes]
    lengths, words = tables.reshape(-1), np.concatenate([code_words(t) for t in tables])
    base, size = np.repeat(which.astype(np.int64) * width, LANES), np.repeat(sizes, LANES)
    lane = np.tile(np.arange(LANES), tiles)
    sequence = np.zeros((rows * LONGEST // 16 + 4, lane.size), np.uint16)  # the words of every lane
    ahead = np.zeros(steps.shape, np.int32)  # the word that a lane takes behind a symbol, 0 for none: the first two are in its register
    bits, pending, held = np.zeros(lane.size, np.int64), np.zeros(lane.size, np.int64), np.zeros(lane.size, np.int64)
    taken = np.zeros(lane.size, np.int64)
    for row in range(rows):
        index = steps[row] + base
        length = lengths[index]
        if (sizes < (row + 1) * LANES).any():
            length = np.where(row * LANES + lane < size, length, 0)
        pending = pending << length | words[index] * (length > 0)
        held += length
        bits += length
        whole = np.flatnonzero(held >= 16)
        held[whole] -= 16
        sequence[bits[whole] // 16 - 1, whole] = pending[whole] >> held[whole]
        pending[whole] &= (1 << held[whole]) - 1
        now = np.maximum((bits - 1) // 16, 0)  # words taken so that 16 bits are left
        ahead[row] = np.where(now > taken, now + 1, 0)
        taken = now
    rest = np.flatnonzero(held)
    sequence[bits[rest] // 16, rest] = pending[rest] << (16 - held[rest])
    first = (sequence[0].astype(np.uint32) << 16 | sequence[1]).astype("<u4").reshape(tiles, LANES)
    found: list[bytes] = []
    for t in range(tiles):
        own = slice(t * LANES, (t + 1) * LANES)
        row, column = np.nonzero(ahead[:, own])
        found.append(first[t].tobytes() + sequence[:, own][ahead[:, own][row, column], column].astype("<u2").tobytes())
    return found


def decode_tile(data: bytes, table: Array, count: int) -> Array:
    """The `count` symbols u8 of a tile. Raises ValueError where it is damaged."""
    if len(data) < REGISTER_BYTES or len(data) % 2:
        raise ValueError(f"huffman tile has {len(data)} bytes, expected {REGISTER_BYTES} and a whole number of words")
    order = sorted(np.flatnonzero(table).tolist(), key=lambda s: (table[s], s))
    spans = [1 << (LONGEST - int(table[s])) for s in order] if len(order) > 1 else [1 << LONGEST]
    symbol_of, size_of = np.repeat(order, spans), np.repeat(table[order], spans)
    x = np.frombuffer(data[:REGISTER_BYTES], "<u4").astype(np.int64)
    left = np.full(LANES, 32)
    words = np.frombuffer(data[REGISTER_BYTES:], "<u2").astype(np.int64)
    found = np.zeros(count, np.uint8)
    position = 0
    for start in range(0, count, LANES):
        lanes = slice(0, min(LANES, count - start))
        slot = x[lanes] >> (32 - LONGEST)
        found[start : start + LANES] = symbol_of[slot]
        x[lanes] = (x[lanes] << size_of[slot]) & 0xFFFFFFFF
        left[lanes] -= size_of[slot]
        low = np.flatnonzero(left[lanes] < 16)
        if position + low.size > words.size:
            raise ValueError(f"huffman tile ends at symbol {start} of {count}")
        x[low] |= words[position : position + low.size] << (16 - left[low])
        left[low] += 16
        position += low.size
    if position != words.size or x.any():
        raise ValueError("huffman tile is damaged: it has bits behind its last symbol")
    return found
