"""The digits models on the accelerator: bit for bit the reference, as accurate as PyTorch, from every file format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qcc
from qcc.compiler import driver
from qcc.compiler.options import CompileOptions
from qcc.runtime.reference import interpreter
from test.tiers import slow_except

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = [f"digits_{name}.{kind}" for name in ("cnn", "mixer") for kind in ("onnx", "pt2", "mlir")]


@pytest.fixture(scope="module")
def digits() -> Any:
    return np.load(EXAMPLES / "digits.npz")


def logits_of(digits: Any, file: str) -> np.ndarray:
    return digits[f"{file.removeprefix('digits_').partition('.')[0]}_logits"]


@pytest.mark.parametrize("file", slow_except(FILES, "digits_cnn.mlir"))
def test_both_levels_equal_the_reference(digits: Any, file: str, tmp_path: Path) -> None:
    """From the integers at the accelerator's border; where all host segments are integer or end the model, the logits too."""
    executable = qcc.compile(EXAMPLES / file, target="fpga")
    module = driver.start(EXAMPLES / file, CompileOptions(target="fpga")).run_to("integer")
    executable.save(tmp_path / "model.qfa")
    loaded = qcc.load(tmp_path / "model.qfa")
    for image in digits["images"][:6]:
        wanted = interpreter.run(module, [image[None]])[0]
        np.testing.assert_allclose(executable(image[None]), wanted, rtol=1e-5, atol=1e-5)
        result = loaded.simulate(image[None], level="cycle")
        np.testing.assert_array_equal(result.outputs[0], executable(image[None]))
        assert result.trace.cycles > 0
    if "cnn" in file:
        assert not executable.report["remarks"], "every layer of the CNN runs on the accelerator"
        np.testing.assert_array_equal(executable(digits["images"][:1]), interpreter.run(module, [digits["images"][:1]])[0])


@pytest.mark.slow
def test_what_runs_on_the_host_is_named() -> None:
    remarks = "\n".join(qcc.compile(EXAMPLES / "digits_mixer.mlir", target="fpga").report["remarks"])
    assert "layer_norm runs on the host: no post-unit function" in remarks
    assert "lut runs on the host: the post unit has no look-up table" in remarks


@pytest.mark.slow
@pytest.mark.parametrize("file", ["digits_cnn.onnx", "digits_mixer.onnx"])
def test_accuracy(digits: Any, file: str) -> None:
    executable = qcc.compile(EXAMPLES / file, target="fpga", threads=1)
    found = np.concatenate([executable(image[None]) for image in digits["images"]])
    right = [int((y.argmax(1) == digits["labels"]).sum()) for y in (found, logits_of(digits, file))]
    assert abs(right[0] - right[1]) <= 1
