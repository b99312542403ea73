"""Resizing of images, from PyTorch and from ONNX: equal to torch and to ONNX's reference in every mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator

import qcc
from qcc.dialects.mlir import walk
from test.frontend.onnx_models import FLOAT, graph_form, model
from test.frontend.test_torch import agrees, ops
from test.tiers import slow_except

interpolate = torch.nn.functional.interpolate


class Resize(torch.nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return interpolate(x, **self.options)


@pytest.mark.parametrize(
    "options",
    [
        {"scale_factor": 2},
        {"scale_factor": (3, 1)},
        {"size": (3, 4)},  # every second
        {"scale_factor": 1.5, "mode": "bilinear"},
        {"size": (9, 5), "mode": "bilinear", "align_corners": True},
    ],
)
def test_torch(options: dict[str, Any]) -> None:
    torch.manual_seed(1)
    found = ops(agrees(Resize(**options), torch.randn(2, 3, 6, 8)))
    assert not found["linalg.generic"]


def resized(mode: str, place: str, rounding: str, scale: float | None, quantized: bool = False) -> onnx.ModelProto:
    """One `Resize` of [2, 3, 4, 6] by `scale`, or to [2, 3, 7, 9]; between u8 values of one scale where `quantized`."""
    constants: dict[str, np.ndarray] = {"s": np.float32(0.05), "z": np.uint8(128)}
    if scale is None:
        constants["sizes"] = np.array([2, 3, 7, 9], np.int64)
    else:
        constants["scales"] = np.array([1, 1, scale, scale], np.float32)
    given = ["x0" if quantized else "x", "", "" if scale is None else "scales", "sizes" if scale is None else ""]
    node = helper.make_node(
        "Resize", given, ["y0" if quantized else "y"], mode=mode, coordinate_transformation_mode=place, nearest_mode=rounding
    )
    around = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["x0"]),
        node,
        helper.make_node("QuantizeLinear", ["y0", "s", "z"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "s", "z"], ["y"]),
    ]
    return model(around if quantized else [node], {"x": (FLOAT, [2, 3, 4, 6])}, ["y"], constants, opset=19)


MODES = [("nearest", "asymmetric", "floor"), ("nearest", "half_pixel", "round_prefer_floor")] + [
    (mode, place, "floor")
    for mode in ("linear", "cubic")
    for place in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "asymmetric", "align_corners")
]


@pytest.mark.parametrize("scale", slow_except([2.0, 0.5, 1.5, None], 1.5))
@pytest.mark.parametrize(("mode", "place", "rounding"), slow_except(MODES, MODES[0], ("linear", "half_pixel", "floor")))
def test_onnx(mode: str, place: str, rounding: str, scale: float | None) -> None:
    source = resized(mode, place, rounding, scale)
    x = np.random.default_rng(2).normal(size=(2, 3, 4, 6)).astype(np.float32)
    expected = np.asarray(ReferenceEvaluator(source).run(None, {"x": x})[0])
    np.testing.assert_allclose(qcc.compile(source, threads=1)(x), expected, atol=1e-5)


def test_nearest_neighbours_of_integers_are_movement() -> None:
    source = resized("nearest", "asymmetric", "floor", 2.0, quantized=True)
    module = graph_form(source)  # alive as long as its operations are looked at
    assert len(list(walk(module, "qcc.broadcast"))) == 2
    x = np.random.default_rng(2).normal(size=(2, 3, 4, 6)).astype(np.float32)
    exe = qcc.compile(source, threads=1)
    expected = np.clip(np.rint(x / np.float32(0.05)), -128, 127).repeat(2, 2).repeat(2, 3) * np.float32(0.05)
    assert np.array_equal(exe(x), expected)
    assert not any(row["generic"] for row in exe.report["layers"])
