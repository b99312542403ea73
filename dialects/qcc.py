"""The qcc dialect: operations of the graph and integer forms.

`compiler/decisions/0001-forms-and-ops.md` lists the operations; `runtime/reference/qcc.py` says in numpy what each one means.
Element types and encodings are in `element_types.py`, `compressed_types.py` and `encodings.py`. The verifiers speak to people, so the
bindings' own constraints stay open.
"""

# No `from __future__ import annotations` here: the bindings read annotations as objects.
import weakref
from collections.abc import Sequence
from typing import Any

from qcc.dialects import element_types, shapes
from qcc.dialects.element_types import is_float, is_integer, is_quantized
from qcc.dialects.expectations import (
    check_norm,
    check_same,
    expect_axes,
    expect_compute_types,
    expect_float,
    expect_same_elements,
    expect_shape,
)
from qcc.dialects.mlir import ext, ir
from qcc.dialects.operation import Invalid, base_of, boolean, elements, integer, ints, number, one_of, tensor


class Qcc(ext.Dialect, name="qcc"):
    """Quantized, sparse and coded tensors and what is computed on them."""


Base = base_of(Qcc)

UNARY_KINDS = (
    "gelu", "gelu_tanh", "silu", "sigmoid", "tanh", "exp", "log", "erf", "sqrt", "rsqrt", "reciprocal", "neg", "abs", "hardswish",
    "hardsigmoid", "leaky_relu", "elu", "softplus", "mish", "sign", "binarize", "floor", "ceil", "round", "round_bf16", "sin", "cos",
    "round_e4m3", "round_e5m2", "round_f16", "log2", "exp2", "at_least",
)  # fmt: skip
REDUCE_KINDS = ("mean", "sum", "max", "min")


class Constant(Base, name="constant", operands=(), attributes={"value": elements()}):
    """A constant tensor: `value` is the storage container, the result type its meaning."""

    def check(self) -> None:
        y = tensor(self.y, "result")
        checked = _checked.setdefault(y.context, set())
        key = hash(self.attributes["value"]), hash(self.y.type)
        if key not in checked:  # every pass verifies, and weights are megabytes
            element_types.check_payload(self.attr("value"), y)
            checked.add(key)


_checked: weakref.WeakKeyDictionary[Any, set[tuple[int, int]]] = weakref.WeakKeyDictionary()  # by address of attribute and type


class Quantize(Base, name="quantize", operands=("x",)):
    """clamp(round_half_even(x / scale) + zero_point, qmin, qmax), all from the result's element type."""

    def check(self) -> None:
        x, y = tensor(self.x, "x"), tensor(self.y, "result")
        if not is_float(x) or not is_quantized(y):
            raise Invalid(f"found {x.element_type} to {y.element_type}, expected float to quantized")
        element_types.verify(y)
        expect_shape(y.shape, x.shape, "the operand")


class Dequantize(Base, name="dequantize", operands=("x", "bias?"), attributes={"multiplier?": elements(), "axis?": integer(0)}):
    """Real value of a quantized tensor; or f32(acc) * multiplier[c] + bias[c] of an accumulator."""

    def check(self) -> None:
        x, y = tensor(self.x, "x"), tensor(self.y, "result")
        if not is_float(y) or is_float(x):
            raise Invalid(f"found {x.element_type} to {y.element_type}, expected quantized or integer to float")
        if is_integer(x) and "multiplier" not in self.attributes:
            raise Invalid("attribute 'multiplier' is missing, expected one for an integer accumulator")
        element_types.verify(x)
        expect_shape(y.shape, x.shape, "the operand")


