"""Models in half precision: computed in float on qcc's own codelets, with weights that stay in two bytes where they are bfloat16."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import qcc
from test.frontend.onnx_models import contributed, model, runtime_results
from test.tiers import slow_except

TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 2e-2}


class Mixed(nn.Module):
    """Products in a half; a softmax and a sum in f32; results of several types."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: Any) -> Any:
        y = self.second(torch.relu(self.first(x)))
        weights = torch.softmax(y, -1, dtype=torch.float32)
        return y, (weights.to(x.dtype) * y).sum(-1), weights.sum(0), torch.cat([y, torch.full_like(y, 0.5)]).float(), x > 0


@pytest.mark.parametrize("dtype", slow_except([torch.float16, torch.bfloat16], torch.bfloat16))
def test_a_model_of_halves_has_codelets(dtype: Any) -> None:
    torch.manual_seed(0)
    network, x = Mixed().to(dtype).eval(), torch.randn(3, 64).to(dtype)
    executable = qcc.compile(network, example_inputs=(x,), threads=1)
    for found, expected in zip(executable(x), network(x), strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found.float().numpy(), expected.detach().float().numpy(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    generic = [row["generic"] for row in executable.report["layers"] if row["generic"]]
    assert all(words.startswith("to.dtype") for words in generic), generic
    assert any("is computed in f32" in remark for remark in executable.report["remarks"])


def test_bfloat16_weights_take_two_bytes() -> None:
    network, x = nn.Linear(256, 256).bfloat16().eval(), torch.randn(16, 256).bfloat16()
    layers = qcc.compile(network, example_inputs=(x,), threads=1).report["layers"]
    assert 2 * 256 * 256 <= max(row.get("stored_bytes") or 0 for row in layers) < 2.1 * 256 * 256


HALF = TensorProto.FLOAT16
WEIGHT = np.random.default_rng(0).normal(0, 0.1, (16, 16)).astype(np.float16)
VECTOR = np.random.default_rng(1).normal(1, 0.1, 16).astype(np.float16)
X = np.random.default_rng(2).normal(0, 1, (2, 16)).astype(np.float16)


def mixed_nodes() -> onnx.ModelProto:
    """As converters leave them: one operator in float between casts, and a node in front of what it reads."""
    nodes = [
        helper.make_node("MatMul", ["g", "w"], ["y"]),
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Softmax", ["f"], ["s"], axis=-1),
        helper.make_node("Cast", ["s"], ["g"], to=HALF),
    ]
    return model(nodes, {"x": (HALF, [2, 16])}, ["y"], {"w": WEIGHT}, output_type=HALF)


def skip_norm() -> onnx.ModelProto:
    operands = {"X": X, "skip": X[::-1].copy(), "gamma": VECTOR, "beta": VECTOR}
    source, _ = contributed("SkipLayerNormalization", "X skip gamma beta", operands, epsilon=1e-5)
    source.graph.output[0].type.tensor_type.elem_type = HALF
    return source


def weight_only() -> onnx.ModelProto:
    nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["d"], axis=0), helper.make_node("MatMul", ["x", "d"], ["y"])]
    constants = {"q": (WEIGHT * 100).astype(np.int8), "s": np.abs(VECTOR) / 100}
    return model(nodes, {"x": (HALF, [2, 16])}, ["y"], constants, output_type=HALF)


@pytest.mark.parametrize("make", [mixed_nodes, skip_norm, weight_only])
def test_onnx(make: Any) -> None:
    source = make()
    executable = qcc.compile(source, threads=1)
    found = executable(X)
    assert found.dtype == np.float16
    (expected,) = runtime_results(source, **{source.graph.input[0].name: X})
    np.testing.assert_allclose(found.astype(np.float32), expected.astype(np.float32), rtol=4e-3, atol=4e-3)
    assert all(row["generic"] in (None, "", "to.dtype: no codelet") for row in executable.report["layers"])


def test_rounding_to_a_half_stays() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=HALF),
        helper.make_node("Cast", ["h"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Neg", ["f"], ["y"]),
    ]
    source = model(nodes, {"x": (TensorProto.FLOAT, [2, 16])}, ["y"], {})
    x = np.random.default_rng(3).normal(0, 1, (2, 16)).astype(np.float32)
    np.testing.assert_array_equal(qcc.compile(source, threads=1)(x), -x.astype(np.float16).astype(np.float32))


def test_nodes_in_any_order_but_no_circle() -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"], name="first"), helper.make_node("Relu", ["a"], ["b"])]
    with pytest.raises(qcc.QccError, match="own result"):
        qcc.compile(model(nodes, {"x": (TensorProto.FLOAT, [2])}, ["b"], {}))
