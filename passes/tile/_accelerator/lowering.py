"""From the operations of an accelerator segment to its layers, with every tensor placed in a buffer."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from qcc.dialects import bitplanes
from qcc.dialects.mlir import ir, layer_name, op_attribute
from qcc.passes.tile._accelerator import rules
from qcc.passes.tile._accelerator.layer import (
    Buffer,
    Identity,
    Layer,
    Matrix,
    Placement,
    Requantization,
    Residual,
    Weights,
    Window,
)
from qcc.passes.values import affine_of, constant_array, per_tensor, producer, shape_of, used_once

Range = tuple[int, int]
GREATEST_ROW = (1 << 19) - 1  # pixels that a row may have (isa: load_activations x)


class Lowering:
    """Layers, inputs and outputs of one segment. Buffers have no addresses yet."""

    def __init__(self, function: Any, word_bits: int) -> None:
        self.word_bits = word_bits
        self.block = function.regions[0].blocks[0]
        body = [view.operation for view in self.block.operations]
        self.work = [op for op in body if op.name not in ("qcc.constant", "func.return")]
        self.returned = list(body[-1].operands)
        self.axes = rules.decide(self.work).axes
        self.layers: list[Layer] = []
        self.inputs: list[tuple[int, Placement]] = []  # (argument number, where it is packed)
        self.outputs: list[Placement] = []
        self.ranges: dict[Any, Range] = {}
        self.homes: dict[Any, tuple[Buffer, int]] = {}
        self.placements: dict[Any, Placement] = {}
        self.arguments: dict[tuple[Any, int], Placement] = {}
        self.fused = self._fuse_sums()
        self.waiting: dict[Any, tuple[Any, ...]] = {}  # sum -> the layer in front of it, with the operand's number

    def run(self) -> Lowering:
        """Fill `layers`, `inputs` and `outputs`."""
        self._find_ranges()
        self._place_concatenations()
        for op in self.work:
            self._lower(op)
        for index, value in enumerate(self.returned):
            placed = self._placed(value, self.axes[value])
            assert placed.buffer is not None
            if placed.buffer.use == "arena":
                placed.buffer.use, placed.buffer.index = "output", index
            self.outputs.append(placed)
        return self

    # what is known before anything is placed

    def _root(self, value: Any) -> Any:
        while (view := producer(value, *rules.VIEWS)) is not None:
            value = view.operands[0]
        return value

    def _fuse_sums(self) -> dict[Any, Any]:
        """requantize -> the addition that the post unit does behind it, with the one rounding that it has for both."""
        order = {op: i for i, op in enumerate(self.work)}
        fused: dict[Any, Any] = {}
        for op in self.work:
            if op.name in ("qcc.add", "qcc.sub") and op.operands[0] != op.operands[1]:
                makers = [made for value in op.operands if (made := producer(value, "qcc.requantize")) is not None and used_once(value)]
                able = [made for made in makers if _rounding(made) == _rounding(op)]
                if able:
                    fused[max(able, key=lambda made: order[made])] = op
        return fused

    def _find_ranges(self) -> None:
        for argument in self.block.arguments:
            self.ranges[argument] = _type_range(argument)
        padded: list[tuple[Any, int]] = []
        for op in self.work:
            if op.name in rules.VIEWS:
                continue
            result, x = op.results[0], self._root(op.operands[0])
            if op.name == "tensor.concat":
                parts = [self.ranges[self._root(v)] for v in op.operands]
                self.ranges[result] = min(p[0] for p in parts), max(p[1] for p in parts)
            elif op.name == "qcc.max_pool2d":
                self.ranges[result] = self.ranges[x]
            else:
                self.ranges[result] = _type_range(result, op_attribute(op, "clamp"))
            if op.name in ("qcc.conv2d", "qcc.avg_pool2d") and any(op_attribute(op, "padding")):
                padded.append((x, _zero_point(op.operands[0])))
        for value, zero in padded:  # the planes must be able to hold the zero point that surrounds the image
            low, high = self.ranges[value]
            self.ranges[value] = min(low, zero), max(high, zero)
        for op in reversed(self.work):
            if op.name == "tensor.concat":
                every = [self.ranges[v] for v in (op.results[0], *(self._root(v) for v in op.operands))]
                union = min(r[0] for r in every), max(r[1] for r in every)
                for value in (op.results[0], *(self._root(v) for v in op.operands)):
                    self.ranges[value] = union

    def _place_concatenations(self) -> None:
        """Reserve room for concatenations and, where they can, let their parts be written straight into it."""
        for op in reversed(self.work):
            if op.name != "tensor.concat":
                continue
            result = op.results[0]
            widths = [self._part_words(self._root(v), v) for v in op.operands]
            planes = bitplanes.planes_of(*self.ranges[result])[0]
            if result not in self.homes:
                pixels = int(np.prod(shape_of(result))) // shape_of(result)[self.axes[result]]
                self.homes[result] = Buffer(layer_name(op.location), pixels, sum(widths) * planes), 0
            buffer, offset = self.homes[result]
            for value, width in zip(op.operands, widths, strict=True):
                root = self._root(value)
                if root not in self.homes and not isinstance(root.owner, ir.Block) and list(op.operands).count(value) == 1:
                    self.homes[root] = buffer, offset
                offset += width * planes

    def _part_words(self, root: Any, value: Any) -> int:
        """Words of one plane of a concatenation's part; a nested concatenation keeps its gaps."""
        op = producer(root, "tensor.concat")
        if op is not None:
            return sum(self._part_words(self._root(v), v) for v in op.operands)
        return bitplanes.words_for(shape_of(value)[self._axis(value)], self.word_bits)

    def _axis(self, value: Any) -> int:
        if value in self.axes:
            return self.axes[value]
        return next(op_attribute(use.owner.operation, "dim") for use in value.uses if use.owner.operation.name == "tensor.concat")

    # placements

    def _positions(self, value: Any, axis: int) -> np.ndarray:
        """Bit position of every channel of `value`; concatenated parts begin at words of their own."""
        op = producer(value, "tensor.concat")
        if op is None:
            return np.arange(shape_of(value)[axis])
        parts, start = [], 0
        for operand in op.operands:
            root = self._root(operand)
            parts.append(start + self._positions(root, self._axis(operand) if root == operand else self.axes[root]))
            start += self._part_words(root, operand) * self.word_bits
        return np.concatenate(parts)

    def _placed(self, value: Any, axis: int) -> Placement:
        """Where `value` lies, seen with its own shape."""
        root = self._root(value)
        if isinstance(root.owner, ir.Block):
            if (root, axis) not in self.arguments:
                index = root.arg_number
                self.arguments[root, axis] = self._new(root, axis, f"input {index}")
                made = self.arguments[root, axis]
                assert made.buffer is not None
                made.buffer.use, made.buffer.index = "input", len(self.inputs)
                self.inputs.append((index, made))
            return self.arguments[root, axis]
        placed = self.placements[root]
        if value == root or axis == rules.FLAT or self.axes[value] == rules.FLAT:
            return placed
        return dataclasses.replace(placed, shape=shape_of(value), axis=self.axes[value])

    def _new(self, value: Any, axis: int, name: str) -> Placement:
        """A placement for `value`: its reserved home, or a buffer of its own."""
        placed = Placement(shape_of(value), axis, *self.ranges[value], positions=self._positions(value, axis), word_bits=self.word_bits)
        if value in self.homes:
            placed.buffer, placed.offset = self.homes[value]
        else:
            placed.buffer = Buffer(name, placed.pixels, placed.words * placed.planes)
        return placed

    # operations

    def _lower(self, op: Any) -> None:
        if op.name in rules.VIEWS:
            return
        result, name = op.results[0], layer_name(op.location) or op.name.split(".")[-1]
        if op.name == "tensor.concat":
            self.placements[result] = self._new(result, self.axes[result], name)
            self._copy_strangers(op, name)
        elif op.name in rules.PRODUCTS:
            user = next(iter(result.uses)).owner.operation if used_once(result) else None
            if user is None or user.name != "qcc.requantize":
                weights, window, source = self._product(op)
                self._add(op, result, name, source, window, weights, self._raw(op, weights))
        elif op.name == "qcc.requantize":
            self._requantize(op, name)
        elif op.name in ("qcc.add", "qcc.sub"):
            if op in self.waiting:
                product, name, source, window, weights, post, pad, index = self.waiting.pop(op)
                self._add(product, result, name, source, window, weights, post, pad=pad, residual=self._residual(op, index, name))
            else:
                index = int(constant_array(op.operands[0]) is not None)
                source = self._placed(op.operands[index], self.axes[result])
                weights = self._identity(source, 1)
                post, residual = _copied(source, weights.outputs, _rounding(op)), self._residual(op, index, name)
                self._add(op, result, name, source, _pixelwise(source), weights, post, residual=residual)
        elif op.name == "qcc.max_pool2d":
            source = self._placed(op.operands[0], 1)
            window = _window(source, op, op_attribute(op, "kernel"), shape_of(result), op_attribute(op, "dilations"))
            weights = self._identity(source, window.taps, pooling=True)
            self._add(op, result, name, source, window, weights, _copied(source, weights.outputs), pad=source.low)
        elif op.name == "qcc.avg_pool2d":
            source = self._placed(op.operands[0], 1)
            window = _window(source, op, op_attribute(op, "kernel"), shape_of(result), [1, 1])
            weights, zero = self._identity(source, window.taps), _zero_point(op.operands[0])
            bias = np.full(weights.outputs, -zero * window.taps)
            self._add(op, result, name, source, window, weights, _rescaled(op, bias, "multipliers"), pad=zero)

    def _identity(self, source: Placement, taps: int, pooling: bool = False) -> Identity:
        return Identity(source.positions, taps, pooling, self.word_bits)

    def _product(self, op: Any) -> tuple[Matrix, Window, Placement]:
        x, w = op.operands[0], rules.weight_operand(op)
        assert w is not None
        axis = 1 if op.name == "qcc.conv2d" else self.axes.get(x, len(shape_of(x)) - 1)
        if op.name == "qcc.conv2d" and (gathered := self._gathered(op, w)) is not None:
            return gathered
        source = self._placed(x, axis)
        if source.buffer is not None:
            source.buffer.zeros = max(source.buffer.zeros, op_attribute(op, "qcc.zeros", 0.0))
            source.buffer.zero = _zero_point(x)
        if op.name == "qcc.conv2d":
            window = _window(source, op, w.shape[2:], shape_of(op.results[0]), op_attribute(op, "dilations"))
            matrix = Matrix(w.reshape(*w.shape[:2], -1), op_attribute(op, "groups"), source.positions, self.word_bits)
        elif axis == rules.FLAT:
            shape, kernel = source.shape, rules.flat_kernel(source.shape, source.axis)
            window = Window(shape[0], *kernel, 1, 1, kernel)
            blocks = np.moveaxis(w.reshape(len(w), *shape[1:]), source.axis, 1)
            matrix = Matrix(blocks.reshape(len(w), blocks.shape[1], -1), 1, source.positions, self.word_bits)
        else:
            window = _pixelwise(source)
            matrix = Matrix(w[:, :, None], 1, source.positions, self.word_bits)
        return matrix, window, source

    def _gathered(self, op: Any, w: np.ndarray) -> tuple[Matrix, Window, Placement] | None:
        """A convolution of the segment's own input with few channels: the driver packs whole windows into words,
        taps beside channels.

        None where that saves no words. A first layer of 7 x 7 taps and 3 channels takes 3 words of 64 bits instead of 49.
        """
        x, result = op.operands[0], op.results[0]
        n, channels = shape_of(x)[:2]
        bits = int(np.prod(w.shape[1:]))
        words, taps = bitplanes.words_for(bits, self.word_bits), int(np.prod(w.shape[2:]))
        if not isinstance(x.owner, ir.Block) or not used_once(x) or op_attribute(op, "groups") != 1:
            return None
        if 2 * words > taps * bitplanes.words_for(channels, self.word_bits):
            return None
        pixels = Placement(shape_of(x), 1, *self.ranges[x], positions=np.arange(channels), word_bits=self.word_bits)
        window = _window(pixels, op, w.shape[2:], shape_of(result), op_attribute(op, "dilations"))
        source = Placement(
            [n, bits, *shape_of(result)[2:]],
            1,
            *self.ranges[x],
            positions=np.arange(bits),
            word_bits=self.word_bits,
            gather=window,
            gather_value=_zero_point(x),
        )
        source.buffer = Buffer(f"windows of input {x.arg_number}", source.pixels, source.words * source.planes, "input", len(self.inputs))
        self.inputs.append((x.arg_number, source))
        matrix = Matrix(w.reshape(len(w), channels, taps).transpose(0, 2, 1).reshape(len(w), bits, 1), 1, source.positions, self.word_bits)
        return matrix, _pixelwise(source), source

    def _bias(self, product: Any, weights: Matrix, *more: Any) -> np.ndarray:
        """Initial accumulators: the biases, and the input's zero point times the sum of the weights."""
        total = -_zero_point(product.operands[0]) * weights.w.sum(axis=(1, 2))
        for value in [*list(product.operands)[2:], *more]:
            total = total + _constant(value)
        return total

    def _raw(self, op: Any, weights: Matrix) -> Requantization:
        bits = ir.RankedTensorType(op.results[0].type).element_type.width
        return Requantization(
            self._bias(op, weights),
            np.ones(weights.outputs, np.int64),
            np.zeros(weights.outputs, np.int64),
            0,
            -(1 << (bits - 1)),
            (1 << (bits - 1)) - 1,
            bits,
            "half_even",
        )

    def _requantize(self, op: Any, name: str) -> None:
        product = producer(op.operands[0], *rules.PRODUCTS)
        pad = 0
        if product is not None:
            weights, window, source = self._product(product)
            pad = _zero_point(product.operands[0])
            bias = self._bias(product, weights, *list(op.operands)[1:])
            name = layer_name(product.location) or name
        else:
            source = self._placed(op.operands[0], self.axes[op.results[0]])
            weights, window = self._identity(source, 1), _pixelwise(source)
            bias = np.full(weights.outputs, -_zero_point(op.operands[0]))
            for value in list(op.operands)[1:]:
                bias = bias + _constant(value)
        post = _rescaled(op, bias, "multiplier")
        total = self.fused.get(op)
        if total is not None:
            # The layer waits for the sum's other operand, so it is emitted where the sum stands.
            self.waiting[total] = product or op, name, source, window, weights, post, pad, list(total.operands).index(op.results[0])
            return
        self._add(product or op, op.results[0], name, source, window, weights, post, pad=pad)

    def _residual(self, total: Any, index: int, name: str) -> Residual:
        """The addition of operand 1 - `index` of `total` to what the post unit has from operand `index`."""
        other, kind = total.operands[1 - index], per_tensor(total.results[0])
        assert kind is not None
        source = self._addend(other, total, name)
        multipliers = [int(m) for m in np.asarray(op_attribute(total, "multipliers"))]
        if total.name == "qcc.sub":
            multipliers[1] = -multipliers[1]
        low, high = op_attribute(total, "clamp") or (kind.qmin, kind.qmax)
        scale = {
            "multiplier_a": multipliers[index],
            "multiplier_b": multipliers[1 - index],
            "shift": int(np.asarray(op_attribute(total, "shift")).reshape(-1)[0]),
            "zero_a": _zero_point(total.operands[index]),
            "zero_b": _zero_point(other),
        }
        return Residual(source, scale, int(kind.zero_points[0]), low, high)

    def _addend(self, value: Any, total: Any, name: str) -> Placement:
        """Where the residual of `total` lies: a tensor, or one constant pixel."""
        axis, shape = self.axes[total.results[0]], shape_of(total.results[0])
        constant = rules.channel_constant(value, shape, axis)
        if constant is None:
            return self._compact(self._placed(value, axis), name, total.location)
        low, high = int(constant.min()), int(constant.max())
        return Placement([1, shape[axis]], 1, low, high, np.arange(shape[axis]), self.word_bits, constant=constant)

    def _compact(self, source: Placement, name: str, location: Any) -> Placement:
        """`source` with its channels at neighbouring bits: itself, or a copy without the gaps of a concatenation."""
        if np.array_equal(source.positions, np.arange(len(source.positions))):
            return source
        copy = dataclasses.replace(source, positions=np.arange(len(source.positions)), offset=0)
        copy.buffer = Buffer(f"{name} copy", copy.pixels, copy.words * copy.planes)
        self._copy(source, copy, f"{name} copy", location)
        return copy

    def _copy(self, source: Placement, target: Placement, name: str, location: Any) -> None:
        weights = self._identity(source, 1)
        post = _copied(source, weights.outputs)
        post.bits = target.planes
        self.layers.append(Layer(name, location, source, _pixelwise(source), weights, post, target))

    def _copy_strangers(self, op: Any, name: str) -> None:
        """Copy those parts of a concatenation that could not be written straight into it."""
        whole = self.placements[op.results[0]]
        offset = whole.offset
        for value in op.operands:
            root = self._root(value)
            source = self._placed(value, self.axes[op.results[0]])
            words = self._part_words(root, value)
            if not (source.buffer is whole.buffer and source.offset == offset):
                if producer(root, "tensor.concat") is not None:
                    source = self._split_copy(source, whole, offset, name, op.location)
                else:
                    target = dataclasses.replace(source, buffer=whole.buffer, offset=offset, low=whole.low, high=whole.high)
                    self._copy(source, target, f"{name} copy", op.location)
            offset += words * whole.planes

    def _split_copy(self, source: Placement, whole: Placement, offset: int, name: str, location: Any) -> Placement:
        """Copy a concatenation into another one part by part, since each part begins at a word."""
        starts = np.flatnonzero(np.diff(source.positions, prepend=-2) != 1)
        for a, b in zip(starts, [*starts[1:], len(source.positions)], strict=True):
            positions = source.positions[a:b]
            first = int(positions[0]) // self.word_bits
            part = dataclasses.replace(source, positions=positions, shape=_with(source, int(b - a)))
            target = dataclasses.replace(
                part, positions=np.arange(b - a), buffer=whole.buffer, low=whole.low, high=whole.high, offset=offset + first * whole.planes
            )
            self._copy(part, target, f"{name} copy", location)
        return source

    def _add(
        self,
        op: Any,
        result: Any,
        name: str,
        source: Placement,
        window: Window,
        weights: Weights,
        post: Requantization,
        *,
        pad: int = 0,
        residual: Residual | None = None,
    ) -> None:
        placed = self.placements[result] = self._new(result, self.axes[result], name)
        post.bits = placed.planes
        self.layers.append(Layer(name, op.location, source, window.flattened(GREATEST_ROW), weights, post, placed, residual, pad))


