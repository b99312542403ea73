"""Make every function internal except the one that gives the program's address.

Before:
    llvm.func @codelet(...) { ... }
    llvm.func @qcc_program_address() -> !llvm.ptr { ... }
After:
    llvm.func internal @codelet(...) { ... }
    llvm.func @qcc_program_address() -> !llvm.ptr { ... }

Requires: the llvm form, all bodies generated. Guarantees: declarations of library functions stay as they are.
Why: the bindings' code generator wraps every external function, for the CPU of this machine, and may inline a codelet's whole body into
its wrapper: twice the code, and instructions that another CPU does not have. Codelets are reached through the step table only.
"""

from __future__ import annotations

from qcc.dialects.mlir import ir, op_attribute, walk
from qcc.passes.base import Pass, PassContext

ENTRY = "qcc_program_address"


class InternalizeFunctionsPass(Pass):
    name = "internalize-functions"

    def run(self, module: ir.Module, context: PassContext) -> None:
        internal = ir.Attribute.parse("#llvm.linkage<internal>")
        for function in walk(module, "llvm.func"):
            if len(function.regions[0].blocks) and op_attribute(function, "sym_name") != ENTRY:
                function.attributes["linkage"] = internal
