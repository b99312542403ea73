"""Every encoding with every codec gives back what was stored, and its byte count is the one the definition says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcc.dialects import element_types
from qcc.dialects.encodings import CODECS, KINDS, Encoding, make_encoding
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import create_context, ir
from qcc.runtime.reference import codecs, storage
from test.tiers import draws

CONTEXT = create_context()
PARAMETERS: dict[str, Any] = {
    "channel": {"axis": st.integers(0, 3)},
    "block": {"shape": st.lists(st.integers(1, 5), min_size=2, max_size=2)},
    "n:m": {"n": st.integers(1, 3), "m": st.integers(4, 6), "axis": st.integers(0, 3)},
    "csr": {"index_bits": st.integers(1, 8), "relative": st.just(True)},
    "csc": {"index_bits": st.integers(1, 8), "relative": st.just(True)},
    "run-length": {"run_bits": st.integers(1, 5)},
}


@st.composite
def sparse_tensors(draw: st.DrawFn) -> tuple[np.ndarray, Encoding, int, bool, int]:
    """Stored elements that follow the drawn encoding, with bits, signedness and zero point of their affine type."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    encoding = Encoding(kind, {k: draw(v) for k, v in PARAMETERS.get(kind, {}).items()}, draw(st.sampled_from(CODECS)))
    shape = draw(st.lists(st.integers(1, 7), min_size=4, max_size=4))
    if kind == "shift":
        shape[1] = 1
    bits, signed = draw(st.integers(1, 16)), draw(st.booleans())
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    zero = draw(st.integers(low, high))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    stored = rng.integers(low, high, shape, endpoint=True)
    empty = rng.random(shape) < draw(st.floats(0, 1))
    if kind == "channel":
        empty[...] = np.moveaxis(empty, encoding.parameters["axis"], 0)[(slice(None), *[slice(0, 1)] * 3)].reshape(
            [-1 if i == encoding.parameters["axis"] else 1 for i in range(4)]
        )
    elif kind == "n:m":  # keep the first n of each group, so that no group has more
        n, m, axis = (encoding.parameters[k] for k in ("n", "m", "axis"))
        position = np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(4)])
        empty |= position % m >= n
    elif kind == "shift":
        taps = shape[2] * shape[3]
        keep = rng.integers(0, taps, shape[0])
        empty = (np.arange(taps) != keep[:, None]).reshape(shape)
    if kind != "dense":
        stored = np.where(empty, zero, stored)
    return stored, encoding, bits, signed, zero


@draws(150)
@given(sparse_tensors())
def test_round_trip(case: tuple[np.ndarray, Encoding, int, bool, int]) -> None:
    stored, encoding, bits, signed, zero = case
    with CONTEXT, ir.Location.unknown():
        element = element_types.affine_type(0.5, zero, bits=bits, signed=signed)
        kind = ir.RankedTensorType.get(list(stored.shape), element, encoding=make_encoding(encoding))
        stored = stored.astype(element_types.storage_dtype(kind))
        found = storage.unpack(storage.pack(stored, kind), kind)
    assert found.dtype == stored.dtype and np.array_equal(found, stored)


