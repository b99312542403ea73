"""Let the units of the accelerator overlap: put tokens on the instructions wherever one unit must wait for another.

Before:

    qisa.load_activations {activation = 0, ...}
    qisa.execute {activation = 0, ...}

After:

    qisa.load_activations {activation = 0, ..., signal = ["execute"]}
    qisa.execute {activation = 0, ..., wait = ["load"]}

Requires: select-instructions; instructions in an order that is correct when they run one after the other.
Guarantees: any run that respects the tokens gives the same result as the order of the stream. No deadlock: every
wait is matched by a signal
that stands earlier in the stream, and the units' queues are filled in stream order.
Why: each unit runs its own instructions in order, so of all earlier instructions of unit u that instruction j of
unit v conflicts with (read
after write, write after read, write after write, in any on-chip buffer or in DRAM) only the last matters; if v has
waited for that one or a
later one already, also through a third unit, no token is needed. What is left is in ascending order on both sides,
so counters of tokens suffice
(the dependence queues of Moreau et al., "A hardware-software blueprint for flexible deep learning specialization",
2019, found by analysis
instead of by construction).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.dialects.accelerator import Configuration
from qcc.dialects.activation_codings import slot_words
from qcc.dialects.mlir import error_at, ir, op_attribute, python_value, walk
from qcc.passes.base import Pass, PassContext
from qcc.runtime.fpga.isa import ACTIVATION_CODINGS, BY_NAME, UNITS

_DRAM_PAGE = 16  # words that are tracked together
Span = tuple[str, int, int]  # space, first, behind the last


class ScheduleTokensPass(Pass):
    """See the module's docstring."""

    name = "schedule-tokens"

    def run(self, module: ir.Module, context: PassContext) -> None:
        attributes = module.operation.attributes
        configuration = (
            Configuration.from_dict(python_value(attributes["qcc.accelerator"])) if "qcc.accelerator" in attributes else Configuration()
        )
        for function in walk(module, "func.func"):
            operations = [view.operation for view in function.regions[0].blocks[0].operations] if function.regions[0].blocks else []
            program = [op for op in operations if op.name.startswith("qisa.")]
            if program:
                _schedule(program, configuration)


def _schedule(program: list[Any], c: Configuration) -> None:
    accesses, tracker = _Accesses(c), _Tracker()
    units = [UNITS.index(BY_NAME[op.name.removeprefix("qisa.")].unit) for op in program]
    wait: dict[int, list[str]] = {}
    signal: dict[int, list[str]] = {}
    # known[v][u]: last instruction of u that is known to be done when v's next begins; done[i]: the same when
    # instruction i is done
    known = [[-1] * len(UNITS) for _ in UNITS]
    done: list[list[int]] = []
    for index, (op, unit) in enumerate(zip(program, units, strict=True)):
        reads, writes = accesses.of(op)
        needed = tracker.conflicts(reads, writes)
        for other in range(len(UNITS)):
            if other != unit and needed[other] > known[unit][other]:
                wait.setdefault(index, []).append(UNITS[other])
                signal.setdefault(needed[other], []).append(UNITS[unit])
                known[unit] = [max(a, b) for a, b in zip(known[unit], done[needed[other]], strict=True)]
        known[unit][unit] = index
        done.append(list(known[unit]))
        tracker.record(reads, writes, unit, index)
    for found, name in ((wait, "wait"), (signal, "signal")):
        for index, names in found.items():
            program[index].attributes[name] = ir.ArrayAttr.get([ir.StringAttr.get(u) for u in names])


class _Tracker:
    """The last instruction of each unit that read or wrote each place."""

    def __init__(self) -> None:
        self.read: dict[str, np.ndarray] = {}
        self.written: dict[str, np.ndarray] = {}

    def _table(self, tables: dict[str, np.ndarray], space: str, end: int) -> np.ndarray:
        held = tables.get(space)
        if held is None or held.shape[1] < end:
            grown = np.full((len(UNITS), max(end, 1024, 2 * held.shape[1] if held is not None else 0)), -1, np.int64)
            if held is not None:
                grown[:, : held.shape[1]] = held
            tables[space] = held = grown
        return held

    def conflicts(self, reads: list[Span], writes: list[Span]) -> list[int]:
        """Per unit, its last instruction that must be done before one with these accesses; -1 where there is none."""
        found = np.full(len(UNITS), -1, np.int64)
        for tables, spans in ((self.written, reads + writes), (self.read, writes)):
            for space, first, end in spans:
                if end > first:
                    found = np.maximum(found, self._table(tables, space, end)[:, first:end].max(axis=1))
        return [int(v) for v in found]

    def record(self, reads: list[Span], writes: list[Span], unit: int, index: int) -> None:
        for tables, spans in ((self.read, reads), (self.written, writes)):
            for space, first, end in spans:
                self._table(tables, space, end)[unit, first:end] = index