class Requantize(
    Base,
    name="requantize",
    operands=("x", "bias?"),
    attributes={
        "multiplier": elements(),
        "shift?": elements(),
        "axis?": integer(0),
        "mode": one_of("f32", "fixed"),
        "rounding?": one_of("half_even", "half_away"),
        "clamp?": ints(2),
    },
):
    """Accumulator (or quantized tensor) to quantized tensor in one of the two stated modes."""

    def check(self) -> None:
        x, y = tensor(self.x, "x"), tensor(self.y, "result")
        if is_float(x) or not is_quantized(y):
            raise Invalid(f"found {x.element_type} to {y.element_type}, expected an accumulator or quantized tensor to a quantized one")
        expect_shape(y.shape, x.shape, "the operand")
        multiplier = self.attr("multiplier")
        if multiplier.size != 1 and ("axis" not in self.attributes or multiplier.size != x.shape[self.attr("axis")]):
            raise Invalid(f"'multiplier' has {multiplier.size} entries, expected 1 or one per index of 'axis'")
        fixed = self.attr("mode") == "fixed"
        if fixed and element_types.affine(y) is None:
            raise Invalid(f"mode is fixed for {y.element_type}, expected an affine type or mode 'f32'")
        if fixed and "shift" not in self.attributes:
            raise Invalid("mode is fixed but attribute 'shift' is missing")
        if fixed != (multiplier.dtype.kind == "i"):
            raise Invalid(f"mode '{self.attr('mode')}' found a multiplier of {multiplier.dtype}, expected f32 for 'f32', i32 for 'fixed'")


class Conv2d(
    Base,
    name="conv2d",
    operands=("x", "w", "bias?"),
    attributes={"strides": ints(2, 1), "padding": ints(4, 0), "dilations": ints(2, 1), "groups": integer(1)},
):
    """Two-dimensional convolution (cross-correlation) of x [n, c, h, w] with w [o, c/groups, kh, kw]."""

    def check(self) -> None:
        x, w, y = tensor(self.x, "x"), tensor(self.w, "w"), tensor(self.y, "result")
        if len(x.shape) != 4 or len(w.shape) != 4:
            raise Invalid(f"x has shape {x.shape} and w {w.shape}, expected [n, c, h, w] and [o, c/groups, kh, kw]")
        groups = self.attr("groups")
        if x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
            raise Invalid(
                f"x has {x.shape[1]} channels and w {w.shape[1]} per group with {w.shape[0]} outputs in {groups} groups, "
                "expected channels = groups * channels per group and outputs a multiple of groups"
            )
        expect_compute_types(x, w, y)
        expected = shapes.conv2d(x.shape, w.shape, self.attr("strides"), self.attr("padding"), self.attr("dilations"))
        if min(expected) < 1:
            raise Invalid(f"the window does not fit: input {x.shape}, weights {w.shape}, padding {self.attr('padding')}")
        expect_shape(y.shape, expected, "input, weights, strides, padding and dilations")
        _check_bias(self.bias, w.shape[0])


def _check_bias(bias: Any, channels: int) -> None:
    if bias is not None and list(tensor(bias, "bias").shape) != [channels]:
        raise Invalid(f"bias has shape {tensor(bias, 'bias').shape}, expected [{channels}]")


class Linear(Base, name="linear", operands=("x", "w", "bias?")):
    """x [..., in] times w [out, in] transposed, plus bias [out]."""

    def check(self) -> None:
        x, w, y = tensor(self.x, "x"), tensor(self.w, "w"), tensor(self.y, "result")
        if len(w.shape) != 2 or not x.shape or x.shape[-1] != w.shape[1]:
            raise Invalid(f"x has shape {x.shape} and w {w.shape}, expected [..., in] and [out, in]")
        expect_compute_types(x, w, y)
        expect_shape(y.shape, [*x.shape[:-1], w.shape[0]], "x and w")
        _check_bias(self.bias, w.shape[0])


class Matmul(Base, name="matmul", operands=("a", "b")):
    """a [..., m, k] times b [..., k, n]; batch axes broadcast."""

    def check(self) -> None:
        a, b, y = tensor(self.a, "a"), tensor(self.b, "b"), tensor(self.y, "result")
        if len(a.shape) < 2 or len(b.shape) < 2:
            raise Invalid(f"a has shape {a.shape} and b {b.shape}, expected at least two axes each")
        expect_compute_types(a, b, y)
        expect_shape(y.shape, shapes.matmul(a.shape, b.shape), f"a {a.shape} and b {b.shape}")


