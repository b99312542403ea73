"""Float operators of ONNX Runtime's own that its graph optimizer fuses, and ONNX's that its shape inference fails for, written out.

`fold-norms` and `fold-gelu` make one operation of them again. Read from ONNX Runtime's list of contributed operators.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from qcc.compiler.frontend import onnx_expansion
from qcc.compiler.frontend.onnx_expansion import Expansion, Rule
from qcc.compiler.frontend.onnx_graph import OnnxGraph, attributes, error_at_node
from qcc.compiler.frontend.onnx_quantization import MICROSOFT

LAYER_NORM_OPSET = 17  # of LayerNormalization
MEAN_AXES_OPSET = 18  # of ReduceMean: its axes became an input


def write_out(graph: OnnxGraph) -> None:
    """Rewrite in place; needs no types of values, which stay unknown behind operators that ONNX does not define."""
    onnx_expansion.expand(graph, lambda source: _RULES.get((source.domain, source.op_type)))


def _norm(e: Expansion, x: str, gamma: str, beta: str, centred: bool) -> None:
    """x over its root mean square, less its mean first where `centred`; times gamma, plus beta."""
    given = attributes(e.source)
    if given.get("axis", -1) != -1:
        raise error_at_node(e.source, f"{e.source.op_type} has axis {given['axis']}, expected -1; export the model without this fusion")
    if centred:
        x = e.add("Sub", [x, _mean(e, x)])
    root = e.add("Sqrt", [e.add("Add", [_mean(e, e.add("Mul", [x, x])), _number(e, given.get("epsilon", 1e-5))])])
    y = e.add("Mul", [e.add("Div", [x, root]), gamma], "" if beta else e.source.output[0])
    if beta:
        e.add("Add", [y, beta], e.source.output[0])


def _mean(e: Expansion, x: str, axes: Sequence[int] = (-1,)) -> str:
    if e.graph.opset < MEAN_AXES_OPSET:
        return e.add("ReduceMean", [x], axes=list(axes))
    return e.add("ReduceMean", [x, e.graph.constant(np.array(axes), "axes")])


def _number(e: Expansion, value: float) -> str:
    return e.graph.constant(np.asarray(value, np.float32), "number")


def _rms_norm(e: Expansion) -> None:
    _norm(e, e.input(0), e.input(1), "", centred=False)


def _early_layer_norm(e: Expansion) -> None:
    """ONNX Runtime has the operator in models that are older than it."""
    if e.graph.opset < LAYER_NORM_OPSET:
        _norm(e, e.input(0), e.input(1), e.input(2), centred=True)


def _skip_rms_norm(e: Expansion) -> None:
    """x, skip, gamma, bias."""
    _norm(e, _skipped(e, e.input(3)), e.input(2), "", centred=False)


def _skip_layer_norm(e: Expansion) -> None:
    """x, skip, gamma, beta, bias."""
    _norm(e, _skipped(e, e.input(4)), e.input(2), e.input(3), centred=True)


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
    half = e.add("Mul", [x, _number(e, 0.5)])
    e.add("Mul", [half, _plus_one(e, e.add("Erf", [e.add("Div", [x, _number(e, math.sqrt(2))])]))], e.source.output[0])


def _fast_gelu(e: Expansion) -> None:
    """x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 of x, plus the bias where there is one."""
    x = _biased(e)
    cube = e.add("Mul", [e.add("Mul", [e.add("Mul", [x, x]), x]), _number(e, 0.044715)])
    inner = e.add("Mul", [e.add("Add", [x, cube]), _number(e, math.sqrt(2 / math.pi))])
    e.add("Mul", [e.add("Mul", [x, _number(e, 0.5)]), _plus_one(e, e.add("Tanh", [inner]))], e.source.output[0])


def _biased(e: Expansion) -> str:
    return e.add("Add", [e.input(0), e.input(1)]) if e.input(1) else e.input(0)


def _plus_one(e: Expansion, x: str) -> str:
    return e.add("Add", [x, _number(e, 1)])


def _quick_gelu(e: Expansion) -> None:
    """x sigmoid(alpha x)"""
    scaled = e.add("Mul", [e.input(0), _number(e, attributes(e.source).get("alpha", 1.702))])
    e.add("Mul", [e.input(0), e.add("Sigmoid", [scaled])], e.source.output[0])


def _mean_variance_normalization(e: Expansion) -> None:
    """(x - mean) / (deviation + 1e-9); the definition's E[x^2] - E[x]^2 is below zero where x hardly varies."""
    axes = attributes(e.source).get("axes", [0, 2, 3])
    d = e.add("Sub", [e.input(0), _mean(e, e.input(0), axes)])
    deviation = e.add("Sqrt", [_mean(e, e.add("Mul", [d, d]), axes)])
    e.add("Div", [d, e.add("Add", [deviation, _number(e, 1e-9)])], e.source.output[0])


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
}
