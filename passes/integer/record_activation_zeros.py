"""Write what was measured of every product's input, the share of it that is 0, beside the product.

Before:

    %y = qcc.linear %x, %w                                  loc("fc1")

After (record-activation-zeros{zeros=fc1=0.62}):

    %y = qcc.linear %x, %w {qcc.zeros = 6.2e-01 : f64}      loc("fc1")

Names in `zeros` are percent-encoded as in addresses; those that the module does not have are left out.

Requires: integer form. Guarantees: only discardable attributes change. Facts per layer: activation_zeros.
Why: activations are 0 where a ReLU cut them, which only data can tell (Albericio et al., "Cnvlutin", ISCA 2016, section 2);
`compiler/calibration.py` measures.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from qcc.dialects.errors import QccError
from qcc.dialects.mlir import ir, layer_name, walk
from qcc.passes.base import Pass, PassContext

_PRODUCTS = ("qcc.conv2d", "qcc.linear", "qcc.matmul", "qcc.dynamic_linear")


@dataclass(frozen=True)
class Options:
    """`zeros`: NAME=SHARE;NAME=..."""

    zeros: str = ""


class RecordActivationZerosPass(Pass):
    """See the module's docstring."""

    name = "record-activation-zeros"
    Options = Options

    def run(self, module: ir.Module, context: PassContext) -> None:
        zeros = _read(self.options.zeros)
        for op in walk(module) if zeros else ():
            if op.name in _PRODUCTS and (share := zeros.get(layer_name(op.location))) is not None:
                op.attributes["qcc.zeros"] = ir.FloatAttr.get(ir.F64Type.get(), share)
                context.fact(layer_name(op.location), activation_zeros=share)


def _read(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for item in filter(None, text.split(";")):
        name, _, share = item.rpartition("=")
        try:
            found[unquote(name)] = float(share)
        except ValueError:
            raise QccError(f"zeros has '{item}', expected NAME=SHARE") from None
        if not 0 <= found[unquote(name)] <= 1:
            raise QccError(f"zeros has '{item}', expected a share from 0 to 1")
    return found
