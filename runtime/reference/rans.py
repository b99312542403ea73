"""rANS with 32 interleaved lanes: its frequency tables and tiles.

Symbol i of a tile belongs to lane i mod 32. Every lane has a state of 32 bits, at least 2^16 between symbols; where a state falls below,
it takes the next 16-bit word of one sequence that all lanes share, in the order of lanes. Probabilities have 12 bits, so that a table of
slots (symbol, frequency and offset in 32 bits each) fits the first-level cache.

A tile is the 32 first states (u32, little endian) and the words. It ends with all states at 2^16, which shows damage.
J. Duda, "Asymmetric numeral systems", 2013; F. Giesen, "Interleaved entropy coders", 2014.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.runtime.reference.bits import pack_bits, unpack_bits

Array = np.ndarray[Any, Any]

LANES = 32
SCALE_BITS = 12
SCALE = 1 << SCALE_BITS
LEAST_STATE = 1 << 16
STATE_BYTES = 4 * LANES


def table_of(counts: Array) -> Array:
    """Frequencies [symbols] that sum to 2^12, at least 1 for every symbol that occurs, of least cost for `counts`.

    Rounded shares first; then the sum is put right where it costs the fewest bits.
    """
    frequency = np.where(counts > 0, np.maximum(1, np.rint(counts * (SCALE / max(1, int(counts.sum()))))), 0).astype(np.int64)
    if not counts.any():
        frequency[0] = SCALE
    while (rest := SCALE - int(frequency.sum())) != 0:
        step = 1 if rest > 0 else -1
        possible = (counts > 0) & (frequency + step >= 1)
        after = np.where(possible, frequency + step, 1)
        gain = np.where(possible, counts * np.log2(after / np.maximum(frequency, 1)), -np.inf)
        best = np.argsort(-gain, kind="stable")[: max(1, min(abs(rest), 8, int(possible.sum())))]
        frequency[best] += step
    return frequency


def cost_bits(counts: Array, table: Array) -> float:
    """Bits that `counts` of each symbol take with `table`; infinite where a symbol has no frequency."""
    used = counts > 0
    if (table[used] == 0).any():
        return float("inf")
    return float((counts[used] * (SCALE_BITS - np.log2(table[used]))).sum())


def table_bytes(table: Array) -> bytes:
    """Which symbols occur, one bit each; then 12 bits for each that does. 2^12 itself is alone in its table and written as 0."""
    present = table > 0
    return pack_bits(present.astype(np.uint64), 1) + pack_bits(table[present].astype(np.uint64) & np.uint64(SCALE - 1), SCALE_BITS)


def read_table(data: bytes, width: int) -> tuple[Array, int]:
    """The table at the start of `data` for symbols of `width` bits, and its size in bytes. Raises ValueError where it is damaged."""
    mask_bytes = -(-(1 << width) // 8)
    present = np.flatnonzero(unpack_bits(data[:mask_bytes], 1, 1 << width))
    end = mask_bytes + -(-present.size * SCALE_BITS // 8)
    entries = unpack_bits(data[mask_bytes:end], SCALE_BITS, present.size).astype(np.int64)
    table = np.zeros(1 << width, np.int64)
    table[present] = np.where(entries == 0, SCALE, entries)
    if int(table.sum()) != SCALE:
        raise ValueError(f"rans frequencies sum to {int(table.sum())}, expected {SCALE}")
    return table, end


def encode_tiles(symbols: Array, sizes: Array, tables: Array, which: Array) -> list[bytes]:
    """Every row of `symbols` [tiles, n] u8 as a tile: its first `sizes[t]` symbols with table `which[t]` of `tables` [k, symbols].

    All tiles advance together, row of lanes by row of lanes, so that numpy works on long arrays.
    """
    tiles, width = symbols.shape[0], tables.shape[1]
    rows = -(-symbols.shape[1] // LANES)
    padded = np.zeros((tiles, rows * LANES), np.uint8)
    padded[:, : symbols.shape[1]] = symbols
    steps = np.ascontiguousarray(padded.reshape(tiles, rows, LANES).transpose(1, 0, 2))  # [rows, tiles, lanes]
    frequency = tables.astype(np.uint64).reshape(-1)
    start = (np.cumsum(tables, axis=1) - tables).astype(np.uint64).reshape(-1)
    base = (which.astype(np.int64) * width)[:, None]
    state = np.full((tiles, LANES), LEAST_STATE, np.uint64)
    emitted, words = np.zeros((rows, tiles, LANES), bool), np.zeros((rows, tiles, LANES), np.uint16)
    lane = np.arange(LANES)
    for row in range(rows - 1, -1, -1):
        index = steps[row] + base
        f = np.maximum(frequency[index], np.uint64(1))  # 0 only behind the end of a tile
        full = state >= f << np.uint64(32 - SCALE_BITS)
        active = None
        if (sizes < (row + 1) * LANES).any():
            active = row * LANES + lane < sizes[:, None]
            full &= active
        emitted[row], words[row] = full, state & np.uint64(0xFFFF)
        x = np.where(full, state >> np.uint64(16), state)
        quotient = x // f
        x = (quotient << np.uint64(SCALE_BITS)) + (x - quotient * f) + start[index]
        state = x if active is None else np.where(active, x, state)
    return [state[t].astype("<u4").tobytes() + words[:, t][emitted[:, t]].astype("<u2").tobytes() for t in range(tiles)]


def decode_tile(data: bytes, table: Array, count: int) -> Array:
    """The `count` symbols u8 of a tile. Raises ValueError where it is damaged."""
    if len(data) < STATE_BYTES or len(data) % 2:
        raise ValueError(f"rans tile has {len(data)} bytes, expected {STATE_BYTES} and a whole number of words")
    frequency = table.astype(np.uint64)
    start = np.cumsum(frequency) - frequency
    symbol_of = np.repeat(np.arange(table.size), table)
    state = np.frombuffer(data[:STATE_BYTES], "<u4").astype(np.uint64)
    words = np.frombuffer(data[STATE_BYTES:], "<u2").astype(np.uint64)
    found = np.zeros(count, np.uint8)
    position = 0
    for begin in range(0, count, LANES):
        x = state[: min(LANES, count - begin)]
        slot = x & np.uint64(SCALE - 1)
        s = symbol_of[slot.astype(np.int64)]
        found[begin : begin + LANES] = s
        x = frequency[s] * (x >> np.uint64(SCALE_BITS)) + slot - start[s]
        low = x < LEAST_STATE
        needed = int(low.sum())
        if position + needed > words.size:
            raise ValueError(f"rans tile ends at symbol {begin} of {count}")
        x[low] = (x[low] << np.uint64(16)) | words[position : position + needed]
        position += needed
        state[: x.size] = x
    if position != words.size or (state != LEAST_STATE).any():
        raise ValueError("rans tile is damaged: it does not end in its first state")
    return found
