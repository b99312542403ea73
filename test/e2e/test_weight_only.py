"""Weight-only linear layers from Python and from files: weights arrive compressed in the artefact, results stay within the stated bound."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

import qcc
from test.frontend.onnx_models import FLOAT, model
from test.tiers import slow_except

ROWS = 2


def linear_rows(exe: Any) -> list[dict[str, Any]]:
    return [row for row in exe.report["layers"] if row["op"] == "linear"]


def check(exe: Any, x: np.ndarray, want: np.ndarray, tmp_path: Path) -> None:
    """The executable and its artefact give `want` within 2^-14 of its greatest, and the same bits as each other."""
    got = exe(x)
    assert np.abs(got - want).max() <= 2.0**-14 * np.abs(want).max()
    exe.save(tmp_path / "model.so")
    np.testing.assert_array_equal(qcc.load(tmp_path / "model.so", threads=2)(x), got)


@pytest.mark.parametrize(("bits", "block"), slow_except([(4, 32), (4, 128), (8, 64)], (4, 32)))
def test_matmul_nbits(bits: int, block: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(bits + block)
    k, n = 256, 80
    blocks = k // block
    levels = rng.integers(0, 1 << bits, (n, blocks, block)).astype(np.uint8)
    packed = levels if bits == 8 else levels[..., ::2] | levels[..., 1::2] << 4
    scales = rng.uniform(0.01, 0.02, (n, blocks)).astype(np.float32)
    nodes = [
        helper.make_node("MatMulNBits", ["x", "w", "s"], ["h"], name="fc", domain="com.microsoft", K=k, N=n, bits=bits, block_size=block),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    onnx.save(model(nodes, {"x": (FLOAT, [ROWS, k])}, ["y"], {"w": packed, "s": scales.reshape(-1)}), tmp_path / "model.onnx")
    exe = qcc.compile(tmp_path / "model.onnx")
    real = (levels.astype(np.float64) - (1 << (bits - 1))) * scales[..., None]
    x = rng.normal(size=(ROWS, k)).astype(np.float32)
    check(exe, x, np.maximum(x @ real.reshape(n, k).T, 0), tmp_path)
    (row,) = linear_rows(exe)
    assert row["facts"]["stored_format"] == f"int{bits}, groups of {block}"
    assert row["weight_bytes"] == n * k * bits // 8 + 4 * n * blocks  # codes and scales, nothing else
    assert exe.info["bytes_per_run"] < 2 * row["weight_bytes"]


@pytest.mark.parametrize("operator", ["MatMul", "Gemm"])
def test_dequantized_initializer(operator: str, tmp_path: Path) -> None:
    """DequantizeLinear of blocks along k, with zero points."""
    rng = np.random.default_rng(5)
    k, n, block = 128, 48, 32
    shape = (k, n) if operator == "MatMul" else (n, k)
    axis = 0 if operator == "MatMul" else 1
    scale_shape = tuple(s // block if i == axis else s for i, s in enumerate(shape))
    constants = {
        "w": rng.integers(-128, 128, shape).astype(np.int8),
        "s": rng.uniform(0.01, 0.02, scale_shape).astype(np.float32),
        "z": rng.integers(-5, 6, scale_shape).astype(np.int8),
    }
    given = {} if operator == "MatMul" else {"transB": 1}
    operands = ["x", "d"]
    if operator == "Gemm":
        constants["b"] = rng.normal(size=n).astype(np.float32)
        operands.append("b")
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=axis, block_size=block),
        helper.make_node(operator, operands, ["y"], name="fc", **given),
    ]
    onnx.save(model(nodes, {"x": (FLOAT, [ROWS, k])}, ["y"], constants), tmp_path / "model.onnx")
    exe = qcc.compile(tmp_path / "model.onnx")
    spread = [np.repeat(constants[name].astype(np.float64), block, axis=axis) for name in ("s", "z")]
    real = (constants["w"].astype(np.float64) - spread[1]) * spread[0]
    x = rng.normal(size=(ROWS, k)).astype(np.float32)
    check(exe, x, x @ (real if operator == "MatMul" else real.T) + constants.get("b", 0), tmp_path)
    assert linear_rows(exe)[0]["facts"]["stored_format"] == "int8, groups of 32"


@pytest.mark.slow
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("group", [None, 32])
def test_torchao_weights(bits: int, group: int | None, tmp_path: Path) -> None:
    import torch
    from torch import nn
    from torchao import quantization as ao

    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(128, 96), nn.ReLU(), nn.Linear(96, 32)).eval(), torch.randn(ROWS, 128)
    granularity = ao.PerAxis(0) if group is None else ao.PerGroup(group)
    ao.quantize_(net, ao.IntxWeightOnlyConfig(weight_dtype=getattr(torch, f"int{bits}"), granularity=granularity))
    exe = qcc.compile(net, example_inputs=(x,))
    check(exe, x.numpy(), net(x).detach().numpy(), tmp_path)
    rows = linear_rows(exe)
    assert len(rows) == 2
    for row in rows:
        assert row["facts"]["stored_format"].startswith(f"int{bits}, ")
        assert row["weight_bytes"] < row["weights"] * bits / 8 + 4 * row["weights"] / (group or 96) + 2048


@pytest.mark.slow
def test_torchao_int8_scaled_behind_the_product(tmp_path: Path) -> None:
    import torch
    from torch import nn
    from torchao import quantization as ao

    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(128, 96), nn.ReLU(), nn.Linear(96, 32)).eval(), torch.randn(ROWS, 128)
    ao.quantize_(net, ao.Int8WeightOnlyConfig())
    exe = qcc.compile(net, example_inputs=(x,))
    check(exe, x.numpy(), net(x).detach().numpy(), tmp_path)
    assert all(row["facts"]["stored_format"].startswith("int8") for row in linear_rows(exe))


def test_activations_option(tmp_path: Path) -> None:
    """float, int16 and int8 differ in their error as stated, and the report says which it was."""
    rng = np.random.default_rng(6)
    k, n = 512, 64
    constants = {"w": rng.integers(-127, 128, (k, n)).astype(np.int8), "s": rng.uniform(0.01, 0.02, n).astype(np.float32)}
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=1),
        helper.make_node("MatMul", ["x", "d"], ["y"], name="fc"),
    ]
    onnx.save(model(nodes, {"x": (FLOAT, [1, k])}, ["y"], constants), tmp_path / "model.onnx")
    real = constants["w"].astype(np.float64) * constants["s"]
    x = rng.normal(size=(1, k)).astype(np.float32)
    errors = {}
    for activations in ("float", "int16", "int8"):
        exe = qcc.compile(tmp_path / "model.onnx", activations=activations)
        assert linear_rows(exe)[0]["facts"]["activations"].startswith(activations)
        errors[activations] = float(np.abs(exe(x) - x @ real).max() / np.abs(x @ real).max())
    assert errors["float"] < 1e-6 and errors["float"] < errors["int16"] < 1e-4 and errors["int16"] < errors["int8"] < 3e-2


def test_unknown_activations() -> None:
    with pytest.raises(qcc.QccError, match="activations is 'int4', expected one of auto, float, int16, int8"):
        qcc.compile("model.onnx", activations="int4")


@pytest.mark.parametrize(("rows", "activations", "decoder"), [(1, "auto", "stream"), (64, "auto", "sparse_lanes"), (64, "int8", "stream")])
def test_pruned_integers_for_many_rows(rows: int, activations: str, decoder: str) -> None:
    """A streamed codelet decodes zeros of many rows as any weight; as real values they are left out, unless x is to be quantized."""
    rng = np.random.default_rng(3)
    stored = rng.integers(-127, 128, (256, 512)) * (rng.random((256, 512)) < 0.1)
    layer = nn.Linear(512, 256)
    layer.weight.data = torch.from_numpy(stored.astype(np.float32)) * 0.01
    x = torch.from_numpy(rng.standard_normal((rows, 512)).astype(np.float32))
    executable = qcc.compile(layer.eval(), example_inputs=(x,), cpu="x86-64-v4", activations=activations)
    (row,) = (r for r in executable.report["layers"] if r["macs"])
    assert row["codelets"][-1].startswith(decoder), row["codelets"]
    assert "8-bit integers" in row["facts"]["recognized"] and row["weights"] == 256 * 512
    if decoder == "sparse_lanes":
        assert row["stored_bytes"] < 0.8 * 256 * 512 and "compressed rows" in row["facts"]["storage_reason"]
        executables = [executable, qcc.compile(layer, example_inputs=(x,), cpu="x86-64-v4", storage="dense")]
        with torch.no_grad():
            expected = layer(x).numpy()
        for each in executables if executable.runs_here else []:
            np.testing.assert_allclose(each(x.numpy()), expected, atol=2e-5 * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize("road", slow_except(["module", "pt2", "onnx"], "onnx"))
def test_scales_per_group_in_plain_floats(road: str, tmp_path: Path) -> None:
    """What GPTQ, AWQ, NF4 and MX tools leave behind where a file has no type for it: the layer streams the few bits that it has."""
    rng, k = np.random.default_rng(9), 256
    levels = {"int4": np.arange(-8, 8), "FP4": np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -1, -6]), "ternary": np.array([-1, 0, 1])}
    network = nn.Sequential(*[nn.Linear(k, k, bias=False) for _ in levels])
    for layer, table in zip(network, levels.values(), strict=True):
        groups = rng.choice(table, (k, k // 32, 32)).astype(np.float32) * rng.uniform(0.01, 0.02, (k, k // 32, 1)).astype(np.float32)
        layer.weight.data = torch.from_numpy(groups.reshape(k, k))
    x = torch.from_numpy(rng.normal(size=(ROWS, k)).astype(np.float32))
    source: Any = network.eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = network(x).numpy()
        if road != "module":
            source = tmp_path / f"model.{road}"
        if road == "pt2":
            torch.export.save(torch.export.export(network, (x,)), source)
        elif road == "onnx":
            torch.onnx.export(network, (x,), str(source), dynamo=False)
    exe = qcc.compile(source, example_inputs=(x,) if road == "module" else None)
    check(exe, x.numpy(), want, tmp_path)
    rows = linear_rows(exe)
    assert [row["weight_format"].split(",")[0] for row in rows] == ["int4", "f4E2M1FN", "ternary"]
    assert all(row["weight_format"].endswith("per group of 32") for row in rows)
    assert all(row["stored_bits"] < 4 + 1.2 for row in rows)


class Twice(nn.Module):
    """A 1x1 convolution of few weights that two places share, between layers with borders; `quantized`: its weights are bytes."""

    def __init__(self, *, quantized: bool) -> None:
        super().__init__()
        rng = np.random.default_rng(4)
        self.first, self.shared, self.last = nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 64, 1), nn.Conv2d(64, 8, 3, padding=1)
        w = (
            rng.integers(-127, 128, (64, 64, 1, 1)).astype(np.float32) * np.float32(0.001)
            if quantized
            else rng.normal(size=(64, 64, 1, 1)) / 8
        )
        self.shared.weight.data = torch.from_numpy((w * (rng.random(w.shape) < 0.08)).astype(np.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        y = torch.relu(self.shared(x))
        return self.last(torch.relu(self.shared(y) + x))


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("images", slow_except([1, 17], 1))
def test_pruned_pointwise_convolutions(quantized: bool, images: int) -> None:
    network, x = Twice(quantized=quantized).eval(), torch.randn(images, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    exe = qcc.compile(network, example_inputs=(x,), cpu="x86-64-v4")
    shared = [row for row in exe.report["layers"] if row["name"].startswith("shared") and row["macs"]]
    assert len(shared) == 2
    for row in shared:
        assert any(name.startswith("sparse_lanes") for name in row["codelets"]), row["facts"]["storage_reason"]
        assert ("recognized" in row["facts"]) == quantized
    if exe.runs_here:
        with torch.no_grad():
            want = network(x).numpy()
        np.testing.assert_allclose(exe(x.numpy()), want, atol=2e-5 * np.abs(want).max(), rtol=0)
