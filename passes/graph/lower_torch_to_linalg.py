"""lower-torch-to-linalg: what is left of the torch dialect becomes linalg, tensor, arith and math; types become builtin.

Before:
    %1 = torch.aten.sin %0 : !torch.vtensor<[4],f32> -> !torch.vtensor<[4],f32>
    %2 = torch_c.to_builtin_tensor %1 : !torch.vtensor<[4],f32> -> tensor<4xf32>
    %3 = "qcc.clamp"(%2) ...
After:
    %1 = linalg.generic ... { math.sin } -> tensor<4xf32>
    %3 = "qcc.clamp"(%1) ...

Requires: `convert-torch-to-qcc` has taken what qcc has operations for. Does nothing where no torch type or operation is left.
Guarantees: no torch operation, type or cast remains. Raises QccError that names operation and layer where upstream cannot lower one.
Why: these are the passes of torch-mlir's `torch-backend-to-linalg-on-tensors-backend-pipeline` without its last one, a verifier that
knows no dialect but upstream's. Decomposition runs first, because the importer kept whole what qcc might have wanted.
"""

from __future__ import annotations

import re

from qcc.dialects.errors import QccError
from qcc.dialects.mlir import error_at, ir, layer_name, passmanager, walk
from qcc.passes.base import Pass, PassContext

_DECOMPOSE = "func.func(torch-decompose-complex-ops,canonicalize)"

_LOWER = """
func.func(torch-fuse-quantized-ops, torch-scalarize-shapes, convert-torch-to-tmtensor, canonicalize,
          convert-torch-to-linalg, canonicalize, convert-torch-to-scf, convert-torch-to-arith, convert-torch-to-tensor),
convert-torch-conversion-to-mlprogram,
func.func(memref-expand, canonicalize, resolve-shaped-type-result-dims, cse),
torch-func-backend-type-conversion,
func.func(canonicalize, torch-finalizing-backend-type-conversion, canonicalize)
"""


class LowerTorchToLinalgPass(Pass):
    """See the module's docstring."""

    name = "lower-torch-to-linalg"

    def run(self, module: ir.Module, context: PassContext) -> None:
        if not any(_is_torch(op) for op in walk(module)):
            return
        for pipeline in (_DECOMPOSE, _LOWER):
            try:
                manager = passmanager.PassManager.parse(f"builtin.module({pipeline})", module.context)
                manager.enable_verifier(False)  # qcc's verifiers are Python; the driver verifies after the last pass
                manager.run(module.operation)
            except ir.MLIRError as error:
                raise unsupported(error, module) from None
        for op in walk(module, "func.func"):
            for name in [n for n in op.attributes if n.startswith("torch.")]:
                del op.attributes[name]
        for op in walk(module):
            if _is_torch(op):
                raise error_at(op, f"{op.name} cannot be lowered, neither by qcc nor on the generic path of the CPU; expected an "
                                   "operation that torch-mlir brings to linalg")  # fmt: skip


def _is_torch(op: ir.Operation) -> bool:
    if op.name.startswith(("torch.", "torch_c.")):
        return True
    return op.name == "func.func" and "!torch." in str(op.attributes["function_type"])


def unsupported(error: ir.MLIRError, module: ir.Module | None = None) -> QccError:
    """Upstream's first diagnostic as a sentence that names the operation and its layer.

    Upstream may complain about a constant that the operation leaves behind; then the operation itself is looked up in `module`.
    """
    found = next(iter(error.error_diagnostics), None)
    if found is None:
        return QccError(f"the torch dialect cannot be lowered to linalg: {error}")
    message = str(found.message)
    kind = re.search(r"'(torch\.[\w.]+)'", message)
    what = kind[1] if kind else message.strip().splitlines()[0]
    if what == "torch.operator" and (named := re.search(r'name = "([^"]+)"', message)):
        what = named[1]
    location = found.location
    if what.startswith(("torch.constant.", "torch.prim.")) and module is not None:
        left = (op for op in walk(module) if op.name.startswith("torch.") and not op.name.startswith(("torch.constant.", "torch.prim.")))
        if (op := next(left, None)) is not None:
            what, location = op.name, op.location
    return QccError(
        f"{what} cannot be lowered, neither by qcc nor on the generic path of the CPU; expected an operation that torch-mlir brings to "
        "linalg; write this layer with other operations",
        layer=layer_name(location),
        location=str(location),
    )
