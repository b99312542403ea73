"""Measures this machine with the loops of runtime/cpu/src/machine_probe.c; the answer is kept in the user's cache directory."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path

from qcc.dialects import machine
from qcc.dialects.machine import PRODUCTS, Machine
from qcc.runtime.atomic_file import atomic_write
from qcc.runtime.cache import cache_directory
from qcc.runtime.cpu import loader

# enum probe of machine_probe.c, in its order
PROBES = ("clock", *PRODUCTS, "read", "step", "lone_step")
REPEATS = 7
PROBE_NS = 20e6
SYSTEM_CPU = Path("/sys/devices/system/cpu/cpu0/cache")
L3_SIZES_MIB = (8, 16, 32, 64, 128)
DRAM_BYTES = 512 << 20
FALLBACK_BYTES = {"l1": 32 << 10, "l2": 1 << 20, "l3": 16 << 20}


def kept_description() -> Path:
    """The file of this machine's description."""
    return cache_directory() / "machine.json"


def keep(found: Machine, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as stream:
        stream.write(found.to_json().encode())


def measure(progress: Callable[[str], None] = lambda text: None) -> Machine:
    """Rates of this machine in its fast moments: of every figure the median of the better half of some short measurements."""

    def rate(probe: str, threads: int, size_bytes: int = 0) -> float:
        progress(f"{probe}, {threads} thread{'s' if threads > 1 else ''}" + (f", {size_bytes >> 10} KiB" if size_bytes else ""))
        run = loader.runtime().qcc_machine_probe
        found = sorted(run(PROBES.index(probe), threads, size_bytes, PROBE_NS) for _ in range(REPEATS))
        return round(found[-(REPEATS // 4) - 1], 2 if found[-1] >= 1 else 6)

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    sizes = _cache_bytes()
    dram = (rate("read", 1, DRAM_BYTES), rate("read", threads, DRAM_BYTES // threads))
    third = {size: rate("read", 1, size << 20) for size in L3_SIZES_MIB}
    # what of a shared third-level cache is ours shows in the size at which reading gets as slow as from memory
    nearer = [size for size, found in third.items() if found > (third[L3_SIZES_MIB[0]] + dram[0]) / 2]
    sizes["l3"] = min(sizes["l3"], max(nearer, default=L3_SIZES_MIB[0]) << 21)
    working_sets = {"l1": sizes["l1"] // 2, "l2": sizes["l2"] // 2, "l3": min(sizes["l3"] // 2, 16 << 20)}
    bandwidths = {level: (rate("read", 1, size), rate("read", threads, size)) for level, size in working_sets.items()}
    steps = [1 / max(rate("lone_step", 1), 1e-9), 1 / max(rate("step", threads), 1e-9)]
    return Machine(
        name=f"{platform.node() or 'this'}-measured",
        cpu=_cpu_name(),
        threads=threads,
        ghz=rate("clock", 1),
        gmacs={kind: rate(kind, 1) for kind in PRODUCTS},
        cache_bytes=sizes,
        read_gbytes={**bandwidths, "dram": dram},
        step_ns=(round(steps[0], 1), round(steps[1], 1)),
    )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def _cache_bytes() -> dict[str, int]:
    """Sizes of the data caches as the system tells them, or usual ones."""
    found = dict(FALLBACK_BYTES)
    for index in sorted(SYSTEM_CPU.glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction" and f"l{level}" in found:
            found[f"l{level}"] = int(size.rstrip("KM")) << (20 if size.endswith("M") else 10)
    return found


def description(path: str, isa: str, *, native: bool) -> Machine:
    """The description to compile with: the file `path`, a shipped one of that name, or for "" this machine's own where the target is
    native and it was measured, else the shipped one nearest to the target's instruction set. Raises QccError for a bad file."""
    if path in machine.DEFAULTS:
        return machine.DEFAULTS[path]
    if path:
        return machine.read(Path(path))
    if native and kept_description().exists():
        return machine.read(kept_description())
    return machine.shipped(isa)
