"""Split float layers whose weights have a low rank into two thin layers, where that is predicted to pay.

Before:

    %y = qcc.linear %x, %w, %b                 // %w: tensor<512x512xf32> of rank 32

After:

    %h = qcc.linear %x, %v                     // %v: tensor<32x512xf32>
    %y = qcc.linear %h, %u, %b                 // %u: tensor<512x32xf32>

A convolution [o, i, kh, kw] is looked at in three ways: o against the rest (the kernel gives r channels, a 1x1 layer makes o of them), i
against the rest (a 1x1 layer makes r channels of i, the kernel follows), and rows against columns (a column of the kernel, then a row); the
one that is predicted fastest is taken, and its layers are looked at again: what Tucker's decomposition of the channels gave comes out as
its three layers. Layers that arrive in factors stay as they are.

Requires: integer form, channels that are zero already gone. `isa`, `activations`, `byte-expand`: as for lower-to-codelets (no instruction
set: nothing is done); `optimize` time or size; `enabled`.
Guarantees: every weight is the product of the factors to within `_low_rank.TOLERANCE` (2^-18) of the greatest weights of its output and
input channel: the rounding of binary32 sums, in another order than the user's. Facts per layer: low_rank, in words.
Why: Denton et al., "Exploiting linear structure within convolutional networks", NIPS 2014; Kim et al., "Compression of deep
convolutional neural networks for fast and low power mobile applications", ICLR 2016; Jaderberg et al., "Speeding up convolutional neural
networks with low rank expansions", BMVC 2014. A rank that was truncated and multiplied out again by a tool or an exporter is not lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from qcc.dialects import shapes
from qcc.dialects.mlir import create, ir, layer_name, op_attribute, replace_op, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.integer import _float_times, _low_rank
from qcc.passes.integer._storage_times import Target, forms
from qcc.passes.tile.codelets import winograd
from qcc.passes.values import attributes_of, constant_array, erase_dead, make_float_constant, retyped, shape_of

Array = np.ndarray[Any, Any]

LEAST_GAIN = 1.1  # in products, and in time or bytes: two layers for one must be worth it
WINDOW = ("strides", "padding", "dilations")
MOST_DENSITY = 0.95  # above it weights with zeros are no form of their own


@dataclass(frozen=True)
class Options:
    """See the module."""

    isa: str = ""
    activations: str = "auto"
    byte_expand: bool = False
    optimize: str = "time"
    enabled: bool = True


@dataclass(frozen=True)
class Layer:
    """One of the two layers: weights, and of a convolution strides, padding and dilations."""

    weight: Array
    window: dict[str, list[int]]


@dataclass(frozen=True)
class Matrix:
    """Weights of `shape` as a matrix of name outputs, inputs or rows, and the scales of its rows and columns."""

    name: str
    values: Array
    down: Array
    across: Array
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Split:
    """What a layer can be split into."""

    first: Layer
    second: Layer
    rank: int
    of: int  # the rank that the matrix might have

    @property
    def weights(self) -> int:
        return self.first.weight.size + self.second.weight.size


@dataclass(frozen=True)
class Decision:
    """The best split, if there is one, what the report says, and whether it is to be used."""

    split: Split | None
    words: str
    pays: bool


class FactorLowRankPass(Pass):
    """See the module's docstring."""

    name = "factor-low-rank"
    Options = Options

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Every float product with constant weights, and what it was split into."""
        o = self.options
        if not (o.enabled and o.isa):
            return
        waiting = [op for op in walk(module) if op.name in ("qcc.linear", "qcc.conv2d")]
        sizes = {op.operands[1]: w.size for op in waiting if (w := _weights(op)) is not None}  # steps of a recurrent layer share weights
        target = Target(o.isa, o.activations, o.byte_expand, 4 * sum(sizes.values()))
        with threadpool_limits(1):  # the same bits on any number of processors, whose threads would wait for each other
            self.split_all(waiting, target, context)
        erase_dead(module)

    def split_all(self, waiting: list[Any], target: Target, context: PassContext) -> None:
        made: set[Any] = set()
        while waiting:
            op = waiting.pop()
            weight = _weights(op)
            found = None if weight is None else self.best(op, weight, target)
            if found is None or (op in made and not found.pays):
                continue
            layer = layer_name(op.location)
            said = context.facts.get(layer, {}).get("low_rank") if op in made else None
            context.fact(layer, low_rank=f"{said}; then {found.words}" if said else found.words)
            if found.pays and found.split is not None:
                parts = _replace(op, found.split)
                waiting += parts
                made |= set(parts)

    def best(self, op: Any, weight: Array, target: Target) -> Decision | None:
        """The best split of `op`; None where its shape leaves no room for one."""
        kept = np.count_nonzero(weight)
        tried = [(matrix, int(kept / LEAST_GAIN) // sum(matrix.values.shape)) for matrix in _matrices(weight)]
        splits = [split for matrix, most in tried if (split := _split(op, matrix, most)) is not None]
        if not splits:
            least = min(max(most for _, most in tried), _low_rank.MOST_RANK)
            return (
                Decision(None, f"rank above {least}, from which on two layers would not multiply less: kept whole", False)
                if least
                else None
            )
        x, window = shape_of(op.operands[0]), _window_of(op)
        now, bytes_now = _cost_now(op, Layer(weight, window), target)
        if self.options.optimize == "size":
            split = min(splits, key=lambda s: s.weights)
            pays = bytes_now > LEAST_GAIN * 4 * split.weights
        else:
            splits += [padded for s in splits if (padded := _padded(s)) is not None]
            split = min(splits, key=lambda s: _microseconds(x, s, target))
            pays = now > LEAST_GAIN * _microseconds(x, split, target)
        ratio = now / _microseconds(x, split, target)
        words = f"rank {split.rank} of {split.of}"
        if (channels := len(split.first.weight)) > split.rank:
            words += f", filled up to {channels} channels"
        words += f": two layers have {kept / split.weights:.1f}x fewer weights, predicted {ratio:.2f}x as fast"
        return Decision(split, words + ("" if pays else ", not used"), pays)


def _weights(op: Any) -> Array | None:
    """The weights of `op` where it is a float product with constant ones, of one group."""
    kinds = [ir.RankedTensorType(v.type) for v in list(op.operands)[:2]]
    if not all(isinstance(kind.element_type, ir.F32Type) and kind.encoding is None for kind in kinds) or op_attribute(op, "groups", 1) != 1:
        return None
    weight = constant_array(op.operands[1])
    return weight if weight is not None and np.isfinite(weight).all() else None


def _matrices(weight: Array) -> Iterator[Matrix]:
    """What the weights are as matrices [what the second layer makes, what the first layer reads]. An element is as exact as the greatest
    weights of its output, and then of its input channel, ask for."""
    size = np.abs(weight.reshape(*weight.shape[:2], -1)).max(axis=2)  # [o, i]
    outputs = size.max(axis=1)
    outputs[outputs == 0] = 1
    inputs = (size / outputs[:, None]).max(axis=0)
    inputs[inputs == 0] = 1
    out, inside, *kernel = weight.shape
    taps = math.prod(kernel)
    yield Matrix("outputs", weight.reshape(out, -1), outputs, inputs.repeat(taps), weight.shape)
    if taps == 1:
        return
    _, _, rows, columns = weight.shape
    yield Matrix("inputs", weight.transpose(0, 2, 3, 1).reshape(-1, inside), outputs.repeat(taps), inputs, weight.shape)
    if rows > 1 and columns > 1:
        values = weight.transpose(0, 3, 1, 2).reshape(out * columns, inside * rows)
        yield Matrix("rows", values, outputs.repeat(columns), inputs.repeat(rows), weight.shape)


def _split(op: Any, matrix: Matrix, most: int) -> Split | None:
    """The two layers where `matrix` has a rank of at most `most`."""
    found = _low_rank.factors(np.ascontiguousarray(matrix.values), matrix.down, matrix.across, most)
    if found is None:
        return None
    left, right, of = found.left, found.right, min(matrix.values.shape)
    if len(matrix.shape) == 2:
        return Split(Layer(right, {}), Layer(left, {}), found.rank, of)
    out, inside, rows, columns = matrix.shape
    whole = _window_of(op)
    s, p, d = whole.values()
    plain = _window([1, 1], [0] * 4, [1, 1])
    if matrix.name == "outputs":
        return Split(Layer(right.reshape(-1, inside, rows, columns), whole), Layer(left.reshape(out, -1, 1, 1), plain), found.rank, of)
    if matrix.name == "inputs":
        kernels = left.reshape(out, rows, columns, -1).transpose(0, 3, 1, 2)
        return Split(Layer(right.reshape(-1, inside, 1, 1), plain), Layer(kernels, whole), found.rank, of)
    down = Layer(right.reshape(-1, inside, rows, 1), _window([s[0], 1], [p[0], 0, p[2], 0], [d[0], 1]))
    across = Layer(left.reshape(out, columns, -1, 1).transpose(0, 2, 3, 1), _window([1, s[1]], [0, p[1], 0, p[3]], [1, d[1]]))
    return Split(down, across, found.rank, of)


def _padded(split: Split) -> Split | None:
    """`split` with as many channels of zeros between its layers as Winograd's 3x3 asks for; None where that is none, or of no use."""
    first, second = split.first.weight, split.second.weight
    missing = -len(first) % winograd.CHANNELS
    if not missing or (3, 3) not in (first.shape[2:], second.shape[2:]):
        return None
    wide = np.pad(first, [(0, missing), *[(0, 0)] * 3]), np.pad(second, [(0, 0), (0, missing), (0, 0), (0, 0)])
    return replace(split, first=replace(split.first, weight=wide[0]), second=replace(split.second, weight=wide[1]))


