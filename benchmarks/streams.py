"""Chains of weight-only linear layers that stream from memory: compressed bytes per second against the memory's read bandwidth.

Without other systems, for work on the codelets; `benchmarks.all --only streams` compares with them.

    python -m benchmarks.streams --chain gemv11008 --formats int8,int4,nf4_g64 --prepare
    python -m benchmarks.streams --chain gemv11008 --formats int8,int4,nf4_g64 --threads 1,2

Artefacts are compiled first; then formats and the bandwidth probe are measured in turn, round by round, in one run. `ratio` is the
time over stored bytes / bandwidth (1.0: at the speed of memory). Every output is checked against numpy on the decoded weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

import qcc
from benchmarks import stream_formats
from benchmarks.bandwidth import Bandwidth

CHAINS = {
    "gemv4096": [4096] * 17,
    "gemv11008": [4096, 11008] * 3 + [4096],
    "fc4096": [4096, 4096],
    "short": [4096, 11008, 4096],
    "small": [256, 512, 96],
}
ZEROS = {f"_{percent}zeros": percent / 100 for percent in (50, 70, 90)}
TWO_OF_FOUR = "_2of4"
ENDINGS = (*ZEROS, TWO_OF_FOUR)
"""Of names of formats that ask for pruned weights."""


def prepare(chain: str, name: str, batch: int, activations: str, folder: Path) -> Path:
    """The artefact of one chain, made where `folder` does not hold it, with the expected output beside it."""
    path = folder / f"{chain}_{name}_b{batch}_{activations}.so"
    if path.exists():
        return path
    ending = name.removeprefix(_base(name))
    layers = stream_formats.random_layers(CHAINS[chain], ZEROS.get(ending, 0.0))
    if ending == TWO_OF_FOUR:
        layers = [stream_formats.two_of_four(w) for w in layers]
    module, real = stream_formats.chain(layers, stream_formats.FORMATS[_base(name)], batch)
    started = time.perf_counter()
    exe = qcc.compile(module, activations=activations, threads=1)
    seconds = time.perf_counter() - started
    x = qcc_inputs(exe)
    np.savez(path.with_suffix(".npz"), x=x, y=stream_formats.reference(x, real), compile_s=seconds)
    exe.save(path)
    return path


def _base(name: str) -> str:
    """The name of a format without its ending."""
    return next((name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)), name)


def qcc_inputs(exe: Any) -> np.ndarray:
    spec = exe.inputs[0]
    return np.random.default_rng(1).normal(size=spec.shape).astype(np.float32)


def measure(paths: dict[str, Path], threads: int, rounds: int) -> list[dict[str, Any]]:
    """One row per artefact, measured in turn with the bandwidth probe: one call behind it, when the third-level cache holds what the probe
    read and nothing of the weights. A call of a small model in between brings back the interpreter and the runtime, 0.1 ms from memory.
    """
    probe = Bandwidth()
    small, ones = small_model()
    exes = {name: qcc.load(path, threads=threads) for name, path in paths.items()}
    data = {name: np.load(path.with_suffix(".npz")) for name, path in paths.items()}
    inputs = {name: data[name]["x"] for name in paths}
    results = {name: exes[name](inputs[name]) for name in paths}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in paths}
    for _ in range(rounds):
        for name, exe in exes.items():  # the machine's speed drifts: each has its own probe beside it
            rate = probe.gbytes(threads)
            small(ones)
            start = time.perf_counter()
            exe(inputs[name])
            times[name].append((time.perf_counter() - start, rate))
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
                "error": float(np.abs(results[name] - want).max() / max(np.abs(want).max(), np.finfo(np.float32).tiny)),
                "compile_s": float(data[name]["compile_s"]),
                "ms": ms,
                "gbytes_per_s": stored / ms / 1e6,
                "memory_gbytes_per_s": statistics.median(rate for _, rate in times[name]),
                "ratio": statistics.median(t * rate * 1e9 / stored for t, rate in times[name]),
            }
        )
    return rows


def small_model() -> tuple[Any, np.ndarray]:
    """A chain of a few kilobytes, and an input."""
    module, _ = stream_formats.chain(stream_formats.random_layers(CHAINS["small"], 0.0), stream_formats.FORMATS["int8"], 1)
    exe = qcc.compile(module, threads=1)
    return exe, qcc_inputs(exe)


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
    if unknown := [name for name in args.formats.split(",") if _base(name) not in stream_formats.FORMATS]:
        p.error(
            f"no formats {', '.join(unknown)}, expected some of {', '.join(stream_formats.FORMATS)}, alone or with {', '.join(ENDINGS)}"
        )
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
