"""State the target CPU on every function, for machine code that is not for this machine.

Before:
    llvm.func @f(...) { ... }
After (attach-target{cpu=x86-64-v3 features=+avx2,+fma}):
    llvm.func @f(...) attributes {passthrough = [["target-cpu", "x86-64-v3"], ["target-features", "+avx2,+fma"]]} { ... }

Requires: `llvm.func`s. Guarantees: every function with a body that does not state a CPU yet states this one; `cpu=native` changes nothing.
Why: the bindings' code generator always starts from this machine's CPU and features; only function attributes override both.
"""

from __future__ import annotations

from dataclasses import dataclass

from qcc.dialects.mlir import ir, python_value, walk
from qcc.passes.base import Pass, PassContext


@dataclass(frozen=True)
class TargetOptions:
    """`cpu` is LLVM's name of the CPU, `features` its target features as LLVM writes them."""

    cpu: str = "native"
    features: str = ""


class AttachTargetPass(Pass):
    name = "attach-target"
    Options = TargetOptions

    def run(self, module: ir.Module, context: PassContext) -> None:
        if self.options.cpu == "native":
            return
        stated = [["target-cpu", self.options.cpu], ["target-features", self.options.features or "+sse2"]]
        for function in walk(module, "llvm.func"):
            if not len(function.regions[0].blocks):
                continue
            found = list(function.attributes["passthrough"]) if "passthrough" in function.attributes else []
            names = {python_value(item)[0] if isinstance(item, ir.ArrayAttr) else python_value(item) for item in found}
            if "target-cpu" not in names:
                pairs = [ir.ArrayAttr.get([ir.StringAttr.get(text) for text in pair]) for pair in stated]
                function.attributes["passthrough"] = ir.ArrayAttr.get([*found, *pairs])
