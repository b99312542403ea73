"""Chains of weight-only linear layers that stream from memory: compressed bytes per second against the memory's read bandwidth.

    python -m benchmarks.streams --chain gemv11008 --formats int8,int4,nf4_g64 --prepare
    python -m benchmarks.streams --chain gemv11008 --formats int8,int4,nf4_g64 --threads 1,2

Artefacts are compiled first; then formats and the bandwidth probe are measured in turn, round by round, in one run. `ratio` is the
time over stored bytes / bandwidth (1.0: at the speed of memory). Every output is checked against numpy on the decoded weights.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import qcc
from benchmarks.bandwidth import Bandwidth
from qcc.dialects import compressed_types as types
from qcc.dialects import element_types, weights
from qcc.dialects.mlir import create, create_context, ir
from qcc.dialects.real_values import decode

CHAINS = {"gemv4096": [4096] * 17, "gemv11008": [4096, 11008] * 3 + [4096], "fc4096": [4096, 4096], "short": [4096, 11008, 4096], "small": [256, 512, 96]}
NF4 = [-1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0,
       0.0795803, 0.1609302, 0.24611230, 0.33791524, 0.44070983, 0.56261700, 0.72295684, 1.0]  # fmt: skip
"""Levels of Dettmers et al., "QLoRA", 2023, appendix E."""

Format = Callable[[np.random.Generator, int, int], tuple[np.ndarray, Any]]  # (rng, n, k) -> stored [n, k], element type


def _affine(bits: int, group: int = 0, *, zeros: bool = False, density: float = 1.0) -> Format:
    def make(rng: np.random.Generator, n: int, k: int) -> tuple[np.ndarray, Any]:
        low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        low = max(low, -high) if bits > 2 else low
        stored = rng.integers(low, high + 1, (n, k), dtype=np.int8)
        if density < 1:
            stored *= rng.random(stored.shape, np.float32) < density
        unit = 2.0 / (k**0.5 * max(high, 1))
        scales = rng.uniform(0.5 * unit, unit, (n, k // group) if group else n).astype(np.float32)
        zero = rng.integers(low, high + 1, scales.shape) if zeros else np.zeros(scales.shape, np.int64)
        if group:
            return stored, element_types.affine_type(scales, zero, bits=bits, block={0: 1, 1: group})
        return stored, element_types.affine_type(scales, zero, bits=bits, axis=0)

    return make


def _levels(values: list[float], group: int = 0) -> Format:
    def make(rng: np.random.Generator, n: int, k: int) -> tuple[np.ndarray, Any]:
        stored = rng.integers(0, len(values), (n, k), dtype=np.uint8)
        scales = rng.uniform(1.0, 2.0, (n, k // group if group else 1)).astype(np.float32) / np.float32(k**0.5)
        return stored, types.make_type(types.Codebook(np.array(values, np.float32), scales))

    return make


def _ternary(rng: np.random.Generator, n: int, k: int) -> tuple[np.ndarray, Any]:
    scales = rng.uniform(1.0, 2.0, (n, 1)).astype(np.float32) / np.float32(k**0.5)
    return rng.integers(-1, 2, (n, k), dtype=np.int8), types.make_type(types.Ternary(scales, scales))


def _binary(rng: np.random.Generator, n: int, k: int) -> tuple[np.ndarray, Any]:
    scales = rng.uniform(1.0, 2.0, (n, 1)).astype(np.float32) / np.float32(k**0.5)
    return rng.integers(0, 2, (n, k), dtype=np.int8) * 2 - 1, types.make_type(types.Binary(scales))


def _float(element: str, group: int) -> Format:
    def make(rng: np.random.Generator, n: int, k: int) -> tuple[np.ndarray, Any]:
        kind = ir.Type.parse(element)
        dtype = weights.numpy_dtype(kind)
        stored = rng.normal(size=(n, k)).astype(np.float32).astype(dtype)
        scales = np.full((n, k // group), 2.0 ** -round(np.log2(k) / 2), np.float32)
        return stored, types.make_type(types.Blockscaled(kind, (1, group), scales))

    return make


FORMATS: dict[str, Format] = {
    "int8": _affine(8),
    "int8_g128": _affine(8, 128),
    "int4": _affine(4),
    "int4_g128": _affine(4, 128),
    "int4_g32": _affine(4, 32),
    "uint4_g128": _affine(4, 128, zeros=True),
    **{f"int{b}_{z}zeros": _affine(b, density=1 - z / 100) for b in (8, 4) for z in (50, 70, 90)},
    "int3": _affine(3),
    "int2": _affine(2),
    "ternary": _ternary,
    "binary": _binary,
    "codebook16": _levels([float(v) for v in np.sort(np.random.default_rng(5).normal(size=16))]),
    "nf4_g64": _levels(NF4, 64),
    "fp4_g32": _float("f4E2M1FN", 32),
    "fp8_e4m3": _float("f8E4M3FN", 128),
    "fp8_e5m2": _float("f8E5M2", 128),
    "fp6_e3m2": _float("f6E3M2FN", 32),
}


def build(dims: list[int], make: Format, batch: int, seed: int = 0) -> tuple[Any, list[np.ndarray]]:
    """Module in graph form of the layers with a clamp between, and the real weights [n, k] f32 of each."""
    rng, real = np.random.default_rng(seed), []
    context = create_context()
    with context, ir.Location.unknown():
        module = ir.Module.create()
        f32 = ir.F32Type.get()
        tensor = ir.RankedTensorType.get
        kind = ir.FunctionType.get([tensor([batch, dims[0]], f32)], [tensor([batch, dims[-1]], f32)])
        with ir.InsertionPoint(module.body):
            attributes = {"sym_name": ir.StringAttr.get("main"), "function_type": ir.TypeAttr.get(kind)}
            function = ir.Operation.create("func.func", attributes=attributes, regions=1)
        block = function.regions[0].blocks.append(*kind.inputs)
        with ir.InsertionPoint(block):
            value = block.arguments[0]
            for i, (k, n) in enumerate(itertools.pairwise(dims)):
                with ir.Location.name(f"fc{i}"):
                    stored, element = make(rng, n, k)
                    typed = tensor([n, k], element)
                    real.append(decode(stored, typed))
                    c = create("qcc.constant", [], [typed], {"value": weights.constant_attribute(stored, f"fc{i}")}).results[0]
                    w = create("qcc.dequantize", [c], [tensor([n, k], f32)]).results[0]
                    value = create("qcc.linear", [value, w], [tensor([batch, n], f32)]).results[0]
                    if i + 2 < len(dims):
                        value = create("qcc.clamp", [value], [value.type], {"min": -4.0, "max": 4.0}).results[0]
            ir.Operation.create("func.return", operands=[value])
    return module, real


def reference(x: np.ndarray, real: list[np.ndarray]) -> np.ndarray:
    y = x
    for i, w in enumerate(real):
        y = y @ w.T
        y = np.clip(y, -4, 4) if i + 1 < len(real) else y
    return y


def prepare(chain: str, name: str, batch: int, activations: str, folder: Path) -> Path:
    """The artefact of one chain, made where `folder` does not hold it, with the expected output beside it."""
    path = folder / f"{chain}_{name}_b{batch}_{activations}.so"
    if path.exists():
        return path
    module, real = build(CHAINS[chain], FORMATS[name], batch)
    started = time.perf_counter()
    exe = qcc.compile(module, activations=activations, threads=1)
    seconds = time.perf_counter() - started
    x = qcc_inputs(exe)
    np.savez(path.with_suffix(".npz"), x=x, y=reference(x, real), compile_s=seconds)
    exe.save(path)
    return path


def qcc_inputs(exe: Any) -> np.ndarray:
    spec = exe.inputs[0]
    return np.random.default_rng(1).normal(size=spec.shape).astype(np.float32)


def measure(paths: dict[str, Path], threads: int, rounds: int) -> list[dict[str, Any]]:
    """One row per artefact, measured in turn with the bandwidth probe."""
    probe = Bandwidth()
    exes = {name: qcc.load(path, threads=threads) for name, path in paths.items()}
    data = {name: np.load(path.with_suffix(".npz")) for name, path in paths.items()}
    inputs = {name: data[name]["x"] for name in paths}
    results = {name: exes[name](inputs[name]) for name in paths}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in paths}
    for _ in range(rounds):
        for name, exe in exes.items():  # the machine's speed drifts: each has its own probe beside it
            rate = probe.gbytes(threads)
            exe(inputs[name])
            start = time.perf_counter()
            exe(inputs[name])
            exe(inputs[name])
            times[name].append(((time.perf_counter() - start) / 2, rate))
    rows: list[dict[str, Any]] = []
    for name, exe in exes.items():
        want, ms = data[name]["y"], statistics.median(t for t, _ in times[name]) * 1e3
        layers = [row for row in exe.report["layers"] if row["op"] == "linear"]
        stored = sum(row["weight_bytes"] for row in layers)
        rows.append(
            {
                "format": name,
                "threads": threads,
                "stored_bytes": stored,
                "stored_format": layers[0]["facts"].get("stored_format"),
                "activations": layers[0]["facts"].get("activations"),
                "error": float(np.abs(results[name] - want).max() / np.abs(want).max()),
                "compile_s": float(data[name]["compile_s"]),
                "ms": ms,
                "gbytes_per_s": stored / ms / 1e6,
                "memory_gbytes_per_s": statistics.median(rate for _, rate in times[name]),
                "ratio": statistics.median(t * rate * 1e9 / stored for t, rate in times[name]),
            }
        )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    print(f"{rows[0]['threads']} threads, memory reads {rows[0]['memory_gbytes_per_s']:.1f} GB/s")
    for r in rows:
        print(
            f"  {r['format']:12s} {r['stored_bytes'] / 1e6:8.1f} MB {r['ms']:8.3f} ms {r['gbytes_per_s']:6.1f} GB/s  "
            f"ratio {r['ratio']:.2f}  error {r['error']:.1e}  {r['stored_format']}; x {r['activations']}"
        )


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--chain", choices=CHAINS, default="gemv11008")
    p.add_argument("--formats", default="int8,int4")
    p.add_argument("--threads", default="1,2")
    p.add_argument("--batch", type=int, default=1)
    p.add_argument("--activations", default="auto")
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--artifacts", type=Path, default=Path("build/streams"), help="folder of the compiled chains")
    p.add_argument("--prepare", action="store_true", help="only compile")
    p.add_argument("--json", type=Path, help="where the results go")
    args = p.parse_args()
    args.artifacts.mkdir(parents=True, exist_ok=True)
    paths = {name: prepare(args.chain, name, args.batch, args.activations, args.artifacts) for name in args.formats.split(",")}
    if args.prepare:
        return
    found: list[dict[str, Any]] = []
    for threads in map(int, args.threads.split(",")):
        rows = measure(paths, threads, args.rounds)
        show(rows)
        found += rows
    if args.json:
        args.json.write_text(json.dumps({"chain": args.chain, "batch": args.batch, "rows": found}, indent=1))


if __name__ == "__main__":
    main()
