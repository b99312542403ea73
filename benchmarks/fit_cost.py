"""Fit the constants of the cost model to measured layers of this machine.

    python -m benchmarks.fit_cost resnet50 mobilenetv2 encoder

Prints the share of time predicted within 15 % and 30 %, per model and kind of codelet, and for contractions the coefficients of a
least-squares fit (relative error, none below 0) by which the constants of `dialects/codelet_cost.py` would have to be multiplied.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

import numpy as np

from test.e2e import models

from . import files
from .run import Exclusive

ROUNDS, RUNS = 5, 10
TERMS = ("products", "REDUCTION_CYCLES", "epilogue (finish_cycles)", "TILE_CYCLES", "EXPOSED_BLOCK", "EXPOSED_WEIGHTS")


def compiled(name: str) -> tuple[Any, dict[str, Any], int]:
    """The executable of the int8 file on one thread, its codelets by name, bytes of its weights."""
    from qcc.compiler import driver
    from qcc.compiler.options import CompileOptions
    from qcc.compiler.targets import cpu
    from qcc.dialects import codelet
    from qcc.dialects.mlir import op_attribute, python_value, walk

    compilation = driver.start(str(files.file(name, "onnx")), CompileOptions())
    module = compilation.run_to("tiled")
    found = {}
    for function in walk(module, "func.func"):
        if (held := op_attribute(function, "qtile.codelet")) is not None:
            found[python_value(function.attributes["sym_name"])] = codelet.from_config(held)
    executable = cpu.build(compilation, threads=1)
    return executable, found, executable.info["weights_bytes"]


def contraction_terms(c: Any, machine: Any, weights_bytes: int) -> list[float]:
    """Cycles of each of TERMS as the model has them now."""
    from qcc.dialects import codelet_cost as model

    names = ("REDUCTION_CYCLES", "TILE_CYCLES", "EXPOSED_BLOCK", "EXPOSED_WEIGHTS")
    kept = {name: getattr(model, name) for name in names}

    def cycles(**changed: float) -> float:
        for name in names:
            setattr(model, name, changed.get(name, kept[name]))
        found = model.cost(c, machine, weights_bytes=weights_bytes)
        assert found
        return found.microseconds * machine.ghz * 1000

    try:
        whole, none = cycles(), cycles(**dict.fromkeys(names, 0.0))
        parts = {name: whole - cycles(**{name: 0.0}) for name in names}
    finally:
        cycles()
    _, _, height, width, channels = c.sizes
    vectors = c.sizes[0] * c.sizes[1] * height * width * -(-channels // 16)
    overlapped = model.takes_whole_cycle(machine) and np.prod(c.tile) <= model.MOST_OVERLAPPED
    epilogue = vectors * model.finish_cycles(c.steps, overlapped=bool(overlapped))
    products = max(none - epilogue, 0.0)
    return [products, parts["REDUCTION_CYCLES"], epilogue, parts["TILE_CYCLES"], parts["EXPOSED_BLOCK"], parts["EXPOSED_WEIGHTS"]]


def least_squares(terms: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Coefficients >= 0 of `terms` [layers, terms] with the least relative error, by coordinate descent."""
    a, b = terms / target[:, None], np.ones(len(target))
    coefficients = np.ones(a.shape[1])
    for _ in range(5000):
        for j in range(a.shape[1]):
            rest = b - a @ coefficients + a[:, j] * coefficients[j]
            coefficients[j] = max(0.0, float(a[:, j] @ rest / max(float(a[:, j] @ a[:, j]), 1e-30)))
    return coefficients


def within(measured: np.ndarray, predicted: np.ndarray, tolerance: float) -> float:
    """Share of the measured time whose prediction is within `tolerance`."""
    near = np.abs(measured / np.maximum(predicted, 1e-9) - 1) <= tolerance
    return float(measured[near].sum() / measured.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["resnet50", "mobilenetv2", "encoder"], help=f"of {', '.join(models.MODELS)}")
    parser.add_argument("--exclusive", default=os.environ.get("QCC_BENCH_EXCLUSIVE", ""), metavar="COMMAND", help="see benchmarks.run")
    arguments = parser.parse_args()
    from qcc.compiler.cost import probe
    from qcc.compiler.targets.cpu import CpuTarget
    from qcc.dialects import codelet_cost
    from qcc.dialects.codelet import Contraction

    prepared = {name: compiled(name) for name in arguments.models}
    profiles: dict[str, list[Any]] = {name: [] for name in prepared}
    with Exclusive(arguments.exclusive):
        machine = probe.measure() if not probe.kept_description().exists() else probe.description("", CpuTarget().isa, native=True)
        for _ in range(ROUNDS):
            for name, (executable, _, _) in prepared.items():
                profiles[name].append(executable.profile(runs=RUNS).steps)
    rows: list[list[float]] = []
    targets: list[float] = []
    for name, (_, codelets, weights_bytes) in prepared.items():
        steps = [step[1] for step in profiles[name][0]]
        measured = np.median([[us for *_, us in steps] for steps in profiles[name]], axis=0)
        costs = [codelet_cost.cost(codelets.get(step), machine, weights_bytes=weights_bytes) for step in steps]
        predicted = np.array([one.microseconds if one else 0.0 for one in costs])
        near, nearer = (within(measured, predicted, tolerance) for tolerance in (0.3, 0.15))
        print(f"{name}: measured {measured.sum():.0f} us, predicted {predicted.sum():.0f}; of the time")
        print(f"  {nearer:.0%} within 15 %, {near:.0%} within 30 %")
        for kind in sorted({codelets[step].kind for step in steps if step in codelets}):
            here = [i for i, step in enumerate(steps) if step in codelets and codelets[step].kind == kind]
            print(f"  {kind}: measured {measured[here].sum():.0f} us, predicted {predicted[here].sum():.0f}")
        for step, us in zip(steps, measured, strict=True):
            if isinstance(codelets.get(step), Contraction):
                rows.append(contraction_terms(codelets[step], machine, weights_bytes))
                targets.append(us * machine.ghz * 1000)
    terms, target = np.array(rows), np.array(targets)
    coefficients = least_squares(terms, target)
    print(f"contractions: {len(target)} layers; after a fit {within(target, terms @ coefficients, 0.15):.0%} within 15 %; multiply")
    for term, coefficient in zip(TERMS, coefficients, strict=True):
        print(f"  {term}: by {coefficient:.2f}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
