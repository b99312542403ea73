"""Networks with binary activations from PyTorch, ONNX and QONNX to population counts: equal to their integer form bit for bit."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from qcc.compiler import driver
from qcc.compiler.options import CompileOptions
from qcc.runtime.reference import interpreter

POPCOUNT = "population counts of bits predicted"


def _binary(layer: Any) -> Any:
    """The layer with weights of -a and a, a per filter."""
    weight = layer.weight.data
    scale = weight.abs().flatten(1).mean(1).reshape(-1, *[1] * (weight.dim() - 1))
    layer.weight.data = torch.where(weight >= 0, 1.0, -1.0) * scale
    return layer


class Xnor(nn.Module):
    """XNOR-Net's layers: signs times binary weights, times the mean size of x under the window."""

    def __init__(self, zeros: bool) -> None:
        super().__init__()
        self.zeros = zeros
        self.conv = _binary(nn.Conv2d(128, 64, 3, padding=1, bias=False))
        self.pool, self.linear = nn.MaxPool2d(2), _binary(nn.Linear(64 * 4 * 4, 96))

    def signs(self, x: Tensor) -> Tensor:
        return torch.sign(x) if self.zeros else torch.where(x >= 0, 1.0, -1.0)

    def forward(self, x: Tensor) -> Tensor:
        scale = nn.functional.avg_pool2d(x.abs().mean(1, keepdim=True), 3, 1, 1)
        y = self.pool(torch.relu(self.conv(self.signs(x)) * scale) - 0.1)
        return self.linear(self.signs(y.flatten(1)))


def _check(source: Any, x: np.ndarray, example: Any = None, *, cpu: str = "native") -> tuple[np.ndarray, list[str]]:
    """The result, which equals the reference of the integer form, and what was said about products."""
    compilation = driver.start(source, CompileOptions(cpu=cpu), example_inputs=example)
    expected = interpreter.run(compilation.run_to("integer"), [x])[0]
    executable = driver.finish(compilation, threads=2)
    found = executable(x)
    np.testing.assert_array_equal(found, expected)
    rows = {row["name"]: row["facts"]["products"] for row in executable.report["layers"] if "products" in row.get("facts", {})}
    return found, list(rows.values())


@pytest.mark.slow
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("road", ["module", "onnx"])
def test_xnor_net(zeros: bool, road: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Xnor(zeros).eval()
    x = torch.randn(1, 128, 8, 8)
    x[0, :5] = 0
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        expected, file = model(x).numpy(), tmp_path / "xnor.onnx"
        torch.onnx.export(model, (x,), str(file), opset_version=17, dynamo=False)
    given = (model, (x,)) if road == "module" else (file, None)
    found, products = _check(given[0], x.numpy(), given[1], cpu="x86-64-v3")
    assert len(products) == 2 and all(p.startswith(POPCOUNT) and not p.endswith("not used") for p in products)
    assert np.median(np.abs(found - expected)) < 1e-5 * np.abs(expected).max()  # a sign of a sum near 0 may differ


def test_bipolar_quant(tmp_path: Path) -> None:
    """QONNX: both operands are BipolarQuant, x with a scale of its own."""
    rng, domain = np.random.default_rng(3), "finn.custom_op.general"
    constants = {"w": rng.normal(size=(64, 96, 3, 3)), "ws": np.array(0.5), "xs": np.array(2.0)}
    nodes = [
        helper.make_node("BipolarQuant", ["x", "xs"], ["xq"], domain=domain),
        helper.make_node("BipolarQuant", ["w", "ws"], ["wq"], domain=domain),
        helper.make_node("Conv", ["xq", "wq"], ["y"], pads=[1, 1, 1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "bipolar",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 96, 7, 7])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 64, 7, 7])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
    file = tmp_path / "bipolar.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), file)
    x = rng.normal(size=(1, 96, 7, 7)).astype(np.float32)
    found, products = _check(file, x, cpu="x86-64-v3")
    assert len(products) == 1 and products[0].startswith(POPCOUNT)
    x_signs, w_signs = (torch.from_numpy(np.where(v >= 0, 1.0, -1.0)) for v in (x, constants["w"]))
    np.testing.assert_array_equal(found, nn.functional.conv2d(x_signs, w_signs, padding=1).numpy().astype(np.float32))
