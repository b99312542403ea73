"""Gives generic functions memrefs as arguments, as decision 0002 says, while their bodies stay on tensors."""

from __future__ import annotations

from typing import Any

from qcc.dialects import element_types
from qcc.dialects.mlir import create, ir, op_attribute, to_attribute, walk


def take_buffers(module: ir.Module, name: str, reason: str) -> None:
    """Change the signature of function `name` to memrefs, inputs first, then results; does nothing where it has them already."""
    function = next(f for f in walk(module, "func.func") if op_attribute(f, "sym_name") == name)
    entry = function.regions[0].blocks[0]
    end = list(entry.operations)[-1].operation
    arguments, results = list(entry.arguments), list(end.operands)
    if any(isinstance(a.type, ir.MemRefType) for a in arguments) or (not arguments and not results):
        return
    _use_containers(function)
    for argument in arguments:
        memref = entry.add_argument(_memref(argument.type), function.location)
        with ir.InsertionPoint.at_block_begin(entry):
            tensor = create("bufferization.to_tensor", [memref], [argument.type], {"restrict": ir.UnitAttr.get()}, loc=function.location)
        argument.replace_all_uses_with(tensor.results[0])
    for _ in arguments:
        entry.erase_argument(0)
    units = {"restrict": ir.UnitAttr.get(), "writable": ir.UnitAttr.get()}
    for value in list(end.operands):
        memref = entry.add_argument(_memref(value.type), function.location)
        create("bufferization.materialize_in_destination", [value, memref], [], units, loc=function.location, ip=ir.InsertionPoint(end))
    create("func.return", [], [], loc=function.location, ip=ir.InsertionPoint(end))
    end.erase()
    function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get([a.type for a in entry.arguments], []))
    function.attributes["qcc.generic"] = to_attribute(reason)


def _memref(kind: Any) -> ir.Type:
    return ir.MemRefType.get(ir.RankedTensorType(kind).shape, ir.RankedTensorType(kind).element_type)


def _use_containers(function: Any) -> None:
    """Make quantized and unsigned tensors of the body, which only move there, tensors of their signless container."""
    for block in [b for op in [function, *walk(function)] for region in op.regions for b in region.blocks]:
        for value in [*block.arguments, *(r for op in block.operations for r in op.operation.results)]:
            if isinstance(value.type, ir.RankedTensorType) and (container := _container(value.type)) is not None:
                value.set_type(container)


def _container(kind: ir.RankedTensorType) -> ir.Type | None:
    element = kind.element_type
    if (affine := element_types.affine(kind)) is not None:
        width = 8 if affine.bits <= 8 else 16
    elif isinstance(element, ir.IntegerType) and not element.is_signless:
        width = element.width
    else:
        return None
    return ir.RankedTensorType.get(kind.shape, ir.IntegerType.get_signless(width), loc=ir.Location.unknown())
