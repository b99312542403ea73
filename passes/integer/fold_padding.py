"""Zeros around an image that are written by an operation of their own become padding of the convolutions and means that read it.

Before:

    %p = qcc.pad %x {low = [0, 0, 0, 0], high = [0, 0, 1, 1], value = 0.0}
    %a = qcc.conv2d %p, %w {padding = [0, 0, 0, 0]}

After:

    %a = qcc.conv2d %x, %w {padding = [0, 0, 1, 1]}

A mean counts them in its divisor, as it did; one with padding of its own that does not count stays as it is.

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
        """Every convolution and mean, through any number of paddings."""
        for op in [op for op in walk(module) if op.name in ("qcc.conv2d", "qcc.avg_pool2d")]:
            while (pad := producer(op.operands[0], "qcc.pad")) is not None and _surrounds(pad):
                low, high = (op_attribute(pad, side)[2:] for side in ("low", "high"))
                padding = [a + b for a, b in zip(op_attribute(op, "padding"), [*low, *high], strict=True)]
                if op.name == "qcc.avg_pool2d":
                    if not _counts(op, padding):
                        break
                    op.attributes["count_include_pad"] = to_attribute(True)
                op.attributes["padding"] = to_attribute(padding)
                op.operands[0] = pad.operands[0]
        erase_dead(module)


def _counts(mean: Any, padding: list[int]) -> bool:
    """Whether all that stands around the image of `mean` counts in its divisor, and no window lies in it alone."""
    kernel = op_attribute(mean, "kernel")
    counts = op_attribute(mean, "count_include_pad") or not any(op_attribute(mean, "padding"))
    return counts and all(p < k for p, k in zip(padding, kernel * 2, strict=True))


def _surrounds(pad: Any) -> bool:
    """Whether `pad` does nothing but stand zeros around images."""
    low, high = (op_attribute(pad, side) for side in ("low", "high"))
    if len(low) != 4 or any(low[:2] + high[:2]) or op_attribute(pad, "value", 0.0) != 0.0:
        return False
    kind = affine_of(pad.operands[0])
    return kind is None or all(kind.qmin <= zero <= kind.qmax for zero in kind.zero_points)
