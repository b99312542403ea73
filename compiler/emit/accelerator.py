"""From the isa form to what the accelerator file holds: programs, weight image, ports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.dialects import weights
from qcc.dialects.accelerator import Configuration
from qcc.dialects.mlir import ir, op_attribute, python_value, walk
from qcc.runtime.fpga.encoder import Word
from qcc.runtime.fpga.isa import BY_NAME, UNITS
from qcc.runtime.fpga.ports import Port


@dataclass
class Segment:
    """One program and the tensors it reads and writes. `layers[i]` names the layer of instruction i."""

    name: str
    words: list[Word]
    layers: list[str]
    inputs: list[Port]
    outputs: list[Port]


@dataclass
class Emitted:
    """Everything the isa form says about the accelerator."""

    configuration: Configuration
    arena_bytes: int
    weights: bytes
    segments: dict[str, Segment]


def emit(module: ir.Module) -> Emitted:
    """Read a module in isa form."""
    from qcc.dialects.mlir import layer_name

    attributes = module.operation.attributes
    functions = {op_attribute(f, "sym_name"): f for f in walk(module, "func.func")}
    segments: dict[str, Segment] = {}
    for function in functions.values():
        if "qisa.segment" not in function.attributes:
            continue
        name = op_attribute(function, "qisa.segment")
        operations = [op for op in walk(function) if op.name.startswith("qisa.")]
        declaration = functions[name]
        ports = [[Port.from_dict(found) for found in python_value(declaration.attributes[key])] for key in ("qisa.inputs", "qisa.outputs")]
        segments[name] = Segment(name, [word_of(op) for op in operations], [layer_name(op.location) for op in operations], *ports)
    image = weights.array_of(attributes["qisa.weights"]) if "qisa.weights" in attributes else np.zeros(0, np.int8)
    memory = python_value(attributes["qcc.accelerator_memory"])
    return Emitted(Configuration.from_dict(python_value(attributes["qcc.accelerator"])), memory["arena_bytes"], image.tobytes(), segments)


def word_of(op: Any) -> Word:
    """The instruction that a qisa operation stands for."""
    row = BY_NAME[op.name.removeprefix("qisa.")]
    attributes = op.attributes
    fields = {f.name: f.words.index(attributes[f.name].value) if f.words else attributes[f.name].value for f in row.fields}
    masks = [sum(1 << UNITS.index(unit) for unit in op_attribute(op, key, [])) for key in ("wait", "signal")]
    return Word(row.name, fields, *masks)
