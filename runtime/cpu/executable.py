"""A compiled model in this process: numpy in, numpy out; torch in, torch out.

The same class runs a just-in-time compiled program and a loaded artefact. Any number of Python threads may call one executable: each
call takes a context (arena and scratch memory) of its own from a pool. A model that keeps state has one context, which one thread at a
time may use. ctypes releases the interpreter's lock while a model runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import math
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qcc.dialects.errors import QccError
from qcc.runtime.atomic_file import atomic_write
from qcc.runtime.cpu import artifact_file, loader
from qcc.runtime.cpu.measurement import Benchmark, Profile

Array = np.ndarray[Any, Any]
DECODE_STREAM = 1  # enum qcc_decode of the runtime's header


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. `dtype` is numpy's name of the container; `quantization` is None for plain numbers, else
    bits, signed, scale and zero_point (lists where per channel, with axis)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: Mapping[str, Any] | None = None

    @functools.cached_property
    def numpy(self) -> np.dtype[Any]:
        """The container as numpy's dtype."""
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, self.dtype, self.dtype))


def random_inputs(specs: Sequence[TensorSpec]) -> list[Array]:
    """Seeded inputs: normal floats, small non-negative integers."""
    rng = np.random.default_rng(0)
    return [(rng.standard_normal(s.shape) if s.numpy.kind not in "iub" else rng.integers(0, 2, s.shape)).astype(s.numpy) for s in specs]


@dataclass
class _Context:
    """One running context of a program and the pointer arrays that its calls use again and again."""

    model: ctypes.c_void_p
    inputs: Any
    outputs: Any


@dataclass(frozen=True)
class Program:
    """Code to run: the library that walks its table and `create(threads, pointer)`, which returns a status and keeps the code alive."""

    library: ctypes.CDLL
    create: Callable[[int, Any], int]


