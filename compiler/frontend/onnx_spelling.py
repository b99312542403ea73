"""Operators spelled by others, because torch-mlir converts those right, or whole.

* DepthToSpace and SpaceToDepth are a Reshape, a Transpose and a Reshape: upstream confuses the axes of mode CRD.
* Constant numbers of Gather count from the front: upstream computes at run time what negative ones mean.
* GatherND that selects by one number, or by several constant ones, is Gather along one axis.
* HardSigmoid is a Mul, an Add and a Clip: upstream knows none of other slopes than torch's.
* Pooling in ceil mode is pooling in floor mode with more padding behind: upstream shares out what windows reach beyond the image.
* Gemm without a third operand has its factor behind it: upstream forgets that.
* MatMul of a vector and a stack of matrices is one of matrices: upstream makes an operation of it that nothing lowers.
* AffineGrid is a MatMul with the places of the pixels.
* Col2Im is a ConvTranspose with one tap of each kernel.
* ConvTranspose that cuts off more behind than before is a Slice of one that does not.
* Resize in rare forms is Gather or MatMul with constants along each axis (`onnx_resize`).
* A dequantized number is a number: what Pad and Clip take has to be known. Scales are positive: ONNX Runtime's quantizer of 4-bit
  weights gives negative ones, so that the greatest value of a block is exact, and zeros for blocks of zeros.
* Slices that step backwards select their elements by number, by Gather: torch's slices cannot step backwards.
"""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import onnx
from onnx import helper

from qcc.compiler.frontend import onnx_expansion, onnx_resize
from qcc.compiler.frontend.onnx_expansion import Expansion, Rule
from qcc.compiler.frontend.onnx_graph import OnnxGraph, attributes


def spell_out(graph: OnnxGraph) -> None:
    """Rewrite in place; needs `graph.kinds`, and leaves them inferred."""
    if onnx_expansion.expand(graph, lambda source: _RULES.get(source.op_type) if _is_static(graph, source) else None):
        graph.infer()


def _is_static(graph: OnnxGraph, source: onnx.NodeProto) -> bool:
    return not source.domain and bool(source.input) and None not in graph.kinds.get(source.input[0], (0, (None,)))[1]


def _depth_to_space(e: Expansion) -> None:
    """Channels are (block row, block column, depth) in mode DCR, (depth, block row, block column) in mode CRD."""
    n, c, h, w = e.shape(0)
    block = attributes(e.source)["blocksize"]
    depth = c // (block * block)
    if attributes(e.source).get("mode", "DCR") == "DCR":
        _move(e, [n, block, block, depth, h, w], [0, 3, 4, 1, 5, 2], [n, depth, h * block, w * block])
    else:
        _move(e, [n, depth, block, block, h, w], [0, 1, 4, 2, 5, 3], [n, depth, h * block, w * block])


def _space_to_depth(e: Expansion) -> None:
    n, c, h, w = e.shape(0)
    block = attributes(e.source)["blocksize"]
    rows, columns = h // block, w // block
    order = [0, 3, 5, 1, 2, 4] if attributes(e.source).get("mode", "DCR") == "DCR" else [0, 1, 3, 5, 2, 4]
    _move(e, [n, c, rows, block, columns, block], order, [n, c * block * block, rows, columns])


def _move(e: Expansion, split: list[int], order: list[int], joined: list[int]) -> None:
    taken_apart = e.add("Reshape", [e.input(0), e.graph.constant(np.array(split), "shape")])
    moved = e.add("Transpose", [taken_apart], perm=order)
    e.add("Reshape", [moved, e.graph.constant(np.array(joined), "shape")], e.source.output[0])


def _backwards(e: Expansion) -> None:
    parameters = [array for i in range(1, 5) if (array := e.graph.array(e.input(i))) is not None]
    if len(parameters) < 4 or all(step > 0 for step in parameters[3].reshape(-1)):
        return
    shape, value = e.shape(0), e.input(0)
    starts, ends, axes, steps = ([int(v) for v in array.reshape(-1)] for array in parameters)
    for i, (start, end, axis, step) in enumerate(zip(starts, ends, axes, steps, strict=True)):
        stop = None if step < 0 and end < -shape[axis] else end
        chosen = e.graph.constant(np.arange(shape[axis])[slice(start, stop, step)], "indices")
        value = e.add("Gather", [value, chosen], e.source.output[0] if i + 1 == len(axes) else "", axis=axis)


