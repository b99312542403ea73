"""AMX for machines without it: `install()` makes this process execute AMX instructions in software (see amx_emulator.c)."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import subprocess
from collections.abc import Generator
from pathlib import Path
from unittest import mock

import pytest

from qcc.compiler.targets.cpu import FEATURES, CpuTarget, host_feature_mask

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build" / "emulation"


def build(source: Path, *flags: str) -> ctypes.CDLL:
    """The C file `source` compiled as a shared library and loaded; built anew only when it changed."""
    key = hashlib.sha256(source.read_bytes() + " ".join(flags).encode()).hexdigest()[:12]
    library = BUILD / f"{source.stem}-{key}.so"
    if not library.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        part = library.with_suffix(f".{os.getpid()}")
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", *flags, "-o", part, source], check=True)
        part.replace(library)
    return ctypes.CDLL(str(library))


def install() -> ctypes.CDLL:
    """Start emulating; harmless where the machine has AMX, since no instruction is illegal there (the permission is asked for here)."""
    library = _library()
    if library.amx_emulator_install():
        raise OSError("cannot handle SIGILL in this process")
    return library


@functools.cache
def _library() -> ctypes.CDLL:
    library = build(HERE / "amx_emulator.c", "-mfma")
    library.amx_emulator_count.restype = ctypes.c_int64
    library.amx_emulator_count.argtypes = [ctypes.c_char_p]
    ctypes.CDLL(None).syscall(158, 0x1023, 18)  # arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
    return library


def count(*names: str) -> int:
    """How many instructions of these names were emulated since the start."""
    return sum(install().amx_emulator_count(name.encode()) for name in names)


def machine_has_amx() -> bool:
    """Whether AMX instructions run in hardware here."""
    return " amx_tile" in Path("/proc/cpuinfo").read_text()


@contextlib.contextmanager
def sapphire_rapids() -> Generator[CpuTarget]:
    """The target `sapphirerapids`, whose executables run in this process although the machine lacks AMX."""
    install()
    target = CpuTarget("sapphirerapids")
    mask, host = target.feature_mask, host_feature_mask()
    missing = [name for i, name in enumerate(FEATURES) if mask & ~host and (mask & ~host) >> i & 1]
    if any(not name.startswith("amx") for name in missing):
        pytest.skip(f"this machine lacks {', '.join(missing)}, and only AMX is emulated")
    with (
        mock.patch.object(CpuTarget, "feature_mask", property(lambda self: mask & host)),
        mock.patch.object(CpuTarget, "runs_here", property(lambda self: True)),
    ):
        yield target
