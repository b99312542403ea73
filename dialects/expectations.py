"""What verifiers of the qcc dialect expect of shapes and element types; each raises `Invalid` with words for people."""

from collections.abc import Sequence
from typing import Any

from qcc.dialects import element_types, shapes
from qcc.dialects.element_types import is_float, is_integer, is_quantized
from qcc.dialects.mlir import ir
from qcc.dialects.operation import Invalid, tensor


def expect_shape(found: Sequence[int], expected: Sequence[int] | None, what: str) -> None:
    if expected is None or list(found) != list(expected):
        raise Invalid(f"result has shape {list(found)}, expected {expected and list(expected)} from {what}")


def expect_float(kind: ir.RankedTensorType, name: str) -> None:
    if not is_float(kind):
        raise Invalid(f"'{name}' has elements {kind.element_type}, expected float; insert qcc.dequantize")


def expect_same_elements(x: ir.RankedTensorType, y: ir.RankedTensorType) -> None:
    """Data movement keeps the element type; per-axis types may move their axis."""
    if x.element_type == y.element_type:
        return
    a, b = element_types.affine(x), element_types.affine(y)
    moved = a is not None and b is not None and (a.axis is not None or a.block is not None) and (a.bits, a.signed) == (b.bits, b.signed)
    if not moved:
        raise Invalid(f"elements are {x.element_type} before and {y.element_type} after, expected the same; insert qcc.requantize")


def check_same(self: Any) -> None:
    """Result of the operand's shape and elements."""
    x, y = tensor(self.x, "x"), tensor(self.y, "result")
    expect_shape(y.shape, x.shape, "the operand")
    expect_same_elements(x, y)


def check_norm(self: Any, **parameters: Any) -> None:
    """Result of the operand's shape and elements, parameters of that of its last `axes` axes."""
    x, count = tensor(self.x, "x"), self.attr("axes")
    expect_float(x, "x")
    check_same(self)
    if count > len(x.shape):
        raise Invalid(f"'axes' is {count}, expected at most {len(x.shape)} for x {x.shape}")
    for name, value in parameters.items():
        found = list(x.shape[-count:] if value is None else tensor(value, name).shape)
        if shapes.broadcast(found, x.shape[-count:]) != list(x.shape[-count:]):
            raise Invalid(f"'{name}' has shape {found}, expected {list(x.shape[-count:])}")


def expect_axes(axes: Sequence[int], rank: int) -> None:
    if len(set(axes)) != len(axes) or any(a >= rank for a in axes):
        raise Invalid(f"axes are {list(axes)}, expected distinct ones below {rank}")


def expect_compute_types(x: ir.RankedTensorType, w: ir.RankedTensorType, y: ir.RankedTensorType) -> None:
    """Float times float gives float; quantized times quantized gives an integer accumulator."""
    if is_quantized(x) and is_quantized(w):
        if not is_integer(y):
            raise Invalid(f"result is {y.element_type}, expected an integer accumulator such as i32 because both operands are quantized")
        for kind in (x, w):
            if not element_types.has_integers(kind):
                raise Invalid(f"{kind.element_type} has no integers to accumulate; insert qcc.dequantize")
            a = element_types.affine(kind)
            if a is not None and a.block is not None:
                raise Invalid(
                    "scales differ along a summed axis (sub-channel type), so no integer accumulator holds the sum; insert qcc.dequantize"
                )
    elif not (is_float(x) and is_float(w) and is_float(y)):
        raise Invalid(
            f"operands are {x.element_type} and {w.element_type}, result {y.element_type}; expected all float, or two "
            "quantized operands and an integer accumulator; insert qcc.quantize or qcc.dequantize"
        )
