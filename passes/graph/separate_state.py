"""separate-state: what a model keeps from run to run is no input and no output any more.

Before:
    func.func @main(%x: tensor<4xf32>, %sum: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) attributes {qcc.states = [{name = "sum"}]} {
      %y = qcc.add %sum, %x
      return %y, %y
    }
After:
    func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
      %sum = "qcc.read_state"() {state = "sum"} : () -> tensor<4xf32>
      %y = qcc.add %sum, %x
      "qcc.write_state"(%y) {state = "sum"} : (tensor<4xf32>) -> ()
      return %y
    }

Requires: builtin types. `qcc.states` names the last arguments and, in the same order, the last results; `value` is what a state holds at
first, zeros where there is none. Does nothing to functions without it.
Guarantees: every state is read once, at the beginning, and written once, at the end; one that nothing reads is not kept.
Why: importers know functions only; as operations, state has its memory and its order for all that follows, and callers need not carry it.
"""

from __future__ import annotations

from typing import Any

from qcc.dialects.mlir import create, error_at, ir, op_attribute, walk
from qcc.passes.base import Pass, PassContext


class SeparateStatePass(Pass):
    name = "separate-state"

    def run(self, module: ir.Module, context: PassContext) -> None:
        for function in walk(module, "func.func"):
            if "qcc.states" in function.attributes:
                _separate(function)


def _separate(function: Any) -> None:
    block = function.regions[0].blocks[0]
    states = list(function.attributes["qcc.states"])
    first, end = (block.operations[i].operation for i in (0, len(block.operations) - 1))
    inputs, results = len(block.arguments) - len(states), list(end.operands)
    outputs = len(results) - len(states)
    if min(inputs, outputs) < 0:
        raise error_at(function, f"'qcc.states' names {len(states)} states, expected at most one for each argument and result")
    kept: list[tuple[int, str, Any]] = []
    for i, state in enumerate(states):
        name, argument, written = state["name"].value, block.arguments[inputs + i], results[outputs + i]
        if argument.type != written.type:
            raise error_at(function, f"state '{name}' is read as '{argument.type}' and written as '{written.type}', expected one type")
        if not list(argument.uses):
            continue
        location = ir.Location.name(name, function.location)
        given = {"state": name} | ({"value": state["value"]} if "value" in state else {})
        read = create("qcc.read_state", [], [argument.type], given, loc=location, ip=ir.InsertionPoint(first))
        argument.replace_all_uses_with(read.results[0])
        kept.append((outputs + i, name, location))
    for i, name, location in kept:  # when all are read: one may be written with what another one held
        create("qcc.write_state", [end.operands[i]], [], {"state": name}, loc=location, ip=ir.InsertionPoint(end))
    with ir.InsertionPoint(end):
        ir.Operation.create("func.return", operands=list(end.operands)[:outputs], loc=end.location)
    end.erase()
    for _ in states:
        block.erase_argument(inputs)
    _shorten(function, inputs, outputs)


def _shorten(function: Any, inputs: int, outputs: int) -> None:
    """`inputs` arguments and `outputs` results are left in the function's type and attributes."""
    kind = ir.FunctionType(function.attributes["function_type"].value)
    function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(kind.inputs[:inputs], kind.results[:outputs]))
    for name, count in (("qcc.inputs", inputs), ("qcc.outputs", outputs), ("arg_attrs", inputs), ("res_attrs", outputs)):
        if name in function.attributes:
            function.attributes[name] = ir.ArrayAttr.get(list(function.attributes[name])[:count])
    for name, count in (("qcc.unsigned_inputs", inputs), ("qcc.unsigned_outputs", outputs)):
        if name in function.attributes:
            function.attributes[name] = ir.DenseI64ArrayAttr.get([i for i in op_attribute(function, name) if i < count])
    del function.attributes["qcc.states"]
