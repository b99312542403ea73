"""Quantized PyTorch models through the front end: PT2E programs and fake quantization, at widths other than eight bits too."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import qcc
from qcc.compiler.frontend import load
from qcc.compiler.pipeline import IMPORT
from qcc.dialects import element_types, forms
from qcc.dialects.mlir import ir, layer_name, walk
from qcc.passes.base import run_pipeline
from qcc.runtime.reference import interpreter

F = nn.functional


def graph_form(model: Any, *inputs: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        imported = load(model, inputs)
    run_pipeline(imported.module, IMPORT)
    forms.check("graph", imported.module)
    return imported


def run(imported: Any, *inputs: Any) -> np.ndarray:
    return interpreter.run(imported.module, [x.numpy() for x in inputs])[0]


def types_of(imported: Any, name: str) -> list[str]:
    """Element types of the results of the operations `name`."""
    return [str(ir.RankedTensorType(op.results[0].type).element_type) for op in walk(imported.module, name)]


class Fake(nn.Module):
    """Fake quantization at a width, per tensor or per channel (symmetric)."""

    def __init__(self, bits: int, axis: int | None = None, *, signed: bool = True) -> None:
        super().__init__()
        self.low, self.high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        self.axis = axis

    def forward(self, x: Any) -> Any:
        if self.axis is None:
            return torch.fake_quantize_per_tensor_affine(x, 0.25, 0 if self.low else 3, self.low, self.high)
        scales = torch.full((x.shape[self.axis],), 0.125)
        return torch.fake_quantize_per_channel_affine(
            x, scales, torch.zeros_like(scales, dtype=torch.int32), self.axis, self.low, self.high
        )


class MixedWidths(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 5)
        self.in_q, self.conv_q, self.mid_q, self.fc_q = Fake(8), Fake(4, 0), Fake(6, signed=False), Fake(2, 0)

    def forward(self, x: Any) -> Any:
        y = F.conv2d(self.in_q(x), self.conv_q(self.conv.weight), self.conv.bias)
        y = self.mid_q(F.relu(y)).mean((2, 3))
        return F.linear(y, self.fc_q(self.fc.weight), self.fc.bias)


def test_fake_quantization_at_mixed_widths() -> None:
    torch.manual_seed(0)
    model, x = MixedWidths().eval(), torch.randn(2, 3, 6, 6)
    imported = graph_form(model, x)
    widths = [t.split("<")[1].split(":")[0] for t in types_of(imported, "qcc.quantize")]
    assert sorted(widths) == ["i2", "i4", "i8", "u6"]
    np.testing.assert_allclose(run(imported, x), model(x).detach().numpy(), rtol=1e-5, atol=1e-5)


def pt2e(model: nn.Module, quantizer: Any, *inputs: Any, qat: bool = False) -> Any:
    """`model` quantized by torchao's PT2E flow, calibrated on `inputs`."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e, prepare_qat_pt2e

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch.export.export(model.eval(), inputs).module()
        graph = (prepare_qat_pt2e if qat else prepare_pt2e)(graph, quantizer)
        graph(*inputs)
        return convert_pt2e(graph)


def x86_quantizer(dynamic: bool = False) -> Any:
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    return x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config(is_dynamic=dynamic))


def symmetric_quantizer(low: int, high: int, *, per_channel: bool = True, dynamic: bool = False, qat: bool = False) -> Any:
    from torchao.testing.pt2e import _xnnpack_quantizer as xnnpack

    config = xnnpack.get_symmetric_quantization_config(
        is_per_channel=per_channel, is_dynamic=dynamic, is_qat=qat, weight_qmin=low, weight_qmax=high
    )
    return xnnpack.XNNPACKQuantizer().set_global(config)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.c2 = nn.Conv2d(8, 8, 3, 1, 1, groups=4)
        self.fc = nn.Linear(8, 5)
        assert self.b1.running_mean is not None
        self.b1.running_mean.uniform_(-1, 1)

    def forward(self, x: Any) -> Any:
        x = F.relu(self.b1(self.c1(x)))
        x = F.max_pool2d(F.relu(x + self.c2(x)), 2)
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def agrees(imported: Any, quantized: Any, x: Any) -> None:
    """Against torch's own run of the quantized program: a step in a few places, where x / scale and x * (1 / scale) round apart."""
    with torch.no_grad():
        expected = quantized(x).numpy()
    np.testing.assert_allclose(run(imported, x), expected, atol=0.02 * float(np.abs(expected).max()))


@pytest.mark.slow
def test_pt2e_x86() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 16, 16)
    quantized = pt2e(Residual(), x86_quantizer(), x)
    imported = graph_form(quantized, x)
    agrees(imported, quantized, x)
    constants = [op for op in walk(imported.module, "qcc.constant") if element_types.affine(op.results[0].type)]
    assert {layer_name(next(iter(op.results[0].uses)).owner.location) for op in constants} == {"c1", "c2", "fc"}
    assert not list(walk(imported.module, "func.call"))
    for op in walk(imported.module, "qcc.conv2d"):
        for operand in list(op.operands)[:2]:
            assert operand.owner.name == "qcc.dequantize"


