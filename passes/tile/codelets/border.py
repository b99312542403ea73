"""How far outside of its input a padded convolution reads."""

from __future__ import annotations

from typing import Any

from qcc.dialects.mlir import op_attribute
from qcc.passes.values import shape_of


def read_border(op: Any) -> list[int]:
    """[top, left, bottom, right] pixels outside of its input that conv2d `op` reads: the padding, less what its stride never reaches."""
    x, w, y = (shape_of(v) for v in (op.operands[0], op.operands[1], op.results[0]))
    strides, padding, dilations = (op_attribute(op, name) for name in ("strides", "padding", "dilations"))
    far = [max(0, (y[2 + i] - 1) * strides[i] + dilations[i] * (w[2 + i] - 1) + 1 - padding[i] - x[2 + i]) for i in (0, 1)]
    return [padding[0], padding[1], *far]
