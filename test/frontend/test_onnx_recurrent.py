"""RNN, GRU and LSTM of ONNX against ONNX Runtime, and what is refused of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

import qcc
from qcc.compiler.frontend.onnx import import_model
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import walk
from test.frontend.onnx_models import FLOAT, evaluate, graph_form, model
from test.tiers import slow_except

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
STEPS, BATCH, INPUT, HIDDEN = 5, 2, 3, 4


def recurrent(
    operator: str, states: bool = False, constants: dict[str, np.ndarray] | None = None, bias: bool = True, **given: Any
) -> tuple[onnx.ModelProto, list[np.ndarray]]:
    """A model of one node with all its outputs, called 'layer', and its inputs: x and, with `states`, the initial ones."""
    rng = np.random.default_rng(len(operator))
    count, width, swapped = 2 if given.get("direction") == "bidirectional" else 1, GATES[operator] * HIDDEN, bool(given.get("layout"))
    weights = {"w": rng.normal(size=(count, width, INPUT)), "r": rng.normal(size=(count, width, HIDDEN)) * 0.5}
    if bias:
        weights["b"] = rng.normal(size=(count, 2 * width))
    shapes = {"x": [BATCH, STEPS, INPUT] if swapped else [STEPS, BATCH, INPUT]}
    names = ["h", "c"] if operator == "LSTM" else ["h"]
    if states:
        shapes |= {name: [BATCH, count, HIDDEN] if swapped else [count, BATCH, HIDDEN] for name in names}
    constants = constants or {}
    inputs = ["x", "w", "r", "b" if bias else "", "lengths" if "lengths" in constants else "", *(n if states else "" for n in names)]
    node = helper.make_node(operator, [*inputs, *(["p"] if "p" in constants else [])], ["y", *(f"y_{n}" for n in names)],
                            name="layer", hidden_size=HIDDEN, **given)  # fmt: skip
    stored = {name: array.astype(np.float32) for name, array in weights.items()} | constants
    source = model([node], {name: (FLOAT, shape) for name, shape in shapes.items()}, list(node.output), stored)
    return source, [rng.normal(size=shape).astype(np.float32) for shape in shapes.values()]


def runtime(source: onnx.ModelProto, inputs: list[np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(source.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(y) for y in session.run(None, dict(zip((i.name for i in session.get_inputs()), inputs, strict=True)))]


@pytest.mark.parametrize("operator", slow_except(GATES, "LSTM"))
@pytest.mark.parametrize("direction", slow_except(["forward", "reverse", "bidirectional"], "bidirectional"))
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"states": True},
        {"bias": False},
        {"layout": 1, "states": True},
        {"linear_before_reset": 1, "states": True},
        {"clip": 0.3},
        {"constants": {"lengths": np.full(BATCH, STEPS, np.int32)}},
    ],
)
def test_every_form(operator: str, direction: str, given: dict[str, Any]) -> None:
    if operator != "GRU" and "linear_before_reset" in given:
        pytest.skip("an attribute of GRU")
    source, inputs = recurrent(operator, direction=direction, **given)
    if given.get("layout"):  # ONNX Runtime knows only layout 0
        plain, _ = recurrent(operator, direction=direction, **{**given, "layout": 0})
        expected = runtime(plain, [x.swapaxes(0, 1) for x in inputs])
        expected = [expected[0].transpose(2, 0, 1, 3), *(e.swapaxes(0, 1) for e in expected[1:])]
    else:
        expected = runtime(source, inputs)
    for y, wanted in zip(evaluate(source, *inputs), expected, strict=True):
        np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)


def test_other_activations() -> None:
    source, inputs = recurrent("LSTM", direction="bidirectional", activations=["Sigmoid", "Relu", "Softplus", "Sigmoid", "Tanh", "Relu"])
    for y, wanted in zip(evaluate(source, *inputs), runtime(source, inputs), strict=True):
        np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("operator", GATES)
def test_steps_share_their_weights_and_have_codelets(operator: str, quantized: bool) -> None:
    """Two layers in both directions; weights as floats and as dequantized bytes."""
    rng, width = np.random.default_rng(2), GATES[operator] * HIDDEN
    inputs, nodes, constants, x = [INPUT, 2 * HIDDEN], [], {"s": np.float32(0.02)}, "x"
    for layer, size in enumerate(inputs):
        for name, k in (("w", size), ("r", HIDDEN)):
            stored = rng.integers(-50, 50, (2, width, k)).astype(np.int8)
            constants[f"{name}{layer}"] = stored if quantized else stored * np.float32(0.02)
            if quantized:
                nodes.append(helper.make_node("DequantizeLinear", [f"{name}{layer}", "s"], [f"{name}{layer}d"]))
        names = [f"{name}{layer}{'d' if quantized else ''}" for name in "wr"]
        given = {"hidden_size": HIDDEN, "direction": "bidirectional"} | ({"linear_before_reset": 1} if operator == "GRU" else {})
        nodes.append(helper.make_node(operator, [x, *names], [f"y{layer}"], **given))
        nodes.append(helper.make_node("Transpose", [f"y{layer}"], [f"t{layer}"], perm=[0, 2, 1, 3]))
        x = f"x{layer}"
        nodes.append(helper.make_node("Reshape", [f"t{layer}", "shape"], [x]))
    constants["shape"] = np.array([STEPS, BATCH, 2 * HIDDEN])
    source = model(nodes, {"x": (FLOAT, [STEPS, BATCH, INPUT])}, [x], constants)
    data = rng.normal(size=(STEPS, BATCH, INPUT)).astype(np.float32)
    module = graph_form(source)
    elements = sum(int(np.prod(op.results[0].type.shape)) for op in walk(module, "qcc.constant"))
    assert elements <= sum(2 * width * (size + HIDDEN) for size in inputs)
    executable = qcc.compile(source, threads=1)
    tolerance = 2e-4  # weight-only products may round x to 16 bits in every step; the floats are recognised as bytes
    np.testing.assert_allclose(executable(data), runtime(source, [data])[0], rtol=tolerance, atol=tolerance)
    assert not any(row["generic"] for row in executable.report["layers"])


@pytest.mark.parametrize(
    ("operator", "given", "message"),
    [
        ("GRU", {"constants": {"lengths": np.array([STEPS, 2], np.int32)}}, "sequences of different lengths .sequence_lens., expected 5"),
        ("LSTM", {"constants": {"p": np.ones((1, 3 * HIDDEN), np.float32)}}, "peephole weights .input P., expected none"),
        ("LSTM", {"input_forget": 1}, "couples input and forget gates"),
        ("RNN", {"activations": ["Affine"]}, "the activation Affine, expected one of Relu, Sigmoid"),
    ],
)
def test_what_is_refused(operator: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(QccError, match=f"layer 'layer': onnx.{operator} (has|couples) .*{message.removeprefix('couples ')}"):
        import_model(recurrent(operator, **given)[0])
