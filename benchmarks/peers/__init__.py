"""The systems that are compared. A peer is one small function in one of the modules here:

    @peer("int8", files=("onnx",), needs=("openvino",), limit="onednn")
    def openvino_int8(task: Task) -> Runner: ...

It prepares what `task` asks for and says how to run it. `needs` are the packages it imports: where they are not installed, in this Python
nor in one of the environments that `setup.sh` makes, the peer is skipped and the result says so. A peer runs in its own process, which
has numpy, the task's files, and nothing of qcc unless the peer imports it.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
MODULES = ("qcc", "openvino", "onnxruntime", "pytorch", "litert", "iree", "llamacpp", "deepsparse", "csr")
STREAMS = ("w8", "w4", "w3", "w2", "ternary", "binary", "codebook16", "nf4", "fp4", "sparse")
"""Float activations and compressed weights; wN: N bits."""
PRECISIONS = ("int8", "fp32", "bf16", *STREAMS, "sparse_fp32")
PRUNED_LAYERS = tuple(f"fc4096_{percent}zeros" for percent in (60, 70, 80, 90, 95))  # of sparse_fp32
PRUNED = tuple(f"gemv11008_{percent}zeros" for percent in (50, 70, 90))
ENVIRONMENTS = Path(os.environ.get("QCC_BENCH_ENVIRONMENTS", ROOT / "build" / "bench-environments"))
CPUS = {  # --cpu -> the greatest instruction set for oneDNN (OpenVINO, PyTorch) and for ATen
    "native": None,
    "icelake-server": ("AVX512_CORE_VNNI", "avx512"),
    "x86-64-v3": ("AVX2", "avx2"),
}


@dataclass(frozen=True)
class Task:
    """One measurement: model (`NAME` or `NAME@BATCH`), threads, instruction-set limit (of CPUS), files by kind, a folder for more."""

    model: str
    threads: int
    cpu: str
    files: dict[str, str]
    folder: str

    def file(self, kind: str) -> Path:
        return Path(self.files[kind])

    def made(self, kind: str, make: Callable[[Path], None]) -> Path:
        """A file of the peer's own, made once: `make(path)` writes it."""
        path = Path(self.folder) / f"{self.model}.{kind}"
        if not path.exists():
            partial = path.with_name(f"{path.stem}.{os.getpid()}{path.suffix}")
            make(partial)
            partial.replace(path)
        return path

    def calibration(self) -> list[np.ndarray]:
        """Inputs that are not those of the test."""
        with np.load(self.file("io.npz")) as held:
            return list(held["calibration"])


@dataclass
class Runner:
    """`run(x)` runs once and returns the first output, in the system's own form; `output` makes numpy of that (outside of the time).

    `about` says what runs: versions, and how it was seen that the precision asked for really is computed. `layers(x, runs)` gives
    {layer: median microseconds}. `prepare(x)` is called once with the input of the timed runs, whose result `run` then gets.
    """

    run: Callable[[Any], Any]
    about: dict[str, Any] = field(default_factory=dict)
    output: Callable[[Any], np.ndarray] = np.asarray
    prepare: Callable[[np.ndarray], Any] = lambda x: x
    layers: Callable[[Any, int], dict[str, float]] | None = None


@dataclass(frozen=True)
class Peer:
    name: str
    precision: str
    module: str
    files: tuple[str, ...]  # kinds of `benchmarks.files` it reads
    needs: tuple[str, ...]
    limit: str  # what --cpu means to it: qcc, onednn, or none (it cannot be told)
    only: tuple[str, ...]  # models it is for; empty: all

    def load(self) -> Callable[[Task], Runner]:
        return getattr(importlib.import_module(f"benchmarks.peers.{self.module}"), self.name)


PEERS: dict[str, Peer] = {}


def peer(
    precision: str, *, files: tuple[str, ...], needs: tuple[str, ...], limit: str = "none", only: tuple[str, ...] = ()
) -> Callable[[Callable[[Task], Runner]], Callable[[Task], Runner]]:
    """Register a function as a peer."""

    def register(function: Callable[[Task], Runner]) -> Callable[[Task], Runner]:
        name = function.__name__
        PEERS[name] = Peer(name, precision, function.__module__.rpartition(".")[2], files, needs, limit, only)
        return function

    return register


def all_peers() -> dict[str, Peer]:
    for module in MODULES:
        importlib.import_module(f"benchmarks.peers.{module}")
    return PEERS


@cache
def python_with(needs: tuple[str, ...]) -> str | None:
    """A Python that has the packages: one of the environments, else this one; None where there is none."""
    code = f"import importlib.util, json; print(json.dumps(all(importlib.util.find_spec(n) for n in {list(needs)!r})))"
    places = [ENVIRONMENTS / name / "bin" / "python" for name in ("peers", "litert", "deepsparse")]
    for python in [*filter(Path.exists, places), Path(sys.executable)]:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=ROOT / "build")
        if done.returncode == 0 and json.loads(done.stdout):
            return str(python)
    return None


def reason_to_skip(one: Peer, cpu: str, flags: str) -> str | None:
    """Why a peer cannot take part, in words; None where it can."""
    if python_with(one.needs) is None:
        return f"{' and '.join(one.needs)} not installed; run benchmarks/setup.sh"
    if one.limit == "none" and cpu == "x86-64-v3" and "avx512" in flags:
        return "cannot be told to use AVX2 only"
    if one.limit == "none" and cpu != "native" and "amx_int8" in flags and one.module not in ("onnxruntime", "litert"):
        return "cannot be told to leave AMX unused"
    return None
