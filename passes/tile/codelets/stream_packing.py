"""Packing weight codes in the order in which a streamed linear layer reads them."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.dialects.codelet import Stream
from qcc.dialects.stream_layout import QUAD, StreamLayout, planes

Array = np.ndarray[Any, Any]


def pack(codelet: Stream, codes: Array, scales: Array, zeros: Array) -> Array:
    """`codes` u8 [n, k], `scales` and `zeros` [n, groups] of 4-byte elements as the flat u8 stream of `codelet`.

    Channels beyond n have scale 0.
    """
    layout, (_, n, k) = StreamLayout(codelet), codelet.sizes
    parts = []
    width = codelet.vectors * layout.lanes
    for first, last, vectors in ((0, n // width * width, codelet.vectors), (n // width * width, n, -(-(n % width) // layout.lanes))):
        if first == last:
            continue
        channels = -(-(last - first) // (vectors * layout.lanes)) * vectors * layout.lanes
        shape = (channels // (vectors * layout.lanes), vectors, layout.lanes)  # blocks, vectors, lanes
        block_codes = _padded(codes[first:last], channels).reshape(*shape, k)
        stored = scales if codelet.scale == "f32" else upper_bits(scales, codelet.scale)
        headers = [_padded(stored[first:last], channels).reshape(*shape, -1)]
        if codelet.zeros == "channel":
            headers.append(_padded(zeros[first:last].view(np.float32), channels).reshape(*shape, -1))  # bits
        parts.append((_split if layout.is_split else _blocks)(layout, block_codes, headers))
    return np.concatenate(parts)


def upper_bits(scales: Array, element: str) -> Array:
    """f32 as the u16 of bfloat16, or as its exponent ("e8m0"); other bits are not looked at."""
    bits = np.ascontiguousarray(scales).view(np.uint32)
    return (bits >> 16).astype(np.uint16) if element == "bf16" else (bits >> 23).astype(np.uint8)


def _padded(values: Array, channels: int) -> Array:
    padded = np.zeros((channels, *values.shape[1:]), values.dtype)
    padded[: values.shape[0]] = values
    return padded


def _blocks(layout: StreamLayout, codes: Array, headers: list[Array]) -> Array:
    """Blocks of one shape: codes [blocks, vectors, lanes, k], headers [blocks, vectors, lanes, groups]; whole groups, then the rest."""
    blocks, vectors, lanes, k = codes.shape
    group = layout.codelet.group
    full, rest = divmod(k, group)
    found = []
    for first, count, size in ((0, full, group), (full, min(rest, 1), rest)):
        if not count:
            continue
        part = codes[..., first * group : first * group + count * size].reshape(blocks, vectors, lanes, count, size)
        header = [h[..., first : first + count].transpose(0, 3, 1, 2) for h in headers]  # [blocks, groups, vectors, lanes] each
        header = [np.ascontiguousarray(h).view(np.uint8).reshape(blocks, count, -1) for h in header]
        found.append(np.concatenate([*header, _codes(layout, part)], axis=2).reshape(blocks, -1))
    return np.concatenate(found, axis=1).reshape(-1)


def _split(layout: StreamLayout, codes: Array, headers: list[Array]) -> Array:
    """As `_blocks`: headers of all groups first, then the codes of each vector of all blocks."""
    blocks, vectors, lanes, k = codes.shape
    group = layout.codelet.group
    full = k // group * group
    apart = codes.transpose(1, 0, 2, 3).reshape(vectors * blocks, 1, lanes, k)
    parts = [apart[..., :full].reshape(*apart.shape[:3], -1, group), apart[..., None, full:]]
    joined = np.concatenate([_codes(layout, part).reshape(vectors * blocks, -1) for part in parts if part.size], axis=1)
    ordered = [np.ascontiguousarray(h.transpose(0, 3, 1, 2)).view(np.uint8).reshape(blocks, layout.groups, -1) for h in headers]
    streams = np.zeros((vectors, layout.stream_bytes(blocks)), np.uint8)
    streams[:, : blocks * layout.vector_bytes] = joined.reshape(vectors, -1)
    flat = np.concatenate(ordered, axis=2).reshape(-1)
    padding = np.zeros(layout.headers_bytes(blocks, vectors) - flat.size, np.uint8)
    return np.concatenate([flat, padding, streams.reshape(-1)])[: layout.region_bytes(blocks, vectors)]


def _codes(layout: StreamLayout, codes: Array) -> Array:
    """Codes [blocks, vectors, lanes, groups, k] as bytes [blocks, groups, steps * vectors * step bytes]."""
    blocks, vectors, lanes, groups, k = codes.shape
    steps = -(-k // layout.depth)
    padded = np.zeros((blocks, vectors, lanes, groups, steps * layout.depth), np.uint8)
    padded[..., :k] = codes
    if layout.codelet.decoder == "bitmap":  # codes are 1 where there is a value; a byte is there where one of its codes is
        ordered = _bytes_in_order(layout, padded, steps).any(axis=-1)
        return np.packbits(ordered, axis=1, bitorder="little").reshape(blocks, groups, -1)
    padded = padded.reshape(blocks, vectors, lanes, groups, steps, layout.depth)
    if layout.codelet.decoder == "bitmap_f32":
        return np.packbits(padded.transpose(0, 3, 4, 1, 5, 2).reshape(-1, 4 * lanes), axis=1, bitorder="little").reshape(blocks, groups, -1)
    if layout.codelet.decoder == "quads":
        return _quads(layout, padded)
    if layout.codelet.decoder in ("bytes", "half"):
        return np.ascontiguousarray(padded.transpose(0, 3, 4, 1, 5, 2)).reshape(blocks, groups, -1)
    if layout.codelet.decoder == "products" or (layout.codelet.decoder == "sums" and layout.has_pairs):
        return _bytes_of_channels(layout, padded)
    if layout.codelet.decoder == "sums":
        words = [_bits(padded >> plane & 1) for plane in range(layout.codelet.bits)]
        joined = np.stack(words, axis=-1)  # [blocks, vectors, lanes, groups, steps, planes] u32
        return np.ascontiguousarray(joined.transpose(0, 3, 4, 1, 5, 2)).view(np.uint8).reshape(blocks, groups, -1)
    if layout.has_pairs:  # bytes 0 and 2 of a word, and 1 and 3, have neighbours
        padded = padded.reshape(*padded.shape[:-1], -1, 2, 2).swapaxes(-1, -2).reshape(padded.shape)
    low, words = 0, []
    for p in planes(layout.codelet.bits):
        words.append(_plane(padded, low, p, bool(layout.digits)))
        low += p
    joined = np.concatenate(words, axis=-1)  # [blocks, vectors, lanes, groups, steps, words] u32
    return np.ascontiguousarray(joined.transpose(0, 3, 4, 1, 5, 2)).view(np.uint8).reshape(blocks, groups, -1)


def _quads(layout: StreamLayout, values: Array) -> Array:
    """Signed values, u8 [blocks, vectors, lanes, groups, steps, 64], as bytes [blocks, groups, steps * vectors * step bytes]."""
    blocks, vectors, lanes, groups, steps, _ = values.shape
    kept, bits = layout.codelet.kept, layout.codelet.bits
    quads = values.reshape(-1, QUAD)
    masks = np.packbits(quads != 0, axis=1, bitorder="little")[:, 0]
    columns = _FIRST_SET[masks][:, :kept]  # [quads, kept]
    chosen = np.take_along_axis(quads, columns.astype(np.int64), axis=1)
    lead = (blocks, vectors, lanes, groups, steps)

    def words(fields: Array, width: int) -> Array:
        """[..., fields of a step] as words: fields of 4 slots, one in each byte, sub-step by sub-step, lowest bits first."""
        by_byte = fields.reshape(*lead, -1, 8 // width, 4)  # [..., words, sub-steps in a word, slots]
        made = by_byte[..., 0, :].copy()
        for i in range(1, 8 // width):
            made |= by_byte[..., i, :] << (width * i)
        return np.ascontiguousarray(made).view(np.uint32)[..., 0]  # [..., words]

    joined = np.concatenate([words(columns, 2), words(chosen if bits == 8 else chosen & 15, bits)], axis=-1)
    return np.ascontiguousarray(joined.transpose(0, 3, 4, 1, 5, 2)).view(np.uint8).reshape(blocks, groups, -1)


_FIRST_SET = np.array([sorted(range(4), key=lambda i, mask=mask: (not mask >> i & 1, i)) for mask in range(16)], np.uint8)
"""[16, 4]: the places of the ones of a mask of 4 bits, then of its zeros."""


def _bytes_of_channels(layout: StreamLayout, codes: Array) -> Array:
    """Codes [blocks, vectors, lanes, groups, steps, 8 or 2] as bytes [blocks, groups, plane, steps, vectors, lane].

    The low bytes of 16-bit words are the first half of the lanes; or words are lanes, whose bytes are two planes.
    """
    if layout.codelet.has_words:
        made = [np.packbits(codes >> plane & 1, axis=-1, bitorder="little")[..., 0] for plane in range(2)]
        joined = np.stack(made, axis=-1)  # [blocks, vectors, lanes, groups, steps, planes]
        return np.ascontiguousarray(joined.transpose(0, 3, 4, 1, 2, 5)).reshape(codes.shape[0], codes.shape[3], -1)
    if layout.codelet.decoder == "products":
        made = [codes[..., 0] | codes[..., 1] << 4]
    else:
        made = [np.packbits(codes >> plane & 1, axis=-1, bitorder="little")[..., 0] for plane in range(layout.codelet.bits)]
    joined = np.stack(made)  # [plane, blocks, vectors, lanes, groups, steps]
    joined = joined.reshape(*joined.shape[:3], 2, -1, *joined.shape[4:])
    return np.ascontiguousarray(joined.transpose(1, 5, 0, 6, 2, 4, 3)).reshape(codes.shape[0], codes.shape[3], -1)


def _bits(plane: Array) -> Array:
    """Bits [..., 32 k] as words [...]: in the lower half of every byte 4 of the first 16 k, in the upper half 4 of the others."""
    ordered = plane.reshape(*plane.shape[:-1], 2, 4, 4).swapaxes(-2, -3)  # [..., byte, half, bit]
    return np.packbits(ordered.reshape(*plane.shape), axis=-1, bitorder="little").view(np.uint32)[..., 0]


def _plane(codes: Array, low: int, p: int, digits: bool) -> Array:
    """Bits low ... low + p - 1 of the codes of a step, as words: k in order, or four k in a row in the bytes of a word (`digits`)."""
    count, per_byte = codes.shape[-1] * p // 32, 8 // p
    field = ((codes >> low) & ((1 << p) - 1)) if p < 8 else codes
    lead = codes.shape[:-1]
    ordered = field.reshape(*lead, count, per_byte, 4) if digits else field.reshape(*lead, count, 4, per_byte).swapaxes(-1, -2)
    made = ordered[..., 0, :].copy()
    for i in range(1, per_byte):
        made |= ordered[..., i, :] << (p * i)
    return made.view(np.uint32)[..., 0]


def _bytes_in_order(layout: StreamLayout, codes: Array, steps: int) -> Array:
    """Codes [blocks, vectors, lanes, groups, k] of whole steps as [masks, bytes of a mask, codes of a byte], masks as they are read."""
    blocks, vectors, lanes, groups, _ = codes.shape
    by_byte = codes.reshape(blocks, vectors, lanes, groups, steps, layout.depth // 4, 4)
    return by_byte.transpose(0, 3, 4, 1, 2, 6, 5).reshape(-1, 4 * lanes, layout.depth // 4)


def pack_values(codelet: Stream, codes: Array) -> tuple[Array, Array]:
    """Values and starts of a "bitmap" stream of `codes` u8 [n, k]: bytes with a code other than the zero in the order of the masks.

    64 bytes of slack follow.
    """
    layout, (_, n, k) = StreamLayout(codelet), codelet.sizes
    parts, starts, begin = [], [], 0
    width = codelet.vectors * layout.lanes
    for first, last, vectors in ((0, n // width * width, codelet.vectors), (n // width * width, n, -(-(n % width) // layout.lanes) or 1)):
        for block in range(first, last, vectors * layout.lanes):
            channels = np.full((vectors * layout.lanes, k), codelet.zero, np.uint8)
            channels[: min(last, block + channels.shape[0]) - block] = codes[block : min(last, block + channels.shape[0])]
            starts.append(begin)
            for g in range(0, k, codelet.group):
                values = _group_values(layout, channels[:, g : g + codelet.group].reshape(vectors, layout.lanes, -1))
                parts.append(values)
                begin += values.size
    return np.concatenate([*parts, np.zeros(64, np.uint8)]), np.array(starts, np.int64)


def _group_values(layout: StreamLayout, codes: Array) -> Array:
    """Values of one group of a block, codes [vectors, lanes, k]."""
    vectors, lanes, k = codes.shape
    steps, zero = -(-k // layout.depth), layout.codelet.zero
    padded = np.full((1, vectors, lanes, 1, steps * layout.depth), zero, np.uint8)
    padded[0, ..., 0, :k] = codes
    ordered = _bytes_in_order(layout, padded, steps)
    values = ordered[(ordered != zero).any(axis=-1)]
    return values[:, 0] if values.shape[1] == 1 else values[:, 0] | values[:, 1] << 4
