"""Transposed convolutions, float from PyTorch and quantized from ONNX: equal to torch and ONNX Runtime, with no generic step."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

import qcc
from qcc.dialects.mlir import walk
from test.frontend.onnx_models import FLOAT, evaluate, graph_form, model
from test.frontend.test_onnx_quantization import runtime_result
from test.frontend.test_torch import agrees, ops
from test.tiers import slow_except


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        (2, {"stride": 2}),  # as in U-Net: one tap per phase
        (4, {"stride": 2, "padding": 1}),
        (3, {"stride": 2, "padding": 1, "output_padding": 1}),  # phases of two taps and of one
        (5, {"stride": 3, "padding": 1, "output_padding": 2, "bias": False}),
        (3, {"dilation": 2, "padding": 1}),
        (4, {"stride": 2, "groups": 4}),
        (1, {"stride": 2, "output_padding": 1}),  # most of the result is bias
        ((2, 3), {"stride": (1, 2), "padding": (0, 1), "output_padding": (0, 1), "groups": 2}),
    ],
)
def test_images(kernel: Any, options: dict[str, Any]) -> None:
    torch.manual_seed(1)
    found = ops(agrees(nn.ConvTranspose2d(8, 12, kernel, **options), torch.randn(2, 8, 5, 7)))
    assert found["qcc.conv2d"] == 1
    assert not found["linalg.generic"]


def test_signals() -> None:
    torch.manual_seed(1)
    assert ops(agrees(nn.ConvTranspose1d(6, 4, 16, stride=8, padding=4), torch.randn(1, 6, 9)))["qcc.conv2d"] == 1


def test_both_strided_and_dilated_takes_the_generic_path() -> None:
    torch.manual_seed(1)
    module, x = nn.ConvTranspose2d(2, 3, 3, stride=2, dilation=2).eval(), torch.randn(1, 2, 4, 4)
    exe = qcc.compile(module, example_inputs=(x,), threads=1)
    np.testing.assert_allclose(exe(x).numpy(), module(x).detach().numpy(), atol=1e-5)
    assert any(row["generic"] for row in exe.report["layers"])


def quantized(groups: int, axis: int | None, strides: int = 2, size: int = 3) -> onnx.ModelProto:
    """QDQ transposed convolution of u8 and asymmetric u8 weights, per tensor or along `axis`, with an i32 bias."""
    rng = np.random.default_rng(7)
    ins, outs = 4 * groups, 3 * groups
    channels = () if axis is None else (3,)
    scale = rng.uniform(0.005, 0.02, channels).astype(np.float32)
    constants = {
        "xs": np.float32(0.05),
        "xz": np.uint8(120),
        "w": rng.integers(0, 256, (ins, 3, size, size)).astype(np.uint8),
        "ws": scale,
        "wz": rng.integers(100, 150, channels).astype(np.uint8),
        "b": rng.integers(-500, 500, outs).astype(np.int32),
        "bs": (np.float32(0.05) * np.tile(scale, groups)) if channels else np.float32(0.05) * scale,
        "ys": np.float32(0.11),
        "yz": np.uint8(128),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1),
        helper.make_node("DequantizeLinear", ["b", "bs"], ["bd"], axis=0),
        helper.make_node("ConvTranspose", ["xd", "wd", "bd"], ["y0"], group=groups, strides=[strides] * 2, pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["y0", "ys", "yz"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "ys", "yz"], ["y"]),
    ]
    return model(nodes, {"x": (FLOAT, [2, ins, 5, 6])}, ["y"], constants)


@pytest.mark.parametrize(
    ("groups", "axis", "strides", "size"), slow_except([(1, 1, 2, 3), (2, 1, 2, 4), (1, None, 1, 3), (4, None, 3, 5)], (1, None, 1, 3))
)
def test_quantized_weights_stay_integers(groups: int, axis: int | None, strides: int, size: int) -> None:
    source = quantized(groups, axis, strides, size)
    x = np.random.default_rng(3).normal(0, 2, (2, 4 * groups, 5, 6)).astype(np.float32)
    expected = runtime_result(source, x=x)
    assert np.abs(evaluate(source, x)[0] - expected).max() <= 0.11 + 1e-6  # a tie of the last rounding
    exe = qcc.compile(source, threads=1)
    step = np.rint((exe(x) - expected) / 0.11)
    assert np.abs(step).max() <= 1 and np.mean(step != 0) < 0.01  # ties
    assert not any(row["generic"] for row in exe.report["layers"])
    module = graph_form(source)  # alive as long as its operations are looked at
    (convolution,) = walk(module, "qcc.conv2d")
    assert convolution.operands[1].owner.name == "qcc.dequantize"
