"""The shipped digits models are one model in three files, and as good as their training said."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("digits_cnn", "digits_mixer")


class Quant(OpRun):
    """QONNX: (clamp(round(x / scale + zero_point), low, high) - zero_point) * scale."""

    op_domain = "qonnx.custom_op.general"

    def _run(self, x: Any, scale: Any, zero_point: Any, bits: Any, *, signed: int, narrow: int, rounding_mode: str) -> Any:
        assert rounding_mode == "ROUND"
        levels = 2 ** int(bits)
        low, high = (-levels // 2 + narrow, levels // 2 - 1) if signed else (0, levels - 1 - narrow)
        return (((np.clip(np.round(x / scale + zero_point), low, high) - zero_point) * scale).astype(np.float32),)


class BipolarQuant(OpRun):
    """QONNX: scale where x is at least 0, otherwise -scale."""

    op_domain = "qonnx.custom_op.general"

    def _run(self, x: Any, scale: Any) -> Any:
        return (np.where(x >= 0, scale, -scale).astype(np.float32),)


@pytest.fixture(scope="module")
def digits() -> Any:
    return np.load(EXAMPLES / "digits.npz")


@pytest.mark.parametrize("name", NAMES)
def test_reference_accuracy(digits: Any, name: str) -> None:
    logits = digits[f"{name.removeprefix('digits_')}_logits"]
    assert logits.shape == (360, 10)
    assert (logits.argmax(1) == digits["labels"]).mean() > 0.95


@pytest.mark.parametrize("name", NAMES)
def test_onnx_gives_the_reference_logits(digits: Any, name: str) -> None:
    evaluator = ReferenceEvaluator(str(EXAMPLES / f"{name}.onnx"), new_ops=[Quant, BipolarQuant])
    expected = digits[f"{name.removeprefix('digits_')}_logits"][:12]
    found = np.concatenate([evaluator.run(None, {"x": image[None]})[0] for image in digits["images"][:12]])  # type: ignore[index]
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))
    assert np.abs(found - expected).max() < 0.25  # a rounding of a tie moves one activation by one step


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_pt2_gives_the_reference_logits(digits: Any, name: str) -> None:
    with torch.no_grad():
        module = torch.export.load(EXAMPLES / f"{name}.pt2").module()
        found = torch.cat([module(torch.tensor(image)[None]) for image in digits["images"][:40]]).numpy()
    np.testing.assert_allclose(found, digits[f"{name.removeprefix('digits_')}_logits"][:40], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_mlir_holds_the_numbers_of_the_onnx_file(name: str) -> None:
    from qcc.dialects.mlir import create_context, parse_module, walk
    from qcc.dialects.weights import array_of

    text = (EXAMPLES / f"{name}.mlir").read_text()
    context = create_context()
    module = parse_module(text, context, name=name)
    with context:
        found = [array_of(op.attributes["value"]) for op in walk(module, "torch.vtensor.literal")]
    literals = {(array.shape, array.astype(np.float32).tobytes()) for array in found}
    stored = [onnx.numpy_helper.to_array(i) for i in onnx.load(EXAMPLES / f"{name}.onnx").graph.initializer if i.name.endswith("_stored")]
    assert len(stored) >= 5
    for array in stored:
        array = array.astype(np.float32)
        assert (array.shape, array.tobytes()) in literals or (array.T.shape, array.T.copy().tobytes()) in literals


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["onnx", "pt2", "mlir"])
def test_files_are_small_and_name_no_machine(name: str, kind: str) -> None:
    data = (EXAMPLES / f"{name}.{kind}").read_bytes()
    assert len(data) < 1 << 20
    for trace in (b"/home/", b"/root/", b"/tmp/", b"train_digits.py"):
        assert trace not in data
