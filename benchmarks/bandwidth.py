"""Read bandwidth of memory by `bandwidth.c`, measured in the same run as what is compared with it."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from pathlib import Path

SETTINGS = ((1, 0, 0), (2, 0, 0), (4, 0, 0), (1, 2048, 16384), (2, 8192, 0), (4, 2048, 0))
"""(streams, distances in bytes of near and far prefetches); the best of them counts."""


class Bandwidth:
    """`gbytes(threads)` reads a buffer of `size_bytes` once per setting and gives the best rate in GB/s."""

    def __init__(self, size_bytes: int = 1 << 29) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="qcc-bandwidth-")
        library = Path(self._folder.name) / "bandwidth.so"
        source = Path(__file__).with_name("bandwidth.c")
        subprocess.run(["cc", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
        self._library = ctypes.CDLL(str(library))
        self._library.probe_read.restype = ctypes.c_double
        self._library.probe_read.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_size_t]
        self._library.probe_prepare.argtypes = [ctypes.c_size_t]
        if self._library.probe_prepare(size_bytes):
            raise MemoryError(f"no {size_bytes} bytes for the bandwidth probe")
        self.size_bytes = size_bytes

    def gbytes(self, threads: int) -> float:
        return max(self.size_bytes / self._library.probe_read(threads, *setting) / 1e9 for setting in SETTINGS)
