"""Prove how many bits every accumulator and every stored activation needs, and give the accumulators these types.

Before:

    %w = qcc.constant dense<[[1, -2]]> : tensor<1x2x!quant.uniform<i8:f32, 1.0>>
    %a = qcc.linear %x, %w : (tensor<1x2x!quant.uniform<u4:f32, 1.0>>, ...) -> tensor<1x1xi32>

After:

    %a = qcc.linear %x, %w : ... -> tensor<1x1xi6>              // -30..15 from the weights 1, -2 and the activations 0..15

Forwards, ranges of stored integers run from the inputs (their types, or the options) through clamps, tables and rescaling; the range of a
product is, per output channel, the sum over its weights of the extreme products, plus the bias. Backwards, the demanded range of a value
is what its users can tell apart: beyond it all of them saturate. Clamps and tables are tightened to it, which narrows the ranges in
front of them; a clamp is also tightened to what is reached at all where that saves a stored bit. An accumulator's own width is never
reduced by demand, because its sums would wrap where they must saturate.

Requires: integer form.
Guarantees: sound for every input within its type or the given range: no accumulator leaves its type (partial sums may, and come back:
arithmetic is modulo 2^N). Attained for products of a constant weight with independent inputs: some input reaches both bounds of the
channel that decides. Facts per layer: accumulator_bits, accumulator_range, demanded_bits, activation_bits, weight_bits.
Why: the accelerator's time and the accumulators' area grow with these widths, and 16-bit sums are twice as fast as 32-bit ones on a
CPU; Stephenson, Babb, Amarasinghe, "Bitwidth analysis with application to silicon compilation", PLDI 2000.
Units: ranges are stored integers of quantized tensors, plain integers of accumulators.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.dialects.element_types import Affine
from qcc.dialects.mlir import create, error_at, ir, layer_name, op_attribute, replace_op, to_attribute, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.integer._rescaling import Rescale, rescaling, rounded, shifted, unsaturated
from qcc.passes.values import MOVEMENT, affine_of, attributes_of, constant_array, element_of, per_tensor, retyped, shape_of

Array = np.ndarray[Any, Any]
Range = tuple[int, int]

_PRODUCTS = ("qcc.conv2d", "qcc.linear", "qcc.matmul")
_CLAMPED = ("qcc.requantize", "qcc.add", "qcc.sub", "qcc.mul", "qcc.avg_pool2d")
_SELECTING = MOVEMENT | {"qcc.max_pool2d", "tensor.concat"}


@dataclass(frozen=True)
class Options:
    """`input_low`, `input_high`: least and greatest stored integer of the function's quantized inputs, where narrower than their types."""

    input_low: int = -(1 << 63)
    input_high: int = (1 << 63) - 1


