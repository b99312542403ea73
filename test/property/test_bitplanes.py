"""Round trips of the accelerator's storage: activations as bit-planes, weights as runs of lines."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from qcc.dialects import bitplanes
from qcc.dialects.accelerator import Configuration
from qcc.runtime.fpga.encoder import Word
from qcc.runtime.fpga.machine import decode_lines
from qcc.runtime.fpga.ports import Port
from test.tiers import draws


@draws(100)
@example(low=-1, span=0)
@given(low=st.integers(-(2**15), 2**16 - 1), span=st.integers(0, 2**15))
def test_planes_hold_a_range_and_no_fewer_do(low: int, span: int) -> None:
    planes, signed = bitplanes.planes_of(low, low + span)
    weights = bitplanes.plane_weights(planes, signed)
    assert weights[weights < 0].sum() <= low and low + span <= weights[weights > 0].sum()
    if planes > 1:
        fewer = bitplanes.plane_weights(planes - 1, signed)
        assert not (fewer[fewer < 0].sum() <= low and low + span <= fewer[fewer > 0].sum())


@draws(100)
@given(
    data=st.data(), bits=st.integers(1, 32), signed=st.booleans(), positions=st.integers(1, 150), word_bits=st.sampled_from([32, 64, 128])
)
def test_pack_and_unpack_are_inverse(data: st.DataObject, bits: int, signed: bool, positions: int, word_bits: int) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    low = -(1 << (bits - 1)) if signed else 0
    values = rng.integers(low, low + (1 << bits), (3, positions))
    words = bitplanes.pack(values, bits, word_bits)
    assert words.shape == (3, -(-positions // word_bits), bits, word_bits // 8)
    found = bitplanes.unpack(words, signed)
    np.testing.assert_array_equal(found[:, :positions], values)
    assert not found[:, positions:].any(), "bits beyond the channels are zero"


@draws(100)
@given(
    seed=st.integers(0, 999),
    out=st.integers(1, 9),
    words=st.integers(1, 5),
    planes=st.integers(1, 8),
    density=st.sampled_from([0, 0.01, 0.1, 1]),
)
def test_run_coding_gives_back_every_line_that_is_not_zero(seed: int, out: int, words: int, planes: int, density: float) -> None:
    c = Configuration(rows=4, columns=1, word_bits=32)
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 1 << planes, (out, words * 32)) * (rng.random((out, words * 32)) < density)
    lines = bitplanes.weight_lines(weights, planes, c.rows, c.word_bits)
    coded = np.frombuffer(bitplanes.code_runs(lines), np.uint8)
    tiles = len(lines)
    fields = {"address": 0, "line": 0, "tiles": tiles, "words": words, "planes": planes, "coding": 1, "size_words": len(coded) // 4}
    plane, index, last, payload = decode_lines(coded, Word("load_weights", fields), c)
    found = np.zeros_like(lines)
    tile = np.cumsum(last) - last
    found[tile, plane, index] = payload
    np.testing.assert_array_equal(found, lines)
    assert len(plane) == bitplanes.stored_lines(lines).sum() and last.sum() == tiles


@draws(100)
@given(seed=st.integers(0, 999), axis=st.integers(0, 2), gap=st.integers(0, 40))
def test_a_port_gives_back_what_it_stored(seed: int, axis: int, gap: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (3, 5, 4)
    positions = tuple(int(p) for p in np.sort(rng.choice(shape[axis] + gap, shape[axis], replace=False)))
    words = -(-(positions[-1] + 1) // 32)
    port = Port(0, 2, shape, axis, 6, True, 1, words * 6 + 3, positions)
    dram = rng.integers(0, 256, (2 + port.pixels * port.pixel_words, 4)).astype(np.uint8)
    values = rng.integers(-32, 32, shape)
    port.write(dram, values)
    np.testing.assert_array_equal(port.read(dram), values)
    assert Port.from_dict(port.as_dict()) == port
