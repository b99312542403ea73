"""Zeros around an image that are written by an operation of their own become padding of the convolutions that read it.

Before:

    %p = qcc.pad %x {low = [0, 0, 0, 0], high = [0, 0, 1, 1], value = 0.0}
    %a = qcc.conv2d %p, %w {padding = [0, 0, 0, 0]}

After:

    %a = qcc.conv2d %x, %w {padding = [0, 0, 1, 1]}

Requires: integer form (x may also be float).
Guarantees: the same bit for bit: padding holds real zeros, as the rows and columns did. More channels, and images around which something
else than zero stands, are left alone.
Why: TensorFlow's "same" padding is larger at the end of an image than at its beginning, which exporters of other frameworks write as an
operation; left alone it copies the largest images of a network.
"""

from __future__ import annotations

from typing import Any

from qcc.dialects.mlir import ir, op_attribute, to_attribute, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import affine_of, erase_dead, producer


class FoldPaddingPass(Pass):
    """See the module's docstring."""

    name = "fold-padding"

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Every convolution, through any number of paddings."""
        for op in walk(module, "qcc.conv2d"):
            while (pad := producer(op.operands[0], "qcc.pad")) is not None and _surrounds(pad):
                low, high = (op_attribute(pad, side)[2:] for side in ("low", "high"))
                padding = [a + b for a, b in zip(op_attribute(op, "padding"), [*low, *high], strict=True)]
                op.attributes["padding"] = to_attribute(padding)
                op.operands[0] = pad.operands[0]
        erase_dead(module)


def _surrounds(pad: Any) -> bool:
    """Whether `pad` does nothing but stand zeros around images."""
    low, high = (op_attribute(pad, side) for side in ("low", "high"))
    if len(low) != 4 or any(low[:2] + high[:2]) or op_attribute(pad, "value", 0.0) != 0.0:
        return False
    kind = affine_of(pad.operands[0])
    return kind is None or all(kind.qmin <= zero <= kind.qmax for zero in kind.zero_points)
