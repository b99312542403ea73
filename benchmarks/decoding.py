"""How fast coded weights decode on one thread, and how near their size comes to the order-0 entropy: every coder, every decoder.

    python -m benchmarks.decoding                 # bell-shaped int8, nibbles in pairs, ternary in bytes
    python -m benchmarks.decoding model.so        # the weights of an artefact (compiled with --coding none)

Decoders take turns; medians. Rates are decoded bytes per second.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from qcc.runtime.cpu import artifact_file, loader
from qcc.runtime.reference import weights_image

Array = np.ndarray[Any, Any]
Spans = list[tuple[int, int]]
ISAS = ("portable", "avx2", "avx512")
RUNS = 9
SIZE_BYTES = 16 << 20


def synthetic() -> dict[str, tuple[Array, Spans]]:
    """Seeded weights in 32 tensors of 512 KiB each."""
    rng = np.random.default_rng(0)
    low, high = (np.clip(np.rint(rng.standard_normal(SIZE_BYTES) * 2.5), -8, 7).astype(np.int64) & 15 for _ in range(2))
    blocks = {
        "int8": np.clip(np.rint(rng.standard_normal(SIZE_BYTES) * 25), -127, 127).astype(np.int8).view(np.uint8),
        "int4 in pairs": (low | high << 4).astype(np.uint8),
        "ternary in bytes": rng.choice(np.array([0, 1, 255], np.uint8), SIZE_BYTES),
    }
    part = SIZE_BYTES // 32
    return {name: (block, [(i * part, part) for i in range(32)]) for name, block in blocks.items()}


def of_artefact(path: Path) -> dict[str, tuple[Array, Spans]]:
    """The weights of an artefact whose weights are not coded."""
    info = artifact_file.check(path)
    section = artifact_file.elf_section(path.read_bytes(), ".qcc.weights")
    assert section is not None and info["report"]["coding"]["codec"] == "none", "expected an artefact compiled with --coding none"
    block = np.frombuffer(section, np.uint8)[: info["weights_bytes"]]
    offsets = sorted({offset for step in info["steps"] for offset in step["weights"]})
    return {path.name: (block, [(a, b - a) for a, b in zip(offsets, [*offsets[1:], block.size], strict=True)])}


def aligned(size: int) -> Array:
    memory = np.zeros(size + 64, np.uint8)
    return memory[-memory.ctypes.data % 64 :][:size]


def seconds(image: Array, size: int) -> dict[str, float]:
    """Median seconds of decoding `image` to `size` bytes with every decoder that this CPU has."""
    decode, block = loader.runtime().qcc_weights_decode, aligned(size)
    found: dict[str, list[float]] = {}
    for _ in range(RUNS):
        for isa, name in enumerate(ISAS):
            start = time.perf_counter()
            if decode(image.ctypes.data, image.size, block.ctypes.data, size, 1, isa) == 0:
                found.setdefault(name, []).append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in found.items()}


def main(arguments: list[str]) -> None:
    cases = {name: case for path in arguments for name, case in of_artefact(Path(path)).items()} or synthetic()
    made = [
        (name, codec, block, weights_image.encode(block, spans, codec))
        for name, (block, spans) in cases.items()
        for codec in ("huffman", "rans")
    ]
    for name, codec, block, image in made:
        bound = sum(entry.entropy_bytes for entry in image.entries)
        rates = ", ".join(f"{isa} {block.size / spent / 1e9:.2f} GB/s" for isa, spent in seconds(image.data, block.size).items())
        print(f"{name}, {codec}: {block.size} bytes in {image.data.size}, {image.data.size / bound:.4f} of the order-0 entropy; {rates}")


if __name__ == "__main__":
    main(sys.argv[1:])
