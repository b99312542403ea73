"""Return the output of every layer from @main as well, so that a compiled model can be compared layer by layer.

Before:

    func.func @main(%x) -> %z attributes {qcc.outputs = ["z"]} {
      %a = qcc.conv2d %x, %w                          // an accumulator
      %y = qcc.requantize %a     loc("conv1")
      %z = qcc.dequantize %y

After:

    func.func @main(%x) -> (%z, %y) attributes {qcc.outputs = ["z", "conv1"], qcc.kept_layers = 1}

A layer's output is what other layers read: the result of every operation that computes, except accumulators, constants, and operations
that only move elements. The names are those of the layers; a second value of one layer becomes `conv1#2`.

Requires: integer form, one block in @main.
Guarantees: the first results of @main are those it had, `qcc.kept_layers` counts the new ones; option `enabled=false` changes nothing.
Why: the first layer that leaves the reference is where a bug sits; later ones only carry it on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qcc.dialects.mlir import ir, layer_name, python_value, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import MOVEMENT


@dataclass(frozen=True)
class Options:
    """`enabled`: whether to do anything."""

    enabled: bool = True


class KeepLayerOutputsPass(Pass):
    """Returns every layer's output from @main."""

    name = "keep-layer-outputs"
    Options = Options

    def run(self, module: ir.Module, context: PassContext) -> None:
        for function in walk(module, "func.func"):
            if self.options.enabled and python_value(function.attributes["sym_name"]) == "main":
                _extend(function)


def _extend(function: Any) -> None:
    block = function.regions[0].blocks[0]
    terminator = block.operations[len(block.operations) - 1].operation
    results = list(terminator.operands)
    names = python_value(function.attributes["qcc.outputs"]) if "qcc.outputs" in function.attributes else []
    names = names if len(names) == len(results) else [f"output_{i}" for i in range(len(results))]
    count = len(results)
    for op in block.operations:
        for value in op.operation.results if _is_layer(op.operation) else ():
            if value not in results and _is_activation(value):
                results.append(value)
                names.append(_unused(layer_name(op.location) or op.operation.name, names))
    with ir.InsertionPoint(terminator):
        ir.Operation.create("func.return", operands=results, loc=terminator.location)
    terminator.erase()
    kind = ir.FunctionType(function.attributes["function_type"].value)
    function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(kind.inputs, [value.type for value in results]))
    function.attributes["qcc.outputs"] = ir.ArrayAttr.get([ir.StringAttr.get(name) for name in names])
    function.attributes["qcc.kept_layers"] = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), len(results) - count)


def _is_layer(op: Any) -> bool:
    """Whether `op` computes: everything but constants and movement."""
    return op.name == "func.call" or (op.name.startswith("qcc.") and op.name not in ("qcc.constant", "qcc.read_state", *MOVEMENT))


def _is_activation(value: Any) -> bool:
    """Whether `value` is a float or quantized tensor, not an accumulator."""
    return isinstance(value.type, ir.RankedTensorType) and not isinstance(value.type.element_type, ir.IntegerType | ir.IndexType)


def _unused(name: str, names: list[str]) -> str:
    """`name`, or `name#2`, `name#3`, ... where it stands in `names` already."""
    candidate, number = name, 1
    while candidate in names:
        number += 1
        candidate = f"{name}#{number}"
    return candidate
