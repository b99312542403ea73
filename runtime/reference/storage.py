"""What is stored of a constant under `#qcc.sparse<kind, parameters, codec>`, as named byte streams, and how it comes back.

This is the meaning of the encodings, with exact byte counts: padding to whole bytes, indices, fillers and code tables included. Codelets
may order the same streams differently to read them in sequence, but store no fewer of them.

Elements are first turned into unsigned *codes* of the type's own width (4 bits for an i4, 1 for a binary element). A stream of codes is
packed least significant bit first without gaps and padded to a byte at its end. `zero` is the code of real value 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qcc.dialects import compressed_types as types
from qcc.dialects import element_types
from qcc.dialects.encodings import Encoding, encoding_of, verify
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import ir
from qcc.runtime.reference import codecs, formats

Array = np.ndarray[Any, Any]
Streams = dict[str, tuple[Array, int]]  # name -> codes [n] u64, bits of each


def pack(stored: Array, kind: ir.RankedTensorType) -> dict[str, bytes]:
    """The streams of a tensor of type `kind`. Raises QccError where its zeros do not follow the encoding (three of four under 2:4)."""
    encoding, bits = encoding_of(kind), element_types.bits_of(kind)
    verify(encoding, list(kind.shape))
    codes = to_codes(stored, kind)
    zeros = None if encoding.kind == "dense" else np.broadcast_to(_zero_codes(kind), codes.shape)
    streams = PACK[encoding.kind](codes, zeros, bits, encoding)
    return {name: codecs.encode(values, width, encoding.codec) for name, (values, width) in streams.items()}


def unpack(streams: dict[str, bytes], kind: ir.RankedTensorType) -> Array:
    """The dense stored tensor of `streams`; inverse of `pack`. Raises QccError for streams that do not fit together."""
    encoding, bits = encoding_of(kind), element_types.bits_of(kind)
    zeros = np.zeros(kind.shape, np.uint64) if encoding.kind == "dense" else np.broadcast_to(_zero_codes(kind), kind.shape)
    try:
        codes = UNPACK[encoding.kind](_Reader(streams, encoding.codec), zeros, bits, encoding)
    except (KeyError, ValueError, IndexError) as problem:
        raise QccError(f"streams of a {encoding.kind} tensor of shape {list(kind.shape)} are damaged: {problem}") from None
    return from_codes(codes, kind)


def size_bytes(streams: dict[str, bytes]) -> int:
    """Bytes of all streams together."""
    return sum(len(data) for data in streams.values())


def to_codes(stored: Array, kind: ir.RankedTensorType) -> Array:
    """Unsigned codes of the type's width, u64: two's complement for signed integers, bits for floats, 0 and 1 for binary elements."""
    bits = element_types.bits_of(kind)
    if isinstance(types.describe(kind), types.Binary):
        return (stored > 0).astype(np.uint64)
    plain = stored if stored.dtype.kind in "iu" else stored.view(f"u{stored.dtype.itemsize}")
    return plain.astype(np.uint64) & np.uint64((1 << bits) - 1)


def from_codes(codes: Array, kind: ir.RankedTensorType) -> Array:
    """Stored elements of `codes`; inverse of `to_codes`."""
    bits, dtype = element_types.bits_of(kind), element_types.storage_dtype(kind)
    if isinstance(types.describe(kind), types.Binary):
        return np.where(codes > 0, 1, -1).astype(dtype)
    if dtype.kind == "i":
        signed = codes.astype(np.int64)
        return (signed - ((signed >> (bits - 1)) << bits)).astype(dtype)
    return codes.astype(dtype) if dtype.kind == "u" else codes.astype(f"u{dtype.itemsize}").view(dtype)


def _zero_codes(kind: ir.RankedTensorType) -> Array:
    return to_codes(formats.zero(kind), kind)


class _Reader:
    def __init__(self, streams: dict[str, bytes], codec: str) -> None:
        self.streams, self.codec = streams, codec

    def read(self, name: str, bits: int, count: int, most: int | None = None) -> Array:
        """The `count` codes of stream `name`, u64. Raises ValueError where a count read from a stream is beyond `most`."""
        if most is not None and not 0 <= count <= most:
            raise ValueError(f"{count} codes of stream '{name}', expected at most {most}")
        return codecs.decode(self.streams[name], bits, count, self.codec)


# --- dense and structured kinds -----------------------------------------------------------------------------------------------------


def _pack_dense(codes: Array, zeros: Array, bits: int, encoding: Encoding) -> Streams:
    return {"values": (codes.reshape(-1), bits)}


def _unpack_dense(reader: _Reader, zeros: Array, bits: int, encoding: Encoding) -> Array:
    return reader.read("values", bits, zeros.size).reshape(zeros.shape)


def _pack_channel(codes: Array, zeros: Array, bits: int, encoding: Encoding) -> Streams:
    axis = encoding.parameters["axis"]
    kept = (codes != zeros).any(axis=tuple(i for i in range(codes.ndim) if i != axis))
    return {"kept": (kept.astype(np.uint64), 1), "values": (codes.compress(kept, axis=axis).reshape(-1), bits)}


def _unpack_channel(reader: _Reader, zeros: Array, bits: int, encoding: Encoding) -> Array:
    axis = encoding.parameters["axis"]
    kept = reader.read("kept", 1, zeros.shape[axis]) > 0
    codes = np.moveaxis(zeros.copy(), axis, 0)
    inside = [int(kept.sum()), *codes.shape[1:]]
    shape = [int(kept.sum()) if i == axis else s for i, s in enumerate(zeros.shape)]
    codes[kept] = np.moveaxis(reader.read("values", bits, int(np.prod(inside))).reshape(shape), axis, 0)
    return np.moveaxis(codes, 0, axis)


def _blocks(array: Array, encoding: Encoding) -> Array:
    """[rows of blocks, columns of blocks, b0, b1] of the matrix [first axis, others], edges filled up with 0."""
    b0, b1 = encoding.parameters["shape"]
    matrix = array.reshape(array.shape[0], -1)
    rows, columns = -(-matrix.shape[0] // b0), -(-matrix.shape[1] // b1)
    padded = np.zeros((rows * b0, columns * b1), array.dtype)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    return padded.reshape(rows, b0, columns, b1).transpose(0, 2, 1, 3)


def _pack_block(codes: Array, zeros: Array, bits: int, encoding: Encoding) -> Streams:
    blocks, empty = _blocks(codes, encoding), _blocks(zeros, encoding)
    kept = (blocks != empty).any(axis=(2, 3))
    return {"kept": (kept.reshape(-1).astype(np.uint64), 1), "values": (blocks[kept].reshape(-1), bits)}


def _unpack_block(reader: _Reader, zeros: Array, bits: int, encoding: Encoding) -> Array:
    blocks = _blocks(zeros, encoding).copy()
    kept = reader.read("kept", 1, blocks.shape[0] * blocks.shape[1]).reshape(blocks.shape[:2]) > 0
    inside = (int(kept.sum()), *blocks.shape[2:])
    blocks[kept] = reader.read("values", bits, int(np.prod(inside))).reshape(inside)
    rows, columns, b0, b1 = blocks.shape
    matrix = blocks.transpose(0, 2, 1, 3).reshape(rows * b0, columns * b1)
    return matrix[: zeros.shape[0], : zeros[0].size].reshape(zeros.shape)


def _groups(array: Array, encoding: Encoding) -> Array:
    """[..., groups, m] with the grouped axis last, filled up with 0."""
    last = np.moveaxis(array, encoding.parameters["axis"], -1)
    m = encoding.parameters["m"]
    padded = np.zeros((*last.shape[:-1], -(-last.shape[-1] // m) * m), array.dtype)
    padded[..., : last.shape[-1]] = last
    return padded.reshape(*last.shape[:-1], -1, m)


def _pack_n_of_m(codes: Array, zeros: Array, bits: int, encoding: Encoding) -> Streams:
    n, m = encoding.parameters["n"], encoding.parameters["m"]
    groups = _groups(codes, encoding)
    filled = groups != _groups(zeros, encoding)
    most = int(filled.sum(axis=-1).max(initial=0))
    if most > n:
        raise QccError(
            f"{most} non-zero elements of {m} found, expected at most {n} for {n}:{m} sparsity; prune or choose another encoding"
        )
    index = np.sort(np.argsort(~filled, axis=-1, kind="stable")[..., :n], axis=-1)
    values = np.take_along_axis(groups, index, axis=-1)
    return {"index": (index.reshape(-1).astype(np.uint64), (m - 1).bit_length()), "values": (values.reshape(-1), bits)}


def _unpack_n_of_m(reader: _Reader, zeros: Array, bits: int, encoding: Encoding) -> Array:
    n, m, axis = (encoding.parameters[key] for key in ("n", "m", "axis"))
    groups = _groups(zeros, encoding)
    shape = (*groups.shape[:-1], n)
    index = reader.read("index", (m - 1).bit_length(), int(np.prod(shape))).reshape(shape)
    np.put_along_axis(groups, index.astype(np.int64), reader.read("values", bits, index.size).reshape(shape), axis=-1)
    last = groups.reshape(*groups.shape[:-2], -1)[..., : zeros.shape[axis]]
    return np.moveaxis(last, -1, axis)


def _pack_pattern(codes: Array, zeros: Array, bits: int, encoding: Encoding) -> Streams:
    taps = codes.shape[2] * codes.shape[3]
    kept = (codes != zeros).reshape(-1, taps)
    patterns, index = np.unique(kept, axis=0, return_inverse=True)
    if len(patterns) > 256:
        raise QccError(f"{len(patterns)} kernel patterns found, expected at most 256; prune to fewer patterns or choose another encoding")
    return {
        "patterns": (patterns.reshape(-1).astype(np.uint64), 1),
        "count": (np.array([len(patterns)], np.uint64), 16),
        "index": (index.reshape(-1).astype(np.uint64), max(1, (len(patterns) - 1).bit_length())),
        "values": (codes.reshape(-1, taps)[kept], bits),
    }


def _unpack_pattern(reader: _Reader, zeros: Array, bits: int, encoding: Encoding) -> Array:
    taps = zeros.shape[2] * zeros.shape[3]
    codes = zeros.reshape(-1, taps).copy()
    count = int(reader.read("count", 16, 1)[0])
    patterns = reader.read("patterns", 1, count * taps, 256 * taps).reshape(count, taps) > 0
    kept = patterns[reader.read("index", max(1, (count - 1).bit_length()), len(codes)).astype(np.int64)]
    codes[kept] = reader.read("values", bits, int(kept.sum()))
    return codes.reshape(zeros.shape)


def _pack_shift(codes: Array, zeros: Array, bits: int, encoding: Encoding) -> Streams:
    taps = codes.reshape(codes.shape[0], -1)
    filled = taps != zeros.reshape(taps.shape)
    most = int(filled.sum(axis=1).max(initial=0))
    if most > 1:
        raise QccError(f"{most} non-zero taps of a channel found, expected at most one for a shift layer")
    index = filled.argmax(axis=1)
    return {"index": (index.astype(np.uint64), _tap_bits(zeros)), "values": (taps[np.arange(len(taps)), index], bits)}


def _unpack_shift(reader: _Reader, zeros: Array, bits: int, encoding: Encoding) -> Array:
    codes = zeros.reshape(zeros.shape[0], -1).copy()
    index = reader.read("index", _tap_bits(zeros), len(codes)).astype(np.int64)
    codes[np.arange(len(codes)), index] = reader.read("values", bits, len(codes))
    return codes.reshape(zeros.shape)


def _tap_bits(zeros: Array) -> int:
    return max(1, (zeros[0].size - 1).bit_length())


# --- unstructured kinds -------------------------------------------------------------------------------------------------------------


def _pack_bitmap(codes: Array, zeros: Array, bits: int, encoding: Encoding) -> Streams:
    kept = codes != zeros
    return {"bitmap": (kept.reshape(-1).astype(np.uint64), 1), "values": (codes[kept], bits)}


def _unpack_bitmap(reader: _Reader, zeros: Array, bits: int, encoding: Encoding) -> Array:
    codes = zeros.copy()
    kept = reader.read("bitmap", 1, zeros.size).reshape(zeros.shape) > 0
    codes[kept] = reader.read("values", bits, int(kept.sum()))
    return codes


def _positions(kept: Array, longest: int) -> Array:
    """Positions to store of a flat mask so that between two neighbours (and before the first) at most `longest` are skipped."""
    found: list[int] = []
    previous = -1
    for position in np.flatnonzero(kept).tolist():
        while position - previous - 1 > longest:
            previous += longest + 1
            found.append(previous)  # a filler: the element there is zero
        found.append(position)
        previous = position
    return np.array(found, np.int64)


def _gaps(positions: Array) -> Array:
    return np.diff(positions, prepend=-1) - 1


def _matrix(array: Array, encoding: Encoding) -> Array:
    matrix = array.reshape(array.shape[0], -1)
    return matrix if encoding.kind == "csr" else matrix.T


def _pack_rows(codes: Array, zeros: Array, bits: int, encoding: Encoding) -> Streams:
    matrix, empty = _matrix(codes, encoding), _matrix(zeros, encoding)
    relative, width = encoding.parameters["relative"], encoding.parameters["index_bits"]
    columns = [_positions(row != none, (1 << width) - 1 if relative else row.size) for row, none in zip(matrix, empty, strict=True)]
    pointers = np.cumsum([0, *(c.size for c in columns)])
    index = [_gaps(c) if relative else c for c in columns]
    return {
        "pointers": (pointers.astype(np.uint64), 32),
        "index": (np.concatenate([np.zeros(0, np.int64), *index]).astype(np.uint64), width),
        "values": (np.concatenate([np.zeros(0, np.uint64), *(row[c] for row, c in zip(matrix, columns, strict=True))]), bits),
    }


def _unpack_rows(reader: _Reader, zeros: Array, bits: int, encoding: Encoding) -> Array:
    matrix = _matrix(zeros, encoding).copy()
    pointers = reader.read("pointers", 32, len(matrix) + 1).astype(np.int64)
    if (np.diff(pointers, prepend=0) < 0).any():
        raise ValueError("pointers descend")
    index = reader.read("index", encoding.parameters["index_bits"], int(pointers[-1]), zeros.size).astype(np.int64)
    values = reader.read("values", bits, int(pointers[-1]))
    for i, row in enumerate(matrix):
        here = slice(pointers[i], pointers[i + 1])
        row[np.cumsum(index[here] + 1) - 1 if encoding.parameters["relative"] else index[here]] = values[here]
    return (matrix if encoding.kind == "csr" else matrix.T).reshape(zeros.shape)


def _pack_runs(codes: Array, zeros: Array, bits: int, encoding: Encoding) -> Streams:
    width = encoding.parameters["run_bits"]
    positions = _positions((codes != zeros).reshape(-1), (1 << width) - 1)
    return {
        "count": (np.array([positions.size], np.uint64), 32),
        "runs": (_gaps(positions).astype(np.uint64), width),
        "values": (codes.reshape(-1)[positions], bits),
    }


def _unpack_runs(reader: _Reader, zeros: Array, bits: int, encoding: Encoding) -> Array:
    codes = zeros.reshape(-1).copy()
    count = int(reader.read("count", 32, 1)[0])
    runs = reader.read("runs", encoding.parameters["run_bits"], count, zeros.size).astype(np.int64)
    codes[np.cumsum(runs + 1) - 1] = reader.read("values", bits, count)
    return codes.reshape(zeros.shape)


PACK: dict[str, Callable[..., Streams]] = {
    "dense": _pack_dense,
    "channel": _pack_channel,
    "block": _pack_block,
    "n:m": _pack_n_of_m,
    "pattern": _pack_pattern,
    "bitmap": _pack_bitmap,
    "csr": _pack_rows,
    "csc": _pack_rows,
    "run-length": _pack_runs,
    "shift": _pack_shift,
}

UNPACK: dict[str, Callable[..., Array]] = {
    "dense": _unpack_dense,
    "channel": _unpack_channel,
    "block": _unpack_block,
    "n:m": _unpack_n_of_m,
    "pattern": _unpack_pattern,
    "bitmap": _unpack_bitmap,
    "csr": _unpack_rows,
    "csc": _unpack_rows,
    "run-length": _unpack_runs,
    "shift": _unpack_shift,
}
