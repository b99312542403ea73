"""Compile the two digits models for a CPU and for the accelerator, run the test images, and say what came of it.

    python examples/demo.py
    python examples/demo.py --kind pt2 --targets cpu --images 50

Accuracy stands beside that of PyTorch's fake-quantized model; sizes beside the float model's; time is measured on the CPU and simulated on
the accelerator; traffic is what one image moves: on the CPU the bytes that steps read and write, on the accelerator those of its DRAM.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import qcc

HERE = Path(__file__).parent
MODELS = {
    "cnn": "small CNN: 8, 4, 2 bits, one binary and one 2:4 pruned layer",
    "mixer": "MLP-mixer: 8, 4, 2 bits, ternary, one 75 % pruned",
}


@dataclass(frozen=True)
class Result:
    """What one target made of one model. `moved_bytes` and `latency` are of one image."""

    target: str
    logits: np.ndarray
    weight_bytes: int
    file_bytes: int
    latency: str
    moved_bytes: int
    compile_seconds: float
    notes: list[str]


def compiled(model: Path, **options: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    return qcc.compile(model, **options), time.perf_counter() - start


def saved_bytes(executable: Any) -> int:
    """Size of the artefact that `qcc model -o out` would write."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "out"
        executable.save(file)
        return file.stat().st_size


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def run_all(executable: Any, images: np.ndarray, title: str) -> np.ndarray:
    """Logits [images, 10], one image at a time."""
    logits: list[np.ndarray] = []
    for index, image in enumerate(images):
        progress(f"{title}: image {index + 1}/{len(images)}")
        logits.append(executable(image[None])[0])
    progress("")
    return np.stack(logits)


def on_cpu(model: Path, images: np.ndarray) -> Result:
    progress(f"{model.name}: compiling for this CPU")
    executable, seconds = compiled(model, threads=1)
    logits = run_all(executable, images, f"{model.name} on the CPU")
    timing = executable.benchmark([images[:1]], seconds=0.5)
    return Result(
        target="this CPU, 1 thread",
        logits=logits,
        weight_bytes=executable.report["totals"]["weight_bytes"],
        file_bytes=saved_bytes(executable),
        latency=f"{timing.percentile_ms(50) * 1000:.1f} us",
        moved_bytes=timing.bytes_moved,
        compile_seconds=seconds,
        notes=list(executable.report["remarks"]),
    )


def on_accelerator(model: Path, images: np.ndarray, device: str) -> Result:
    progress(f"{model.name}: compiling for the accelerator")
    executable, seconds = compiled(model, target=qcc.FpgaTarget(device=device))
    logits = run_all(executable, images, f"{model.name} on the simulated accelerator")
    trace = executable.simulate(images[:1], level="cycle").trace
    return Result(
        target=f"accelerator {device}",
        logits=logits,
        weight_bytes=executable.report["totals"]["weight_bytes"],
        file_bytes=saved_bytes(executable),
        latency=f"{trace.cycles} cycles ({trace.milliseconds:.3f} ms)",
        moved_bytes=trace.dram_bytes,
        compile_seconds=seconds,
        notes=list(executable.report["remarks"]),
    )


def kibibytes(count: float) -> str:
    return f"{count / 1024:.1f} KiB"


def grouped(notes: list[str]) -> list[str]:
    """Notes of the form `layer: what`, one line for each different `what`."""
    counts: dict[str, list[str]] = {}
    for note in notes:
        layer, _, what = note.partition(": ")
        counts.setdefault(what, []).append(layer)
    return [f"{what} ({layers[0]}" + (f" and {len(layers) - 1} more)" if len(layers) > 1 else ")") for what, layers in counts.items()]


def describe(name: str, results: list[Result], digits: Any, count: int) -> str:
    """The table of one model."""
    labels, reference = digits["labels"][:count], digits[f"{name}_logits"][:count]
    parameters = int(digits[f"{name}_parameters"])
    pytorch = (reference.argmax(1) == labels).mean()
    rows = [("target", "accuracy", "other answers", "weights", "whole file", "time per image", "moved per image", "compiled in")]
    for r in results:
        accuracy = (r.logits.argmax(1) == labels).mean()
        others = int((r.logits.argmax(1) != reference.argmax(1)).sum())
        smaller = f"{kibibytes(r.weight_bytes)} (1/{4 * parameters / r.weight_bytes:.1f})"
        answers = (f"{accuracy:.2%}", f"{others} of {count}")
        rows.append(
            (r.target, *answers, smaller, kibibytes(r.file_bytes), r.latency, kibibytes(r.moved_bytes), f"{r.compile_seconds:.1f} s")
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [f"digits_{name} ({MODELS[name]})"]
    lines += [f"PyTorch: {pytorch:.2%} of {count} test images; {parameters} parameters, {kibibytes(4 * parameters)} as fp32"]
    lines += ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for r in results:
        lines += [f"  note, {r.target}: {note}" for note in grouped(r.notes)]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=["onnx", "pt2", "mlir"], default="onnx", help="which of the model's files (default: onnx)")
    parser.add_argument("--targets", default="cpu,fpga", help="of cpu, fpga (default: both)")
    parser.add_argument("--device", default="ecp5-85k", help="accelerator preset (default: ecp5-85k)")
    parser.add_argument("--images", type=int, default=360, help="how many test images (default: all 360)")
    arguments = parser.parse_args()
    targets = arguments.targets.split(",")
    if unknown := set(targets) - {"cpu", "fpga"}:
        parser.error(f"no target is called {unknown.pop()}, expected cpu, fpga or both")
    digits = np.load(HERE / "digits.npz")
    images = digits["images"][: arguments.images]
    worst = 0
    for name in MODELS:
        model = HERE / f"digits_{name}.{arguments.kind}"
        results: list[Result] = []
        try:
            if "cpu" in targets:
                results.append(on_cpu(model, images))
            if "fpga" in targets:
                results.append(on_accelerator(model, images, arguments.device))
        except qcc.QccError as error:
            progress("")
            print(f"{model.name}: error: {error}", file=sys.stderr)
            return 1
        print(describe(name, results, digits, len(images)) + "\n", flush=True)
        right = int((digits[f"{name}_logits"][: len(images)].argmax(1) == digits["labels"][: len(images)]).sum())
        worst = max([worst, *(abs(int((r.logits.argmax(1) == digits["labels"][: len(images)]).sum()) - right) for r in results)])
    print(f"Accuracy is PyTorch's to within {worst} test image{'s' if worst != 1 else ''}.")
    return 0 if worst <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
