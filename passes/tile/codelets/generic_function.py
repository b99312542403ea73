"""Gives generic functions memrefs as arguments, as decision 0002 says, while their bodies stay on tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from qcc.dialects import element_types
from qcc.dialects.mlir import create, ir, op_attribute, to_attribute, walk


def take_buffers(module: ir.Module, name: str, reason: str, buffers: Sequence[ir.Type]) -> None:
    """Change the signature of function `name` to the memref types `buffers`, inputs first, then results.

    Every buffer holds its tensor row-major from its start, but may be typed with another shape, as a reshape leaves it. Does nothing
    where the function has memrefs already.
    """
    function = next(f for f in walk(module, "func.func") if op_attribute(f, "sym_name") == name)
    entry = function.regions[0].blocks[0]
    end = list(entry.operations)[-1].operation
    arguments, results = list(entry.arguments), list(end.operands)
    if any(isinstance(a.type, ir.MemRefType) for a in arguments) or (not arguments and not results):
        return
    _use_containers(function)
    start = ir.InsertionPoint(entry.operations[0])
    for argument, kind in zip(arguments, buffers[: len(arguments)], strict=True):
        moved = _with_element(argument.type, kind)
        memref = _typed(entry.add_argument(kind, function.location), moved, start, function.location)
        tensor = create("bufferization.to_tensor", [memref], [moved], {"restrict": ir.UnitAttr.get()}, loc=function.location, ip=start)
        argument.replace_all_uses_with(_bitcast(tensor.results[0], argument.type, start, function.location))
    for _ in arguments:
        entry.erase_argument(0)
    units = {"restrict": ir.UnitAttr.get(), "writable": ir.UnitAttr.get()}
    for value, kind in zip(list(end.operands), buffers[len(arguments) :], strict=True):
        moved = _with_element(value.type, kind)
        memref = _typed(entry.add_argument(kind, function.location), moved, start, function.location)
        value = _bitcast(value, moved, ir.InsertionPoint(end), function.location)
        create("bufferization.materialize_in_destination", [value, memref], [], units, loc=function.location, ip=ir.InsertionPoint(end))
    create("func.return", [], [], loc=function.location, ip=ir.InsertionPoint(end))
    end.erase()
    function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get([a.type for a in entry.arguments], []))
    function.attributes["qcc.generic"] = to_attribute(reason)


def _typed(memref: Any, kind: Any, ip: ir.InsertionPoint, location: ir.Location) -> Any:
    """`memref` with the shape of tensor type `kind`."""
    tensor = ir.RankedTensorType(kind)
    wanted = ir.MemRefType.get(tensor.shape, tensor.element_type)
    if memref.type == wanted:
        return memref
    shape = list(tensor.shape)
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    facts = {"static_offsets": [0], "static_sizes": ir.DenseI64ArrayAttr.get(shape), "static_strides": ir.DenseI64ArrayAttr.get(strides)}
    facts["operandSegmentSizes"] = ir.DenseI32ArrayAttr.get([1, 0, 0, 0])
    return create("memref.reinterpret_cast", [memref], [wanted], facts, loc=location, ip=ip).results[0]


def _with_element(tensor: Any, memref: Any) -> ir.Type:
    """`tensor` with the element type of the buffer: an integer of the same size for floats that codelets only move."""
    return ir.RankedTensorType.get(ir.RankedTensorType(tensor).shape, ir.MemRefType(memref).element_type, loc=ir.Location.unknown())


def _bitcast(value: Any, kind: ir.Type, ip: ir.InsertionPoint, location: ir.Location) -> Any:
    return value if value.type == kind else create("arith.bitcast", [value], [kind], loc=location, ip=ip).results[0]


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