class BatchNorm(Base, name="batch_norm", operands=("x", "scale", "bias", "mean", "var"), attributes={"epsilon": number()}):
    """(x - mean) / sqrt(var + epsilon) * scale + bias per channel (axis 1); float, folded away by fold-batch-norm."""

    def check(self) -> None:
        x = tensor(self.x, "x")
        for name in ("scale", "bias", "mean", "var"):
            if list(tensor(getattr(self, name), name).shape) != [x.shape[1]]:
                raise Invalid(f"'{name}' has shape {tensor(getattr(self, name), name).shape}, expected [{x.shape[1]}]")


def _check_fixed(self: Any) -> None:
    """Mode fixed has integer multipliers with a shift, mode f32 (the default) real multipliers without."""
    if "multipliers" not in self.attributes:
        return
    fixed, found = self.attr("mode", "f32") == "fixed", self.attr("multipliers").dtype
    if fixed and "shift" not in self.attributes:
        raise Invalid("mode is fixed but attribute 'shift' is missing")
    if fixed != (found.kind == "i"):
        raise Invalid(f"mode '{self.attr('mode', 'f32')}' found multipliers of {found}, expected f32 for 'f32', i32 for 'fixed'")


def _check_binary(self: Any) -> None:
    a, b, y = tensor(self.a, "a"), tensor(self.b, "b"), tensor(self.y, "result")
    expected = shapes.broadcast(a.shape, b.shape)
    if expected is None:
        raise Invalid(f"shapes {a.shape} and {b.shape} do not broadcast")
    expect_shape(y.shape, expected, "broadcasting the operands")
    if is_quantized(a) and is_quantized(b) and is_quantized(y) and "multipliers" not in self.attributes:
        raise Invalid("attribute 'multipliers' is missing, expected one because the operands are quantized")
    _check_fixed(self)


_RESCALE = {
    "multipliers?": elements(),
    "mode?": one_of("f32", "fixed"),
    "shift?": elements(),
    "rounding?": one_of("half_even", "half_away"),
    "clamp?": ints(2),
}
_BINARY = _RESCALE


class Add(Base, name="add", operands=("a", "b"), attributes=_BINARY):
    """a + b; on quantized values with the two `multipliers` scale_a / scale_y and scale_b / scale_y."""

    check = _check_binary


class Sub(Base, name="sub", operands=("a", "b"), attributes=_BINARY):
    """a - b; quantized as `add`."""

    check = _check_binary


class Mul(Base, name="mul", operands=("a", "b"), attributes=_BINARY):
    """a * b; on quantized values with the one multiplier scale_a * scale_b / scale_y."""

    check = _check_binary


class Div(Base, name="div", operands=("a", "b")):
    """a / b, float only."""

    check = _check_binary


class Clamp(Base, name="clamp", operands=("x",), attributes={"min": number(), "max": number()}):
    """min(max(x, min), max); ReLU is min 0 and max infinity."""

    def check(self) -> None:
        check_same(self)
        if not self.attr("min") <= self.attr("max"):
            raise Invalid(f"min is {self.attr('min')} and max {self.attr('max')}, expected min <= max")


class Unary(Base, name="unary", operands=("x",), attributes={"kind": one_of(*UNARY_KINDS), "alpha?": number()}):
    """An element-wise function of one float operand."""

    def check(self) -> None:
        expect_float(tensor(self.x, "x"), "x")
        check_same(self)


class Lut(Base, name="lut", operands=("x",), attributes={"table": elements()}):
    """table[x - qmin of x's type]: any function of at most 8 bits."""

    def check(self) -> None:
        x = element_types.affine(self.x.type)
        if x is None or x.bits > 8:
            raise Invalid(f"x is {self.x.type}, expected a quantized tensor of at most 8 bits")
        if self.attr("table").size != x.qmax - x.qmin + 1:
            raise Invalid(f"'table' has {self.attr('table').size} entries, expected {x.qmax - x.qmin + 1} for {x.qmin}..{x.qmax}")
        expect_shape(tensor(self.y, "result").shape, tensor(self.x, "x").shape, "the operand")


_WINDOW = {"kernel": ints(2, 1), "strides": ints(2, 1), "padding": ints(4, 0)}


