"""Arguments and results that hold stored integers take the quantized type itself.

Before::

    func.func @main(%x: tensor<4xi8>) -> tensor<4xi8> {
      %q = quant.scast %x : tensor<4xi8> to tensor<4x!quant.uniform<u8:f32, 0.5>>
      ...
      %i = quant.scast %y : tensor<4x!quant.uniform<i8:f32, 0.25>> to tensor<4xi8>
      return %i : tensor<4xi8>

After::

    func.func @main(%q: tensor<4x!quant.uniform<u8:f32, 0.5>>) -> tensor<4x!quant.uniform<i8:f32, 0.25>> {
      ...
      return %y : tensor<4x!quant.uniform<i8:f32, 0.25>>

Requires: builtin types; public functions of one block.
Guarantees: no `quant.scast` between an argument or a result and the quantized value; a cast there and back is gone.
Why: the bytes are the same, and the type tells the caller (and the artefact's metadata) signedness, scale and zero point.
"""

from __future__ import annotations

from typing import Any

from qcc.dialects.mlir import ir, walk
from qcc.passes.base import Pass, PassContext

CAST = "quant.scast"


class FoldStorageCastsPass(Pass):
    """See the module's docstring."""

    name = "fold-storage-casts"

    def run(self, module: ir.Module, context: PassContext) -> None:
        for op in walk(module, CAST):
            source = _producer(op.operands[0])
            if source is not None and source.operands[0].type == op.results[0].type and _is_quantized(op.results[0].type):
                op.results[0].replace_all_uses_with(source.operands[0])
        for function in [op for op in walk(module, "func.func") if "sym_visibility" not in op.attributes]:
            if len(function.regions[0].blocks) == 1:
                _fold_boundary(function)
        for op in reversed(list(walk(module, CAST))):
            if not list(op.results[0].uses):
                op.erase()


def _producer(value: Any) -> Any:
    """The cast that makes `value`, or None."""
    owner = value.owner
    return owner.operation if isinstance(owner, ir.Operation | ir.OpView) and owner.operation.name == CAST else None


def _is_quantized(kind: ir.Type) -> bool:
    return str(ir.RankedTensorType(kind).element_type).startswith("!")


def _fold_boundary(function: Any) -> None:
    block = function.regions[0].blocks[0]
    for argument in block.arguments:
        users = [use.owner.operation for use in argument.uses]
        kinds = {user.results[0].type for user in users if user.name == CAST}
        if len(kinds) == 1 and all(user.name == CAST for user in users) and _is_quantized(next(iter(kinds))):
            argument.set_type(next(iter(kinds)))
            for user in users:
                user.results[0].replace_all_uses_with(argument)
                user.erase()
    terminator = block.operations[len(block.operations) - 1].operation
    for index, value in enumerate(terminator.operands):
        cast = _producer(value)
        if cast is not None and _is_quantized(cast.operands[0].type):
            terminator.operands[index] = cast.operands[0]
    kind = ir.FunctionType.get([a.type for a in block.arguments], [v.type for v in terminator.operands])
    function.attributes["function_type"] = ir.TypeAttr.get(kind)