class PropagateBitwidthPass(Pass):
    """See the module's docstring."""

    name = "propagate-bitwidth"
    Options = Options

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Ranges forwards, demand backwards, ranges again with the tightened clamps, then types and facts."""
        for function in walk(module, "func.func"):
            if function.regions[0].blocks and "qcc.generic" not in function.attributes:
                _Function(function, self.options).run(context)


class _Function:
    """The analysis of one function. `ranges` and `demands` map quantized and accumulator values to integers."""

    def __init__(self, function: Any, options: Options) -> None:
        self.block = function.regions[0].blocks[0]
        self.options = options
        self.operations = [op.operation for op in self.block.operations]
        self.ranges: dict[Any, Range] = {}
        self.channels: dict[Any, tuple[Array, Array]] = {}  # accumulator -> per-channel bounds
        self.weights: dict[Any, tuple[Array, Array]] = {}  # constant -> per output channel sums of negative and of positive weights
        self.demands: dict[Any, Range] = {}

    def run(self, context: PassContext) -> None:
        self.forward()
        for op in reversed(self.operations):
            self.demand(op)
        for op in self.operations:
            self.tighten(op)
        self.forward()
        for i, op in enumerate(self.operations):
            self.operations[i] = self.retype(op, context)

    # --- ranges ---------------------------------------------------------------------------------------------------------------------

    def forward(self) -> None:
        self.ranges.clear()
        self.channels.clear()
        for argument in self.block.arguments:
            if (whole := _type_range(argument)) is not None:
                low, high = max(whole[0], self.options.input_low), min(whole[1], self.options.input_high)
                self.ranges[argument] = (low, high) if low <= high else whole
        for op in self.operations:
            for result in op.results:
                if (whole := _type_range(result)) is not None or op.name in _PRODUCTS or op.name in MOVEMENT:
                    found = self.transfer(op)
                    if found is None:
                        found = whole
                    if found is not None:
                        self.ranges[result] = found

    def transfer(self, op: Any) -> Range | None:
        """Range of the result of `op`, or None where only its type bounds it."""
        if op.name == "qcc.constant":
            array = constant_array(op.results[0])
            return (int(array.min()), int(array.max())) if array is not None and array.size else None
        if op.name in _PRODUCTS:
            return self.product(op) if isinstance(element_of(op.results[0]), ir.IntegerType) else None
        if op.name == "qcc.requantize" and len(op.operands) > 1 and constant_array(op.operands[1]) is None:
            return None
        known = [self.ranges.get(operand) for operand in (op.operands if op.name != "qcc.requantize" else [op.operands[0]])]
        inputs = [r for r in known if r is not None]
        if not inputs or len(inputs) != len(known):
            return None
        if op.name in _SELECTING:
            return self.selected(op, inputs)
        if op.name == "qcc.lut":
            return _table_range(op, inputs[0])
        if op.name in _CLAMPED:
            return self.rescaled(op, inputs)
        return None

    def selected(self, op: Any, inputs: list[Range]) -> Range | None:
        low, high = min(r[0] for r in inputs), max(r[1] for r in inputs)
        if op.name == "qcc.pad":
            return min(low, _zero(op.results[0])), max(high, _zero(op.results[0]))
        if op.name == "qcc.max_pool2d":
            kernel, dilations, padding = (op_attribute(op, name) for name in ("kernel", "dilations", "padding"))
            if any(padding[i] > dilations[i % 2] * (kernel[i % 2] - 1) for i in range(4)):
                return None  # a window may lie wholly in the padding
        return low, high

    def product(self, op: Any) -> Range | None:
        """Bounds of an integer product, and per output channel in `channels`."""
        x, w = op.operands[0], op.operands[1]
        x_range, x_kind, w_kind = self.ranges.get(x), per_tensor(x), affine_of(w)
        if x_range is None or x_kind is None or w_kind is None:
            return None
        zero = int(x_kind.zero_points[0])
        low, high = x_range[0] - zero, x_range[1] - zero
        if op.name == "qcc.conv2d" and any(op_attribute(op, "padding")):
            low, high = min(low, 0), max(high, 0)
        stored = None if op.name == "qcc.matmul" else constant_array(w)
        if stored is None:
            found = self.computed_product(op, w, w_kind, (low, high))
            if found is None:
                return None
            least, greatest = (np.array([v], dtype=object) for v in found)
        else:
            negative, positive = (sums.astype(object) for sums in self.weight_sums(w, stored, w_kind))  # Python's integers do not overflow
            least, greatest = positive * low + negative * high, positive * high + negative * low
        if len(op.operands) > 2:
            bias = constant_array(op.operands[2])
            if bias is None:
                return None
            least, greatest = least + bias.astype(object), greatest + bias.astype(object)
        bits = signed_bits(int(least.min()), int(greatest.max()))
        if bits > 64:
            raise error_at(op, f"its accumulator needs {bits} bits, expected at most 64; quantize its operands to fewer bits")
        self.channels[op.results[0]] = least.astype(np.int64), greatest.astype(np.int64)
        return int(least.min()), int(greatest.max())

    def weight_sums(self, w: Any, stored: Array, kind: Affine) -> tuple[Array, Array]:
        """Per output channel the sums of the negative and of the positive centred weights, i64."""
        if w not in self.weights:
            rows = stored.reshape(stored.shape[0], -1)
            total = rows.sum(axis=1, dtype=np.int64) - kind.zero_points * rows.shape[1]
            zero = kind.zero_points.reshape(-1, 1)
            small = rows.dtype.itemsize == 1
            centred = rows.astype(np.int16 if small else np.int64) - zero.astype(np.int16 if small else np.int64)
            positive = np.maximum(centred, 0).sum(axis=1, dtype=np.int64)
            self.weights[w] = total - positive, positive
        return self.weights[w]

    def computed_product(self, op: Any, w: Any, kind: Affine, x: Range) -> Range | None:
        if (found := self.ranges.get(w)) is None or kind.zero_points.size != 1:
            return None
        zero = int(kind.zero_points[0])
        corners = [a * (b - zero) for a in x for b in found]
        terms = shape_of(op.operands[0])[-1] if op.name != "qcc.conv2d" else int(np.prod(shape_of(w)[1:]))
        return terms * min(corners), terms * max(corners)

    def rescaled(self, op: Any, inputs: list[Range]) -> Range | None:
        kind = per_tensor(op.results[0])
        if kind is None:
            return None
        low, high = op_attribute(op, "clamp", [kind.qmin, kind.qmax])
        zero = int(kind.zero_points[0])
        if op.name == "qcc.requantize":
            function = rescaling(op, zero, low, high)
            least, greatest = self.centred_channels(op, inputs)
            images = np.concatenate([np.ravel(function(least)), np.ravel(function(greatest))])
            return int(images.min()), int(images.max())
        centred = [(r[0] - _zero(v), r[1] - _zero(v)) for r, v in zip(inputs, op.operands, strict=True)]
        images = [_elementwise(op, corner, zero, low, high) for corner in _corners(op, centred)]
        slack = 1 if op.name == "qcc.avg_pool2d" else 0  # the divisor differs from window to window and is rounded
        return max(min(images) - slack, low), min(max(images) + slack, high)

    def centred_channels(self, op: Any, inputs: list[Range]) -> tuple[Array, Array]:
        """Bounds, i64 per channel or [1], of the integers that requantize `op` multiplies: zero point and bias applied."""
        x = op.operands[0]
        least, greatest = (np.array([v - _zero(x)], np.int64) for v in inputs[0])
        if (known := self.channels.get(x)) is not None:
            least, greatest = known
        if len(op.operands) > 1 and (bias := constant_array(op.operands[1])) is not None:
            least, greatest = least + bias.astype(np.int64), greatest + bias.astype(np.int64)
        return least, greatest

    # --- demand ---------------------------------------------------------------------------------------------------------------------

    def demand(self, op: Any) -> None:
        """Add to the demanded ranges of the operands of `op` what it can tell apart."""
        for i, operand in enumerate(op.operands):
            if (known := self.ranges.get(operand)) is None:
                continue
            low, high = self.demanded_by(op, i, known)
            before = self.demands.get(operand, (low, high))
            self.demands[operand] = min(low, before[0]), max(high, before[1])

    def demanded_by(self, op: Any, index: int, known: Range) -> Range:
        if op.name in _SELECTING and op.results[0] in self.demands:
            wanted = self.demands[op.results[0]]
            return min(max(wanted[0], known[0]), known[1]), max(min(wanted[1], known[1]), known[0])
        if op.name == "qcc.lut":
            return self.demanded_by_table(op, known)
        if op.name == "qcc.requantize" and index == 0 and len(op.operands) == 1:
            return self.demanded_by_requantize(op, known)
        return known

    def demanded_by_table(self, op: Any, known: Range) -> Range:
        kind = per_tensor(op.operands[0])
        if kind is None:
            return known
        table = op_attribute(op, "table").reshape(-1).astype(np.int64)
        table = np.clip(table, *self.demands.get(op.results[0], (int(table.min()), int(table.max()))))
        table = table[known[0] - kind.qmin : known[1] - kind.qmin + 1]
        changes = np.flatnonzero(np.diff(table))
        return (known[0] + int(changes[0]), known[0] + int(changes[-1]) + 1) if changes.size else (known[0], known[0])

    def demanded_by_requantize(self, op: Any, known: Range) -> Range:
        kind = per_tensor(op.results[0])
        if kind is None:
            return known
        low, high = self.tightened(op, kind)
        least, greatest = self.centred_channels(op, [known])
        size = max(least.size, op_attribute(op, "multiplier").size)
        least, greatest = np.broadcast_to(least, (size,)).copy(), np.broadcast_to(greatest, (size,)).copy()
        function: Rescale = rescaling(op, int(kind.zero_points[0]), low, high)
        a, b = unsaturated(function, least, greatest)
        zero = _zero(op.operands[0])
        return int(a.min()) + zero, int(b.max()) + zero

    def tightened(self, op: Any, kind: Affine) -> Range:
        """The clamp of `op` within what its users can tell apart."""
        low, high = op_attribute(op, "clamp", [kind.qmin, kind.qmax])
        wanted = self.demands.get(op.results[0], (low, high))
        return min(max(low, wanted[0]), wanted[1]), max(min(high, wanted[1]), wanted[0])

    def tighten(self, op: Any) -> None:
        """Give `op` the clamp or table that its users' demand allows."""
        if op.name not in _CLAMPED and op.name != "qcc.lut":
            return
        kind = per_tensor(op.results[0])
        wanted = self.demands.get(op.results[0]) if op.results else None
        if kind is None or wanted is None:
            return
        if op.name == "qcc.lut":
            table = op_attribute(op, "table")
            clipped = np.clip(table, *wanted).astype(table.dtype)
            if not np.array_equal(clipped, table):
                op.attributes["table"] = to_attribute(clipped)
            return
        known = self.ranges[op.results[0]]
        low, high = self.tightened(op, kind)
        reached = max(low, known[0]), min(high, known[1])
        before = op_attribute(op, "clamp", [kind.qmin, kind.qmax])
        if reached[0] <= reached[1] and stored_bits(*reached) < stored_bits(*before):
            low, high = reached  # says in the IR what the analysis knows, where storage can use it
        elif low <= known[0] and high >= known[1]:
            return
        if [low, high] != before:
            op.attributes["clamp"] = to_attribute([low, high])

    # --- types and facts ------------------------------------------------------------------------------------------------------------

    def retype(self, op: Any, context: PassContext) -> Any:
        """Give the accumulator that `op` makes or moves its width; the operation as it is afterwards."""
        if not op.results or not isinstance(element_of_any(op.results[0]), ir.IntegerType):
            return op
        if op.name not in _PRODUCTS and op.name not in MOVEMENT:
            return op  # an index or a mask
        result = op.results[0]
        known = self.ranges.get(result)
        if known is None:
            return op
        bits = signed_bits(*known)
        element = ir.IntegerType.get_signless(bits)
        if op.name in _PRODUCTS:
            self.record(op, known, bits, context)
        if element_of(result) == element:
            return op
        made = create(op.name, list(op.operands), [retyped(result, element)], attributes_of(op), loc=op.location, ip=ir.InsertionPoint(op))
        self.ranges[made.results[0]] = known
        replace_op(op, made.results)
        return made.operation

    def record(self, op: Any, known: Range, bits: int, context: PassContext) -> None:
        layer = layer_name(op.location)
        wanted = self.demands.get(op.results[0], known)
        x = self.ranges[op.operands[0]]
        facts: dict[str, Any] = {
            "accumulator_bits": bits,
            "accumulator_range": list(known),
            "demanded_bits": signed_bits(max(wanted[0], known[0]), min(wanted[1], known[1])),
            "activation_bits": stored_bits(*x),
        }
        if (w := self.ranges.get(op.operands[1])) is not None:
            facts["weight_bits"] = stored_bits(*w)
        context.fact(layer, **facts)


