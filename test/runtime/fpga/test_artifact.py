"""The accelerator file: round trip, and a clear error for every way it can be wrong."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import qcc
from qcc.dialects.accelerator import Configuration
from qcc.dialects.errors import QccError
from qcc.runtime.fpga import artifact
from test.tiers import draws

MODEL = """
!x = !quant.uniform<u4:f32, 0.5:3>
!w = !quant.uniform<i4:f32, 0.5>
func.func @main(%x: tensor<2x3xf32>) -> tensor<2x2xf32> {
  %w = "qcc.constant"() {value = dense<[[1, -2, 3], [4, 5, -6]]> : tensor<2x3xi8>} : () -> tensor<2x3x!w>
  %q = "qcc.quantize"(%x) : (tensor<2x3xf32>) -> tensor<2x3x!x>
  %a = "qcc.linear"(%q, %w) : (tensor<2x3x!x>, tensor<2x3x!w>) -> tensor<2x2xi32>
  %r = "qcc.requantize"(%a) {mode = "f32", multiplier = dense<0.3> : tensor<1xf32>} : (tensor<2x2xi32>) -> tensor<2x2x!x>
  %f = "qcc.dequantize"(%r) : (tensor<2x2x!x>) -> tensor<2x2xf32>
  return %f : tensor<2x2xf32>
}
"""
X = np.array([[0.5, 1.0, -1.0], [2.0, 3.0, 0.0]], np.float32)


@pytest.fixture(scope="module")
def executable(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.mlir"
    path.write_text(MODEL)
    return qcc.compile(path, target=qcc.FpgaTarget("ecp5-85k,word_bits=32"))


@pytest.fixture(scope="module")
def data(executable):
    return artifact.to_bytes(executable.package)


def test_a_saved_file_computes_the_same(executable, tmp_path):
    executable.save(tmp_path / "model.qfa")
    loaded = qcc.load(tmp_path / "model.qfa")
    assert loaded.inputs == executable.inputs and loaded.outputs == executable.outputs
    np.testing.assert_array_equal(loaded(X), executable(X))
    loaded.save(tmp_path / "again.qfa")
    assert (tmp_path / "again.qfa").read_bytes() == (tmp_path / "model.qfa").read_bytes()


def test_both_levels_agree_and_rtl_says_what_it_is_not_built_for(executable):
    functional, cycles = executable.simulate(X), executable.simulate(X, level="cycle")
    np.testing.assert_array_equal(functional.outputs[0], cycles.outputs[0])
    assert functional.trace.cycles is None and cycles.trace.cycles > 0
    assert functional.trace.dram_bytes == cycles.trace.dram_bytes > 0
    assert f"{cycles.trace.cycles} cycles" in cycles.trace.summary()
    with pytest.raises(QccError, match="not built for 'bus_bytes_per_cycle' of 8, expected 4"):
        executable.simulate(X, level="rtl")
    with pytest.raises(QccError, match="level is 'fast', expected one of functional, cycle, rtl"):
        executable.simulate(X, level="fast")


def test_the_predicted_cycles_are_those_of_any_run(executable):
    cycles = executable.simulate(X, level="cycle").trace
    assert executable.predict().cycles == cycles.cycles == executable.report["accelerator"]["cycles"]
    assert executable.predict().dram_bytes == cycles.dram_bytes
    assert executable.simulate(-X, level="cycle").trace.cycles == cycles.cycles


def test_wrong_inputs_are_named(executable):
    with pytest.raises(QccError, match=r"shape \[3, 2\] and dtype float32, expected shape \[2, 3\] and dtype float32"):
        executable(X.T)
    with pytest.raises(QccError, match=r"dtype float64, expected shape \[2, 3\]"):
        executable(X.astype(np.float64))
    with pytest.raises(QccError, match="2 inputs given, expected 1"):
        executable(X, X)


@draws(60)
@given(place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_any_altered_byte_is_an_error(data, place, change):
    broken = bytearray(data)
    broken[int(place * len(data))] ^= change
    with pytest.raises(QccError):
        artifact.from_bytes(bytes(broken))


@draws(30)
@given(length=st.floats(0, 1, exclude_max=True))
def test_any_truncation_is_an_error(data, length):
    with pytest.raises(QccError, match=r"truncated or altered|neither a CPU artefact nor"):
        artifact.from_bytes(data[: int(length * len(data))])


def test_a_file_for_another_accelerator_is_refused(data):
    other = dataclasses.replace(Configuration(), word_bits=32, rows=8)
    with pytest.raises(QccError, match=r"compiled for another accelerator \(rows 4 instead of 8\)"):
        artifact.from_bytes(data, "model.qfa", other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arena_bytes": 7}, "memory map is not in words of 4 bytes"),
        ({"results": (99,)}, "returns values that no segment makes"),
        ({"hosts": {}}, "runs segment 'host_0', which it does not hold"),
        ({"arena_bytes": 0}, "lies outside the accelerator file's memory map"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(executable, change, message):
    with pytest.raises(QccError, match=message):
        artifact.from_bytes(artifact.to_bytes(dataclasses.replace(executable.package, **change)))


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("virtex", "device is 'virtex', expected one of ecp5-85k"),
        ("ecp5-85k,rows=5", "'rows' is 5, expected a divisor of word_bits"),
        ("ecp5-85k,speed=5", "device has 'speed=5', expected a number for one of rows"),
        ("ecp5-85k,weight_lines=70000", "'weight_lines' is 70000, expected less than 65536"),
        ("ecp5-85k,columns=0", "'columns' is 0, expected a positive integer"),
    ],
)
def test_impossible_devices_are_refused(device, message):
    with pytest.raises(QccError, match=message):
        qcc.FpgaTarget(device)