def _check_window(self: Any, x: ir.RankedTensorType, y: ir.RankedTensorType, dilations: Sequence[int]) -> None:
    if len(x.shape) != 4:
        raise Invalid(f"x has shape {x.shape}, expected [n, c, h, w]")
    spatial = shapes.window2d(x.shape[2:], self.attr("kernel"), self.attr("strides"), self.attr("padding"), dilations)
    if min(spatial) < 1:
        raise Invalid(f"the window does not fit: input {x.shape}, kernel {self.attr('kernel')}, padding {self.attr('padding')}")
    expect_shape(y.shape, [*x.shape[:2], *spatial], "input and window")


class MaxPool2d(Base, name="max_pool2d", operands=("x",), attributes=_WINDOW | {"dilations": ints(2, 1)}):
    """Greatest element of each window; padding never wins."""

    def check(self) -> None:
        x, y = tensor(self.x, "x"), tensor(self.y, "result")
        _check_window(self, x, y, self.attr("dilations"))
        expect_same_elements(x, y)


class AvgPool2d(
    Base,
    name="avg_pool2d",
    operands=("x",),
    attributes=_WINDOW | {"count_include_pad": boolean(), "multipliers?": elements(), "clamp?": ints(2)},
):
    """Mean of each window; `count_include_pad` says whether padding counts in the divisor."""

    def check(self) -> None:
        x, y = tensor(self.x, "x"), tensor(self.y, "result")
        _check_window(self, x, y, [1, 1])
        _check_fixed(self)
        if is_quantized(x) and "multipliers" not in self.attributes:
            raise Invalid("attribute 'multipliers' is missing, expected one because the operand is quantized")


class Reduce(
    Base,
    name="reduce",
    operands=("x",),
    attributes={"kind": one_of(*REDUCE_KINDS), "axes": ints(None, 0), "keepdims": boolean()},
):
    """Reduction of float axes."""

    def check(self) -> None:
        x, y, axes = tensor(self.x, "x"), tensor(self.y, "result"), self.attr("axes")
        expect_float(x, "x")
        expect_axes(axes, len(x.shape))
        if self.attr("keepdims"):
            expect_shape(y.shape, [1 if i in axes else s for i, s in enumerate(x.shape)], "axes and keepdims")
        else:
            expect_shape(y.shape, [s for i, s in enumerate(x.shape) if i not in axes], "axes without keepdims")


SOFTMAX_ONE = (1 << 15) - 1
"""What exp(0) is in the table of a quantized softmax: sums of rows of up to 65536 such integers stay below 2^31."""
SOFTMAX_LONGEST = 1 << 16


class Softmax(Base, name="softmax", operands=("x",), attributes={"axis": integer(0), "table?": elements(), "multiplier?": elements()}):
    """exp(x - max) / sum(exp(x - max)) along `axis`: float, or on stored integers of at most 8 bits with `table` and `multiplier`.

    Quantized: e = table[max - x] with table[d] = rint(exp(-d * scale of x) * SOFTMAX_ONE), and
    y = clamp(rint(f32(e) * (multiplier / f32(sum(e)))) + zero point of y), where multiplier = f32(1 / scale of y).
    """

    def check(self) -> None:
        x, table = tensor(self.x, "x"), self.attr("table", None)
        expect_axes([self.attr("axis")], len(x.shape))
        if table is None:
            expect_float(x, "x")
            check_same(self)
            return
        expect_shape(tensor(self.y, "result").shape, x.shape, "the operand")
        for name in ("x", "y"):
            kind = element_types.affine(getattr(self, name).type)
            if kind is None or kind.bits > 8 or kind.scales.size != 1:
                raise Invalid(f"'{name}' is {getattr(self, name).type}, expected a quantized tensor of at most 8 bits and one scale")
        kind = element_types.affine(self.x.type)
        assert kind is not None
        if table.size != kind.qmax - kind.qmin + 1:
            raise Invalid(f"'table' has {table.size} entries, expected {kind.qmax - kind.qmin + 1} for differences from 0")
        if table.min() < 0 or table.max() > SOFTMAX_ONE:
            raise Invalid(f"'table' has entries {table.min()}..{table.max()}, expected 0..{SOFTMAX_ONE}")
        if x.shape[self.attr("axis")] > SOFTMAX_LONGEST:
            raise Invalid(f"axis {self.attr('axis')} of x has length {x.shape[self.attr('axis')]}, expected at most {SOFTMAX_LONGEST}")


