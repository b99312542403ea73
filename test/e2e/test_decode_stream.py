"""Weights that are decoded while the model runs: every format part by part, in one small place, with the outputs of whole layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import qcc
from qcc.passes.tile.codelets import channel_parts
from test.e2e.test_methods import CROSSED, FORMATS, Layers, inputs

BYTES, CHANNELS = 64, 8  # of a part, here: small layers stand for large ones


def plain_f32(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def nine_of_ten(weight: np.ndarray) -> np.ndarray:
    return weight * (np.random.default_rng(7).random(weight.shape) < 0.1)


ROWS = [*FORMATS, "float"]


def models(row: str) -> tuple[Layers, bool]:
    make, bits, exact, _ = FORMATS.get(row, (plain_f32, None, False, ""))
    return Layers(make, [*CROSSED.values(), nine_of_ten], bits, seed=len(row)).eval(), exact


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_parts_give_the_outputs_of_whole_layers(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, exact = models(row)

    def run(**options: Any) -> tuple[Any, Any]:
        made = qcc.compile(model, example_inputs=inputs(0), threads=2, coding="rans", **options)
        return made, made(*(x.numpy() for x in inputs(1)))

    _, expected = run(decode="load")
    whole, _ = run(decode="stream")
    monkeypatch.setattr(channel_parts, "PART_BYTES", BYTES)
    monkeypatch.setattr(channel_parts, "CHANNELS", CHANNELS)
    executable, found = run(decode="stream")
    for y, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(y, want, atol=0 if exact else 2e-5 * np.abs(want).max(), rtol=0)
    steps = [sum(step["layer"] == "linear.0" for step in exe.info["steps"]) for exe in (whole, executable)]
    coding = executable.report["coding"]
    if row not in ("binarized network (BNN)", "XNOR-Net"):  # products of signs, a bit per weight, stay whole
        assert steps[1] >= steps[0] + 2, "three parts of eight channels"
        assert coding["at_once_bytes"] <= whole.report["coding"]["at_once_bytes"]
    for row_of in executable.report["layers"]:
        if row_of["weights"] and "stored_bits" in row_of:
            assert row_of["stored_bits"] >= 0.99 * row_of["packed_entropy_bits"] > 0


@pytest.mark.slow
def test_memory_is_that_of_a_part_however_large_the_layer() -> None:
    """32 and 64 MB of f32 weights, 2 MB at a time."""
    rows = np.random.default_rng(0).standard_normal((1, 4096)).astype(np.float32)
    most: list[int] = []
    for channels in (2048, 4096):
        layer, x = nn.Linear(4096, channels).eval(), torch.from_numpy(rows)
        executable = qcc.compile(layer, example_inputs=(x,), decode="stream", threads=1)
        with torch.no_grad():
            np.testing.assert_allclose(executable(rows), layer(x).numpy(), atol=1e-4)
        most.append(executable.report["coding"]["at_once_bytes"])
    assert most[0] == most[1] <= 4 * 4096 * 128 + 4096


@pytest.mark.slow
def test_tables_of_embeddings_are_read_where_they_lie() -> None:
    """A few rows are wanted: to decode all 4 MB would take longer than the model, and a place for them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(4096, 256), nn.Linear(256, 128)).eval()
    ids = torch.tensor([[3, 4095, 0, 17]])
    executables = {
        decode: qcc.compile(model, example_inputs=(ids,), coding="rans", decode=decode, threads=1) for decode in ("load", "stream")
    }
    found = {decode: executable(ids.numpy()) for decode, executable in executables.items()}
    np.testing.assert_array_equal(found["stream"], found["load"])
    coding = {decode: executable.report["coding"] for decode, executable in executables.items()}
    assert coding["load"]["coded_bytes"] > 3e6 and coding["stream"]["at_once_bytes"] == 4 * 256 * 128


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(24, 32, num_layers=2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x)[0]


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_steps_that_read_the_same_weights_in_a_row(threads: int) -> None:
    """What is in the place is not decoded again, step by step of a layer; what another layer's steps put there is."""
    torch.manual_seed(0)
    model, x = Recurrent().eval(), torch.randn(1, 5, 24)
    executables = [
        qcc.compile(model, example_inputs=(x,), coding="huffman", decode=decode, threads=threads) for decode in ("load", "stream")
    ]
    wanted, found = (executable(x.numpy()) for executable in executables)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(executables[1](x.numpy()), wanted, err_msg="a second run begins with the first layer's weights")
    with torch.no_grad():
        np.testing.assert_allclose(found, model(x).numpy(), atol=1e-4)
