"""Cycles of compiled models at level cycle beside those of the RTL, layer by layer and unit by unit.

    python -m test.rtl.cycles examples/digits_cnn.mlir --device ecp5-85k

A layer's span goes from its first instruction's start to its last one's end. Units: busy cycles; of the RTL they include waiting for
another unit, as the post unit does for tiles.
"""

from __future__ import annotations

import argparse
import sys

import qcc
from qcc.runtime.cpu.executable import random_inputs
from qcc.runtime.fpga.executable import FpgaExecutable
from qcc.runtime.fpga.isa import UNITS
from qcc.tools.progress import Progress


def table(executable: FpgaExecutable, seed: int = 0) -> str:
    """The comparison for random inputs. Raises AssertionError where outputs differ."""
    inputs = random_inputs(executable.inputs)
    predicted = executable.simulate(*inputs, level="cycle")
    with Progress() as progress:
        found = executable.simulate(*inputs, level="rtl", progress=progress.update)
    assert all((a == b).all() for a, b in zip(found.outputs, predicted.outputs, strict=True)), "outputs differ"
    width = max(len(row["name"]) for row in found.trace.layers)
    heads = [f"{name:>22}" for name in ("end", "span", *UNITS)]
    lines = [" " * width + "".join(heads), " " * width + f"{'cycle':>13}{'rtl':>9}" * len(heads)]
    for a, b in zip(predicted.trace.layers, found.trace.layers, strict=True):
        pairs = [(a["end"], b["end"]), (a["end"] - a["start"], b["end"] - b["start"]), *((a["busy"][u], b["busy"][u]) for u in UNITS)]
        lines.append(f"{a['name']:<{width}}" + "".join(f"{x:13}{y:9}" for x, y in pairs))
    total = found.trace.cycles, predicted.trace.cycles
    assert total[0] is not None and total[1] is not None
    return "\n".join([*lines, f"RTL {total[0]} cycles, level cycle {total[1]}: {total[0] / total[1] - 1:+.1%}"])


def main() -> int:
    p = argparse.ArgumentParser(prog="python -m test.rtl.cycles", description=__doc__.splitlines()[0])
    p.add_argument("models", nargs="+")
    p.add_argument("--device", default="ecp5-85k")
    args = p.parse_args()
    for model in args.models:
        print(f"{model} on {args.device}\n{table(qcc.compile(model, target=qcc.FpgaTarget(args.device)))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
