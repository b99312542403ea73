"""The node test cases of the onnx package, prepared for a compiler that wants shapes and parameters at compile time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

GREATEST_OPSET = 23
# Inputs that say what to compute rather than what to compute on: shapes, axes, pads, counts, scales, zero points and weights. Models have
# them as constants, the test cases as inputs, so they become constants here.
PARAMETERS: dict[str, tuple[int, ...]] = {
    "AffineGrid": (1,), "BatchNormalization": (1, 2, 3, 4), "BlackmanWindow": (0,), "CenterCropPad": (1,), "Clip": (1, 2), "Col2Im": (1, 2),
    "ConstantOfShape": (0,), "Conv": (1, 2), "ConvInteger": (1, 2, 3), "ConvTranspose": (1, 2), "CumProd": (1,), "CumSum": (1,),
    "DequantizeLinear": (1, 2), "DFT": (1, 2), "Dropout": (1, 2), "Expand": (1,), "HammingWindow": (0,), "HannWindow": (0,),
    "If": (0,), "Loop": (0, 1), "MatMulInteger": (1, 2, 3), "MaxUnpool": (2,), "MelWeightMatrix": (0, 1, 2, 3, 4),
    "NonMaxSuppression": (2, 3, 4), "OneHot": (1, 2), "Pad": (1, 2, 3), "QLinearConv": (1, 2, 3, 4, 5, 6, 7, 8),
    "QLinearMatMul": (1, 2, 3, 4, 5, 6, 7), "QuantizeLinear": (1, 2), "Range": (0, 1, 2), "ReduceL1": (1,), "ReduceL2": (1,),
    "ReduceLogSum": (1,), "ReduceLogSumExp": (1,), "ReduceMax": (1,), "ReduceMean": (1,), "ReduceMin": (1,), "ReduceProd": (1,),
    "ReduceSum": (1,), "ReduceSumSquare": (1,), "Reshape": (1,), "Resize": (1, 2, 3), "Slice": (1, 2, 3, 4), "Split": (1,),
    "SplitToSequence": (1,), "Squeeze": (1,), "STFT": (1, 3), "Tile": (1,), "TopK": (1,), "Trilu": (1,), "Unsqueeze": (1,),
    "Upsample": (1,),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One model with one set of inputs and expected outputs, and the tolerances of the onnx package."""

    name: str
    model: onnx.ModelProto
    inputs: list[Any]
    outputs: list[Any]
    rtol: float
    atol: float


def collect() -> list[Case]:
    """Every node test case of the installed onnx package, by name, that is about tensors of numbers and ONNX's default operators.

    Left out: strings, sequences and optionals, complex numbers, the training and the classical machine-learning domains.
    """
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(collect_testcases(None))
    return sorted((case for test in found for case in _prepared(test)), key=lambda case: case.name)


def _prepared(test: Any) -> Iterator[Case]:
    for index, (inputs, outputs) in enumerate(test.data_sets or []):
        name = test.name if index == 0 else f"{test.name}#{index}"
        arrays = [[_array(value) for value in values] for values in (inputs, outputs)]
        if all(_is_numeric(value) for values in arrays for value in values) and not _other_domains(test.model):
            yield frozen(Case(name, _capped(test.model), *arrays, test.rtol, test.atol))


def _is_numeric(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in "OUSc"


def _other_domains(model: onnx.ModelProto) -> bool:
    return any(n.domain not in ("", "ai.onnx") for n in model.graph.node)


def _array(value: Any) -> Any:
    """Tensors of types that numpy does not have come as protobufs."""
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _capped(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model at opset 23 where all its operators are that old."""
    capped = onnx.ModelProto()
    capped.CopyFrom(model)
    for entry in capped.opset_import:
        if (
            entry.domain in ("", "ai.onnx")
            and entry.version > GREATEST_OPSET
            and all(_since(n) <= GREATEST_OPSET for n in model.graph.node)
        ):
            entry.version = GREATEST_OPSET
    return capped


def _since(node: onnx.NodeProto) -> int:
    try:
        return onnx.defs.get_schema(node.op_type, node.domain).since_version
    except onnx.defs.SchemaError:
        return GREATEST_OPSET + 1


def frozen(case: Case) -> Case:
    """The case with its parameter inputs as initializers."""
    parameters = {n.input[i] for n in case.model.graph.node for i in PARAMETERS.get(n.op_type, ()) if i < len(n.input)}
    names = [value.name for value in case.model.graph.input]
    kept: list[Any] = []
    for name, value in zip(names, case.inputs, strict=False):
        if name in parameters and isinstance(value, np.ndarray | np.generic) and np.asarray(value).dtype.kind != "O":
            case.model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        else:
            kept.append(value)
    given = {tensor.name for tensor in case.model.graph.initializer}
    inputs = [value for value in case.model.graph.input if value.name not in given]
    del case.model.graph.input[:]
    case.model.graph.input.extend(inputs)
    return Case(case.name, case.model, kept, case.outputs, case.rtol, case.atol)
