"""Codings of activations: every pixel comes back, and whole networks compute the same with less traffic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import qcc
from qcc.dialects import activation_codings, run_lengths
from qcc.dialects.errors import QccError
from qcc.runtime.fpga.isa import ACTIVATION_CODINGS
from qcc.runtime.fpga.machine import Machine
from test.runtime.fpga.test_machine import C, Word
from test.tiers import draws


def words_of_flags(pixel: np.ndarray) -> int:
    return -(-len(pixel) // 8) - (-np.count_nonzero(pixel) // pixel.shape[1])


def words_of_run_lengths(pixel: np.ndarray) -> int:
    """Code by code: 16 zeros, up to 15 zeros and a byte that is not 0, or all that is left being 0."""
    left, codes = pixel.reshape(-1), 0
    while len(left):
        zeros = len(left) if not left.any() else int(np.flatnonzero(left)[0])
        left = left[len(left) if zeros == len(left) else min(zeros, 15) + 1 :]
        codes += 1
    return -(-12 * codes // (8 * pixel.shape[1]))


WORDS = {"raw": len, "flags": words_of_flags, "run_lengths": words_of_run_lengths}


@pytest.mark.parametrize("coding", ACTIVATION_CODINGS)
@draws(60)
@given(
    seed=st.integers(0, 1 << 30),
    count=st.integers(0, 5),
    words=st.integers(0, 40),
    word_bytes=st.sampled_from([4, 8, 16]),
    share=st.sampled_from([0.0, 0.3, 0.9, 0.98, 1.0]),
)
def test_pixels_come_back(coding: str, seed: int, count: int, words: int, word_bytes: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    runs = (rng.integers(1, 256, (count, words, word_bytes)) * (rng.random((count, words, word_bytes)) >= share)).astype(np.uint8)
    slots, used = activation_codings.code(coding, runs)
    assert slots.shape == (count, activation_codings.slot_words(coding, words), word_bytes)
    garbage = slots.copy()
    for run, slot, size in zip(runs, garbage, used, strict=True):
        assert size == WORDS[coding](run) and not slot[size:].any()
        slot[size:] = rng.integers(0, 256, slot[size:].shape)  # what lies behind a slot's end is not read
    found, again = activation_codings.decode(coding, garbage, words)
    np.testing.assert_array_equal(found, runs)
    np.testing.assert_array_equal(again, used)


@pytest.mark.parametrize("coding", ACTIVATION_CODINGS)
@draws(60)
@given(seed=st.integers(0, 1 << 30), words=st.integers(0, 9), word_bytes=st.sampled_from([4, 8, 16]), zeros=st.booleans())
def test_any_slot_is_some_pixel(coding: str, seed: int, words: int, word_bytes: int, zeros: bool) -> None:
    """Slots that no one coded: a damaged program reads some pixel and no more words than the slot has."""
    rng = np.random.default_rng(seed)
    size = (3, activation_codings.slot_words(coding, words), word_bytes)
    slots = rng.integers(0, 256, size).astype(np.uint8) * (rng.random(size) < (0.3 if zeros else 1)).astype(np.uint8)
    found, used = activation_codings.decode(coding, slots, words)
    assert found.shape == (3, words, word_bytes) and (used <= size[1]).all()


def test_run_lengths_of_a_pixel_by_hand() -> None:
    """Two words of 64 bits: 3 zeros and 0xAB, 10 zeros and 1, the end: codes AB3, 01A, 000, least significant bits first."""
    pixel = np.zeros((1, 2, 8), np.uint8)
    pixel[0, 0, 3], pixel[0, 1, 6] = 0xAB, 1
    slots, used = run_lengths.code(pixel)
    assert slots.shape == (1, 3, 8) and list(used) == [1]
    assert slots[0, 0].tolist() == [0xB3, 0xAA, 0x01, 0, 0, 0, 0, 0]
    pixel[0, 1] = 0  # 12 zeros to the end need no code for each
    assert run_lengths.code(pixel)[0][0, 0].tolist() == [0xB3, 0x0A, 0, 0, 0, 0, 0, 0]


def test_an_accelerator_without_a_coding_refuses_it() -> None:
    store = {"address": 0, "output": 0, "count": 1, "run_words": 1, "pixel_words": 2, "output_words": 1, "coding": 2}
    with pytest.raises(QccError, match="store moves pixels coded as run_lengths, expected one of the accelerator's 1: raw"):
        Machine(C, np.zeros((8, 4), np.uint8)).run(Word("store", store))


def _network(channels: int) -> str:
    rng = np.random.default_rng(channels)
    x, w = f"tensor<1x{channels}x8x8x!x>", f"tensor<{channels}x{channels}x3x3x!w>"
    lines, value = [], "%q"
    for i in range(3):
        weights = rng.integers(-7, 8, (channels, channels, 3, 3))
        lines += [
            f'%w{i} = "qcc.constant"() {{value = dense<{weights.tolist()}> : tensor<{channels}x{channels}x3x3xi8>}} : () -> {w}',
            f'%a{i} = "qcc.conv2d"({value}, %w{i}) {{strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, '
            f"dilations = array<i64: 1, 1>, groups = 1 : i64, qcc.zeros = 0.8 : f64}} : ({x}, {w}) "
            f'-> tensor<1x{channels}x8x8xi32> loc("conv{i}")',
            f'%r{i} = "qcc.requantize"(%a{i}) {{mode = "f32", multiplier = dense<0.004> : tensor<1xf32>}} : '
            f"(tensor<1x{channels}x8x8xi32>) -> {x}",
        ]
        value = f"%r{i}"
    body = "\n  ".join(lines)
    return f"""
