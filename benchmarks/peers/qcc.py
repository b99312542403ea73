"""This project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from . import Runner, Task, peer


@peer("int8", files=("onnx",), needs=("qcc",), limit="qcc")
def qcc_int8(task: Task) -> Runner:
    """On the same QDQ file as OpenVINO and ONNX Runtime."""
    return compiled(task, task.file("onnx"))


@peer("fp32", files=("float.onnx",), needs=("qcc",), limit="qcc")
def qcc_fp32(task: Task) -> Runner:
    return compiled(task, task.file("float.onnx"))


@peer("bf16", files=("float.onnx",), needs=("qcc",), limit="qcc")
def qcc_bf16(task: Task) -> Runner:
    """The float network with products of bfloat16, as OpenVINO and PyTorch are asked to compute it."""
    return compiled(task, task.file("float.onnx"), float_precision="bf16")


@peer("w8", files=("w8.onnx",), needs=("qcc",), limit="qcc")
def qcc_w8(task: Task) -> Runner:
    """Weights of 8 bits per channel, as OpenVINO reads them."""
    return compiled(task, task.file("w8.onnx"))


@peer("w4", files=("w4.onnx",), needs=("qcc",), limit="qcc")
def qcc_w4(task: Task) -> Runner:
    """Weights of 4 bits in groups of 128, on the same file as ONNX Runtime."""
    return compiled(task, task.file("w4.onnx"))


def compiled(task: Task, file: Path, **options: Any) -> Runner:
    import qcc

    executable = qcc.compile(file, target=qcc.CpuTarget(task.cpu), threads=task.threads, **options)

    def layers(x: Any, runs: int) -> dict[str, float]:
        profiles = [executable.profile([x], runs=1).layer_us for _ in range(runs)]
        return {layer or "(no name)": float(np.median([profile[layer] for profile in profiles])) for layer in profiles[0]}

    codelets: dict[str, int] = {}
    for step in executable.info["steps"]:
        kind = step["codelet"].rpartition("_")[0] or step["codelet"]
        codelets[kind] = codelets.get(kind, 0) + 1
    about = {
        "version": qcc.__version__,
        "checked by": "the codelets of the artefact's steps; layers equal the integer reference bit for bit (test.e2e.accuracy)",
        "kernels": codelets,
        "cpu": executable.info["cpu"],
        "cpu features": executable.info["cpu_features"],
    }
    return Runner(executable, about, layers=layers)