def _from_the_front(e: Expansion) -> None:
    numbers, axis = e.graph.array(e.input(1)), attributes(e.source).get("axis", 0)
    if numbers is not None and (numbers < 0).any():
        chosen = e.graph.constant(np.where(numbers < 0, numbers + e.shape(0)[axis], numbers), "indices")
        e.add("Gather", [e.input(0), chosen], e.source.output[0], axis=axis)


def _along_one_axis(e: Expansion) -> None:
    """Numbers [.., depth] select along the first `depth` axes."""
    numbers, depth = e.graph.array(e.input(1)), e.graph.kinds[e.input(1)][1][-1] or 0
    if attributes(e.source).get("batch_dims", 0) or (numbers is None and depth != 1):
        return
    table, shape = e.input(0), e.shape(0)
    if depth > 1:
        table = e.add("Reshape", [table, e.graph.constant(np.array([math.prod(shape[:depth]), *shape[depth:]]), "shape")])
    if numbers is None:
        chosen = e.add("Squeeze", [e.input(1), e.graph.constant(np.array([-1]), "axis")])
    else:
        sizes = np.array(shape[:depth])
        flat = np.ravel_multi_index(tuple(np.moveaxis(numbers % sizes, -1, 0)), tuple(sizes))
        chosen = e.graph.constant(np.asarray(flat), "indices")
    e.add("Gather", [table, chosen], e.source.output[0], axis=0)


def _pool(e: Expansion) -> None:
    """In ceil mode what windows reach beyond the image is padding behind it; padding that counts becomes part of the image before."""
    given, x = attributes(e.source), e.input(0)
    kernel, image, result = given["kernel_shape"], e.shape(0)[2:], [size or 0 for size in e.graph.kinds[e.source.output[0]][1][2:]]
    rank, counted = len(kernel), given.pop("count_include_pad", 0)
    steps, spans, pads = given.get("strides", [1] * rank), given.get("dilations", [1] * rank), given.get("pads", [0] * 2 * rank)
    low, high = pads[:rank], pads[rank:]
    if not given.pop("ceil_mode", 0) or len(e.source.output) > 1:
        return
    reached = [(n - 1) * step + span * (k - 1) + 1 for n, step, span, k in zip(result, steps, spans, kernel, strict=True)]
    high = [max(r - before - size, after) for r, before, size, after in zip(reached, low, image, high, strict=True)]
    if counted and any(pads):
        low, high, whole = [0] * rank, [after - p for after, p in zip(high, pads[rank:], strict=True)], [0, 0, *low, 0, 0, *pads[rank:]]
        x = e.add("Pad", [x, e.graph.constant(np.array(whole), "pads")])
    e.add(e.source.op_type, [x], e.source.output[0], **{**given, "pads": low + high})


