"""How a layer is cut to the accelerator's buffers: channel chunks, pixel tiles, weight blocks, parts of the reduction.

    for each chunk of output channels:                  whole words of K channels; its weights stay on chip where they fit
        for each tile of output pixels:                 `groups` groups of C pixels
            gather the windows, restricted to the input words that the chunk reads
            for each block of weight tiles:             loaded per pixel tile where they do not stay
                execute, post
            store

Where not even one pixel's window fits, the reduction is cut into parts, and every weight tile accumulates over them
one after the other.
The cut with the least DRAM traffic wins; a block takes at most half of a buffer where possible, so that loading
overlaps computing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.dialects import bitplanes
from qcc.dialects.accelerator import Configuration
from qcc.dialects.mlir import error_at
from qcc.passes.tile._accelerator.layer import Layer

MAX_COUNT = (1 << 12) - 1  # tiles, groups and pixels of one instruction
MAX_WORDS = (1 << bitplanes.INDEX_BITS) - 1


@dataclass(frozen=True)
class Part:
    """Taps y..y+rows, x..x+columns of the window and words first..first+words of each tap's pixel."""

    y: int
    rows: int
    x: int
    columns: int
    first: int
    words: int

    @property
    def vector(self) -> int:
        """Words of one plane of the part's vector."""
        return self.rows * self.columns * self.words


@dataclass
class Block:
    """Weight tiles `first`..`first + tiles` of a chunk, of part `part`, as coded bytes."""

    first: int
    tiles: int
    part: int
    lines: int
    raw: bool
    data: bytes


@dataclass
class Chunk:
    """Output words first..first+words; `resident`: its blocks are loaded once."""

    first: int
    words: int
    outputs: int
    parts: list[Part]
    groups: int
    resident: bool
    blocks: list[Block]
    traffic: int  # bytes moved


@dataclass
class TileLines:
    """The stored lines of one weight tile: plane, tap and input word of each, and their bytes [n, R * K/8]."""

    plane: np.ndarray
    tap: np.ndarray
    word: np.ndarray
    payload: np.ndarray


def cut(layer: Layer, c: Configuration) -> list[Chunk]:
    """The chunks of the cheapest cut. Raises QccError where a layer cannot be cut small enough for the buffers."""
    tiles = _lines(layer, c)
    total = bitplanes.words_for(layer.weights.outputs, c.word_bits)
    best: list[Chunk] | None = None
    words = total
    while words:
        found = _cut_by(layer, c, tiles, words, total)
        if found is not None and (best is None or sum(k.traffic for k in found) < sum(k.traffic for k in best)):
            best = found
        words = words // 2 if words > 1 else 0
    if best is None:
        raise error_at(_At(layer.location), _too_large(layer, c))
    for chunk in best:
        for block in chunk.blocks:
            block.data = _code(layer, c, tiles, chunk, block)
    return best


def _too_large(layer: Layer, c: Configuration) -> str:
    """Which buffer even the smallest piece of `layer` does not fit."""
    pixel, remedy = layer.window.taps * layer.source.planes, "choose a device with larger buffers"
    if layer.weights.window > 1 and pixel > c.activation_words:  # a maximum cannot be summed up from parts
        return (
            f"pooling {layer.window.taps} taps of {layer.source.planes} planes needs {pixel} activation words, "
            f"the accelerator has {c.activation_words}; {remedy}"
        )
    return (
        f"one word of {c.word_bits} channels with {layer.post.bits} planes needs more than the accelerator's "
        f"{c.output_words} output words, {c.residual_words} residual words or {c.parameter_entries} parameters; {remedy}"
    )


@dataclass(frozen=True)
class _At:
    location: Any


