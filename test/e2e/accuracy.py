"""How far compiled models are from float, beside what other systems make of the same file; and whether they equal the reference.

    python -m test.e2e.accuracy                            # every model and file kind (half an hour)
    python -m test.e2e.accuracy resnet18 --kinds onnx,pt2

For each (model, kind): does every layer of the compiled model equal the numpy reference on what it was fed (`exact`: quantized layers bit
for bit, float layers within rounding), and the relative error |y - y_float| / |y_float| over the test inputs of qcc and of the system that
made the file: ONNX Runtime for `.onnx`, PyTorch for `.pt2` and `.mlir`. Prints Markdown and writes `build/e2e-accuracy.json`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import qcc
from qcc.compiler import compare
from qcc.dialects.errors import QccError

from . import models

RESULT = models.FOLDER.parent / "e2e-accuracy.json"


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """|found - expected| / |expected|, in the Euclidean norm over everything."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def check(name: str, kind: str) -> dict[str, Any]:
    """Compile file `kind` of model `name` for this CPU, plainly and with kept layers, and compare. Raises QccError where it cannot."""
    file, held = models.path(name, kind), models.reference(name)
    inputs = held["inputs"]
    start = time.perf_counter()
    plain = qcc.compile(file)
    seconds = time.perf_counter() - start
    outputs = np.stack([plain(x) for x in inputs])
    kept = qcc.compile(file, keep_layers=True)
    comparison = compare.artefact(kept, file, [inputs[0]], source=False)
    last = comparison.layers[-1].since_input.sqnr_db
    maker = "onnxruntime" if kind == "onnx" else "pt2e"
    return {
        "model": name,
        "kind": kind,
        "compile_seconds": seconds,
        "layers": len(comparison.layers),
        "exact": comparison.same,
        "verdict": comparison.verdict,
        "since_input_sqnr_db": None if math.isinf(last) else last,  # of the output; None where it is exact
        "kept_differs_by": relative_error(kept(inputs[0])[0], outputs[0]),
        "qcc_error": relative_error(outputs, held["float"]),
        "maker": maker,
        "maker_error": relative_error(held[maker], held["float"]),
        "generic": [row["name"] for row in plain.report["layers"] if row["generic"]],
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| model | file | layers equal to the reference | error of qcc | error of the file's maker | compile s |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "failed" in row:
            lines.append(f"| {row['model']} | .{row['kind']} | failed: {row['failed']} | | | |")
            continue
        exact = f"all {row['layers']}" if row["exact"] else f"no: {row['verdict']}"
        lines.append(
            f"| {row['model']} | .{row['kind']} | {exact} | {row['qcc_error']:.4f} | {row['maker_error']:.4f} ({row['maker']}) "
            f"| {row['compile_seconds']:.1f} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(models.MODELS), help=f"of {', '.join(models.MODELS)} (default: all)")
    parser.add_argument("--kinds", default=",".join(models.KINDS), help="file kinds (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON file (default: build/e2e-accuracy.json)")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in arguments.names:
        for kind in arguments.kinds.split(","):
            print(f"{name}.{kind}", file=sys.stderr, flush=True)
            try:
                rows.append(check(name, kind))
            except QccError as error:
                rows.append({"model": name, "kind": kind, "failed": str(error)})
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(rows, indent=2) + "\n")
    print(table(rows))
    return 0 if all(row.get("exact") for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
