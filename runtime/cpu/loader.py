"""The runtime's shared library and loaded artefacts, through ctypes.

Out of an installed package the libraries are package data (`lib/` beside this file). Out of a source tree they are built by CMake on first
use into `build/runtime-cpu`, and again when their sources have changed.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from qcc.dialects.errors import QccError

RUNTIME_LIBRARY = "libqcc_runtime.so"  # just-in-time compiled programs run in it
MODEL_LIBRARY = "libqcc_model.a"  # linked into every artefact

_MODEL_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "qcc_cpu_features": (ctypes.c_int64, []),
    "qcc_cpu_feature_name": (ctypes.c_char_p, [ctypes.c_int]),
    "qcc_model_create_from": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]),
    "qcc_model_create_coded": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p],
    ),
    "qcc_weights_decode": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_int],
    ),
    "qcc_model_run": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]),
    "qcc_model_state": (ctypes.c_void_p, [ctypes.c_void_p]),
    "qcc_model_reset": (ctypes.c_int, [ctypes.c_void_p]),
    "qcc_model_destroy": (None, [ctypes.c_void_p]),
    "qcc_model_threads": (ctypes.c_int, [ctypes.c_void_p]),
    "qcc_model_profile": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int]),
    "qcc_model_profile_read": (ctypes.c_int64, [ctypes.c_void_p, ctypes.c_void_p]),
    "qcc_model_error": (ctypes.c_char_p, []),
    "qcc_machine_probe": (ctypes.c_double, [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_double]),
    "qcc_model_create": (ctypes.c_int, [ctypes.c_int, ctypes.c_void_p]),
    "qcc_model_info": (ctypes.c_char_p, []),
}


def bind(path: Path) -> ctypes.CDLL:
    """Load the shared library at `path` and declare the functions it has. Raises QccError where the system's loader refuses it."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise QccError(
            f"cannot load '{path}': {error}; expected a library for this machine with its dependencies (libgomp) installed"
        ) from None
    for name, (result, arguments) in _MODEL_FUNCTIONS.items():
        if (function := getattr(library, name, None)) is not None:
            function.restype, function.argtypes = result, arguments
    return library


@functools.cache
def runtime() -> ctypes.CDLL:
    """The runtime's shared library."""
    return bind(library_path(RUNTIME_LIBRARY))


def header_path() -> Path:
    """The C header of the runtime's ABI."""
    return Path(__file__).resolve().parent / "include" / "qcc_runtime.h"


def library_path(name: str) -> Path:
    """Path of one of the two libraries. In a source tree one that is older than its sources is built anew."""
    root = Path(__file__).resolve().parents[2]
    installed = next((p for place in _package_paths() if (p := place / "lib" / name).is_file()), None)
    if not (root / "CMakeLists.txt").is_file():
        if installed is None:
            raise QccError(f"the installed package lacks the CPU runtime '{name}'; install qcc again: pip install --force-reinstall qcc")
        return installed
    sources = [root / "CMakeLists.txt", *(root / "runtime" / "cpu").glob("*/*.[ch]")]
    newest = max(source.stat().st_mtime_ns for source in sources)
    if installed is not None and (installed.stat().st_mtime_ns >= newest or _cmake() is None):  # pip install -e
        return installed
    return _built_in_tree(root, name, newest)


def _cmake() -> str | None:
    return shutil.which("cmake") or shutil.which("cmake", path=os.path.dirname(sys.executable))


def _package_paths() -> list[Path]:
    import qcc.runtime.cpu

    return [Path(__file__).resolve().parent, *(Path(p) for p in qcc.runtime.cpu.__path__)]


def _built_in_tree(root: Path, name: str, newest: int) -> Path:
    build = root / "build" / "runtime-cpu"
    library = build / name
    if library.is_file() and library.stat().st_mtime_ns >= newest:
        return library
    cmake = _cmake()
    if cmake is None:
        raise QccError(
            "cannot build the CPU runtime: cmake is not installed; run: pip install cmake ninja, or install qcc with pip install ."
        )
    build.mkdir(parents=True, exist_ok=True)
    with open(build / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests may start many processes at once
        if library.is_file() and library.stat().st_mtime_ns >= newest:
            return library
        for command in ([cmake, "-S", str(root), "-B", str(build)], [cmake, "--build", str(build), "--target", "qcc_runtime", "qcc_model"]):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                words = (done.stderr or done.stdout).strip()[-2000:]
                tool = " ".join(command)
                raise QccError(f"building the CPU runtime failed; is gcc installed (Debian: apt install gcc)? '{tool}' says: {words}")
        for built in (RUNTIME_LIBRARY, MODEL_LIBRARY):
            os.utime(build / built)
    return library
