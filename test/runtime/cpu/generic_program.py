"""Puts one function on tensors through the generic path alone: a tiled form whose only call is that function."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.compiler.emit import program
from qcc.compiler.targets.cpu import CpuTarget
from qcc.dialects.mlir import create_context, ir, op_attribute, parse_module, walk
from qcc.passes.base import PassContext, Stage, run_stage

STAGES = ("bufferize-generic-functions", "plan-memory", "emit-step-table", "lower-generic-functions", "reconcile-unrealized-casts")


def compile_text(text: str, *, threads: int = 1) -> tuple[Any, PassContext]:
    """The executable of `func.func @f` of a module's text, and what the passes recorded."""
    return compile_module(parse_module(text, create_context()), "f", threads=threads)


def compile_module(module: ir.Module, name: str, *, threads: int = 1) -> tuple[Any, PassContext]:
    """The executable of function `name` of `module`, which is changed."""
    made, context = llvm_form(module, name)
    return program.executable(made, CpuTarget(), threads=threads), context


def llvm_form(module: ir.Module, name: str) -> tuple[ir.Module, PassContext]:
    """`module` in llvm form, with a call of function `name` as its program."""
    context = PassContext()
    with module.context, ir.Location.unknown():
        function = next(f for f in walk(module, "func.func") if op_attribute(f, "sym_name") == name)
        _call_on_buffers(module, function)
    for stage in STAGES:
        run_stage(Stage(stage), module, context)
    return module, context


def _call_on_buffers(module: ir.Module, function: Any) -> None:
    """Give `function` memref arguments as decision 0002 says, and add the `@main` that calls it."""
    entry = function.regions[0].blocks[0]
    back = list(entry.operations)[-1]
    inputs = [argument.type for argument in entry.arguments]
    outputs = [value.type for value in back.operands]
    name = op_attribute(function, "sym_name")
    for argument in list(entry.arguments):
        memref = _memref(argument.type)
        new = entry.add_argument(memref, function.location)
        with ir.InsertionPoint.at_block_begin(entry):
            unit = {"restrict": ir.UnitAttr.get()}
            tensor = ir.Operation.create("bufferization.to_tensor", results=[argument.type], operands=[new], attributes=unit)
        argument.replace_all_uses_with(tensor.results[0])
    for _ in inputs:
        entry.erase_argument(0)
    units = {"restrict": ir.UnitAttr.get(), "writable": ir.UnitAttr.get()}
    for value in list(back.operands):
        new = entry.add_argument(_memref(value.type), function.location)
        with ir.InsertionPoint(back):
            ir.Operation.create("bufferization.materialize_in_destination", operands=[value, new], attributes=units)
    with ir.InsertionPoint(back):
        ir.Operation.create("func.return")
    back.operation.erase()
    memrefs = [_memref(kind) for kind in [*inputs, *outputs]]
    function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(memrefs, []))
    function.attributes["sym_name"] = ir.StringAttr.get("generic_0")
    function.attributes["sym_visibility"] = ir.StringAttr.get("private")
    function.attributes["qcc.generic"] = ir.StringAttr.get(name)
    lines, names = [], []
    for space, kinds in (("input", inputs), ("output", outputs)):
        for i, kind in enumerate(kinds):
            names.append(f"%{space}{i}")
            lines.append(f'%{space}{i} = "qtile.buffer"() {{space = "{space}", index = {i}, offset_bytes = 0}} : () -> {_memref(kind)}')
    described = [
        ", ".join(f'{{name = "{n}{i}", type = {kind}}}' for i, kind in enumerate(kinds)) for n, kinds in (("x", inputs), ("y", outputs))
    ]
    declared = ", ".join(str(m) for m in memrefs)
    main = f"""
func.func @main() attributes {{qcc.inputs = [{described[0]}], qcc.outputs = [{described[1]}]}} {{
  {chr(10).join(lines)}
  func.call @generic_0({", ".join(names)}) {{qtile.layer = "{name}"}} : ({declared}) -> ()
  return
}}
func.func private @generic_0({declared})"""
    parsed = parse_module(main, module.context)
    made = parsed.body.operations[0]
    made.operation.detach_from_parent()
    module.body.append(made)


def _memref(kind: Any) -> Any:
    tensor = ir.RankedTensorType(kind)
    return ir.MemRefType.get(tensor.shape, tensor.element_type)


def arrays_for(executable: Any, seed: int = 0) -> list[np.ndarray]:
    """Random inputs; integers are small and not negative, so that they may be indices."""
    rng = np.random.default_rng(seed)
    made: list[np.ndarray] = []
    for spec in executable.inputs:
        values = rng.standard_normal(spec.shape) if spec.numpy.kind not in "iub" else rng.integers(0, 2, spec.shape)
        made.append(np.asarray(values).astype(spec.numpy))
    return made