def _lines(layer: Layer, c: Configuration) -> list[TileLines]:
    """Stored lines of every weight tile; a channel tile has `window` of them."""
    weights, found = layer.weights, []
    taps = layer.window.taps
    for first in range(0, weights.outputs, c.rows):
        words = weights.input_words(first, c.rows)
        for tap in range(weights.window):
            values = weights.rows(first, c.rows, tap, words).reshape(c.rows, -1)
            lines = bitplanes.weight_lines(values, weights.planes, c.rows, c.word_bits)  # [1, planes, taps * words, R, K/8]
            flat = lines.reshape(weights.planes * taps, words[1] - words[0], -1)
            kept = np.ones(flat.shape[:2], bool) if weights.bipolar else flat.any(axis=2)
            row, word = np.nonzero(kept)
            found.append(TileLines(row // taps, row % taps, word + words[0], flat[row, word]))
    return found


def _cut_by(layer: Layer, c: Configuration, tiles: list[TileLines], words: int, total: int) -> list[Chunk] | None:
    """Chunks of `words` output words, or None where they do not fit."""
    chunks: list[Chunk] = []
    for first in range(0, total, words):
        chunk = _chunk(layer, c, tiles, first, min(words, total - first))
        if chunk is None:
            return None
        chunks.append(chunk)
    return chunks


def _chunk(layer: Layer, c: Configuration, tiles: list[TileLines], first: int, words: int) -> Chunk | None:
    weights, window = layer.weights, layer.window
    outputs = min(weights.outputs - first * c.word_bits, words * c.word_bits)
    padded = -(-outputs // c.rows) * c.rows
    pixel_groups = -(-window.pixels // c.columns)
    limits = [_fitting(c.output_words, words * layer.post.bits)]
    if layer.residual is not None:
        limits.append(_fitting(c.residual_words, words * layer.residual.source.planes))
    if min(limits) == 0 or padded > c.parameter_entries:
        return None
    low, high = weights.input_words(first * c.word_bits, outputs)
    run, planes = high - low, layer.source.planes
    vector = window.taps * run
    groups = _fitting(c.activation_words, vector * planes) if vector <= MAX_WORDS else 0
    range_ = range(first * c.word_bits // c.rows * weights.window, (first * c.word_bits + padded) // c.rows * weights.window)
    counts = [max(len(tiles[t].plane), 1) for t in range_]
    if groups == 0 or max(counts) > c.weight_lines:
        return _reduction_in_parts(layer, c, first, words, outputs, (low, high), range_, pixel_groups)
    groups = min(groups, *limits, pixel_groups, MAX_COUNT // c.columns)
    part = Part(0, window.kernel[0], 0, window.kernel[1], low, run)
    resident = sum(counts) <= c.weight_lines
    most = c.weight_lines if resident or max(counts) > c.weight_lines // 2 else c.weight_lines // 2
    blocks = _blocks(counts, weights.window, most)
    if max(block.lines for block in blocks) > c.weight_lines:
        return None
    line_bytes = c.rows * c.word_bytes
    tiles_of_pixels = -(-pixel_groups // groups)
    traffic = (window.pixels * vector * planes + window.pixels * words * layer.post.bits) * c.word_bytes
    traffic += sum(counts) * line_bytes * (1 if resident else tiles_of_pixels)
    return Chunk(first, words, outputs, [part], groups, resident, blocks, traffic)


def _fitting(capacity: int, size: int) -> int:
    """How many pieces of `size` fit into half of a buffer; 1 where one needs more than half, 0 where it does not fit."""
    return capacity // 2 // size or int(size <= capacity)


def _blocks(counts: list[int], window: int, most: int) -> list[Block]:
    """Consecutive weight tiles, whole pooling windows at a time, of at most `most` lines."""
    blocks: list[Block] = []
    first, lines = 0, 0
    for end in range(window, len(counts) + 1, window):
        step = sum(counts[end - window : end])
        if end - window > first and (lines + step > most or end - first > MAX_COUNT):
            blocks.append(Block(first, end - window - first, 0, lines, False, b""))
            first, lines = end - window, 0
        lines += step
    blocks.append(Block(first, len(counts) - first, 0, lines, False, b""))
    return blocks


def _reduction_in_parts(
    layer: Layer, c: Configuration, first: int, words: int, outputs: int, input_words: tuple[int, int], range_: range, pixel_groups: int
) -> Chunk | None:
    """A chunk whose weight tiles accumulate over parts of the window, one group of pixels at a time."""
    weights, (ky, kx), (low, high) = layer.weights, layer.window.kernel, input_words
    most = min(c.activation_words // 2 // layer.source.planes, c.weight_lines // 2 // weights.planes, MAX_WORDS)
    run = high - low
    if most == 0:
        return None
    if run * kx <= most:
        step = most // (run * kx)
        parts = [Part(y, min(step, ky - y), 0, kx, low, run) for y in range(0, ky, step)]
    elif run <= most:
        step = most // run
        parts = [Part(y, 1, x, min(step, kx - x), low, run) for y in range(ky) for x in range(0, kx, step)]
    else:
        parts = [Part(y, 1, x, 1, w, min(most, high - w)) for y in range(ky) for x in range(kx) for w in range(low, high, most)]
    if weights.window > 1:
        return None
    blocks = [Block(tile, 1, part, 0, False, b"") for tile in range(len(range_)) for part in range(len(parts))]
    vector = sum(p.vector for p in parts)
    traffic = len(range_) * pixel_groups * (c.columns * vector * layer.source.planes + vector * weights.planes * c.rows) * c.word_bytes
    return Chunk(first, words, outputs, parts, 1, False, blocks, traffic)


def _code(layer: Layer, c: Configuration, tiles: list[TileLines], chunk: Chunk, block: Block) -> bytes:
    """Bytes of a block, raw where no line is left out; sets its number of lines."""
    part, kx = chunk.parts[block.part], layer.window.kernel[1]
    start = chunk.first * c.word_bits // c.rows * layer.weights.window + block.first
    every = part.vector * layer.weights.planes
    selected: list[tuple[np.ndarray, np.ndarray]] = []
    for tile in tiles[start : start + block.tiles]:
        y, x, word = tile.tap // kx - part.y, tile.tap % kx - part.x, tile.word - part.first
        inside = (y >= 0) & (y < part.rows) & (x >= 0) & (x < part.columns) & (word >= 0) & (word < part.words)
        place = tile.plane * part.vector + ((y * part.columns + x) * part.words + word)
        place, payload = place[inside], tile.payload[inside]
        order = np.argsort(place)
        if not len(place):  # a tile must have a line, so that the array can see where it ends
            place, payload, order = np.zeros(1, np.int64), np.zeros((1, c.rows * c.word_bytes), np.uint8), np.zeros(1, np.int64)
        selected.append((place[order], payload[order]))
    block.lines = sum(len(place) for place, _ in selected)
    block.raw = block.lines == every * block.tiles
    if block.raw:
        return b"".join(payload.tobytes() for _, payload in selected)
    return b"".join(bitplanes.code_tile(place, payload, part.vector, c.word_bytes) for place, payload in selected)
