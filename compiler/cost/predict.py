"""Predicted time of every step and layer of a model in the tiled form, from its codelets and a machine description."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qcc.dialects import codelet, codelet_cost, qtile
from qcc.dialects.machine import Machine
from qcc.dialects.mlir import ir, op_attribute, python_value, walk

GENERIC_BYTES_PER_NS = 2.0  # of what has no model, above all loops of the generic path: load, a little arithmetic, store


@dataclass(frozen=True)
class StepPrediction:
    """One step: its layer and codelet, microseconds on one thread and on all of the machine's, cycles of arithmetic, bytes it touches."""

    layer: str
    codelet: str
    one_thread_us: float
    all_threads_us: float
    cycles: float
    weight_bytes: int
    activation_bytes: int


def steps(module: ir.Module, machine: Machine) -> list[StepPrediction]:
    """The steps of a module in the tiled form, memory planned, in the order in which they run."""
    functions = {python_value(f.attributes["sym_name"]): f for f in walk(module, "func.func")}
    main = functions["main"]
    weights, arena = (op_attribute(main, f"qtile.{space}_bytes", 0) for space in ("weights", "arena"))
    configurations: dict[str, Any] = {}
    for name, function in functions.items():
        if (held := op_attribute(function, "qtile.codelet")) is not None:
            configurations[name] = codelet.from_config(held)
    found: list[StepPrediction] = []
    for call, _ in qtile.runs(list(walk(main, "func.call"))):
        callee, layer = op_attribute(call, "callee"), op_attribute(call, "qtile.layer", "")
        stored = sum(op_attribute(v.owner, "size_bytes", 0) for v in call.operands if op_attribute(v.owner, "space") == "weights")
        known = {"weights_bytes": weights, "arena_bytes": arena, "stored_bytes": stored}
        one, every = (codelet_cost.cost(configurations.get(callee), machine, threads=threads, **known) for threads in (1, machine.threads))
        if one is None or every is None:
            moved = sum(op_attribute(operand.owner, "size_bytes", 0) for operand in call.operands)
            us = (moved / GENERIC_BYTES_PER_NS + machine.step_ns[0]) / 1000
            found.append(StepPrediction(layer, callee, us, us, 0.0, 0, moved))
            continue
        found.append(
            StepPrediction(layer, callee, one.microseconds, every.microseconds, one.cycles, one.weight_bytes, one.activation_bytes)
        )
    return found


def layers(predicted: Sequence[StepPrediction]) -> dict[str, tuple[float, float]]:
    """Microseconds per layer of the source model: on one thread, on all of the machine's."""
    found: dict[str, tuple[float, float]] = {}
    for step in predicted:
        one, every = found.get(step.layer, (0.0, 0.0))
        found[step.layer] = (one + step.one_thread_us, every + step.all_threads_us)
    return found