DYNAMIC_LONGEST = 1 << 16
"""Longest reduction of a dynamically quantized product: sums of u8 times s8 stay below 2^31."""


_DYNAMIC = {"rows?": one_of("symmetric", "asymmetric"), "epsilon?": number()}


class RoundDynamic(Base, name="round_dynamic", operands=("x",), attributes=_DYNAMIC):
    """x rounded to 256 levels from the least to the greatest of its elements and 0: ONNX DynamicQuantizeLinear, then dequantized.

    low = min(0, min x); high = max(0, max x); scale = (high - low) / 255, or 1 where that is 0; zero = clamp(rint(-low / scale), 0, 255);
    y = (clamp(rint(x / scale) + zero, 0, 255) - zero) * scale.
    With `rows`, every row (last axis) has a range of its own, as torchao does it: scale = max((high - low) / 255, epsilon), or symmetric
    max(max(-low, high) / 127.5, epsilon) with zero = 128, and x is multiplied by 1 / scale.
    """

    def check(self) -> None:
        expect_float(tensor(self.x, "x"), "x")
        check_same(self)
        _check_rows(self, tensor(self.x, "x"))


def _check_rows(op: Any, x: ir.RankedTensorType) -> None:
    if op.attr("rows") is not None and (not x.shape or not op.attr("epsilon", 0) > 0):
        raise Invalid(f"'rows' with x {x} and epsilon {op.attr('epsilon')}, expected x of one axis or more and an epsilon above 0")


class DynamicLinear(Base, name="dynamic_linear", operands=("x", "w", "bias?"), attributes=_DYNAMIC):
    """linear(round_dynamic(x), dequantize(w), bias) with an exact integer sum, x [..., in], w [out, in] of at most 8 bits.

    y = f32(sum (q - zero) * (w - zw)) * (scale * sw) + bias with q, zero and scale of `round_dynamic`: ONNX MatMulInteger, Cast, Mul.
    """

    def check(self) -> None:
        x, w = tensor(self.x, "x"), tensor(self.w, "w")
        expect_float(x, "x")
        kind = element_types.affine(w)
        if kind is None or kind.bits > 8 or kind.block is not None or kind.axis not in (None, 0) or len(w.shape) != 2:
            raise Invalid(f"'w' is {w}, expected [out, in] quantized to at most 8 bits, per tensor or along axis 0")
        if not x.shape or x.shape[-1] != w.shape[1] or w.shape[1] > DYNAMIC_LONGEST:
            raise Invalid(f"x has shape {list(x.shape)} and w {list(w.shape)}, expected equal last axes of at most {DYNAMIC_LONGEST}")
        expect_shape(tensor(self.y, "result").shape, [*x.shape[:-1], w.shape[0]], "x and w")
        if self.bias is not None and list(tensor(self.bias, "bias").shape) != [w.shape[0]]:
            raise Invalid(f"'bias' has shape {list(tensor(self.bias, 'bias').shape)}, expected [{w.shape[0]}]")
        _check_rows(self, x)


class LayerNorm(Base, name="layer_norm", operands=("x", "gamma", "beta"), attributes={"axes": integer(1), "epsilon": number()}):
    """Normalisation over the last `axes` axes, then * gamma + beta."""

    def check(self) -> None:
        check_norm(self, gamma=self.gamma, beta=self.beta)


class RmsNorm(Base, name="rms_norm", operands=("x", "gamma?"), attributes={"axes": integer(1), "epsilon": number()}):
    """x over the root mean square of its last `axes` axes, then * gamma: a layer norm that does not take off the mean."""

    def check(self) -> None:
        check_norm(self, gamma=self.gamma)


