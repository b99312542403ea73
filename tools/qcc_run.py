"""qcc-run: run, time, simulate or check a compiled model."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from qcc.dialects.errors import QccError
from qcc.runtime.cpu.executable import random_inputs
from qcc.tools.entry import Parser, guarded, read_array
from qcc.tools.progress import Progress

LEVELS = ("functional", "cycle", "rtl")
EPILOG = """\
examples:
  qcc-run model.so --input x.npy --output y.npy
  qcc-run model.so --benchmark --threads 2
  qcc-run model.qfa --input x.npy --simulate cycle
  qcc-run model.so --compare model.onnx --input x.npy      # compiled with qcc --keep-layers: names the first layer that differs

Several inputs or outputs: repeat --input / --output in order, or name a .npz file with the names that --info shows.
"""


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return guarded("qcc-run", lambda: _run(args))


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="qcc-run", description=__doc__, epilog=EPILOG)
    p.add_argument("artefact", help="what qcc wrote: a CPU shared object or an accelerator file")
    p.add_argument("--input", action="append", default=[], metavar="X.npy", help="input array, in the order of --info, or one .npz")
    p.add_argument("--output", action="append", default=[], metavar="Y.npy", help="where outputs go, in order, or one .npz")
    p.add_argument("--threads", type=int, help="threads (default: QCC_NUM_THREADS, else all)")
    p.add_argument("--simulate", choices=LEVELS, help="accelerator files: how exactly to simulate (default: functional)")
    p.add_argument("--benchmark", action="store_true", help="latency percentiles and rates; random inputs unless --input")
    p.add_argument("--layers", action="store_true", help="with --benchmark: measured and predicted time of every layer")
    p.add_argument("--seconds", type=float, default=3.0, help="how long --benchmark measures (default: 3)")
    p.add_argument("--profile", action="store_true", help="time per layer; of random inputs unless --input")
    p.add_argument("--compare", metavar="MODEL", help="compare every layer with the reference made from MODEL")
    p.add_argument("--info", action="store_true", help="print inputs, outputs, layers and versions as JSON and stop")
    return p


def _run(args: argparse.Namespace) -> int:
    import qcc

    if args.layers and not args.benchmark:
        raise QccError("--layers says more of a --benchmark; add that, or ask for --profile")
    if not 0 < args.seconds < math.inf:
        raise QccError(f"seconds is {args.seconds}, expected a positive number")
    executable = qcc.load(args.artefact, threads=args.threads)
    if args.info:
        print(json.dumps(executable.info, indent=2))
        return 0
    inputs = read_inputs(args.input, executable.inputs)
    measured = inputs or random_inputs(executable.inputs)
    if args.compare:
        from qcc.compiler import compare

        result = compare.artefact(executable, args.compare, measured)
        print(result.text)
        return 0 if result.same else 1
    if args.benchmark:
        print(executable.benchmark(measured, seconds=args.seconds))
        if args.layers:
            print(predictions(executable, measured))
        return 0
    if args.profile and not inputs:
        print(executable.profile(measured))
        return 0
    if executable.inputs and not inputs:
        raise QccError(
            f"no --input given, expected {len(executable.inputs)}: " + ", ".join(f"{s.name} {list(s.shape)}" for s in executable.inputs)
        )
    if args.simulate:
        if not hasattr(executable, "simulate"):
            raise QccError("--simulate is for accelerator files and this is a CPU artefact; leave it out")
        with Progress() as progress:
            result = executable.simulate(*inputs, level=args.simulate, progress=progress.update)
        outputs = list(result.outputs)
        print(result.trace.summary())
    else:
        found = executable(*inputs)
        outputs = list(found) if isinstance(found, tuple | list) else [found]
    write_outputs(args.output, outputs, executable.outputs)
    if args.profile:
        print(executable.profile(inputs))
    return 0


def predictions(executable: Any, inputs: list[np.ndarray]) -> str:
    """Measured and predicted microseconds of every layer, their ratio, and how much of the time was predicted within 30 %."""
    runs = 50
    executable.profile(inputs, runs=runs)
    key = "predicted_us" if executable.threads == 1 else "predicted_all_threads_us"
    rows = [row for row in executable.report["layers"] if row.get("measured_us")]
    total = sum(row["measured_us"] for row in rows)
    lines = [f"{'measured us':>12} {'predicted us':>12} {'ratio':>6} {'share':>6}  layer"]
    near = 0.0
    for row in rows:
        measured, ratio = row["measured_us"], row["measured_over_predicted"]
        near += measured if ratio and abs(ratio - 1) <= 0.3 else 0.0
        shown = f"{ratio:6.2f}" if ratio else " " * 6
        lines.append(f"{measured:12.1f} {row[key]:12.1f} {shown} {measured / total:6.1%}  {row['name'] or '-'} ({row['op']})")
    predicted = sum(row[key] for row in rows)
    machine = executable.report.get("machine", {}).get("name", "")
    lines.append(
        f"{total:12.1f} {predicted:12.1f} {total / max(predicted, 1e-9):6.2f} 100.0%  total, {executable.threads} threads, {machine}"
    )
    return "\n".join([*lines, f"{near / max(total, 1e-9):.0%} of the time is within 30 % of what was predicted"])


def read_inputs(paths: list[str], specs: Any) -> list[np.ndarray]:
    """Arrays of `paths` in the order of `specs`; one .npz may hold all by name."""
    if len(paths) == 1 and paths[0].endswith(".npz"):
        held = read_array(paths[0])
        missing = [s.name for s in specs if s.name not in held]
        if missing:
            raise QccError(f"{paths[0]} has no array named {missing[0]}, expected {', '.join(s.name for s in specs)}")
        return [held[s.name] for s in specs]
    return [read_array(path) for path in paths]


def write_outputs(paths: list[str], outputs: list[np.ndarray], specs: Any) -> None:
    """Write `outputs` to `paths`; without paths print what came out."""
    if len(paths) == 1 and paths[0].endswith(".npz"):
        named: dict[str, Any] = {s.name: y for s, y in zip(specs, outputs, strict=True)}
        _write(paths[0], lambda stream: np.savez(stream, allow_pickle=False, **named))
        return
    if paths and len(paths) != len(outputs):
        raise QccError(f"{len(paths)} --output given, expected {len(outputs)} or one .npz")
    for path, y in zip(paths, outputs, strict=False):
        _write(path, lambda stream, y=y: np.save(stream, y))
    if not paths:
        for spec, y in zip(specs, outputs, strict=True):
            print(f"{spec.name} {list(y.shape)} {y.dtype}: {np.array2string(y, threshold=20, precision=5)}")


def _write(path: str, save: Any) -> None:
    target = Path(path)
    try:
        with target.open("wb") as stream:
            save(stream)
    except OSError as error:
        raise QccError(f"cannot write {path}: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