class _Accesses:
    """What every instruction reads and writes, following the state that earlier ones set."""

    def __init__(self, c: Configuration) -> None:
        self.c = c
        self.state: dict[str, dict[str, Any]] = {}

    def of(self, op: Any) -> tuple[list[Span], list[Span]]:
        name = op.name.removeprefix("qisa.")
        row, attributes = BY_NAME[name], op.attributes
        f = {field.name: attributes[field.name].value for field in row.fields}
        handler = getattr(self, f"_{name}", None)
        if handler is None:
            self.state[name] = f
            return [], []
        try:
            return handler(op, f)
        except KeyError as missing:
            raise error_at(op, f"'{op.name}' stands before the qisa.{missing.args[0]} that sets it up") from None

    def _lines(self, op: Any, line: int) -> Span:
        """Weight buffer lines; `line_count` is a note of select-instructions, as the table of tiles is in the coded bytes only."""
        count = op_attribute(op, "line_count")
        return ("line", 0, self.c.weight_lines) if count is None else ("line", line, line + count)

    def _groups(self, space: str, base: int, pitch: int, first: int, count: int, size: int) -> Span:
        c = self.c.columns
        return space, base + first // c * pitch, base + (first + count - 1) // c * pitch + size

    def _load_activations(self, op: Any, f: dict[str, Any]) -> tuple[list[Span], list[Span]]:
        g, at = self.state["load_geometry"], self.state["load_layout"]
        size = g["kernel_y"] * g["kernel_x"] * g["run_words"]
        top, bottom = max(f["y"], 0), min(f["y"] + (g["kernel_y"] - 1) * g["dilation_y"], g["height"] - 1)
        left = max(f["x"], 0)
        right = min(f["x"] + (f["count"] - 1) * g["stride_x"] + (g["kernel_x"] - 1) * g["dilation_x"], g["width"] - 1)
        reads: list[Span] = []
        if top <= bottom and left <= right:
            reads = [
                _dram(
                    f["address"] + top * at["row_words"] + left * at["pixel_words"],
                    f["address"] + bottom * at["row_words"] + right * at["pixel_words"] + _slot_words(g["run_words"], at["coding"]),
                )
            ]
        return reads, [self._groups("activation", f["activation"], at["vector_words"], f["first"], f["count"], size)]

    def _load_weights(self, op: Any, f: dict[str, Any]) -> tuple[list[Span], list[Span]]:
        return [], [self._lines(op, f["line"])]  # no store writes weights or parameters

    def _load_parameters(self, op: Any, f: dict[str, Any]) -> tuple[list[Span], list[Span]]:
        return [], [("parameter", f["parameter"], f["parameter"] + f["count"])]

    def _load_residual(self, op: Any, f: dict[str, Any]) -> tuple[list[Span], list[Span]]:
        reads = [_dram(f["address"], f["address"] + (f["count"] - 1) * f["pixel_words"] + _slot_words(f["run_words"], f["coding"]))]
        return reads, [self._groups("residual", f["residual"], f["run_words"], f["first"], f["count"], f["run_words"])]

    def _execute(self, op: Any, f: dict[str, Any]) -> tuple[list[Span], list[Span]]:
        vector = self.state["execute_mode"]["vector_words"]
        return [self._lines(op, f["line"]), ("activation", f["activation"], f["activation"] + f["groups"] * vector)], []

    def _post(self, op: Any, f: dict[str, Any]) -> tuple[list[Span], list[Span]]:
        channels = f["tiles"] // f["window"] * self.c.rows
        reads: list[Span] = [("parameter", f["parameter"], f["parameter"] + channels)]
        residual = self.state["post_residual"]
        if residual["enable"]:
            reads.append(("residual", f["residual"], f["residual"] + f["groups"] * residual["residual_words"]))
        return reads, [("output", f["output"], f["output"] + f["groups"] * f["output_words"])]

    def _store(self, op: Any, f: dict[str, Any]) -> tuple[list[Span], list[Span]]:
        reads = [self._groups("output", f["output"], f["output_words"], 0, f["count"], f["run_words"])]
        return reads, [_dram(f["address"], f["address"] + (f["count"] - 1) * f["pixel_words"] + _slot_words(f["run_words"], f["coding"]))]

    def _finish(self, op: Any, f: dict[str, Any]) -> tuple[list[Span], list[Span]]:
        return [], []


def _slot_words(run_words: int, coding: Any) -> int:
    """Words from the beginning of a pixel that an instruction may touch."""
    return slot_words(coding if isinstance(coding, str) else ACTIVATION_CODINGS[coding], run_words)


def _dram(first: int, end: int) -> Span:
    return "dram", first // _DRAM_PAGE, -(-end // _DRAM_PAGE)
