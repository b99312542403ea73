"""`propagate-bitwidth` is sound (no accumulator leaves its type) and attained (one bit less would overflow for some input)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from qcc.dialects import element_types, shapes
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import create_context, ir, parse_module, walk
from qcc.passes.base import PassContext, make_pass
from qcc.runtime.reference import interpreter
from test.tiers import draws

QUICK = draws(40, suppress_health_check=[HealthCheck.too_slow])
CONTEXT = create_context()


def _activation(data: st.DataObject) -> tuple[str, int, int, int]:
    """A per-tensor type as text, its range and zero point."""
    bits, signed = data.draw(st.integers(1, 8)), data.draw(st.booleans())
    least = -(1 << (bits - 1)) if signed else 0
    low = data.draw(st.integers(least, least + (1 << bits) - 2))
    high = data.draw(st.integers(low + 1, least + (1 << bits) - 1))
    zero = data.draw(st.integers(low, high))
    return f"!quant.uniform<{'i' if signed else 'u'}{bits}<{low}:{high}>:f32, 1.0:{zero}>", low, high, zero


def _module(text: str) -> ir.Module:
    return parse_module(text, CONTEXT)


def _run_pass(module: ir.Module, options: str = "") -> PassContext:
    context = PassContext()
    with CONTEXT, ir.Location.unknown():
        make_pass("propagate-bitwidth", options).run(module, context)
    assert module.operation.verify()
    return context


def _dense(values: np.ndarray) -> str:
    element = f"{'u' if values.dtype.kind == 'u' else ''}i{values.itemsize * 8}"
    return f"dense<{values.tolist()}> : tensor<{'x'.join(map(str, values.shape))}x{element}>"


@QUICK
@given(st.data())
def test_products_with_constant_weights(data: st.DataObject) -> None:
    kind, low, high, zero = _activation(data)
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    groups, inputs, outputs = (data.draw(st.integers(1, 2)) for _ in range(3))
    pad = data.draw(st.integers(0, 1))
    w = rng.integers(-8, 8, [groups * outputs, inputs, 2, 1]).astype(np.int8)
    w_zero = data.draw(st.integers(-2, 2))
    bias = rng.integers(-500, 500, groups * outputs).astype(np.int32)
    shape = [1, groups * inputs, 3, 2]
    out = shapes.conv2d(shape, w.shape, [1, 1], [pad] * 4, [1, 1])
    x_type, w_type = (
        f"tensor<{'x'.join(map(str, shape))}x{kind}>",
        f"tensor<{'x'.join(map(str, w.shape))}x!quant.uniform<i8:f32, 1.0:{w_zero}>>",
    )
    y = "x".join(map(str, out))
    module = _module(f"""func.func @main(%x: {x_type}) -> tensor<{y}xf32> {{
      %w = "qcc.constant"() {{value = {_dense(w)}}} : () -> {w_type}
      %b = "qcc.constant"() {{value = {_dense(bias)}}} : () -> tensor<{len(bias)}xi32>
      %a = "qcc.conv2d"(%x, %w, %b) {{strides = array<i64: 1, 1>, padding = array<i64: {pad}, {pad}, {pad}, {pad}>,
        dilations = array<i64: 1, 1>, groups = {groups} : i64}} : ({x_type}, {w_type}, tensor<{len(bias)}xi32>) -> tensor<{y}xi32>
      %f = "qcc.dequantize"(%a) {{multiplier = dense<1.0> : tensor<1xf32>}} : (tensor<{y}xi32>) -> tensor<{y}xf32>
      return %f : tensor<{y}xf32> }}""")
    context = _run_pass(module)
    product = next(walk(module, "qcc.conv2d"))
    bits = product.results[0].type.element_type.width
    claimed = context.facts[""]["accumulator_range"]
    seen = []
    with CONTEXT, ir.Location.unknown():
        dtype = element_types.storage_dtype(product.operands[0].type)
    centred = w.astype(np.int64) - w_zero
    for channel in range(len(bias)):  # the inputs that drive one channel to its bounds, and random ones
        for sign in (1, -1):
            x = np.full(shape, zero)
            group = channel // outputs
            taps = sign * centred[channel] > 0  # [inputs, 2, 1]
            chosen = np.where(taps, high, low)[:, :, 0]  # [inputs, 2]: one window at rows 0..1
            x[0, group * inputs : (group + 1) * inputs, 0:2, 0] = chosen
            seen += _accumulators(module, x.astype(dtype))
    seen += _accumulators(module, rng.integers(low, high + 1, shape).astype(dtype))
    assert claimed[0] <= min(seen) and max(seen) <= claimed[1]
    if not pad or low <= zero <= high:
        assert (min(seen), max(seen)) == tuple(claimed)  # attained
        assert min(seen) < -(1 << (bits - 2)) or max(seen) > (1 << (bits - 2)) - 1 or bits == 1  # one bit less would not do


def _accumulators(module: ir.Module, x: np.ndarray) -> list[int]:
    """Extremes of every accumulator for input `x`; the interpreter itself raises where one leaves its type."""
    found: list[int] = []

    def look(op: Any, results: list[np.ndarray]) -> None:
        if op.name in ("qcc.conv2d", "qcc.linear", "qcc.matmul"):
            found.extend((int(results[0].min()), int(results[0].max())))

    interpreter.run(module, [x], on_op=look)
    return found


@QUICK
@given(st.data())
def test_chains_keep_their_results(data: st.DataObject) -> None:
    """Linear, requantize, residual sum, table, requantize, linear: tightened clamps and narrow types change no output bit."""
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    kind, low, high, _ = _activation(data)
    mid, _, _, _ = _activation(data)
    end, _, _, _ = _activation(data)
    fixed = data.draw(st.booleans())
    m = (lambda v: f"dense<{round(v * 2**20)}> : tensor<1xi32>") if fixed else (lambda v: f"dense<{v}> : tensor<1xf32>")
    ms = (
        (lambda a, b: f"dense<[{round(a * 2**20)}, {round(b * 2**20)}]> : tensor<2xi32>")
        if fixed
        else (lambda a, b: f"dense<[{a}, {b}]> : tensor<2xf32>")
    )
    mode = 'mode = "fixed", rounding = "half_away", shift = dense<20> : tensor<1xi32>' if fixed else 'mode = "f32"'
    with CONTEXT, ir.Location.unknown():
        affine = element_types.affine(ir.Type.parse(mid))
        x_dtype, mid_dtype = (element_types.storage_dtype(ir.Type.parse(t)) for t in (kind, mid))
    assert affine is not None
    steps = np.sort(rng.integers(affine.qmin, affine.qmax + 1, affine.qmax - affine.qmin + 1)).astype(mid_dtype)
    table = _dense(steps)
    w, v = (rng.integers(-8, 8, [3, 3]).astype(np.int8) for _ in range(2))
    a, b, c, d = (float(np.float32(rng.uniform(0.02, 1.5))) for _ in range(4))
    name = data.draw(st.sampled_from(["add", "sub", "mul"]))
    multipliers = ms(b, c) if name != "mul" else m(b)
    wt = "!quant.uniform<i8:f32, 1.0>"
    text = f"""func.func @main(%x: tensor<4x3x{kind}>) -> tensor<4x3x{end}> {{
      %w = "qcc.constant"() {{value = {_dense(w)}}} : () -> tensor<3x3x{wt}>
      %v = "qcc.constant"() {{value = {_dense(v)}}} : () -> tensor<3x3x{wt}>
      %0 = "qcc.linear"(%x, %w) : (tensor<4x3x{kind}>, tensor<3x3x{wt}>) -> tensor<4x3xi32>
      %1 = "qcc.requantize"(%0) {{multiplier = {m(a)}, {mode}}} : (tensor<4x3xi32>) -> tensor<4x3x{mid}>
      %2 = "qcc.requantize"(%x) {{multiplier = {m(d)}, {mode}}} : (tensor<4x3x{kind}>) -> tensor<4x3x{mid}>
      %3 = "qcc.{name}"(%1, %2) {{multipliers = {multipliers}, {mode}}} : (tensor<4x3x{mid}>, tensor<4x3x{mid}>) -> tensor<4x3x{mid}>
      %4 = "qcc.lut"(%3) {{table = {table}}} : (tensor<4x3x{mid}>) -> tensor<4x3x{mid}>
      %5 = "qcc.transpose"(%4) {{permutation = array<i64: 1, 0>}} : (tensor<4x3x{mid}>) -> tensor<3x4x{mid}>
      %6 = "qcc.transpose"(%5) {{permutation = array<i64: 1, 0>}} : (tensor<3x4x{mid}>) -> tensor<4x3x{mid}>
      %7 = "qcc.linear"(%6, %v) : (tensor<4x3x{mid}>, tensor<3x3x{wt}>) -> tensor<4x3xi32>
      %8 = "qcc.requantize"(%7) {{multiplier = {m(b)}, {mode}}} : (tensor<4x3xi32>) -> tensor<4x3x{end}>
      %9 = "qcc.requantize"(%8) {{multiplier = {m(c)}, {mode}}} : (tensor<4x3x{end}>) -> tensor<4x3x{end}>
      return %9 : tensor<4x3x{end}> }}"""
    module = _module(text)
    inputs = [rng.integers(low, high + 1, [4, 3]).astype(x_dtype) for _ in range(4)]
    inputs += [np.full([4, 3], low, x_dtype), np.full([4, 3], high, x_dtype)]
    before = [interpreter.run(module, [x])[0] for x in inputs]
    _run_pass(module)
    after = [interpreter.run(module, [x])[0] for x in inputs]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_given_input_range_narrows_the_accumulator() -> None:
    text = """func.func @main(%x: tensor<1x1x!quant.uniform<u8:f32, 1.0>>) -> tensor<1x1xf32> {
      %w = "qcc.constant"() {value = dense<1> : tensor<1x1xi8>} : () -> tensor<1x1x!quant.uniform<i8:f32, 1.0>>
      %a = "qcc.linear"(%x, %w) : (tensor<1x1x!quant.uniform<u8:f32, 1.0>>, tensor<1x1x!quant.uniform<i8:f32, 1.0>>) -> tensor<1x1xi32>
      %f = "qcc.dequantize"(%a) {multiplier = dense<1.0> : tensor<1xf32>} : (tensor<1x1xi32>) -> tensor<1x1xf32>
      return %f : tensor<1x1xf32> }"""
    for options, width in (("", 9), ("input-low=0 input-high=7", 4)):
        module = _module(text)
        context = _run_pass(module, options)
        assert next(walk(module, "qcc.linear")).results[0].type.element_type.width == width
        assert context.facts[""]["accumulator_bits"] == width
    with pytest.raises(QccError, match="which i4 cannot hold"):
        interpreter.run(module, [np.array([[8]], np.uint8)])