class Executable:
    """A compiled model. `save` is given by the compiler for a just-in-time compiled one and copies the file of a loaded one."""

    def __init__(
        self, program: Program, info: Mapping[str, Any], *, threads: int | None = None, save: Callable[[Path], None] | None = None
    ) -> None:
        self.info: dict[str, Any] = dict(info)
        self.inputs = tuple(_spec(entry) for entry in info["inputs"])
        self.outputs = tuple(_spec(entry) for entry in info["outputs"])
        self.states = tuple(_spec(entry) for entry in info.get("states", ()))  # what is kept from call to call
        self.threads = choose_threads(threads)
        self._program, self._save = program, save
        self._run = program.library.qcc_model_run
        self._idle: deque[_Context] = deque()
        self._all: list[_Context] = []
        self.start_seconds: float | None = None  # of the first context: memory, and decoding of coded weights
        self._expected = [(spec.numpy, spec.shape) for spec in self.inputs]
        self._made = [(spec.shape, spec.numpy) for spec in self.outputs]

    @property
    def runs_here(self) -> bool:
        """Whether this CPU has every feature that the code needs."""
        library = loader.runtime()
        mask = library.qcc_cpu_features()
        here = {library.qcc_cpu_feature_name(bit).decode() for bit in range(63) if mask >> bit & 1}
        return set(self.info.get("cpu_features", ())) <= here

    def prepare(self) -> Executable:
        """Make the first context now: says what is wrong with this CPU before the first call. Raises QccError."""
        self._idle.append(self._new_context())
        return self

    def _new_context(self) -> _Context:
        model = ctypes.c_void_p()
        start = time.perf_counter()
        if self._program.create(self.threads, ctypes.byref(model)):
            raise QccError(self._program.library.qcc_model_error().decode())
        if self.start_seconds is None:
            self.start_seconds = time.perf_counter() - start
        context = _Context(model, (ctypes.c_void_p * max(len(self.inputs), 1))(), (ctypes.c_void_p * max(len(self.outputs), 1))())
        self._all.append(context)
        return context

    def __del__(self) -> None:
        for context in getattr(self, "_all", ()):
            self._program.library.qcc_model_destroy(context.model)

    def __call__(self, *values: Any, **named: Any) -> Any:
        """Run once. One argument per input, in order or by its name; one array, or a tuple of arrays where there are several outputs.

        Tuples and lists among the arguments stand for what they hold, as in the model's own signature. torch tensors in give torch tensors
        out, without copies where they are contiguous and on the CPU. Raises QccError for a wrong number, name, shape or dtype.
        """
        addresses, alive, torch = self._read(self._in_order(values, named) if named or len(values) != len(self._expected) else values)
        outputs = [np.empty(shape, dtype) for shape, dtype in self._made]
        self._run_in_idle(addresses, [_address(y) for y in outputs])
        del alive
        results = outputs if torch is None else [_torch_of(y, spec, torch) for y, spec in zip(outputs, self.outputs, strict=True)]
        return results[0] if len(results) == 1 else tuple(results)

    def _in_order(self, values: Sequence[Any], named: Mapping[str, Any]) -> list[Any]:
        """Arguments as one per input."""
        flat = list(_leaves(values))
        missing = [spec.name for spec in self.inputs[len(flat) :]]
        if named and sorted(named) != sorted(missing):
            raise QccError(f"found inputs named {', '.join(named)}, expected {', '.join(missing) or 'none by name'}")
        return flat + [named[name] for name in missing if named]

    def run_into(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Run once on contiguous arrays of the right shapes and dtypes, which the caller has checked."""
        self._run_in_idle([_address(x) for x in inputs], [_address(y) for y in outputs])

    def _read(self, values: Sequence[Any]) -> tuple[list[int], list[Any], Any]:
        """Addresses of the inputs, checked, what must stay alive behind them, and torch where the first is a tensor of it."""
        if len(values) != len(self._expected):
            raise self._wrong_count(len(values))
        torch = sys.modules.get("torch")  # never imported here: without it no value can be a tensor
        tensor_class: Any = () if torch is None else torch.Tensor
        addresses: list[int] = []
        alive: list[Any] = []
        for i, (value, (dtype, shape)) in enumerate(zip(values, self._expected, strict=True)):
            if isinstance(value, np.ndarray):
                if value.dtype != dtype or value.shape != shape:
                    raise self._wrong_input(i, value)
                value = np.ascontiguousarray(value) if shape and not value.flags.c_contiguous else value
                addresses.append(_address(value))
            elif isinstance(value, tensor_class):
                if value.dtype is not getattr(torch, self.inputs[i].dtype, None) or value.shape != shape:
                    raise self._wrong_input(i, value)
                value = value.contiguous() if value.is_cpu else value.detach().cpu().contiguous()
                addresses.append(value.data_ptr())
            else:
                raise self._wrong_input(i, value)
            alive.append(value)
        return addresses, alive, torch if values and isinstance(values[0], tensor_class) else None

    def _run_in_idle(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Run once on addresses, in a context that no other thread uses."""
        context = self._take()
        try:
            self._run_in(context, inputs, outputs)
        finally:
            self._idle.append(context)

    def _take(self) -> _Context:
        """A context that no other thread uses."""
        try:
            return self._idle.popleft()
        except IndexError:
            if self.states and self._all:
                raise QccError("the model keeps state and is running in another thread; load it once for each thread") from None
            return self._new_context()

    @contextlib.contextmanager
    def _context(self) -> Generator[_Context]:
        context = self._take()
        try:
            yield context
        finally:
            self._idle.append(context)

    @property
    def state(self) -> dict[str, Array]:
        """What the model keeps from call to call: a copy of every array, by name. Assigning such a mapping, or a part, brings them back.

        Raises QccError for names, shapes or dtypes that the model does not have.
        """
        with self._context() as context:
            return {spec.name: view.copy() for spec, view in zip(self.states, self._state_views(context), strict=True)}

    @state.setter
    def state(self, values: Mapping[str, Array]) -> None:
        known = {spec.name: spec for spec in self.states}
        for name, value in values.items():
            if name not in known:
                raise QccError(f"the model keeps no state '{name}', expected one of: {', '.join(known) or 'none'}")
            spec = known[name]
            if value.shape != spec.shape or value.dtype != spec.numpy:
                found = f"shape {list(value.shape)} and dtype {value.dtype}"
                raise QccError(f"state '{name}' has {found}, expected shape {list(spec.shape)} and dtype {spec.dtype}")
        with self._context() as context:
            for spec, view in zip(self.states, self._state_views(context), strict=True):
                if spec.name in values:
                    view[...] = values[spec.name]

    def reset(self) -> None:
        """Make the state what it was before the first call."""
        with self._context() as context:
            if self._program.library.qcc_model_reset(context.model):
                raise QccError(self._program.library.qcc_model_error().decode())

    def _state_views(self, context: _Context) -> list[Array]:
        """The arrays of the states in the memory of `context`."""
        base, views = self._program.library.qcc_model_state(context.model), list[Array]()
        for spec, entry in zip(self.states, self.info.get("states", ()), strict=True):
            size = math.prod(spec.shape) * spec.numpy.itemsize
            memory: Any = (ctypes.c_char * size).from_address(base + entry["offset_bytes"])
            views.append(np.frombuffer(memory, spec.numpy).reshape(spec.shape))
        return views

    @contextlib.contextmanager
    def _keeping_state(self) -> Generator[None]:
        """The state is afterwards what it was."""
        held = self.state if self.states else {}
        try:
            yield
        finally:
            if held:
                self.state = held

    def _run_in(self, context: _Context, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        context.inputs[: len(inputs)] = inputs
        context.outputs[: len(outputs)] = outputs
        if self._run(context.model, context.inputs, context.outputs):
            raise QccError(self._program.library.qcc_model_error().decode())

    def _wrong_count(self, found: int) -> QccError:
        names = ", ".join(f"{s.name} {list(s.shape)} {s.dtype}" for s in self.inputs)
        return QccError(f"{found} inputs given, expected {len(self.inputs)}: {names}")

    def _wrong_input(self, index: int, value: Any) -> QccError:
        spec = self.inputs[index]
        is_array = hasattr(value, "shape") and hasattr(value, "dtype")
        found = f"shape {list(value.shape)} and dtype {value.dtype}" if is_array else f"type {type(value).__name__}"
        words = f"input '{spec.name}' has {found}, expected shape {list(spec.shape)} and dtype {spec.dtype}"
        if is_array and value.shape == spec.shape:
            if isinstance(value, np.ndarray):
                return QccError(f"{words}; convert it with .astype('{spec.dtype}')")
            return QccError(f"{words}; convert it with .to(torch.{spec.dtype})")
        if not is_array:
            return QccError(f"{words}; give a numpy array or a torch tensor")
        return QccError(f"{words}; the shape was fixed when the model was compiled")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the artefact (a shared object, and its C header beside it). Raises QccError where that cannot be."""
        if self._save is None:
            raise QccError("this executable cannot be saved: it was made without a compiler")
        self._save(Path(path))

    @property
    def report(self) -> dict[str, Any]:
        """What was chosen per layer, with predicted times, and measured ones after `profile`."""
        return self.info.get("report", {"layers": [], "remarks": []})

    def benchmark(self, inputs: Sequence[Any] | None = None, *, seconds: float = 3.0, warmup: int = 3) -> Benchmark:
        """Latency of calls from Python over about `seconds`, on `inputs` or random ones."""
        values = list(inputs) if inputs is not None else random_inputs(self.inputs)
        times: list[float] = []
        with self._keeping_state():
            for _ in range(max(warmup, 1)):
                self(*values)
            end = time.perf_counter() + seconds
            while not times or time.perf_counter() < end:
                start = time.perf_counter()
                self(*values)
                times.append(time.perf_counter() - start)
        totals = self.report.get("totals", {})
        bytes_moved = self.info.get("bytes_per_run", 0)
        return Benchmark(tuple(sorted(times)), self.threads, totals.get("macs", 0), bytes_moved, self.start_seconds or 0.0)

    def profile(self, inputs: Sequence[Any] | None = None, *, runs: int = 10) -> Profile:
        """Time per step, the median of `runs`: one run that something interrupts says nothing of the model. Adds `measured_us` and its
        ratio to what was predicted to the layers of `report`."""
        addresses, alive, _ = self._read(inputs if inputs is not None else random_inputs(self.inputs))
        library, outputs = self._program.library, [np.empty(shape, dtype) for shape, dtype in self._made]
        total_ns = np.zeros((1 + runs, len(self.info["steps"])), np.int64)  # up to each run
        with self._keeping_state(), self._context() as context:
            self._run_in(context, addresses, [_address(y) for y in outputs])  # warms up
            library.qcc_model_profile(context.model, 1)
            for so_far in total_ns[1:]:
                self._run_in(context, addresses, [_address(y) for y in outputs])
                library.qcc_model_profile_read(context.model, so_far.ctypes.data)
            library.qcc_model_profile(context.model, 0)
        del alive
        times_us = np.median(np.diff(total_ns, axis=0), axis=0) / 1000
        profile = Profile.of(self.info["steps"], [float(us) for us in times_us], self.threads)
        self.report["measured_threads"] = self.threads
        left = dict(profile.layer_us)
        for row in self.report["layers"]:  # the first row of a name has all of its steps, as in what was predicted
            row["measured_us"] = left.pop(row["name"], None)
            predicted = row.get("predicted_us" if self.threads == 1 else "predicted_all_threads_us")
            row["measured_over_predicted"] = row["measured_us"] / predicted if row["measured_us"] and predicted else None
        return profile


def _leaves(values: Sequence[Any]) -> Iterator[Any]:
    """What nested tuples and lists hold."""
    for value in values:
        if isinstance(value, tuple | list):
            yield from _leaves(value)
        else:
            yield value


def _spec(entry: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(entry["name"], tuple(entry["shape"]), entry["dtype"], entry.get("quantization"))


def _address(array: Array) -> int:
    """Address of a contiguous array's first element; the buffer protocol is the quick way, where the dtype has it."""
    if array.flags.writeable:
        buffer: Any = array
        try:
            return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        except (ValueError, TypeError, BufferError):
            pass  # empty, or a dtype of ml_dtypes
    return array.__array_interface__["data"][0]


def _torch_of(array: Array, spec: TensorSpec, torch: Any) -> Any:
    if spec.dtype in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):  # torch has them, numpy knows them by ml_dtypes only
        return torch.from_numpy(array.view(f"uint{8 * array.itemsize}")).view(getattr(torch, spec.dtype))
    return torch.from_numpy(array)


def choose_threads(threads: int | None) -> int:
    """`threads`, else QCC_NUM_THREADS, else every processor this process may use."""
    text = os.environ.get("QCC_NUM_THREADS", "")
    if threads is None and text:
        try:
            threads = int(text)
        except ValueError:
            raise QccError(f"QCC_NUM_THREADS is '{text}', expected a number") from None
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads < 1:
        raise QccError(f"threads is {threads}, expected at least 1")
    return threads


def load_artifact(path: Path, *, threads: int | None = None) -> Executable:
    """Load a CPU artefact. Raises QccError where it is damaged, of another version, or needs what this CPU lacks."""
    path = path.resolve()
    info = artifact_file.check(path)
    library = _library_of(path, info)

    def save(target: Path) -> None:
        for source, place in ((path, target), (path.with_suffix(".h"), target.with_suffix(".h"))):
            if source.is_file() and source != place.resolve():
                with atomic_write(place, mode=0o755 if source == path else 0o644) as stream:
                    stream.write(source.read_bytes())

    return Executable(Program(library, library.qcc_model_create), info, threads=threads, save=save).prepare()


def _library_of(path: Path, info: Mapping[str, Any]) -> ctypes.CDLL:
    """The artefact's library. The system's loader knows files by name, so one that was written again since comes from a copy."""
    library = loader.bind(path)
    if not hasattr(library, "qcc_model_create"):
        raise QccError(f"{path} has no 'qcc_model_create', expected an artefact made by qcc")
    if json.loads(library.qcc_model_info()) == info:
        return library
    with tempfile.TemporaryDirectory(prefix="qcc-") as folder:
        copy = Path(folder) / f"{uuid.uuid4().hex}.so"
        shutil.copyfile(path, copy)
        return loader.bind(copy)


def from_program(
    address: Callable[[], int],
    weights: Array,
    info: Mapping[str, Any],
    *,
    streams: bool = False,
    threads: int | None = None,
    save: Callable[[Path], None] | None = None,
) -> Executable:
    """An executable over a program in memory: `address` gives that of its `qcc_program` and owns the code; weights are 64-byte aligned,
    and with `streams` in coded form (`runtime/reference/weights_image.py`), of which every step decodes its own while it runs."""
    library = loader.runtime()

    def create(count: int, model: Any) -> int:
        if streams:
            return library.qcc_model_create_coded(address(), weights.ctypes.data, weights.size, DECODE_STREAM, None, count, model)
        return library.qcc_model_create_from(address(), weights.ctypes.data, count, model)

    return Executable(Program(library, create), info, threads=threads, save=save)