!x = !quant.uniform<u8:f32, 0.05>
!w = !quant.uniform<i4:f32, 0.5>
func.func @main(%x: tensor<1x{channels}x8x8xf32>) -> tensor<1x{channels}x8x8xf32> {{
  %q = "qcc.quantize"(%x) : (tensor<1x{channels}x8x8xf32>) -> {x}
  {body}
  %f = "qcc.dequantize"({value}) : ({x}) -> tensor<1x{channels}x8x8xf32>
  return %f : tensor<1x{channels}x8x8xf32>
}}
"""


@pytest.mark.slow
def test_a_network_with_less_traffic(tmp_path) -> None:
    """Sixteen channels in words of 64 bits: three of four bytes have no channel, and most activations are expected to be 0."""
    file = tmp_path / "network.mlir"
    file.write_text(_network(16))
    raw, *coded = (qcc.compile(file, target=qcc.FpgaTarget(f"ecp5-85k,activation_codings={n}")) for n in (1, 2, 3))
    x = np.random.default_rng(0).standard_normal((1, 16, 8, 8)).astype(np.float32)
    wanted = raw.simulate(x, level="cycle")
    assert wanted.trace.saved_bytes == 0 and set(wanted.trace.activations) == {"raw"}
    for coding, executable in zip(("flags", "run_lengths"), coded, strict=True):
        for level in ("functional", "cycle"):
            found = executable.simulate(x, level=level)
            np.testing.assert_array_equal(found.outputs[0], wanted.outputs[0])
            assert found.trace.saved_bytes > 0 and found.trace.dram_bytes + found.trace.saved_bytes == wanted.trace.dram_bytes
            assert found.trace.dram_bytes < 0.8 * wanted.trace.dram_bytes
            moved, as_raw = found.trace.activations[coding]
            assert moved < 0.5 * as_raw and f"{coding} {moved} of {as_raw} bytes" in found.trace.summary()
        assert [coding in row["activations"] for row in found.trace.layers] == [True, True, True]
        assert found.trace.cycles <= executable.predict().cycles
        facts = [row["facts"].get("activation_coding", "") for row in executable.report["layers"]]
        assert sum(fact.startswith(f"{coding}; words a pixel expected at 80% zeros: raw 8.0, flags") for fact in facts) == 2, facts
