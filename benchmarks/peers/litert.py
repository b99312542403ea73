"""LiteRT (TensorFlow Lite) with XNNPACK. The interpreter's list of operators and tensor types says what runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from . import Runner, Task, peer

NEEDS = ("ai_edge_litert",)
TRANSFORMERS = ("encoder", "encoder_base")


@peer("int8", files=("io.npz",), needs=NEEDS)
def litert_int8(task: Task) -> Runner:
    """Static 8-bit quantization by ai-edge-quantizer."""
    return session(task, task.made("int8.tflite", lambda path: quantize(task, path, dynamic=False)))


@peer("int8", files=("io.npz",), needs=NEEDS, only=TRANSFORMERS)
def litert_dynamic(task: Task) -> Runner:
    """8-bit weights, activations quantized while running."""
    return session(task, task.made("dynamic.tflite", lambda path: quantize(task, path, dynamic=True)))


@peer("fp32", files=("io.npz",), needs=NEEDS)
def litert_fp32(task: Task) -> Runner:
    return session(task, float_model(task))


def float_model(task: Task) -> Path:
    def make(path: Path) -> None:
        import litert_torch
        import torch

        from test.e2e import models

        litert_torch.convert(models.build(task.model), (torch.from_numpy(task.calibration()[0]),)).export(str(path))

    return task.made("float.tflite", make)


def quantize(task: Task, path: Path, *, dynamic: bool) -> None:
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    source = str(float_model(task))
    made = quantizer.Quantizer(source)
    made.load_quantization_recipe(recipe.dynamic_wi8_afp32() if dynamic else recipe.static_wi8_ai8())
    if dynamic:
        result = made.quantize()
    else:
        signatures = Interpreter(source).get_signature_list()
        (signature,) = signatures
        (name,) = signatures[signature]["inputs"]
        result = made.quantize(made.calibrate({signature: [{name: x} for x in task.calibration()]}))
    result.export_model(str(path), overwrite=True)


def session(task: Task, file: Path) -> Runner:
    import importlib.metadata

    from ai_edge_litert.interpreter import Interpreter

    interpreter: Any = Interpreter(str(file), num_threads=task.threads)
    interpreter.allocate_tensors()
    (into,), (out,) = interpreter.get_input_details(), interpreter.get_output_details()

    def prepare(x: np.ndarray) -> np.ndarray:
        if np.issubdtype(into["dtype"], np.integer):
            scale, zero = into["quantization"]
            x = np.clip(np.round(x / scale) + zero, -128, 127).astype(into["dtype"])
        interpreter.set_tensor(into["index"], x)
        return x

    def run(x: np.ndarray) -> Any:
        interpreter.invoke()

    def output(_: Any) -> np.ndarray:
        y = interpreter.get_tensor(out["index"])
        if np.issubdtype(out["dtype"], np.integer):
            scale, zero = out["quantization"]
            return (y.astype(np.float32) - zero) * scale
        return y

    return Runner(run, {"version": importlib.metadata.version("ai-edge-litert"), **evidence(interpreter)}, output=output, prepare=prepare)


def evidence(interpreter: Any) -> dict[str, Any]:
    operators: dict[str, int] = {}
    for operator in interpreter._get_ops_details():
        operators[operator["op_name"]] = operators.get(operator["op_name"], 0) + 1
    tensors: dict[str, int] = {}
    for tensor in interpreter.get_tensor_details():
        name = np.dtype(tensor["dtype"]).name
        tensors[name] = tensors.get(name, 0) + 1
    return {
        "checked by": "operators (DELEGATE is XNNPACK) and tensor types of the interpreter",
        "kernels": dict(sorted(operators.items(), key=lambda item: -item[1])),
        "tensor types": tensors,
    }
