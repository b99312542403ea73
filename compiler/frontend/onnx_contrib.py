"""Float operators of ONNX Runtime's own that its graph optimizer fuses, and ONNX's that its shape inference fails for, written out.

`fold-norms` and `fold-gelu` make one operation of them again. What has to know shapes is in `onnx_fused`.
Read from ONNX Runtime's list of contributed operators.
"""

from __future__ import annotations

import math

from qcc.compiler.frontend import onnx_expansion
from qcc.compiler.frontend.onnx_expansion import MICROSOFT, Expansion, Rule
from qcc.compiler.frontend.onnx_graph import OnnxGraph, attributes, error_at_node

LAYER_NORM_OPSET = 17  # of LayerNormalization


def write_out(graph: OnnxGraph) -> None:
    """Rewrite in place; needs no types of values, which stay unknown behind operators that ONNX does not define."""
    onnx_expansion.expand(graph, lambda source: _RULES.get((source.domain, source.op_type)))


def norm(e: Expansion, x: str, gamma: str, beta: str, centred: bool) -> None:
    """x over its root mean square, less its mean first where `centred`; times gamma, plus beta: the node's first output."""
    given = attributes(e.source)
    if given.get("axis", -1) != -1:
        raise error_at_node(e.source, f"{e.source.op_type} has axis {given['axis']}, expected -1; export the model without this fusion")
    if centred:
        x = e.add("Sub", [x, e.mean(x)])
    root = e.add("Sqrt", [e.add("Add", [e.mean(e.add("Mul", [x, x])), e.number(given.get("epsilon", 1e-5))])])
    y = e.add("Mul", [e.add("Div", [x, root]), gamma], "" if beta else e.source.output[0])
    if beta:
        e.add("Add", [y, beta], e.source.output[0])


def _rms_norm(e: Expansion) -> None:
    norm(e, e.input(0), e.input(1), "", centred=False)


def _early_layer_norm(e: Expansion) -> None:
    """ONNX Runtime has the operator in models that are older than it."""
    if e.graph.opset < LAYER_NORM_OPSET:
        norm(e, e.input(0), e.input(1), e.input(2), centred=True)


def _skip_rms_norm(e: Expansion) -> None:
    """x, skip, gamma, bias."""
    norm(e, _skipped(e, e.input(3)), e.input(2), "", centred=False)


def _skip_layer_norm(e: Expansion) -> None:
    """x, skip, gamma, beta, bias."""
    norm(e, _skipped(e, e.input(4)), e.input(2), e.input(3), centred=True)


def _skipped(e: Expansion, bias: str) -> str:
    """x + skip + bias, which is the fourth result."""
    results = [*e.source.output, "", "", ""]
    if any(results[1:3]):
        raise error_at_node(e.source, f"{e.source.op_type} gives its mean or inverse deviation, expected an inference model without them")
    x = e.add("Add", [e.input(0), e.input(1)], "" if bias else results[3])
    return e.add("Add", [x, bias], results[3]) if bias else x


def _gelu(e: Expansion) -> None:
    """x (1 + erf(x / sqrt(2))) / 2 of x, plus the bias where there is one."""
    x = _biased(e)
    half = e.add("Mul", [x, e.number(0.5)])
    e.add("Mul", [half, _plus_one(e, e.add("Erf", [e.add("Div", [x, e.number(math.sqrt(2))])]))], e.source.output[0])


def _fast_gelu(e: Expansion) -> None:
    """x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 of x, plus the bias where there is one."""
    x = _biased(e)
    cube = e.add("Mul", [e.add("Mul", [e.add("Mul", [x, x]), x]), e.number(0.044715)])
    inner = e.add("Mul", [e.add("Add", [x, cube]), e.number(math.sqrt(2 / math.pi))])
    e.add("Mul", [e.add("Mul", [x, e.number(0.5)]), _plus_one(e, e.add("Tanh", [inner]))], e.source.output[0])


def _biased(e: Expansion) -> str:
    return e.add("Add", [e.input(0), e.input(1)]) if e.input(1) else e.input(0)


