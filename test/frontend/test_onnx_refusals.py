"""Operators whose conversion is wrong are refused with their layer and a remedy; their other forms pass the check."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper

from qcc.compiler.frontend.onnx import import_model
from qcc.dialects.errors import QccError
from test.frontend.onnx_models import FLOAT, model

Constants = dict[str, np.ndarray]
CORNERS = {"coordinate_transformation_mode": "align_corners"}


def _refusal(operator: str, inputs: list[str], given: dict[str, Any], constants: Constants, shape: list[int], kind: int, opset: int) -> str:
    """The error of a model of one node called 'layer', or nothing where it is imported."""
    node = helper.make_node(operator, inputs, ["y"], name="layer", **given)
    result = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in constants.items()} if operator == "CastLike" else {}
    source = model([node], {"x": (kind, shape)}, ["y"], constants, opset, result.get("like", kind))
    try:
        import_model(source)
    except QccError as error:
        assert error.layer == "layer"
        return error.message
    return ""


def _scales(scale: float) -> Constants:
    return {"s": np.array([1, 1, scale, scale], np.float32)}


@pytest.mark.parametrize(
    ("operator", "inputs", "given", "constants", "shape", "kind", "opset", "found"),
    [
        ("GridSample", ["x", "g"], {"mode": "nearest"}, {"g": np.zeros((1, 2, 2, 2), np.float32)}, [1, 1, 3, 3], FLOAT, 20, "'nearest'"),
        ("GridSample", ["x", "g"], {}, {"g": np.full((1, 2, 2, 2), -5, np.float32)}, [1, 1, 3, 3], FLOAT, 20, "reaches 5"),
        ("GridSample", ["x", "g"], {}, {"g": np.ones((1, 2, 2, 2), np.float32)}, [1, 1, 3, 3], FLOAT, 20, ""),
        ("Resize", ["x", "", "s"], {"mode": "linear", **CORNERS}, _scales(0.6), [1, 1, 4, 5], FLOAT, 21, "scale 0.6 of axis 2"),
        ("Resize", ["x", "", "s"], {"mode": "cubic", **CORNERS}, _scales(1.3), [1, 1, 4, 5], FLOAT, 21, "scale 1.3 of axis 2"),
        ("Resize", ["x", "", "s"], {"mode": "linear", **CORNERS}, _scales(0.5), [1, 1, 4, 8], FLOAT, 21, ""),
        ("Resize", ["x", "", "s"], {"mode": "linear"}, _scales(0.6), [1, 1, 4, 5], FLOAT, 21, ""),
        ("BitShift", ["x", "n"], {"direction": "LEFT"}, {"n": np.array([32], np.uint32)}, [1], onnx.TensorProto.UINT32, 21, "count of 32"),
        ("BitShift", ["x", "n"], {"direction": "LEFT"}, {"n": np.array([31], np.uint32)}, [1], onnx.TensorProto.UINT32, 21, ""),
        ("CastLike", ["x", "like"], {}, {"like": np.zeros(1, ml_dtypes.int2)}, [2], FLOAT, 25, "int2 from floats"),
        ("CastLike", ["x", "like"], {}, {"like": np.zeros(1, np.int8)}, [2], FLOAT, 25, ""),
    ],
)
def test_only_wrong_forms_are_refused(
    operator: str, inputs: list[str], given: dict[str, Any], constants: Constants, shape: list[int], kind: int, opset: int, found: str
) -> None:
    message = _refusal(operator, inputs, given, constants, shape, kind, opset)
    if not found:
        assert message == ""
        return
    assert message.startswith(f"onnx.{operator} with ")
    assert found in message
    assert "export the model with" in message
