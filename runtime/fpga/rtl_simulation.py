"""The accelerator's RTL, simulated: what the hardware does in every cycle, and the DRAM that it leaves.

A simulator is built for a configuration when it is first needed: Amaranth to Verilog (Yosys), Verilog to C++ (Verilator), C++ and
rtl/harness.cpp to a shared library, which stays in the user's cache directory until sources, configuration or tools change.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from qcc.dialects.accelerator import Configuration
from qcc.dialects.errors import QccError
from qcc.runtime.atomic_file import atomic_write
from qcc.runtime.cache import cache_directory
from qcc.runtime.fpga import cycle
from qcc.runtime.fpga.encoder import Word, encode_stream
from qcc.runtime.fpga.isa import UNITS
from qcc.runtime.fpga.machine import Machine
from qcc.runtime.fpga.rtl import limits
from qcc.runtime.toolchain import find_compiler

Progress = Callable[[str, float], None]

TOOLS = ("amaranth", "pyosys", "verilator")
SOURCES = ("rtl/*.py", "rtl/*.cpp", "isa.py", "rtl_simulation.py", "../../dialects/accelerator.py", "../../dialects/bitplanes.py")
"""Files beside this one that a simulator is made of."""
COMPILER_OPTIONS = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-w")
VERILATOR_OPTIONS = (
    "--cc",
    "--no-timing",
    "-O3",
    "--x-assign",
    "1",
    "-Wno-fatal",
    "-Wno-lint",
    "--prefix",
    "Vtestbench",
    "--Mdir",
    "verilated",
)

AHEAD_WORDS = limits.PREFETCH_WORDS  # instructions are read ahead, past the end of a program too
CHUNK_CYCLES = 1 << 18  # between looks at progress
SLOWEST = 10  # times what level cycle predicts, and no program runs longer,
STARTING_CYCLES = 100_000  # plus these

_RUNNING, _FINISHED, _OUTSIDE = range(3)


def run(machine: Machine, words: Sequence[Word], *, unsteady: int = 0, progress: Progress = lambda text, fraction: None) -> cycle.Timing:
    """Run a program on the RTL of `machine`, of which only configuration and DRAM count, and time it.

    The instructions lie in memory behind DRAM. An instruction's time goes from when its unit takes it until it is done. `unsteady` other
    than 0 is the seed of a memory that is late and busy at times. Raises QccError for what the RTL does not have, addresses outside
    memory, and programs that do not finish.
    """
    c = machine.configuration
    limits.check(c)
    library = simulator(c, progress)
    stream = np.frombuffer(encode_stream(words), np.uint8).reshape(-1, c.word_bytes)
    memory = np.concatenate([machine.dram, stream, np.zeros((AHEAD_WORDS, c.word_bytes), np.uint8)])
    predicted = cycle.predict(c, machine.dram, words)
    handle = library.qcc_rtl_create(memory.ctypes.data, len(memory), len(machine.dram), c.dram_latency_cycles, unsteady)
    try:
        status, counters = _RUNNING, library.qcc_rtl_counters(handle)
        while status == _RUNNING and counters[0] <= SLOWEST * predicted.cycles + STARTING_CYCLES:
            progress(f"RTL simulation: {counters[0]} cycles of about {predicted.cycles}", min(counters[0] / predicted.cycles, 1.0))
            status = library.qcc_rtl_run(handle, CHUNK_CYCLES)
        cycles, reads, writes, instructions, address = counters[:5]
        count = ctypes.c_uint64()
        found = library.qcc_rtl_events(handle, ctypes.byref(count))
        events = np.array(found[: count.value], np.uint64)
    finally:
        library.qcc_rtl_destroy(handle)
    took, did = ([_cycles_of(events, unit + shift) for unit in range(len(UNITS))] for shift in (0, len(UNITS)))
    if status != _FINISHED:
        where = ", ".join(f"{name} took {len(a)} instructions and did {len(b)}" for name, a, b in zip(UNITS, took, did, strict=True))
        if status == _OUTSIDE:
            raise QccError(f"the program reaches DRAM word {address}, memory has {len(memory)}; after {cycles} cycles, {where}")
        raise QccError(f"the program has not finished after {cycles} cycles, expected about {predicted.cycles}; {where}")
    machine.dram[:] = memory[: len(machine.dram)]
    moved = [n * c.word_bytes for n in (reads, writes, instructions)]
    timing = replace(predicted, cycles=cycles, read_bytes=moved[0], write_bytes=moved[1], instruction_bytes=moved[2])
    return _placed(timing, words, took, did)


def _cycles_of(events: np.ndarray, bit: int) -> list[int]:
    """When bit `bit` of the testbench's signals was set."""
    return (events[(events >> np.uint64(bit) & np.uint64(1)).astype(bool)] >> np.uint64(8)).tolist()


def _placed(timing: cycle.Timing, words: Sequence[Word], took: list[list[int]], did: list[list[int]]) -> cycle.Timing:
    """`timing` with the times at which units took and did their instructions. A unit is busy with the oldest that it took."""
    held: list[tuple[int, int, int]] = [(0, 0, 0)] * len(words)  # start, end, busy
    for unit in range(len(UNITS)):
        free = 0
        own = [i for i, word in enumerate(words) if word.unit == unit]
        for index, start, last in zip(own, took[unit], did[unit], strict=True):
            held[index] = start, last + 1, last + 1 - max(start, free)
            free = last + 1
    starts, ends, busy = (list(times) for times in zip(*held, strict=True))
    of_unit = {name: sum(b for b, w in zip(busy, words, strict=True) if w.row.unit == name) for name in UNITS}
    return replace(timing, start=starts, end=ends, unit_cycles=busy, busy=of_unit)