def _with(source: Placement, channels: int) -> list[int]:
    return [channels if axis == source.axis else size for axis, size in enumerate(source.shape)]


def _type_range(value: Any, clamp: list[int] | None = None) -> Range:
    kind = affine_of(value)
    if kind is None:
        width = ir.RankedTensorType(value.type).element_type.width
        return -(1 << (width - 1)), (1 << (width - 1)) - 1
    return (clamp[0], clamp[1]) if clamp else (kind.qmin, kind.qmax)


def _zero_point(value: Any) -> int:
    kind = per_tensor(value)
    assert kind is not None
    return int(kind.zero_points[0])


def _constant(value: Any) -> np.ndarray:
    array = constant_array(value)
    assert array is not None
    return array.astype(np.int64)


def _pixelwise(source: Placement) -> Window:
    return Window(1, 1, source.pixels, 1, source.pixels)


def _window(source: Placement, op: Any, kernel: Any, result: list[int], dilations: list[int]) -> Window:
    n, _, h, w = source.shape
    top, left, _, _ = op_attribute(op, "padding")
    strides = op_attribute(op, "strides")
    return Window(
        n, h, w, result[2], result[3], (int(kernel[0]), int(kernel[1])), (strides[0], strides[1]), (dilations[0], dilations[1]), top, left
    )


def _rounding(op: Any) -> str:
    return op_attribute(op, "rounding", "half_even")


def _copied(source: Placement, outputs: int, rounding: str = "half_even") -> Requantization:
    """What is there already; `rounding` is that of an addition behind."""
    return Requantization(
        np.zeros(outputs, np.int64),
        np.ones(outputs, np.int64),
        np.zeros(outputs, np.int64),
        0,
        source.low,
        source.high,
        source.planes,
        rounding,
    )


def _rescaled(op: Any, bias: np.ndarray, multipliers: str) -> Requantization:
    """Multiplier, shift, rounding, zero point and clamp of a fixed-mode operation."""
    kind = per_tensor(op.results[0])
    assert kind is not None
    low, high = op_attribute(op, "clamp") or (kind.qmin, kind.qmax)
    spread = [np.broadcast_to(np.asarray(op_attribute(op, key)).astype(np.int64).reshape(-1), bias.shape) for key in (multipliers, "shift")]
    return Requantization(bias, spread[0], spread[1], int(kind.zero_points[0]), low, high, kind.bits, _rounding(op))