def _window_of(op: Any) -> dict[str, list[int]]:
    """Strides, padding and dilations of a convolution; nothing of a linear layer."""
    return _window(*(op_attribute(op, key) for key in WINDOW)) if op.name == "qcc.conv2d" else {}


def _window(strides: list[int], padding: list[int], dilations: list[int]) -> dict[str, list[int]]:
    return dict(zip(WINDOW, (strides, padding, dilations), strict=True))


def _cost_now(op: Any, layer: Layer, target: Target) -> tuple[float, int]:
    """Predicted time and bytes of `op` as it is, weights with zeros in the form that is best for each."""
    known, weight = forms(op, target), layer.weight
    if known:
        density = np.count_nonzero(weight) / weight.size
        known = known if density < MOST_DENSITY else known[:1]
        return min(form.microseconds(density) for form in known), min(form.stored_bytes(density) for form in known)
    return _layer_microseconds(shape_of(op.operands[0]), layer, target), 4 * weight.size


def _microseconds(x: list[int], split: Split, target: Target) -> float:
    """Predicted time of both layers on an x of that shape."""
    return _layer_microseconds(x, split.first, target) + _layer_microseconds(_result_shape(x, split.first), split.second, target)


def _layer_microseconds(x: list[int], layer: Layer, target: Target) -> float:
    """Predicted time of `layer` on an x of that shape."""
    if layer.weight.ndim == 2:
        codelet = _float_times.linear(target.isa, math.prod(x[:-1]), *layer.weight.shape)
        return _float_times.microseconds(target.isa, codelet, target.weights_bytes)
    out, inside, rows, columns = layer.weight.shape
    n, _, height, width = _result_shape(x, layer)
    plain = [*layer.window["strides"], *layer.window["dilations"]] == [1] * 4
    return _float_times.convolution_microseconds(
        target.isa, (n, height, width, out), inside, (rows, columns), plain=plain, weights_bytes=target.weights_bytes
    )


def _result_shape(x: list[int], layer: Layer) -> list[int]:
    if not layer.window:
        return [*x[:-1], len(layer.weight)]
    return shapes.conv2d(x, list(layer.weight.shape), *(layer.window[key] for key in WINDOW))


def _replace(op: Any, split: Split) -> list[Any]:
    """Put both layers in the place of `op`; the operations made."""
    x, name = op.operands[0], layer_name(op.location)
    before, inside = ir.Location.name(f"{name}.rank_{split.rank}") if name else op.location, ir.InsertionPoint(op)
    made: list[Any] = []
    for layer, operands, location in ((split.first, [], before), (split.second, list(op.operands)[2:], op.location)):
        w = make_float_constant(np.ascontiguousarray(layer.weight), op, loc=location, name=layer_name(location))
        result = op.results[0].type if made else retyped(x, ir.F32Type.get(), _result_shape(shape_of(x), layer))
        made.append(create(op.name, [x, w, *operands], [result], attributes_of(op) | layer.window, loc=location, ip=inside))
        x = made[-1].results[0]
    replace_op(op, [x])
    return made
