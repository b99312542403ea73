"""Norms in every spelling that exporters have become one operation, with the numbers of the source."""

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
from qcc.dialects.errors import QccError
from qcc.passes.base import parse_pipeline, run_pipeline
from test.frontend import onnx_models
from test.frontend.test_torch import graph_form
from test.tiers import slow_except

FOLD = parse_pipeline("fold-constants,fold-gelu,cse,fold-norms")
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
    "layer norm": lambda x, w: w * ((x - x.mean(-1, True)) * torch.rsqrt(variance(x - x.mean(-1, True)) + 1e-6)) + w.flip(0),
    "layer norm without parameters": lambda x, w: (d := x - x.mean(-1, True)) / (d.square().mean(-1, True) + 1e-6).sqrt(),
}


@pytest.mark.parametrize("name", slow_except(WRITTEN, "llama"))
def test_torch_code(name: str) -> None:
    model, x = Written(WRITTEN[name]).eval(), torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(0))
    imported = graph_form(model, x)
    run_pipeline(imported.module, FOLD)
    kind = "qcc.layer_norm" if name.startswith("layer norm") else "qcc.rms_norm"
    assert set(onnx_models.operations(imported.module)) == {"qcc.constant", kind, "func.return"}
    found = qcc.compile(model, example_inputs=(x,))(x.numpy())
    np.testing.assert_allclose(found, model(x).detach().numpy(), rtol=1e-6, atol=1e-6)


def written_out(centred: bool) -> list[onnx.NodeProto]:
    """The nodes that torch's exporters write, casts and all."""
    cast = {"to": onnx.TensorProto.FLOAT}
    return [
        helper.make_node("Cast", ["x"], ["f"], **cast),
        helper.make_node("ReduceMean", ["f"], ["offset"], axes=[-1]),
        helper.make_node("Sub", ["f", "offset"], ["d"]),
        helper.make_node("Pow", ["d" if centred else "f", "two"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["mean"], axes=[-1]),
        helper.make_node("Add", ["mean", "epsilon"], ["variance"]),
        helper.make_node("Sqrt", ["variance"], ["root"]),
        helper.make_node("Div", ["one", "root"], ["inverse"]),
        helper.make_node("Mul", ["d" if centred else "f", "inverse"], ["normal"]),
        helper.make_node("Cast", ["normal"], ["n"], **cast),
        helper.make_node("Mul", ["w", "n"], ["scaled" if centred else "y"]),
        *([helper.make_node("Add", ["scaled", "b"], ["y"])] if centred else []),
    ]


def contributed(operator: str, *inputs: str, outputs: tuple[str, ...] = ("y",)) -> list[onnx.NodeProto]:
    return [helper.make_node(operator, inputs, outputs, domain="com.microsoft")]


ADDED = {"qcc.add", "qcc.layer_norm"}
ONNX: dict[str, tuple[list[onnx.NodeProto], int, set[str]]] = {
    "written out": (written_out(False), 14, {"qcc.rms_norm"}),
    "layer norm written out": (written_out(True), 14, {"qcc.layer_norm"}),
    "RMSNormalization": ([helper.make_node("RMSNormalization", ["x", "w"], ["y"], epsilon=1e-6)], 23, {"qcc.rms_norm"}),
    "Simplified": ([helper.make_node("SimplifiedLayerNormalization", ["x", "w"], ["y"], axis=-1)], 14, {"qcc.rms_norm"}),
    "SkipSimplified": (contributed("SkipSimplifiedLayerNormalization", "x", "x", "w", "b"), 18, {"qcc.add", "qcc.rms_norm"}),
    "LayerNormalization": ([helper.make_node("LayerNormalization", ["x", "w", "b"], ["y"])], 14, {"qcc.layer_norm"}),
    "Skip": (contributed("SkipLayerNormalization", "x", "x", "w", "b", "b"), 14, ADDED),
    "Skip and the sum": ([*contributed("SkipLayerNormalization", "x", "x", "w", outputs=("n", "", "", "sum")),
                          helper.make_node("Add", ["n", "sum"], ["y"])], 20, ADDED),
    "Gelu": (contributed("Gelu", "x"), 14, {"qcc.unary"}),
    "BiasGelu": (contributed("BiasGelu", "x", "b"), 14, {"qcc.add", "qcc.unary"}),
    "FastGelu": (contributed("FastGelu", "x", "b"), 14, {"qcc.add", "qcc.unary"}),
    "QuickGelu": (contributed("QuickGelu", "x"), 14, {"qcc.mul", "qcc.unary"}),
}  # fmt: skip


@pytest.mark.parametrize("name", slow_except(ONNX, *list(ONNX)[:4]))
def test_onnx_nodes(name: str) -> None:
    """ONNX Runtime's own fused operators as well, which are written out and folded again."""
    nodes, opset, made = ONNX[name]
    numbers: dict[str, Any] = {"two": np.float32(2), "one": np.float32(1), "epsilon": np.float32(1e-6)}
    numbers |= {"w": np.linspace(0.5, 2, WIDTH, dtype=np.float32), "b": np.linspace(-1, 1, WIDTH, dtype=np.float32)}
    used = {value for node in nodes for value in node.input}
    constants = {key: value for key, value in numbers.items() if key in used}
    source = onnx_models.model(nodes, {"x": (onnx_models.FLOAT, [2, 3, WIDTH])}, ["y"], constants, opset)
    module = onnx_models.graph_form(source)
    run_pipeline(module, FOLD)
    assert set(onnx_models.operations(module)) == {"qcc.constant", *made, "func.return"} - ({"qcc.constant"} if name == "Gelu" else set())
    x = np.random.default_rng(0).standard_normal((2, 3, WIDTH)).astype(np.float32)
    np.testing.assert_allclose(qcc.compile(source)(x), onnx_models.runtime_result(source, x=x), rtol=2e-6, atol=2e-6)


def test_an_axis_of_a_fused_norm_that_is_not_the_last_is_refused() -> None:
    nodes = [helper.make_node("SimplifiedLayerNormalization", ["x", "w"], ["y"], name="norm", axis=1)]
    source = onnx_models.model(nodes, {"x": (onnx_models.FLOAT, [2, 3, WIDTH])}, ["y"], {"w": np.ones((3, WIDTH), np.float32)})
    with pytest.raises(QccError, match=r"norm.*SimplifiedLayerNormalization has axis 1, expected -1"):
        onnx_models.graph_form(source)