@draws(100)
@given(st.integers(1, 20), st.integers(0, 3000), st.sampled_from(["huffman", "rans"]), st.floats(0.01, 1), st.integers(0, 1 << 30))
def test_codecs_round_trip_and_never_grow_by_more_than_the_mode(bits: int, count: int, codec: str, p: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = np.minimum(rng.geometric(p, count) - 1, (1 << bits) - 1).astype(np.uint64)
    data = codecs.encode(codes, bits, codec)
    assert len(data) <= 1 + -(-count * bits // 8)
    assert np.array_equal(codecs.decode(data, bits, count, codec), codes)


def _stored_bytes(stored: np.ndarray, bits: int, encoding: Encoding) -> dict[str, int]:
    with CONTEXT, ir.Location.unknown():
        kind = ir.RankedTensorType.get(list(stored.shape), element_types.affine_type(0.5, bits=bits), encoding=make_encoding(encoding))
        return {name: len(data) for name, data in storage.pack(stored.astype(element_types.storage_dtype(kind)), kind).items()}


def test_byte_counts_by_hand() -> None:
    x = np.zeros((4, 16), np.int8)
    x[0, 3], x[1, 15], x[2, 0], x[2, 9] = 1, 2, 3, -4
    assert _stored_bytes(x, 4, Encoding()) == {"values": 32}
    assert _stored_bytes(x, 3, Encoding()) == {"values": 24}
    assert _stored_bytes(x, 4, Encoding("bitmap")) == {"bitmap": 8, "values": 2}
    # row 1 needs fillers at 3, 7 and 11, row 2 has a gap of 8: one filler at 4 before 9
    assert _stored_bytes(x, 4, Encoding("csr", {"index_bits": 2, "relative": True})) == {"pointers": 20, "index": 3, "values": 5}
    assert _stored_bytes(x, 4, Encoding("csr", {"index_bits": 4, "relative": False})) == {"pointers": 20, "index": 2, "values": 2}
    assert _stored_bytes(x, 4, Encoding("n:m", {"n": 1, "m": 4, "axis": 1})) == {"index": 4, "values": 8}
    assert _stored_bytes(x, 4, Encoding("block", {"shape": [2, 4]})) == {"kept": 1, "values": 16}
    assert _stored_bytes(x, 4, Encoding("channel", {"axis": 0})) == {"kept": 1, "values": 24}


def test_rans_and_huffman_come_near_the_entropy() -> None:
    rng = np.random.default_rng(0)
    codes = np.clip(np.rint(rng.standard_normal(50000) * 12), -127, 127).astype(np.int8).view(np.uint8).astype(np.uint64)
    p = np.bincount(codes.astype(np.int64)) / codes.size
    entropy_bytes = -(p[p > 0] * np.log2(p[p > 0])).sum() * codes.size / 8
    assert len(codecs.encode(codes, 8, "rans")) < entropy_bytes * 1.02
    assert len(codecs.encode(codes, 8, "huffman")) < entropy_bytes * 1.02


def test_zeros_that_do_not_follow_the_encoding_are_named() -> None:
    x = np.ones((1, 4), np.int8)
    with pytest.raises(QccError, match="4 non-zero elements of 4 found, expected at most 2 for 2:4 sparsity"):
        _stored_bytes(x, 4, Encoding("n:m", {"n": 2, "m": 4, "axis": 1}))
    with pytest.raises(QccError, match="4 non-zero taps of a channel found"):
        _stored_bytes(x.reshape(1, 1, 2, 2), 4, Encoding("shift"))


@draws(100)
@given(st.sampled_from(["huffman", "rans"]), st.integers(0, 1 << 30), st.data())
def test_damaged_streams_raise_or_differ_but_never_crash(codec: str, seed: int, data: st.DataObject) -> None:
    codes = np.minimum(np.random.default_rng(seed).geometric(0.3, 500) - 1, 255).astype(np.uint64)
    good = bytearray(codecs.encode(codes, 8, codec))
    position = data.draw(st.integers(0, len(good) - 1))
    if data.draw(st.booleans()):
        good[position] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del good[position:]
    try:
        assert codecs.decode(bytes(good), 8, 500, codec).shape == (500,)
    except ValueError:
        pass


@draws(150)
@given(sparse_tensors(), st.data())
def test_damaged_tensors_give_an_error_or_a_tensor_of_the_right_type(
    case: tuple[np.ndarray, Encoding, int, bool, int], data: st.DataObject
) -> None:
    stored, encoding, bits, signed, zero = case
    with CONTEXT, ir.Location.unknown():
        element = element_types.affine_type(0.5, zero, bits=bits, signed=signed)
        kind = ir.RankedTensorType.get(list(stored.shape), element, encoding=make_encoding(encoding))
        streams = storage.pack(stored.astype(element_types.storage_dtype(kind)), kind)
        name = data.draw(st.sampled_from(sorted(streams)))
        bytes_ = bytearray(streams[name])
        if bytes_:
            position = data.draw(st.integers(0, len(bytes_) - 1))
            bytes_[position] ^= 1 << data.draw(st.integers(0, 7))
            del bytes_[data.draw(st.integers(position + 1, len(bytes_))) :]
        streams[name] = bytes(bytes_)
        try:
            found = storage.unpack(streams, kind)
        except QccError as problem:
            assert "are damaged" in str(problem)
        else:
            assert found.shape == stored.shape and found.dtype == element_types.storage_dtype(kind)
