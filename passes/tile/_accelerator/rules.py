"""Which operations of the integer form the accelerator can run, and why not where it cannot.

A tensor on the accelerator has a *channel axis*, whose elements are bits of words; the other axes count pixels, in
their logical order. A
convolution has its channels on axis 1, a linear layer on its last axis; reshapes and transposes that keep the order
of pixels and the channels
together are views that cost nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.dialects import bitplanes
from qcc.dialects.mlir import ir, op_attribute
from qcc.passes.values import affine_of, constant_array, per_tensor, producer, shape_of, used_once, users
from qcc.runtime.fpga.isa import ACCUMULATOR_BITS, MAX_ACTIVATION_PLANES, MAX_SHIFT, MAX_WEIGHT_PLANES

PRODUCTS = ("qcc.conv2d", "qcc.linear", "qcc.matmul")
VIEWS = ("qcc.reshape", "qcc.transpose")
FLAT = -1  # channel axis of a tensor [n, everything else] whose elements lie as those of the tensor it was reshaped from
MAX_TAPS = 255

NO_FUNCTION = {
    "qcc.lut": "the post unit has no look-up table",
    "qcc.mul": "the post unit multiplies by constants only",
    "qcc.slice": "it moves single channels or pixels",
    "qcc.pad": "it is not part of a convolution",
    "qcc.broadcast": "it repeats data",
    "qcc.quantize": "its input is real",
    "qcc.dequantize": "its result is real",
}


class Refused(Exception):
    """Why an operation runs on the host."""


@dataclass
class Decision:
    """Per operation of a function: `reasons` why it runs on the host, None for the accelerator; `axes` of accelerator values."""

    reasons: dict[Any, str | None]
    axes: dict[Any, int]


def decide(operations: list[Any]) -> Decision:
    """Decide for `operations` of one function in program order. Constants and the return are left out."""
    forced: dict[Any, str] = {}
    while True:
        decision, changed = _pass_once(operations, forced)
        if not changed:
            return decision


def _pass_once(operations: list[Any], forced: dict[Any, str]) -> tuple[Decision, bool]:
    """One forward walk; adds to `forced` what must go to the host so that the rest agrees."""
    decision = Decision({}, {})
    for op in operations:
        if op in forced:
            decision.reasons[op] = forced[op]
            continue
        try:
            axis = _axis_of_result(op, decision.axes)
        except _Misplaced as conflict:
            view = _nearest_view(conflict.value, decision.axes)
            forced[view or op] = (
                f"channels of the next layer lie on axis {conflict.wanted}, of its input on axis "
                f"{conflict.found}: bits must be moved between words"
            )
            return decision, True
        except Refused as reason:
            decision.reasons[op] = str(reason)
            continue
        decision.reasons[op] = None
        decision.axes[op.results[0]] = axis
    for op in reversed(operations):
        if op.name in VIEWS and decision.reasons[op] is None and not any(_on_accelerator(u, decision) for u in users(op.results[0])):
            forced[op] = "nothing behind it runs on the accelerator"
            return decision, True
    return decision, False


def _on_accelerator(op: Any, decision: Decision) -> bool:
    return op in decision.reasons and decision.reasons[op] is None


class _Misplaced(Exception):
    def __init__(self, value: Any, found: int, wanted: int) -> None:
        super().__init__()
        self.value, self.found, self.wanted = value, found, wanted


def _nearest_view(value: Any, axes: dict[Any, int]) -> Any:
    op = producer(value, *VIEWS)
    return op if op is not None and value in axes else None


def _demand(value: Any, axis: int, axes: dict[Any, int]) -> None:
    if axes.get(value, axis) != axis:
        raise _Misplaced(value, axes[value], axis)


def _axis_of_result(op: Any, axes: dict[Any, int]) -> int:
    """Channel axis of the result of `op` on the accelerator. Raises Refused."""
    if op.name in PRODUCTS:
        return _product(op, axes)
    if op.name in VIEWS:
        if op.operands[0] not in axes:
            raise Refused("its input comes from the host")
        return view_axis(op, axes[op.operands[0]])
    if op.name == "qcc.requantize":
        return _requantize(op, axes)
    if op.name in ("qcc.add", "qcc.sub"):
        return _sum(op, axes)
    if op.name in ("qcc.max_pool2d", "qcc.avg_pool2d"):
        return _pool(op, axes)
    if op.name == "tensor.concat":
        return _concat(op, axes)
    if op.name == "func.call":
        raise Refused(op_attribute(op, "qcc.generic") or "it has no operation in qcc (generic path)")
    raise Refused(NO_FUNCTION.get(op.name, "no post-unit function"))


def _activation(value: Any) -> Any:
    """Affine parameters of an activation that fits the datapath; raises Refused."""
    kind = per_tensor(value)
    if isinstance(ir.RankedTensorType(value.type).element_type, ir.FloatType):
        raise Refused("it computes on real numbers")
    if kind is None:
        raise Refused(f"its input is {ir.RankedTensorType(value.type).element_type}, expected one scale per tensor")
    if kind.bits > MAX_ACTIVATION_PLANES:
        raise Refused(f"its input has {kind.bits} bits, the array takes up to {MAX_ACTIVATION_PLANES}")
    if constant_array(value) is not None:
        raise Refused("one of its operands is a constant tensor")
    return kind


def weight_operand(op: Any) -> np.ndarray | None:
    """Integer weights minus their zero points of a product: [o, c/groups, kh, kw], or [out, in]; None where they are computed."""
    value = op.operands[1]
    stored, kind = constant_array(value), affine_of(value)
    if stored is None or kind is None or kind.block is not None:
        return None
    weights = stored.astype(np.int64) - kind.expand(kind.zero_points, stored.shape)
    return weights.T if op.name == "qcc.matmul" and weights.ndim == 2 else weights


def _product(op: Any, axes: dict[Any, int]) -> int:
    x, result = op.operands[0], op.results[0]
    element = ir.RankedTensorType(result.type).element_type
    if not isinstance(element, ir.IntegerType):
        raise Refused("it computes on real numbers")
    _activation(x)
    if constant_array(op.operands[1]) is None:
        raise Refused("both of its operands are computed, the array needs constant weights")
    weights = weight_operand(op)
    if weights is None or weights.ndim not in (2, 4):
        raise Refused(
            f"its weights are {ir.RankedTensorType(op.operands[1].type).element_type}, expected affine ones per tensor or channel"
        )
    if element.width > ACCUMULATOR_BITS:
        raise Refused(f"its accumulator needs {element.width} bits, the array has {ACCUMULATOR_BITS}")
    planes, _ = bitplanes.planes_of(int(weights.min(initial=0)), int(weights.max(initial=0)))
    if planes > MAX_WEIGHT_PLANES:
        raise Refused(f"its weights need {planes} bit-planes, the array takes up to {MAX_WEIGHT_PLANES}")
    if len(op.operands) > 2 and constant_array(op.operands[2]) is None:
        raise Refused("its bias is computed")
    if op.name == "qcc.conv2d":
        if max(weights.shape[2:] + tuple(op_attribute(op, "dilations")) + tuple(op_attribute(op, "strides"))) > MAX_TAPS:
            raise Refused(f"its window is larger than {MAX_TAPS}")
        _demand(x, 1, axes)
        return 1
    last = len(shape_of(x)) - 1
    if axes.get(x) != FLAT:
        _demand(x, last, axes)
    return last


def _fixed(op: Any, words: str) -> None:
    if op_attribute(op, "mode", "f32") != "fixed":
        raise Refused(f"{words} in mode f32, the post unit computes in mode fixed; run lower-requantize-to-fixed")
    shift = np.asarray(op_attribute(op, "shift"))
    if shift.min() < 0 or shift.max() > MAX_SHIFT:
        raise Refused(f"it shifts by {shift.min()}..{shift.max()}, the post unit by 0..{MAX_SHIFT}")


def _result(op: Any) -> None:
    kind = per_tensor(op.results[0])
    if kind is None or kind.bits > MAX_ACTIVATION_PLANES:
        raise Refused(
            f"its result is {ir.RankedTensorType(op.results[0].type).element_type}, expected at most {MAX_ACTIVATION_PLANES} bits"
        )


def _default_axis(value: Any) -> int:
    rank = len(shape_of(value))
    if rank < 2:
        raise Refused("it has no axis of channels")
    return 1 if rank == 4 else rank - 1


def _requantize(op: Any, axes: dict[Any, int]) -> int:
    _fixed(op, "it requantizes")
    _result(op)
    x = op.operands[0]
    if len(op.operands) > 1 and constant_array(op.operands[1]) is None:
        raise Refused("its bias is computed")
    axis = axes.get(x)
    if per_tensor(x) is None:  # an accumulator
        if axis is None or producer(x, *PRODUCTS) is None or not used_once(x):
            raise Refused("its accumulator is not that of a layer in front of it alone")
    else:
        _activation(x)
        axis = _default_axis(x) if axis is None else axis
    if np.asarray(op_attribute(op, "multiplier")).size > 1 and op_attribute(op, "axis") != axis:
        raise Refused(f"its multipliers lie on axis {op_attribute(op, 'axis')}, the channels on axis {axis}")
    return axis


def _sum(op: Any, axes: dict[Any, int]) -> int:
    if op_attribute(op, "multipliers") is None:
        raise Refused("it computes on real numbers")
    _result(op)
    _fixed(op, "it adds")
    tensors = [v for v in op.operands if constant_array(v) is None]
    if not tensors:
        raise Refused("both of its operands are constant")
    for value in tensors:
        _activation(value)
        if shape_of(value) != shape_of(op.results[0]):
            raise Refused("it broadcasts an operand")
    known = [axes[v] for v in tensors if v in axes]
    axis = known[0] if known else _default_axis(tensors[0])
    if axis == FLAT:
        raise Refused("it adds flattened tensors")
    for value in tensors:
        _demand(value, axis, axes)
    for value in op.operands:
        if constant_array(value) is not None and channel_constant(value, shape_of(op.results[0]), axis) is None:
            raise Refused("one of its operands is a constant tensor that differs from pixel to pixel")
    return axis


def channel_constant(value: Any, shape: list[int], axis: int) -> np.ndarray | None:
    """Stored integers per channel of a quantized constant that broadcasts along `axis` of `shape` only, else None."""
    stored, kind = constant_array(value), per_tensor(value)
    if stored is None or kind is None or kind.bits > MAX_ACTIVATION_PLANES:
        return None
    sizes = [1] * (len(shape) - stored.ndim) + list(stored.shape)
    if len(sizes) != len(shape) or any(size != 1 for place, size in enumerate(sizes) if place != axis):
        return None
    return np.broadcast_to(stored.reshape(-1).astype(np.int64), (shape[axis],))


def _pool(op: Any, axes: dict[Any, int]) -> int:
    _activation(op.operands[0])
    _result(op)
    kernel, padding = op_attribute(op, "kernel"), op_attribute(op, "padding")
    if max(kernel) > MAX_TAPS or (op.name == "qcc.max_pool2d" and math.prod(kernel) > MAX_TAPS):
        raise Refused(f"its window of {kernel} is larger than {MAX_TAPS}")
    if op.name == "qcc.avg_pool2d":
        if op_attribute(op, "multipliers") is None:
            raise Refused("it computes on real numbers")
        _fixed(op, "it averages")
        if any(padding) and not op_attribute(op, "count_include_pad"):
            raise Refused("its windows at the border have other counts")
    elif op.operands[0].type.element_type != op.results[0].type.element_type:
        raise Refused("it changes the number format")
    _demand(op.operands[0], 1, axes)
    return 1


def _concat(op: Any, axes: dict[Any, int]) -> int:
    dim = op_attribute(op, "dim")
    _result(op)
    for value in op.operands:
        _activation(value)
        if value.type.element_type != op.results[0].type.element_type:
            raise Refused("its operands have other number formats than its result")
    known = [axes[v] for v in op.operands if v in axes]
    if not known:
        raise Refused("nothing in front of it runs on the accelerator")
    for value in op.operands:
        _demand(value, dim, axes)
    return dim


def flat_kernel(shape: list[int], axis: int) -> tuple[int, int]:
    """Window that covers the pixels of one image [n, ...] with channels on `axis`."""
    return (shape[2], shape[3]) if len(shape) == 4 and axis == 1 else (1, math.prod(shape[1:]) // shape[axis])


def view_axis(op: Any, axis: int) -> int:
    """Channel axis of the result of a reshape or transpose that only renames pixels. Raises Refused for one that moves bits."""
    source, target = shape_of(op.operands[0]), shape_of(op.results[0])
    if axis == FLAT:
        raise Refused("it moves channels between words")
    if op.name == "qcc.transpose":
        order = op_attribute(op, "permutation")
        pixels = [a for a in order if a != axis and source[a] != 1]
        if pixels != sorted(pixels):
            raise Refused("it changes the order of pixels")
        return order.index(axis)
    before, channels = math.prod(source[:axis]), source[axis]
    for place, size in enumerate(target):
        if size == channels and math.prod(target[:place]) == before:
            return place
    kept = next((i for i, (a, b) in enumerate(zip(source, target, strict=False)) if a != b), len(target) - 1)
    if (
        len(target) == 2
        and kept == 1
        and source[0] == target[0]
        and axis > 0
        and all(u.name in ("qcc.linear", "qcc.matmul") and u.operands[0] == op.results[0] for u in users(op.results[0]))
    ):
        if max(flat_kernel(source, axis)) > MAX_TAPS:
            raise Refused(f"it flattens more than {MAX_TAPS} pixels in a row")
        return FLAT
    raise Refused("it moves channels between words")