def signed_bits(low: int, high: int) -> int:
    """Least N such that a signed N-bit integer holds low..high."""
    return max((-low - 1).bit_length() if low < 0 else 0, high.bit_length() if high > 0 else 0) + 1


def stored_bits(low: int, high: int) -> int:
    """Bits that hold low..high: unsigned where nothing is negative."""
    return max(high.bit_length(), 1) if low >= 0 else signed_bits(low, high)


def element_of_any(value: Any) -> Any:
    """Element type of `value`, or None where it is no tensor."""
    return element_of(value) if isinstance(value.type, ir.RankedTensorType) else None


def _type_range(value: Any) -> Range | None:
    kind = affine_of(value)
    return None if kind is None else (kind.qmin, kind.qmax)


def _zero(value: Any) -> int:
    kind = per_tensor(value)
    return 0 if kind is None else int(kind.zero_points[0])


def _table_range(op: Any, known: Range) -> Range | None:
    kind = per_tensor(op.operands[0])
    if kind is None:
        return None
    seen = op_attribute(op, "table").reshape(-1)[known[0] - kind.qmin : known[1] - kind.qmin + 1]
    return int(seen.min()), int(seen.max())


def _corners(op: Any, centred: list[Range]) -> list[tuple[int, ...]]:
    """Combinations of operand bounds among which the extreme results are; pooling takes the bounds of a window's sum."""
    if op.name != "qcc.avg_pool2d":
        return [(a, b) for a in centred[0] for b in centred[1]]
    low, high = centred[0]
    if any(op_attribute(op, "padding")):
        low, high = min(low, 0), max(high, 0)
    count = int(np.prod(op_attribute(op, "kernel")))
    return [(low * count, count), (high * count, count)]


def _elementwise(op: Any, corner: tuple[int, ...], zero: int, low: int, high: int) -> int:
    """Result of add, sub, mul or avg_pool2d `op` on one combination of centred integers."""
    m = op_attribute(op, "multipliers").reshape(-1)
    a, b = corner
    fixed = op_attribute(op, "mode", "f32") == "fixed"
    integer: Callable[[Any], int] = int
    scale = integer if fixed else np.float32
    if op.name == "qcc.avg_pool2d":
        real = a * integer(m[0]) if fixed else np.float32(a) * (np.float32(m[0]) / np.float32(b))
    elif op.name == "qcc.mul":
        real = scale(a * b) * scale(m[0])
    else:
        second = scale(b) * scale(m[1])
        real = scale(a) * scale(m[0]) + (second if op.name == "qcc.add" else -second)
    if fixed:
        value = shifted(np.array([real]), op_attribute(op, "shift").reshape(-1), op_attribute(op, "rounding", "half_even"))
        return int(np.clip(value[0] + zero, low, high))
    return int(rounded(np.array([real]), zero, low, high)[0])
