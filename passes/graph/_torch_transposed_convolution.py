"""Transposed convolutions as convolutions: every phase of the stride is a small kernel over the input, and the phases interleave.

With stride s, output element s * q + r - padding sums x[q - m] times w[r + s * m] over m. So one convolution with ceil(kernel / s) taps and
s times the channels computes all phases r at once, and a transpose puts them between each other (sub-pixel convolution: Shi et al., "Is
the deconvolution layer the same as a convolutional layer?", 2016, section 3). No product is with a zero that was put between inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.dialects import element_types, shapes, weights
from qcc.dialects.mlir import ir
from qcc.passes.graph._torch_reader import Reader, like, owner, require


@dataclass(frozen=True)
class Phases:
    """One spatial axis: the convolution that computes all phases, and where the result lies in what it gives."""

    stride: int
    taps: int  # of each phase
    low: int  # padding of the convolution
    high: int
    dilation: int
    first: int  # elements in front of the result
    count: int

    @classmethod
    def of(cls, size: int, kernel: int, stride: int, padding: int, dilation: int, extra: int) -> Phases:
        require(stride == 1 or dilation == 1, "a transposed convolution that is both strided and dilated")
        count = (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + extra + 1
        taps = math.ceil(kernel / stride)
        begin, end = padding // stride, (padding + count - 1) // stride + 1
        low = dilation * (taps - 1) - begin
        high = end - begin - size - low + dilation * (taps - 1)
        require(low >= 0 and high >= 0, "a transposed convolution whose padding is greater than its kernel")
        return cls(stride, taps, low, high, dilation, padding - begin * stride, count)


def transposed_convolution(r: Reader, x: Any, w: Any, bias: Any, window: Sequence[Sequence[int]], groups: int) -> Any:
    """x [n, in, h, w] (builtin) by constant w [in, out / groups, kh, kw] plus bias [out].

    `window` holds for both axes strides, padding, dilations and the extra elements behind the result's last.
    """
    kind = ir.RankedTensorType(x.type)
    ins, outs, *kernel = ir.RankedTensorType(w.type).shape
    rows, columns = (Phases.of(*axis) for axis in zip(kind.shape[2:], kernel, *window, strict=True))
    count = rows.stride * columns.stride

    def phases_of(array: np.ndarray, mode: str) -> np.ndarray:
        """[in, out / groups, kh, kw] as [groups, phases, out / groups, in / groups, taps, taps], the phases' first axis flattened."""
        spare = [(0, p.taps * p.stride - k) for p, k in zip((rows, columns), kernel, strict=True)]
        array = np.pad(array, [(0, 0), (0, 0), *spare], mode=mode)  # pyright: ignore[reportCallIssue, reportArgumentType]
        split = array.reshape(groups, ins // groups, outs, rows.taps, rows.stride, columns.taps, columns.stride)[:, :, :, ::-1, :, ::-1]
        return np.ascontiguousarray(split.transpose(0, 4, 6, 2, 1, 3, 5)).reshape(-1, ins // groups, rows.taps, columns.taps)

    def repeated(array: np.ndarray, mode: str) -> np.ndarray:
        """[out] for every phase."""
        del mode
        return np.broadcast_to(array.reshape(groups, 1, outs), (groups, count, outs)).reshape(-1)

    weight = _rearranged(r, w, phases_of, axis=1)
    term = None if bias is None else _rearranged(r, bias, repeated, axis=0)
    pads, steps = [rows.low, columns.low, rows.high, columns.high], [rows.dilation, columns.dilation]
    size = shapes.conv2d(kind.shape, ir.RankedTensorType(weight.type).shape, [1, 1], pads, steps)
    y = r.make("qcc.conv2d", [x, weight, term], like(kind, size), strides=[1, 1], padding=pads, dilations=steps, groups=groups)
    if count > 1:
        n, _, high, wide = size
        y = r.reshape(y, [n, groups, rows.stride, columns.stride, outs, high, wide])
        order = [0, 1, 4, 5, 2, 6, 3]
        y = r.make("qcc.transpose", [y], like(kind, [ir.RankedTensorType(y.type).shape[axis] for axis in order]), permutation=order)
        y = r.reshape(y, [n, groups * outs, high * rows.stride, wide * columns.stride])
    result = [size[0], groups * outs, rows.count, columns.count]
    if list(ir.RankedTensorType(y.type).shape) == result:
        return y
    return r.make("qcc.slice", [y], like(kind, result), offsets=[0, 0, rows.first, columns.first], strides=[1, 1, 1, 1])


def _rearranged(r: Reader, value: Any, arrange: Callable[[np.ndarray, str], np.ndarray], axis: int) -> Any:
    """A constant (or dequantized constant, with a scale per tensor or along `axis`) whose elements `arrange` puts in another order.

    `arrange` takes numpy's mode for what it adds ("constant": zeros); axis 0 of what it gives is what `axis` became.
    """
    op = owner(value)
    require(op is not None, "weights that are computed at run time")
    kind = ir.RankedTensorType(value.type)
    described = element_types.affine(kind)
    plain = described is None and not str(kind.element_type).startswith("!")
    require(
        plain or (described is not None and described.block is None and described.axis in (None, axis)), "weights stored in this format"
    )
    if op.name in ("qcc.dequantize", "qcc.quantize") and len(op.operands) == 1:
        inner = _rearranged(r, op.operands[0], arrange, axis)
        shape = ir.RankedTensorType(inner.type).shape
        return r.make(op.name, [inner], like(kind, shape, _element(kind, arrange)))
    require(op.name == "qcc.constant", "weights that are computed at run time")
    array = weights.array_of(op.attributes["value"])
    if described is None:
        made = arrange(array, "constant")
    else:
        zeros = np.broadcast_to(described.per_axis(described.zero_points, array.ndim), array.shape)
        made = (arrange(array.astype(np.int64) - zeros, "constant") + arrange(zeros, "edge")).astype(array.dtype)
    return r.constant(made, like(kind, list(made.shape), _element(kind, arrange)))


def _element(kind: ir.RankedTensorType, arrange: Callable[[np.ndarray, str], np.ndarray]) -> ir.Type:
    """The element type once `arrange` has moved the scales and zero points with the elements."""
    a = element_types.affine(kind)
    if a is None or a.axis is None:
        return kind.element_type
    spread = (np.broadcast_to(a.per_axis(values, len(kind.shape)), list(kind.shape)) for values in (a.scales, a.zero_points))
    scales, zeros = (made.reshape(len(made), -1)[:, 0] for made in (arrange(values, "edge") for values in spread))
    return element_types.affine_type(scales, zeros, axis=0, bits=a.bits, signed=a.signed, qmin=a.qmin, qmax=a.qmax)
