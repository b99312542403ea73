"""What a model keeps from run to run: a buffer for each state, rows written into it where it lies, and what the next run finds.

A run reads a state's old value wherever it is used, so new values are written behind everything else. Rows may go to the state's own
buffer at once where nothing else reads the old value: a decoder's keys and values are not copied for the sake of one of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import Insert
from qcc.dialects.mlir import ir, op_attribute, to_attribute
from qcc.passes.tile.codelets import elementwise, movement
from qcc.passes.tile.codelets.lowering import Lowering
from qcc.passes.tile.codelets.place import Place, stored_offset
from qcc.passes.tile.codelets.rows import MOST_TASKS, TASK_ELEMENTS
from qcc.passes.values import producer, shape_of, used_once


def read(lowering: Lowering, op: Any) -> None:
    """The buffer of a state, in the model's own container as an input is."""
    value, attributes = op.results[0], {"name": op_attribute(op, "state")}
    if "value" in op.attributes:
        attributes["value"] = op.attributes["value"]
    lowering.places[value] = lowering.interface(value, "state", len(lowering.states), **attributes)
    lowering.states[attributes["name"]] = (lowering.places[value], value.type)


def insert(lowering: Lowering, op: Any) -> None:
    """Rows into a copy of x, or into x where it is a state that nobody else reads."""
    x, axis, shape = op.operands[0], op_attribute(op, "axis"), shape_of(op.results[0])
    place = lowering.place(x)
    if _is_kept(x, place):
        y = target = lowering.places[op.results[0]] = place
    else:
        y = lowering.result(op.results[0])
        target = y if y.contiguous else lowering.temporary(y.element, y.shape)
        elementwise.copy(lowering, place, target)
    sizes = (math.prod(shape[:axis]), shape_of(op.operands[1])[axis], math.prod(shape[axis + 1 :]))
    rows = lowering.place(op.operands[1]).reshaped(sizes)
    if rows is None or (rows.strides[2] != 1 and sizes[2] > 1):
        rows = movement.contiguous(lowering, lowering.place(op.operands[1])).reshaped(sizes)
        assert rows is not None
    positions = lowering.place(op.operands[2])
    codelet = Insert(
        isa=lowering.isa,
        sizes=sizes,
        rows=shape[axis],
        x=rows.operand(0),
        positions=positions.operand(1),
        y=target.operand(2, (shape[axis] * sizes[2], sizes[2], 1)),
        chunk=max(1, math.ceil(sizes[0] / MOST_TASKS)) if math.prod(sizes) > TASK_ELEMENTS else max(sizes[0], 1),
    )
    lowering.call(codelet, [rows, positions, target])
    if target is not y:
        elementwise.copy(lowering, target, y)


def _is_kept(value: Any, place: Place) -> bool:
    """Whether `value` is the whole of a state's buffer, the operation at hand its only reader."""
    made = producer(value, "qcc.read_state", "qcc.insert")
    return made is not None and used_once(value) and place.contiguous and _space(place) == "state"


def _space(place: Place) -> str:
    return op_attribute(place.buffer.owner, "space")


def write(lowering: Lowering, ops: Sequence[Any]) -> None:
    """What every state holds after the run, written when nothing reads an old value any more."""
    waiting: list[tuple[Place, Place, int]] = []
    for op in ops:
        if op_attribute(op, "state") not in lowering.states:  # the last reader turned out not to need it
            continue
        value = op.operands[0]
        place, (target, _) = lowering.place(value), lowering.states[op_attribute(op, "state")]
        if place == target:
            continue
        if _space(place) == "state":  # which another of these may write before it is read
            copied = lowering.temporary(place.element, place.shape)
            elementwise.copy(lowering, place, copied)
            place = copied
        waiting.append((place, target, stored_offset(value.type)))
    for place, target, offset in waiting:
        elementwise.copy(lowering, place, target, -offset)


def interface(lowering: Lowering) -> ir.Attribute:
    """[{name, type}] of the states, in the order of their buffers' indices."""
    return to_attribute([{"name": name, "type": kind} for name, (_, kind) in lowering.states.items()])
