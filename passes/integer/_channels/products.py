"""What `remove-zero-channels` must know of a convolution or linear layer: which weights are zero, and what a constant input adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.dialects import element_types, integer_values, real_values
from qcc.dialects.mlir import ir, op_attribute
from qcc.passes.integer._channels.axes import Axes
from qcc.passes.values import constant_array, dequantized, float_array, producer, shape_of

Array = np.ndarray[Any, Any]
NAMES = ("qcc.conv2d", "qcc.linear")


@dataclass(frozen=True)
class Product:
    """A conv2d or linear with constant weights.

    `touched` [out, in / groups]: whether any tap is not zero. `sums` [out, in / groups]: the weights added over the taps, i64, or f64 of a
    float layer. `bias` [out], i64 or f64. `padded`: whether windows reach beyond the image, where x is its zero.
    """

    groups: int
    touched: Array
    sums: Array
    bias: Array
    padded: bool
    is_float: bool


def product(op: Any) -> Product | None:
    """The Product of `op`, or None where its weights or bias are computed, or stored so that channels cannot be taken out."""
    stored, kind = weight_constant(op)
    if stored is None or kind is None or kind.encoding is not None:
        return None
    a = element_types.affine(kind)
    is_float = not isinstance(ir.RankedTensorType(op.results[0].type).element_type, ir.IntegerType)
    if not is_float and a is not None and (a.block is not None or a.axis not in (None, 0)):
        return None
    taps = tuple(range(2, stored.ndim))
    if a is not None and not is_float:
        zero = a.expand(a.zero_points, kind.shape)
        touched = (stored != zero).any(axis=taps)
        count = int(np.prod(stored.shape[2:]))
        sums = stored.sum(axis=taps, dtype=np.int64) - zero.reshape(-1, 1) * count
    elif element_types.has_integers(kind) and not is_float:
        values = integer_values.integers(stored, kind)
        touched, sums = (values != 0).any(axis=taps), values.sum(axis=taps)
    else:
        values = real_values.decode(stored, kind)
        touched, sums = (values != 0).any(axis=taps), values.sum(axis=taps, dtype=np.float64)
    bias = _bias(op, len(stored), is_float)
    if bias is None:
        return None
    conv = op.name == "qcc.conv2d"
    padded = conv and any(op_attribute(op, "padding"))
    return Product(op_attribute(op, "groups") if conv else 1, touched, sums, bias, padded, is_float)


def channels_enter(op: Any, axes: Axes) -> bool:
    """Whether product `op` sums over the channels of its x."""
    x = op.operands[0]
    return axes.get(x) == (1 if op.name == "qcc.conv2d" else len(shape_of(x)) - 1)


def weight_constant(op: Any) -> tuple[Array | None, ir.RankedTensorType | None]:
    """Stored elements and type of the constant weights of `op`, also behind a dequantize of a real product."""
    source = dequantized(op.operands[1])
    value = op.operands[1] if source is None else source
    if producer(value, "qcc.constant") is None:
        return None, None
    return constant_array(value), ir.RankedTensorType(value.type)


def _bias(op: Any, channels: int, is_float: bool) -> Array | None:
    if len(op.operands) < 3:
        return np.zeros(channels, np.float64 if is_float else np.int64)
    found = float_array(op.operands[2]) if is_float else constant_array(op.operands[2])
    if found is None or shape_of(op.operands[2]) != [channels]:
        return None
    return found if is_float else found.astype(np.int64)
