"""The systems that are compared: one function each, which returns how to run a model file.

A peer takes (path of the int8 QDQ file, path of the float file, threads) and gives a `Runner`. Add one by adding a function with `@peer`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass
class Runner:
    """`run(x)` gives the first output. `layers(x, runs)` gives {layer name: median microseconds}; `about` is evidence of what runs."""

    run: Callable[[np.ndarray], np.ndarray]
    layers: Callable[[np.ndarray, int], dict[str, float]] | None = None
    about: dict[str, Any] = field(default_factory=dict)


PEERS: dict[str, Callable[[Path, Path, int], Runner]] = {}


def peer(function: Callable[[Path, Path, int], Runner]) -> Callable[[Path, Path, int], Runner]:
    PEERS[function.__name__] = function
    return function


@peer
def qcc_int8(int8: Path, float32: Path, threads: int) -> Runner:
    """This project, on the same QDQ file as ONNX Runtime."""
    import qcc

    executable = qcc.compile(int8, threads=threads)

    def layers(x: np.ndarray, runs: int) -> dict[str, float]:
        profiles = [executable.profile([x], runs=1).layer_us for _ in range(runs)]
        return {layer or "(no name)": float(np.median([profile[layer] for profile in profiles])) for layer in profiles[0]}

    return Runner(lambda x: executable(x), layers, {"version": qcc.__version__})


@peer
def onnxruntime_int8(int8: Path, float32: Path, threads: int) -> Runner:
    """ONNX Runtime's CPU provider on the QDQ file, all graph optimizations; `about` counts the quantized kernels it chose."""
    return onnxruntime_session(int8, threads)


@peer
def onnxruntime_float(int8: Path, float32: Path, threads: int) -> Runner:
    """ONNX Runtime in float: the reference of every error figure."""
    return onnxruntime_session(float32, threads)


def onnxruntime_session(file: Path, threads: int) -> Runner:
    import onnxruntime

    def session(profile: Path | None = None) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    plain = session()
    name = plain.get_inputs()[0].name

    def layers(x: np.ndarray, runs: int) -> dict[str, float]:
        times: dict[str, list[float]] = {}
        for event in profile_events(session, name, x, runs):
            times.setdefault(layer_of(event["name"]), []).append(event["dur"])
        return {layer: float(np.median(values)) for layer, values in times.items()}

    def kernels(x: np.ndarray) -> dict[str, int]:
        counts: dict[str, int] = {}
        for event in profile_events(session, name, x, 1):
            counts[event["args"]["op_name"]] = counts.get(event["args"]["op_name"], 0) + 1
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    shape = plain.get_inputs()[0].shape
    return Runner(
        lambda x: plain.run(None, {name: x})[0],
        layers,
        {"version": onnxruntime.__version__, "kernels": kernels(np.zeros(shape, np.float32))},
    )


def profile_events(session: Callable[[Path], Any], name: str, x: np.ndarray, runs: int) -> list[dict[str, Any]]:
    """The operator events of ONNX Runtime's own profiler; `dur` in microseconds. The first run warms up and is left out."""
    import json
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        profiled = session(Path(folder) / "profile")
        for _ in range(runs + 1):
            profiled.run(None, {name: x})
        events = json.loads(Path(profiled.end_profiling()).read_text())
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    return nodes[len(nodes) // (runs + 1) :]


def layer_of(event: str) -> str:
    """The source model's node name in the name of a profile event."""
    return re.sub(r"(_token_\d+)?(_kernel_time)?$", "", event)
