"""What Brevitas exports, as QONNX and as QCDQ: the graph form computes what Brevitas does, and the CPU what the integer form says."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qcc.compiler import driver
from qcc.compiler.options import CompileOptions
from qcc.runtime.reference import interpreter


def network(weight: str, activation: str = "", *, bits: int = 4, truncated: bool = False, **given: Any) -> nn.Sequential:
    """Two convolutions and a linear layer with quantizers that Brevitas calls `weight` and `activation`, and an average between."""
    from brevitas import nn as qnn
    from brevitas import quant
    from brevitas.quant.experimental import float_quant_ocp

    def quantizer(name: str) -> Any:
        return getattr(float_quant_ocp if "OCP" in name else quant, name)

    def act() -> nn.Module:
        if not activation:
            return qnn.QuantReLU(bit_width=bits, return_quant_tensor=True)
        return qnn.QuantIdentity(act_quant=quantizer(activation), return_quant_tensor=True)

    given = {"weight_quant": quantizer(weight), **given}
    return nn.Sequential(
        qnn.QuantIdentity(bit_width=8, return_quant_tensor=True),
        qnn.QuantConv2d(3, 8, 3, padding=1, bias=False, **given),
        act(),
        qnn.QuantConv2d(8, 16, 3, padding=1, **given),
        act(),
        qnn.TruncAvgPool2d(8, trunc_quant=quant.TruncTo8bit, bit_width=4) if truncated else nn.AvgPool2d(8),
        nn.Flatten(),
        qnn.QuantLinear(16, 10, bias=True, **given),
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], str, list[str]]] = {  # network, formats, arithmetic of the three layers
    "int4": (lambda: network("Int8WeightPerTensorFloat", weight_bit_width=4), "both", ["int", "int", "fp32"]),
    "int3 per channel": (lambda: network("Int8WeightPerChannelFloat", weight_bit_width=3), "both", ["int", "int", "fp32"]),
    "fixed point": (lambda: network("Int8WeightPerTensorFixedPoint", "Int8ActPerTensorFixedPoint"), "both", ["int", "int", "fp32"]),
    "asymmetric": (lambda: network("ShiftedUint8WeightPerTensorFloat", "ShiftedUint8ActPerTensorFloat"), "both", ["int", "int", "fp32"]),
    "binary": (lambda: network("SignedBinaryWeightPerTensorConst"), "qonnx", ["int", "int", "fp32"]),
    "binary weights and activations": (
        lambda: network("SignedBinaryWeightPerTensorConst", "SignedBinaryActPerTensorConst"), "qonnx", ["int", "int", "fp32"],
    ),
    "ternary weights and activations": (
        lambda: network("SignedTernaryWeightPerTensorConst", "SignedTernaryActPerTensorConst"), "both", ["int", "int", "fp32"],
    ),
    "truncated average": (lambda: network("Int8WeightPerTensorFloat", truncated=True), "qonnx", ["int", "int", "int"]),
    "FP8 E4M3 weights": (lambda: network("Fp8e4m3OCPWeightPerTensorFloat"), "qonnx", ["fp32"] * 3),
    "FP8 E5M2 weights per channel": (lambda: network("Fp8e5m2OCPWeightPerChannelFloat"), "qonnx", ["fp32"] * 3),
    "FP8 E4M3 weights and activations": (
        lambda: network("Fp8e4m3OCPWeightPerTensorFloat", "Fp8e4m3OCPActPerTensorFloat"), "qonnx", ["fp32"] * 3,
    ),
}  # fmt: skip
CASES = [(name, form) for name, (_, forms, _) in NETWORKS.items() for form in ("qonnx", "qcdq") if forms in ("both", form)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "form"), CASES)
def test_exports(name: str, form: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export = pytest.importorskip("brevitas.export", reason="pip install 'qcc[test]'")
    make, _, arithmetic = NETWORKS[name]
    torch.manual_seed(len(name))
    file = tmp_path / "model.onnx"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        model = make()
        for _ in range(5):
            model(torch.randn(8, 3, 8, 8))  # scales of the activations
        model.eval()
        x = torch.randn(1, 3, 8, 8)
        expected = model(x)
        (export.export_qonnx if form == "qonnx" else export.export_onnx_qcdq)(model, args=x, export_path=str(file), dynamo=False)
    simulated = getattr(expected, "value", expected).detach().numpy()
    compilation = driver.start(file, CompileOptions(activations="float"))
    graph = interpreter.run(compilation.run_to("graph"), [x.numpy()])[0]
    np.testing.assert_allclose(graph, simulated, atol=1e-5 * np.abs(simulated).max(), rtol=0)
    integers = interpreter.run(compilation.run_to("integer"), [x.numpy()])[0]
    executable = driver.finish(compilation, threads=1)
    np.testing.assert_allclose(executable(x.numpy()), integers, atol=1e-5 * np.abs(simulated).max(), rtol=0)
    products = [row for row in executable.report["layers"] if row["macs"]]
    assert [row["arithmetic"] for row in products] == arithmetic
    if arithmetic[0] == "int":
        assert not any(row["generic"] for row in executable.report["layers"])
