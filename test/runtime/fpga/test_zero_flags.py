"""Zero flags of activations: the coding gives every run back, and whole networks compute the same with less traffic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import qcc
from qcc.dialects import zero_flags
from test.tiers import draws


@draws(60)
@given(
    seed=st.integers(0, 1 << 30),
    count=st.integers(0, 5),
    words=st.integers(0, 40),
    word_bytes=st.sampled_from([4, 8, 16]),
    share=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
)
def test_runs_come_back(seed: int, count: int, words: int, word_bytes: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    runs = rng.integers(1, 256, (count, words, word_bytes)).astype(np.uint8) * (rng.random((count, words, word_bytes)) >= share)
    slots, used = zero_flags.code(runs.astype(np.uint8))
    assert slots.shape == (count, zero_flags.flag_words(words) + words, word_bytes)
    for slot, run, size in zip(slots, runs, used, strict=True):
        assert size == zero_flags.flag_words(words) + -(-np.count_nonzero(run) // word_bytes)
        assert not slot[size:].any()
    garbage = slots.copy()
    for slot, size in zip(garbage, used, strict=True):
        slot[size:] = rng.integers(0, 256, slot[size:].shape)  # what lies behind a slot's end is not read
    found, again = zero_flags.decode(garbage, words)
    np.testing.assert_array_equal(found, runs)
    np.testing.assert_array_equal(again, used)


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
    """Sixteen channels in words of 64 bits: three of four bytes have no channel, and most activations are 0."""
    file = tmp_path / "network.mlir"
    file.write_text(_network(16))
    plain, flagged = (qcc.compile(file, target=qcc.FpgaTarget(f"ecp5-85k{more}")) for more in ("", ",activation_codings=2"))
    x = np.random.default_rng(0).standard_normal((1, 16, 8, 8)).astype(np.float32)
    wanted = plain.simulate(x, level="cycle")
    for level in ("functional", "cycle"):
        found = flagged.simulate(x, level=level)
        np.testing.assert_array_equal(found.outputs[0], wanted.outputs[0])
        assert found.trace.saved_bytes > 0 and found.trace.dram_bytes + found.trace.saved_bytes == wanted.trace.dram_bytes
        assert found.trace.dram_bytes < 0.8 * wanted.trace.dram_bytes
        assert "zero flags of activations" in found.trace.summary()
    assert wanted.trace.saved_bytes == 0
    assert flagged.simulate(x, level="cycle").trace.cycles <= flagged.predict().cycles
    facts = [row["facts"].get("zero_flags", "") for row in flagged.report["layers"]]
    assert sum("words a pixel expected at" in fact and "not used" not in fact for fact in facts) >= 2