class Attention(Base, name="attention", operands=("q", "k", "v", "mask?"), attributes={"scale": number(), "causal": boolean()}):
    """softmax(q k^T * scale + mask) v, with q [..., t, d], k [..., s, d], v [..., s, e]."""

    def check(self) -> None:
        q, k, v, y = (tensor(getattr(self, name), name) for name in ("q", "k", "v", "y"))
        for name, kind in zip(("q", "k", "v"), (q, k, v), strict=True):
            expect_float(kind, name)
        if min(len(kind.shape) for kind in (q, k, v)) < 2 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
            raise Invalid(f"q, k and v have shapes {q.shape}, {k.shape} and {v.shape}, expected [..., t, d], [..., s, d], [..., s, e]")
        batch = shapes.broadcast(q.shape[:-2], k.shape[:-2], v.shape[:-2])
        expect_shape(y.shape, batch if batch is None else [*batch, q.shape[-2], v.shape[-1]], "q, k and v")


class Embedding(Base, name="embedding", operands=("table", "ids")):
    """Rows of `table` [vocabulary, width] selected by integer `ids`; those below 0 count from the end."""

    def check(self) -> None:
        table, ids, y = tensor(self.table, "table"), tensor(self.ids, "ids"), tensor(self.y, "result")
        if not is_integer(ids):
            raise Invalid(f"'ids' has elements {ids.element_type}, expected integers")
        expect_shape(y.shape, [*ids.shape, *table.shape[1:]], "ids and table")
        expect_same_elements(table, y)


class Reshape(Base, name="reshape", operands=("x",)):
    """Same elements in the same order, another shape."""

    def check(self) -> None:
        x, y = tensor(self.x, "x"), tensor(self.y, "result")
        count = [1, 1]
        for i, kind in enumerate((x, y)):
            for size in kind.shape:
                count[i] *= size
        if count[0] != count[1]:
            raise Invalid(f"shapes {x.shape} and {y.shape} have {count[0]} and {count[1]} elements")
        expect_same_elements(x, y)


class Transpose(Base, name="transpose", operands=("x",), attributes={"permutation": ints(None, 0)}):
    """numpy.transpose(x, permutation)."""

    def check(self) -> None:
        x, y, order = tensor(self.x, "x"), tensor(self.y, "result"), self.attr("permutation")
        if sorted(order) != list(range(len(x.shape))):
            raise Invalid(f"'permutation' is {order}, expected an order of {len(x.shape)} axes")
        expect_shape(y.shape, [x.shape[i] for i in order], "the permutation")
        expect_same_elements(x, y)


class Slice(Base, name="slice", operands=("x",), attributes={"offsets": ints(None, 0), "strides": ints(None, 1)}):
    """x[offset : offset + stride * size : stride] per axis; sizes are the result's shape."""

    def check(self) -> None:
        x, y = tensor(self.x, "x"), tensor(self.y, "result")
        offsets, strides = self.attr("offsets"), self.attr("strides")
        if not len(x.shape) == len(y.shape) == len(offsets) == len(strides):
            raise Invalid(f"'offsets' is {offsets} and 'strides' {strides}, expected one entry per axis of {x.shape}")
        for axis, (o, s, size) in enumerate(zip(offsets, strides, y.shape, strict=True)):
            if size and o + s * (size - 1) >= x.shape[axis]:
                raise Invalid(f"axis {axis} reads up to index {o + s * (size - 1)}, expected below {x.shape[axis]}")
        expect_same_elements(x, y)


class Pad(Base, name="pad", operands=("x",), attributes={"low": ints(None, 0), "high": ints(None, 0), "value?": number()}):
    """Constant padding; a quantized tensor is padded with its zero point."""

    def check(self) -> None:
        x, y = tensor(self.x, "x"), tensor(self.y, "result")
        expect_shape(
            y.shape,
            [lo + s + hi for lo, s, hi in zip(self.attr("low"), x.shape, self.attr("high"), strict=True)],
            "low and high",
        )


class Broadcast(Base, name="broadcast", operands=("x",)):
    """numpy.broadcast_to the result's shape."""

    def check(self) -> None:
        x, y = tensor(self.x, "x"), tensor(self.y, "result")
        if shapes.broadcast(x.shape, y.shape) != list(y.shape):
            raise Invalid(f"shape {x.shape} does not broadcast to {y.shape}")
        expect_same_elements(x, y)
