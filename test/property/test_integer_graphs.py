"""Random networks of many quantized layers: the integer form equals the graph form exactly where binary32 makes no rounding errors.

All scales are powers of two and all biases integers, so that the graph form's float arithmetic is exact and every rounding falls on the
same number in both forms. What differs is then a wrong pattern, not a rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from qcc.compiler import pipeline
from qcc.compiler.options import CompileOptions
from qcc.dialects import element_types, forms
from qcc.dialects.mlir import create_context, ir, op_attribute, parse_module, walk
from qcc.passes.base import PassContext, Stage, run_pipeline
from qcc.runtime.reference import interpreter
from test.tiers import draws

CONTEXT = create_context()
SIZE = 4  # height and width of every image


@dataclass
class Value:
    """A float SSA value [1, channels, 4, 4]; `quantized` is what it was dequantized from ('' for a layer's own result)."""

    name: str
    channels: int
    quantized: bool


class Network:
    """Builds module text, one random layer at a time."""

    def __init__(self, data: st.DataObject) -> None:
        self.data, self.rng = data, np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
        self.lines: list[str] = []
        self.values: list[Value] = []
        self.count = 0
        self.input_type = f"tensor<1x3x{SIZE}x{SIZE}x{self.element()}>"
        self.values.append(self.dequantized("%x", self.input_type, 3))

    def pick(self, *choices: object) -> object:
        return self.data.draw(st.sampled_from(choices))

    def element(self) -> str:
        bits, signed = self.data.draw(st.integers(3, 8)), self.data.draw(st.booleans())
        low = -(1 << (bits - 1)) if signed else 0
        zero = low + self.data.draw(st.integers(0, (1 << bits) - 1))
        return f"!quant.uniform<{'i' if signed else 'u'}{bits}:f32, {2.0 ** self.data.draw(st.integers(-4, 0))}:{zero}>"

    def real(self, channels: int) -> str:
        return f"tensor<1x{channels}x{SIZE}x{SIZE}xf32>"

    def emit(self, text: str, kind: str) -> str:
        self.count += 1
        self.lines.append(f"%{self.count} = {text} -> {kind}")
        return f"%{self.count}"

    def dequantized(self, name: str, kind: str, channels: int) -> Value:
        return Value(self.emit(f'"qcc.dequantize"({name}) : ({kind})', self.real(channels)), channels, True)

    def choose(self) -> Value:
        """An earlier value, mostly a recent and quantized one."""
        recent = [v for v in self.values if v.quantized][-3:]
        return self.data.draw(st.sampled_from(recent if self.data.draw(st.integers(0, 3)) else self.values))

    def layer(self) -> None:
        make = self.pick(self.conv, self.conv, self.join, self.join, self.unary, self.pool, self.move, self.concat, self.clamp)
        value = make()  # type: ignore[operator]
        if self.pick(True, False):
            value = self.clamp(value)
        if self.pick(True, True, True, False):
            kind = f"tensor<1x{value.channels}x{SIZE}x{SIZE}x{self.element()}>"
            stored = self.emit(f'"qcc.quantize"({value.name}) : ({self.real(value.channels)})', kind)
            if self.pick(True, True, False):
                self.values.append(value)  # its real value may be used as well
            value = self.dequantized(stored, kind, value.channels)
        self.values.append(value)

    def conv(self) -> Value:
        x = next(v for v in (self.choose(), *reversed(self.values)) if v.quantized)
        depthwise = bool(self.pick(True, False))
        outputs = x.channels if depthwise else self.data.draw(st.integers(1, 4))
        shape = [outputs, 1 if depthwise else x.channels, *([3, 3] if self.pick(True, False) else [1, 1])]
        pad = shape[2] // 2
        per_channel = bool(self.pick(True, False))
        zero = self.data.draw(st.integers(-3, 3))
        scales = [2.0 ** -int(v) for v in self.rng.integers(0, 4, outputs)]
        given = ",".join(f"{s}:{zero}" for s in scales)
        w_element = f"!quant.uniform<i4:f32:0, {{{given}}}>" if per_channel else f"!quant.uniform<i4:f32, {scales[0]}:{zero}>"
        w_type, w_real = (f"tensor<{'x'.join(map(str, shape))}x{e}>" for e in (w_element, "f32"))
        values = self.rng.integers(-8, 8, shape).tolist()
        w = self.emit(f'"qcc.constant"() {{value = dense<{values}> : tensor<{"x".join(map(str, shape))}xi8>}} : ()', w_type)
        w = self.emit(f'"qcc.dequantize"({w}) : ({w_type})', w_real)
        bias = self.emit(
            f'"qcc.constant"() {{value = dense<{[float(v) for v in self.rng.integers(-20, 20, outputs)]}> : tensor<{outputs}xf32>}} : ()',
            f"tensor<{outputs}xf32>",
        )
        attributes = (
            f"strides = array<i64: 1, 1>, padding = array<i64: {pad}, {pad}, {pad}, {pad}>, dilations = array<i64: 1, 1>, "
            f"groups = {x.channels if depthwise else 1} : i64"
        )
        operands = f"{x.name}, {w}, {bias}" if self.pick(True, False) else f"{x.name}, {w}"
        types = f"{self.real(x.channels)}, {w_real}" + (f", tensor<{outputs}xf32>" if bias in operands else "")
        return Value(self.emit(f'"qcc.conv2d"({operands}) {{{attributes}}} : ({types})', self.real(outputs)), outputs, False)

    def join(self) -> Value:
        a = self.choose()
        b = self.data.draw(st.sampled_from([v for v in self.values if v.channels == a.channels]))
        name = self.pick("add", "sub") if not (a.quantized and b.quantized) else self.pick("add", "sub", "mul")
        kind = self.real(a.channels)
        return Value(self.emit(f'"qcc.{name}"({a.name}, {b.name}) : ({kind}, {kind})', kind), a.channels, False)

    def unary(self) -> Value:
        x, kind = self.choose(), self.pick("abs", "neg", "sign")
        return Value(
            self.emit(f'"qcc.unary"({x.name}) {{kind = "{kind}"}} : ({self.real(x.channels)})', self.real(x.channels)), x.channels, False
        )

    def pool(self) -> Value:
        x = self.choose()
        kind = self.real(x.channels)
        if self.pick(True, False):
            window = "kernel = array<i64: 3, 3>, strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>"
            return Value(
                self.emit(f'"qcc.max_pool2d"({x.name}) {{{window}, dilations = array<i64: 1, 1>}} : ({kind})', kind), x.channels, False
            )
        window = "kernel = array<i64: 2, 2>, strides = array<i64: 1, 1>, padding = array<i64: 1, 0, 0, 1>, count_include_pad = true"
        return Value(self.emit(f'"qcc.avg_pool2d"({x.name}) {{{window}}} : ({kind})', kind), x.channels, False)

    def move(self) -> Value:
        x = self.choose()
        c, kind = x.channels, self.real(x.channels)
        match self.pick("transpose", "reshape", "pad"):
            case "transpose":
                name = self.emit(f'"qcc.transpose"({x.name}) {{permutation = array<i64: 0, 1, 3, 2>}} : ({kind})', kind)
            case "reshape":
                flat = f"tensor<{c * SIZE * SIZE}xf32>"
                name = self.emit(f'"qcc.reshape"({x.name}) : ({kind})', flat)
                name = self.emit(f'"qcc.reshape"({name}) : ({flat})', kind)
            case _:
                wide = f"tensor<1x{c}x{SIZE + 1}x{SIZE}xf32>"
                pads = "low = array<i64: 0, 0, 1, 0>, high = array<i64: 0, 0, 0, 0>, value = 0.0"
                name = self.emit(f'"qcc.pad"({x.name}) {{{pads}}} : ({kind})', wide)
                cut = "offsets = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1, 1, 1>"
                name = self.emit(f'"qcc.slice"({name}) {{{cut}}} : ({wide})', kind)
        return Value(name, c, False)

    def concat(self) -> Value:
        a, b = self.choose(), self.choose()
        channels = a.channels + b.channels
        if channels > 6:
            return self.unary()
        kinds = f"{self.real(a.channels)}, {self.real(b.channels)}"
        return Value(self.emit(f"tensor.concat dim(1) {a.name}, {b.name} : ({kinds})", self.real(channels)), channels, False)

    def clamp(self, value: Value | None = None) -> Value:
        x = value or self.choose()
        top = self.pick("6.0", "0x7FF0000000000000 : f64")
        kind = self.real(x.channels)
        return Value(self.emit(f'"qcc.clamp"({x.name}) {{min = 0.0, max = {top}}} : ({kind})', kind), x.channels, False)

    def text(self) -> str:
        results = self.values[-2:]
        names, kinds = ", ".join(v.name for v in results), ", ".join(self.real(v.channels) for v in results)
        body = "\n".join(self.lines)
        return f"func.func @main(%x: {self.input_type}) -> ({kinds}) {{\n{body}\nreturn {names} : {kinds}\n}}"


@draws(60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_integer_form_equals_graph_form(data: st.DataObject) -> None:
    network = Network(data)
    for _ in range(data.draw(st.integers(1, 7))):
        network.layer()
    module = parse_module(network.text(), CONTEXT)
    with CONTEXT, ir.Location.unknown():
        kind = next(walk(module, "qcc.dequantize")).operands[0].type
        affine = element_types.affine(kind)
        assert affine is not None
        inputs = [
            network.rng.integers(affine.qmin, affine.qmax + 1, kind.shape).astype(element_types.storage_dtype(kind)) for _ in range(3)
        ]
        before = [interpreter.run(module, [x]) for x in inputs]
        stages = next(stages for name, stages in pipeline.forms(CompileOptions()) if name == "integer")
        run_pipeline(module, stages)
        forms.check("integer", module)
        for op in walk(module, "qcc.conv2d"):
            assert isinstance(ir.RankedTensorType(op.results[0].type).element_type, ir.IntegerType), str(op)
        after = [interpreter.run(module, [x]) for x in inputs]
        for one, other in zip(before, after, strict=True):
            for a, b in zip(one, other, strict=True):
                np.testing.assert_array_equal(a, b, err_msg=network.text() + "\n" + str(module))
        context = PassContext()
        run_pipeline(module, [Stage("lower-requantize-to-fixed")], context)
        for op in walk(module):  # powers of two are exact in fixed point as well
            assert op_attribute(op, "mode", "fixed") == "fixed"
        for x, one in zip(inputs, before, strict=True):
            for a, b in zip(one, interpreter.run(module, [x]), strict=True):
                np.testing.assert_array_equal(a, b)
