"""This project."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import PRUNED, PRUNED_LAYERS, ROOT, Runner, Task, peer

NEEDS = ("qcc", "torch")


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
    return kept(task, "w8", lambda: task.file("w8.onnx"))


@peer("w4", files=("w4.onnx",), needs=("qcc",), limit="qcc")
def qcc_w4(task: Task) -> Runner:
    """Weights of 4 bits in groups of 128, on the same file as ONNX Runtime."""
    return kept(task, "w4", lambda: task.file("w4.onnx"))


@peer("w3", files=("io.npz",), needs=NEEDS, limit="qcc")
def qcc_w3(task: Task) -> Runner:
    return stream(task, "int3")


@peer("w2", files=("io.npz",), needs=NEEDS, limit="qcc")
def qcc_w2(task: Task) -> Runner:
    """2 bits in groups of 128, as ONNX Runtime has them."""
    return stream(task, "int2_g128")


@peer("ternary", files=("io.npz",), needs=NEEDS, limit="qcc")
def qcc_ternary(task: Task) -> Runner:
    return stream(task, "ternary")


@peer("binary", files=("io.npz",), needs=NEEDS, limit="qcc")
def qcc_binary(task: Task) -> Runner:
    return stream(task, "binary")


@peer("codebook16", files=("io.npz",), needs=NEEDS, limit="qcc")
def qcc_codebook16(task: Task) -> Runner:
    return stream(task, "codebook16")


@peer("nf4", files=("io.npz",), needs=NEEDS, limit="qcc")
def qcc_nf4(task: Task) -> Runner:
    """NF4 in groups of 64."""
    return stream(task, "nf4_g64")


@peer("fp4", files=("io.npz",), needs=NEEDS, limit="qcc")
def qcc_fp4(task: Task) -> Runner:
    """E2M1 in groups of 32."""
    return stream(task, "fp4_g32")


@peer("sparse", files=("io.npz",), needs=NEEDS, limit="qcc", only=PRUNED)
def qcc_sparse_w8(task: Task) -> Runner:
    return stream(task, "int8")


@peer("sparse", files=("io.npz",), needs=NEEDS, limit="qcc", only=PRUNED)
def qcc_sparse_w4(task: Task) -> Runner:
    return stream(task, "int4")


@peer("sparse_fp32", files=("float.onnx",), needs=("qcc",), limit="qcc", only=PRUNED_LAYERS)
def qcc_sparse_fp32(task: Task) -> Runner:
    """The storage form that the compiler chooses."""
    return compiled(task, task.file("float.onnx"))


@peer("sparse_fp32", files=("float.onnx",), needs=("qcc",), limit="qcc", only=PRUNED_LAYERS)
def qcc_dense_fp32(task: Task) -> Runner:
    """The same with zeros stored and multiplied."""
    return compiled(task, task.file("float.onnx"), storage="dense")


def stream(task: Task, kind: str) -> Runner:
    """The chain with weights rounded to a format of `benchmarks.stream_formats`."""

    def module() -> Any:
        from benchmarks import files, stream_formats

        batch = int(task.model.partition("@")[2] or 1)
        return stream_formats.chain(files.linear_layers(task.model), stream_formats.FORMATS[kind], batch)[0]

    return kept(task, kind, module)


def kept(task: Task, kind: str, model: Callable[[], Any]) -> Runner:
    """The compiled chain, which stays for the other thread count of the same compiler: compiling reads 271 million weights."""
    import qcc

    def make(path: Path) -> None:
        qcc.compile(model(), target=qcc.CpuTarget(task.cpu), threads=1).save(path)

    return loaded(qcc.load(task.made(f"{kind}.{task.cpu}.{compiled_by()}.so", make), threads=task.threads))


def compiled_by() -> str:
    """A hash of the sources that decide what an artefact is."""
    rooms = ("compiler", "dialects", "passes", "runtime")
    commands = (["git", "rev-parse", *(f"HEAD:{room}" for room in rooms)], ["git", "diff", "HEAD", "--", *rooms])
    found = b"".join(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout for command in commands)
    return hashlib.sha256(found).hexdigest()[:12]


def compiled(task: Task, file: Path, **options: Any) -> Runner:
    import qcc

    return loaded(qcc.compile(file, target=qcc.CpuTarget(task.cpu), threads=task.threads, **options))


def loaded(executable: Any) -> Runner:
    import qcc

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
    if linear := [row for row in executable.report["layers"] if row["op"] == "linear" and "stored_format" in row["facts"]]:
        about |= {"weight bytes": sum(row["weight_bytes"] for row in linear), "stored": linear[0]["facts"]["stored_format"]}
    return Runner(executable, about, layers=layers)
