"""Calibration data: zeros of every layer's input are counted, reported and skipped; what does not fit the model is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import qcc
from qcc.compiler import calibration, report_page
from qcc.dialects.errors import QccError
from qcc.runtime.cpu.executable import TensorSpec
from qcc.tools import qcc as tool


class Perceptron(nn.Module):
    """Linear layers in 8 bits, the second behind a ReLU that cuts most."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 2048), nn.Linear(2048, 512)
        for layer in (self.first, self.second):
            step = layer.weight.data.abs().max() / 127
            layer.weight.data = torch.round(layer.weight.data / step) * step
        self.first.bias.data -= 1.0

    def forward(self, x: Tensor) -> Tensor:
        x = torch.fake_quantize_per_tensor_affine(x, 0.03, 0, -128, 127)
        x = torch.fake_quantize_per_tensor_affine(torch.relu(self.first(x)), 0.01, 0, 0, 255)
        return self.second(x)

    def zeros(self, x: Tensor) -> float:
        """Share of the second layer's input that is 0."""
        x = torch.fake_quantize_per_tensor_affine(x, 0.03, 0, -128, 127)
        return float((torch.fake_quantize_per_tensor_affine(torch.relu(self.first(x)), 0.01, 0, 0, 255) == 0).float().mean())


@pytest.fixture(scope="module")
def model() -> Perceptron:
    torch.manual_seed(0)
    return Perceptron().eval()


SAMPLES = np.random.default_rng(0).standard_normal((50, 64)).astype(np.float32)


@pytest.mark.slow
def test_zeros_are_counted_reported_and_skipped(model: Perceptron) -> None:
    x = torch.from_numpy(SAMPLES[:1])
    plain = qcc.compile(model, example_inputs=(x,), threads=2)
    skipping = qcc.compile(model, example_inputs=(x,), threads=2, calibration={"x": SAMPLES})
    rows = {row["name"]: row for row in skipping.report["layers"] if row["macs"]}
    with torch.no_grad():
        expected = model.zeros(torch.from_numpy(SAMPLES))
    assert 0.5 < expected < 1 and rows["second"]["activation_zeros"] == pytest.approx(expected, abs=2e-3)
    assert rows["first"]["activation_zeros"] < 0.1
    assert "columns" in rows["second"]["codelets"][0] and "predicted" in rows["second"]["facts"]["skipping"]
    for sample in SAMPLES[:5]:
        np.testing.assert_array_equal(skipping(sample[None]), plain(sample[None]))
    page = report_page.html(skipping.report)
    assert f"<td>{100 * expected:.0f} %</td>" in page and rows["second"]["facts"]["skipping"] in page


@pytest.mark.slow
def test_from_the_command_line(model: Perceptron, tmp_path: Path) -> None:
    source, data = tmp_path / "model.pt2", tmp_path / "data.npz"
    torch.export.save(torch.export.export(model, (torch.from_numpy(SAMPLES[:1]),)), source)
    np.savez(data, x=SAMPLES)
    out, found = str(tmp_path / "model.so"), str(tmp_path / "report.json")
    assert tool.main([str(source), "-o", out, "--calibration", str(data), "--report", found, "--quiet"]) == 0
    assert '"skipping": ' in Path(found).read_text()
    np.savez(data, y=SAMPLES)
    assert tool.main([str(source), "-o", out, "--calibration", str(data), "--quiet"]) == 1


SPECS = [TensorSpec("a", (1, 3), "float32"), TensorSpec("b", (2,), "int8")]


@pytest.mark.parametrize(
    ("data", "count"),
    [
        ({"a": np.zeros((1, 3)), "b": np.zeros(2)}, 1),
        ({"a": np.zeros((7, 1, 3)), "b": np.zeros((7, 2))}, 7),
        ([np.zeros((7, 3)), np.zeros((7, 2))], 7),
        ([np.zeros((200, 3)), np.zeros((200, 2))], calibration.MOST_SAMPLES),
    ],
)
def test_samples(data: Any, count: int) -> None:
    found = calibration.samples(data, SPECS)
    assert len(found) == count
    assert all(a.shape == (1, 3) and a.dtype == np.float32 and b.shape == (2,) and b.dtype == np.int8 for a, b in found)


def test_a_file_of_one_array_is_one_input(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((5, 1, 3)))
    assert len(calibration.samples(tmp_path / "x.npy", SPECS[:1])) == 5


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"a": np.zeros((1, 3))}, "no array 'b'"),
        ([np.zeros((1, 3))], "have 1 arrays, expected one for each"),
        ([np.zeros((1, 4)), np.zeros(2)], r"input 'a' have shape \[1, 4\], expected \[1, 3\]"),
        ([np.zeros((5, 3)), np.zeros((6, 2))], "different number of samples"),
        ("gone.npz", "cannot read calibration data"),
        (__file__, "cannot read calibration data"),
    ],
)
def test_what_does_not_fit_is_refused(data: Any, message: str) -> None:
    with pytest.raises(QccError, match=message):
        calibration.samples(data, SPECS)
