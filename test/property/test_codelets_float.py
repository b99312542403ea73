"""Float codelets: bit for bit where the reference states the order of operations, within a tolerance for sums of products."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qcc.dialects.qcc import UNARY_KINDS
from test.property.test_codelets import ISAS, _kind, _stored, _tensor
from test.property.tiled_executor import Text, check, dense, quantized
from test.tiers import slow_except


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    "kind", slow_except(UNARY_KINDS, "gelu", "exp", "log", "rsqrt", "mish", "sign", "round", "round_bf16", "sin", "round_e4m3")
)
def test_unary_functions_agree_bit_for_bit(isa: str, kind: str) -> None:
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.standard_normal(2000) * 3, rng.standard_normal(500) * 40, [0.0, np.inf, -np.inf, 1e-30, 3e38, np.nan]])
    x = values.astype(np.float32)
    if kind in ("sin", "cos"):
        x = x[np.isfinite(x) & (np.abs(x) < 30000)]
    t = Text()
    a = t.argument(_tensor(x.shape, "f32"))
    check(t.module(t.op("qcc.unary", [a], _tensor(x.shape, "f32"), f'kind = "{kind}"')), [x], isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ["leaky_relu", "elu", "hardsigmoid"])
def test_unary_functions_with_alpha(isa: str, kind: str) -> None:
    t = Text()
    a = t.argument(_tensor([3, 50], "f32"))
    y = t.op("qcc.unary", [a], _tensor([3, 50], "f32"), f'kind = "{kind}", alpha = 0.3 : f64')
    check(t.module(y), [np.random.default_rng(2).standard_normal((3, 50)).astype(np.float32)], isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("shape", "axis"),
    slow_except([((3, 40), 1), ((2, 3, 5), 2), ((2, 7, 3), 1), ((4, 16), 1), ((1, 1), 0), ((20, 128), 1)], ((3, 40), 1), ((2, 7, 3), 1)),
)
def test_softmax(isa: str, shape: Any, axis: int) -> None:
    t = Text()
    x = t.argument(_tensor(shape, "f32"))
    y = t.op("qcc.softmax", [x], _tensor(shape, "f32"), f"axis = {axis} : i64")
    q = t.op("qcc.quantize", [y], _tensor(shape, quantized(8, False, 0.00390625, 0)))
    check(t.module(y, q), [np.random.default_rng(3).standard_normal(shape).astype(np.float32) * 5], isa)
    check(t.module(q), [np.random.default_rng(3).standard_normal(shape).astype(np.float32) * 5], isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("shape", "axis", "bits", "signed"),
    [
        ((3, 40), 1, (8, 8), (False, False)),
        ((2, 7, 3), 1, (8, 8), (True, False)),
        ((5, 128), 1, (8, 8), (False, True)),
        ((4, 197), 1, (7, 8), (True, True)),
        ((2, 3, 64), 2, (4, 5), (False, True)),
        ((3, 1), 1, (8, 8), (False, False)),
    ],
)
def test_softmax_of_stored_integers(isa: str, shape: Any, axis: int, bits: Any, signed: Any) -> None:
    rng = np.random.default_rng(11)
    t = Text()
    x = t.argument(_tensor(shape, quantized(bits[0], signed[0], 0.08, 3)))
    table = np.rint(np.exp(-0.08 * np.arange(1 << bits[0])) * 32767).astype(int).tolist()
    attributes = f"axis = {axis} : i64, multiplier = dense<200.0> : tensor<1xf32>, table = dense<{table}> : tensor<{1 << bits[0]}xi16>"
    y = t.op("qcc.softmax", [x], _tensor(shape, quantized(bits[1], signed[1], 0.005, -5 if signed[1] else 2)), attributes)
    check(t.module(y), [_stored(rng, shape, bits[0], signed[0])], isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("shape", "out", "scale"),
    slow_except(
        [((3, 40), 5, 1.0), ((2, 70, 33), 48, 30.0), ((1, 4), 1, 0.0), ((5, 16), 20, 1e-3), ((130, 300), 17, 2.0)], ((3, 40), 5, 1.0)
    ),
)
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("rows", [None, "symmetric", "asymmetric"])
def test_dynamic_linear(isa: str, shape: Any, out: int, scale: float, signed: bool, rows: str | None) -> None:
    """Quantized by the range of x or of each row, multiplied in integers, with a zero point of the weights where they are unsigned."""
    rng = np.random.default_rng(12)
    t = Text()
    x = t.argument(_tensor(shape, "f32"))
    kind = "!quant.uniform<i8:f32:0, {" + ",".join(f"{s:.6f}" for s in rng.uniform(0.01, 0.1, out)) + "}>"
    w = t.constant(_stored(rng, (out, shape[-1]), 8, signed), _tensor([out, shape[-1]], kind if signed else quantized(8, False, 0.03, 77)))
    bias = t.constant(rng.standard_normal(out).astype(np.float32), _tensor([out], "f32"))
    given = "" if rows is None else f'rows = "{rows}", epsilon = 1.0e-7 : f64'
    y = t.op("qcc.dynamic_linear", [x, w, bias], _tensor([*shape[:-1], out], "f32"), given)
    y = t.op("qcc.clamp", [y], _tensor([*shape[:-1], out], "f32"), "min = -2.0 : f64, max = 9.0 : f64")
    z = t.op("qcc.round_dynamic", [x], _tensor(shape, "f32"), given)
    check(t.module(y, z), [(rng.standard_normal(shape) * scale + scale).astype(np.float32)], isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("shape", "axes"), [((3, 40), 1), ((2, 5, 33), 1), ((2, 3, 4, 5), 2), ((2, 8), 1)])
def test_layer_norm(isa: str, shape: Any, axes: int) -> None:
    rng = np.random.default_rng(4)
    t = Text()
    x = t.argument(_tensor(shape, "f32"))
    gamma, beta = (t.constant(rng.standard_normal(shape[-axes:]).astype(np.float32), _tensor(shape[-axes:], "f32")) for _ in range(2))
    y = t.op("qcc.layer_norm", [x, gamma, beta], _tensor(shape, "f32"), f"axes = {axes} : i64, epsilon = 1.0e-5 : f64")
    check(t.module(y), [rng.standard_normal(shape).astype(np.float32)], isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("behind", slow_except(["nothing", "gamma", "quantize"], "gamma"))
@pytest.mark.parametrize(("shape", "axes"), [((3, 40), 1), ((2, 5, 133), 1), ((2, 3, 4, 5), 2), ((1, 768), 1), ((40, 512), 1)])
def test_rms_norm(isa: str, shape: Any, axes: int, behind: str) -> None:
    rng = np.random.default_rng(4)
    t = Text()
    x = t.argument(_tensor(shape, "f32"))
    gamma = t.constant(rng.standard_normal(shape[-axes:]).astype(np.float32), _tensor(shape[-axes:], "f32"))
    operands = [x] if behind == "nothing" else [x, gamma]
    y = t.op("qcc.rms_norm", operands, _tensor(shape, "f32"), f"axes = {axes} : i64, epsilon = 1.0e-6 : f64")
    if behind == "quantize":
        y = t.op("qcc.quantize", [y], _tensor(shape, quantized(8, True, 0.02, 3)))
    check(t.module(y), [rng.standard_normal(shape).astype(np.float32)], isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", slow_except(["mean", "sum", "max", "min"], "mean", "max"))
@pytest.mark.parametrize(
    ("shape", "axes", "keep"), [((2, 3, 20), [2], False), ((2, 3, 5, 7), [2, 3], True), ((4, 33), [0], False), ((3, 4), [0, 1], True)]
)
def test_reduce(isa: str, kind: str, shape: Any, axes: list[int], keep: bool) -> None:
    out = [1 if i in axes else s for i, s in enumerate(shape) if keep or i not in axes]
    t = Text()
    x = t.argument(_tensor(shape, "f32"))
    attributes = f'kind = "{kind}", axes = array<i64: {", ".join(map(str, axes))}>, keepdims = {str(keep).lower()}'
    y = t.op("qcc.reduce", [x], _tensor(out, "f32"), attributes)
    check(t.module(y), [np.random.default_rng(5).standard_normal(shape).astype(np.float32)], isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("mask", slow_except(["none", "float", "bool"], "bool"))
@pytest.mark.parametrize("causal", [False, True])
def test_attention(isa: str, mask: str, causal: bool) -> None:
    rng = np.random.default_rng(6)
    t = Text()
    shapes = [(2, 3, 9, 8), (2, 3, 9, 8), (2, 3, 9, 20)]
    operands = [t.argument(_tensor(s, "f32")) for s in shapes]
    inputs = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    if mask != "none":
        operands.append(t.argument(_tensor([9, 9], "f32" if mask == "float" else "i1")))
        inputs.append(rng.standard_normal((9, 9)).astype(np.float32) if mask == "float" else np.tri(9, dtype=np.bool_))
    y = t.op("qcc.attention", operands, _tensor([2, 3, 9, 20], "f32"), f"scale = 0.35 : f64, causal = {str(causal).lower()}")
    check(t.module(y), inputs, isa, tolerance=1e-5)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("queries, keys, depth, width", [(1, 40, 32, 48), (3, 37, 16, 160), (8, 5, 64, 64), (2, 1, 16, 16)])
@pytest.mark.parametrize("mask", slow_except(["none", "prefix", "noise"], "prefix"))
def test_attention_of_few_queries(isa: str, queries: int, keys: int, depth: int, width: int, mask: str) -> None:
    """Keys of one head for all, values in another order; masks that leave whole vectors of keys out."""
    rng = np.random.default_rng(14)
    t = Text()
    shapes = [(2, 3, queries, depth), (2, 1, keys, depth), (keys, 2, 3, width)]
    q, k, v = (t.argument(_tensor(s, "f32")) for s in shapes)
    v = t.op("qcc.transpose", [v], _tensor([2, 3, keys, width], "f32"), "permutation = array<i64: 1, 2, 0, 3>")
    inputs = [rng.standard_normal(s).astype(np.float32) * 2 for s in shapes]
    operands = [q, k, v]
    if mask != "none":
        operands.append(t.argument(_tensor([2, 1, queries, keys], "f32")))
        hidden = np.arange(keys) >= 1 + keys // 2 if mask == "prefix" else rng.random(keys) < 0.7
        hidden[0] = False
        inputs.append(np.broadcast_to(np.where(hidden, -np.inf, rng.standard_normal(keys)), (2, 1, queries, keys)).astype(np.float32))
    y = t.op("qcc.attention", operands, _tensor([2, 3, queries, width], "f32"), "scale = 0.35 : f64, causal = false")
    check(t.module(y), inputs, isa, tolerance=1e-5)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("groups", slow_except([1, 2, 6], 2))
def test_float_convolution_and_clamp(isa: str, groups: int) -> None:
    rng = np.random.default_rng(7)
    t = Text()
    x = t.argument(_tensor([1, 6, 9, 7], "f32"))
    w = t.constant(rng.standard_normal((6, 6 // groups, 3, 3)).astype(np.float32), _tensor([6, 6 // groups, 3, 3], "f32"))
    bias = t.constant(rng.standard_normal(6).astype(np.float32), _tensor([6], "f32"))
    attributes = f"strides = array<i64: 2, 1>, padding = array<i64: 1, 1, 0, 1>, dilations = array<i64: 1, 1>, groups = {groups} : i64"
    y = t.op("qcc.conv2d", [x, w, bias], _tensor([1, 6, 4, 7], "f32"), attributes)
    y = t.op("qcc.clamp", [y], _tensor([1, 6, 4, 7], "f32"), "min = 0.0 : f64, max = 6.0 : f64")
    check(t.module(y), [rng.standard_normal((1, 6, 9, 7)).astype(np.float32)], isa, tolerance=1e-4)


@pytest.mark.parametrize("isa", ISAS)
def test_float_linear_with_elementwise_epilogue(isa: str) -> None:
    rng = np.random.default_rng(8)
    t = Text()
    x, r = t.argument(_tensor([2, 5, 20], "f32")), t.argument(_tensor([5, 30], "f32"))
    w = t.constant(rng.standard_normal((30, 20)).astype(np.float32), _tensor([30, 20], "f32"))
    y = t.op("qcc.linear", [x, w], _tensor([2, 5, 30], "f32"))
    y = t.op("qcc.unary", [y], _tensor([2, 5, 30], "f32"), 'kind = "gelu"')
    y = t.op("qcc.sub", [r, y], _tensor([2, 5, 30], "f32"))
    check(
        t.module(y),
        [rng.standard_normal((2, 5, 20)).astype(np.float32), rng.standard_normal((5, 30)).astype(np.float32)],
        isa,
        tolerance=1e-4,
    )


@pytest.mark.parametrize("isa", ISAS)
def test_movement(isa: str) -> None:
    """reshape, transpose, slice, pad, broadcast and concat of a quantized image, with a convolution that wants a border behind them."""
    rng = np.random.default_rng(9)
    kind = quantized(8, True, 0.1, 5)
    t = Text()
    x = t.argument(_tensor([2, 3, 6, 8], kind))
    y = t.op("qcc.transpose", [x], _tensor([2, 6, 3, 8], kind), "permutation = array<i64: 0, 2, 1, 3>")
    y = t.op("qcc.slice", [y], _tensor([2, 3, 3, 7], kind), "offsets = array<i64: 0, 1, 0, 1>, strides = array<i64: 1, 2, 1, 1>")
    y = t.op("qcc.pad", [y], _tensor([2, 3, 4, 9], kind), "low = array<i64: 0, 0, 0, 2>, high = array<i64: 0, 0, 1, 0>")
    z = t.op("qcc.reshape", [y], _tensor([2, 4, 3, 9], kind))
    z = t.op("tensor.concat", [y, y], _tensor([2, 3, 8, 9], kind), "dim = 2 : i64")
    w = t.constant(_stored(rng, (5, 3, 3, 3), 4, True), _tensor([5, 3, 3, 3], quantized(4, True, 0.1, 1)))
    attributes = "strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64"
    acc = t.op("qcc.conv2d", [z, w], _tensor([2, 5, 8, 9], "i32"), attributes)
    flat = t.op("qcc.reshape", [acc], _tensor([10, 72], "i32"))
    one = t.op("qcc.slice", [flat], _tensor([1, 72], "i32"), "offsets = array<i64: 3, 0>, strides = array<i64: 1, 1>")
    many = t.op("qcc.broadcast", [one], _tensor([4, 72], "i32"))
    check(t.module(many, z), [_stored(rng, (2, 3, 6, 8), 8, True)], isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("signed", [False, True])
def test_lut_and_embedding(isa: str, bits: int, signed: bool) -> None:
    rng = np.random.default_rng(10)
    kind = _kind(rng, bits, signed)
    t = Text()
    ids = t.argument(_tensor([2, 7], "i64"))
    table = t.constant(_stored(rng, (11, 70), bits, signed), _tensor([11, 70], kind))
    rows = t.op("qcc.embedding", [table, ids], _tensor([2, 7, 70], kind))
    entries = _stored(rng, (1 << bits,), 8, True)
    y = t.op("qcc.lut", [rows], _tensor([2, 7, 70], quantized(8, True, 0.3, 0)), f"table = {dense(entries, 'i8')}")
    check(t.module(y, rows), [rng.integers(-11, 11, (2, 7))], isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bits, groups, zeros", [(8, 1, False), (4, 2, False), (4, 2, True), (12, 1, True)])
def test_rows_of_a_quantized_table_are_dequantized_once_chosen(isa: str, bits: int, groups: int, zeros: bool) -> None:
    rng = np.random.default_rng(12)
    entries = [[f"{rng.uniform(0.1, 2):.6f}:{rng.integers(-3, 4) if zeros else 0}" for _ in range(groups)] for _ in range(11)]
    axes = "0" if groups == 1 else f"{{0:1, 1:{70 // groups}}}"
    parts = ", ".join(row[0] if groups == 1 else "{" + ", ".join(row) + "}" for row in entries)
    t = Text()
    ids = t.argument(_tensor([2, 7], "i64"))
    kind = f"!quant.uniform<i{bits}:f32:{axes}, {{{parts}}}>"
    table = t.op("qcc.dequantize", [t.constant(_stored(rng, (11, 70), bits, True), _tensor([11, 70], kind))], _tensor([11, 70], "f32"))
    rows = t.op("qcc.embedding", [table, ids], _tensor([2, 7, 70], "f32"))
    tiled = check(t.module(rows), [rng.integers(-11, 11, (2, 7))], isa)
    assert "memref<11x70xf32>" not in tiled.text, "the table is as it was stored"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape, axis, count", [((3, 7, 70), 1, 2), ((11, 5), 0, 3), ((2, 3, 4), 2, 1), ((40, 6, 1200), 1, 1)])
def test_insert(isa: str, shape: tuple[int, ...], axis: int, count: int) -> None:
    """Rows from a transposed place, positions from either end that repeat."""
    rng = np.random.default_rng(13)
    t = Text()
    inserted = [count if i == axis else n for i, n in enumerate(shape)]
    x, rows = t.argument(_tensor(shape, "f32")), t.argument(_tensor(inserted[::-1], "f32"))
    positions = t.argument(_tensor([count], "i64"))
    order = ", ".join(map(str, reversed(range(len(shape)))))
    turned = t.op("qcc.transpose", [rows], _tensor(inserted, "f32"), f"permutation = array<i64: {order}>")
    y = t.op("qcc.insert", [x, turned, positions], _tensor(shape, "f32"), f"axis = {axis}")
    again = t.op("qcc.add", [y, x], _tensor(shape, "f32"))  # x is still what it was
    given = [rng.standard_normal(s).astype(np.float32) for s in (shape, inserted[::-1])]
    check(t.module(y, again), [*given, rng.integers(-shape[axis], shape[axis], count)], isa)


@pytest.mark.parametrize("isa", ISAS)
def test_per_channel_quantize_and_dequantize(isa: str) -> None:
    t = Text()
    x = t.argument(_tensor([2, 3, 20], "f32"))
    kind = "!quant.uniform<i8:f32:1, {0.5:3, 0.25, 0.125:-7}>"
    q = t.op("qcc.quantize", [x], _tensor([2, 3, 20], kind))
    y = t.op("qcc.dequantize", [q], _tensor([2, 3, 20], "f32"))
    special = np.random.default_rng(11).standard_normal((2, 3, 20)).astype(np.float32) * 30
    special[0, 0, :4] = np.inf, -np.inf, np.nan, 1e30
    check(t.module(q, y), [special], isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("groups", slow_except([1, 2], 2))
@pytest.mark.parametrize("integer", [False, True])
def test_computed_weights(isa: str, groups: int, integer: bool) -> None:
    """Weights and bias that are arguments, of a convolution and of a linear layer."""
    rng = np.random.default_rng(12)
    t = Text()
    kinds = [_kind(rng, 8, True), _kind(rng, 8, False)] if integer else ["f32", "f32"]
    acc = "i32" if integer else "f32"

    def data(shape: tuple[int, ...], signed: bool) -> np.ndarray:
        return _stored(rng, shape, 8, signed) if integer else rng.standard_normal(shape).astype(np.float32)

    x, w = t.argument(_tensor([2, 4, 7, 6], kinds[0])), t.argument(_tensor([38, 4 // groups, 3, 2], kinds[1]))
    bias = t.argument(_tensor([38], acc))
    attributes = f"strides = array<i64: 1, 1>, padding = array<i64: 1, 0, 1, 1>, dilations = array<i64: 1, 1>, groups = {groups} : i64"
    y = t.op("qcc.conv2d", [x, w, bias], _tensor([2, 38, 7, 6], acc), attributes)
    rows, matrix = t.argument(_tensor([3, 20], kinds[0])), t.argument(_tensor([37, 20], kinds[1]))
    z = t.op("qcc.linear", [rows, matrix], _tensor([3, 37], acc))
    values = rng.integers(-99, 99, 38).astype(np.int32) if integer else rng.standard_normal(38).astype(np.float32)
    inputs = [data((2, 4, 7, 6), True), data((38, 4 // groups, 3, 2), False), values, data((3, 20), True), data((37, 20), False)]
    check(t.module(y, z), inputs, isa, tolerance=0 if integer else 1e-4)


@pytest.mark.parametrize("isa", ISAS)
def test_dequantized_constant(isa: str) -> None:
    rng = np.random.default_rng(13)
    t = Text()
    x = t.argument(_tensor([3, 20], "f32"))
    kind = "!quant.uniform<i4:f32:0, {0.5, 0.25, 0.125:-7}>"
    w = t.op("qcc.dequantize", [t.constant(_stored(rng, (3, 20), 4, True), _tensor([3, 20], kind))], _tensor([3, 20], "f32"))
    text = t.module(t.op("qcc.linear", [x, w], _tensor([3, 3], "f32")))
    check(text, [rng.standard_normal((3, 20)).astype(np.float32)], isa, tolerance=1e-5, activations="float")


@pytest.mark.parametrize("isa", ISAS)
def test_softmax_of_nan_and_infinity(isa: str) -> None:
    """One NaN, or two infinities, make the whole row NaN; -infinity is a weight of 0."""
    x = np.random.default_rng(13).standard_normal((5, 150)).astype(np.float32)
    x[0, 70], x[1, 149], x[2, 3], x[3, 5:9] = np.nan, np.nan, np.inf, -np.inf
    t = Text()
    a = t.argument(_tensor(x.shape, "f32"))
    check(t.module(t.op("qcc.softmax", [a], _tensor(x.shape, "f32"), "axis = 1 : i64")), [x], isa)
