"""A model compiled for the accelerator, in this process: numpy in, numpy out; torch in, torch out.

There is no board here, so calling it simulates the accelerator; host segments run on this CPU. Any number of threads may call one
executable: each call has an accelerator of its own.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qcc.dialects.errors import QccError
from qcc.runtime.cpu.executable import TensorSpec
from qcc.runtime.fpga import artifact, cycle, functional, rtl_simulation
from qcc.runtime.fpga.machine import Machine
from qcc.runtime.fpga.package import Host, Package, Segment
from qcc.runtime.fpga.trace import Trace, add_activations

Array = np.ndarray[Any, Any]
Progress = Callable[[str, float], None]
LEVELS = ("functional", "cycle", "rtl")


class Simulation(NamedTuple):
    """What `simulate` returns."""

    outputs: tuple[Any, ...]
    trace: Trace


class FpgaExecutable:
    """A compiled model. `inputs` and `outputs` say names, shapes, dtypes and quantization; `report` what was chosen per layer."""

    def __init__(self, package: Package, *, threads: int | None = None) -> None:
        self.package = package
        self.info = package.info
        self.inputs = tuple(TensorSpec(e["name"], tuple(e["shape"]), e["dtype"], e.get("quantization")) for e in package.info["inputs"])
        self.outputs = tuple(TensorSpec(e["name"], tuple(e["shape"]), e["dtype"], e.get("quantization")) for e in package.info["outputs"])
        self.threads = threads
        self._hosts: dict[str, Callable[[list[Array]], list[Array]]] = {}
        self._lock = threading.Lock()
        self._matrices: dict[Any, Any] = {}
        self._weights = np.frombuffer(package.weights, np.uint8).reshape(-1, package.configuration.word_bytes)

    def __call__(self, *values: Any) -> Any:
        """Run once, by functional simulation. One array, or a tuple where there are several outputs. Raises QccError for wrong inputs."""
        outputs = self.simulate(*values, level="functional").outputs
        return outputs[0] if len(outputs) == 1 else outputs

    def simulate(self, *values: Any, level: str = "functional", progress: Progress = lambda text, fraction: None) -> Simulation:
        """Outputs and trace. `functional` computes, `cycle` also predicts when everything happens, `rtl` runs the hardware's description;
        all give the same outputs. `progress` hears what `rtl` is doing and how much of it is done (0 to 1)."""
        if level not in LEVELS:
            raise QccError(f"simulation level is '{level}', expected one of {', '.join(LEVELS)}")
        arrays, torch = self._arrays(values)
        trace = Trace(level, float(self.info.get("clock_mhz", 100.0)))
        held: dict[int, Array] = dict(enumerate(arrays))
        for step in self.package.steps:
            inputs = [held[i] for i in step.inputs]
            segment = self.package.segments.get(step.name)
            results = self._host(step.name)(inputs) if segment is None else self._accelerate(segment, inputs, level, trace, progress)
            for index, dtype, result in zip(step.outputs, step.dtypes, results, strict=True):
                held[index] = result.astype(np.dtype(dtype), copy=False)
        outputs = [held[i] for i in self.package.results]
        return Simulation(tuple(outputs if torch is None else [torch.from_numpy(np.ascontiguousarray(y)) for y in outputs]), trace)

    def predict(self) -> Trace:
        """The cycle-level trace without outputs. Cycles do not depend on the inputs, so nothing is computed; coded activations count
        as if nothing in them were 0."""
        trace = Trace("cycle", float(self.info.get("clock_mhz", 100.0)))
        for step in self.package.steps:
            if (segment := self.package.segments.get(step.name)) is not None:
                _add_timing(trace, segment, cycle.predict(self.package.configuration, self._dram(), segment.words))
        return trace

    def _dram(self) -> Array:
        dram = np.zeros((self.package.dram_words, self.package.configuration.word_bytes), np.uint8)
        dram[self.package.dram_words - len(self._weights) :] = self._weights
        return dram

    def _accelerate(self, segment: Segment, inputs: list[Array], level: str, trace: Trace, progress: Progress) -> list[Array]:
        dram = self._dram()
        for port in segment.inputs:
            port.write(dram, inputs[port.value])
        machine = Machine(self.package.configuration, dram, self._matrices)
        if level == "cycle":
            _add_timing(trace, segment, cycle.run(machine, segment.words))
        elif level == "rtl":
            _add_timing(trace, segment, rtl_simulation.run(machine, segment.words, progress=progress))
        else:
            moved = functional.run(machine, segment.words)
            trace.instructions += len(segment.words)
            trace.read_bytes += moved.read_bytes
            trace.write_bytes += moved.write_bytes
            trace.instruction_bytes += moved.instruction_bytes
            add_activations(trace.activations, moved.activations)
        return [port.read(dram) for port in segment.outputs]

    def _host(self, name: str) -> Callable[[list[Array]], list[Array]]:
        with self._lock:
            if name not in self._hosts:
                self._hosts[name] = _host_segment(self.package.hosts[name], self.threads)
            return self._hosts[name]

    def _arrays(self, values: Sequence[Any]) -> tuple[list[Array], Any]:
        if len(values) != len(self.inputs):
            names = ", ".join(f"{s.name} {list(s.shape)} {s.dtype}" for s in self.inputs)
            raise QccError(f"{len(values)} inputs given, expected {len(self.inputs)}: {names}")
        torch = sys.modules.get("torch")  # never imported here: without it no value can be a tensor
        as_torch = torch is not None and len(values) > 0 and isinstance(values[0], torch.Tensor)
        arrays: list[Array] = []
        for spec, value in zip(self.inputs, values, strict=True):
            if torch is not None and isinstance(value, torch.Tensor):
                value = value.detach().cpu().numpy()
            if not isinstance(value, np.ndarray) or value.dtype != spec.numpy or value.shape != spec.shape:
                found = (
                    f"shape {list(value.shape)} and dtype {value.dtype}"
                    if isinstance(value, np.ndarray)
                    else f"type {type(value).__name__}"
                )
                raise QccError(
                    f"input '{spec.name}' has {found}, expected shape {list(spec.shape)} and dtype {spec.dtype}; "
                    "the shape was fixed when the model was compiled"
                )
            arrays.append(value)
        return arrays, torch if as_torch else None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the accelerator file. Raises QccError where that cannot be."""
        artifact.save(self.package, Path(path))

    @property
    def report(self) -> dict[str, Any]:
        """What was chosen per layer, which ran where and why, and the predicted cycles."""
        return self.info.get("report", {"layers": [], "remarks": []})

    def benchmark(self, *_: Any, **__: Any) -> Any:
        """Not for simulated hardware. Raises QccError."""
        raise QccError("an accelerator file has no latency without a board; use --simulate cycle for its cycles")

    def profile(self, inputs: Sequence[Any]) -> str:
        """Cycles per layer as text."""
        return self.simulate(*inputs, level="cycle").trace.summary()


