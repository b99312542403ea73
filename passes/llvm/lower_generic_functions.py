"""Lower generic functions on buffers to LLVM functions with the codelet ABI.

Before:
    llvm.func @generic_0(!llvm.ptr, i64, i64, !llvm.ptr) attributes {qcc.generic = "cumsum"}          // declared by emit-step-table
    func.func private @generic_0.body(%x: memref<4x8xf32>, %s: memref<256xi8>, %y: memref<4x8xf32>) attributes {qcc.generic = "cumsum"} {
      linalg.generic ...
    }
After:
    llvm.func @generic_0(%buffers: !llvm.ptr, %begin: i64, %end: i64, %scratch: !llvm.ptr) {
      ... = llvm.load %buffers[0..2]
      llvm.call @generic_0.body(...)
      llvm.return
    }
    llvm.func internal @generic_0.body(%x: !llvm.ptr {llvm.noalias}, ...) { loops }

Requires: what `bufferize-generic-functions` and `emit-step-table` leave.
Guarantees: no `func.func` with `qcc.generic` and no `memref.global` of its own is left, only llvm.
Why: one task that ignores its range is a codelet like any other; bare pointers instead of memref descriptors, because shapes are static;
`noalias`, because operands are different allocations, lets LLVM vectorize without checks.
"""

from __future__ import annotations

from typing import Any

from qcc.dialects.mlir import error_at, ir, op_attribute, run_upstream, walk
from qcc.passes.base import Pass, PassContext

LOOPS = (
    "func.func(tm-tensor-to-loops,refback-munge-memref-copy,convert-linalg-to-loops),"
    "arith-emulate-unsupported-floats{source-types=bf16,f8E4M3FN,f8E5M2 target-type=f32},math-extend-to-supported-types"
)
LOWER = (
    "canonicalize,convert-complex-to-standard,convert-scf-to-cf,expand-strided-metadata,lower-affine,"
    "func.func(refback-expand-ops-for-llvm),arith-expand{include-bf16=true include-f8e8m0=true},"
    "convert-math-to-llvm,convert-math-to-libm,convert-complex-to-llvm,convert-ub-to-llvm,memref-expand,"
    "finalize-memref-to-llvm,convert-index-to-llvm,convert-arith-to-llvm,convert-cf-to-llvm,"
    "convert-func-to-llvm{use-bare-ptr-memref-call-conv=true},convert-cf-to-llvm,reconcile-unrealized-casts"
)


class LowerGenericFunctionsPass(Pass):
    name = "lower-generic-functions"

    def run(self, module: ir.Module, context: PassContext) -> None:
        declared = {op_attribute(f, "sym_name"): f for f in walk(module, "llvm.func")}
        for function in [f for f in walk(module, "func.func") if "qcc.generic" in f.attributes]:
            name = op_attribute(function, "sym_name").removesuffix(".body")
            if name not in declared:
                raise error_at(function, f"generic function '{name}' is not declared for LLVM; emit-step-table runs before this pass")
            _lower(module, function, declared[name], name)


def _lower(module: ir.Module, function: Any, declaration: Any, name: str) -> None:
    reason, count = op_attribute(function, "qcc.generic"), len(function.regions[0].blocks[0].arguments)
    memrefs = [isinstance(a.type, ir.MemRefType) for a in function.regions[0].blocks[0].arguments]
    noalias = ir.DictAttr.get({"llvm.noalias": ir.UnitAttr.get()})
    function.attributes["arg_attrs"] = ir.ArrayAttr.get([noalias if m else ir.DictAttr.get({}) for m in memrefs])
    alone = ir.Module.create(loc=function.location)
    used = {op_attribute(op, "name") for op in walk(function, "memref.get_global")}
    for op in [op for op in module.body.operations if op.operation.name == "memref.global" and op_attribute(op, "sym_name") in used]:
        op.operation.detach_from_parent()
        alone.body.append(op)
    alone.body.append(function.clone())
    try:
        _run(alone, LOOPS)
        _round_every_result(alone)
        _run(alone, LOWER)
    except ir.MLIRError as error:
        words = "; ".join(d.message for d in error.error_diagnostics) or str(error)
        raise error_at(function, f"the generic path cannot lower '{reason}' to LLVM: {words}") from None
    function.erase()
    known = {op_attribute(f, "sym_name") for f in walk(module, "llvm.func")}
    for op in list(alone.body.operations):
        symbol = op_attribute(op, "sym_name")
        if op.operation.name == "llvm.func" and symbol in known:
            continue  # a declaration of a library function that another generic function has brought
        if symbol == f"{name}.body":
            op.attributes["linkage"] = ir.Attribute.parse("#llvm.linkage<internal>")
        op.operation.detach_from_parent()
        module.body.append(op)
    parsed = ir.Module.parse(_wrapper(name, count), module.context)
    definition = parsed.body.operations[1]
    definition.operation.detach_from_parent()
    definition.attributes["qcc.generic"] = ir.StringAttr.get(reason)
    ir.InsertionPoint(declaration).insert(definition)
    declaration.erase()


def _run(module: ir.Module, pipeline: str) -> None:
    run_upstream(f"builtin.module({pipeline})", module.operation)


def _round_every_result(module: ir.Module) -> None:
    """Forbid folding the conversions between emulated operations away: torch and ONNX round every bf16 result."""
    for name in ("arith.truncf", "arith.extf"):
        for op in walk(module, name):
            if "fastmath" in op.attributes:
                del op.attributes["fastmath"]


def _wrapper(name: str, count: int) -> str:
    lines = [
        f'llvm.func @"{name}.body"({", ".join(["!llvm.ptr"] * count)})',
        f'llvm.func @"{name}"(%b: !llvm.ptr, %i: i64, %j: i64, %s: !llvm.ptr) {{',
    ]
    for i in range(count):
        lines.append(f"%a{i} = llvm.getelementptr %b[{i}] : (!llvm.ptr) -> !llvm.ptr, !llvm.ptr")
        lines.append(f"%p{i} = llvm.load %a{i} : !llvm.ptr -> !llvm.ptr")
    arguments, kinds = ", ".join(f"%p{i}" for i in range(count)), ", ".join(["!llvm.ptr"] * count)
    lines += [f'llvm.call @"{name}.body"({arguments}) : ({kinds}) -> ()', "llvm.return", "}"]
    return "\n".join(lines)
