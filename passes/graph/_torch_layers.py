"""Rules for what has weights or windows: convolution, linear, normalisation, pooling, embedding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from qcc.dialects import compressed_types as types
from qcc.dialects import element_types, shapes, weights
from qcc.dialects.mlir import ir, op_attribute
from qcc.passes.graph._torch_reader import Declined, Reader, axis_of, like, owner, require, rule
from qcc.passes.graph._torch_transposed_convolution import transposed_convolution

# -- convolution and products ----------------------------------------------------------------------------------------


@rule("torch.aten.conv2d", "torch.aten.conv1d")
def _conv(r: Reader, op: Any) -> Sequence[Any]:
    x, w, bias, strides, padding, dilations, groups = op.operands
    return _convolution(r, x, w, bias, r.integers(strides), r.integers(padding), r.integers(dilations), r.integer(groups))


@rule("torch.aten.conv2d.padding", "torch.aten.conv1d.padding")
def _conv_named_padding(r: Reader, op: Any) -> Sequence[Any]:
    x, w, bias, strides, padding, dilations, groups = op.operands
    rank, steps = len(r.shape(x)) - 2, r.integers(dilations)
    steps = steps * rank if len(steps) == 1 else steps
    low, high = [0] * rank, [0] * rank
    if r.scalar(padding) == "same":  # an odd total puts its extra element behind
        totals = [d * (k - 1) for d, k in zip(steps, r.shape(w)[2:], strict=True)]
        low, high = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return _convolution(r, x, w, bias, r.integers(strides), low, steps, r.integer(groups), high)


@rule("torch.aten.convolution")
def _convolution_any(r: Reader, op: Any) -> Sequence[Any]:
    x, w, bias, strides, padding, dilations, transposed, extra, groups = op.operands
    if r.flag(transposed):
        return _transposed(r, x, w, bias, [r.integers(v) for v in (strides, padding, dilations, extra)], r.integer(groups))
    return _convolution(r, x, w, bias, r.integers(strides), r.integers(padding), r.integers(dilations), r.integer(groups))


def _convolution(r: Reader, x: Any, w: Any, bias: Any, strides: list[int], low: list[int], dilations: list[int], groups: int,
                 high: list[int] | None = None) -> Sequence[Any]:  # fmt: skip
    rank = len(r.shape(w)) - 2
    xs, ws, b = _image(r, x, w, bias)
    strides, dilations = (_per_axis(v, rank, 1) for v in (strides, dilations))
    padding = [*_per_axis(low, rank, 0), *_per_axis(low if high is None else high, rank, 0)]
    size = shapes.conv2d(ir.RankedTensorType(xs.type).shape, ir.RankedTensorType(ws.type).shape, strides, padding, dilations)
    y = r.make("qcc.conv2d", [xs, ws, b], like(r.type(x), size), strides=strides, padding=padding, dilations=dilations, groups=groups)
    return [r.reshape(y, r.shape(r.op.results[0]))]


def _transposed(r: Reader, x: Any, w: Any, bias: Any, window: list[list[int]], groups: int) -> Sequence[Any]:
    xs, ws, b = _image(r, x, w, bias)
    axes = [_per_axis(v, len(r.shape(w)) - 2, fill) for v, fill in zip(window, (1, 0, 1, 0), strict=True)]
    return [r.reshape(transposed_convolution(r, xs, ws, b, axes, groups), r.shape(r.op.results[0]))]


def _image(r: Reader, x: Any, w: Any, bias: Any) -> tuple[Any, Any, Any]:
    """Operands of a convolution as builtin tensors with a batch axis and two spatial ones; one dimension is an image of height one."""
    r.f32(x, w)
    rank = len(r.shape(w)) - 2
    require(rank in (1, 2), f"a convolution over {rank} axes")
    require(len(r.shape(x)) in (rank + 1, rank + 2), f"a convolution of {len(r.shape(x))} axes")
    xs, ws = r.builtin(x), r.builtin(w)
    if len(r.shape(x)) == rank + 1:
        xs = insert_axis(r, xs, 0)
    if rank == 1:
        xs, ws = insert_axis(r, xs, 2), insert_axis(r, ws, 2)
    return xs, ws, None if r.is_none(bias) else r.builtin(bias)


def _per_axis(values: list[int], rank: int, fill: int) -> list[int]:
    """Two values, of a list with one for all axes or one for each; `fill` stands at the height of one-dimensional windows."""
    values = values * rank if len(values) == 1 else values
    return [fill, *values] if rank == 1 else values


def insert_axis(r: Reader, value: Any, axis: int) -> Any:
    """`value` (builtin) with an axis of size one, on the stored integers where it is dequantized, so that folding still sees them."""
    kind = ir.RankedTensorType(value.type)
    shape = list(kind.shape)
    shape.insert(axis, 1)
    op = owner(value)
    if op is None or op.name != "qcc.dequantize" or len(op.operands) != 1:
        return r.reshape(value, shape)
    stored = op.operands[0]
    source = owner(stored)
    stored_kind = ir.RankedTensorType(stored.type)
    affine = element_types.affine(stored_kind)
    if affine is None or affine.block is not None or (affine.axis is not None and affine.axis >= axis):
        return r.reshape(value, shape)
    if source is not None and source.name == "qcc.constant":
        array = weights.array_of(source.attributes["value"]).reshape(shape)
        stored = r.constant(array, like(stored_kind, shape))
    else:
        stored = r.make("qcc.reshape", [stored], like(stored_kind, shape))
    return r.make("qcc.dequantize", [stored], like(kind, shape))


@rule("torch.aten.linear")
def _linear(r: Reader, op: Any) -> Sequence[Any]:
    x, w, bias = op.operands
    r.f32(x, w)
    require(len(r.shape(x)) >= 1 and len(r.shape(w)) == 2, "a linear layer with a weight vector")
    b = None if r.is_none(bias) else r.builtin(bias)
    return [r.make("qcc.linear", [r.builtin(x), r.builtin(w), b], r.type(op.results[0]))]


@rule("torch.aten.mm", "torch.aten.bmm", "torch.aten.matmul")
def _matmul(r: Reader, op: Any) -> Sequence[Any]:
    a, b = op.operands
    r.f32(a, b)
    left, right, kind = r.shape(a), r.shape(b), r.type(op.results[0])
    require(bool(kind.shape), "a scalar result")
    batch = kind.shape[: len(kind.shape) - (len(left) > 1) - (len(right) > 1)]
    left, right = left if len(left) > 1 else [1, *left], right if len(right) > 1 else [*right, 1]  # a vector is a row, or a column
    found = like(kind, [*batch, left[-2], right[-1]])
    return [r.reshape(_product(r, r.reshape(r.builtin(a), left), r.reshape(r.builtin(b), right), None, found), list(kind.shape))]


@rule("torch.aten.addmm")
def _addmm(r: Reader, op: Any) -> Sequence[Any]:
    bias, a, b, beta, alpha = op.operands
    r.f32(bias, a, b)
    require(r.number(alpha) == 1, "a scaled product")
    require(r.number(beta) in (0, 1), "a scaled bias")
    kind, term = r.type(op.results[0]), r.builtin(bias)
    if r.number(beta) == 0:
        return [_product(r, r.builtin(a), r.builtin(b), None, kind)]
    if r.shape(bias) == [kind.shape[1]] and as_linear_weight(r, r.builtin(b)) is not None:
        return [_product(r, r.builtin(a), r.builtin(b), term, kind)]
    return [r.make("qcc.add", [_product(r, r.builtin(a), r.builtin(b), None, kind), term], kind)]


def _product(r: Reader, a: Any, b: Any, bias: Any, kind: ir.Type) -> Any:
    weight = as_linear_weight(r, b)
    if weight is not None:
        return r.make("qcc.linear", [a, weight, bias], kind)
    return r.make("qcc.matmul", [a, b], kind)


def as_linear_weight(r: Reader, b: Any) -> Any:
    """The [out, in] weight whose transpose `b` is: what a transpose was taken of, or a transposed constant; None otherwise."""
    op = owner(b)
    if op is None or len(ir.RankedTensorType(b.type).shape) != 2:
        return None
    if op.name == "qcc.transpose":
        return op.operands[0] if is_constant(op.operands[0]) else None
    return transposed_constant(r, b, [1, 0]) if is_constant(b) else None


def is_constant(value: Any) -> bool:
    """Whether `value` (builtin) is a constant, or a dequantized or quantized and dequantized one."""
    op = owner(value)
    while op is not None and op.name in ("qcc.dequantize", "qcc.quantize"):
        op = owner(op.operands[0])
    return op is not None and op.name == "qcc.constant"


def transposed_constant(r: Reader, value: Any, order: list[int]) -> Any:
    """A constant (or dequantized constant) with its axes in another order; None where `value` is computed."""
    op = owner(value)
    if op is None:
        return None
    kind = ir.RankedTensorType(value.type)
    shape = [kind.shape[i] for i in order]
    if op.name in ("qcc.dequantize", "qcc.quantize") and len(op.operands) == 1:
        inner = transposed_constant(r, op.operands[0], order)
        if inner is None:
            return None
        return r.make(op.name, [inner], like(kind, shape, _moved_axis(kind, order)))
    if op.name != "qcc.constant":
        return None
    array = weights.transposed(weights.array_of(op.attributes["value"]), order)
    return r.constant(array, like(kind, shape, _moved_axis(kind, order)))


def _moved_axis(kind: ir.RankedTensorType, order: list[int]) -> ir.Type:
    a = element_types.affine(kind)
    if a is not None:
        return element_types.transposed(a, order)
    described = types.describe(kind)
    return kind.element_type if described is None else types.transposed(described, order)


@rule("torch.aten.embedding")
def _embedding(r: Reader, op: Any) -> Sequence[Any]:
    table, ids = op.operands[:2]
    r.f32(table)
    require(len(r.shape(table)) == 2, "an embedding table of another rank than two")
    return [r.make("qcc.embedding", [r.builtin(table), r.builtin(ids)], r.type(op.results[0]))]


# -- normalisation ---------------------------------------------------------------------------------------------------


@rule("torch.aten.batch_norm")
def _batch_norm(r: Reader, op: Any) -> Sequence[Any]:
    x, scale, bias, mean, var, training, _, epsilon, _ = op.operands
    require(not r.flag(training), "batch normalisation in training mode")
    return [_normalise(r, x, scale, bias, mean, var, r.number(epsilon))]


@rule("torch.aten.native_batch_norm")
def _native_batch_norm(r: Reader, op: Any) -> Sequence[Any]:
    x, scale, bias, mean, var, training, _, epsilon = op.operands
    require(not r.flag(training), "batch normalisation in training mode")
    r.only_first_result()
    return [_normalise(r, x, scale, bias, mean, var, r.number(epsilon))]


def _normalise(r: Reader, x: Any, scale: Any, bias: Any, mean: Any, var: Any, epsilon: float) -> Any:
    r.f32(x)
    require(len(r.shape(x)) >= 2, "batch normalisation of a vector")
    require(not r.is_none(mean) and not r.is_none(var), "batch normalisation without running statistics")
    channels = [r.shape(x)[1]]
    parts = [r.filled(channels, 1.0) if r.is_none(scale) else r.builtin(scale),
             r.filled(channels, 0.0) if r.is_none(bias) else r.builtin(bias)]  # fmt: skip
    return r.make("qcc.batch_norm", [r.builtin(x), *parts, r.builtin(mean), r.builtin(var)], r.type(x), epsilon=epsilon)


@rule("torch.aten.layer_norm", "torch.aten.native_layer_norm")
def _layer_norm(r: Reader, op: Any) -> Sequence[Any]:
    x, shape, gamma, beta, epsilon = list(op.operands)[:5]
    r.only_first_result()
    r.f32(x)
    sizes = r.integers(shape)
    parts = [r.filled(sizes, 1.0) if r.is_none(gamma) else r.builtin(gamma),
             r.filled(sizes, 0.0) if r.is_none(beta) else r.builtin(beta)]  # fmt: skip
    return [r.make("qcc.layer_norm", [r.builtin(x), *parts], r.type(x), axes=len(sizes), epsilon=r.number(epsilon))]


@rule("torch.aten.rms_norm")
def _rms_norm(r: Reader, op: Any) -> Sequence[Any]:
    x, shape, gamma, epsilon = op.operands
    r.f32(x)
    given = r.optional(epsilon)
    epsilon = float(np.finfo(np.float32).eps) if given is None else float(given)
    parts = [] if r.is_none(gamma) else [r.builtin(gamma)]
    return [r.make("qcc.rms_norm", [r.builtin(x), *parts], r.type(x), axes=len(r.items(shape)), epsilon=epsilon)]


@rule("torch.aten.group_norm")
def _group_norm(r: Reader, op: Any) -> Sequence[Any]:
    x, groups, gamma, beta, epsilon = list(op.operands)[:5]
    return [_normalise_groups(r, x, r.integer(groups), gamma, beta, r.number(epsilon))]


@rule("torch.aten.instance_norm")
def _instance_norm(r: Reader, op: Any) -> Sequence[Any]:
    x, gamma, beta, _, _, of_input, _, epsilon = list(op.operands)[:8]
    require(r.flag(of_input), "instance normalisation by running statistics")
    return [_normalise_groups(r, x, r.shape(x)[1], gamma, beta, r.number(epsilon))]


def _normalise_groups(r: Reader, x: Any, groups: int, gamma: Any, beta: Any, epsilon: float) -> Any:
    """A layer norm of each group of channels, then one scale and bias per channel."""
    r.f32(x)
    kind = r.type(x)
    shape = list(kind.shape)
    rows = [shape[0] * groups, math.prod(shape[1:]) // groups]
    ones, zeros = r.filled(rows[1:], 1.0), r.filled(rows[1:], 0.0)
    y = r.make("qcc.layer_norm", [r.reshape(r.builtin(x), rows), ones, zeros], like(kind, rows), axes=1, epsilon=epsilon)
    y, channels = r.reshape(y, shape), [shape[1], *[1] * (len(shape) - 2)]
    for name, given in (("qcc.mul", gamma), ("qcc.add", beta)):
        if not r.is_none(given):
            y = r.make(name, [y, r.reshape(r.builtin(given), channels)], kind)
    return y


@rule("torch.aten.softmax.int", "torch.aten._softmax")
def _softmax(r: Reader, op: Any) -> Sequence[Any]:
    x, axis, _ = op.operands
    r.f32(x, op.results[0])
    rank = len(r.shape(x))
    require(rank > 0, "a scalar")
    return [r.make("qcc.softmax", [r.builtin(x)], r.type(x), axis=axis_of(r.integer(axis), rank, op))]


# -- pooling ---------------------------------------------------------------------------------------------------------


@rule("torch.aten.max_pool2d", "torch.aten.max_pool2d_with_indices", "torch.aten.max_pool1d")
def _max_pool(r: Reader, op: Any) -> Sequence[Any]:
    x, kernel, strides, padding, dilations, ceil = op.operands
    r.only_first_result()
    window = _Window(r, op, kernel, strides, padding, r.integers(dilations), r.flag(ceil))
    image, padding = _unpadded(window.image(x), window.padding)
    y = r.make("qcc.max_pool2d", [image], window.result, kernel=window.kernel, strides=window.strides,
               padding=padding, dilations=window.dilations)  # fmt: skip
    return [r.reshape(y, r.shape(op.results[0]))]


def _unpadded(image: Any, padding: list[int]) -> tuple[Any, list[int]]:
    """The image in front of a padding by minus infinity, which a window does itself: upstream writes padding that differs this way."""
    op = owner(image)
    if op is None or op.name != "qcc.pad" or op_attribute(op, "value") != -math.inf:
        return image, padding
    low, high = op_attribute(op, "low"), op_attribute(op, "high")
    if any(low[:2]) or any(high[:2]):
        return image, padding
    return op.operands[0], [a + b for a, b in zip(padding, [*low[2:], *high[2:]], strict=True)]


@rule("torch.aten.avg_pool2d", "torch.aten.avg_pool1d")
def _avg_pool(r: Reader, op: Any) -> Sequence[Any]:
    x, kernel, strides, padding, ceil, include_pad = list(op.operands)[:6]
    require(len(op.operands) < 7 or r.is_none(op.operands[6]), "average pooling with its own divisor")
    window = _Window(r, op, kernel, strides, padding, [1], r.flag(ceil))
    include = r.flag(include_pad)
    require(not (include and window.extended), "average pooling that counts padding in ceil mode")
    y = r.make("qcc.avg_pool2d", [window.image(x)], window.result, kernel=window.kernel, strides=window.strides,
               padding=window.padding, count_include_pad=include)  # fmt: skip
    return [r.reshape(y, r.shape(op.results[0]))]


class _Window:
    """A pooling window as qcc writes it: two-dimensional, floor mode, padding on four sides."""

    def __init__(self, r: Reader, op: Any, kernel: Any, strides: Any, padding: Any, dilations: list[int], ceil: bool) -> None:
        x = op.operands[0]
        r.f32(x)
        shape, rank = r.shape(x), 1 if op.name.endswith("1d") else 2
        require(len(shape) in (rank + 1, rank + 2), f"pooling of {len(shape)} axes")
        self._reader = r
        self.shape = shape if len(shape) == rank + 2 else [1, *shape]
        steps = r.integers(strides) or r.integers(kernel)
        if len(steps) == 2 * rank:  # torch-mlir writes the dilations of ONNX's AveragePool behind the strides
            require(all(d == 1 for d in steps[rank:]), "average pooling with dilations")
            steps = steps[:rank]
        sizes = [r.integers(kernel), steps, r.integers(padding), dilations]
        self.kernel, self.strides, low, self.dilations = (v * rank if len(v) == 1 else v for v in sizes)
        low, behind = low[:rank], low[rank:] or low  # torch-mlir gives ONNX's padding of both ends where they differ
        if rank == 1:
            behind = [0, *behind]
            self.shape = [*self.shape[:2], 1, self.shape[2]]
            self.kernel, self.strides, low, self.dilations = [1, *self.kernel], [1, *self.strides], [0, *low], [1, *self.dilations]
        output = [*([1] if rank == 1 else []), *r.shape(op.results[0])[-rank:]]
        high = [self._behind(i, low[i], output[i]) if ceil else behind[i] for i in (0, 1)]
        self.extended = high != behind
        self.padding = [*low, *high]
        self.result = like(r.type(x), [*self.shape[:2], *output])

    def _behind(self, i: int, low: int, output: int) -> int:
        """Padding behind axis `i` that gives `output` positions in floor mode."""
        reach = (output - 1) * self.strides[i] + self.dilations[i] * (self.kernel[i] - 1) + 1
        return max(low, reach - self.shape[2 + i] - low)

    def image(self, x: Any) -> Any:
        return self._reader.reshape(self._reader.builtin(x), self.shape)


@rule("torch.aten.adaptive_avg_pool2d", "torch.aten._adaptive_avg_pool2d", "torch.aten.adaptive_avg_pool1d")
def _adaptive_avg_pool(r: Reader, op: Any) -> Sequence[Any]:
    x, sizes = op.operands
    r.f32(x)
    rank = 1 if op.name.endswith("1d") else 2
    shape, out = r.shape(x), r.shape(op.results[0])[-rank:]
    del sizes  # the result's shape says the same
    if any(i % o for i, o in zip(shape[-rank:], out, strict=True)):
        return [_uneven_average(r, r.builtin(x), out)]
    image = [*([1] if len(shape) == rank + 1 else []), *shape]
    kernel = [i // o for i, o in zip(shape[-rank:], out, strict=True)]
    if rank == 1:
        image, kernel, out = [*image[:2], 1, image[2]], [1, *kernel], [1, *out]
    y = average(r, r.reshape(r.builtin(x), image), kernel, out)
    return [r.reshape(y, r.shape(op.results[0]))]


def _uneven_average(r: Reader, x: Any, out: Sequence[int]) -> Any:
    """Adaptive pooling whose windows differ in size: the mean over a rectangle is a product with one matrix per axis."""
    matrices: list[np.ndarray] = []
    for count, size in zip(out, ir.RankedTensorType(x.type).shape[-len(out) :], strict=True):
        matrix = np.zeros((count, size), np.float32)  # [out, in]
        for i in range(count):
            first, last = i * size // count, -(-(i + 1) * size // count)
            matrix[i, first:last] = 1 / (last - first)
        matrices.append(matrix)
    return separable(r, x, matrices)


def separable(r: Reader, x: Any, matrices: Sequence[np.ndarray]) -> Any:
    """x (builtin) times one matrix [out, in] along each of its last one or two axes."""
    rank = len(ir.RankedTensorType(x.type).shape)
    swapped = [*range(rank - 2), rank - 1, rank - 2]
    for matrix in reversed(matrices):  # the last axis, then, swapped into its place, the one before it
        kind = ir.RankedTensorType(x.type)
        x = r.make("qcc.linear", [x, r.constant(matrix)], like(kind, [*kind.shape[:-1], matrix.shape[0]]))
        if len(matrices) == 2:
            kind = ir.RankedTensorType(x.type)
            x = r.make("qcc.transpose", [x], like(kind, [kind.shape[i] for i in swapped]), permutation=swapped)
    return x


@rule("torch.aten.adaptive_max_pool2d")
def _adaptive_max_pool(r: Reader, op: Any) -> Sequence[Any]:
    x = op.operands[0]
    r.f32(x)
    r.only_first_result()
    shape, out = r.shape(x), r.shape(op.results[0])
    require(all(i % o == 0 for i, o in zip(shape[-2:], out[-2:], strict=True)), "adaptive pooling whose windows differ in size")
    image = shape if len(shape) == 4 else [1, *shape]
    kernel = [i // o for i, o in zip(shape[-2:], out[-2:], strict=True)]
    y = r.make("qcc.max_pool2d", [r.reshape(r.builtin(x), image)], like(r.type(x), [*image[:2], *out[-2:]]), kernel=kernel, strides=kernel,
               padding=[0] * 4, dilations=[1, 1])  # fmt: skip
    return [r.reshape(y, out)]


def average(r: Reader, x: Any, kernel: list[int], out: Sequence[int]) -> Any:
    """Average pooling of x [n, c, h, w] (builtin) without padding, each window beside the next."""
    kind = ir.RankedTensorType(x.type)
    return r.make("qcc.avg_pool2d", [x], like(kind, [*kind.shape[:2], *out]), kernel=kernel, strides=kernel, padding=[0] * 4,
                  count_include_pad=True)  # fmt: skip


@rule("torch.aten.mean.dim", "torch.aten.mean", "torch.aten.sum.dim_IntList", "torch.aten.sum", "torch.aten.amax", "torch.aten.amin")
def _reduce(r: Reader, op: Any) -> Sequence[Any]:
    x = op.operands[0]
    r.f32(x, op.results[0])
    shape, whole = r.shape(x), op.name in ("torch.aten.mean", "torch.aten.sum")
    given = [] if whole or r.is_none(op.operands[1]) else r.integers(op.operands[1])
    axes = sorted(axis_of(a, len(shape), op) for a in given) or list(range(len(shape)))
    keep = False if whole else r.flag(op.operands[2])
    result = r.type(op.results[0])
    if not result.shape:
        raise Declined("a scalar result")
    if "mean" in op.name and len(shape) == 4 and axes == [2, 3]:  # global pooling, which has a quantized form
        return [r.reshape(average(r, r.builtin(x), shape[2:], [1, 1]), list(result.shape))]
    kind = next(k for k in ("mean", "sum", "max", "min") if k in op.name)
    return [r.make("qcc.reduce", [r.builtin(x)], result, kind=kind, axes=axes, keepdims=keep)]


@rule("torch.aten.max.dim", "torch.aten.min.dim")
def _extreme(r: Reader, op: Any) -> Sequence[Any]:
    x, axis, keep = op.operands
    r.f32(x)
    r.only_first_result()
    result = r.type(op.results[0])
    require(bool(result.shape), "a scalar result")
    kind = "max" if "max" in op.name else "min"
    axes = [axis_of(r.integer(axis), len(r.shape(x)), op)]
    return [r.make("qcc.reduce", [r.builtin(x)], result, kind=kind, axes=axes, keepdims=r.flag(keep))]


@rule("torch.aten.linalg_vector_norm")
def _vector_norm(r: Reader, op: Any) -> Sequence[Any]:
    x, order, axes, keep, _ = op.operands
    r.f32(x, op.results[0])
    result, rank = r.type(op.results[0]), len(r.shape(x))
    require(r.number(order) == 2 and not r.is_none(axes) and bool(result.shape), "a norm other than the Euclidean along axes")
    value = r.builtin(x)
    squares = r.make("qcc.mul", [value, value], value.type)
    over = sorted(axis_of(a, rank, op) for a in r.integers(axes))
    total = r.make("qcc.reduce", [squares], result, kind="sum", axes=over, keepdims=r.flag(keep))
    return [r.make("qcc.unary", [total], result, kind="sqrt")]
