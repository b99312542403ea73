"""lower-to-codelets: integer form to tiled form, one codelet call per operation or fused chain of operations.

Before:
    func.func @main(%x: tensor<1x8xf32>) -> tensor<1x8x!quant.uniform<u8:f32, 0.5>> {
      %q = qcc.quantize %x
      return %q
    }

After:
    func.func @main() attributes {qcc.inputs = [...], qcc.outputs = [...]} {
      %x = qtile.buffer {space = "input", index = 0, ...} : memref<1x8xf32>
      %y = qtile.buffer {space = "output", index = 0, ...} : memref<1x8xi8>
      %p = qtile.buffer {space = "weights", value = dense<...>, ...} : memref<4xi32>
      func.call @map_3f2a...(%x, %p, %y) {qtile.tasks = 1, qtile.layer = "..."}
      return
    }
    func.func private @map_3f2a...(...) attributes {qtile.codelet = {kind = "map", ...}}

Requires: integer form, assign-layout.
Guarantees: tiled form as decision 0002 states it; equal configurations share one declaration. Every result is bit-exact with the
reference, but float products, whose order of sums is free.
Why: compiler/decisions/0002; element-wise operations that alone use a product are its epilogue, so activations are stored once.
Options: `isa`, one of `dialects.instruction_sets.ISAS`; `activations`, how weight-only layers see their input (decision 0009): float,
int16 or int8 (quantized in the call), or auto; `coded`, whether weights are entropy-coded afterwards; `streamed`, whether they stay so
until the call that reads them: then large layers are several calls; `storage`, of integer weights with zeros, as for select-sparse-format.
Facts per weight-only layer: stored_format, stored_bytes, activations; per layer of bytes with zeros those of select-sparse-format that its
codelet changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qcc.dialects.errors import QccError
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.mlir import error_at, ir, op_attribute, to_attribute, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.tile.codelets import (
    attention,
    computed_weights,
    dynamic,
    elementwise,
    embedding,
    generic_function,
    integer_stream,
    matmul,
    movement,
    rows,
    slices,
    sparse,
    state,
    stream,
    windows,
)
from qcc.passes.tile.codelets.lowering import Lowering
from qcc.passes.tile.codelets.place import Place, element_name, stored_offset
from qcc.passes.tile.codelets.program import FUSABLE
from qcc.passes.values import shape_of, used_once


@dataclass(frozen=True)
class IsaOptions:
    """`isa`: instruction set that codelets are made for; `activations`: of `stream.ACTIVATIONS`; `byte_expand`: has vpexpandb;
    `popcount`: has vpopcntd; `coded`: weights are stored once each, as wide as their values, which is what they are coded from; `streamed`:
    they are decoded in every run, right before the call that reads them; `storage`: of integer weights with zeros, auto, block wherever
    there is a codelet, or any other form, which is dense."""

    isa: str = "avx512_vnni"
    activations: str = "auto"
    byte_expand: bool = False
    popcount: bool = False
    coded: bool = False
    streamed: bool = False
    storage: str = "auto"


class LowerToCodeletsPass(Pass):
    name = "lower-to-codelets"
    Options = IsaOptions

    def run(self, module: ir.Module, context: PassContext) -> None:
        if self.options.isa not in ISAS:
            raise QccError(f"no codelets for instruction set '{self.options.isa}', expected one of: {', '.join(ISAS)}")
        if self.options.activations not in stream.ACTIVATIONS:
            raise QccError(f"activations is '{self.options.activations}', expected one of: {', '.join(stream.ACTIVATIONS)}")
        for function in walk(module, "func.func"):
            if _has_tensors(function):
                for layer, facts in _lower(module, function, self.options):
                    context.fact(layer, **facts)


def _has_tensors(function: Any) -> bool:
    """Whether it is an entry function, still on tensors."""
    public = op_attribute(function, "sym_visibility") != "private"
    return public and "qcc.generic" not in function.attributes and bool(function.regions[0].blocks)


def _lower(module: ir.Module, function: Any, options: IsaOptions) -> list[tuple[str, dict[str, Any]]]:
    """Lower one entry function; facts of its layers."""
    lowering = Lowering(module, function, options)
    block = function.regions[0].blocks[0]
    for i, value in enumerate(block.arguments):
        _input(lowering, i, value)
    end = list(block.operations)[-1].operation
    lowering.outputs = {value: i for i, value in enumerate(end.operands) if used_once(value)}
    _lower_block(lowering, block)
    for i, value in enumerate(end.operands):
        _output(lowering, i, value)
    state.write(lowering, [view.operation for view in block.operations if view.operation.name == "qcc.write_state"])
    lowering.function.attributes["qcc.inputs"] = _interface(function, "qcc.inputs", [v.type for v in block.arguments])
    lowering.function.attributes["qcc.outputs"] = _interface(function, "qcc.outputs", [v.type for v in end.operands])
    if lowering.states:
        lowering.function.attributes["qcc.states"] = state.interface(lowering)
    function.erase()
    return lowering.facts


def _lower_block(lowering: Lowering, block: Any) -> None:
    """Lower the operations of a block; `current` is its return afterwards."""
    done: set[Any] = set()
    for view in block.operations:
        op = view.operation
        lowering.current = op
        if op in done or op.name in ("qcc.constant", "arith.constant", "qcc.write_state", "func.return"):
            continue
        if op.name == "qtile.for_each_slice":
            slices.for_each_slice(lowering, op, lambda block: _lower_block(lowering, block))
        elif op.name == "qcc.dequantize" and stream.keep(lowering, op):
            continue  # its readers decode
        elif op.name in FUSABLE:
            done |= elementwise.lower(lowering, op)
        elif op.name in FUSING:
            done |= FUSING[op.name](lowering, op)
        elif op.name in ALONE:
            ALONE[op.name](lowering, op)
        else:
            raise error_at(op, f"no codelet computes '{op.name}', expected qcc operations or calls of generic functions")


def _linear(lowering: Lowering, op: Any) -> set[Any]:
    """Weight-only layers stream their compressed weights, layers of few rows of integers where that pays; f32 weights may be stored without
    zeros; the others are contractions."""
    if sparse.encoding(op) is not None:
        return sparse.linear(lowering, op)
    if op.operands[1] in lowering.compressed:
        return stream.linear(lowering, op)
    return integer_stream.linear(lowering, op) or computed_weights.linear(lowering, op)


def _conv2d(lowering: Lowering, op: Any) -> set[Any]:
    """1x1 convolutions of f32 weights may be stored without zeros, as linear layers."""
    return sparse.linear(lowering, op) if sparse.encoding(op) is not None else computed_weights.conv2d(lowering, op)


FUSING: dict[str, Callable[[Lowering, Any], set[Any]]] = {
    "qcc.conv2d": _conv2d,
    "qcc.linear": _linear,
    "qcc.dynamic_linear": dynamic.linear,
    "qcc.round_dynamic": dynamic.round_dynamic,
    "qcc.matmul": matmul.matmul,
    "qcc.max_pool2d": windows.pool,
    "qcc.avg_pool2d": windows.pool,
    "qcc.softmax": rows.softmax,
    "qcc.layer_norm": rows.norm,
    "qcc.rms_norm": rows.norm,
    "qcc.reduce": rows.reduce,
    "qcc.attention": attention.lower,
    "qcc.embedding": embedding.lower,
}
"""Operations that take element-wise operations behind them along; they return everything they lowered."""


def _generic_call(lowering: Lowering, op: Any) -> None:
    """Contiguous row-major memrefs in the model's own containers, inputs first."""
    operands = [_native(lowering, value) for value in op.operands]
    results = []
    for value in op.results:
        element = element_name(value.type, native=True)
        if element is None:
            raise error_at(op, f"a generic function gives {value.type}, which has no container; expected integers, i1 or f32")
        place = lowering.temporary(element, shape_of(value))
        lowering.places[value] = place
        results.append(place)
    callee = op_attribute(op, "callee")
    buffers = [p.buffer for p in (*operands, *results)]
    generic_function.take_buffers(lowering.module, callee, op_attribute(op, "qcc.generic", callee), [b.type for b in buffers])
    lowering.call_function(callee, buffers)


