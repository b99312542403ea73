"""The digits models: on the CPU as accurate as PyTorch to within one test image; on both targets every layer equals the reference.

`test_digits_accelerator.py` has the accelerator's accuracy and cycles.
"""

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
def test_every_layer_on_the_accelerator_equals_the_reference(digits: Any, name: str) -> None:
    model = EXAMPLES / f"digits_{name}.mlir"
    executable = qcc.compile(model, target="fpga", keep_layers=True)
    for image in digits["images"][:3]:
        result = compare.artefact(executable, model, [image[None]])
        assert result.same, result.text
        assert all(layer.own.differing == 0 for layer in result.layers)
