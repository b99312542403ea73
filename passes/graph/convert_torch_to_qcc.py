"""convert-torch-to-qcc: torch operations that qcc has a word for become `qcc` operations on builtin tensors.

Before:
    %1 = torch.aten.relu %0 : !torch.vtensor<[1,8],f32> -> !torch.vtensor<[1,8],f32>
After:
    %a = torch_c.to_builtin_tensor %0 : !torch.vtensor<[1,8],f32> -> tensor<1x8xf32>
    %b = "qcc.clamp"(%a) {min = 0.0, max = 0x7FF0000000000000 : f64} : (tensor<1x8xf32>) -> tensor<1x8xf32>
    %1 = torch_c.from_builtin_tensor %b : tensor<1x8xf32> -> !torch.vtensor<[1,8],f32>

Requires: the torch dialect in the backend contract, whichever importer made it. Does nothing elsewhere.
Guarantees: every converted operation keeps its location, which begins with its layer's name (one is made up from the operation's
kind where the source has none). An operation that stays torch gets its own name below the layer's in its location, so that the
generic path can be reported in the words of the source; the reason it stays is left as a remark.
Why: conversion happens on whole torch operations, before linalg, because there a softmax is still a softmax. Operands that are
computed at run time, dynamic shapes and element types other than f32 are declined rather than approximated.
The rules are in `_torch_layers.py`, `_torch_attention.py`, `_torch_elementwise.py`, `_torch_choice.py`, `_torch_movement.py`,
`_torch_resize.py` and `_torch_quantization.py`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from qcc.dialects.mlir import ir, layer_name, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.graph import (
    _torch_attention,
    _torch_choice,
    _torch_elementwise,
    _torch_layers,
    _torch_movement,
    _torch_quantization,
    _torch_resize,
)
from qcc.passes.graph._torch_reader import RULES, Declined, Reader

# Importing them registers their rules.
_ROOMS = (_torch_attention, _torch_choice, _torch_elementwise, _torch_layers, _torch_movement, _torch_quantization, _torch_resize)

# Operations that only carry constants and lists to others.
_CARRIERS = ("torch.constant.", "torch.prim.", "torch.vtensor.literal", "torch.derefine", "torch_c.")


class ConvertTorchToQccPass(Pass):
    """See the module's docstring."""

    name = "convert-torch-to-qcc"

    def run(self, module: ir.Module, context: PassContext) -> None:
        for function in walk(module, "func.func"):
            if function.regions[0].blocks:
                self._convert(function, context)

    def _convert(self, function: Any, context: PassContext) -> None:
        reader, counts = Reader(), Counter[str]()
        ops = [op.operation for op in function.regions[0].blocks[0].operations]
        ops = [op for op in ops if op.name.startswith("torch.") and not op.name.startswith(_CARRIERS)]
        for op in ops:
            if not op.results or _is_used(op):
                reader.at(op, _named(op, counts))
                if reason := _convert(reader):
                    op.location = ir.Location.name(reader.name, ir.Location.name(op.name, op.location))
                    context.remarks.append(f"layer '{reader.name}': {op.name} takes the generic path: {reason}")
        for op in reversed(ops):
            if op.results and not _is_used(op):
                op.erase()


def _is_used(op: Any) -> bool:
    return any(list(result.uses) for result in op.results)


def _convert(reader: Reader) -> str:
    """Replace the uses of the operation that `reader` stands at; returns why not, '' where it did."""
    op = reader.op
    rule = RULES.get(op.name)
    if rule is None:
        return "qcc has no operation for it"
    try:
        values = rule(reader, op)
    except Declined as declined:
        return str(declined)
    for result, value in zip(op.results, values, strict=False):  # the rule made sure that nothing uses further results
        result.replace_all_uses_with(reader.make("torch_c.from_builtin_tensor", [value], result.type))
    return ""


def _named(op: Any, counts: Counter[str]) -> str:
    """The layer's name of `op`; where it has none, one like `conv2d_0` is put into its location."""
    if name := layer_name(op.location):
        return name
    kind = op.name.split(".")[2] if op.name.startswith("torch.aten.") else op.name.split(".")[-1]
    name = f"{kind}_{counts[kind]}"
    counts[kind] += 1
    op.location = ir.Location.name(name, op.location)
    return name
