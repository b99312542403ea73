"""Codecs of streams: raw, Huffman and rANS, each with a raw escape. Written for exactness; decoding is vectorised over lanes only.

A coded stream is `mode` (one byte: 0 raw, 1 huffman, 2 rans), then for the coded modes its table and payload. Codes wider than 8 bits are
cut into bytes first. Codec "raw" has no mode byte: it is the packed bits and nothing else.

* raw: codes packed least significant bit first, padded to a byte.
* huffman: canonical, lengths up to 15, one table entry of 4 bits per symbol; the first bit of a code word is its most significant one.
* rans: 32 interleaved lanes (symbol i belongs to lane i mod 32), states of 32 bits, renormalised by 16-bit words which all lanes share,
  12-bit probabilities (J. Duda, "Asymmetric numeral systems", 2013; F. Giesen, "Interleaved entropy coders", 2014).
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

RAW, HUFFMAN, RANS = range(3)
MODES = {"huffman": HUFFMAN, "rans": RANS}
LONGEST = 15
LANES = 32
SCALE_BITS = 12
LEAST_STATE = 1 << 16


def encode(codes: Array, bits: int, codec: str) -> bytes:
    """`codes` u64 of `bits` bits each as bytes."""
    raw = pack_bits(codes, bits)
    if codec == "raw":
        return raw
    if codes.size:
        symbols, width = _symbols(codes, bits)
        coded = _huffman_encode(symbols, width) if codec == "huffman" else _rans_encode(symbols, width)
        if len(coded) < len(raw):
            return bytes([MODES[codec]]) + coded
    return bytes([RAW]) + raw


def decode(data: bytes, bits: int, count: int, codec: str) -> Array:
    """The `count` codes of `data`, u64. Raises ValueError where the data is too short or its table is damaged."""
    if codec == "raw":
        return unpack_bits(data, bits, count)
    if not data:
        raise ValueError("empty stream, expected at least its mode")
    mode, body = data[0], data[1:]
    if mode == RAW:
        return unpack_bits(body, bits, count)
    if mode not in MODES.values():
        raise ValueError(f"stream has mode {mode}, expected 0 to 2")
    width = min(bits, 8)
    parts = -(-bits // 8)
    symbols = (_huffman_decode if mode == HUFFMAN else _rans_decode)(body, width, count * parts)
    split = symbols.reshape(count, parts).astype(np.uint64)
    return (split << (np.arange(parts, dtype=np.uint64) * np.uint64(8))).sum(axis=1, dtype=np.uint64)


def _symbols(codes: Array, bits: int) -> tuple[Array, int]:
    """Symbols of at most 8 bits, low byte first, and their width."""
    if bits <= 8:
        return codes.astype(np.uint8), bits
    parts = np.arange(-(-bits // 8), dtype=np.uint64) * np.uint64(8)
    return ((codes[:, None] >> parts) & np.uint64(255)).astype(np.uint8).reshape(-1), 8


def pack_bits(codes: Array, bits: int) -> bytes:
    """Codes one behind the other, least significant bit first, padded to a byte."""
    planes = (codes.astype(np.uint64).reshape(-1, 1) >> np.arange(bits, dtype=np.uint64)) & np.uint64(1)
    return np.packbits(planes.astype(np.uint8).reshape(-1), bitorder="little").tobytes()


def unpack_bits(data: bytes, bits: int, count: int) -> Array:
    """Inverse of `pack_bits`, u64."""
    if len(data) != -(-count * bits // 8):
        raise ValueError(f"stream has {len(data)} bytes, expected {-(-count * bits // 8)} for {count} codes of {bits} bits")
    planes = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits, bitorder="little").reshape(count, bits)
    return (planes.astype(np.uint64) << np.arange(bits, dtype=np.uint64)).sum(axis=1, dtype=np.uint64)


# --- Huffman ------------------------------------------------------------------------------------------------------------------------


def huffman_lengths(counts: Array) -> Array:
    """Optimal code lengths of at most `LONGEST` (package-merge: L. Larmore, D. Hirschberg, 1990); 0 for symbols that do not occur."""
    lengths = np.zeros(counts.size, np.int64)
    present = [int(s) for s in np.flatnonzero(counts)]
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


def _canonical(lengths: Array) -> Array:
    """Code words of canonical lengths, shorter and then smaller symbols first. Raises ValueError where lengths are over-full."""
    words = np.zeros(lengths.size, np.int64)
    word = previous = 0
    for s in sorted(np.flatnonzero(lengths).tolist(), key=lambda s: (lengths[s], s)):
        word <<= int(lengths[s]) - previous
        previous = int(lengths[s])
        if word >> previous:
            raise ValueError("code lengths are over-full")
        words[s] = word
        word += 1
    return words


def _huffman_encode(symbols: Array, width: int) -> bytes:
    lengths = huffman_lengths(np.bincount(symbols, minlength=1 << width))
    words = _canonical(lengths)
    sizes = lengths[symbols]
    starts = np.cumsum(sizes) - sizes
    stream = np.zeros(int(sizes.sum()), np.uint8)
    for bit in range(int(lengths.max(initial=0))):  # bit 0 is the first, most significant one of a word
        longer = sizes > bit
        stream[starts[longer] + bit] = (words[symbols[longer]] >> (sizes[longer] - 1 - bit)) & 1
    return pack_bits(lengths.astype(np.uint64), 4) + np.packbits(stream, bitorder="little").tobytes()


def _huffman_decode(body: bytes, width: int, count: int) -> Array:
    table_bytes = -(-(4 << width) // 8)
    lengths = unpack_bits(body[:table_bytes], 4, 1 << width).astype(np.int64)
    words = _canonical(lengths)
    symbol_of = np.zeros(1 << LONGEST, np.int64)
    size_of = np.zeros(1 << LONGEST, np.int64)
    for s in np.flatnonzero(lengths):
        first = int(words[s]) << (LONGEST - int(lengths[s]))
        last = first + (1 << (LONGEST - int(lengths[s])))
        symbol_of[first:last], size_of[first:last] = s, lengths[s]
    stream = np.unpackbits(np.frombuffer(body[table_bytes:], np.uint8), bitorder="little")
    padded = np.concatenate([stream, np.zeros(LONGEST, np.uint8)]).astype(np.int64)
    ahead = np.zeros(stream.size + 1, np.int64)  # the next LONGEST bits from every position
    for bit in range(LONGEST):
        ahead = ahead * 2 + padded[bit : bit + ahead.size]
    found = np.zeros(count, np.uint8)
    symbol_at, step_at = symbol_of[ahead].tolist(), size_of[ahead].tolist()
    position = 0
    for i in range(count):
        if position >= stream.size or not step_at[position]:
            raise ValueError(f"huffman stream ends or is damaged at symbol {i} of {count}")
        found[i] = symbol_at[position]
        position += step_at[position]
    return found


# --- rANS ---------------------------------------------------------------------------------------------------------------------------


def rans_frequencies(counts: Array) -> Array:
    """Frequencies that sum to 2^12, at least 1 for every symbol that occurs."""
    total = 1 << SCALE_BITS
    scaled = np.where(counts > 0, np.maximum(1, counts * total // max(1, int(counts.sum()))), 0).astype(np.int64)
    while (rest := total - int(scaled.sum())) != 0:
        largest = int(scaled.argmax())
        scaled[largest] += max(rest, 1 - int(scaled[largest]))
    return scaled


def _rans_encode(symbols: Array, width: int) -> bytes:
    frequency = rans_frequencies(np.bincount(symbols, minlength=1 << width)).astype(np.uint64)
    start = np.cumsum(frequency) - frequency
    state = np.full(LANES, LEAST_STATE, np.uint64)
    words: list[Array] = []
    for begin in range((symbols.size - 1) // LANES * LANES, -1, -LANES):
        s = symbols[begin : begin + LANES]
        x, f = state[: s.size], frequency[s]
        full = x >= f << np.uint64(32 - SCALE_BITS)
        words.append((x[full] & np.uint64(0xFFFF))[::-1])
        x = np.where(full, x >> np.uint64(16), x)
        state[: s.size] = ((x // f) << np.uint64(SCALE_BITS)) + x % f + start[s]
    stream = np.concatenate(words)[::-1].astype("<u2")
    # a frequency of 2^12 does not fit 12 bits: it is the only one, and is written as 0 with its symbol's bit set in the mask
    mask = pack_bits((frequency > 0).astype(np.uint64), 1)
    table = pack_bits(frequency[frequency > 0] & np.uint64((1 << SCALE_BITS) - 1), SCALE_BITS)
    return mask + table + state.astype("<u4").tobytes() + stream.tobytes()


def _rans_decode(body: bytes, width: int, count: int) -> Array:
    mask_bytes = -(-(1 << width) // 8)
    present = np.flatnonzero(unpack_bits(body[:mask_bytes], 1, 1 << width))
    table_end = mask_bytes + -(-present.size * SCALE_BITS // 8)
    entries = unpack_bits(body[mask_bytes:table_end], SCALE_BITS, present.size)
    frequency = np.zeros(1 << width, np.uint64)
    frequency[present] = np.where(entries == 0, np.uint64(1 << SCALE_BITS), entries)
    if int(frequency.sum()) != 1 << SCALE_BITS:
        raise ValueError(f"rans frequencies sum to {int(frequency.sum())}, expected {1 << SCALE_BITS}")
    start = np.cumsum(frequency) - frequency
    symbol_of = np.repeat(np.arange(1 << width), frequency.astype(np.int64))
    states_end = table_end + 4 * LANES
    if len(body) < states_end or (len(body) - states_end) % 2:
        raise ValueError(f"rans stream has {len(body)} bytes, expected {states_end} and a whole number of words")
    state = np.frombuffer(body[table_end:states_end], "<u4").astype(np.uint64)
    words = np.frombuffer(body[states_end:], "<u2").astype(np.uint64)
    found = np.zeros(count, np.uint8)
    position = 0
    for begin in range(0, count, LANES):
        x = state[: min(LANES, count - begin)]
        slot = x & np.uint64((1 << SCALE_BITS) - 1)
        s = symbol_of[slot.astype(np.int64)]
        found[begin : begin + LANES] = s
        x = frequency[s] * (x >> np.uint64(SCALE_BITS)) + slot - start[s]
        low = x < LEAST_STATE
        needed = int(low.sum())
        if position + needed > words.size:
            raise ValueError(f"rans stream ends at symbol {begin} of {count}")
        x[low] = (x[low] << np.uint64(16)) | words[position : position + needed]
        position += needed
        state[: x.size] = x
    if position != words.size or (state != LEAST_STATE).any():
        raise ValueError("rans stream is damaged: it does not end in its first state")
    return found
