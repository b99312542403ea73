"""Root mean square normalisation in every spelling that exporters have becomes one operation, with the numbers of the source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

import qcc
from qcc.passes.base import parse_pipeline, run_pipeline
from test.frontend import onnx_models
from test.frontend.test_torch import graph_form

FOLD = parse_pipeline("fold-constants,cse,fold-rms-norm")
WIDTH = 24


class Written(nn.Module):
    """`function` of x and of a weight."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.linspace(0.5, 2, WIDTH))

    def forward(self, x: Any) -> Any:
        return self.function(x, self.weight)


def variance(x: Any) -> Any:
    return x.to(torch.float32).pow(2).mean(-1, keepdim=True)


WRITTEN: dict[str, Callable[[Any, Any], Any]] = {
    "llama": lambda x, w: w * (x.to(torch.float32) * torch.rsqrt(variance(x) + 1e-6)).to(x.dtype),
    "gemma": lambda x, w: (x.float() * torch.rsqrt(variance(x) + 1e-6)) * (1.0 + w.float()),
    "a product with itself": lambda x, w: x * torch.rsqrt((x * x).mean(-1, True) + 1e-6) * w,
    "a quotient": lambda x, w: x / torch.sqrt(1e-6 + variance(x)) * w,
    "one over the root": lambda x, w: x * (1 / torch.sqrt(variance(x) + 1e-6)) * w,
    "a power": lambda x, w: w * (x * (variance(x) + 1e-6).pow(-0.5)),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_torch_code(name: str) -> None:
    model, x = Written(WRITTEN[name]).eval(), torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(0))
    imported = graph_form(model, x)
    run_pipeline(imported.module, FOLD)
    assert set(onnx_models.operations(imported.module)) == {"qcc.constant", "qcc.rms_norm", "func.return"}
    found = qcc.compile(model, example_inputs=(x,))(x.numpy())
    np.testing.assert_allclose(found, model(x).detach().numpy(), rtol=1e-6, atol=1e-6)


def nodes_of_exporters() -> list[onnx.NodeProto]:
    cast = {"to": onnx.TensorProto.FLOAT}
    return [
        helper.make_node("Cast", ["x"], ["f"], **cast),
        helper.make_node("Pow", ["f", "two"], ["squares"]),
        helper.make_node("ReduceMean", ["squares", "axes"], ["mean"]),
        helper.make_node("Add", ["mean", "epsilon"], ["variance"]),
        helper.make_node("Sqrt", ["variance"], ["root"]),
        helper.make_node("Div", ["one", "root"], ["inverse"]),
        helper.make_node("Mul", ["f", "inverse"], ["normal"]),
        helper.make_node("Cast", ["normal"], ["n"], **cast),
        helper.make_node("Mul", ["w", "n"], ["y"]),
    ]


ONNX: dict[str, list[onnx.NodeProto]] = {
    "written out": nodes_of_exporters(),
    "RMSNormalization": [helper.make_node("RMSNormalization", ["x", "w"], ["y"], epsilon=1e-6)],
}


@pytest.mark.parametrize("name", ONNX)
def test_onnx_nodes(name: str) -> None:
    numbers = {"two": np.float32(2), "one": np.float32(1), "epsilon": np.float32(1e-6), "axes": np.array([-1])}
    used = {value for node in ONNX[name] for value in node.input}
    constants = {key: value for key, value in numbers.items() if key in used} | {"w": np.linspace(0.5, 2, WIDTH, dtype=np.float32)}
    source = onnx_models.model(ONNX[name], {"x": (onnx_models.FLOAT, [2, 3, WIDTH])}, ["y"], constants, opset=23)
    module = onnx_models.graph_form(source)
    run_pipeline(module, FOLD)
    assert set(onnx_models.operations(module)) == {"qcc.constant", "qcc.rms_norm", "func.return"}
    x = np.random.default_rng(0).standard_normal((2, 3, WIDTH)).astype(np.float32)
    np.testing.assert_allclose(qcc.compile(source)(x), onnx_models.runtime_result(source, x=x), rtol=1e-6, atol=1e-6)
