"""The coded form of a model's weights: entries at their places in the decoded block, each raw or in tiles of coded symbols.

The image, little endian, is read by `runtime/cpu/src/weights_image.c`:

    header   64 bytes: magic "QCCCODE3", image bytes u64, decoded bytes u64, number of entries, tables, tiles and recipes u32, zeros
    entries  32 bytes each: decoded offset u64, decoded bytes u64, place u64, mode u8 (0 raw, 1 huffman, 2 rans), bits of a symbol in the
             lower half of a u8 and log2 of a tile's symbols - 16 in the upper, table u16, number of tiles u32; `place` is the byte
             offset of a raw entry in the image, or the first tile
    recipes  64 bytes each, by ascending entry: see `weights_recipes.py`; what such an entry decodes to is the source of a recipe
    tables   8 bytes each: byte offset u32, mode u8, bits of a symbol u8, zeros
    tiles    u64 each and one more: byte offset of the tile, which ends where the next begins
    then the tables, the raw entries (aligned to 64 bytes, so that they are used where they lie) and the levels and scales of recipes,
    the tiles, 64 zeros

A symbol is a byte, a nibble or two bits of the decoded bytes, least significant first; a tile has 2^16 symbols, or 2^18 bytes where those
take few bits, so that what a tile costs stays small; an entry's last one has fewer.
An entry has a table of its own, or shares one made for all entries of its coder where its own would not pay for its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.dialects.weight_recipes import AnyRecipe
from qcc.runtime.reference import weights_recipes
from qcc.runtime.reference.codecs import CODERS, HUFFMAN, RANS, RAW

Array = np.ndarray[Any, Any]

MAGIC = b"QCCCODE3"
TILE_SYMBOLS = 1 << 16
ALIGNMENT_BYTES = 64
CODECS = {"none": (), "huffman": (HUFFMAN,), "rans": (RANS,), "auto": (HUFFMAN, RANS)}
_HEADER = struct.Struct("<8sQQIIII24x")
_ENTRY = struct.Struct("<QQQBBHI")
_TABLE = struct.Struct("<IBBxx")
_LEAST_CODED_BYTES = 256
_TILE_OVERHEAD_BYTES = 96 + 8  # first states beyond what they tell, the last words' padding, and the place in the directory
_BATCH_TILES = 128
_LONG_TILE = 2
_LONG_BELOW_BITS = 1.5


@dataclass
class Entry:
    """One span of the decoded block, or what a recipe makes it from: `size_bytes` of what is coded. `stored_bytes` counts its payload, its
    own table, its recipe and its part of the directories; `entropy_bytes` is the order-0 entropy of its bytes."""

    offset_bytes: int
    size_bytes: int
    mode: int = RAW
    bits: int = 8
    tile_shift: int = 0
    table: int = 0
    stored_bytes: int = 0
    entropy_bytes: float = 0.0
    own_table: bool = False
    recipe: AnyRecipe | None = None


@dataclass
class Image:
    """The coded weights, `data` u8 aligned to 64 bytes, and what became of each entry."""

    data: Array
    entries: list[Entry]


def encode(
    block: Array, spans: Sequence[tuple[int, int]], codec: str, recipes: Mapping[int, AnyRecipe] | None = None, raw: Collection[int] = ()
) -> Image:
    """Code `spans` (offset, size; ascending, apart from each other) of `block` u8 with `codec`: none, huffman, rans, or auto for the least.

    Of a span with one of `recipes` (by number), which must begin with what the recipe makes, its source is coded. Those of `raw` are not.
    """
    recipes = recipes or {}
    entries = [Entry(offset, size) for offset, size in spans]
    payloads = [block[offset : offset + size] for offset, size in spans]
    for i, recipe in recipes.items():
        payloads[i] = np.ascontiguousarray(recipe.source).reshape(-1).view(np.uint8)
        entries[i].recipe, entries[i].size_bytes = recipe, payloads[i].size
    histograms = [np.bincount(payload, minlength=256) for payload in payloads]
    tables = _choose(entries, histograms, CODECS[codec], raw)
    tiles = _encode_tiles(payloads, entries, tables)
    for entry, own in zip(entries, tiles, strict=True):
        if sum(map(len, own)) + 8 * len(own) >= entry.size_bytes:  # the escape
            own.clear()
            entry.mode = RAW
    used = sorted({e.table for e in entries if e.mode != RAW})
    for entry in entries:
        entry.table = used.index(entry.table) if entry.mode != RAW else 0
    return _assemble(block.size, payloads, entries, [tables[t] for t in used], tiles)


@dataclass
class _Table:
    mode: int
    bits: int
    values: Array  # [2^bits]

    @property
    def data(self) -> bytes:
        return CODERS[self.mode].table_bytes(self.values)


def _choose(entries: Sequence[Entry], histograms: Sequence[Array], modes: Sequence[int], raw: Collection[int]) -> list[_Table]:
    """Set mode, symbol width and table of every entry to what is predicted smallest; returns the tables."""
    tables: list[_Table] = []
    ways = [(mode, bits) for mode in modes for bits in (8, 4, 2)]
    shared = {}
    coded = {i for i, e in enumerate(entries) if e.size_bytes >= _LEAST_CODED_BYTES} - set(raw)
    for mode, bits in ways:
        if coded:
            counts = narrow(np.sum([histograms[i] for i in coded], axis=0), bits)
            shared[mode, bits] = len(tables)
            tables.append(_Table(mode, bits, CODERS[mode].table_of(counts)))
    for i, (entry, histogram) in enumerate(zip(entries, histograms, strict=True)):
        p = histogram[histogram > 0] / max(entry.size_bytes, 1)
        entry.entropy_bytes = float(-(p * np.log2(p)).sum()) * entry.size_bytes / 8
        if i not in coded:
            continue
        best = float(entry.size_bytes)
        chosen: _Table | None = None
        for mode, bits in ways:
            counts, coder = narrow(histogram, bits), CODERS[mode]
            overhead = _tile_count(entry.size_bytes, bits) * _TILE_OVERHEAD_BYTES
            own = _Table(mode, bits, coder.table_of(counts))
            for table, bytes_ in ((own, len(own.data) + _TABLE.size), (tables[shared[mode, bits]], 0)):
                cost = coder.cost_bits(counts, table.values) / 8 + bytes_ + overhead
                if cost < best:
                    best, chosen = cost, table
        if chosen is not None:
            entry.tile_shift = _LONG_TILE if chosen.bits == 8 and best < _LONG_BELOW_BITS / 8 * entry.size_bytes else 0
            entry.mode, entry.bits, entry.own_table = chosen.mode, chosen.bits, all(chosen is not t for t in tables)
            if entry.own_table:
                tables.append(chosen)
            entry.table = next(i for i, t in enumerate(tables) if t is chosen)
    return tables


def narrow(histogram: Array, bits: int) -> Array:
    """How often every symbol of `bits` bits occurs in bytes of `histogram` [256]."""
    values = np.arange(256)
    parts = [(values >> shift) & ((1 << bits) - 1) for shift in range(0, 8, bits)]
    return sum(np.bincount(part, histogram, 1 << bits) for part in parts).astype(np.int64)  # type: ignore[union-attr]


def _tile_count(size_bytes: int, bits: int, tile_shift: int = 0) -> int:
    return -(-size_bytes * 8 // bits // (TILE_SYMBOLS << tile_shift))


def _tiles_of(entry: Entry) -> int:
    return _tile_count(entry.size_bytes, entry.bits, entry.tile_shift)


def _encode_tiles(payloads: Sequence[Array], entries: Sequence[Entry], tables: Sequence[_Table]) -> list[list[bytes]]:
    """The tiles of every entry, those of one coder and width together."""
    found: list[list[bytes]] = [[] for _ in entries]
    for way in sorted({(e.mode, e.bits) for e in entries if e.mode != RAW}):
        mode, bits = way
        chosen = [i for i, t in enumerate(tables) if (t.mode, t.bits) == way]
        values = np.stack([tables[i].values for i in chosen])
        jobs = [(i, t) for i, e in enumerate(entries) if (e.mode, e.bits) == way for t in range(_tiles_of(e))]
        jobs.sort(key=lambda job: -_tile(entries[job[0]], job[1])[1])  # like sizes side by side; an entry's tiles stay in order
        for first in range(0, len(jobs), _BATCH_TILES):
            batch = jobs[first : first + _BATCH_TILES]
            places = [_tile(entries[i], t) for i, t in batch]
            sizes = np.array([size * 8 // bits for _, size in places])
            symbols = np.zeros((len(batch), int(sizes.max())), np.uint8)
            for row, (i, _), (start, size) in zip(symbols, batch, places, strict=True):
                row[: size * 8 // bits] = split(payloads[i][start : start + size], bits)
            which = np.array([chosen.index(entries[i].table) for i, _ in batch])
            for (i, _), data in zip(batch, CODERS[mode].encode_tiles(symbols, sizes, values, which), strict=True):
                found[i].append(data)
    return found


def _tile(entry: Entry, tile: int) -> tuple[int, int]:
    """Offset in the payload and bytes of one tile of an entry."""
    tile_bytes = (TILE_SYMBOLS << entry.tile_shift) * entry.bits // 8
    return tile * tile_bytes, min(tile_bytes, entry.size_bytes - tile * tile_bytes)


def split(data: Array, bits: int) -> Array:
    """Bytes as symbols of `bits` bits, least significant first."""
    if bits == 8:
        return data
    return ((data[:, None] >> np.arange(0, 8, bits, dtype=np.uint8)) & np.uint8((1 << bits) - 1)).reshape(-1)


def join(symbols: Array, bits: int) -> Array:
    """Inverse of `split`."""
    if bits == 8:
        return symbols
    return (symbols.reshape(-1, 8 // bits) << np.arange(0, 8, bits, dtype=np.uint8)).sum(axis=1).astype(np.uint8)


def _assemble(
    decoded_bytes: int, payloads: Sequence[Array], entries: list[Entry], tables: Sequence[_Table], tiles: Sequence[Sequence[bytes]]
) -> Image:
    tile_count = sum(map(len, tiles))
    table_data = [t.data for t in tables]
    recipes = {i: entry.recipe for i, entry in enumerate(entries) if entry.recipe is not None}
    directories = _ENTRY.size * len(entries) + weights_recipes.BYTES * len(recipes) + _TABLE.size * len(tables) + 8 * (tile_count + 1)
    table_places = _HEADER.size + directories + np.cumsum([0, *map(len, table_data)])
    end = int(table_places[-1])
    raw: list[tuple[int, Array]] = []  # place, bytes

    def aligned(data: Array) -> int:
        nonlocal end
        raw.append((-(-end // ALIGNMENT_BYTES) * ALIGNMENT_BYTES, data))
        end = raw[-1][0] + data.size
        return raw[-1][0]

    raw_places = {i: aligned(payloads[i]) for i, entry in enumerate(entries) if entry.mode == RAW}
    parameters = {i: weights_recipes.parameters(recipe) for i, recipe in recipes.items()}
    records = [weights_recipes.pack(i, recipe, aligned(parameters[i])) for i, recipe in recipes.items()]
    flat = [data for own in tiles for data in own]
    tile_places = end + end % 2 + np.cumsum([0, *map(len, flat)], dtype=np.int64)
    total = -(-(int(tile_places[-1]) + ALIGNMENT_BYTES) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    memory = np.zeros(total + ALIGNMENT_BYTES, np.uint8)
    image = memory[-memory.ctypes.data % ALIGNMENT_BYTES :][:total]
    head = [_HEADER.pack(MAGIC, total, decoded_bytes, len(entries), len(tables), tile_count, len(recipes))]
    first_tile = 0
    for i, (entry, own) in enumerate(zip(entries, tiles, strict=True)):
        place = raw_places[i] if entry.mode == RAW else first_tile
        head.append(
            _ENTRY.pack(entry.offset_bytes, entry.size_bytes, place, entry.mode, entry.bits | entry.tile_shift << 4, entry.table, len(own))
        )
        first_tile += len(own)
        payload = entry.size_bytes if entry.mode == RAW else sum(map(len, own)) + 8 * len(own)
        own_table = len(table_data[entry.table]) + _TABLE.size if entry.own_table and entry.mode != RAW else 0
        recipe = weights_recipes.BYTES + parameters[i].size if i in recipes else 0
        entry.stored_bytes = payload + own_table + recipe + _ENTRY.size
    head += records
    head += [_TABLE.pack(place, t.mode, t.bits) for place, t in zip(table_places, tables, strict=False)]
    head.append(tile_places.astype("<u8").tobytes())
    front = b"".join([*head, *table_data])
    image[: len(front)] = np.frombuffer(front, np.uint8)
    for place, data in raw:
        image[place : place + data.size] = data
    for place, data in zip(tile_places, flat, strict=False):
        image[place : place + len(data)] = np.frombuffer(data, np.uint8)
    return Image(image, entries)


def decode(data: bytes) -> Array:
    """The block u8 of an image, zeros between its entries. Raises ValueError where the image is damaged."""
    try:
        magic, total, decoded, entry_count, table_count, tile_count, recipe_count = _HEADER.unpack_from(data, 0)
        if magic != MAGIC or total != len(data):
            raise ValueError(f"image begins with {magic!r} and has {len(data)} bytes, expected {MAGIC!r} and {total}")
        at = _HEADER.size
        rows = [_ENTRY.unpack_from(data, at + i * _ENTRY.size) for i in range(entry_count)]
        at += entry_count * _ENTRY.size
        recipes = dict(weights_recipes.unpack(data, at + i * weights_recipes.BYTES) for i in range(recipe_count))
        at += recipe_count * weights_recipes.BYTES
        heads = [_TABLE.unpack_from(data, at + i * _TABLE.size) for i in range(table_count)]
        at += table_count * _TABLE.size
        places = struct.unpack_from(f"<{tile_count + 1}Q", data, at)
    except struct.error as problem:
        raise ValueError(f"image is too short: {problem}") from None
    block = np.zeros(decoded, np.uint8)
    for number, (offset, size, place, mode, width, table, tiles) in enumerate(rows):
        bits, shift = width & 15, width >> 4
        payload = np.empty(size, np.uint8)
        if mode == RAW:
            payload[:] = np.frombuffer(data[place : place + size], np.uint8)
        else:
            start, table_mode, table_bits = heads[table]
            if (mode, bits) != (table_mode, table_bits) or tiles != _tile_count(size, bits, shift):
                raise ValueError(f"entry at {offset} has mode {mode}, {bits} bits and {tiles} tiles, which its table and size contradict")
            end = start + (1 << bits) // 8 + (12 << bits) // 8 + 1
            values = _read_table(data[start:end], mode, bits)
            for t in range(tiles):
                first, count = _tile(Entry(0, size, bits=bits, tile_shift=shift), t)
                tile = data[places[place + t] : places[place + t + 1]]
                payload[first : first + count] = join(CODERS[mode].decode_tile(tile, values, count * 8 // bits), bits)
        if number in recipes:
            payload = recipes[number](payload).apply().view(np.uint8)
        block[offset : offset + payload.size] = payload
    return block


def _read_table(data: bytes, mode: int, bits: int) -> Array:
    return CODERS[mode].read_table(data, bits)[0]