def _plus_one(e: Expansion, x: str) -> str:
    return e.add("Add", [x, e.number(1)])


def _quick_gelu(e: Expansion) -> None:
    """x sigmoid(alpha x)"""
    scaled = e.add("Mul", [e.input(0), e.number(attributes(e.source).get("alpha", 1.702))])
    e.add("Mul", [e.input(0), e.add("Sigmoid", [scaled])], e.source.output[0])


def _mean_variance_normalization(e: Expansion) -> None:
    """(x - mean) / (deviation + 1e-9); the definition's E[x^2] - E[x]^2 is below zero where x hardly varies."""
    axes = attributes(e.source).get("axes", [0, 2, 3])
    d = e.add("Sub", [e.input(0), e.mean(e.input(0), axes)])
    deviation = e.add("Sqrt", [e.mean(e.add("Mul", [d, d]), axes)])
    e.add("Div", [d, e.add("Add", [deviation, e.number(1e-9)])], e.source.output[0])


def _bias_add(e: Expansion) -> None:
    """x, bias, skip."""
    e.add("Add", [e.add("Add", [e.input(0), e.input(1)]), e.input(2)], e.source.output[0])


def _fused_convolution(e: Expansion) -> None:
    """x, weight, bias, what is added before the activation."""
    given = attributes(e.source)
    activation, numbers = given.pop("activation", ""), given.pop("activation_params", [])
    y = e.add("Conv", onnx_expansion.trim([e.input(i) for i in range(3)]), **given)
    y = e.add("Add", [y, e.input(3)]) if e.input(3) else y
    _activation(e, y, activation, dict(zip(ACTIVATIONS.get(activation, ()), numbers, strict=False)))


def _fused_gemm(e: Expansion) -> None:
    given = attributes(e.source)
    numbers = {name: given.pop(f"activation_{name}") for name in ("alpha", "beta", "gamma") if f"activation_{name}" in given}
    activation = given.pop("activation", "")
    y = e.add("Gemm", list(e.source.input), **given)
    _activation(e, y, activation, {name: value for name, value in numbers.items() if name in ACTIVATIONS.get(activation, ())})


def _activation(e: Expansion, x: str, name: str, numbers: dict[str, float]) -> None:
    """The function `name` of x as the node's output; x itself where there is none."""
    if name and name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise error_at_node(e.source, f"{e.source.op_type} has the activation {name}, expected one of {known}; export without this fusion")
    if name == "Clip":
        e.add("Clip", [x, *(e.number(numbers[bound]) for bound in ACTIVATIONS["Clip"])], e.source.output[0])
    else:
        e.add(name or "Identity", [x], e.source.output[0], **numbers)


ACTIVATIONS = {
    "Relu": (), "Sigmoid": (), "Tanh": (), "Softplus": (), "Softsign": (), "Elu": ("alpha",), "LeakyRelu": ("alpha",),
    "ThresholdedRelu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "Selu": ("alpha", "gamma"), "Clip": ("min", "max"),
}  # fmt: skip
"""Functions that are fused behind products, each with its parameters in ONNX's order."""

_RULES: dict[tuple[str, str], Rule] = {
    ("", "SimplifiedLayerNormalization"): _rms_norm,  # ONNX Runtime knows it in ONNX's own domain
    ("", "MeanVarianceNormalization"): _mean_variance_normalization,
    ("", "LayerNormalization"): _early_layer_norm,
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): _skip_rms_norm,
    (MICROSOFT, "SkipLayerNormalization"): _skip_layer_norm,
    (MICROSOFT, "Gelu"): _gelu,
    (MICROSOFT, "BiasGelu"): _gelu,
    (MICROSOFT, "FastGelu"): _fast_gelu,
    (MICROSOFT, "QuickGelu"): _quick_gelu,
    (MICROSOFT, "BiasAdd"): _bias_add,
    (MICROSOFT, "FusedConv"): _fused_convolution,
    (MICROSOFT, "FusedGemm"): _fused_gemm,
}