def _col2im(e: Expansion) -> None:
    """Columns [n, c * kernel, positions]: each is one channel, which a kernel of a single one puts in its place."""
    image, kernel = (e.graph.array(e.input(i)) for i in (1, 2))
    if image is None or kernel is None:
        return
    given, rank = attributes(e.source), len(kernel)
    n, columns, _ = e.shape(0)
    steps, spans, pads = given.get("strides", [1] * rank), given.get("dilations", [1] * rank), given.get("pads", [0] * 2 * rank)
    around = [size + low + high for size, low, high in zip(image, pads[:rank], pads[rank:], strict=True)]
    counts = [(size - span * (k - 1) - 1) // step + 1 for size, span, k, step in zip(around, spans, kernel, steps, strict=True)]
    rest = [
        size - ((count - 1) * step + span * (k - 1) + 1)
        for size, count, step, span, k in zip(around, counts, steps, spans, kernel, strict=True)
    ]
    taps = int(np.prod(kernel))
    weights = np.tile(np.eye(taps, dtype=np.float32).reshape(taps, 1, *kernel), (columns // taps, *[1] * (rank + 1)))
    placed = e.add("Reshape", [e.input(0), e.graph.constant(np.array([n, columns, *counts]), "shape")])
    given = {"strides": steps, "dilations": spans, "pads": pads, "output_padding": rest, "group": columns // taps}
    e.add("ConvTranspose", [placed, e.graph.constant(weights, f"{e.name}.taps")], e.source.output[0], **given)


def _transposed_convolution(e: Expansion) -> None:
    """What is cut off is the same before and behind in torch: other results are a Slice of the whole one."""
    given, rank = attributes(e.source), len(e.shape(0)) - 2
    kernel = given.get("kernel_shape") or [size or 0 for size in e.graph.kinds[e.input(1)][1][2:]]
    pads, same, size = given.pop("pads", [0] * 2 * rank), given.pop("auto_pad", "NOTSET"), given.pop("output_shape", None)
    rest, steps, spans = (given.get(name, [fill] * rank) for name, fill in (("output_padding", 0), ("strides", 1), ("dilations", 1)))
    low, high = pads[:rank], pads[rank:]
    whole = [step * (n - 1) + span * (k - 1) + 1 for n, step, span, k in zip(e.shape(0)[2:], steps, spans, kernel, strict=True)]
    if size is not None or same.startswith("SAME"):
        size = [n * step for n, step in zip(e.shape(0)[2:], steps, strict=True)] if size is None else list(size)[-rank:]
        cut = [max(w + r - s, 0) for w, r, s in zip(whole, rest, size, strict=True)]
        low = [c // 2 if same == "SAME_UPPER" else c - c // 2 for c in cut]
    elif low == high:
        return
    else:
        size = [w + r - a - b for w, r, a, b in zip(whole, rest, low, high, strict=True)]
    behind = [max(a + s - w, 0) for a, s, w in zip(low, size, whole, strict=True)]
    if any(b >= max(step, span) for b, step, span in zip(behind, steps, spans, strict=True)):
        return
    given["output_padding"] = behind
    y, ends = e.add("ConvTranspose", list(e.source.input), **given), [a + s for a, s in zip(low, size, strict=True)]
    bounds = [e.graph.constant(np.array(v), "slice") for v in (low, ends, range(2, rank + 2))]
    e.add("Slice", [y, *bounds], e.source.output[0])


def _gemm(e: Expansion) -> None:
    given = attributes(e.source)
    alpha = given.pop("alpha", 1.0)
    if not e.input(2) and alpha != 1:
        kind = helper.tensor_dtype_to_np_dtype(e.graph.kinds[e.input(0)][0])
        product = e.add("Gemm", [e.input(0), e.input(1)], **given)
        e.add("Mul", [product, e.graph.constant(np.array(alpha, kind), "alpha")], e.source.output[0])


def _vector_product(e: Expansion) -> None:
    ranks = [e.graph.rank(e.input(i)) or 0 for i in (0, 1)]
    if min(ranks) != 1 or max(ranks) < 3:
        return
    side = ranks.index(1)  # a row in front, or a column behind
    operands = [e.input(0), e.input(1)]
    operands[side] = e.add("Unsqueeze", [operands[side], e.graph.constant(np.array([side]), "axis")])
    product = e.add("MatMul", operands)
    e.add("Squeeze", [product, e.graph.constant(np.array([side - 2]), "axis")], e.source.output[0])


def _dequantize(e: Expansion) -> None:
    stored, scale = e.graph.array(e.input(0)), e.graph.array(e.input(1))
    if stored is None or scale is None or stored.dtype.name.startswith("float"):
        return
    zero = e.graph.array(e.input(2))
    if zero is None:
        zero = np.zeros(scale.shape, stored.dtype)
    if (scale <= 0).any():
        _positive_scales(e, stored, scale, zero)
    elif stored.ndim <= 1 and stored.size == scale.size == 1:
        levels = stored.astype(np.int64) - zero.reshape(-1).astype(np.int64)
        value = (levels.astype(scale.dtype) * scale.reshape(-1)).reshape(stored.shape)
        e.add("Identity", [e.graph.constant(value, e.source.output[0])], e.source.output[0])


def _positive_scales(e: Expansion, stored: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> None:
    """Levels are counted from the other end of their range where the scale is negative, and are the zero point where it is 0."""
    given, signed = attributes(e.source), stored.dtype.name.startswith("int")
    bits = given.get("bits") or ml_dtypes.iinfo(stored.dtype).bits
    ends = -1 if signed else (1 << bits) - 1  # the sum of a level and of its opposite
    axis, block = given.get("axis", 1), given.get("block_size", 0)

    def spread(values: np.ndarray) -> np.ndarray:
        """One for every level, or one along all axes but one."""
        if block:
            return np.take(np.repeat(values, block, axis), np.arange(stored.shape[axis]), axis)
        return np.moveaxis(values.reshape(-1, *[1] * (stored.ndim - 1)), 0, axis) if values.size > 1 else values.reshape([1] * stored.ndim)

    wide = np.int16 if bits <= 8 else np.int64
    zeros, levels = zero.astype(wide), stored.astype(wide)
    zeros = np.where(scale < 0, ends - zeros, zeros)
    levels = np.where(spread(scale < 0), ends - levels, np.where(spread(scale == 0), spread(zeros), levels))
    parameters = [np.where(scale == 0, np.ones_like(scale), np.abs(scale)), zeros.astype(stored.dtype)]
    constants = [e.graph.constant(array, f"{e.name}.{what}") for array, what in zip(parameters, ("scale", "zero_point"), strict=True)]
    e.add("DequantizeLinear", [e.graph.constant(levels.astype(stored.dtype), f"{e.name}.weight"), *constants], e.source.output[0], **given)


def _hard_sigmoid(e: Expansion) -> None:
    given = attributes(e.source)
    kind = helper.tensor_dtype_to_np_dtype(e.graph.kinds[e.input(0)][0])
    values = (given.get("alpha", 0.2), given.get("beta", 0.5), 0, 1)
    slope, offset, low, high = (e.graph.constant(np.asarray(v, kind), "number") for v in values)
    e.add("Clip", [e.add("Add", [e.add("Mul", [e.input(0), slope]), offset]), low, high], e.source.output[0])


def _affine_grid(e: Expansion) -> None:
    """theta [n, 2, 3] times the places of the pixels of an image [n, c, h, w], or [n, 3, 4] and those of [n, c, d, h, w]."""
    size = e.graph.array(e.input(1))
    if size is None:
        return
    sides = [int(s) for s in size[2:]]
    ends = [1.0 if attributes(e.source).get("align_corners", 0) else 1 - 1 / side for side in sides]
    lines = [np.linspace(-end, end, side) if side > 1 else np.zeros(1) for end, side in zip(ends, sides, strict=True)]
    places = np.stack([*np.meshgrid(*lines, indexing="ij")[::-1], np.ones(sides)], -1)  # [.., h, w, (x, y, .., 1)]
    kind = helper.tensor_dtype_to_np_dtype(e.graph.kinds[e.input(0)][0])
    rows = e.graph.constant(places.reshape(-1, len(sides) + 1).astype(kind), f"{e.name}.places")
    grid = e.add("MatMul", [rows, e.add("Transpose", [e.input(0)], perm=[0, 2, 1])])
    shape = e.graph.constant(np.array([size[0], *sides, len(sides)]), "shape")
    e.add("Reshape", [grid, shape], e.source.output[0])


_RULES: dict[str, Rule] = {
    "AffineGrid": _affine_grid,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Slice": _backwards,
    "Gather": _from_the_front,
    "GatherND": _along_one_axis,
    "Col2Im": _col2im,
    "DequantizeLinear": _dequantize,
    "ConvTranspose": _transposed_convolution,
    "Gemm": _gemm,
    "HardSigmoid": _hard_sigmoid,
    "MatMul": _vector_product,
    "AveragePool": _pool,
    "Resize": onnx_resize.resize,
    "MaxPool": _pool,
}
