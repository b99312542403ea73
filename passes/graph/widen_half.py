"""widen-half: what a model computes in f16 or bf16 is computed in f32.

Before:
    func.func @main(%x: !torch.vtensor<[1,8],f16>) -> !torch.vtensor<[1,8],f16> {
      %y = torch.aten.relu %x : !torch.vtensor<[1,8],f16> -> !torch.vtensor<[1,8],f16>
      return %y
After:
    func.func @main(%x: !torch.vtensor<[1,8],f16>) -> !torch.vtensor<[1,8],f16> {
      %a = torch.aten.to.dtype %x, %int6, ... : !torch.vtensor<[1,8],f16> -> !torch.vtensor<[1,8],f32>
      %b = torch.aten.relu %a : !torch.vtensor<[1,8],f32> -> !torch.vtensor<[1,8],f32>
      %y = torch.aten.to.dtype %b, %int5, ... : !torch.vtensor<[1,8],f32> -> !torch.vtensor<[1,8],f16>
      return %y

Constants become f32 too, of the same values: codelets store bf16 ones in two bytes again. A conversion of f32 to a half that only
conversions back read stays, as rounding that the model asks for.

Requires: the torch dialect in the backend contract. Does nothing elsewhere, nor to functions that look at the bits of a half.
Guarantees: arguments and results keep their types. No value in between is a half, and none is rounded to one.
Why: processors multiply halves in f32 or not at all, and every codelet has f32; without roundings in between, results are nearer to what
the weights mean.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from qcc.dialects import weights
from qcc.dialects.mlir import create, ir, layer_name, op_attribute, walk
from qcc.passes.base import Pass, PassContext

F32_CODE = 6  # torch's number of the type
HALF_CODES = {"f16": 5, "bf16": 15}
_HALF = re.compile(r"(?<=[,x<])(bf16|f16)(?=>)")  # as an element type
_DTYPES = ("dtype", "output_dtype", "out_dtype")  # what operands that name the type of a result are called
_CASTS = ("torch.aten.to.dtype", "torch.aten._to_copy", "torch.prims.convert_element_type")
_CONSTANTS = ("torch.vtensor.literal", "qcc.constant")


class WidenHalfPass(Pass):
    """See the module's docstring."""

    name = "widen-half"

    def run(self, module: ir.Module, context: PassContext) -> None:
        for function in walk(module, "func.func"):
            if not function.regions[0].blocks:
                continue
            ops = list(walk(function))[1:]
            values = [v for op in ops for v in op.results] + [a for op in [function, *ops] for a in _arguments(op)]
            found = {kind for value in values if (kind := _half(value))}
            builtin = any(_half(a) and not str(a.type).startswith("!torch") for a in function.regions[0].blocks[0].arguments)
            if not found or builtin or any(op.name.endswith(".view.dtype") for op in ops):
                continue
            context.remarks.append(f"what the model computes in {' and '.join(sorted(found))} is computed in f32")
            _widen(function, ops)


def _arguments(op: Any) -> list[Any]:
    return [argument for region in op.regions for block in region.blocks for argument in block.arguments]


def _half(value: Any) -> str:
    """f16 or bf16 where that is the element type of `value`, a tensor or a list of tensors."""
    text = str(value.type)
    match = _HALF.search(text) if "tensor<" in text else None
    return match[1] if match else ""


def _widen(function: Any, ops: list[Any]) -> None:
    kept = [op for op in ops if _is_rounding(op)]
    for op in ops:
        if op in kept:
            continue
        if op.name in _CONSTANTS and _half(op.results[0]):
            value = op.attributes["value"]
            array = weights.array_of(value).astype(np.float32)
            op.attributes["value"] = weights.constant_attribute(array, layer_name(op.location))
        _set_dtype(op)
        for value in [*op.results, *_arguments(op)]:
            _set_f32(value)
    block = function.regions[0].blocks[0]
    for argument in [a for a in block.arguments if _half(a)]:
        uses = [(use.owner.operation, use.operand_number) for use in argument.uses]
        widened = _cast(argument, "f32", ir.InsertionPoint.at_block_begin(block))
        for user, number in uses:
            user.operands[number] = widened
    end = block.operations[len(block.operations) - 1].operation
    results = ir.FunctionType(op_attribute(function, "function_type")).results
    for number, (value, kind) in enumerate(zip(list(end.operands), results, strict=True)):
        if value.type != kind:
            match = _HALF.search(str(kind))
            assert match is not None
            end.operands[number] = _cast(value, match[1], ir.InsertionPoint(end))


def _is_rounding(op: Any) -> bool:
    """Whether `op` makes halves of f32 that only conversions to f32 read."""
    if op.name not in _CASTS or not _half(op.results[0]) or _half(op.operands[0]):
        return False
    readers = [use.owner.operation for use in op.results[0].uses]
    return all(reader.name in _CASTS and str(reader.results[0].type).endswith(",f32>") for reader in readers)


def _set_f32(value: Any) -> None:
    if _half(value):
        value.set_type(ir.Type.parse(_HALF.sub("f32", str(value.type))))


def _set_dtype(op: Any) -> None:
    """An operand that asks for a half asks for f32."""
    for name in _DTYPES:
        asked = getattr(op.opview, name, None)
        maker: Any = None if asked is None else asked.owner
        if isinstance(maker, ir.Operation | ir.OpView) and op_attribute(maker, "value") in HALF_CODES.values():
            number = max(i for i, operand in enumerate(op.operands) if operand == asked)  # an axis, before it, may be the same number
            op.operands[number] = _constant("int", ir.InsertionPoint(op), value=F32_CODE)


def _cast(value: Any, element: str, ip: ir.InsertionPoint) -> Any:
    kind = ir.Type.parse(re.sub(r"\w+>$", f"{element}>", str(value.type)))
    code = _constant("int", ip, value={"f32": F32_CODE, **HALF_CODES}[element])
    no, none = _constant("bool", ip, value=False), _constant("none", ip)
    return create("torch.aten.to.dtype", [value, code, no, no, none], [kind], loc=_location(value), ip=ip).results[0]


def _constant(kind: str, ip: ir.InsertionPoint, **attributes: Any) -> Any:
    result = ir.Type.parse(f"!torch.{kind}")
    return create(f"torch.constant.{kind}", [], [result], attributes, loc=ir.Location.unknown(), ip=ip).results[0]


def _location(value: Any) -> ir.Location:
    """Of what makes `value`; of its first reader, where that is an argument."""
    owner = value.owner
    if isinstance(owner, ir.Block):
        owner = next((use.owner for use in value.uses), owner.owner)
    return owner.operation.location