def _native(lowering: Lowering, value: Any) -> Place:
    place, element = lowering.place(value), element_name(value.type, native=True)
    assert element is not None
    if place.element == element and place.contiguous:
        return place
    y = lowering.temporary(element, place.shape)
    elementwise.copy(lowering, place, y, -stored_offset(value.type))
    return y


ALONE: dict[str, Callable[[Lowering, Any], None]] = {
    "qcc.reshape": movement.reshape,
    "qcc.transpose": movement.transpose,
    "qcc.slice": movement.slice_,
    "qcc.broadcast": movement.broadcast,
    "qcc.pad": movement.pad,
    "tensor.concat": movement.concat,
    "qcc.read_state": state.read,
    "qcc.insert": state.insert,
    "func.call": _generic_call,
}


def _input(lowering: Lowering, index: int, value: Any) -> None:
    """The caller's buffer; `Lowering.place` converts its container at the first use."""
    lowering.places[value] = lowering.interface(value, "input", index)


def _output(lowering: Lowering, index: int, value: Any) -> None:
    place = lowering.place(value)
    if op_attribute(place.buffer.owner, "space") != "output":
        elementwise.copy(lowering, place, lowering.interface(value, "output", index), -stored_offset(value.type))


def _interface(function: Any, attribute: str, types: list[Any]) -> ir.Attribute:
    """[{name, type}] for arguments or results, with the names that the front end left on the function."""
    names = op_attribute(function, attribute) or [f"{attribute.removeprefix('qcc.')[:-1]}_{i}" for i in range(len(types))]
    for i in op_attribute(function, attribute.replace("qcc.", "qcc.unsigned_"), []):
        if isinstance(element := types[i].element_type, ir.IntegerType):
            types[i] = ir.RankedTensorType.get(types[i].shape, ir.IntegerType.get_unsigned(element.width))
    return to_attribute([{"name": name, "type": kind} for name, kind in zip(names, types, strict=True)])
