"""Models that torch.ao quantized in eager mode or FX graph mode: static ones give what torch gives, on integers from end to end."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.ao.nn.quantized as static
from torch import nn

import qcc
from test.tiers import slow_except

F, ao = nn.functional, torch.ao.quantization
ENGINES = slow_except([name for name in ("x86", "qnnpack") if name in torch.backends.quantized.supported_engines], "x86")


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """torch's own deprecations, and the engine as it was."""
    before = torch.backends.quantized.engine
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.backends.quantized.engine = before


def agrees(model: nn.Module, *inputs: Any, steps: float = 0.0) -> Any:
    """The executable, whose results are torch's within `steps` (absolute)."""
    executable = qcc.compile(model, example_inputs=inputs, threads=1)
    expected, found = model(*inputs), executable(*inputs)
    for want, have in zip(*([y] if isinstance(y, torch.Tensor) else y for y in (expected, found)), strict=True):
        np.testing.assert_allclose(have.numpy(), want.detach().numpy(), rtol=0, atol=steps)
    return executable


class Network(nn.Module):
    """Every kind of module that eager mode leaves, and functions of quantized tensors between them."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = ao.QuantStub(), ao.DeQuantStub()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise, self.up = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ConvTranspose2d(8, 8, 2, 2)
        self.sum, self.both, self.product = (static.FloatFunctional() for _ in range(3))
        self.swish, self.leaky, self.sigmoid, self.norm = nn.Hardswish(), nn.LeakyReLU(0.1), nn.Sigmoid(), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        x = self.stem(self.enter(x))
        y = self.swish(self.sum.add_relu(self.depthwise(x), x))
        y = self.both.cat([y, self.sigmoid(self.leaky(x))], 1)[:, :8]
        y = self.product.mul(y, self.norm(x))
        z = F.avg_pool2d(F.interpolate(self.up(F.max_pool2d(y, 2)), scale_factor=2), 3)
        return self.leave(self.head(F.adaptive_avg_pool2d(z, 1).flatten(1))), self.leave(y.mean((2, 3)))


@pytest.mark.parametrize("engine", ENGINES)
def test_eager_static(engine: str) -> None:
    torch.manual_seed(0)
    torch.backends.quantized.engine = engine
    network = ao.fuse_modules(Network().eval(), [["stem.0", "stem.1", "stem.2"]])
    network.qconfig, network.up.qconfig = ao.get_default_qconfig(engine), ao.default_qconfig
    network = ao.prepare(network)
    network(torch.randn(4, 3, 12, 12))
    executable = agrees(ao.convert(network), torch.randn(1, 3, 12, 12), steps=1e-7)
    rows = executable.report["layers"]
    assert all(row["arithmetic"] == "int" for row in rows if row["op"] != "dequantize")
    assert {"stem.0.conv2d", "head", "mean"} <= {row["name"] for row in rows}


class Functions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        x = F.relu(self.first(x))
        y = F.relu(self.second(x) + x)
        z = F.leaky_relu(F.hardswish(torch.cat([y, x * y], 1)), 0.1)
        return self.head(F.adaptive_avg_pool2d(torch.sigmoid(z)[:, :8], 1).flatten(1))


def test_fx_static() -> None:
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    torch.manual_seed(0)
    x = torch.randn(1, 3, 12, 12)
    prepared = prepare_fx(Functions().eval(), ao.get_default_qconfig_mapping("x86"), (x,))
    prepared(torch.randn(4, 3, 12, 12))
    agrees(convert_fx(prepared), x, steps=1e-7)


def test_dynamic_linear() -> None:
    """Of 256 levels where torch takes 128: nearer to what the weights mean."""
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)), torch.randn(5, 64)
    executable = agrees(ao.quantize_dynamic(network, {nn.Linear}), x, steps=0.02)
    assert [row["op"] for row in executable.report["layers"]] == ["dynamic_linear", "clamp", "dynamic_linear"]


def test_a_layer_that_stands_at_two_places() -> None:
    torch.manual_seed(0)
    (layer,) = ao.quantize_dynamic(nn.Sequential(nn.Linear(32, 32)), {nn.Linear})
    network = nn.Sequential(layer, nn.ReLU(), layer).eval()
    agrees(network, torch.randn(5, 32), steps=0.02)


class Recurrent(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer, self.head = getattr(nn, kind)(16, 24, batch_first=True, bidirectional=True), nn.Linear(48, 5)

    def forward(self, x: Any) -> Any:
        return self.head(self.layer(x)[0][:, -1])


@pytest.mark.parametrize("kind", slow_except(["LSTM", "GRU"], "GRU"))
def test_dynamic_recurrent(kind: str) -> None:
    torch.manual_seed(0)
    agrees(ao.quantize_dynamic(Recurrent(kind), {nn.Linear, nn.LSTM, nn.GRU}), torch.randn(2, 4, 16), steps=0.02)


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.bags = nn.Embedding(64, 16), nn.EmbeddingBag(64, 16, mode="sum")

    def forward(self, ids: Any) -> Any:
        return self.table(ids), self.bags(ids, torch.tensor([0, 3]))


def test_embeddings_stay_in_bytes() -> None:
    torch.manual_seed(0)
    network = Words().eval()
    network.qconfig = ao.float_qparams_weight_only_qconfig
    executable = agrees(ao.convert(ao.prepare(network)), torch.tensor([1, 5, 63, 5]), steps=1e-6)
    table = next(row for row in executable.report["layers"] if row["name"] == "table.embedding")
    assert 64 * 16 <= table["stored_bytes"] < 2 * 64 * 16


class Unknown(static.Linear):
    """A module that there is no rule for."""


def test_an_unknown_module_is_named() -> None:
    network = nn.Sequential()
    network.add_module("odd", Unknown(4, 5))
    with pytest.raises(qcc.QccError, match=r"'odd.*no rule"):
        qcc.compile(network.eval(), example_inputs=(torch.zeros(1, 4),))


class Trained(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = ao.QuantStub(), ao.DeQuantStub()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        return self.leave(self.head(self.stem(self.enter(x)).mean((2, 3))))


def test_prepared_for_training() -> None:
    torch.manual_seed(0)
    network = ao.fuse_modules_qat(Trained().train(), [["stem.0", "stem.1", "stem.2"]])
    network.qconfig = ao.get_default_qat_qconfig("x86")
    network = ao.prepare_qat(network)
    network(torch.randn(4, 3, 12, 12))
    network.eval()
    x = torch.randn(1, 3, 12, 12)
    with pytest.raises(qcc.QccError, match=r"'enter.*disable_observer"):
        qcc.compile(network, example_inputs=(x,))
    network.apply(ao.disable_observer)
    executable = agrees(network, x, steps=1e-6)
    conv = next(row for row in executable.report["layers"] if row["op"] == "conv2d")
    assert conv["arithmetic"] == "int"
