"""ONNX Runtime's CPU provider, all graph optimizations. What really runs is counted from its own profile."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import Runner, Task, peer

NEEDS = ("onnxruntime",)
TRANSFORMERS = ("encoder", "encoder_base")


@peer("int8", files=("onnx",), needs=NEEDS)
def onnxruntime_int8(task: Task) -> Runner:
    """On the same QDQ file (u8 activations, s8 weights) as qcc and OpenVINO."""
    return session(task, task.file("onnx"))


@peer("int8", files=("float.onnx", "io.npz"), needs=("onnxruntime", "onnx"))
def onnxruntime_s8s8(task: Task) -> Runner:
    """Quantized with signed activations."""
    return session(task, task.made("s8s8.onnx", lambda path: quantize_signed(task, path)))


@peer("int8", files=("float.onnx",), needs=("onnxruntime", "onnx"), only=TRANSFORMERS)
def onnxruntime_dynamic(task: Task) -> Runner:
    """Activations quantized while running."""
    return session(task, task.made("dynamic.onnx", lambda path: quantize_dynamic(task, path)))


@peer("fp32", files=("float.onnx",), needs=NEEDS)
def onnxruntime_fp32(task: Task) -> Runner:
    return session(task, task.file("float.onnx"))


@peer("w8", files=("nbits8.onnx",), needs=NEEDS)
def onnxruntime_w8(task: Task) -> Runner:
    """MatMulNBits, 8 bits in groups of 128, activations quantized on the fly (accuracy level 4)."""
    return session(task, task.file("nbits8.onnx"))


@peer("w4", files=("w4.onnx",), needs=NEEDS)
def onnxruntime_w4(task: Task) -> Runner:
    """MatMulNBits, 4 bits in groups of 128, activations quantized on the fly (accuracy level 4)."""
    return session(task, task.file("w4.onnx"))


@peer("w4", files=("nbits4-32.onnx",), needs=NEEDS)
def onnxruntime_w4_32(task: Task) -> Runner:
    """The same in groups of 32."""
    return session(task, task.file("nbits4-32.onnx"))


@peer("w2", files=("nbits2.onnx",), needs=NEEDS)
def onnxruntime_w2(task: Task) -> Runner:
    """MatMulNBits, 2 bits in groups of 128."""
    return session(task, task.file("nbits2.onnx"))


def quantize_signed(task: Task, path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        left = task.calibration()

        def get_next(self) -> Any:
            return {"x": self.left.pop(0)} if self.left else None

    with tempfile.TemporaryDirectory() as folder:
        prepared = f"{folder}/prepared.onnx"
        quant_pre_process(str(task.file("float.onnx")), prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            str(path),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=["MatMul", "Gemm", "Add"] if task.model.partition("@")[0] in TRANSFORMERS else None,
        )


def quantize_dynamic(task: Task, path: Path) -> None:
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as dynamic

    dynamic(str(task.file("float.onnx")), str(path), per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])


def session(task: Task, file: Path) -> Runner:
    import onnxruntime

    def make(profile: Path | None = None) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = task.threads, 1, 3
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    plain = make()
    name, shape = plain.get_inputs()[0].name, plain.get_inputs()[0].shape

    def layers(x: np.ndarray, runs: int) -> dict[str, float]:
        times: dict[str, list[float]] = {}
        for event in profile_events(make, name, x, runs):
            times.setdefault(layer_of(event["name"]), []).append(event["dur"])
        return {layer: float(np.median(values)) for layer, values in times.items()}

    counts: dict[str, int] = {}
    for event in profile_events(make, name, np.zeros(shape, np.float32), 1):
        counts[event["args"]["op_name"]] = counts.get(event["args"]["op_name"], 0) + 1
    about = {
        "version": onnxruntime.__version__,
        "checked by": "operators in its own profile of a run",
        "kernels": dict(sorted(counts.items(), key=lambda item: -item[1])),
    }
    return Runner(lambda x: plain.run(None, {name: x})[0], about, layers=layers)


def profile_events(make: Callable[[Path], Any], name: str, x: np.ndarray, runs: int) -> list[dict[str, Any]]:
    """The operator events of ONNX Runtime's own profiler; `dur` in microseconds. The first run warms up and is left out."""
    with tempfile.TemporaryDirectory() as folder:
        profiled = make(Path(folder) / "profile")
        for _ in range(runs + 1):
            profiled.run(None, {name: x})
        events = json.loads(Path(profiled.end_profiling()).read_text())
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    return nodes[len(nodes) // (runs + 1) :]


def layer_of(event: str) -> str:
    """The source model's node name in the name of a profile event."""
    return re.sub(r"(_token_\d+)?(_kernel_time)?$", "", event)
