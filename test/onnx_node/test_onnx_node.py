"""The table of expected failures is well formed, and a sample of the node tests runs as it says."""

from __future__ import annotations

import pytest

from test.onnx_node import run as runner
from test.onnx_node.cases import collect


def test_every_expected_failure_has_a_reason_and_one_entry() -> None:
    names = [name for group in runner.tomllib.loads(runner.TABLE.read_text())["group"] for name in group["tests"]]
    assert len(names) == len(set(names))
    assert all(runner.expected_failures("cpu").values())


def test_a_surprise_fails_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.report({"test_a": ("pass", ""), "test_b": ("wrong", "x")}, {"test_b": "known"}, "cpu") == 0
    assert runner.report({"test_b": ("pass", "")}, {"test_b": "known"}, "cpu") == 1
    assert runner.report({"test_c": ("crash", "x")}, {}, "cpu") == 1
    assert "take it out" in capsys.readouterr().out


@pytest.mark.slow
def test_node_tests_are_as_expected() -> None:
    names = (
        "test_relu",
        "test_basic_conv_with_padding",
        "test_qlinearmatmul_2D_uint8_float32",
        "test_quantizelinear_axis",
        "test_bitcast_bool_to_uint8",
        "test_affine_grid_3d",
        "test_group_normalization_epsilon",
        "test_mvn",
        "test_rotary_embedding",
        "test_sce_none_weights",  # a function of a function
        "test_softsign",
        "test_swish",
    )
    cases = [case for case in collect() if case.name in names]
    assert len(cases) == len(names)
    results = runner.run(cases, "cpu", 1, 120)
    assert runner.report(results, runner.expected_failures("cpu"), "cpu") == 0
