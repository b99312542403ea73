"""The digits models on both targets: as accurate as PyTorch to within one test image, and equal to the reference layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qcc
from qcc.compiler import compare

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = [f"digits_{name}.{kind}" for name in ("cnn", "mixer") for kind in ("onnx", "pt2", "mlir")]


@pytest.fixture(scope="module")
def digits() -> Any:
    return np.load(EXAMPLES / "digits.npz")


def expected(digits: Any, file: str) -> np.ndarray:
    return digits[f"{file.removeprefix('digits_').partition('.')[0]}_logits"]


@pytest.mark.parametrize("file", FILES)
def test_accuracy_on_the_cpu(digits: Any, file: str) -> None:
    executable = qcc.compile(EXAMPLES / file, threads=1)
    found = np.concatenate([executable(image[None]) for image in digits["images"]])
    logits = expected(digits, file)
    right = [int((y.argmax(1) == digits["labels"]).sum()) for y in (found, logits)]
    assert abs(right[0] - right[1]) <= 1
    assert (np.abs(found - logits).max(1) > 1e-4).mean() < 0.05  # equal but for images where a rounding falls to the other side


@pytest.mark.parametrize("file", FILES)
def test_every_layer_on_the_cpu_equals_the_reference(digits: Any, file: str) -> None:
    executable = qcc.compile(EXAMPLES / file, threads=1, keep_layers=True)
    for image in digits["images"][:3]:
        result = compare.artefact(executable, EXAMPLES / file, [image[None]])
        assert result.same, result.text


def test_plain_and_kept_programs_agree(digits: Any) -> None:
    plain, kept = (qcc.compile(EXAMPLES / "digits_cnn.onnx", threads=1, keep_layers=keep) for keep in (False, True))
    for image in digits["images"][:20]:
        np.testing.assert_array_equal(plain(image[None]), kept(image[None])[0])


@pytest.mark.parametrize("name", ["cnn", "mixer"])
def test_accelerator_is_as_accurate_as_pytorch_and_its_cycles_are_counted(digits: Any, name: str) -> None:
    executable = qcc.compile(EXAMPLES / f"digits_{name}.onnx", target="fpga")
    images, labels, logits = digits["images"][:120], digits["labels"][:120], digits[f"{name}_logits"][:120]
    found = np.concatenate([executable(image[None]) for image in images])
    assert abs(int((found.argmax(1) == labels).sum()) - int((logits.argmax(1) == labels).sum())) <= 1
    timed = executable.simulate(images[:1], level="cycle")
    np.testing.assert_array_equal(timed.outputs[0], found[:1])
    assert timed.trace.cycles > 1000 and timed.trace.dram_bytes > 1000


@pytest.mark.parametrize("name", ["cnn", "mixer"])
def test_every_layer_on_the_accelerator_equals_the_reference(digits: Any, name: str) -> None:
    model = EXAMPLES / f"digits_{name}.mlir"
    executable = qcc.compile(model, target="fpga", keep_layers=True)
    for image in digits["images"][:3]:
        result = compare.artefact(executable, model, [image[None]])
        assert result.same, result.text
        assert all(layer.own.differing == 0 for layer in result.layers)