@pytest.mark.slow
@pytest.mark.parametrize(("low", "high", "width"), [(-8, 7, "i4"), (-2, 1, "i2"), (-127, 127, "i8<-127:127>")])
def test_pt2e_weight_range_is_the_width(low: int, high: int, width: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 16, 16)
    quantized = pt2e(Residual(), symmetric_quantizer(low, high), x)
    imported = graph_form(quantized, x)
    found = [t.split("<", 1)[1].split(":f32")[0] for t in types_of(imported, "qcc.constant") if t.startswith("!quant")]
    assert found == [width] * 3
    agrees(imported, quantized, x)


@pytest.mark.slow
def test_pt2e_program_from_file(tmp_path: Any) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 16, 16)
    quantized = pt2e(Residual(), x86_quantizer(), x)
    torch.export.save(torch.export.export(quantized, (x,)), str(tmp_path / "q.pt2"))
    agrees(graph_form(tmp_path / "q.pt2"), quantized, x)


@pytest.mark.slow
@pytest.mark.parametrize("quantizer", ["xnnpack", "x86"])
def test_pt2e_dynamic_activations_are_rounded_while_running(quantizer: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 16)
    model = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))
    chosen = symmetric_quantizer(-127, 127, dynamic=True) if quantizer == "xnnpack" else x86_quantizer(dynamic=True)
    quantized = pt2e(model, chosen, x)
    imported = graph_form(quantized, x)
    assert len(list(walk(imported.module, "qcc.round_dynamic"))) == 2 and not list(walk(imported.module, "func.call"))
    agrees(imported, quantized, x)


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "group"), [(4, 32), (2, None), (3, 16)])
def test_torchao_weights_keep_width_and_groups(bits: int, group: int | None) -> None:
    from torchao import quantization as ao

    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 16)).eval(), torch.randn(2, 64)
    granularity = ao.PerAxis(0) if group is None else ao.PerGroup(group)
    ao.quantize_(model, ao.IntxWeightOnlyConfig(weight_dtype=getattr(torch, f"int{bits}"), granularity=granularity))
    imported = graph_form(model, x)
    kinds = [t for t in types_of(imported, "qcc.constant") if t.startswith("!quant")]
    assert len(kinds) == 2
    for kind in kinds:
        assert kind.startswith(f"!quant.uniform<i{bits}:f32:" + ("{" if group else "0"))
    np.testing.assert_allclose(run(imported, x), model(x).detach().numpy(), rtol=1e-5, atol=1e-5)
    assert not list(walk(imported.module, "func.call"))


@pytest.mark.slow
def test_torchao_int8_weights_scaled_behind_the_product() -> None:
    from torchao import quantization as ao

    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16)).eval(), torch.randn(2, 64)
    ao.quantize_(model, ao.Int8WeightOnlyConfig())
    imported = graph_form(model, x)
    assert types_of(imported, "qcc.constant").count("!quant.uniform<i8:f32, 1.000000e+00>") == 2
    assert len(types_of(imported, "qcc.linear")) == 2
    np.testing.assert_allclose(run(imported, x), model(x).detach().numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_torchao_dynamic_activations_are_rounded_by_row() -> None:
    from torchao import quantization as ao

    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16)).eval(), torch.randn(2, 64)
    ao.quantize_(model, ao.Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4, weight_granularity=ao.PerGroup(32)))
    imported = graph_form(model, x)
    assert len(list(walk(imported.module, "qcc.round_dynamic"))) == 2
    assert not list(walk(imported.module, "func.call"))
    agrees(imported, model, x)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(5, 64), (2, 3, 64)])
def test_torchao_int8_activations_and_weights_are_integer_products(shape: tuple[int, ...]) -> None:
    from torchao import quantization as ao

    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16, bias=False)).eval(), torch.randn(*shape)
    ao.quantize_(model, ao.Int8DynamicActivationInt8WeightConfig())
    exe = qcc.compile(model, example_inputs=(x,), threads=1)
    expected = model(x).detach().numpy()
    assert np.abs(exe(x).numpy() - expected).max() < 0.01 * np.abs(expected).max()  # a level of the second layer's input may differ
    assert not any(row["generic"] for row in exe.report["layers"])
    imported = graph_form(model, x)
    assert len(list(walk(imported.module, "qcc.round_dynamic"))) == 2
    assert types_of(imported, "qcc.constant").count("!quant.uniform<i8:f32, 1.000000e+00>") == 0
    agrees(imported, model, x)


def test_quantized_integers_that_leave_the_model_take_the_generic_path() -> None:
    import torch.ao.quantization.fx._decomposed as registered

    del registered

    class Integers(nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.ops.quantized_decomposed.quantize_per_tensor(F.relu(x), 0.1, 3, 0, 15, torch.uint8)

    torch.manual_seed(0)
    x = torch.randn(3, 5)
    imported = graph_form(Integers().eval(), x)
    (call,) = walk(imported.module, "func.call")
    assert call.attributes["qcc.generic"].value == "quantized_decomposed.quantize_per_tensor: no codelet"
    np.testing.assert_array_equal(run(imported, x).view(np.uint8), Integers()(x).numpy())


@pytest.mark.slow
def test_torchao_prepared_for_training() -> None:
    from torchao import quantization as ao
    from torchao.quantization.qat import QATConfig

    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(64, 32)), torch.randn(2, 64)
    base = ao.Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4, weight_granularity=ao.granularity.PerGroup(32))
    ao.quantize_(model, QATConfig(base, step="prepare"))
    model.eval()
    agrees(graph_form(model, x), model, x)