def simulator(configuration: Configuration, progress: Progress = lambda text, fraction: None) -> ctypes.CDLL:
    """The simulator of a configuration, built if there is none yet. Raises QccError where a tool is missing."""
    with _lock:
        if configuration.fingerprint not in _loaded:
            _loaded[configuration.fingerprint] = _bind(library_path(configuration, progress))
        return _loaded[configuration.fingerprint]


_loaded: dict[str, ctypes.CDLL] = {}
_lock = threading.Lock()


def _bind(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise QccError(f"cannot load the RTL simulator: {error}; remove {path} and try again") from None
    size, handle, counters = ctypes.c_uint64, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint64)
    for name, result, arguments in (
        ("create", handle, [handle, size, size, size, size]),
        ("run", ctypes.c_int, [handle, size]),
        ("counters", counters, [handle]),
        ("events", counters, [handle, counters]),
        ("destroy", None, [handle]),
    ):
        function = getattr(library, f"qcc_rtl_{name}")
        function.restype, function.argtypes = result, arguments
    return library


def library_path(configuration: Configuration, progress: Progress = lambda text, fraction: None) -> Path:
    """The shared library of a configuration's simulator, built where the cache has none. Safe in many processes at once."""
    compiler = _compiler()
    folder = cache_directory() / "rtl"
    path = folder / f"{_key(configuration, compiler)}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with open(path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                _build(configuration, compiler, path, progress)
    return path


def _key(configuration: Configuration, compiler: list[str]) -> str:
    """Everything that decides what a simulator is."""
    here = Path(__file__).resolve().parent
    digest = hashlib.sha256(json.dumps([configuration.to_dict(), _versions(compiler)]).encode())
    for file in sorted(file for pattern in SOURCES for file in here.glob(pattern)):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:32]


def _versions(compiler: list[str]) -> dict[str, str]:
    """Of the tools that build simulators. Raises QccError for a missing one."""
    try:
        found = {name: importlib.metadata.version(name) for name in TOOLS}
    except importlib.metadata.PackageNotFoundError as error:
        raise QccError(f"RTL simulation needs {error.name}, which is not installed; run: pip install 'qcc[fpga]'") from None
    return {**found, "compiler": subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout.partition("\n")[0]}


def _compiler() -> list[str]:
    """The C++ compiler: $CXX, or the first found of c++, g++, clang++. Raises QccError where there is none."""
    missing = "RTL simulation needs a C++ compiler, expected c++, g++ or clang++; install one (Debian: apt install g++), or set CXX"
    return find_compiler("CXX", ("c++", "g++", "clang++"), "C++", missing)


def _build(configuration: Configuration, compiler: list[str], path: Path, progress: Progress) -> None:
    from qcc.runtime.fpga.rtl.testbench import Testbench
    from qcc.runtime.fpga.rtl.verilog import write_verilog

    root = Path(str(importlib.metadata.distribution("verilator").locate_file("verilator")))
    with tempfile.TemporaryDirectory(prefix="qcc-rtl-") as name:
        folder = Path(name)
        progress("RTL simulator: Amaranth to Verilog", 0.0)
        write_verilog(Testbench(configuration), "testbench", folder)
        progress("RTL simulator: Verilog to C++", 0.3)
        _run([str(root / "bin" / "verilator_bin"), *VERILATOR_OPTIONS, "testbench.v"], folder, {"VERILATOR_ROOT": str(root)})
        shutil.copy(Path(__file__).resolve().parent / "rtl" / "harness.cpp", folder)
        # Two files, since reading the headers takes as long as compiling what is behind them: what runs in every cycle, and the rest.
        made = [f"verilated/{file.name}" for file in sorted((folder / "verilated").glob("*.cpp"))]
        rest = [part for part in made if part.endswith("Slow.cpp")]
        library = [str(root / "include" / name) for name in ("verilated.cpp", "verilated_threads.cpp")]
        _include(folder / "cycles.cpp", ["harness.cpp", *(part for part in made if part not in rest)])
        _include(folder / "rest.cpp", [*rest, *library])
        places = [f"-I{folder}", f"-I{folder / 'verilated'}", f"-I{root / 'include'}", f"-I{root / 'include' / 'vltstd'}"]
        command = [*compiler, *COMPILER_OPTIONS, *places, "-DVL_TIME_CONTEXT", f"-DWORD_BYTES={configuration.word_bytes}", "-c"]
        progress("RTL simulator: compile", 0.4)
        # -O2 takes a quarter longer than -O1 and what it makes runs no faster
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda part: _run([*command, *part], folder), (["-O1", "cycles.cpp"], ["-O0", "rest.cpp"])))
        # of functions in both the linker takes the first
        _run([*compiler, "-shared", "-o", "simulator.so", "cycles.o", "rest.o", "-pthread"], folder)
        with atomic_write(path, mode=0o755) as stream:
            stream.write((folder / "simulator.so").read_bytes())


def _include(path: Path, parts: Iterable[str]) -> None:
    path.write_text("".join(f'#include "{part}"\n' for part in parts))


def _run(command: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    if done.returncode:
        raise QccError(f"building the RTL simulator failed; '{command[0]}' says: {(done.stderr or done.stdout).strip()[-1500:]}")
