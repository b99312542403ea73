"""generate-codelets: give every codelet declaration its machine-independent body in the llvm dialect.

Before:
    llvm.func @map_1f3c(!llvm.ptr, i64, i64, !llvm.ptr) attributes {qtile.codelet = {kind = "map", isa = "avx512_vnni", ...}}

After:
    llvm.func @map_1f3c(%buffers: !llvm.ptr, %begin: i64, %end: i64, %scratch: !llvm.ptr) { ... scf.for %task = %begin to %end ... }

Requires: no func.call to a codelet declared by func.func is left (both kinds of declaration are accepted).
Guarantees: every function with `qtile.codelet` is an llvm.func with a body in the llvm, scf dialects; nothing else changes.
Why: a codelet is one function per distinct configuration (`dialects/codelet.py`), made of a compute tile, steps and a loop nest
(`passes/llvm/codelets/`); `compiler/decisions/0002-codelet-abi.md` gives the calling convention.
"""

from __future__ import annotations

import importlib
from typing import Any

from qcc.dialects import codelet as configuration
from qcc.dialects.mlir import ir, op_attribute
from qcc.passes.base import Pass, PassContext
from qcc.passes.llvm.codelets.builder import Address, Builder
from qcc.passes.llvm.codelets.isa import isa


class GenerateCodeletsPass(Pass):
    name = "generate-codelets"

    def run(self, module: ir.Module, context: PassContext) -> None:
        for declaration in list(module.body.operations):
            config = op_attribute(declaration, "qtile.codelet")
            if config is None:
                continue
            symbol, location = op_attribute(declaration, "sym_name"), declaration.location
            with ir.InsertionPoint(declaration), location:
                self._function(symbol, configuration.from_config(config))
            declaration.operation.erase()

    def _function(self, symbol: str, codelet: Any) -> None:
        b = Builder(isa(codelet.isa))
        kind = ir.Type.parse("!llvm.func<void (ptr, i64, i64, ptr)>")
        facts = configuration.ISAS[codelet.isa]
        attributes: dict[str, Any] = {
            "sym_name": ir.StringAttr.get(symbol),
            "function_type": ir.TypeAttr.get(kind),
            "CConv": ir.Attribute.parse("#llvm.cconv<ccc>"),
            "linkage": ir.Attribute.parse("#llvm.linkage<external>"),
            "visibility_": ir.IntegerAttr.get(b.type("i64"), 0),
        }
        passthrough = []
        if facts.lanes == 16:
            passthrough.append(ir.ArrayAttr.get([ir.StringAttr.get("prefer-vector-width"), ir.StringAttr.get("512")]))
        if passthrough:
            attributes["passthrough"] = ir.ArrayAttr.get(passthrough)
        function = ir.Operation.create("llvm.func", attributes=attributes, regions=1)
        block = function.regions[0].blocks.append(*[b.type(t) for t in ("ptr", "i64", "i64", "ptr")])
        table, begin, end, scratch = block.arguments
        with ir.InsertionPoint(block):
            buffers = [b.load("ptr", Address(table, 8 * i)) for i in range(_buffer_count(codelet))]
            nest = importlib.import_module(f"qcc.passes.llvm.codelets.{codelet.kind}")
            if hasattr(nest, "prologue"):  # what all tasks of a call share
                nest.prologue(b, codelet, buffers, b.instructions, scratch)
            b.loop(begin, end, 1, lambda task: nest.emit(b, codelet, buffers, task, b.instructions, scratch))
            ir.Operation.create("llvm.return")


def _buffer_count(codelet: Any) -> int:
    """The output is the last buffer."""
    return codelet.y.buffer + 1