def _add_timing(trace: Trace, segment: Segment, timing: cycle.Timing) -> None:
    """Append one segment's run behind what `trace` holds."""
    offset = trace.cycles or 0
    rows = cycle.layer_rows(timing, segment.layers, segment.words)
    trace.cycles = offset + timing.cycles
    trace.layers += [{**row, "start": row["start"] + offset, "end": row["end"] + offset} for row in rows]
    trace.instructions += len(segment.words)
    trace.read_bytes += timing.read_bytes
    trace.write_bytes += timing.write_bytes
    trace.instruction_bytes += timing.instruction_bytes
    for row in rows:
        add_activations(trace.activations, row["activations"])
    for unit, cycles in timing.busy.items():
        trace.busy[unit] += cycles


def _host_segment(host: Host, threads: int | None) -> Callable[[list[Array]], list[Array]]:
    """What runs a host segment: its CPU artefact, or the reference for one stored as text."""
    return _cpu_segment(host.data, threads) if host.kind == "elf" else _reference_segment(host.data.decode())


def _cpu_segment(data: bytes, threads: int | None) -> Callable[[list[Array]], list[Array]]:
    from qcc.runtime.cpu import executable

    with tempfile.TemporaryDirectory(prefix="qcc-") as folder:
        path = Path(folder) / "host.so"
        path.write_bytes(data)
        path.chmod(0o755)
        loaded = executable.load_artifact(path, threads=threads)

    def run(inputs: list[Array]) -> list[Array]:
        found = loaded(*inputs)
        return list(found) if isinstance(found, tuple) else [found]

    return run


def _reference_segment(text: str) -> Callable[[list[Array]], list[Array]]:
    from qcc.dialects.mlir import create_context, parse_module
    from qcc.runtime.reference import interpreter

    module = parse_module(text, create_context(), name="host segment")
    lock = threading.Lock()

    def run(inputs: list[Array]) -> list[Array]:
        with lock:
            return interpreter.run(module, inputs)

    return run
